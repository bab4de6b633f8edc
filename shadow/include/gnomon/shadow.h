/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The shadow MMU: page tables, in hardware format, that map what the guest's own tables, the
 * memslots and the host's primary page table map together (gva -> pfn), kept coherent as an
 * mmu_notifier client of the host mm.
 *
 * One struct shadow serves one guest: one mm, one machine, a fixed number of vCPUs. Calls that take
 * a @vcpu are made on that vCPU's thread; all others from any thread. Everything here may sleep.
 */
#ifndef GNOMON_SHADOW_H
#define GNOMON_SHADOW_H

#include <gnomon/machine.h>
#include <gnomon/mm.h>
#include <gnomon/types.h>

struct shadow;

/*
 * Attach to @mm (registers a notifier; pins mm_count) and to @machine. 0 or -ENOMEM, -EINTR. The
 * caller pins mm_users for the call.
 */
int shadow_create(struct shadow **shadowp, struct mm_struct *mm, struct machine *machine,
		  unsigned int nr_vcpus);

/* Detach and free everything. No vCPU may be inside the guest or in a call of this header. */
void shadow_destroy(struct shadow *shadow);

/* --- memslots: what is where in the guest's physical memory --- */

#define MEMSLOT_MAX 512

/* Guest code reads it as memory, and its stores are device accesses: ROM. */
#define MEMSLOT_READONLY (1u << 0)
/* Which of its pages are written is noted: gnomon/shadow_dirty.h. */
#define MEMSLOT_LOG_DIRTY (1u << 1)

struct memslot_region {
	unsigned int id;    /* of the slot, below MEMSLOT_MAX */
	unsigned int flags; /* MEMSLOT_* */
	gfn_t base_gfn;
	uint64_t npages; /* 0: the slot goes; then only the id counts */
	hva_t hva;
};

/*
 * Make slot @region->id what @region says: create it, move it to another gfn, change its flags, or
 * delete it. vCPUs may run. On return of
 *
 *   a delete or a move          no CPU reaches a page at its old gfn any more. Meanwhile a vCPU
 *                               that touches the slot waits: it sees the old, then the new
 *   MEMSLOT_READONLY, newly     no CPU can store to the slot any more
 *   MEMSLOT_LOG_DIRTY, newly    no store to the slot goes unnoticed any more; without it, what was
 *                               noted is forgotten
 *
 * 0; -EINVAL for a bad id or flag, an unaligned hva, a range that wraps or is too large, a slot
 * that would change its size or hva, the delete of none; -EEXIST if another slot has part of the
 * gfns; -ENOMEM. After an error all is as it was, at every moment. Waits until no invalidation is
 * open in the mm, and so is not for a thread that has one open.
 */
int shadow_set_memslot(struct shadow *shadow, const struct memslot_region *region);

/* The same for a slot that must be new, without flags: -EEXIST also if @id is in use. */
int shadow_create_memslot(struct shadow *shadow, unsigned int id, gfn_t base_gfn, uint64_t npages,
			  hva_t hva);

/*
 * At most so many shadow pages, of one table each; 0: as many as the machine has tables for. Where
 * more are wanted those go that were not used for longest, now or at a fault. 0; -EINVAL for fewer
 * than shadow_min_page_budget(), with which every vCPU gets on.
 */
int shadow_set_page_budget(struct shadow *shadow, unsigned long pages);
unsigned long shadow_min_page_budget(unsigned int levels, unsigned int nr_vcpus);

/*
 * Entries that map 2 MiB, where the guest, the slot and the host all allow it: on by default. Off,
 * every page has an entry of its own. Set before the first vCPU runs.
 */
void shadow_set_huge(struct shadow *shadow, bool on);

/*
 * A fault maps, beside its own page, up to @pages - 1 neighbours that the guest has used and that
 * the host has in memory; 0, as it is from the start: none. At any time. 0; -EINVAL unless it is a
 * power of two of at most 64.
 */
