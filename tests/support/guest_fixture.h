/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What tests with a guest on the model machine have in common. */
#ifndef TESTS_SUPPORT_GUEST_FIXTURE_H
#define TESTS_SUPPORT_GUEST_FIXTURE_H

#include "shadow/shadow_internal.h"
#include "tests/model/guest_mem.h"
#include "tests/support/test.h"

static inline struct shadow_stats stats_of(struct guest_mem *g)
{
	struct shadow_stats stats;

	shadow_get_stats(g->shadow, &stats);
	return stats;
}

/* And the machine was never used as it must not be. */
static inline void destroy(struct guest_mem *g)
{
	struct model_stats stats;

	model_get_stats(g->model, &stats);
	expect_eq(stats.contract_violations, 0);
	guest_mem_destroy(g);
}

/* The entry of a table of leaves that the first CPU comes to for @gva, which has the tables above.
 */
static inline spte_t *leaf_of(struct guest_mem *g, gva_t gva)
{
	struct shadow_page *sp = g->shadow->vcpu[0].root;
	spte_t *sptep;

	spin_lock(&g->shadow->mmu_lock);
	while (sp->role.level > 1)
		sp = spte_to_child(g->shadow, sp->spt[table_index(gva, sp->role.level)]);
	sptep = &sp->spt[table_index(gva, 1)];
	spin_unlock(&g->shadow->mmu_lock);
	return sptep;
}

/* For a hook: the guest edits its tables between the walk and the install. */
struct table_edit {
	struct guest_mem *g;
	gpa_t pte;
	uint64_t value;
	unsigned int times;
};

static inline void hook_edit_table(void *arg)
{
	struct table_edit *edit = arg;

	if (edit->times && edit->times--)
		guest_write(edit->g, edit->pte, edit->value);
}

/* How often a hook was called. */
static inline void hook_count(void *arg)
{
	++*(unsigned int *)arg;
}

#endif
