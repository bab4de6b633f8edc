// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * The explorer itself, against what is known of such machines: the classic litmus tests, which
 * outcome each barrier or dependency forbids and which it leaves, by the names of the literature
 * (Sewell et al.; the ARMv8 model by Pulte et al.). And M against its own definition.
 *
 * A test is written as threads with a bar between them and accesses with semicolons:
 *
 *	x=1  x=1.rel  x=r0	stores; a data dependency
 *	r1=x  r1=x.acq		loads
 *	r1=p[r0]		loads p or P, which stands behind it: an address dependency
 *	p[r0]=1			stores there
 *	r1=x++  .acq .rel .full	read-modify-writes
 *	r1=x?1			a load that waits for 1
 *	t1=x			a load whose register is of no interest in the end
 *	ctrl r0			a branch on r0, both ways of which lead here
 *	skip r0			the next one only if r0 is not 0
 *	mb  M  cb		the barriers of wmm.h
 */
#include <ctype.h>
#include <string.h>

#include "tests/models/wmm.h"
#include "tests/support/test.h"

struct litmus {
	const char *name, *text, *exists;
	bool allowed;
};

/* ---- reading ---- */

static const char locations[] = "xyzwpPqQ";

static uint8_t location(char c)
{
	const char *at = strchr(locations, c);

	if (!c || !at)
		fail("no location '%c'", c);
	return (uint8_t)(at - locations);
}

static uint8_t digit(const char *s)
{
	if (!isdigit((unsigned char)*s))
		fail("no number in '%s'", s);
	return (uint8_t)(*s - '0');
}

static enum wm_order order_of(const char *s)
{
	const char *dot = strchr(s, '.');

	if (!dot)
		return WM_RELAXED;
	return dot[1] == 'a' ? WM_ACQUIRE : dot[1] == 'r' ? WM_RELEASE : WM_FULL;
}

static uint8_t index_of(const char *place)
{
	return place[1] == '[' ? digit(place + 3) : WM_NONE;
}

static void read_load(struct wm_program *p, const char *s)
{
	struct wm_insn insn = {.op = strstr(s, "++") ? WM_ADD : WM_LD,
			       .reg = digit(s + 1),
			       .loc = location(s[3]),
			       .index = index_of(s + 3),
			       .order = order_of(s)};

	insn.value.k = insn.op == WM_ADD;
	insn.await = strchr(s, '?') != NULL;
	if (insn.await)
		insn.expected = digit(strchr(s, '?') + 1);
	if (s[0] == 'r')
		wm_keep(p, (uint16_t)R(insn.reg));
	wm_insn(p, insn);
}

static void read_store(struct wm_program *p, const char *s)
{
	const char *value = strchr(s, '=') + 1;
	struct wm_insn insn = {.op = WM_ST,
			       .reg = WM_NONE,
			       .loc = location(s[0]),
			       .index = index_of(s),
			       .order = order_of(s)};

	if (*value == 'r' || *value == 't')
		insn.value.regs = (uint16_t)R(digit(value + 1));
	else
		insn.value.k = digit(value);
	wm_insn(p, insn);
}

static void read_insn(struct wm_program *p, const char *s)
{
	static unsigned int skip = WM_TEXT;
	unsigned int skipped = skip;

	skip = WM_TEXT;
	if (!strcmp(s, "mb"))
		wm_op(p, WM_MB);
	else if (!strcmp(s, "M"))
		wm_op(p, WM_M);
	else if (!strcmp(s, "cb"))
		wm_op(p, WM_CB);
	else if (!strncmp(s, "ctrl", 4))
		wm_land(p, wm_branch(p, wm_eq((uint16_t)R(digit(s + 6)), 0, 0)));
	else if (!strncmp(s, "skip", 4))
		skip = wm_branch(p, wm_eq((uint16_t)R(digit(s + 6)), 0, 0));
	else if (s[0] == 'r' || s[0] == 't')
		read_load(p, s);
	else
		read_store(p, s);
	if (skipped != WM_TEXT)
		wm_land(p, skipped);
}

static void read_model(struct wm_model *model, const char *text)
{
	static char copies[WM_THREADS][16];
	char copy[256], *threads, *thread, *insn;

	snprintf(copy, sizeof(copy), "%s", text);
	threads = copy;
	while ((thread = strsep(&threads, "|"))) {
		unsigned int n = model->nr_threads;
		struct wm_program *p;

		snprintf(copies[n], sizeof(copies[n]), "T%u", n);
		p = wm_thread(model, copies[n]);
		while ((insn = strsep(&thread, ";"))) {
			insn += strspn(insn, " ");
			while (*insn && insn[strlen(insn) - 1] == ' ')
				insn[strlen(insn) - 1] = '\0';
			read_insn(p, insn);
		}
	}
}

