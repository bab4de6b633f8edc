/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The stages of mmu_stress.h on the model machine. */
#include "tests/support/mmu_stress.h"

#include "tests/model/model.h"

static void init(struct stress *s, unsigned int cpu)
{
	(void)s;
	(void)cpu;
}

static enum ret_pf store(struct stress *s, unsigned int cpu, gva_t gva, uint64_t value)
{
	struct model_access access = {.op = MODEL_STORE, .gva = gva, .value = value};

	return model_access_retry(s->machine_arg, cpu, s->shadow, &access);
}

static enum ret_pf load(struct stress *s, unsigned int cpu, gva_t gva, uint64_t *value)
{
	struct model_access access = {.op = MODEL_LOAD, .gva = gva};
	enum ret_pf pf = model_access_retry(s->machine_arg, cpu, s->shadow, &access);

	*value = access.value;
	return pf;
}

static enum ret_pf storm(struct stress *s, unsigned int cpu, uint64_t value)
{
	for (unsigned int page = 0;; page = (page + 1) % STRESS_PAGES) {
		enum ret_pf pf = store(s, cpu, stress_gva(page, cpu), value++);

		if (pf != RET_PF_FIXED)
			return pf;
	}
}

static const struct stress_ops ops = {.init = init, .store = store, .load = load, .storm = storm};

static void run(bool broken)
{
	static struct stress s;
	struct model_machine *m;

	s.ops = &ops;
	expect_eq(phys_create(&s.phys, 1000), 0);
	m = model_create(s.phys, STRESS_CPUS);
	expect(m);
	s.machine_arg = m;
	if (broken)
		stress_broken(&s, model_to_machine(m));
	else
		stress_all(&s, model_to_machine(m), test_long() ? 500 : 20);
	model_destroy(m);
	expect_eq(phys_nr_free(s.phys), phys_nr_frames(s.phys));
	phys_destroy(s.phys);
}

TEST(mmu_stress, stages)
{
	run(false);
}

TEST(mmu_stress, late_stores_without_shootdown)
{
	run(true);
}
