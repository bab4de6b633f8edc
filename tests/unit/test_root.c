/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * INVLPG and CR3 loads: when a guest's edits of its tables take effect (I3), and what goes with a
 * root.
 */
#include <errno.h>
#include <sched.h>

#include "notifier/sync/thread.h"
#include "shadow/shadow_internal.h"
#include "tests/support/beside.h"
#include "tests/support/guest_fixture.h"
#include "tests/support/hoard.h"
#include "tests/support/park.h"
#include "tests/support/test.h"

#define GVA 0x10000000UL
#define P1  0x1000UL
#define P2  0x2000UL

static const struct guest_mem_config config = {.audit = true,
					       .nr_cpus = 2,
					       .reuse = MODEL_REUSE_LIFO};

/* GVA -> P1, which holds 1; P2 holds 2. */
static void fixture(struct guest_mem *g)
{
	guest_mem_create(g, &config);
	guest_write(g, P1, 1);
	guest_write(g, P2, 2);
	guest_map(g, g->cr3, GVA, P1, GUEST_PTE_RW);
}

TEST(invlpg, drops_the_page_on_every_cpu)
{
	struct guest_mem g;

	fixture(&g);
	expect_eq(guest_load(&g, 0, GVA), 1);
	expect_eq(guest_load(&g, 1, GVA), 1);
	guest_map(&g, g.cr3, GVA, P2, GUEST_PTE_RW);
	shadow_invlpg(g.shadow, 0, GVA + 0x123);
	expect_eq(guest_load(&g, 0, GVA), 2);
	expect_eq(guest_load(&g, 1, GVA), 2);
	destroy(&g);
}

TEST(invlpg, rights_go)
{
	struct guest_mem g;

	fixture(&g);
	guest_store(&g, 0, GVA, 5);
	guest_map(&g, g.cr3, GVA, P1, GUEST_PTE_P);
	shadow_invlpg(g.shadow, 0, GVA);
	expect_eq(guest_try(&g, 0, MODEL_STORE, GVA, NULL), RET_PF_GUEST);
	expect_eq(guest_load(&g, 0, GVA), 5);
	guest_map(&g, g.cr3, GVA, 0, 0);
	shadow_invlpg(g.shadow, 0, GVA);
	expect_eq(guest_try(&g, 0, MODEL_LOAD, GVA, NULL), RET_PF_GUEST);
	destroy(&g);
}

/* An upper entry changes: INVLPG of an address below it must show the new tables there. */
TEST(invlpg, after_a_change_at_each_level)
{
	for (int level = 2; level <= 4; level++) {
		struct guest_mem g;
		gpa_t pte;
		uint64_t old;

		fixture(&g);
		expect_eq(guest_load(&g, 0, GVA), 1);
		expect_eq(guest_load(&g, 1, GVA), 1);
		pte = guest_pte_gpa(&g, g.cr3, GVA, level);
		old = guest_read(&g, pte);
		guest_write(&g, pte, 0);
		shadow_invlpg(g.shadow, 0, GVA);
		expect_eq(guest_try(&g, 0, MODEL_LOAD, GVA, NULL), RET_PF_GUEST);

		guest_map(&g, g.cr3, GVA, P2, GUEST_PTE_RW); /* makes new tables */
		expect_eq(guest_load(&g, 0, GVA), 2);
		expect_eq(guest_load(&g, 1, GVA), 2);

		guest_write(&g, pte, old);
		shadow_invlpg(g.shadow, 1, GVA);
		expect_eq(guest_load(&g, 0, GVA), 1);
		expect_eq(guest_load(&g, 1, GVA), 1);
		destroy(&g);
	}
}

