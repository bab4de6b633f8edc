/* SPDX-License-Identifier: 0BSD */
/*
 * More pages than frames: what nobody uses goes to a swap file and comes back when it is touched.
 * A secondary is told of each page that goes, and is asked before whether it uses it.
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include <gnomon/mm.h>
#include <gnomon/mmu_notifier.h>
#include <gnomon/swap.h>

#define NR_FRAMES 64UL
#define NR_PAGES  256UL
#define AT	  0x10000UL
#define HOT	  0UL /* the page that the secondary uses, and nobody else */

#define CHECK(what)                                                                        \
	do {                                                                               \
		if (!(what)) {                                                             \
			fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #what); \
			exit(1);                                                           \
		}                                                                          \
	} while (0)

static struct phys *phys;
static struct mm_struct *mm;

/* One thread, so plain counters will do. */
struct secondary {
	struct mmu_notifier notifier;
	unsigned long asked, gone;
};

static hva_t page(unsigned long n)
{
	return AT + n * PAGE_SIZE;
}

static bool is_used(struct mmu_notifier *notifier, struct mm_struct *of, hva_t start, hva_t end)
{
	(void)of;
	((struct secondary *)notifier)->asked++;
	return start <= page(HOT) && page(HOT) < end;
}

static int goes(struct mmu_notifier *notifier, const struct mmu_notifier_range *range)
{
	struct secondary *secondary = (struct secondary *)notifier;

	CHECK(range->event == MMU_NOTIFY_CLEAR);
	secondary->gone += (range->end - range->start) / PAGE_SIZE;
	return 0;
}

static void put_word(unsigned long n, unsigned long word)
{
	CHECK(mm_write(mm, page(n), &word, sizeof(word)) == 0);
}

static unsigned long get_word(unsigned long n)
{
	unsigned long word;

	CHECK(mm_read(mm, page(n), &word, sizeof(word)) == 0);
	return word;
}

int main(void)
{
	static const struct mmu_notifier_ops ops = {
		.clear_flush_young = is_used,
		.clear_young = is_used,
		.invalidate_range_start = goes,
	};
	struct secondary secondary = {.notifier = {.ops = &ops}};
	struct reclaim_stats stats;
	unsigned long word = 1, n = 0;
	pfn_t hot;

	CHECK(phys_create(&phys, NR_FRAMES) == 0);
	mm = mm_alloc(phys);
	CHECK(mm);
	CHECK(mm_mmap(mm, AT, NR_PAGES * PAGE_SIZE, MM_PROT_READ | MM_PROT_WRITE, NULL, 0) == 0);

	/* Without a place for what is in them, no page can go. */
	while (mm_write(mm, page(n), &word, sizeof(word)) == 0)
		n++;
	CHECK(n == NR_FRAMES);

	CHECK(phys_swap_on(phys, "/tmp", NR_PAGES) == 0);
	CHECK(mmu_notifier_register(&secondary.notifier, mm) == 0);
	hot = mm_lookup_pfn(mm, page(HOT));
	for (n = 1; n < NR_PAGES; n++)
		put_word(n, n);
	phys_reclaim_stats(phys, &stats);
	CHECK(stats.swap_out >= NR_PAGES - NR_FRAMES);
	CHECK(secondary.gone == stats.reclaimed && secondary.asked > 0);
	/* In the frame that it was in from the beginning. */
	CHECK(mm_lookup_pfn(mm, page(HOT)) == hot);
	for (n = 1; n < NR_PAGES; n++)
		CHECK(get_word(n) == n);

	/* What is not needed any more need not be written. */
	CHECK(mm_madvise(mm, AT, NR_PAGES * PAGE_SIZE, MM_MADV_FREE) == 0);
	phys_reclaim_stats(phys, &stats);
	CHECK(stats.swap_used == 0);
	CHECK(phys_reclaim(phys, 8) == 8);
	phys_reclaim_stats(phys, &stats);
	CHECK(stats.lazyfreed == 8);

	mmu_notifier_unregister(&secondary.notifier, mm);
	mmput(mm);
	CHECK(phys_swap_off(phys) == 0);
	phys_destroy(phys);
	return 0;
}
