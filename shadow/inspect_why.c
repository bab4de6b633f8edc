/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One address through all four address spaces, and what an access to it would come to.
 *
 * What is told was looked at one after the other, each as it is told but not all at one moment:
 * the guest and the host go on meanwhile. The verdicts are of the same looks, and of the functions
 * that a fault asks: so they are what a fault would find, if nothing changes before it comes.
 */
#include <errno.h>

#include "shadow/gpte.h"
#include "shadow/inspect.h"

#define MAX_VIEWS 8

/* What the tables of one root have for the address. */
struct view_path {
	struct shadow_role role;
	uint64_t vcpus;
	bool reserved; /* the machine's own */
	int lowest;    /* level of the last table on the way */
	struct {
		gfn_t gfn;
		pfn_t table;
		spte_t spte;
	} at[TABLE_LEVELS + 1];
};

struct why {
	struct shadow *shadow;
	struct guest_cpu cpu;
	gva_t gva;

	int walk_ret;
	uint32_t error_code; /* of what the walk met */
	struct guest_walk walk;

	bool has_slot, has_area;
	unsigned int slot_id, slot_flags;
	gfn_t slot_gfn;
	uint64_t slot_pages;
	hva_t slot_hva;
	hva_t hva;
	struct mm_area area;
	struct mm_page page;
	int table_level; /* the page is a table of the guest's, of that level, in step; 0: none */

	unsigned int nr_views, views_left; /* left out */
	struct view_path view[MAX_VIEWS];  /* the vCPU's own comes first */
	shadow_emit_t emit;
	void *arg;
};

/* --- looking --- */

static void follow(struct why *why, struct shadow_page *sp, struct view_path *path)
{
	path->role = sp->role;
	path->vcpus = root_vcpus(why->shadow, sp);
	for (int level = sp->role.level; sp; level--) {
		spte_t spte = READ_ONCE(sp->spt[table_index(why->gva, level)]);

		path->lowest = level;
		path->at[level].gfn = sp->gfn;
		path->at[level].table = sp->table;
		path->at[level].spte = spte;
		if ((spte & SPTE_PRESENT) && !spte_present(spte))
			path->reserved = true;
		if (!spte_present(spte) || spte_is_leaf(spte, level))
			break;
		sp = spte_to_child(why->shadow, spte);
	}
}

/* The state of the vCPU, and all roots of its CR3. */
static void look_at_views(struct why *why, unsigned int vcpu_id)
{
	struct shadow *shadow = why->shadow;
	const struct shadow_vcpu *vcpu = &shadow->vcpu[vcpu_id];
	struct shadow_page *sp;

	spin_lock(&shadow->mmu_lock);
	why->cpu = vcpu->cpu;
	if (vcpu->root)
		follow(why, vcpu->root, &why->view[why->nr_views++]);
	list_for_each_entry(sp, &shadow->pages, link) {
		if (sp == vcpu->root || !sp->root_count || !vcpu->root ||
		    sp->gfn != vcpu->root->gfn)
			continue;
		if (why->nr_views < MAX_VIEWS)
			follow(why, sp, &why->view[why->nr_views++]);
		else
			why->views_left++;
	}
	spin_unlock(&shadow->mmu_lock);
}

static void look_at_host(struct why *why)
{
	struct shadow *shadow = why->shadow;
	const struct memslot *slot = gfn_to_memslot(shadow_memslots(shadow), why->walk.gfn);

	if (!slot)
		return;
	why->has_slot = true;
	why->slot_id = slot->id;
	why->slot_flags = slot->flags;
	why->slot_gfn = slot->base_gfn;
	why->slot_pages = slot->npages;
	why->slot_hva = slot->hva;
	why->hva = memslot_hva(slot, why->walk.gfn) + (why->gva & ~PAGE_MASK);
	why->has_area = mm_lookup_area(shadow->mm, why->hva, &why->area);
	mm_lookup_page(shadow->mm, why->hva, &why->page);
}

/* Is the page a table, whose stores must not go unseen (write_protect.c)? The highest level counts:
 * a store to leaves is the guest's to do. */
static void look_at_tables(struct why *why)
{
	struct shadow *shadow = why->shadow;
	const struct shadow_page *sp;

	spin_lock(&shadow->mmu_lock);
	list_for_each_entry(sp, shadow_page_bucket(shadow, why->walk.gfn), hash_link) {
		if (sp->gfn == why->walk.gfn && !sp->role.direct && !sp->unsync &&
		    sp->role.level > why->table_level)
			why->table_level = sp->role.level;
	}
	spin_unlock(&shadow->mmu_lock);
}

