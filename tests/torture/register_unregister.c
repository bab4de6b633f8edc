/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The test this project is named for: subscribers register and unregister on an mm whose memory
 * others migrate, unmap and fault in again, while the CPUs of a guest, a device mirror and host
 * code use that memory.
 *
 * Threads and their oracles:
 *   registrars       subscribers.c  pairing, completeness, no callback after unregister (I4, I6)
 *   mutators         mutators.c     by range, by frame, while unmapped
 *   guest CPUs       guest_cpus.c   stamps through the shadow MMU and the model machine (I1, I2)
 *   mirror           mirror.c       the same through a client of its own
 *   host             mutators.c     mm_read, mm_write, mm_cmpxchg64
 *   exit             exits.c        exit against unregister (I5)
 *   two that stay    permanent.c    exact counts, and no access inside a window (I1)
 *
 * A silent run cannot pass: every figure has a minimum.
 *
 *   register_unregister [--pairs N] [--seed S] [--seconds MAX] [--json] [--break WHAT]
 */
#include <errno.h>
#include <getopt.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "notifier/sync/bug.h"
#include "shadow/shadow_internal.h"
#include "tests/torture/torture.h"

void torture_fail(const char *fmt, ...)
{
	char line[512];
	va_list args;

	va_start(args, fmt);
	vsnprintf(line, sizeof(line), fmt, args);
	va_end(args);
	fprintf(stderr, "register_unregister: FAILED: %s\n", line);
	_exit(1);
}

uint64_t stamp_count(uint64_t value, uint64_t page, unsigned int word, const char *who)
{
	uint64_t count = value & ((1UL << 40) - 1);

	if (value != stamp(page, word, count))
		torture_fail("%s: word %u of page %lu holds 0x%lx%s", who, word, page, value,
			     value == PHYS_POISON ? ", the poison of free frames" : "");
	return count;
}

uint64_t torture_wait_progress(struct torture *t, uint64_t seen)
{
	wait_event(t->progress_wait,
		   (uint64_t)atomic64_read(&t->progress) != seen || torture_phase(t) == PHASE_STOP);
	return atomic64_read(&t->progress);
}

void torture_note_progress(struct torture *t)
{
	atomic64_inc(&t->progress);
	wake_up_all(&t->progress_wait);
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec * 1e-9;
}

static const struct {
	const char *name;
	unsigned int bit;
} breaks[] = {
	{"zap", SHADOW_BREAK_ZAP},
	{"shootdown", SHADOW_BREAK_SHOOTDOWN},
	{"shootdown-wait", SHADOW_BREAK_SHOOTDOWN_WAIT},
	{"retry", SHADOW_BREAK_RETRY},
	{"retire", SHADOW_BREAK_RETIRE},
};

static int parse_number(const char *text, uint64_t max, uint64_t *value)
{
	char *end;

	errno = 0;
	*value = strtoull(text, &end, 0);
	return errno || *end || end == text || *text == '-' || *value > max ? -1 : 0;
}

static int parse_break(const char *text, unsigned int *broken)
{
	for (size_t i = 0; i < ARRAY_SIZE(breaks); i++) {
		if (!strcmp(text, breaks[i].name)) {
			*broken |= breaks[i].bit;
			return 0;
		}
	}
	return -1;
}

static int parse_options(struct options *opt, int argc, char **argv)
{
	static const struct option options[] = {
		{"pairs", required_argument, NULL, 'p'},   {"seed", required_argument, NULL, 's'},
		{"seconds", required_argument, NULL, 't'}, {"json", no_argument, NULL, 'j'},
		{"break", required_argument, NULL, 'b'},   {NULL, 0, NULL, 0},
	};
	const char *is_long = getenv("GNOMON_TEST_LONG");
	uint64_t value;
	int c, bad = 0;

	opt->seed = 1;
	opt->pairs = is_long && !strcmp(is_long, "1") ? 100000 : 10000;
	opt->seconds = 0;
	while (!bad && (c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 'p':
			bad = parse_number(optarg, 1UL << 32, &opt->pairs) || !opt->pairs;
			break;
		case 's':
			bad = parse_number(optarg, UINT64_MAX, &opt->seed);
			break;
		case 't':
			bad = parse_number(optarg, 1UL << 20, &value);
			opt->seconds = value;
			break;
		case 'j':
			opt->json = true;
			break;
		case 'b':
			bad = parse_break(optarg, &opt->broken);
			break;
		default:
			bad = 1;
		}
	}
	if (bad || optind != argc) {
		fprintf(stderr, "usage: register_unregister [--pairs N] [--seed S] [--seconds MAX] "
				"[--json] [--break zap|shootdown|shootdown-wait|retry|retire]\n");
		return -1;
	}
	opt->invalidations = opt->pairs;
	return 0;
}

/* --- the cast --- */

static struct torture torture;

