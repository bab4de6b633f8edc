/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The TLB of a space: which guest page of its child maps which frame, with what rights. The child's
 * mappings are the truth, and this says what they are (rules 1 to 3 of engine_hosted.h).
 *
 * It has a fixed size, since the host limits how many mappings a process may have. When it is full,
 * the oldest entry makes room: its munmap goes into the same list as the new one's mmap.
 *
 * A fill is what a CPU's walk is: it sets accessed bits on the way, the dirty bit with a store, and
 * maps a page for writing only once that is set. So who clears a dirty bit, or the right to write,
 * and shoots the frame down, hears of the next store.
 */
#include "vmm/engine_hosted.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include <gnomon/shadow.h>

#include "notifier/sync/alloc.h"
#include "notifier/sync/bug.h"

#define PTE_PRESENT  (1ul << 0)
#define PTE_WRITE    (1ul << 1)
#define PTE_USER     (1ul << 2)
#define PTE_ACCESSED (1ul << 5)
#define PTE_DIRTY    (1ul << 6)
#define PTE_PS	     (1ul << 7)
#define PTE_NX	     (1ul << 63)
#define PTE_PFN_MASK 0x000ffffffffff000ul

#define GOING 0x8000u /* in entry->prot: its munmap is in the list that is being written */

#define MANY_REFUSALS 4 /* a vCPU makes one in 50 ms: still_runs() */

/* --- the directory */

static uint32_t hash(const struct hosted_tlb *tlb, uint64_t n)
{
	return (uint32_t)(n * 0x9e3779b97f4a7c15ul >> 40) & (tlb->size - 1);
}

static uint32_t *gva_chain(struct hosted_tlb *tlb, gva_t gva)
{
	return &tlb->by_gva[hash(tlb, gva >> PAGE_SHIFT)];
}

static uint32_t *pfn_chain(struct hosted_tlb *tlb, pfn_t pfn)
{
	return &tlb->by_pfn[hash(tlb, pfn)];
}

/* Arrays that the host gives as they are touched: most spaces never hold much. */
int hosted_tlb_init(struct hosted_tlb *tlb, uint32_t size)
{
	tlb->size = size;
	tlb->entries = kvcalloc(size, sizeof(*tlb->entries), GFP_KERNEL);
	tlb->by_gva = kvcalloc(size, sizeof(*tlb->by_gva), GFP_KERNEL);
	tlb->by_pfn = kvcalloc(size, sizeof(*tlb->by_pfn), GFP_KERNEL);
	return tlb->entries && tlb->by_gva && tlb->by_pfn ? 0 : -ENOMEM;
}

void hosted_tlb_destroy(struct hosted_tlb *tlb)
{
	kvfree(tlb->entries, tlb->size * sizeof(*tlb->entries));
	kvfree(tlb->by_gva, tlb->size * sizeof(*tlb->by_gva));
	kvfree(tlb->by_pfn, tlb->size * sizeof(*tlb->by_pfn));
	*tlb = (struct hosted_tlb){0};
}

/* The child is dead, or nothing is mapped in it. */
void hosted_tlb_forget(struct hosted_space *space)
{
	struct hosted_tlb *tlb = &space->tlb;

	space->nr_holes = 0;
	if (!tlb->nr)
		return;
	for (uint32_t i = 0; i < tlb->fresh; i++)
		tlb->entries[i].prot = 0;
	memset(tlb->by_gva, 0, tlb->size * sizeof(*tlb->by_gva));
	memset(tlb->by_pfn, 0, tlb->size * sizeof(*tlb->by_pfn));
	tlb->nr = tlb->free = tlb->fresh = tlb->hand = 0;
}

static bool is_full(const struct hosted_tlb *tlb)
{
	return tlb->nr == tlb->size;
}

static struct hosted_entry *find(struct hosted_tlb *tlb, gva_t gva)
{
	for (uint32_t n = *gva_chain(tlb, gva); n; n = tlb->entries[n - 1].next_gva)
		if (tlb->entries[n - 1].gva == gva)
			return &tlb->entries[n - 1];
	return NULL;
}

static void add(struct hosted_tlb *tlb, gva_t gva, pfn_t pfn, unsigned int prot)
{
	uint32_t n = tlb->free ?: ++tlb->fresh;
	uint32_t *by_gva = gva_chain(tlb, gva), *by_pfn = pfn_chain(tlb, pfn);
	struct hosted_entry *entry = &tlb->entries[n - 1];

	if (n == tlb->free)
		tlb->free = entry->next_gva;
	*entry = (struct hosted_entry){gva, pfn, prot, *by_gva, *by_pfn};
	*by_gva = *by_pfn = n;
	tlb->nr++;
}

