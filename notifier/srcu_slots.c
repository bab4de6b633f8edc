// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Where readers count, and the barrier that makes it enough.
 *
 * One arena of address space for the process, reserved at the first init_srcu_struct() and made
 * accessible a thread at a time:
 *
 *	thread 0 (everybody)	| domain 0: lock[2] unlock[2] | domain 1: ... |
 *	thread 1		| domain 0: lock[2] unlock[2] | domain 1: ... |
 *	...
 *
 * Thread-major: a thread that reads many domains touches few lines and pages. The stride is odd in
 * cache lines, so that one domain's counts of many threads do not fall into one set of the cache.
 *
 * Rules:
 *  1. The counts of thread n > 0 are written by whoever owns the number n, alone; all others only
 *     read. Those of number 0 are written by anybody, by locked instructions: readers that cannot
 *     have a number (none left; the thread is ending; a signal handler interrupts the
 *     registration).
 *  2. Counts are never reset or folded. A thread that ends leaves them to the next owner of its
 *     number, mid-section or not: only sums mean anything. So there is no race of an exit with a
 *     scan, and a section may be unlocked by another thread when its locker is long gone.
 *  3. All below `hi` is accessible memory. hi never falls.
 *
 * Registration takes no lock and allocates nothing: a first use may be inside a signal handler.
 */
#include <errno.h>
#include <linux/membarrier.h>
#include <sys/mman.h>

#include "notifier/srcu_internal.h"
#include "notifier/sync/thread.h"

#define STRIDE	   (SRCU_MAX_DOMAINS * sizeof(struct srcu_counts) + 64)
#define ARENA_SIZE (SRCU_MAX_THREADS * STRIDE)

static struct {
	char *arena;
	bool membarrier; /* else every count is a locked instruction. Constant once there is a
			    domain */
	bool can_register;
	struct thread_exit exit;
	uint32_t hi; /* numbers that were ever used, and 0 */
} slots;

uint64_t srcu_numbers_used[SRCU_MAX_THREADS / 64];

static char *slot_of(unsigned int number)
{
	return slots.arena + number * STRIDE;
}

static struct srcu_counts *counts_of(unsigned int number, const struct srcu_domain *d)
{
	return (struct srcu_counts *)(void *)slot_of(number) + d->number;
}

/* ---- setting up ---- */

static bool membarrier_works(void)
{
	int saved = errno;
	long commands = sync_membarrier(MEMBARRIER_CMD_QUERY);
	bool works = commands > 0 && (commands & MEMBARRIER_CMD_PRIVATE_EXPEDITED) &&
		     !sync_membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED);

	errno = saved;
	return works;
}

static void thread_ends(void *slot);

int srcu_slots_init(void)
{
	char *arena = mmap(NULL, ARENA_SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
			   -1, 0);

	if (arena == MAP_FAILED)
		return -ENOMEM;
	if (mprotect(arena, STRIDE, PROT_READ | PROT_WRITE)) {
		munmap(arena, ARENA_SIZE);
		return -ENOMEM;
	}
	slots.arena = arena;
	srcu_numbers_used[0] = 1;
	slots.hi = 1;
	slots.membarrier = membarrier_works();
	/* Without it a number could not be given back: everybody counts in 0. */
	slots.can_register = !thread_exit_init(&slots.exit, thread_ends);
	return 0;
}

/* ---- numbers ---- */

/* 0: none left. The full barrier takes over the counts from the owner who gave the number back. */
static unsigned int number_get(void)
{
	for (unsigned int i = 0; i < SRCU_MAX_THREADS / 64; i++) {
		uint64_t free = ~READ_ONCE(srcu_numbers_used[i]);

		while (free) {
			unsigned int bit = (unsigned int)__builtin_ctzll(free);

			free = ~__atomic_fetch_or(&srcu_numbers_used[i], 1ULL << bit,
						  __ATOMIC_SEQ_CST);
			if (free >> bit & 1)
				return i * 64 + bit;
		}
	}
	return 0;
}

static void number_put(unsigned int number)
{
	__atomic_fetch_and(&srcu_numbers_used[number / 64], ~(1ULL << number % 64),
			   __ATOMIC_SEQ_CST);
}

static bool make_accessible(unsigned int number)
{
	uint32_t hi = smp_load_acquire(&slots.hi);
	uintptr_t start, end;

	if (hi > number)
		return true;
	start = (uintptr_t)slot_of(hi) & -4096UL;
	end = (uintptr_t)slot_of(number + 1);
	if (mprotect((void *)start, end - start, PROT_READ | PROT_WRITE))
		return false;
	/* [register], with the load in srcu_sum_locks(): before the first count. */
	while (hi <= number && !try_cmpxchg(&slots.hi, &hi, number + 1))
		;
	return true;
}

