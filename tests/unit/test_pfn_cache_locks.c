/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The three locks of a cache of a frame, one by one: whoever holds it finds that others wait. What
 * is waited for with a mutex is seen to sleep; a holder of a spinlock looks a few times whether
 * anything of it changes.
 */
#include <sched.h>

#include "notifier/sync/util.h"
#include "tests/support/pfn_cache_fixture.h"

#define LOOKS  20
#define ROUNDS 40

typedef void (*call_t)(struct rig *r);

struct caller {
	struct rig *r;
	call_t call;
	struct kthread thread;
	atomic_t began, over;
};

static void call_activate(struct rig *r)
{
	expect_eq(activate(r, GFN), 0);
}

static void call_refresh(struct rig *r)
{
	expect_eq(refresh(r), 0);
}

static void call_deactivate(struct rig *r)
{
	gpc_deactivate(&r->gpc);
}

static void call_migrate(struct rig *r)
{
	expect_eq(mm_migrate_range(r->g.mm, guest_hva(PAGE), PAGE_SIZE), 1);
}

static void run_call(void *arg)
{
	struct caller *c = arg;

	atomic_set(&c->began, 1);
	c->call(c->r);
	atomic_set(&c->over, 1);
}

static void call_meanwhile(void *arg)
{
	struct caller *c = arg;

	if (atomic_read(&c->began))
		return;
	expect_eq(kthread_run(&c->thread, "caller", run_call, c), 0);
	until_others_sleep();
	expect(atomic_read(&c->began) && !atomic_read(&c->over));
}

/* While a look-up is under way another one waits, and so does who wants no more of it. */
TEST(pfn_cache_locks, one_refresh_at_a_time)
{
	static const call_t calls[] = {call_activate, call_refresh, call_deactivate};

	for (unsigned int i = 0; i < 2 * ARRAY_SIZE(calls); i++) {
		struct caller caller = {.call = calls[i / 2]};
		struct rig r;

		fixture(&r, &config);
		expect_eq(activate(&r, GFN), 0);
		caller.r = &r;
		shadow_set_hook(r.g.shadow, SHADOW_HOOK_CACHE_BEFORE_VALID, call_meanwhile,
				&caller);
		expect_eq(i % 2 ? refresh(&r) : activate(&r, GFN), 0);
		kthread_join(&caller.thread);
		done(&r);
	}
}

/* The list of all caches is its lock's: none comes, goes or is looked at without. */
TEST(pfn_cache_locks, the_list_and_its_lock)
{
	static const call_t calls[] = {call_activate, call_deactivate, call_migrate};

	for (unsigned int i = 0; i < ROUNDS * ARRAY_SIZE(calls); i++) {
		struct caller caller = {.call = calls[i % 3]};
		bool listed = caller.call != call_activate;
		struct rig r;

		fixture(&r, &config);
		caller.r = &r;
		if (listed)
			expect_eq(activate(&r, GFN), 0);
		spin_lock(&r.g.shadow->gpc_lock);
		expect_eq(kthread_run(&caller.thread, "caller", run_call, &caller), 0);
		while (!atomic_read(&caller.began))
			sched_yield();
		for (unsigned int looks = 0; looks < LOOKS; looks++) {
			expect_eq(!list_empty(&r.g.shadow->gpc_list), listed);
			expect(caller.call != call_migrate || READ_ONCE(r.gpc.valid));
			sched_yield();
		}
		spin_unlock(&r.g.shadow->gpc_lock);
		kthread_join(&caller.thread);
		done(&r);
	}
}

struct refresher {
	struct rig *r;
	struct kthread thread;
	atomic_t has_frame, go_on;
};

static void run_refresh(void *arg)
{
	struct refresher *f = arg;

	expect_eq(refresh(f->r), 0);
}

static void with_a_frame(void *arg)
{
	struct refresher *f = arg;

	atomic_set(&f->has_frame, 1);
	while (!atomic_read(&f->go_on))
		sched_yield();
}

/* Who has the lock of the cache has it as it is: no look-up begins, and none ends. */
TEST(pfn_cache_locks, good_or_not_while_it_is_locked)
{
	for (unsigned int i = 0; i < 2 * ROUNDS; i++) {
		struct refresher f = {.go_on = ATOMIC_INIT(0)};
		bool begins = i % 2;
		struct rig r;

		fixture(&r, &config);
		f.r = &r;
		expect_eq(activate(&r, GFN), 0);
		shadow_set_hook(r.g.shadow, SHADOW_HOOK_CACHE_BEFORE_VALID, with_a_frame, &f);
		if (begins)
			spin_lock(&r.lock);
		expect_eq(kthread_run(&f.thread, "refresh", run_refresh, &f), 0);
		if (!begins) {
			while (!atomic_read(&f.has_frame))
				sched_yield();
			spin_lock(&r.lock);
		}
		atomic_set(&f.go_on, 1);
		for (unsigned int looks = 0; looks < LOOKS; looks++) {
			expect_eq(READ_ONCE(r.gpc.valid), begins);
			sched_yield();
		}
		spin_unlock(&r.lock);
		kthread_join(&f.thread);
		expect_now(&r, GFN, guest_hva(PAGE), WORD);
		done(&r);
	}
}

static void run_leave(void *arg)
{
	struct rig *r = arg;
	int id = srcu_read_lock(&r->g.shadow->slots_srcu);

	spin_lock(&r->lock);
	expect(gpc_check(&r->gpc, GFN));
	*(uint64_t *)r->gpc.khva = WORD + 1;
	spin_unlock(&r->lock);
	expect_eq(gpc_activate(&r->gpc, GFN + 1), 0);
	srcu_read_unlock(&r->g.shadow->slots_srcu, id);
}

/* A start takes no lock of a cache that is of another page by now, and yet sees what was stored
 * when it was of this one. With ThreadSanitizer this says how. */
TEST(pfn_cache_locks, who_has_left_has_stored)
{
	const hva_t hva = guest_hva(PAGE);
	struct kthread thread;
	struct rig r;
	uint64_t *word;

	fixture(&r, &config);
	expect_eq(activate(&r, GFN), 0);
	word = (uint64_t *)r.gpc.khva;
	expect_eq(kthread_run(&thread, "leaves", run_leave, &r), 0);
	while (READ_ONCE(r.gpc.uhva) == hva)
		sched_yield();
	gfn_to_pfn_cache_invalidate_start(r.g.shadow, hva, hva + PAGE_SIZE);
	expect_eq(*word, WORD + 1);
	kthread_join(&thread);
	done(&r);
}
