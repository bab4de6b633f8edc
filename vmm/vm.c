/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Building a guest up and taking it down. vm_create is written out in the order in which the parts
 * depend on each other, and vm_destroy is the same list backwards.
 *
 * Locks: vm->end_lock, see vm.h. Everything else is set up before the first vCPU runs.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <gnomon/ksm.h>
#include <gnomon/swap.h>

#include "notifier/sync/alloc.h"
#include "notifier/sync/bug.h"
#include "notifier/sync/util.h"
#include "vmm/vm.h"
#include "vmm/why.h"

static const char *const outcome_names[] = {
	[VM_RUNNING] = "running", [VM_EXITED] = "exited", [VM_KILLED] = "killed",
	[VM_STOPPED] = "stopped", [VM_FAILED] = "error",  [VM_INTERNAL] = "error",
};

const char *vm_outcome_name(enum vm_outcome outcome)
{
	return outcome_names[outcome];
}

/*
 * What the frames of a guest are used for:
 *
 *   ram        every page of guest RAM, once touched.
 *   ram / 8    free frames for migration. One at a time would do: a page gets its new frame before
 *              it gives the old one back. But free frames are reused first in, first out, so this
 *              is also how long a freed frame keeps its poison: a stale translation is to meet
 *              poison, not the next page.
 *   ram / 128  shadow tables: one table of leaves for 512 pages, for four mappings of all of RAM
 *              (the direct map, the image, and what the guest maps for itself).
 *   512        the shadow's upper levels, the engine's monitor, and the tables of a small guest
 *              that spreads its mappings thinly.
 *   1024       retired tables that the engine keeps back: a whole root is retired at each CR3 load,
 *              and emptying the quarantine is slow, so it should hold many.
 */
#define TABLE_FRAMES 512

uint64_t vm_pool_frames(uint64_t ram_bytes)
{
	uint64_t ram = ram_bytes >> PAGE_SHIFT;

	return ram + ram / 8 + ram / 128 + TABLE_FRAMES + 1024;
}

unsigned long vm_min_shadow_pages(void)
{
	return shadow_min_page_budget(4, VM_MAX_VCPUS);
}

uint64_t vm_min_frames(uint64_t ram_bytes, const struct elf_image *image)
{
	return boot_frames(ram_bytes, image) + TABLE_FRAMES;
}

uint64_t vm_max_ram(uint64_t pool_bytes)
{
	uint64_t low = 0, high = pool_bytes >> 20; /* MiB: low fits, and nothing above high does */

	while (low < high) {
		uint64_t middle = low + (high - low + 1) / 2;

		if (vm_pool_frames(middle << 20) << PAGE_SHIFT <= pool_bytes)
			low = middle;
		else
			high = middle - 1;
	}
	return low << 20;
}

/* RAM as the host sees it: one shared object, or private memory, mapped in an mm of its own. */
static int create_swap(struct vm *vm, char *why, size_t why_len)
{
	const struct vm_config *config = &vm->config;
	int err;

	if (!config->swap_bytes)
		return 0;
	err = phys_swap_on(vm->phys, config->swap_dir, config->swap_bytes >> PAGE_SHIFT);
	if (err)
		return why_fail(why, why_len, err,
				"cannot make a swap file in %s: %s (TMPDIR may name another place)",
				config->swap_dir, strerror(-err));
	err = phys_reclaim_start(vm->phys);
	if (err)
		return why_fail(why, why_len, err, "cannot start the thread that reclaims: %s",
				strerror(-err));
	return 0;
}

static int create_memory(struct vm *vm, char *why, size_t why_len)
{
	uint64_t nr_frames = vm->config.nr_frames ?: vm_pool_frames(vm->config.ram_bytes);
	int err = phys_create(&vm->phys, nr_frames);

	if (err)
		return why_fail(why, why_len, err, "cannot make %" PRIu64 "M of frames: %s",
				nr_frames >> (20 - PAGE_SHIFT), strerror(-err));
	err = create_swap(vm, why, why_len);
	if (err) {
		phys_destroy(vm->phys);
		return err;
	}
	err = -ENOMEM;
	if (!vm->config.private_ram) {
		vm->ram = address_space_create(vm->phys, vm->config.ram_bytes >> PAGE_SHIFT);
		if (!vm->ram)
			goto destroy_phys;
	}
	if (vm->config.private_ram) {
		vm->ksm = ksm_create(vm->phys);
		if (!vm->ksm)
			goto destroy_phys;
	}
	vm->mm = mm_alloc(vm->phys);
	if (!vm->mm)
		goto put_ram;
	err = mm_mmap(vm->mm, VM_RAM_HVA, vm->config.ram_bytes, MM_PROT_READ | MM_PROT_WRITE,
		      vm->ram, 0);
	if (err)
		goto put_mm;
	return 0;

put_mm:
	mmput(vm->mm);
put_ram:
	ksm_destroy(vm->ksm);
	if (vm->ram)
		address_space_put(vm->ram);
destroy_phys:
	phys_reclaim_stop(vm->phys);
	phys_destroy(vm->phys);
	return why_fail(why, why_len, err, "cannot set up guest RAM: %s", strerror(-err));
}

