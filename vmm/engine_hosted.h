/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The hosted engine: guests run at CPL3 in processes of the host's, without /dev/kvm. Private to
 * vmm/engine_hosted*. The ideas are in docs/engines.md.
 *
 *   engine_hosted.c         create and destroy; tables; the two ops tables
 *   engine_hosted_child.c   a process with nothing in it but the stub: begun, reaped, killed
 *   engine_hosted_mapper.c  the lists of system calls that its first thread carries out for us
 *   engine_hosted_tlb.c     what is mapped in it: fill and shootdown
 *   engine_hosted_space.c   which child stands for which shadow root
 *   engine_hosted_vcpu.c    a vCPU: entry, exit, kick
 *   engine_hosted_place.c   on which of the host's CPUs it runs
 *   engine_hosted_exit.c    what a signal says, in an exit's words
 *   engine_hosted_probe.c   what this machine offers, found out by trying
 *   hosted_stub.S           all that runs in the child besides the guest
 *
 * A *space* stands for the TLB entries of one shadow root. It has a child, whose mappings are those
 * entries, and in the child a thread for each vCPU that has been there.
 *
 * Rules:
 *  1. What is mapped in a child is what space->tlb says, or less. An entry is added before its mmap
 *     is posted, and removed after its munmap is done. Both under space->lock.
 *  2. A fill walks the shadow tables and posts its mmap in one section of space->lock. A shootdown
 *     comes after the entries were cleared, and looks into the tlb in a section of the same lock:
 *
 *       fill                                shootdown of F
 *       ----                                --------------
 *       lock                                entry = 0
 *       walks: entry names F
 *       tlb: F; mmap posted
 *       unlock                              lock
 *                                           tlb has F: munmap, waits for it
 *
 *     or the walk comes later and finds 0. (test_engine_hosted_mem, shootdown oracle.)
 *  3. Lists are carried out one after another, and a list is posted only after the one before it
 *     is done. So whoever holds the lock and has waited for the last list knows what is mapped.
 *  4. munmap() returns when the host's kernel has flushed every CPU that runs the child. No vCPU
 *     takes part in it, so none can refuse.
 *  5. A dead child has no mappings. Only SIGKILL is a last resort that needs no cooperation.
 *  6. Of what the guest can write (struct stub_vcpu, the signal frame) everything is copied once
 *     and then checked; it decides about this guest alone.
 *
 * Locks: engine->spaces_lock -> space->lock -> cpu->kick_lock, a spinlock. All nest inside the host
 * mm's locks and mmu_lock's sections never hold them; under space->lock nothing is waited for but
 * the host's kernel and the mapper, which takes no lock of ours.
 */
#ifndef VMM_ENGINE_HOSTED_H
#define VMM_ENGINE_HOSTED_H

#include <sched.h>
#include <signal.h>
#include <sys/types.h>

#include "notifier/sync/atomic.h"
#include "notifier/sync/lock.h"
#include "notifier/sync/util.h"
#include "vmm/engine.h"
#include "vmm/hosted_stub.h"

/*
 * What guests may have: not the pages below 64 KiB, which an ordinary user cannot map; not PML4
 * slot 255, where the stub is; not the upper half, which is the host kernel's.
 */
#define HOSTED_GVA_FIRST     0x10000ul
#define HOSTED_GVA_END	     0x7f8000000000ul
#define HOSTED_RESERVED_SLOT 255

/*
 * Children at a time, for each vCPU: as many roots as the shadow MMU keeps for one, and one more to
 * come. Each is some 100 KiB of the host's.
 */
#define HOSTED_SPACES_PER_CPU 5u

/*
 * Looks without an answer to a kick, 50 ms apart, before a child is killed: one that keeps even the
 * fault of a missing page from coming. Not few: a busy host may let it wait for a CPU.
 */
#define HOSTED_KICKS_TO_KILL 100

/* Pages that a shootdown leaves without a mapping, before a list mends them all. */
#define HOSTED_HOLES 16

/* struct rt_sigframe of the kernel, as far as it does not depend on the CPU. */
struct stub_frame {
	uint64_t pretcode;
	uint64_t uc_flags, uc_link;
	stack_t uc_stack;
	uint64_t r8, r9, r10, r11, r12, r13, r14, r15;
	uint64_t rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp, rip, eflags;
	uint16_t cs, gs, fs, ss;
	uint64_t err, trapno, oldmask, cr2;
	uint64_t fpstate;
	uint64_t reserved[8];
	uint64_t sigmask;
	siginfo_t info;
};

