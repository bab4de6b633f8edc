/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Slots change under vCPUs that run. The first cases bring two threads into the one order that they
 * are about; the others let them run, and know of every access which outcomes it may have.
 */
#include <errno.h>
#include <sched.h>
#include <unistd.h>

#include "notifier/sync/thread.h"
#include "tests/support/asleep.h"
#include "tests/support/beside.h"
#include "tests/support/memslot_fixture.h"
#include "tests/support/park.h"

static const struct guest_mem_config config = {.audit = true, .nr_cpus = 2};

/* ---- a fault that is held in its middle ---- */

struct scene {
	struct guest_mem g;
	gva_t gva;
	struct park faulting; /* the vCPU, with the frame in hand */
	struct kthread cpu;
	atomic_t held; /* so many faults still to be held */
	bool cpu_runs;
	enum ret_pf first; /* what the fault that was held came to */
	int deleted;
};

static void hold_fault(void *arg)
{
	struct scene *s = arg;

	if (atomic_dec_return(&s->held) == 0)
		park_enter(&s->faulting);
}

static void run_fault(void *arg)
{
	struct scene *s = arg;
	struct shadow_fault fault;

	s->first = guest_fault(&s->g, 0, s->gva, PFERR_WRITE, &fault);
}

static void start_fault(struct scene *s)
{
	expect_eq(kthread_run(&s->cpu, "cpu", run_fault, s), 0);
	park_wait(&s->faulting, 1);
}

static void end_fault(struct scene *s)
{
	park_release(&s->faulting);
	kthread_join(&s->cpu);
}

static void run_delete(void *arg)
{
	struct scene *s = arg;

	s->deleted = delete_slot(&s->g, SLOT);
}

static void scene_init(struct scene *s, gva_t gva, enum shadow_zap_policy policy)
{
	memslot_fixture(&s->g, &config);
	expect_eq(place(&s->g, SLOT_GFN), 0);
	shadow_set_zap_policy(s->g.shadow, policy);
	s->gva = gva;
	park_init(&s->faulting);
	atomic_set(&s->held, 1);
	shadow_set_hook(s->g.shadow, SHADOW_HOOK_FAULT_BEFORE_LOCK, hold_fault, s);
}

/*
 * A fault on the slot itself was resolved before it became INVALID: it may install its leaf, as the
 * delete waits for it and finds the leaf.
 */
TEST(memslot_races, delete)
{
	enum shadow_zap_policy policy;

	for_each_policy(policy)
	{
		uint64_t generation;
		struct kthread deleter;
		struct scene s;

		scene_init(&s, slot_gva(SLOT_GFN), policy);
		generation = shadow_memslots_generation(s.g.shadow);
		start_fault(&s);
		expect_eq(kthread_run(&deleter, "deleter", run_delete, &s), 0);
		/* A set is published, and its grace period has begun. */
		while (shadow_memslots_generation(s.g.shadow) == generation)
			sched_yield();
		end_fault(&s);
		kthread_join(&deleter);
		expect_eq(s.deleted, 0);
		expect_eq(s.first, RET_PF_FIXED);
		expect_unreached(&s.g);
		expect_eq(guest_try(&s.g, 0, MODEL_LOAD, s.gva, NULL), RET_PF_EMULATE);
		memslot_fixture_done(&s.g);
	}
}

/* a fault on another slot, resolved before the zap, comes to the lock after it. */
static void fault_before_zap(void *arg)
{
	struct scene *s = arg;

	if (!s->cpu_runs)
		start_fault(s);
	s->cpu_runs = true;
}

static void fault_after_zap(void *arg)
{
	end_fault(arg);
}

TEST(memslot_races, obsolete_root)
{
	enum shadow_zap_policy policy;

	for_each_policy(policy)
	{
		struct scene s = {0};

		scene_init(&s, 0x3000, policy);
		atomic_set(&s.held, 0); /* the hook lets this one pass */
		guest_store(&s.g, 1, 0x5000, 5);
		atomic_set(&s.held, 1);
		shadow_set_hook(s.g.shadow, SHADOW_HOOK_SLOT_BEFORE_ZAP, fault_before_zap, &s);
		shadow_set_hook(s.g.shadow, SHADOW_HOOK_SLOT_AFTER_ZAP, fault_after_zap, &s);
		expect_eq(delete_slot(&s.g, SLOT), 0);
		expect_eq(s.first, policy == SHADOW_ZAP_ALL ? RET_PF_RETRY : RET_PF_FIXED);
		guest_store(&s.g, 0, 0x3000, 3);
		expect(!shadow_page_obsolete(s.g.shadow, s.g.shadow->vcpu[0].root));
		expect_eq(guest_load(&s.g, 1, 0x3000), 3);
		expect_eq(guest_load(&s.g, 1, 0x5000), 5);
		memslot_fixture_done(&s.g);
	}
}

