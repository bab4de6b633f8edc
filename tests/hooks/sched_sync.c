// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * What notifier/sync/hooks.h lists, for the scheduler of sched.c: each is a point to switch at, and
 * then the plainest thing that keeps its contract, as nobody else runs meanwhile.
 */
#include <errno.h>
#include <linux/membarrier.h>
#include <string.h>
#include <sys/mman.h>

#include "notifier/sync/lock.h"
#include "notifier/sync/thread.h"
#include "tests/hooks/sched.h"

#ifndef GNOMON_SYNC_HOOKS
#error "this is for builds with hooks"
#endif

/* ---- locks: the word says who holds it ---- */

static bool lock_is_free(void *arg)
{
	return !((struct raw_lock *)arg)->state;
}

void raw_lock(struct raw_lock *lock)
{
	sched_point("lock", lock, lock_is_free, lock);
	sched_check(lock, sizeof(*lock), "lock");
	lock->state = 1;
}

bool raw_trylock(struct raw_lock *lock)
{
	sched_point("trylock", lock, NULL, NULL);
	sched_check(lock, sizeof(*lock), "trylock");
	return !lock->state && (lock->state = 1);
}

void raw_unlock(struct raw_lock *lock)
{
	sched_point("unlock", lock, NULL, NULL);
	sched_check(lock, sizeof(*lock), "unlock");
	lock->state = 0;
}

/* ---- semaphores: count as in lock.h; wait_lock.state counts the writers that wait ---- */

static bool room_to_read(void *arg)
{
	struct rw_semaphore *sem = arg;

	return !(sem->count & RWSEM_WRITER) && !sem->wait_lock.state;
}

static bool room_to_write(void *arg)
{
	return !((struct rw_semaphore *)arg)->count;
}

void __down_read(struct rw_semaphore *sem)
{
	sched_point("down_read", sem, room_to_read, sem);
	sched_check(sem, sizeof(*sem), "down_read");
	sem->count += RWSEM_READER;
}

void __down_write(struct rw_semaphore *sem)
{
	sched_point("down_write", sem, NULL, NULL);
	sched_check(sem, sizeof(*sem), "down_write");
	if (!room_to_write(sem)) {
		sem->wait_lock.state++;
		sched_point("down_write", sem, room_to_write, sem);
		sem->wait_lock.state--;
	}
	sem->count = RWSEM_WRITER;
}

bool __down_read_trylock(struct rw_semaphore *sem)
{
	bool room;

	sched_point("down_read_trylock", sem, NULL, NULL);
	sched_check(sem, sizeof(*sem), "down_read_trylock");
	room = room_to_read(sem);
	if (room)
		sem->count += RWSEM_READER;
	return room;
}

bool __down_write_trylock(struct rw_semaphore *sem)
{
	sched_point("down_write_trylock", sem, NULL, NULL);
	sched_check(sem, sizeof(*sem), "down_write_trylock");
	return room_to_write(sem) && (sem->count = RWSEM_WRITER);
}

void __up_read(struct rw_semaphore *sem)
{
	sched_point("up_read", sem, NULL, NULL);
	sched_check(sem, sizeof(*sem), "up_read");
	sem->count -= RWSEM_READER;
}

void __up_write(struct rw_semaphore *sem)
{
	sched_point("up_write", sem, NULL, NULL);
	sched_check(sem, sizeof(*sem), "up_write");
	sem->count = 0;
}

void __downgrade_write(struct rw_semaphore *sem)
{
	sched_point("downgrade", sem, NULL, NULL);
	sched_check(sem, sizeof(*sem), "downgrade");
	sem->count = RWSEM_READER;
}

/* ---- sleeping, spinning, time ---- */

int futex_wait(const uint32_t *word, uint32_t expected, const struct timespec *deadline)
{
	uint64_t until = 0;

	sched_point("futex_wait", word, NULL, NULL);
	sched_check(word, sizeof(*word), "futex_wait");
	if (*word != expected)
		return 0;
	if (deadline)
		until = (uint64_t)deadline->tv_sec * 1000000000 + (uint64_t)deadline->tv_nsec;
	return sched_sleep(word, until) ? 0 : -ETIMEDOUT;
}

void futex_wake(const uint32_t *word, int nr)
{
	sched_point("futex_wake", word, NULL, NULL);
	sched_wake(word, nr);
}

void cpu_relax(void)
{
	sched_yield_point("relax");
}

void sync_yield(void)
{
	sched_yield_point("yield");
}

