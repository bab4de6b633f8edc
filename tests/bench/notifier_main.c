/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What notifiers cost: whoever changes memory, whoever comes and goes. ./dev bench notifier.
 */
#include <errno.h>
#include <math.h>
#include <string.h>

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

/* ---- who is measured, and by whom ---- */

static const struct bench_variant unwatched[] = {
	{"fill", "urcu-memb", &notifier_fill},
	{"gnomon", "urcu-memb", &notifier_window},
#ifdef BENCH_URCU
	{"urcu-memb", "urcu-memb", &notifier_urcu},
#endif
};

static const struct bench_variant watched[] = {
	{"gnomon", "walk-in-srcu", &notifier_window},
	{"walk-in-srcu", "walk-in-srcu", &notifier_walk_in_srcu},
	{"walk", "walk-in-srcu", &notifier_walk},
	{"inlined", "walk-in-srcu", &notifier_inlined},
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

static const struct bench_variant snapshots[] = {
	{"gnomon", "walk", &notifier_snapshot},
	{"walk", "walk", &notifier_pgtable_walk},
};

static const struct bench_variant faulters[] = {
	{"gnomon", "mm-fault", &notifier_fault_in},
	{"mm-fault", "mm-fault", &notifier_mm_faults},
};

#define MEETING(nr, met) (&(const struct notifier_meeting){nr, met})

/* Where locks are checked, it is only to be seen that they run. */
#ifdef CONFIG_LOCKDEP
#define SOME 2000
#define MANY_MEETING(first, met)
#else
#define SOME 100000
#define MANY_MEETING(first, met) \
	{"100000", #first, MEETING(100000, met)}, {"1000000", #first, MEETING(1000000, met)},
#endif
#define ALL_MEETING(first, met)                                                      \
	{#first, #first, MEETING(first, met)}, {"1000", #first, MEETING(1000, met)}, \
		MANY_MEETING(first, met)

static const struct bench_variant meeting_none[] = {ALL_MEETING(10, 0)};
static const struct bench_variant meeting_one[] = {ALL_MEETING(10, 1)};
static const struct bench_variant meeting_100[] = {ALL_MEETING(100, 100)};

static const struct bench_variant meeting_more[] = {
	{"1", "1", MEETING(SOME, 1)},
	{"10", "1", MEETING(SOME, 10)},
	{"100", "1", MEETING(SOME, 100)},
	{"1000", "1", MEETING(SOME, 1000)},
};

/* ---- what it is to cost at most ---- */

static double goal_of_gnomon(const struct bench *b, const struct bench_variant *v)
{
	return strcmp(v->name, "gnomon") == 0 ? ((const struct notifier_case *)b->arg)->goal : 0;
}

/* It may grow with the log of how many intervals there are, and with how many of them it meets. */
static double goal_of_intervals(const struct bench *b, const struct bench_variant *v)
{
	const struct notifier_meeting *base = b->variants[0].arg, *m = v->arg;

	if (m == base)
		return 0;
	return base->met == m->met ? log(m->nr) / log(base->nr) : (double)m->met / base->met;
}

#define BENCH(bench_name, about, bench_variants, bench_unit, bench_max, family, fn, fn_goal, ...) \
	{                                                                                         \
		.name = bench_name, .what = about, .threads = 1, .unit = bench_unit,              \
		.max = bench_max, .arg = &(const struct notifier_case){__VA_ARGS__},              \
		.variants = bench_variants, .nr_variants = ARRAY_SIZE(bench_variants),            \
		.setup = notifier_##family##_setup, .teardown = notifier_##family##_teardown,     \
		.sample = fn, .goal = fn_goal,                                                    \
	}

#define WINDOW(nr, variants, unit, goal, about)                                             \
	BENCH("notifier_window_" #nr, about, variants, unit, MANY, window, notifier_sample, \
	      goal_of_gnomon, nr, goal)
#define REGISTER(nr, about) \
	BENCH("notifier_register_" #nr, about, comers, 1, MANY, users, notifier_sample, NULL, nr, 0)
#define INTERVALS(name, variants, about)                                     \
	BENCH("notifier_interval_" name, about, variants, 1, MANY, interval, \
	      notifier_interval_sample, goal_of_intervals, 0, 0)
#define SNAPSHOT(nr, about)                                                                   \
	BENCH("hmm_snapshot_" #nr, about, snapshots, nr, MANY, hmm, notifier_snapshot_sample, \
	      goal_of_gnomon, nr, 2.5)
/* All pages in each sample, that all of them use the same frames. */
#define FAULT(nr, about)                                                                      \
	BENCH("hmm_fault_" #nr, about, faulters, NOTIFIER_HMM_PAGES, NOTIFIER_HMM_PAGES, hmm, \
	      notifier_fault_sample, goal_of_gnomon, nr, 1.2)

static const struct bench benches[] = {
	WINDOW(0, unwatched, 1024, 1,
	       "fill in a range; start and end of a window of it, that nobody ever subscribed to "
	       "(urcu-memb: a read pair, inline)"),
	WINDOW(1, watched, 64, 1.3,
	       "the same, with a subscriber (walk: a loop over the list; in-srcu: and two pairs; "
	       "inlined: with no call)"),
	WINDOW(8, watched, 64, 1.3, "the same, with 8"),
	WINDOW(64, watched, 16, 1.3, "the same, with 64"),
	WINDOW(1024, watched, 1, 1.3, "the same, with 1024"),
	REGISTER(1, "register and unregister; the mm has one area"),
	REGISTER(100, "the same, 100"),
#ifndef CONFIG_LOCKDEP
	REGISTER(10000, "the same, 10000"),
#endif
	BENCH("notifier_get",
	      "get and put of what somebody has already; of what nobody has; register", getters, 1,
	      MANY, users, notifier_sample, NULL, 1, 0),
	INTERVALS("0", meeting_none, "a window that meets no interval, by how many there are"),
	INTERVALS("1", meeting_one, "a window that meets one"),
	INTERVALS("100", meeting_100, "a window that meets 100"),
	INTERVALS("met", meeting_more, "a window over many intervals, by how many it meets"),
	SNAPSHOT(1, "hmm_range_fault() of a page that is there (walk: over the same entries)"),
	SNAPSHOT(16, "the same, a page of 16"),
	SNAPSHOT(256, "the same, a page of 256"),
	SNAPSHOT(4096, "the same, a page of 4096"),
	FAULT(1, "hmm_range_fault() of a page that is wanted and not there (mm-fault: the fault)"),
	FAULT(16, "the same, a page of 16"),
	FAULT(256, "the same, a page of 256"),
	FAULT(4096, "the same, a page of 4096"),
};

int main(int argc, char **argv)
{
	return bench_main(argc, argv, benches, ARRAY_SIZE(benches));
}
