/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Guests that make a signal frame of their own and return by it: the one system call that theirs
 * to make, from the stub's page, takes all that a thread is from memory. What they can bring about
 * is their own end, and no longer stay in than it takes to end them.
 */
#include <signal.h>
#include <time.h>

#include "tests/hosted/escape.h"

#ifndef SS_AUTODISARM
#define SS_AUTODISARM (1u << 31)
#endif

#define FRAME (STACK + PAGE_SIZE) /* where it is made */

/* What is at CODE, at these offsets. */
enum { AT_JUMP = 0, AT_UD2 = 64, AT_SPIN = 128, AT_COUNT = 192, AT_CALL = 256 };

/* The kernel takes frames, and words to wait for, from what is mapped: a guest must have been
 * there. */
GUEST(touch_and_jump, "mov -8(%rsp), %rcx; mov (%rdi), %rcx; jmp *%rbx");
GUEST(jump, "jmp *%rbx");
GUEST(spin, "1: jmp 1b");
GUEST(call, "syscall; ud2");

#define USR1_ALONE (1ul << (SIGUSR1 - 1))
#define ALL_OF_IT  (~0ul)

/* The longest that the engine may take: it kills after 100 looks, 50 ms apart. */
#define SECONDS_TO_END 20

static uint64_t restorer(void)
{
	return ((const uint64_t *)hosted_stub_action)[2];
}

/* A frame as the kernel would have made it, at a ud2 of the guest's. */
static struct stub_frame honest_frame(void)
{
	return (struct stub_frame){
		.uc_flags = 7,
		.uc_stack = {.ss_sp = (void *)(STUB_VCPU(0) + STUB_VCPU_SIZE - STUB_STACK_SIZE),
			     .ss_flags = (int)SS_AUTODISARM,
			     .ss_size = STUB_STACK_SIZE},
		.rip = CODE + AT_UD2,
		.rsp = STACK_END - 64,
		.rax = 0x1234,
		.rdi = DATA,
		.cs = SEL_USER_CS,
		.ss = SEL_USER_SS,
		.eflags = X86_FLAGS_FIXED | X86_FLAGS_IF,
	};
}

static struct engine_exit return_by(struct escape *e, const struct stub_frame *frame)
{
	struct guest_regs regs = {.gpr[GPR_RSP] = FRAME + 8,
				  .gpr[GPR_RBX] = restorer(),
				  .gpr[GPR_RDI] = DATA};
	static const struct {
		size_t at;
		const char *code, *end;
	} programs[] = {
		{AT_UD2, guest_ud2, guest_ud2_end},
		{AT_SPIN, guest_spin, guest_spin_end},
		{AT_COUNT, guest_count, guest_count_end},
		{AT_CALL, guest_call, guest_call_end},
		{AT_JUMP, guest_touch_and_jump, guest_touch_and_jump_end},
	};

	memcpy(rig_words(&e->rig, rig_stack(&e->rig, 1)), frame, sizeof(*frame));
	for (unsigned int i = 0; i < ARRAY_SIZE(programs); i++)
		rig_start_at(&e->rig, 0, programs[i].at, programs[i].code, programs[i].end);
	regs.rip = CODE + AT_JUMP;
	return escape_attempt(e, &regs);
}

/* Or all of what follows tests nothing. */
TEST(hosted_frames, honest_frames_work)
{
	struct stub_frame frame = honest_frame();
	struct engine_exit exit;
	struct escape e;

	escape_create(&e, 1);
	exit = return_by(&e, &frame);
	expect_eq(exit.kind, ENGINE_EXIT_TRAP);
	expect_eq(exit.vector, VECTOR_UD);
	expect_eq(rig_regs(&e.rig, 0)->rip, CODE + AT_UD2);
	expect_eq(rig_regs(&e.rig, 0)->gpr[GPR_RSP], STACK_END - 64);
	expect_eq(rig_regs(&e.rig, 0)->gpr[GPR_RAX], 0x1234);
	escape_destroy(&e);
}

