/*
 * policy.h -- what a policy is. proxy/ runs policies through this and never names one; policy/ has one file for each
 * type.
 *
 * A hook looks at the exchange and ends with a verdict. Verdicts are made only by the functions below, each of which
 * first makes its verdict true: nobody can say WAIT without a wait armed, or REPLY without a response.
 *
 *      level      where it is attached: Gateway, Domain, Route (or Api, Operation, LLMApi, AgentApi); Service apart
 *      leg        when it runs: connect, request, service, attempt, response, data, done
 *      stage      the order within the request leg: the enum below is the only place that says it
 *
 * A step belongs to one (attachment, resource) pair. Each resource has its own compiled chains; an exchange walks the
 * chains of its gateway, domain and route merged by stage, broad level first, so a change at one level recompiles
 * that level only.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "core/cidr.h"
#include "core/field.h"
#include "core/metric.h"
#include "core/pmap.h"
#include "core/str.h"
#include "http/message.h"

struct exchange;
struct service;
struct step;
struct worker;

enum verdict { NEXT, WAIT, REPLY, FAIL };
typedef enum verdict hook(struct exchange *x, const struct step *s);
typedef void done_hook(struct exchange *x, const struct step *s);
/*
 * Judges a TCP peer at accept (Gateway) or after the match (Domain, Route): false closes without a byte. Synchronous.
 */
typedef bool connect_hook(const struct ip *peer, const struct step *s);

/* Order of the request leg; product contract "one execution order". Printed in the manual from here. */
enum stage {
	STAGE_AI_RECORD,                  /* decides nothing: from here on whatever becomes of a request is recorded */
	STAGE_IP, STAGE_CORS, STAGE_WAF_HEAD, STAGE_AUTH_EXTERNAL, STAGE_AUTH_OIDC, STAGE_AUTH_JWT, STAGE_AUTH_CONSUMER,
	STAGE_RATE, STAGE_CONCURRENCY, STAGE_TERMINAL, STAGE_BREAKER, STAGE_LANE,
	STAGE_WAF_BODY, STAGE_AI_CLASSIFY, STAGE_AI_STATISTICS, STAGE_AI_CACHE, STAGE_AI_TOKEN,
	STAGE_AI_TOOLS, STAGE_AI_SEARCH,
	STAGE_HEADERS, STAGE_REWRITE, STAGE_PICK,
	STAGE_AI_FALLBACK, STAGE_SERVICE_RATE, STAGE_SERVICE_BREAKER, STAGE_AI_GUARD, STAGE_MIRROR, STAGE_DISPATCH,
	STAGE_SETTING,                    /* has no step: its apply() writes into the settings */
	STAGE_COUNT
};
extern const char *const stage_names[STAGE_COUNT];

/*
 * Order of the response leg, and of the pieces of a body: the answer of a model is converted and read (CHAT) before
 * guards look at it.
 */
enum response_stage {
	RESPONSE_NONE, RESPONSE_CHAT, RESPONSE_GUARD, RESPONSE_WAF, RESPONSE_AI, RESPONSE_HEADERS, RESPONSE_CORS,
	RESPONSE_STAGE_COUNT
};
extern const char *const response_stage_names[RESPONSE_STAGE_COUNT];

enum scope {                              /* attachResourceType; bit set */
	SCOPE_GATEWAY = 1, SCOPE_DOMAIN = 2, SCOPE_ROUTE = 4, SCOPE_LLM_API = 8, SCOPE_AGENT_API = 16, SCOPE_API = 32,
	SCOPE_OPERATION = 64, SCOPE_SERVICE = 128, SCOPE_SERVICE_PORT = 256,
	/* where Route-like classes go (product contract, rulings): */
	SCOPE_ROUTES = SCOPE_ROUTE | SCOPE_API | SCOPE_OPERATION | SCOPE_LLM_API | SCOPE_AGENT_API,
};
const char *scope_name(enum scope one);                   /* "Gateway" ... */
/* also the aliases HttpApi, GatewayRoute, GatewayService, GatewayServicePort */
bool scope_parse(struct str text, enum scope *out);

