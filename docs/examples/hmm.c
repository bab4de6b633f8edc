/* SPDX-License-Identifier: 0BSD */
/*
 * HMM: a device that mirrors a part of an address space and writes to it, a range at a time, while
 * another thread moves the pages. No write may be lost: each is counted, and at the end the pages
 * hold as many.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <gnomon/hmm.h>

#define BASE	  0x100000UL
#define PAGES	  8
#define LEN	  (PAGES * PAGE_SIZE)
#define HOLE	  (BASE + LEN)	     /* nothing is mapped there, */
#define READ_ONLY (HOLE + PAGE_SIZE) /* and here nothing to be written */
#define MIRRORED  (LEN + 2 * PAGE_SIZE)
#define WRITES	  2000
#define DROPS	  200
#define TRIES	  100

#define CHECK(what)                                                                        \
	do {                                                                               \
		if (!(what)) {                                                             \
			fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #what); \
			exit(1);                                                           \
		}                                                                          \
	} while (0)

struct device {
	struct mmu_interval_notifier sub;
	pthread_mutex_t lock;  /* the driver's: all below, and the sequence of sub */
	uint64_t table[PAGES]; /* frames with HMM_PFN_WRITE; 0: fault */
	unsigned long dropped;
	unsigned long faults; /* of the one thread that has them */
};

static struct phys *phys;
static struct mm_struct *mm;
static struct device device;
static int stop;

static bool device_invalidate(struct mmu_interval_notifier *sub,
			      const struct mmu_notifier_range *range, unsigned long seq)
{
	struct device *d = (struct device *)((char *)sub - offsetof(struct device, sub));

	if (mmu_notifier_range_blockable(range))
		pthread_mutex_lock(&d->lock);
	else if (pthread_mutex_trylock(&d->lock))
		return false;
	mmu_interval_set_seq(sub, seq);
	for (unsigned int i = 0; i < PAGES; i++) {
		hva_t hva = BASE + i * PAGE_SIZE;

		if (range->start <= hva && hva < range->end && d->table[i]) {
			d->table[i] = 0;
			d->dropped++;
		}
	}
	pthread_mutex_unlock(&d->lock);
	return true;
}

static const struct mmu_interval_notifier_ops device_ops = {
	.invalidate = device_invalidate,
};

/* The locks of the mm are never taken inside the driver's: invalidate takes that under them. */
static int fault_locked(struct hmm_range *range)
{
	int ret;

	if (!mmget_not_zero(mm))
		return -EFAULT; /* it has no pages any more */
	mmap_read_lock(mm);
	ret = hmm_range_fault(range);
	mmap_read_unlock(mm);
	mmput(mm);
	return ret;
}

/* Fills the whole table. -EBUSY after so many tries: nothing else ends them while pages move. */
static int device_fault(struct device *d)
{
	uint64_t pfns[PAGES];
	struct hmm_range range = {
		.notifier = &d->sub,
		.start = BASE,
		.end = BASE + LEN,
		.hmm_pfns = pfns,
		.default_flags = HMM_PFN_REQ_FAULT | HMM_PFN_REQ_WRITE,
		.pfn_flags_mask = 0, /* what is in pfns asks for nothing */
	};
	bool slow = d->faults++ % 4 == 0;
	int ret = -EBUSY;

	for (int tries = 0; tries < TRIES && ret == -EBUSY; tries++) {
		range.notifier_seq = mmu_interval_read_begin(&d->sub);
		ret = fault_locked(&range);
		if (slow && tries == 0)
			sched_yield(); /* it may take long, and the pages move */
		if (ret)
			continue;
		pthread_mutex_lock(&d->lock);
		if (mmu_interval_read_retry(&d->sub, range.notifier_seq))
			ret = -EBUSY;
		for (unsigned int i = 0; i < PAGES && !ret; i++) {
			CHECK((pfns[i] & HMM_PFN_VALID) && (pfns[i] & HMM_PFN_WRITE));
			d->table[i] = pfns[i];
		}
		pthread_mutex_unlock(&d->lock);
	}
	return ret;
}

/* False: there was no entry for the page. Without the lock the entry could go under our write. */
static bool device_add(struct device *d, unsigned int i)
{
	uint64_t entry;

	pthread_mutex_lock(&d->lock);
	entry = d->table[i];
	if (entry)
		__atomic_fetch_add((uint64_t *)phys_map(phys, hmm_pfn_to_pfn(entry)), 1,
				   __ATOMIC_RELAXED);
	pthread_mutex_unlock(&d->lock);
	return entry;
}

