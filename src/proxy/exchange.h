/*
 * exchange.h -- one request and its response, from the first byte to the access record.
 *
 *      born ─► match ─► request leg ─► (body, if wanted) ─► pick service ─► service leg ─► attempt leg ─► call
 *                          │ REPLY/FAIL                                                             │
 *                          └────────────────────► response leg ◄── upstream's head ◄───────────────┘
 *                                                      └─► send ─► closed: done hooks, metrics, record
 *
 * An exchange belongs to one worker and pins that worker's view: its configuration does not change while it lives. It
 * waits for at most one thing (x->wait); everything it allocated dies with its arena. Policies see it through
 * policy.h only.
 */
#pragma once
#include "core/arena.h"
#include "core/loop.h"
#include "http/client.h"
#include "http/server.h"
#include "net/resolver.h"
#include "proxy/balance.h"
#include "proxy/policy.h"
#include "proxy/snapshot.h"

enum reason_id {
#define REASON(id, flag, text) REASON_##id,
#include "proxy/reasons.def"
#undef REASON
	REASON_COUNT
};
struct reason {
	const char *flag, *tag, *text;
};
extern const struct reason reasons[REASON_COUNT];

/* A step that was entered: its done hook is owed, and its memory. */
struct owed {
	const struct step *step;
	void *state;
};

/* Walks the chains of one leg that have steps left, merged by order, broad level first. */
struct walk {
	const struct chain *chains[LEVEL_COUNT + 2];      /* the last one: carried */
	uint16_t at[LEVEL_COUNT + 2];
	uint8_t levels[LEVEL_COUNT + 2];  /* enum level of each */
	uint8_t n;
	uint8_t leg;                      /* enum leg */
};

enum exchange_phase {
	EXCHANGE_NEW,                     /* no head was understood */
	EXCHANGE_REQUEST,                 /* request leg */
	EXCHANGE_UPSTREAM,                /* service and attempt legs, call under way */
	EXCHANGE_RESPONSE,                /* response leg */
	EXCHANGE_SENDING,                 /* head sent, body under way */
	EXCHANGE_OVER,
};

struct name_lookup {
	struct resolver_query query;
	struct exchange *x;               /* NULL: not under way */
	unsigned at, tried;               /* the address being tried, and how many were before it */
};

struct attempt;
struct body;
struct hold;
struct pieces;
struct retained;
struct worker;

struct cookie_line {
	struct cookie_line *next;
	struct str value;
};

