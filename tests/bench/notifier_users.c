/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What it costs to come and to go, by how many areas the mm has: each has a lock to be taken.
 */
#include <errno.h>
#include <stdlib.h>

#include "notifier/mm_internal.h"
#include "tests/bench/notifier.h"

static struct notifier_host host;

static struct mmu_notifier *alloc_one(struct mm_struct *mm)
{
	struct mmu_notifier *mn = calloc(1, sizeof(*mn));

	(void)mm;
	return mn ? mn : ERR_PTR(-ENOMEM);
}

static void free_one(struct mmu_notifier *mn)
{
	free(mn);
}

static const struct mmu_notifier_ops shared_ops = {
	.alloc_notifier = alloc_one,
	.free_notifier = free_one,
};

static const struct mmu_notifier_ops no_ops;

int notifier_users_setup(const struct bench *b)
{
	int ret = srcu_workers_start();

	if (ret)
		return ret;
	ret = notifier_host_init(&host, ((const struct notifier_case *)b->arg)->nr);
	if (ret)
		srcu_workers_stop();
	return ret;
}

void notifier_users_teardown(const struct bench *b)
{
	(void)b;
	srcu_workers_stop();
	notifier_host_destroy(&host);
}

/* A failure would be measured as something cheap: so there is none. */
static void must(int ret)
{
	if (ret)
		abort();
}

static void registers(uint64_t n)
{
	struct mmu_notifier mn = {.ops = &no_ops};

	for (uint64_t i = 0; i < n; i++) {
		must(mmu_notifier_register(&mn, host.mm));
		mmu_notifier_unregister(&mn, host.mm);
	}
}

static void all_locks(uint64_t n)
{
	for (uint64_t i = 0; i < n; i++) {
		mmap_write_lock(host.mm);
		must(mm_take_all_locks(host.mm));
		mm_drop_all_locks(host.mm);
		mmap_write_unlock(host.mm);
	}
}

static void get_and_put(uint64_t n)
{
	for (uint64_t i = 0; i < n; i++) {
		struct mmu_notifier *mn = mmu_notifier_get(&shared_ops, host.mm);

		must(IS_ERR(mn));
		mmu_notifier_put(mn);
	}
}

/* Somebody else has it, too: no register, no free. */
static void get_and_put_again(uint64_t n)
{
	struct mmu_notifier *mn = mmu_notifier_get(&shared_ops, host.mm);

	must(IS_ERR(mn));
	get_and_put(n);
	mmu_notifier_put(mn);
}

const struct notifier_op notifier_register = {registers};
const struct notifier_op notifier_all_locks = {all_locks};
const struct notifier_op notifier_get_put = {get_and_put_again};
const struct notifier_op notifier_get_put_last = {get_and_put};
