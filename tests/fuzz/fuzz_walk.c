/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The guest walk on arbitrary guest memory, against the reading of the manual (sdm_paging.h): the
 * same outcome, error code and page, and the same A and D bits, in all of memory. Where the access
 * faults not a bit may change, although the manual would allow it: ours leaves none.
 *
 * An input is a program of a few kinds of operation. They write entries where they like, so tables
 * may be each other's, their own, in ROM, beyond a CPU's physical width, or nowhere; and set the
 * CPU's state, which each access is judged by. Beside guest memory stands a plain copy of it.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shadow/shadow_internal.h"
#include "tests/fuzz/bytes.h"
#include "tests/paging/paging_guest.h"

#define WORDS	 (PAGE_SIZE / sizeof(uint64_t))
#define HIGH_GFN (1UL << 24) /* not to be had with 36 bits, the narrowest there are */

/* Guest memory: what slots show is private memory, at one stretch of host addresses. */
static const struct region {
	gfn_t gfn;
	unsigned int nr, first; /* pages; number of the first */
	unsigned int flags;
} regions[] = {{0, 12, 0, 0}, {64, 4, 12, MEMSLOT_READONLY}, {HIGH_GFN, 4, 16, 0}};

#define ADDRESS 0x000ffffffffff000ul /* in an entry */

#define NR_PAGES 20
#define HVA	 (GUEST_MEM_HVA << 4)

/* What entries name: memory, where none is, and where no CPU can reach. */
static const gfn_t targets[] = {
	0,
	1,
	2,
	3,
	4,
	5,
	6,
	7,
	8,
	9,
	10,
	11,
	HIGH_GFN,
	HIGH_GFN + 1,
	HIGH_GFN + 2,
	HIGH_GFN + 3,
	64,
	65,
	66,
	67,
	12,
	63,
	512,
	1UL << 18,
	1UL << 25,
	1UL << 30,
	1UL << 39,
};

static struct {
	struct guest_mem g;
	uint64_t plain[NR_PAGES][WORDS]; /* what must be there */
	bool used[NR_PAGES];
} * world;

static hva_t hva_of(unsigned int page)
{
	return HVA + ((hva_t)page << PAGE_SHIFT);
}

static void must(bool ok)
{
	if (!ok)
		abort();
}

static void world_create(void)
{
	static const uint64_t zeroes[WORDS];
	const struct guest_mem_config config = {.nr_pages = 1, .no_identity = true};

	world = calloc(1, sizeof(*world));
	must(world);
	guest_mem_init(&world->g, &config);
	must(!mm_mmap(world->g.mm, HVA, NR_PAGES << PAGE_SHIFT, MM_PROT_READ | MM_PROT_WRITE, NULL,
		      0));
	for (unsigned int page = 0; page < NR_PAGES; page++)
		must(!mm_write(world->g.mm, hva_of(page), zeroes, sizeof(zeroes)));
	world->g.model = model_create(world->g.phys, 1);
	must(world->g.model);
	must(!shadow_create(&world->g.shadow, world->g.mm, model_to_machine(world->g.model), 1));
	for (unsigned int i = 0; i < ARRAY_SIZE(regions); i++) {
		const struct memslot_region slot = {.id = i,
						    .flags = regions[i].flags,
						    .base_gfn = regions[i].gfn,
						    .npages = regions[i].nr,
						    .hva = hva_of(regions[i].first)};

		must(!shadow_set_memslot(world->g.shadow, &slot));
	}
}

/* All memory is 0 again. */
static void world_reset(void)
{
	for (unsigned int page = 0; page < NR_PAGES; page++) {
		if (!world->used[page])
			continue;
		memset(world->plain[page], 0, PAGE_SIZE);
		must(!mm_write(world->g.mm, hva_of(page), world->plain[page], PAGE_SIZE));
		world->used[page] = false;
	}
}

static void set_word(unsigned int page, unsigned int word, uint64_t value)
{
	world->plain[page][word] = value;
	world->used[page] = true;
	must(!mm_write(world->g.mm, hva_of(page) + word * sizeof(value), &value, sizeof(value)));
}

