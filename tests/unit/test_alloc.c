/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Small parts of the sync layer: allocation, threads.
 */
#include <errno.h>
#include <malloc.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "notifier/sync/alloc.h"
#include "notifier/sync/lock.h"
#include "notifier/sync/thread.h"
#include "tests/support/test.h"

TEST(alloc, zeroes_and_overflow)
{
	volatile size_t huge = SIZE_MAX / 2;	  /* or the compiler complains */
	volatile size_t wraps = SIZE_MAX / 8 + 2; /* times 8 it is 8 */
	unsigned char *p = kzalloc(100, GFP_KERNEL);

	for (int i = 0; i < 100; i++)
		expect_eq(p[i], 0);
	kfree(p);
	p = kcalloc(3, 7, GFP_ATOMIC);
	for (int i = 0; i < 21; i++)
		expect_eq(p[i], 0);
	kfree(p);
	kfree(NULL);
	expect(!kcalloc(huge, 3, GFP_KERNEL));
	expect(!kvcalloc(huge, 3, GFP_KERNEL));
	expect(!kcalloc(wraps, 8, GFP_KERNEL));
	expect(!kvcalloc(wraps, 8, GFP_KERNEL));
	expect(!kvcalloc(0, 8, GFP_KERNEL));
}

/* Under the sanitizers mallinfo2 counts nothing, and this says nothing. */
TEST(alloc, kfree_frees)
{
	size_t before = mallinfo2().uordblks;

	for (int i = 0; i < 1000; i++)
		kfree(kmalloc(1000, GFP_KERNEL));
	expect_le(mallinfo2().uordblks, before + 100000);
}

static void kvcalloc_atomic(void *arg)
{
	(void)arg;
	kvcalloc(1, 4096, GFP_ATOMIC);
}

TEST(alloc, kvcalloc_sleeps)
{
	expect_bug(kvcalloc_atomic, NULL, "kvcalloc may sleep");
}

/* Nobody is told when it does what it must not: it does not. */
TEST(alloc, atomic_goes_under_a_spinlock)
{
	static DEFINE_SPINLOCK(lock);

	spin_lock(&lock);
	kfree(kmalloc(8, GFP_ATOMIC));
	kfree(kzalloc(8, GFP_ATOMIC));
	spin_unlock(&lock);
}

/* Far more than there is memory for, of which two pages are used. */
TEST(alloc, kvcalloc_is_lazy)
{
	const size_t bytes = 1UL << 36;
	unsigned char *p = kvcalloc(bytes / 16, 16, GFP_KERNEL);

	expect(p);
	expect_eq(p[0], 0);
	p[bytes - 1] = 1;
	expect_eq(p[bytes / 2], 0);
	kvfree(p, bytes);
#ifndef __SANITIZE_THREAD__ /* which maps things of its own, perhaps there */
	expect_eq(madvise(p, 4096, MADV_NORMAL), -1);
	expect_eq(errno, ENOMEM);
#endif
	kvfree(NULL, 0);
}

static uint64_t seen_id;
static char seen_name[32];

static void look_at_self(void *arg)
{
	expect_eq(arg, &seen_id);
	seen_id = thread_id();
	pthread_getname_np(pthread_self(), seen_name, sizeof(seen_name));
	expect_eq(current_thread()->id, seen_id);
}

TEST(thread, name_and_identity)
{
	uint64_t mine = thread_id(), first;
	struct kthread t;

	expect_ne(mine, 0);
	expect_eq(thread_id(), mine);
	expect_eq(kthread_run(&t, "a name that is too long", look_at_self, &seen_id), 0);
	kthread_join(&t);
	expect_str_eq(seen_name, "a name that is ");
	first = seen_id;
	expect_ne(first, mine);

	/* Most likely in the same stack and TLS, but another thread. */
	expect_eq(kthread_run(&t, "b", look_at_self, &seen_id), 0);
	kthread_join(&t);
	expect_str_eq(seen_name, "b");
	expect_ne(seen_id, first);
}

static void join_self(void *arg)
{
	kthread_join(arg);
}

static void start_thread_that_joins_itself(void *arg)
{
	struct kthread t;

	(void)arg;
	kthread_run(&t, "ouroboros", join_self, &t);
	for (;;)
		pause();
}

TEST(thread, join_that_cannot_be)
{
	expect_bug(start_thread_that_joins_itself, NULL, "joining thread ouroboros: error");
}
