/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The model machine bites as model.h says, on tables made by hand: without the shadow MMU, so that
 * a test of the shadow MMU that passes on it means something.
 */
#include <errno.h>
#include <string.h>

#include "tests/model/model_internal.h"
#include "tests/support/test.h"

#define RIGHTS (HW_PRESENT | HW_WRITE | HW_USER)
#define GVA    0x40201000UL /* index 1 in all tables but the root */

struct fixture {
	struct phys *phys;
	struct model_machine *m;
	struct machine *machine;
	pfn_t root, dir3, dir2, table; /* what GVA is reached through */
	pfn_t page;
	pfn_t ours[8]; /* frames to give back: pages, and tables that were not */
	unsigned int nr_ours;
};

static uint64_t *entry(struct fixture *f, pfn_t table, gva_t gva, int level)
{
	return (uint64_t *)phys_map(f->phys, table) + ((gva >> (12 + 9 * (level - 1))) & 511);
}

static void set(struct fixture *f, pfn_t table, gva_t gva, int level, uint64_t value)
{
	__atomic_store_n(entry(f, table, gva, level), value, __ATOMIC_RELEASE);
}

static pfn_t ours(struct fixture *f, pfn_t pfn)
{
	expect_ne(pfn, INVALID_PFN);
	f->ours[f->nr_ours++] = pfn;
	return pfn;
}

static pfn_t new_table(struct fixture *f, int level)
{
	return ours(f, f->machine->ops->alloc_table(f->machine, level));
}

/* @pfn went to the machine. */
static pfn_t not_ours(struct fixture *f, pfn_t pfn)
{
	for (unsigned int i = 0; i < f->nr_ours; i++) {
		if (f->ours[i] == pfn) {
			f->ours[i] = f->ours[--f->nr_ours];
			return pfn;
		}
	}
	fail("frame 0x%lx is not ours", pfn);
}

static void retire(struct fixture *f, pfn_t table)
{
	f->machine->ops->retire_table(f->machine, not_ours(f, table));
}

static pfn_t new_page(struct fixture *f, uint64_t stamp)
{
	pfn_t pfn = ours(f, phys_alloc_zeroed(f->phys));

	for (int i = 0; i < 512; i++)
		((uint64_t *)phys_map(f->phys, pfn))[i] = stamp;
	return pfn;
}

static void fixture_init(struct fixture *f, unsigned int nr_cpus)
{
	f->nr_ours = 0;
	expect_eq(phys_create(&f->phys, 64), 0);
	f->m = model_create(f->phys, nr_cpus);
	expect(f->m);
	f->machine = model_to_machine(f->m);
	f->root = new_table(f, 4);
	f->dir3 = new_table(f, 3);
	f->dir2 = new_table(f, 2);
	f->table = new_table(f, 1);
	set(f, f->root, GVA, 4, f->dir3 << PAGE_SHIFT | RIGHTS);
	set(f, f->dir3, GVA, 3, f->dir2 << PAGE_SHIFT | RIGHTS);
	set(f, f->dir2, GVA, 2, f->table << PAGE_SHIFT | RIGHTS);
	f->page = new_page(f, 0x1111);
	set(f, f->table, GVA, 1, f->page << PAGE_SHIFT | RIGHTS);
	for (unsigned int cpu = 0; cpu < nr_cpus; cpu++)
		f->machine->ops->load_root(f->machine, cpu, f->root);
}

static void fixture_destroy(struct fixture *f)
{
	while (f->nr_ours)
		phys_put(f->phys, f->ours[--f->nr_ours]);
	model_destroy(f->m);
	expect_eq(phys_nr_free(f->phys), phys_nr_frames(f->phys));
	phys_destroy(f->phys);
}

static uint64_t load(struct fixture *f, unsigned int cpu, gva_t gva)
{
	uint64_t value = 0;

	expect_eq(model_load(f->m, cpu, gva, &value), 0);
	return value;
}

static void shoot(struct fixture *f, pfn_t pfn)
{
	expect_eq(f->machine->ops->shootdown(f->machine, &pfn, 1), 0);
}

TEST(model, loads_and_stores)
{
	struct model_access add = {.op = MODEL_ADD, .gva = GVA + 16, .value = 5};
	struct model_access swap = {.op = MODEL_CMPXCHG,
				    .gva = GVA + 16,
				    .expected = 0x1116,
				    .value = 7};
	struct fixture f;

	fixture_init(&f, 1);
	expect_eq(load(&f, 0, GVA), 0x1111);
	expect_eq(model_store(f.m, 0, GVA + 8, 42), 0);
	expect_eq(load(&f, 0, GVA + 8), 42);
	expect_eq(model_access(f.m, 0, &add), 0);
	expect_eq(add.value, 0x1111);
	expect_eq(add.pfn, f.page);
	expect_eq(model_access(f.m, 0, &swap), 0);
	expect_eq(swap.expected, 0x1116);
	expect_eq(load(&f, 0, GVA + 16), 7);
	fixture_destroy(&f);
}

