/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The kinds of chaos, and which of them go with what RAM.
 *
 * At the default rates a guest of 64M refaults its pages for a tenth of its time on a slow host (50
 * us a fault), and each of its pages moves every few seconds. A fork takes the right to write from
 * every page, and so is rare.
 */
#include <errno.h>

#include "vmm/chaos.h"
#include "vmm/why.h"

const struct chaos_kind chaos_kinds[NR_CHAOS_KINDS] = {
	[CHAOS_MIGRATE] = {.name = "migrate",
			   .help = "move mapped pages by range, or one frame by its number",
			   .default_rate = 500,
			   .op = chaos_migrate},
	[CHAOS_UNMAP] = {.name = "unmap",
			 .help = "drop the mappings of pages and move half of those pages",
			 .needs = CHAOS_NEEDS_KEEPER,
			 .default_rate = 500,
			 .op = chaos_unmap},
	[CHAOS_PROTECT] = {.name = "protect",
			   .help = "take the right to write, or all rights, for some milliseconds",
			   .default_rate = 100,
			   .op = chaos_protect},
	[CHAOS_FORK] = {.name = "fork",
			.help = "fork the address space; the child lives for some milliseconds",
			.needs = CHAOS_NEEDS_PRIVATE,
			.default_rate = 10,
			.op = chaos_fork},
	[CHAOS_MERGE] = {.name = "merge",
			 .help = "merge pages with copies of them for some milliseconds",
			 .needs = CHAOS_NEEDS_PRIVATE,
			 .default_rate = 50,
			 .op = chaos_merge},
	[CHAOS_SWAP] = {.name = "swap",
			.help = "write pages to the swap file and drop them",
			.needs = CHAOS_NEEDS_SWAP,
			.default_rate = 100,
			.op = chaos_swap},
	[CHAOS_REMAP] = {.name = "remap",
			 .help = "move pages to another address for some milliseconds",
			 .default_rate = 100,
			 .op = chaos_remap},
	[CHAOS_AGE] = {.name = "age",
		       .help = "ask whether pages were used",
		       .default_rate = 200,
		       .op = chaos_age},
	[CHAOS_BALLOON] = {.name = "balloon",
			   .help = "take frames out of the pool for some milliseconds",
			   .default_rate = 20,
			   .op = chaos_balloon},
	[CHAOS_REGISTER] = {.name = "register",
			    .help = "register and unregister notifiers of the address space",
			    .by_name_only = true,
			    .default_rate = 50,
			    .op = chaos_register},
};

/* What @kind lacks, as the end of a sentence, or NULL. */
static const char *what_is_missing(const struct chaos_kind *kind, const struct chaos_memory *memory)
{
	if ((kind->needs & CHAOS_NEEDS_PRIVATE) && !memory->private_ram)
		return "is about private memory: add --ram private";
	if ((kind->needs & CHAOS_NEEDS_KEEPER) && memory->private_ram && !memory->swap)
		return "would lose private memory: add --swap SIZE, or leave out --ram private";
	if ((kind->needs & CHAOS_NEEDS_SWAP) && !memory->swap)
		return "needs somewhere to put pages: add --swap SIZE";
	return NULL;
}

bool chaos_kind_fits(enum chaos_kind_id kind, const struct chaos_memory *memory)
{
	return !what_is_missing(&chaos_kinds[kind], memory);
}

int chaos_plan_fit(struct chaos_plan *plan, const struct chaos_memory *memory, char *why,
		   size_t why_len)
{
	for (unsigned int i = 0; i < NR_CHAOS_KINDS; i++) {
		const char *missing = what_is_missing(&chaos_kinds[i], memory);

		if (!plan->rate[i] || !missing)
			continue;
		if (plan->named[i])
			return why_fail(why, why_len, -EINVAL, "chaos '%s' %s", chaos_kinds[i].name,
					missing);
		plan->rate[i] = 0;
	}
	return 0;
}
