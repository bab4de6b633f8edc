/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * mm_take_all_locks that is interrupted (N-70): at every place where it looks for a signal, in
 * turn. All or nothing: after it no lock is held, and register has done nothing. And takers who
 * share objects (N-71).
 */
#include <signal.h>

#include "tests/support/fail_alloc.h"
#include "tests/support/got_notifier.h"
#include "tests/support/interrupt.h"
#include "tests/support/mm_fixture.h"

static bool is_locked(struct rw_semaphore *sem)
{
	bool got = down_write_trylock(sem);

	if (got)
		up_write(sem);
	return !got;
}

/* Shared and private areas in turns, with objects that occur more than once. */
#define VMAS 6

struct crowd {
	struct phys *phys;
	struct mm_struct *mm;
	struct address_space *mappings[2];
};

static void crowd_init(struct crowd *c, struct phys *phys)
{
	c->phys = phys;
	c->mm = test_mm(c->phys);
	for (int i = 0; i < 2; i++)
		c->mappings[i] = test_mapping(c->phys, VMAS);
	for (uint64_t i = 0; i < VMAS; i++)
		expect_eq(mm_mmap(c->mm, HVA + i * PAGE_SIZE, PAGE_SIZE, RW,
				  i % 3 == 2 ? NULL : c->mappings[i % 3], 0),
			  0);
}

static void crowd_destroy(struct crowd *c)
{
	mmput(c->mm);
	for (int i = 0; i < 2; i++)
		address_space_put(c->mappings[i]);
}

static void expect_nothing_locked(struct crowd *c)
{
	expect_eq(READ_ONCE(mm_all_locks_mutex.raw.state), 0);
	mmap_write_lock(c->mm);
	for (struct vm_area_struct *vma = vma_first(c->mm); vma; vma = vma_next(vma)) {
		if (vma->mapping) {
			expect(!vma->mapping->all_locked);
			expect(!is_locked(&vma->mapping->i_mmap_rwsem));
		} else {
			expect(!vma->anon_vma->all_locked);
			expect(!is_locked(&vma->anon_vma->rwsem));
		}
	}
	mmap_write_unlock(c->mm);
}

TEST(mm_locks_signal, all_or_nothing)
{
	struct crowd c;
	int look = 0, ret;

	crowd_init(&c, test_phys(1));
	do {
		mmap_write_lock(c.mm);
		interrupt_at(look);
		ret = mm_take_all_locks(c.mm);
		if (!ret) {
			/* Nothing was forgotten, whoever was interrupted before. */
			for (int i = 0; i < 2; i++)
				expect(is_locked(&c.mappings[i]->i_mmap_rwsem));
			mm_drop_all_locks(c.mm);
		} else {
			expect_eq(ret, -EINTR);
			expect_eq(nr_looks, look + 1);
		}
		mmap_write_unlock(c.mm);
		expect_nothing_locked(&c);
		look++;
	} while (ret);
	/* Before each area, in both passes; the last try had no signal. */
	expect_eq(look - 1, 2 * VMAS);
	expect_eq(nr_looks, 2 * VMAS);
	crowd_destroy(&c);
	test_phys_done(c.phys);
}

/* What the process makes once, at its first register, and keeps. */
static void make_srcu(void)
{
	struct recorder r;
	struct host h;

	host_init(&h);
	recorder_init(&r, 'r', NULL);
	expect_eq(mmu_notifier_register(&r.mn, h.mm), 0);
	mmu_notifier_unregister(&r.mn, h.mm);
	host_destroy(&h);
}

/* Memory, mm_count, block and list are as before; and then it succeeds. */
TEST(mm_locks_signal, register_is_interrupted)
{
	make_srcu();
	for (int subscribers = 0; subscribers < 2; subscribers++) {
		struct recorder r, other;
		struct crowd c;
		int look, ret;

		crowd_init(&c, test_phys(1));
		recorder_init(&r, 'r', NULL);
		recorder_init(&other, 'o', NULL);
		interrupt_at(-1);
		if (subscribers)
			expect_eq(mmu_notifier_register(&other.mn, c.mm), 0);
		for (look = 0;; look++) {
			struct notifier_subscriptions *block = c.mm->notifier_subscriptions;
			int64_t live = atomic64_read(&allocs.live);
			int mm_count = mm_count_of(c.mm);

			interrupt_at(look);
			ret = mmu_notifier_register(&r.mn, c.mm);
			if (!ret)
				break;
			expect_eq(ret, -EINTR);
			expect_eq(nr_looks, look + 1);
			expect_eq(atomic64_read(&allocs.live), live);
			expect_eq(mm_count_of(c.mm), mm_count);
			expect(c.mm->notifier_subscriptions == block);
			expect(subscribers ? block->first == &other.mn : !block);
			expect(!r.mn.pprev);
			expect_nothing_locked(&c);
			window(c.mm);
			expect_counts(&r, 0, 0, 0);
		}
		expect_eq(look, 2 * VMAS);
		window(c.mm);
		expect_counts(&r, 1, 1, 0);
		mmu_notifier_unregister(&r.mn, c.mm);
		if (subscribers)
			mmu_notifier_unregister(&other.mn, c.mm);
		crowd_destroy(&c);
		test_phys_done(c.phys);
	}
}

