/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "vmm/cli.h"
#include "vmm/messages.h"

int cli_complain(struct cli_parse *parse, const char *fmt, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (!parse->complained)
		msg_error("%s (see %s --help)", text, parse->command);
	parse->complained = true;
	return EINVAL;
}

/* Is anything wrong with the option @word? As getopt_long sees it, abbreviations included. */
static bool complain_of_word(struct cli_parse *parse, const struct argp_option *options,
			     const char *word)
{
	const struct argp_option *match = NULL;
	const char *name = word + 2;
	size_t len;

	if (word[0] != '-' || word[1] == '\0' || strcmp(word, "--") == 0)
		return false;
	if (word[1] != '-')
		return cli_complain(parse, "there is no option '%s'", word);

	len = strcspn(name, "=");
	for (const struct argp_option *option = options; option->name; option++) {
		if (strncmp(option->name, name, len) != 0)
			continue;
		if (strlen(option->name) == len) {
			match = option;
			break;
		}
		if (match)
			return cli_complain(parse, "'%s' may mean --%s or --%s", word, match->name,
					    option->name);
		match = option;
	}
	if (!match)
		return cli_complain(parse, "there is no option '%s'", word);
	if (match->arg && !name[len])
		return cli_complain(parse, "option '--%s' needs a value", match->name);
	if (!match->arg && name[len])
		return cli_complain(parse, "option '--%s' takes no value", match->name);
	return false;
}

/*
 * getopt gave up on an option. It is the last one that it has looked at, or, if that was a letter
 * among several, the next.
 */
static void complain_of_option(struct argp_state *state)
{
	struct cli_parse *parse = state->input;

	for (int i = state->next - 1; i <= state->next && i < state->argc; i++) {
		if (i > 0 && complain_of_word(parse, state->root_argp->options, state->argv[i]))
			return;
	}
	cli_complain(parse, "these options make no sense");
}

error_t cli_default(int key, struct argp_state *state)
{
	struct cli_parse *parse = state->input;

	switch (key) {
	case CLI_KEY_HELP:
		parse->help = true;
		return 0;
	case ARGP_KEY_ARG:
		/* Help comes before complaints, whatever else the line says. */
		return parse->help ? 0
				   : cli_complain(parse, "what is '%s' for?",
						  state->argv[state->next - 1]);
	case ARGP_KEY_ERROR:
		if (!parse->complained)
			complain_of_option(state);
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

error_t cli_parse_json(int key, char *arg, struct argp_state *state)
{
	struct cli_parse *parse = state->input;
	bool *json = parse->options;

	(void)arg;
	if (key != CLI_KEY_JSON)
		return cli_default(key, state);
	*json = true;
	return 0;
}

bool cli_parse(const struct argp *argp, struct cli_parse *parse, int argc, char **argv, int *status)
{
	error_t err;

	argp_err_exit_status = EX_USAGE; /* not that it should get that far */
	err = argp_parse(argp, argc, argv, ARGP_NO_ERRS | ARGP_NO_EXIT | ARGP_NO_HELP, NULL, parse);
	if (parse->help && !parse->complained) {
		char name[64];

		snprintf(name, sizeof(name), "%s", parse->command);
		argp_help(argp, stdout, ARGP_HELP_SHORT_USAGE | ARGP_HELP_LONG | ARGP_HELP_DOC,
			  name);
		*status = EX_OK;
		return false;
	}
	*status = err == 0 ? EX_OK : err == ENOMEM ? EX_OSERR : EX_USAGE;
	return err == 0;
}
