// SPDX-License-Identifier: LGPL-2.1-or-later
/* Sees some of the faults of notifier/sample.c, and not others: check-mutants knows which. */
#include <stdio.h>

#include "notifier/sample.h"

int main(void)
{
	struct sample s = {0};

	for (int i = 1; i <= 10; i++)
		if (!sample_add(&s, i)) {
			printf("refused\n");
			return 1;
		}
	if (sample_total(&s) != 55) {
		printf("the sum is wrong\n");
		return 1;
	}
	return 0;
}
