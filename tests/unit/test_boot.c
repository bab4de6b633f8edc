/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the loader leaves in guest RAM, against what guests/lib/boot.h promises. The page tables are
 * read back as a CPU would read them: everything that they map, and nothing else, must be what was
 * asked for.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "guests/lib/boot.h"
#include "notifier/sync/util.h"
#include "tests/model/guest_mem.h"
#include "tests/support/test.h"
#include "vmm/boot.h"

#define MIB (1UL << 20)
#define GIB (1UL << 30)

#define LEAF_FLAGS  (GUEST_PTE_RW | GUEST_PTE_A | GUEST_PTE_D)
#define LINK_FLAGS  (GUEST_PTE_RW | GUEST_PTE_A)
#define PTE_ADDRESS 0x000ffffffffff000UL

#define SEED 0x1234567890abcdefUL

/* File contents for segments: no byte repeats at the same place of a neighbouring page. */
static uint8_t contents[0x10000];

static void fill_contents(void)
{
	for (size_t i = 0; i < sizeof(contents); i++)
		contents[i] = 1 + (i * 7 + (i >> 12)) % 251;
}

static struct elf_segment segment(gva_t vaddr, gpa_t paddr, uint64_t filesz, uint64_t memsz)
{
	return (struct elf_segment){
		.vaddr = vaddr,
		.paddr = paddr,
		.filesz = filesz,
		.memsz = memsz,
		.data = contents + paddr % PAGE_SIZE,
		.executable = true,
	};
}

static struct elf_image image_of(unsigned int nr, const struct elf_segment *segments)
{
	struct elf_image image = {.entry = segments[0].vaddr, .nr_segments = nr};

	for (unsigned int i = 0; i < nr; i++) {
		image.segments[i] = segments[i];
		image.segments[i].phdr = i;
	}
	return image;
}

/* As a linker makes them: text, data and bss. */
static struct elf_image typical_image(void)
{
	struct elf_segment segments[] = {
		segment(0x400000, 0x10000, 0x1234, 0x1234),
		segment(0x402000, 0x12000, 0x800, 0x5678),
	};

	return image_of(2, segments);
}

struct boot_test {
	struct guest_mem g;
	uint64_t ram_size;
	struct elf_image image;
	struct boot_state state;
	char why[256];
};

static void setup(struct boot_test *t, uint64_t ram_size, uint64_t nr_frames)
{
	struct guest_mem_config config = {
		.nr_pages = ram_size >> PAGE_SHIFT,
		.nr_frames = nr_frames,
		.no_identity = true,
	};

	fill_contents();
	memset(t, 0, sizeof(*t));
	t->ram_size = ram_size;
	guest_mem_create(&t->g, &config);
}

static void teardown(struct boot_test *t)
{
	guest_mem_destroy(&t->g);
}

static int boot(struct boot_test *t, const struct elf_image *image)
{
	t->image = *image;
	return boot_guest(t->g.shadow, t->ram_size, image, SEED, &t->state, t->why, sizeof(t->why));
}

static void read_ram(struct boot_test *t, gpa_t gpa, void *buf, size_t len)
{
	expect_eq(shadow_read_gpa(t->g.shadow, gpa, buf, len), 0);
}

static bool maps_page(const struct elf_segment *s, gva_t gva)
{
	return gva >= (s->vaddr & PAGE_MASK) && gva < s->vaddr + s->memsz;
}

/* Where the loader is to map a page, or -1. */
static uint64_t expected_gpa(const struct boot_test *t, gva_t gva)
{
	if (gva >= BOOT_DIRECT_MAP && gva < BOOT_DIRECT_MAP + t->ram_size)
		return gva - BOOT_DIRECT_MAP;
	for (unsigned int i = 0; i < t->image.nr_segments; i++) {
		const struct elf_segment *s = &t->image.segments[i];

		if (maps_page(s, gva))
			return gva - (s->vaddr - s->paddr);
	}
	return UINT64_MAX;
}

