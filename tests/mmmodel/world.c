/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/mmmodel/world.h"

#include <stdlib.h>
#include <string.h>

#include <gnomon/ksm.h>
#include <gnomon/swap.h>

#include "notifier/mm_internal.h"

/* The border of tables of the two lowest levels lies 24 pages in. */
#define LOW_BASE ((1UL << 30) - 24 * PAGE_SIZE)

/* For all pages that there can be. */
#define SWAP_SLOTS 4096

hva_t place_hva(int place)
{
	if (place < RUN_PAGES)
		return LOW_BASE + place * PAGE_SIZE;
	return MM_MMAP_BASE + (place - RUN_PAGES) * PAGE_SIZE;
}

int hva_place(hva_t hva)
{
	if (hva >= LOW_BASE && hva < LOW_BASE + RUN_PAGES * PAGE_SIZE)
		return (hva - LOW_BASE) >> PAGE_SHIFT;
	if (hva >= MM_MMAP_BASE && hva < MM_MMAP_BASE + RUN_PAGES * PAGE_SIZE)
		return RUN_PAGES + ((hva - MM_MMAP_BASE) >> PAGE_SHIFT);
	return -1;
}

size_t word_offset(int word)
{
	static const size_t offsets[NR_WORDS] = {0, 8, 2048, PAGE_SIZE - 8};

	return offsets[word];
}

bool places_ok(int page, int nr)
{
	return page >= 0 && nr >= 0 && page < NR_PAGES && nr <= RUN_PAGES &&
	       page + nr <= (page / RUN_PAGES + 1) * RUN_PAGES;
}

static void copy_to_device(struct device_memory *memory, struct mm_struct *mm, hva_t hva, pfn_t pfn,
			   const void *ram)
{
	(void)mm, (void)hva;
	memcpy(device_memory_map(memory, pfn), ram, PAGE_SIZE);
}

static void copy_to_ram(struct device_memory *memory, struct mm_struct *mm, hva_t hva, pfn_t pfn,
			void *ram)
{
	(void)mm, (void)hva;
	memcpy(ram, device_memory_map(memory, pfn), PAGE_SIZE);
}

static void create_device(struct world *w)
{
	static const struct device_memory_ops ops = {copy_to_device, copy_to_ram};
	static int owner;

	if (device_memory_create(w->phys, DEVICE_FRAMES, &ops, &owner, &w->memory))
		differ("no device");
}

void world_create(struct world *w, uint64_t nr_frames, bool swap)
{
	const char *dir = getenv("TMPDIR");
	memset(w, 0, sizeof(*w));
	w->nr_frames = nr_frames;
	if (phys_create(&w->phys, nr_frames))
		differ("a pool of %llu frames", (unsigned long long)nr_frames);
	w->swap = swap;
	if (swap && phys_swap_on(w->phys, dir ? dir : "/tmp", SWAP_SLOTS))
		differ("a swap file of %d pages", SWAP_SLOTS);
	create_device(w);
	w->ksm = ksm_create(w->phys);
	if (!w->ksm)
		differ("no merging");
}

void world_destroy(struct world *w)
{
	for (int i = 0; i < NR_MMS; i++) {
		if (w->mm[i].real)
			apply(w, &(struct op){.kind = OP_EXIT, .mm = i});
	}
	for (int i = 0; i < NR_OBJECTS; i++) {
		if (w->object[i])
			apply(w, &(struct op){.kind = OP_OBJECT, .object = i + 1});
	}
	check_world(w);
	if (w->used || w->pages)
		differ("the model has %llu frames left", (unsigned long long)w->used);
	ksm_destroy(w->ksm);
	device_memory_destroy(w->memory);
	phys_destroy(w->phys);
	w->phys = NULL;
}
