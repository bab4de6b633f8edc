/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What this machine's KVM does, found out by trying: on a scratch machine of a few frames, with one
 * vCPU on the calling thread, and two guest programs of a few instructions. Nothing is concluded
 * from module names or CPU features.
 *
 * Four experiments, each ending in what the guest reads at an address:
 *
 *  1. Shadowing. The guest reads A at an address. The entry is pointed at B in memory, and the vCPU
 *     moves to another root with the same tables: a CPU forgets its TLB at that. If the guest still
 *     reads A, the host keeps tables of its own that it makes from ours.
 *  2. Shootdown. The guest reads A. The entry is cleared and A shot down: the guest must fault; the
 *     entry is pointed at B: the guest must read B. If not, no page can ever be taken away from a
 *     guest here, and the engine refuses.
 *  3. Reuse of a table frame. The guest reads A through table T. The leaf is cleared and shot down,
 *     T is unlinked and shot down: all that retire_table does. T is then linked elsewhere with C in
 *     it, and the guest reads C there. At the old address, whose directory entry is 0, it must
 *     fault. If it reads C, retired tables must be quarantined; and then a toggle of the memslot
 * has to make it fault, or the engine refuses.
 *
 *  4. Entries of 2 MiB. The guest reads three pages by one entry of level 2. It is cleared, and the
 *     512 frames shot down: the guest must fault at all of them.
 *
 * In experiment 3 nothing may run between unlinking and reuse: an access would let the host notice.
 *
 * Nothing is linked, or mapped, at the entry of experiment 4 once it was used. A host that shadows
 * our tables keeps one of its own below it, for that large page; and KVMs are about (up to
 * CVE-2026-46113 and CVE-2026-53359) that enter there whatever comes next at this entry. So 2 MiB
 * entries are not for hosts that shadow (docs/engines.md), and the experiment does no harm to them.
 */
#include "vmm/engine_kvm.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "notifier/sync/bug.h"
#include "vmm/why.h"

#define SCRATCH_FRAMES 1024 /* the host has memory for those alone that are used */
#define HUGE_FIRST     512  /* the frames from here on are experiment 4's, and nobody else's */
#define NR_TRAPS       301
#define NR_SHOOTDOWNS  101
#define WARM_UP	       10

#define ENTRY_BITS 0x67ul /* present, writable, user, accessed, dirty */
#define ADDR_MASK  0x000ffffffffff000ul
#define PS	   0x80ul

/*
 * Guest addresses. Each has a page directory of its own, so that none shares a table of leaves; all
 * hang off PML4 entry 0. Under a new root the fetch of the first instruction links that entry: were
 * the data elsewhere, reading it would fault at the root, and a host that shadows would look again.
 */
#define GVA_CODE  0x01000000ul
#define GVA_FIRST 0x40000000ul
#define GVA_OTHER 0x80000000ul
#define GVA_DATA  0xc0000000ul
#define GVA_HUGE  0x100000000ul

/* clang-format off */
extern const char kvm_probe_load[], kvm_probe_sgdt[], kvm_probe_code_end[];
asm(	".pushsection .rodata\n"
	".hidden kvm_probe_load, kvm_probe_sgdt, kvm_probe_code_end\n"
	".globl kvm_probe_load, kvm_probe_sgdt, kvm_probe_code_end\n"
	"kvm_probe_load:\n"
	"	mov (%rdi), %rax\n"
	"	ud2\n"
	"kvm_probe_sgdt:\n"
	"	sgdt (%rdi)\n"
	"	ud2\n"
	"kvm_probe_code_end:\n"
	".popsection\n");
/* clang-format on */

struct scratch {
	struct phys *phys;
	struct kvm_engine *engine;
	struct machine *machine;
	pfn_t root;
	pfn_t code, a, b, c; /* data pages, each holding its own name in its first word */
	pfn_t tables[16];
	unsigned int nr_tables;
	int err; /* the first thing that went wrong; everything after it does nothing */
	char why[256];
};

static void give_up(struct scratch *s, int err, const char *what)
{
	if (!s->err)
		s->err = why_fail(s->why, sizeof(s->why), err,
				  "the start-up experiments failed: %s", what);
}

static uint64_t *words(struct scratch *s, pfn_t pfn)
{
	return phys_map(s->phys, pfn);
}

