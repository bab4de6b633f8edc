/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Merging with an allocator that fails, at each allocation in turn: an error or a page that is not
 * merged this time, and nothing lost or left behind.
 */
#include <errno.h>

#include "tests/support/fail_alloc.h"
#include "tests/support/ksm_fixture.h"
#include "tests/support/test.h"

static void expect_contents(struct mm_struct *mm)
{
	for (uint64_t n = 0; n < 6; n++)
		expect_page(mm, n, n / 3);
}

static int ok_or_enomem(long ret)
{
	expect(ret >= 0 || ret == -ENOMEM);
	return ret < 0;
}

/* Advice, rounds, a fork, and back. Returns how many calls failed. */
static int work(struct host *h, struct mm_struct *mm[2])
{
	struct mm_struct *child = NULL;
	int failed = 0;

	for (int i = 0; i < 2; i++)
		failed += ok_or_enomem(mm_madvise(mm[i], area_page(0), 6 * P, MM_MADV_MERGEABLE));
	for (int round = 0; round < 3; round++)
		failed += ok_or_enomem(scan_round(h));
	failed += ok_or_enomem(mm_fork(mm[0], &child));
	if (child) {
		expect_contents(child);
		fill_page(child, 1, 7);
		failed += ok_or_enomem(scan_round(h));
		expect_page(child, 1, 7);
		mmput(child);
	}
	failed += ok_or_enomem(mm_madvise(mm[0], area_page(1), 2 * P, MM_MADV_UNMERGEABLE));
	failed += ok_or_enomem(scan_round(h));
	return failed;
}

TEST(ksm_fail, each_allocation)
{
	int64_t site = 0;
	int nr_failed = 0;
	bool reached = true;

	for (; reached; site++) {
		struct mm_struct *mm[2];
		struct host h;
		int64_t live;
		int failed;

		/* What the library keeps for good is there by then. */
		mmput(test_mm(h.phys = test_phys(64)));
		test_phys_done(h.phys);
		live = atomic64_read(&allocs.live);
		host_init(&h, 64);
		for (int i = 0; i < 2; i++) {
			mm[i] = test_mm(h.phys);
			expect_eq(mm_mmap(mm[i], area_page(0), 6 * P, RW, NULL, 0), 0);
			for (uint64_t n = 0; n < 6; n++)
				fill_page(mm[i], n, n / 3);
		}
		alloc_fail_at(site);
		failed = work(&h, mm);
		reached = alloc_failed();
		expect_le(failed, reached); /* a scan that saved something says that instead */
		nr_failed += failed;
		expect_contents(mm[0]);
		expect_contents(mm[1]);
		for (int i = 0; i < 2; i++)
			expect_eq(mm_madvise(mm[i], area_page(0), 6 * P, MM_MADV_MERGEABLE), 0);
		scan_settled(&h);
		expect_eq(scan_round(&h), 0);
		expect_shared(&h, 2, 10);
		expect_contents(mm[0]);
		expect_contents(mm[1]);
		mmput(mm[0]);
		mmput(mm[1]);
		host_done(&h);
		expect_eq(atomic64_read(&allocs.live), live);
	}
	expect_ge(site, 20);
	expect_ge(nr_failed, 20);
}

TEST(ksm_fail, a_scanner)
{
	struct phys *phys = test_phys(4);

	alloc_fail_at(0);
	expect(!ksm_create(phys));
	expect(alloc_failed());
	test_phys_done(phys);
}
