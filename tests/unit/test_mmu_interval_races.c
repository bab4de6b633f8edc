/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The loop of <gnomon/mmu_interval_notifier.h> against windows: the orders that the comment in
 * notifier/mmu_interval_notifier.c draws, one by one, and then all at once.
 */
#include <stdlib.h>

#include "tests/support/interval_fixture.h"
#include "tests/support/mm_fixture.h"

/* ---- one by one ---- */

/* A secondary with one entry, of page 0. */
struct secondary {
	struct mmu_interval_notifier sub;
	struct host h;
	spinlock_t lock;
	pfn_t entry;		/* under lock */
	pfn_t in_primary;	/* when it was invalidated last */
	struct park *looked_up; /* the first time */
	atomic_t rounds;
	struct interval_thread t;
};

static bool drop_entry(struct mmu_interval_notifier *sub, const struct mmu_notifier_range *range,
		       unsigned long cur_seq)
{
	struct secondary *s = container_of(sub, struct secondary, sub);

	(void)range;
	spin_lock(&s->lock);
	mmu_interval_set_seq(sub, cur_seq);
	s->entry = INVALID_PFN;
	s->in_primary = mm_lookup_pfn(s->h.mm, HVA);
	spin_unlock(&s->lock);
	return true;
}

static const struct mmu_interval_notifier_ops secondary_ops = {.invalidate = drop_entry};

static void secondary_init(struct secondary *s)
{
	*s = (struct secondary){.entry = INVALID_PFN};
	spin_lock_init(&s->lock);
	host_init(&s->h);
	expect_eq(mmu_interval_notifier_insert(&s->sub, s->h.mm, HVA, PAGE_SIZE, &secondary_ops),
		  0);
}

static void secondary_destroy(struct secondary *s)
{
	mmu_interval_notifier_remove(&s->sub);
	host_destroy(&s->h);
}

static void fault(struct secondary *s)
{
	unsigned long seq;
	bool writable;
	pfn_t pfn;

again:
	seq = mmu_interval_read_begin(&s->sub);
	expect_eq(hva_to_pfn(s->h.mm, HVA, true, &pfn, &writable), 0);
	if (atomic_inc_return(&s->rounds) == 1 && s->looked_up)
		park_enter(s->looked_up);
	spin_lock(&s->lock);
	if (mmu_interval_read_retry(&s->sub, seq)) {
		spin_unlock(&s->lock);
		goto again;
	}
	s->entry = pfn;
	spin_unlock(&s->lock);
}

static void run_fault(void *arg)
{
	struct secondary *s = arg;

	fault(s);
	atomic_set_release(&s->t.done, 1);
}

/*
 * The ladder as it is drawn: what was looked up is out of date when the lock is taken, and the next
 * round waits until the pages have changed.
 */
TEST(mmu_interval_races, lookup_before_the_window)
{
	struct mmu_notifier_range range;
	struct secondary s;
	struct park park;
	pfn_t old;

	secondary_init(&s);
	park_init(&park);
	s.looked_up = &park;
	old = mm_lookup_pfn(s.h.mm, HVA);
	expect_eq(kthread_run(&s.t.thread, "fault", run_fault, &s), 0);
	park_wait(&park, 1);
	open_pages(&s.h, &range, 0, 1);
	expect_eq(s.in_primary, old);
	park_release(&park);
	until_waiting(&s.h, 1, &s.t);
	expect_eq(atomic_read(&s.rounds), 1);
	expect_eq(s.entry, INVALID_PFN);
	/* A window inside this one, which is what keeps the reader waiting. */
	expect_eq(mm_zap_range(s.h.mm, HVA, PAGE_SIZE), 1);
	until_waiting(&s.h, 1, &s.t);
	close_pages(&range);
	kthread_join(&s.t.thread);
	expect_eq(atomic_read(&s.rounds), 2);
	expect_ne(s.entry, old);
	expect_eq(s.entry, mm_lookup_pfn(s.h.mm, HVA));
	secondary_destroy(&s);
}