enum level { LEVEL_GATEWAY, LEVEL_DOMAIN, LEVEL_ROUTE, LEVEL_COUNT, LEVEL_SERVICE = LEVEL_COUNT };

/* What happens when a class sits at several levels. */
enum combine {
	COMBINE_ADD,                      /* every level acts */
	/* most specific enabled or disabled attachment wins whole; disabled = opt-out */
	COMBINE_OVERRIDE,
	COMBINE_SPECIFIC,                 /* most specific enabled attachment wins whole; disabled = as if absent */
};

enum wants { WANTS_REQUEST_BODY = 1, WANTS_CHAT = 2, WANTS_RESPONSE_BODY = 4, WANTS_SSE = 8 };

/* Of a request body. SHORT: up to the bound; a longer one goes on unread, where WHOLE answers 413. */
enum body_wish { BODY_UNWANTED, BODY_WHOLE, BODY_SHORT };

/* What an attachment points at, for checks at attach time. */
struct attach_target {
	enum scope scope;
	const struct json *resource;      /* its document */
	struct str gateway_id;
	/* Document of another resource by kind ("service", "certificate", ...) and id; NULL when there is none. */
	const struct json *(*find)(const struct attach_target *t, const char *kind, struct str id);
	/* Value of a setting of the gateway by name; NULL where there are no settings. */
	const struct json *(*setting)(const struct attach_target *t, const char *name);
	void *arg;
	struct str resource_id;
};

/* When a try that failed is followed by another one. */
enum retry_on {
	RETRY_ON_CONNECT = 1,             /* no connection: nothing was sent */
	RETRY_ON_REFUSED = 2,             /* HTTP/2: the upstream says that it did nothing with the request */
	RETRY_ON_RESET = 4,               /* no answer: closed, reset, silent, too late, or none that can be read */
	RETRY_ANY_METHOD = 8,             /* POST and the like too, where the request may have been processed */
};
struct retry_rules {
	unsigned attempts;                /* after the first one */
	unsigned on;                      /* enum retry_on bits */
	uint64_t statuses[4];             /* bit i: status 400 + i */
	uint32_t grpc_statuses;           /* bit i: grpc-status i, in the head of a response */
	int64_t try_timeout_ms;           /* 0 = none */
};
struct target;
struct fallback_rules {
	const struct target *targets;     /* in the order they are tried */
	unsigned n;
};

/*
 * How to speak TLS to a service or its port (PROTOCOL: as if nothing was said); what it refers to is looked up when the
 * service is compiled.
 */
struct tls_wish {
	enum { TLS_WISH_PROTOCOL, TLS_WISH_PLAIN, TLS_WISH_SERVER, TLS_WISH_MUTUAL, TLS_WISH_WORKLOAD } mode;
	struct str certificate_id;        /* MUTUAL: what is shown */
	struct str ca_id, ca_pem;         /* the text wins; neither: the system's CAs */
	const struct str *names;          /* of which the server must bear one */
	size_t n_names;
	struct str sni;
};

/*
 * Which setting a class with apply() writes, so that proxy/ counts what became of it for its policy; and the outcomes,
 * in the order of the class's own list.
 */
enum setting { SETTING_NONE, SETTING_TIMEOUT, SETTING_RETRY, SETTING_FALLBACK, SETTING_TLS, SETTING_BALANCE,
	SETTING_COUNT };
enum timeout_outcome { TIMEOUT_EXPIRED };
enum retry_outcome { RETRY_SUCCEEDED, RETRY_FAILED, RETRY_EXHAUSTED, RETRY_NO_BUDGET, RETRY_TRY_TIMEOUT };
enum fallback_outcome { FALLBACK_TURNED };
enum tls_outcome { TLS_SECURED, TLS_REFUSED };
enum balance_outcome { BALANCE_CHOSEN, BALANCE_PANICKED };

