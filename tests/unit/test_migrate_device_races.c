/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Pages that go to a device, and come back, while others look at them, want them or take them away:
 * in the order that the ladders of migrate_device.c are about; and all at once, when nothing may be
 * lost.
 */
#include <errno.h>

#include <gnomon/swap.h>

#include "tests/support/device_fixture.h"
#include "tests/support/park.h"

static void migrate_once(struct mirror_device *device)
{
	device->before_lock = NULL;
	expect_eq(mirror_migrate(device, 0, 1), 1);
}

static void bring_once(struct mirror_device *device)
{
	device->before_lock = NULL;
	expect_eq(test_read(device->mm, page(0)), 5);
}

/* The ladder of migrate_device.c, and the other way round. */
TEST(migrate_device_races, migrated_before_the_lock)
{
	begin();
	test_write(mm, page(0), 5);
	dev.before_lock = migrate_once;
	expect_eq(mirror_read(&dev, 0), 5);
	expect(dev.page[0].pfn & DEVICE);
	expect_eq(atomic64_read(&dev.retries), 1);

	mm_clear_soft_dirty(mm);
	dev.before_lock = bring_once;
	expect_eq(mirror_read(&dev, 0), 5);
	expect(!(dev.page[0].pfn & DEVICE));
	expect_eq(atomic64_read(&dev.retries), 2);
	end();
}

/* A device whose copies stop half way, with the entry a migration entry. */
static struct park half_way;

static void parked_to_device(struct device_memory *memory, struct mm_struct *of, hva_t hva,
			     pfn_t pfn, const void *ram)
{
	park_enter(&half_way);
	mirror_copy_to_device(memory, of, hva, pfn, ram);
}

static void parked_to_ram(struct device_memory *memory, struct mm_struct *of, hva_t hva, pfn_t pfn,
			  void *ram)
{
	park_enter(&half_way);
	mirror_copy_to_ram(memory, of, hva, pfn, ram);
}

static const struct device_memory_ops parked_ops = {
	.copy_to_device = parked_to_device,
	.copy_to_ram = parked_to_ram,
};

static void migrate_it(void *arg)
{
	*(long *)arg = mirror_migrate(&dev, 0, 1);
}

static void read_it(void *arg)
{
	*(uint64_t *)arg = test_read(mm, page(0));
}

static void begin_parked(void)
{
	begin();
	mirror_take_memory(&dev);
	expect_eq(device_memory_create(phys, DEV_FRAMES, &parked_ops, &dev, &dev.memory), 0);
	park_init(&half_way);
	test_write(mm, page(0), 5);
}

/* A zap wins, there and back: the next touch finds zeroes, and no frame is left over. */
TEST(migrate_device_races, zapped_on_the_way_there)
{
	struct kthread mover;
	long moved = -1;

	begin_parked();
	expect_eq(kthread_run(&mover, "mover", migrate_it, &moved), 0);
	park_wait(&half_way, 1);
	expect_eq(mm_zap_range(mm, page(0), PAGE_SIZE), 1);
	expect_eq(test_read(mm, page(0)), 0);
	park_release(&half_way);
	kthread_join(&mover);
	expect_eq(moved, 0);
	expect_eq(nr_in_device(&dev), 0);
	expect_eq(phys_nr_free(phys), NR_FRAMES - 1);
	expect_eq(test_read(mm, page(0)), 0);
	end();
}

TEST(migrate_device_races, zapped_on_the_way_back)
{
	struct kthread reader;
	uint64_t value = 99;

	begin_parked();
	park_release(&half_way);
	expect_eq(mirror_migrate(&dev, 0, 1), 1);
	park_init(&half_way);
	expect_eq(kthread_run(&reader, "reader", read_it, &value), 0);
	park_wait(&half_way, 1);
	expect_eq(mm_zap_range(mm, page(0), PAGE_SIZE), 1);
	park_release(&half_way);
	kthread_join(&reader);
	/* It came before the zap, or behind. */
	expect(value == 5 || value == 0);
	expect_eq(nr_in_device(&dev), 0);
	expect_eq(test_read(mm, page(0)), 0);
	end();
}

