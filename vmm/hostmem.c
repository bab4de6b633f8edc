/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The smallest of
 *   - MemAvailable of /proc/meminfo, less a margin for everybody else;
 *   - what is left below memory.max of each cgroup from ours to the root (version 2), or below
 *     memory.limit_in_bytes (version 1); file cache that can be dropped counts as left;
 *   - RLIMIT_FSIZE: ftruncate of a memfd obeys it, with SIGXFSZ;
 *   - half of what RLIMIT_AS leaves: the memfd is mapped twice.
 * A limit that cannot be read does not exist: in a container some of these files are not there.
 */
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <gnomon/types.h>

#include "notifier/sync/util.h"
#include "vmm/hostmem.h"

/* Left to the rest of the system: a sixteenth, and room for our own tables and libraries. */
#define MARGIN(bytes) ((bytes) / 16 + (32UL << 20))

static void lower(struct host_memory *limit, uint64_t bytes, const char *what)
{
	if (bytes < limit->bytes) {
		limit->bytes = bytes;
		limit->what = what;
	}
}

static uint64_t less_margin(uint64_t bytes)
{
	return bytes > MARGIN(bytes) ? bytes - MARGIN(bytes) : 0;
}

/* The number behind @key at the start of a line of @path, or, with an empty key, of the file. */
static bool read_number(const char *path, const char *key, uint64_t *value)
{
	FILE *file = fopen(path, "re");
	size_t key_len = strlen(key);
	char line[256];
	bool found = false;

	if (!file)
		return false;
	while (!found && fgets(line, sizeof(line), file)) {
		found = strncmp(line, key, key_len) == 0 &&
			sscanf(line + key_len, "%" SCNu64, value) == 1;
	}
	fclose(file);
	return found;
}

/* One cgroup's folder: "max" is no number, and then there is no limit. */
static void limit_by_cgroup(const char *folder, bool v2, struct host_memory *limit)
{
	char path[PATH_MAX + 32];
	uint64_t max, used, cache = 0;

	snprintf(path, sizeof(path), "%s/%s", folder, v2 ? "memory.max" : "memory.limit_in_bytes");
	if (!read_number(path, "", &max))
		return;
	snprintf(path, sizeof(path), "%s/%s", folder,
		 v2 ? "memory.current" : "memory.usage_in_bytes");
	if (!read_number(path, "", &used))
		return;
	snprintf(path, sizeof(path), "%s/memory.stat", folder);
	read_number(path, v2 ? "inactive_file " : "total_inactive_file ", &cache);
	used -= min(cache, used);
	lower(limit, less_margin(max > used ? max - used : 0),
	      v2 ? "memory.max of the cgroup" : "memory.limit_in_bytes of the cgroup");
}

/* All folders from @base/@group up to @base. */
static void limit_by_hierarchy(const char *base, const char *group, bool v2,
			       struct host_memory *limit)
{
	char folder[PATH_MAX];
	char *slash;

	if ((size_t)snprintf(folder, sizeof(folder), "%s%s", base, group) >= sizeof(folder))
		return;
	while (strlen(folder) > strlen(base)) {
		limit_by_cgroup(folder, v2, limit);
		slash = strrchr(folder, '/');
		*slash = '\0';
	}
	limit_by_cgroup(base, v2, limit);
}

/* /proc/self/cgroup has lines "0::/path" (version 2) and "4:memory,other:/path" (version 1). */
static void limit_by_cgroups(const char *root, struct host_memory *limit)
{
	char line[PATH_MAX + 64], path[PATH_MAX];
	FILE *file;

	snprintf(path, sizeof(path), "%s/proc/self/cgroup", root);
	file = fopen(path, "re");
	if (!file)
		return;
	while (fgets(line, sizeof(line), file)) {
		char *controllers = strchr(line, ':');
		char *group = controllers ? strchr(controllers + 1, ':') : NULL;

		line[strcspn(line, "\n")] = '\0';
		if (!group || group[1] != '/')
			continue;
		*controllers++ = '\0';
		*group++ = '\0';
		if (*controllers == '\0') {
			snprintf(path, sizeof(path), "%s/sys/fs/cgroup", root);
			limit_by_hierarchy(path, group, true, limit);
		} else {
			char *save, *name = strtok_r(controllers, ",", &save);

			while (name && strcmp(name, "memory") != 0)
				name = strtok_r(NULL, ",", &save);
			if (!name)
				continue;
			snprintf(path, sizeof(path), "%s/sys/fs/cgroup/memory", root);
			limit_by_hierarchy(path, group, false, limit);
		}
	}
	fclose(file);
}

static void limit_by_rlimits(const char *root, struct host_memory *limit)
{
	struct rlimit rlim;
	char path[PATH_MAX];
	uint64_t pages = 0;

	if (getrlimit(RLIMIT_FSIZE, &rlim) == 0 && rlim.rlim_cur != RLIM_INFINITY)
		lower(limit, rlim.rlim_cur, "RLIMIT_FSIZE (ulimit -f)");
	if (getrlimit(RLIMIT_AS, &rlim) == 0 && rlim.rlim_cur != RLIM_INFINITY) {
		uint64_t used, left;

		snprintf(path, sizeof(path), "%s/proc/self/statm", root);
		read_number(path, "", &pages);
		used = pages << PAGE_SHIFT;
		left = rlim.rlim_cur > used ? rlim.rlim_cur - used : 0;
		lower(limit, less_margin(left) / 2, "RLIMIT_AS (ulimit -v)");
	}
}

void host_memory_limit_at(const char *root, struct host_memory *limit)
{
	char path[PATH_MAX];
	uint64_t kib;

	limit->bytes = HVA_MAX / 4; /* the user half of our own address space, twice mapped */
	limit->what = "the address space of a process";
	snprintf(path, sizeof(path), "%s/proc/meminfo", root);
	if (read_number(path, "MemAvailable:", &kib))
		lower(limit, less_margin(kib << 10), "MemAvailable in /proc/meminfo");
	limit_by_cgroups(root, limit);
	limit_by_rlimits(root, limit);
}

void host_memory_limit(struct host_memory *limit)
{
	host_memory_limit_at("", limit);
}
