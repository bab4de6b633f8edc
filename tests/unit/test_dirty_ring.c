/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Dirty rings: what is in which, in what order, when an entry is free again, and what happens when
 * there is no room.
 */
#include <errno.h>
#include <sched.h>
#include <string.h>

#include "notifier/sync/thread.h"
#include "tests/support/beside.h"
#include "tests/support/dirty_fixture.h"

#define ENTRIES 16u
#define OTHERS	2u /* the ring of what no CPU stored */

static const struct guest_mem_config config = {.audit = true, .nr_cpus = 2};

/* Where somebody who collects is, in each ring. */
struct collector {
	uint32_t next[3];
};

static void fixture(struct guest_mem *g, struct collector *c)
{
	memslot_fixture(g, &config);
	memset(c, 0, sizeof(*c));
	expect_eq(shadow_enable_dirty_rings(g->shadow, ENTRIES), 0);
	expect_eq(place(g, SLOT_GFN), 0);
	for (uint64_t i = 0; i < SLOT_PAGES; i++)
		guest_store(g, 0, slot_gva(SLOT_GFN + i), stamp(i));
	expect_eq(log_slot(g, true), 0);
}

/* The next entry of ring @nr: its page in SLOT; -1: there is none. Read, and given back. */
static int64_t take(struct guest_mem *g, struct collector *c, unsigned int nr)
{
	struct shadow_dirty_gfn *entry = &shadow_dirty_ring(g->shadow, nr)[c->next[nr] % ENTRIES];
	int64_t page;

	if (!shadow_dirty_gfn_filled(entry))
		return -1;
	expect_eq(entry->slot, SLOT);
	page = (int64_t)entry->offset;
	shadow_dirty_gfn_done(entry);
	c->next[nr]++;
	return page;
}

