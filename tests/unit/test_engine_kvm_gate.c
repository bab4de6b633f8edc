/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Getting a vCPU of the kvm engine out of the guest. */
#define ENGINE engine_kvm
#define SUITE  engine_kvm_gate
#include "tests/support/engine_gate_cases.h"
