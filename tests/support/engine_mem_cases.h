/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Memory under any engine: roots, entries that change, shootdown, retired tables.
 * An engine's test says which it is (ENGINE) and the name of its suite (SUITE), whether its CPUs
 * use a translation until it is shot down, and do not forget it before (ENGINE_REMEMBERS), and
 * includes this.
 */
#ifndef TESTS_SUPPORT_ENGINE_MEM_CASES_H
#define TESTS_SUPPORT_ENGINE_MEM_CASES_H

#include "notifier/sync/lock.h"
#include "notifier/sync/thread.h"
#include "notifier/sync/wait.h"
#include "tests/support/engine_rig.h"

ENGINE_TEST(roots_are_address_spaces)
{
	struct rig rig;
	pfn_t other_root, other_page;

	rig_create_here(&rig, &ENGINE);
	other_root = rig_table(&rig, 4);
	other_page = rig_page(&rig);
	rig_words(&rig, rig.data)[0] = 1;
	rig_words(&rig, other_page)[0] = 2;
	*rig_entry_at(&rig, other_root, CODE, 1) = rig.code << PAGE_SHIFT | P | U | 0x20;
	*rig_entry_at(&rig, other_root, DATA, 1) = other_page << PAGE_SHIFT | RWX | NX;
	for (unsigned int i = 0; i < 10; i++) {
		rig.machine->ops->load_root(rig.machine, 0, other_root);
		expect_eq(rig_read(&rig, DATA), 2);
		rig.machine->ops->load_root(rig.machine, 0, rig.root);
		expect_eq(rig_read(&rig, DATA), 1);
	}
	rig_destroy(&rig);
}

/* Rights that an entry gains are noticed without being told. */
ENGINE_TEST(entries_gain_rights)
{
	struct guest_regs *regs;
	struct rig rig;

	rig_create_here(&rig, &ENGINE);
	expect_eq(rig_read(&rig, OTHER), PHYS_POISON);
	rig_map(&rig, OTHER, rig.data, P | U | 0x20);
	expect_eq(rig_read(&rig, OTHER), 0);
	regs = start(&rig, store);
	regs->gpr[GPR_RDI] = OTHER;
	regs->gpr[GPR_RAX] = 9;
	expect_eq(rig_trap(&rig).vector, VECTOR_PF);
	rig_map(&rig, OTHER, rig.data, RWX);
	expect_eq(rig_trap(&rig).vector, VECTOR_UD);
	expect_eq(rig_words(&rig, rig.data)[0], 9);
	rig_destroy(&rig);
}

/* Runs, single frames, doubles, out of order. */
ENGINE_TEST(shootdown_of_many_frames)
{
	enum { NR = 64 };
	pfn_t pages[NR], list[2 * NR];
	size_t nr = 0;
	struct rig rig;

	rig_create_here(&rig, &ENGINE);
	for (unsigned int i = 0; i < NR; i++)
		pages[i] = rig_page(&rig);
	for (unsigned int round = 0; round < 4; round++) {
		for (unsigned int i = 0; i < NR; i++) {
			rig_map(&rig, OTHER + i * PAGE_SIZE, pages[i], RWX);
			rig_words(&rig, pages[i])[0] = i;
			expect_eq(rig_read(&rig, OTHER + i * PAGE_SIZE), i);
		}
		nr = 0;
		for (unsigned int i = 0; i < NR; i++) {
			unsigned int n = i * 37 % NR; /* each once, in no order */

			if (round == 0 && n % 3 == 0)
				continue;
			*rig_entry(&rig, OTHER + n * PAGE_SIZE, 1) = 0;
			list[nr++] = pages[n];
			if (round == 1)
				list[nr++] = pages[NR - 1 - n];
		}
		expect_eq(rig.machine->ops->shootdown(rig.machine, list, nr), 0);
		for (unsigned int i = 0; i < NR; i++)
			expect_eq(rig_read(&rig, OTHER + i * PAGE_SIZE),
				  round == 0 && i % 3 == 0 ? i : PHYS_POISON);
	}
	expect_eq(rig.machine->ops->shootdown(rig.machine, list, 0), 0);
	rig_destroy(&rig);
}

/*
 * The oracle of the whole project: a vCPU stores to a page as fast as it can while another thread
 * takes the page away, again and again. No store may land once the shootdown has returned.
 */
