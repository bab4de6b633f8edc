/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Around the declarations of every public header: C names for C++, and the only names that the
 * shared library exports. It is built with all others hidden (notifier/package.cmake).
 */
#ifndef GNOMON_DECLS_H
#define GNOMON_DECLS_H

#ifdef __cplusplus
#define GNOMON_BEGIN_DECLS \
	extern "C" {       \
	_Pragma("GCC visibility push(default)")
#define GNOMON_END_DECLS              \
	_Pragma("GCC visibility pop") \
	}
#else
#define GNOMON_BEGIN_DECLS _Pragma("GCC visibility push(default)")
#define GNOMON_END_DECLS   _Pragma("GCC visibility pop")
#endif

#endif
