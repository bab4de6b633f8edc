/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/mmmodel/ops.h"

#include "notifier/sync/util.h"

#define OP_NAME(kind, name) #name,
const char *const op_names[NR_OP_KINDS] = {OP_KINDS(OP_NAME)};
#undef OP_NAME

static const struct op_field fields[] = {OP_FIELD(mm),	    OP_FIELD(page),   OP_FIELD(nr),
					 OP_FIELD(to),	    OP_FIELD(nr_to),  OP_FIELD(skew),
					 OP_FIELD(skew_to), OP_FIELD(cut),    OP_FIELD(prot),
					 OP_FIELD(flags),   OP_FIELD(object), OP_FIELD(pgoff),
					 OP_FIELD(value)};

const struct op_format op_format = {.size = sizeof(struct op),
				    .kinds = op_names,
				    .nr_kinds = NR_OP_KINDS,
				    .fields = fields,
				    .nr_fields = ARRAY_SIZE(fields)};
