/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Interval notifiers: which of them a window tells, in which order, and before whom; what becomes
 * of a window that is refused; exit; and what insert refuses.
 */
#include <gnomon/signal.h>

#include "tests/support/interval_fixture.h"

TEST(mmu_interval_windows, bounds)
{
	struct mmu_notifier_range range;
	struct interval i;
	struct host h;

	host_init(&h);
	interval_init(&i, 'a', NULL);
	interval_join(&i, &h, 2, 2);
	window_pages(&h, 1, 1);
	window_pages(&h, 4, 1);
	window_pages(&h, 0, 2);
	expect_eq(atomic_read(&i.calls), 0);
	expect_state(&h, 2, 0);

	window_pages(&h, 1, 2);
	expect_eq(atomic_read(&i.calls), 1);
	/* It is told of the window, not of its part of it. */
	expect_eq(i.last.start, AT(1));
	expect_eq(i.last.end, AT(3));
	expect_eq(i.last.event, MMU_NOTIFY_CLEAR);
	expect(mmu_notifier_range_blockable(&i.last));
	window_pages(&h, 3, 4);
	window_pages(&h, 0, PAGES);
	expect_eq(atomic_read(&i.calls), 3);

	/* To the byte. */
	mmu_notifier_range_init(&range, MMU_NOTIFY_CLEAR, 0, h.mm, AT(2) - 1, AT(2));
	mmu_notifier_invalidate_range_start(&range);
	mmu_notifier_invalidate_range_end(&range);
	mmu_notifier_range_init(&range, MMU_NOTIFY_CLEAR, 0, h.mm, AT(4), AT(4) + 1);
	mmu_notifier_invalidate_range_start(&range);
	mmu_notifier_invalidate_range_end(&range);
	expect_eq(atomic_read(&i.calls), 3);
	mmu_notifier_range_init(&range, MMU_NOTIFY_CLEAR, 0, h.mm, AT(2), AT(2) + 1);
	mmu_notifier_invalidate_range_start(&range);
	mmu_notifier_invalidate_range_end(&range);
	mmu_notifier_range_init(&range, MMU_NOTIFY_CLEAR, 0, h.mm, AT(4) - 1, AT(4));
	mmu_notifier_invalidate_range_start(&range);
	mmu_notifier_invalidate_range_end(&range);
	expect_eq(atomic_read(&i.calls), 5);
	interval_leave(&i);
	host_destroy(&h);
}

static int starts_seen_even, ends_seen_odd;

static int start_that_looks(struct mmu_notifier *mn, const struct mmu_notifier_range *range)
{
	struct recorder *r = container_of(mn, struct recorder, mn);

	append(r);
	starts_seen_even += !(range->mm->notifier_subscriptions->invalidate_seq & 1);
	return 0;
}

static void end_that_looks(struct mmu_notifier *mn, const struct mmu_notifier_range *range)
{
	struct recorder *r = container_of(mn, struct recorder, mn);

	append(r);
	ends_seen_odd += range->mm->notifier_subscriptions->invalidate_seq & 1;
}

static const struct mmu_notifier_ops looking_ops = {
	.invalidate_range_start = start_that_looks,
	.invalidate_range_end = end_that_looks,
};

/* N-61: intervals by start, and all of them before the list; at the end as well. */
TEST(mmu_interval_windows, order)
{
	struct interval i[4];
	struct recorder r;
	char log[32] = "";
	struct host h;

	host_init(&h);
	recorder_init(&r, 'r', log);
	r.mn.ops = &looking_ops;
	expect_eq(mmu_notifier_register(&r.mn, h.mm), 0);
	for (int n = 3; n >= 0; n--) {
		interval_init(&i[n], 'a' + n, log);
		interval_join(&i[n], &h, n, 2);
	}
	window_pages(&h, 0, PAGES);
	expect_str_eq(log, "abcdrr");
	log[0] = '\0';
	window_pages(&h, 2, 1);
	expect_str_eq(log, "bcrr");
	log[0] = '\0';
	window_pages(&h, 6, 1);
	expect_str_eq(log, "rr");
	expect_eq(starts_seen_even, 1);
	expect_eq(ends_seen_odd, 0);
	for (int n = 0; n < 4; n++)
		interval_leave(&i[n]);
	mmu_notifier_unregister(&r.mn, h.mm);
	host_destroy(&h);
}

