/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The notifier core and the end of an address space: ->release comes before any page is freed, in
 * whatever order exit and unregister meet (I5).
 */
#include "tests/support/notifier_fixture.h"

/* I5, with nobody else around: the pages are all there in ->release, and gone afterwards. */
TEST(mmu_notifier_exit, exit_releases_before_it_frees)
{
	struct recorder r;
	struct host h;

	host_init(&h);
	recorder_init(&r, 'a', NULL);
	r.phys = h.phys;
	r.nr_free = phys_nr_free(h.phys);
	expect_eq(phys_nr_frames(h.phys) - r.nr_free, PAGES);
	expect_eq(mmu_notifier_register(&r.mn, h.mm), 0);

	mmput(h.mm);
	expect_counts(&r, 0, 0, 1);
	expect_eq(atomic_read(&r.freed_early), 0);
	expect_eq(phys_nr_free(h.phys), phys_nr_frames(h.phys));

	/* The structure is still there: the notifier holds it. No second ->release. */
	mmu_notifier_unregister(&r.mn, h.mm);
	expect_counts(&r, 0, 0, 1);
	h.mm = NULL;
	host_destroy(&h);
}

TEST(mmu_notifier_exit, exit_releases_everyone)
{
	struct recorder r[5];
	struct host h;

	host_init(&h);
	for (int i = 0; i < 5; i++) {
		recorder_init(&r[i], 'a' + i, NULL);
		r[i].phys = h.phys;
		r[i].nr_free = phys_nr_free(h.phys);
		expect_eq(mmu_notifier_register(&r[i].mn, h.mm), 0);
	}
	mmu_notifier_unregister(&r[2].mn, h.mm);
	mmput(h.mm);
	for (int i = 0; i < 5; i++) {
		expect_counts(&r[i], 0, 0, 1);
		expect_eq(atomic_read(&r[i].freed_early), 0);
	}
	for (int i = 0; i < 5; i++) {
		if (i != 2)
			mmu_notifier_unregister(&r[i].mn, h.mm);
		expect_counts(&r[i], 0, 0, 1);
	}
	h.mm = NULL;
	host_destroy(&h);
}

/* The orders of R-05. In each, no page is freed while a ->release runs. */
struct meeting {
	struct host h;
	struct recorder r;
	struct park park;
	struct thread_arg exit_arg, leave_arg;
	struct kthread exit_thread, leave_thread;
};

static void meeting_init(struct meeting *m)
{
	host_init(&m->h);
	park_init(&m->park);
	recorder_init(&m->r, 'a', NULL);
	m->r.phys = m->h.phys;
	m->r.nr_free = phys_nr_free(m->h.phys);
	m->exit_arg = (struct thread_arg){.h = &m->h};
	m->leave_arg = (struct thread_arg){.h = &m->h, .r = &m->r};
	expect_eq(mmu_notifier_register(&m->r.mn, m->h.mm), 0);
}

static void start_exit(struct meeting *m)
{
	expect_eq(kthread_run(&m->exit_thread, "exit", run_exit, &m->exit_arg), 0);
}

static void start_unregister(struct meeting *m)
{
	expect_eq(kthread_run(&m->leave_thread, "unregister", run_unregister, &m->leave_arg), 0);
}

static void meeting_end(struct meeting *m, int releases)
{
	park_release(&m->park);
	kthread_join(&m->exit_thread);
	kthread_join(&m->leave_thread);
	expect_counts(&m->r, 0, 0, releases);
	expect_eq(atomic_read(&m->r.freed_early), 0);
	m->h.mm = NULL;
	host_destroy(&m->h);
}

/* exit is inside ->release when unregister comes: both must wait for it. */
TEST(mmu_notifier_exit, unregister_meets_exit_in_release)
{
	struct meeting m;

	meeting_init(&m);
	m.r.release_park[0] = &m.park;
	start_exit(&m);
	park_wait(&m.park, 1);
	start_unregister(&m);
	wait_for_releases(&m.r, 2); /* still linked, so unregister calls it too */
	until_others_sleep();
	expect_eq(atomic_read(&m.leave_arg.done), 0);
	expect_eq(atomic_read(&m.exit_arg.done), 0);
	expect_eq(phys_nr_free(m.h.phys), m.r.nr_free);
	meeting_end(&m, 2);
}

/* unregister is inside ->release when exit comes: exit must not free a page before it is over. */
TEST(mmu_notifier_exit, exit_meets_unregister_in_release)
{
	struct meeting m;

	meeting_init(&m);
	m.r.release_park[0] = &m.park;
	start_unregister(&m);
	park_wait(&m.park, 1);
	start_exit(&m);
	wait_for_releases(&m.r, 2); /* still linked, so exit calls it too */
	until_others_sleep();
	expect_eq(phys_nr_free(m.h.phys), m.r.nr_free);
	expect_eq(atomic_read(&m.exit_arg.done), 0);
	expect_eq(atomic_read(&m.leave_arg.done), 0);
	meeting_end(&m, 2);
}

