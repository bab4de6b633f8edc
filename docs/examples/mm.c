/* SPDX-License-Identifier: 0BSD */
/*
 * The host mm: an address space, memory in it that nobody but us knows about, and what happens to
 * its contents when the pages below are dropped or moved.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <gnomon/mm.h>

#define NR_FRAMES  64
#define PRIVATE_AT 0x10000UL
#define SHARED_AT  0x40000UL
#define LEN	   (4 * PAGE_SIZE)

#define CHECK(what)                                                                        \
	do {                                                                               \
		if (!(what)) {                                                             \
			fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #what); \
			exit(1);                                                           \
		}                                                                          \
	} while (0)

static struct phys *phys;
static struct mm_struct *mm;

static void expect_text(hva_t at, const char *text)
{
	char found[16] = "";

	CHECK(mm_read(mm, at, found, sizeof(found)) == 0);
	CHECK(strcmp(found, text) == 0);
}

/* Both kinds hold text now: one page of the private mapping, one of the shared. */
static void map_and_write(void)
{
	struct address_space *cache = address_space_create(phys, LEN / PAGE_SIZE);
	char text[16] = "private", shared[16] = "shared";

	CHECK(cache);
	CHECK(mm_mmap(mm, PRIVATE_AT, LEN, MM_PROT_READ | MM_PROT_WRITE, NULL, 0) == 0);
	CHECK(mm_mmap(mm, SHARED_AT, LEN, MM_PROT_READ | MM_PROT_WRITE, cache, 0) == 0);
	address_space_put(cache); /* the mapping keeps it */

	CHECK(mm_lookup_pfn(mm, PRIVATE_AT) == INVALID_PFN); /* nobody has touched it */
	CHECK(mm_write(mm, PRIVATE_AT, text, sizeof(text)) == 0);
	CHECK(mm_write(mm, SHARED_AT, shared, sizeof(shared)) == 0);
	CHECK(mm_lookup_pfn(mm, PRIVATE_AT) != INVALID_PFN);
	CHECK(mm_write(mm, PRIVATE_AT + LEN, text, sizeof(text)) == -EFAULT);
}

static void count_up(void)
{
	hva_t counter = PRIVATE_AT + PAGE_SIZE;
	uint64_t old = 1;

	CHECK(mm_cmpxchg64(mm, counter, &old, 7) == 1); /* it is 0, and says so */
	CHECK(old == 0);
	CHECK(mm_cmpxchg64(mm, counter, &old, 7) == 0);
	CHECK(mm_read64_atomic(mm, counter, &old) == 0 && old == 7);
}

/* Other frames, the same contents: by range, and by the number of one frame. */
static void move(void)
{
	pfn_t before = mm_lookup_pfn(mm, PRIVATE_AT);

	CHECK(mm_migrate_range(mm, PRIVATE_AT, LEN) == 2);
	CHECK(mm_lookup_pfn(mm, PRIVATE_AT) != before);
	expect_text(PRIVATE_AT, "private");

	before = mm_lookup_pfn(mm, SHARED_AT);
	CHECK(migrate_frame(phys, before) == 0);
	CHECK(mm_lookup_pfn(mm, SHARED_AT) != before);
	expect_text(SHARED_AT, "shared");
}

/* What only this mapping had is gone; what the cache has is there at the next touch. */
static void drop(void)
{
	CHECK(mm_zap_range(mm, PRIVATE_AT, LEN) == 2);
	CHECK(mm_zap_range(mm, SHARED_AT, LEN) == 1);
	CHECK(mm_lookup_pfn(mm, SHARED_AT) == INVALID_PFN);
	expect_text(PRIVATE_AT, "");
	expect_text(SHARED_AT, "shared");
}

int main(void)
{
	struct mm_stats stats;

	CHECK(phys_create(&phys, NR_FRAMES) == 0);
	mm = mm_alloc(phys);
	CHECK(mm);
	map_and_write();
	count_up();
	move();
	drop();

	mm_get_stats(mm, &stats);
	CHECK(stats.pages_migrated == 3 && stats.pages_zapped == 3);
	mmput(mm);
	CHECK(phys_nr_free(phys) == NR_FRAMES);
	phys_destroy(phys);
	printf("mm: 3 pages moved, 3 dropped, %d frames back\n", NR_FRAMES);
	return 0;
}
