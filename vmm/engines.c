/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <stdio.h>
#include <string.h>

#include "vmm/engines.h"

const struct engine_ops *const engines[NR_ENGINES] = {&engine_kvm, &engine_hosted};

const struct engine_ops *engine_by_name(const char *name)
{
	for (unsigned int i = 0; i < NR_ENGINES; i++) {
		if (strcmp(engines[i]->name, name) == 0)
			return engines[i];
	}
	return NULL;
}

const char *engine_names(const char *last, char *buf, size_t len)
{
	size_t at = 0;

	buf[0] = '\0';
	for (unsigned int i = 0; i < NR_ENGINES && at < len; i++) {
		const char *between = i + 1 < NR_ENGINES ? ", " : last;

		at += snprintf(buf + at, len - at, "%s%s", i ? between : "", engines[i]->name);
	}
	return buf;
}
