// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * SRCU for controlled schedulers: the interface and the promises of <gnomon/srcu.h> in as few steps
 * as they can be had. A build has this file or srcu*.c. Those are right as long as schedules of
 * them are; this one is what schedules of everything else are made with, where SRCU's own steps
 * would be most of all that there are.
 *
 *	begin, end of a section		one operation
 *	synchronize_srcu		two: take a ticket; wait until all older sections ended
 *	call_srcu			one, and a wake-up of the worker
 *	get_state, start_poll, poll	one
 *
 * An operation is a critical section of d->lock, with plain accesses in it: nothing of it is seen
 * by others, so whoever schedules need not switch inside. Waking is inside too, and done only if
 * somebody waits.
 *
 * Every section has an age, which is its cookie. A ticket gives all sections that begin after it a
 * higher one, and has passed when none of an age before it is inside. So this SRCU is exact, where
 * the real one may wait longer: who begins after the ticket was taken never delays it. And it is
 * stronger: the lock orders readers among themselves. What must be found with less order is found
 * with srcu*.c.
 *
 * It sleeps and locks by the sync layer alone, has no thread but the worker that srcu_workers_start
 * starts, and frees the domain in a cleanup, so that a late unlock is seen as a use after free. It
 * does not survive a fork, and srcu_read_lock_held() knows nothing.
 */
#include <gnomon/srcu.h>

#include <errno.h>
#include <limits.h>

#include "notifier/sync/alloc.h"
#include "notifier/sync/list.h"
#include "notifier/sync/lock.h"
#include "notifier/sync/thread.h"
#include "notifier/sync/wait.h"

/* Ages that are told apart: of sections this far apart the younger delays the older one's ticket.
 */
#define AGES 64u

struct srcu_domain {
	spinlock_t lock; /* all but the link */
	wait_queue_head_t wait;
	bool awaited; /* somebody looked in vain, and is to be woken for another look */

	/* No section before done is inside; who begins has the age of the last ticket. */
	unsigned long done, age;
	unsigned int inside[AGES]; /* sections, by age */

	/* Callbacks, oldest first: the batch, all waiting for one ticket; the queue. */
	struct srcu_head *batch, *queue, **queue_end;
	unsigned long batch_ticket;
	unsigned long nr_queued, nr_returned;
	bool running; /* somebody runs callbacks; false once those have returned */

	struct list_head link; /* in domains; under worker.lock */
};

static struct {
	struct mutex control; /* start and stop */
	struct kthread thread;

	spinlock_t lock; /* the rest; outside d->lock */
	bool runs;	 /* changed by the holder of control, or for him, by the worker that ends */
	bool stop;
	struct list_head domains;
	wait_queue_head_t wait;
} worker = {
	.domains = LIST_HEAD_INIT(worker.domains),
};

static struct srcu_domain *domain(const struct srcu_struct *ssp)
{
	ASSERT(ssp->d, "srcu_struct %p is not initialised, or was cleaned up", (const void *)ssp);
	return ssp->d;
}

/* ---- ages and tickets; d->lock held ---- */

/* What can pass, passes. */
static void settle(struct srcu_domain *d)
{
	while (d->done < d->age && !d->inside[d->done % AGES])
		d->done++;
}

static unsigned long take_ticket(struct srcu_domain *d)
{
	/* Else nobody came since the last one was taken. */
	if (d->inside[d->age % AGES])
		d->age++;
	settle(d);
	return d->age;
}

/* Not passed: who asks is going to sleep. */
static bool passed_or_await(struct srcu_domain *d, unsigned long ticket)
{
	if (d->done >= ticket)
		return true;
	d->awaited = true;
	return false;
}

/* Last in the critical section, as far as the domain goes: a cleanup that this lets through frees
 * it as soon as the lock is free. */
static void wake(struct srcu_domain *d)
{
	if (!d->awaited)
		return;
	d->awaited = false;
	wake_up_all(&d->wait);
	wake_up_all(&worker.wait);
}

/* ---- readers ---- */

int srcu_down_read(struct srcu_struct *ssp)
{
	struct srcu_domain *d = domain(ssp);
	unsigned long age;

	spin_lock(&d->lock);
	age = d->age;
	d->inside[age % AGES]++;
	spin_unlock(&d->lock);
	return (int)(age & INT_MAX);
}

