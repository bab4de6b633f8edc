/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vmm/engine_scratch.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "notifier/sync/bug.h"
#include "notifier/sync/util.h"
#include "vmm/why.h"

#define NR_TRAPS      301
#define NR_SHOOTDOWNS 101
#define WARM_UP	      10

/* clang-format off */
extern const char scratch_code_end[];
asm(	".pushsection .rodata\n"
	".hidden scratch_load, scratch_sgdt, scratch_code_end\n"
	".globl scratch_load, scratch_sgdt, scratch_code_end\n"
	"scratch_load:\n"
	"	mov (%rdi), %rax\n"
	"	ud2\n"
	"scratch_sgdt:\n"
	"	sgdt (%rdi)\n"
	"	ud2\n"
	"scratch_code_end:\n"
	".popsection\n");
/* clang-format on */

void scratch_give_up(struct scratch *s, int err, const char *what)
{
	if (!s->err)
		s->err = why_fail(s->why, sizeof(s->why), err,
				  "the start-up experiments failed: %s", what);
}

uint64_t *scratch_words(struct scratch *s, pfn_t pfn)
{
	return phys_map(s->phys, pfn);
}

pfn_t scratch_new_table(struct scratch *s, int level)
{
	pfn_t pfn = INVALID_PFN;

	BUG_ON(s->nr_tables == ARRAY_SIZE(s->tables));
	if (!s->err)
		pfn = s->machine->ops->alloc_table(s->machine, level);
	if (pfn == INVALID_PFN)
		scratch_give_up(s, -ENOMEM, "out of frames");
	else
		s->tables[s->nr_tables++] = pfn;
	return pfn;
}

static pfn_t new_page(struct scratch *s, uint64_t name)
{
	pfn_t pfn = phys_alloc_zeroed(s->phys);

	if (pfn == INVALID_PFN)
		scratch_give_up(s, -ENOMEM, "out of frames");
	else
		scratch_words(s, pfn)[0] = name;
	return pfn;
}

uint64_t *scratch_entry(struct scratch *s, uint64_t gva, int level)
{
	pfn_t table = s->root;

	for (int l = 4; !s->err; l--) {
		uint64_t *e = &scratch_words(s, table)[gva >> (3 + 9 * l) & 511];

		if (l == level)
			return e;
		if (!*e) {
			pfn_t next = scratch_new_table(s, l - 1);

			if (!s->err)
				*e = next << PAGE_SHIFT | SCRATCH_BITS;
		}
		table = (*e & SCRATCH_ADDR) >> PAGE_SHIFT;
	}
	return NULL;
}

void scratch_set(struct scratch *s, uint64_t gva, int level, uint64_t value)
{
	uint64_t *e = scratch_entry(s, gva, level);

	if (e)
		*e = value;
}

void scratch_map(struct scratch *s, uint64_t gva, pfn_t pfn)
{
	scratch_set(s, gva, 1, pfn << PAGE_SHIFT | SCRATCH_BITS);
}

void scratch_shoot(struct scratch *s, pfn_t pfn)
{
	int err = s->err ?: s->machine->ops->shootdown(s->machine, &pfn, 1);

	if (err)
		scratch_give_up(s, err, "shooting a frame down");
}

int scratch_run(struct scratch *s)
{
	struct engine_exit exit;

	if (s->err)
		return -1;
	do {
		s->engine->ops->vcpu_run(s->engine, 0, &exit);
	} while (exit.kind == ENGINE_EXIT_KICK);
	if (exit.kind == ENGINE_EXIT_TRAP)
		return exit.vector;
	scratch_give_up(s, -ENODEV, exit.why);
	return -1;
}

void scratch_start(struct scratch *s, const char *program, uint64_t rdi)
{
	struct guest_regs *regs = s->engine->ops->regs(s->engine, 0);

	regs->rip = GVA_CODE + (program - scratch_load);
	regs->gpr[GPR_RDI] = rdi;
}

uint64_t scratch_read(struct scratch *s, uint64_t gva)
{
	int vector;

	scratch_start(s, scratch_load, gva);
	vector = scratch_run(s);
	if (vector == VECTOR_UD)
		return s->engine->ops->regs(s->engine, 0)->gpr[GPR_RAX];
	if (vector >= 0 && vector != VECTOR_PF)
		scratch_give_up(s, -ENODEV, "a load by the guest raised neither #UD nor #PF");
	return 0;
}

