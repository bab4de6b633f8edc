/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The monitor: the few supervisor pages in PML4 slot 255 of every root, where the CPU goes when the
 * guest traps.
 *
 * Every entry down to these pages has U/S clear, so CPL3 code can neither read, write nor execute
 * them; A and D are set, so the CPU never writes the tables. What an exception pushes is
 * read and edited in the frame of the stack page, through mapping A: the guest cannot forge it.
 *
 * The entry stubs are the only code that runs at CPL0. Some KVMs emulate CPL0 code, at half a
 * microsecond per instruction, and know few instructions. So a stub makes all exception frames look
 * alike, tells the VMM by one OUT, and goes back:
 *
 *	push $0			unless the CPU pushed an error code
 *	out  %al, $0x40+vector	KVM_RUN returns; the VMM handles the trap, edits the frame
 *	add  $8, %rsp		the error code
 *	iretq
 *
 * SYSCALL has no frame: where it enters at CPL0 it does so on the guest's own RSP. Its stub touches
 * no memory and has no way back: the VMM loads every register anew (CPU_COLD).
 */
#include "vmm/engine_kvm.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "notifier/sync/bug.h"
#include "vmm/why.h"

#define STUB_SIZE	   16
#define SYSCALL_STUBS	   (NR_VECTORS * STUB_SIZE) /* offset: one stub per port, in port order */
#define ERROR_CODE_VECTORS 0x60227d00		    /* 8, 10 to 14, 17, 21, 29, 30 */

extern const char kvm_stubs[], kvm_stubs_end[];

/* clang-format off */
#define STRING_(x) #x
#define STRING(x)  STRING_(x)
asm(	".pushsection .rodata\n"
	".hidden kvm_stubs, kvm_stubs_end\n"
	".balign 16\n"
	"kvm_stubs:\n"
	".set kvm_vector, 0\n"
	".rept 32\n"
	"	.balign 16\n"
	"	.ifeq (" STRING(ERROR_CODE_VECTORS) " >> kvm_vector) & 1\n"
	"	push $0\n"
	"	.endif\n"
	"	out %al, $(" STRING(MONITOR_PORT_VECTOR) " + kvm_vector)\n"
	"	add $8, %rsp\n"
	"	iretq\n"
	"	.set kvm_vector, kvm_vector + 1\n"
	".endr\n"
	".set kvm_vector, 0\n"
	".rept 3\n"
	"	.balign 16\n"
	"	out %al, $(" STRING(MONITOR_PORT_SYSCALL) " + kvm_vector)\n"
	"	hlt\n"
	"	.set kvm_vector, kvm_vector + 1\n"
	".endr\n"
	"kvm_stubs_end:\n"
	".globl kvm_stubs, kvm_stubs_end\n"
	".popsection\n");
/* clang-format on */

#define PTE_PRESENT  (1ul << 0)
#define PTE_WRITE    (1ul << 1)
#define PTE_ACCESSED (1ul << 5)
#define PTE_DIRTY    (1ul << 6)
#define PTE_NX	     (1ul << 63)

#define PTE_TABLE (PTE_PRESENT | PTE_WRITE | PTE_ACCESSED) /* no USER, at any level */
#define PTE_RX	  (PTE_PRESENT | PTE_ACCESSED)
#define PTE_RO	  (PTE_PRESENT | PTE_ACCESSED | PTE_NX)
#define PTE_RW	  (PTE_PRESENT | PTE_ACCESSED | PTE_DIRTY | PTE_WRITE | PTE_NX)

/* The 64-bit TSS; unaligned as the hardware has it. */
struct tss {
	uint32_t reserved0;
	uint64_t rsp[3];
	uint64_t reserved1;
	uint64_t ist[7];
	uint64_t reserved2;
	uint16_t reserved3;
	uint16_t iomap_base;
} __attribute__((packed));
static_assert(sizeof(struct tss) == MONITOR_TSS_LIMIT + 1, "the limit is the TSS and no I/O map");

struct gate_desc {
	uint16_t offset_low;
	uint16_t selector;
	uint8_t ist;
	uint8_t type;
	uint16_t offset_middle;
	uint32_t offset_high;
	uint32_t reserved;
};
static_assert(sizeof(struct gate_desc) == 16, "a 64-bit gate");

#define GATE_INTERRUPT 0x8e /* present, DPL 0, interrupt gate: IF is clear in the stub */
#define GATE_DPL3      0x60

static uint64_t pte(pfn_t pfn, uint64_t bits)
{
	return (pfn << PAGE_SHIFT) | bits;
}

uint64_t kvm_monitor_stub(unsigned int port)
{
	if (port < MONITOR_PORT_SYSCALL)
		return MONITOR_CODE + (port - MONITOR_PORT_VECTOR) * STUB_SIZE;
	return MONITOR_CODE + SYSCALL_STUBS + (port - MONITOR_PORT_SYSCALL) * STUB_SIZE;
}

/*
 * Only INT3 may be raised by the guest's own INT instruction: through any other gate it would
 * arrive as an exception that did not happen. DPL 0 makes it #GP, with the vector in the error
 * code.
 */
