/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Orders of locks: a cycle is reported when its last order is seen for the first time, with both
 * chains; and what is no cycle is not reported. Debug builds only.
 */
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "notifier/sync/lock.h"
#include "notifier/sync/thread.h"
#include "tests/support/test.h"

#ifndef CONFIG_LOCKDEP

TEST(lockdep_graph, needs_a_debug_build)
{
	skip("built without CONFIG_LOCKDEP");
}

#else

static DEFINE_MUTEX(a);
static DEFINE_MUTEX(b);
static DEFINE_MUTEX(c);
static DECLARE_RWSEM(sem);
static DEFINE_SPINLOCK(spin);

/* Instances of one class, as made by one init site. */
struct node {
	struct mutex lock;
};

static void init_nodes(struct node *nodes, int nr)
{
	for (struct node *node = nodes; node < nodes + nr; node++)
		mutex_init(&node->lock);
}

static void on_a_thread(void (*fn)(void *arg), void *arg)
{
	struct kthread t;

	expect_eq(kthread_run(&t, "other", fn, arg), 0);
	kthread_join(&t);
}

static void nest(struct mutex *outer, struct mutex *inner)
{
	mutex_lock(outer);
	mutex_lock(inner);
	mutex_unlock(inner);
	mutex_unlock(outer);
}

/* --- two locks: nobody has to hang for it, nor two threads to be there --- */

static int line_of_b, line_of_a;

static void a_then_b(void)
{
	mutex_lock(&a);
	line_of_b = __LINE__ + 1;
	mutex_lock(&b);
	mutex_unlock(&b);
	mutex_unlock(&a);
}

static void b_then_a(void *arg)
{
	(void)arg;
	mutex_lock(&b);
	line_of_a = __LINE__ + 1;
	mutex_lock(&a);
}

static void invert(void *arg)
{
	a_then_b();
	b_then_a(arg);
}

TEST(lockdep_graph, inversion_names_both_chains)
{
	char text[200];

	/* What is wrong, and what this thread holds. */
	expect_bug(invert, NULL, "takes a (mutex) in b_then_a() at ");
	expect_bug(invert, NULL, "while it holds b (mutex), taken in b_then_a() at ");
	expect_bug(invert, NULL, "but the order seen before is a -> b:");
	/* The other order, with its places. */
	expect_bug(invert, NULL, ": a, taken in a_then_b() at ");
	a_then_b();
	snprintf(text, sizeof(text), "then b, taken in a_then_b() at %s:%d", __FILE__, line_of_b);
	expect_bug(b_then_a, NULL, text);
	expect_bug(b_then_a, NULL, "innermost first:\ngnomon:     b (mutex 0x");
}

static void invert_read(void *arg)
{
	(void)arg;
	down_read(&sem);
	mutex_lock(&a);
	mutex_unlock(&a);
	up_read(&sem);
	mutex_lock(&a);
	down_read(&sem);
}

/* Readers wait for a writer that waits: an order of a reader counts as one of a writer. */
TEST(lockdep_graph, readers_have_an_order)
{
	expect_bug(invert_read, NULL, "takes sem (rwsem for reading)");
	expect_bug(invert_read, NULL, "the order seen before is sem -> a:");
}

static void invert_spin(void *arg)
{
	static DEFINE_SPINLOCK(other);

	(void)arg;
	spin_lock(&spin);
	spin_lock(&other);
	spin_unlock(&other);
	spin_unlock(&spin);
	spin_lock(&other);
	spin_lock(&spin);
}

TEST(lockdep_graph, spinlocks_have_an_order)
{
	expect_bug(invert_spin, NULL, "the order seen before is spin -> other:");
}

/* --- three locks, three threads, one after the other --- */

static void nest_ab(void *arg)
{
	(void)arg;
	nest(&a, &b);
}

static void nest_bc(void *arg)
{
	(void)arg;
	nest(&b, &c);
}

static void nest_ca(void *arg)
{
	(void)arg;
	nest(&c, &a);
}

static void three_threads(void *arg)
{
	on_a_thread(nest_ab, arg);
	on_a_thread(nest_bc, arg);
	on_a_thread(nest_ca, arg);
}

TEST(lockdep_graph, cycle_of_three_across_threads)
{
	expect_bug(three_threads, NULL, "the order seen before is a -> ... -> c:");
	expect_bug(three_threads, NULL, ": a, taken in nest() at");
	expect_bug(three_threads, NULL, "then b, taken in nest() at");
	expect_bug(three_threads, NULL, ": b, taken in nest() at");
	expect_bug(three_threads, NULL, "then c, taken in nest() at");
}

/* --- classes --- */

static void invert_class(void *arg)
{
	struct node nodes[2];

	(void)arg;
	init_nodes(nodes, 2);
	nest(&nodes[0].lock, &a);
	nest(&a, &nodes[1].lock);
}

TEST(lockdep_graph, instances_of_a_class_share_its_order)
{
	expect_bug(invert_class, NULL, "the order seen before is node->lock -> a:");
}

static void two_of_a_class(void *arg)
{
	struct node nodes[2];

	(void)arg;
	init_nodes(nodes, 2);
	nest(&nodes[0].lock, &nodes[1].lock);
}

