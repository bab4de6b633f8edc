/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Neighbours that a fault maps: which of them, with what rights, and that nobody notices. The audit
 * runs after each step, and holds each leaf against the guest's entry and the host's.
 */
#include <errno.h>

#include <gnomon/shadow_dirty.h>

#include "notifier/sync/thread.h"
#include "tests/support/memslot_fixture.h"

#define MIB2  (2UL << 20)
#define GROUP 8
#define FIRST 0x10UL /* page of the identity map, the first of a group */

static const struct guest_mem_config config = {.audit = true, .private_ram = true};

static gva_t page(unsigned int i)
{
	return (FIRST + i) << PAGE_SHIFT;
}

static gpa_t entry(struct guest_mem *g, unsigned int i)
{
	return guest_pte_gpa(g, g->cr3, page(i), 1);
}

/* The guest has used page @i, and the host has it in memory: dirty. */
static void use(struct guest_mem *g, unsigned int i)
{
	guest_write(g, entry(g, i), page(i) | GUEST_PTE_RW | GUEST_PTE_A | GUEST_PTE_D);
	guest_write(g, page(i), i);
}

static void fixture(struct guest_mem *g, unsigned int used)
{
	guest_mem_create(g, &config);
	expect_eq(shadow_set_prefetch(g->shadow, GROUP), 0);
	for (unsigned int i = 0; i < used; i++)
		use(g, i);
}

static void done(struct guest_mem *g)
{
	expect_eq(shadow_audit_at(g->shadow, SHADOW_AUDIT_IN_SYNC, NULL, 0), 0);
	destroy(g);
}

TEST(prefetch, the_group_and_no_more)
{
	struct guest_mem g;

	fixture(&g, 2 * GROUP);
	guest_load(&g, 0, page(3));
	expect_eq(stats_of(&g).prefetched, GROUP - 1);
	expect_eq(stats_of(&g).refaults, 0);
	expect_eq(*leaf_of(&g, page(GROUP)), 0);
	expect_eq(*leaf_of(&g, page(0) - PAGE_SIZE), 0);
	for (unsigned int i = 0; i < GROUP; i++) {
		gva_t gva = page(i);

		/* Nobody has used it yet, but for the one. */
		expect_eq(mmu_notifier_test_young(g.mm, guest_hva(gva)), i == 3);
		guest_store(&g, 0, gva, 100 + i);
		expect(mmu_notifier_test_young(g.mm, guest_hva(gva)));
		expect_eq(guest_read(&g, gva), 100 + i);
	}
	expect_eq(stats_of(&g).faults, 1);
	/* They go with the others, by their rmaps. */
	expect_ge(mm_zap_range(g.mm, guest_hva(page(0)), GROUP * PAGE_SIZE), 1);
	for (unsigned int i = 0; i < GROUP; i++)
		expect_eq(*leaf_of(&g, page(i)), 0);
	done(&g);
}

/* Those that the host had taken come back with the one that is asked for: each counts, once. */
TEST(prefetch, refaults)
{
	struct mmu_notifier_range range;
	struct guest_mem g;

	fixture(&g, GROUP);
	guest_load(&g, 0, page(3));
	mmu_notifier_range_init(&range, MMU_NOTIFY_CLEAR, MMU_NOTIFIER_RANGE_BLOCKABLE, g.mm,
				guest_hva(page(0)), guest_hva(page(GROUP)));
	mmu_notifier_invalidate_range_start(&range);
	mmu_notifier_invalidate_range_end(&range);
	for (int round = 0; round < 2; round++) {
		guest_load(&g, 0, page(3));
		expect_eq(stats_of(&g).refaults, GROUP);
		guest_reload_afresh(&g, 0);
	}
	done(&g);
}

/* Without the notes that an audit takes. */
TEST(prefetch, unaudited)
{
	struct guest_mem_config unaudited = config;
	struct guest_mem g;

	unaudited.audit = false;
	guest_mem_create(&g, &unaudited);
	expect_eq(shadow_set_prefetch(g.shadow, GROUP), 0);
	for (unsigned int i = 0; i < GROUP; i++)
		use(&g, i);
	guest_load(&g, 0, page(3));
	expect_eq(stats_of(&g).prefetched, GROUP - 1);
	done(&g);
}

