/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The ladders of shadow/dirty_log.c, each in the one order that it is about. What was taken out to
 * see them red is said at each.
 */
#include <errno.h>
#include <sched.h>

#include "notifier/sync/thread.h"
#include "tests/support/dirty_fixture.h"
#include "tests/support/park.h"

static const struct guest_mem_config config = {.audit = true, .nr_cpus = 2};

struct scene {
	struct guest_mem g;
	struct park park;
	struct kthread thread;
	spte_t *sptep;
	uint64_t found;
	atomic_t returned;
	unsigned int times;
	int ret;
};

/* SLOT is logged, and page 1 of it dirty: CPU 0 has it in its TLB, writable. */
static void scene_init(struct scene *s)
{
	memslot_fixture(&s->g, &config);
	expect_eq(place(&s->g, SLOT_GFN), 0);
	expect_eq(log_slot(&s->g, true), 0);
	guest_store(&s->g, 0, slot_gva(SLOT_GFN + 1), 1);
	s->sptep = rmap_first(&shadow_memslots(s->g.shadow)->by_id[SLOT]->rmap[1]);
	park_init(&s->park);
	atomic_set(&s->returned, 0);
	s->times = 0;
}

/* ---- rule 4: marks are taken before the right is ---- */

/* Who gets a right back without mmu_lock: marks, then grants (rule 2). */
static void grant_and_mark(void *arg)
{
	struct scene *s = arg;
	struct memslot *slot = s->g.shadow->slots->by_id[SLOT];
	spte_t spte = READ_ONCE(*s->sptep);

	if (s->times++)
		return;
	while (!try_cmpxchg(s->sptep, &spte, spte | SPTE_WRITE | SPTE_DIRTY))
		;
	mark_page_dirty_in_slot(s->g.shadow, NULL, slot, SLOT_GFN + 1);
}

/* Red where take_word() protects before it takes: the page is writable, and clean. */
TEST(dirty_log_races, taken_before_protected)
{
	struct scene s;

	scene_init(&s);
	shadow_set_hook(s.g.shadow, SHADOW_HOOK_DIRTY_TAKEN, grant_and_mark, &s);
	expect_eq(harvest(&s.g, SLOT), page_bit(1));
	expect_eq(s.times, 1);
	guest_store(&s.g, 0, slot_gva(SLOT_GFN + 1), 2);
	expect_eq(harvest(&s.g, SLOT), page_bit(1));
	expect_eq(model_store(s.g.model, 0, slot_gva(SLOT_GFN + 1), 3), -EFAULT);
	memslot_fixture_done(&s.g);
}

/*
 * A fault has marked, and not granted yet, as a harvest takes the mark. It may not protect before
 * the grant: then nothing would say that the page is written to from now on.
 */
struct lockless {
	struct scene s;
	struct kthread thread;
	uint64_t found;
	atomic_t go, taken, done;
};

#define LOOKS 1000

static void harvest_when_told(void *arg)
{
	struct lockless *l = arg;

	while (!atomic_read_acquire(&l->go))
		sched_yield();
	l->found = harvest(&l->s.g, SLOT);
	atomic_set_release(&l->done, 1);
}

static void mark_taken(void *arg)
{
	struct lockless *l = arg;

	atomic_set_release(&l->taken, 1);
}

static void have_it_harvest(void *arg)
{
	struct lockless *l = arg;

	if (l->s.times++)
		return;
	atomic_set_release(&l->go, 1);
	while (!atomic_read_acquire(&l->taken) && !atomic_read_acquire(&l->done))
		sched_yield();
	for (unsigned int i = 0; i < LOOKS; i++) {
		expect(!atomic_read_acquire(&l->done));
		sched_yield();
	}
}

/* Red when the harvest takes no lock of the rmap, and when the mark comes after the grant. */
TEST(dirty_log_races, marked_without_mmu_lock)
{
	struct lockless l = {.found = 0};
	gva_t gva = slot_gva(SLOT_GFN + 1);

	scene_init(&l.s);
	expect_eq(harvest(&l.s.g, SLOT), page_bit(1));
	shadow_set_hook(l.s.g.shadow, SHADOW_HOOK_FAST_BEFORE_SWAP, have_it_harvest, &l);
	shadow_set_hook(l.s.g.shadow, SHADOW_HOOK_DIRTY_TAKEN, mark_taken, &l);
	expect_eq(kthread_run(&l.thread, "harvest", harvest_when_told, &l), 0);
	expect_eq(guest_fault(&l.s.g, 0, gva, PFERR_WRITE, &(struct shadow_fault){0}),
		  RET_PF_FIXED);
	kthread_join(&l.thread);
	expect_eq(l.found, page_bit(1));
	expect_eq(model_store(l.s.g.model, 0, gva, 3), -EFAULT);
	memslot_fixture_done(&l.s.g);
}

