// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * How the worker learns that a domain wants to be looked at: a kick takes no lock, and puts the
 * domain on a stack unless it is there already. Whoever changes something and kicks, that change is
 * to be seen before the worker sleeps for good.
 */
#include "tests/models/srcu_model.h"

MODEL("[kick]", "notifier/srcu_callback.c: push_kicked, srcu_worker_kick, take_ready");

/* Domains 1 and 2; where there are two of something, that of domain 2 comes first: see at(). */
enum {
	STACK = FLAG, /* the domain on top, or 0 */
	KICKED_ = COUNTS,
	NEXT = COUNTS + 2,
	CHANGED = COUNTS + 4, /* how often somebody changed it */
	SEEN = COUNTS + 6,    /* how much of that the worker has seen */
};

#define FOUND 14 /* registers of the worker: what it found on the stack before it slept */
#define SEQ   15

struct kick_how {
	bool looks_only; /* at ->kicked, without a full barrier */
	bool tells_first;
	bool clear_late; /* ->kicked, behind the look at the domain */
	bool clear_relaxed;
	bool next_late; /* ->next_kicked is read when ->kicked is cleared */
};

static struct wm_model model;

static uint8_t at(uint8_t pair, unsigned int domain)
{
	return (uint8_t)(pair + domain % 2);
}

/* ---- who kicks ---- */

static void wake(struct wm_program *p)
{
	unsigned int nobody;

	wm_add(p, 8, Q_WAITERS, 0, WM_FULL);
	nobody = wm_branch(p, wm_eq(R(8), 0, 0));
	wm_add(p, WM_NONE, Q_SEQ, 1, WM_FULL);
	wm_land(p, nobody);
}

/* The attempt that succeeds: the others change nothing. */
static void push(struct wm_program *p, unsigned int domain)
{
	wm_load(p, 1, STACK, WM_RELAXED);
	wm_store_sum(p, at(NEXT, domain), 0, R(1));
	wm_xchg(p, 2, STACK, (uint8_t)domain, WM_FULL);
	wm_assume(p, wm_eq(R(1), R(2), 0));
}

static void kicker(const char *name, unsigned int domain, struct kick_how how)
{
	struct wm_program *p = wm_thread(&model, name);
	unsigned int there, there_too = 0;

	wm_add(p, WM_NONE, at(CHANGED, domain), 1, WM_RELAXED);
	if (how.tells_first)
		wake(p);
	if (how.looks_only) {
		wm_load(p, 3, at(KICKED_, domain), WM_RELAXED);
		there_too = wm_branch(p, wm_ne(R(3), 0, 0));
	}
	wm_xchg(p, 0, at(KICKED_, domain), 1, WM_FULL);
	there = wm_branch(p, wm_ne(R(0), 0, 0));
	push(p, domain);
	wm_land(p, there);
	if (how.looks_only)
		wm_land(p, there_too);
	if (!how.tells_first)
		wake(p);
}

/* ---- the worker ---- */

static void at_reg(struct wm_program *p, struct wm_insn insn, uint8_t pair, uint8_t reg)
{
	insn.loc = pair;
	insn.index = reg;
	wm_insn(p, insn);
}

static void look(struct wm_program *p, uint8_t domain)
{
	const uint8_t reg = (uint8_t)(domain + 4);

	at_reg(p, (struct wm_insn){.op = WM_LD, .reg = reg}, CHANGED, domain);
	at_reg(p,
	       (struct wm_insn){.op = WM_ST, .reg = WM_NONE, .value = {.regs = (uint16_t)R(reg)}},
	       SEEN, domain);
}

/* The domain whose number is in register @domain; the next one to @next. */
static void serve(struct wm_program *p, uint8_t domain, uint8_t next, struct kick_how how)
{
	const struct wm_insn read_next = {.op = WM_LD, .reg = next};
	const struct wm_insn clear = {.op = WM_XCHG,
				      .order = how.clear_relaxed ? WM_RELAXED : WM_FULL,
				      .reg = WM_NONE};

	if (!how.next_late)
		at_reg(p, read_next, NEXT, domain);
	if (!how.clear_late)
		at_reg(p, clear, KICKED_, domain);
	if (how.next_late)
		at_reg(p, read_next, NEXT, domain);
	look(p, domain);
	if (how.clear_late)
		at_reg(p, clear, KICKED_, domain);
}