TEST(prefetch, not_asked_for)
{
	struct guest_mem g;

	fixture(&g, GROUP);
	expect_eq(shadow_set_prefetch(g.shadow, 3), -EINVAL);
	expect_eq(shadow_set_prefetch(g.shadow, 128), -EINVAL);
	expect_eq(shadow_set_prefetch(g.shadow, 0), 0);
	guest_load(&g, 0, page(0));
	expect_eq(stats_of(&g).prefetched, 0);
	done(&g);
}

TEST(prefetch, within_reach)
{
	struct guest_mem_config reaching = config;
	struct guest_mem g;

	reaching.gva_first = page(2);
	reaching.gva_end = page(6);
	guest_mem_create(&g, &reaching);
	expect_eq(shadow_set_prefetch(g.shadow, GROUP), 0);
	for (unsigned int i = 0; i < GROUP; i++)
		use(&g, i);
	guest_load(&g, 0, page(3));
	expect_eq(stats_of(&g).prefetched, 3);
	for (unsigned int i = 0; i < GROUP; i++)
		expect_eq(*leaf_of(&g, page(i)) != 0, i >= 2 && i < 6);
	done(&g);
}

/* What a walk would have to mark, or to wait for, or what is nothing. */
TEST(prefetch, what_stays_out)
{
	struct guest_mem g;
	uint64_t gpte;

	fixture(&g, GROUP);
	gpte = guest_read(&g, entry(&g, 1));
	guest_write(&g, entry(&g, 1), gpte & ~GUEST_PTE_A);
	guest_write(&g, entry(&g, 2), gpte & ~GUEST_PTE_P);
	guest_write(&g, entry(&g, 3), gpte | 1UL << 51);	     /* no slot */
	guest_write(&g, entry(&g, 4), guest_read(&g, entry(&g, 0))); /* has a leaf */
	expect_eq(mm_zap_range(g.mm, guest_hva(page(5)), PAGE_SIZE), 1);
	guest_load(&g, 0, page(0));
	for (unsigned int i = 1; i <= 5; i++)
		expect_eq(*leaf_of(&g, page(i)), 0);
	expect_eq(stats_of(&g).prefetched, 2);
	done(&g);
}

TEST(prefetch, rights)
{
	struct guest_mem g;
	uint64_t gpte;

	fixture(&g, 4);
	gpte = guest_read(&g, entry(&g, 1));
	guest_write(&g, entry(&g, 1), gpte & ~GUEST_PTE_W);
	gpte = guest_read(&g, entry(&g, 2));
	guest_write(&g, entry(&g, 2), gpte | GUEST_PTE_NX);
	gpte = guest_read(&g, entry(&g, 3));
	guest_write(&g, entry(&g, 3), gpte & ~GUEST_PTE_D);
	guest_load(&g, 0, page(0));
	expect_eq(stats_of(&g).prefetched, 3);
	expect(!spte_writable(*leaf_of(&g, page(1))));
	expect(spte_writable(*leaf_of(&g, page(2))) && (*leaf_of(&g, page(2)) & SPTE_NX));
	expect(!spte_writable(*leaf_of(&g, page(3))));
	guest_store(&g, 0, page(3), 5);
	expect(guest_read(&g, entry(&g, 3)) & GUEST_PTE_D);
	done(&g);
}

/* Rule 4. The host has read the page, and not written it: whoever may write it says so first. */
TEST(prefetch, clean_in_the_host)
{
	struct guest_mem_config shared = config;
	struct mm_page host;
	struct guest_mem g;

	shared.private_ram = false;
	guest_mem_create(&g, &shared);
	expect_eq(shadow_set_prefetch(g.shadow, GROUP), 0);
	use(&g, 0);
	guest_write(&g, entry(&g, 1), page(1) | GUEST_PTE_RW | GUEST_PTE_A | GUEST_PTE_D);
	expect_eq(guest_read(&g, page(1)), 0);
	mm_lookup_page(g.mm, guest_hva(page(1)), &host);
	expect(host.kind == MM_PAGE_PRESENT && (host.prot & MM_PROT_WRITE) && !host.dirty);

	guest_load(&g, 0, page(0));
	expect_eq(stats_of(&g).prefetched, 1);
	guest_store(&g, 0, page(1), 9);
	mm_lookup_page(g.mm, guest_hva(page(1)), &host);
	expect(host.dirty);
	done(&g);
}

/* The same of the other mark: the host has asked what is written, and the page got its right back
 * by a read. It is dirty as before, and the next store is news. */
