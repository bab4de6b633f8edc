/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Which ranges are being invalidated (open_ranges.h). */
#include "shadow/open_ranges.h"

#include "notifier/sync/bug.h"
#include "notifier/sync/util.h"

void open_ranges_add(struct open_ranges *open, hva_t start, hva_t end)
{
	const struct open_range range = {start, end};

	if (open->nr < OPEN_RANGES) {
		open->range[open->nr++] = range;
	} else if (!open->nr_rest++) {
		open->rest = range;
	} else {
		open->rest.start = min(open->rest.start, start);
		open->rest.end = max(open->rest.end, end);
	}
}

void open_ranges_remove(struct open_ranges *open, hva_t start, hva_t end)
{
	for (unsigned int i = 0; i < open->nr; i++) {
		if (open->range[i].start == start && open->range[i].end == end) {
			open->range[i] = open->range[--open->nr];
			return;
		}
	}
	ASSERT(open->nr_rest, "each end has its start");
	open->nr_rest--;
}

static bool covers(const struct open_range *range, hva_t hva)
{
	return hva >= range->start && hva < range->end;
}

bool open_ranges_cover(const struct open_ranges *open, hva_t hva)
{
	for (unsigned int i = 0; i < open->nr; i++) {
		if (covers(&open->range[i], hva))
			return true;
	}
	return open->nr_rest && covers(&open->rest, hva);
}
