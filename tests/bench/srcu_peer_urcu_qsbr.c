/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Readers cost nothing, threads say when they are outside.
 */
#define _LGPL_SOURCE
#define URCU_API_MAP
#include <urcu/urcu-qsbr.h>

#define PEER	  srcu_urcu_qsbr
#define PEER_NAME "urcu-qsbr"
#include "tests/bench/srcu_peer_urcu.h"
