/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the shadow MMU remembers of a page that it maps, in bytes, beside the tables themselves.
 */
#include "shadow/shadow_internal.h"
#include "tests/model/guest_mem.h"
#include "tests/support/count_alloc.h"
#include "tests/support/test.h"

/* Pages [0, @end), each @step of them, host memory and guest tables being there already. */
static double bytes_per_page(uint64_t end, uint64_t step)
{
	struct guest_mem_config config = {.nr_pages = end + 256};
	struct shadow_fault fault;
	struct guest_mem g;
	int64_t before, after;
	uint64_t nr = 0;

	guest_mem_create(&g, &config);
	for (uint64_t i = 0; i < end; i += step)
		guest_write(&g, i << PAGE_SHIFT, i);
	before = count_alloc_bytes();
	for (uint64_t i = 0; i < end; i += step, nr++)
		expect_eq(guest_fault(&g, 0, i << PAGE_SHIFT, PFERR_WRITE, &fault), RET_PF_FIXED);
	after = count_alloc_bytes();
	expect_eq(shadow_audit(g.shadow, NULL, 0), 0);
	guest_mem_destroy(&g);
	return (double)(after - before) / (double)nr;
}

TEST(shadow_memory, at_most_24_bytes_for_a_page)
{
	double dense = bytes_per_page(8192, 1);

	/* A head and a gfn, of 8 bytes each, are the least that the structure can do with. */
	expect_ge(dense, 16);
	expect_le(dense, 24);
}

/* The worst that a guest can do, a page in each 2 MiB: a table of gfns and a page of heads. */
TEST(shadow_memory, less_than_three_for_a_page_in_each_2m)
{
	expect_le(bytes_per_page(16384, 512), 2.5 * PAGE_SIZE);
}
