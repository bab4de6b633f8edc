/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Merging against everybody else. The staged ones have something happen at each step of a merge:
 * its windows begin and end there, and so a notifier is called. test_ksm_storm.c has no stage.
 */
#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "notifier/contents.h"
#include "notifier/sync/thread.h"
#include "tests/support/asleep.h"
#include "tests/support/ksm_fixture.h"
#include "tests/support/step.h"
#include "tests/support/test.h"

/* ---- a stage ---- */

/*
 * Pages 0 of @mm and of @other are equal, and that of @mm is the second to be looked at: its first
 * window takes the right to write, its second the page.
 */
enum merge_step {
	STEP_NARROW_START,
	STEP_NARROW_END,
	STEP_REPLACE_START,
	STEP_REPLACE_END,
	NR_STEPS,
};

struct stage {
	struct host h;
	struct mm_struct *mm, *other;
	struct counting_notifier cn;
	enum merge_step at; /* where act() is called, and the steps that were passed */
	unsigned int passed;
	uint64_t scanner; /* thread_id() */
	void (*act)(struct stage *s);
	/* A thread that act() may start: it is over by the end of the scan, or waits for that. */
	struct kthread thread;
	atomic_t tid, done;
	void (*fn)(struct stage *s);
	struct mm_struct *child;
	pfn_t pfn;
	long merged;
};

/* Others open windows as well. */
static bool is_step(const struct stage *s, const struct mmu_notifier_range *range)
{
	return thread_id() == s->scanner && range->start == area_page(0);
}

static void pass(struct stage *s, enum merge_step step)
{
	void (*act)(struct stage *) = s->act;

	s->passed |= 1u << step;
	if (!act || step != s->at)
		return;
	s->act = NULL;
	act(s);
}

static void stage_start(struct counting_notifier *cn, const struct mmu_notifier_range *range)
{
	struct stage *s = cn->arg;

	if (is_step(s, range))
		pass(s, s->passed ? STEP_REPLACE_START : STEP_NARROW_START);
}

static void stage_end(struct counting_notifier *cn, const struct mmu_notifier_range *range)
{
	struct stage *s = cn->arg;

	if (is_step(s, range))
		pass(s, s->passed & 1u << STEP_REPLACE_START ? STEP_REPLACE_END : STEP_NARROW_END);
}

static void stage_init(struct stage *s)
{
	*s = (struct stage){.cn.arg = s, .scanner = thread_id()};
	host_init(&s->h, 32);
	s->other = mergeable_mm(&s->h, 1);
	s->mm = mergeable_mm(&s->h, 1);
	fill_page(s->other, 0, 1);
	fill_page(s->mm, 0, 1);
	s->pfn = pfn_of(s->mm, 0);
	expect_eq(scan_round(&s->h), 0);
	s->cn.on_start = stage_start;
	s->cn.on_end = stage_end;
	counting_register(&s->cn, s->mm);
}

static void thread_main(void *arg)
{
	struct stage *s = arg;

	atomic_set_release(&s->tid, (int)syscall(SYS_gettid));
	s->fn(s);
	atomic_set_release(&s->done, 1);
}

/* Until it has done what it is for, or cannot go on before the merge does. */
static void start_thread(struct stage *s)
{
	expect_eq(kthread_run(&s->thread, "test", thread_main, s), 0);
	while (!atomic_read_acquire(&s->tid))
		sched_yield();
	while (!atomic_read_acquire(&s->done) && !is_asleep(atomic_read(&s->tid)))
		sched_yield();
}

/* The round in which the two are merged, with @fn at @step, in a thread of its own. */
static void run_stage(struct stage *s, enum merge_step step, void (*fn)(struct stage *s))
{
	s->at = step;
	s->act = start_thread;
	s->fn = fn;
	s->merged = scan_round(&s->h);
	expect(!s->act); /* it was called */
	kthread_join(&s->thread);
}

static void stage_done(struct stage *s)
{
	if (s->mm) {
		counting_expect_paired(&s->cn);
		mmu_notifier_unregister(&s->cn.mn, s->mm);
		mmput(s->mm);
	}
	mmput(s->other);
	host_done(&s->h);
}

/* What passes each step: without this the tests below could be about nothing. */
TEST(ksm_races, the_steps)
{
	struct stage s;

	stage_init(&s);
	expect_eq(scan_round(&s.h), 1);
	expect_eq(s.passed, (1u << NR_STEPS) - 1);
	stage_done(&s);
}