int shadow_set_prefetch(struct shadow *shadow, unsigned int pages);

/*
 * What one knows of the slots is good as long as this stays as it was, and was even: it is odd
 * while a change is on its way, when some readers have the old set and some the new.
 */
uint64_t shadow_memslots_generation(struct shadow *shadow);

/*
 * How a delete or a move takes the slot out of the shadow tables. Both are right; they are kept to
 * be compared under the same seed.
 */
enum shadow_zap_policy {
	SHADOW_ZAP_ALL,	 /* every table is obsolete at once, and goes; the default */
	SHADOW_ZAP_SLOT, /* only what maps the slot, or shadows a table in it */
};
void shadow_set_zap_policy(struct shadow *shadow, enum shadow_zap_policy policy);

/* Page-fault error code bits, as the CPU pushes them (SDM vol. 3, 4.7). */
#define PFERR_PRESENT (1u << 0)
#define PFERR_WRITE   (1u << 1)
#define PFERR_USER    (1u << 2)
#define PFERR_RSVD    (1u << 3)
#define PFERR_FETCH   (1u << 4)
#define PFERR_PK      (1u << 5)
/* Of an access, never of an error code: the CPU makes it for itself (a descriptor, a stack switch),
 * as supervisor whatever the privilege, and RFLAGS.AC does not help. */
#define PFERR_IMPLICIT (1u << 31)

/*
 * What a virtual CPU's paging depends on, besides its tables. All of a guest's code runs at CPL3 of
 * the real CPU: privilege, and all that is read here, is the virtual CPU's.
 */
struct guest_cpu {
	uint64_t cr0; /* looked at: PG, which must be set, and WP */
	uint64_t cr3;
	uint64_t cr4;  /* looked at: PAE, which must be set, PGE, LA57, PCIDE, SMEP, SMAP, PKE */
	uint64_t efer; /* looked at: NXE */
	uint32_t pkru;
	bool user;		 /* CPL 3 */
	bool ac;		 /* RFLAGS.AC */
	unsigned int maxphyaddr; /* 36 to 52; the same for all CPUs of a guest */
};

/* Of a value that is loaded into CR3, with CR4.PCIDE: no flush. Never in the register. */
#define GUEST_CR3_NOFLUSH (1UL << 63)

#define GUEST_CR0_WP	(1UL << 16)
#define GUEST_CR0_PG	(1UL << 31)
#define GUEST_CR4_PAE	(1UL << 5)
#define GUEST_CR4_PGE	(1UL << 7)
#define GUEST_CR4_LA57	(1UL << 12)
#define GUEST_CR4_PCIDE (1UL << 17)
#define GUEST_CR4_SMEP	(1UL << 20)
#define GUEST_CR4_SMAP	(1UL << 21)
#define GUEST_CR4_PKE	(1UL << 22)
#define GUEST_EFER_NXE	(1UL << 11)

/*
 * May @cpu use @gva at all? If not, a CPU raises #GP or #SS, and never walks: whoever acts for one
 * asks first. (The walk, if asked, says not present.)
 */
static inline bool guest_canonical(const struct guest_cpu *cpu, gva_t gva)
{
	int unused = cpu->cr4 & GUEST_CR4_LA57 ? 7 : 16;

	return (uint64_t)((int64_t)(gva << unused) >> unused) == gva;
}