TEST(lockdep_graph, two_of_a_class_need_a_reason)
{
	struct node nodes[2];
	struct rw_semaphore sems[3];

	expect_bug(two_of_a_class, NULL, "this thread holds another one of its class");

	init_nodes(nodes, 2);
	mutex_lock(&nodes[0].lock);
	mutex_lock_nested(&nodes[1].lock, SINGLE_DEPTH_NESTING);
	mutex_unlock(&nodes[1].lock);
	mutex_unlock(&nodes[0].lock);

	mutex_lock(&a);
	for (int i = 0; i < 3; i++) {
		init_rwsem(&sems[i]);
		down_write_nest_lock(&sems[i], &a);
	}
	for (int i = 0; i < 3; i++)
		up_write(&sems[i]);
	mutex_unlock(&a);
}

static void invert_subclass(void *arg)
{
	struct node nodes[2];

	(void)arg;
	init_nodes(nodes, 2);
	mutex_lock(&nodes[0].lock);
	mutex_lock_nested(&nodes[1].lock, SINGLE_DEPTH_NESTING);
	mutex_unlock(&nodes[1].lock);
	mutex_unlock(&nodes[0].lock);
	mutex_lock_nested(&nodes[0].lock, SINGLE_DEPTH_NESTING);
	mutex_lock(&nodes[1].lock);
}

static void nest_lock_not_held(void *arg)
{
	(void)arg;
	down_write_nest_lock(&sem, &a);
}

TEST(lockdep_graph, a_reason_is_checked)
{
	expect_bug(invert_subclass, NULL, "the order seen before is node->lock -> node->lock/1:");
	expect_bug(nest_lock_not_held, NULL, "makes it safe to take sem, so this thread holds it");
}

static void use(struct node *node)
{
	mutex_lock(&node->lock);
	mutex_unlock(&node->lock);
}

static void invert_zeroed(void *arg)
{
	static struct node zeroed[2];

	(void)arg;
	use(&zeroed[0]);
	use(&zeroed[1]);
	nest(&a, &zeroed[0].lock);
	nest(&zeroed[1].lock, &a);
}

/* Never initialised, so named after the place where it was first taken. */
TEST(lockdep_graph, zeroed_lock_has_a_class)
{
	expect_bug(invert_zeroed, NULL, "the order seen before is a -> node->lock:");
}

/* --- what is no cycle --- */

static void count_edge(const struct lockdep_edge *edge, void *arg)
{
	int *nr = arg;

	if (!strcmp(edge->held, "a") && !strcmp(edge->taken, "b")) {
		expect_str_eq(edge->held_site->func, "a_then_b");
		expect_str_eq(edge->taken_site->func, "a_then_b");
		expect_eq(edge->taken_site->line, line_of_b);
		++*nr;
	}
	expect(strcmp(edge->held, "b") || strcmp(edge->taken, "a"));
}

TEST(lockdep_graph, dump_has_each_order_once)
{
	int nr = 0;

	for (int i = 0; i < 10; i++)
		a_then_b();
	lockdep_dump(count_edge, &nr);
	expect_eq(nr, 1);
}

/* A trylock does not wait, so its order is none; what is taken under it has one. */
static void under_trylock(void *arg)
{
	(void)arg;
	mutex_lock(&a);
	expect(mutex_trylock(&b));
	mutex_lock(&c);
	mutex_unlock(&c);
	mutex_unlock(&b);
	mutex_unlock(&a);
	nest(&b, &a); /* fine */
	nest(&c, &b); /* is not */
}

TEST(lockdep_graph, trylock_makes_no_order)
{
	int nr = 0;

	expect_bug(under_trylock, NULL, "the order seen before is b -> c:");

	mutex_lock(&b);
	expect(mutex_trylock(&a));
	mutex_unlock(&a);
	mutex_unlock(&b);
	a_then_b();
	lockdep_dump(count_edge, &nr);
	expect_eq(nr, 1);
}

/* --- fork, while other threads are changing the graph --- */

#define CHURN 120

static struct node churn_nodes[CHURN];
static int stop;

static void churn(void *arg)
{
	(void)arg;
	for (int i = 0; i < CHURN && !READ_ONCE(stop); i++) {
		struct mutex *lock = &churn_nodes[i].lock;

		__mutex_init(lock, "churn", lock); /* a class of its own */
		mutex_lock(&a);
		for (int j = 0; j < i; j++) {
			mutex_lock(&churn_nodes[j].lock);
			mutex_lock(lock);
			mutex_unlock(lock);
			mutex_unlock(&churn_nodes[j].lock);
		}
		mutex_unlock(&a);
	}
}

static void in_child(void)
{
	static DEFINE_MUTEX(fresh);

	nest(&b, &fresh);
	nest(&fresh, &c);
	/* Not _exit: to ThreadSanitizer the child leaks the threads that it does not have. */
	syscall(SYS_exit_group, lockdep_is_held(&b) || lockdep_is_held(&fresh));
}

TEST(lockdep_graph, child_of_a_fork_checks_on)
{
	struct kthread t;

#ifdef __SANITIZE_THREAD__
	skip("a child that ends as the parent's thread does is a thread leak to ThreadSanitizer");
#endif
	expect_eq(kthread_run(&t, "churn", churn, NULL), 0);
	for (int i = 0; i < 50; i++) {
		int status;
		pid_t pid = fork();

		expect_ge(pid, 0);
		if (!pid)
			in_child();
		expect_eq(waitpid(pid, &status, 0), pid);
		expect_eq(status, 0);
	}
	WRITE_ONCE(stop, 1);
	kthread_join(&t);
}

#endif