static void drop(struct hosted_tlb *tlb, struct hosted_entry *entry)
{
	uint32_t n = entry - tlb->entries + 1, *link;

	for (link = gva_chain(tlb, entry->gva); *link != n;
	     link = &tlb->entries[*link - 1].next_gva)
		;
	*link = entry->next_gva;
	for (link = pfn_chain(tlb, entry->pfn); *link != n;
	     link = &tlb->entries[*link - 1].next_pfn)
		;
	*link = entry->next_pfn;
	entry->prot = 0;
	entry->next_gva = tlb->free;
	tlb->free = n;
	tlb->nr--;
}

/* --- lists that unmap */

/*
 * Where nothing is mapped there is a mapping that allows nothing, all over the guest's addresses.
 * So a page that goes, and comes back, leaves the host's page tables as they are: without it the
 * kernel would free the table of a page that has no neighbour, and make it again, which costs
 * several times what the rest does (docs/engines.md). It counts as address space, and RLIMIT_AS may
 * forbid it.
 */
struct stub_call hosted_reserve_call(gva_t gva, uint64_t bytes)
{
	return (struct stub_call){SYS_mmap,
				  {gva, bytes, PROT_NONE,
				   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED,
				   (uint64_t)-1, 0}};
}

static struct stub_call unmap_call(struct hosted_space *space, gva_t gva, uint64_t bytes)
{
	if (space->reserved)
		return hosted_reserve_call(gva, bytes);
	return (struct stub_call){SYS_munmap, {gva, bytes}};
}

/*
 * A page that is shot down leaves a hole. That is soonest done: an mmap() keeps the child's vCPUs
 * from its mappings to its end, and has to wake those that came meanwhile for the page that goes; a
 * munmap() lets them look, and fail, while it flushes. Around a hole there are mappings, so that
 * the host's page tables stay. The fill that comes for the page closes it. Should none come, a
 * mapping that is cut in two is what is left: when there are HOSTED_HOLES of them, they are mended.
 */
static struct stub_call shoot_call(struct hosted_space *space, gva_t gva, uint64_t bytes)
{
	if (!space->reserved || bytes != PAGE_SIZE || space->nr_holes == HOSTED_HOLES)
		return unmap_call(space, gva, bytes);
	space->holes[space->nr_holes++] = gva;
	return (struct stub_call){SYS_munmap, {gva, bytes}};
}

/* If it is one: it gets a mapping now. */
static void forget_hole(struct hosted_space *space, gva_t gva)
{
	for (unsigned int i = 0; i < space->nr_holes; i++)
		if (space->holes[i] == gva) {
			space->holes[i] = space->holes[--space->nr_holes];
			return;
		}
}

/* If there are too many, and the list with @nr calls has room. How many it has then. */
static unsigned int mend_holes(struct hosted_space *space, struct stub_call *calls, unsigned int nr)
{
	if (space->nr_holes < HOSTED_HOLES || nr + HOSTED_HOLES > STUB_NR_CALLS)
		return nr;
	while (space->nr_holes)
		calls[nr++] = hosted_reserve_call(space->holes[--space->nr_holes], PAGE_SIZE);
	return nr;
}

/*
 * Until what was posted is done. Only then is what a fill has dropped from the tlb (the entry that
 * it replaces, and the one that makes room) unmapped; it has added one, so that a tlb without
 * entries has nothing posted to wait for.
 *
 * A fill that failed may have left mapped what it dropped. And the host may be out of mappings. So
 * all of them go.
 */
void hosted_settle(struct hosted_space *space)
{
	bool filled = space->pending;
	int err = hosted_wait(space);

	if (err && err != -ESRCH) {
		WRITE_ONCE(space->refused, space->refused + 1);
		space->refusal = -err;
		hosted_tlb_flush(space);
	} else if (filled) {
		WRITE_ONCE(space->refused, 0);
	}
}

/* To unmap takes nothing of the host's that it may refuse, but a mapping that allows nothing does.
 */
static int unmap_all(struct hosted_space *space)
{
	hosted_list(space, MAPPER_SHOOTS)[0] =
		unmap_call(space, HOSTED_GVA_FIRST, HOSTED_GVA_END - HOSTED_GVA_FIRST);
	return hosted_do(space, 1);
}

