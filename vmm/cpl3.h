/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a guest that runs at CPL3 may have in its registers, on any engine. */
#ifndef VMM_CPL3_H
#define VMM_CPL3_H

#include <stdbool.h>
#include <stdint.h>

#include <gnomon/types.h>

/*
 * Selectors are those of Linux: whoever runs CPL3 code in a process of the host's, be it a KVM or
 * an engine of ours, lets the guest see them. So MOV from CS reads the same everywhere.
 */
#define SEL_USER_SS 0x2b
#define SEL_USER_CS 0x33

#define X86_FLAGS_FIXED 0x2ul
#define X86_FLAGS_IF	(1ul << 9)
#define X86_FLAGS_GUEST 0x240dd5ul /* CF PF AF ZF SF TF DF OF AC ID */

/* Exceptions, as engine_exit.vector has them; those that somebody looks for. */
enum {
	VECTOR_DE,
	VECTOR_DB,
	VECTOR_BP = 3,
	VECTOR_OF,
	VECTOR_UD = 6,
	VECTOR_SS = 12,
	VECTOR_GP,
	VECTOR_PF,
	VECTOR_MF = 16,
	VECTOR_AC,
	VECTOR_XM = 19,
};

#define SYSCALL_INSN_LENGTH 2

static inline bool canonical(uint64_t address)
{
	return (uint64_t)((int64_t)(address << 16) >> 16) == address;
}

/*
 * The status flags, DF, TF, AC and ID are the guest's own (AC means nothing with CR0.AM clear). IF
 * is always set: the guest's own is the VMM's business. IOPL, NT, RF, VM, VIF and VIP are clear.
 */
static inline uint64_t guest_flags(uint64_t rflags)
{
	return (rflags & X86_FLAGS_GUEST) | X86_FLAGS_FIXED | X86_FLAGS_IF;
}

#endif
