/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a guest has in its CPU besides general registers: vectors, x87, MXCSR, the bases of FS and
 * GS. It is in a signal frame at every exit, and in another process after a move to another root.
 */
#include <cpuid.h>
#include <sys/auxv.h>

#include "tests/hosted/rig.h"

#define IMAGE		DATA  /* of XSAVE: what is loaded */
#define SAVED		STACK /* and what it has become */
#define HWCAP2_FSGSBASE (1u << 1)

#define X87    (1u << 0)
#define SSE    (1u << 1)
#define AVX    (1u << 2)
#define ZMM    (7u << 5) /* k0-7, the upper halves of zmm0-15, zmm16-31 */
#define WANTED (X87 | SSE | AVX | ZMM)

/* An exit, a fill, and a move lie between the two. rbx: an address that was not used yet. */
GUEST(carry, "xrstor64 (%rdi); ud2; mov (%rbx), %rcx; ud2; xsave64 (%rsi); ud2");
GUEST(bases, "wrfsbase %rdi; wrgsbase %rsi; ud2\n"
	     "rdfsbase %rax; rdgsbase %rdx; mov (%rbx), %rcx; ud2");

static uint32_t components(void)
{
	uint32_t eax, ebx, ecx, edx;

	if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || !(ecx & bit_OSXSAVE))
		skip("this CPU, or its kernel, has no XSAVE");
	asm volatile("xgetbv" : "=a"(eax), "=d"(edx) : "c"(0));
	return eax & WANTED;
}

static void component_at(unsigned int n, uint32_t *offset, uint32_t *size)
{
	uint32_t ecx, edx;

	__cpuid_count(0xd, n, *size, *offset, ecx, edx);
	(void)ecx;
	(void)edx;
}

static uint64_t draw(uint64_t *state)
{
	*state = *state * 6364136223846793005ul + 1442695040888963407ul;
	return *state >> 17 ^ *state << 21;
}

static void fill_random(uint8_t *at, uint32_t size, uint64_t *state)
{
	for (uint32_t i = 0; i < size; i++)
		at[i] = draw(state);
}

/* Of the legacy part what an XSAVE without an exception pending gives back on every CPU. */
static void make_image(uint8_t *image, uint32_t mask, uint64_t *state)
{
	memset(image, 0, PAGE_SIZE);
	*(uint16_t *)image = 0x37f ^ (draw(state) & 3) << 10;	      /* FCW: rounding */
	*(uint16_t *)(image + 2) = (draw(state) & 7) << 11;	      /* FSW: TOP */
	image[4] = 0xff;					      /* FTW: all in use */
	*(uint32_t *)(image + 24) = 0x1f80 | (draw(state) & 3) << 13; /* MXCSR: rounding */
	for (unsigned int i = 0; i < 8; i++)
		fill_random(image + 32 + 16 * i, 10, state);
	for (unsigned int i = 0; i < 16; i++)
		fill_random(image + 160 + 16 * i, 16, state);
	for (unsigned int n = 2; n < 32; n++) {
		uint32_t offset, size;

		if (!(mask & 1u << n))
			continue;
		component_at(n, &offset, &size);
		expect(offset + size <= PAGE_SIZE);
		fill_random(image + offset, size, state);
	}
	*(uint64_t *)(image + 512) = mask;
}

static void expect_same(const uint8_t *image, const uint8_t *saved, uint32_t mask)
{
	expect_eq(*(uint64_t *)(saved + 512) & mask, mask);
	expect_eq(memcmp(image, saved, 5), 0);
	expect_eq(*(uint32_t *)(image + 24), *(uint32_t *)(saved + 24));
	expect_eq(memcmp(image + 32, saved + 32, 16 * (8 + 16)), 0);
	for (unsigned int n = 2; n < 32; n++) {
		uint32_t offset, size;

		if (!(mask & 1u << n))
			continue;
		component_at(n, &offset, &size);
		if (memcmp(image + offset, saved + offset, size))
			fail("component %u of XSAVE is not what it was", n);
	}
}

static void next_ud2(struct rig *rig)
{
	expect_eq(rig_trap_of(rig, 0).vector, VECTOR_UD);
	rig_regs(rig, 0)->rip += 2;
}

TEST(hosted_state, vectors)
{
	unsigned int rounds = test_long() ? 2000 : 200;
	uint32_t mask = components();
	struct guest_regs *regs;
	uint64_t state = 3;
	struct rig rig;
	pfn_t roots[2];

	rig_create_hosted_here(&rig);
	roots[0] = rig.root;
	roots[1] = rig_root(&rig);
	for (unsigned int i = 0; i < 2; i++)
		rig_map_at(&rig, roots[i], OTHER, rig_stack(&rig, 3), RWX);
	for (unsigned int i = 0; i < rounds; i++) {
		uint8_t *image = (uint8_t *)rig_words(&rig, rig.data);
		uint8_t *saved = (uint8_t *)rig_words(&rig, rig_stack(&rig, 0));

		make_image(image, mask, &state);
		memset(saved, 0, PAGE_SIZE);
		regs = start(&rig, carry);
		regs->gpr[GPR_RAX] = mask;
		regs->gpr[GPR_RDX] = 0;
		regs->gpr[GPR_RDI] = IMAGE;
		regs->gpr[GPR_RSI] = SAVED;
		regs->gpr[GPR_RBX] = OTHER;
		next_ud2(&rig);
		rig_shoot(&rig, rig_stack(&rig, 3));
		rig_load_root(&rig, 0, roots[i / 2 & 1]);
		next_ud2(&rig);
		rig_load_root(&rig, 0, roots[i & 1]);
		next_ud2(&rig);
		expect_same(image, saved, mask);
	}
	rig_destroy(&rig);
}

/* Any that is canonical, those of kernels too. */
TEST(hosted_state, bases_of_fs_and_gs)
{
	static const uint64_t bases[] = {
		0, DATA, 0x00007fffffffffff, 0xffff800000000000, ~0ul, 0xffffffff81000000};
	struct guest_regs *regs;
	struct rig rig;
	pfn_t other;

	if (!(getauxval(AT_HWCAP2) & HWCAP2_FSGSBASE))
		skip("this CPU, or its kernel, has no FSGSBASE");
	rig_create_hosted_here(&rig);
	other = rig_root(&rig);
	for (unsigned int i = 0; i < ARRAY_SIZE(bases); i++) {
		regs = start(&rig, bases);
		regs->gpr[GPR_RDI] = bases[i];
		regs->gpr[GPR_RSI] = bases[ARRAY_SIZE(bases) - 1 - i];
		regs->gpr[GPR_RBX] = DATA;
		next_ud2(&rig);
		rig_load_root(&rig, 0, i & 1 ? rig.root : other);
		rig_shoot(&rig, rig.data);
		next_ud2(&rig);
		expect_eq(regs->gpr[GPR_RAX], bases[i]);
		expect_eq(regs->gpr[GPR_RDX], bases[ARRAY_SIZE(bases) - 1 - i]);
	}
	rig_destroy(&rig);
}
