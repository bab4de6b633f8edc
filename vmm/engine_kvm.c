/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The kvm engine: putting it together and taking it apart.
 *
 * A machine is one VM with one memory slot over all frames, one monitor, and its vCPUs. Creating it
 * begins with the start-up experiments (engine_kvm_probe.c) on a small machine of their own: a host
 * on which a shootdown does not work is refused, since nothing above could be right on it.
 */
#include "vmm/engine_kvm.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "notifier/sync/alloc.h"
#include "notifier/sync/bug.h"
#include "vmm/why.h"

#define DEVICE "/dev/kvm"

/* Newer than the oldest headers that we build with. */
#ifndef KVM_CAP_DISABLE_QUIRKS2
#define KVM_CAP_DISABLE_QUIRKS2 213
#endif

/* What opening the device says, and what a user can do about it. */
static int explain_open(int err, char *why, size_t why_len)
{
	switch (err) {
	case ENOENT:
		return why_fail(why, why_len, -err,
				DEVICE " does not exist: load the module kvm_intel or kvm_amd "
				       "(virtualisation must be on in the firmware); in a "
				       "container, pass the device in (--device " DEVICE ")");
	case EACCES:
		return why_fail(why, why_len, -err,
				DEVICE " may not be opened by this user: join the group that owns "
				       "it (usermod -aG kvm $USER) and log in again, or be root");
	case EPERM:
		return why_fail(why, why_len, -err,
				DEVICE " exists, but this container is not allowed to use it: "
				       "start it with --device " DEVICE);
	case ENODEV:
	case ENXIO:
		return why_fail(why, why_len, -err,
				DEVICE " has no driver: load the module kvm_intel or kvm_amd "
				       "(virtualisation must be on in the firmware)");
	default:
		return why_fail(why, why_len, -err, DEVICE " cannot be opened: %s", strerror(err));
	}
}

static const struct {
	int cap, bits;
	const char *what;
} needed_caps[] = {
	{KVM_CAP_USER_MEMORY, 1, "memory slots"},
	{KVM_CAP_DESTROY_MEMORY_REGION_WORKS, 1, "deleting memory slots"},
	{KVM_CAP_SYNC_MMU, 1, "following changes of the host's mappings (SYNC_MMU)"},
	{KVM_CAP_IMMEDIATE_EXIT, 1, "immediate_exit"},
	{KVM_CAP_EXT_CPUID, 1, "GET_SUPPORTED_CPUID"},
	{KVM_CAP_SYNC_REGS, KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS,
	 "registers in kvm_run (SYNC_REGS)"},
};

/* The device, open and good for us, or -errno. */
int kvm_open(char *why, size_t why_len)
{
	int fd = open(DEVICE, O_RDWR | O_CLOEXEC);
	int version;

	if (fd < 0)
		return explain_open(errno, why, why_len);
	version = ioctl(fd, KVM_GET_API_VERSION, 0);
	if (version < 0) {
		close(fd);
		return why_fail(why, why_len, -ENODEV, DEVICE " is some other device, not KVM");
	}
	if (version != KVM_API_VERSION) {
		close(fd);
		return why_fail(why, why_len, -ENODEV,
				DEVICE " speaks version %d of its API; needed is %d", version,
				KVM_API_VERSION);
	}
	for (unsigned int i = 0; i < ARRAY_SIZE(needed_caps); i++) {
		int have = ioctl(fd, KVM_CHECK_EXTENSION, (long)needed_caps[i].cap);

		if (have > 0 && (have & needed_caps[i].bits) == needed_caps[i].bits)
			continue;
		close(fd);
		return why_fail(why, why_len, -ENODEV,
				"this host's KVM lacks something that gnomon needs: %s; a newer "
				"kernel has it",
				needed_caps[i].what);
	}
	return fd;
}

static int create_vm(struct kvm_engine *engine, char *why, size_t why_len)
{
	struct kvm_enable_cap cap = {
		.cap = KVM_CAP_DISABLE_QUIRKS2,
		.args = {KVM_X86_QUIRK_FIX_HYPERCALL_INSN},
	};
	int quirks, err;

	do {
		engine->vm_fd = ioctl(engine->kvm_fd, KVM_CREATE_VM, 0ul);
	} while (engine->vm_fd < 0 && errno == EINTR);
	if (engine->vm_fd < 0) {
		err = -errno;
		return why_fail(why, why_len, err, DEVICE " opens, but making a VM fails: %s%s",
				strerror(-err),
				err == -EBUSY ? " (does another hypervisor hold the CPU?)" : "");
	}

	/*
	 * By default KVM patches the other vendor's hypercall instruction where it finds it: a
	 * store to guest memory through W, after a table walk of its own, that no shootdown stops.
	 * Without the quirk the guest gets #UD.
	 */
	quirks = ioctl(engine->kvm_fd, KVM_CHECK_EXTENSION, (long)KVM_CAP_DISABLE_QUIRKS2);
	if (quirks > 0 && quirks & KVM_X86_QUIRK_FIX_HYPERCALL_INSN &&
	    ioctl(engine->vm_fd, KVM_ENABLE_CAP, &cap)) {
		err = -errno;
		return why_fail(why, why_len, err, "KVM keeps patching hypercalls: %s",
				strerror(-err));
	}
	return 0;
}

