/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Threads get and put, and look at an mm meanwhile, which ends under some of them: whoever
 * drops the last mm_users runs exit, with notifiers that have users still. Whatever was made must
 * be freed, once, and be called by nobody afterwards.
 */
#include "tests/support/got_notifier.h"
#include "tests/support/mm_fixture.h"

#define CHURNERS 3

struct churn {
	struct host h;
	atomic_t arrived;
};

/* Long enough for somebody else to put the last user's share meanwhile. */
static void linger(struct got *got)
{
	expect_eq(READ_ONCE(got->state), GOT_ALIVE);
	sched_yield();
	expect_eq(READ_ONCE(got->state), GOT_ALIVE);
}

static void churn(void *arg)
{
	struct churn *c = arg;
	struct mm_struct *mm = c->h.mm;
	unsigned int n = (unsigned int)atomic_fetch_add(1, &c->arrived);

	for (uint64_t i = 0; i < 8; i++) {
		struct got *got = got_get((n + i) % 2, mm);

		window(mm);
		expect_eq(READ_ONCE(got->state), GOT_ALIVE);
		if (i == 7)
			mmput(mm);
		mmu_notifier_put(&got->mn);
	}
}

TEST(mmu_notifier_churn, leaves_nothing)
{
	uint64_t rounds = test_volume(200);
	struct churn c = {0};

	gots.on_start = linger;
	expect_eq(srcu_workers_start(), 0);
	for (uint64_t i = 0; i < rounds; i++) {
		host_init(&c.h);
		for (int t = 1; t < CHURNERS; t++)
			mmget(c.h.mm);
		test_threads(CHURNERS, churn, &c);
		c.h.mm = NULL;
		host_destroy(&c.h);
		if (i % 16 == 0)
			expect_all_dead();
	}
	srcu_workers_stop();
	expect_all_dead();
	expect_ge(atomic_read(&gots.allocs), 2 * rounds);
}