static uint64_t expected_pages(const struct boot_test *t)
{
	uint64_t count = t->ram_size >> PAGE_SHIFT;

	for (unsigned int i = 0; i < t->image.nr_segments; i++) {
		const struct elf_segment *s = &t->image.segments[i];

		for (gva_t gva = s->vaddr & PAGE_MASK; gva < s->vaddr + s->memsz; gva += PAGE_SIZE)
			/* A page that two segments share counts once: for the upper one. */
			count += i + 1 == t->image.nr_segments || !maps_page(s + 1, gva);
	}
	return count;
}

struct tree {
	uint64_t leaves, tables;
	uint8_t *seen; /* by frame: this page of RAM is a table */
};

static void walk_table(struct boot_test *t, struct tree *tree, gpa_t table, int level, gva_t base)
{
	uint64_t entries[512];

	/* In the place kept for tables, and in the tree only once. */
	expect(PAGE_ALIGNED(table) && table < t->ram_size);
	expect(table >= t->state.rsp - BOOT_DIRECT_MAP);
	expect(!tree->seen[table >> PAGE_SHIFT]);
	tree->seen[table >> PAGE_SHIFT] = 1;
	tree->tables++;

	read_ram(t, table, entries, sizeof(entries));
	for (unsigned int i = 0; i < 512; i++) {
		gva_t gva = base + ((gva_t)i << (PAGE_SHIFT + 9 * (level - 1)));

		if (!entries[i])
			continue;
		expect_eq(entries[i] & ~PTE_ADDRESS, level == 1 ? LEAF_FLAGS : LINK_FLAGS);
		if (level > 1) {
			walk_table(t, tree, entries[i] & PTE_ADDRESS, level - 1, gva);
		} else {
			expect_eq(entries[i] & PTE_ADDRESS, expected_gpa(t, gva));
			tree->leaves++;
		}
	}
}

static struct tree check_tables(struct boot_test *t)
{
	struct tree tree = {.seen = calloc(t->ram_size >> PAGE_SHIFT, 1)};
	gpa_t first = t->state.rsp - BOOT_DIRECT_MAP;

	expect(tree.seen != NULL);
	walk_table(t, &tree, t->state.cr3, 4, 0);
	expect_eq(tree.leaves, expected_pages(t));
	/* They fill their place exactly: no page of RAM is lost. */
	expect_eq(tree.tables, (t->ram_size - first) >> PAGE_SHIFT);
	expect_eq(t->state.cr3, first);
	free(tree.seen);
	tree.seen = NULL;
	return tree;
}

static void check_state(struct boot_test *t)
{
	const struct boot_state *s = &t->state;
	struct boot_info info;
	gpa_t start = UINT64_MAX, end = 0;

	for (unsigned int i = 0; i < t->image.nr_segments; i++) {
		const struct elf_segment *seg = &t->image.segments[i];

		if ((seg->paddr & PAGE_MASK) < start)
			start = seg->paddr & PAGE_MASK;
		if (PAGE_ALIGN(seg->paddr + seg->memsz) > end)
			end = PAGE_ALIGN(seg->paddr + seg->memsz);
	}
	expect_eq(s->entry, t->image.entry);
	expect_eq(s->image_start, start);
	expect_eq(s->image_end, end);
	expect(s->image_end <= s->reserved_start);
	expect_eq(s->rdi, BOOT_DIRECT_MAP + s->reserved_start);
	expect_eq(s->rsp % 16, 0);
	expect(s->rsp - BOOT_STACK_SIZE >= s->rdi + sizeof(struct boot_info));

	read_ram(t, s->reserved_start, &info, sizeof(info));
	expect_eq(info.magic, BOOT_MAGIC);
	expect_eq(info.version, BOOT_VERSION);
	expect_eq(info.ram_size, t->ram_size);
	expect_eq(info.image_start, start);
	expect_eq(info.image_end, end);
	expect_eq(info.reserved_start, s->reserved_start);
	expect_eq(info.cr3, s->cr3);
	expect_eq(info.seed, SEED);
	for (size_t i = 0; i < sizeof(info.args); i++)
		expect_eq(info.args[i], 0);
}

