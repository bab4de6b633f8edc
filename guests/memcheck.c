/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Does memory keep what is written to it, while the host moves the pages underneath?
 *
 * Fills all RAM that is its own (the direct map less the image and the loader's part at the end;
 * page 0 is used like any other) with stamps. Then pass after pass: each page is verified, the
 * whole of it, and only then stamped anew. It runs until the host asks it to stop, or finds
 * corruption.
 *
 * A stamp tells which word of which page it was written to, and in which pass; so a word that a
 * stale translation fetched from elsewhere, one that an old copy of the page still held, and the
 * poison of a freed frame all look different, and the report says which it is:
 *
 *	stamp = (pass << 36 | gpa >> 3) * STAMP_MIX + key	modulo 2^64
 *
 * The key comes from the seed. The multiplier is odd, so the stamp can be undone. Neighbouring
 * words differ by STAMP_MIX, which keeps the inner loops at one addition a word. Passes count
 * modulo 2^28; gpas reach 512 GiB.
 *
 * Filling is slow, because each page faults in. So what is filled already is verified meanwhile, a
 * few pages at a time: corruption is found within milliseconds, and not after the last page.
 */
#include <stddef.h>

#include "guests/lib/console.h"
#include "guests/lib/paging.h"
#include "guests/lib/report.h"

#define WORDS_PER_PAGE (PAGE_SIZE / sizeof(uint64_t))
#define GPA_BITS       36
#define PASS_MASK      ((1ul << (64 - GPA_BITS)) - 1)
#define STAMP_MIX      0x9e3779b97f4a7c15ul

#define POLL_EVERY  256		/* pages between two looks at PORT_STOP ... */
#define POLL_TICKS  (1ul << 26) /* ... but no more of the TSC than this: 20 to 40 ms */
#define FILL_CHUNK  64		/* pages filled ... */
#define FILL_VERIFY 256		/* ... between two rounds that verify so many */
#define MAX_REPORTS 8		/* bad pages, then it ends */

struct memcheck {
	const struct boot_info *boot;
	uint64_t hole; /* the free pages are those below this page number and ... */
	uint64_t hole_pages;
	uint64_t nr_pages; /* ... these many in all, the hole left out */
	uint64_t key;
	uint64_t random;
	uint64_t inverse; /* of STAMP_MIX */
	uint64_t pass;	  /* the one under way: 0 is the fill */
	uint64_t bad_pages;
	uint64_t filled;
	uint64_t unpolled;  /* pages since the last look at PORT_STOP */
	uint64_t polled_at; /* the TSC then */
};

/* splitmix64 */
static uint64_t next_random(uint64_t *state)
{
	uint64_t z = (*state += 0x9e3779b97f4a7c15ul);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ul;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebul;
	return z ^ (z >> 31);
}

static uint64_t page_gpa(const struct memcheck *m, uint64_t index)
{
	return (index < m->hole ? index : index + m->hole_pages) * PAGE_SIZE;
}

static uint64_t stamp(const struct memcheck *m, uint64_t gpa, uint64_t pass)
{
	return ((pass & PASS_MASK) << GPA_BITS | gpa >> 3) * STAMP_MIX + m->key;
}

static void stamp_page(const struct memcheck *m, uint64_t gpa)
{
	uint64_t *words = direct_map(gpa), value = stamp(m, gpa, m->pass);

	for (size_t i = 0; i < WORDS_PER_PAGE; i++, value += STAMP_MIX)
		words[i] = value;
	barrier();
}

/* The first word of the page that is not @pass's stamp, and what it was; or WORDS_PER_PAGE. */
static size_t verify_page(const struct memcheck *m, uint64_t gpa, uint64_t pass, uint64_t *found)
{
	const uint64_t *words = direct_map(gpa);
	uint64_t value = stamp(m, gpa, pass);
	size_t i;

	barrier();
	for (i = 0; i < WORDS_PER_PAGE; i++, value += STAMP_MIX) {
		uint64_t word = words[i];

		if (word != value) {
			*found = word;
			break;
		}
	}
	return i;
}

static void explain(const struct memcheck *m, uint64_t gpa, uint64_t found)
{
	uint64_t raw = (found - m->key) * m->inverse;
	uint64_t found_gpa = (raw & ((1ul << GPA_BITS) - 1)) << 3, found_pass = raw >> GPA_BITS;

	if (found_gpa >= m->boot->ram_size || ((m->pass - found_pass) & PASS_MASK) > m->pass)
		puts("no stamp of this run (poison, or somebody else's data)");
	else if (found_gpa == gpa)
		printf("the stamp of this address in pass %lu (a write was lost)", found_pass);
	else
		printf("the stamp of gpa 0x%lx in pass %lu (another page)", found_gpa, found_pass);
}

