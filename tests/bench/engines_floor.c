/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The floor: threads that hand over to each other by futexes on one CPU, two processes among them,
 * and in between the one thing that the operation cannot do without.
 *
 *   exit      an exception, its signal, back from it; to us and back
 *   fill      the same by way of a third thread, which maps a page that is in memory; it is used
 *   shootdown to that thread, which unmaps a page, and back. On another CPU a thread of its process
 *             runs, so that the kernel has to tell that CPU
 *   switch    as exit
 */
#include <errno.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#include "tests/bench/engines.h"

#define PAGE 4096ul

/* A thread sleeps at its word until that is 1, and makes it 0. */
struct shared {
	uint32_t us, vcpu, mapper, spinner;
	uint32_t spin; /* the spinner goes on while this stays what it was */
	enum engines_op op;
	uint64_t page; /* the next to map or unmap */
};

static struct {
	struct shared *shared;
	char *pages; /* at the same address in both processes */
	int fd;
	pid_t child;
} floor_;

static void hand_over(uint32_t *word)
{
	__atomic_store_n(word, 1, __ATOMIC_RELEASE);
	syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
}

static void take_over(uint32_t *word)
{
	while (!__atomic_load_n(word, __ATOMIC_ACQUIRE))
		syscall(SYS_futex, word, FUTEX_WAIT, 0, NULL, NULL, 0);
	__atomic_store_n(word, 0, __ATOMIC_RELAXED);
}

static void skip_ud2(int signal, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;

	(void)signal;
	(void)info;
	uc->uc_mcontext.gregs[REG_RIP] += 2;
}

static void map_page(uint64_t n)
{
	if (mmap(floor_.pages + n * PAGE, PAGE, PROT_READ | PROT_WRITE,
		 MAP_SHARED | MAP_FIXED | MAP_POPULATE, floor_.fd, 0) == MAP_FAILED)
		_exit(1);
}

static void *mapper(void *arg)
{
	struct shared *sh = arg;

	for (;;) {
		take_over(&sh->mapper);
		if (sh->op == ENGINES_FILL) {
			map_page(sh->page++);
			hand_over(&sh->vcpu);
		} else {
			if (munmap(floor_.pages + sh->page++ * PAGE, PAGE))
				_exit(1);
			hand_over(&sh->us);
		}
	}
	return NULL;
}

static void *spinner(void *arg)
{
	struct shared *sh = arg;

	bench_pin(1);
	for (;;) {
		uint32_t spin;

		take_over(&sh->spinner);
		spin = __atomic_load_n(&sh->spin, __ATOMIC_RELAXED);
		hand_over(&sh->us);
		while (__atomic_load_n(&sh->spin, __ATOMIC_RELAXED) == spin)
			__builtin_ia32_pause();
	}
	return NULL;
}

static void child_main(struct shared *sh)
{
	struct sigaction action = {.sa_sigaction = skip_ud2, .sa_flags = SA_SIGINFO};
	pthread_t thread;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	bench_pin(0);
	sigfillset(&action.sa_mask);
	sigaction(SIGILL, &action, NULL);
	if (bench_thread(&thread, mapper, sh) || bench_thread(&thread, spinner, sh))
		_exit(1);
	for (;;) {
		take_over(&sh->vcpu);
		if (sh->op == ENGINES_FILL && sh->page)
			*(volatile char *)(floor_.pages + (sh->page - 1) * PAGE);
		__asm__ __volatile__("ud2");
		hand_over(&sh->us);
	}
}

int engines_floor_create(void)
{
	size_t bytes = ENGINES_PAGES * PAGE;

	bench_nr_cpus();
	floor_.fd = memfd_create("bench-floor", MFD_CLOEXEC);
	floor_.shared = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	floor_.pages = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (floor_.fd < 0 || ftruncate(floor_.fd, PAGE) || floor_.shared == MAP_FAILED ||
	    floor_.pages == MAP_FAILED)
		return -ENOMEM;
	/* Nothing of what we have waiting to be printed is to be printed twice. */
	fflush(NULL);
	floor_.child = fork();
	if (floor_.child == 0)
		child_main(floor_.shared);
	return floor_.child < 0 ? -errno : 0;
}

void engines_floor_destroy(void)
{
	kill(floor_.child, SIGKILL);
	waitpid(floor_.child, NULL, 0);
	munmap(floor_.shared, PAGE);
	munmap(floor_.pages, ENGINES_PAGES * PAGE);
	close(floor_.fd);
}

static void exits(struct shared *sh, uint64_t n, uint32_t *next)
{
	hand_over(&sh->vcpu);
	take_over(&sh->us);
	while (--n) {
		hand_over(next);
		take_over(&sh->us);
	}
}

static void shoot(struct shared *sh, uint64_t n)
{
	while (n--) {
		hand_over(&sh->mapper);
		take_over(&sh->us);
	}
}

/* Pages are mapped beforehand, not measured, by the same thread. */
static void map_pages(struct shared *sh, uint64_t n)
{
	sh->op = ENGINES_FILL;
	sh->page = 0;
	exits(sh, n + 1, &sh->mapper);
	sh->op = ENGINES_SHOOT;
	sh->page = 0;
	hand_over(&sh->spinner);
	take_over(&sh->us);
}

int engines_floor_sample(enum engines_op op, uint64_t n, struct bench_sample *s)
{
	struct shared *sh = floor_.shared;
	struct bench_timer timer;

	bench_pin(0);
	if (op == ENGINES_SHOOT)
		map_pages(sh, n);
	sh->op = op;
	sh->page = 0;
	bench_start(&timer, CLOCK_MONOTONIC);
	if (op == ENGINES_SHOOT)
		shoot(sh, n);
	else
		exits(sh, n + 1, op == ENGINES_FILL ? &sh->mapper : &sh->vcpu);
	bench_stop(&timer, s);
	__atomic_store_n(&sh->spin, sh->spin + 1, __ATOMIC_RELAXED);
	bench_unpin();
	/* One exit more than was asked for begins the round. */
	if (op != ENGINES_SHOOT)
		s->ns *= (double)n / (double)(n + 1);
	return 0;
}
