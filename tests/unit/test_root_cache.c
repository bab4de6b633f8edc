/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Kept roots (root_cache.c): what a switch keeps, and what a flush must reach although nobody runs
 * there. An edit of the guest's tables that has not been flushed may show or not; so a test that
 * wants the old page has counted faults instead.
 */
#include <errno.h>
#include <sched.h>

#include "shadow/shadow_internal.h"

#include "notifier/sync/thread.h"
#include "tests/model/guest_mem.h"
#include "tests/support/asleep.h"
#include "tests/support/hoard.h"
#include "tests/support/park.h"
#include "tests/support/test.h"

#define GVA	  0x10000000UL
#define NR_SPACES 6
#define NOFLUSH	  GUEST_CR3_NOFLUSH
#define U	  (GUEST_PTE_RW | GUEST_PTE_U)

/* Address spaces that map GVA + n pages each to pages of their own, and to others after an edit. */
struct spaces {
	struct guest_mem g;
	uint64_t cr3[NR_SPACES];
};

/* The value that page @n of space @s holds after @edits edits. */
static uint64_t value(unsigned int s, unsigned int n, unsigned int edits)
{
	return 1000 * edits + 10 * s + n;
}

static gpa_t data_page(unsigned int s, unsigned int n, unsigned int edits)
{
	return (1 + edits * 2 * NR_SPACES + 2 * s + n) << PAGE_SHIFT;
}

static void edit(struct spaces *t, unsigned int s, unsigned int n, unsigned int edits)
{
	guest_write(&t->g, data_page(s, n, edits), value(s, n, edits));
	guest_map(&t->g, t->cr3[s], GVA + n * PAGE_SIZE, data_page(s, n, edits), U);
}

static void set_cr4(struct spaces *t, unsigned int vcpu, uint64_t on, uint64_t off)
{
	struct guest_cpu cpu = *shadow_get_cpu(t->g.shadow, vcpu);

	cpu.cr4 = (cpu.cr4 | on) & ~off;
	expect_eq(shadow_set_cpu(t->g.shadow, vcpu, &cpu), 0);
}

static void set_user(struct spaces *t, unsigned int vcpu, bool user)
{
	struct guest_cpu cpu = *shadow_get_cpu(t->g.shadow, vcpu);

	cpu.user = user;
	expect_eq(shadow_set_cpu(t->g.shadow, vcpu, &cpu), 0);
}

static void fixture(struct spaces *t, uint64_t cr4)
{
	static const struct guest_mem_config config = {.audit = true,
						       .nr_cpus = 2,
						       .nr_pages = 128,
						       .no_identity = true,
						       .reuse = MODEL_REUSE_LIFO};

	guest_mem_create(&t->g, &config);
	for (unsigned int s = 0; s < NR_SPACES; s++) {
		t->cr3[s] = s ? guest_new_table(&t->g) : t->g.cr3;
		edit(t, s, 0, 0);
		edit(t, s, 1, 0);
	}
	for (unsigned int vcpu = 0; vcpu < 2; vcpu++)
		set_cr4(t, vcpu, cr4, 0);
}

static void destroy(struct spaces *t)
{
	struct model_stats stats;

	model_get_stats(t->g.model, &stats);
	expect_eq(stats.contract_violations, 0);
	guest_mem_destroy(&t->g);
}

static void load(struct spaces *t, unsigned int vcpu, unsigned int s, uint64_t bits)
{
	expect_eq(shadow_load_cr3(t->g.shadow, vcpu, t->cr3[s] | bits), 0);
}

static uint64_t load_page(struct spaces *t, unsigned int vcpu, unsigned int n)
{
	return guest_load(&t->g, vcpu, GVA + n * PAGE_SIZE);
}

static struct shadow_stats stats_of(struct spaces *t)
{
	struct shadow_stats stats;

	shadow_get_stats(t->g.shadow, &stats);
	return stats;
}