struct policy_setter {
	struct guest_mem g;
	struct beside beside;
};

static void set_policy(void *arg)
{
	struct policy_setter *setter = arg;

	shadow_set_zap_policy(setter->g.shadow, SHADOW_ZAP_SLOT);
}

static void set_policy_meanwhile(void *arg)
{
	struct policy_setter *setter = arg;

	beside_start(&setter->beside, set_policy, setter);
	beside_sleeps(&setter->beside);
}

/* The policy is that of a whole change: whoever sets it waits for one that is under way. */
TEST(memslot_races, policy_of_a_change)
{
	struct policy_setter s;

	memslot_fixture(&s.g, &config);
	expect_eq(place(&s.g, SLOT_GFN), 0);
	shadow_set_hook(s.g.shadow, SHADOW_HOOK_SLOT_BEFORE_ZAP, set_policy_meanwhile, &s);
	expect_eq(delete_slot(&s.g, SLOT), 0);
	kthread_join(&s.beside.thread);
	memslot_fixture_done(&s.g);
}

static void run_place(void *arg)
{
	struct scene *s = arg;

	expect_eq(place(&s->g, SLOT_GFN), 0);
}

static void place_before_walk(void *arg)
{
	struct scene *s = arg;
	uint64_t generation = shadow_memslots_generation(s->g.shadow);

	shadow_set_hook(s->g.shadow, SHADOW_HOOK_FAULT_BEFORE_WALK, NULL, NULL);
	expect_eq(kthread_run(&s->cpu, "slots", run_place, s), 0);
	while (shadow_memslots_generation(s->g.shadow) == generation)
		sched_yield();
}

/*
 * The page that CR3 names becomes memory under a fault: the walk goes through it, and the vCPU has
 * the root of one that named none. That stays empty (K-38); the next fault has another.
 */
TEST(memslot_races, memory_under_a_dummy_root)
{
	struct shadow_fault fault;
	struct scene s = {0};

	memslot_fixture(&s.g, &config);
	guest_store(&s.g, 0, 0x3000, 3);
	for (unsigned int i = 0; i < TABLE_ENTRIES; i++) {
		uint64_t gpte = guest_read(&s.g, (s.g.cr3 & PAGE_MASK) + i * sizeof(gpte));

		expect_eq(mm_write(s.g.mm, SLOT_HVA + i * sizeof(gpte), &gpte, sizeof(gpte)), 0);
	}
	expect_eq(shadow_load_cr3(s.g.shadow, 0, SLOT_GFN << PAGE_SHIFT), 0);
	shadow_set_hook(s.g.shadow, SHADOW_HOOK_FAULT_BEFORE_WALK, place_before_walk, &s);
	expect_eq(guest_fault(&s.g, 0, 0x3000, 0, &fault), RET_PF_RETRY);
	kthread_join(&s.cpu);
	expect_eq(guest_load(&s.g, 0, 0x3000), 3);
	memslot_fixture_done(&s.g);
}

/* Between the two swaps a fault on the slot is neither memory nor a device; on a page of which no
 * entry is left, that is. */
static void fault_on_invalid(void *arg)
{
	struct guest_mem *g = arg;
	struct shadow_fault fault;

	expect_eq(guest_fault(g, 0, slot_gva(SLOT_GFN + 2), 0, &fault), RET_PF_RETRY);
	expect_eq(guest_fault(g, 0, slot_gva(SLOT_GFN + 2), PFERR_WRITE, &fault), RET_PF_RETRY);
	/* Nor are the guest's tables there: this is no answer yet, either. */
	expect_eq(guest_fault(g, 0, 0x20000000, 0, &fault), RET_PF_RETRY);
	expect_eq(guest_load(g, 0, 0x5000), 5);
}

