/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A guest with one page mapped at GVA, its entries, and the walk by itself. */
#ifndef TESTS_SUPPORT_WALK_FIXTURE_H
#define TESTS_SUPPORT_WALK_FIXTURE_H

#include <errno.h>
#include <string.h>

#include "shadow/shadow_internal.h"
#include "tests/model/guest_mem.h"
#include "tests/support/test.h"

#define GVA  0x40201000UL
#define PAGE 0x3000UL

static const struct guest_mem_config config = {.no_identity = true, .audit = true};

static inline void fixture(struct guest_mem *g)
{
	guest_mem_create(g, &config);
	guest_map(g, g->cr3, GVA, PAGE, GUEST_PTE_RW);
}

static inline uint64_t pte(struct guest_mem *g, int level)
{
	return guest_read(g, guest_pte_gpa(g, g->cr3, GVA, level));
}

static inline void set_pte(struct guest_mem *g, int level, uint64_t value)
{
	guest_write(g, guest_pte_gpa(g, g->cr3, GVA, level), value);
}

/* With nothing in it that is so by chance. */
static inline void spoil_walk(struct guest_walk *walk)
{
	memset(walk, 0x5a, sizeof(*walk));
}

/* The walk alone, as a CPU of this state would do it: the error code, or OK. */
#define OK (1u << 30)

static inline uint32_t walk_as(struct guest_mem *g, const struct guest_cpu *cpu, uint32_t access,
			       struct guest_walk *walk)
{
	int id = srcu_read_lock(&g->shadow->slots_srcu);
	struct guest_walk scratch;
	uint32_t code = OK;
	int ret;

	walk = walk ?: &scratch;
	spoil_walk(walk);
	ret = guest_walk(g->shadow, cpu, GVA, access, walk, &code);
	srcu_read_unlock(&g->shadow->slots_srcu, id);
	expect(ret == 0 || ret == -EFAULT);
	return ret ? code : OK;
}

static inline struct guest_cpu cpu_of(struct guest_mem *g)
{
	return *shadow_get_cpu(g->shadow, 0);
}

#endif
