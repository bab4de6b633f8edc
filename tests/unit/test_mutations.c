// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Every mutation of the table in notifier/mutations.h, for each kind of secondary: which windows
 * there are, over which range, and what is left in the secondary while one is open, and afterwards.
 * And docs/mm.md has that table.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <gnomon/device.h>
#include <gnomon/hmm_mirror.h>
#include <gnomon/ksm.h>
#include <gnomon/swap.h>

#include "notifier/mm_internal.h"
#include "notifier/mutations.h"
#include "notifier/sync/util.h"
#include "shadow/huge.h"
#include "tests/model/guest_mem.h"
#include "tests/support/test.h"

#define PAGES	  12 /* of guest RAM, that the mutations are about */
#define FILE_PAGE 8  /* from here on a file, where one is wanted */
#define ELSEWHERE (GUEST_MEM_HVA + (1UL << 30))

/* HUGE: a shadow MMU that maps all pages by one entry. */
enum kind { NOBODY, SHADOW, HUGE, MIRROR, INTERVAL, THREE, NR_KINDS };

/* ---- who watches ---- */

struct window {
	enum mmu_notifier_event event;
	hva_t start, end;
	void *owner;
	bool blockable;
};

#define MAX_WINDOWS 16

struct watcher {
	struct mmu_notifier mn;
	struct rig *rig;
	bool refuses; /* to sleep; has no end */
	bool refused;
	struct window log[MAX_WINDOWS], open[MAX_WINDOWS];
	int nr, nr_open, releases;
};

struct rig {
	struct guest_mem g;
	enum kind kind;
	struct watcher watcher[3];
	int nr_watchers;
	/* The device's table, of MIRROR and INTERVAL. */
	pfn_t device[PAGES];
	struct hmm_mirror mirror;
	struct mmu_interval_notifier interval;
	struct mm_struct *child;
	struct address_space *file;
	struct device_memory *memory;
	struct ksm *ksm;
	bool releasing;
	int owner; /* its address is one */
};

static hva_t page(uint64_t n)
{
	return GUEST_MEM_HVA + n * PAGE_SIZE;
}

/* Of pages [start, end). */
static unsigned int held_by_shadow(struct shadow *shadow, uint64_t n)
{
	struct memslot *slot = gfn_to_memslot(shadow_memslots(shadow), n);
	unsigned int nr;

	spin_lock(&shadow->mmu_lock);
	nr = rmap_count(&slot->rmap[n]);
	if (huge_region(slot, n))
		nr += rmap_count(&huge_region(slot, n)->rmap);
	spin_unlock(&shadow->mmu_lock);
	return nr;
}

static bool is_shadow(const struct rig *rig)
{
	return rig->kind == SHADOW || rig->kind == HUGE;
}

static bool is_huge(struct rig *rig)
{
	return rmap_first(&gfn_to_memslot(shadow_memslots(rig->g.shadow), 0)->huge[0].rmap);
}

static bool held(struct rig *rig, uint64_t n)
{
	if (is_shadow(rig))
		return held_by_shadow(rig->g.shadow, n);
	return rig->device[n] != INVALID_PFN;
}

static bool has_secondary(const struct rig *rig)
{
	return is_shadow(rig) || rig->kind == MIRROR || rig->kind == INTERVAL;
}

/* Called last of all subscribers, as it was the first to register. */
static int watch_start(struct mmu_notifier *mn, const struct mmu_notifier_range *range)
{
	struct watcher *watcher = container_of(mn, struct watcher, mn);
	struct window window = {range->event, range->start, range->end, range->owner,
				mmu_notifier_range_blockable(range)};

	expect(range->mm == mn->mm);
	if (watcher->refuses && !window.blockable) {
		watcher->refused = true;
		return -EAGAIN;
	}
	expect(watcher->nr < MAX_WINDOWS && watcher->nr_open < MAX_WINDOWS);
	watcher->log[watcher->nr++] = window;
	if (!watcher->refuses)
		watcher->open[watcher->nr_open++] = window;
	for (uint64_t n = 0; n < PAGES && has_secondary(watcher->rig); n++) {
		if (page(n) >= range->start && page(n) < range->end)
			expect(!held(watcher->rig, n));
	}
	return 0;
}

