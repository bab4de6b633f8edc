// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * The programs that schedules are made of. Built as the libraries are: with hooks, and marked by
 * the compiler.
 */
#include "tests/hooks/programs.h"

#include <errno.h>
#include <string.h>

#include <gnomon/mm.h>
#include <gnomon/mmu_notifier.h>
#include <gnomon/srcu.h>

#include "notifier/sync/alloc.h"
#include "notifier/sync/lock.h"
#include "notifier/sync/thread.h"
#include "notifier/sync/util.h"
#include "notifier/sync/wait.h"
#include "tests/hooks/sched.h"

static bool right; /* which of the two this schedule is of; set before there are threads */

static void start(struct kthread *t, void (*fn)(void *arg))
{
	sched_expect(kthread_run(t, "thread", fn, NULL) == 0);
}

static void run_two(void (*first)(void *arg), void (*second)(void *arg))
{
	struct kthread a, b;

	start(&a, first);
	start(&b, second);
	kthread_join(&a);
	kthread_join(&b);
}

/* ---- check, then act: with the lock, and without ---- */

static DEFINE_MUTEX(once_lock);
static int *once;
static atomic_t nr_made;

static void make_once(void *unused)
{
	(void)unused;
	if (right)
		mutex_lock(&once_lock);
	if (!READ_ONCE(once)) {
		WRITE_ONCE(once, (int *)kzalloc(sizeof(*once), GFP_KERNEL));
		atomic_inc(&nr_made);
	}
	if (right)
		mutex_unlock(&once_lock);
}

static void check_then_act(void)
{
	run_two(make_once, make_once);
	sched_expect(atomic_read(&nr_made) == 1);
	kfree(once);
}

/* ---- a wake-up between the look and the sleep ---- */

static DECLARE_WAIT_QUEUE_HEAD(bell);
static uint32_t rung;

static void wait_for_bell(void *unused)
{
	(void)unused;
	if (right) {
		wait_event(bell, smp_load_acquire(&rung));
	} else if (!smp_load_acquire(&rung)) {
		uint32_t seq = wait_prepare(&bell);

		wait_sleep(&bell, seq, NULL);
		wait_finish(&bell);
	}
}

static void ring(void *unused)
{
	(void)unused;
	smp_store_release(&rung, 1);
	wake_up_all(&bell);
}

static void lost_wake_up(void)
{
	run_two(wait_for_bell, ring);
}

/* The time of a wait passes only when nothing else can happen: so this one is never late. */
static void wait_a_year(void *unused)
{
	(void)unused;
	sched_expect(wait_event_timeout(bell, smp_load_acquire(&rung), 365ul * 86400000));
}

static void ring_or_not(void *unused)
{
	if (right)
		ring(unused);
}

static void timeout(void)
{
	run_two(wait_a_year, ring_or_not);
}

/* ---- freed under a reader ---- */

struct thing {
	int value;
	struct srcu_head head;
};

static struct srcu_struct srcu;
static struct thing *shared;

static void publish_thing(void)
{
	struct thing *thing = kzalloc(sizeof(*thing), GFP_KERNEL);

	sched_expect(thing);
	thing->value = 7;
	sched_expect(init_srcu_struct(&srcu) == 0);
	smp_store_release(&shared, thing);
}

static void read_thing(void *unused)
{
	int cookie = srcu_read_lock(&srcu);
	struct thing *thing = smp_load_acquire(&shared);

	(void)unused;
	if (thing) {
		cpu_relax();
		sched_expect(thing->value == 7);
	}
	srcu_read_unlock(&srcu, cookie);
}

static void retire_thing(void *unused)
{
	struct thing *thing = xchg(&shared, NULL);

	(void)unused;
	if (right)
		synchronize_srcu(&srcu);
	kfree(thing);
}

static void free_without_synchronize(void)
{
	publish_thing();
	run_two(read_thing, retire_thing);
	sched_expect(cleanup_srcu_struct(&srcu) == 0);
}

void srcu_alone(void)
{
	struct srcu_struct *ssp = kzalloc(sizeof(*ssp), GFP_KERNEL);
	atomic_t mark = ATOMIC_INIT(0);

	sched_expect(init_srcu_struct(ssp) == 0);
	atomic_xchg(&mark, 1);
	srcu_read_unlock(ssp, srcu_read_lock(ssp));
	atomic_xchg(&mark, 2);
	synchronize_srcu(ssp);
	atomic_xchg(&mark, 3);
}

