/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The shadow MMU as a notifier client: what a window takes away and what comes back, the counters,
 * and the end: halts and exit. The races are in tests/races.
 */
#include <errno.h>
#include <sched.h>

#include "notifier/sync/thread.h"
#include "shadow/shadow_internal.h"
#include "tests/support/beside.h"
#include "tests/support/guest_fixture.h"
#include "tests/support/park.h"
#include "tests/support/step.h"

static const struct guest_mem_config config = {.audit = true, .nr_cpus = 2};

TEST(invalidate, takes_what_the_range_maps)
{
	struct shadow_stats stats;
	struct guest_mem g;

	guest_mem_create(&g, &config);
	for (gpa_t gpa = 0; gpa < 8 * PAGE_SIZE; gpa += PAGE_SIZE)
		guest_store(&g, 0, gpa, gpa + 1);

	expect_eq(mm_migrate_range(g.mm, guest_hva(2 * PAGE_SIZE), 3 * PAGE_SIZE), 3);
	stats = stats_of(&g);
	expect_eq(stats.invalidations, 1);
	expect_eq(stats.sptes_zapped, 3);
	expect_eq(stats.migrate_zapped, 3);
	expect_eq(stats.shootdowns, 1);
	expect_eq(stats.frames_shot, 3);
	expect_eq(stats.refaults, 0);

	/* The others are there without a fault. */
	for (gpa_t gpa = 0; gpa < 8 * PAGE_SIZE; gpa += PAGE_SIZE)
		expect_eq(guest_load(&g, 0, gpa), gpa + 1);
	stats = stats_of(&g);
	expect_eq(stats.faults, 8 + 3);
	expect_eq(stats.refaults, 3);
	destroy(&g);
}

/* ---- a table goes while a leaf of it is not shot down yet ---- */

#define GVA 0x10000000UL

struct unlinked {
	struct guest_mem g;
	struct park park;
	atomic_t times;
};

static void park_the_first(void *arg)
{
	struct unlinked *u = arg;

	if (!atomic_fetch_add(1, &u->times))
		park_enter(&u->park);
}

static void run_window(void *arg)
{
	struct unlinked *u = arg;

	expect_eq(mm_migrate_range(u->g.mm, guest_hva(PAGE_SIZE), PAGE_SIZE), 1);
}

static void run_unlink(void *arg)
{
	struct unlinked *u = arg;

	guest_write(&u->g, guest_pte_gpa(&u->g, u->g.cr3, GVA, 2), 0);
	shadow_invlpg(u->g.shadow, 0, GVA);
}

/* tlb.c, rule 3: a CPU that walks to the table may still use the leaf, so the table stays until
 * whoever cleared that has told it. */
TEST(invalidate, a_table_waits_for_who_cleared_its_leaf)
{
	struct kthread window, unlink;
	struct unlinked u = {0};

	guest_mem_create(&u.g, &config);
	park_init(&u.park);
	guest_map(&u.g, u.g.cr3, GVA, PAGE_SIZE, GUEST_PTE_RW);
	guest_store(&u.g, 0, GVA, 1);
	shadow_set_hook(u.g.shadow, SHADOW_HOOK_BATCH_BEFORE_SHOOT, park_the_first, &u);
	expect_eq(kthread_run(&window, "window", run_window, &u), 0);
	park_wait(&u.park, 1);
	expect_eq(kthread_run(&unlink, "unlink", run_unlink, &u), 0);
	while (!stats_of(&u.g).batches_waited)
		sched_yield();
	expect_eq(stats_of(&u.g).tables_retired, 0);
	park_release(&u.park);
	kthread_join(&window);
	kthread_join(&unlink);
	expect_eq(stats_of(&u.g).tables_retired, 1);
	destroy(&u.g);
}

/* ---- what a fault that began before may find at the end of a window ---- */

struct end {
	struct step step;
	struct shadow *shadow;
	unsigned long seq;
	unsigned int looks, bad;
};

static void look_as_a_fault(struct step *step)
{
	struct end *end = step->arg;

	/* It would be waiting for the lock. */
	if (READ_ONCE(end->shadow->mmu_lock.raw.state))
		return;
	end->looks++;
	end->bad += !end->shadow->invalidate_in_progress && end->shadow->invalidate_seq == end->seq;
}

/* At no instruction is the window gone, and the sequence as it was: a fault that looked the page up
 * before would enter it. */
