/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The shadow tables as people read them.
 *
 * Nobody is made to wait for a terminal: what is there is copied under mmu_lock, in rows that are
 * small and of one size, and made text when it is dropped. How many rows there will be is known
 * when they are counted: if they do not fit, that was the count.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#include "shadow/inspect.h"

#include "notifier/sync/alloc.h"

#define FIRST_ROWS 256
#define NR_BITS	   64

void line_add(struct line *line, const char *fmt, ...)
{
	size_t room = sizeof(line->text) - line->len;
	va_list ap;
	int len;

	va_start(ap, fmt);
	len = vsnprintf(line->text + line->len, room, fmt, ap);
	va_end(ap);
	if (len > 0)
		line->len += (size_t)len < room ? (size_t)len : room - 1;
}

void line_add_rights(struct line *line, spte_t spte)
{
	line_add(line, "r%c%c%s", spte & SPTE_WRITE ? 'w' : '-', spte & SPTE_NX ? '-' : 'x',
		 spte_walkable(spte) ? "" : " tracked");
}

void line_add_access(struct line *line, unsigned int access)
{
	line_add(line, "%c%c%c", access & ACC_WRITE ? 'w' : '-', access & ACC_USER ? 'u' : '-',
		 access & ACC_EXEC ? 'x' : '-');
}

void line_add_view(struct line *line, struct shadow_role view)
{
	line_add(line, "%s%s%s%s%s", view.user ? "user" : "supervisor", view.wp ? " wp" : "",
		 view.nxe ? " nx" : "", view.smep ? " smep" : "", view.smap ? " smap" : "");
	if (view.pke)
		line_add(line, " pkru %#x", (unsigned int)view.pkru);
}

void line_add_vcpus(struct line *line, uint64_t vcpus)
{
	if (vcpus)
		line_add(line, ", vCPU");
	for (unsigned int i = 0; i < NR_BITS; i++) {
		if (vcpus & (1UL << i))
			line_add(line, " %u", i);
	}
}

uint64_t root_vcpus(const struct shadow *shadow, const struct shadow_page *root)
{
	uint64_t vcpus = 0;

	for (unsigned int i = 0; i < shadow->nr_vcpus && i < NR_BITS; i++) {
		if (shadow->vcpu[i].root == root)
			vcpus |= 1UL << i;
	}
	return vcpus;
}

/* A table, or leaves that follow each other, or an entry of the machine's own. */
struct row {
	enum { ROW_TABLE, ROW_LEAVES, ROW_RESERVED } kind;
	struct shadow_role role; /* of the table, or of that which has the entry */
	gva_t gva;
	uint64_t pages; /* that are mapped, from gva on */
	gfn_t gfn;	/* of the table, or of the first page */
	pfn_t pfn;	/* the same */
	spte_t spte;	/* of leaves: the first */
	uint64_t vcpus; /* of a root */
	bool unsync;	/* of a table */
};

struct rows {
	struct shadow *shadow;
	struct row *row;
	size_t nr, max; /* nr may be more: then the rest is only counted */
};

static void add_row(struct rows *rows, const struct row *row)
{
	if (rows->nr < rows->max)
		rows->row[rows->nr] = *row;
	rows->nr++;
}

/* The page after the last one of @row, as @next, which has one? */
static bool continues(const struct row *row, const struct row *next)
{
	const spte_t rights = SPTE_WRITE | SPTE_NX | SPTE_PRESENT;

	return row->pages && row->gva + (row->pages << PAGE_SHIFT) == next->gva &&
	       row->gfn + row->pages == next->gfn && row->pfn + row->pages == next->pfn &&
	       (row->spte & rights) == (next->spte & rights);
}

static void add_leaves(struct rows *rows, const struct shadow_page *sp, gva_t gva)
{
	struct row run = {.pages = 0};

	for (unsigned int i = 0; i < TABLE_ENTRIES; i++) {
		spte_t spte = READ_ONCE(sp->spt[i]);
		struct row leaf = {
			.kind = ROW_LEAVES,
			.role = sp->role,
			.gva = gva + ((gva_t)i << PAGE_SHIFT),
			.pages = 1,
			.gfn = sp->gfns[i],
			.pfn = spte_pfn(spte),
			.spte = spte,
		};

		if (!spte_present(spte))
			continue;
		if (continues(&run, &leaf)) {
			run.pages++;
			continue;
		}
		if (run.pages)
			add_row(rows, &run);
		run = leaf;
	}
	if (run.pages)
		add_row(rows, &run);
}

/* A huge leaf, which may follow the one of the last row. */
static void add_huge(struct rows *rows, const struct shadow_page *sp, unsigned int index, gva_t gva)
{
	spte_t spte = READ_ONCE(sp->spt[index]);
	const struct row leaf = {
		.kind = ROW_LEAVES,
		.role = sp->role,
		.gva = gva,
		.pages = table_pages(HUGE_LEVEL - 1),
		.gfn = sp->gfns[index],
		.pfn = spte_pfn(spte),
		.spte = spte,
	};
	struct row *last = rows->nr && rows->nr <= rows->max ? &rows->row[rows->nr - 1] : NULL;

	if (last && last->kind == ROW_LEAVES && last->role.word == leaf.role.word &&
	    continues(last, &leaf))
		last->pages += leaf.pages;
	else
		add_row(rows, &leaf);
}