/* What alloc_notifier made is freed before get returns, at each of the places. */
TEST(mm_locks_signal, get_is_interrupted)
{
	struct mmu_notifier *mn;
	struct crowd c;
	int look;

	crowd_init(&c, test_phys(1));
	for (look = 0;; look++) {
		interrupt_at(look);
		mn = mmu_notifier_get(&got_ops[0], c.mm);
		if (!IS_ERR(mn))
			break;
		expect_eq(PTR_ERR(mn), -EINTR);
		expect_lives(look + 1, look + 1);
		expect_eq(mm_count_of(c.mm), 1);
		expect_nothing_locked(&c);
	}
	expect_eq(look, 2 * VMAS);
	mmu_notifier_put(mn);
	expect_all_dead();
	crowd_destroy(&c);
	test_phys_done(c.phys);
}

/* No area, no lock to wait for: it does not look. */
TEST(mm_locks_signal, nothing_to_wait_for)
{
	struct phys *phys = test_phys(1);
	struct mm_struct *mm = test_mm(phys);

	interrupt_at(0);
	mmap_write_lock(mm);
	expect_eq(mm_take_all_locks(mm), 0);
	mm_drop_all_locks(mm);
	mmap_write_unlock(mm);
	expect_eq(nr_looks, 0);
	mmput(mm);
	test_phys_done(phys);
}

/* ---- a signal ---- */

static atomic_t handled;

static void on_signal(int sig)
{
	(void)sig;
	set_signal_pending();
	atomic_inc_return(&handled);
}

struct registrant {
	struct mm_struct *mm;
	struct recorder r;
	int first, second;
};

static void register_twice(void *arg)
{
	struct registrant *reg = arg;

	reg->first = mmu_notifier_register(&reg->r.mn, reg->mm);
	clear_signal_pending();
	reg->second = mmu_notifier_register(&reg->r.mn, reg->mm);
}

/* It comes while the thread sleeps for one of the locks. */
TEST(mm_locks_signal, while_it_waits_for_a_lock)
{
	const struct sigaction action = {.sa_handler = on_signal};
	struct registrant reg = {0};
	struct rw_semaphore *sem;
	struct kthread thread;
	struct crowd c;

#ifdef __SANITIZE_THREAD__
	skip("ThreadSanitizer holds signals back");
#endif
	crowd_init(&c, test_phys(1));
	recorder_init(&reg.r, 'r', NULL);
	reg.mm = c.mm;
	expect_eq(sigaction(SIGUSR1, &action, NULL), 0);
	sem = &c.mappings[1]->i_mmap_rwsem;
	down_write(sem);
	expect_eq(kthread_run(&thread, "register", register_twice, &reg), 0);
	while (!(READ_ONCE(sem->count) & RWSEM_WAITERS))
		sched_yield();
	/* It has that of the first area. */
	expect(is_locked(&c.mappings[0]->i_mmap_rwsem));
	expect_eq(pthread_kill(thread.handle, SIGUSR1), 0);
	while (!atomic_read_acquire(&handled))
		sched_yield();
	up_write(sem);
	kthread_join(&thread);
	expect_eq(reg.first, -EINTR);
	expect_eq(reg.second, 0);
	expect_nothing_locked(&c);
	window(c.mm);
	expect_counts(&reg.r, 1, 1, 0);
	mmu_notifier_unregister(&reg.r.mn, c.mm);
	crowd_destroy(&c);
	test_phys_done(c.phys);
}

/* ---- takers who share objects ---- */

struct taking {
	struct mm_struct *mm;
	struct park *park; /* with all locks held, or NULL */
	int ret;
};

