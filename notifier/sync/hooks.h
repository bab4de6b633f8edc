/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Every operation of the libraries that a controlled scheduler has to own: where threads meet, wait
 * and come to be, and where memory, time and order come from. docs/hooks.md is the chapter.
 *
 * In an ordinary build each name below is what it always was, inline: what the compiler makes of it
 * is the bare instruction or call (tests/hooks/check-zero-cost). With GNOMON_SYNC_HOOKS the names
 * are functions that the embedding program supplies, and nothing of notifier/ or shadow/ calls the
 * system or libc for such things but through them (tests/tree/check-tree). Call sites know nothing
 * of it.
 *
 * What the program must keep to, beside the contract of each:
 *  1. The meaning of the name. It may run other threads first, during and after.
 *  2. Memory of locks is the program's while the lock is in use; all zeroes is a lock that is free.
 *     Between uses it may be freed without notice.
 *  3. No call back into the libraries from a hook, but for what sync_thread_create is to run and
 *     what sync_exit_key_create was given.
 *
 * Atomics, READ_ONCE, WRITE_ONCE and fences are not in the list. They are inline builtins, and the
 * compiler marks each of them, in a build with
 *
 *	-DGNOMON_SYNC_HOOKS -fsanitize=thread -Wno-tsan -fno-optimize-sibling-calls
 *
 * as a call of __tsan_atomic32_load() and its like, which the program supplies too: they come with
 * address, size, order and place, must do the operation, and are points to switch at. Why not a
 * hook before each: there are as many kinds as atomic.h has names, some of them in public headers,
 * and one that was forgotten would be a step that nobody controls, and nobody notices. The compiler
 * forgets none. Plain accesses are marked as well (__tsan_read4 ...), but for those in memcpy() and
 * memset(): no points to switch at, but where a use after free and a data race are seen. The price
 * is one set of flags for one build. READ_ONCE and WRITE_ONCE are __atomic builtins for this, too:
 * a volatile store is marked before the compiler's own store, so a program that delays stores could
 * not hold it up.
 *
 * A build with hooks has no lock checking (CONFIG_LOCKDEP): its graph outlives a schedule, and its
 * own lock would be scheduled. And readers of SRCU all take the calls out of line: the inlined part
 * (gnomon/srcu_reader.h) has a thread variable and an instruction that no compiler marks.
 */
#ifndef NOTIFIER_SYNC_HOOKS_H
#define NOTIFIER_SYNC_HOOKS_H

#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

struct raw_lock;
struct rw_semaphore;
struct thread_state;

#ifdef GNOMON_SYNC_HOOKS

#ifdef CONFIG_LOCKDEP
#error "no lock checking in a build with hooks: -UCONFIG_LOCKDEP"
#endif

/*
 * Locks; bare in lock.h. What spinlocks and mutexes are made of, then reader-writer semaphores.
 * Taking waits until the lock can be had, and is an acquire; dropping is a release. A semaphore is
 * fair: one who waits to write stops new readers. A downgrade lets nobody in between. The memory of
 * a lock may be freed by whoever takes it last, as soon as he can take it (lock.h, rule 3).
 */
void raw_lock(struct raw_lock *lock);
bool raw_trylock(struct raw_lock *lock);
void raw_unlock(struct raw_lock *lock);
void __down_read(struct rw_semaphore *sem);
void __down_write(struct rw_semaphore *sem);
bool __down_read_trylock(struct rw_semaphore *sem);
bool __down_write_trylock(struct rw_semaphore *sem);
void __up_read(struct rw_semaphore *sem);
void __up_write(struct rw_semaphore *sem);
void __downgrade_write(struct rw_semaphore *sem);

/*
 * Sleeping; bare in futex.h. Wait queues and all that sleep on them come down to these two. Wait:
 * sleep if *@word is @expected, the look and the falling asleep being one step against wakes, until
 * a wake or @deadline (of sync_clock(); NULL: none). 0, or -ETIMEDOUT if it was the deadline;
 * callers look again in any case. Wake @nr of those who sleep on @word, which may be gone: an
 * address only.
 */
