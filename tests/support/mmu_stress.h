/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The stages of Linux's mmu_stress_test (tools/testing/selftests/kvm), for CPUs of any machine: all
 * CPUs write to all pages, are reset, write and read again; then the host makes the memory
 * read-only while they write, and writable again, over and over; in the end half the slots go, half
 * the memory goes, and the mm goes, while they write.
 *
 * The oracle is strict: once invalidate_range_start has returned no store lands. A second
 * subscriber, whose start comes after that of the shadow MMU, copies what the range holds, has the
 * CPUs run on, and compares; so does the host once mprotect() has returned.
 */
#ifndef TESTS_SUPPORT_MMU_STRESS_H
#define TESTS_SUPPORT_MMU_STRESS_H

#include <sched.h>

#include <gnomon/mmu_notifier.h>
#include <gnomon/shadow.h>

#include "notifier/sync/atomic.h"
#include "notifier/sync/thread.h"
#include "notifier/sync/util.h"
#include "notifier/sync/wait.h"
#include "tests/support/test.h"

#define STRESS_CPUS	  2
#define STRESS_SLOTS	  8
#define STRESS_SLOT_PAGES 16
#define STRESS_PAGES	  (STRESS_SLOTS * STRESS_SLOT_PAGES)

#define STRESS_RAM_PAGES 16UL
#define STRESS_RAM_HVA	 0x100000000UL
#define STRESS_HVA	 0x200000000UL
#define STRESS_GFN	 0x1000UL
#define STRESS_CODE	 0x400000UL /* the second page of RAM */
#define STRESS_GVA	 0x40000000UL

struct stress;

/* What a machine's CPU does, with the faults resolved: RET_PF_FIXED, or what an access came to. */
struct stress_ops {
	void (*put_code)(struct stress *s);		  /* into the second page of RAM; or NULL */
	void (*init)(struct stress *s, unsigned int cpu); /* on its thread, first of all */
	enum ret_pf (*store)(struct stress *s, unsigned int cpu, gva_t gva, uint64_t value);
	enum ret_pf (*load)(struct stress *s, unsigned int cpu, gva_t gva, uint64_t *value);
	/* Stores of growing values to all words of the CPU, until one is not done. */
	enum ret_pf (*storm)(struct stress *s, unsigned int cpu, uint64_t value);
};

struct stress_cpu {
	struct stress *s;
	unsigned int nr;
	struct kthread thread;
	uint64_t refused, to_devices, done;
};

enum stress_stage {
	STRESS_FILL,
	STRESS_RESET,
	STRESS_STORM,	/* until the host refuses */
	STRESS_REFUSED, /* all of it */
	STRESS_AGAIN,
	STRESS_LAST, /* until the machine is halted */
	STRESS_OVER,
};

struct stress {
	const struct stress_ops *ops;
	void *machine_arg;
	struct phys *phys;
	struct mm_struct *mm;
	struct shadow *shadow;
	struct mmu_notifier watcher;
	struct stress_cpu cpu[STRESS_CPUS];
	bool broken; /* the shootdown is out */

	wait_queue_head_t wait;
	atomic_t stage, turn, arrived;
	atomic_t torn;
	atomic64_t windows, compared, late;
	uint64_t seen[STRESS_PAGES][STRESS_CPUS]; /* by the host, memory being read-only */
};

static inline gva_t stress_gva(unsigned int page, unsigned int cpu)
{
	return STRESS_GVA + ((gva_t)page << PAGE_SHIFT) + 64 * cpu;
}

/* --- the watcher */

static inline uint64_t stress_word(struct stress *s, pfn_t pfn, unsigned int cpu)
{
	return READ_ONCE(((uint64_t *)phys_map(s->phys, pfn))[8 * cpu]);
}

static inline int stress_start(struct mmu_notifier *mn, const struct mmu_notifier_range *range)
{
	struct stress *s = container_of(mn, struct stress, watcher);
	static __attribute__((aligned(8))) uint64_t before[STRESS_PAGES][STRESS_CPUS];
	pfn_t pfn[STRESS_PAGES];

	if (range->start < STRESS_HVA || range->end > STRESS_HVA + (STRESS_PAGES << PAGE_SHIFT) ||
	    range->event == MMU_NOTIFY_CLEAR)
		return 0;
	for (unsigned int page = 0; page < STRESS_PAGES; page++) {
		hva_t hva = STRESS_HVA + ((hva_t)page << PAGE_SHIFT);
		bool in = hva >= range->start && hva < range->end;

		pfn[page] = in ? mm_lookup_pfn(s->mm, hva) : INVALID_PFN;
		for (unsigned int cpu = 0; cpu < STRESS_CPUS && pfn[page] != INVALID_PFN; cpu++)
			before[page][cpu] = stress_word(s, pfn[page], cpu);
	}
	for (int i = 0; i < 30; i++)
		sched_yield();
	for (unsigned int page = 0; page < STRESS_PAGES; page++) {
		for (unsigned int cpu = 0; cpu < STRESS_CPUS && pfn[page] != INVALID_PFN; cpu++) {
			atomic64_inc(&s->compared);
			if (stress_word(s, pfn[page], cpu) != before[page][cpu])
				atomic64_inc(&s->late);
		}
	}
	atomic64_inc(&s->windows);
	return 0;
}

