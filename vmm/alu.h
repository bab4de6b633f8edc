/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the integer instructions compute: a result and flags, of what the destination held and a
 * source. No registers and no memory in here (emulate_store.c has those).
 */
#ifndef VMM_ALU_H
#define VMM_ALU_H

#include <stdbool.h>
#include <stdint.h>

#define RFLAGS_CF (1UL << 0)
#define RFLAGS_PF (1UL << 2)
#define RFLAGS_AF (1UL << 4)
#define RFLAGS_ZF (1UL << 6)
#define RFLAGS_SF (1UL << 7)
#define RFLAGS_TF (1UL << 8)
#define RFLAGS_DF (1UL << 10)
#define RFLAGS_OF (1UL << 11)

#define RFLAGS_ARITHMETIC (RFLAGS_CF | RFLAGS_PF | RFLAGS_AF | RFLAGS_ZF | RFLAGS_SF | RFLAGS_OF)

struct alu {
	unsigned int bits; /* of all operands: 8, 16, 32 or 64. Above them nothing is set */
	uint64_t old;	   /* the destination */
	uint64_t src;	   /* the source */
	uint64_t acc;	   /* what a compare-and-exchange compares with */
	uint64_t rflags;   /* in and out */
	uint64_t result;   /* out: what the destination becomes */
};

/*
 * Flags as the manual has them. Of those that it leaves undefined, AF is cleared by the logical
 * instructions, and the others are kept.
 */
void alu_mov(struct alu *alu); /* the source; no flags */
void alu_movbe(struct alu *alu);
void alu_add(struct alu *alu);
void alu_adc(struct alu *alu);
void alu_sub(struct alu *alu);
void alu_sbb(struct alu *alu);
void alu_and(struct alu *alu);
void alu_or(struct alu *alu);
void alu_xor(struct alu *alu);
void alu_inc(struct alu *alu);
void alu_dec(struct alu *alu);
void alu_neg(struct alu *alu);
void alu_not(struct alu *alu);
/* The source is the number of a bit, of which as much counts as there are bits. */
void alu_bts(struct alu *alu);
void alu_btr(struct alu *alu);
void alu_btc(struct alu *alu);
/* Was it equal? ZF says; then the result is the source, else what it was. */
void alu_cmpxchg(struct alu *alu);
void alu_cmpxchg8b(struct alu *alu); /* the same, and no other flag changes */

/* The 16 conditions of SETcc and its kin, in encoding order. */
bool alu_condition(unsigned int cc, uint64_t rflags);

#endif
