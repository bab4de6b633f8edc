/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Small parts of the sync layer: allocation, lists, threads.
 */
#include <stdint.h>
#include <string.h>

#include "notifier/sync/alloc.h"
#include "notifier/sync/list.h"
#include "notifier/sync/thread.h"
#include "tests/support/test.h"

TEST(alloc, zeroes_and_overflow)
{
	volatile size_t huge = SIZE_MAX / 2; /* or the compiler complains */
	unsigned char *p = kzalloc(100, GFP_KERNEL);

	for (int i = 0; i < 100; i++)
		expect_eq(p[i], 0);
	kfree(p);
	p = kcalloc(3, 7, GFP_ATOMIC);
	for (int i = 0; i < 21; i++)
		expect_eq(p[i], 0);
	kfree(p);
	kfree(NULL);
	expect(!kcalloc(huge, 3, GFP_KERNEL));
	expect(!kvcalloc(huge, 3, GFP_KERNEL));
}

/* Far more than there is memory for, of which two pages are used. */
TEST(alloc, kvcalloc_is_lazy)
{
	const size_t bytes = 1UL << 36;
	unsigned char *p = kvcalloc(bytes / 16, 16, GFP_KERNEL);

	expect(p);
	expect_eq(p[0], 0);
	p[bytes - 1] = 1;
	expect_eq(p[bytes / 2], 0);
	kvfree(p, bytes);
	kvfree(NULL, 0);
}

struct item {
	int value;
	struct list_head link;
	struct hlist_node node;
};

static int sum(struct list_head *head)
{
	struct item *item;
	int s = 0;

	/* Order matters. */
	list_for_each_entry(item, head, link)
		s = 10 * s + item->value;
	return s;
}

TEST(list, keeps_order)
{
	struct item items[4] = {{.value = 1}, {.value = 2}, {.value = 3}, {.value = 4}};
	struct item *item, *next;
	LIST_HEAD(head);
	LIST_HEAD(other);

	expect(list_empty(&head));
	expect(!list_first_entry_or_null(&head, struct item, link));
	list_add_tail(&items[1].link, &head);
	list_add(&items[0].link, &head);
	list_add_tail(&items[2].link, &other);
	list_add_tail(&items[3].link, &other);
	list_splice_tail_init(&other, &head);
	expect(list_empty(&other));
	expect_eq(sum(&head), 1234);
	list_move(&items[2].link, &head);
	expect_eq(sum(&head), 3124);
	list_move_tail(&items[2].link, &head);
	expect_eq(sum(&head), 1243);
	list_splice_init(&head, &other);
	list_splice_init(&other, &head);
	expect_eq(sum(&head), 1243);
	expect_eq(list_first_entry(&head, struct item, link)->value, 1);
	expect_eq(list_last_entry(&head, struct item, link)->value, 3);

	list_del_init(&items[1].link);
	expect(list_empty(&items[1].link));
	list_del_init(&items[1].link);
	list_for_each_entry_safe(item, next, &head, link)
		list_del(&item->link);
	expect(list_empty(&head));
	expect_eq(items[0].link.next, LIST_POISON);
}

TEST(list, hlist)
{
	struct item items[3] = {{.value = 1}, {.value = 2}, {.value = 3}};
	struct hlist_head head = HLIST_HEAD_INIT;
	struct hlist_node *next;
	struct item *item;
	int s = 0;

	for (int i = 0; i < 3; i++) {
		INIT_HLIST_NODE(&items[i].node);
		expect(hlist_unhashed(&items[i].node));
		hlist_add_head(&items[i].node, &head);
	}
	hlist_del_init(&items[1].node);
	hlist_del_init(&items[1].node);
	expect(hlist_unhashed(&items[1].node));
	hlist_for_each_entry(item, &head, node)
		s = 10 * s + item->value;
	expect_eq(s, 31);
	hlist_for_each_entry_safe(item, next, &head, node) hlist_del_init(&item->node);
	expect(hlist_empty(&head));
}

static uint64_t seen_id;
static char seen_name[32];

static void look_at_self(void *arg)
{
	expect_eq(arg, &seen_id);
	seen_id = thread_id();
	pthread_getname_np(pthread_self(), seen_name, sizeof(seen_name));
	expect_eq(current_thread()->id, seen_id);
}

TEST(thread, name_and_identity)
{
	uint64_t mine = thread_id(), first;
	struct kthread t;

	expect_ne(mine, 0);
	expect_eq(thread_id(), mine);
	expect_eq(kthread_run(&t, "a name that is too long", look_at_self, &seen_id), 0);
	kthread_join(&t);
	expect_str_eq(seen_name, "a name that is ");
	first = seen_id;
	expect_ne(first, mine);

	/* Most likely in the same stack and TLS, but another thread. */
	expect_eq(kthread_run(&t, "b", look_at_self, &seen_id), 0);
	kthread_join(&t);
	expect_str_eq(seen_name, "b");
	expect_ne(seen_id, first);
}
