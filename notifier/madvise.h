/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What each advice of mm_madvise() does with [start, end), which lies in @vma: in the file of the
 * part that it asks something of. 0 or -errno, which ends the call; mmap_lock is held as the table
 * in madvise.c says.
 */
#ifndef NOTIFIER_MADVISE_H
#define NOTIFIER_MADVISE_H

#include <gnomon/types.h>

struct vm_area_struct;

int madvise_remove(struct vm_area_struct *vma, hva_t start, hva_t end); /* file_hole.c */
/* madvise_age.c */
int madvise_cold(struct vm_area_struct *vma, hva_t start, hva_t end);
int madvise_pageout(struct vm_area_struct *vma, hva_t start, hva_t end);
int madvise_free(struct vm_area_struct *vma, hva_t start, hva_t end);
/* ksm_mm.c: for writing */
int madvise_mergeable(struct vm_area_struct *vma, hva_t start, hva_t end);
int madvise_unmergeable(struct vm_area_struct *vma, hva_t start, hva_t end);

#endif