/*
 * What settings policies write and proxy/ reads; one set for each route and service. What a route has (has_...) beats
 * what the service has; a disabled policy has it too, with nothing in it: that is the opt-out.
 */
struct settings {
	bool has_timeout, has_retry, has_fallback;
	bool shapes_attempts;             /* one of these three: else attempt.c has nothing to do */
	int64_t timeout_ms;               /* whole upstream exchange; 0 = none */
	const struct retry_rules *retry;  /* NULL = none */
	const struct fallback_rules *fallback;    /* NULL = none */
	const struct tls_wish *tls;       /* of a service or its port; NULL = its protocol says it */
	const struct balance *balance;    /* of a service; NULL = its endpoints in turn */
	struct series *const *counts[SETTING_COUNT];      /* step.series of the policy that wrote it; NULL = none */
};
void setting_count(struct series *const *counts, unsigned outcome);      /* harmless with NULL */

/* A path of one host; texts live as long as the conf. */
struct claimed_path {
	struct str host;                  /* lower case, without port */
	struct str path;                  /* in normal form */
};
#define CLAIMS_MAX 4

#define POLICY_OUTCOMES 6

/* Everything the system knows about one policy type. One const object for each. */
struct policy_class {
	const char *name;                 /* className of the API */
	const char *alias;                /* a short title for people: "Rate limiting" */
	const char *summary;              /* one sentence for manual and console */
	const char *group;                /* "Throttling", "Routing", "AI", "Security", "Cross-domain", "Service" */
	unsigned scopes;                  /* enum scope bits */
	enum stage stage, service_stage;  /* service_stage: of its `service` hook */
	enum response_stage response_stage;
	enum combine combine;
	/* several attachments of this class on one resource combine (IpAccessControl) */
	bool many_per_resource;
	/* what its service hook refuses is a failure of the service: others may be turned to */
	bool speaks_for_service;
	bool is_enforced;                 /* false: stored and validated, attachment status Degraded */
	bool fails_open;                  /* fail(): let the request pass, or answer fail_status */
	int fail_status;
	unsigned wants;
	const char *execute_stage;        /* of GET /api/v1/policy-classes: "PluginDefault" ... */
	int execute_priority;
	const struct field *fields;       /* its config; the first BOOL named "enable" switches it */
	size_t conf_size;                 /* struct with the fields and what prepare() derives */
	size_t enable_at;                 /* offset of `bool enable` */
	size_t cell_size;                 /* state that survives a publish; 0 = none */
	size_t state_size;                /* zeroed memory for each exchange that enters, from exchange_state() */
	const char *outcomes[POLICY_OUTCOMES];   /* what policy_count() counts */
	/* Rules between fields; paths relative to config. */
	bool (*check)(const void *conf, struct problem *why);
	/*
	 * Derives members of *conf after decoding (patterns, sets); memory of `a` lives as long as conf. Must accept
	 * whatever check accepts.
	 */
	bool (*prepare)(void *conf, struct arena *a, struct problem *why);
	/*
	 * What the config refers to, against the resource it is attached to. field path relative to config, or
	 * "attachResourceType".
	 */
	bool (*attach)(const void *conf, const struct attach_target *t, struct problem *why);
	/*
	 * Control thread, whenever a chain is made with it, and anew after a change of the gateway's settings: what a
	 * step needs of them beyond its config (t->setting), as one reference to a part that the chain holds
	 * (step->bound). May be NULL, which the hooks have to bear.
	 */
	struct part *(*bind)(const void *conf, void *cell, const struct attach_target *t);
	void (*cell_init)(void *cell, const void *conf);      /* zeroed before */
	/* Control thread, when nothing uses the cell any more: gives back what it holds. */
	void (*cell_free)(void *cell);
	/*
	 * On worker 0 after each adoption of a configuration: begins what new cells need without a request (a first
	 * fetch). Classes may share one function; it is called once for each.
	 */
	void (*adopted)(struct worker *w);
	/*
	 * What the policy depends on ("authorization"): label `kind` of sluice_dependency_up. Its struct dependency is
	 * in the cell, at dependency_at; the attachment is Degraded while it is down. NULL: nothing.
	 */
	const char *dependency;
	size_t dependency_at;
	/*
	 * With `dependency`, of a class that says nothing of it itself: whether a policy with this config depends on
	 * those who issue the tokens of consumers. The control thread looks after them (compile_issuer.c).
	 */
	bool (*asks_issuers)(const void *conf);
	/* the cell survives changes of the config too (in-flight counts must drain) */
	bool cell_keeps;
	/* What the cell shows in a metric of its own (policy_gauge). `gauge`: labels policy, attachment, resource. */
	enum metric_id gauge;
	int64_t (*measure)(const void *cell);
	void (*apply)(const void *conf, struct settings *settings);
	enum setting setting;             /* that apply() writes */
	connect_hook *connect;
	bool (*connects)(const void *conf);   /* whether connect has anything to judge; NULL = yes */
	/*
	 * A second hook of the request leg, at body_stage: it has the request body whole (exchange_request_body). With
	 * WANTS_REQUEST_BODY and no such hook, `request` and `service` have it.
	 */
	hook *body;
	enum stage body_stage;
	/*
	 * Whether this request's body is read for the hook; *most is the gateway's bound and may be changed. NULL:
	 * always, within the gateway's bound.
	 */
	enum body_wish (*wants_body)(struct exchange *x, const struct step *s, size_t *most);
	bool suits_bytes;                 /* what apply() sets holds for connections of TCP gateways too */
	hook *request, *service, *attempt, *response;
	/*
	 * Each piece of an upstream's response body on its way to the client (exchange_piece). May wait, with the
	 * upstream paused. The head is sent already: a REPLY, or a FAIL that may not pass, cuts the connection.
	 */
	hook *data;
	/*
	 * Paths that the policy answers itself, whatever routes there are (the callback of a login): on the gateway of
	 * the attachment, whatever it is attached to. Requests for them run the steps of STAGE_IP of the gateway and
	 * the domain, then `claimed`, and never a route; next() there is a 404. Returns how many.
	 */
	unsigned (*claims)(const void *conf, struct claimed_path out[CLAIMS_MAX]);
	hook *claimed;
	/*
	 * What the names of cookies begin with that it gives to browsers (after "__Host-", if at all): requests reach
	 * policies and upstreams without them (own_cookie.h). One class has some; it has `claims` too.
	 */
	const char *own_cookies;
	/*
	 * The upstream's part is over, or another policy answered: before the last bytes go to the client. May be
	 * called more than once for an entered step, and not at all when the client leaves early; `done` follows in
	 * any case.
	 */
	done_hook *settled;
	done_hook *done;
	/* The exchange is over, before its record is written and the done hooks run; only with `done`. */
	done_hook *ending;
	/*
	 * Dry runs (dry_run.h) ask what would become of a request, on the control thread. is_pure: the hooks above
	 * change nothing but the exchange and never wait, so they are run as they are. explain stands in for request,
	 * service and attempt there: it looks at the cell without taking anything and ends in the verdict a request
	 * would get now. With neither, the dry run says that it cannot be judged.
	 */
	bool is_pure;
	hook *explain;
};