TEST(invalidate, the_sequence_moves_before_the_window_closes)
{
	struct end end = {.step = {.at_each = look_as_a_fault, .arg = &end}};
	struct mmu_notifier_range range;
	struct guest_mem g;

	step_skip();
	guest_mem_create(&g, &config);
	end.shadow = g.shadow;
	end.seq = g.shadow->invalidate_seq;
	mmu_notifier_range_init(&range, MMU_NOTIFY_CLEAR, 0, g.mm, guest_hva(0),
				guest_hva(PAGE_SIZE));
	mmu_notifier_invalidate_range_start(&range);
	step_begin(&end.step);
	mmu_notifier_invalidate_range_end(&range);
	step_end();
	expect_ge(end.looks, 50);
	expect_eq(end.bad, 0);
	expect_eq(g.shadow->invalidate_seq, end.seq + 1);
	destroy(&g);
}

TEST(invalidate, event_decides_what_is_counted)
{
	struct shadow_stats stats;
	struct guest_mem g;

	guest_mem_create(&g, &config);
	guest_store(&g, 0, 0, 1);
	expect_eq(mm_zap_range(g.mm, guest_hva(0), PAGE_SIZE), 1);
	stats = stats_of(&g);
	expect_eq(stats.sptes_zapped, 1);
	expect_eq(stats.migrate_zapped, 0);
	expect_eq(guest_load(&g, 0, 0), 1);
	expect_eq(stats_of(&g).refaults, 1);
	/* A page that nobody mapped: a window, and nothing to do. */
	expect_eq(mm_migrate_range(g.mm, guest_hva(g.cr3), PAGE_SIZE), 1);
	stats = stats_of(&g);
	expect_eq(stats.invalidations, 2);
	expect_eq(stats.sptes_zapped, 1);
	expect_eq(stats.shootdowns, 1);
	destroy(&g);
}

TEST(invalidate, memory_outside_slots)
{
	struct guest_mem g;

	guest_mem_create(&g, &config);
	expect_eq(mm_mmap(g.mm, GUEST_MEM_HVA - PAGE_SIZE, PAGE_SIZE, MM_PROT_READ | MM_PROT_WRITE,
			  NULL, 0),
		  0);
	guest_store(&g, 0, 0, 1);
	expect_eq(mm_zap_range(g.mm, GUEST_MEM_HVA - PAGE_SIZE, PAGE_SIZE), 0);
	expect_eq(stats_of(&g).sptes_zapped, 0);
	expect_eq(mm_zap_range(g.mm, GUEST_MEM_HVA - PAGE_SIZE, 2 * PAGE_SIZE), 1);
	expect_eq(stats_of(&g).sptes_zapped, 1);
	destroy(&g);
}

/* More pages than a batch holds, in one window. */
TEST(invalidate, many_pages)
{
	struct guest_mem_config large = {.audit = false, .nr_cpus = 2, .nr_pages = 1200};
	const uint64_t pages = 1000;
	struct model_stats model;
	struct guest_mem g;

	guest_mem_create(&g, &large);
	for (uint64_t i = 0; i < pages; i++)
		guest_store(&g, i % 2, i << PAGE_SHIFT, i + 1);
	expect_ge(mm_zap_range(g.mm, guest_hva(0), 1200 << PAGE_SHIFT), pages);
	expect_eq(stats_of(&g).sptes_zapped, pages);
	expect_eq(stats_of(&g).frames_shot, pages);
	expect_ge(stats_of(&g).shootdowns, 2);
	model_get_stats(g.model, &model);
	expect_eq(model.dropped, pages);
	expect_eq(shadow_audit(g.shadow, NULL, 0), 0);
	for (uint64_t i = 0; i < pages; i++)
		expect_eq(guest_load(&g, 0, i << PAGE_SHIFT), i + 1);
	destroy(&g);
}

/*
 * More pages than a batch holds, in two slots, of which the first lies at higher host addresses,
 * and in two slots of the same memory: where the walk goes on after a full batch is where it was in
 * one slot, and nothing for the next.
 */
