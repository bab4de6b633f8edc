/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The kvm engine: deprivileged guests under /dev/kvm, with our shadow root as the real CR3.
 * Private to vmm/engine_kvm*; KVM's types go no further. The ideas are in docs/engines.md.
 *
 *   engine_kvm.c          create and destroy; the two ops tables
 *   engine_kvm_gate.c     who may be inside KVM_RUN, and how everybody else gets them out
 *   engine_kvm_mem.c      mapping W, the memslot, shootdown, tables and their quarantine
 *   engine_kvm_monitor.c  the supervisor pages in every root, and the code in them
 *   engine_kvm_vcpu.c     registers of a vCPU, entry, traps
 *   engine_kvm_exit.c     every other way out of KVM_RUN, put into words
 *   engine_kvm_probe.c    what this machine's KVM does, found out by trying
 *
 * Locks: engine->quarantine_lock only (engine_kvm_mem.c). It nests inside the host mm's locks,
 * since a notifier callback may retire a table, and around the lock of the frame pool. No spinlock
 * is held around it.
 */
#ifndef VMM_ENGINE_KVM_H
#define VMM_ENGINE_KVM_H

#include <linux/kvm.h>
#include <sys/types.h>

#include "notifier/sync/lock.h"
#include "notifier/sync/util.h"
#include "notifier/sync/wait.h"
#include "vmm/cpl3.h"
#include "vmm/engine.h"

/*
 * The monitor's part of every address space: PML4 slot 255. One page-table page describes it:
 *
 *   page 0         entry stubs, read and execute
 *   page 1         IDT, read only
 *   page 4 + 4n    vCPU n: GDT and TSS
 *   page 6 + 4n    vCPU n: stack. The pages between are holes: a stack that runs over faults
 */
#define MONITOR_PML4_SLOT  255
#define MONITOR_BASE	   0x7f8000000000UL
#define MONITOR_CODE	   MONITOR_BASE
#define MONITOR_IDT	   (MONITOR_BASE + PAGE_SIZE)
#define MONITOR_DESC(n)	   (MONITOR_BASE + (4 + 4UL * (n)) * PAGE_SIZE)
#define MONITOR_STACK(n)   (MONITOR_BASE + (6 + 4UL * (n)) * PAGE_SIZE)
#define MONITOR_MAX_VCPUS  127
#define MONITOR_TSS_OFFSET 0x100 /* in the page of the GDT */
#define MONITOR_TSS_LIMIT  0x67

#define NR_VECTORS 32

/*
 * User selectors are those of cpl3.h. No 32-bit code segment exists: there is no way into
 * compatibility mode through our GDT.
 */
#define SEL_KERNEL_CS 0x08
#define SEL_KERNEL_SS 0x10
#define SEL_TSS	      0x38
#define GDT_ENTRIES   9 /* the TSS takes two */

/*
 * Ports that the stubs write to; the port says it all, the value means nothing. 0x7e is left out:
 * KVM has a quirk of its own there.
 */
#define MONITOR_PORT_VECTOR   0x40 /* + vector */
#define MONITOR_PORT_SYSCALL  0x60
#define MONITOR_PORT_CSTAR    0x61
#define MONITOR_PORT_SYSENTER 0x62

/* What is on the monitor stack at the OUT of an exception stub. */
struct monitor_frame {
	uint64_t error_code, rip, cs, rflags, rsp, ss;
};

struct monitor {
	pfn_t pdpt, pd, pt, code, idt;
};

struct kvm_engine;

/* Where a vCPU is, between two calls of vcpu_run. */
enum cpu_at {
	CPU_COLD,    /* nowhere: the next entry loads every register */
	CPU_TRAPPED, /* behind the OUT of an exception stub; cpu->regs is the truth */
	CPU_INSIDE,  /* somewhere in the guest or a stub; KVM has the registers */
	CPU_FAILED,  /* exit kind @failed was returned, and will be again */
};

struct kvm_cpu {
	struct kvm_engine *engine;
	unsigned int id;
	int fd;
	struct kvm_run *run;
	size_t run_size;
	pfn_t desc, stack;	     /* frames of the monitor's pages */
	struct monitor_frame *frame; /* in mapping A, at the top of the stack page */