static void watch_end(struct mmu_notifier *mn, const struct mmu_notifier_range *range)
{
	struct watcher *watcher = container_of(mn, struct watcher, mn);
	const struct window *last;

	expect_ge(watcher->nr_open, 1);
	last = &watcher->open[--watcher->nr_open];
	expect_eq(last->event, range->event);
	expect_eq(last->start, range->start);
	expect_eq(last->end, range->end);
}

static void watch_release(struct mmu_notifier *mn, struct mm_struct *mm)
{
	struct watcher *watcher = container_of(mn, struct watcher, mn);

	watcher->releases++;
	/* No page is freed before. */
	for (uint64_t n = 0; n < PAGES && watcher->rig->releasing; n++) {
		const uint64_t *word = phys_map(mm_phys(mm), mm_lookup_pfn(mm, page(n)));

		expect_eq(READ_ONCE(*word), n + 1);
	}
}

static void watch(struct rig *rig, bool refuses)
{
	static const struct mmu_notifier_ops ops = {.release = watch_release,
						    .invalidate_range_start = watch_start,
						    .invalidate_range_end = watch_end},
					     no_end = {.release = watch_release,
						       .invalidate_range_start = watch_start};
	struct watcher *watcher = &rig->watcher[rig->nr_watchers++];

	watcher->rig = rig;
	watcher->refuses = refuses;
	watcher->mn.ops = refuses ? &no_end : &ops;
	expect_eq(mmu_notifier_register(&watcher->mn, rig->g.mm), 0);
}

/* ---- secondaries ---- */

static void drop_from_device(struct rig *rig, const struct mmu_notifier_range *range)
{
	for (uint64_t n = 0; n < PAGES; n++) {
		if (page(n) >= range->start && page(n) < range->end)
			rig->device[n] = INVALID_PFN;
	}
}

static int sync_device(struct hmm_mirror *mirror, const struct mmu_notifier_range *update)
{
	drop_from_device(container_of(mirror, struct rig, mirror), update);
	return 0;
}

static bool invalidate_device(struct mmu_interval_notifier *sub,
			      const struct mmu_notifier_range *range, unsigned long cur_seq)
{
	drop_from_device(container_of(sub, struct rig, interval), range);
	mmu_interval_set_seq(sub, cur_seq);
	return true;
}

static void attach(struct rig *rig)
{
	static const struct hmm_mirror_ops mirror_ops = {.sync_cpu_device_pagetables = sync_device};
	static const struct mmu_interval_notifier_ops interval_ops = {.invalidate =
									      invalidate_device};

	if (rig->kind != NOBODY)
		watch(rig, false);
	if (rig->kind == THREE) {
		watch(rig, true);
		watch(rig, false);
	}
	if (is_shadow(rig))
		guest_mem_attach(&rig->g);
	if (rig->kind == MIRROR) {
		rig->mirror.ops = &mirror_ops;
		mmap_write_lock(rig->g.mm);
		expect_eq(hmm_mirror_register(&rig->mirror, rig->g.mm), 0);
		mmap_write_unlock(rig->g.mm);
	}
	if (rig->kind == INTERVAL)
		expect_eq(mmu_interval_notifier_insert(&rig->interval, rig->g.mm, page(0),
						       PAGES * PAGE_SIZE, &interval_ops),
			  0);
}

/* Everything that the mutations are about is in the secondary. */
static void fill(struct rig *rig)
{
	if (rig->kind == HUGE) /* accessed, dirty */
		guest_write(&rig->g, guest_pte_gpa(&rig->g, rig->g.cr3, 0, 2),
			    GUEST_PTE_RW | GUEST_PTE_PS | GUEST_PTE_A | GUEST_PTE_D);
	for (uint64_t n = 0; n < PAGES; n++) {
		if (is_shadow(rig))
			expect_eq(guest_load(&rig->g, 0, n * PAGE_SIZE), n + 1);
		rig->device[n] = mm_lookup_pfn(rig->g.mm, page(n));
		if (has_secondary(rig))
			expect(held(rig, n));
	}
	if (rig->kind == HUGE)
		expect(is_huge(rig));
}

