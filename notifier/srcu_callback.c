// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Callbacks after a grace period: call_srcu, the one worker of the process, srcu_barrier.
 *
 * A callback moves from its domain's queue to its batch (the oldest callbacks, all waiting for one
 * grace period), and is run from there; always by somebody who holds cb_run, so in order and one at
 * a time. That is the worker, or, when there is none, whoever calls srcu_barrier().
 *
 * The worker serves all domains and waits for no reader: a domain whose readers are in the way is
 * parked, and comes back when one of them leaves (a reader of one domain never delays another).
 *
 *   a domain is		in worker list	and leaves when
 *   at rest			none		kicked: call_srcu, srcu_barrier, start
 *   ready			ready		the worker takes it up
 *   being served		none		done: at rest, or ready for more, or parked
 *   parked			parked		kicked: by a reader that leaves, by whoever ends the
 *						grace period, by whoever drops cb_run
 *
 * A kick during service puts the domain in the ready list, where the worker leaves it: no kick is
 * lost. The worker stops only with both lists empty, in the critical section that says so: a kick
 * that found it running is served.
 *
 * A forked child has no worker: srcu_worker.pid is the parent's. It learns so by comparing.
 */
#include <errno.h>
#include <signal.h>
#include <sys/types.h>
#include <unistd.h>

#include "notifier/srcu_internal.h"
#include "notifier/sync/thread.h"

static struct {
	struct mutex control; /* start and stop */
	struct kthread thread;

	spinlock_t lock; /* the rest */
	pid_t pid;	 /* the process in which the worker runs; 0: none */
	bool stop;
	struct list_head ready, parked;
	wait_queue_head_t wait;
} srcu_worker = {
	.ready = LIST_HEAD_INIT(srcu_worker.ready),
	.parked = LIST_HEAD_INIT(srcu_worker.parked),
};

void srcu_callbacks_init(struct srcu_domain *d)
{
	d->queue_tail = &d->queue;
	INIT_LIST_HEAD(&d->work_link);
	/* A class for each domain: a callback of one may run those of another. */
	lockdep_init_map(&d->cb_run.dep, "d->cb_run", &d->cb_run);
}

/* ---- the queue ---- */

static void enqueue(struct srcu_domain *d, struct srcu_head *head,
		    void (*func)(struct srcu_head *head))
{
	head->next = NULL;
	head->func = func;
	spin_lock(&d->cb_lock);
	*d->queue_tail = head;
	d->queue_tail = &head->next;
	spin_unlock(&d->cb_lock);
}

/* Make a batch of what is queued, unless there is one. False: there is nothing. cb_run held. */
static bool take_batch(struct srcu_domain *d)
{
	if (d->batch)
		return true;
	spin_lock(&d->cb_lock);
	d->batch = d->queue;
	d->queue = NULL;
	d->queue_tail = &d->queue;
	spin_unlock(&d->cb_lock);
	if (!d->batch)
		return false;
	/* After every call_srcu() of the batch, so it covers what they unpublished. */
	d->batch_snap = srcu_snap(d);
	return true;
}

struct barrier_mark {
	struct srcu_head head;
	struct srcu_domain *d;
	uint32_t done;
};

static void barrier_reached(struct srcu_head *head)
{
	struct barrier_mark *mark = container_of(head, struct barrier_mark, head);
	struct srcu_domain *d = mark->d;

	/* The mark is on the stack of the one who waits, and gone once it is done; d is not. Pairs
	 * with the acquire of ->done in srcu_barrier and run_until. */
	smp_store_release(&mark->done, 1);
	wake_up_all(&d->cb_wait);
}

