/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A real vCPU against the manual. At CPL 3 every difference is a failure. At CPL 0 the host may
 * emulate the guest's code, and emulators are less exact than processors: there the manual wins,
 * and what differs is a row of the table of host deviations that the test prints.
 *
 * A sample is run; with --long, every case that the vCPU's CPUID offers.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "notifier/sync/util.h"
#include "tests/paging/vcpu_kvm.h"
#include "tests/support/test.h"

/* One case in so many, but for --long: a prime that no digit of a number has in it. */
#define STRIDE 13

/* --- what a case is about, for the counts -------------------------------------------------------
 */

enum feature { ANY, WP, NXE, SMEP, SMAP, PKE, LA57, PAGE_2M, PAGE_1G, NR_FEATURES };

static const char *const feature_names[NR_FEATURES] = {"all",	 "WP=0",	"NXE=1",
						       "SMEP=1", "SMAP=1",	"PKE=1",
						       "LA57=1", "2 MiB pages", "1 GiB pages"};

static bool is_about(const struct paging_case *c, enum feature f)
{
	switch (f) {
	case WP:
		return !c->cpu.wp;
	case NXE:
		return c->cpu.nxe;
	case SMEP:
		return c->cpu.smep;
	case SMAP:
		return c->cpu.smap;
	case PKE:
		return c->cpu.pke;
	case LA57:
		return c->cpu.la57;
	case PAGE_2M:
		return c->leaf == SDM_PDE;
	case PAGE_1G:
		return c->leaf == SDM_PDPTE;
	default:
		return true;
	}
}

static bool offered(const struct vcpu_features *has, const struct paging_case *c)
{
	if ((c->cpu.nxe && !has->nx) || (c->cpu.smep && !has->smep) ||
	    (c->cpu.smap && !has->smap) || (c->cpu.pke && !has->pku) ||
	    (c->cpu.la57 && !has->la57) || c->cpu.maxphyaddr != has->maxphyaddr)
		return false;
	if (c->access.mode == SDM_USER && !has->user_upper_half && c->access.address >> 63 &&
	    sdm_is_canonical(&c->cpu, c->access.address))
		return false;
	/* Bit 8 has no meaning to Intel in what is above a PDE; AMD reserves it there. */
	for (int level = c->top; has->amd && level >= SDM_PDPTE; level--)
		if (level > c->leaf && (c->entry[level] & SDM_P) && (c->entry[level] & SDM_G))
			return false;
	return true;
}

/* --- deviations ---------------------------------------------------------------------------------
 */

#define MAX_ROWS 64

struct row {
	char what[256];
	uint64_t nr;
	char first[1024];
};

struct tally {
	uint64_t run[NR_FEATURES], differ[NR_FEATURES], not_offered[NR_FEATURES];
	uint64_t unable; /* that the guest cannot bring about */
	uint64_t done;	 /* by the manual */
	uint64_t marked; /* faults that left accessed flags */
	struct row rows[MAX_ROWS];
	unsigned int nr_rows;
};

static void say_outcome(const struct vcpu_outcome *out, char *buf, size_t size)
{
	switch (out->ended) {
	case VCPU_DONE:
		snprintf(buf, size, "done");
		break;
	case VCPU_EXCEPTION:
		snprintf(buf, size, "#%s, error code 0x%lx",
			 out->vector == 14   ? "PF"
			 : out->vector == 13 ? "GP"
			 : out->vector == 6  ? "UD"
					     : "another exception",
			 out->error_code);
		break;
	case VCPU_ELSEWHERE:
		snprintf(buf, size, "done at another place");
		break;
	case VCPU_STOPPED:
		snprintf(buf, size, "%s", out->why);
		break;
	case VCPU_HUNG:
		snprintf(buf, size, "no end");
		break;
	}
}

static bool same_outcome(const struct paging_case *c, const struct sdm_result *manual,
			 const struct vcpu_outcome *out)
{
	switch (manual->outcome) {
	case SDM_DONE:
		return out->ended == VCPU_DONE;
	case SDM_NOT_CANONICAL:
		return out->ended == VCPU_EXCEPTION && out->vector == 13 && !out->error_code;
	case SDM_PAGE_FAULT:
		return out->ended == VCPU_EXCEPTION && out->vector == 14 &&
		       out->error_code == manual->error_code && out->cr2 == c->access.address;
	}
	return false;
}

