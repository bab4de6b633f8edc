/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Kernel-shaped circular lists (list_head) and single-pointer-head lists for hash buckets (hlist).
 * No locking here; each list says at its declaration what protects it.
 */
#ifndef NOTIFIER_SYNC_LIST_H
#define NOTIFIER_SYNC_LIST_H

#include <stdbool.h>
#include <stdint.h>

#include "notifier/sync/util.h"

/* What a deleted entry points to: not canonical, so that its use faults at once. */
#define LIST_POISON ((void *)(uintptr_t)0xdead000000000100ULL)

struct list_head {
	struct list_head *next, *prev;
};

#define LIST_HEAD_INIT(name) ((struct list_head){&(name), &(name)})
#define LIST_HEAD(name)	     struct list_head name = LIST_HEAD_INIT(name)

static inline void INIT_LIST_HEAD(struct list_head *head)
{
	head->next = head;
	head->prev = head;
}

static inline void __list_insert(struct list_head *entry, struct list_head *prev,
				 struct list_head *next)
{
	entry->next = next;
	entry->prev = prev;
	prev->next = entry;
	next->prev = entry;
}

static inline void list_add(struct list_head *entry, struct list_head *head)
{
	__list_insert(entry, head, head->next);
}

static inline void list_add_tail(struct list_head *entry, struct list_head *head)
{
	__list_insert(entry, head->prev, head);
}

static inline void __list_unlink(struct list_head *entry)
{
	entry->prev->next = entry->next;
	entry->next->prev = entry->prev;
}

static inline void list_del(struct list_head *entry)
{
	__list_unlink(entry);
	entry->next = LIST_POISON;
	entry->prev = LIST_POISON;
}

/* For entries that are tested with list_empty(&entry->member), or deleted twice. */
static inline void list_del_init(struct list_head *entry)
{
	__list_unlink(entry);
	INIT_LIST_HEAD(entry);
}

static inline bool list_empty(const struct list_head *head)
{
	return head->next == head;
}

static inline void list_move(struct list_head *entry, struct list_head *head)
{
	__list_unlink(entry);
	list_add(entry, head);
}

static inline void list_move_tail(struct list_head *entry, struct list_head *head)
{
	__list_unlink(entry);
	list_add_tail(entry, head);
}

/* Move all of @list to the front of @head. */
static inline void list_splice_init(struct list_head *list, struct list_head *head)
{
	if (list_empty(list))
		return;
	list->next->prev = head;
	list->prev->next = head->next;
	head->next->prev = list->prev;
	head->next = list->next;
	INIT_LIST_HEAD(list);
}

static inline void list_splice_tail_init(struct list_head *list, struct list_head *head)
{
	list_splice_init(list, head->prev);
}

#define list_entry(ptr, type, member)	     container_of(ptr, type, member)
#define list_first_entry(head, type, member) list_entry((head)->next, type, member)
#define list_last_entry(head, type, member)  list_entry((head)->prev, type, member)
#define list_first_entry_or_null(head, type, member) \
	(list_empty(head) ? NULL : list_first_entry(head, type, member))

#define list_for_each_entry(pos, head, member)                                                 \
	for (pos = list_entry((head)->next, __typeof__(*pos), member); &pos->member != (head); \
	     pos = list_entry(pos->member.next, __typeof__(*pos), member))

#define list_for_each_entry_reverse(pos, head, member)                                            \
	for ((pos) = list_last_entry(head, __typeof__(*(pos)), member); &(pos)->member != (head); \
	     (pos) = list_entry((pos)->member.prev, __typeof__(*(pos)), member))

/* @pos may be deleted (and freed) in the body; @n is scratch. */
#define list_for_each_entry_safe(pos, n, head, member)                  \
	for (pos = list_entry((head)->next, __typeof__(*pos), member),  \
	    n = list_entry(pos->member.next, __typeof__(*pos), member); \
	     &pos->member != (head);                                    \
	     pos = n, n = list_entry(n->member.next, __typeof__(*n), member))

struct hlist_node {
	struct hlist_node *next, **pprev; /* pprev NULL: on no list */
};

struct hlist_head {
	struct hlist_node *first;
};

#define HLIST_HEAD_INIT ((struct hlist_head){NULL})

static inline void INIT_HLIST_HEAD(struct hlist_head *head)
{
	head->first = NULL;
}

static inline void INIT_HLIST_NODE(struct hlist_node *node)
{
	node->next = NULL;
	node->pprev = NULL;
}

static inline bool hlist_empty(const struct hlist_head *head)
{
	return !head->first;
}

static inline bool hlist_unhashed(const struct hlist_node *node)
{
	return !node->pprev;
}

static inline void hlist_add_head(struct hlist_node *node, struct hlist_head *head)
{
	node->next = head->first;
	if (node->next)
		node->next->pprev = &node->next;
	head->first = node;
	node->pprev = &head->first;
}

/* Leaves the node as if never hashed; a node on no list is left alone. */
static inline void hlist_del_init(struct hlist_node *node)
{
	if (hlist_unhashed(node))
		return;
	*node->pprev = node->next;
	if (node->next)
		node->next->pprev = node->pprev;
	INIT_HLIST_NODE(node);
}

#define hlist_entry(ptr, type, member) container_of(ptr, type, member)

#define __hlist_entry_or_null(ptr, type, member)                             \
	({                                                                   \
		struct hlist_node *__hlist_ptr = (ptr);                      \
		__hlist_ptr ? hlist_entry(__hlist_ptr, type, member) : NULL; \
	})

#define hlist_for_each_entry(pos, head, member)                                         \
	for (pos = __hlist_entry_or_null((head)->first, __typeof__(*pos), member); pos; \
	     pos = __hlist_entry_or_null(pos->member.next, __typeof__(*pos), member))

/* @n is a struct hlist_node pointer. */
#define hlist_for_each_entry_safe(pos, n, head, member)                            \
	for (pos = __hlist_entry_or_null((head)->first, __typeof__(*pos), member); \
	     pos && (n = pos->member.next, 1);                                     \
	     pos = __hlist_entry_or_null(n, __typeof__(*pos), member))

#endif
