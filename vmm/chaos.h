/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Chaos: threads that move guest memory while the guest runs. They use the host mm's public calls
 * only, so whatever they do is what any owner of memory may do at any time.
 *
 * One thread per kind. Its choices are a stream of their own, derived from the seed and the kind:
 * adding a kind does not change what another one does. (When it does it is up to the scheduler:
 * the same seed gives the same mutations, not the same run.)
 */
#ifndef VMM_CHAOS_H
#define VMM_CHAOS_H

#include <gnomon/mm.h>
#include <gnomon/mmu_notifier.h>
#include <gnomon/types.h>

#include "notifier/sync/atomic.h"
#include "notifier/sync/thread.h"

enum chaos_kind_id { CHAOS_MIGRATE, CHAOS_UNMAP, NR_CHAOS_KINDS };

#define CHAOS_MAX_RATE	(1000 * 1000) /* operations per second */
#define CHAOS_MAX_PAGES 8	      /* of one operation */

/* Operations per second of each kind; 0 is off. */
struct chaos_plan {
	unsigned int rate[NR_CHAOS_KINDS];
};

/* What to strike, and which guest frames to leave alone. */
struct chaos_target {
	struct mm_struct *mm;
	struct address_space *ram; /* mapped at @hva from its page 0 on */
	hva_t hva;
	uint64_t nr_pages;
	struct chaos_spared {
		gfn_t start, end; /* end exclusive */
	} spared[4];
	unsigned int nr_spared;
};

struct chaos_counts {
	uint64_t ops;
	uint64_t refused; /* operations that found nothing to do, a busy page or no free frame */
	uint64_t pages_migrated;
	uint64_t pages_unmapped;
};

/* One thread. Counters are written by it alone and read by anyone. */
struct chaos_worker {
	struct chaos *chaos;
	const struct chaos_kind *kind;
	unsigned int rate;
	uint64_t rng;
	uint64_t turn; /* operations begun */
	struct kthread thread;
	bool started;
	atomic64_t ops, refused, pages_migrated, pages_unmapped;
};

struct chaos_kind {
	const char *name;
	const char *help;
	enum mmu_notifier_event event; /* what notifiers are told */
	unsigned int default_rate;
	void (*op)(struct chaos_worker *worker, const struct chaos_target *target);
};

extern const struct chaos_kind chaos_kinds[NR_CHAOS_KINDS];

/* Start the threads of @plan. 0, or -errno with nothing running. @target is copied. */
int chaos_start(struct chaos **chaosp, const struct chaos_target *target,
		const struct chaos_plan *plan, uint64_t seed);

/* Stop and join them all. Counters stay readable. */
void chaos_stop(struct chaos *chaos);

void chaos_get_counts(const struct chaos *chaos, enum chaos_kind_id kind,
		      struct chaos_counts *counts);

void chaos_destroy(struct chaos *chaos); /* after chaos_stop; NULL is fine */

/* For the kinds' own files (chaos_<kind>.c). */
uint64_t chaos_random(struct chaos_worker *worker, uint64_t below);

/*
 * A run of 1..@max pages that touches nothing spared: its first guest frame and *@nr_pages. False
 * when a few tries found none.
 */
bool chaos_pick(struct chaos_worker *worker, const struct chaos_target *target, unsigned int max,
		gfn_t *gfn, unsigned int *nr_pages);

void chaos_migrate(struct chaos_worker *worker, const struct chaos_target *target);
void chaos_unmap(struct chaos_worker *worker, const struct chaos_target *target);

#endif
