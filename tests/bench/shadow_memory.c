/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Memory of the shadow MMU for each page that it maps, beside the tables. */
#include "tests/support/count_alloc.h"

#include "tests/bench/shadow.h"

#define ALLOWED 24

int shadow_memory_sample(const struct bench *b, const struct bench_variant *v, uint64_t n,
			 struct bench_sample *s)
{
	const struct shadow_spread *spread = v->arg;
	struct shadow_guest guest;
	int64_t before;
	int ret;

	(void)b;
	if (!spread) {
		s->ns = ALLOWED * (double)n;
		return 0;
	}
	ret = shadow_guest_init(&guest, spread->nr * spread->step);
	if (ret)
		return ret;
	before = count_alloc_bytes();
	for (uint64_t i = 0; i < spread->nr; i++)
		shadow_fault_in(&guest, 0, i * spread->step);
	s->ns = (double)(count_alloc_bytes() - before) / (double)spread->nr * (double)n;
	shadow_guest_destroy(&guest);
	return 0;
}
