/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Programs of what guests, devices and the host do (tests/coherence), made by the fuzzer: the same
 * world and the same oracle, with an audit after each operation; and where the program says so, and
 * at its end, all CPUs flush all that they keep, after which our entries must be what the guest's
 * are (SHADOW_AUDIT_IN_SYNC).
 *
 * One byte says how many CPUs there are, and whether tables are few; each operation is a handful
 * of bytes. A number that is none of its range stands for one that is: so most edits make sense.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <gnomon/log.h>

#include "notifier/sync/util.h"
#include "tests/coherence/generate.h"
#include "tests/fuzz/bytes.h"

#define MAX_OPS	  200
#define FLUSH_OPS (1 + MAX_CPUS * 4)

/* The program, as far as it was done. */
static struct {
	int nr, cpus;
	unsigned long budget;
	struct op ops[MAX_OPS + 2 * FLUSH_OPS];
} program;

static void print_program(void)
{
	fprintf(stderr, "the program, for coherence --replay:\ncpus=%d budget=%lu\n", program.cpus,
		program.budget);
	for (int i = 0; i < program.nr; i++)
		op_print(stderr, &op_format, &program.ops[i]);
}

void differ(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	fprintf(stderr, "fuzz: ");
	vfprintf(stderr, fmt, args);
	fprintf(stderr, "\n");
	va_end(args);
	print_program();
	abort();
}

static void hear(enum gnomon_log_level level, const char *message, void *arg)
{
	(void)arg;
	if (level == GNOMON_LOG_WARN)
		differ("%s", message);
	if (level != GNOMON_LOG_BUG)
		return;
	fprintf(stderr, "%s\n", message);
	print_program();
}

static void do_one(struct world *w, const struct op *op)
{
	program.ops[program.nr++] = *op;
	step(w, op);
}

/* Whatever CPUs keep of roots they load, and flush. Nobody edits meanwhile. */
static void flush_all(struct world *w)
{
	static const struct {
		int root, pcid;
	} kept[] = {{0, 0}, {1, 1}, {2, 2}, {0, 1}};
	const struct op tell = {.kind = OP_TELL};
	char why[256];

	do_one(w, &tell);
	for (unsigned int cpu = 0; cpu < w->nr_cpus; cpu++) {
		for (unsigned int i = 0; i < ARRAY_SIZE(kept); i++) {
			const struct op load = {.kind = OP_CR3,
						.cpu = cpu,
						.to = kept[i].root,
						.flags = kept[i].pcid};

			do_one(w, &load);
		}
	}
	if (shadow_audit_at(w->g.shadow, SHADOW_AUDIT_IN_SYNC, why, sizeof(why)))
		differ("audit, after all was flushed: %s", why);
}

/* ---- an operation, of bytes ---- */

/* What an entry names: a page of RAM, table or data, one of a slot, or nothing. */
static int entry_target(unsigned int byte)
{
	static const int base[] = {SLOT1_GFN, SLOT1_OTHER, SLOT2_GFN};

	if (byte >= 252)
		return NO_GFN;
	if (byte < 128)
		return byte % (FIRST_TABLE + NR_TABLES);
	return base[byte / SLOT_PAGES % ARRAY_SIZE(base)] + byte % SLOT_PAGES;
}

static void entry_value(struct bytes *b, struct op *op)
{
	op->to = entry_target(take(b, 1));
	/* No bit set in the input is what a guest would have. */
	op->flags = (take(b, 2) & 0x7ff) ^ (EDIT_P | EDIT_W | EDIT_U | EDIT_A | EDIT_D);
}

/* Of a table anywhere, of one on the way to an address, or A and D of the map that edits go by. */
static void edit(struct world *w, struct bytes *b, struct op *op)
{
	unsigned int where = take(b, 1);

	entry_value(b, op);
	if (where % 16 == 15) {
		op->page = LINEAR_L1;
		op->word = where / 16 * 2 + op->to % 2;
		op->to = op->word;
		op->flags = EDIT_P | EDIT_W | (op->flags & (EDIT_A | EDIT_D));
	} else if (where % 16 > 8) {
		op->page = FIRST_TABLE + where / 16;
	} else {
		entry_of_gva(w, op->cpu, op->gva % NR_WILD, where % 5, op);
	}
}

