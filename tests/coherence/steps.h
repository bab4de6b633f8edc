/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Operations of a program, done to the world and, with what they mean, to what is known of it. */
#ifndef TESTS_COHERENCE_STEPS_H
#define TESTS_COHERENCE_STEPS_H

#include "tests/coherence/oracle.h"

/* step.c: one operation of a run of one thread, with all looks at what it has done. */
void step(struct world *w, const struct op *op);
/* What still waits for the middle of another happens now. */
void step_last(struct world *w);
/* Points in the middle of an operation where another can happen. */
#define NR_INSIDE 4
void step_init(struct world *w);

/* cpu.c: the access of @q, as a run loop would have it done, until it has come to something.
 * @emulate: a store to a page table is carried out for the guest. */
void access_memory(struct world *w, struct question *q, struct model_access *access, bool emulate);
/* The oracle's verdict, which ends the run if it is none. */
void judge(struct world *w, const struct question *q);
/* What else a CPU does, from @start on. */
void apply_cpu(struct world *w, const struct op *op, uint64_t start);
/* host.c: what devices and the host do. */
void apply_host(struct world *w, const struct op *op);
bool host_can(const struct op *op); /* also in the middle of a fault */

/*
 * look.c: memory against what is known of it. After an access @q, which may have left @marks;
 * @stored is what it stored, somewhere. Both may be NULL.
 */
void look(struct world *w, struct question *q, const struct marks *marks, const uint64_t *stored);
/* What the access stored is there. */
void look_stored(struct world *w, const struct marks *marks, int page, int word, uint64_t value);

/* generate.c */
void generate(struct world *w, uint64_t *random, struct op *op);

#endif
