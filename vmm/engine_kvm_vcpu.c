/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One vCPU: how a deprivileged guest is set up, entered, and comes back with a trap.
 *
 * The guest runs at CPL3, always. An exception takes it to a stub of the monitor at CPL0, which
 * OUTs: KVM_RUN returns. From then until the next entry its registers are in two places:
 *
 *   RIP, RSP, RFLAGS     in the exception frame on the monitor stack, at a fixed place
 *   the other 15         in the vCPU; KVM_CAP_SYNC_REGS shows them in kvm_run
 *
 * Rules:
 *  1. The vCPU's own RIP and RSP belong to the stub. They are not changed while it is behind its
 *     OUT: KVM may still have to complete that instruction.
 *  2. The frame is trusted only if the stub's RSP points at it and it says CPL3. Everything else is
 *     an exception in the monitor itself, and the end of this guest.
 *  3. Of RIP, RSP and RFLAGS only what IRETQ takes without a fault goes into the frame: a fault at
 *     CPL0 would be ours. CS and SS are constants. A RIP that is not canonical is what it would be
 *     on the CPU: #GP(0) for the guest.
 *  4. RFLAGS as the guest gets them: guest_flags().
 *  5. After ENGINE_EXIT_KICK the vCPU is wherever it was (CPU_INSIDE). Nothing of it is touched but
 *     CR3.
 */
#include "vmm/engine_kvm.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "notifier/sync/alloc.h"
#include "notifier/sync/bug.h"
#include "vmm/why.h"

#define SYNC_FIELDS (KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS)

#define X86_CR0_PE (1ul << 0)
#define X86_CR0_MP (1ul << 1)
#define X86_CR0_ET (1ul << 4)
#define X86_CR0_NE (1ul << 5)
#define X86_CR0_WP (1ul << 16)
#define X86_CR0_PG (1ul << 31)

#define X86_CR4_PAE  (1ul << 5)
#define X86_CR4_UMIP (1ul << 11)

#define X86_EFER_LME (1ul << 8)
#define X86_EFER_LMA (1ul << 10)
#define X86_EFER_NXE (1ul << 11)

/* Cleared by SYSCALL, where it enters the monitor: TF IF DF IOPL NT AC */
#define X86_FLAGS_SYSCALL_MASK 0x47700ul

#define MSR_SYSENTER_CS	 0x174
#define MSR_SYSENTER_ESP 0x175
#define MSR_SYSENTER_EIP 0x176
#define MSR_STAR	 0xc0000081
#define MSR_LSTAR	 0xc0000082
#define MSR_CSTAR	 0xc0000083
#define MSR_SFMASK	 0xc0000084

#define CPUID_MAX_ENTRIES 1024
#define CPUID_7_ECX_UMIP  (1u << 2)

/* Set-up. */

static const struct kvm_segment user_cs = {
	.limit = 0xffffffff,
	.selector = SEL_USER_CS,
	.type = 11,
	.present = 1,
	.dpl = 3,
	.s = 1,
	.l = 1,
	.g = 1,
};

static const struct kvm_segment user_data = {
	.limit = 0xffffffff,
	.selector = SEL_USER_SS,
	.type = 3,
	.present = 1,
	.dpl = 3,
	.db = 1,
	.s = 1,
	.g = 1,
};

static int set_cpuid(struct kvm_cpu *cpu)
{
	struct kvm_cpuid2 *cpuid;
	int err = 0;

	cpuid = kzalloc(sizeof(*cpuid) + CPUID_MAX_ENTRIES * sizeof(cpuid->entries[0]), GFP_KERNEL);
	if (!cpuid)
		return -ENOMEM;
	cpuid->nent = CPUID_MAX_ENTRIES;
	if (ioctl(cpu->engine->kvm_fd, KVM_GET_SUPPORTED_CPUID, cpuid) ||
	    ioctl(cpu->fd, KVM_SET_CPUID2, cpuid))
		err = -errno;
	for (unsigned int i = 0; i < cpuid->nent && !err; i++)
		if (cpuid->entries[i].function == 7 && cpuid->entries[i].index == 0)
			cpu->engine->umip = cpuid->entries[i].ecx & CPUID_7_ECX_UMIP;
	kfree(cpuid);
	return err;
}