void srcu_up_read(struct srcu_struct *ssp, int cookie)
{
	struct srcu_domain *d = domain(ssp);
	unsigned long done;

	spin_lock(&d->lock);
	ASSERT(cookie >= 0 && d->inside[(unsigned int)cookie % AGES],
	       "unlock of a domain with cookie %#x, which is not that of an open section",
	       (unsigned int)cookie);
	d->inside[(unsigned int)cookie % AGES]--;
	done = d->done;
	settle(d);
	if (d->done != done)
		wake(d);
	spin_unlock(&d->lock);
}

/* For tests: does somebody wait for readers of @ssp, or for callbacks? */
bool abstract_srcu_awaited(const struct srcu_struct *ssp)
{
	struct srcu_domain *d = domain(ssp);
	bool awaited;

	spin_lock(&d->lock);
	awaited = d->awaited;
	spin_unlock(&d->lock);
	return awaited;
}

/* No thread ever has a __srcu_base, so what is inlined into programs comes here. */

int __srcu_read_lock_slow(struct srcu_struct *ssp)
{
	return srcu_down_read(ssp);
}

void __srcu_read_unlock_slow(struct srcu_struct *ssp, int cookie)
{
	srcu_up_read(ssp, cookie);
}

uint8_t __srcu_waiting[__SRCU_MAX_COOKIE];

void __srcu_wake(int cookie)
{
	(void)cookie;
	BUG();
}

bool srcu_read_lock_held(const struct srcu_struct *ssp)
{
	return domain(ssp);
}

/* ---- grace periods ---- */

unsigned long get_state_synchronize_srcu(struct srcu_struct *ssp)
{
	struct srcu_domain *d = domain(ssp);
	unsigned long ticket;

	spin_lock(&d->lock);
	ticket = take_ticket(d);
	spin_unlock(&d->lock);
	return ticket;
}

unsigned long start_poll_synchronize_srcu(struct srcu_struct *ssp)
{
	return get_state_synchronize_srcu(ssp);
}

bool poll_state_synchronize_srcu(struct srcu_struct *ssp, unsigned long state)
{
	struct srcu_domain *d = domain(ssp);
	bool passed;

	spin_lock(&d->lock);
	passed = d->done >= state;
	spin_unlock(&d->lock);
	return passed;
}

static bool ticket_passed(struct srcu_domain *d, unsigned long ticket)
{
	bool passed;

	spin_lock(&d->lock);
	passed = passed_or_await(d, ticket);
	spin_unlock(&d->lock);
	return passed;
}

void synchronize_srcu(struct srcu_struct *ssp)
{
	struct srcu_domain *d = domain(ssp);
	unsigned long ticket = get_state_synchronize_srcu(ssp);

	wait_event(d->wait, ticket_passed(d, ticket));
}

/* ---- callbacks ---- */

void call_srcu(struct srcu_struct *ssp, struct srcu_head *head,
	       void (*func)(struct srcu_head *head))
{
	struct srcu_domain *d = domain(ssp);

	head->next = NULL;
	head->func = func;
	spin_lock(&d->lock);
	*d->queue_end = head;
	d->queue_end = &head->next;
	d->nr_queued++;
	spin_unlock(&d->lock);
	wake_up_all(&worker.wait);
}

/* Callbacks whose grace period has passed, and with them the right to run any; NULL: not now. */
static struct srcu_head *take_callbacks(struct srcu_domain *d)
{
	struct srcu_head *callbacks = NULL;

	spin_lock(&d->lock);
	if (!d->batch && d->queue) {
		d->batch = d->queue;
		d->queue = NULL;
		d->queue_end = &d->queue;
		d->batch_ticket = take_ticket(d);
	}
	if (d->running) {
		d->awaited = true;
	} else if (d->batch && passed_or_await(d, d->batch_ticket)) {
		callbacks = d->batch;
		d->batch = NULL;
		d->running = true;
	}
	spin_unlock(&d->lock);
	return callbacks;
}

static void run_callbacks(struct srcu_domain *d, struct srcu_head *head)
{
	struct thread_state *self = current_thread();
	struct srcu_domain *outer = self->srcu_running;

	self->srcu_running = d;
	while (head) {
		struct srcu_head *next = head->next; /* func may free head, or queue it again */

		head->func(head);
		head = next;
		spin_lock(&d->lock);
		d->nr_returned++;
		d->running = head;
		wake(d);
		spin_unlock(&d->lock);
	}
	self->srcu_running = outer;
}

static bool have_returned(struct srcu_domain *d, unsigned long nr)
{
	bool returned;

	spin_lock(&d->lock);
	returned = d->nr_returned >= nr;
	if (!returned)
		d->awaited = true;
	spin_unlock(&d->lock);
	return returned;
}

