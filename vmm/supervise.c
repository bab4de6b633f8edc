/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <inttypes.h>
#include <poll.h>

#include "notifier/sync/util.h"
#include "vmm/clock.h"
#include "vmm/messages.h"
#include "vmm/supervise.h"

#define PROGRESS_MS 500

#define NEVER UINT64_MAX

static uint64_t now_ms(void)
{
	return monotonic_ns() / NSEC_PER_MSEC;
}

static void show_progress(struct vm *vm, const struct chaos *chaos, uint64_t elapsed_ms)
{
	struct shadow_stats shadow;
	uint64_t migrated = 0;

	shadow_get_stats(vm->shadow, &shadow);
	for (unsigned int i = 0; chaos && i < NR_CHAOS_KINDS; i++) {
		struct chaos_counts counts;

		chaos_get_counts(chaos, i, &counts);
		migrated += counts.pages_migrated;
	}
	msg_progress("%" PRIu64 ".%" PRIu64 " s, %" PRIu64 " passes, %" PRIu64 " faults, %" PRIu64
		     " pages migrated, %" PRIu64 " entries zapped",
		     elapsed_ms / 1000, elapsed_ms / 100 % 10, dev_control_passes(&vm->control),
		     shadow.faults, migrated, shadow.sptes_zapped);
}

bool supervise(struct vm *vm, const struct chaos *chaos, struct signals *signals,
	       struct inspect *inspect, uint64_t duration_ms)
{
	struct pollfd fds[] = {
		{.fd = vm->done_fd, .events = POLLIN},
		{.fd = signals->fd, .events = POLLIN},
	};
	uint64_t start = now_ms(), now = start;
	uint64_t ask_at = duration_ms ? start + duration_ms : NEVER;
	uint64_t kill_at = duration_ms ? ask_at + GRACE_MS : NEVER;
	uint64_t progress_at = msg_progress_wanted() ? start + PROGRESS_MS : NEVER;

	bool done = false;

	while (!done) {
		uint64_t next = min(min(ask_at, kill_at), progress_at);
		int signal;

		/* One millisecond more, as now was rounded down; and no longer than an int lasts.
		 */
		poll(fds, ARRAY_SIZE(fds),
		     next == NEVER ? -1 : (int)min(next - min(next, now) + 1, (uint64_t)3600000));
		now = now_ms();
		done = fds[0].revents;
		if (done)
			break;
		signal = signals_read(signals);
		if (signal == SIGUSR1) {
			inspect_now(inspect, vm);
		} else if (signal) {
			vm_stop(vm, "stopped by %s", signals_name(signal));
			break;
		}
		if (now >= ask_at) {
			vm_ask_to_stop(vm);
			ask_at = NEVER;
		}
		if (now >= kill_at) {
			vm_kill(vm,
				"asked to stop after %" PRIu64 ".%03" PRIu64
				" s, it had not ended %u s later",
				duration_ms / 1000, duration_ms % 1000, GRACE_MS / 1000);
			break;
		}
		if (now >= progress_at) {
			show_progress(vm, chaos, now - start);
			progress_at = now + PROGRESS_MS;
		}
	}
	msg_progress_clear();
	return done;
}
