/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Locks under real threads. The oracle of exclusion is a plain counter: no lock, lost increments
 * (and a report of ThreadSanitizer).
 */
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "notifier/sync/lock.h"
#include "notifier/sync/thread.h"
#include "tests/support/park.h"
#include "tests/support/relax.h"
#include "tests/support/step.h"
#include "tests/support/test.h"

#define NR_THREADS 4

static unsigned long rounds(void)
{
	return test_long() ? 500000 : 20000;
}

static void run_threads(void (*fn)(void *arg), void *arg, int nr)
{
	struct kthread threads[NR_THREADS * 2];

	for (int i = 0; i < nr; i++)
		expect_eq(kthread_run(&threads[i], "locker", fn, arg), 0);
	for (int i = 0; i < nr; i++)
		kthread_join(&threads[i]);
}

/* ---- what init does not find ---- */

#ifdef CONFIG_LOCKDEP
static void count_named(const struct lockdep_edge *edge, void *arg)
{
	if (!strcmp(edge->held, "before") && strstr(edge->taken, "init_me"))
		++*(int *)arg;
}
#endif

/* Whatever was in the memory before: it is free, and of a class named after this place. */
TEST(lock, init_wipes)
{
	static DEFINE_MUTEX(before);
	struct {
		spinlock_t spin;
		struct mutex mutex;
		struct rw_semaphore sem;
	} init_me;

	memset(&init_me, 0xa5, sizeof(init_me));
	spin_lock_init(&init_me.spin);
	mutex_init(&init_me.mutex);
	init_rwsem(&init_me.sem);
	mutex_lock(&before);
	expect(spin_trylock(&init_me.spin));
	spin_unlock(&init_me.spin);
	spin_lock(&init_me.spin);
	spin_unlock(&init_me.spin);
	expect(mutex_trylock(&init_me.mutex));
	mutex_unlock(&init_me.mutex);
	mutex_lock(&init_me.mutex);
	mutex_unlock(&init_me.mutex);
	expect(down_write_trylock(&init_me.sem));
	expect(!init_me.sem.head && !init_me.sem.tail && !init_me.sem.wait_lock.state);
	up_write(&init_me.sem);
	down_write(&init_me.sem);
	up_write(&init_me.sem);
	mutex_unlock(&before);
#ifdef CONFIG_LOCKDEP
	{
		int named = 0;

		lockdep_dump(count_named, &named);
		expect_eq(named, 3);
	}
#endif
}

/* ---- exclusion ---- */

static struct shared {
	spinlock_t spin;
	struct mutex mutex;
	struct rw_semaphore sem;
	unsigned long a, b; /* equal whenever nobody is inside */
	unsigned long tries_won;
} shared;

/* Long enough, now and then, for the others to give up spinning and sleep. */
static void enter_and_leave(unsigned long i)
{
	shared.a++;
	if (i % 512 == 0)
		sched_yield();
	shared.b++;
	expect_eq(shared.a, shared.b);
}

static void use_spinlock(void *arg)
{
	(void)arg;
	for (unsigned long i = 0; i < rounds(); i++) {
		spin_lock(&shared.spin);
		enter_and_leave(i);
		spin_unlock(&shared.spin);
	}
}

TEST(lock, spinlock_excludes)
{
	spin_lock_init(&shared.spin);
	run_threads(use_spinlock, NULL, NR_THREADS);
	expect_eq(shared.a, NR_THREADS * rounds());
	expect_eq(shared.spin.raw.state, 0);
}

static void use_mutex(void *arg)
{
	(void)arg;
	for (unsigned long i = 0; i < rounds(); i++) {
		mutex_lock(&shared.mutex);
		enter_and_leave(i);
		mutex_unlock(&shared.mutex);
	}
}

TEST(lock, mutex_excludes)
{
	mutex_init(&shared.mutex);
	run_threads(use_mutex, NULL, NR_THREADS * 2);
	expect_eq(shared.a, NR_THREADS * 2 * rounds());
	expect_eq(shared.mutex.raw.state, 0);
}

static void use_trylock(void *arg)
{
	unsigned long won = 0;

	(void)arg;
	for (unsigned long i = 0; won < rounds() / 10; i++) {
		if (!mutex_trylock(&shared.mutex)) {
			sched_yield();
			continue;
		}
		won++;
		enter_and_leave(i);
		mutex_unlock(&shared.mutex);
	}
}

TEST(lock, trylock_excludes)
{
	run_threads(use_trylock, NULL, NR_THREADS);
	expect_eq(shared.a, NR_THREADS * (rounds() / 10));
}

static struct park holding;

