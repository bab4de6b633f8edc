/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Single steps: something happens between two given instructions of a call, as another CPU might do
 * it there. A test that tries every place needs no luck, nor a second thread.
 *
 * The trap flag makes each instruction end in a SIGTRAP, whose handler does it. x86 only, as we
 * are; not for the builds of the sanitizers (step_skip()).
 */
#ifndef TESTS_SUPPORT_STEP_H
#define TESTS_SUPPORT_STEP_H

#include <signal.h>
#include <ucontext.h>

#include "tests/support/test.h"

struct step {
	void (*at_each)(struct step *step); /* in the handler, after instruction number nr */
	void *arg;
	unsigned int nr;
	bool over; /* set by at_each: the rest of the call is not stepped through, which is slow */
};

static struct step *step_current;

static inline void step_skip(void)
{
#ifdef __SANITIZE_THREAD__
	skip("ThreadSanitizer holds signals back");
#elif defined(__SANITIZE_ADDRESS__)
	skip("AddressSanitizer makes too many steps of one");
#endif
}

#define STEP_TRAP_FLAG 0x100

static void step_trap(int sig, siginfo_t *info, void *context)
{
	ucontext_t *interrupted = context;
	struct step *step = step_current;

	(void)sig;
	(void)info;
	step->nr++;
	step->at_each(step);
	if (step->over)
		interrupted->uc_mcontext.gregs[REG_EFL] &= ~STEP_TRAP_FLAG;
}

/* What is between the two is stepped through; both are on the same thread. */
static inline void step_begin(struct step *step)
{
	const struct sigaction action = {.sa_sigaction = step_trap, .sa_flags = SA_SIGINFO};

	expect_eq(sigaction(SIGTRAP, &action, NULL), 0);
	step->nr = 0;
	step->over = false;
	step_current = step;
	/* Below the red zone, which the compiler may be using. */
	__asm__ __volatile__("lea -128(%%rsp), %%rsp; pushfq; orq $0x100, (%%rsp); popfq;"
			     "lea 128(%%rsp), %%rsp" ::
				     : "memory", "cc");
}

static inline void step_end(void)
{
	__asm__ __volatile__("lea -128(%%rsp), %%rsp; pushfq; andq $~0x100, (%%rsp); popfq;"
			     "lea 128(%%rsp), %%rsp" ::
				     : "memory", "cc");
}

#endif
