/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the files of the shadow MMU share.
 *
 * Locks, outermost first (docs/locking.md):
 *
 *   slots_lock -> (mm's locks, when the host mm calls us) -> mmu_lock -> batch_lock
 *                                                                     -> an rmap's head
 *                                                                     -> walk_cache->lock
 *                                                         -> gpc_lock -> walk_cache->lock
 *                                                         -> mn_invalidate_lock
 *   slots_srcu -> gpc->refresh_lock -> (mm's locks)
 *
 *   slots_lock (mutex): who changes memslots, takes a dirty log, or resets rings. Readers of the
 *     slots are in a section of slots_srcu.
 *   mn_invalidate_lock: which invalidations are open; held to publish a set of slots.
 *   mmu_lock: shadow pages, entries, rmaps, the invalidation window. Nothing sleeps or allocates
 *     under it.
 *   batch_lock: the list of zap batches that are not shot down yet.
 *   an rmap's head (a bit of it, rmap.c): who is in one without mmu_lock.
 *   gpc_lock, gpc->refresh_lock (mutex), walk_cache->lock: caches of frames (pfn_cache.h).
 */
#ifndef SHADOW_INTERNAL_H
#define SHADOW_INTERNAL_H

#include <gnomon/mmu_notifier.h>
#include <gnomon/shadow.h>
#include <gnomon/srcu.h>

#include "notifier/sync/atomic.h"
#include "notifier/sync/bug.h"
#include "notifier/sync/list.h"
#include "notifier/sync/lock.h"
#include "notifier/sync/wait.h"
#include "shadow/gfn_set.h"
#include "shadow/open_ranges.h"
#include "shadow/pfn_cache.h"
#include "shadow/spte.h"
#include "shadow/walk_cache.h"

/* --- rmap.c: which entries name a thing ---------------------------------------------------------
 */

/* 0: nobody; an spte pointer: that one; a struct rmap_desc pointer with bit 0 set: all in that
 * chain (K-06). Bit 1 is a lock, for those who read it without mmu_lock (K-40). */
struct rmap_head {
	uintptr_t val;
};

/* A page that is mapped at so many places loses them all before it is mapped at another (K-07): a
 * chain is looked through, or cleared, in one section of mmu_lock. */
#define RMAP_RECYCLE_THRESHOLD 1000

struct rmap_desc; /* one chunk of a chain; comes from a vCPU's cache, since none can be allocated
		     under mmu_lock */

struct rmap_desc *rmap_desc_alloc(void);
void rmap_desc_free(struct rmap_desc *desc);

/* Add @sptep; takes *@spare (and sets it to NULL) when the chain needs another chunk. mmu_lock. */
void rmap_add(struct rmap_head *head, spte_t *sptep, struct rmap_desc **spare);
/* Remove @sptep, which must be there. mmu_lock. */
void rmap_remove(struct rmap_head *head, spte_t *sptep);
/* Any one of them, or NULL. mmu_lock. */
spte_t *rmap_first(const struct rmap_head *head);
/* @fn for each; it may remove the entry that it was given, and changes nothing else in the rmap.
 * mmu_lock. */
void rmap_each(const struct rmap_head *head, void (*fn)(spte_t *sptep, void *arg), void *arg);
/*
 * The same without mmu_lock; @fn changes nothing in any rmap, takes no lock and does not sleep.
 * Entries stay in the rmap until it is done, tables of them live. An entry that is on its way in is
 * found or not, and may still be zero. In a section of slots_srcu.
 */
void rmap_each_lockless(struct rmap_head *head, void (*fn)(spte_t *sptep, void *arg), void *arg);
/* The same for @sptep alone. False, and nothing was done: it is not there. */
bool rmap_one_lockless(struct rmap_head *head, spte_t *sptep, void (*fn)(spte_t *sptep, void *arg),
		       void *arg);
bool rmap_contains(const struct rmap_head *head, const spte_t *sptep);
unsigned int rmap_count(const struct rmap_head *head);

/* --- memslot.c, memslot_set.c, memslot_gate.c: gpa -> hva ---------------------------------------
 */

/* A flag of ours, beside MEMSLOT_*: the slot is being moved or deleted. */
#define MEMSLOT_INVALID (1u << 31)

/*
 * A slot is immutable; to change one is to publish a copy in its place. What mmu_lock protects is
 * behind pointers that copies share, so that whoever still has the old one sees the same: such
 * state must not be added by value.
 */
struct memslot {
	unsigned int id;
	unsigned int flags;
	gfn_t base_gfn;
	uint64_t npages;
	hva_t hva;
	struct rmap_head *rmap; /* [npages], under mmu_lock */
	struct gfn_set mapped;	/* the pages whose rmap is not empty; mmu_lock, read without */
	struct gfn_set tables; /* those that are tables of the guest's (guest_tables.c); mmu_lock */
	struct huge_region *huge;   /* of each whole 2 MiB of it (huge.h) */
	struct gfn_set huge_mapped; /* those whose rmap is not empty, by number; as mapped */
	uint8_t *zapped; /* [npages], under mmu_lock: an invalidation took its entries (refault
			    counting) */
	struct dirty_log *dirty; /* while MEMSLOT_LOG_DIRTY; NULL: not logged (dirty_log.c) */
};

struct huge_region;

/* rmap.c: the same for a page of @slot, which is in slot->mapped while its rmap is not empty. */
void gfn_rmap_add(struct memslot *slot, uint64_t rel_gfn, spte_t *sptep, struct rmap_desc **spare);
void gfn_rmap_remove(struct memslot *slot, uint64_t rel_gfn, spte_t *sptep);

/* One set of slots, found by id, by gfn and by hva (memslot_set.c). Immutable while published. */
struct memslots {
	uint64_t generation;
	unsigned int nr;
	struct memslot *by_id[MEMSLOT_MAX];
	struct memslot *by_gfn[MEMSLOT_MAX]; /* [nr], by base_gfn: disjoint */
	struct memslot *by_hva[MEMSLOT_MAX]; /* [nr], by hva: may overlap */
	hva_t max_end[MEMSLOT_MAX];	     /* [nr], of by_hva: see memslots_next() */
};

/* The current set. In a section of slots_srcu, or under slots_lock. */
struct memslots *shadow_memslots(struct shadow *shadow);
/* These may give an INVALID slot; NULL: none. */
struct memslot *gfn_to_memslot(const struct memslots *slots, gfn_t gfn);
struct memslot *gpa_to_memslot(struct shadow *shadow, gpa_t gpa);
/*
 * The first index from @from on of a slot in by_hva that meets [start, end), or slots->nr. Of the
 * others it looks at those only that a search passes on its way.
 */
unsigned int memslots_next(const struct memslots *slots, unsigned int from, hva_t start, hva_t end);
#define for_each_memslot_in(i, slots, start, end)                                \
	for ((i) = memslots_next((slots), 0, (start), (end)); (i) < (slots)->nr; \
	     (i) = memslots_next((slots), (i) + 1, (start), (end)))

/* @slots is not published: @new takes the place of @old; either may be NULL. */
void memslots_replace(struct memslots *slots, struct memslot *old, struct memslot *new);
/* Is each index of @slots what the others are? For the audit. */
bool memslots_sound(const struct memslots *slots);

/*
 * memslot_gate.c, slots_lock: publish @slots once no invalidation is open, and wait until nobody
 * reads the set that it replaces. That is the other one of shadow->memslots[], free for the next
 * change.
 */
void memslots_swap(struct shadow *shadow, struct memslots *slots);
/* The published set stays what it is from begin to end, until the mm is dead. */
void mn_invalidate_begin(struct shadow *shadow, hva_t start, hva_t end);
void mn_invalidate_end(struct shadow *shadow, hva_t start, hva_t end);
/* Is one of @hva between the two? */
bool mn_invalidation_open(struct shadow *shadow, hva_t hva);
/* No reader is left, and no callback comes any more. */
void memslots_destroy(struct shadow *shadow);

static inline hva_t memslot_hva(const struct memslot *slot, gfn_t gfn)
{
	return slot->hva + ((gfn - slot->base_gfn) << PAGE_SHIFT);
}

/* The pages of @slot, counted from its first, that [start, end) touches: [*first, *last). They
 * meet, as for whoever goes by for_each_memslot_in(). */
static inline void memslot_overlap(const struct memslot *slot, hva_t start, hva_t end,
				   uint64_t *first, uint64_t *last)
{
	hva_t slot_end = slot->hva + (slot->npages << PAGE_SHIFT);

	*first = start <= slot->hva ? 0 : (start - slot->hva) >> PAGE_SHIFT;
	*last = end >= slot_end ? slot->npages : (end - slot->hva + PAGE_SIZE - 1) >> PAGE_SHIFT;
}

static inline hva_t memslot_gpa_hva(const struct memslot *slot, gpa_t gpa)
{
	return memslot_hva(slot, gpa >> PAGE_SHIFT) + (gpa & ~PAGE_MASK);
}

/* hva of @gpa, or INVALID_HVA where no slot is, or an INVALID one. In a section of slots_srcu. */
hva_t gpa_to_hva(struct shadow *shadow, gpa_t gpa);
/* The same for an access of the host's in the guest's place: 0; -ENXIO: no slot, or ROM and @write;
 * -EAGAIN: it is being moved or deleted. */
int gpa_to_hva_for(struct shadow *shadow, gpa_t gpa, bool write, hva_t *hva);
static inline bool gfn_has_memory(struct shadow *shadow, gfn_t gfn)
{
	return gpa_to_hva(shadow, gfn << PAGE_SHIFT) != INVALID_HVA;
}

/* --- page.c: shadow pages -----------------------------------------------------------------------
 */

/*
 * What a table is good for, besides its gfn: both must match before one is used (K-01, K-03). Roles
 * are compared whole, as one word. From user on it is the view (role.c): for whose accesses the
 * table's leaves are made.
 *
 * A large page of the guest has no table that ours could shadow below it: a direct table stands
 * there, for its aligned piece that begins at the table's gfn. All its leaves are of that one page,
 * so what a walk finds in the page's entry is in the role.
 */
struct shadow_role {
	union {
		uint64_t word;
		struct {
			uint64_t level : 3;  /* of the root .. 1 leaves */
			uint64_t access : 3; /* ACC_*: what the guest's upper levels leave, raw; of
						a direct table with those of the page */
			uint64_t direct : 1; /* a piece of a large page */
			uint64_t dirty : 1;  /* direct only: so was the page */
			uint64_t pkey : 4;   /* direct only: its key */
			uint64_t user : 1;   /* CPL 3's accesses, not a supervisor's */
			uint64_t wp : 1;     /* write protection binds them */
			uint64_t nxe : 1;    /* bit 63 is a right, else reserved */
			uint64_t smep : 1;   /* no fetch from a user's page */
			uint64_t smap : 1;   /* no access to a user's page: SMAP, and AC is clear */
			uint64_t pke : 1;    /* keys protect users' pages */
			uint64_t maxphyaddr : 6; /* address bits from here on are reserved */
			uint64_t pkru : 32;	 /* 0 without pke */
			uint64_t zero : 8;
		};
	};
};

static_assert(sizeof(struct shadow_role) == sizeof(uint64_t), "a role is one word");

/* --- role.c: what the accesses of a view may do --------------------------------------------------
 */

/* The view of @cpu's accesses; @implicit: of those that it makes for itself. Level and access are
 * left 0. */
struct shadow_role guest_view(const struct guest_cpu *cpu, bool implicit);
/* ACC_READ, WRITE, EXEC: what an access of @view may do to a page of raw @access with this key. */
unsigned int view_rights(struct shadow_role view, unsigned int access, unsigned int pkey);
/* Of ACC_READ and WRITE, what the key alone forbids; @access as above. */
unsigned int view_pkey_denies(struct shadow_role view, unsigned int access, unsigned int pkey);
/* What a leaf for that page may grant: a clean page is never writable, or its D bit would be
 * missed.
 */
unsigned int leaf_rights(struct shadow_role view, unsigned int access, unsigned int pkey,
			 bool dirty);
/* The most that any leaf in a table of @role may grant, for audits. */
unsigned int role_rights(struct shadow_role role);

/* All fields under mmu_lock, from the moment the page is linked or made a root. */
struct shadow_page {
	struct list_head link;	    /* shadow->pages, or a batch's retired list */
	struct list_head hash_link; /* by gfn */
	struct list_head spt_link;  /* by address of the table */
	gfn_t gfn; /* of the guest table that this one shadows; of the first page that
		      a direct one maps; INVALID_GFN: a dummy root, which is and stays empty */
	struct shadow_role role;
	int root_count; /* places in vCPUs' caches that name it (root_cache.c) */
	/* What vCPUs may peek at without the lock, to see whether their root is still good. */
	unsigned int gen; /* of shadow->gen, when it was published */
	bool zapped;
	/* Of a page that is not direct (write_protect.c, sync.c). */
	bool unsync;	     /* its gfn may be writable; otherwise no leaf of it is */
	bool edited;	     /* so the last sync found: a store to it is no news */
	unsigned int writes; /* to its gfn that we were told of, since a fault passed through */
	uint64_t sync_id;    /* unsync: of the sync that protected it last; 0 if it was written to
				afterwards */
	uint64_t pass;	     /* the last pass over tables that was done with it */
	pfn_t table;
	spte_t *spt; /* mapping of the table */
	/*
	 * Levels 1 and 2, [TABLE_ENTRIES]: the gfn that each present leaf maps, the first one of a
	 * huge leaf, as it was when the rmap was made (K-08). Once the page is zapped its entries
	 * are reused for the frames that must still be shot down.
	 */
	uint64_t *gfns;
	unsigned int nr_unshot; /* frames in gfns[], once zapped */
	/* [TABLE_ENTRIES]: the guest's entry that each of ours was made from, for the audit; NULL
	 * unless that wants it. Not of direct tables: the guest has none there. */
	uint64_t *gptes;
	struct rmap_head parents; /* entries that link to it (K-09) */
};

#define SHADOW_HASH_BITS 10
#define SHADOW_HASH_SIZE (1u << SHADOW_HASH_BITS)

/* A page with its table, not linked anywhere; sleeps. NULL when out of memory. */
struct shadow_page *shadow_page_alloc(struct shadow *shadow, int level);
/* Undo that, for a page that no CPU can have seen. */
void shadow_page_free_unused(struct shadow *shadow, struct shadow_page *sp);

/* mmu_lock for all that follow. */
struct zap_batch;
struct shadow_page *shadow_page_find(struct shadow *shadow, gfn_t gfn, struct shadow_role role);
/* Those with @gfn, by hash_link, and others. */
struct list_head *shadow_page_bucket(struct shadow *shadow, gfn_t gfn);
/* The batch has room: stores to a table above the leaves are ours to carry out from here on. */
void shadow_page_publish(struct shadow *shadow, struct shadow_page *sp, gfn_t gfn,
			 struct shadow_role role, struct zap_batch *batch);
/* Any page of @gfn, in whatever role, obsolete ones too; or NULL. */
struct shadow_page *shadow_page_of_gfn(struct shadow *shadow, gfn_t gfn);
struct shadow_page *sptep_to_sp(struct shadow *shadow, const spte_t *sptep);
struct shadow_page *spte_to_child(struct shadow *shadow, spte_t spte);
void shadow_page_link(struct shadow_page *child, spte_t *sptep, struct rmap_desc **spare);

/* --- tlb.c: zap batches -------------------------------------------------------------------------
 */

#define ZAP_BATCH_FRAMES  128
#define ZAP_BATCH_ENTRIES 1024 /* so long is mmu_lock held; leaves of a page share a frame */
#define ZAP_BATCH_PAGES	  10   /* so many tables at most go in one mmu_lock section of a slow zap */

static_assert(RMAP_RECYCLE_THRESHOLD <= ZAP_BATCH_ENTRIES, "a batch takes all leaves of a page");

/*
 * What one critical section under mmu_lock has cleared and nobody has shot down yet. Lives on the
 * stack of whoever zaps:
 *
 *   zap_batch_init; spin_lock(mmu_lock); drop_leaf, zap_page ...; zap_batch_close; spin_unlock;
 * zap_batch_flush
 */
struct zap_batch {
	struct list_head
		link; /* shadow->batches, between close and the end of the shootdown; batch_lock */
	uint64_t number;
	unsigned int nr_entries; /* changed, but for those of retired pages */
	unsigned int nr_frames;
	pfn_t frames[ZAP_BATCH_FRAMES]; /* of huge leaves: all of each (FRAMES_HUGE) */
	bool huge_forbidden;		/* one was cleared, as a page of it is a table now */
	struct list_head retired;	/* zapped shadow pages, with the frames of their leaves */
};

void zap_batch_init(struct zap_batch *batch);
static inline bool zap_batch_empty(const struct zap_batch *batch)
{
	return !batch->nr_frames && list_empty(&batch->retired);
}
static inline bool zap_batch_full(const struct zap_batch *batch)
{
	return batch->nr_frames == ZAP_BATCH_FRAMES || batch->nr_entries == ZAP_BATCH_ENTRIES;
}
/* mmu_lock: a leaf of @pfn (spte_frames) was cleared, or lost a right. There is room. */
static inline void zap_batch_add(struct zap_batch *batch, pfn_t pfn)
{
	ASSERT(!zap_batch_full(batch), "the caller flushes a full batch first");
	batch->nr_entries++;
	/* Whoever changes all leaves of a page finds one frame in them. */
	if (!batch->nr_frames || batch->frames[batch->nr_frames - 1] != pfn)
		batch->frames[batch->nr_frames++] = pfn;
}
/* mmu_lock: number the batch. Nothing may be added to it afterwards. */
void zap_batch_close(struct shadow *shadow, struct zap_batch *batch);
/*
 * No spinlock held: shoot the batch down, wait until every batch with a lower number is shot down
 * too, retire the tables. The batch is empty again.
 */
void zap_batch_flush(struct shadow *shadow, struct zap_batch *batch);
/* No spinlock held: no CPU remembers a translation to these frames any more. None is fine. The list
 * is in any order afterwards. */
void shadow_shoot(struct shadow *shadow, pfn_t *frames, unsigned int nr);

/* zap.c, mmu_lock: clear one leaf, or a table and all that hangs below it; the batch must not be
 * full for a leaf. And all leaves of a page of a slot: false when the batch filled up before. */
void drop_leaf(struct shadow *shadow, struct shadow_page *sp, unsigned int index,
	       struct zap_batch *batch);
bool zap_rmap(struct shadow *shadow, struct rmap_head *head, struct zap_batch *batch);
void zap_page(struct shadow *shadow, struct shadow_page *sp, struct zap_batch *batch);
/* The same for @sp alone, which is obsolete: its children are unlinked, and stay to be zapped. */
void zap_obsolete_page(struct shadow *shadow, struct shadow_page *sp, struct zap_batch *batch);
/* The one or the other. */
void zap_any_page(struct shadow *shadow, struct shadow_page *sp, struct zap_batch *batch);

/* --- zap_slot.c: what a slot takes along; no lock but slots_lock --------------------------------
 */

/* slots_lock: the leaves of @slot go, and with @tables what shadows a guest table in it, all that
 * were there when it was published. No CPU reaches any of that when this returns; of an INVALID
 * slot nothing comes back, of a READONLY one nothing writable. */
void shadow_zap_slot(struct shadow *shadow, struct memslot *slot, bool tables);
/* The same for all slots, the fast way: all there is becomes obsolete at once. */
void shadow_zap_all_fast(struct shadow *shadow);
/* What is obsolete goes, if it has not yet. On return no CPU uses anything of it. */
void shadow_zap_obsolete(struct shadow *shadow);

/* --- guest_tables.c: which gfns are tables of the guest's; mmu_lock
 * -------------------------------
 */

/* @sp was published, or has left shadow_page_bucket(). */
void guest_table_add(struct shadow *shadow, const struct shadow_page *sp);
void guest_table_remove(struct shadow *shadow, const struct shadow_page *sp);
/* Is @gfn one? */
bool gfn_is_table(struct shadow *shadow, gfn_t gfn);
/* One of the pages that make it one, or NULL. */
struct shadow_page *guest_table_find(struct shadow *shadow, gfn_t gfn);

/* --- write_protect.c: stores to guest tables; mmu_lock -------------------------------------------
 */

/* May a leaf of @gfn become writable, @store: for a store? If so, the tables that it is are unsync.
 */
bool gfn_may_be_written(struct shadow *shadow, gfn_t gfn, bool store);
/* No leaf of @gfn is writable any more; CPUs will have heard of that once the batch, which has
 * room, is flushed. */
void write_protect_gfn(struct shadow *shadow, gfn_t gfn, struct zap_batch *batch);
/* mmu_lock. True: it was writable, and its frame must be shot down. */
bool leaf_lose_write(spte_t *sptep);
/* The same, and the next store gets the right back without mmu_lock (fast_fault.c). */
bool leaf_pause_write(spte_t *sptep);

/* --- sync.c: what is shadowed becomes what the guest's tables say; mmu_lock, in a section of
 * slots_srcu --------------------------------------------------------------------------------------
 */

/* As a CR3 load has it. Drops mmu_lock in between, and flushes the batch then; what it is left with
 * is the caller's to flush. Someone counts on the root meanwhile (root_count). */
void sync_root(struct shadow *shadow, struct shadow_page *root, struct zap_batch *batch);
/* As INVLPG has it. One leaf or table goes at most; the batch has room. */
void sync_gva(struct shadow *shadow, struct shadow_page *root, gva_t gva, struct zap_batch *batch);
/* A table that exists, and is too much to be linked at once; its vCPU's thread. */
struct late_link {
	bool pending;
	unsigned int nr_failed; /* in a row */
	gfn_t gfn;
	struct shadow_role role;
};
/* @child is to be linked, and exists: nothing below it is older than this. False: it is too much,
 * or the batch is full: @late is pending. */
bool sync_child(struct shadow *shadow, struct shadow_page *child, struct late_link *late,
		struct zap_batch *batch);
/* No lock held, in a section of slots_srcu: do most of it for @late, which is pending no more. */
void sync_apart(struct shadow *shadow, struct late_link *late);
/* The leaf @index of @sp, which is present, is compared; the batch has room. True: it was not in
 * step. */
bool sync_leaf(struct shadow *shadow, struct shadow_page *sp, unsigned int index,
	       struct zap_batch *batch);
/* ACC_*: what the entry @index of the guest's table of leaves that @sp shadows gives to its page,
 * before a walk has marked it; 0: nothing. *@gpte: the entry. */
unsigned int gpte_gives(struct shadow *shadow, const struct shadow_page *sp, unsigned int index,
			uint64_t *gpte);
/* Is @child, to which the entry @index of @sp links, still what the guest's entry says? */
bool link_in_step(struct shadow *shadow, const struct shadow_page *sp, unsigned int index,
		  const struct shadow_page *child);

struct shadow_vcpu;

/* --- guest_walk.c -------------------------------------------------------------------------------
 */

struct guest_walk {
	gva_t gva;
	gfn_t table_gfn[TABLE_LEVELS +
			1]; /* [level]: the guest table that was read at that level */
	uint64_t gpte[TABLE_LEVELS +
		      1]; /* [level]: what was read, with the A and D bits that we set */
	unsigned int access[TABLE_LEVELS + 1]; /* [level]: ACC_* left after that level, raw */
	int levels;			       /* of the tables: level of the root */
	int reached;	   /* the last level whose entry was read; levels + 1: none */
	int level;	   /* of the leaf: 1, 2 (2 MiB) or 3 (1 GiB) */
	gfn_t gfn;	   /* the 4 KiB page, also where it is part of a larger one */
	unsigned int pkey; /* its key; 0 without CR4.PKE */
	unsigned int pcid; /* that the translation belongs to, unless global */
	bool global;
	bool dirty;    /* the leaf's D bit is set: it may be mapped writable */
	hva_t bad_hva; /* of the entry that the mm did not let us read or write: with -ENXIO */
	struct walk_cache *cache; /* of the vCPU that walks; or NULL */
};

/* Beside the PFERR bits of an access: only find out how the walk ends, and set no bit. */
#define PFERR_LOOK (1u << 30)

/*
 * Walk @cpu's tables for @access (PFERR_WRITE or PFERR_FETCH, PFERR_IMPLICIT), setting A and D as
 * the architecture does. 0; -EFAULT with *error_code for the guest; -EAGAIN (the tables changed
 * under us too often); -ENOMEM; -ENXIO (walk->bad_hva). In a section of slots_srcu; sleeps.
 */
int guest_walk(struct shadow *shadow, const struct guest_cpu *cpu, gva_t gva, uint32_t access,
	       struct guest_walk *walk, uint32_t *error_code);
/* The same as @vcpu, on its thread: with its caches, and nothing present where the machine's CPUs
 * do not reach. */
int guest_walk_vcpu(struct shadow *shadow, struct shadow_vcpu *vcpu, gva_t gva, uint32_t access,
		    struct guest_walk *walk, uint32_t *error_code);
/*
 * The same without a trace, for who only wants to know: no bit is set, no page brought in, and
 * nobody asks for rights. Of an address that is canonical. 0; -EFAULT: no page, and walk->level is
 * 0; -EAGAIN: the same, as the entry of the level below walk->reached, at walk->bad_hva, cannot be
 * read now. What lies above is in @walk.
 */
int guest_walk_look(struct shadow *shadow, const struct guest_cpu *cpu, gva_t gva,
		    struct guest_walk *walk, uint32_t *error_code);
/* And would that do for @access? 0 or -EFAULT; *error_code: in what the look gave, out what the
 * guest would get. */
int guest_walk_allows(const struct guest_cpu *cpu, uint32_t access, const struct guest_walk *walk,
		      uint32_t *error_code);
/* mmu_lock: are the entries that @walk read still there (K-13)? Does not sleep; false also when one
 * cannot be read now. */
bool guest_walk_unchanged(struct shadow *shadow, const struct guest_walk *walk);

/*
 * fault.c: must an answer about @hva that was begun when invalidate_seq was @seq be thrown away,
 * since a window over it is open, or any was closed since? Under mmu_lock, and for as long: exact.
 */
bool invalidate_retry(struct shadow *shadow, unsigned long seq, hva_t hva);

/*
 * fault.c: does @gva lie below an entry of the machine's own (spte.h, rule 1)? Then the guest's
 * tables have no say there, whatever they hold (I8). Those entries are in a root from the start and
 * never change, so no lock is needed.
 */
bool gva_reserved(const struct shadow_page *root, gva_t gva);

/* --- fast_fault.c --------------------------------------------------------------------------------
 */

struct shadow_vcpu;

/* The vCPU's thread, in a section of slots_srcu: true if the fault is over, as *@ret says. */
bool shadow_fast_fault(struct shadow *shadow, struct shadow_vcpu *vcpu, struct shadow_fault *fault,
		       enum ret_pf *ret);
/* What has been unlinked is touched by nobody any more who is without mmu_lock. No spinlock held.
 */
void shadow_wait_for_walks(struct shadow *shadow);

/* --- prefetch.c: mmu_lock, in a section of slots_srcu --------------------------------------------
 */

/* The entry for @gva of @sp, a table of leaves, was just made: map what lies beside it and is free
 * of cost. */
void shadow_prefetch(struct shadow *shadow, struct shadow_page *sp, gva_t gva);

/* --- shadow.c, invalidate.c ---------------------------------------------------------------------
 */

/* What one fault may consume under mmu_lock, made beforehand (kernel: mmu_topup_memory_caches).
 * Owned by the vCPU's thread. */
struct shadow_cache {
	struct shadow_page
		*page[TABLE_LEVELS];	      /* [level - 1]: [0] with gfns, the last one a root */
	struct rmap_desc *desc[TABLE_LEVELS]; /* [0] for the leaf's rmap, [level - 1] for the link
						 to a child */
};

/* --- root_cache.c: the roots that a vCPU keeps ---------------------------------------------------
 */

struct root_key {
	gfn_t gfn; /* that CR3 names */
	struct shadow_role role;
	unsigned int pcid; /* 0 without CR4.PCIDE */
};

struct kept_root {
	struct shadow_page *root; /* NULL: none */
	gfn_t gfn;
	unsigned int pcid;
	bool stale; /* the guest has flushed it: to be brought up to date before it is used */
};

#define NR_KEPT_ROOTS 4 /* the current one and three before it */

struct shadow_vcpu {
	struct shadow_page *root;   /* roots[0].root; its owner may load it without mmu_lock */
	struct shadow_page *loaded; /* what the CPU is on: its root, or not yet; only compared */
	struct kept_root roots[NR_KEPT_ROOTS]; /* the last used first; mmu_lock */
	struct kept_root
		left; /* gave way, and is let go of once the CPU cannot be on it; mmu_lock */
	struct guest_cpu cpu; /* as root; that is of its view */
	struct shadow_cache cache;
	unsigned long walk;	 /* odd: its thread walks tables without mmu_lock (fast_fault.c) */
	struct dirty_ring *ring; /* NULL: there are none (dirty_ring.c) */
	struct late_link late;
	struct walk_cache walk_cache; /* of the guest's tables that it walks */
};

#define ANY_PCID (~0u)

static inline bool root_matches(const struct kept_root *kept, const struct root_key *key)
{
	return kept->root && kept->gfn == key->gfn && kept->pcid == key->pcid &&
	       kept->root->role.word == key->role.word;
}

static inline bool root_is_dummy(const struct shadow_page *root)
{
	return root->gfn == INVALID_GFN;
}

/*
 * Must the vCPU have another root for this CR3? This one is obsolete (zap_slot.c), or a dummy, and
 * now there is memory. mmu_lock, or its owner's thread for the first one; in a section of
 * slots_srcu.
 */
bool root_is_obsolete(struct shadow *shadow, const struct kept_root *kept);
/* root.c, on the vCPU's thread: it does not run on a root that is obsolete. 0 or -ENOMEM. */
int shadow_leave_obsolete_root(struct shadow *shadow, unsigned int vcpu_id);

/* mmu_lock for all that follow. */
struct kept_root *root_cache_find(struct shadow_vcpu *vcpu, const struct root_key *key);
/* The place to give to another root: a free one, or that of the root not used for longest. */
struct kept_root *root_cache_victim(struct shadow_vcpu *vcpu);
/* Its owner's thread: @kept is what the vCPU runs on, as soon as the machine knows. */
void root_cache_to_front(struct shadow *shadow, struct shadow_vcpu *vcpu, struct kept_root *kept);
/* The guest has flushed all translations of @pcid, or of ANY_PCID. */
void root_cache_flush(struct shadow *shadow, struct shadow_vcpu *vcpu, unsigned int pcid);
/* The guest has invalidated @gva; the batch has room for a leaf of each root. */
void root_cache_sync_gva(struct shadow *shadow, struct shadow_vcpu *vcpu, unsigned int pcid,
			 gva_t gva, struct zap_batch *batch);
/* Places that name @root. */
unsigned int root_cache_count(const struct shadow *shadow, const struct shadow_page *root);
/* May a CPU be on it? */
bool root_in_use(const struct shadow *shadow, const struct shadow_page *sp);
/* Nobody is on it: no vCPU keeps it any more. */
void root_cache_forget(struct shadow *shadow, struct shadow_page *root);
/* Empty the place. The last one to name a root zaps it. */
void root_put(struct shadow *shadow, struct kept_root *kept, struct zap_batch *batch);

/* No lock held: no vCPU runs any more, and each lets go of all its roots. */
void shadow_put_roots(struct shadow *shadow);

/* --- page_budget.c: how many shadow pages --------------------------------------------------------
 */

/*
 * What a fault (or, with @root, the load of a root) may need is in the cache, and there is room for
 * it. 0, -ENOMEM, or -ENOSPC: there is no room, and nothing that could go. Sleeps. In a section of
 * slots_srcu.
 */
int shadow_prepare(struct shadow *shadow, struct shadow_cache *cache, bool root);
/* May so many pages be published? Under mmu_lock: exact. */
bool shadow_has_room(const struct shadow *shadow, unsigned int pages);
/* mmu_lock: it was just used. */
void shadow_page_used(struct shadow *shadow, struct shadow_page *sp);
/* The same for path[levels], a root, to path[lowest]: each is newer than what hangs below it. */
void shadow_path_used(struct shadow *shadow, struct shadow_page *const path[], int levels,
		      int lowest);
/* mmu_lock: zap at least @pages, those not used for longest first. How many: fewer if no more can
 * go. */
unsigned long shadow_recycle_pages(struct shadow *shadow, unsigned long pages,
				   struct zap_batch *batch);
/* The machine has given a table. */
void shadow_budget_grow(struct shadow *shadow);

/* Points of a change of slots are hit with slots_lock held. */
enum shadow_hook_point {
	SHADOW_HOOK_FAULT_BEFORE_WALK, /* fault.c: the root is good, nothing read yet */
	SHADOW_HOOK_WALK_BEFORE_MARK,  /* guest_walk.c: allowed, no entry marked yet */
	SHADOW_HOOK_FAULT_BEFORE_LOCK, /* fault.c: pfn in hand, mmu_lock not yet taken */
	SHADOW_HOOK_FAULT_BEFORE_GAIN, /* fault.c, mmu_lock: a leaf is to gain rights */
	SHADOW_HOOK_FAULT_AFTER_LOCK,  /* ... and dropped again, what was to be made is made */
	SHADOW_HOOK_FAST_PAUSED, /* fast_fault.c: so it is, its page is known, nothing locked yet */
	SHADOW_HOOK_FAST_BEFORE_SWAP, /* judged, not yet exchanged; in a walk, so nothing may sleep
				       */
	SHADOW_HOOK_BATCH_BEFORE_SHOOT,	 /* tlb.c: entries cleared, CPUs not yet told */
	SHADOW_HOOK_OPERAND_BEFORE_SWAP, /* operand.c: compared, not yet exchanged */
	SHADOW_HOOK_SYNC_BEFORE_COMPARE, /* sync.c: tables protected and shot down */
	SHADOW_HOOK_ZAP_YIELD, /* invalidate.c: in the middle of a range, mmu_lock dropped */
	SHADOW_HOOK_AGE,       /* age.c: a leaf found; its rmap is locked, so nothing may sleep */
	SHADOW_HOOK_ROOT_BEFORE_LOAD, /* root.c: the vCPU has a root that its CPU has not loaded */
	SHADOW_HOOK_SLOT_WAITS,	      /* memslot_gate.c: an invalidation is open */
	SHADOW_HOOK_SLOT_BEFORE_ZAP,  /* memslot.c: the slot is INVALID, to all who look */
	SHADOW_HOOK_SLOT_AFTER_ZAP,   /* ... and nothing maps it any more */
	SHADOW_HOOK_ZAP_BREAK,	      /* zap_slot.c: mmu_lock dropped, not all zapped yet */
	SHADOW_HOOK_DIRTY_TAKEN, /* dirty_log.c: marks taken, nothing protected yet; nothing may
				    sleep */
	SHADOW_HOOK_DIRTY_BREAK, /* ... and dirty_ring.c: a piece is shot down, mmu_lock dropped */
	SHADOW_HOOK_INVALIDATE_COUNTED, /* invalidate.c: open, and nothing else done yet */
	SHADOW_HOOK_CACHE_BEFORE_VALID, /* pfn_cache.c: a frame in hand, the cache not yet good */
	SHADOW_HOOK_NO_ROOM,		/* page_budget.c: something must be recycled */
	NR_SHADOW_HOOKS,
};

struct shadow {
	struct mm_struct *mm;
	struct machine *machine;
	struct mmu_notifier notifier;
	unsigned int broken; /* SHADOW_BREAK_*, set before the first vCPU runs */
	bool no_huge;	     /* the same */
	enum shadow_audit_level audit;
	unsigned int prefetch; /* entries in a group; 0: none (prefetch.c) */
	spte_t used_bit;       /* of a leaf: set while the page has been used (spte.h, rule 6) */

	struct mutex slots_lock;
	struct srcu_struct slots_srcu;
	struct memslots *slots; /* stored under slots_lock, loaded in a section of slots_srcu */
	struct memslots *memslots[2]; /* the published one, and one for the next change */
	/* The copy of a slot that forbids what its leaves may still have, until they are zapped;
	 * stored under slots_lock. For audits. */
	const struct memslot *narrowed;
	enum shadow_zap_policy zap_policy; /* slots_lock */
	unsigned int dirty_mode;	   /* SHADOW_DIRTY_*; slots_lock */
	struct dirty_ring *rings; /* [nr_vcpus + 1], or NULL; stored under slots_lock, once */
	wait_queue_head_t ring_wait;

	spinlock_t mn_invalidate_lock;
	unsigned long mn_active_invalidate_count; /* stored under mn_invalidate_lock */
	wait_queue_head_t mn_wait;		  /* one waiter: it has slots_lock */
	struct open_ranges mn_open;		  /* mn_invalidate_lock */

	spinlock_t gpc_lock; /* the list of caches that are active */
	struct list_head gpc_list;

	spinlock_t mmu_lock;
	/* Under mmu_lock; seq and in_progress are also peeked at without it, as a hint (fault.c).
	 */
	unsigned long invalidate_seq;
	unsigned long invalidate_in_progress;
	hva_t invalidate_start,
		invalidate_end; /* the union of the open windows, while in_progress */
	bool dead;		/* release ran: no entry is ever made again */
	unsigned int gen;	/* pages of another are obsolete (zap_slot.c) */
	/* The last used first: obsolete ones are not used any more, and last. */
	struct list_head pages;
	unsigned long nr_pages; /* of these; it and the budget are peeked at without mmu_lock */
	unsigned long page_budget, page_limit; /* what may be now, and what was asked for */
	struct list_head by_gfn[SHADOW_HASH_SIZE];
	struct list_head by_spt[SHADOW_HASH_SIZE];
	uint64_t sync_pass; /* the last number of a sync, or of a pass, that was given out */

	/* Batches that are numbered and not yet shot down, in ascending order. */
	spinlock_t batch_lock;
	uint64_t batch_number; /* the last one given out; under mmu_lock and batch_lock */
	struct list_head batches;
	wait_queue_head_t batch_wait;

	struct {
		atomic64_t fault_spurious, fast_faults, prefetched;
		atomic64_t faults, fault_retries, refaults, invalidations, sptes_zapped;
		atomic64_t migrate_zapped, shootdowns, frames_shot, batches_waited, tables_retired;
		atomic64_t pages_recycled;
		atomic64_t synced, unsync_made, write_protected, flooded;
		atomic64_t dirty_marked, dirty_protected;
		atomic64_t huge_made;
	} stats;

	/* Tests park threads here. Set while no vCPU runs. */
	struct {
		void (*fn)(void *arg);
		void *arg;
	} hook[NR_SHADOW_HOOKS];
	/* And have zap_rmap() take a batch for full after so many entries; 0: when it is. */
	unsigned int yield_after;

	unsigned int nr_vcpus;
	struct shadow_vcpu vcpu[];
};

void shadow_set_hook(struct shadow *shadow, enum shadow_hook_point point, void (*fn)(void *arg),
		     void *arg);

/*
 * Is nothing to be made below @sp any more? Under mmu_lock: exact. The vCPU that runs on a root may
 * ask without.
 */
static inline bool shadow_page_obsolete(const struct shadow *shadow, const struct shadow_page *sp)
{
	return READ_ONCE(sp->zapped) || READ_ONCE(sp->gen) != READ_ONCE(shadow->gen);
}

static inline void shadow_hook(struct shadow *shadow, enum shadow_hook_point point)
{
	if (unlikely(shadow->hook[point].fn))
		shadow->hook[point].fn(shadow->hook[point].arg);
}

extern const struct mmu_notifier_ops shadow_mmu_notifier_ops;

static inline struct shadow *notifier_to_shadow(struct mmu_notifier *subscription)
{
	return container_of(subscription, struct shadow, notifier);
}

/* age.c: notifier callbacks. */
bool shadow_clear_flush_young(struct mmu_notifier *subscription, struct mm_struct *mm, hva_t start,
			      hva_t end);
bool shadow_clear_young(struct mmu_notifier *subscription, struct mm_struct *mm, hva_t start,
			hva_t end);
bool shadow_test_young(struct mmu_notifier *subscription, struct mm_struct *mm, hva_t address);

/* shadow.c: 0 or -ENOMEM; sleeps. After 0 a fault (or, with @root, the load of a root) finds all
 * that it may need. */
int shadow_cache_topup(struct shadow *shadow, struct shadow_cache *cache, bool root);
struct shadow_page *shadow_cache_take(struct shadow_cache *cache, int level);

/* audit.c: BUG on a violation, if audits are on. mmu_lock. */
void shadow_audit_locked(struct shadow *shadow);
/* The same of a table that goes back to the machine now, if there is anything left in it. */
void shadow_audit_retired(struct shadow *shadow, const struct shadow_page *sp);

#endif