	/* The vCPU thread's own. */
	enum cpu_at at;
	pfn_t root;
	struct guest_regs regs;
	enum engine_exit_kind failed; /* CPU_FAILED: how, and @why */
	char why[256];

	/* engine_kvm_gate.c */
	pid_t tid;
	int running;
	int kicked;
};

struct quarantine {
	pfn_t *frames;
	unsigned int nr, limit;
	uint64_t drains, drained;
};

struct kvm_engine {
	struct engine engine;
	struct phys *phys;
	int kvm_fd, vm_fd;
	char *window; /* mapping W: KVM's, touched by nobody else */
	uint64_t nr_frames;
	bool umip;
	struct monitor monitor;

	struct mutex quarantine_lock; /* protects quarantine, and every toggle of the memslot */
	struct quarantine quarantine;
	bool needs_quarantine; /* set before the first vCPU runs */

	/* engine_kvm_gate.c */
	int closed;
	const char *halted;
	wait_queue_head_t gate_wait;

	unsigned int nr_cpus;
	struct kvm_cpu cpus[];
};

static inline struct kvm_engine *to_kvm_engine(struct engine *engine)
{
	return container_of(engine, struct kvm_engine, engine);
}

static inline struct kvm_engine *machine_to_kvm_engine(struct machine *machine)
{
	return container_of(machine, struct kvm_engine, engine.machine);
}

/* engine_kvm.c */
int kvm_engine_create_untested(struct kvm_engine **enginep, struct phys *phys, unsigned int nr_cpus,
			       char *why, size_t why_len);
void kvm_engine_destroy(struct kvm_engine *engine);

/* engine_kvm_gate.c */
enum gate_answer { GATE_OPEN, GATE_KICKED, GATE_HALTED };

void kvm_gate_init_signal(void);
void kvm_gate_bind_thread(struct kvm_cpu *cpu);
enum gate_answer kvm_gate_enter(struct kvm_cpu *cpu);
bool kvm_gate_was_kicked(struct kvm_cpu *cpu);
void kvm_gate_leave(struct kvm_cpu *cpu);
void kvm_gate_kick(struct kvm_cpu *cpu);
void kvm_gate_close(struct kvm_engine *engine);
void kvm_gate_open(struct kvm_engine *engine);
void kvm_gate_halt(struct kvm_engine *engine, const char *why);

/* engine_kvm_mem.c */
int kvm_mem_init(struct kvm_engine *engine, char *why, size_t why_len);
void kvm_mem_destroy(struct kvm_engine *engine);
int kvm_mem_toggle(struct kvm_engine *engine);
pfn_t kvm_alloc_table(struct machine *machine, int level);
void kvm_free_table(struct machine *machine, pfn_t table);
void *kvm_map_frame(struct machine *machine, pfn_t pfn);
int kvm_shootdown(struct machine *machine, pfn_t *frames, size_t nr);
int kvm_shootdown_range(struct machine *machine, pfn_t first, size_t nr);
void kvm_retire_table(struct machine *machine, pfn_t table);
void kvm_halt(struct machine *machine, const char *why);

/* engine_kvm_monitor.c */
int kvm_monitor_init(struct kvm_engine *engine, char *why, size_t why_len);
void kvm_monitor_destroy(struct kvm_engine *engine);
void kvm_monitor_map(struct kvm_engine *engine, pfn_t root);
uint64_t kvm_monitor_stub(unsigned int port);

/* engine_kvm_vcpu.c */
int kvm_cpu_init(struct kvm_cpu *cpu, char *why, size_t why_len);
void kvm_cpu_destroy(struct kvm_cpu *cpu);
void kvm_cpu_run(struct kvm_cpu *cpu, struct engine_exit *exit);
void kvm_load_root(struct machine *machine, unsigned int vcpu, pfn_t root);

/* engine_kvm_exit.c */
void kvm_exit_fail(struct kvm_cpu *cpu, struct engine_exit *exit, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
void kvm_exit_explain(struct kvm_cpu *cpu, struct engine_exit *exit);
void kvm_exit_explain_errno(struct kvm_cpu *cpu, struct engine_exit *exit, int err);

/* engine_kvm_probe.c */
int kvm_open(char *why, size_t why_len);
int kvm_probe_tables(bool *quarantine, bool *huge, char *why, size_t why_len);
void kvm_probe(struct engine_report *report);

#endif