/*
 * EFER.SCE is clear, so SYSCALL should be #UD; but see take_syscall(). SYSENTER_CS 0 makes SYSENTER
 * #GP where it exists at all. The stubs are there for a KVM that thinks otherwise of either.
 */
static int set_msrs(struct kvm_cpu *cpu)
{
	const struct kvm_msr_entry entries[] = {
		{.index = MSR_STAR,
		 .data = (uint64_t)(SEL_USER_SS - 8) << 48 | (uint64_t)SEL_KERNEL_CS << 32},
		{.index = MSR_LSTAR, .data = kvm_monitor_stub(MONITOR_PORT_SYSCALL)},
		{.index = MSR_CSTAR, .data = kvm_monitor_stub(MONITOR_PORT_CSTAR)},
		{.index = MSR_SFMASK, .data = X86_FLAGS_SYSCALL_MASK},
		{.index = MSR_SYSENTER_CS, .data = 0},
		{.index = MSR_SYSENTER_ESP, .data = MONITOR_STACK(cpu->id) + PAGE_SIZE},
		{.index = MSR_SYSENTER_EIP, .data = kvm_monitor_stub(MONITOR_PORT_SYSENTER)},
	};
	struct kvm_msrs *msrs = kzalloc(sizeof(*msrs) + sizeof(entries), GFP_KERNEL);
	int set;

	if (!msrs)
		return -ENOMEM;
	msrs->nmsrs = ARRAY_SIZE(entries);
	memcpy(msrs->entries, entries, sizeof(entries));
	set = ioctl(cpu->fd, KVM_SET_MSRS, msrs);
	if (set < 0)
		set = -errno;
	kfree(msrs);
	if (set < 0)
		return set;
	return set == ARRAY_SIZE(entries) ? 0 : -EINVAL;
}

/*
 * UMIP makes SGDT, SIDT, SLDT, STR and SMSW trap. CR4.OSFXSR stays clear: guests are not offered
 * SSE.
 */
static int set_sregs(struct kvm_cpu *cpu)
{
	struct kvm_sregs s;

	if (ioctl(cpu->fd, KVM_GET_SREGS, &s))
		return -errno;
	s.cs = user_cs;
	s.ds = s.es = s.fs = s.gs = s.ss = user_data;
	s.ldt = (struct kvm_segment){.unusable = 1};
	s.tr = (struct kvm_segment){
		.base = MONITOR_DESC(cpu->id) + MONITOR_TSS_OFFSET,
		.limit = MONITOR_TSS_LIMIT,
		.selector = SEL_TSS,
		.type = 11,
		.present = 1,
	};
	s.gdt.base = MONITOR_DESC(cpu->id);
	s.gdt.limit = GDT_ENTRIES * 8 - 1;
	s.idt.base = MONITOR_IDT;
	s.idt.limit = NR_VECTORS * 16 - 1;
	s.cr0 = X86_CR0_PE | X86_CR0_MP | X86_CR0_ET | X86_CR0_NE | X86_CR0_WP | X86_CR0_PG;
	s.cr3 = 0;
	s.cr4 = X86_CR4_PAE | (cpu->engine->umip ? X86_CR4_UMIP : 0);
	s.efer = X86_EFER_LME | X86_EFER_LMA | X86_EFER_NXE;
	if (ioctl(cpu->fd, KVM_SET_SREGS, &s))
		return -errno;

	/* From here on kvm_run's copy is the one that is edited. */
	cpu->run->s.regs.sregs = s;
	cpu->run->kvm_valid_regs = SYNC_FIELDS;
	return 0;
}

