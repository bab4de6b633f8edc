/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The exit port: a guest that writes v ends with exit code v & 0x7f. The device does not stop
 * anything itself; it tells the one who can.
 */
#include "vmm/devices.h"

#include "guests/lib/boot.h"

static void exit_out(void *dev, uint16_t reg, unsigned int size, uint32_t val)
{
	struct dev_exit *exit = dev;

	(void)reg;
	(void)size;
	/* Of several vCPUs that exit at once, one is first. */
	if (atomic_cmpxchg(&exit->done, 0, 1) == 0)
		exit->exited(exit->arg, val & 0x7f);
}

static const struct bus_ops exit_ops = {
	.name = "exit",
	.width = 1,
	.out = exit_out,
};

int dev_exit_init(struct dev_exit *dev, struct bus *bus, void (*exited)(void *arg, unsigned code),
		  void *arg)
{
	atomic_set(&dev->done, 0);
	dev->exited = exited;
	dev->arg = arg;
	return bus_register(bus, PORT_EXIT, 1, &exit_ops, dev);
}
