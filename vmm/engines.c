/* SPDX-License-Identifier: LGPL-2.1-or-later */
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