/* Flags that had to be set and were not, or were and must not; NULL: none. */
static const char *wrong_flags(const struct paging_case *c, const struct sdm_result *manual,
			       const struct vcpu_outcome *out)
{
	for (int level = c->top; level >= c->leaf; level--) {
		uint64_t changed = c->entry[level] ^ out->after[level];
		uint64_t wanted = manual->sets[level] & ~c->entry[level];

		if (changed & ~(manual->sets[level] | manual->may_set[level]))
			return changed & SDM_D ? "sets D" : "sets A";
		if (wanted & ~changed)
			return wanted & ~changed & SDM_D ? "leaves D alone" : "leaves A alone";
	}
	return NULL;
}

/* A line for the table in @what, and true; false: all is as the manual says. */
static bool differs(const struct paging_case *c, const struct sdm_result *manual,
		    const struct vcpu_outcome *out, char *what, size_t size)
{
	static const char *const modes[] = {"user", "supervisor", "implicit"};
	static const char *const kinds[] = {"read", "write", "fetch"};
	struct sdm_result bare = {.outcome = manual->outcome, .error_code = manual->error_code};
	char wanted[64], got[128];
	const char *flags;

	paging_result_format(&bare, wanted, sizeof(wanted));
	if (bare.outcome == SDM_DONE)
		snprintf(wanted, sizeof(wanted), "done");
	say_outcome(out, got, sizeof(got));
	if (same_outcome(c, manual, out)) {
		flags = wrong_flags(c, manual, out);
		if (!flags)
			return false;
		snprintf(got, sizeof(got), "%s", flags);
	} else if (!strcmp(wanted, got)) {
		snprintf(got, sizeof(got), "CR2 0x%lx", out->cr2);
	}
	snprintf(what, size, "%s %s: manual %s, host %s", modes[c->access.mode],
		 kinds[c->access.kind], wanted, got);
	return true;
}

static void note(struct tally *t, const struct paging_case *c, const struct sdm_result *manual,
		 const char *what)
{
	struct row *row;
	unsigned int i;

	for (i = 0; i < t->nr_rows && strcmp(t->rows[i].what, what); i++)
		;
	if (i == MAX_ROWS)
		return;
	row = &t->rows[i];
	if (i == t->nr_rows) {
		size_t used;

		t->nr_rows++;
		snprintf(row->what, sizeof(row->what), "%s", what);
		paging_case_format(c, row->first, sizeof(row->first) - 160);
		used = strlen(row->first);
		used += snprintf(row->first + used, sizeof(row->first) - used, ": ");
		paging_result_format(manual, row->first + used, sizeof(row->first) - used);
	}
	row->nr++;
}

static void print_tally(const struct tally *t, const char *title)
{
	printf("%s\n%-14s %10s %10s %10s %12s\n", title, "", "cases", "agreed", "differ",
	       "not offered");
	for (unsigned int f = 0; f < NR_FEATURES; f++)
		printf("%-14s %10lu %10lu %10lu %12lu\n", feature_names[f], t->run[f],
		       t->run[f] - t->differ[f], t->differ[f], t->not_offered[f]);
	printf("%lu of them are done by the manual; %lu faults left accessed flags; %lu more "
	       "cannot "
	       "be brought about\n",
	       t->done, t->marked, t->unable);
	for (unsigned int i = 0; i < t->nr_rows; i++)
		printf("%8lu  %s\n          %s\n", t->rows[i].nr, t->rows[i].what,
		       t->rows[i].first);
	fflush(stdout);
}

static void print_features(const struct vcpu_features *has)
{
	printf("CPUID offers:%s%s%s%s%s%s, %u address bits; at CPL 3 the upper half of the "
	       "addresses is %s\n",
	       has->nx ? " NX" : "", has->smep ? " SMEP" : "", has->smap ? " SMAP" : "",
	       has->pku ? " PKU" : "", has->la57 ? " LA57" : "",
	       has->gigabyte_pages ? " 1 GiB pages" : "", has->maxphyaddr,
	       has->user_upper_half ? "there" : "not to be had");
}

/* --- the run ------------------------------------------------------------------------------------
 */

