/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Slots change and invalidations are open: what each start has counted its end takes back,
 * and a window that nobody closes any more holds up nothing.
 */
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <unistd.h>

#include "notifier/sync/thread.h"
#include "tests/support/asleep.h"
#include "tests/support/beside.h"
#include "tests/support/memslot_fixture.h"

static const struct guest_mem_config config = {.audit = true, .nr_cpus = 2};

/* ---- a change in another thread, and windows in this one ---- */

enum change { CREATE, DELETE, MOVE, READONLY, NR_CHANGES };

struct changer {
	struct guest_mem *g;
	enum change change;
	struct kthread thread;
	wait_queue_head_t wait;
	pid_t tid;
	atomic_t waits; /* how often the gate was found closed */
	atomic_t done;
};

static void gate_closed(void *arg)
{
	struct changer *c = arg;

	atomic_inc_return(&c->waits);
	wake_up_all(&c->wait);
}

static int make_change(struct guest_mem *g, enum change change)
{
	switch (change) {
	case CREATE:
		return place(g, SLOT_GFN);
	case DELETE:
		return delete_slot(g, SLOT);
	case MOVE:
		return place(g, SLOT_GFN + 3);
	default:
		return set_slot(g, SLOT, SLOT_GFN, SLOT_PAGES, SLOT_HVA, MEMSLOT_READONLY);
	}
}

static void run_changer(void *arg)
{
	struct changer *c = arg;

	c->tid = gettid();
	expect_eq(make_change(c->g, c->change), 0);
	atomic_inc_return(&c->done);
	wake_up_all(&c->wait);
}

static void start_changer(struct changer *c, struct guest_mem *g, enum change change)
{
	*c = (struct changer){.g = g, .change = change};
	init_waitqueue_head(&c->wait);
	shadow_set_hook(g->shadow, SHADOW_HOOK_SLOT_WAITS, gate_closed, c);
	expect_eq(kthread_run(&c->thread, "changer", run_changer, c), 0);
}

/* Until the change waits, or is through. */
static void wait_for_changer(struct changer *c)
{
	wait_event(c->wait, atomic_read_acquire(&c->waits) || atomic_read_acquire(&c->done));
}

static void open_window(struct guest_mem *g, struct mmu_notifier_range *range, hva_t start,
			hva_t end)
{
	mmap_read_lock(g->mm);
	mmu_notifier_range_init(range, MMU_NOTIFY_CLEAR, 0, g->mm, start, end);
	mmu_notifier_invalidate_range_start(range);
	mmap_read_unlock(g->mm); /* the window is the test's own */
}

static void expect_balanced(struct guest_mem *g)
{
	expect_eq(g->shadow->invalidate_in_progress, 0);
	expect_eq(g->shadow->mn_active_invalidate_count, 0);
}

/*
 * Every way in which a window may lie to the slot, and every change. Were the change not held up,
 * the end would look at another set than the start: counted once too often, or once too seldom.
 */
static void change_in_window(enum change change, hva_t start, hva_t end)
{
	struct mmu_notifier_range range;
	uint64_t generation;
	struct changer c;
	struct guest_mem g;
	bool in_window;

	memslot_fixture(&g, &config);
	if (change != CREATE) {
		expect_eq(place(&g, SLOT_GFN), 0);
		guest_store(&g, 1, slot_gva(SLOT_GFN), stamp(0));
	}
	generation = shadow_memslots_generation(g.shadow);
	open_window(&g, &range, start, end);
	start_changer(&c, &g, change);
	wait_for_changer(&c);
	in_window = atomic_read(&c.done) || READ_ONCE(g.shadow->slots)->generation != generation;
	mmu_notifier_invalidate_range_end(&range);
	kthread_join(&c.thread);
	expect_balanced(&g);
	expect(!in_window);

	expect_eq(guest_load(&g, 0, 0x1000), 0);
	if (change == MOVE)
		expect_eq(guest_load(&g, 0, slot_gva(SLOT_GFN + 3)), stamp(0));
	else if (change == DELETE)
		expect_eq(guest_try(&g, 0, MODEL_LOAD, slot_gva(SLOT_GFN), NULL), RET_PF_EMULATE);
	else
		expect_eq(guest_load(&g, 0, slot_gva(SLOT_GFN)), stamp(0));
	memslot_fixture_done(&g);
}

