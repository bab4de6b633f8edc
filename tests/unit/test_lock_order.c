/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * docs/locking.md says the truth: every order of two locks that ordinary work shows is in the
 * partial order that its lock-order block spells out. Debug builds only.
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <gnomon/hmm.h>
#include <gnomon/hmm_mirror.h>
#include <gnomon/ksm.h>
#include <gnomon/srcu.h>
#include <gnomon/swap.h>

#include "notifier/mm_internal.h"
#include "notifier/sync/lock.h"
#include "tests/model/guest_mem.h"
#include "tests/support/test.h"

#ifndef CONFIG_LOCKDEP

TEST(lock_order, needs_a_debug_build)
{
	skip("built without CONFIG_LOCKDEP");
}

#else

#define MAX_LOCKS 64

static struct {
	char name[MAX_LOCKS][LOCKDEP_NAME_MAX];
	int nr;
	bool encloses[MAX_LOCKS][MAX_LOCKS];
} documented;

static int lock_number(const char *name, bool add)
{
	for (int i = 0; i < documented.nr; i++)
		if (!strcmp(documented.name[i], name))
			return i;
	if (!add)
		return -1;
	expect(documented.nr < MAX_LOCKS);
	snprintf(documented.name[documented.nr], LOCKDEP_NAME_MAX, "%s", name);
	return documented.nr++;
}

/* "a -> b -> c", as often as it takes. */
static void read_chain(char *line)
{
	int outer = -1;

	for (char *name = strtok(line, " \n"); name; name = strtok(NULL, " \n")) {
		int inner;

		if (!strcmp(name, "->"))
			continue;
		inner = lock_number(name, true);
		if (outer >= 0)
			documented.encloses[outer][inner] = true;
		outer = inner;
	}
}

static void read_document(void)
{
	const char *source = getenv("GNOMON_SOURCE");
	char path[512], line[512];
	bool inside = false;
	FILE *file;

	snprintf(path, sizeof(path), "%s/docs/locking.md", source ? source : ".");
	file = fopen(path, "r");
	if (!file)
		fail("%s: %s", path, strerror(errno));
	while (fgets(line, sizeof(line), file)) {
		if (!strncmp(line, "```", 3))
			inside = !strcmp(line, "```lock-order\n");
		else if (inside)
			read_chain(line);
	}
	fclose(file);

	for (int via = 0; via < documented.nr; via++)
		for (int i = 0; i < documented.nr; i++)
			for (int j = 0; j < documented.nr; j++)
				documented.encloses[i][j] |=
					documented.encloses[i][via] && documented.encloses[via][j];
}

struct comparison {
	int seen, missing;
};

static void compare(const struct lockdep_edge *edge, void *arg)
{
	struct comparison *c = arg;
	int outer = lock_number(edge->held, false), inner = lock_number(edge->taken, false);

	/* Leaves of SRCU's own, and the model's, are no business of that page. */
	if (inner < 0 && (strstr(edge->taken_site->file, "notifier/srcu") ||
			  strstr(edge->taken_site->file, "tests/model")))
		return;
	if (outer < 0 && strstr(edge->held_site->file, "notifier/srcu"))
		return;
	c->seen++;
	if (outer >= 0 && inner >= 0 && documented.encloses[outer][inner])
		return;
	c->missing++;
	fprintf(stderr,
		"not in docs/locking.md: %s -> %s\n  %s in %s() at %s:%d\n  %s in %s() at %s:%d\n",
		edge->held, edge->taken, edge->held, edge->held_site->func, edge->held_site->file,
		edge->held_site->line, edge->taken, edge->taken_site->func, edge->taken_site->file,
		edge->taken_site->line);
}

static void expect_documented(int at_least)
{
	struct comparison c = {0};

	lockdep_dump(compare, &c);
	expect_eq(c.missing, 0);
	expect_ge(c.seen, at_least);
}

static void nothing(struct srcu_head *head)
{
	(void)head;
}

static int sync_device(struct hmm_mirror *mirror, const struct mmu_notifier_range *update)
{
	(void)mirror;
	(void)update;
	return 0;
}

static bool invalidate_device(struct mmu_interval_notifier *sub,
			      const struct mmu_notifier_range *update, unsigned long cur_seq)
{
	(void)update;
	mmu_interval_set_seq(sub, cur_seq);
	return true;
}