static void fill_idt(struct gate_desc *idt)
{
	for (unsigned int vector = 0; vector < NR_VECTORS; vector++) {
		uint64_t stub = kvm_monitor_stub(MONITOR_PORT_VECTOR + vector);

		idt[vector] = (struct gate_desc){
			.offset_low = stub,
			.selector = SEL_KERNEL_CS,
			.type = vector == 3 ? GATE_INTERRUPT | GATE_DPL3 : GATE_INTERRUPT,
			.offset_middle = stub >> 16,
			.offset_high = stub >> 32,
		};
	}
}

/*
 * The I/O map starts beyond the limit: no port is open to the guest. (A KVM was seen to honour an
 * I/O map at offset 0, where it reads whatever the TSS holds.) Descriptors have their accessed bit
 * set, the TSS is busy: the CPU never writes this page.
 */
static void fill_desc(char *page, unsigned int cpu)
{
	uint64_t *gdt = (uint64_t *)page;
	uint64_t tss_base = MONITOR_DESC(cpu) + MONITOR_TSS_OFFSET;
	struct tss tss = {
		.rsp = {MONITOR_STACK(cpu) + PAGE_SIZE},
		.iomap_base = MONITOR_TSS_LIMIT + 1,
	};

	static_assert(GDT_ENTRIES * 8 <= MONITOR_TSS_OFFSET, "GDT and TSS do not overlap");
	gdt[SEL_KERNEL_CS / 8] = 0x00af9b000000ffff;
	gdt[SEL_KERNEL_SS / 8] = 0x00cf93000000ffff;
	gdt[SEL_USER_SS / 8] = 0x00cff3000000ffff;
	gdt[SEL_USER_CS / 8] = 0x00affb000000ffff;
	gdt[SEL_TSS / 8] = 0x00008b0000000000 | MONITOR_TSS_LIMIT | (tss_base & 0xffffff) << 16 |
			   (tss_base >> 24 & 0xff) << 56;
	gdt[SEL_TSS / 8 + 1] = tss_base >> 32;
	memcpy(page + MONITOR_TSS_OFFSET, &tss, sizeof(tss));
}

static uint64_t *table(struct kvm_engine *engine, pfn_t pfn)
{
	return phys_map(engine->phys, pfn);
}

static unsigned int page_index(uint64_t address)
{
	return (address - MONITOR_BASE) >> PAGE_SHIFT;
}

static int take(struct kvm_engine *engine, pfn_t *pfn)
{
	*pfn = phys_alloc_zeroed(engine->phys);
	return *pfn == INVALID_PFN ? -ENOMEM : 0;
}

static int take_frames(struct kvm_engine *engine)
{
	struct monitor *m = &engine->monitor;
	int err;

	err = take(engine, &m->pdpt) ?: take(engine, &m->pd);
	err = err ?: take(engine, &m->pt) ?: take(engine, &m->code) ?: take(engine, &m->idt);
	for (unsigned int i = 0; i < engine->nr_cpus && !err; i++)
		err = take(engine, &engine->cpus[i].desc) ?: take(engine, &engine->cpus[i].stack);
	return err;
}

int kvm_monitor_init(struct kvm_engine *engine, char *why, size_t why_len)
{
	struct monitor *m = &engine->monitor;
	uint64_t *pt;

	ASSERT((size_t)(kvm_stubs_end - kvm_stubs) <= PAGE_SIZE, "the stubs fit their page");
	if (take_frames(engine))
		return why_fail(why, why_len, -ENOMEM, "no frames are left for the monitor");

	memcpy(phys_map(engine->phys, m->code), kvm_stubs, kvm_stubs_end - kvm_stubs);
	fill_idt(phys_map(engine->phys, m->idt));

	table(engine, m->pdpt)[0] = pte(m->pd, PTE_TABLE);
	table(engine, m->pd)[0] = pte(m->pt, PTE_TABLE);
	pt = table(engine, m->pt);
	pt[page_index(MONITOR_CODE)] = pte(m->code, PTE_RX);
	pt[page_index(MONITOR_IDT)] = pte(m->idt, PTE_RO);
	for (unsigned int i = 0; i < engine->nr_cpus; i++) {
		struct kvm_cpu *cpu = &engine->cpus[i];
		char *stack = phys_map(engine->phys, cpu->stack);

		fill_desc(phys_map(engine->phys, cpu->desc), i);
		cpu->frame = (struct monitor_frame *)(stack + PAGE_SIZE) - 1;
		pt[page_index(MONITOR_DESC(i))] = pte(cpu->desc, PTE_RW);
		pt[page_index(MONITOR_STACK(i))] = pte(cpu->stack, PTE_RW);
	}
	return 0;
}

static void give(struct kvm_engine *engine, pfn_t pfn)
{
	if (pfn != INVALID_PFN)
		phys_put(engine->phys, pfn);
}

void kvm_monitor_destroy(struct kvm_engine *engine)
{
	struct monitor *m = &engine->monitor;

	for (unsigned int i = 0; i < engine->nr_cpus; i++) {
		give(engine, engine->cpus[i].desc);
		give(engine, engine->cpus[i].stack);
	}
	give(engine, m->idt);
	give(engine, m->code);
	give(engine, m->pt);
	give(engine, m->pd);
	give(engine, m->pdpt);
}

void kvm_monitor_map(struct kvm_engine *engine, pfn_t root)
{
	table(engine, root)[MONITOR_PML4_SLOT] = pte(engine->monitor.pdpt, PTE_TABLE);
}
