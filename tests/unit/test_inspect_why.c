/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One address explained: entry by entry, word for word; and the verdicts, each of which is then put
 * to the test by the access itself.
 */
#include "tests/support/audit_fixture.h"
#include "tests/support/hoard.h"
#include "tests/support/sink.h"

#define NOT_HERE (GVA + 8 * PAGE_SIZE)
#define OTHER	 (GVA + (1UL << 21))

static const struct guest_mem_config config = {.no_identity = true, .audit = true};

static struct sink sink;

static void explain(struct guest_mem *g, gva_t gva)
{
	sink_clear(&sink);
	shadow_explain(g->shadow, 0, gva, sink_line, &sink);
}

/* What is said of the last line, behind "so     ". */
static const char *verdict(struct guest_mem *g, gva_t gva)
{
	const char *so;

	explain(g, gva);
	so = strstr(sink.text, "so     ");
	expect(so);
	expect_eq(strchr(so, '\n') - so + 1, strlen(so));
	return so + strlen("so     ");
}

TEST(inspect_why, entry_by_entry)
{
	struct shadow_page *sp[5];
	struct guest_mem g;
	pfn_t frame;

	fixture(&g, &config);
	frame = mm_lookup_pfn(g.mm, guest_hva(PAGE));
	for (int level = 1; level <= 4; level++)
		sp[level] = page_at(&g, level);
	explain(&g, GVA + 0x18);
	expect_text(&sink,
		    "gva    0x10000018 on vCPU 0, cr3 0x3f000\n"
		    "guest  level 4 gfn 0x3f entry 0 is 0x3e027 P W U A, table gfn 0x3e\n"
		    "guest  level 3 gfn 0x3e entry 0 is 0x3d027 P W U A, table gfn 0x3d\n"
		    "guest  level 2 gfn 0x3d entry 128 is 0x3c027 P W U A, table gfn 0x3c\n"
		    "guest  level 1 gfn 0x3c entry 0 is 0x3063 P W A D, page gfn 0x3\n"
		    "slot   0 gfn 0-0x3f at hva 0x100000000\n"
		    "host   area 0x100000000-0x10003ffff rw shared, page 0x3 of an object\n"
		    "host   hva 0x100003018 entry is %#lx, frame %#lx rw accessed dirty\n"
		    "shadow supervisor wp nx, vCPU 0\n"
		    "shadow level 4 gfn 0x3f frame %#lx entry 0 is %#lx, table frame %#lx\n"
		    "shadow level 3 gfn 0x3e frame %#lx entry 0 is %#lx, table frame %#lx\n"
		    "shadow level 2 gfn 0x3d frame %#lx entry 128 is %#lx, table frame %#lx\n"
		    "shadow level 1 gfn 0x3c frame %#lx entry 0 is %#lx, frame %#lx rwx\n"
		    "so     a read works; a write works; a fetch works\n",
		    frame << PAGE_SHIFT | 0xe7, frame, sp[4]->table, sp[4]->spt[0], sp[3]->table,
		    sp[3]->table, sp[3]->spt[0], sp[2]->table, sp[2]->table, sp[2]->spt[128],
		    sp[1]->table, sp[1]->table, sp[1]->spt[0], frame);
	destroy(&g);
}

/* Two views, the vCPU's own first; and how far one that has less reaches. */
TEST(inspect_why, every_view_of_the_tables)
{
	const struct guest_mem_config two = {.no_identity = true, .audit = true, .nr_cpus = 2};
	struct guest_cpu cpu;
	struct guest_mem g;

	fixture(&g, &two);
	cpu = *shadow_get_cpu(g.shadow, 1);
	cpu.user = true;
	expect_eq(shadow_set_cpu(g.shadow, 1, &cpu), 0);
	explain(&g, GVA);
	expect_str_contains(sink.text, " rwx\nshadow user wp nx, vCPU 1\nshadow level 4 gfn 0x3f");
	expect_str_contains(sink.text, " entry 0 is 0\nso     a read works");
	sink_clear(&sink);
	shadow_explain(g.shadow, 1, GVA, sink_line, &sink);
	expect_str_contains(sink.text, "shadow user wp nx, vCPU 1\nshadow level 4 gfn 0x3f");
	expect_str_contains(sink.text,
			    " rwx\nso     a read is the guest's fault, #PF 0x5: no right to "
			    "it; a write is the guest's fault, #PF 0x7: no right to it; a "
			    "fetch is the guest's fault, #PF 0x15: no right to it\n");
	/* Of other tables nothing is told. */
	expect_eq(shadow_load_cr3(g.shadow, 0, guest_new_table(&g)), 0);
	explain(&g, GVA);
	expect(!strstr(sink.text, "shadow user"));
	destroy(&g);
}

