// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Callbacks after a grace period: call_srcu, the one worker of the process, srcu_barrier.
 *
 * A callback moves from its domain's queue to its batch (the oldest callbacks, all waiting for one
 * grace period), and is run from there; always by somebody who holds cb_run, so in order and one at
 * a time. That is the worker, or whoever calls srcu_barrier(): who waits for callbacks runs them.
 * So nobody waits for those of another domain, in which the worker may be stuck.
 *
 * The worker serves all domains and waits for no reader: a domain whose readers are in the way is
 * parked, and comes back when one of them leaves (a reader of one domain never delays another).
 *
 *   a domain is		in worker list	and leaves when
 *   at rest			none		kicked: call_srcu, srcu_barrier, start
 *   ready			ready		the worker takes it up
 *   being served		none		done: at rest, or ready for more, or parked
 *   parked			parked		kicked: by a reader that leaves, by whoever ends the
 *						grace period, by a barrier that drops cb_run
 *
 * A kick during service puts the domain in the ready list, where the worker leaves it: no kick is
 * lost. The worker stops only with both lists empty, in the critical section that says so: a kick
 * that found it running is served.
 *
 * A forked child has no worker: srcu_worker.pid is the parent's. It learns so by comparing.
 */
#include <errno.h>
#include <sched.h>
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

/* The worker is in it while it runs callbacks; who waits for its end visits it. */
static struct lockdep_map worker_map = LOCKDEP_MAP_INIT(&worker_map, "srcu_worker");

/* ---- the queue ---- */

/*
 * To lockdep, what callbacks lock is ordered behind cb_run, and so is checked against who waits for
 * callbacks with that held. A class for each domain: a callback of one may run those of another.
 */
static void init_cb_run(struct srcu_domain *d)
{
	mutex_init(&d->cb_run);
	lockdep_init_map(&d->cb_run.dep, "srcu_callbacks", &d->cb_run);
}

void srcu_callbacks_init(struct srcu_domain *d)
{
	d->cb_tail = &d->cb_first;
	INIT_LIST_HEAD(&d->work_link);
	init_cb_run(d);
}

static void enqueue(struct srcu_domain *d, struct srcu_head *head,
		    void (*func)(struct srcu_head *head))
{
	struct srcu_head *prev;

	head->next = NULL;
	head->func = func;
	/* From the exchange to the store the queue has a hole, which next_in_queue() waits for. */
	prev = xchg(&d->cb_tail, head);
	smp_store_release(&prev->next, head);
}

/* What stands behind @head, which is not the last one. */
static struct srcu_head *next_in_queue(struct srcu_head *head)
{
	struct srcu_head *next;

	while (!(next = smp_load_acquire(&head->next)))
		sync_yield();
	return next;
}

/*
 * cb_busy spares call_srcu() the waking of somebody who is awake. Whoever takes callbacks sets it
 * first, and clears it when none are left, to look again after that:
 *
 *	call_srcu				who ran the last callback
 *	appends		(full barrier)		cb_busy = 0	(full barrier)
 *	cb_busy? -> nothing to do		queue empty? -> done
 *
 * And so an empty queue first, then cb_busy == 0, in this order, say that all have returned.
 */
bool srcu_callbacks_idle(struct srcu_domain *d)
{
	return smp_load_acquire(&d->cb_tail) == &d->cb_first && !smp_load_acquire(&d->cb_busy);
}

/* All that were taken have returned. True if there are no more. cb_run held. */
static bool rest(struct srcu_domain *d)
{
	/* Release: hands over what they did, to srcu_callbacks_idle(). */
	xchg(&d->cb_busy, 0);
	if (READ_ONCE(d->cb_tail) == &d->cb_first)
		return true;
	xchg(&d->cb_busy, 1);
	return false;
}

/* Make a batch of what is queued, unless there is one. False: there is nothing. cb_run held. */
static bool take_batch(struct srcu_domain *d)
{
	struct srcu_head *head, *last;

	if (d->batch)
		return true;
	if (rest(d))
		return false;
	head = next_in_queue(&d->cb_first);
	/* In this order for a child that is forked in between: it finds them twice, not never. */
	WRITE_ONCE(d->batch, head);
	WRITE_ONCE(d->cb_first.next, NULL);
	last = xchg(&d->cb_tail, &d->cb_first);
	/* Close all holes now, so that the rest may walk the list as any other. */
	while (head != last)
		head = next_in_queue(head);
	/* After every call_srcu() of the batch, so it covers what they unpublished. */
	d->batch_snap = srcu_snap(d);
	return true;
}

