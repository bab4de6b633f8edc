// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Threads of a schedule, each a real one that waits for the baton but for the one that has it; and
 * the drawing of who gets it next.
 */
#include "tests/hooks/sched.h"

#include <pthread.h>
#include <semaphore.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <gnomon/log.h>

struct sched_thread {
	sem_t baton;
	bool started, done;
	bool (*ready)(void *arg); /* NULL: it can go on */
	void *arg;

	/* Asleep: on what, until when; since which sleep of all, as the first to sleep is woken
	 * first. */
	const void *sleeps_on;
	uint64_t until, since;
	bool late;

	void *(*main)(void *arg);
	void *main_arg;
	void *values[SCHED_MAX_KEYS];
	_Alignas(16) char state[SCHED_STATE_SIZE];
};

/* Of the one schedule that this process runs. Touched by the holder of the baton. */
static struct {
	struct sched_trace *trace;
	struct sched_thread threads[SCHED_MAX_THREADS];
	unsigned int nr_threads;
	uint64_t random, now, nr_sleeps;
	void (*at_thread_end)(void);
	const volatile void *objects[4096];
	unsigned int nr_objects;
} run;

static __thread struct sched_thread *self;

struct sched_thread *sched_self(void)
{
	return self;
}

_Noreturn void sched_fail(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vsnprintf(run.trace->why, sizeof(run.trace->why), fmt, args);
	va_end(args);
	run.trace->failed = true;
	_exit(1);
}

/* xorshift64*: the same everywhere, unlike random(3). */
static uint64_t draw(uint64_t below)
{
	run.random ^= run.random >> 12;
	run.random ^= run.random << 25;
	run.random ^= run.random >> 27;
	return (run.random * 0x2545f4914f6cdd1dULL >> 32) % below;
}

/* ---- who is next ---- */

static bool can_go_on(struct sched_thread *t)
{
	return t->started && !t->done && (!t->ready || t->ready(t->arg));
}

/* Nobody can go on: it is some sleeper's time, or never will be. */
static struct sched_thread *let_time_pass(void)
{
	struct sched_thread *first = NULL;

	for (unsigned int i = 0; i < run.nr_threads; i++) {
		struct sched_thread *t = &run.threads[i];

		if (t->sleeps_on && t->until && (!first || t->until < first->until))
			first = t;
	}
	if (!first)
		sched_fail("deadlock: every thread waits");
	run.now = first->until;
	first->sleeps_on = NULL;
	first->late = true;
	return first;
}

/* @but: only if nobody else can. */
static struct sched_thread *choose(const struct sched_thread *but)
{
	struct sched_thread *able[SCHED_MAX_THREADS];
	unsigned int nr = 0;

	for (unsigned int i = 0; i < run.nr_threads; i++)
		if (&run.threads[i] != but && can_go_on(&run.threads[i]))
			able[nr++] = &run.threads[i];
	if (nr)
		return able[draw(nr)];
	if (but && can_go_on(&run.threads[but - run.threads]))
		return &run.threads[but - run.threads];
	return let_time_pass();
}

static void hand_over(struct sched_thread *next)
{
	if (next == self)
		return;
	sem_post(&next->baton);
	while (sem_wait(&self->baton))
		;
}

static unsigned int object_number(const volatile void *object)
{
	unsigned int i = 0;

	while (i < run.nr_objects && run.objects[i] != object)
		i++;
	if (i == run.nr_objects && i < 4095)
		run.objects[run.nr_objects++] = object;
	return i;
}

static void record(const char *op, const volatile void *object)
{
	struct sched_trace *trace = run.trace;

	if (trace->nr_steps == SCHED_MAX_STEPS)
		sched_fail("livelock: no end after %u steps", SCHED_MAX_STEPS);
	trace->steps[trace->nr_steps++] = (struct sched_step){
		.op = op,
		.thread = (uint32_t)(self - run.threads),
		.object = object_number(object),
	};
	run.now += 1000;
}

static void point(const char *op, const volatile void *object, bool (*ready)(void *arg), void *arg,
		  const struct sched_thread *but)
{
	if (!self)
		return;
	self->ready = ready;
	self->arg = arg;
	hand_over(choose(but));
	self->ready = NULL;
	record(op, object);
}

void sched_point(const char *op, const volatile void *object, bool (*ready)(void *arg), void *arg)
{
	point(op, object, ready, arg, NULL);
}