/* The whole window fits between the lookup and the lock: the number is even again, and yet. */
TEST(mmu_interval_races, window_between_lookup_and_lock)
{
	struct secondary s;
	struct park park;
	pfn_t old;

	secondary_init(&s);
	park_init(&park);
	s.looked_up = &park;
	old = mm_lookup_pfn(s.h.mm, HVA);
	expect_eq(kthread_run(&s.t.thread, "fault", run_fault, &s), 0);
	park_wait(&park, 1);
	expect_eq(mm_zap_range(s.h.mm, HVA, PAGE_SIZE), 1);
	expect_eq(global_seq(&s.h), 4);
	park_release(&park);
	kthread_join(&s.t.thread);
	expect_eq(atomic_read(&s.rounds), 2);
	expect_ne(s.entry, old);
	expect_eq(s.entry, mm_lookup_pfn(s.h.mm, HVA));
	secondary_destroy(&s);
}

/* The reader was first with the lock: it uses the old page, which is there until start returns. */
TEST(mmu_interval_races, lock_before_the_window)
{
	struct mmu_notifier_range range;
	struct secondary s;
	pfn_t old;

	secondary_init(&s);
	old = mm_lookup_pfn(s.h.mm, HVA);
	fault(&s);
	expect_eq(s.entry, old);
	open_pages(&s.h, &range, 0, 1);
	expect_eq(s.in_primary, old);
	expect_eq(s.entry, INVALID_PFN);
	close_pages(&range);
	secondary_destroy(&s);
}

/* A reader that comes in the middle does not begin. */
TEST(mmu_interval_races, begin_inside_the_window)
{
	struct mmu_notifier_range range;
	struct secondary s;

	secondary_init(&s);
	open_pages(&s.h, &range, 0, 1);
	expect_eq(kthread_run(&s.t.thread, "fault", run_fault, &s), 0);
	until_waiting(&s.h, 1, &s.t);
	expect_eq(atomic_read(&s.rounds), 0);
	expect_eq(mm_zap_range(s.h.mm, HVA, PAGE_SIZE), 1);
	until_waiting(&s.h, 1, &s.t);
	close_pages(&range);
	kthread_join(&s.t.thread);
	expect_eq(atomic_read(&s.rounds), 1);
	expect_eq(s.entry, mm_lookup_pfn(s.h.mm, HVA));
	secondary_destroy(&s);
}

/* N-52: another phase may have begun when the reader returns: it does not wait again, retry tells.
 */
TEST(mmu_interval_races, number_is_old_when_it_is_returned)
{
	struct mmu_notifier_range range, next;
	struct interval_thread reader;
	struct interval i;
	struct host h;

	host_init(&h);
	interval_init(&i, 'a', NULL);
	interval_join(&i, &h, 0, 1);
	open_pages(&h, &range, 0, 1);
	interval_thread_start(&reader, &i, run_read_begin);
	until_waiting(&h, 1, &reader);
	close_pages(&range);
	open_pages(&h, &next, 0, 1);
	kthread_join(&reader.thread);
	expect_eq(reader.seq, 3);
	expect(mmu_interval_read_retry(&i.sub, 3));
	close_pages(&next);
	interval_leave(&i);
	host_destroy(&h);
}

/* ---- all at once ---- */

/*
 * Two mirrors of a shared mapping, whose pages are moved and unmapped all the time. What stands in
 * a mirror is true for as long as the driver's lock is held: it is what the primary maps, the frame
 * has the stamp of its page (a freed one has poison), and increments made through it are all there
 * at the end: so none went into a frame that was being copied, or was gone.
 */
#define NR_PAGES  16
#define NR_FRAMES (NR_PAGES + 80)
#define STAMP(p)  (0x5747414d50000000 + (p))
#define MAGIC	  0x6d61676963ULL

struct mirror {
	struct mmu_interval_notifier sub;
	struct mutex lock;
	pfn_t pfn[NR_PAGES]; /* INVALID_PFN: not there */
	uint64_t first, nr;
	struct storm *storm;
};

struct storm {
	struct phys *phys;
	struct mm_struct *mm;
	struct address_space *mapping;
	struct mirror mirror[2];
	atomic_t next, stop;
	atomic64_t installs, retries, used, dropped, moved, zapped, churned, churn_told;
};