/* The grace period has passed; cb_run held. */
static void run_batch(struct srcu_domain *d)
{
	struct thread_state *self = current_thread();
	struct srcu_domain *outer = self->srcu_running;
	struct srcu_head *head;

	self->srcu_running = d;
	while ((head = d->batch)) {
		void (*func)(struct srcu_head * head) = head->func;

		d->batch = head->next;
		func(head);
		/* Release; pairs with the acquire in srcu_barrier and cleanup_srcu_struct. */
		if (func != barrier_reached)
			atomic64_fetch_sub(1, &d->nr_callbacks);
	}
	self->srcu_running = outer;
}

void call_srcu(struct srcu_struct *ssp, struct srcu_head *head,
	       void (*func)(struct srcu_head *head))
{
	struct srcu_domain *d = srcu_domain(ssp);

	atomic64_inc(&d->nr_callbacks);
	enqueue(d, head, func);
	srcu_worker_kick(d);
}

/* ---- the barrier ---- */

/* No worker: run callbacks here until @mark was. */
static void run_until(struct srcu_domain *d, struct barrier_mark *mark)
{
	mutex_lock(&d->cb_run);
	while (!smp_load_acquire(&mark->done)) {
		ASSERT(take_batch(d), "domain %u lost a barrier", d->number);
		srcu_wait(d, d->batch_snap);
		run_batch(d);
	}
	mutex_unlock(&d->cb_run);
	/* A worker that was started meanwhile found cb_run taken and parked the domain. */
	srcu_worker_kick(d);
}

void srcu_barrier(struct srcu_struct *ssp)
{
	struct srcu_domain *d = srcu_domain(ssp);
	struct barrier_mark mark = {.d = d};

	might_sleep();
	srcu_assert_not_reader(d, "srcu_barrier()");
	ASSERT(current_thread()->srcu_running != d,
	       "srcu_barrier() on domain %u by one of its own callbacks", d->number);
	if (!atomic64_read_acquire(&d->nr_callbacks))
		return;

	enqueue(d, &mark.head, barrier_reached);
	if (srcu_worker_kick(d))
		wait_event(d->cb_wait, smp_load_acquire(&mark.done));
	else
		run_until(d, &mark);
}

/* ---- the worker ---- */

bool srcu_worker_kick(struct srcu_domain *d)
{
	pid_t pid = READ_ONCE(srcu_worker.pid);
	bool running;

	if (!pid || pid != getpid())
		return false;
	spin_lock(&srcu_worker.lock);
	running = srcu_worker.pid == pid;
	if (running)
		list_move_tail(&d->work_link, &srcu_worker.ready);
	spin_unlock(&srcu_worker.lock);
	if (running)
		wake_up_all(&srcu_worker.wait);
	return running;
}

/*
 * A grace period of @d moved, or may. Pairs with the exchange in serve(): the worker says that it
 * waits, then arms the readers; we found them armed, or ended the grace period, before we look
 * here. So if we miss it, it looks at the readers after us.
 */
void srcu_worker_notify(struct srcu_domain *d)
{
	if (READ_ONCE(d->worker_waits) && xchg(&d->worker_waits, 0))
		srcu_worker_kick(d);
}

enum served { SERVED_ALL, SERVED_SOME, MUST_WAIT };

static enum served serve(struct srcu_domain *d)
{
	enum served served = SERVED_ALL;

	/* The holder kicks us when it is done; it may be waiting for readers, so do not wait. */
	if (!mutex_trylock(&d->cb_run))
		return MUST_WAIT;
	if (take_batch(d)) {
		bool passed = srcu_advance(d, d->batch_snap, false);

		if (!passed) {
			/* Full barrier before the readers are armed; see srcu_worker_notify. */
			xchg(&d->worker_waits, 1);
			passed = srcu_advance(d, d->batch_snap, true);
		}
		if (passed)
			run_batch(d);
		served = passed ? SERVED_SOME : MUST_WAIT;
	}
	mutex_unlock(&d->cb_run);
	return served;
}

static bool worker_wanted(void)
{
	bool wanted;

	spin_lock(&srcu_worker.lock);
	wanted = !list_empty(&srcu_worker.ready) ||
		 (srcu_worker.stop && list_empty(&srcu_worker.parked));
	spin_unlock(&srcu_worker.lock);
	return wanted;
}