TEST(inspect_why, the_guests_faults)
{
	struct guest_mem g;

	fixture(&g, &config);
	expect_str_contains(
		verdict(&g, NOT_HERE),
		"a read is the guest's fault, #PF 0: not present at level 1; a write is "
		"the guest's fault, #PF 0x2: not present at level 1; a fetch is the "
		"guest's fault, #PF 0x10: not present at level 1");
	expect_str_contains(verdict(&g, 1UL << 40), "not present at level 4");
	destroy(&g);
}

TEST(inspect_why, the_guests_faults_of_rights)
{
	struct guest_cpu cpu;
	struct guest_mem g;

	fixture(&g, &config);
	guest_map(&g, g.cr3, NOT_HERE, PAGE, GUEST_PTE_P | GUEST_PTE_NX | 3UL << 59);
	expect_str_contains(verdict(&g, NOT_HERE),
			    "a write is the guest's fault, #PF 0x3: no right to it; a fetch is the "
			    "guest's fault, #PF 0x11: no right to it");

	cpu = *shadow_get_cpu(g.shadow, 0);
	cpu.maxphyaddr = 40;
	cpu.cr4 |= GUEST_CR4_PKE;
	cpu.pkru = 1u << 6; /* AD of key 3 */
	cpu.user = true;
	expect_eq(shadow_set_cpu(g.shadow, 0, &cpu), 0);
	guest_map(&g, g.cr3, NOT_HERE, PAGE, GUEST_PTE_P | GUEST_PTE_U | 3UL << 59);
	expect_str_contains(verdict(&g, NOT_HERE),
			    "a read is the guest's fault, #PF 0x25: the key forbids it");
	expect_str_contains(sink.text, "P U key 3, page gfn 0x3\n");
	expect_str_contains(sink.text, "a fetch kills the guest: no entry can say execute-only");

	guest_map(&g, g.cr3, NOT_HERE, 1UL << 41, GUEST_PTE_P | GUEST_PTE_U);
	expect_str_contains(verdict(&g, NOT_HERE),
			    "a read is the guest's fault, #PF 0xd: a reserved bit at level 1");
	guest_mem_destroy(&g);
}

TEST(inspect_why, no_memory_for_a_table_or_a_page)
{
	struct guest_mem g;

	fixture(&g, &config);
	guest_map(&g, g.cr3, NOT_HERE, 1UL << 30, GUEST_PTE_RW);
	expect_str_contains(verdict(&g, NOT_HERE),
			    "a read goes to a device, if there is one; a write goes to");
	expect_str_contains(sink.text, "slot   none at gfn 0x40000\n");
	expect_eq(guest_try(&g, 0, MODEL_LOAD, NOT_HERE, NULL), RET_PF_EMULATE);

	guest_write(&g, guest_pte_gpa(&g, g.cr3, 1UL << 30, 3), (1UL << 30) | GUEST_PTE_RW);
	expect_str_contains(verdict(&g, 1UL << 30),
			    "a read is the guest's fault, #PF 0: no table at level 2");
	expect_str_contains(sink.text, "guest  level 2 gfn 0x40000 is in no slot\n");
	expect_eq(guest_try(&g, 0, MODEL_LOAD, 1UL << 30, NULL), RET_PF_GUEST);

	expect_eq(shadow_load_cr3(g.shadow, 0, 1UL << 30), 0);
	expect_str_contains(verdict(&g, GVA),
			    "a read is the guest's fault, #PF 0: no table at level 4");
	expect_str_contains(sink.text, "guest  level 4 gfn 0x40000 is in no slot\n");
	guest_mem_destroy(&g);
}

/* A slot while it is on its way: what a fault would find in the meantime. */
static void look_meanwhile(void *arg)
{
	struct guest_mem *g = arg;

	expect_str_contains(
		verdict(g, NOT_HERE),
		"a read faults until the slot is moved or deleted; a write faults until");
	expect_str_contains(sink.text,
			    "slot   1 gfn 0x1000-0x1007 at hva 0x6000000000 being moved or "
			    "deleted\n");
	guest_write(g, guest_pte_gpa(g, g->cr3, OTHER, 2), (0x1000UL << PAGE_SHIFT) | GUEST_PTE_RW);
	expect_str_contains(verdict(g, OTHER),
			    "a read faults: the slot of a table of the guest's is being moved");
	expect_str_contains(sink.text,
			    "guest  level 1 gfn 0x1000 is in a slot that is being moved or "
			    "deleted\n");
}

