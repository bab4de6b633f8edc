/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The values of command-line options: what is taken, as what, and that a refusal names its reason.
 */
#include <errno.h>
#include <string.h>

#include <gnomon/shadow.h>

#include "notifier/sync/util.h"
#include "tests/support/test.h"
#include "vmm/options.h"

#define KIB 1024UL
#define MIB (KIB * KIB)

TEST(options, shadow_pages)
{
	static const char *const bad[] = {
		"", "18", "0", "-20", "20x", "0x20", "99999999999999999999"};
	unsigned long pages = 0;
	char why[256];

	expect_eq(parse_shadow_pages("19", &pages, why, sizeof(why)), 0);
	expect_eq(pages, 19);
	for (unsigned int i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		expect_eq(parse_shadow_pages(bad[i], &pages, why, sizeof(why)), -EINVAL);
	expect_eq(pages, 19);
}

TEST(options, prefetch)
{
	static const char *const bad[] = {"", "3", "128", "-8", "8x", "0x8"};
	unsigned int pages = 8;
	char why[256];

	expect_eq(parse_prefetch("64", &pages, why, sizeof(why)), 0);
	expect_eq(pages, 64);
	expect_eq(parse_prefetch("0", &pages, why, sizeof(why)), 0);
	expect_eq(pages, 0);
	for (unsigned int i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		expect_eq(parse_prefetch(bad[i], &pages, why, sizeof(why)), -EINVAL);
	expect_eq(pages, 0);
}

TEST(options, sizes)
{
	static const struct {
		const char *text;
		uint64_t bytes;
	} good[] = {
		{"0", 0},
		{"4096", 4096},
		{"1M", MIB},
		{"64M", 64 * MIB},
		{"64m", 64 * MIB},
		{"1G", 1024 * MIB},
		{"8k", 8 * KIB},
		{"1T", MIB * MIB},
		{"0064M", 64 * MIB},
		{"1040384", 1040384},
		{"16777215T", 16777215 * MIB * MIB},
	};
	static const char *const bad[] = {
		"",	  "M",	"-1M",	 " 1M",	 "1M ", "1MB",	     "1.5M",
		"0x1000", "1P", "+4096", "4097", "1",	"16777216T", "99999999999999999999",
		"1MM",	  "K4",
	};
	uint64_t bytes;
	char why[256];

	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		expect_eq(parse_size(good[i].text, &bytes, why, sizeof(why)), 0);
		expect_eq(bytes, good[i].bytes);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		bytes = 42;
		if (parse_size(bad[i], &bytes, why, sizeof(why)) != -EINVAL)
			fail("'%s' was taken for a size of %llu", bad[i],
			     (unsigned long long)bytes);
		expect_eq(bytes, 42);
		expect_str_contains(why, bad[i]);
	}
}

TEST(options, sizes_are_formatted_to_be_parsed)
{
	static const uint64_t sizes[] = {0,	     4096,	8 * KIB,
					 1028 * KIB, 64 * MIB,	1536 * MIB,
					 1024 * MIB, MIB * MIB, 513 * MIB * MIB};
	char text[32];
	uint64_t bytes;

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		expect_eq(parse_size(format_size(sizes[i], text, sizeof(text)), &bytes, NULL, 0),
			  0);
		expect_eq(bytes, sizes[i]);
	}
	expect_str_eq(format_size(64 * MIB, text, sizeof(text)), "64M");
	expect_str_eq(format_size(4100 * KIB, text, sizeof(text)), "4100K");
	expect_str_eq(format_size(17, text, sizeof(text)), "17");
}

TEST(options, durations)
{
	static const struct {
		const char *text;
		uint64_t ms;
	} good[] = {
		{"5", 5000},   {"0.5", 500}, {".25", 250},     {"1.", 1000},
		{"60", 60000}, {"0.001", 1}, {"1.0009", 1000}, {"31622400", 31622400000},
	};
	static const char *const bad[] = {
		"",   ".",   "0",  "0.0",   "0.0004",	"-1",
		"1s", "1e3", " 1", "1.5.5", "31622401", "99999999999999999999",
	};
	uint64_t ms;
	char why[256];

	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		expect_eq(parse_duration(good[i].text, &ms, why, sizeof(why)), 0);
		expect_eq(ms, good[i].ms);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		if (parse_duration(bad[i], &ms, why, sizeof(why)) != -EINVAL)
			fail("'%s' was taken for a duration", bad[i]);
		expect_str_contains(why, bad[i]);
	}
}

