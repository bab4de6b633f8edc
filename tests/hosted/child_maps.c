/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the kernel says of a child, against what the engine says of it. */
#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/mman.h>

#include "tests/hosted/escape.h"

#define VSYSCALL_PAGE 0xffffffffff600000ul

struct mapping {
	uint64_t start, end, offset;
	char rights[8], name[64];
};

/* What is to be at a page: from which file, where in it, with which rights. */
struct page {
	const char *file, *rights;
	uint64_t offset;
};

static bool in_vcpu_area(struct hosted_space *space, uint64_t gva, struct page *page)
{
	unsigned int n = (gva - STUB_VCPU(0)) / STUB_VCPU_SIZE;

	if (gva < STUB_VCPU(0) || n >= STUB_MAX_VCPUS || !(space->started & 1ull << n))
		return false;
	*page = (struct page){"gnomon-ctl", "rw-s", STUB_CTL_VCPU(0) + (gva - STUB_VCPU(0))};
	return true;
}

static bool in_tlb(struct hosted_space *space, uint64_t gva, struct page *page)
{
	static const char *const rights[] = {
		[PROT_READ] = "r--s",
		[PROT_READ | PROT_WRITE] = "rw-s",
		[PROT_READ | PROT_EXEC] = "r-xs",
		[PROT_READ | PROT_WRITE | PROT_EXEC] = "rwxs",
	};

	for (uint32_t i = 0; i < space->tlb.fresh; i++) {
		const struct hosted_entry *entry = &space->tlb.entries[i];

		if (!entry->prot || entry->gva != gva)
			continue;
		*page = (struct page){"gnomon", rights[entry->prot], entry->pfn << PAGE_SHIFT};
		return true;
	}
	return false;
}

static bool expected(struct hosted_space *space, uint64_t gva, struct page *page)
{
	if (gva == STUB_CODE)
		*page = (struct page){"gnomon-stub", "r-xs", 0x1000};
	else if (gva >= STUB_CMD(0) && gva < STUB_CMD(STUB_NR_MAPPERS))
		*page = (struct page){"gnomon-ctl", "r--s", gva - STUB_CMD(0)};
	else
		return in_vcpu_area(space, gva, page) || in_tlb(space, gva, page);
	return true;
}

static void expect_mapping(struct hosted_space *space, const struct mapping *m)
{
	for (uint64_t gva = m->start; gva < m->end; gva += PAGE_SIZE) {
		struct page page = {0};

		if (!expected(space, gva, &page))
			fail("the child has mapped %#" PRIx64 " (%s), which nobody asked for", gva,
			     m->name);
		if (strcmp(m->rights, page.rights) || m->offset + gva - m->start != page.offset ||
		    !strstr(m->name, page.file))
			fail("at %#" PRIx64 " the child has %s of %s at %#" PRIx64
			     ", not %s of %s at %#" PRIx64,
			     gva, m->rights, m->name, m->offset + gva - m->start, page.rights,
			     page.file, page.offset);
	}
}

/* What allows nothing holds a place for the guest's pages, as far as there are none. */
static bool is_reserved(struct hosted_space *space, const struct mapping *m)
{
	return space->reserved && strcmp(m->rights, "---p") == 0 && !strstr(m->name, "memfd") &&
	       m->start >= HOSTED_GVA_FIRST && m->end <= HOSTED_GVA_END;
}

/* No more; and no less, or a fill was lost. Nothing at all is only where a hole is known to be. */
static void expect_mappings(struct hosted_space *space)
{
	uint64_t pages = 0, reserved = 0;
	char path[64], line[256];
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/maps", space->pid);
	f = fopen(path, "re");
	expect(f != NULL);
	while (fgets(line, sizeof(line), f)) {
		struct mapping m = {0};

		expect_ge(sscanf(line, "%" SCNx64 "-%" SCNx64 " %7s %" SCNx64 " %*s %*s %63s",
				 &m.start, &m.end, m.rights, &m.offset, m.name),
			  4);
		if (m.start == VSYSCALL_PAGE)
			continue;
		if (is_reserved(space, &m)) {
			reserved += (m.end - m.start) / PAGE_SIZE;
			continue;
		}
		expect_mapping(space, &m);
		pages += (m.end - m.start) / PAGE_SIZE;
	}
	fclose(f);
	expect_eq(pages,
		  1 + STUB_NR_MAPPERS * (STUB_MAPPER_SIZE / PAGE_SIZE) +
			  __builtin_popcountll(space->started) * (STUB_VCPU_SIZE / PAGE_SIZE) +
			  space->tlb.nr);
	if (space->reserved)
		expect_eq(reserved + space->tlb.nr + space->nr_holes,
			  (HOSTED_GVA_END - HOSTED_GVA_FIRST) / PAGE_SIZE);
}

static void expect_files(struct hosted_space *space)
{
	unsigned int nr = 0;
	char path[64];
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/fd", space->pid);
	dir = opendir(path);
	expect(dir != NULL);
	for (struct dirent *d; (d = readdir(dir));)
		nr += d->d_name[0] != '.';
	closedir(dir);
	expect_eq(nr, 3);
}

void expect_child_intact(struct hosted_space *space)
{
	mutex_lock(&space->lock);
	if (!hosted_wait(space) && hosted_child_alive(space)) {
		expect_mappings(space);
		expect_files(space);
	}
	mutex_unlock(&space->lock);
}