TEST(memslot_gate, overlap)
{
	const hva_t slot = SLOT_HVA, slot_end = SLOT_HVA + SLOT_PAGES * PAGE_SIZE, page = PAGE_SIZE;
	const hva_t windows[][2] = {
		{slot, slot_end},		       /* the slot */
		{slot + page, slot_end - page},	       /* inside */
		{slot - page, slot_end + page},	       /* around */
		{slot - 2 * page, slot + page},	       /* over its start */
		{slot_end - page, slot_end + page},    /* over its end */
		{slot - 2 * page, slot},	       /* up to it */
		{slot_end, slot_end + page},	       /* behind it */
		{slot - 9 * page, slot - 8 * page},    /* elsewhere */
		{GUEST_MEM_HVA, slot + page},	       /* over RAM, too */
		{GUEST_MEM_HVA, GUEST_MEM_HVA + page}, /* over RAM alone */
		{0, HVA_MAX},
	};

	for (enum change change = CREATE; change < NR_CHANGES; change++) {
		for (unsigned int i = 0; i < sizeof(windows) / sizeof(windows[0]); i++)
			change_in_window(change, windows[i][0], windows[i][1]);
	}
}

/* The last of the windows opens the gate, whichever that is. */
TEST(memslot_gate, nested_windows)
{
	const hva_t at[] = {SLOT_HVA, GUEST_MEM_HVA, SLOT_HVA - 16 * PAGE_SIZE};

	for (unsigned int order = 0; order < 6; order++) {
		struct mmu_notifier_range range[3];
		unsigned int first = order % 3, second = (first + 1 + order / 3) % 3;
		struct changer c;
		struct guest_mem g;

		memslot_fixture(&g, &config);
		for (unsigned int i = 0; i < 3; i++)
			open_window(&g, &range[i], at[i], at[i] + PAGE_SIZE);
		start_changer(&c, &g, CREATE);
		wait_for_changer(&c);
		mmu_notifier_invalidate_range_end(&range[first]);
		mmu_notifier_invalidate_range_end(&range[second]);
		expect(!atomic_read(&c.done));
		mmu_notifier_invalidate_range_end(&range[3 - first - second]);
		kthread_join(&c.thread);
		expect_balanced(&g);
		memslot_fixture_done(&g);
	}
}

/* ---- only those who are concerned take mmu_lock ---- */

TEST(memslot_gate, windows_elsewhere_take_no_mmu_lock)
{
	struct mmu_notifier_range range;
	struct guest_mem g;
	unsigned long seq;

	memslot_fixture(&g, &config);
	expect_eq(place(&g, SLOT_GFN), 0);
	seq = g.shadow->invalidate_seq;
	mmap_read_lock(g.mm);
	mmu_notifier_range_init(&range, MMU_NOTIFY_CLEAR, 0, g.mm, SLOT_HVA - 4 * PAGE_SIZE,
				SLOT_HVA);
	/* Who took it would wait for us. */
	spin_lock(&g.shadow->mmu_lock);
	shadow_mmu_notifier_ops.invalidate_range_start(&g.shadow->notifier, &range);
	expect_eq(g.shadow->mn_active_invalidate_count, 1);
	shadow_mmu_notifier_ops.invalidate_range_end(&g.shadow->notifier, &range);
	spin_unlock(&g.shadow->mmu_lock);
	mmap_read_unlock(g.mm);
	expect_balanced(&g);
	expect_eq(g.shadow->invalidate_seq, seq);
	memslot_fixture_done(&g);
}

/* ---- windows that nobody closes ---- */

