/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Edits entries of its own tables, at the levels that the VMM write-protects while they are in use,
 * by each kind of instruction that can store: the entry must hold what a CPU would have put there,
 * registers and flags be right, and the mapping follow after INVLPG. Some of the instructions the
 * VMM carries out, some it must let the CPU do (docs/guests.md).
 *
 * Tables are reached in two ways: through the map of all RAM, and through the root as its own
 * table. There a store needs the very table that it stores to.
 */
#include "guests/lib/console.h"
#include "guests/lib/mem.h"
#include "guests/lib/paging.h"
#include "guests/lib/report.h"

#define ROUNDS 12
#define FLAGS  (PTE_P | PTE_W)
/* Bits that no CPU looks at, so that the upper half of an entry changes, too. */
#define IGNORED(to) ((to) ? 0x55ul << 52 : 0x2aul << 52)
#define SELF	    0x30000000000ul /* PML4 slot 6: the root as its own table */

typedef volatile uint64_t entry_t;

/* --- one way to store, each: *e, which is @old, becomes @new --- */

#define FORM(name) static void name(entry_t *e, uint64_t old, uint64_t new)

FORM(mov)
{
	(void)old;
	__asm__ volatile("mov %1, %0" : "=m"(*e) : "r"(new));
}

FORM(mov_in_bytes)
{
	const uint8_t *bytes = (const uint8_t *)&new;

	(void)old;
	/* The one with P last. */
	for (int i = 7; i >= 0; i--)
		__asm__ volatile("movb %1, %0" : "=m"(((volatile uint8_t *)e)[i]) : "r"(bytes[i]));
}

FORM(mov_in_halves)
{
	volatile uint32_t *half = (volatile uint32_t *)e;

	(void)old;
	__asm__ volatile("movl $0, %0" : "=m"(half[0]));
	__asm__ volatile("movw %w1, %0" : "=m"(*(volatile uint16_t *)(half + 1)) : "r"(new >> 32));
	__asm__ volatile("movw %w1, %0"
			 : "=m"(*((volatile uint16_t *)(half + 1) + 1))
			 : "r"(new >> 48));
	__asm__ volatile("movl %k1, %0" : "=m"(half[0]) : "r"(new));
}

/* In two words of eight bytes, of which the other must not change. */
FORM(mov_unaligned)
{
	volatile uint32_t *half = (volatile uint32_t *)e;
	uint64_t high = (uint64_t)half[2] << 32 | new >> 32;

	(void)old;
	__asm__ volatile("movl %k1, %0" : "=m"(half[0]) : "r"(new));
	__asm__ volatile("mov %1, %0" : "=m"(*(entry_t *)(half + 1)) : "r"(high));
}

FORM(movnti)
{
	(void)old;
	__asm__ volatile("movnti %1, %0" : "=m"(*e) : "r"(new));
}

FORM(xchg)
{
	uint64_t value = new;

	__asm__ volatile("xchg %1, %0" : "+m"(*e), "+r"(value));
	check(value == old, "0x%lx instead of 0x%lx", value, old);
}

FORM(xadd)
{
	uint64_t value = new - old;

	__asm__ volatile("lock xadd %1, %0" : "+m"(*e), "+r"(value));
	check(value == old, "0x%lx instead of 0x%lx", value, old);
}

FORM(cmpxchg)
{
	uint64_t found = old ^ 8;
	bool equal;

	__asm__ volatile("lock cmpxchg %3, %0" : "+m"(*e), "=@ccz"(equal), "+a"(found) : "r"(new));
	check(!equal && found == old, "0x%lx instead of 0x%lx", found, old);
	__asm__ volatile("cmpxchg %3, %0" : "+m"(*e), "=@ccz"(equal), "+a"(found) : "r"(new));
	check(equal, "not 0x%lx", old);
}

FORM(cmpxchg8b)
{
	uint32_t low = old, high = ~(old >> 32);
	bool equal;

	__asm__ volatile("cmpxchg8b %0"
			 : "+m"(*e), "=@ccz"(equal), "+a"(low), "+d"(high)
			 : "b"((uint32_t) new), "c"((uint32_t)(new >> 32)));
	check(!equal && high == old >> 32, "0x%x instead of 0x%lx", high, old >> 32);
	__asm__ volatile("lock cmpxchg8b %0"
			 : "+m"(*e), "=@ccz"(equal), "+a"(low), "+d"(high)
			 : "b"((uint32_t) new), "c"((uint32_t)(new >> 32)));
	check(equal, "0x%x%08x instead of 0x%lx", high, low, old);
}

FORM(add)
{
	bool carry;

	__asm__ volatile("add %2, %0" : "+m"(*e), "=@ccc"(carry) : "r"(new - old));
	check(carry == (new < old), "CF is %d", carry);
}