TEST(model, stale_leaf_survives_until_shootdown)
{
	struct fixture f;
	uint64_t value;

	fixture_init(&f, 2);
	expect_eq(model_store(f.m, 0, GVA, 0x2222), 0);
	expect_eq(load(&f, 1, GVA), 0x2222);
	expect_eq(model_cached(f.m, f.page), 2);

	set(&f, f.table, GVA, 1, 0);
	expect_eq(load(&f, 0, GVA), 0x2222);
	expect_eq(model_store(f.m, 0, GVA, 0x3333), 0);
	expect_eq(load(&f, 1, GVA), 0x3333);

	/* Neither a root that comes and goes nor a shootdown of another frame changes that. */
	f.machine->ops->load_root(f.machine, 0, f.dir3);
	f.machine->ops->load_root(f.machine, 0, f.root);
	shoot(&f, f.page + 1);
	expect_eq(load(&f, 0, GVA), 0x3333);

	shoot(&f, f.page);
	expect_eq(model_cached(f.m, f.page), 0);
	for (unsigned int cpu = 0; cpu < 2; cpu++)
		expect_eq(model_load(f.m, cpu, GVA, &value), -EFAULT);
	fixture_destroy(&f);
}

/* A present entry that changes its frame: the CPU stays with the old one. */
TEST(model, stale_leaf_survives_replacement)
{
	struct fixture f;
	pfn_t other;

	fixture_init(&f, 1);
	other = new_page(&f, 0x4444);
	expect_eq(load(&f, 0, GVA), 0x1111);
	set(&f, f.table, GVA, 1, other << PAGE_SHIFT | RIGHTS);
	expect_eq(load(&f, 0, GVA), 0x1111);
	shoot(&f, f.page);
	expect_eq(load(&f, 0, GVA), 0x4444);
	fixture_destroy(&f);
}

/* A leaf that loses the right to store keeps it in the CPU, until the shootdown. */
TEST(model, lost_rights_stay_until_shootdown)
{
	struct model_access store = {.op = MODEL_STORE, .gva = GVA, .value = 1};
	struct fixture f;

	fixture_init(&f, 1);
	expect_eq(model_store(f.m, 0, GVA, 5), 0);
	set(&f, f.table, GVA, 1, f.page << PAGE_SHIFT | HW_PRESENT | HW_USER);
	expect_eq(model_store(f.m, 0, GVA, 6), 0);
	expect_eq(load(&f, 0, GVA), 6);
	shoot(&f, f.page);
	expect_eq(load(&f, 0, GVA), 6);
	expect_eq(model_access(f.m, 0, &store), -EFAULT);
	expect_eq(store.error_code, PFERR_PRESENT | PFERR_WRITE | PFERR_USER);
	fixture_destroy(&f);
}

/* A store through a leaf that was only read walks again, to set D: it sees that the leaf is gone.
 */
TEST(model, first_store_walks_to_set_dirty)
{
	struct model_access store = {.op = MODEL_STORE, .gva = GVA, .value = 1};
	struct fixture f;

	fixture_init(&f, 1);
	expect_eq(load(&f, 0, GVA), 0x1111);
	expect(*entry(&f, f.table, GVA, 1) & HW_ACCESSED);
	expect(!(*entry(&f, f.table, GVA, 1) & HW_DIRTY));
	expect_eq(model_store(f.m, 0, GVA, 2), 0);
	expect(*entry(&f, f.table, GVA, 1) & HW_DIRTY);

	shoot(&f, f.page);
	set(&f, f.table, GVA, 1, f.page << PAGE_SHIFT | RIGHTS);
	expect_eq(load(&f, 0, GVA), 2);
	set(&f, f.table, GVA, 1, 0);
	expect_eq(model_access(f.m, 0, &store), -EFAULT);
	expect_eq(load(&f, 0, GVA), 2); /* reading goes on: nobody shot the leaf down */
	fixture_destroy(&f);
}

TEST(model, gained_rights_are_noticed)
{
	struct fixture f;

	fixture_init(&f, 1);
	set(&f, f.table, GVA, 1, f.page << PAGE_SHIFT | HW_PRESENT | HW_USER);
	expect_eq(load(&f, 0, GVA), 0x1111);
	expect_eq(model_store(f.m, 0, GVA, 1), -EFAULT);
	set(&f, f.table, GVA, 1, f.page << PAGE_SHIFT | RIGHTS);
	expect_eq(model_store(f.m, 0, GVA, 9), 0);
	expect_eq(load(&f, 0, GVA), 9);
	fixture_destroy(&f);
}

