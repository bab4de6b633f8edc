/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Laying a guest out in its RAM: gpa 0 upwards whatever the image asks for, and at the end of RAM
 *
 *	reserved_start    struct boot_info, in a page of its own
 *	+ 4 KiB           the stack, BOOT_STACK_SIZE; RSP starts at its end
 *	+ 20 KiB          page tables: the root, then all of level 3, of level 2, of level 1
 *	ram_size
 *
 * The tables of a level are stored in ascending order of the addresses they cover, without gaps. So
 * where a table lies follows from how many come before it (table_gpa), each is built whole in one
 * page-sized buffer and written once, and nothing needs to be read back.
 *
 * RAM is fresh, hence zero: only bytes that are to be something else are written, so a large guest
 * costs its page tables (2 MiB per GiB) and no more.
 */
#include "vmm/boot.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "guests/lib/boot.h"
#include "vmm/why.h"

#define MIB (1UL << 20)
#define GIB (1UL << 30)

/* Guest page-table entries, as the CPU defines them (SDM vol. 3, 4.5). All are the guest kernel's
 * own: no U bit. */
#define GPTE_P (1UL << 0)
#define GPTE_W (1UL << 1)
#define GPTE_A (1UL << 5)
#define GPTE_D (1UL << 6)

#define LEVELS	  4
#define ENTRIES	  512
#define MAX_RANGE (ELF_MAX_SEGMENTS + 1)

/* How far apart the entries of a table are, and the tables of a level. */
#define ENTRY_SHIFT(level) (PAGE_SHIFT + 9 * ((level)-1))
#define TABLE_SHIFT(level) (PAGE_SHIFT + 9 * (level))

/* The number of the table of @level that covers @gva. */
#define TABLE_INDEX(gva, level) ((gva) >> TABLE_SHIFT(level))

/* Whole pages; gva start + n is mapped to gpa pa + n. */
struct range {
	gva_t start;
	gva_t end;
	gpa_t pa;
};

struct layout {
	gpa_t image_start;
	gpa_t image_end;
	gpa_t boot_info; /* reserved_start */
	gpa_t stack_end;
	gpa_t tables[LEVELS + 1]; /* where each level's tables start; [0] is unused */
	uint64_t reserved;	  /* bytes */
	unsigned int nr_ranges;
	struct range ranges[MAX_RANGE]; /* ascending, disjoint */
};

static void add_range(struct layout *layout, gva_t start, gva_t end, gpa_t pa)
{
	gva_t last = layout->nr_ranges ? layout->ranges[layout->nr_ranges - 1].end : 0;

	/* The page that two segments share is mapped the same way by both (elf.h, promise 5). */
	if (start < last) {
		pa += last - start;
		start = last;
	}
	if (start < end)
		layout->ranges[layout->nr_ranges++] =
			(struct range){.start = start, .end = end, .pa = pa};
}

static void add_ranges(struct layout *layout, uint64_t ram_size, const struct elf_image *image)
{
	bool direct_map_added = false;
	unsigned int i;

	for (i = 0; i < image->nr_segments; i++) {
		const struct elf_segment *segment = &image->segments[i];

		if (!direct_map_added && segment->vaddr >= BOOT_DIRECT_MAP) {
			add_range(layout, BOOT_DIRECT_MAP, BOOT_DIRECT_MAP + ram_size, 0);
			direct_map_added = true;
		}
		add_range(layout, segment->vaddr & PAGE_MASK,
			  PAGE_ALIGN(segment->vaddr + segment->memsz), segment->paddr & PAGE_MASK);
	}
	if (!direct_map_added)
		add_range(layout, BOOT_DIRECT_MAP, BOOT_DIRECT_MAP + ram_size, 0);
}

/*
 * How many tables of @level lie below number @index. The level needs one for each number that some
 * range touches; neighbouring ranges may touch the same one.
 */
static uint64_t tables_below(const struct layout *layout, int level, uint64_t index)
{
	uint64_t next = 0; /* all numbers below this one are accounted for */
	uint64_t count = 0;
	unsigned int i;

	for (i = 0; i < layout->nr_ranges; i++) {
		const struct range *range = &layout->ranges[i];
		uint64_t first = TABLE_INDEX(range->start, level);
		uint64_t end = TABLE_INDEX(range->end - 1, level) + 1;

		if (first < next)
			first = next;
		if (end > index)
			end = index;
		if (first >= end)
			continue;
		count += end - first;
		next = end;
	}
	return count;
}

static gpa_t table_gpa(const struct layout *layout, int level, uint64_t index)
{
	return layout->tables[level] + (tables_below(layout, level, index) << PAGE_SHIFT);
}