static const char *exists;

/* "0:r1=2 & x=1": all of that. */
static bool exists_holds(const struct wm_final *final)
{
	for (const char *s = exists; *s; s += strspn(s, " &")) {
		uint8_t found;

		if (isdigit((unsigned char)*s)) {
			found = final->regs[digit(s)][digit(s + 3)];
			s += 5;
		} else {
			found = final->mem[location(*s)];
			s += 2;
		}
		if (found != digit(s++))
			return false;
	}
	return true;
}

static struct wm_result explore(const struct litmus *litmus, bool unreduced)
{
	struct wm_model model = {.unreduced = unreduced};

	read_model(&model, litmus->text);
	exists = litmus->exists;
	model.bad = (struct wm_outcome){litmus->name, exists_holds};
	return wm_explore(&model);
}

static void judge(const struct litmus *litmus, size_t n)
{
	unsigned int wrong = 0;

	for (size_t i = 0; i < n; i++) {
		struct wm_result all = explore(&litmus[i], true);
		struct wm_result reduced = explore(&litmus[i], false);

		if (all.stuck || !all.finals || (all.bad != 0) != litmus[i].allowed) {
			fprintf(stderr, "%s: %s, exists %s: should be %s\n", litmus[i].name,
				litmus[i].text, litmus[i].exists,
				litmus[i].allowed ? "allowed" : "forbidden");
			wrong++;
		}
		/* The reduction leaves out ways, never an end. */
		if (reduced.outcomes != all.outcomes || reduced.digest != all.digest) {
			fprintf(stderr, "%s: %zu outcomes, reduced %zu\n", litmus[i].name,
				all.outcomes, reduced.outcomes);
			wrong++;
		}
	}
	printf("%zu litmus tests\n", n);
	expect_eq(wrong, 0);
}

#define JUDGE(...)                                                  \
	do {                                                        \
		static const struct litmus table[] = {__VA_ARGS__}; \
		judge(table, sizeof(table) / sizeof(table[0]));     \
	} while (0)

/* ---- known outcomes ---- */

#define SB "0:r0=0 & 1:r0=0"

TEST(litmus, store_buffering)
{
	JUDGE({"SB", "x=1; r0=y | y=1; r0=x", SB, true},
	      {"SB+mb+po", "x=1; mb; r0=y | y=1; r0=x", SB, true},
	      {"SB+mbs", "x=1; mb; r0=y | y=1; mb; r0=x", SB, false},
	      {"SB+rel+acq", "x=1.rel; r0=y.acq | y=1.rel; r0=x.acq", SB, true},
	      {"SB+rmw", "r1=x++; r0=y | r1=y++; r0=x", SB, true},
	      {"SB+rmw-full", "r1=x++.full; r0=y | r1=y++.full; r0=x", SB, false},
	      {"SB+rfi", "x=1; r1=x; r0=y | y=1; r1=y; r0=x", "0:r1=1 & 1:r1=1 & " SB, true},
	      {"SB+rfi, own store", "x=1; r1=x; r0=y | y=1; r1=y; r0=x", "0:r1=0", false},
	      {"SB, the rest", "x=1; mb; r0=y | y=1; mb; r0=x", "0:r0=1 & 1:r0=1", true});
}

#define MP "1:r0=1 & 1:r1=0"

TEST(litmus, message_passing)
{
	JUDGE({"MP", "x=1; y=1 | r0=y; r1=x", MP, true},
	      {"MP+mbs", "x=1; mb; y=1 | r0=y; mb; r1=x", MP, false},
	      {"MP+mb+po", "x=1; mb; y=1 | r0=y; r1=x", MP, true},
	      {"MP+po+mb", "x=1; y=1 | r0=y; mb; r1=x", MP, true},
	      {"MP+rel+acq", "x=1; y=1.rel | r0=y.acq; r1=x", MP, false},
	      {"MP+rel+po", "x=1; y=1.rel | r0=y; r1=x", MP, true},
	      {"MP+po+acq", "x=1; y=1 | r0=y.acq; r1=x", MP, true},
	      {"MP+mb+addr", "P=1; mb; y=1 | r0=y; r1=p[r0]", MP, false},
	      {"MP+mb+ctrl", "x=1; mb; y=1 | r0=y; ctrl r0; r1=x", MP, true},
	      {"MP+mb+ctrl-mb", "x=1; mb; y=1 | r0=y; ctrl r0; mb; r1=x", MP, false},
	      {"MP+rmw-rel+acq", "x=1; r0=y++.rel | r0=y.acq; r1=x", MP, false},
	      {"MP, the rest", "x=1; mb; y=1 | r0=y; mb; r1=x", "1:r0=1 & 1:r1=1", true});
}

