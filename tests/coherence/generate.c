/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Programs by seed. Edits mostly make sense, so that much is mapped; and what was edited last is
 * what is flushed and used most.
 */
#include "tests/coherence/generate.h"

#include "notifier/sync/util.h"

static int some_data_gfn(uint64_t *random)
{
	static const int base[] = {0, SLOT1_GFN, SLOT1_GFN, SLOT1_OTHER, SLOT2_GFN, SLOT2_GFN};
	int at = base[below(random, ARRAY_SIZE(base))];

	if (!below(random, 24))
		return NO_GFN;
	return at + below(random, at ? SLOT_PAGES : NR_RAM_DATA);
}

int some_table(uint64_t *random, int level)
{
	int page;

	do
		page = FIRST_TABLE + below(random, NR_TABLES);
	while (level && home_level(page) != level);
	return page;
}

/* Above the leaves less is forbidden, as it is for many. */
static int some_flags(uint64_t *random, int level)
{
	int seldom = level > 1 ? 3 : 1;
	int flags = below(random, 16 * seldom) ? EDIT_P : 0;

	flags |= below(random, 8 * seldom) ? EDIT_W : 0;
	flags |= below(random, 12 * seldom) ? EDIT_U : 0;
	flags |= below(random, 2) ? EDIT_A | EDIT_D : below(random, 4) * EDIT_A;
	flags |= below(random, 4) ? 0 : EDIT_G;
	flags |= below(random, 12 * seldom) ? 0 : EDIT_XD;
	flags |= below(random, 100 * seldom) ? 0 : EDIT_RESERVED;
	flags |= below(random, 8) ? 0 : below(random, 4) << EDIT_KEY_SHIFT;
	return flags;
}

/* An entry of @level: a table, a page, or a large page. */
void some_entry(uint64_t *random, int level, struct op *op)
{
	static const int large[] = {0, SLOT1_GFN, SLOT1_GFN, SLOT1_OTHER, SLOT2_GFN};

	op->flags = some_flags(random, level);
	if (!below(random, 30)) { /* anything */
		op->to = below(random, 2) ? some_table(random, 0) : some_data_gfn(random);
		op->flags |= below(random, 4) ? 0 : EDIT_PS;
	} else if (level == 1) {
		op->to = below(random, 12) ? some_data_gfn(random) : some_table(random, 0);
	} else if (level == 4 || below(random, 3)) {
		op->to = some_table(random, level - 1);
	} else {
		op->to = level == 2 ? large[below(random, ARRAY_SIZE(large))] : 0;
		op->flags |= EDIT_PS;
	}
}

static int some_gva(struct world *w, uint64_t *random)
{
	if (!below(random, 24))
		return LINEAR_GVA + below(random, 2 * RAM_PAGES);
	return below(random, 2) ? w->hot : (int)below(random, NR_WILD);
}

/* An entry on the way to @gva, of @stop or where it ends too early: its level, and where it is. */
int entry_of_gva(struct world *w, int cpu, int gva, int stop, struct op *op)
{
	int page = (int)(w->cpu[cpu].state.cr3 >> PAGE_SHIFT);

	for (int level = SDM_PML4E;; level--) {
		uint64_t entry;

		op->page = page;
		op->word = gva_of(gva) >> (12 + 9 * (level - 1)) & 511;
		entry = history_now(&w->word[page][op->word]);
		page = (int)((entry & 0x000ffffffffff000UL) >> PAGE_SHIFT);
		if (!(entry & SDM_P) || sdm_maps_page(entry, level) || level == stop ||
		    page < FIRST_TABLE || page >= FIRST_TABLE + NR_TABLES)
			return level;
	}
}

/* The page of host memory that @gva may lead to; -1: none. */
int page_of_gva(struct world *w, int cpu, int gva)
{
	struct op at;
	int level = entry_of_gva(w, cpu, gva, 1, &at);
	uint64_t entry = history_now(&w->word[at.page][at.word]), gfn;

	if (!(entry & SDM_P) || !sdm_maps_page(entry, level))
		return -1;
	gfn = (entry & 0x000ffffffffff000UL) >> PAGE_SHIFT;
	gfn |= gva_of(gva) >> PAGE_SHIFT & ((1UL << 9 * (level - 1)) - 1);
	for (int slot = 0; slot < NR_SLOTS; slot++) {
		static const int first[NR_SLOTS] = {0, FIRST_SHARED, FIRST_PRIVATE};
		uint64_t placed = history_now(&w->slot[slot]);

		if (placed && gfn >= PLACED_GFN(placed) &&
		    gfn < PLACED_GFN(placed) + (slot ? SLOT_PAGES : RAM_PAGES))
			return first[slot] + (int)(gfn - PLACED_GFN(placed));
	}
	return -1;
}

