/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The shadow MMU under a guest that runs, on the kvm engine: what a first touch costs beside the
 * least that it could cost, and what a guest's memory costs once all of it was touched.
 *
 * There is no vCPU thread: who measures runs the guest, exit by exit, with the handlers of the VMM
 * (vmm/exits.c). A job of the guest's (guest.c) is timed from the entry that begins it to the
 * exit that ends it.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "guests/lib/boot.h"
#include "vmm/cpl3.h"
#include "vmm/hostmem.h"
#include "vmm/vm.h"
/* Behind the VMM's: they have an ARRAY_SIZE as well. */
#include "tests/bench/shadow.h"
#include "tests/bench/walk.h"

#define MIB (1UL << 20)

/* Where locks are checked, it is only to be seen that it runs. */
#ifdef CONFIG_LOCKDEP
#define WALK_BYTES MIB
#else
#define WALK_BYTES (256 * MIB)
#endif
#define RAM_BYTES (WALK_BYTES + 8 * MIB)

static struct engine_report engine;

static struct {
	struct vm *vm;
	void *elf; /* the guest's file */
	size_t elf_size;
	uint64_t first;	 /* gpa of the memory that jobs are for */
	char *frames;	 /* that memory, as this process has it mapped */
	char *anonymous; /* as much of its own */
	uint64_t sum;	 /* of one walk */
} run;

const char *shadow_kvm_missing(const struct bench *b)
{
	static bool probed;
	struct host_memory host;

	(void)b;
	if (!probed)
		engine_kvm.probe(&engine);
	probed = true;
	host_memory_limit(&host);
	if (!engine.usable)
		return engine.why;
	return host.bytes < (vm_pool_frames(RAM_BYTES) << PAGE_SHIFT) + WALK_BYTES
		       ? "it needs more memory than there is"
		       : NULL;
}

bool shadow_kvm_shadowed(void)
{
	return engine_noted(&engine, "host_shadows_tables");
}

static int fail(const char *what, const char *why)
{
	fprintf(stderr, "bench: %s: %s\n", what, why);
	return -EIO;
}

/* ---- the guest ---- */

/* Run it to its next exit with an exception. 0 or -errno. */
static int next_trap(struct engine_exit *exit)
{
	do
		engine_kvm.vcpu_run(run.vm->engine, 0, exit);
	while (exit->kind == ENGINE_EXIT_KICK);
	return exit->kind == ENGINE_EXIT_TRAP ? 0 : fail("the guest", exit->why);
}

static int handle(const struct engine_exit *exit)
{
	struct vcpu *vcpu = &run.vm->vcpus[0];

	vcpu->holes_seq = holes_seq(&run.vm->holes);
	vcpu_handle_exit(vcpu, exit);
	return vm_ended(run.vm) ? fail("the guest", run.vm->reason) : 0;
}

/* Until it asks for a job; *faults counts those it had on the way. */
static int to_the_end(uint64_t *faults)
{
	struct engine_exit exit;
	int ret;

	for (*faults = 0;; ++*faults) {
		ret = next_trap(&exit);
		if (ret || exit.vector == VECTOR_GP)
			return ret;
		ret = handle(&exit);
		if (ret)
			return ret;
		/* To fill its memory takes the guest seconds. */
		if (bench_interrupted())
			return -EINTR;
	}
}

/* To be begun by the next entry. The guest stands at its HLT, which takes one byte. */
static void give_job(enum walk_job job, uint64_t bytes, uint64_t times)
{
	struct guest_regs *regs = run.vm->vcpus[0].regs;

	regs->gpr[GPR_RDI] = job;
	regs->gpr[GPR_RSI] = BOOT_DIRECT_MAP + run.first;
	regs->gpr[GPR_RDX] = bytes;
	regs->gpr[GPR_RCX] = times;
	regs->rip++;
}

static int do_job(enum walk_job job, uint64_t bytes, uint64_t times, uint64_t *faults)
{
	give_job(job, bytes, times);
	return to_the_end(faults);
}

/* As vcpu.c starts one, on this thread. */
static int start_vcpu(void)
{
	struct vm *vm = run.vm;
	struct vcpu *vcpu = &vm->vcpus[0];
	uint64_t faults;
	int ret = engine_kvm.vcpu_init(vm->engine, 0);

	if (ret)
		return ret;
	vcpu_cr_init(&vcpu->cr, vm->boot.cr3);
	ret = vcpu_cr_load(vm->shadow, 0, &vcpu->cr);
	if (ret)
		return ret;
	vcpu->regs = engine_kvm.regs(vm->engine, 0);
	vcpu->regs->rip = vm->boot.entry;
	vcpu->regs->gpr[GPR_RSP] = vm->boot.rsp;
	vcpu->regs->gpr[GPR_RDI] = vm->boot.rdi;
	return to_the_end(&faults);
}

