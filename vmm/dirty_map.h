/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A map of where a guest writes: rows are times, columns pieces of its memory, and each place says
 * how many pages of the piece were written in that time.
 *
 * It takes the same memory however long a guest runs: when there are DIRTY_MAP_ROWS, each two
 * become one, and what is added later is added to rows of as many samples. So a row is a sum over
 * its samples, and a share the mean.
 *
 * Belongs to one thread at a time.
 */
#ifndef VMM_DIRTY_MAP_H
#define VMM_DIRTY_MAP_H

#include <stdint.h>
#include <stdio.h>

#include <jansson.h>

#define DIRTY_MAP_COLUMNS 64
#define DIRTY_MAP_ROWS	  4096

struct dirty_row {
	uint64_t end_ns; /* since the guest began */
	uint64_t samples;
	uint64_t pages; /* written, of all samples together: one that is in two counts twice */
	uint64_t column[DIRTY_MAP_COLUMNS];
};

struct dirty_map {
	uint64_t npages, column_pages; /* of the last column, what is left */
	unsigned int nr_columns;
	struct dirty_row *rows;
	unsigned int nr_rows;
	uint64_t samples_per_row;
	uint64_t *ever; /* pages that were written at all, and how many */
	uint64_t pages_ever;
};

/* 0 or -ENOMEM. */
int dirty_map_init(struct dirty_map *map, uint64_t npages);
void dirty_map_destroy(struct dirty_map *map);

/* A bitmap as shadow_get_dirty_log() gives it, of what was written until @end_ns. */
void dirty_map_add(struct dirty_map *map, const uint64_t *bitmap, uint64_t end_ns);

/* What is said of it, beside the map. */
struct dirty_map_title {
	const char *guest;
	uint64_t seed;
	uint64_t interval_ms;
};

/* For people, with a header that explains it. Errors are @stream's. */
void dirty_map_text(const struct dirty_map *map, const struct dirty_map_title *title, FILE *stream);
/* A new object, or NULL when out of memory. */
json_t *dirty_map_json(const struct dirty_map *map, const struct dirty_map_title *title);

#endif
