/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The hosted engine: putting it together and taking it apart, and what the shadow MMU sees of it.
 * Creating it begins the first child, since that is what a host may refuse.
 */
#include "vmm/engine_hosted.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>

#include <gnomon/swap.h>

#include "notifier/sync/alloc.h"
#include "notifier/sync/bug.h"
#include "vmm/why.h"

#define HWCAP2_FSGSBASE (1u << 1)

/*
 * Entries of a TLB. A guest of 64 MiB fits. The host limits how many mappings a process has
 * (vm.max_map_count): each entry is one, and so is each gap between them.
 */
#define TLB_SIZE	 16384u
#define MAP_COUNT_GUESS	 65530u /* what Linux has if nobody says otherwise */
#define MAP_COUNT_SPARED 64u

static uint32_t tlb_size(void)
{
	unsigned int map_count = MAP_COUNT_GUESS;
	uint32_t size = TLB_SIZE;
	FILE *f = fopen("/proc/sys/vm/max_map_count", "re");

	if (f) {
		if (fscanf(f, "%u", &map_count) != 1)
			map_count = MAP_COUNT_GUESS;
		fclose(f);
	}
	while (size > MAP_COUNT_SPARED && 2 * size + MAP_COUNT_SPARED > map_count)
		size /= 2;
	return size;
}

/* --- machine_ops */

static pfn_t alloc_table(struct machine *machine, int level)
{
	struct hosted_engine *engine = machine_to_hosted_engine(machine);
	pfn_t table = phys_alloc_zeroed(engine->phys);

	/* Pages of guests have taken all but the reserve, and others' tables that. */
	if (unlikely(table == INVALID_PFN) && phys_reclaim(engine->phys, 1))
		table = phys_alloc_zeroed(engine->phys);
	/* No CPU goes there (HOSTED_GVA_END). It is for the shadow MMU, which leaves the slot to
	 * us. */
	if (table != INVALID_PFN && level == 4)
		((uint64_t *)phys_map(engine->phys, table))[HOSTED_RESERVED_SLOT] =
			engine->reserved << PAGE_SHIFT | 1;
	return table;
}

static void free_table(struct machine *machine, pfn_t table)
{
	phys_put(machine_to_hosted_engine(machine)->phys, table);
}

static void *map_frame(struct machine *machine, pfn_t pfn)
{
	return phys_map(machine_to_hosted_engine(machine)->phys, pfn);
}

static int shootdown(struct machine *machine, pfn_t *frames, size_t nr)
{
	struct hosted_engine *engine = machine_to_hosted_engine(machine);

	for (unsigned int i = 0; i < engine->nr_spaces; i++) {
		mutex_lock(&engine->spaces[i].lock);
		hosted_shoot(&engine->spaces[i], frames, nr);
		mutex_unlock(&engine->spaces[i].lock);
	}
	return 0;
}

static int shootdown_range(struct machine *machine, pfn_t first, size_t nr)
{
	struct hosted_engine *engine = machine_to_hosted_engine(machine);

	for (unsigned int i = 0; i < engine->nr_spaces; i++) {
		mutex_lock(&engine->spaces[i].lock);
		hosted_shoot_range(&engine->spaces[i], first, nr);
		mutex_unlock(&engine->spaces[i].lock);
	}
	return 0;
}

static void retire_table(struct machine *machine, pfn_t table)
{
	struct hosted_engine *engine = machine_to_hosted_engine(machine);

	hosted_drop_table(engine, table);
	phys_put(engine->phys, table);
}

static void load_root(struct machine *machine, unsigned int vcpu, pfn_t root)
{
	machine_to_hosted_engine(machine)->cpus[vcpu].root = root;
}

static void halt(struct machine *machine, const char *why)
{
	hosted_halt_all(machine_to_hosted_engine(machine), why);
}

static const struct machine_ops machine_ops = {
	.alloc_table = alloc_table,
	.free_table = free_table,
	.map_frame = map_frame,
	.shootdown = shootdown,
	.shootdown_range = shootdown_range,
	.retire_table = retire_table,
	.load_root = load_root,
	.halt = halt,
};

/* --- engine_ops */

