// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * What the host mm costs by the page, against the same done by the kernel that we run on, to a
 * mapping of this process. ./dev bench mm.
 *
 * There is no goal. The kernel enters and leaves itself for each page, and has a TLB to flush; ours
 * poisons each page that goes. The ratio is to be watched. The kernel moves pages between nodes
 * only (move_pages), and most machines have one: so what a move cannot do without, the copy of a
 * page and the poison, is what ours is divided by.
 */
#include "tests/bench/mm.h"

enum step { FAULT, READ_FAULT, DROP, UNMAP, PROTECT, FORK, COW, REUSE, MIGRATE };

/* What is timed, between what it needs and what undoes it. */
static void timed_step(const struct mm_place *place, enum step step, uint64_t n)
{
	switch (step) {
	case FAULT:
	case COW:
	case REUSE:
		place->touch(n);
		break;
	case READ_FAULT:
		place->read(n);
		break;
	case DROP:
		place->drop(n);
		break;
	case UNMAP:
		place->unmap(n);
		break;
	case PROTECT:
		place->protect(n, false);
		break;
	case FORK:
		place->fork();
		break;
	case MIGRATE:
		place->migrate(n);
		break;
	}
}

static int sample(const struct bench *b, const struct bench_variant *v, uint64_t n,
		  struct bench_sample *s)
{
	const struct mm_place *place = v->arg;
	enum step step = *(const enum step *)b->arg;
	struct bench_timer timer;

	bench_pin(0);
	place->map(n);
	if (step != FAULT && step != READ_FAULT)
		place->touch(n);
	if (step == COW || step == REUSE)
		place->fork();
	if (step == REUSE)
		place->reap();

	bench_start(&timer, CLOCK_THREAD_CPUTIME_ID);
	timed_step(place, step, n);
	bench_stop(&timer, s);

	if (step == COW || step == FORK)
		place->reap();
	if (step != UNMAP)
		place->unmap(n);
	bench_unpin();
	return 0;
}

static const struct bench_variant kernels[] = {
	{"gnomon", "kernel", &mm_ours},
	{"kernel", "kernel", &mm_kernel},
};

static const struct bench_variant moves[] = {
	{"gnomon", "copies", &mm_ours},
	{"copies", "copies", &mm_copies},
};

#define BENCH(bench_name, about, bench_variants, what_is_timed)                           \
	{                                                                                 \
		.name = bench_name, .what = about, .threads = 1, .unit = 512,             \
		.max = MM_BENCH_PAGES, .arg = &(const enum step){what_is_timed},          \
		.variants = bench_variants, .nr_variants = ARRAY_SIZE(bench_variants),    \
		.setup = mm_bench_setup, .teardown = mm_bench_teardown, .sample = sample, \
	}

static const struct bench benches[] = {
	BENCH("mm_fault_write", "first touch, by a write", kernels, FAULT),
	BENCH("mm_fault_read", "first touch, by a read (the kernel maps its one page of zeroes)",
	      kernels, READ_FAULT),
	BENCH("mm_fork", "fork, by the page that is mapped", kernels, FORK),
	BENCH("mm_cow", "a write behind a fork: a copy", kernels, COW),
	BENCH("mm_cow_alone", "a write behind a fork whose child is gone: in place", kernels,
	      REUSE),
	BENCH("mm_protect", "mprotect to read-only", kernels, PROTECT),
	BENCH("mm_drop", "madvise(MADV_DONTNEED)", kernels, DROP),
	BENCH("mm_munmap", "munmap", kernels, UNMAP),
	BENCH("mm_migrate", "a move to another frame", moves, MIGRATE),
};

int main(int argc, char **argv)
{
	return bench_main(argc, argv, benches, ARRAY_SIZE(benches));
}
