/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/hosted/escape.h"

#include <time.h>

#define LOOK_USECS 3000
#define FRAMES	   256

/* Kicks the attempt that it has found running for too long, and again while that does not help. */
static void *watchdog(void *arg)
{
	struct escape *e = arg;
	unsigned int looks = 0;
	uint64_t before = 0;

	while (!smp_load_acquire(&e->stop)) {
		uint64_t now;

		look_again_in(LOOK_USECS);
		now = smp_load_acquire(&e->attempt);
		looks = now && now == before ? looks + 1 : 0;
		if (looks > READ_ONCE(e->patience)) {
			smp_store_release(&e->kicked, now);
			engine_hosted.kick(e->rig.engine, 0);
		}
		before = now;
	}
	return NULL;
}

static void machine_create(struct escape *e)
{
	rig_create_hosted(&e->rig, FRAMES, e->nr_cpus);
	rig_hosted(&e->rig)->kicks_to_kill = e->kicks_to_kill;
	for (unsigned int i = 0; i < NR_CANARIES; i++) {
		uint64_t *words;

		e->canaries[i] = rig_page(&e->rig);
		words = rig_words(&e->rig, e->canaries[i]);
		for (unsigned int w = 0; w < PAGE_SIZE / sizeof(*words); w++)
			words[w] = POISON;
	}
	for (unsigned int i = 0; i < e->nr_cpus; i++)
		rig_init_vcpu(&e->rig, i);
	expect_eq(rig_read(&e->rig, DATA), 0);
	e->stop = false;
	expect_eq(pthread_create(&e->watchdog, NULL, watchdog, e), 0);
}

static void machine_destroy(struct escape *e)
{
	smp_store_release(&e->stop, true);
	pthread_join(e->watchdog, NULL);
	rig_destroy(&e->rig);
}

void escape_create(struct escape *e, unsigned int nr_cpus)
{
	memset(e, 0, sizeof(*e));
	e->nr_cpus = nr_cpus;
	e->patience = PATIENT;
	e->kicks_to_kill = HOSTED_KICKS_TO_KILL;
	machine_create(e);
}

void escape_hurry(struct escape *e)
{
	WRITE_ONCE(e->patience, 2);
	e->kicks_to_kill = 4;
	rig_hosted(&e->rig)->kicks_to_kill = e->kicks_to_kill;
}

void escape_destroy(struct escape *e)
{
	escape_check(e);
	machine_destroy(e);
}

void escape_check(struct escape *e)
{
	for (unsigned int i = 0; i < NR_CANARIES; i++) {
		const uint64_t *words = rig_words(&e->rig, e->canaries[i]);

		for (unsigned int w = 0; w < PAGE_SIZE / sizeof(*words); w++)
			expect_eq(words[w], POISON);
	}
	if (rig_space(&e->rig, 0))
		expect_child_intact(rig_space(&e->rig, 0));
}

/* A kick of the attempt before this one may come now. */
static struct engine_exit run(struct escape *e, const struct guest_regs *regs)
{
	struct engine_exit exit;

	do {
		*rig_regs(&e->rig, 0) = *regs;
		smp_store_release(&e->attempt, ++e->made);
		exit = rig_exit(&e->rig, 0);
		smp_store_release(&e->attempt, 0);
	} while (exit.kind == ENGINE_EXIT_KICK && smp_load_acquire(&e->kicked) != e->made);
	return exit;
}

struct engine_exit escape_attempt(struct escape *e, const struct guest_regs *regs)
{
	struct engine_exit exit = run(e, regs);

	escape_check(e);
	switch (exit.kind) {
	case ENGINE_EXIT_TRAP:
		e->trapped++;
		break;
	case ENGINE_EXIT_KICK:
		e->kicks++;
		break;
	default:
		e->died++;
		expect(exit.why && exit.why[0]);
		/* What exit.why points to goes with the machine. */
		exit.why = exit.kind == ENGINE_EXIT_FAIL ? "failed" : "error";
		machine_destroy(e);
		machine_create(e);
	}
	return exit;
}
