/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Port dispatch, with a device that records what reaches it. */
#include <errno.h>

#include "notifier/sync/util.h"
#include "tests/support/test.h"
#include "vmm/bus.h"

struct recorder {
	unsigned int ins, outs;
	uint16_t reg;
	unsigned int size;
	uint32_t val;	 /* last OUT */
	uint32_t answer; /* of IN */
};

static uint32_t recorder_in(void *dev, uint16_t reg, unsigned int size)
{
	struct recorder *r = dev;

	r->ins++;
	r->reg = reg;
	r->size = size;
	return r->answer;
}

static void recorder_out(void *dev, uint16_t reg, unsigned int size, uint32_t val)
{
	struct recorder *r = dev;

	r->outs++;
	r->reg = reg;
	r->size = size;
	r->val = val;
}

static const struct bus_ops byte_ops = {.name = "bytes",
					.width = 1,
					.in = recorder_in,
					.out = recorder_out};
static const struct bus_ops word_ops = {.name = "words",
					.width = 4,
					.in = recorder_in,
					.out = recorder_out};
static const struct bus_ops silent_ops = {.name = "silent", .width = 1};

static uint32_t read_port(struct bus *bus, uint16_t port, unsigned int size)
{
	uint32_t val = 0x12345678;

	bus_in(bus, port, size, &val);
	return val;
}

TEST(bus, unclaimed_ports)
{
	struct bus bus;

	bus_init(&bus);
	expect_eq(read_port(&bus, 0x80, 1), 0xff);
	expect_eq(read_port(&bus, 0x80, 2), 0xffff);
	expect_eq(read_port(&bus, 0xffff, 4), 0xffffffff);
	expect_eq(bus_unclaimed(&bus), 3);
	bus_out(&bus, 0, 1, 0);
	bus_out(&bus, 0xffff, 4, 0);
	expect_eq(bus_unclaimed(&bus), 5);
	bus_destroy(&bus);
}

TEST(bus, ports_of_a_claim)
{
	struct recorder r = {.answer = 0xa5};
	struct bus bus;

	bus_init(&bus);
	expect_eq(bus_register(&bus, 0x100, 4, &byte_ops, &r), 0);
	for (uint16_t port = 0x100; port < 0x104; port++) {
		expect_eq(read_port(&bus, port, 1), 0xa5);
		expect_eq(r.reg, port - 0x100);
		expect_eq(r.size, 1);
		bus_out(&bus, port, 1, port);
		expect_eq(r.reg, port - 0x100);
		expect_eq(r.val, port - 0x100);
	}
	expect_eq(r.ins, 4);
	expect_eq(r.outs, 4);
	expect_eq(bus_unclaimed(&bus), 0);

	expect_eq(read_port(&bus, 0xff, 1), 0xff);
	expect_eq(read_port(&bus, 0x104, 1), 0xff);
	/* Its first port decides, not where it ends. */
	expect_eq(read_port(&bus, 0xff, 4), 0xffffffff);
	expect_eq(bus_unclaimed(&bus), 3);
	expect_eq(r.ins, 4);
	bus_destroy(&bus);
}

TEST(bus, wide_accesses_are_narrowed)
{
	struct recorder narrow = {.answer = 0xffffff12}, wide = {.answer = 0x89abcdef};
	struct bus bus;

	bus_init(&bus);
	expect_eq(bus_register(&bus, 0xf4, 1, &byte_ops, &narrow), 0);
	expect_eq(bus_register(&bus, 0xf5, 7, &word_ops, &wide), 0);

	bus_out(&bus, 0xf4, 4, 0xdeadbe07);
	expect_eq(narrow.size, 1);
	expect_eq(narrow.val, 0x07);
	expect_eq(wide.outs, 0);
	expect_eq(read_port(&bus, 0xf4, 1), 0x12);
	expect_eq(read_port(&bus, 0xf4, 2), 0xff12);
	expect_eq(read_port(&bus, 0xf4, 4), 0xffffff12);

	bus_out(&bus, 0xf5, 4, 0xdeadbeef);
	expect_eq(wide.size, 4);
	expect_eq(wide.val, 0xdeadbeef);
	bus_out(&bus, 0xf5, 2, 0xdeadbeef);
	expect_eq(wide.size, 2);
	expect_eq(wide.val, 0xbeef);
	expect_eq(read_port(&bus, 0xf5, 1), 0xef);
	expect_eq(read_port(&bus, 0xf5, 2), 0xcdef);
	expect_eq(read_port(&bus, 0xf5, 4), 0x89abcdef);

	/* Three ports are left of the claim at 0xf9, one at 0xfb. */
	expect_eq(read_port(&bus, 0xf9, 4), 0xffffcdef);
	expect_eq(wide.size, 2);
	expect_eq(read_port(&bus, 0xfb, 4), 0xffffffef);
	expect_eq(wide.size, 1);
	expect_eq(wide.reg, 6);
	bus_destroy(&bus);
}