/* --- the CPUs */

static inline void stress_store_all(struct stress_cpu *c, uint64_t value, enum ret_pf want)
{
	for (unsigned int page = 0; page < STRESS_PAGES; page++)
		expect_eq(c->s->ops->store(c->s, c->nr, stress_gva(page, c->nr), value + page),
			  want);
}

static inline void stress_load_all(struct stress_cpu *c, uint64_t value)
{
	for (unsigned int page = 0; page < STRESS_PAGES; page++) {
		uint64_t got = 0;

		expect_eq(c->s->ops->load(c->s, c->nr, stress_gva(page, c->nr), &got),
			  RET_PF_FIXED);
		expect_eq(got, value ? value + page : c->s->seen[page][c->nr]);
	}
}

/* Another view, and back: as a vCPU whose CR0.WP is toggled has its context reset. */
static inline void stress_reset(struct stress_cpu *c)
{
	struct guest_cpu state = *shadow_get_cpu(c->s->shadow, c->nr);

	for (int i = 0; i < 3; i++) {
		state.cr0 ^= GUEST_CR0_WP;
		expect_eq(shadow_set_cpu(c->s->shadow, c->nr, &state), 0);
		stress_store_all(c, (uint64_t)(2 + i) << 32, RET_PF_FIXED);
		stress_load_all(c, (uint64_t)(2 + i) << 32);
	}
}

/* What a store to @page comes to once half of the slots, and of the memory, is gone. */
static inline enum ret_pf stress_torn(unsigned int page)
{
	if (page / STRESS_SLOT_PAGES % 2)
		return RET_PF_EMULATE;
	return page < STRESS_PAGES / 2 ? RET_PF_BAD_HVA : RET_PF_FIXED;
}

static inline void stress_last(struct stress_cpu *c)
{
	for (uint64_t n = 0;; n++) {
		unsigned int page = n * 37 % STRESS_PAGES;
		bool torn = atomic_read_acquire(&c->s->torn);
		enum ret_pf pf = c->s->ops->store(c->s, c->nr, stress_gva(page, c->nr), n);

		if (pf == RET_PF_HALTED)
			return;
		if (torn)
			expect_eq(pf, stress_torn(page));
		else
			expect(pf == RET_PF_FIXED || pf == stress_torn(page));
		WRITE_ONCE(c->refused, c->refused + (pf == RET_PF_BAD_HVA));
		WRITE_ONCE(c->to_devices, c->to_devices + (pf == RET_PF_EMULATE));
		WRITE_ONCE(c->done, c->done + (pf == RET_PF_FIXED));
	}
}

static inline void stress_cpu_stage(struct stress_cpu *c, enum stress_stage stage)
{
	switch (stage) {
	case STRESS_FILL:
		stress_store_all(c, 1UL << 32, RET_PF_FIXED);
		break;
	case STRESS_RESET:
		stress_reset(c);
		break;
	case STRESS_STORM:
		expect_eq(c->s->ops->storm(c->s, c->nr, 10UL << 32),
			  c->s->broken ? RET_PF_HALTED : RET_PF_BAD_HVA);
		break;
	case STRESS_REFUSED:
		stress_store_all(c, 0xbadUL << 32, RET_PF_BAD_HVA);
		stress_load_all(c, 0);
		break;
	case STRESS_AGAIN:
		stress_store_all(c, 20UL << 32, RET_PF_FIXED);
		stress_load_all(c, 20UL << 32);
		break;
	default:
		stress_last(c);
		break;
	}
}

static inline void stress_cpu_thread(void *arg)
{
	struct stress_cpu *c = arg;
	struct stress *s = c->s;

	s->ops->init(s, c->nr);
	expect_eq(shadow_load_cr3(s->shadow, c->nr, 2UL << PAGE_SHIFT), 0);
	for (int turn = 1;; turn++) {
		wait_event(s->wait, atomic_read_acquire(&s->turn) == turn);
		if (atomic_read(&s->stage) == STRESS_OVER)
			return;
		stress_cpu_stage(c, atomic_read(&s->stage));
		atomic_inc_return(&s->arrived);
		wake_up_all(&s->wait);
	}
}

