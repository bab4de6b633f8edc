/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A kernel edits its own page tables: does each edit take effect when the architecture says so?
 *
 * Rules that this guest lives by, and the shadow MMU must keep (Intel SDM vol. 3, 4.10.4; AMD APM
 * vol. 2, 5.5):
 *   1. an entry that was not present is not cached: making it present needs no invalidation;
 *   2. INVLPG makes the edits of the entries that translate its address take effect. Another
 *	address that uses the same table needs its own;
 *   3. a CR3 load makes all edits take effect, whatever table they are in (no global pages here);
 *   4. adding a right needs no invalidation: where a stale entry forbids the access, the fault
 *	re-walks the tables (on bare metal a kernel may see that fault; under gnomon the VMM does);
 *   5. a read sets A in each entry it is translated by, a write sets D in the last as well, once
 *	the bits were cleared and INVLPG was executed. A may be set without an access, D not.
 * Nothing is checked that goes beyond these, and no access is forbidden: there is no fault handler.
 *
 * Every frame holds its own address in each of its words, so that one load tells where a gva leads.
 * RAM itself is edited and looked at through the direct map.
 */
#include "guests/lib/console.h"
#include "guests/lib/mem.h"
#include "guests/lib/paging.h"
#include "guests/lib/report.h"

#define ROUNDS	    16
#define CR3_SWAPS   7 /* switches to the second root and back, in each round */
#define CR3_RELOADS 8 /* each with NEW_SLOTS more uses of a table, in each round */
#define NEW_SLOTS   4
#define NR_FRAMES   8
#define CODE_BYTES  6

/* Each check has a 2 MiB range for itself: a table of its own. PML4 slots 0 and 128 are taken. */
#define RANGE(n) (0x10000000000 + (n)*0x200000ul)
#define MANY(n)	 RANGE(512 + (n)) /* 512 ranges, without a table each */
#define PRIVATE	 0x20000000000ul  /* translated by tables that two roots do not share */
#define SELF	 0x30000000000ul  /* PML4 slot 6: the root as its own table */

struct remap {
	uint64_t root;
	uint64_t other_root;
	uint64_t frame[NR_FRAMES];
	uint64_t table[NR_FRAMES]; /* of many_tables: entry 0 maps the frame */
	unsigned int slots;
	uint64_t random;
	uint64_t cr3_loads;
	uint64_t reads;
};

static uint64_t word_of(uint64_t frame, unsigned int offset)
{
	return 0xf4a3000000000000 | (frame << 12 & 0xffffffffffff) | offset;
}

static void fill_frame(uint64_t frame)
{
	volatile uint64_t *words = direct_map(frame);

	for (unsigned int i = 0; i < PAGE_SIZE / 8; i++)
		words[i] = word_of(frame, i * 8);
}

static uint64_t peek(struct remap *r, uint64_t gva)
{
	r->reads++;
	return *(volatile uint64_t *)gva;
}

static void poke(uint64_t gva, uint64_t value)
{
	*(volatile uint64_t *)gva = value;
}

/* The first, the last and one word in between: @gva must lead to @frame. */
static void expect_frame(struct remap *r, const char *what, uint64_t gva, uint64_t frame)
{
	static const unsigned int offsets[] = {0, 0x7f8, PAGE_SIZE - 8};

	for (unsigned int i = 0; i < 3; i++) {
		uint64_t expected = word_of(frame, offsets[i]);
		uint64_t found = peek(r, gva + offsets[i]);

		check(found == expected,
		      "%s: gva 0x%lx is mapped to frame 0x%lx, expected 0x%lx, found 0x%lx", what,
		      gva + offsets[i], frame, expected, found);
	}
}

static void load_cr3(struct remap *r, uint64_t root)
{
	write_cr3(root);
	r->cr3_loads++;
}

/* One gva, one frame after the other. Rule 2. */
static void invlpg_switches(struct remap *r)
{
	uint64_t gva = RANGE(0);

	for (int i = 0; i < 8; i++) {
		map_page(r->root, gva, r->frame[i % NR_FRAMES], PTE_W);
		invlpg(gva);
		expect_frame(r, "INVLPG", gva, r->frame[i % NR_FRAMES]);
	}
}

