/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Where SRCU domains come from and go to: the pool and its limit, what is refused, and the first
 * use in a process, by many threads or with no memory. The pool's file is part of this one, so that
 * what it calls can fail.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "notifier/sync/alloc.h"
#include "tests/support/srcu_probe.h"
#include "tests/support/test.h"

static int fork_hooks;
static bool no_fork_hook, no_memory;

static int count_fork_hook(void (*prepare)(void), void (*parent)(void), void (*child)(void))
{
	if (no_fork_hook)
		return -ENOMEM;
	fork_hooks++;
	return thread_at_fork(prepare, parent, child);
}

#undef kzalloc
#define kzalloc(size, flags)	(no_memory ? NULL : (kzalloc)(size, flags))
#define thread_at_fork(p, q, c) count_fork_hook(p, q, c)
#include "notifier/srcu_domain.c"

static struct srcu_struct srcu, all[SRCU_MAX_DOMAINS + 1];
static atomic_t ran;

static void init(struct srcu_struct *ssp)
{
	expect_eq(init_srcu_struct(ssp), 0);
}

static void clean(struct srcu_struct *ssp)
{
	expect_eq(cleanup_srcu_struct(ssp), 0);
}

static void count(struct srcu_head *head)
{
	(void)head;
	atomic_inc_return(&ran);
}

/* ---- the pool ---- */

static void expect_distinct(int nr)
{
	static bool seen[SRCU_MAX_DOMAINS];

	memset(seen, 0, sizeof(seen));
	for (int i = 0; i < nr; i++) {
		struct srcu_domain *d = all[i].d;

		expect(d->number < SRCU_MAX_DOMAINS && !seen[d->number]);
		seen[d->number] = true;
		expect_eq(srcu_domains[d->number], d);
		expect_eq(d->ssp, &all[i]);
		expect_eq(srcu_offset_idx(all[i].cur), 0);
		expect_eq(all[i].cur / sizeof(struct srcu_counts), d->number);
	}
}

static bool is_inside(struct srcu_struct *ssp)
{
	return !poll_state_synchronize_srcu(ssp, start_poll_synchronize_srcu(ssp));
}

/* The cookie of a domain names it whole: an unlock is counted in that one, and in no other. */
static void expect_own_sections(struct srcu_struct *ssp)
{
	int cookie = srcu_down_read(ssp);

	expect(is_inside(ssp));
	srcu_up_read(ssp, cookie);
	expect(!is_inside(ssp));
}

/* All that there can be, and not one more; twice, as each of them must have come back. */
TEST(srcu_pool, as_many_as_there_are)
{
	for (int round = 0; round < 2; round++) {
		for (unsigned int i = 0; i < SRCU_MAX_DOMAINS; i++)
			init(&all[i]);
		expect_distinct(SRCU_MAX_DOMAINS);
		memset(&srcu, 0xff, sizeof(srcu));
		expect_eq(init_srcu_struct(&srcu), -ENOMEM);
		expect(!srcu.d);
		for (unsigned int i = 0; i < SRCU_MAX_DOMAINS; i++)
			expect_own_sections(&all[i]);
		/* The last one that went is the first to come. */
		for (unsigned int i = 0; i < SRCU_MAX_DOMAINS; i++)
			clean(&all[i]);
		init(&srcu);
		expect_eq(srcu.d, srcu_domains[srcu.d->number]);
		clean(&srcu);
	}
}

TEST(srcu_pool, no_memory)
{
	no_memory = true;
	expect_eq(init_srcu_struct(&srcu), -ENOMEM);
	expect(!srcu.d);
	no_memory = false;
	init(&srcu);
	no_memory = true; /* of no use to those that are there already */
	init(&all[0]);
	clean(&all[0]);
	clean(&srcu);
}

TEST(srcu_pool, blocks_come_back)
{
	struct srcu_domain *first, *second;

	init(&all[0]);
	init(&all[1]);
	first = all[0].d;
	second = all[1].d;
	clean(&all[0]);
	/* Nothing of the owner is left in it. */
	expect(!first->ssp);
	clean(&all[1]);
	init(&all[2]);
	init(&all[3]);
	expect_eq(all[2].d, second);
	expect_eq(all[3].d, first);
	clean(&all[2]);
	clean(&all[3]);
}

/* The first block of the pool is as good as the last: a worker that is started looks at all. */
TEST(srcu_pool, worker_looks_at_every_domain)
{
	static struct srcu_head heads[40];

	for (int i = 0; i < 40; i++) {
		init(&all[i]);
		call_srcu(&all[i], &heads[i], count);
	}
	expect_distinct(40);
	expect_eq(srcu_workers_start(), 0);
	while (atomic_read_acquire(&ran) < 40)
		sched_yield();
	srcu_workers_stop();
	for (int i = 0; i < 40; i++)
		clean(&all[i]);
}

/* A section that is open while another domain is made. */
TEST(srcu_pool, made_beside_a_reader)
{
	struct sitter reader;
	unsigned long state;

	init(&srcu);
	sitter_start(&reader, &srcu);
	init(&all[0]);
	state = start_poll_synchronize_srcu(&srcu);
	expect(!poll_state_synchronize_srcu(&srcu, state));
	synchronize_srcu(&all[0]);
	sitter_stop(&reader);
	expect(poll_state_synchronize_srcu(&srcu, state));
	clean(&all[0]);
	clean(&srcu);
	expect_eq(fork_hooks, 1);
}

static void make_many(void *arg)
{
	(void)arg;
	for (int i = 0; i < 512; i++)
		init(&all[i]);
}

static void look(struct srcu_domain *d)
{
	expect_eq(srcu_domains[d->number], d);
}