/* Of several who want the page one brings it, and the others wait: one copy, one frame. */
TEST(migrate_device_races, one_brings_it_back)
{
	struct kthread readers[4];
	uint64_t value[4] = {0};

	begin_parked();
	park_release(&half_way);
	expect_eq(mirror_migrate(&dev, 0, 1), 1);
	park_init(&half_way);
	for (int i = 0; i < 4; i++)
		expect_eq(kthread_run(&readers[i], "reader", read_it, &value[i]), 0);
	park_wait(&half_way, 1);
	park_release(&half_way);
	for (int i = 0; i < 4; i++) {
		kthread_join(&readers[i]);
		expect_eq(value[i], 5);
	}
	expect_eq(atomic64_read(&dev.copied), 2);
	expect_eq(stats().pages_to_ram, 1);
	expect_eq(phys_nr_free(phys), NR_FRAMES - 1);
	end();
}

/* ---- half of what it reads is torn down meanwhile (kernel: anon_teardown of hmm-tests) ---- */

#define HALF (SHARED / 2)

static struct teardown {
	atomic64_t passes, right, errors;
	atomic_t torn, over;
} t;

static void read_all(bool torn)
{
	for (unsigned int n = 0; n < SHARED; n++) {
		uint64_t value = 99;
		int ret = mirror_read_or_fail(&dev, n, &value);

		if (ret) {
			expect_eq(ret, -EFAULT);
			expect_ge(n, HALF);
			atomic64_inc(&t.errors);
		} else {
			expect_eq(value, n + 1);
			expect(n < HALF || !torn);
			atomic64_inc(&t.right);
		}
	}
	atomic64_inc_return(&t.passes);
}

static void reader(void *arg)
{
	(void)arg;
	while (!atomic_read_acquire(&t.over))
		read_all(atomic_read_acquire(&t.torn));
}

static void wait_for_passes(int64_t nr)
{
	int64_t until = atomic64_read(&t.passes) + nr;

	while (atomic64_read(&t.passes) < until)
		sched_yield();
}

TEST(migrate_device_races, teardown_while_it_reads)
{
	const uint64_t rounds = test_volume(100);
	struct kthread reading;

	begin();
	for (uint64_t round = 0; round < rounds; round++) {
		for (unsigned int n = 0; n < SHARED; n++)
			test_write(mm, page(n), n + 1);
		for (unsigned int n = round % 2; n < SHARED; n += 2)
			expect_eq(mirror_migrate(&dev, n, 1), 1);
		atomic_set(&t.torn, 0);
		atomic_set(&t.over, 0);
		expect_eq(kthread_run(&reading, "reader", reader, NULL), 0);
		if (round % 4)
			wait_for_passes((int64_t)round % 4 - 1);
		expect_eq(mm_munmap(mm, page(HALF), (SHARED - HALF) * PAGE_SIZE), 0);
		atomic_set_release(&t.torn, 1);
		wait_for_passes(2);
		atomic_set_release(&t.over, 1);
		kthread_join(&reading);
		expect_eq(mm_mmap(mm, page(HALF), (SHARED - HALF) * PAGE_SIZE, RW, NULL, 0), 0);
	}
	expect_ge(atomic64_read(&t.right), 2 * HALF * rounds);
	expect_ge(atomic64_read(&t.errors), (SHARED - HALF) * rounds);
	end();
}

/* ---- everything at once ---- */

#define NR_OWNERS 4

/*
 * Each page has one thread that writes it, through the host or a device, and so knows what is in
 * it; all move it about, swap it, fork, and clear.
 */
static struct stress {
	struct mirror_device devices[2];
	uint64_t rounds;
	atomic_t next_owner, owners_left;
	atomic64_t forks;
} s;

