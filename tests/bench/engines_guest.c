/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A guest of three loops. Its vCPU is on a thread of its own, which carries out a job at a time:
 * engines place a vCPU's thread as they see fit, but not a program's first.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "vmm/cpl3.h"
#include "vmm/engine.h"
/* Behind the VMM's: they have an ARRAY_SIZE as well. */
#include "tests/bench/engines.h"

#define CODE  0x400000ul
#define PAGES 0x40000000ul /* ENGINES_PAGES of them, all the same frame */

#define RO    0x25ul /* P U A */
#define RW    0x67ul /* P W U A D */
#define TABLE 0x27ul
#define NX    (1ul << 63)

#define NR_FRAMES 256u
#define NR_TABLES 32u

/* At CODE: each ends in an exit. */
enum { AT_UD2 = 0, AT_TOUCH = 64, AT_COUNT = 128 };

extern const char engines_ud2[], engines_touch[], engines_count[], engines_end[];
__asm__(".pushsection .rodata\n"
	"engines_ud2:	ud2\n"
	"engines_touch:	1: mov (%rdi), %rax; add $4096, %rdi; dec %rcx; jnz 1b; ud2\n"
	"engines_count:	1: incq (%rdi); jmp 1b\n"
	"engines_end:\n"
	".popsection");

struct job {
	int (*fn)(uint64_t n, struct bench_sample *s);
	uint64_t n;
	struct bench_sample *s;
};

static struct {
	const struct engine_ops *ops;
	struct phys *phys;
	struct engine *engine;
	struct machine *machine;
	pfn_t code, page, roots[2];
	pfn_t tables[NR_TABLES];
	unsigned int nr_tables;

	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct job *job; /* under lock: to be done; NULL: nothing */
	int result;
	bool stop, counted;
} g;

static int run_to_ud2(void)
{
	struct engine_exit exit;

	g.ops->vcpu_run(g.engine, 0, &exit);
	if (exit.kind == ENGINE_EXIT_TRAP && exit.vector == VECTOR_UD)
		return 0;
	fprintf(stderr, "bench: the guest: exit %d, exception %u at %#lx: %s\n", exit.kind,
		exit.vector, (unsigned long)exit.fault_address, exit.why ? exit.why : "");
	return -EIO;
}

static struct guest_regs *begin_at(unsigned int offset)
{
	struct guest_regs *regs = g.ops->regs(g.engine, 0);

	regs->rip = CODE + offset;
	regs->gpr[GPR_RDI] = PAGES;
	return regs;
}

/* ---- jobs ---- */

static int exits(uint64_t n, struct bench_sample *s)
{
	struct bench_timer timer;
	int err;

	begin_at(AT_UD2);
	err = run_to_ud2();
	bench_start(&timer, CLOCK_MONOTONIC);
	while (!err && n--)
		err = run_to_ud2();
	bench_stop(&timer, s);
	return err;
}

static int switches(uint64_t n, struct bench_sample *s)
{
	struct bench_timer timer;
	int err;

	begin_at(AT_UD2);
	err = run_to_ud2();
	bench_start(&timer, CLOCK_MONOTONIC);
	while (!err && n--) {
		g.machine->ops->load_root(g.machine, 0, g.roots[n & 1]);
		err = run_to_ud2();
	}
	bench_stop(&timer, s);
	g.machine->ops->load_root(g.machine, 0, g.roots[0]);
	return err;
}

static int fills(uint64_t n, struct bench_sample *s)
{
	struct bench_timer timer;
	int err;

	g.machine->ops->shootdown(g.machine, &(pfn_t){g.page}, 1);
	begin_at(AT_UD2);
	err = run_to_ud2();
	begin_at(AT_TOUCH)->gpr[GPR_RCX] = n;
	bench_start(&timer, CLOCK_MONOTONIC);
	err = err ?: run_to_ud2();
	bench_stop(&timer, s);
	return err;
}

/* Until it is kicked for that: a kick may come late. */
static int counts(uint64_t n, struct bench_sample *s)
{
	struct engine_exit exit;

	(void)n;
	(void)s;
	begin_at(AT_COUNT);
	do {
		g.ops->vcpu_run(g.engine, 0, &exit);
	} while (exit.kind == ENGINE_EXIT_KICK && !__atomic_load_n(&g.counted, __ATOMIC_ACQUIRE));
	return exit.kind == ENGINE_EXIT_KICK ? 0 : -EIO;
}

/* ---- the vCPU's thread ---- */

/* On a CPU of its own: who shoots down is on the first. */
static void *vcpu_thread(void *arg)
{
	int err;

	(void)arg;
	bench_pin(1);
	err = g.ops->vcpu_init(g.engine, 0);
	g.machine->ops->load_root(g.machine, 0, g.roots[0]);
	pthread_mutex_lock(&g.lock);
	while (!g.stop) {
		struct job *job = g.job;

		if (!job) {
			pthread_cond_wait(&g.changed, &g.lock);
			continue;
		}
		pthread_mutex_unlock(&g.lock);
		err = err ?: job->fn(job->n, job->s);
		pthread_mutex_lock(&g.lock);
		g.result = err;
		g.job = NULL;
		pthread_cond_broadcast(&g.changed);
	}
	pthread_mutex_unlock(&g.lock);
	return NULL;
}

static void begin_job(struct job *job)
{
	pthread_mutex_lock(&g.lock);
	g.job = job;
	pthread_cond_broadcast(&g.changed);
	pthread_mutex_unlock(&g.lock);
}

