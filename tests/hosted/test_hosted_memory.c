/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * More than fits: roots than there are children, pages than a TLB has entries, mappings than the
 * host gives. What a guest reads is what is in its frames, or it is told why it does not run.
 */
#include <sys/resource.h>
#include <time.h>

#include "tests/hosted/escape.h"

#define NR_ROOTS  70
#define NR_PAGES  160
#define TLB_SIZE  64
#define NR_FRAMES 2048

GUEST(exchange, "xchg %rax, (%rdi); ud2");

/* Store @value at @gva and give what was there. */
static uint64_t exchange(struct rig *rig, uint64_t gva, uint64_t value)
{
	struct guest_regs *regs = start(rig, exchange);

	regs->gpr[GPR_RDI] = gva;
	regs->gpr[GPR_RAX] = value;
	expect_eq(rig_trap_of(rig, 0).vector, VECTOR_UD);
	return regs->gpr[GPR_RAX];
}

static unsigned int nr_children(struct rig *rig)
{
	unsigned int nr = 0;

	for (unsigned int i = 0; i < rig_hosted(rig)->nr_spaces; i++)
		nr += rig_hosted(rig)->spaces[i].pid != 0;
	return nr;
}

/* In turn, which is the worst that can happen to who forgets what was used longest ago; at random.
 */
TEST(hosted_memory, more_roots_than_children)
{
	uint64_t values[NR_ROOTS] = {0}, state = 1;
	pfn_t roots[NR_ROOTS];
	struct rig rig;

	rig_create_hosted(&rig, NR_FRAMES, 1);
	rig_init_vcpu(&rig, 0);
	for (unsigned int i = 0; i < NR_ROOTS; i++) {
		roots[i] = rig_root(&rig);
		rig_map_at(&rig, roots[i], OTHER, rig_page(&rig), RWX | NX);
	}
	for (unsigned int i = 0; i < NR_ROOTS * 4; i++) {
		unsigned int n = i < NR_ROOTS * 2 ? i % NR_ROOTS : draw(&state) % NR_ROOTS;
		uint64_t value = draw(&state);

		rig_load_root(&rig, 0, roots[n]);
		expect_eq(exchange(&rig, OTHER, value), values[n]);
		values[n] = value;
	}
	expect_ge(nr_children(&rig), 2);
	expect_le(nr_children(&rig), rig_hosted(&rig)->nr_spaces);
	rig_destroy(&rig);
}

static void make_tlbs_small(struct rig *rig)
{
	struct hosted_engine *engine = rig_hosted(rig);

	for (unsigned int i = 0; i < engine->nr_spaces; i++) {
		hosted_tlb_destroy(&engine->spaces[i].tlb);
		expect_eq(hosted_tlb_init(&engine->spaces[i].tlb, TLB_SIZE), 0);
	}
}

/*
 * Pages at random: stores, loads, rights that go and come, shootdowns. Before anything was mapped
 * the TLB was made so small that most of it makes room for the rest.
 */
TEST(hosted_memory, more_pages_than_entries)
{
	unsigned int rounds = test_long() ? 100000 : 5000;
	uint64_t values[NR_PAGES] = {0}, state = 1;
	pfn_t pages[NR_PAGES];
	struct rig rig;

	rig_create_hosted(&rig, NR_FRAMES, 1);
	make_tlbs_small(&rig);
	rig_init_vcpu(&rig, 0);
	for (unsigned int i = 0; i < NR_PAGES; i++) {
		pages[i] = rig_page(&rig);
		rig_map(&rig, OTHER + i * PAGE_SIZE, pages[i], P | W | U);
	}
	for (unsigned int i = 0; i < rounds; i++) {
		unsigned int n = draw(&state) % NR_PAGES;
		uint64_t gva = OTHER + n * PAGE_SIZE, value = draw(&state);

		switch (draw(&state) % 4) {
		case 0: /* a page that has moved */
			*rig_entry_at(&rig, rig.root, gva, 1) = 0;
			rig_shoot(&rig, pages[n]);
			if (draw(&state) % 4 == 0)
				expect_eq(rig_read(&rig, gva), POISON);
			rig_map(&rig, gva, pages[n], P | W | U);
			break;
		case 1: /* its dirty bit is taken back: the next store says it again */
			*rig_entry_at(&rig, rig.root, gva, 1) &= ~AD;
			rig_shoot(&rig, pages[n]);
			break;
		case 2:
			expect_eq(rig_read(&rig, gva), values[n]);
			break;
		default:
			expect_eq(exchange(&rig, gva, value), values[n]);
			expect_eq(*rig_entry_at(&rig, rig.root, gva, 1) & AD, AD);
			values[n] = value;
		}
		expect_le(rig_space(&rig, 0)->tlb.nr, TLB_SIZE);
		if (i % 64 == 0)
			expect_child_intact(rig_space(&rig, 0));
	}
	for (unsigned int i = 0; i < NR_PAGES; i++)
		expect_eq(rig_words(&rig, pages[i])[0], values[i]);
	rig_destroy(&rig);
}

