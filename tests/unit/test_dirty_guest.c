/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * T-06 on a real vCPU: tests/guests/epochs.c writes the number of the epoch to random pages of its
 * RAM, and a device does, while pages are collected and chaos moves all of RAM. The judge is
 * tests/support/dirty_judge.h, and has no exceptions here either: the guest stops by itself between
 * two epochs, so no store is ever caught in its middle.
 */
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>

#include "notifier/sync/thread.h"
#include "shadow/shadow_internal.h"
#include "tests/guests/epochs.h"
#include "tests/support/dirty_judge.h"
#include "tests/support/usable_engine.h"
#include "vmm/chaos.h"
#include "vmm/elf.h"
#include "vmm/vm.h"

#define RAM	       (4UL << 20)
#define DEVICE_STORES  20
#define MIGRATE_OPS    2000
#define MAX_IMAGE_SIZE (256 * 1024)

_Static_assert(EPOCHS_FIRST == JUDGE_FIRST && EPOCHS_PAGES == JUDGE_PAGES, "of one mind");

struct run {
	struct vm *vm;
	struct chaos *chaos;
	struct judge judge;
	struct kthread device;
	atomic64_t epoch;
	atomic_t device_done, stop;
};

static uint8_t image[MAX_IMAGE_SIZE];

static void parse_image(struct elf_image *elf)
{
	const char *build = getenv("GNOMON_BUILD");
	char path[512], why[256];
	FILE *file;
	size_t len;

	if (!build)
		skip("GNOMON_BUILD does not say where the test guests are");
	snprintf(path, sizeof(path), "%s/tests/guests/epochs.elf", build);
	file = fopen(path, "rb");
	if (!file)
		fail("there is no %s", path);
	len = fread(image, 1, sizeof(image), file);
	fclose(file);
	expect_le(len, sizeof(image) - 1);
	if (elf_parse(image, len, elf, why, sizeof(why)))
		fail("%s: %s", path, why);
}

static void control_write(struct run *r, unsigned int n, uint64_t word)
{
	expect_eq(shadow_write_gpa(r->vm->shadow, EPOCHS_CONTROL + n * sizeof(word), &word,
				   sizeof(word)),
		  0);
}

static uint64_t control_read(struct run *r, unsigned int n)
{
	uint64_t word = 0;

	expect_eq(shadow_read_gpa(r->vm->shadow, EPOCHS_CONTROL + n * sizeof(word), &word,
				  sizeof(word)),
		  0);
	return word;
}

static void run_device(void *arg)
{
	struct run *r = arg;
	uint64_t epoch = 0, random = 3;

	while (!atomic_read(&r->stop)) {
		uint64_t next = (uint64_t)atomic64_read_acquire(&r->epoch);

		if (next == epoch) {
			sched_yield();
			continue;
		}
		epoch = next;
		for (uint64_t n = 0; n < DEVICE_STORES; n++) {
			uint64_t began = judge_store_begins(&r->judge);
			uint64_t word = epoch << JUDGE_EPOCH_SHIFT | n << 2 | 1;
			unsigned int page;

			random = random * 6364136223846793005 + 1442695040888963407;
			page = (random >> 33) % JUDGE_PAGES;
			expect_eq(shadow_write_gpa(r->vm->shadow, judge_gpa(page), &word,
						   sizeof(word)),
				  0);
			judge_store_is_over(&r->judge, page, began);
		}
		atomic_set_release(&r->device_done, 1);
	}
}

static void start_chaos(struct run *r)
{
	struct chaos_target target = {
		.mm = r->vm->mm,
		.ram = r->vm->ram,
		.hva = VM_RAM_HVA,
		.nr_pages = RAM >> PAGE_SHIFT,
		.away = VM_AWAY_HVA,
		.holes = &r->vm->holes,
	};
	struct chaos_plan plan = {.rate = {[CHAOS_MIGRATE] = MIGRATE_OPS}};

	expect_eq(chaos_start(&r->chaos, &target, &plan, 5), 0);
}

