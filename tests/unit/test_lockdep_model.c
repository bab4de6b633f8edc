/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The graph of orders against a model of it: a matrix, and chains found by the book. And what
 * happens when its tables are full. Debug builds only.
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <gnomon/types.h>

#include "notifier/sync/atomic.h"
#include "notifier/sync/lockdep_internal.h"
#include "notifier/sync/thread.h"
#include "tests/support/asleep.h"
#include "tests/support/child.h"
#include "tests/support/test.h"

#ifndef CONFIG_LOCKDEP

TEST(lockdep_model, needs_a_debug_build)
{
	skip("built without CONFIG_LOCKDEP");
}

#else

#define NR 10

static struct lockdep_map maps[NR];
static bool model[NR][NR];
/* A site for each order, so that each place in a chain can be told from the others. */
static struct lock_site held_sites[NR][NR], taken_sites[NR][NR];

static const char *name_of(int i)
{
	static const char names[NR][4] = {"m0", "m1", "m2", "m3", "m4",
					  "m5", "m6", "m7", "m8", "m9"};

	return names[i];
}

static uint16_t class_of(int i)
{
	return lockdep_class(&maps[i], 0, "none");
}

/* How many orders lead from @from to @to at least; 0: none do. */
static unsigned int distance(int from, int to)
{
	unsigned int far[NR] = {0};

	for (unsigned int step = 1; step < NR; step++)
		for (int i = 0; i < NR; i++)
			for (int j = 0; j < NR; j++)
				if (model[i][j] && !far[j] &&
				    (step == 1 ? i == from : far[i] == step - 1))
					far[j] = step;
	return far[to];
}

/* Names of classes in a dump; those that are not ours are what is taught. */
static int index_of(const char *name)
{
	for (int i = 0; i < NR; i++)
		if (!strcmp(name, name_of(i)))
			return i;
	return -1;
}

struct dumped {
	int times[NR][NR];
	int others;
};

static void note_edge(const struct lockdep_edge *edge, void *arg)
{
	struct dumped *dumped = arg;
	int i = index_of(edge->held), j = index_of(edge->taken);

	if (i < 0 || j < 0) {
		dumped->others++;
		return;
	}
	dumped->times[i][j]++;
	expect_eq(edge->held_site, &held_sites[i][j]);
	expect_eq(edge->taken_site, &taken_sites[i][j]);
}

static void expect_graph_is_model(void)
{
	struct dumped dumped = {0};

	lockdep_dump(note_edge, &dumped);
	expect_eq(dumped.others, 3);
	for (int i = 0; i < NR; i++) {
		for (int j = 0; j < NR; j++) {
			expect_eq(dumped.times[i][j], model[i][j]);
			expect_eq(lockdep_order_known(class_of(i), class_of(j)), model[i][j]);
		}
	}
}

static void expect_chain(const struct order_step *chain, unsigned int len, int from, int to)
{
	expect_str_eq(chain[0].edge.held, name_of(from));
	expect_str_eq(chain[len - 1].edge.taken, name_of(to));
	for (unsigned int s = 0; s < len; s++) {
		int i = index_of(chain[s].edge.held), j = index_of(chain[s].edge.taken);

		expect(model[i][j]);
		expect_eq(chain[s].edge.held_site, &held_sites[i][j]);
		expect_eq(chain[s].edge.taken_site, &taken_sites[i][j]);
		expect_eq(chain[s].thread, thread_id());
		if (s)
			expect_str_eq(chain[s].edge.held, chain[s - 1].edge.taken);
	}
}

static unsigned int add(uint16_t from, uint16_t to, const struct lock_site *held_site,
			const struct lock_site *taken_site, struct order_step *chain)
{
	const struct held_lock held = {.site = held_site, .class = from};

	return lockdep_order_add(&held, to, taken_site, chain);
}