TEST(bus, device_without_a_direction)
{
	struct bus bus;

	bus_init(&bus);
	expect_eq(bus_register(&bus, 0x60, 1, &silent_ops, NULL), 0);
	expect_eq(read_port(&bus, 0x60, 1), 0xff);
	bus_out(&bus, 0x60, 1, 0);
	expect_eq(bus_unclaimed(&bus), 2);
	bus_destroy(&bus);
}

TEST(bus, overlaps)
{
	struct recorder a = {.answer = 1}, b = {.answer = 2};
	struct bus bus;

	bus_init(&bus);
	expect_eq(bus_register(&bus, 0x10, 4, &byte_ops, &a), 0);
	expect_eq(bus_register(&bus, 0x10, 4, &byte_ops, &b), -EEXIST);
	expect_eq(bus_register(&bus, 0x0d, 4, &byte_ops, &b), -EEXIST);
	expect_eq(bus_register(&bus, 0x13, 1, &byte_ops, &b), -EEXIST);
	expect_eq(bus_register(&bus, 0x12, 1, &byte_ops, &b), -EEXIST);
	expect_eq(bus_register(&bus, 0x00, 0xffff, &byte_ops, &b), -EEXIST);
	expect_eq(bus_register(&bus, 0x14, 1, &byte_ops, &b), 0);
	expect_eq(bus_register(&bus, 0x0f, 1, &byte_ops, &b), 0);
	expect_eq(read_port(&bus, 0x0f, 1), 2);
	expect_eq(read_port(&bus, 0x10, 1), 1);
	expect_eq(read_port(&bus, 0x13, 1), 1);
	expect_eq(read_port(&bus, 0x14, 1), 2);
	bus_destroy(&bus);
}

TEST(bus, bad_and_extreme_ranges)
{
	struct recorder r = {.answer = 3};
	struct bus bus;

	bus_init(&bus);
	expect_eq(bus_register(&bus, 0x10, 0, &byte_ops, &r), -EINVAL);
	expect_eq(bus_register(&bus, 0xffff, 2, &byte_ops, &r), -EINVAL);
	expect_eq(bus_register(&bus, 1, 0xffff, &byte_ops, &r), 0);
	expect_eq(read_port(&bus, 0, 1), 0xff);
	expect_eq(read_port(&bus, 0xffff, 1), 3);
	expect_eq(r.reg, 0xfffe);
	expect_eq(read_port(&bus, 0xffff, 4), 0xffffff03);
	bus_destroy(&bus);
}

TEST(bus, as_many_as_fit)
{
	struct recorder r[BUS_MAX_DEVICES + 1] = {0};
	struct bus bus;

	bus_init(&bus);
	for (unsigned int i = 0; i < BUS_MAX_DEVICES; i++)
		expect_eq(bus_register(&bus, i, 1, &byte_ops, &r[i]), 0);
	expect_eq(bus_register(&bus, 0x100, 1, &byte_ops, &r[BUS_MAX_DEVICES]), -ENOSPC);
	for (unsigned int i = 0; i < BUS_MAX_DEVICES; i++)
		bus_out(&bus, i, 1, 0);
	for (unsigned int i = 0; i < ARRAY_SIZE(r); i++)
		expect_eq(r[i].outs, i < BUS_MAX_DEVICES);
	bus_destroy(&bus);
}

static const struct bus_ops odd_ops = {.name = "odd", .width = 3};

static void register_odd_width(void *arg)
{
	bus_register(arg, 0, 1, &odd_ops, NULL);
}

static void access_three_bytes(void *arg)
{
	uint32_t val;

	bus_in(arg, 0, 3, &val);
}

TEST(bus, our_own_mistakes)
{
	struct bus bus;

	bus_init(&bus);
	expect_bug(register_odd_width, &bus, "width");
	expect_bug(access_three_bytes, &bus, "port access of 3 bytes");
	bus_destroy(&bus);
}
