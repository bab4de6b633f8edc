/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reference counts: what they say, and what happens to one that went wrong.
 */
#include <sched.h>
#include <stdlib.h>

#include "notifier/sync/atomic.h"
#include "notifier/sync/refcount.h"
#include "notifier/sync/thread.h"
#include "notifier/sync/util.h"
#include "tests/support/relax.h"
#include "tests/support/test.h"

static void *logged_arg;
static int logged;

static void count_warnings(enum gnomon_log_level level, const char *message, void *arg)
{
	(void)message;
	expect_eq(level, GNOMON_LOG_WARN);
	logged_arg = arg;
	logged++;
}

TEST(refcount, counts)
{
	refcount_t r = REFCOUNT_INIT(1);

	refcount_inc(&r);
	expect(refcount_inc_not_zero(&r));
	expect_eq(refcount_read(&r), 3);
	expect(!refcount_dec_and_test(&r));
	expect(!refcount_dec_and_test(&r));
	expect(refcount_dec_and_test(&r));
	expect(!refcount_inc_not_zero(&r));
	expect_eq(refcount_read(&r), 0);
}

/* Whatever goes wrong: reported once, and never again a count that reaches zero. */
static void expect_saturated(refcount_t *r)
{
	expect_eq(logged, 1);
	expect_le(refcount_read(r), 0);
	refcount_inc(r);
	expect(refcount_inc_not_zero(r));
	for (int i = 0; i < 1000; i++)
		expect(!refcount_dec_and_test(r));
	expect_eq(refcount_read(r), REFCOUNT_SATURATED);
	expect_eq(logged, 1);
	logged = 0;
}

TEST(refcount, saturates)
{
	refcount_t r;

	gnomon_set_log(count_warnings, &r);

	refcount_set(&r, 0);
	refcount_inc(&r);
	expect_saturated(&r);

	refcount_set(&r, 0);
	expect(!refcount_dec_and_test(&r));
	expect_saturated(&r);

	refcount_set(&r, INT_MAX);
	refcount_inc(&r);
	expect_saturated(&r);

	refcount_set(&r, INT_MAX);
	expect(refcount_inc_not_zero(&r));
	expect_saturated(&r);
}

/* --- kref --- */

static int released;

static void count_release(struct kref *kref)
{
	expect_eq(kref_read(kref), 0);
	released++;
}

TEST(refcount, kref)
{
	struct kref kref = {.refcount = REFCOUNT_INIT(77)};

	kref_init(&kref);
	expect_eq(kref_read(&kref), 1);
	kref_get(&kref);
	expect_eq(kref_read(&kref), 2);
	expect(kref_get_unless_zero(&kref));
	expect_eq(kref_read(&kref), 3);
	expect(!kref_put(&kref, count_release));
	expect(!kref_put(&kref, count_release));
	expect_eq(released, 0);
	expect(kref_put(&kref, count_release));
	expect_eq(released, 1);
	expect(!kref_get_unless_zero(&kref));
	expect_eq(kref_read(&kref), 0);
}

/* --- threads --- */

#define NR_THREADS  4
#define MAX_LOOKUPS 50

#define ROUNDS 300
#define GETS   500

static refcount_t many = REFCOUNT_INIT(1);
static atomic64_t arrivals;

static void get_many(void *arg)
{
	(void)arg;
	for (int round = 1; round <= ROUNDS; round++) {
		meet(&arrivals, round, 2);
		for (int i = 0; i < GETS; i++) {
			refcount_inc(&many);
			expect(refcount_inc_not_zero(&many));
			if (i % 2)
				expect(!refcount_dec_and_test(&many));
		}
	}
}

/* None of them is lost to another. */
TEST(refcount, counts_of_two_threads)
{
	struct kthread t;

	expect_eq(kthread_run(&t, "getter", get_many, NULL), 0);
	get_many(NULL);
	kthread_join(&t);
	expect_eq(refcount_read(&many), 1 + 2 * ROUNDS * (GETS + GETS / 2));
}

struct object {
	struct kref kref;
	int value; /* plain: whoever frees comes after everyone who looked */
};

static struct object *object;
static atomic64_t got, missed, freed;

static void release_object(struct kref *kref)
{
	struct object *o = container_of(kref, struct object, kref);

	expect_eq(o->value, 0);
	o->value = -1;
	atomic64_inc(&freed);
}

static void get_and_put(void *arg)
{
	struct object *o = object;

	(void)arg;
	for (int i = 0; i < MAX_LOOKUPS; i++) {
		if (!kref_get_unless_zero(&o->kref)) {
			atomic64_inc(&missed);
			return;
		}
		expect_eq(o->value, 0);
		atomic64_inc(&got);
		kref_put(&o->kref, release_object);
		sched_yield();
	}
}

/* Lookups against the last put: one release, by whoever is last, after which nobody gets in. */
TEST(refcount, last_put_against_lookups)
{
	const int64_t rounds = test_long() ? 5000 : 100, misses = rounds / 10;

	for (int64_t i = 0; i < rounds || atomic64_read(&missed) < misses; i++) {
		struct kthread threads[NR_THREADS];

		object = calloc(1, sizeof(*object));
		kref_init(&object->kref);
		for (int t = 0; t < NR_THREADS; t++)
			expect_eq(kthread_run(&threads[t], "lookup", get_and_put, NULL), 0);
		sched_yield();
		kref_put(&object->kref, release_object);
		for (int t = 0; t < NR_THREADS; t++)
			kthread_join(&threads[t]);
		expect_eq(atomic64_read(&freed), i + 1);
		expect_eq(kref_read(&object->kref), 0);
		expect_eq(object->value, -1);
		free(object);
	}
	expect_ge(atomic64_read(&got), rounds);
}
