/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The ELF loader against files that lie. The base is one small valid file; each case changes one
 * thing about it. Whatever is accepted must keep the promises of vmm/elf.h, which are checked here
 * anew, from the outside; whatever is refused must say why in one line.
 *
 * A file is laid so that it ends where readable memory ends: reading beyond it is a crash, in
 * libelf too, which no sanitizer looks into.
 */
#include <elf.h>
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "guests/lib/boot.h"
#include "notifier/sync/util.h"
#include "tests/support/test.h"
#include "vmm/elf.h"

#define TEXT_VADDR 0x400000
#define TEXT_PADDR 0x10000
#define DATA_VADDR 0x402000
#define DATA_PADDR 0x12000
#define DATA_MEMSZ 0x2345

#define ARENA (4 * PAGE_SIZE)

struct file {
	Elf64_Ehdr ehdr;
	Elf64_Phdr phdr[3]; /* text, data, stack flags */
	uint8_t text[40];
	uint8_t data[24];
	Elf64_Shdr shdr[2]; /* of no interest to a loader */
};

/* What a loader needs of the file: a file cut off behind this is complete. */
#define NEEDED offsetof(struct file, shdr)

static struct file valid_file(void)
{
	struct file file = {
		.ehdr = {.e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB,
				     EV_CURRENT},
			 .e_type = ET_EXEC,
			 .e_machine = EM_X86_64,
			 .e_version = EV_CURRENT,
			 .e_entry = TEXT_VADDR + 8,
			 .e_phoff = offsetof(struct file, phdr),
			 .e_shoff = offsetof(struct file, shdr),
			 .e_ehsize = sizeof(Elf64_Ehdr),
			 .e_phentsize = sizeof(Elf64_Phdr),
			 .e_phnum = 3,
			 .e_shentsize = sizeof(Elf64_Shdr),
			 .e_shnum = 2},
		.phdr = {{.p_type = PT_LOAD,
			  .p_flags = PF_R | PF_X,
			  .p_offset = offsetof(struct file, text),
			  .p_vaddr = TEXT_VADDR,
			  .p_paddr = TEXT_PADDR,
			  .p_filesz = 40,
			  .p_memsz = 40,
			  .p_align = PAGE_SIZE},
			 {.p_type = PT_LOAD,
			  .p_flags = PF_R | PF_W,
			  .p_offset = offsetof(struct file, data),
			  .p_vaddr = DATA_VADDR,
			  .p_paddr = DATA_PADDR,
			  .p_filesz = 24,
			  .p_memsz = DATA_MEMSZ,
			  .p_align = PAGE_SIZE},
			 {.p_type = PT_GNU_STACK, .p_flags = PF_R | PF_W}},
		.shdr = {{0}, {.sh_type = SHT_PROGBITS, .sh_size = 40}},
	};

	memset(file.text, 0x90, sizeof(file.text));
	memset(file.data, 0x5a, sizeof(file.data));
	return file;
}