static struct torture_thread registrars[NR_REGISTRARS], cpus[NR_CPUS];
static struct torture_thread range_mutator, frame_mutator, host, mirror, exiter;

static void start(struct torture_thread *thread, unsigned int nr, const char *name,
		  void (*fn)(void *arg))
{
	thread->t = &torture;
	thread->nr = nr;
	ASSERT(!kthread_run(&thread->thread, name, fn, thread), "a thread");
}

/* A real shootdown takes its time, and on some CPU more than on others. */
static void slow_shootdown(void *arg, const pfn_t *frames, size_t nr)
{
	struct torture *t = arg;

	(void)nr;
	if ((frames[0] + atomic64_read(&t->progress)) % 8 == 0) {
		for (int i = 0; i < 4; i++)
			sched_yield();
	}
}

/* And a fault may be preempted between its look at the host's page table and its lock. */
static void slow_fault(void *arg)
{
	struct torture *t = arg;

	if (atomic64_read(&t->cpu_accesses) % 4 == 0)
		sched_yield();
}

static void set_up(struct torture *t)
{
	struct guest_mem_config config = {
		.nr_cpus = NR_CPUS,
		.nr_pages = RAM_PAGES,
		.nr_frames = 1024,
		.broken = t->opt.broken,
		.reuse = MODEL_REUSE_LIFO,
	};
	gpa_t pml4;

	init_waitqueue_head(&t->progress_wait);
	guest_mem_init(&t->g, &config);
	permanent_register_first(t);
	guest_mem_attach(&t->g);
	permanent_register_last(t);
	mirror_register(t);
	ASSERT(!model_gates(t->g.model, RAM_PAGES), "gates");
	model_set_shootdown_hook(t->g.model, slow_shootdown, t);
	shadow_set_hook(t->g.shadow, SHADOW_HOOK_FAULT_BEFORE_LOCK, slow_fault, t);

	/* The second root: another top table over the same guest tables. */
	t->cr3[0] = t->g.cr3;
	pml4 = guest_new_table(&t->g);
	guest_write(&t->g, pml4, guest_read(&t->g, t->g.cr3));
	t->cr3[1] = pml4;
	ASSERT((t->g.next_table << PAGE_SHIFT) >= DATA_PAGES << PAGE_SHIFT,
	       "data and tables do not overlap");
	/* Edits of the tables are over: nothing was cached of them yet. */
}

static void start_all(void)
{
	start(&range_mutator, 0, "range", range_mutator_thread);
	start(&frame_mutator, 1, "frame", frame_mutator_thread);
	for (unsigned int i = 0; i < NR_CPUS; i++)
		start(&cpus[i], i, "cpu", cpu_thread);
	start(&host, 0, "host", host_thread);
	start(&mirror, 0, "mirror", mirror_thread);
	start(&exiter, 0, "exit", exit_thread);
	for (unsigned int i = 0; i < NR_REGISTRARS; i++)
		start(&registrars[i], i, "registrar", registrar_thread);
}

static bool enough(const struct torture *t, double deadline)
{
	const struct options *opt = &t->opt;

	return (uint64_t)atomic64_read(&permanent_first.ends) >= opt->invalidations ||
	       (deadline && now() > deadline);
}

static void run(struct torture *t)
{
	double deadline = t->opt.seconds ? now() + t->opt.seconds : 0;
	uint64_t seen = 0;

	start_all();
	while ((uint64_t)atomic64_read(&t->pairs) < t->opt.pairs && !(deadline && now() > deadline))
		seen = torture_wait_progress(t, seen);
	atomic_set(&t->phase, PHASE_SETTLE);
	for (unsigned int i = 0; i < NR_REGISTRARS; i++)
		kthread_join(&registrars[i].thread);
	while (!enough(t, deadline))
		seen = torture_wait_progress(t, seen);

	atomic_set(&t->phase, PHASE_STOP);
	wake_up_all(&t->progress_wait);
	kthread_join(&range_mutator.thread);
	kthread_join(&frame_mutator.thread);
	for (unsigned int i = 0; i < NR_CPUS; i++)
		kthread_join(&cpus[i].thread);
	kthread_join(&host.thread);
	kthread_join(&mirror.thread);
	kthread_join(&exiter.thread);
}

static void at_least(const char *what, uint64_t got, uint64_t wanted)
{
	if (got < wanted)
		torture_fail("%s: %lu, which is less than %lu", what, got, wanted);
}

static void check_sums(struct torture *t)
{
	uint64_t sum = 0;
	char why[200];

	for (uint64_t page = 0; page < DATA_PAGES; page++)
		sum += guest_read(&t->g, word_gpa(page, WORD_SHARED));
	if (sum != (uint64_t)atomic64_read(&t->added))
		torture_fail("%lu additions, but %lu arrived", atomic64_read(&t->added), sum);
	if (shadow_audit(t->g.shadow, why, sizeof(why)))
		torture_fail("audit: %s", why);
}

