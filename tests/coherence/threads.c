/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Everybody at once: a thread for each CPU, and one each for those who move the host's memory,
 * change what is mapped there, change the slots, and write to tables from outside.
 *
 * Each word of data says whose page and which word it is, and a *stamp*, which only grows: who
 * stores has read the word, and exchanges it, if it still is the same, for one with the next stamp.
 * So he knows which page he stored to, whatever the address meant by then. What he stored was done
 * before he says so, in stamp[]: who reads there before he loads must not find less.
 *
 * Some pages are volatile: their contents go, and then they are zero until the host writes to them
 * again. A and D bits of entries are not looked at.
 */
#include "tests/coherence/threads.h"

#include <errno.h>
#include <sched.h>

#include "notifier/sync/bug.h"
#include "notifier/sync/thread.h"
#include "notifier/sync/util.h"
#include "tests/coherence/generate.h"

#define RW (MM_PROT_READ | MM_PROT_WRITE)

struct actor {
	struct world *w;
	struct stamps *stamps;
	struct kthread thread;
	int cpu, steps;
	uint64_t random;
};

struct stamps {
	atomic64_t at[NR_PAGES][NR_WORDS];
	atomic_t running; /* CPUs that are not done yet */
};

static bool is_volatile(int page)
{
	return page >= FIRST_PRIVATE + SLOT_PAGES / 2 ||
	       (page >= FIRST_PRIVATE - 2 && page < FIRST_PRIVATE);
}

bool stamp_of(int page, int word, uint64_t value, uint64_t *stamp)
{
	*stamp = value & 0xffffffffffUL;
	return value - *stamp == first_stamp(page, word) || (!value && is_volatile(page));
}

static int page_of_stamp(uint64_t value)
{
	return value >> 48 & 0xff;
}

/* @value, with the next stamp, has taken its own place. Stamps are even: no entry that is present.
 */
static void stored(struct stamps *stamps, int word, uint64_t value)
{
	int page = page_of_stamp(value);
	atomic64_t *at = &stamps->at[page][word];
	int64_t stamp = (int64_t)(value & 0xffffffffffUL) + 2, old = atomic64_read(at);

	while (!is_volatile(page) && old < stamp && !atomic64_try_cmpxchg(at, &old, stamp))
		;
}

/* --- CPUs */

static void ask(struct actor *a, struct question *q, struct model_access *access)
{
	uint64_t least[NR_PAGES];

	for (int page = 0; page < NR_PAGES; page++)
		least[page] = atomic64_read(&a->stamps->at[page][q->word]);
	q->least = least;
	q->start = tick(a->w);
	access_memory(a->w, q, access, false);
	if (access->op == MODEL_CMPXCHG)
		q->value = access->expected;
	judge(a->w, q);
	q->least = NULL;
}

static void use(struct actor *a, struct question *q)
{
	gva_t gva = gva_of(q->gva) + q->word * 8;
	struct model_access access = {.op = MODEL_LOAD, .gva = gva};
	bool store = q->kind == SDM_WRITE;
	uint64_t value;

	if (q->kind == SDM_FETCH)
		access.op = MODEL_FETCH;
	if (store)
		q->kind = SDM_READ;
	ask(a, q, &access);
	value = q->value;
	/* Only what knows its page. */
	if (!store || q->got != GOT_DONE || value >> 56 != 0x57)
		return;
	q->kind = SDM_WRITE;
	access = (struct model_access){.op = MODEL_CMPXCHG,
				       .gva = gva,
				       .expected = value,
				       .value = value + 2};
	ask(a, q, &access);
	if (q->got != GOT_DONE || q->value != value)
		return;
	stored(a->stamps, q->word, value);
	atomic64_inc(&a->w->stores);
}

/* An entry that leads to @gva, or any. */
static void edit(struct actor *a, int gva)
{
	struct world *w = a->w;
	struct op op = {.cpu = a->cpu};
	struct question q = {.cpu = a->cpu, .kind = SDM_WRITE};
	struct model_access access = {.op = MODEL_STORE};
	uint64_t known;
	int level;

	mutex_lock(&w->edit);
	mutex_lock(&w->book);
	level = entry_of_gva(w, a->cpu, gva, below(&a->random, 6), &op);
	mutex_unlock(&w->book);
	some_entry(&a->random, level, &op);
	q.gva = (below(&a->random, 2) ? LINEAR_GVA : LARGE_GVA) + op.page;
	q.word = op.word;
	q.page = op.page;
	access.gva = gva_of(q.gva) + q.word * 8;
	access.value = entry_of(op.to, op.flags);
	known = access.value & ~(SDM_A | SDM_D);

	q.start = tick(w);
	history_begin(w, &w->word[op.page][op.word], known);
	access_memory(w, &q, &access, below(&a->random, 2));
	if (q.got == GOT_DONE)
		history_end(w, &w->word[op.page][op.word], known);
	else
		history_undo(w, &w->word[op.page][op.word], known);
	mutex_unlock(&w->edit);
	judge(w, &q);
}

