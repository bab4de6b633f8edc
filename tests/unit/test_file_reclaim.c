// SPDX-License-Identifier: LGPL-2.1-or-later
/* Pages of files when memory is short: they go without a swap file, to the file if it needs them.
 */
#include "tests/support/file_fixture.h"
#include "tests/support/swap_fixture.h"

#define NR_PAGES 8

static bool in_cache(struct file_rig *rig, uint64_t n)
{
	return address_space_peek(rig->mapping, n) != INVALID_PFN;
}

TEST(file_reclaim, a_clean_page_just_goes)
{
	struct file_rig rig = file_rig_init(NR_PAGES, 32);
	struct counting_notifier cn = {0};
	pfn_t pfn;

	counting_register(&cn, rig.mm);
	for (uint64_t i = 0; i < 2; i++) {
		expect_eq(test_read(rig.mm, file_page(0)), file_word(0));
		pfn = mm_lookup_pfn(rig.mm, file_page(0));
		expect(page_goes_out(rig.mm, file_page(0)));
		expect(test_page_is(rig.phys, pfn, PHYS_POISON));
		expect(!in_cache(&rig, 0));
		expect_eq(atomic64_read(&cn.starts[MMU_NOTIFY_CLEAR]), i + 1);
		expect_eq(cn.start, file_page(0));
		expect_eq(cn.end, file_page(1));
	}
	expect_eq(atomic_read(&file_calls.writes), 0);
	expect_eq(atomic_read(&file_calls.reads), 2);
	counting_expect_paired(&cn);
	mmu_notifier_unregister(&cn.mn, rig.mm);
	file_rig_done(&rig);
}

TEST(file_reclaim, a_dirty_page_goes_to_the_file)
{
	struct file_rig rig = file_rig_init(NR_PAGES, 32);

	test_write(rig.mm, file_page(0) + 8, 5);
	expect(page_goes_out(rig.mm, file_page(0)));
	expect_eq(test_file_read(rig.fd, 8), 5);
	expect_eq(test_read(rig.mm, file_page(0) + 8), 5);
	expect_eq(test_read(rig.mm, file_page(0)), file_word(0));
	/* Clean now: not written again. */
	expect(page_goes_out(rig.mm, file_page(0)));
	expect_eq(atomic_read(&file_calls.writes), 1);
	file_rig_done(&rig);
}

TEST(file_reclaim, a_page_that_cannot_be_written_stays)
{
	struct file_rig rig = file_rig_init(NR_PAGES, 32);

	test_write(rig.mm, file_page(0), 5);
	atomic_set(&file_calls.write_errno, ENOSPC);
	expect(!page_goes_out(rig.mm, file_page(0)));
	expect(in_cache(&rig, 0));
	expect_eq(test_read(rig.mm, file_page(0)), 5);
	atomic_set(&file_calls.write_errno, 0);
	expect(page_goes_out(rig.mm, file_page(0)));
	expect_eq(test_file_read(rig.fd, 0), 5);
	file_rig_done(&rig);
}

/* Somebody reads it: it keeps its place, so that there is one of it. */
TEST(file_reclaim, a_page_that_is_read_stays)
{
	struct file_rig rig = file_rig_init(NR_PAGES, 32);
	pfn_t pfn;

	expect_eq(mm_pin_page(rig.mm, file_page(0), false, &pfn), 0);
	expect(!page_goes_out(rig.mm, file_page(0)));
	expect_eq(address_space_peek(rig.mapping, 0), pfn);
	expect_eq(refs_of(rig.phys, pfn), 2); /* the slot's, and the reader's */
	mm_unpin_page(rig.mm, pfn, false);
	expect_eq(test_read(rig.mm, file_page(0)), file_word(0));
	expect_eq(mm_lookup_pfn(rig.mm, file_page(0)), pfn);
	expect(page_goes_out(rig.mm, file_page(0)));
	file_rig_done(&rig);
}

TEST(file_reclaim, a_write_that_begins_in_the_window)
{
	struct file_rig rig = file_rig_init(NR_PAGES, 32);
	struct late_write late = {.phys = rig.phys};
	struct counting_notifier cn = {.on_start = begin_write, .arg = &late};
	uint64_t *word;

	test_write(rig.mm, file_page(0), 5);
	counting_register(&cn, rig.mm);
	expect(!page_goes_out(rig.mm, file_page(0)));
	cn.on_start = NULL;
	word = phys_map(rig.phys, late.pfn);
	WRITE_ONCE(*word, 6);
	frame_unpin(rig.phys, late.pfn);
	expect_eq(test_read(rig.mm, file_page(0)), 6);
	expect(page_goes_out(rig.mm, file_page(0)));
	expect_eq(test_file_read(rig.fd, 0), 6);
	mmu_notifier_unregister(&cn.mn, rig.mm);
	file_rig_done(&rig);
}

/* A file that is larger than memory, read and written, with no swap file. */
TEST(file_reclaim, more_pages_than_frames)
{
	struct file_rig rig = file_rig_init(64, 8);

	for (uint64_t round = 0; round < 3; round++) {
		for (uint64_t n = 0; n < 64; n++) {
			expect_eq(test_read(rig.mm, file_page(n)), file_word(n) + round);
			test_write(rig.mm, file_page(n), file_word(n) + round + 1);
		}
	}
	expect_ge(atomic_read(&file_calls.writes), 2 * (64 - 8));
	mmput(rig.mm);
	address_space_put(rig.mapping);
	test_phys_done(rig.phys);
	for (uint64_t n = 0; n < 64; n++)
		expect_eq(test_file_read(rig.fd, n * PAGE_SIZE), file_word(n) + 3);
	close(rig.fd);
}
