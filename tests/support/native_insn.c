/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/support/native_insn.h"

#include <string.h>
#include <sys/mman.h>

#include "tests/support/test.h"

/* JMP through the eight bytes that follow it: back, with no register used. */
static const uint8_t jump_back[] = {0xff, 0x25, 0, 0, 0, 0};

uint8_t *native_code;

/* Looked at by the code below, by name. */
struct native_regs native_state;
const void *native_entry;
uint64_t native_host_rsp;
extern const char native_back[];
void native_enter(void);

_Static_assert(offsetof(struct native_regs, rflags) == 128, "the code below says so");

/*
 * There is no register to spare on either side of the instruction, so all are loaded from, and
 * stored to, fixed places; and RSP is one of them, so it is not used in between. MOV changes no
 * flag.
 */
__asm__(".text\n"
	"native_enter:\n"
	"	push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15\n"
	"	push 128+native_state(%rip); popf\n"
	"	mov %rsp, native_host_rsp(%rip)\n"
	"	mov 0+native_state(%rip), %rax\n"
	"	mov 8+native_state(%rip), %rcx\n"
	"	mov 16+native_state(%rip), %rdx\n"
	"	mov 24+native_state(%rip), %rbx\n"
	"	mov 32+native_state(%rip), %rsp\n"
	"	mov 40+native_state(%rip), %rbp\n"
	"	mov 48+native_state(%rip), %rsi\n"
	"	mov 56+native_state(%rip), %rdi\n"
	"	mov 64+native_state(%rip), %r8\n"
	"	mov 72+native_state(%rip), %r9\n"
	"	mov 80+native_state(%rip), %r10\n"
	"	mov 88+native_state(%rip), %r11\n"
	"	mov 96+native_state(%rip), %r12\n"
	"	mov 104+native_state(%rip), %r13\n"
	"	mov 112+native_state(%rip), %r14\n"
	"	mov 120+native_state(%rip), %r15\n"
	"	jmp *native_entry(%rip)\n"
	"native_back:\n"
	"	mov %rax, 0+native_state(%rip)\n"
	"	mov %rcx, 8+native_state(%rip)\n"
	"	mov %rdx, 16+native_state(%rip)\n"
	"	mov %rbx, 24+native_state(%rip)\n"
	"	mov %rsp, 32+native_state(%rip)\n"
	"	mov %rbp, 40+native_state(%rip)\n"
	"	mov %rsi, 48+native_state(%rip)\n"
	"	mov %rdi, 56+native_state(%rip)\n"
	"	mov %r8, 64+native_state(%rip)\n"
	"	mov %r9, 72+native_state(%rip)\n"
	"	mov %r10, 80+native_state(%rip)\n"
	"	mov %r11, 88+native_state(%rip)\n"
	"	mov %r12, 96+native_state(%rip)\n"
	"	mov %r13, 104+native_state(%rip)\n"
	"	mov %r14, 112+native_state(%rip)\n"
	"	mov %r15, 120+native_state(%rip)\n"
	"	mov native_host_rsp(%rip), %rsp\n"
	"	pushf; pop 128+native_state(%rip); cld\n"
	"	pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx\n"
	"	ret\n");

void *native_memory(size_t len, int prot)
{
	void *at = mmap(NULL, len, prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);

	if (at == MAP_FAILED)
		fail("no memory below 2 GiB");
	return at;
}

void native_insn_init(void)
{
	native_code = native_memory(4096, PROT_READ | PROT_WRITE | PROT_EXEC);
}

void native_insn_run(size_t at, size_t len, struct native_regs *regs)
{
	const void *back = native_back;
	uint8_t *end = native_code + at + len;

	memcpy(end, jump_back, sizeof(jump_back));
	memcpy(end + sizeof(jump_back), &back, sizeof(back));
	native_state = *regs;
	native_entry = native_code + at;
	native_enter();
	*regs = native_state;
}