static void thread_ends(void *slot)
{
	struct thread_state *self = current_thread();

	/* In this order: a handler may read at any point. What follows counts in 0. */
	__srcu_base = NULL;
	barrier();
	self->srcu_slot = NULL;
	barrier();
	number_put((unsigned int)((size_t)((char *)slot - slots.arena) / STRIDE));
}

static void thread_register(struct thread_state *self)
{
	int saved = errno;
	unsigned int number;

	/* First: a handler that interrupts us counts in 0, and does not register as well. */
	self->srcu_slot_tried = true;
	barrier();
	if (!slots.can_register)
		return;
	number = number_get();
	if (!number)
		return;
	if (!make_accessible(number) || thread_exit_set(&slots.exit, slot_of(number))) {
		number_put(number);
		errno = saved;
		return;
	}
	self->srcu_slot = slot_of(number);
	barrier();
#if !defined(CONFIG_LOCKDEP) && !defined(GNOMON_SYNC_HOOKS) /* these have the calls out of line */
	if (slots.membarrier)
		__srcu_base = self->srcu_slot;
#endif
}

void srcu_count_slow(unsigned int offset)
{
	struct thread_state *self = current_thread();
	char *slot;

	if (unlikely(!self->srcu_slot_tried))
		thread_register(self);
	slot = self->srcu_slot;
	if (slot && slots.membarrier)
		__srcu_count(slot + offset);
	else
		/* Full barrier: serves for all that the compiler barriers of the others do. */
		__atomic_fetch_add((uint64_t *)(void *)((slot ?: slots.arena) + offset), 1,
				   __ATOMIC_SEQ_CST);
}

/* ---- scans ---- */

void srcu_sum_unlocks(const struct srcu_domain *d, uint64_t sums[2])
{
	uint32_t hi = smp_load_acquire(&slots.hi);

	sums[0] = sums[1] = 0;
	for (uint32_t i = 0; i < hi; i++) {
		const struct srcu_counts *c = counts_of(i, d);

		/* Acquire costs nothing here, and tells ThreadSanitizer of [leave]. */
		sums[0] += smp_load_acquire(&c->unlock[0]);
		sums[1] += smp_load_acquire(&c->unlock[1]);
	}
}

void srcu_sum_locks(const struct srcu_domain *d, uint64_t sums[2])
{
	/* [register]: again, as a thread may have come since the unlocks were summed. */
	uint32_t hi = smp_load_acquire(&slots.hi);

	sums[0] = sums[1] = 0;
	for (uint32_t i = 0; i < hi; i++) {
		const struct srcu_counts *c = counts_of(i, d);

		sums[0] += READ_ONCE(c->lock[0]);
		sums[1] += READ_ONCE(c->lock[1]);
	}
}

void srcu_heavy_barrier(void)
{
	int saved = errno;

	if (!slots.membarrier) {
		smp_mb();
		return;
	}
	while (sync_membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED)) {
		/* The kernel allocates a mask of CPUs, and may fail to; it will not for long. */
		ASSERT(errno == ENOMEM, "membarrier stopped working: errno %d", errno);
		sync_yield();
	}
	errno = saved;
}

/* ---- fork ---- */

/* The child: the sections of the other threads went with them. Those of this thread go on. */
void srcu_slots_forked(const struct srcu_domain *d)
{
	const char *mine = current_thread()->srcu_slot;

	for (uint32_t i = 0; i < slots.hi; i++) {
		struct srcu_counts *c = counts_of(i, d);

		for (int idx = 0; idx < 2; idx++) {
			int64_t inside = (int64_t)(c->lock[idx] - c->unlock[idx]);

			/* Negative: it ended sections of others, which are gone. */
			if (slot_of(i) != mine || inside < 0)
				inside = 0;
			/* Compare first: pages that nobody used are not to be copied. */
			if (c->lock[idx] != (uint64_t)inside)
				c->lock[idx] = (uint64_t)inside;
			if (c->unlock[idx])
				c->unlock[idx] = 0;
		}
	}
}

void srcu_numbers_forked(void)
{
	const char *mine = current_thread()->srcu_slot;

	for (unsigned int i = 0; i < SRCU_MAX_THREADS / 64; i++)
		srcu_numbers_used[i] = 0;
	srcu_numbers_used[0] = 1;
	if (mine) {
		size_t number = (size_t)(mine - slots.arena) / STRIDE;

		srcu_numbers_used[number / 64] |= 1ULL << number % 64;
	}
}