static void init_layout(struct layout *layout, uint64_t ram_size, const struct elf_image *image)
{
	uint64_t nr_tables[LEVELS + 1];
	unsigned int i;
	int level;
	gpa_t gpa;

	*layout = (struct layout){.image_start = UINT64_MAX};
	for (i = 0; i < image->nr_segments; i++) {
		const struct elf_segment *segment = &image->segments[i];
		gpa_t start = segment->paddr & PAGE_MASK;
		gpa_t end = PAGE_ALIGN(segment->paddr + segment->memsz);

		if (start < layout->image_start)
			layout->image_start = start;
		if (end > layout->image_end)
			layout->image_end = end;
	}

	add_ranges(layout, ram_size, image);
	layout->reserved = PAGE_SIZE + BOOT_STACK_SIZE;
	for (level = LEVELS; level > 0; level--) {
		nr_tables[level] = tables_below(layout, level, UINT64_MAX);
		layout->reserved += nr_tables[level] << PAGE_SHIFT;
	}

	/* Meaningless if it is more than there is: check_fit finds out. */
	layout->boot_info = ram_size - layout->reserved;
	layout->stack_end = layout->boot_info + PAGE_SIZE + BOOT_STACK_SIZE;
	gpa = layout->stack_end;
	for (level = LEVELS; level > 0; level--) {
		layout->tables[level] = gpa;
		gpa += nr_tables[level] << PAGE_SHIFT;
	}
}

static const char *size_name(uint64_t size, char buf[32])
{
	if (size % GIB == 0)
		snprintf(buf, 32, "%" PRIu64 "G", size / GIB);
	else if (size % MIB == 0)
		snprintf(buf, 32, "%" PRIu64 "M", size / MIB);
	else
		snprintf(buf, 32, "%" PRIu64 "K", size / 1024);
	return buf;
}

/*
 * The advice at the end of a refusal. More RAM needs more tables, which need more RAM: 1/512 of it,
 * so this settles after a step or two. An image that asks for tens of gigabytes is a mistake in a
 * linker script rather than a large guest.
 */
static void advise(uint64_t ram_size, const struct elf_image *image, char buf[64])
{
	struct layout layout;
	uint64_t need = ram_size;
	char size[32];

	do {
		ram_size = need;
		init_layout(&layout, ram_size, image);
		if (layout.image_end > 64 * GIB)
			break;
		need = (layout.image_end + layout.reserved + MIB - 1) & ~(MIB - 1);
	} while (need > ram_size);

	if (layout.image_end > 64 * GIB)
		snprintf(buf, 64, "link it to a lower p_paddr");
	else
		snprintf(buf, 64, "try --mem %s", size_name(ram_size, size));
}

static int check_fit(const struct layout *layout, uint64_t ram_size, const struct elf_image *image,
		     char *why, size_t why_len)
{
	char size[32], advice[64];
	unsigned int i;

	for (i = 0; i < image->nr_segments; i++) {
		const struct elf_segment *segment = &image->segments[i];
		gpa_t end = segment->paddr + segment->memsz;

		if (PAGE_ALIGN(end) <= ram_size)
			continue;
		advise((ram_size + MIB - 1) & ~(MIB - 1), image, advice);
		return why_fail(why, why_len, -ENOEXEC,
				"segment %u [0x%" PRIx64 ", 0x%" PRIx64
				") lies outside the guest's %s of RAM; %s",
				segment->phdr, segment->paddr, end, size_name(ram_size, size),
				advice);
	}
	for (i = 0; i < image->nr_segments; i++) {
		const struct elf_segment *segment = &image->segments[i];
		gpa_t end = segment->paddr + segment->memsz;

		if (layout->reserved <= ram_size && PAGE_ALIGN(end) <= layout->boot_info)
			continue;
		advise((ram_size + MIB - 1) & ~(MIB - 1), image, advice);
		return why_fail(why, why_len, -ENOEXEC,
				"segment %u [0x%" PRIx64 ", 0x%" PRIx64
				") collides with the stack and page tables in the last 0x%" PRIx64
				" bytes of the guest's %s of RAM; %s",
				segment->phdr, segment->paddr, end, layout->reserved,
				size_name(ram_size, size), advice);
	}
	return 0;
}

static int write_ram(struct shadow *shadow, gpa_t gpa, const void *data, size_t len,
		     const char *what, char *why, size_t why_len)
{
	int err = shadow_write_gpa(shadow, gpa, data, len);

	if (err)
		return why_fail(why, why_len, err,
				"writing %s at 0x%" PRIx64 " of guest RAM failed: %s", what, gpa,
				strerror(-err));
	return 0;
}

/* Fill in the entries of table number @index of @level that lie in @range. */
static void fill_table(const struct layout *layout, int level, uint64_t index,
		       const struct range *range, uint64_t table[ENTRIES])
{
	gva_t start = index << TABLE_SHIFT(level);
	gva_t end = start + (1UL << TABLE_SHIFT(level));
	uint64_t i, last;

	if (range->start >= end || range->end <= start)
		return;
	i = range->start > start ? (range->start - start) >> ENTRY_SHIFT(level) : 0;
	last = range->end < end ? (range->end - 1 - start) >> ENTRY_SHIFT(level) : ENTRIES - 1;
	for (; i <= last; i++) {
		gva_t gva = start + (i << ENTRY_SHIFT(level));

		if (level == 1)
			table[i] = (range->pa + (gva - range->start)) | GPTE_P | GPTE_W | GPTE_A |
				   GPTE_D;
		else
			table[i] = table_gpa(layout, level - 1, TABLE_INDEX(gva, level - 1)) |
				   GPTE_P | GPTE_W | GPTE_A;
	}
}