/* A table that the host has out of memory says nothing, so nothing of it is kept. */
TEST(invlpg, of_a_table_that_is_away)
{
	struct guest_mem g;

	fixture(&g);
	expect_eq(guest_load(&g, 0, GVA), 1);
	shadow_invlpg(g.shadow, 0, GVA);
	expect_ne(*leaf_of(&g, GVA), 0);
	expect_eq(mm_zap_range(g.mm, guest_hva(guest_pte_gpa(&g, g.cr3, GVA, 1) & PAGE_MASK),
			       PAGE_SIZE),
		  1);
	shadow_invlpg(g.shadow, 0, GVA);
	expect_eq(*leaf_of(&g, GVA), 0);
	expect_eq(guest_load(&g, 0, GVA), 1);
	guest_mem_destroy(&g);
}

TEST(invlpg, of_nothing)
{
	struct guest_mem g;

	fixture(&g);
	shadow_invlpg(g.shadow, 0, 0x7000000000);
	shadow_invlpg(g.shadow, 0, GVA);
	expect_eq(guest_load(&g, 0, GVA), 1);
	shadow_invlpg(g.shadow, 0, GVA + PAGE_SIZE);
	expect_eq(guest_load(&g, 0, GVA), 1);
	destroy(&g);
}

/* A load of CR3 is a flush: all edits before it count, whichever page they are of. What was not
 * edited stays. */
TEST(cr3, reload_drops_what_was_edited)
{
	struct shadow_stats before, after;
	struct guest_mem g;

	fixture(&g);
	for (int i = 0; i < 24; i++)
		guest_map(&g, g.cr3, GVA + i * PAGE_SIZE, P1, GUEST_PTE_RW);
	for (int i = 0; i < 24; i++)
		expect_eq(guest_load(&g, 0, GVA + i * PAGE_SIZE), 1);
	for (int i = 0; i < 16; i++)
		guest_map(&g, g.cr3, GVA + i * PAGE_SIZE, P2, GUEST_PTE_RW);
	shadow_get_stats(g.shadow, &before);
	expect_eq(shadow_load_cr3(g.shadow, 0, g.cr3), 0);
	shadow_get_stats(g.shadow, &after);
	expect_eq(after.sptes_zapped - before.sptes_zapped, 16);
	expect_eq(after.tables_retired, before.tables_retired);
	for (int i = 0; i < 24; i++)
		expect_eq(guest_load(&g, 0, GVA + i * PAGE_SIZE), i < 16 ? 2 : 1);
	shadow_get_stats(g.shadow, &after);
	expect_eq(after.faults - before.faults, 16);
	destroy(&g);
}

TEST(cr3, two_roots)
{
	struct guest_mem g;
	uint64_t other;

	fixture(&g);
	other = guest_new_table(&g);
	guest_map(&g, other, GVA, P2, GUEST_PTE_RW);
	expect_eq(guest_load(&g, 0, GVA), 1);
	expect_eq(shadow_load_cr3(g.shadow, 0, other), 0);
	expect_eq(guest_load(&g, 0, GVA), 2);
	expect_eq(guest_load(&g, 1, GVA), 1);
	for (int i = 0; i < 10; i++) {
		expect_eq(shadow_load_cr3(g.shadow, i % 2, i / 2 % 2 ? other : g.cr3), 0);
		expect_eq(guest_load(&g, i % 2, GVA), i / 2 % 2 ? 2 : 1);
	}
	destroy(&g);
}

/* Roots that share tables below: a load of one must not leave the other with what it dropped. */
TEST(cr3, roots_that_share_tables)
{
	struct guest_mem g;
	uint64_t other;

	fixture(&g);
	other = guest_new_table(&g);
	guest_write(&g, other, guest_read(&g, g.cr3));
	expect_eq(shadow_load_cr3(g.shadow, 1, other), 0);
	for (int i = 0; i < 8; i++) {
		guest_map(&g, g.cr3, GVA, i % 2 ? P1 : P2, GUEST_PTE_RW);
		expect_eq(shadow_load_cr3(g.shadow, 0, g.cr3), 0);
		expect_eq(guest_load(&g, 0, GVA), i % 2 ? 1 : 2);
		expect_eq(shadow_load_cr3(g.shadow, 1, other), 0);
		expect_eq(guest_load(&g, 1, GVA), i % 2 ? 1 : 2);
		expect_eq(guest_load(&g, 0, GVA), i % 2 ? 1 : 2);
	}
	destroy(&g);
}