/* The mm ends inside a window, while a change waits for the window's end. */
TEST(memslot_gate, exit_lets_go)
{
	struct mmu_notifier_range range;
	struct changer c;
	struct guest_mem g;

	memslot_fixture(&g, &config);
	expect_eq(place(&g, SLOT_GFN), 0);
	guest_store(&g, 0, slot_gva(SLOT_GFN), 1);
	open_window(&g, &range, SLOT_HVA, SLOT_HVA + PAGE_SIZE);
	start_changer(&c, &g, DELETE);
	wait_for_changer(&c);
	expect(!atomic_read(&c.done));
	until_asleep(c.tid);
	mmput(g.mm);
	g.mm = NULL;
	kthread_join(&c.thread);
	expect_eq(shadow_audit(g.shadow, NULL, 0), 0);
	guest_mem_destroy(&g);
}

/* The change comes after the end of the mm. */
TEST(memslot_gate, exit_first)
{
	struct mmu_notifier_range range;
	struct guest_mem g;

	memslot_fixture(&g, &config);
	expect_eq(place(&g, SLOT_GFN), 0);
	guest_store(&g, 0, slot_gva(SLOT_GFN), 1);
	open_window(&g, &range, SLOT_HVA, SLOT_HVA + PAGE_SIZE);
	mmput(g.mm);
	g.mm = NULL;
	expect_eq(delete_slot(&g, SLOT), 0);
	expect_eq(place(&g, SLOT_GFN), 0);
	expect_eq(place(&g, SLOT_GFN + 1), 0);
	guest_mem_destroy(&g);
}

/* ->release runs between start and end, who both still find us. */
TEST(memslot_gate, release_in_a_window)
{
	const hva_t at[] = {SLOT_HVA, SLOT_HVA - 16 * PAGE_SIZE};

	for (unsigned int i = 0; i < 2; i++) {
		struct mmu_notifier_range range, late;
		const struct mmu_notifier_ops *ops = &shadow_mmu_notifier_ops;
		struct guest_mem g;

		memslot_fixture(&g, &config);
		expect_eq(place(&g, SLOT_GFN), 0);
		mmu_notifier_range_init(&range, MMU_NOTIFY_CLEAR, 0, g.mm, at[i],
					at[i] + PAGE_SIZE);
		late = range;
		ops->invalidate_range_start(&g.shadow->notifier, &range);
		ops->release(&g.shadow->notifier, g.mm);
		ops->invalidate_range_start(&g.shadow->notifier, &late);
		/* Other answers than the start had. */
		expect_eq(delete_slot(&g, SLOT), 0);
		expect_eq(set_slot(&g, 2, 0x3000, 1, at[1], 0), 0);
		ops->invalidate_range_end(&g.shadow->notifier, &range);
		ops->invalidate_range_end(&g.shadow->notifier, &late);
		guest_mem_destroy(&g);
	}
}

TEST(memslot_gate, destroy_in_a_window)
{
	struct mmu_notifier_range range;
	struct guest_mem g;

	memslot_fixture(&g, &config);
	expect_eq(place(&g, SLOT_GFN), 0);
	guest_store(&g, 0, slot_gva(SLOT_GFN), 1);
	open_window(&g, &range, SLOT_HVA, SLOT_HVA + PAGE_SIZE);
	guest_mem_detach(&g);
	mmu_notifier_invalidate_range_end(&range);
	guest_mem_destroy(&g);
}

/* ---- all at once ---- */

struct storm {
	struct guest_mem *g;
	unsigned int nr;
	atomic_t stop;
	atomic_t windows, accesses;
};

static void open_and_close(void *arg)
{
	struct storm *s = arg;
	unsigned int seed = 1;

	while (!atomic_read(&s->stop)) {
		struct mmu_notifier_range outer, inner;
		hva_t at = SLOT_HVA + PAGE_SIZE * (rand_r(&seed) % 16) - 4 * PAGE_SIZE;

		open_window(s->g, &outer, at, at + PAGE_SIZE * (1 + rand_r(&seed) % 4));
		if (rand_r(&seed) % 2) {
			at = SLOT_HVA + PAGE_SIZE * (rand_r(&seed) % 12) - 4 * PAGE_SIZE;
			open_window(s->g, &inner, at, at + PAGE_SIZE);
			sched_yield();
			mmu_notifier_invalidate_range_end(&inner);
		}
		mmu_notifier_invalidate_range_end(&outer);
		atomic_inc(&s->windows);
	}
}

