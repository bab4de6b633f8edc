/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Where readers count: who has counts of his own and who has not, and what happens when the system
 * refuses what they need. Against the library without lockdep, as test_srcu_readers.c. The slots'
 * file is part of this one, to come between its steps.
 */
#include <errno.h>
#include <linux/membarrier.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#include "tests/support/relax.h"
#include "tests/support/srcu_litmus.h"
#include "tests/support/srcu_probe.h"
#include "tests/support/syscall_filter.h"
#include "tests/support/test.h"

static void before_hi(void);
static void before_memory(void);

#undef try_cmpxchg
#define try_cmpxchg(p, oldp, new)                                                              \
	(before_hi(), __atomic_compare_exchange_n((p), (oldp), (new), false, __ATOMIC_SEQ_CST, \
						  __ATOMIC_SEQ_CST))
#define mprotect(addr, len, prot) (before_memory(), (mprotect)((addr), (len), (prot)))
#include "notifier/srcu_slots.c"
#undef mprotect

static struct srcu_struct srcu;
static int handed_over; /* the cookie of a section that another thread ends */

static void setup(void)
{
	expect_eq(init_srcu_struct(&srcu), 0);
}

static void teardown(void)
{
	expect_eq(cleanup_srcu_struct(&srcu), 0);
}

static bool is_inside(void)
{
	return !poll_state_synchronize_srcu(&srcu, start_poll_synchronize_srcu(&srcu));
}

static unsigned int numbers_used(void)
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < SRCU_MAX_THREADS / 64; i++)
		n += (unsigned int)__builtin_popcountll(READ_ONCE(srcu_numbers_used[i]));
	return n;
}

static bool counts_for_itself(void)
{
	return current_thread()->srcu_slot != NULL;
}

static void read_once(void *arg)
{
	(void)arg;
	srcu_read_unlock(&srcu, srcu_read_lock(&srcu));
}

static void run_on_a_thread(void (*fn)(void *arg))
{
	struct kthread t;

	expect_eq(kthread_run(&t, "thread", fn, NULL), 0);
	kthread_join(&t);
}

/* ---- numbers ---- */

static void expect_counts_for_itself(void *arg)
{
	(void)arg;
	read_once(NULL);
	expect(counts_for_itself());
	expect_eq(__srcu_base, current_thread()->srcu_slot);
	/* Out of line it is the same number. */
	for (int i = 0; i < 5; i++)
		srcu_up_read(&srcu, srcu_down_read(&srcu));
	expect_eq(numbers_used(), 3);
}

/* Also with a number that somebody had before. */
TEST(srcu_slots, every_thread_counts_for_itself)
{
	if (syscall(SYS_membarrier, MEMBARRIER_CMD_QUERY, 0, 0) <= 0)
		skip("no membarrier here");
	setup();
	expect(srcu_read_lock_held(&srcu)); /* without lockdep nobody knows */
	read_once(NULL);
	expect_eq(numbers_used(), 2);
	for (int i = 0; i < 5; i++)
		run_on_a_thread(expect_counts_for_itself);
	expect_eq(numbers_used(), 2);
	teardown();
}

/* Two threads at the same time: each finds the number free that the other takes. */
static atomic64_t arrivals;

struct newcomer {
	struct kthread thread;
	int64_t round;
	char *slot;
};

static void register_together(void *arg)
{
	struct newcomer *n = arg;
	int cookie;

	meet(&arrivals, n->round, 2);
	cookie = srcu_read_lock(&srcu);
	n->slot = current_thread()->srcu_slot;
	/* Neither ends before both have a number. */
	meet(&arrivals, n->round + 1, 2);
	srcu_read_unlock(&srcu, cookie);
}

TEST(srcu_slots, numbers_are_not_shared)
{
	struct sweep sweep = sweep_start(20000);
	struct newcomer two[2];

	setup();
	for (int64_t i = 1; sweep_goes_on(&sweep, (i + 1) / 2); i += 2) {
		for (int n = 0; n < 2; n++) {
			two[n].round = i;
			expect_eq(kthread_run(&two[n].thread, "newcomer", register_together,
					      &two[n]),
				  0);
		}
		for (int n = 0; n < 2; n++)
			kthread_join(&two[n].thread);
		expect(two[0].slot && two[1].slot);
		expect_ne(two[0].slot, two[1].slot);
	}
	teardown();
}