TEST(options, seeds)
{
	static const char *const bad[] = {
		"",
		"-1",
		"0x",
		"x",
		"1 ",
		"0xg",
		"9223372036854775808",
		"0x8000000000000000",
		"18446744073709551616",
	};
	uint64_t seed;
	char why[256];

	expect_eq(parse_seed("0", &seed, why, sizeof(why)), 0);
	expect_eq(seed, 0);
	expect_eq(parse_seed("9223372036854775807", &seed, why, sizeof(why)), 0);
	expect_eq(seed, INT64_MAX);
	expect_eq(parse_seed("0x7fFFffFFffFFffFF", &seed, why, sizeof(why)), 0);
	expect_eq(seed, INT64_MAX);
	expect_eq(parse_seed("010", &seed, why, sizeof(why)), 0);
	expect_eq(seed, 10);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		if (parse_seed(bad[i], &seed, why, sizeof(why)) != -EINVAL)
			fail("'%s' was taken for a seed", bad[i]);
	}
}

TEST(options, chaos)
{
	static const char *const bad[] = {
		"",	    ",",	 "explode",    "migrate,",	  ",migrate",
		"migrate=", "migrate=0", "migrate=x",  "migrate=1000001", "migrate=1,unmap=",
		"migrat",   "migratee",	 "migrate =1", "migrate=1 ",	  "all=",
		"all=0",    "alle",
	};
	struct chaos_plan plan = {0};
	char why[256];

	expect_eq(parse_chaos("migrate", &plan, why, sizeof(why)), 0);
	expect_eq(plan.rate[CHAOS_MIGRATE], chaos_kinds[CHAOS_MIGRATE].default_rate);
	expect_eq(plan.rate[CHAOS_UNMAP], 0);
	expect_eq(parse_chaos("unmap=7,migrate=1000000", &plan, why, sizeof(why)), 0);
	expect_eq(plan.rate[CHAOS_MIGRATE], 1000000);
	expect_eq(plan.rate[CHAOS_UNMAP], 7);

	/* All that do not ask to be named; a name is stronger, before or after. */
	plan = (struct chaos_plan){0};
	expect_eq(parse_chaos("remap=3,all=9,age=4", &plan, why, sizeof(why)), 0);
	for (unsigned int i = 0; i < NR_CHAOS_KINDS; i++) {
		unsigned int rate = chaos_kinds[i].by_name_only ? 0 : 9;

		rate = i == CHAOS_REMAP ? 3 : i == CHAOS_AGE ? 4 : rate;
		expect_eq(plan.rate[i], rate);
		expect_eq(plan.named[i], i == CHAOS_REMAP || i == CHAOS_AGE);
	}
	plan = (struct chaos_plan){0};
	expect_eq(parse_chaos("all,register", &plan, why, sizeof(why)), 0);
	for (unsigned int i = 0; i < NR_CHAOS_KINDS; i++)
		expect_eq(plan.rate[i], chaos_kinds[i].default_rate);

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		why[0] = '\0';
		if (parse_chaos(bad[i], &plan, why, sizeof(why)) != -EINVAL)
			fail("'%s' was taken for chaos", bad[i]);
		expect(why[0]);
	}
	/* A refusal names what there is. */
	for (unsigned int i = 0; i < NR_CHAOS_KINDS; i++) {
		expect_eq(parse_chaos("explode", &plan, why, sizeof(why)), -EINVAL);
		expect_str_contains(why, chaos_kinds[i].name);
		expect_str_contains(why, "all");
	}
}

TEST(options, ram)
{
	bool private_ram;
	char why[256];

	expect_eq(parse_ram("private", &private_ram, why, sizeof(why)), 0);
	expect(private_ram);
	expect_eq(parse_ram("shared", &private_ram, why, sizeof(why)), 0);
	expect(!private_ram);
	expect_eq(parse_ram("", &private_ram, why, sizeof(why)), -EINVAL);
	expect_eq(parse_ram("privat", &private_ram, why, sizeof(why)), -EINVAL);
	expect_str_contains(why, "privat");
}

