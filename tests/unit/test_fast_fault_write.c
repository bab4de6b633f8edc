/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Leaves that are paused: a store gets its right back without mmu_lock, as long as everybody who
 * granted it still does, and never for another page.
 */
#include <errno.h>
#include <sched.h>

#include "notifier/sync/thread.h"
#include "shadow/shadow_internal.h"
#include "tests/support/guest_fixture.h"

#define GVA    0x40000000UL   /* translated by tables of its own */
#define WINDOW 0x8000000000UL /* where the guest has its table of leaves mapped */
#define P1     0x1000UL
#define P2     0x2000UL
#define LEAF   (GUEST_PTE_RW | GUEST_PTE_U)

static const struct guest_mem_config config = {.audit = true,
					       .nr_cpus = 3,
					       .no_identity = true,
					       .reuse = MODEL_REUSE_LIFO};

struct race {
	struct guest_mem g;
	gpa_t gpte;    /* of GVA's entry */
	gva_t at;      /* the same, for the guest to store to */
	spte_t *sptep; /* that the case is about */
	unsigned int times;
	struct kthread other;
	atomic_t go, done;
};

static void pause_one(spte_t *sptep, void *arg)
{
	pfn_t *pfn = arg;

	expect(leaf_pause_write(sptep));
	*pfn = spte_pfn(*sptep);
}

/* As one does who wants to hear of the next store. */
static void pause_page(struct guest_mem *g, gpa_t gpa)
{
	struct memslot *slot = gfn_to_memslot(shadow_memslots(g->shadow), gpa >> PAGE_SHIFT);
	struct zap_batch batch;
	pfn_t pfn;

	zap_batch_init(&batch);
	spin_lock(&g->shadow->mmu_lock);
	rmap_each(&slot->rmap[gpa >> PAGE_SHIFT], pause_one, &pfn);
	zap_batch_add(&batch, pfn);
	zap_batch_close(g->shadow, &batch);
	spin_unlock(&g->shadow->mmu_lock);
	zap_batch_flush(g->shadow, &batch);
}

/* GVA leads to P1, which CPU 0 has stored to; P2 is another page. */
static void fixture(struct race *r)
{
	struct guest_mem *g = &r->g;

	*r = (struct race){0};
	guest_mem_create(g, &config);
	guest_map(g, g->cr3, GVA, P1, LEAF);
	r->gpte = guest_pte_gpa(g, g->cr3, GVA, 1);
	guest_map(g, g->cr3, WINDOW, r->gpte & PAGE_MASK, GUEST_PTE_RW);
	r->at = WINDOW + (r->gpte & ~PAGE_MASK);
	guest_store(g, 0, GVA, 1);
	r->sptep = leaf_of(g, GVA);
}

static void paused(struct race *r)
{
	fixture(r);
	pause_page(&r->g, P1);
	expect_eq(model_store(r->g.model, 0, GVA, 0), -EFAULT);
}

static enum ret_pf store_fault(struct race *r, gva_t gva)
{
	struct shadow_fault fault;

	return guest_fault(&r->g, 0, gva, PFERR_WRITE, &fault);
}

TEST(fast_fault_write, a_paused_leaf_goes_on)
{
	struct race r;
	spte_t before;

	fixture(&r);
	before = *r.sptep;
	pause_page(&r.g, P1);
	expect_eq(*r.sptep, before & ~(SPTE_WRITE | SPTE_DIRTY));
	/* For a read nothing is missing. */
	expect_eq(guest_load(&r.g, 0, GVA), 1);
	expect_eq(stats_of(&r.g).fast_faults, 0);
	expect_eq(store_fault(&r, GVA), RET_PF_FIXED);
	expect_eq(*r.sptep, before);
	expect_eq(stats_of(&r.g).fast_faults, 1);
	expect_eq(model_store(r.g.model, 0, GVA, 2), 0);
	destroy(&r.g);
}

static void store(void *arg)
{
	struct race *r = arg;

	guest_store(&r->g, 0, GVA, 3);
	atomic_set_release(&r->done, 1);
}

TEST(fast_fault_write, no_mmu_lock)
{
	struct race r;

	paused(&r);
	spin_lock(&r.g.shadow->mmu_lock);
	expect_eq(kthread_run(&r.other, "vcpu", store, &r), 0);
	while (!atomic_read_acquire(&r.done))
		sched_yield();
	spin_unlock(&r.g.shadow->mmu_lock);
	kthread_join(&r.other);
	expect_eq(stats_of(&r.g).fast_faults, 1);
	destroy(&r.g);
}

/* ---- who takes back what he has granted ---- */

/* The host. */
static void protect_in_the_host(void *arg)
{
	struct race *r = arg;

	r->times++;
	expect_eq(mm_mprotect(r->g.mm, guest_hva(P1), PAGE_SIZE, MM_PROT_READ), 0);
}

