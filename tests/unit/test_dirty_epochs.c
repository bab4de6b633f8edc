/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * T-06 on the model machine: two vCPUs and a device write random pages of a slot that is logged,
 * while pages are collected, the host moves them, and another slot comes and goes. The oracles are
 * those of tests/support/dirty_judge.h.
 *
 * Red with one thing taken out: the flush of a harvest, or of a reset of rings; the marks of the
 * fault, of the device; the protection when the log begins. The first of these can be seen here:
 * planted_without_shootdown.
 */
#include <sched.h>

#include "notifier/sync/thread.h"
#include "tests/support/dirty_fixture.h"
#include "tests/support/dirty_judge.h"

#define CPUS	2
#define WRITERS 3 /* the vCPUs, and a device */
#define DEVICE	2
#define STORES	200 /* of each, in each epoch, at least; */
#define BESIDE	3   /* and until so many calls have run beside them */

struct run;

struct writer {
	struct run *run;
	unsigned int nr;
	struct kthread thread;
	uint64_t random;
	uint64_t ring_full;
};

struct run {
	struct guest_mem g;
	struct judge judge;
	struct writer writer[WRITERS];
	struct kthread mover;
	bool silent; /* they do all but store */
	atomic64_t epoch;
	atomic_t writing, calls, stop;
	atomic64_t moved;
};

static uint64_t draw(uint64_t *state)
{
	*state = *state * 6364136223846793005 + 1442695040888963407;
	return *state >> 33;
}

static bool never(void *arg)
{
	return atomic_read(&((struct run *)arg)->stop);
}

static void cpu_store(struct writer *w, gva_t gva, uint64_t word)
{
	struct run *r = w->run;
	struct model_access access = {.op = MODEL_STORE, .gva = gva, .value = word};
	enum ret_pf pf;

	for (;;) {
		pf = model_access_retry(r->g.model, w->nr, r->g.shadow, &access);
		if (pf != RET_PF_DIRTY_RING_FULL)
			break;
		w->ring_full++;
		shadow_wait_dirty_ring(r->g.shadow, w->nr, never, r);
	}
	expect_eq(pf, RET_PF_FIXED);
}

static void write_one(struct writer *w, uint64_t epoch, uint64_t n)
{
	struct run *r = w->run;
	unsigned int page = draw(&w->random) % JUDGE_PAGES;
	uint64_t word = epoch << JUDGE_EPOCH_SHIFT | n << 2 | w->nr;
	uint64_t began = judge_store_begins(&r->judge);

	if (r->silent)
		return;
	if (w->nr == DEVICE)
		expect_eq(shadow_write_gpa(r->g.shadow, judge_gpa(page), &word, sizeof(word)), 0);
	else
		cpu_store(w, judge_gpa(page), word);
	judge_store_is_over(&r->judge, page, began);
}

static void write_epochs(void *arg)
{
	struct writer *w = arg;
	struct run *r = w->run;
	uint64_t epoch = 0;

	for (;;) {
		uint64_t next;

		while ((next = (uint64_t)atomic64_read_acquire(&r->epoch)) == epoch) {
			if (atomic_read(&r->stop))
				return;
			sched_yield();
		}
		epoch = next;
		for (uint64_t n = 0; n < STORES || atomic_read(&r->calls) < BESIDE; n++)
			write_one(w, epoch, n);
		atomic_dec_return(&r->writing);
	}
}

/* The host moves the pages, all the time. */
static void move_pages(void *arg)
{
	struct run *r = arg;
	uint64_t random = 7;

	while (!atomic_read(&r->stop)) {
		gpa_t gpa = judge_gpa(draw(&random) % (JUDGE_PAGES - 8));
		long moved = mm_migrate_range(r->g.mm, guest_hva(gpa), 8 * PAGE_SIZE);

		if (moved > 0)
			atomic64_add(moved, &r->moved);
		sched_yield();
	}
}