static void hold_spinlock(void *arg)
{
	(void)arg;
	spin_lock(&shared.spin);
	atomic_set(&holding.arrived, 1);
	while (!atomic_read(&holding.open))
		sched_yield();
	spin_unlock(&shared.spin);
}

static void try_all(void *arg)
{
	(void)arg;
	expect(!mutex_trylock(&shared.mutex));
	expect(!down_write_trylock(&shared.sem));
	expect(!down_read_trylock(&shared.sem));
}

TEST(lock, trylock_fails_when_held)
{
	struct kthread holder;

	mutex_lock(&shared.mutex);
	down_write(&shared.sem);
	run_threads(try_all, NULL, 1);
	up_write(&shared.sem);
	mutex_unlock(&shared.mutex);

	expect_eq(kthread_run(&holder, "holder", hold_spinlock, NULL), 0);
	while (!atomic_read(&holding.arrived))
		sched_yield();
	expect(!spin_trylock(&shared.spin));
	atomic_set(&holding.open, 1);
	kthread_join(&holder);
	expect(spin_trylock(&shared.spin));
	spin_unlock(&shared.spin);

	expect(down_read_trylock(&shared.sem));
	expect(!down_write_trylock(&shared.sem));
	up_read(&shared.sem);
	expect_eq(shared.sem.count, 0);
}

static atomic64_t reads_inside;

static void use_rwsem(void *arg)
{
	unsigned long i;

	(void)arg;
	for (i = 0; i < rounds(); i++) {
		if (i % 4 == 0) {
			down_write(&shared.sem);
			enter_and_leave(i);
			if (i % 512 == 0) {
				unsigned long a = shared.a;

				downgrade_write(&shared.sem);
				sched_yield();
				expect_eq(shared.a, a); /* nobody wrote in between */
				up_read(&shared.sem);
			} else {
				up_write(&shared.sem);
			}
		} else {
			down_read(&shared.sem);
			expect_eq(shared.a, shared.b);
			if (i % 257 == 0)
				sched_yield();
			expect_eq(shared.a, shared.b);
			up_read(&shared.sem);
			atomic64_inc(&reads_inside);
		}
	}
}

TEST(lock, rwsem_excludes)
{
	const unsigned long writes = (rounds() + 3) / 4;

	init_rwsem(&shared.sem);
	run_threads(use_rwsem, NULL, NR_THREADS);
	expect_eq(shared.a, NR_THREADS * writes);
	expect_eq(atomic64_read(&reads_inside), NR_THREADS * (rounds() - writes));
	expect_eq(shared.sem.count, 0);
	expect(!shared.sem.head && !shared.sem.tail);
}

/* ---- the order in which an rwsem lets its waiters in ---- */

struct guest {
	struct kthread thread;
	bool write;
	struct park inside;
	unsigned int order; /* in which it came in, from 1 */
};

static atomic_t next_order;

static void guest_main(void *arg)
{
	struct guest *g = arg;

	if (g->write)
		down_write(&shared.sem);
	else
		down_read(&shared.sem);
	g->order = (unsigned int)atomic_inc_return(&next_order);
	park_enter(&g->inside);
	if (g->write)
		up_write(&shared.sem);
	else
		up_read(&shared.sem);
}

static unsigned int queue_length(void)
{
	struct rwsem_waiter {
		struct rwsem_waiter *next; /* the first member of lock.c's */
	} * w;
	unsigned int n = 0;

	raw_lock(&shared.sem.wait_lock);
	for (w = (struct rwsem_waiter *)shared.sem.head; w; w = w->next)
		n++;
	raw_unlock(&shared.sem.wait_lock);
	return n;
}

/* Start a thread that has to queue, as number @nr, and see it there. */
static void queue_up(struct guest *g, bool write, unsigned int nr)
{
	g->write = write;
	park_init(&g->inside);
	expect_eq(kthread_run(&g->thread, "guest", guest_main, g), 0);
	while (queue_length() < nr)
		sched_yield();
}

static void leave(struct guest *g)
{
	park_release(&g->inside);
	kthread_join(&g->thread);
}

/* Reader inside; queue: writer, reader. The reader may not join: it would overtake the writer. */
TEST(lock, rwsem_waiting_writer_stops_new_readers)
{
	struct guest w, r;

	down_read(&shared.sem);
	queue_up(&w, true, 1);
	expect(!down_read_trylock(&shared.sem));
	queue_up(&r, false, 2);
	up_read(&shared.sem);

	park_wait(&w.inside, 1);
	expect_eq(atomic_read(&r.inside.arrived), 0);
	expect_eq(queue_length(), 1);
	leave(&w);
	park_wait(&r.inside, 1);
	leave(&r);
	expect_eq(w.order, 1);
	expect_eq(r.order, 2);
}

