/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the files of bench_engines share: engines_main.c. */
#ifndef TESTS_BENCH_ENGINES_H
#define TESTS_BENCH_ENGINES_H

#include "tests/bench/bench.h"

struct engine_ops;

enum engines_op { ENGINES_EXIT, ENGINES_FILL, ENGINES_SHOOT, ENGINES_SWITCH };

#define ENGINES_PAGES 2048u /* that a sample fills, or shoots down, at most */

/* engines_guest.c: a guest on an engine, with tables made by hand and no shadow MMU. */
int engines_guest_create(const struct engine_ops *ops);
void engines_guest_destroy(void);
int engines_guest_sample(enum engines_op op, uint64_t n, struct bench_sample *s);
/* NULL, or why the engine does not run here. */
const char *engines_guest_missing(const struct engine_ops *ops);

/*
 * engines_floor.c: a process that does the least that any engine with guests in processes of their
 * own has to.
 */
int engines_floor_create(void);
void engines_floor_destroy(void);
int engines_floor_sample(enum engines_op op, uint64_t n, struct bench_sample *s);

#endif
