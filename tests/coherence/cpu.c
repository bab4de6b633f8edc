/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a CPU does. */
#include "tests/coherence/steps.h"

#include <errno.h>
#include <sched.h>

#include "notifier/sync/bug.h"
#include "notifier/sync/util.h"
#include "shadow/shadow_internal.h"

/* More faults on one access are a livelock: one thread meets nobody, but for one operation in the
 * middle of each. */
#define MAX_FAULTS(w) ((w)->threads ? 10000000 : 100)

/* The store to a page table, carried out for the guest. False: the slot is on its way. */
static bool emulate_store(struct world *w, const struct shadow_fault *fault, struct question *q,
			  const struct model_access *access)
{
	uint64_t value = access->value;

	if (shadow_write_gpa(w->g.shadow, fault->gpa, &value, sizeof(value)))
		return false;
	atomic64_inc(&w->emulated);
	q->got = GOT_DONE;
	return true;
}

/* False: again. */
static bool fault(struct world *w, struct question *q, struct model_access *access, bool emulate)
{
	struct shadow_fault fault = {.gva = access->gva,
				     .error_code =
					     access->error_code & (PFERR_WRITE | PFERR_FETCH)};
	enum ret_pf pf = shadow_handle_fault(w->g.shadow, q->cpu, &fault);

	switch (pf) {
	case RET_PF_FIXED:
	case RET_PF_SPURIOUS:
		return false;
	case RET_PF_RETRY:
		if (w->threads)
			sched_yield();
		return false;
	case RET_PF_WRITE_PROTECTED:
		if (emulate && access->op == MODEL_STORE)
			return emulate_store(w, &fault, q, access);
		atomic64_inc(&w->let_through);
		shadow_unprotect_gpa(w->g.shadow, fault.gpa);
		return false;
	case RET_PF_GUEST:
		q->got = GOT_FAULT;
		q->error_code = fault.error_code;
		atomic64_inc(&w->faults);
		return true;
	case RET_PF_EMULATE:
		q->got = GOT_DEVICE;
		q->gpa = fault.gpa;
		atomic64_inc(&w->device_accesses);
		return true;
	case RET_PF_BAD_HVA:
		q->got = GOT_REFUSED;
		q->hva = fault.hva;
		atomic64_inc(&w->refused);
		return true;
	case RET_PF_EXEC_ONLY:
		q->got = GOT_EXEC_ONLY;
		return true;
	default:
		differ("CPU %u at 0x%lx: %s", q->cpu, access->gva, ret_pf_name(pf));
	}
}

void access_memory(struct world *w, struct question *q, struct model_access *access, bool emulate)
{
	for (int i = 0; i < MAX_FAULTS(w); i++) {
		if (!model_access(w->g.model, q->cpu, access)) {
			q->got = GOT_DONE;
			q->value = access->value;
			return;
		}
		if (fault(w, q, access, emulate))
			return;
	}
	differ("CPU %u faults for ever at 0x%lx", q->cpu, access->gva);
}

void judge(struct world *w, const struct question *q)
{
	static const char *const kinds[] = {"load", "store", "fetch"};
	enum verdict_kind verdict = oracle_allows(w, q);

	if (verdict == ALLOWED_STALE)
		atomic64_inc(&w->stale);
	if (verdict != NOT_ALLOWED)
		return;
	if (q->got == GOT_DONE && q->kind != SDM_WRITE)
		differ("CPU %u: no order allows a %s of 0x%016llx at 0x%lx", q->cpu, kinds[q->kind],
		       (unsigned long long)q->value, gva_of(q->gva) + q->word * 8);
	if (q->got == GOT_DONE)
		differ("CPU %u: no order allows a store at 0x%lx to land in page %d", q->cpu,
		       gva_of(q->gva) + q->word * 8, q->page);
	differ("CPU %u: no order allows a %s at 0x%lx to end as %s, error code 0x%x, gpa 0x%lx, "
	       "hva "
	       "0x%lx",
	       q->cpu, kinds[q->kind], gva_of(q->gva) + q->word * 8, got_names[q->got],
	       q->error_code, q->gpa, q->hva);
}

/* A load, fetch or store of @op: fields gva, word; how: a store to a page table is emulated. */
static void apply_access(struct world *w, const struct op *op, uint64_t start)
{
	static const enum model_op ops[] = {
		[OP_LOAD] = MODEL_LOAD, [OP_FETCH] = MODEL_FETCH, [OP_STORE] = MODEL_STORE};
	static const enum sdm_kind kinds[] = {
		[OP_LOAD] = SDM_READ, [OP_FETCH] = SDM_FETCH, [OP_STORE] = SDM_WRITE};
	struct question q = {.cpu = op->cpu,
			     .gva = op->gva,
			     .word = op->word,
			     .kind = kinds[op->kind],
			     .start = start,
			     .page = -1};
	struct model_access access = {.op = ops[op->kind], .gva = gva_of(op->gva) + op->word * 8};
	struct marks marks;
	uint64_t stored;

	if (op->kind == OP_STORE)
		access.value = stored = first_stamp(127, op->word) | ++w->stamps << 1;
	oracle_marks(w, &q, &marks);
	access_memory(w, &q, &access, op->how);
	look(w, &q, &marks, op->kind == OP_STORE && q.got == GOT_DONE ? &stored : NULL);
	judge(w, &q);
	if (op->kind == OP_STORE && q.got == GOT_DONE)
		atomic64_inc(&w->stores);
}

