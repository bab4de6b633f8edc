/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the models of SRCU share: where things are, how a reader counts, how a scan sums, and how a
 * model is judged. They follow the code step by step, but leave out of it each barrier that the
 * argument at the top of notifier/srcu_gp.c does not use; so what holds here holds there.
 *
 * A model names what it models, as in
 *
 *	MODEL("[enter] [leave]", "notifier/srcu_gp.c: scan_begin, scan_end");
 *
 * and tests/models/check-ties sees to it that the functions exist, do what they do in the order of
 * the models, and that each tag of the argument has a model.
 */
#ifndef TESTS_MODELS_SRCU_MODEL_H
#define TESTS_MODELS_SRCU_MODEL_H

#include "tests/models/wmm.h"
#include "tests/support/test.h"

#define MODEL(tags, functions) _Static_assert(sizeof(tags) + sizeof(functions), "names them")

/* One domain. Its cur, waiting[] and counts by index; two numbers of threads and one more. */
enum {
	PTR,   /* 1: what readers would find is unpublished */
	FREED, /* 1: and freed; 2: somebody wrote to it */
	CUR,
	GP_SEQ,
	GP_LOCK,
	WAITING, /* one index */
	Q_WAITERS,
	Q_SEQ,
	WORKER_WAITS,
	KICKED, /* the worker will look again */
	HI,
	NUMBER_TAKEN,
	FLAG, /* the model's own */
	FLAG2,
	COUNTS = 16,
	SLOTS = 4,
};

static inline uint8_t lock_of(unsigned int slot)
{
	return (uint8_t)(COUNTS + slot * 4);
}

static inline uint8_t unlock_of(unsigned int slot)
{
	return (uint8_t)(COUNTS + slot * 4 + 2);
}

/* ---- readers ---- */

/* __srcu_count() and what stands around it; or srcu_count_slow() with its locked instruction. */
struct count_how {
	bool locked;	    /* srcu_count_slow() where there is no membarrier, or no number */
	bool without_order; /* broken: the asm without "memory", the locked one relaxed */
};

void model_count(struct wm_program *p, uint8_t loc, uint8_t index, struct count_how how);

/* srcu_read_lock(), a look at the pointer and at what it points to, srcu_read_unlock(). */
struct section_how {
	struct count_how lock, unlock;
	bool writes;   /* it writes to what it found, instead of reading it */
	int straggler; /* 1 or 2: it loaded cur long ago, and got index 0 or 1; 0: it loads it now
			*/
};

/* What section @n of a thread has in its registers. */
static inline uint8_t section_index(unsigned int n)
{
	return (uint8_t)(n * 3);
}

static inline uint8_t section_ptr(unsigned int n)
{
	return (uint8_t)(n * 3 + 1);
}

static inline uint8_t section_freed(unsigned int n)
{
	return (uint8_t)(n * 3 + 2);
}

void model_section(struct wm_program *p, unsigned int n, unsigned int slot, struct section_how how);

/* Did a section of any thread but the first find the pointer, and then what it points to freed? */
bool used_after_free(const struct wm_final *final);

/* ---- the updater's side ---- */

/* Loads the counts at @loc, of slots 0 and 1, to registers @reg and up. */
void model_sum(struct wm_program *p, unsigned int reg, uint8_t loc);

/* Nobody is inside, by what memory says in the end. */
bool model_all_left(const struct wm_final *final);

/* ---- judgement ---- */

/* The names of the locations above. Call it first. */
void model_init(struct wm_model *model);

/* The bad outcome never happens, and each of the others does. */
void must_hold(struct wm_model *model, const char *name);
/* The bad outcome happens, lest the model see nothing. Prints how. */
void must_break(struct wm_model *model, const char *name);

#endif