/* Queue: r1 r2 w r3. One up_write lets in r1 and r2 together, and nobody else. */
TEST(lock, rwsem_readers_come_in_together)
{
	struct guest r1, r2, r3, w;

	down_write(&shared.sem);
	queue_up(&r1, false, 1);
	queue_up(&r2, false, 2);
	queue_up(&w, true, 3);
	queue_up(&r3, false, 4);
	up_write(&shared.sem);

	park_wait(&r1.inside, 1);
	park_wait(&r2.inside, 1);
	expect_eq(queue_length(), 2);
	leave(&r1);
	expect_eq(atomic_read(&w.inside.arrived), 0);
	leave(&r2);
	park_wait(&w.inside, 1);
	expect_eq(atomic_read(&r3.inside.arrived), 0);
	leave(&w);
	leave(&r3);
	expect_eq(w.order, 3);
	expect_eq(r3.order, 4);
	expect_eq(shared.sem.count, 0);
}

/* Queue: r w. A downgrade lets r in beside us, and w not before both left. */
TEST(lock, rwsem_downgrade_lets_readers_in)
{
	struct guest r, w;

	down_write(&shared.sem);
	queue_up(&r, false, 1);
	queue_up(&w, true, 2);
	downgrade_write(&shared.sem);
	park_wait(&r.inside, 1);
	leave(&r);
	expect_eq(queue_length(), 1);
	expect_eq(atomic_read(&w.inside.arrived), 0);
	up_read(&shared.sem);
	park_wait(&w.inside, 1);
	leave(&w);
}

static atomic_t downgraded;

static void read_after_downgrade(void *arg)
{
	(void)arg;
	/* Relaxed: the lock is what orders. */
	while (!atomic_read(&downgraded))
		sched_yield();
	down_read(&shared.sem);
	expect_eq(shared.a, 1);
	up_read(&shared.sem);
}

/* Who comes in beside a writer that became a reader sees what it wrote. Oracle: TSan. */
TEST(lock, rwsem_downgrade_publishes)
{
	struct kthread reader;

	expect_eq(kthread_run(&reader, "reader", read_after_downgrade, NULL), 0);
	down_write(&shared.sem);
	shared.a = 1;
	downgrade_write(&shared.sem);
	atomic_set(&downgraded, 1);
	kthread_join(&reader);
	up_read(&shared.sem);
}

static atomic_t writer_done;

static void write_once(void *arg)
{
	(void)arg;
	down_write(&shared.sem);
	shared.a++;
	up_write(&shared.sem);
	atomic_set(&writer_done, 1);
}

static void read_overlapping(void *arg)
{
	(void)arg;
	while (!atomic_read(&writer_done)) {
		down_read(&shared.sem);
		atomic64_inc(&reads_inside);
		sched_yield();
		up_read(&shared.sem);
	}
}

/* Readers that always overlap do not starve a writer: this ends. */
TEST(lock, rwsem_writer_is_not_starved)
{
	struct kthread readers[NR_THREADS];

	for (int n = 0; n < 50; n++) {
		struct kthread writer;

		atomic_set(&writer_done, 0);
		atomic64_set(&reads_inside, 0);
		for (int i = 0; i < NR_THREADS; i++)
			expect_eq(kthread_run(&readers[i], "reader", read_overlapping, NULL), 0);
		while (atomic64_read(&reads_inside) < 100)
			sched_yield();
		expect_eq(kthread_run(&writer, "writer", write_once, NULL), 0);
		kthread_join(&writer);
		for (int i = 0; i < NR_THREADS; i++)
			kthread_join(&readers[i]);
	}
	expect_eq(shared.a, 50);
}

/*
 * The holder leaves at every moment of the newcomer's way into the queue; also just before its
 * entry there, when nobody else would come to let it in: this hangs if it does not look itself.
 */
static atomic64_t sweep_held, sweep_done;

static void sweep_newcomer(void *arg)
{
	bool write = *(bool *)arg;

	for (int64_t i = 1; poll_until(&sweep_held, i) != SWEEP_OVER; i++) {
		if (write) {
			down_write(&shared.sem);
			up_write(&shared.sem);
		} else {
			down_read(&shared.sem);
			up_read(&shared.sem);
		}
		atomic64_set_release(&sweep_done, i);
	}
}