/* False: there is no address space any more. */
static bool look(struct why *why)
{
	struct shadow *shadow = why->shadow;
	int id = srcu_read_lock(&shadow->slots_srcu);
	/* Looked at inside the section: see shadow_release(). */
	bool alive = !READ_ONCE(shadow->dead);

	if (alive)
		why->walk_ret =
			guest_walk_look(shadow, &why->cpu, why->gva, &why->walk, &why->error_code);
	if (alive && why->walk.level) {
		look_at_host(why);
		look_at_tables(why);
	}
	srcu_read_unlock(&shadow->slots_srcu, id);
	return alive;
}

/* --- telling what was seen --- */

static void tell(struct why *why, struct line *line)
{
	why->emit(why->arg, line->text);
	line->len = 0;
}

static void add_gpte(struct line *line, uint64_t gpte, int level)
{
	static const struct {
		uint64_t bit;
		const char *name;
	} bits[] = {
		{GPTE_PRESENT, " P"},  {GPTE_WRITE, " W"}, {GPTE_USER, " U"},
		{GPTE_ACCESSED, " A"}, {GPTE_DIRTY, " D"}, {GPTE_PS, " PS"},
		{GPTE_GLOBAL, " G"},   {GPTE_NX, " NX"},
	};

	line_add(line, " is %#lx", gpte);
	for (unsigned int i = 0; i < sizeof(bits) / sizeof(bits[0]); i++) {
		if ((gpte & bits[i].bit) && !(level == 1 && bits[i].bit == GPTE_PS))
			line_add(line, "%s", bits[i].name);
	}
	if (gpte_is_leaf(gpte, level) && gpte_pkey(gpte))
		line_add(line, " key %u", gpte_pkey(gpte));
	if (gpte & GPTE_PRESENT)
		line_add(line, ", %s gfn %#lx", gpte_is_leaf(gpte, level) ? "page" : "table",
			 gpte_gfn(gpte, level));
}

/* The entry that was read last is good, and there is no memory where it leads: or CR3, if none was.
 */
static bool table_is_missing(const struct why *why)
{
	const struct guest_walk *walk = &why->walk;

	return why->walk_ret == -EFAULT && !(why->error_code & PFERR_RSVD) &&
	       (walk->reached > walk->levels || (walk->gpte[walk->reached] & GPTE_PRESENT));
}

static void tell_guest(struct why *why, struct line *line)
{
	const struct guest_walk *walk = &why->walk;

	for (int level = walk->levels; level >= walk->reached; level--) {
		line_add(line, "guest  level %d gfn %#lx entry %u", level, walk->table_gfn[level],
			 table_index(why->gva, level));
		add_gpte(line, walk->gpte[level], level);
		tell(why, line);
	}
	if (why->walk_ret == -EAGAIN) {
		line_add(line, "guest  level %d gfn %#lx ", walk->reached - 1,
			 walk->table_gfn[walk->reached - 1]);
		if (walk->bad_hva == INVALID_HVA)
			line_add(line, "is in a slot that is being moved or deleted");
		else
			line_add(line, "is at hva %#lx, and not in memory now", walk->bad_hva);
		tell(why, line);
	} else if (table_is_missing(why)) {
		line_add(line, "guest  level %d gfn %#lx is in no slot", walk->reached - 1,
			 walk->table_gfn[walk->reached - 1]);
		tell(why, line);
	}
}

static void tell_page(struct why *why, struct line *line)
{
	static const char *const kinds[] = {
		[MM_PAGE_NONE] = "no page yet, or no more",
		[MM_PAGE_PRESENT] = "frame",
		[MM_PAGE_MIGRATING] = "being moved from frame",
		[MM_PAGE_SWAPPED] = "in the swap file, slot",
		[MM_PAGE_DEVICE] = "in the memory of a device, frame",
		[MM_PAGE_EXCLUSIVE] = "a device has it for itself, frame",
	};
	const struct mm_page *page = &why->page;

	line_add(line, "host   hva %#lx entry is %#lx, %s", why->hva, page->entry,
		 kinds[page->kind]);
	if (page->kind != MM_PAGE_NONE)
		line_add(line, " %#lx", page->number);
	if (page->kind == MM_PAGE_PRESENT)
		line_add(line, " %c%c%s%s", page->prot & MM_PROT_READ ? 'r' : '-',
			 page->prot & MM_PROT_WRITE ? 'w' : '-', page->accessed ? " accessed" : "",
			 page->dirty ? " dirty" : "");
	tell(why, line);
}