/* The thread gives itself another signal stack. Where it has none, its next signal is its end. */
TEST(hosted_frames, signal_stacks)
{
	static const stack_t stacks[] = {
		{(void *)OTHER, 0, 0x10000},			     /* not there */
		{(void *)OTHER, (int)SS_AUTODISARM, 0x10000},	     /* not there */
		{(void *)STUB_CODE, 0, 0x3000},			     /* not to be written */
		{(void *)CODE, 0, PAGE_SIZE},			     /* nor this */
		{(void *)STUB_VCPU(1), (int)SS_AUTODISARM, 0x10000}, /* of nobody */
		{(void *)0xffff800000000000, 0, 0x10000},	     /* the kernel's */
		{(void *)-0x8000ul, 0, 0x10000},
		{NULL, SS_DISABLE, 0},
		{(void *)STACK, 0, 1},
		{(void *)STACK, ~0, ~0ul},
	};
	struct escape e;

	escape_create(&e, 1);
	WRITE_ONCE(e.patience, 5);
	for (unsigned int i = 0; i < ARRAY_SIZE(stacks); i++) {
		struct stub_frame frame = honest_frame();

		frame.uc_stack = stacks[i];
		return_by(&e, &frame);
	}
	expect_ge(e.died, 5);
	escape_destroy(&e);
}

/*
 * The handler runs on the guest's own memory, and counts its exits where nobody looks: it sleeps
 * there, with all signals blocked, until it is given up.
 */
TEST(hosted_frames, signal_stack_in_guest_memory)
{
	struct stub_frame frame = honest_frame();
	time_t begun = time(NULL);
	struct escape e;

	escape_create(&e, 1);
	for (unsigned int i = 0; i < 16; i++) {
		struct guest_regs regs = {.gpr[GPR_RDI] = OTHER + i * PAGE_SIZE, .rip = CODE};

		rig_map(&e.rig, regs.gpr[GPR_RDI], rig_page(&e.rig), RWX);
		rig_start_at(&e.rig, 0, 0, guest_store, guest_store_end);
		expect_eq(escape_attempt(&e, &regs).vector, VECTOR_UD);
	}
	WRITE_ONCE(e.patience, 5);
	frame.uc_stack = (stack_t){(void *)OTHER, (int)SS_AUTODISARM, 0x10000};
	expect_eq(return_by(&e, &frame).kind, ENGINE_EXIT_FAIL);
	expect_ge(time(NULL) - begun, 1);
	expect_le(time(NULL) - begun, SECONDS_TO_END);
	escape_destroy(&e);
}

struct bad_frame {
	const char *what;
	size_t offset, size;
	uint64_t value;
};

#define BAD(member, v)                                                          \
	{                                                                       \
#member " = " #v, offsetof(struct stub_frame, member),          \
			sizeof(((struct stub_frame *)0)->member), (uint64_t)(v) \
	}

