/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ELF files of guests. libelf reads the headers (class, byte order and version conversions are its
 * trade); every number that it hands out is checked here before it is used, because a file may say
 * anything. What a parsed image promises is listed in elf.h.
 *
 * Nothing is allocated that outlives the call, and no state is shared between calls.
 */
#include "vmm/elf.h"

#include <errno.h>
#include <gelf.h>
#include <inttypes.h>
#include <libelf.h>
#include <string.h>

#include "guests/lib/boot.h"
#include "vmm/why.h"

/* The parse in progress. */
struct parse {
	const uint8_t *file;
	size_t len;
	struct elf_image *out;
	char *why;
	size_t why_len;
};

#define refuse(parse, ...) why_fail((parse)->why, (parse)->why_len, -ENOEXEC, __VA_ARGS__)

static const char *type_name(unsigned int e_type)
{
	switch (e_type) {
	case ET_REL:
		return "an object file";
	case ET_DYN:
		return "a shared object or position-independent program";
	case ET_CORE:
		return "a core dump";
	default:
		return "of an unknown kind";
	}
}

/* Bytes 0..15, before libelf sees anything: it would take archives, and 32-bit and big-endian files
 * too. */
static int check_ident(const struct parse *parse)
{
	const uint8_t *ident = parse->file;

	if (parse->len < SELFMAG || memcmp(ident, ELFMAG, SELFMAG))
		return refuse(parse, "not an ELF file: it does not begin with 7f 45 4c 46");
	if (parse->len < sizeof(Elf64_Ehdr))
		return refuse(parse, "truncated: %zu bytes, an ELF header alone has %zu",
			      parse->len, sizeof(Elf64_Ehdr));
	if (ident[EI_CLASS] != ELFCLASS64)
		return refuse(parse, "ELF class (byte 4) is %u, not 2: a guest is a 64-bit program",
			      ident[EI_CLASS]);
	if (ident[EI_DATA] != ELFDATA2LSB)
		return refuse(parse, "ELF byte order (byte 5) is %u, not 1, little-endian",
			      ident[EI_DATA]);
	if (ident[EI_VERSION] != EV_CURRENT)
		return refuse(parse, "ELF version (byte 6) is %u, not 1", ident[EI_VERSION]);
	return 0;
}

static int check_header(const struct parse *parse, const GElf_Ehdr *ehdr)
{
	uint64_t table_end;

	if (ehdr->e_machine != EM_X86_64)
		return refuse(parse, "e_machine is %u, not 62: a guest is an x86-64 program",
			      ehdr->e_machine);
	if (ehdr->e_type != ET_EXEC)
		return refuse(parse,
			      "e_type is %u, %s: a guest is an executable with fixed addresses "
			      "(2; link with -static -no-pie)",
			      ehdr->e_type, type_name(ehdr->e_type));
	if (ehdr->e_version != EV_CURRENT)
		return refuse(parse, "e_version is %u, not 1", ehdr->e_version);
	if (ehdr->e_phnum == 0)
		return refuse(parse, "e_phnum is 0: no program headers, so nothing to load");
	if (ehdr->e_phnum == PN_XNUM)
		return refuse(parse, "e_phnum is 0xffff: more program headers than a guest needs");
	if (ehdr->e_phentsize != sizeof(Elf64_Phdr))
		return refuse(parse, "e_phentsize is %u, not %zu", ehdr->e_phentsize,
			      sizeof(Elf64_Phdr));
	if (__builtin_add_overflow(ehdr->e_phoff, ehdr->e_phnum * sizeof(Elf64_Phdr), &table_end) ||
	    table_end > parse->len)
		return refuse(parse,
			      "e_phoff is 0x%" PRIx64 ": its %u program headers end beyond the "
			      "file's 0x%zx bytes (truncated?)",
			      ehdr->e_phoff, ehdr->e_phnum, parse->len);
	return 0;
}

static int check_ranges(const struct parse *parse, unsigned int n, const GElf_Phdr *phdr)
{
	uint64_t file_end, vaddr_end, paddr_end;

	if (phdr->p_filesz > phdr->p_memsz)
		return refuse(parse,
			      "program header %u: p_filesz 0x%" PRIx64 " is more than p_memsz "
			      "0x%" PRIx64,
			      n, phdr->p_filesz, phdr->p_memsz);
	if (__builtin_add_overflow(phdr->p_offset, phdr->p_filesz, &file_end) ||
	    file_end > parse->len)
		return refuse(parse,
			      "program header %u: p_offset 0x%" PRIx64 " + p_filesz 0x%" PRIx64
			      " ends beyond the file's 0x%zx bytes (truncated?)",
			      n, phdr->p_offset, phdr->p_filesz, parse->len);
	/* A page of slack, so that rounding out cannot wrap either. */
	if (__builtin_add_overflow(phdr->p_vaddr, phdr->p_memsz, &vaddr_end) ||
	    vaddr_end > PAGE_MASK)
		return refuse(parse,
			      "program header %u: p_vaddr 0x%" PRIx64 " + p_memsz 0x%" PRIx64
			      " wraps around the end of the address space",
			      n, phdr->p_vaddr, phdr->p_memsz);
	if (__builtin_add_overflow(phdr->p_paddr, phdr->p_memsz, &paddr_end) ||
	    paddr_end > PAGE_MASK)
		return refuse(parse,
			      "program header %u: p_paddr 0x%" PRIx64 " + p_memsz 0x%" PRIx64
			      " wraps around the end of the address space",
			      n, phdr->p_paddr, phdr->p_memsz);
	return 0;
}

