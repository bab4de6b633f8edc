/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "notifier/sync/bug.h"
#include "vmm/engine.h"

static struct engine_note *add_note(struct engine_report *report, const char *key,
				    const char *label)
{
	struct engine_note *note = &report->notes[report->nr_notes];

	ASSERT(report->nr_notes < ENGINE_NOTES, "no room to note '%s'", key);
	report->nr_notes++;
	*note = (struct engine_note){0};
	snprintf(note->key, sizeof(note->key), "%s", key);
	snprintf(note->label, sizeof(note->label), "%s", label);
	return note;
}

void engine_note_flag(struct engine_report *report, const char *key, const char *label, bool value,
		      const char *text)
{
	struct engine_note *note = add_note(report, key, label);

	note->flag = true;
	note->value = value;
	snprintf(note->text, sizeof(note->text), "%s", text ? text : value ? "yes" : "no");
}

void engine_note_number(struct engine_report *report, const char *key, const char *label,
			int64_t value, const char *fmt, ...)
{
	struct engine_note *note = add_note(report, key, label);
	va_list ap;

	note->value = value;
	va_start(ap, fmt);
	vsnprintf(note->text, sizeof(note->text), fmt, ap);
	va_end(ap);
}

bool engine_noted(const struct engine_report *report, const char *key)
{
	for (unsigned int i = 0; i < report->nr_notes; i++) {
		if (strcmp(report->notes[i].key, key) == 0)
			return report->notes[i].value;
	}
	return false;
}
