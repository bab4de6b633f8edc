/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A leak that nothing but LeakSanitizer notices: the body passes, and Criterion says so.
 */
#include "tests/support/test.h"

#include <stdlib.h>

/* Not inlined, so that no register or slot of the caller still holds the pointer at exit. */
static __attribute__((noinline)) void leak(void)
{
	char *volatile lost = malloc(4242);

	expect(lost);
	lost = NULL;
}

TEST(planted, leak)
{
	leak();
}
