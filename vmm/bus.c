/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Port dispatch; the rules are in bus.h. */
#include "vmm/bus.h"

#include <errno.h>
#include <stddef.h>

#include "notifier/sync/bug.h"

#define NR_PORTS 0x10000u

void bus_init(struct bus *bus)
{
	bus->nr_claims = 0;
	atomic64_set(&bus->unclaimed, 0);
}

void bus_destroy(struct bus *bus)
{
	/* The devices are their owners'. What is used after this finds no device. */
	bus->nr_claims = 0;
}

int bus_register(struct bus *bus, uint16_t base, uint16_t nr, const struct bus_ops *ops, void *dev)
{
	unsigned int i;

	BUG_ON(ops->width != 1 && ops->width != 2 && ops->width != 4);

	if (nr == 0 || (unsigned int)base + nr > NR_PORTS)
		return -EINVAL;
	for (i = 0; i < bus->nr_claims; i++) {
		const struct bus_claim *claim = &bus->claims[i];

		if (base < (unsigned int)claim->base + claim->nr &&
		    claim->base < (unsigned int)base + nr)
			return -EEXIST;
	}
	if (bus->nr_claims == BUS_MAX_DEVICES)
		return -ENOSPC;
	bus->claims[bus->nr_claims++] =
		(struct bus_claim){.base = base, .nr = nr, .ops = ops, .dev = dev};
	return 0;
}

/* A handful of devices: looking through them costs nothing beside the exit that led here. */
static const struct bus_claim *find_claim(const struct bus *bus, uint16_t port)
{
	unsigned int i;

	for (i = 0; i < bus->nr_claims; i++) {
		const struct bus_claim *claim = &bus->claims[i];

		if (port >= claim->base && port - claim->base < claim->nr)
			return claim;
	}
	return NULL;
}

/* Rule 3: how much of an access the device sees. */
static unsigned int narrow(const struct bus_claim *claim, uint16_t port, unsigned int size)
{
	unsigned int left = claim->nr - (port - claim->base);

	if (size > claim->ops->width)
		size = claim->ops->width;
	while (size > left)
		size /= 2;
	return size;
}

static uint32_t low_bytes(unsigned int size)
{
	return size == 4 ? UINT32_MAX : (1u << 8 * size) - 1;
}

void bus_in(struct bus *bus, uint16_t port, unsigned int size, uint32_t *val)
{
	const struct bus_claim *claim = find_claim(bus, port);
	uint32_t seen;

	ASSERT(size == 1 || size == 2 || size == 4, "port access of %u bytes", size);

	*val = low_bytes(size);
	if (!claim || !claim->ops->in) {
		atomic64_inc(&bus->unclaimed);
		return;
	}
	size = narrow(claim, port, size);
	seen = low_bytes(size);
	*val = (*val & ~seen) | (claim->ops->in(claim->dev, port - claim->base, size) & seen);
}

void bus_out(struct bus *bus, uint16_t port, unsigned int size, uint32_t val)
{
	const struct bus_claim *claim = find_claim(bus, port);

	ASSERT(size == 1 || size == 2 || size == 4, "port access of %u bytes", size);

	if (!claim || !claim->ops->out) {
		atomic64_inc(&bus->unclaimed);
		return;
	}
	size = narrow(claim, port, size);
	claim->ops->out(claim->dev, port - claim->base, size, val & low_bytes(size));
}

uint64_t bus_unclaimed(struct bus *bus)
{
	return atomic64_read(&bus->unclaimed);
}