static bool mirror_invalidate(struct mmu_interval_notifier *sub,
			      const struct mmu_notifier_range *range, unsigned long cur_seq)
{
	struct mirror *m = container_of(sub, struct mirror, sub);

	mutex_lock(&m->lock);
	mmu_interval_set_seq(sub, cur_seq);
	for (uint64_t p = m->first; p < m->first + m->nr; p++) {
		if (AT(p) < range->start || AT(p) >= range->end || m->pfn[p] == INVALID_PFN)
			continue;
		/* Whoever opened the window has changed nothing yet. */
		expect_eq(m->pfn[p], mm_lookup_pfn(m->storm->mm, AT(p)));
		m->pfn[p] = INVALID_PFN;
		atomic64_inc(&m->storm->dropped);
	}
	mutex_unlock(&m->lock);
	return true;
}

static const struct mmu_interval_notifier_ops mirror_ops = {.invalidate = mirror_invalidate};

/* With the lock. */
static void use_entry(struct mirror *m, uint64_t p)
{
	uint64_t *page = phys_map(m->storm->phys, m->pfn[p]);

	expect_eq(m->pfn[p], mm_lookup_pfn(m->storm->mm, AT(p)));
	expect_eq(READ_ONCE(page[0]), STAMP(p));
	__atomic_fetch_add(&page[1], 1, __ATOMIC_RELAXED);
	expect_eq(m->pfn[p], mm_lookup_pfn(m->storm->mm, AT(p)));
	atomic64_inc(&m->storm->used);
}

static void mirror_fault(struct mirror *m, uint64_t p)
{
	struct storm *s = m->storm;
	bool writable;
	pfn_t pfn;

	for (;;) {
		unsigned long seq = mmu_interval_read_begin(&m->sub);

		expect_eq(hva_to_pfn(s->mm, AT(p), true, &pfn, &writable), 0);
		mutex_lock(&m->lock);
		if (!mmu_interval_read_retry(&m->sub, seq))
			break;
		mutex_unlock(&m->lock);
		atomic64_inc(&s->retries);
	}
	m->pfn[p] = pfn;
	atomic64_inc(&s->installs);
	use_entry(m, p);
	mutex_unlock(&m->lock);
}

static void run_mirror(void *arg)
{
	struct storm *s = arg;
	uint64_t me = atomic_fetch_add(1, &s->next);
	struct mirror *m = &s->mirror[me % 2];

	for (uint64_t n = me; !atomic_read(&s->stop); n++) {
		uint64_t p = m->first + n * 7 % m->nr;
		bool there;

		mutex_lock(&m->lock);
		there = m->pfn[p] != INVALID_PFN;
		if (there)
			use_entry(m, p);
		mutex_unlock(&m->lock);
		if (there)
			sched_yield(); /* to those who change something */
		else
			mirror_fault(m, p);
	}
}

static void run_mover(void *arg)
{
	struct storm *s = arg;

	for (uint64_t n = 0; !atomic_read(&s->stop); n++) {
		uint64_t p = n * 5 % NR_PAGES;
		long ret = mm_migrate_range(s->mm, AT(p), (1 + n % (NR_PAGES - p)) << PAGE_SHIFT);

		expect_ge(ret, 0);
		atomic64_add(ret, &s->moved);
		/* By reverse map: under no lock of the mm. */
		ret = migrate_frame(s->phys, n % NR_FRAMES);
		atomic64_add(ret == 0, &s->moved);
		sched_yield(); /* or there is always a window open, and no phase ends */
	}
}

static void run_zapper(void *arg)
{
	struct storm *s = arg;

	for (uint64_t n = 0; !atomic_read(&s->stop); n++) {
		uint64_t p = n * 3 % NR_PAGES;
		long ret = mm_zap_range(s->mm, AT(p), (1 + n % (NR_PAGES - p)) << PAGE_SHIFT);

		expect_ge(ret, 0);
		atomic64_add(ret, &s->zapped);
		sched_yield(); /* or there is always a window open, and no phase ends */
	}
}

/* Intervals that come and go. One that is gone is freed memory; before, it is poisoned. */
struct visitor {
	struct mmu_interval_notifier sub;
	uint64_t magic;
	struct storm *storm;
};

