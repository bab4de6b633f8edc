/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Physical memory is one slot of 1 GiB at 0, so that a 1 GiB page at 0 is all of it; hardly any of
 * it is ever touched:
 *
 *   0 ..            what the cases' pages map; a 4 KiB page is PAGE
 *   MONITOR ..      GDT and TSS, IDT, stubs, stack, the program, and the tables that map them
 *   POOL ..         the cases' tables; used up, the slot is taken back and given again
 *
 * Every case's root has two entries besides the case's own: the monitor, for the supervisor alone,
 * and the program, for the user. An exception gets to a stub that does OUT with the vector in the
 * port; what comes back is read from the stack. The access done, the program does OUT as well: an
 * exit at CPL 0, and #GP with a known RIP at CPL 3.
 */
#include "tests/paging/vcpu_kvm.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "notifier/sync/bug.h"

#define PAGE	    0x01000000ul
#define MONITOR	    0x20000000ul
#define POOL	    0x21000000ul
#define POOL_FRAMES 4096

/* Frames from MONITOR on. */
enum { DESC, IDT, STUBS, STACK, PROGRAM, SHARED_PML4, TABLES, NR_OWN = TABLES + 6 };
#define OWN(n) (MONITOR + (n)*0x1000ul)

/* Slots of a PML4 that no case uses. */
#define MONITOR_SLOT 201
#define PROGRAM_SLOT 2
#define MONITOR_VA   ((uint64_t)MONITOR_SLOT << 39)
#define PROGRAM_VA   ((uint64_t)PROGRAM_SLOT << 39)
#define OWN_VA(n)    (MONITOR_VA + (n)*0x1000ul)

#define ADDRESS_MASK 0x000ffffffffff000ul

#define KERNEL_CS  0x08
#define KERNEL_SS  0x10
#define USER_SS	   0x2b
#define USER_CS	   0x33
#define TSS_SEL	   0x38
#define LDT_SEL	   0x48
#define TSS_OFFSET 0x100

#define VECTOR_PORT   0x40
#define DONE_PORT     0x20
#define OUT_DONE      0x20e6 /* "out %al, $DONE_PORT" */
#define VALUE_READ    0xe6   /* its first byte: what the page holds */
#define VALUE_WRITTEN 0x5a

/* A data segment of DPL 3, accessed: what an implicit read finds in the LDT. */
#define DESCRIPTOR 0x00cff3000000fffful

/* clang-format off */
extern const char paging_program[], paging_read[], paging_write[], paging_implicit[],
	paging_fetch[], paging_read_done[], paging_write_done[], paging_implicit_done[],
	paging_program_end[];
asm(	".pushsection .rodata\n"
	"paging_program:\n"	/* RCX = RDX = 0, EAX = PKRU, R8 = value, RSI = where to go on */
	"	wrpkru\n"
	"	mov %r8, %rax\n"
	"	jmp *%rsi\n"
	"paging_read:\n"
	"	mov (%rdi), %al\n"
	"paging_read_done:\n"
	"	out %al, $0x20\n"
	"paging_write:\n"
	"	mov %al, (%rdi)\n"
	"paging_write_done:\n"
	"	out %al, $0x20\n"
	"paging_implicit:\n"	/* selector 7: entry 0 of the LDT, which begins at RDI */
	"	mov %eax, %gs\n"
	"paging_implicit_done:\n"
	"	out %al, $0x20\n"
	"paging_fetch:\n"
	"	jmp *%rdi\n"
	"paging_program_end:\n"
	".popsection\n");
/* clang-format on */

struct vcpu_kvm {
	int kvm, vm, cpu;
	struct kvm_run *run;
	size_t run_size;
	char *memory;
	struct kvm_userspace_memory_region slot;
	struct vcpu_features features;
	struct kvm_sregs sregs; /* as KVM made them, and what is the same for all cases */
	uint64_t next_table;
	uint64_t table[SDM_LEVELS]; /* of the case that was placed last: [level] holds entry[level]
				     */
	timer_t timer;
};

static void *at(struct vcpu_kvm *v, uint64_t gpa)
{
	return v->memory + gpa;
}

