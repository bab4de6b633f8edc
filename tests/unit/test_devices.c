/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The devices as a guest reaches them, through the bus, and as the host does, from its threads. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "guests/lib/boot.h"
#include "notifier/sync/thread.h"
#include "notifier/sync/util.h"
#include "tests/support/test.h"
#include "vmm/devices.h"

#define NR_THREADS 4
#define NR_OUTS	   20000

static uint32_t read_port(struct bus *bus, uint16_t port, unsigned int size)
{
	uint32_t val;

	bus_in(bus, port, size, &val);
	return val;
}

static void write_text(struct bus *bus, const char *text)
{
	for (; *text; text++)
		bus_out(bus, PORT_CONSOLE, 1, (uint8_t)*text);
}

/* --- console --- */

struct console_test {
	struct bus bus;
	struct dev_console console;
	char *text; /* what has reached the stream */
	size_t len;
	FILE *out;
};

static void console_setup(struct console_test *t)
{
	/* The stream sets them when it is flushed, not before. */
	t->text = NULL;
	t->len = 0;
	t->out = open_memstream(&t->text, &t->len);
	expect(t->out != NULL);
	bus_init(&t->bus);
	expect_eq(dev_console_init(&t->console, &t->bus, t->out), 0);
}

static void console_teardown(struct console_test *t)
{
	dev_console_destroy(&t->console);
	bus_destroy(&t->bus);
	fclose(t->out);
	free(t->text);
}

TEST(console, whole_lines)
{
	struct console_test t;

	console_setup(&t);
	write_text(&t.bus, "hello");
	expect_eq(t.len, 0);
	write_text(&t.bus, " there\n");
	expect_eq(t.len, 12);
	expect_str_eq(t.text, "hello there\n");
	write_text(&t.bus, "one\ntwo\nthr");
	expect_str_eq(t.text, "hello there\none\ntwo\n");
	dev_console_flush(&t.console);
	expect_str_eq(t.text, "hello there\none\ntwo\nthr");
	dev_console_flush(&t.console);
	write_text(&t.bus, "ee\n");
	expect_str_eq(t.text, "hello there\none\ntwo\nthree\n");
	expect(!dev_console_failed(&t.console));
	console_teardown(&t);
}

TEST(console, destroy_writes_the_rest)
{
	struct console_test t;

	console_setup(&t);
	write_text(&t.bus, "no newline");
	dev_console_destroy(&t.console);
	expect_str_eq(t.text, "no newline");
	console_teardown(&t);
}

TEST(console, long_lines_and_all_bytes)
{
	struct console_test t;
	const unsigned int total = 5000;

	console_setup(&t);
	for (unsigned int i = 0; i < total; i++)
		bus_out(&t.bus, PORT_CONSOLE, 1, i % 256);
	dev_console_flush(&t.console);
	expect_eq(t.len, total);
	for (unsigned int i = 0; i < total; i++)
		expect_eq((uint8_t)t.text[i], i % 256);
	console_teardown(&t);
}

TEST(console, registers)
{
	struct console_test t;

	console_setup(&t);
	for (uint16_t reg = 0; reg < 8; reg++) {
		expect_eq(read_port(&t.bus, PORT_CONSOLE + reg, 1), reg == 5 ? 0x60 : 0);
		if (reg)
			bus_out(&t.bus, PORT_CONSOLE + reg, 1, 'x');
	}
	expect_eq(read_port(&t.bus, PORT_CONSOLE + 5, 4), 0xffffff60);
	/* A wide write is one byte of text. */
	bus_out(&t.bus, PORT_CONSOLE, 4, 'a' | 'b' << 8 | 'c' << 16 | '\n' << 24);
	dev_console_flush(&t.console);
	expect_str_eq(t.text, "a");
	expect_eq(bus_unclaimed(&t.bus), 0);
	console_teardown(&t);
}

TEST(console, no_stream)
{
	struct dev_console console;
	struct bus bus;

	bus_init(&bus);
	expect_eq(dev_console_init(&console, &bus, NULL), 0);
	for (unsigned int i = 0; i < 3000; i++)
		write_text(&bus, "x");
	write_text(&bus, "\n");
	expect(!dev_console_failed(&console));
	dev_console_destroy(&console);
	bus_destroy(&bus);
}

TEST(console, stream_that_refuses)
{
	struct dev_console console;
	struct bus bus;
	FILE *full = fopen("/dev/full", "w");

	if (!full)
		skip("no /dev/full");
	bus_init(&bus);
	expect_eq(dev_console_init(&console, &bus, full), 0);
	write_text(&bus, "lost");
	expect(!dev_console_failed(&console));
	for (unsigned int i = 0; i < 10000; i++)
		write_text(&bus, "lost\n");
	expect(dev_console_failed(&console));
	dev_console_destroy(&console);
	bus_destroy(&bus);
	fclose(full);
}

static void write_lines(void *arg)
{
	struct bus *bus = arg;

	for (unsigned int i = 0; i < NR_OUTS; i++)
		bus_out(bus, PORT_CONSOLE, 1, i % 40 == 39 ? '\n' : 'a' + i % 26);
}

/* Several vCPUs mix their letters, but lose none. */
TEST(console, several_writers)
{
	struct kthread threads[NR_THREADS];
	struct console_test t;
	unsigned int newlines = 0;

	console_setup(&t);
	for (unsigned int i = 0; i < NR_THREADS; i++)
		expect_eq(kthread_run(&threads[i], "writer", write_lines, &t.bus), 0);
	for (unsigned int i = 0; i < NR_THREADS; i++)
		kthread_join(&threads[i]);
	dev_console_flush(&t.console);
	expect_eq(t.len, NR_THREADS * NR_OUTS);
	for (size_t i = 0; i < t.len; i++)
		newlines += t.text[i] == '\n';
	expect_eq(newlines, NR_THREADS * NR_OUTS / 40);
	console_teardown(&t);
}