/* The page is as it was, and nothing was done for that. */
#define EXPECT_KEPT(t, vcpu, s, n)                                \
	do {                                                      \
		uint64_t faults = stats_of(t).faults;             \
		expect_eq(load_page(t, vcpu, n), value(s, n, 0)); \
		expect_eq(stats_of(t).faults, faults);            \
	} while (0)

/* ---- what a switch keeps ---- */

TEST(root_cache, views_of_one_cr3)
{
	struct shadow_stats before;
	struct spaces t;

	fixture(&t, 0);
	expect_eq(load_page(&t, 0, 0), value(0, 0, 0));
	set_user(&t, 0, true);
	expect_eq(load_page(&t, 0, 0), value(0, 0, 0));
	before = stats_of(&t);
	for (int i = 0; i < 10; i++) {
		set_user(&t, 0, i % 2);
		EXPECT_KEPT(&t, 0, 0, 0);
	}
	expect_eq(stats_of(&t).sptes_zapped, before.sptes_zapped);
	expect_eq(stats_of(&t).shootdowns, before.shootdowns);
	destroy(&t);
}

/* A flush brings roots up to date: what was not edited stays, and so does all of a root that nobody
 * edited. */
TEST(root_cache, what_was_not_edited_stays)
{
	struct shadow_stats before;
	struct spaces t;

	fixture(&t, 0);
	for (unsigned int s = 0; s < 2; s++) {
		load(&t, 0, s, 0);
		expect_eq(load_page(&t, 0, 0), value(s, 0, 0));
		expect_eq(load_page(&t, 0, 1), value(s, 1, 0));
	}
	before = stats_of(&t);
	edit(&t, 0, 0, 1);
	for (int i = 0; i < 3; i++) {
		load(&t, 0, 0, 0);
		expect_eq(load_page(&t, 0, 0), value(0, 0, 1));
		EXPECT_KEPT(&t, 0, 0, 1);
		shadow_invlpg(t.g.shadow, 0, GVA + PAGE_SIZE);
		EXPECT_KEPT(&t, 0, 0, 1);
		load(&t, 0, 1, 0);
		EXPECT_KEPT(&t, 0, 1, 0);
		EXPECT_KEPT(&t, 0, 1, 1);
	}
	expect_eq(stats_of(&t).sptes_zapped, before.sptes_zapped + 1);
	expect_eq(stats_of(&t).tables_retired, before.tables_retired);
	destroy(&t);
}

/* The one that was not used for longest gives way. */
TEST(root_cache, the_last_four)
{
	static const unsigned int back[] = {1, 2, 0, 3};
	struct spaces t;

	fixture(&t, GUEST_CR4_PCIDE);
	for (unsigned int s = 0; s < 4; s++) {
		load(&t, 0, s, s | NOFLUSH);
		expect_eq(load_page(&t, 0, 0), value(s, 0, 0));
	}
	for (unsigned int i = 0; i < 4; i++) {
		load(&t, 0, back[i], back[i] | NOFLUSH);
		EXPECT_KEPT(&t, 0, back[i], 0);
	}
	load(&t, 0, 4, 4 | NOFLUSH); /* for 1 */
	expect_eq(load_page(&t, 0, 0), value(4, 0, 0));
	for (unsigned int i = 1; i < 4; i++) {
		load(&t, 0, back[i], back[i] | NOFLUSH);
		EXPECT_KEPT(&t, 0, back[i], 0);
	}
	expect_eq(stats_of(&t).tables_retired, 4);
	load(&t, 0, 1, 1 | NOFLUSH); /* for 4 */
	expect_eq(load_page(&t, 0, 0), value(1, 0, 0));
	expect_eq(stats_of(&t).tables_retired, 8);
	destroy(&t);
}

