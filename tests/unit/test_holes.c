/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Waiting for what was taken for a while: who waits is woken, who need not wait does not, and who
 * ran into something else is told so.
 */
#include <unistd.h>

#include "notifier/sync/thread.h"
#include "tests/support/asleep.h"
#include "tests/support/mm_fixture.h"
#include "tests/support/test.h"
#include "vmm/holes.h"

#define HVA 0x10000000UL
#define LEN (4 * PAGE_SIZE)

static bool never(void *arg)
{
	(void)arg;
	return false;
}

static bool flagged(void *arg)
{
	return READ_ONCE(*(bool *)arg);
}

struct waiter {
	struct holes *holes;
	uint64_t seq;
	hva_t hva; /* INVALID_HVA: for memory */
	bool flag; /* give up */
	struct kthread thread;
	atomic_t tid, done;
	bool result;
};

static void wait_thread(void *arg)
{
	struct waiter *w = arg;

	atomic_set_release(&w->tid, gettid());
	w->result = w->hva == INVALID_HVA ? holes_wait_memory(w->holes, w->seq, flagged, &w->flag)
					  : holes_wait(w->holes, w->seq, w->hva, flagged, &w->flag);
	atomic_set_release(&w->done, 1);
}

/* Returns when the thread sleeps. */
static void start_waiter(struct waiter *w, struct holes *holes, hva_t hva)
{
	*w = (struct waiter){.holes = holes, .seq = holes_seq(holes), .hva = hva};
	expect_eq(kthread_run(&w->thread, "waiter", wait_thread, w), 0);
	while (!atomic_read_acquire(&w->tid))
		sched_yield();
	until_asleep(atomic_read(&w->tid));
	expect_eq(atomic_read(&w->done), 0);
}

TEST(holes, do_not_overlap)
{
	struct hole a, b, c;
	struct holes holes;

	holes_init(&holes);
	expect(hole_open(&holes, &a, HVA, HVA + LEN));
	expect(!hole_open(&holes, &b, HVA, HVA + LEN));
	expect(!hole_open(&holes, &b, HVA - PAGE_SIZE, HVA + PAGE_SIZE));
	expect(!hole_open(&holes, &b, HVA + LEN - PAGE_SIZE, HVA + LEN + PAGE_SIZE));
	expect(!hole_open(&holes, &b, HVA - PAGE_SIZE, HVA + LEN + PAGE_SIZE));
	expect(hole_open(&holes, &b, HVA - PAGE_SIZE, HVA));
	expect(hole_open(&holes, &c, HVA + LEN, HVA + LEN + PAGE_SIZE));
	hole_close(&holes, &a);
	expect(hole_open(&holes, &a, HVA + PAGE_SIZE, HVA + LEN));
	hole_close(&holes, &c);
	hole_close(&holes, &a);
	hole_close(&holes, &b);
}

/* An access that was refused where no hole is, and while none was closed, is on its own. */
TEST(holes, other_refusals_are_not_explained)
{
	struct holes holes;
	struct hole hole;
	uint64_t seq;

	holes_init(&holes);
	expect(!holes_wait(&holes, holes_seq(&holes), HVA, never, NULL));
	expect(!holes_wait_memory(&holes, holes_seq(&holes), never, NULL));
	expect(hole_open(&holes, &hole, HVA, HVA + LEN));
	seq = holes_seq(&holes);
	expect(!holes_wait(&holes, seq, HVA - 1, never, NULL));
	expect(!holes_wait(&holes, seq, HVA + LEN, never, NULL));
	expect(!holes_wait_memory(&holes, seq, never, NULL));
	hole_close(&holes, &hole);
	expect_eq(atomic64_read(&holes.nr_waits), 0);
	expect_eq(atomic64_read(&holes.nr_memory_waits), 0);
}

/* The ladder of holes.h: without the look at seq this access would be told that it is on its own.
 */
TEST(holes, closed_between_the_access_and_the_wait)
{
	struct holes holes;
	struct hole hole;
	uint64_t seq;

	holes_init(&holes);
	seq = holes_seq(&holes);
	expect(hole_open(&holes, &hole, HVA, HVA + LEN));
	/* Here the access is refused. */
	hole_close(&holes, &hole);
	expect(holes_wait(&holes, seq, HVA, never, NULL));
	/* It is tried again, and refused again: that was not the hole. */
	expect(!holes_wait(&holes, holes_seq(&holes), HVA, never, NULL));

	seq = holes_seq(&holes);
	expect(hoard_begin(&holes));
	hoard_end(&holes);
	expect(holes_wait_memory(&holes, seq, never, NULL));
	expect(!holes_wait_memory(&holes, holes_seq(&holes), never, NULL));
}

