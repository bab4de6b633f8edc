/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The guest of bench_shadow. It does what it is told, over and over: HLT brings the VMM, which
 * reads the result of the last job in RAX, and leaves the next one in RDI, RSI, RDX, and how often
 * it is to be done in RCX (shadow_kvm.c).
 */
#include "guests/lib/boot.h"
#include "tests/bench/walk.h"

static uint64_t do_job(uint64_t job, char *at, uint64_t bytes)
{
	switch (job) {
	case WALK_TOUCH:
		return walk_touch(at, bytes);
	case WALK_FILL:
		return walk_fill(at, bytes);
	case WALK_LINES:
		return walk_lines(at, bytes);
	default:
		return walk_pages(at, bytes);
	}
}

int main(const struct boot_info *boot)
{
	uint64_t result = 0;

	(void)boot;
	for (;;) {
		uint64_t job, bytes, times;
		char *at;

		__asm__ volatile("hlt"
				 : "=D"(job), "=S"(at), "=d"(bytes), "=c"(times)
				 : "a"(result)
				 : "memory");
		for (result = 0; times; times--)
			result += do_job(job, at, bytes);
	}
}
