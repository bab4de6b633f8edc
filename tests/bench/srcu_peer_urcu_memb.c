/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The flavour that most programs link: readers pay nothing for barriers, updaters call membarrier.
 */
#define _LGPL_SOURCE
#define URCU_API_MAP
#include <urcu/urcu-memb.h>

#define PEER	  srcu_urcu_memb
#define PEER_NAME "urcu-memb"
#include "tests/bench/srcu_peer_urcu.h"
