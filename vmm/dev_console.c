/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The console: enough of a 16550 that a guest can write text without a driver. Offset 0 transmits,
 * the line status register says that the transmitter is always empty, and everything else (divisor,
 * interrupts, modem lines) reads 0 and ignores writes.
 *
 * Bytes are collected up to a newline and given to the stream in one piece. A line longer than the
 * buffer goes out in parts. Output that the stream refuses (a closed pipe, a full disk) is lost:
 * the guest cannot be told, and is not to be stopped by it.
 */
#include "vmm/devices.h"

#include "guests/lib/boot.h"

#define CONSOLE_PORTS 8

#define REG_DATA	0
#define REG_LINE_STATUS 5

#define LINE_STATUS_EMPTY 0x60 /* holding and shift register both */

static void write_line(struct dev_console *console)
{
	lockdep_assert_held(&console->lock);

	if (console->out && console->len > 0 &&
	    (fwrite(console->line, 1, console->len, console->out) != console->len ||
	     fflush(console->out) != 0))
		console->failed = true;
	console->len = 0;
}

static uint32_t console_in(void *dev, uint16_t reg, unsigned int size)
{
	(void)dev;
	(void)size;
	return reg == REG_LINE_STATUS ? LINE_STATUS_EMPTY : 0;
}

static void console_out(void *dev, uint16_t reg, unsigned int size, uint32_t val)
{
	struct dev_console *console = dev;

	(void)size;
	if (reg != REG_DATA)
		return;

	mutex_lock(&console->lock);
	console->line[console->len++] = (char)val;
	if (val == '\n' || console->len == sizeof(console->line))
		write_line(console);
	mutex_unlock(&console->lock);
}

static const struct bus_ops console_ops = {
	.name = "console",
	.width = 1,
	.in = console_in,
	.out = console_out,
};

int dev_console_init(struct dev_console *console, struct bus *bus, FILE *out)
{
	mutex_init(&console->lock);
	console->out = out;
	console->len = 0;
	console->failed = false;
	return bus_register(bus, PORT_CONSOLE, CONSOLE_PORTS, &console_ops, console);
}

void dev_console_flush(struct dev_console *console)
{
	mutex_lock(&console->lock);
	write_line(console);
	mutex_unlock(&console->lock);
}

bool dev_console_failed(struct dev_console *console)
{
	bool failed;

	mutex_lock(&console->lock);
	failed = console->failed;
	mutex_unlock(&console->lock);
	return failed;
}

void dev_console_destroy(struct dev_console *console)
{
	dev_console_flush(console);
}
