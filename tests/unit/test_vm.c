/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A guest's life without a CPU: an engine whose vCPU does what the test's script says, on the model
 * machine. So every exit that exits.c knows can be made to happen, and the run loop, the ends of a
 * guest, and the taking down are the real ones.
 */
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <string.h>

#include "guests/lib/boot.h"
#include "notifier/sync/alloc.h"
#include "notifier/sync/wait.h"
#include "tests/model/model.h"
#include "tests/support/test.h"
#include "vmm/vm.h"

#define CODE_GVA 0x100000UL
#define RAM	 (4UL << 20)

/* --- the engine --- */

struct script {
	/* What the vCPU does next: fill in @exit, or return false to wait for a kick. */
	bool (*step)(struct script *script, struct guest_regs *regs, struct engine_exit *exit);
	unsigned int steps; /* taken so far */
	struct vm *vm;
};

struct script_engine {
	struct engine engine;
	struct model_machine *model;
	struct guest_regs regs;
	atomic_t kicked;
	atomic_t waits; /* how often the vCPU went to sleep */
	wait_queue_head_t wq;
};

static struct script script; /* of the test at hand: each runs in its own process */
static int create_error;
static unsigned int live_engines;

static struct script_engine *to_script(struct machine *machine)
{
	return container_of(machine, struct script_engine, engine.machine);
}

static struct machine *inner(struct machine *machine)
{
	return model_to_machine(to_script(machine)->model);
}

static pfn_t alloc_table(struct machine *machine, int level)
{
	return inner(machine)->ops->alloc_table(inner(machine), level);
}

static void free_table(struct machine *machine, pfn_t table)
{
	inner(machine)->ops->free_table(inner(machine), table);
}

static void *map_frame(struct machine *machine, pfn_t pfn)
{
	return inner(machine)->ops->map_frame(inner(machine), pfn);
}

static int shootdown(struct machine *machine, pfn_t *frames, size_t nr)
{
	return inner(machine)->ops->shootdown(inner(machine), frames, nr);
}

static int shootdown_range(struct machine *machine, pfn_t first, size_t nr)
{
	return inner(machine)->ops->shootdown_range(inner(machine), first, nr);
}

static void retire_table(struct machine *machine, pfn_t table)
{
	inner(machine)->ops->retire_table(inner(machine), table);
}

static void load_root(struct machine *machine, unsigned int vcpu, pfn_t root)
{
	inner(machine)->ops->load_root(inner(machine), vcpu, root);
}

static void halt(struct machine *machine, const char *why)
{
	inner(machine)->ops->halt(inner(machine), why);
}

static const struct machine_ops machine_ops = {
	alloc_table,	 free_table,   map_frame, shootdown,
	shootdown_range, retire_table, load_root, halt,
};

static const struct engine_ops script_ops;

static int create(struct engine **enginep, struct phys *phys, unsigned int nr_vcpus, char *why,
		  size_t why_len)
{
	struct script_engine *engine;

	if (create_error) {
		snprintf(why, why_len, "the script says no");
		return create_error;
	}
	engine = kzalloc(sizeof(*engine), GFP_KERNEL);
	expect(engine);
	engine->engine.machine.ops = &machine_ops;
	engine->engine.machine.levels = 4;
	engine->engine.ops = &script_ops;
	engine->model = model_create(phys, nr_vcpus);
	expect(engine->model);
	init_waitqueue_head(&engine->wq);
	*enginep = &engine->engine;
	live_engines++;
	return 0;
}

static void destroy(struct engine *engine)
{
	struct script_engine *se = to_script(&engine->machine);

	model_destroy(se->model);
	kfree(se);
	live_engines--;
}

static int vcpu_init_(struct engine *engine, unsigned int vcpu)
{
	(void)engine;
	expect_eq(vcpu, 0);
	return 0;
}

static struct guest_regs *regs(struct engine *engine, unsigned int vcpu)
{
	(void)vcpu;
	return &to_script(&engine->machine)->regs;
}

