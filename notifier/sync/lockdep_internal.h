/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the two halves of lock checking share: lockdep.c has the stack of each thread and decides,
 * lockdep_graph.c has classes and orders, for the whole process.
 */
#ifndef NOTIFIER_SYNC_LOCKDEP_INTERNAL_H
#define NOTIFIER_SYNC_LOCKDEP_INTERNAL_H

#include "notifier/sync/lockdep.h"

#ifdef CONFIG_LOCKDEP

/* An entry of a thread's stack; touched by that thread only. */
struct held_lock {
	const void *lock;
	const struct lock_site *site; /* where it was taken */
	uint16_t class;		      /* 0: the tables are full, and it is not ordered */
	uint8_t kind;		      /* enum held_kind */
	/* A section that may end elsewhere: held while *token is value. Else NULL. */
	const uint64_t *token;
	uint64_t value;
};

/* One order of a chain: thread @thread was the first to take edge.taken under edge.held. */
struct order_step {
	struct lockdep_edge edge;
	uint64_t thread;
};

/* As many steps of a chain as a report shows. */
#define LOCKDEP_MAX_CHAIN 16

const char *lockdep_plain_name(const char *name);

/* The number of the class of @map, made if it is new; 0 if there is no room. */
uint16_t lockdep_class(struct lockdep_map *map, unsigned int subclass, const char *fallback_name);
void lockdep_class_name(uint16_t class, char name[LOCKDEP_NAME_MAX]);

/* Was @to taken under @from before? Without a lock: the ordinary case. */
bool lockdep_order_known(uint16_t from, uint16_t to);

/*
 * Remember that @class is taken at @site under @held. Returns 0; or, if orders seen before lead
 * from @class to @held already, the length of that chain, of which @chain gets the beginning, and
 * nothing is remembered.
 */
unsigned int lockdep_order_add(const struct held_lock *held, uint16_t class,
			       const struct lock_site *site,
			       struct order_step chain[LOCKDEP_MAX_CHAIN]);

/* An order before anyone ran it. */
void lockdep_teach_order(struct lockdep_map *outer, struct lockdep_map *inner,
			 const struct lock_site *site);

/* lockdep_taught.c: calls that; at the first use of any lock. */
void lockdep_teach(void);

#endif /* CONFIG_LOCKDEP */

#endif
