/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Little programs for the scheduler: each one right, and wrong in one way.
 */
#ifndef TESTS_HOOKS_PROGRAMS_H
#define TESTS_HOOKS_PROGRAMS_H

struct program {
	const char *name;
	void (*right)(void);
	void (*wrong)(void);
	const char *failure; /* of the wrong one, in some schedules: a part of the line */
};

extern const struct program programs[];
extern const unsigned int nr_programs;

/* One thread: a section of SRCU, and a synchronize_srcu() with nobody in its way. */
void srcu_alone(void);

#endif
