/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <gnomon/shadow.h>

#include "notifier/sync/util.h"
#include "vmm/options.h"
#include "vmm/vm.h"
#include "vmm/why.h"

#define MAX_DURATION_S (366UL * 24 * 3600)

const char *const break_names[NR_BREAKS] = {"zap", "shootdown", "shootdown-wait", "retry",
					    "retire"};

static_assert(SHADOW_BREAK_ZAP == 1u << 0 && SHADOW_BREAK_SHOOTDOWN == 1u << 1 &&
		      SHADOW_BREAK_SHOOTDOWN_WAIT == 1u << 2 && SHADOW_BREAK_RETRY == 1u << 3 &&
		      SHADOW_BREAK_RETIRE == 1u << 4,
	      "break_names is indexed by bit number");

/*
 * Digits of @base at *textp, which is moved behind them. strtoull would take blanks, signs and, for
 * base 16, a prefix of its own.
 */
static int parse_digits(const char **textp, unsigned int base, uint64_t *value)
{
	const char *s = *textp;
	uint64_t v = 0;

	for (;; s++) {
		unsigned int digit;

		if (*s >= '0' && *s <= '9')
			digit = *s - '0';
		else if (base == 16 && (*s | 0x20) >= 'a' && (*s | 0x20) <= 'f')
			digit = (*s | 0x20) - 'a' + 10;
		else
			break;
		if (__builtin_mul_overflow(v, base, &v) || __builtin_add_overflow(v, digit, &v))
			return -ERANGE;
	}
	if (s == *textp)
		return -EINVAL;
	*textp = s;
	*value = v;
	return 0;
}

int parse_size(const char *text, uint64_t *bytes, char *why, size_t why_len)
{
	static const char units[] = "KMGT";
	const char *s = text;
	uint64_t value;
	int err = parse_digits(&s, 10, &value);

	if (err == 0 && *s) {
		const char *unit = strchr(units, *s >= 'a' ? *s - 0x20 : *s);

		if (!unit || s[1])
			err = -EINVAL;
		else if (__builtin_mul_overflow(value, 1UL << (10 * (unit - units + 1)), &value))
			err = -ERANGE;
	}
	if (err == -ERANGE)
		return why_fail(why, why_len, -EINVAL, "size '%s' is larger than any machine",
				text);
	if (err)
		return why_fail(why, why_len, -EINVAL,
				"'%s' is no size: give a number of bytes, or one with K, M, G or T",
				text);
	if (!PAGE_ALIGNED(value))
		return why_fail(why, why_len, -EINVAL,
				"size '%s' is not a whole number of 4K pages", text);
	*bytes = value;
	return 0;
}

int parse_duration(const char *text, uint64_t *ms, char *why, size_t why_len)
{
	const char *s = text;
	uint64_t seconds = 0, total;
	unsigned int weight = 100;
	int err = 0;

	if (*s != '.' || !s[1])
		err = parse_digits(&s, 10, &seconds);
	if (err == -ERANGE || seconds > MAX_DURATION_S)
		return why_fail(why, why_len, -EINVAL, "duration '%s' is more than a year", text);
	total = seconds * 1000;
	if (err == 0 && *s == '.') {
		for (s++; *s >= '0' && *s <= '9'; s++, weight /= 10)
			total += (uint64_t)(*s - '0') * weight;
	}
	if (err || *s)
		return why_fail(why, why_len, -EINVAL,
				"'%s' is no duration: give seconds, such as 5 or 0.5", text);
	if (total == 0)
		return why_fail(why, why_len, -EINVAL, "duration '%s' is less than a millisecond",
				text);
	*ms = total;
	return 0;
}

/* All of @text, with 0x or without. */
static int parse_number(const char *text, uint64_t *value)
{
	bool hex = text[0] == '0' && (text[1] | 0x20) == 'x';
	const char *s = hex ? text + 2 : text;
	int err = parse_digits(&s, hex ? 16 : 10, value);

	return !err && *s ? -EINVAL : err;
}

int parse_seed(const char *text, uint64_t *seed, char *why, size_t why_len)
{
	uint64_t value;

	/* JSON has no larger integer that every reader of --stats keeps exact as a signed one. */
	if (parse_number(text, &value) || value > INT64_MAX)
		return why_fail(why, why_len, -EINVAL,
				"'%s' is no seed: give a number from 0 to 2^63 - 1", text);
	*seed = value;
	return 0;
}

int parse_shadow_pages(const char *text, unsigned long *pages, char *why, size_t why_len)
{
	const char *s = text;
	uint64_t value;

	if (parse_digits(&s, 10, &value) || *s)
		return why_fail(why, why_len, -EINVAL, "'%s' is no number of shadow pages", text);
	if (value < vm_min_shadow_pages())
		return why_fail(why, why_len, -EINVAL,
				"--shadow-pages %s is too few: a guest needs %lu to get on", text,
				vm_min_shadow_pages());
	*pages = value;
	return 0;
}

int parse_prefetch(const char *text, unsigned int *pages, char *why, size_t why_len)
{
	const char *s = text;
	uint64_t value;

	if (parse_digits(&s, 10, &value) || *s || value > 64 || (value & (value - 1)))
		return why_fail(why, why_len, -EINVAL,
				"--prefetch takes 0, or a power of two of at most 64, not '%s'",
				text);
	*pages = (unsigned int)value;
	return 0;
}