static int write_level(struct shadow *shadow, const struct layout *layout, int level, char *why,
		       size_t why_len)
{
	uint64_t table[ENTRIES];
	uint64_t next = 0; /* as in tables_below */
	gpa_t gpa = layout->tables[level];
	unsigned int i, j;
	int err;

	for (i = 0; i < layout->nr_ranges; i++) {
		const struct range *range = &layout->ranges[i];
		uint64_t index = TABLE_INDEX(range->start, level);

		for (index = index < next ? next : index;
		     index <= TABLE_INDEX(range->end - 1, level); index++) {
			memset(table, 0, sizeof(table));
			for (j = i; j < layout->nr_ranges; j++)
				fill_table(layout, level, index, &layout->ranges[j], table);
			err = write_ram(shadow, gpa, table, sizeof(table), "a page table", why,
					why_len);
			if (err)
				return err;
			gpa += PAGE_SIZE;
			next = index + 1;
		}
	}
	return 0;
}

static int write_image(struct shadow *shadow, const struct elf_image *image, char *why,
		       size_t why_len)
{
	unsigned int i;
	int err;

	for (i = 0; i < image->nr_segments; i++) {
		const struct elf_segment *segment = &image->segments[i];

		err = write_ram(shadow, segment->paddr, segment->data, segment->filesz, "a segment",
				why, why_len);
		if (err)
			return err;
	}
	return 0;
}

uint64_t boot_frames(uint64_t ram_size, const struct elf_image *image)
{
	struct layout layout;
	uint64_t bytes;

	init_layout(&layout, ram_size, image);
	bytes = layout.reserved;
	for (unsigned int i = 0; i < image->nr_segments; i++) {
		const struct elf_segment *segment = &image->segments[i];

		bytes +=
			PAGE_ALIGN(segment->paddr + segment->filesz) - (segment->paddr & PAGE_MASK);
	}
	return bytes >> PAGE_SHIFT;
}

int boot_check_reach(const struct elf_image *image, const struct engine *engine, char *why,
		     size_t why_len)
{
	const struct machine *machine = &engine->machine;

	for (unsigned int i = 0; i < image->nr_segments; i++) {
		const struct elf_segment *segment = &image->segments[i];
		gva_t start = segment->vaddr & PAGE_MASK;
		gva_t end = PAGE_ALIGN(segment->vaddr + segment->memsz);

		if (machine_reaches(machine, start) && machine_reaches(machine, end - 1))
			continue;
		return why_fail(
			why, why_len, -ENOEXEC,
			"segment %u [0x%" PRIx64 ", 0x%" PRIx64
			") is out of reach: CPUs of the %s engine have the addresses [0x%" PRIx64
			", 0x%" PRIx64 "); try --engine kvm",
			segment->phdr, start, end, engine->ops->name, machine->gva_first,
			machine->gva_end);
	}
	return 0;
}

int boot_guest(struct shadow *shadow, uint64_t ram_size, const struct elf_image *image,
	       uint64_t seed, struct boot_state *out, char *why, size_t why_len)
{
	struct layout layout;
	struct boot_info info;
	int err, level;

	if (!PAGE_ALIGNED(ram_size) || ram_size < BOOT_MIN_RAM || ram_size > BOOT_DIRECT_MAP_MAX)
		return why_fail(why, why_len, -EINVAL,
				"a guest cannot have 0x%" PRIx64
				" bytes of RAM: whole pages, and 1M to 32T, are possible",
				ram_size);
	init_layout(&layout, ram_size, image);
	err = check_fit(&layout, ram_size, image, why, why_len);
	if (err)
		return err;

	err = write_image(shadow, image, why, why_len);
	if (err)
		return err;
	for (level = LEVELS; level > 0; level--) {
		err = write_level(shadow, &layout, level, why, why_len);
		if (err)
			return err;
	}
	info = (struct boot_info){
		.magic = BOOT_MAGIC,
		.version = BOOT_VERSION,
		.ram_size = ram_size,
		.image_start = layout.image_start,
		.image_end = layout.image_end,
		.reserved_start = layout.boot_info,
		.cr3 = layout.tables[LEVELS],
		.seed = seed,
	};
	err = write_ram(shadow, layout.boot_info, &info, sizeof(info), "boot_info", why, why_len);
	if (err)
		return err;

	*out = (struct boot_state){
		.entry = image->entry,
		.rsp = BOOT_DIRECT_MAP + layout.stack_end,
		.rdi = BOOT_DIRECT_MAP + layout.boot_info,
		.cr3 = info.cr3,
		.image_start = layout.image_start,
		.image_end = layout.image_end,
		.reserved_start = layout.boot_info,
	};
	return 0;
}
