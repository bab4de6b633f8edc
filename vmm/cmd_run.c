/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * gnomon run: from the command line to a guest, and from its end to an exit code.
 *
 * What can be refused is refused before anything is built, cheapest first; what was built is taken
 * down in reverse order before the stats are written, so that they can tell what was left behind.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "notifier/sync/util.h"
#include "vmm/chaos.h"
#include "vmm/cli.h"
#include "vmm/clock.h"
#include "vmm/commands.h"
#include "vmm/console_out.h"
#include "vmm/dirty_sample.h"
#include "vmm/engines.h"
#include "vmm/guest_file.h"
#include "vmm/hostmem.h"
#include "vmm/inspect.h"
#include "vmm/messages.h"
#include "vmm/options.h"
#include "vmm/run_args.h"
#include "vmm/stats.h"
#include "vmm/supervise.h"

/* What a balloon leaves: more than all other threads together take at once for a moment. */
#define SPARE_FRAMES 64

#define WHY_LEN 384 /* of one line that says why not */

/* A run from here on: what is open, in the order in which it was opened. */
struct run {
	const struct run_args *args;
	struct guest_file guest;
	struct elf_image image;
	int stats_fd; /* -1: no stats */
	struct inspect inspect;
	struct dirty_sample dirty;
	struct signals signals;
	struct console_out console;
	struct vm *vm;
	struct chaos *chaos;
	struct run_stats stats;
};

/* The run fails with @status before it began. The line goes to the user and into the stats. */
__attribute__((format(printf, 3, 4))) static int fail(struct run *run, int status, const char *fmt,
						      ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(run->stats.reason, sizeof(run->stats.reason), fmt, ap);
	va_end(ap);
	run->stats.outcome = VM_FAILED;
	msg_error("%s", run->stats.reason);
	return status;
}

static int load_guest(struct run *run)
{
	const char *name = run->args->guest;
	char why[WHY_LEN];
	int err = guest_file_load(&run->guest, name, why, sizeof(why));

	if (err == -ENOEXEC)
		return fail(run, EX_DATAERR, "%s", why);
	if (err)
		return fail(run, err == -ENOMEM ? EX_OSERR : EX_NOINPUT, "%s", why);
	err = elf_parse(run->guest.data, run->guest.size, &run->image, why, sizeof(why));
	if (err) {
		guest_file_free(&run->guest);
		return fail(run, err == -ENOEXEC ? EX_DATAERR : EX_OSERR, "cannot load '%s': %s",
			    name, why);
	}
	return EX_OK;
}

/* Of --frames, if that was given. */
static int check_frames(struct run *run, const struct host_memory *host)
{
	uint64_t frames_bytes = run->args->frames_bytes;
	uint64_t least_bytes = vm_min_frames(run->args->mem_bytes, &run->image) << PAGE_SHIFT;
	char wanted[32], limit[32];

	format_size(frames_bytes, wanted, sizeof(wanted));
	if (frames_bytes < least_bytes)
		return fail(
			run, EX_USAGE,
			"--frames %s is too little for '%s': its image, its page tables and the "
			"machine's take %s",
			wanted, run->args->guest, format_size(least_bytes, limit, sizeof(limit)));
	if (frames_bytes > host->bytes)
		return fail(run, EX_OSERR,
			    "--frames %s is more than this host can back: %s allows for %s at most",
			    wanted, host->what,
			    format_size(host->bytes & PAGE_MASK, limit, sizeof(limit)));
	return EX_OK;
}

static int check_memory(struct run *run)
{
	uint64_t mem_bytes = run->args->mem_bytes;
	struct host_memory host;
	char wanted[32], most[32];

	host_memory_limit(&host);
	if (run->args->frames_bytes)
		return check_frames(run, &host);
	if (run->stats.frames_bytes <= host.bytes)
		return EX_OK;
	return fail(run, EX_OSERR,
		    "--mem %s is more than this host can back: %s allows for %s at most",
		    format_size(mem_bytes, wanted, sizeof(wanted)), host.what,
		    format_size(vm_max_ram(host.bytes), most, sizeof(most)));
}