static void detach(struct rig *rig)
{
	if (is_shadow(rig))
		guest_mem_detach(&rig->g);
	if (rig->kind == MIRROR)
		hmm_mirror_unregister(&rig->mirror);
	if (rig->kind == INTERVAL)
		mmu_interval_notifier_remove(&rig->interval);
	for (int i = 0; i < rig->nr_watchers; i++) {
		struct mmu_notifier *mn = &rig->watcher[i].mn;

		mmu_notifier_unregister(mn, mn->mm);
	}
}

/* ---- mutations ---- */

static void map_file(struct rig *rig)
{
	int fd = memfd_create("file", MFD_CLOEXEC);

	expect_ge(fd, 0);
	expect_eq(ftruncate(fd, 4 * (off_t)PAGE_SIZE), 0);
	expect_eq(address_space_create_file(rig->g.phys, fd, 4, &rig->file), 0);
	close(fd);
	expect_eq(mm_mmap_flags(rig->g.mm, page(FILE_PAGE), 4 * PAGE_SIZE,
				MM_PROT_READ | MM_PROT_WRITE, MM_MAP_FIXED, rig->file, 0),
		  0);
}

static void split_in_three(struct rig *rig)
{
	expect_eq(mm_mprotect(rig->g.mm, page(4), PAGE_SIZE, MM_PROT_READ), 0);
}

static void fork_child(struct rig *rig)
{
	expect_eq(mm_fork(rig->g.mm, &rig->child), 0);
}

static void write_page(struct rig *rig, uint64_t n, uint64_t value)
{
	expect_eq(mm_write(rig->g.mm, page(n), &value, sizeof(value)), 0);
}

static void write_file(struct rig *rig)
{
	write_page(rig, 8, 9);
	write_page(rig, 10, 11);
}

static void take_page(struct rig *rig)
{
	pfn_t pfn;

	mmap_read_lock(rig->g.mm);
	expect_eq(make_device_exclusive(rig->g.mm, page(3), &rig->owner, &pfn), 0);
	put_device_exclusive(rig->g.mm, pfn);
	mmap_read_unlock(rig->g.mm);
}

static void copy_to_device(struct device_memory *memory, struct mm_struct *mm, hva_t hva, pfn_t pfn,
			   const void *ram)
{
	(void)mm, (void)hva;
	memcpy(device_memory_map(memory, pfn), ram, PAGE_SIZE);
}

static void copy_to_ram(struct device_memory *memory, struct mm_struct *mm, hva_t hva, pfn_t pfn,
			void *ram)
{
	(void)mm, (void)hva;
	memcpy(ram, device_memory_map(memory, pfn), PAGE_SIZE);
}

static void add_device(struct rig *rig)
{
	static const struct device_memory_ops ops = {copy_to_device, copy_to_ram};

	expect_eq(device_memory_create(rig->g.phys, 8, &ops, &rig->owner, &rig->memory), 0);
}

static void send_page(struct rig *rig)
{
	expect_eq(mm_migrate_to_device(rig->g.mm, page(3), PAGE_SIZE, rig->memory), 1);
}

static void do_to_device(struct rig *rig)
{
	expect_eq(mm_migrate_to_device(rig->g.mm, page(2), 4 * PAGE_SIZE, rig->memory), 4);
}

static void do_unmap(struct rig *rig)
{
	expect_eq(mm_munmap(rig->g.mm, page(2), 3 * PAGE_SIZE), 0);
	expect_eq(mm_munmap(rig->g.mm, page(2), 3 * PAGE_SIZE), 0); /* nothing: no window */
}

static void do_move(struct rig *rig)
{
	hva_t to = ELSEWHERE;
	uint64_t value;

	expect_eq(mm_mremap(rig->g.mm, page(2), 3 * PAGE_SIZE, 3 * PAGE_SIZE,
			    MM_MREMAP_MAYMOVE | MM_MREMAP_FIXED, &to),
		  0);
	expect_eq(mm_read(rig->g.mm, ELSEWHERE + PAGE_SIZE, &value, sizeof(value)), 0);
	expect_eq(value, 4);
}

static void do_protect(struct rig *rig)
{
	expect_eq(mm_mprotect(rig->g.mm, page(2), 4 * PAGE_SIZE, MM_PROT_READ), 0);
}

static void do_copy(struct rig *rig)
{
	write_page(rig, 3, 4);
}

