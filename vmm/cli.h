/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the subcommands share: exit codes, and argp made to our taste.
 *
 * argp as it comes prints two lines for a mistake and ends the process itself. Here a mistake is
 * one line that names it, and nobody but main's return value ends the process: so argp is told to
 * keep quiet (ARGP_NO_ERRS, ARGP_NO_EXIT), --help is an option of ours, and the line about an
 * option that getopt did not like is put together here.
 */
#ifndef VMM_CLI_H
#define VMM_CLI_H

#include <argp.h>
#include <stdbool.h>
#include <sysexits.h>

/*
 * EX_OK, EX_USAGE 64, EX_DATAERR 65 (bad ELF), EX_NOINPUT 66 (no such guest), EX_UNAVAILABLE 69 (no
 * usable engine), EX_SOFTWARE 70 (internal error), EX_OSERR 71 (out of memory, or an OS call
 * failed), and these. They are also in the epilogue of --help and in docs/gnomon.1.
 */
enum {
	EX_GUEST_KILLED = 125,
	EX_INTERRUPTED = 130,
};

/* The same for the end of --help. */
#define CLI_EXIT_CODES                                                                    \
	"Exit codes:\n"                                                                   \
	"  0..127  the guest's own; a guest that finds corruption gives 1\n"              \
	"  64      the command line makes no sense\n"                                     \
	"  65      the guest is no ELF file that can be loaded\n"                         \
	"  66      there is no such guest\n"                                              \
	"  69      no usable engine on this machine (gnomon doctor says why)\n"           \
	"  70      internal error: a bug in gnomon\n"                                     \
	"  71      out of memory, or the operating system refused something\n"            \
	"  125     the guest was killed, the reason is on stderr\n"                       \
	"  130     stopped by Ctrl-C, SIGTERM or SIGHUP\n"                                \
	"Where a guest's own code means something else here as well, the key outcome of " \
	"--stats tells them apart."

/* The state of one parse; argp's @input points to it. */
struct cli_parse {
	const char *command; /* "gnomon run" */
	void *options;	     /* the subcommand's own */
	bool help;
	bool complained;
};

enum {
	CLI_KEY_HELP = 0x1000,
	CLI_KEY_JSON,
	CLI_KEY_FIRST
}; /* CLI_KEY_FIRST on are the subcommands' own */

#define CLI_OPTION_HELP                                        \
	{                                                      \
		"help", CLI_KEY_HELP, NULL, 0, "Show this", -1 \
	}

/*
 * Parse with @argp, whose options include CLI_OPTION_HELP and whose parser falls back to
 * cli_default. True: go on. False: the program is done, with *status.
 */
bool cli_parse(const struct argp *argp, struct cli_parse *parse, int argc, char **argv,
	       int *status);

/* For parsers: say "gnomon run: ..." and give argp's EINVAL. */
int cli_complain(struct cli_parse *parse, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/* What a parser does about keys that are not its own, argp's "no more arguments" and the like. */
error_t cli_default(int key, struct argp_state *state);

/* The parser of a subcommand with no option but CLI_KEY_JSON: its @options is a bool. */
error_t cli_parse_json(int key, char *arg, struct argp_state *state);

#endif
