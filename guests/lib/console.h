/* SPDX-License-Identifier: 0BSD */
/* Text on the console. See console.c for what printf understands. */
#ifndef GUESTS_LIB_CONSOLE_H
#define GUESTS_LIB_CONSOLE_H

#include <stdarg.h>

void putc(char c);
void puts(const char *s); /* adds nothing: no newline */

void printf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void vprintf(const char *fmt, va_list ap) __attribute__((format(printf, 1, 0)));

#endif
