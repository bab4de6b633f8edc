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
 * After a pass that ran callbacks it naps, with those domains ready. Who frees one object often
 * frees more, and they wait for one grace period together: without the nap a batch is what was
 * queued in the few microseconds of a pass, and each pass interrupts the caller (the membarrier),
 * takes cache lines from him, and now and then has to be woken by him.
 *
 *   a domain is		and leaves when
 *   at rest			kicked: call_srcu, srcu_barrier, start
 *   ready, in a stack		the worker takes it up
 *   being served		done: at rest, or ready for more, or parked
 *   parked			kicked: by a reader that leaves, by who ends the grace period, by a
 *				barrier that drops cb_run
 *
 * A kick takes no lock, as an unlock kicks, which may stand in a signal handler: it pushes the
 * domain on the stack, unless it is there. The worker takes the whole stack, and says so for each
 * domain before it looks at it: so no kick is lost.
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
	struct mutex control; /* start and stop; both change pid under it */
	struct kthread thread;
	pid_t pid; /* the process in which the worker runs; 0: none */
	bool stop;

	struct srcu_domain *kicked; /* the stack; anybody pushes, the worker takes it all */
	wait_queue_head_t wait;
	unsigned int nr_parked; /* the worker's own */
} srcu_worker;

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

/*
 * The full barrier of the first exchange stands between what the caller changed and the look at
 * ->kicked. Pairs with the exchange in take_ready(): who finds the domain kicked already leaves it
 * to the worker, which looks at the domain after that.
 */
static void push_kicked(struct srcu_domain *d)
{
	struct srcu_domain *next = READ_ONCE(srcu_worker.kicked);

	if (xchg(&d->kicked, 1))
		return;
	do
		d->next_kicked = next;
	while (!try_cmpxchg(&srcu_worker.kicked, &next, d));
}

void srcu_worker_kick(struct srcu_domain *d)
{
	pid_t pid = READ_ONCE(srcu_worker.pid);

	if (!pid || pid != getpid())
		return;
	push_kicked(d);
	wake_up_all(&srcu_worker.wait);
}

/*
 * A grace period of @d moved, or may. Pairs with the exchange in scan_first_half(): the worker says
 * that it waits, then arms the readers; we found them armed, or ended the grace period, before we
 * look here. So if we miss it, it looks at the readers after us.
 */
void srcu_worker_notify(struct srcu_domain *d)
{
	if (READ_ONCE(d->worker_waits) && xchg(&d->worker_waits, 0))
		srcu_worker_kick(d);
}

enum served { SERVED_ALL, SERVED_BATCH, SERVED_SOME, MUST_WAIT };

/*
 * A pass over all domains that are ready, in three steps, so that one heavy barrier does for all of
 * them. No lock is held from one step to the next, and others may run the domain's callbacks there,
 * and even clean it up.
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
		served = passed ? SERVED_BATCH : progress != SRCU_BLOCKED ? SERVED_SOME : MUST_WAIT;
	}
	mutex_unlock(&d->cb_run);
	return served;
}

static void served(struct srcu_domain *d, enum served how)
{
	if (how == SERVED_BATCH || how == SERVED_SOME)
		push_kicked(d);
	if (how == MUST_WAIT) {
		d->parked = true;
		srcu_worker.nr_parked++;
	}
}

/* True if callbacks ran. */
static bool pass(struct srcu_domain *domains)
{
	bool scanning = false, ran = false;

	for (struct srcu_domain *d = domains; d; d = d->next_served) {
		scan_first_half(d);
		scanning |= d->scanning;
	}
	if (scanning)
		srcu_heavy_barrier();
	for (struct srcu_domain *d = domains, *next; d; d = next) {
		enum srcu_progress progress = scan_second_half(d);
		enum served how = run_what_passed(d, progress);

		/* Before it is served: then it may be ready again, and is in no pass. */
		next = d->next_served;
		served(d, how);
		ran |= how == SERVED_BATCH;
	}
	return ran;
}

/* The worker may end: somebody asked it to, and no domain waits for a reader. */
static bool may_end(void)
{
	return smp_load_acquire(&srcu_worker.stop) && !srcu_worker.nr_parked;
}

/* The domains that are ready, the first to be kicked in front. NULL: the worker is to end. */
static struct srcu_domain *take_ready(void)
{
	struct srcu_domain *kicked, *first = NULL;
	bool end;

	for (;;) {
		/* In this order: what was kicked before the stop is served. */
		end = may_end();
		kicked = xchg(&srcu_worker.kicked, NULL);
		if (kicked || end)
			break;
		wait_event(srcu_worker.wait, READ_ONCE(srcu_worker.kicked) || may_end());
	}
	while (kicked) {
		struct srcu_domain *d = kicked;

		kicked = d->next_kicked;
		d->next_served = first;
		first = d;
		if (d->parked) {
			d->parked = false;
			srcu_worker.nr_parked--;
		}
		/* From here on it may be pushed again. Pairs with push_kicked(). */
		xchg(&d->kicked, 0);
	}
	return first;
}

/* The CPUs that the program was given: before main(), as its threads may bind themselves. */
static cpu_set_t program_cpus;

__attribute__((constructor)) static void remember_cpus(void)
{
	/* If there are more than it can name it stays all zeroes, which nobody can be bound to. */
	sched_getaffinity(0, sizeof(program_cpus), &program_cpus);
}

static void worker_main(void *unused)
{
	struct srcu_domain *ready;

	(void)unused;
	/* Not those of whoever started it, who may have work of its own for them. */
	sched_setaffinity(0, sizeof(program_cpus), &program_cpus);
	while ((ready = take_ready()))
		if (pass(ready))
			fsleep(SRCU_NAP_US);
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
	ret = start_thread();
	if (ret)
		goto out;
	/*
	 * Full barrier between this and the look at the queues. Pairs with the exchanges of
	 * call_srcu(), between the queue and the look at pid: one of us finds the other.
	 */
	xchg(&srcu_worker.pid, pid);
	srcu_for_each_domain(kick_if_queued);
out:
	mutex_unlock(&srcu_worker.control);
	return ret;
}

void srcu_workers_stop(void)
{
	ASSERT(!current_thread()->srcu_running, "srcu_workers_stop() by a callback");
	lock_map_visit(&worker_map);
	mutex_lock(&srcu_worker.control);
	if (srcu_worker.pid == getpid()) {
		smp_store_release(&srcu_worker.stop, true);
		wake_up_all(&srcu_worker.wait);
		kthread_join(&srcu_worker.thread);
		/* A domain that is kicked meanwhile stays in the stack, for the next worker. */
		WRITE_ONCE(srcu_worker.pid, 0);
		srcu_worker.stop = false;
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
	d->kicked = 0;
	d->parked = false;
	/* Unless a callback forked. */
	if (!srcu_runs_callbacks(d))
		init_cb_run(d);
}

/* No kick comes between this and the next start: the pid is the parent's, or none. */
void srcu_worker_forked(void)
{
	mutex_init(&srcu_worker.control);
	srcu_worker.kicked = NULL;
	srcu_worker.nr_parked = 0;
	srcu_worker.stop = false;
	init_waitqueue_head(&srcu_worker.wait);
}