/* All of RAM below the reserved end: file bytes where they belong, zero elsewhere. */
static void check_contents(struct boot_test *t)
{
	for (gpa_t gpa = 0; gpa < t->state.reserved_start; gpa += PAGE_SIZE) {
		uint8_t page[PAGE_SIZE], expected[PAGE_SIZE] = {0};

		for (unsigned int i = 0; i < t->image.nr_segments; i++) {
			const struct elf_segment *s = &t->image.segments[i];

			for (unsigned int at = 0; at < PAGE_SIZE; at++)
				if (gpa + at >= s->paddr && gpa + at - s->paddr < s->filesz)
					expected[at] = s->data[gpa + at - s->paddr];
		}
		read_ram(t, gpa, page, sizeof(page));
		if (memcmp(page, expected, sizeof(page)))
			fail("page 0x%lx of RAM is not what the image says", gpa);
	}
}

static uint64_t file_pages(const struct elf_image *image)
{
	uint64_t count = 0;
	gpa_t last = UINT64_MAX;

	/* Ascending in vaddr, hence in paddr where pages are shared. */
	for (unsigned int i = 0; i < image->nr_segments; i++) {
		const struct elf_segment *s = &image->segments[i];

		for (gpa_t gpa = s->paddr & PAGE_MASK; s->filesz && gpa < s->paddr + s->filesz;
		     gpa += PAGE_SIZE) {
			count += gpa != last;
			last = gpa;
		}
	}
	return count;
}

static void boot_and_check(uint64_t ram_size, const struct elf_image *image)
{
	struct boot_test t;
	struct tree tree;
	uint64_t before, used;

	setup(&t, ram_size, ram_size > GIB ? 65536 : 0);
	before = phys_nr_free(t.g.phys);
	if (boot(&t, image))
		fail("%lu bytes of RAM: %s", ram_size, t.why);
	used = before - phys_nr_free(t.g.phys);
	check_state(&t);
	tree = check_tables(&t);
	/* No frame but for what is written; the fixture had touched the last page of RAM. */
	expect_eq(used, file_pages(image) + 1 + tree.tables - 1);
	if (ram_size <= 16 * MIB)
		check_contents(&t);
	teardown(&t);
}

TEST(boot, every_size_of_ram)
{
	static const uint64_t sizes[] = {
		MIB,	 MIB + PAGE_SIZE, 2 * MIB - PAGE_SIZE,	     2 * MIB,
		3 * MIB, 64 * MIB,	  64 * MIB + 17 * PAGE_SIZE, GIB - PAGE_SIZE,
		GIB,	 GIB + PAGE_SIZE, 3 * GIB + 2 * MIB,
	};
	struct elf_image image = typical_image();

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++)
		boot_and_check(sizes[i], &image);
}

/* Segments in odd corners of the address space, and next to the direct map on both sides. */
TEST(boot, spread_out_segments)
{
	struct elf_segment segments[] = {
		segment(BOOT_LINK_MIN, 0, 0x1000, 0x1000),
		segment(0x1ff000, 0x20000, 0x2000, 0x2000),
		segment(0x3ffff000, 0x30000, 0x10, 0x3000),
		segment(0x7ffffff000, 0x40000, 0, 0x2000),
		segment(BOOT_DIRECT_MAP - 0x1000, 0x8000, 0x1000, 0x1000),
		segment(BOOT_DIRECT_MAP + BOOT_DIRECT_MAP_MAX, 0x9000, 1, 1),
		segment(BOOT_LINK_MAX - 0x5000, 0x50000, 0x4001, 0x5000),
	};
	struct elf_image image = image_of(ARRAY_SIZE(segments), segments);

	boot_and_check(MIB, &image);
	boot_and_check(5 * MIB, &image);
}

TEST(boot, segments_that_share_pages)
{
	struct elf_segment segments[] = {
		segment(0x400000, 0x10000, 0x1100, 0x1100),
		segment(0x401100, 0x11100, 0x200, 0xf00),
		segment(0x402000, 0x12000, 0x20, 0x20),
		segment(0x402020, 0x12020, 0x1fe0, 0x1fe1),
		segment(0x404001, 0x14001, 0, 0x10),
	};
	struct elf_image image = image_of(ARRAY_SIZE(segments), segments);

	boot_and_check(MIB, &image);
}

