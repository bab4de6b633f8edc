/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The command line of gnomon run. */
#ifndef VMM_RUN_ARGS_H
#define VMM_RUN_ARGS_H

#include <gnomon/shadow.h>

#include "vmm/chaos.h"
#include "vmm/engine.h"

struct run_args {
	const char *guest;
	const struct engine_ops *engine; /* NULL: auto */
	uint64_t mem_bytes;
	bool private_ram;
	uint64_t frames_bytes; /* 0: as many as RAM may need */
	uint64_t swap_bytes;   /* 0: none */
	const char *swap_dir;
	struct chaos_plan chaos;
	uint64_t duration_ms;	/* 0: no end */
	uint64_t seed;		/* from the command line or, without --seed, random */
	const char *stats_path; /* NULL: none; "-": stdout */
	bool quiet;
	unsigned long shadow_pages; /* 0: as many as it takes */
	bool no_huge;
	unsigned int prefetch; /* 0: none */
	unsigned int broken;   /* SHADOW_BREAK_* */
	enum shadow_audit_level audit;
	const char *dump_path; /* of --dump-shadow; NULL: none; "-": stdout */
	bool why;
	uint64_t why_gva;
	const char *dirty_path; /* of --dirty-log; NULL: none; "-": stdout */
	uint64_t dirty_interval_ms;
	bool dirty_json; /* else text */
};

/* True: *args is complete. False: the program is done, with *status. */
bool run_args_parse(struct run_args *args, int argc, char **argv, int *status);

#endif