/* Takes what is there as often as somebody may have kicked, and then goes to sleep. */
static void worker(unsigned int turns, struct kick_how how)
{
	struct wm_program *p = wm_thread(&model, "worker");
	unsigned int nothing[3], alone;

	wm_keep(p, (uint16_t)(R(FOUND) | R(SEQ)));
	for (unsigned int i = 0; i < turns; i++) {
		wm_xchg(p, 0, STACK, 0, WM_FULL);
		nothing[i] = wm_branch(p, wm_eq(R(0), 0, 0));
		serve(p, 0, 1, how);
		if (i < 2) {
			alone = wm_branch(p, wm_eq(R(1), 0, 0));
			serve(p, 1, 2, how);
			wm_land(p, alone);
		} else {
			/* There were three kicks at most. */
			wm_assume(p, wm_eq(R(1), 0, 0));
		}
	}
	for (unsigned int i = 0; i < turns; i++)
		wm_land(p, nothing[i]);
	wm_add(p, WM_NONE, Q_WAITERS, 1, WM_FULL);
	wm_load(p, SEQ, Q_SEQ, WM_ACQUIRE);
	wm_load(p, FOUND, STACK, WM_RELAXED);
}

static bool sleeps(const struct wm_final *final)
{
	return !final->regs[0][FOUND] && final->mem[Q_SEQ] == final->regs[0][SEQ];
}

static bool unseen(const struct wm_final *final)
{
	return final->mem[SEEN] != final->mem[CHANGED] ||
	       final->mem[SEEN + 1] != final->mem[CHANGED + 1];
}

static bool forgotten(const struct wm_final *final)
{
	return sleeps(final) && unseen(final);
}

static bool all_seen(const struct wm_final *final)
{
	return sleeps(final) && !unseen(final);
}

static bool woken(const struct wm_final *final)
{
	return !sleeps(final) && unseen(final);
}

/* Domain 1 is on the stack already, or both are, 1 on top. */
static void begin(unsigned int turns, unsigned int were_kicked, struct kick_how how)
{
	static const char *const names[] = {"kicked", "next_kicked", "changes", "changes seen"};
	static char with_number[8][24];

	model_init(&model);
	model.bad = (struct wm_outcome){"asleep, and a change is not seen", forgotten};
	model.reached[0] = (struct wm_outcome){"all is seen", all_seen};
	model.reached[1] = (struct wm_outcome){"woken for more", woken};
	model.loc_names[STACK] = "the stack";
	for (unsigned int i = 0; i < 8; i++) {
		snprintf(with_number[i], sizeof(with_number[i]), "%s of %u", names[i / 2],
			 2 - i % 2);
		model.loc_names[COUNTS + i] = with_number[i];
	}
	for (unsigned int domain = 1; domain <= were_kicked; domain++)
		model.init[at(KICKED_, domain)] = model.init[at(CHANGED, domain)] = 1;
	if (were_kicked)
		model.init[STACK] = 1;
	if (were_kicked > 1)
		model.init[at(NEXT, 1)] = 2;
	worker(turns, how);
}

TEST(kick, one_domain)
{
	const struct kick_how shipped = {0};

	begin(1, 0, shipped);
	kicker("kicker", 1, shipped);
	must_hold(&model, "one kick");
	begin(2, 1, shipped);
	kicker("kicker", 1, shipped);
	must_hold(&model, "one kick more");
	begin(2, 0, shipped);
	kicker("kicker A", 1, shipped);
	kicker("kicker B", 1, shipped);
	must_hold(&model, "two kicks");
}

TEST(kick, two_domains)
{
	const struct kick_how shipped = {0};

	begin(2, 0, shipped);
	kicker("kicker A", 1, shipped);
	kicker("kicker B", 2, shipped);
	must_hold(&model, "two domains");
	begin(3, 1, shipped);
	kicker("kicker A", 1, shipped);
	kicker("kicker B", 2, shipped);
	must_hold(&model, "two domains, one kicked already");
	begin(2, 2, shipped);
	kicker("kicker", 1, shipped);
	must_hold(&model, "two domains, both kicked already, and one again");
	begin(3, 2, shipped);
	kicker("kicker A", 1, shipped);
	kicker("kicker B", 2, shipped);
	must_hold(&model, "two domains, both kicked already, and again");
}

static void breaks(const char *name, unsigned int were_kicked, struct kick_how how)
{
	begin(2, were_kicked, how);
	kicker("kicker", 1, how);
	must_break(&model, name);
}

TEST(broken_kick, one_domain)
{
	breaks("->kicked looked at without a barrier", 1, (struct kick_how){.looks_only = true});
	breaks("wakes the worker before it pushes", 1, (struct kick_how){.tells_first = true});
	breaks("->kicked cleared behind the look", 1, (struct kick_how){.clear_late = true});
	breaks("->kicked cleared without a barrier", 1, (struct kick_how){.clear_relaxed = true});
}

/* A domain that is pushed again meanwhile has no next any more: the other one is lost. */
TEST(broken_kick, two_domains)
{
	breaks("->next_kicked read when ->kicked is cleared", 2,
	       (struct kick_how){.next_late = true});
}
