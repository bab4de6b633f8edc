/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The families of cases. A family is a function that takes digits from the case's number, one per
 * property, and so is a product of all values of these properties; it is multiplied by the shapes
 * of a translation (4 or 5 levels, 4 KiB, 2 MiB or 1 GiB). The product of everything with
 * everything has no end: each family varies what may act together, and `random` varies the rest.
 *
 *   rights   R/W, U/S, XD of the leaf and of one level above it, all controls, keys
 *   ends     not present and reserved bits, at two levels at a time
 *   marks    A and D as they were before, in all levels; with walks that end early
 *   keys     every key, every right of PKRU
 *   ignored  bits that mean nothing
 *   address  canonical or not
 *   width    reserved bits for CPUs of other physical widths
 *   random   all entries and all controls drawn by a fixed generator
 */
#include "tests/paging/paging_cases.h"

#include <stdio.h>
#include <string.h>

#define FULL (SDM_P | SDM_RW | SDM_US)

/* Indices that differ from level to level; in large pages, low enough for a small memory. */
#define ADDRESS (1ull << 48 | 0x55ull << 39 | 0x12ull << 30 | 1ull << 21 | 0x1c4ull << 12 | 0x5a8)

struct digits {
	uint64_t n, product;
};

/* The next digit, of @radix values. A family takes the same digits whatever their values. */
static unsigned int digit(struct digits *d, unsigned int radix)
{
	unsigned int value = d->n % radix;

	d->n /= radix;
	d->product *= radix;
	return value;
}

/* A digit per flag of @mask. */
static uint64_t flags(struct digits *d, uint64_t mask)
{
	uint64_t value = 0;

	for (uint64_t bit = mask & -mask; mask; mask &= ~bit, bit = mask & -mask)
		if (digit(d, 2))
			value |= bit;
	return value;
}

static void any_access(struct digits *d, struct paging_case *c)
{
	static const struct sdm_access accesses[] = {
		{.mode = SDM_USER, .kind = SDM_READ},
		{.mode = SDM_USER, .kind = SDM_WRITE},
		{.mode = SDM_USER, .kind = SDM_FETCH},
		{.mode = SDM_SUPERVISOR, .kind = SDM_READ},
		{.mode = SDM_SUPERVISOR, .kind = SDM_WRITE},
		{.mode = SDM_SUPERVISOR, .kind = SDM_FETCH},
		{.mode = SDM_IMPLICIT, .kind = SDM_READ},
		{.mode = SDM_IMPLICIT, .kind = SDM_WRITE},
	};
	unsigned int i = digit(d, 8);

	c->access.mode = accesses[i].mode;
	c->access.kind = accesses[i].kind;
}

static void every_control(struct digits *d, struct paging_case *c)
{
	c->cpu.wp = digit(d, 2);
	c->cpu.smep = digit(d, 2);
	c->cpu.smap = digit(d, 2);
	c->cpu.pke = digit(d, 2);
	c->cpu.nxe = digit(d, 2);
	c->cpu.ac = digit(d, 2);
}

/* NXE, and all others together: where controls are not the question. */
static void some_controls(struct digits *d, struct paging_case *c)
{
	c->cpu.nxe = digit(d, 2);
	c->cpu.wp = c->cpu.smep = c->cpu.smap = c->cpu.pke = digit(d, 2);
	c->cpu.ac = false;
}

static int any_level(struct digits *d, const struct paging_case *c)
{
	return c->leaf + digit(d, c->top - c->leaf + 1);
}

/* --- the families -------------------------------------------------------------------------------
 */

#define SOME_KEY 11

static bool rights(struct digits *d, struct paging_case *c)
{
	int above = c->leaf + 1 + digit(d, c->top - c->leaf);
	const uint64_t what = SDM_RW | SDM_US | SDM_XD;

	every_control(d, c);
	any_access(d, c);
	c->entry[c->leaf] = (c->entry[c->leaf] & ~what) | flags(d, what) | SDM_KEY(SOME_KEY);
	c->entry[above] = (c->entry[above] & ~what) | flags(d, what);
	/* Keys act by the leaf alone: with four levels is enough. */
	if (c->top == SDM_PML4E)
		c->cpu.pkru = digit(d, 4) << (2 * SOME_KEY);
	return true;
}

/* Ways in which a level can end the walk. False: not this level, and nothing is changed. */
enum { NR_ENDS = 7 };