static int end_job(void)
{
	int err;

	pthread_mutex_lock(&g.lock);
	while (g.job)
		pthread_cond_wait(&g.changed, &g.lock);
	err = g.result;
	pthread_mutex_unlock(&g.lock);
	return err;
}

/* ---- shootdowns, by another thread than the vCPU's ---- */

static uint64_t *counter(void)
{
	return phys_map(g.phys, g.page);
}

/* It has the page, and counts in it. False: it does not come to that. */
static bool wait_for_count(void)
{
	uint64_t seen = __atomic_load_n(counter(), __ATOMIC_RELAXED);
	uint64_t begun = bench_now(CLOCK_MONOTONIC);

	while (__atomic_load_n(counter(), __ATOMIC_RELAXED) == seen) {
		if (bench_now(CLOCK_MONOTONIC) - begun > 5000000000)
			return false;
		__builtin_ia32_pause();
	}
	return true;
}

static int shoot(uint64_t n, struct bench_sample *s)
{
	struct job job = {.fn = counts};
	struct bench_sample one;
	struct bench_timer timer;
	int err = 0;

	bench_pin(0);
	g.counted = false;
	begin_job(&job);
	for (uint64_t i = 0; i < n && !err; i++) {
		err = wait_for_count() ? 0 : -ETIMEDOUT;
		bench_start(&timer, CLOCK_MONOTONIC);
		err = err ?: g.machine->ops->shootdown(g.machine, &(pfn_t){g.page}, 1);
		bench_stop(&timer, &one);
		s->ns += one.ns;
		s->disturbed |= one.disturbed;
	}
	__atomic_store_n(&g.counted, true, __ATOMIC_RELEASE);
	g.ops->kick(g.engine, 0);
	bench_unpin();
	return end_job() ?: err;
}

int engines_guest_sample(enum engines_op op, uint64_t n, struct bench_sample *s)
{
	struct job job = {.n = n, .s = s};

	if (op == ENGINES_SHOOT)
		return shoot(n, s);
	job.fn = op == ENGINES_EXIT ? exits : op == ENGINES_FILL ? fills : switches;
	begin_job(&job);
	return end_job();
}

/* ---- the machine ---- */

static int table(int level, pfn_t *pfn)
{
	*pfn = g.machine->ops->alloc_table(g.machine, level);
	if (*pfn == INVALID_PFN || g.nr_tables == NR_TABLES)
		return -ENOMEM;
	g.tables[g.nr_tables++] = *pfn;
	return 0;
}

static int map(pfn_t root, uint64_t gva, pfn_t pfn, uint64_t bits)
{
	pfn_t at = root;

	for (int level = 4;; level--) {
		uint64_t *entry = g.machine->ops->map_frame(g.machine, at);

		entry += gva >> (3 + 9 * level) & 511;
		if (level == 1) {
			*entry = pfn << PAGE_SHIFT | bits;
			return 0;
		}
		if (!*entry) {
			int err = table(level - 1, &at);

			if (err)
				return err;
			*entry = at << PAGE_SHIFT | TABLE;
		}
		at = (*entry & 0x000ffffffffff000) >> PAGE_SHIFT;
	}
}

static int make_tables(void)
{
	int err = 0;

	for (unsigned int i = 0; i < 2 && !err; i++) {
		err = table(4, &g.roots[i]);
		err = err ?: map(g.roots[i], CODE, g.code, RO);
	}
	for (uint64_t i = 0; i < ENGINES_PAGES && !err; i++)
		err = map(g.roots[0], PAGES + (i << PAGE_SHIFT), g.page, RW | NX);
	return err;
}

static void copy(unsigned int offset, const char *code, const char *end)
{
	memcpy((char *)phys_map(g.phys, g.code) + offset, code, (size_t)(end - code));
}

const char *engines_guest_missing(const struct engine_ops *ops)
{
	static struct engine_report report;

	memset(&report, 0, sizeof(report));
	ops->probe(&report);
	return report.usable ? NULL : report.why;
}

int engines_guest_create(const struct engine_ops *ops)
{
	char why[256] = "";
	int err;

	memset(&g, 0, sizeof(g));
	g.ops = ops;
	pthread_mutex_init(&g.lock, NULL);
	pthread_cond_init(&g.changed, NULL);
	err = phys_create(&g.phys, NR_FRAMES);
	if (err)
		return err;
	err = ops->create(&g.engine, g.phys, 1, why, sizeof(why));
	if (err) {
		fprintf(stderr, "bench: the %s engine: %s\n", ops->name, why);
		return err;
	}
	g.machine = &g.engine->machine;
	g.code = phys_alloc_zeroed(g.phys);
	g.page = phys_alloc_zeroed(g.phys);
	copy(AT_UD2, engines_ud2, engines_touch);
	copy(AT_TOUCH, engines_touch, engines_count);
	copy(AT_COUNT, engines_count, engines_end);
	err = make_tables();
	return err ?: bench_thread(&g.thread, vcpu_thread, NULL);
}

void engines_guest_destroy(void)
{
	pthread_mutex_lock(&g.lock);
	g.stop = true;
	pthread_cond_broadcast(&g.changed);
	pthread_mutex_unlock(&g.lock);
	pthread_join(g.thread, NULL);
	while (g.nr_tables)
		g.machine->ops->retire_table(g.machine, g.tables[--g.nr_tables]);
	g.ops->destroy(g.engine);
	phys_put(g.phys, g.page);
	phys_put(g.phys, g.code);
	phys_destroy(g.phys);
}