TEST(inspect_why, slots_that_change)
{
	struct memslot_region rom = {.id = 1,
				     .flags = MEMSLOT_READONLY,
				     .base_gfn = 0x1000,
				     .npages = 8,
				     .hva = 0x6000000000UL};
	struct guest_mem g;

	fixture(&g, &config);
	expect_eq(mm_mmap(g.mm, rom.hva, 8 * PAGE_SIZE, MM_PROT_READ | MM_PROT_WRITE, NULL, 0), 0);
	expect_eq(shadow_set_memslot(g.shadow, &rom), 0);
	guest_map(&g, g.cr3, NOT_HERE, 0x1001UL << PAGE_SHIFT, GUEST_PTE_RW);
	guest_load(&g, 0, NOT_HERE);
	expect_str_contains(verdict(&g, NOT_HERE),
			    "a read works; a write goes to a device, if there is one");
	expect_str_contains(sink.text, "at hva 0x6000000000 read-only\n");
	expect_eq(guest_try(&g, 0, MODEL_STORE, NOT_HERE, NULL), RET_PF_EMULATE);

	rom.flags = 0;
	expect_eq(shadow_set_memslot(g.shadow, &rom), 0);
	shadow_set_hook(g.shadow, SHADOW_HOOK_SLOT_AFTER_ZAP, look_meanwhile, &g);
	rom.base_gfn = 0x2000;
	expect_eq(shadow_set_memslot(g.shadow, &rom), 0);
	shadow_set_hook(g.shadow, SHADOW_HOOK_SLOT_AFTER_ZAP, NULL, NULL);
	expect_str_contains(verdict(&g, NOT_HERE), "a read goes to a device, if there is one");
	expect_str_contains(verdict(&g, OTHER), "no table at level 1");
	destroy(&g);
}

TEST(inspect_why, slot_that_is_logged)
{
	struct memslot_region ram = {.npages = 0, .hva = GUEST_MEM_HVA};
	struct guest_mem g;

	fixture(&g, &config);
	ram.npages = g.nr_pages;
	guest_store(&g, 0, GVA, 1);
	ram.flags = MEMSLOT_LOG_DIRTY;
	expect_eq(shadow_set_memslot(g.shadow, &ram), 0);
	expect_str_contains(verdict(&g, GVA),
			    "a read works; a write faults once: the page is clean, and its slot "
			    "logged");
	expect_str_contains(sink.text, "at hva 0x100000000 logged\n");
	guest_store(&g, 0, GVA, 1);
	expect_str_contains(verdict(&g, GVA), "a read works; a write works");
	destroy(&g);
}

/* A store to a table is seen, so that what came of it goes: by us, or by the guest itself. */
TEST(inspect_why, tables_of_the_guests)
{
	struct shadow_fault fault;
	struct guest_mem g;
	gpa_t table;

	fixture(&g, &config);
	table = guest_pte_gpa(&g, g.cr3, GVA, 2) & PAGE_MASK;
	guest_map(&g, g.cr3, NOT_HERE, table, GUEST_PTE_RW | 0x60);
	guest_load(&g, 0, NOT_HERE);
	expect_str_contains(verdict(&g, NOT_HERE),
			    "a read works; a write is carried out for the guest: the page is a "
			    "table of its own; a fetch works");
	expect_str_contains(sink.text, "shadow gfn 0x3d is a table of level 2, in step\nso ");
	expect_eq(guest_fault(&g, 0, NOT_HERE, PFERR_WRITE, &fault), RET_PF_WRITE_PROTECTED);

	table = guest_pte_gpa(&g, g.cr3, GVA, 1) & PAGE_MASK;
	guest_map(&g, g.cr3, NOT_HERE, table, GUEST_PTE_RW | 0x60);
	expect_eq(shadow_load_cr3(g.shadow, 0, g.cr3), 0);
	guest_load(&g, 0, NOT_HERE);
	expect_str_contains(
		verdict(&g, NOT_HERE),
		"a read works; a write faults once: a table of the guest's comes out of "
		"step; a fetch works");
	expect_str_contains(sink.text, "shadow gfn 0x3c is a table of level 1, in step\nso ");
	guest_store(&g, 0, NOT_HERE + 8 * 100, 0);
	expect_str_contains(verdict(&g, NOT_HERE), "a write works");
	expect(!strstr(sink.text, "in step"));
	destroy(&g);
}

