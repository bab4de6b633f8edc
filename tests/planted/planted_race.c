/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A data race that nothing but ThreadSanitizer notices: two threads add to one plain counter, and
 * no assertion depends on the sum.
 */
#include "tests/support/test.h"

#include <pthread.h>

static int counter;

static void *add(void *arg)
{
	(void)arg;
	for (int i = 0; i < 1000; i++)
		counter++;
	return NULL;
}

TEST(planted, race)
{
	pthread_t threads[2];

	for (int i = 0; i < 2; i++)
		expect_eq(pthread_create(&threads[i], NULL, add, NULL), 0);
	for (int i = 0; i < 2; i++)
		expect_eq(pthread_join(threads[i], NULL), 0);
	expect_ge(counter, 1);
}