/* ---- writers ---- */

static void pin_for_a_store(struct stage *s)
{
	pfn_t pfn;

	expect_eq(mm_pin_page(s->mm, area_page(0), true, &pfn), 0);
	expect(pfn == s->pfn);
}

/* The second half of mm_write(). */
static void store_and_unpin(struct stage *s)
{
	const uint64_t word = 2;

	contents_write(phys_map(s->h.phys, s->pfn), &word, sizeof(word));
	mm_unpin_page(s->mm, s->pfn, true);
}

/*
 * ksm_merge.c has the ladder. The store is made as late as it can be: after the contents were
 * compared, and before the page is gone. So there must be no second window before it.
 */
TEST(ksm_races, a_write_that_is_under_way)
{
	struct stage s;

	stage_init(&s);
	pin_for_a_store(&s);
	s.at = STEP_REPLACE_START;
	s.act = store_and_unpin;
	expect_eq(scan_round(&s.h), 0);
	expect_eq(s.passed, 1u << STEP_NARROW_START | 1u << STEP_NARROW_END);
	s.act = NULL;
	store_and_unpin(&s);
	expect_eq(test_read(s.mm, area_page(0)), 2);
	/* In place, as before: whoever pins a page for long relies on it. */
	expect(pfn_of(s.mm, 0) == s.pfn);
	expect(*pgtable_lookup(s.mm->pgtable, area_page(0)) & PTE_WRITE);
	expect_page(s.other, 0, 1);
	fill_page(s.mm, 0, 1);
	expect_eq(scan_settled(&s.h), 1);
	stage_done(&s);
}

/* The same for the page that others are to be merged into: it stays a page of its own. */
TEST(ksm_races, a_write_under_way_to_the_first)
{
	const uint64_t word = 2;
	struct stage s;
	pfn_t pfn;

	stage_init(&s);
	expect_eq(mm_pin_page(s.other, area_page(0), true, &pfn), 0);
	expect_eq(scan_round(&s.h), 0);
	contents_write(phys_map(s.h.phys, pfn), &word, sizeof(word));
	mm_unpin_page(s.other, pfn, true);
	expect_eq(test_read(s.other, area_page(0)), 2);
	expect_own(&s.h, pfn_of(s.other, 0));
	expect_page(s.mm, 0, 1);
	expect_eq(s.passed, 0);
	stage_done(&s);
}

#ifdef CONFIG_LOCKDEP
static bool in_lockdep(void)
{
	/* Not within lock checking, which would not see our locks. */
	return current_thread()->lockdep_busy;
}
#else
static bool in_lockdep(void)
{
	return false;
}
#endif

struct stepped {
	struct step step;
	struct host h;
	unsigned int at;
	bool tried;
	long merged;
};

static void scan_here(struct step *step)
{
	struct stepped *s = step->arg;

	if (s->tried || step->nr < s->at || in_lockdep())
		return;
	s->at = step->nr;
	s->tried = step->over = true;
	s->merged = scan_round(&s->h);
}

/* A whole round at any instruction of mm_write(), which has a page of its own to begin with. */
TEST(ksm_races, a_scan_in_the_middle_of_a_write)
{
	struct stepped s = {.step = {.at_each = scan_here, .arg = &s}, .tried = true};
	unsigned int nr_merged = 0, nr_not = 0;
	struct mm_struct *mm;
	uint64_t word = 2;

	step_skip();
	host_init(&s.h, 8);
	mm = mergeable_mm(&s.h, 2);
	for (uint64_t value = 10; s.tried; value++) {
		fill_page(mm, 0, value);
		fill_page(mm, 1, value);
		expect_eq(scan_round(&s.h), 0);
		s.tried = false;
		step_begin(&s.step);
		mm_write(mm, area_page(0), &word, sizeof(word));
		step_end();
		expect_eq(test_read(mm, area_page(0)), 2);
		expect_page(mm, 1, value);
		nr_merged += s.tried && s.merged;
		nr_not += s.tried && !s.merged;
		s.at += test_long() ? 3 : 29;
	}
	expect_ge(nr_merged, 5);
	expect_ge(nr_not, 1);
	mmput(mm);
	host_done(&s.h);
}