/* One field that is wrong. An exception or an end, both at once. */
TEST(hosted_frames, bad_fields)
{
	static const struct bad_frame bad[] = {
		BAD(cs, 0),
		BAD(cs, 0x10), /* the kernel's */
		BAD(cs, 0x23), /* of 32-bit programs */
		BAD(cs, SEL_USER_SS),
		BAD(cs, 0x7),
		BAD(cs, 0xffff),
		BAD(ss, 0),
		BAD(ss, 0x18),
		BAD(ss, SEL_USER_CS),
		BAD(ss, 0xffff),
		BAD(rip, 0x0000800000000000ul),
		BAD(rip, 0xffff800000000000ul),
		BAD(rip, STUB_CMD(0)),
		BAD(rip, STUB_VCPU(0)),
		BAD(rip, 0xffffffffff600000ul),
		BAD(rip, ~0ul),
		BAD(rip, 0),
		BAD(rsp, 0x8000000000000000ul),
		BAD(rsp, 0),
		BAD(eflags, ~0ul),
		BAD(eflags, 0x100),   /* TF */
		BAD(eflags, 0x40000), /* AC */
		BAD(eflags, 0x7000),  /* IOPL, NT */
		BAD(eflags, 0x20000), /* VM */
		BAD(fpstate, OTHER),
		BAD(fpstate, 1),
		BAD(fpstate, DATA), /* nothing but zeroes */
		BAD(fpstate, DATA + PAGE_SIZE - 64),
		BAD(fpstate, STUB_CODE),
		BAD(fpstate, STUB_VCPU(0)),
		BAD(fpstate, 0xffff800000000000ul),
		BAD(fpstate, ~0ul),
		BAD(uc_flags, 0),
		BAD(uc_flags, 1),
		BAD(uc_flags, ~0ul),
		BAD(uc_link, ~0ul),
		BAD(pretcode, ~0ul),
		BAD(sigmask, ALL_OF_IT),
		BAD(sigmask, ~0ul << 32),
	};
	struct escape e;

	escape_create(&e, 1);
	for (unsigned int i = 0; i < ARRAY_SIZE(bad); i++) {
		struct stub_frame frame = honest_frame();

		memcpy((char *)&frame + bad[i].offset, &bad[i].value, bad[i].size);
		if (return_by(&e, &frame).kind == ENGINE_EXIT_KICK)
			fail("%s: no end of it", bad[i].what);
	}
	expect_eq(e.trapped + e.died, ARRAY_SIZE(bad));
	escape_destroy(&e);
}

/* A frame is itself where no frame can be. */
TEST(hosted_frames, frames_that_are_not_there)
{
	static const uint64_t places[] = {0,
					  8,
					  OTHER,
					  STUB_CODE,
					  STUB_CMD(0),
					  STUB_ACK(0),
					  STUB_CMD(1),
					  ~0ul,
					  STUB_VCPU(1),
					  0xffffffffff600000ul,
					  CODE,
					  STACK_END - 8,
					  0x8000000000000000ul};
	struct escape e;

	escape_create(&e, 1);
	for (unsigned int i = 0; i < ARRAY_SIZE(places); i++) {
		struct guest_regs regs = {.gpr[GPR_RSP] = places[i], .gpr[GPR_RBX] = restorer()};

		rig_start_at(&e.rig, 0, AT_JUMP, guest_jump, guest_jump_end);
		regs.rip = CODE + AT_JUMP;
		expect_ne(escape_attempt(&e, &regs).kind, ENGINE_EXIT_KICK);
	}
	escape_destroy(&e);
}

/*
 * In what mode ever: calls are refused there too, and nobody comes out of it by a kick as if
 * nothing had happened. Where the host has no 32-bit programs it is #GP at once.
 */
TEST(hosted_frames, the_mode_of_32_bit_programs)
{
	struct stub_frame frame = honest_frame();
	struct escape e;

	escape_create(&e, 1);
	frame.cs = 0x23;
	for (frame.rax = 0; frame.rax < 64; frame.rax++) {
		struct engine_exit exit;

		WRITE_ONCE(e.patience, frame.rax % 8 ? PATIENT : 5);
		frame.rip = CODE + (frame.rax % 8 ? AT_CALL : AT_SPIN);
		exit = return_by(&e, &frame);
		if (exit.kind == ENGINE_EXIT_TRAP)
			expect_eq(exit.vector, VECTOR_GP);
		else
			expect_eq(exit.kind, ENGINE_EXIT_FAIL);
	}
	escape_destroy(&e);
}

/* @e.patience is over soon; then the engine has as long as it takes for a vCPU that hears nothing.
 */
static struct engine_exit stay_in(struct escape *e, const struct stub_frame *frame)
{
	time_t begun = time(NULL);
	struct engine_exit exit;

	WRITE_ONCE(e->patience, 5);
	exit = return_by(e, frame);
	expect_le(time(NULL) - begun, SECONDS_TO_END);
	return exit;
}

