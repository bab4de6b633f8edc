/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * [wake] (notifier/srcu_gp.c) from both ends, without luck: an unlock counts and then looks who
 * waits; who goes to sleep says so, passes the heavy barrier, and looks at the counts.
 */
#include "tests/support/srcu_probe.h"
#include "tests/support/step.h"
#include "tests/support/test.h"

static void behind_barrier(void);

#define srcu_heavy_barrier() ((srcu_heavy_barrier)(), behind_barrier())
#include "notifier/srcu_gp.c"
#undef srcu_heavy_barrier

static struct srcu_struct srcu;
static int cookie;	   /* of the one who is inside */
static bool waited_for_it; /* when the last barrier was passed */

static bool waits_for_it(void)
{
	return READ_ONCE(__srcu_waiting[srcu_cookie_offset(cookie)]);
}

static void behind_barrier(void)
{
	waited_for_it = waits_for_it();
}

/*
 * A reader whose unlock comes behind the barrier finds that somebody sleeps; one that came before
 * it is in the sums. In between there is nobody, if it is said before the barrier.
 */
TEST(srcu_wake, said_before_the_barrier)
{
	unsigned long snap;

	expect_eq(init_srcu_struct(&srcu), 0);
	cookie = srcu_down_read(&srcu);
	snap = srcu_snap(srcu.d);
	expect(!srcu_advance(srcu.d, snap, true));
	expect(waits_for_it());
	expect(waited_for_it);
	srcu_up_read(&srcu, cookie);
	expect(srcu_advance(srcu.d, snap, false));
	expect_eq(cleanup_srcu_struct(&srcu), 0);
}

static unsigned int goes_to_sleep_at;

static void go_to_sleep(struct step *step)
{
	if (step->nr != goes_to_sleep_at)
		return;
	step->over = true;
	srcu_advance(srcu.d, *(unsigned long *)step->arg, true);
}

/* Somebody goes to sleep between two instructions of an unlock, each in turn: he is woken. */
TEST(srcu_wake, at_each_step_of_an_unlock)
{
	unsigned long snap;
	struct step step = {.at_each = go_to_sleep, .arg = &snap};

	step_skip();
	expect_eq(init_srcu_struct(&srcu), 0);
	do {
		cookie = srcu_read_lock(&srcu);
		snap = srcu_snap(srcu.d);
		goes_to_sleep_at++;
		step_begin(&step);
		srcu_read_unlock(&srcu, cookie);
		step_end();
		expect(!waits_for_it());
		expect(srcu_advance(srcu.d, snap, false));
	} while (step.nr >= goes_to_sleep_at);
	expect_ge(goes_to_sleep_at, 4);
	expect_eq(cleanup_srcu_struct(&srcu), 0);
}
