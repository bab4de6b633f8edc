/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The stages of mmu_stress.h on real vCPUs, of each engine. What is not usable here is skipped,
 * with the engine's own words for why.
 */
#include "tests/support/engine_rig.h"
#include "tests/support/mmu_stress.h"

#define STORM_AT 64

/* Each word of the CPU in turn, from RDI to RSI, with values that grow by one each time round. */
GUEST(storm, "1: mov %rdi, %rbx; 2: mov %rax, (%rbx); add $4096, %rbx; cmp %rsi, %rbx; jb 2b;"
	     "inc %rax; jmp 1b");

enum { STORE_AT = 0, LOAD_AT = 32 };

static const struct engine_ops *ops_of(struct stress *s)
{
	struct engine *engine = s->machine_arg;

	return engine->ops;
}

static void init_vcpu(struct stress *s, unsigned int cpu)
{
	expect_eq(ops_of(s)->vcpu_init(s->machine_arg, cpu), 0);
}

/* Until the program ends at its UD2, or a fault cannot be resolved. */
static enum ret_pf run_program(struct stress *s, unsigned int cpu)
{
	for (;;) {
		struct shadow_fault fault = {0};
		struct engine_exit exit;
		enum ret_pf pf;

		ops_of(s)->vcpu_run(s->machine_arg, cpu, &exit);
		if (exit.kind == ENGINE_EXIT_KICK)
			continue;
		if (exit.kind == ENGINE_EXIT_HALTED)
			return RET_PF_HALTED;
		if (exit.kind != ENGINE_EXIT_TRAP)
			fail("the engine failed: %s", exit.why);
		if (exit.vector == VECTOR_UD)
			return RET_PF_FIXED;
		expect_eq(exit.vector, VECTOR_PF);
		fault.gva = exit.fault_address;
		fault.error_code = exit.error_code & (PFERR_WRITE | PFERR_FETCH);
		pf = shadow_handle_fault(s->shadow, cpu, &fault);
		if (pf == RET_PF_RETRY)
			sched_yield();
		else if (pf != RET_PF_FIXED && pf != RET_PF_SPURIOUS)
			return pf;
	}
}

static enum ret_pf store(struct stress *s, unsigned int cpu, gva_t gva, uint64_t value)
{
	struct guest_regs *regs = ops_of(s)->regs(s->machine_arg, cpu);

	regs->rip = STRESS_CODE + STORE_AT;
	regs->gpr[GPR_RDI] = gva;
	regs->gpr[GPR_RAX] = value;
	return run_program(s, cpu);
}

static enum ret_pf load(struct stress *s, unsigned int cpu, gva_t gva, uint64_t *value)
{
	struct guest_regs *regs = ops_of(s)->regs(s->machine_arg, cpu);
	enum ret_pf pf;

	regs->rip = STRESS_CODE + LOAD_AT;
	regs->gpr[GPR_RDI] = gva;
	pf = run_program(s, cpu);
	*value = regs->gpr[GPR_RAX];
	return pf;
}

static enum ret_pf storm(struct stress *s, unsigned int cpu, uint64_t value)
{
	struct guest_regs *regs = ops_of(s)->regs(s->machine_arg, cpu);

	regs->rip = STRESS_CODE + STORM_AT;
	regs->gpr[GPR_RDI] = stress_gva(0, cpu);
	regs->gpr[GPR_RSI] = stress_gva(STRESS_PAGES, cpu);
	regs->gpr[GPR_RAX] = value;
	return run_program(s, cpu);
}

static void put_code(struct stress *s)
{
	const hva_t code = STRESS_RAM_HVA + PAGE_SIZE;

	expect_eq(mm_write(s->mm, code + STORE_AT, guest_store, guest_store_end - guest_store), 0);
	expect_eq(mm_write(s->mm, code + LOAD_AT, guest_load, guest_load_end - guest_load), 0);
	expect_eq(mm_write(s->mm, code + STORM_AT, guest_storm, guest_storm_end - guest_storm), 0);
}

static const struct stress_ops ops = {
	.put_code = put_code, .init = init_vcpu, .store = store, .load = load, .storm = storm};

static void run(const struct engine_ops *engine_ops, bool broken)
{
	static struct stress s;
	struct engine *engine;
	char why[256] = "";

	host(engine_ops);
	s.ops = &ops;
	expect_eq(phys_create(&s.phys, 1000), 0);
	if (engine_ops->create(&engine, s.phys, STRESS_CPUS, why, sizeof(why)))
		fail("create: %s", why);
	s.machine_arg = engine;
	if (broken)
		stress_broken(&s, &engine->machine);
	else
		stress_all(&s, &engine->machine, test_long() ? 200 : 20);
	engine_ops->destroy(engine);
	expect_eq(phys_nr_free(s.phys), phys_nr_frames(s.phys));
	phys_destroy(s.phys);
}

TEST(mmu_stress_engine, kvm)
{
	run(&engine_kvm, false);
}

TEST(mmu_stress_engine, hosted)
{
	run(&engine_hosted, false);
}

TEST(mmu_stress_engine, late_stores_without_shootdown_kvm)
{
	if (!engine_noted(host(&engine_kvm), "host_shadows_tables"))
		skip("a CPU that forgets by itself proves nothing here");
	run(&engine_kvm, true);
}

TEST(mmu_stress_engine, late_stores_without_shootdown_hosted)
{
	run(&engine_hosted, true);
}
