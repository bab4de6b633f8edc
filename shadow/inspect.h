/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the two files for people share: shadow/inspect.c (the tree), shadow/inspect_why.c. */
#ifndef SHADOW_INSPECT_H
#define SHADOW_INSPECT_H

#include "shadow/shadow_internal.h"

/* A line in the making. What does not fit is cut off. */
struct line {
	char text[256];
	size_t len;
};

void line_add(struct line *line, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* "rwx" of an entry of ours; "wux" of raw rights; what is missing is a dash. */
void line_add_rights(struct line *line, spte_t spte);
void line_add_access(struct line *line, unsigned int access);
/* "supervisor wp nx", "user wp nx pkru 0x4" */
void line_add_view(struct line *line, struct shadow_role view);
/* ", vCPU 0 2" of bit n for vCPU n. */
void line_add_vcpus(struct line *line, uint64_t vcpus);

/* mmu_lock: bit n for vCPU n that runs on @root, as far as there are bits. */
uint64_t root_vcpus(const struct shadow *shadow, const struct shadow_page *root);

#endif