static void destroy_memory(struct vm *vm)
{
	mmput(vm->mm);
	ksm_destroy(vm->ksm);
	if (vm->ram)
		address_space_put(vm->ram);
	phys_reclaim_stop(vm->phys);
	phys_destroy(vm->phys);
}

static int create_engine(struct vm *vm, char *why, size_t why_len)
{
	const struct engine_ops *ops = vm->config.engine;
	int err = ops->create(&vm->engine, vm->phys, VM_MAX_VCPUS, why, why_len);

	return err && err != -ENOMEM ? -ENODEV : err;
}

static int create_shadow(struct vm *vm, char *why, size_t why_len)
{
	int err = shadow_create(&vm->shadow, vm->mm, &vm->engine->machine, VM_MAX_VCPUS);

	if (err)
		goto fail;
	shadow_set_break(vm->shadow, vm->config.broken);
	shadow_set_audit(vm->shadow, vm->config.audit);
	shadow_set_huge(vm->shadow, !vm->config.no_huge);
	err = shadow_set_page_budget(vm->shadow, vm->config.shadow_pages);
	if (!err)
		err = shadow_set_prefetch(vm->shadow, vm->config.prefetch);
	if (err)
		goto destroy_shadow;
	err = shadow_create_memslot(vm->shadow, VM_RAM_SLOT, 0, vm->config.ram_bytes >> PAGE_SHIFT,
				    VM_RAM_HVA);
	if (err)
		goto destroy_shadow;
	return 0;

destroy_shadow:
	shadow_destroy(vm->shadow);
fail:
	return why_fail(why, why_len, err, "cannot set up the shadow page tables: %s",
			strerror(-err));
}

static void guest_exited(void *arg, unsigned int code)
{
	vm_exit(arg, code);
}

static int create_devices(struct vm *vm, char *why, size_t why_len)
{
	int err;

	bus_init(&vm->bus);
	err = dev_console_init(&vm->console, &vm->bus, vm->config.console);
	if (err)
		goto destroy_bus;
	err = dev_exit_init(&vm->exit_port, &vm->bus, guest_exited, vm);
	if (err)
		goto destroy_console;
	err = dev_control_init(&vm->control, &vm->bus);
	if (err)
		goto destroy_console;
	return 0;

destroy_console:
	dev_console_destroy(&vm->console);
destroy_bus:
	bus_destroy(&vm->bus);
	return why_fail(why, why_len, err, "cannot set up the devices: %s", strerror(-err));
}

static void destroy_devices(struct vm *vm)
{
	dev_console_destroy(&vm->console);
	bus_destroy(&vm->bus);
}

int vm_create(struct vm **vmp, const struct vm_config *config, char *why, size_t why_len)
{
	struct vm *vm;
	int err;

	if (!PAGE_ALIGNED(config->ram_bytes) || config->ram_bytes < VM_MIN_RAM)
		return why_fail(why, why_len, -EINVAL, "guest RAM is whole pages, 1M or more");
	vm = kzalloc(sizeof(*vm), GFP_KERNEL);
	if (!vm)
		return why_fail(why, why_len, -ENOMEM, "out of memory");
	vm->config = *config;
	spin_lock_init(&vm->end_lock);
	holes_init(&vm->holes);

	vm->done_fd = eventfd(0, EFD_CLOEXEC);
	if (vm->done_fd < 0) {
		err = why_fail(why, why_len, -errno, "eventfd: %s", strerror(errno));
		goto free_vm;
	}
	err = create_memory(vm, why, why_len);
	if (err)
		goto close_done_fd;
	err = create_engine(vm, why, why_len);
	if (err)
		goto destroy_memory;
	err = create_shadow(vm, why, why_len);
	if (err)
		goto destroy_engine;
	err = create_devices(vm, why, why_len);
	if (err)
		goto destroy_shadow;
	for (unsigned int i = 0; i < VM_MAX_VCPUS; i++)
		vcpu_init(&vm->vcpus[i], vm, i);
	*vmp = vm;
	return 0;

destroy_shadow:
	shadow_destroy(vm->shadow);
destroy_engine:
	config->engine->destroy(vm->engine);
destroy_memory:
	destroy_memory(vm);
close_done_fd:
	close(vm->done_fd);
free_vm:
	kfree(vm);
	return err;
}

