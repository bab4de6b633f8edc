/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What tests want to know of an SRCU domain that its users need not: the places at which others
 * stand still, so that a test can wait until they do.
 */
#ifndef TESTS_SUPPORT_SRCU_PROBE_H
#define TESTS_SUPPORT_SRCU_PROBE_H

#include <sched.h>

#ifdef SRCU_ABSTRACT
#include <gnomon/srcu.h>

#include "notifier/sync/lock.h"
#else
#include "notifier/srcu_internal.h"
#endif
#include "notifier/sync/thread.h"
#include "tests/support/park.h"

#ifdef SRCU_ABSTRACT
bool abstract_srcu_awaited(const struct srcu_struct *ssp);

static inline bool grace_period_is_blocked(struct srcu_struct *ssp)
{
	return abstract_srcu_awaited(ssp);
}
#else
static inline bool grace_period_is_blocked(struct srcu_struct *ssp)
{
	return READ_ONCE(__srcu_waiting[srcu_offset(ssp->d, 0)]) ||
	       READ_ONCE(__srcu_waiting[srcu_offset(ssp->d, 1)]);
}

/* Half of an unlock, by hand: everything but the look at who waits. */
static inline void count_unlock(int cookie)
{
	srcu_count_slow(srcu_cookie_offset(cookie) + __SRCU_UNLOCK);
}
#endif

/* Until somebody, in a grace period of @ssp, is about to sleep until a reader leaves. */
static inline void wait_for_blocked_grace_period(struct srcu_struct *ssp)
{
	while (!grace_period_is_blocked(ssp))
		sched_yield();
}

/* A thread that sits in a read section until told to leave. */
struct sitter {
	struct kthread thread;
	struct srcu_struct *ssp;
	struct park inside;
};

static inline void sitter_main(void *arg)
{
	struct sitter *s = arg;
	int cookie = srcu_read_lock(s->ssp);

	park_enter(&s->inside);
	srcu_read_unlock(s->ssp, cookie);
}

static inline void sitter_start(struct sitter *s, struct srcu_struct *ssp)
{
	s->ssp = ssp;
	park_init(&s->inside);
	BUG_ON(kthread_run(&s->thread, "sitter", sitter_main, s));
	park_wait(&s->inside, 1);
}

static inline void sitter_stop(struct sitter *s)
{
	park_release(&s->inside);
	kthread_join(&s->thread);
}

/* A thread that calls synchronize_srcu() once. */
struct syncer {
	struct kthread thread;
	struct srcu_struct *ssp;
	atomic_t done;
};

static inline void syncer_main(void *arg)
{
	struct syncer *s = arg;

	synchronize_srcu(s->ssp);
	atomic_set_release(&s->done, 1);
}

static inline void syncer_start(struct syncer *s, struct srcu_struct *ssp)
{
	s->ssp = ssp;
	atomic_set(&s->done, 0);
	BUG_ON(kthread_run(&s->thread, "syncer", syncer_main, s));
}

#endif