struct storm {
	struct rig rig;
	struct kthread thread;
	struct mutex lock;
	wait_queue_head_t wait;
	uint64_t *entry;
	pfn_t want; /* under lock: the frame to map at the next fault, or INVALID_PFN */
	bool stop;
	uint64_t faults;
};

static bool storm_answer_fault(struct storm *s)
{
	bool answered;

	mutex_lock(&s->lock);
	answered = s->stop || READ_ONCE(s->want) != INVALID_PFN;
	if (answered && !s->stop)
		WRITE_ONCE(*s->entry, s->want << PAGE_SHIFT | RWX);
	mutex_unlock(&s->lock);
	return answered;
}

static void storm_vcpu(void *arg)
{
	struct storm *s = arg;
	struct guest_regs *regs;

	expect_eq(ENGINE.vcpu_init(s->rig.engine, 0), 0);
	s->rig.machine->ops->load_root(s->rig.machine, 0, s->rig.root);
	regs = start(&s->rig, count);
	regs->gpr[GPR_RDI] = OTHER;
	for (;;) {
		struct engine_exit exit = rig_run(&s->rig, 0);

		if (exit.kind == ENGINE_EXIT_HALTED)
			return;
		expect_eq(exit.kind, ENGINE_EXIT_TRAP);
		expect_eq(exit.vector, VECTOR_PF);
		expect_eq(exit.fault_address, OTHER);
		WRITE_ONCE(s->faults, s->faults + 1);
		wait_event(s->wait, storm_answer_fault(s));
	}
}

static void storm_set(struct storm *s, pfn_t want, bool stop)
{
	mutex_lock(&s->lock);
	WRITE_ONCE(s->want, want);
	s->stop |= stop;
	if (want == INVALID_PFN)
		WRITE_ONCE(*s->entry, 0);
	mutex_unlock(&s->lock);
	wake_up_all(&s->wait);
}

static void storm_create(struct storm *s)
{
	*s = (struct storm){.want = INVALID_PFN};
	rig_create(&s->rig, &ENGINE, 256, 1);
	mutex_init(&s->lock);
	init_waitqueue_head(&s->wait);
	s->entry = rig_entry(&s->rig, OTHER, 1);
	expect_eq(kthread_run(&s->thread, "vcpu", storm_vcpu, s), 0);
}

static void storm_destroy(struct storm *s)
{
	storm_set(s, INVALID_PFN, true);
	s->rig.machine->ops->halt(s->rig.machine, "the test is over");
	kthread_join(&s->thread);
	rig_destroy(&s->rig);
}

/* Two pages take turns. A page is watched until it is mapped again: while the guest runs on. */
ENGINE_TEST(no_late_stores)
{
	unsigned int rounds = test_long() ? 5000 : 1000;
	uint64_t *words[2], seen[2];
	pfn_t pages[2];
	struct storm s;

	storm_create(&s);
	for (unsigned int i = 0; i < 2; i++) {
		pages[i] = rig_page(&s.rig);
		words[i] = rig_words(&s.rig, pages[i]);
		seen[i] = 0;
	}
	for (unsigned int i = 0; i < rounds; i++) {
		unsigned int n = i & 1;

		if (READ_ONCE(*words[n]) != seen[n])
			fail("round %u: a store to a page that had been shot down", i);
		storm_set(&s, pages[n], false);
		wait_while_equal(words[n], seen[n]);
		storm_set(&s, INVALID_PFN, false);
		rig_shoot(&s.rig, pages[n]);
		seen[n] = READ_ONCE(*words[n]);
		for (unsigned int pause = 0; pause < i % 4 * 500; pause++)
			cpu_relax();
	}
	storm_set(&s, INVALID_PFN, true);
	expect_ge(READ_ONCE(s.faults), rounds);
	expect_eq(READ_ONCE(*words[0]), seen[0]);
	expect_eq(READ_ONCE(*words[1]), seen[1]);
	storm_destroy(&s);
}

/* The same with the shootdown left out: the entry is clear, and the guest stores on. */
ENGINE_TEST(late_stores_without_shootdown)
{
	uint64_t *word;
	struct storm s;
	pfn_t page;

	if (!ENGINE_REMEMBERS)
		skip("a CPU that forgets by itself proves nothing here");
	storm_create(&s);
	page = rig_page(&s.rig);
	word = rig_words(&s.rig, page);
	storm_set(&s, page, false);
	wait_while_equal(word, 0);
	storm_set(&s, INVALID_PFN, false);
	for (unsigned int late = 0; late < 1000; late++)
		wait_while_equal(word, READ_ONCE(*word));
	storm_destroy(&s);
}