/* The guest edits a table: entry @word of @page becomes @to with @flags. how: 1 emulated, 2 by the
 * large page of the linear map. */
static void apply_edit(struct world *w, const struct op *op, uint64_t start)
{
	struct question q = {.cpu = op->cpu,
			     .gva = (op->how & 2 ? LARGE_GVA : LINEAR_GVA) + op->page,
			     .word = op->word,
			     .kind = SDM_WRITE,
			     .start = start,
			     .page = op->page};
	struct model_access access = {.op = MODEL_STORE,
				      .gva = gva_of(q.gva) + op->word * 8,
				      .value = entry_of(op->to, op->flags)};
	struct history *h = &w->word[op->page][op->word];
	struct marks marks;

	oracle_marks(w, &q, &marks);
	history_begin(w, h, access.value);
	access_memory(w, &q, &access, op->how & 1);
	if (q.got == GOT_DONE)
		look_stored(w, &marks, op->page, op->word, entry_of(op->to, op->flags));
	else if (!is_untold(w, op->page, op->word) || w->untold_value != access.value)
		history_undo(w, h, access.value);
	look(w, &q, &marks, NULL);
	judge(w, &q);
}

/* --- what flushes */

static void flushed(struct cpu *cpu, int pcid, int gva, uint64_t start)
{
	for (int p = 0; p < NR_PCIDS; p++) {
		for (int g = 0; g < NR_GVAS; g++) {
			if ((pcid < 0 || p == pcid) && (gva < 0 || g == gva))
				cpu->since[p][g] = start;
		}
	}
}

/* to: the root; flags: the PCID; how: no flush. */
static void apply_cr3(struct world *w, const struct op *op, uint64_t start)
{
	struct cpu *cpu = &w->cpu[op->cpu];
	int ret;

	cpu->root = op->to;
	cpu->pcid = op->flags;
	cpu->state.cr3 = (uint64_t)(FIRST_TABLE + op->to) << PAGE_SHIFT | cpu->pcid;
	ret = shadow_load_cr3(w->g.shadow, op->cpu,
			      cpu->state.cr3 | (op->how ? GUEST_CR3_NOFLUSH : 0));
	ASSERT(!ret, "CPU %d: CR3 is not loaded: %d", op->cpu, ret);
	if (!op->how)
		flushed(cpu, cpu->pcid, -1, start);
}

/* how: the type; flags: the PCID; gva. */
static void apply_invpcid(struct world *w, const struct op *op, uint64_t start)
{
	int ret = shadow_invpcid(w->g.shadow, op->cpu, op->how, op->flags, gva_of(op->gva));

	ASSERT(!ret, "CPU %d: INVPCID: %d", op->cpu, ret);
	flushed(&w->cpu[op->cpu], op->how < INVPCID_ALL_GLOBAL ? op->flags : -1,
		op->how == INVPCID_ADDRESS ? op->gva : -1, start);
}

/* how: what of its state changes; flags: PKRU, of the keys 1 to 3. */
static void apply_state(struct world *w, const struct op *op, uint64_t start)
{
	static const uint64_t cr4[] = {GUEST_CR4_PGE, GUEST_CR4_SMEP, GUEST_CR4_SMAP,
				       GUEST_CR4_PKE};
	struct cpu *cpu = &w->cpu[op->cpu];
	struct guest_cpu *state = &cpu->state;
	int ret;

	if (op->how < 4)
		state->cr4 ^= cr4[op->how];
	else if (op->how == 4)
		state->cr0 ^= GUEST_CR0_WP;
	else if (op->how == 5)
		state->ac = !state->ac;
	else if (op->how == 6)
		state->pkru = (uint32_t)op->flags << 2;
	else
		state->user = !state->user;
	ret = shadow_set_cpu(w->g.shadow, op->cpu, state);
	ASSERT(!ret, "CPU %d: its state is not set: %d", op->cpu, ret);
	if (op->how == 0)
		flushed(cpu, -1, -1, start);
	if (op->how == 1 && (state->cr4 & GUEST_CR4_SMEP))
		flushed(cpu, cpu->pcid, -1, start);
}

void apply_cpu(struct world *w, const struct op *op, uint64_t start)
{
	switch (op->kind) {
	case OP_LOAD:
	case OP_FETCH:
	case OP_STORE:
		apply_access(w, op, start);
		break;
	case OP_EDIT:
		apply_edit(w, op, start);
		break;
	case OP_CR3:
		apply_cr3(w, op, start);
		break;
	case OP_INVLPG:
		shadow_invlpg(w->g.shadow, op->cpu, gva_of(op->gva));
		flushed(&w->cpu[op->cpu], -1, op->gva, start);
		break;
	case OP_INVPCID:
		apply_invpcid(w, op, start);
		break;
	default:
		apply_state(w, op, start);
		break;
	}
}