static void vcpu_run(struct engine *engine, unsigned int vcpu, struct engine_exit *exit)
{
	struct script_engine *se = to_script(&engine->machine);

	(void)vcpu;
	memset(exit, 0, sizeof(*exit));
	if (script.step(&script, &se->regs, exit)) {
		script.steps++;
		return;
	}
	atomic_inc(&se->waits);
	wake_up_all(&se->wq);
	wait_event(se->wq, atomic_read(&se->kicked));
	atomic_set(&se->kicked, 0);
	exit->kind = ENGINE_EXIT_KICK;
}

static void kick(struct engine *engine, unsigned int vcpu)
{
	struct script_engine *se = to_script(&engine->machine);

	(void)vcpu;
	atomic_set(&se->kicked, 1);
	wake_up_all(&se->wq);
}

static void stats(struct engine *engine, uint64_t *drains, uint64_t *quarantined)
{
	(void)engine;
	*drains = *quarantined = 0;
}

static const struct engine_ops script_ops = {
	.name = "script",
	.create = create,
	.destroy = destroy,
	.vcpu_init = vcpu_init_,
	.regs = regs,
	.vcpu_run = vcpu_run,
	.kick = kick,
	.stats = stats,
};

/* --- a guest of a few bytes --- */

static unsigned int warnings;

static void count_warnings(enum gnomon_log_level level, const char *message, void *arg)
{
	(void)arg;
	fprintf(stderr, "%s\n", message);
	if (level == GNOMON_LOG_WARN)
		warnings++;
}

static struct vm *start(bool (*step)(struct script *script, struct guest_regs *regs,
				     struct engine_exit *exit),
			const char *code, size_t len)
{
	struct vm_config config = {.engine = &script_ops, .ram_bytes = RAM, .seed = 1};
	struct elf_image image = {
		.entry = CODE_GVA,
		.nr_segments = 1,
		.segments = {{.vaddr = CODE_GVA,
			      .paddr = CODE_GVA,
			      .filesz = len,
			      .memsz = len,
			      .data = (const uint8_t *)code,
			      .executable = true}},
	};
	char why[256];
	struct vm *vm;

	gnomon_set_log(count_warnings, NULL);
	script.step = step;
	expect_eq(vm_create(&vm, &config, why, sizeof(why)), 0);
	script.vm = vm;
	expect_eq(vm_boot(vm, &image, why, sizeof(why)), 0);
	expect_eq(vm_start(vm), 0);
	return vm;
}

/* The guest ends by itself, like this; then all is taken down and nothing is left. */
static void finish(struct vm *vm, enum vm_outcome outcome, const char *reason)
{
	struct pollfd done = {.fd = vm->done_fd, .events = POLLIN};

	expect_eq(poll(&done, 1, -1), 1);
	vm_join(vm);
	expect(vm_ended(vm));
	expect_eq(vm->outcome, outcome);
	expect_str_contains(vm->reason, reason);
	expect(!strchr(vm->reason, '\n'));
	vm_destroy(vm);
	expect_eq(live_engines, 0);
	expect_eq(warnings, 0);
}

static bool trap(struct engine_exit *exit, unsigned int vector, uint32_t error_code, gva_t gva)
{
	exit->kind = ENGINE_EXIT_TRAP;
	exit->vector = vector;
	exit->error_code = error_code;
	exit->fault_address = gva;
	return true;
}

#define TRAP_STEP(name, ...)                                                            \
	static bool name(struct script *s, struct guest_regs *r, struct engine_exit *e) \
	{                                                                               \
		(void)s;                                                                \
		(void)r;                                                                \
		return trap(e, __VA_ARGS__);                                            \
	}

/* --- how a guest ends --- */

static bool out_to_exit(struct script *s, struct guest_regs *r, struct engine_exit *e)
{
	(void)s;
	r->gpr[GPR_RAX] = 0x85;
	return trap(e, 13, 0, 0);
}

TEST(vm, exits)
{
	struct vm *vm = start(out_to_exit, "\xe6\xf4", 2); /* out 0xf4, al */
	unsigned int code;

	vm_join(vm);
	code = vm->exit_code;
	expect_eq(code, 5);
	expect_eq(atomic64_read(&vm->vcpus[0].traps), 1);
	finish(vm, VM_EXITED, "");
}

