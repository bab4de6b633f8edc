/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One instruction, run by the real CPU in this process with chosen registers: the oracle for who
 * carries instructions out in software.
 *
 * It may use all 16 registers. With RSP somewhere in NATIVE_STACK a signal does no harm.
 */
#ifndef TESTS_SUPPORT_NATIVE_INSN_H
#define TESTS_SUPPORT_NATIVE_INSN_H

#include <stddef.h>
#include <stdint.h>

struct native_regs {
	uint64_t gpr[16]; /* in encoding order */
	uint64_t rflags;  /* the arithmetic flags and DF; the others are the process's */
};

/* Memory below 2 GiB, so that any addressing form reaches it. */
void *native_memory(size_t len, int prot);

/* Where instructions go. Valid after native_insn_init(). */
extern uint8_t *native_code;
void native_insn_init(void);

/* Run what is at native_code + @at, @len bytes, and come back behind it. */
void native_insn_run(size_t at, size_t len, struct native_regs *regs);

#endif