TEST(prefetch, not_written_since_the_host_asked)
{
	struct guest_mem_config shared = config;
	const unsigned int rw = MM_PROT_READ | MM_PROT_WRITE;
	uint64_t written = 0;
	struct mm_page host;
	struct guest_mem g;

	shared.private_ram = false;
	guest_mem_create(&g, &shared);
	expect_eq(shadow_set_prefetch(g.shadow, GROUP), 0);
	use(&g, 0);
	use(&g, 1);
	mm_clear_soft_dirty(g.mm);
	expect_eq(mm_mprotect(g.mm, guest_hva(page(1)), PAGE_SIZE, 0), 0);
	expect_eq(mm_mprotect(g.mm, guest_hva(page(1)), PAGE_SIZE, rw), 0);
	expect_eq(guest_read(&g, page(1)), 1);
	mm_lookup_page(g.mm, guest_hva(page(1)), &host);
	expect((host.prot & MM_PROT_WRITE) && host.dirty);
	expect_eq(mm_test_soft_dirty(g.mm, guest_hva(page(1)), PAGE_SIZE, &written), 0);

	guest_load(&g, 0, page(0));
	expect_eq(stats_of(&g).prefetched, 1);
	guest_store(&g, 0, page(1), 9);
	expect_eq(mm_test_soft_dirty(g.mm, guest_hva(page(1)), PAGE_SIZE, &written), 1);
	done(&g);
}

/* Rule 6. It is out of step for now; but not for this. */
TEST(prefetch, a_table)
{
	gpa_t table;
	struct guest_mem g;

	fixture(&g, 1);
	table = entry(&g, 0) & PAGE_MASK;
	guest_write(&g, entry(&g, 1), table | GUEST_PTE_RW | GUEST_PTE_A | GUEST_PTE_D);
	guest_load(&g, 0, page(0));
	expect_eq(stats_of(&g).prefetched, 1);
	expect(!spte_writable(*leaf_of(&g, page(1))));
	done(&g);
}

/* Rule 5. What nobody has stored to is not dirty. */
TEST(prefetch, a_logged_slot)
{
	uint64_t marks = 0;
	struct guest_mem g;

	memslot_fixture(&g, &config);
	expect_eq(shadow_set_prefetch(g.shadow, GROUP), 0);
	expect_eq(set_slot(&g, SLOT, SLOT_GFN, SLOT_PAGES, SLOT_HVA, MEMSLOT_LOG_DIRTY), 0);
	use(&g, 0);
	guest_write(&g, entry(&g, 1),
		    SLOT_GFN << PAGE_SHIFT | GUEST_PTE_RW | GUEST_PTE_A | GUEST_PTE_D);
	guest_load(&g, 0, page(0));
	expect_eq(stats_of(&g).prefetched, 1);
	expect_eq(shadow_get_dirty_log(g.shadow, SLOT, &marks), 0);
	expect_eq(marks, 0);
	guest_store(&g, 0, page(1), 5);
	expect_eq(shadow_get_dirty_log(g.shadow, SLOT, &marks), 0);
	expect_eq(marks, 1);
	memslot_fixture_done(&g);
}

/* A window is open over two neighbours, and not over the page that faults. */
TEST(prefetch, a_window)
{
	struct mmu_notifier_range range;
	struct guest_mem g;

	fixture(&g, GROUP);
	mmap_read_lock(g.mm);
	mmu_notifier_range_init(&range, MMU_NOTIFY_CLEAR, 0, g.mm, guest_hva(page(2)),
				guest_hva(page(4)));
	mmu_notifier_invalidate_range_start(&range);
	mmap_read_unlock(g.mm);
	guest_load(&g, 0, page(0));
	expect_eq(stats_of(&g).prefetched, GROUP - 1 - 2);
	expect_eq(*leaf_of(&g, page(2)), 0);
	expect_eq(*leaf_of(&g, page(3)), 0);
	mmap_read_lock(g.mm);
	mmu_notifier_invalidate_range_end(&range);
	mmap_read_unlock(g.mm);
	done(&g);
}