/* The faults that are the host's, and what one access makes of each. */
TEST(inspect_why, faults_that_come_once)
{
	struct guest_mem g;

	fixture(&g, &config);
	guest_map(&g, g.cr3, NOT_HERE, PAGE, GUEST_PTE_RW);
	expect_str_contains(
		verdict(&g, NOT_HERE),
		"a read faults once: the shadow has nothing at level 1; a write faults "
		"once: the guest's D bit has to be set; a fetch faults once: the shadow has "
		"nothing");
	guest_load(&g, 0, NOT_HERE);
	expect_str_contains(verdict(&g, NOT_HERE),
			    "a read works; a write faults once: the guest's D bit has to be set");
	guest_write(&g, guest_pte_gpa(&g, g.cr3, NOT_HERE, 1), PAGE | 0x63);
	expect_str_contains(verdict(&g, NOT_HERE),
			    "a read works; a write faults once: the shadow's entry has too little");
	guest_store(&g, 0, NOT_HERE, 1);
	expect_str_contains(verdict(&g, NOT_HERE), "a read works; a write works; a fetch works");

	expect_eq(mm_zap_range(g.mm, guest_hva(PAGE), PAGE_SIZE), 1);
	expect_str_contains(
		verdict(&g, NOT_HERE),
		"a read faults once: the host has to get the page; a write faults once: "
		"the host has to get the page");
	expect_str_contains(sink.text, "entry is 0, no page yet, or no more\n");
	expect_eq(mm_mprotect(g.mm, guest_hva(PAGE), PAGE_SIZE, MM_PROT_READ), 0);
	guest_load(&g, 0, NOT_HERE);
	expect_str_contains(verdict(&g, NOT_HERE),
			    "a read works; a write waits or kills the guest: the host refuses it");
	expect_eq(guest_try(&g, 0, MODEL_STORE, NOT_HERE, NULL), RET_PF_BAD_HVA);
	expect_eq(mm_munmap(g.mm, guest_hva(PAGE), PAGE_SIZE), 0);
	expect_str_contains(verdict(&g, NOT_HERE), "a read waits or kills the guest");
	expect_str_contains(sink.text, "host   hva 0x100003000 is in no area\n");
	destroy(&g);
}

TEST(inspect_why, a_page_to_be_copied)
{
	const struct guest_mem_config private_ram = {.no_identity = true,
						     .audit = true,
						     .private_ram = true};
	struct mm_struct *child;
	struct guest_mem g;

	fixture(&g, &private_ram);
	expect_eq(mm_fork(g.mm, &child), 0);
	guest_load(&g, 0, GVA);
	expect_str_contains(verdict(&g, GVA),
			    "a read works; a write faults once: the host has to make its page "
			    "writable");
	expect_str_contains(sink.text, "host   area 0x100000000-0x10003ffff rw private\n");
	guest_store(&g, 0, GVA, 1);
	expect_str_contains(verdict(&g, GVA), "a write works");
	mmput(child);
	destroy(&g);
}

/* A translation that the guest has taken back and not flushed; and what comes after that. */
TEST(inspect_why, stale_entries)
{
	struct guest_mem g;

	fixture(&g, &config);
	guest_write(&g, guest_pte_gpa(&g, g.cr3, GVA, 1), 0);
	expect_str_contains(
		verdict(&g, GVA),
		"a read works, by what the guest's tables said before; a write works, by");
	expect_eq(guest_try(&g, 0, MODEL_LOAD, GVA, NULL), RET_PF_FIXED);
	shadow_invlpg(g.shadow, 0, GVA);
	expect_str_contains(verdict(&g, GVA), "a read is the guest's fault, #PF 0: not present");
	expect_eq(guest_try(&g, 0, MODEL_LOAD, GVA, NULL), RET_PF_GUEST);
	destroy(&g);
}