static inline void stress_begin(struct stress *s, enum stress_stage stage)
{
	atomic_set(&s->arrived, 0);
	atomic_set(&s->stage, stage);
	atomic_inc_return(&s->turn);
	wake_up_all(&s->wait);
}

static inline void stress_end(struct stress *s)
{
	wait_event(s->wait, atomic_read_acquire(&s->arrived) == STRESS_CPUS);
}

static inline void stress_run(struct stress *s, enum stress_stage stage)
{
	stress_begin(s, stage);
	stress_end(s);
}

/* --- the world */

static inline void stress_poke(struct stress *s, gpa_t gpa, uint64_t value)
{
	expect_eq(mm_write(s->mm, STRESS_RAM_HVA + gpa, &value, sizeof(value)), 0);
}

/* RAM: a page of code, the root (2) and the tables for it (3 to 5) and for the data (6, 7). */
static inline void stress_make_tables(struct stress *s)
{
	const uint64_t rw = 0x7;

	stress_poke(s, 2 << PAGE_SHIFT, 3UL << PAGE_SHIFT | rw);
	stress_poke(s, 3 << PAGE_SHIFT, 4UL << PAGE_SHIFT | rw);
	stress_poke(s, (4 << PAGE_SHIFT) + 8 * (STRESS_CODE >> 21), 5UL << PAGE_SHIFT | rw);
	stress_poke(s, 5 << PAGE_SHIFT, 1UL << PAGE_SHIFT | rw);
	stress_poke(s, (3 << PAGE_SHIFT) + 8, 6UL << PAGE_SHIFT | rw);
	stress_poke(s, 6 << PAGE_SHIFT, 7UL << PAGE_SHIFT | rw);
	for (unsigned int page = 0; page < STRESS_PAGES; page++)
		stress_poke(s, (7 << PAGE_SHIFT) + 8 * page,
			    (STRESS_GFN + page) << PAGE_SHIFT | rw);
}

/* @s has ops, phys, machine_arg and broken. */
static inline void stress_create(struct stress *s, struct machine *machine)
{
	static const struct mmu_notifier_ops watcher = {.invalidate_range_start = stress_start};
	const unsigned int rw = MM_PROT_READ | MM_PROT_WRITE;

	init_waitqueue_head(&s->wait);
	s->mm = mm_alloc(s->phys);
	expect(s->mm);
	expect_eq(mm_mmap(s->mm, STRESS_RAM_HVA, STRESS_RAM_PAGES << PAGE_SHIFT, rw, NULL, 0), 0);
	expect_eq(mm_mmap(s->mm, STRESS_HVA, STRESS_PAGES << PAGE_SHIFT, rw, NULL, 0), 0);
	stress_make_tables(s);
	if (s->ops->put_code)
		s->ops->put_code(s);
	/* Who registers last is told first. */
	s->watcher.ops = &watcher;
	expect_eq(mmu_notifier_register(&s->watcher, s->mm), 0);
	expect_eq(shadow_create(&s->shadow, s->mm, machine, STRESS_CPUS), 0);
	if (s->broken)
		shadow_set_break(s->shadow, SHADOW_BREAK_SHOOTDOWN);
	expect_eq(shadow_create_memslot(s->shadow, 0, 0, STRESS_RAM_PAGES, STRESS_RAM_HVA), 0);
	for (unsigned int slot = 0; slot < STRESS_SLOTS; slot++) {
		uint64_t first = slot * STRESS_SLOT_PAGES;

		expect_eq(shadow_create_memslot(s->shadow, 1 + slot, STRESS_GFN + first,
						STRESS_SLOT_PAGES,
						STRESS_HVA + (first << PAGE_SHIFT)),
			  0);
	}
	for (unsigned int cpu = 0; cpu < STRESS_CPUS; cpu++) {
		s->cpu[cpu] = (struct stress_cpu){.s = s, .nr = cpu};
		expect_eq(kthread_run(&s->cpu[cpu].thread, "cpu", stress_cpu_thread, &s->cpu[cpu]),
			  0);
	}
	stress_run(s, STRESS_FILL);
}

static inline void stress_join(struct stress *s)
{
	stress_begin(s, STRESS_OVER);
	for (unsigned int cpu = 0; cpu < STRESS_CPUS; cpu++)
		kthread_join(&s->cpu[cpu].thread);
}

/* --- the host */

static inline uint64_t stress_read(struct stress *s, unsigned int page, unsigned int cpu)
{
	uint64_t value = 0;

	expect_eq(mm_read(s->mm, STRESS_HVA + ((hva_t)page << PAGE_SHIFT) + 64 * cpu, &value, 8),
		  0);
	return value;
}