/* ARENA bytes of which nobody can read past the end. One per test: each runs in its own process. */
static uint8_t *arena(void)
{
	static uint8_t *base;

	if (!base) {
		base = mmap(NULL, ARENA + PAGE_SIZE, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		expect(base != MAP_FAILED);
		expect_eq(mprotect(base + ARENA, PAGE_SIZE, PROT_NONE), 0);
	}
	return base;
}

/* Parse @len bytes that end @gap bytes before the unreadable page. */
static int parse_at(const void *file, size_t len, size_t gap, struct elf_image *out, char why[256])
{
	uint8_t *at = arena() + ARENA - gap - len;
	int ret;

	memcpy(at, file, len);
	memset(why, 'x', 256);
	/* The file is mapped read-only in the program. */
	expect_eq(mprotect(arena(), ARENA, PROT_READ), 0);
	ret = elf_parse(at, len, out, why, 256);
	expect_eq(mprotect(arena(), ARENA, PROT_READ | PROT_WRITE), 0);
	return ret;
}

static void check_promises(const uint8_t *file, size_t len, const struct elf_image *image)
{
	bool entry = false;

	expect_ge(image->nr_segments, 1);
	expect_le(image->nr_segments, ELF_MAX_SEGMENTS);
	for (unsigned int i = 0; i < image->nr_segments; i++) {
		const struct elf_segment *s = &image->segments[i];
		/* Wide enough that none of the sums below can wrap. */
		unsigned __int128 vend = (unsigned __int128)s->vaddr + s->memsz;
		unsigned __int128 pend = (unsigned __int128)s->paddr + s->memsz;

		expect(s->memsz > 0 && s->filesz <= s->memsz);
		expect(s->data >= file && s->data <= file + len);
		expect(s->filesz <= (size_t)(file + len - s->data));
		expect(s->vaddr >= BOOT_LINK_MIN && vend <= BOOT_LINK_MAX);
		expect(vend <= BOOT_DIRECT_MAP ||
		       s->vaddr >= BOOT_DIRECT_MAP + BOOT_DIRECT_MAP_MAX);
		expect(pend + PAGE_SIZE - 1 <= UINT64_MAX);
		expect_eq(s->vaddr % PAGE_SIZE, s->paddr % PAGE_SIZE);
		if (s->executable && image->entry >= s->vaddr &&
		    image->entry < s->vaddr + s->filesz)
			entry = true;

		for (unsigned int j = 0; j < i; j++) {
			const struct elf_segment *t = &image->segments[j];
			uint64_t v = s->vaddr >> PAGE_SHIFT, w = (t->vaddr + t->memsz - 1) >> 12;
			uint64_t p = s->paddr >> PAGE_SHIFT, q = (t->paddr + t->memsz - 1) >> 12;
			bool same = s->vaddr - s->paddr == t->vaddr - t->paddr;

			expect(t->vaddr + t->memsz <= s->vaddr);
			expect(same || w < v);
			expect(same || q < p ||
			       (s->paddr + s->memsz - 1) >> 12 < t->paddr >> PAGE_SHIFT);
		}
	}
	expect(entry);
}

/* Parse in the tightest place; whatever comes out must be well formed. */
static int parse(const void *file, size_t len, struct elf_image *out, char why[256])
{
	int ret = parse_at(file, len, 0, out, why);

	if (ret == 0) {
		check_promises(arena() + ARENA - len, len, out);
		return 0;
	}
	expect_eq(ret, -ENOEXEC);
	expect(memchr(why, '\0', 256) && why[0] && !strchr(why, '\n'));
	return ret;
}

TEST(elf, valid_file)
{
	struct file file = valid_file();
	struct elf_image image;
	const uint8_t *at = arena() + ARENA - sizeof(file);
	char why[256];

	expect_eq(parse(&file, sizeof(file), &image, why), 0);
	expect_eq(image.entry, TEXT_VADDR + 8);
	expect_eq(image.nr_segments, 2);

	expect_eq(image.segments[0].phdr, 0);
	expect_eq(image.segments[0].vaddr, TEXT_VADDR);
	expect_eq(image.segments[0].paddr, TEXT_PADDR);
	expect_eq(image.segments[0].filesz, 40);
	expect_eq(image.segments[0].memsz, 40);
	expect_eq(image.segments[0].data, at + offsetof(struct file, text));
	expect(image.segments[0].executable);

	expect_eq(image.segments[1].phdr, 1);
	expect_eq(image.segments[1].vaddr, DATA_VADDR);
	expect_eq(image.segments[1].paddr, DATA_PADDR);
	expect_eq(image.segments[1].filesz, 24);
	expect_eq(image.segments[1].memsz, DATA_MEMSZ);
	expect_eq(image.segments[1].data, at + offsetof(struct file, data));
	expect(!image.segments[1].executable);
}

TEST(elf, sorts_segments)
{
	struct file file = valid_file();
	struct elf_image image;
	char why[256];

	file.phdr[2] = file.phdr[0];
	file.phdr[0] = file.phdr[1];
	file.phdr[1] = (Elf64_Phdr){.p_type = PT_NOTE, .p_offset = ~0UL, .p_filesz = ~0UL};
	expect_eq(parse(&file, sizeof(file), &image, why), 0);
	expect_eq(image.nr_segments, 2);
	expect_eq(image.segments[0].vaddr, TEXT_VADDR);
	expect_eq(image.segments[0].phdr, 2);
	expect_eq(image.segments[1].vaddr, DATA_VADDR);
	expect_eq(image.segments[1].phdr, 0);
}

/* A file may lie at any address: libelf converts a misaligned one in memory of its own. */
TEST(elf, misaligned_file)
{
	struct file file = valid_file();

	for (size_t gap = 0; gap < 17; gap++) {
		struct elf_image image;
		char why[256];

		expect_eq(parse_at(&file, sizeof(file), gap, &image, why), 0);
		check_promises(arena() + ARENA - gap - sizeof(file), sizeof(file), &image);
	}
}

TEST(elf, why_may_be_missing_or_short)
{
	struct file file = valid_file();
	struct elf_image image;
	char why[4] = "abc";

	file.ehdr.e_type = ET_DYN;
	expect_eq(elf_parse(&file, sizeof(file), &image, NULL, 0), -ENOEXEC);
	expect_eq(elf_parse(&file, sizeof(file), &image, why, 0), -ENOEXEC);
	expect_str_eq(why, "abc");
	expect_eq(elf_parse(&file, sizeof(file), &image, why, sizeof(why)), -ENOEXEC);
	expect_str_eq(why, "e_t");
}

struct corruption {
	size_t offset;
	size_t size;
	uint64_t value;
	const char *why; /* NULL: still fine */
};

#define AT(field, value, why)                                                               \
	{                                                                                   \
		offsetof(struct file, field), sizeof(((struct file *)0)->field), value, why \
	}

#define DM_END (BOOT_DIRECT_MAP + BOOT_DIRECT_MAP_MAX)

static const struct corruption corruptions[] = {
	AT(ehdr.e_ident[EI_MAG0], 'E', "not an ELF file"),
	AT(ehdr.e_ident[EI_MAG3], 0, "not an ELF file"),
	AT(ehdr.e_ident[EI_CLASS], ELFCLASS32, "ELF class (byte 4) is 1, not 2"),
	AT(ehdr.e_ident[EI_CLASS], 0, "ELF class (byte 4) is 0, not 2"),
	AT(ehdr.e_ident[EI_DATA], ELFDATA2MSB, "ELF byte order (byte 5) is 2, not 1"),
	AT(ehdr.e_ident[EI_VERSION], 0, "ELF version (byte 6) is 0, not 1"),
	AT(ehdr.e_ident[EI_OSABI], ELFOSABI_STANDALONE, NULL),
	AT(ehdr.e_type, ET_NONE, "e_type is 0, of an unknown kind"),
	AT(ehdr.e_type, ET_REL, "e_type is 1, an object file"),
	AT(ehdr.e_type, ET_DYN, "e_type is 3, a shared object or position-independent"),
	AT(ehdr.e_type, ET_CORE, "e_type is 4, a core dump"),
	AT(ehdr.e_machine, EM_386, "e_machine is 3, not 62"),
	AT(ehdr.e_version, 2, "e_version is 2, not 1"),
	AT(ehdr.e_phnum, 0, "e_phnum is 0"),
	AT(ehdr.e_phnum, 2, NULL),
	AT(ehdr.e_phnum, 200, "e_phoff is 0x40: its 200 program headers end beyond"),
	AT(ehdr.e_phnum, PN_XNUM, "e_phnum is 0xffff"),
	AT(ehdr.e_phentsize, 32, "e_phentsize is 32, not 56"),
	AT(ehdr.e_phentsize, 64, "e_phentsize is 64, not 56"),
	AT(ehdr.e_phoff, sizeof(struct file), "its 3 program headers end beyond the file's"),
	AT(ehdr.e_phoff, 0xffffffffffffffc0, "its 3 program headers end beyond the file's"),
	AT(ehdr.e_shoff, 0xffffffffffffffc0, NULL),
	AT(ehdr.e_shnum, 0xfeff, NULL),
	AT(ehdr.e_shstrndx, SHN_XINDEX, NULL),

	AT(ehdr.e_entry, 0, "e_entry 0x0 lies in no PT_LOAD segment"),
	AT(ehdr.e_entry, TEXT_VADDR - 1, "e_entry 0x3fffff lies in no PT_LOAD segment"),
	AT(ehdr.e_entry, TEXT_VADDR, NULL),
	AT(ehdr.e_entry, TEXT_VADDR + 39, NULL),
	AT(ehdr.e_entry, TEXT_VADDR + 40, "e_entry 0x400028 lies in no PT_LOAD segment"),
	AT(ehdr.e_entry, DATA_VADDR, "program header 1, which is not executable"),
	AT(phdr[0].p_flags, PF_R | PF_W, "program header 0, which is not executable"),

	AT(phdr[0].p_type, PT_NULL, "e_entry 0x400008 lies in no PT_LOAD segment"),
	AT(phdr[2].p_type, PT_INTERP, "program header 2: PT_INTERP"),
	AT(phdr[2].p_type, PT_DYNAMIC, "program header 2: PT_DYNAMIC"),
	AT(phdr[2].p_type, PT_LOAD, NULL), /* an empty one */
	AT(phdr[2].p_type, PT_TLS, NULL),

	AT(phdr[0].p_filesz, 41, "program header 0: p_filesz 0x29 is more than p_memsz 0x28"),
	AT(phdr[0].p_filesz, 8, "program header 0, where there is no code"),
	AT(phdr[0].p_filesz, 9, NULL),
	AT(phdr[0].p_offset, sizeof(struct file) - 39,
	   "program header 0: p_offset 0x181 + p_filesz 0x28 ends beyond the file's 0x1a8"),
	AT(phdr[0].p_offset, sizeof(struct file) - 40, NULL),
	AT(phdr[0].p_offset, 0xffffffffffffffff, "program header 0: p_offset 0xffffffffffffffff"),
	AT(phdr[1].p_filesz, 0, NULL),
	AT(phdr[1].p_memsz, 23, "program header 1: p_filesz 0x18 is more than p_memsz 0x17"),
	AT(phdr[1].p_memsz, 0xffffffffffffffff,
	   "program header 1: p_vaddr 0x402000 + p_memsz "
	   "0xffffffffffffffff wraps"),
	AT(phdr[1].p_memsz, 0xffffffffffbfd001,
	   "program header 1: p_vaddr 0x402000 + p_memsz "
	   "0xffffffffffbfd001 wraps"),
	AT(phdr[1].p_vaddr, 0xffffffffffffe000, "program header 1: p_vaddr 0xffffffffffffe000 + "),
	AT(phdr[1].p_paddr, 0xffffffffffffe000, "program header 1: p_paddr 0xffffffffffffe000 + "),
	AT(phdr[1].p_paddr, 0xffffffffffff0000, NULL), /* beyond any RAM: boot_guest's to refuse */

	AT(phdr[1].p_vaddr, 0, "program header 1: p_vaddr [0x0, 0x2345) is not inside [0x100000, "),
	AT(phdr[1].p_vaddr, BOOT_LINK_MIN - PAGE_SIZE, "is not inside [0x100000, 0x7f8000000000)"),
	AT(phdr[1].p_vaddr, BOOT_LINK_MIN, NULL),
	AT(phdr[1].p_vaddr, BOOT_LINK_MAX - 0x2000, "p_vaddr [0x7f7fffffe000, 0x7f8000000345)"),
	AT(phdr[1].p_vaddr, BOOT_LINK_MAX - 0x3000, NULL),
	AT(phdr[1].p_vaddr, BOOT_LINK_MAX, "is not inside"),
	AT(phdr[1].p_vaddr, 0xffff800000000000, "is not inside"),
	AT(phdr[1].p_vaddr, BOOT_DIRECT_MAP - 0x3000, NULL),
	AT(phdr[1].p_vaddr, BOOT_DIRECT_MAP - 0x2000,
	   "is inside the direct map of RAM, "
	   "[0x400000000000, 0x600000000000)"),
	AT(phdr[1].p_vaddr, BOOT_DIRECT_MAP, "is inside the direct map"),
	AT(phdr[1].p_vaddr, DM_END - 0x1000, "is inside the direct map"),
	AT(phdr[1].p_vaddr, DM_END, NULL),
	AT(phdr[1].p_memsz, BOOT_DIRECT_MAP + BOOT_DIRECT_MAP_MAX, "is inside the direct map"),
	AT(phdr[1].p_vaddr, DATA_VADDR + 1,
	   "program header 1: p_vaddr 0x402001 and p_paddr "
	   "0x12000 differ in their lower 12 bits"),
	AT(phdr[1].p_paddr, DATA_PADDR + 0x800, "p_paddr 0x12800 differ in their lower 12 bits"),

	AT(phdr[1].p_vaddr, TEXT_VADDR, "program headers 0 and 1 overlap: p_vaddr 0x400000"),
	AT(phdr[1].p_vaddr, TEXT_VADDR - 0x2000,
	   "program headers 0 and 1 overlap: p_vaddr "
	   "0x400000 lies inside [0x3fe000, 0x400345)"),
	AT(phdr[0].p_memsz, 0x2001,
	   "program headers 0 and 1 overlap: p_vaddr 0x402000 lies "
	   "inside [0x400000, 0x402001)"),
	AT(phdr[0].p_memsz, 0x2000, NULL),
	AT(phdr[1].p_paddr, TEXT_PADDR, "program headers 0 and 1 share a page at p_paddr 0x10000"),
	AT(phdr[1].p_paddr, TEXT_PADDR - 0x2000,
	   "program headers 0 and 1 share a page at p_paddr "
	   "0x10000"),
	AT(phdr[1].p_paddr, TEXT_PADDR - 0x3000, NULL),
};

TEST(elf, one_field_wrong)
{
	unsigned int refused = 0;

	for (size_t i = 0; i < ARRAY_SIZE(corruptions); i++) {
		const struct corruption *c = &corruptions[i];
		struct file file = valid_file();
		struct elf_image image;
		char why[256];
		int ret;

		memcpy((uint8_t *)&file + c->offset, &c->value, c->size);
		ret = parse(&file, sizeof(file), &image, why);
		if (c->why) {
			if (ret == 0)
				fail("case %zu was accepted, not refused with \"%s\"", i, c->why);
			if (!strstr(why, c->why))
				fail("case %zu: \"%s\" does not say \"%s\"", i, why, c->why);
			refused++;
		} else if (ret) {
			fail("case %zu was refused: %s", i, why);
		}
	}
	expect_ge(refused, 50);
	expect_ge(ARRAY_SIZE(corruptions) - refused, 10);
}

/* Two segments in one page: fine if the page is mapped the same way for both. */
TEST(elf, shared_pages)
{
	struct file file = valid_file();
	struct elf_image image;
	char why[256];

	file.phdr[1].p_vaddr = TEXT_VADDR + 40;
	file.phdr[1].p_paddr = TEXT_PADDR + 40;
	expect_eq(parse(&file, sizeof(file), &image, why), 0);

	file.phdr[1].p_paddr = TEXT_PADDR + 0x5000 + 40;
	expect_eq(parse(&file, sizeof(file), &image, why), -ENOEXEC);
	expect_str_contains(why, "program headers 0 and 1 share a page at p_vaddr 0x400000 but "
				 "not at p_paddr (0x10000, 0x15028)");
}

TEST(elf, adjacent_segments)
{
	struct file file = valid_file();
	struct elf_image image;
	char why[256];

	file.phdr[1].p_vaddr = TEXT_VADDR - 0x2000;
	file.phdr[1].p_paddr = TEXT_PADDR - 0x2000;
	file.phdr[1].p_memsz = 0x2000;
	expect_eq(parse(&file, sizeof(file), &image, why), 0);
	file.phdr[1].p_memsz = 0x2001;
	expect_eq(parse(&file, sizeof(file), &image, why), -ENOEXEC);
	expect_str_contains(why, "program headers 0 and 1 overlap: p_vaddr 0x400000 lies inside "
				 "[0x3fe000, 0x400001)");
}

/* A file with many program headers, all empty but for those a case fills in. */
struct long_file {
	Elf64_Ehdr ehdr;
	Elf64_Phdr phdr[ELF_MAX_SEGMENTS + 4];
};

static struct long_file many_segments(unsigned int nr)
{
	struct long_file file = {.ehdr = valid_file().ehdr};

	file.ehdr.e_shoff = 0;
	file.ehdr.e_shnum = 0;
	file.ehdr.e_phnum = ARRAY_SIZE(file.phdr);
	for (unsigned int i = 0; i < nr; i++)
		file.phdr[ARRAY_SIZE(file.phdr) - 1 - i] = (Elf64_Phdr){
			.p_type = PT_LOAD,
			.p_flags = PF_X,
			.p_filesz = 16,
			.p_memsz = PAGE_SIZE,
			.p_vaddr = TEXT_VADDR + i * PAGE_SIZE,
			.p_paddr = TEXT_PADDR + i * PAGE_SIZE,
		};
	return file;
}

TEST(elf, number_of_segments)
{
	struct long_file file = many_segments(ELF_MAX_SEGMENTS);
	struct elf_image image;
	char why[256];

	expect_eq(parse(&file, sizeof(file), &image, why), 0);
	expect_eq(image.nr_segments, ELF_MAX_SEGMENTS);
	for (unsigned int i = 0; i < ELF_MAX_SEGMENTS; i++)
		expect_eq(image.segments[i].vaddr, TEXT_VADDR + i * PAGE_SIZE);

	file = many_segments(ELF_MAX_SEGMENTS + 1);
	expect_eq(parse(&file, sizeof(file), &image, why), -ENOEXEC);
	expect_str_contains(why, "more than 16 PT_LOAD segments");

	file = many_segments(0);
	expect_eq(parse(&file, sizeof(file), &image, why), -ENOEXEC);
	expect_str_contains(why, "no PT_LOAD segment among the 20 program headers");
}

TEST(elf, truncated_at_every_length)
{
	struct file file = valid_file();

	for (size_t len = 0; len < sizeof(file); len++) {
		struct elf_image image;
		char why[256];
		int ret = parse(&file, len, &image, why);

		/* The section headers at the end are nobody's loss. */
		if (len >= NEEDED)
			expect_eq(ret, 0);
		else
			expect_eq(ret, -ENOEXEC);
		if (len < SELFMAG)
			expect_str_contains(why, "not an ELF file");
		else if (len < NEEDED)
			expect_str_contains(why, "truncated");
	}
}

/* Every byte of the headers, with each of a few values that tend to hurt. */
TEST(elf, every_header_byte)
{
	static const uint8_t flips[] = {0x01, 0x02, 0x08, 0x20, 0x40, 0x80, 0x7f, 0xff};
	unsigned int accepted = 0, refused = 0;

	for (size_t i = 0; i < offsetof(struct file, text); i++) {
		for (size_t j = 0; j < ARRAY_SIZE(flips); j++) {
			struct file file = valid_file();
			struct elf_image image;
			char why[256];

			((uint8_t *)&file)[i] ^= flips[j];
			if (parse(&file, sizeof(file), &image, why))
				refused++;
			else
				accepted++;
		}
	}
	expect_ge(refused, 500);
	expect_ge(accepted, 200);
}

static uint64_t next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

/* Several fields at once, set to values from the neighbourhood of limits. */
TEST(elf, many_fields_at_once)
{
	static const uint64_t edges[] = {
		0,
		1,
		0x28,
		0x40,
		0xfff,
		0x1000,
		0x1001,
		0x10000,
		TEXT_VADDR,
		DATA_VADDR,
		BOOT_LINK_MIN,
		BOOT_LINK_MAX,
		BOOT_DIRECT_MAP,
		DM_END,
		1UL << 63,
		~0UL,
		~0xfffUL,
		sizeof(struct file),
		offsetof(struct file, text),
	};
	unsigned int rounds = test_long() ? 2000000 : 50000;
	unsigned int accepted = 0, refused = 0;
	uint64_t state = 20240601;

	for (unsigned int round = 0; round < rounds; round++) {
		struct file file = valid_file();
		struct elf_image image;
		uint64_t random = next_random(&state);
		char why[256];

		for (unsigned int n = 1 + random % 3; n; n--) {
			uint64_t *field;

			/* Eight-byte fields of the PT_LOAD headers; they begin behind p_flags. */
			random = next_random(&state);
			field = &file.phdr[random & 1].p_offset + (random >> 1) % 5;
			*field = edges[(random >> 8) % ARRAY_SIZE(edges)] +
				 (random >> 32) % 3 * ((random >> 40) & 1 ? 1 : -1UL);
		}
		if (parse(&file, sizeof(file), &image, why))
			refused++;
		else
			accepted++;
	}
	expect_ge(refused, rounds / 10);
	expect_ge(accepted, rounds / 50);
}