extern const struct policy_class *const policy_classes[];  /* in the seed's order; ends with NULL (policy/registry.c) */
extern const unsigned policy_class_count;
const struct policy_class *policy_class_find(struct str name);
unsigned policy_class_index(const struct policy_class *class);

/* One policy on one resource. Lives as long as the snapshot parts that hold it. */
struct step {
	const struct policy_class *class;
	hook *run;                        /* of this chain's leg; NULL in connect and done chains */
	const void *conf;
	void *cell;                       /* NULL when the class has none */
	struct part *bound;               /* of the class's bind; NULL when it has none */
	struct series *const *series;     /* POLICY_OUTCOMES entries, then the class's gauge */
	struct str policy_id, policy_name, attachment_id, resource_id;
	bool needs_body;                  /* the request body is read before it runs, if its class says so */
	uint8_t order;                    /* enum stage or enum response_stage of this chain */
	uint8_t level;
	uint8_t class_index;
};

enum leg { LEG_CONNECT, LEG_REQUEST, LEG_SERVICE, LEG_ATTEMPT, LEG_RESPONSE, LEG_DATA, LEG_COUNT };

struct chain {
	const struct step *steps;         /* by order, then by age of the attachment */
	unsigned n;
};

/* The compiled policies of one resource. */
struct policies {
	struct part part;
	struct chain legs[LEG_COUNT];
	uint64_t hides;                   /* bit set of class indexes that broader levels must not run */
	unsigned wants;                   /* enum wants of all steps */
	struct settings settings;
	struct arena arena;               /* the steps live here; confs and cells are parts held by `held` */
	struct part **held;
	unsigned n_held;
};
extern const struct policies policies_none;

