// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Classes of locks and the orders in which they were seen, of the whole process.
 *
 * An order A -> B says that some thread took a lock of class B, and might have waited for it, while
 * it held one of class A. The orders make a graph, which is free of cycles: an order that would
 * close one is not added but reported (lockdep.c). So a deadlock is found when its second half runs
 * for the first time, by whatever thread, and nobody has to hang.
 *
 *  1. Arrays of fixed size: nothing is allocated, as callers hold locks. When one is full, what is
 *     new is not checked, and that is said once.
 *  2. graph.lock is a raw lock, the innermost of all, not followed by lockdep itself. The common
 *     case, an order that is known, is one relaxed load of a bit: lock checking must not order
 *     threads behind the locks' backs, or ThreadSanitizer would see fewer races.
 *  3. A child of a fork has a copy, of a moment when nobody was changing it: fork takes graph.lock.
 *     Ours is the first handler that is registered, being so at the first use of any lock, hence
 *     the last to lock and the first to unlock: other handlers may use locks.
 */
#include "notifier/sync/lockdep_internal.h"

#ifdef CONFIG_LOCKDEP

#include <stdio.h>
#include <string.h>

#include "notifier/sync/lock.h"
#include "notifier/sync/thread.h"

#define MAX_CLASSES 1024u
#define MAX_ORDERS  16384u

struct lock_class {
	const void *key;
	unsigned int subclass;
	uint16_t first; /* of its orders, as the outer class; 0: none */
	char name[LOCKDEP_NAME_MAX];
};

struct order {
	uint16_t from, to, next;
	const struct lock_site *held_site, *taken_site;
	uint64_t thread;
};

/* Numbers begin at 1. All under lock but for the loads of known. */
static struct {
	struct raw_lock lock;
	unsigned int nr_classes, nr_orders;
	uint16_t free; /* orders that were forgotten */
	struct lock_class classes[MAX_CLASSES];
	struct order orders[MAX_ORDERS];
	uint64_t known[MAX_CLASSES][MAX_CLASSES / 64]; /* a bit for each order */

	/* find_chain(): the order by which a class was reached, and in which search. */
	unsigned int search;
	unsigned int seen[MAX_CLASSES];
	uint16_t reached_by[MAX_CLASSES];
	uint16_t queue[MAX_CLASSES];
} graph;

static void say_full(const char *what)
{
	static bool said;

	if (!__atomic_exchange_n(&said, true, __ATOMIC_RELAXED))
		pr_warn("lock checking has no room for more %s: what is new is not checked", what);
}

/* ---- classes ---- */

static bool class_is(const struct lock_class *class, const void *key, const char *name,
		     unsigned int subclass)
{
	if (class->key != key || class->subclass != subclass)
		return false;
	return key || !strcmp(class->name, name);
}

static uint16_t find_class(const void *key, const char *name, unsigned int subclass)
{
	for (unsigned int i = 1; i <= graph.nr_classes; i++)
		if (class_is(&graph.classes[i], key, name, subclass))
			return (uint16_t)i;
	return 0;
}

/* The key of a number that lockdep_forget() gave back. */
static const char nobody;

static uint16_t add_class(const void *key, const char *name, unsigned int subclass)
{
	uint16_t nr = find_class(&nobody, "", 0);
	struct lock_class *class;

	if (!nr && graph.nr_classes + 1 >= MAX_CLASSES)
		return 0;
	if (!nr)
		nr = (uint16_t)(graph.nr_classes + 1);
	class = &graph.classes[nr];
	*class = (struct lock_class){.key = key, .subclass = subclass};
	snprintf(class->name, sizeof(class->name), subclass ? "%s/%u" : "%s", name, subclass);
	if (nr > graph.nr_classes)
		graph.nr_classes = nr;
	return nr;
}

static uint16_t find_or_add_class(struct lockdep_map *map, unsigned int subclass,
				  const char *fallback_name)
{
	const char *name = lockdep_plain_name(map->name ? map->name : fallback_name);
	uint16_t class;

	raw_lock(&graph.lock);
	class = find_class(map->key, name, subclass);
	if (!class)
		class = add_class(map->key, name, subclass);
	raw_unlock(&graph.lock);
	if (!class)
		say_full("classes");
	WRITE_ONCE(map->class[subclass], class);
	return class;
}

static void lock_for_fork(void)
{
	raw_lock(&graph.lock);
}

static void unlock_after_fork(void)
{
	raw_unlock(&graph.lock);
}

static void first_use(void)
{
	BUG_ON(sync_at_fork(lock_for_fork, unlock_after_fork, unlock_after_fork) != 0);
	lockdep_teach();
}

uint16_t lockdep_class(struct lockdep_map *map, unsigned int subclass, const char *fallback_name)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	uint16_t class = READ_ONCE(map->class[subclass]);

	if (likely(class))
		return class;
	sync_once(&once, first_use);
	return find_or_add_class(map, subclass, fallback_name);
}

void lockdep_class_name(uint16_t class, char name[LOCKDEP_NAME_MAX])
{
	raw_lock(&graph.lock);
	memcpy(name, graph.classes[class].name, LOCKDEP_NAME_MAX);
	raw_unlock(&graph.lock);
}

/* ---- orders ---- */

bool lockdep_order_known(uint16_t from, uint16_t to)
{
	return READ_ONCE(graph.known[from][to / 64]) >> to % 64 & 1;
}

