/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the shadow MMU costs. Without hardware its entry points are called as a machine would call
 * them, and the model machine below it has nothing to forget; with /dev/kvm there is a guest that
 * runs. ./dev bench shadow.
 *
 * A file for each kind of guest: shadow_model.c, shadow_kvm.c.
 */
#include <string.h>

#include "tests/bench/shadow.h"
#include "tests/bench/walk.h"

#define MANY (1ULL << 30)

#define SIZE(n)                                         \
	{                                               \
#n, "1000", &(const struct shadow_size) \
		{                                       \
			n                               \
		}                                       \
	}
#define SPREAD(name, nr, step)                                 \
	{                                                      \
		name, "allowed", &(const struct shadow_spread) \
		{                                              \
			nr, step                               \
		}                                              \
	}

/* Where locks are checked, it is only to be seen that they run. */
#ifdef CONFIG_LOCKDEP
#define SOME 1000
static const struct bench_variant sizes[] = {SIZE(1000), SIZE(2000)};
static const struct bench_variant memory[] = {
	{"allowed", "allowed", NULL},
	SPREAD("1000", 1000, 1),
	SPREAD("one-in-2M", 16, 512),
};
#else
#define SOME 100000
static const struct bench_variant sizes[] = {SIZE(1000), SIZE(10000), SIZE(100000), SIZE(1000000)};
static const struct bench_variant memory[] = {
	{"allowed", "allowed", NULL},	SPREAD("1000", 1000, 1),
	SPREAD("10000", 10000, 1),	SPREAD("100000", 100000, 1),
	SPREAD("1000000", 1000000, 1),	SPREAD("one-in-64K", 10000, 16),
	SPREAD("one-in-2M", 1000, 512),
};
#endif

static const struct bench_variant vcpus[] = {{"gnomon", "gnomon", NULL}};

static const struct bench_variant wide[] = {
	{"64K", "64K", &(const uint64_t){SHADOW_WIDE_MAPPED}},
	{"1G", "64K", &(const uint64_t){SHADOW_WIDE_PAGES}},
};

#define KVM(name, op)                                             \
	{                                                         \
		name, "trap+refault", &(const enum shadow_kvm_op) \
		{                                                 \
			op                                        \
		}                                                 \
	}

static const struct bench_variant touch[] = {
	KVM("touch", SHADOW_KVM_TOUCH),	      KVM("touch-new", SHADOW_KVM_TOUCH_NEW),
	KVM("trap", SHADOW_KVM_TRAP),	      KVM("refault", SHADOW_KVM_REFAULT),
	KVM("trap+refault", SHADOW_KVM_BOTH),
};

static const struct bench_variant walk[] = {
	{"guest", "native", NULL},
	{"native", "native", NULL},
	{"anonymous", "native", NULL},
};

/* No guest can be had for less than a trap, and a fault of the host's own. */
static double goal_of_touch(const struct bench *b, const struct bench_variant *v)
{
	(void)b;
	return strncmp(v->name, "touch", 5) == 0 ? 1.2 : 0;
}

/* Of the speed 0.95. With nested paging each miss of a TLB is dearer, which is none of ours. */
static double goal_of_walk(const struct bench *b, const struct bench_variant *v)
{
	(void)b;
	return strcmp(v->name, "guest") == 0 && shadow_kvm_shadowed() ? 1 / 0.95 : 0;
}

static double goal_of_wide(const struct bench *b, const struct bench_variant *v)
{
	(void)b;
	return strcmp(v->name, "1G") == 0 ? 2 : 0;
}

/* Of guests that use their memory. A thousand pages are two tables, and share the first of each
 * level above with nobody. */
static double goal_of_memory(const struct bench *b, const struct bench_variant *v)
{
	const struct shadow_spread *spread = v->arg;

	(void)b;
	return spread && spread->step == 1 && spread->nr > 1000 ? 1 : 0;
}

