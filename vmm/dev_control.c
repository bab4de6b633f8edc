/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The control ports: the host asks the guest to finish (PORT_STOP), the guest reports a pass of its
 * work (PORT_PASS) and memory that is not what it wrote (PORT_CORRUPTION). Counters are read while
 * the guest runs; each stands for itself, so they need no order among them.
 */
#include "vmm/devices.h"

#include "guests/lib/boot.h"

#define REG_STOP       0
#define REG_PASS       (PORT_PASS - PORT_STOP)
#define REG_CORRUPTION (PORT_CORRUPTION - PORT_STOP)
#define CONTROL_PORTS  (REG_CORRUPTION + 1)

_Static_assert(REG_PASS == 1 && REG_CORRUPTION == 2, "the control ports are neighbours");

static uint32_t control_in(void *dev, uint16_t reg, unsigned int size)
{
	struct dev_control *control = dev;

	(void)size;
	return reg == REG_STOP ? (uint32_t)atomic_read(&control->stop) : UINT32_MAX;
}

static void control_out(void *dev, uint16_t reg, unsigned int size, uint32_t val)
{
	struct dev_control *control = dev;

	(void)size;
	(void)val;
	if (reg == REG_PASS)
		atomic64_inc(&control->passes);
	else if (reg == REG_CORRUPTION)
		atomic64_inc(&control->corruptions);
}

static const struct bus_ops control_ops = {
	.name = "control",
	.width = 1,
	.in = control_in,
	.out = control_out,
};

int dev_control_init(struct dev_control *control, struct bus *bus)
{
	atomic_set(&control->stop, 0);
	atomic64_set(&control->passes, 0);
	atomic64_set(&control->corruptions, 0);
	return bus_register(bus, PORT_STOP, CONTROL_PORTS, &control_ops, control);
}

void dev_control_stop(struct dev_control *control)
{
	atomic_set(&control->stop, 1);
}

uint64_t dev_control_passes(struct dev_control *control)
{
	return atomic64_read(&control->passes);
}

uint64_t dev_control_corruptions(struct dev_control *control)
{
	return atomic64_read(&control->corruptions);
}