static pfn_t new_table(struct scratch *s, int level)
{
	pfn_t pfn = INVALID_PFN;

	BUG_ON(s->nr_tables == ARRAY_SIZE(s->tables));
	if (!s->err)
		pfn = s->machine->ops->alloc_table(s->machine, level);
	if (pfn == INVALID_PFN)
		give_up(s, -ENOMEM, "out of frames");
	else
		s->tables[s->nr_tables++] = pfn;
	return pfn;
}

static pfn_t new_page(struct scratch *s, uint64_t name)
{
	pfn_t pfn = phys_alloc_zeroed(s->phys);

	if (pfn == INVALID_PFN)
		give_up(s, -ENOMEM, "out of frames");
	else
		words(s, pfn)[0] = name;
	return pfn;
}

/* The entry for @gva in its table of @level; NULL once something went wrong. */
static uint64_t *entry(struct scratch *s, uint64_t gva, int level)
{
	pfn_t table = s->root;

	for (int l = 4; !s->err; l--) {
		uint64_t *e = &words(s, table)[gva >> (3 + 9 * l) & 511];

		if (l == level)
			return e;
		if (!*e) {
			pfn_t next = new_table(s, l - 1);

			if (!s->err)
				*e = next << PAGE_SHIFT | ENTRY_BITS;
		}
		table = (*e & ADDR_MASK) >> PAGE_SHIFT;
	}
	return NULL;
}

static void set_entry(struct scratch *s, uint64_t gva, int level, uint64_t value)
{
	uint64_t *e = entry(s, gva, level);

	if (e)
		*e = value;
}

static void map(struct scratch *s, uint64_t gva, pfn_t pfn)
{
	set_entry(s, gva, 1, pfn << PAGE_SHIFT | ENTRY_BITS);
}

static void shoot(struct scratch *s, pfn_t pfn)
{
	int err = s->err ?: s->machine->ops->shootdown(s->machine, &pfn, 1);

	if (err)
		give_up(s, err, "madvise(MADV_DONTNEED) on guest memory");
}

/* Run to the next trap and return its vector, or -1. */
static int run(struct scratch *s)
{
	struct kvm_cpu *cpu = &s->engine->cpus[0];
	struct engine_exit exit;

	if (s->err)
		return -1;
	do {
		kvm_cpu_run(cpu, &exit);
	} while (exit.kind == ENGINE_EXIT_KICK);
	if (exit.kind == ENGINE_EXIT_TRAP)
		return exit.vector;
	give_up(s, -ENODEV, exit.why);
	return -1;
}

static void start(struct scratch *s, const char *program, uint64_t rdi)
{
	s->engine->cpus[0].regs.rip = GVA_CODE + (program - kvm_probe_load);
	s->engine->cpus[0].regs.gpr[GPR_RDI] = rdi;
}

/* What the guest reads at @gva; 0 if it faults there. */
static uint64_t guest_reads(struct scratch *s, uint64_t gva)
{
	int vector;

	start(s, kvm_probe_load, gva);
	vector = run(s);
	if (vector == VECTOR_UD)
		return s->engine->cpus[0].regs.gpr[GPR_RAX];
	if (vector >= 0 && vector != VECTOR_PF)
		give_up(s, -ENODEV, "a load by the guest raised neither #UD nor #PF");
	return 0;
}

static void load_root(struct scratch *s, pfn_t root)
{
	if (!s->err)
		s->machine->ops->load_root(s->machine, 0, root);
}

static int scratch_create(struct scratch *s)
{
	memset(s, 0, sizeof(*s));
	s->err = phys_create(&s->phys, SCRATCH_FRAMES);
	if (s->err)
		return why_fail(s->why, sizeof(s->why), s->err, "cannot make a few frames: %s",
				strerror(-s->err));
	s->err = kvm_engine_create_untested(&s->engine, s->phys, 1, s->why, sizeof(s->why));
	if (s->err) {
		phys_destroy(s->phys);
		return s->err;
	}
	s->machine = &s->engine->engine.machine;
	s->root = new_table(s, 4);
	s->code = new_page(s, 0);
	s->a = new_page(s, 'A');
	s->b = new_page(s, 'B');
	s->c = new_page(s, 'C');
	if (!s->err)
		memcpy(words(s, s->code), kvm_probe_load, kvm_probe_code_end - kvm_probe_load);
	map(s, GVA_CODE, s->code);
	map(s, GVA_DATA, s->c);
	load_root(s, s->root);
	if (guest_reads(s, GVA_DATA) != 'C')
		give_up(s, -ENODEV, "the guest does not read what is there");
	return s->err;
}

