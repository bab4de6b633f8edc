/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The same cases by way of the shadow tables: the guest's CPU is put into the state of the case,
 * and a CPU of the model machine makes the access, with the fault path behind it. What comes out
 * must be what the manual says, although the model walks our tables, all at CPL 3, and not the
 * guest's.
 *
 * After the case's own access the two other kinds follow, with nothing dropped in between: so what
 * one access left in the shadow must not grant the next one anything.
 *
 * Not to be had this way: implicit accesses (a model CPU has none; shadow_read_gva() makes them,
 * and is held against the manual too), addresses that are not canonical (nobody walks for them), 5
 * levels.
 */
#include <errno.h>
#include <stdio.h>

#include "tests/paging/paging_guest.h"
#include "tests/support/test.h"

/* One case in so many, but for --long: primes that no digit of a number has in it. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define STRIDE 53
#else
#define STRIDE 11
#endif
/* An audit after every change costs more than all the rest: one in so many of the cases above. */
#define AUDIT_STRIDE 13

#define VALUE 0x1122334455667788ul

struct counts {
	uint64_t cases, accesses, done, faults, outside, exec_only, differ;
};

static const char *const kind_names[] = {"read", "write", "fetch"};

/* What the fault path has to answer, for what the manual says of the access. */
static enum ret_pf expected(struct paging_guest *g, const struct paging_case *c,
			    const struct sdm_result *manual)
{
	struct sdm_access read = {c->access.address, SDM_READ, c->access.mode};
	struct sdm_result reading;

	if (manual->outcome == SDM_PAGE_FAULT)
		return RET_PF_GUEST;
	if (manual->physical >> PAGE_SHIFT >= g->mem.nr_pages)
		return RET_PF_EMULATE;
	/* An entry that lets the CPU fetch lets it read. */
	sdm_access(&c->cpu, c->entry, &read, &reading);
	if (c->access.kind == SDM_FETCH && reading.outcome != SDM_DONE)
		return RET_PF_EXEC_ONLY;
	return RET_PF_FIXED;
}

static enum model_op op_of(enum sdm_kind kind)
{
	return kind == SDM_READ ? MODEL_LOAD : kind == SDM_WRITE ? MODEL_STORE : MODEL_FETCH;
}

/* One access with the entries as they are in c->entry: differences go to @what. */
static bool access_differs(struct paging_guest *g, struct counts *n, const struct paging_case *c,
			   uint64_t after[SDM_LEVELS], char *what, size_t size)
{
	struct model_access access = {op_of(c->access.kind), c->access.address, ~VALUE, 0, 0, 0};
	struct sdm_result manual;
	enum ret_pf want, got;
	bool marked = false;

	sdm_access(&c->cpu, c->entry, &c->access, &manual);
	want = expected(g, c, &manual);
	n->accesses++;
	n->faults += want == RET_PF_GUEST;
	n->outside += want == RET_PF_EMULATE;
	n->exec_only += want == RET_PF_EXEC_ONLY;
	n->done += want == RET_PF_FIXED;
	if (want == RET_PF_FIXED)
		guest_write(&g->mem, manual.physical, VALUE);

	got = model_access_retry(g->mem.model, 0, g->mem.shadow, &access);
	paging_guest_entries(g, c, after);
	if (got != want || (got == RET_PF_GUEST && access.error_code != manual.error_code)) {
		snprintf(what, size, "%s, error code 0x%x, not %s", ret_pf_name(got),
			 access.error_code, ret_pf_name(want));
		return true;
	}
	if (got == RET_PF_FIXED &&
	    (c->access.kind == SDM_WRITE ? guest_read(&g->mem, manual.physical) != ~VALUE
					 : access.value != VALUE)) {
		snprintf(what, size, "done at another place");
		return true;
	}
	/* The guest goes no further: what it finds in its entries does not matter. */
	if (got == RET_PF_EXEC_ONLY)
		return false;
	return paging_marks_differ(c, &manual, after, &marked, what, size);
}

#define MAX_SHOWN 20

static void show(const struct paging_case *c, enum sdm_kind first, const char *what)
{
	char line[1024];

	paging_case_format(c, line, sizeof(line));
	printf("%s\n  first a %s; here: %s\n", line, kind_names[first], what);
	fflush(stdout);
}

static void run_case(struct paging_guest *g, struct counts *n, struct paging_case *c)
{
	enum sdm_kind first = c->access.kind;
	struct guest_cpu cpu;
	char what[256];

	if (c->access.mode == SDM_IMPLICIT)
		return;
	paging_guest_place(g, c);
	cpu = paging_guest_cpu(c);
	/* The second drops what was there for this root, which the first need not. */
	expect_eq(shadow_set_cpu(g->mem.shadow, 0, &cpu), 0);
	expect_eq(shadow_load_cr3(g->mem.shadow, 0, cpu.cr3), 0);
	n->cases++;
	for (unsigned int i = 0; i < 3; i++) {
		uint64_t after[SDM_LEVELS] = {0};

		c->access.kind = (first + i) % 3;
		if (access_differs(g, n, c, after, what, sizeof(what)) && n->differ++ < MAX_SHOWN)
			show(c, first, what);
		for (int level = c->top; level >= c->leaf; level--)
			c->entry[level] = after[level];
	}
	paging_guest_clear(g, c);
}

