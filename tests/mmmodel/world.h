/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The model of the host mm, beside the real one: arrays of page records, no tables, no trees, no
 * locks. One thread does one operation after the other on both; what the model says must come out
 * is compared with what does.
 *
 * An address space is NR_PAGES places for pages in two runs. The first lies over a border of tables
 * of two levels, the second is where mm_mremap() seeks room. Each place says what is mapped there
 * (an area), and which page the entry has. A page is one frame: so the model knows how many frames
 * are in use at every moment, and a frame more or less is a difference.
 *
 * A page has NR_WORDS words that are ever written, among them the first and the last. The rest is
 * zero.
 */
#ifndef TESTS_MMMODEL_WORLD_H
#define TESTS_MMMODEL_WORLD_H

#include <gnomon/device.h>
#include <gnomon/mm.h>
#include <gnomon/mmu_notifier.h>

#include "tests/mmmodel/ops.h"
#include "tests/support/differ.h"

#define NR_MMS		 6
#define NR_OBJECTS	 4
#define NR_PINS		 6
#define DEVICE_FRAMES	 24
#define NR_WORDS	 4
#define RUN_PAGES	 64 /* places in each of the two runs */
#define NR_PAGES	 (2 * RUN_PAGES)
#define MAX_OBJECT_PAGES 24

/* One frame's worth of contents. */
struct mpage {
	struct mpage *next, *prev; /* world.pages */
	int maps;		   /* entries */
	int pins, gets;		   /* pins for writing, and for reading */
	bool cached;		   /* in the slot of an object */
	bool dirty;		   /* the file below that has something else, perhaps */
	bool lazy;		   /* MM_MADV_FREE: zero, perhaps, when it is next touched */
	bool merged;		   /* equal pages are one here: nobody may write to it */
	bool twins;		   /* was merged: may be in several frames, by way of swap */
	bool away;		   /* in a device's memory, and not in a frame */
	uint64_t word[NR_WORDS];
	/* check.c */
	pfn_t pfn;
	bool seen;
	int present; /* entries that have it */
};

struct mobject {
	struct address_space *real;
	int nr_pages;
	int mapped; /* places that show it */
	bool held;  /* in world.object */
	struct mpage *page[MAX_OBJECT_PAGES];
	/* A file below: its contents, and, when it is let go of, the next that is to be compared.
	 */
	int fd; /* -1: none */
	uint64_t file[MAX_OBJECT_PAGES][NR_WORDS];
	struct mobject *next_closed;
};

struct place {
	/* The area. pgoff of private memory that shows no object: where it was mapped first. */
	bool mapped, private, mergeable;
	unsigned int prot;
	struct mobject *object;
	int64_t pgoff;
	int family; /* of private pages: areas of one can be one area */

	/* The entry. */
	struct mpage *page;
	bool own;	       /* of a private page: nobody else has had it since it was written */
	bool exclusive;	       /* a device has it for itself */
	bool device;	       /* ... in its own memory */
	bool soft, soft_maybe; /* has to be reported as written, or may be */
};

/* A secondary MMU: what it was told by hva_to_pfn(), until it is told otherwise. */
struct secondary {
	struct mmu_notifier mn;
	int open; /* windows */
	bool released;
	struct {
		bool valid, writable;
		pfn_t pfn;
	} entry[NR_PAGES];
};

struct mspace {
	struct mm_struct *real; /* NULL: an empty slot */
	struct place place[NR_PAGES];
	struct secondary *secondary;
	uint64_t cow_copies, zapped; /* as mm_get_stats() has them */
};

struct pin {
	struct mpage *page; /* NULL: no pin */
	int mm;
	bool write;
	pfn_t pfn;
};

struct world {
	struct phys *phys;
	uint64_t nr_frames, used;
	bool swap; /* pages may go out at any time: residency.c */
	struct device_memory *memory;
	struct ksm *ksm;
	struct mspace mm[NR_MMS];
	struct mobject *object[NR_OBJECTS];
	struct pin pin[NR_PINS];
	struct mpage *pages;
	int families;
	struct mobject *closed;
	/* The model is wrong on purpose: a page that two share is written in place. */
	bool planted;
	/* An allocation may fail: then what that left undone is read off the real mm. */
	bool failing, gave_up;
	uint64_t done[NR_OP_KINDS]; /* operations that were not passed by */
};

/* ---- world.c ---- */

void world_create(struct world *w, uint64_t nr_frames, bool swap);
/* Everything ends; a last look that all was given back. */
void world_destroy(struct world *w);

hva_t place_hva(int place);
int hva_place(hva_t hva); /* -1: none of ours */
size_t word_offset(int word);
/* [page, page + nr) are places next to each other. */
bool places_ok(int page, int nr);

/* ---- model.c: the model alone ---- */

