/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The fixture of guest_mem.h. */
#include "tests/model/guest_mem.h"

#include "notifier/sync/bug.h"

/* Table frames for the shadow MMU, and slack so that migrations find a frame. */
#define SPARE_FRAMES 512

void guest_mem_init(struct guest_mem *g, const struct guest_mem_config *config)
{
	*g = (struct guest_mem){.config = *config};
	if (!g->config.nr_cpus)
		g->config.nr_cpus = 1;
	if (!g->config.levels)
		g->config.levels = 4;
	g->nr_pages = config->nr_pages ? config->nr_pages : 64;
	if (!g->config.nr_frames)
		g->config.nr_frames = 2 * g->nr_pages + SPARE_FRAMES;
	g->next_table = g->nr_pages;

	ASSERT(!phys_create(&g->phys, g->config.nr_frames), "a pool of frames");
	g->mm = mm_alloc(g->phys);
	if (!config->private_ram)
		g->ram = address_space_create(g->phys, g->nr_pages);
	ASSERT(g->mm && (g->ram || config->private_ram), "out of memory");
	ASSERT(!mm_mmap(g->mm, GUEST_MEM_HVA, g->nr_pages << PAGE_SHIFT,
			MM_PROT_READ | MM_PROT_WRITE, g->ram, 0),
	       "guest RAM");
}

void guest_mem_attach(struct guest_mem *g)
{
	g->model = model_create(g->phys, g->config.nr_cpus);
	ASSERT(g->model, "out of memory");
	model_set_reuse(g->model, g->config.reuse);
	model_set_levels(g->model, g->config.levels);
	model_set_accessed_bits(g->model, !g->config.no_accessed_bits);
	model_set_reach(g->model, g->config.gva_first, g->config.gva_end);
	if (g->config.reserve_slot)
		ASSERT(!model_reserve_slot(g->model, g->config.reserve_slot), "a monitor");

	ASSERT(!shadow_create(&g->shadow, g->mm, model_to_machine(g->model), g->config.nr_cpus),
	       "a shadow MMU");
	shadow_set_break(g->shadow, g->config.broken);
	shadow_set_audit(g->shadow, g->config.audit ? SHADOW_AUDIT_SEMANTIC : SHADOW_AUDIT_OFF);
	ASSERT(!shadow_create_memslot(g->shadow, 0, 0, g->nr_pages, GUEST_MEM_HVA), "a memslot");

	g->cr3 = guest_new_table(g);
	if (!g->config.no_identity) {
		/* One table of leaves for each 512 pages, and one of each level above. */
		uint64_t end = g->next_table - (g->nr_pages / 512 + 1) - (g->config.levels - 2);

		for (gfn_t gfn = 0; gfn < end; gfn++)
			guest_map(g, g->cr3, gfn << PAGE_SHIFT, gfn << PAGE_SHIFT, GUEST_PTE_RW);
		ASSERT(g->next_table >= end, "the tables lie above what they map");
	}
	for (unsigned int cpu = 0; cpu < g->config.nr_cpus; cpu++)
		ASSERT(!shadow_load_cr3(g->shadow, cpu, g->cr3), "a root for CPU %u", cpu);
}

void guest_mem_create(struct guest_mem *g, const struct guest_mem_config *config)
{
	guest_mem_init(g, config);
	guest_mem_attach(g);
}

void guest_mem_detach(struct guest_mem *g)
{
	if (g->shadow)
		shadow_destroy(g->shadow);
	model_destroy(g->model);
	g->shadow = NULL;
	g->model = NULL;
}

void guest_mem_destroy(struct guest_mem *g)
{
	guest_mem_detach(g);
	if (g->mm)
		mmput(g->mm);
	if (g->ram)
		address_space_put(g->ram);
	ASSERT(phys_nr_free(g->phys) == phys_nr_frames(g->phys), "%lu frames did not come back",
	       phys_nr_frames(g->phys) - phys_nr_free(g->phys));
	phys_destroy(g->phys);
}