struct exchange {
	struct stream stream;             /* first: the server hands this back */
	struct arena arena;
	struct task task;                 /* the ready list */
	struct worker *worker;
	struct view *view;
	/* where it came from and goes to */
	const struct site *site;          /* NULL: no gateway serves its host */
	const struct route *route;        /* NULL: no route matches */
	const struct claimed *claimed;    /* policies answer this path themselves; then there is no route */
	const struct service *service;
	const struct target *target;
	const struct endpoint *endpoint;
	struct str lane;                  /* balance.h; p == NULL: lanes mean nothing here */
	const struct lane_names *lanes;   /* set with it */
	struct ip peer_ip, client_ip;
	struct str peer_text, client_text;   /* printed once */
	uint16_t peer_port;
	bool trusted_peer;                /* its X-Forwarded-* are believed */
	bool has_forwarded;               /* exchange_write_forwarded() was there */
	struct str tls_record;            /* secure_record(); absent in the clear */
	struct str request_id;
	struct str consumer, consumer_id; /* exchange_set_consumer(): its name, and the resource where there is one */
	struct chat *chat;                /* of ai/: a request to a model, or NULL */
	void (*turned)(struct exchange *x);   /* exchange_watch_turns(), or NULL */
	drop_hook *dropped;               /* exchange_watch_drops(), or NULL */
	error_shape *shape_error;         /* exchange_shape_errors(), or NULL */
	copy_shape *shape_copy;           /* exchange_shape_copies(), or NULL: copies are what the service gets */
	struct str member;                /* exchange_keep_member(); absent = none */
	unsigned chosen_target;           /* exchange_choose_target(), from 1; 0 = none */
	struct message *own_cookies;      /* own_cookie.h; NULL: it has none */
	struct message *written_addresses;   /* exchange_written_addresses(); NULL: none was */
	struct token_facts *token;        /* exchange_set_token(); NULL: none was verified */
	struct str host, path, query;     /* as the client asked, whatever rewrites follow */
	/* policies */
	struct walk walk;
	uint64_t hidden[LEVEL_COUNT];     /* classes that a narrower level replaces */
	const struct step *step;          /* being run or waited for */
	hook *then;                       /* what runs when the wait is over */
	struct wait *wait;
	struct owed *owed;                /* in the arena; as many as the configuration asks for */
	unsigned n_owed, owed_room;
	uint8_t phase;
	/* response */
	struct str res_body;              /* of a local reply */
	struct str set_cookie;            /* what an upstream's response gets after its policies; absent = nothing */
	struct cookie_line *cookies;      /* exchange_set_cookie(): what any response gets then; NULL = nothing */
	bool is_local;                    /* the response is ours */
	bool must_close;                  /* reply_close: no byte may be sent */
	bool claim_taken;                 /* the policies of x->claimed were asked */
	bool call_open;                   /* the call has not ended */
	bool is_tunnel;                   /* the two sides exchange bytes without framing */
	bool is_tcp;                      /* from the start: there is no request and no response */
	/* bodies */
	struct str held;                  /* request body bytes not sent yet (kept in the arena) */
	bool held_end;                    /* they complete the body */
	struct str part;                  /* response bytes that came with the head */
	bool part_end;
	bool is_counted;                  /* endpoint->cell->active was raised */
	/* the upstream */
	struct call call;
	struct name_lookup *lookup;       /* of the endpoint's name, when it has one */
	struct attempt *attempt;          /* of Timeout, Retry and Fallback; NULL when none acts here */
	struct retained *retained;        /* the request body; NULL when nobody asked for it */
	struct body *body;                /* a request body that a policy wants whole (body.h), or NULL */
	struct hold *hold;                /* the beginning of a response body that a policy wants, or NULL */
	struct pieces *pieces;            /* data hooks look at the response body, or NULL */
	const struct endpoint **tried;    /* those whose try failed: others are preferred */
	unsigned n_tried;
	unsigned attempts;
	/* for the record */
	enum reason_id reason;
	const struct step *answered_by;
	const char *flag;                 /* set by a policy; else the reason's */
	const char *broken;               /* last fail() */
	int64_t upstream_start_us, upstream_head_us, upstream_end_us;
	/* for exchange_outcome() */
	uint16_t upstream_status;         /* of the upstream, or of our answer for its failure; 0 = neither */
	bool upstream_failed, upstream_streams;
	bool was_open;                    /* the call had not ended when the stream closed */
	uint8_t end;                      /* enum stream_end; from `closed` on */
	int64_t waited_us, wait_start_us;
	const char *waited_for;           /* class that waited longest ago */
	struct dry_run *dry;              /* NULL: a request of a client (dry_run.h) */
	/* what follows is not cleared at birth */
	struct message res;               /* the response, from its leg on */
};

/* Whether the connect-leg lists of these policies accept a TCP peer. */
bool exchange_accepts(const struct policies *p, const struct ip *peer);
/* server_ops of the data plane. */
extern const struct server_ops exchange_server_ops;

/* outcome.c: x->res is the upstream's, untouched yet */
void outcome_note_head(struct exchange *x);
/* Lasts as long as its peers want: an upgrade, events, gRPC. By x->res, untouched yet. */
bool outcome_is_stream(const struct exchange *x);

