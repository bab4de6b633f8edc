/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the loader takes from a guest's ELF file. A file is hostile input: whatever elf_parse lets
 * through has been checked, so that boot.c may copy and map it without looking twice.
 *
 * Promises about a parsed image, which boot.c builds on:
 *   1. Each segment's file bytes lie inside the file.
 *   2. No vaddr or paddr range wraps, not even when rounded out to whole pages.
 *   3. Each vaddr range, in whole pages, lies in [BOOT_LINK_MIN, BOOT_LINK_MAX) and outside the
 *      window of the direct map.
 *   4. vaddr and paddr of a segment agree modulo the page size.
 *   5. No two segments share a byte, and two that share a page, virtual or physical, have the same
 *      vaddr - paddr: a page is mapped one way only.
 *   6. Segments are in ascending order of vaddr, and the entry point lies in the file bytes of an
 *      executable one.
 * That the segments fit into the guest's RAM is boot_guest's business: only it knows the size.
 */
#ifndef VMM_ELF_H
#define VMM_ELF_H

#include <gnomon/types.h>

#define ELF_MAX_SEGMENTS 16

struct elf_segment {
	unsigned int phdr; /* its number among the program headers, for messages */
	gva_t vaddr;
	gpa_t paddr;
	uint64_t filesz; /* bytes at @data; the rest up to @memsz is zero */
	uint64_t memsz;	 /* > 0 */
	const uint8_t *data;
	bool executable;
};

struct elf_image {
	gva_t entry;
	unsigned int nr_segments; /* > 0 */
	struct elf_segment segments[ELF_MAX_SEGMENTS];
};

/*
 * Check the ELF file at [@image, @image + @len) and describe it in @out, which points into @image:
 * keep the file in place as long as @out is used. 0; -ENOEXEC, with one line in @why that names the
 * header and the value at fault and what would be right; -ENOMEM. Nothing to free.
 */
int elf_parse(const void *image, size_t len, struct elf_image *out, char *why, size_t why_len);

#endif
