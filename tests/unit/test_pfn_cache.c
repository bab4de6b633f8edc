/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Caches of frames: good while the page is where it is, and never a moment longer. The races are
 * replayed by hooks; a case with real threads is at the end.
 */
#include <sched.h>
#include <unistd.h>

#include <gnomon/swap.h>

#include "tests/support/pfn_cache_fixture.h"

static const struct guest_mem_config private_config = {.audit = true, .private_ram = true};

/* ---- what ends it ---- */

TEST(pfn_cache, good_until_the_page_moves)
{
	struct rig r;

	fixture(&r, &config);
	expect_eq(load(&r, GFN), 0);
	expect_eq(activate(&r, GFN), 0);
	expect_now(&r, GFN, guest_hva(PAGE), WORD);
	expect_eq(load(&r, GFN + 1), 0);
	/* Not its neighbours. */
	expect_eq(mm_zap_range(r.g.mm, guest_hva(PAGE + PAGE_SIZE), PAGE_SIZE), 0);
	expect_ge(mm_zap_range(r.g.mm, guest_hva(0), PAGE), 0);
	expect_now(&r, GFN, guest_hva(PAGE), WORD);

	expect_eq(mm_migrate_range(r.g.mm, guest_hva(PAGE), PAGE_SIZE), 1);
	expect_eq(load(&r, GFN), 0);
	expect_eq(refresh(&r), 0);
	expect_now(&r, GFN, guest_hva(PAGE), WORD);
	expect_eq(mm_zap_range(r.g.mm, guest_hva(PAGE), PAGE_SIZE), 1);
	expect_eq(load(&r, GFN), 0);
	expect_eq(refresh(&r), 0);
	expect_now(&r, GFN, guest_hva(PAGE), WORD);
	done(&r);
}

/* Nor where the host has none. */
TEST(pfn_cache, of_no_memory)
{
	struct rig r;

	fixture(&r, &config);
	expect_eq(activate(&r, GFN), 0);
	expect_eq(mm_munmap(r.g.mm, guest_hva(PAGE), PAGE_SIZE), 0);
	expect_eq(refresh(&r), -EFAULT);
	expect_eq(load(&r, GFN), 0);
	done(&r);
}

TEST(pfn_cache, of_another_page)
{
	struct rig r;

	fixture(&r, &config);
	guest_write(&r.g, PAGE + PAGE_SIZE, WORD + 1);
	expect_eq(activate(&r, GFN), 0);
	expect_eq(activate(&r, GFN + 1), 0);
	expect_eq(load(&r, GFN), 0);
	expect_now(&r, GFN + 1, guest_hva(PAGE + PAGE_SIZE), WORD + 1);
	/* What it was of no longer concerns it. */
	expect_eq(mm_migrate_range(r.g.mm, guest_hva(PAGE), PAGE_SIZE), 1);
	expect_now(&r, GFN + 1, guest_hva(PAGE + PAGE_SIZE), WORD + 1);
	expect_eq(mm_migrate_range(r.g.mm, guest_hva(PAGE + PAGE_SIZE), PAGE_SIZE), 1);
	expect_eq(load(&r, GFN + 1), 0);
	/* A page where no memory is; then nothing of the one before is left. */
	expect_eq(activate(&r, GFN), 0);
	expect_eq(activate(&r, 0x7000000), -ENXIO);
	expect_eq(load(&r, GFN), 0);
	expect_eq(load(&r, 0x7000000), 0);
	done(&r);
}

/* Private memory that is shared with a child may be read; a write is not this mm's alone. */
TEST(pfn_cache, writable_as_the_host_says)
{
	struct mm_struct *child;
	struct rig r;

	fixture(&r, &private_config);
	expect_eq(activate(&r, GFN), 0);
	expect(r.gpc.writable);
	expect_eq(mm_fork(r.g.mm, &child), 0);
	expect_eq(load(&r, GFN), 0);
	expect_eq(refresh(&r), 0);
	expect(!r.gpc.writable);
	expect_now(&r, GFN, guest_hva(PAGE), WORD);
	/* The host writes, and has a copy. */
	guest_write(&r.g, PAGE, WORD + 1);
	expect_eq(load(&r, GFN), 0);
	expect_eq(refresh(&r), 0);
	expect(r.gpc.writable);
	expect_now(&r, GFN, guest_hva(PAGE), WORD + 1);
	mmput(child);
	done(&r);
}