static bool stats_on_stdout(const struct run *run)
{
	return run->args->stats_path && strcmp(run->args->stats_path, "-") == 0;
}

static int open_stats(struct run *run)
{
	const char *path = run->args->stats_path;

	run->stats_fd = -1;
	if (!path)
		return EX_OK;
	if (stats_on_stdout(run))
		run->stats_fd = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 0);
	else
		run->stats_fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
	if (run->stats_fd < 0)
		return fail(run, EX_OSERR, "cannot open '%s' for the stats: %s", path,
			    strerror(errno));
	return EX_OK;
}

static bool tables_on_stdout(const struct run *run)
{
	return run->args->dump_path && strcmp(run->args->dump_path, "-") == 0;
}

static int open_inspect(struct run *run)
{
	int err = inspect_open(&run->inspect, run->args);
	const char *path = run->args->dump_path;

	if (!err)
		return EX_OK;
	return fail(run, EX_OSERR, "cannot open '%s' for the shadow tables: %s",
		    path ? path : "stderr", strerror(-err));
}

/* What --dump-shadow and --why asked for: 0, or EX_OSERR when it could not be said. */
static int write_inspect(struct run *run)
{
	int err = inspect_close(&run->inspect);

	if (!err)
		return EX_OK;
	msg_error("cannot write the shadow tables: %s", strerror(-err));
	return EX_OSERR;
}

static bool dirty_on_stdout(const struct run *run)
{
	return run->args->dirty_path && strcmp(run->args->dirty_path, "-") == 0;
}

static int open_dirty(struct run *run)
{
	int err = dirty_sample_open(&run->dirty, run->args);

	if (!err)
		return EX_OK;
	return fail(run, EX_OSERR, "cannot open '%s' for the dirty log: %s", run->args->dirty_path,
		    strerror(-err));
}

/* 0, or EX_OSERR when it could not be written. */
static int write_dirty(struct run *run)
{
	int err = dirty_sample_close(&run->dirty);

	if (!err)
		return EX_OK;
	msg_error("cannot write the dirty log to '%s': %s", run->args->dirty_path, strerror(-err));
	return EX_OSERR;
}

/* The last word of a run: 0, or EX_OSERR when it could not be said. */
static int write_stats(struct run *run)
{
	json_t *json = stats_to_json(&run->stats);
	int err = json ? json_write(json, run->stats_fd) : -ENOMEM;

	json_decref(json);
	if (close(run->stats_fd) < 0 && err == 0)
		err = -errno;
	if (err == 0)
		return EX_OK;
	msg_error("cannot write the stats to '%s': %s", run->args->stats_path, strerror(-err));
	return EX_OSERR;
}

static bool may_use(const struct run *run, const struct engine_ops *ops)
{
	return !run->args->engine || run->args->engine == ops;
}

/*
 * No engine has started: is that this machine, or did something go wrong this time? @why: what each
 * of the table said.
 */
static int fail_engines(struct run *run, char why[NR_ENGINES][WHY_LEN])
{
	char text[sizeof(run->stats.reason)] = "";
	size_t at = 0;

	for (unsigned int i = 0; i < NR_ENGINES && at < sizeof(text); i++) {
		struct engine_report report = {0};

		if (!may_use(run, engines[i]))
			continue;
		engines[i]->probe(&report);
		if (report.usable)
			return fail(run, EX_OSERR, "the %s engine did not start: %s",
				    engines[i]->name, why[i]);
		at += snprintf(text + at, sizeof(text) - at,
			       "%sthe %s engine does not work here: %s", at ? "; " : "",
			       engines[i]->name, report.why);
	}
	if (!run->args->engine)
		run->stats.engine = NULL;
	return fail(run, EX_UNAVAILABLE, "%s", text);
}

