/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The flavour whose threads register themselves.
 */
#define _LGPL_SOURCE
#define URCU_API_MAP
#include <urcu/urcu-bp.h>

#define PEER	  srcu_urcu_bp
#define PEER_NAME "urcu-bp"
#include "tests/bench/srcu_peer_urcu.h"
