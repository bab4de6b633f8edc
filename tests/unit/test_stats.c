/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The object of --stats: each number under its key, every key documented, and output that cannot be
 * written is noticed.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/support/test.h"
#include "vmm/options.h"
#include "vmm/stats.h"

static struct run_stats example(void)
{
	return (struct run_stats){
		.engine = "kvm",
		.seed = INT64_MAX,
		.mem_bytes = 64UL << 20,
		.frames_bytes = 96UL << 20,
		.private_ram = true,
		.broken = SHADOW_BREAK_ZAP | SHADOW_BREAK_RETIRE,
		.plan = {.rate = {[CHAOS_UNMAP] = 321}},
		.wall_ns = 1500000000,
		.outcome = VM_EXITED,
		.guest_exit = 5,
		.guest_passes = 101,
		.corruptions = 102,
		.traps = 103,
		.stores_emulated = 118,
		.stores_unprotected = 119,
		.quarantine_drains = 104,
		.quarantined = 105,
		.hole_waits = 108,
		.memory_waits = 109,
		.chaos = {[CHAOS_MIGRATE] = {.ops = 1, .pages_migrated = 1000, .pages = 10},
			  [CHAOS_UNMAP] = {.ops = 2,
					   .refused = 3,
					   .pages_migrated = 2000,
					   .pages = 20,
					   .pages_disturbed = 4,
					   .digest = 0x123456789abcdef0,
					   .draws = 77},
			  [CHAOS_PROTECT] = {.pages_disturbed = 5}},
		.swap_bytes = 112,
		.reclaim = {.swap_out = 113,
			    .swap_in = 114,
			    .reclaimed = 115,
			    .direct_reclaims = 116,
			    .swap_errors = 117},
		.mm = {.faults = 106, .migrate_busy = 107, .cow_copies = 110},
		.shadow = {.faults = 201,
			   .fault_retries = 202,
			   .fault_spurious = 216,
			   .fast_faults = 217,
			   .prefetched = 218,
			   .refaults = 203,
			   .invalidations = 204,
			   .sptes_zapped = 205,
			   .migrate_zapped = 206,
			   .shootdowns = 207,
			   .frames_shot = 208,
			   .batches_waited = 209,
			   .tables_retired = 210,
			   .pages_recycled = 215,
			   .synced = 211,
			   .unsync_made = 212,
			   .write_protected = 213,
			   .flooded = 214,
			   .huge_made = 221,
			   .dirty_marked = 222,
			   .dirty_protected = 223},
		.warnings = 3,
	};
}

static json_int_t number(const json_t *json, const char *key)
{
	const json_t *value = json_object_get(json, key);

	if (!json_is_integer(value))
		fail("'%s' is no integer", key);
	return json_integer_value(value);
}

TEST(stats, every_number_has_its_key)
{
	static const struct {
		const char *key;
		json_int_t value;
	} numbers[] = {
		{"seed", INT64_MAX},
		{"mem_bytes", 64 << 20},
		{"guest_exit", 5},
		{"guest_passes", 101},
		{"corruptions", 102},
		{"traps", 103},
		{"quarantine_drains", 104},
		{"quarantined", 105},
		{"host_faults", 106},
		{"migrate_busy", 107},
		{"shadow_faults", 201},
		{"fault_retries", 202},
		{"fault_spurious", 216},
		{"fast_faults", 217},
		{"prefetched", 218},
		{"refaults", 203},
		{"invalidations", 204},
		{"sptes_zapped", 205},
		{"pages_migrated", 3000},
		{"pages_migrated_mapped", 206},
		{"shootdowns", 207},
		{"frames_shot", 208},
		{"batches_waited", 209},
		{"tables_retired", 210},
		{"pages_recycled", 215},
		{"synced", 211},
		{"unsync_made", 212},
		{"write_protected", 213},
		{"flooded", 214},
		{"huge_made", 221},
		{"dirty_marked", 222},
		{"dirty_protected", 223},
		{"pages_unmapped", 20},
		{"frames_bytes", 96 << 20},
		{"hole_waits", 108},
		{"swap_bytes", 112},
		{"pages_swapped_out", 113},
		{"pages_swapped_in", 114},
		{"pages_reclaimed", 115},
		{"direct_reclaims", 116},
		{"swap_errors", 117},
		{"memory_waits", 109},
		{"stores_emulated", 118},
		{"stores_unprotected", 119},
		{"pages_copied", 110},
		{"pages_disturbed", 9},
		{"warnings", 3},
	};
	struct run_stats stats = example();
	json_t *json = stats_to_json(&stats), *array;

	expect(json);
	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
		expect_eq(number(json, numbers[i].key), numbers[i].value);
	expect_str_eq(json_string_value(json_object_get(json, "engine")), "kvm");
	expect_str_eq(json_string_value(json_object_get(json, "ram")), "private");
	expect_str_eq(json_string_value(json_object_get(json, "outcome")), "exited");
	expect(json_real_value(json_object_get(json, "wall_s")) == 1.5);
	expect(json_is_null(json_object_get(json, "kill_reason")));
	expect(json_is_null(json_object_get(json, "error")));

	array = json_object_get(json, "break");
	expect_eq(json_array_size(array), 2);
	expect_str_eq(json_string_value(json_array_get(array, 0)), "zap");
	expect_str_eq(json_string_value(json_array_get(array, 1)), "retire");

	/* Kinds that were off are not there. */
	expect_eq(json_object_size(json_object_get(json, "mutations")), 1);
	expect_eq(number(json_object_get(json, "mutations"), "unmap"), 2);
	expect_eq(number(json_object_get(json, "mutations_refused"), "unmap"), 3);
	expect_eq(number(json_object_get(json, "mutation_pages"), "unmap"), 20);
	expect_eq(number(json_object_get(json, "mutation_draws"), "unmap"), 77);
	expect_str_eq(json_string_value(
			      json_object_get(json_object_get(json, "mutation_digest"), "unmap")),
		      "123456789abcdef0");
	expect_eq(number(json_object_get(json, "chaos"), "unmap"), 321);
	json_decref(json);
}