/* Big enough that the image has a table of leaves of its own, and more than one. */
TEST(boot, large_bss)
{
	struct elf_segment segments[] = {segment(0x3ff000, 0x1000, 0x10, 9 * MIB)};
	struct elf_image image = image_of(1, segments);

	boot_and_check(16 * MIB, &image);
}

static uint64_t next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

TEST(boot, random_images)
{
	unsigned int rounds = test_long() ? 300 : 30;
	uint64_t state = 77;

	for (unsigned int round = 0; round < rounds; round++) {
		unsigned int nr = 1 + next_random(&state) % ELF_MAX_SEGMENTS;
		struct elf_segment segments[ELF_MAX_SEGMENTS];
		gva_t vaddr = BOOT_LINK_MIN;
		gpa_t paddr = 0;
		struct elf_image image;

		for (unsigned int i = 0; i < nr; i++) {
			uint64_t memsz = 1 + next_random(&state) % 0x8000;
			uint64_t skip = next_random(&state) % 12 * 9 / 2;

			/* Gaps from one page to a whole table of the third level. */
			vaddr = PAGE_ALIGN(vaddr) +
				((next_random(&state) % 3 + 1) << (12 + skip % 28));
			if (vaddr + memsz + PAGE_SIZE > BOOT_DIRECT_MAP) {
				nr = i;
				break;
			}
			paddr = PAGE_ALIGN(paddr) + next_random(&state) % 4 * PAGE_SIZE;
			vaddr += next_random(&state) % PAGE_SIZE;
			paddr += vaddr % PAGE_SIZE;
			segments[i] =
				segment(vaddr, paddr, next_random(&state) % (memsz + 1), memsz);
			vaddr += memsz;
			paddr += memsz;
		}
		expect_ge(nr, 1);
		image = image_of(nr, segments);
		boot_and_check(2 * MIB + round * PAGE_SIZE, &image);
	}
}

/* A CPU starts, through the shadow, on what was built. It finds A and D set and changes nothing. */
TEST(boot, a_cpu_runs_on_it)
{
	struct elf_image image = typical_image();
	struct boot_test t;
	uint8_t before[16 * PAGE_SIZE], after[sizeof(before)];
	struct model_access fetch = {.op = MODEL_FETCH};
	uint64_t word;
	size_t tables;

	setup(&t, 2 * MIB, 0);
	expect_eq(boot(&t, &image), 0);
	tables = t.ram_size - t.state.cr3;
	expect_le(tables, sizeof(before));
	read_ram(&t, t.state.cr3, before, tables);
	expect_eq(shadow_load_cr3(t.g.shadow, 0, t.state.cr3), 0);

	fetch.gva = t.state.entry;
	expect_eq(model_access_retry(t.g.model, 0, t.g.shadow, &fetch), RET_PF_FIXED);
	memcpy(&word, contents, sizeof(word));
	expect_eq(fetch.value, word);
	expect_eq(guest_load(&t.g, 0, t.state.rdi), BOOT_MAGIC);
	guest_store(&t.g, 0, t.state.rsp - 8, 0x1122334455667788);
	expect_eq(guest_read(&t.g, t.state.rsp - 8 - BOOT_DIRECT_MAP), 0x1122334455667788);
	/* The last byte of bss, and of RAM. */
	expect_eq(guest_load(&t.g, 0, (0x402000 + 0x5678 - 1) & ~7UL), 0);
	guest_load(&t.g, 0, BOOT_DIRECT_MAP + t.ram_size - 8);

	fetch = (struct model_access){.op = MODEL_LOAD, .gva = BOOT_DIRECT_MAP + t.ram_size};
	expect_eq(model_access_retry(t.g.model, 0, t.g.shadow, &fetch), RET_PF_GUEST);
	fetch = (struct model_access){.op = MODEL_LOAD, .gva = 0};
	expect_eq(model_access_retry(t.g.model, 0, t.g.shadow, &fetch), RET_PF_GUEST);

	read_ram(&t, t.state.cr3, after, tables);
	expect_eq(memcmp(before, after, tables), 0);
	teardown(&t);
}