/* There is nothing that could be recycled: only the roots that the CPUs are on. */
TEST(root_cache, no_memory_changes_nothing)
{
	struct shadow_page *root;
	static struct hoard hoard;
	struct spaces t;

	fixture(&t, GUEST_CR4_PCIDE);
	root = t.g.shadow->vcpu[0].root;
	hoard_frames(&hoard, t.g.phys);
	expect_eq(shadow_load_cr3(t.g.shadow, 0, t.cr3[4]), -ENOMEM);
	expect_eq(t.g.shadow->vcpu[0].root, root);
	expect_eq(shadow_get_cpu(t.g.shadow, 0)->cr3, t.cr3[0]);
	hoard_release(&hoard);
	expect_eq(load_page(&t, 0, 0), value(0, 0, 0));
	load(&t, 0, 4, NOFLUSH);
	expect_eq(load_page(&t, 0, 0), value(4, 0, 0));
	load(&t, 0, 0, NOFLUSH);
	EXPECT_KEPT(&t, 0, 0, 0);
	destroy(&t);
}

TEST(root_cache, bit_63_needs_pcide)
{
	struct spaces t;

	fixture(&t, 0);
	expect_eq(shadow_load_cr3(t.g.shadow, 0, t.cr3[1] | NOFLUSH), -EINVAL);
	set_cr4(&t, 0, GUEST_CR4_PCIDE, 0);
	load(&t, 0, 1, 5 | NOFLUSH);
	expect_eq(shadow_get_cpu(t.g.shadow, 0)->cr3, t.cr3[1] | 5);
	expect_eq(shadow_load_cr3(t.g.shadow, 0, t.cr3[1] | 1UL << 62), -EINVAL);
	/* Where PCIDs end: they tell roots apart only with PCIDE, and are hints for caches without.
	 */
	set_cr4(&t, 0, 0, GUEST_CR4_PCIDE);
	load(&t, 0, 1, 0x18);
	expect_eq(load_page(&t, 0, 0), value(1, 0, 0));
	destroy(&t);
}

/* ---- what a flush reaches ---- */

/* Without PCIDE each load is a flush of everything, other views and other CR3s too. */
TEST(root_cache, a_load_of_cr3_reaches_all)
{
	struct spaces t;

	fixture(&t, 0);
	set_user(&t, 0, true);
	expect_eq(load_page(&t, 0, 0), value(0, 0, 0));
	load(&t, 0, 1, 0);
	expect_eq(load_page(&t, 0, 0), value(1, 0, 0));
	set_user(&t, 0, false);
	expect_eq(load_page(&t, 0, 0), value(1, 0, 0));
	edit(&t, 0, 0, 1);
	edit(&t, 1, 0, 1);
	load(&t, 0, 1, 0);
	expect_eq(load_page(&t, 0, 0), value(1, 0, 1));
	set_user(&t, 0, true);
	expect_eq(load_page(&t, 0, 0), value(1, 0, 1));
	load(&t, 0, 0, 0);
	expect_eq(load_page(&t, 0, 0), value(0, 0, 1));
	destroy(&t);
}

/* A flush is of a PCID, not of a CR3: what comes back without one must not be older. */
TEST(root_cache, a_load_of_cr3_reaches_its_pcid)
{
	struct spaces t;

	fixture(&t, GUEST_CR4_PCIDE);
	load(&t, 0, 0, 1);
	expect_eq(load_page(&t, 0, 0), value(0, 0, 0));
	load(&t, 0, 2, 2);
	expect_eq(load_page(&t, 0, 0), value(2, 0, 0));
	edit(&t, 0, 0, 1);
	load(&t, 0, 1, 1);
	load(&t, 0, 0, 1 | NOFLUSH);
	expect_eq(load_page(&t, 0, 0), value(0, 0, 1));
	/* PCID 2 was not flushed. */
	load(&t, 0, 2, 2 | NOFLUSH);
	EXPECT_KEPT(&t, 0, 2, 0);
	destroy(&t);
}

