/* SPDX-License-Identifier: 0BSD */
/*
 * One notifier for all who want it: whoever comes with the same ops finds the one that is there,
 * the last to go has it freed, and mmu_notifier_synchronize() knows when that is done.
 *
 * A driver has a context for each address space and hands it to every user that opens the device
 * there. Getting one takes all locks of the address space, which a signal interrupts.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <gnomon/mmu_notifier.h>
#include <gnomon/signal.h>

#define BASE  0x100000UL
#define PAGES 4
#define LEN   (PAGES * PAGE_SIZE)
#define USERS 2

#define CHECK(what)                                                                        \
	do {                                                                               \
		if (!(what)) {                                                             \
			fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #what); \
			exit(1);                                                           \
		}                                                                          \
	} while (0)

struct context {
	struct mmu_notifier mn;
	int alive; /* 1, until it is freed */
};

static struct phys *phys;
static struct mm_struct *mm;
static unsigned int made, freed, windows, releases; /* of all contexts; atomic */

static struct context *context_of(struct mmu_notifier *mn)
{
	return (struct context *)((char *)mn - offsetof(struct context, mn));
}

static void count(unsigned int *counter)
{
	__atomic_fetch_add(counter, 1, __ATOMIC_RELAXED);
}

static unsigned int counted(const unsigned int *counter)
{
	return __atomic_load_n(counter, __ATOMIC_RELAXED);
}

/* --- what the mm calls */

static struct mmu_notifier *context_alloc(struct mm_struct *of)
{
	struct context *context = (struct context *)calloc(1, sizeof(*context));

	(void)of; /* the core sets mn.mm, and mn.ops */
	if (!context)
		return (struct mmu_notifier *)ERR_PTR(-ENOMEM);
	context->alive = 1;
	count(&made);
	return &context->mn;
}

/* No callback of it runs, and nobody can find it. Must not sleep. */
static void context_free(struct mmu_notifier *mn)
{
	struct context *context = context_of(mn);

	CHECK(context->alive);
	context->alive = 0;
	free(context);
	count(&freed);
}

static int context_start(struct mmu_notifier *mn, const struct mmu_notifier_range *range)
{
	(void)range;
	CHECK(context_of(mn)->alive); /* also while somebody puts it */
	count(&windows);
	return 0;
}

/* From exit only: no put calls it. */
static void context_release(struct mmu_notifier *mn, struct mm_struct *gone)
{
	(void)gone;
	CHECK(context_of(mn)->alive);
	count(&releases);
}

static const struct mmu_notifier_ops context_ops = {
	.release = context_release,
	.invalidate_range_start = context_start,
	.alloc_notifier = context_alloc,
	.free_notifier = context_free,
};

/* --- what users do */

static void *user_open(void *unused)
{
	(void)unused;
	return mmu_notifier_get(&context_ops, mm);
}

static void on_signal(int number)
{
	(void)number;
	set_signal_pending();
}

/* Whoever is interrupted has nothing: what was made for him is freed before he is told. */
static void get_while_a_signal_is_pending(void)
{
	struct mmu_notifier *mn;

	CHECK(signal(SIGUSR1, on_signal) != SIG_ERR);
	CHECK(raise(SIGUSR1) == 0);
	mn = mmu_notifier_get(&context_ops, mm);
	CHECK(IS_ERR(mn) && PTR_ERR(mn) == -EINTR);
	CHECK(counted(&made) == 1 && counted(&freed) == 1);
	CHECK(signal_pending()); /* until we say so: it may be for more than this call */
	clear_signal_pending();
}

static void two_users_of_one(void)
{
	struct mmu_notifier *mn[USERS];
	pthread_t threads[USERS];
	void *got;

	for (int i = 0; i < USERS; i++)
		CHECK(pthread_create(&threads[i], NULL, user_open, NULL) == 0);
	for (int i = 0; i < USERS; i++) {
		CHECK(pthread_join(threads[i], &got) == 0);
		CHECK(!IS_ERR(got));
		mn[i] = (struct mmu_notifier *)got;
	}
	CHECK(mn[0] == mn[1] && counted(&made) == 2);

	CHECK(mm_zap_range(mm, BASE, LEN) >= 0);
	CHECK(counted(&windows) == 1); /* told once, for both */
	mmu_notifier_put(mn[0]);
	CHECK(mm_zap_range(mm, BASE, LEN) >= 0);
	CHECK(counted(&windows) == 2); /* the other one is still there */
	mmu_notifier_put(mn[1]);       /* which has dropped its mappings before */
	CHECK(mm_zap_range(mm, BASE, LEN) >= 0);
	CHECK(counted(&windows) == 2);

	/* Sooner or later it is freed. Here we want to know: the next step could be dlclose(). */
	mmu_notifier_synchronize();
	CHECK(counted(&freed) == 2);
}

/* The pages may go while there are users; the structure that mn->mm points to stays for them. */
static void user_outlives_the_pages(void)
{
	struct mmu_notifier *mn = mmu_notifier_get(&context_ops, mm);

	CHECK(!IS_ERR(mn) && counted(&made) == 3);
	mmput(mm);
	CHECK(counted(&releases) == 1);
	CHECK(mn->mm == mm && !mmget_not_zero(mn->mm));
	mmu_notifier_put(mn);
	mmu_notifier_synchronize();
	CHECK(counted(&freed) == 3);
}

int main(void)
{
	char byte = 1;

	CHECK(srcu_workers_start() == 0); /* else free_notifier waits for a synchronize */
	CHECK(phys_create(&phys, 2 * PAGES) == 0);
	mm = mm_alloc(phys);
	CHECK(mm);
	CHECK(mm_mmap(mm, BASE, LEN, MM_PROT_READ | MM_PROT_WRITE, NULL, 0) == 0);
	CHECK(mm_write(mm, BASE, &byte, 1) == 0);

	get_while_a_signal_is_pending();
	two_users_of_one();
	user_outlives_the_pages();

	srcu_workers_stop();
	CHECK(phys_nr_free(phys) == 2 * PAGES);
	phys_destroy(phys);
	printf("get_put: %u contexts made, and as many freed\n", made);
	return 0;
}
