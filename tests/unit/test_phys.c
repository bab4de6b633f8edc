/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The frame pool: what allocation hands out, what a free frame looks like, who may have a
 * reference, and that one lock has one holder.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <gnomon/log.h>
#include <gnomon/phys.h>
#include <gnomon/swap.h>

#include "notifier/frame.h"
#include "tests/support/fail_alloc.h"
#include "tests/support/mm_fixture.h"
#include "tests/support/syscall_filter.h"
#include "tests/support/test.h"

TEST(phys, create_rejects_sizes)
{
	struct phys *phys = NULL;

	expect_eq(phys_create(&phys, 0), -EINVAL);
	expect_eq(phys_create(&phys, 1ULL << 33), -ENOMEM);
	expect_eq(phys_create(&phys, UINT64_MAX), -ENOMEM);
	expect(!phys);
	phys_destroy(NULL);
}

/* No memory, at each place; no descriptor left: nothing is kept. */
TEST(phys, create_fails_whole)
{
	int64_t live = atomic64_read(&allocs.live);
	struct rlimit all, none;
	struct phys *phys = NULL;
	int64_t site = 0;
	int fd, ret;

	for (;; site++) {
		alloc_fail_at(site);
		ret = phys_create(&phys, 16);
		if (!alloc_failed())
			break;
		expect_eq(ret, -ENOMEM);
		expect_eq(atomic64_read(&allocs.live), live);
	}
	expect_eq(ret, 0);
	expect_ge(site, 2);
	phys_destroy(phys);
	phys = NULL;

	fd = dup(STDOUT_FILENO);
	close(fd);
	expect_eq(getrlimit(RLIMIT_NOFILE, &all), 0);
	none = (struct rlimit){.rlim_cur = (rlim_t)fd, .rlim_max = all.rlim_max};
	expect_eq(setrlimit(RLIMIT_NOFILE, &none), 0);
	expect_eq(phys_create(&phys, 16), -EMFILE);
	expect_eq(setrlimit(RLIMIT_NOFILE, &all), 0);
	expect(!phys);
	expect_eq(atomic64_read(&allocs.live), live);
	expect_eq(dup(STDOUT_FILENO), fd);
	close(fd);
}

/* @number fails by @error, if its argument @arg (the low half) has one of @bits. */
static void fails_with(unsigned int number, unsigned int arg, uint32_t bits, int error)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 3),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[arg])),
		BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, bits, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (uint32_t)error),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};

	filter_syscalls(code, ARRAY_SIZE(code));
}

#define MFD_FLAG_NOEXEC_SEAL 0x08
#define MFD_FLAG_EXEC	     0x10

static void expect_memory(void)
{
	struct phys *phys = test_phys(16);
	pfn_t pfn = phys_alloc_zeroed(phys);

	expect_ne(pfn, INVALID_PFN);
	phys_put(phys, pfn);
	test_phys_done(phys);
}

/* vm.memfd_noexec is 2; the kernel is older than that, and knows neither flag. */
TEST(phys, a_host_without_executable_files)
{
	fails_with(SYS_memfd_create, 1, MFD_FLAG_EXEC, EACCES);
	expect_memory();
	fails_with(SYS_memfd_create, 1, MFD_FLAG_NOEXEC_SEAL, EINVAL);
	expect_memory();
}

TEST(phys, a_host_that_knows_no_such_flags)
{
	fails_with(SYS_memfd_create, 1, MFD_FLAG_EXEC | MFD_FLAG_NOEXEC_SEAL, EINVAL);
	expect_memory();
}

static void expect_failure(int error)
{
	struct phys *phys = NULL;
	int fd = dup(STDOUT_FILENO);

	close(fd);
	expect_eq(phys_create(&phys, 16), -error);
	expect(!phys);
	expect_eq(dup(STDOUT_FILENO), fd);
	close(fd);
}

TEST(phys, its_file_does_not_grow)
{
	fails_with(SYS_ftruncate, 1, ~0u, ENOSPC);
	expect_failure(ENOSPC);
}

TEST(phys, its_file_cannot_be_sealed)
{
	fails_with(SYS_fcntl, 1, F_ADD_SEALS & ~(F_GETFD | F_SETFD | F_GETFL | F_SETFL), EPERM);
	expect_failure(EPERM);
}

