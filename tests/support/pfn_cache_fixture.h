/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A cache of a frame with its lock, of a guest's page that holds a word, and what may be done. */
#ifndef TESTS_SUPPORT_PFN_CACHE_FIXTURE_H
#define TESTS_SUPPORT_PFN_CACHE_FIXTURE_H

#include <errno.h>

#include "notifier/mm_internal.h"
#include "notifier/sync/thread.h"
#include "tests/support/asleep.h"
#include "tests/support/memslot_fixture.h"

#define PAGE 0x3000UL
#define GFN  (PAGE >> PAGE_SHIFT)
#define WORD 0x57a3b00000000001UL

static const struct guest_mem_config config = {.audit = true};

struct rig {
	struct guest_mem g;
	spinlock_t lock;
	struct gfn_to_pfn_cache gpc;
};

static inline void rig_init(struct rig *r)
{
	spin_lock_init(&r->lock);
	gpc_init(&r->gpc, r->g.shadow, &r->lock);
}

static inline void fixture(struct rig *r, const struct guest_mem_config *of)
{
	guest_mem_create(&r->g, of);
	guest_write(&r->g, PAGE, WORD);
	rig_init(r);
}

static inline void done(struct rig *r)
{
	gpc_deactivate(&r->gpc);
	guest_mem_destroy(&r->g);
}

static inline int activate(struct rig *r, gfn_t gfn)
{
	int id = srcu_read_lock(&r->g.shadow->slots_srcu);
	int ret = gpc_activate(&r->gpc, gfn);

	srcu_read_unlock(&r->g.shadow->slots_srcu, id);
	return ret;
}

static inline int refresh(struct rig *r)
{
	int id = srcu_read_lock(&r->g.shadow->slots_srcu);
	int ret = gpc_refresh(&r->gpc);

	srcu_read_unlock(&r->g.shadow->slots_srcu, id);
	return ret;
}

/* The word at the page's beginning, by way of the cache; 0: it is not good. */
static inline uint64_t load(struct rig *r, gfn_t gfn)
{
	int id = srcu_read_lock(&r->g.shadow->slots_srcu);
	uint64_t value = 0;

	spin_lock(&r->lock);
	if (gpc_check(&r->gpc, gfn))
		value = READ_ONCE(*(uint64_t *)r->gpc.khva);
	spin_unlock(&r->lock);
	srcu_read_unlock(&r->g.shadow->slots_srcu, id);
	return value;
}

/* It is good, and has the frame that the host has there now. */
static inline void expect_now(struct rig *r, gfn_t gfn, hva_t hva, uint64_t value)
{
	expect_eq(load(r, gfn), value);
	expect(r->gpc.khva == phys_map(r->g.phys, mm_lookup_pfn(r->g.mm, hva)));
}

#endif
