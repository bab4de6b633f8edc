/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Guests that ask the host's kernel for something: by every system call, by every way to make one,
 * from their own code and from the stub's. None is carried out.
 */
#include <linux/futex.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "tests/hosted/escape.h"

#define NR_SYSCALLS   513
#define X32	      0x40000000ul
#define NR_URETPROBE  335
#define NR_UPROBE     336
#define VSYSCALL_PAGE 0xffffffffff600000ul

GUEST(syscall, "syscall; ud2");
GUEST(int80, "int $0x80; ud2");
GUEST(sysenter, "sysenter; ud2");
GUEST(call, "call *%rbx; ud2");
GUEST(jump, "jmp *%rbx");

static const uint64_t odd_numbers[] = {1000, 1024, 4096, 0x7fffffff, 0xffffffff, ~0ul, 1ul << 32};

/* The arguments that would do the most harm, were it this system call or that. */
static void set_arguments(struct escape *e, unsigned int set, struct guest_regs *regs)
{
	uint64_t canary = e->canaries[set % NR_CANARIES] << PAGE_SHIFT;
	const uint64_t args[][6] = {
		/* mmap, mremap, mprotect, munmap */
		{DATA, PAGE_SIZE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_SHARED | MAP_FIXED,
		 STUB_FD_FRAMES, canary},
		/* pwrite, ftruncate, fallocate, write */
		{STUB_FD_FRAMES, DATA, PAGE_SIZE, canary, PAGE_SIZE, 0},
		/* kill, tkill, ptrace, pidfd_open */
		{getpid(), SIGKILL, SIGKILL, 0, 0, 0},
		{0x50f00 | SIGKILL, STACK_END - 64, DATA, DATA, 0, 0}, /* clone */
	};
	const uint64_t *a = args[set % ARRAY_SIZE(args)];

	regs->gpr[GPR_RDI] = a[0];
	regs->gpr[GPR_RSI] = a[1];
	regs->gpr[GPR_RDX] = a[2];
	regs->gpr[10] = a[3];
	regs->gpr[8] = a[4];
	regs->gpr[9] = a[5];
}

#define NR_SETS 4

static struct guest_regs program(struct escape *e, const char *code, const char *end)
{
	struct guest_regs regs = {.gpr[GPR_RSP] = STACK_END - 512, .rip = CODE};

	rig_start_at(&e->rig, 0, 0, code, end);
	return regs;
}

#define program(e, name) program(e, guest_##name, guest_##name##_end)

static void try_syscall(struct escape *e, uint64_t nr, unsigned int set)
{
	struct guest_regs regs = program(e, syscall);
	struct engine_exit exit;

	regs.gpr[GPR_RAX] = nr;
	set_arguments(e, set, &regs);
	exit = escape_attempt(e, &regs);
	expect_eq(exit.kind, ENGINE_EXIT_TRAP);
	expect_eq(exit.vector, VECTOR_UD);
	if (rig_regs(&e->rig, 0)->rip != CODE)
		fail("system call %#lx went through: it gave %#lx", (unsigned long)nr,
		     (unsigned long)rig_regs(&e->rig, 0)->gpr[GPR_RAX]);
	expect_eq(rig_regs(&e->rig, 0)->gpr[GPR_RAX], nr);
	expect_eq(rig_regs(&e->rig, 0)->gpr[GPR_RDI], regs.gpr[GPR_RDI]);
}

static void try_int80(struct escape *e, uint64_t nr, unsigned int set)
{
	struct guest_regs regs = program(e, int80);
	struct engine_exit exit;

	regs.gpr[GPR_RAX] = nr;
	set_arguments(e, set, &regs);
	/* As i386 has them: ebx ecx edx esi edi ebp. */
	regs.gpr[GPR_RBX] = regs.gpr[GPR_RDI];
	regs.gpr[GPR_RCX] = regs.gpr[GPR_RSI];
	regs.gpr[GPR_RSI] = regs.gpr[10];
	regs.gpr[GPR_RDI] = regs.gpr[8];
	regs.gpr[GPR_RBP] = regs.gpr[9];
	exit = escape_attempt(e, &regs);
	expect_eq(exit.kind, ENGINE_EXIT_TRAP);
	expect_eq(exit.vector, VECTOR_GP);
	expect_eq(exit.error_code, 0x402);
	expect_eq(rig_regs(&e->rig, 0)->rip, CODE);
}

static void every_number(void (*try)(struct escape *e, uint64_t nr, unsigned int set))
{
	struct escape e;

	escape_create(&e, 1);
	for (uint64_t nr = 0; nr < NR_SYSCALLS; nr++) {
		for (unsigned int set = 0; set < NR_SETS; set++)
			try(&e, nr, set);
		try(&e, nr | X32, nr % NR_SETS);
	}
	for (unsigned int i = 0; i < ARRAY_SIZE(odd_numbers); i++)
		try(&e, odd_numbers[i], i);
	expect_eq(e.died, 0);
	escape_destroy(&e);
}