int futex_wait(const uint32_t *word, uint32_t expected, const struct timespec *deadline);
void futex_wake(const uint32_t *word, int nr);

/*
 * The caller spins: nothing will come of it until another thread has run. cpu_relax() is bare in
 * atomic.h.
 */
void cpu_relax(void);
void sync_yield(void);

/*
 * Threads. Create runs @main(@arg) on a new one and returns 0 or -errno; join waits for its end.
 * current_thread() (bare in thread.h) is the caller's own state, zeroes for a thread that is new.
 * An exit key holds a value for each thread; at the end of a thread whose value is not NULL,
 * @fn(value) is called on it. 0 or -errno.
 */
struct thread_state *current_thread(void);
int sync_thread_create(pthread_t *thread, void *(*main)(void *arg), void *arg);
int sync_thread_join(pthread_t thread);
void sync_thread_name(const char *name);
int sync_exit_key_create(pthread_key_t *key, void (*fn)(void *value));
int sync_exit_key_set(pthread_key_t key, void *value);
void sync_once(pthread_once_t *once, void (*fn)(void));

/* Of the process, for completeness: a program that schedules has no forks and no signals. */
int sync_at_fork(void (*prepare)(void), void (*parent)(void), void (*child)(void));
int sync_sigmask(int how, const sigset_t *set, sigset_t *old);

/* Memory: NULL if there is none. From sync_map() zero pages, of which few are touched. Unmap: 0. */
void *sync_alloc(size_t size);
void *sync_alloc_zeroed(size_t size);
void sync_free(void *ptr);
void *sync_map(size_t size);
int sync_unmap(void *ptr, size_t size);

/* Time that does not go back; nothing but deadlines and how long to spin depends on it. */
void sync_clock(struct timespec *now);

/*
 * membarrier(2), of which SRCU uses three commands: which are there, register, and
 * MEMBARRIER_CMD_PRIVATE_EXPEDITED: a full barrier here and, at some moment between call and
 * return, in each other thread of the process. -1 and errno if not.
 */
long sync_membarrier(int command);

#else /* what they are otherwise, but for those in the other headers */

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static inline void sync_yield(void)
{
	sched_yield();
}

static inline int sync_thread_create(pthread_t *thread, void *(*main)(void *arg), void *arg)
{
	return -pthread_create(thread, NULL, main, arg);
}

static inline int sync_thread_join(pthread_t thread)
{
	return -pthread_join(thread, NULL);
}

static inline void sync_thread_name(const char *name)
{
	/* Fails only for a name that is too long. */
	pthread_setname_np(pthread_self(), name);
}

static inline int sync_exit_key_create(pthread_key_t *key, void (*fn)(void *value))
{
	return -pthread_key_create(key, fn);
}

static inline int sync_exit_key_set(pthread_key_t key, void *value)
{
	return -pthread_setspecific(key, value);
}

static inline void sync_once(pthread_once_t *once, void (*fn)(void))
{
	pthread_once(once, fn);
}

static inline int sync_at_fork(void (*prepare)(void), void (*parent)(void), void (*child)(void))
{
	return -pthread_atfork(prepare, parent, child);
}

static inline int sync_sigmask(int how, const sigset_t *set, sigset_t *old)
{
	return -pthread_sigmask(how, set, old);
}

static inline void *sync_alloc(size_t size)
{
	return malloc(size);
}

static inline void *sync_alloc_zeroed(size_t size)
{
	return calloc(1, size);
}

static inline void sync_free(void *ptr)
{
	free(ptr);
}

static inline void *sync_map(size_t size)
{
	/* NORESERVE: most of it is never touched, so do not charge for all of it. */
	void *ptr = mmap(NULL, size, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return ptr == MAP_FAILED ? NULL : ptr;
}

static inline int sync_unmap(void *ptr, size_t size)
{
	return munmap(ptr, size);
}

static inline void sync_clock(struct timespec *now)
{
	clock_gettime(CLOCK_MONOTONIC, now);
}

static inline long sync_membarrier(int command)
{
	return syscall(SYS_membarrier, command, 0, 0);
}

#endif

#endif
