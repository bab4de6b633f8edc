/* SPDX-License-Identifier: 0BSD */
/* How a guest ends badly, and well. */
#include <stdarg.h>

#include "console.h"
#include "report.h"

_Noreturn void guest_exit(unsigned int code)
{
	outb(PORT_EXIT, (uint8_t)code);
	for (;;)
		hlt();
}

_Noreturn void check_failed(const char *file, int line, const char *cond, const char *fmt, ...)
{
	va_list ap;

	puts("FAILED: ");
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	printf(" (%s:%d: %s)\n", file, line, cond);
	guest_exit(1);
}

void boot_check(const struct boot_info *boot)
{
	check(boot->magic == BOOT_MAGIC, "no boot_info at %p", (const void *)boot);
	check(boot->version == BOOT_VERSION, "the loader speaks version %lu of boot.h, not %d",
	      boot->version, BOOT_VERSION);
}