#define LB "0:r0=1 & 1:r0=1"

TEST(litmus, load_buffering)
{
	JUDGE({"LB", "r0=x; y=1 | r0=y; x=1", LB, true},
	      {"LB+data+po", "r0=x; y=r0 | r0=y; x=1", LB, true},
	      {"LB+datas", "r0=x; y=r0 | r0=y; x=r0", LB, false},
	      {"LB+ctrls", "r0=x; ctrl r0; y=1 | r0=y; ctrl r0; x=1", LB, false},
	      {"LB+ctrl+po", "r0=x; ctrl r0; y=1 | r0=y; x=1", LB, true},
	      {"LB+addrs", "r0=x; p[r0]=1; y=1 | r0=y; q[r0]=1; x=1", LB, true},
	      {"LB+acqs", "r0=x.acq; y=1 | r0=y.acq; x=1", LB, false},
	      {"LB+rels", "r0=x; y=1.rel | r0=y; x=1.rel", LB, false},
	      {"LB+mbs", "r0=x; mb; y=1 | r0=y; mb; x=1", LB, false},
	      {"LB+mb+po", "r0=x; mb; y=1 | r0=y; x=1", LB, true});
}

#define IRIW "2:r0=1 & 2:r1=0 & 3:r0=1 & 3:r1=0"

TEST(litmus, one_memory_for_all)
{
	JUDGE({"IRIW", "x=1 | y=1 | r0=x; r1=y | r0=y; r1=x", IRIW, true},
	      {"IRIW+acqs", "x=1 | y=1 | r0=x.acq; r1=y | r0=y.acq; r1=x", IRIW, false},
	      {"IRIW+mbs", "x=1 | y=1 | r0=x; mb; r1=y | r0=y; mb; r1=x", IRIW, false},
	      {"IRIW+acq+po", "x=1 | y=1 | r0=x.acq; r1=y | r0=y; r1=x", IRIW, true},
	      {"IRIW+addrs", "P=1 | Q=1 | r0=P; r1=q[r0] | r0=Q; r1=p[r0]", IRIW, false},
	      {"WRC", "x=1 | r0=x; y=1 | r0=y; r1=x", "1:r0=1 & 2:r0=1 & 2:r1=0", true},
	      {"WRC+data+addr", "P=1 | r0=P; y=r0 | r0=y; r1=p[r0]", "1:r0=1 & 2:r0=1 & 2:r1=0",
	       false},
	      {"WRC+rel+acq", "x=1 | r0=x; y=1.rel | r0=y.acq; r1=x", "1:r0=1 & 2:r0=1 & 2:r1=0",
	       false},
	      {"ISA2+mb+data+addr", "P=1; mb; y=1 | r0=y; z=r0 | r0=z; r1=p[r0]",
	       "1:r0=1 & 2:r0=1 & 2:r1=0", false});
}

TEST(litmus, stores)
{
	JUDGE({"2+2W", "x=1; y=2 | y=1; x=2", "x=1 & y=1", true},
	      {"2+2W+mbs", "x=1; mb; y=2 | y=1; mb; x=2", "x=1 & y=1", false},
	      {"2+2W+rels", "x=1; y=2.rel | y=1; x=2.rel", "x=1 & y=1", false},
	      {"2+2W+rel+po", "x=1; y=2.rel | y=1; x=2", "x=1 & y=1", true},
	      {"S", "x=2; y=1 | r0=y; x=1", "1:r0=1 & x=2", true},
	      {"S+mb+data", "x=2; mb; y=1 | r0=y; x=r0", "1:r0=1 & x=2", false},
	      {"S+mb+ctrl", "x=2; mb; y=1 | r0=y; ctrl r0; x=1", "1:r0=1 & x=2", false},
	      {"S+mb+po", "x=2; mb; y=1 | r0=y; x=1", "1:r0=1 & x=2", true},
	      {"R", "x=1; y=1 | y=2; r0=x", "y=2 & 1:r0=0", true},
	      {"R+rel+mb", "x=1; y=1.rel | y=2; mb; r0=x", "y=2 & 1:r0=0", false},
	      {"R+mb+po", "x=1; mb; y=1 | y=2; r0=x", "y=2 & 1:r0=0", true});
}

