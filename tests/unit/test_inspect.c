/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The shadow tables as text: what a small guest's are, word for word. */
#include <errno.h>

#include "notifier/sync/thread.h"
#include "tests/support/audit_fixture.h"
#include "tests/support/fail_alloc.h"
#include "tests/support/sink.h"

#define READ_ONLY (GVA + 4 * PAGE_SIZE)

static const struct guest_mem_config config = {.no_identity = true, .audit = true, .nr_cpus = 2};

static struct sink sink;

static void dump(struct guest_mem *g)
{
	sink_clear(&sink);
	expect_eq(shadow_dump(g->shadow, sink_line, &sink), 0);
}

static pfn_t frame_of(struct guest_mem *g, gpa_t gpa)
{
	return mm_lookup_pfn(g->mm, guest_hva(gpa));
}

/* Guest pages from @gpa on are in frames that follow each other. */
static void touch_in_order(struct guest_mem *g, gpa_t gpa, unsigned int nr)
{
	for (unsigned int i = 0; i < nr; i++) {
		guest_write(g, gpa + i * PAGE_SIZE, 1);
		expect_eq(frame_of(g, gpa + i * PAGE_SIZE), frame_of(g, gpa) + i);
	}
}

static void map(struct guest_mem *g, gva_t gva, gpa_t gpa, uint64_t flags)
{
	guest_map(g, g->cr3, gva, gpa, flags);
	expect_eq(guest_load(g, 0, gva), 1);
}

TEST(inspect, nothing_is_mapped)
{
	struct guest_mem g;

	guest_mem_create(&g, &config);
	dump(&g);
	expect_text(&sink,
		    "root gfn 0x3f frame %#lx, supervisor wp nx, vCPU 0 1\n"
		    "tables: 1, pages: 0\n",
		    page_at(&g, 4)->table);
	guest_mem_destroy(&g);
}

/* A table that the host has emptied stays, and is no line of pages. */
TEST(inspect, a_table_of_nothing)
{
	struct guest_mem g;

	guest_mem_create(&g, &config);
	guest_write(&g, PAGE, 1);
	map(&g, GVA, PAGE, GUEST_PTE_RW);
	expect_eq(mm_zap_range(g.mm, guest_hva(PAGE), PAGE_SIZE), 1);
	dump(&g);
	expect_str_contains(sink.text, " wux unsync\ntables: 4, pages: 0\n");
	guest_mem_destroy(&g);
}

/* Leaves that follow each other in all three spaces, with the same rights, are a line. */
TEST(inspect, what_follows_is_one_line)
{
	struct guest_mem g;
	pfn_t frame;

	guest_mem_create(&g, &config);
	touch_in_order(&g, PAGE, 7);
	frame = frame_of(&g, PAGE);
	for (unsigned int i = 0; i < 4; i++)
		map(&g, GVA + i * PAGE_SIZE, PAGE + i * PAGE_SIZE, GUEST_PTE_P | GUEST_PTE_NX);
	guest_map(&g, g.cr3, GVA + PAGE_SIZE, PAGE + PAGE_SIZE, GUEST_PTE_RW | GUEST_PTE_NX);
	guest_store(&g, 0, GVA + PAGE_SIZE, 1);
	map(&g, READ_ONLY, PAGE + 4 * PAGE_SIZE, GUEST_PTE_P);		   /* other rights */
	map(&g, READ_ONLY + PAGE_SIZE, PAGE + 6 * PAGE_SIZE, GUEST_PTE_P); /* another page */
	map(&g, READ_ONLY + 3 * PAGE_SIZE, PAGE, GUEST_PTE_P);		   /* beyond a gap */
	map(&g, READ_ONLY + 4 * PAGE_SIZE, PAGE + PAGE_SIZE, GUEST_PTE_P);

	dump(&g);
	expect_text(
		&sink,
		"root gfn 0x3f frame %#lx, supervisor wp nx, vCPU 0 1\n"
		"  level 3 0x0000000000000000 gfn 0x3e frame %#lx wux\n"
		"    level 2 0x0000000000000000 gfn 0x3d frame %#lx wux\n"
		"      level 1 0x0000000010000000 gfn 0x3c frame %#lx wux unsync\n"
		"        0x0000000010000000-0x0000000010000fff gfn 0x3 frame %#lx r--\n"
		"        0x0000000010001000-0x0000000010001fff gfn 0x4 frame %#lx rw-\n"
		"        0x0000000010002000-0x0000000010003fff gfn 0x5-0x6 frame %#lx-%#lx r--\n"
		"        0x0000000010004000-0x0000000010004fff gfn 0x7 frame %#lx r-x\n"
		"        0x0000000010005000-0x0000000010005fff gfn 0x9 frame %#lx r-x\n"
		"        0x0000000010007000-0x0000000010008fff gfn 0x3-0x4 frame %#lx-%#lx r-x\n"
		"tables: 4, pages: 8\n",
		page_at(&g, 4)->table, page_at(&g, 3)->table, page_at(&g, 2)->table,
		page_at(&g, 1)->table, frame, frame + 1, frame + 2, frame + 3, frame + 4, frame + 6,
		frame, frame + 1);

	/* A sync protects the guest's table of leaves, if there is nothing to be done. */
	expect_eq(shadow_load_cr3(g.shadow, 0, g.cr3), 0);
	dump(&g);
	expect(!strstr(sink.text, "unsync"));
	/* The frame is another: no more a line with the one before. */
	expect_eq(mm_migrate_range(g.mm, guest_hva(PAGE + 3 * PAGE_SIZE), PAGE_SIZE), 1);
	expect_eq(guest_load(&g, 0, GVA + 3 * PAGE_SIZE), 1);
	dump(&g);
	expect_str_contains(sink.text, "-0x0000000010002fff gfn 0x5 frame");
	expect_str_contains(sink.text, "-0x0000000010003fff gfn 0x6 frame");
	guest_mem_destroy(&g);
}

