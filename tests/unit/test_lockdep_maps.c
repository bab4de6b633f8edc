/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Regions in the order of locks: reclaim, SRCU domains, notifier callbacks. Debug builds only.
 */
#include <gnomon/srcu.h>

#include "notifier/mm_internal.h"
#include "notifier/sync/alloc.h"
#include "notifier/sync/lock.h"
#include "notifier/sync/thread.h"
#include "tests/support/notifier_fixture.h"
#include "tests/support/test.h"

#ifndef CONFIG_LOCKDEP

TEST(lockdep_maps, needs_a_debug_build)
{
	skip("built without CONFIG_LOCKDEP");
}

#else

static DEFINE_MUTEX(mutex);
static struct srcu_struct srcu;

/* --- reclaim: nothing has to run short for it --- */

static void allocate_under_all_locks(void *arg)
{
	struct host *h = arg;

	mmap_write_lock(h->mm);
	mm_take_all_locks(h->mm);
	kfree(kmalloc(8, GFP_ATOMIC));
	kfree(kzalloc(8, GFP_KERNEL));
}

TEST(lockdep_maps, allocation_under_all_locks)
{
	struct host h;

	host_init(&h);
	expect_bug(allocate_under_all_locks, &h,
		   "takes fs_reclaim (region) in allocate_under_all_locks()");
	expect_bug(allocate_under_all_locks, &h, "while it holds anon_vma->rwsem");
	expect_bug(allocate_under_all_locks, &h,
		   "the order seen before is fs_reclaim -> ... -> anon_vma->rwsem:");
	expect_bug(allocate_under_all_locks, &h,
		   "then mapping->i_mmap_rwsem, taken in lockdep_teach()");
	host_destroy(&h);
}

static void allocate_in_reclaim(void *arg)
{
	(void)arg;
	lock_map_acquire(&lockdep_fs_reclaim);
	kfree(kmalloc(8, GFP_KERNEL));
}

TEST(lockdep_maps, allocation_in_reclaim)
{
	expect_bug(allocate_in_reclaim, NULL, "fs_reclaim (region 0x");
	expect_bug(allocate_in_reclaim, NULL, "is held by this thread already, as region");
}

static int start_that_allocates(struct mmu_notifier *mn, const struct mmu_notifier_range *range)
{
	(void)mn, (void)range;
	kfree(kmalloc(8, GFP_KERNEL));
	return 0;
}

static const struct mmu_notifier_ops allocating_ops = {
	.invalidate_range_start = start_that_allocates,
};

static void open_window(void *arg)
{
	struct host *h = arg;

	window(h->mm);
}

TEST(lockdep_maps, allocation_in_a_callback)
{
	struct mmu_notifier mn = {.ops = &allocating_ops};
	struct host h;

	host_init(&h);
	expect_eq(mmu_notifier_register(&mn, h.mm), 0);
	expect_bug(open_window, &h, "takes fs_reclaim (region) in start_that_allocates()");
	expect_bug(open_window, &h,
		   "the order seen before is fs_reclaim -> mmu_notifier_invalidate_range_start:");
	mmu_notifier_unregister(&mn, h.mm);
	host_destroy(&h);
}

/* --- SRCU --- */

static void read_then_lock(void)
{
	int id = srcu_read_lock(&srcu);

	mutex_lock(&mutex);
	mutex_unlock(&mutex);
	srcu_read_unlock(&srcu, id);
}

static void wait_under_reader_lock(void *arg)
{
	read_then_lock();
	mutex_lock(&mutex);
	if (arg)
		srcu_barrier(&srcu);
	else
		synchronize_srcu(&srcu);
}

static void clean_up_under_reader_lock(void *arg)
{
	(void)arg;
	read_then_lock();
	mutex_lock(&mutex);
	cleanup_srcu_struct(&srcu);
}

static void wait_in_reader(void *arg)
{
	(void)arg;
	srcu_read_lock(&srcu);
	synchronize_srcu(&srcu);
}