/* No vCPU runs any more: every frame may simply go. */
static void scratch_destroy(struct scratch *s)
{
	pfn_t pages[] = {s->code, s->a, s->b, s->c};

	for (unsigned int i = 0; i < s->nr_tables; i++)
		s->machine->ops->free_table(s->machine, s->tables[i]);
	for (unsigned int i = 0; i < ARRAY_SIZE(pages); i++)
		if (pages[i] != INVALID_PFN)
			phys_put(s->phys, pages[i]);
	kvm_engine_destroy(s->engine);
	phys_destroy(s->phys);
}

/* Experiment 1. */
static bool host_shadows_tables(struct scratch *s)
{
	pfn_t copy = new_table(s, 4);
	bool stale;

	map(s, GVA_FIRST, s->a);
	if (guest_reads(s, GVA_FIRST) != 'A')
		give_up(s, -ENODEV, "the guest does not read what is there");
	map(s, GVA_FIRST, s->b);
	if (!s->err)
		memcpy(words(s, copy), words(s, s->root), PAGE_SIZE);
	load_root(s, copy);
	stale = guest_reads(s, GVA_FIRST) == 'A';
	load_root(s, s->root);
	set_entry(s, GVA_FIRST, 1, 0);
	shoot(s, s->a);
	shoot(s, s->b);
	return stale;
}

/* Experiment 2. */
static bool shootdown_works(struct scratch *s)
{
	bool works;

	map(s, GVA_FIRST, s->a);
	works = guest_reads(s, GVA_FIRST) == 'A';
	set_entry(s, GVA_FIRST, 1, 0);
	shoot(s, s->a);
	works &= guest_reads(s, GVA_FIRST) == 0;
	map(s, GVA_FIRST, s->b);
	works &= guest_reads(s, GVA_FIRST) == 'B';
	set_entry(s, GVA_FIRST, 1, 0);
	shoot(s, s->b);
	works &= guest_reads(s, GVA_FIRST) == 0;
	if (!works)
		give_up(s, -ENODEV,
			"a page that was taken away and shot down stayed visible to the guest");
	return works;
}

static void toggle(struct scratch *s)
{
	int err = s->err;

	if (err)
		return;
	mutex_lock(&s->engine->quarantine_lock);
	kvm_gate_close(s->engine);
	err = kvm_mem_toggle(s->engine);
	kvm_gate_open(s->engine);
	mutex_unlock(&s->engine->quarantine_lock);
	if (err)
		give_up(s, err, "KVM does not take a memory slot back");
}

/* Experiment 3. */
static bool needs_quarantine(struct scratch *s)
{
	uint64_t *leaf, *dir;
	uint64_t link;
	bool stale;

	map(s, GVA_FIRST, s->a);
	entry(s, GVA_OTHER, 2); /* every table above T's new place */
	leaf = entry(s, GVA_FIRST, 1);
	dir = entry(s, GVA_FIRST, 2);
	if (guest_reads(s, GVA_FIRST) != 'A')
		give_up(s, -ENODEV, "the guest does not read what is there");
	if (s->err)
		return true;

	*leaf = 0;
	shoot(s, s->a);
	link = *dir;
	*dir = 0;
	shoot(s, (link & ADDR_MASK) >> PAGE_SHIFT);

	*leaf = s->c << PAGE_SHIFT | ENTRY_BITS; /* index 0 in both places */
	set_entry(s, GVA_OTHER, 2, link);
	if (guest_reads(s, GVA_OTHER) != 'C')
		give_up(s, -ENODEV, "a reused table does not work at its new place");
	stale = guest_reads(s, GVA_FIRST) != 0;
	if (stale) {
		toggle(s);
		if (guest_reads(s, GVA_FIRST) != 0)
			give_up(s, -ENODEV,
				"an unlinked page table stayed in use, whatever was done about it");
		if (guest_reads(s, GVA_OTHER) != 'C')
			give_up(s, -ENODEV, "memory is gone after its slot was taken back");
	}
	return stale;
}