static void access_slot(void *arg)
{
	struct storm *s = arg;

	for (uint64_t i = 0; !atomic_read(&s->stop); i++) {
		struct model_access access = {.op = MODEL_LOAD, .gva = slot_gva(SLOT_GFN + i % 8)};
		enum ret_pf pf = model_access_retry(s->g->model, 0, s->g->shadow, &access);

		if (pf == RET_PF_FIXED)
			expect(access.value - stamp(0) < SLOT_PAGES);
		else
			expect_eq(pf, RET_PF_EMULATE);
		atomic_inc(&s->accesses);
	}
}

TEST(memslot_gate, storm)
{
	const int rounds = test_long() ? 3000 : 150;
	struct kthread windows, cpu;
	struct storm s = {0};
	struct guest_mem g;

	memslot_fixture(&g, &config);
	s.g = &g;
	expect_eq(kthread_run(&windows, "windows", open_and_close, &s), 0);
	expect_eq(kthread_run(&cpu, "cpu", access_slot, &s), 0);
	for (int i = 0; i < rounds; i++) {
		shadow_set_zap_policy(g.shadow, both_policies[i % 2]);
		expect_eq(place(&g, SLOT_GFN), 0);
		expect_eq(place(&g, SLOT_GFN + 1 + i % 3), 0);
		expect_eq(set_slot(&g, SLOT, SLOT_GFN + 1 + i % 3, SLOT_PAGES, SLOT_HVA,
				   MEMSLOT_READONLY),
			  0);
		expect_eq(delete_slot(&g, SLOT), 0);
	}
	while (atomic_read(&s.windows) < rounds || atomic_read(&s.accesses) < rounds)
		sched_yield();
	atomic_set(&s.stop, 1);
	kthread_join(&windows);
	kthread_join(&cpu);
	expect_balanced(&g);
	memslot_fixture_done(&g);
}

/* ---- who has read the old set ---- */

struct reading {
	struct guest_mem *g;
	uint64_t generation, read;
	struct kthread reader, changer;
	atomic_t inside;
};

static uint64_t beside_the_set; /* what belongs to it, for readers to look at */

static void run_reader(void *arg)
{
	struct reading *r = arg;
	int id = srcu_read_lock(&r->g->shadow->slots_srcu);
	const struct memslots *slots = shadow_memslots(r->g->shadow);

	atomic_set(&r->inside, 1);
	while (shadow_memslots(r->g->shadow) == slots)
		sched_yield();
	r->read = beside_the_set;
	srcu_read_unlock(&r->g->shadow->slots_srcu, id);
}

static void run_place(void *arg)
{
	struct reading *r = arg;

	expect_eq(place(r->g, SLOT_GFN), 0);
}

/* Whoever finds the new generation finds nobody left who reads the set before it, and may do with
 * what was that set's as he likes. With ThreadSanitizer this says how he knows. */
TEST(memslot_gate, nobody_reads_the_old_set)
{
	struct guest_mem g;
	struct reading r = {.g = &g};

	memslot_fixture(&g, &config);
	beside_the_set = 1;
	r.generation = shadow_memslots_generation(g.shadow);
	expect_eq(kthread_run(&r.reader, "reader", run_reader, &r), 0);
	while (!atomic_read(&r.inside))
		sched_yield();
	expect_eq(kthread_run(&r.changer, "slots", run_place, &r), 0);
	while (shadow_memslots_generation(g.shadow) != r.generation + 2)
		sched_yield();
	beside_the_set = 2;
	kthread_join(&r.reader);
	kthread_join(&r.changer);
	expect_eq(r.read, 1);
	memslot_fixture_done(&g);
}

/* ---- the counts and their locks ---- */

struct plain_window {
	struct guest_mem *g;
	struct mmu_notifier_range range;
};

static void start_window(void *arg)
{
	struct plain_window *w = arg;

	shadow_mmu_notifier_ops.invalidate_range_start(&w->g->shadow->notifier, &w->range);
}

