/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "vmm/cli.h"
#include "vmm/engines.h"
#include "vmm/messages.h"
#include "vmm/options.h"
#include "vmm/run_args.h"
#include "vmm/vm.h"
#include "vmm/why.h"

#define DEFAULT_MEM	     (64UL << 20)
#define DEFAULT_PREFETCH     8
#define DEFAULT_DIRTY_MS     100
#define DIRTY_JSON_EXTENSION ".json"

enum {
	KEY_ENGINE = CLI_KEY_FIRST,
	KEY_MEM,
	KEY_RAM,
	KEY_FRAMES,
	KEY_SWAP,
	KEY_CHAOS,
	KEY_DURATION,
	KEY_SEED,
	KEY_STATS,
	KEY_QUIET,
	KEY_BREAK,
	KEY_AUDIT,
	KEY_SHADOW_PAGES,
	KEY_NO_HUGE,
	KEY_PREFETCH,
	KEY_DUMP_SHADOW,
	KEY_WHY,
	KEY_DIRTY_LOG,
	KEY_DIRTY_INTERVAL,
	KEY_DIRTY_FORMAT,
};

static const struct argp_option run_options[] = {
	{"engine", KEY_ENGINE, "NAME", 0, NULL, 0},
	{"mem", KEY_MEM, "SIZE", 0, "Guest RAM, 1M or more (default: 64M)", 0},
	{"ram", KEY_RAM, "KIND", 0,
	 "What the guest's RAM is to the host: shared (default), an object that is mapped; or "
	 "private, pages that a fork copies",
	 0},
	{"frames", KEY_FRAMES, "SIZE", 0,
	 "The machine's memory, for RAM and all tables (default: as much as they may need)", 0},
	{"swap", KEY_SWAP, "SIZE", 0,
	 "A swap file in TMPDIR or /var/tmp, 0 for none (default: as large as RAM where --frames "
	 "or "
	 "--chaos asks for one)",
	 0},
	{"shadow-pages", KEY_SHADOW_PAGES, "N", 0,
	 "At most so many shadow page tables; the least recently used make room (default: as many "
	 "as it takes)",
	 0},
	{"no-huge", KEY_NO_HUGE, NULL, 0,
	 "Map large pages of the guest by entries of 4 KiB, also where one of 2 MiB would do", 0},
	{"prefetch", KEY_PREFETCH, "N", 0,
	 "Map up to N pages at a fault, if the guest has used them before: 0, or a power of two of "
	 "at most 64 (default: 8)",
	 0},
	{"chaos", KEY_CHAOS, "KIND[=OPS_PER_SECOND],...", 0,
	 "Move the guest's memory while it runs. Kinds: migrate, unmap, protect, fork, merge, "
	 "swap, remap, age, balloon; all (of those that go with --ram); register",
	 0},
	{"duration", KEY_DURATION, "SECONDS", 0,
	 "Ask the guest to stop after so long, and kill it if it has not ended 10 s later", 0},
	{"seed", KEY_SEED, "N", 0,
	 "What the guest's and chaos's random choices come from (default: random, and told)", 0},
	{"stats", KEY_STATS, "FILE", 0, "Write what happened as a JSON object; - is stdout", 0},
	{"quiet", KEY_QUIET, NULL, 0, "Say nothing but errors (the guest still may)", 0},
	{"break", KEY_BREAK, "WHAT,...", 0,
	 "Switch a protection off, to see what it is for: zap, shootdown, shootdown-wait, retry, "
	 "retire",
	 0},
	{"audit", KEY_AUDIT, "LEVEL", OPTION_ARG_OPTIONAL,
	 "Check all shadow structures after each change, and stop at the first fault: 0 is off, 1 "
	 "against each other, 2 (also without LEVEL) and what the guest's tables gave. Slow",
	 0},
	{"dump-shadow", KEY_DUMP_SHADOW, "FILE", 0,
	 "Write the shadow tables as a tree when the guest has ended; - is stdout. SIGUSR1 asks "
	 "for "
	 "it at any time, without this on stderr",
	 0},
	{"why", KEY_WHY, "GVA", 0,
	 "Explain what becomes of a guest's address, from its own tables to ours, when the guest "
	 "has "
	 "ended and at SIGUSR1; on stderr, or FILE of --dump-shadow",
	 0},
	{"dirty-log", KEY_DIRTY_LOG, "FILE", 0,
	 "Write which parts of its memory the guest wrote, over time, when it has ended; - is "
	 "stdout",
	 0},
	{"dirty-interval", KEY_DIRTY_INTERVAL, "MS", 0,
	 "Look every so many milliseconds (default: 100)", 0},
	{"dirty-format", KEY_DIRTY_FORMAT, "KIND", 0,
	 "What --dirty-log writes: text, a map to look at, or json, its figures (default: text; "
	 "json if FILE ends in .json)",
	 0},
	CLI_OPTION_HELP,
	{0},
};