void hosted_tlb_flush(struct hosted_space *space)
{
	int err;

	lockdep_assert_held(&space->lock);
	hosted_wait(space);
	if (space->dead)
		return;
	err = unmap_all(space);
	if (err && !space->dead && space->reserved) {
		space->reserved = false;
		err = unmap_all(space);
	}
	if (err) /* whatever the mapper could not do, a child that is dead does */
		hosted_child_kill(space);
	hosted_tlb_forget(space);
}

/* Entries that are to go, until there are enough for a list. */
struct gone {
	struct hosted_space *space;
	unsigned int nr;
	struct hosted_entry *entries[STUB_NR_CALLS];
};

static void unmap_gone(struct gone *gone)
{
	struct hosted_space *space = gone->space;
	struct stub_call *calls;
	unsigned int nr = 0;
	int err;

	if (!gone->nr || space->dead)
		return;
	calls = hosted_list(space, MAPPER_SHOOTS);
	for (unsigned int i = 0; i < gone->nr; i++) {
		struct stub_call *last = &calls[nr];
		gva_t gva = gone->entries[i]->gva;

		if (nr && last[-1].args[0] + last[-1].args[1] == gva)
			last[-1].args[1] += PAGE_SIZE;
		else
			calls[nr++] = (struct stub_call){SYS_munmap, {gva, PAGE_SIZE}};
	}
	/* Now it is known how long each is. */
	for (unsigned int i = 0; i < nr; i++)
		calls[i] = shoot_call(space, calls[i].args[0], calls[i].args[1]);
	err = hosted_do(space, mend_holes(space, calls, nr));
	if (err && err != -ESRCH) /* how far it came does not matter: all go */
		hosted_tlb_flush(space);
	else if (!err)
		for (unsigned int i = 0; i < gone->nr; i++)
			drop(&space->tlb, gone->entries[i]);
	gone->nr = 0;
}

static void let_go(struct gone *gone, struct hosted_entry *entry)
{
	if (!entry->prot || entry->prot & GOING)
		return; /* a frame that is named twice */
	entry->prot |= GOING;
	gone->entries[gone->nr++] = entry;
	if (gone->nr == STUB_NR_CALLS)
		unmap_gone(gone);
}

/* --- shootdown */

static void shoot_one(struct gone *gone, pfn_t pfn)
{
	struct hosted_tlb *tlb = &gone->space->tlb;
	uint32_t next;

	for (uint32_t n = *pfn_chain(tlb, pfn); n && !gone->space->dead; n = next) {
		next = tlb->entries[n - 1].next_pfn; /* let_go() may drop this one */
		if (tlb->entries[n - 1].pfn == pfn)
			let_go(gone, &tlb->entries[n - 1]);
	}
}

void hosted_shoot(struct hosted_space *space, const pfn_t *frames, size_t nr)
{
	struct gone gone = {.space = space};

	lockdep_assert_held(&space->lock);
	if (!space->tlb.nr)
		return;
	hosted_settle(space);
	for (size_t i = 0; i < nr; i++)
		shoot_one(&gone, frames[i]);
	unmap_gone(&gone);
}

void hosted_shoot_range(struct hosted_space *space, pfn_t first, size_t nr)
{
	struct hosted_tlb *tlb = &space->tlb;
	struct gone gone = {.space = space};

	lockdep_assert_held(&space->lock);
	if (!tlb->nr)
		return;
	hosted_settle(space);
	if (nr < tlb->size) {
		for (size_t i = 0; i < nr; i++)
			shoot_one(&gone, first + i);
	} else {
		for (uint32_t i = 0; i < tlb->fresh && !space->dead; i++)
			if (tlb->entries[i].pfn - first < nr)
				let_go(&gone, &tlb->entries[i]);
	}
	unmap_gone(&gone);
}

/* --- fill */

struct translation {
	pfn_t pfn;
	unsigned int prot;
};

static bool allows(uint64_t pte, uint32_t error_code)
{
	if ((pte & (PTE_PRESENT | PTE_USER)) != (PTE_PRESENT | PTE_USER))
		return false;
	if (error_code & PFERR_WRITE && !(pte & PTE_WRITE))
		return false;
	return !(error_code & PFERR_FETCH && pte & PTE_NX);
}

/* A CPU's walk. Entries change under it: what it has used of one is what it marks. */
static bool walk(struct hosted_engine *engine, pfn_t root, gva_t gva, uint32_t error_code,
		 struct translation *t)
{
	uint64_t rights = PTE_WRITE, nx = 0;
	pfn_t table = root;

