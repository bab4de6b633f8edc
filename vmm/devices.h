/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The devices of a guest, one file each (dev_console.c, dev_exit.c, dev_control.c). The ports are
 * in guests/lib/boot.h. Each lives in the caller's memory, from its _init until the bus is gone.
 */
#ifndef VMM_DEVICES_H
#define VMM_DEVICES_H

#include <stdbool.h>
#include <stdio.h>

#include "notifier/sync/atomic.h"
#include "notifier/sync/lock.h"
#include "vmm/bus.h"

/*
 * dev_console.c: the transmit side of a serial port. Whole lines go to the stream, so that guest
 * output does not mix with the host's in mid-line; what is left goes with dev_console_flush.
 */
struct dev_console {
	struct mutex lock; /* protects all below; encloses stdio only */
	FILE *out;	   /* NULL: output is dropped */
	size_t len;
	char line[512];
	bool failed; /* the stream refused something */
};

int dev_console_init(struct dev_console *console, struct bus *bus, FILE *out);
void dev_console_destroy(struct dev_console *console); /* flushes; leaves the stream open */

/* Write out an unfinished line. Any thread: call it when the guest sleeps or ends. */
void dev_console_flush(struct dev_console *console);

/* Did the stream ever refuse output? Any thread. */
bool dev_console_failed(struct dev_console *console);

/*
 * dev_exit.c: the guest says that it is done. @exited is called once, with 0..127, on the thread of
 * the vCPU that was first, from inside its bus_out; the run loop looks at what it set when
 * emulate_trap has returned. Later exits of a guest that is still running are ignored.
 */
struct dev_exit {
	atomic_t done;
	void (*exited)(void *arg, unsigned int code);
	void *arg;
};

int dev_exit_init(struct dev_exit *dev, struct bus *bus, void (*exited)(void *arg, unsigned code),
		  void *arg);

/*
 * dev_control.c: what host and guest tell each other about the guest's work. All calls from any
 * thread.
 */
struct dev_control {
	atomic_t stop;
	atomic64_t passes;
	atomic64_t corruptions;
};

int dev_control_init(struct dev_control *control, struct bus *bus);
void dev_control_stop(struct dev_control *control); /* the guest reads 1 at PORT_STOP from now on */
uint64_t dev_control_passes(struct dev_control *control);
uint64_t dev_control_corruptions(struct dev_control *control);

#endif
