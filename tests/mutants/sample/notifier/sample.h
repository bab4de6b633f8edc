/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef NOTIFIER_SAMPLE_H
#define NOTIFIER_SAMPLE_H

#include <stdbool.h>

struct sample {
	int lock;
	long total;
	unsigned int calls;
	int state;
};

bool sample_add(struct sample *s, int n);
long sample_total(struct sample *s);

#endif
