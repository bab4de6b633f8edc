/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* For tests that need some engine, and do not mind which. */
#ifndef TESTS_SUPPORT_USABLE_ENGINE_H
#define TESTS_SUPPORT_USABLE_ENGINE_H

#include "tests/support/test.h"
#include "vmm/engines.h"

/* The first that works here, as --engine auto takes it; without one the test is skipped. */
static inline const struct engine_ops *usable_engine(void)
{
	struct engine_report report;

	for (unsigned int i = 0; i < NR_ENGINES; i++) {
		report = (struct engine_report){0};
		engines[i]->probe(&report);
		if (report.usable)
			return engines[i];
	}
	skip("%s", report.why);
}

#endif