/* Devices follow a private page, by a mirror and by an interval. */
static void device_work(struct mm_struct *mm, hva_t hva)
{
	static const struct mmu_interval_notifier_ops sub_ops = {.invalidate = invalidate_device};
	static const struct hmm_mirror_ops mirror_ops = {.sync_cpu_device_pagetables = sync_device};
	struct hmm_mirror_range old = {.start = hva, .end = hva + PAGE_SIZE};
	struct hmm_mirror mirror = {.ops = &mirror_ops};
	struct mmu_interval_notifier sub;
	uint64_t entry;
	struct hmm_range range = {.notifier = &sub,
				  .start = hva,
				  .end = hva + PAGE_SIZE,
				  .hmm_pfns = &entry,
				  .default_flags = HMM_PFN_REQ_FAULT};

	mmap_write_lock(mm);
	expect_eq(hmm_mirror_register(&mirror, mm), 0);
	mmap_write_unlock(mm);
	expect_eq(hmm_range_register(&old, &mirror), 0);
	expect_eq(mmu_interval_notifier_insert(&sub, mm, hva, PAGE_SIZE, &sub_ops), 0);
	for (int round = 0; round < 2; round++) {
		range.notifier_seq = mmu_interval_read_begin(&sub);
		mmap_read_lock(mm);
		expect_eq(hmm_range_fault(&range), 0);
		mmap_read_unlock(mm);
		expect(hmm_range_wait_until_valid(&old, 0));
		expect_eq(mm_migrate_range(mm, hva, PAGE_SIZE), 1);
		expect_eq(migrate_frame(mm_phys(mm), mm_lookup_pfn(mm, hva)), 0);
		expect_eq(mm_zap_range(mm, hva, PAGE_SIZE), 1);
	}
	mmu_interval_notifier_remove(&sub);
	hmm_range_unregister(&old);
	hmm_mirror_unregister(&mirror);
	mmu_notifier_synchronize();
}

/* Pages go out, from two mms at once, and come in; some are forgotten while they are out. */
static void reclaim_work(struct guest_mem *g, hva_t hva)
{
	struct mm_struct *child;
	uint64_t word = 1;

	expect_eq(phys_swap_on(g->phys, "/tmp", 64), 0);
	expect_eq(phys_reclaim_start(g->phys), 0);
	expect_eq(mm_write(g->mm, hva, &word, sizeof(word)), 0);
	expect_eq(mm_write(g->mm, hva + PAGE_SIZE, &word, sizeof(word)), 0);
	expect_eq(mm_madvise(g->mm, hva, PAGE_SIZE, MM_MADV_COLD), 0);
	expect_eq(mm_fork(g->mm, &child), 0);
	expect_ge(phys_reclaim(g->phys, 64), 2);
	expect_eq(mm_read(child, hva, &word, sizeof(word)), 0);
	expect_eq(mm_madvise(g->mm, hva, 2 * PAGE_SIZE, MM_MADV_FREE), 0);
	mmput(child);
	expect_eq(mm_write(g->mm, hva, &word, sizeof(word)), 0);
	expect_eq(mm_madvise(g->mm, hva, 2 * PAGE_SIZE, MM_MADV_PAGEOUT), 0);
	guest_store(g, 0, 0, 1);
	phys_reclaim_stop(g->phys);
}

/* In an mm of its own, pages are merged, move, and are written. */
static void merge_work(struct phys *phys, hva_t hva)
{
	struct mm_struct *mm = mm_alloc(phys), *child;
	struct ksm *ksm = ksm_create(phys);
	const uint64_t len = 2 * PAGE_SIZE, word = 7;

	expect(mm && ksm);
	expect_eq(mm_mmap(mm, hva, len, MM_PROT_READ | MM_PROT_WRITE, NULL, 0), 0);
	expect_eq(mm_madvise(mm, hva, len, MM_MADV_MERGEABLE), 0);
	expect_eq(mm_write(mm, hva, &word, sizeof(word)), 0);
	expect_eq(mm_write(mm, hva + PAGE_SIZE, &word, sizeof(word)), 0);
	expect_eq(ksm_scan(ksm, ULONG_MAX), 0);
	expect_eq(ksm_scan(ksm, ULONG_MAX), 1);
	expect_eq(migrate_frame(phys, mm_lookup_pfn(mm, hva)), 0);
	expect_eq(mm_fork(mm, &child), 0);
	expect_eq(mm_write(child, hva, &word, sizeof(word)), 0);
	expect_eq(ksm_scan(ksm, ULONG_MAX), 1);
	mmput(child);
	expect_eq(mm_madvise(mm, hva, len, MM_MADV_UNMERGEABLE), 0);
	mmput(mm);
	ksm_destroy(ksm);
}