/* --- verdicts --- */
static inline enum verdict next(void)
{
	return NEXT;
}
struct wait;
/*
 * The response is x->res: status, headers added by message_add(&x->res, ...), body. reply() makes it from scratch with
 * Content-Type (absent str = none) and body (must live as long as the exchange); more headers may be added after it.
 */
enum verdict reply(struct exchange *x, int status, struct str content_type, struct str body);
/* {errorCode, errorMessage, requestId} as application/json. */
enum verdict reply_error(struct exchange *x, int status, const char *code, struct str message);
/*
 * Body of an error of ours, as JSON, for clients of an API that has a form of its own for it. Absent: this request is
 * none of the API's.
 */
typedef struct str error_shape(struct exchange *x, int status, const char *code, struct str message);
/* As the client's API says errors; absent: it has no form of its own, and reply_error() has that of all others. */
struct str exchange_shaped_error(struct exchange *x, int status, const char *code, struct str message);
/* From here on, instead of that of the route. */
void exchange_shape_errors(struct exchange *x, error_shape *shape);
/*
 * Makes of `req`, which is what goes to the service of the exchange, what another one may get as a copy (mirror.h): its
 * address and its credentials instead of those of the first. Rows are made anew, never changed in place. True: Host is
 * the service's own, and says nothing of a copy.
 */
typedef bool copy_shape(struct exchange *x, const struct service *to, struct message *req);
void exchange_shape_copies(struct exchange *x, copy_shape *shape);
/* Closes the connection without a byte (L4 lists on Domain and Route). */
enum verdict reply_close(struct exchange *x);
enum verdict await(struct exchange *x, struct wait *w, hook *then);
enum verdict fail(struct exchange *x, const char *what);     /* a dependency is broken: the class decides */

/* Something an exchange waits for. First member of every timer, call, lookup that a policy starts. */
struct wait {
	struct exchange *x;               /* who waits, or NULL */
	bool done;                        /* finished before anybody waited */
	void (*cancel)(struct wait *w);   /* the exchange is going away: forget it now */
};
void wait_done(struct wait *w);           /* by whoever completes it, from any callback on the worker's thread */

/* --- dry runs --- */
bool exchange_is_dry(const struct exchange *x);
/* What a person should know about the step being run: "3 of 100 are left". Nothing but for dry runs. */
void exchange_note(struct exchange *x, const char *format, ...) PRINTF(2, 3);
/* Of an explain hook that cannot tell, and why (static text): the dry run goes on as if the step had passed. */
enum verdict cannot_judge(struct exchange *x, const char *why);

/* --- bodies (body.h) --- */
/* The whole request body, in one piece, for hooks that have it; absent where it was not read. */
struct str exchange_request_body(const struct exchange *x);
/* What it lies in, for jobs that outlive the exchange (retain_hold, retain_whole). */
struct retained;
struct retained *exchange_retained(const struct exchange *x);
/* Takes its place; copied. Length and framing of the request follow. Only for hooks that have the body. */
void exchange_replace_request_body(struct exchange *x, struct str body);
/*
 * For hooks of the response leg: `then` runs when the upstream's body is there whole, or `most` bytes of it; the head
 * waits for that. At once where there is nothing to wait for. What is held goes on to the client after the leg.
 */
