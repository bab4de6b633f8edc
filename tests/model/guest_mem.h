/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The whole stack under a guest, without a guest: frames, a host mm, guest RAM (a shared mapping,
 * or private memory), a model machine, the shadow MMU, one memslot at gpa 0, and guest page tables
 * in that RAM. Tests fill in what they need.
 *
 * Whatever goes wrong while the fixture is made or edited is a bug of the test: ASSERT.
 */
#ifndef TESTS_MODEL_GUEST_MEM_H
#define TESTS_MODEL_GUEST_MEM_H

#include <gnomon/mm.h>
#include <gnomon/shadow.h>

#include "tests/model/model.h"

#define GUEST_MEM_HVA 0x100000000UL

#define GUEST_PTE_P  0x1UL
#define GUEST_PTE_W  0x2UL
#define GUEST_PTE_U  0x4UL
#define GUEST_PTE_A  0x20UL
#define GUEST_PTE_D  0x40UL
#define GUEST_PTE_PS 0x80UL
#define GUEST_PTE_NX (1UL << 63)
#define GUEST_PTE_RW (GUEST_PTE_P | GUEST_PTE_W)

struct guest_mem_config {
	unsigned int nr_cpus;	/* 0: one */
	uint64_t nr_pages;	/* of guest RAM, tables at its end included; 0: 64 */
	uint64_t nr_frames;	/* of the machine; 0: ample */
	unsigned int levels;	/* of tables, the guest's and the machine's; 0: 4 */
	unsigned int broken;	/* SHADOW_BREAK_* */
	enum model_reuse reuse; /* of retired tables */
	bool no_accessed_bits;	/* CPUs set none in the shadow tables */
	bool no_identity;	/* leave the first root empty */
	bool audit;
	bool private_ram;
	unsigned int reserve_slot; /* of each root, for the machine; 0: none */
	gva_t gva_first, gva_end;  /* what its CPUs reach; 0, 0: all */
};

struct guest_mem {
	struct guest_mem_config config;
	struct phys *phys;
	struct mm_struct *mm;
	struct address_space *ram; /* NULL: private */
	struct model_machine *model;
	struct shadow *shadow;
	uint64_t nr_pages;
	gfn_t next_table; /* guest tables come from the end of RAM, downwards */
	uint64_t cr3;	  /* maps gva == gpa for all of RAM below the tables, writable; every CPU
			     starts on it */
};

void guest_mem_create(struct guest_mem *g, const struct guest_mem_config *config);
/* No thread uses it any more. Every frame must have come back. */
void guest_mem_destroy(struct guest_mem *g);

/* The two halves of create, for those who register notifiers before the shadow MMU does. */
void guest_mem_init(struct guest_mem *g, const struct guest_mem_config *config);
void guest_mem_attach(struct guest_mem *g);
/* The first half of destroy: no more shadow MMU and machine, but all the memory. */
void guest_mem_detach(struct guest_mem *g);

/* Host addresses of guest pages. */
static inline hva_t guest_hva(gpa_t gpa)
{
	return GUEST_MEM_HVA + gpa;
}
uint64_t guest_read(struct guest_mem *g, gpa_t gpa);
void guest_write(struct guest_mem *g, gpa_t gpa, uint64_t value);

/*
 * Guest page tables. guest_write() edits one as the host would that tells nobody, which goes
 * unnoticed in a table of leaves (docs/mmu.md). guest_edit() does it as the guest, and guest_map():
 * a store to memory, which the shadow MMU knows of, by a fault, or as here since it was told.
 */
void guest_edit(struct guest_mem *g, gpa_t gpa, uint64_t gpte);
gpa_t guest_new_table(struct guest_mem *g);
/* The gpa of the entry for @gva at @level (levels..1) of @cr3's tables, making those above it. */
gpa_t guest_pte_gpa(struct guest_mem *g, uint64_t cr3, gva_t gva, int level);
void guest_map(struct guest_mem *g, uint64_t cr3, gva_t gva, gpa_t gpa, uint64_t flags);

/* CPU @cpu loads cr3 again after the guest has made all of its root's entries old (A clear):
 * nothing that was shadowed below stays. */
void guest_reload_afresh(struct guest_mem *g, unsigned int cpu);

/* An access to @gva as CPU @cpu by way of the fault path alone: what shadow_handle_fault() says of
 * it.
 */
enum ret_pf guest_fault(struct guest_mem *g, unsigned int cpu, gva_t gva, uint32_t access,
			struct shadow_fault *fault);

/* The same with the machine: done (RET_PF_FIXED), or why not; *error_code may be NULL. */
enum ret_pf guest_try(struct guest_mem *g, unsigned int cpu, enum model_op op, gva_t gva,
		      uint32_t *error_code);

/* model_access_retry() as CPU @cpu, which must end well. */
uint64_t guest_load(struct guest_mem *g, unsigned int cpu, gva_t gva);
void guest_store(struct guest_mem *g, unsigned int cpu, gva_t gva, uint64_t value);

#endif
