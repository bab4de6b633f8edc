/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A set of page numbers below a bound, in which the next member is found in a few loads however far
 * it is: what makes a wide range with few mapped pages cheap to walk.
 *
 * Bits by the word: a bit of level 0 is a page, a bit of level n + 1 says that a word of level n is
 * not zero. The last level is one word.
 *
 * Changed by one thread at a time (mmu_lock). Read by any, without a lock (age.c): such a reader
 * finds each page that is a member all the while, as a word of an upper level is zero only while
 * there is nothing below it, or while the first below it is on its way in. So the order is: a bit
 * of level 0 is set before those above it, and those above are cleared after it.
 *
 * Memory is touched where there are members: an eighth of a byte for each page of a dense set, and
 * a 63rd of that for all upper levels.
 */
#ifndef SHADOW_GFN_SET_H
#define SHADOW_GFN_SET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GFN_SET_LEVELS 6 /* 64^6 pages: a slot has half of that at most */

struct gfn_set {
	uint64_t nr; /* members are below it */
	unsigned int nr_levels;
	uint64_t *level[GFN_SET_LEVELS]; /* one allocation, of level[0] */
};

/* The empty set; sleeps. 0 or -ENOMEM. */
int gfn_set_init(struct gfn_set *set, uint64_t nr);
void gfn_set_destroy(struct gfn_set *set);

/* The writer's. Adding a member, or removing what is none, changes nothing. */
void gfn_set_add(struct gfn_set *set, uint64_t n);
void gfn_set_remove(struct gfn_set *set, uint64_t n);

bool gfn_set_has(const struct gfn_set *set, uint64_t n);
/* The first member of [from, end), or @end, which is at most set->nr. */
uint64_t gfn_set_next(const struct gfn_set *set, uint64_t from, uint64_t end);
/* Does each level say what the one below it is? For the audit; the writer's. */
bool gfn_set_sound(const struct gfn_set *set);

#define for_each_gfn(n, set, from, end)                             \
	for ((n) = gfn_set_next((set), (from), (end)); (n) < (end); \
	     (n) = gfn_set_next((set), (n) + 1, (end)))

#endif
