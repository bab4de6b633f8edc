/* SPDX-License-Identifier: 0BSD */
/*
 * Invalidation in two passes: the first tells each device to stop using the range, the second waits
 * until it has, so that many devices take as long as the slowest, and not as all of them.
 *
 * A device's engine takes entries from its table and reads the frames without any lock. So a page
 * may go only when the engine has finished what it was doing. Each page holds its own number, and a
 * read that comes too late finds poison.
 */
#include <pthread.h>
#include <sched.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <gnomon/mmu_interval_notifier.h>

#define BASE	0x100000UL
#define PAGES	4
#define LEN	(PAGES * PAGE_SIZE)
#define DEVICES 3
#define WAITS	100 /* for an engine: then enough has happened */

#define CHECK(what)                                                                        \
	do {                                                                               \
		if (!(what)) {                                                             \
			fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #what); \
			exit(1);                                                           \
		}                                                                          \
	} while (0)

struct device {
	struct mmu_interval_notifier sub;
	pthread_mutex_t lock; /* all below */
	pthread_cond_t idle;
	pfn_t pfn[PAGES];
	bool busy;	   /* the engine uses an entry that it has taken from the table */
	unsigned long job; /* how many it has begun */
};

/* One for each call, as windows overlap; freed by the second pass. */
struct flush {
	struct mmu_interval_notifier_finish finish;
	struct device *device;
	unsigned long job, seq;
};

static struct phys *phys;
static struct mm_struct *mm;
static struct device devices[DEVICES];
static int stop;
/* Only the main thread invalidates here. */
static unsigned long finished_seq; /* the window whose second passes have begun */
static unsigned long begun, waits;

/* --- what the mm calls */

static bool device_start(struct mmu_interval_notifier *sub, const struct mmu_notifier_range *range,
			 unsigned long seq, struct mmu_interval_notifier_finish **finish)
{
	struct device *d = (struct device *)((char *)sub - offsetof(struct device, sub));
	struct flush *flush;

	if (mmu_notifier_range_blockable(range))
		pthread_mutex_lock(&d->lock);
	else if (pthread_mutex_trylock(&d->lock))
		return false;
	CHECK(seq != finished_seq); /* all first passes of a window come before the second ones */
	begun++;
	mmu_interval_set_seq(sub, seq);
	for (unsigned int i = 0; i < PAGES; i++) {
		hva_t hva = BASE + i * PAGE_SIZE;

		if (range->start <= hva && hva < range->end)
			d->pfn[i] = INVALID_PFN;
	}
	if (d->busy) { /* otherwise there is nothing to wait for, and no second pass */
		flush = (struct flush *)malloc(sizeof(*flush));
		CHECK(flush);
		flush->device = d;
		flush->job = d->job;
		flush->seq = seq;
		*finish = &flush->finish;
	}
	pthread_mutex_unlock(&d->lock);
	return true;
}

/* The job may have ended long ago, while we waited for other devices. */
static void device_finish(struct mmu_interval_notifier_finish *finish)
{
	struct flush *flush = (struct flush *)((char *)finish - offsetof(struct flush, finish));
	struct device *d = flush->device;

	CHECK(finish->notifier == &d->sub);
	finished_seq = flush->seq;
	pthread_mutex_lock(&d->lock);
	while (d->busy && d->job == flush->job)
		pthread_cond_wait(&d->idle, &d->lock);
	pthread_mutex_unlock(&d->lock);
	free(flush);
	waits++;
}

/* With a first pass it is that and the second which are called, and invalidate need not be. */
static const struct mmu_interval_notifier_ops device_ops = {
	.invalidate_start = device_start,
	.invalidate_finish = device_finish,
};

/* --- what the engine does */

/* As in interval.c. */
static void device_fault(struct device *d, unsigned int i)
{
	unsigned long seq;
	bool writable;
	pfn_t pfn;

	do {
		pthread_mutex_unlock(&d->lock);
		seq = mmu_interval_read_begin(&d->sub);
		CHECK(hva_to_pfn(mm, BASE + i * PAGE_SIZE, false, &pfn, &writable) == 0);
		sched_yield(); /* it may take long */
		pthread_mutex_lock(&d->lock);
	} while (mmu_interval_read_retry(&d->sub, seq));
	d->pfn[i] = pfn;
}

static void *engine(void *arg)
{
	struct device *d = (struct device *)arg;
	const uint64_t *page;

	for (unsigned int i = 0; !__atomic_load_n(&stop, __ATOMIC_RELAXED); i = (i + 1) % PAGES) {
		pthread_mutex_lock(&d->lock);
		if (d->pfn[i] == INVALID_PFN)
			device_fault(d, i);
		page = (const uint64_t *)phys_map(phys, d->pfn[i]);
		d->busy = true;
		d->job++;
		pthread_mutex_unlock(&d->lock);

		for (unsigned int reads = 0; reads < 20; reads++) {
			CHECK(__atomic_load_n(page, __ATOMIC_RELAXED) == i);
			sched_yield(); /* it takes long, too */
		}

		pthread_mutex_lock(&d->lock);
		d->busy = false;
		pthread_cond_broadcast(&d->idle);
		pthread_mutex_unlock(&d->lock);
	}
	return NULL;
}

static unsigned long jobs_begun(void)
{
	unsigned long sum = 0;

	for (int i = 0; i < DEVICES; i++) {
		pthread_mutex_lock(&devices[i].lock);
		sum += devices[i].job;
		pthread_mutex_unlock(&devices[i].lock);
	}
	return sum;
}

static void make_memory(void)
{
	CHECK(phys_create(&phys, 4 * PAGES) == 0);
	mm = mm_alloc(phys);
	CHECK(mm);
	CHECK(mm_mmap(mm, BASE, LEN, MM_PROT_READ | MM_PROT_WRITE, NULL, 0) == 0);
	for (uint64_t i = 0; i < PAGES; i++)
		CHECK(mm_write(mm, BASE + i * PAGE_SIZE, &i, sizeof(i)) == 0);
}

static void device_init(struct device *d)
{
	CHECK(pthread_mutex_init(&d->lock, NULL) == 0 && pthread_cond_init(&d->idle, NULL) == 0);
	for (unsigned int i = 0; i < PAGES; i++)
		d->pfn[i] = INVALID_PFN;
	CHECK(mmu_interval_notifier_insert(&d->sub, mm, BASE, LEN, &device_ops) == 0);
}

int main(void)
{
	pthread_t threads[DEVICES];
	unsigned long windows = 0, last;

	make_memory();
	for (int i = 0; i < DEVICES; i++)
		device_init(&devices[i]);
	for (int i = 0; i < DEVICES; i++)
		CHECK(pthread_create(&threads[i], NULL, engine, &devices[i]) == 0);

	while (waits < WAITS) {
		last = jobs_begun();
		CHECK(mm_migrate_range(mm, BASE, LEN) >= 0);
		windows++;
		/* Engines that only fault show nothing. */
		while (jobs_begun() == last)
			sched_yield();
	}
	__atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
	for (int i = 0; i < DEVICES; i++)
		pthread_join(threads[i], NULL);
	CHECK(begun == DEVICES * windows);

	for (int i = 0; i < DEVICES; i++)
		mmu_interval_notifier_remove(&devices[i].sub);
	mmput(mm);
	CHECK(phys_nr_free(phys) == 4 * PAGES);
	phys_destroy(phys);
	printf("two_pass: %lu windows, %lu times an engine was waited for\n", windows, waits);
	return 0;
}