static int flush(struct actor *a, int gva)
{
	struct op op = {.cpu = a->cpu, .gva = gva, .flags = below(&a->random, NR_PCIDS)};
	unsigned int n = below(&a->random, 8);

	if (n < 3) {
		op.kind = OP_CR3;
		op.to = below(&a->random, NR_ROOTS);
		op.how = !!below(&a->random, 3);
	} else if (n < 5) {
		op.kind = OP_INVLPG;
	} else if (n < 6) {
		op.kind = OP_INVPCID;
		op.how = below(&a->random, 4);
	} else {
		op.kind = OP_STATE;
		op.how = below(&a->random, 8);
		if (a->w->cpu[a->cpu].state.user && below(&a->random, 2))
			op.how = 7;
		else if ((a->w->cpu[a->cpu].state.cr4 & GUEST_CR4_SMAP) && below(&a->random, 2))
			op.how = 2;
	}
	apply_cpu(a->w, &op, tick(a->w));
	return op.kind;
}

/* Few addresses, so that all meet. */
static int cpu_step(struct actor *a)
{
	static const enum sdm_kind kinds[] = {SDM_READ, SDM_READ,  SDM_READ,  SDM_READ,
					      SDM_READ, SDM_WRITE, SDM_WRITE, SDM_FETCH};
	static const int counted[] = {
		[SDM_READ] = OP_LOAD, [SDM_WRITE] = OP_STORE, [SDM_FETCH] = OP_FETCH};
	struct question q = {.cpu = a->cpu, .page = -1};
	unsigned int n = below(&a->random, 16);

	q.gva = below(&a->random, below(&a->random, 2) ? 8 : NR_WILD);
	if (n < 2) {
		edit(a, q.gva);
		return OP_EDIT;
	}
	if (n < 5)
		return flush(a, q.gva);
	if (!below(&a->random, 16))
		q.gva = LINEAR_GVA + below(&a->random, 2 * RAM_PAGES);
	q.word = below(&a->random, 4);
	q.kind = kinds[below(&a->random, ARRAY_SIZE(kinds))];
	n = counted[q.kind];
	use(a, &q);
	return (int)n;
}

static void cpu_thread(void *arg)
{
	struct actor *a = arg;

	for (int i = 0; i < a->steps; i++)
		atomic64_inc(&a->w->done[cpu_step(a)]);
	atomic_dec(&a->stamps->running);
}

/* --- the others, as long as there are CPUs */

static bool goes_on(struct actor *a)
{
	sched_yield();
	return atomic_read(&a->stamps->running);
}

static void apply_counted(struct world *w, const struct op *op)
{
	apply_host(w, op);
	atomic64_inc(&w->done[op->kind]);
}

/* Memory moves and goes, and what may be read there stays the same but for volatile pages. */
static void mover_thread(void *arg)
{
	static const int kinds[] = {OP_MIGRATE, OP_MIGRATE, OP_ZAP, OP_ZAP, OP_PAGEOUT, OP_MERGE,
				    OP_PUNCH,	OP_CLEAN,   OP_AGE, OP_AGE, OP_FORK,	OP_EXIT};
	struct actor *a = arg;

	while (goes_on(a)) {
		struct op op = {.kind = kinds[below(&a->random, ARRAY_SIZE(kinds))],
				.page = below(&a->random, NR_PAGES),
				.how = below(&a->random, 3)};

		if (op.kind == OP_ZAP && op.page >= FIRST_PRIVATE && !is_volatile(op.page))
			continue;
		if (op.kind == OP_PUNCH)
			op.to = SLOT_PAGES - 2 + below(&a->random, 2);
		else
			op.to = below(&a->random, MAX_CHILDREN);
		if (op.kind == OP_MIGRATE)
			op.to = op.page < RAM_PAGES - 4 ? below(&a->random, 4) : 0;
		apply_counted(a->w, &op);
	}
}

