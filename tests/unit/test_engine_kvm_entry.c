/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Ways into the monitor that a guest does not find on every CPU, or should never find: the vCPU is
 * put there by hand, so this test sees the engine from inside.
 *
 * Without a usable /dev/kvm all of it is skipped.
 */
#include <sys/ioctl.h>

#include "tests/support/test.h"
#include "vmm/engine_kvm.h"

#define CODE  0x400000ul
#define TABLE 0x27ul
#define RWX   0x67ul

#define UD2 0x0b0f

struct bench {
	struct phys *phys;
	struct kvm_engine *engine;
	struct kvm_cpu *cpu;
	pfn_t tables[4], code;
};

/* One page of guest code, full of UD2. */
static void bench_create(struct bench *b)
{
	struct engine_report report;
	struct engine *engine;
	struct machine *machine;
	char why[256] = "";
	uint16_t *code;

	engine_kvm.probe(&report);
	if (!report.usable)
		skip("%s", report.why);
	expect_eq(phys_create(&b->phys, 64), 0);
	if (engine_kvm.create(&engine, b->phys, 1, why, sizeof(why)))
		fail("create: %s", why);
	b->engine = to_kvm_engine(engine);
	b->cpu = &b->engine->cpus[0];
	machine = &engine->machine;

	for (int level = 4; level > 0; level--)
		b->tables[level - 1] = machine->ops->alloc_table(machine, level);
	b->code = phys_alloc_zeroed(b->phys);
	code = phys_map(b->phys, b->code);
	for (unsigned int i = 0; i < PAGE_SIZE / 2; i++)
		code[i] = UD2;
	for (int level = 4; level > 0; level--) {
		uint64_t *table = phys_map(b->phys, b->tables[level - 1]);
		pfn_t next = level > 1 ? b->tables[level - 2] : b->code;

		table[CODE >> (3 + 9 * level) & 511] =
			next << PAGE_SHIFT | (level > 1 ? TABLE : RWX);
	}
	expect_eq(engine_kvm.vcpu_init(engine, 0), 0);
	machine->ops->load_root(machine, 0, b->tables[3]);
}

static void bench_destroy(struct bench *b)
{
	struct machine *machine = &b->engine->engine.machine;

	for (unsigned int i = 0; i < 4; i++)
		machine->ops->retire_table(machine, b->tables[i]);
	engine_kvm.destroy(&b->engine->engine);
	phys_put(b->phys, b->code);
	expect_eq(phys_nr_free(b->phys), phys_nr_frames(b->phys));
	phys_destroy(b->phys);
}

static struct engine_exit bench_run(struct bench *b)
{
	struct engine_exit exit;

	do {
		engine_kvm.vcpu_run(&b->engine->engine, 0, &exit);
	} while (exit.kind == ENGINE_EXIT_KICK);
	return exit;
}

static void bench_trap(struct bench *b, uint64_t rip)
{
	struct engine_exit exit;

	b->cpu->regs.rip = rip;
	exit = bench_run(b);
	if (exit.kind == ENGINE_EXIT_FAIL || exit.kind == ENGINE_EXIT_ERROR)
		fail("the engine failed: %s", exit.why);
	expect_eq(exit.kind, ENGINE_EXIT_TRAP);
	expect_eq(exit.vector, 6);
	expect_eq(b->cpu->regs.rip, rip);
}

/* The vCPU stands at @rip of the monitor, at CPL0, as if it had come there by itself. */
static void put_at_cpl0(struct bench *b, uint64_t rip, uint64_t rsp)
{
	struct kvm_sync_regs *sync = &b->cpu->run->s.regs;

	sync->regs.rip = rip;
	sync->regs.rsp = rsp;
	sync->regs.rflags = 2;
	sync->sregs.cs.selector = SEL_KERNEL_CS;
	sync->sregs.cs.dpl = 0;
	sync->sregs.ss.selector = SEL_KERNEL_SS;
	sync->sregs.ss.dpl = 0;
	b->cpu->run->kvm_dirty_regs = KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS;
	b->cpu->at = CPU_INSIDE;
}

TEST(engine_kvm_entry, syscall_at_cpl0)
{
	struct engine_exit exit;
	struct bench b = {0};

	bench_create(&b);
	bench_trap(&b, CODE + 10);
	for (unsigned int i = 0; i < 3; i++) {
		struct guest_regs *regs = &b.cpu->regs;

		put_at_cpl0(&b, kvm_monitor_stub(MONITOR_PORT_SYSCALL), 0xdead000 + i);
		b.cpu->run->s.regs.regs.rcx = CODE + 0x100;
		b.cpu->run->s.regs.regs.r11 = 0x3ed7;
		b.cpu->run->s.regs.regs.r15 = 15;
		exit = bench_run(&b);
		expect_eq(exit.kind, ENGINE_EXIT_TRAP);
		expect_eq(exit.vector, 6);
		expect_eq(regs->rip, CODE + 0x100 - 2);
		expect_eq(regs->rflags, 0xed7 & ~0x100);
		expect_eq(regs->gpr[GPR_RSP], 0xdead000 + i);
		expect_eq(regs->gpr[15], 15);

		/* The guest goes on, with whatever registers it is given. */
		regs->gpr[GPR_RSP] = 0xbeef0000;
		regs->gpr[GPR_RAX] = 99;
		bench_trap(&b, CODE + 0x100);
		expect_eq(regs->gpr[GPR_RSP], 0xbeef0000);
		expect_eq(regs->gpr[GPR_RAX], 99);
		expect_eq(regs->gpr[15], 15);
		bench_trap(&b, CODE + 0x102);
	}
	bench_destroy(&b);
}