/* How a fault ended. */
enum ret_pf {
	RET_PF_FIXED,	 /* an entry was installed or widened: run the guest again */
	RET_PF_SPURIOUS, /* the entry was good already: run the guest again */
	RET_PF_RETRY,	 /* raced with an invalidation, a guest table edit or a change of the slots:
			    run again, it will fault again if need be */
	RET_PF_GUEST,	 /* the guest's own tables forbid the access, or no CPU of the machine can
			    reach the address: the guest gets #PF with fault->error_code */
	RET_PF_RESERVED, /* the machine's own part of the address space (its monitor): nothing of
			    the guest's may ever be mapped there */
	RET_PF_EMULATE,	 /* no memslot at fault->gpa, or a store to a read-only one: a device
			    access, if there is a device */
	RET_PF_NO_MEMORY, /* the host has no frame for the page or for a table */
	RET_PF_BAD_HVA,	  /* the host has no memory for it, or not with these rights: fault->hva */
	RET_PF_HALTED,	  /* the machine was halted: the mm is gone or a shootdown failed */
	RET_PF_EXEC_ONLY, /* the guest may fetch here and not read, which no entry can say: it
			     cannot go on */
	RET_PF_WRITE_PROTECTED, /* a store to one of the guest's page tables, fault->gpa: to be
				   carried out for the guest, by shadow_write_gpa() or with a word
				   to shadow_gpte_written(); or shadow_unprotect_gpa(), and run
				   again */
	RET_PF_DIRTY_RING_FULL, /* a store, and nothing was done: the vCPU's dirty ring has no room
				   (gnomon/shadow_dirty.h) */
};

const char *ret_pf_name(enum ret_pf ret);

struct shadow_fault {
	gva_t gva;	     /* in */
	uint32_t error_code; /* in: what was attempted, WRITE and FETCH only (who did is known:
				struct guest_cpu); out with RET_PF_GUEST: exact */
	gpa_t gpa;	     /* out, once the guest walk succeeded */
	hva_t hva; /* out: what the mm refused, of the page or of a guest table on the way to it;
		      INVALID_HVA if it refused nothing */
};

/* Resolve a fault of @vcpu at fault->gva. */
enum ret_pf shadow_handle_fault(struct shadow *shadow, unsigned int vcpu,
				struct shadow_fault *fault);

/*
 * The guest loads CR3, and with it flushes the translations of the PCID that it loads (of all that
 * there are, without CR4.PCIDE), but for GUEST_CR3_NOFLUSH: what is shadowed for them is brought
 * into line with the guest's tables, those of global pages too. The guest tables at @cr3 need not
 * be valid or even inside a slot: then every access faults to the guest. 0; -EINVAL for bits that
 * are reserved in CR3, -ENOMEM (the previous root stays loaded).
 */
int shadow_load_cr3(struct shadow *shadow, unsigned int vcpu, uint64_t cr3);

/*
 * The virtual CPU as it is from here on: another privilege, other control registers, another PKRU.
 * What its accesses may do changes at once, and nothing is flushed by that: to go from user to
 * kernel and back is cheap. What a MOV to CR3 or CR4 flushes is flushed here: the PCID if CR3
 * changes, or if SMEP is switched on; everything if PGE changes, or if PCIDE is switched off. 0;
 * -EINVAL for what cannot be: no paging, no PAE, another LA57 than the machine has, a width of
 * addresses or a CR3 that no CPU has; -ENOMEM. After an error all is as before.
 *
 * A CPU starts as a kernel's with WP, NXE and 52 bits of physical addresses, and no root: this, or
 * shadow_load_cr3(), comes before the first fault.
 */
int shadow_set_cpu(struct shadow *shadow, unsigned int vcpu, const struct guest_cpu *cpu);
/* As it is; to be copied and changed. Belongs to the vCPU's thread. */
const struct guest_cpu *shadow_get_cpu(const struct shadow *shadow, unsigned int vcpu);

/* The guest executes INVLPG: @gva's translation, whatever its PCID, is brought into line with the
 * guest's tables, on every CPU that shares the table. */
void shadow_invlpg(struct shadow *shadow, unsigned int vcpu, gva_t gva);

/* INVPCID, by what it is of. Translations of global pages are included in any case. */
enum guest_invpcid {
	INVPCID_ADDRESS,     /* @gva's translation in @pcid */
	INVPCID_CONTEXT,     /* all of @pcid */
	INVPCID_ALL_GLOBAL,  /* all */
	INVPCID_ALL_CONTEXTS /* all, but global pages' need not be */
};