static void run_sweep(bool write)
{
	struct sweep sweep = sweep_start(60000);
	struct kthread newcomer;

	expect_eq(kthread_run(&newcomer, "newcomer", sweep_newcomer, &write), 0);
	for (int64_t i = 1; sweep_goes_on(&sweep, i); i++) {
		down_write(&shared.sem);
		atomic64_set_release(&sweep_held, i);
		relax((unsigned int)(i % 300));
		up_write(&shared.sem);
		poll_until(&sweep_done, i);
	}
	atomic64_set_release(&sweep_held, SWEEP_OVER);
	kthread_join(&newcomer);
	expect_eq(shared.sem.count, 0);
}

TEST(lock, rwsem_holder_leaves_as_a_writer_queues)
{
	run_sweep(true);
}

TEST(lock, rwsem_holder_leaves_as_a_reader_queues)
{
	run_sweep(false);
}

/*
 * Readers leave at every moment of a reader's way in through the queue, also between its look at
 * the count and its own entry there. wait_lock holds it up until they are inside. Once it was in it
 * comes back and writes: after all that the others read, also those who left when the queue was
 * empty again, for whom no one but the count speaks.
 */
#define MANY_READERS 64

static void read_then_write(void *arg)
{
	(void)arg;
	for (int64_t i = 1; poll_until(&sweep_held, i) != SWEEP_OVER; i++) {
		down_read(&shared.sem);
		up_read(&shared.sem);
		down_write(&shared.sem);
		shared.a++;
		up_write(&shared.sem);
		atomic64_set_release(&sweep_done, i);
	}
}

/* Neither in the queue nor done. */
static bool newcomer_on_its_way(int64_t i)
{
	return atomic64_read(&sweep_done) < i && !(READ_ONCE(shared.sem.count) & RWSEM_WAITERS);
}

TEST(lock, rwsem_readers_leave_as_a_reader_queues)
{
	struct sweep sweep = sweep_start(2000); /* each round takes system calls */
	struct kthread newcomer;
	unsigned long seen = 0;

	expect_eq(kthread_run(&newcomer, "newcomer", read_then_write, NULL), 0);
	for (int64_t i = 1; sweep_goes_on(&sweep, i); i++) {
		const int readers = i % 3 ? 1 : MANY_READERS;
		int inside;

		down_write(&shared.sem);
		raw_lock(&shared.sem.wait_lock);
		atomic64_set_release(&sweep_held, i);
		while (READ_ONCE(shared.sem.wait_lock.state) != 2)
			sched_yield();
		up_write(&shared.sem);
		for (inside = 0; inside < readers; inside++)
			expect(down_read_trylock(&shared.sem));
		seen = shared.a;
		raw_unlock(&shared.sem.wait_lock);

		/* Out and in again, to be on the way when it queues. */
		while (i % 3 == 1 && newcomer_on_its_way(i)) {
			up_read(&shared.sem);
			inside--;
			if (!down_read_trylock(&shared.sem))
				break;
			inside++;
			seen = shared.a;
		}
		/* Or out as soon as it queues: as a reader, or later as a writer who waits for us.
		 */
		while (inside && newcomer_on_its_way(i))
			cpu_relax();
		while (inside--)
			up_read(&shared.sem);
		poll_until(&sweep_done, i);
		expect_eq(shared.sem.count, 0);
		expect_le(seen, i);
	}
	atomic64_set_release(&sweep_held, SWEEP_OVER);
	kthread_join(&newcomer);
}

/*
 * The same, instruction by instruction: a reader queues behind a writer, who leaves as two other
 * readers come. Then one of them leaves, after each instruction in turn.
 */
struct queueing {
	unsigned int came, leave_after;
	bool left;
};

static void others_come_and_go(struct step *step)
{
	struct queueing *q = step->arg;

	if (!q->came && READ_ONCE(shared.sem.wait_lock.state)) {
		q->came = step->nr;
		__up_write(&shared.sem);
		expect(__down_read_trylock(&shared.sem));
		expect(__down_read_trylock(&shared.sem));
	} else if (q->came && !q->left && step->nr >= q->came + q->leave_after) {
		q->left = step->over = true;
		__up_read(&shared.sem);
	}
}

TEST(lock, rwsem_reader_leaves_at_each_step_of_one_that_queues)
{
	struct queueing q = {.left = true};
	struct sweep sweep = sweep_start(2000);

	step_skip();
	for (unsigned int n = 1; q.left && sweep_goes_on(&sweep, n); n++) {
		struct step step = {.at_each = others_come_and_go, .arg = &q};

		q = (struct queueing){.leave_after = n};
		expect(__down_write_trylock(&shared.sem));
		step_begin(&step);
		rwsem_down_slow(&shared.sem, false);
		step_end();
		expect(q.came);
		expect_eq(shared.sem.count, (q.left ? 2 : 3) * RWSEM_READER);
		expect(!shared.sem.head && !shared.sem.tail);
		for (uint32_t left = shared.sem.count / RWSEM_READER; left; left--)
			__up_read(&shared.sem);
		expect_eq(shared.sem.count, 0);
	}
}