static bool visitor_invalidate(struct mmu_interval_notifier *sub,
			       const struct mmu_notifier_range *range, unsigned long cur_seq)
{
	struct visitor *v = container_of(sub, struct visitor, sub);

	(void)range;
	expect_eq(v->magic, MAGIC);
	mmu_interval_set_seq(sub, cur_seq);
	atomic64_inc(&v->storm->churn_told);
	return true;
}

static const struct mmu_interval_notifier_ops visitor_ops = {.invalidate = visitor_invalidate};

static void run_churn(void *arg)
{
	struct storm *s = arg;

	for (uint64_t n = 0; !atomic_read(&s->stop); n++) {
		struct visitor *v = malloc(sizeof(*v));

		expect(v);
		v->magic = MAGIC;
		v->storm = s;
		expect_eq(mmu_interval_notifier_insert(&v->sub, s->mm, AT(n % NR_PAGES),
						       (1 + n % 3) << PAGE_SHIFT, &visitor_ops),
			  0);
		sched_yield(); /* to those who open windows */
		if (n % 2)
			mmu_interval_read_begin(&v->sub);
		mmu_interval_notifier_remove(&v->sub);
		memset(v, 0xee, sizeof(*v));
		free(v);
		atomic64_inc(&s->churned);
		sched_yield();
	}
}

static void storm_init(struct storm *s)
{
	*s = (struct storm){.phys = test_phys(NR_FRAMES)};
	s->mm = test_mm(s->phys);
	s->mapping = test_mapping(s->phys, NR_PAGES);
	expect_eq(mm_mmap(s->mm, HVA, NR_PAGES << PAGE_SHIFT, RW, s->mapping, 0), 0);
	for (uint64_t p = 0; p < NR_PAGES; p++)
		test_write(s->mm, AT(p), STAMP(p));
	for (int i = 0; i < 2; i++) {
		struct mirror *m = &s->mirror[i];

		m->storm = s;
		m->first = i * NR_PAGES / 4;
		m->nr = NR_PAGES / 2;
		for (int p = 0; p < NR_PAGES; p++)
			m->pfn[p] = INVALID_PFN;
		mutex_init(&m->lock);
		expect_eq(mmu_interval_notifier_insert(&m->sub, s->mm, AT(m->first),
						       m->nr << PAGE_SHIFT, &mirror_ops),
			  0);
	}
}

TEST(mmu_interval_races, mirrors_tell_the_truth)
{
	static void (*const fns[])(void *arg) = {run_mirror, run_mirror, run_mover,
						 run_zapper, run_churn,	 run_churn};
	struct kthread threads[ARRAY_SIZE(fns)];
	int64_t goal = test_volume(20000);
	uint64_t sum = 0;
	struct storm s;

	storm_init(&s);
	for (size_t i = 0; i < ARRAY_SIZE(fns); i++)
		expect_eq(kthread_run(&threads[i], "storm", fns[i], &s), 0);
	/* Until all that this is about has happened often enough. */
	while (atomic64_read(&s.installs) < goal || atomic64_read(&s.used) < 2 * goal ||
	       atomic64_read(&s.dropped) < goal / 2 || atomic64_read(&s.churned) < goal / 2 ||
	       atomic64_read(&s.churn_told) < goal / 20 || atomic64_read(&s.retries) < goal / 100 ||
	       atomic64_read(&s.moved) < goal || atomic64_read(&s.zapped) < goal / 2)
		sched_yield();
	atomic_set(&s.stop, 1);
	for (size_t i = 0; i < ARRAY_SIZE(fns); i++)
		kthread_join(&threads[i]);

	for (uint64_t p = 0; p < NR_PAGES; p++) {
		expect_eq(test_read(s.mm, AT(p)), STAMP(p));
		sum += test_read(s.mm, AT(p) + sizeof(uint64_t));
	}
	expect_eq(sum, atomic64_read(&s.used));
	expect_eq(s.mm->notifier_subscriptions->active_invalidate_ranges, 0);
	expect_eq(s.mm->notifier_subscriptions->invalidate_seq & 1, 0);
	expect(!s.mm->notifier_subscriptions->deferred);
	for (int i = 0; i < 2; i++)
		mmu_interval_notifier_remove(&s.mirror[i].sub);
	expect(!s.mm->notifier_subscriptions->itree.rbh_root);
	mmput(s.mm);
	address_space_put(s.mapping);
	test_phys_done(s.phys);
}