/*
 * The guest executes INVPCID; @pcid and @gva are the two words of its descriptor. 0, or -EINVAL
 * where a CPU raises #GP: an unknown type, a PCID of more than 12 bits, one that is not 0 without
 * CR4.PCIDE, an address that is not canonical.
 */
int shadow_invpcid(struct shadow *shadow, unsigned int vcpu, uint64_t type, uint64_t pcid,
		   gva_t gva);

/*
 * Guest memory as the guest would reach it, for instruction fetch and emulation. shadow_read_gva
 * walks the guest's tables as @vcpu would, for @access: 0 to read, PFERR_FETCH, or with
 * PFERR_IMPLICIT. 0, or -EFAULT with fault->error_code set as for RET_PF_GUEST
 * (fault may be NULL), -EAGAIN (the guest rewrites its tables faster than they can be walked,
 * or the slot is being moved: let it run and try again), -ENXIO (no memslot, a write to a read-only
 * one, or, with fault->hva set, memory that the host's mm does not let us at), -ENOMEM.
 */
int shadow_read_gva(struct shadow *shadow, unsigned int vcpu, gva_t gva, void *buf, size_t len,
		    uint32_t access, struct shadow_fault *fault);
int shadow_read_gpa(struct shadow *shadow, gpa_t gpa, void *buf, size_t len);
int shadow_write_gpa(struct shadow *shadow, gpa_t gpa, const void *buf, size_t len);

/*
 * Guest memory was written by other means than a guest's own store or shadow_write_gpa(), which
 * says so itself: had the guest page tables there, what they say now counts, at once or from the
 * next INVLPG or CR3 load on. And the pages are dirty, where that is logged. To be called after the
 * write. (Linux: kvm_mmu_track_write, mark_page_dirty)
 */
void shadow_gpte_written(struct shadow *shadow, gpa_t gpa, size_t bytes);
/*
 * Let the guest store to its page tables at @gpa by itself, until it loads CR3: for an instruction
 * that the caller cannot carry out. The edits count from the next INVLPG or CR3 load on. (Linux:
 * kvm_mmu_unprotect_gfn_and_retry, which drops what is shadowed of the page instead: there a store
 * never ends that needs the table for its own address.)
 */
void shadow_unprotect_gpa(struct shadow *shadow, gpa_t gpa);

/*
 * The memory operand, of up to eight bytes, of an instruction that the caller carries out for
 * @vcpu. First it is walked for @access (PFERR_WRITE, or 0 to read) and its frames are pinned:
 * whatever goes wrong does so here, when nothing has been done. Then it is read, as often as need
 * be, and written once; then it is put, soon and on the same thread, for the host cannot move what
 * is pinned, and a change of the slots waits (so no slot is changed in between by who has it). With
 * the put the shadow MMU knows of the guest's tables in it, as by shadow_gpte_written().
 *
 * If the host has taken the memory away since, what writes says -EAGAIN, and has not: put it, and
 * let the guest begin the instruction anew.
 *
 * shadow_operand_get: 0, or as shadow_read_gva says it, all in @fault (of -ENXIO also the gpa);
 * or -EACCES: the machine's own part of the address space.
 */
#define SHADOW_OPERAND_MAX 8

struct shadow_operand {
	gva_t gva;
	unsigned int len;
	bool write, written;
	int section;	       /* of the slots: they stay as they are */
	unsigned long seq;     /* of the host's invalidations, from before it was walked */
	unsigned int nr_parts; /* the pages that it lies in */
	struct {
		gpa_t gpa;
		hva_t hva;
		pfn_t pfn;
		unsigned int len;
	} part[2];
};

int shadow_operand_get(struct shadow *shadow, unsigned int vcpu, gva_t gva, unsigned int len,
		       uint32_t access, struct shadow_operand *operand, struct shadow_fault *fault);
void shadow_operand_put(struct shadow *shadow, struct shadow_operand *operand);

