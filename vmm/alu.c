/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Integer arithmetic as the CPU does it (SDM vol. 1, 3.4.3.1, and vol. 2 by instruction). The
 * oracle is the CPU: tests/unit/test_emulate_native.c has both do the same.
 */
#include "vmm/alu.h"

static uint64_t cut(const struct alu *alu, uint64_t value)
{
	return value & ~0UL >> (64 - alu->bits);
}

static bool top_bit(const struct alu *alu, uint64_t value)
{
	return value >> (alu->bits - 1) & 1;
}

static void set_flags(struct alu *alu, uint64_t which, uint64_t flags)
{
	alu->rflags = (alu->rflags & ~which) | flags;
}

/* ZF, SF and PF, which only the result decides. PF is about its lowest byte. */
static uint64_t result_flags(const struct alu *alu, uint64_t result)
{
	return (result ? 0 : RFLAGS_ZF) | (top_bit(alu, result) ? RFLAGS_SF : 0) |
	       (__builtin_parity(result & 0xff) ? 0 : RFLAGS_PF);
}

/*
 * @carries has a bit for each place that carried, or borrowed; there was an overflow if @overflow
 * has the top bit.
 */
static void set_sum_flags(struct alu *alu, uint64_t result, uint64_t carries, uint64_t overflow)
{
	set_flags(alu, RFLAGS_ARITHMETIC,
		  result_flags(alu, result) | (top_bit(alu, carries) ? RFLAGS_CF : 0) |
			  (carries & 1 << 3 ? RFLAGS_AF : 0) |
			  (top_bit(alu, overflow) ? RFLAGS_OF : 0));
}

/* A place carries if two of its three inputs are 1: both, or one of them and the carry, which shows
 * as a 0 in the sum. */
static uint64_t sum(struct alu *alu, uint64_t a, uint64_t b, unsigned int carry)
{
	uint64_t result = cut(alu, a + b + carry);

	set_sum_flags(alu, result, (a & b) | ((a | b) & ~result), (a ^ result) & (b ^ result));
	return result;
}

static uint64_t difference(struct alu *alu, uint64_t a, uint64_t b, unsigned int borrow)
{
	uint64_t result = cut(alu, a - b - borrow);

	set_sum_flags(alu, result, (~a & b) | ((~a | b) & result), (a ^ b) & (a ^ result));
	return result;
}

static unsigned int carry_flag(const struct alu *alu)
{
	return alu->rflags & RFLAGS_CF ? 1 : 0;
}

void alu_mov(struct alu *alu)
{
	alu->result = alu->src;
}

void alu_movbe(struct alu *alu)
{
	alu->result = __builtin_bswap64(alu->src) >> (64 - alu->bits);
}

void alu_add(struct alu *alu)
{
	alu->result = sum(alu, alu->old, alu->src, 0);
}

void alu_adc(struct alu *alu)
{
	alu->result = sum(alu, alu->old, alu->src, carry_flag(alu));
}

void alu_sub(struct alu *alu)
{
	alu->result = difference(alu, alu->old, alu->src, 0);
}

void alu_sbb(struct alu *alu)
{
	alu->result = difference(alu, alu->old, alu->src, carry_flag(alu));
}

static void logical(struct alu *alu, uint64_t result)
{
	set_flags(alu, RFLAGS_ARITHMETIC, result_flags(alu, result));
	alu->result = result;
}

void alu_and(struct alu *alu)
{
	logical(alu, alu->old & alu->src);
}

void alu_or(struct alu *alu)
{
	logical(alu, alu->old | alu->src);
}

void alu_xor(struct alu *alu)
{
	logical(alu, alu->old ^ alu->src);
}

/* INC and DEC leave CF alone. */
void alu_inc(struct alu *alu)
{
	uint64_t carry = alu->rflags & RFLAGS_CF;

	alu->result = sum(alu, alu->old, 1, 0);
	set_flags(alu, RFLAGS_CF, carry);
}

void alu_dec(struct alu *alu)
{
	uint64_t carry = alu->rflags & RFLAGS_CF;

	alu->result = difference(alu, alu->old, 1, 0);
	set_flags(alu, RFLAGS_CF, carry);
}

void alu_neg(struct alu *alu)
{
	alu->result = difference(alu, 0, alu->old, 0);
}

void alu_not(struct alu *alu)
{
	alu->result = cut(alu, ~alu->old);
}

/* The bit that is meant; CF becomes what it was. */
static uint64_t test_bit(struct alu *alu)
{
	uint64_t bit = 1UL << (alu->src & (alu->bits - 1));

	set_flags(alu, RFLAGS_CF, alu->old & bit ? RFLAGS_CF : 0);
	return bit;
}

void alu_bts(struct alu *alu)
{
	alu->result = alu->old | test_bit(alu);
}

void alu_btr(struct alu *alu)
{
	alu->result = alu->old & ~test_bit(alu);
}

void alu_btc(struct alu *alu)
{
	alu->result = alu->old ^ test_bit(alu);
}

void alu_cmpxchg(struct alu *alu)
{
	alu->result = difference(alu, alu->acc, alu->old, 0) ? alu->old : alu->src;
}

void alu_cmpxchg8b(struct alu *alu)
{
	bool equal = alu->acc == alu->old;

	set_flags(alu, RFLAGS_ZF, equal ? RFLAGS_ZF : 0);
	alu->result = equal ? alu->src : alu->old;
}

bool alu_condition(unsigned int cc, uint64_t rflags)
{
	bool carry = rflags & RFLAGS_CF, zero = rflags & RFLAGS_ZF;
	bool less = !(rflags & RFLAGS_SF) != !(rflags & RFLAGS_OF);
	bool holds[8] = {
		rflags & RFLAGS_OF, carry, zero,	 carry || zero, rflags & RFLAGS_SF,
		rflags & RFLAGS_PF, less,  less || zero,
	};

	/* The odd ones are the opposites. */
	return holds[cc >> 1] != (cc & 1);
}
