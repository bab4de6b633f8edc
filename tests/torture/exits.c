/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Exit against unregister (I5), again and again: address spaces that live for a moment, with
 * subscribers that one thread unregisters while another drops the last user.
 *
 * Oracle: at the first ->release of a subscriber, whoever calls it, the pages are still mapped; no
 * subscriber goes without a release; unregister returns with its memory ours; and every frame comes
 * back.
 */
#include <sched.h>
#include <string.h>

#include "notifier/sync/alloc.h"
#include "notifier/sync/bug.h"
#include "tests/torture/torture.h"

#define NR_LEAVING 3
#define EXIT_PAGES 4
#define EXIT_HVA   0x7000000000UL

struct leaving {
	struct mmu_notifier mn;
	atomic_t releases, running;
	unsigned int dawdle; /* in the first ->release: the other side catches up */
	struct torture *t;
};

struct round {
	struct mm_struct *mm;
	atomic_t ready; /* both threads meet here, so that they run into each other */
	unsigned int skew;
	struct leaving *leaving[NR_LEAVING];
};

static void leaving_release(struct mmu_notifier *mn, struct mm_struct *mm)
{
	struct leaving *l = container_of(mn, struct leaving, mn);

	atomic_inc(&l->running);
	if (atomic_inc_return(&l->releases) > 1) {
		atomic64_inc(&l->t->exit_overlapped);
	} else {
		for (unsigned int i = 0; i < l->dawdle; i++)
			sched_yield();
		for (int i = 0; i < EXIT_PAGES; i++) {
			if (mm_lookup_pfn(mm, EXIT_HVA + i * PAGE_SIZE) == INVALID_PFN)
				torture_fail("a page was gone before ->release");
		}
	}
	atomic_dec(&l->running);
}

static const struct mmu_notifier_ops leaving_ops = {.release = leaving_release};

static void round_begin(struct torture *t, struct rng *rng, struct round *r)
{
	r->mm = mm_alloc(t->g.phys);
	ASSERT(r->mm, "out of memory");
	ASSERT(!mm_mmap(r->mm, EXIT_HVA, EXIT_PAGES * PAGE_SIZE, MM_PROT_READ | MM_PROT_WRITE, NULL,
			0),
	       "private memory");
	for (uint64_t i = 0; i < EXIT_PAGES; i++)
		ASSERT(!mm_write(r->mm, EXIT_HVA + i * PAGE_SIZE, &i, sizeof(i)), "a page");
	for (int i = 0; i < NR_LEAVING; i++) {
		r->leaving[i] = kzalloc(sizeof(*r->leaving[i]), GFP_KERNEL);
		ASSERT(r->leaving[i], "out of memory");
		r->leaving[i]->mn.ops = &leaving_ops;
		r->leaving[i]->t = t;
		r->leaving[i]->dawdle = rng_below(rng, 16);
		ASSERT(!mmu_notifier_register(&r->leaving[i]->mn, r->mm), "room for a notifier");
	}
}

static void unregister_all(struct round *r)
{
	for (int i = 0; i < NR_LEAVING; i++) {
		struct leaving *l = r->leaving[i];
		int releases;

		mmu_notifier_unregister(&l->mn, r->mm);
		releases = atomic_read(&l->releases);
		if (atomic_read(&l->running) || releases < 1 || releases > 2)
			torture_fail("exit: %d releases, %d of them running", releases,
				     atomic_read(&l->running));
		memset(l, 0xa5, sizeof(*l));
		kfree(l);
	}
}

static void meet(struct round *r, unsigned int yields)
{
	atomic_inc(&r->ready);
	while (atomic_read(&r->ready) < 2)
		sched_yield();
	while (yields--)
		sched_yield();
}

static void unregister_thread(void *arg)
{
	struct round *r = arg;

	meet(r, r->skew % 4);
	unregister_all(r);
}

void exit_thread(void *arg)
{
	struct torture_thread *thread = arg;
	struct torture *t = thread->t;
	uint64_t seen = 0;
	struct rng rng;

	rng_init(&rng, t->opt.seed, 600);
	while (torture_phase(t) != PHASE_STOP) {
		struct kthread partner;
		struct round r = {.skew = rng_next(&rng)};

		/* A few for each thousand mutations: a new thread for each round is dear. */
		while (torture_phase(t) != PHASE_STOP &&
		       (uint64_t)atomic64_read(&t->progress) < seen + 100)
			torture_wait_progress(t, atomic64_read(&t->progress));
		seen = atomic64_read(&t->progress);

		round_begin(t, &rng, &r);
		ASSERT(!kthread_run(&partner, "leave", unregister_thread, &r), "a thread");
		meet(&r, r.skew / 4 % 4);
		mmput(r.mm);
		kthread_join(&partner);
		atomic64_inc(&t->exits);
	}
}
