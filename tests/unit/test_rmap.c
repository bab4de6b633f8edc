/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reverse maps against the simplest thing that could be one: an array.
 */
#include <string.h>

#include "notifier/sync/thread.h"
#include "shadow/shadow_internal.h"
#include "tests/support/test.h"

#define MAX 64

struct model {
	struct rmap_head head;
	struct rmap_desc *spare;
	bool in[MAX];
	unsigned int nr;
};

/* Never loaded: an rmap is about their addresses. */
static spte_t sptes[MAX];

static void add(struct model *m, unsigned int i)
{
	if (!m->spare)
		m->spare = rmap_desc_alloc();
	rmap_add(&m->head, &sptes[i], &m->spare);
	m->in[i] = true;
	m->nr++;
}

static void remove_one(struct model *m, unsigned int i)
{
	rmap_remove(&m->head, &sptes[i]);
	m->in[i] = false;
	m->nr--;
}

static void check(struct model *m)
{
	spte_t *first = rmap_first(&m->head);

	expect_eq(rmap_count(&m->head), m->nr);
	for (unsigned int i = 0; i < MAX; i++)
		expect_eq(rmap_contains(&m->head, &sptes[i]), m->in[i]);
	expect_eq(first == NULL, m->nr == 0);
	if (first)
		expect(m->in[first - sptes]);
	if (!m->nr)
		expect_eq(m->head.val, 0);
}

TEST(rmap, fill_and_empty_in_each_order)
{
	for (unsigned int nr = 0; nr <= MAX; nr++) {
		for (int order = 0; order < 3; order++) {
			struct model m = {0};

			for (unsigned int i = 0; i < nr; i++) {
				add(&m, i);
				check(&m);
			}
			for (unsigned int i = 0; i < nr; i++) {
				if (order == 0)
					remove_one(&m, i);
				else if (order == 1)
					remove_one(&m, nr - 1 - i);
				else
					remove_one(&m, rmap_first(&m.head) - sptes);
				check(&m);
			}
			rmap_desc_free(m.spare);
		}
	}
}

TEST(rmap, random_walk)
{
	struct model m = {0};
	uint64_t x = 88172645463325252UL;

	for (int step = 0; step < 50000; step++) {
		bool likes_to_grow;
		unsigned int i;

		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		i = x % MAX;
		/* Lean to one side for a while, then to the other. */
		likes_to_grow = step / 500 % 2;
		if ((x >> 32) % 4 == 0 || m.in[i] != likes_to_grow) {
			if (m.in[i])
				remove_one(&m, i);
			else
				add(&m, i);
		}
		if (step % 16 == 0)
			check(&m);
	}
	while (m.nr)
		remove_one(&m, rmap_first(&m.head) - sptes);
	check(&m);
	rmap_desc_free(m.spare);
}

/* A chunk is taken by the second entry, and by the first that the full ones have no room for: so
 * what a fault's cache holds is enough, and no chunk but the first has room. */
TEST(rmap, chunks_are_taken_when_all_are_full)
{
	struct model m = {0};

	for (unsigned int round = 0; round < 3; round++) {
		for (unsigned int i = m.nr; i < MAX; i++) {
			bool takes = i == 1 || (i > 1 && i % 14 == 0);

			add(&m, i);
			expect_eq(m.spare == NULL, i != 0 && takes);
		}
		/* Out of all chunks, down to the last entry of the first of them. */
		for (unsigned int i = round; m.nr > 14; i = (i + 5) % MAX)
			if (m.in[i])
				remove_one(&m, i);
		check(&m);
		while (m.nr)
			remove_one(&m, rmap_first(&m.head) - sptes);
	}
	rmap_desc_free(m.spare);
}

/* Each entry is given once, whichever of those that were given go meanwhile. */
struct visit {
	struct model *m;
	unsigned int seen[MAX];
	unsigned int nth, nr;
};

static void visit(spte_t *sptep, void *arg)
{
	struct visit *v = arg;

	v->seen[sptep - sptes]++;
	if (v->nth && ++v->nr % v->nth == 0)
		remove_one(v->m, sptep - sptes);
}

static void visit_all(struct model *m, unsigned int nth,
		      void (*each)(struct rmap_head *head, void (*fn)(spte_t *, void *), void *arg))
{
	struct visit v = {.m = m, .nth = nth};
	bool was_in[MAX];

	memcpy(was_in, m->in, sizeof(was_in));
	each(&m->head, visit, &v);
	for (unsigned int i = 0; i < MAX; i++)
		expect_eq(v.seen[i], was_in[i]);
	check(m);
}

static void each(struct rmap_head *head, void (*fn)(spte_t *, void *), void *arg)
{
	rmap_each(head, fn, arg);
}