/* One CR3 in two PCIDs: the page is the same, what it owes to each is not. */
TEST(root_cache, one_root_in_two_pcids)
{
	struct spaces t;

	fixture(&t, GUEST_CR4_PCIDE);
	load(&t, 0, 0, 1);
	expect_eq(load_page(&t, 0, 0), value(0, 0, 0));
	load(&t, 0, 0, 2 | NOFLUSH);
	expect_eq(t.g.shadow->vcpu[0].roots[0].root, t.g.shadow->vcpu[0].roots[1].root);
	expect_eq(load_page(&t, 0, 0), value(0, 0, 0));
	edit(&t, 0, 0, 1);
	load(&t, 0, 1, 1); /* flushes PCID 1 */
	load(&t, 0, 0, 2 | NOFLUSH);
	load(&t, 0, 0, 1 | NOFLUSH);
	expect_eq(load_page(&t, 0, 0), value(0, 0, 1));
	destroy(&t);
}

/* A root that a vCPU has let go of hears nothing, and may live on with another vCPU. */
TEST(root_cache, a_root_that_others_keep)
{
	struct spaces t;

	fixture(&t, GUEST_CR4_PCIDE);
	load(&t, 0, 0, 1);
	load(&t, 1, 0, 1);
	expect_eq(load_page(&t, 0, 0), value(0, 0, 0));
	expect_eq(load_page(&t, 1, 0), value(0, 0, 0));
	for (unsigned int s = 1; s < 5; s++)
		load(&t, 0, s, 1 + s);
	edit(&t, 0, 0, 1);
	expect_eq(shadow_invpcid(t.g.shadow, 0, INVPCID_CONTEXT, 1, 0), 0);
	load(&t, 0, 0, 1 | NOFLUSH);
	expect_eq(load_page(&t, 0, 0), value(0, 0, 1));
	destroy(&t);
}

/* INVLPG has no PCID: a global page's translation is of none. And it is of all views. */
TEST(root_cache, invlpg_reaches_every_kept_root)
{
	struct spaces t;

	fixture(&t, GUEST_CR4_PCIDE);
	for (unsigned int s = 0; s < 2; s++) {
		load(&t, 0, s, s);
		set_user(&t, 0, false);
		expect_eq(load_page(&t, 0, 0), value(s, 0, 0));
		expect_eq(load_page(&t, 0, 1), value(s, 1, 0));
		set_user(&t, 0, true);
		expect_eq(load_page(&t, 0, 0), value(s, 0, 0));
	}
	edit(&t, 0, 0, 1);
	edit(&t, 1, 0, 1);
	shadow_invlpg(t.g.shadow, 0, GVA);
	for (unsigned int i = 0; i < 4; i++) {
		load(&t, 0, i / 2, i / 2 | NOFLUSH);
		set_user(&t, 0, i % 2);
		expect_eq(load_page(&t, 0, 0), value(i / 2, 0, 1));
	}
	set_user(&t, 0, false);
	EXPECT_KEPT(&t, 0, 1, 1);
	destroy(&t);
}

/* Two spaces, PCIDs 1 and 2, each with pages 0 and 1 read; then both of each are edited. */
static void two_pcids(struct spaces *t)
{
	fixture(t, GUEST_CR4_PCIDE);
	for (unsigned int s = 0; s < 2; s++) {
		load(t, 0, s, s + 1);
		expect_eq(load_page(t, 0, 0), value(s, 0, 0));
		expect_eq(load_page(t, 0, 1), value(s, 1, 0));
	}
}

static int invpcid(struct spaces *t, uint64_t type, uint64_t pcid, gva_t gva)
{
	return shadow_invpcid(t->g.shadow, 0, type, pcid, gva);
}

TEST(root_cache, invpcid_of_an_address)
{
	for (unsigned int s = 0; s < 2; s++) { /* kept, and current */
		struct spaces t;

		two_pcids(&t);
		edit(&t, s, 0, 1);
		expect_eq(invpcid(&t, INVPCID_ADDRESS, s + 1, GVA), 0);
		load(&t, 0, !s, (!s + 1) | NOFLUSH);
		EXPECT_KEPT(&t, 0, !s, 0);
		load(&t, 0, s, (s + 1) | NOFLUSH);
		EXPECT_KEPT(&t, 0, s, 1);
		expect_eq(load_page(&t, 0, 0), value(s, 0, 1));
		destroy(&t);
	}
}

