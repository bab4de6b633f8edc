/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The world of the register/unregister torture (register_unregister.c tells the story): what its
 * threads share.
 */
#ifndef TESTS_TORTURE_TORTURE_H
#define TESTS_TORTURE_TORTURE_H

#include <gnomon/mmu_notifier.h>

#include "notifier/sync/atomic.h"
#include "notifier/sync/thread.h"
#include "notifier/sync/wait.h"
#include "tests/model/guest_mem.h"

#define NR_REGISTRARS	3
#define NR_CPUS		2
#define NR_MUTATORS	2
#define RAM_PAGES	48
#define MAX_RANGE_PAGES 8
#define DATA_PAGES	32 /* the first pages of RAM; guest tables are at the end */

/* Each data page is eight words of interest, 512 bytes apart; who writes which: */
#define WORD_OFFSET(word) ((uint64_t)(word) << 9)
#define NR_CPU_WORDS	  5 /* 0..4: the page's owner CPU, page % NR_CPUS */
#define WORD_MIRROR	  5 /* the mirror thread */
#define WORD_HOST	  6 /* the host thread, by mm_write */
#define WORD_SHARED	  7 /* everybody adds to it, and all additions must be there at the end */

struct options {
	uint64_t pairs, invalidations, seed;
	unsigned int seconds, broken;
	bool json;
};

enum phase {
	PHASE_RUN,    /* everybody works */
	PHASE_SETTLE, /* no more registering: the rest of the invalidations */
	PHASE_STOP,
};

struct torture {
	struct options opt;
	struct guest_mem g;
	uint64_t cr3[2]; /* two roots that share their tables */
	atomic_t phase;

	/* Moved on by every mutation; whoever paces itself by them waits here. */
	atomic64_t progress;
	wait_queue_head_t progress_wait;

	/* What each kind of thread did; the figures at the end, and their minima. */
	atomic64_t pairs, overlapped, short_waits;
	atomic64_t zaps, range_migrations, frame_attempts, frames_moved, unmapped_moved;
	atomic64_t cpu_accesses, cpu_checks, mirror_accesses, mirror_faults, mirror_retries;
	atomic64_t host_accesses, added, exits, exit_overlapped;
};

/* One line, and the process is gone: other threads may hold anything. */
_Noreturn void torture_fail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

static inline enum phase torture_phase(struct torture *t)
{
	return atomic_read(&t->phase);
}

/* Wait until a mutation has happened after @seen, or the run ends; the number of mutations now. */
uint64_t torture_wait_progress(struct torture *t, uint64_t seen);
void torture_note_progress(struct torture *t);

/* xorshift64*: each thread its own, all from the seed. */
struct rng {
	uint64_t state;
};

static inline void rng_init(struct rng *rng, uint64_t seed, uint64_t stream)
{
	rng->state = (seed + 1) * 0x9e3779b97f4a7c15UL ^ (stream + 1) * 0xbf58476d1ce4e5b9UL;
}

static inline uint64_t rng_next(struct rng *rng)
{
	rng->state ^= rng->state >> 12;
	rng->state ^= rng->state << 25;
	rng->state ^= rng->state >> 27;
	return rng->state * 0x2545f4914f6cdd1dUL >> 16;
}

static inline uint64_t rng_below(struct rng *rng, uint64_t n)
{
	return rng_next(rng) % n;
}

static inline gpa_t word_gpa(uint64_t page, unsigned int word)
{
	return (page << PAGE_SHIFT) + WORD_OFFSET(word);
}

/* A stamp says which word it belongs to, and how often that was written: nothing else holds it. */
static inline uint64_t stamp(uint64_t page, unsigned int word, uint64_t count)
{
	return count ? 0x57UL << 56 | page << 48 | (uint64_t)word << 40 | count : 0;
}

/* The count in @value, if it is a stamp of that word, or has never been written; else the end. */
uint64_t stamp_count(uint64_t value, uint64_t page, unsigned int word, const char *who);

/* The threads; @arg is a struct torture_thread. */
struct torture_thread {
	struct torture *t;
	unsigned int nr;
	struct kthread thread;
};

void registrar_thread(void *arg);     /* subscribers.c */
void range_mutator_thread(void *arg); /* mutators.c */
void frame_mutator_thread(void *arg); /* mutators.c */
void host_thread(void *arg);	      /* mutators.c */
void cpu_thread(void *arg);	      /* guest_cpus.c */
void exit_thread(void *arg);	      /* exits.c */

/* permanent.c: subscribers that stay. */
struct permanent {
	struct mmu_notifier mn;
	struct torture *t;
	atomic64_t starts, ends, clear_starts, clear_ends;
	atomic_t releases, depth;
};

extern struct permanent permanent_first, permanent_last;

void permanent_register_first(struct torture *t); /* before the shadow MMU */
void permanent_register_last(struct torture *t);  /* after it */
void permanent_check(struct torture *t);	  /* nothing moves any more */

/* mirror.c: a second client, with tables of its own. */
void mirror_register(struct torture *t);
void mirror_thread(void *arg);
void mirror_check(struct torture *t);
void mirror_unregister(struct torture *t);

#endif