/* Unmapped, and mapped again without a word. Rules 2 and 1. */
static void unmap_and_remap(struct remap *r)
{
	uint64_t gva = RANGE(1);

	for (int i = 0; i < NR_FRAMES; i++) {
		map_page(r->root, gva, r->frame[i], PTE_W);
		expect_frame(r, "not present to present", gva, r->frame[i]);
		*pt_entry(r->root, gva, 1) = 0;
		invlpg(gva);
	}
}

/* Read through a read-only entry, then write once it has become writable. Rule 4. */
static void gain_write(struct remap *r)
{
	uint64_t gva = RANGE(2), frame = r->frame[0];
	volatile uint64_t *word = direct_map(frame);

	map_page(r->root, gva, frame, 0);
	invlpg(gva);
	expect_frame(r, "read-only", gva, frame);
	*pt_entry(r->root, gva, 1) |= PTE_W;
	poke(gva, ~word_of(frame, 0));
	check(*word == ~word_of(frame, 0),
	      "read-only to writable: wrote 0x%lx, found 0x%lx in frame 0x%lx", ~word_of(frame, 0),
	      *word, frame);
	*word = word_of(frame, 0);
}

static void clear_accessed(struct remap *r, uint64_t gva)
{
	for (int level = 4; level >= 1; level--)
		*pt_entry(r->root, gva, level) &= ~(PTE_A | PTE_D);
	invlpg(gva);
}

/* Rule 5, with a read first and with a write first. */
static void accessed_and_dirty(struct remap *r)
{
	uint64_t gva = RANGE(3), frame = r->frame[1];

	map_page(r->root, gva, frame, PTE_W);
	for (int write_first = 0; write_first < 2; write_first++) {
		clear_accessed(r, gva);
		if (!write_first) {
			expect_frame(r, "A and D", gva, frame);
			check(!(*pt_entry(r->root, gva, 1) & PTE_D),
			      "a read set D: the entry is 0x%lx", *pt_entry(r->root, gva, 1));
		} else {
			poke(gva, word_of(frame, 0));
		}
		for (int level = 4; level >= 1; level--)
			check(*pt_entry(r->root, gva, level) & PTE_A,
			      "a %s left A clear at level %d: the entry is 0x%lx",
			      write_first ? "write" : "read", level,
			      *pt_entry(r->root, gva, level));
		poke(gva, word_of(frame, 0));
		check(*pt_entry(r->root, gva, 1) & PTE_D,
		      "a write left D clear: the entry is 0x%lx", *pt_entry(r->root, gva, 1));
	}
}

/* Two gvas, one frame: a write through either is seen through the other. */
static void aliases(struct remap *r)
{
	uint64_t a = RANGE(4), b = RANGE(5) + 0x1ff000, frame = r->frame[2];

	map_page(r->root, a, frame, PTE_W);
	map_page(r->root, b, frame, PTE_W);
	invlpg(a);
	invlpg(b);
	for (unsigned int offset = 0; offset < PAGE_SIZE; offset += 0x238) {
		uint64_t to = offset & 8 ? a : b, from = offset & 8 ? b : a;
		uint64_t value = ~word_of(frame, offset), found;

		poke(to + offset, value);
		found = peek(r, from + offset);
		check(found == value, "wrote 0x%lx at gva 0x%lx, found 0x%lx at its alias 0x%lx",
		      value, to + offset, found, from + offset);
	}
	fill_frame(frame);
}

/* Run what lies at @gva: code that returns a constant. */
static uint32_t call(uint64_t gva)
{
	return ((uint32_t(*)(void))gva)();
}

static void write_code(uint64_t frame, uint32_t constant)
{
	uint8_t code[CODE_BYTES] = {0xb8, 0, 0, 0, 0, 0xc3}; /* mov $constant, %eax; ret */

	memcpy(code + 1, &constant, sizeof(constant));
	memcpy(direct_map(frame), code, sizeof(code));
}

/*
 * The same for fetches: code is exchanged by mapping another frame, and by a write through another
 * address. INVLPG serialises, as code that was modified so requires.
 */