/* ---- the last owner frees the lock (rule 3 of lock.h) ---- */

struct object {
	spinlock_t spin;
	struct mutex mutex;
	struct rw_semaphore sem;
	int users[4]; /* under each lock */
};

enum { BY_SPIN, BY_MUTEX, BY_SEM, BY_TRY };

struct handoff {
	atomic64_t round; /* the one that may begin; SWEEP_OVER: none */
	wait_queue_head_t wait;
	struct object *object; /* of that round */
	struct sweep sweep;
	int kind;
};

static void next_object(struct handoff *h, int64_t round)
{
	if (sweep_goes_on(&h->sweep, round)) {
		h->object = calloc(1, sizeof(*h->object));
		h->object->users[h->kind] = NR_THREADS;
	} else {
		h->object = NULL;
		round = SWEEP_OVER;
	}
	atomic64_set_release(&h->round, round);
	wake_up_all(&h->wait);
}

static bool drop_object(struct object *o, int kind)
{
	int left;

	switch (kind) {
	case BY_SPIN:
		spin_lock(&o->spin);
		left = --o->users[kind];
		sched_yield(); /* so that the others wait, and come in right behind us */
		spin_unlock(&o->spin);
		break;
	case BY_MUTEX:
		mutex_lock(&o->mutex);
		left = --o->users[kind];
		sched_yield();
		mutex_unlock(&o->mutex);
		break;
	case BY_TRY:
		/* Nobody ever sleeps: what an unlock then still does with the lock is too much. */
		while (!mutex_trylock(&o->mutex))
			sched_yield();
		left = --o->users[kind];
		mutex_unlock(&o->mutex);
		break;
	default:
		/* Readers on the way, so that the last one of them has to look after a queue. */
		down_read(&o->sem);
		up_read(&o->sem);
		down_write(&o->sem);
		left = --o->users[kind];
		sched_yield();
		up_write(&o->sem);
		break;
	}
	return left == 0;
}

static void drop_objects(void *arg)
{
	struct handoff *h = arg;

	for (int64_t round = 1;; round++) {
		struct object *o;

		wait_event(h->wait, atomic64_read_acquire(&h->round) >= round);
		o = h->object;
		if (!o)
			break;
		if (drop_object(o, h->kind)) {
			memset(o, 0xff, sizeof(*o));
			free(o);
			next_object(h, round + 1);
		}
	}
}

/*
 * NR_THREADS drop their reference under the lock; whoever is the last fills the object with ones
 * and frees it, while the one before may still be inside its unlock. ASan sees it touch the lock;
 * without ASan the ones make it hang.
 */
static void run_handoff(int kind)
{
	struct handoff h = {.kind = kind, .sweep = sweep_start(5000)};

	next_object(&h, 1);
	run_threads(drop_objects, &h, NR_THREADS);
	expect_eq(atomic64_read(&h.round), SWEEP_OVER);
}

TEST(lock, last_owner_frees_spinlock)
{
	run_handoff(BY_SPIN);
}

TEST(lock, last_owner_frees_mutex)
{
	run_handoff(BY_MUTEX);
}

TEST(lock, last_owner_frees_what_nobody_awaits)
{
	run_handoff(BY_TRY);
}

TEST(lock, last_owner_frees_rwsem)
{
	run_handoff(BY_SEM);
}

/* ---- fork ---- */

/* Zeroes are unlocked, nothing is set up by a constructor, and a child can go on. */
TEST(lock, work_in_a_forked_child)
{
	int status;
	pid_t pid;

	mutex_lock(&shared.mutex);
	pid = fork();
	expect_ge(pid, 0);
	if (pid == 0) {
		/* Ours in the parent, so ours here. */
		mutex_unlock(&shared.mutex);
		mutex_lock(&shared.mutex);
		down_write(&shared.sem);
		spin_lock(&shared.spin);
		spin_unlock(&shared.spin);
		up_write(&shared.sem);
		mutex_unlock(&shared.mutex);
		_exit(17);
	}
	mutex_unlock(&shared.mutex);
	expect_eq(waitpid(pid, &status, 0), pid);
	expect(WIFEXITED(status));
	expect_eq(WEXITSTATUS(status), 17);
}
