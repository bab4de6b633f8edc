/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The table of engines, and what they note down about a machine. */
#include "tests/support/test.h"
#include "vmm/engines.h"

TEST(engines, names)
{
	char names[64];

	expect(engine_by_name("kvm") == &engine_kvm);
	expect(engine_by_name("hosted") == &engine_hosted);
	expect(!engine_by_name("auto"));
	expect_str_eq(engine_names(" or ", names, sizeof(names)), "kvm or hosted");
	expect_str_eq(engine_names(" and ", names, 5), "kvm ");
	expect_str_eq(engine_names(" and ", names, 1), "");
}

TEST(engines, notes)
{
	struct engine_report report = {0};

	engine_note_flag(&report, "first", "the first", false, NULL);
	engine_note_flag(&report, "second", "the second", true, NULL);
	engine_note_flag(&report, "third", "the third", true, "it works");
	engine_note_number(&report, "fourth", "the fourth", 65530, "%d, enough for %d", 65530, 7);
	expect_eq(report.nr_notes, 4);
	expect(!engine_noted(&report, "first"));
	expect_str_eq(report.notes[0].text, "no");
	expect(engine_noted(&report, "second"));
	expect_str_eq(report.notes[1].text, "yes");
	expect_str_eq(report.notes[2].text, "it works");
	expect(report.notes[2].flag && !report.notes[3].flag);
	expect(engine_noted(&report, "fourth"));
	expect_eq(report.notes[3].value, 65530);
	expect_str_eq(report.notes[3].text, "65530, enough for 7");
	expect(!engine_noted(&report, "fifth"));
}
