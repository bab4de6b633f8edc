/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "vmm/options.h"
#include "vmm/stats.h"

void stats_collect(struct run_stats *stats, struct vm *vm, const struct chaos *chaos)
{
	const struct engine_ops *ops = vm->config.engine;

	if (vm_ended(vm)) {
		stats->outcome = vm->outcome;
		stats->guest_exit = vm->exit_code;
		memcpy(stats->reason, vm->reason, sizeof(stats->reason));
	}

	stats->guest_passes = dev_control_passes(&vm->control);
	stats->corruptions = dev_control_corruptions(&vm->control);
	stats->hole_waits = atomic64_read(&vm->holes.nr_waits);
	stats->memory_waits = atomic64_read(&vm->holes.nr_memory_waits);
	stats->traps = 0;
	stats->stores_emulated = 0;
	stats->stores_unprotected = 0;
	for (unsigned int i = 0; i < VM_MAX_VCPUS; i++) {
		stats->traps += atomic64_read(&vm->vcpus[i].traps);
		stats->stores_emulated += atomic64_read(&vm->vcpus[i].stores);
		stats->stores_unprotected += atomic64_read(&vm->vcpus[i].unprotected);
	}
	ops->stats(vm->engine, &stats->quarantine_drains, &stats->quarantined);
	for (unsigned int i = 0; i < NR_CHAOS_KINDS; i++) {
		if (chaos)
			chaos_get_counts(chaos, i, &stats->chaos[i]);
	}
	mm_get_stats(vm->mm, &stats->mm);
	phys_reclaim_stats(vm->phys, &stats->reclaim);
	shadow_get_stats(vm->shadow, &stats->shadow);
}

uint64_t stats_pages_migrated(const struct run_stats *stats)
{
	uint64_t sum = 0;

	for (unsigned int i = 0; i < NR_CHAOS_KINDS; i++)
		sum += stats->chaos[i].pages_migrated;
	return sum;
}

static uint64_t pages_disturbed(const struct run_stats *stats)
{
	uint64_t sum = 0;

	for (unsigned int i = 0; i < NR_CHAOS_KINDS; i++)
		sum += stats->chaos[i].pages_disturbed;
	return sum;
}

/*
 * jansson's "_new" calls take what they are given even when they fail, and take NULL for a failed
 * step: so nothing is checked on the way, and one failure anywhere makes @ok false.
 */
static void put(json_t *object, bool *ok, const char *key, json_t *value)
{
	if (json_object_set_new(object, key, value) != 0)
		*ok = false;
}

static void put_count(json_t *object, bool *ok, const char *key, uint64_t value)
{
	put(object, ok, key, json_integer(value));
}

/* JSON is UTF-8, and a reason may quote a path, which is any bytes. */
static json_t *reason_text(const char *reason)
{
	char ascii[sizeof(((struct run_stats *)0)->reason)];
	json_t *text = json_string(reason);
	size_t i;

	if (text)
		return text;
	for (i = 0; reason[i]; i++)
		ascii[i] = reason[i] & 0x80 ? '?' : reason[i];
	ascii[i] = '\0';
	return json_string(ascii);
}

static uint64_t rate_of(const struct run_stats *stats, unsigned int kind)
{
	return stats->plan.rate[kind];
}

static uint64_t ops_of(const struct run_stats *stats, unsigned int kind)
{
	return stats->chaos[kind].ops;
}

static uint64_t refused_of(const struct run_stats *stats, unsigned int kind)
{
	return stats->chaos[kind].refused;
}

static uint64_t pages_of(const struct run_stats *stats, unsigned int kind)
{
	return stats->chaos[kind].pages;
}

static uint64_t draws_of(const struct run_stats *stats, unsigned int kind)
{
	return stats->chaos[kind].draws;
}

/* {kind: number} for the kinds that were on. */
static json_t *by_kind(const struct run_stats *stats, bool *ok,
		       uint64_t (*number)(const struct run_stats *stats, unsigned int kind))
{
	json_t *object = json_object();

	for (unsigned int i = 0; i < NR_CHAOS_KINDS; i++) {
		if (stats->plan.rate[i])
			put_count(object, ok, chaos_kinds[i].name, number(stats, i));
	}
	return object;
}

/* As text: JSON has no unsigned 64-bit integer that every reader keeps. */
static json_t *digests(const struct run_stats *stats, bool *ok)
{
	json_t *object = json_object();

	for (unsigned int i = 0; i < NR_CHAOS_KINDS; i++) {
		if (stats->plan.rate[i])
			put(object, ok, chaos_kinds[i].name,
			    json_sprintf("%016" PRIx64, stats->chaos[i].digest));
	}
	return object;
}

static json_t *broken_names(unsigned int broken, bool *ok)
{
	json_t *array = json_array();

	for (unsigned int i = 0; i < NR_BREAKS; i++) {
		if ((broken & (1u << i)) &&
		    json_array_append_new(array, json_string(break_names[i])) != 0)
			*ok = false;
	}
	return array;
}