TEST(root_cache, invpcid_of_a_context)
{
	for (unsigned int s = 0; s < 2; s++) {
		struct spaces t;

		two_pcids(&t);
		edit(&t, s, 0, 1);
		edit(&t, s, 1, 1);
		expect_eq(invpcid(&t, INVPCID_CONTEXT, s + 1, 0), 0);
		load(&t, 0, !s, (!s + 1) | NOFLUSH);
		EXPECT_KEPT(&t, 0, !s, 0);
		load(&t, 0, s, (s + 1) | NOFLUSH);
		expect_eq(load_page(&t, 0, 0), value(s, 0, 1));
		expect_eq(load_page(&t, 0, 1), value(s, 1, 1));
		destroy(&t);
	}
}

TEST(root_cache, invpcid_of_everything)
{
	for (uint64_t type = INVPCID_ALL_GLOBAL; type <= INVPCID_ALL_CONTEXTS; type++) {
		struct spaces t;

		two_pcids(&t);
		edit(&t, 0, 0, 1);
		edit(&t, 1, 0, 1);
		expect_eq(invpcid(&t, type, 7, 1UL << 63), 0);
		expect_eq(load_page(&t, 0, 0), value(1, 0, 1));
		load(&t, 0, 0, 1 | NOFLUSH);
		expect_eq(load_page(&t, 0, 0), value(0, 0, 1));
		destroy(&t);
	}
}

TEST(root_cache, invpcid_refused)
{
	struct spaces t;

	two_pcids(&t);
	expect_eq(invpcid(&t, 4, 0, 0), -EINVAL);
	expect_eq(invpcid(&t, ~0UL, 0, 0), -EINVAL);
	for (uint64_t type = 0; type < 4; type++)
		expect_eq(invpcid(&t, type, 0x1000, 0), -EINVAL);
	expect_eq(invpcid(&t, INVPCID_ADDRESS, 1, 1UL << 47), -EINVAL);
	expect_eq(invpcid(&t, INVPCID_ADDRESS, 0xfff, GVA), 0);
	set_cr4(&t, 0, 0, GUEST_CR4_PCIDE);
	expect_eq(invpcid(&t, INVPCID_ADDRESS, 1, GVA), -EINVAL);
	expect_eq(invpcid(&t, INVPCID_CONTEXT, 1, GVA), -EINVAL);
	expect_eq(invpcid(&t, INVPCID_ADDRESS, 0, GVA), 0);
	expect_eq(invpcid(&t, INVPCID_CONTEXT, 0, 0), 0);
	expect_eq(invpcid(&t, INVPCID_ALL_CONTEXTS, 1, 0), 0);
	destroy(&t);
}

/* What a MOV to CR4 flushes: of the current space, of another of its PCID, of another PCID. */
TEST(root_cache, mov_to_cr4)
{
	static const struct {
		uint64_t before, on, off;
		bool pcid, all;
		bool back; /* to the view, or the PCIDs, of before */
	} cases[] = {
		{0, GUEST_CR4_PGE, 0, true, true, false},
		{GUEST_CR4_PGE, 0, GUEST_CR4_PGE, true, true, false},
		{0, 0, GUEST_CR4_PCIDE, true, true, true},
		{0, GUEST_CR4_SMEP, 0, true, false, true},
		{0, GUEST_CR4_SMAP, 0, false, false, true},
		{0, GUEST_CR4_PKE, 0, false, false, true},
	};

	for (unsigned int i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct spaces t;

		fixture(&t, GUEST_CR4_PCIDE | cases[i].before);
		for (unsigned int s = 0; s < 3; s++) {
			load(&t, 0, s, (s ? 1 : 2) | NOFLUSH);
			expect_eq(load_page(&t, 0, 0), value(s, 0, 0));
			edit(&t, s, 0, 1);
		}
		set_cr4(&t, 0, cases[i].on, cases[i].off);
		if (cases[i].back)
			set_cr4(&t, 0, cases[i].off, cases[i].on);
		for (unsigned int s = 0; s < 3; s++) {
			bool flushed = cases[i].all || (s && cases[i].pcid);

			load(&t, 0, s, (s ? 1 : 2) | NOFLUSH);
			expect_eq(load_page(&t, 0, 0), value(s, 0, flushed));
		}
		destroy(&t);
	}
}

