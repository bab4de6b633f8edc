/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Getting a vCPU of the hosted engine out of the guest. */
#define ENGINE engine_hosted
#define SUITE  engine_hosted_gate
#include "tests/support/engine_gate_cases.h"