TEST(memslot_races, invalid_slot)
{
	enum shadow_zap_policy policy;

	for_each_policy(policy)
	{
		struct guest_mem g;

		memslot_fixture(&g, &config);
		shadow_set_zap_policy(g.shadow, policy);
		guest_store(&g, 0, 0x5000, 5);
		guest_write(&g, guest_pte_gpa(&g, g.cr3, 0x20000000, 2),
			    (SLOT_GFN + 1) << PAGE_SHIFT | GUEST_PTE_RW);
		expect_eq(place(&g, SLOT_GFN), 0);
		shadow_set_hook(g.shadow, SHADOW_HOOK_SLOT_BEFORE_ZAP, fault_on_invalid, &g);
		shadow_set_hook(g.shadow, SHADOW_HOOK_SLOT_AFTER_ZAP, fault_on_invalid, &g);
		expect_eq(place(&g, SLOT_GFN + 1), 0);
		expect_eq(guest_load(&g, 0, slot_gva(SLOT_GFN + 1)), stamp(0));
		expect_eq(delete_slot(&g, SLOT), 0);
		memslot_fixture_done(&g);
	}
}

/* ---- a store that is carried out ---- */

struct change {
	struct guest_mem *g;
	unsigned int flags;
	bool gone;
	atomic_t tid, over;
	int ret;
};

static void run_change(void *arg)
{
	struct change *c = arg;

	atomic_set_release(&c->tid, gettid());
	c->ret = c->gone ? delete_slot(c->g, SLOT)
			 : set_slot(c->g, SLOT, SLOT_GFN, SLOT_PAGES, SLOT_HVA, c->flags);
	atomic_set_release(&c->over, 1);
}

/* Between its get and its put the slot is changed: that has not returned before the store is done,
 * and so none comes after it. */
static void store_meets(struct change change, enum shadow_zap_policy policy)
{
	struct shadow_operand operand;
	struct shadow_fault fault;
	struct kthread changer;
	struct guest_mem g;
	uint64_t word = 0;

	memslot_fixture(&g, &config);
	expect_eq(place(&g, SLOT_GFN), 0);
	shadow_set_zap_policy(g.shadow, policy);
	change.g = &g;
	expect_eq(shadow_operand_get(g.shadow, 0, slot_gva(SLOT_GFN), 8, PFERR_WRITE, &operand,
				     &fault),
		  0);
	expect_eq(kthread_run(&changer, "changer", run_change, &change), 0);
	while (!atomic_read_acquire(&change.tid))
		sched_yield();
	while (!is_asleep(atomic_read(&change.tid)) && !atomic_read_acquire(&change.over))
		sched_yield();
	expect(!atomic_read_acquire(&change.over));
	expect_eq(shadow_operand_write(g.shadow, &operand, 4711), 0);
	expect(!atomic_read_acquire(&change.over));
	shadow_operand_put(g.shadow, &operand);
	kthread_join(&changer);
	expect_eq(change.ret, 0);
	expect_eq(mm_read(g.mm, SLOT_HVA, &word, sizeof(word)), 0);
	expect_eq(word, 4711);
	expect_eq(shadow_operand_get(g.shadow, 0, slot_gva(SLOT_GFN), 8, PFERR_WRITE, &operand,
				     &fault),
		  -ENXIO);
	memslot_fixture_done(&g);
}

TEST(memslot_races, operand_meets_a_delete)
{
	enum shadow_zap_policy policy;

	for_each_policy(policy) store_meets((struct change){.gone = true}, policy);
}

TEST(memslot_races, operand_meets_read_only)
{
	store_meets((struct change){.flags = MEMSLOT_READONLY}, SHADOW_ZAP_ALL);
}

/* ---- vCPUs that run ---- */

struct run;

struct runner {
	struct run *run;
	unsigned int cpu;
	struct kthread thread;
	uint64_t accesses, olds, nones, news;
};

struct run {
	struct guest_mem g;
	struct runner runner[2];
	atomic_t stop;
	/* T-07: where the slot is and when: odd while it is on its way, and the guest may see both
	 * sides of it. */
	atomic_t phase;
	atomic_t accesses, emulated;
};

static void run_cpus(struct run *r, void (*fn)(void *arg))
{
	for (unsigned int i = 0; i < 2; i++) {
		r->runner[i] = (struct runner){.run = r, .cpu = i};
		expect_eq(kthread_run(&r->runner[i].thread, "cpu", fn, &r->runner[i]), 0);
	}
}

static void stop_cpus(struct run *r, int at_least)
{
	while (atomic_read(&r->accesses) < at_least)
		sched_yield();
	atomic_set(&r->stop, 1);
	for (unsigned int i = 0; i < 2; i++)
		kthread_join(&r->runner[i].thread);
}

static void run_init(struct run *r, enum shadow_zap_policy policy)
{
	const struct guest_mem_config fast = {.nr_cpus = 2}; /* audited at the end */

	memslot_fixture(&r->g, &fast);
	shadow_set_zap_policy(r->g.shadow, policy);
	atomic_set(&r->stop, 0);
	atomic_set(&r->phase, 0);
	atomic_set(&r->accesses, 0);
	atomic_set(&r->emulated, 0);
}