/* ---- what a flush waits for ---- */

struct stall {
	struct spaces *t;
	struct park park; /* the first shootdown */
	atomic_t shootdowns;
	atomic_t loaded;
};

static void stall_first(void *arg, const pfn_t *frames, size_t nr)
{
	struct stall *stall = arg;

	(void)frames;
	(void)nr;
	if (atomic_inc_return(&stall->shootdowns) == 1)
		park_enter(&stall->park);
}

static void flush_on_1(void *arg)
{
	load(((struct stall *)arg)->t, 1, 0, 1);
}

static void flush_on_0(void *arg)
{
	struct stall *stall = arg;

	load(stall->t, 0, 0, 1);
	atomic_inc(&stall->loaded);
}

/*
 *   vCPU 0                              vCPU 1, on the same root
 *   ------                              ------
 *   remembers a page of it
 *                                       loads CR3: clears all
 *                                         (not shot down yet)
 *   loads CR3: finds nothing to clear
 *     must wait, or it goes on with what
 *     it remembers
 */
TEST(root_cache, a_flush_that_finds_nothing_waits)
{
	struct spaces t;
	struct stall stall = {.t = &t};
	struct kthread first, second;

	fixture(&t, GUEST_CR4_PCIDE);
	load(&t, 1, 0, 1);
	load(&t, 0, 0, 1);
	expect_eq(load_page(&t, 0, 0), value(0, 0, 0));
	edit(&t, 0, 0, 1);
	park_init(&stall.park);
	model_set_shootdown_hook(t.g.model, stall_first, &stall);
	expect_eq(kthread_run(&first, "first", flush_on_1, &stall), 0);
	park_wait(&stall.park, 1);

	/* What promises nothing waits for nobody. */
	load(&t, 0, 1, 2 | NOFLUSH);
	load(&t, 0, 0, 1 | NOFLUSH);
	expect_eq(kthread_run(&second, "second", flush_on_0, &stall), 0);
	until_others_sleep();
	expect_eq(atomic_read(&stall.loaded), 0);
	park_release(&stall.park);
	kthread_join(&first);
	kthread_join(&second);
	expect_eq(load_page(&t, 0, 0), value(0, 0, 1));
	destroy(&t);
}

/* ---- roots of no memory ---- */

#define FAR (1UL << 30) /* no slot is there, yet */

static void add_far_slot(struct spaces *t)
{
	expect_eq(shadow_create_memslot(t->g.shadow, 1, FAR >> PAGE_SHIFT, t->g.nr_pages,
					GUEST_MEM_HVA),
		  0);
}

TEST(dummy_root, of_no_memory)
{
	struct shadow_stats before;
	struct spaces t;
	uint32_t code;

	fixture(&t, 0);
	expect_eq(shadow_load_cr3(t.g.shadow, 0, FAR + t.cr3[0]), 0);
	expect(root_is_dummy(t.g.shadow->vcpu[0].root));
	before = stats_of(&t);
	for (int i = 0; i < 3; i++) {
		expect_eq(guest_try(&t.g, 0, MODEL_STORE, GVA, &code), RET_PF_GUEST);
		expect_eq(code, PFERR_WRITE);
	}
	/* Another such CR3 is another root to keep, and the same page. */
	expect_eq(shadow_load_cr3(t.g.shadow, 1, FAR + t.cr3[1]), 0);
	expect_eq(t.g.shadow->vcpu[0].root, t.g.shadow->vcpu[1].root);
	shadow_invlpg(t.g.shadow, 0, GVA);
	expect_eq(stats_of(&t).sptes_zapped, before.sptes_zapped);
	/* There is memory, and each has its own. */
	add_far_slot(&t);
	expect_eq(load_page(&t, 0, 0), value(0, 0, 0));
	expect_eq(load_page(&t, 1, 0), value(1, 0, 0));
	expect(!root_is_dummy(t.g.shadow->vcpu[0].root));
	destroy(&t);
}