TEST(dirty_ring, what_is_refused)
{
	static const unsigned int bad[] = {0, 1, 8, 17, 24, 131072};
	uint64_t bitmap[RAM_WORDS_MAX];
	struct guest_mem g;

	memslot_fixture(&g, &config);
	expect(!shadow_dirty_ring(g.shadow, 0));
	expect_eq(shadow_reset_dirty_rings(g.shadow), -ENXIO);
	shadow_wait_dirty_ring(g.shadow, 0, NULL, NULL);
	for (unsigned int i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		expect_eq(shadow_enable_dirty_rings(g.shadow, bad[i]), -EINVAL);
	expect_eq(place(&g, SLOT_GFN), 0);
	expect_eq(log_slot(&g, true), 0);
	expect_eq(shadow_enable_dirty_rings(g.shadow, ENTRIES), -EBUSY);
	expect_eq(log_slot(&g, false), 0);
	expect_eq(shadow_enable_dirty_rings(g.shadow, ENTRIES), 0);
	expect_eq(shadow_enable_dirty_rings(g.shadow, ENTRIES), -EEXIST);
	/* And the bitmap, from then on. */
	expect_eq(log_slot(&g, true), 0);
	expect_eq(shadow_get_dirty_log(g.shadow, SLOT, bitmap), -ENXIO);
	expect_eq(shadow_clear_dirty_log(g.shadow, SLOT, 0, SLOT_PAGES, bitmap), -ENXIO);
	memslot_fixture_done(&g);
}

/* Each vCPU's own, in the order of its stores; once, until they are reset. */
TEST(dirty_ring, pages_in_turn)
{
	struct collector c;
	struct guest_mem g;

	fixture(&g, &c);
	for (int round = 0; round < 10; round++) {
		for (int i = 0; i < 2; i++) {
			guest_store(&g, 0, slot_gva(SLOT_GFN + 3), 3);
			guest_store(&g, 1, slot_gva(SLOT_GFN + 5), 5);
			guest_store(&g, 0, slot_gva(SLOT_GFN + 1), 1);
		}
		expect_eq(take(&g, &c, 0), 3);
		expect_eq(take(&g, &c, 0), 1);
		expect_eq(take(&g, &c, 0), -1);
		expect_eq(take(&g, &c, 1), 5);
		expect_eq(take(&g, &c, 1), -1);
		/* Read, and not reset: stores go unnoticed still. */
		expect_eq(model_store(g.model, 0, slot_gva(SLOT_GFN + 3), 4), 0);
		expect_eq(shadow_reset_dirty_rings(g.shadow), 3);
		expect_eq(model_store(g.model, 0, slot_gva(SLOT_GFN + 3), 4), -EFAULT);
		expect_eq(model_store(g.model, 1, slot_gva(SLOT_GFN + 5), 4), -EFAULT);
		expect_eq(shadow_reset_dirty_rings(g.shadow), 0);
	}
	memslot_fixture_done(&g);
}

/* An entry that was not given back keeps its page, and those behind it. */
TEST(dirty_ring, reset_in_turn)
{
	struct shadow_dirty_gfn *ring;
	struct collector c;
	struct guest_mem g;

	fixture(&g, &c);
	ring = shadow_dirty_ring(g.shadow, 0);
	for (uint64_t i = 0; i < 3; i++)
		guest_store(&g, 0, slot_gva(SLOT_GFN + i), i);
	shadow_dirty_gfn_done(&ring[1]);
	expect_eq(shadow_reset_dirty_rings(g.shadow), 0);
	expect_eq(model_store(g.model, 0, slot_gva(SLOT_GFN + 1), 1), 0);
	shadow_dirty_gfn_done(&ring[0]);
	expect_eq(shadow_reset_dirty_rings(g.shadow), 2);
	expect_eq(model_store(g.model, 0, slot_gva(SLOT_GFN + 1), 1), -EFAULT);
	expect_eq(model_store(g.model, 0, slot_gva(SLOT_GFN + 2), 1), 0);
	/* Rubbish in an entry is nobody's page. */
	ring[2].slot = UINT32_MAX;
	shadow_dirty_gfn_done(&ring[2]);
	expect_eq(shadow_reset_dirty_rings(g.shadow), 1);
	memslot_fixture_done(&g);
}

/* What no CPU stored comes with a reset, as far as there is room, and nothing of it is lost. */
TEST(dirty_ring, what_no_cpu_stored)
{
	struct collector c;
	struct guest_mem g;
	uint64_t word = 1;

	fixture(&g, &c);
	expect_eq(log_ram(&g, true), 0);
	expect_eq(shadow_write_gpa(g.shadow, (SLOT_GFN + 4) << PAGE_SHIFT, &word, 8), 0);
	expect_eq(take(&g, &c, OTHERS), -1);
	expect_eq(shadow_reset_dirty_rings(g.shadow), 0);
	expect_eq(take(&g, &c, OTHERS), 4);
	expect_eq(take(&g, &c, OTHERS), -1);

	/* More than there is room for, in pages of RAM. */
	for (uint64_t i = 0; i < 40; i++)
		expect_eq(shadow_write_gpa(g.shadow, i << PAGE_SHIFT, &word, 8), 0);
	for (uint64_t i = 0; i < 40; i++) {
		struct shadow_dirty_gfn *entry =
			&shadow_dirty_ring(g.shadow, OTHERS)[c.next[OTHERS] % ENTRIES];

		if (!shadow_dirty_gfn_filled(entry))
			expect_ge(shadow_reset_dirty_rings(g.shadow), 1);
		expect(shadow_dirty_gfn_filled(entry));
		expect_eq(entry->slot, 0);
		expect_eq(entry->offset, i);
		shadow_dirty_gfn_done(entry);
		c.next[OTHERS]++;
	}
	shadow_reset_dirty_rings(g.shadow);
	expect_eq(take(&g, &c, OTHERS), -1);
	memslot_fixture_done(&g);
}

/* However many are given back, they are free at once: in sections, and none where there is none. */
TEST(dirty_ring, reset_in_sections)
{
	const struct guest_mem_config wide = {.audit = true, .nr_pages = 512};
	const unsigned int pages = 2 * ZAP_BATCH_FRAMES + 7;
	unsigned int breaks = 0;
	struct guest_mem g;

	memslot_fixture(&g, &wide);
	expect_eq(shadow_enable_dirty_rings(g.shadow, 512), 0);
	expect_eq(log_ram(&g, true), 0);
	for (gpa_t n = 0; n < pages; n++)
		guest_store(&g, 0, n << PAGE_SHIFT, n);
	shadow_set_hook(g.shadow, SHADOW_HOOK_DIRTY_BREAK, hook_count, &breaks);
	expect_eq(shadow_reset_dirty_rings(g.shadow), 0);
	expect_eq(breaks, 0);
	for (unsigned int n = 0; n < pages; n++) {
		expect(shadow_dirty_gfn_filled(&shadow_dirty_ring(g.shadow, 0)[n]));
		shadow_dirty_gfn_done(&shadow_dirty_ring(g.shadow, 0)[n]);
	}
	expect_eq(shadow_reset_dirty_rings(g.shadow), pages);
	expect_eq(breaks, 3);
	memslot_fixture_done(&g);
}

/* ---- beside a change of the slots ---- */

struct ring_call {
	struct guest_mem *g;
	void (*call)(void *g);
	struct beside beside;
};

static void enable(void *arg)
{
	struct guest_mem *g = arg;

	expect_eq(shadow_enable_dirty_rings(g->shadow, ENTRIES), 0);
}

static void reset(void *arg)
{
	struct guest_mem *g = arg;

	expect_eq(shadow_reset_dirty_rings(g->shadow), 0);
}

static void set_mode(void *arg)
{
	struct guest_mem *g = arg;

	expect_eq(shadow_set_dirty_log_mode(g->shadow, 0), 0);
}

static void call_meanwhile(void *arg)
{
	struct ring_call *r = arg;

	beside_start(&r->beside, r->call, r->g);
	beside_sleeps(&r->beside);
}

/* What slots are logged decides whether there may be rings, and what a reset may look at; and a
 * slot begins to be logged in one mode. */
TEST(dirty_ring, wait_for_a_change_of_the_slots)
{
	struct guest_mem g;
	struct ring_call calls[] = {{.g = &g, .call = enable},
				    {.g = &g, .call = reset},
				    {.g = &g, .call = set_mode}};

	memslot_fixture(&g, &config);
	for (unsigned int i = 0; i < ARRAY_SIZE(calls); i++) {
		expect_eq(place(&g, SLOT_GFN), 0);
		shadow_set_hook(g.shadow, SHADOW_HOOK_SLOT_BEFORE_ZAP, call_meanwhile, &calls[i]);
		expect_eq(delete_slot(&g, SLOT), 0);
		shadow_set_hook(g.shadow, SHADOW_HOOK_SLOT_BEFORE_ZAP, NULL, NULL);
		kthread_join(&calls[i].beside.thread);
	}
	memslot_fixture_done(&g);
}

/* ---- no room ---- */

TEST(dirty_ring, a_vcpu_without_room)
{
	struct collector c;
	struct guest_mem g;
	unsigned int done;

	fixture(&g, &c);
	expect_eq(log_ram(&g, true), 0);
	for (done = 0; done < 2 * ENTRIES; done++) {
		if (guest_try(&g, 0, MODEL_STORE, done << PAGE_SHIFT, NULL) ==
		    RET_PF_DIRTY_RING_FULL)
			break;
	}
	expect_eq(done, ENTRIES);
	/* Nothing was done; a read is; and so is a store of the other vCPU, which has room. */
	expect_eq(guest_try(&g, 0, MODEL_LOAD, done << PAGE_SHIFT, NULL), RET_PF_FIXED);
	expect_eq(guest_try(&g, 0, MODEL_STORE, 0, NULL), RET_PF_FIXED); /* by its TLB */
	expect_eq(guest_try(&g, 1, MODEL_STORE, done << PAGE_SHIFT, NULL), RET_PF_FIXED);
	for (unsigned int i = 0; i < ENTRIES; i++) {
		struct shadow_dirty_gfn *entry = &shadow_dirty_ring(g.shadow, 0)[i];

		expect(shadow_dirty_gfn_filled(entry));
		expect_eq(entry->offset, i);
		shadow_dirty_gfn_done(entry);
	}
	expect_eq(shadow_reset_dirty_rings(g.shadow), ENTRIES);
	expect_eq(guest_try(&g, 0, MODEL_STORE, 0, NULL), RET_PF_FIXED);
	memslot_fixture_done(&g);
}

static void change_leaf(void *arg)
{
	spte_t *sptep = arg;

	*sptep ^= SPTE_AGED;
}

/* A fault that marks a page and then finds another leaf, each time, has marked it once: there may
 * be no room for more. It has granted nothing, so the store comes again. */
TEST(dirty_ring, a_fault_marks_once)
{
	const gva_t gva = slot_gva(SLOT_GFN + 3);
	struct shadow_fault fault;
	struct collector c;
	struct guest_mem g;

	fixture(&g, &c);
	shadow_set_hook(g.shadow, SHADOW_HOOK_FAST_BEFORE_SWAP, change_leaf, leaf_of(&g, gva));
	expect_eq(guest_fault(&g, 0, gva, PFERR_WRITE, &fault), RET_PF_RETRY);
	shadow_set_hook(g.shadow, SHADOW_HOOK_FAST_BEFORE_SWAP, NULL, NULL);
	expect_eq(take(&g, &c, 0), 3);
	expect_eq(take(&g, &c, 0), -1);
	guest_store(&g, 0, gva, 3);
	expect_eq(take(&g, &c, 0), 3);
	expect_eq(take(&g, &c, 0), -1);
	memslot_fixture_done(&g);
}

struct waiter {
	struct guest_mem *g;
	atomic_t give_up, over;
};

static bool give_up(void *arg)
{
	return atomic_read(&((struct waiter *)arg)->give_up);
}

static void run_wait(void *arg)
{
	struct waiter *w = arg;

	shadow_wait_dirty_ring(w->g->shadow, 0, give_up, w);
	atomic_set(&w->over, 1);
}

static void until_it_waits(struct guest_mem *g)
{
	while (!READ_ONCE(g->shadow->ring_wait.waiters))
		sched_yield();
}

struct storer {
	struct guest_mem *g;
	atomic_t stores, stop;
};

static void run_stores(void *arg)
{
	struct storer *s = arg;
	struct shadow_fault fault;

	while (!atomic_read(&s->stop)) {
		enum ret_pf ret = guest_fault(s->g, 0, 0, PFERR_WRITE, &fault);

		ASSERT(ret == RET_PF_FIXED || ret == RET_PF_SPURIOUS || ret == RET_PF_RETRY,
		       "a store: %s", ret_pf_name(ret));
		atomic_inc(&s->stores);
	}
}

static void until_it_stores(struct storer *s)
{
	int before = atomic_read(&s->stores);

	/* One of them may be counted late. */
	while (atomic_read(&s->stores) - before < 2)
		sched_yield();
}

/*
 * They come while a vCPU faults; with thread sanitizer this says whether it finds them made. It has
 * to look before the slots change, as it acquires those; that we wait for it releases nothing.
 */
TEST(dirty_ring, come_while_a_vcpu_runs)
{
	struct storer s = {.stop = ATOMIC_INIT(0)};
	struct kthread thread;
	struct guest_mem g;

	memslot_fixture(&g, &config);
	s.g = &g;
	expect_eq(kthread_run(&thread, "vcpu", run_stores, &s), 0);
	until_it_stores(&s);
	expect_eq(shadow_enable_dirty_rings(g.shadow, ENTRIES), 0);
	until_it_stores(&s);
	expect_eq(log_ram(&g, true), 0);
	until_it_stores(&s);
	atomic_set(&s.stop, 1);
	kthread_join(&thread);
	expect(shadow_dirty_gfn_filled(shadow_dirty_ring(g.shadow, 0)));
	memslot_fixture_done(&g);
}

/* It waits until there is room, or until it is told not to. */
TEST(dirty_ring, a_vcpu_waits)
{
	struct collector c;
	struct guest_mem g;
	struct kthread thread;
	struct waiter w = {.g = &g};

	fixture(&g, &c);
	expect_eq(log_ram(&g, true), 0);
	shadow_wait_dirty_ring(g.shadow, 0, give_up, &w);
	for (unsigned int i = 0; i < ENTRIES; i++)
		guest_store(&g, 0, i << PAGE_SHIFT, i);
	for (int round = 0; round < 2; round++) {
		expect_eq(kthread_run(&thread, "waiter", run_wait, &w), 0);
		until_it_waits(&g);
		expect(!atomic_read(&w.over));
		if (round) {
			shadow_dirty_gfn_done(&shadow_dirty_ring(g.shadow, 0)[0]);
			shadow_reset_dirty_rings(g.shadow);
		} else {
			atomic_set(&w.give_up, 1);
			shadow_wake_dirty_ring(g.shadow);
		}
		kthread_join(&thread);
		atomic_set(&w.give_up, 0);
		atomic_set(&w.over, 0);
	}
	memslot_fixture_done(&g);
}

/* ---- an entry that is free ---- */

static void run_push(void *arg)
{
	struct dirty_ring *ring = arg;

	while (dirty_ring_full(ring))
		sched_yield();
	dirty_ring_push(ring, SLOT, 7);
}

/* Who finds room writes to an entry that was read before it was free: by the index alone, which
 * ThreadSanitizer looks at here. */
TEST(dirty_ring, an_entry_is_read_before_it_is_free)
{
	struct shadow_dirty_gfn *entry;
	struct dirty_ring *ring;
	struct kthread thread;
	struct collector c;
	struct guest_mem g;

	fixture(&g, &c);
	ring = vcpu_ring(&g.shadow->vcpu[0]);
	for (unsigned int i = 0; i < ENTRIES; i++)
		dirty_ring_push(ring, SLOT, i % SLOT_PAGES);
	expect_eq(kthread_run(&thread, "pushes", run_push, ring), 0);
	while (take(&g, &c, 0) >= 0)
		;
	expect_eq(shadow_reset_dirty_rings(g.shadow), ENTRIES);
	kthread_join(&thread);
	entry = &shadow_dirty_ring(g.shadow, 0)[0];
	expect(shadow_dirty_gfn_filled(entry));
	expect_eq(entry->offset, 7);
	memslot_fixture_done(&g);
}

/* ---- a vCPU, somebody who collects, and somebody who frees ---- */

struct rounds {
	struct guest_mem *g;
	struct collector c;
	struct kthread vcpu, collector;
	atomic_t stop, taken;
	uint64_t stored[SLOT_PAGES], dirty[SLOT_PAGES]; /* the vCPU's, and the collector's */
};

static void run_dirty(void *arg)
{
	struct rounds *r = arg;

	for (uint64_t i = 0; !atomic_read(&r->stop); i++) {
		uint64_t page = i % SLOT_PAGES;
		enum ret_pf ret = guest_try(r->g, 0, MODEL_STORE, slot_gva(SLOT_GFN + page), NULL);

		if (ret == RET_PF_FIXED)
			r->stored[page]++;
		else
			expect_eq(ret, RET_PF_DIRTY_RING_FULL);
	}
}

static void run_collect(void *arg)
{
	struct rounds *r = arg;

	while (!atomic_read(&r->stop)) {
		int64_t page = take(r->g, &r->c, 0);

		if (page < 0) {
			sched_yield();
			continue;
		}
		expect_le(page, SLOT_PAGES - 1);
		r->dirty[page]++;
		atomic_inc(&r->taken);
	}
}

/*
 * The entries go round many times, from the vCPU to who collects, to who frees them, and back; with
 * ThreadSanitizer this says whether each has done with one before the next begins.
 */
TEST(dirty_ring, round_and_round)
{
	struct rounds r = {.stop = ATOMIC_INIT(0)};
	struct guest_mem g;

	fixture(&g, &r.c);
	shadow_set_audit(g.shadow, SHADOW_AUDIT_OFF);
	r.g = &g;
	expect_eq(kthread_run(&r.vcpu, "vcpu", run_dirty, &r), 0);
	expect_eq(kthread_run(&r.collector, "collector", run_collect, &r), 0);
	while (atomic_read(&r.taken) < 200 * (int)ENTRIES)
		shadow_reset_dirty_rings(g.shadow);
	atomic_set(&r.stop, 1);
	kthread_join(&r.vcpu);
	kthread_join(&r.collector);
	for (uint64_t page = 0; page < SLOT_PAGES; page++) {
		expect_ge(r.dirty[page], 1);
		expect_ge(r.stored[page], 1);
	}
	memslot_fixture_done(&g);
}
