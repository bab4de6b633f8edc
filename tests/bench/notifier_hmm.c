/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hmm_range_fault() by the page: a snapshot of what is there, against the walk over the same
 * entries that writes the same answers; and with all pages wanted and none there, against the
 * faults alone.
 */
#include <errno.h>
#include <stdlib.h>

#include <gnomon/hmm.h>

#include "notifier/mm_internal.h"
#include "notifier/pgtable.h"
#include "tests/bench/notifier.h"

#define AREA_BYTES (NOTIFIER_HMM_PAGES * PAGE_SIZE)

static struct notifier_host host;
static struct mmu_interval_notifier interval;
static uint64_t pfns[NOTIFIER_HMM_PAGES];
static uint64_t range_bytes;

static bool set_seq_only(struct mmu_interval_notifier *sub, const struct mmu_notifier_range *range,
			 unsigned long seq)
{
	(void)range;
	mmu_interval_set_seq(sub, seq);
	return true;
}

static const struct mmu_interval_notifier_ops ops = {.invalidate = set_seq_only};

/* ---- what is done with the range at @start ---- */

/* A failure would be measured as something cheap: so there is none. */
static void must(int ret)
{
	if (ret)
		abort();
}

/* The number is of no read_begin, which is measured elsewhere: no window is open, by our own doing.
 */
static void range_fault(hva_t start, uint64_t flags)
{
	struct hmm_range range = {
		.notifier = &interval,
		.notifier_seq = interval.invalidate_seq,
		.start = start,
		.end = start + range_bytes,
		.hmm_pfns = pfns,
		.default_flags = flags,
	};

	must(hmm_range_fault(&range));
}

static void snapshot(hva_t start)
{
	range_fault(start, 0);
}

static void fault_in(hva_t start)
{
	range_fault(start, HMM_PFN_REQ_FAULT);
}

static int note(pte_t *ptep, hva_t hva, void *start)
{
	pte_t pte = pte_load(ptep);

	if (!pte_present(pte))
		return -ENOENT;
	pfns[(hva - *(const hva_t *)start) >> PAGE_SHIFT] =
		pte_pfn(pte) | HMM_PFN_VALID | (pte & PTE_WRITE ? HMM_PFN_WRITE : 0);
	return 0;
}

static void walk(hva_t start)
{
	must(pgtable_walk(host.mm->pgtable, start, start + range_bytes, note, &start));
}

static void faults(hva_t start)
{
	struct vm_area_struct *vma = find_vma(host.mm, start);

	for (hva_t hva = start; hva < start + range_bytes; hva += PAGE_SIZE)
		must(handle_mm_fault(vma, hva, false));
}

/* ---- by the page, with mmap_lock taken once ---- */

/* The same range over and over. */
static void same_range(void (*op)(hva_t start), uint64_t n)
{
	for (uint64_t done = 0; done < n; done += range_bytes >> PAGE_SHIFT)
		op(NOTIFIER_HVA);
}

/* One behind the other. */
static void each_range(void (*op)(hva_t start), uint64_t n)
{
	hva_t end = NOTIFIER_HVA + (n << PAGE_SHIFT);

	for (hva_t start = NOTIFIER_HVA; start < end; start += range_bytes)
		op(start);
}

static void timed(void (*loop)(void (*op)(hva_t start), uint64_t n), void (*op)(hva_t start),
		  uint64_t n, struct bench_sample *s)
{
	struct bench_timer timer;

	bench_pin(0);
	mmap_read_lock(host.mm);
	bench_start(&timer, CLOCK_THREAD_CPUTIME_ID);
	loop(op, n);
	bench_stop(&timer, s);
	mmap_read_unlock(host.mm);
	bench_unpin();
}

int notifier_hmm_setup(const struct bench *b)
{
	int ret = phys_create(&host.phys, 2 * NOTIFIER_HMM_PAGES);

	if (ret)
		return ret;
	host.mm = mm_alloc(host.phys);
	ret = host.mm ? mm_mmap(host.mm, NOTIFIER_HVA, AREA_BYTES, MM_PROT_READ | MM_PROT_WRITE,
				NULL, 0)
		      : -ENOMEM;
	if (!ret)
		ret = mmu_interval_notifier_insert(&interval, host.mm, NOTIFIER_HVA, AREA_BYTES,
						   &ops);
	if (ret) {
		notifier_host_destroy(&host);
		return ret;
	}
	/* The frames, and the tables, are touched for the first time here. */
	range_bytes = AREA_BYTES;
	mmap_read_lock(host.mm);
	faults(NOTIFIER_HVA);
	mmap_read_unlock(host.mm);
	range_bytes = ((const struct notifier_case *)b->arg)->nr * PAGE_SIZE;
	return 0;
}

void notifier_hmm_teardown(const struct bench *b)
{
	(void)b;
	mmu_interval_notifier_remove(&interval);
	notifier_host_destroy(&host);
}

int notifier_snapshot_sample(const struct bench *b, const struct bench_variant *v, uint64_t n,
			     struct bench_sample *s)
{
	const struct notifier_hmm_op *op = v->arg;

	(void)b;
	timed(same_range, op->op, n, s);
	return 0;
}

int notifier_fault_sample(const struct bench *b, const struct bench_variant *v, uint64_t n,
			  struct bench_sample *s)
{
	const struct notifier_hmm_op *op = v->arg;

	(void)b;
	if (mm_zap_range(host.mm, NOTIFIER_HVA, AREA_BYTES) < 0)
		return -EINVAL;
	timed(each_range, op->op, n, s);
	return 0;
}

const struct notifier_hmm_op notifier_snapshot = {snapshot};
const struct notifier_hmm_op notifier_pgtable_walk = {walk};
const struct notifier_hmm_op notifier_fault_in = {fault_in};
const struct notifier_hmm_op notifier_mm_faults = {faults};