static void tell_host(struct why *why, struct line *line)
{
	if (!why->has_slot) {
		line_add(line, "slot   none at gfn %#lx", why->walk.gfn);
		tell(why, line);
		return;
	}
	line_add(line, "slot   %u gfn %#lx-%#lx at hva %#lx%s%s%s", why->slot_id, why->slot_gfn,
		 why->slot_gfn + why->slot_pages - 1, why->slot_hva,
		 why->slot_flags & MEMSLOT_READONLY ? " read-only" : "",
		 why->slot_flags & MEMSLOT_LOG_DIRTY ? " logged" : "",
		 why->slot_flags & MEMSLOT_INVALID ? " being moved or deleted" : "");
	tell(why, line);
	if (!why->has_area) {
		line_add(line, "host   hva %#lx is in no area", why->hva);
		tell(why, line);
		return;
	}
	line_add(line, "host   area %#lx-%#lx %c%c %s", why->area.start, why->area.end - 1,
		 why->area.prot & MM_PROT_READ ? 'r' : '-',
		 why->area.prot & MM_PROT_WRITE ? 'w' : '-',
		 why->area.is_private ? "private" : "shared");
	if (why->area.shows_object)
		line_add(line, ", page %#lx of an object",
			 why->area.pgoff + ((why->hva - why->area.start) >> PAGE_SHIFT));
	tell(why, line);
	tell_page(why, line);
}

static void tell_view(struct why *why, const struct view_path *path, struct line *line)
{
	line_add(line, "shadow ");
	line_add_view(line, path->role);
	line_add_vcpus(line, path->vcpus);
	tell(why, line);
	for (int level = path->role.level; level >= path->lowest; level--) {
		spte_t spte = path->at[level].spte;

		line_add(line, "shadow level %d gfn %#lx frame %#lx entry %u is %#lx", level,
			 path->at[level].gfn, path->at[level].table, table_index(why->gva, level),
			 spte);
		if (spte_present(spte) && !spte_is_leaf(spte, level))
			line_add(line, ", table frame %#lx", spte_pfn(spte));
		else if (spte_present(spte)) {
			line_add(line, ", frame %#lx ", spte_pfn(spte));
			if (level == HUGE_LEVEL)
				line_add(line, "and 511 more, ");
			line_add_rights(line, spte);
		} else if (spte & SPTE_PRESENT)
			line_add(line, ", the machine's own");
		tell(why, line);
	}
}

/* --- the verdict --- */

static bool leaf_of(const struct view_path *path, spte_t *spte)
{
	*spte = path->at[path->lowest].spte;
	return spte_present(*spte) && spte_is_leaf(*spte, path->lowest);
}

static bool grants(spte_t spte, uint32_t access)
{
	if (access & PFERR_FETCH)
		return !(spte & SPTE_NX);
	return !(access & PFERR_WRITE) || (spte & SPTE_WRITE);
}

static void add_guest_fault(const struct why *why, uint32_t code, struct line *line)
{
	line_add(line, "is the guest's fault, #PF %#x: ", code);
	if (table_is_missing(why))
		line_add(line, "no table at level %d", why->walk.reached - 1);
	else if (!(code & PFERR_PRESENT))
		line_add(line, "not present at level %d", why->walk.reached);
	else if (code & PFERR_RSVD)
		line_add(line, "a reserved bit at level %d", why->walk.reached);
	else
		line_add(line, "%s", code & PFERR_PK ? "the key forbids it" : "no right to it");
}