TEST(pfn_cache, rom_is_not_writable)
{
	struct rig r;

	memslot_fixture(&r.g, &config);
	rig_init(&r);
	expect_eq(set_slot(&r.g, SLOT, SLOT_GFN, SLOT_PAGES, SLOT_HVA, MEMSLOT_READONLY), 0);
	expect_eq(activate(&r, SLOT_GFN), 0);
	expect(!r.gpc.writable);
	expect_now(&r, SLOT_GFN, SLOT_HVA, stamp(0));
	expect_eq(place(&r.g, SLOT_GFN), 0);
	expect_eq(load(&r, SLOT_GFN), 0);
	expect_eq(refresh(&r), 0);
	expect(r.gpc.writable);
	gpc_deactivate(&r.gpc);
	memslot_fixture_done(&r.g);
}

/* One that is not used any more is out of everybody's sight. */
TEST(pfn_cache, deactivated)
{
	struct rig r;

	fixture(&r, &config);
	expect_eq(activate(&r, GFN), 0);
	expect(!list_empty(&r.g.shadow->gpc_list));
	gpc_deactivate(&r.gpc);
	expect(list_empty(&r.g.shadow->gpc_list));
	expect_eq(load(&r, GFN), 0);
	expect_eq(r.gpc.uhva, INVALID_HVA);
	expect_eq(activate(&r, GFN), 0);
	expect_now(&r, GFN, guest_hva(PAGE), WORD);
	done(&r);
}

/* ---- a refresh, and an invalidation ---- */

struct meanwhile {
	struct rig *r;
	unsigned int times, seen;
	struct mmu_notifier_range range;
};

static void migrate_meanwhile(void *arg)
{
	struct meanwhile *m = arg;

	m->seen++;
	if (m->times && m->times--)
		expect_eq(mm_migrate_range(m->r->g.mm, guest_hva(PAGE), PAGE_SIZE), 1);
}

/*
 * the frame is in hand, the host moves the page, the cache becomes good. Without the look at
 * the sequence the word that is loaded is the poison of a frame that was freed.
 */
TEST(pfn_cache, refresh_meets_an_invalidation)
{
	struct meanwhile m = {.times = 3};
	struct rig r;

	fixture(&r, &config);
	m.r = &r;
	shadow_set_hook(r.g.shadow, SHADOW_HOOK_CACHE_BEFORE_VALID, migrate_meanwhile, &m);
	expect_eq(activate(&r, GFN), 0);
	expect_eq(m.seen, 4);
	expect_now(&r, GFN, guest_hva(PAGE), WORD);
	/* The same where a good cache is refreshed. */
	m.times = 1;
	expect_eq(refresh(&r), 0);
	expect_eq(m.seen, 6);
	expect_now(&r, GFN, guest_hva(PAGE), WORD);
	done(&r);
}

struct user {
	struct rig *r;
	struct kthread thread;
	atomic_t stop;
};

static void run_loads(void *arg)
{
	struct user *u = arg;

	while (!atomic_read(&u->stop)) {
		uint64_t value = load(u->r, GFN);

		if (value && value != WORD)
			fail("a frame that is not the page's any more: %#lx", value);
	}
}

/* Between two look-ups it is no better than before the first. */
TEST(pfn_cache, refresh_meets_one_invalidation_after_another)
{
	struct user user = {.stop = ATOMIC_INIT(0)};
	struct meanwhile m = {.times = 20000};
	struct rig r;

	fixture(&r, &config);
	m.r = user.r = &r;
	expect_eq(kthread_run(&user.thread, "user", run_loads, &user), 0);
	shadow_set_hook(r.g.shadow, SHADOW_HOOK_CACHE_BEFORE_VALID, migrate_meanwhile, &m);
	expect_eq(activate(&r, GFN), 0);
	atomic_set(&user.stop, 1);
	kthread_join(&user.thread);
	expect_now(&r, GFN, guest_hva(PAGE), WORD);
	done(&r);
}

