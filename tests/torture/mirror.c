/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A second client of the notifiers, as small as one can be: a device that keeps a frame number for
 * each page and uses it with no further ado. It shares nothing with the shadow MMU, so what it
 * finds wrong is the host's fault (or the notifier core's).
 *
 * Protocol: the device accesses memory only under its mutex, through entries that it installed
 * under that mutex after its own sequence check; start takes the mutex and drops the entries of the
 * range. So under the mutex an entry must agree with the host's page table, at any moment.
 */
#include <sched.h>

#include "notifier/sync/bug.h"
#include "notifier/sync/lock.h"
#include "tests/torture/torture.h"

static struct {
	struct mmu_notifier mn;
	struct torture *t;
	struct mutex lock; /* all that follows */
	pfn_t pfn[DATA_PAGES];
	uint64_t count[DATA_PAGES];
	uint64_t seq;
	unsigned int in_progress[DATA_PAGES]; /* windows open over that page */
	uint64_t starts, ends;
} mirror;

static void clip(const struct mmu_notifier_range *range, uint64_t *first, uint64_t *end)
{
	*first = (range->start - GUEST_MEM_HVA) >> PAGE_SHIFT;
	*end = (range->end - GUEST_MEM_HVA) >> PAGE_SHIFT;
	if (*end > DATA_PAGES)
		*end = DATA_PAGES;
}

static int mirror_start(struct mmu_notifier *mn, const struct mmu_notifier_range *range)
{
	uint64_t page, end;

	(void)mn;
	clip(range, &page, &end);
	mutex_lock(&mirror.lock);
	for (; page < end; page++) {
		mirror.in_progress[page]++;
		mirror.pfn[page] = INVALID_PFN;
	}
	mirror.starts++;
	mutex_unlock(&mirror.lock);
	return 0;
}

static void mirror_end(struct mmu_notifier *mn, const struct mmu_notifier_range *range)
{
	uint64_t page, end;

	(void)mn;
	clip(range, &page, &end);
	mutex_lock(&mirror.lock);
	mirror.seq++;
	for (; page < end; page++) {
		if (!mirror.in_progress[page]--)
			torture_fail("mirror: an end without its start, page %lu", page);
	}
	mirror.ends++;
	mutex_unlock(&mirror.lock);
}

static const struct mmu_notifier_ops mirror_ops = {
	.invalidate_range_start = mirror_start,
	.invalidate_range_end = mirror_end,
};

void mirror_register(struct torture *t)
{
	mirror.t = t;
	mirror.mn.ops = &mirror_ops;
	mutex_init(&mirror.lock);
	for (uint64_t page = 0; page < DATA_PAGES; page++)
		mirror.pfn[page] = INVALID_PFN;
	ASSERT(!mmu_notifier_register(&mirror.mn, t->g.mm), "room for a notifier");
}

/* Mutex held: check and advance the device's word of @page, in the frame that the mirror has. */
static void use(uint64_t page)
{
	pfn_t pfn = mirror.pfn[page];
	pfn_t host = mm_lookup_pfn(mirror.t->g.mm, guest_hva(page << PAGE_SHIFT));
	uint64_t *word, value;

	if (host != pfn)
		torture_fail("mirror: page %lu is frame 0x%lx, but 0x%lx to the host", page, pfn,
			     host);
	word = (uint64_t *)((char *)phys_map(mirror.t->g.phys, pfn) + WORD_OFFSET(WORD_MIRROR));
	value = __atomic_load_n(word, __ATOMIC_RELAXED);
	if (stamp_count(value, page, WORD_MIRROR, "mirror") != mirror.count[page])
		torture_fail("mirror: page %lu has stamp 0x%lx, not number %lu", page, value,
			     mirror.count[page]);
	__atomic_store_n(word, stamp(page, WORD_MIRROR, ++mirror.count[page]), __ATOMIC_RELAXED);
	atomic64_inc(&mirror.t->mirror_accesses);
}

static void access_page(uint64_t page)
{
	for (;;) {
		bool installed, writable;
		uint64_t seq;
		pfn_t pfn;

		mutex_lock(&mirror.lock);
		if (mirror.pfn[page] != INVALID_PFN) {
			use(page);
			mutex_unlock(&mirror.lock);
			return;
		}
		seq = mirror.seq;
		mutex_unlock(&mirror.lock);

		if (hva_to_pfn(mirror.t->g.mm, guest_hva(page << PAGE_SHIFT), true, &pfn,
			       &writable))
			torture_fail("mirror: hva_to_pfn failed");
		if (!writable)
			torture_fail("mirror: page %lu is not writable", page);
		atomic64_inc(&mirror.t->mirror_faults);

		mutex_lock(&mirror.lock);
		installed = !mirror.in_progress[page] && mirror.seq == seq;
		if (installed)
			mirror.pfn[page] = pfn;
		mutex_unlock(&mirror.lock);
		if (!installed) {
			atomic64_inc(&mirror.t->mirror_retries);
			sched_yield(); /* to whoever holds the window open */
		}
	}
}

void mirror_thread(void *arg)
{
	struct torture_thread *thread = arg;
	struct torture *t = thread->t;
	uint64_t seen = 0;
	struct rng rng;

	rng_init(&rng, t->opt.seed, 500);
	while (torture_phase(t) != PHASE_STOP) {
		seen = torture_wait_progress(t, seen);
		for (int i = 0; i < 16; i++)
			access_page(rng_below(&rng, DATA_PAGES));
	}
	for (uint64_t page = 0; page < DATA_PAGES; page++)
		access_page(page);
}

void mirror_check(struct torture *t)
{
	(void)t;
	if (mirror.starts != mirror.ends)
		torture_fail("mirror: %lu starts, %lu ends", mirror.starts, mirror.ends);
	if (mirror.starts != (uint64_t)atomic64_read(&permanent_first.starts))
		torture_fail("mirror: %lu starts of %lu", mirror.starts,
			     atomic64_read(&permanent_first.starts));
}

void mirror_unregister(struct torture *t)
{
	mmu_notifier_unregister(&mirror.mn, t->g.mm);
}
