/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/coherence/world.h"

#include <stdlib.h>

#include <gnomon/swap.h>

#include "notifier/sync/bug.h"
#include "notifier/sync/util.h"
#include "shadow/shadow_internal.h"

#define NR_FRAMES   1000 /* fewer than have a watermark */
#define SHARED_HVA  0x6000000000UL
#define PRIVATE_HVA 0x6100000000UL
#define STAMP	    (0x57UL << 56)

/* --- histories */

static struct known *history_find(const struct history *h, uint64_t value)
{
	for (unsigned int i = 0; i < h->nr; i++) {
		if (h->at[i].value == value)
			return &h->at[i];
	}
	return NULL;
}

void history_begin(struct world *w, struct history *h, uint64_t value)
{
	struct known *known;

	mutex_lock(&w->book);
	known = history_find(h, value);
	if (!known) {
		if (h->nr == h->room) {
			h->room = h->room ? 2 * h->room : 4;
			h->at = realloc(h->at, h->room * sizeof(*h->at));
			ASSERT(h->at, "out of memory");
		}
		known = &h->at[h->nr++];
		known->value = value;
	}
	known->until = FOREVER;
	mutex_unlock(&w->book);
}

void history_end(struct world *w, struct history *h, uint64_t value)
{
	struct known *known;
	uint64_t now;

	mutex_lock(&w->book);
	known = history_find(h, value);
	now = w->threads ? tick(w) : (uint64_t)atomic64_read(&w->now);
	for (unsigned int i = 0; i < h->nr; i++) {
		if (h->at[i].until == FOREVER)
			h->at[i].until = now;
	}
	known->until = FOREVER;
	h->now = known - h->at;
	mutex_unlock(&w->book);
}

void history_undo(struct world *w, struct history *h, uint64_t value)
{
	struct known *known;

	mutex_lock(&w->book);
	known = history_find(h, value);
	if (known != &h->at[h->now])
		known->until = atomic64_read(&w->now);
	mutex_unlock(&w->book);
}

void history_set(struct world *w, struct history *h, uint64_t value)
{
	history_begin(w, h, value);
	history_end(w, h, value);
}

bool history_had(const struct history *h, uint64_t value, uint64_t since)
{
	const struct known *known = history_find(h, value);

	return known && known->until >= since;
}

/* --- where things are */

gva_t gva_of(int gva)
{
	gva_t n = gva;

	if (gva >= LARGE_GVA)
		return (gva_t)LINEAR_INDEX << 39 | 1UL << 21 | (n - LARGE_GVA) << 12;
	if (gva >= LINEAR_GVA)
		return (gva_t)LINEAR_INDEX << 39 | (n - LINEAR_GVA) << 12;
	return (n >> 4 & 1) << 39 | (n >> 3 & 1) << 30 | (n >> 2 & 1) << 21 | (n & 3) << 12;
}

hva_t hva_of(int page)
{
	if (page >= FIRST_PRIVATE)
		return PRIVATE_HVA + ((hva_t)(page - FIRST_PRIVATE) << PAGE_SHIFT);
	if (page >= FIRST_SHARED)
		return SHARED_HVA + ((hva_t)(page - FIRST_SHARED) << PAGE_SHIFT);
	return guest_hva((gpa_t)page << PAGE_SHIFT);
}

int home_level(int page)
{
	static const signed char level[NR_TABLES] = {4, 4, 4, 3, 3, 3, 2, 2,
						     2, 2, 1, 1, 1, 1, 1, 1};

	return level[page - FIRST_TABLE];
}

uint64_t first_stamp(int page, int word)
{
	return STAMP | (uint64_t)page << 48 | (uint64_t)word << 40;
}

uint64_t entry_of(int to, int flags)
{
	static const uint64_t bits[] = {SDM_P,	SDM_RW, SDM_US, SDM_A,	  SDM_D,
					SDM_PS, SDM_G,	SDM_XD, 1UL << 50};
	uint64_t entry = (uint64_t)to << PAGE_SHIFT | SDM_KEY(flags >> EDIT_KEY_SHIFT & 15);

	for (size_t i = 0; i < ARRAY_SIZE(bits); i++)
		entry |= flags >> i & 1 ? bits[i] : 0;
	return entry;
}

/* --- the beginning and the end */

static void set_word(struct world *w, int page, int word, uint64_t value)
{
	ASSERT(!mm_write(w->g.mm, hva_of(page) + word * 8, &value, sizeof(value)), "page %d", page);
	if (w->threads && is_table(page))
		value &= ~(SDM_A | SDM_D);
	history_set(w, &w->word[page][word], value);
}

