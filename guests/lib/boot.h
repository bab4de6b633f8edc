/* SPDX-License-Identifier: 0BSD */
/*
 * What the loader promises a guest, and the ports it may use. Read by both sides: the VMM
 * (vmm/boot.c) and guests.
 *
 * At entry: 64-bit mode, paging on, interrupts off, RIP = the ELF entry point, RDI = gva of struct
 * boot_info, RSP = top of a 16 KiB stack (16-byte aligned, so push a return address or not as you
 * like), all other registers 0, segments flat. The guest runs as a kernel (virtual CPL 0) but SSE,
 * IDT and GDT are not set up.
 *
 * Guest page tables (4 KiB pages, writable and executable, A and D already set) map
 *   - each PT_LOAD segment: p_vaddr -> p_paddr;
 *   - all of RAM at BOOT_DIRECT_MAP: gva = BOOT_DIRECT_MAP + gpa.
 * They lie in guest RAM, like the boot_info and the stack, at its end: [boot_info.reserved_start,
 * ram_size).
 */
#ifndef GUESTS_LIB_BOOT_H
#define GUESTS_LIB_BOOT_H

#ifndef __ASSEMBLER__
#include <stdint.h>

struct boot_info {
	uint64_t magic;	      /* BOOT_MAGIC */
	uint64_t version;     /* BOOT_VERSION */
	uint64_t ram_size;    /* bytes; guest RAM is gpa [0, ram_size) */
	uint64_t image_start; /* gpa range that holds the PT_LOAD segments, page aligned */
	uint64_t image_end;
	uint64_t reserved_start; /* gpa; from here to ram_size: this structure, the stack, the page
				    tables */
	uint64_t cr3;		 /* gpa of the first page table */
	uint64_t seed;		 /* gnomon run --seed */
	char args[256];		 /* NUL-terminated; reserved, empty for now */
};
#endif

#define BOOT_MAGIC   0x6e6f6d6f6e677575 /* "uugnomon" */
#define BOOT_VERSION 1

#define BOOT_DIRECT_MAP	    0x400000000000
#define BOOT_DIRECT_MAP_MAX 0x200000000000 /* the window's size: RAM is never larger */

/* A guest ELF must be linked inside [BOOT_LINK_MIN, BOOT_LINK_MAX) and outside the direct map. */
#define BOOT_LINK_MIN 0x100000
#define BOOT_LINK_MAX 0x7f8000000000

#define BOOT_STACK_SIZE 0x4000

/* Ports. 8-bit unless said otherwise. */
#define PORT_CONSOLE                                                                           \
	0x3f8 /* OUT: a byte to the console; the line status register at +5 reads 0x60, always \
		 ready */
#define PORT_EXIT 0xf4 /* OUT v: the guest ends with exit code v & 0x7f */
#define PORT_STOP \
	0xf5 /* IN: 1 once the host wants the guest to finish (--duration, Ctrl-C), else 0 */
#define PORT_PASS \
	0xf6 /* OUT anything: one more pass of the guest's work is done (stats: guest_passes) */
#define PORT_CORRUPTION                                                                \
	0xf7 /* OUT anything: the guest found memory that is not what it wrote (stats: \
		corruptions) */

#endif