/* --- exit --- */

struct exit_test {
	struct bus bus;
	struct dev_exit exit;
	atomic_t calls;
	unsigned int code;
};

static void exited(void *arg, unsigned int code)
{
	struct exit_test *t = arg;

	atomic_inc(&t->calls);
	t->code = code;
}

static void exit_setup(struct exit_test *t)
{
	atomic_set(&t->calls, 0);
	bus_init(&t->bus);
	expect_eq(dev_exit_init(&t->exit, &t->bus, exited, t), 0);
}

TEST(exit_port, code_has_seven_bits)
{
	for (unsigned int v = 0; v < 256; v++) {
		struct exit_test t;

		exit_setup(&t);
		bus_out(&t.bus, PORT_EXIT, 1, v);
		expect_eq(atomic_read(&t.calls), 1);
		expect_eq(t.code, v & 0x7f);
		bus_destroy(&t.bus);
	}
}

TEST(exit_port, only_the_first_counts)
{
	struct exit_test t;

	exit_setup(&t);
	expect_eq(read_port(&t.bus, PORT_EXIT, 1), 0xff);
	expect_eq(atomic_read(&t.calls), 0);
	bus_out(&t.bus, PORT_EXIT, 4, 0xffffff05);
	bus_out(&t.bus, PORT_EXIT, 1, 6);
	expect_eq(atomic_read(&t.calls), 1);
	expect_eq(t.code, 5);
	bus_destroy(&t.bus);
}

static void exit_now(void *arg)
{
	struct exit_test *t = arg;

	bus_out(&t->bus, PORT_EXIT, 1, 3);
}

TEST(exit_port, several_at_once)
{
	for (unsigned int round = 0; round < 50; round++) {
		struct kthread threads[NR_THREADS];
		struct exit_test t;

		exit_setup(&t);
		for (unsigned int i = 0; i < NR_THREADS; i++)
			expect_eq(kthread_run(&threads[i], "exit", exit_now, &t), 0);
		for (unsigned int i = 0; i < NR_THREADS; i++)
			kthread_join(&threads[i]);
		expect_eq(atomic_read(&t.calls), 1);
		expect_eq(t.code, 3);
		bus_destroy(&t.bus);
	}
}

/* --- control --- */

TEST(control, stop)
{
	struct dev_control control;
	struct bus bus;

	bus_init(&bus);
	expect_eq(dev_control_init(&control, &bus), 0);
	expect_eq(read_port(&bus, PORT_STOP, 1), 0);
	bus_out(&bus, PORT_STOP, 1, 1); /* the guest cannot set it */
	expect_eq(read_port(&bus, PORT_STOP, 1), 0);
	dev_control_stop(&control);
	expect_eq(read_port(&bus, PORT_STOP, 1), 1);
	expect_eq(read_port(&bus, PORT_STOP, 4), 0xffffff01);
	dev_control_stop(&control);
	expect_eq(read_port(&bus, PORT_STOP, 1), 1);
	expect_eq(read_port(&bus, PORT_PASS, 1), 0xff);
	expect_eq(read_port(&bus, PORT_CORRUPTION, 1), 0xff);
	bus_destroy(&bus);
}

struct control_test {
	struct bus bus;
	struct dev_control control;
	atomic_t finished;
};

static void count_passes(void *arg)
{
	struct control_test *t = arg;

	for (unsigned int i = 0; i < NR_OUTS; i++) {
		bus_out(&t->bus, PORT_PASS, 1, i);
		if (i % 4 == 0)
			bus_out(&t->bus, PORT_CORRUPTION, 4, 0);
	}
	while (!(read_port(&t->bus, PORT_STOP, 1) & 1))
		cpu_relax();
	atomic_inc(&t->finished);
}

/* The host reads while the guest counts, and stops it. */
TEST(control, counted_while_read)
{
	struct kthread threads[NR_THREADS];
	struct control_test t;
	uint64_t last = 0;

	atomic_set(&t.finished, 0);
	bus_init(&t.bus);
	expect_eq(dev_control_init(&t.control, &t.bus), 0);
	for (unsigned int i = 0; i < NR_THREADS; i++)
		expect_eq(kthread_run(&threads[i], "guest", count_passes, &t), 0);
	while (last < NR_THREADS * NR_OUTS) {
		uint64_t now = dev_control_passes(&t.control);

		expect_ge(now, last);
		expect_le(now, NR_THREADS * NR_OUTS);
		last = now;
	}
	expect_eq(atomic_read(&t.finished), 0);
	dev_control_stop(&t.control);
	for (unsigned int i = 0; i < NR_THREADS; i++)
		kthread_join(&threads[i]);
	expect_eq(dev_control_corruptions(&t.control), NR_THREADS * NR_OUTS / 4);
	expect_eq(atomic_read(&t.finished), NR_THREADS);
	bus_destroy(&t.bus);
}

TEST(devices, live_together)
{
	struct dev_console console;
	struct dev_exit exit_port;
	struct dev_control control;
	struct bus bus;

	bus_init(&bus);
	expect_eq(dev_console_init(&console, &bus, NULL), 0);
	expect_eq(dev_exit_init(&exit_port, &bus, exited, NULL), 0);
	expect_eq(dev_control_init(&control, &bus), 0);
	expect_eq(dev_control_init(&control, &bus), -EEXIST);
	dev_console_destroy(&console);
	bus_destroy(&bus);
}