/* A kept one is not gone back to, either. */
TEST(dummy_root, kept)
{
	struct spaces t;

	fixture(&t, GUEST_CR4_PCIDE);
	expect_eq(shadow_load_cr3(t.g.shadow, 0, FAR + t.cr3[0]), 0);
	load(&t, 0, 1, 1);
	add_far_slot(&t);
	expect_eq(shadow_load_cr3(t.g.shadow, 0, (FAR + t.cr3[0]) | NOFLUSH), 0);
	expect(!root_is_dummy(t.g.shadow->vcpu[0].root));
	expect_eq(load_page(&t, 0, 0), value(0, 0, 0));
	destroy(&t);
}

struct leaver {
	struct spaces *t;
	struct park park;
	atomic_t loads;
};

static void hold_first(void *arg)
{
	struct leaver *leaver = arg;

	if (atomic_inc_return(&leaver->loads) == 1)
		park_enter(&leaver->park);
}

static void leave(void *arg)
{
	struct shadow_fault fault;

	expect_eq(guest_fault(&((struct leaver *)arg)->t->g, 0, GVA, 0, &fault), RET_PF_FIXED);
}

/* Two CPUs are on a dummy when its slot comes, and leave it at once; the one has taken its root,
 * and not loaded it. */
TEST(dummy_root, lets_go_once_the_cpu_is_off_it)
{
	struct spaces t;
	struct leaver leaver = {.t = &t};
	struct shadow_fault fault;
	struct kthread thread;

	fixture(&t, 0);
	for (unsigned int vcpu = 0; vcpu < 2; vcpu++)
		expect_eq(shadow_load_cr3(t.g.shadow, vcpu, FAR + t.cr3[vcpu]), 0);
	add_far_slot(&t);
	park_init(&leaver.park);
	shadow_set_hook(t.g.shadow, SHADOW_HOOK_ROOT_BEFORE_LOAD, hold_first, &leaver);
	expect_eq(kthread_run(&thread, "leaver", leave, &leaver), 0);
	park_wait(&leaver.park, 1);
	expect_eq(guest_fault(&t.g, 1, GVA, 0, &fault), RET_PF_FIXED);
	park_release(&leaver.park);
	kthread_join(&thread);
	expect_eq(load_page(&t, 0, 0), value(0, 0, 0));
	expect_eq(load_page(&t, 1, 0), value(1, 0, 0));
	destroy(&t);
}

/* A slot goes, and with it whatever is kept; one that held the tables leaves dummies. */
TEST(dummy_root, slots_that_go)
{
	const struct memslot_region gone = {.id = 1};

	for (int policy = SHADOW_ZAP_ALL; policy <= SHADOW_ZAP_SLOT; policy++) {
		struct spaces t;

		fixture(&t, GUEST_CR4_PCIDE);
		shadow_set_zap_policy(t.g.shadow, policy);
		add_far_slot(&t);
		for (unsigned int s = 0; s < 3; s++) {
			expect_eq(shadow_load_cr3(t.g.shadow, 0, (FAR + t.cr3[s]) | s), 0);
			expect_eq(load_page(&t, 0, 0), value(s, 0, 0));
		}
		expect_eq(shadow_set_memslot(t.g.shadow, &gone), 0);
		for (unsigned int s = 2; s < 3; s--) {
			expect_eq(shadow_load_cr3(t.g.shadow, 0, (FAR + t.cr3[s]) | s | NOFLUSH),
				  0);
			expect_eq(guest_try(&t.g, 0, MODEL_LOAD, GVA, NULL), RET_PF_GUEST);
			expect(root_is_dummy(t.g.shadow->vcpu[0].root));
		}
		/* The tables are elsewhere now, and say something else. */
		edit(&t, 0, 0, 1);
		add_far_slot(&t);
		expect_eq(load_page(&t, 0, 0), value(0, 0, 1));
		for (unsigned int s = 1; s < 3; s++) {
			expect_eq(shadow_load_cr3(t.g.shadow, 0, (FAR + t.cr3[s]) | s | NOFLUSH),
				  0);
			expect_eq(load_page(&t, 0, 0), value(s, 0, 0));
		}
		destroy(&t);
	}
}

