/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Shadow entries: this header owns their bits. The format is the hardware's (SDM vol. 3, 4.5),
 * since a real CPU walks them.
 *
 * Rules:
 *  1. An entry is zero, or ours: it carries SPTE_OURS, and SPTE_PRESENT too, but for a leaf that is
 * tracked (rule 6). A present entry without SPTE_OURS is the machine's (the monitor's slot in a
 * root) and is never touched here.
 *  2. Every entry has SPTE_USER: guest kernel and guest user code both run at CPL3. What the
 * guest's own U/S bit forbids is expressed by leaving entries out, of the tables of that view
 * (role.c).
 *  3. A leaf is an entry of level 1, or one of level 2 with SPTE_HUGE: that maps 512 frames which
 * follow each other, the first one aligned (huge.c). All others are links, and carry all rights:
 * what the guest's upper levels take away is in the leaf, and in the role of the table that holds
 * it: so tables reached with different rights are different tables. A leaf never becomes a link,
 * nor the reverse, but by being zero in between.
 *  4. A leaf is changed in place only to gain rights, which CPUs notice, or to lose the right to
 * write, of which they are told by a shootdown of all its frames: that works also on a host that
 * shadows our tables. Anything else is: clear, shoot down, fault again. (That a page was used is no
 * right.)
 *  5. Entries are stored under mmu_lock, atomically: CPUs walk them at any time. Without it only
 * leaves change, by compare-and-exchange: a CPU sets bits, an age takes that of rule 6, a fault
 * gives it back (age.c, fast_fault.c).
 *  6. Which bit of a leaf says that its page was used depends on the machine: SPTE_ACCESSED, or
 * where its CPUs do not set that SPTE_PRESENT. A leaf of ours that is not present is *tracked*. To
 * a CPU it is none, and its other bits are ignored: so all that it says is kept where it was, and
 * is given back by that one bit. In all else it is a leaf: it has an rmap, a frame that CPUs may
 * remember, rights that it may lose; and the frame is shot down when it goes.
 *  7. A leaf that gets SPTE_WRITE has SPTE_MAY_WRITE with it: host and guest have granted that, and
 * the page is no table of the guest's that is in step. Who takes the right since one of these is no
 * longer so takes both. Who takes it to hear of the next store leaves the second, and a fault may
 * give back the first without mmu_lock: the leaf is *paused*. Whatever holds for a writable leaf
 * holds for one that is paused.
 */
#ifndef SHADOW_SPTE_H
#define SHADOW_SPTE_H

#include <assert.h>

#include <gnomon/types.h>

typedef uint64_t spte_t;

#define SPTE_PRESENT   (1UL << 0)
#define SPTE_WRITE     (1UL << 1)
#define SPTE_USER      (1UL << 2)
#define SPTE_ACCESSED  (1UL << 5)
#define SPTE_DIRTY     (1UL << 6)
#define SPTE_HUGE      (1UL << 7)  /* level 2: a leaf. Of level 1 it would be PAT */
#define SPTE_OURS      (1UL << 9)  /* ignored by hardware */
#define SPTE_AGED      (1UL << 10) /* and this: the used bit was cleared, no CPU told (age.c) */
#define SPTE_MAY_WRITE (1UL << 11) /* and this: rule 7 */
#define SPTE_NX	       (1UL << 63)
#define SPTE_PFN_MASK  0x000ffffffffff000UL

static_assert((SPTE_PFN_MASK & (SPTE_PRESENT | SPTE_WRITE | SPTE_USER | SPTE_ACCESSED | SPTE_DIRTY |
				SPTE_HUGE | SPTE_OURS | SPTE_AGED | SPTE_MAY_WRITE | SPTE_NX)) == 0,
	      "flag bits lie outside the frame number");
static_assert(SPTE_OURS >= (1UL << 9) && SPTE_MAY_WRITE <= (1UL << 11),
	      "bits 9 to 11 are software's at every level");

/*
 * What the guest's entries say, as roles and walks carry it: all levels together, raw. What an
 * access may do about it depends on who makes it: view_rights() answers in READ, WRITE and EXEC.
 */
#define ACC_WRITE (1u << 0)
#define ACC_EXEC  (1u << 1)
#define ACC_USER  (1u << 2)
#define ACC_ALL	  (ACC_WRITE | ACC_EXEC | ACC_USER)
#define ACC_READ  (1u << 3) /* of an answer only */

/* Also of a leaf that is tracked. */
static inline bool spte_present(spte_t spte)
{
	return spte & SPTE_OURS;
}

/* May a CPU use it? */
static inline bool spte_walkable(spte_t spte)
{
	return spte_present(spte) && (spte & SPTE_PRESENT);
}

/* Also if it is paused. */
static inline bool spte_writable(spte_t spte)
{
	return spte & (SPTE_WRITE | SPTE_MAY_WRITE);
}

static inline pfn_t spte_pfn(spte_t spte)
{
	return (spte & SPTE_PFN_MASK) >> PAGE_SHIFT;
}

/*
 * A and D are set from the start: the guest walk has set the guest's, and the entry is made for an
 * access. A may be cleared later, to find out whether there is another (age.c); nobody reads D.
 */
static inline spte_t make_leaf_spte(pfn_t pfn, unsigned int access)
{
	spte_t spte = (pfn << PAGE_SHIFT) | SPTE_PRESENT | SPTE_OURS | SPTE_USER | SPTE_ACCESSED;

	if (access & ACC_WRITE)
		spte |= SPTE_WRITE | SPTE_DIRTY | SPTE_MAY_WRITE;
	if (!(access & ACC_EXEC))
		spte |= SPTE_NX;
	return spte;
}

static inline spte_t make_table_spte(pfn_t table)
{
	return (table << PAGE_SHIFT) | SPTE_PRESENT | SPTE_OURS | SPTE_WRITE | SPTE_USER |
	       SPTE_ACCESSED;
}

/* Does @spte allow all that @other allows, on the same frame? */
static inline bool spte_allows(spte_t spte, spte_t other)
{
	if (spte_pfn(spte) != spte_pfn(other) || (other & ~spte & SPTE_PRESENT))
		return false;
	if ((other & SPTE_WRITE) && !(spte & SPTE_WRITE))
		return false;
	return (other & SPTE_NX) || !(spte & SPTE_NX);
}

#define HUGE_LEVEL 2 /* of a table that may hold leaves with SPTE_HUGE */

/* Is @spte, which is present in a table of @level, no link? */
static inline bool spte_is_leaf(spte_t spte, int level)
{
	return level == 1 || (level == HUGE_LEVEL && (spte & SPTE_HUGE));
}

/*
 * What must be shot down for a leaf: its frame, or for a huge one the first of them, marked. So
 * lists of frames name 512 by one word (tlb.c).
 */
#define FRAMES_HUGE (1UL << 63)

static inline pfn_t spte_frames(spte_t spte)
{
	return spte_pfn(spte) | (spte & SPTE_HUGE ? FRAMES_HUGE : 0);
}

#define TABLE_LEVELS  5 /* at most: machine->levels says how many there are */
#define TABLE_ENTRIES 512

/* Index of @gva in a table of @level (machine->levels for the root, 1 for leaves). */
static inline unsigned int table_index(gva_t gva, int level)
{
	return (gva >> (PAGE_SHIFT + 9 * (level - 1))) & (TABLE_ENTRIES - 1);
}

/* How many 4 KiB pages a table of @level maps, or an entry of the level above; 1 for level 0. */
static inline uint64_t table_pages(int level)
{
	return 1UL << (9 * level);
}

#endif