struct figures {
	uint64_t invalidations;
	struct shadow_stats shadow;
	struct model_stats model;
	struct mm_stats mm;
};

static void check_minima(struct torture *t, const struct figures *f)
{
	uint64_t n = t->opt.pairs;

	at_least("pairs", atomic64_read(&t->pairs), n);
	at_least("invalidations", f->invalidations, t->opt.invalidations);
	at_least("unregisters that began while a callback ran", atomic64_read(&t->overlapped),
		 n / 10);
	at_least("zaps", atomic64_read(&t->zaps), n / 50);
	at_least("pages migrated while mapped", f->mm.pages_migrated, n / 10);
	at_least("pages migrated while unmapped", atomic64_read(&t->unmapped_moved), n / 50);
	at_least("accesses of CPUs", atomic64_read(&t->cpu_accesses), n);
	at_least("refaults", f->shadow.refaults, n / 10);
	at_least("TLB entries that shootdowns dropped", f->model.dropped, n / 20);
	at_least("accesses of the mirror", atomic64_read(&t->mirror_accesses), n);
	at_least("faults of the mirror", atomic64_read(&t->mirror_faults), n / 20);
	at_least("accesses of the host", atomic64_read(&t->host_accesses), n);
	at_least("exits", atomic64_read(&t->exits), n / 1000);
}

static void tear_down(struct torture *t)
{
	/* The guest's shadow goes first, the rest stays for exit to release. */
	guest_mem_detach(&t->g);
	mirror_unregister(t);
	mmput(t->g.mm);
	if (atomic_read(&permanent_first.releases) != 1 ||
	    atomic_read(&permanent_last.releases) != 1)
		torture_fail("exit released the permanent subscribers %d and %d times",
			     atomic_read(&permanent_first.releases),
			     atomic_read(&permanent_last.releases));
	mmu_notifier_unregister(&permanent_last.mn, t->g.mm);
	mmu_notifier_unregister(&permanent_first.mn, t->g.mm);
	if (atomic_read(&permanent_first.releases) != 1)
		torture_fail("unregister after exit released again");
	t->g.mm = NULL;
	guest_mem_destroy(&t->g);
}

static void report(struct torture *t, const struct figures *f, double seconds)
{
	const struct {
		const char *key;
		uint64_t value;
	} line[] = {
		{"seed", t->opt.seed},
		{"pairs", atomic64_read(&t->pairs)},
		{"overlapped", atomic64_read(&t->overlapped)},
		{"invalidations", f->invalidations},
		{"zaps", atomic64_read(&t->zaps)},
		{"pages_migrated", f->mm.pages_migrated},
		{"migrated_unmapped", atomic64_read(&t->unmapped_moved)},
		{"migrate_busy", f->mm.migrate_busy},
		{"cpu_accesses", atomic64_read(&t->cpu_accesses)},
		{"tlb_hits", f->model.hits},
		{"tlb_dropped", f->model.dropped},
		{"shadow_faults", f->shadow.faults},
		{"fault_retries", f->shadow.fault_retries},
		{"refaults", f->shadow.refaults},
		{"shootdowns", f->shadow.shootdowns},
		{"batches_waited", f->shadow.batches_waited},
		{"tables_retired", f->shadow.tables_retired},
		{"mirror_accesses", atomic64_read(&t->mirror_accesses)},
		{"mirror_retries", atomic64_read(&t->mirror_retries)},
		{"host_accesses", atomic64_read(&t->host_accesses)},
		{"exits", atomic64_read(&t->exits)},
		{"released_twice", atomic64_read(&t->exit_overlapped)},
	};
	const char *quote = t->opt.json ? "\"" : "";
	const char *colon = t->opt.json ? ": " : "=";
	const char *comma = t->opt.json ? ", " : " ";

	printf("%s", t->opt.json ? "{" : "");
	for (size_t i = 0; i < ARRAY_SIZE(line); i++)
		printf("%s%s%s%s%lu%s", quote, line[i].key, quote, colon, line[i].value, comma);
	printf("%sseconds%s%s%.1f%s\n", quote, quote, colon, seconds, t->opt.json ? "}" : "");
}

int main(int argc, char **argv)
{
	struct torture *t = &torture;
	struct figures f;
	double began;

	if (parse_options(&t->opt, argc, argv))
		return 64;
	set_up(t);
	began = now();
	run(t);

	f.invalidations = atomic64_read(&permanent_first.starts);
	shadow_get_stats(t->g.shadow, &f.shadow);
	model_get_stats(t->g.model, &f.model);
	mm_get_stats(t->g.mm, &f.mm);
	report(t, &f, now() - began);
	fflush(stdout);
	permanent_check(t);
	mirror_check(t);
	check_sums(t);
	check_minima(t, &f);
	tear_down(t);
	return 0;
}