/* A TLB entry; one page. Chained by index + 1, so that 0 is an end. */
struct hosted_entry {
	gva_t gva;
	pfn_t pfn;
	unsigned int prot; /* 0: free */
	uint32_t next_gva, next_pfn;
};

struct hosted_tlb {
	struct hosted_entry *entries;
	uint32_t *by_gva, *by_pfn; /* heads of chains */
	uint32_t size;		   /* of each of the three; a power of two */
	uint32_t nr;		   /* entries in use */
	uint32_t fresh, free;	   /* those from here on never were; those before that are free */
	uint32_t hand;		   /* the next victim */
};

/* What stops a vCPU: faults of its guest's, and last a kick. It is deaf to all others. */
#define HOSTED_SIGNALS                                                    \
	{                                                                 \
		SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGSYS, SIGUSR1 \
	}
#define HOSTED_KICK SIGUSR1

/*
 * Two threads of a child make calls for us, never both at once. Each stays where those are that it
 * works for: the one with the vCPUs, the other with those who shoot down. One for all would move
 * between their CPUs all the time.
 */
enum hosted_mapper_role { MAPPER_FILLS, MAPPER_SHOOTS };

struct hosted_mapper {
	pid_t tid;
	int placed; /* + 1: the CPU that it is bound to */
};

struct hosted_engine;

struct hosted_space {
	struct hosted_engine *engine;
	struct mutex lock;

	/* Under engine->spaces_lock. */
	pfn_t root; /* INVALID_PFN: stands for none */
	unsigned int users;
	uint64_t last_used;

	/* Under lock. A child that is not there (pid 0) is dead. */
	pid_t pid;
	int pidfd, ctl_fd;
	bool dead;
	bool reserved; /* its addresses are, where nothing is mapped; but for these pages: */
	gva_t holes[HOSTED_HOLES];
	unsigned int nr_holes;
	char *ctl; /* the control file, as we have it */
	struct hosted_tlb tlb;
	uint64_t started; /* a bit for each vCPU that has a thread here */
	pid_t tids[STUB_MAX_VCPUS];
	uint32_t exits[STUB_MAX_VCPUS]; /* that each has seen; its own */
	int placed[STUB_MAX_VCPUS];	/* + 1: the CPU that each is bound to; its own */
	struct hosted_mapper mappers[STUB_NR_MAPPERS];
	enum hosted_mapper_role mapper; /* whose the last list was, or the next one is */
	unsigned int refused;		/* fills by the host, one after another; the last with... */
	int refusal;			/* ...this errno */
	bool pending;			/* a list was posted, and nobody has looked how it went */
};

/* Where a vCPU is between two calls of vcpu_run. */
enum hosted_cpu_at {
	HOSTED_COLD,	/* nowhere: its registers are only in regs */
	HOSTED_STOPPED, /* in the handler of its space; regs hold what its frame says */
	HOSTED_FAILED,	/* exit kind @failed was returned, and will be again */
};

struct hosted_cpu {
	struct hosted_engine *engine;
	unsigned int id;

	/* The vCPU thread's own. */
	enum hosted_cpu_at at;
	struct guest_regs regs;
	pfn_t root;		    /* to run on */
	struct hosted_space *space; /* where it was last, with its registers; it is a user of it */
	struct engine_exit last;    /* for a fault: it may be mended by now */
	uint64_t last_rip;
	bool may_bind, bound; /* its threads, to @placed of @allowed, until @place_at */
	int placed;
	uint64_t place_at;
	cpu_set_t allowed;
	enum engine_exit_kind failed; /* HOSTED_FAILED: how, and @why */
	char why[256];

	spinlock_t kick_lock; /* protects the next; encloses nothing */
	bool kicked, running;
	pid_t kick_pid, kick_tid;
};

struct hosted_engine {
	struct engine engine;
	struct phys *phys;
	uint64_t nr_frames;
	int stub_fd;
	pfn_t reserved; /* an empty table that the reserved slot of each root names */
	bool fsgsbase;
	uint32_t tlb_size;
	unsigned int kicks_to_kill; /* engine_hosted_vcpu.c, rule 3 */
	/* Learned from the first exit of the first child, before there was any guest code. */
	uint64_t frame_offset; /* in a vCPU's area */
	uint64_t fpstate;      /* address - that of the frame */
	uint64_t uc_flags;

	const char *halted;

	struct mutex spaces_lock;
	uint64_t clock; /* of last_used */
	unsigned int nr_spaces;
	struct hosted_space *spaces;

	unsigned int nr_cpus;
	struct hosted_cpu cpus[];
};

