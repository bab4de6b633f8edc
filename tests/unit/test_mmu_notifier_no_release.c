/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * mmu_notifier_unregister_no_release() and mmu_notifier_call_srcu(), as HMM had them: the object is
 * unlinked at once, and freed by a callback, behind all who may still stand on it.
 */
#include "notifier/subscriptions.h"
#include "tests/support/notifier_fixture.h"
#include "tests/support/srcu_probe.h"

/* As HMM's: counted by itself, with an mm_count of its own until it is freed. */
struct mirror {
	struct mmu_notifier mn;
	struct srcu_head rcu;
	struct mm_struct *mm;
	struct park *before; /* to stand in with the node in hand, and nothing of it looked at */
	atomic_t running, starts, late; /* late: looked at it, and it was freed */
	atomic_t freed, freed_early;
};

static int mirror_start(struct mmu_notifier *mn, const struct mmu_notifier_range *range)
{
	struct mirror *m = container_of(mn, struct mirror, mn);

	(void)range;
	atomic_inc_return(&m->running);
	if (m->before)
		park_enter(m->before);
	if (atomic_read_acquire(&m->freed))
		atomic_inc(&m->late);
	atomic_inc_return(&m->starts);
	atomic_dec_return(&m->running);
	return 0;
}

static void mirror_release(struct mmu_notifier *mn, struct mm_struct *mm)
{
	(void)mm;
	fail("->release of %p", (void *)mn);
}

static const struct mmu_notifier_ops mirror_ops = {
	.invalidate_range_start = mirror_start,
	.release = mirror_release,
};

static void mirror_free(struct srcu_head *head)
{
	struct mirror *m = container_of(head, struct mirror, rcu);

	if (atomic_read(&m->running))
		atomic_inc(&m->freed_early);
	atomic_inc_return(&m->freed);
	mmdrop(m->mm);
}

static void mirror_init(struct mirror *m, struct mm_struct *mm)
{
	*m = (struct mirror){.mn.ops = &mirror_ops, .mm = mm};
	expect_eq(mmu_notifier_register(&m->mn, mm), 0);
	mmgrab(mm);
}

static void mirror_leave(struct mirror *m)
{
	mmu_notifier_unregister_no_release(&m->mn, m->mm);
	mmu_notifier_call_srcu(&m->rcu, mirror_free);
}

TEST(mmu_notifier_no_release, at_once_and_without_release)
{
	struct mirror m;
	struct host h;

	host_init(&h);
	mirror_init(&m, h.mm);
	expect_eq(refcount_read(&h.mm->mm_count), 3);
	window(h.mm);
	expect_eq(atomic_read(&m.starts), 1);

	mmu_notifier_unregister_no_release(&m.mn, h.mm);
	expect_eq(refcount_read(&h.mm->mm_count), 2);
	window(h.mm);
	expect_eq(atomic_read(&m.starts), 1);
	mmu_notifier_call_srcu(&m.rcu, mirror_free);
	expect_eq(atomic_read(&m.freed), 0);
	mmu_notifier_synchronize();
	expect_eq(atomic_read(&m.freed), 1);
	expect_eq(refcount_read(&h.mm->mm_count), 1);
	host_destroy(&h);
}

/* From the middle, the head and the tail: the others stay in order. */
TEST(mmu_notifier_no_release, others_stay)
{
	for (int leaver = 0; leaver < 3; leaver++) {
		struct mirror m[3];
		struct host h;

		host_init(&h);
		for (int i = 0; i < 3; i++)
			mirror_init(&m[i], h.mm);
		mirror_leave(&m[leaver]);
		window(h.mm);
		for (int i = 0; i < 3; i++)
			expect_eq(atomic_read(&m[i].starts), i != leaver);
		for (int i = 0; i < 3; i++)
			if (i != leaver)
				mirror_leave(&m[i]);
		window(h.mm);
		mmu_notifier_synchronize();
		for (int i = 0; i < 3; i++) {
			expect_eq(atomic_read(&m[i].freed), 1);
			expect_eq(atomic_read(&m[i].starts), i != leaver);
		}
		host_destroy(&h);
	}
}

/*
 *
 *
 *   window                                the owner
 *   ------                                ---------
 *   has the node in hand
 *                                         unregister_no_release: unlinked, and does not wait
 *                                         must not free it now
 *   looks at it
 */
