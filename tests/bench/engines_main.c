/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What engines cost below the shadow MMU: exits, fills, shootdowns, moves to another root; beside
 * the least that an engine with guests in processes of their own has to do (engines_floor.c).
 * ./dev bench engines.
 */
#include <string.h>

#include "vmm/engine.h"
/* Behind the VMM's: they have an ARRAY_SIZE as well. */
#include "tests/bench/engines.h"

#define MANY (1ULL << 30)

struct what {
	const struct engine_ops *ops;
	enum engines_op op;
	double goal;
};

static int setup(const struct bench *b)
{
	const struct what *what = b->arg;
	/* The process first: it is a copy of us. */
	int err = engines_floor_create();

	return err ?: engines_guest_create(what->ops);
}

static void teardown(const struct bench *b)
{
	(void)b;
	engines_guest_destroy();
	engines_floor_destroy();
}

static const char *missing(const struct bench *b)
{
	return engines_guest_missing(((const struct what *)b->arg)->ops);
}

static int sample(const struct bench *b, const struct bench_variant *v, uint64_t n,
		  struct bench_sample *s)
{
	const struct what *what = b->arg;

	if (strcmp(v->name, "floor") == 0)
		return engines_floor_sample(what->op, n, s);
	return engines_guest_sample(what->op, n, s);
}

static double goal(const struct bench *b, const struct bench_variant *v)
{
	return strcmp(v->name, "floor") == 0 ? 0 : ((const struct what *)b->arg)->goal;
}

static const struct bench_variant hosted[] = {{"hosted", "floor", NULL}, {"floor", "floor", NULL}};
static const struct bench_variant kvm[] = {{"kvm", "floor", NULL}, {"floor", "floor", NULL}};

#define BENCH(bench_name, about, engine, which, most, nr_cpus, aim)                           \
	{                                                                                     \
		.name = bench_name, .what = about, .threads = 1, .cpus = nr_cpus, .unit = 16, \
		.max = most, .arg = &(const struct what){&engine_##engine, which, aim},       \
		.variants = engine, .nr_variants = ARRAY_SIZE(engine), .missing = missing,    \
		.setup = setup, .teardown = teardown, .sample = sample, .goal = goal,         \
	}

#define EXIT	  "an exception, to the VMM and back"
#define FILL	  "a touch of a page that the tables have and the CPU has not"
#define SHOOTDOWN "a frame is shot down while a vCPU stores to it"
#define SWITCH	  "an exception, and on in the other of two roots"

static const struct bench benches[] = {
	BENCH("engine_exit", EXIT, hosted, ENGINES_EXIT, MANY, 1, 1.3),
	BENCH("engine_fill", FILL, hosted, ENGINES_FILL, ENGINES_PAGES, 1, 1.3),
	BENCH("engine_shootdown", SHOOTDOWN, hosted, ENGINES_SHOOT, ENGINES_PAGES, 2, 1.5),
	BENCH("engine_switch", SWITCH, hosted, ENGINES_SWITCH, MANY, 1, 0),
	BENCH("engine_kvm_exit", EXIT, kvm, ENGINES_EXIT, MANY, 1, 0),
	BENCH("engine_kvm_fill", FILL, kvm, ENGINES_FILL, ENGINES_PAGES, 1, 0),
	BENCH("engine_kvm_shootdown", SHOOTDOWN, kvm, ENGINES_SHOOT, ENGINES_PAGES, 2, 0),
	BENCH("engine_kvm_switch", SWITCH, kvm, ENGINES_SWITCH, MANY, 1, 0),
};

int main(int argc, char **argv)
{
	return bench_main(argc, argv, benches, ARRAY_SIZE(benches));
}
