/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One virtual CPU: a thread that runs the guest, and handles each of its exits, until the guest
 * ends.
 */
#ifndef VMM_VCPU_H
#define VMM_VCPU_H

#include "notifier/sync/atomic.h"
#include "notifier/sync/thread.h"
#include "vmm/emulate.h"

struct vm;

struct vcpu {
	struct vm *vm;
	unsigned int id;
	struct kthread thread;
	bool started; /* is to be joined; belongs to the thread that calls vm_* */
	bool kicked;  /* since the run loop last looked whether the guest has ended */

	/* The rest belongs to the thread. */
	struct guest_regs *regs;
	struct vcpu_cr cr;
	struct emulate_ctxt emulate;
	uint64_t holes_seq; /* holes_seq(), before the exit at hand was looked at */
	/* Read by anyone: exits with an exception of the guest's, and of them stores to its page
	 * tables that were carried out, and that were left to the CPU. */
	atomic64_t traps, stores, unprotected;
};

void vcpu_init(struct vcpu *vcpu, struct vm *vm, unsigned int id);

/* Start the thread. 0 or -errno. */
int vcpu_start(struct vcpu *vcpu);

/* Get the vCPU out of the guest, or out of a wait for memory, if it is there. Any thread, at any
 * time after vcpu_init. */
void vcpu_kick(struct vcpu *vcpu);

/* Wait for the thread to end, if it was started. The guest must end, or have ended. */
void vcpu_join(struct vcpu *vcpu);

/*
 * For exits.c: the mm refused an access at @hva, or there was no memory for one. True: let the
 * guest run on, into the same exit again if need be (holes.h).
 */
bool vcpu_wait_for_hole(struct vcpu *vcpu, hva_t hva);
bool vcpu_wait_for_memory(struct vcpu *vcpu);
/* Until whoever collects the dirty rings has made room, or the vCPU is kicked. */
void vcpu_wait_for_dirty_ring(struct vcpu *vcpu);

/* exits.c: what to do about an exit. Returns with the guest fit to run on, or ended (vm.h). */
void vcpu_handle_exit(struct vcpu *vcpu, const struct engine_exit *exit);

#endif