static int create_vm(struct run *run)
{
	const struct run_args *args = run->args;
	struct vm_config config = {
		.ram_bytes = args->mem_bytes,
		.private_ram = args->private_ram,
		.nr_frames = args->frames_bytes >> PAGE_SHIFT,
		.swap_bytes = args->swap_bytes,
		.swap_dir = args->swap_dir,
		.seed = args->seed,
		.shadow_pages = args->shadow_pages,
		.no_huge = args->no_huge,
		.prefetch = args->prefetch,
		.broken = args->broken,
		.audit = args->audit,
		.console = run->console.stream,
	};
	char whys[NR_ENGINES][WHY_LEN] = {0}, *why = whys[0];
	int err = -ENODEV;

	for (unsigned int i = 0; err == -ENODEV && i < NR_ENGINES; i++) {
		if (!may_use(run, engines[i]))
			continue;
		why = whys[i];
		config.engine = engines[i];
		run->stats.engine = engines[i]->name;
		err = vm_create(&run->vm, &config, why, WHY_LEN);
	}
	if (err == -ENODEV)
		return fail_engines(run, whys);
	if (err)
		return fail(run, EX_OSERR, "%s", why);

	err = vm_boot(run->vm, &run->image, why, WHY_LEN);
	if (err) {
		vm_destroy(run->vm);
		return fail(run, err == -ENOEXEC ? EX_DATAERR : EX_OSERR, "cannot load '%s': %s",
			    args->guest, why);
	}
	return EX_OK;
}

/*
 * With a protection switched off, what the guest needs to go on and tell about it stays where it
 * is: its image, and what the loader made (boot_info, stack, page tables). Otherwise all of it
 * moves, and must be none the worse for it.
 */
static int start_chaos(struct run *run)
{
	const struct run_args *args = run->args;
	struct vm *vm = run->vm;
	struct chaos_target target = {
		.mm = vm->mm,
		.ram = vm->ram,
		.hva = VM_RAM_HVA,
		.nr_pages = args->mem_bytes >> PAGE_SHIFT,
		.away = VM_AWAY_HVA,
		.holes = &vm->holes,
		.ksm = vm->ksm,
		.spare_frames = SPARE_FRAMES,
		.swap = args->swap_bytes,
	};

	if (args->broken) {
		target.spared[target.nr_spared++] = (struct chaos_spared){
			vm->boot.image_start >> PAGE_SHIFT,
			PAGE_ALIGN(vm->boot.image_end) >> PAGE_SHIFT,
		};
		target.spared[target.nr_spared++] = (struct chaos_spared){
			vm->boot.reserved_start >> PAGE_SHIFT,
			args->mem_bytes >> PAGE_SHIFT,
		};
	}
	return chaos_start(&run->chaos, &target, &args->chaos, args->seed);
}

static void announce(const struct run *run)
{
	const struct run_args *args = run->args;
	char names[64] = "";

	msg_note("%s on engine %s, seed %" PRIu64, args->guest, run->vm->config.engine->name,
		 args->seed);
	if (!args->broken)
		return;
	for (unsigned int i = 0; i < NR_BREAKS; i++) {
		if (args->broken & (1u << i))
			snprintf(names + strlen(names), sizeof(names) - strlen(names), "%s%s",
				 names[0] ? ", " : "", break_names[i]);
	}
	msg_note("broken on purpose: %s. Expect corruption", names);
}

/* The guest from its first instruction to the end of its last thread. */
static int run_vm(struct run *run)
{
	uint64_t start = monotonic_ns();
	int err = dirty_sample_start(&run->dirty, run->vm);

	if (err)
		return fail(run, EX_OSERR, "cannot log what the guest writes: %s", strerror(-err));
	err = start_chaos(run);
	if (err) {
		dirty_sample_stop(&run->dirty);
		return fail(run, EX_OSERR, "cannot start the threads of --chaos: %s",
			    strerror(-err));
	}
	/*
	 * Unless it exited by itself, the guest's last words may be stuck in a pipe that nobody
	 * reads, and a vCPU with them.
	 */
	if (vm_start(run->vm) ||
	    !supervise(run->vm, run->chaos, &run->signals, &run->inspect, run->args->duration_ms))
		console_out_give_up(&run->console);
	vm_join(run->vm);
	run->stats.wall_ns = monotonic_ns() - start;
	dirty_sample_stop(&run->dirty);
	chaos_stop(run->chaos);
	err = inspect_at_end(&run->inspect, run->vm);
	stats_collect(&run->stats, run->vm, run->chaos);
	chaos_destroy(run->chaos);
	if (err)
		return fail(run, EX_OSERR, "no memory to tell the shadow tables");
	return EX_OK;
}