TEST(lockdep_maps, waiting_under_a_lock_that_readers_take)
{
	static int barrier;

	expect_eq(init_srcu_struct(&srcu), 0);
	expect_bug(wait_under_reader_lock, NULL, "takes srcu (region)");
	expect_bug(wait_under_reader_lock, NULL, "while it holds mutex (mutex)");
	expect_bug(wait_under_reader_lock, NULL, "the order seen before is srcu -> mutex:");
	expect_bug(wait_under_reader_lock, NULL, "then mutex, taken in read_then_lock()");
	expect_bug(wait_under_reader_lock, &barrier, "the order seen before is srcu -> mutex:");
	expect_bug(clean_up_under_reader_lock, NULL, "the order seen before is srcu -> mutex:");
	expect_bug(wait_in_reader, NULL, "inside a read section of the same domain");
	expect_eq(cleanup_srcu_struct(&srcu), 0);
}

/* The same of callbacks. They are ready to run at once: it is about what they lock. */
static void lock_in_callback(struct srcu_head *head)
{
	(void)head;
	mutex_lock(&mutex);
	mutex_unlock(&mutex);
}

static void run_locking_callback(void)
{
	static struct srcu_head head;

	call_srcu(&srcu, &head, lock_in_callback);
	srcu_barrier(&srcu);
}

static void wait_under_callback_lock(void *arg)
{
	run_locking_callback();
	mutex_lock(&mutex);
	if (arg)
		cleanup_srcu_struct(&srcu);
	else
		srcu_barrier(&srcu);
}

/* By the worker itself; whoever waits for its end waits for all callbacks. */
static void stop_under_callback_lock(void *arg)
{
	static struct srcu_head head;

	(void)arg;
	srcu_workers_start();
	call_srcu(&srcu, &head, lock_in_callback);
	srcu_workers_stop();
	mutex_lock(&mutex);
	srcu_workers_stop();
}

TEST(lockdep_maps, waiting_under_a_lock_that_callbacks_take)
{
	static int cleanup;

	expect_eq(init_srcu_struct(&srcu), 0);
	expect_bug(wait_under_callback_lock, NULL, "takes srcu_callbacks (mutex)");
	expect_bug(wait_under_callback_lock, NULL, "while it holds mutex (mutex)");
	expect_bug(wait_under_callback_lock, NULL,
		   "the order seen before is srcu_callbacks -> mutex:");
	expect_bug(wait_under_callback_lock, NULL, "then mutex, taken in lock_in_callback()");
	expect_bug(wait_under_callback_lock, &cleanup,
		   "the order seen before is srcu_callbacks -> mutex:");
	expect_bug(stop_under_callback_lock, NULL,
		   "the order seen before is srcu_worker -> mutex:");
	expect_eq(cleanup_srcu_struct(&srcu), 0);
}

/* Callbacks of the next domain in the same place have orders of their own. */
TEST(lockdep_maps, callbacks_of_a_domain_are_forgotten)
{
	struct srcu_domain *d;

	expect_eq(init_srcu_struct(&srcu), 0);
	d = srcu.d;
	run_locking_callback();
	expect_eq(cleanup_srcu_struct(&srcu), 0);
	expect_eq(init_srcu_struct(&srcu), 0);
	expect(srcu.d == d);
	mutex_lock(&mutex);
	srcu_barrier(&srcu);
	mutex_unlock(&mutex);
	expect_eq(cleanup_srcu_struct(&srcu), 0);
}

/* To enter a section waits for nothing: so under the lock is fine, and twice, and next to a wait.
 */