/* A device stores to the page that is shown at @at, which this thread alone changes. */
static void store_there(struct actor *a, int at, int word)
{
	uint64_t shows = history_now(&a->w->shows[at]), value, next, stamp;
	int page = SHOWN_PAGE(shows), ret;
	hva_t hva = hva_of(at) + word * 8;

	if (!(SHOWN_PROT(shows) & MM_PROT_WRITE))
		return;
	ret = mm_read(a->w->g.mm, hva, &value, sizeof(value));
	if (ret || !stamp_of(page, word, value, &stamp))
		differ("a device reads 0x%llx of page %d: %d", (unsigned long long)value, page,
		       ret);
	next = value ? value + 2 : first_stamp(page, word);
	ret = mm_cmpxchg64(a->w->g.mm, hva, &value, next);
	if (ret < 0)
		differ("a device's store to page %d: %d", page, ret);
	if (!ret && value)
		stored(a->stamps, word, value);
	atomic64_inc(&a->w->done[OP_DEVICE]);
}

static void mapper_thread(void *arg)
{
	static const int kinds[] = {OP_DEVICE,	OP_DEVICE,  OP_DEVICE, OP_PROTECT,
				    OP_PROTECT, OP_PROTECT, OP_UNMAP,  OP_MAP};
	static const int prots[] = {RW, RW, MM_PROT_READ, MM_PROT_NONE};
	struct actor *a = arg;

	while (goes_on(a)) {
		struct op op = {.kind = kinds[below(&a->random, ARRAY_SIZE(kinds))],
				.page = FIRST_SHARED + below(&a->random, 2 * SLOT_PAGES),
				.to = below(&a->random, SLOT_PAGES),
				.how = prots[below(&a->random, ARRAY_SIZE(prots))]};

		if (op.kind == OP_DEVICE) {
			store_there(a, op.page, below(&a->random, 4));
			continue;
		}
		if (op.kind != OP_PROTECT && op.page >= FIRST_PRIVATE && !is_volatile(op.page))
			continue;
		apply_counted(a->w, &op);
		/* Not for long. */
		op.kind = op.kind == OP_UNMAP ? OP_MAP : OP_PROTECT;
		op.how = RW;
		if (below(&a->random, 4))
			apply_counted(a->w, &op);
	}
}

static void slots_thread(void *arg)
{
	struct actor *a = arg;

	while (goes_on(a)) {
		struct op op = {.kind = below(&a->random, 4) ? OP_SLOT : OP_POLICY,
				.page = 1 + below(&a->random, 2),
				.flags = !below(&a->random, 4)};

		op.how = op.kind == OP_SLOT ? (below(&a->random, 5) + 1) / 2 : below(&a->random, 2);
		apply_counted(a->w, &op);
	}
}

static void device_thread(void *arg)
{
	struct actor *a = arg;
	struct world *w = a->w;

	while (goes_on(a)) {
		struct op op = {.page = some_table(&a->random, 0), .word = below(&a->random, 4)};
		struct history *h = &w->word[op.page][op.word];
		uint64_t value, known;

		some_entry(&a->random, home_level(op.page), &op);
		value = entry_of(op.to, op.flags);
		known = value & ~(SDM_A | SDM_D);
		mutex_lock(&w->edit);
		history_begin(w, h, known);
		guest_edit(&w->g, ((gpa_t)op.page << PAGE_SHIFT) + op.word * 8, value);
		history_end(w, h, known);
		mutex_unlock(&w->edit);
		atomic64_inc(&w->done[OP_TELL]);
	}
}

void run_threads(struct world *w, int steps, uint64_t seed)
{
	static void (*const others[])(void *arg) = {mover_thread, mapper_thread, slots_thread,
						    device_thread};
	struct actor actors[MAX_CPUS + ARRAY_SIZE(others)];
	static struct stamps stamps;
	unsigned int nr = w->nr_cpus + ARRAY_SIZE(others);

	atomic_set(&stamps.running, w->nr_cpus);
	for (unsigned int i = 0; i < nr; i++) {
		struct actor *a = &actors[i];
		bool cpu = i < w->nr_cpus;

		*a = (struct actor){.w = w,
				    .stamps = &stamps,
				    .cpu = (int)i,
				    .steps = steps / (int)w->nr_cpus,
				    .random = seed * 0x9e3779b97f4a7c15UL + i + 1};
		below(&a->random, 2);
		ASSERT(!kthread_run(&a->thread, "actor", cpu ? cpu_thread : others[i - w->nr_cpus],
				    a),
		       "a thread");
	}
	for (unsigned int i = 0; i < nr; i++)
		kthread_join(&actors[i].thread);
}