static unsigned long device_dropped(struct device *d)
{
	unsigned long dropped;

	pthread_mutex_lock(&d->lock);
	dropped = d->dropped;
	pthread_mutex_unlock(&d->lock);
	return dropped;
}

/* Both threads give way to each other: see interval.c. */
static void *mover(void *unused)
{
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		CHECK(mm_migrate_range(mm, BASE, LEN) >= 0);
		sched_yield();
	}
	return unused;
}

static void write_while_pages_move(void)
{
	uint64_t written[PAGES] = {0}, value;
	unsigned long writes = 0;
	pthread_t thread;
	int ret;

	CHECK(pthread_create(&thread, NULL, mover, NULL) == 0);
	/* Until it has written so much, and lost so many entries, that it would have gone wrong. */
	for (unsigned int i = 0; writes < WRITES || device_dropped(&device) < DROPS;
	     i = (i + 1) % PAGES) {
		if (writes >= WRITES && i == 0)
			sched_yield();
		if (device_add(&device, i)) {
			written[i]++;
			writes++;
			continue;
		}
		ret = device_fault(&device);
		CHECK(ret == 0 || ret == -EBUSY); /* then we come back to it */
	}
	__atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);

	for (unsigned int i = 0; i < PAGES; i++) {
		CHECK(mm_read(mm, BASE + i * PAGE_SIZE, &value, sizeof(value)) == 0);
		CHECK(value == written[i]);
	}
}

/* Nobody else runs any more. What is asked for, and what then is there: */
static void ask(hva_t start, unsigned long flags, int error, uint64_t found)
{
	uint64_t entry = 0;
	struct hmm_range range = {
		.notifier = &device.sub,
		.notifier_seq = mmu_interval_read_begin(&device.sub),
		.start = start,
		.end = start + PAGE_SIZE,
		.hmm_pfns = &entry,
		.default_flags = flags,
	};

	CHECK(fault_locked(&range) == error);
	CHECK((entry & ~HMM_PFN_MASK) == found);
	if (found & HMM_PFN_VALID)
		CHECK(hmm_pfn_to_pfn(entry) == mm_lookup_pfn(mm, start));
	CHECK(hmm_pfn_to_map_order(entry) == 0);
}

static void snapshots_and_errors(void)
{
	CHECK(mm_zap_range(mm, BASE, PAGE_SIZE) == 1);
	ask(BASE, 0, 0, 0); /* a snapshot faults nothing in */
	ask(BASE, HMM_PFN_REQ_FAULT | HMM_PFN_REQ_WRITE, 0, HMM_PFN_VALID | HMM_PFN_WRITE);
	ask(BASE, 0, 0, HMM_PFN_VALID | HMM_PFN_WRITE);
	ask(HOLE, 0, 0, HMM_PFN_ERROR);
	ask(HOLE, HMM_PFN_REQ_FAULT, -EFAULT, 0);
	ask(READ_ONLY, HMM_PFN_REQ_FAULT, 0, HMM_PFN_VALID);
	ask(READ_ONLY, HMM_PFN_REQ_FAULT | HMM_PFN_REQ_WRITE, -EPERM, 0);
	ask(BASE + MIRRORED, 0, -EINVAL, 0); /* nobody would tell us of what is there */
}

/* A look that is out of date already ends early. */
static void busy(void)
{
	uint64_t entry = 0;
	struct hmm_range range = {
		.notifier = &device.sub,
		.notifier_seq = mmu_interval_read_begin(&device.sub),
		.start = BASE,
		.end = BASE + PAGE_SIZE,
		.hmm_pfns = &entry,
	};

	CHECK(mm_zap_range(mm, BASE, PAGE_SIZE) == 1);
	CHECK(fault_locked(&range) == -EBUSY);
}

int main(void)
{
	CHECK(phys_create(&phys, 4 * PAGES) == 0);
	mm = mm_alloc(phys);
	CHECK(mm);
	CHECK(mm_mmap(mm, BASE, LEN, MM_PROT_READ | MM_PROT_WRITE, NULL, 0) == 0);
	CHECK(mm_mmap(mm, READ_ONLY, PAGE_SIZE, MM_PROT_READ, NULL, 0) == 0);
	CHECK(pthread_mutex_init(&device.lock, NULL) == 0);
	CHECK(mmu_interval_notifier_insert(&device.sub, mm, BASE, MIRRORED, &device_ops) == 0);

	write_while_pages_move();
	snapshots_and_errors();
	busy();

	mmu_interval_notifier_remove(&device.sub);
	mmput(mm);
	CHECK(phys_nr_free(phys) == 4 * PAGES);
	phys_destroy(phys);
	printf("hmm: %lu entries dropped, no write was lost\n", device.dropped);
	return 0;
}