static void device(struct bytes *b, struct op *op)
{
	unsigned int where = take(b, 1);

	op->page = where < 128 ? FIRST_TABLE + where % NR_TABLES
			       : FIRST_SHARED + where % (NR_PAGES - FIRST_SHARED);
	if (is_table(op->page))
		entry_value(b, op);
}

static void by_a_cpu(struct world *w, struct bytes *b, struct op *op)
{
	unsigned int where;

	switch (op->kind) {
	case OP_EDIT:
		edit(w, b, op);
		break;
	case OP_CR3:
		where = take(b, 1);
		op->to = where % NR_ROOTS;
		op->flags = where / NR_ROOTS % NR_PCIDS;
		op->how = !!op->how;
		break;
	case OP_INVPCID:
		op->flags = take(b, 1) % NR_PCIDS;
		break;
	case OP_STATE:
		where = take(b, 1);
		op->how = where % 8;
		op->flags = op->how == 6 ? where / 4 : 0;
		break;
	default:
		op->how &= 1;
		break;
	}
}

static void by_the_host(struct bytes *b, struct op *op)
{
	unsigned int n = take(b, 1);

	op->page = n % NR_PAGES;
	op->to = n / NR_PAGES;
	switch (op->kind) {
	case OP_DEVICE:
		device(b, op);
		op->how &= 1;
		break;
	case OP_MIGRATE:
		op->to = op->page + op->to < RAM_PAGES ? op->to : 0;
		break;
	case OP_UNMAP:
	case OP_MAP:
	case OP_PROTECT:
		op->page = FIRST_SHARED + n % (NR_PAGES - FIRST_SHARED);
		op->to = n / (NR_PAGES - FIRST_SHARED) % SLOT_PAGES;
		op->how = op->how == 2 ? (int)(MM_PROT_READ | MM_PROT_WRITE) : op->how;
		break;
	case OP_FORK:
	case OP_EXIT:
		op->to %= MAX_CHILDREN;
		break;
	case OP_PUNCH:
		op->to = n % SLOT_PAGES;
		break;
	case OP_SLOT:
		op->page = 1 + n % 2;
		op->how %= 3;
		op->flags = n >= 192;
		break;
	case OP_AGE:
		op->how %= 3;
		break;
	default:
		op->how &= 1;
		break;
	}
}

/* Some that the test itself would do next. */
static void by_seed(struct world *w, struct bytes *b)
{
	unsigned int nr = take(b, 1) % 16;
	uint64_t seed = take(b, 2) + 1;
	struct op op;

	for (unsigned int i = 0; i <= nr && program.nr < MAX_OPS; i++) {
		generate(w, &seed, &op);
		do_one(w, &op);
	}
}

static void next_op(struct world *w, struct bytes *b, struct op *last)
{
	unsigned int kind = take(b, 1) % (NR_OP_KINDS + 2), who, gva;
	struct op op = {.kind = kind};

	if (kind == NR_OP_KINDS) {
		flush_all(w);
		return;
	}
	if (kind > NR_OP_KINDS) {
		by_seed(w, b);
		return;
	}
	/* Mostly it is about the same CPU, and the same address. */
	who = take(b, 1);
	op.cpu = who % 4 == 3 ? (int)(who / 4 % w->nr_cpus) : last->cpu;
	op.inside = who % 4 == 2 ? 1 + who / 4 % NR_INSIDE : 0;
	op.how = who / 64;
	gva = take(b, 1);
	op.gva = gva < 96 ? (int)(gva % NR_WILD) : last->gva;
	if (gva >= 240)
		op.gva = LINEAR_GVA + (gva - 240) * 4;
	op.word = gva % 4;
	*last = op;
	if (kind <= OP_STATE)
		by_a_cpu(w, b, &op);
	else
		by_the_host(b, &op);
	do_one(w, &op);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct bytes b = {data, size};
	unsigned int how = take(&b, 1);
	struct op last = {0};
	static struct world w;

	gnomon_set_log(hear, NULL);
	program.nr = 0;
	program.cpus = 1 + how % 3;
	program.budget = how >= 192 ? shadow_min_page_budget(4, program.cpus) : 0;
	world_create(&w, program.cpus, 0, false, true, program.budget);
	step_init(&w);
	while (b.left && program.nr < MAX_OPS)
		next_op(&w, &b, &last);
	step_last(&w);
	flush_all(&w);
	world_destroy(&w);
	return 0;
}
