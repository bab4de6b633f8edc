// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * What happens to a reference count that went wrong.
 */
#include "notifier/sync/refcount.h"

void refcount_saturate(refcount_t *r, int old, const char *why)
{
	refcount_set(r, REFCOUNT_SATURATED);
	/* Below zero it was saturated, and reported, before. */
	WARN(old >= 0, "reference count %p was %s; the object is leaked", (void *)r, why);
}