static bool another_raises_hi;

static void before_hi(void)
{
	/* Other cases come here with two threads. */
	if (!READ_ONCE(another_raises_hi))
		return;
	WRITE_ONCE(another_raises_hi, false);
	WRITE_ONCE(slots.hi, 2);
}

/* Who had the number below ours is ready first, and raises hi, but not as far as we need it. */
TEST(srcu_slots, hi_is_raised_by_two)
{
	setup();
	srcu_numbers_used[0] |= 2;
	another_raises_hi = true;
	handed_over = srcu_read_lock(&srcu);
	expect(!another_raises_hi);
	expect(is_inside());
	expect_eq(slots.hi, 3);
	srcu_read_unlock(&srcu, handed_over);
	srcu_numbers_used[0] &= ~2ULL;
	teardown();
}

static struct srcu_domain *scanned;

/* A scan, at the last moment at which a new thread's counts cannot be read. */
static void before_memory(void)
{
	struct srcu_domain *d = scanned;
	uint64_t sums[2];

	/* Not stored to where threads register together. */
	if (!d)
		return;
	scanned = NULL;
	srcu_sum_unlocks(d, sums);
}

/*
 * Or the scan would not come back from it. With the second number: the first counts of number 1 are
 * in a page that number 0 has.
 */
TEST(srcu_slots, hi_is_raised_behind_the_memory)
{
	setup();
	srcu_numbers_used[0] |= 2;
	scanned = srcu.d;
	read_once(NULL);
	expect(!scanned);
	expect(counts_for_itself());
	srcu_numbers_used[0] &= ~2ULL;
	teardown();
}

/* Those before us took their numbers, and have no memory yet: scans go over it all the same. */
TEST(srcu_slots, memory_has_no_holes)
{
	setup();
	srcu_numbers_used[0] |= 0xffe;
	read_once(NULL);
	expect(counts_for_itself());
	expect(!is_inside());
	srcu_numbers_used[0] &= ~0xffeULL;
	teardown();
}

static pthread_key_t late_key;
static int late_calls;

static void expect_ended(void *value)
{
	/* Ours may run before or after this one; from the second round on it has run. */
	if (++late_calls > 1) {
		expect(!__srcu_base);
		expect(!counts_for_itself());
		read_once(NULL);
		expect(!counts_for_itself());
		expect_eq(numbers_used(), 1);
	}
	if (late_calls < 3)
		pthread_setspecific(late_key, value);
}

static void end_late(void *arg)
{
	(void)arg;
	read_once(NULL);
	pthread_setspecific(late_key, &late_key);
}

TEST(srcu_slots, gives_its_number_back_for_good)
{
	setup();
	expect_eq(pthread_key_create(&late_key, expect_ended), 0);
	run_on_a_thread(end_late);
	expect_eq(late_calls, 3);
	teardown();
}

/* ---- no number ---- */

static void take_all_numbers(void)
{
	for (unsigned int i = 0; i < SRCU_MAX_THREADS / 64; i++)
		WRITE_ONCE(srcu_numbers_used[i], ~0ULL);
}

static void lock_without_a_number(void *arg)
{
	(void)arg;
	handed_over = srcu_read_lock(&srcu);
	expect(!counts_for_itself());
}

/* Everybody's counts, and nobody has any others yet. */
TEST(srcu_slots, first_reader_has_no_number)
{
	setup();
	take_all_numbers();
	run_on_a_thread(lock_without_a_number);
	expect(is_inside());
	srcu_read_unlock(&srcu, handed_over);
	expect(!is_inside());
	/* Number 0 is everybody's, and not to be had. */
	expect_eq(srcu_numbers_used[0], ~0ULL);
	teardown();
}

/* Entered in everybody's counts, left in one's own; and the other way. */
TEST(srcu_slots, handed_over_with_and_without_a_number)
{
	uint64_t used[SRCU_MAX_THREADS / 64];
	int mine;

	setup();
	mine = srcu_read_lock(&srcu);
	for (unsigned int i = 0; i < SRCU_MAX_THREADS / 64; i++)
		used[i] = srcu_numbers_used[i];
	take_all_numbers();
	run_on_a_thread(lock_without_a_number);
	for (unsigned int i = 0; i < SRCU_MAX_THREADS / 64; i++)
		srcu_numbers_used[i] = used[i];
	srcu_read_unlock(&srcu, handed_over);
	expect(is_inside());
	srcu_read_unlock(&srcu, mine);
	expect(!is_inside());
	teardown();
}

