/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hmm_get_or_create() as it was designed until 2019, for teaching: it is never shipped. Include it
 * behind notifier/hmm_mirror.c, whose structures it uses; what replaced it, and why, stands there.
 *
 * The steps: look for mm->hmm without a lock; make one; publish it, unless somebody else has; then
 * register its notifiers, and if that fails un-publish it. It was written for creators that do not
 * exclude each other, so "there is one already" had to mean "somebody was faster", and was an
 * error: the loser frees its own and reports that it has none.
 *
 *   last put						old_hmm_get_or_create
 *   --------						---------------------
 *   kref: 0
 *							mm->hmm has no reference: not usable
 *							makes another
 *							mm->hmm is not NULL: somebody was faster
 *							-> frees its own, fails. Nobody was faster
 *   clears mm->hmm
 *
 * The caller sees want of memory where there is enough, now and then, when one mirror of an mm goes
 * as another comes. To try again does not help for certain: nothing says how long the put takes.
 *
 * Two more things are wrong with it. The first look has no lock, so the hmm may be freed between
 * the load of mm->hmm and the one of its kref. And it is published before its notifiers are
 * registered: who finds it in between has an hmm that will be taken back, or that nobody tells of
 * windows.
 */
#ifndef TESTS_HISTORY_HMM_GET_OR_CREATE_H
#define TESTS_HISTORY_HMM_GET_OR_CREATE_H

static struct hmm *old_find_get(struct mm_struct *mm)
{
	struct hmm *hmm = READ_ONCE(mm->hmm);

	return hmm && kref_get_unless_zero(&hmm->kref) ? hmm : NULL;
}

/* False: to be cleaned up, there is one. */
static bool old_publish(struct mm_struct *mm, struct hmm *hmm)
{
	bool cleanup = false;

	spin_lock(&mm->page_table_lock);
	if (mm->hmm)
		cleanup = true;
	else
		mm->hmm = hmm;
	spin_unlock(&mm->page_table_lock);
	return !cleanup;
}

static void old_unpublish(struct mm_struct *mm, struct hmm *hmm)
{
	spin_lock(&mm->page_table_lock);
	if (mm->hmm == hmm)
		mm->hmm = NULL;
	spin_unlock(&mm->page_table_lock);
}

/* Takes what it did back. */
static int old_attach(struct mm_struct *mm, struct hmm *hmm)
{
	int ret = __mmu_notifier_register(&hmm->mirrors_mn, mm);

	if (ret)
		return ret;
	ret = __mmu_notifier_register(&hmm->windows_mn, mm);
	if (ret)
		mmu_notifier_unregister(&hmm->mirrors_mn, mm);
	return ret;
}

static struct hmm *old_hmm_get_or_create(struct mm_struct *mm)
{
	struct hmm *hmm = old_find_get(mm);

	if (hmm)
		return hmm;
	hmm = hmm_alloc(mm);
	if (!hmm)
		return NULL;
	if (!old_publish(mm, hmm))
		goto out_free;
	if (old_attach(mm, hmm))
		goto out_unpublish;
	return hmm;

out_unpublish:
	old_unpublish(mm, hmm);
out_free:
	mmdrop(hmm->mm);
	kfree(hmm);
	return NULL;
}

#endif
