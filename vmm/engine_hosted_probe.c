/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What this machine offers a guest that runs in a process: found out by a guest of a few
 * instructions, and for the limits by asking.
 */
#include "vmm/engine_hosted.h"

#include <stdio.h>
#include <string.h>

#include "vmm/engine_scratch.h"

/* Without it, or a kernel that emulates it, the guest sees the host's descriptor tables. */
static bool sgdt_traps(struct scratch *s)
{
	scratch_start(s, scratch_sgdt, GVA_DATA);
	return scratch_run(s) == VECTOR_GP;
}

static void note_findings(struct scratch *s, struct engine_report *report)
{
	const struct hosted_engine *engine = to_hosted_engine(s->engine);

	engine_note_flag(report, "shootdown_works", "shootdown works", scratch_shootdown_works(s),
			 NULL);
	engine_note_flag(report, "seccomp", "seccomp filter", true, "works");
	engine_note_flag(report, "user_namespaces", "user namespaces", false, "not needed");
	engine_note_flag(report, "umip", "SGDT and its kin trap", sgdt_traps(s), NULL);
	engine_note_flag(report, "fsgsbase", "FS and GS bases are kept", engine->fsgsbase,
			 engine->fsgsbase ? NULL : "no (no FSGSBASE)");
	engine_note_number(report, "tlb_entries", "pages mapped at a time", engine->tlb_size,
			   "%u for each root (vm.max_map_count)", engine->tlb_size);
	engine_note_number(report, "gva_first", "lowest guest address", HOSTED_GVA_FIRST, "%#lx",
			   HOSTED_GVA_FIRST);
}

void hosted_probe(struct engine_report *report)
{
	struct scratch s;

	memset(report, 0, sizeof(*report));
	if (scratch_create(&s, engine_hosted.create)) {
		memcpy(report->why, s.why, sizeof(report->why));
		return;
	}
	note_findings(&s, report);
	report->trap_floor_us = scratch_measure_trap(&s);
	report->shootdown_us = scratch_measure_shootdown(&s);
	report->usable = s.err == 0;
	if (s.err)
		memcpy(report->why, s.why, sizeof(report->why));
	scratch_destroy(&s);
}