TEST(options, broken)
{
	unsigned int what = 0;
	char why[256];

	for (unsigned int i = 0; i < NR_BREAKS; i++) {
		unsigned int one = 0;

		expect_eq(parse_break(break_names[i], &one, why, sizeof(why)), 0);
		expect_eq(one, 1u << i);
		/* And the refusal below names it. */
		expect_eq(parse_break("legs", &one, why, sizeof(why)), -EINVAL);
		expect_str_contains(why, break_names[i]);
	}
	expect_eq(parse_break("shootdown-wait,zap", &what, why, sizeof(why)), 0);
	expect_eq(what, SHADOW_BREAK_SHOOTDOWN_WAIT | SHADOW_BREAK_ZAP);
	expect_eq(parse_break("", &what, why, sizeof(why)), -EINVAL);
	expect_eq(parse_break("zap,", &what, why, sizeof(why)), -EINVAL);
}

TEST(options, audit_levels)
{
	static const char *const bad[] = {"", "3", "-1", "all", "1 ", "0x", "18446744073709551617"};
	enum shadow_audit_level level;
	char why[256];

	for (unsigned int i = SHADOW_AUDIT_OFF; i <= SHADOW_AUDIT_SEMANTIC; i++) {
		char text[] = {'0' + i, '\0'};

		expect_eq(parse_audit(text, &level, why, sizeof(why)), 0);
		expect_eq(level, i);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		level = SHADOW_AUDIT_SEMANTIC;
		expect_eq(parse_audit(bad[i], &level, why, sizeof(why)), -EINVAL);
		expect_eq(level, SHADOW_AUDIT_SEMANTIC);
		expect_str_contains(why, bad[i]);
	}
}

TEST(options, addresses)
{
	static const struct {
		const char *text;
		uint64_t gva;
	} good[] = {
		{"0", 0},
		{"4096", 4096},
		{"0x400000", 0x400000},
		{"0XfFff800000000123", 0xffff800000000123},
		{"18446744073709551615", UINT64_MAX},
	};
	static const char *const bad[] = {"",	  "0x",	     "here", "-1",  "0x1 ",
					  " 0x1", "400000h", "1e3",  "abc", "0x10000000000000000"};
	uint64_t gva;
	char why[256];

	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		expect_eq(parse_gva(good[i].text, &gva, why, sizeof(why)), 0);
		expect_eq(gva, good[i].gva);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		gva = 42;
		expect_eq(parse_gva(bad[i], &gva, why, sizeof(why)), -EINVAL);
		expect_eq(gva, 42);
		expect_str_contains(why, bad[i]);
	}
}

TEST(options, intervals)
{
	static const char *const bad[] = {"",	"0",	   "-1",      "0.5",
					  "1s", "3600001", "0x10",    " 1",
					  "1 ", "1e3",	   "quickly", "18446744073709551616"};
	uint64_t ms;
	char why[256];

	expect_eq(parse_interval("1", &ms, why, sizeof(why)), 0);
	expect_eq(ms, 1);
	expect_eq(parse_interval("3600000", &ms, why, sizeof(why)), 0);
	expect_eq(ms, 3600000);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		ms = 42;
		expect_eq(parse_interval(bad[i], &ms, why, sizeof(why)), -EINVAL);
		expect_eq(ms, 42);
		expect_str_contains(why, bad[i]);
	}
}

TEST(options, dirty_formats)
{
	static const char *const bad[] = {"", "JSON", "json ", "xml", "tex"};
	bool json;
	char why[256];

	for (int i = 0; i < 2; i++) {
		expect_eq(parse_dirty_format(i ? "json" : "text", &json, why, sizeof(why)), 0);
		expect_eq(json, i);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		json = i % 2;
		expect_eq(parse_dirty_format(bad[i], &json, why, sizeof(why)), -EINVAL);
		expect_eq(json, i % 2);
		expect_str_contains(why, bad[i]);
	}
}
