/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What only a caller's bug can bring about, and that it is told at the place. */
#include <gnomon/shadow_dirty.h>

#include "shadow/shadow_internal.h"
#include "tests/model/guest_mem.h"
#include "tests/support/test.h"

#define NR_CPUS 2 /* the first that there is not */

static void create(struct guest_mem *g)
{
	static const struct guest_mem_config config = {.nr_cpus = NR_CPUS};

	guest_mem_create(g, &config);
}

/* ---- vCPUs ---- */

static void load_cr3(void *arg)
{
	struct guest_mem *g = arg;

	shadow_load_cr3(g->shadow, NR_CPUS, g->cr3);
}

static void set_cpu(void *arg)
{
	struct guest_mem *g = arg;

	shadow_set_cpu(g->shadow, NR_CPUS, shadow_get_cpu(g->shadow, 0));
}

static void get_cpu(void *arg)
{
	struct guest_mem *g = arg;

	shadow_get_cpu(g->shadow, NR_CPUS);
}

static void handle_fault(void *arg)
{
	struct shadow_fault fault = {.gva = PAGE_SIZE};
	struct guest_mem *g = arg;

	shadow_handle_fault(g->shadow, NR_CPUS, &fault);
}

static void say_nothing(void *arg, const char *line)
{
	(void)arg, (void)line;
}

static void explain(void *arg)
{
	struct guest_mem *g = arg;

	shadow_explain(g->shadow, NR_CPUS, PAGE_SIZE, say_nothing, NULL);
}

static void dirty_ring(void *arg)
{
	struct guest_mem *g = arg;

	shadow_dirty_ring(g->shadow, NR_CPUS + 1);
}

TEST(shadow_misuse, of_a_vcpu_that_there_is_not)
{
	struct guest_mem g;

	create(&g);
	expect_bug(load_cr3, &g, "a vCPU of this guest");
	expect_bug(set_cpu, &g, "a vCPU of this guest");
	expect_bug(get_cpu, &g, "a vCPU of this guest");
	expect_bug(handle_fault, &g, "the vCPU has loaded CR3");
	expect_bug(explain, &g, "a vCPU of this guest");
	expect_bug(dirty_ring, &g, "a ring for each vCPU, and one more");
	/* The one more is for what no vCPU has written. */
	expect_eq(shadow_dirty_ring(g.shadow, NR_CPUS), NULL);
	guest_mem_destroy(&g);
}

/* ---- operands ---- */

struct operand_misuse {
	struct guest_mem g;
	struct shadow_operand operand;
	unsigned int len;
};

static int operand_get(struct operand_misuse *m, gva_t gva, uint32_t access)
{
	struct shadow_fault fault;

	return shadow_operand_get(m->g.shadow, 0, gva, m->len, access, &m->operand, &fault);
}

static void get_operand(void *arg)
{
	operand_get(arg, PAGE_SIZE, 0);
}

static void write_operand(void *arg)
{
	struct operand_misuse *m = arg;

	shadow_operand_write(m->g.shadow, &m->operand, 1);
}

static void cmpxchg_operand(void *arg)
{
	struct operand_misuse *m = arg;
	uint64_t old = 0;

	shadow_operand_cmpxchg(m->g.shadow, &m->operand, &old, 1);
}

TEST(shadow_misuse, of_operands)
{
	struct operand_misuse m;

	create(&m.g);
	m.len = 0;
	expect_bug(get_operand, &m, "an operand of 0 bytes");
	m.len = SHADOW_OPERAND_MAX + 1;
	expect_bug(get_operand, &m, "an operand of 9 bytes");

	m.len = SHADOW_OPERAND_MAX;
	expect_eq(operand_get(&m, PAGE_SIZE, 0), 0);
	expect_bug(write_operand, &m, "an operand that was got for reading");
	expect_bug(cmpxchg_operand, &m, "an operand in one word");
	shadow_operand_put(m.g.shadow, &m.operand);

	/* For writing, but not at once. */
	expect_eq(operand_get(&m, PAGE_SIZE + 4, PFERR_WRITE), 0);
	expect_bug(cmpxchg_operand, &m, "an operand in one word");
	shadow_operand_put(m.g.shadow, &m.operand);
	guest_mem_destroy(&m.g);
}

/* ---- machines, windows ---- */

static void create_of_three_levels(void *arg)
{
	struct guest_mem *g = arg;
	struct machine machine = *model_to_machine(g->model);
	struct shadow *shadow;

	machine.levels = 3;
	shadow_create(&shadow, g->mm, &machine, 1);
}

/* Three count the windows that are open, each for itself: in each of these one finds none. */
static void end_of_nothing_counted(void *arg)
{
	struct guest_mem *g = arg;

	g->shadow->mn_open.nr_rest = 1;
	mn_invalidate_end(g->shadow, GUEST_MEM_HVA, GUEST_MEM_HVA + PAGE_SIZE);
}

static void end_of_nothing_noted(void *arg)
{
	struct guest_mem *g = arg;

	open_ranges_remove(&g->shadow->mn_open, GUEST_MEM_HVA, GUEST_MEM_HVA + PAGE_SIZE);
}

static void end_of_nothing_in_progress(void *arg)
{
	struct guest_mem *g = arg;
	struct mmu_notifier_range range;

	mmap_read_lock(g->mm);
	mmu_notifier_range_init(&range, MMU_NOTIFY_CLEAR, 0, g->mm, GUEST_MEM_HVA,
				GUEST_MEM_HVA + PAGE_SIZE);
	mn_invalidate_begin(g->shadow, range.start, range.end);
	g->shadow->notifier.ops->invalidate_range_end(&g->shadow->notifier, &range);
}

TEST(shadow_misuse, of_machines_and_windows)
{
	struct guest_mem g;

	create(&g);
	expect_bug(create_of_three_levels, &g, "tables of 4 levels, or 5");
	expect_bug(end_of_nothing_counted, &g, "each end has its start");
	expect_bug(end_of_nothing_noted, &g, "each end has its start");
	expect_bug(end_of_nothing_in_progress, &g, "each end has its start");
	guest_mem_destroy(&g);
}
