/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * An input of a fuzzer, taken from the front: numbers of so many bytes, little-endian. What is
 * beyond the end reads as 0, so each input means something, and so does each beginning of it.
 */
#ifndef TESTS_FUZZ_BYTES_H
#define TESTS_FUZZ_BYTES_H

#include <stddef.h>
#include <stdint.h>

struct bytes {
	const uint8_t *at;
	size_t left;
};

static inline uint64_t take(struct bytes *b, unsigned int nr)
{
	uint64_t value = 0;

	for (unsigned int i = 0; i < nr && b->left; i++, b->left--)
		value |= (uint64_t)*b->at++ << (8 * i);
	return value;
}

/* The entry point of every target: libFuzzer calls it, or replay.c. A finding ends the process. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif
