/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Memory under the hosted engine: what is mapped in its child stays so until it is told. */
#define ENGINE		 engine_hosted
#define SUITE		 engine_hosted_mem
#define ENGINE_REMEMBERS true
#include "tests/support/engine_mem_cases.h"