/* Naturally aligned: at once. Else in pieces, and others may see it half done. write: 0, -EAGAIN.
 */
uint64_t shadow_operand_read(struct shadow *shadow, const struct shadow_operand *operand);
int shadow_operand_write(struct shadow *shadow, struct shadow_operand *operand, uint64_t value);

/* If it is all in one aligned word of eight bytes, then it can be changed at once, aligned or not.
 */
bool shadow_operand_in_word(const struct shadow_operand *operand);
/* If it is *@old it becomes @new_value: 0, and a full barrier. Else 1, and *@old becomes what it
 * is; or -EAGAIN. */
int shadow_operand_cmpxchg(struct shadow *shadow, struct shadow_operand *operand, uint64_t *old,
			   uint64_t new_value);

/* Counters since shadow_create; a racy snapshot. */
struct shadow_stats {
	uint64_t faults;	 /* calls of shadow_handle_fault */
	uint64_t fault_retries;	 /* RET_PF_RETRY among them */
	uint64_t fault_spurious; /* RET_PF_SPURIOUS */
	uint64_t fast_faults;	 /* RET_PF_FIXED without mmu_lock */
	uint64_t prefetched;	 /* leaves made without a fault of their own */
	uint64_t refaults;	 /* entries made again after an invalidation took them */
	uint64_t invalidations;	 /* invalidate_range_start calls received */
	uint64_t sptes_zapped;	 /* present leaves removed, for whatever reason */
	uint64_t migrate_zapped; /* guest pages that lost at least one leaf to a MMU_NOTIFY_MIGRATE
				    window */
	uint64_t shootdowns;	 /* machine->ops->shootdown calls */
	uint64_t frames_shot;	 /* frames named in them */
	uint64_t batches_waited; /* invalidations that had to wait for an earlier batch */
	uint64_t tables_retired;
	uint64_t pages_recycled;  /* shadow pages that made room for others */
	uint64_t synced;	  /* tables of leaves compared with the guest's */
	uint64_t unsync_made;	  /* tables of leaves that a store has put out of step */
	uint64_t write_protected; /* RET_PF_WRITE_PROTECTED among the faults */
	uint64_t flooded;	  /* tables let go of, since they were written to and not used */
	uint64_t dirty_marked;	  /* marks set in logged slots, of pages that had one too */
	uint64_t dirty_protected; /* pages that lost the right to write, to be noticed again */
	uint64_t huge_made;	  /* entries that map 2 MiB */
};
void shadow_get_stats(struct shadow *shadow, struct shadow_stats *stats);

/*
 * Switch one protection off, to show that it is needed (docs/breaking.md). For teaching and tests;
 * set before the first vCPU runs.
 */
#define SHADOW_BREAK_ZAP	    (1u << 0) /* invalidate_range_start zaps nothing */
#define SHADOW_BREAK_SHOOTDOWN	    (1u << 1) /* entries are cleared, CPUs keep their translations */
#define SHADOW_BREAK_SHOOTDOWN_WAIT (1u << 2) /* start does not wait for earlier batches */
#define SHADOW_BREAK_RETRY \
	(1u << 3) /* the fault path does not re-check the sequence under mmu_lock */
#define SHADOW_BREAK_RETIRE (1u << 4) /* unlinked tables are reused at once */
void shadow_set_break(struct shadow *shadow, unsigned int what);

/*
 * For people: text, a line at a time, without newlines. From any thread, while vCPUs run: what is
 * told was there at one moment under mmu_lock, which is dropped before the first line.
 */
typedef void (*shadow_emit_t)(void *arg, const char *line);

/*
 * The shadow tables as a tree: each root that a vCPU runs on or keeps, its view, the tables below
 * it, and what they map; leaves that follow each other, with the same rights and to frames that
 * follow each other, are one line. 0; -ENOMEM, and nothing was told.
 */
int shadow_dump(struct shadow *shadow, shadow_emit_t emit, void *arg);

