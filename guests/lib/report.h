/* SPDX-License-Identifier: 0BSD */
/* What a guest tells the world beside its console text: how it fares and how it ends. */
#ifndef GUESTS_LIB_REPORT_H
#define GUESTS_LIB_REPORT_H

#include <stdbool.h>

#include "boot.h"
#include "io.h"

/* End the guest at once. Returning from main does the same. */
_Noreturn void guest_exit(unsigned int code);

/*
 * check(cond, "what was expected, %d", value): says so on the console and exits 1 unless @cond
 * holds.
 */
#define check(cond, ...)                                                           \
	do {                                                                       \
		if (__builtin_expect(!(cond), 0))                                  \
			check_failed(__FILE_NAME__, __LINE__, #cond, __VA_ARGS__); \
	} while (0)

_Noreturn void check_failed(const char *file, int line, const char *cond, const char *fmt, ...)
	__attribute__((format(printf, 4, 5), cold));

/* Was this guest started by a loader that speaks this boot.h? Every main begins with it. */
void boot_check(const struct boot_info *boot);

/* One more pass of the guest's work is done. */
static inline void pass(void)
{
	outb(PORT_PASS, 1);
}

/* Memory held something else than what was written there. */
static inline void corruption(void)
{
	outb(PORT_CORRUPTION, 1);
}

/* The host wants the guest to finish. An exit like any other port access: poll it sparingly. */
static inline bool stop_requested(void)
{
	return inb(PORT_STOP) & 1;
}

#endif