/* An instruction is emulated: what it reads, or a descriptor that it needs. */
static void read_case(struct paging_guest *g, struct counts *n, struct paging_case *c)
{
	struct shadow_fault fault = {0};
	uint64_t after[SDM_LEVELS] = {0}, value = 0;
	struct sdm_result manual;
	struct guest_cpu cpu;
	char what[256] = "";
	bool marked = false;
	int want, got;

	if (c->access.kind == SDM_WRITE)
		return;
	paging_guest_place(g, c);
	cpu = paging_guest_cpu(c);
	expect_eq(shadow_set_cpu(g->mem.shadow, 0, &cpu), 0);
	sdm_access(&c->cpu, c->entry, &c->access, &manual);
	want = manual.outcome == SDM_PAGE_FAULT			  ? -EFAULT
	       : manual.physical >> PAGE_SHIFT >= g->mem.nr_pages ? -ENXIO
								  : 0;
	if (!want)
		guest_write(&g->mem, manual.physical, VALUE);
	got = shadow_read_gva(g->mem.shadow, 0, c->access.address, &value, sizeof(value),
			      paging_guest_access(&c->access), &fault);
	paging_guest_entries(g, c, after);
	n->cases++;
	n->accesses++;
	n->done += !want;
	n->faults += want == -EFAULT;
	n->outside += want == -ENXIO;
	if (got != want || (got == -EFAULT && fault.error_code != manual.error_code) ||
	    (!got && value != VALUE))
		snprintf(what, sizeof(what), "%d, error code 0x%x, value 0x%lx, not %d", got,
			 fault.error_code, value, want);
	else
		paging_marks_differ(c, &manual, after, &marked, what, sizeof(what));
	if (what[0] && n->differ++ < MAX_SHOWN)
		show(c, c->access.kind, what);
	paging_guest_clear(g, c);
}

typedef void (*case_fn)(struct paging_guest *g, struct counts *n, struct paging_case *c);

static void run_cases(struct counts *n, int levels, bool audit, case_fn fn, uint64_t stride)
{
	uint64_t count = paging_cases_count();
	struct paging_guest g;

	paging_guest_create(&g, levels, audit);
	for (uint64_t i = 0; i < count; i += stride) {
		struct paging_case c;

		if (paging_case_get(i, &paging_guest_env, &c) && c.top == levels &&
		    sdm_is_canonical(&c.cpu, c.access.address))
			fn(&g, n, &c);
	}
	paging_guest_destroy(&g);
	printf("%d levels: %lu cases, %lu accesses: %lu done, %lu page faults, %lu outside of RAM, "
	       "%lu only to be fetched; %lu differ\n",
	       levels, n->cases, n->accesses, n->done, n->faults, n->outside, n->exec_only,
	       n->differ);
	fflush(stdout);
	if (n->differ)
		fail("%lu of %lu accesses differ from the manual", n->differ, n->accesses);
}

TEST(paging_shadow, four_levels)
{
	uint64_t stride = test_long() ? 1 : STRIDE;
	struct counts n = {0};

	run_cases(&n, 4, false, run_case, stride);
	expect_ge(n.cases, 800000 / stride);
	expect_ge(n.done, 600000 / stride);
	expect_ge(n.exec_only, 30000 / stride);
	expect_ge(n.outside, 5000 / stride);
}

TEST(paging_shadow, five_levels)
{
	uint64_t stride = test_long() ? 1 : STRIDE;
	struct counts n = {0};

	run_cases(&n, 5, false, run_case, stride);
	expect_ge(n.cases, 400000 / stride);
	expect_ge(n.done, 200000 / stride);
	expect_ge(n.outside, 5000 / stride);
}

/* With an audit after every change. */
TEST(paging_shadow, audited)
{
	uint64_t stride = AUDIT_STRIDE * (test_long() ? 1 : STRIDE);
	struct counts four = {0}, five = {0};

	run_cases(&four, 4, true, run_case, stride);
	run_cases(&five, 5, true, run_case, stride);
}

TEST(paging_shadow, reads_for_emulation)
{
	uint64_t stride = test_long() ? 1 : STRIDE;
	struct counts four = {0}, five = {0};

	run_cases(&four, 4, false, read_case, stride);
	run_cases(&five, 5, false, read_case, stride);
	expect_ge(four.cases, 600000 / stride);
	expect_ge(four.done, 200000 / stride);
	expect_ge(five.cases, 300000 / stride);
}
