/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The map of --dirty-log: what is in which column, what a row is worth, and what people read. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/test.h"
#include "vmm/dirty_map.h"

#define MS 1000000UL

static const struct dirty_map_title title = {.guest = "scribe", .seed = 7, .interval_ms = 50};

static char *text_of(const struct dirty_map *map)
{
	size_t len;
	char *text;
	FILE *stream = open_memstream(&text, &len);

	expect(stream);
	dirty_map_text(map, &title, stream);
	expect_eq(fclose(stream), 0);
	return text;
}

static int64_t number(const json_t *object, const char *key)
{
	const json_t *value = json_object_get(object, key);

	expect(json_is_integer(value));
	return json_integer_value(value);
}

/* 128 pages: columns of two. */
TEST(dirty_map, columns)
{
	uint64_t bitmap[2] = {1UL << 0 | 3UL << 2 | 1UL << 63, 1UL << 63};
	struct dirty_map map;
	char *text;

	expect_eq(dirty_map_init(&map, 128), 0);
	expect_eq(map.nr_columns, 64);
	dirty_map_add(&map, bitmap, 51 * MS);
	expect_eq(map.rows[0].pages, 5);
	expect_eq(map.rows[0].column[0], 1);
	expect_eq(map.rows[0].column[1], 2);
	expect_eq(map.rows[0].column[31], 1);
	expect_eq(map.rows[0].column[63], 1);
	text = text_of(&map);
	expect_str_contains(text,
			    "scribe, seed 7, 512K of guest memory. Of 128 pages of 4K 5 were");
	expect_str_contains(text, "a row: 50 ms or more");
	expect_str_contains(text, "a column: 2 pages (8K)");
	expect_str_contains(text,
			    "|0               128K            256K            384K            |");
	expect_str_contains(text, "     0.051        5 |+@                             +");
	free(text);
	dirty_map_destroy(&map);
}

/* 67 pages: columns of two, and of the last there is one page. */
TEST(dirty_map, last_column)
{
	uint64_t bitmap[2] = {0, 1UL << 2};
	struct dirty_map map;
	char *text;

	expect_eq(dirty_map_init(&map, 67), 0);
	expect_eq(map.nr_columns, 34);
	dirty_map_add(&map, bitmap, 50 * MS);
	text = text_of(&map);
	expect_str_contains(text, "|                                 @|");
	free(text);
	dirty_map_destroy(&map);
}

/* By eighths, of 8 pages: and a page in a large piece is not nothing. */
TEST(dirty_map, shades)
{
	static const char shades[] = " :-=+*%#@";
	uint64_t bitmap[16] = {0};
	struct dirty_map map;
	char *text;

	expect_eq(dirty_map_init(&map, 512), 0);
	for (unsigned int n = 0; n < 9; n++)
		bitmap[n / 8] |= ((1UL << n) - 1) << 8 * (n % 8);
	dirty_map_add(&map, bitmap, 50 * MS);
	text = text_of(&map);
	expect_str_contains(text, shades);
	free(text);
	dirty_map_destroy(&map);

	memset(bitmap, 0, sizeof(bitmap));
	bitmap[0] = 1;
	expect_eq(dirty_map_init(&map, 1024), 0);
	dirty_map_add(&map, bitmap, 50 * MS);
	text = text_of(&map);
	expect_str_contains(text, "        1 |.  ");
	free(text);
	dirty_map_destroy(&map);
}

/* However long it takes: the rows become fewer, and none of what was added is gone. */
TEST(dirty_map, rows_become_means)
{
	const unsigned int samples = 2 * DIRTY_MAP_ROWS + 3;
	uint64_t bitmap[1], sum = 0, last = 0, in_rows = 0;
	struct dirty_map map;
	json_t *json, *rows;
	char *text;

	expect_eq(dirty_map_init(&map, 64), 0);
	for (unsigned int i = 0; i < samples; i++) {
		bitmap[0] = i % 4 ? 1UL << i % 64 : 0;
		sum += i % 4 != 0;
		dirty_map_add(&map, bitmap, (i + 1) * 50 * MS);
		expect_le(map.nr_rows, DIRTY_MAP_ROWS);
	}
	expect_eq(map.samples_per_row, 4);
	expect_eq(map.pages_ever, 48);
	json = dirty_map_json(&map, &title);
	expect(json);
	expect_eq(number(json, "pages"), 64);
	expect_eq(number(json, "pages_written"), 48);
	expect_eq(number(json, "interval_ms"), 50);
	expect_eq(number(json, "column_pages"), 1);
	rows = json_object_get(json, "rows");
	expect_eq(json_array_size(rows), (samples + 3) / 4);
	for (unsigned int i = 0; i < json_array_size(rows); i++) {
		json_t *row = json_array_get(rows, i);
		json_t *columns = json_object_get(row, "columns");
		uint64_t in_columns = 0;

		expect_eq(number(row, "samples"), i + 1 < json_array_size(rows) ? 4 : 3);
		expect_eq(json_array_size(columns), 64);
		for (unsigned int n = 0; n < 64; n++)
			in_columns += (uint64_t)json_integer_value(json_array_get(columns, n));
		expect_eq(in_columns, number(row, "pages"));
		in_rows += in_columns;
		last = (uint64_t)(json_real_value(json_object_get(row, "end_s")) * 1000 + 0.5);
	}
	expect_eq(in_rows, sum);
	expect_eq(last, samples * 50);
	json_decref(json);
	text = text_of(&map);
	expect_str_contains(text, "a row: 200 ms or more");
	expect_str_contains(text, "a row is the mean of 4 intervals of 50 ms");
	expect_str_contains(text, "     0.200        1 | ---"); /* a quarter; and 3 / 4 is 1 */
	free(text);
	dirty_map_destroy(&map);
}