enum verdict await_response_body(struct exchange *x, size_t most, hook *then);
struct str exchange_response_body(const struct exchange *x, bool *is_whole);      /* in `then` */
/*
 * In `then`, when the body is whole: `body` takes its place; it must live as long as the exchange. The length follows.
 */
void exchange_replace_response_body(struct exchange *x, struct str body);
/* For `data` hooks: the piece, which may be empty when it is the last one. */
struct str exchange_piece(const struct exchange *x, bool *is_last);
void exchange_replace_piece(struct exchange *x, struct str piece);        /* must live until it was sent */
/* This piece is the last one: what else the upstream has to say is not wanted, its connection is given up. */
void exchange_end_pieces(struct exchange *x);
/*
 * Outside hooks (a timer, a side call that is over): the data hooks run again, with an empty piece where the upstream
 * sent nothing meanwhile. Not after the last piece was passed.
 */
void exchange_poke_pieces(struct exchange *x);
/* Of `data` hooks that hold pieces back: the upstream is not read until the next poke. */
void exchange_hold_upstream(struct exchange *x, bool hold);
/*
 * Of a `data` hook with the last piece, which has more to say than it can now: for the hooks behind it this is not the
 * end. Each poke from now on is a last, empty piece for this hook; those before it see the end once.
 */
void exchange_hold_end(struct exchange *x);
/* Response leg: pieces will be replaced, so that the length the upstream promised does not hold. */
void exchange_drop_length(struct exchange *x);

/* --- what a hook may ask and say --- */
/*
 * What ai/ keeps of a request to a model (ai/chat.h); NULL: it is none. proxy/ only carries it.
 */
struct chat *exchange_chat(const struct exchange *x);
void exchange_set_chat(struct exchange *x, struct chat *c);
/* Request leg: this one of the route's services is meant, whatever their weights say. */
void exchange_choose_target(struct exchange *x, unsigned target);
/* From the service leg on: the service, and how many were turned to before it. */
struct str exchange_service_id(const struct exchange *x);
unsigned exchange_service_turn(const struct exchange *x);
/*
 * Services that were turned away from, in their order. status: of what each answered, 0 = nothing; why: "connect",
 * "reset", "timeout", "malformed", "status", "answer" (its status was good), "refused" (by a policy that speaks for
 * it), "unavailable" (no endpoint).
 */
struct left_service {
	struct str id, name;
	int status;
	const char *why;
};
const struct left_service *exchange_left_services(const struct exchange *x, unsigned *n);
/*
 * Service leg: these services are turned to, in their order, when this one fails, instead of those of its Fallback.
 * `statuses`: bit i: an answer with status 400 + i is a failure too. Both must live as long as the exchange.
 */
void exchange_set_fallback(struct exchange *x, const struct fallback_rules *rules, const uint64_t statuses[4]);
/*
 * After exchange_set_fallback(): the steps of these policies run at services too that have none of their class, in legs
 * after the service leg.
 */
void exchange_carry(struct exchange *x, const struct policies *p);
/*
 * Called whenever another service is turned to, before its steps run: what was made of the request for the one before
 * is undone there. No call is open then.
 */
void exchange_watch_turns(struct exchange *x, void (*turned)(struct exchange *x));
/*
 * Asked for each answer that is dropped for its status, or for the one of gRPC in its head, for another try or another
 * service: who wants to know its body; NULL: nobody. The head is in exchange_response(). Not asked for answers that
 * break off or are too late, nor for those that refuse_answer() gave up. An exchange has one such hook: a later one
 * takes its place.
 *
 * `read` is called once, on the worker's thread. Where the body is there already, or the rest of it is not worth
 * reading (leftover.h), it is called before the hook's caller goes on; else when the rest came, or stopped coming, and
 * the exchange may be gone by then. `body` lives as long as the call. is_whole: it is all of it, and within
 * LEFTOVER_BYTES; otherwise it is a beginning, of any length.
 */