static void write_page(struct stage *s)
{
	fill_page(s->mm, 0, 2);
}

TEST(ksm_races, a_write_at_each_step)
{
	for (enum merge_step step = 0; step < NR_STEPS; step++) {
		struct stage s;

		stage_init(&s);
		run_stage(&s, step, write_page);
		expect_page(s.mm, 0, 2);
		expect_page(s.other, 0, 1);
		/* Early, it changes the contents; then it waits for the frame with a reference. */
		expect_eq(s.merged, step == STEP_REPLACE_END);
		expect_own(&s.h, pfn_of(s.mm, 0));
		if (s.merged)
			expect_merged(&s.h, pfn_of(s.other, 0), 1);
		else
			expect_own(&s.h, pfn_of(s.other, 0)); /* what was begun is undone */
		stage_done(&s);
	}
}

static void pin_to_read(struct stage *s)
{
	pfn_t pfn;

	expect_eq(mm_pin_page(s->mm, area_page(0), false, &pfn), 0);
	expect(pfn == s->pfn);
}

/* It was equal; but somebody needs it where it is. Without the second look it would be elsewhere.
 */
TEST(ksm_races, a_reader_pins_at_each_step)
{
	for (enum merge_step step = 0; step < STEP_REPLACE_END; step++) {
		struct stage s;

		stage_init(&s);
		run_stage(&s, step, pin_to_read);
		expect_eq(s.merged, 0);
		expect(pfn_of(s.mm, 0) == s.pfn);
		expect_page(s.mm, 0, 1);
		expect_page(s.other, 0, 1);
		mm_unpin_page(s.mm, s.pfn, false);
		expect_eq(scan_settled(&s.h), 1);
		stage_done(&s);
	}
}

/* The same with a merged page that is there already: it has no site of what did not become it. */
TEST(ksm_races, a_failed_merge_leaves_no_site)
{
	struct mm_struct *third;
	struct stage s;

	stage_init(&s);
	third = mergeable_mm(&s.h, 1);
	fill_page(third, 0, 1);
	fill_page(s.mm, 0, 2);
	expect_eq(scan_settled(&s.h), 1);
	expect_eq(sites_of(&s.h, pfn_of(third, 0)), 2);
	fill_page(s.mm, 0, 1);
	s.pfn = pfn_of(s.mm, 0);
	s.passed = 0;
	run_stage(&s, STEP_REPLACE_START, pin_to_read);
	expect_eq(s.merged, 0);
	expect_eq(sites_of(&s.h, pfn_of(third, 0)), 2);
	expect_merged(&s.h, pfn_of(third, 0), 2);
	mm_unpin_page(s.mm, s.pfn, false);
	expect_eq(scan_round(&s.h), 1);
	expect_eq(sites_of(&s.h, pfn_of(third, 0)), 3);
	mmput(third);
	stage_done(&s);
}

/* ---- those who unmap ---- */

static void zap_page(struct stage *s)
{
	expect_ge(mm_zap_range(s->mm, area_page(0), P), 0);
}

TEST(ksm_races, a_zap_at_each_step)
{
	for (enum merge_step step = 0; step < NR_STEPS; step++) {
		struct stage s;

		stage_init(&s);
		run_stage(&s, step, zap_page);
		expect_eq(s.merged, step == STEP_REPLACE_END);
		expect(pfn_of(s.mm, 0) == INVALID_PFN);
		expect_eq(used_frames(&s.h), 1);
		expect_page(s.mm, 0, 0);
		expect_page(s.other, 0, 1);
		stage_done(&s);
	}
}

static void unmap_page(struct stage *s)
{
	expect_eq(mm_munmap(s->mm, area_page(0), P), 0);
}

TEST(ksm_races, a_munmap_at_each_step)
{
	for (enum merge_step step = 0; step < NR_STEPS; step++) {
		struct stage s;

		stage_init(&s);
		run_stage(&s, step, unmap_page);
		expect_eq(s.merged, 1); /* it waits for mmap_lock */
		expect_eq(used_frames(&s.h), 1);
		expect_page(s.other, 0, 1);
		expect_merged(&s.h, pfn_of(s.other, 0), 1);
		stage_done(&s);
	}
}

/* ->release waits for nobody, but the pages stay until the scanner has left them. */
static void exit_mm(struct stage *s)
{
	mmput(s->mm);
}