/* And a right that it gave, and no CPU knows of. */
TEST(inspect_why, stale_rights)
{
	struct guest_mem g;

	fixture(&g, &config);
	guest_map(&g, g.cr3, NOT_HERE, PAGE, GUEST_PTE_P | GUEST_PTE_NX);
	guest_load(&g, 0, NOT_HERE);
	guest_write(&g, guest_pte_gpa(&g, g.cr3, NOT_HERE, 1), PAGE | GUEST_PTE_P | GUEST_PTE_A);
	expect_str_contains(verdict(&g, NOT_HERE), "; a fetch faults once");
	expect_eq(guest_try(&g, 0, MODEL_FETCH, NOT_HERE, NULL), RET_PF_FIXED);
	expect_str_contains(verdict(&g, NOT_HERE), "; a fetch works");
	destroy(&g);
}

/* Looking brings nothing in and sets no bit. */
TEST(inspect_why, it_leaves_no_trace)
{
	struct mm_stats before, after;
	struct guest_mem g;
	gpa_t gpte;

	fixture(&g, &config);
	guest_map(&g, g.cr3, NOT_HERE, PAGE, GUEST_PTE_RW);
	gpte = guest_pte_gpa(&g, g.cr3, NOT_HERE, 1);
	verdict(&g, NOT_HERE);
	expect_eq(guest_read(&g, gpte), PAGE | GUEST_PTE_RW);

	expect_eq(mm_zap_range(g.mm, guest_hva(gpte & PAGE_MASK), PAGE_SIZE), 1);
	mm_get_stats(g.mm, &before);
	expect_str_contains(verdict(&g, NOT_HERE),
			    "a read faults: the host has to get a table of the guest's first");
	expect_str_contains(sink.text,
			    "guest  level 1 gfn 0x3c is at hva 0x10003c040, and not in memory "
			    "now\n");
	mm_get_stats(g.mm, &after);
	expect_eq(after.faults, before.faults);
	guest_load(&g, 0, NOT_HERE);
	destroy(&g);
}

TEST(inspect_why, large_pages)
{
	const gva_t large = 1UL << 30;
	struct guest_mem g;

	fixture(&g, &config);
	guest_write(&g, guest_pte_gpa(&g, g.cr3, large, 2), GUEST_PTE_RW | GUEST_PTE_PS | 1UL << 8);
	guest_load(&g, 0, large + PAGE);
	expect_str_contains(verdict(&g, large + PAGE),
			    "a read works; a write faults once: the guest's D");
	expect_str_contains(sink.text, "entry 0 is 0x1a3 P W A PS G, page gfn 0\nslot   0");
	expect_str_contains(sink.text, "host   hva 0x100003000 entry");
	expect_str_contains(sink.text, "shadow level 1 gfn 0 frame");
	destroy(&g);
}

TEST(inspect_why, addresses_that_are_not_the_guests)
{
	const struct guest_mem_config reserving = {.no_identity = true, .reserve_slot = 300};
	struct guest_mem g;

	guest_mem_create(&g, &reserving);
	explain(&g, 1UL << 47);
	expect_text(&sink, "gva    0x800000000000 on vCPU 0, cr3 0x3f000\n"
			   "so     any access is the guest's fault, #GP: not canonical\n");
	expect_str_contains(verdict(&g, -(212UL << 39)),
			    "any access kills the guest: the address is the machine's own");
	expect_str_contains(sink.text, ", the machine's own\n");
	guest_mem_destroy(&g);
}

TEST(inspect_why, out_of_reach)
{
	struct guest_mem_config reaching = config;
	struct guest_mem g;

	reaching.gva_end = 1UL << 46;
	fixture(&g, &reaching);
	expect_str_contains(verdict(&g, 1UL << 46), "the guest's fault, #PF: out of");
	expect_str_contains(verdict(&g, -PAGE_SIZE), "the guest's fault, #PF: out of");
	destroy(&g);
}

/* Before the first load of CR3, and after the end of the mm. */
TEST(inspect_why, before_and_after)
{
	struct shadow *shadow;
	struct guest_mem g;

	guest_mem_create(&g, &config);
	expect_eq(shadow_create(&shadow, g.mm, model_to_machine(g.model), 1), 0);
	sink_clear(&sink);
	shadow_explain(shadow, 0, GVA, sink_line, &sink);
	expect_text(&sink, "gva    0x10000000 on vCPU 0, which has no tables yet\n");
	shadow_destroy(shadow);

	mmput(g.mm);
	g.mm = NULL;
	explain(&g, GVA);
	expect_text(&sink, "gva    0x10000000 on vCPU 0, cr3 0x3f000\n"
			   "so     no access: the address space is gone\n");
	guest_mem_destroy(&g);
}