static void do_zap(struct rig *rig)
{
	expect_eq(mm_zap_range(rig->g.mm, page(2), 4 * PAGE_SIZE), 4);
}

static void do_dontneed(struct rig *rig)
{
	expect_eq(mm_madvise(rig->g.mm, page(2), 4 * PAGE_SIZE, MM_MADV_DONTNEED), 0);
}

static void do_free(struct rig *rig)
{
	expect_eq(mm_madvise(rig->g.mm, page(2), 4 * PAGE_SIZE, MM_MADV_FREE), 0);
}

static void swap_on(struct rig *rig)
{
	const char *dir = getenv("TMPDIR");

	expect_eq(phys_swap_on(rig->g.phys, dir ? dir : "/tmp", 64), 0);
}

static void do_reclaim(struct rig *rig)
{
	struct reclaim_stats stats;

	expect_eq(mm_madvise(rig->g.mm, page(2), 4 * PAGE_SIZE, MM_MADV_PAGEOUT), 0);
	phys_reclaim_stats(rig->g.phys, &stats);
	expect_eq(stats.swap_out, 4);
}

static void do_hole(struct rig *rig)
{
	expect_eq(address_space_punch_hole(rig->g.ram, 2, 4), 0);
}

static void do_sync(struct rig *rig)
{
	expect_eq(address_space_sync(rig->file, 0, 4), 2);
}

static void do_soft_dirty(struct rig *rig)
{
	mm_clear_soft_dirty(rig->g.mm);
}

/* To read it is to have it back. */
static void do_take_back(struct rig *rig)
{
	uint64_t value;

	expect_eq(mm_read(rig->g.mm, page(3), &value, sizeof(value)), 0);
	expect_eq(value, 4);
}

static void do_migrate_range(struct rig *rig)
{
	expect_eq(mm_migrate_range(rig->g.mm, page(2), 4 * PAGE_SIZE), 4);
}

static void do_migrate(struct rig *rig)
{
	expect_eq(migrate_frame(rig->g.phys, mm_lookup_pfn(rig->g.mm, page(3))), 0);
}

/* A page of another mm has what page 3 has. */
static void make_equal(struct rig *rig)
{
	uint64_t value = 4;

	rig->child = mm_alloc(rig->g.phys);
	expect(rig->child);
	expect_eq(mm_mmap(rig->child, page(0), PAGE_SIZE, MM_PROT_READ | MM_PROT_WRITE, NULL, 0),
		  0);
	expect_eq(mm_madvise(rig->child, page(0), PAGE_SIZE, MM_MADV_MERGEABLE), 0);
	expect_eq(mm_write(rig->child, page(0), &value, sizeof(value)), 0);
}

/* The scanner comes to ours first, or last. */
static void ready_to_become_merged(struct rig *rig)
{
	rig->ksm = ksm_create(rig->g.phys);
	expect_eq(mm_madvise(rig->g.mm, page(3), PAGE_SIZE, MM_MADV_MERGEABLE), 0);
	make_equal(rig);
	expect_eq(ksm_scan(rig->ksm, 10), 0);
}

static void ready_to_merge(struct rig *rig)
{
	rig->ksm = ksm_create(rig->g.phys);
	make_equal(rig);
	expect_eq(mm_madvise(rig->g.mm, page(3), PAGE_SIZE, MM_MADV_MERGEABLE), 0);
	expect_eq(ksm_scan(rig->ksm, 10), 0);
}

static void do_merge(struct rig *rig)
{
	expect_eq(ksm_scan(rig->ksm, 10), 1);
}

static void do_exit(struct rig *rig)
{
	rig->releasing = true;
	mmput(rig->g.mm);
	rig->g.mm = NULL;
}

enum after { SAME, ZERO, GONE };

