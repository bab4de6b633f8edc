/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The smallest program that can embed libraries built with hooks (notifier/sync/hooks.h): one
 * logical thread runs at a time, and at each hook the next one is drawn from those that can go on.
 * The same seed draws the same, so a schedule can be had again. No search, no shrinking, no
 * history: it shows that the hooks are all there, and that they suffice.
 *
 *   sched.c		threads, the drawing, a schedule from begin to end
 *   sched_sync.c	the functions that hooks.h lists
 *   sched_tsan.c	what the compiler makes of atomics and plain accesses
 *
 * Each schedule runs in a forked child: the libraries' static state starts over, addresses are the
 * same each time, and of one that failed nothing is left.
 */
#ifndef TESTS_HOOKS_SCHED_H
#define TESTS_HOOKS_SCHED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* An operation that other threads can see. Objects are numbered as they appear. */
struct sched_step {
	const char *op;
	uint32_t thread;
	uint32_t object;
};

#define SCHED_MAX_STEPS 100000u

struct sched_trace {
	bool failed;
	char why[300];
	unsigned int nr_steps;
	struct sched_step steps[SCHED_MAX_STEPS];
};

/* Run @body as the first thread of a schedule; when it returns, all others must have ended. */
struct sched_trace *sched_run(uint64_t seed, void (*body)(void));
void sched_free(struct sched_trace *trace);
bool sched_same(const struct sched_trace *a, const struct sched_trace *b);

/* From inside: this schedule failed, and ends here. */
_Noreturn void sched_fail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#define sched_expect(cond)                                             \
	do {                                                           \
		if (!(cond))                                           \
			sched_fail("%s: not so: %s", __func__, #cond); \
	} while (0)

/* ---- between the files ---- */

#define SCHED_MAX_THREADS 16
#define SCHED_MAX_KEYS	  8

/* A logical thread; opaque but to sched.c, and to sched_sync.c that sleeps in it. */
struct sched_thread;

/* The one that runs; NULL when no schedule does: then a hook just does its work. */
struct sched_thread *sched_self(void);

/*
 * The calling thread is about to do @op on @object, and can as soon as @ready(@arg), NULL: at once.
 * Returns when it is its turn to. Between that and the next call nobody else runs.
 */
void sched_point(const char *op, const volatile void *object, bool (*ready)(void *arg), void *arg);

/* The same, for what is pointless until another thread has run. */
void sched_yield_point(const char *op);

/* Sleep on @word, until woken or (0: never) virtual time @until. False: it was the time. */
bool sched_sleep(const void *word, uint64_t until);
void sched_wake(const void *word, int nr);
uint64_t sched_now(void);

int sched_thread_start(void *(*main)(void *arg), void *arg, unsigned long *id);
void sched_thread_join(unsigned long id);
void *sched_thread_state(void); /* SCHED_STATE_SIZE zeroes, at first */
void **sched_thread_value(unsigned int key);
void sched_at_thread_end(void (*fn)(void));

#define SCHED_STATE_SIZE 512

/* Memory that is never handed out twice in a schedule, so that each use after free is seen. */
void *sched_alloc(size_t size);
void sched_release(void *ptr);
void sched_check(const volatile void *ptr, size_t size, const char *what);

#endif