static void open_window(struct meanwhile *m, hva_t start, hva_t end)
{
	struct mm_struct *mm = m->r->g.mm;

	mmap_read_lock(mm);
	mmu_notifier_range_init(&m->range, MMU_NOTIFY_CLEAR, 0, mm, start, end);
	mmu_notifier_invalidate_range_start(&m->range);
}

static void close_window(struct meanwhile *m)
{
	mmu_notifier_invalidate_range_end(&m->range);
	mmap_read_unlock(m->r->g.mm);
}

/* The start is over and has found nothing good, the host has not changed the entry yet: what it
 * says now is not to be kept. */
TEST(pfn_cache, refresh_in_a_window)
{
	struct meanwhile m = {0};
	struct rig r;

	fixture(&r, &config);
	m.r = &r;
	open_window(&m, guest_hva(PAGE), guest_hva(PAGE) + PAGE_SIZE);
	expect_eq(activate(&r, GFN), -EAGAIN);
	expect_eq(load(&r, GFN), 0);
	expect_eq(refresh(&r), -EAGAIN);
	close_window(&m);
	expect_eq(load(&r, GFN), 0);
	expect_eq(refresh(&r), 0);
	expect_now(&r, GFN, guest_hva(PAGE), WORD);
	done(&r);
}

static void open_meanwhile(void *arg)
{
	struct meanwhile *m = arg;

	m->seen++;
	open_window(m, guest_hva(PAGE), guest_hva(PAGE) + PAGE_SIZE);
}

/* And one that opens in the middle of the refresh, and stays open. */
TEST(pfn_cache, window_opens_in_a_refresh)
{
	struct meanwhile m = {0};
	struct rig r;

	fixture(&r, &config);
	m.r = &r;
	shadow_set_hook(r.g.shadow, SHADOW_HOOK_CACHE_BEFORE_VALID, open_meanwhile, &m);
	expect_eq(activate(&r, GFN), -EAGAIN);
	expect_eq(m.seen, 1);
	expect_eq(load(&r, GFN), 0);
	close_window(&m);
	shadow_set_hook(r.g.shadow, SHADOW_HOOK_CACHE_BEFORE_VALID, NULL, NULL);
	expect_eq(refresh(&r), 0);
	expect_now(&r, GFN, guest_hva(PAGE), WORD);
	done(&r);
}

static void refresh_in_the_start(void *arg)
{
	struct meanwhile *m = arg;

	m->seen++;
	expect_eq(refresh(m->r), -EAGAIN);
}

/* A start is counted as open before it looks at the caches. The other way round a refresh in
 * between finds nothing open, and nobody looks at what it has found. */
TEST(pfn_cache, refresh_in_a_start)
{
	struct meanwhile m = {0};
	struct rig r;

	fixture(&r, &config);
	m.r = &r;
	expect_eq(activate(&r, GFN), 0);
	shadow_set_hook(r.g.shadow, SHADOW_HOOK_INVALIDATE_COUNTED, refresh_in_the_start, &m);
	open_window(&m, guest_hva(PAGE), guest_hva(PAGE) + PAGE_SIZE);
	expect_eq(m.seen, 1);
	expect_eq(load(&r, GFN), 0);
	close_window(&m);
	done(&r);
}

static void unrelated_meanwhile(void *arg)
{
	struct meanwhile *m = arg;

	m->seen++;
	expect_eq(migrate_mapping_page(m->r->g.ram, 8), 0);
	expect_eq(migrate_mapping_page(m->r->g.ram, 0), 0);
}

/*
 * Windows on both sides of the page that never close, and others that come and go while the frame
 * is looked up: none of it is about the page, and the first look-up does.
 */