/* For ThreadSanitizer: what it reads is handed over by [leave], by these counts too. */
static int data; /* plain */
static atomic_t has_read;

static void read_data(void *arg)
{
	int cookie = srcu_read_lock(&srcu);

	(void)arg;
	expect_ge(data, 0);
	srcu_read_unlock(&srcu, cookie);
	expect(!counts_for_itself());
	atomic_set(&has_read, 1);
}

TEST(srcu_slots, everybodys_counts_hand_over_what_was_read)
{
	struct kthread reader;

	setup();
	take_all_numbers();
	expect_eq(kthread_run(&reader, "reader", read_data, NULL), 0);
	while (!atomic_read(&has_read))
		sched_yield();
	synchronize_srcu(&srcu);
	data = 1;
	kthread_join(&reader);
	teardown();
}

/* ---- what the system refuses ---- */

static void limit_memory(rlim_t bytes)
{
	struct rlimit limit;

	expect_eq(getrlimit(RLIMIT_AS, &limit), 0);
	limit.rlim_cur = bytes;
	expect_eq(setrlimit(RLIMIT_AS, &limit), 0);
}

/* Sanitizers reserve more address space than there is, and do not take a refusal. */
static bool address_space_is_ours(void)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	return false;
#else
	return true;
#endif
}

TEST(srcu_slots, no_address_space)
{
	if (!address_space_is_ours())
		skip("a sanitizer's address space has no limit");
	limit_memory(400u << 20);
	for (int i = 0; i < 3; i++) {
		expect_eq(init_srcu_struct(&srcu), -ENOMEM);
		expect(!srcu.d);
	}
	limit_memory(RLIM_INFINITY);
	setup();
	read_once(NULL);
	teardown();
}

/* To make memory of a thread's counts accessible fails: at most two threads at a time. */
static void refuse_mprotect(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mprotect, 0, 4),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1])),
		BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, 128 << 10, 0, 2),
		BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, 320 << 10, 1, 0),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOMEM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};

	filter_syscalls(code, ARRAY_SIZE(code));
}