static bool end_at(struct paging_case *c, int level, unsigned int how)
{
	uint64_t *entry = &c->entry[level];
	uint64_t lowest = 1ull << 13, highest = 1ull << (11 + 9 * (level - 1));

	switch (how) {
	case 0: /* nothing there */
		*entry = 0;
		return true;
	case 1: /* not present, with every other bit set */
		*entry = ~SDM_P;
		return true;
	case 2: /* the lowest address bit that the CPU does not have, and the highest */
		if (c->cpu.maxphyaddr >= 52)
			return false;
		*entry |= 1ull << c->cpu.maxphyaddr;
		return true;
	case 3:
		if (c->cpu.maxphyaddr >= 51)
			return false;
		*entry |= 1ull << 51;
		return true;
	case 4: /* reserved only without NXE */
		*entry |= SDM_XD;
		return true;
	case 5: /* no page of this size */
		if (level < SDM_PML4E)
			return false;
		*entry |= SDM_PS;
		return true;
	case 6: /* a page that is not aligned */
		if (level != c->leaf || level == SDM_PTE)
			return false;
		*entry |= c->number % 2 ? lowest : highest;
		return true;
	}
	return false;
}

static bool ends(struct digits *d, struct paging_case *c)
{
	int level = any_level(d, c);
	unsigned int how = digit(d, NR_ENDS);
	int other = any_level(d, c);
	unsigned int other_how = digit(d, NR_ENDS);

	some_controls(d, c);
	any_access(d, c);
	/* Rights come last: whatever the root forbids must not show before the walk is through. */
	if (digit(d, 2))
		c->entry[c->top] &= ~(SDM_RW | SDM_US);
	if (other > level)
		return false;
	if (other == level) /* one end only */
		return how == other_how && end_at(c, level, how);
	return end_at(c, level, how) && end_at(c, other, other_how);
}

static bool marks(struct digits *d, struct paging_case *c)
{
	unsigned int how = digit(d, 3);
	int level = any_level(d, c);

	for (int l = c->top; l >= c->leaf; l--)
		c->entry[l] = (c->entry[l] & ~SDM_A) | flags(d, SDM_A);
	c->entry[c->leaf] = (c->entry[c->leaf] & ~(SDM_D | SDM_RW | SDM_US)) |
			    flags(d, SDM_D | SDM_RW | SDM_US);
	c->cpu.wp = digit(d, 2);
	any_access(d, c);
	if (how == 1)
		c->entry[level] &= ~SDM_P;
	if (how == 2)
		c->entry[level] |= SDM_XD; /* NXE is 0 */
	return how || level == c->leaf;
}

static bool keys(struct digits *d, struct paging_case *c)
{
	unsigned int key = digit(d, 16);
	unsigned int right = digit(d, 4);
	uint64_t above = digit(d, 2) ? SDM_KEY(key ^ 5) : 0;

	/* All other keys have the opposite rights. */
	c->cpu.pkru = (right ? 0 : ~0u) & ~(3u << (2 * key));
	c->cpu.pkru |= right << (2 * key);
	c->cpu.wp = digit(d, 2);
	c->cpu.pke = digit(d, 2);
	c->cpu.smap = digit(d, 2);
	c->cpu.ac = digit(d, 2);
	any_access(d, c);
	c->entry[c->leaf] =
		(c->entry[c->leaf] & ~(SDM_RW | SDM_US)) | SDM_KEY(key) | flags(d, SDM_RW | SDM_US);
	for (int l = c->top; l > c->leaf; l--)
		c->entry[l] |= above;
	return c->top == SDM_PML4E;
}

static bool ignored(struct digits *d, struct paging_case *c)
{
	static const unsigned char bit[] = {3,	4,  6,	7,  8,	9,  10, 11, 12, 52,
					    53, 54, 55, 56, 57, 58, 59, 60, 61, 62};
	int level = any_level(d, c);
	unsigned int b = bit[digit(d, sizeof(bit))];
	bool leaf = level == c->leaf;

	c->cpu.nxe = digit(d, 2);
	c->cpu.wp = digit(d, 2);
	c->cpu.smap = c->cpu.smep = digit(d, 2);
	c->cpu.ac = digit(d, 2);
	any_access(d, c);
	c->entry[level] |= 1ull << b;
	/* PAT is bit 12 of a large page, bit 7 of a PTE. A key without PKE is ignored, too. */
	if (b == 12)
		return leaf && level != SDM_PTE;
	if (b == 7)
		return level == SDM_PTE;
	return b != 6 || !leaf;
}