static int read_guest(struct elf_image *image, char *why, size_t size)
{
	int fd = open(BENCH_GUEST, O_RDONLY | O_CLOEXEC);
	struct stat st;

	if (fd < 0)
		return -errno;
	run.elf_size = fstat(fd, &st) ? 0 : st.st_size;
	run.elf = mmap(NULL, run.elf_size, PROT_READ, MAP_PRIVATE, fd, 0);
	close(fd);
	if (run.elf == MAP_FAILED) {
		run.elf = NULL;
		return -EIO;
	}
	return elf_parse(run.elf, run.elf_size, image, why, size);
}

void shadow_kvm_teardown(const struct bench *b)
{
	(void)b;
	vm_destroy(run.vm);
	if (run.elf)
		munmap(run.elf, run.elf_size);
	if (run.frames)
		munmap(run.frames, WALK_BYTES);
	if (run.anonymous)
		munmap(run.anonymous, WALK_BYTES);
	memset(&run, 0, sizeof(run));
}

int shadow_kvm_setup(const struct bench *b)
{
	const struct vm_config config = {.engine = &engine_kvm, .ram_bytes = RAM_BYTES};
	struct elf_image image;
	char why[384] = "it cannot be read";
	uint64_t faults;
	int ret;

	bench_pin(0);
	ret = read_guest(&image, why, sizeof(why));
	if (!ret)
		ret = vm_create(&run.vm, &config, why, sizeof(why));
	if (!ret)
		ret = vm_boot(run.vm, &image, why, sizeof(why));
	if (ret) {
		fail(BENCH_GUEST, why);
	} else {
		run.first = (run.vm->boot.image_end + 2 * MIB) & ~(2 * MIB - 1);
		ret = run.first + WALK_BYTES > run.vm->boot.reserved_start ? -ENOMEM : start_vcpu();
	}
	/* Each job once: from here on what the guest itself is made of is mapped. */
	for (int job = WALK_TOUCH; !ret && job <= WALK_PAGES; job++)
		ret = do_job(job, PAGE_SIZE, 1, &faults);
	bench_unpin();
	if (ret)
		shadow_kvm_teardown(b);
	return ret;
}

/* ---- a first touch, and what it is made of ---- */

static hva_t touched(void)
{
	return VM_RAM_HVA + run.first;
}

/* The pages are in host memory, and none is in the shadow tables. */
static void drop_entries(uint64_t n)
{
	struct mm_struct *mm = run.vm->mm;
	struct mmu_notifier_range range;

	mmap_read_lock(mm);
	mmu_notifier_range_init(&range, MMU_NOTIFY_CLEAR, 0, mm, touched(),
				touched() + (n << PAGE_SHIFT));
	mmu_notifier_invalidate_range_start(&range);
	mmu_notifier_invalidate_range_end(&range);
	mmap_read_unlock(mm);
}

/* All entries stay, and the host has forgotten what it made of them: madvise(MADV_DONTNEED) of the
 * frames, as for a shootdown, which is one. */
static int drop_frames(uint64_t n)
{
	struct machine *machine = &run.vm->engine->machine;
	pfn_t frames[SHADOW_KVM_MAX];

	for (uint64_t i = 0; i < n; i++)
		frames[i] = mm_lookup_pfn(run.vm->mm, touched() + (i << PAGE_SHIFT));
	return machine->ops->shootdown(machine, frames, n);
}

/* Touch @n pages, with so many faults that come to us. */
static int touch(uint64_t n, uint64_t expected, double *ns)
{
	struct bench_sample s;
	struct bench_timer timer;
	uint64_t faults;
	int ret;

	give_job(WALK_TOUCH, n << PAGE_SHIFT, 1);
	bench_start(&timer, CLOCK_THREAD_CPUTIME_ID);
	ret = to_the_end(&faults);
	bench_stop(&timer, &s);
	*ns += s.ns;
	if (!ret && faults != expected)
		ret = fail("touch", "not as many faults as there should be");
	return ret;
}

/* The guest has a page fault of which nothing is made, and so has it again. */
static int trap(uint64_t n, double *ns)
{
	struct engine_exit exit;
	struct bench_timer timer;
	struct bench_sample s;
	uint64_t faults;
	int ret;

	drop_entries(1);
	give_job(WALK_TOUCH, PAGE_SIZE, 1);
	ret = next_trap(&exit);
	bench_start(&timer, CLOCK_THREAD_CPUTIME_ID);
	for (uint64_t i = 0; i < n && !ret; i++)
		ret = next_trap(&exit);
	bench_stop(&timer, &s);
	*ns += s.ns;
	if (!ret && exit.vector != VECTOR_PF)
		ret = fail("trap", "not by a page fault");
	if (!ret)
		ret = handle(&exit);
	return ret ?: to_the_end(&faults);
}

static int refault(uint64_t n, double *ns)
{
	double unused = 0;
	int ret;

	drop_entries(n);
	ret = touch(n, n, &unused);
	if (!ret)
		ret = drop_frames(n);
	return ret ?: touch(n, 0, ns);
}