/* Where the guest's tables lead nowhere nothing is said of any page: not of one that is a table. */
TEST(inspect_why, no_page_and_no_table)
{
	struct guest_mem g;

	fixture(&g, &config);
	guest_write(&g, 0, PAGE | GUEST_PTE_RW);
	guest_write(&g, guest_pte_gpa(&g, g.cr3, OTHER, 2), GUEST_PTE_RW); /* gfn 0 */
	expect_eq(guest_load(&g, 0, OTHER), 1);
	expect_eq(shadow_load_cr3(g.shadow, 0, g.cr3), 0); /* it is in step now */
	explain(&g, NOT_HERE);
	expect_str_contains(sink.text, "guest  level 1 gfn 0x3c entry 8 is 0\nshadow supervisor");
	expect(!strstr(sink.text, "is a table of level"));
	destroy(&g);
}

/* More roots of a table than are told of; those that are not are counted. */
TEST(inspect_why, more_views_than_fit)
{
	const struct guest_mem_config three = {.no_identity = true, .nr_cpus = 3};
	struct guest_mem g;

	fixture(&g, &three);
	for (unsigned int i = 0; i < 3 * 4; i++) {
		struct guest_cpu cpu = *shadow_get_cpu(g.shadow, i / 4);

		cpu.cr0 = i & 1 ? cpu.cr0 | GUEST_CR0_WP : cpu.cr0 & ~GUEST_CR0_WP;
		cpu.cr4 = i & 2 ? cpu.cr4 | GUEST_CR4_SMEP : cpu.cr4 & ~GUEST_CR4_SMEP;
		cpu.cr4 = i & 4 ? cpu.cr4 | GUEST_CR4_SMAP : cpu.cr4 & ~GUEST_CR4_SMAP;
		cpu.efer = i & 8 ? cpu.efer & ~GUEST_EFER_NXE : cpu.efer | GUEST_EFER_NXE;
		expect_eq(shadow_set_cpu(g.shadow, i / 4, &cpu), 0);
	}
	explain(&g, GVA);
	expect_str_contains(sink.text, "\nshadow and 4 more views\nso ");
	guest_mem_destroy(&g);
}

static bool is_a_table(struct guest_mem *g, pfn_t pfn)
{
	struct shadow_page *sp;
	bool found = false;

	spin_lock(&g->shadow->mmu_lock);
	list_for_each_entry(sp, &g->shadow->pages, link)
		found |= sp->table == pfn;
	spin_unlock(&g->shadow->mmu_lock);
	return found;
}

/* Frame 0, as any: an entry that is 0 does not name it, though the table is there. */
TEST(inspect_why, an_empty_entry_names_no_table)
{
	struct hoard hoard;
	struct guest_cpu cpu;
	struct guest_mem g;
	gpa_t gpa = 0;

	fixture(&g, &config);
	while (mm_lookup_pfn(g.mm, guest_hva(gpa)) != 0)
		gpa += PAGE_SIZE;
	/* Of the frames that are free it is the first. */
	hoard_frames(&hoard, g.phys);
	phys_put(g.phys, hoard.pfns[--hoard.nr]);
	expect_eq(mm_migrate_range(g.mm, guest_hva(gpa), PAGE_SIZE), 1);
	hoard_release(&hoard);
	cpu = *shadow_get_cpu(g.shadow, 0);
	for (unsigned int i = 0; i < 8 && !is_a_table(&g, 0); i++) {
		cpu.cr4 = i & 1 ? cpu.cr4 | GUEST_CR4_SMEP : cpu.cr4 & ~GUEST_CR4_SMEP;
		cpu.cr4 = i & 2 ? cpu.cr4 | GUEST_CR4_SMAP : cpu.cr4 & ~GUEST_CR4_SMAP;
		cpu.cr0 = i & 4 ? cpu.cr0 | GUEST_CR0_WP : cpu.cr0 & ~GUEST_CR0_WP;
		expect_eq(shadow_set_cpu(g.shadow, 0, &cpu), 0);
		guest_load(&g, 0, GVA);
	}
	expect(is_a_table(&g, 0));
	explain(&g, NOT_HERE);
	expect_str_contains(sink.text, " entry 8 is 0\nso ");
	destroy(&g);
}