struct leftover_reader {
	void (*read)(struct leftover_reader *r, struct str body, bool is_whole);
};
typedef struct leftover_reader *drop_hook(struct exchange *x);
void exchange_watch_drops(struct exchange *x, drop_hook *dropped);
/*
 * Response leg, before a byte of the answer went on: whether a service is left to turn to instead. refuse_answer(): it
 * is turned to now, as after a failure.
 */
bool exchange_may_refuse(const struct exchange *x);
enum verdict refuse_answer(struct exchange *x);
/* A member of the access record: ,"name":value as JSON that lives as long as the exchange; the last one counts. */
void exchange_keep_member(struct exchange *x, struct str member);
/* zeroed state_size bytes of this policy, made on first use: the same ones in all its hooks */
void *exchange_state(struct exchange *x, const struct step *s);
void policy_count(const struct step *s, unsigned outcome);
void policy_gauge(const struct step *s);  /* what the cell shows has changed */
struct arena *exchange_arena(struct exchange *x);
/*
 * What became of the upstream exchange as a whole, after all attempts: for done hooks. Times are of clock_us(), 0 where
 * it did not come that far. A reply of a policy's is none of the upstream's doing (OUTCOME_LOCAL); so is one that the
 * client did not wait for.
 */
enum outcome_from { OUTCOME_LOCAL, OUTCOME_UPSTREAM, OUTCOME_FAILURE };   /* FAILURE: ours, for one of the upstream's */
enum outcome_end { OUTCOME_COMPLETE, OUTCOME_CLIENT_GONE, OUTCOME_CUT };  /* CUT: broken off after the head */
struct upstream_outcome {
	enum outcome_from from;
	enum outcome_end end;             /* of the upstream's part: complete, though the client left while reading */
	int status;                       /* the upstream's, or the one that stands for its failure; 0: neither */
	bool is_over;                     /* nothing more comes of the upstream */
	bool is_stream;                   /* events, gRPC, an upgrade: lasts as long as the peers want */
	int64_t dispatch_us, head_us, end_us;
};
struct upstream_outcome exchange_outcome(const struct exchange *x);
/* Of the whole upstream exchange; 0 = none. Before a service was picked: the longest that its services have. */
int64_t exchange_timeout_ms(const struct exchange *x);
struct message *exchange_request(struct exchange *x);
struct message *exchange_response(struct exchange *x);            /* response leg */
const struct ip *exchange_client_ip(const struct exchange *x);    /* after trusted proxies */
const struct ip *exchange_peer_ip(const struct exchange *x);      /* of the TCP peer (or PROXY protocol) */
uint32_t exchange_random(struct exchange *x);             /* fast, not for secrets */
/*
 * Request leg: the lane of the request (balance.h). tag empty: the baseline; it and `lanes` must live as long as the
 * exchange.
 */
struct lane_names;
void exchange_choose_lane(struct exchange *x, struct str tag, const struct lane_names *lanes);
bool exchange_is_tls(const struct exchange *x);
/*
 * Request leg: a Set-Cookie value that goes to the client with the response, whoever makes it, after the response leg.
 * It must live as long as the exchange.
 */
void exchange_set_cookie(struct exchange *x, struct str value);
/* The cookies of the request that are ours, among others of the same lines; a message of Cookie fields only. */
const struct message *exchange_own_cookies(const struct exchange *x);
/* Of a `claimed` hook: one step for each policy that claims this path, older attachments first; s is the first. */
const struct step *exchange_claims(const struct exchange *x, unsigned *n);
/*
 * Which of the keys derived from the node's secret the gateway seals with (gateway_keys.h); what the one before sealed
 * is still opened. 1 and up.
 */