/* Marked, and then the leaf changes so often that it is given up: that was the mark of this fault,
 * as a ring may have room for one. */
static void change_leaf(void *arg)
{
	struct scene *s = arg;
	spte_t spte = READ_ONCE(*s->sptep);

	if (s->times++ < 4)
		expect(try_cmpxchg(s->sptep, &spte, spte ^ SPTE_AGED));
}

TEST(dirty_log_races, one_mark_for_a_fault)
{
	gva_t gva = slot_gva(SLOT_GFN + 1);
	struct shadow_fault fault;
	uint64_t marked;
	struct scene s;

	scene_init(&s);
	expect_eq(harvest(&s.g, SLOT), page_bit(1));
	marked = stats_of(&s.g).dirty_marked;
	shadow_set_hook(s.g.shadow, SHADOW_HOOK_FAST_BEFORE_SWAP, change_leaf, &s);
	expect_eq(guest_fault(&s.g, 0, gva, PFERR_WRITE, &fault), RET_PF_RETRY);
	expect_eq(stats_of(&s.g).dirty_marked - marked, 1);
	expect_eq(guest_fault(&s.g, 0, gva, PFERR_WRITE, &fault), RET_PF_FIXED);
	expect_eq(harvest(&s.g, SLOT), page_bit(1));
	memslot_fixture_done(&s.g);
}

/* ---- rule 5: CPUs are told before the caller is ---- */

static void store_by_tlb(void *arg)
{
	struct scene *s = arg;

	if (s->times++)
		return;
	expect_eq(model_store(s->g.model, 0, slot_gva(SLOT_GFN + 1), 2), 0);
}

/* Red without the flush in harvest(): the last store is done, and nobody knows. */
TEST(dirty_log_races, told_before_the_caller)
{
	struct scene s;

	scene_init(&s);
	shadow_set_hook(s.g.shadow, SHADOW_HOOK_BATCH_BEFORE_SHOOT, store_by_tlb, &s);
	expect_eq(harvest(&s.g, SLOT), page_bit(1));
	expect_eq(s.times, 1);
	expect_eq(model_store(s.g.model, 0, slot_gva(SLOT_GFN + 1), 3), -EFAULT);
	expect_eq(harvest(&s.g, SLOT), 0);
	memslot_fixture_done(&s.g);
}

static void park_once(void *arg)
{
	struct scene *s = arg;

	if (!s->times++)
		park_enter(&s->park);
}

static void run_harvest(void *arg)
{
	struct scene *s = arg;

	s->found = harvest(&s->g, SLOT);
	atomic_set_release(&s->returned, 1);
}

static void run_protect(void *arg)
{
	struct scene *s = arg;
	struct zap_batch batch;
	int id = srcu_read_lock(&s->g.shadow->slots_srcu);

	zap_batch_init(&batch);
	spin_lock(&s->g.shadow->mmu_lock);
	write_protect_gfn(s->g.shadow, SLOT_GFN + 1, &batch);
	zap_batch_close(s->g.shadow, &batch);
	spin_unlock(&s->g.shadow->mmu_lock);
	zap_batch_flush(s->g.shadow, &batch);
	srcu_read_unlock(&s->g.shadow->slots_srcu, id);
}

/* The right was taken by somebody else, a sync say, who has told no CPU yet: the harvest finds
 * nothing to protect, and has to wait. Red where it flushes only if it protected something. */
TEST(dirty_log_races, another_has_not_told_them)
{
	struct kthread other;
	struct scene s;

	scene_init(&s);
	shadow_set_hook(s.g.shadow, SHADOW_HOOK_BATCH_BEFORE_SHOOT, park_once, &s);
	expect_eq(kthread_run(&other, "other", run_protect, &s), 0);
	park_wait(&s.park, 1);
	expect_eq(kthread_run(&s.thread, "harvest", run_harvest, &s), 0);
	while (!atomic64_read(&s.g.shadow->stats.batches_waited)) {
		expect(!atomic_read_acquire(&s.returned));
		sched_yield();
	}
	expect_eq(model_store(s.g.model, 0, slot_gva(SLOT_GFN + 1), 2), 0); /* by its TLB */
	park_release(&s.park);
	kthread_join(&other);
	kthread_join(&s.thread);
	expect_eq(s.found, page_bit(1));
	expect_eq(model_store(s.g.model, 0, slot_gva(SLOT_GFN + 1), 3), -EFAULT);
	memslot_fixture_done(&s.g);
}