int kvm_cpu_init(struct kvm_cpu *cpu, char *why, size_t why_len)
{
	struct kvm_engine *engine = cpu->engine;
	const char *step = "KVM_CREATE_VCPU";
	int err, size;

	cpu->fd = ioctl(engine->vm_fd, KVM_CREATE_VCPU, (unsigned long)cpu->id);
	if (cpu->fd < 0)
		goto fail;

	step = "mapping kvm_run";
	size = ioctl(engine->kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
	if (size < 0)
		goto fail;
	cpu->run = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, cpu->fd, 0);
	if (cpu->run == MAP_FAILED) {
		cpu->run = NULL;
		goto fail;
	}
	cpu->run_size = size;

	err = set_cpuid(cpu);
	if (err)
		return why_fail(why, why_len, err, "KVM does not take its own CPUID: %s",
				strerror(-err));
	err = set_sregs(cpu);
	if (err)
		return why_fail(why, why_len, err, "KVM does not take a 64-bit CPU at CPL3: %s",
				strerror(-err));
	err = set_msrs(cpu);
	if (err)
		return why_fail(why, why_len, err, "KVM does not take the SYSCALL registers: %s",
				strerror(-err));
	return 0;

fail:
	err = -errno;
	return why_fail(why, why_len, err, "%s failed: %s", step, strerror(-err));
}

void kvm_cpu_destroy(struct kvm_cpu *cpu)
{
	if (cpu->run)
		munmap(cpu->run, cpu->run_size);
	if (cpu->fd >= 0)
		close(cpu->fd);
}

/* Entry. */

/*
 * Through kvm_run like everything else: SET_SREGS would be one more system call, and costs the same
 * otherwise (docs/engines.md has the figures).
 *
 * A frame may come back as a root after it was retired; its number is then the same, and the load
 * is skipped. That is right: nothing of the old root is cached any more, or it would not be free.
 */
void kvm_load_root(struct machine *machine, unsigned int vcpu, pfn_t root)
{
	struct kvm_cpu *cpu = &machine_to_kvm_engine(machine)->cpus[vcpu];

	if (cpu->root == root)
		return;
	cpu->root = root;
	cpu->run->s.regs.sregs.cr3 = root << PAGE_SHIFT;
	cpu->run->kvm_dirty_regs |= KVM_SYNC_X86_SREGS;
}

/* Where kvm_run keeps general register @n of our numbering. */
static __u64 *sync_gpr(struct kvm_cpu *cpu, unsigned int n)
{
	struct kvm_regs *r = &cpu->run->s.regs.regs;
	__u64 *const low[] = {&r->rax, &r->rcx, &r->rdx, &r->rbx,
			      &r->rsp, &r->rbp, &r->rsi, &r->rdi};

	return n < 8 ? low[n] : &r->r8 + (n - 8);
}

static void load_gprs(struct kvm_cpu *cpu)
{
	uint64_t changed = 0;

	for (unsigned int n = 0; n < 16; n++) {
		__u64 *reg = sync_gpr(cpu, n);

		if (n == GPR_RSP)
			continue;
		changed |= *reg ^ cpu->regs.gpr[n];
		*reg = cpu->regs.gpr[n];
	}
	if (changed)
		cpu->run->kvm_dirty_regs |= KVM_SYNC_X86_REGS;
}