static void run_case(struct vcpu_kvm *v, struct tally *t, struct paging_case *c, int cpl)
{
	struct vcpu_outcome out;
	struct sdm_result manual;
	bool different;
	char what[256];

	if (!vcpu_kvm_place(v, c)) {
		t->unable++;
		return;
	}
	sdm_access(&c->cpu, c->entry, &c->access, &manual);
	if (manual.outcome == SDM_DONE && manual.physical >= VCPU_MEMORY) {
		t->unable++;
		return;
	}
	vcpu_kvm_run(v, c, cpl, manual.physical, &out);
	different = differs(c, &manual, &out, what, sizeof(what));
	if (different)
		note(t, c, &manual, what);
	t->done += manual.outcome == SDM_DONE;
	t->marked += manual.outcome != SDM_DONE && memcmp(c->entry, out.after, sizeof(out.after));
	for (unsigned int f = 0; f < NR_FEATURES; f++)
		if (is_about(c, f)) {
			t->run[f]++;
			t->differ[f] += different;
		}
}

typedef bool (*wanted_fn)(const struct paging_case *c);

static struct tally *run_cases(struct vcpu_kvm *v, wanted_fn wanted, int cpl)
{
	const struct vcpu_features *has = vcpu_kvm_features(v);
	const struct paging_env env = {has->maxphyaddr, has->gigabyte_pages};
	struct tally *t = calloc(1, sizeof(*t));
	uint64_t count = paging_cases_count();

	expect(t != NULL);
	print_features(has);
	for (uint64_t i = 0; i < count; i += test_long() ? 1 : STRIDE) {
		struct paging_case c;

		if (!paging_case_get(i, &env, &c) || !wanted(&c))
			continue;
		if (offered(has, &c)) {
			run_case(v, t, &c, cpl);
			continue;
		}
		for (unsigned int f = 0; f < NR_FEATURES; f++)
			t->not_offered[f] += is_about(&c, f);
	}
	return t;
}

static struct vcpu_kvm *create_or_skip(void)
{
	char why[160];
	struct vcpu_kvm *v = vcpu_kvm_create(why, sizeof(why));

	if (!v)
		skip("%s", why);
	return v;
}

static bool is_user(const struct paging_case *c)
{
	return c->access.mode == SDM_USER;
}

TEST(paging_kvm, user)
{
	struct vcpu_kvm *v = create_or_skip();
	struct tally *t = run_cases(v, is_user, 3);

	print_tally(t, "A vCPU at CPL 3");
	if (t->nr_rows)
		fail("%lu cases differ; %s; %s", t->differ[ANY], t->rows[0].what, t->rows[0].first);
	expect_ge(t->run[ANY], 1000);
	expect_ge(t->done, 200);
	free(t);
	vcpu_kvm_destroy(v);
}

static bool is_implicit(const struct paging_case *c)
{
	return c->access.mode == SDM_IMPLICIT;
}

/* The loads of a segment by a user: supervisor accesses to the LDT. */
TEST(paging_kvm, implicit)
{
	struct vcpu_kvm *v = create_or_skip();
	struct tally *t;

	if (!vcpu_kvm_features(v)->user_ldt) {
		vcpu_kvm_destroy(v);
		skip("loads of segments at CPL 3 do not look at the guest's LDT here");
	}
	t = run_cases(v, is_implicit, 3);
	print_tally(t, "Implicit accesses at CPL 3");
	if (t->nr_rows)
		fail("%lu cases differ; %s; %s", t->differ[ANY], t->rows[0].what, t->rows[0].first);
	expect_ge(t->run[ANY], 200);
	free(t);
	vcpu_kvm_destroy(v);
}

static bool is_supervisor(const struct paging_case *c)
{
	return c->access.mode != SDM_USER;
}

/* What the manual says is not asked of the host, but that it says the same of most of it. */
TEST(paging_kvm, supervisor)
{
	struct vcpu_kvm *v = create_or_skip();
	struct tally *t = run_cases(v, is_supervisor, 0);

	print_tally(t, "A vCPU at CPL 0: the table of host deviations");
	expect_ge(t->run[ANY], 1000);
	expect_ge(t->done, 200);
	free(t);
	vcpu_kvm_destroy(v);
}
