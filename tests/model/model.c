/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The model machine as the shadow MMU sees it: machine_ops, and the knobs of its tests. It checks
 * the contract from its own side too: a table that comes back must be one that no CPU still uses.
 */
#include "tests/model/model_internal.h"

#include <errno.h>
#include <sched.h>

#include "notifier/sync/alloc.h"
#include "notifier/sync/lockdep.h"
#include "notifier/sync/util.h"

static struct model_machine *to_model(struct machine *machine)
{
	return container_of(machine, struct model_machine, machine);
}

struct machine *model_to_machine(struct model_machine *m)
{
	return &m->machine;
}

void model_cpu_lock(struct model_cpu *cpu)
{
	while (atomic_read(&cpu->shooters))
		sched_yield();
	spin_lock(&cpu->lock);
}

void model_cpu_lock_shoot(struct model_cpu *cpu)
{
	atomic_inc(&cpu->shooters);
	spin_lock(&cpu->lock);
	atomic_dec(&cpu->shooters);
}

void model_cpu_unlock(struct model_cpu *cpu)
{
	spin_unlock(&cpu->lock);
}

/* Stores are atomic: a CPU that was not told may still walk through it. */
static void clear_table(struct model_machine *m, pfn_t table)
{
	for (unsigned int i = 0; i < 512; i++)
		__atomic_store_n((uint64_t *)phys_map(m->phys, table) + i, 0, __ATOMIC_RELAXED);
}

static pfn_t model_alloc_table(struct machine *machine, int level)
{
	struct model_machine *m = to_model(machine);
	pfn_t table = INVALID_PFN;

	might_sleep(); /* an engine's may */
	ASSERT(level >= 1 && level <= (int)machine->levels, "level %d", level);
	spin_lock(&m->reuse_lock);
	if (m->nr_stack)
		table = m->stack[--m->nr_stack];
	spin_unlock(&m->reuse_lock);
	if (table != INVALID_PFN) {
		clear_table(m, table);
		atomic64_inc(&m->tables_reused);
	} else {
		table = phys_alloc_zeroed(m->phys);
		if (table == INVALID_PFN)
			return INVALID_PFN;
	}
	if (level == (int)machine->levels && m->monitor != INVALID_PFN) {
		uint64_t *root = phys_map(m->phys, table);

		root[m->reserved_slot] = m->monitor << PAGE_SHIFT | HW_PRESENT | HW_WRITE;
	}
	return table;
}

static void table_back(struct model_machine *m, pfn_t table)
{
	if (m->reuse == MODEL_REUSE_FIFO) {
		phys_put(m->phys, table);
		return;
	}
	spin_lock(&m->reuse_lock);
	ASSERT(m->nr_stack < phys_nr_frames(m->phys), "a table came back twice");
	m->stack[m->nr_stack++] = table;
	spin_unlock(&m->reuse_lock);
}

static void model_free_table(struct machine *machine, pfn_t table)
{
	struct model_machine *m = to_model(machine);

	for (unsigned int i = 0; i < m->nr_cpus; i++) {
		model_cpu_lock_shoot(&m->cpu[i]);
		if (tlb_knows(&m->cpu[i], table))
			atomic64_inc(&m->contract_violations);
		model_cpu_unlock(&m->cpu[i]);
	}
	table_back(m, table);
}

static void *model_map_frame(struct machine *machine, pfn_t pfn)
{
	return phys_map(to_model(machine)->phys, pfn);
}

static int model_shootdown(struct machine *machine, pfn_t *frames, size_t nr)
{
	struct model_machine *m = to_model(machine);

	might_sleep();
	if (m->shootdown_hook)
		m->shootdown_hook(m->shootdown_hook_arg, frames, nr);
	atomic64_inc(&m->shootdowns);
	if (atomic_read(&m->fail_shootdowns) > 0 && atomic_dec_return(&m->fail_shootdowns) >= 0)
		return m->fail_error;

	for (unsigned int i = 0; i < m->nr_cpus; i++) {
		struct model_cpu *cpu = &m->cpu[i];

		model_cpu_lock_shoot(cpu);
		for (size_t n = 0; n < nr; n++)
			cpu->dropped += tlb_drop_pfn(cpu, frames[n]);
		model_cpu_unlock(cpu);
	}
	return 0;
}

static int model_shootdown_range(struct machine *machine, pfn_t first, size_t nr)
{
	pfn_t frames[LARGE_PAGES];

	for (size_t done = 0; done < nr; done += LARGE_PAGES) {
		size_t some = min(nr - done, (size_t)LARGE_PAGES);
		int err;

		for (size_t i = 0; i < some; i++)
			frames[i] = first + done + i;
		err = model_shootdown(machine, frames, some);
		if (err)
			return err;
	}
	return 0;
}

static void model_retire_table(struct machine *machine, pfn_t table)
{
	struct model_machine *m = to_model(machine);

	might_sleep();
	for (unsigned int i = 0; i < m->nr_cpus; i++) {
		struct model_cpu *cpu = &m->cpu[i];

		model_cpu_lock_shoot(cpu);
		if (cpu->root == table || tlb_has_leaf_of(cpu, table))
			atomic64_inc(&m->contract_violations);
		tlb_retire(cpu, table);
		model_cpu_unlock(cpu);
	}
	table_back(m, table);
}

static void model_load_root(struct machine *machine, unsigned int vcpu, pfn_t root)
{
	struct model_machine *m = to_model(machine);

	might_sleep();
	ASSERT(vcpu < m->nr_cpus, "CPU %u of %u", vcpu, m->nr_cpus);
	model_cpu_lock_shoot(&m->cpu[vcpu]);
	m->cpu[vcpu].root = root;
	model_cpu_unlock(&m->cpu[vcpu]);
}