/* Registers as promised; then a fault that is resolved, and the guest goes on. */
static bool faults_then_exits(struct script *s, struct guest_regs *r, struct engine_exit *e)
{
	struct vm *vm = s->vm;

	switch (s->steps) {
	case 0:
		expect_eq(r->rip, CODE_GVA);
		expect_eq(r->gpr[GPR_RSP] % 16, 0);
		expect_eq(r->gpr[GPR_RDI], vm->boot.rdi);
		return trap(e, 14, PFERR_USER | PFERR_FETCH, CODE_GVA);
	case 1:
		return trap(e, 14, PFERR_USER | PFERR_WRITE, BOOT_DIRECT_MAP + RAM - PAGE_SIZE);
	case 2: /* once more: spurious */
		return trap(e, 14, PFERR_USER | PFERR_WRITE | PFERR_PRESENT,
			    BOOT_DIRECT_MAP + RAM - PAGE_SIZE);
	default:
		return trap(e, 13, 0, 0);
	}
}

TEST(vm, faults_are_resolved)
{
	struct vm *vm = start(faults_then_exits, "\xe6\xf4", 2);
	struct shadow_stats shadow;

	vm_join(vm);
	shadow_get_stats(vm->shadow, &shadow);
	expect_eq(shadow.faults, 3);
	expect_eq(atomic64_read(&vm->vcpus[0].traps), 4);
	finish(vm, VM_EXITED, "");
}

TRAP_STEP(gp, 13, 0, 0)

TEST(vm, killed_by_hlt)
{
	finish(start(gp, "\xf4", 1), VM_KILLED, "hlt at 0x100000: halted, and nothing can wake it");
}

TEST(vm, killed_by_what_is_not_emulated)
{
	finish(start(gp, "\x0f\x32", 2), VM_KILLED, "rdmsr (0f 32) at 0x100000");
}

TRAP_STEP(ud, 6, 0, 0)

TEST(vm, killed_by_an_exception)
{
	finish(start(ud, "\x0f\x0b", 2), VM_KILLED,
	       "#UD (invalid opcode), vector 6, error code 0x0, by ud2 (0f 0b) at 0x100000");
}

TRAP_STEP(odd_vector, 31, 0x10, 0)

TEST(vm, killed_by_an_exception_without_a_name)
{
	finish(start(odd_vector, "\x90", 1), VM_KILLED, "exception, vector 31, error code 0x10");
}

TRAP_STEP(write_unmapped, 14, PFERR_USER | PFERR_WRITE, 0x123456)

TEST(vm, killed_by_its_own_tables)
{
	finish(start(write_unmapped, "\x90", 1), VM_KILLED,
	       "#PF by nop (90) at 0x100000 on address 0x123456 (write, not present): the guest "
	       "has no IDT");
}

static bool jump_away(struct script *s, struct guest_regs *r, struct engine_exit *e)
{
	(void)s;
	r->rip = 0x7000;
	return trap(e, 14, PFERR_USER | PFERR_FETCH, 0x7000);
}

TEST(vm, killed_by_a_wild_jump)
{
	finish(start(jump_away, "\x90", 1), VM_KILLED, "0x7000 (instruction fetch, not present)");
}

TRAP_STEP(reserved_bits, 14, PFERR_PRESENT | PFERR_RSVD, 0x5000)

TEST(vm, our_own_bad_entry_is_not_the_guests_fault)
{
	finish(start(reserved_bits, "\x90", 1), VM_INTERNAL, "0x5000");
}

/* A page table of the guest's that points beyond RAM. */
static bool map_beyond_ram(struct script *s, struct guest_regs *r, struct engine_exit *e)
{
	uint64_t entry = (RAM + 0x1000) | 3;
	gpa_t table = s->vm->boot.cr3;

	(void)r;
	/* The first entry of each table on the way leads to the next; gva 0 is nobody's. */
	for (int level = 4; level > 1; level--) {
		uint64_t next;

		expect_eq(shadow_read_gpa(s->vm->shadow, table, &next, sizeof(next)), 0);
		expect(next & 1);
		table = next & 0x000ffffffffff000;
	}
	expect_eq(shadow_write_gpa(s->vm->shadow, table, &entry, sizeof(entry)), 0);
	return trap(e, 14, PFERR_USER, 0x18);
}

TEST(vm, killed_outside_memory)
{
	finish(start(map_beyond_ram, "\x90", 1), VM_KILLED,
	       "nop (90) at 0x100000 on address 0x18: guest physical address 0x401018 (read) is "
	       "neither memory nor a device");
}

