/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the VMM and the stub in its children agree on. Read by both: hosted_stub.S and
 * vmm/engine_hosted*.c. docs/engines.md has the idea.
 *
 * A child has nothing mapped but this, and what the TLB of its guest holds:
 *
 *	STUB_CODE	r-x	the stub: two kinds of thread in assembler, no stack, no data
 *	STUB_CMD(m)	r--	struct stub_cmd: what mapper m is to do. Written by the VMM
 *	STUB_ACK(m)	r--	struct stub_ack: what it has done. Written by its pwrite()
 *	STUB_VCPU(n)	rw-	struct stub_vcpu, and above it the signal stack of vCPU n
 *
 * The guest can read all of it and write the last. So a mapper, which can make system calls, reads
 * and writes nothing but the second and third; and of the last the VMM believes nothing.
 */
#ifndef VMM_HOSTED_STUB_H
#define VMM_HOSTED_STUB_H

#define STUB_BASE	 0x7ffffff00000
#define STUB_CODE	 STUB_BASE
#define STUB_CMD(m)	 (STUB_BASE + 0x1000 + STUB_MAPPER_SIZE * (m))
#define STUB_ACK(m)	 (STUB_BASE + 0x2000 + STUB_MAPPER_SIZE * (m))
#define STUB_NR_MAPPERS	 2
#define STUB_MAPPER_SIZE 0x2000
#define STUB_VCPU(n)	 (STUB_BASE + STUB_VCPU_SIZE * ((n) + 1))
#define STUB_VCPU_SIZE	 0x10000 /* and aligned to that: the handler finds its area by its stack */
#define STUB_MAX_VCPUS	 14
#define STUB_STACK_SIZE	 (STUB_VCPU_SIZE - 0x1000)
#define STUB_ADDR_END	 0x7ffffffff000 /* the end of what a process can have */

/* Offsets in the control file that the three areas are mapped from, in that order. */
#define STUB_CTL_CMD(m)	 (STUB_MAPPER_SIZE * (m))
#define STUB_CTL_ACK(m)	 (STUB_MAPPER_SIZE * (m) + 0x1000)
#define STUB_CTL_VCPU(n) (STUB_VCPU_SIZE * ((n) + 1))

/* File descriptors of the child: the stub, the control file, the frames. It has no others. */
#define STUB_FD_CODE   3
#define STUB_FD_CTL    4
#define STUB_FD_FRAMES 5

/* The last argument in a list's clone(): what the new thread is. */
#define STUB_CLONE_VCPU	  0
#define STUB_CLONE_MAPPER 1 /* the one after whose list it is */

/* Exit codes of a child that could not begin. */
#define STUB_EXIT_NO_MAP  99 /* it cannot map its own parts, or unmap all others */
#define STUB_EXIT_NO_JAIL 98 /* a vCPU cannot take on its filter */

#define STUB_CMD_ERRNOS                                                          \
	0xe00 /* a table of 16-bit numbers: what the mapper writes an errno from \
	       */
#define STUB_MAX_ERRNO 255
#define STUB_CMD_CALLS 0x80
#define STUB_NR_CALLS  60 /* (STUB_CMD_ERRNOS - STUB_CMD_CALLS) / 56 */

#ifndef __ASSEMBLER__
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

struct stub_call {
	uint64_t nr, args[6];
};

struct stub_cmd {
	uint32_t seq;		  /* a list is carried out when this has changed; a futex */
	uint32_t nr;		  /* of its calls */
	uint32_t parent;	  /* pid of the VMM: without it the child has no reason to be */
	uint32_t fsgsbase;	  /* the CPU's instructions for these registers may be used */
	uint32_t run;		  /* the value that a list's pwrite() lets a vCPU run by */
	uint32_t waits;		  /* somebody sleeps until the list is done */
	struct timespec patience; /* of the mapper, before it looks whether its parent is alive */
	stack_t stack;		  /* of the vCPU that starts */
	uint64_t signals;	  /* that it blocks before its first exit */
	char name[16];
	char rest[STUB_CMD_CALLS - 88];
	struct stub_call calls[STUB_NR_CALLS];
};

struct stub_ack {
	uint32_t seq;	/* of the last list that is done; a futex */
	uint16_t error; /* an errno: it was not done to its end */
};

/* All of it can be written by the guest. */
struct stub_vcpu {
	uint32_t exits; /* of this thread; a futex of the VMM's */
	uint32_t run;	/* it runs again once this equals exits; a futex of the thread's */
	uint32_t signal;
	uint32_t tid;
	uint64_t frame; /* address of struct stub_frame */
	uint64_t fsbase, gsbase;
};

#define CHECK_OFFSET(type, member, offset) \
	_Static_assert(offsetof(struct type, member) == (offset), #type "." #member)
#else
#define CHECK_OFFSET(type, member, offset)
#endif

/* The same for assembler. */
#define CMD_SEQ	     0
#define CMD_NR	     4
#define CMD_PARENT   8
#define CMD_FSGSBASE 12
#define CMD_WAITS    20
#define CMD_PATIENCE 24
#define CMD_STACK    40
#define CMD_SIGNALS  64
#define ACK_SEQ	     0
#define ACK_ERROR    4
#define VCPU_EXITS   0
#define VCPU_RUN     4
#define VCPU_SIGNAL  8
#define VCPU_TID     12
#define VCPU_FRAME   16
#define VCPU_FSBASE  24
#define VCPU_GSBASE  32

CHECK_OFFSET(stub_cmd, seq, CMD_SEQ);
CHECK_OFFSET(stub_cmd, nr, CMD_NR);
CHECK_OFFSET(stub_cmd, parent, CMD_PARENT);
CHECK_OFFSET(stub_cmd, fsgsbase, CMD_FSGSBASE);
CHECK_OFFSET(stub_cmd, waits, CMD_WAITS);
CHECK_OFFSET(stub_cmd, patience, CMD_PATIENCE);
CHECK_OFFSET(stub_cmd, stack, CMD_STACK);
CHECK_OFFSET(stub_cmd, signals, CMD_SIGNALS);
CHECK_OFFSET(stub_cmd, calls, STUB_CMD_CALLS);
CHECK_OFFSET(stub_ack, seq, ACK_SEQ);
CHECK_OFFSET(stub_ack, error, ACK_ERROR);
CHECK_OFFSET(stub_vcpu, exits, VCPU_EXITS);
CHECK_OFFSET(stub_vcpu, run, VCPU_RUN);
CHECK_OFFSET(stub_vcpu, signal, VCPU_SIGNAL);
CHECK_OFFSET(stub_vcpu, tid, VCPU_TID);
CHECK_OFFSET(stub_vcpu, frame, VCPU_FRAME);
CHECK_OFFSET(stub_vcpu, fsbase, VCPU_FSBASE);
CHECK_OFFSET(stub_vcpu, gsbase, VCPU_GSBASE);

#ifndef __ASSEMBLER__
_Static_assert(STUB_CMD_CALLS + sizeof(struct stub_call) * STUB_NR_CALLS <= STUB_CMD_ERRNOS &&
		       STUB_CMD_ERRNOS + 2 * (STUB_MAX_ERRNO + 1) <= 4096,
	       "struct stub_cmd and the table of errnos share a page");

/* The program that a child runs, an ELF file; hosted_stub.S. */
extern const char hosted_stub_elf[], hosted_stub_elf_end[];
/* In it, for who starts a child or a vCPU: offsets in the page STUB_CODE. */
extern const char hosted_stub_code[], hosted_stub_action[];
#endif

#endif
