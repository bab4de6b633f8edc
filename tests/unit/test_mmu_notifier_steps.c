/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Two who come and go at the same time: at each step of the one, in turn, the other does all of
 * what it does. On one thread, so that it needs no luck: notifier/mmu_notifier.c is part of this
 * program, and stops where it takes or drops a lock or a section, waits, or queues.
 *
 * What holds in every order (R-05, and get meeting put): ->release has been called before a page is
 * freed, a node is unlinked once, what was put for the last time is found by nobody, and whatever
 * was made is freed once.
 */
#include "tests/support/got_notifier.h"

static void (*intruder)(void); /* what is to happen, once */
static int at_step, nr_steps;
static int nr_sections; /* open ones: in there nobody may wait for others */
static bool intruder_waits;

static void step(void)
{
	void (*fn)(void) = intruder;

	if (!fn || (intruder_waits && nr_sections) || nr_steps++ != at_step)
		return;
	intruder = NULL;
	fn();
}

static int enter_section(struct srcu_struct *ssp)
{
	int id;

	step();
	id = srcu_read_lock(ssp);
	nr_sections++;
	step();
	return id;
}

static void leave_section(struct srcu_struct *ssp, int id)
{
	step();
	nr_sections--;
	srcu_read_unlock(ssp, id);
	step();
}

static void lock_step(spinlock_t *lock)
{
	step();
	spin_lock(lock);
}

static void unlock_step(spinlock_t *lock)
{
	spin_unlock(lock);
	step();
}

static void wait_step(struct srcu_struct *ssp)
{
	step();
	synchronize_srcu(ssp);
	step();
}

static void queue_step(struct srcu_struct *ssp, struct srcu_head *head,
		       void (*func)(struct srcu_head *head))
{
	step();
	call_srcu(ssp, head, func);
	step();
}

#define srcu_read_lock(ssp)	  enter_section(ssp)
#define srcu_read_unlock(ssp, id) leave_section(ssp, id)
#undef spin_lock
#define spin_lock(lock)		   lock_step(lock)
#define spin_unlock(lock)	   unlock_step(lock)
#define synchronize_srcu(ssp)	   wait_step(ssp)
#define call_srcu(ssp, head, func) queue_step(ssp, head, func)
#include "notifier/mmu_notifier.c"
#undef srcu_read_lock
#undef srcu_read_unlock
#undef spin_lock
#undef spin_unlock
#undef synchronize_srcu
#undef call_srcu

static struct host h;
static struct recorder r;
static struct got *got, *second;

static void exit_mm(void)
{
	mmput(h.mm);
}

static void unregister(void)
{
	mmu_notifier_unregister(&r.mn, r.mn.mm);
}

static void unregister_no_release(void)
{
	mmu_notifier_unregister_no_release(&r.mn, r.mn.mm);
}

static void put(void)
{
	mmu_notifier_put(&got->mn);
}

static void no_page_is_freed(struct got *released)
{
	(void)released;
	expect_eq(phys_nr_free(h.phys), r.nr_free);
}

/* Of the first call alone: the second may come when exit is over. */
static void release_once(struct mmu_notifier *mn, struct mm_struct *mm)
{
	if (!atomic_read(&r.releases))
		expect_eq(phys_nr_free(h.phys), r.nr_free);
	recorder_release(mn, mm);
}

static const struct mmu_notifier_ops once_ops = {.release = release_once};

static void prepare(void)
{
	host_init(&h);
	mmgrab(h.mm); /* ours, to look at it */
	recorder_init(&r, 'r', NULL);
	r.mn.ops = &once_ops;
	r.nr_free = phys_nr_free(h.phys);
}

/* @first, with @then at step number @i; which waits for others, or does not. False: no such step.
 */
static bool meet_at(int i, void (*first)(void), void (*then)(void), bool then_waits)
{
	nr_steps = 0;
	at_step = i;
	intruder_waits = then_waits;
	intruder = then;
	first();
	if (!intruder)
		return true;
	/* It was all over: */
	intruder = NULL;
	then();
	return false;
}

/* Nobody is left, and nobody holds the mm but us. */
static void finish(void)
{
	mmu_notifier_synchronize();
	expect_eq(mm_count_of(h.mm), 1);
	expect(!h.mm->notifier_subscriptions->first);
	mmdrop(h.mm);
	h.mm = NULL;
	host_destroy(&h);
}

static void sweep_of_register(void (*first)(void), void (*then)(void), bool then_waits,
			      int max_releases, int min_steps)
{
	bool met;
	int i = 0;

	do {
		prepare();
		expect_eq(mmu_notifier_register(&r.mn, h.mm), 0);
		met = meet_at(i++, first, then, then_waits);
		expect_le(atomic_read(&r.releases), max_releases);
		if (then != unregister_no_release)
			expect_ge(atomic_read(&r.releases), 1);
		expect(!r.mn.pprev);
		finish();
	} while (met);
	expect_ge(i, min_steps);
}

TEST(mmu_notifier_steps, exit_within_unregister)
{
	sweep_of_register(unregister, exit_mm, true, 2, 6);
}

TEST(mmu_notifier_steps, unregister_within_exit)
{
	sweep_of_register(exit_mm, unregister, true, 1, 5);
}

TEST(mmu_notifier_steps, no_release_within_exit)
{
	sweep_of_register(exit_mm, unregister_no_release, false, 1, 8);
}

static void sweep_of_get(void (*first)(void), void (*then)(void), bool then_waits, int min_steps)
{
	bool met;
	int i = 0;

	gots.on_release = no_page_is_freed;
	do {
		prepare();
		got = got_get(0, h.mm);
		met = meet_at(i++, first, then, then_waits);
		expect_eq(atomic_read(&gots.dead_calls), 0);
		finish();
		expect_lives(i, i);
	} while (met);
	expect_ge(i, min_steps);
	expect_all_dead();
}

TEST(mmu_notifier_steps, put_within_exit)
{
	sweep_of_get(exit_mm, put, false, 8);
}

TEST(mmu_notifier_steps, exit_within_put)
{
	sweep_of_get(put, exit_mm, true, 4);
}

/* Before the last put it is found: then there is a user more, and it is the same. */
static void get_or_find_second(void)
{
	unsigned int users = got->mn.users;

	second = got_get(0, h.mm);
	if (users) {
		expect(second == got);
		mmu_notifier_put(&second->mn);
		second = NULL;
	}
}

TEST(mmu_notifier_steps, get_within_put)
{
	bool met;
	int i = 0;
	int found = 0, made = 0;

	do {
		prepare();
		got = got_get(0, h.mm);
		second = NULL;
		met = meet_at(i++, put, get_or_find_second, true);
		if (second) {
			made++;
			expect(second != got);
			expect_eq(second->mn.users, 1);
			mmu_notifier_synchronize();
			expect_eq(second->state, GOT_ALIVE);
			window(h.mm);
			expect_eq(atomic_read(&second->starts), 1);
			mmu_notifier_put(&second->mn);
		} else {
			found++;
		}
		mmput(h.mm);
		finish();
		expect_lives(found + 2 * made, found + 2 * made);
	} while (met);
	expect_ge(found, 1);
	expect_ge(made, 4);
	expect_all_dead();
}