/* Every free frame is taken away, then a page of RAM is touched for the first time. */
static pfn_t hoard[1 << 16];
static unsigned int hoarded;

static bool touch_without_frames(struct script *s, struct guest_regs *r, struct engine_exit *e)
{
	pfn_t pfn;

	(void)r;
	while ((pfn = phys_alloc(s->vm->phys)) != INVALID_PFN)
		hoard[hoarded++] = pfn;
	expect(hoarded > 0);
	return trap(e, 14, PFERR_USER | PFERR_WRITE, BOOT_DIRECT_MAP + 0x200000);
}

TEST(vm, killed_without_frames)
{
	struct vm *vm = start(touch_without_frames, "\x90", 1);

	vm_join(vm);
	while (hoarded > 0)
		phys_put(vm->phys, hoard[--hoarded]);
	finish(vm, VM_KILLED, "out of frames");
}

static bool engine_halted(struct script *s, struct guest_regs *r, struct engine_exit *e)
{
	(void)s;
	(void)r;
	e->kind = ENGINE_EXIT_HALTED;
	e->why = "somebody pulled the plug";
	return true;
}

TEST(vm, fails_when_the_machine_is_halted)
{
	finish(start(engine_halted, "\x90", 1), VM_FAILED, "somebody pulled the plug");
}

static bool engine_fails(struct script *s, struct guest_regs *r, struct engine_exit *e)
{
	(void)s;
	(void)r;
	e->kind = ENGINE_EXIT_FAIL;
	e->why = "no such instruction";
	return true;
}

TEST(vm, killed_when_the_engine_cannot_go_on)
{
	finish(start(engine_fails, "\x90", 1), VM_KILLED,
	       "the script engine cannot run it on: no such instruction");
}

static bool host_fails(struct script *s, struct guest_regs *r, struct engine_exit *e)
{
	(void)s;
	(void)r;
	e->kind = ENGINE_EXIT_ERROR;
	e->why = "out of memory";
	return true;
}

TEST(vm, fails_when_the_host_does)
{
	finish(start(host_fails, "\x90", 1), VM_FAILED, "the script engine: out of memory");
}

/* --- what is taken for a while (holes.h) --- */

static struct hole hole;

/* RAM at @gpa is out of reach, and listed as that. */
static void take_away(struct vm *vm, gpa_t gpa)
{
	hva_t hva = VM_RAM_HVA + (gpa & PAGE_MASK);

	expect(hole_open(&vm->holes, &hole, hva, hva + PAGE_SIZE));
	expect_eq(mm_mprotect(vm->mm, hva, PAGE_SIZE, MM_PROT_NONE), 0);
}

static void give_back(struct vm *vm)
{
	expect_eq(mm_mprotect(vm->mm, hole.start, PAGE_SIZE, MM_PROT_READ | MM_PROT_WRITE), 0);
	hole_close(&vm->holes, &hole);
}

/* The vCPU has had the lock of the holes before it waits: with that, all that it did is seen. */
static void wait_for_waits(struct vm *vm, atomic64_t *waits)
{
	while (!atomic64_read(waits))
		sched_yield();
	spin_lock(&vm->holes.lock);
	spin_unlock(&vm->holes.lock);
}

static bool touch_in_a_hole(struct script *s, struct guest_regs *r, struct engine_exit *e)
{
	struct shadow_stats shadow;

	(void)r;
	if (s->steps == 0)
		take_away(s->vm, 0x200000);
	if (s->steps <= 1)
		return trap(e, 14, PFERR_USER | PFERR_WRITE, BOOT_DIRECT_MAP + 0x200000);
	shadow_get_stats(s->vm->shadow, &shadow);
	expect_eq(shadow.faults, 2);
	return trap(e, 13, 0, 0);
}

TEST(vm, waits_for_what_was_taken)
{
	struct vm *vm = start(touch_in_a_hole, "\xe6\xf4", 2);

	wait_for_waits(vm, &vm->holes.nr_waits);
	expect(!vm_ended(vm));
	give_back(vm);
	vm_join(vm);
	expect_eq(atomic64_read(&vm->holes.nr_waits), 1);
	finish(vm, VM_EXITED, "");
}

