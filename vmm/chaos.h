/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Chaos: threads that move guest memory while the guest runs. They use the host mm's public calls
 * only, so whatever they do is what any owner of memory may do at any time.
 *
 * One thread per kind, with a generator of its own, seeded by the run's seed and the kind's name.
 * All choices of an operation are drawn before it begins, whatever comes of it: so the n-th choices
 * of a kind depend on the seed alone, not on the other kinds, nor on what the guest does meanwhile.
 * chaos_counts.digest shows that. (When an operation happens is up to the scheduler: the same seed
 * gives the same mutations, not the same run.)
 *
 * What an operation takes from the guest for a while is a hole or a hoard (holes.h), and it gives
 * it back whatever happens; a stop only makes it do so sooner.
 */
#ifndef VMM_CHAOS_H
#define VMM_CHAOS_H

#include <gnomon/mm.h>
#include <gnomon/types.h>

#include "notifier/sync/atomic.h"
#include "notifier/sync/thread.h"
#include "vmm/holes.h"

enum chaos_kind_id {
	CHAOS_MIGRATE,
	CHAOS_UNMAP,
	CHAOS_PROTECT,
	CHAOS_FORK,
	CHAOS_MERGE,
	CHAOS_SWAP,
	CHAOS_REMAP,
	CHAOS_AGE,
	CHAOS_BALLOON,
	CHAOS_REGISTER,
	NR_CHAOS_KINDS
};

#define CHAOS_MAX_RATE	 (1000 * 1000) /* operations per second */
#define CHAOS_MAX_PAGES	 8	       /* of one operation */
#define CHAOS_DIGEST_OPS 100	       /* operations whose choices are in the digest */
#define CHAOS_AWAY_PAGES 1024	       /* of address space, for what is moved away */

/* What to strike, and which guest frames to leave alone. */
struct chaos_target {
	struct mm_struct *mm;
	struct address_space *ram; /* mapped at @hva from its page 0 on; NULL: RAM is private */
	hva_t hva;
	uint64_t nr_pages;
	hva_t away; /* CHAOS_AWAY_PAGES where nothing is */
	struct holes *holes;
	struct ksm *ksm;       /* of the machine; NULL only if RAM is shared */
	uint64_t spare_frames; /* that a balloon leaves in the pool */
	bool swap;	       /* the machine has a swap file */
	struct chaos_spared {
		gfn_t start, end; /* end exclusive */
	} spared[4];
	unsigned int nr_spared;
};

/* The choices of one operation. */
struct chaos_draw {
	gfn_t gfn; /* pages [gfn, gfn + nr_pages), nothing spared among them; nr_pages 0: none found
		    */
	unsigned int nr_pages;
	uint64_t bits; /* for all other choices of the kind's */
};

struct chaos_counts {
	uint64_t ops;
	uint64_t refused; /* operations that found nothing to do, a busy page or no free frame */
	uint64_t pages;	  /* what was done to, as each kind counts it (docs/stats.md) */
	uint64_t pages_migrated;  /* to another frame */
	uint64_t pages_disturbed; /* changed while nobody could have written to them */
	uint64_t digest;	  /* of the choices of the first operations ... */
	uint64_t draws;		  /* ... so many: CHAOS_DIGEST_OPS, or all that there were */
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
	atomic64_t ops, refused, pages, pages_migrated, pages_disturbed, digest, draws;
};

/* What a kind needs to do any good, or not to do harm. */
#define CHAOS_NEEDS_PRIVATE (1u << 0) /* shared pages are not copied */
#define CHAOS_NEEDS_KEEPER  (1u << 1) /* shared RAM, or swap: or pages would be lost */
#define CHAOS_NEEDS_SWAP    (1u << 2)

struct chaos_kind {
	const char *name;
	const char *help;
	unsigned int needs;
	bool by_name_only; /* `all` leaves it out */
	unsigned int default_rate;
	void (*op)(struct chaos_worker *worker, const struct chaos_target *target,
		   const struct chaos_draw *draw);
};

extern const struct chaos_kind chaos_kinds[NR_CHAOS_KINDS];

/* Operations per second of each kind; 0 is off. */
struct chaos_plan {
	unsigned int rate[NR_CHAOS_KINDS];
	bool named[NR_CHAOS_KINDS]; /* asked for by its name, not as one of all */
};