uint64_t guest_read(struct guest_mem *g, gpa_t gpa)
{
	uint64_t value;

	ASSERT(!mm_read(g->mm, guest_hva(gpa), &value, sizeof(value)), "gpa 0x%lx", gpa);
	return value;
}

void guest_write(struct guest_mem *g, gpa_t gpa, uint64_t value)
{
	ASSERT(!mm_write(g->mm, guest_hva(gpa), &value, sizeof(value)), "gpa 0x%lx", gpa);
}

void guest_edit(struct guest_mem *g, gpa_t gpa, uint64_t gpte)
{
	ASSERT(!shadow_write_gpa(g->shadow, gpa, &gpte, sizeof(gpte)), "gpa 0x%lx", gpa);
}

gpa_t guest_new_table(struct guest_mem *g)
{
	gpa_t table = --g->next_table << PAGE_SHIFT;

	ASSERT(g->next_table, "guest RAM is too small for its tables");
	for (unsigned int i = 0; i < 512; i++)
		guest_write(g, table + i * 8, 0);
	return table;
}

gpa_t guest_pte_gpa(struct guest_mem *g, uint64_t cr3, gva_t gva, int level)
{
	gpa_t table = cr3;

	for (int at = g->config.levels;; at--) {
		gpa_t pte = table + ((gva >> (PAGE_SHIFT + 9 * (at - 1))) & 511) * 8;
		uint64_t value;

		if (at == level)
			return pte;
		value = guest_read(g, pte);
		if (!(value & GUEST_PTE_P)) {
			value = guest_new_table(g) | GUEST_PTE_RW | GUEST_PTE_U;
			guest_write(g, pte, value);
		}
		table = value & 0x000ffffffffff000UL;
	}
}

void guest_map(struct guest_mem *g, uint64_t cr3, gva_t gva, gpa_t gpa, uint64_t flags)
{
	guest_edit(g, guest_pte_gpa(g, cr3, gva, 1), gpa | flags);
}

void guest_reload_afresh(struct guest_mem *g, unsigned int cpu)
{
	for (gpa_t pte = g->cr3; pte < g->cr3 + PAGE_SIZE; pte += 8)
		guest_write(g, pte, guest_read(g, pte) & ~GUEST_PTE_A);
	ASSERT(!shadow_load_cr3(g->shadow, cpu, g->cr3), "CPU %u keeps its root", cpu);
}

enum ret_pf guest_fault(struct guest_mem *g, unsigned int cpu, gva_t gva, uint32_t access,
			struct shadow_fault *fault)
{
	*fault = (struct shadow_fault){.gva = gva, .error_code = access, .gpa = INVALID_GFN};
	return shadow_handle_fault(g->shadow, cpu, fault);
}

enum ret_pf guest_try(struct guest_mem *g, unsigned int cpu, enum model_op op, gva_t gva,
		      uint32_t *error_code)
{
	struct model_access access = {.op = op, .gva = gva};
	enum ret_pf pf = model_access_retry(g->model, cpu, g->shadow, &access);

	if (error_code)
		*error_code = access.error_code;
	return pf;
}

static uint64_t access_or_die(struct guest_mem *g, unsigned int cpu, struct model_access *access)
{
	enum ret_pf pf = model_access_retry(g->model, cpu, g->shadow, access);

	ASSERT(pf == RET_PF_FIXED, "CPU %u at gva 0x%lx: %s, error code 0x%x", cpu, access->gva,
	       ret_pf_name(pf), access->error_code);
	return access->value;
}

uint64_t guest_load(struct guest_mem *g, unsigned int cpu, gva_t gva)
{
	struct model_access access = {.op = MODEL_LOAD, .gva = gva};

	return access_or_die(g, cpu, &access);
}

void guest_store(struct guest_mem *g, unsigned int cpu, gva_t gva, uint64_t value)
{
	struct model_access access = {.op = MODEL_STORE, .gva = gva, .value = value};

	access_or_die(g, cpu, &access);
}
