/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The table of subcommands, and nothing else. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "notifier/sync/util.h"
#include "vmm/cli.h"
#include "vmm/commands.h"
#include "vmm/messages.h"

static const struct {
	const char *name;
	const char *summary;
	int (*run)(int argc, char **argv);
} commands[] = {
	{"run", "run a guest", cmd_run},
	{"guests", "list the guests that come with gnomon", cmd_guests},
	{"doctor", "say what this machine offers, and what is missing", cmd_doctor},
};

static void print_help(void)
{
	puts("Usage: gnomon COMMAND [OPTION...]\n\n"
	     "gnomon runs tiny guests on shadow page tables of its own, and moves their memory\n"
	     "meanwhile.\n");
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		printf("  %-8s %s\n", commands[i].name, commands[i].summary);
	puts("\n  gnomon COMMAND --help tells the options of a command; gnomon --version the "
	     "version."
	     "\n\n" CLI_EXIT_CODES);
}

static int run_command(int argc, char **argv)
{
	if (argc < 2) {
		msg_error("which command? (see gnomon --help)");
		return EX_USAGE;
	}
	if (strcmp(argv[1], "--help") == 0) {
		print_help();
		return EX_OK;
	}
	if (strcmp(argv[1], "--version") == 0) {
		puts("gnomon " GNOMON_VERSION);
		return EX_OK;
	}
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
		if (strcmp(argv[1], commands[i].name) == 0)
			return commands[i].run(argc - 1, argv + 1);
	}
	msg_error("there is no %s '%s' (see gnomon --help)",
		  argv[1][0] == '-' ? "option" : "command", argv[1]);
	return EX_USAGE;
}

int main(int argc, char **argv)
{
	int status, fd;

	/* What we open must not become stdout because somebody closed that. */
	do
		fd = open("/dev/null", O_RDONLY);
	while (fd >= 0 && fd <= 2);
	if (fd >= 0)
		close(fd);
	signal(SIGPIPE, SIG_IGN); /* a write says EPIPE, and that is handled where it happens */
	messages_init();

	status = run_command(argc, argv);
	if (fflush(stdout) != 0 && status == EX_OK) {
		msg_error("cannot write to stdout: %s", strerror(errno));
		status = EX_OSERR;
	}
	return status;
}