struct router_listener;
/* Site, route and what they hide. The listener, which may be NULL, hears of routes that were passed over. */
void exchange_find_route(struct exchange *x, const struct binding *b, const struct router_listener *listener);
/* From the site and the route: classes that a narrower level replaces. */
void exchange_hide(struct exchange *x);
void exchange_begin_response(struct exchange *x);                 /* x->res is there: run the response leg */
void exchange_fail_upstream(struct exchange *x, enum reason_id reason);   /* 502, 503, 504 by reason */
/* Our own answer for a reason of proxy/ (no route, no endpoint, ...): runs the response leg. */
void exchange_reply_reason(struct exchange *x, int status, enum reason_id reason, const char *code);
/* Of a request that no route takes, when the policies let it pass: 404, or 200 to OPTIONS *. */
void exchange_answer_unrouted(struct exchange *x);
bool exchange_is_about_server(const struct exchange *x);          /* OPTIONS * */
void exchange_tell_methods(struct exchange *x);                   /* the answer to it, not sent */
/* request leg is through: pick, service leg, attempt */
void exchange_dispatch(struct exchange *x);
bool exchange_find_service(struct exchange *x);                   /* target and service of the route; false: none */
struct str exchange_given_id(const struct exchange *x);           /* the client's X-Request-Id when sane; else absent */
struct str exchange_make_id(struct exchange *x);                  /* 32 characters that say nothing */
void exchange_start_call(struct exchange *x);                     /* attempt leg is through */
void exchange_end_try(struct exchange *x);                        /* this call is over; another one may follow */
void exchange_end_call(struct exchange *x);                       /* and none follows, whatever became of it */
void exchange_report_try(struct exchange *x, enum call_failure what);     /* to endpoint, metrics and log */
void exchange_fail_try(struct exchange *x, enum call_failure what);       /* another one, or the answer */
void exchange_send_response(struct exchange *x);
/* The access record of what the parser or a limit refused before it was an exchange. */
void record_refused(const struct ip *peer, int status, const char *tag, struct str request_id);
void exchange_record(struct exchange *x, enum stream_end how);    /* access record and counters */

void exchange_metrics(void);                                      /* control thread, before workers start */

struct str exchange_claim(struct exchange *x, struct str name);   /* identity.c: of the token; absent unless scalar */
void exchange_strip_reserved(struct exchange *x);                 /* identity.c: fields that no client may send */

/* upstream.c: what calls report. */
extern const struct call_ops exchange_call_ops;

/* tunnel.c */
void tunnel_prepare(struct exchange *x);                          /* what the upstream is asked for, if anything */
void tunnel_begin(struct stream *s, struct str server_name);      /* a connection of a TCP gateway */
void tunnel_failed(struct exchange *x, enum call_failure what, int error);
void tunnel_refused(struct exchange *x);                          /* the upstream has no such thing: 502 */

/* pipeline.c */
/* The walk alone, for whoever wants to see what would run: every step of the leg in order, hidden ones left out. */
void walk_open(struct exchange *x, enum leg leg);
const struct step *walk_next(struct exchange *x);                 /* NULL: the leg is through */
void pipeline_start(struct exchange *x, enum leg leg);            /* runs until it waits, replies or is through */
/* There is no route: the policy that has this path to itself answers. False: there is none, or it passed. */
bool pipeline_ask_claim(struct exchange *x);
void pipeline_resume(struct exchange *x);                         /* the wait is over */
void pipeline_abort(struct exchange *x);                          /* cancels the wait */
void pipeline_settle(struct exchange *x);                         /* settled hooks of what was entered */
void pipeline_ending(struct exchange *x);                         /* ending hooks, oldest first */
void pipeline_done(struct exchange *x);                           /* done hooks, newest first */
void pipeline_leave_service(struct exchange *x);                  /* those of the service: another one follows */
/* After a FAIL of x->step: whether its class lets pass. False: x->res is the refusal. */
bool pipeline_may_pass(struct exchange *x);
/* The upstream's part is over, but the last of it not sent: settled hooks, where there may be some. */
static inline void outcome_settle(struct exchange *x)
{
	if (x->n_owed > 0)
		pipeline_settle(x);
}

/* health.c: outcome of an attempt, for outlier detection. status 0 = failed before a head. */
void health_report(const struct service *s, const struct endpoint *e, int status);
/* forward.c: client address by the trusted hops; the fields a forwarded request gets. */
void forward_identify(struct exchange *x);
void forward_identify_peer(struct exchange *x, const struct ip *peer, uint16_t port);
void forward_prepare(struct exchange *x);
void forward_fields(struct exchange *x, struct str port);         /* of the listener, in digits */
