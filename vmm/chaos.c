/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The chaos threads: pacing, start and stop. Which kinds there are is in chaos_kinds.c, what a kind
 * chooses in chaos_draw.c, what it does to memory in chaos_<kind>.c.
 *
 * Pacing: operation n is due at start + n / rate, an absolute time, so that a slow operation does
 * not lower the rate. A thread that fell behind catches up at most CATCH_UP_NS worth of
 * operations: after a long stall (a suspended laptop) the guest must not meet a storm.
 *
 * Stopping: an eventfd, written once by chaos_stop and never read. Every thread sleeps in ppoll on
 * it between operations, so that a stop ends every sleep at once and none can be missed. Within an
 * operation it sleeps on holes->owners.
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

struct chaos {
	struct chaos_target target;
	int stop_fd;
	bool stop; /* also says "stop" to a thread that is late and so does not sleep */
	struct chaos_worker workers[NR_CHAOS_KINDS];
};

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

void chaos_hold(struct chaos_worker *worker, unsigned int ms, bool give_back)
{
	struct chaos *chaos = worker->chaos;
	struct holes *holes = chaos->target.holes;

	wait_event_timeout(holes->owners,
			   READ_ONCE(chaos->stop) || (give_back && hoard_wanted(holes)), ms);
}

void chaos_refuse(struct chaos_worker *worker)
{
	atomic64_inc(&worker->refused);
}

static void chaos_thread(void *arg)
{
	struct chaos_worker *worker = arg;
	const struct chaos_target *target = &worker->chaos->target;
	uint64_t period = NSEC_PER_SEC / worker->rate;
	uint64_t due = monotonic_ns();

	while (!sleep_until(worker->chaos, due)) {
		struct chaos_draw draw;
		uint64_t now;

		chaos_draw(worker, target, &draw);
		if (draw.nr_pages)
			worker->kind->op(worker, target, &draw);
		else
			chaos_refuse(worker);
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
	const struct chaos_memory memory = {.private_ram = !target->ram, .swap = target->swap};
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
		ASSERT(chaos_kind_fits(i, &memory), "chaos '%s' does no harm to such RAM",
		       chaos_kinds[i].name);
		worker->chaos = chaos;
		worker->kind = &chaos_kinds[i];
		worker->rate = min(plan->rate[i], (unsigned int)CHAOS_MAX_RATE);
		chaos_seed(worker, worker->kind->name, seed);
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
	 * The flag first: a thread that one of the two wakes must find it set. Pairs with the
	 * READ_ONCE in sleep_until() and chaos_hold(); poll and the wait queue order the two.
	 */
	WRITE_ONCE(chaos->stop, true);
	WARN_ON(write(chaos->stop_fd, &one, sizeof(one)) != sizeof(one));
	wake_up_all(&chaos->target.holes->owners);
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

	*counts = (struct chaos_counts){
		.ops = atomic64_read(&worker->ops),
		.refused = atomic64_read(&worker->refused),
		.pages = atomic64_read(&worker->pages),
		.pages_migrated = atomic64_read(&worker->pages_migrated),
		.pages_disturbed = atomic64_read(&worker->pages_disturbed),
		.digest = atomic64_read(&worker->digest),
		.draws = atomic64_read(&worker->draws),
	};
}

void chaos_destroy(struct chaos *chaos)
{
	if (!chaos)
		return;
	close(chaos->stop_fd);
	kfree(chaos);
}