/* What moves pages announces it to intervals as to everyone else. */
TEST(mmu_interval_windows, what_operations_announce)
{
	struct interval i;
	struct host h;

	host_init(&h);
	interval_init(&i, 'a', NULL);
	interval_join(&i, &h, 0, 3);
	expect_eq(mm_zap_range(h.mm, AT(2), 2 * PAGE_SIZE), 2);
	expect_eq(i.last.event, MMU_NOTIFY_CLEAR);
	expect_eq(i.last.start, AT(2));
	expect_eq(i.last.end, AT(4));
	expect_eq(mm_migrate_range(h.mm, AT(0), 2 * PAGE_SIZE), 2);
	expect_eq(i.last.event, MMU_NOTIFY_MIGRATE);
	expect_eq(i.last.end, AT(2));
	expect_eq(migrate_frame(h.phys, mm_lookup_pfn(h.mm, AT(1))), 0);
	expect_eq(i.last.start, AT(1));
	expect_eq(atomic_read(&i.calls), 3);
	expect_eq(mm_zap_range(h.mm, AT(4), PAGE_SIZE), 1);
	expect_eq(atomic_read(&i.calls), 3);
	expect_state(&h, 8, 0);
	interval_leave(&i);
	host_destroy(&h);
}

/* ---- windows that are refused ---- */

/* N-56, N-61: the core closes it, and the list is not told. The refuser may be any of them. */
TEST(mmu_interval_windows, refused_by_an_interval)
{
	for (int refuser = 0; refuser < 3; refuser++) {
		struct interval i[3];
		struct recorder r;
		char log[32] = "";
		struct host h;

		host_init(&h);
		recorder_init(&r, 'r', log);
		expect_eq(mmu_notifier_register(&r.mn, h.mm), 0);
		for (int n = 0; n < 3; n++) {
			interval_init(&i[n], 'a' + n, log);
			interval_join(&i[n], &h, n, 1);
		}
		i[refuser].refuse = true;
		expect_eq(window_nonblock(h.mm), -EAGAIN);
		expect_state(&h, 4, 0);
		expect_counts(&r, 0, 0, 0);
		/* Nobody is asked who comes behind the refuser. */
		expect_eq(strlen(log), refuser + 1);
		for (int n = 0; n < 3; n++) {
			expect_eq(atomic_read(&i[n].calls), n < refuser);
			expect_eq(mmu_interval_read_begin(&i[n].sub), n < refuser ? 3 : 1);
		}

		/* What may block is not refused. */
		window(h.mm);
		i[refuser].refuse = false;
		expect_eq(window_nonblock(h.mm), 0);
		expect_state(&h, 8, 0);
		expect_counts(&r, 2, 2, 0);
		for (int n = 0; n < 3; n++) {
			expect_eq(atomic_read(&i[n].calls), 2 + (n < refuser));
			interval_leave(&i[n]);
		}
		mmu_notifier_unregister(&r.mn, h.mm);
		host_destroy(&h);
	}
}

/* A refusal inside another window ends nothing of that. */
TEST(mmu_interval_windows, refused_inside_a_window)
{
	struct mmu_notifier_range range;
	struct interval i;
	struct host h;

	host_init(&h);
	interval_init(&i, 'a', NULL);
	interval_join(&i, &h, 0, 1);
	open_pages(&h, &range, 0, 1);
	i.refuse = true;
	expect_eq(window_nonblock(h.mm), -EAGAIN);
	expect_state(&h, 3, 1);
	i.refuse = false;
	close_pages(&range);
	expect_state(&h, 4, 0);
	interval_leave(&i);
	host_destroy(&h);
}

static bool refuse_always(struct mmu_interval_notifier *sub, const struct mmu_notifier_range *range,
			  unsigned long cur_seq)
{
	(void)range;
	mmu_interval_set_seq(sub, cur_seq);
	return false;
}

static const struct mmu_interval_notifier_ops refusing_ops = {.invalidate = refuse_always};

