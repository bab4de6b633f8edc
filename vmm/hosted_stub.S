/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What runs in a child of the hosted engine besides the guest: the whole of an ELF program, headers
 * included, which the VMM writes to a memfd and executes. It has one page of code that works at any
 * address, and no data and no stack, since whatever could be written could be written by the guest.
 *
 * Main thread, and another beside it, the mappers: they carry out lists of system calls that the VMM
 * writes (hosted_stub.h). Their registers: rbx STUB_CMD(m); r15d STUB_CTL_CMD(m), the same page in
 * the file; r12d the seq of the list that it did last; r13d, r14 calls to do.
 *
 * Other threads, one for each vCPU: guest code, and handler, which stops for the VMM at every
 * signal. The guest may jump to any place here. It gets nowhere: its thread is allowed two system
 * calls, rt_sigreturn and futex, and these from this page alone.
 */
#include <asm/unistd_64.h>

#include "vmm/hosted_stub.h"

#define LOAD	   0x400000 /* where the kernel puts it, before it moves itself to STUB_CODE */
#define AT(label)  (STUB_CODE + (label) - hosted_stub_code)
#define PROT_READ  1
#define PROT_EXEC  4
#define MAP_SHARED 1
#define MAP_FIXED  0x10

#define SIG_SETMASK 2

#define PR_SET_SYSCALL_USER_DISPATCH 59
#define PR_SYS_DISPATCH_ON	     1

#define SA_SIGINFO  0x00000004
#define SA_RESTORER 0x04000000
#define SA_ONSTACK  0x08000000

#define FUTEX_WAIT 0
#define FUTEX_WAKE 1
#define INT_MAX	   0x7fffffff

#define SECCOMP_SET_MODE_FILTER	1
#define SECCOMP_RET_TRAP	0x00030000
#define SECCOMP_RET_ALLOW	0x7fff0000
#define AUDIT_ARCH_X86_64	0xc000003e
#define BPF_LD_W_ABS		0x20
#define BPF_JEQ			0x15
#define BPF_JGE			0x35
#define BPF_RET			0x06

	.section .rodata.hosted_stub, "a", @progbits
	.balign	4096
	.globl	hosted_stub_elf
hosted_stub_elf:
	.byte	0x7f, 'E', 'L', 'F', 2, 1, 1, 0
	.zero	8
	.short	2, 62			/* ET_EXEC, EM_X86_64 */
	.long	1
	.quad	LOAD + start - hosted_stub_elf
	.quad	64, 0			/* program headers follow; there are no sections */
	.long	0
	.short	64, 56, 2, 64, 0, 0
	/* PT_LOAD, r-x: the page of code. */
	.long	1, 5
	.quad	0x1000, LOAD + 0x1000, LOAD + 0x1000, code_end - hosted_stub_code
	.quad	code_end - hosted_stub_code, 0x1000
	/* PT_GNU_STACK, rw-: without it old kernels would let the guest execute all it can read. */
	.long	0x6474e551, 6
	.quad	0, 0, 0, 0, 0, 16

	.balign	4096
	.globl	hosted_stub_code
hosted_stub_code:
start:
	movabsq	$STUB_CODE, %rdi
	movl	$4096, %esi
	movl	$(PROT_READ | PROT_EXEC), %edx
	movl	$(MAP_SHARED | MAP_FIXED), %r10d
	movl	$STUB_FD_CODE, %r8d
	movl	$4096, %r9d
	movl	$__NR_mmap, %eax
	syscall
	cmpq	%rdi, %rax
	jne	no_map
	leaq	(moved - hosted_stub_code)(%rdi), %rax
	jmp	*%rax

	/* Here at STUB_CODE. All else goes, the kernel's own pages and the first stack too. */
moved:
	xorl	%edi, %edi
	movabsq	$STUB_BASE, %rsi
	movl	$__NR_munmap, %eax
	syscall
	testq	%rax, %rax
	jnz	no_map
	movabsq	$(STUB_BASE + 0x1000), %rdi
	movl	$(STUB_ADDR_END - STUB_BASE - 0x1000), %esi
	movl	$__NR_munmap, %eax
	syscall
	testq	%rax, %rax
	jnz	no_map
	movabsq	$STUB_CMD(0), %rbx
	movq	%rbx, %rdi
	movl	$(STUB_NR_MAPPERS * STUB_MAPPER_SIZE), %esi
	movl	$PROT_READ, %edx
	movl	$(MAP_SHARED | MAP_FIXED), %r10d
	movl	$STUB_FD_CTL, %r8d
	movl	$STUB_CTL_CMD(0), %r9d
	movl	$__NR_mmap, %eax
	syscall
	cmpq	%rbx, %rax
	jne	no_map
	xorl	%r15d, %r15d
	xorl	%r12d, %r12d