/* What was reserved is given back each time. */
TEST(srcu_slots, no_memory_for_everybodys_counts)
{
	if (!address_space_is_ours())
		skip("a sanitizer's address space has no limit");
	refuse_mprotect();
	limit_memory(3ul << 30);
	for (int i = 0; i < 10; i++)
		expect_eq(init_srcu_struct(&srcu), -ENOMEM);
	expect(mmap(NULL, 1ul << 30, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED);
}

static void read_without_memory(void *arg)
{
	(void)arg;
	errno = 0;
	handed_over = srcu_read_lock(&srcu);
	expect_eq(errno, 0);
	expect(!counts_for_itself());
	expect_eq(numbers_used(), 1);
}

TEST(srcu_slots, no_memory_for_own_counts)
{
	setup();
	refuse_mprotect();
	run_on_a_thread(read_without_memory);
	expect(is_inside());
	srcu_read_unlock(&srcu, handed_over);
	expect(!is_inside());
	teardown();
}

/* Without the end of a thread nobody could give a number back. */
TEST(srcu_slots, no_key_for_the_end_of_threads)
{
	const void *whose = pthread_getspecific(0); /* of the first who made one: a sanitizer? */
	pthread_key_t first, key;
	int n = 1;

	expect_eq(pthread_key_create(&first, NULL), 0);
	while (!pthread_key_create(&key, NULL))
		expect_le(++n, 100000);
	setup();
	handed_over = srcu_read_lock(&srcu);
	expect(is_inside());
	expect(!counts_for_itself());
	expect_eq(numbers_used(), 1);
	expect_eq(pthread_getspecific(0), whose);
	expect(!pthread_getspecific(first));
	srcu_read_unlock(&srcu, handed_over);
	expect(!is_inside());
	teardown();
}

/* ---- membarrier, as this test has it ---- */

static int commands, barriers, answer, refusals;

/* Instead of the system call. Handlers may use plain memory here: the call is their own thread's.
 */
static void emulate(int sig, siginfo_t *info, void *context)
{
	greg_t *regs = ((ucontext_t *)context)->uc_mcontext.gregs;

	(void)sig, (void)info;
	switch (regs[REG_RDI]) {
	case MEMBARRIER_CMD_QUERY:
		regs[REG_RAX] = commands;
		break;
	case MEMBARRIER_CMD_PRIVATE_EXPEDITED:
		smp_mb();
		barriers++;
		regs[REG_RAX] = barriers <= refusals ? answer : 0;
		break;
	default:
		regs[REG_RAX] = 0;
	}
}

static void emulate_membarrier(void)
{
	struct sigaction action = {.sa_sigaction = emulate, .sa_flags = SA_SIGINFO};

	commands = MEMBARRIER_CMD_PRIVATE_EXPEDITED | MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED;
	sigaction(SIGSYS, &action, NULL);
	filter_syscall(SYS_membarrier, SECCOMP_RET_TRAP);
}

/* The kernel may be out of memory for a moment: a barrier that was not one is not taken for one. */
TEST(srcu_slots, membarrier_is_asked_until_it_works)
{
	emulate_membarrier();
	setup();
	answer = -ENOMEM;
	refusals = 3;
	errno = 7;
	srcu_heavy_barrier();
	expect_eq(barriers, 4);
	expect_eq(errno, 7);
	teardown();
}

static void break_membarrier(void *arg)
{
	(void)arg;
	answer = -EINVAL;
	refusals = 10;
	srcu_heavy_barrier();
}

TEST(srcu_slots, membarrier_that_breaks_is_a_bug)
{
	emulate_membarrier();
	setup();
	expect_bug(break_membarrier, NULL, "membarrier stopped working");
	teardown();
}

/* Others than ours do not help. */
TEST(srcu_slots, membarrier_of_another_kind)
{
	emulate_membarrier();
	commands = MEMBARRIER_CMD_GLOBAL;
	errno = 7;
	setup();
	expect_eq(errno, 7);
	for (int i = 0; i < 5; i++)
		read_once(NULL);
	expect(!__srcu_base);
	/* One number all the same, however often it comes by. */
	expect_eq(numbers_used(), 2);
	synchronize_srcu(&srcu);
	expect_eq(barriers, 0);
	teardown();
}

/* ---- readers as they are inlined, and the worker ---- */

static atomic64_t ran;

static void count(struct srcu_head *head)
{
	(void)head;
	atomic64_add_return(1, &ran);
}

/* As in test_srcu_callback.c: the worker is told by this unlock, or by nobody. */
TEST(srcu_slots, reader_wakes_the_worker)
{
	struct sweep sweep = sweep_start(20000);
	struct srcu_head head;

	setup();
	expect_eq(srcu_workers_start(), 0);
	for (int64_t i = 1; sweep_goes_on(&sweep, i); i++) {
		int cookie = srcu_read_lock(&srcu);

		call_srcu(&srcu, &head, count);
		if (i % 64)
			relax((unsigned int)i % 500);
		else
			wait_for_blocked_grace_period(&srcu);
		srcu_read_unlock(&srcu, cookie);
		poll_until(&ran, i);
	}
	srcu_workers_stop();
	teardown();
}

/* [enter] for the worker, whose scans are not those of synchronize_srcu(). */

static uint64_t round_over;

static void publish(struct srcu_head *head)
{
	(void)head;
	smp_store_release(&litmus_y, READ_ONCE(litmus_x));
	smp_store_release(&round_over, READ_ONCE(litmus_x));
}

static void call_and_wait(uint64_t i)
{
	static struct srcu_head head;

	call_srcu(&srcu, &head, publish);
	while (smp_load_acquire(&round_over) != i)
		sched_yield();
}

TEST(srcu_slots, litmus_of_the_worker)
{
	setup();
	expect_eq(srcu_workers_start(), 0);
	run_srcu_litmus(&srcu, 1, test_long() ? 4000000 : 200000, call_and_wait);
	srcu_workers_stop();
	teardown();
}