static void run_init(struct run *r, enum judge_mode mode, unsigned int broken)
{
	const struct guest_mem_config config = {.nr_cpus = CPUS, .nr_pages = 512, .broken = broken};

	memslot_fixture(&r->g, &config);
	judge_init(&r->judge, r->g.shadow, mode, r->g.nr_pages, CPUS);
	r->silent = false;
	atomic64_set(&r->epoch, 0);
	atomic64_set(&r->moved, 0);
	atomic_set(&r->writing, 0);
	atomic_set(&r->calls, 0);
	atomic_set(&r->stop, 0);
	/* There before the log is, and writable. */
	for (unsigned int i = 0; i < JUDGE_PAGES; i++)
		guest_store(&r->g, i % CPUS, judge_gpa(i), 0);
	expect_eq(log_ram(&r->g, true), 0);
	judge_begin(&r->judge);
	for (unsigned int i = 0; i < WRITERS; i++) {
		r->writer[i] = (struct writer){.run = r, .nr = i, .random = 100 * mode + i};
		expect_eq(kthread_run(&r->writer[i].thread, "writer", write_epochs, &r->writer[i]),
			  0);
	}
}

static void one_epoch(struct run *r, uint64_t epoch)
{
	atomic_set(&r->calls, 0);
	atomic_set(&r->writing, WRITERS);
	atomic64_set_release(&r->epoch, (int64_t)epoch);
	while (atomic_read_acquire(&r->writing)) {
		judge_collect(&r->judge, true);
		atomic_inc(&r->calls);
	}
	judge_epoch(&r->judge, epoch);
}

static void run_done(struct run *r)
{
	atomic_set(&r->stop, 1);
	shadow_wake_dirty_ring(r->g.shadow);
	for (unsigned int i = 0; i < WRITERS; i++)
		kthread_join(&r->writer[i].thread);
}

static void epochs(enum judge_mode mode)
{
	const uint64_t nr = test_long() ? 2000 : 60;
	const char *wrong;
	struct run r;

	run_init(&r, mode, 0);
	expect_eq(kthread_run(&r.mover, "mover", move_pages, &r), 0);
	for (uint64_t epoch = 1; epoch <= nr; epoch++) {
		if (epoch % 8 == 0)
			expect_eq(place(&r.g, SLOT_GFN), 0);
		one_epoch(&r, epoch);
		if (epoch % 8 == 7 && epoch > 8)
			expect_eq(delete_slot(&r.g, SLOT), 0);
	}
	run_done(&r);
	kthread_join(&r.mover);
	wrong = judge_verdict(&r.judge, nr, nr * WRITERS * STORES, nr * BESIDE);
	if (wrong)
		fail("%s", wrong);
	expect_ge(atomic64_read(&r.moved), nr);
	if (mode == JUDGE_RING)
		expect_ge(r.writer[0].ring_full + r.writer[1].ring_full, nr / 10);
	memslot_fixture_done(&r.g);
}

TEST(dirty_epochs, bitmap)
{
	epochs(JUDGE_BITMAP);
}

TEST(dirty_epochs, manual_protect)
{
	epochs(JUDGE_MANUAL);
}

TEST(dirty_epochs, initially_set)
{
	epochs(JUDGE_INITIALLY_SET);
}

TEST(dirty_epochs, ring)
{
	epochs(JUDGE_RING);
}

/* ---- the judge is judged ---- */

/* CPUs are not told that they lost the right to store: pages that were written are missed. */
TEST(dirty_epochs, planted_without_shootdown)
{
	for (enum judge_mode mode = 0; mode < NR_JUDGE_MODES; mode++) {
		struct run r;

		run_init(&r, mode, SHADOW_BREAK_SHOOTDOWN);
		for (uint64_t epoch = 1; epoch <= 10; epoch++)
			one_epoch(&r, epoch);
		run_done(&r);
		expect(judge_verdict(&r.judge, 0, 0, 0));
		expect_ge(r.judge.missed, 1);
		expect_ge(r.judge.stale, 1);
		expect_ge(r.judge.late, 1);
		guest_mem_destroy(&r.g);
	}
}

/* Nobody stores: nothing is wrong, and that is not enough. */
TEST(dirty_epochs, planted_silent_guest)
{
	struct run r;

	run_init(&r, JUDGE_BITMAP, 0);
	r.silent = true;
	for (uint64_t epoch = 1; epoch <= 3; epoch++)
		one_epoch(&r, epoch);
	run_done(&r);
	expect_str_contains(judge_verdict(&r.judge, 3, 3 * WRITERS * STORES, 3), "too little");
	memslot_fixture_done(&r.g);
}