/* The last CPU to leave a root takes its tables along: nothing piles up. */
TEST(cr3, left_roots_are_retired)
{
	uint64_t free_early = 0;
	struct guest_mem g;

	fixture(&g);
	for (int i = 0; i < 200; i++) {
		uint64_t cr3 = i % 2 ? g.cr3 : 5 * PAGE_SIZE; /* a page of zeroes: maps nothing */

		expect_eq(shadow_load_cr3(g.shadow, 0, cr3), 0);
		expect_eq(shadow_load_cr3(g.shadow, 1, cr3), 0);
		if (i % 2)
			expect_eq(guest_load(&g, 0, GVA), 1);
		else
			expect_eq(guest_try(&g, 0, MODEL_LOAD, GVA, NULL), RET_PF_GUEST);
		if (i == 9)
			free_early = phys_nr_free(g.phys);
	}
	expect_eq(phys_nr_free(g.phys), free_early);
	destroy(&g);
}

/* Two CPUs leave a root at once; one has taken another root, and not loaded it yet. */
struct leaver {
	struct guest_mem *g;
	uint64_t cr3;
	struct park park;
	atomic_t first;
};

static void hold_first(void *arg)
{
	struct leaver *leaver = arg;

	if (!atomic_inc_return(&leaver->first))
		park_enter(&leaver->park);
}

static void leave(void *arg)
{
	struct leaver *leaver = arg;

	expect_eq(shadow_load_cr3(leaver->g->shadow, 0, leaver->cr3), 0);
}

TEST(cr3, leaves_before_it_lets_go)
{
	struct leaver leaver = {0};
	struct model_stats stats;
	struct kthread thread;
	struct guest_mem g;

	fixture(&g);
	leaver.g = &g;
	leaver.cr3 = guest_new_table(&g);
	park_init(&leaver.park);
	atomic_set(&leaver.first, -1);
	expect_eq(guest_load(&g, 0, GVA), 1);
	expect_eq(guest_load(&g, 1, GVA), 1);
	shadow_set_hook(g.shadow, SHADOW_HOOK_ROOT_BEFORE_LOAD, hold_first, &leaver);
	expect_eq(kthread_run(&thread, "leaver", leave, &leaver), 0);
	park_wait(&leaver.park, 1);
	expect_eq(shadow_load_cr3(g.shadow, 1, leaver.cr3), 0);
	model_get_stats(g.model, &stats);
	expect_eq(stats.contract_violations, 0);
	park_release(&leaver.park);
	kthread_join(&thread);
	expect_eq(guest_try(&g, 0, MODEL_LOAD, GVA, NULL), RET_PF_GUEST);
	expect_eq(guest_try(&g, 1, MODEL_LOAD, GVA, NULL), RET_PF_GUEST);
	destroy(&g);
}

TEST(cr3, no_memory_keeps_the_root)
{
	struct guest_mem g;
	static struct hoard hoard;

	fixture(&g);
	guest_map(&g, g.cr3, GVA + PAGE_SIZE, P2, GUEST_PTE_RW);
	hoard_frames(&hoard, g.phys);
	expect_eq(shadow_load_cr3(g.shadow, 0, 5 * PAGE_SIZE), -ENOMEM);
	hoard_release(&hoard);
	expect_eq(guest_load(&g, 0, GVA), 1);
	expect_eq(guest_load(&g, 0, GVA + PAGE_SIZE), 2);
	expect_eq(shadow_load_cr3(g.shadow, 0, 5 * PAGE_SIZE), 0);
	expect_eq(guest_try(&g, 0, MODEL_LOAD, GVA, NULL), RET_PF_GUEST);
	destroy(&g);
}

