/*
 * breaker.h -- the state machine of a circuit breaker, for all workers together, without a lock.
 *
 *      CLOSED ──ratio of bad calls too high──► OPEN ──after recovery, the next request──► HALF_OPEN
 *         ▲                                     ▲  ▲                                     │   │   │
 *         └──────────── the probe is good ──────│──│─────────────────────────────────────┘   │   │
 *                                               │  └── the probe is bad: all of recovery ────┘   │
 *                                               └───── the probe was stopped elsewhere: at once ─┘
 *
 * `state` holds phase, epoch and deadline in one word, so each transition is one compare-and-swap and happens once. The
 * epoch counts transitions: a call reports under the epoch it was admitted in, and what began before the last
 * transition changes nothing. In HALF_OPEN the deadline is the probe's lease: when it has passed without a report, the
 * next request probes instead.
 *
 * Calls are counted in ten slots that slide over the statistics window. A slot's two words carry the slot number they
 * belong to, so an old slot is recognised and begun anew by whoever counts first; nobody sweeps. The total is counted
 * before the bad ones: a reader in between sees a smaller ratio, and whoever counts last sees all.
 */
#pragma once
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define BREAKER_SLOTS 10

enum breaker_phase { BREAKER_CLOSED, BREAKER_HALF_OPEN, BREAKER_OPEN };   /* as the metric shows them */

struct breaker {
	_Atomic uint64_t state;           /* deadline in ms << 22 | epoch << 2 | phase */
	struct breaker_slot {
		_Atomic uint64_t total, bad;  /* slot number << 32 | calls */
	} slots[BREAKER_SLOTS];           /* of slot s at s % BREAKER_SLOTS */
};

struct breaker_rules {
	uint32_t least;                   /* calls in the window before it may open */
	uint32_t percent;                 /* opens above this ratio of bad calls; 100: when all are bad */
	int64_t window_ms, recovery_ms;
};

/* What an admitted call reports under. */
struct breaker_ticket {
	uint64_t state;
};
bool breaker_is_probe(struct breaker_ticket t);

enum breaker_call {
	BREAKER_GOOD, BREAKER_BAD,
	BREAKER_UNSEEN,                   /* stopped before it said anything about the service */
	BREAKER_LOST,                     /* the client left: not counted, and a probe keeps its lease */
};

void breaker_init(struct breaker *b, const struct breaker_rules *rules, int64_t now_ms);
/* Times are of clock_ms(). All of these may be called by any thread. */
enum breaker_pass { BREAKER_PASSES, BREAKER_PROBES, BREAKER_REFUSES };
/* A probe has lease_ms to report. */
enum breaker_pass breaker_admit(struct breaker *b, int64_t now_ms, int64_t lease_ms, struct breaker_ticket *out);
/* Exactly once for each admitted call. True: it changed the phase to the result of breaker_phase(). */
bool breaker_report(struct breaker *b, const struct breaker_rules *rules, struct breaker_ticket t,
		    enum breaker_call call, int64_t now_ms);
enum breaker_phase breaker_phase(const struct breaker *b);
/* What breaker_admit() would say now. */
enum breaker_pass breaker_look(const struct breaker *b, int64_t now_ms);
/* Until a request may probe; 0 when one may, or is doing so. */
int64_t breaker_wait_ms(const struct breaker *b, int64_t now_ms);