TEST(rmap, entries_go_while_they_are_visited)
{
	for (unsigned int nr = 0; nr <= MAX; nr++) {
		for (unsigned int nth = 1; nth <= 5; nth++) {
			struct model m = {0};

			for (unsigned int i = 0; i < nr; i++)
				add(&m, i);
			visit_all(&m, 0, each);
			visit_all(&m, 0, rmap_each_lockless);
			visit_all(&m, nth, each);
			expect_eq(m.nr, nr - nr / nth);
			while (m.nr)
				remove_one(&m, rmap_first(&m.head) - sptes);
			rmap_desc_free(m.spare);
		}
	}
}

static void count_it(spte_t *sptep, void *arg)
{
	unsigned int *seen = arg;

	seen[sptep - sptes]++;
}

/* One entry, if it is there; the head is left as it was. */
TEST(rmap, one_of_them)
{
	for (unsigned int nr = 0; nr < MAX; nr++) {
		unsigned int seen[MAX] = {0};
		struct model m = {0};

		for (unsigned int i = 0; i < nr; i++)
			add(&m, i);
		for (unsigned int i = 0; i < MAX; i++)
			expect_eq(rmap_one_lockless(&m.head, &sptes[i], count_it, seen), i < nr);
		for (unsigned int i = 0; i < MAX; i++)
			expect_eq(seen[i], i < nr);
		check(&m);
		while (m.nr)
			remove_one(&m, rmap_first(&m.head) - sptes);
		rmap_desc_free(m.spare);
	}
}

static void remove_a_stranger(void *arg)
{
	struct model *m = arg;

	rmap_remove(&m->head, &sptes[MAX - 1]);
}

TEST(rmap, removing_a_stranger_is_a_bug)
{
	for (unsigned int nr = 0; nr < 31; nr++) {
		struct model m = {0};

		for (unsigned int i = 0; i < nr; i++)
			add(&m, i);
		expect_bug(remove_a_stranger, &m, "rmap holds the entry");
		while (m.nr)
			remove_one(&m, rmap_first(&m.head) - sptes);
		rmap_desc_free(m.spare);
	}
}

static void add_what_is_no_word(void *arg)
{
	struct model *m = arg;

	rmap_add(&m->head, (spte_t *)(void *)((char *)&sptes[1] + 1), &m->spare);
}

static void add_without_a_spare(void *arg)
{
	struct model *m = arg;

	rmap_add(&m->head, &sptes[1], &m->spare);
}

TEST(rmap, adding_what_it_cannot_hold_is_a_bug)
{
	struct model m = {0};

	expect_bug(add_what_is_no_word, &m, "an entry is a whole word");
	add(&m, 0);
	rmap_desc_free(m.spare);
	m.spare = NULL;
	expect_bug(add_without_a_spare, &m, "the cache was topped up");
	remove_one(&m, 0);
}

/* ---- its lock ---- */

#ifdef CONFIG_LOCKDEP
static void look_again(spte_t *sptep, void *arg)
{
	struct rmap_head *head = arg;

	(void)sptep;
	rmap_each_lockless(head, look_again, head);
}

static void look_within_a_look(void *arg)
{
	struct rmap_head *head = arg;

	rmap_each_lockless(head, look_again, head);
}
#endif

/* It is no lock that a thread can take twice: it would wait for itself. */
TEST(rmap, a_look_within_a_look_is_a_bug)
{
#ifndef CONFIG_LOCKDEP
	skip("built without CONFIG_LOCKDEP");
#else
	struct rmap_head head = {0};
	spte_t spte = 0;

	rmap_add(&head, &spte, NULL);
	expect_bug(look_within_a_look, &head, "is held by this thread already");
	rmap_remove(&head, &spte);
#endif
}

/* ---- looks beside changes ---- */

struct beside {
	struct rmap_head head;
	atomic_t stop;
	uint64_t written[MAX], looks;
};

/* What was written of an entry before it was added is there for who finds it. */
static void look_at_entry(spte_t *sptep, void *arg)
{
	struct beside *b = arg;

	expect_ne(b->written[sptep - sptes], 0);
}

static void run_looks(void *arg)
{
	struct beside *b = arg;

	while (!atomic_read(&b->stop)) {
		rmap_each_lockless(&b->head, look_at_entry, b);
		WRITE_ONCE(b->looks, b->looks + 1);
	}
}

/* With ThreadSanitizer this says whether the lock is one, and the first entry told of as others. */
TEST(rmap, looks_beside_changes)
{
	struct beside b = {.looks = 0};
	struct rmap_desc *spare = NULL;
	struct kthread thread;

	expect_eq(kthread_run(&thread, "looks", run_looks, &b), 0);
	for (unsigned int round = 0; round < 500 || READ_ONCE(b.looks) < 500; round++) {
		unsigned int nr = 1 + round % MAX;

		for (unsigned int i = 0; i < nr; i++) {
			b.written[i] = round + 1;
			spare = spare ?: rmap_desc_alloc();
			rmap_add(&b.head, &sptes[i], &spare);
		}
		for (unsigned int i = 0; i < nr; i++)
			rmap_remove(&b.head, &sptes[i]);
	}
	atomic_set(&b.stop, 1);
	kthread_join(&thread);
	rmap_desc_free(spare);
}
