/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What this machine offers a guest that runs in a process: found out by a guest of a few
 * instructions, and for the limits by asking.
 */
#include "vmm/engine_hosted.h"

#include <stdio.h>
#include <string.h>

#include "vmm/engine_scratch.h"

static void note_findings(struct scratch *s, struct engine_report *report)
{
	const struct hosted_engine *engine = to_hosted_engine(s->engine);

	engine_note_flag(report, "shootdown_works", "shootdown works", scratch_shootdown_works(s),
			 NULL);
	engine_note_flag(report, "seccomp", "seccomp filter", true, "works");
	engine_note_flag(report, "user_namespaces", "user namespaces", false, "not needed");
	engine_note_flag(report, "umip", "SGDT and its kin trap", scratch_sgdt_traps(s), NULL);
	engine_note_flag(report, "fsgsbase", "FS and GS bases are kept", engine->fsgsbase,
			 engine->fsgsbase ? NULL : "no (no FSGSBASE)");
	engine_note_number(report, "tlb_entries", "pages mapped at a time", engine->tlb_size,
			   "%u for each root (vm.max_map_count)", engine->tlb_size);
	engine_note_number(report, "gva_first", "lowest guest address", HOSTED_GVA_FIRST, "%#lx",
			   HOSTED_GVA_FIRST);
}

void hosted_probe(struct engine_report *report)
{
	scratch_probe(report, engine_hosted.create, note_findings);
}
