/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/coherence/ops.h"

#include "notifier/sync/util.h"

#define OP_NAME(kind, name) #name,
const char *const op_names[NR_OP_KINDS] = {OP_KINDS(OP_NAME)};
#undef OP_NAME

static const struct op_field fields[] = {OP_FIELD(inside), OP_FIELD(cpu),  OP_FIELD(gva),
					 OP_FIELD(word),   OP_FIELD(page), OP_FIELD(to),
					 OP_FIELD(flags),  OP_FIELD(how)};

const struct op_format op_format = {.size = sizeof(struct op),
				    .kinds = op_names,
				    .nr_kinds = NR_OP_KINDS,
				    .fields = fields,
				    .nr_fields = ARRAY_SIZE(fields)};
