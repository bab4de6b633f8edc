/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * From a parsed image to a guest that can run: the VMM's half of the promises in guests/lib/boot.h.
 */
#ifndef VMM_BOOT_H
#define VMM_BOOT_H

#include <gnomon/shadow.h>

#include "vmm/elf.h"
#include "vmm/engine.h"

/* Smallest RAM a guest can have. */
#define BOOT_MIN_RAM (1UL << 20)

/* What the first vCPU starts with. All other registers are 0. */
struct boot_state {
	gva_t entry;
	gva_t rsp;
	gva_t rdi; /* struct boot_info, through the direct map */
	uint64_t cr3;

	/* As in boot_info. */
	gpa_t image_start;
	gpa_t image_end;
	gpa_t reserved_start;
};

/* How many pages of RAM that will write to. @image need not fit. */
uint64_t boot_frames(uint64_t ram_size, const struct elf_image *image);

/* Do the CPUs of @engine reach all of @image? 0; -ENOEXEC and one line in @why. */
int boot_check_reach(const struct elf_image *image, const struct engine *engine, char *why,
		     size_t why_len);

/*
 * Lay @image out in guest RAM, gpa [0, @ram_size), and build boot_info, stack and page tables at
 * its end. RAM must be fresh: what is to be zero is not written, so that no frame is used for it. A
 * memslot must cover all of RAM; no vCPU runs yet.
 *
 * 0; -ENOEXEC: the image does not fit; -EINVAL: @ram_size is not whole pages, too small or too
 * large; otherwise what shadow_write_gpa gave (-ENOMEM, say). One line in @why with every error.
 * After an error guest RAM holds whatever had been written by then.
 */
int boot_guest(struct shadow *shadow, uint64_t ram_size, const struct elf_image *image,
	       uint64_t seed, struct boot_state *out, char *why, size_t why_len);

#endif