FORM(sub_and_carry)
{
	uint64_t less = old - new - 1;

	__asm__ volatile("stc; sbb %1, %0" : "+m"(*e) : "r"(less));
}

FORM(adc)
{
	__asm__ volatile("clc; lock adc %1, %0" : "+m"(*e) : "r"(new - old));
}

FORM(sub)
{
	bool zero;

	__asm__ volatile("sub %2, %0" : "+m"(*e), "=@ccz"(zero) : "r"(old - new));
	check(!zero, "ZF is set");
}

FORM(and_then_or)
{
	__asm__ volatile("lock and %1, %0" : "+m"(*e) : "r"(old & new));
	__asm__ volatile("lock or %1, %0" : "+m"(*e) : "r"(new & ~old));
}

FORM(xor)
{
	__asm__ volatile("xor %1, %0" : "+m"(*e) : "r"(old ^ new));
}

FORM(not_and_inc)
{
	(void)old;
	*e = 1 - new;
	__asm__ volatile("notq %0" : "+m"(*e)); /* new - 2 */
	__asm__ volatile("incq %0" : "+m"(*e));
	__asm__ volatile("incb %0" : "+m"(*(volatile uint8_t *)e));
}

FORM(neg)
{
	bool carry;

	(void)old;
	*e = -new;
	__asm__ volatile("negq %0" : "+m"(*e), "=@ccc"(carry));
	check(carry, "CF is clear");
}

FORM(decrement)
{
	(void)old;
	*e = new + 1;
	__asm__ volatile("lock decq %0" : "+m"(*e));
}

FORM(bits)
{
	for (uint64_t bit = 0; bit < 64; bit++) {
		uint64_t mask = 1ul << bit;

		if (old & ~new &mask)
			__asm__ volatile("lock btr %1, %0" : "+m"(*e) : "r"(bit));
		else if (new & ~old & mask)
			__asm__ volatile("bts %1, %0" : "+m"(*e) : "r"(bit));
	}
	/* From another entry, and back and forth. */
	__asm__ volatile("btc %1, %0" : "+m"(*(e + 4)) : "r"(9l - 4 * 64) : "memory");
	__asm__ volatile("btcq $9, %0" : "+m"(*e));
}

FORM(setcc)
{
	(void)old;
	*e = new & ~0xfful;
	/* P, and bit 1 of what the flag was is to be made by hand. */
	__asm__ volatile("cmp %1, %1; sete %0" : "+m"(*(volatile uint8_t *)e) : "r"(new));
	__asm__ volatile("orb %1, %0" : "+m"(*(volatile uint8_t *)e) : "q"((uint8_t) new));
}

FORM(stos)
{
	entry_t *to = e;

	(void)old;
	__asm__ volatile("stosq" : "+D"(to) : "a"(new) : "memory");
	check(to == e + 1, "RDI is 0x%lx", (uint64_t)to);
}

/* The three before it, which are zero, and this one. */
FORM(rep_stos)
{
	entry_t *to = e;
	uint64_t count = 4;

	(void)old;
	__asm__ volatile("std; rep stosq; cld" : "+D"(to), "+c"(count) : "a"(0) : "memory");
	check(to == e - 4 && !count, "RDI is 0x%lx, RCX 0x%lx", (uint64_t)to, count);
	*e = new;
}

FORM(rep_movs)
{
	uint64_t source[4] = {0, 0, new, 0}, *from = source;
	entry_t *to = e - 2;
	uint64_t count = 4;

	(void)old;
	__asm__ volatile("rep movsq" : "+D"(to), "+S"(from), "+c"(count) : : "memory");
	check(to == e + 2 && from == source + 4 && !count, "RDI is 0x%lx", (uint64_t)to);
}

/* --- not carried out --- */

FORM(rotate)
{
	(void)old;
	*e = new >> 1 | new << 63;
	__asm__ volatile("rolq %0" : "+m"(*e));
}

FORM(push)
{
	uint64_t rsp;

	(void)old;
	__asm__ volatile("mov %%rsp, %0; mov %1, %%rsp; push %2; mov %0, %%rsp"
			 : "=&r"(rsp)
			 : "r"(e + 1), "r"(new)
			 : "memory");
}

FORM(pop)
{
	(void)old;
	/* No red zone: what is below RSP is anyone's. */
	__asm__ volatile("push %1; pop %0" : "=m"(*e) : "r"(new));
}

FORM(shift_in)
{
	(void)old;
	*e = new >> 8;
	__asm__ volatile("shldq $8, %1, %0" : "+m"(*e) : "r"(new << 56));
}

struct form {
	const char *name;
	void (*store)(entry_t *e, uint64_t old, uint64_t new);
};