int shadow_kvm_touch_sample(const struct bench *b, const struct bench_variant *v, uint64_t n,
			    struct bench_sample *s)
{
	const enum shadow_kvm_op op = *(const enum shadow_kvm_op *)v->arg;
	struct bench_timer timer;
	double ns = 0;
	int ret = 0;

	(void)b;
	bench_pin(0);
	bench_start(&timer, CLOCK_MONOTONIC);
	if (op == SHADOW_KVM_TOUCH_NEW) {
		ret = mm_madvise(run.vm->mm, touched(), n << PAGE_SHIFT, MM_MADV_REMOVE);
		ret = ret ?: touch(n, n, &ns);
	}
	if (op == SHADOW_KVM_TOUCH) {
		drop_entries(n);
		ret = touch(n, n, &ns);
	}
	if (op == SHADOW_KVM_TRAP || op == SHADOW_KVM_BOTH)
		ret = trap(n, &ns);
	if (!ret && (op == SHADOW_KVM_REFAULT || op == SHADOW_KVM_BOTH))
		ret = refault(n, &ns);
	bench_stop(&timer, s); /* for whether it was disturbed */
	s->ns = ns;
	bench_unpin();
	return bench_interrupted() ? 0 : ret;
}

/* ---- memory that was touched ---- */

/* Address space for what is walked, in pages of 4 KiB. NULL: there is none. */
static char *reserve(int prot)
{
	char *at = mmap(NULL, WALK_BYTES, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return at == MAP_FAILED ? NULL : at;
}

static int no_huge_pages(char *at)
{
	/* EINVAL: a kernel that has none. */
	return madvise(at, WALK_BYTES, MADV_NOHUGEPAGE) && errno != EINVAL ? -errno : 0;
}

static pfn_t frame_of(uint64_t page)
{
	return mm_lookup_pfn(run.vm->mm, touched() + (page << PAGE_SHIFT));
}

/*
 * The guest's own frames, in its order: what a memory costs depends on which memory of the host it
 * is (docs/bench.md), and that is not what is asked.
 */
static int map_frames(void)
{
	const uint64_t nr = WALK_BYTES >> PAGE_SHIFT;
	int fd = phys_memfd(run.vm->phys);

	run.frames = reserve(PROT_NONE);
	if (!run.frames)
		return -ENOMEM;
	for (uint64_t page = 0, len; page < nr; page += len) {
		pfn_t pfn = frame_of(page);

		for (len = 1; page + len < nr && frame_of(page + len) == pfn + len; len++)
			;
		if (mmap(run.frames + (page << PAGE_SHIFT), len << PAGE_SHIFT, PROT_READ,
			 MAP_SHARED | MAP_FIXED, fd, (off_t)(pfn << PAGE_SHIFT)) == MAP_FAILED)
			return -errno;
	}
	return no_huge_pages(run.frames);
}

static int make_anonymous(void)
{
	int ret;

	run.anonymous = reserve(PROT_READ | PROT_WRITE);
	ret = run.anonymous ? no_huge_pages(run.anonymous) : -ENOMEM;
	if (!ret)
		walk_fill(run.anonymous, WALK_BYTES);
	return ret;
}

static uint64_t walk_native(enum walk_job job, const char *at)
{
	return job == WALK_LINES ? walk_lines(at, WALK_BYTES) : walk_pages(at, WALK_BYTES);
}

int shadow_kvm_walk_setup(const struct bench *b)
{
	uint64_t faults;
	int ret = shadow_kvm_setup(b);

	if (ret)
		return ret;
	bench_pin(0);
	ret = do_job(WALK_FILL, WALK_BYTES, 1, &faults);
	if (!ret)
		ret = map_frames();
	if (!ret)
		ret = make_anonymous();
	if (!ret)
		run.sum = walk_native(*(const enum walk_job *)b->arg, run.anonymous);
	bench_unpin();
	if (ret)
		shadow_kvm_teardown(b);
	return ret;
}

int shadow_kvm_walk_sample(const struct bench *b, const struct bench_variant *v, uint64_t n,
			   struct bench_sample *s)
{
	const enum walk_job job = *(const enum walk_job *)b->arg;
	const char *native = strcmp(v->name, "anonymous") == 0 ? run.anonymous : run.frames;
	const bool guest = strcmp(v->name, "guest") == 0;
	struct bench_timer timer;
	uint64_t faults = 0, sum = 0;
	int ret = 0;

	bench_pin(0);
	bench_start(&timer, CLOCK_THREAD_CPUTIME_ID);
	if (guest)
		ret = do_job(job, WALK_BYTES, n, &faults);
	for (uint64_t i = 0; !guest && i < n; i++)
		sum += walk_native(job, native);
	bench_stop(&timer, s);
	bench_unpin();
	if (guest)
		sum = run.vm->vcpus[0].regs->gpr[GPR_RAX];
	if (!ret && (sum != n * run.sum || faults))
		ret = fail("walk", "the guest's memory is not what it wrote, or not all there");
	return bench_interrupted() ? 0 : ret;
}