TEST(mmu_notifier_no_release, freed_behind_a_callback)
{
	struct kthread open_thread;
	struct thread_arg opener;
	struct recorder behind;
	struct park park;
	struct mirror m;
	struct host h;

	host_init(&h);
	park_init(&park);
	recorder_init(&behind, 'b', NULL);
	expect_eq(mmu_notifier_register(&behind.mn, h.mm), 0);
	mirror_init(&m, h.mm);
	m.before = &park;
	opener = (struct thread_arg){.h = &h};
	expect_eq(kthread_run(&open_thread, "window", run_window, &opener), 0);
	park_wait(&park, 1);

	mirror_leave(&m); /* returns, with the callback where it is */
	expect_eq(atomic_read(&m.running), 1);
	expect_eq(srcu_workers_start(), 0);
	/* The worker wants to run it, and does not. */
	while (!grace_period_is_blocked(&mmu_notifier_srcu) && !atomic_read_acquire(&m.freed))
		sched_yield();
	expect_eq(atomic_read(&m.freed), 0);

	park_release(&park);
	kthread_join(&open_thread);
	mmu_notifier_synchronize();
	srcu_workers_stop();
	expect_eq(atomic_read(&m.freed), 1);
	expect_eq(atomic_read(&m.freed_early), 0);
	expect_eq(atomic_read(&m.late), 0);
	/* And the walk went on from it. */
	expect_counts(&behind, 1, 1, 0);
	mmu_notifier_unregister(&behind.mn, h.mm);
	host_destroy(&h);
}

static void quiet_release(struct mmu_notifier *mn, struct mm_struct *mm)
{
	(void)mm;
	atomic_inc(&container_of(mn, struct mirror, mn)->starts);
}

/* exit has unlinked it already. */
TEST(mmu_notifier_no_release, after_exit)
{
	static const struct mmu_notifier_ops ops = {.release = quiet_release};
	struct mirror m[2];
	struct host h;

	host_init(&h);
	for (int i = 0; i < 2; i++) {
		mirror_init(&m[i], h.mm);
		m[i].mn.ops = &ops;
	}
	mmput(h.mm);
	expect_eq(refcount_read(&h.mm->mm_count), 4);
	for (int i = 0; i < 2; i++) {
		expect_eq(atomic_read(&m[i].starts), 1);
		mmu_notifier_unregister_no_release(&m[i].mn, h.mm);
		expect_eq(refcount_read(&h.mm->mm_count), 3 - i);
	}
	for (int i = 0; i < 2; i++)
		mmu_notifier_call_srcu(&m[i].rcu, mirror_free);
	mmu_notifier_synchronize();
	for (int i = 0; i < 2; i++) {
		expect_eq(atomic_read(&m[i].freed), 1);
		expect_eq(atomic_read(&m[i].starts), 1);
	}
	h.mm = NULL;
	host_destroy(&h);
}

#define COMERS 3

struct comings {
	struct host h;
	uint64_t rounds;
	atomic_t next;
	struct mirror m[COMERS];
};

/* Each its own, next to those of the others in the list, while windows walk over them. */
static void come_and_go(void *arg)
{
	struct comings *c = arg;
	struct mirror *m = &c->m[atomic_fetch_add(1, &c->next)];

	for (uint64_t i = 0; i < c->rounds; i++) {
		mirror_init(m, c->h.mm);
		window(c->h.mm);
		mmu_notifier_unregister_no_release(&m->mn, c->h.mm);
		mmu_notifier_call_srcu(&m->rcu, mirror_free);
		mmu_notifier_synchronize();
		expect_eq(atomic_read(&m->freed), 1);
		expect_eq(atomic_read(&m->freed_early) + atomic_read(&m->late), 0);
		expect_ge(atomic_read(&m->starts), 1);
	}
}

/* Without the lock in it a neighbour's link is lost (and ThreadSanitizer sees it). */
TEST(mmu_notifier_no_release, neighbours_come_and_go)
{
	static struct comings c;
	struct kthread threads[COMERS];

	host_init(&c.h);
	c.rounds = test_long() ? 3000 : 300;
	for (int i = 0; i < COMERS; i++)
		expect_eq(kthread_run(&threads[i], "comer", come_and_go, &c), 0);
	for (int i = 0; i < COMERS; i++)
		kthread_join(&threads[i]);
	expect(!c.h.mm->notifier_subscriptions->first);
	host_destroy(&c.h);
}
