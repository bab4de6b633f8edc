/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * gnomon/signal.h: a mark of a thread, which its signal handlers may set.
 */
#include <pthread.h>
#include <signal.h>

#include <gnomon/signal.h>

#include "notifier/sync/thread.h"
#include "tests/support/test.h"

static void not_pending(void *arg)
{
	(void)arg;
	expect(!signal_pending());
}

TEST(signal, of_one_thread)
{
	struct kthread t;

	expect(!signal_pending());
	set_signal_pending();
	expect(signal_pending());
	expect(signal_pending()); /* to look takes nothing away */
	expect_eq(kthread_run(&t, "other", not_pending, NULL), 0);
	kthread_join(&t);
	clear_signal_pending();
	expect(!signal_pending());
}

static void handler(int sig)
{
	(void)sig;
	set_signal_pending();
}

TEST(signal, set_by_a_handler)
{
	const struct sigaction action = {.sa_handler = handler};

	expect_eq(sigaction(SIGUSR1, &action, NULL), 0);
	expect_eq(raise(SIGUSR1), 0);
	expect(signal_pending());
	clear_signal_pending();
	expect(!signal_pending());
}