TEST(lockdep_maps, readers_under_a_lock)
{
	int id, inner;

	expect_eq(init_srcu_struct(&srcu), 0);
	mutex_lock(&mutex);
	id = srcu_read_lock(&srcu);
	inner = srcu_read_lock(&srcu);
	srcu_read_unlock(&srcu, id);
	srcu_read_unlock(&srcu, inner);
	mutex_unlock(&mutex);
	read_then_lock();
	synchronize_srcu(&srcu);
	expect_eq(current_thread()->nr_held, 0);
	expect_eq(cleanup_srcu_struct(&srcu), 0);
}

static void end_section(void *arg)
{
	srcu_read_unlock(&srcu, *(int *)arg);
}

/* A section that another thread ended is off our books, and off those of a thread that is gone. */
TEST(lockdep_maps, section_handed_over)
{
	expect_eq(init_srcu_struct(&srcu), 0);
	for (int i = 0; i < 1000; i++) {
		int id = srcu_read_lock(&srcu);
		struct kthread t;

		if (i % 100) {
			end_section(&id);
			continue;
		}
		expect_eq(kthread_run(&t, "ender", end_section, &id), 0);
		kthread_join(&t);
		synchronize_srcu(&srcu);
	}
	expect_eq(cleanup_srcu_struct(&srcu), 0);
}

/* The next domain in the same place starts with no orders. */
TEST(lockdep_maps, domain_is_forgotten)
{
	struct srcu_domain *d;

	expect_eq(init_srcu_struct(&srcu), 0);
	d = srcu.d;
	read_then_lock();
	expect_eq(cleanup_srcu_struct(&srcu), 0);

	expect_eq(init_srcu_struct(&srcu), 0);
	expect(srcu.d == d);
	mutex_lock(&mutex);
	synchronize_srcu(&srcu);
	mutex_unlock(&mutex);
	expect_bug(wait_under_reader_lock, NULL, "takes mutex (mutex) in read_then_lock()");
	expect_eq(cleanup_srcu_struct(&srcu), 0);
}

/* --- the notifier core --- */

static int start_that_locks(struct mmu_notifier *mn, const struct mmu_notifier_range *range)
{
	(void)mn, (void)range;
	mutex_lock(&mutex);
	mutex_unlock(&mutex);
	return 0;
}

static const struct mmu_notifier_ops locking_ops = {
	.invalidate_range_start = start_that_locks,
};

struct subscriber {
	struct mmu_notifier mn;
	struct host h;
};

static void unregister_under_callback_lock(void *arg)
{
	struct subscriber *s = arg;

	window(s->h.mm);
	mutex_lock(&mutex);
	mmu_notifier_unregister(&s->mn, s->h.mm);
}

TEST(lockdep_maps, unregister_under_a_lock_that_callbacks_take)
{
	struct subscriber s = {.mn.ops = &locking_ops};

	host_init(&s.h);
	expect_eq(mmu_notifier_register(&s.mn, s.h.mm), 0);
	expect_bug(unregister_under_callback_lock, &s, "takes mmu_notifier_srcu (region)");
	expect_bug(unregister_under_callback_lock, &s,
		   "while it holds mutex (mutex), taken in unregister_under_callback_lock()");
	expect_bug(unregister_under_callback_lock, &s,
		   "the order seen before is mmu_notifier_srcu -> mutex:");
	expect_bug(unregister_under_callback_lock, &s, "then mutex, taken in start_that_locks()");
	mmu_notifier_unregister(&s.mn, s.h.mm);
	host_destroy(&s.h);
}

/* --- who promised not to block --- */

static int start_that_may_sleep(struct mmu_notifier *mn, const struct mmu_notifier_range *range)
{
	(void)mn, (void)range;
	mutex_lock(&mutex); /* free, so does not sleep this time */
	mutex_unlock(&mutex);
	return 0;
}

static const struct mmu_notifier_ops sleeping_ops = {
	.invalidate_range_start = start_that_may_sleep,
};

static void open_window_nonblock(void *arg)
{
	struct host *h = arg;

	expect_eq(window_nonblock(h->mm), 0);
}

