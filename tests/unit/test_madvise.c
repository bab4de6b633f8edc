// SPDX-License-Identifier: LGPL-2.1-or-later
/* From area to area: which are advised, and what an error or a hole does. */
#include <errno.h>

#include "tests/support/areas.h"
#include "tests/support/asleep.h"

#define P PAGE_SIZE

TEST(madvise, dontneed_area_by_area)
{
	struct phys *phys = test_phys(32);
	struct mm_struct *mm = test_mm(phys);
	struct address_space *mapping = test_mapping(phys, 4);
	struct counting_notifier cn = {0};

	expect_eq(mm_mmap(mm, area_page(0), 4 * P, RW, NULL, 0), 0);
	expect_eq(mm_mmap(mm, area_page(4), 4 * P, RW, mapping, 0), 0);
	stamp_pages(mm, 0, 8, 3);
	counting_register(&cn, mm);
	expect_eq(mm_madvise(mm, area_page(2), 4 * P - 1, MM_MADV_DONTNEED), 0);
	expect_eq(atomic64_read(&cn.starts[MMU_NOTIFY_CLEAR]), 2);
	expect_eq(cn.start, area_page(4));
	expect_eq(cn.end, area_page(6));
	expect_stamps(mm, 0, 2, 3, 0);
	expect_eq(test_read(mm, area_page(2)), 0);
	expect_eq(test_read(mm, area_page(3)), 0);
	expect_stamps(mm, 4, 8, 3, 0); /* the object has kept them */
	expect_areas(mm, "0-4 rw p, 4-8 rw s0");
	counting_expect_paired(&cn);
	mmu_notifier_unregister(&cn.mn, mm);
	mmput(mm);
	address_space_put(mapping);
	test_phys_done(phys);
}

TEST(madvise, holes_are_told_of_at_the_end)
{
	struct phys *phys = test_phys(32);
	struct mm_struct *mm = test_mm(phys);

	expect_eq(mm_mmap(mm, area_page(1), P, RW, NULL, 0), 0);
	expect_eq(mm_mmap(mm, area_page(4), 2 * P, RW, NULL, 0), 0);
	stamp_pages(mm, 1, 2, 3);
	stamp_pages(mm, 4, 6, 3);
	expect_eq(mm_madvise(mm, area_page(0), 5 * P, MM_MADV_DONTNEED), -ENOMEM);
	expect_eq(test_read(mm, area_page(1)), 0);
	expect_eq(test_read(mm, area_page(4)), 0);
	expect_stamps(mm, 5, 6, 3, 0);
	expect_eq(mm_madvise(mm, area_page(5), 2 * P, MM_MADV_DONTNEED), -ENOMEM);
	expect_eq(test_read(mm, area_page(5)), 0);
	expect_eq(mm_madvise(mm, area_page(8), P, MM_MADV_DONTNEED), -ENOMEM);
	expect_eq(mm_madvise(mm, area_page(8), 0, MM_MADV_DONTNEED), 0);
	mmput(mm);
	test_phys_done(phys);
}

struct adviser {
	struct mm_struct *mm;
	atomic_t tid, done;
};

static void give_advice(void *arg)
{
	struct adviser *a = arg;

	atomic_set_release(&a->tid, gettid());
	expect_eq(mm_madvise(a->mm, area_page(0), P, MM_MADV_DONTNEED), 0);
	atomic_set_release(&a->done, 1);
}

/* Advice that changes no area waits for nobody who looks at areas. */
TEST(madvise, among_readers_of_areas)
{
	struct phys *phys = test_phys(4);
	struct adviser a = {.mm = test_mm(phys)};
	struct kthread thread;

	expect_eq(mm_mmap(a.mm, area_page(0), P, RW, NULL, 0), 0);
	test_write(a.mm, area_page(0), 5);
	mmap_read_lock(a.mm);
	expect_eq(kthread_run(&thread, "advises", give_advice, &a), 0);
	while (!atomic_read_acquire(&a.tid))
		sched_yield();
	for (int looks = 0; looks < 3 && !atomic_read_acquire(&a.done); sched_yield())
		looks = is_asleep(atomic_read(&a.tid)) ? looks + 1 : 0;
	expect(atomic_read_acquire(&a.done));
	mmap_read_unlock(a.mm);
	kthread_join(&thread);
	expect_eq(test_read(a.mm, area_page(0)), 0);
	mmput(a.mm);
	test_phys_done(phys);
}

TEST(madvise, checks_arguments)
{
	struct phys *phys = test_phys(4);
	struct mm_struct *mm = test_mm(phys);

	expect_eq(mm_mmap(mm, area_page(0), P, RW, NULL, 0), 0);
	test_write(mm, area_page(0), 1);
	expect_eq(mm_madvise(mm, area_page(0) + 8, P, MM_MADV_DONTNEED), -EINVAL);
	expect_eq(mm_madvise(mm, area_page(0), -P, MM_MADV_DONTNEED), -EINVAL);
	expect_eq(mm_madvise(mm, area_page(0), P, NR_MM_MADV), -EINVAL);
	expect_eq(mm_madvise(mm, area_page(0), P, (enum mm_advice) - 1), -EINVAL);
	expect_eq(test_read(mm, area_page(0)), 1);
	mmput(mm);
	test_phys_done(phys);
}
