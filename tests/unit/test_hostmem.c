/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What may be taken from the host: each limit, from a proc and a cgroup tree made up for the
 * purpose, and that the smallest one wins.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "tests/support/test.h"
#include "vmm/hostmem.h"

#define GIB (1UL << 30)

static char root[512];

/* Write @text to @path below root, making its folders. */
static void put(const char *path, const char *text)
{
	char full[1024];
	FILE *file;

	expect((size_t)snprintf(full, sizeof(full), "%s%s", root, path) < sizeof(full));
	for (char *slash = full + strlen(root) + 1; (slash = strchr(slash, '/')); slash++) {
		*slash = '\0';
		expect(mkdir(full, 0777) == 0 || errno == EEXIST);
		*slash = '/';
	}
	file = fopen(full, "w");
	expect(file);
	expect(fputs(text, file) >= 0);
	expect_eq(fclose(file), 0);
}

static struct host_memory limit(void)
{
	struct host_memory limit;

	host_memory_limit_at(root, &limit);
	return limit;
}

/* A host with 8 GiB to spare and no other limit. */
static void setup(void)
{
	const char *tmp = getenv("TMPDIR");

	snprintf(root, sizeof(root), "%s/hostmem.XXXXXX", tmp ? tmp : "/tmp");
	expect(mkdtemp(root));
	put("/proc/meminfo", "MemTotal:       16777216 kB\nMemFree:         1000 kB\n"
			     "MemAvailable:    8388608 kB\n");
	put("/proc/self/statm", "0 0 0 0 0 0 0\n");
}

/* Something is kept back, but not much. */
static void expect_most_of(uint64_t bytes)
{
	expect_le(limit().bytes, bytes);
	expect_ge(limit().bytes, bytes - bytes / 8);
}

TEST(hostmem, what_is_available)
{
	setup();
	expect_most_of(8 * GIB);
	expect_str_contains(limit().what, "MemAvailable");

	put("/proc/meminfo", "MemAvailable: 1024 kB\n");
	expect_eq(limit().bytes, 0);
}

TEST(hostmem, without_proc_there_is_no_limit)
{
	setup();
	snprintf(root + strlen(root), sizeof(root) - strlen(root), "/nowhere");
	expect_ge(limit().bytes, 1UL << 40);
}

TEST(hostmem, cgroup_version_2)
{
	setup();
	put("/proc/self/cgroup", "0::/outer/inner\n");
	put("/sys/fs/cgroup/outer/inner/memory.max", "max\n");
	put("/sys/fs/cgroup/outer/inner/memory.current", "123456\n");
	expect_most_of(8 * GIB);

	/* An outer group counts as well; what it uses is gone, but for the file cache. */
	put("/sys/fs/cgroup/outer/memory.max", "4294967296\n");
	put("/sys/fs/cgroup/outer/memory.current", "3221225472\n");
	expect_most_of(1 * GIB);
	expect_str_contains(limit().what, "memory.max");
	put("/sys/fs/cgroup/outer/memory.stat", "anon 1073741824\nfile 2147483648\n"
						"inactive_file 2147483648\nactive_file 0\n");
	expect_most_of(3 * GIB);

	put("/sys/fs/cgroup/outer/inner/memory.max", "2147483648\n");
	expect_most_of(2 * GIB);
	/* Over its limit: nothing is left. */
	put("/sys/fs/cgroup/outer/inner/memory.max", "1000\n");
	expect_eq(limit().bytes, 0);
}

TEST(hostmem, cgroup_version_1)
{
	setup();
	put("/proc/self/cgroup", "9:name=systemd:/\n4:cpu,memory,foo:/box\n0::/\n");
	put("/sys/fs/cgroup/memory/box/memory.limit_in_bytes", "9223372036854771712\n");
	put("/sys/fs/cgroup/memory/box/memory.usage_in_bytes", "4096\n");
	expect_most_of(8 * GIB);
	put("/sys/fs/cgroup/memory/memory.limit_in_bytes", "2147483648\n");
	put("/sys/fs/cgroup/memory/memory.usage_in_bytes", "1073741824\n");
	expect_most_of(1 * GIB);
	expect_str_contains(limit().what, "memory.limit_in_bytes");
}

TEST(hostmem, nonsense_is_no_limit)
{
	setup();
	put("/proc/self/cgroup", "what\n::\n0::relative\n4:memory\n\n0::/../..\n");
	put("/sys/fs/cgroup/memory.max", "");
	expect_most_of(8 * GIB);
}

TEST(hostmem, file_size)
{
	struct rlimit rlim = {.rlim_cur = 3 * GIB, .rlim_max = RLIM_INFINITY};

	setup();
	expect_eq(setrlimit(RLIMIT_FSIZE, &rlim), 0);
	expect_eq(limit().bytes, 3 * GIB);
	expect_str_contains(limit().what, "RLIMIT_FSIZE");
}

TEST(hostmem, address_space_holds_it_twice)
{
	/* So large, as a sanitizer's shadow counts; so nothing else may limit. */
	struct rlimit rlim = {.rlim_cur = 48UL << 40, .rlim_max = RLIM_INFINITY};

	setup();
	put("/proc/meminfo", "");
	expect_eq(setrlimit(RLIMIT_AS, &rlim), 0);
	expect_most_of(24UL << 40);
	put("/proc/self/statm", "8589934592 1 1 1 0 1 0\n"); /* 32 TiB are used */
	expect_most_of(8UL << 40);
	expect_str_contains(limit().what, "RLIMIT_AS");
}
