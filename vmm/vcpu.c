/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The thread of a vCPU: start, run loop, kick, join. What the exits mean is in exits.c.
 *
 * How a vCPU notices that the guest has ended (or what else a kick is for):
 *
 *	vcpu thread			whoever ends the guest
 *	-----------			----------------------
 *	vm_ended()? no
 *					outcome = killed
 *					kick
 *	vcpu_run
 *
 * must not stay in vcpu_run: the engine remembers a kick until an exit has followed it. Outside the
 * guest a vCPU waits for nothing that does not come by itself, for what is taken from it for a
 * while (holes.h), and for room in its dirty ring: there it looks at vcpu->kicked, which is set
 * until the loop looks again.
 */
#include <string.h>

#include <gnomon/shadow_dirty.h>

#include "notifier/sync/bug.h"
#include "vmm/vcpu.h"
#include "vmm/vm.h"

static bool vcpu_setup(struct vcpu *vcpu)
{
	struct vm *vm = vcpu->vm;
	struct engine *engine = vm->engine;
	int err = engine->ops->vcpu_init(engine, vcpu->id);

	if (err) {
		vm_fail(vm, VM_FAILED, "the %s engine cannot start vCPU %u: %s", engine->ops->name,
			vcpu->id, strerror(-err));
		return false;
	}
	vcpu_cr_init(&vcpu->cr, vm->boot.cr3);
	do {
		vcpu->holes_seq = holes_seq(&vm->holes);
		err = vcpu_cr_load(vm->shadow, vcpu->id, &vcpu->cr);
	} while (err && !vm_ended(vm) && vcpu_wait_for_memory(vcpu));
	if (err) {
		vm_fail(vm, VM_FAILED, "no frame for the first shadow root: %s", strerror(-err));
		return false;
	}

	vcpu->regs = engine->ops->regs(engine, vcpu->id);
	vcpu->regs->rip = vm->boot.entry;
	vcpu->regs->gpr[GPR_RSP] = vm->boot.rsp;
	vcpu->regs->gpr[GPR_RDI] = vm->boot.rdi;
	vcpu->emulate = (struct emulate_ctxt){
		.shadow = vm->shadow,
		.vcpu = vcpu->id,
		.cr = &vcpu->cr,
		.bus = &vm->bus,
		.regs = vcpu->regs,
	};
	return true;
}

/* A kick from now on is one that this look may have missed: so the mark goes before it. */
static bool ended(struct vcpu *vcpu)
{
	(void)xchg(&vcpu->kicked, false);
	return vm_ended(vcpu->vm);
}

static bool kicked(void *arg)
{
	struct vcpu *vcpu = arg;

	return READ_ONCE(vcpu->kicked);
}

bool vcpu_wait_for_hole(struct vcpu *vcpu, hva_t hva)
{
	return hva != INVALID_HVA &&
	       holes_wait(&vcpu->vm->holes, vcpu->holes_seq, hva, kicked, vcpu);
}

bool vcpu_wait_for_memory(struct vcpu *vcpu)
{
	return holes_wait_memory(&vcpu->vm->holes, vcpu->holes_seq, kicked, vcpu);
}

void vcpu_wait_for_dirty_ring(struct vcpu *vcpu)
{
	shadow_wait_dirty_ring(vcpu->vm->shadow, vcpu->id, kicked, vcpu);
}

static void vcpu_thread(void *arg)
{
	struct vcpu *vcpu = arg;
	struct vm *vm = vcpu->vm;

	if (vcpu_setup(vcpu)) {
		while (!ended(vcpu)) {
			struct engine_exit exit;

			vm->engine->ops->vcpu_run(vm->engine, vcpu->id, &exit);
			vcpu->holes_seq = holes_seq(&vm->holes);
			vcpu_handle_exit(vcpu, &exit);
		}
	}
	vm_vcpu_left(vm);
}

void vcpu_init(struct vcpu *vcpu, struct vm *vm, unsigned int id)
{
	vcpu->vm = vm;
	vcpu->id = id;
}

int vcpu_start(struct vcpu *vcpu)
{
	int err = kthread_run(&vcpu->thread, "vcpu", vcpu_thread, vcpu);

	vcpu->started = err == 0;
	return err;
}

void vcpu_kick(struct vcpu *vcpu)
{
	struct engine *engine = vcpu->vm->engine;

	WRITE_ONCE(vcpu->kicked, true);
	holes_wake(&vcpu->vm->holes);
	shadow_wake_dirty_ring(vcpu->vm->shadow);
	engine->ops->kick(engine, vcpu->id);
}

void vcpu_join(struct vcpu *vcpu)
{
	if (!vcpu->started)
		return;
	kthread_join(&vcpu->thread);
	vcpu->started = false;
}
