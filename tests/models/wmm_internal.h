/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the files of the explorer share: programs as they are executed, and states.
 *
 *   wmm_path.c	from texts with branches to straight paths, and what must come before what
 *   wmm_step.c	one step of a thread, and what follows from it at once
 *   wmm.c	the exploration
 */
#ifndef TESTS_MODELS_WMM_INTERNAL_H
#define TESTS_MODELS_WMM_INTERNAL_H

#include "tests/models/wmm.h"

/*
 * One way through the branches of a program, as a straight text in which each branch became a
 * WM_ASSUME: a thread that guessed wrong is an execution that is not looked at. Masks are sets of
 * instructions, by position.
 */
struct wm_path {
	unsigned int n;
	struct wm_insn insn[WM_INSNS];
	uint32_t before[WM_INSNS];  /* must be done, whatever the addresses are */
	uint32_t alias[WM_INSNS];   /* earlier accesses that are, or may be, to the same location */
	uint32_t address[WM_INSNS]; /* make the register that is the index */
	uint32_t data[WM_INSNS];    /* make the registers that the value is summed from */
	uint32_t pre_cut[WM_INSNS]; /* accesses with a compiler barrier between them and this one */
	uint32_t all, accesses;	    /* all that are not accesses happen at once when they can */
	uint32_t reg_uses[WM_REGS];
	uint16_t forget; /* registers that are of no interest once they were used */
	uint32_t writes[WM_LOCS], touches[WM_LOCS]; /* that may write, may access a location */
};

struct wm_paths {
	unsigned int n[WM_THREADS];
	struct wm_path path[WM_THREADS][WM_PATHS];
};

/* Half a byte for each location and each register, so that a state is small. No padding. */
struct wm_state {
	uint64_t mem[WM_LOCS / 16];
	uint64_t regs[WM_THREADS];
	uint32_t done[WM_THREADS];
	uint8_t path[WM_THREADS];
	uint8_t cut[WM_THREADS]; /* threads that this one's M has cut, and itself; 0: not in M */
};

struct wm_run {
	const struct wm_model *model;
	struct wm_paths *paths;
};

static inline uint8_t wm_reg(const struct wm_state *s, unsigned int thread, unsigned int reg)
{
	return s->regs[thread] >> 4 * reg & 15;
}

static inline uint8_t wm_mem(const struct wm_state *s, unsigned int loc)
{
	return s->mem[loc / 16] >> 4 * (loc % 16) & 15;
}

static inline bool wm_is_access(const struct wm_insn *insn)
{
	return insn->op <= WM_XCHG;
}

static inline bool wm_is_write(const struct wm_insn *insn)
{
	return insn->op >= WM_ST && insn->op <= WM_XCHG;
}

static inline const struct wm_path *wm_path_of(const struct wm_run *run, const struct wm_state *s,
					       unsigned int thread)
{
	return &run->paths->path[thread][s->path[thread]];
}

/* Iterates @i over the bits of @mask, which is evaluated once. */
#define wm_for_each_bit(i, mask)            \
	for (uint32_t wm_left_ = (mask), i; \
	     wm_left_ && (i = (uint32_t)__builtin_ctz(wm_left_), 1); wm_left_ &= wm_left_ - 1)

/* wmm_path.c: BUGs, as failures of the test, where a text does not fit. */
void wm_make_paths(const struct wm_model *model, struct wm_paths *paths);

/* wmm_step.c */

/* May access @i of @thread happen now? */
bool wm_enabled(const struct wm_run *run, const struct wm_state *s, unsigned int thread,
		unsigned int i);
/* Lets it happen; what follows from that is up to wm_settle(). Says so on @out, if there is one. */
void wm_step(const struct wm_run *run, struct wm_state *s, unsigned int thread, unsigned int i,
	     FILE *out);
/*
 * All that happens at once when it can: barriers, cuts, decided branches. False: a branch was
 * guessed wrong.
 */
bool wm_settle(const struct wm_run *run, struct wm_state *s, FILE *out);
/* The location that access @i is to; its index is known. */
unsigned int wm_address(const struct wm_path *p, const struct wm_state *s, unsigned int thread,
			unsigned int i);

#endif