/* Windows are pages [first, end); to -1 is all there is. */
static const struct row {
	enum mmu_notifier_event event;
	bool owner, private;
	void (*before)(struct rig *rig); /* anybody subscribes */
	void (*ready)(struct rig *rig);	 /* with the secondary full; pages 3 and 8 to 11 excepted */
	void (*mutate)(struct rig *rig);
	int windows[4][2]; /* { 0, 0 }: no more */
	enum after after;  /* for pages 2 to 5 */
} rows[NR_MUTATIONS] = {
	[MUTATION_UNMAP] = {.event = MMU_NOTIFY_UNMAP,
			    .mutate = do_unmap,
			    .windows = {{2, 5}},
			    .after = GONE},
	[MUTATION_MOVE] = {.event = MMU_NOTIFY_UNMAP,
			   .mutate = do_move,
			   .windows = {{2, 5}},
			   .after = GONE},
	[MUTATION_PROTECT] = {.event = MMU_NOTIFY_PROTECTION_VMA,
			      .before = split_in_three,
			      .mutate = do_protect,
			      .windows = {{2, 4}, {5, 6}}},
	[MUTATION_FORK] = {.event = MMU_NOTIFY_PROTECTION_PAGE,
			   .private = true,
			   .mutate = fork_child,
			   .windows = {{0, 64}}},
	[MUTATION_COPY] = {.event = MMU_NOTIFY_CLEAR,
			   .private = true,
			   .before = fork_child,
			   .mutate = do_copy,
			   .windows = {{3, 4}}},
	[MUTATION_ZAP] = {.event = MMU_NOTIFY_CLEAR,
			  .private = true,
			  .mutate = do_zap,
			  .windows = {{2, 6}},
			  .after = ZERO},
	[MUTATION_DONTNEED] = {.event = MMU_NOTIFY_CLEAR,
			       .before = split_in_three,
			       .mutate = do_dontneed,
			       .windows = {{2, 4}, {4, 5}, {5, 6}}},
	[MUTATION_FREE] = {.event = MMU_NOTIFY_CLEAR,
			   .private = true,
			   .mutate = do_free,
			   .windows = {{2, 6}}},
	[MUTATION_PAGE_OUT] = {.event = MMU_NOTIFY_CLEAR,
			       .private = true,
			       .before = swap_on,
			       .mutate = do_reclaim,
			       .windows = {{2, 3}, {3, 4}, {4, 5}, {5, 6}}},
	[MUTATION_HOLE] = {.event = MMU_NOTIFY_CLEAR,
			   .before = split_in_three,
			   .mutate = do_hole,
			   .windows = {{2, 4}, {4, 5}, {5, 6}},
			   .after = ZERO},
	[MUTATION_SYNC] = {.event = MMU_NOTIFY_PROTECTION_PAGE,
			   .before = map_file,
			   .ready = write_file,
			   .mutate = do_sync,
			   .windows = {{8, 9}, {10, 11}}},
	[MUTATION_SOFT_DIRTY] = {.event = MMU_NOTIFY_SOFT_DIRTY,
				 .mutate = do_soft_dirty,
				 .windows = {{0, -1}}},
	[MUTATION_EXCLUSIVE] = {.event = MMU_NOTIFY_EXCLUSIVE,
				.owner = true,
				.private = true,
				.mutate = take_page,
				.windows = {{3, 4}}},
	[MUTATION_TAKE_BACK] = {.event = MMU_NOTIFY_CLEAR,
				.private = true,
				.ready = take_page,
				.mutate = do_take_back,
				.windows = {{3, 4}}},
	[MUTATION_MIGRATE_RANGE] = {.event = MMU_NOTIFY_MIGRATE,
				    .mutate = do_migrate_range,
				    .windows = {{2, 6}}},
	[MUTATION_MIGRATE] = {.event = MMU_NOTIFY_MIGRATE,
			      .mutate = do_migrate,
			      .windows = {{3, 4}}},
	[MUTATION_TO_DEVICE] = {.event = MMU_NOTIFY_MIGRATE,
				.owner = true,
				.private = true,
				.before = add_device,
				.mutate = do_to_device,
				.windows = {{2, 6}}},
	[MUTATION_FROM_DEVICE] = {.event = MMU_NOTIFY_MIGRATE,
				  .owner = true,
				  .private = true,
				  .before = add_device,
				  .ready = send_page,
				  .mutate = do_take_back,
				  .windows = {{3, 4}}},
	[MUTATION_MERGE_PROTECT] = {.event = MMU_NOTIFY_CLEAR,
				    .private = true,
				    .before = ready_to_become_merged,
				    .mutate = do_merge,
				    .windows = {{3, 4}}},
	[MUTATION_MERGE] = {.event = MMU_NOTIFY_CLEAR,
			    .private = true,
			    .before = ready_to_merge,
			    .mutate = do_merge,
			    .windows = {{3, 4}, {3, 4}}},
	/* Everybody is released, and told nothing after that. */
	[MUTATION_EXIT] = {.event = MMU_NOTIFY_UNMAP, .mutate = do_exit},
};

