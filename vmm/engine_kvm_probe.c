/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What this machine's KVM does, found out by trying: on a scratch machine of a few frames, with one
 * vCPU on the calling thread, and two guest programs of a few instructions. Nothing is concluded
 * from module names or CPU features.
 *
 * Four experiments, each ending in what the guest reads at an address:
 *
 *  1. Shadowing. The guest reads A at an address. The entry is pointed at B in memory, and the vCPU
 *     moves to another root with the same tables: a CPU forgets its TLB at that. If the guest still
 *     reads A, the host keeps tables of its own that it makes from ours.
 *  2. Shootdown. The guest reads A. The entry is cleared and A shot down: the guest must fault; the
 *     entry is pointed at B: the guest must read B. If not, no page can ever be taken away from a
 *     guest here, and the engine refuses.
 *  3. Reuse of a table frame. The guest reads A through table T. The leaf is cleared and shot down,
 *     T is unlinked and shot down: all that retire_table does. T is then linked elsewhere with C in
 *     it, and the guest reads C there. At the old address, whose directory entry is 0, it must
 *     fault. If it reads C, retired tables must be quarantined; and then a toggle of the memslot
 * has to make it fault, or the engine refuses.
 *
 *  4. Entries of 2 MiB. The guest reads three pages by one entry of level 2. It is cleared, and the
 *     512 frames shot down: the guest must fault at all of them.
 *
 * In experiment 3 nothing may run between unlinking and reuse: an access would let the host notice.
 *
 * Nothing is linked, or mapped, at the entry of experiment 4 once it was used. A host that shadows
 * our tables keeps one of its own below it, for that large page; and KVMs are about (up to
 * CVE-2026-46113 and CVE-2026-53359) that enter there whatever comes next at this entry. So 2 MiB
 * entries are not for hosts that shadow (docs/engines.md), and the experiment does no harm to them.
 */
#include "vmm/engine_kvm.h"

#include <errno.h>
#include <string.h>

#include "notifier/sync/bug.h"
#include "vmm/engine_scratch.h"
#include "vmm/why.h"

#define HUGE_FIRST 512 /* the frames from here on are experiment 4's, and nobody else's */
#define PS	   0x80ul

static int create_untested(struct engine **enginep, struct phys *phys, unsigned int nr_vcpus,
			   char *why, size_t why_len)
{
	struct kvm_engine *engine;
	int err = kvm_engine_create_untested(&engine, phys, nr_vcpus, why, why_len);

	if (!err)
		*enginep = &engine->engine;
	return err;
}

/* Experiment 1. */
static bool host_shadows_tables(struct scratch *s)
{
	pfn_t copy = scratch_new_table(s, 4);
	bool stale;

	scratch_map(s, GVA_FIRST, s->a);
	if (scratch_read(s, GVA_FIRST) != 'A')
		scratch_give_up(s, -ENODEV, "the guest does not read what is there");
	scratch_map(s, GVA_FIRST, s->b);
	if (!s->err)
		memcpy(scratch_words(s, copy), scratch_words(s, s->root), PAGE_SIZE);
	scratch_load_root(s, copy);
	stale = scratch_read(s, GVA_FIRST) == 'A';
	scratch_load_root(s, s->root);
	scratch_set(s, GVA_FIRST, 1, 0);
	scratch_shoot(s, s->a);
	scratch_shoot(s, s->b);
	return stale;
}

static void toggle(struct scratch *s)
{
	struct kvm_engine *engine = to_kvm_engine(s->engine);
	int err = s->err;

	if (err)
		return;
	mutex_lock(&engine->quarantine_lock);
	kvm_gate_close(engine);
	err = kvm_mem_toggle(engine);
	kvm_gate_open(engine);
	mutex_unlock(&engine->quarantine_lock);
	if (err)
		scratch_give_up(s, err, "KVM does not take a memory slot back");
}

