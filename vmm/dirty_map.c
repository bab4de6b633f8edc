/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include <gnomon/shadow_dirty.h>

#include "notifier/sync/alloc.h"
#include "notifier/sync/bug.h"
#include "notifier/sync/util.h"
#include "vmm/dirty_map.h"
#include "vmm/options.h"

int dirty_map_init(struct dirty_map *map, uint64_t npages)
{
	*map = (struct dirty_map){.npages = npages, .samples_per_row = 1};
	ASSERT(npages, "a guest has memory");
	map->column_pages = (npages + DIRTY_MAP_COLUMNS - 1) / DIRTY_MAP_COLUMNS;
	map->nr_columns = (npages + map->column_pages - 1) / map->column_pages;
	map->rows = kvcalloc(DIRTY_MAP_ROWS, sizeof(*map->rows), GFP_KERNEL);
	if (!map->rows)
		return -ENOMEM;
	map->ever = kvcalloc(shadow_dirty_words(npages), sizeof(*map->ever), GFP_KERNEL);
	if (!map->ever) {
		kvfree(map->rows, DIRTY_MAP_ROWS * sizeof(*map->rows));
		return -ENOMEM;
	}
	return 0;
}

void dirty_map_destroy(struct dirty_map *map)
{
	kvfree(map->rows, DIRTY_MAP_ROWS * sizeof(*map->rows));
	kvfree(map->ever, shadow_dirty_words(map->npages) * sizeof(*map->ever));
}

/* ---- samples ---- */

static void row_add(struct dirty_row *row, const struct dirty_row *other)
{
	row->end_ns = other->end_ns;
	row->samples += other->samples;
	row->pages += other->pages;
	for (unsigned int i = 0; i < DIRTY_MAP_COLUMNS; i++)
		row->column[i] += other->column[i];
}

static void halve(struct dirty_map *map)
{
	for (unsigned int i = 0; i < DIRTY_MAP_ROWS / 2; i++) {
		map->rows[i] = map->rows[2 * i];
		row_add(&map->rows[i], &map->rows[2 * i + 1]);
	}
	map->nr_rows = DIRTY_MAP_ROWS / 2;
	map->samples_per_row *= 2;
}

/* The row that the next sample goes to. */
static struct dirty_row *row_to_fill(struct dirty_map *map)
{
	if (map->nr_rows && map->rows[map->nr_rows - 1].samples < map->samples_per_row)
		return &map->rows[map->nr_rows - 1];
	if (map->nr_rows == DIRTY_MAP_ROWS)
		halve(map);
	map->rows[map->nr_rows] = (struct dirty_row){0};
	return &map->rows[map->nr_rows++];
}

void dirty_map_add(struct dirty_map *map, const uint64_t *bitmap, uint64_t end_ns)
{
	struct dirty_row sample = {.end_ns = end_ns, .samples = 1};

	for (uint64_t n = 0; n < shadow_dirty_words(map->npages); n++) {
		map->pages_ever += (unsigned int)__builtin_popcountl(bitmap[n] & ~map->ever[n]);
		map->ever[n] |= bitmap[n];
		for (uint64_t bits = bitmap[n]; bits; bits &= bits - 1) {
			uint64_t page = n * 64 + (unsigned int)__builtin_ctzl(bits);

			sample.pages++;
			sample.column[page / map->column_pages]++;
		}
	}
	row_add(row_to_fill(map), &sample);
}

/* ---- text ---- */

static uint64_t pages_in_column(const struct dirty_map *map, unsigned int column)
{
	return min(map->column_pages, map->npages - column * map->column_pages);
}

/* By eighths: none, some, one, two, ... all. */
static char shade(uint64_t written, uint64_t of)
{
	static const char shades[] = ".:-=+*%#@";

	return written ? shades[8 * written / of] : ' ';
}

