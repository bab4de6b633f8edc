/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* gnomon guests: the guests that are built in. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "guests/bundled.h"
#include "vmm/cli.h"
#include "vmm/commands.h"
#include "vmm/messages.h"
#include "vmm/stats.h"

static const struct argp_option guests_options[] = {
	{"json", CLI_KEY_JSON, NULL, 0, "As a JSON array of objects: name, summary, size", 0},
	CLI_OPTION_HELP,
	{0},
};

static const struct argp guests_argp = {
	guests_options, cli_parse_json, NULL, "List the guests that come with gnomon.",
	NULL,		NULL,		NULL};

static int print_json(void)
{
	json_t *array = json_array();
	int err = array ? 0 : -ENOMEM;

	for (size_t i = 0; i < nr_bundled_guests && err == 0; i++) {
		const struct bundled_guest *guest = &bundled_guests[i];

		if (json_array_append_new(array, json_pack("{s:s, s:s, s:I}", "name", guest->name,
							   "summary", guest->summary, "size",
							   (json_int_t)guest->size)) != 0)
			err = -ENOMEM;
	}
	if (err == 0)
		err = json_write(array, STDOUT_FILENO);
	json_decref(array);
	if (err)
		msg_error("cannot write the list of guests: %s", strerror(-err));
	return err ? EX_OSERR : EX_OK;
}

int cmd_guests(int argc, char **argv)
{
	bool json = false;
	struct cli_parse parse = {.command = "gnomon guests", .options = &json};
	int status;

	if (!cli_parse(&guests_argp, &parse, argc, argv, &status))
		return status;
	if (json)
		return print_json();
	for (size_t i = 0; i < nr_bundled_guests; i++)
		printf("%-10s %s\n", bundled_guests[i].name, bundled_guests[i].summary);
	return EX_OK;
}
