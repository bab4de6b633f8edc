/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The chaos threads: the table of kinds, random choices, pacing, start and stop. What a kind does
 * to memory is in chaos_<kind>.c.
 *
 * Pacing: operation n is due at start + n / rate, an absolute time, so that a slow operation does
 * not lower the rate. A thread that fell behind catches up at most CATCH_UP_NS worth of
 * operations: after a long stall (a suspended laptop) the guest must not meet a storm.
 *
 * Stopping: an eventfd, written once by chaos_stop and never read. Every thread sleeps in ppoll on
 * it, so that a stop ends every sleep at once and none can be missed.
 *
 * Locks: none. Everything but the counters is written before the threads start.
 */
#include <errno.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "notifier/sync/alloc.h"
#include "notifier/sync/bug.h"
#include "notifier/sync/util.h"
#include "vmm/chaos.h"
#include "vmm/clock.h"

#define CATCH_UP_NS (NSEC_PER_SEC / 10)
#define PICK_TRIES  16

struct chaos {
	struct chaos_target target;
	int stop_fd;
	bool stop; /* also says "stop" to a thread that is late and so does not sleep */
	struct chaos_worker workers[NR_CHAOS_KINDS];
};

/*
 * At these rates a guest of 64M refaults its pages for a tenth of its time on a slow host (50 us a
 * fault), and each of its pages moves every few seconds.
 */
const struct chaos_kind chaos_kinds[NR_CHAOS_KINDS] = {
	[CHAOS_MIGRATE] = {"migrate", "move 1..8 mapped pages by range, or one frame by its number",
			   MMU_NOTIFY_MIGRATE, 500, chaos_migrate},
	[CHAOS_UNMAP] = {"unmap", "drop the mappings of 1..8 pages and move half of those pages",
			 MMU_NOTIFY_CLEAR, 500, chaos_unmap},
};

/* splitmix64: every seed is a good one, 0 included. */
static uint64_t splitmix64(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15ULL;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
	return z ^ (z >> 31);
}

uint64_t chaos_random(struct chaos_worker *worker, uint64_t below)
{
	/* The high half of a 128-bit product: no division, and a bias too small to matter here. */
	return (uint64_t)(((unsigned __int128)splitmix64(&worker->rng) * below) >> 64);
}

bool chaos_pick(struct chaos_worker *worker, const struct chaos_target *target, unsigned int max,
		gfn_t *gfn, unsigned int *nr_pages)
{
	for (unsigned int tries = 0; tries < PICK_TRIES; tries++) {
		gfn_t start = chaos_random(worker, target->nr_pages);
		gfn_t end = min(start + 1 + chaos_random(worker, max), target->nr_pages);
		unsigned int i;

		for (i = 0; i < target->nr_spared; i++) {
			const struct chaos_spared *spared = &target->spared[i];

			if (start < spared->end && end > spared->start)
				break;
		}
		if (i == target->nr_spared) {
			*gfn = start;
			*nr_pages = end - start;
			return true;
		}
	}
	return false;
}

/* Sleep until @due; true when it is time to stop instead. */
static bool sleep_until(const struct chaos *chaos, uint64_t due)
{
	struct pollfd stop = {.fd = chaos->stop_fd, .events = POLLIN};
	uint64_t now = monotonic_ns();

	while (now < due && !READ_ONCE(chaos->stop)) {
		struct timespec left = {.tv_sec = (due - now) / NSEC_PER_SEC,
					.tv_nsec = (due - now) % NSEC_PER_SEC};

		ppoll(&stop, 1, &left, NULL);
		now = monotonic_ns();
	}
	return READ_ONCE(chaos->stop);
}

static void chaos_thread(void *arg)
{
	struct chaos_worker *worker = arg;
	uint64_t period = NSEC_PER_SEC / worker->rate;
	uint64_t due = monotonic_ns();

	while (!sleep_until(worker->chaos, due)) {
		uint64_t now;

		worker->kind->op(worker, &worker->chaos->target);
		worker->turn++;
		atomic64_inc(&worker->ops);
		now = monotonic_ns();
		due += period;
		if (due + CATCH_UP_NS < now)
			due = now - CATCH_UP_NS;
	}
}

int chaos_start(struct chaos **chaosp, const struct chaos_target *target,
		const struct chaos_plan *plan, uint64_t seed)
{
	struct chaos *chaos = kzalloc(sizeof(*chaos), GFP_KERNEL);
	int err;

	if (!chaos)
		return -ENOMEM;
	chaos->target = *target;
	chaos->stop_fd = eventfd(0, EFD_CLOEXEC);
	if (chaos->stop_fd < 0) {
		err = -errno;
		goto free_chaos;
	}

	for (unsigned int i = 0; i < NR_CHAOS_KINDS; i++) {
		struct chaos_worker *worker = &chaos->workers[i];

		if (!plan->rate[i])
			continue;
		worker->chaos = chaos;
		worker->kind = &chaos_kinds[i];
		worker->rate = min(plan->rate[i], (unsigned int)CHAOS_MAX_RATE);
		worker->rng = seed + i;
		worker->rng = splitmix64(&worker->rng);
		err = kthread_run(&worker->thread, worker->kind->name, chaos_thread, worker);
		if (err)
			goto stop_threads;
		worker->started = true;
	}
	*chaosp = chaos;
	return 0;

stop_threads:
	chaos_stop(chaos);
	close(chaos->stop_fd);
free_chaos:
	kfree(chaos);
	return err;
}

void chaos_stop(struct chaos *chaos)
{
	uint64_t one = 1;

	/*
	 * The flag first: a thread that the eventfd wakes must find it set. Pairs with the
	 * READ_ONCE in sleep_until(); poll itself orders the two.
	 */
	WRITE_ONCE(chaos->stop, true);
	WARN_ON(write(chaos->stop_fd, &one, sizeof(one)) != sizeof(one));
	for (unsigned int i = 0; i < NR_CHAOS_KINDS; i++) {
		struct chaos_worker *worker = &chaos->workers[i];

		if (worker->started)
			kthread_join(&worker->thread);
		worker->started = false;
	}
}

void chaos_get_counts(const struct chaos *chaos, enum chaos_kind_id kind,
		      struct chaos_counts *counts)
{
	const struct chaos_worker *worker = &chaos->workers[kind];

	counts->ops = atomic64_read(&worker->ops);
	counts->refused = atomic64_read(&worker->refused);
	counts->pages_migrated = atomic64_read(&worker->pages_migrated);
	counts->pages_unmapped = atomic64_read(&worker->pages_unmapped);
}

void chaos_destroy(struct chaos *chaos)
{
	if (!chaos)
		return;
	close(chaos->stop_fd);
	kfree(chaos);
}