/* ---- what must come out ---- */

static void expect_windows(const struct rig *rig, const struct watcher *watcher,
			   enum mm_mutation what)
{
	const struct row *row = &rows[what];
	int nr = 0;

	for (; nr < 4 && row->windows[nr][1]; nr++) {
		const struct window *window = &watcher->log[nr];
		hva_t start = page(row->windows[nr][0]), end = page(row->windows[nr][1]);

		expect(nr < watcher->nr);
		expect_eq(window->event, row->event);
		expect(window->blockable);
		expect(window->owner == (row->owner ? &rig->owner : NULL));
		expect_eq(window->start, row->windows[nr][1] == -1 ? 0 : start);
		expect_eq(window->end, row->windows[nr][1] == -1 ? HVA_MAX : end);
	}
	expect_eq(watcher->nr, nr);
	expect_eq(watcher->nr_open, 0);
}

static void expect_contents(struct rig *rig, const struct row *row)
{
	for (uint64_t n = 0; n < PAGES; n++) {
		bool changed = n >= 2 && n < (row->after == GONE ? 5 : 6) && row->after != SAME;
		uint64_t value = 0, expected = changed ? 0 : n + 1;

		if (changed && row->after == GONE) {
			expect_eq(mm_read(rig->g.mm, page(n), &value, sizeof(value)), -EFAULT);
			continue;
		}
		expect_eq(mm_read(rig->g.mm, page(n), &value, sizeof(value)), 0);
		expect_eq(value, expected);
		if (is_shadow(rig))
			expect_eq(guest_load(&rig->g, 0, n * PAGE_SIZE), expected);
	}
}

/* Nothing that the primary has not. */
static void expect_secondary(struct rig *rig)
{
	char why[256];

	if (is_shadow(rig) && shadow_audit(rig->g.shadow, why, sizeof(why)))
		fail("%s", why);
	for (uint64_t n = 0; n < PAGES && (rig->kind == MIRROR || rig->kind == INTERVAL); n++) {
		if (held(rig, n))
			expect_eq(rig->device[n], mm_lookup_pfn(rig->g.mm, page(n)));
	}
}

/* Who refuses makes it fail; who has had a start has an end. */
static void try_nonblock(struct rig *rig)
{
	struct mmu_notifier_range range;
	int nr[3] = {0};

	for (int i = 0; i < 3; i++)
		nr[i] = rig->watcher[i].nr;
	mmu_notifier_range_init(&range, MMU_NOTIFY_CLEAR, 0, rig->g.mm, page(2), page(4));
	mmap_read_lock(rig->g.mm);
	expect_eq(mmu_notifier_invalidate_range_start_nonblock(&range), -EAGAIN);
	mmap_read_unlock(rig->g.mm);
	expect(rig->watcher[1].refused);
	expect_eq(rig->watcher[1].nr, nr[1]);
	for (int i = 0; i < 3; i += 2) {
		expect_eq(rig->watcher[i].nr, nr[i] + 1);
		expect(!rig->watcher[i].log[nr[i]].blockable);
		expect_eq(rig->watcher[i].nr_open, 0);
	}
}

static void begin(struct rig *rig, enum kind kind, enum mm_mutation what)
{
	const struct guest_mem_config config = {.audit = true,
						.private_ram = rows[what].private,
						.no_identity = kind == HUGE,
						.nr_pages = kind == HUGE ? 2 * HUGE_PAGES : 0};

	*rig = (struct rig){.kind = kind};
	guest_mem_init(&rig->g, &config);
	if (rows[what].before == map_file)
		map_file(rig);
	for (uint64_t n = 0; n < PAGES; n++)
		write_page(rig, n, n + 1);
	for (uint64_t n = PAGES; kind == HUGE && n < rig->g.nr_pages; n++)
		write_page(rig, n, n + 1);
	if (rig->file) /* clean again */
		expect_eq(address_space_sync(rig->file, 0, 4), 4);
	else if (rows[what].before && !(kind == HUGE && rows[what].before == split_in_three))
		rows[what].before(rig);
	attach(rig);
	fill(rig);
	if (rows[what].ready)
		rows[what].ready(rig);
	/* The shadow has what it may write again. */
	if (rows[what].ready == write_file && kind == SHADOW) {
		guest_store(&rig->g, 0, 8 * PAGE_SIZE, 9);
		guest_store(&rig->g, 0, 10 * PAGE_SIZE, 11);
	}
	for (int i = 0; i < rig->nr_watchers; i++) {
		expect_eq(rig->watcher[i].nr_open, 0);
		rig->watcher[i].nr = 0;
	}
}

