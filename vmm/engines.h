/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The one table of engines, best first: that is the order in which `auto` tries them. */
#ifndef VMM_ENGINES_H
#define VMM_ENGINES_H

#include "vmm/engine.h"

#define NR_ENGINES 2
extern const struct engine_ops *const engines[NR_ENGINES];

/* NULL if there is no engine of that name. */
const struct engine_ops *engine_by_name(const char *name);

/* Their names as in a sentence, with @last before the last one: "kvm and hosted". Gives @buf. */
const char *engine_names(const char *last, char *buf, size_t len);

#endif