/* Experiment 3. */
static bool needs_quarantine(struct scratch *s)
{
	uint64_t *leaf, *dir;
	uint64_t link;
	bool stale;

	scratch_map(s, GVA_FIRST, s->a);
	scratch_entry(s, GVA_OTHER, 2); /* every table above T's new place */
	leaf = scratch_entry(s, GVA_FIRST, 1);
	dir = scratch_entry(s, GVA_FIRST, 2);
	if (scratch_read(s, GVA_FIRST) != 'A')
		scratch_give_up(s, -ENODEV, "the guest does not read what is there");
	if (s->err)
		return true;

	*leaf = 0;
	scratch_shoot(s, s->a);
	link = *dir;
	*dir = 0;
	scratch_shoot(s, (link & SCRATCH_ADDR) >> PAGE_SHIFT);

	*leaf = s->c << PAGE_SHIFT | SCRATCH_BITS; /* index 0 in both places */
	scratch_set(s, GVA_OTHER, 2, link);
	if (scratch_read(s, GVA_OTHER) != 'C')
		scratch_give_up(s, -ENODEV, "a reused table does not work at its new place");
	stale = scratch_read(s, GVA_FIRST) != 0;
	if (stale) {
		toggle(s);
		if (scratch_read(s, GVA_FIRST) != 0)
			scratch_give_up(
				s, -ENODEV,
				"an unlinked page table stayed in use, whatever was done about it");
		if (scratch_read(s, GVA_OTHER) != 'C')
			scratch_give_up(s, -ENODEV, "memory is gone after its slot was taken back");
	}
	return stale;
}

/* Experiment 4. */
static bool huge_works(struct scratch *s)
{
	static const unsigned int pages[] = {0, 5, 511};
	bool works = true;

	for (unsigned int i = 0; i < ARRAY_SIZE(pages); i++)
		scratch_words(s, HUGE_FIRST + pages[i])[0] = 'H' + i;
	scratch_set(s, GVA_HUGE, 2, (uint64_t)HUGE_FIRST << PAGE_SHIFT | SCRATCH_BITS | PS);
	for (unsigned int i = 0; i < ARRAY_SIZE(pages); i++)
		works &= scratch_read(s, GVA_HUGE + (pages[i] << PAGE_SHIFT)) == 'H' + i;
	scratch_set(s, GVA_HUGE, 2, 0);
	if (!s->err && s->machine->ops->shootdown_range(s->machine, HUGE_FIRST, 512))
		scratch_give_up(s, -errno, "shooting frames down");
	for (unsigned int i = 0; i < ARRAY_SIZE(pages); i++)
		works &= scratch_read(s, GVA_HUGE + (pages[i] << PAGE_SHIFT)) == 0;
	return works;
}

/*
 * Whether create() must quarantine retired tables, and whether entries may map 2 MiB. Some exits of
 * a guest, so done for every machine: the answer depends on the module that is loaded now.
 */
int kvm_probe_tables(bool *quarantine, bool *huge, char *why, size_t why_len)
{
	struct scratch s;
	int err = scratch_create(&s, create_untested);

	if (err)
		return why_fail(why, why_len, err, "%s", s.why);
	*huge = !host_shadows_tables(&s);
	scratch_shootdown_works(&s);
	*quarantine = needs_quarantine(&s);
	*huge = *huge && !*quarantine && huge_works(&s);
	err = s.err;
	scratch_destroy(&s);
	return err ? why_fail(why, why_len, err, "%s", s.why) : 0;
}

static void note_experiments(struct scratch *s, struct engine_report *report)
{
	bool shadows = host_shadows_tables(s), shootdown = scratch_shootdown_works(s);
	bool quarantine = needs_quarantine(s), huge = huge_works(s);

	engine_note_flag(report, "host_shadows_tables", "host shadows our tables", shadows, NULL);
	engine_note_flag(report, "shootdown_works", "shootdown works", shootdown, NULL);
	engine_note_flag(report, "needs_quarantine", "retired tables need", quarantine,
			 quarantine ? "quarantine" : "no quarantine");
	engine_note_flag(report, "huge_works", "entries of 2 MiB", huge,
			 !huge			 ? "do not work"
			 : shadows || quarantine ? "work, not used, as the host shadows our tables"
						 : "used");
	engine_note_flag(report, "umip", "UMIP", scratch_sgdt_traps(s), NULL);
}

void kvm_probe(struct engine_report *report)
{
	scratch_probe(report, create_untested, note_experiments);
}
