// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Guests on a machine with too few frames: their pages go and come under their loads and stores,
 * and their tables in the shadow find frames all the same.
 */
#include <stdlib.h>

#include <gnomon/swap.h>

#include "notifier/sync/thread.h"
#include "tests/model/guest_mem.h"
#include "tests/support/mm_fixture.h"

#define NR_CPUS	 2u
#define NR_PAGES 4096u
#define DATA	 (NR_PAGES - 32) /* tables lie above */

struct guest {
	struct guest_mem g;
	atomic_t next_cpu;
	uint64_t goal;
};

/* Each CPU has a word of its own in each page, and knows what it stored there. */
static void cpu(void *arg)
{
	struct guest *guest = arg;
	unsigned int me = (unsigned int)atomic_fetch_add(1, &guest->next_cpu);
	uint64_t *own = calloc(DATA, sizeof(*own));
	uint64_t random = me + 1;

	expect(own);
	for (uint64_t page = 0; page < DATA; page++) {
		own[page] = page * NR_CPUS + me;
		guest_store(&guest->g, me, (page << PAGE_SHIFT) + 8 * me, own[page]);
	}
	for (uint64_t n = 1; n <= guest->goal; n++) {
		uint64_t page;
		gva_t gva;

		random = random * 6364136223846793005UL + 1442695040888963407UL;
		/* Most go to a few, so that there is something worth keeping. */
		page = (random >> 33) % (n % 4 ? DATA / 8 : DATA);
		gva = (page << PAGE_SHIFT) + 8 * me;
		expect_eq(guest_load(&guest->g, me, gva), own[page]);
		own[page] = (DATA + n) * NR_CPUS + me;
		guest_store(&guest->g, me, gva, own[page]);
	}
	for (uint64_t page = 0; page < DATA; page++)
		expect_eq(guest_load(&guest->g, me, (page << PAGE_SHIFT) + 8 * me), own[page]);
	free(own);
}

static void overcommit(bool private_ram, bool with_thread)
{
	const struct guest_mem_config config = {
		.nr_cpus = NR_CPUS,
		.nr_pages = NR_PAGES,
		.nr_frames = NR_PAGES / 4,
		.private_ram = private_ram,
	};
	struct guest guest = {.goal = test_volume(5000)};
	struct reclaim_stats stats;
	struct model_stats model;

	guest_mem_init(&guest.g, &config);
	expect_eq(phys_swap_on(guest.g.phys, "/tmp", 2 * NR_PAGES), 0);
	if (with_thread)
		expect_eq(phys_reclaim_start(guest.g.phys), 0);
	guest_mem_attach(&guest.g);
	test_threads(NR_CPUS, cpu, &guest);
	phys_reclaim_stop(guest.g.phys);

	phys_reclaim_stats(guest.g.phys, &stats);
	expect_ge(stats.swap_out, DATA / 2);
	expect_ge(stats.swap_in, DATA / 2);
	model_get_stats(guest.g.model, &model);
	expect_eq(model.contract_violations, 0);
	guest_mem_destroy(&guest.g);
}

TEST(reclaim_guest, shared_memory)
{
	overcommit(false, false);
}

TEST(reclaim_guest, shared_memory_with_the_thread)
{
	overcommit(false, true);
}

TEST(reclaim_guest, private_memory)
{
	overcommit(true, false);
}

TEST(reclaim_guest, private_memory_with_the_thread)
{
	overcommit(true, true);
}
