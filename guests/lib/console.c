/* SPDX-License-Identifier: 0BSD */
/*
 * Text on the console, a byte per OUT. The port is always ready (boot.h), so nothing is polled:
 * each IN would cost as much again as the OUT.
 *
 * printf knows %s %c %d %u %x %lx %lu %ld %p %%, a width, and a 0 or a - before the width.
 */
#include <stdbool.h>
#include <stdint.h>

#include "boot.h"
#include "console.h"
#include "io.h"

void putc(char c)
{
	outb(PORT_CONSOLE, (uint8_t)c);
}

void puts(const char *s)
{
	while (*s)
		putc(*s++);
}

struct field {
	int width;
	bool left;
	char pad;
};

static void put_padding(int n, char c)
{
	while (n-- > 0)
		putc(c);
}

static void put_field(const struct field *f, const char *s, int len)
{
	if (!f->left)
		put_padding(f->width - len, f->pad);
	for (int i = 0; i < len; i++)
		putc(s[i]);
	if (f->left)
		put_padding(f->width - len, ' ');
}

static void put_number(struct field *f, uint64_t value, unsigned int base, const char *prefix)
{
	char digits[24]; /* 2^64 has 20 decimal digits */
	int at = sizeof(digits), prefix_len = 0;

	do {
		digits[--at] = "0123456789abcdef"[value % base];
		value /= base;
	} while (value);

	while (prefix[prefix_len])
		prefix_len++;
	if (f->pad == '0') { /* a sign or 0x goes before the zeroes */
		puts(prefix);
		f->width -= prefix_len;
	} else {
		while (prefix_len)
			digits[--at] = prefix[--prefix_len];
	}
	put_field(f, digits + at, (int)sizeof(digits) - at);
}

static void put_signed(struct field *f, int64_t value)
{
	if (value < 0)
		put_number(f, -(uint64_t)value, 10, "-");
	else
		put_number(f, (uint64_t)value, 10, "");
}

static void put_string(const struct field *f, const char *s)
{
	int len = 0;

	while (s[len])
		len++;
	put_field(f, s, len);
}

/* The length modifier has been read: @is_long is "one l". */
static void put_conversion(struct field *f, char conversion, bool is_long, va_list *ap)
{
	char c;

	switch (conversion) {
	case 's':
		put_string(f, va_arg(*ap, const char *));
		break;
	case 'c':
		c = (char)va_arg(*ap, int);
		put_field(f, &c, 1);
		break;
	case 'd':
		put_signed(f, is_long ? va_arg(*ap, long) : va_arg(*ap, int));
		break;
	case 'u':
		put_number(f, is_long ? va_arg(*ap, unsigned long) : va_arg(*ap, unsigned int), 10,
			   "");
		break;
	case 'x':
		put_number(f, is_long ? va_arg(*ap, unsigned long) : va_arg(*ap, unsigned int), 16,
			   "");
		break;
	case 'p':
		put_number(f, (uintptr_t)va_arg(*ap, void *), 16, "0x");
		break;
	default: /* %% and whatever this printf does not know: seen as it was written */
		putc(conversion);
	}
}

void vprintf(const char *fmt, va_list ap)
{
	va_list args; /* a va_list parameter is a pointer: its address is not a va_list's */

	va_copy(args, ap);
	for (; *fmt; fmt++) {
		struct field f = {.pad = ' '};
		bool is_long = false;

		if (*fmt != '%') {
			putc(*fmt);
			continue;
		}
		for (fmt++; *fmt == '-' || *fmt == '0'; fmt++) {
			if (*fmt == '-')
				f.left = true;
			else
				f.pad = '0';
		}
		if (f.left)
			f.pad = ' ';
		for (; *fmt >= '0' && *fmt <= '9'; fmt++)
			f.width = f.width * 10 + (*fmt - '0');
		if (*fmt == 'l') {
			is_long = true;
			fmt++;
		}
		if (!*fmt)
			break;
		put_conversion(&f, *fmt, is_long, &args);
	}
	va_end(args);
}

void printf(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
}