	for (int level = 4;; level--) {
		uint64_t *entry = phys_map(engine->phys, table);
		uint64_t pte, marked;
		bool leaf;

		entry += gva >> (3 + 9 * level) & 511;
		pte = READ_ONCE(*entry);
		do {
			if (!allows(pte, error_code))
				return false;
			leaf = level == 1 || (level == 2 && pte & PTE_PS);
			marked = pte | PTE_ACCESSED;
			if (leaf && error_code & PFERR_WRITE)
				marked |= PTE_DIRTY;
		} while (marked != pte && !try_cmpxchg(entry, &pte, marked));
		rights &= pte;
		nx |= pte & PTE_NX;
		table = (pte & PTE_PFN_MASK) >> PAGE_SHIFT;
		ASSERT(table < engine->nr_frames, "the entry %#lx of level %d names a frame",
		       (unsigned long)pte, level);
		if (!leaf)
			continue;
		t->pfn = level == 2 ? table + (gva >> PAGE_SHIFT & 511) : table;
		t->prot = PROT_READ | (rights && marked & PTE_DIRTY ? PROT_WRITE : 0) |
			  (nx ? 0 : PROT_EXEC);
		return true;
	}
}

/* The oldest entry goes. In the list that maps what comes in its place, and in no other. */
static unsigned int make_room(struct hosted_space *space, struct stub_call *calls)
{
	struct hosted_tlb *tlb = &space->tlb;
	struct hosted_entry *victim;

	if (!is_full(tlb))
		return 0;
	victim = &tlb->entries[tlb->hand];
	tlb->hand = (tlb->hand + 1) & (tlb->size - 1);
	calls[0] = unmap_call(space, victim->gva, PAGE_SIZE);
	drop(tlb, victim);
	return 1;
}

/*
 * Look up @gva in the tables at @root, and if they allow the access, have it mapped. FILL_POSTED:
 * the same list lets @vcpu run on, whose thread has stopped here for the time number @exits: so
 * nobody has to wake us in between; the caller wakes the mapper (hosted_posted), without the lock.
 * FILL_DONE: it is there already, by another vCPU's fill.
 * FILL_FAULT: it is the shadow MMU's to mend. FILL_REFUSED: the host has refused it again and
 * again.
 */
enum hosted_fill hosted_fill(struct hosted_space *space, pfn_t root, gva_t gva, uint32_t error_code,
			     unsigned int vcpu, uint32_t exits)
{
	uint64_t run = STUB_CTL_VCPU(vcpu) + offsetof(struct stub_vcpu, run);
	struct hosted_entry *old;
	struct stub_call *calls;
	struct translation t;
	unsigned int nr;

	lockdep_assert_held(&space->lock);
	gva &= PAGE_MASK;
	hosted_settle(space);
	/* A root that was retired while its vCPU was on the way here is nobody's table any more. */
	if (space->dead || space->root != root ||
	    !machine_reaches(&space->engine->engine.machine, gva) ||
	    !walk(space->engine, root, gva, error_code, &t))
		return FILL_FAULT;
	if (space->refused >= MANY_REFUSALS)
		return FILL_REFUSED;
	old = find(&space->tlb, gva);
	if (old && old->pfn == t.pfn && old->prot == t.prot)
		return FILL_DONE;
	if (old) /* the mmap replaces it */
		drop(&space->tlb, old);
	calls = hosted_list(space, MAPPER_FILLS);
	nr = make_room(space, calls);
	forget_hole(space, gva);
	add(&space->tlb, gva, t.pfn, t.prot);
	calls[nr++] =
		(struct stub_call){SYS_mmap,
				   {gva, PAGE_SIZE, t.prot, MAP_SHARED | MAP_FIXED | MAP_POPULATE,
				    STUB_FD_FRAMES, t.pfn << PAGE_SHIFT}};
	hosted_cmd(space)->run = exits;
	calls[nr++] = (struct stub_call){SYS_pwrite64,
					 {STUB_FD_CTL,
					  hosted_cmd_gva(space) + offsetof(struct stub_cmd, run),
					  sizeof(uint32_t), run}};
	calls[nr++] = (struct stub_call){SYS_futex,
					 {STUB_VCPU(vcpu) + offsetof(struct stub_vcpu, run),
					  1 /* FUTEX_WAKE */, 1}};
	hosted_post(space, nr);
	return FILL_POSTED;
}
