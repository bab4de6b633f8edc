/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A small exhaustive explorer of programs on a machine with a weak memory, for the models of
 * protocols beside it (docs/srcu.md says what is assumed and what it proves).
 *
 * The machine has one memory, which all threads see alike (multi-copy atomic, as ARMv8 is); what is
 * weak is the order in which a thread gets to it. Any access may happen before an earlier one of
 * its thread, except:
 *
 *  1. across a full barrier, after an acquire, before a release. An acquire may come before an
 *     earlier release (RCpc: weaker than ARM's plain pair of them);
 *  2. if it needs the value of an earlier load, for its address or for what it stores;
 *  3. a store, if an earlier branch is not decided. Loads are speculated past branches;
 *  4. to the same location. But a load may take the value of an earlier store of its own thread
 *     before that store is in memory.
 *
 * M, the heavy barrier, is a full barrier in its thread, and lasts. From its beginning to its end
 * each other thread is cut once: at a moment when all that stands before some compiler barrier in
 * its text is done, and nothing that stands after the next one. So a compiler barrier orders
 * accesses against M, and against nothing else; accesses without one between them may be on either
 * side, in any order, as a compiler might have put them.
 *
 * A program is a text of few instructions with forward branches; loops are unrolled by whoever
 * writes the model, or are a WM_AWAIT. Values are 0 to 15.
 */
#ifndef TESTS_MODELS_WMM_H
#define TESTS_MODELS_WMM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define WM_THREADS 4
#define WM_LOCS	   32
#define WM_REGS	   16
#define WM_INSNS   32 /* of a thread, on one path through its branches */
#define WM_TEXT	   48
#define WM_PATHS   16

enum wm_op {
	WM_LD,
	WM_ST,
	WM_ADD,	 /* one atomic read-modify-write; what was found goes to reg */
	WM_XCHG, /* the same */
	WM_MB,
	WM_M,
	WM_CB,	   /* compiler barrier */
	WM_SET,	   /* reg = value */
	WM_ASSUME, /* executions where this does not hold are not looked at */
	WM_BRANCH, /* goes to target where it holds */
};

enum wm_order { WM_RELAXED, WM_ACQUIRE, WM_RELEASE, WM_FULL };

#define WM_NONE 255	    /* no register */
#define R(n)	(1u << (n)) /* a set of registers, for the sums below */

/* k + the sum of some registers. */
struct wm_value {
	uint8_t k;
	uint16_t regs;
};

/* sum of a == sum of b + k, or the opposite. */
struct wm_cond {
	uint16_t a, b;
	uint8_t k;
	bool differ;
};

struct wm_insn {
	enum wm_op op;
	enum wm_order order;
	uint8_t loc;
	uint8_t index; /* a register whose lowest bit is added to loc, or WM_NONE */
	uint8_t reg;   /* where a load or read-modify-write puts what it found, or WM_NONE */
	bool await;    /* happens only when it finds what @expected says */
	uint8_t expected;
	struct wm_value value;
	struct wm_cond cond;
	uint8_t target;
};

struct wm_program {
	const char *name;
	unsigned int n;
	struct wm_insn text[WM_TEXT];
	uint16_t keep; /* registers that outcomes look at */
};

/* How one execution ended. */
struct wm_final {
	uint8_t mem[WM_LOCS];
	uint8_t regs[WM_THREADS][WM_REGS];
};

struct wm_outcome {
	const char *name;
	bool (*holds)(const struct wm_final *final);
};

#define WM_OUTCOMES 8

struct wm_model {
	unsigned int nr_threads;
	struct wm_program threads[WM_THREADS];
	uint8_t init[WM_LOCS];
	const char *loc_names[WM_LOCS];
	/* What must not be, and what must be possible lest the model prove nothing. */
	struct wm_outcome bad;
	struct wm_outcome reached[WM_OUTCOMES];
	bool to_first_bad; /* stop there; else the whole space is explored */
	bool unreduced;	   /* see ample_move() in wmm.c */
	FILE *trace;	   /* a shortest execution to the first bad outcome */
};

struct wm_result {
	size_t states;
	size_t finals;	 /* states in which all threads are done */
	size_t stuck;	 /* states in which a WM_AWAIT waits for ever */
	size_t outcomes; /* finals that differ in memory or in a register that is kept */
	uint64_t digest; /* of the set of outcomes */
	size_t bad;	 /* finals with the bad outcome */
	size_t reached[WM_OUTCOMES]; /* finals with each of the others */
};

struct wm_result wm_explore(const struct wm_model *model);

/* ---- how to write a program ---- */

struct wm_program *wm_thread(struct wm_model *model, const char *name);

/* Adds an instruction, and returns its number. In @insn 0 for index or reg means register 0. */
unsigned int wm_insn(struct wm_program *p, struct wm_insn insn);

static inline void wm_load(struct wm_program *p, uint8_t reg, uint8_t loc, enum wm_order order)
{
	wm_insn(p, (struct wm_insn){
			   .op = WM_LD, .order = order, .loc = loc, .index = WM_NONE, .reg = reg});
}

static inline void wm_load_at(struct wm_program *p, uint8_t reg, uint8_t loc, uint8_t index)
{
	wm_insn(p, (struct wm_insn){.op = WM_LD, .loc = loc, .index = index, .reg = reg});
}

/* Waits until @loc is @expected, as a loop of loads would. */
static inline void wm_await(struct wm_program *p, uint8_t reg, uint8_t loc, uint8_t expected,
			    enum wm_order order)
{
	wm_insn(p, (struct wm_insn){.op = WM_LD,
				    .order = order,
				    .loc = loc,
				    .index = WM_NONE,
				    .reg = reg,
				    .await = true,
				    .expected = expected});
}

static inline void wm_store(struct wm_program *p, uint8_t loc, uint8_t k, enum wm_order order)
{
	wm_insn(p, (struct wm_insn){.op = WM_ST,
				    .order = order,
				    .loc = loc,
				    .index = WM_NONE,
				    .reg = WM_NONE,
				    .value = {.k = k}});
}

/* Stores @k + the sum of @regs. */
static inline void wm_store_sum(struct wm_program *p, uint8_t loc, uint8_t k, uint16_t regs)
{
	wm_insn(p, (struct wm_insn){.op = WM_ST,
				    .loc = loc,
				    .index = WM_NONE,
				    .reg = WM_NONE,
				    .value = {.k = k, .regs = regs}});
}

static inline void wm_add_at(struct wm_program *p, uint8_t reg, uint8_t loc, uint8_t index,
			     uint8_t k, enum wm_order order)
{
	wm_insn(p, (struct wm_insn){.op = WM_ADD,
				    .order = order,
				    .loc = loc,
				    .index = index,
				    .reg = reg,
				    .value = {.k = k}});
}

static inline void wm_add(struct wm_program *p, uint8_t reg, uint8_t loc, uint8_t k,
			  enum wm_order order)
{
	wm_add_at(p, reg, loc, WM_NONE, k, order);
}

static inline void wm_xchg(struct wm_program *p, uint8_t reg, uint8_t loc, uint8_t k,
			   enum wm_order order)
{
	wm_insn(p, (struct wm_insn){.op = WM_XCHG,
				    .order = order,
				    .loc = loc,
				    .index = WM_NONE,
				    .reg = reg,
				    .value = {.k = k}});
}

/* A spinlock in @loc. */
static inline void wm_lock(struct wm_program *p, uint8_t loc)
{
	wm_insn(p, (struct wm_insn){.op = WM_XCHG,
				    .order = WM_ACQUIRE,
				    .loc = loc,
				    .index = WM_NONE,
				    .reg = WM_NONE,
				    .await = true,
				    .expected = 0,
				    .value = {.k = 1}});
}

static inline void wm_unlock(struct wm_program *p, uint8_t loc)
{
	wm_store(p, loc, 0, WM_RELEASE);
}

static inline void wm_op(struct wm_program *p, enum wm_op op)
{
	wm_insn(p, (struct wm_insn){.op = op, .index = WM_NONE, .reg = WM_NONE});
}

static inline void wm_set(struct wm_program *p, uint8_t reg, uint8_t k)
{
	wm_insn(p, (struct wm_insn){.op = WM_SET, .index = WM_NONE, .reg = reg, .value = {.k = k}});
}

/* Registers as sets: sum of @a == sum of @b + @k. */
static inline struct wm_cond wm_eq(uint16_t a, uint16_t b, uint8_t k)
{
	return (struct wm_cond){.a = a, .b = b, .k = k};
}

static inline struct wm_cond wm_ne(uint16_t a, uint16_t b, uint8_t k)
{
	return (struct wm_cond){.a = a, .b = b, .k = k, .differ = true};
}

static inline void wm_assume(struct wm_program *p, struct wm_cond cond)
{
	wm_insn(p,
		(struct wm_insn){.op = WM_ASSUME, .index = WM_NONE, .reg = WM_NONE, .cond = cond});
}

/* Where @cond holds, on to where wm_land() is called with what this returns. */
static inline unsigned int wm_branch(struct wm_program *p, struct wm_cond cond)
{
	return wm_insn(p, (struct wm_insn){
				  .op = WM_BRANCH, .index = WM_NONE, .reg = WM_NONE, .cond = cond});
}

static inline void wm_land(struct wm_program *p, unsigned int branch)
{
	p->text[branch].target = (uint8_t)p->n;
}

/* Always there. */
static inline unsigned int wm_jump(struct wm_program *p)
{
	return wm_branch(p, wm_eq(0, 0, 0));
}

/* Outcomes look at these registers. */
static inline void wm_keep(struct wm_program *p, uint16_t regs)
{
	p->keep |= regs;
}

#endif