/* A window that may block is not refused: a warning, all are told, and it is closed by its end. */
TEST(mmu_interval_windows, refusing_what_may_block)
{
	struct mmu_notifier_range range;
	struct interval i, behind;
	struct host h;

	host_init(&h);
	interval_init(&i, 'a', NULL);
	interval_init(&behind, 'b', NULL);
	expect_eq(mmu_interval_notifier_insert(&i.sub, h.mm, AT(0), LEN, &refusing_ops), 0);
	interval_join(&behind, &h, 1, 1);
	warnings_begin();
	open_pages(&h, &range, 0, PAGES);
	warnings_end(1);
	expect_eq(atomic_read(&behind.calls), 1);
	expect_state(&h, 3, 1);
	close_pages(&range);
	expect_state(&h, 4, 0);
	expect_eq(window_nonblock(h.mm), -EAGAIN);
	interval_leave(&i);
	interval_leave(&behind);
	host_destroy(&h);
}

/*
 * A classic subscriber refuses when the intervals were told: nobody will call end, so the core
 * closes the phase. The kernel leaves it open (docs/kernel-map.md), and then nobody who waits for
 * it ever goes on: the second half shows that.
 */
TEST(mmu_interval_windows, refused_by_the_list)
{
	struct mmu_notifier_range range;
	struct interval_thread reader;
	struct recorder refuser, r;
	struct interval i;
	struct host h;

	host_init(&h);
	recorder_init(&r, 'r', NULL);
	recorder_init(&refuser, 'n', NULL);
	refuser.mn.ops = &refuser_ops;
	refuser.refuse = true;
	expect_eq(mmu_notifier_register(&r.mn, h.mm), 0);
	expect_eq(mmu_notifier_register(&refuser.mn, h.mm), 0);
	interval_init(&i, 'a', NULL);
	interval_join(&i, &h, 0, 1);
	expect_eq(window_nonblock(h.mm), -EAGAIN);
	expect_eq(atomic_read(&i.calls), 1);
	expect_counts(&r, 1, 1, 0);
	expect_counts(&refuser, 1, 0, 0);
	expect_state(&h, 4, 0);
	expect_eq(mmu_interval_read_begin(&i.sub), 3);

	/* As the kernel would leave it: told, and not ended. */
	refuser.refuse = false;
	mmu_notifier_range_init(&range, MMU_NOTIFY_CLEAR, 0, h.mm, AT(0), AT(1));
	expect_eq(mn_itree_invalidate(h.mm->notifier_subscriptions, &range), 0);
	interval_thread_start(&reader, &i, run_read_begin);
	until_waiting(&h, 1, &reader);
	window_pages(&h, 0, 1); /* other windows do not help */
	until_waiting(&h, 1, &reader);
	mn_itree_inv_end(h.mm->notifier_subscriptions);
	kthread_join(&reader.thread);
	expect_eq(reader.seq, 5);

	interval_leave(&i);
	mmu_notifier_unregister(&r.mn, h.mm);
	mmu_notifier_unregister(&refuser.mn, h.mm);
	host_destroy(&h);
}

/* ---- exit ---- */

static struct interval *watched;
static int released, released_too_early;

static void release_that_looks(struct mmu_notifier *mn, struct mm_struct *mm)
{
	expect(mn->mm == mm);
	released++;
	released_too_early += atomic_read(&watched->releases) != 1;
}

static const struct mmu_notifier_ops release_ops = {.release = release_that_looks};

/* Once, before ->release of the list, and before any page is freed; then the window of the unmap.
 */
