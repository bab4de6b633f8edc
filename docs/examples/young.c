/* SPDX-License-Identifier: 0BSD */
/*
 * Ages: whoever frees memory by dropping the pages that nobody has used asks the notifiers, too, as
 * devices use pages behind the back of the address space.
 *
 * Two devices note in their tables which pages they use. As with most hardware that is done when an
 * entry comes into the TLB, so a use of what is there already is not seen.
 */
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <gnomon/mmu_notifier.h>

#define BASE	0x100000UL
#define PAGES	4
#define LEN	(PAGES * PAGE_SIZE)
#define DEVICES 2

#define CHECK(what)                                                                        \
	do {                                                                               \
		if (!(what)) {                                                             \
			fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #what); \
			exit(1);                                                           \
		}                                                                          \
	} while (0)

struct entry {
	bool accessed;
	bool in_tlb;
};

struct device {
	struct mmu_notifier mn;
	pthread_mutex_t lock; /* all below */
	struct entry table[PAGES];
	unsigned int asked;
};

static struct phys *phys;
static struct mm_struct *mm;
static struct device devices[DEVICES];

/* A use of page @i. Where its frame is does not matter here: mmu_notifier.c looks it up. */
static void device_use(struct device *d, unsigned int i)
{
	pthread_mutex_lock(&d->lock);
	if (!d->table[i].in_tlb)
		d->table[i].in_tlb = d->table[i].accessed = true;
	pthread_mutex_unlock(&d->lock);
}

/* --- what the mm calls */

static bool device_age(struct mmu_notifier *mn, hva_t start, hva_t end, bool forget, bool flush)
{
	struct device *d = (struct device *)((char *)mn - offsetof(struct device, mn));
	bool young = false;

	pthread_mutex_lock(&d->lock);
	d->asked++;
	for (unsigned int i = 0; i < PAGES; i++) {
		hva_t hva = BASE + i * PAGE_SIZE;

		if (hva < start || hva >= end)
			continue;
		young |= d->table[i].accessed;
		if (forget)
			d->table[i].accessed = false;
		if (flush)
			d->table[i].in_tlb = false;
	}
	pthread_mutex_unlock(&d->lock);
	return young;
}

static bool device_test_young(struct mmu_notifier *mn, struct mm_struct *of, hva_t address)
{
	(void)of;
	return device_age(mn, address, address + 1, false, false);
}

static bool device_clear_young(struct mmu_notifier *mn, struct mm_struct *of, hva_t start,
			       hva_t end)
{
	(void)of;
	return device_age(mn, start, end, true, false);
}

static bool device_clear_flush_young(struct mmu_notifier *mn, struct mm_struct *of, hva_t start,
				     hva_t end)
{
	(void)of;
	return device_age(mn, start, end, true, true);
}

/* What is dropped is in no table: to forget all of it is what there is to do. */
static int device_start(struct mmu_notifier *mn, const struct mmu_notifier_range *range)
{
	device_age(mn, range->start, range->end, true, true);
	return 0;
}

static const struct mmu_notifier_ops device_ops = {
	.clear_flush_young = device_clear_flush_young,
	.clear_young = device_clear_young,
	.test_young = device_test_young,
	.invalidate_range_start = device_start,
};

/* --- what whoever needs memory calls */

static unsigned int asked(void)
{
	return devices[0].asked + devices[1].asked;
}

static void ask(void)
{
	unsigned int before = asked();

	device_use(&devices[0], 1);
	device_use(&devices[1], 1);
	CHECK(mmu_notifier_test_young(mm, BASE + PAGE_SIZE));
	CHECK(asked() == before + 1); /* the first that says yes is enough */
	CHECK(!mmu_notifier_test_young(mm, BASE));
	CHECK(asked() == before + 3);
	CHECK(mmu_notifier_clear_young(mm, BASE, BASE + LEN));
	CHECK(asked() == before + 5); /* all of them have to forget */
	CHECK(!mmu_notifier_test_young(mm, BASE + PAGE_SIZE));
}

/* Without a flush the answer costs less, and is a guess. */
static void flush_or_not(void)
{
	device_use(&devices[0], 1);
	CHECK(!mmu_notifier_clear_young(mm, BASE, BASE + LEN)); /* was, but by way of the TLB */
	CHECK(!mmu_notifier_clear_flush_young(mm, BASE, BASE + LEN));
	device_use(&devices[0], 1);
	CHECK(mmu_notifier_clear_flush_young(mm, BASE, BASE + LEN));
}

/* Returns how many pages were dropped: what nobody has used since the last time. */
static long reclaim(void)
{
	long dropped = 0, ret;

	for (hva_t hva = BASE; hva < BASE + LEN; hva += PAGE_SIZE) {
		if (mmu_notifier_clear_flush_young(mm, hva, hva + PAGE_SIZE))
			continue;
		ret = mm_zap_range(mm, hva, PAGE_SIZE);
		CHECK(ret >= 0);
		dropped += ret;
	}
	return dropped;
}

int main(void)
{
	CHECK(phys_create(&phys, PAGES) == 0);
	mm = mm_alloc(phys);
	CHECK(mm);
	CHECK(mm_mmap(mm, BASE, LEN, MM_PROT_READ | MM_PROT_WRITE, NULL, 0) == 0);
	for (uint64_t i = 0; i < PAGES; i++)
		CHECK(mm_write(mm, BASE + i * PAGE_SIZE, &i, sizeof(i)) == 0);
	for (int i = 0; i < DEVICES; i++) {
		CHECK(pthread_mutex_init(&devices[i].lock, NULL) == 0);
		devices[i].mn.ops = &device_ops;
		CHECK(mmu_notifier_register(&devices[i].mn, mm) == 0);
	}

	ask();
	flush_or_not();

	device_use(&devices[0], 0);
	device_use(&devices[1], 3);
	CHECK(reclaim() == 2); /* 1 and 2 */
	CHECK(mm_lookup_pfn(mm, BASE) != INVALID_PFN);
	CHECK(mm_lookup_pfn(mm, BASE + 2 * PAGE_SIZE) == INVALID_PFN);
	device_use(&devices[1], 3);
	CHECK(reclaim() == 1); /* 0 has had its time */

	for (int i = 0; i < DEVICES; i++)
		mmu_notifier_unregister(&devices[i].mn, mm);
	mmput(mm);
	CHECK(phys_nr_free(phys) == PAGES);
	phys_destroy(phys);
	printf("young: of %d pages the one in use is left\n", PAGES);
	return 0;
}
