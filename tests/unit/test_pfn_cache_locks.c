/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The three locks of a cache of a frame, one by one: whoever holds it finds that others wait.
 */
#include "notifier/sync/util.h"
#include "tests/support/beside.h"
#include "tests/support/pfn_cache_fixture.h"

#define ROUNDS 40

typedef void (*call_t)(void *rig);

static void call_activate(void *rig)
{
	expect_eq(activate(rig, GFN), 0);
}

static void call_refresh(void *rig)
{
	expect_eq(refresh(rig), 0);
}

static void call_deactivate(void *rig)
{
	struct rig *r = rig;

	gpc_deactivate(&r->gpc);
}

static void call_migrate(void *rig)
{
	struct rig *r = rig;

	expect_eq(mm_migrate_range(r->g.mm, guest_hva(PAGE), PAGE_SIZE), 1);
}

struct caller {
	struct rig r;
	call_t call;
	struct beside beside;
};

static void call_meanwhile(void *arg)
{
	struct caller *c = arg;

	shadow_set_hook(c->r.g.shadow, SHADOW_HOOK_CACHE_BEFORE_VALID, NULL, NULL);
	beside_start(&c->beside, c->call, &c->r);
	beside_sleeps(&c->beside);
}

/* While a look-up is under way another one waits, and so does who wants no more of it. */
TEST(pfn_cache_locks, one_refresh_at_a_time)
{
	static const call_t calls[] = {call_activate, call_refresh, call_deactivate};

	for (unsigned int i = 0; i < 2 * ARRAY_SIZE(calls); i++) {
		struct caller caller = {.call = calls[i / 2]};
		struct rig *r = &caller.r;

		fixture(r, &config);
		expect_eq(activate(r, GFN), 0);
		shadow_set_hook(r->g.shadow, SHADOW_HOOK_CACHE_BEFORE_VALID, call_meanwhile,
				&caller);
		expect_eq(i % 2 ? refresh(r) : activate(r, GFN), 0);
		kthread_join(&caller.beside.thread);
		done(r);
	}
}

/* The list of all caches is its lock's: none comes, goes or is looked at without. */
TEST(pfn_cache_locks, the_list_and_its_lock)
{
	static const call_t calls[] = {call_activate, call_deactivate, call_migrate};

	for (unsigned int i = 0; i < ROUNDS * ARRAY_SIZE(calls); i++) {
		call_t call = calls[i % ARRAY_SIZE(calls)];
		bool listed = call != call_activate;
		struct beside beside;
		struct rig r;

		fixture(&r, &config);
		if (listed)
			expect_eq(activate(&r, GFN), 0);
		spin_lock(&r.g.shadow->gpc_lock);
		beside_start(&beside, call, &r);
		for_each_look()
		{
			expect_eq(!list_empty(&r.g.shadow->gpc_list), listed);
			expect(call != call_migrate || READ_ONCE(r.gpc.valid));
		}
		spin_unlock(&r.g.shadow->gpc_lock);
		kthread_join(&beside.thread);
		done(&r);
	}
}

struct refresher {
	atomic_t has_frame, go_on;
};

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
		struct beside beside;
		struct rig r;

		fixture(&r, &config);
		expect_eq(activate(&r, GFN), 0);
		shadow_set_hook(r.g.shadow, SHADOW_HOOK_CACHE_BEFORE_VALID, with_a_frame, &f);
		if (begins)
			spin_lock(&r.lock);
		beside_start(&beside, call_refresh, &r);
		if (!begins) {
			while (!atomic_read(&f.has_frame))
				sched_yield();
			spin_lock(&r.lock);
		}
		atomic_set(&f.go_on, 1);
		for_each_look() expect_eq(READ_ONCE(r.gpc.valid), begins);
		spin_unlock(&r.lock);
		kthread_join(&beside.thread);
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
 * when it was of this one. ThreadSanitizer says how, unless the thread is over already. */
TEST(pfn_cache_locks, who_has_left_has_stored)
{
	const hva_t hva = guest_hva(PAGE);
	struct rig r;

	fixture(&r, &config);
	for (unsigned int i = 0; i < ROUNDS; i++) {
		struct kthread thread;
		uint64_t *word;

		expect_eq(activate(&r, GFN), 0);
		word = (uint64_t *)r.gpc.khva;
		*word = WORD;
		expect_eq(kthread_run(&thread, "leaves", run_leave, &r), 0);
		while (READ_ONCE(r.gpc.uhva) == hva)
			sched_yield();
		gfn_to_pfn_cache_invalidate_start(r.g.shadow, hva, hva + PAGE_SIZE);
		expect_eq(*word, WORD + 1);
		kthread_join(&thread);
	}
	done(&r);
}