/* ---- rule 3: host code writes, then marks ---- */

/* Red where shadow_operand_get() marks, and put does not. */
TEST(dirty_log_races, operand_under_a_harvest)
{
	struct shadow_operand operand;
	struct shadow_fault fault;
	struct scene s;

	scene_init(&s);
	harvest(&s.g, SLOT);
	expect_eq(shadow_operand_get(s.g.shadow, 0, slot_gva(SLOT_GFN + 2), 8, PFERR_WRITE,
				     &operand, &fault),
		  0);
	/* By another: who has an operand is in a section of the slots. */
	expect_eq(kthread_run(&s.thread, "harvest", run_harvest, &s), 0);
	kthread_join(&s.thread);
	expect_eq(shadow_operand_write(s.g.shadow, &operand, 1), 0);
	shadow_operand_put(s.g.shadow, &operand);
	expect_eq(harvest(&s.g, SLOT), page_bit(2));
	memslot_fixture_done(&s.g);
}

/* ---- a fault that is held in its middle ---- */

static void run_fault(void *arg)
{
	struct scene *s = arg;
	struct shadow_fault fault;

	s->ret = guest_fault(&s->g, 0, slot_gva(SLOT_GFN + 2), PFERR_WRITE, &fault);
}

/*
 * Rule 1. The other CPU stores by the leaf that the fault has made, and is done; then somebody
 * asks.
 *
 * Red where the fault marks after it has dropped mmu_lock.
 */
TEST(dirty_log_races, marked_with_the_grant)
{
	struct kthread cpu;
	struct scene s;

	scene_init(&s);
	harvest(&s.g, SLOT);
	shadow_set_hook(s.g.shadow, SHADOW_HOOK_FAULT_AFTER_LOCK, park_once, &s);
	expect_eq(kthread_run(&cpu, "cpu", run_fault, &s), 0);
	park_wait(&s.park, 1);
	expect_eq(model_store(s.g.model, 1, slot_gva(SLOT_GFN + 2), 2), 0);
	expect_eq(harvest(&s.g, SLOT), page_bit(2));
	park_release(&s.park);
	kthread_join(&cpu);
	memslot_fixture_done(&s.g);
}

static void run_begin(void *arg)
{
	struct scene *s = arg;

	expect_eq(log_slot(&s->g, true), 0);
}

/*
 *   fault                                  the log begins
 *   -----                                  --------------
 *   finds the slot, which is not logged
 *                                          publishes it, logged
 *                                          waits for the fault
 *   mmu_lock: a writable leaf, no mark
 *                                          protects what is mapped, that too
 *
 * Red without dirty_log_begin(): nobody hears of the store.
 */
TEST(dirty_log_races, a_fault_from_before)
{
	uint64_t generation;
	struct kthread cpu;
	struct scene s;

	memslot_fixture(&s.g, &config);
	expect_eq(place(&s.g, SLOT_GFN), 0);
	park_init(&s.park);
	s.times = 0;
	shadow_set_hook(s.g.shadow, SHADOW_HOOK_FAULT_BEFORE_LOCK, park_once, &s);
	generation = shadow_memslots_generation(s.g.shadow);
	expect_eq(kthread_run(&cpu, "cpu", run_fault, &s), 0);
	park_wait(&s.park, 1);
	expect_eq(kthread_run(&s.thread, "begin", run_begin, &s), 0);
	/* It is published, and the grace period has begun. */
	while (shadow_memslots_generation(s.g.shadow) == generation)
		sched_yield();
	park_release(&s.park);
	kthread_join(&cpu);
	kthread_join(&s.thread);
	expect_eq(s.ret, RET_PF_FIXED);
	expect_eq(model_store(s.g.model, 0, slot_gva(SLOT_GFN + 2), 1), -EFAULT);
	expect_eq(harvest(&s.g, SLOT), 0);
	guest_store(&s.g, 0, slot_gva(SLOT_GFN + 2), 1);
	expect_eq(harvest(&s.g, SLOT), page_bit(2));
	memslot_fixture_done(&s.g);
}
