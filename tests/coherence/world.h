/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The world of the coherence test, and what is known of it.
 *
 * A guest of up to four CPUs has three slots. Slot 0 is RAM: two pages of data, a pool of page
 * tables, and a linear map by which the CPUs store to all of it. Slots 1 and 2 have data only; the
 * one shows a shared object, the other private memory; they come, go, move, and lose memory.
 *
 * Everything that can be one thing now and was another before has a *history*: each word of memory,
 * what each page of the host's address space shows, where each slot is. A history is a set of
 * values, each with the time until which it was the value. Time is a count of operations: in the
 * run of one thread of whole ones, with threads of their beginnings and ends.
 */
#ifndef TESTS_COHERENCE_WORLD_H
#define TESTS_COHERENCE_WORLD_H

#include <gnomon/ksm.h>

#include "notifier/sync/atomic.h"
#include "notifier/sync/lock.h"
#include "tests/coherence/ops.h"
#include "tests/model/guest_mem.h"
#include "tests/paging/sdm_paging.h"
#include "tests/support/differ.h"

#define MAX_CPUS 4
#define NR_PCIDS 3
#define NR_ROOTS 3

/* Guest memory, by gfn. Pages of the pool have a level where they belong, and are used at others,
 * too. */
#define RAM_PAGES   32
#define NR_RAM_DATA 2
#define FIRST_TABLE 2 /* the roots come first */
#define NR_TABLES   16
#define LINEAR_L3   18
#define LINEAR_L2   19
#define LINEAR_L1   20
#define NR_SLOTS    3
#define SLOT_PAGES  8
#define SLOT1_GFN   512
#define SLOT1_OTHER 1536
#define SLOT2_GFN   1024
#define NO_GFN	    3000

/* Host memory: pages of its address space, in the order of slots, and what they show. Numbers of
 * the pages that they may show are the same, as there are as many. */
#define FIRST_SHARED  RAM_PAGES
#define FIRST_PRIVATE (FIRST_SHARED + SLOT_PAGES)
#define NR_PAGES      (FIRST_PRIVATE + SLOT_PAGES)

/* Of a page: all that are ever used. The last table of the linear map has more. */
#define NR_WORDS  5
#define MAX_WORDS RAM_PAGES

/* Virtual pages: in a corner of the address space that is edited; in the linear map, by 4 KiB
 * pages, and by one large page. */
#define NR_WILD	     32
#define LINEAR_GVA   NR_WILD
#define LARGE_GVA    (LINEAR_GVA + RAM_PAGES)
#define NR_GVAS	     (LARGE_GVA + RAM_PAGES)
#define LINEAR_INDEX 4 /* in each root */

#define FOREVER UINT64_MAX

struct known {
	uint64_t value, until; /* FOREVER: it still is, or is about to be */
};

struct history {
	struct known *at;
	unsigned int nr, room, now; /* at[now] is the value */
};

/* What a history of host memory says: 0: not mapped. */
#define SHOWS(page, prot) (((uint64_t)(page) + 1) << 2 | (prot))
#define SHOWN_PAGE(value) ((int)((value) >> 2) - 1)
#define SHOWN_PROT(value) ((value)&3)
/* And of a slot; 0: it is not there. */
#define PLACED(gfn, flags) (((uint64_t)(gfn) + 1) << 1 | (flags))
#define PLACED_GFN(value)  (((value) >> 1) - 1)
#define PLACED_RO(value)   ((value)&1)

struct cpu {
	struct guest_cpu state;
	int root; /* by its number */
	unsigned int pcid;
	/* When the last flush began that covers the translation. */
	uint64_t since[NR_PCIDS][NR_GVAS];
};

#define MAX_CHILDREN 2
#define MAX_PLAN     16
#define MAX_WAITING  3

/* A fork of the host's mm, and what its private memory must hold for ever. */
struct child {
	struct mm_struct *mm;
	uint64_t shows[SLOT_PAGES];
	uint64_t words[SLOT_PAGES][NR_WORDS];
};

struct world {
	struct guest_mem g;
	struct address_space *object; /* of slot 1 */
	struct ksm *ksm;
	unsigned int nr_cpus;
	struct cpu cpu[MAX_CPUS];
	struct child children[MAX_CHILDREN];

	/* @book protects the histories; @edit serialises those who store to tables. What host
	 * memory shows, and where slots are, has one thread each that changes it. */
	struct mutex book, edit;
	struct history word[NR_PAGES][MAX_WORDS];
	struct history shows[NR_PAGES];
	struct history slot[NR_SLOTS];
	atomic64_t now;
	uint64_t stamps; /* given out */

	bool threads; /* A and D are not looked at, contents are by stamps (threads.c) */
	bool swap;    /* there is a swap file */
	/* The rest is for one thread. */
	/* Of who writes programs: the virtual page that is used most now, and what comes next. */
	int hot, planned;
	struct op plan[MAX_PLAN];
	bool nested; /* an operation is, or was, done in the middle of this one */
	struct op waiting[MAX_WAITING]; /* to be done, in order, in the middle of the next, */
	int nr_waiting;
	struct op *outer; /* which is this, while it may be */
	/* A device has written this there, and has not said so; -1: none has. */
	uint64_t untold_value;
	int untold, untold_word;

	atomic64_t done[NR_OP_KINDS];
	atomic64_t stores, faults, emulated, let_through, device_accesses, refused, stale, inside;
};

void world_create(struct world *w, unsigned int nr_cpus, unsigned int broken, bool threads,
		  bool audit, unsigned long budget);
void world_destroy(struct world *w);

gva_t gva_of(int gva);
hva_t hva_of(int page);
/* The level at which a page of the pool belongs. */
int home_level(int page);
static inline bool is_table(int page)
{
	return page >= FIRST_TABLE && page < RAM_PAGES;
}
/* What a page holds at first, and what it gets later: no entry of a table that is present. */
uint64_t first_stamp(int page, int word);
/* A new value for a history: from its beginning until its end both are. */
void history_begin(struct world *w, struct history *h, uint64_t value);
void history_end(struct world *w, struct history *h, uint64_t value);
/* It never came to be. */
void history_undo(struct world *w, struct history *h, uint64_t value);
/* At once. */
void history_set(struct world *w, struct history *h, uint64_t value);
static inline uint64_t history_now(const struct history *h)
{
	return h->at[h->now].value;
}
/* Was it @value at any time from @since on? */
bool history_had(const struct history *h, uint64_t value, uint64_t since);

static inline bool is_untold(const struct world *w, int page, int word)
{
	return w->untold == page && w->untold_word == word;
}

static inline uint64_t tick(struct world *w)
{
	return atomic64_inc_return(&w->now);
}

/* An entry of the guest's, of numbers: what it names, and EDIT_* flags. */
#define EDIT_P	       1
#define EDIT_W	       2
#define EDIT_U	       4
#define EDIT_A	       8
#define EDIT_D	       16
#define EDIT_PS	       32
#define EDIT_G	       64
#define EDIT_XD	       128
#define EDIT_RESERVED  256 /* an address that the CPU does not have */
#define EDIT_KEY_SHIFT 9
uint64_t entry_of(int to, int flags);

#endif