/* The places next to each other that are one area with @page. */
bool one_area(const struct mspace *s, int lower); /* @lower and the place above it */
int area_start(const struct mspace *s, int page);
int area_end(const struct mspace *s, int page);
int new_family(struct world *w, const struct mspace *s, int page, int nr, const struct place *like);

/* NULL: no frame is left. */
struct mpage *take_page(struct world *w);
void put_page(struct world *w, struct mpage *page); /* if nobody has it any more */

void map_place(struct place *place, const struct place *like, int64_t pgoff);
void drop_entry(struct world *w, struct place *place);
void unmap_places(struct world *w, struct mspace *s, int page, int nr);
void let_go_of_object(struct world *w, struct mobject *object);

void punch(struct world *w, struct mobject *object, int first, int nr);
/* Returns how many pages were written. */
long sync_object(struct mobject *object, int first, int nr);

/* The page at @place is in the device's memory now; or in RAM again. 0, -ENOMEM. */
void send_away(struct world *w, struct place *place);
int bring_back(struct world *w, struct place *place);

/* As handle_mm_fault() has it. 0, -EFAULT, -ENOMEM. */
int fault(struct world *w, struct mspace *s, int page, bool write);
int fault_none(struct world *w, struct place *place); /* its first half */

/* ---- apply*.c: an operation on both ---- */

void apply(struct world *w, const struct op *op);

bool apply_new(struct world *w, const struct op *op);
bool apply_fork(struct world *w, const struct op *op);
bool apply_exit(struct world *w, const struct op *op);
bool apply_object(struct world *w, const struct op *op);
bool apply_mmap(struct world *w, const struct op *op);
bool apply_munmap(struct world *w, const struct op *op);
bool apply_mremap(struct world *w, const struct op *op);
bool apply_mprotect(struct world *w, const struct op *op);
bool apply_zap(struct world *w, const struct op *op);
bool apply_madvise(struct world *w, const struct op *op);
bool apply_read(struct world *w, const struct op *op);
bool apply_write(struct world *w, const struct op *op);
bool apply_cmpxchg(struct world *w, const struct op *op);
bool apply_read_atomic(struct world *w, const struct op *op);
bool apply_secondary(struct world *w, const struct op *op);
bool apply_pin(struct world *w, const struct op *op);
bool apply_unpin(struct world *w, const struct op *op);
bool apply_migrate_range(struct world *w, const struct op *op);
bool apply_migrate_frame(struct world *w, const struct op *op);
bool apply_migrate_object(struct world *w, const struct op *op);
bool apply_punch(struct world *w, const struct op *op);
bool apply_sync(struct world *w, const struct op *op);
bool apply_msync(struct world *w, const struct op *op);
bool apply_soft_clear(struct world *w, const struct op *op);
bool apply_soft_test(struct world *w, const struct op *op);
bool apply_exclusive(struct world *w, const struct op *op);
bool apply_reclaim(struct world *w, const struct op *op);
bool apply_to_device(struct world *w, const struct op *op);
bool apply_to_ram(struct world *w, const struct op *op);
bool apply_merge(struct world *w, const struct op *op);

/* The mm of @op; NULL: none there. */
struct mspace *space_of(struct world *w, const struct op *op);
/* The range of @op as an address and a length; false: not one of ours. */
bool range_of(const struct op *op, hva_t *addr, uint64_t *len);
void expect_result(const struct op *op, long result, long expected);
/* -ENOMEM, where that may be: not for want of frames, which the model knows of. */
bool gave_up(struct world *w, long result);

/* Files whose last user has gone have what was written to them. */
void check_closed_files(struct world *w);

/* ---- secondary.c ---- */

void secondary_attach(struct world *w, struct mspace *s);
void secondary_detach(struct mspace *s); /* after the mm's exit, or before */

/* ---- residency.c ---- */

/* Which pages are in memory, read off the real mm; what may have changed by that, and nothing else.
 */
void adopt_residency(struct world *w);
bool is_resident(struct mspace *s, int page);
bool is_mapped(struct mspace *s, int page); /* there is an entry of any kind */
bool is_in_device(struct mspace *s, int page);
/*
 * Before an access: pages of [first, last] that were given up are looked at, and kept from now on.
 * False: that cannot be done, and the access is not for this world.
 */
bool settle_lazy(struct world *w, struct mspace *s, int first, int last);
bool no_frame_left(const struct world *w);

/* ---- merging.c ---- */

/* Which private pages are one, read off the real mm: only what was merged may have changed. */
void adopt_frames(struct world *w);
/* As MM_MADV_UNMERGEABLE does for the place. 0, -ENOMEM. */
int break_merge(struct world *w, struct mspace *s, struct place *place);

/* ---- check.c: everything that there is, against everything that should be ---- */

void check_world(struct world *w);
/* The frames alone, after each operation. */
void check_frames_used(const struct world *w);

/* ---- generate.c ---- */

/* A next operation, from what is there now. */
void generate(const struct world *w, uint64_t *random, struct op *op);

#endif
