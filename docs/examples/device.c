/* SPDX-License-Identifier: 0BSD */
/*
 * A device with memory of its own: pages go there, are worked on by the device, and come back when
 * the host wants them. And a page that the device has for itself where it is.
 */
#include <errno.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <gnomon/device.h>
#include <gnomon/hmm.h>

#define BASE  0x100000UL
#define PAGES 4
#define LEN   (PAGES * PAGE_SIZE)

#define CHECK(what)                                                                        \
	do {                                                                               \
		if (!(what)) {                                                             \
			fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #what); \
			exit(1);                                                           \
		}                                                                          \
	} while (0)

struct device {
	struct mmu_interval_notifier sub;
	struct device_memory *memory;
	pthread_mutex_t lock;  /* the driver's: the table, and the sequence of sub */
	uint64_t table[PAGES]; /* as hmm_range_fault() has them; 0: fault */
};

static struct phys *phys;
static struct mm_struct *mm;
static struct device device;

static void drop(struct device *d, hva_t start, hva_t end)
{
	for (unsigned int i = 0; i < PAGES; i++) {
		if (start <= BASE + i * PAGE_SIZE && BASE + i * PAGE_SIZE < end)
			d->table[i] = 0;
	}
}

static bool invalidate(struct mmu_interval_notifier *sub, const struct mmu_notifier_range *range,
		       unsigned long seq)
{
	struct device *d = (struct device *)((char *)sub - offsetof(struct device, sub));

	/* We want a page for ourselves: it stays where it is, nothing that we know gets wrong. */
	if (range->event == MMU_NOTIFY_EXCLUSIVE && range->owner == d)
		return true;
	if (mmu_notifier_range_blockable(range))
		pthread_mutex_lock(&d->lock);
	else if (pthread_mutex_trylock(&d->lock))
		return false;
	mmu_interval_set_seq(sub, seq);
	/* We move pages: those that really go are dropped when they are copied. */
	if (range->event != MMU_NOTIFY_MIGRATE || range->owner != d)
		drop(d, range->start, range->end);
	pthread_mutex_unlock(&d->lock);
	return true;
}

static const struct mmu_interval_notifier_ops notifier_ops = {.invalidate = invalidate};

static void drop_one(struct device_memory *memory, hva_t hva)
{
	struct device *d = (struct device *)device_memory_owner(memory);

	pthread_mutex_lock(&d->lock);
	drop(d, hva, hva + PAGE_SIZE);
	pthread_mutex_unlock(&d->lock);
}

static void copy_to_device(struct device_memory *memory, struct mm_struct *of, hva_t hva, pfn_t pfn,
			   const void *ram)
{
	(void)of; /* there is only one */
	drop_one(memory, hva);
	memcpy(device_memory_map(memory, pfn), ram, PAGE_SIZE);
}

static void copy_to_ram(struct device_memory *memory, struct mm_struct *of, hva_t hva, pfn_t pfn,
			void *ram)
{
	(void)of;
	drop_one(memory, hva);
	memcpy(ram, device_memory_map(memory, pfn), PAGE_SIZE);
}

static const struct device_memory_ops memory_ops = {copy_to_device, copy_to_ram};

/* Fill in the whole table, wherever the pages are. */
static void look_up(struct device *d)
{
	uint64_t found[PAGES] = {0};
	struct hmm_range range = {
		.notifier = &d->sub,
		.start = BASE,
		.end = BASE + LEN,
		.hmm_pfns = found,
		.default_flags = HMM_PFN_REQ_FAULT | HMM_PFN_REQ_WRITE,
		.dev_private_owner = d,
	};
	bool done = false;

	while (!done) {
		int ret;

		range.notifier_seq = mmu_interval_read_begin(&d->sub);
		mmap_read_lock(mm);
		ret = hmm_range_fault(&range);
		mmap_read_unlock(mm);
		CHECK(!ret || ret == -EBUSY);
		pthread_mutex_lock(&d->lock);
		done = !ret && !mmu_interval_read_retry(&d->sub, range.notifier_seq);
		if (done)
			memcpy(d->table, found, sizeof(found));
		pthread_mutex_unlock(&d->lock);
	}
}

static unsigned long *contents(struct device *d, uint64_t entry)
{
	pfn_t pfn = hmm_pfn_to_pfn(entry);

	return (unsigned long *)(entry & HMM_PFN_DEVICE ? device_memory_map(d->memory, pfn)
							: phys_map(phys, pfn));
}

/* A read, an addition and a write: one step to everyone else. Nobody else runs here to disturb. */
static void add_alone(struct device *d, hva_t addr, unsigned long what)
{
	unsigned long seq = mmu_interval_read_begin(&d->sub);
	pfn_t pfn;

	mmap_read_lock(mm);
	CHECK(make_device_exclusive(mm, addr, d, &pfn) == 0);
	mmap_read_unlock(mm);
	pthread_mutex_lock(&d->lock);
	CHECK(!mmu_interval_read_retry(&d->sub, seq));
	*(unsigned long *)phys_map(phys, pfn) += what;
	pthread_mutex_unlock(&d->lock);
	put_device_exclusive(mm, pfn);
}

int main(void)
{
	unsigned long value;

	CHECK(phys_create(&phys, 64) == 0);
	CHECK((mm = mm_alloc(phys)) != NULL);
	CHECK(mm_mmap(mm, BASE, LEN, MM_PROT_READ | MM_PROT_WRITE, NULL, 0) == 0);
	pthread_mutex_init(&device.lock, NULL);
	CHECK(mmu_interval_notifier_insert(&device.sub, mm, BASE, LEN, &notifier_ops) == 0);
	CHECK(device_memory_create(phys, PAGES, &memory_ops, &device, &device.memory) == 0);

	for (unsigned long i = 0; i < PAGES; i++)
		CHECK(mm_write(mm, BASE + i * PAGE_SIZE, &i, sizeof(i)) == 0);
	CHECK(mm_migrate_to_device(mm, BASE, LEN, device.memory) == PAGES);
	CHECK(phys_nr_free(phys) == 64 && device_memory_nr_free(device.memory) == 0);

	look_up(&device);
	for (unsigned int i = 0; i < PAGES; i++) {
		CHECK(device.table[i] & HMM_PFN_DEVICE);
		*contents(&device, device.table[i]) += 100;
	}

	/* One page is wanted by the host, and comes back; the device has the others still. */
	CHECK(mm_read(mm, BASE + PAGE_SIZE, &value, sizeof(value)) == 0);
	CHECK(value == 101);
	CHECK(device.table[0] && !device.table[1]);
	CHECK(device_memory_nr_free(device.memory) == 1);

	add_alone(&device, BASE + PAGE_SIZE, 1000);
	CHECK(mm_read(mm, BASE + PAGE_SIZE, &value, sizeof(value)) == 0);
	CHECK(value == 1101);
	CHECK(mm_migrate_to_ram(mm, BASE, LEN) == PAGES - 1);

	mmu_interval_notifier_remove(&device.sub);
	device_memory_destroy(device.memory);
	mmput(mm);
	phys_destroy(phys);
	printf("%d pages went to the device and came back\n", PAGES);
	return 0;
}