void scratch_load_root(struct scratch *s, pfn_t root)
{
	if (!s->err)
		s->machine->ops->load_root(s->machine, 0, root);
}

int scratch_create(struct scratch *s, scratch_engine_fn create)
{
	memset(s, 0, sizeof(*s));
	s->err = phys_create(&s->phys, SCRATCH_FRAMES);
	if (s->err)
		return why_fail(s->why, sizeof(s->why), s->err, "cannot make a few frames: %s",
				strerror(-s->err));
	s->err = create(&s->engine, s->phys, 1, s->why, sizeof(s->why));
	if (s->err) {
		phys_destroy(s->phys);
		return s->err;
	}
	s->machine = &s->engine->machine;
	s->root = scratch_new_table(s, 4);
	s->code = new_page(s, 0);
	s->a = new_page(s, 'A');
	s->b = new_page(s, 'B');
	s->c = new_page(s, 'C');
	if (!s->err)
		memcpy(scratch_words(s, s->code), scratch_load, scratch_code_end - scratch_load);
	scratch_map(s, GVA_CODE, s->code);
	scratch_map(s, GVA_DATA, s->c);
	scratch_load_root(s, s->root);
	if (scratch_read(s, GVA_DATA) != 'C')
		scratch_give_up(s, -ENODEV, "the guest does not read what is there");
	if (s->err)
		scratch_destroy(s);
	return s->err;
}

/* No vCPU runs any more: every frame may simply go. */
void scratch_destroy(struct scratch *s)
{
	pfn_t pages[] = {s->code, s->a, s->b, s->c};

	for (unsigned int i = 0; i < s->nr_tables; i++)
		s->machine->ops->free_table(s->machine, s->tables[i]);
	for (unsigned int i = 0; i < ARRAY_SIZE(pages); i++)
		if (pages[i] != INVALID_PFN)
			phys_put(s->phys, pages[i]);
	s->engine->ops->destroy(s->engine);
	phys_destroy(s->phys);
}

bool scratch_shootdown_works(struct scratch *s)
{
	bool works;

	scratch_map(s, GVA_FIRST, s->a);
	works = scratch_read(s, GVA_FIRST) == 'A';
	scratch_set(s, GVA_FIRST, 1, 0);
	scratch_shoot(s, s->a);
	works &= scratch_read(s, GVA_FIRST) == 0;
	scratch_map(s, GVA_FIRST, s->b);
	works &= scratch_read(s, GVA_FIRST) == 'B';
	scratch_set(s, GVA_FIRST, 1, 0);
	scratch_shoot(s, s->b);
	works &= scratch_read(s, GVA_FIRST) == 0;
	if (!works)
		scratch_give_up(
			s, -ENODEV,
			"a page that was taken away and shot down stayed visible to the guest");
	return works;
}

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
double scratch_measure_trap(struct scratch *s)
{
	double samples[NR_TRAPS];

	scratch_read(s, GVA_DATA);
	for (int i = -WARM_UP; i < NR_TRAPS; i++) {
		double t = now_us();

		scratch_run(s);
		if (i >= 0)
			samples[i] = now_us() - t;
	}
	return median(samples, NR_TRAPS);
}

/* Of a frame that the guest has just used. */
double scratch_measure_shootdown(struct scratch *s)
{
	double samples[NR_SHOOTDOWNS];

	scratch_map(s, GVA_FIRST, s->a);
	for (int i = 0; i < NR_SHOOTDOWNS; i++) {
		double t;

		scratch_read(s, GVA_FIRST);
		t = now_us();
		scratch_shoot(s, s->a);
		samples[i] = now_us() - t;
	}
	return median(samples, NR_SHOOTDOWNS);
}

bool scratch_sgdt_traps(struct scratch *s)
{
	scratch_start(s, scratch_sgdt, GVA_DATA);
	return scratch_run(s) == VECTOR_GP;
}

void scratch_probe(struct engine_report *report, scratch_engine_fn create,
		   void (*note)(struct scratch *s, struct engine_report *report))
{
	struct scratch s;

	memset(report, 0, sizeof(*report));
	if (scratch_create(&s, create)) {
		memcpy(report->why, s.why, sizeof(report->why));
		return;
	}
	note(&s, report);
	report->trap_floor_us = scratch_measure_trap(&s);
	report->shootdown_us = scratch_measure_shootdown(&s);
	report->usable = s.err == 0;
	if (s.err)
		memcpy(report->why, s.why, sizeof(report->why));
	scratch_destroy(&s);
}