static void make_tables(struct world *w)
{
	const int link = EDIT_P | EDIT_W | EDIT_U | EDIT_A,
		  linear = EDIT_P | EDIT_W | EDIT_A | EDIT_D;

	for (int page = FIRST_TABLE; page < FIRST_TABLE + NR_TABLES; page++) {
		for (int word = 0; word < 4; word++) {
			int level = home_level(page), to = NO_GFN;

			/* Some of each level below. */
			for (int n = 0, i = FIRST_TABLE; i < FIRST_TABLE + NR_TABLES; i++) {
				if (level > 1 && home_level(i) == level - 1 &&
				    n++ == (page + word) % 3)
					to = i;
			}
			if (level == 1)
				to = (word & 1 ? SLOT1_GFN : SLOT2_GFN) +
				     (page + word) % SLOT_PAGES;
			set_word(w, page, word, entry_of(to, link | EDIT_D));
		}
	}
	for (int root = 0; root < NR_ROOTS; root++)
		set_word(w, FIRST_TABLE + root, LINEAR_INDEX, entry_of(LINEAR_L3, link));
	set_word(w, LINEAR_L3, 0, entry_of(LINEAR_L2, link));
	set_word(w, LINEAR_L2, 0, entry_of(LINEAR_L1, link));
	set_word(w, LINEAR_L2, 1, entry_of(0, linear | EDIT_PS));
	for (int page = 0; page < RAM_PAGES; page++)
		set_word(w, LINEAR_L1, page, entry_of(page, linear));
}

static void make_memory(struct world *w)
{
	struct mm_struct *mm = w->g.mm;
	const unsigned int rw = MM_PROT_READ | MM_PROT_WRITE;
	const uint64_t len = SLOT_PAGES << PAGE_SHIFT;

	w->object = address_space_create(w->g.phys, SLOT_PAGES);
	w->ksm = ksm_create(w->g.phys);
	ASSERT(w->object && w->ksm, "out of memory");
	ASSERT(!mm_mmap(mm, SHARED_HVA, len, rw, w->object, 0) &&
		       !mm_mmap(mm, PRIVATE_HVA, len, rw, NULL, 0) &&
		       !mm_madvise(mm, PRIVATE_HVA, len, MM_MADV_MERGEABLE),
	       "memory for the slots");
	for (int page = 0; page < NR_PAGES; page++) {
		bool data = page < NR_RAM_DATA || page >= FIRST_SHARED;

		history_set(w, &w->shows[page], SHOWS(page, rw));
		for (int word = 0; word < MAX_WORDS; word++)
			history_set(w, &w->word[page][word], 0);
		for (int word = 0; data && word < NR_WORDS; word++)
			set_word(w, page, word, first_stamp(page, word));
	}
	history_set(w, &w->slot[0], PLACED(0, 0));
	history_set(w, &w->slot[1], PLACED(SLOT1_GFN, 0));
	history_set(w, &w->slot[2], PLACED(SLOT2_GFN, 0));
	ASSERT(!shadow_create_memslot(w->g.shadow, 1, SLOT1_GFN, SLOT_PAGES, SHARED_HVA) &&
		       !shadow_create_memslot(w->g.shadow, 2, SLOT2_GFN, SLOT_PAGES, PRIVATE_HVA),
	       "slots");
}

static void start_cpu(struct world *w, int nr)
{
	struct cpu *cpu = &w->cpu[nr];

	cpu->state = *shadow_get_cpu(w->g.shadow, nr);
	cpu->state.cr4 |= GUEST_CR4_PCIDE;
	cpu->state.maxphyaddr = 46;
	cpu->state.cr3 = (uint64_t)FIRST_TABLE << PAGE_SHIFT;
	ASSERT(!shadow_set_cpu(w->g.shadow, nr, &cpu->state), "CPU %d", nr);
}

void world_create(struct world *w, unsigned int nr_cpus, unsigned int broken, bool threads,
		  bool audit, unsigned long budget)
{
	const struct guest_mem_config config = {.nr_cpus = nr_cpus,
						.nr_pages = RAM_PAGES,
						.nr_frames = NR_FRAMES,
						.broken = broken,
						.no_identity = true,
						.audit = audit,
						.reuse = MODEL_REUSE_LIFO};

	*w = (struct world){.nr_cpus = nr_cpus, .threads = threads, .untold = -1};
	mutex_init(&w->book);
	mutex_init(&w->edit);
	guest_mem_create(&w->g, &config);
	w->swap = !phys_swap_on(w->g.phys, getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp", 256);
	make_memory(w);
	make_tables(w);
	for (unsigned int cpu = 0; cpu < nr_cpus; cpu++)
		start_cpu(w, cpu);
	if (budget)
		ASSERT(!shadow_set_page_budget(w->g.shadow, budget), "a budget");
}

void world_destroy(struct world *w)
{
	struct model_stats stats;
	char why[256];

	if ((w->g.config.audit || w->threads) && shadow_audit(w->g.shadow, why, sizeof(why)))
		differ("audit: %s", why);
	model_get_stats(w->g.model, &stats);
	if (stats.contract_violations)
		differ("%llu violations of the machine's contract",
		       (unsigned long long)stats.contract_violations);
	for (int i = 0; i < MAX_CHILDREN; i++) {
		if (w->children[i].mm)
			mmput(w->children[i].mm);
	}
	guest_mem_detach(&w->g);
	mmput(w->g.mm);
	w->g.mm = NULL;
	ksm_destroy(w->ksm);
	address_space_put(w->object);
	address_space_put(w->g.ram);
	w->g.ram = NULL;
	if (w->swap)
		ASSERT(!phys_swap_off(w->g.phys), "nothing is swapped out");
	for (int page = 0; page < NR_PAGES; page++) {
		for (int word = 0; word < MAX_WORDS; word++)
			free(w->word[page][word].at);
		free(w->shows[page].at);
	}
	for (int slot = 0; slot < NR_SLOTS; slot++)
		free(w->slot[slot].at);
	guest_mem_destroy(&w->g);
}