/* On the stack of the one who waits, and gone when he finds it done. Under cb_run. */
struct barrier_mark {
	struct srcu_head head;
	uint64_t owner; /* by thread_id() */
	bool done;
};

static void barrier_reached(struct srcu_head *head)
{
	container_of(head, struct barrier_mark, head)->done = true;
}

/* The grace period has passed; cb_run held. */
static void run_batch(struct srcu_domain *d)
{
	struct thread_state *self = current_thread();
	struct srcu_head *head;

	d->cb_outer = self->srcu_running;
	self->srcu_running = d;
	while ((head = d->batch)) {
		void (*func)(struct srcu_head * head) = head->func;

		d->batch = head->next;
		func(head);
	}
	self->srcu_running = d->cb_outer;
}

bool srcu_runs_callbacks(const struct srcu_domain *d)
{
	const struct srcu_domain *running = current_thread()->srcu_running;

	while (running && running != d)
		running = running->cb_outer;
	return running != NULL;
}

void call_srcu(struct srcu_struct *ssp, struct srcu_head *head,
	       void (*func)(struct srcu_head *head))
{
	struct srcu_domain *d = srcu_domain(ssp);

	enqueue(d, head, func);
	if (!READ_ONCE(d->cb_busy) && !xchg(&d->cb_busy, 1))
		srcu_worker_kick(d);
}

/* ---- the barrier ---- */

/*
 * Not by waiting for the worker: it may be in a callback of another domain, which may take long, or
 * wait for a lock that our caller holds.
 */
