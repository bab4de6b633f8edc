/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One guest and everything it stands on, from the frames up:
 *
 *   phys      the pool of machine frames
 *   ram, mm   guest RAM: a shared object, or private memory, mapped at VM_RAM_HVA of a host mm of
 *             its own
 *   engine    the machine that runs guest code, and its CPUs
 *   shadow    the page tables the guest runs on; memslot 0 is all of RAM, from gpa 0
 *   bus       the devices
 *   vcpus     a thread each
 *
 * A guest ends once, for the first reason that anyone gives (vm_exit, vm_kill, vm_stop, vm_fail):
 * from then on every vCPU leaves the guest as soon as it can. Later reasons are dropped; they are
 * mostly consequences of the first. vm->done_fd is readable once the last vCPU has left, and the
 * guest's last output is written.
 *
 * The order of calls is vm_create, vm_boot, vm_start, (wait), vm_join, vm_destroy, from one thread;
 * after any of them vm_join and vm_destroy may follow. Chaos works on vm->mm and stops before
 * vm_destroy.
 */
#ifndef VMM_VM_H
#define VMM_VM_H

#include <gnomon/mm.h>
#include <gnomon/phys.h>
#include <gnomon/shadow.h>

#include "notifier/sync/lock.h"
#include "vmm/boot.h"
#include "vmm/bus.h"
#include "vmm/devices.h"
#include "vmm/engine.h"
#include "vmm/holes.h"
#include "vmm/vcpu.h"

#define VM_RAM_HVA   0x100000000000UL
#define VM_RAM_SLOT  0		      /* of all RAM, from gpa 0 on */
#define VM_AWAY_HVA  0x600000000000UL /* above the largest RAM: where nothing is, for chaos */
#define VM_MIN_RAM   BOOT_MIN_RAM
#define VM_MAX_VCPUS 1

enum vm_outcome {
	VM_RUNNING,
	VM_EXITED,   /* the guest ended itself; exit_code */
	VM_KILLED,   /* the guest did what it may not do, or did not end in time; reason */
	VM_STOPPED,  /* somebody outside wanted it to end; reason */
	VM_FAILED,   /* the host could not carry on: an OS call failed; reason */
	VM_INTERNAL, /* so could we: something that must not happen did; reason */
};

/* "exited", "killed", "stopped"; "error" for both kinds of failure. */
const char *vm_outcome_name(enum vm_outcome outcome);

struct vm_config {
	const struct engine_ops *engine;
	uint64_t ram_bytes; /* whole pages, at least VM_MIN_RAM */
	bool private_ram;   /* each page belongs to its mapping; else to an object that is mapped */
	uint64_t nr_frames; /* of the machine; 0: vm_pool_frames() */
	uint64_t swap_bytes; /* 0: none */
	const char *swap_dir;
	uint64_t seed;
	unsigned long shadow_pages; /* at most; 0: as many as it takes */
	bool no_huge;		    /* shadow_set_huge() */
	unsigned int prefetch;	    /* shadow_set_prefetch() */
	unsigned int broken;	    /* SHADOW_BREAK_* */
	enum shadow_audit_level audit;
	FILE *console; /* the guest's output; NULL: dropped. The caller's, outlives the vm */
};

struct vm {
	struct vm_config config;

	struct phys *phys;
	struct address_space *ram; /* NULL: private */
	struct mm_struct *mm;
	struct ksm *ksm; /* with private RAM: its pages can be merged */
	struct engine *engine;
	struct shadow *shadow;
	struct holes holes; /* of mm: what is taken from the guest for a while */

	struct bus bus;
	struct dev_console console;
	struct dev_exit exit_port;
	struct dev_control control;

	struct boot_state boot; /* after vm_boot */
	struct vcpu vcpus[VM_MAX_VCPUS];

	int done_fd;	  /* an eventfd, written once, never read from */
	atomic_t running; /* vCPU threads that have not left */

	spinlock_t end_lock; /* protects the next three; encloses nothing */
	enum vm_outcome outcome;
	unsigned int exit_code; /* VM_EXITED */
	char reason[512];
};

/* Frames to make for @ram_bytes of guest RAM. */
uint64_t vm_pool_frames(uint64_t ram_bytes);

/* The least that @image and the tables take, on the guest's side and on ours. */
/* As few shadow pages as a guest gets on with. */
unsigned long vm_min_shadow_pages(void);
uint64_t vm_min_frames(uint64_t ram_bytes, const struct elf_image *image);

/* The largest guest RAM whose pool is at most @pool_bytes, in whole MiB. */
uint64_t vm_max_ram(uint64_t pool_bytes);

/*
 * Everything but the guest's image. 0, or -errno with one line in @why: -ENOMEM, an errno of the
 * OS, or -ENODEV when the engine does not work on this machine.
 */
int vm_create(struct vm **vmp, const struct vm_config *config, char *why, size_t why_len);

/* Lay out @image in RAM. The errors of boot_guest. */
int vm_boot(struct vm *vm, const struct elf_image *image, char *why, size_t why_len);

/* From now on it is noted which pages of RAM are written (gnomon/shadow_dirty.h). No window is open
 * in vm->mm for ever. 0 or -ENOMEM. */
int vm_log_dirty(struct vm *vm);

/* Start the vCPUs. 0 or -errno with none running. */
int vm_start(struct vm *vm);

/* Wait until every vCPU's thread has ended; after the guest's end that is soon. */
void vm_join(struct vm *vm);

/* After vm_join. NULL is fine. */
void vm_destroy(struct vm *vm);

/* The guest ends. Any thread, a vCPU's own included. */
void vm_exit(struct vm *vm, unsigned int code);
void vm_kill(struct vm *vm, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void vm_stop(struct vm *vm, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void vm_fail(struct vm *vm, enum vm_outcome outcome, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

bool vm_ended(const struct vm *vm);

/* For vcpu.c: a vCPU's thread has left its loop. */
void vm_vcpu_left(struct vm *vm);

/* From now on the guest reads 1 at its stop port. It may take no notice. */
void vm_ask_to_stop(struct vm *vm);

#endif