static bool address(struct digits *d, struct paging_case *c)
{
	static const uint64_t edges[] = {
		0,
		0x00007ffffffffff8,
		0x0000800000000000,
		0xffff7ffffffffff8,
		0xffff800000000000,
		0xfffffffffffffff8,
		0x00fffffffffffff8,
		0x0100000000000000,
		0xfefffffffffffff8,
		0xff00000000000000,
		0x0000fffffffffff8,
		0xffff000000000000,
	};
	unsigned int nr = sizeof(edges) / sizeof(edges[0]);
	unsigned int which = digit(d, nr + 17);

	some_controls(d, c);
	any_access(d, c);
	c->access.address = which < nr ? edges[which] : ADDRESS | 1ull << (47 + which - nr);
	return true;
}

static bool width(struct digits *d, struct paging_case *c)
{
	static const unsigned char widths[] = {36, 39, 40, 42, 45, 46, 48, 51, 52};
	int level = any_level(d, c);
	unsigned int bit = 36 + digit(d, 16);

	c->cpu.maxphyaddr = widths[digit(d, sizeof(widths))];
	some_controls(d, c);
	any_access(d, c);
	c->entry[level] |= 1ull << bit;
	/* Below its width a table's address is an address, and nothing is there. */
	return bit >= c->cpu.maxphyaddr || level == c->leaf;
}

/* The constants of Steele, Lea and Flood's SplitMix64: any two numbers give unrelated draws. */
static uint64_t draw(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return z ^ z >> 31;
}

static bool random_case(struct digits *d, struct paging_case *c)
{
	uint64_t state = (uint64_t)digit(d, 1u << 16) << 8 | c->top << 4 | c->leaf;
	uint64_t controls = draw(&state);
	struct digits rest = {.n = draw(&state), .product = 1};

	every_control(&(struct digits){.n = controls}, c);
	c->cpu.pkru = draw(&state);
	any_access(&rest, c);
	for (int l = c->top; l >= c->leaf; l--) {
		uint64_t random = draw(&state), odds = draw(&state);

		c->entry[l] &= SDM_PS;
		c->entry[l] |= random & (0x7ff0000000000f00 | SDM_US | SDM_RW | SDM_A | SDM_D);
		c->entry[l] |= random & (odds >> 1) & SDM_XD;
		/* Each of these one time in 16: most walks get to the end. */
		c->entry[l] |= odds & 0xf ? SDM_P : 0;
		if ((odds & 0xf0) == 0)
			end_at(c, l, odds >> 8 & 7);
		/* Rights of most upper levels are full, as in life. */
		if (l != c->leaf && (odds & 0x3000))
			c->entry[l] |= SDM_RW | SDM_US;
	}
	return true;
}

/* --- numbers ------------------------------------------------------------------------------------
 */

static const struct {
	const char *name;
	bool (*fn)(struct digits *d, struct paging_case *c);
} families[] = {
	{"rights", rights},   {"ends", ends},	    {"marks", marks}, {"keys", keys},
	{"ignored", ignored}, {"address", address}, {"width", width}, {"random", random_case},
};

static const struct {
	int top, leaf;
} shapes[] = {
	{SDM_PML4E, SDM_PTE}, {SDM_PML4E, SDM_PDE}, {SDM_PML4E, SDM_PDPTE},
	{SDM_PML5E, SDM_PTE}, {SDM_PML5E, SDM_PDE}, {SDM_PML5E, SDM_PDPTE},
};

#define NR_FAMILIES (sizeof(families) / sizeof(families[0]))
#define NR_SHAPES   (sizeof(shapes) / sizeof(shapes[0]))

/* Case @n of a family in a shape; *product is how many there are. */
static bool build(unsigned int family, unsigned int shape, uint64_t n, const struct paging_env *env,
		  struct paging_case *c, uint64_t *product)
{
	struct digits d = {.n = n, .product = 1};
	bool ok;

	c->family = families[family].name;
	c->top = shapes[shape].top;
	c->leaf = shapes[shape].leaf;
	c->cpu = (struct sdm_cpu){
		.la57 = c->top == SDM_PML5E,
		.maxphyaddr = env->maxphyaddr,
		.gigabyte_pages = env->gigabyte_pages,
		.wp = true,
		/* In whatever case; nothing may depend on it. */
		.pcide = c->number % 2,
		.pge = c->number % 3 == 0,
	};
	c->access.address = c->cpu.la57 ? ADDRESS : ADDRESS & ~(1ull << 48);
	memset(c->entry, 0, sizeof(c->entry));
	for (int level = c->top; level >= c->leaf; level--)
		c->entry[level] = FULL;
	if (c->leaf != SDM_PTE)
		c->entry[c->leaf] |= SDM_PS;
	ok = families[family].fn(&d, c);
	*product = d.product;
	return ok;
}