TEST(model, present_is_noticed)
{
	struct model_access access = {.op = MODEL_LOAD, .gva = GVA};
	struct fixture f;

	fixture_init(&f, 1);
	for (int level = 1; level <= 4; level++) {
		pfn_t tables[] = {0, f.table, f.dir2, f.dir3, f.root};
		uint64_t *ptr = entry(&f, tables[level], GVA, level);
		uint64_t old = *ptr;

		set(&f, tables[level], GVA, level, 0);
		shoot(&f, f.page);
		for (unsigned int i = 1; i < 5; i++)
			tlb_drop_dirs(&f.m->cpu[0], f.root, GVA);
		expect_eq(model_access(f.m, 0, &access), -EFAULT);
		expect_eq(access.error_code, PFERR_USER);
		set(&f, tables[level], GVA, level, old);
		expect_eq(model_access(f.m, 0, &access), 0);
	}
	fixture_destroy(&f);
}

/* Guest code runs at CPL3: an entry of the supervisor's is out of its reach at any level. */
TEST(model, reach)
{
	struct model_access access = {.op = MODEL_STORE, .gva = GVA};
	struct fixture f;

	fixture_init(&f, 1);
	expect_eq(load(&f, 0, GVA), 0x1111);
	shoot(&f, f.page);
	model_set_reach(f.m, GVA + PAGE_SIZE, 0);
	expect_eq(model_access(f.m, 0, &access), -EFAULT);
	expect_eq(access.error_code, PFERR_USER | PFERR_WRITE);
	model_set_reach(f.m, 0, GVA);
	expect_eq(model_access(f.m, 0, &access), -EFAULT);
	model_set_reach(f.m, GVA, GVA + PAGE_SIZE);
	expect_eq(load(&f, 0, GVA), 0x1111);
	fixture_destroy(&f);
}

TEST(model, supervisor_and_xd_entries)
{
	struct model_access fetch = {.op = MODEL_FETCH, .gva = GVA};
	struct model_access look = {.op = MODEL_LOAD, .gva = GVA};
	struct fixture f;

	fixture_init(&f, 1);
	set(&f, f.dir2, GVA, 2, f.table << PAGE_SHIFT | RIGHTS | HW_XD);
	expect_eq(load(&f, 0, GVA), 0x1111);
	expect_eq(model_access(f.m, 0, &fetch), -EFAULT);
	expect_eq(fetch.error_code, PFERR_PRESENT | PFERR_FETCH | PFERR_USER);
	set(&f, f.dir2, GVA, 2, f.table << PAGE_SHIFT | RIGHTS);
	expect_eq(model_access(f.m, 0, &fetch), 0);

	shoot(&f, f.page);
	set(&f, f.table, GVA, 1, f.page << PAGE_SHIFT | HW_PRESENT | HW_WRITE);
	expect_eq(model_access(f.m, 0, &look), -EFAULT);
	expect_eq(look.error_code, PFERR_PRESENT | PFERR_USER);
	fixture_destroy(&f);
}

/*
 * The sequence of `gnomon doctor`: leaf cleared and shot down, directory entry cleared, the table
 * entered elsewhere with another page. It shows at its old address until it is retired.
 */
TEST(model, stale_directory_survives_until_retire)
{
	struct fixture f;
	uint64_t value;
	pfn_t other;

	fixture_init(&f, 1);
	other = new_page(&f, 0x5555);
	expect_eq(load(&f, 0, GVA), 0x1111);

	set(&f, f.table, GVA, 1, 0);
	shoot(&f, f.page);
	set(&f, f.dir2, GVA, 2, 0);

	set(&f, f.table, GVA, 1, other << PAGE_SHIFT | RIGHTS);
	set(&f, f.dir2, GVA + (1 << 21), 2, f.table << PAGE_SHIFT | RIGHTS);
	expect_eq(load(&f, 0, GVA + (1 << 21)), 0x5555);
	expect_eq(load(&f, 0, GVA), 0x5555);

	/* Shooting down the table's own frame, or the directory's, does not help. */
	shoot(&f, f.table);
	shoot(&f, f.dir2);
	shoot(&f, other);
	expect_eq(load(&f, 0, GVA), 0x5555);

	set(&f, f.table, GVA, 1, 0);
	shoot(&f, other);
	set(&f, f.dir2, GVA + (1 << 21), 2, 0);
	retire(&f, f.table);
	expect_eq(model_load(f.m, 0, GVA, &value), -EFAULT);
	expect(!tlb_knows(&f.m->cpu[0], f.table));
	fixture_destroy(&f);
}