/* What it asks for is checked in whole pages, against what the engine's CPUs have. */
TEST(boot, out_of_reach)
{
	const struct engine_ops ops = {.name = "small"};
	struct engine small = {.ops = &ops}, all = {.ops = &ops};
	struct elf_segment segments[] = {
		segment(0x400010, 0x10010, 0x1000, 0x1234),
		segment(0x402000, 0x12000, 0x800, 0x5678),
	};
	struct elf_image image = image_of(2, segments);
	char why[256];

	expect_eq(boot_check_reach(&image, &all, NULL, 0), 0);
	small.machine.gva_first = 0x400000;
	small.machine.gva_end = 0x408000;
	expect_eq(boot_check_reach(&image, &small, NULL, 0), 0);

	small.machine.gva_end = 0x407000;
	expect_eq(boot_check_reach(&image, &small, why, sizeof(why)), -ENOEXEC);
	expect_str_contains(why,
			    "segment 1 [0x402000, 0x408000) is out of reach: CPUs of the small "
			    "engine have the addresses [0x400000, 0x407000); try --engine kvm");
	small.machine.gva_first = 0x401000;
	small.machine.gva_end = 0;
	expect_eq(boot_check_reach(&image, &small, why, sizeof(why)), -ENOEXEC);
	expect_str_contains(why, "segment 0 [0x400000, 0x402000)");
}

struct refusal {
	uint64_t ram_size;
	struct elf_segment segments[2];
	const char *why;
};

#define SEG(vaddr_, paddr_, filesz_, memsz_)                                                 \
	{                                                                                    \
		.vaddr = (vaddr_), .paddr = (paddr_), .filesz = (filesz_), .memsz = (memsz_) \
	}

static const struct refusal refusals[] = {
	{MIB,
	 {SEG(0x100000, 0x100000, 0x1000, 0x3000)},
	 "segment 0 [0x100000, 0x103000) lies outside the guest's 1M of RAM; try --mem 2M"},
	{MIB,
	 {SEG(0x400000, 0x1000, 16, 0x1000), SEG(0x500000, 0xff000, 16, 0x1001)},
	 "segment 1 [0xff000, 0x100001) lies outside the guest's 1M of RAM; try --mem 2M"},
	{MIB,
	 {SEG(0x400000, 0xff000, 16, 0x1000)},
	 "segment 0 [0xff000, 0x100000) collides with the stack and page tables in the last "
	 "0xc000 bytes of the guest's 1M of RAM; try --mem 2M"},
	{MIB + PAGE_SIZE,
	 {SEG(0x400000, 0x100000, 16, 0x1000)},
	 "the guest's 1028K of RAM; try --mem 2M"},
	{64 * MIB, {SEG(0x400000, 0x4000000, 16, 0x1000)}, "the guest's 64M of RAM; try --mem 65M"},
	/* 1 GiB of image needs 2 MiB of tables, twice: once for itself, once in the direct map. */
	{64 * MIB,
	 {SEG(0x400000, 0x0, 16, GIB)},
	 "segment 0 [0x0, 0x40000000) lies outside the guest's 64M of RAM; try --mem 1029M"},
	{2 * GIB,
	 {SEG(0x400000, 0x0, 16, 3 * GIB)},
	 "lies outside the guest's 2G of RAM; try --mem 3085M"},
	{MIB, {SEG(0x400000, 0xffffff8000000000, 16, 16)}, "link it to a lower p_paddr"},
	{MIB, {SEG(0x400000, 0x0, 16, 0x200000000000)}, "link it to a lower p_paddr"},
};