/* A guest runs; its memory is zapped, moved, written by the host, and goes away. */
static void work(void)
{
	const struct guest_mem_config config = {.nr_cpus = 2, .audit = true};
	const hva_t private = GUEST_MEM_HVA / 2;
	struct memslot_region slot = {.id = 1,
				      .base_gfn = 0x1000,
				      .npages = 1,
				      .hva = GUEST_MEM_HVA};
	struct srcu_head head;
	struct srcu_struct srcu;
	struct guest_mem g;
	uint64_t word = 1;

	expect_eq(srcu_workers_start(), 0);
	expect_eq(init_srcu_struct(&srcu), 0);
	guest_mem_create(&g, &config);
	for (int round = 0; round < 3; round++) {
		for (gva_t gva = 0; gva < 8 * PAGE_SIZE; gva += PAGE_SIZE) {
			guest_store(&g, round & 1, gva, gva);
			shadow_invlpg(g.shadow, round & 1, gva);
		}
		expect_eq(shadow_write_gpa(g.shadow, PAGE_SIZE, &word, sizeof(word)), 0);
		expect_ge(mm_migrate_range(g.mm, GUEST_MEM_HVA, 8 * PAGE_SIZE), 1);
		expect_eq(migrate_mapping_page(g.ram, 1), 0);
		expect_ge(mm_zap_range(g.mm, GUEST_MEM_HVA, 8 * PAGE_SIZE), 1);
		call_srcu(&srcu, &head, nothing);
		srcu_barrier(&srcu);
		shadow_set_zap_policy(g.shadow, round & 1 ? SHADOW_ZAP_SLOT : SHADOW_ZAP_ALL);
		for (int i = 0; i < 2; i++) {
			expect_eq(shadow_set_memslot(g.shadow, &slot), 0);
			slot.base_gfn++;
		}
		slot.npages = 0;
		expect_eq(shadow_set_memslot(g.shadow, &slot), 0);
		slot.npages = 1;
	}
	expect_eq(mm_mmap(g.mm, private, 2 * PAGE_SIZE, MM_PROT_READ | MM_PROT_WRITE, NULL, 0), 0);
	expect_eq(mm_write(g.mm, private, &word, sizeof(word)), 0);
	expect_eq(mm_migrate_range(g.mm, private, 2 * PAGE_SIZE), 1);
	expect_eq(mm_zap_range(g.mm, private, 2 * PAGE_SIZE), 1);
	expect_eq(mm_write(g.mm, private, &word, sizeof(word)), 0);
	device_work(g.mm, private);
	reclaim_work(&g, private);
	merge_work(g.phys, private);
	/* Before the domain of the memslots is forgotten, and after. */
	expect_documented(15);
	guest_mem_destroy(&g);
	expect_eq(cleanup_srcu_struct(&srcu), 0);
	srcu_workers_stop();
}

TEST(lock_order, work_stays_within_the_documented_order)
{
	read_document();
	expect_ge(documented.nr, 10);
	for (int i = 0; i < documented.nr; i++)
		if (documented.encloses[i][i])
			fail("docs/locking.md has a cycle at %s", documented.name[i]);
	work();
	expect_documented(15);
}

/* The comparison sees what is wrong. */
static DEFINE_MUTEX(undocumented);

static void count(const struct lockdep_edge *edge, void *arg)
{
	*(int *)arg += !strcmp(edge->taken, "undocumented");
}

TEST(lock_order, comparison_sees_an_order_that_is_not_there)
{
	struct comparison c = {0};
	static DEFINE_MUTEX(outer);
	int nr = 0;

	read_document();
	mutex_lock(&outer);
	mutex_lock(&undocumented);
	mutex_unlock(&undocumented);
	mutex_unlock(&outer);
	lockdep_dump(count, &nr);
	expect_eq(nr, 1);
	lockdep_dump(compare, &c);
	expect_ge(c.missing, 1);
}

#endif