/* Addresses above the middle have the bits above their own set. */
static gva_t canonical(const struct shadow *shadow, gva_t gva)
{
	unsigned int unused = 64 - PAGE_SHIFT - 9 * shadow->machine->levels;

	return (int64_t)(gva << unused) >> unused;
}

/* As deep as there are levels. */
static void add_table(struct rows *rows, const struct shadow_page *sp, gva_t gva)
{
	struct shadow *shadow = rows->shadow;
	struct row row = {
		.kind = ROW_TABLE,
		.role = sp->role,
		.gva = gva,
		.gfn = sp->gfn,
		.pfn = sp->table,
		.vcpus = root_vcpus(shadow, sp),
		.unsync = sp->unsync && !sp->role.direct,
	};
	uint64_t step = table_pages(sp->role.level - 1) << PAGE_SHIFT;

	add_row(rows, &row);
	if (sp->role.level == 1) {
		add_leaves(rows, sp, gva);
		return;
	}
	for (unsigned int i = 0; i < TABLE_ENTRIES; i++) {
		spte_t spte = READ_ONCE(sp->spt[i]);
		gva_t at = canonical(shadow, gva + i * step);

		if (spte_present(spte) && spte_is_leaf(spte, sp->role.level)) {
			add_huge(rows, sp, i, at);
		} else if (spte_present(spte)) {
			add_table(rows, spte_to_child(shadow, spte), at);
		} else if (spte & SPTE_PRESENT) {
			row = (struct row){.kind = ROW_RESERVED,
					   .role = sp->role,
					   .gva = at,
					   .pages = step >> PAGE_SHIFT};
			add_row(rows, &row);
		}
	}
}

static void collect(struct rows *rows)
{
	struct shadow *shadow = rows->shadow;
	const struct shadow_page *sp;

	rows->nr = 0;
	spin_lock(&shadow->mmu_lock);
	list_for_each_entry(sp, &shadow->pages, link) {
		if (sp->root_count)
			add_table(rows, sp, 0);
	}
	spin_unlock(&shadow->mmu_lock);
}

static void format_row(struct line *line, const struct row *row, int levels)
{
	int depth = levels - row->role.level + (row->kind != ROW_TABLE);
	bool root = row->kind == ROW_TABLE && !depth;

	line_add(line, "%*s", 2 * depth, "");
	if (row->kind != ROW_TABLE)
		line_add(line, "0x%016lx-0x%016lx", row->gva,
			 row->gva + (row->pages << PAGE_SHIFT) - 1);
	else if (!root)
		line_add(line, "level %u 0x%016lx", row->role.level, row->gva);
	else
		line_add(line, "root");
	if (row->kind == ROW_RESERVED) {
		line_add(line, " the machine's own");
		return;
	}
	if (row->gfn == INVALID_GFN)
		line_add(line, " of no memory,");
	else
		line_add(line, " gfn %#lx", row->gfn);
	if (row->pages > 1)
		line_add(line, "-%#lx", row->gfn + row->pages - 1);
	line_add(line, " frame %#lx", row->pfn);
	if (row->pages > 1)
		line_add(line, "-%#lx", row->pfn + row->pages - 1);
	line_add(line, root ? ", " : " ");
	if (row->kind == ROW_LEAVES)
		line_add_rights(line, row->spte);
	else if (root)
		line_add_view(line, row->role);
	else
		line_add_access(line, row->role.access);
	if (row->kind == ROW_LEAVES && row->role.level == HUGE_LEVEL)
		line_add(line, " 2 MiB each");
	if (row->kind == ROW_TABLE && row->role.direct)
		line_add(line, " direct%s", row->role.dirty ? " dirty" : "");
	if (row->kind == ROW_TABLE && row->role.pkey)
		line_add(line, " key %u", row->role.pkey);
	if (row->unsync)
		line_add(line, " unsync");
	line_add_vcpus(line, row->vcpus);
	if (root && !row->vcpus)
		line_add(line, ", kept");
}

int shadow_dump(struct shadow *shadow, shadow_emit_t emit, void *arg)
{
	struct rows rows = {.shadow = shadow};
	size_t wanted = FIRST_ROWS;
	uint64_t tables = 0, pages = 0;
	struct line line;

	do {
		kvfree(rows.row, rows.max * sizeof(*rows.row));
		rows.max = wanted;
		rows.row = kvcalloc(rows.max, sizeof(*rows.row), GFP_KERNEL);
		if (!rows.row)
			return -ENOMEM;
		collect(&rows);
		/* Some more, as tables come while we allocate. */
		wanted = rows.nr + rows.nr / 4;
	} while (rows.nr > rows.max);

	for (size_t i = 0; i < rows.nr; i++) {
		const struct row *row = &rows.row[i];

		tables += row->kind == ROW_TABLE;
		pages += row->kind == ROW_LEAVES ? row->pages : 0;
		line.len = 0;
		format_row(&line, row, shadow->machine->levels);
		emit(arg, line.text);
	}
	kvfree(rows.row, rows.max * sizeof(*rows.row));
	line.len = 0;
	line_add(&line, "tables: %lu, pages: %lu", tables, pages);
	emit(arg, line.text);
	return 0;
}