TEST(inspect, large_pages_views_and_the_machines_own)
{
	const struct guest_mem_config many = {
		.no_identity = true, .audit = true, .nr_cpus = 3, .levels = 5, .reserve_slot = 256};
	const gva_t high = -(2UL << 30);
	struct guest_cpu cpu;
	struct guest_mem g;
	pfn_t supervisor, user, kept;

	guest_mem_create(&g, &many);
	kept = g.shadow->vcpu[0].root->table;
	guest_write(&g, guest_pte_gpa(&g, g.cr3, high, 2),
		    GUEST_PTE_RW | GUEST_PTE_PS | GUEST_PTE_U | 5UL << 59);
	guest_write(&g, PAGE, 1);
	cpu = *shadow_get_cpu(g.shadow, 0);
	cpu.cr4 |= GUEST_CR4_PKE | GUEST_CR4_SMEP | GUEST_CR4_SMAP;
	cpu.pkru = 0x4;
	cpu.ac = true;
	expect_eq(shadow_set_cpu(g.shadow, 0, &cpu), 0);
	cpu.user = true;
	expect_eq(shadow_set_cpu(g.shadow, 1, &cpu), 0);
	expect_eq(shadow_set_cpu(g.shadow, 2, &cpu), 0);
	guest_store(&g, 0, high + PAGE, 2);
	supervisor = g.shadow->vcpu[0].root->table;
	user = g.shadow->vcpu[1].root->table;

	dump(&g);
	expect_text(&sink,
		    "root gfn 0x3f frame %#lx, supervisor wp nx smep pkru 0x4, vCPU 0\n"
		    "  0xff00000000000000-0xff00ffffffffffff the machine's own\n"
		    "  level 4 0xffff000000000000 gfn 0x3e frame %#lx wux\n"
		    "    level 3 0xffffff8000000000 gfn 0x3d frame %#lx wux\n"
		    "      level 2 0xffffffff80000000 gfn 0x3c frame %#lx wux\n"
		    "        level 1 0xffffffff80000000 gfn 0 frame %#lx wux direct dirty key 5\n"
		    "          0xffffffff80003000-0xffffffff80003fff gfn 0x3 frame %#lx rw-\n"
		    "root gfn 0x3f frame %#lx, user wp nx pkru 0x4, vCPU 1 2\n"
		    "  0xff00000000000000-0xff00ffffffffffff the machine's own\n"
		    "root gfn 0x3f frame %#lx, supervisor wp nx, kept\n"
		    "  0xff00000000000000-0xff00ffffffffffff the machine's own\n"
		    "tables: 7, pages: 1\n",
		    supervisor, page_of(&g, high, 4)->table, page_of(&g, high, 3)->table,
		    page_of(&g, high, 2)->table, page_of(&g, high, 1)->table, frame_of(&g, PAGE),
		    user, kept);
	guest_mem_destroy(&g);
}

TEST(inspect, a_root_of_no_memory)
{
	const struct guest_mem_config empty = {.no_identity = true};
	struct guest_mem g;

	guest_mem_create(&g, &empty);
	expect_eq(shadow_load_cr3(g.shadow, 0, 1UL << 30), 0);
	dump(&g);
	expect_text(&sink,
		    "root of no memory, frame %#lx, supervisor wp nx, vCPU 0\n"
		    "root gfn 0x3f frame %#lx, supervisor wp nx, kept\n"
		    "tables: 2, pages: 0\n",
		    g.shadow->vcpu[0].root->table, g.shadow->vcpu[0].roots[1].root->table);
	guest_mem_destroy(&g);
}