static int check_placement(const struct parse *parse, unsigned int n, const GElf_Phdr *phdr)
{
	/* check_ranges has seen to it that none of these wraps. */
	uint64_t start = phdr->p_vaddr & PAGE_MASK;
	uint64_t end = PAGE_ALIGN(phdr->p_vaddr + phdr->p_memsz);

	if (start < BOOT_LINK_MIN || end > BOOT_LINK_MAX)
		return refuse(parse,
			      "program header %u: p_vaddr [0x%" PRIx64 ", 0x%" PRIx64
			      ") is not inside [0x%" PRIx64 ", 0x%" PRIx64 ")",
			      n, phdr->p_vaddr, phdr->p_vaddr + phdr->p_memsz,
			      (uint64_t)BOOT_LINK_MIN, (uint64_t)BOOT_LINK_MAX);
	if (start < BOOT_DIRECT_MAP + BOOT_DIRECT_MAP_MAX && end > BOOT_DIRECT_MAP)
		return refuse(parse,
			      "program header %u: p_vaddr [0x%" PRIx64 ", 0x%" PRIx64
			      ") is inside the direct map of RAM, [0x%" PRIx64 ", 0x%" PRIx64 ")",
			      n, phdr->p_vaddr, phdr->p_vaddr + phdr->p_memsz,
			      (uint64_t)BOOT_DIRECT_MAP,
			      (uint64_t)(BOOT_DIRECT_MAP + BOOT_DIRECT_MAP_MAX));
	if ((phdr->p_vaddr ^ phdr->p_paddr) & ~PAGE_MASK)
		return refuse(parse,
			      "program header %u: p_vaddr 0x%" PRIx64 " and p_paddr 0x%" PRIx64
			      " differ in their lower 12 bits: one page cannot map the other",
			      n, phdr->p_vaddr, phdr->p_paddr);
	return 0;
}

static bool pages_overlap(uint64_t a, uint64_t a_len, uint64_t b, uint64_t b_len)
{
	return (a & PAGE_MASK) < PAGE_ALIGN(b + b_len) && (b & PAGE_MASK) < PAGE_ALIGN(a + a_len);
}

static bool bytes_overlap(uint64_t a, uint64_t a_len, uint64_t b, uint64_t b_len)
{
	return a < b + b_len && b < a + a_len;
}

/* Promise 5. */
static int check_pair(const struct parse *parse, const struct elf_segment *a,
		      const struct elf_segment *b)
{
	bool same_delta = a->vaddr - a->paddr == b->vaddr - b->paddr;

	if (bytes_overlap(a->vaddr, a->memsz, b->vaddr, b->memsz))
		return refuse(parse,
			      "program headers %u and %u overlap: p_vaddr 0x%" PRIx64
			      " lies inside [0x%" PRIx64 ", 0x%" PRIx64 ")",
			      a->phdr, b->phdr, b->vaddr > a->vaddr ? b->vaddr : a->vaddr,
			      b->vaddr > a->vaddr ? a->vaddr : b->vaddr,
			      b->vaddr > a->vaddr ? a->vaddr + a->memsz : b->vaddr + b->memsz);
	if (same_delta)
		return 0;
	if (pages_overlap(a->vaddr, a->memsz, b->vaddr, b->memsz))
		return refuse(parse,
			      "program headers %u and %u share a page at p_vaddr 0x%" PRIx64
			      " but not at p_paddr (0x%" PRIx64 ", 0x%" PRIx64
			      "): start one of them on a page of its own",
			      a->phdr, b->phdr,
			      (b->vaddr > a->vaddr ? b->vaddr : a->vaddr) & PAGE_MASK, a->paddr,
			      b->paddr);
	if (pages_overlap(a->paddr, a->memsz, b->paddr, b->memsz))
		return refuse(parse,
			      "program headers %u and %u share a page at p_paddr 0x%" PRIx64
			      " but not at p_vaddr (0x%" PRIx64 ", 0x%" PRIx64
			      "): give each its own memory",
			      a->phdr, b->phdr,
			      (b->paddr > a->paddr ? b->paddr : a->paddr) & PAGE_MASK, a->vaddr,
			      b->vaddr);
	return 0;
}

/* Insert in order of vaddr; at most 16, so the plain way will do. */
static void insert_segment(struct elf_image *out, const struct elf_segment *segment)
{
	unsigned int i = out->nr_segments++;

	for (; i > 0 && out->segments[i - 1].vaddr > segment->vaddr; i--)
		out->segments[i] = out->segments[i - 1];
	out->segments[i] = *segment;
}