/* T-02: each CPU counts in words of its own, and none gets lost. */
static void count_in_ram(void *arg)
{
	struct runner *self = arg;
	struct run *r = self->run;

	for (uint64_t i = 0; !atomic_read(&r->stop); i++) {
		struct model_access access = {
			.op = MODEL_ADD,
			.gva = (i % 16 << PAGE_SHIFT) + 8 * self->cpu,
			.value = 1,
		};

		expect_eq(model_access_retry(r->g.model, self->cpu, r->g.shadow, &access),
			  RET_PF_FIXED);
		expect_eq(access.value, i / 16);
		atomic_inc(&r->accesses);
		self->accesses++;
	}
}

TEST(memslot_races, modification_stress)
{
	const int rounds = test_long() ? 5000 : 300;
	enum shadow_zap_policy policy;

	for_each_policy(policy)
	{
		struct run r;

		run_init(&r, policy);
		run_cpus(&r, count_in_ram);
		for (int i = 0; i < rounds; i++) {
			expect_eq(place(&r.g, SLOT_GFN + i % 3), 0);
			expect_eq(delete_slot(&r.g, SLOT), 0);
		}
		stop_cpus(&r, 10 * rounds);
		for (unsigned int cpu = 0; cpu < 2; cpu++) {
			uint64_t sum = 0;

			for (uint64_t page = 0; page < 16; page++)
				sum += guest_read(&r.g, (page << PAGE_SHIFT) + 8 * cpu);
			expect_eq(sum, r.runner[cpu].accesses);
		}
		memslot_fixture_done(&r.g);
	}
}

/*
 * T-07. The page at SLOT_GFN is number n of the slot, as that moves from SLOT_GFN - n to the next
 * place. An access that begins and ends in a quiet phase has one outcome. One that meets a move has
 * the old one, the new one, or for a slot that goes further than it is long, none; and whoever has
 * seen the new one never sees the old one again.
 */
#define QUIET(phase) (!((phase)&1))

/* Number of the page that is at SLOT_GFN in the quiet phase @phase; none. */
#define NONE (~0UL)
static uint64_t page_in_phase(int phase)
{
	static const uint64_t page[] = {0, 1, NONE, 2, 7, 3, NONE, NONE};

	return page[phase / 2 % 8];
}

static gfn_t base_of_page(uint64_t page)
{
	return page == NONE ? SLOT_GFN + 1 : SLOT_GFN - page;
}

static void watch_move(void *arg)
{
	struct runner *self = arg;
	struct run *r = self->run;
	int new_seen_in = -1; /* the odd phase in which this CPU has seen what comes */

	while (!atomic_read(&r->stop)) {
		struct model_access access = {.op = MODEL_LOAD, .gva = slot_gva(SLOT_GFN)};
		int before = atomic_read_acquire(&r->phase), after;
		uint64_t old = page_in_phase(before), new = page_in_phase(before + 1), page = NONE;
		enum ret_pf pf;

		pf = model_access_retry(r->g.model, self->cpu, r->g.shadow, &access);
		smp_mb(); /* the look at the phase is not before the access */
		after = atomic_read(&r->phase);
		if (pf == RET_PF_FIXED)
			page = access.value - stamp(0);
		else
			expect_eq(pf, RET_PF_EMULATE);
		expect(page == NONE || page < SLOT_PAGES);
		atomic_inc(&r->accesses);
		self->accesses++;
		if (after != before) {
			/* Phases went by. At least it is a page, and was one of the slot. */
			continue;
		}
		if (QUIET(before)) {
			expect_eq(page, old);
			continue;
		}
		expect(page == old || page == new || page == NONE);
		if (new_seen_in == before)
			expect_eq(page, new);
		if (page == new &&new != old &&new != NONE)
			new_seen_in = before;
		self->olds += page == old;
		self->news += page == new;
		self->nones += page == NONE;
	}
}

TEST(memslot_races, move)
{
	const int rounds = test_long() ? 20000 : 300;
	enum shadow_zap_policy policy;

	for_each_policy(policy)
	{
		struct run r;

		run_init(&r, policy);
		expect_eq(place(&r.g, base_of_page(page_in_phase(0))), 0);
		run_cpus(&r, watch_move);
		for (int i = 0; i < rounds; i++) {
			int seen = atomic_read(&r.accesses);

			atomic_inc_return(&r.phase);
			expect_eq(place(&r.g, base_of_page(page_in_phase(2 * i + 2))), 0);
			atomic_inc_return(&r.phase);
			/* Both CPUs get to see some of the quiet phases. */
			while (i % 4 == 0 && atomic_read(&r.accesses) < seen + 8)
				sched_yield();
		}
		stop_cpus(&r, rounds);
		expect_ge(r.runner[0].olds + r.runner[1].olds + r.runner[0].news + r.runner[1].news,
			  10);
		memslot_fixture_done(&r.g);
	}
}

