/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* For tests of what changes areas: the areas of an mm in one line, to be compared as a whole. */
#ifndef TESTS_SUPPORT_AREAS_H
#define TESTS_SUPPORT_AREAS_H

#include <stdio.h>
#include <string.h>

#include "notifier/mm_internal.h"
#include "tests/support/mm_fixture.h"

#define AREAS_BASE 0x10000000UL

static inline hva_t area_page(uint64_t n)
{
	return AREAS_BASE + n * PAGE_SIZE;
}

/*
 * "0-4 rw p, 6-8 r- s2": pages, counted from AREAS_BASE, rights, private or shared, and for an
 * object the page of it that the area begins with.
 */
static inline const char *areas_of(struct mm_struct *mm)
{
	static char text[1024];
	size_t len = 0;

	text[0] = '\0';
	mmap_read_lock(mm);
	for (struct vm_area_struct *vma = vma_first(mm); vma; vma = vma_next(vma)) {
		len += (size_t)snprintf(text + len, sizeof(text) - len, "%s%lld-%lld %c%c %c",
					len ? ", " : "",
					(long long)(vma->start - AREAS_BASE) / (long long)PAGE_SIZE,
					(long long)(vma->end - AREAS_BASE) / (long long)PAGE_SIZE,
					vma->prot & MM_PROT_READ ? 'r' : '-',
					vma->prot & MM_PROT_WRITE ? 'w' : '-',
					vma_is_private(vma) ? 'p' : 's');
		if (vma->mapping)
			len += (size_t)snprintf(text + len, sizeof(text) - len, "%llu",
						(unsigned long long)vma->pgoff);
		expect(len < sizeof(text));
	}
	mmap_read_unlock(mm);
	return text;
}

#define expect_areas(mm, text) expect_str_eq(areas_of(mm), text)

/* Pages [first, end) hold their number plus @stamp, by mm_write. */
static inline void stamp_pages(struct mm_struct *mm, uint64_t first, uint64_t end, uint64_t stamp)
{
	for (uint64_t n = first; n < end; n++)
		test_write(mm, area_page(n), stamp + n);
}

/* What stamp_pages() wrote is at pages [first, end), having been stamped @moved pages before. */
static inline void expect_stamps(struct mm_struct *mm, uint64_t first, uint64_t end, uint64_t stamp,
				 int64_t moved)
{
	for (uint64_t n = first; n < end; n++)
		expect_eq(test_read(mm, area_page(n)), stamp + n - (uint64_t)moved);
}

#endif
