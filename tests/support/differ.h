/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What is not as it must be, in tests that hold a world against a model of it. */
#ifndef TESTS_SUPPORT_DIFFER_H
#define TESTS_SUPPORT_DIFFER_H

/* The end of the run; @fmt says what is wrong. Given by the program that has the world. */
_Noreturn void differ(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
