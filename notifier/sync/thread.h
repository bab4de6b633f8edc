/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Threads, and the state that each one carries.
 *
 * current_thread() is the one door to per-thread state: nothing else in the project says __thread,
 * so that whoever runs many logical threads on one real one has a single place to change (hooks.h).
 * The one exception is __srcu_base in <gnomon/srcu_reader.h>, which is inlined into programs;
 * thread.c defines it beside the rest.
 */
#ifndef NOTIFIER_SYNC_THREAD_H
#define NOTIFIER_SYNC_THREAD_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "notifier/sync/hooks.h"

struct held_lock;
struct lock_site;
struct srcu_domain;

/* window_check.c: an invalidation window of [start, end) in @mm. */
struct open_window {
	const void *mm;
	uint64_t start, end;
};

#define THREAD_MAX_WINDOWS 4u

/* All zeroes is a new thread; only the thread itself touches it. Kept small: it is static TLS. */
struct thread_state {
	uint64_t id; /* by thread_id(): never reused, unlike a pthread_t or a TLS address */

	/* lockdep.c: the locks that this thread holds, innermost last. Debug builds only. */
	struct held_lock *held;
	unsigned int nr_held, max_held;
	unsigned int nr_spinlocks; /* how many of them forbid sleeping */
	unsigned int nr_non_block; /* non_block_start() without its end, and where the first was */
	const struct lock_site *non_block_site;
	unsigned int lockdep_busy; /* inside lockdep: what a report's log hook locks is not seen */

	/* window_check.c: [THREAD_MAX_WINDOWS] that it has opened, behind the stack of locks. */
	struct open_window *windows;
	unsigned int nr_windows;

	bool signal_pending; /* gnomon/signal.h; its handlers store to it, too */
	bool in_reclaim;     /* reclaim.c: it is making room */

	/* srcu_slots.c: this thread's counts, or NULL. What readers use is __srcu_base, below. */
	char *srcu_slot;
	bool srcu_slot_tried; /* there is one, or there will be none */

	/* srcu_callback.c: the domain whose callbacks this thread is running, or NULL. */
	struct srcu_domain *srcu_running;
};

#ifndef GNOMON_SYNC_HOOKS

/* initial-exec: one load, no call, also from a shared library. */
extern __thread struct thread_state gnomon_thread_state __attribute__((tls_model("initial-exec")));

static inline struct thread_state *current_thread(void)
{
	struct thread_state *self = &gnomon_thread_state;

	/*
	 * Hides where self comes from. UBSan tests it for NULL by the flags of the addition that
	 * made it (gcc 12), and the linker then turns that addition into a lea, which sets none.
	 */
	__asm__("" : "+r"(self));
	return self;
}

#endif /* !GNOMON_SYNC_HOOKS */

/* A number for the calling thread that no other thread of the process ever had. Not 0. */
uint64_t thread_id(void);

/*
 * Have @fn(value) called at the end of each thread that set a value other than NULL, on that
 * thread. Setting one may be done in a signal handler, as long as the program has made fewer than
 * 32 keys (glibc: no allocation). Both: 0 or -errno.
 */
struct thread_exit {
	pthread_key_t key;
};
int thread_exit_init(struct thread_exit *hook, void (*fn)(void *value));
int thread_exit_set(struct thread_exit *hook, void *value);

/* pthread_atfork(), for what locks alone cannot bring over a fork. 0 or -errno. */
int thread_at_fork(void (*prepare)(void), void (*parent)(void), void (*child)(void));

/* Owned by the caller, who keeps it until kthread_join. */
struct kthread {
	pthread_t handle;
	void (*fn)(void *arg);
	void *arg;
	char name[16]; /* what the kernel shows: 15 characters */
};

/*
 * Start a thread that runs @fn(@arg). It inherits the signal mask and the CPU affinity of the
 * caller, as pthread_create has it: whoever wants signals elsewhere blocks them around this call.
 * Returns 0 or -errno. @fn must have dropped every lock when it returns.
 */
int kthread_run(struct kthread *t, const char *name, void (*fn)(void *arg), void *arg);

/* Wait until @t has returned. Sleeps. */
void kthread_join(struct kthread *t);

#endif
