/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The mappers: a child's first thread and one beside it, which make system calls for us in the
 * child. We write a list of them to a page that the child can only read, and count seq up; the
 * mapper makes the calls, writes seq to another such page, by pwrite() to the file behind it, and
 * wakes us. So nothing that the guest can write takes part in it, and what has been done cannot be
 * forged.
 *
 * Of both together one list is done at a time (pending).
 *
 *   us, under space->lock               mapper
 *   ---------------------               ------
 *   wait: ack.seq == cmd.seq            sleeps while cmd.seq == what it did last
 *   calls, nr
 *   cmd.seq + 1          (release)
 *   wake                                reads seq, then nr and calls
 *                                       makes them; the first that fails: ack.error
 *                                       ack.seq = cmd.seq; wake, if somebody waits
 *   ack.seq == cmd.seq   (acquire)
 *   reads ack.error
 *
 * Whoever waits wakes the mapper, and has it on his own CPU. Who does not wait, a fill, does that
 * without the lock (hosted_posted). All of them may be on one CPU, and then to be woken is to run:
 *
 *   our thread of the vCPU, CPU 1       mapper, the vCPU, CPU 1             shootdown, CPU 0
 *   -----------------------------       -----------------------             ----------------
 *   lock; posts; wakes the mapper
 *                                       the list is done; wakes the vCPU
 *                                       the guest runs, to the end of
 *                                         its slice: milliseconds           lock: waits as long
 *   unlock
 *
 * (./dev bench engines, engine_shootdown.)
 */
#include "vmm/engine_hosted.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "notifier/sync/bug.h"

#define PATIENCE_MSECS 100 /* before we look whether there is anybody to wait for */

/* Not those of notifier/sync/futex.h: these words are in two processes, and whoever runs the
 * libraries' threads one at a time has no say in what a child does. */
void hosted_futex_wait(uint32_t *word, uint32_t value, unsigned int msecs)
{
	const struct timespec timeout = {msecs / 1000, msecs % 1000 * 1000000l};

	syscall(SYS_futex, word, FUTEX_WAIT, value, &timeout, NULL, 0);
}

void hosted_futex_wake(uint32_t *word)
{
	syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

static struct stub_ack *ack(struct hosted_space *space)
{
	return (struct stub_ack *)(space->ctl + STUB_CTL_ACK(space->mapper));
}

/*
 * Until the last list is done. 0; the -errno of its call that failed, after which no call of it was
 * made; or -ESRCH: the child is dead, and nothing is mapped in it.
 */
int hosted_wait(struct hosted_space *space)
{
	uint32_t seq, done;
	int err;

	lockdep_assert_held(&space->lock);
	if (space->dead)
		return -ESRCH;
	if (!space->pending)
		return 0;
	seq = hosted_cmd(space)->seq;
	if (smp_load_acquire(&ack(space)->seq) != seq) {
		hosted_place_mapper(space);
		hosted_futex_wake(&hosted_cmd(space)->seq);
	}
	while ((done = smp_load_acquire(&ack(space)->seq)) != seq) {
		WRITE_ONCE(hosted_cmd(space)->waits, 1);
		/* Pairs with the mapper's (hosted_stub.S, done): it wakes us, or we see that it is
		 * done. */
		smp_mb();
		hosted_futex_wait(&ack(space)->seq, done, PATIENCE_MSECS);
		if (smp_load_acquire(&ack(space)->seq) != seq && !hosted_child_alive(space))
			return -ESRCH;
	}
	WRITE_ONCE(hosted_cmd(space)->waits, 0);
	space->pending = false;
	err = ack(space)->error;
	ack(space)->error = 0;
	return -err;
}

/* Where the calls of the next list go, that @mapper is to do; STUB_NR_CALLS at most. The last list
 * is done. */
struct stub_call *hosted_list(struct hosted_space *space, enum hosted_mapper_role mapper)
{
	lockdep_assert_held(&space->lock);
	ASSERT(!space->pending, "the last list is done, and we know how it went");
	space->mapper = mapper;
	return hosted_cmd(space)->calls;
}

/* Whoever posts either waits, under the lock (hosted_do), or wakes what hosted_posted() says,
 * without it. */
void hosted_post(struct hosted_space *space, unsigned int nr)
{
	struct stub_cmd *c = hosted_cmd(space);

	lockdep_assert_held(&space->lock);
	ASSERT(nr <= STUB_NR_CALLS, "%u calls fit the page", nr);
	hosted_place_mapper(space);
	c->nr = nr;
	space->pending = true;
	/* Pairs with the mapper's loads of seq, then nr and calls (hosted_stub.S, list). */
	smp_store_release(&c->seq, c->seq + 1);
}

int hosted_do(struct hosted_space *space, unsigned int nr)
{
	hosted_post(space, nr);
	return hosted_wait(space);
}

/* The word that the mapper sleeps at. It outlives the lock: if the child is gone by the time that
 * it is woken there, nobody is. */
uint32_t *hosted_posted(struct hosted_space *space)
{
	lockdep_assert_held(&space->lock);
	return &hosted_cmd(space)->seq;
}
