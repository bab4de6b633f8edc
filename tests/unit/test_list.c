/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Lists, each operation on lists of every small length, looked at in both directions: a link that
 * is wrong one way only does no harm until the operation after the next.
 */
#include <string.h>

#include "notifier/sync/list.h"
#include "tests/support/test.h"

#define MAX_LEN 4

struct item {
	char name;
	struct list_head link;
	struct hlist_node node;
};

/* Lists in text, so that a failed expectation shows all of it. */
static const char *forward(struct list_head *head, char *text)
{
	struct item *item;
	int n = 0;

	list_for_each_entry(item, head, link) {
		expect(n < 2 * MAX_LEN);
		expect_eq(item->link.next->prev, &item->link);
		expect_eq(item->link.prev->next, &item->link);
		text[n++] = item->name;
	}
	text[n] = '\0';
	expect_eq(head->next->prev, head);
	expect_eq(head->prev->next, head);
	return text;
}

static void expect_list(struct list_head *head, const char *expected)
{
	char text[2 * MAX_LEN + 1];
	int n = 0;

	expect_str_eq(forward(head, text), expected);
	for (struct list_head *p = head->prev; p != head; p = p->prev)
		text[n++] = list_entry(p, struct item, link)->name;
	expect_eq(n, strlen(expected));
	for (int i = 0; i < n; i++)
		expect_eq(text[n - 1 - i], expected[i]);
	expect_eq(list_empty(head), !*expected);
}

/* Lists of @names, made of the items from @items on. */
static void make_list(struct list_head *head, struct item *items, const char *names)
{
	/* What was there before must not matter. */
	memset(head, 0xff, sizeof(*head));
	INIT_LIST_HEAD(head);
	for (int i = 0; names[i]; i++) {
		memset(&items[i], 0xff, sizeof(items[i]));
		items[i].name = names[i];
		list_add_tail(&items[i].link, head);
	}
	expect_list(head, names);
}

/* The first @len of "abcd". */
static const char *names_of(int len, char *names)
{
	memcpy(names, "abcd", MAX_LEN);
	names[len] = '\0';
	return names;
}

TEST(list, init)
{
	struct list_head head = {NULL, NULL};
	LIST_HEAD(other);

	INIT_LIST_HEAD(&head);
	expect_eq(head.next, &head);
	expect_eq(head.prev, &head);
	expect_list(&head, "");
	expect_list(&other, "");
	expect(!list_first_entry_or_null(&head, struct item, link));
}

TEST(list, add)
{
	for (int len = 0; len < MAX_LEN; len++) {
		char names[MAX_LEN + 1], expected[MAX_LEN + 2] = "x";
		struct item items[MAX_LEN], x = {.name = 'x'};
		struct list_head head;

		make_list(&head, items, names_of(len, names));
		list_add(&x.link, &head);
		strcpy(expected + 1, names);
		expect_list(&head, expected);
		expect_eq(list_first_entry(&head, struct item, link), &x);
		expect_eq(list_first_entry_or_null(&head, struct item, link), &x);

		make_list(&head, items, names);
		list_add_tail(&x.link, &head);
		strcpy(expected, names);
		strcat(expected, "x");
		expect_list(&head, expected);
		expect_eq(list_last_entry(&head, struct item, link), &x);
	}
}

/* @expected: @names without number @at. */
static void without(const char *names, int at, char *expected)
{
	strcpy(expected, names);
	memmove(expected + at, expected + at + 1, strlen(expected + at));
}

TEST(list, del)
{
	for (int len = 1; len <= MAX_LEN; len++) {
		for (int at = 0; at < len; at++) {
			char names[MAX_LEN + 1], expected[MAX_LEN + 1];
			struct item items[MAX_LEN];
			struct list_head head;

			make_list(&head, items, names_of(len, names));
			without(names, at, expected);
			list_del(&items[at].link);
			expect_list(&head, expected);
			expect_eq(items[at].link.next, LIST_POISON);
			expect_eq(items[at].link.prev, LIST_POISON);

			make_list(&head, items, names);
			list_del_init(&items[at].link);
			expect_list(&head, expected);
			expect_list(&items[at].link, "");
			list_del_init(&items[at].link);
			expect_list(&head, expected);
		}
	}
}