/* The next domain to serve, or NULL when the worker is to end, which it then has. */
static struct srcu_domain *next_domain(void)
{
	struct srcu_domain *d = NULL;

	for (;;) {
		spin_lock(&srcu_worker.lock);
		d = list_first_entry_or_null(&srcu_worker.ready, struct srcu_domain, work_link);
		if (d || (srcu_worker.stop && list_empty(&srcu_worker.parked)))
			break;
		spin_unlock(&srcu_worker.lock);
		wait_event(srcu_worker.wait, worker_wanted());
	}
	if (d) {
		list_del_init(&d->work_link);
	} else {
		WRITE_ONCE(srcu_worker.pid, 0);
		srcu_worker.stop = false;
	}
	spin_unlock(&srcu_worker.lock);
	return d;
}

static void worker_main(void *unused)
{
	struct srcu_domain *d;

	(void)unused;
	while ((d = next_domain())) {
		enum served served = serve(d);

		spin_lock(&srcu_worker.lock);
		/* Else it was kicked meanwhile, and is ready. */
		if (list_empty(&d->work_link)) {
			if (served == SERVED_SOME)
				list_add_tail(&d->work_link, &srcu_worker.ready);
			else if (served == MUST_WAIT)
				list_add_tail(&d->work_link, &srcu_worker.parked);
		}
		spin_unlock(&srcu_worker.lock);
	}
}

static void forget_work(struct srcu_domain *d)
{
	INIT_LIST_HEAD(&d->work_link);
}

/*
 * In a child: the lists and the lock are as the parent's worker left them. Nobody here can have
 * them in hand, because kicks compare the pid first. (After a mere stop they are in order, and a
 * late kick may hold the lock: that is not the time to initialise anything.)
 */
static void forget_parents_worker(void)
{
	srcu_for_each_domain(forget_work);
	spin_lock_init(&srcu_worker.lock);
	INIT_LIST_HEAD(&srcu_worker.ready);
	INIT_LIST_HEAD(&srcu_worker.parked);
	init_waitqueue_head(&srcu_worker.wait);
	srcu_worker.stop = false;
	WRITE_ONCE(srcu_worker.pid, 0);
}

static void kick_if_queued(struct srcu_domain *d)
{
	if (atomic64_read(&d->nr_callbacks))
		srcu_worker_kick(d);
}

/* Every signal blocked: handlers belong to the program, and run on its threads. */
static int start_thread(void)
{
	sigset_t all, saved;
	int ret;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &saved);
	ret = kthread_run(&srcu_worker.thread, "srcu", worker_main, NULL);
	pthread_sigmask(SIG_SETMASK, &saved, NULL);
	return ret;
}

int srcu_workers_start(void)
{
	pid_t pid = getpid();
	int ret = 0;

	mutex_lock(&srcu_worker.control);
	if (srcu_worker.pid == pid)
		goto out;
	if (srcu_worker.pid)
		forget_parents_worker();
	ret = start_thread();
	if (ret)
		goto out;
	/* Last, as a kick that finds this relies on being served. */
	spin_lock(&srcu_worker.lock);
	WRITE_ONCE(srcu_worker.pid, pid);
	spin_unlock(&srcu_worker.lock);
	srcu_for_each_domain(kick_if_queued);
out:
	mutex_unlock(&srcu_worker.control);
	return ret;
}

void srcu_workers_stop(void)
{
	mutex_lock(&srcu_worker.control);
	if (srcu_worker.pid == getpid()) {
		spin_lock(&srcu_worker.lock);
		srcu_worker.stop = true;
		spin_unlock(&srcu_worker.lock);
		wake_up_all(&srcu_worker.wait);
		kthread_join(&srcu_worker.thread);
	}
	mutex_unlock(&srcu_worker.control);
}