TEST(vm, stopped_while_it_waits_for_what_was_taken)
{
	struct vm *vm = start(touch_in_a_hole, "\xe6\xf4", 2);

	wait_for_waits(vm, &vm->holes.nr_waits);
	vm_stop(vm, "stopped by %s", "SIGINT");
	vm_join(vm);
	give_back(vm);
	finish(vm, VM_STOPPED, "stopped by SIGINT");
}

/* The instruction that is to be carried out is out of reach. */
static bool trap_in_a_hole(struct script *s, struct guest_regs *r, struct engine_exit *e)
{
	(void)r;
	if (s->steps == 0)
		take_away(s->vm, CODE_GVA);
	return trap(e, 13, 0, 0);
}

TEST(vm, waits_for_an_instruction)
{
	struct vm *vm = start(trap_in_a_hole, "\xe6\xf4", 2);

	wait_for_waits(vm, &vm->holes.nr_waits);
	give_back(vm);
	finish(vm, VM_EXITED, "");
}

/* It is killed all the same, and the reason has the instruction in it. */
static bool exception_in_a_hole(struct script *s, struct guest_regs *r, struct engine_exit *e)
{
	(void)r;
	take_away(s->vm, CODE_GVA);
	return trap(e, 6, 0, 0);
}

TEST(vm, waits_for_an_instruction_to_tell_about)
{
	struct vm *vm = start(exception_in_a_hole, "\x0f\x0b", 2);

	wait_for_waits(vm, &vm->holes.nr_waits);
	give_back(vm);
	finish(vm, VM_KILLED, "by ud2 (0f 0b) at 0x100000");
}

static bool touch_what_is_gone(struct script *s, struct guest_regs *r, struct engine_exit *e)
{
	(void)r;
	expect_eq(mm_munmap(s->vm->mm, VM_RAM_HVA + 0x200000, PAGE_SIZE), 0);
	return trap(e, 14, PFERR_USER | PFERR_WRITE, BOOT_DIRECT_MAP + 0x200008);
}

TEST(vm, what_nobody_has_taken_is_our_mistake)
{
	finish(start(touch_what_is_gone, "\x90", 1), VM_INTERNAL,
	       "guest address 0x400000200008 is in a memslot, but the host's address space does "
	       "not allow the access at 0x100000200000");
}

/* As killed_without_frames, but somebody has them who will give them back. */
static bool touch_while_hoarded(struct script *s, struct guest_regs *r, struct engine_exit *e)
{
	if (s->steps == 0) {
		expect(hoard_begin(&s->vm->holes));
		return touch_without_frames(s, r, e);
	}
	if (s->steps == 1)
		return trap(e, 14, PFERR_USER | PFERR_WRITE, BOOT_DIRECT_MAP + 0x200000);
	return trap(e, 13, 0, 0);
}

TEST(vm, waits_for_frames)
{
	struct vm *vm = start(touch_while_hoarded, "\xe6\xf4", 2);

	wait_for_waits(vm, &vm->holes.nr_memory_waits);
	expect(hoard_wanted(&vm->holes));
	while (hoarded > 0)
		phys_put(vm->phys, hoard[--hoarded]);
	hoard_end(&vm->holes);
	finish(vm, VM_EXITED, "");
}

/* --- ends from outside --- */

static bool sleeps(struct script *s, struct guest_regs *r, struct engine_exit *e)
{
	(void)s;
	(void)r;
	(void)e;
	return false;
}

static void wait_until_asleep(struct vm *vm)
{
	struct script_engine *se = to_script(&vm->engine->machine);

	wait_event(se->wq, atomic_read(&se->waits) > 0);
}

TEST(vm, stopped_while_it_runs)
{
	struct vm *vm = start(sleeps, "\x90", 1);

	wait_until_asleep(vm);
	expect(!vm_ended(vm));
	vm_stop(vm, "stopped by %s", "SIGINT");
	finish(vm, VM_STOPPED, "stopped by SIGINT");
}

TEST(vm, a_kick_without_cause_changes_nothing)
{
	struct vm *vm = start(sleeps, "\x90", 1);
	struct script_engine *se = to_script(&vm->engine->machine);

	wait_until_asleep(vm);
	vcpu_kick(&vm->vcpus[0]);
	wait_event(se->wq, atomic_read(&se->waits) > 1);
	expect(!vm_ended(vm));
	vm_kill(vm, "enough");
	finish(vm, VM_KILLED, "enough");
}