/* Experiment 4. */
static bool huge_works(struct scratch *s)
{
	static const unsigned int pages[] = {0, 5, 511};
	bool works = true;

	for (unsigned int i = 0; i < ARRAY_SIZE(pages); i++)
		words(s, HUGE_FIRST + pages[i])[0] = 'H' + i;
	set_entry(s, GVA_HUGE, 2, (uint64_t)HUGE_FIRST << PAGE_SHIFT | ENTRY_BITS | PS);
	for (unsigned int i = 0; i < ARRAY_SIZE(pages); i++)
		works &= guest_reads(s, GVA_HUGE + (pages[i] << PAGE_SHIFT)) == 'H' + i;
	set_entry(s, GVA_HUGE, 2, 0);
	if (!s->err && s->machine->ops->shootdown_range(s->machine, HUGE_FIRST, 512))
		give_up(s, -errno, "madvise(MADV_DONTNEED) on guest memory");
	for (unsigned int i = 0; i < ARRAY_SIZE(pages); i++)
		works &= guest_reads(s, GVA_HUGE + (pages[i] << PAGE_SHIFT)) == 0;
	return works;
}

/*
 * Whether create() must quarantine retired tables, and whether entries may map 2 MiB. Some exits of
 * a guest, so done for every machine: the answer depends on the module that is loaded now.
 */
int kvm_probe_tables(bool *quarantine, bool *huge, char *why, size_t why_len)
{
	struct scratch s;
	int err = scratch_create(&s);

	if (err)
		return why_fail(why, why_len, err, "%s", s.why);
	*huge = !host_shadows_tables(&s);
	shootdown_works(&s);
	*quarantine = needs_quarantine(&s);
	*huge = *huge && !*quarantine && huge_works(&s);
	err = s.err;
	scratch_destroy(&s);
	return err ? why_fail(why, why_len, err, "%s", s.why) : 0;
}

/* What doctor reports beyond that. */

static double now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e6 + t.tv_nsec * 1e-3;
}

static int compare_doubles(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(double *samples, unsigned int nr)
{
	qsort(samples, nr, sizeof(*samples), compare_doubles);
	return samples[nr / 2];
}

/* The guest stands at a UD2 and is sent back to it each time. */
static double measure_trap(struct scratch *s)
{
	double samples[NR_TRAPS];

	guest_reads(s, GVA_DATA);
	for (int i = -WARM_UP; i < NR_TRAPS; i++) {
		double t = now_us();

		run(s);
		if (i >= 0)
			samples[i] = now_us() - t;
	}
	return median(samples, NR_TRAPS);
}

/* Of a frame that the guest has just used. */
static double measure_shootdown(struct scratch *s)
{
	double samples[NR_SHOOTDOWNS];

	map(s, GVA_FIRST, s->a);
	for (int i = 0; i < NR_SHOOTDOWNS; i++) {
		double t;

		guest_reads(s, GVA_FIRST);
		t = now_us();
		shoot(s, s->a);
		samples[i] = now_us() - t;
	}
	return median(samples, NR_SHOOTDOWNS);
}

static bool sgdt_traps(struct scratch *s)
{
	start(s, kvm_probe_sgdt, GVA_DATA);
	return run(s) == VECTOR_GP;
}

static void note_experiments(struct scratch *s, struct engine_report *report)
{
	bool shadows = host_shadows_tables(s), shootdown = shootdown_works(s);
	bool quarantine = needs_quarantine(s), huge = huge_works(s);

	engine_note_flag(report, "host_shadows_tables", "host shadows our tables", shadows, NULL);
	engine_note_flag(report, "shootdown_works", "shootdown works", shootdown, NULL);
	engine_note_flag(report, "needs_quarantine", "retired tables need", quarantine,
			 quarantine ? "quarantine" : "no quarantine");
	engine_note_flag(report, "huge_works", "entries of 2 MiB", huge,
			 !huge			 ? "do not work"
			 : shadows || quarantine ? "work, not used, as the host shadows our tables"
						 : "used");
	engine_note_flag(report, "umip", "UMIP", sgdt_traps(s), NULL);
}

void kvm_probe(struct engine_report *report)
{
	struct scratch s;

	memset(report, 0, sizeof(*report));
	if (scratch_create(&s)) {
		memcpy(report->why, s.why, sizeof(report->why));
		return;
	}
	note_experiments(&s, report);
	report->trap_floor_us = measure_trap(&s);
	report->shootdown_us = measure_shootdown(&s);
	report->usable = s.err == 0;
	if (s.err)
		memcpy(report->why, s.why, sizeof(report->why));
	scratch_destroy(&s);
}
