// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Clocks, processors and threads of the benchmarks.
 */
#include "tests/bench/bench.h"

#include <errno.h>
#include <sched.h>
#include <sys/resource.h>

uint64_t bench_now(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* How often this thread had to give way. Sleeping by its own will is not counted. */
static long switches(void)
{
	struct rusage usage;

	getrusage(RUSAGE_THREAD, &usage);
	return usage.ru_nivcsw;
}

void bench_start(struct bench_timer *t, clockid_t clock)
{
	t->clock = clock;
	t->switches = switches();
	t->start = bench_now(clock);
}

void bench_stop(const struct bench_timer *t, struct bench_sample *s)
{
	s->ns = (double)(bench_now(t->clock) - t->start);
	s->disturbed = switches() != t->switches;
}

/* ---- processors ---- */

static pthread_once_t cpus_once = PTHREAD_ONCE_INIT;
static cpu_set_t cpus; /* as they were when the program began */

static void cpus_read(void)
{
	if (sched_getaffinity(0, sizeof(cpus), &cpus) != 0) {
		CPU_ZERO(&cpus);
		CPU_SET(0, &cpus);
	}
}

unsigned int bench_nr_cpus(void)
{
	pthread_once(&cpus_once, cpus_read);
	return (unsigned int)CPU_COUNT(&cpus);
}

void bench_pin(unsigned int cpu)
{
	unsigned int left = cpu % bench_nr_cpus();
	cpu_set_t one;

	CPU_ZERO(&one);
	for (int i = 0; i < CPU_SETSIZE; i++) {
		if (!CPU_ISSET(i, &cpus) || left--)
			continue;
		CPU_SET(i, &one);
		break;
	}
	sched_setaffinity(0, sizeof(one), &one);
}

void bench_unpin(void)
{
	bench_nr_cpus();
	sched_setaffinity(0, sizeof(cpus), &cpus);
}

/* ---- threads ---- */

int bench_thread(pthread_t *thread, void *(*fn)(void *arg), void *arg)
{
	pthread_attr_t attr;
	int err;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 128 << 10);
	err = pthread_create(thread, &attr, fn, arg);
	pthread_attr_destroy(&attr);
	return -err;
}

struct team {
	const struct bench_job *job;
	uint64_t n;
	unsigned int size, ready, done;
};

struct member {
	struct team *team;
	unsigned int number;
	pthread_t thread;
	struct bench_sample sample;
} __attribute__((aligned(128)));

static void *member_main(void *arg)
{
	struct member *m = arg;
	struct team *team = m->team;
	const struct bench_job *job = team->job;
	struct bench_timer timer;

	bench_pin(m->number);
	job->enter();
	job->loop(job->unit);

	/* Spinning, not a barrier that sleeps: all must begin within a cache miss of each other. */
	__atomic_add_fetch(&team->ready, 1, __ATOMIC_SEQ_CST);
	while (__atomic_load_n(&team->ready, __ATOMIC_ACQUIRE) < team->size)
		__builtin_ia32_pause();

	bench_start(&timer, job->clock);
	job->loop(team->n);
	bench_stop(&timer, &m->sample);

	__atomic_add_fetch(&team->done, 1, __ATOMIC_SEQ_CST);
	while (__atomic_load_n(&team->done, __ATOMIC_RELAXED) < team->size)
		job->loop(job->unit);
	/* Up to here the others were measured in our company: were they? */
	m->sample.disturbed = switches() != timer.switches;
	job->leave();
	return NULL;
}

int bench_parallel(const struct bench_job *job, unsigned int nr, uint64_t n, struct bench_sample *s)
{
	struct team team = {.job = job, .n = n, .size = nr};
	struct member members[nr];
	unsigned int started = 0;
	int err = 0;

	for (; started < nr; started++) {
		members[started] = (struct member){.team = &team, .number = started};
		err = bench_thread(&members[started].thread, member_main, &members[started]);
		if (err)
			break;
	}
	/* The missing ones will not come: let those that wait for them through. */
	if (err) {
		__atomic_add_fetch(&team.ready, nr - started, __ATOMIC_SEQ_CST);
		__atomic_add_fetch(&team.done, nr - started, __ATOMIC_SEQ_CST);
	}
	*s = (struct bench_sample){0};
	for (unsigned int i = 0; i < started; i++) {
		pthread_join(members[i].thread, NULL);
		s->ns += members[i].sample.ns / nr;
		s->disturbed |= members[i].sample.disturbed;
	}
	return err;
}