/* What RAM is, as far as kinds care. */
struct chaos_memory {
	bool private_ram;
	bool swap; /* there is a swap file */
};

bool chaos_kind_fits(enum chaos_kind_id kind, const struct chaos_memory *memory);

/*
 * Take out what does not go with such RAM. -EINVAL with one line in @why (vmm/why.h) if that was
 * asked for by name.
 */
int chaos_plan_fit(struct chaos_plan *plan, const struct chaos_memory *memory, char *why,
		   size_t why_len);

/* Start the threads of @plan, which fits @target's RAM. 0, or -errno with nothing running. @target
 * is copied. */
int chaos_start(struct chaos **chaosp, const struct chaos_target *target,
		const struct chaos_plan *plan, uint64_t seed);

/* Stop and join them all. Counters stay readable. */
void chaos_stop(struct chaos *chaos);

/* While the threads run, a racy snapshot. */
void chaos_get_counts(const struct chaos *chaos, enum chaos_kind_id kind,
		      struct chaos_counts *counts);

void chaos_destroy(struct chaos *chaos); /* after chaos_stop; NULL is fine */

/* ---- for the kinds' own files (chaos_<kind>.c) ---- */

/* Seeds @worker's generator; draws the choices of the next operation and adds them to the digest.
 */
void chaos_seed(struct chaos_worker *worker, const char *kind_name, uint64_t seed);
void chaos_draw(struct chaos_worker *worker, const struct chaos_target *target,
		struct chaos_draw *draw);

/* The operation came to nothing. */
void chaos_refuse(struct chaos_worker *worker);

/*
 * Leave things as they are for @ms milliseconds, or until chaos stops. With @give_back, which is
 * for who hoards, also only until somebody wants memory.
 */
void chaos_hold(struct chaos_worker *worker, unsigned int ms, bool give_back);

static inline hva_t chaos_draw_hva(const struct chaos_target *target, const struct chaos_draw *draw)
{
	return target->hva + (draw->gfn << PAGE_SHIFT);
}

static inline uint64_t chaos_draw_len(const struct chaos_draw *draw)
{
	return (uint64_t)draw->nr_pages << PAGE_SHIFT;
}

/*
 * What pages are, and whether they still are: for pages that nobody can write to in between. (But
 * for the accessed and dirty bits of the guest's page tables. They are set by the host, which may
 * have begun to do so while it still could.) A page that cannot be read is passed by.
 */
struct chaos_sums {
	unsigned int nr;
	bool valid[CHAOS_MAX_PAGES];
	uint64_t sum[CHAOS_MAX_PAGES];
};

void chaos_sum_pages(struct chaos_sums *sums, struct mm_struct *mm, hva_t hva, unsigned int nr);
void chaos_check_sums(struct chaos_worker *worker, const struct chaos_sums *sums,
		      struct mm_struct *mm, hva_t hva);

/* chaos_swap.c: page the run out; how many of its pages are gone. */
unsigned int chaos_page_out(const struct chaos_target *target, const struct chaos_draw *draw);

void chaos_migrate(struct chaos_worker *worker, const struct chaos_target *target,
		   const struct chaos_draw *draw);
void chaos_unmap(struct chaos_worker *worker, const struct chaos_target *target,
		 const struct chaos_draw *draw);
void chaos_protect(struct chaos_worker *worker, const struct chaos_target *target,
		   const struct chaos_draw *draw);
void chaos_fork(struct chaos_worker *worker, const struct chaos_target *target,
		const struct chaos_draw *draw);
void chaos_merge(struct chaos_worker *worker, const struct chaos_target *target,
		 const struct chaos_draw *draw);
void chaos_swap(struct chaos_worker *worker, const struct chaos_target *target,
		const struct chaos_draw *draw);
void chaos_remap(struct chaos_worker *worker, const struct chaos_target *target,
		 const struct chaos_draw *draw);
void chaos_age(struct chaos_worker *worker, const struct chaos_target *target,
	       const struct chaos_draw *draw);
void chaos_balloon(struct chaos_worker *worker, const struct chaos_target *target,
		   const struct chaos_draw *draw);
void chaos_register(struct chaos_worker *worker, const struct chaos_target *target,
		    const struct chaos_draw *draw);

#endif