TEST(list, move)
{
	for (int len = 1; len <= MAX_LEN; len++) {
		for (int at = 0; at < len; at++) {
			char names[MAX_LEN + 1], rest[MAX_LEN + 1], expected[MAX_LEN + 2];
			struct item items[MAX_LEN], others[1];
			struct list_head head, other;

			make_list(&head, items, names_of(len, names));
			without(names, at, rest);
			list_move(&items[at].link, &head);
			expected[0] = names[at];
			strcpy(expected + 1, rest);
			expect_list(&head, expected);

			make_list(&head, items, names);
			list_move_tail(&items[at].link, &head);
			strcpy(expected, rest);
			strncat(expected, names + at, 1);
			expect_list(&head, expected);

			make_list(&head, items, names);
			make_list(&other, others, "x");
			list_move(&items[at].link, &other);
			expect_list(&head, rest);
			expect_list(&other, (char[]){names[at], 'x', '\0'});
			list_move_tail(&items[at].link, &other);
			expect_list(&other, (char[]){'x', names[at], '\0'});
		}
	}
}

TEST(list, splice)
{
	for (int len = 0; len <= MAX_LEN; len++) {
		for (int onto = 0; onto <= 2; onto++) {
			char names[MAX_LEN + 1], expected[2 * MAX_LEN + 1];
			const char *there = &"xy"[2 - onto];
			struct item items[MAX_LEN], others[2];
			struct list_head head, other;

			make_list(&head, items, names_of(len, names));
			make_list(&other, others, there);
			list_splice_init(&head, &other);
			expect_list(&head, "");
			strcpy(expected, names);
			strcat(expected, there);
			expect_list(&other, expected);

			make_list(&head, items, names);
			make_list(&other, others, there);
			list_splice_tail_init(&head, &other);
			expect_list(&head, "");
			strcpy(expected, there);
			strcat(expected, names);
			expect_list(&other, expected);
		}
	}
}

TEST(list, deleted_while_walked)
{
	struct item items[MAX_LEN], *item, *next;
	struct list_head head;
	int seen = 0;

	make_list(&head, items, "abcd");
	list_for_each_entry_safe(item, next, &head, link) {
		expect_eq(item->name, "abcd"[seen++]);
		list_del(&item->link);
		memset(item, 0xff, sizeof(*item));
	}
	expect_eq(seen, 4);
	expect_list(&head, "");
}

/* --- hlist --- */

static void expect_hlist(struct hlist_head *head, const char *expected)
{
	struct hlist_node **link = &head->first;
	char text[MAX_LEN + 1];
	struct item *item;
	int n = 0;

	hlist_for_each_entry(item, head, node) {
		expect(n < MAX_LEN);
		expect(!hlist_unhashed(&item->node));
		expect_eq(item->node.pprev, link);
		link = &item->node.next;
		text[n++] = item->name;
	}
	text[n] = '\0';
	expect_str_eq(text, expected);
	expect_eq(hlist_empty(head), !*expected);
}

static void make_hlist(struct hlist_head *head, struct item *items, const char *names)
{
	memset(head, 0xff, sizeof(*head));
	INIT_HLIST_HEAD(head);
	expect_hlist(head, "");
	for (int i = (int)strlen(names); i-- > 0;) {
		memset(&items[i], 0xff, sizeof(items[i]));
		items[i].name = names[i];
		INIT_HLIST_NODE(&items[i].node);
		expect(hlist_unhashed(&items[i].node));
		expect(!items[i].node.next);
		hlist_add_head(&items[i].node, head);
		expect_hlist(head, names + i);
	}
}

TEST(hlist, del)
{
	for (int len = 1; len <= MAX_LEN; len++) {
		for (int at = 0; at < len; at++) {
			char names[MAX_LEN + 1], expected[MAX_LEN + 1];
			struct hlist_head head = HLIST_HEAD_INIT;
			struct item items[MAX_LEN];

			expect_hlist(&head, "");
			make_hlist(&head, items, names_of(len, names));
			without(names, at, expected);
			hlist_del_init(&items[at].node);
			expect_hlist(&head, expected);
			expect(hlist_unhashed(&items[at].node));
			expect(!items[at].node.next);
			hlist_del_init(&items[at].node);
			expect_hlist(&head, expected);
		}
	}
}

TEST(hlist, deleted_while_walked)
{
	struct item items[MAX_LEN], *item;
	struct hlist_head head;
	struct hlist_node *next;
	int seen = 0;

	make_hlist(&head, items, "abcd");
	hlist_for_each_entry_safe(item, next, &head, node)
	{
		expect_eq(item->name, "abcd"[seen++]);
		hlist_del_init(&item->node);
		memset(item, 0xff, sizeof(*item));
	}
	expect_eq(seen, 4);
	expect_hlist(&head, "");
}