static void model_halt(struct machine *machine, const char *why)
{
	struct model_machine *m = to_model(machine);

	might_sleep();
	(void)why;
	atomic_set(&m->halted, 1);
	/* Whoever was inside an access has left it once its CPU's lock was ours. */
	for (unsigned int i = 0; i < m->nr_cpus; i++) {
		model_cpu_lock_shoot(&m->cpu[i]);
		model_cpu_unlock(&m->cpu[i]);
	}
}

static const struct machine_ops model_ops = {
	.alloc_table = model_alloc_table,
	.free_table = model_free_table,
	.map_frame = model_map_frame,
	.shootdown = model_shootdown,
	.shootdown_range = model_shootdown_range,
	.retire_table = model_retire_table,
	.load_root = model_load_root,
	.halt = model_halt,
};

struct model_machine *model_create(struct phys *phys, unsigned int nr_cpus)
{
	struct model_machine *m = kzalloc(sizeof(*m) + nr_cpus * sizeof(m->cpu[0]), GFP_KERNEL);

	if (!m)
		return NULL;
	m->stack = kcalloc(phys_nr_frames(phys), sizeof(*m->stack), GFP_KERNEL);
	if (!m->stack) {
		kfree(m);
		return NULL;
	}
	m->machine.ops = &model_ops;
	m->machine.levels = 4;
	m->machine.huge = true;
	m->phys = phys;
	m->monitor = INVALID_PFN;
	m->nr_cpus = nr_cpus;
	spin_lock_init(&m->reuse_lock);
	for (unsigned int i = 0; i < nr_cpus; i++) {
		spin_lock_init(&m->cpu[i].lock);
		m->cpu[i].root = INVALID_PFN;
		tlb_init(&m->cpu[i]);
	}
	return m;
}

void model_destroy(struct model_machine *m)
{
	if (!m)
		return;
	for (unsigned int i = 0; i < m->nr_cpus; i++)
		tlb_destroy(&m->cpu[i]);
	while (m->nr_stack)
		phys_put(m->phys, m->stack[--m->nr_stack]);
	if (m->monitor != INVALID_PFN)
		phys_put(m->phys, m->monitor);
	kfree(m->gates);
	kfree(m->stack);
	kfree(m);
}

void model_set_levels(struct model_machine *m, unsigned int levels)
{
	m->machine.levels = levels;
}

void model_set_accessed_bits(struct model_machine *m, bool set)
{
	m->machine.no_accessed_bits = !set;
}

void model_set_reach(struct model_machine *m, gva_t first, gva_t end)
{
	m->machine.gva_first = first;
	m->machine.gva_end = end;
}

void model_set_reuse(struct model_machine *m, enum model_reuse reuse)
{
	m->reuse = reuse;
}

int model_reserve_slot(struct model_machine *m, unsigned int slot)
{
	ASSERT(m->monitor == INVALID_PFN && slot < 512, "one slot, reserved once");
	m->monitor = phys_alloc_zeroed(m->phys);
	m->reserved_slot = slot;
	return m->monitor == INVALID_PFN ? -ENOMEM : 0;
}

void model_set_shootdown_hook(struct model_machine *m,
			      void (*fn)(void *arg, const pfn_t *frames, size_t nr), void *arg)
{
	m->shootdown_hook_arg = arg;
	m->shootdown_hook = fn;
}

void model_fail_shootdowns(struct model_machine *m, unsigned int nr, int error)
{
	m->fail_error = error;
	atomic_set(&m->fail_shootdowns, nr);
}

int model_gates(struct model_machine *m, uint64_t nr_pages)
{
	ASSERT(!m->gates, "gates are made once");
	m->gates = kcalloc(nr_pages, sizeof(*m->gates), GFP_KERNEL);
	if (!m->gates)
		return -ENOMEM;
	m->nr_gates = nr_pages;
	return 0;
}

void model_gate_close(struct model_machine *m, gva_t gva)
{
	atomic_inc(&m->gates[gva >> PAGE_SHIFT]);
}

void model_gate_open(struct model_machine *m, gva_t gva)
{
	atomic_dec(&m->gates[gva >> PAGE_SHIFT]);
}

void model_get_stats(struct model_machine *m, struct model_stats *stats)
{
	*stats = (struct model_stats){
		.shootdowns = atomic64_read(&m->shootdowns),
		.tables_reused = atomic64_read(&m->tables_reused),
		.contract_violations = atomic64_read(&m->contract_violations),
	};
	for (unsigned int i = 0; i < m->nr_cpus; i++) {
		struct model_cpu *cpu = &m->cpu[i];

		model_cpu_lock_shoot(cpu);
		stats->accesses += cpu->accesses;
		stats->hits += cpu->hits;
		stats->walks += cpu->walks;
		stats->faults += cpu->faults;
		stats->dropped += cpu->dropped;
		stats->gate_violations += cpu->gate_violations;
		model_cpu_unlock(cpu);
	}
}

unsigned int model_cached(struct model_machine *m, pfn_t pfn)
{
	unsigned int cpus = 0;

	for (unsigned int i = 0; i < m->nr_cpus; i++) {
		model_cpu_lock_shoot(&m->cpu[i]);
		cpus += tlb_count_pfn(&m->cpu[i], pfn) != 0;
		model_cpu_unlock(&m->cpu[i]);
	}
	return cpus;
}

bool model_halted(struct model_machine *m)
{
	return atomic_read(&m->halted);
}
