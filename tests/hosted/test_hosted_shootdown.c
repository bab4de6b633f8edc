/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The oracle of the whole project, on the hosted engine: vCPUs count in a page, in memory and in a
 * register, as fast as they can, while the host takes the page away from them again and again. No
 * store may land once the shootdown has returned; and in the end memory has got what the registers
 * have counted. (Rules 1 to 4 of vmm/engine_hosted.h.)
 */
#include <time.h>

#include "notifier/sync/lock.h"
#include "notifier/sync/wait.h"
#include "tests/hosted/rig.h"
#include "tests/support/relax.h"

GUEST(count_both, "1: incq (%rdi); inc %rax; jmp 1b");

#define MAX_CPUS	2
#define NR_FRAMES	2
#define WORD(vcpu)	((vcpu)*8) /* a cache line for each vCPU's counter */
#define ROUNDS_LONG	30000
#define ROUNDS_SHORT	1000
#define CONTROL_ROUNDS	400
#define CONTROL_PERCENT 10
#define LOOKS		10

struct oracle {
	struct rig rig;
	unsigned int nr_cpus;
	struct kthread threads[MAX_CPUS];
	uint64_t *entries[MAX_CPUS]; /* of OTHER, in the root of each */
	unsigned int nr_entries;
	pfn_t frames[NR_FRAMES];
	uint64_t seen[NR_FRAMES]; /* in the words of each, once it was shot down */
	unsigned int round;

	struct mutex lock;
	wait_queue_head_t wait;
	pfn_t want; /* under lock: what entries name, or INVALID_PFN */
	bool stop;
	unsigned int next_cpu; /* whose thread begins next */
	uint64_t counted[MAX_CPUS];
};

static uint64_t word(struct oracle *o, unsigned int frame, unsigned int vcpu)
{
	return READ_ONCE(rig_words(&o->rig, o->frames[frame])[WORD(vcpu)]);
}

static uint64_t sum_of_words(struct oracle *o, unsigned int frame)
{
	uint64_t sum = 0;

	for (unsigned int i = 0; i < o->nr_cpus; i++)
		sum += word(o, frame, i);
	return sum;
}

static void set(struct oracle *o, pfn_t want, bool stop)
{
	mutex_lock(&o->lock);
	WRITE_ONCE(o->want, want);
	WRITE_ONCE(o->stop, stop);
	for (unsigned int i = 0; i < o->nr_entries; i++)
		WRITE_ONCE(*o->entries[i], want == INVALID_PFN ? 0 : want << PAGE_SHIFT | RWX);
	mutex_unlock(&o->lock);
	wake_up_all(&o->wait);
}

static bool may_go_on(struct oracle *o)
{
	return READ_ONCE(o->want) != INVALID_PFN || READ_ONCE(o->stop);
}

static void vcpu_thread(void *arg)
{
	struct oracle *o = arg;
	struct guest_regs *regs;
	struct engine_exit exit;
	unsigned int cpu;

	mutex_lock(&o->lock);
	cpu = o->next_cpu++;
	mutex_unlock(&o->lock);
	regs = rig_regs(&o->rig, cpu);
	do {
		exit = rig_trap_of(&o->rig, cpu);
		expect_eq(exit.vector, VECTOR_PF);
		expect_eq(exit.fault_address, OTHER + WORD(cpu) * sizeof(uint64_t));
		wait_event(o->wait, may_go_on(o));
	} while (!READ_ONCE(o->stop));
	o->counted[cpu] = regs->gpr[GPR_RAX];
}

/* @nr_roots: as many as there are vCPUs, or one. */
static void create(struct oracle *o, unsigned int nr_cpus, unsigned int nr_roots)
{
	*o = (struct oracle){.nr_cpus = nr_cpus, .nr_entries = nr_roots, .want = INVALID_PFN};
	rig_create_hosted(&o->rig, 256, nr_cpus);
	mutex_init(&o->lock);
	init_waitqueue_head(&o->wait);
	for (unsigned int i = 0; i < NR_FRAMES; i++)
		o->frames[i] = rig_page(&o->rig);
	for (unsigned int i = 0; i < nr_cpus; i++) {
		struct guest_regs *regs =
			rig_start_at(&o->rig, i, 0, guest_count_both, guest_count_both_end);
		pfn_t root = i && i < nr_roots ? rig_root(&o->rig) : o->rig.root;

		regs->gpr[GPR_RDI] = OTHER + WORD(i) * sizeof(uint64_t);
		rig_load_root(&o->rig, i, root);
		if (i < nr_roots)
			o->entries[i] = rig_entry_at(&o->rig, root, OTHER, 1);
	}
	for (unsigned int i = 0; i < nr_cpus; i++)
		expect_eq(kthread_run(&o->threads[i], "vcpu", vcpu_thread, o), 0);
}

