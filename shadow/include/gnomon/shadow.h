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

#define MEMSLOT_MAX 32

/*
 * Slot @id maps guest pages [base_gfn, base_gfn + npages) to hva onwards. This slice of the product
 * creates slots and never changes them: -EEXIST for a slot id or range in use, -EINVAL for a bad
 * id, an unaligned or wrapping range, -ENOMEM.
 */
int shadow_create_memslot(struct shadow *shadow, unsigned int id, gfn_t base_gfn, uint64_t npages,
			  hva_t hva);

/*
 * At most so many shadow pages, of one table each; 0: as many as the machine has tables for. Where
 * more are wanted those go that were not used for longest, now or at a fault. 0; -EINVAL for fewer
 * than shadow_min_page_budget(), with which every vCPU gets on.
 */
int shadow_set_page_budget(struct shadow *shadow, unsigned long pages);
unsigned long shadow_min_page_budget(unsigned int levels, unsigned int nr_vcpus);

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
	RET_PF_RETRY, /* raced with an invalidation or a guest table edit: run again, it will fault
			 again if need be */
	RET_PF_GUEST, /* the guest's own tables forbid the access: the guest gets #PF with
			 fault->error_code */
	RET_PF_RESERVED,  /* the machine's own part of the address space (its monitor): nothing of
			     the guest's may ever be mapped there */
	RET_PF_EMULATE,	  /* no memslot at fault->gpa: a device access, if there is a device */
	RET_PF_NO_MEMORY, /* the host has no frame for the page or for a table */
	RET_PF_BAD_HVA,	  /* the host has no memory for it, or not with these rights: fault->hva */
	RET_PF_HALTED,	  /* the machine was halted: the mm is gone or a shootdown failed */
	RET_PF_EXEC_ONLY, /* the guest may fetch here and not read, which no entry can say: it
			     cannot go on */
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
 * there are, without CR4.PCIDE), but for GUEST_CR3_NOFLUSH. Those of global pages may go too. The
 * guest tables at @cr3 need not be valid or even inside a slot: then every access faults to the
 * guest. 0; -EINVAL for bits that are reserved in CR3, -ENOMEM (the previous root stays loaded).
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

/* The guest executes INVLPG: @gva's translation is dropped, whatever its PCID, on every CPU that
 * shares the table. */
void shadow_invlpg(struct shadow *shadow, unsigned int vcpu, gva_t gva);

/* INVPCID, by what is dropped. Translations of global pages may go in any case. */
enum guest_invpcid {
	INVPCID_ADDRESS,     /* @gva's translation in @pcid */
	INVPCID_CONTEXT,     /* all of @pcid */
	INVPCID_ALL_GLOBAL,  /* all */
	INVPCID_ALL_CONTEXTS /* all but global pages' */
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
 * (fault may be NULL), -EAGAIN (the guest rewrites its tables faster than they can be walked: let
 * it run and try again), -ENXIO (no memslot, or, with fault->hva set, memory that the host's mm
 * does not let us at), -ENOMEM.
 */
int shadow_read_gva(struct shadow *shadow, unsigned int vcpu, gva_t gva, void *buf, size_t len,
		    uint32_t access, struct shadow_fault *fault);
int shadow_read_gpa(struct shadow *shadow, gpa_t gpa, void *buf, size_t len);
int shadow_write_gpa(struct shadow *shadow, gpa_t gpa, const void *buf, size_t len);

/* Counters since shadow_create; a racy snapshot. */
struct shadow_stats {
	uint64_t faults;	 /* calls of shadow_handle_fault */
	uint64_t fault_retries;	 /* RET_PF_RETRY among them */
	uint64_t refaults;	 /* entries made again after an invalidation took them */
	uint64_t invalidations;	 /* invalidate_range_start calls received */
	uint64_t sptes_zapped;	 /* present leaves removed, for whatever reason */
	uint64_t migrate_zapped; /* guest pages that lost at least one leaf to a MMU_NOTIFY_MIGRATE
				    window */
	uint64_t shootdowns;	 /* machine->ops->shootdown calls */
	uint64_t frames_shot;	 /* frames named in them */
	uint64_t batches_waited; /* invalidations that had to wait for an earlier batch */
	uint64_t tables_retired;
	uint64_t pages_recycled; /* shadow pages that made room for others */
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
 * Check every structure against every other: rmap <-> spte <-> parent <-> slot <-> primary page
 * table (K-08, K-09, K-27). Takes mmu_lock. Returns the number of violations; the first is
 * described in @why (may be NULL).
 */
unsigned int shadow_audit(struct shadow *shadow, char *why, size_t why_len);

/* Audit after every operation that changes anything, and BUG on a violation. Off by default. */
void shadow_set_audit(struct shadow *shadow, bool on);

#endif
