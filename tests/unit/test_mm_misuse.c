/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The mm is called where it may not be: under a lock that spins, or without the lock it asks for.
 * Debug builds say so at once, also if nothing would have slept this time. */
#include <gnomon/device.h>

#include "notifier/frame.h"
#include "notifier/mm_internal.h"
#include "notifier/mutations.h"
#include "notifier/sync/lock.h"
#include "tests/support/areas.h"

#ifndef CONFIG_LOCKDEP

TEST(mm_misuse, needs_a_debug_build)
{
	skip("built without CONFIG_LOCKDEP");
}

#else

static DEFINE_SPINLOCK(spin);

static struct {
	struct phys *phys;
	struct mm_struct *mm;
	struct address_space *mapping, *unmapped;
} f;

static void fixture_init(void)
{
	f.phys = test_phys(16);
	f.mm = test_mm(f.phys);
	f.mapping = test_mapping(f.phys, 1);
	f.unmapped = test_mapping(f.phys, 1);
	expect_eq(mm_mmap(f.mm, area_page(0), PAGE_SIZE, RW, f.mapping, 0), 0);
	expect_eq(mm_mmap(f.mm, area_page(2), PAGE_SIZE, RW, NULL, 0), 0);
	stamp_pages(f.mm, 0, 1, 7);
	stamp_pages(f.mm, 2, 3, 7);
}

static void fixture_done(void)
{
	mmput(f.mm);
	address_space_put(f.mapping);
	address_space_put(f.unmapped);
	test_phys_done(f.phys);
}

static void put_mm(void)
{
	mmget(f.mm);
	mmput(f.mm); /* not the last: nothing happens, this time */
}

static void put_mapping(void)
{
	address_space_put(f.unmapped);
}

static void move_frame(void)
{
	migrate_frame(f.phys, mm_lookup_pfn(f.mm, area_page(0)));
}

static void move_page(void)
{
	migrate_mapping_page(f.mapping, 0);
}

static void punch(void)
{
	address_space_punch_hole(f.mapping, 0, 1);
}

static void sync_pages(void)
{
	address_space_sync(f.mapping, 0, 1);
}

static void make_exclusive(void)
{
	pfn_t pfn;

	if (make_device_exclusive(f.mm, area_page(2), &f, &pfn))
		fail("not exclusive");
}

static void under_a_spinlock(void *arg)
{
	void (*const *call)(void) = arg;

	spin_lock(&spin);
	(*call)();
}

TEST(mm_misuse, under_a_spinlock)
{
	static const struct {
		void (*call)(void);
		const char *text;
	} calls[] = {
		{put_mm, "might_sleep, in mmput() at"},
		{put_mapping, "might_sleep, in address_space_put() at"},
		{move_frame, "might_sleep, in migrate_frame() at"},
		{move_page, "might_sleep, in migrate_mapping_page() at"},
		{punch, "might_sleep, in address_space_punch_hole() at"},
		{sync_pages, "might_sleep, in address_space_sync() at"},
		{make_exclusive, "might_sleep, in make_device_exclusive() at"},
	};

	fixture_init();
	for (size_t i = 0; i < ARRAY_SIZE(calls); i++)
		expect_bug(under_a_spinlock, (void *)&calls[i].call, calls[i].text);
	fixture_done();
}

static void exclusive_without_the_lock(void *arg)
{
	(void)arg;
	make_exclusive();
}

static void fault_without_the_lock(void *arg)
{
	struct vm_area_struct *vma;

	(void)arg;
	mmap_read_lock(f.mm);
	vma = find_vma(f.mm, area_page(2));
	mmap_read_unlock(f.mm);
	handle_mm_fault(vma, area_page(2), false);
}

static void fault_that_the_area_forbids(void *arg)
{
	struct vm_area_struct *vma;

	(void)arg;
	expect_eq(mm_mprotect(f.mm, area_page(2), PAGE_SIZE, MM_PROT_READ), 0);
	mmap_read_lock(f.mm);
	vma = find_vma(f.mm, area_page(2));
	handle_mm_fault(vma, area_page(2), true);
}

static void area_without_the_lock(void *arg)
{
	(void)arg;
	find_vma(f.mm, area_page(2));
}

static void neighbour_without_the_lock(void *arg)
{
	struct vm_area_struct *vma;

	(void)arg;
	mmap_read_lock(f.mm);
	vma = find_vma(f.mm, area_page(2));
	mmap_read_unlock(f.mm);
	vma_prev(vma);
}

/* One that needs each kind of lock, without that one. */
struct lacking {
	enum mm_mutation what;
	bool mmap_read;
};

static void mutation_without_its_locks(void *arg)
{
	const struct lacking *lacking = arg;
	struct mmu_notifier_range range;

	if (lacking->mmap_read)
		mmap_read_lock(f.mm);
	mutation_range_init(&range, lacking->what, f.mm, area_page(2), area_page(3));
}

TEST(mm_misuse, without_what_is_asked_for)
{
	static struct lacking lacking[] = {
		{MUTATION_UNMAP, true}, /* for writing */
		{MUTATION_ZAP, false},
		{MUTATION_COPY, true}, /* the frame's */
		{MUTATION_HOLE, true}, /* of a reverse map */
	};

	fixture_init();
	expect_bug(exclusive_without_the_lock, NULL,
		   "make_device_exclusive(): lock &mm->mmap_lock");
	expect_bug(fault_without_the_lock, NULL, "handle_mm_fault(): lock &mm->mmap_lock");
	expect_bug(fault_that_the_area_forbids, NULL,
		   "the caller looked whether the area allows it");
	expect_bug(area_without_the_lock, NULL, "find_vma_above(): lock &mm->mmap_lock");
	expect_bug(neighbour_without_the_lock, NULL, "vma_prev(): lock &vma->mm->mmap_lock");
	for (size_t i = 0; i < ARRAY_SIZE(lacking); i++)
		expect_bug(mutation_without_its_locks, &lacking[i], "has its locks: ");
	fixture_done();
}

#endif
