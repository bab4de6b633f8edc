/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Writers of three kinds against syncs, migrations, zaps and reclaim, with exact oracles: what a
 * writer knows to be in memory when a sync begins is in the file when it returns, and at the end
 * the file is what memory was. A store that went into a page that was thought clean is missing
 * there.
 */
#include <gnomon/swap.h>

#include "tests/support/file_fixture.h"

#include "notifier/frame.h"

#define NR_PAGES  12
#define NR_FRAMES (NR_PAGES + 70)

/* Words of a page, each with one kind of writer; each only ever grows. */
enum { BY_WRITE, BY_INCREMENT, BY_SECONDARY, NR_WORDS };

/*
 * The first of them is the last of a block that is written in one go, which takes long enough for a
 * sync to come in between.
 */
#define BLOCK_WORDS 384U

static uint64_t offset_of(int word)
{
	return word == BY_WRITE ? PAGE_SIZE - 8 : 64 * (uint64_t)word;
}

/*
 * A secondary MMU, as small as they come: one entry for each page, which its invalidations take
 * away under its lock. It stores by way of its entries, and pins nothing.
 */
struct secondary {
	struct mmu_notifier mn;
	spinlock_t lock;
	unsigned long seq; /* under lock: windows that are over, */
	int open;	   /* and those that are open */
	bool present[NR_PAGES];
	pfn_t pfn[NR_PAGES];
};

struct storm {
	struct file_rig rig;
	struct mm_struct *other; /* has the file, too, from page 1 on */
	struct secondary secondary;
	atomic64_t known[NR_PAGES][NR_WORDS]; /* are in memory for sure */
	atomic_t stop;
	uint64_t goal;
	atomic64_t synced, checked, migrated, zapped, reclaimed;
};

static int secondary_start(struct mmu_notifier *mn, const struct mmu_notifier_range *range)
{
	struct secondary *s = container_of(mn, struct secondary, mn);

	spin_lock(&s->lock);
	s->open++;
	for (uint64_t n = 0; n < NR_PAGES; n++) {
		if (range->start < file_page(n + 1) && file_page(n) < range->end)
			s->present[n] = false;
	}
	spin_unlock(&s->lock);
	return 0;
}

static void secondary_end(struct mmu_notifier *mn, const struct mmu_notifier_range *range)
{
	struct secondary *s = container_of(mn, struct secondary, mn);

	(void)range;
	spin_lock(&s->lock);
	s->seq++;
	s->open--;
	spin_unlock(&s->lock);
}

static const struct mmu_notifier_ops secondary_ops = {
	.invalidate_range_start = secondary_start,
	.invalidate_range_end = secondary_end,
};

static hva_t word_at(uint64_t n, int word)
{
	return file_page(n) + offset_of(word);
}

/* By its own entry, if there is one. */
static bool secondary_store(struct storm *s, uint64_t n, uint64_t value)
{
	struct secondary *secondary = &s->secondary;
	bool stored;

	spin_lock(&secondary->lock);
	stored = secondary->present[n];
	if (stored)
		contents_write((char *)phys_map(s->rig.phys, secondary->pfn[n]) +
				       offset_of(BY_SECONDARY),
			       &value, sizeof(value));
	spin_unlock(&secondary->lock);
	return stored;
}

/*
 * Windows count when they end, as in fault.c: if they counted as they began, this would go wrong.
 *
 *   fault                                     sync
 *   -----                                     ----
 *                                             window begins: seq 5, is open
 *   seq is 5
 *   hva_to_pfn: F, writable
 *                                             entry := read-only; window ends
 *   none open, seq is 5: present
 *                                             writes F to the file, F is clean
 *   stores to F: nobody knows
 */
static void secondary_fault(struct storm *s, uint64_t n)
{
	struct secondary *secondary = &s->secondary;
	unsigned long seq;
	bool writable;
	pfn_t pfn;

	spin_lock(&secondary->lock);
	seq = secondary->seq;
	spin_unlock(&secondary->lock);
	expect_eq(hva_to_pfn(s->rig.mm, file_page(n), true, &pfn, &writable), 0);
	spin_lock(&secondary->lock);
	if (writable && !secondary->open && secondary->seq == seq) {
		secondary->pfn[n] = pfn;
		secondary->present[n] = true;
	}
	spin_unlock(&secondary->lock);
}

static void write_by_secondary(void *arg)
{
	struct storm *s = arg;

	for (uint64_t i = 1; i <= s->goal; i++) {
		uint64_t n = i % NR_PAGES;

		while (!secondary_store(s, n, i))
			secondary_fault(s, n);
		atomic64_set_release(&s->known[n][BY_SECONDARY], (int64_t)i);
	}
}

/* By way of either mm. */
static struct mm_struct *mm_of(struct storm *s, uint64_t i, uint64_t n)
{
	return n && i & 1 ? s->other : s->rig.mm;
}

static void write_blocks(void *arg)
{
	struct storm *s = arg;
	uint64_t block[BLOCK_WORDS];

	for (uint64_t i = 1; i <= s->goal; i++) {
		uint64_t n = i * 5 % NR_PAGES;

		for (unsigned int word = 0; word < BLOCK_WORDS; word++)
			block[word] = i;
		expect_eq(mm_write(mm_of(s, i, n), file_page(n + 1) - sizeof(block), block,
				   sizeof(block)),
			  0);
		atomic64_set_release(&s->known[n][BY_WRITE], (int64_t)i);
	}
}

