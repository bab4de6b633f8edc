/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The cases in a guest of the shadow MMU (paging_guest.h). */
#include "tests/paging/paging_guest.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "shadow/shadow_internal.h"

#define PAGE	 0x3000ul /* a 4 KiB page; larger ones begin at 0 */
#define NR_PAGES 1100	  /* a 1 GiB page is used up to 0x3c4fff */

const struct paging_env paging_guest_env = {.maxphyaddr = 46, .gigabyte_pages = true};

void paging_guest_create(struct paging_guest *g, int levels, bool audit)
{
	const struct guest_mem_config config = {.nr_pages = NR_PAGES,
						.levels = levels,
						.no_identity = true,
						.audit = audit};

	guest_mem_create(&g->mem, &config);
	for (int level = SDM_PTE; level < SDM_LEVELS; level++)
		g->table[level] = guest_new_table(&g->mem);
}

void paging_guest_destroy(struct paging_guest *g)
{
	guest_mem_destroy(&g->mem);
}

static gpa_t place_of(const struct paging_guest *g, const struct paging_case *c, int level)
{
	return g->table[level] + 8 * paging_case_index(c, level);
}

/* Behind the shadow MMU's back where that is allowed. */
static void set_entry(struct paging_guest *g, const struct paging_case *c, int level,
		      uint64_t entry)
{
	if (level == SDM_PTE)
		guest_edit(&g->mem, place_of(g, c, level), entry);
	else
		guest_write(&g->mem, place_of(g, c, level), entry);
}

void paging_guest_place(struct paging_guest *g, struct paging_case *c)
{
	uint64_t frame[SDM_LEVELS] = {0};

	for (int level = c->top; level > c->leaf; level--)
		frame[level] = g->table[level - 1];
	frame[c->leaf] = c->leaf == SDM_PTE ? PAGE : 0;
	paging_case_place(c, g->table[c->top], frame);
	for (int level = c->top; level >= c->leaf; level--)
		set_entry(g, c, level, c->entry[level]);
}

void paging_guest_entries(struct paging_guest *g, const struct paging_case *c,
			  uint64_t entry[SDM_LEVELS])
{
	for (int level = c->top; level >= c->leaf; level--)
		entry[level] = guest_read(&g->mem, place_of(g, c, level));
}

void paging_guest_clear(struct paging_guest *g, const struct paging_case *c)
{
	for (int level = c->top; level >= c->leaf; level--)
		set_entry(g, c, level, 0);
}

struct guest_cpu paging_guest_cpu(const struct paging_case *c)
{
	const struct sdm_cpu *cpu = &c->cpu;

	return (struct guest_cpu){
		.cr0 = GUEST_CR0_PG | (cpu->wp ? GUEST_CR0_WP : 0),
		.cr3 = cpu->cr3,
		.cr4 = GUEST_CR4_PAE | (cpu->pge ? GUEST_CR4_PGE : 0) |
		       (cpu->pcide ? GUEST_CR4_PCIDE : 0) | (cpu->la57 ? GUEST_CR4_LA57 : 0) |
		       (cpu->smep ? GUEST_CR4_SMEP : 0) | (cpu->smap ? GUEST_CR4_SMAP : 0) |
		       (cpu->pke ? GUEST_CR4_PKE : 0),
		.efer = cpu->nxe ? GUEST_EFER_NXE : 0,
		.pkru = cpu->pkru,
		.user = c->access.mode == SDM_USER,
		.ac = cpu->ac,
		.maxphyaddr = cpu->maxphyaddr,
	};
}

uint32_t paging_guest_access(const struct sdm_access *access)
{
	return (access->kind == SDM_WRITE ? PFERR_WRITE : 0) |
	       (access->kind == SDM_FETCH ? PFERR_FETCH : 0) |
	       (access->mode == SDM_IMPLICIT ? PFERR_IMPLICIT : 0);
}

static int walk(struct shadow *shadow, const struct guest_cpu *cpu, const struct paging_case *c,
		struct guest_walk *w, uint32_t *error_code)
{
	int id = srcu_read_lock(&shadow->slots_srcu);
	int ret = guest_walk(shadow, cpu, c->access.address, paging_guest_access(&c->access), w,
			     error_code);

	srcu_read_unlock(&shadow->slots_srcu, id);
	return ret;
}

/* A walk that ended well, against the translation. */
static bool page_differs(const struct paging_case *c, const struct sdm_result *manual,
			 const struct guest_walk *w, char *what, size_t size)
{
	uint64_t leaf = c->entry[manual->leaf] | manual->sets[manual->leaf];

	if (w->gfn == manual->physical >> PAGE_SHIFT && w->level == manual->leaf &&
	    w->table_gfn[c->top] == sdm_root(&c->cpu) >> PAGE_SHIFT &&
	    w->dirty == !!(leaf & SDM_D) && w->pkey == manual->key &&
	    w->pcid == sdm_pcid(&c->cpu) && w->global == manual->global)
		return false;
	snprintf(what, size, "done at gfn 0x%lx, level %d, key %u, PCID %u%s%s", w->gfn, w->level,
		 w->pkey, w->pcid, w->global ? ", global" : "", w->dirty ? ", dirty" : "");
	return true;
}

bool paging_walk_differs(struct shadow *shadow, const struct paging_case *c,
			 const struct sdm_result *manual, char *what, size_t size)
{
	struct guest_cpu cpu = paging_guest_cpu(c);
	struct guest_walk w = {0};
	uint32_t code = 0;
	int ret;

	/* Nobody walks for such an address: who acts for the CPU asks first. */
	if (guest_canonical(&cpu, c->access.address) != (manual->outcome != SDM_NOT_CANONICAL)) {
		snprintf(what, size, "canonical or not");
		return true;
	}
	if (manual->outcome == SDM_NOT_CANONICAL)
		return false;
	ret = walk(shadow, &cpu, c, &w, &code);
	if (!ret && manual->outcome == SDM_DONE)
		return page_differs(c, manual, &w, what, size);
	if (ret == -EFAULT && manual->outcome == SDM_PAGE_FAULT && code == manual->error_code)
		return false;
	snprintf(what, size, "%s %d, error code 0x%x", ret ? strerror(-ret) : "done", ret, code);
	return true;
}

bool paging_marks_differ(const struct paging_case *c, const struct sdm_result *manual,
			 const uint64_t after[SDM_LEVELS], bool *marked, char *what, size_t size)
{
	for (int level = c->top; level >= c->leaf; level--) {
		uint64_t changed = c->entry[level] ^ after[level];
		uint64_t wanted = manual->sets[level] & ~c->entry[level];
		uint64_t more = changed & ~(manual->sets[level] | manual->may_set[level]);

		*marked |= manual->outcome != SDM_DONE && changed;
		if (!(wanted & ~changed) && !more)
			continue;
		snprintf(what, size, "entry of level %d: 0x%lx lacks 0x%lx, changed 0x%lx too many",
			 level, after[level], wanted & ~changed, more);
		return true;
	}
	return false;
}
