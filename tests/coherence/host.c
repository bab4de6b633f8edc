/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What devices and the host do. Pages are those of the host's address space (world.h). */
#include "tests/coherence/steps.h"

#include <errno.h>

#include <gnomon/mmu_notifier.h>

#include "notifier/sync/bug.h"
#include "notifier/sync/util.h"

#define RW (MM_PROT_READ | MM_PROT_WRITE)

static int slot_of(int page)
{
	return page >= FIRST_PRIVATE ? 2 : page >= FIRST_SHARED ? 1 : 0;
}

static int first_page(int slot)
{
	return slot == 2 ? FIRST_PRIVATE : slot == 1 ? FIRST_SHARED : 0;
}

/* Contents that are gone. */
static void zeroed(struct world *w, int page)
{
	for (int word = 0; word < NR_WORDS; word++)
		history_set(w, &w->word[page][word], 0);
}

/* --- devices */

/* @value at @word of what @at shows, by gpa, and told of; 0 or an error. */
static int write_gpa(struct world *w, int at, int word, uint64_t value)
{
	int slot = slot_of(at);
	uint64_t placed = history_now(&w->slot[slot]);
	gpa_t gpa = (PLACED_GFN(placed) + at - first_page(slot)) << PAGE_SHIFT;

	if (!placed)
		return -ENXIO;
	return shadow_write_gpa(w->g.shadow, gpa + word * 8, &value, sizeof(value));
}

/*
 * A device writes @word of @page: to a table the entry @to, @flags. how: 1, and says so later, or
 * never. Until it does, what a table said before counts as well.
 */
static void apply_device(struct world *w, const struct op *op)
{
	uint64_t shows = history_now(&w->shows[op->page]);
	uint64_t placed = history_now(&w->slot[slot_of(op->page)]);
	int page = SHOWN_PAGE(shows);
	bool untold = op->how && is_table(op->page);
	bool may = (SHOWN_PROT(shows) & MM_PROT_WRITE) && placed && !PLACED_RO(placed);
	uint64_t value = is_table(op->page) ? entry_of(op->to, op->flags)
					    : first_stamp(126, op->word) | ++w->stamps << 1;
	int ret;

	if (untold && w->untold >= 0)
		return;
	if (untold)
		ret = mm_write(w->g.mm, hva_of(op->page) + op->word * 8, &value, sizeof(value));
	else
		ret = write_gpa(w, op->page, op->word, value);
	if (may != !ret)
		differ("a device's store to page %d: %d", op->page, ret);
	if (ret)
		return;
	history_begin(w, &w->word[page][op->word], value);
	if (untold) {
		w->untold = op->page;
		w->untold_word = op->word;
		w->untold_value = value;
	} else {
		history_end(w, &w->word[page][op->word], value);
	}
}

static void apply_tell(struct world *w)
{
	uint64_t value;

	if (w->untold < 0)
		return;
	shadow_gpte_written(w->g.shadow, ((gpa_t)w->untold << PAGE_SHIFT) + w->untold_word * 8, 8);
	value = guest_read(&w->g, ((gpa_t)w->untold << PAGE_SHIFT) + w->untold_word * 8);
	history_set(w, &w->word[w->untold][w->untold_word], value);
	w->untold = -1;
}

/* --- the host's memory */

static void apply_zap(struct world *w, int page)
{
	if (mm_zap_range(w->g.mm, hva_of(page), PAGE_SIZE) >= 0 && page >= FIRST_PRIVATE)
		zeroed(w, page);
}

static void apply_unmap(struct world *w, int page)
{
	struct history *h = &w->shows[page];
	int ret;

	history_begin(w, h, 0);
	ret = mm_munmap(w->g.mm, hva_of(page), PAGE_SIZE);
	ASSERT(!ret, "munmap: %d", ret);
	history_end(w, h, 0);
	if (page >= FIRST_PRIVATE)
		zeroed(w, page);
}

/* to: which page of the shared object. */
static void apply_map(struct world *w, int page, int to)
{
	bool shared = page < FIRST_PRIVATE;
	struct history *h = &w->shows[page];
	uint64_t shows = SHOWS(shared ? FIRST_SHARED + to : page, RW);
	int ret;

	history_begin(w, h, shows);
	ret = mm_mmap_flags(w->g.mm, hva_of(page), PAGE_SIZE, RW,
			    shared ? MM_MAP_FIXED : MM_MAP_FIXED | MM_MAP_PRIVATE,
			    shared ? w->object : NULL, shared ? to : 0);
	ASSERT(!ret, "mmap: %d", ret);
	history_end(w, h, shows);
	if (shared)
		return;
	zeroed(w, page);
	ret = mm_madvise(w->g.mm, hva_of(page), PAGE_SIZE, MM_MADV_MERGEABLE);
	ASSERT(!ret, "madvise: %d", ret);
}

static void apply_protect(struct world *w, int page, unsigned int prot)
{
	struct history *h = &w->shows[page];
	uint64_t shows = history_now(h);
	int ret;

	if (!shows)
		return;
	shows = SHOWS(SHOWN_PAGE(shows), prot);
	history_begin(w, h, shows);
	ret = mm_mprotect(w->g.mm, hva_of(page), PAGE_SIZE, prot);
	ASSERT(!ret, "mprotect: %d", ret);
	history_end(w, h, shows);
}