/* The guest's tables allow it, and the shadow's do not, or not yet. */
static void add_host_verdict(const struct why *why, bool write, struct line *line)
{
	const struct guest_walk *walk = &why->walk;
	unsigned int rights = leaf_rights(why->view[0].role, walk->access[walk->level], walk->pkey,
					  walk->dirty || write);
	spte_t spte;

	if (!why->has_slot || (write && (why->slot_flags & MEMSLOT_READONLY)))
		line_add(line, "goes to a device, if there is one");
	else if (why->slot_flags & MEMSLOT_INVALID)
		line_add(line, "faults until the slot is moved or deleted");
	else if (!(rights & ACC_READ))
		line_add(line, "kills the guest: no entry can say execute-only");
	else if (!why->has_area || !(why->area.prot & (write ? MM_PROT_WRITE : MM_PROT_READ)))
		line_add(line, "waits or kills the guest: the host refuses it");
	else if (write && why->table_level > 1)
		line_add(line, "is carried out for the guest: the page is a table of its own");
	else if (why->page.kind != MM_PAGE_PRESENT)
		line_add(line, "faults once: the host has to get the page");
	else if (write && !(why->page.prot & MM_PROT_WRITE))
		line_add(line, "faults once: the host has to make its page writable");
	else if (write && !walk->dirty)
		line_add(line, "faults once: the guest's D bit has to be set");
	else if (write && why->table_level)
		line_add(line, "faults once: a table of the guest's comes out of step");
	else if (write && (why->slot_flags & MEMSLOT_LOG_DIRTY) && leaf_of(&why->view[0], &spte))
		line_add(line, "faults once: the page is clean, and its slot logged");
	else if (leaf_of(&why->view[0], &spte))
		line_add(line, "faults once: the shadow's entry has too little");
	else
		line_add(line, "faults once: the shadow has nothing at level %d",
			 why->view[0].lowest);
}

static void add_verdict(const struct why *why, uint32_t access, struct line *line)
{
	uint32_t code = why->error_code;
	int ret = why->walk_ret;
	spte_t spte;

	if (ret != -EAGAIN)
		ret = guest_walk_allows(&why->cpu, access, &why->walk, &code);
	if (leaf_of(&why->view[0], &spte) && grants(spte, access))
		line_add(line, "%s%s",
			 spte_walkable(spte) ? "works" : "faults once: the entry is tracked",
			 ret == -EFAULT ? ", by what the guest's tables said before" : "");
	else if (ret == -EFAULT)
		add_guest_fault(why, code, line);
	else if (ret)
		line_add(line, "faults: %s",
			 why->walk.bad_hva == INVALID_HVA
				 ? "the slot of a table of the guest's is being moved or deleted"
				 : "the host has to get a table of the guest's first");
	else
		add_host_verdict(why, access & PFERR_WRITE, line);
}

static void tell_verdicts(struct why *why, struct line *line)
{
	line_add(line, "so     ");
	if (why->view[0].reserved) {
		line_add(line, "any access kills the guest: the address is the machine's own");
	} else {
		line_add(line, "a read ");
		add_verdict(why, 0, line);
		line_add(line, "; a write ");
		add_verdict(why, PFERR_WRITE, line);
		line_add(line, "; a fetch ");
		add_verdict(why, PFERR_FETCH, line);
	}
	tell(why, line);
}

void shadow_explain(struct shadow *shadow, unsigned int vcpu, gva_t gva, shadow_emit_t emit,
		    void *arg)
{
	struct why why = {.shadow = shadow, .gva = gva, .emit = emit, .arg = arg};
	struct line line = {.len = 0};

	ASSERT(vcpu < shadow->nr_vcpus, "a vCPU of this guest");
	look_at_views(&why, vcpu);
	line_add(&line, "gva    %#lx on vCPU %u", gva, vcpu);
	if (!why.nr_views) {
		line_add(&line, ", which has no tables yet");
		tell(&why, &line);
		return;
	}
	line_add(&line, ", cr3 %#lx", why.cpu.cr3);
	tell(&why, &line);
	if (!guest_canonical(&why.cpu, gva)) {
		line_add(&line, "so     any access is the guest's fault, #GP: not canonical");
		tell(&why, &line);
		return;
	}
	if (!machine_reaches(shadow->machine, gva)) {
		line_add(&line,
			 "so     any access is the guest's fault, #PF: out of the machine's reach");
		tell(&why, &line);
		return;
	}
	if (!look(&why)) {
		line_add(&line, "so     no access: the address space is gone");
		tell(&why, &line);
		return;
	}
	tell_guest(&why, &line);
	if (why.walk.level)
		tell_host(&why, &line);
	for (unsigned int i = 0; i < why.nr_views; i++)
		tell_view(&why, &why.view[i], &line);
	if (why.table_level) {
		line_add(&line, "shadow gfn %#lx is a table of level %d, in step", why.walk.gfn,
			 why.table_level);
		tell(&why, &line);
	}
	if (why.views_left) {
		line_add(&line, "shadow and %u more views", why.views_left);
		tell(&why, &line);
	}
	tell_verdicts(&why, &line);
}
