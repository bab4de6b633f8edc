/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Host access to the memory behind an hva: the only way in which host code reads or writes guest
 * memory.
 *
 * An access pins the frame for its duration, with no lock:
 *
 *   1. load the entry: present, frame F, rights enough    3. is the entry unchanged? (for a write,
 *   2. F.refcount++ unless it is zero                          set its dirty bit in the same step)
 *                                                          4. access F, F.refcount--
 *
 * From step 2 on F can neither be freed nor moved: a migration freezes references before it copies,
 * and the freeze fails (frame.c has the ladder). So no write is ever lost in a copy. Step 3 is what
 * makes F the right frame, since between 1 and 2 anything may have happened to it:
 *
 *   access                                    the rest of the world
 *   ------                                    ---------------------
 *   loads the entry: F
 *                                             zaps the entry, frees F; F becomes a page of another
 *                                               mm, or a table of a machine
 *   F.refcount++: not zero, but a stranger's
 *   entry is not F any more: lets go, and retries; F's new owner saw a reference come and go, which
 *   may cost it one failed migration, nothing else. (If that was the last reference, the put here
 *   frees the frame.)
 *
 * If the entry does hold F again (ABA: F was freed and came back to this very place, by fault or by
 * migration) then F is the page at this hva now, and has been pinned since before that look: the
 * access is as good as one that began then.
 *
 * A zap after step 3 does not stop the access: it lands in the old page, as if it had come just
 * before the zap.
 *
 * The caller pins mm_users, so that the root of the tables stands; a section of pgtable_srcu keeps
 * the rest of them over steps 1 to 3.
 */
#include <errno.h>

#include "notifier/contents.h"
#include "notifier/frame.h"
#include "notifier/mm_internal.h"
#include "notifier/sync/bug.h"
#include "notifier/sync/util.h"

/*
 * One who may write pins the frame: so that a fork, or whoever else makes the entry read-only,
 * finds out that there may be a write that is not done yet (fork.c has the ladder).
 */
static bool get_frame(struct phys *phys, pfn_t pfn, bool write)
{
	return write ? frame_pin_unless_zero(phys, pfn) : phys_get_unless_zero(phys, pfn);
}

static void put_frame(struct phys *phys, pfn_t pfn, bool write)
{
	if (write)
		frame_unpin(phys, pfn);
	else
		phys_put(phys, pfn);
}

/* Steps 1 to 3, the table being kept. False: not there, no rights, or changing this instant. */
static bool try_pin_entry(struct mm_struct *mm, pte_t *ptep, bool write, pfn_t *pfnp)
{
	pte_t pte = pte_load(ptep);
	pfn_t pfn = pte_pfn(pte);

	if (!pte_allows(pte, write))
		return false;
	/* A full barrier: the count is raised before the entry is looked at again (frame.c). */
	if (!get_frame(mm->phys, pfn, write))
		return false;
	if (!pte_touch(ptep, pte, write)) {
		put_frame(mm->phys, pfn, write);
		return false;
	}
	*pfnp = pfn;
	return true;
}

static bool try_pin(struct mm_struct *mm, hva_t hva, bool write, pfn_t *pfnp)
{
	int idx = pgtable_read_lock();
	pte_t *ptep = pgtable_lookup(mm->pgtable, hva);
	bool pinned = ptep && try_pin_entry(mm, ptep, write, pfnp);

	pgtable_read_unlock(idx);
	return pinned;
}

static int get_page(struct mm_struct *mm, hva_t hva, bool write, pfn_t *pfnp)
{
	/* Seldom does: the page is there. Who calls with a lock that mmap_lock encloses is wrong
	 * always. */
	might_lock_read(&mm->mmap_lock);
	while (!try_pin(mm, hva, write, pfnp)) {
		int ret = mm_fault(mm, hva, write);

		if (ret)
			return ret;
	}
	return 0;
}

static char *contents_at(struct mm_struct *mm, pfn_t pfn, hva_t hva)
{
	return (char *)phys_map(mm->phys, pfn) + (hva & (PAGE_SIZE - 1));
}

static size_t left_in_page(hva_t hva, size_t len)
{
	return min(len, (size_t)(PAGE_SIZE - (hva & (PAGE_SIZE - 1))));
}

int mm_pin_page(struct mm_struct *mm, hva_t hva, bool write, pfn_t *pfnp)
{
	return get_page(mm, hva, write, pfnp);
}

void mm_unpin_page(struct mm_struct *mm, pfn_t pfn, bool write)
{
	put_frame(mm->phys, pfn, write);
}

int mm_read(struct mm_struct *mm, hva_t hva, void *buf, size_t len)
{
	char *to = buf;

	while (len) {
		size_t part = left_in_page(hva, len);
		pfn_t pfn;
		int ret = get_page(mm, hva, false, &pfn);

		if (ret)
			return ret;
		contents_read(to, contents_at(mm, pfn, hva), part);
		phys_put(mm->phys, pfn);
		hva += part;
		to += part;
		len -= part;
	}
	return 0;
}

int mm_write(struct mm_struct *mm, hva_t hva, const void *buf, size_t len)
{
	const char *from = buf;

	while (len) {
		size_t part = left_in_page(hva, len);
		pfn_t pfn;
		int ret = get_page(mm, hva, true, &pfn);

		if (ret)
			return ret;
		contents_write(contents_at(mm, pfn, hva), from, part);
		frame_unpin(mm->phys, pfn);
		hva += part;
		from += part;
		len -= part;
	}
	return 0;
}

int mm_cmpxchg64(struct mm_struct *mm, hva_t hva, uint64_t *old, uint64_t new_value)
{
	uint64_t *word, expected = *old;
	pfn_t pfn;
	int ret;

	if (hva & (sizeof(*word) - 1))
		return -EINVAL;
	ret = get_page(mm, hva, true, &pfn);
	if (ret)
		return ret;
	word = (uint64_t *)contents_at(mm, pfn, hva);
	*old = cmpxchg(word, expected, new_value);
	frame_unpin(mm->phys, pfn);
	return *old != expected;
}

int mm_read64_atomic(struct mm_struct *mm, hva_t hva, uint64_t *value)
{
	pfn_t pfn;

	if (hva & (sizeof(*value) - 1))
		return -EINVAL;
	if (!try_pin(mm, hva, false, &pfn))
		return -EAGAIN;
	contents_read(value, contents_at(mm, pfn, hva), sizeof(*value));
	phys_put(mm->phys, pfn);
	return 0;
}