TEST(pfn_cache, others_do_not_hold_it_up)
{
	struct meanwhile m = {0}, below = {0}, above = {0};
	hva_t hva = guest_hva(PAGE);
	struct rig r;

	fixture(&r, &config);
	guest_write(&r.g, 0, WORD);
	guest_write(&r.g, 8 * PAGE_SIZE, WORD);
	m.r = below.r = above.r = &r;
	shadow_set_hook(r.g.shadow, SHADOW_HOOK_CACHE_BEFORE_VALID, unrelated_meanwhile, &m);
	open_window(&below, hva - PAGE_SIZE, hva);
	mmu_notifier_range_init(&above.range, MMU_NOTIFY_CLEAR, 0, r.g.mm, hva + PAGE_SIZE,
				hva + 4 * PAGE_SIZE);
	mmu_notifier_invalidate_range_start(&above.range);
	for (unsigned int i = 0; i < 3; i++) {
		expect_eq(activate(&r, GFN), 0);
		expect_eq(m.seen, i + 1);
		expect_now(&r, GFN, hva, WORD);
	}
	mmu_notifier_invalidate_range_end(&above.range);
	close_window(&below);
	done(&r);
}

/* ---- an access, and an invalidation ---- */

struct mover {
	struct rig *r;
	struct kthread thread;
	atomic_t tid, over;
	int deleted;
};

static void run_migrate(void *arg)
{
	struct mover *m = arg;

	atomic_set_release(&m->tid, gettid());
	expect_eq(mm_migrate_range(m->r->g.mm, guest_hva(PAGE), PAGE_SIZE), 1);
	atomic_set_release(&m->over, 1);
}

static void run_delete(void *arg)
{
	struct mover *m = arg;

	atomic_set_release(&m->tid, gettid());
	m->deleted = delete_slot(&m->r->g, SLOT);
	atomic_set_release(&m->over, 1);
}

/* Until it waits for us; or is through, which it must not be. */
static void start_mover(struct mover *m, struct rig *r, void (*fn)(void *arg))
{
	*m = (struct mover){.r = r};
	expect_eq(kthread_run(&m->thread, "mover", fn, m), 0);
	while (!atomic_read_acquire(&m->tid))
		sched_yield();
	while (!is_asleep(atomic_read(&m->tid)) && !atomic_read_acquire(&m->over))
		sched_yield();
	expect(!atomic_read_acquire(&m->over));
}

/* Without the lock the host copies the page while it is written: the store is lost, and the frame
 * is poison under it. */
TEST(pfn_cache, start_waits_for_who_is_at_the_frame)
{
	struct mover m;
	struct rig r;
	int id;

	fixture(&r, &config);
	expect_eq(activate(&r, GFN), 0);
	id = srcu_read_lock(&r.g.shadow->slots_srcu);
	spin_lock(&r.lock);
	expect(gpc_check(&r.gpc, GFN));
	start_mover(&m, &r, run_migrate);
	expect_eq(READ_ONCE(*(uint64_t *)r.gpc.khva), WORD);
	WRITE_ONCE(*(uint64_t *)r.gpc.khva, WORD + 1);
	spin_unlock(&r.lock);
	srcu_read_unlock(&r.g.shadow->slots_srcu, id);
	kthread_join(&m.thread);
	expect_eq(load(&r, GFN), 0);
	expect_eq(guest_read(&r.g, PAGE), WORD + 1);
	done(&r);
}

/* ---- the slots ---- */

TEST(pfn_cache, slot_moves_and_goes)
{
	struct rig r;

	memslot_fixture(&r.g, &config);
	rig_init(&r);
	expect_eq(activate(&r, SLOT_GFN), -ENXIO);
	expect_eq(place(&r.g, SLOT_GFN), 0);
	expect_eq(load(&r, SLOT_GFN), 0);
	expect_eq(refresh(&r), 0);
	expect_now(&r, SLOT_GFN, SLOT_HVA, stamp(0));
	/* The page that was here is one further on, and another is here. */
	expect_eq(place(&r.g, SLOT_GFN - 1), 0);
	expect_eq(load(&r, SLOT_GFN), 0);
	expect_eq(refresh(&r), 0);
	expect_now(&r, SLOT_GFN, SLOT_HVA + PAGE_SIZE, stamp(1));
	/* A change of any slot is looked at. */
	expect_eq(set_slot(&r.g, SLOT + 1, 0x9000, 1, SLOT_HVA, 0), 0);
	expect_eq(load(&r, SLOT_GFN), 0);
	expect_eq(refresh(&r), 0);
	expect_eq(delete_slot(&r.g, SLOT), 0);
	expect_eq(load(&r, SLOT_GFN), 0);
	expect_eq(refresh(&r), -ENXIO);
	gpc_deactivate(&r.gpc);
	memslot_fixture_done(&r.g);
}