TEST(phys, its_file_cannot_be_mapped)
{
	fails_with(SYS_mmap, 3, MAP_SHARED, ENOMEM);
	expect_failure(ENOMEM);
}

TEST(phys, nothing_stays_mapped)
{
	struct phys *phys = test_phys(16);
	void *base = phys_map(phys, 0);
	unsigned char there;

	expect_eq(mincore(base, PAGE_SIZE, &there), 0);
	test_phys_done(phys);
	expect_eq(mincore(base, PAGE_SIZE, &there), -1);
	expect_eq(errno, ENOMEM);
}

TEST(phys, memfd_is_sealed_and_close_on_exec)
{
	struct phys *phys = test_phys(16);
	int fd = phys_memfd(phys);
	struct stat st;

	expect_eq(fcntl(fd, F_GETFD), FD_CLOEXEC);
	expect_eq(fcntl(fd, F_GET_SEALS) & (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL),
		  F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
	expect_eq(ftruncate(fd, 0), -1);
	expect_eq(errno, EPERM);
	expect_eq(fstat(fd, &st), 0);
	expect_eq(st.st_size, 16 * PAGE_SIZE);
	test_phys_done(phys);
}

TEST(phys, frame_n_is_at_offset_n)
{
	struct phys *phys = test_phys(4);
	pfn_t pfn[4];

	for (int i = 0; i < 4; i++) {
		uint64_t stamp = 0x5117 + i, found = 0;

		pfn[i] = phys_alloc_zeroed(phys);
		memcpy(phys_map(phys, pfn[i]), &stamp, sizeof(stamp));
		expect_eq(pread(phys_memfd(phys), &found, sizeof(found), pfn[i] << PAGE_SHIFT),
			  sizeof(found));
		expect_eq(found, stamp);
	}
	for (int i = 0; i < 4; i++)
		phys_put(phys, pfn[i]);
	test_phys_done(phys);
}

static uint64_t host_bytes(const struct phys *phys)
{
	struct stat st;

	expect_eq(fstat(phys_memfd(phys), &st), 0);
	return st.st_blocks * 512ULL;
}

TEST(phys, unused_frames_cost_nothing)
{
	struct phys *phys = test_phys(1 << 20);
	pfn_t pfn;

	expect_eq(host_bytes(phys), 0);
	pfn = phys_alloc_zeroed(phys);
	expect_eq(host_bytes(phys), 0);
	*(uint64_t *)phys_map(phys, pfn) = 1;
	expect_ge(host_bytes(phys), PAGE_SIZE);
	expect_le(host_bytes(phys), 2 << 20); /* one huge page, where the host gives those */
	phys_put(phys, pfn);
	test_phys_done(phys);
}

TEST(phys, first_in_first_out)
{
	struct phys *phys = test_phys(4);

	expect_eq(phys_nr_free(phys), 4);
	expect_eq(phys_alloc(phys), 0);
	expect_eq(phys_alloc(phys), 1);
	expect_eq(phys_nr_free(phys), 2);
	/* Frames that were never used became free before this one. */
	phys_put(phys, 1);
	expect_eq(phys_nr_free(phys), 3);
	expect_eq(phys_alloc(phys), 2);
	expect_eq(phys_alloc(phys), 3);
	expect_eq(phys_alloc(phys), 1);
	expect_eq(phys_alloc(phys), INVALID_PFN);
	expect_eq(phys_alloc_zeroed(phys), INVALID_PFN);
	expect_eq(phys_nr_free(phys), 0);

	phys_put(phys, 2);
	phys_put(phys, 0);
	phys_put(phys, 3);
	expect_eq(phys_alloc(phys), 2);
	phys_put(phys, 1);
	expect_eq(phys_alloc(phys), 0);
	expect_eq(phys_alloc(phys), 3);
	expect_eq(phys_alloc(phys), 1);
	expect_eq(phys_alloc(phys), INVALID_PFN);
	for (pfn_t i = 0; i < 4; i++)
		phys_put(phys, i);
	test_phys_done(phys);
}

TEST(phys, freed_is_poisoned)
{
	struct phys *phys = test_phys(2);
	pfn_t pfn = phys_alloc_zeroed(phys);

	expect(test_page_is(phys, pfn, 0));
	memset(phys_map(phys, pfn), 0x55, PAGE_SIZE);
	phys_get(phys, pfn);
	phys_put(phys, pfn);
	expect(test_page_is(phys, pfn, 0x5555555555555555ULL));
	phys_put(phys, pfn);
	expect(test_page_is(phys, pfn, PHYS_POISON));

	expect_eq(phys_alloc(phys), 1);
	expect_eq(phys_alloc(phys), 0);
	expect(test_page_is(phys, 0, PHYS_POISON));
	phys_put(phys, 1);
	expect_eq(phys_alloc_zeroed(phys), 1);
	expect(test_page_is(phys, 1, 0));
	phys_put(phys, 0);
	phys_put(phys, 1);
	test_phys_done(phys);
}

TEST(phys, references)
{
	struct phys *phys = test_phys(1);
	struct frame *frame = pfn_to_frame(phys, 0);

	expect(!phys_get_unless_zero(phys, 0));
	expect_eq(phys_alloc(phys), 0);
	expect(phys_get_unless_zero(phys, 0));
	expect_eq(atomic_read(&frame->refcount), 2);

	expect(!frame_ref_freeze(frame, 1));
	expect(!frame_ref_freeze(frame, 3));
	expect_eq(atomic_read(&frame->refcount), 2);
	expect(frame_ref_freeze(frame, 2));
	expect(!phys_get_unless_zero(phys, 0));
	frame_ref_unfreeze(frame, 2);

	phys_put(phys, 0);
	expect_eq(phys_nr_free(phys), 0);
	phys_put(phys, 0);
	expect(!phys_get_unless_zero(phys, 0));
	test_phys_done(phys);
}

static char warnings[2][256];
static int nr_warnings;

static void collect_warning(enum gnomon_log_level level, const char *message, void *arg)
{
	(void)arg;
	expect_eq(level, GNOMON_LOG_WARN);
	expect(nr_warnings < (int)ARRAY_SIZE(warnings));
	snprintf(warnings[nr_warnings++], sizeof(warnings[0]), "%s", message);
}

TEST(phys, destroy_reports_leaks)
{
	struct phys *phys = test_phys(8);

	for (int i = 0; i < 6; i++)
		phys_alloc(phys);
	phys_put(phys, 0);
	phys_put(phys, 1);
	phys_put(phys, 4);
	gnomon_set_log(collect_warning, NULL);
	phys_destroy(phys);
	gnomon_set_log(NULL, NULL);
	expect_eq(nr_warnings, 1);
	expect_str_contains(warnings[0], "3 frames are still in use, the first is 0x2");
}

TEST(phys, destroy_turns_swap_off)
{
	int64_t live = atomic64_read(&allocs.live);
	struct phys *phys = test_phys(8);
	int fd = dup(STDOUT_FILENO);

	close(fd);
	expect_eq(phys_swap_on(phys, "/tmp", 4), 0);
	phys_destroy(phys);
	expect_eq(atomic64_read(&allocs.live), live);
	expect_eq(dup(STDOUT_FILENO), fd - 1); /* that of the pool is free, too */
	close(fd - 1);
}

static void write_while_free(void *arg)
{
	struct phys *phys = arg;
	pfn_t pfn = phys_alloc(phys);
	uint64_t *page = phys_map(phys, pfn);

	phys_put(phys, pfn);
	page[511] = 1;
	phys_alloc_zeroed(phys);
}

TEST(phys, write_to_a_free_frame_is_a_bug)
{
	struct phys *phys = test_phys(1);

#if defined(CONFIG_DEBUG_FRAMES) || defined(CONFIG_LOCKDEP)
	expect_bug(write_while_free, phys, "offset 0xff8 holds 0x1");
#else
	(void)write_while_free;
	phys_destroy(phys);
	skip("release builds do not check poison");
#endif
	test_phys_done(phys);
}

static void put_twice(void *arg)
{
	struct phys *phys = arg;
	pfn_t pfn = phys_alloc(phys);

	phys_put(phys, pfn);
	phys_put(phys, pfn);
}

static void get_free(void *arg)
{
	phys_get(arg, 0);
}

static void map_beyond(void *arg)
{
	phys_map(arg, 1);
}

static void unlock_unlocked(void *arg)
{
	unlock_frame(arg, 0);
}

static void gain_while_frozen(void *arg)
{
	struct phys *phys = arg;
	struct frame *frame = pfn_to_frame(phys, phys_alloc(phys));

	frame_ref_freeze(frame, 1);
	atomic_inc(&frame->refcount);
	frame_ref_unfreeze(frame, 1);
}

static void frame_beyond(void *arg)
{
	frame_locked(pfn_to_frame(arg, 1));
}

TEST(phys, misuse_is_a_bug)
{
	struct phys *phys = test_phys(1);

	expect_bug(put_twice, phys, "put more often than it was got");
	expect_bug(get_free, phys, "those who have a reference");
	expect_bug(map_beyond, phys, "frame 0x1 is one of the pool's 0x1");
	expect_bug(frame_beyond, phys, "pfn_to_frame(): frame 0x1 is one of the pool's 0x1");
	expect_bug(unlock_unlocked, phys, "locked by the caller");
	expect_bug(gain_while_frozen, phys, "gained 1 references");
	test_phys_done(phys);
}

/* Threads that allocate, stamp, look again and free: nobody ever has the frame of another. */
struct churn {
	struct phys *phys;
	atomic64_t rounds, empty;
	uint64_t goal;
};

static void churn(void *arg)
{
	struct churn *c = arg;
	uint64_t stamp = thread_id() << 32;
	uint64_t rounds = 0;

	while (rounds < c->goal) {
		pfn_t pfn = phys_alloc_zeroed(c->phys);
		uint64_t *page;

		if (pfn == INVALID_PFN) {
			atomic64_inc(&c->empty);
			continue;
		}
		page = phys_map(c->phys, pfn);
		expect_eq(READ_ONCE(page[7]), 0);
		WRITE_ONCE(page[7], stamp + ++rounds);
		if (rounds & 1)
			expect(phys_get_unless_zero(c->phys, pfn));
		expect_eq(READ_ONCE(page[7]), stamp + rounds);
		if (rounds & 1)
			phys_put(c->phys, pfn);
		phys_put(c->phys, pfn);
	}
	atomic64_add(rounds, &c->rounds);
}

TEST(phys, threads_never_share_a_frame)
{
	struct churn c = {.phys = test_phys(3), .goal = test_volume(10000)};

	test_threads(4, churn, &c);
	expect_eq(atomic64_read(&c.rounds), 4 * c.goal);
	test_phys_done(c.phys);
}

struct lockers {
	struct phys *phys;
	uint64_t counter[2]; /* plain: the frame lock is all that protects them */
	uint64_t goal;
	atomic64_t trylocked;
};

/* Frames 0 and 64 share a wait queue: a wake-up for the other is no lock. */
static void locker(void *arg)
{
	struct lockers *l = arg;

	for (uint64_t i = 0; i < l->goal; i++) {
		int which = i & 1;
		pfn_t pfn = which ? 64 : 0;

		if (i % 4 < 2) {
			lock_frame(l->phys, pfn);
		} else if (trylock_frame(l->phys, pfn)) {
			atomic64_inc(&l->trylocked);
		} else {
			lock_frame(l->phys, pfn);
		}
		expect(frame_locked(pfn_to_frame(l->phys, pfn)));
		l->counter[which]++;
		unlock_frame(l->phys, pfn);
	}
}

TEST(phys, frame_lock_excludes)
{
	struct lockers l = {.phys = test_phys(65), .goal = test_volume(20000)};

	expect(trylock_frame(l.phys, 0));
	expect(!trylock_frame(l.phys, 0));
	expect(trylock_frame(l.phys, 64));
	unlock_frame(l.phys, 0);
	unlock_frame(l.phys, 64);

	test_threads(4, locker, &l);
	expect_eq(l.counter[0], 2 * l.goal);
	expect_eq(l.counter[1], 2 * l.goal);
	expect_ge(atomic64_read(&l.trylocked), 1);
	expect(!frame_locked(pfn_to_frame(l.phys, 0)));
	test_phys_done(l.phys);
}