#define BY_SIZE(bench_name, about, which)                                                          \
	{                                                                                          \
		.name = bench_name, .what = about, .threads = 1, .unit = 128, .max = SHADOW_PAGES, \
		.arg = &(const enum shadow_op){which}, .variants = sizes,                          \
		.nr_variants = ARRAY_SIZE(sizes), .setup = shadow_sizes_setup,                     \
		.teardown = shadow_sizes_teardown, .sample = shadow_sizes_sample,                  \
	}

#define BY_VCPUS(nr, about)                                                                       \
	{                                                                                         \
		.name = "shadow_fault_invlpg", .what = about, .threads = nr, .cpus = nr,          \
		.unit = 1, .max = MANY, .arg = &(const struct shadow_size){SOME},                 \
		.variants = vcpus, .nr_variants = ARRAY_SIZE(vcpus), .setup = shadow_vcpus_setup, \
		.teardown = shadow_vcpus_teardown, .sample = shadow_vcpus_sample,                 \
	}

#define WALK(bench_name, about, job, passes)                                                  \
	{                                                                                     \
		.name = bench_name, .what = about, .threads = 1, .unit = passes, .max = MANY, \
		.arg = &(const enum walk_job){job}, .variants = walk,                         \
		.nr_variants = ARRAY_SIZE(walk), .missing = shadow_kvm_missing,               \
		.setup = shadow_kvm_walk_setup, .teardown = shadow_kvm_teardown,              \
		.sample = shadow_kvm_walk_sample, .goal = goal_of_walk,                       \
	}

static const struct bench benches[] = {
	BY_SIZE("shadow_fault", "a fault that maps a page, by how many pages are mapped already",
		SHADOW_FAULT),
	BY_SIZE("shadow_fault_spurious", "a fault that finds the page mapped", SHADOW_AGAIN),
	BY_SIZE("shadow_zap", "a window over mapped pages, by the page", SHADOW_ZAP),
	BY_SIZE("shadow_young", "has a page been used: by its rmap, to its leaf", SHADOW_YOUNG),
	{
		.name = "shadow_wide",
		.what = "a window in which 16 pages are mapped",
		.threads = 1,
		.unit = 1,
		.max = MANY,
		.variants = wide,
		.nr_variants = ARRAY_SIZE(wide),
		.setup = shadow_wide_setup,
		.teardown = shadow_wide_teardown,
		.sample = shadow_wide_sample,
		.goal = goal_of_wide,
	},
	{
		.name = "shadow_memory",
		.what = "memory for each mapped page, beside the tables",
		.threads = 1,
		.unit = 1,
		.max = 1,
		.bytes = true,
		.variants = memory,
		.nr_variants = ARRAY_SIZE(memory),
		.sample = shadow_memory_sample,
		.goal = goal_of_memory,
	},
	{
		.name = "shadow_touch",
		.what = "on the kvm engine, by the page: a first touch, and what it is made of",
		.threads = 1,
		.unit = 256,
		.max = SHADOW_KVM_MAX,
		.variants = touch,
		.nr_variants = ARRAY_SIZE(touch),
		.missing = shadow_kvm_missing,
		.setup = shadow_kvm_setup,
		.teardown = shadow_kvm_teardown,
		.sample = shadow_kvm_touch_sample,
		.goal = goal_of_touch,
	},
	WALK("shadow_walk", "a word of each line of 256 MiB, all of it touched before", WALK_LINES,
	     4),
	WALK("shadow_walk_pages", "a word of each of its pages, in no order", WALK_PAGES, 32),
	BY_VCPUS(1, "a fault, an edit of the entry and its INVLPG, on one vCPU"),
	BY_VCPUS(2, "the same, on two at the same time"),
	BY_VCPUS(4, "the same, on four"),
};

int main(int argc, char **argv)
{
	return bench_main(argc, argv, benches, ARRAY_SIZE(benches));
}