static void two_slots(hva_t second)
{
	struct guest_mem_config large = {.nr_cpus = 1, .nr_pages = 1200};
	const gfn_t at = 0x100000;
	const gva_t alias = 0x40000000;
	const uint64_t pages = 300;
	struct mmu_notifier_range range;
	struct model_stats model;
	struct guest_mem g;

	guest_mem_create(&g, &large);
	if (second + (pages << PAGE_SHIFT) == GUEST_MEM_HVA)
		expect_eq(mm_mmap(g.mm, second, pages << PAGE_SHIFT, MM_PROT_READ | MM_PROT_WRITE,
				  NULL, 0),
			  0);
	expect_eq(shadow_create_memslot(g.shadow, 1, at, pages, second), 0);
	for (uint64_t i = 0; i < pages; i++) {
		guest_map(&g, g.cr3, alias + (i << PAGE_SHIFT), (at + i) << PAGE_SHIFT,
			  GUEST_PTE_RW);
		guest_store(&g, 0, i << PAGE_SHIFT, i);
		guest_store(&g, 0, alias + (i << PAGE_SHIFT), i + pages);
	}
	mmap_read_lock(g.mm);
	mmu_notifier_range_init(&range, MMU_NOTIFY_CLEAR, 0, g.mm,
				guest_hva(0) - (pages << PAGE_SHIFT),
				guest_hva(pages << PAGE_SHIFT));
	mmu_notifier_invalidate_range_start(&range);
	expect_eq(stats_of(&g).sptes_zapped, 2 * pages);
	model_get_stats(g.model, &model);
	expect_eq(model.dropped, 2 * pages);
	mmu_notifier_invalidate_range_end(&range);
	mmap_read_unlock(g.mm);
	for (uint64_t i = 0; i < pages; i++)
		expect_eq(guest_load(&g, 0, alias + (i << PAGE_SHIFT)), i + pages);
	expect_eq(shadow_audit(g.shadow, NULL, 0), 0);
	destroy(&g);
}

TEST(invalidate, many_pages_of_two_slots)
{
	two_slots(GUEST_MEM_HVA - (300 << PAGE_SHIFT));
	two_slots(GUEST_MEM_HVA);
}

/* Windows nest: while any is open nothing of their union is installed, whichever came first. */
TEST(invalidate, nested_windows)
{
	for (unsigned int low = 0; low < 2; low++) {
		struct mmu_notifier_range range[2], *outer = &range[low], *inner = &range[!low];
		struct shadow_fault fault;
		struct guest_mem g;

		guest_mem_create(&g, &config);
		mmap_read_lock(g.mm);
		mmu_notifier_range_init(&range[0], MMU_NOTIFY_CLEAR, 0, g.mm, guest_hva(0x1000),
					guest_hva(0x3000));
		mmu_notifier_range_init(&range[1], MMU_NOTIFY_CLEAR, 0, g.mm, guest_hva(0x5000),
					guest_hva(0x6000));
		mmu_notifier_invalidate_range_start(outer);
		mmu_notifier_invalidate_range_start(inner);
		mmap_read_unlock(g.mm); /* a fault takes it too: the windows are the test's own */

		expect_eq(guest_fault(&g, 0, 0x1000, 0, &fault), RET_PF_RETRY);
		expect_eq(guest_fault(&g, 0, 0x5000, 0, &fault), RET_PF_RETRY);
		expect_eq(guest_fault(&g, 0, 0x7000, 0, &fault), RET_PF_FIXED);
		mmu_notifier_invalidate_range_end(inner);
		expect_eq(guest_fault(&g, 0, outer->start - GUEST_MEM_HVA, 0, &fault),
			  RET_PF_RETRY);
		expect_eq(guest_fault(&g, 0, 0x8000, 0, &fault), RET_PF_FIXED);
		mmu_notifier_invalidate_range_end(outer);
		expect_eq(guest_fault(&g, 0, 0x1000, 0, &fault), RET_PF_FIXED);
		expect_eq(guest_fault(&g, 0, 0x2000, 0, &fault), RET_PF_FIXED);
		expect_eq(guest_fault(&g, 0, 0x5000, 0, &fault), RET_PF_FIXED);
		expect_eq(stats_of(&g).fault_retries, 3);
		destroy(&g);
	}
}

/* A shootdown that fails leaves CPUs nobody can vouch for: they all stop, and the host goes on. */
TEST(invalidate, failed_shootdown_halts)
{
	struct guest_mem g;
	uint64_t value;

	guest_mem_create(&g, &config);
	guest_store(&g, 0, 0x1000, 1);
	guest_store(&g, 1, 0x2000, 2);
	model_fail_shootdowns(g.model, 1, -ENOMEM);
	expect_eq(mm_migrate_range(g.mm, guest_hva(0x1000), PAGE_SIZE), 1);
	expect(model_halted(g.model));
	expect_eq(model_load(g.model, 0, 0x1000, &value), -ECANCELED);
	expect_eq(guest_try(&g, 1, MODEL_LOAD, 0x2000, NULL), RET_PF_HALTED);
	expect_eq(guest_read(&g, 0x1000), 1);
	destroy(&g);
}