static const struct machine_ops machine_ops = {
	.alloc_table = kvm_alloc_table,
	.free_table = kvm_free_table,
	.map_frame = kvm_map_frame,
	.shootdown = kvm_shootdown,
	.shootdown_range = kvm_shootdown_range,
	.retire_table = kvm_retire_table,
	.load_root = kvm_load_root,
	.halt = kvm_halt,
};

static struct kvm_engine *alloc_engine(struct phys *phys, unsigned int nr_cpus)
{
	struct kvm_engine *engine;

	engine = kzalloc(sizeof(*engine) + nr_cpus * sizeof(engine->cpus[0]), GFP_KERNEL);
	if (!engine)
		return NULL;
	engine->engine.ops = &engine_kvm;
	engine->engine.machine.ops = &machine_ops;
	engine->engine.machine.levels = 4;
	engine->phys = phys;
	engine->kvm_fd = engine->vm_fd = -1;
	engine->monitor =
		(struct monitor){INVALID_PFN, INVALID_PFN, INVALID_PFN, INVALID_PFN, INVALID_PFN};
	mutex_init(&engine->quarantine_lock);
	init_waitqueue_head(&engine->gate_wait);
	engine->nr_cpus = nr_cpus;
	for (unsigned int i = 0; i < nr_cpus; i++) {
		struct kvm_cpu *cpu = &engine->cpus[i];

		cpu->engine = engine;
		cpu->id = i;
		cpu->fd = -1;
		cpu->desc = cpu->stack = cpu->root = INVALID_PFN;
	}
	return engine;
}

/* Everything but the experiments, which are made on such a machine. */
int kvm_engine_create_untested(struct kvm_engine **enginep, struct phys *phys, unsigned int nr_cpus,
			       char *why, size_t why_len)
{
	struct kvm_engine *engine;
	int err;

	if (nr_cpus == 0 || nr_cpus > MONITOR_MAX_VCPUS)
		return why_fail(why, why_len, -EINVAL, "%u vCPUs: 1 to %u are possible", nr_cpus,
				MONITOR_MAX_VCPUS);
	engine = alloc_engine(phys, nr_cpus);
	if (!engine)
		return why_fail(why, why_len, -ENOMEM, "out of memory");

	/* kvm_engine_destroy knows by the members how far this came. */
	engine->kvm_fd = kvm_open(why, why_len);
	err = min(engine->kvm_fd, 0);
	err = err ?: create_vm(engine, why, why_len);
	err = err ?: kvm_mem_init(engine, why, why_len);
	err = err ?: kvm_monitor_init(engine, why, why_len);
	for (unsigned int i = 0; i < nr_cpus && !err; i++)
		err = kvm_cpu_init(&engine->cpus[i], why, why_len);
	if (err) {
		kvm_engine_destroy(engine);
		return err;
	}
	kvm_gate_init_signal();
	*enginep = engine;
	return 0;
}

/* First KVM loses its VM and with it every translation; then the frames may go. */
void kvm_engine_destroy(struct kvm_engine *engine)
{
	for (unsigned int i = 0; i < engine->nr_cpus; i++) {
		BUG_ON(READ_ONCE(engine->cpus[i].running));
		kvm_cpu_destroy(&engine->cpus[i]);
	}
	if (engine->vm_fd >= 0)
		close(engine->vm_fd);
	if (engine->kvm_fd >= 0)
		close(engine->kvm_fd);
	kvm_mem_destroy(engine);
	kvm_monitor_destroy(engine);
	kfree(engine);
}

static int create(struct engine **enginep, struct phys *phys, unsigned int nr_vcpus, char *why,
		  size_t why_len)
{
	struct kvm_engine *engine;
	bool needs_quarantine, huge;
	int err;

	err = kvm_probe_tables(&needs_quarantine, &huge, why, why_len);
	err = err ?: kvm_engine_create_untested(&engine, phys, nr_vcpus, why, why_len);
	if (err)
		return err;
	engine->needs_quarantine = needs_quarantine;
	engine->engine.machine.huge = huge;
	*enginep = &engine->engine;
	return 0;
}

static void destroy(struct engine *engine)
{
	kvm_engine_destroy(to_kvm_engine(engine));
}

static int vcpu_init(struct engine *engine, unsigned int vcpu)
{
	kvm_gate_bind_thread(&to_kvm_engine(engine)->cpus[vcpu]);
	return 0;
}

static struct guest_regs *regs(struct engine *engine, unsigned int vcpu)
{
	return &to_kvm_engine(engine)->cpus[vcpu].regs;
}

static void vcpu_run(struct engine *engine, unsigned int vcpu, struct engine_exit *exit)
{
	kvm_cpu_run(&to_kvm_engine(engine)->cpus[vcpu], exit);
}

static void kick(struct engine *engine, unsigned int vcpu)
{
	kvm_gate_kick(&to_kvm_engine(engine)->cpus[vcpu]);
}

static void stats(struct engine *engine, uint64_t *quarantine_drains, uint64_t *quarantined)
{
	struct kvm_engine *kvm = to_kvm_engine(engine);

	mutex_lock(&kvm->quarantine_lock);
	*quarantine_drains = kvm->quarantine.drains;
	*quarantined = kvm->quarantine.drained;
	mutex_unlock(&kvm->quarantine_lock);
}

const struct engine_ops engine_kvm = {
	.name = "kvm",
	.probe = kvm_probe,
	.create = create,
	.destroy = destroy,
	.vcpu_init = vcpu_init,
	.regs = regs,
	.vcpu_run = vcpu_run,
	.kick = kick,
	.stats = stats,
};