/* --- the guest's own memory ------------------------------------------------------------------- */

static void fill_descriptors(struct vcpu_kvm *v)
{
	uint64_t *gdt = at(v, OWN(DESC)), tss = OWN_VA(DESC) + TSS_OFFSET;
	uint64_t rsp0 = OWN_VA(STACK) + 0x1000;
	uint16_t iomap = 0x68; /* behind the limit: no ports */

	gdt[KERNEL_CS / 8] = 0x00af9b000000ffff;
	gdt[KERNEL_SS / 8] = 0x00cf93000000ffff;
	gdt[USER_SS / 8] = 0x00cff3000000ffff;
	gdt[USER_CS / 8] = 0x00affb000000ffff;
	gdt[TSS_SEL / 8] = 0x00008b0000000067 | (tss & 0xffffff) << 16 | (tss >> 24 & 0xff) << 56;
	gdt[TSS_SEL / 8 + 1] = tss >> 32;
	memcpy(at(v, OWN(DESC) + TSS_OFFSET + 4), &rsp0, 8);
	memcpy(at(v, OWN(DESC) + TSS_OFFSET + 0x66), &iomap, 2);
}

/* 16 bytes for each vector: push $0, where the CPU pushes no error code; out %al, $port; hlt. */
static void fill_stubs(struct vcpu_kvm *v)
{
	for (unsigned int vector = 0; vector < 32; vector++) {
		bool has_code = vector == 8 || (vector >= 10 && vector <= 14) || vector == 17;
		uint64_t stub = OWN_VA(STUBS) + 16 * vector;
		uint64_t *gate = at(v, OWN(IDT) + 16 * vector);
		unsigned char *code = at(v, OWN(STUBS) + 16 * vector);
		const unsigned char all[] = {0x6a, 0x00, 0xe6, VECTOR_PORT + vector, 0xf4};

		memcpy(code, all + 2 * has_code, sizeof(all) - 2 * has_code);
		gate[0] = (stub & 0xffff) | KERNEL_CS << 16 | 0x8eull << 40 |
			  (stub >> 16 & 0xffff) << 48;
		gate[1] = stub >> 32;
	}
}

/* Tables for the two slots, with everything set that a CPU could want to set. */
static void fill_tables(struct vcpu_kvm *v)
{
	const uint64_t bits = SDM_P | SDM_RW | SDM_A | SDM_D;
	uint64_t *pml4 = at(v, OWN(SHARED_PML4));

	for (unsigned int i = 0; i < 2; i++) {
		unsigned int first = TABLES + 3 * i; /* PDPT, page directory, page table */
		uint64_t flags = bits | (i ? SDM_US : 0);
		uint64_t *pt = at(v, OWN(first + 2));

		*(uint64_t *)at(v, OWN(first)) = OWN(first + 1) | flags;
		*(uint64_t *)at(v, OWN(first + 1)) = OWN(first + 2) | flags;
		pml4[i ? PROGRAM_SLOT : MONITOR_SLOT] = OWN(first) | flags;
		if (i)
			pt[0] = OWN(PROGRAM) | flags;
		else
			for (unsigned int n = 0; n <= PROGRAM; n++)
				pt[n] = OWN(n) | flags;
	}
}

/* The host forgets everything that it made from our tables. */
static void forget_tables(struct vcpu_kvm *v)
{
	v->slot.memory_size = 0;
	ASSERT(!ioctl(v->vm, KVM_SET_USER_MEMORY_REGION, &v->slot), "take the slot back");
	v->slot.memory_size = VCPU_MEMORY;
	ASSERT(!ioctl(v->vm, KVM_SET_USER_MEMORY_REGION, &v->slot), "give the slot again");
	v->next_table = POOL;
}

static uint64_t new_table(struct vcpu_kvm *v)
{
	uint64_t table = v->next_table;

	v->next_table += 0x1000;
	memset(at(v, table), 0, 0x1000);
	return table;
}

/* --- making the vCPU -------------------------------------------------------------------------- */

#define MAX_CPUID 256