/* It has blocked signals and loops: rule 3 of engine_hosted_vcpu.c. */
TEST(hosted_frames, deaf_loops)
{
	static const uint64_t masks[] = {USR1_ALONE, ALL_OF_IT, ALL_OF_IT & ~USR1_ALONE};
	struct stub_frame frame = honest_frame();
	struct escape e;

	escape_create(&e, 1);
	frame.rip = CODE + AT_SPIN;
	for (unsigned int i = 0; i < ARRAY_SIZE(masks); i++) {
		struct engine_exit exit;

		frame.sigmask = masks[i];
		exit = stay_in(&e, &frame);
		if (masks[i] == ALL_OF_IT)
			expect_eq(exit.kind, ENGINE_EXIT_FAIL);
		else
			expect_eq(exit.kind, ENGINE_EXIT_KICK);
	}
	escape_destroy(&e);
}

struct shooter {
	struct escape *e;
	struct kthread thread;
	bool stop;
};

static void shoot(void *arg)
{
	struct shooter *s = arg;

	while (!smp_load_acquire(&s->stop)) {
		rig_shoot(&s->e->rig, s->e->rig.data);
		look_again_in(1000);
	}
}

/* It faults as fast as its page is taken away: it is never in for long, and hears no kick. */
TEST(hosted_frames, deaf_loop_that_faults)
{
	struct stub_frame frame = honest_frame();
	struct shooter s = {0};
	struct escape e;

	escape_create(&e, 1);
	s.e = &e;
	expect_eq(kthread_run(&s.thread, "shooter", shoot, &s), 0);
	frame.rip = CODE + AT_COUNT;
	frame.sigmask = USR1_ALONE;
	expect_eq(stay_in(&e, &frame).kind, ENGINE_EXIT_KICK);
	smp_store_release(&s.stop, true);
	kthread_join(&s.thread);
	escape_destroy(&e);
}

/* It sleeps in the kernel, for ever, on the stub's own instruction. */
TEST(hosted_frames, deaf_sleep)
{
	const unsigned char *code = (const unsigned char *)hosted_stub_elf + PAGE_SIZE;
	struct stub_frame frame = honest_frame();
	uint64_t offset = 0;
	struct escape e;

	escape_create(&e, 1);
	while (code[offset] != 0x0f || code[offset + 1] != 0x05)
		offset++;
	frame.rip = STUB_CODE + offset;
	frame.sigmask = ALL_OF_IT;
	frame.rax = 202; /* futex(DATA, FUTEX_WAIT, 0, NULL) */
	expect_eq(stay_in(&e, &frame).kind, ENGINE_EXIT_FAIL);
	escape_destroy(&e);
}

/* Frames of which some words are something else. */
TEST(hosted_frames, random_frames)
{
	static const uint64_t words[] = {0,
					 ~0ul,
					 1,
					 DATA,
					 CODE,
					 CODE + AT_UD2,
					 STACK,
					 FRAME,
					 OTHER,
					 STUB_CODE,
					 STUB_CMD(0),
					 STUB_ACK(0),
					 STUB_CMD(1),
					 STUB_VCPU(0),
					 STUB_VCPU(0) + 0x8000,
					 STUB_ADDR_END,
					 0xffffffffff600000ul,
					 1ul << 47,
					 1ul << 63};
	unsigned int rounds = test_long() ? 5000 : 300;
	uint64_t state = 1;
	struct escape e;

	escape_create(&e, 1);
	WRITE_ONCE(e.patience, 3);
	for (unsigned int i = 0; i < rounds; i++) {
		struct stub_frame frame = honest_frame();
		uint64_t *at = (uint64_t *)&frame;

		for (unsigned int n = draw(&state) % 4 + 1; n; n--) {
			unsigned int which = draw(&state) % (offsetof(struct stub_frame, info) / 8);
			uint64_t value = draw(&state) % 4 ? words[draw(&state) % ARRAY_SIZE(words)]
							  : draw(&state);

			/* A mask of all costs seconds, and has a test of its own. */
			if (which != offsetof(struct stub_frame, sigmask) / 8)
				at[which] = value;
		}
		return_by(&e, &frame);
	}
	expect_ge(e.trapped, 1);
	expect_ge(e.died, 1);
	escape_destroy(&e);
}