void sync_clock(struct timespec *now)
{
	*now = (struct timespec){.tv_sec = (time_t)(sched_now() / 1000000000),
				 .tv_nsec = (long)(sched_now() % 1000000000)};
}

/* Every step is seen by all others at once here: a point to switch at is all there is to it. */
long sync_membarrier(int command)
{
	sched_point("membarrier", NULL, NULL, NULL);
	return command == MEMBARRIER_CMD_QUERY ? MEMBARRIER_CMD_PRIVATE_EXPEDITED : 0;
}

/* ---- threads ---- */

_Static_assert(sizeof(struct thread_state) <= SCHED_STATE_SIZE, "there is room for it");

struct thread_state *current_thread(void)
{
	return sched_thread_state();
}

int sync_thread_create(pthread_t *thread, void *(*main)(void *arg), void *arg)
{
	sched_point("thread_create", thread, NULL, NULL);
	return sched_thread_start(main, arg, thread);
}

int sync_thread_join(pthread_t thread)
{
	sched_thread_join(thread);
	return 0;
}

void sync_thread_name(const char *name)
{
	(void)name;
}

static void (*exit_fns[SCHED_MAX_KEYS])(void *value);
static unsigned int nr_exit_fns;

static void call_exit_fns(void)
{
	for (unsigned int key = 0; key < nr_exit_fns; key++) {
		void *value = *sched_thread_value(key);

		*sched_thread_value(key) = NULL;
		if (value && exit_fns[key])
			exit_fns[key](value);
	}
}

int sync_exit_key_create(pthread_key_t *key, void (*fn)(void *value))
{
	if (nr_exit_fns == SCHED_MAX_KEYS)
		return -EAGAIN;
	exit_fns[nr_exit_fns] = fn;
	*key = nr_exit_fns++;
	sched_at_thread_end(call_exit_fns);
	return 0;
}

int sync_exit_key_set(pthread_key_t key, void *value)
{
	*sched_thread_value(key) = value;
	return 0;
}

void sync_once(pthread_once_t *once, void (*fn)(void))
{
	if (*once != PTHREAD_ONCE_INIT)
		return;
	*once = !PTHREAD_ONCE_INIT;
	fn();
}

int sync_at_fork(void (*prepare)(void), void (*parent)(void), void (*child)(void))
{
	(void)prepare, (void)parent, (void)child;
	return 0;
}

int sync_sigmask(int how, const sigset_t *set, sigset_t *old)
{
	(void)how, (void)set, (void)old;
	return 0;
}

/* ---- memory ---- */

/* A granule of 16 bytes is nobody's, in use, or was freed. */
#define ARENA_SIZE (16u << 20)

static _Alignas(16) char arena[ARENA_SIZE];
enum { NOBODYS, IN_USE, FREED };
static uint8_t granules[ARENA_SIZE / 16];
static size_t arena_used;

void *sched_alloc(size_t size)
{
	size_t nr = (size + 15) / 16, first = arena_used;

	if (nr > ARENA_SIZE / 16 - first)
		return NULL;
	for (size_t i = 0; i < nr; i++)
		granules[first + i] = IN_USE;
	arena_used += nr + 1; /* one between blocks, so that each has an end */
	return arena + first * 16;
}

void sched_release(void *ptr)
{
	sched_check(ptr, 1, "free");
	for (size_t i = (size_t)((char *)ptr - arena) / 16; granules[i] == IN_USE; i++)
		granules[i] = FREED;
}

void sched_check(const volatile void *ptr, size_t size, const char *what)
{
	uintptr_t offset = (uintptr_t)ptr - (uintptr_t)arena;

	if (!sched_self() || offset >= ARENA_SIZE)
		return;
	for (size_t i = offset / 16; size && i <= (offset + size - 1) / 16; i++) {
		if (granules[i] == FREED)
			sched_fail("use after free: %s of %zu bytes", what, size);
		if (granules[i] == NOBODYS)
			sched_fail("out of bounds: %s of %zu bytes", what, size);
	}
}

void *sync_alloc(size_t size)
{
	return sched_alloc(size);
}

void *sync_alloc_zeroed(size_t size)
{
	return sched_alloc(size); /* no block is used twice */
}

void sync_free(void *ptr)
{
	sched_point("free", ptr, NULL, NULL);
	if (ptr)
		sched_release(ptr);
}

void *sync_map(size_t size)
{
	void *ptr = mmap(NULL, size, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return ptr == MAP_FAILED ? NULL : ptr;
}

int sync_unmap(void *ptr, size_t size)
{
	return munmap(ptr, size);
}