static void report_page(struct memcheck *m, uint64_t page, size_t first, uint64_t pass,
			uint64_t found)
{
	const volatile uint64_t *words = direct_map(page);
	uint64_t gpa = page + first * sizeof(*words);
	unsigned int bad = 0;

	corruption();
	m->bad_pages++;
	for (size_t i = 0; i < WORDS_PER_PAGE; i++)
		bad += words[i] != stamp(m, page + i * sizeof(*words), pass);

	printf("memcheck: CORRUPTION at gpa 0x%lx (gva 0x%lx) in pass %lu: expected 0x%016lx, "
	       "found "
	       "0x%016lx, ",
	       gpa, BOOT_DIRECT_MAP + gpa, m->pass, stamp(m, gpa, pass), found);
	explain(m, gpa, found);
	printf("; %u of %u words of this page differ\n", bad, (unsigned int)WORDS_PER_PAGE);
}

/* True while the page is sound, or there is room for another report. */
static bool check_page(struct memcheck *m, uint64_t gpa, uint64_t pass)
{
	uint64_t found;
	size_t first = verify_page(m, gpa, pass, &found);

	if (first < WORDS_PER_PAGE)
		report_page(m, gpa, first, pass, found);
	return m->bad_pages < MAX_REPORTS;
}

/*
 * After each page. A look costs more than dozens of pages that are mapped; but where the host takes
 * pages away as fast as they come, or is slow, one page may take longer than many looks.
 */
static bool poll_stop(struct memcheck *m)
{
	if (++m->unpolled < POLL_EVERY && rdtsc() - m->polled_at < POLL_TICKS)
		return false;
	m->unpolled = 0;
	m->polled_at = rdtsc();
	return stop_requested();
}

/* Verifies some of the pages filled, after @verified. False when that is the end. */
static bool verify_filled(struct memcheck *m, uint64_t *verified)
{
	for (uint64_t i = 0; i < FILL_VERIFY && i < m->filled; i++) {
		*verified = *verified + 1 < m->filled ? *verified + 1 : 0;
		if (!check_page(m, page_gpa(m, *verified), 0) || poll_stop(m))
			return false;
	}
	return !m->bad_pages;
}

/* False when the host asked for the end, or it came badly. */
static bool fill(struct memcheck *m)
{
	uint64_t verified = 0; /* where the last round of verifying ended */

	while (m->filled < m->nr_pages) {
		for (int i = 0; i < FILL_CHUNK && m->filled < m->nr_pages; i++) {
			stamp_page(m, page_gpa(m, m->filled++));
			if (poll_stop(m))
				return false;
		}
		if (!verify_filled(m, &verified))
			return false;
	}
	return true;
}

static uint64_t gcd(uint64_t a, uint64_t b)
{
	while (b) {
		uint64_t rest = a % b;

		a = b;
		b = rest;
	}
	return a;
}

/*
 * The order of a pass is a start and a step: upwards, downwards, and twice all over the place (a
 * step without a common divisor with the number of pages comes by every page once). False when the
 * pass was not finished.
 */
static bool verify_all(struct memcheck *m)
{
	uint64_t n = m->nr_pages, at = next_random(&m->random) % n, step;

	switch (m->pass % 4) {
	case 1:
		step = 1;
		break;
	case 2:
		step = n - 1;
		break;
	default:
		do
			step = next_random(&m->random) % n;
		while (gcd(step, n) != 1);
	}

	for (uint64_t i = 0; i < n; i++, at += at + step < n ? step : step - n) {
		uint64_t gpa = page_gpa(m, at);

		if (!check_page(m, gpa, m->pass - 1))
			return false;
		stamp_page(m, gpa);
		if (poll_stop(m))
			return false;
	}
	return true;
}

static void run(struct memcheck *m)
{
	uint64_t passes = 0;

	if (fill(m)) {
		for (m->pass = 1; verify_all(m) && !m->bad_pages; m->pass++) {
			passes++;
			pass();
		}
	}
	printf("memcheck: %lu pages filled, %lu passes verified, %lu bad pages\n", m->filled,
	       passes, m->bad_pages);
}

int main(const struct boot_info *boot)
{
	struct memcheck m = {.boot = boot, .random = boot->seed, .inverse = 1};

	boot_check(boot);
	m.hole = boot->image_start / PAGE_SIZE;
	m.hole_pages = (boot->image_end - boot->image_start) / PAGE_SIZE;
	m.nr_pages = boot->reserved_start / PAGE_SIZE - m.hole_pages;
	check(m.nr_pages > 0, "no RAM left to check");
	m.polled_at = rdtsc();
	m.key = next_random(&m.random);
	for (int i = 0; i < 6; i++) /* Newton: each round doubles the number of good bits */
		m.inverse *= 2 - STAMP_MIX * m.inverse;

	run(&m);
	return m.bad_pages ? 1 : 0;
}
