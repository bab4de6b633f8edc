/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * retry: a fault that looked the frame up before an invalidation must not install it afterwards.
 *
 *   fault                                   host
 *   -----                                   ----
 *   hva_to_pfn -> frame A
 *                                           start: nothing to zap
 *                                           copies A to B, poisons and frees A; end
 *   mmu_lock; the sequence moved: RETRY
 *     (without the check: installs A)
 *
 * No threads: the host's side runs inside the fault, in its hook.
 */
#include <gnomon/mmu_notifier.h>

#include "shadow/shadow_internal.h"
#include "tests/races/races.h"

struct scene {
	struct guest_mem g;
	unsigned int times; /* that the hook acts */
	struct mmu_notifier_range range;
};

static void migrate_page(void *arg)
{
	struct scene *s = arg;

	if (!s->times)
		return;
	s->times--;
	expect_eq(mm_migrate_range(s->g.mm, guest_hva(PAGE_A), PAGE_SIZE), 1);
}

static void unmap_and_migrate_page(void *arg)
{
	struct scene *s = arg;

	if (!s->times)
		return;
	s->times--;
	expect_eq(mm_zap_range(s->g.mm, guest_hva(PAGE_A), PAGE_SIZE), 1);
	expect_eq(migrate_mapping_page(s->g.ram, PAGE_A >> PAGE_SHIFT), 0);
}

static void scene_init(struct scene *s, unsigned int broken, void (*hook)(void *arg))
{
	struct guest_mem_config config = {.broken = broken};

	guest_mem_create(&s->g, &config);
	guest_write(&s->g, PAGE_A, STAMP);
	s->times = 1;
	shadow_set_hook(s->g.shadow, SHADOW_HOOK_FAULT_BEFORE_LOCK, hook, s);
}

static enum ret_pf fault(struct scene *s)
{
	struct shadow_fault fault = {.gva = PAGE_A};

	return shadow_handle_fault(s->g.shadow, 0, &fault);
}

static void closed_race(void (*hook)(void *arg))
{
	struct shadow_stats stats;
	struct scene s;

	scene_init(&s, 0, hook);
	expect_eq(fault(&s), RET_PF_RETRY);
	expect_eq(s.times, 0);
	shadow_get_stats(s.g.shadow, &stats);
	expect_eq(stats.fault_retries, 1);
	expect_eq(guest_load(&s.g, 0, PAGE_A), STAMP);
	expect_contract_kept(&s.g);
	guest_mem_destroy(&s.g);
}

static void open_race(void (*hook)(void *arg))
{
	struct scene s;

	scene_init(&s, SHADOW_BREAK_RETRY, hook);
	expect_eq(fault(&s), RET_PF_FIXED);
	expect_eq(s.times, 0);
	expect_eq(guest_load(&s.g, 0, PAGE_A), PHYS_POISON);
	guest_mem_destroy(&s.g);
}

TEST(retry, protected)
{
	closed_race(migrate_page);
	closed_race(unmap_and_migrate_page);
}

TEST(retry, broken)
{
	open_race(migrate_page);
	open_race(unmap_and_migrate_page);
}

/* The other half of the check: the window is still open when the fault comes to the lock. */
static void open_window(void *arg)
{
	struct scene *s = arg;

	mmap_read_lock(s->g.mm);
	mmu_notifier_range_init(&s->range, MMU_NOTIFY_CLEAR, 0, s->g.mm, guest_hva(PAGE_A),
				guest_hva(PAGE_A) + PAGE_SIZE);
	mmu_notifier_invalidate_range_start(&s->range);
}

static enum ret_pf fault_in_window(unsigned int broken)
{
	uint64_t value;
	enum ret_pf pf;
	struct scene s;
	int ret;

	scene_init(&s, broken, open_window);
	pf = fault(&s);
	ret = model_load(s.g.model, 0, PAGE_A, &value);
	expect_eq(ret == 0, pf == RET_PF_FIXED);
	mmu_notifier_invalidate_range_end(&s.range);
	mmap_read_unlock(s.g.mm);

	shadow_set_hook(s.g.shadow, SHADOW_HOOK_FAULT_BEFORE_LOCK, NULL, NULL);
	expect_eq(guest_load(&s.g, 0, PAGE_A), STAMP);
	guest_mem_destroy(&s.g);
	return pf;
}

TEST(retry, window_protected)
{
	expect_eq(fault_in_window(0), RET_PF_RETRY);
}

TEST(retry, window_broken)
{
	expect_eq(fault_in_window(SHADOW_BREAK_RETRY), RET_PF_FIXED);
}