static void put_run(json_t *object, bool *ok, const struct run_stats *stats)
{
	bool failed = stats->outcome == VM_FAILED || stats->outcome == VM_INTERNAL;

	put(object, ok, "engine", stats->engine ? json_string(stats->engine) : json_null());
	put_count(object, ok, "seed", stats->seed);
	put_count(object, ok, "mem_bytes", stats->mem_bytes);
	put(object, ok, "ram", json_string(stats->private_ram ? "private" : "shared"));
	put_count(object, ok, "frames_bytes", stats->frames_bytes);
	put_count(object, ok, "swap_bytes", stats->swap_bytes);
	put(object, ok, "chaos", by_kind(stats, ok, rate_of));
	put(object, ok, "break", broken_names(stats->broken, ok));
	put(object, ok, "wall_s", json_real(stats->wall_ns / 1e9));
	put(object, ok, "outcome", json_string(vm_outcome_name(stats->outcome)));
	put(object, ok, "guest_exit",
	    stats->outcome == VM_EXITED ? json_integer(stats->guest_exit) : json_null());
	put(object, ok, "kill_reason",
	    stats->outcome == VM_KILLED ? reason_text(stats->reason) : json_null());
	put(object, ok, "error", failed ? reason_text(stats->reason) : json_null());
}

json_t *stats_to_json(const struct run_stats *stats)
{
	const struct shadow_stats *shadow = &stats->shadow;
	json_t *object = json_object();
	bool ok = object != NULL;

	put_run(object, &ok, stats);
	put_count(object, &ok, "guest_passes", stats->guest_passes);
	put_count(object, &ok, "corruptions", stats->corruptions);
	put_count(object, &ok, "traps", stats->traps);
	put_count(object, &ok, "stores_emulated", stats->stores_emulated);
	put_count(object, &ok, "stores_unprotected", stats->stores_unprotected);
	put_count(object, &ok, "hole_waits", stats->hole_waits);
	put_count(object, &ok, "memory_waits", stats->memory_waits);

	put(object, &ok, "mutations", by_kind(stats, &ok, ops_of));
	put(object, &ok, "mutations_refused", by_kind(stats, &ok, refused_of));
	put(object, &ok, "mutation_pages", by_kind(stats, &ok, pages_of));
	put(object, &ok, "mutation_digest", digests(stats, &ok));
	put(object, &ok, "mutation_draws", by_kind(stats, &ok, draws_of));
	put_count(object, &ok, "pages_migrated", stats_pages_migrated(stats));
	put_count(object, &ok, "pages_migrated_mapped", shadow->migrate_zapped);
	put_count(object, &ok, "pages_unmapped", stats->chaos[CHAOS_UNMAP].pages);
	put_count(object, &ok, "pages_copied", stats->mm.cow_copies);
	put_count(object, &ok, "pages_disturbed", pages_disturbed(stats));
	put_count(object, &ok, "pages_swapped_out", stats->reclaim.swap_out);
	put_count(object, &ok, "pages_swapped_in", stats->reclaim.swap_in);
	put_count(object, &ok, "pages_reclaimed", stats->reclaim.reclaimed);
	put_count(object, &ok, "direct_reclaims", stats->reclaim.direct_reclaims);
	put_count(object, &ok, "swap_errors", stats->reclaim.swap_errors);
	put_count(object, &ok, "migrate_busy", stats->mm.migrate_busy);
	put_count(object, &ok, "host_faults", stats->mm.faults);

	put_count(object, &ok, "shadow_faults", shadow->faults);
	put_count(object, &ok, "fault_retries", shadow->fault_retries);
	put_count(object, &ok, "fault_spurious", shadow->fault_spurious);
	put_count(object, &ok, "fast_faults", shadow->fast_faults);
	put_count(object, &ok, "prefetched", shadow->prefetched);
	put_count(object, &ok, "refaults", shadow->refaults);
	put_count(object, &ok, "invalidations", shadow->invalidations);
	put_count(object, &ok, "sptes_zapped", shadow->sptes_zapped);
	put_count(object, &ok, "shootdowns", shadow->shootdowns);
	put_count(object, &ok, "frames_shot", shadow->frames_shot);
	put_count(object, &ok, "batches_waited", shadow->batches_waited);
	put_count(object, &ok, "tables_retired", shadow->tables_retired);
	put_count(object, &ok, "pages_recycled", shadow->pages_recycled);
	put_count(object, &ok, "synced", shadow->synced);
	put_count(object, &ok, "unsync_made", shadow->unsync_made);
	put_count(object, &ok, "write_protected", shadow->write_protected);
	put_count(object, &ok, "flooded", shadow->flooded);
	put_count(object, &ok, "dirty_marked", shadow->dirty_marked);
	put_count(object, &ok, "dirty_protected", shadow->dirty_protected);
	put_count(object, &ok, "huge_made", shadow->huge_made);
	put_count(object, &ok, "quarantine_drains", stats->quarantine_drains);
	put_count(object, &ok, "quarantined", stats->quarantined);
	put_count(object, &ok, "warnings", stats->warnings);

	if (!ok) {
		json_decref(object);
		return NULL;
	}
	return object;
}

int write_all(int fd, const char *buf, size_t len)
{
	while (len > 0) {
		ssize_t n = write(fd, buf, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -ENOSPC;
		buf += n;
		len -= n;
	}
	return 0;
}

int json_write(const json_t *json, int fd)
{
	char *text = json_dumps(json, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
	int err = -ENOMEM;

	if (text) {
		err = write_all(fd, text, strlen(text));
		if (err == 0)
			err = write_all(fd, "\n", 1);
	}
	free(text);
	return err;
}