/* Exact accounting: nothing that a guest did is missing, and nothing came on top of it. */
static void destroy(struct oracle *o)
{
	set(o, INVALID_PFN, true);
	for (unsigned int i = 0; i < NR_FRAMES; i++)
		rig_shoot(&o->rig, o->frames[i]);
	for (unsigned int i = 0; i < o->nr_cpus; i++)
		kthread_join(&o->threads[i]);
	for (unsigned int i = 0; i < o->nr_cpus; i++) {
		expect_ge(o->counted[i], 1);
		expect_eq(word(o, 0, i) + word(o, 1, i), o->counted[i]);
	}
	rig_destroy(&o->rig);
}

static void pause_for(unsigned int turns)
{
	while (turns--)
		cpu_relax();
}

static void expect_no_store(struct oracle *o, unsigned int frame)
{
	if (sum_of_words(o, frame) != o->seen[frame])
		fail("round %u: a store to a page that had been shot down", o->round);
}

/*
 * Until the vCPU whose turn it is has stored to the frame that it may store to, and none to the
 * other. The test's timeout is the bound.
 */
static void wait_for_store(struct oracle *o, unsigned int frame)
{
	unsigned int cpu = o->round / NR_FRAMES % o->nr_cpus;
	uint64_t seen = word(o, frame, cpu);

	set(o, o->frames[frame], false);
	while (word(o, frame, cpu) == seen) {
		expect_no_store(o, !frame);
		look_again_in(20);
	}
}

/*
 * Frames take turns, and each is looked at until it is mapped again, while the guests store to the
 * other. In every fourth round they have not begun to when their page is taken away: the shootdown
 * meets their fills.
 */
static void expect_no_late_stores(unsigned int nr_cpus, unsigned int nr_roots)
{
	unsigned int rounds = test_long() ? ROUNDS_LONG : ROUNDS_SHORT;
	struct oracle o;

	create(&o, nr_cpus, nr_roots);
	for (o.round = 0; o.round < rounds; o.round++) {
		unsigned int n = o.round & 1;

		expect_no_store(&o, n);
		if (o.round % 4 == 3) {
			set(&o, o.frames[n], false);
			pause_for(o.round % 1000);
		} else {
			wait_for_store(&o, n);
		}
		set(&o, INVALID_PFN, false);
		rig_shoot(&o.rig, o.frames[n]);
		o.seen[n] = sum_of_words(&o, n);
		pause_for(o.round % 4 * 300);
		expect_no_store(&o, n);
	}
	destroy(&o);
}

TEST(hosted_shootdown, one_vcpu)
{
	expect_no_late_stores(1, 1);
}

TEST(hosted_shootdown, two_vcpus_in_a_child)
{
	expect_no_late_stores(2, 1);
}

TEST(hosted_shootdown, two_children)
{
	expect_no_late_stores(2, 2);
}

/*
 * Would it be seen? The same with the look between the entry's end and its shootdown. It takes as
 * long as a round does above, in which the guest has run for sure.
 */
TEST(hosted_shootdown, late_stores_without)
{
	unsigned int late = 0;
	struct oracle o;

	create(&o, 1, 1);
	for (o.round = 0; o.round < CONTROL_ROUNDS; o.round++) {
		unsigned int n = o.round & 1;
		uint64_t seen;

		wait_for_store(&o, n);
		set(&o, INVALID_PFN, false);
		seen = word(&o, n, 0);
		for (unsigned int look = 0; look < LOOKS && word(&o, n, 0) == seen; look++)
			look_again_in(20);
		late += word(&o, n, 0) != seen;
		rig_shoot(&o.rig, o.frames[n]);
		o.seen[n] = word(&o, n, 0);
	}
	expect_ge(late * 100, CONTROL_ROUNDS * CONTROL_PERCENT);
	destroy(&o);
}
