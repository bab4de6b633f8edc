/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Guests under the hosted engine. Of their flags the host's kernel takes ID away, and of a page
 * fault it tells P of its own tables, not of ours. And some hosts have an IRETQ that refuses a
 * stack pointer that is not canonical.
 */
#define ENGINE	       engine_hosted
#define SUITE	       engine_hosted
#define ENGINE_FLAGS   0x040cd5
#define ENGINE_UNTOLD  P
#define ENGINE_ANY_RSP false
#include "tests/support/engine_cases.h"
