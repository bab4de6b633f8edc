// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Where SRCU control blocks come from: a pool that only grows. A block goes from free to in use and
 * back, and is a struct srcu_domain all the time: that is what lets the last unlock look for
 * somebody to wake after it let a cleanup through. Nothing is reset in between. The sums of an
 * idle domain are equal by index, and equal is all that they have to be: so the memory in which
 * threads count is handed on as it is, too.
 */
#include <errno.h>
#include <stdint.h>

#include "notifier/srcu_internal.h"
#include "notifier/sync/alloc.h"
#include "notifier/sync/thread.h"

#define CHUNK_DOMAINS 16

struct chunk {
	struct chunk *next;
	struct srcu_domain *domains; /* [CHUNK_DOMAINS], aligned, in the same allocation */
};

struct srcu_domain *srcu_domains[SRCU_MAX_DOMAINS];

static struct {
	struct mutex lock;
	struct chunk *chunks;
	struct srcu_domain *free;
	unsigned int nr_domains;
} srcu_pool;

/* What the first init_srcu_struct() sets up, for the process. */
static struct {
	struct mutex lock;
	bool done;
} srcu_setup;

/* ---- fork ---- */

/*
 * The child has one thread, and a copy of whatever the others were in the middle of. Only the
 * pool's list must be whole: the lock of it is taken over the fork, and nobody waits for readers
 * under it. All else is put in order by the child, which is alone.
 */
static void fork_prepare(void)
{
	mutex_lock(&srcu_pool.lock);
}

static void fork_parent(void)
{
	mutex_unlock(&srcu_pool.lock);
}

static void domain_forked(struct srcu_domain *d)
{
	srcu_slots_forked(d);
	srcu_gp_forked(d);
	srcu_callbacks_forked(d);
}

static void for_each_domain(void (*fn)(struct srcu_domain *d))
{
	for (struct chunk *chunk = srcu_pool.chunks; chunk; chunk = chunk->next)
		for (int i = 0; i < CHUNK_DOMAINS; i++)
			fn(&chunk->domains[i]);
}

static void fork_child(void)
{
	for_each_domain(domain_forked);
	srcu_numbers_forked();
	srcu_track_forked();
	srcu_worker_forked();
	mutex_unlock(&srcu_pool.lock);
}

/* Not under the pool's lock: fork() may hold a lock of libc's over fork_prepare(). */
static int setup(void)
{
	int ret = 0;

	if (smp_load_acquire(&srcu_setup.done))
		return 0;
	mutex_lock(&srcu_setup.lock);
	if (!srcu_setup.done) {
		ret = thread_at_fork(fork_prepare, fork_parent, fork_child);
		if (!ret)
			ret = srcu_slots_init();
		if (!ret)
			smp_store_release(&srcu_setup.done, true);
	}
	mutex_unlock(&srcu_setup.lock);
	return ret;
}

/* ---- the pool ---- */

static int pool_grow(void)
{
	struct chunk *chunk;
	uintptr_t start;

	if (srcu_pool.nr_domains + CHUNK_DOMAINS > SRCU_MAX_DOMAINS)
		return -ENOMEM;
	chunk = kzalloc(sizeof(*chunk) + (CHUNK_DOMAINS + 1) * sizeof(struct srcu_domain),
			GFP_KERNEL);
	if (!chunk)
		return -ENOMEM;
	start = (uintptr_t)(chunk + 1) + _Alignof(struct srcu_domain) - 1;
	chunk->domains = (struct srcu_domain *)(start & -(uintptr_t) _Alignof(struct srcu_domain));
	chunk->next = srcu_pool.chunks;
	srcu_pool.chunks = chunk;

	/* Backwards, so that low numbers are handed out first. */
	for (int i = CHUNK_DOMAINS - 1; i >= 0; i--) {
		struct srcu_domain *d = &chunk->domains[i];

		d->number = srcu_pool.nr_domains + (unsigned int)i;
		srcu_domains[d->number] = d;
		srcu_callbacks_init(d);
		lockdep_init_map(&d->dep, "srcu", &d->dep);
		d->next_free = srcu_pool.free;
		srcu_pool.free = d;
	}
	srcu_pool.nr_domains += CHUNK_DOMAINS;
	return 0;
}

void srcu_for_each_domain(void (*fn)(struct srcu_domain *d))
{
	mutex_lock(&srcu_pool.lock);
	for_each_domain(fn);
	mutex_unlock(&srcu_pool.lock);
}

int init_srcu_struct(struct srcu_struct *ssp)
{
	int ret;

	ssp->d = NULL;
	ret = setup();
	if (ret)
		return ret;
	mutex_lock(&srcu_pool.lock);
	if (!srcu_pool.free)
		ret = pool_grow();
	if (!ret) {
		ssp->d = srcu_pool.free;
		srcu_pool.free = ssp->d->next_free;
		ssp->d->ssp = ssp;
		ssp->cur = srcu_offset(ssp->d, 0);
	}
	mutex_unlock(&srcu_pool.lock);
	return ret;
}

static int refuse_cleanup(struct srcu_domain *d)
{
	WARN(true, "SRCU domain %u is cleaned up with a reader inside: it is leaked", d->number);
	return -EBUSY;
}

int cleanup_srcu_struct(struct srcu_struct *ssp)
{
	struct srcu_domain *d = srcu_domain(ssp);

	might_sleep();
	ASSERT(!srcu_runs_callbacks(d), "domain %u is cleaned up by one of its own callbacks",
	       d->number);
	/* First, as callbacks would wait for that reader. */
	if (srcu_readers_active(d))
		return refuse_cleanup(d);
	lock_map_visit(&d->dep);
	might_lock(&d->cb_run);
	/* More than once only if callbacks queue callbacks. */
	while (!srcu_callbacks_idle(d))
		srcu_barrier(ssp);
	/* ssp->d stays: the late reader has to find its way out, after which this may be repeated.
	 */
	if (srcu_readers_active(d))
		return refuse_cleanup(d);

	ssp->d = NULL;
	lockdep_forget(&d->dep);
	lockdep_forget(&d->cb_run.dep);
	d->ssp = NULL;
	mutex_lock(&srcu_pool.lock);
	d->next_free = srcu_pool.free;
	srcu_pool.free = d;
	mutex_unlock(&srcu_pool.lock);
	return 0;
}