/* What the guest's end means for the exit code; all but a plain exit is told. */
static int judge(const struct run *run, int console_err)
{
	const struct run_stats *stats = &run->stats;
	const char *console_why = console_err ? strerror(-console_err) : "";

	switch (stats->outcome) {
	case VM_EXITED:
		if (console_err) {
			msg_error("the guest's output cannot be written: %s", console_why);
			return EX_OSERR;
		}
		/* With a protection switched off, warnings are part of the show. */
		if (stats->warnings && !stats->broken) {
			msg_error("%u internal warnings: this is a bug in gnomon", stats->warnings);
			return EX_SOFTWARE;
		}
		return stats->guest_exit;
	case VM_KILLED:
		msg_error("guest killed: %s", stats->reason);
		return EX_GUEST_KILLED;
	case VM_STOPPED:
		msg_note("%s", stats->reason);
		return EX_INTERRUPTED;
	case VM_FAILED:
		msg_error("%s%s%s", stats->reason, console_err ? ": " : "", console_why);
		return EX_OSERR;
	case VM_RUNNING:
	case VM_INTERNAL:
		break;
	}
	msg_error("internal error: %s", stats->reason);
	return EX_SOFTWARE;
}

/* Everything that has to be taken down again, whatever happens. */
static int run_guest(struct run *run)
{
	int console_err, status, err;

	err = signals_open(&run->signals);
	if (err)
		return fail(run, EX_OSERR, "signalfd: %s", strerror(-err));
	err = console_out_open(&run->console, STDOUT_FILENO);
	if (err) {
		status = fail(run, EX_OSERR, "cannot set up the console: %s", strerror(-err));
		goto close_signals;
	}
	status = create_vm(run);
	if (status)
		goto close_console;
	announce(run);
	status = run_vm(run);
	vm_destroy(run->vm);
	run->stats.warnings = msg_warnings();

close_console:
	console_err =
		console_out_close(&run->console, stats_on_stdout(run) || tables_on_stdout(run) ||
							 dirty_on_stdout(run));
	if (status == EX_OK)
		status = judge(run, console_err);
close_signals:
	signals_close(&run->signals);
	return status;
}

int cmd_run(int argc, char **argv)
{
	struct run_args args;
	struct run run = {.args = &args, .stats_fd = -1, .dirty = {.fd = -1}};
	int status;

	if (!run_args_parse(&args, argc, argv, &status))
		return status;
	if (args.quiet)
		messages_quiet();
	run.stats.seed = args.seed;
	run.stats.mem_bytes = args.mem_bytes;
	run.stats.private_ram = args.private_ram;
	run.stats.swap_bytes = args.swap_bytes;
	run.stats.frames_bytes = args.frames_bytes ?: vm_pool_frames(args.mem_bytes) << PAGE_SHIFT;
	run.stats.broken = args.broken;
	run.stats.plan = args.chaos;

	status = load_guest(&run);
	if (status)
		return status;
	status = check_memory(&run);
	if (status)
		goto free_guest;
	status = open_stats(&run);
	if (status)
		goto free_guest;
	status = open_inspect(&run);
	if (status == EX_OK)
		status = open_dirty(&run);
	if (status == EX_OK)
		status = run_guest(&run);
	if (write_dirty(&run) != EX_OK)
		status = EX_OSERR;
	if (write_inspect(&run) != EX_OK)
		status = EX_OSERR;
	if (run.stats_fd >= 0 && write_stats(&run) != EX_OK)
		status = EX_OSERR;

free_guest:
	guest_file_free(&run.guest);
	return status;
}