TEST(holes, wakes_who_waits)
{
	struct waiter first, last;
	struct holes holes;
	struct hole hole;

	holes_init(&holes);
	expect(hole_open(&holes, &hole, HVA, HVA + LEN));
	start_waiter(&first, &holes, HVA);
	start_waiter(&last, &holes, HVA + LEN - 1);
	hole_close(&holes, &hole);
	kthread_join(&first.thread);
	kthread_join(&last.thread);
	expect(first.result && last.result);
	expect_eq(atomic64_read(&holes.nr_waits), 2);
}

TEST(holes, gives_up_when_told)
{
	struct holes holes;
	struct waiter w;
	struct hole hole;

	holes_init(&holes);
	expect(hole_open(&holes, &hole, HVA, HVA + LEN));
	expect(hoard_begin(&holes));
	for (int memory = 0; memory < 2; memory++) {
		start_waiter(&w, &holes, memory ? INVALID_HVA : HVA);
		WRITE_ONCE(w.flag, true);
		holes_wake(&holes);
		kthread_join(&w.thread);
		expect(w.result); /* to be looked at again, by somebody who has other things to do
				   */
	}
	hoard_end(&holes);
	hole_close(&holes, &hole);
}

/* Who waits for memory has all who hoard give back, and nobody begins to hoard meanwhile. */
TEST(holes, memory_is_wanted_until_all_is_given_back)
{
	struct holes holes;
	struct waiter w;

	holes_init(&holes);
	expect(hoard_begin(&holes));
	expect(hoard_begin(&holes));
	expect(!hoard_wanted(&holes));
	start_waiter(&w, &holes, INVALID_HVA);
	expect(hoard_wanted(&holes));
	expect(!hoard_begin(&holes));
	hoard_end(&holes);
	/* That may be enough: it tries. */
	kthread_join(&w.thread);
	expect(w.result);
	expect(!hoard_begin(&holes));
	hoard_end(&holes);
	expect(!hoard_wanted(&holes));
	expect(hoard_begin(&holes));
	hoard_end(&holes);
}

/* ---- at random: an access that fails in a hole, and only there ---- */

struct world {
	struct holes holes;
	uint32_t reachable[8]; /* pages: what the mm would say */
	bool stop;
	atomic_t accesses, seed;
};

static void make_holes(void *arg)
{
	struct world *world = arg;
	uint64_t random = atomic_inc_return(&world->seed);

	while (!READ_ONCE(world->stop)) {
		unsigned int page, nr;
		struct hole hole;

		random = random * 6364136223846793005ULL + 1442695040888963407ULL;
		page = random >> 61;
		nr = 1 + (random >> 40) % (8 - page);
		if (!hole_open(&world->holes, &hole, HVA + page * PAGE_SIZE,
			       HVA + (page + nr) * PAGE_SIZE))
			continue;
		for (unsigned int i = 0; i < nr; i++)
			WRITE_ONCE(world->reachable[page + i], false);
		sched_yield();
		for (unsigned int i = 0; i < nr; i++)
			WRITE_ONCE(world->reachable[page + i], true);
		hole_close(&world->holes, &hole);
	}
}

/* As a vCPU does. */
static void access_page(struct world *world, unsigned int page)
{
	for (;;) {
		uint64_t seq = holes_seq(&world->holes);

		if (READ_ONCE(world->reachable[page]))
			break;
		expect(holes_wait(&world->holes, seq, HVA + page * PAGE_SIZE, never, NULL));
	}
	atomic_inc(&world->accesses);
}

static void access_pages(void *arg)
{
	struct world *world = arg;

	for (uint64_t i = 0; i < test_volume(20000) || atomic64_read(&world->holes.nr_waits) < 100;
	     i++)
		access_page(world, i % 8);
}

TEST(holes, no_access_is_told_that_it_is_on_its_own)
{
	struct kthread makers[2];
	struct world world = {0};

	holes_init(&world.holes);
	for (unsigned int i = 0; i < 8; i++)
		world.reachable[i] = true;
	for (unsigned int i = 0; i < 2; i++)
		expect_eq(kthread_run(&makers[i], "holes", make_holes, &world), 0);
	test_threads(2, access_pages, &world);
	WRITE_ONCE(world.stop, true);
	for (unsigned int i = 0; i < 2; i++)
		kthread_join(&makers[i]);
	expect_ge(atomic_read(&world.accesses), 2 * test_volume(20000));
}