TEST(ksm_races, an_exit_at_each_step)
{
	for (enum merge_step step = 0; step < NR_STEPS; step++) {
		struct stage s;

		stage_init(&s);
		run_stage(&s, step, exit_mm);
		expect_eq(s.merged, 1);
		expect_eq(atomic64_read(&s.cn.releases), 1);
		mmu_notifier_unregister(&s.cn.mn, s.mm);
		s.mm = NULL;
		expect_page(s.other, 0, 1);
		expect_eq(used_frames(&s.h), 1);
		expect_eq(scan_settled(&s.h), 0);
		stage_done(&s);
	}
}

static void unmerge(struct stage *s)
{
	expect_eq(mm_madvise(s->mm, area_page(0), P, MM_MADV_UNMERGEABLE), 0);
}

TEST(ksm_races, an_unmergeable_at_each_step)
{
	for (enum merge_step step = 0; step < NR_STEPS; step++) {
		struct stage s;

		stage_init(&s);
		run_stage(&s, step, unmerge);
		expect_eq(s.merged, 1);
		expect_own(&s.h, pfn_of(s.mm, 0));
		expect_eq(scan_settled(&s.h), 0);
		expect_own(&s.h, pfn_of(s.mm, 0));
		expect_page(s.mm, 0, 1);
		stage_done(&s);
	}
}

static void act_as_first_is_made(struct counting_notifier *cn,
				 const struct mmu_notifier_range *range)
{
	struct stage *s = cn->arg;

	(void)range;
	cn->on_start = NULL;
	start_thread(s);
	expect(atomic_read(&s->done));
}

/*
 * The second is not locked yet, and its mm neither: it may go while the first is made a merged page
 * for its sake. Which is undone.
 */
TEST(ksm_races, the_second_goes_while_the_first_is_made)
{
	static void (*const acts[])(struct stage * s) = {zap_page, unmap_page, unmerge, write_page};

	for (size_t i = 0; i < ARRAY_SIZE(acts); i++) {
		struct counting_notifier cn = {.on_start = act_as_first_is_made};
		struct stage s;

		stage_init(&s);
		cn.arg = &s;
		counting_register(&cn, s.other);
		s.fn = acts[i];
		expect_eq(scan_round(&s.h), 0);
		kthread_join(&s.thread);
		expect_eq(atomic64_read(&cn.starts[MMU_NOTIFY_CLEAR]), 1);
		expect_own(&s.h, pfn_of(s.other, 0));
		expect_page(s.other, 0, 1);
		expect_shared(&s.h, 0, 0);
		expect_eq(used_frames(&s.h), acts[i] == zap_page || acts[i] == unmap_page ? 1 : 2);
		mmu_notifier_unregister(&cn.mn, s.other);
		stage_done(&s);
	}
}

/* ---- others ---- */

static void fork_mm(struct stage *s)
{
	expect_eq(mm_fork(s->mm, &s->child), 0);
}

TEST(ksm_races, a_fork_at_each_step)
{
	for (enum merge_step step = 0; step < NR_STEPS; step++) {
		struct stage s;

		stage_init(&s);
		run_stage(&s, step, fork_mm);
		expect_eq(s.merged, 1);
		expect_merged(&s.h, pfn_of(s.other, 0), 3);
		fill_page(s.mm, 0, 2);
		fill_page(s.child, 0, 3);
		expect_page(s.mm, 0, 2);
		expect_page(s.child, 0, 3);
		expect_page(s.other, 0, 1);
		mmput(s.child);
		stage_done(&s);
	}
}

static void migrate_page(struct stage *s)
{
	int ret = migrate_frame(s->h.phys, s->pfn);

	expect(ret == 0 || ret == -EBUSY || ret == -ENOENT);
}

/* The frame is locked meanwhile. */
TEST(ksm_races, a_migration_at_each_step)
{
	for (enum merge_step step = 0; step < NR_STEPS; step++) {
		struct stage s;

		stage_init(&s);
		run_stage(&s, step, migrate_page);
		expect_eq(s.merged, 1);
		expect_merged(&s.h, pfn_of(s.other, 0), 2);
		expect_page(s.mm, 0, 1);
		stage_done(&s);
	}
}