TEST(boot, images_that_do_not_fit)
{
	for (size_t i = 0; i < ARRAY_SIZE(refusals); i++) {
		const struct refusal *r = &refusals[i];
		struct elf_image image = image_of(r->segments[1].memsz ? 2 : 1, r->segments);
		struct boot_test t;
		uint64_t before;

		for (unsigned int j = 0; j < image.nr_segments; j++)
			image.segments[j].data = contents;
		setup(&t, r->ram_size, 16384);
		before = phys_nr_free(t.g.phys);
		expect_eq(boot(&t, &image), -ENOEXEC);
		expect_str_contains(t.why, r->why);
		/* Refused before anything was done. */
		expect_eq(phys_nr_free(t.g.phys), before);
		teardown(&t);
	}
}

/* The advice in a refusal is good: that much RAM does, and 1 MiB less does not. */
TEST(boot, advice_is_the_least_that_works)
{
	static const uint64_t paddrs[] = {0xff000, 0x1f0000, 0x3f0000, 0x7ff000, 0x3ff0000};

	for (size_t i = 0; i < ARRAY_SIZE(paddrs); i++) {
		struct elf_segment s = segment(0x400000, paddrs[i], 16, 0x3000);
		struct elf_image image = image_of(1, &s);
		struct boot_test t;
		unsigned long mib;
		const char *at;

		setup(&t, MIB, 0);
		expect_eq(boot(&t, &image), -ENOEXEC);
		at = strstr(t.why, "try --mem ");
		expect(at && sscanf(at, "try --mem %luM", &mib) == 1);
		teardown(&t);

		boot_and_check(mib * MIB, &image);
		if (mib > 1) {
			setup(&t, (mib - 1) * MIB, 0);
			expect_eq(boot(&t, &image), -ENOEXEC);
			teardown(&t);
		}
	}
}

/* An image may fill RAM up to the reserved end, and not a byte more. */
TEST(boot, image_up_to_the_reserved_end)
{
	struct elf_segment s = segment(0x400000, 0, 16, 16);
	struct elf_image image = image_of(1, &s);
	struct boot_test t;
	gpa_t reserved;

	/* What is reserved depends on the addresses of the image, not on where in RAM it lies. */
	setup(&t, MIB, 0);
	expect_eq(boot(&t, &image), 0);
	reserved = t.state.reserved_start;
	teardown(&t);

	image.segments[0].paddr = reserved - PAGE_SIZE;
	image.segments[0].memsz = PAGE_SIZE;
	boot_and_check(MIB, &image);

	image.segments[0].memsz = PAGE_SIZE + 1;
	setup(&t, MIB, 0);
	expect_eq(boot(&t, &image), -ENOEXEC);
	expect_str_contains(t.why, "collides with the stack and page tables");
	teardown(&t);
}

TEST(boot, impossible_ram)
{
	static const uint64_t sizes[] = {
		0,	 PAGE_SIZE,	      MIB - PAGE_SIZE,
		MIB + 1, MIB + PAGE_SIZE / 2, BOOT_DIRECT_MAP_MAX + PAGE_SIZE,
		~0UL,	 PAGE_MASK,
	};
	struct elf_image image = typical_image();
	struct boot_test t;

	setup(&t, 2 * MIB, 0);
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		t.ram_size = sizes[i];
		expect_eq(boot(&t, &image), -EINVAL);
		expect_str_contains(t.why, "a guest cannot have 0x");
	}
	expect_eq(boot_guest(t.g.shadow, 1, &image, 0, &t.state, NULL, 0), -EINVAL);
	teardown(&t);
}

TEST(boot, no_memory)
{
	struct elf_image image = typical_image();
	struct boot_test t;
	pfn_t pfns[4096];
	unsigned int nr = 0;

	setup(&t, 2 * MIB, 2048);
	/* Leave fewer frames than the page tables need. */
	while (phys_nr_free(t.g.phys) > 6) {
		expect_le(nr + 1, ARRAY_SIZE(pfns));
		pfns[nr] = phys_alloc(t.g.phys);
		expect_ne(pfns[nr], INVALID_PFN);
		nr++;
	}
	expect_eq(boot(&t, &image), -ENOMEM);
	expect_str_contains(t.why, "of guest RAM failed: Cannot allocate memory");
	while (nr)
		phys_put(t.g.phys, pfns[--nr]);
	expect_eq(boot(&t, &image), 0);
	check_tables(&t);
	teardown(&t);
}