void vm_destroy(struct vm *vm)
{
	if (!vm)
		return;
	for (unsigned int i = 0; i < VM_MAX_VCPUS; i++)
		BUG_ON(vm->vcpus[i].started);
	destroy_devices(vm);
	shadow_destroy(vm->shadow);
	vm->config.engine->destroy(vm->engine);
	destroy_memory(vm);
	close(vm->done_fd);
	kfree(vm);
}

int vm_boot(struct vm *vm, const struct elf_image *image, char *why, size_t why_len)
{
	int err = boot_check_reach(image, vm->engine, why, why_len);

	if (err)
		return err;
	return boot_guest(vm->shadow, vm->config.ram_bytes, image, vm->config.seed, &vm->boot, why,
			  why_len);
}

int vm_log_dirty(struct vm *vm)
{
	const struct memslot_region ram = {
		.id = VM_RAM_SLOT,
		.flags = MEMSLOT_LOG_DIRTY,
		.npages = vm->config.ram_bytes >> PAGE_SHIFT,
		.hva = VM_RAM_HVA,
	};

	return shadow_set_memslot(vm->shadow, &ram);
}

int vm_start(struct vm *vm)
{
	atomic_set(&vm->running, VM_MAX_VCPUS);
	for (unsigned int i = 0; i < VM_MAX_VCPUS; i++) {
		int err = vcpu_start(&vm->vcpus[i]);

		if (err) {
			vm_fail(vm, VM_FAILED, "cannot start a vCPU thread: %s", strerror(-err));
			vm_join(vm);
			return err;
		}
	}
	return 0;
}

void vm_join(struct vm *vm)
{
	for (unsigned int i = 0; i < VM_MAX_VCPUS; i++)
		vcpu_join(&vm->vcpus[i]);
}

void vm_vcpu_left(struct vm *vm)
{
	uint64_t one = 1;

	if (!atomic_dec_and_test(&vm->running))
		return;
	dev_console_flush(&vm->console);
	WARN_ON(write(vm->done_fd, &one, sizeof(one)) != sizeof(one));
}

/* Mark the end, if nobody has. The reason is complete before anyone can see that there is one. */
static void vm_end(struct vm *vm, enum vm_outcome outcome, unsigned int code, const char *fmt,
		   va_list ap)
{
	bool first;

	spin_lock(&vm->end_lock);
	first = vm->outcome == VM_RUNNING;
	if (first) {
		vm->exit_code = code;
		if (fmt)
			vsnprintf(vm->reason, sizeof(vm->reason), fmt, ap);
		/* Pairs with vm_ended(). */
		smp_store_release(&vm->outcome, outcome);
	}
	spin_unlock(&vm->end_lock);
	if (!first)
		return;
	for (unsigned int i = 0; i < VM_MAX_VCPUS; i++)
		vcpu_kick(&vm->vcpus[i]);
}

bool vm_ended(const struct vm *vm)
{
	/* Pairs with vm_end(): whoever sees the end may read reason and exit_code. */
	return smp_load_acquire(&vm->outcome) != VM_RUNNING;
}

static void vm_end_fmt(struct vm *vm, enum vm_outcome outcome, unsigned int code, const char *fmt,
		       ...)
{
	va_list ap;

	va_start(ap, fmt);
	vm_end(vm, outcome, code, fmt, ap);
	va_end(ap);
}

void vm_exit(struct vm *vm, unsigned int code)
{
	vm_end_fmt(vm, VM_EXITED, code, NULL);
}

void vm_kill(struct vm *vm, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vm_end(vm, VM_KILLED, 0, fmt, ap);
	va_end(ap);
}

void vm_stop(struct vm *vm, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vm_end(vm, VM_STOPPED, 0, fmt, ap);
	va_end(ap);
}

void vm_fail(struct vm *vm, enum vm_outcome outcome, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vm_end(vm, outcome, 0, fmt, ap);
	va_end(ap);
}

void vm_ask_to_stop(struct vm *vm)
{
	dev_control_stop(&vm->control);
}