TEST(litmus, one_location)
{
	JUDGE({"CoRR", "x=1 | r0=x; r1=x", "1:r0=1 & 1:r1=0", false},
	      {"CoRR2", "x=1 | x=2 | r0=x; r1=x | r0=x; r1=x", "2:r0=1 & 2:r1=2 & 3:r0=2 & 3:r1=1",
	       false},
	      {"CoWW", "x=1; x=2", "x=1", false}, {"CoRW", "r0=x; x=1", "0:r0=1", false},
	      {"CoWR", "x=1; r0=x | x=2", "0:r0=2 & x=1", false},
	      {"CoWR, lost", "x=1; r0=x | x=2", "0:r0=0", false},
	      {"CoRR, by an index", "Q=1 | r0=x; r1=q[r0]; r2=Q | x=1", "1:r0=1 & 1:r1=1 & 1:r2=0",
	       false},
	      {"rmws are atomic", "r0=x++ | r0=x++", "x=1", false},
	      {"load, store are not", "r0=x; y=r0; x=1 | r0=x; z=r0; x=2", "0:r0=0 & 1:r0=0", true},
	      {"rmw, store", "r0=x++ | x=5", "x=6 & 0:r0=0", false});
}

/* A load takes its own thread's store early, past a branch that is open; not past an address. */
TEST(litmus, forwarding)
{
	JUDGE({"PPOCA", "P=1; mb; y=1 | r0=y; ctrl r0; z=1; r2=z; r1=p[r2]", MP, true},
	      {"PPOAA", "P=1; mb; y=1 | r0=y; q[r0]=1; r2=Q; r1=p[r2]", "1:r2=1 & " MP, false},
	      {"PPODA", "P=1; mb; y=1 | r0=y; z=r0; r2=z; r1=p[r2]", "1:r2=1 & " MP, false});
}

/* What is only a device of the explorer. */
TEST(litmus, branches_and_waits)
{
	JUDGE({"skipped", "r0=x; skip r0; y=1 | x=1", "0:r0=0 & y=1", false},
	      {"not skipped", "r0=x; skip r0; y=1 | x=1", "0:r0=1 & y=0", false},
	      {"either", "r0=x; skip r0; y=1 | x=1", "0:r0=1 & y=1", true},
	      {"MP+mb+skip", "x=1; mb; y=1 | r0=y; skip r0; z=1; r1=x", MP, true},
	      {"S+mb+wait", "x=2; mb; y=1 | r0=y?1; x=1", "x=2", false},
	      {"MP+mb+wait", "x=1; mb; y=1 | r0=y?1; r1=x", "1:r1=0", true},
	      {"MP+mb+wait-acq", "x=1; mb; y=1 | r0=y?1.acq; r1=x", "1:r1=0", false},
	      {"a register that is forgotten", "t0=x; y=t0 | x=1", "y=1", true},
	      {"a barrier on the other way",
	       "x=1; M; r0=y | y=1; r1=z; skip r1; w=1; r0=x; cb | z=1", "1:r1=1 & " SB, true},
	      {"a barrier on one way", "x=1; M; r0=y | y=1; r1=z; skip r1; cb; r0=x | z=1",
	       "1:r1=0 & " SB, true},
	      {"a barrier on this way", "x=1; M; r0=y | y=1; r1=z; skip r1; cb; r0=x | z=1",
	       "1:r1=1 & " SB, false});
}

/*
 * M orders the compiler barriers of others against itself, and nothing else: two threads that have
 * compiler barriers are in no order to each other while a third one runs M.
 */