TEST(hosted_syscalls, by_syscall)
{
	every_number(try_syscall);
}

TEST(hosted_syscalls, by_int80)
{
	every_number(try_int80);
}

/* #UD on this CPU, or the way of 32-bit programs into the kernel, where the filter waits as well.
 */
TEST(hosted_syscalls, by_sysenter)
{
	struct escape e;

	escape_create(&e, 1);
	for (uint64_t nr = 0; nr < NR_SYSCALLS; nr++) {
		struct guest_regs regs = program(&e, sysenter);

		regs.gpr[GPR_RAX] = nr;
		set_arguments(&e, nr, &regs);
		expect_ne(escape_attempt(&e, &regs).kind, ENGINE_EXIT_KICK);
	}
	escape_destroy(&e);
}

/* A page of the kernel's, in every process: its entries, and places between them. */
TEST(hosted_syscalls, by_the_vsyscall_page)
{
	static const uint64_t places[] = {0, 0x400, 0x800, 1, 9, 0x401, 0xbff, 0xc00, 0xffe};
	struct escape e;

	escape_create(&e, 1);
	for (unsigned int i = 0; i < ARRAY_SIZE(places); i++) {
		for (unsigned int set = 0; set < NR_SETS; set++) {
			struct guest_regs regs = program(&e, call);
			struct engine_exit exit;

			regs.gpr[GPR_RBX] = VSYSCALL_PAGE + places[i];
			set_arguments(&e, set, &regs);
			exit = escape_attempt(&e, &regs);
			expect_eq(exit.kind, ENGINE_EXIT_TRAP);
			expect_eq(exit.vector, VECTOR_PF);
			expect_eq(exit.error_code & ~1u, 0x14);
			expect_eq(exit.fault_address, regs.gpr[GPR_RBX]);
			expect_eq(rig_regs(&e.rig, 0)->rip, regs.gpr[GPR_RBX]);
			expect_eq(rig_regs(&e.rig, 0)->gpr[GPR_RSP], regs.gpr[GPR_RSP] - 8);
		}
	}
	escape_destroy(&e);
}

/*
 * Those that the stub's page may make; and two that no filter is asked about, since a kernel that
 * traces a process has it make them. From here they give an error.
 */
static bool is_made(uint64_t nr, const struct guest_regs *regs)
{
	uint32_t op = regs->gpr[GPR_RSI];

	return nr == SYS_rt_sigreturn || nr == NR_URETPROBE || nr == NR_UPROBE ||
	       (nr == SYS_futex && (op == FUTEX_WAIT || op == FUTEX_WAKE));
}

static void jump_to_syscall(struct escape *e, uint64_t offset, uint64_t nr, unsigned int set)
{
	struct guest_regs regs = program(e, jump);
	struct engine_exit exit;

	regs.gpr[GPR_RAX] = nr;
	regs.gpr[GPR_RBX] = STUB_CODE + offset;
	set_arguments(e, set, &regs);
	WRITE_ONCE(e->patience, is_made(nr, &regs) ? 1 : PATIENT);
	exit = escape_attempt(e, &regs);
	if (is_made(nr, &regs))
		return;
	expect_eq(exit.kind, ENGINE_EXIT_TRAP);
	expect_eq(exit.vector, VECTOR_PF);
	/* At the call itself: it was not made. */
	if (exit.fault_address != STUB_CODE + offset + SYSCALL_INSN_LENGTH)
		fail("system call %#lx of the stub's %#lx: it went on to %#lx", (unsigned long)nr,
		     offset, exit.fault_address);
}

/* The same from the stub's own instructions, where the filter lets some through. */
TEST(hosted_syscalls, by_the_stubs_instructions)
{
	const unsigned char *code = (const unsigned char *)hosted_stub_elf + PAGE_SIZE;
	unsigned int places = 0, turn = 0;
	struct escape e;

	escape_create(&e, 1);
	for (uint64_t offset = 0; offset + 1 < PAGE_SIZE; offset++) {
		if (code[offset] != 0x0f || code[offset + 1] != 0x05)
			continue;
		places++;
		for (uint64_t nr = 0; nr < NR_SYSCALLS; nr++)
			for (unsigned int set = 0; set < NR_SETS; set++)
				if (test_long() || turn++ % 16 == 0)
					jump_to_syscall(&e, offset, nr, set);
		for (unsigned int set = 0; set < NR_SETS; set++) {
			static const uint64_t worst[] = {SYS_mmap,	   SYS_munmap,
							 SYS_pwrite64,	   SYS_exit_group,
							 SYS_kill,	   SYS_clone,
							 SYS_rt_sigaction, SYS_execve,
							 SYS_mprotect};

			for (unsigned int i = 0; i < ARRAY_SIZE(worst); i++)
				jump_to_syscall(&e, offset, worst[i], set);
			jump_to_syscall(&e, offset, SYS_futex | X32, set);
			jump_to_syscall(&e, offset, SYS_rt_sigreturn | X32, set);
		}
	}
	expect_ge(places, 10);
	escape_destroy(&e);
}
