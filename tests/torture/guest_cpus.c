/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The guest's CPUs: they load and store through the shadow MMU while it is being taken from under
 * them.
 *
 * Each page has one owner, who knows exactly what it stored last: a load that finds anything else
 * has read an old frame (poison, or what was there before the move), or a store of its own has been
 * lost in one. The others know that what they read there never goes back.
 */
#include "notifier/sync/bug.h"
#include "tests/torture/torture.h"

#define BURST 96

struct cpu {
	struct torture *t;
	unsigned int nr;
	struct rng rng;
	uint64_t count[DATA_PAGES][NR_CPU_WORDS]; /* own pages: stored; others: seen */
	char name[16];
};

static uint64_t access_word(struct cpu *c, enum model_op op, gva_t gva, uint64_t value)
{
	struct model_access access = {.op = op, .gva = gva, .value = value};
	enum ret_pf pf = model_access_retry(c->t->g.model, c->nr, c->t->g.shadow, &access);

	if (pf != RET_PF_FIXED)
		torture_fail("CPU %u at gva 0x%lx: %s", c->nr, gva, ret_pf_name(pf));
	atomic64_inc(&c->t->cpu_accesses);
	return access.value;
}

static void check_word(struct cpu *c, uint64_t page, unsigned int word)
{
	uint64_t *known = &c->count[page][word];
	uint64_t value = access_word(c, MODEL_LOAD, word_gpa(page, word), 0);
	uint64_t count = stamp_count(value, page, word, c->name);

	if (page % NR_CPUS == c->nr ? count != *known : count < *known)
		torture_fail("CPU %u: word %u of page %lu is stamp number %lu, known is %lu", c->nr,
			     word, page, count, *known);
	*known = count;
	atomic64_inc(&c->t->cpu_checks);
}

static void one_step(struct cpu *c)
{
	uint64_t page = rng_below(&c->rng, DATA_PAGES);
	unsigned int word = rng_below(&c->rng, NR_CPU_WORDS);

	switch (rng_below(&c->rng, 64)) {
	case 0:
		shadow_invlpg(c->t->g.shadow, c->nr, page << PAGE_SHIFT);
		break;
	case 1:
		if (rng_below(&c->rng, 16))
			break;
		if (shadow_load_cr3(c->t->g.shadow, c->nr, c->t->cr3[rng_below(&c->rng, 2)]))
			torture_fail("CPU %u: CR3 load failed", c->nr);
		break;
	case 2 ... 9:
		access_word(c, MODEL_ADD, word_gpa(page, WORD_SHARED), 1);
		atomic64_inc(&c->t->added);
		break;
	default:
		check_word(c, page, word);
		if (page % NR_CPUS == c->nr)
			access_word(c, MODEL_STORE, word_gpa(page, word),
				    stamp(page, word, ++c->count[page][word]));
		break;
	}
}

void cpu_thread(void *arg)
{
	struct torture_thread *thread = arg;
	struct cpu c = {.t = thread->t, .nr = thread->nr};
	uint64_t seen = 0;

	c.name[0] = 'C';
	c.name[1] = 'P';
	c.name[2] = 'U';
	c.name[3] = ' ';
	c.name[4] = '0' + c.nr;
	rng_init(&c.rng, c.t->opt.seed, 400 + c.nr);
	while (torture_phase(c.t) != PHASE_STOP) {
		seen = torture_wait_progress(c.t, seen);
		for (int i = 0; i < BURST; i++)
			one_step(&c);
	}
	/* All is quiet: once more, everything. */
	for (uint64_t page = 0; page < DATA_PAGES; page++) {
		for (unsigned int word = 0; word < NR_CPU_WORDS; word++)
			check_word(&c, page, word);
	}
}
