/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * [enter] of a kind of reader, as tight as it goes. The updater counts x up, waits for those who
 * may still be reading, and says in y which x is over. A section that loaded an x finds y no
 * further. What would break it is a mark of the reader that is still in its store buffer when the
 * updater looks: so the reader fills that first, with stores to lines that it has thrown out of its
 * cache, and the section fits into the time that they take. Or an x that is still in the updater's
 * when he has looked: so he fills his, every other time.
 */
#ifndef TESTS_SUPPORT_LITMUS_H
#define TESTS_SUPPORT_LITMUS_H

#include "notifier/sync/atomic.h"
#include "notifier/sync/thread.h"
#include "tests/support/relax.h"
#include "tests/support/store_buffer.h"
#include "tests/support/test.h"

static uint64_t litmus_x __attribute__((aligned(128)));
static uint64_t litmus_y __attribute__((aligned(128)));
static atomic_t litmus_stop;
static atomic64_t litmus_sections, litmus_violations, litmus_moved;

/* The body of a reader's thread. @leave takes what @enter gave. */
static inline __attribute__((always_inline)) void litmus_read(int (*enter)(void *arg),
							      void (*leave)(void *arg, int cookie),
							      void *arg)
{
	unsigned int seed = 1;
	uint64_t last = 0;

	while (!atomic_read(&litmus_stop)) {
		uint64_t x, y;
		int cookie;

		store_buffer_evict();
		store_buffer_fill();
		cookie = enter(arg);
		x = READ_ONCE(litmus_x);
		relax(seed++ % 12);
		y = smp_load_acquire(&litmus_y);
		leave(arg, cookie);
		if (y > x)
			atomic64_inc(&litmus_violations);
		if (x != last)
			atomic64_inc(&litmus_moved);
		last = x;
		atomic64_inc(&litmus_sections);
	}
}

/* Readers had a processor to themselves; or there is none to be had, and it is enough. */
static inline bool litmus_enough(int64_t want)
{
	int64_t sections = atomic64_read(&litmus_sections);

	return sections >= want &&
	       (atomic64_read(&litmus_moved) >= want / 10 || sections >= 5 * want);
}

/*
 * Once in a process. @wait(i), x being i, waits for readers and sets y to i by a release.
 */
static inline void run_litmus(void (*reader)(void *arg), void *arg, int nr_readers, int64_t want,
			      void (*wait)(uint64_t i))
{
	struct kthread readers[3];

	expect(nr_readers <= 3);
	for (int n = 0; n < nr_readers; n++)
		expect_eq(kthread_run(&readers[n], "litmus", reader, arg), 0);
	for (uint64_t i = 1; (int64_t)i <= want / 20 || !litmus_enough(want); i++) {
		if (i % 2) {
			store_buffer_evict();
			store_buffer_fill();
		}
		WRITE_ONCE(litmus_x, i);
		wait(i);
	}
	atomic_set(&litmus_stop, 1);
	for (int n = 0; n < nr_readers; n++)
		kthread_join(&readers[n]);
	expect_eq(atomic64_read(&litmus_violations), 0);
}

#endif
