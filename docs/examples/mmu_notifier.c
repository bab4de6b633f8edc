/* SPDX-License-Identifier: 0BSD */
/*
 * MMU notifiers: a second copy of a page table, as a device or a hypervisor keeps one, that is
 * never wrong although another thread moves the pages all the time.
 *
 * Each page holds its own number. The main thread reads pages through its copy, straight from the
 * frames; a read through an entry that is out of date finds poison, or another page's number.
 */
#include <pthread.h>
#include <sched.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <gnomon/mmu_notifier.h>

#define BASE  0x100000UL
#define PAGES 8
#define END   (BASE + PAGES * PAGE_SIZE)
#define READS 2000
#define DROPS 200

#define CHECK(what)                                                                        \
	do {                                                                               \
		if (!(what)) {                                                             \
			fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #what); \
			exit(1);                                                           \
		}                                                                          \
	} while (0)

struct mirror {
	struct mmu_notifier mn;
	pthread_mutex_t lock;  /* all below */
	pfn_t pfn[PAGES];      /* the copy; INVALID_PFN: ask the mm */
	unsigned int open;     /* windows in which no entry may be made */
	unsigned long windows; /* that have ended */
	unsigned long faults;
	unsigned long dropped;
	unsigned int releases;
};

static struct phys *phys;
static struct mm_struct *mm;
static struct mirror mirror;
static int stop;

static struct mirror *mirror_of(struct mmu_notifier *mn)
{
	return (struct mirror *)((char *)mn - offsetof(struct mirror, mn));
}

/* --- what the mm calls */

static void mirror_drop(struct mirror *m, hva_t start, hva_t end)
{
	for (unsigned int i = 0; i < PAGES; i++) {
		hva_t hva = BASE + i * PAGE_SIZE;

		if (start <= hva && hva < end && m->pfn[i] != INVALID_PFN) {
			m->pfn[i] = INVALID_PFN;
			m->dropped++;
		}
	}
}

static void mirror_release(struct mmu_notifier *mn, struct mm_struct *gone)
{
	struct mirror *m = mirror_of(mn);

	(void)gone;
	pthread_mutex_lock(&m->lock);
	mirror_drop(m, BASE, END);
	m->releases++;
	pthread_mutex_unlock(&m->lock);
}

/* From here to the end of the window nobody may use the old entries, nor make new ones. */
static int mirror_start(struct mmu_notifier *mn, const struct mmu_notifier_range *range)
{
	struct mirror *m = mirror_of(mn);

	pthread_mutex_lock(&m->lock);
	m->open++;
	mirror_drop(m, range->start, range->end);
	pthread_mutex_unlock(&m->lock);
	return 0;
}

static void mirror_end(struct mmu_notifier *mn, const struct mmu_notifier_range *range)
{
	struct mirror *m = mirror_of(mn);

	(void)range;
	pthread_mutex_lock(&m->lock);
	m->open--;
	m->windows++;
	pthread_mutex_unlock(&m->lock);
}

static const struct mmu_notifier_ops mirror_ops = {
	.release = mirror_release,
	.invalidate_range_start = mirror_start,
	.invalidate_range_end = mirror_end,
};

/* --- what uses the copy */

/*
 * Returns with the lock held and an entry for page @i. Asking the mm may sleep, and so is done
 * without the lock; the answer counts only if no window was open before or opened meanwhile.
 */
static void mirror_fault(struct mirror *m, unsigned int i)
{
	unsigned long windows;
	bool writable, good, slow;
	pfn_t pfn;

	pthread_mutex_lock(&m->lock);
	slow = m->pfn[i] == INVALID_PFN && m->faults++ % 16 == 0;
	while (m->pfn[i] == INVALID_PFN) {
		windows = m->windows;
		good = !m->open;
		pthread_mutex_unlock(&m->lock);
		if (good)
			CHECK(hva_to_pfn(mm, BASE + i * PAGE_SIZE, false, &pfn, &writable) == 0);
		if (slow || !good)
			sched_yield(); /* it may take long, and the page move */
		slow = false;
		pthread_mutex_lock(&m->lock);
		if (good && !m->open && m->windows == windows)
			m->pfn[i] = pfn;
	}
}

static uint64_t mirror_read(struct mirror *m, unsigned int i)
{
	uint64_t value;

	mirror_fault(m, i);
	value = __atomic_load_n((uint64_t *)phys_map(phys, m->pfn[i]), __ATOMIC_RELAXED);
	pthread_mutex_unlock(&m->lock);
	return value;
}

/* Both threads give way to each other: see interval.c. */
static void *mover(void *unused)
{
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		CHECK(mm_migrate_range(mm, BASE, END - BASE) >= 0);
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
		CHECK(mirror_read(&mirror, i % PAGES) == i % PAGES);
		pthread_mutex_lock(&mirror.lock);
		dropped = mirror.dropped;
		pthread_mutex_unlock(&mirror.lock);
		if (i >= READS && i % PAGES == 0)
			sched_yield();
	}
	__atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
}

/* Whoever changes the page table opens a window around the change; we change nothing. */
static void open_a_window(void)
{
	struct mmu_notifier_range range;
	unsigned long dropped, windows;

	CHECK(mirror_read(&mirror, 0) == 0 && mirror_read(&mirror, 1) == 1);
	dropped = mirror.dropped;
	windows = mirror.windows;
	mmap_read_lock(mm);
	mmu_notifier_range_init(&range, MMU_NOTIFY_CLEAR, MMU_NOTIFIER_RANGE_BLOCKABLE, mm, BASE,
				BASE + PAGE_SIZE);
	mmu_notifier_invalidate_range_start(&range);
	CHECK(mirror.open == 1 && mirror.pfn[0] == INVALID_PFN && mirror.pfn[1] != INVALID_PFN);
	mmu_notifier_invalidate_range_end(&range);
	mmap_read_unlock(mm);
	CHECK(mirror.dropped == dropped + 1 && mirror.windows == windows + 1 && mirror.open == 0);
}

static void make_memory(void)
{
	CHECK(phys_create(&phys, 4 * PAGES) == 0);
	mm = mm_alloc(phys);
	CHECK(mm);
	CHECK(mm_mmap(mm, BASE, END - BASE, MM_PROT_READ | MM_PROT_WRITE, NULL, 0) == 0);
	for (uint64_t i = 0; i < PAGES; i++)
		CHECK(mm_write(mm, BASE + i * PAGE_SIZE, &i, sizeof(i)) == 0);
}

int main(void)
{
	make_memory();
	CHECK(pthread_mutex_init(&mirror.lock, NULL) == 0);
	for (unsigned int i = 0; i < PAGES; i++)
		mirror.pfn[i] = INVALID_PFN;
	mirror.mn.ops = &mirror_ops;
	CHECK(mmu_notifier_register(&mirror.mn, mm) == 0);
	CHECK(mm_has_notifiers(mm));

	read_while_pages_move();
	open_a_window();

	/* No callback runs after this, so the mirror could be freed. */
	mmu_notifier_unregister(&mirror.mn, mm);
	CHECK(mirror.releases == 1);
	mmput(mm);
	phys_destroy(phys);
	printf("mmu_notifier: %lu entries dropped in %lu windows, no read went wrong\n",
	       mirror.dropped, mirror.windows);
	return 0;
}