struct half_zap {
	struct shadow *shadow;
	bool done;
};

/* All is obsolete, and one table above leaves has gone. */
static void half_a_zap(void *arg)
{
	struct half_zap *half = arg;
	struct shadow *shadow = half->shadow;
	struct shadow_page *sp;
	struct zap_batch batch;

	if (half->done)
		return;
	half->done = true;
	zap_batch_init(&batch);
	spin_lock(&shadow->mmu_lock);
	shadow->gen++;
	list_for_each_entry(sp, &shadow->pages, link) {
		if (sp->role.level == 2)
			break;
	}
	zap_obsolete_page(shadow, sp, &batch);
	zap_batch_close(shadow, &batch);
	spin_unlock(&shadow->mmu_lock);
	zap_batch_flush(shadow, &batch);
}

/*
 *   vCPU                                    who deletes a slot
 *   ----                                    ------------------
 *   loads CR3: its root is good
 *                                           all is obsolete; a table above a leaf goes
 *   syncs its root: the leaf is not below
 *     it any more
 *                                           (has not come to the leaf's table)
 *   goes on with what its TLB remembers
 *     ^ forbidden: it waits for that table
 */
TEST(cr3, obsolete_under_the_sync)
{
	struct half_zap half = {0};
	struct guest_mem g;

	fixture(&g);
	half.shadow = g.shadow;
	expect_eq(guest_load(&g, 0, GVA), 1);
	guest_map(&g, g.cr3, GVA, P2, GUEST_PTE_RW);
	shadow_set_hook(g.shadow, SHADOW_HOOK_ROOT_BEFORE_LOAD, half_a_zap, &half);
	expect_eq(shadow_load_cr3(g.shadow, 0, g.cr3), 0);
	expect(half.done);
	expect_eq(guest_load(&g, 0, GVA), 2);
	destroy(&g);
}

/* ---- the virtual CPU's state ---- */

TEST(cpu, what_cannot_be)
{
	const struct guest_cpu *now;
	struct guest_cpu cpu;
	struct guest_mem g;

	fixture(&g);
	now = shadow_get_cpu(g.shadow, 0);
#define EXPECT_REFUSED(change)                                         \
	do {                                                           \
		cpu = *now;                                            \
		cpu.change;                                            \
		expect_eq(shadow_set_cpu(g.shadow, 0, &cpu), -EINVAL); \
	} while (0)
	EXPECT_REFUSED(cr0 &= ~GUEST_CR0_PG);
	EXPECT_REFUSED(cr4 &= ~GUEST_CR4_PAE);
	EXPECT_REFUSED(cr4 |= GUEST_CR4_LA57);
	EXPECT_REFUSED(maxphyaddr = 35);
	EXPECT_REFUSED(maxphyaddr = 53);
	EXPECT_REFUSED(cr3 |= 1UL << 52);
	EXPECT_REFUSED(cr3 |= 1UL << 63);
#undef EXPECT_REFUSED
	cpu = *now;
	cpu.maxphyaddr = 46;
	cpu.cr3 |= 1UL << 46;
	expect_eq(shadow_set_cpu(g.shadow, 0, &cpu), -EINVAL);
	expect_eq(now->maxphyaddr, 52);
	cpu.cr3 = g.cr3;
	expect_eq(shadow_set_cpu(g.shadow, 0, &cpu), 0);
	expect_eq(now->maxphyaddr, 46);
	expect_eq(shadow_load_cr3(g.shadow, 0, 1UL << 46), -EINVAL);
	expect_eq(guest_load(&g, 0, GVA), 1);
	destroy(&g);
}

static void set_user(struct guest_mem *g, unsigned int vcpu, bool user)
{
	struct guest_cpu cpu = *shadow_get_cpu(g->shadow, vcpu);

	cpu.user = user;
	expect_eq(shadow_set_cpu(g->shadow, vcpu, &cpu), 0);
}