struct cpuid {
	struct kvm_cpuid2 head;
	struct kvm_cpuid_entry2 entries[MAX_CPUID];
};

static const struct kvm_cpuid_entry2 *leaf(const struct cpuid *cpuid, uint32_t function)
{
	static const struct kvm_cpuid_entry2 none;

	for (unsigned int i = 0; i < cpuid->head.nent; i++)
		if (cpuid->entries[i].function == function && cpuid->entries[i].index == 0)
			return &cpuid->entries[i];
	return &none;
}

static void read_features(struct vcpu_features *f, const struct cpuid *cpuid)
{
	const struct kvm_cpuid_entry2 *vendor = leaf(cpuid, 0), *structured = leaf(cpuid, 7),
				      *extended = leaf(cpuid, 0x80000001),
				      *sizes = leaf(cpuid, 0x80000008);

	f->amd = vendor->ebx == 0x68747541 || vendor->ebx == 0x6f677948; /* Auth.., Hygo.. */
	f->smep = structured->ebx >> 7 & 1;
	f->smap = structured->ebx >> 20 & 1;
	f->pku = structured->ecx >> 3 & 1;
	f->la57 = structured->ecx >> 16 & 1;
	f->nx = extended->edx >> 20 & 1;
	f->gigabyte_pages = extended->edx >> 26 & 1;
	f->maxphyaddr = sizes->eax & 0xff ? sizes->eax & 0xff : 36;
}

static void on_tick(int sig)
{
	(void)sig;
}

/* Gets KVM_RUN back now and then, so that a guest that hangs is noticed. */
static void start_ticks(struct vcpu_kvm *v)
{
	struct sigaction action = {.sa_handler = on_tick};
	struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGUSR1};
	struct itimerspec every = {.it_interval.tv_nsec = 200000000, .it_value.tv_nsec = 200000000};

	event._sigev_un._tid = syscall(SYS_gettid);
	ASSERT(!sigaction(SIGUSR1, &action, NULL), "a handler");
	ASSERT(!timer_create(CLOCK_MONOTONIC, &event, &v->timer), "a timer");
	ASSERT(!timer_settime(v->timer, 0, &every, NULL), "a timer that ticks");
}

static void init_sregs(struct vcpu_kvm *v)
{
	ASSERT(!ioctl(v->cpu, KVM_GET_SREGS, &v->sregs), "read the special registers");
	v->sregs.gdt.base = OWN_VA(DESC);
	v->sregs.gdt.limit = TSS_SEL + 15;
	v->sregs.idt.base = OWN_VA(IDT);
	v->sregs.idt.limit = 32 * 16 - 1;
	v->sregs.tr = (struct kvm_segment){.base = OWN_VA(DESC) + TSS_OFFSET,
					   .limit = 0x67,
					   .selector = TSS_SEL,
					   .type = 11,
					   .present = 1};
}