TEST(mmu_interval_windows, exit_tells_of_it)
{
	struct interval i, far, empty;
	struct mmu_notifier mn = {.ops = &release_ops};
	struct host h;

	host_init(&h);
	interval_init(&i, 'a', NULL);
	i.phys = h.phys;
	i.nr_free = phys_nr_free(h.phys);
	watched = &i;
	expect_eq(mmu_notifier_register(&mn, h.mm), 0);
	interval_join(&i, &h, 0, 1);
	bystander_join(&far, &h); /* where nothing is mapped */
	interval_init(&empty, 'e', NULL);
	expect_eq(mmu_interval_notifier_insert(&empty.sub, h.mm, 0, 1, &interval_ops), 0);
	mmput(h.mm);
	expect_eq(released, 1);
	expect_eq(released_too_early, 0);
	expect_eq(atomic_read(&i.freed_early), 0);
	expect_eq(phys_nr_free(h.phys), phys_nr_frames(h.phys));
	expect_eq(atomic_read(&i.releases), 1);
	expect_eq(atomic_read(&far.releases), 1);
	expect_eq(atomic_read(&empty.releases), 1);
	expect_eq(atomic_read(&i.calls), 2);
	expect_eq(i.last.event, MMU_NOTIFY_UNMAP);
	expect_state(&h, 6, 0);

	/* The structure lives on, and with it the numbers, until the last of us is gone. */
	expect_eq(refcount_read(&h.mm->mm_count), 4);
	expect_eq(mmu_interval_read_begin(&i.sub), 5);
	interval_leave(&i);
	interval_leave(&far);
	mmu_notifier_unregister(&mn, h.mm);
	expect_eq(refcount_read(&h.mm->mm_count), 1);
	interval_leave(&empty);
	h.mm = NULL;
	host_destroy(&h);
}

/* A remove that meets exit's phase waits for it; the object is its owner's as soon as it returns.
 */
TEST(mmu_interval_windows, remove_meets_exit)
{
	struct interval_thread leaver;
	struct thread_arg exit_arg;
	struct kthread exit_thread;
	struct interval i, stays;
	struct park park;
	struct host h;

	host_init(&h);
	park_init(&park);
	interval_init(&i, 'a', NULL);
	interval_init(&stays, 's', NULL);
	i.park = &park;
	i.phys = h.phys;
	i.nr_free = phys_nr_free(h.phys);
	interval_join(&i, &h, 0, 1);
	interval_join(&stays, &h, 0, 1);
	exit_arg = (struct thread_arg){.h = &h};
	expect_eq(kthread_run(&exit_thread, "exit", run_exit, &exit_arg), 0);
	park_wait(&park, 1);
	interval_thread_start(&leaver, &i, run_remove);
	until_waiting(&h, 1, &leaver);
	expect_eq(phys_nr_free(h.phys), i.nr_free);
	park_release(&park);
	kthread_join(&leaver.thread);
	kthread_join(&exit_thread);
	expect_eq(atomic_read(&stays.releases), 1);
	interval_leave(&stays);
	h.mm = NULL;
	host_destroy(&h);
}

/* ---- insert ---- */

TEST(mmu_interval_windows, insert_refuses_bounds)
{
	struct interval i;
	struct host h;

	host_init(&h);
	interval_init(&i, 'a', NULL);
	expect_eq(mmu_interval_notifier_insert(&i.sub, h.mm, HVA, 0, &interval_ops), -EOVERFLOW);
	expect_eq(mmu_interval_notifier_insert(&i.sub, h.mm, 2, UINT64_MAX, &interval_ops),
		  -EOVERFLOW);
	expect_eq(mmu_interval_notifier_insert(&i.sub, h.mm, UINT64_MAX, 2, &interval_ops),
		  -EOVERFLOW);
	mmap_write_lock(h.mm);
	expect_eq(mmu_interval_notifier_insert_locked(&i.sub, h.mm, HVA, 0, &interval_ops),
		  -EOVERFLOW);
	mmap_write_unlock(h.mm);
	expect(!mm_has_notifiers(h.mm));
	expect_eq(refcount_read(&h.mm->mm_count), 1);

	/* Up to the last address there is. */
	expect_eq(mmu_interval_notifier_insert(&i.sub, h.mm, 1, UINT64_MAX, &interval_ops), 0);
	expect_eq(i.sub.interval_tree.last, UINT64_MAX);
	window(h.mm);
	expect_eq(atomic_read(&i.calls), 1);
	interval_leave(&i);
	interval_init(&i, 'a', NULL);
	expect_eq(mmu_interval_notifier_insert(&i.sub, h.mm, UINT64_MAX - 4095, 4096,
					       &interval_ops),
		  0);
	interval_leave(&i);
	host_destroy(&h);
}

static void finish_nothing(struct mmu_interval_notifier_finish *finish)
{
	(void)finish;
}

static bool start_nothing(struct mmu_interval_notifier *sub, const struct mmu_notifier_range *range,
			  unsigned long cur_seq, struct mmu_interval_notifier_finish **finish)
{
	(void)range, (void)finish;
	mmu_interval_set_seq(sub, cur_seq);
	return true;
}

