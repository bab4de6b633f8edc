// SPDX-License-Identifier: LGPL-2.1-or-later
/* Pages of this process, and what the real kernel does with them. */
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <gnomon/types.h>

#include "tests/bench/mm.h"

static char *base;
static pid_t child;

static void must(bool ok)
{
	if (!ok)
		abort();
}

/* Small pages, as ours are. */
static void map(uint64_t n)
{
	base = mmap(NULL, n << PAGE_SHIFT, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		    0);
	must(base != MAP_FAILED);
	madvise(base, n << PAGE_SHIFT, MADV_NOHUGEPAGE);
}

static void touch(uint64_t n)
{
	for (uint64_t i = 0; i < n; i++)
		__atomic_store_n((uint64_t *)(base + (i << PAGE_SHIFT)), i, __ATOMIC_RELAXED);
}

static void read_each(uint64_t n)
{
	for (uint64_t i = 0; i < n; i++)
		__atomic_load_n((uint64_t *)(base + (i << PAGE_SHIFT)), __ATOMIC_RELAXED);
}

static void drop(uint64_t n)
{
	must(madvise(base, n << PAGE_SHIFT, MADV_DONTNEED) == 0);
}

static void protect(uint64_t n, bool writable)
{
	must(mprotect(base, n << PAGE_SHIFT, PROT_READ | (writable ? PROT_WRITE : 0)) == 0);
}

/* The system call alone: what libc's does around it is not the kernel's. */
static void fork_it(void)
{
	child = (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, 0);
	must(child >= 0);
	while (child == 0)
		pause();
}

static void reap(void)
{
	must(kill(child, SIGKILL) == 0);
	must(waitpid(child, NULL, 0) == child);
}

static void unmap(uint64_t n)
{
	must(munmap(base, n << PAGE_SHIFT) == 0);
}

const struct mm_place mm_kernel = {map,	    touch, read_each, drop, protect,
				   fork_it, reap,  unmap,     NULL};