/* All of a large page was used at once. */
TEST(prefetch, large_page)
{
	struct guest_mem_config large = config;
	const gva_t gva = 0x40000000;
	struct guest_mem g;

	large.nr_pages = 2048;
	guest_mem_create(&g, &large);
	expect_eq(shadow_set_prefetch(g.shadow, GROUP), 0);
	for (unsigned int i = 0; i < GROUP; i++)
		guest_write(&g, MIB2 + i * PAGE_SIZE, i);
	guest_edit(&g, guest_pte_gpa(&g, g.cr3, gva, 2), MIB2 | GUEST_PTE_RW | GUEST_PTE_PS);
	guest_store(&g, 0, gva, 0);
	for (unsigned int i = 0; i < GROUP; i++) {
		expect_eq(guest_load(&g, 0, gva + i * PAGE_SIZE), i);
		guest_store(&g, 0, gva + i * PAGE_SIZE, i + 1);
	}
	expect_eq(stats_of(&g).prefetched, GROUP - 1);
	expect_eq(stats_of(&g).faults, 1);
	done(&g);
}

/* A leaf that is not used is none to the CPU there. */
TEST(prefetch, no_accessed_bits)
{
	struct guest_mem_config tracked = config;
	struct guest_mem g;

	tracked.no_accessed_bits = true;
	guest_mem_create(&g, &tracked);
	expect_eq(shadow_set_prefetch(g.shadow, GROUP), 0);
	use(&g, 0);
	use(&g, 1);
	guest_load(&g, 0, page(0));
	expect_eq(stats_of(&g).prefetched, 0);
	done(&g);
}

/* A page of ROM, and the same when its slot is going. */
static void fault_on_invalid(void *arg)
{
	struct guest_mem *g = arg;
	struct shadow_fault fault;

	expect_eq(guest_fault(g, 0, page(0), 0, &fault), RET_PF_FIXED);
}

TEST(prefetch, slots)
{
	struct guest_mem g;

	memslot_fixture(&g, &config);
	expect_eq(shadow_set_prefetch(g.shadow, GROUP), 0);
	expect_eq(set_slot(&g, SLOT, SLOT_GFN, SLOT_PAGES, SLOT_HVA, MEMSLOT_READONLY), 0);
	use(&g, 0);
	use(&g, 1);
	guest_write(&g, entry(&g, 1),
		    SLOT_GFN << PAGE_SHIFT | GUEST_PTE_RW | GUEST_PTE_A | GUEST_PTE_D);
	guest_load(&g, 0, page(0));
	expect_eq(stats_of(&g).prefetched, 1);
	expect_eq(guest_load(&g, 0, page(1)), stamp(0));
	expect_eq(guest_try(&g, 0, MODEL_STORE, page(1), NULL), RET_PF_EMULATE);
	expect_eq(mm_zap_range(g.mm, guest_hva(page(0)), PAGE_SIZE), 1);
	use(&g, 0);
	shadow_set_hook(g.shadow, SHADOW_HOOK_SLOT_AFTER_ZAP, fault_on_invalid, &g);
	expect_eq(delete_slot(&g, SLOT), 0);
	expect_eq(stats_of(&g).prefetched, 1);
	memslot_fixture_done(&g);
}

/* CPUs, and a host that moves the pages and takes them away: no store is lost. */
struct taker {
	struct guest_mem g;
	atomic_t stop;
};

static void take(void *arg)
{
	struct taker *t = arg;

	for (unsigned int i = 0; !atomic_read(&t->stop); i++) {
		mm_migrate_range(t->g.mm, guest_hva(page(i % GROUP)), PAGE_SIZE);
		if (i % 8 == 0)
			mm_migrate_range(t->g.mm, guest_hva(page(0)), GROUP * PAGE_SIZE);
	}
}

TEST(prefetch, storm)
{
	const uint64_t prefetched = test_long() ? 5000 : 100;
	struct kthread thread;
	struct taker t;

	fixture(&t.g, GROUP);
	atomic_set(&t.stop, 0);
	for (unsigned int i = 0; i < GROUP; i++)
		guest_store(&t.g, 0, page(i), 0);
	expect_eq(kthread_run(&thread, "taker", take, &t), 0);
	for (uint64_t n = 1; n <= 500 || stats_of(&t.g).prefetched < prefetched; n++) {
		for (unsigned int i = 0; i < GROUP; i++) {
			expect_eq(guest_load(&t.g, 0, page(i)), n - 1);
			guest_store(&t.g, 0, page(i), n);
		}
	}
	atomic_set(&t.stop, 1);
	kthread_join(&thread);
	done(&t.g);
}