/* The item of a comma list at *textp, and its length; *textp moves to the next one. */
static const char *next_item(const char **textp, size_t *len)
{
	const char *item = *textp;

	*len = strcspn(item, ",");
	*textp = item[*len] ? item + *len + 1 : NULL;
	return item;
}

static bool item_is(const char *item, size_t len, const char *name)
{
	return strlen(name) == len && memcmp(item, name, len) == 0;
}

static void list_chaos_kinds(char *buf, size_t len)
{
	size_t at = 0;

	for (unsigned int i = 0; i < NR_CHAOS_KINDS && at < len; i++)
		at += snprintf(buf + at, len - at, "%s, ", chaos_kinds[i].name);
	if (at < len)
		snprintf(buf + at, len - at, "all");
}

/* The rate of @item, "KIND" or "KIND=RATE": 0 for a KIND alone. */
static int parse_rate(const char *item, size_t len, size_t name_len, uint64_t *rate, char *why,
		      size_t why_len)
{
	const char *s = item + name_len + 1;

	*rate = 0;
	if (name_len == len)
		return 0;
	if (parse_digits(&s, 10, rate) || s != item + len || *rate == 0 || *rate > CHAOS_MAX_RATE)
		return why_fail(why, why_len, -EINVAL,
				"chaos '%.*s': give 1 to %u operations per second", (int)len, item,
				CHAOS_MAX_RATE);
	return 0;
}

static void plan_all(struct chaos_plan *plan, unsigned int rate)
{
	for (unsigned int i = 0; i < NR_CHAOS_KINDS; i++) {
		if (!plan->named[i] && !chaos_kinds[i].by_name_only)
			plan->rate[i] = rate ?: chaos_kinds[i].default_rate;
	}
}

static int parse_chaos_item(const char *item, size_t len, struct chaos_plan *plan, char *why,
			    size_t why_len)
{
	const char *equals = memchr(item, '=', len);
	size_t name_len = equals ? (size_t)(equals - item) : len;
	char kinds[128];
	uint64_t rate;

	if (item_is(item, name_len, "all")) {
		if (parse_rate(item, len, name_len, &rate, why, why_len))
			return -EINVAL;
		plan_all(plan, rate);
		return 0;
	}
	for (unsigned int i = 0; i < NR_CHAOS_KINDS; i++) {
		if (!item_is(item, name_len, chaos_kinds[i].name))
			continue;
		if (parse_rate(item, len, name_len, &rate, why, why_len))
			return -EINVAL;
		plan->rate[i] = rate ?: chaos_kinds[i].default_rate;
		plan->named[i] = true;
		return 0;
	}
	list_chaos_kinds(kinds, sizeof(kinds));
	return why_fail(why, why_len, -EINVAL, "'%.*s' is no kind of chaos: there are %s",
			(int)name_len, item, kinds);
}

int parse_chaos(const char *text, struct chaos_plan *plan, char *why, size_t why_len)
{
	while (text) {
		size_t len;
		const char *item = next_item(&text, &len);

		if (parse_chaos_item(item, len, plan, why, why_len))
			return -EINVAL;
	}
	return 0;
}

int parse_ram(const char *text, bool *private_ram, char *why, size_t why_len)
{
	if (strcmp(text, "private") != 0 && strcmp(text, "shared") != 0)
		return why_fail(why, why_len, -EINVAL, "RAM is private or shared, not '%s'", text);
	*private_ram = strcmp(text, "private") == 0;
	return 0;
}

int parse_audit(const char *text, enum shadow_audit_level *level, char *why, size_t why_len)
{
	uint64_t value;

	if (parse_number(text, &value) || value > SHADOW_AUDIT_SEMANTIC)
		return why_fail(
			why, why_len, -EINVAL,
			"'%s' is no level of audits: there are 0 (off), 1 (structures), 2 (and "
			"what the guest's tables gave)",
			text);
	*level = value;
	return 0;
}

int parse_gva(const char *text, uint64_t *gva, char *why, size_t why_len)
{
	uint64_t value;

	if (parse_number(text, &value))
		return why_fail(why, why_len, -EINVAL,
				"'%s' is no address: give a number, such as 0x400000", text);
	*gva = value;
	return 0;
}

int parse_break(const char *text, unsigned int *what, char *why, size_t why_len)
{
	while (text) {
		size_t len;
		const char *item = next_item(&text, &len);
		unsigned int i;

		for (i = 0; i < NR_BREAKS; i++) {
			if (item_is(item, len, break_names[i]))
				break;
		}
		if (i == NR_BREAKS)
			return why_fail(why, why_len, -EINVAL,
					"'%.*s' cannot be broken: there are zap, shootdown, "
					"shootdown-wait, retry, retire",
					(int)len, item);
		*what |= 1u << i;
	}
	return 0;
}

char *format_size(uint64_t bytes, char *buf, size_t len)
{
	static const char units[] = "KMGT";
	unsigned int unit = 0;

	while (unit < sizeof(units) - 1 && bytes && bytes % 1024 == 0) {
		bytes /= 1024;
		unit++;
	}
	if (unit)
		snprintf(buf, len, "%" PRIu64 "%c", bytes, units[unit - 1]);
	else
		snprintf(buf, len, "%" PRIu64, bytes);
	return buf;
}
