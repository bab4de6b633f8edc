/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Atomics: what they do and return, in both widths, and the order that they promise. The oracle of
 * order is ThreadSanitizer: two threads hand plain data to each other with nothing but the
 * operation in between, and one that orders less is a race.
 */
#include "notifier/sync/atomic.h"
#include "notifier/sync/thread.h"
#include "tests/support/relax.h"
#include "tests/support/test.h"

/* Values that a narrow or a signed slip would show. */
#define BIG32 0x40000000
#define BIG64 (1LL << 40)

#define TEST_VALUES(A, T, BIG)                             \
	TEST(atomic, A##_steps)                            \
	{                                                  \
		A##_t v = {BIG};                           \
                                                           \
		expect_eq(A##_read(&v), BIG);              \
		A##_add(5, &v);                            \
		expect_eq(A##_read(&v), BIG + 5);          \
		A##_sub(3, &v);                            \
		expect_eq(A##_read(&v), BIG + 2);          \
		A##_inc(&v);                               \
		expect_eq(A##_read_acquire(&v), BIG + 3);  \
		A##_dec(&v);                               \
		expect_eq(A##_read(&v), BIG + 2);          \
		A##_set(&v, 7);                            \
		expect_eq(A##_read(&v), 7);                \
		A##_set_release(&v, 9);                    \
		expect_eq(A##_read(&v), 9);                \
	}                                                  \
                                                           \
	TEST(atomic, A##_returns)                          \
	{                                                  \
		A##_t v = {BIG};                           \
                                                           \
		expect_eq(A##_fetch_add(5, &v), BIG);      \
		expect_eq(A##_fetch_sub(3, &v), BIG + 5);  \
		expect_eq(A##_add_return(5, &v), BIG + 7); \
		expect_eq(A##_sub_return(3, &v), BIG + 4); \
		expect_eq(A##_inc_return(&v), BIG + 5);    \
		expect_eq(A##_dec_return(&v), BIG + 4);    \
		expect_eq(A##_fetch_or(3, &v), BIG + 4);   \
		expect_eq(A##_fetch_and(6, &v), BIG + 7);  \
		expect_eq(A##_xchg(&v, 2), 6);             \
		expect(!A##_dec_and_test(&v));             \
		expect(A##_dec_and_test(&v));              \
		A##_set(&v, BIG + 1);                      \
		expect(!A##_sub_and_test(BIG, &v));        \
		expect(A##_sub_and_test(1, &v));           \
		expect_eq(A##_read(&v), 0);                \
	}                                                  \
                                                           \
	TEST(atomic, A##_conditions)                       \
	{                                                  \
		A##_t v = {5};                             \
		T old = 4;                                 \
                                                           \
		expect_eq(A##_cmpxchg(&v, 4, 9), 5);       \
		expect_eq(A##_read(&v), 5);                \
		expect_eq(A##_cmpxchg(&v, 5, 9), 5);       \
		expect_eq(A##_read(&v), 9);                \
		expect(!A##_try_cmpxchg(&v, &old, 1));     \
		expect_eq(old, 9);                         \
		expect_eq(A##_read(&v), 9);                \
		expect(A##_try_cmpxchg(&v, &old, BIG));    \
		expect_eq(A##_read(&v), BIG);              \
		expect(!A##_add_unless(&v, 1, BIG));       \
		expect_eq(A##_read(&v), BIG);              \
		expect(A##_add_unless(&v, 3, 1));          \
		expect_eq(A##_read(&v), BIG + 3);          \
		expect(A##_inc_not_zero(&v));              \
		expect_eq(A##_read(&v), BIG + 4);          \
		A##_set(&v, 0);                            \
		expect(!A##_inc_not_zero(&v));             \
		expect_eq(A##_read(&v), 0);                \
	}

TEST_VALUES(atomic, int, BIG32)
TEST_VALUES(atomic64, int64_t, BIG64)

TEST(atomic, pointers_too)
{
	int old = 5, *p = NULL;

	expect(!cmpxchg(&p, NULL, &old));
	expect_eq(cmpxchg(&p, NULL, NULL), &old);
	expect_eq(xchg(&p, NULL), &old);
	expect(!READ_ONCE(p));
}

/* --- nothing is lost between threads --- */

#define ROUNDS 300
#define STEPS  500

static atomic64_t arrivals, sum, unless;

static void count_up(void *arg)
{
	(void)arg;
	for (int round = 1; round <= ROUNDS; round++) {
		meet(&arrivals, round, 2);
		for (int i = 0; i < STEPS; i++) {
			atomic64_inc(&sum);
			expect(atomic64_add_unless(&unless, 1, -1));
		}
	}
}

TEST(atomic, counts_of_two_threads)
{
	struct kthread t;

	expect_eq(kthread_run(&t, "counter", count_up, NULL), 0);
	count_up(NULL);
	kthread_join(&t);
	expect_eq(atomic64_read(&sum), 2 * ROUNDS * STEPS);
	expect_eq(atomic64_read(&unless), 2 * ROUNDS * STEPS);
}

/* --- order --- */

static atomic_t word32;
static atomic64_t word64;
static uint32_t raw_word;
static int *pointer;

/* One side of each is a release, the other an acquire; a full barrier is both. */
static void full_mb(void)
{
	smp_mb();
}

static void full_xchg(void)
{
	xchg(&raw_word, 1);
}

static void full_cmpxchg(void)
{
	uint32_t old = READ_ONCE(raw_word);

	while (cmpxchg(&raw_word, old, old + 1) != old)
		old = READ_ONCE(raw_word);
}

static void full_try_cmpxchg(void)
{
	uint32_t old = READ_ONCE(raw_word);

	while (!try_cmpxchg(&raw_word, &old, old + 1))
		;
}

static void acquire_failed_cmpxchg(void)
{
	expect_ne(cmpxchg(&pointer, NULL, NULL), NULL);
}

static void acquire_failed_try_cmpxchg(void)
{
	int *none = NULL;

	expect(!try_cmpxchg(&pointer, &none, NULL));
}

static void release_pointer(void)
{
	static int something;

	smp_store_release(&pointer, &something);
}

static void acquire_pointer(void)
{
	expect(smp_load_acquire(&pointer));
}

#define FULL(A, word)                         \
	static void A##_full_add(void)        \
	{                                     \
		A##_fetch_add(1, &word);      \
	}                                     \
	static void A##_full_sub(void)        \
	{                                     \
		A##_fetch_sub(1, &word);      \
	}                                     \
	static void A##_full_or(void)         \
	{                                     \
		A##_fetch_or(1, &word);       \
	}                                     \
	static void A##_full_and(void)        \
	{                                     \
		A##_fetch_and(1, &word);      \
	}                                     \
	static void A##_full_add_return(void) \
	{                                     \
		A##_add_return(1, &word);     \
	}                                     \
	static void A##_full_sub_return(void) \
	{                                     \
		A##_sub_return(1, &word);     \
	}                                     \
	static void A##_full_xchg(void)       \
	{                                     \
		A##_xchg(&word, 1);           \
	}                                     \
	static void A##_release(void)         \
	{                                     \
		A##_set_release(&word, 1);    \
	}                                     \
	static void A##_acquire(void)         \
	{                                     \
		A##_read_acquire(&word);      \
	}

FULL(atomic, word32)
FULL(atomic64, word64)

struct pass {
	void (*release)(void), (*acquire)(void);
	int data; /* plain: whose turn it is may touch it */
	atomic64_t turn __attribute__((aligned(64)));
};

/* Relaxed on purpose: the operation beside it is what orders. */
static void wait_for_turn(const struct pass *pass, int64_t turn)
{
	for (unsigned int i = 1; atomic64_read(&pass->turn) < turn; i++) {
		cpu_relax();
		if (i % 1024 == 0)
			sched_yield();
	}
}

static void take_and_give_back(void *arg)
{
	struct pass *pass = arg;

	wait_for_turn(pass, 1);
	pass->acquire();
	expect_eq(pass->data, 1);
	pass->data = 2;
	atomic64_set_release(&pass->turn, 2);
}

static void pass_by(void (*release)(void), void (*acquire)(void))
{
	struct pass pass = {.release = release, .acquire = acquire};
	struct kthread t;

	expect_eq(kthread_run(&t, "taker", take_and_give_back, &pass), 0);
	pass.data = 1;
	pass.release();
	atomic64_set(&pass.turn, 1);
	kthread_join(&t);
	expect_eq(pass.data, 2);
}

TEST(atomic, full_barriers_hand_over)
{
	static void (*const full[])(void) = {
		full_mb,
		full_xchg,
		full_cmpxchg,
		full_try_cmpxchg,
		atomic_full_add,
		atomic_full_sub,
		atomic_full_or,
		atomic_full_and,
		atomic_full_add_return,
		atomic_full_sub_return,
		atomic_full_xchg,
		atomic64_full_add,
		atomic64_full_sub,
		atomic64_full_or,
		atomic64_full_and,
		atomic64_full_add_return,
		atomic64_full_sub_return,
		atomic64_full_xchg,
	};

	for (unsigned int i = 0; i < sizeof(full) / sizeof(full[0]); i++)
		pass_by(full[i], full[i]);
}

TEST(atomic, release_and_acquire_hand_over)
{
	pass_by(release_pointer, acquire_pointer);
	pass_by(release_pointer, acquire_failed_cmpxchg);
	pass_by(release_pointer, acquire_failed_try_cmpxchg);
	pass_by(atomic_release, atomic_acquire);
	pass_by(atomic64_release, atomic64_acquire);
}

/*
 * What x86 itself would reorder: each stores to its own word, then loads the other's. With full
 * barriers one of them finds the other's store. TSan sees nothing of this; the machine does.
 */
static struct {
	uint32_t word __attribute__((aligned(64)));
	uint32_t saw;
	atomic64_t round __attribute__((aligned(64)));
} side[2];

static void store_and_look(void *arg)
{
	for (int64_t i = 1; poll_until(&side[0].round, i) != SWEEP_OVER; i++) {
		WRITE_ONCE(side[1].word, 1);
		smp_mb();
		side[1].saw = READ_ONCE(side[0].word);
		atomic64_set_release(&side[1].round, i);
	}
	(void)arg;
}

TEST(atomic, full_barrier_between_store_and_load)
{
	struct sweep sweep = sweep_start(5000);
	struct kthread t;

	expect_eq(kthread_run(&t, "other", store_and_look, NULL), 0);
	for (int64_t i = 1; sweep_goes_on(&sweep, i); i++) {
		WRITE_ONCE(side[0].word, 0);
		WRITE_ONCE(side[1].word, 0);
		atomic64_set_release(&side[0].round, i);
		relax((unsigned int)(i % 20));
		WRITE_ONCE(side[0].word, 1);
		smp_mb();
		side[0].saw = READ_ONCE(side[1].word);
		poll_until(&side[1].round, i);
		expect(side[0].saw || side[1].saw);
	}
	atomic64_set_release(&side[0].round, SWEEP_OVER);
	kthread_join(&t);
}