static void end(struct rig *rig)
{
	detach(rig);
	if (rig->child)
		mmput(rig->child);
	if (rig->g.mm)
		mmput(rig->g.mm);
	rig->g.mm = NULL;
	if (rig->file)
		address_space_put(rig->file);
	if (rig->memory)
		device_memory_destroy(rig->memory);
	ksm_destroy(rig->ksm);
	guest_mem_destroy(&rig->g);
}

static void run(enum kind kind, enum mm_mutation what)
{
	const struct row *row = &rows[what];
	struct rig rig;

	/* What the table says is said here once more. */
	expect(row->mutate);
	expect_eq(mm_mutations[what].event, row->event);
	expect_eq(mm_mutations[what].owner, row->owner);
	expect(mm_mutations[what].blockable);
	begin(&rig, kind, what);
	expect_eq(mm_has_notifiers(rig.g.mm), kind != NOBODY);
	if (kind == HUGE)
		expect_eq(is_huge(&rig), !row->ready);
	row->mutate(&rig);
	expect(kind != HUGE || what == MUTATION_EXIT || !is_huge(&rig));
	for (int i = 0; i < rig.nr_watchers; i++) {
		if (kind != HUGE)
			expect_windows(&rig, &rig.watcher[i], what);
		expect_eq(rig.watcher[i].releases, what == MUTATION_EXIT);
	}
	if (rig.g.mm) {
		expect_secondary(&rig);
		expect_contents(&rig, row);
	}
	if (rig.g.mm && kind == THREE)
		try_nonblock(&rig);
	end(&rig);
}

static void run_all(enum kind kind)
{
	for (enum mm_mutation what = 0; what < NR_MUTATIONS; what++) {
		/* Pages of two kinds do not lie alike. */
		if (kind != HUGE || rows[what].before != map_file)
			run(kind, what);
	}
}

TEST(mutations, with_nobody)
{
	run_all(NOBODY);
}

TEST(mutations, with_a_shadow_mmu)
{
	run_all(SHADOW);
}

/* Each takes the one leaf away, whichever pages it is about. */
TEST(mutations, with_huge_leaves)
{
	run_all(HUGE);
}

TEST(mutations, with_an_hmm_mirror)
{
	run_all(MIRROR);
}

TEST(mutations, with_an_interval)
{
	run_all(INTERVAL);
}

TEST(mutations, with_three_of_whom_one_refuses)
{
	run_all(THREE);
}

/* ---- the document ---- */

#define HEADER "| what | event | range of the window | blockable | under |\n"

TEST(mutations, are_documented)
{
	const char *source = getenv("GNOMON_SOURCE");
	char path[512], line[512], row[512];
	enum mm_mutation what = 0;
	FILE *file;

	snprintf(path, sizeof(path), "%s/docs/mm.md", source ? source : ".");
	file = fopen(path, "r");
	if (!file)
		fail("%s: %s", path, strerror(errno));
	while (fgets(line, sizeof(line), file) && strcmp(line, HEADER))
		;
	expect(fgets(line, sizeof(line), file)); /* |---| */
	for (; what < NR_MUTATIONS; what++) {
		int len = mutation_row(what, row, sizeof(row) - 1);

		expect(len > 0 && (size_t)len < sizeof(row) - 1);
		strcat(row, "\n");
		if (!fgets(line, sizeof(line), file))
			line[0] = '\0';
		expect_str_eq(line, row);
	}
	expect(fgets(line, sizeof(line), file));
	expect_str_eq(line, "\n"); /* and no others */
	fclose(file);
}
