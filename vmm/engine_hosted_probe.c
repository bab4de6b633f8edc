/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vmm/engine_hosted.h"

#include <stdio.h>

void hosted_probe(struct engine_report *report)
{
	struct engine *engine;
	struct phys *phys;

	if (phys_create(&phys, 64)) {
		snprintf(report->why, sizeof(report->why), "out of memory");
		return;
	}
	report->usable = !engine_hosted.create(&engine, phys, 1, report->why, sizeof(report->why));
	if (report->usable)
		engine_hosted.destroy(engine);
	phys_destroy(phys);
}
