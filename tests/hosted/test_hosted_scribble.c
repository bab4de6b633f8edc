/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A vCPU that writes to all that guests can write of the stub's, its own area and that of the vCPU
 * beside it, while the host takes pages away from that one: what is written there must not make a
 * shootdown believe anything. Often it ends the child; never us.
 */
#include <time.h>

#include "notifier/sync/lock.h"
#include "tests/hosted/rig.h"

#define SHOOTDOWNS_LONG	   3000
#define SHOOTDOWNS_SHORT   300
#define NR_FRAMES	   2
#define ROUNDS_PER_MACHINE 5	/* or it hardly counted at all */
#define LOOKS		   100	/* for a store; 70 us apart */
#define SCRIBBLER_AT	   1024 /* in the page CODE */

/* All of both areas, with numbers that change. rsi: the first; rcx: words. */
GUEST(noise, "1: mov %rsi, %rdi; mov %rcx, %rdx\n"
	     "2: mov %rax, (%rdi); imul $0x5851f42d, %rax, %rax; add $12345, %rax\n"
	     "add $8, %rdi; dec %rdx; jnz 2b; jmp 1b");
/* And zeroes, which say that nothing has happened yet. */
GUEST(zeroes, "1: mov %rsi, %rdi; push %rcx; xor %eax, %eax; rep stosq; pop %rcx; jmp 1b");
/* The other is made out to have stopped, and is let run. */
GUEST(exits, "1: incl (%rsi); mov (%rsi), %eax; mov %eax, 4(%rsi); jmp 1b");

static const struct {
	const char *name, *code, *end;
} scribblers[] = {
	{"noise", guest_noise, guest_noise_end},
	{"zeroes", guest_zeroes, guest_zeroes_end},
	{"exits", guest_exits, guest_exits_end},
};

struct scribble {
	struct rig rig;
	struct kthread threads[2];
	unsigned int scribbler;
	pfn_t frames[NR_FRAMES];
	uint64_t *entry;
	bool stop;
	atomic_t ended; /* vCPUs */
	atomic_t next;	/* whose thread begins next */
};

static void begin_program(struct scribble *s, unsigned int vcpu)
{
	struct guest_regs *regs = rig_regs(&s->rig, vcpu);

	memset(regs, 0, sizeof(*regs));
	regs->rip = vcpu ? CODE + SCRIBBLER_AT : CODE;
	regs->gpr[GPR_RDI] = OTHER;
	regs->gpr[GPR_RSI] = STUB_VCPU(0);
	regs->gpr[GPR_RCX] = 2 * STUB_VCPU_SIZE / sizeof(uint64_t);
	regs->gpr[GPR_RSP] = STACK_END - 64;
}

/* Whatever comes out, it begins again, until there is no child to do it in. */
static void vcpu_thread(void *arg)
{
	struct scribble *s = arg;
	unsigned int vcpu = atomic_inc_return(&s->next) - 1;
	struct engine_exit exit;

	do {
		begin_program(s, vcpu);
		exit = rig_exit(&s->rig, vcpu);
		if (exit.kind == ENGINE_EXIT_TRAP)
			look_again_in(20);
	} while ((exit.kind == ENGINE_EXIT_TRAP || exit.kind == ENGINE_EXIT_KICK) &&
		 !READ_ONCE(s->stop));
	atomic_inc_return(&s->ended);
}

static void create(struct scribble *s, unsigned int scribbler)
{
	memset(s, 0, sizeof(*s));
	s->scribbler = scribbler;
	rig_create_hosted(&s->rig, 256, 2);
	rig_hosted(&s->rig)->kicks_to_kill = 4; /* many a machine ends so */
	rig_start_at(&s->rig, 0, 0, guest_count, guest_count_end);
	rig_start_at(&s->rig, 1, SCRIBBLER_AT, scribblers[scribbler].code,
		     scribblers[scribbler].end);
	s->entry = rig_entry_at(&s->rig, s->rig.root, OTHER, 1);
	for (unsigned int i = 0; i < NR_FRAMES; i++)
		s->frames[i] = rig_page(&s->rig);
	for (unsigned int i = 0; i < 2; i++) {
		rig_init_vcpu(&s->rig, i);
		expect_eq(kthread_run(&s->threads[i], "vcpu", vcpu_thread, s), 0);
	}
}

static void destroy(struct scribble *s)
{
	WRITE_ONCE(s->stop, true);
	for (unsigned int i = 0; i < 2; i++)
		engine_hosted.kick(s->rig.engine, i);
	for (unsigned int i = 0; i < 2; i++)
		kthread_join(&s->threads[i]);
	rig_destroy(&s->rig);
}

static uint64_t word(struct scribble *s, unsigned int frame)
{
	return READ_ONCE(rig_words(&s->rig, s->frames[frame])[0]);
}

static bool is_dead(struct scribble *s)
{
	return atomic_read(&s->ended) > 0;
}

/*
 * Rounds in one machine, until its child is dead or its vCPU sleeps for ever, made out to have
 * stopped more often than it has. How many there were in which it counted.
 */
static unsigned int shoot(struct scribble *s, unsigned int most)
{
	uint64_t seen[NR_FRAMES] = {0};
	unsigned int nr = 0;

	while (nr < most && !is_dead(s)) {
		unsigned int n = nr & 1, looks = 0;
		uint64_t before = word(s, n);

		WRITE_ONCE(*s->entry, s->frames[n] << PAGE_SHIFT | RWX);
		while (word(s, n) == before && !is_dead(s) && looks++ < LOOKS) {
			expect_eq(word(s, !n), seen[!n]);
			look_again_in(20);
		}
		WRITE_ONCE(*s->entry, 0);
		rig_shoot(&s->rig, s->frames[n]);
		seen[n] = word(s, n);
		look_again_in(20);
		if (word(s, n) != seen[n])
			fail("%s: a store after the shootdown", scribblers[s->scribbler].name);
		if (word(s, n) == before)
			break;
		nr++;
	}
	return nr;
}

/* In as many machines as that takes; more of them where few rounds count. */
static void scribble(unsigned int scribbler)
{
	unsigned int most = test_long() ? SHOOTDOWNS_LONG : SHOOTDOWNS_SHORT;
	unsigned int nr = 0;
	struct scribble s;

	for (unsigned int machine = 0; nr < most && machine < most; machine++) {
		if (machine >= most / ROUNDS_PER_MACHINE && nr >= most / 10)
			break;
		create(&s, scribbler);
		nr += shoot(&s, most - nr);
		destroy(&s);
	}
	/* It counted at times, or nothing was seen. */
	expect_ge(nr, most / 10);
}

TEST(hosted_scribble, noise)
{
	scribble(0);
}

TEST(hosted_scribble, zeroes)
{
	scribble(1);
}

TEST(hosted_scribble, exits)
{
	scribble(2);
}
