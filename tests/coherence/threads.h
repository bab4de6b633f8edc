/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef TESTS_COHERENCE_THREADS_H
#define TESTS_COHERENCE_THREADS_H

#include "tests/coherence/world.h"

/* @steps of each CPU on a thread of its own, while others change the host's memory, the slots and
 * the tables. */
void run_threads(struct world *w, int steps, uint64_t seed);

#endif