static inline struct hosted_engine *to_hosted_engine(struct engine *engine)
{
	return container_of(engine, struct hosted_engine, engine);
}

static inline struct hosted_engine *machine_to_hosted_engine(struct machine *machine)
{
	return container_of(machine, struct hosted_engine, engine.machine);
}

/* What the mapper of the list at hand is to do, as we have it. */
static inline struct stub_cmd *hosted_cmd(struct hosted_space *space)
{
	return (struct stub_cmd *)(space->ctl + STUB_CTL_CMD(space->mapper));
}

/* The same, as the child has it. */
static inline uint64_t hosted_cmd_gva(const struct hosted_space *space)
{
	return STUB_CMD(space->mapper);
}

/* What the guest can write of vCPU @n, as we have it. */
static inline struct stub_vcpu *hosted_vcpu_area(struct hosted_space *space, unsigned int n)
{
	return (struct stub_vcpu *)(space->ctl + STUB_CTL_VCPU(n));
}

/* engine_hosted_child.c */
int hosted_stub_create(char *why, size_t why_len);
int hosted_child_start(struct hosted_space *space, char *why, size_t why_len);
bool hosted_child_alive(struct hosted_space *space);
void hosted_child_kill(struct hosted_space *space);
void hosted_child_reap(struct hosted_space *space);
void hosted_child_explain(struct hosted_space *space, char *why, size_t why_len);

/* engine_hosted_mapper.c: all under space->lock. */
struct stub_call *hosted_list(struct hosted_space *space, enum hosted_mapper_role mapper);
void hosted_post(struct hosted_space *space, unsigned int nr);
uint32_t *hosted_posted(struct hosted_space *space);
int hosted_wait(struct hosted_space *space);
int hosted_do(struct hosted_space *space, unsigned int nr); /* post, and wait */

/* engine_hosted_tlb.c */
int hosted_tlb_init(struct hosted_tlb *tlb, uint32_t size);
void hosted_tlb_destroy(struct hosted_tlb *tlb);
void hosted_tlb_forget(struct hosted_space *space);
void hosted_tlb_flush(struct hosted_space *space);
void hosted_settle(struct hosted_space *space);
struct stub_call hosted_reserve_call(gva_t gva, uint64_t bytes);
enum hosted_fill { FILL_FAULT, FILL_DONE, FILL_POSTED, FILL_REFUSED };
enum hosted_fill hosted_fill(struct hosted_space *space, pfn_t root, gva_t gva, uint32_t error_code,
			     unsigned int vcpu, uint32_t exits);
void hosted_shoot(struct hosted_space *space, const pfn_t *frames, size_t nr);
void hosted_shoot_range(struct hosted_space *space, pfn_t first, size_t nr);

/* engine_hosted_space.c */
int hosted_spaces_init(struct hosted_engine *engine, char *why, size_t why_len);
void hosted_spaces_destroy(struct hosted_engine *engine);
int hosted_attach(struct hosted_cpu *cpu, char *why, size_t why_len);
void hosted_drop_table(struct hosted_engine *engine, pfn_t table);
void hosted_halt_all(struct hosted_engine *engine, const char *why);

/* engine_hosted_vcpu.c */
/* For lists: the area of @vcpu, mapped; a thread, whose tid that then has (STUB_CLONE_...). */
struct stub_call hosted_vcpu_area_call(unsigned int vcpu);
struct stub_call hosted_clone_call(unsigned int vcpu, unsigned int what);
int hosted_thread_start(struct hosted_space *space, unsigned int vcpu, char *why, size_t why_len);
void hosted_cpu_run(struct hosted_cpu *cpu, struct engine_exit *exit);
void hosted_cpu_kick(struct hosted_cpu *cpu);
void hosted_futex_wake(uint32_t *word);
void hosted_futex_wait(uint32_t *word, uint32_t value, unsigned int msecs);

/* engine_hosted_place.c */
void hosted_place_init(struct hosted_cpu *cpu);
void hosted_place(struct hosted_cpu *cpu);
void hosted_place_mapper(struct hosted_space *space);

/* engine_hosted_exit.c */
void hosted_decode(struct hosted_cpu *cpu, const struct stub_frame *frame, uint32_t signal,
		   struct engine_exit *exit);
void hosted_fail(struct hosted_cpu *cpu, struct engine_exit *exit, enum engine_exit_kind kind,
		 const char *fmt, ...) __attribute__((format(printf, 4, 5)));

/* engine_hosted_probe.c */
void hosted_probe(struct engine_report *report);

#endif