void sched_yield_point(const char *op)
{
	point(op, NULL, NULL, NULL, self);
}

/* ---- sleeping ---- */

static bool is_awake(void *arg)
{
	return !((struct sched_thread *)arg)->sleeps_on;
}

bool sched_sleep(const void *word, uint64_t until)
{
	self->sleeps_on = word;
	self->until = until;
	self->since = ++run.nr_sleeps;
	self->late = false;
	sched_point("awake", word, is_awake, self);
	return !self->late;
}

void sched_wake(const void *word, int nr)
{
	while (nr-- > 0) {
		struct sched_thread *first = NULL;

		for (unsigned int i = 0; i < run.nr_threads; i++) {
			struct sched_thread *t = &run.threads[i];

			if (t->sleeps_on == word && (!first || t->since < first->since))
				first = t;
		}
		if (!first)
			return;
		first->sleeps_on = NULL;
	}
}

uint64_t sched_now(void)
{
	return run.now;
}

/* ---- threads ---- */

static void *thread_main(void *arg)
{
	self = arg;
	while (sem_wait(&self->baton))
		;
	self->main(self->main_arg);
	if (run.at_thread_end)
		run.at_thread_end();
	self->done = true;
	sem_post(&choose(NULL)->baton);
	/* Its stack is not to be another's: where that comes by chance, so do addresses. */
	for (;;)
		pause();
	return NULL;
}

int sched_thread_start(void *(*main)(void *arg), void *arg, unsigned long *id)
{
	struct sched_thread *t = &run.threads[run.nr_threads];
	pthread_t handle;

	if (run.nr_threads == SCHED_MAX_THREADS)
		sched_fail("more than %d threads", SCHED_MAX_THREADS);
	sem_init(&t->baton, 0, 0);
	t->main = main;
	t->main_arg = arg;
	if (pthread_create(&handle, NULL, thread_main, t))
		sched_fail("no thread to be had");
	pthread_detach(handle);
	t->started = true;
	*id = run.nr_threads++;
	return 0;
}

static bool has_ended(void *arg)
{
	return ((struct sched_thread *)arg)->done;
}

void sched_thread_join(unsigned long id)
{
	sched_point("join", &run.threads[id], has_ended, &run.threads[id]);
}

void *sched_thread_state(void)
{
	static struct sched_thread nobody;

	return self ? self->state : nobody.state;
}

void **sched_thread_value(unsigned int key)
{
	return &self->values[key];
}

void sched_at_thread_end(void (*fn)(void))
{
	run.at_thread_end = fn;
}

/* ---- a schedule ---- */

/* A trap follows a BUG, and none of what comes here is expected. */
static void on_log(enum gnomon_log_level level, const char *message, void *unused)
{
	(void)unused;
	if (level != GNOMON_LOG_INFO)
		sched_fail("%s", message);
}

static _Noreturn void child(void (*body)(void))
{
	const struct rlimit no_core = {0, 0};

	setrlimit(RLIMIT_CORE, &no_core);
	alarm(20);
	gnomon_set_log(on_log, NULL);
	self = &run.threads[0];
	sem_init(&self->baton, 0, 0);
	self->started = true;
	run.nr_threads = 1;
	body();
	for (unsigned int i = 1; i < run.nr_threads; i++)
		if (!run.threads[i].done)
			sched_fail("thread %u is left behind", i);
	_exit(0);
}

struct sched_trace *sched_run(uint64_t seed, void (*body)(void))
{
	struct sched_trace *trace = mmap(NULL, sizeof(*trace), PROT_READ | PROT_WRITE,
					 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int status;
	pid_t pid;

	if (trace == MAP_FAILED)
		abort();
	run.trace = trace;
	run.random = seed * 0x9e3779b97f4a7c15ULL + 1;
	pid = fork();
	if (!pid)
		child(body);
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		abort();
	if (status && !trace->failed) {
		trace->failed = true;
		snprintf(trace->why, sizeof(trace->why), "the process ended with status %#x",
			 (unsigned int)status);
	}
	return trace;
}

void sched_free(struct sched_trace *trace)
{
	munmap(trace, sizeof(*trace));
}

bool sched_same(const struct sched_trace *a, const struct sched_trace *b)
{
	return a->failed == b->failed && !strcmp(a->why, b->why) && a->nr_steps == b->nr_steps &&
	       !memcmp(a->steps, b->steps, a->nr_steps * sizeof(a->steps[0]));
}