/* How many numbers each family and shape has; the same for every environment. */
static uint64_t size_of(unsigned int family, unsigned int shape)
{
	static uint64_t sizes[NR_FAMILIES][NR_SHAPES];
	const struct paging_env env = {.maxphyaddr = 46};
	struct paging_case c = {0};

	if (!sizes[family][shape])
		build(family, shape, 0, &env, &c, &sizes[family][shape]);
	return sizes[family][shape];
}

uint64_t paging_cases_count(void)
{
	uint64_t total = 0;

	for (unsigned int f = 0; f < NR_FAMILIES; f++)
		for (unsigned int s = 0; s < NR_SHAPES; s++)
			total += size_of(f, s);
	return total;
}

bool paging_case_get(uint64_t number, const struct paging_env *env, struct paging_case *c)
{
	uint64_t n = number, product;

	c->number = number;
	for (unsigned int f = 0; f < NR_FAMILIES; f++) {
		for (unsigned int s = 0; s < NR_SHAPES; s++) {
			uint64_t size = size_of(f, s);

			if (n < size)
				return build(f, s, n, env, c, &product);
			n -= size;
		}
	}
	return false;
}

unsigned int paging_case_index(const struct paging_case *c, int level)
{
	return c->access.address >> (12 + 9 * (level - 1)) & 511;
}

void paging_case_place(struct paging_case *c, uint64_t root, const uint64_t frame[SDM_LEVELS])
{
	c->cpu.cr3 = root | (c->cpu.pcide ? 0xabc : SDM_PWT | SDM_PCD);
	for (int level = c->top; level >= c->leaf; level--)
		c->entry[level] |= frame[level];
}

/* --- words --------------------------------------------------------------------------------------
 */

static const char *const level_names[SDM_LEVELS] = {NULL, "PTE", "PDE", "PDPTE", "PML4E", "PML5E"};

/* What does not fit is left out. */
#define add(buf, size, ...)                                         \
	do {                                                        \
		size_t used_ = strlen(buf);                         \
                                                                    \
		snprintf((buf) + used_, (size)-used_, __VA_ARGS__); \
	} while (0)

static void add_flags(char *buf, size_t size, uint64_t entry)
{
	static const struct {
		uint64_t bit;
		const char *name;
	} names[] = {{SDM_P, "P"}, {SDM_RW, "RW"}, {SDM_US, "US"}, {SDM_A, "A"},
		     {SDM_D, "D"}, {SDM_PS, "PS"}, {SDM_G, "G"},   {SDM_XD, "XD"}};

	for (unsigned int i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (entry & names[i].bit)
			add(buf, size, " %s", names[i].name);
}

void paging_case_format(const struct paging_case *c, char *buf, size_t size)
{
	static const char *const modes[] = {"user", "supervisor", "implicit"};
	static const char *const kinds[] = {"read", "write", "fetch"};
	static const char *const sizes[] = {NULL, "4K", "2M", "1G"};

	buf[0] = '\0';
	add(buf, size,
	    "case %lu (%s, %d levels, %s): %s %s of 0x%lx, WP=%d SMEP=%d SMAP=%d PKE=%d NXE=%d "
	    "AC=%d",
	    c->number, c->family, c->top, sizes[c->leaf], modes[c->access.mode],
	    kinds[c->access.kind], c->access.address, c->cpu.wp, c->cpu.smep, c->cpu.smap,
	    c->cpu.pke, c->cpu.nxe, c->cpu.ac);
	add(buf, size, " PKRU=0x%x MAXPHYADDR=%u;", c->cpu.pkru, c->cpu.maxphyaddr);
	for (int level = c->top; level >= c->leaf; level--) {
		add(buf, size, " %s 0x%lx (", level_names[level], c->entry[level]);
		add_flags(buf, size, c->entry[level]);
		add(buf, size, " )");
	}
}

void paging_result_format(const struct sdm_result *result, char *buf, size_t size)
{
	buf[0] = '\0';
	if (result->outcome == SDM_NOT_CANONICAL)
		add(buf, size, "#GP: not canonical");
	else if (result->outcome == SDM_PAGE_FAULT)
		add(buf, size, "#PF, error code 0x%x", result->error_code);
	else
		add(buf, size, "done at 0x%lx", result->physical);
	for (int level = SDM_PML5E; level >= SDM_PTE; level--) {
		if (!result->sets[level])
			continue;
		add(buf, size, ", %s gets", level_names[level]);
		add_flags(buf, size, result->sets[level]);
	}
}