/* With threads nobody knows what it was at that moment: it is what the child reads first. */
static void read_child(struct child *child, int i)
{
	for (int word = 0; word < NR_WORDS; word++) {
		hva_t hva = hva_of(FIRST_PRIVATE + i) + word * 8;

		if (mm_read(child->mm, hva, &child->words[i][word], 8)) {
			child->shows[i] = 0;
			return;
		}
	}
	child->shows[i] = SHOWS(FIRST_PRIVATE + i, RW);
}

static void apply_fork(struct world *w, struct child *child)
{
	if (child->mm || mm_fork(w->g.mm, &child->mm))
		return;
	for (int i = 0; i < SLOT_PAGES; i++) {
		if (w->threads) {
			read_child(child, i);
			continue;
		}
		child->shows[i] = history_now(&w->shows[FIRST_PRIVATE + i]);
		for (int word = 0; word < NR_WORDS; word++)
			child->words[i][word] = history_now(&w->word[FIRST_PRIVATE + i][word]);
	}
}

/* A child's memory is what it was at the fork. */
static void apply_exit(struct child *child)
{
	for (int i = 0; child->mm && i < SLOT_PAGES; i++) {
		for (int word = 0; word < NR_WORDS; word++) {
			hva_t hva = hva_of(FIRST_PRIVATE + i) + word * 8;
			uint64_t value;

			if (!(SHOWN_PROT(child->shows[i]) & MM_PROT_READ))
				continue;
			if (mm_read(child->mm, hva, &value, sizeof(value)) ||
			    value != child->words[i][word])
				differ("a child's page %d lost word %d: 0x%llx", i, word,
				       (unsigned long long)value);
		}
	}
	if (child->mm)
		mmput(child->mm);
	child->mm = NULL;
}

static void apply_punch(struct world *w, int to)
{
	int ret = address_space_punch_hole(w->object, to, 1);

	ASSERT(!ret, "a hole: %d", ret);
	zeroed(w, FIRST_SHARED + to);
}

static void apply_age(struct world *w, int page, int how)
{
	hva_t hva = hva_of(page);

	if (how == 0)
		mmu_notifier_clear_flush_young(w->g.mm, hva, hva + PAGE_SIZE);
	else if (how == 1)
		mmu_notifier_clear_young(w->g.mm, hva, hva + PAGE_SIZE);
	else
		mmu_notifier_test_young(w->g.mm, hva);
}

/* --- slots */

/* page: the slot, 1 or 2. how: 0 it goes, 1 it is at its place, 2 at its other place; flags:
 * read-only. */
static void apply_slot(struct world *w, const struct op *op)
{
	struct history *h = &w->slot[op->page];
	gfn_t gfn = op->page == 2 ? SLOT2_GFN : op->how == 2 ? SLOT1_OTHER : SLOT1_GFN;
	uint64_t placed = op->how ? PLACED(gfn, op->flags) : 0;
	const struct memslot_region region = {.id = op->page,
					      .flags = op->flags ? MEMSLOT_READONLY : 0,
					      .base_gfn = gfn,
					      .npages = op->how ? SLOT_PAGES : 0,
					      .hva = hva_of(first_page(op->page))};
	int ret;

	if (!placed && !history_now(h))
		return;
	history_begin(w, h, placed);
	ret = shadow_set_memslot(w->g.shadow, &region);
	ASSERT(!ret, "slot %d: %d", op->page, ret);
	history_end(w, h, placed);
}

bool host_can(const struct op *op)
{
	return op->kind != OP_SLOT && op->kind != OP_POLICY;
}

void apply_host(struct world *w, const struct op *op)
{
	struct child *child = &w->children[op->to % MAX_CHILDREN];
	long ret = 0;

	switch (op->kind) {
	case OP_DEVICE:
		apply_device(w, op);
		break;
	case OP_TELL:
		apply_tell(w);
		break;
	case OP_MIGRATE: /* to: how many pages more */
		ret = mm_migrate_range(w->g.mm, hva_of(op->page), (op->to + 1UL) << PAGE_SHIFT);
		break;
	case OP_ZAP:
		apply_zap(w, op->page);
		break;
	case OP_UNMAP:
		apply_unmap(w, op->page);
		break;
	case OP_MAP:
		apply_map(w, op->page, op->to);
		break;
	case OP_PROTECT: /* how: MM_PROT_* */
		apply_protect(w, op->page, op->how);
		break;
	case OP_FORK: /* to: which child */
		apply_fork(w, child);
		break;
	case OP_EXIT:
		apply_exit(child);
		break;
	case OP_PAGEOUT:
		ret = mm_madvise(w->g.mm, hva_of(op->page), PAGE_SIZE, MM_MADV_PAGEOUT);
		break;
	case OP_MERGE:
		ksm_scan(w->ksm, 4 * SLOT_PAGES);
		break;
	case OP_PUNCH: /* to: which page of the object */
		apply_punch(w, op->to);
		break;
	case OP_CLEAN:
		mm_clear_soft_dirty(w->g.mm);
		break;
	case OP_AGE:
		apply_age(w, op->page, op->how);
		break;
	case OP_SLOT:
		apply_slot(w, op);
		break;
	default: /* how: which */
		shadow_set_zap_policy(w->g.shadow, op->how ? SHADOW_ZAP_SLOT : SHADOW_ZAP_ALL);
		break;
	}
	if (ret < 0 && ret != -ENOMEM)
		differ("%s of page %d: %ld", op_names[op->kind], op->page, ret);
}