TEST(vm, the_first_reason_wins)
{
	struct vm *vm = start(sleeps, "\x90", 1);

	wait_until_asleep(vm);
	vm_kill(vm, "first %d", 1);
	vm_stop(vm, "second");
	vm_exit(vm, 3);
	vm_fail(vm, VM_FAILED, "fourth");
	expect_eq(vm->exit_code, 0);
	expect_str_eq(vm->reason, "first 1");
	finish(vm, VM_KILLED, "first 1");
}

/* It ends before its vCPU has run at all. */
TEST(vm, stopped_at_once)
{
	for (int i = 0; i < 100; i++) {
		struct vm *vm = start(sleeps, "\x90", 1);

		vm_stop(vm, "never mind");
		finish(vm, VM_STOPPED, "never mind");
	}
}

static bool polls_the_stop_port(struct script *s, struct guest_regs *r, struct engine_exit *e)
{
	if (s->steps > 0 && (r->gpr[GPR_RAX] & 0xff) == 1) {
		r->rip = CODE_GVA + 2;
		r->gpr[GPR_RAX] = 0;
	} else {
		r->rip = CODE_GVA;
	}
	return trap(e, 13, 0, 0);
}

TEST(vm, asked_to_stop)
{
	/* in al, 0xf5; out 0xf4, al */
	struct vm *vm = start(polls_the_stop_port, "\xe4\xf5\xe6\xf4", 4);

	vm_ask_to_stop(vm);
	finish(vm, VM_EXITED, "");
}

/* --- what cannot be made --- */

TEST(vm, create_undoes_what_it_did)
{
	struct vm_config config = {.engine = &script_ops, .ram_bytes = RAM};
	char why[256];
	struct vm *vm;

	gnomon_set_log(count_warnings, NULL);
	create_error = -EACCES;
	expect_eq(vm_create(&vm, &config, why, sizeof(why)), -ENODEV);
	expect_str_eq(why, "the script says no");
	create_error = -ENOMEM;
	expect_eq(vm_create(&vm, &config, why, sizeof(why)), -ENOMEM);
	create_error = 0;

	config.ram_bytes = 0;
	expect_eq(vm_create(&vm, &config, why, sizeof(why)), -EINVAL);
	config.ram_bytes = VM_MIN_RAM + 1;
	expect_eq(vm_create(&vm, &config, why, sizeof(why)), -EINVAL);
	expect_eq(live_engines, 0);
	expect_eq(warnings, 0);
}

TEST(vm, an_image_that_does_not_fit)
{
	struct vm_config config = {.engine = &script_ops, .ram_bytes = VM_MIN_RAM};
	struct elf_image image = {
		.entry = CODE_GVA,
		.nr_segments = 1,
		.segments = {{.vaddr = CODE_GVA,
			      .paddr = VM_MIN_RAM,
			      .filesz = 1,
			      .memsz = 1,
			      .data = (const uint8_t *)"\x90",
			      .executable = true}},
	};
	char why[256];
	struct vm *vm;

	gnomon_set_log(count_warnings, NULL);
	expect_eq(vm_create(&vm, &config, why, sizeof(why)), 0);
	expect_eq(vm_boot(vm, &image, why, sizeof(why)), -ENOEXEC);
	vm_destroy(vm);
	expect_eq(live_engines, 0);
	expect_eq(warnings, 0);
}

TEST(vm, pool_and_ram_sizes_fit_each_other)
{
	static const uint64_t sizes[] = {1, 2, 3, 63, 64, 65, 1000, 4096, 1 << 20};

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		uint64_t ram = sizes[i] << 20, pool = vm_pool_frames(ram) << PAGE_SHIFT;

		expect_eq(vm_max_ram(pool), ram);
		expect_eq(vm_max_ram(pool - 1), ram - (1 << 20));
		/* Room to migrate: an eighth of RAM beyond everything else. */
		expect_ge(vm_pool_frames(ram), (ram + ram / 8) >> PAGE_SHIFT);
	}
	expect_eq(vm_max_ram(0), 0);
}