static void limit_address_space(struct rig *rig, rlim_t bytes)
{
	struct rlimit limit;

	expect_eq(prlimit(rig_space(rig, 0)->pid, RLIMIT_AS, NULL, &limit), 0);
	limit.rlim_cur = bytes;
	expect_eq(prlimit(rig_space(rig, 0)->pid, RLIMIT_AS, &limit, NULL), 0);
}

/* Pages that go one by one leave holes; each is closed by who comes back for its page, or all of
 * them when there are many. */
TEST(hosted_memory, holes_are_mended)
{
	const unsigned int nr = 3 * HOSTED_HOLES + 2;
	struct hosted_space *space;
	pfn_t pages[3 * HOSTED_HOLES + 2];
	unsigned int most = 0;
	struct rig rig;

	rig_create_hosted_here(&rig);
	for (unsigned int i = 0; i < nr; i++) {
		pages[i] = rig_page(&rig);
		rig_map(&rig, OTHER + 2 * i * PAGE_SIZE, pages[i], RWX | NX);
		expect_eq(exchange(&rig, OTHER + 2 * i * PAGE_SIZE, i), 0);
	}
	space = rig_space(&rig, 0);
	for (unsigned int i = 0; i < nr; i++) {
		rig_shoot(&rig, pages[i]);
		expect_child_intact(space);
		expect_le(space->nr_holes, HOSTED_HOLES - 1);
		most = max(most, space->nr_holes);
	}
	expect_eq(most, space->reserved ? HOSTED_HOLES - 1 : 0);
	expect_eq(space->nr_holes, space->reserved ? 2 : 0);
	for (unsigned int i = nr; i--;) {
		expect_eq(exchange(&rig, OTHER + 2 * i * PAGE_SIZE, 0), i);
		expect_child_intact(space);
	}
	expect_eq(space->nr_holes, 0);
	rig_destroy(&rig);
}

/* The host gives nothing any more: the guest is told, soon, and in words. */
TEST(hosted_memory, the_host_gives_no_mapping)
{
	struct engine_exit exit;
	struct guest_regs *regs;
	struct rig rig;

	rig_create_hosted_here(&rig);
	expect_eq(exchange(&rig, DATA, 1), 0);
	limit_address_space(&rig, PAGE_SIZE);
	regs = start(&rig, exchange);
	regs->gpr[GPR_RDI] = STACK;
	exit = rig_exit(&rig, 0);
	expect_eq(exit.kind, ENGINE_EXIT_ERROR);
	expect_str_contains(exit.why, "Cannot allocate memory");
	/* A page that was mapped before can be taken away all the same. */
	rig_shoot(&rig, rig.data);
	expect_child_intact(rig_space(&rig, 0));
	rig_destroy(&rig);
}

/* Only what is mapped is taken away, when there is nothing left. */
TEST(hosted_memory, a_shootdown_needs_no_mapping)
{
	struct rig rig;

	rig_create_hosted_here(&rig);
	expect_eq(exchange(&rig, DATA, 1), 0);
	expect_eq(exchange(&rig, STACK, 1), 0);
	limit_address_space(&rig, PAGE_SIZE);
	rig_map(&rig, DATA, 0, 0);
	rig_shoot(&rig, rig.data);
	expect_child_intact(rig_space(&rig, 0));
	limit_address_space(&rig, RLIM_INFINITY);
	expect_eq(rig_read(&rig, DATA), POISON);
	expect_eq(rig_read(&rig, STACK), 1);
	expect_child_intact(rig_space(&rig, 0));
	rig_destroy(&rig);
}

static void give_again(void *arg)
{
	struct rig *rig = arg;

	while (!READ_ONCE(rig_space(rig, 0)->refused))
		look_again_in(1000);
	limit_address_space(rig, RLIM_INFINITY);
}

/* It gives nothing for a moment. */
TEST(hosted_memory, the_host_hesitates)
{
	struct kthread thread;
	struct rig rig;

	rig_create_hosted_here(&rig);
	expect_eq(exchange(&rig, DATA, 1), 0);
	limit_address_space(&rig, PAGE_SIZE);
	expect_eq(kthread_run(&thread, "giver", give_again, &rig), 0);
	expect_eq(exchange(&rig, STACK, 7), 0);
	kthread_join(&thread);
	expect_eq(exchange(&rig, DATA, 2), 1);
	expect_eq(exchange(&rig, STACK, 2), 7);
	expect_child_intact(rig_space(&rig, 0));
	rig_destroy(&rig);
}
