/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The parts of the SRCU torture: who reads (srcu_torture_readers.c), who updates
 * (srcu_torture_updaters.c), and main(), which lets them run, looks on, and forks.
 */
#ifndef TESTS_TORTURE_SRCU_TORTURE_H
#define TESTS_TORTURE_SRCU_TORTURE_H

#include "notifier/sync/util.h"
#include "tests/support/relax.h"
#include "tests/support/srcu_probe.h"

#define ALIVE  0x600d600d600d600dUL
#define POISON 0xdeaddeaddeaddeadUL

struct element {
	struct srcu_head head;
	uint64_t state; /* plain: SRCU alone protects it */
	atomic_t age;	/* 0 published, 1 unpublished, 2 a grace period later: an error to find */
};

/* What happened; all of it since the fork, in a child. */
struct tally {
	atomic64_t ages[3]; /* sections, by what they found when they left */
	atomic64_t errors;
	atomic64_t slept, handed_over, nested, signals, short_threads;
	atomic64_t synchronized, polled, called, barriers, domains;
	/* While a reader of another domain slept for a second: in the last round, and in the worst.
	 */
	atomic64_t naps, beside_nap, beside_worst_nap;
};

struct torture {
	struct srcu_struct srcu;   /* of everything but the naps */
	struct srcu_struct sleepy; /* has a reader that sleeps for a second at a time */
	struct element *slot;
	atomic_t stop;
	struct tally did;
};

extern struct torture torture;

static inline bool torture_stops(void)
{
	return atomic_read(&torture.stop);
}

struct element *new_element(void);
/* Publish a new one; the old one is returned, unpublished. */
struct element *replace_element(void);
void retire_element(struct element *e);

/* Threads; those of readers take a seed. */
void torture_reader(void *seed);
void torture_thread_churn(void *seed);
void torture_updater(void *unused);
void torture_domain_churn(void *unused);
void torture_napper(void *unused);

void torture_read_in_handler(int sig);
/* End the section that is on its way from one reader to another: it holds grace periods up. */
void torture_empty_mailbox(void);
/* In the child of a fork: that section is gone with the thread that began it. */
void torture_forget_mailbox(void);

#endif
