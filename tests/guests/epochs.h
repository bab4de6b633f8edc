/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What epochs.c and who runs it (unit/test_dirty_guest.c) have agreed on. */
#ifndef TESTS_GUESTS_EPOCHS_H
#define TESTS_GUESTS_EPOCHS_H

#define EPOCHS_CONTROL 0x3f000 /* gpa of the words below */
#define EPOCHS_FIRST   64      /* the first page that is written to, at gpa FIRST * 4K */
#define EPOCHS_PAGES   256
#define EPOCHS_STORES  500 /* at least, in each epoch */
#define EPOCHS_BESIDE  3   /* and until so many calls have run beside them */
#define EPOCHS_END     (~0ul)

enum {
	EPOCHS_EPOCH, /* from the host: the number to write; or END */
	EPOCHS_CALLS, /* from the host: calls that have returned in this epoch */
	EPOCHS_DONE,  /* from the guest: the epoch that it is through with */
	EPOCHS_COUNT, /* from the guest: stores so far */
};

#endif