static void refresh_while_invalid(void *arg)
{
	struct rig *r = arg;

	expect_eq(load(r, SLOT_GFN), 0);
	expect_eq(refresh(r), -EAGAIN);
	expect_eq(load(r, SLOT_GFN), 0);
}

TEST(pfn_cache, slot_on_its_way)
{
	struct rig r;

	memslot_fixture(&r.g, &config);
	rig_init(&r);
	expect_eq(place(&r.g, SLOT_GFN), 0);
	expect_eq(activate(&r, SLOT_GFN), 0);
	shadow_set_hook(r.g.shadow, SHADOW_HOOK_SLOT_BEFORE_ZAP, refresh_while_invalid, &r);
	shadow_set_hook(r.g.shadow, SHADOW_HOOK_SLOT_AFTER_ZAP, refresh_while_invalid, &r);
	expect_eq(place(&r.g, SLOT_GFN - 1), 0);
	expect_eq(refresh(&r), 0);
	expect_now(&r, SLOT_GFN, SLOT_HVA + PAGE_SIZE, stamp(1));
	gpc_deactivate(&r.gpc);
	memslot_fixture_done(&r.g);
}

/* Who has found the cache good stores, and only then the slot is deleted. */
TEST(pfn_cache, delete_waits_for_who_is_at_the_frame)
{
	uint64_t word = 0;
	struct mover m;
	struct rig r;
	int id;

	memslot_fixture(&r.g, &config);
	rig_init(&r);
	expect_eq(place(&r.g, SLOT_GFN), 0);
	expect_eq(activate(&r, SLOT_GFN), 0);
	id = srcu_read_lock(&r.g.shadow->slots_srcu);
	spin_lock(&r.lock);
	expect(gpc_check(&r.gpc, SLOT_GFN));
	start_mover(&m, &r, run_delete);
	WRITE_ONCE(*(uint64_t *)r.gpc.khva, WORD);
	spin_unlock(&r.lock);
	expect(!atomic_read_acquire(&m.over));
	srcu_read_unlock(&r.g.shadow->slots_srcu, id);
	kthread_join(&m.thread);
	expect_eq(m.deleted, 0);
	expect_eq(load(&r, SLOT_GFN), 0);
	expect_eq(mm_read(r.g.mm, SLOT_HVA, &word, sizeof(word)), 0);
	expect_eq(word, WORD);
	gpc_deactivate(&r.gpc);
	memslot_fixture_done(&r.g);
}

/* ---- all of it at once ---- */

#define PAGES 8

/*
 * Each user adds to a word of its own on each page, by a load and a store under its cache's lock;
 * the host moves, drops and swaps the pages, slots come and go. A store to a frame that is not the
 * page's any more is an addition less, or poison.
 */
struct storm {
	struct guest_mem g;
	struct storm_user {
		struct storm *storm;
		unsigned int number;
		struct rig *r;
		struct kthread thread;
		uint64_t added[PAGES], good, refreshed, busy;
	} user[2];
	struct kthread host, slots;
	atomic_t stop;
	uint64_t moved, swaps;
};

static bool add_by_cache(struct storm_user *u, gfn_t gfn)
{
	struct gfn_to_pfn_cache *gpc = &u->r->gpc;
	bool good;

	spin_lock(&u->r->lock);
	good = gpc_check(gpc, gfn) && gpc->writable;
	if (good) {
		uint64_t *word = (uint64_t *)gpc->khva + u->number;
		uint64_t value = READ_ONCE(*word);

		if (value != u->added[gfn])
			fail("page %lu, user %u: %#lx, not %#lx", gfn, u->number, value,
			     u->added[gfn]);
		WRITE_ONCE(*word, value + 1);
		u->added[gfn]++;
	}
	spin_unlock(&u->r->lock);
	return good;
}

