/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What guests/lib's printf makes of each thing that it knows; run-guests.sh has the answers. */
#include "guests/lib/console.h"
#include "guests/lib/mem.h"
#include "guests/lib/report.h"

int main(const struct boot_info *boot)
{
	static char zeroes[4], text[8] = "text";

	boot_check(boot);
	printf("[%s][%6s][%-6s][%c][%3c]\n", "abc", "abc", "abc", 'x', 'y');
	printf("[%d][%d][%5d][%-5d][%05d]\n", 0, -2147483647 - 1, -42, -42, -42);
	printf("[%u][%lu][%ld]\n", 4294967295u, 18446744073709551615ul, -9223372036854775807l - 1);
	printf("[%x][%lx][%08x][%016lx][%4x]\n", 0xbeefu, 0xfedcba9876543210ul, 0xbeefu, 0x12ul,
	       1u);
	printf("[%p][%12p][%%]\n", (void *)0x400000000000, (void *)0x10);

	memcpy(zeroes, text + 4, 4);
	memset(text, 'q', 3);
	printf("[%s][%d][%d][%d]\n", text, memcmp(text, "qqqt", 4), memcmp(text, "qqqu", 4) < 0,
	       memcmp(zeroes, text, 4) < 0);
	return 0;
}
