/* SPDX-License-Identifier: 0BSD */
/*
 * Interval notifiers: a device page table for one range, and a fault handler that finds out whether
 * what it has looked up is still true, while another thread drops and moves the pages.
 *
 * Each page holds its own number. The main thread reads through the device's table, straight from
 * the frames; a read through an entry that is out of date finds poison, or another page's number.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <gnomon/mmu_interval_notifier.h>

#define BASE   0x100000UL
#define PAGES  8
#define LEN    (PAGES * PAGE_SIZE)
#define BEYOND (BASE + LEN) /* one more page, of which the device wants to know nothing */
#define READS  2000
#define DROPS  200

#define CHECK(what)                                                                        \
	do {                                                                               \
		if (!(what)) {                                                             \
			fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #what); \
			exit(1);                                                           \
		}                                                                          \
	} while (0)

struct device {
	struct mmu_interval_notifier sub;
	pthread_mutex_t lock; /* the driver's: all below, and the sequence of sub */
	pfn_t pfn[PAGES];     /* the device page table; INVALID_PFN: fault */
	unsigned long calls, dropped, faults, retries;
};

static struct phys *phys;
static struct mm_struct *mm;
static struct device device;
static int stop;

/* --- what the mm calls */

/*
 * There is no end of a window: who faults waits for it in mmu_interval_read_begin(). Whoever opens
 * one that may not sleep is refused if we would have to; he comes again.
 */
static bool device_invalidate(struct mmu_interval_notifier *sub,
			      const struct mmu_notifier_range *range, unsigned long seq)
{
	struct device *d = (struct device *)((char *)sub - offsetof(struct device, sub));

	if (mmu_notifier_range_blockable(range))
		pthread_mutex_lock(&d->lock);
	else if (pthread_mutex_trylock(&d->lock))
		return false;
	mmu_interval_set_seq(sub, seq);
	d->calls++;
	for (unsigned int i = 0; i < PAGES; i++) {
		hva_t hva = BASE + i * PAGE_SIZE;

		/* A range may be larger than our interval, or smaller. */
		if (range->start <= hva && hva < range->end && d->pfn[i] != INVALID_PFN) {
			d->pfn[i] = INVALID_PFN;
			d->dropped++;
		}
	}
	pthread_mutex_unlock(&d->lock);
	return true;
}

static const struct mmu_interval_notifier_ops device_ops = {
	.invalidate = device_invalidate,
};

/* --- what uses the table */

/* Comes and goes with the lock held, but asks the mm without it: that may sleep. */
static void device_fault(struct device *d, unsigned int i)
{
	unsigned long seq;
	bool writable, slow = d->faults++ % 16 == 0;
	pfn_t pfn;

	for (;; slow = false) {
		pthread_mutex_unlock(&d->lock);
		seq = mmu_interval_read_begin(&d->sub);
		CHECK(hva_to_pfn(mm, BASE + i * PAGE_SIZE, false, &pfn, &writable) == 0);
		if (slow)
			sched_yield(); /* it may take long, and the page move */
		pthread_mutex_lock(&d->lock);
		if (!mmu_interval_read_retry(&d->sub, seq))
			break;
		d->retries++;
	}
	d->pfn[i] = pfn; /* who invalidates it from now on waits for the lock, and finds it */
}

static uint64_t device_read(struct device *d, unsigned int i)
{
	uint64_t value;

	pthread_mutex_lock(&d->lock);
	if (d->pfn[i] == INVALID_PFN)
		device_fault(d, i);
	value = __atomic_load_n((uint64_t *)phys_map(phys, d->pfn[i]), __ATOMIC_RELAXED);
	pthread_mutex_unlock(&d->lock);
	return value;
}

/*
 * The memory is a shared object, so what is dropped comes back with what was in it.
 *
 * Both threads give way to each other: on one processor each would run for as long as it may, and
 * find nothing new to drop, or to read.
 */