static void expect_kind(struct bench *b, enum engine_exit_kind kind, const char *why)
{
	for (unsigned int i = 0; i < 2; i++) { /* for good */
		struct engine_exit exit = bench_run(b);

		expect_eq(exit.kind, kind);
		expect_str_contains(exit.why, why);
	}
}

static void expect_end(struct bench *b, const char *why)
{
	expect_kind(b, ENGINE_EXIT_FAIL, why);
	bench_destroy(b);
}

TEST(engine_kvm_entry, sysenter_ends_the_guest)
{
	struct bench b = {0};

	bench_create(&b);
	bench_trap(&b, CODE);
	put_at_cpl0(&b, kvm_monitor_stub(MONITOR_PORT_SYSENTER), MONITOR_STACK(0) + PAGE_SIZE);
	expect_end(&b, "SYSENTER");
}

TEST(engine_kvm_entry, syscall_32_ends_the_guest)
{
	struct bench b = {0};

	bench_create(&b);
	bench_trap(&b, CODE);
	put_at_cpl0(&b, kvm_monitor_stub(MONITOR_PORT_CSTAR), MONITOR_STACK(0) + PAGE_SIZE);
	expect_end(&b, "32-bit SYSCALL");
}

/* The stub runs on into the hlt behind its OUT. */
TEST(engine_kvm_entry, stub_overrun_ends_the_guest)
{
	struct bench b = {0};

	bench_create(&b);
	bench_trap(&b, CODE);
	put_at_cpl0(&b, kvm_monitor_stub(MONITOR_PORT_SYSCALL) + 2, MONITOR_STACK(0) + PAGE_SIZE);
	expect_end(&b, "stub");
}

/* A stub with a stack pointer that leads nowhere: exceptions that cannot be delivered. */
TEST(engine_kvm_entry, monitor_without_stack_ends_the_guest)
{
	struct bench b = {0};

	bench_create(&b);
	bench_trap(&b, CODE);
	put_at_cpl0(&b, kvm_monitor_stub(MONITOR_PORT_VECTOR), 0x1000);
	expect_end(&b, "triple fault");
}

/* A frame that IRETQ does not take faults at CPL0, and the frame of that fault is told apart. */
TEST(engine_kvm_entry, exception_in_the_monitor_ends_the_guest)
{
	const struct monitor_frame frames[] = {
		{.rip = CODE, .cs = 0x20 | 3, .rflags = 2, .ss = SEL_USER_SS},
		{.rip = CODE, .cs = SEL_KERNEL_CS, .rflags = 2, .rsp = 0x1000, .ss = 0xff8},
	};

	for (unsigned int i = 0; i < sizeof(frames) / sizeof(frames[0]); i++) {
		struct bench b = {0};

		bench_create(&b);
		bench_trap(&b, CODE);
		*b.cpu->frame = frames[i];
		b.cpu->at = CPU_INSIDE; /* the VMM does not get to repair the frame */
		expect_end(&b, "in the monitor");
	}
}

TEST(engine_kvm_entry, lost_memory_slot_ends_the_guest)
{
	struct bench b = {0};
	struct kvm_userspace_memory_region none = {0};

	bench_create(&b);
	bench_trap(&b, CODE);
	expect_eq(ioctl(b.engine->vm_fd, KVM_SET_USER_MEMORY_REGION, &none), 0);
	expect_end(&b, "");
}

/* KVM_RUN itself refuses: that is no fault of the guest's. */
TEST(engine_kvm_entry, errno_is_the_hosts)
{
	struct bench b = {0};
	int fd;

	bench_create(&b);
	bench_trap(&b, CODE);
	fd = b.cpu->fd;
	b.cpu->fd = b.engine->vm_fd; /* knows no KVM_RUN */
	expect_kind(&b, ENGINE_EXIT_ERROR, "KVM_RUN: ");
	b.cpu->fd = fd;
	bench_destroy(&b);
}

/* No slot, so no toggle: the machine halts itself. */
TEST(engine_kvm_entry, failed_toggle_halts)
{
	struct engine_exit exit;
	struct bench b = {0};
	int vm_fd;

	bench_create(&b);
	bench_trap(&b, CODE);
	b.engine->needs_quarantine = true;
	vm_fd = b.engine->vm_fd;
	b.engine->vm_fd = -1;
	for (unsigned int i = 0; i < b.engine->quarantine.limit; i++)
		kvm_retire_table(&b.engine->engine.machine,
				 kvm_alloc_table(&b.engine->engine.machine, 1));
	b.engine->vm_fd = vm_fd;
	exit = bench_run(&b);
	expect_eq(exit.kind, ENGINE_EXIT_HALTED);
	expect_str_contains(exit.why, "slot");
	bench_destroy(&b);
}
