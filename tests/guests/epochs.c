/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Writes the number of the epoch, which the host says, to random pages; and stops between two. */
#include "guests/lib/paging.h"
#include "guests/lib/report.h"
#include "tests/guests/epochs.h"

int main(const struct boot_info *boot)
{
	volatile uint64_t *control = direct_map(EPOCHS_CONTROL);
	uint64_t random = boot->seed, epoch = 0, count = 0;

	boot_check(boot);
	check(boot->image_end <= EPOCHS_CONTROL &&
		      boot->reserved_start >= (EPOCHS_FIRST + EPOCHS_PAGES) * PAGE_SIZE,
	      "the pages are not free: the image ends at 0x%lx, 0x%lx is the loader's",
	      boot->image_end, boot->reserved_start);
	for (;;) {
		while (control[EPOCHS_EPOCH] == epoch)
			__builtin_ia32_pause();
		epoch = control[EPOCHS_EPOCH];
		if (epoch == EPOCHS_END)
			return 0;
		for (uint64_t n = 0; n < EPOCHS_STORES || control[EPOCHS_CALLS] < EPOCHS_BESIDE;
		     n++) {
			volatile uint64_t *word;

			random = random * 6364136223846793005 + 1442695040888963407;
			word = direct_map((EPOCHS_FIRST + (random >> 33) % EPOCHS_PAGES) *
					  PAGE_SIZE);
			*word = epoch << 32 | n << 2;
			count++;
		}
		control[EPOCHS_COUNT] = count;
		control[EPOCHS_DONE] = epoch;
	}
}