/* The list of all may grow while somebody walks it. */
TEST(srcu_pool, walked_while_it_grows)
{
	struct kthread maker;

	init(&srcu);
	expect_eq(kthread_run(&maker, "maker", make_many, NULL), 0);
	for (int i = 0; i < 100; i++)
		srcu_for_each_domain(look);
	kthread_join(&maker);
	for (int i = 0; i < 512; i++)
		clean(&all[i]);
	clean(&srcu);
}

/* ---- the first one in the process ---- */

TEST(srcu_pool, no_hook_for_forks)
{
	no_fork_hook = true;
	expect_eq(init_srcu_struct(&srcu), -ENOMEM);
	expect(!srcu.d);
	/* It may be tried again. */
	no_fork_hook = false;
	init(&srcu);
	expect_eq(fork_hooks, 1);
	clean(&srcu);
}

static void first_use(void *arg)
{
	struct srcu_struct mine;

	(void)arg;
	init(&mine);
	srcu_read_unlock(&mine, srcu_read_lock(&mine));
	clean(&mine);
}

TEST(srcu_pool, first_use_by_many_threads)
{
	struct kthread threads[8];

	for (int i = 0; i < 8; i++)
		expect_eq(kthread_run(&threads[i], "first", first_use, NULL), 0);
	for (int i = 0; i < 8; i++)
		kthread_join(&threads[i]);
	expect_eq(fork_hooks, 1);
}

/* The second one waits for the first, and has nothing left to do. */
TEST(srcu_pool, first_use_meets_first_use)
{
	struct kthread second;

	mutex_lock(&srcu_setup.lock);
	expect_eq(kthread_run(&second, "second", first_use, NULL), 0);
	while (READ_ONCE(srcu_setup.lock.raw.state) != 2)
		sched_yield();
	expect_eq(thread_at_fork(fork_prepare, fork_parent, fork_child), 0);
	expect_eq(srcu_slots_init(), 0);
	smp_store_release(&srcu_setup.done, true);
	mutex_unlock(&srcu_setup.lock);
	kthread_join(&second);
	expect_eq(fork_hooks, 1);
}

/*
 * What was set up is handed over with the flag alone: not everybody comes by a lock that the one
 * who set it up has dropped since. For ThreadSanitizer; told and heard order nothing.
 */
static atomic_t told;

static void use_what_was_set_up(void *arg)
{
	(void)arg;
	while (!atomic_read(&told))
		sched_yield();
	expect_eq(setup(), 0);
	srcu_count_slow(0);
	srcu_count_slow(__SRCU_UNLOCK);
}

TEST(srcu_pool, flag_hands_over_what_was_set_up)
{
	struct kthread user;

	expect_eq(kthread_run(&user, "user", use_what_was_set_up, NULL), 0);
	expect_eq(setup(), 0);
	atomic_set(&told, 1);
	kthread_join(&user);
}

/* ---- cleanup ---- */

static int warnings;

static void hear_warning(enum gnomon_log_level level, const char *message, void *arg)
{
	(void)level, (void)arg;
	expect_str_contains(message, "cleaned up with a reader inside");
	warnings++;
}

/* Callbacks are queued that wait for that reader: cleanup does not. */
TEST(srcu_pool, cleanup_waits_for_no_reader)
{
	struct srcu_head head;
	int cookie;

	init(&srcu);
	gnomon_set_log(hear_warning, NULL);
	cookie = srcu_down_read(&srcu);
	call_srcu(&srcu, &head, count);
	expect_eq(cleanup_srcu_struct(&srcu), -EBUSY);
	expect_eq(warnings, 1);
	expect_eq(atomic_read(&ran), 0);
	srcu_up_read(&srcu, cookie);
	clean(&srcu);
	expect_eq(atomic_read(&ran), 1);
}

static int left_open;

static void enter_and_stay(struct srcu_head *head)
{
	(void)head;
	left_open = srcu_down_read(&srcu);
}

/* The reader that was not there yet at the first look. */
TEST(srcu_pool, cleanup_sees_readers_that_callbacks_left)
{
	struct srcu_head head;

	init(&srcu);
	gnomon_set_log(hear_warning, NULL);
	call_srcu(&srcu, &head, enter_and_stay);
	expect_eq(cleanup_srcu_struct(&srcu), -EBUSY);
	expect_eq(warnings, 1);
	srcu_up_read(&srcu, left_open);
	clean(&srcu);
}

static void clean_up(struct srcu_head *head)
{
	(void)head;
	cleanup_srcu_struct(&srcu);
}

static void clean_up_in_own_callback(void *arg)
{
	struct srcu_head head;

	(void)arg;
	call_srcu(&srcu, &head, clean_up);
	srcu_barrier(&srcu);
}

#ifdef CONFIG_LOCKDEP
/* With a reader inside, it would be back before anything that sleeps. */
static void clean_up_under_spinlock(void *arg)
{
	DEFINE_SPINLOCK(lock);

	(void)arg;
	srcu_down_read(&srcu);
	spin_lock(&lock);
	cleanup_srcu_struct(&srcu);
}

/* Nothing is queued: it would be back at once. */
static void barrier_under_spinlock(void *arg)
{
	DEFINE_SPINLOCK(lock);

	(void)arg;
	spin_lock(&lock);
	srcu_barrier(&srcu);
}
#endif

TEST(srcu_pool, misuse_is_a_bug)
{
	init(&srcu);
	expect_bug(clean_up_in_own_callback, NULL, "is cleaned up by one of its own callbacks");
#ifdef CONFIG_LOCKDEP
	expect_bug(clean_up_under_spinlock, NULL, "may sleep");
	expect_bug(barrier_under_spinlock, NULL, "may sleep");
#endif
	clean(&srcu);
}