/* Knows by the members how far create() came. */
static void destroy_engine(struct hosted_engine *engine)
{
	for (unsigned int i = 0; i < engine->nr_cpus; i++)
		BUG_ON(READ_ONCE(engine->cpus[i].running));
	hosted_spaces_destroy(engine);
	if (engine->stub_fd >= 0)
		close(engine->stub_fd);
	if (engine->reserved != INVALID_PFN)
		phys_put(engine->phys, engine->reserved);
	kfree(engine);
}

static struct hosted_engine *alloc_engine(struct phys *phys, unsigned int nr_cpus)
{
	struct hosted_engine *engine;

	engine = kzalloc(sizeof(*engine) + nr_cpus * sizeof(engine->cpus[0]), GFP_KERNEL);
	if (!engine)
		return NULL;
	engine->engine.ops = &engine_hosted;
	engine->engine.machine.ops = &machine_ops;
	engine->engine.machine.levels = 4;
	engine->engine.machine.huge = true;
	engine->engine.machine.gva_first = HOSTED_GVA_FIRST;
	engine->engine.machine.gva_end = HOSTED_GVA_END;
	engine->phys = phys;
	engine->nr_frames = phys_nr_frames(phys);
	engine->stub_fd = -1;
	engine->fsgsbase = getauxval(AT_HWCAP2) & HWCAP2_FSGSBASE;
	engine->tlb_size = tlb_size();
	engine->kicks_to_kill = HOSTED_KICKS_TO_KILL;
	mutex_init(&engine->spaces_lock);
	engine->nr_cpus = nr_cpus;
	engine->reserved = phys_alloc_zeroed(phys);
	for (unsigned int i = 0; i < nr_cpus; i++) {
		struct hosted_cpu *cpu = &engine->cpus[i];

		cpu->engine = engine;
		cpu->id = i;
		cpu->root = INVALID_PFN;
		spin_lock_init(&cpu->kick_lock);
	}
	return engine;
}

static int create(struct engine **enginep, struct phys *phys, unsigned int nr_vcpus, char *why,
		  size_t why_len)
{
	struct hosted_engine *engine;
	int err;

	if (nr_vcpus == 0 || nr_vcpus > STUB_MAX_VCPUS)
		return why_fail(why, why_len, -EINVAL, "%u vCPUs: 1 to %u are possible", nr_vcpus,
				STUB_MAX_VCPUS);
	engine = alloc_engine(phys, nr_vcpus);
	if (!engine)
		return why_fail(why, why_len, -ENOMEM, "out of memory");
	if (engine->reserved == INVALID_PFN) {
		err = why_fail(why, why_len, -ENOMEM, "no frame for the reserved slot");
		goto fail;
	}
	engine->stub_fd = hosted_stub_create(why, why_len);
	err = min(engine->stub_fd, 0);
	err = err ?: hosted_spaces_init(engine, why, why_len);
	if (err)
		goto fail;
	*enginep = &engine->engine;
	return 0;

fail:
	destroy_engine(engine);
	return err;
}

static void destroy(struct engine *engine)
{
	destroy_engine(to_hosted_engine(engine));
}

static int vcpu_init(struct engine *engine, unsigned int vcpu)
{
	hosted_place_init(&to_hosted_engine(engine)->cpus[vcpu]);
	return 0;
}

static struct guest_regs *regs(struct engine *engine, unsigned int vcpu)
{
	return &to_hosted_engine(engine)->cpus[vcpu].regs;
}

static void vcpu_run(struct engine *engine, unsigned int vcpu, struct engine_exit *exit)
{
	hosted_cpu_run(&to_hosted_engine(engine)->cpus[vcpu], exit);
}

static void kick(struct engine *engine, unsigned int vcpu)
{
	hosted_cpu_kick(&to_hosted_engine(engine)->cpus[vcpu]);
}

/* There is no quarantine: nobody but us walks the tables. */
static void stats(struct engine *engine, uint64_t *quarantine_drains, uint64_t *quarantined)
{
	(void)engine;
	*quarantine_drains = *quarantined = 0;
}

const struct engine_ops engine_hosted = {
	.name = "hosted",
	.probe = hosted_probe,
	.create = create,
	.destroy = destroy,
	.vcpu_init = vcpu_init,
	.regs = regs,
	.vcpu_run = vcpu_run,
	.kick = kick,
	.stats = stats,
};
