/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Every implementation that the SRCU benchmarks may compare. Those of packages are there if the
 * package is (CMakeLists.txt).
 */
#ifndef TESTS_BENCH_SRCU_PEERS_H
#define TESTS_BENCH_SRCU_PEERS_H

#include "tests/bench/srcu_peer.h"

extern const struct srcu_peer srcu_gnomon, srcu_floor, srcu_mutex, srcu_rwlock;
extern const struct srcu_peer srcu_urcu_memb, srcu_urcu_mb, srcu_urcu_bp, srcu_urcu_qsbr;
extern const struct srcu_peer srcu_ck;

/* The domains that all threads share. Around everything. */
int srcu_gnomon_init(void);
int srcu_gnomon_cleanup(void);
void srcu_ck_init(void);

#endif