void srcu_barrier(struct srcu_struct *ssp)
{
	struct srcu_domain *d = domain(ssp);
	struct srcu_head *callbacks;
	unsigned long nr;

	ASSERT(current_thread()->srcu_running != d,
	       "srcu_barrier() on a domain by one of its own callbacks");
	spin_lock(&d->lock);
	nr = d->nr_queued;
	spin_unlock(&d->lock);
	for (;;) {
		callbacks = NULL;
		wait_event(d->wait, have_returned(d, nr) || (callbacks = take_callbacks(d)));
		if (!callbacks)
			return;
		run_callbacks(d, callbacks);
	}
}

/* ---- the worker ---- */

struct work {
	struct srcu_domain *d;
	struct srcu_head *callbacks; /* NULL: the worker is to end */
};

/* Every domain that has callbacks, and none to run now, is awaited after this. */
static bool find_work(struct work *work)
{
	bool idle = true, end;
	struct srcu_domain *d;

	*work = (struct work){0};
	spin_lock(&worker.lock);
	list_for_each_entry(d, &worker.domains, link) {
		work->d = d;
		work->callbacks = take_callbacks(d);
		if (work->callbacks)
			break;
		spin_lock(&d->lock);
		idle &= d->nr_returned == d->nr_queued;
		spin_unlock(&d->lock);
	}
	/* A callback that is queued after this look waits for a barrier, or another worker. */
	end = worker.stop && idle && !work->callbacks;
	if (end)
		worker.runs = false;
	spin_unlock(&worker.lock);
	return work->callbacks || end;
}

static void worker_main(void *unused)
{
	struct work work;

	(void)unused;
	for (;;) {
		wait_event(worker.wait, find_work(&work));
		if (!work.callbacks)
			return;
		run_callbacks(work.d, work.callbacks);
	}
}

static void set_worker(bool runs, bool stop)
{
	spin_lock(&worker.lock);
	worker.runs = runs;
	worker.stop = stop;
	spin_unlock(&worker.lock);
}

int srcu_workers_start(void)
{
	int ret = 0;

	mutex_lock(&worker.control);
	if (!worker.runs) {
		set_worker(true, false);
		ret = kthread_run(&worker.thread, "srcu", worker_main, NULL);
		if (ret)
			set_worker(false, false);
	}
	mutex_unlock(&worker.control);
	return ret;
}

void srcu_workers_stop(void)
{
	ASSERT(!current_thread()->srcu_running, "srcu_workers_stop() by a callback");
	mutex_lock(&worker.control);
	if (worker.runs) {
		set_worker(true, true);
		wake_up_all(&worker.wait);
		kthread_join(&worker.thread);
	}
	mutex_unlock(&worker.control);
}

/* ---- domains ---- */

int init_srcu_struct(struct srcu_struct *ssp)
{
	struct srcu_domain *d = kzalloc(sizeof(*d), GFP_KERNEL);

	*ssp = (struct srcu_struct){.d = d};
	if (!d)
		return -ENOMEM;
	spin_lock_init(&d->lock);
	init_waitqueue_head(&d->wait);
	d->queue_end = &d->queue;
	spin_lock(&worker.lock);
	list_add_tail(&d->link, &worker.domains);
	spin_unlock(&worker.lock);
	return 0;
}

static bool readers_active(struct srcu_domain *d)
{
	bool active = false;

	spin_lock(&d->lock);
	for (unsigned int i = 0; i < AGES; i++)
		active |= d->inside[i] != 0;
	spin_unlock(&d->lock);
	return active;
}

static bool callbacks_idle(struct srcu_domain *d)
{
	bool idle;

	spin_lock(&d->lock);
	idle = d->nr_returned == d->nr_queued;
	spin_unlock(&d->lock);
	return idle;
}

static int refuse_cleanup(void)
{
	WARN(true, "SRCU domain is cleaned up with a reader inside: it is leaked");
	return -EBUSY;
}

int cleanup_srcu_struct(struct srcu_struct *ssp)
{
	struct srcu_domain *d = domain(ssp);

	might_sleep();
	ASSERT(current_thread()->srcu_running != d,
	       "an SRCU domain is cleaned up by one of its own callbacks");
	/* First, as callbacks would wait for that reader. */
	if (readers_active(d))
		return refuse_cleanup();
	/* More than once only if callbacks queue callbacks. */
	while (!callbacks_idle(d))
		srcu_barrier(ssp);
	if (readers_active(d))
		return refuse_cleanup();

	spin_lock(&worker.lock);
	list_del(&d->link);
	spin_unlock(&worker.lock);
	ssp->d = NULL;
	kfree(d);
	return 0;
}
