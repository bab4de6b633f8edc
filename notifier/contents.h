/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The contents of frames. Host threads, guest CPUs and the model machine work on the same bytes
 * with no lock between them, so every access is an atomic one of natural size: relaxed, since order
 * is the business of whoever needs it (reference counts, entries, the guest's own barriers), and
 * never torn below eight aligned bytes. Plain memcpy would be free to tear, and a data race in C.
 *
 * These are bytes of guest data, not variables of ours: hence no READ_ONCE, and nothing here is a
 * point at which a schedule could be switched.
 */
#ifndef NOTIFIER_CONTENTS_H
#define NOTIFIER_CONTENTS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <gnomon/types.h>

#define CONTENTS_WORDS (PAGE_SIZE / sizeof(uint64_t))

/* The largest power of two, up to 8, that divides @address and is not above @left. */
static inline size_t contents_step(uintptr_t address, size_t left)
{
	size_t step = sizeof(uint64_t);

	while ((address & (step - 1)) || step > left)
		step >>= 1;
	return step;
}

/* One step of the loops below, which share these names. */
#define CONTENTS_LOAD(type)                                                                    \
	({                                                                                     \
		type v_ = __atomic_load_n((const type *)(const void *)from, __ATOMIC_RELAXED); \
                                                                                               \
		memcpy(to, &v_, sizeof(v_));                                                   \
		from += sizeof(v_), to += sizeof(v_), len -= sizeof(v_);                       \
	})

#define CONTENTS_STORE(type)                                                \
	({                                                                  \
		type v_;                                                    \
                                                                            \
		memcpy(&v_, from, sizeof(v_));                              \
		__atomic_store_n((type *)(void *)to, v_, __ATOMIC_RELAXED); \
		from += sizeof(v_), to += sizeof(v_), len -= sizeof(v_);    \
	})

/* From a frame to a buffer of ours. */
static inline void contents_read(void *buf, const void *contents, size_t len)
{
	const char *from = contents;
	char *to = buf;

	while (len) {
		switch (contents_step((uintptr_t)from, len)) {
		case 8:
			do
				CONTENTS_LOAD(uint64_t);
			while (len >= 8);
			break;
		case 4:
			CONTENTS_LOAD(uint32_t);
			break;
		case 2:
			CONTENTS_LOAD(uint16_t);
			break;
		default:
			CONTENTS_LOAD(uint8_t);
			break;
		}
	}
}

/* From a buffer of ours to a frame. */
static inline void contents_write(void *contents, const void *buf, size_t len)
{
	const char *from = buf;
	char *to = contents;

	while (len) {
		switch (contents_step((uintptr_t)to, len)) {
		case 8:
			do
				CONTENTS_STORE(uint64_t);
			while (len >= 8);
			break;
		case 4:
			CONTENTS_STORE(uint32_t);
			break;
		case 2:
			CONTENTS_STORE(uint16_t);
			break;
		default:
			CONTENTS_STORE(uint8_t);
			break;
		}
	}
}

#undef CONTENTS_LOAD
#undef CONTENTS_STORE

static inline void contents_copy_page(void *to, const void *from)
{
	const uint64_t *source = from;
	uint64_t *target = to;

	for (size_t i = 0; i < CONTENTS_WORDS; i++) {
		uint64_t word = __atomic_load_n(&source[i], __ATOMIC_RELAXED);

		__atomic_store_n(&target[i], word, __ATOMIC_RELAXED);
	}
}

static inline void contents_fill_page(void *page, uint64_t word)
{
	uint64_t *target = page;

	for (size_t i = 0; i < CONTENTS_WORDS; i++)
		__atomic_store_n(&target[i], word, __ATOMIC_RELAXED);
}

/* An order of pages by what is in them: below, equal to, or above 0. */
static inline int contents_compare_pages(const void *a, const void *b)
{
	const uint64_t *left = a, *right = b;

	for (size_t i = 0; i < CONTENTS_WORDS; i++) {
		uint64_t l = __atomic_load_n(&left[i], __ATOMIC_RELAXED);
		uint64_t r = __atomic_load_n(&right[i], __ATOMIC_RELAXED);

		if (l != r)
			return l < r ? -1 : 1;
	}
	return 0;
}

/* Changes, all but surely, when a page does: each word goes through a multiplication and a fold. */
static inline uint64_t contents_hash_page(const void *page)
{
	const uint64_t *source = page;
	uint64_t hash = CONTENTS_WORDS;

	for (size_t i = 0; i < CONTENTS_WORDS; i++) {
		hash ^= __atomic_load_n(&source[i], __ATOMIC_RELAXED);
		hash *= 0x9e3779b97f4a7c15UL;
		hash ^= hash >> 32;
	}
	return hash;
}

/* The index of the first word that is not @word, or CONTENTS_WORDS. */
static inline size_t contents_differ(const void *page, uint64_t word)
{
	const uint64_t *source = page;
	size_t i;

	for (i = 0; i < CONTENTS_WORDS; i++) {
		if (__atomic_load_n(&source[i], __ATOMIC_RELAXED) != word)
			break;
	}
	return i;
}

#endif
