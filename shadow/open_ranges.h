/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The ranges of the invalidations that are open, each for itself: one union of them all would say
 * of a page between two that neither is about that it is invalidated, and for as long as there is
 * always one open. All under shadow->mn_invalidate_lock.
 */
#ifndef SHADOW_OPEN_RANGES_H
#define SHADOW_OPEN_RANGES_H

#include <stdbool.h>

#include <gnomon/types.h>

#define OPEN_RANGES 16

struct open_range {
	hva_t start, end;
};

/* All zeroes: none is open. Two with the same ends are one and the same to whoever asks, so an end
 * takes away any that looks like its start. */
struct open_ranges {
	unsigned int nr; /* at the beginning of range[] */
	struct open_range range[OPEN_RANGES];
	/* More than that have their union, until the last of these has ended. */
	unsigned long nr_rest;
	struct open_range rest;
};

void open_ranges_add(struct open_ranges *open, hva_t start, hva_t end);
/* One that was added. */
void open_ranges_remove(struct open_ranges *open, hva_t start, hva_t end);
/* Is @hva in one of them? If there are more than OPEN_RANGES, it may only be between some. */
bool open_ranges_cover(const struct open_ranges *open, hva_t hva);

#endif