/*
 * A delete has returned: the host does what it likes with the memory, and no CPU reads or writes
 * it.
 */
#define FOREIGN 0xf0e1d2c3b4a59687UL

static void add_in_slot(void *arg)
{
	struct runner *self = arg;
	struct run *r = self->run;

	for (uint64_t i = 0; !atomic_read(&r->stop); i++) {
		struct model_access access = {
			.op = i % 2 ? MODEL_ADD : MODEL_LOAD,
			.gva = slot_gva(SLOT_GFN + i % SLOT_PAGES),
			.value = 1UL << 20,
		};
		enum ret_pf pf = model_access_retry(r->g.model, self->cpu, r->g.shadow, &access);

		if (pf == RET_PF_FIXED) {
			expect_eq(access.value & 0xfffff, i % SLOT_PAGES);
			expect_eq(access.value >> 44, stamp(0) >> 44);
			atomic_inc(&r->accesses);
		} else {
			expect_eq(pf, RET_PF_EMULATE);
			atomic_inc(&r->emulated);
		}
	}
}

static void fill(struct run *r, uint64_t word)
{
	for (uint64_t i = 0; i < SLOT_PAGES; i++)
		expect_eq(mm_write(r->g.mm, SLOT_HVA + i * PAGE_SIZE, &word, sizeof(word)), 0);
}

static void expect_filled(struct run *r, uint64_t word)
{
	for (uint64_t i = 0; i < SLOT_PAGES; i++) {
		uint64_t now = 0;

		expect_eq(mm_read(r->g.mm, SLOT_HVA + i * PAGE_SIZE, &now, sizeof(now)), 0);
		expect_eq(now, word);
	}
}

TEST(memslot_races, deleted_is_out_of_reach)
{
	const int rounds = test_long() ? 3000 : 60;
	enum shadow_zap_policy policy;

	for_each_policy(policy)
	{
		struct run r;

		run_init(&r, policy);
		run_cpus(&r, add_in_slot);
		for (int i = 0; i < rounds; i++) {
			int seen = atomic_read(&r.accesses), emulated;

			stamp_pages(&r.g);
			expect_eq(place(&r.g, SLOT_GFN), 0);
			while (atomic_read(&r.accesses) < seen + 20)
				sched_yield();
			expect_eq(delete_slot(&r.g, SLOT), 0);
			fill(&r, FOREIGN);
			emulated = atomic_read(&r.emulated);
			while (atomic_read(&r.emulated) < emulated + 20)
				sched_yield();
			expect_filled(&r, FOREIGN);
			expect_eq(mm_zap_range(r.g.mm, SLOT_HVA, SLOT_PAGES * PAGE_SIZE),
				  SLOT_PAGES);
		}
		stop_cpus(&r, rounds);
		memslot_fixture_done(&r.g);
	}
}

/* A slot that has become read-only is not written any more. */
TEST(memslot_races, read_only_holds)
{
	const int rounds = test_long() ? 3000 : 60;
	struct run r;

	run_init(&r, SHADOW_ZAP_ALL);
	expect_eq(place(&r.g, SLOT_GFN), 0);
	run_cpus(&r, add_in_slot);
	for (int i = 0; i < rounds; i++) {
		int seen = atomic_read(&r.accesses), emulated;

		expect_eq(place(&r.g, SLOT_GFN), 0);
		while (atomic_read(&r.accesses) < seen + 40)
			sched_yield();
		expect_eq(set_slot(&r.g, SLOT, SLOT_GFN, SLOT_PAGES, SLOT_HVA, MEMSLOT_READONLY),
			  0);
		stamp_pages(&r.g);
		emulated = atomic_read(&r.emulated);
		while (atomic_read(&r.emulated) < emulated + 20)
			sched_yield();
		for (uint64_t page = 0; page < SLOT_PAGES; page++) {
			uint64_t word = 0;

			expect_eq(mm_read(r.g.mm, SLOT_HVA + page * PAGE_SIZE, &word, sizeof(word)),
				  0);
			expect_eq(word, stamp(page));
		}
	}
	stop_cpus(&r, rounds);
	memslot_fixture_done(&r.g);
}
