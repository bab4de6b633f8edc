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

static const char *yes_no(bool value)
{
	return value ? "yes" : "no";
}

static void print_engine(const char *name, const struct engine_report *report)
{
	if (!report->usable) {
		printf("engine %s: not usable\n  %s\n", name, report->why);
		return;
	}
	printf("engine %s: usable\n", name);
	if (!report->measured)
		return;
	printf("  host shadows our tables       %s\n", yes_no(report->host_shadows_tables));
	printf("  shootdown works               %s\n", yes_no(report->shootdown_works));
	printf("  retired tables need           %s\n",
	       report->needs_quarantine ? "quarantine" : "no quarantine");
	printf("  entries of 2 MiB              %s\n",
	       !report->huge_works ? "do not work"
	       : report->host_shadows_tables || report->needs_quarantine
		       ? "work, not used, as the host shadows our tables"
		       : "used");
	printf("  UMIP                          %s\n", yes_no(report->umip));
	printf("  floor under every trap        %.1f us\n", report->trap_floor_us);
	printf("  shootdown of one frame        %.1f us\n", report->shootdown_us);
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
	if (!report->usable || !report->measured)
		return json_pack("{s:s, s:b, s:s}", "name", name, "usable", report->usable, "why",
				 report->why);
	return json_pack("{s:s, s:b, s:b, s:b, s:b, s:b, s:b, s:f, s:f}", "name", name, "usable",
			 true, "host_shadows_tables", report->host_shadows_tables,
			 "shootdown_works", report->shootdown_works, "needs_quarantine",
			 report->needs_quarantine, "huge_works", report->huge_works, "umip",
			 report->umip, "trap_floor_us", report->trap_floor_us, "shootdown_us",
			 report->shootdown_us);
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
