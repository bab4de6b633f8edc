/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * An engine runs guest code on the shadow page tables: it is the machine of gnomon/machine.h plus
 * CPUs. Nothing above this header knows which engine runs; no type of an engine's own (KVM's, say)
 * appears here.
 */
#ifndef VMM_ENGINE_H
#define VMM_ENGINE_H

#include <gnomon/machine.h>
#include <gnomon/phys.h>

/*
 * The registers of a deprivileged guest CPU. The VMM may change all of them between a vcpu_run that
 * returned ENGINE_EXIT_TRAP and the next vcpu_run.
 */
struct guest_regs {
	uint64_t gpr[16]; /* in encoding order: rax rcx rdx rbx rsp rbp rsi rdi r8..r15 */
	uint64_t rip;
	uint64_t rflags; /* as the CPU has them: IF is the engine's */
};

enum { GPR_RAX, GPR_RCX, GPR_RDX, GPR_RBX, GPR_RSP, GPR_RBP, GPR_RSI, GPR_RDI };

enum engine_exit_kind {
	ENGINE_EXIT_TRAP,   /* the guest raised exception @vector; registers are valid */
	ENGINE_EXIT_KICK,   /* engine_ops.kick, or a signal: nothing happened in the guest */
	ENGINE_EXIT_HALTED, /* the machine was halted: @why says by what */
	ENGINE_EXIT_FAIL,   /* the guest came to where the engine cannot run it on: @why */
	ENGINE_EXIT_ERROR,  /* the host ran out of something, or refused a call: @why */
};

struct engine_exit {
	enum engine_exit_kind kind;
	unsigned int vector;	/* TRAP: 0..31 */
	uint32_t error_code;	/* TRAP: as pushed, 0 for vectors without one; not every engine can
				tell P of vector 14 */
	uint64_t fault_address; /* TRAP, vector 14: CR2 */
	const char *why;
};

/* Something that an engine has found out about this machine, as `gnomon doctor` shows it. */
struct engine_note {
	char key[32];	/* in JSON */
	char label[32]; /* for a human, and @text behind it */
	char text[64];
	bool flag;     /* @value is 0 or 1, and false or true in JSON; else a number */
	int64_t value; /* in JSON */
};

#define ENGINE_NOTES 12

/* What `gnomon doctor` tells of an engine on this machine, and what decides --engine auto. */
struct engine_report {
	bool usable;
	char why[256]; /* not usable: what is missing and what to do about it */
	unsigned int nr_notes;
	struct engine_note notes[ENGINE_NOTES];
	double trap_floor_us; /* fault -> VMM -> resume, nothing done in between; median; 0: not
				 measured */
	double shootdown_us;  /* one frame, vCPU not running; median; the same */
};

/* For engines: add a note. @text NULL: yes or no. */
void engine_note_flag(struct engine_report *report, const char *key, const char *label, bool value,
		      const char *text);
void engine_note_number(struct engine_report *report, const char *key, const char *label,
			int64_t value, const char *fmt, ...) __attribute__((format(printf, 5, 6)));
/* Is there a note @key, and not 0? */
bool engine_noted(const struct engine_report *report, const char *key);

struct engine {
	struct machine machine; /* what the shadow MMU sees */
	const struct engine_ops *ops;
};

struct engine_ops {
	const char *name;

	/* Try the engine out on this machine. Takes some milliseconds; leaves nothing behind. */
	void (*probe)(struct engine_report *report);

	/*
	 * Make a machine over @phys with @nr_vcpus CPUs. 0, or -errno with one clear line in @why.
	 * The start-up experiments that decide about quarantine run here.
	 */
	int (*create)(struct engine **enginep, struct phys *phys, unsigned int nr_vcpus, char *why,
		      size_t why_len);
	void (*destroy)(struct engine *engine);

	/* To be called once on the thread that will run @vcpu, before its first load_root. 0 or
	 * -errno. */
	int (*vcpu_init)(struct engine *engine, unsigned int vcpu);

	struct guest_regs *(*regs)(struct engine *engine, unsigned int vcpu);

	/* Run @vcpu, on its own thread, until the next exit. */
	void (*vcpu_run)(struct engine *engine, unsigned int vcpu, struct engine_exit *exit);

	/* Make vcpu_run return soon, from any thread. Level-triggered: the exit may come late, and
	 * without cause. */
	void (*kick)(struct engine *engine, unsigned int vcpu);

	/* Engine's own counters, for --stats: how often the quarantine was emptied, and how many
	 * frames it held then. */
	void (*stats)(struct engine *engine, uint64_t *quarantine_drains, uint64_t *quarantined);
};

extern const struct engine_ops engine_kvm, engine_hosted;

#endif