static void exchange_code(struct remap *r)
{
	uint64_t gva = RANGE(6);

	for (uint32_t i = 0; i < 4; i++) {
		uint64_t frame = r->frame[i % 2];
		uint32_t found;

		write_code(frame, 0x1000 + i);
		map_page(r->root, gva, frame, 0);
		invlpg(gva);
		found = call(gva);
		check(found == 0x1000 + i, "code in frame 0x%lx returned 0x%x, expected 0x%x",
		      frame, found, 0x1000 + i);

		write_code(frame, 0x2000 + i);
		invlpg(gva);
		found = call(gva);
		check(found == 0x2000 + i,
		      "modified code in frame 0x%lx returned 0x%x, expected 0x%x", frame, found,
		      0x2000 + i);
		fill_frame(frame);
	}
}

/*
 * A PDE gets another table, and the table that was replaced becomes a page of data, then a table
 * again. Rule 3.
 */
static void swap_tables(struct remap *r)
{
	uint64_t gva = RANGE(7), spare = RANGE(8), far = 0x1ff000;
	volatile uint64_t *pde = pt_make_entry(r->root, gva, 2);
	uint64_t tables[2] = {alloc_page(), alloc_page()};

	for (int i = 0; i < 2; i++) {
		volatile uint64_t *entries = direct_map(tables[i]);

		entries[0] = r->frame[i] | PTE_P | PTE_W;
		entries[ENTRIES_PER_PT - 1] = r->frame[i + 2] | PTE_P | PTE_W;
	}
	for (int i = 0; i < 4; i++) {
		*pde = tables[i % 2] | PTE_P | PTE_W;
		load_cr3(r, r->root);
		expect_frame(r, "another table", gva, r->frame[i % 2]);
		expect_frame(r, "another table", gva + far, r->frame[i % 2 + 2]);
	}

	/* tables[0] is out of use */
	map_page(r->root, spare, tables[0], PTE_W);
	invlpg(spare);
	fill_frame(tables[0]);
	expect_frame(r, "a table that became data", spare, tables[0]);
	memset(direct_map(tables[0]), 0, PAGE_SIZE);
	poke(spare, r->frame[3] | PTE_P | PTE_W);
	*pde = tables[0] | PTE_P | PTE_W;
	load_cr3(r, r->root);
	expect_frame(r, "data that became a table", gva, r->frame[3]);
	*pde = 0;
	*pt_entry(r->root, spare, 1) = 0;
	load_cr3(r, r->root);
}

/* One table under two PDEs: an edit of an entry is an edit for two addresses. Rules 2 and 3. */
static void shared_table(struct remap *r)
{
	uint64_t a = RANGE(9) + 0x5000, b = RANGE(10) + 0x5000;
	volatile uint64_t *pte;

	pte = pt_make_entry(r->root, a, 1);
	*pt_make_entry(r->root, b, 2) = *pt_entry(r->root, a, 2);
	for (int i = 0; i < 6; i++) {
		uint64_t frame = r->frame[i % NR_FRAMES];

		*pte = frame | PTE_P | PTE_W;
		if (i % 3 == 2) {
			load_cr3(r, r->root);
		} else {
			invlpg(i % 2 ? a : b);
			invlpg(i % 2 ? b : a);
		}
		expect_frame(r, "a shared table", i % 2 ? b : a, frame);
		expect_frame(r, "a shared table", i % 2 ? a : b, frame);
	}
}

/*
 * Two roots: PRIVATE leads to another frame under each, and everything else to the same, through
 * tables that both share. Those are edited under one root and used under the other. Rule 3.
 */
static void two_roots(struct remap *r)
{
	uint64_t shared = RANGE(11);

	map_page(r->root, PRIVATE, r->frame[0], PTE_W);
	map_page(r->other_root, PRIVATE, r->frame[1], PTE_W);
	for (int i = 0; i < CR3_SWAPS; i++) {
		map_page(r->other_root, shared, r->frame[i % NR_FRAMES], PTE_W);
		load_cr3(r, r->other_root);
		expect_frame(r, "the other root", PRIVATE, r->frame[1]);
		expect_frame(r, "a table of both roots", shared, r->frame[i % NR_FRAMES]);

		map_page(r->root, shared, r->frame[(i + 1) % NR_FRAMES], PTE_W);
		map_page(r->root, PRIVATE, r->frame[2 + i % 2], PTE_W);
		load_cr3(r, r->root);
		expect_frame(r, "the first root", PRIVATE, r->frame[2 + i % 2]);
		expect_frame(r, "a table of both roots", shared, r->frame[(i + 1) % NR_FRAMES]);
	}
}