unsigned exchange_key_generation(const struct exchange *x);
struct str exchange_scheme(const struct exchange *x);             /* "https" or "http", as the client asked for */
/* As the client asked, whatever rewrites follow. The query has no '?'; p == NULL: there was none. */
struct str exchange_host(const struct exchange *x);
struct str exchange_path(const struct exchange *x);
struct str exchange_query(const struct exchange *x);
/* A model or agent API, or a route with a policy for requests to models. */
bool exchange_is_for_models(const struct exchange *x);
struct str exchange_route_id(const struct exchange *x);           /* absent when no route matched */
struct str exchange_api_id(const struct exchange *x);             /* of the API that the route is an operation of */
bool exchange_is_h2(const struct exchange *x);                    /* the client speaks HTTP/2 */
struct str exchange_domain_id(const struct exchange *x);          /* absent when no domain matched */
/*
 * What of that path the route fixes: all of it (Exact), its first *n bytes (Prefix, and the base path of an API's
 * operation), or nothing that could be told apart (Regex).
 */
enum fixed_path { FIXED_NONE, FIXED_WHOLE, FIXED_PREFIX };
enum fixed_path exchange_fixed_path(const struct exchange *x, size_t *n);
/* X-Forwarded-*, X-Real-IP and X-Request-Id are in the request from here on, so that edits of them hold. */
void exchange_write_forwarded(struct exchange *x);
bool header_is_forwarded(enum header_id id);              /* one of these */
/*
 * Fields about addresses (http/address_field.h) as the operator wrote them, without what the client or the gateway says
 * there: a policy that edits such a field of the request makes the same edit here. Where the client's address is not
 * told, these are what is left. Empty at first; policies that write none cost nothing.
 */
struct message *exchange_written_addresses(struct exchange *x);
/* Takes the client's address out of the request: fields about addresses are those that the operator wrote. */
void exchange_hide_addresses(struct exchange *x);
void exchange_keep_flag(struct exchange *x, const char *flag);    /* access-record flag, a REASON's */
const char *exchange_flag(const struct exchange *x);              /* what exchange_keep_flag left, "" before it */
bool exchange_is_upstream_response(const struct exchange *x);     /* response leg: false for our own replies */
void exchange_keep_broken(struct exchange *x, const char *what);  /* for the record: a dependency that did not work */
/*
 * The consumer that an authentication policy found: its name goes to the upstream as X-Mse-Consumer and into the
 * record, also when it is refused afterwards. id: of the resource, absent when only a name is known (an authorization
 * service said it). Both must live as long as the exchange. The last one counts. Absent: nobody said.
 */
void exchange_set_consumer(struct exchange *x, struct str id, struct str name);
struct str exchange_consumer(const struct exchange *x);           /* its name */
struct str exchange_consumer_id(const struct exchange *x);
/*
 * What a verified token says: issuer and subject go into the record, claims are the properties jwt.claim.<name>. All of
 * it must live as long as the exchange; the last one counts.
 */
struct token_facts {
	struct str issuer, subject;
	struct str payload;               /* the token's second part as it came */
	const struct json *claims;        /* the object in it, or NULL: read when somebody asks */
	/* Takes the token off a request that goes to a provider of models, who must not have it; NULL: no need. */
	void (*remove)(struct message *req, const void *place);
	const void *place;
	struct token_facts *before;       /* of the policy that said some before; set by exchange_set_token() */
};
void exchange_set_token(struct exchange *x, struct token_facts *t);
/*
 * Value of a request property by the names of HeaderModify's Reference ("request.header.x", "client.ip", ...). Absent
 * str when missing or not safe for a header. property_known: whether the name may be used (response: in the response
 * direction).
 */
struct str exchange_property(struct exchange *x, struct str name);
bool property_known(struct str name, bool response);
/* The same in two steps, so that a policy reads the name once, in prepare(). `argument` points into the name. */
struct property {
	uint8_t id;
	struct str argument;              /* <name> of "request.header.<name>" and its like */
};
bool property_parse(struct str name, bool response, struct property *out);
struct str property_value(struct exchange *x, const struct property *p);