/* What the kernel has touched is not the user's for that, on this CPU or on another. */
TEST(cpu, user_and_supervisor_have_roots_of_their_own)
{
	const gva_t user_gva = GVA + PAGE_SIZE;
	struct guest_mem g;
	uint32_t code;

	fixture(&g);
	guest_map(&g, g.cr3, user_gva, P2, GUEST_PTE_RW | GUEST_PTE_U);
	set_user(&g, 1, true);
	for (int i = 0; i < 4; i++) {
		unsigned int kernel = i % 2, user = !kernel;

		set_user(&g, kernel, false);
		set_user(&g, user, true);
		guest_store(&g, kernel, GVA, i);
		guest_store(&g, kernel, user_gva, i);
		expect_eq(guest_load(&g, user, user_gva), i);
		expect_eq(guest_try(&g, user, MODEL_LOAD, GVA, &code), RET_PF_GUEST);
		expect_eq(code, PFERR_PRESENT | PFERR_USER);
		expect_eq(guest_load(&g, kernel, GVA), i);
	}
	destroy(&g);
}

/* INVLPG in the kernel, and the user does not find the old page. */
TEST(cpu, invlpg_in_one_view_counts_in_the_other)
{
	struct guest_mem g;

	fixture(&g);
	guest_map(&g, g.cr3, GVA, P1, GUEST_PTE_RW | GUEST_PTE_U);
	for (int i = 0; i < 4; i++) {
		set_user(&g, 0, true);
		expect_eq(guest_load(&g, 0, GVA), i % 2 ? 2 : 1);
		set_user(&g, 0, false);
		guest_map(&g, g.cr3, GVA, i % 2 ? P1 : P2, GUEST_PTE_RW | GUEST_PTE_U);
		shadow_invlpg(g.shadow, 0, GVA);
	}
	destroy(&g);
}

/* What no table depends on costs nothing. */
TEST(cpu, no_change_of_view_drops_nothing)
{
	struct shadow_stats before, after;
	struct guest_cpu cpu;
	struct guest_mem g;

	fixture(&g);
	expect_eq(guest_load(&g, 0, GVA), 1);
	shadow_get_stats(g.shadow, &before);
	cpu = *shadow_get_cpu(g.shadow, 0);
	cpu.ac = true;
	cpu.pkru = ~0u;
	cpu.cr4 |= GUEST_CR4_PCIDE;
	expect_eq(shadow_set_cpu(g.shadow, 0, &cpu), 0);
	expect(shadow_get_cpu(g.shadow, 0)->ac);
	expect_eq(guest_load(&g, 0, GVA), 1);
	shadow_get_stats(g.shadow, &after);
	expect_eq(after.faults, before.faults);
	cpu.cr4 |= GUEST_CR4_SMAP | GUEST_CR4_SMEP;
	expect_eq(shadow_set_cpu(g.shadow, 0, &cpu), 0);
	expect_eq(guest_load(&g, 0, GVA), 1);
	shadow_get_stats(g.shadow, &after);
	expect_eq(after.faults, before.faults + 1);
	destroy(&g);
}

static void set_pkru(void *arg)
{
	struct guest_mem *g = arg;
	struct guest_cpu cpu = *shadow_get_cpu(g->shadow, 0);

	cpu.pkru = 1;
	expect_eq(shadow_set_cpu(g->shadow, 0, &cpu), 0);
}

/* Whoever explains an address looks at the state of a vCPU that may be running: under mmu_lock it
 * does not change. */