TEST(fast_fault_write, the_host_refuses)
{
	struct race r;

	paused(&r);
	shadow_set_hook(r.g.shadow, SHADOW_HOOK_FAST_PAUSED, protect_in_the_host, &r);
	expect_eq(store_fault(&r, GVA), RET_PF_BAD_HVA);
	expect_eq(r.times, 1);
	expect_eq(*r.sptep, 0);
	destroy(&r.g);
}

/* The guest: its entry is clean, and flushed. The first store must set D. */
TEST(fast_fault_write, the_guest_has_a_clean_page)
{
	struct race r;

	paused(&r);
	guest_edit(&r.g, r.gpte, P1 | LEAF | GUEST_PTE_A);
	shadow_invlpg(r.g.shadow, 0, GVA);
	expect(!spte_writable(*r.sptep));
	guest_store(&r.g, 0, GVA, 2);
	expect_eq(stats_of(&r.g).fast_faults, 0);
	expect(guest_read(&r.g, r.gpte) & GUEST_PTE_D);
	destroy(&r.g);
}

/* Its entry is another, and not flushed: a CPU walks anew for what faults, and so do we. */
TEST(fast_fault_write, the_guest_has_another_entry)
{
	static const struct {
		uint64_t gpte;
		enum ret_pf ret;
	} edits[] = {
		{0, RET_PF_GUEST},
		{P1 | (LEAF & ~GUEST_PTE_W) | GUEST_PTE_A | GUEST_PTE_D, RET_PF_GUEST},
		{1UL << 40 | LEAF | GUEST_PTE_A | GUEST_PTE_D, RET_PF_EMULATE}, /* no memory */
	};

	for (unsigned int i = 0; i < sizeof(edits) / sizeof(edits[0]); i++) {
		struct race r;

		paused(&r);
		guest_write(&r.g, r.gpte, edits[i].gpte);
		expect_eq(store_fault(&r, GVA), edits[i].ret);
		expect_eq(stats_of(&r.g).fast_faults, 0);
		shadow_invlpg(r.g.shadow, 0, GVA);
		destroy(&r.g);
	}
}

/*
 * The page is a table, and comes into step while a store to it is let through. The store must be
 * one that the next flush knows of.
 */
static void flush_when_told(void *arg)
{
	struct race *r = arg;

	while (!atomic_read_acquire(&r->go))
		sched_yield();
	expect_eq(shadow_load_cr3(r->g.shadow, 1, r->g.cr3), 0);
}

static void have_it_flush(void *arg)
{
	struct race *r = arg;

	if (r->times++)
		return;
	atomic_set_release(&r->go, 1);
	while (spte_writable(READ_ONCE(*r->sptep)))
		sched_yield();
}

static void join(void *arg)
{
	struct race *r = arg;

	if (r->times++ == 1)
		kthread_join(&r->other);
}

TEST(fast_fault_write, the_page_is_a_table_in_step)
{
	struct race r;

	fixture(&r);
	guest_write(&r.g, P2, 22);
	guest_store(&r.g, 0, r.at, guest_read(&r.g, r.gpte));
	r.sptep = leaf_of(&r.g, WINDOW);
	pause_page(&r.g, r.gpte & PAGE_MASK);
	shadow_set_hook(r.g.shadow, SHADOW_HOOK_FAST_BEFORE_SWAP, have_it_flush, &r);
	expect_eq(kthread_run(&r.other, "flush", flush_when_told, &r), 0);
	/* The flush has to end: else the store may be let through before it looks at the table, and
	 * then is no news to it. */
	shadow_set_hook(r.g.shadow, SHADOW_HOOK_FAULT_BEFORE_WALK, join, &r);
	guest_store(&r.g, 0, r.at, P2 | LEAF);
	expect_ge(r.times, 2);
	expect_eq(stats_of(&r.g).fast_faults, 0);
	expect_eq(stats_of(&r.g).unsync_made, 1);
	expect_eq(shadow_load_cr3(r.g.shadow, 0, r.g.cr3), 0);
	expect_eq(guest_load(&r.g, 0, GVA), 22);
	destroy(&r.g);
}

/* In step before the fault: there is nothing to give back. */
TEST(fast_fault_write, the_page_was_a_table_in_step)
{
	struct race r;

	fixture(&r);
	guest_store(&r.g, 0, r.at, guest_read(&r.g, r.gpte));
	r.sptep = leaf_of(&r.g, WINDOW);
	pause_page(&r.g, r.gpte & PAGE_MASK);
	expect(spte_writable(*r.sptep));
	expect_eq(shadow_load_cr3(r.g.shadow, 1, r.g.cr3), 0);
	expect(!spte_writable(*r.sptep));
	expect_eq(store_fault(&r, r.at), RET_PF_FIXED);
	expect_eq(stats_of(&r.g).fast_faults, 0);
	expect_eq(stats_of(&r.g).unsync_made, 1);
	destroy(&r.g);
}

/* ---- which page it is ---- */

/* The guest's entry is of P2 by now, and the leaf still of P1: a store to neither is one to the
 * other. */