/* ---- an access, by the plain copy ---- */

struct place {
	int page; /* -1: no memory */
	unsigned int word;
	bool rom;
};

static struct place place_of(gpa_t gpa)
{
	for (unsigned int i = 0; i < ARRAY_SIZE(regions); i++) {
		const struct region *r = &regions[i];
		gfn_t gfn = gpa >> PAGE_SHIFT;

		if (gfn >= r->gfn && gfn < r->gfn + r->nr)
			return (struct place){.page = r->first + (gfn - r->gfn),
					      .word = gpa % PAGE_SIZE / sizeof(uint64_t),
					      .rom = r->flags};
	}
	return (struct place){.page = -1};
}

/* The entries on the way to the case's address, as far as it goes. */
static void find_entries(struct paging_case *c, struct place at[SDM_LEVELS])
{
	uint64_t table = sdm_root(&c->cpu);

	c->top = c->cpu.la57 ? SDM_PML5E : SDM_PML4E;
	for (c->leaf = c->top;; c->leaf--) {
		uint64_t *entry = &c->entry[c->leaf];

		at[c->leaf] = place_of(table + 8 * paging_case_index(c, c->leaf));
		*entry = 0;
		if (at[c->leaf].page >= 0)
			*entry = world->plain[at[c->leaf].page][at[c->leaf].word];
		if (!(*entry & SDM_P) || sdm_maps_page(*entry, c->leaf))
			return;
		table = *entry & ADDRESS;
	}
}

_Noreturn static void differ(const struct paging_case *c, const struct sdm_result *manual,
			     const char *who, const char *what)
{
	char line[1024], wanted[256];

	paging_case_format(c, line, sizeof(line));
	paging_result_format(manual, wanted, sizeof(wanted));
	fprintf(stderr, "%s\n  manual: %s\n  %s: %s\n", line, wanted, who, what);
	abort();
}

/* Who only looks comes to the same, and marks nothing, which access() sees. */
static void look(const struct paging_case *c, const struct sdm_result *manual)
{
	struct guest_cpu cpu = paging_guest_cpu(c);
	struct shadow *shadow = world->g.shadow;
	struct guest_walk w = {0};
	uint32_t code;
	char what[64];
	int id, ret;

	if (manual->outcome == SDM_NOT_CANONICAL)
		return;
	id = srcu_read_lock(&shadow->slots_srcu);
	ret = guest_walk_look(shadow, &cpu, c->access.address, &w, &code);
	srcu_read_unlock(&shadow->slots_srcu, id);
	snprintf(what, sizeof(what), "%d", ret);
	if (ret && ret != -EFAULT)
		differ(c, manual, "look", what);
	ret = guest_walk_allows(&cpu, paging_guest_access(&c->access), &w, &code);
	snprintf(what, sizeof(what), "%d, error code 0x%x", ret, code);
	if (!ret != (manual->outcome == SDM_DONE) || (ret && code != manual->error_code))
		differ(c, manual, "look", what);
}

static void expect_memory(const struct paging_case *c, const struct sdm_result *manual,
			  const struct place *at)
{
	char what[128];

	for (int level = c->top; level >= c->leaf; level--) {
		const struct place *p = &at[level];
		uint64_t is;

		if (p->page < 0)
			continue;
		must(!mm_read(world->g.mm, hva_of(p->page) + 8 * p->word, &is, sizeof(is)));
		snprintf(what, sizeof(what), "entry of level %d is 0x%lx, not 0x%lx", level, is,
			 world->plain[p->page][p->word]);
		if (is != world->plain[p->page][p->word])
			differ(c, manual, "walk", what);
	}
}