static void load_registers(struct kvm_cpu *cpu)
{
	struct kvm_sync_regs *sync = &cpu->run->s.regs;

	switch (cpu->at) {
	case CPU_COLD:
		load_gprs(cpu);
		sync->regs.rsp = cpu->regs.gpr[GPR_RSP];
		sync->regs.rip = cpu->regs.rip;
		sync->regs.rflags = guest_flags(cpu->regs.rflags);
		sync->sregs.cs = user_cs;
		sync->sregs.ss = user_data;
		cpu->run->kvm_dirty_regs |= SYNC_FIELDS;
		break;
	case CPU_TRAPPED:
		load_gprs(cpu);
		*cpu->frame = (struct monitor_frame){
			.error_code = cpu->frame->error_code,
			.rip = cpu->regs.rip,
			.cs = SEL_USER_CS,
			.rflags = guest_flags(cpu->regs.rflags),
			.rsp = cpu->regs.gpr[GPR_RSP],
			.ss = SEL_USER_SS,
		};
		break;
	case CPU_INSIDE:
	case CPU_FAILED:
		break;
	}
	cpu->at = CPU_INSIDE;
}

/* Back with a trap. */

static void save_gprs(struct kvm_cpu *cpu)
{
	for (unsigned int n = 0; n < 16; n++)
		if (n != GPR_RSP)
			cpu->regs.gpr[n] = *sync_gpr(cpu, n);
}

/*
 * SYSCALL arrives in one of three ways, all reported as the #UD that it should have been:
 *
 *   - as #UD at the instruction, where EFER.SCE is honoured: nothing to do here;
 *   - in its stub at CPL0, by that stub's own port. RSP is the guest's. There is no frame, so the
 *     guest continues by a cold entry;
 *   - as #PF, because the CPU went to the stub without leaving CPL3 and may not fetch there.
 *
 * In the latter two RCX and R11 hold the next RIP and RFLAGS, and what they held is lost. A guest
 * may also jump to the stub's address with an RCX of its own making. Then it is told that it
 * executed a SYSCALL where it did not: the VMM looks at that place by the guest's own tables, and
 * does there what the guest could have had done by going there.
 */
static void take_syscall(struct kvm_cpu *cpu, struct engine_exit *exit)
{
	cpu->regs.rip = cpu->regs.gpr[GPR_RCX] - SYSCALL_INSN_LENGTH;
	cpu->regs.rflags = guest_flags(cpu->regs.gpr[11]);
	exit->vector = VECTOR_UD;
	exit->error_code = 0;
	exit->fault_address = 0;
}

static void syscall_exit(struct kvm_cpu *cpu, struct engine_exit *exit)
{
	save_gprs(cpu);
	cpu->regs.gpr[GPR_RSP] = cpu->run->s.regs.regs.rsp;
	take_syscall(cpu, exit);
	exit->kind = ENGINE_EXIT_TRAP;

	/* Let KVM finish the OUT, and no more than that, before every register is replaced. */
	WRITE_ONCE(cpu->run->immediate_exit, 1);
	ioctl(cpu->fd, KVM_RUN, 0);
	cpu->at = CPU_COLD;
}

/* An exception at CPL0 pushes its frame below the one that was there: rule 2. */
static void monitor_exception(struct kvm_cpu *cpu, struct engine_exit *exit, unsigned int vector)
{
	const struct kvm_sync_regs *sync = &cpu->run->s.regs;
	uint64_t offset = sync->regs.rsp - MONITOR_STACK(cpu->id);
	struct monitor_frame frame = {0};

	if (offset <= PAGE_SIZE - sizeof(frame))
		memcpy(&frame, (char *)(cpu->frame + 1) - PAGE_SIZE + offset, sizeof(frame));
	kvm_exit_fail(cpu, exit,
		      "exception %u in the monitor: rip %#" PRIx64 " error code %#" PRIx64
		      " cr2 %#llx (rsp %#llx)",
		      vector, frame.rip, frame.error_code, sync->sregs.cr2, sync->regs.rsp);
}