/*
 * A table is retired and its frame comes back at another address: the old address must stay empty.
 * The pool is kept at its last frames, so that every table is one that was just retired.
 */
struct reuse {
	struct rig rig;
	pfn_t hoard[4096];
	unsigned int nr_hoard;
};

static void hoard(struct reuse *r, uint64_t leave)
{
	while (phys_nr_free(r->rig.phys) > leave)
		r->hoard[r->nr_hoard++] = phys_alloc(r->rig.phys);
}

/* Two addresses that change their roles; counts the reads that should have faulted. */
static unsigned int reuse(uint64_t nr_frames, unsigned int rounds, bool retire, uint64_t *drains)
{
	const uint64_t places[] = {0x80000000, 0x81000000};
	struct machine *machine;
	struct reuse r = {0};
	unsigned int stale = 0;
	uint64_t drained;

	rig_create(&r.rig, &ENGINE, nr_frames, 1);
	machine = r.rig.machine;
	expect_eq(ENGINE.vcpu_init(r.rig.engine, 0), 0);
	machine->ops->load_root(machine, 0, r.rig.root);
	rig_entry(&r.rig, places[0], 2);
	rig_entry(&r.rig, places[1], 2);
	hoard(&r, 1);

	for (unsigned int i = 0; i < rounds; i++) {
		uint64_t here = places[i & 1], there = places[~i & 1];
		pfn_t table = rig_table(&r.rig, 1);

		rig_words(&r.rig, r.rig.data)[0] = 1000 + i;
		rig_words(&r.rig, table)[0] = r.rig.data << PAGE_SHIFT | RWX;
		*rig_entry(&r.rig, here, 2) = table << PAGE_SHIFT | TABLE;
		expect_eq(rig_read(&r.rig, here), 1000 + i);
		stale += rig_read(&r.rig, there) != PHYS_POISON;

		rig_words(&r.rig, table)[0] = 0;
		rig_shoot(&r.rig, r.rig.data);
		*rig_entry(&r.rig, here, 2) = 0;
		rig_forget_table(&r.rig, table);
		if (retire)
			machine->ops->retire_table(machine, table);
		else
			machine->ops->free_table(machine, table);
	}
	ENGINE.stats(r.rig.engine, drains, &drained);
	if (*drains)
		expect_ge(drained, *drains);
	while (r.nr_hoard)
		phys_put(r.rig.phys, r.hoard[--r.nr_hoard]);
	rig_destroy(&r.rig);
	return stale;
}

/* The pool is empty each time: alloc_table drains. */
ENGINE_TEST(retired_tables_are_forgotten)
{
	uint64_t drains;

	expect_eq(reuse(64, 50, true, &drains), 0);
	if (engine_noted(host(&ENGINE), "needs_quarantine"))
		expect_ge(drains, 40);
	else
		expect_eq(drains, 0);
}

/* Retired from a directory entry, and a new table put there: the guest sees the new one only. */
ENGINE_TEST(new_table_in_the_old_place)
{
	struct machine *machine;
	struct rig rig;

	rig_create(&rig, &ENGINE, 512, 1);
	machine = rig.machine;
	expect_eq(ENGINE.vcpu_init(rig.engine, 0), 0);
	machine->ops->load_root(machine, 0, rig.root);
	for (unsigned int round = 0; round < 60; round++) {
		uint64_t *dir = rig_entry(&rig, OTHER, 2);
		pfn_t table = rig_table(&rig, 1);

		*dir = table << PAGE_SHIFT | TABLE;
		rig_words(&rig, rig.data)[0] = 1000 + round;
		for (unsigned int i = 0; i < 8; i++)
			if ((round + i) % 3)
				rig_words(&rig, table)[i] = rig.data << PAGE_SHIFT | RWX;
		for (unsigned int i = 0; i < 8; i++)
			expect_eq(rig_read(&rig, OTHER + i * PAGE_SIZE),
				  (round + i) % 3 ? 1000 + round : PHYS_POISON);

		memset(rig_words(&rig, table), 0, PAGE_SIZE);
		rig_shoot(&rig, rig.data);
		*dir = 0;
		rig_forget_table(&rig, table);
		machine->ops->retire_table(machine, table);
	}
	rig_destroy(&rig);
}

#endif
