// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Threads of the libraries. The only file that knows what runs below a struct kthread.
 */
#include "notifier/sync/thread.h"

#include <stdio.h>

#include <gnomon/signal.h>
#include <gnomon/srcu.h>

#include "notifier/sync/atomic.h"
#include "notifier/sync/bug.h"
#include "notifier/sync/lockdep.h"

#ifndef GNOMON_SYNC_HOOKS
__thread struct thread_state gnomon_thread_state;
#endif
__thread char *__srcu_base;

uint64_t thread_id(void)
{
	static uint64_t last_id;
	struct thread_state *self = current_thread();

	if (!self->id)
		self->id = __atomic_add_fetch(&last_id, 1, __ATOMIC_RELAXED);
	return self->id;
}

int thread_exit_init(struct thread_exit *hook, void (*fn)(void *value))
{
	return sync_exit_key_create(&hook->key, fn);
}

int thread_exit_set(struct thread_exit *hook, void *value)
{
	return sync_exit_key_set(hook->key, value);
}

int thread_at_fork(void (*prepare)(void), void (*parent)(void), void (*child)(void))
{
	return sync_at_fork(prepare, parent, child);
}

void set_signal_pending(void)
{
	WRITE_ONCE(current_thread()->signal_pending, true);
}

void clear_signal_pending(void)
{
	WRITE_ONCE(current_thread()->signal_pending, false);
}

bool signal_pending(void)
{
	return READ_ONCE(current_thread()->signal_pending);
}

static void *kthread_main(void *arg)
{
	struct kthread *t = arg;

	sync_thread_name(t->name);
	t->fn(t->arg);
	lockdep_thread_exit();
	return NULL;
}

int kthread_run(struct kthread *t, const char *name, void (*fn)(void *arg), void *arg)
{
	t->fn = fn;
	t->arg = arg;
	snprintf(t->name, sizeof(t->name), "%s", name);
	return sync_thread_create(&t->handle, kthread_main, t);
}

void kthread_join(struct kthread *t)
{
	int err;

	might_sleep();
	err = -sync_thread_join(t->handle);
	ASSERT(!err, "joining thread %s: error %d (joined twice, or joining itself?)", t->name,
	       err);
}
