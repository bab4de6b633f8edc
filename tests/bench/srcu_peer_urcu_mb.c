/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Readers with full barriers, for kernels without membarrier.
 */
#define _LGPL_SOURCE
#define URCU_API_MAP
#include <urcu/urcu-mb.h>

#define PEER	  srcu_urcu_mb
#define PEER_NAME "urcu-mb"
#include "tests/bench/srcu_peer_urcu.h"