/*
 * unregister has unlinked the notifier and waits for a callback of another mm (all share one SRCU
 * domain) when exit comes: exit does not see the notifier, whose ->release is over.
 */
TEST(mmu_notifier_exit, exit_meets_unregister_in_its_wait)
{
	struct thread_arg reader_arg;
	struct kthread reader_thread;
	struct recorder reader;
	struct host other;
	struct meeting m;
	int starts, ends;

	meeting_init(&m);
	host_init(&other);
	recorder_init(&reader, 'r', NULL);
	reader.start_park = &m.park;
	expect_eq(mmu_notifier_register(&reader.mn, other.mm), 0);
	reader_arg = (struct thread_arg){.h = &other};
	expect_eq(kthread_run(&reader_thread, "reader", run_window, &reader_arg), 0);
	park_wait(&m.park, 1);

	start_unregister(&m);
	do {
		starts = atomic_read(&m.r.starts);
		window(m.h.mm);
	} while (atomic_read(&m.r.starts) != starts);
	/* It may have been unlinked within a window. */
	ends = atomic_read(&m.r.ends);
	expect(ends == starts || ends == starts - 1);
	expect_counts(&m.r, starts, ends, 1);

	start_exit(&m);
	until_others_sleep();
	park_release(&m.park);
	kthread_join(&reader_thread);
	kthread_join(&m.leave_thread);
	kthread_join(&m.exit_thread);
	expect_counts(&m.r, starts, ends, 1);
	expect_eq(atomic_read(&m.r.freed_early), 0);

	mmu_notifier_unregister(&reader.mn, other.mm);
	host_destroy(&other);
	m.h.mm = NULL;
	host_destroy(&m.h);
}

/*
 * exit has unlinked the notifier, and waits for a callback of it; then unregister comes. It has
 * nothing to unlink, and to wait for all the same: its caller frees what the callback stands on.
 */
TEST(mmu_notifier_exit, unregister_meets_exit_in_its_wait)
{
	struct thread_arg opener_arg;
	struct kthread opener_thread;
	struct mm_struct *mm;
	struct meeting m;

	meeting_init(&m);
	mm = m.h.mm;
	mmgrab(mm); /* for the window, which is the last to leave */
	m.r.start_park = &m.park;
	opener_arg = (struct thread_arg){.h = &m.h};
	expect_eq(kthread_run(&opener_thread, "window", run_window, &opener_arg), 0);
	park_wait(&m.park, 1);
	start_exit(&m);
	while (READ_ONCE(m.r.mn.pprev))
		sched_yield();

	start_unregister(&m);
	until_others_sleep();
	expect_eq(atomic_read(&m.leave_arg.done), 0);
	expect_eq(atomic_read(&m.exit_arg.done), 0);
	park_release(&m.park);
	kthread_join(&opener_thread);
	kthread_join(&m.leave_thread);
	kthread_join(&m.exit_thread);
	expect_counts(&m.r, 1, 0, 1);
	mmdrop(mm);
	m.h.mm = NULL;
	host_destroy(&m.h);
}

static void register_after_exit(void *arg)
{
	struct host *h = arg;
	struct recorder r;

	recorder_init(&r, 'a', NULL);
	mmgrab(h->mm);
	mmput(h->mm);
	(void)!mmu_notifier_register(&r.mn, h->mm);
}

TEST(mmu_notifier_exit, register_needs_mm_users)
{
	struct host h;

	host_init(&h);
	expect_bug(register_after_exit, &h, "mm_users");
	host_destroy(&h);
}

/* Who has no callbacks is called by nobody, to the end. */
TEST(mmu_notifier_exit, nothing_to_call)
{
	static const struct mmu_notifier_ops ops;
	struct mmu_notifier mn[2] = {{.ops = &ops}, {.ops = &ops}};
	struct mm_struct *mm;
	struct host h;

	host_init(&h);
	for (int i = 0; i < 2; i++)
		expect_eq(mmu_notifier_register(&mn[i], h.mm), 0);
	window(h.mm);
	expect(!mmu_notifier_clear_flush_young(h.mm, HVA, HVA + LEN));
	expect(!mmu_notifier_clear_young(h.mm, HVA, HVA + LEN));
	expect(!mmu_notifier_test_young(h.mm, HVA));
	mmu_notifier_arch_invalidate_secondary_tlbs(h.mm, HVA, HVA + LEN);
	mmu_notifier_unregister(&mn[0], h.mm);
	mm = h.mm;
	h.mm = NULL;
	mmput(mm); /* and exit has one left to pass by */
	mmu_notifier_unregister(&mn[1], mm);
	host_destroy(&h);
}