static void unmerge_in_migration(struct counting_notifier *cn,
				 const struct mmu_notifier_range *range)
{
	struct stage *s = cn->arg;

	expect_eq(range->event, MMU_NOTIFY_MIGRATE);
	expect(pfn_of(s->mm, 0) == INVALID_PFN);
	cn->on_end = NULL;
	start_thread(s);
	expect(!atomic_read(&s->done));
}

/* What is asked to be a page of its own again is on its way: it is one when the call returns. */
TEST(ksm_races, an_unmergeable_while_the_page_moves)
{
	struct stage s;

	stage_init(&s);
	expect_eq(scan_round(&s.h), 1);
	s.cn.on_start = NULL;
	s.cn.on_end = unmerge_in_migration;
	s.fn = unmerge;
	expect_eq(migrate_frame(s.h.phys, pfn_of(s.mm, 0)), 0);
	kthread_join(&s.thread);
	expect_own(&s.h, pfn_of(s.mm, 0));
	expect_merged(&s.h, pfn_of(s.other, 0), 1);
	expect_page(s.mm, 0, 1);
	expect_page(s.other, 0, 1);
	stage_done(&s);
}

/* ---- a page that goes while the scanner waits for its frame ---- */

/* One merged page, mapped at page 0; threads that wait for its frame lock, which we have. */
struct waiting {
	struct host h;
	struct mm_struct *mm;
	pfn_t pfn;
	struct kthread thread[2];
	atomic_t tid[2];
	struct ksm_stats stats;
};

static void waiting_init(struct waiting *w)
{
	memset(w, 0, sizeof(*w));
	host_init(&w->h, 16);
	w->mm = mergeable_mm(&w->h, 2);
	fill_page(w->mm, 0, 1);
	fill_page(w->mm, 1, 1);
	expect_eq(scan_settled(&w->h), 1);
	fill_page(w->mm, 1, 2);
	w->pfn = pfn_of(w->mm, 0);
	expect_merged(&w->h, w->pfn, 1);
	lock_frame(w->h.phys, w->pfn);
}

static void waiting_done(struct waiting *w)
{
	unlock_frame(w->h.phys, w->pfn);
	kthread_join(&w->thread[0]);
	kthread_join(&w->thread[1]);
	expect_shared(&w->h, 0, 0);
	expect_eq(used_frames(&w->h), 1);
	expect_page(w->mm, 1, 2);
	mmput(w->mm);
	host_done(&w->h);
}

static void unmap_last(void *arg)
{
	struct waiting *w = arg;

	atomic_set_release(&w->tid[0], (int)syscall(SYS_gettid));
	expect_eq(mm_zap_range(w->mm, area_page(0), P), 1);
}

static void scan_it(void *arg)
{
	struct waiting *w = arg;

	atomic_set_release(&w->tid[1], (int)syscall(SYS_gettid));
	expect_eq(scan_round(&w->h), 0);
}

static void count_it(void *arg)
{
	struct waiting *w = arg;

	atomic_set_release(&w->tid[1], (int)syscall(SYS_gettid));
	ksm_get_stats(w->h.ksm, &w->stats);
}

static void run_until_asleep(struct waiting *w, int i, void (*fn)(void *arg))
{
	expect_eq(kthread_run(&w->thread[i], "test", fn, w), 0);
	while (!atomic_read_acquire(&w->tid[i]))
		sched_yield();
	until_asleep(atomic_read(&w->tid[i]));
}

/* ksm_page.c has the ladder. Here we are the unmapper who is first. */
TEST(ksm_races, a_page_goes_while_the_scanner_waits)
{
	struct waiting w;

	waiting_init(&w);
	run_until_asleep(&w, 0, unmap_last);
	run_until_asleep(&w, 1, count_it);
	expect_eq(atomic_read(&pfn_to_frame(w.h.phys, w.pfn)->mapcount), 0);
	private_page_unmapped(w.h.phys, w.pfn);
	waiting_done(&w);
	expect_eq(w.stats.pages_shared, 0);
}

/* Whichever of the two has the lock first. */
TEST(ksm_races, a_page_goes_before_or_after)
{
	for (int round = 0; round < 20; round++) {
		struct waiting w;

		waiting_init(&w);
		if (round & 1)
			run_until_asleep(&w, 1, scan_it);
		run_until_asleep(&w, 0, unmap_last);
		if (!(round & 1))
			run_until_asleep(&w, 1, scan_it);
		waiting_done(&w);
	}
}
