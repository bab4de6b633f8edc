/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* gnomon doctor: what this machine offers, and why something is missing. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "notifier/sync/util.h"
#include "vmm/cli.h"
#include "vmm/commands.h"
#include "vmm/engines.h"
#include "vmm/hostmem.h"
#include "vmm/messages.h"
#include "vmm/options.h"
#include "vmm/stats.h"

static const struct argp_option doctor_options[] = {
	{"json", CLI_KEY_JSON, NULL, 0, "As a JSON object (docs/stats.md)", 0},
	CLI_OPTION_HELP,
	{0},
};

static const struct argp doctor_argp = {
	doctor_options,
	cli_parse_json,
	NULL,
	"Try out what this machine offers to run guests on, and say what is missing."
	"\vThe exit code is 0 if some engine is usable, else 69.",
	NULL,
	NULL,
	NULL,
};

static void print_engine(const char *name, const struct engine_report *report)
{
	if (!report->usable) {
		printf("engine %s: not usable\n  %s\n", name, report->why);
		return;
	}
	printf("engine %s: usable\n", name);
	for (unsigned int i = 0; i < report->nr_notes; i++)
		printf("  %-29s %s\n", report->notes[i].label, report->notes[i].text);
	if (report->trap_floor_us > 0)
		printf("  %-29s %.1f us\n", "floor under every trap", report->trap_floor_us);
	if (report->shootdown_us > 0)
		printf("  %-29s %.1f us\n", "shootdown of one frame", report->shootdown_us);
}

static void print_text(const struct engine_report *reports, const struct host_memory *host)
{
	char size[32];

	for (unsigned int i = 0; i < NR_ENGINES; i++)
		print_engine(engines[i]->name, &reports[i]);
	printf("largest --mem: %s (%s)\n", format_size(vm_max_ram(host->bytes), size, sizeof(size)),
	       host->what);
}

static json_t *engine_to_json(const char *name, const struct engine_report *report)
{
	json_t *object = json_pack("{s:s, s:b}", "name", name, "usable", report->usable);

	if (!report->usable) {
		json_object_set_new(object, "why", json_string(report->why));
		return object;
	}
	for (unsigned int i = 0; i < report->nr_notes; i++) {
		const struct engine_note *note = &report->notes[i];

		json_object_set_new(object, note->key,
				    note->flag ? json_boolean(note->value)
					       : json_integer(note->value));
	}
	if (report->trap_floor_us > 0)
		json_object_set_new(object, "trap_floor_us", json_real(report->trap_floor_us));
	if (report->shootdown_us > 0)
		json_object_set_new(object, "shootdown_us", json_real(report->shootdown_us));
	return object;
}

static int print_json(const struct engine_report *reports, const struct host_memory *host)
{
	json_t *array = json_array(), *object;
	int err;

	for (unsigned int i = 0; i < NR_ENGINES; i++)
		json_array_append_new(array, engine_to_json(engines[i]->name, &reports[i]));
	object = json_pack("{s:o, s:I, s:s}", "engines", array, "max_mem_bytes",
			   (json_int_t)vm_max_ram(host->bytes), "max_mem_limit", host->what);
	err = object ? json_write(object, STDOUT_FILENO) : -ENOMEM;
	json_decref(object);
	if (err)
		msg_error("cannot write the report: %s", strerror(-err));
	return err ? EX_OSERR : EX_OK;
}

int cmd_doctor(int argc, char **argv)
{
	bool json = false;
	struct cli_parse parse = {.command = "gnomon doctor", .options = &json};
	struct engine_report reports[NR_ENGINES] = {0};
	struct host_memory host;
	int status, usable = 0;

	if (!cli_parse(&doctor_argp, &parse, argc, argv, &status))
		return status;
	for (unsigned int i = 0; i < NR_ENGINES; i++) {
		engines[i]->probe(&reports[i]);
		usable += reports[i].usable;
	}
	host_memory_limit(&host);

	if (json)
		status = print_json(reports, &host);
	else
		print_text(reports, &host);
	if (status)
		return status;
	return usable ? EX_OK : EX_UNAVAILABLE;
}