/* More lines than there was room for at first: counted, and looked at again. */
TEST(inspect, as_many_lines_as_it_takes)
{
	const struct guest_mem_config large = {.no_identity = true, .nr_pages = 512};
	const unsigned int nr = 400;
	struct guest_mem g;

	guest_mem_create(&g, &large);
	for (unsigned int i = 0; i < nr; i++) {
		guest_map(&g, g.cr3, GVA + i * PAGE_SIZE, (nr - i) * PAGE_SIZE, GUEST_PTE_P);
		expect_eq(guest_load(&g, 0, GVA + i * PAGE_SIZE), 0);
	}
	dump(&g);
	expect_eq(sink.nr_lines, 4 + nr + 1);
	expect_str_contains(sink.text, "gfn 0x190 frame");
	expect_str_contains(sink.text, "gfn 0x1 frame");
	expect_str_contains(sink.text, "\ntables: 4, pages: 400\n");
	guest_mem_destroy(&g);
}

TEST(inspect, out_of_memory)
{
	const struct guest_mem_config large = {.nr_pages = 512};
	unsigned int failed = 0;
	struct guest_mem g;
	int64_t live;

	guest_mem_create(&g, &large);
	for (gpa_t gpa = 400 * PAGE_SIZE; gpa; gpa -= PAGE_SIZE)
		guest_store(&g, 0, gpa, 1);
	for (gpa_t gpa = 0; gpa < 400 * PAGE_SIZE; gpa += 2 * PAGE_SIZE)
		shadow_invlpg(g.shadow, 0, gpa);
	live = atomic64_read(&allocs.live);
	for (int site = 0;; site++) {
		int ret;

		sink_clear(&sink);
		alloc_fail_at(site);
		ret = shadow_dump(g.shadow, sink_line, &sink);
		expect_eq(atomic64_read(&allocs.live), live);
		if (!alloc_failed()) {
			expect_eq(ret, 0);
			break;
		}
		expect_eq(ret, -ENOMEM);
		expect_eq(sink.nr_lines, 0);
		failed++;
	}
	expect_ge(failed, 1);
	guest_mem_destroy(&g);
}

/* --- while vCPUs run --- */

struct busy {
	struct guest_mem *g;
	atomic_t stop;
	uint64_t rounds;
};

/* Faults, loads of CR3, another view, and the host that moves what is mapped. */
static void busy_vcpu(void *arg)
{
	struct busy *busy = arg;
	struct guest_mem *g = busy->g;

	while (!atomic_read(&busy->stop)) {
		struct guest_cpu cpu = *shadow_get_cpu(g->shadow, 0);

		cpu.user = !cpu.user;
		cpu.ac = busy->rounds & 2;
		expect_eq(shadow_set_cpu(g->shadow, 0, &cpu), 0);
		guest_load(g, 0, GVA);
		cpu.ac = !cpu.ac;
		expect_eq(shadow_set_cpu(g->shadow, 0, &cpu), 0);
		expect_eq(shadow_load_cr3(g->shadow, 0, g->cr3), 0);
		guest_load(g, 0, GVA + PAGE_SIZE);
		expect_ge(mm_migrate_range(g->mm, guest_hva(PAGE), PAGE_SIZE), 0);
		WRITE_ONCE(busy->rounds, busy->rounds + 1);
	}
}

TEST(inspect, while_a_vcpu_runs)
{
	struct busy busy = {.rounds = 0};
	struct kthread thread;
	struct guest_mem g;
	unsigned int looks = 0, full = 0;

	guest_mem_create(&g, &config);
	guest_map(&g, g.cr3, GVA, PAGE, GUEST_PTE_RW | GUEST_PTE_U);
	guest_map(&g, g.cr3, GVA + PAGE_SIZE, PAGE + PAGE_SIZE, GUEST_PTE_RW | GUEST_PTE_U);
	busy.g = &g;
	expect_eq(kthread_run(&thread, "vcpu", busy_vcpu, &busy), 0);
	while (READ_ONCE(busy.rounds) < 200 || full < 20) {
		dump(&g);
		expect_str_contains(sink.text, "root gfn 0x3f frame");
		full += sink.nr_lines > 4;
		sink_clear(&sink);
		shadow_explain(g.shadow, 0, GVA, sink_line, &sink);
		expect_str_contains(sink.text, "guest  level 1 gfn 0x3c entry 0 is");
		looks++;
	}
	atomic_set(&busy.stop, 1);
	kthread_join(&thread);
	expect_ge(looks, 20);
	guest_mem_destroy(&g);
}