/* By breadth, so that the chain in a report is a shortest one. Ends in reached_by[@to]. */
static bool find_chain(uint16_t from, uint16_t to)
{
	unsigned int head = 0, tail = 0;

	graph.search++;
	graph.seen[from] = graph.search;
	graph.queue[tail++] = from;
	while (head < tail) {
		uint16_t class = graph.queue[head++];

		for (uint16_t i = graph.classes[class].first; i; i = graph.orders[i].next) {
			uint16_t next = graph.orders[i].to;

			if (graph.seen[next] == graph.search)
				continue;
			graph.seen[next] = graph.search;
			graph.reached_by[next] = i;
			if (next == to)
				return true;
			graph.queue[tail++] = next;
		}
	}
	return false;
}

static void copy_edge(struct lockdep_edge *edge, const struct order *order)
{
	memcpy(edge->held, graph.classes[order->from].name, LOCKDEP_NAME_MAX);
	memcpy(edge->taken, graph.classes[order->to].name, LOCKDEP_NAME_MAX);
	edge->held_site = order->held_site;
	edge->taken_site = order->taken_site;
}

/* The chain that find_chain() found, front to back. Returns its whole length. */
static unsigned int copy_chain(uint16_t from, uint16_t to, struct order_step *chain)
{
	unsigned int len = 0, at;

	for (uint16_t class = to; class != from; class = graph.orders[graph.reached_by[class]].from)
		len++;
	at = len;
	for (uint16_t class = to; class != from;) {
		const struct order *order = &graph.orders[graph.reached_by[class]];

		if (--at < LOCKDEP_MAX_CHAIN) {
			copy_edge(&chain[at].edge, order);
			chain[at].thread = order->thread;
		}
		class = order->from;
	}
	return len;
}

static bool add_order(const struct order *new)
{
	struct lock_class *class = &graph.classes[new->from];
	unsigned int nr;

	if (graph.free) {
		nr = graph.free;
		graph.free = graph.orders[nr].next;
	} else if (graph.nr_orders + 1 < MAX_ORDERS) {
		nr = ++graph.nr_orders;
	} else {
		return false;
	}
	graph.orders[nr] = *new;
	graph.orders[nr].next = class->first;
	class->first = (uint16_t)nr;
	WRITE_ONCE(graph.known[new->from][new->to / 64],
		   graph.known[new->from][new->to / 64] | 1ULL << new->to % 64);
	return true;
}

unsigned int lockdep_order_add(const struct held_lock *held, uint16_t class,
			       const struct lock_site *site,
			       struct order_step chain[LOCKDEP_MAX_CHAIN])
{
	const struct order order = {
		.from = held->class,
		.to = class,
		.held_site = held->site,
		.taken_site = site,
		.thread = thread_id(),
	};
	unsigned int len = 0;
	bool room = true;

	raw_lock(&graph.lock);
	/* Else a class was forgotten while it was in use, which is for its owner to report. */
	if (graph.classes[order.from].key != &nobody && graph.classes[order.to].key != &nobody &&
	    !lockdep_order_known(order.from, order.to)) {
		if (find_chain(class, held->class))
			len = copy_chain(class, held->class, chain);
		else
			room = add_order(&order);
	}
	raw_unlock(&graph.lock);
	if (!room)
		say_full("orders");
	return len;
}

void lockdep_teach_order(struct lockdep_map *outer, struct lockdep_map *inner,
			 const struct lock_site *site)
{
	struct order order = {
		.from = find_or_add_class(outer, 0, outer->name),
		.to = find_or_add_class(inner, 0, inner->name),
		.held_site = site,
		.taken_site = site,
		.thread = thread_id(),
	};

	raw_lock(&graph.lock);
	add_order(&order);
	raw_unlock(&graph.lock);
}

static void forget_order(uint16_t nr)
{
	struct order *order = &graph.orders[nr];
	uint16_t *link = &graph.classes[order->from].first;

	WRITE_ONCE(graph.known[order->from][order->to / 64],
		   graph.known[order->from][order->to / 64] & ~(1ULL << order->to % 64));
	while (*link && *link != nr)
		link = &graph.orders[*link].next;
	*link = order->next;
	order->from = 0;
	order->next = graph.free;
	graph.free = nr;
}

static void forget_class(uint16_t class)
{
	for (unsigned int i = 1; i <= graph.nr_orders; i++) {
		const struct order *order = &graph.orders[i];

		if (order->from && (order->from == class || order->to == class))
			forget_order((uint16_t)i);
	}
	graph.classes[class] = (struct lock_class){.key = &nobody};
}

void lockdep_forget(struct lockdep_map *map)
{
	for (unsigned int i = 0; i < LOCKDEP_SUBCLASSES; i++) {
		uint16_t class = READ_ONCE(map->class[i]);

		if (!class)
			continue;
		WRITE_ONCE(map->class[i], 0);
		raw_lock(&graph.lock);
		forget_class(class);
		raw_unlock(&graph.lock);
	}
}

void lockdep_dump(void (*fn)(const struct lockdep_edge *edge, void *arg), void *arg)
{
	for (unsigned int i = 1; i < MAX_ORDERS; i++) {
		struct lockdep_edge edge;
		bool valid;

		raw_lock(&graph.lock);
		valid = i <= graph.nr_orders && graph.orders[i].from;
		if (valid)
			copy_edge(&edge, &graph.orders[i]);
		raw_unlock(&graph.lock);
		if (valid)
			fn(&edge, arg);
	}
}

#endif /* CONFIG_LOCKDEP */