static const char run_doc[] =
	"Run a guest: one that comes with gnomon (see gnomon guests), or an ELF file."
	"\v" CLI_EXIT_CODES;

struct run_parse {
	struct run_args *args;
	bool has_seed;
	bool has_swap;
	const char *dirty_option; /* that is about --dirty-log */
	bool has_dirty_format;
};

/* What is said of the dirty log is said of one, and its file's name may say the rest. */
static int complete_dirty(struct run_parse *run, char *why, size_t why_len)
{
	struct run_args *args = run->args;
	const char *dot;

	if (!args->dirty_path)
		return run->dirty_option ? why_fail(why, why_len, -EINVAL,
						    "%s is about a dirty log: add --dirty-log FILE",
						    run->dirty_option)
					 : 0;
	if (!*args->dirty_path)
		return why_fail(why, why_len, -EINVAL, "--dirty-log needs a file, or - for stdout");
	dot = strrchr(args->dirty_path, '.');
	if (!run->has_dirty_format)
		args->dirty_json = dot && strcmp(dot, DIRTY_JSON_EXTENSION) == 0;
	return 0;
}

/* A swap file if somebody has use for it, and chaos that goes with what there is. */
static int complete(struct run_parse *run, char *why, size_t why_len)
{
	struct run_args *args = run->args;
	struct chaos_memory memory = {.private_ram = args->private_ram};
	uint64_t all_frames = vm_pool_frames(args->mem_bytes);

	if (!run->has_swap &&
	    (args->chaos.rate[CHAOS_SWAP] || (args->private_ram && args->chaos.rate[CHAOS_UNMAP]) ||
	     (args->frames_bytes && args->frames_bytes >> PAGE_SHIFT < all_frames)))
		args->swap_bytes = args->mem_bytes;
	args->swap_dir = getenv("TMPDIR");
	if (!args->swap_dir || !*args->swap_dir)
		args->swap_dir = "/var/tmp";
	memory.swap = args->swap_bytes;
	return chaos_plan_fit(&args->chaos, &memory, why, why_len);
}

/* "--audit 1" as well as "--audit=1" and "--audit": no guest is a number. */
static const char *audit_level(struct argp_state *state)
{
	const char *next = state->next < state->argc ? state->argv[state->next] : "";

	if (!*next || next[strspn(next, "0123456789")])
		return NULL;
	state->next++;
	return next;
}

