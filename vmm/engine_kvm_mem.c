/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Memory as KVM sees it: mapping W, the one memslot over it, shootdown, tables and their
 * quarantine.
 *
 * W is a mapping of the whole memfd that belongs to KVM: gpa = pfn << PAGE_SHIFT for the real CPU.
 * No code of ours reads or writes through it, so that dropping a page of it costs nobody else
 * anything.
 *
 * Shootdown. The entry has been cleared. MADV_DONTNEED on the frame's page of W makes the host
 * kernel's own MMU notifier tell KVM to drop every translation to that page, on every vCPU, and it
 * returns when that is done. The memfd keeps the contents; the next guest access walks our tables
 * again and finds the entry gone.
 *
 * Quarantine. Where the host shadows our tables it knows a table by its frame, and keeps the way to
 * it after we cleared the directory entry. Reuse the frame at another address and what is entered
 * there shows at the old one; reuse it for data and (by KVM's design) stores to it still count as
 * edits of a table, which KVM emulates, through W, past any shootdown. Only deleting the memslot
 * makes it forget. So a retired table waits until a batch of them is worth a toggle of the slot.
 *
 *       guest                            quarantined frame T
 *       -----                            -------------------
 *                                        unlinked, leaves cleared and shot down, T shot down
 *       loads the old address:
 *         the host walks its kept way
 *         to its table for T, finds no
 *         leaf, walks ours: entry 0,
 *         fault
 *                                        (T given to another address here: the host fills its
 *                                         table for T, and the old address shows it. Forbidden)
 *                                        toggle: the host forgets T
 *                                        T is freed
 *
 * The toggle needs every vCPU outside KVM_RUN: without a slot each guest access looks like a
 * device. Rule 5 of the gate is what allows a retire_table or alloc_table under any lock to wait
 * for that. A toggle that fails leaves a machine without memory: it is halted, and then nothing
 * needs to wait any more, since no vCPU will walk any table.
 */
#include "vmm/engine_kvm.h"

#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include <gnomon/swap.h>

#include "notifier/sync/alloc.h"
#include "notifier/sync/atomic.h"
#include "notifier/sync/bug.h"
#include "vmm/why.h"

/*
 * How many tables wait before a toggle. A toggle costs 0.1 to 0.4 ms and empties every table of the
 * host's, so that the guest refaults its working set; a thousand tables bring its own cost below a
 * microsecond each, and 4 MiB is what they hold meanwhile. A small machine gives a sixteenth of its
 * frames at most.
 */
#define QUARANTINE_MAX	    1024ul
#define QUARANTINE_FRACTION 16

static int set_memslot(struct kvm_engine *engine, uint64_t bytes)
{
	struct kvm_userspace_memory_region slot = {
		.memory_size = bytes,
		.userspace_addr = (uintptr_t)engine->window,
	};

	return ioctl(engine->vm_fd, KVM_SET_USER_MEMORY_REGION, &slot) ? -errno : 0;
}

int kvm_mem_init(struct kvm_engine *engine, char *why, size_t why_len)
{
	struct quarantine *q = &engine->quarantine;
	int err;

	engine->nr_frames = phys_nr_frames(engine->phys);
	q->limit = max(min(engine->nr_frames / QUARANTINE_FRACTION, QUARANTINE_MAX), 1ul);
	q->frames = kcalloc(q->limit, sizeof(*q->frames), GFP_KERNEL);
	if (!q->frames)
		return why_fail(why, why_len, -ENOMEM, "out of memory");

	engine->window = mmap(NULL, engine->nr_frames << PAGE_SHIFT, PROT_READ | PROT_WRITE,
			      MAP_SHARED, phys_memfd(engine->phys), 0);
	if (engine->window == MAP_FAILED) {
		err = -errno;
		engine->window = NULL;
		return why_fail(why, why_len, err, "cannot map the frames for KVM: %s",
				strerror(-err));
	}
	/* A child of the program that embeds us is nobody that KVM runs for. */
	madvise(engine->window, engine->nr_frames << PAGE_SHIFT, MADV_DONTFORK);

	err = set_memslot(engine, engine->nr_frames << PAGE_SHIFT);
	if (err)
		return why_fail(why, why_len, err, "KVM does not take the frames as a slot: %s",
				strerror(-err));
	return 0;
}

/* The VM is closed: no host table is left that could name a frame. */
void kvm_mem_destroy(struct kvm_engine *engine)
{
	struct quarantine *q = &engine->quarantine;

	while (q->nr)
		phys_put(engine->phys, q->frames[--q->nr]);
	kfree(q->frames);
	if (engine->window)
		munmap(engine->window, engine->nr_frames << PAGE_SHIFT);
}

/* Delete the slot and add it again: the host forgets every table. The gate is closed. */
int kvm_mem_toggle(struct kvm_engine *engine)
{
	int err = set_memslot(engine, 0);

	return err ?: set_memslot(engine, engine->nr_frames << PAGE_SHIFT);
}

void *kvm_map_frame(struct machine *machine, pfn_t pfn)
{
	return phys_map(machine_to_kvm_engine(machine)->phys, pfn);
}

static void sift_down(pfn_t *heap, size_t root, size_t nr)
{
	for (size_t child; (child = 2 * root + 1) < nr; root = child) {
		pfn_t tmp = heap[root];

		if (child + 1 < nr && heap[child + 1] > heap[child])
			child++;
		if (tmp >= heap[child])
			return;
		heap[root] = heap[child];
		heap[child] = tmp;
	}
}

/* In place and without allocating, which qsort does not promise: a shootdown may be part of
 * reclaim. */
static void sort_frames(pfn_t *frames, size_t nr)
{
	for (size_t i = nr / 2; i-- > 0;)
		sift_down(frames, i, nr);
	for (size_t end = nr; end-- > 1;) {
		pfn_t max = frames[0];

		frames[0] = frames[end];
		frames[end] = max;
		sift_down(frames, 0, end);
	}
}

static int shoot_run(struct kvm_engine *engine, pfn_t first, pfn_t last)
{
	ASSERT(last < engine->nr_frames, "the frame is one of the machine's");
	return madvise(engine->window + (first << PAGE_SHIFT), (last - first + 1) << PAGE_SHIFT,
		       MADV_DONTNEED)
		       ? -errno
		       : 0;
}

int kvm_shootdown(struct machine *machine, pfn_t *frames, size_t nr)
{
	struct kvm_engine *engine = machine_to_kvm_engine(machine);
	pfn_t first, last;
	int err;

	if (!nr)
		return 0;
	if (nr > 1)
		sort_frames(frames, nr);
	first = last = frames[0];
	for (size_t i = 1; i < nr; i++) {
		if (frames[i] - last <= 1) { /* the same frame again, or the next one */
			last = frames[i];
			continue;
		}
		err = shoot_run(engine, first, last);
		if (err)
			return err;
		first = last = frames[i];
	}
	return shoot_run(engine, first, last);
}

int kvm_shootdown_range(struct machine *machine, pfn_t first, size_t nr)
{
	return shoot_run(machine_to_kvm_engine(machine), first, first + nr - 1);
}

/* Quarantine. */

static void drain(struct kvm_engine *engine)
{
	struct quarantine *q = &engine->quarantine;

	lockdep_assert_held(&engine->quarantine_lock);
	if (!q->nr)
		return;
	kvm_gate_close(engine);
	if (kvm_mem_toggle(engine))
		kvm_gate_halt(engine, "KVM did not take its memory slot back");
	q->drains++;
	q->drained += q->nr;
	while (q->nr)
		phys_put(engine->phys, q->frames[--q->nr]);
	kvm_gate_open(engine);
}

pfn_t kvm_alloc_table(struct machine *machine, int level)
{
	struct kvm_engine *engine = machine_to_kvm_engine(machine);
	pfn_t table = phys_alloc_zeroed(engine->phys);

	if (unlikely(table == INVALID_PFN)) {
		mutex_lock(&engine->quarantine_lock);
		drain(engine);
		mutex_unlock(&engine->quarantine_lock);
		table = phys_alloc_zeroed(engine->phys);
	}
	/* Pages of guests have taken all but the reserve, and others' tables that. */
	if (unlikely(table == INVALID_PFN) && phys_reclaim(engine->phys, 1))
		table = phys_alloc_zeroed(engine->phys);
	if (table != INVALID_PFN && level == 4)
		kvm_monitor_map(engine, table);
	return table;
}

void kvm_free_table(struct machine *machine, pfn_t table)
{
	phys_put(machine_to_kvm_engine(machine)->phys, table);
}

void kvm_retire_table(struct machine *machine, pfn_t table)
{
	struct kvm_engine *engine = machine_to_kvm_engine(machine);
	struct quarantine *q = &engine->quarantine;
	const char *halted;

	/*
	 * The table's own translation goes too: with nested paging a CPU may hold the way to the
	 * table in its paging-structure caches, even if the table is empty.
	 */
	if (kvm_shootdown(machine, &table, 1))
		kvm_gate_halt(engine, "the shootdown of a page table failed");

	/* A halt that another thread began may still be waiting for a vCPU: so wait as well. */
	halted = READ_ONCE(engine->halted);
	if (halted)
		kvm_gate_halt(engine, halted);
	if (halted || !engine->needs_quarantine) {
		phys_put(engine->phys, table);
		return;
	}
	mutex_lock(&engine->quarantine_lock);
	q->frames[q->nr++] = table;
	if (q->nr == q->limit)
		drain(engine);
	mutex_unlock(&engine->quarantine_lock);
}

void kvm_halt(struct machine *machine, const char *why)
{
	kvm_gate_halt(machine_to_kvm_engine(machine), why);
}
