/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * SYSCALL leaves for whatever LSTAR holds, and that is the monitor's. It must come out where #UD
 * comes out: EFER.SCE is clear in the machine that this guest was promised. Killed.
 */
#include "guests/lib/report.h"

int main(const struct boot_info *boot)
{
	boot_check(boot);
	__asm__ volatile("syscall" : : "a"(1) : "rcx", "r11", "memory");
	return 0;
}
