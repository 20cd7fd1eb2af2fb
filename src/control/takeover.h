/*
 * takeover.h -- the control plane's side of a binary upgrade: DATA/sluice.sock, and who may write the store when.
 *
 *      predecessor   SERVES ──ASK──► LENT (no store, writes 503) ──READY──► GONE (drains; the admin socket is left)
 *                       ▲──────────────┘ the successor failed or is too late: the store is taken back
 *      successor     asks ─► has the sockets ─► opens the store ─► loads, binds ─► READY ─► GO ─► offers in turn
 *
 * One process at a time holds the store's lock, so two never write. Traffic is served by the predecessor until the
 * successor is ready, then by both, then by the successor: the sockets are the same ones.
 */
#pragma once
#include "core/loop.h"
#include "core/problem.h"
#include "core/timer.h"

struct control;

enum takeover_state { TAKEOVER_SERVES, TAKEOVER_ASKED, TAKEOVER_LENT, TAKEOVER_GONE };

struct takeover {
	struct control *control;
	char path[200];
	int predecessor;                  /* our channel to it, until it goes; -1 */
	struct watch listener, peer;      /* fd -1: none */
	struct timer patience;            /* with the peer; while there is none and the store is out: to take it back */
	enum takeover_state state;
	bool is_out;                      /* the store is not ours */
	void (*gone)(void *arg);
	void *arg;
};

void takeover_init(struct takeover *t, struct control *c);
/* Asks whoever serves this data directory for its sockets; nobody there is fine. Before the store is opened. */
MUST_USE bool takeover_ask(struct takeover *t, struct problem *why);
/* Everything serves: the predecessor may go. False when it has taken the store back. */
MUST_USE bool takeover_confirm(struct takeover *t, struct problem *why);
/* From now on a successor may ask; gone(arg) when it serves. */
void takeover_offer(struct takeover *t, void (*gone)(void *arg), void *arg);
void takeover_end(struct takeover *t);
