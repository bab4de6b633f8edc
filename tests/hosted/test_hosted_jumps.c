/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Guests that jump into the stub, which they can read and execute: to every byte of its page, with
 * registers as its own threads have them. escape_attempt() looks what came of it.
 */
#include <sys/mman.h>
#include <sys/syscall.h>

#include "tests/hosted/escape.h"

#define FRAME	 (STACK + PAGE_SIZE)	 /* a signal frame that is in order */
#define CALLS	 (STACK + 2 * PAGE_SIZE) /* a list of calls for a mapper */
#define SPARSELY 61			 /* where the page is empty */

/* It has been to all that the kernel, or the stub, may want to read for it. */
GUEST(touch_and_jump, "movabs $0x701000, %rcx; incq (%rcx); decq (%rcx)\n"
		      "movabs $0x702000, %rcx; incq (%rcx); decq (%rcx)\n"
		      "movabs $0x600000, %rcx; incq (%rcx); decq (%rcx)\n"
		      "jmp *%rdx");

static void prepare_memory(struct escape *e)
{
	struct stub_frame *frame = (void *)rig_words(&e->rig, rig_stack(&e->rig, 1));
	struct stub_call *calls = (void *)rig_words(&e->rig, rig_stack(&e->rig, 2));

	*frame = (struct stub_frame){.rip = CODE + 512,
				     .rsp = STACK_END - 64,
				     .cs = SEL_USER_CS,
				     .ss = SEL_USER_SS,
				     .eflags = X86_FLAGS_FIXED};
	calls[0] = (struct stub_call){SYS_mmap,
				      {OTHER, PAGE_SIZE, PROT_READ | PROT_WRITE,
				       MAP_SHARED | MAP_FIXED, STUB_FD_FRAMES,
				       e->canaries[0] << PAGE_SHIFT}};
	calls[1] =
		(struct stub_call){SYS_pwrite64,
				   {STUB_FD_FRAMES, DATA, PAGE_SIZE, e->canaries[1] << PAGE_SHIFT}};
	calls[2] = (struct stub_call){SYS_munmap, {DATA, PAGE_SIZE}};
	rig_start_at(&e->rig, 0, 512, guest_ud2, guest_ud2_end);
	rig_start_at(&e->rig, 0, 0, guest_touch_and_jump, guest_touch_and_jump_end);
}

enum kind { NOTHING, MAPPER, BORN, HANDLER, SIBLING, RETURN, RANDOM, NR_KINDS };

/* As the stub has them where it runs for somebody; or at random, of what it might use. */
static struct guest_regs registers(struct escape *e, enum kind kind, uint64_t *state)
{
	uint64_t frame = rig_hosted(&e->rig)->frame_offset;
	const uint64_t words[] = {0,
				  1,
				  3,
				  ~0ul,
				  DATA,
				  CALLS,
				  FRAME + 8,
				  STUB_CODE,
				  STUB_CMD(0),
				  STUB_CMD(0) + STUB_CMD_CALLS,
				  STUB_ACK(0),
				  STUB_CMD(1),
				  STUB_ACK(1),
				  STUB_VCPU(0),
				  STUB_VCPU(1),
				  STUB_VCPU(0) + frame,
				  STUB_VCPU(1) + frame,
				  SYS_mmap,
				  SYS_rt_sigreturn,
				  SYS_futex,
				  SYS_exit_group};
	struct guest_regs regs = {.gpr[GPR_RSP] = STACK_END - 64};
	uint64_t area = STUB_VCPU(kind == SIBLING);

	switch (kind) {
	case MAPPER:
	case BORN:
		regs.gpr[GPR_RBX] = kind == MAPPER ? DATA : STUB_CMD(0);
		regs.gpr[GPR_RAX] = kind == MAPPER ? SYS_mmap : 0;
		regs.gpr[13] = 3;
		regs.gpr[14] = CALLS;
		break;
	case HANDLER:
	case SIBLING:
		regs.gpr[GPR_RSP] = area + frame;
		regs.gpr[GPR_RBX] = area;
		regs.gpr[13] = STUB_CMD(0);
		regs.gpr[14] = 1;
		break;
	case RETURN:
		regs.gpr[GPR_RSP] = FRAME + 8;
		regs.gpr[GPR_RAX] = SYS_rt_sigreturn;
		break;
	case RANDOM:
		for (unsigned int n = 0; n < 16; n++)
			regs.gpr[n] = words[draw(state) % ARRAY_SIZE(words)];
		break;
	default:
		break;
	}
	return regs;
}

static void jump(struct escape *e, uint64_t offset, enum kind kind, uint64_t *state)
{
	struct guest_regs regs = registers(e, kind, state);

	prepare_memory(e);
	regs.gpr[GPR_RDX] = STUB_CODE + offset;
	regs.rip = CODE;
	escape_attempt(e, &regs);
}

/* A second vCPU has an area beside the first's, and has stopped. */
static void expect_second_vcpu(struct escape *e)
{
	if (rig_space(&e->rig, 1))
		return;
	rig_start_at(&e->rig, 1, 512, guest_ud2, guest_ud2_end);
	expect_eq(rig_trap_of(&e->rig, 1).vector, VECTOR_UD);
}

static uint64_t end_of_stub(void)
{
	const unsigned char *code = (const unsigned char *)hosted_stub_elf + PAGE_SIZE;
	uint64_t end = PAGE_SIZE;

	while (!code[end - 1])
		end--;
	return end;
}

TEST(hosted_jumps, to_every_byte)
{
	uint64_t state = 7, end = end_of_stub();
	struct escape e;

	escape_create(&e, 2);
	escape_hurry(&e);
	for (uint64_t offset = 0; offset < PAGE_SIZE;
	     offset += offset < end || test_long() ? 1 : SPARSELY)
		for (enum kind kind = 0; kind < NR_KINDS; kind++)
			for (unsigned int n = kind == RANDOM && test_long() ? 20 : 1; n; n--) {
				expect_second_vcpu(&e);
				jump(&e, offset, kind, &state);
			}
	expect_ge(e.trapped, 1000);
	escape_destroy(&e);
}

/* The pages that only the VMM writes. */
TEST(hosted_jumps, what_is_the_hosts_stays)
{
	static const uint64_t pages[] = {STUB_CODE, STUB_CMD(0), STUB_ACK(0), STUB_CMD(1),
					 STUB_ACK(1)};
	struct escape e;

	escape_create(&e, 1);
	for (unsigned int i = 0; i < ARRAY_SIZE(pages); i++) {
		for (uint64_t offset = 0; offset < PAGE_SIZE; offset += 64) {
			struct guest_regs regs = {.gpr[GPR_RDI] = pages[i] + offset, .rip = CODE};
			struct engine_exit exit;

			rig_start_at(&e.rig, 0, 0, guest_store, guest_store_end);
			exit = escape_attempt(&e, &regs);
			expect_eq(exit.kind, ENGINE_EXIT_TRAP);
			expect_eq(exit.vector, VECTOR_PF);
			expect_eq(exit.fault_address, pages[i] + offset);
			expect_eq(exit.error_code & ~1u, 6);
		}
	}
	escape_destroy(&e);
}
