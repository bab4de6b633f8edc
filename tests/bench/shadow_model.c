/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A guest for the benchmarks: its memory, its page tables, and the model machine below it. */
#include <errno.h>
#include <stdlib.h>

#include "tests/bench/shadow.h"
#include "tests/model/model.h"

#define FILE_PAGES 4096UL
#define TABLES_HVA 0x7000000000UL /* a slot of its own, behind all pages */
#define ENTRIES	   512UL

#define GUEST_RWAD 0x63UL /* present, writable, accessed, dirty */

static void must(bool ok)
{
	if (!ok)
		abort();
}

static uint64_t tables_for(uint64_t entries)
{
	return (entries + ENTRIES - 1) / ENTRIES;
}

/* Write the tables of one level, which map @nr things from gfn @what on; returns how many there
 * are. */
static uint64_t write_tables(struct shadow_guest *guest, uint64_t table, gfn_t what, uint64_t nr)
{
	uint64_t entry[ENTRIES], done = 0, tables = 0;

	for (; done < nr; tables++) {
		for (unsigned int i = 0; i < ENTRIES; i++, done++)
			entry[i] = done < nr ? (what + done) << PAGE_SHIFT | GUEST_RWAD : 0;
		must(!mm_write(guest->mm, TABLES_HVA + ((table + tables) << PAGE_SHIFT), entry,
			       sizeof(entry)));
	}
	return tables;
}

/* From the leaves up to the root, which is the last. Returns its number. */
static uint64_t write_all_tables(struct shadow_guest *guest)
{
	uint64_t first = 0, nr = guest->nr_pages;
	gfn_t what = 0;

	for (int level = 1;; level++) {
		uint64_t tables = write_tables(guest, first, what, nr);

		if (level == 4)
			return first;
		what = guest->nr_pages + first;
		first += tables;
		nr = tables;
	}
}

static uint64_t nr_tables(uint64_t nr_pages)
{
	uint64_t l1 = tables_for(nr_pages), l2 = tables_for(l1);

	return l1 + l2 + tables_for(l2) + 1;
}

static int map_memory(struct shadow_guest *guest)
{
	int ret = 0;

	for (uint64_t at = 0; at < guest->nr_pages && !ret; at += FILE_PAGES)
		ret = mm_mmap(guest->mm, SHADOW_HVA + (at << PAGE_SHIFT), FILE_PAGES << PAGE_SHIFT,
			      MM_PROT_READ | MM_PROT_WRITE, guest->file, 0);
	if (!ret)
		ret = mm_mmap(guest->mm, TABLES_HVA, nr_tables(guest->nr_pages) << PAGE_SHIFT,
			      MM_PROT_READ | MM_PROT_WRITE, NULL, 0);
	/* Faults of the host's are not what is measured. */
	for (uint64_t n = 0; n < guest->nr_pages && !ret; n++)
		ret = mm_write(guest->mm, SHADOW_HVA + (n << PAGE_SHIFT), &n, sizeof(n));
	return ret;
}

static int attach(struct shadow_guest *guest)
{
	uint64_t root;
	int ret;

	guest->machine = model_create(guest->phys, SHADOW_VCPUS);
	if (!guest->machine)
		return -ENOMEM;
	ret = shadow_create(&guest->shadow, guest->mm, model_to_machine(guest->machine),
			    SHADOW_VCPUS);
	if (!ret)
		ret = shadow_create_memslot(guest->shadow, 0, 0, guest->nr_pages, SHADOW_HVA);
	if (!ret)
		ret = shadow_create_memslot(guest->shadow, 1, guest->nr_pages,
					    nr_tables(guest->nr_pages), TABLES_HVA);
	if (ret)
		return ret;
	root = guest->nr_pages + write_all_tables(guest);
	for (unsigned int i = 0; i < SHADOW_VCPUS && !ret; i++)
		ret = shadow_load_cr3(guest->shadow, i, root << PAGE_SHIFT);
	return ret;
}

int shadow_guest_init(struct shadow_guest *guest, uint64_t nr_live)
{
	int ret;

	*guest = (struct shadow_guest){.nr_live = nr_live};
	guest->nr_pages = nr_live + SHADOW_VCPUS * SHADOW_PAGES;
	/* Tables twice, the guest's and ours, and some that wait to be used. */
	ret = phys_create(&guest->phys, FILE_PAGES + 2 * nr_tables(guest->nr_pages) + 1024);
	if (ret)
		return ret;
	guest->mm = mm_alloc(guest->phys);
	guest->file = address_space_create(guest->phys, FILE_PAGES);
	ret = guest->mm && guest->file ? map_memory(guest) : -ENOMEM;
	if (!ret)
		ret = attach(guest);
	if (ret)
		shadow_guest_destroy(guest);
	return ret;
}

void shadow_guest_live(struct shadow_guest *guest)
{
	for (uint64_t n = 0; n < guest->nr_live; n++)
		shadow_fault_in(guest, 0, n);
}

void shadow_guest_destroy(struct shadow_guest *guest)
{
	if (guest->shadow)
		shadow_destroy(guest->shadow);
	model_destroy(guest->machine);
	if (guest->mm)
		mmput(guest->mm);
	if (guest->file)
		address_space_put(guest->file);
	if (guest->phys)
		phys_destroy(guest->phys);
	*guest = (struct shadow_guest){NULL};
}

static enum ret_pf fault(struct shadow_guest *guest, unsigned int vcpu, uint64_t page)
{
	struct shadow_fault f = {.gva = page << PAGE_SHIFT, .error_code = PFERR_WRITE};

	return shadow_handle_fault(guest->shadow, vcpu, &f);
}

void shadow_fault_in(struct shadow_guest *guest, unsigned int vcpu, uint64_t page)
{
	must(fault(guest, vcpu, page) == RET_PF_FIXED);
}

void shadow_fault_again(struct shadow_guest *guest, unsigned int vcpu, uint64_t page)
{
	must(fault(guest, vcpu, page) == RET_PF_SPURIOUS);
}

void shadow_window(struct shadow_guest *guest, uint64_t first, uint64_t nr)
{
	struct mmu_notifier_range range;
	hva_t hva = SHADOW_HVA + (first << PAGE_SHIFT);

	mmap_read_lock(guest->mm);
	mmu_notifier_range_init(&range, MMU_NOTIFY_CLEAR, 0, guest->mm, hva,
				hva + (nr << PAGE_SHIFT));
	mmu_notifier_invalidate_range_start(&range);
	mmu_notifier_invalidate_range_end(&range);
	mmap_read_unlock(guest->mm);
}
