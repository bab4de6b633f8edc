/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What is timed, in guests of so many mapped pages; and what is done before and after. */
#include <stdlib.h>

#include "tests/bench/shadow.h"

/* ---- by the number of live pages ---- */

static struct shadow_guest by_size[SHADOW_SIZES];

int shadow_sizes_setup(const struct bench *b)
{
	for (size_t i = 0; i < b->nr_variants; i++) {
		const struct shadow_size *size = b->variants[i].arg;
		int ret = shadow_guest_init(&by_size[i], size->nr_live);

		if (ret) {
			while (i--)
				shadow_guest_destroy(&by_size[i]);
			return ret;
		}
		shadow_guest_live(&by_size[i]);
	}
	return 0;
}

void shadow_sizes_teardown(const struct bench *b)
{
	for (size_t i = 0; i < b->nr_variants; i++)
		shadow_guest_destroy(&by_size[i]);
}

static void op_once(struct shadow_guest *guest, enum shadow_op op, uint64_t n)
{
	const hva_t start = SHADOW_HVA + (guest->nr_live << PAGE_SHIFT);

	switch (op) {
	case SHADOW_ZAP:
		shadow_window(guest, guest->nr_live, n);
		break;
	case SHADOW_FAULT:
		for (uint64_t i = 0; i < n; i++)
			shadow_fault_in(guest, 0, guest->nr_live + i);
		break;
	case SHADOW_AGAIN:
		for (uint64_t i = 0; i < n; i++)
			shadow_fault_again(guest, 0, guest->nr_live + i);
		break;
	case SHADOW_YOUNG:
		for (uint64_t i = 0; i < n; i++)
			if (!mmu_notifier_test_young(guest->mm, start + (i << PAGE_SHIFT)))
				abort();
		break;
	}
}

int shadow_sizes_sample(const struct bench *b, const struct bench_variant *v, uint64_t n,
			struct bench_sample *s)
{
	struct shadow_guest *guest = &by_size[v - b->variants];
	const enum shadow_op op = *(const enum shadow_op *)b->arg;
	struct bench_timer timer;

	bench_pin(0);
	/* Tables are there, and empty; all but faults find the pages mapped. */
	shadow_fault_in(guest, 0, guest->nr_live);
	shadow_window(guest, guest->nr_live, SHADOW_PAGES);
	if (op != SHADOW_FAULT)
		op_once(guest, SHADOW_FAULT, n);
	bench_start(&timer, CLOCK_THREAD_CPUTIME_ID);
	op_once(guest, op, n);
	bench_stop(&timer, s);
	shadow_window(guest, guest->nr_live, SHADOW_PAGES);
	bench_unpin();
	return 0;
}

/* ---- by the number of vCPUs ---- */

static struct shadow_guest shared;
static unsigned int next_vcpu;
static __thread unsigned int my_vcpu;

int shadow_vcpus_setup(const struct bench *b)
{
	int ret = shadow_guest_init(&shared, ((const struct shadow_size *)b->arg)->nr_live);

	if (!ret)
		shadow_guest_live(&shared);
	return ret;
}

void shadow_vcpus_teardown(const struct bench *b)
{
	(void)b;
	shadow_guest_destroy(&shared);
}

static void vcpu_enter(void)
{
	my_vcpu = __atomic_fetch_add(&next_vcpu, 1, __ATOMIC_SEQ_CST) % SHADOW_VCPUS;
}

/* Each its own pages, in tables of their own. */
static void vcpu_loop(uint64_t n)
{
	uint64_t first = shared.nr_live + my_vcpu * SHADOW_PAGES;

	for (uint64_t i = 0; i < n; i++) {
		uint64_t page = first + i % SHADOW_PAGES;

		shadow_fault_in(&shared, my_vcpu, page);
		shadow_invlpg(shared.shadow, my_vcpu, page << PAGE_SHIFT);
	}
}

static void vcpu_leave(void)
{
}

int shadow_vcpus_sample(const struct bench *b, const struct bench_variant *v, uint64_t n,
			struct bench_sample *s)
{
	/* By the wall: one who waits for mmu_lock may be asleep. */
	static const struct bench_job job = {.enter = vcpu_enter,
					     .loop = vcpu_loop,
					     .leave = vcpu_leave,
					     .clock = CLOCK_MONOTONIC,
					     .unit = 1};

	(void)v;
	next_vcpu = 0;
	return bench_parallel(&job, b->threads, n, s);
}

/* ---- a wide range with few pages ---- */

int shadow_wide_setup(const struct bench *b)
{
	(void)b;
	return shadow_guest_init(&shared, SHADOW_WIDE_PAGES);
}

void shadow_wide_teardown(const struct bench *b)
{
	(void)b;
	shadow_guest_destroy(&shared);
}

int shadow_wide_sample(const struct bench *b, const struct bench_variant *v, uint64_t n,
		       struct bench_sample *s)
{
	const uint64_t pages = *(const uint64_t *)v->arg;
	struct bench_timer timer;
	double ns = 0;

	(void)b;
	bench_pin(0);
	bench_start(&timer, CLOCK_MONOTONIC);
	for (uint64_t round = 0; round < n; round++) {
		uint64_t start;

		for (uint64_t i = 0; i < SHADOW_WIDE_MAPPED; i++)
			shadow_fault_in(&shared, 0, i * (pages / SHADOW_WIDE_MAPPED));
		start = bench_now(CLOCK_MONOTONIC);
		shadow_window(&shared, 0, pages);
		ns += (double)(bench_now(CLOCK_MONOTONIC) - start);
	}
	bench_stop(&timer, s); /* for whether it was disturbed */
	s->ns = ns;
	bench_unpin();
	return 0;
}