#define NAME(form)          \
	{                   \
#form, form \
	}

static const struct form forms[] = {
	NAME(mov),	 NAME(mov_in_bytes), NAME(mov_in_halves), NAME(mov_unaligned),
	NAME(movnti),	 NAME(xchg),	     NAME(xadd),	  NAME(cmpxchg),
	NAME(cmpxchg8b), NAME(add),	     NAME(sub_and_carry), NAME(adc),
	NAME(sub),	 NAME(and_then_or),  NAME(xor),		  NAME(not_and_inc),
	NAME(neg),	 NAME(decrement),    NAME(bits),	  NAME(setcc),
	NAME(stos),	 NAME(rep_stos),     NAME(rep_movs),	  NAME(rotate),
	NAME(push),	 NAME(pop),	     NAME(shift_in),
};

#define NR_FORMS (sizeof(forms) / sizeof(forms[0]))

/* --- what they are done to --- */

/* An entry of level 2 to 4, and two tables that it may lead to, each to a page of its own. */
struct place {
	int level;
	uint64_t gva;
	entry_t *entry;
	uint64_t table[2];
	uint64_t word[2]; /* in the page */
	uint64_t nr;	  /* of edits */
};

/* A table of @level that maps @gva to a page with @word. */
static uint64_t make_table(int level, uint64_t gva, uint64_t word)
{
	uint64_t table = alloc_page(), next;

	if (level == 0) {
		*(volatile uint64_t *)direct_map(table) = word;
		return table;
	}
	next = make_table(level - 1, gva, word);
	((entry_t *)direct_map(table))[pt_index(gva, level)] = next | FLAGS;
	return table;
}

/* The entry of @level for @gva as the root's own map of it has it: once more through slot 6 for
 * each level below. */
static entry_t *self_entry(uint64_t gva, int level)
{
	while (level--)
		gva = SELF | (gva >> 9 & 0x7ffffffff8);
	return (entry_t *)gva;
}

static void make_place(struct place *p, uint64_t root, int level, bool self)
{
	/* With neighbours in the table, all zero. */
	uint64_t gva = (40ul * level + 5 * self) << 39 | (level < 4 ? 100 * pt_span(level) : 0);

	*p = (struct place){.level = level, .gva = gva};
	for (int i = 0; i < 2; i++) {
		p->word[i] = gva | self << 8 | i;
		p->table[i] = make_table(level - 1, gva, p->word[i]);
	}
	p->entry = pt_make_entry(root, gva, level);
	if (self)
		p->entry = self_entry(gva, level);
	*p->entry = p->table[0] | FLAGS;
	invlpg(gva);
}

static uint64_t look(uint64_t gva)
{
	return *(volatile uint64_t *)gva;
}

static void edit(struct place *p, const struct form *form)
{
	unsigned int to = ++p->nr & 1;
	uint64_t new = p->table[to] | FLAGS | IGNORED(to), found;

	/* In use: the entry is shadowed now, and so protected. */
	found = look(p->gva);
	check(found == p->word[!to], "before %s at level %d: 0x%lx instead of 0x%lx", form->name,
	      p->level, found, p->word[!to]);
	form->store(p->entry, *p->entry, new);
	found = *p->entry;
	check(found == new, "%s at level %d: the entry is 0x%lx, not 0x%lx", form->name, p->level,
	      found, new);
	check(!p->entry[-1] && !p->entry[1], "%s at level %d: a neighbour is 0x%lx", form->name,
	      p->level, p->entry[-1] | p->entry[1]);
	/* A CR3 load besides puts an end to the CPU's doing such stores itself. */
	if (p->nr % 3)
		invlpg(p->gva);
	else
		write_cr3(read_cr3());
	found = look(p->gva);
	check(found == p->word[to], "after %s at level %d: 0x%lx instead of 0x%lx", form->name,
	      p->level, found, p->word[to]);
}

int main(const struct boot_info *boot)
{
	struct place places[6]; /* by way of all RAM, by way of the root */
	uint64_t root, edits = 0;

	boot_check(boot);
	paging_init(boot);
	root = read_cr3();
	*pt_entry(root, SELF, 4) = (root & PTE_ADDR) | FLAGS;
	for (int round = 0; round < ROUNDS; round++) {
		for (int i = 0; i < 3 && round < 2; i++)
			make_place(&places[3 * round + i], root, 2 + i, round);
		for (unsigned int f = 0; f < NR_FORMS; f++) {
			for (int i = 0; i < 3; i++, edits++)
				edit(&places[3 * (round & 1) + i], &forms[f]);
		}
	}
	printf("table_stores: %lu edits, %lu kinds of store, all as a CPU does them\n", edits,
	       NR_FORMS);
	return 0;
}