static void increment_words(void *arg)
{
	struct storm *s = arg;

	for (uint64_t i = 1; i <= s->goal; i++) {
		uint64_t n = i * 7 % NR_PAGES;

		test_increment(mm_of(s, i, n), word_at(n, BY_INCREMENT));
		atomic64_inc_return(&s->known[n][BY_INCREMENT]);
	}
}

static void sync_and_look(struct storm *s, uint64_t n)
{
	int64_t known[NR_WORDS];
	long ret;

	for (int word = 0; word < NR_WORDS; word++)
		known[word] = atomic64_read_acquire(&s->known[n][word]);
	ret = address_space_sync(s->rig.mapping, n, 1);
	expect_ge(ret, 0);
	for (int word = 0; word < NR_WORDS; word++)
		expect_ge(test_file_read(s->rig.fd, n * PAGE_SIZE + offset_of(word)), known[word]);
	atomic64_add(ret, &s->synced);
	atomic64_inc(&s->checked);
}

static void sync_pages(void *arg)
{
	struct storm *s = arg;

	for (uint64_t i = 0; !atomic_read(&s->stop); i++)
		sync_and_look(s, i * 11 % NR_PAGES);
}

static void disturb(void *arg)
{
	struct storm *s = arg;

	for (uint64_t i = 0; !atomic_read(&s->stop); i++) {
		uint64_t n = i % NR_PAGES;
		int ret = migrate_mapping_page(s->rig.mapping, n);
		long zapped;

		expect(ret == 0 || ret == -EBUSY || ret == -ENOENT);
		atomic64_add(ret == 0, &s->migrated);
		zapped = mm_zap_range(mm_of(s, i, n), file_page(n), PAGE_SIZE);
		expect_ge(zapped, 0);
		atomic64_add(zapped, &s->zapped);
		atomic64_add((int64_t)phys_reclaim(s->rig.phys, 2), &s->reclaimed);
		expect_ge(mm_migrate_range(s->rig.mm, file_page(0), NR_PAGES * PAGE_SIZE), 0);
	}
}

/* After the last store one sync is enough: the file and memory are one. */
static void expect_file_is_memory(struct storm *s)
{
	expect_ge(address_space_sync(s->rig.mapping, 0, NR_PAGES), 0);
	for (uint64_t n = 0; n < NR_PAGES; n++) {
		uint64_t file[CONTENTS_WORDS], memory[CONTENTS_WORDS];

		expect_eq(pread(s->rig.fd, file, PAGE_SIZE, n * PAGE_SIZE), PAGE_SIZE);
		expect_eq(mm_read(s->rig.mm, file_page(n), memory, PAGE_SIZE), 0);
		expect(!memcmp(file, memory, PAGE_SIZE));
		for (int word = 0; word < NR_WORDS; word++)
			expect_eq(test_file_read(s->rig.fd, n * PAGE_SIZE + offset_of(word)),
				  atomic64_read(&s->known[n][word]));
	}
	expect_eq(address_space_sync(s->rig.mapping, 0, NR_PAGES), 0);
}

TEST(file_sync_races, no_write_is_lost)
{
	void (*const writers[])(void *) = {write_blocks, increment_words, write_by_secondary};
	void (*const others[])(void *) = {sync_pages, sync_pages, disturb};
	struct kthread threads[ARRAY_SIZE(writers)], disturbers[ARRAY_SIZE(others)];
	uint64_t zeroes[CONTENTS_WORDS] = {0};
	struct storm s = {.goal = test_volume(40000)};

	s.rig = file_rig_init(NR_PAGES, NR_FRAMES);
	for (uint64_t n = 0; n < NR_PAGES; n++)
		expect_eq(pwrite(s.rig.fd, zeroes, PAGE_SIZE, n * PAGE_SIZE), PAGE_SIZE);
	s.other = test_mm(s.rig.phys);
	expect_eq(mm_mmap(s.other, file_page(1), (NR_PAGES - 1) * PAGE_SIZE, RW, s.rig.mapping, 1),
		  0);
	spin_lock_init(&s.secondary.lock);
	s.secondary.mn.ops = &secondary_ops;
	expect_eq(mmu_notifier_register(&s.secondary.mn, s.rig.mm), 0);

	for (size_t i = 0; i < ARRAY_SIZE(others); i++)
		expect_eq(kthread_run(&disturbers[i], "other", others[i], &s), 0);
	for (size_t i = 0; i < ARRAY_SIZE(writers); i++)
		expect_eq(kthread_run(&threads[i], "writer", writers[i], &s), 0);
	for (size_t i = 0; i < ARRAY_SIZE(writers); i++)
		kthread_join(&threads[i]);
	/* Writers may be done before the others have begun. */
	while (atomic64_read(&s.checked) < 500 || atomic64_read(&s.synced) < 100 ||
	       atomic64_read(&s.migrated) < 100 || atomic64_read(&s.zapped) < 100 ||
	       atomic64_read(&s.reclaimed) < 100) {
		for (uint64_t n = 0; n < NR_PAGES; n++) {
			test_increment(s.rig.mm, word_at(n, BY_INCREMENT));
			atomic64_inc_return(&s.known[n][BY_INCREMENT]);
		}
	}
	atomic_set(&s.stop, 1);
	for (size_t i = 0; i < ARRAY_SIZE(others); i++)
		kthread_join(&disturbers[i]);

	expect_file_is_memory(&s);
	mmu_notifier_unregister(&s.secondary.mn, s.rig.mm);
	mmput(s.other);
	file_rig_done(&s.rig);
}