/*
 * What becomes of @gva on @vcpu, entry by entry: the guest's walk, the slot, the host's area and
 * entry, what each view has in its tables; and at last what an access would come to. Changes
 * nothing: no bit is set, and no page brought in.
 */
void shadow_explain(struct shadow *shadow, unsigned int vcpu, gva_t gva, shadow_emit_t emit,
		    void *arg);

/* --- the auditor: is every structure what every other one says it is? --- */

enum shadow_audit_level {
	SHADOW_AUDIT_OFF,
	/* rmaps, entries, links, slots and the primary page table, against each other. */
	SHADOW_AUDIT_STRUCTURAL,
	/*
	 * And each entry against the guest's one that it was made from: the frame and the rights
	 * that this gives together with all above it, the slots and the primary page table. That it
	 * still says so is not asked: what the guest changes may be stale until its next INVLPG or
	 * load of CR3, as in a TLB. Tables that were made before the level was set are checked as
	 * before.
	 */
	SHADOW_AUDIT_SEMANTIC,
	/* And against what the guest's entries say now. Only for those who know that nobody has
	 * changed one since what it gave was flushed: tests. */
	SHADOW_AUDIT_IN_SYNC,
};

/* What an audit finds. */
#define SHADOW_BAD_ENTRY    (1u << 0)  /* bits that no entry of ours has */
#define SHADOW_BAD_LINK	    (1u << 1)  /* names no table in use of the level below */
#define SHADOW_BAD_ROLE	    (1u << 2)  /* a link to a table whose role or gfn does not fit */
#define SHADOW_BAD_PARENT   (1u << 3)  /* a link unknown to the child, or the reverse (K-09) */
#define SHADOW_BAD_PAGE	    (1u << 4)  /* not found by gfn and role, or by its table */
#define SHADOW_BAD_ORPHAN   (1u << 5)  /* neither linked nor a root */
#define SHADOW_BAD_RETIRED  (1u << 6)  /* something is left in a table that goes (K-27) */
#define SHADOW_BAD_SLOT	    (1u << 7)  /* a leaf of a gfn in no slot; slots not to be found */
#define SHADOW_BAD_RMAP	    (1u << 8)  /* a leaf that its rmap misses, or the reverse */
#define SHADOW_BAD_GFN	    (1u << 9)  /* a leaf of another gfn than its table says (K-08) */
#define SHADOW_BAD_FRAME    (1u << 10) /* another frame than the primary page table has */
#define SHADOW_BAD_HOST	    (1u << 11) /* a right that the primary page table does not give */
#define SHADOW_BAD_RIGHT    (1u << 12) /* a right that no leaf in its table has */
#define SHADOW_BAD_TABLE    (1u << 13) /* a leaf that gives the guest a table of ours */
#define SHADOW_BAD_SUMMARY  (1u << 14) /* of a slot: not that of its rmaps */
#define SHADOW_BAD_ORIGIN   (1u << 15) /* more than the guest's entry gave when it was read */
#define SHADOW_BAD_STALE    (1u << 16) /* more than it gives now; IN_SYNC only */
#define SHADOW_BAD_WRITABLE (1u << 17) /* a leaf of a guest table that is in step */
#define SHADOW_BAD_HUGE	    (1u << 18) /* an entry of 2 MiB where there may be none */

/*
 * Takes mmu_lock; may sleep before. Returns what was found, 0 if nothing. The first is described in
 * @why (may be NULL), and named there.
 */
unsigned int shadow_audit_at(struct shadow *shadow, enum shadow_audit_level level, char *why,
			     size_t why_len);
/* At SHADOW_AUDIT_SEMANTIC. */
unsigned int shadow_audit(struct shadow *shadow, char *why, size_t why_len);

/* Audit after every operation that changes anything, and BUG on what is found. SHADOW_AUDIT_OFF by
 * default. */
void shadow_set_audit(struct shadow *shadow, enum shadow_audit_level level);

#endif
