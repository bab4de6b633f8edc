// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * The exploration: every state that can be reached, once, breadth first, so that the first way to a
 * bad outcome that is found is a shortest one. States are compared, not their hashes.
 */
#include <stdlib.h>
#include <string.h>

#include "tests/models/wmm_internal.h"
#include "tests/support/test.h"

#define MAX_STATES (1u << 25)

struct node {
	struct wm_state state;
	uint32_t parent; /* and the access that led here; itself: a beginning */
	uint8_t thread, insn;
};

/* Nodes by number, in the order in which they were found, and by state. */
struct set {
	struct node *nodes;
	size_t n, room;
	uint32_t *table; /* number + 1, or 0; twice as many as there is room */
};

static uint64_t hash(const struct wm_state *s)
{
	uint64_t words[sizeof(*s) / 8], h = 0x9e3779b97f4a7c15;

	_Static_assert(sizeof(*s) % 8 == 0, "no padding");
	memcpy(words, s, sizeof(words));
	for (size_t i = 0; i < sizeof(words) / 8; i++) {
		h = (h ^ words[i]) * 0xff51afd7ed558ccd;
		h ^= h >> 32;
	}
	return h;
}

static uint32_t *place_of(const struct set *set, const struct wm_state *s)
{
	size_t mask = set->room * 2 - 1, at = hash(s) & mask;

	while (set->table[at] && memcmp(&set->nodes[set->table[at] - 1].state, s, sizeof(*s)))
		at = (at + 1) & mask;
	return &set->table[at];
}

static void grow(struct set *set)
{
	set->room = set->room ? set->room * 2 : 1024;
	if (set->room > MAX_STATES)
		fail("too many states for a model");
	set->nodes = realloc(set->nodes, set->room * sizeof(*set->nodes));
	free(set->table);
	set->table = calloc(set->room * 2, sizeof(*set->table));
	if (!set->nodes || !set->table)
		fail("no memory for %zu states", set->room);
	for (size_t i = 0; i < set->n; i++)
		*place_of(set, &set->nodes[i].state) = (uint32_t)i + 1;
}

/* False: it was there already. */
static bool add(struct set *set, const struct node *node)
{
	uint32_t *place;

	if (set->n == set->room)
		grow(set);
	place = place_of(set, &node->state);
	if (*place)
		return false;
	set->nodes[set->n++] = *node;
	*place = (uint32_t)set->n;
	return true;
}

static void forget(struct set *set)
{
	free(set->nodes);
	free(set->table);
}

/* ---- moves ---- */

struct move {
	uint8_t thread, insn;
};

/*
 * Can this move stand for all others that are possible now? So it is if no other thread will ever
 * do anything to its location that does not commute with it, and nothing stands open before its
 * last compiler barrier, so that it takes no place away in which its thread could be cut. Then
 * every other execution has the same end as one that begins with this move.
 */
static bool ample_move(const struct wm_run *run, const struct wm_state *s, const struct move *move)
{
	const struct wm_path *p = wm_path_of(run, s, move->thread);
	unsigned int loc = wm_address(p, s, move->thread, move->insn);
	bool write = wm_is_write(&p->insn[move->insn]);

	if (p->pre_cut[move->insn] & ~s->done[move->thread])
		return false;
	for (unsigned int t = 0; t < run->model->nr_threads; t++) {
		const struct wm_path *other = wm_path_of(run, s, t);

		if (t != move->thread &&
		    (write ? other->touches[loc] : other->writes[loc]) & ~s->done[t])
			return false;
	}
	return true;
}

static unsigned int find_moves(const struct wm_run *run, const struct wm_state *s,
			       struct move *moves)
{
	unsigned int n = 0;

	for (unsigned int t = 0; t < run->model->nr_threads; t++) {
		const struct wm_path *p = wm_path_of(run, s, t);

		wm_for_each_bit(i, p->accesses & ~s->done[t])
		{
			if (!wm_enabled(run, s, t, i))
				continue;
			moves[n] = (struct move){.thread = (uint8_t)t, .insn = (uint8_t)i};
			if (!run->model->unreduced && ample_move(run, s, &moves[n])) {
				moves[0] = moves[n];
				return 1;
			}
			n++;
		}
	}
	return n;
}

/* ---- ends ---- */

static bool all_done(const struct wm_run *run, const struct wm_state *s)
{
	for (unsigned int t = 0; t < run->model->nr_threads; t++)
		if (s->done[t] != wm_path_of(run, s, t)->all)
			return false;
	return true;
}