static inline void stress_protect(struct stress *s, unsigned int prot)
{
	expect_eq(mm_mprotect(s->mm, STRESS_HVA, STRESS_PAGES << PAGE_SHIFT, prot), 0);
}

/* Every CPU is in the middle of a storm. */
static inline void stress_wait_for_storm(struct stress *s)
{
	for (unsigned int cpu = 0; cpu < STRESS_CPUS; cpu++) {
		while (stress_read(s, STRESS_PAGES - 1, cpu) >> 32 != 10)
			sched_yield();
	}
}

static inline void stress_look(struct stress *s, bool first)
{
	for (unsigned int page = 0; page < STRESS_PAGES; page++) {
		for (unsigned int cpu = 0; cpu < STRESS_CPUS; cpu++) {
			uint64_t value = stress_read(s, page, cpu);

			if (first)
				s->seen[page][cpu] = value;
			expect_eq(value, s->seen[page][cpu]);
		}
	}
}

/* Read-only while all write: each is refused in the end, afterwards all of it is, and nothing
 * lands. */
static inline void stress_readonly(struct stress *s)
{
	stress_begin(s, STRESS_STORM);
	stress_wait_for_storm(s);
	stress_protect(s, MM_PROT_READ);
	expect_eq(atomic64_read(&s->late), 0);
	for (int look = 0; look < 4; look++) {
		stress_look(s, !look);
		sched_yield();
	}
	stress_end(s);
	stress_run(s, STRESS_REFUSED);
	stress_look(s, false);
	stress_protect(s, MM_PROT_READ | MM_PROT_WRITE);
	stress_run(s, STRESS_AGAIN);
}

static inline void stress_wait_for(const uint64_t *count, uint64_t more)
{
	uint64_t before = READ_ONCE(*count);

	while (READ_ONCE(*count) < before + more)
		sched_yield();
}

/* Half the slots, half the memory, and then all of it, by exit; nobody cleans up before. */
static inline void stress_tear_down(struct stress *s)
{
	stress_begin(s, STRESS_LAST);
	for (unsigned int cpu = 0; cpu < STRESS_CPUS; cpu++)
		stress_wait_for(&s->cpu[cpu].done, STRESS_PAGES);
	for (unsigned int slot = 1; slot < STRESS_SLOTS; slot += 2) {
		const struct memslot_region region = {.id = 1 + slot};

		expect_eq(shadow_set_memslot(s->shadow, &region), 0);
	}
	expect_eq(mm_munmap(s->mm, STRESS_HVA, (STRESS_PAGES / 2) << PAGE_SHIFT), 0);
	atomic_set_release(&s->torn, 1);
	for (unsigned int cpu = 0; cpu < STRESS_CPUS; cpu++) {
		stress_wait_for(&s->cpu[cpu].refused, STRESS_PAGES);
		stress_wait_for(&s->cpu[cpu].to_devices, STRESS_PAGES);
		stress_wait_for(&s->cpu[cpu].done, STRESS_PAGES);
	}
	mmput(s->mm);
	stress_end(s);
	stress_join(s);
	shadow_destroy(s->shadow);
	mmu_notifier_unregister(&s->watcher, s->mm);
}

static inline void stress_all(struct stress *s, struct machine *machine, unsigned int rounds)
{
	uint64_t words;

	stress_create(s, machine);
	stress_run(s, STRESS_RESET);
	for (unsigned int i = 0; i < rounds; i++)
		stress_readonly(s);
	stress_tear_down(s);
	expect_eq(atomic64_read(&s->late), 0);
	/* Each time it becomes read-only the watcher has all words of all CPUs to look at. */
	words = (uint64_t)rounds * STRESS_PAGES * STRESS_CPUS;
	expect_ge(atomic64_read(&s->windows), 2 * rounds);
	expect_ge(atomic64_read(&s->compared), words);
}

/* With the shootdown out: the CPUs store on, to memory that is read-only, each a hundred times
 * after the window is over. (The watcher sees what falls into the window alone, which may be
 * nothing.) */
static inline void stress_broken(struct stress *s, struct machine *machine)
{
	s->broken = true;
	stress_create(s, machine);
	stress_begin(s, STRESS_STORM);
	stress_wait_for_storm(s);
	stress_protect(s, MM_PROT_READ);
	for (unsigned int cpu = 0; cpu < STRESS_CPUS; cpu++) {
		for (int late = 0; late < 100; late++) {
			uint64_t before = stress_read(s, 0, cpu);

			while (stress_read(s, 0, cpu) == before)
				sched_yield();
		}
	}
	mmput(s->mm);
	stress_end(s);
	stress_join(s);
	shadow_destroy(s->shadow);
	mmu_notifier_unregister(&s->watcher, s->mm);
}

#endif
