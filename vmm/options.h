/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The values that command-line options take, as text and as numbers. Nothing here prints or exits:
 * every parser returns 0, or -EINVAL with one line in @why (vmm/why.h).
 */
#ifndef VMM_OPTIONS_H
#define VMM_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <gnomon/shadow.h>

#include "vmm/chaos.h"

/* "64M": bytes, or with one of K M G T (powers of 1024; lower case will do). Whole pages. */
int parse_size(const char *text, uint64_t *bytes, char *why, size_t why_len);

/* "5", "0.25": more than 0, at most a year, to the millisecond. */
int parse_duration(const char *text, uint64_t *ms, char *why, size_t why_len);

/* 0 to 2^63 - 1; decimal, or hexadecimal with 0x. */
int parse_seed(const char *text, uint64_t *seed, char *why, size_t why_len);

/* Decimal, and as many as vm_min_shadow_pages() at least. */
int parse_shadow_pages(const char *text, unsigned long *pages, char *why, size_t why_len);

/* Decimal: 0, or a power of two of at most 64. */
int parse_prefetch(const char *text, unsigned int *pages, char *why, size_t why_len);

/*
 * "migrate,unmap=500", "all", "all=20,fork=1": a kind keeps what it was given by its name. Kinds
 * that are not mentioned keep their rate. See chaos_plan_fit().
 */
int parse_chaos(const char *text, struct chaos_plan *plan, char *why, size_t why_len);

/* "private" or "shared". */
int parse_ram(const char *text, bool *private_ram, char *why, size_t why_len);

/* "0", "1", "2": of SHADOW_AUDIT_OFF to SEMANTIC. */
int parse_audit(const char *text, enum shadow_audit_level *level, char *why, size_t why_len);

/* A guest's address: hexadecimal with 0x, or decimal. */
int parse_gva(const char *text, uint64_t *gva, char *why, size_t why_len);

/* "zap,retry": adds SHADOW_BREAK_* bits to *what. */
int parse_break(const char *text, unsigned int *what, char *why, size_t why_len);

/* The names of --break, in order; bit n of SHADOW_BREAK_* is break_names[n]. */
#define NR_BREAKS 5
extern const char *const break_names[NR_BREAKS];

/* The largest unit that gives a whole number: "64M", "4100K", "17". Returns @buf. */
char *format_size(uint64_t bytes, char *buf, size_t len);

#endif