static int add_segment(const struct parse *parse, unsigned int n, const GElf_Phdr *phdr)
{
	struct elf_image *out = parse->out;
	struct elf_segment segment;
	unsigned int i;
	int err;

	err = check_ranges(parse, n, phdr);
	if (err)
		return err;
	/* Linkers leave empty ones behind; they ask for nothing. */
	if (phdr->p_memsz == 0)
		return 0;
	err = check_placement(parse, n, phdr);
	if (err)
		return err;
	if (out->nr_segments == ELF_MAX_SEGMENTS)
		return refuse(parse, "program header %u: more than %u PT_LOAD segments", n,
			      ELF_MAX_SEGMENTS);

	segment = (struct elf_segment){
		.phdr = n,
		.vaddr = phdr->p_vaddr,
		.paddr = phdr->p_paddr,
		.filesz = phdr->p_filesz,
		.memsz = phdr->p_memsz,
		.data = parse->file + phdr->p_offset,
		.executable = phdr->p_flags & PF_X,
	};
	for (i = 0; i < out->nr_segments; i++) {
		err = check_pair(parse, &out->segments[i], &segment);
		if (err)
			return err;
	}
	insert_segment(out, &segment);
	return 0;
}

static int add_phdr(const struct parse *parse, unsigned int n, const GElf_Phdr *phdr)
{
	switch (phdr->p_type) {
	case PT_LOAD:
		return add_segment(parse, n, phdr);
	case PT_INTERP:
		return refuse(parse,
			      "program header %u: PT_INTERP asks for a dynamic linker, and a guest "
			      "has none: link with -static",
			      n);
	case PT_DYNAMIC:
		return refuse(
			parse,
			"program header %u: PT_DYNAMIC asks for relocation, and nothing would "
			"do it: link with -static -no-pie",
			n);
	default:
		/* Notes, stack flags and the like load nothing. */
		return 0;
	}
}

static int check_entry(const struct parse *parse)
{
	const struct elf_image *out = parse->out;
	unsigned int i;

	for (i = 0; i < out->nr_segments; i++) {
		const struct elf_segment *segment = &out->segments[i];

		if (out->entry < segment->vaddr || out->entry - segment->vaddr >= segment->memsz)
			continue;
		if (!segment->executable)
			return refuse(parse,
				      "e_entry 0x%" PRIx64
				      " lies in program header %u, which is not "
				      "executable (PF_X)",
				      out->entry, segment->phdr);
		if (out->entry - segment->vaddr >= segment->filesz)
			return refuse(parse,
				      "e_entry 0x%" PRIx64
				      " lies in the zero-filled part of program "
				      "header %u, where there is no code",
				      out->entry, segment->phdr);
		return 0;
	}
	return refuse(parse, "e_entry 0x%" PRIx64 " lies in no PT_LOAD segment", out->entry);
}

static int parse_elf(const struct parse *parse, Elf *elf)
{
	GElf_Ehdr ehdr;
	GElf_Phdr phdr;
	unsigned int n;
	int err;

	if (elf_kind(elf) != ELF_K_ELF || !gelf_getehdr(elf, &ehdr))
		return refuse(parse, "the ELF header cannot be read: %s", elf_errmsg(-1));
	err = check_header(parse, &ehdr);
	if (err)
		return err;

	for (n = 0; n < ehdr.e_phnum; n++) {
		if (!gelf_getphdr(elf, n, &phdr))
			return refuse(parse, "program header %u cannot be read: %s", n,
				      elf_errmsg(-1));
		err = add_phdr(parse, n, &phdr);
		if (err)
			return err;
	}
	if (parse->out->nr_segments == 0)
		return refuse(parse,
			      "no PT_LOAD segment among the %u program headers: nothing to "
			      "load",
			      ehdr.e_phnum);

	parse->out->entry = ehdr.e_entry;
	return check_entry(parse);
}

int elf_parse(const void *image, size_t len, struct elf_image *out, char *why, size_t why_len)
{
	struct parse parse = {
		.file = image, .len = len, .out = out, .why = why, .why_len = why_len};
	Elf *elf;
	int err;

	*out = (struct elf_image){0};
	err = check_ident(&parse);
	if (err)
		return err;

	/* Says which ABI of libelf we mean, with the same answer each time: no need to do it only
	 * once. */
	if (elf_version(EV_CURRENT) == EV_NONE)
		return refuse(&parse, "this libelf is too old: %s", elf_errmsg(-1));

	/* Not const in libelf because of its other modes; this one reads. Fails for want of memory
	 * only, as the contents are looked at later. */
	elf = elf_memory((char *)image, len);
	if (!elf)
		return why_fail(why, why_len, -ENOMEM, "no memory to read the ELF file: %s",
				elf_errmsg(-1));
	err = parse_elf(&parse, elf);
	elf_end(elf);
	return err;
}