static void *mover(void *unused)
{
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		CHECK(mm_migrate_range(mm, BASE, LEN) >= 0);
		CHECK(mm_zap_range(mm, BASE, LEN / 2) >= 0);
		sched_yield();
	}
	return unused;
}

static void read_while_pages_move(void)
{
	unsigned long dropped = 0;
	pthread_t thread;

	CHECK(pthread_create(&thread, NULL, mover, NULL) == 0);
	/* Until it has read so much, and lost so many entries, that it would have gone wrong. */
	for (unsigned int i = 0; i < READS || dropped < DROPS; i++) {
		CHECK(device_read(&device, i % PAGES) == i % PAGES);
		pthread_mutex_lock(&device.lock);
		dropped = device.dropped;
		pthread_mutex_unlock(&device.lock);
		if (i >= READS && i % PAGES == 0)
			sched_yield();
	}
	__atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
}

/* --- the same step by step; nobody else runs any more */

static void the_sequence_tells(void)
{
	unsigned long seq, calls;

	CHECK(device_read(&device, 0) == 0);
	seq = mmu_interval_read_begin(&device.sub);
	calls = device.calls;
	CHECK(mm_migrate_range(mm, BEYOND, PAGE_SIZE) == 1);
	CHECK(device.calls == calls && !mmu_interval_check_retry(&device.sub, seq));
	CHECK(mm_zap_range(mm, BASE, PAGE_SIZE) == 1);
	CHECK(device.calls == calls + 1 && device.pfn[0] == INVALID_PFN);
	CHECK(mmu_interval_check_retry(&device.sub, seq)); /* without the lock: give up early */
	pthread_mutex_lock(&device.lock);
	CHECK(mmu_interval_read_retry(&device.sub, seq));
	pthread_mutex_unlock(&device.lock);
}

static void refuse_what_may_not_sleep(void)
{
	struct mmu_notifier_range range;

	mmu_notifier_range_init(&range, MMU_NOTIFY_CLEAR, 0, mm, BASE, BASE + PAGE_SIZE);
	mmap_read_lock(mm);
	pthread_mutex_lock(&device.lock);
	CHECK(mmu_notifier_invalidate_range_start_nonblock(&range) == -EAGAIN);
	pthread_mutex_unlock(&device.lock);
	/* No window was opened: there is none to close, and none to wait for. */
	CHECK(mmu_notifier_invalidate_range_start_nonblock(&range) == 0);
	mmu_notifier_invalidate_range_end(&range);
	mmap_read_unlock(mm);
}

static void make_memory(void)
{
	struct address_space *object;

	CHECK(phys_create(&phys, 4 * PAGES) == 0);
	mm = mm_alloc(phys);
	object = address_space_create(phys, PAGES + 1);
	CHECK(mm && object);
	CHECK(mm_mmap(mm, BASE, LEN + PAGE_SIZE, MM_PROT_READ | MM_PROT_WRITE, object, 0) == 0);
	address_space_put(object); /* the mapping keeps it */
	for (uint64_t i = 0; i <= PAGES; i++)
		CHECK(mm_write(mm, BASE + i * PAGE_SIZE, &i, sizeof(i)) == 0);
}

int main(void)
{
	make_memory();
	CHECK(pthread_mutex_init(&device.lock, NULL) == 0);
	for (unsigned int i = 0; i < PAGES; i++)
		device.pfn[i] = INVALID_PFN;
	CHECK(mmu_interval_notifier_insert(&device.sub, mm, BASE, 0, &device_ops) == -EOVERFLOW);
	CHECK(mmu_interval_notifier_insert(&device.sub, mm, BASE, LEN, &device_ops) == 0);

	read_while_pages_move();
	the_sequence_tells();
	refuse_what_may_not_sleep();

	/* No callback runs after this, so the device could be freed. */
	mmu_interval_notifier_remove(&device.sub);
	mmput(mm);
	CHECK(phys_nr_free(phys) == 4 * PAGES);
	phys_destroy(phys);
	printf("interval: %lu entries dropped, %lu faults begun again, no read went wrong\n",
	       device.dropped, device.retries);
	return 0;
}