mapper:
	movl	CMD_SEQ(%rbx), %eax
	cmpl	%r12d, %eax
	jne	list
	leaq	CMD_SEQ(%rbx), %rdi
	movl	$FUTEX_WAIT, %esi
	movl	%r12d, %edx
	leaq	CMD_PATIENCE(%rbx), %r10
	movl	$__NR_futex, %eax
	syscall
	/* If there is nothing new, time is up; or a guest has woken us, which it may do all the time. */
	cmpl	CMD_SEQ(%rbx), %r12d
	jne	mapper
	movl	$__NR_getppid, %eax
	syscall
	cmpl	CMD_PARENT(%rbx), %eax
	je	mapper
	xorl	%edi, %edi
	jmp	die

	/* The loads of what the list says come after that of seq, as they do on this CPU. Pairs with
	 * hosted_post(). */
list:
	movl	%eax, %r12d
	movl	CMD_NR(%rbx), %r13d
	leaq	STUB_CMD_CALLS(%rbx), %r14
next_call:
	testl	%r13d, %r13d
	jz	done
	movq	8(%r14), %rdi
	movq	16(%r14), %rsi
	movq	24(%r14), %rdx
	movq	32(%r14), %r10
	movq	40(%r14), %r8
	movq	48(%r14), %r9
	movq	0(%r14), %rax
	syscall
	cmpq	$-4095, %rax
	jae	failed
	testq	%rax, %rax
	jnz	1f
	cmpq	$__NR_clone, (%r14)
	je	thread			/* the new one, with the mapper's registers */
1:	addq	$56, %r14
	decl	%r13d
	jmp	next_call

	/* errno comes from the table, since there is nowhere to write it down. */
failed:
	negq	%rax
	movl	$STUB_MAX_ERRNO, %ecx
	cmpq	%rcx, %rax
	cmovaq	%rcx, %rax
	leaq	STUB_CMD_ERRNOS(%rbx, %rax, 2), %rsi
	movl	$2, %edx
	leal	(STUB_CTL_ACK(0) + ACK_ERROR)(%r15), %r10d
	movl	$STUB_FD_CTL, %edi
	movl	$__NR_pwrite64, %eax
	syscall
done:
	leaq	CMD_SEQ(%rbx), %rsi
	movl	$4, %edx
	leal	(STUB_CTL_ACK(0) + ACK_SEQ)(%r15), %r10d
	movl	$STUB_FD_CTL, %edi
	movl	$__NR_pwrite64, %eax
	syscall
	/* Pairs with the barrier of hosted_wait(), which stores waits and then looks at seq. */
	mfence
	cmpl	$0, CMD_WAITS(%rbx)
	je	mapper
	/* All that wait there: one of them may be a guest. */
	leaq	(STUB_ACK(0) - STUB_CMD(0) + ACK_SEQ)(%rbx), %rdi
	movl	$FUTEX_WAKE, %esi
	movl	$INT_MAX, %edx
	movl	$__NR_futex, %eax
	syscall
	jmp	mapper

	/* What it is to be is in the last argument of its clone(), which takes none. */
thread:
	cmpq	$STUB_CLONE_VCPU, 48(%r14)
	je	vcpu
	addq	$STUB_MAPPER_SIZE, %rbx
	addl	$STUB_MAPPER_SIZE, %r15d
	xorl	%r12d, %r12d
	jmp	mapper

	/* A vCPU's thread, before any guest code: signals, the filter, and then its first exit. Without
	 * a stack, since another vCPU of the guest may be running. */
vcpu:
	leaq	CMD_STACK(%rbx), %rdi
	xorl	%esi, %esi
	movl	$__NR_sigaltstack, %eax
	syscall
	testq	%rax, %rax
	jnz	no_jail
	/* Faults alone: whatever somebody may have sent comes when the first frame is left, whose mask
	 * is the VMM's. Before the filter no handler is to run, since other vCPUs can write its frame. */
	movl	$SIG_SETMASK, %edi
	leaq	CMD_SIGNALS(%rbx), %rsi
	xorl	%edx, %edx
	movl	$8, %r10d
	movl	$__NR_rt_sigprocmask, %eax
	syscall
	testq	%rax, %rax
	jnz	no_jail
	/* What guest code asks for is refused before any filter: some calls are not filtered. Old kernels
	 * have neither these calls nor this. */
	movl	$PR_SET_SYSCALL_USER_DISPATCH, %edi
	movl	$PR_SYS_DISPATCH_ON, %esi
	leaq	hosted_stub_code(%rip), %rdx
	movl	$4096, %r10d
	xorl	%r8d, %r8d
	movl	$__NR_prctl, %eax
	syscall
	movl	$SECCOMP_SET_MODE_FILTER, %edi
	xorl	%esi, %esi
	leaq	filter_prog(%rip), %rdx
	movl	$__NR_seccomp, %eax
	syscall
	testq	%rax, %rax
	jnz	no_jail
	ud2

