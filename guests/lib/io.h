/* SPDX-License-Identifier: 0BSD */
/*
 * The instructions that C has no word for. Each of them but RDTSC leaves the guest: it runs
 * deprivileged, so the instruction faults and the VMM acts on it. Reckon with tens of microseconds
 * apiece.
 */
#ifndef GUESTS_LIB_IO_H
#define GUESTS_LIB_IO_H

#include <stdint.h>

static inline void outb(uint16_t port, uint8_t value)
{
	__asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

static inline uint8_t inb(uint16_t port)
{
	uint8_t value;

	__asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port) : "memory");
	return value;
}

static inline void hlt(void)
{
	__asm__ volatile("hlt" : : : "memory");
}

/* The host's: it goes on while the guest waits for memory. */
static inline uint64_t rdtsc(void)
{
	uint32_t low, high;

	__asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
	return (uint64_t)high << 32 | low;
}

/* Memory may have changed, or may be looked at, behind the compiler's back. */
static inline void barrier(void)
{
	__asm__ volatile("" : : : "memory");
}

/* "memory" on all that changes translations: no access may move across. */
static inline void invlpg(uint64_t gva)
{
	__asm__ volatile("invlpg (%0)" : : "r"(gva) : "memory");
}

#define CONTROL_REGISTER(n)                                                        \
	static inline uint64_t read_cr##n(void)                                    \
	{                                                                          \
		uint64_t value;                                                    \
                                                                                   \
		__asm__ volatile("mov %%cr" #n ", %0" : "=r"(value) : : "memory"); \
		return value;                                                      \
	}                                                                          \
	static inline void write_cr##n(uint64_t value)                             \
	{                                                                          \
		__asm__ volatile("mov %0, %%cr" #n : : "r"(value) : "memory");     \
	}

CONTROL_REGISTER(0)
CONTROL_REGISTER(2)
CONTROL_REGISTER(3)
CONTROL_REGISTER(4)
#undef CONTROL_REGISTER

#endif