/* True if it was new. */
static bool add_to_both(int i, int j)
{
	struct order_step chain[LOCKDEP_MAX_CHAIN];
	unsigned int wanted = distance(j, i);
	bool is_new = !wanted && !model[i][j];
	unsigned int len =
		add(class_of(i), class_of(j), &held_sites[i][j], &taken_sites[i][j], chain);

	expect_eq(len, wanted);
	if (len)
		expect_chain(chain, len, j, i);
	else
		model[i][j] = true;
	return is_new;
}

static void forget_both(int i)
{
	lockdep_forget(&maps[i]);
	for (int j = 0; j < NR; j++)
		model[i][j] = model[j][i] = false;
}

static uint32_t random_below(uint32_t *seed, uint32_t n)
{
	*seed = *seed * 1664525 + 1013904223;
	return (*seed >> 16) % n;
}

TEST(lockdep_model, random_orders)
{
	const int steps = test_long() ? 100000 : 5000;
	int added = 0, refused = 0;
	uint32_t seed = 1;

	for (int i = 0; i < NR; i++)
		lockdep_init_map(&maps[i], name_of(i), &maps[i]);
	class_of(0); /* the first use of all, which is when orders are taught */
	expect_graph_is_model();
	for (int n = 0; n < steps; n++) {
		int i = (int)random_below(&seed, NR), j = (int)random_below(&seed, NR);

		if (i == j) {
			/* Now and then, or there is no long chain. */
			if (random_below(&seed, 3) == 0)
				forget_both(i);
		} else if (add_to_both(i, j)) {
			added++;
		} else {
			refused++;
		}
		if (n % 50 == 0)
			expect_graph_is_model();
	}
	expect_ge(added, steps / 20);
	expect_ge(refused, steps / 20);
}

/* --- numbers of classes --- */

TEST(lockdep_model, class_is_key_and_subclass)
{
	static struct lockdep_map one, same, other, named, named_too, misnamed;
	char name[LOCKDEP_NAME_MAX], text[100];
	uint16_t class;

	lockdep_init_map(&one, "&one", &one);
	lockdep_init_map(&same, "&one", &one);
	lockdep_init_map(&other, "&one", &other);
	class = lockdep_class(&one, 0, "none");
	expect_ne(class, 0);
	expect_eq(lockdep_class(&one, 0, "none"), class);
	expect_eq(one.class[0], class);
	expect_eq(lockdep_class(&same, 0, "none"), class);
	expect_ne(lockdep_class(&other, 0, "none"), class);
	expect_ne(lockdep_class(&one, 1, "none"), class);
	expect_eq(lockdep_class(&same, 1, "none"), lockdep_class(&one, 1, "none"));

	lockdep_class_name(class, name);
	expect_str_eq(name, "one");
	lockdep_class_name(lockdep_class(&one, 1, "none"), name);
	expect_str_eq(name, "one/1");

	/* Without a key it is the name that counts. */
	class = lockdep_class(&named, 0, "&fallback");
	expect_eq(lockdep_class(&named_too, 0, "fallback"), class);
	expect_ne(lockdep_class(&misnamed, 0, "another"), class);
	expect_ne(lockdep_class(&named, 1, "fallback"), class);
	lockdep_class_name(class, name);
	expect_str_eq(name, "fallback");

	memset(text, 'x', sizeof(text));
	text[sizeof(text) - 1] = '\0';
	lockdep_init_map(&misnamed, text, &misnamed);
	lockdep_class_name(lockdep_class(&misnamed, 0, "none"), name);
	expect_eq(strlen(name), LOCKDEP_NAME_MAX - 1);
}

/* The next in its place has the number, nothing else. */
TEST(lockdep_model, number_of_a_forgotten_class)
{
	struct order_step chain[LOCKDEP_MAX_CHAIN];
	const struct lock_site site = {__FILE__, __LINE__, __func__, "site"};
	static struct lockdep_map a, b, next;
	uint16_t old, old_nested;

	lockdep_init_map(&a, "a", &a);
	lockdep_init_map(&b, "b", &b);
	old = lockdep_class(&a, 0, "none");
	old_nested = lockdep_class(&a, 1, "none");
	expect_eq(add(old, lockdep_class(&b, 0, "none"), &site, &site, chain), 0);
	expect_eq(add(lockdep_class(&b, 0, "none"), old_nested, &site, &site, chain), 0);
	lockdep_forget(&a);
	expect_eq(a.class[0], 0);
	expect_eq(a.class[1], 0);

	/* Whoever still has the number of one that is gone makes no order with it. */
	expect_eq(add(old, b.class[0], &site, &site, chain), 0);
	expect_eq(add(b.class[0], old, &site, &site, chain), 0);
	expect(!lockdep_order_known(old, b.class[0]));
	expect(!lockdep_order_known(b.class[0], old));

	lockdep_init_map(&next, "next", &next);
	expect_eq(lockdep_class(&next, 0, "none"), old);
	expect_ne(lockdep_class(&a, 0, "none"), old);
	expect_eq(add(b.class[0], old, &site, &site, chain), 0);
	expect(lockdep_order_known(b.class[0], old));
	expect_eq(add(old, b.class[0], &site, &site, chain), 1);
	expect_str_eq(chain[0].edge.taken, "next");
}

/* --- tables that are full --- */

static int warnings;
static char warned[200];

static void note_warning(enum gnomon_log_level level, const char *message, void *arg)
{
	(void)arg;
	expect_eq(level, GNOMON_LOG_WARN);
	snprintf(warned, sizeof(warned), "%s", message);
	warnings++;
}

#define MANY_CLASSES 1200

static struct lockdep_map many[MANY_CLASSES];

static void take(struct lockdep_map *map)
{
	lock_map_acquire(map);
}

static void nest(struct lockdep_map *outer, struct lockdep_map *inner)
{
	take(outer);
	take(inner);
	lock_map_release(inner);
	lock_map_release(outer);
}

TEST(lockdep_model, no_room_for_classes)
{
	int first = 0;

	gnomon_set_log(note_warning, NULL);
	for (int i = 0; i < MANY_CLASSES; i++) {
		lockdep_init_map(&many[i], "many", &many[i]);
		if (!lockdep_class(&many[i], 0, "none") && !first)
			first = i;
		expect_eq(warnings, first ? 1 : 0);
	}
	expect_str_contains(warned, "no room for more classes");
	/* Those that came first, with what is taught; 0 is no number. */
	expect_eq(first, 1023 - 4);

	/* Without a class a lock has no order, and is no second one of it. It is held, though. */
	nest(&many[first], &many[first + 1]);
	nest(&many[first + 1], &many[first]);
	nest(&many[0], &many[first]);
	nest(&many[first], &many[0]);
	take(&many[first]);
	expect(lockdep_is_held(&many[first]));
	lock_map_release(&many[first]);

	/* One that is forgotten makes room. */
	lockdep_forget(&many[7]);
	expect_ne(lockdep_class(&many[first], 0, "none"), 0);
	expect_eq(lockdep_class(&many[7], 0, "none"), 0);
	expect_eq(warnings, 1);
}

#define MANY 190

static void count_edge(const struct lockdep_edge *edge, void *arg)
{
	(void)edge;
	++*(int *)arg;
}

TEST(lockdep_model, no_room_for_orders)
{
	const struct lock_site site = {__FILE__, __LINE__, __func__, "site"};
	struct order_step chain[LOCKDEP_MAX_CHAIN];
	uint16_t class[MANY];
	int added = 0, orders = 0;

	gnomon_set_log(note_warning, NULL);
	for (int i = 0; i < MANY; i++) {
		lockdep_init_map(&many[i], "many", &many[i]);
		class[i] = lockdep_class(&many[i], 0, "none");
	}
	for (int i = 0; i < MANY; i++) {
		for (int j = 0; j < i; j++) {
			expect_eq(add(class[j], class[i], &site, &site, chain), 0);
			added += lockdep_order_known(class[j], class[i]);
			expect_eq(warnings, lockdep_order_known(class[j], class[i]) ? 0 : 1);
		}
	}
	expect_eq(added, 16383 - 3);
	lockdep_dump(count_edge, &orders);
	expect_eq(orders, 16383);
	expect_str_contains(warned, "no room for more orders");

	/* What is known still is, and is looked at: the first of all is before any other. */
	expect_eq(add(class[100], class[0], &site, &site, chain), 1);

	/* The orders of one that is forgotten make room, for as many. */
	orders = 0;
	for (int i = 0; i < MANY; i++)
		orders += i != 5 && (lockdep_order_known(class[5], class[i]) ||
				     lockdep_order_known(class[i], class[5]));
	lockdep_forget(&many[5]);
	added = 0;
	for (int i = 0; i < MANY; i++) {
		for (int j = 0; j < i; j++) {
			if (i == 5 || j == 5 || lockdep_order_known(class[j], class[i]))
				continue;
			expect_eq(add(class[j], class[i], &site, &site, chain), 0);
			added += lockdep_order_known(class[j], class[i]);
		}
	}
	expect_eq(added, orders);
	expect_eq(warnings, 1);
}

/* --- many threads: the oracle is ThreadSanitizer, and that the graph stays what it is --- */

static struct lockdep_map stable[2];

static void change_graph(void *arg)
{
	const struct lock_site site = {__FILE__, __LINE__, __func__, "site"};
	struct lockdep_map mine[2];

	for (int i = 0; i < 2000; i++) {
		char name[LOCKDEP_NAME_MAX];
		int orders = 0;

		lockdep_init_map(&mine[0], "mine", &mine[0]);
		lockdep_init_map(&mine[1], "mine", &mine[1]);
		lockdep_teach_order(&stable[0], &mine[0], &site);
		nest(&mine[0], &mine[1]);
		lockdep_class_name(mine[1].class[0], name);
		expect_str_eq(name, "mine");
		if (i % 500 == 0) {
			lockdep_dump(count_edge, &orders);
			expect_ge(orders, 3 + 2);
		}
		lockdep_forget(&mine[0]);
		lockdep_forget(&mine[1]);
	}
	(void)arg;
}

TEST(lockdep_model, many_change_it)
{
	struct kthread threads[3];
	int orders = 0;

	lockdep_init_map(&stable[0], "stable", &stable[0]);
	lockdep_init_map(&stable[1], "stable", &stable[1]);
	nest(&stable[0], &stable[1]);
	for (int i = 0; i < 3; i++)
		expect_eq(kthread_run(&threads[i], "changer", change_graph, NULL), 0);
	for (int i = 0; i < 3; i++)
		kthread_join(&threads[i]);
	lockdep_dump(count_edge, &orders);
	expect_eq(orders, 3 + 1);
}

/*
 * One who only reads is ordered behind nobody but by the graph's own lock, so to ThreadSanitizer
 * any look without it is a race.
 */
static uint16_t renamed;
static int changes_done;

static void rename_class(void *arg)
{
	const struct lock_site site = {__FILE__, __LINE__, __func__, "site"};

	for (int i = 0; i < 3000; i++) {
		struct lockdep_map map;

		lockdep_init_map(&map, "map", &map);
		__atomic_store_n(&renamed, lockdep_class(&map, 0, "none"), __ATOMIC_RELAXED);
		lockdep_teach_order(&stable[0], &map, &site);
		lockdep_forget(&map);
	}
	(void)arg;
	__atomic_store_n(&changes_done, 1, __ATOMIC_RELAXED);
}

static void read_names(void *arg)
{
	int looks = *(int *)arg;

	while (!__atomic_load_n(&changes_done, __ATOMIC_RELAXED) || looks-- > 0) {
		uint16_t class = __atomic_load_n(&renamed, __ATOMIC_RELAXED);
		char name[LOCKDEP_NAME_MAX];

		if (!class)
			continue;
		lockdep_class_name(class, name);
		expect(!name[0] || !strcmp(name, "map"));
	}
}

static void dump_all(void *arg)
{
	int looks = *(int *)arg;

	while (!__atomic_load_n(&changes_done, __ATOMIC_RELAXED) || looks-- > 0) {
		int orders = 0;

		lockdep_dump(count_edge, &orders);
		expect(orders == 3 || orders == 4);
	}
}

static void read_beside_changes(void (*fn)(void *arg))
{
	struct kthread changer, reader;
	int looks = 3;

	lockdep_init_map(&stable[0], "stable", &stable[0]);
	lockdep_class(&stable[0], 0, "none");
	expect_eq(kthread_run(&reader, "reader", fn, &looks), 0);
	expect_eq(kthread_run(&changer, "changer", rename_class, NULL), 0);
	kthread_join(&changer);
	kthread_join(&reader);
}

TEST(lockdep_model, names_beside_changes)
{
	read_beside_changes(read_names);
}

TEST(lockdep_model, dumps_beside_changes)
{
	read_beside_changes(dump_all);
}

/* --- a chain that is longer than a report --- */

#define LONG_CHAIN (LOCKDEP_MAX_CHAIN + 4)

/* Its length is said, and nothing is stored behind the room for it. */
TEST(lockdep_model, longest_chain)
{
	const struct lock_site site = {__FILE__, __LINE__, __func__, "site"};
	static struct lockdep_map links[LONG_CHAIN + 1];
	struct order_step chain[LONG_CHAIN];
	uint16_t class[LONG_CHAIN + 1];

	for (int i = 0; i <= LONG_CHAIN; i++) {
		lockdep_init_map(&links[i], "link", &links[i]);
		class[i] = lockdep_class(&links[i], 0, "none");
	}
	memset(chain, 0x5a, sizeof(chain));
	for (int i = 0; i < LONG_CHAIN; i++)
		expect_eq(add(class[i], class[i + 1], &site, &site, chain), 0);
	expect_eq(add(class[LONG_CHAIN], class[0], &site, &site, chain), LONG_CHAIN);
	for (const char *byte = (char *)&chain[LOCKDEP_MAX_CHAIN];
	     byte < (char *)(chain + LONG_CHAIN); byte++)
		expect_eq(*byte, 0x5a);
}

/* --- fork, with a thread in the middle of the graph --- */

/* Where a chain is stored under the graph's lock: the first store stops the thread there. */
static struct order_step *guarded;
static atomic_t inside, left;
static pid_t forker;

static void in_the_middle(int signo)
{
	(void)signo;
	atomic_set(&inside, 1);
	until_asleep(forker);
	atomic_set(&left, 1);
	expect_eq(mprotect(guarded, PAGE_SIZE, PROT_READ | PROT_WRITE), 0);
}

static void find_a_cycle(void *arg)
{
	const struct lock_site site = {__FILE__, __LINE__, __func__, "site"};

	(void)arg;
	expect_eq(add(class_of(1), class_of(0), &site, &site, guarded), 1);
}

static void use_the_graph(void)
{
	nest(&maps[0], &maps[2]);
	child_expects(lockdep_order_known(class_of(0), class_of(2)));
	child_expects(atomic_read(&left));
}

TEST(lockdep_model, fork_waits_for_the_graph)
{
	const struct sigaction action = {.sa_handler = in_the_middle};
	struct kthread t;

#ifdef __SANITIZE_THREAD__
	skip("a child that ends as the parent's thread does is a thread leak to ThreadSanitizer");
#endif
	for (int i = 0; i < 3; i++)
		lockdep_init_map(&maps[i], name_of(i), &maps[i]);
	nest(&maps[0], &maps[1]);
	guarded = mmap(NULL, PAGE_SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	expect(guarded != MAP_FAILED);
	expect_eq(sigaction(SIGSEGV, &action, NULL), 0);
	forker = (pid_t)syscall(SYS_gettid);
	expect_eq(kthread_run(&t, "cycle", find_a_cycle, NULL), 0);
	while (!atomic_read(&inside))
		sched_yield();
	in_child(use_the_graph, 20);
	expect(atomic_read(&left));
	kthread_join(&t);
}

#endif
