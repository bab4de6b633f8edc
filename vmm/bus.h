/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Port I/O: which device answers at which port.
 *
 * Rules.
 *   1. All devices are registered before the first vCPU runs, and stay until after the last one
 *      stopped. So dispatch takes no lock; a device locks its own state.
 *   2. Ports that nobody claims read all-ones and ignore writes, as on a PC. They are counted.
 *   3. An access goes to the device that claims its first port, never to two. One wider than the
 *      device's registers, or that runs past the end of its claim, is narrowed: the device sees the
 *      low bytes, the other ones of a read are all-ones. (A PC would hand the high bytes of an
 *      `out 0xf4, eax` to ports 0xf5..0xf7; nobody who writes that means it.)
 */
#ifndef VMM_BUS_H
#define VMM_BUS_H

#include <stdint.h>

#include "notifier/sync/atomic.h"

#define BUS_MAX_DEVICES 16

struct bus_ops {
	const char *name;

	/* Width of the device's registers in bytes, 1, 2 or 4: @size is never more. */
	unsigned int width;

	/*
	 * @reg is the port's offset in the claim. On the thread of the vCPU that executes the
	 * instruction, several at a time. NULL: reads all-ones, ignores writes.
	 */
	uint32_t (*in)(void *dev, uint16_t reg, unsigned int size);
	void (*out)(void *dev, uint16_t reg, unsigned int size, uint32_t val);
};

struct bus_claim {
	uint16_t base;
	uint16_t nr;
	const struct bus_ops *ops;
	void *dev;
};

struct bus {
	unsigned int nr_claims;
	struct bus_claim claims[BUS_MAX_DEVICES];
	atomic64_t unclaimed; /* accesses that no device answered */
};

void bus_init(struct bus *bus);
void bus_destroy(struct bus *bus);

/*
 * Claim ports [base, base + nr) for @dev. 0; -EEXIST: another device has one of them; -ENOSPC: too
 * many devices; -EINVAL: no ports, or beyond port 0xffff.
 */
int bus_register(struct bus *bus, uint16_t base, uint16_t nr, const struct bus_ops *ops, void *dev);

/* @size is 1, 2 or 4. A read sets all of *val, zero-extended; a write looks at the low bytes only.
 */
void bus_in(struct bus *bus, uint16_t port, unsigned int size, uint32_t *val);
void bus_out(struct bus *bus, uint16_t port, unsigned int size, uint32_t val);

/* Any thread. */
uint64_t bus_unclaimed(struct bus *bus);

#endif