void srcu_barrier(struct srcu_struct *ssp)
{
	struct srcu_domain *d = srcu_domain(ssp);
	struct barrier_mark mark = {.owner = thread_id()};

	might_sleep();
	srcu_assert_not_reader(d, "srcu_barrier()");
	ASSERT(!srcu_runs_callbacks(d), "srcu_barrier() on domain %u by one of its own callbacks",
	       d->number);
	might_lock(&d->cb_run);
	if (srcu_callbacks_idle(d))
		return;

	enqueue(d, &mark.head, barrier_reached);
	mutex_lock(&d->cb_run);
	while (!mark.done) {
		ASSERT(take_batch(d), "domain %u lost a barrier", d->number);
		srcu_wait(d, d->batch_snap);
		run_batch(d);
	}
	/* Whoever looks next is to find the domain at rest, if it is. */
	if (!d->batch)
		rest(d);
	mutex_unlock(&d->cb_run);
	/* A worker that found cb_run taken parked the domain. */
	srcu_worker_kick(d);
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

/*
 * A pass over all domains that are ready, in three steps, so that one heavy barrier does for all of
 * them. No lock is held from one step to the next.
 */

static void scan_first_half(struct srcu_domain *d)
{
	bool have_batch;
	unsigned long snap;

	d->scanning = false;
	/* The holder kicks us when it is done; it may be waiting for readers, so do not wait. */
	if (!mutex_trylock(&d->cb_run))
		return;
	have_batch = take_batch(d);
	snap = d->batch_snap;
	mutex_unlock(&d->cb_run);
	if (!have_batch)
		return;
	/* Full barrier before the readers are armed; see srcu_worker_notify. */
	xchg(&d->worker_waits, 1);
	d->scanning = srcu_scan_begin(d, snap, &d->scan);
}

static enum srcu_progress scan_second_half(struct srcu_domain *d)
{
	enum srcu_progress progress;

	if (!d->scanning)
		return SRCU_AGAIN;
	progress = srcu_scan_end(d, &d->scan);
	if (progress == SRCU_PASSED) {
		/* We know. If somebody else kicked us first, one turn in vain. */
		WRITE_ONCE(d->worker_waits, 0);
		srcu_tell_waiters(d);
	}
	return progress;
}

static enum served run_what_passed(struct srcu_domain *d, enum srcu_progress progress)
{
	enum served served = SERVED_ALL;

	if (!mutex_trylock(&d->cb_run))
		return MUST_WAIT;
	if (take_batch(d)) {
		bool passed = srcu_reached(d, d->batch_snap);

		if (passed) {
			lock_map_acquire_read(&worker_map);
			run_batch(d);
			lock_map_release(&worker_map);
		}
		served = passed || progress != SRCU_BLOCKED ? SERVED_SOME : MUST_WAIT;
	}
	mutex_unlock(&d->cb_run);
	return served;
}

static void served(struct srcu_domain *d, enum served how)
{
	spin_lock(&srcu_worker.lock);
	/* Else it was kicked meanwhile, and is ready. */
	if (list_empty(&d->work_link)) {
		if (how == SERVED_SOME)
			list_add_tail(&d->work_link, &srcu_worker.ready);
		else if (how == MUST_WAIT)
			list_add_tail(&d->work_link, &srcu_worker.parked);
	}
	spin_unlock(&srcu_worker.lock);
}

static void pass(struct srcu_domain *domains)
{
	bool scanning = false;

	for (struct srcu_domain *d = domains; d; d = d->next_served) {
		scan_first_half(d);
		scanning |= d->scanning;
	}
	if (scanning)
		srcu_heavy_barrier();
	for (struct srcu_domain *d = domains, *next; d; d = next) {
		enum srcu_progress progress = scan_second_half(d);

		/* Before it is served: then it may be ready again, and is in no pass. */
		next = d->next_served;
		served(d, run_what_passed(d, progress));
	}
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

/* The domains that are ready, or NULL when the worker is to end, which it then has. */
static struct srcu_domain *take_ready(void)
{
	struct srcu_domain *first = NULL, **end = &first, *d;

	for (;;) {
		spin_lock(&srcu_worker.lock);
		if (!list_empty(&srcu_worker.ready) ||
		    (srcu_worker.stop && list_empty(&srcu_worker.parked)))
			break;
		spin_unlock(&srcu_worker.lock);
		wait_event(srcu_worker.wait, worker_wanted());
	}
	while ((d = list_first_entry_or_null(&srcu_worker.ready, struct srcu_domain, work_link))) {
		list_del_init(&d->work_link);
		*end = d;
		end = &d->next_served;
	}
	*end = NULL;
	if (!first) {
		WRITE_ONCE(srcu_worker.pid, 0);
		srcu_worker.stop = false;
	}
	spin_unlock(&srcu_worker.lock);
	return first;
}

/* The CPUs that the program was given: before main(), as its threads may bind themselves. */
static cpu_set_t program_cpus;

__attribute__((constructor)) static void remember_cpus(void)
{
	if (sched_getaffinity(0, sizeof(program_cpus), &program_cpus))
		CPU_ZERO(&program_cpus); /* more than it can name */
}

static void worker_main(void *unused)
{
	struct srcu_domain *ready;

	(void)unused;
	/* Not those of whoever started it, who may have work of its own for them. */
	sched_setaffinity(0, sizeof(program_cpus), &program_cpus);
	while ((ready = take_ready()))
		pass(ready);
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
	if (!srcu_callbacks_idle(d))
		srcu_worker_kick(d);
}

/* Every signal blocked: handlers belong to the program, and run on its threads. */
static int start_thread(void)
{
	sigset_t all, saved;
	int ret;

	sigfillset(&all);
	sync_sigmask(SIG_SETMASK, &all, &saved);
	ret = kthread_run(&srcu_worker.thread, "srcu", worker_main, NULL);
	sync_sigmask(SIG_SETMASK, &saved, NULL);
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
	might_sleep();
	ASSERT(!current_thread()->srcu_running, "srcu_workers_stop() by a callback");
	lock_map_visit(&worker_map);
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

/* ---- fork ---- */

/* The marks of other threads' barriers: their stacks will be those of the child's threads. */
static void drop_marks(struct srcu_head **link)
{
	struct srcu_head *head;

	while ((head = *link)) {
		if (head->func == barrier_reached &&
		    container_of(head, struct barrier_mark, head)->owner != thread_id())
			*link = head->next;
		else
			link = &head->next;
	}
}

/*
 * The child keeps the callbacks whose call_srcu() had returned, or that another thread's had made
 * reachable. One that was running is lost here with its thread; one that was being queued, and what
 * was queued behind it, belong to the parent alone.
 */
void srcu_callbacks_forked(struct srcu_domain *d)
{
	struct srcu_head *last = &d->cb_first;

	if (d->batch) {
		if (last->next == d->batch)
			last->next = NULL;
		d->batch_snap = srcu_snap(d);
	}
	drop_marks(&d->batch);
	drop_marks(&last->next);
	while (last->next)
		last = last->next;
	d->cb_tail = last;
	d->cb_busy = d->batch || last != &d->cb_first;
	d->worker_waits = 0;
	/* Unless a callback forked. */
	if (!srcu_runs_callbacks(d))
		init_cb_run(d);
}

void srcu_worker_forked(void)
{
	mutex_init(&srcu_worker.control);
}