TEST(lockdep_maps, nonblock_start_that_may_sleep)
{
	struct mmu_notifier mn = {.ops = &sleeping_ops};
	struct host h;

	host_init(&h);
	expect_eq(mmu_notifier_register(&mn, h.mm), 0);
	window(h.mm);
	expect_bug(open_window_nonblock, &h, "mutex, in start_that_may_sleep() at " __FILE__);
	expect_bug(open_window_nonblock, &h,
		   "may sleep, but this thread must not block, in list_range_start_nonblock() at");
	mmu_notifier_unregister(&mn, h.mm);
	host_destroy(&h);
}

static DECLARE_WAIT_QUEUE_HEAD(wq);
static DEFINE_SPINLOCK(spin);

static void open_window_under_a_spinlock(void *arg)
{
	struct host *h = arg;
	struct mmu_notifier_range range;

	mmap_read_lock(h->mm);
	mmu_notifier_range_init(&range, MMU_NOTIFY_CLEAR, 0, h->mm, HVA, HVA + LEN);
	spin_lock(&spin);
	expect_eq(mmu_notifier_invalidate_range_start_nonblock(&range), 0);
	mmu_notifier_invalidate_range_end(&range);
	mmu_notifier_invalidate_range_start(&range);
}

/* Nobody is there to sleep, but somebody may come: it is wrong today. */
TEST(lockdep_maps, start_under_a_spinlock)
{
	struct host h;

	host_init(&h);
	expect_bug(open_window_under_a_spinlock, &h,
		   "might_sleep, in __mmu_notifier_invalidate_range_start() at");
	expect_bug(open_window_under_a_spinlock, &h, "may sleep, but this thread holds a spinlock");
	host_destroy(&h);
}

static void nothing(void *arg)
{
	(void)arg;
}

static void sleep_by(void *arg)
{
	static DECLARE_RWSEM(sem);
	struct kthread t;

	non_block_start();
	non_block_start();
	non_block_end();
	spin_lock(&spin);
	spin_unlock(&spin);
	expect(mutex_trylock(&mutex));
	mutex_unlock(&mutex);
	kfree(kmalloc(8, GFP_ATOMIC));
	switch (*(int *)arg) {
	case 0:
		mutex_lock(&mutex);
		break;
	case 1:
		down_read(&sem);
		break;
	case 2:
		down_write(&sem);
		break;
	case 3:
		wait_event(wq, true);
		break;
	case 4:
		wait_event_timeout(wq, true, 1);
		break;
	case 5:
		kfree(kmalloc(8, GFP_KERNEL));
		break;
	case 6:
		synchronize_srcu(&srcu);
		break;
	case 7:
		srcu_barrier(&srcu);
		break;
	case 8:
		might_lock(&mutex);
		break;
	case 9:
		kthread_run(&t, "nothing", nothing, NULL);
		kthread_join(&t);
		break;
	}
}

TEST(lockdep_maps, every_sleep_is_checked)
{
	expect_eq(init_srcu_struct(&srcu), 0);
	for (int i = 0; i < 10; i++)
		expect_bug(sleep_by, &i, "this thread must not block, in sleep_by() at");
	expect_eq(cleanup_srcu_struct(&srcu), 0);
}

/* --- what a path does seldom --- */

static void read_under_frame_lock(void *arg)
{
	struct host *h = arg;
	char byte;

	lock_frame(h->phys, mm_lookup_pfn(h->mm, HVA));
	mm_read(h->mm, HVA, &byte, 1); /* the page is there: takes no lock */
}

static void lock_both_ways(void *arg)
{
	spin_lock(&spin);
	might_lock(&spin);
	(void)arg;
}

TEST(lockdep_maps, might_lock)
{
	struct host h;

	host_init(&h);
	expect_bug(read_under_frame_lock, &h,
		   "takes mm->mmap_lock (rwsem for reading) in get_page()");
	expect_bug(lock_both_ways, NULL, "is held by this thread already, as spinlock");
	host_destroy(&h);
}

#endif
