/* SPDX-License-Identifier: 0BSD */
/*
 * SRCU: readers that may sleep, and the two ways to get rid of what they may still be looking at.
 *
 * Readers follow a pointer to a configuration that the main thread keeps replacing. The old one is
 * freed after synchronize_srcu(), which waits, or by a callback of call_srcu(), which does not.
 */
#include <pthread.h>
#include <sched.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <gnomon/srcu.h>

#define ROUNDS 200

#define CHECK(what)                                                                        \
	do {                                                                               \
		if (!(what)) {                                                             \
			fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #what); \
			exit(1);                                                           \
		}                                                                          \
	} while (0)

struct config {
	int version;
	int twice; /* of version; -1 once nobody may look here any more */
	struct srcu_head head;
};

static struct srcu_struct ss;
static struct config *current;
static int stop;
static int freed_by_callback; /* callbacks of a domain run one at a time */

static struct config *config_new(int version)
{
	struct config *config = (struct config *)malloc(sizeof(*config));

	CHECK(config);
	config->version = version;
	config->twice = 2 * version;
	return config;
}

static void config_free(struct config *config)
{
	__atomic_store_n(&config->twice, -1, __ATOMIC_RELAXED);
	free(config);
}

static void config_free_callback(struct srcu_head *head)
{
	config_free((struct config *)((char *)head - offsetof(struct config, head)));
	freed_by_callback++;
}

static void *reader(void *unused)
{
	struct config *config;
	int cookie;

	do {
		cookie = srcu_read_lock(&ss);
		config = __atomic_load_n(&current, __ATOMIC_ACQUIRE);
		sched_yield(); /* a section may sleep: what it found stays */
		CHECK(__atomic_load_n(&config->twice, __ATOMIC_RELAXED) == 2 * config->version);
		srcu_read_unlock(&ss, cookie);
	} while (!__atomic_load_n(&stop, __ATOMIC_RELAXED));
	return unused;
}

/* Readers that begin after this find @config; those that began before may have found the other. */
static struct config *publish(struct config *config)
{
	return __atomic_exchange_n(&current, config, __ATOMIC_ACQ_REL);
}

int main(void)
{
	pthread_t readers[2];

	CHECK(init_srcu_struct(&ss) == 0);
	CHECK(srcu_workers_start() == 0); /* else callbacks wait for srcu_barrier() */
	publish(config_new(0));
	for (int i = 0; i < 2; i++)
		CHECK(pthread_create(&readers[i], NULL, reader, NULL) == 0);

	for (int i = 1; i <= ROUNDS; i++) {
		struct config *old = publish(config_new(i));

		if (i % 2) {
			synchronize_srcu(&ss);
			config_free(old);
		} else {
			call_srcu(&ss, &old->head, config_free_callback);
		}
	}
	srcu_barrier(&ss); /* every callback so far has returned */
	CHECK(freed_by_callback == ROUNDS / 2);

	__atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
	for (int i = 0; i < 2; i++)
		pthread_join(readers[i], NULL);
	srcu_workers_stop();
	CHECK(cleanup_srcu_struct(&ss) == 0);
	config_free(current);
	printf("srcu: %d configurations replaced under two readers\n", ROUNDS);
	return 0;
}
