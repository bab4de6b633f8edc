/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* All frames that are free, in one hand: whoever needs one finds none. */
#ifndef TESTS_SUPPORT_HOARD_H
#define TESTS_SUPPORT_HOARD_H

#include <gnomon/phys.h>

#include "notifier/sync/util.h"
#include "tests/support/test.h"

struct hoard {
	struct phys *phys;
	unsigned int nr;
	pfn_t pfns[4096];
};

static inline void hoard_frames(struct hoard *hoard, struct phys *phys)
{
	pfn_t pfn;

	hoard->phys = phys;
	hoard->nr = 0;
	while ((pfn = phys_alloc(phys)) != INVALID_PFN) {
		expect(hoard->nr < ARRAY_SIZE(hoard->pfns));
		hoard->pfns[hoard->nr++] = pfn;
	}
}

static inline void hoard_release(struct hoard *hoard)
{
	while (hoard->nr)
		phys_put(hoard->phys, hoard->pfns[--hoard->nr]);
}

#endif
