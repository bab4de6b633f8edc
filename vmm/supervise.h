/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The main thread while a guest runs: waits for its end, and brings the end about when the time is
 * up or somebody wants it; says meanwhile how it goes.
 */
#ifndef VMM_SUPERVISE_H
#define VMM_SUPERVISE_H

#include "vmm/chaos.h"
#include "vmm/inspect.h"
#include "vmm/signals.h"
#include "vmm/vm.h"

/* How long a guest may take to end after it was asked to. */
#define GRACE_MS 10000

/*
 * Returns when the guest has ended; its vCPUs are left to vm_join. True: they have left already,
 * and all output of the guest is written. False: the guest was made to end from here. @duration_ms:
 * when to ask the guest to stop; 0 is never. @chaos may be NULL. @inspect is for SIGUSR1.
 */
bool supervise(struct vm *vm, const struct chaos *chaos, struct signals *signals,
	       struct inspect *inspect, uint64_t duration_ms);

#endif