static error_t run_parse(int key, char *arg, struct argp_state *state)
{
	struct cli_parse *parse = state->input;
	struct run_parse *run = parse->options;
	struct run_args *args = run->args;
	char why[256];
	int err = 0;

	switch (key) {
	case KEY_ENGINE:
		args->engine = strcmp(arg, "auto") == 0 ? NULL : engine_by_name(arg);
		if (!args->engine && strcmp(arg, "auto") != 0)
			return cli_complain(parse, "there is no engine '%s', only auto, %s", arg,
					    engine_names(" and ", why, sizeof(why)));
		break;
	case KEY_MEM:
		err = parse_size(arg, &args->mem_bytes, why, sizeof(why));
		if (err == 0 && args->mem_bytes < VM_MIN_RAM)
			return cli_complain(parse, "--mem %s is too little: a guest has 1M or more",
					    arg);
		break;
	case KEY_RAM:
		err = parse_ram(arg, &args->private_ram, why, sizeof(why));
		break;
	case KEY_FRAMES:
		err = parse_size(arg, &args->frames_bytes, why, sizeof(why));
		if (err == 0 && args->frames_bytes == 0)
			return cli_complain(parse, "--frames 0: a machine without memory");
		break;
	case KEY_SWAP:
		err = parse_size(arg, &args->swap_bytes, why, sizeof(why));
		run->has_swap = true;
		break;
	case KEY_CHAOS:
		err = parse_chaos(arg, &args->chaos, why, sizeof(why));
		break;
	case KEY_DURATION:
		err = parse_duration(arg, &args->duration_ms, why, sizeof(why));
		break;
	case KEY_SEED:
		err = parse_seed(arg, &args->seed, why, sizeof(why));
		run->has_seed = true;
		break;
	case KEY_STATS:
		args->stats_path = arg;
		break;
	case KEY_QUIET:
		args->quiet = true;
		break;
	case KEY_BREAK:
		err = parse_break(arg, &args->broken, why, sizeof(why));
		break;
	case KEY_NO_HUGE:
		args->no_huge = true;
		break;
	case KEY_SHADOW_PAGES:
		err = parse_shadow_pages(arg, &args->shadow_pages, why, sizeof(why));
		break;
	case KEY_PREFETCH:
		err = parse_prefetch(arg, &args->prefetch, why, sizeof(why));
		break;
	case KEY_AUDIT:
		args->audit = SHADOW_AUDIT_SEMANTIC;
		if (!arg)
			arg = (char *)audit_level(state);
		if (arg)
			err = parse_audit(arg, &args->audit, why, sizeof(why));
		break;
	case KEY_DUMP_SHADOW:
		args->dump_path = arg;
		break;
	case KEY_WHY:
		err = parse_gva(arg, &args->why_gva, why, sizeof(why));
		args->why = true;
		break;
	case KEY_DIRTY_LOG:
		args->dirty_path = arg;
		break;
	case KEY_DIRTY_INTERVAL:
		err = parse_interval(arg, &args->dirty_interval_ms, why, sizeof(why));
		run->dirty_option = "--dirty-interval";
		break;
	case KEY_DIRTY_FORMAT:
		err = parse_dirty_format(arg, &args->dirty_json, why, sizeof(why));
		run->dirty_option = "--dirty-format";
		run->has_dirty_format = true;
		break;
	case ARGP_KEY_ARG:
		if (args->guest)
			return cli_default(key, state);
		args->guest = arg;
		break;
	case ARGP_KEY_END:
		if (!args->guest && !parse->help)
			return cli_complain(parse, "which guest? Give a name or a file");
		if (!parse->help)
			err = complete_dirty(run, why, sizeof(why));
		if (!parse->help && err == 0)
			err = complete(run, why, sizeof(why));
		break;
	default:
		return cli_default(key, state);
	}
	return err ? cli_complain(parse, "%s", why) : 0;
}

/* What is said of --engine comes from the table of engines. argp frees what differs from @text. */
static char *run_help(int key, const char *text, void *input)
{
	char names[64], *help;

	(void)input;
	if (key != KEY_ENGINE)
		return (char *)text;
	if (asprintf(&help, "What runs the guest: auto (default: the first that works), %s",
		     engine_names(" or ", names, sizeof(names))) < 0)
		return NULL;
	return help;
}

static const struct argp run_argp = {run_options, run_parse, "GUEST", run_doc,
				     NULL,	  run_help,  NULL};

/* Short enough to type it again. */
static int random_seed(uint64_t *seed)
{
	uint32_t random;

	if (getrandom(&random, sizeof(random), 0) != sizeof(random)) {
		msg_error("getrandom: %s", strerror(errno));
		return EX_OSERR;
	}
	*seed = random;
	return EX_OK;
}

bool run_args_parse(struct run_args *args, int argc, char **argv, int *status)
{
	struct run_parse run = {.args = args};
	struct cli_parse parse = {.command = "gnomon run", .options = &run};

	*args = (struct run_args){.mem_bytes = DEFAULT_MEM,
				  .prefetch = DEFAULT_PREFETCH,
				  .dirty_interval_ms = DEFAULT_DIRTY_MS};
	if (!cli_parse(&run_argp, &parse, argc, argv, status))
		return false;
	if (!run.has_seed) {
		*status = random_seed(&args->seed);
		return *status == EX_OK;
	}
	return true;
}