static void put_header(const struct dirty_map *map, const struct dirty_map_title *title,
		       FILE *stream)
{
	char mem[32], piece[32];

	fprintf(stream,
		"# gnomon dirty log: %s, seed %" PRIu64 ", %s of guest memory. Of %" PRIu64
		" pages of 4K %" PRIu64 " were written\n",
		title->guest, title->seed, format_size(map->npages << PAGE_SHIFT, mem, sizeof(mem)),
		map->npages, map->pages_ever);
	fprintf(stream,
		"# a row: %" PRIu64 " ms or more; s: seconds since the start, at its end; pages: "
		"written in that time\n",
		title->interval_ms * map->samples_per_row);
	if (map->samples_per_row > 1)
		fprintf(stream, "# a row is the mean of %" PRIu64 " intervals of %" PRIu64 " ms\n",
			map->samples_per_row, title->interval_ms);
	fprintf(stream,
		"# a column: %" PRIu64 " pages (%s) of guest physical memory, from 0 on; a "
		"character: the share of them\n"
		"# that was written: ' ' none  . less than 1/8  : 1/8  - 1/4  = 3/8  + 1/2  * 5/8  "
		"%% 3/4  # 7/8  @ all\n",
		map->column_pages,
		format_size(map->column_pages << PAGE_SHIFT, piece, sizeof(piece)));
}

/* Where in memory each 16th column begins. */
static void put_scale(const struct dirty_map *map, FILE *stream)
{
	fprintf(stream, "#        s    pages |");
	for (unsigned int i = 0; i < map->nr_columns; i += 16) {
		char at[32];
		unsigned int width = min(16u, map->nr_columns - i);

		format_size(i * map->column_pages << PAGE_SHIFT, at, sizeof(at));
		fprintf(stream, "%-*.*s", (int)width, (int)width, at);
	}
	fprintf(stream, "|\n");
}

void dirty_map_text(const struct dirty_map *map, const struct dirty_map_title *title, FILE *stream)
{
	put_header(map, title, stream);
	put_scale(map, stream);
	for (unsigned int i = 0; i < map->nr_rows; i++) {
		const struct dirty_row *row = &map->rows[i];
		char line[DIRTY_MAP_COLUMNS + 1] = "";

		for (unsigned int n = 0; n < map->nr_columns; n++)
			line[n] = shade(row->column[n], pages_in_column(map, n) * row->samples);
		/* A mean is rounded up: what was written is not nothing. */
		fprintf(stream, "%10.3f %8" PRIu64 " |%s|\n", (double)row->end_ns / 1e9,
			(row->pages + row->samples - 1) / row->samples, line);
	}
}

/* ---- JSON ---- */

/* As in stats.c: a failed step shows in @ok, and nothing else needs to be checked. */
static void put(json_t *object, bool *ok, const char *key, json_t *value)
{
	if (json_object_set_new(object, key, value) != 0)
		*ok = false;
}

static void append(json_t *array, bool *ok, json_t *value)
{
	if (json_array_append_new(array, value) != 0)
		*ok = false;
}

static json_t *row_json(const struct dirty_map *map, const struct dirty_row *row, bool *ok)
{
	json_t *object = json_object(), *columns = json_array();

	for (unsigned int i = 0; i < map->nr_columns; i++)
		append(columns, ok, json_integer((json_int_t)row->column[i]));
	put(object, ok, "end_s", json_real((double)row->end_ns / 1e9));
	put(object, ok, "samples", json_integer((json_int_t)row->samples));
	put(object, ok, "pages", json_integer((json_int_t)row->pages));
	put(object, ok, "columns", columns);
	return object;
}

json_t *dirty_map_json(const struct dirty_map *map, const struct dirty_map_title *title)
{
	json_t *object = json_object(), *rows = json_array();
	bool ok = object && rows;

	for (unsigned int i = 0; i < map->nr_rows; i++)
		append(rows, &ok, row_json(map, &map->rows[i], &ok));
	put(object, &ok, "guest", json_string(title->guest));
	put(object, &ok, "seed", json_integer((json_int_t)title->seed));
	put(object, &ok, "page_bytes", json_integer(PAGE_SIZE));
	put(object, &ok, "pages", json_integer((json_int_t)map->npages));
	put(object, &ok, "pages_written", json_integer((json_int_t)map->pages_ever));
	put(object, &ok, "column_pages", json_integer((json_int_t)map->column_pages));
	put(object, &ok, "interval_ms", json_integer((json_int_t)title->interval_ms));
	put(object, &ok, "rows", rows);
	if (!ok) {
		json_decref(object);
		return NULL;
	}
	return object;
}