TEST(cpu, state_is_the_locks)
{
	struct beside beside;
	struct guest_mem g;

	guest_mem_create(&g, &config);
	for (unsigned int round = 0; round < 40; round++) {
		struct guest_cpu cpu = *shadow_get_cpu(g.shadow, 0);

		cpu.pkru = 0;
		expect_eq(shadow_set_cpu(g.shadow, 0, &cpu), 0);
		spin_lock(&g.shadow->mmu_lock);
		beside_start(&beside, set_pkru, &g);
		for_each_look() expect_eq(READ_ONCE(g.shadow->vcpu[0].cpu.pkru), 0);
		spin_unlock(&g.shadow->mmu_lock);
		kthread_join(&beside.thread);
		expect_eq(shadow_get_cpu(g.shadow, 0)->pkru, 1);
	}
	guest_mem_destroy(&g);
}

/* Five levels: each of the shadow's tables is where the guest's is, and INVLPG, CR3 loads and the
 * machine's own slot are at home there. */
TEST(cpu, five_levels)
{
	const struct guest_mem_config la57 = {.audit = true,
					      .levels = 5,
					      .reuse = MODEL_REUSE_LIFO,
					      .reserve_slot = 255};
	const gva_t gva = 0x0055443322111000UL;
	struct guest_cpu cpu;
	struct guest_mem g;

	guest_mem_create(&g, &la57);
	guest_write(&g, P1, 1);
	guest_write(&g, P2, 2);
	for (int i = 0; i < 4; i++) {
		guest_map(&g, g.cr3, gva, i % 2 ? P1 : P2, GUEST_PTE_RW);
		if (i < 2)
			shadow_invlpg(g.shadow, 0, gva);
		else
			expect_eq(shadow_load_cr3(g.shadow, 0, g.cr3), 0);
		expect_eq(guest_load(&g, 0, gva), i % 2 ? 1 : 2);
		expect_eq(guest_load(&g, 0, P1), 1);
	}
	expect_eq(guest_try(&g, 0, MODEL_LOAD, 255UL << 48, NULL), RET_PF_RESERVED);
	cpu = *shadow_get_cpu(g.shadow, 0);
	cpu.cr4 &= ~GUEST_CR4_LA57;
	expect_eq(shadow_set_cpu(g.shadow, 0, &cpu), -EINVAL);
	destroy(&g);
}

/* ---- which root a CPU is on ---- */

struct loading {
	struct guest_mem *g;
	uint64_t cr3, left; /* before the CPU loads it */
	atomic_t about_to, locked;
};

static void about_to_load(void *arg)
{
	struct loading *l = arg;

	atomic_set(&l->about_to, 1);
	while (!atomic_read(&l->locked))
		sched_yield();
	l->left = 1;
}

static void run_load(void *arg)
{
	struct loading *l = arg;

	expect_eq(shadow_load_cr3(l->g->shadow, 0, l->cr3), 0);
}

/* Who sees that the CPU has loaded another root sees all that it did before, on the one that it
 * left. With ThreadSanitizer this says how. */
TEST(cr3, seen_on_another_root)
{
	struct shadow_vcpu *vcpu;
	struct shadow_page *old;
	struct guest_mem g;
	struct loading l = {.g = &g};
	struct kthread thread;

	fixture(&g);
	expect_eq(guest_load(&g, 0, GVA), 1);
	vcpu = &g.shadow->vcpu[0];
	old = vcpu->root;
	l.cr3 = guest_new_table(&g);
	shadow_set_hook(g.shadow, SHADOW_HOOK_ROOT_BEFORE_LOAD, about_to_load, &l);
	expect_eq(kthread_run(&thread, "vcpu", run_load, &l), 0);
	while (!atomic_read(&l.about_to))
		sched_yield();
	spin_lock(&g.shadow->mmu_lock);
	expect(root_in_use(g.shadow, old));
	atomic_set(&l.locked, 1);
	while (READ_ONCE(vcpu->loaded) == old)
		sched_yield();
	(void)root_in_use(g.shadow, old);
	expect_eq(l.left, 1);
	spin_unlock(&g.shadow->mmu_lock);
	kthread_join(&thread);
	guest_mem_destroy(&g);
}
