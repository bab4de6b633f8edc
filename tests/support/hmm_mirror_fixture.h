/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * For tests of notifier/hmm_mirror.c: the file is part of the test that includes this one, so that
 * a thread can be parked at its steps, registrations can fail, and what it frees can be counted.
 */
#ifndef TESTS_SUPPORT_HMM_MIRROR_FIXTURE_H
#define TESTS_SUPPORT_HMM_MIRROR_FIXTURE_H

#include <gnomon/hmm_mirror.h>
#include <gnomon/log.h>

#include <stdio.h>

#include "notifier/mm_internal.h"
#include "notifier/sync/alloc.h"
#include "tests/support/notifier_fixture.h"

static struct park park;
/*
 * Where this thread goes into the park: before it takes this lock, after so many times that it did;
 * before it takes a reference.
 */
static __thread const spinlock_t *park_before_lock;
static __thread int locks_to_skip;
static __thread bool park_before_get;

static atomic_t hmms_made, hmms_freed;
static int fail_register; /* the n-th from here */

static inline void before_lock(const spinlock_t *lock)
{
	if (lock != park_before_lock || locks_to_skip-- > 0)
		return;
	park_before_lock = NULL;
	park_enter(&park);
}

static inline bool parked_get(struct kref *kref)
{
	if (park_before_get) {
		park_before_get = false;
		park_enter(&park);
	}
	return kref_get_unless_zero(kref);
}

static inline void *counted_kzalloc(size_t size, gfp_t flags)
{
	atomic_inc(&hmms_made);
	return kzalloc(size, flags);
}

/* Whoever still looks at it finds neither a reference nor a list. */
static inline void counted_kfree(void *ptr, size_t size)
{
	atomic_inc(&hmms_freed);
	memset(ptr, 0, size);
	kfree(ptr);
}

static inline int failing_register(struct mmu_notifier *mn, struct mm_struct *mm)
{
	if (fail_register && !--fail_register)
		return -EINTR;
	return __mmu_notifier_register(mn, mm);
}

#undef spin_lock
#define spin_lock(lock)		   (before_lock(lock), spin_lock_at(lock, 0, LOCK_SITE_OF(#lock)))
#define kref_get_unless_zero(kref) parked_get(kref)
#undef kzalloc
#define kzalloc(size, flags)		counted_kzalloc(size, flags)
#define kfree(ptr)			counted_kfree(ptr, sizeof(struct hmm))
#define __mmu_notifier_register(mn, mm) failing_register(mn, mm)
#include "notifier/hmm_mirror.c"
/* They stay for what else belongs to that file. */

struct watcher {
	struct hmm_mirror mirror;
	struct mm_struct *mm;
	atomic_t syncs, releases;
	bool refuse;
	struct mmu_notifier_range *last; /* of one thread's windows; or NULL */
	struct park *sync_park;
	void (*on_sync)(struct watcher *w);
	void (*on_release)(struct watcher *w);
	void *arg;
};

static inline int watcher_sync(struct hmm_mirror *mirror, const struct mmu_notifier_range *update)
{
	struct watcher *w = container_of(mirror, struct watcher, mirror);

	if (w->last)
		*w->last = *update;
	atomic_inc(&w->syncs);
	if (w->on_sync)
		w->on_sync(w);
	if (w->sync_park)
		park_enter(w->sync_park);
	return w->refuse ? -EAGAIN : 0;
}

static inline void watcher_release(struct hmm_mirror *mirror)
{
	struct watcher *w = container_of(mirror, struct watcher, mirror);

	atomic_inc(&w->releases);
	if (w->on_release)
		w->on_release(w);
}

static const struct hmm_mirror_ops watcher_ops = {
	.sync_cpu_device_pagetables = watcher_sync,
	.release = watcher_release,
};

static atomic_t warnings;

static inline void count_warnings(enum gnomon_log_level level, const char *message, void *arg)
{
	(void)arg;
	fprintf(stderr, "%s\n", message);
	if (level == GNOMON_LOG_WARN)
		atomic_inc(&warnings);
}

static inline int watcher_register(struct watcher *w, struct mm_struct *mm)
{
	int ret;

	gnomon_set_log(count_warnings, NULL);

	*w = (struct watcher){.mirror.ops = &watcher_ops, .mm = mm};
	mmap_write_lock(mm);
	ret = hmm_mirror_register(&w->mirror, mm);
	mmap_write_unlock(mm);
	return ret;
}

/* After it the memory is ours, and garbage. */
static inline void watcher_unregister(struct watcher *w)
{
	hmm_mirror_unregister(&w->mirror);
	expect(!w->mirror.hmm);
	memset(&w->mirror, 0xee, sizeof(w->mirror));
}

static inline void expect_watched(struct watcher *w, int syncs, int releases)
{
	expect_eq(atomic_read(&w->syncs), syncs);
	expect_eq(atomic_read(&w->releases), releases);
}

/* Each hmm that was made is freed, and the mm is held by its users alone; and nothing was wrong. */
static inline void expect_no_hmm(struct host *h)
{
	mmu_notifier_synchronize();
	expect_eq(atomic_read(&warnings), 0);
	expect(!h->mm || !h->mm->hmm);
	expect_eq(atomic_read(&hmms_freed), atomic_read(&hmms_made));
	if (h->mm)
		expect_eq(refcount_read(&h->mm->mm_count), 1);
}

static inline void open_window(struct mmu_notifier_range *update, struct mm_struct *mm, hva_t start,
			       hva_t end)
{
	mmap_read_lock(mm);
	mmu_notifier_range_init(update, MMU_NOTIFY_CLEAR, 0, mm, start, end);
	mmu_notifier_invalidate_range_start(update);
}

static inline void close_window(struct mmu_notifier_range *update)
{
	mmu_notifier_invalidate_range_end(update);
	mmap_read_unlock(update->mm);
}

/* All that were opened have been closed. */
static inline void expect_no_window(struct watcher *w)
{
	struct hmm_mirror_range range = {.start = HVA, .end = HVA + LEN};

	expect_eq(hmm_range_register(&range, &w->mirror), 0);
	expect(hmm_range_valid(&range));
	hmm_range_unregister(&range);
}

struct caller {
	struct kthread thread;
	void (*fn)(void *arg);
	void *arg;
	struct hmm_mirror_range *range;
	struct hmm_mirror *mirror;
	const spinlock_t *park_before_lock;
	int locks_to_skip;
	bool park_before_get;
	atomic_t done;
};

static inline void caller_main(void *arg)
{
	struct caller *c = arg;

	park_before_lock = c->park_before_lock;
	locks_to_skip = c->locks_to_skip;
	park_before_get = c->park_before_get;
	c->fn(c->arg);
	atomic_set_release(&c->done, 1);
}

static inline void caller_start(struct caller *c, void (*fn)(void *arg), void *arg)
{
	c->fn = fn;
	c->arg = arg;
	expect_eq(kthread_run(&c->thread, "caller", caller_main, c), 0);
}

static inline void do_unregister(void *arg)
{
	watcher_unregister(arg);
}

static inline void do_window(void *arg)
{
	window(arg);
}

static inline void do_mmput(void *arg)
{
	mmput(arg);
}

static inline void do_synchronize(void *arg)
{
	(void)arg;
	mmu_notifier_synchronize();
}

#endif