static void free_thing(struct srcu_head *head)
{
	kfree(container_of(head, struct thing, head));
}

static void call_srcu_thing(void *unused)
{
	struct thing *thing = xchg(&shared, NULL);

	(void)unused;
	if (right)
		call_srcu(&srcu, &thing->head, free_thing);
	else
		free_thing(&thing->head);
}

/* The same, by the worker; a cleanup and a stop find everything done. */
static void free_in_callback(void)
{
	publish_thing();
	sched_expect(srcu_workers_start() == 0);
	run_two(read_thing, call_srcu_thing);
	srcu_barrier(&srcu);
	sched_expect(cleanup_srcu_struct(&srcu) == 0);
	srcu_workers_stop();
}

/* ---- two locks, in one order or in two ---- */

static DEFINE_SPINLOCK(inner);
static DECLARE_RWSEM(outer);
static long sum; /* plain, under both */

static void in_order(void *unused)
{
	(void)unused;
	down_write(&outer);
	spin_lock(&inner);
	sum++;
	spin_unlock(&inner);
	downgrade_write(&outer);
	up_read(&outer);
}

static void out_of_order(void *unused)
{
	if (right) {
		in_order(unused);
		return;
	}
	spin_lock(&inner);
	down_read(&outer);
	sum++;
	up_read(&outer);
	spin_unlock(&inner);
}

static void lock_order(void)
{
	run_two(in_order, out_of_order);
	sched_expect(sum == 2);
}

/* ---- a subscriber, and the owner of the memory ---- */

#define HVA 0x100000000ul

struct subscriber {
	struct mmu_notifier mn;
	atomic_t *told; /* its own memory */
};

static struct mm_struct *mm;
static struct subscriber *subscriber;

static int on_start(struct mmu_notifier *mn, const struct mmu_notifier_range *range)
{
	(void)range;
	atomic_inc(container_of(mn, struct subscriber, mn)->told);
	return 0;
}

static const struct mmu_notifier_ops subscriber_ops = {.invalidate_range_start = on_start};

static void zap(void *unused)
{
	(void)unused;
	sched_expect(mm_zap_range(mm, HVA, PAGE_SIZE) == 1);
}

static void unsubscribe(void *unused)
{
	(void)unused;
	if (!right)
		kfree(subscriber->told);
	mmu_notifier_unregister(&subscriber->mn, mm);
	if (right)
		kfree(subscriber->told);
	kfree(subscriber);
}

/* The library as it is used, all of it under the scheduler. */
static void unregister(void)
{
	struct phys *phys;

	sched_expect(phys_create(&phys, 16) == 0);
	mm = mm_alloc(phys);
	sched_expect(mm);
	sched_expect(mm_mmap(mm, HVA, PAGE_SIZE, MM_PROT_READ | MM_PROT_WRITE, NULL, 0) == 0);
	sched_expect(mm_write(mm, HVA, "x", 1) == 0);
	subscriber = kzalloc(sizeof(*subscriber), GFP_KERNEL);
	subscriber->mn.ops = &subscriber_ops;
	subscriber->told = kzalloc(sizeof(*subscriber->told), GFP_KERNEL);
	sched_expect(mmu_notifier_register(&subscriber->mn, mm) == 0);
	run_two(zap, unsubscribe);
	mmput(mm);
	phys_destroy(phys);
}

/* ---- the list ---- */

#define PROGRAM(body)                  \
	static void right_##body(void) \
	{                              \
		right = true;          \
		body();                \
	}                              \
	static void wrong_##body(void) \
	{                              \
		body();                \
	}

PROGRAM(check_then_act)
PROGRAM(lost_wake_up)
PROGRAM(timeout)
PROGRAM(free_without_synchronize)
PROGRAM(free_in_callback)
PROGRAM(lock_order)
PROGRAM(unregister)

#define ENTRY(body, failure)                               \
	{                                                  \
#body, right_##body, wrong_##body, failure \
	}

const struct program programs[] = {
	ENTRY(check_then_act, "not so: atomic_read(&nr_made) == 1"),
	ENTRY(lost_wake_up, "deadlock"),
	ENTRY(timeout, "wait_a_year: not so"),
	ENTRY(free_without_synchronize, "use after free"),
	ENTRY(free_in_callback, "use after free"),
	ENTRY(lock_order, "deadlock"),
	ENTRY(unregister, "use after free"),
};

const unsigned int nr_programs = ARRAY_SIZE(programs);