/* Everything became obsolete while a vCPU was in the guest: what is kept of that is not come back
 * to, and what the guest invalidates is gone. */
TEST(root_cache, obsolete_roots)
{
	for (int how = 0; how < 3; how++) {
		struct shadow_page *root;
		struct spaces t;

		fixture(&t, GUEST_CR4_PCIDE);
		load(&t, 0, 1, 1);
		expect_eq(load_page(&t, 0, 0), value(1, 0, 0));
		load(&t, 0, 0, 0);
		expect_eq(load_page(&t, 0, 0), value(0, 0, 0));
		root = t.g.shadow->vcpu[0].root;
		spin_lock(&t.g.shadow->mmu_lock);
		t.g.shadow->gen++;
		spin_unlock(&t.g.shadow->mmu_lock);
		/* Not zapped yet, so its TLB still has the page. */
		edit(&t, 0, 0, 1);
		EXPECT_KEPT(&t, 0, 0, 0);
		if (how == 0)
			shadow_invlpg(t.g.shadow, 0, GVA);
		else if (how == 1)
			expect_eq(shadow_invpcid(t.g.shadow, 0, INVPCID_CONTEXT, 0, 0), 0);
		else
			load(&t, 0, 0, 0);
		expect_eq(load_page(&t, 0, 0), value(0, 0, 1));
		expect_ne(t.g.shadow->vcpu[0].root, root);
		load(&t, 0, 1, 1 | NOFLUSH);
		expect_eq(load_page(&t, 0, 0), value(1, 0, 0));
		shadow_zap_obsolete(t.g.shadow);
		destroy(&t);
	}
}

static void slot_maker(void *arg)
{
	add_far_slot(arg);
}

struct slot_race {
	struct spaces *t;
	struct kthread maker;
	bool made;
};

/* It is published while we fault, and its maker waits for us. */
static void slot_appears(void *arg)
{
	struct slot_race *race = arg;

	if (race->made)
		return;
	race->made = true;
	expect_eq(kthread_run(&race->maker, "slot", slot_maker, race->t), 0);
	while (!gfn_to_memslot(shadow_memslots(race->t->g.shadow), FAR >> PAGE_SHIFT))
		sched_yield();
}

/*
 *   fault                                     who makes a slot
 *   -----                                     ----------------
 *   the root is a dummy, and there is no slot
 *                                             publishes the slot
 *   walks the guest's tables, which are there
 *   mmu_lock; the root is a dummy: RETRY
 *     (without the check: entries below a root of no gfn, which other CR3s share)
 */
TEST(dummy_root, slot_appears_under_the_fault)
{
	struct spaces t;
	struct slot_race race = {.t = &t};
	struct shadow_fault fault;

	fixture(&t, 0);
	expect_eq(shadow_load_cr3(t.g.shadow, 0, FAR + t.cr3[0]), 0);
	expect_eq(shadow_load_cr3(t.g.shadow, 1, FAR + t.cr3[1]), 0);
	shadow_set_hook(t.g.shadow, SHADOW_HOOK_FAULT_BEFORE_WALK, slot_appears, &race);
	expect_eq(guest_fault(&t.g, 0, GVA, 0, &fault), RET_PF_RETRY);
	kthread_join(&race.maker);
	expect_eq(guest_fault(&t.g, 0, GVA, 0, &fault), RET_PF_FIXED);
	expect_eq(load_page(&t, 0, 0), value(0, 0, 0));
	expect_eq(load_page(&t, 1, 0), value(1, 0, 0));
	destroy(&t);
}