static void access_memory(struct paging_case *c)
{
	struct place at[SDM_LEVELS];
	struct sdm_result manual;
	char what[256];

	find_entries(c, at);
	sdm_access(&c->cpu, c->entry, &c->access, &manual);
	look(c, &manual);
	expect_memory(c, &manual, at);
	if (paging_walk_differs(world->g.shadow, c, &manual, what, sizeof(what)))
		differ(c, &manual, "walk", what);
	for (int level = c->top; level >= c->leaf; level--)
		if (at[level].page >= 0 && !at[level].rom)
			world->plain[at[level].page][at[level].word] |= manual.sets[level];
	expect_memory(c, &manual, at);
	c->number++;
}

/* What no walk came to has not changed either. */
static void expect_all_memory(void)
{
	for (unsigned int page = 0; page < NR_PAGES; page++) {
		uint64_t is[WORDS];

		must(!mm_read(world->g.mm, hva_of(page), is, sizeof(is)));
		if (memcmp(is, world->plain[page], sizeof(is)) != 0) {
			fprintf(stderr, "page %u has changed\n", page);
			abort();
		}
	}
}

/* ---- an input ---- */

static void set_cpu(struct sdm_cpu *cpu, struct bytes *b)
{
	unsigned int flags = take(b, 2);

	cpu->wp = flags & 1;
	cpu->smep = flags & 2;
	cpu->smap = flags & 4;
	cpu->pke = flags & 8;
	cpu->la57 = flags & 16;
	cpu->pcide = flags & 32;
	cpu->pge = flags & 64;
	cpu->nxe = flags & 128;
	cpu->ac = flags & 256;
	cpu->maxphyaddr = 36 + (flags >> 9) % 17;
	cpu->pkru = take(b, 4);
}

/* Any that a CPU with these physical addresses can have. */
static void set_cr3(struct sdm_cpu *cpu, struct bytes *b)
{
	cpu->cr3 = targets[take(b, 1) % ARRAY_SIZE(targets)] << PAGE_SHIFT | take(b, 2) % PAGE_SIZE;
	cpu->cr3 &= (1UL << cpu->maxphyaddr) - 1;
}

static uint64_t entry_value(struct bytes *b)
{
	uint64_t flags = take(b, 3), target = take(b, 1);

	if (target == 255)
		return take(b, 8);
	return (flags & 0xfff) | (flags >> 12) << 52 |
	       targets[target % ARRAY_SIZE(targets)] << PAGE_SHIFT;
}

/* An entry on the way to the address, or the last that the way comes to. */
static void set_entry(struct paging_case *c, struct bytes *b)
{
	struct place at[SDM_LEVELS];
	int level = 1 + take(b, 1) % SDM_PML5E;
	uint64_t value = entry_value(b);

	find_entries(c, at);
	if (level > c->top)
		level = c->top;
	if (level < c->leaf)
		level = c->leaf;
	if (at[level].page >= 0)
		set_word(at[level].page, at[level].word, value);
}

static void do_one(struct paging_case *c, struct bytes *b)
{
	unsigned int page, how;

	switch (take(b, 1) % 6) {
	case 0:
		c->access.address = take(b, 8);
		break;
	case 1:
		set_entry(c, b);
		break;
	case 2:
		page = take(b, 1) % NR_PAGES;
		how = take(b, 2) % WORDS;
		set_word(page, how, entry_value(b));
		break;
	case 3:
		how = take(b, 1);
		c->access.kind = how % 3;
		c->access.mode = how / 3 % 3;
		if (c->access.mode == SDM_IMPLICIT && c->access.kind == SDM_FETCH)
			c->access.kind = SDM_READ;
		access_memory(c);
		break;
	case 4:
		set_cpu(&c->cpu, b);
		c->cpu.cr3 &= (1UL << c->cpu.maxphyaddr) - 1;
		break;
	case 5:
		set_cr3(&c->cpu, b);
		break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct bytes b = {data, size};
	struct paging_case c = {.family = "fuzz",
				.cpu = {.maxphyaddr = 46, .gigabyte_pages = true}};

	if (!world)
		world_create();
	world_reset();
	while (b.left)
		do_one(&c, &b);
	expect_all_memory();
	return 0;
}