static void trap_exit(struct kvm_cpu *cpu, struct engine_exit *exit, unsigned int vector)
{
	const struct kvm_sync_regs *sync = &cpu->run->s.regs;
	const struct monitor_frame frame = *cpu->frame;
	uint64_t top = MONITOR_STACK(cpu->id) + PAGE_SIZE;

	if (sync->regs.rsp != top - sizeof(frame) || (frame.cs & 3) != 3) {
		monitor_exception(cpu, exit, vector);
		return;
	}
	if (frame.cs != SEL_USER_CS) {
		kvm_exit_fail(cpu, exit,
			      "the guest left 64-bit mode: cs %#" PRIx64 " at rip %#" PRIx64,
			      frame.cs, frame.rip);
		return;
	}

	save_gprs(cpu);
	cpu->regs.gpr[GPR_RSP] = frame.rsp;
	cpu->regs.rip = frame.rip;
	cpu->regs.rflags = guest_flags(frame.rflags);
	exit->kind = ENGINE_EXIT_TRAP;
	exit->vector = vector;
	exit->error_code = frame.error_code;
	exit->fault_address = vector == VECTOR_PF ? sync->sregs.cr2 : 0;
	if (vector == VECTOR_PF && frame.rip == kvm_monitor_stub(MONITOR_PORT_SYSCALL) &&
	    sync->sregs.cr2 == frame.rip)
		take_syscall(cpu, exit);
	cpu->at = CPU_TRAPPED;
}

/* The stubs are the only code that may do I/O. */
static void io_exit(struct kvm_cpu *cpu, struct engine_exit *exit)
{
	const struct kvm_run *run = cpu->run;
	unsigned int port = run->io.port;

	if (run->s.regs.sregs.cs.selector & 3)
		kvm_exit_fail(cpu, exit, "port %#x was open to the guest", port);
	else if (port >= MONITOR_PORT_VECTOR && port < MONITOR_PORT_VECTOR + NR_VECTORS)
		trap_exit(cpu, exit, port - MONITOR_PORT_VECTOR);
	else if (port == MONITOR_PORT_SYSCALL)
		syscall_exit(cpu, exit);
	else
		kvm_exit_fail(cpu, exit, "the monitor was entered by %s",
			      port == MONITOR_PORT_CSTAR      ? "a 32-bit SYSCALL"
			      : port == MONITOR_PORT_SYSENTER ? "SYSENTER"
							      : "an unknown way");
}

/* Between kvm_gate_enter and kvm_gate_leave: takes no lock and waits for nobody. */
static void run_inside(struct kvm_cpu *cpu, struct engine_exit *exit)
{
	int err;

	if (cpu->at != CPU_INSIDE && !canonical(cpu->regs.rip)) {
		exit->kind = ENGINE_EXIT_TRAP;
		exit->vector = VECTOR_GP;
		return;
	}
	load_registers(cpu);
	err = ioctl(cpu->fd, KVM_RUN, 0) ? errno : 0;

	/* A kick, the gate, or a signal of somebody else's. */
	if (err == EINTR || (!err && cpu->run->exit_reason == KVM_EXIT_INTR)) {
		kvm_gate_was_kicked(cpu);
		exit->kind = ENGINE_EXIT_KICK;
	} else if (err) {
		kvm_exit_explain_errno(cpu, exit, err);
	} else if (cpu->run->exit_reason == KVM_EXIT_IO) {
		io_exit(cpu, exit);
	} else {
		kvm_exit_explain(cpu, exit);
	}
}

void kvm_cpu_run(struct kvm_cpu *cpu, struct engine_exit *exit)
{
	memset(exit, 0, sizeof(*exit));
	BUG_ON(cpu->root == INVALID_PFN);
	if (cpu->at == CPU_FAILED) {
		exit->kind = cpu->failed;
		exit->why = cpu->why;
		return;
	}
	switch (kvm_gate_enter(cpu)) {
	case GATE_KICKED:
		exit->kind = ENGINE_EXIT_KICK;
		break;
	case GATE_HALTED:
		exit->kind = ENGINE_EXIT_HALTED;
		exit->why = READ_ONCE(cpu->engine->halted);
		break;
	case GATE_OPEN:
		run_inside(cpu, exit);
		kvm_gate_leave(cpu);
		break;
	}
}