no_jail:
	movl	$STUB_EXIT_NO_JAIL, %edi
	jmp	die
no_map:
	movl	$STUB_EXIT_NO_MAP, %edi
die:
	movl	$__NR_exit_group, %eax
	syscall
	ud2

	/*
	 * Every signal of a vCPU, with all signals blocked: handler(signal, siginfo, ucontext), which
	 * the kernel has put on the stack as struct stub_frame. The guest's registers are in it, and
	 * the VMM reads and writes them there.
	 */
handler:
	pushq	$2
	popfq				/* the guest's AC is still on */
	movq	%rsp, %rbx
	andq	$-STUB_VCPU_SIZE, %rbx
	movl	%edi, VCPU_SIGNAL(%rbx)
	movq	%rsp, VCPU_FRAME(%rbx)
	movabsq	$STUB_CMD(0), %r13
	cmpl	$0, CMD_FSGSBASE(%r13)
	je	1f
	rdfsbase %rax
	movq	%rax, VCPU_FSBASE(%rbx)
	rdgsbase %rax
	movq	%rax, VCPU_GSBASE(%rbx)
	/* What is above is stored before this, as on this CPU. Pairs with wait_for_exit(). */
1:	movl	VCPU_EXITS(%rbx), %r14d
	incl	%r14d
	movl	%r14d, VCPU_EXITS(%rbx)
	leaq	VCPU_EXITS(%rbx), %rdi
	movl	$FUTEX_WAKE, %esi
	movl	$INT_MAX, %edx
	movl	$__NR_futex, %eax
	syscall
	/* Pairs with hosted_resume(). */
2:	movl	VCPU_RUN(%rbx), %edx
	cmpl	%r14d, %edx
	je	3f
	leaq	VCPU_RUN(%rbx), %rdi
	xorl	%esi, %esi		/* FUTEX_WAIT */
	xorl	%r10d, %r10d
	movl	$__NR_futex, %eax
	syscall
	jmp	2b
3:	cmpl	$0, CMD_FSGSBASE(%r13)
	je	4f
	movq	VCPU_FSBASE(%rbx), %rax
	wrfsbase %rax
	movq	VCPU_GSBASE(%rbx), %rax
	wrgsbase %rax
4:	addq	$8, %rsp
restorer:
	movl	$__NR_rt_sigreturn, %eax
	syscall
	ud2

	/* struct sigaction as the kernel has it. The mask: all. */
	.balign	8
	.globl	hosted_stub_action
hosted_stub_action:
	.quad	AT(handler), SA_SIGINFO | SA_ONSTACK | SA_RESTORER, AT(restorer)
	.quad	-1

	/* struct sock_fprog, and its program: rt_sigreturn, and futex WAIT and WAKE, from this page. */
filter_prog:
	.short	(filter_end - filter) / 8
	.zero	6
	.quad	AT(filter)
	.macro	bpf code, jt, jf, k
	.short	\code
	.byte	\jt, \jf
	.long	\k
	.endm
filter:
	bpf	BPF_LD_W_ABS, 0, 0, 4				/* 0: arch */
	bpf	BPF_JEQ, 0, 11, AUDIT_ARCH_X86_64		/* 1 */
	bpf	BPF_LD_W_ABS, 0, 0, 12				/* 2: instruction pointer, high */
	bpf	BPF_JEQ, 0, 9, (STUB_CODE >> 32)		/* 3 */
	bpf	BPF_LD_W_ABS, 0, 0, 8				/* 4: and low */
	bpf	BPF_JGE, 0, 7, (STUB_CODE & 0xffffffff)		/* 5 */
	bpf	BPF_JGE, 6, 0, ((STUB_CODE + 0x1000) & 0xffffffff) /* 6 */
	bpf	BPF_LD_W_ABS, 0, 0, 0				/* 7: nr */
	bpf	BPF_JEQ, 5, 0, __NR_rt_sigreturn		/* 8 */
	bpf	BPF_JEQ, 0, 3, __NR_futex			/* 9 */
	bpf	BPF_LD_W_ABS, 0, 0, 24				/* 10: op, low */
	bpf	BPF_JEQ, 2, 0, FUTEX_WAIT			/* 11 */
	bpf	BPF_JEQ, 1, 0, FUTEX_WAKE			/* 12 */
	bpf	BPF_RET, 0, 0, SECCOMP_RET_TRAP			/* 13 */
	bpf	BPF_RET, 0, 0, SECCOMP_RET_ALLOW		/* 14 */
filter_end:
code_end:
	.org	hosted_stub_code + 4096		/* an error if it does not fit its page */
	.globl	hosted_stub_elf_end
hosted_stub_elf_end:

	.section .note.GNU-stack, "", @progbits
