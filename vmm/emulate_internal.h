/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the files that carry out instructions share. */
#ifndef VMM_EMULATE_INTERNAL_H
#define VMM_EMULATE_INTERNAL_H

#include "vmm/decode.h"
#include "vmm/emulate.h"

#define RFLAGS_RF (1UL << 16)

/* @result, and why: the instruction followed by what is wrong with it. */
enum emulate_result emulate_refuse(struct emulate_ctxt *ctxt, const struct insn *insn,
				   enum emulate_result result, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

#define kill_guest(ctxt, insn, ...) emulate_refuse(ctxt, insn, EMULATE_KILL, __VA_ARGS__)

/* Fetch what is at RIP: EMULATE_DONE (look at insn->valid), or what follows from that it cannot. */
enum emulate_result emulate_fetch(struct emulate_ctxt *ctxt, struct insn *insn);

static inline enum emulate_result finish(struct emulate_ctxt *ctxt, const struct insn *insn,
					 enum emulate_result result)
{
	ctxt->regs->rip += insn->info.length;
	/* Set by the fault that brought us here; an instruction that completes clears it. */
	ctxt->regs->rflags &= ~RFLAGS_RF;
	return result;
}

#endif