TEST(litmus, heavy_barrier)
{
	JUDGE({"SB+M+cb", "x=1; M; r0=y | y=1; cb; r0=x", SB, false},
	      {"SB+M+po", "x=1; M; r0=y | y=1; r0=x", SB, true},
	      {"SB+mb+cb", "x=1; mb; r0=y | y=1; cb; r0=x", SB, true},
	      {"SB+Ms", "x=1; M; r0=y | y=1; M; r0=x", SB, false},
	      {"SB+M+mb", "x=1; M; r0=y | y=1; mb; r0=x", SB, false},
	      {"SB+cbs, M elsewhere", "x=1; cb; r0=y | y=1; cb; r0=x | M", SB, true},
	      {"MP+cb+M", "x=1; cb; y=1 | r0=y; M; r1=x", MP, false},
	      {"MP+po+M", "x=1; y=1 | r0=y; M; r1=x", MP, true},
	      {"MP+M+cb", "x=1; M; y=1 | r0=y; cb; r1=x", MP, false},
	      {"MP+M+po", "x=1; M; y=1 | r0=y; r1=x", MP, true},
	      {"MP+cbs, M elsewhere", "x=1; cb; y=1 | r0=y; cb; r1=x | M", MP, true},
	      {"LB+M+cb", "r0=x; M; y=1 | r0=y; cb; x=1", LB, false},
	      {"LB+M+po", "r0=x; M; y=1 | r0=y; x=1", LB, true},
	      {"2+2W+M+cb", "x=1; M; y=2 | y=1; cb; x=2", "x=1 & y=1", false},
	      {"a long cut", "x=1; M; r0=y | y=1; r1=z; cb; r2=w; r0=x", SB, false},
	      {"IRIW+M", "x=1; M; r0=y | y=1; cb; r0=x | r0=x; r1=y | r0=y; r1=x",
	       "0:r0=1 & 1:r0=1 & " IRIW, true});
}

/* ---- the reduction, on programs that nobody thought of ---- */

static unsigned int random_below(unsigned int n)
{
	static uint64_t x = 88172645463325252;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	return (unsigned int)(x >> 20) % n;
}

/* One instruction; @reg is the next register that is free. */
static int random_insn(char *at, size_t room, unsigned int *reg)
{
	static const char *const orders[] = {"", "", ".rel", ".acq", ".full"};
	const char *order = orders[random_below(5)];
	unsigned int old = *reg ? random_below(*reg) : 0;
	char loc = "xyp"[random_below(3)];

	switch (random_below(*reg ? 11 : 7)) {
	case 0:
	case 1:
		return snprintf(at, room, "%c=%u%s", loc, 1 + random_below(2),
				strcmp(order, ".rel") ? "" : order);
	case 2:
	case 3:
		return snprintf(at, room, "r%u=%c%s", (*reg)++, loc,
				strcmp(order, ".acq") ? "" : order);
	case 4:
		return snprintf(at, room, "r%u=x++%s", (*reg)++, order);
	case 5:
		return snprintf(at, room, "cb");
	case 6:
		return snprintf(at, room, random_below(2) ? "M" : "mb");
	case 7:
		return snprintf(at, room, "%c=r%u", loc, old);
	case 8:
		return snprintf(at, room, "r%u=p[r%u]", (*reg)++, old);
	case 9:
		return snprintf(at, room, "skip r%u; %c=3", old, loc);
	default:
		return snprintf(at, room, "ctrl r%u", old);
	}
}

static void random_program(char *text, size_t room)
{
	size_t at = 0;
	unsigned int threads = 2 + random_below(2);

	for (unsigned int t = 0; t < threads; t++) {
		unsigned int reg = 0, n = 2 + random_below(threads == 2 ? 4 : 2);

		for (unsigned int i = 0; i < n; i++) {
			at += (size_t)random_insn(text + at, room - at, &reg);
			at += (size_t)snprintf(text + at, room - at, "%s", i + 1 < n ? "; " : "");
		}
		at += (size_t)snprintf(text + at, room - at, "%s", t + 1 < threads ? " | " : "");
	}
}

TEST(litmus, reduction_loses_nothing)
{
	unsigned int n = test_long() ? 20000 : 1000, fewer = 0;
	size_t outcomes = 0;

	for (unsigned int i = 0; i < n; i++) {
		char text[256];
		struct litmus litmus = {.name = "random", .text = text, .exists = "x=9"};
		struct wm_result all, reduced;

		random_program(text, sizeof(text));
		all = explore(&litmus, true);
		reduced = explore(&litmus, false);
		if (all.outcomes != reduced.outcomes || all.digest != reduced.digest)
			fail("%s: %zu outcomes, reduced %zu", text, all.outcomes, reduced.outcomes);
		fewer += reduced.states < all.states;
		outcomes += all.outcomes;
	}
	printf("%u random programs, %zu outcomes, %u explored with fewer states\n", n, outcomes,
	       fewer);
	/* Neither the programs nor the reduction are empty. */
	expect_ge(outcomes, 2 * n);
	expect_ge(fewer, n / 2);
}