/* Descriptors that are not open are -1; what is not mapped is MAP_FAILED. */
static bool make(struct vcpu_kvm *v, struct cpuid *cpuid, char *why, size_t size)
{
	v->kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (v->kvm < 0) {
		snprintf(why, size, "/dev/kvm: %s", strerror(errno));
		return false;
	}
	v->vm = ioctl(v->kvm, KVM_CREATE_VM, 0);
	cpuid->head.nent = MAX_CPUID;
	if (v->vm < 0 || ioctl(v->kvm, KVM_GET_SUPPORTED_CPUID, cpuid)) {
		snprintf(why, size, "KVM makes no VM, or tells no CPUID: %s", strerror(errno));
		return false;
	}
	read_features(&v->features, cpuid);

	v->memory = mmap(NULL, VCPU_MEMORY, PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (v->memory == MAP_FAILED) {
		snprintf(why, size, "no address space for the guest: %s", strerror(errno));
		return false;
	}
	v->slot = (struct kvm_userspace_memory_region){.userspace_addr = (uintptr_t)v->memory,
						       .memory_size = VCPU_MEMORY};
	v->run_size = ioctl(v->kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	v->cpu = ioctl(v->vm, KVM_CREATE_VCPU, 0);
	if (v->cpu < 0 || ioctl(v->vm, KVM_SET_USER_MEMORY_REGION, &v->slot) ||
	    ioctl(v->cpu, KVM_SET_CPUID2, cpuid)) {
		snprintf(why, size, "KVM makes no vCPU of this kind: %s", strerror(errno));
		return false;
	}
	v->run = mmap(NULL, v->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, v->cpu, 0);
	if (v->run == MAP_FAILED) {
		snprintf(why, size, "no vCPU state: %s", strerror(errno));
		return false;
	}
	return true;
}

/* --- one case --------------------------------------------------------------------------------- */

/* Is the case's place in the root one that the monitor or the program needs? */
static bool in_the_way(const struct paging_case *c)
{
	unsigned int index = paging_case_index(c, c->top);

	if (c->top == SDM_PML5E)
		return index == 0;
	return index == MONITOR_SLOT || index == PROGRAM_SLOT;
}

bool vcpu_kvm_place(struct vcpu_kvm *v, struct paging_case *c)
{
	uint64_t frame[SDM_LEVELS] = {0};
	uint64_t *root, *shared = at(v, OWN(SHARED_PML4));

	if (in_the_way(c))
		return false;
	if (c->access.mode == SDM_IMPLICIT &&
	    (c->access.kind == SDM_WRITE || !sdm_is_canonical(&c->cpu, c->access.address)))
		return false;

	if (v->next_table + SDM_LEVELS * 0x1000 > POOL + POOL_FRAMES * 0x1000ul)
		forget_tables(v);
	for (int level = c->top; level >= c->leaf; level--) {
		v->table[level] = new_table(v);
		if (level < c->top)
			frame[level + 1] = v->table[level];
	}
	frame[c->leaf] = c->leaf == SDM_PTE ? PAGE : 0;
	paging_case_place(c, v->table[c->top], frame);
	for (int level = c->top; level >= c->leaf; level--) {
		uint64_t *table = at(v, v->table[level]);

		table[paging_case_index(c, level)] = c->entry[level];
	}
	root = at(v, v->table[c->top]);
	if (c->top == SDM_PML5E) {
		root[0] = OWN(SHARED_PML4) | SDM_P | SDM_RW | SDM_US | SDM_A;
	} else {
		root[MONITOR_SLOT] = shared[MONITOR_SLOT];
		root[PROGRAM_SLOT] = shared[PROGRAM_SLOT];
	}
	return true;
}

static void set_segments(struct kvm_sregs *s, bool user, uint64_t ldt)
{
	struct kvm_segment data = {.limit = 0xffffffff,
				   .selector = user ? USER_SS : KERNEL_SS,
				   .present = 1,
				   .type = 3,
				   .dpl = user ? 3 : 0,
				   .db = 1,
				   .s = 1,
				   .g = 1};

	s->ss = s->ds = s->es = s->fs = s->gs = data;
	data.selector = user ? USER_CS : KERNEL_CS;
	data.type = 11;
	data.db = 0;
	data.l = 1;
	s->cs = data;
	s->ldt = (struct kvm_segment){
		.base = ldt, .limit = 0xffff, .selector = LDT_SEL, .type = 2, .present = 1};
}

static void set_controls(struct vcpu_kvm *v, const struct paging_case *c, int cpl)
{
	struct kvm_sregs s = v->sregs;
	const struct sdm_cpu *cpu = &c->cpu;

	s.cr0 = 0x80000033 | (cpu->wp ? 1u << 16 : 0);
	s.cr3 = sdm_root(cpu); /* no PCID, no PGE: a load of CR3 forgets everything */
	s.cr4 = 1u << 5 | (cpu->la57 ? 1u << 12 : 0) | (cpu->smep ? 1u << 20 : 0) |
		(cpu->smap ? 1u << 21 : 0) | (cpu->pke ? 1u << 22 : 0);
	s.efer = 0x500 | (cpu->nxe ? 0x800 : 0);
	s.cr2 = 0;
	set_segments(&s, cpl == 3, c->access.mode == SDM_IMPLICIT ? c->access.address : 0);
	ASSERT(!ioctl(v->cpu, KVM_SET_SREGS, &s), "set the special registers: %s", strerror(errno));
}

struct program {
	const char *entry, *done;
};

static struct program program_of(const struct sdm_access *access)
{
	if (access->mode == SDM_IMPLICIT)
		return (struct program){paging_implicit, paging_implicit_done};
	if (access->kind == SDM_READ)
		return (struct program){paging_read, paging_read_done};
	if (access->kind == SDM_WRITE)
		return (struct program){paging_write, paging_write_done};
	return (struct program){paging_fetch, NULL};
}

/* Address of @code at that privilege. */
static uint64_t code_address(int cpl, const char *code)
{
	return (cpl == 3 ? PROGRAM_VA : OWN_VA(PROGRAM)) + (code - paging_program);
}

static void set_registers(struct vcpu_kvm *v, const struct paging_case *c, int cpl)
{
	uint64_t entry = code_address(cpl, program_of(&c->access).entry);
	struct kvm_regs regs = {.rflags = 2 | (c->cpu.ac ? 1u << 18 : 0), .rip = entry};

	regs.rdi = c->access.address;
	regs.r8 = c->access.mode == SDM_IMPLICIT ? 7 : VALUE_WRITTEN;
	regs.rax = regs.r8;
	regs.rsp = cpl == 3 ? 0 : OWN_VA(STACK) + 0x1000;
	if (c->cpu.pke) {
		regs.rax = c->cpu.pkru;
		regs.rsi = entry;
		regs.rip = code_address(cpl, paging_program);
	}
	ASSERT(!ioctl(v->cpu, KVM_SET_REGS, &regs), "set the registers");
}

static void stopped(struct vcpu_kvm *v, struct vcpu_outcome *out)
{
	struct kvm_vcpu_events events;

	out->ended = VCPU_STOPPED;
	if (v->run->exit_reason == KVM_EXIT_INTERNAL_ERROR)
		snprintf(out->why, sizeof(out->why), "KVM internal error %u",
			 v->run->internal.suberror);
	else if (v->run->exit_reason == KVM_EXIT_SHUTDOWN)
		snprintf(out->why, sizeof(out->why), "triple fault");
	else
		snprintf(out->why, sizeof(out->why), "KVM exit %u", v->run->exit_reason);
	/* Nothing of it may be left for the next case. */
	memset(&events, 0, sizeof(events));
	ioctl(v->cpu, KVM_SET_VCPU_EVENTS, &events);
}

/* What the stub's OUT left behind. */
static void read_exception(struct vcpu_kvm *v, const struct paging_case *c, int cpl,
			   struct vcpu_outcome *out)
{
	const uint64_t *frame = at(v, OWN(STACK) + 0x1000 - 48);
	const char *done = program_of(&c->access).done;
	uint64_t done_at = done ? code_address(cpl, done) : c->access.address;
	struct kvm_sregs s;

	out->ended = VCPU_EXCEPTION;
	out->vector = v->run->io.port - VECTOR_PORT;
	out->error_code = frame[0];
	if (out->vector == 13 && frame[0] == 0 && frame[1] == done_at && cpl == 3 &&
	    sdm_is_canonical(&c->cpu, done_at)) {
		out->ended = VCPU_DONE;
		return;
	}
	if (out->vector != 14)
		return;
	ASSERT(!ioctl(v->cpu, KVM_GET_SREGS, &s), "read CR2");
	out->cr2 = s.cr2;
}

/* Did the access go where it should? */
static bool at_its_place(struct vcpu_kvm *v, const struct paging_case *c, const void *page)
{
	struct kvm_regs regs;

	if (c->access.kind == SDM_WRITE)
		return *(const unsigned char *)page == VALUE_WRITTEN;
	if (c->access.kind == SDM_FETCH || c->access.mode == SDM_IMPLICIT)
		return true; /* OUT and the descriptor are nowhere else */
	ASSERT(!ioctl(v->cpu, KVM_GET_REGS, &regs), "read the registers");
	return (regs.rax & 0xff) == VALUE_READ;
}

#define MAX_TICKS 10

void vcpu_kvm_run(struct vcpu_kvm *v, const struct paging_case *c, int cpl, uint64_t physical,
		  struct vcpu_outcome *out)
{
	uint64_t *page = at(v, physical & (VCPU_MEMORY - 8));
	unsigned int ticks = 0;

	memset(out, 0, sizeof(*out));
	*page = c->access.mode == SDM_IMPLICIT ? DESCRIPTOR : OUT_DONE;
	set_controls(v, c, cpl);
	set_registers(v, c, cpl);
	while (ioctl(v->cpu, KVM_RUN, 0) < 0) {
		ASSERT(errno == EINTR || errno == EAGAIN, "KVM_RUN: %s", strerror(errno));
		if (++ticks == MAX_TICKS)
			break;
	}
	if (ticks == MAX_TICKS)
		out->ended = VCPU_HUNG;
	else if (v->run->exit_reason != KVM_EXIT_IO)
		stopped(v, out);
	else if (v->run->io.port == DONE_PORT)
		out->ended = VCPU_DONE;
	else
		read_exception(v, c, cpl, out);
	if (out->ended == VCPU_DONE && !at_its_place(v, c, page))
		out->ended = VCPU_ELSEWHERE;
	*page = 0;
	for (int level = c->top; level >= c->leaf; level--)
		out->after[level] =
			((uint64_t *)at(v, v->table[level]))[paging_case_index(c, level)];
}

/* --- all of it ----------------------------------------------------------------------------------
 */

/* Is this done at CPL 3, where the tables forbid nothing? */
static bool can_read(struct vcpu_kvm *v, uint64_t address, enum sdm_mode mode)
{
	struct paging_case c = {
		.cpu = {.maxphyaddr = v->features.maxphyaddr},
		.access = {.address = address, .mode = mode, .kind = SDM_READ},
		.top = SDM_PML4E,
		.leaf = SDM_PTE,
	};
	struct vcpu_outcome out;

	for (int level = c.top; level >= c.leaf; level--)
		c.entry[level] = SDM_P | SDM_RW | SDM_US;
	ASSERT(vcpu_kvm_place(v, &c), "a place for it");
	vcpu_kvm_run(v, &c, 3, PAGE, &out);
	return out.ended == VCPU_DONE;
}

struct vcpu_kvm *vcpu_kvm_create(char *why, size_t size)
{
	struct vcpu_kvm *v = calloc(1, sizeof(*v));
	struct cpuid *cpuid = calloc(1, sizeof(*cpuid));
	bool made;

	ASSERT(v && cpuid, "memory for a vCPU");
	v->kvm = v->vm = v->cpu = -1;
	v->memory = MAP_FAILED;
	v->run = MAP_FAILED;
	made = make(v, cpuid, why, size);
	free(cpuid);
	if (!made) {
		vcpu_kvm_destroy(v);
		return NULL;
	}
	fill_descriptors(v);
	fill_stubs(v);
	fill_tables(v);
	memcpy(at(v, OWN(PROGRAM)), paging_program, paging_program_end - paging_program);
	v->next_table = POOL;
	init_sregs(v);
	start_ticks(v);
	v->features.user_upper_half = can_read(v, 0xffff800000000000, SDM_USER);
	v->features.user_ldt = can_read(v, 0x400000000000, SDM_IMPLICIT);
	return v;
}

void vcpu_kvm_destroy(struct vcpu_kvm *v)
{
	if (v->run != MAP_FAILED) {
		timer_delete(v->timer);
		munmap(v->run, v->run_size);
	}
	if (v->memory != MAP_FAILED)
		munmap(v->memory, VCPU_MEMORY);
	if (v->cpu >= 0)
		close(v->cpu);
	if (v->vm >= 0)
		close(v->vm);
	if (v->kvm >= 0)
		close(v->kvm);
	free(v);
}

const struct vcpu_features *vcpu_kvm_features(const struct vcpu_kvm *v)
{
	return &v->features;
}