/*
 * The root as an entry of itself: the tables appear in memory, every PTE in one array. A page is
 * then table and data at once. Rules 2 and 1.
 */
static void self_map(struct remap *r)
{
	uint64_t gva = RANGE(12), pte_gva = SELF + (gva >> 9);
	uint64_t seen;

	*pt_entry(r->root, SELF, 4) = r->root | PTE_P | PTE_W;
	map_page(r->root, gva, r->frame[0], PTE_W);
	for (int i = 0; i < NR_FRAMES; i++) {
		poke(pte_gva, r->frame[i] | PTE_P | PTE_W);
		invlpg(gva);
		expect_frame(r, "edited through the self-map", gva, r->frame[i]);
		seen = peek(r, pte_gva) & PTE_ADDR;
		check(seen == r->frame[i],
		      "the self-map shows frame 0x%lx in the PTE of frame 0x%lx", seen,
		      r->frame[i]);
	}
	*pt_entry(r->root, SELF, 4) = 0;
	load_cr3(r, r->root);
}

/* The table under one of the PDEs of MANY maps the first page there to this frame. */
static uint64_t frame_of_slot(const struct remap *r, unsigned int slot)
{
	return r->frame[slot % NR_FRAMES];
}

/*
 * One table for each frame, linked at more and more PDEs; and between CR3 loads, reads of the
 * newest and of some that were there before. A VMM that makes its tables on demand and drops them
 * at a CR3 load uses its frames over and over here, for other addresses each time. Rule 3.
 */
static void many_tables(struct remap *r)
{
	for (int i = 0; i < CR3_RELOADS; i++) {
		for (int n = 0; n < NEW_SLOTS && r->slots < ENTRIES_PER_PT; n++) {
			uint64_t table = r->table[r->slots % NR_FRAMES];

			*pt_make_entry(r->root, MANY(r->slots), 2) = table | PTE_P | PTE_W;
			r->slots++;
		}
		load_cr3(r, r->root);

		for (int n = 0; n < 2 * NEW_SLOTS; n++) {
			unsigned int slot;

			r->random = r->random * 6364136223846793005 + 1442695040888963407;
			slot = n % 2 ? r->slots - 1 - n / 2 : (r->random >> 33) % r->slots;
			expect_frame(r, "many tables", MANY(slot), frame_of_slot(r, slot));
		}
	}
}

static void (*const checks[])(struct remap *r) = {
	invlpg_switches, unmap_and_remap, gain_write,  accessed_and_dirty,
	aliases,	 exchange_code,	  swap_tables, shared_table,
	two_roots,	 self_map,	  many_tables,
};

int main(const struct boot_info *boot)
{
	struct remap r = {.random = boot->seed};
	int rounds = 0;

	boot_check(boot);
	paging_init(boot);
	r.root = read_cr3() & PTE_ADDR;
	check(r.root == boot->cr3, "CR3 is 0x%lx, boot_info says 0x%lx", r.root, boot->cr3);
	for (int i = 0; i < NR_FRAMES; i++) {
		r.frame[i] = alloc_page();
		fill_frame(r.frame[i]);
		r.table[i] = alloc_page();
		*(volatile uint64_t *)direct_map(r.table[i]) = r.frame[i] | PTE_P | PTE_W;
	}
	pt_make_entry(r.root, RANGE(0), 1); /* so that the clone shares the ranges' tables */
	r.other_root = clone_root(r.root);

	while (rounds < ROUNDS && !stop_requested()) {
		for (unsigned int i = 0; i < sizeof(checks) / sizeof(checks[0]); i++)
			checks[i](&r);
		rounds++;
		pass();
	}
	printf("remap: %d of %d rounds, %lu CR3 loads, %lu reads, all as the tables say\n", rounds,
	       ROUNDS, r.cr3_loads, r.reads);
	return 0;
}