TEST(invalidate, exit_of_the_mm)
{
	struct shadow_fault fault;
	struct guest_mem g;

	guest_mem_create(&g, &config);
	for (gpa_t gpa = 0; gpa < 8 * PAGE_SIZE; gpa += PAGE_SIZE)
		guest_store(&g, 0, gpa, 1);
	mmput(g.mm); /* the shadow MMU holds the structure, not the address space */
	expect(model_halted(g.model));
	expect_eq(stats_of(&g).sptes_zapped, 8);
	expect_eq(guest_fault(&g, 0, 0x1000, 0, &fault), RET_PF_HALTED);
	expect_eq(shadow_audit(g.shadow, NULL, 0), 0);
	g.mm = NULL;
	destroy(&g);
}

struct exiting {
	struct guest_mem g;
	struct beside beside;
};

static void put_mm(void *mm)
{
	mmput(mm);
}

static void exit_before_lock(void *arg)
{
	struct exiting *e = arg;

	beside_start(&e->beside, put_mm, e->g.mm);
	while (!READ_ONCE(e->g.shadow->dead))
		sched_yield();
	beside_sleeps(&e->beside);
}

/* In the middle of a fault, with the frame in hand: exit waits for it, and it installs none. */
TEST(invalidate, exit_under_a_fault)
{
	struct shadow_fault fault;
	struct exiting e;

	guest_mem_create(&e.g, &config);
	guest_store(&e.g, 0, 0x1000, 1);
	shadow_set_hook(e.g.shadow, SHADOW_HOOK_FAULT_BEFORE_LOCK, exit_before_lock, &e);
	expect_eq(guest_fault(&e.g, 0, 0x2000, PFERR_WRITE, &fault), RET_PF_HALTED);
	kthread_join(&e.beside.thread);
	expect_eq(shadow_audit(e.g.shadow, NULL, 0), 0);
	e.g.mm = NULL;
	destroy(&e.g);
}

/* The same while CPUs run, who pin nothing: they stop, and none looks at what exit frees. */
struct runner {
	struct guest_mem *g;
	unsigned int cpu;
	atomic_t *accesses;
};

static void run_until_halted(void *arg)
{
	struct runner *r = arg;

	for (gva_t gva = 0;; gva = (gva + PAGE_SIZE) % (16 * PAGE_SIZE)) {
		uint64_t word;
		enum ret_pf pf = guest_try(r->g, r->cpu, MODEL_ADD, gva, NULL);

		if (pf == RET_PF_HALTED)
			break;
		expect_eq(pf, RET_PF_FIXED);
		if (gva == 0) /* so that the others fault again */
			shadow_invlpg(r->g->shadow, r->cpu, 2 * PAGE_SIZE);
		if (shadow_read_gpa(r->g->shadow, gva, &word, sizeof(word)))
			break;
		atomic_inc(r->accesses);
	}
}

TEST(invalidate, exit_while_cpus_run)
{
	for (int round = 0; round < 50; round++) {
		struct kthread threads[2];
		struct runner runners[2];
		struct guest_mem g;
		atomic_t accesses;

		guest_mem_create(&g, &config);
		atomic_set(&accesses, 0);
		for (unsigned int i = 0; i < 2; i++) {
			runners[i] = (struct runner){.g = &g, .cpu = i, .accesses = &accesses};
			expect_eq(kthread_run(&threads[i], "cpu", run_until_halted, &runners[i]),
				  0);
		}
		while (atomic_read(&accesses) < round * 4)
			sched_yield();
		mmput(g.mm);
		g.mm = NULL;
		for (unsigned int i = 0; i < 2; i++)
			kthread_join(&threads[i]);
		destroy(&g);
	}
}

struct opener {
	struct mm_struct *mm;
	struct park park;
};

/* Another thread: who unregisters holds no lock that a vCPU takes inside slots_srcu. */
static void hold_window_open(void *arg)
{
	struct opener *opener = arg;
	struct mmu_notifier_range range;

	mmap_read_lock(opener->mm);
	mmu_notifier_range_init(&range, MMU_NOTIFY_CLEAR, 0, opener->mm, guest_hva(0x1000),
				guest_hva(0x2000));
	mmu_notifier_invalidate_range_start(&range);
	park_enter(&opener->park);
	mmu_notifier_invalidate_range_end(&range);
	mmap_read_unlock(opener->mm);
}

TEST(invalidate, destroy_under_an_open_window)
{
	struct opener opener;
	struct guest_mem g;
	struct kthread t;

	guest_mem_create(&g, &config);
	guest_store(&g, 0, 0x1000, 1);
	opener.mm = g.mm;
	park_init(&opener.park);
	expect_eq(kthread_run(&t, "opener", hold_window_open, &opener), 0);
	park_wait(&opener.park, 1);
	guest_mem_detach(&g);
	park_release(&opener.park);
	kthread_join(&t);
	guest_mem_destroy(&g);
}