/* A fault forgets the directories it came through: a stale link is no livelock. */
TEST(model, fault_walks_from_the_root_next_time)
{
	struct fixture f;
	uint64_t value;
	pfn_t fresh;

	fixture_init(&f, 1);
	expect_eq(load(&f, 0, GVA), 0x1111);
	set(&f, f.table, GVA, 1, 0);
	shoot(&f, f.page);
	fresh = new_table(&f, 1);
	set(&f, fresh, GVA, 1, f.page << PAGE_SHIFT | RIGHTS);
	set(&f, f.dir2, GVA, 2, fresh << PAGE_SHIFT | RIGHTS);
	expect_eq(model_load(f.m, 0, GVA, &value), -EFAULT);
	expect_eq(load(&f, 0, GVA), 0x1111);
	fixture_destroy(&f);
}

TEST(model, roots_do_not_mix)
{
	struct fixture f;
	uint64_t value;
	pfn_t empty;

	fixture_init(&f, 2);
	empty = new_table(&f, 4);
	expect_eq(load(&f, 0, GVA), 0x1111);
	f.machine->ops->load_root(f.machine, 0, empty);
	expect_eq(model_load(f.m, 0, GVA, &value), -EFAULT);
	expect_eq(load(&f, 1, GVA), 0x1111);
	f.machine->ops->load_root(f.machine, 0, f.root);
	expect_eq(load(&f, 0, GVA), 0x1111);
	fixture_destroy(&f);
}

TEST(model, reuse_is_immediate_when_asked_for)
{
	struct model_stats stats;
	struct fixture f;
	pfn_t table;

	fixture_init(&f, 1);
	table = new_table(&f, 1);
	retire(&f, table);
	expect_ne(new_table(&f, 1), table);

	model_set_reuse(f.m, MODEL_REUSE_LIFO);
	table = new_table(&f, 1);
	memset(phys_map(f.phys, table), 0xee, PAGE_SIZE);
	retire(&f, table);
	expect_eq(new_table(&f, 1), table);
	for (unsigned int i = 0; i < 512; i++)
		expect_eq(((uint64_t *)phys_map(f.phys, table))[i], 0);
	model_get_stats(f.m, &stats);
	expect_eq(stats.tables_reused, 1);
	expect_eq(stats.contract_violations, 0);
	fixture_destroy(&f);
}

/* What the shadow MMU owes the machine is checked by the machine. */
TEST(model, contract_violations_are_counted)
{
	struct model_stats stats;
	struct fixture f;

	fixture_init(&f, 1);
	expect_eq(load(&f, 0, GVA), 0x1111);
	retire(&f, f.table);					     /* with a leaf still cached */
	f.machine->ops->free_table(f.machine, not_ours(&f, f.dir2)); /* that a CPU has seen */
	retire(&f, f.root);					     /* that a CPU runs on */
	model_get_stats(f.m, &stats);
	expect_eq(stats.contract_violations, 3);
	fixture_destroy(&f);
}

static void count_frames(void *arg, const pfn_t *frames, size_t nr)
{
	(void)frames;
	*(size_t *)arg += nr;
}

TEST(model, shootdown_hook_and_failure)
{
	struct fixture f;
	size_t seen = 0;
	pfn_t pfn;

	fixture_init(&f, 1);
	pfn = f.page;
	expect_eq(load(&f, 0, GVA), 0x1111);
	model_set_shootdown_hook(f.m, count_frames, &seen);
	model_fail_shootdowns(f.m, 1, -ENOMEM);
	expect_eq(f.machine->ops->shootdown(f.machine, &pfn, 1), -ENOMEM);
	expect_eq(model_cached(f.m, pfn), 1);
	shoot(&f, pfn);
	expect_eq(model_cached(f.m, pfn), 0);
	expect_eq(seen, 2);
	fixture_destroy(&f);
}

TEST(model, halt_stops_every_access)
{
	struct fixture f;
	uint64_t value;

	fixture_init(&f, 2);
	expect_eq(load(&f, 1, GVA), 0x1111);
	f.machine->ops->halt(f.machine, "test");
	f.machine->ops->halt(f.machine, "again");
	expect(model_halted(f.m));
	for (unsigned int cpu = 0; cpu < 2; cpu++)
		expect_eq(model_load(f.m, cpu, GVA, &value), -ECANCELED);
	fixture_destroy(&f);
}

TEST(model, gates_count_accesses_to_closed_pages)
{
	struct model_stats stats;
	struct fixture f;

	fixture_init(&f, 1);
	expect_eq(model_gates(f.m, (GVA >> PAGE_SHIFT) + 1), 0);
	expect_eq(load(&f, 0, GVA), 0x1111);
	model_gate_close(f.m, GVA);
	model_gate_close(f.m, GVA);
	model_gate_open(f.m, GVA);
	expect_eq(load(&f, 0, GVA), 0x1111);
	model_gate_open(f.m, GVA);
	expect_eq(load(&f, 0, GVA), 0x1111);
	model_get_stats(f.m, &stats);
	expect_eq(stats.gate_violations, 1);
	expect_eq(stats.accesses, 3);
	fixture_destroy(&f);
}