TEST(stats, how_it_ended)
{
	static const struct {
		enum vm_outcome outcome;
		const char *name, *key;
	} ends[] = {
		{VM_KILLED, "killed", "kill_reason"},
		{VM_STOPPED, "stopped", NULL},
		{VM_FAILED, "error", "error"},
		{VM_INTERNAL, "error", "error"},
	};

	for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++) {
		struct run_stats stats = example();
		json_t *json;

		stats.outcome = ends[i].outcome;
		snprintf(stats.reason, sizeof(stats.reason), "because of \"this\" \xc3\xa9");
		json = stats_to_json(&stats);
		expect(json);
		expect_str_eq(json_string_value(json_object_get(json, "outcome")), ends[i].name);
		expect(json_is_null(json_object_get(json, "guest_exit")));
		if (ends[i].key)
			expect_str_eq(json_string_value(json_object_get(json, ends[i].key)),
				      stats.reason);
		json_decref(json);
	}
}

TEST(stats, a_reason_that_is_no_text)
{
	struct run_stats stats = example();
	json_t *json;

	/* A path is any bytes; JSON is UTF-8. */
	stats.outcome = VM_FAILED;
	snprintf(stats.reason, sizeof(stats.reason), "cannot load '\xffx\xc3': no");
	json = stats_to_json(&stats);
	expect(json);
	expect_str_eq(json_string_value(json_object_get(json, "error")), "cannot load '?x?': no");
	json_decref(json);
}

TEST(stats, each_key_is_documented)
{
	static char text[32768];
	const char *source = getenv("GNOMON_SOURCE");
	struct run_stats stats = example();
	json_t *json = stats_to_json(&stats), *value;
	char path[512], quoted[64];
	const char *key;
	size_t len;
	FILE *file;

	if (!source)
		skip("GNOMON_SOURCE is not set");
	snprintf(path, sizeof(path), "%s/docs/stats.md", source);
	file = fopen(path, "r");
	expect(file);
	len = fread(text, 1, sizeof(text) - 1, file);
	fclose(file);
	expect(len > 0 && len < sizeof(text) - 1);
	expect_ge(json_object_size(json), 20);
	json_object_foreach(json, key, value)
	{
		snprintf(quoted, sizeof(quoted), "\n| `%s` |", key);
		if (!strstr(text, quoted))
			fail("docs/stats.md has no row for `%s`", key);
	}
	json_decref(json);
}

TEST(stats, output_that_cannot_be_written)
{
	struct run_stats stats = example();
	json_t *json = stats_to_json(&stats), *back;
	json_error_t error;
	char buf[8192];
	ssize_t len;
	int fd, fds[2];

	fd = open("/dev/full", O_WRONLY | O_CLOEXEC);
	expect(fd >= 0);
	expect_eq(json_write(json, fd), -ENOSPC);
	close(fd);

	signal(SIGPIPE, SIG_IGN);
	expect_eq(pipe(fds), 0);
	expect_eq(json_write(json, fds[1]), 0);
	len = read(fds[0], buf, sizeof(buf));
	expect(len > 0 && buf[len - 1] == '\n');
	back = json_loadb(buf, len, 0, &error);
	expect(back);
	expect(json_equal(back, json));
	json_decref(back);

	close(fds[0]);
	expect_eq(json_write(json, fds[1]), -EPIPE);
	close(fds[1]);
	json_decref(json);
}
