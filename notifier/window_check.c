// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Debug builds: which invalidation windows the calling thread has open, for the check that an entry
 * loses nothing outside of one (set_pte.h). Who changes entries closes what it opened itself.
 * Others may hand a window to another thread to be closed; what then stays behind here is pushed
 * out by later ones.
 */
#include "notifier/set_pte.h"

#include <string.h>

#include "notifier/sync/bug.h"
#include "notifier/sync/thread.h"

#ifdef CONFIG_LOCKDEP

void note_window_open(const struct mmu_notifier_range *range)
{
	struct thread_state *self = current_thread();

	ASSERT(self->windows, "a start visits a lock map, which makes a stack of locks");
	if (self->nr_windows == THREAD_MAX_WINDOWS)
		memmove(self->windows, self->windows + 1,
			--self->nr_windows * sizeof(self->windows[0]));
	self->windows[self->nr_windows++] =
		(struct open_window){range->mm, range->start, range->end};
}

void note_window_closed(const struct mmu_notifier_range *range)
{
	struct thread_state *self = current_thread();

	for (unsigned int i = self->nr_windows; i-- > 0;) {
		struct open_window *window = &self->windows[i];

		if (window->mm != range->mm || window->start != range->start ||
		    window->end != range->end)
			continue;
		memmove(window, window + 1, (--self->nr_windows - i) * sizeof(self->windows[0]));
		return;
	}
}

bool window_covers(const struct mm_struct *mm, hva_t start, hva_t end)
{
	const struct thread_state *self = current_thread();

	for (unsigned int i = 0; i < self->nr_windows; i++) {
		const struct open_window *window = &self->windows[i];

		if (window->mm == mm && window->start <= start && end <= window->end)
			return true;
	}
	return false;
}

#endif