static void end_window(void *arg)
{
	struct plain_window *w = arg;

	shadow_mmu_notifier_ops.invalidate_range_end(&w->g->shadow->notifier, &w->range);
}

/* Of windows that are open: whoever has a lock finds what it guards as it was, whether one opens or
 * closes. */
TEST(memslot_gate, windows_are_counted_under_their_locks)
{
	for (unsigned int i = 0; i < 4 * 20; i++) {
		struct beside beside;
		struct guest_mem g;
		struct plain_window w = {.g = &g};
		bool closes = i % 2;
		spinlock_t *lock;
		unsigned long seq;

		memslot_fixture(&g, &config);
		mmu_notifier_range_init(&w.range, MMU_NOTIFY_CLEAR, 0, g.mm, guest_hva(0),
					guest_hva(PAGE_SIZE));
		if (closes)
			start_window(&w);
		lock = i / 2 % 2 ? &g.shadow->mmu_lock : &g.shadow->mn_invalidate_lock;
		spin_lock(lock);
		seq = g.shadow->invalidate_seq;
		beside_start(&beside, closes ? end_window : start_window, &w);
		for_each_look()
		{
			if (lock == &g.shadow->mmu_lock) {
				expect_eq(READ_ONCE(g.shadow->invalidate_seq), seq);
				expect_eq(READ_ONCE(g.shadow->invalidate_in_progress), closes);
			} else {
				expect_eq(READ_ONCE(g.shadow->mn_active_invalidate_count), closes);
			}
		}
		spin_unlock(lock);
		kthread_join(&beside.thread);
		if (!closes)
			end_window(&w);
		memslot_fixture_done(&g);
	}
}

static void ask_for_windows(void *arg)
{
	struct guest_mem *g = arg;

	expect(!mn_invalidation_open(g->shadow, guest_hva(0)));
}

TEST(memslot_gate, windows_are_looked_at_under_the_lock)
{
	struct beside beside;
	struct guest_mem g;

	memslot_fixture(&g, &config);
	for (unsigned int i = 0; i < 20; i++) {
		spin_lock(&g.shadow->mn_invalidate_lock);
		beside_start(&beside, ask_for_windows, &g);
		for_each_look() expect(!atomic_read(&beside.over));
		spin_unlock(&g.shadow->mn_invalidate_lock);
		kthread_join(&beside.thread);
	}
	memslot_fixture_done(&g);
}

/* ---- what a callback may not take ---- */

#ifdef CONFIG_LOCKDEP
struct taker {
	struct mmu_notifier mn;
	struct guest_mem *g;
};

static int take_slots_lock(struct mmu_notifier *mn, const struct mmu_notifier_range *range)
{
	struct taker *taker = container_of(mn, struct taker, mn);

	(void)range;
	shadow_set_zap_policy(taker->g->shadow, SHADOW_ZAP_ALL);
	return 0;
}

static const struct mmu_notifier_ops taker_ops = {.invalidate_range_start = take_slots_lock};

static void open_a_window(void *arg)
{
	struct guest_mem *g = arg;

	mm_zap_range(g->mm, guest_hva(0), PAGE_SIZE);
}
#endif

/* A change waits for windows with slots_lock: whoever takes that inside a callback waits for
 * himself, some day. Lockdep says so on any other. */
TEST(memslot_gate, slots_lock_in_a_callback)
{
#ifndef CONFIG_LOCKDEP
	skip("built without CONFIG_LOCKDEP");
#else
	struct taker taker = {.mn.ops = &taker_ops};
	struct guest_mem g;

	memslot_fixture(&g, &config);
	taker.g = &g;
	guest_write(&g, 0, 1);
	expect_eq(mmu_notifier_register(&taker.mn, g.mm), 0);
	expect_eq(place(&g, SLOT_GFN), 0);
	expect_bug(open_a_window, &g,
		   "the order seen before is shadow->slots_lock -> "
		   "mmu_notifier_invalidate_range_start:");
	mmu_notifier_unregister(&taker.mn, g.mm);
	memslot_fixture_done(&g);
#endif
}