static void run_user(void *arg)
{
	struct storm_user *u = arg;
	struct storm *s = u->storm;

	for (uint64_t i = 0; !atomic_read(&s->stop); i++) {
		gfn_t gfn = i / 8 % PAGES;
		int id = srcu_read_lock(&s->g.shadow->slots_srcu), ret = 0;

		if (add_by_cache(u, gfn)) {
			WRITE_ONCE(u->good, u->good + 1);
		} else {
			ret = u->r->gpc.gfn == gfn ? gpc_refresh(&u->r->gpc)
						   : gpc_activate(&u->r->gpc, gfn);
			expect(ret == 0 || ret == -EAGAIN);
			u->refreshed += ret == 0;
			u->busy += ret != 0;
		}
		srcu_read_unlock(&s->g.shadow->slots_srcu, id);
	}
}

static void run_host(void *arg)
{
	struct storm *s = arg;
	struct mm_struct *mm = s->g.mm;

	for (unsigned int i = 0; !atomic_read(&s->stop); i++) {
		hva_t hva = guest_hva((i * 5 % PAGES) << PAGE_SHIFT);

		switch (i % 3) {
		case 0:
			WRITE_ONCE(s->moved,
				   s->moved + (mm_migrate_range(mm, hva, PAGE_SIZE) == 1));
			break;
		case 1:
			expect_ge(mm_zap_range(mm, hva, PAGE_SIZE), 0);
			break;
		default:
			expect_eq(mm_madvise(mm, hva, PAGE_SIZE, MM_MADV_PAGEOUT), 0);
			s->swaps++;
		}
	}
}

static void run_slots(void *arg)
{
	struct storm *s = arg;

	while (!atomic_read(&s->stop)) {
		expect_eq(set_slot(&s->g, 1, 0x9000, 1, guest_hva(0), 0), 0);
		expect_eq(delete_slot(&s->g, 1), 0);
	}
}

TEST(pfn_cache, storm)
{
	const uint64_t enough = test_long() ? 200000 : 4000;
	static struct storm s;
	static struct rig rig[2];
	bool more = true;

	s = (struct storm){0};
	guest_mem_create(&s.g, &config);
	expect_eq(phys_swap_on(s.g.phys, "/tmp", 64), 0);
	for (gpa_t gpa = 0; gpa < PAGES * PAGE_SIZE; gpa += PAGE_SIZE) {
		guest_write(&s.g, gpa, 0);
		guest_write(&s.g, gpa + 8, 0);
	}
	for (unsigned int i = 0; i < 2; i++) {
		rig[i].g.shadow = s.g.shadow;
		rig_init(&rig[i]);
		s.user[i].storm = &s;
		s.user[i].number = i;
		s.user[i].r = &rig[i];
	}
	for (unsigned int i = 0; i < 2; i++)
		expect_eq(kthread_run(&s.user[i].thread, "user", run_user, &s.user[i]), 0);
	expect_eq(kthread_run(&s.host, "host", run_host, &s), 0);
	expect_eq(kthread_run(&s.slots, "slots", run_slots, &s), 0);
	while (more) {
		sched_yield();
		more = READ_ONCE(s.user[0].good) < enough || READ_ONCE(s.user[1].good) < enough ||
		       READ_ONCE(s.moved) < enough / 20;
	}
	atomic_set(&s.stop, 1);
	kthread_join(&s.host);
	kthread_join(&s.slots);
	for (unsigned int i = 0; i < 2; i++) {
		kthread_join(&s.user[i].thread);
		expect_ge(s.user[i].refreshed, 20);
		for (gfn_t gfn = 0; gfn < PAGES; gfn++)
			expect_eq(guest_read(&s.g, (gfn << PAGE_SHIFT) + 8 * i),
				  s.user[i].added[gfn]);
		gpc_deactivate(&rig[i].gpc);
	}
	guest_mem_destroy(&s.g);
}
