/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What notifiers cost: whoever changes memory, whoever comes and goes. ./dev bench notifier.
 */
#include <errno.h>

#include "tests/bench/notifier.h"

#define MANY (1ULL << 30)

int notifier_host_init(struct notifier_host *host, unsigned int nr_vmas)
{
	int ret = phys_create(&host->phys, 16);

	if (ret)
		return ret;
	host->mm = mm_alloc(host->phys);
	ret = host->mm ? 0 : -ENOMEM;
	for (unsigned int i = 0; i < nr_vmas && !ret; i++)
		ret = mm_mmap(host->mm, NOTIFIER_HVA + 2 * PAGE_SIZE * i, PAGE_SIZE,
			      MM_PROT_READ | MM_PROT_WRITE, NULL, 0);
	if (ret)
		notifier_host_destroy(host);
	return ret;
}

void notifier_host_destroy(struct notifier_host *host)
{
	if (host->mm)
		mmput(host->mm);
	phys_destroy(host->phys);
	*host = (struct notifier_host){NULL, NULL};
}

int notifier_sample(const struct bench *b, const struct bench_variant *v, uint64_t n,
		    struct bench_sample *s)
{
	const struct notifier_op *op = v->arg;
	struct bench_timer timer;

	bench_pin(0);
	op->loop(b->unit);
	bench_start(&timer, CLOCK_THREAD_CPUTIME_ID);
	op->loop(n);
	bench_stop(&timer, s);
	bench_unpin();
	return 0;
}

static const unsigned int numbers[] = {0, 1, 8, 10, 64, 100, 1000, 1024, 10000, 100000, 1000000};
enum { N0, N1, N8, N10, N64, N100, N1000, N1024, N10000, N100000, N1000000 };

/* "left": there was one. */
static const struct bench_variant unwatched[] = {
	{"gnomon", "urcu-memb", &notifier_window},
#ifdef BENCH_URCU
	{"urcu-memb", "urcu-memb", &notifier_urcu},
#endif
};

static const struct bench_variant watched[] = {
	{"gnomon", "walk-in-srcu", &notifier_window},
	{"walk-in-srcu", "walk-in-srcu", &notifier_walk_in_srcu},
	{"walk", "walk-in-srcu", &notifier_walk},
};

static const struct bench_variant comers[] = {
	{"gnomon", "all-locks", &notifier_register},
	{"all-locks", "all-locks", &notifier_all_locks},
};

static const struct bench_variant getters[] = {
	{"get-put", "register", &notifier_get_put},
	{"get-put-last", "register", &notifier_get_put_last},
	{"register", "register", &notifier_register},
};

static const struct bench_variant few_intervals[] = {
	{"10", "10", &numbers[N10]},
	{"1000", "10", &numbers[N1000]},
#ifndef CONFIG_LOCKDEP /* there it is only to be seen that it runs */
	{"100000", "10", &numbers[N100000]},
	{"1000000", "10", &numbers[N1000000]},
#endif
};

static const struct bench_variant many_intervals[] = {
	{"100", "100", &numbers[N100]},
	{"1000", "100", &numbers[N1000]},
#ifndef CONFIG_LOCKDEP
	{"100000", "100", &numbers[N100000]},
	{"1000000", "100", &numbers[N1000000]},
#endif
};

#define BENCH(bench_name, number, bench_variants, family, bench_sample_fn, bench_unit, about)     \
	{                                                                                         \
		.name = bench_name, .what = about, .threads = 1, .unit = bench_unit, .max = MANY, \
		.arg = &numbers[number], .variants = bench_variants,                              \
		.nr_variants = ARRAY_SIZE(bench_variants), .setup = notifier_##family##_setup,    \
		.teardown = notifier_##family##_teardown, .sample = bench_sample_fn,              \
	}

static const struct bench benches[] = {
	BENCH("notifier_window_0", N0, unwatched, window, notifier_sample, 1024,
	      "start and end of a window; nobody ever subscribed (urcu-memb: a read pair, inline)"),
	BENCH("notifier_window_1", N1, watched, window, notifier_sample, 64,
	      "the same, with a subscriber (walk-in-srcu: a loop over the list, and two pairs)"),
	BENCH("notifier_window_8", N8, watched, window, notifier_sample, 64, "the same, with 8"),
	BENCH("notifier_window_64", N64, watched, window, notifier_sample, 16, "the same, with 64"),
	BENCH("notifier_window_1024", N1024, watched, window, notifier_sample, 1,
	      "the same, with 1024"),
	BENCH("notifier_register_1", N1, comers, users, notifier_sample, 1,
	      "register and unregister; the mm has one area"),
	BENCH("notifier_register_100", N100, comers, users, notifier_sample, 1, "the same, 100"),
#ifndef CONFIG_LOCKDEP
	BENCH("notifier_register_10000", N10000, comers, users, notifier_sample, 1,
	      "the same, 10000"),
#endif
	BENCH("notifier_get", N1, getters, users, notifier_sample, 1,
	      "get and put of what somebody has already; of what nobody has; register"),
	BENCH("notifier_interval_0", N0, few_intervals, interval, notifier_interval_sample, 1,
	      "a window that meets no interval, by how many there are"),
	BENCH("notifier_interval_1", N1, few_intervals, interval, notifier_interval_sample, 1,
	      "a window that meets one"),
	BENCH("notifier_interval_100", N100, many_intervals, interval, notifier_interval_sample, 1,
	      "a window that meets 100"),
};

int main(int argc, char **argv)
{
	return bench_main(argc, argv, benches, ARRAY_SIZE(benches));
}
