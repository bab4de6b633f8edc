// SPDX-License-Identifier: LGPL-2.1-or-later
/* What only a bug of ours, or of a caller, can bring about, and that it is told at the place. */
#include "notifier/mm_internal.h"
#include "notifier/subscriptions.h"
#include "tests/support/notifier_fixture.h"

struct misuse {
	struct host h;
	struct recorder r;
};

static void misuse_init(struct misuse *m)
{
	host_init(&m->h);
	recorder_init(&m->r, 'm', NULL);
}

static void register_without_mmap_lock(void *arg)
{
	struct misuse *m = arg;

	expect_eq(__mmu_notifier_register(&m->r.mn, m->h.mm), 0);
}

static void register_with_it_for_reading(void *arg)
{
	struct misuse *m = arg;

	mmap_read_lock(m->h.mm);
	expect_eq(__mmu_notifier_register(&m->r.mn, m->h.mm), 0);
}

static void get_without_mmap_lock(void *arg)
{
	static struct mmu_notifier_ops ops;
	struct misuse *m = arg;

	(void)!mmu_notifier_get_locked(&ops, m->h.mm);
}

static void register_without_a_user(void *arg)
{
	struct misuse *m = arg;

	refcount_set(&m->h.mm->mm_users, 0);
	(void)!mmu_notifier_register(&m->r.mn, m->h.mm);
}

static void flush(struct mmu_notifier *mn, struct mm_struct *mm, hva_t start, hva_t end)
{
	(void)mn, (void)mm, (void)start, (void)end;
}

/* Told before what else is wrong with the call. */
static void register_something_else_without_a_user(void *arg)
{
	struct misuse *m = arg;
	struct mmu_notifier_ops ops = *m->r.mn.ops;

	ops.arch_invalidate_secondary_tlbs = flush;
	m->r.mn.ops = &ops;
	register_without_a_user(m);
}

static void unregister_without_a_count(void *arg)
{
	struct misuse *m = arg;

	expect_eq(mmu_notifier_register(&m->r.mn, m->h.mm), 0);
	refcount_set(&m->h.mm->mm_count, 0);
	mmu_notifier_unregister(&m->r.mn, m->h.mm);
}

static void unregister_no_release_without_a_count(void *arg)
{
	struct misuse *m = arg;

	expect_eq(mmu_notifier_register(&m->r.mn, m->h.mm), 0);
	refcount_set(&m->h.mm->mm_count, 0);
	mmu_notifier_unregister_no_release(&m->r.mn, m->h.mm);
}

static void destroy_with_a_notifier(void *arg)
{
	struct misuse *m = arg;

	expect_eq(mmu_notifier_register(&m->r.mn, m->h.mm), 0);
	mmu_notifier_subscriptions_destroy(m->h.mm);
}

static bool ignore(struct mmu_interval_notifier *sub, const struct mmu_notifier_range *range,
		   unsigned long seq)
{
	(void)sub, (void)range, (void)seq;
	return true;
}

static void destroy_with_an_interval(void *arg)
{
	static const struct mmu_interval_notifier_ops ops = {.invalidate = ignore};
	static struct mmu_interval_notifier sub;
	struct misuse *m = arg;

	expect_eq(mmu_interval_notifier_insert(&sub, m->h.mm, HVA, LEN, &ops), 0);
	mmu_notifier_subscriptions_destroy(m->h.mm);
}

static void remove_twice(void *arg)
{
	static const struct mmu_interval_notifier_ops ops = {.invalidate = ignore};
	static struct mmu_interval_notifier sub;
	struct misuse *m = arg;

	expect_eq(mmu_interval_notifier_insert(&sub, m->h.mm, HVA, LEN, &ops), 0);
	mmu_interval_notifier_remove(&sub);
	mmu_interval_notifier_remove(&sub);
}

static void end_without_a_start(void *arg)
{
	static const struct mmu_interval_notifier_ops ops = {.invalidate = ignore};
	static struct mmu_interval_notifier sub;
	struct mmu_notifier_range range;
	struct misuse *m = arg;

	expect_eq(mmu_interval_notifier_insert(&sub, m->h.mm, HVA, LEN, &ops), 0);
	mmu_notifier_range_init(&range, MMU_NOTIFY_CLEAR, 0, m->h.mm, HVA, HVA + LEN);
	mmu_notifier_invalidate_range_end(&range);
}

static void all_locks_without_mmap_lock(void *arg)
{
	struct misuse *m = arg;

	(void)!mm_take_all_locks(m->h.mm);
}

static void drop_without_mmap_lock(void *arg)
{
	struct misuse *m = arg;

	mmap_write_lock(m->h.mm);
	expect_eq(mm_take_all_locks(m->h.mm), 0);
	mmap_write_unlock(m->h.mm);
	mm_drop_all_locks(m->h.mm);
}

static void drop_without_taking(void *arg)
{
	struct misuse *m = arg;

	mmap_write_lock(m->h.mm);
	mm_drop_all_locks(m->h.mm);
}

TEST(mmu_notifier_misuse, is_told)
{
	static struct misuse m;

	misuse_init(&m);
	expect_bug(register_without_a_user, &m, "the caller pins mm_users");
	expect_bug(register_something_else_without_a_user, &m, "the caller pins mm_users");
	expect_bug(unregister_without_a_count, &m, "register took an mm_count");
	expect_bug(unregister_no_release_without_a_count, &m, "register took an mm_count");
	expect_bug(destroy_with_a_notifier, &m, "subscriptions->first");
	expect_bug(destroy_with_an_interval, &m, "subscriptions->itree");
	expect_bug(remove_twice, &m, "an interval that was inserted is removed once");
	expect_bug(end_without_a_start, &m, "a window ends once, and had a start");
	host_destroy(&m.h);
}

#ifdef CONFIG_LOCKDEP
TEST(mmu_notifier_misuse, locks_that_are_not_held)
{
	static struct misuse m;

	misuse_init(&m);
	expect_bug(register_without_mmap_lock, &m, "__mmu_notifier_register(): lock &mm->mmap");
	expect_bug(register_with_it_for_reading, &m, "__mmu_notifier_register(): lock &mm->mmap");
	expect_bug(get_without_mmap_lock, &m, "mmu_notifier_get_locked(): lock &mm->mmap_lock");
	expect_bug(all_locks_without_mmap_lock, &m, "mm_take_all_locks(): lock &mm->mmap_lock");
	expect_bug(drop_without_mmap_lock, &m, "mm_drop_all_locks(): lock &mm->mmap_lock");
	expect_bug(drop_without_taking, &m, "mm_drop_all_locks(): lock &mm_all_locks_mutex");
	host_destroy(&m.h);
}
#endif
