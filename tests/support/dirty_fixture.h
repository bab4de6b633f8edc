/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A guest whose RAM is a slot that is logged, or SLOT of memslot_fixture.h is. */
#ifndef TESTS_SUPPORT_DIRTY_FIXTURE_H
#define TESTS_SUPPORT_DIRTY_FIXTURE_H

#include <gnomon/shadow_dirty.h>

#include "shadow/dirty.h"
#include "tests/support/memslot_fixture.h"

#define RAM_WORDS_MAX 1024

static inline int log_ram(struct guest_mem *g, bool on)
{
	return set_slot(g, 0, 0, g->nr_pages, GUEST_MEM_HVA, on ? MEMSLOT_LOG_DIRTY : 0);
}

static inline int log_slot(struct guest_mem *g, bool on)
{
	return set_slot(g, SLOT, SLOT_GFN, SLOT_PAGES, SLOT_HVA, on ? MEMSLOT_LOG_DIRTY : 0);
}

/* What is dirty among the first 64 pages of the slot. */
static inline uint64_t harvest(struct guest_mem *g, unsigned int id)
{
	uint64_t bitmap[RAM_WORDS_MAX];

	expect_le(shadow_dirty_words(g->nr_pages), RAM_WORDS_MAX);
	expect_eq(shadow_get_dirty_log(g->shadow, id, bitmap), 0);
	return bitmap[0];
}

static inline uint64_t page_bit(uint64_t page)
{
	return 1UL << page;
}

#endif