TEST(fast_fault_write, paused_for_another_page)
{
	struct race r;

	paused(&r);
	guest_write(&r.g, r.gpte, P2 | LEAF | GUEST_PTE_A | GUEST_PTE_D);
	guest_store(&r.g, 0, GVA, 5);
	expect_eq(stats_of(&r.g).fast_faults, 0);
	expect_eq(guest_read(&r.g, P1), 1);
	expect_eq(guest_read(&r.g, P2), 5);
	destroy(&r.g);
}

/*
 * A leaf gains the right to fetch, in the slow way and by what the guest says now: no right to
 * write. Before it is stored another CPU has the leaf writable, and knows it. That must not go
 * without a word to that CPU.
 */
static void store_when_told(void *arg)
{
	struct race *r = arg;

	while (!atomic_read_acquire(&r->go))
		sched_yield();
	guest_store(&r->g, 1, GVA, 6);
	atomic_set_release(&r->done, 1);
}

static void let_it_store(void *arg)
{
	struct race *r = arg;

	if (r->times++)
		return;
	atomic_set_release(&r->go, 1);
	while (!atomic_read_acquire(&r->done))
		sched_yield();
}

TEST(fast_fault_write, gains_another_right_meanwhile)
{
	const uint64_t gpte = P1 | LEAF | GUEST_PTE_A | GUEST_PTE_D | GUEST_PTE_NX;
	struct race r;

	fixture(&r);
	guest_edit(&r.g, r.gpte, gpte);
	shadow_invlpg(r.g.shadow, 0, GVA);
	guest_store(&r.g, 0, GVA, 5);
	expect(*r.sptep & SPTE_NX);
	pause_page(&r.g, P1);
	guest_write(&r.g, r.gpte, gpte & ~(GUEST_PTE_NX | GUEST_PTE_D));
	shadow_set_hook(r.g.shadow, SHADOW_HOOK_FAULT_BEFORE_GAIN, let_it_store, &r);
	expect_eq(kthread_run(&r.other, "vcpu", store_when_told, &r), 0);
	expect_eq(guest_try(&r.g, 0, MODEL_FETCH, GVA, NULL), RET_PF_FIXED);
	kthread_join(&r.other);
	expect_ge(r.times, 1);
	expect_eq(stats_of(&r.g).fast_faults, 1);
	expect((*r.sptep & SPTE_WRITE) || model_store(r.g.model, 1, GVA, 7));
	destroy(&r.g);
}

/*
 * All at once: CPUs that store, a host that wants to hear of each first store and moves the page in
 * between, a guest that flushes. No value is lost, and every store but those of a writable leaf was
 * heard of.
 */
static void pauser(void *arg)
{
	struct race *r = arg;
	struct memslot *slot = gfn_to_memslot(shadow_memslots(r->g.shadow), P1 >> PAGE_SHIFT);

	for (unsigned int i = 0; !atomic_read(&r->done); i++) {
		struct zap_batch batch;
		spte_t *sptep;

		zap_batch_init(&batch);
		spin_lock(&r->g.shadow->mmu_lock);
		sptep = rmap_first(&slot->rmap[P1 >> PAGE_SHIFT]);
		if (sptep && leaf_pause_write(sptep))
			zap_batch_add(&batch, spte_pfn(READ_ONCE(*sptep)));
		zap_batch_close(r->g.shadow, &batch);
		spin_unlock(&r->g.shadow->mmu_lock);
		zap_batch_flush(r->g.shadow, &batch);
		if (i % 8 == 0)
			mm_migrate_range(r->g.mm, guest_hva(P1), PAGE_SIZE);
		if (i % 4 == 0)
			mmu_notifier_clear_flush_young(r->g.mm, guest_hva(P1), guest_hva(P2));
	}
}

TEST(fast_fault_write, storm)
{
	const uint64_t fast = test_long() ? 5000 : 50;
	struct guest_mem_config tracked = config;
	struct race r = {0};
	uint64_t i = 0;

	tracked.no_accessed_bits = true;
	tracked.audit = false;
	guest_mem_create(&r.g, &tracked);
	guest_map(&r.g, r.g.cr3, GVA, P1, LEAF);
	guest_store(&r.g, 0, GVA, 0);
	expect_eq(kthread_run(&r.other, "pauser", pauser, &r), 0);
	for (; stats_of(&r.g).fast_faults < fast || i < 500; i++) {
		expect_eq(guest_load(&r.g, 0, GVA), i);
		guest_store(&r.g, 1, GVA, i + 1);
		if (i % 64 == 0)
			guest_reload_afresh(&r.g, 2);
		sched_yield(); /* the other one has to come to it */
	}
	atomic_set(&r.done, 1);
	kthread_join(&r.other);
	expect_eq(guest_read(&r.g, P1), i);
	expect_eq(shadow_audit(r.g.shadow, NULL, 0), 0);
	destroy(&r.g);
}
