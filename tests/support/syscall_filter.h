/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* System calls that are refused, as in containers: for the rest of the test's process. */
#ifndef TESTS_SUPPORT_SYSCALL_FILTER_H
#define TESTS_SUPPORT_SYSCALL_FILTER_H

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "tests/support/test.h"

static inline void filter_syscalls(struct sock_filter *code, unsigned short len)
{
	struct sock_fprog program = {.len = len, .filter = code};

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
	    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
		skip("no system call filters here");
}

/* @action, a SECCOMP_RET_, for one system call, and all others as they are. */
static inline void filter_syscall(unsigned int number, unsigned int action)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, action),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};

	filter_syscalls(code, sizeof(code) / sizeof(code[0]));
}

#endif