/* Also of A and D of the linear map itself. */
static void some_edit(struct world *w, uint64_t *random, struct op *op)
{
	unsigned int n = below(random, 24);

	op->how = below(random, 4);
	if (n == 0) {
		op->page = LINEAR_L1;
		op->word = below(random, RAM_PAGES);
		op->to = op->word;
		op->flags = EDIT_P | EDIT_W | below(random, 4) * EDIT_A;
	} else if (n < 6) {
		op->page = some_table(random, 0);
		op->word = below(random, 4);
		some_entry(random, home_level(op->page), op);
	} else {
		w->hot = below(random, 3) ? (int)below(random, NR_WILD) : w->hot;
		some_entry(random, entry_of_gva(w, op->cpu, w->hot, below(random, 6), op), op);
	}
}

static int slot_page(uint64_t *random)
{
	return FIRST_SHARED + below(random, NR_PAGES - FIRST_SHARED);
}

/* Only supervisors edit, and SMAP keeps them from users' pages: so that does not last. */
static int some_state(const struct guest_cpu *state, uint64_t *random)
{
	unsigned int n = below(random, 3);

	if (n == 0 && state->user)
		return 7;
	if (n == 1 && (state->cr4 & GUEST_CR4_SMAP))
		return 2;
	return below(random, 8);
}

static void some_cpu_op(struct world *w, uint64_t *random, struct op *op)
{
	unsigned int n = below(random, 64);

	op->cpu = below(random, w->nr_cpus);
	op->gva = some_gva(w, random);
	op->word = below(random, 4);
	op->how = below(random, 2);
	if (n < 22) {
		op->kind = OP_LOAD;
	} else if (n < 34) {
		op->kind = OP_STORE;
	} else if (n < 37) {
		op->kind = OP_FETCH;
	} else if (n < 50) {
		op->kind = OP_EDIT;
		some_edit(w, random, op);
	} else if (n < 54) {
		op->kind = OP_CR3;
		op->to = below(random, NR_ROOTS);
		op->flags = below(random, NR_PCIDS);
		op->how = !!below(random, 3);
	} else if (n < 57) {
		op->kind = OP_INVLPG;
	} else if (n < 59) {
		op->kind = OP_INVPCID;
		op->how = below(random, 4);
		op->flags = below(random, NR_PCIDS);
	} else {
		op->kind = OP_STATE;
		op->how = some_state(&w->cpu[op->cpu].state, random);
		op->flags = op->how == 6 ? below(random, 64) : 0;
	}
}

static void some_host_op(uint64_t *random, struct op *op)
{
	static const int kinds[] = {OP_DEVICE,	OP_DEVICE,  OP_DEVICE, OP_TELL,	   OP_TELL,
				    OP_MIGRATE, OP_MIGRATE, OP_ZAP,    OP_ZAP,	   OP_UNMAP,
				    OP_MAP,	OP_MAP,	    OP_MAP,    OP_PROTECT, OP_PROTECT,
				    OP_PROTECT, OP_FORK,    OP_EXIT,   OP_EXIT,	   OP_PAGEOUT,
				    OP_PAGEOUT, OP_MERGE,   OP_PUNCH,  OP_CLEAN,   OP_AGE,
				    OP_AGE,	OP_SLOT,    OP_SLOT,   OP_SLOT,	   OP_POLICY};

	op->kind = kinds[below(random, ARRAY_SIZE(kinds))];
	op->page = below(random, NR_PAGES);
	op->word = below(random, 4);
	op->how = below(random, 2);
	op->to = 0;
	switch (op->kind) {
	case OP_DEVICE:
		if (below(random, 2))
			op->page = some_table(random, 0);
		else if (op->page >= NR_RAM_DATA && op->page < FIRST_SHARED)
			op->page = slot_page(random);
		if (is_table(op->page))
			some_entry(random, home_level(op->page), op);
		break;
	case OP_MIGRATE:
		op->to = below(random, 6);
		op->to = op->page + op->to < RAM_PAGES ? op->to : 0;
		break;
	case OP_UNMAP:
	case OP_MAP:
		op->page = slot_page(random);
		op->to = below(random, SLOT_PAGES);
		break;
	case OP_PROTECT:
		op->page = slot_page(random);
		op->how = below(random, 4) ? (int)(MM_PROT_READ | MM_PROT_WRITE) : below(random, 2);
		break;
	case OP_FORK:
	case OP_EXIT:
		op->to = below(random, MAX_CHILDREN);
		break;
	case OP_PUNCH:
		op->to = below(random, SLOT_PAGES);
		break;
	case OP_AGE:
		op->how = below(random, 3);
		break;
	case OP_SLOT:
		op->page = 1 + below(random, 2);
		op->how = (below(random, 5) + 1) / 2;
		op->flags = !below(random, 4);
		break;
	default:
		break;
	}
}

void generate(struct world *w, uint64_t *random, struct op *op)
{
	*op = (struct op){0};
	if (planned(w, random, op))
		return;
	if (below(random, 5))
		some_cpu_op(w, random, op);
	else
		some_host_op(random, op);
	if (!below(random, 8))
		op->inside = 1 + below(random, NR_INSIDE);
}