static bool goes_on(uint64_t round)
{
	struct mm_stats now = stats();

	return round < s.rounds || now.pages_to_device < s.rounds || now.pages_to_ram < s.rounds ||
	       now.pages_migrated < s.rounds / 10 || now.pages_swapped_out < s.rounds / 20 ||
	       atomic64_read(&s.forks) < 10;
}

static void change(unsigned int n, uint64_t round, uint64_t *value)
{
	struct mirror_device *device = &s.devices[round / 4 % 2];

	switch (round % 4) {
	case 0:
		test_write(mm, page(n), *value += 10);
		break;
	case 1:
		mirror_write(device, n, *value += 10);
		break;
	case 2:
		expect_eq(mirror_increment(device, n), 0);
		*value += 1;
		break;
	default:
		if (round % 32 != 31)
			break;
		expect_eq(mm_zap_range(mm, page(n), PAGE_SIZE), 1);
		*value = 0;
	}
}

static void owner(void *arg)
{
	unsigned int me = (unsigned int)atomic_inc_return(&s.next_owner) - 1;
	uint64_t value[SHARED] = {0};

	(void)arg;
	for (uint64_t round = 0; goes_on(round); round++) {
		for (unsigned int n = me; n < SHARED; n += NR_OWNERS) {
			change(n, round, &value[n]);
			expect_ge(mirror_migrate(&s.devices[round % 2], n, 1), 0);
			expect_eq(mirror_read(&s.devices[round / 2 % 2], n), value[n]);
			if (round % 3 == 0)
				expect_eq(test_read(mm, page(n)), value[n]);
		}
	}
	atomic_dec(&s.owners_left);
}

/* Waits until somebody came through: or nobody would, for all the windows. */
static void disturber(void *arg)
{
	int64_t seen = 0;

	(void)arg;
	for (uint64_t i = 0; atomic_read(&s.owners_left); i++) {
		struct mm_struct *child;

		while (atomic_read(&s.owners_left) &&
		       atomic64_read(&s.devices[i % 2].accesses) == seen)
			sched_yield();
		seen = atomic64_read(&s.devices[(i + 1) % 2].accesses);
		expect_ge(mm_migrate_range(mm, page(0), SHARED * PAGE_SIZE), 0);
		if (i % 16 == 1)
			mm_clear_soft_dirty(mm);
		if (i % 4 == 3)
			expect_eq(mm_madvise(mm, page(0), SHARED * PAGE_SIZE, MM_MADV_PAGEOUT), 0);
		if (i % 16 != 0)
			continue;
		expect_eq(mm_fork(mm, &child), 0);
		mmput(child);
		atomic64_inc(&s.forks);
	}
}

TEST(migrate_device_races, right_data_always)
{
	struct kthread threads[NR_OWNERS + 1];
	int nr = 0;

	begin();
	expect_eq(phys_swap_on(phys, "/tmp", NR_FRAMES), 0);
	s.rounds = test_volume(1000);
	atomic_set(&s.owners_left, NR_OWNERS);
	for (int i = 0; i < 2; i++) {
		mirror_create(&s.devices[i], mm, BASE, NR_PAGES);
		mirror_give_memory(&s.devices[i], DEV_FRAMES);
	}
	for (int i = 0; i < NR_OWNERS; i++)
		expect_eq(kthread_run(&threads[nr++], "owner", owner, NULL), 0);
	expect_eq(kthread_run(&threads[nr++], "disturber", disturber, NULL), 0);
	while (nr)
		kthread_join(&threads[--nr]);

	expect_ge(stats().pages_swapped_out, s.rounds / 20);
	expect_ge(mm_migrate_to_ram(mm, BASE, NR_PAGES * PAGE_SIZE), 0);
	expect_eq(mm_munmap(mm, page(0), SHARED * PAGE_SIZE), 0);
	expect_eq(phys_swap_off(phys), 0);
	for (int i = 0; i < 2; i++) {
		mirror_destroy(&s.devices[i]);
		mirror_take_memory(&s.devices[i]);
	}
	end();
}