static void take_and_drop(void *arg)
{
	struct taking *t = arg;

	mmap_write_lock(t->mm);
	t->ret = mm_take_all_locks(t->mm);
	if (!t->ret) {
		if (t->park)
			park_enter(t->park);
		mm_drop_all_locks(t->mm);
	}
	mmap_write_unlock(t->mm);
}

/* Whoever has to wait for another taker holds none of the locks meanwhile: so they cannot cross. */
TEST(mm_locks_signal, second_taker_holds_nothing)
{
	struct kthread threads[2];
	struct taking taking[2];
	struct crowd c[2];
	struct park park;

	park_init(&park);
	crowd_init(&c[0], test_phys(1));
	crowd_init(&c[1], c[0].phys);
	/* The second has one of the first's as its last. */
	expect_eq(mm_mmap(c[1].mm, HVA + LEN, PAGE_SIZE, RW, c[0].mappings[0], 0), 0);
	taking[0] = (struct taking){.mm = c[0].mm, .park = &park};
	taking[1] = (struct taking){.mm = c[1].mm};
	expect_eq(kthread_run(&threads[0], "first", take_and_drop, &taking[0]), 0);
	park_wait(&park, 1);
	expect_eq(kthread_run(&threads[1], "second", take_and_drop, &taking[1]), 0);
	/* Asleep, for the mutex or, if that were wrong, for the object. */
	while (READ_ONCE(mm_all_locks_mutex.raw.state) != 2 &&
	       !(READ_ONCE(c[0].mappings[0]->i_mmap_rwsem.count) & RWSEM_WAITERS))
		sched_yield();
	for (int i = 0; i < 2; i++)
		expect(!is_locked(&c[1].mappings[i]->i_mmap_rwsem));
	park_release(&park);
	for (int i = 0; i < 2; i++) {
		kthread_join(&threads[i]);
		expect_eq(taking[i].ret, 0);
	}
	expect_nothing_locked(&c[0]);
	expect_nothing_locked(&c[1]);
	crowd_destroy(&c[1]);
	crowd_destroy(&c[0]);
	test_phys_done(c[0].phys);
}

struct crossing {
	struct mm_struct *mm[2];
	struct address_space *mappings[2];
	atomic_t next;
	uint64_t goal;
	uint64_t inside; /* plain: takers exclude each other, interrupted or not */
	atomic64_t taken, interrupted;
};

static void cross(void *arg)
{
	struct crossing *x = arg;
	int n = atomic_fetch_add(1, &x->next);
	struct mm_struct *mm = x->mm[n & 1];

	for (uint64_t i = 0; i < x->goal; i++) {
		int ret;

		/* Of four looks: the first, the third, one in between, or none. */
		interrupt_at((int)((i + (uint64_t)n) % 5));
		mmap_write_lock(mm);
		ret = mm_take_all_locks(mm);
		if (!ret) {
			x->inside++;
			mm_drop_all_locks(mm);
			atomic64_inc(&x->taken);
		} else {
			expect_eq(ret, -EINTR);
			atomic64_inc(&x->interrupted);
		}
		mmap_write_unlock(mm);
	}
}

/* Two mms map the same objects, in opposite order, and takers of both are interrupted. */
TEST(mm_locks_signal, takers_that_give_up_do_not_deadlock)
{
	struct crossing x = {.goal = 5 * test_volume(1000)};
	struct phys *phys = test_phys(1);

	for (int i = 0; i < 2; i++)
		x.mappings[i] = test_mapping(phys, 1);
	for (int i = 0; i < 2; i++) {
		x.mm[i] = test_mm(phys);
		for (int k = 0; k < 2; k++)
			expect_eq(mm_mmap(x.mm[i], HVA + (uint64_t)k * PAGE_SIZE, PAGE_SIZE, RW,
					  x.mappings[i ^ k], 0),
				  0);
	}
	test_threads(4, cross, &x);
	expect_eq(atomic64_read(&x.taken), 4 * x.goal / 5);
	expect_eq(x.inside, 4 * x.goal / 5);
	expect_eq(atomic64_read(&x.interrupted), 4 * x.goal * 4 / 5);
	for (int i = 0; i < 2; i++) {
		expect(!x.mappings[i]->all_locked);
		expect(!is_locked(&x.mappings[i]->i_mmap_rwsem));
	}
	mmput(x.mm[0]);
	mmput(x.mm[1]);
	address_space_put(x.mappings[0]);
	address_space_put(x.mappings[1]);
	test_phys_done(phys);
}