/* What of @s is an outcome: memory, and the registers that are kept. */
static struct wm_state outcome_of(const struct wm_run *run, const struct wm_state *s)
{
	struct wm_state outcome = {0};

	memcpy(outcome.mem, s->mem, sizeof(outcome.mem));
	for (unsigned int t = 0; t < run->model->nr_threads; t++)
		wm_for_each_bit(r, run->model->threads[t].keep) outcome.regs[t] |=
			s->regs[t] & 15ULL << 4 * r;
	return outcome;
}

static void judge(const struct wm_run *run, const struct wm_state *s, struct set *outcomes,
		  struct wm_result *result)
{
	const struct wm_model *model = run->model;
	struct node outcome = {.state = outcome_of(run, s)};
	struct wm_final final = {0};

	for (unsigned int loc = 0; loc < WM_LOCS; loc++)
		final.mem[loc] = wm_mem(s, loc);
	for (unsigned int t = 0; t < model->nr_threads; t++)
		for (unsigned int r = 0; r < WM_REGS; r++)
			final.regs[t][r] = wm_reg(&outcome.state, t, r);

	result->finals++;
	if (add(outcomes, &outcome))
		result->digest += hash(&outcome.state);
	if (model->bad.holds && model->bad.holds(&final))
		result->bad++;
	for (unsigned int i = 0; i < WM_OUTCOMES; i++)
		if (model->reached[i].holds && model->reached[i].holds(&final))
			result->reached[i]++;
}

/* How node @at came about, once more, aloud. */
static void tell(const struct wm_run *run, const struct set *set, uint32_t at)
{
	struct wm_state s;
	uint32_t way[WM_THREADS * WM_INSNS];
	unsigned int n = 0;
	FILE *out = run->model->trace;

	for (; set->nodes[at].parent != at; at = set->nodes[at].parent)
		way[n++] = at;
	s = set->nodes[at].state;
	fprintf(out, "--- %s: a shortest way there\n", run->model->bad.name);
	while (n) {
		const struct node *node = &set->nodes[way[--n]];

		wm_step(run, &s, node->thread, node->insn, out);
		wm_settle(run, &s, out);
	}
}

/* ---- the exploration ---- */

static void begin(const struct wm_run *run, struct set *set, unsigned int thread, struct node *node)
{
	const struct wm_model *model = run->model;

	if (thread < model->nr_threads) {
		for (unsigned int i = 0; i < run->paths->n[thread]; i++) {
			node->state.path[thread] = (uint8_t)i;
			begin(run, set, thread + 1, node);
		}
		return;
	}
	struct node first = *node;

	for (unsigned int loc = 0; loc < WM_LOCS; loc++)
		first.state.mem[loc / 16] |= (uint64_t)model->init[loc] << 4 * (loc % 16);
	first.parent = (uint32_t)set->n;
	if (wm_settle(run, &first.state, NULL))
		add(set, &first);
}

struct wm_result wm_explore(const struct wm_model *model)
{
	struct wm_result result = {0};
	struct wm_run run = {.model = model, .paths = malloc(sizeof(*run.paths))};
	struct set set = {0}, outcomes = {0};

	if (!run.paths)
		fail("no memory for the paths");
	wm_make_paths(model, run.paths);
	begin(&run, &set, 0, &(struct node){0});
	for (uint32_t at = 0; at < set.n; at++) {
		const struct wm_state s = set.nodes[at].state;
		struct move moves[WM_THREADS * WM_INSNS];
		unsigned int n = find_moves(&run, &s, moves);
		bool first;

		for (unsigned int i = 0; i < n; i++) {
			struct node next = {.state = s,
					    .parent = at,
					    .thread = moves[i].thread,
					    .insn = moves[i].insn};

			wm_step(&run, &next.state, next.thread, next.insn, NULL);
			if (wm_settle(&run, &next.state, NULL))
				add(&set, &next);
		}
		if (n)
			continue;
		if (!all_done(&run, &s)) {
			result.stuck++;
			continue;
		}
		first = !result.bad;
		judge(&run, &s, &outcomes, &result);
		first &= result.bad != 0;
		if (first && model->trace)
			tell(&run, &set, at);
		if (first && model->to_first_bad)
			break;
	}
	result.states = set.n;
	result.outcomes = outcomes.n;
	forget(&set);
	forget(&outcomes);
	free(run.paths);
	return result;
}