static void start_run(struct run *r, enum judge_mode mode, unsigned int broken)
{
	struct vm_config config = {.engine = usable_engine(),
				   .ram_bytes = RAM,
				   .seed = 11 + mode,
				   .broken = broken};
	struct elf_image elf;
	char why[384] = "";

	parse_image(&elf);
	if (vm_create(&r->vm, &config, why, sizeof(why)) || vm_boot(r->vm, &elf, why, sizeof(why)))
		fail("%s", why);
	atomic64_set(&r->epoch, 0);
	atomic_set(&r->stop, 0);
	judge_init(&r->judge, r->vm->shadow, mode, RAM >> PAGE_SHIFT, VM_MAX_VCPUS);
	expect_eq(vm_log_dirty(r->vm), 0);
	judge_begin(&r->judge);
	expect_eq(vm_start(r->vm), 0);
	if (!broken)
		start_chaos(r);
	expect_eq(kthread_run(&r->device, "device", run_device, r), 0);
}

static void one_epoch(struct run *r, uint64_t epoch)
{
	uint64_t calls = 0;

	control_write(r, EPOCHS_CALLS, 0);
	atomic_set(&r->device_done, 0);
	control_write(r, EPOCHS_EPOCH, epoch);
	atomic64_set_release(&r->epoch, (int64_t)epoch);
	while (control_read(r, EPOCHS_DONE) != epoch || !atomic_read_acquire(&r->device_done)) {
		judge_collect(&r->judge, true);
		control_write(r, EPOCHS_CALLS, ++calls);
		if (vm_ended(r->vm))
			fail("the guest ended: %s", r->vm->reason);
		sched_yield();
	}
	judge_epoch(&r->judge, epoch);
}

static void end_run(struct run *r)
{
	atomic64_add((int64_t)control_read(r, EPOCHS_COUNT), &r->judge.stores);
	control_write(r, EPOCHS_EPOCH, EPOCHS_END);
	/* Its last stores want room, too. */
	while (!vm_ended(r->vm)) {
		judge_collect(&r->judge, false);
		sched_yield();
	}
	atomic_set(&r->stop, 1);
	kthread_join(&r->device);
	vm_join(r->vm);
	expect_eq(r->vm->outcome, VM_EXITED);
	expect_eq(r->vm->exit_code, 0);
}

static void epochs(enum judge_mode mode)
{
	const uint64_t nr = test_long() ? 500 : 30;
	struct chaos_counts counts;
	const char *wrong;
	struct run r = {0};

	start_run(&r, mode, 0);
	for (uint64_t epoch = 1; epoch <= nr; epoch++)
		one_epoch(&r, epoch);
	end_run(&r);
	chaos_stop(r.chaos);
	chaos_get_counts(r.chaos, CHAOS_MIGRATE, &counts);
	chaos_destroy(r.chaos);
	wrong = judge_verdict(&r.judge, nr, nr * (EPOCHS_STORES + DEVICE_STORES),
			      nr * EPOCHS_BESIDE);
	if (wrong)
		fail("%s", wrong);
	expect_ge(counts.pages_migrated, nr);
	vm_destroy(r.vm);
}

TEST(dirty_guest, bitmap)
{
	epochs(JUDGE_BITMAP);
}

TEST(dirty_guest, manual_protect)
{
	epochs(JUDGE_MANUAL);
}

TEST(dirty_guest, initially_set)
{
	epochs(JUDGE_INITIALLY_SET);
}

TEST(dirty_guest, ring)
{
	epochs(JUDGE_RING);
}

/* The real CPU keeps its translations where nobody takes them: stores are missed. */
TEST(dirty_guest, planted_without_shootdown)
{
	struct run r = {0};

	start_run(&r, JUDGE_BITMAP, SHADOW_BREAK_SHOOTDOWN);
	for (uint64_t epoch = 1; epoch <= 10; epoch++)
		one_epoch(&r, epoch);
	end_run(&r);
	expect_ge(r.judge.missed, 1);
	expect(judge_verdict(&r.judge, 0, 0, 0));
	vm_destroy(r.vm);
}

/* A vCPU that waits for room goes when the guest is to end, though nobody makes any. */
TEST(dirty_guest, ended_while_it_waits)
{
	struct run r = {0};

	start_run(&r, JUDGE_RING, 0);
	control_write(&r, EPOCHS_EPOCH, 1);
	/* Nobody collects: the 65th page is one too many. */
	while (!READ_ONCE(r.vm->shadow->ring_wait.waiters))
		sched_yield();
	vm_stop(r.vm, "enough");
	vm_join(r.vm);
	expect_eq(r.vm->outcome, VM_STOPPED);
	atomic_set(&r.stop, 1);
	kthread_join(&r.device);
	chaos_stop(r.chaos);
	chaos_destroy(r.chaos);
	vm_destroy(r.vm);
}