/* One pass of the two, or none at all: found when it is inserted, not in the first window. */
TEST(mmu_interval_windows, insert_refuses_half_a_pair)
{
	static const struct mmu_interval_notifier_ops wrong[] = {
		{.invalidate_start = start_nothing},
		{.invalidate_start = start_nothing, .invalidate = interval_invalidate},
		{.invalidate_finish = finish_nothing},
		{.invalidate_finish = finish_nothing, .invalidate = interval_invalidate},
		{.invalidate = NULL},
	};
	static const struct mmu_interval_notifier_ops both = {.invalidate_start = start_nothing,
							      .invalidate_finish = finish_nothing};
	struct interval i;
	struct host h;

	host_init(&h);
	interval_init(&i, 'a', NULL);
	for (size_t n = 0; n < ARRAY_SIZE(wrong); n++) {
		warnings_begin();
		expect_eq(mmu_interval_notifier_insert(&i.sub, h.mm, HVA, LEN, &wrong[n]), -EINVAL);
		mmap_write_lock(h.mm);
		expect_eq(mmu_interval_notifier_insert_locked(&i.sub, h.mm, HVA, LEN, &wrong[n]),
			  -EINVAL);
		mmap_write_unlock(h.mm);
		warnings_end(2);
	}
	expect(!mm_has_notifiers(h.mm));
	expect_eq(refcount_read(&h.mm->mm_count), 1);
	expect_eq(mmu_interval_notifier_insert(&i.sub, h.mm, HVA, LEN, &both), 0);
	window(h.mm);
	interval_leave(&i);
	host_destroy(&h);
}

TEST(mmu_interval_windows, insert_needs_mm_users)
{
	struct interval i;
	struct host h;

	host_init(&h);
	interval_init(&i, 'a', NULL);
	mmgrab(h.mm);
	mmput(h.mm);
	warnings_begin();
	expect_eq(mmu_interval_notifier_insert(&i.sub, h.mm, HVA, LEN, &interval_ops), -EINVAL);
	warnings_end(1);
	expect_str_contains(last_warning, "mm_users");
	mmdrop(h.mm);
	h.mm = NULL;
	host_destroy(&h);
}

/* Only the first of an mm takes all locks, and can be interrupted in that. */
TEST(mmu_interval_windows, insert_is_interrupted)
{
	struct interval i, other;
	struct host h;

	host_init(&h);
	interval_init(&i, 'a', NULL);
	interval_init(&other, 'b', NULL);
	set_signal_pending();
	expect_eq(mmu_interval_notifier_insert(&i.sub, h.mm, HVA, LEN, &interval_ops), -EINTR);
	mmap_write_lock(h.mm);
	expect_eq(mmu_interval_notifier_insert_locked(&i.sub, h.mm, HVA, LEN, &interval_ops),
		  -EINTR);
	mmap_write_unlock(h.mm);
	expect(!mm_has_notifiers(h.mm));
	expect_eq(refcount_read(&h.mm->mm_count), 1);
	clear_signal_pending();
	interval_join(&i, &h, 0, 1);
	set_signal_pending();
	interval_join(&other, &h, 0, 1);
	clear_signal_pending();
	window(h.mm);
	expect_eq(atomic_read(&i.calls) + atomic_read(&other.calls), 2);
	interval_leave(&i);
	interval_leave(&other);
	host_destroy(&h);
}

TEST(mmu_interval_windows, insert_locked)
{
	struct interval i[2];
	struct host h;

	host_init(&h);
	for (int n = 0; n < 2; n++) {
		interval_init(&i[n], 'a', NULL);
		mmap_write_lock(h.mm);
		expect_eq(mmu_interval_notifier_insert_locked(&i[n].sub, h.mm, AT(n), PAGE_SIZE,
							      &interval_ops),
			  0);
		mmap_write_unlock(h.mm);
		expect_eq(refcount_read(&h.mm->mm_count), 2 + n);
		window(h.mm);
	}
	expect_eq(atomic_read(&i[0].calls), 2);
	expect_eq(atomic_read(&i[1].calls), 1);
	interval_leave(&i[0]);
	interval_leave(&i[1]);
	host_destroy(&h);
}
