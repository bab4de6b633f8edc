/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Guest memory as host code reaches it: by gva through the guest's own tables (instruction fetch),
 * by gpa through the slots. Contents go through mm_read and mm_write, so they need no invalidation
 * protocol of their own.
 */
#include <errno.h>

#include "shadow/shadow_internal.h"

#include "notifier/sync/util.h"

enum direction { READ_GUEST, WRITE_GUEST };

/* In a section of slots_srcu. -EAGAIN: the slot is being moved or deleted. With -ENXIO *@bad_hva is
 * what the mm refused, or as it was. */
static int access_gpa(struct shadow *shadow, gpa_t gpa, void *buf, size_t len, enum direction dir,
		      hva_t *bad_hva)
{
	char *at = buf;

	/* Looked at inside the section: see shadow_release(). */
	if (READ_ONCE(shadow->dead))
		return -ENXIO;
	while (len) {
		size_t chunk = min(len, (size_t)(PAGE_SIZE - (gpa & ~PAGE_MASK)));
		hva_t hva;
		int ret = gpa_to_hva_for(shadow, gpa, dir == WRITE_GUEST, &hva);

		if (ret)
			return ret;
		ret = dir == READ_GUEST ? mm_read(shadow->mm, hva, at, chunk)
					: mm_write(shadow->mm, hva, at, chunk);
		if (ret == -EFAULT) {
			*bad_hva = hva;
			return -ENXIO;
		}
		if (ret)
			return ret;
		if (dir == WRITE_GUEST)
			shadow_gpte_written(shadow, gpa, chunk);
		gpa += chunk;
		at += chunk;
		len -= chunk;
	}
	return 0;
}

/* Who has no guest to run again takes a slot that is on its way for gone. */
static int without_retry(int ret)
{
	return ret == -EAGAIN ? -ENXIO : ret;
}

int shadow_read_gpa(struct shadow *shadow, gpa_t gpa, void *buf, size_t len)
{
	int id = srcu_read_lock(&shadow->slots_srcu);
	hva_t bad_hva;
	int ret = access_gpa(shadow, gpa, buf, len, READ_GUEST, &bad_hva);

	srcu_read_unlock(&shadow->slots_srcu, id);
	return without_retry(ret);
}

int shadow_write_gpa(struct shadow *shadow, gpa_t gpa, const void *buf, size_t len)
{
	int id = srcu_read_lock(&shadow->slots_srcu);
	hva_t bad_hva;
	int ret = access_gpa(shadow, gpa, (void *)buf, len, WRITE_GUEST, &bad_hva);

	srcu_read_unlock(&shadow->slots_srcu, id);
	return without_retry(ret);
}

static int read_gva(struct shadow *shadow, struct shadow_vcpu *vcpu, gva_t gva, char *at,
		    size_t len, uint32_t access, struct shadow_fault *fault)
{
	if (fault)
		fault->hva = INVALID_HVA;
	if (READ_ONCE(shadow->dead))
		return -ENXIO;
	while (len) {
		size_t chunk = min(len, (size_t)(PAGE_SIZE - (gva & ~PAGE_MASK)));
		struct guest_walk walk;
		uint32_t error_code = 0;
		int ret;

		ret = guest_walk_vcpu(shadow, vcpu, gva, access, &walk, &error_code);
		if (ret == -EFAULT && fault) {
			fault->gva = gva;
			fault->error_code = error_code;
		}
		if (!ret)
			ret = access_gpa(shadow, (walk.gfn << PAGE_SHIFT) | (gva & ~PAGE_MASK), at,
					 chunk, READ_GUEST, &walk.bad_hva);
		if (ret) {
			if (fault)
				fault->hva = walk.bad_hva;
			return ret;
		}
		gva += chunk;
		at += chunk;
		len -= chunk;
	}
	return 0;
}

int shadow_read_gva(struct shadow *shadow, unsigned int vcpu, gva_t gva, void *buf, size_t len,
		    uint32_t access, struct shadow_fault *fault)
{
	int id = srcu_read_lock(&shadow->slots_srcu);
	int ret = read_gva(shadow, &shadow->vcpu[vcpu], gva, buf, len, access, fault);

	srcu_read_unlock(&shadow->slots_srcu, id);
	return ret;
}
