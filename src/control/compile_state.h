/*
 * compile_state.h -- the compiler's working state, shared by compile*.c only.
 *
 *      change ──► check, decode ──► wanted state, marked dirty          compile_change(): may refuse, changes no map
 *      publish ──► settle: dirty states ──► parts ──► persistent maps   cannot fail
 *                  snapshot = the maps, held ──► workers
 *
 * Everything that can be refused happens in compile_change(); everything that is derived (chains, candidates,
 * sites) waits for the publish, where a thousand changes of one thing cost one. So undoing is the reverse
 * change and leaves no trace.
 *
 * Who depends on whom, and is made anew in this order: services and routes (with their chains) ──► vhosts ──►
 * gateways ──► domains' sites ──► bindings. Names of structs: <thing>_state is what the compiler knows of a
 * resource; states come to be when first mentioned, so the order of changes does not matter, and go when
 * nothing mentions them.
 */
#pragma once
#include "control/compile.h"
#include "control/resource.h"
#include "control/resources/types.h"
#include "core/list.h"
#include "core/map.h"
#include "proxy/dependency.h"
#include "proxy/router.h"

/* A part that a table finds again while anybody holds it: it survives from one version of a chain to the next. */
struct kept {
	struct part part;
	struct map *table;
	struct str key;
};

/* ---------- policies ---------- */

/* One version of a policy, decoded: shared by all its steps. */
struct conf {
	struct part part;
	struct arena arena;
	const struct policy_class *class;
	const void *conf;
	bool enable;
	struct str policy_id, policy_name, canonical;
};

/* State of one attachment on one resource. Key: attachment id, resource id. */
struct cell {
	struct kept kept;
	struct conf *conf;                /* the one it was made for; held */
	void *memory;
	/* where the class depends on something: its state is asked for */
	struct list of_compiler;          /* compiler.dependencies */
	const struct dependency *dependency;      /* in `memory`; NULL */
	struct series *up;
	struct str attachment_id;         /* in `kept.key` */
	struct dependency_state shown;    /* as it was read last */
};

/* Counters of one attachment on one resource. Key: policy name, attachment id, resource id, resource name. */
struct tally {
	struct kept kept;
	struct series *series[POLICY_OUTCOMES + 1];   /* then the class's gauge */
};

struct policy_state {
	struct str id;                    /* behind the struct */
	const struct policy_class *class; /* NULL while the policy is not there */
	struct conf *conf;                /* NULL: not enforced, or broken: see trouble */
	bool enable;
	char trouble[200];
	struct list attachments;          /* attachment_state.of_policy */
};

/* One resource of an attachment. */
struct attachment_link {
	struct list node;                 /* in attached.links, by age */
	struct attachment_state *attachment;
	struct str resource_id;
};

struct attachment_state {
	struct str id;
	struct arena arena;               /* id, links */
	uint64_t age;
	enum scope scope;
	struct str gateway_id;
	struct policy_state *policy;
	struct list of_policy;
	struct attachment_link *links;
	unsigned n_links;
	enum phase phase;
	bool is_counted;                  /* among those whose dependency is down */
	char reason[240];
};

/* What is attached to a resource. */
struct attached {
	struct str id;                    /* behind the struct */
	struct list links;
};

/* Whose chains: a resource, and the API it inherits from (id absent: none). */
struct bearer {
	enum level level;
	struct str id, name;
	struct str parent_id;
	bool is_ai;                       /* a model or agent API, or a provider of them: the step of ai/ runs there */
};

/* ---------- routing ---------- */

/* The routes of a domain or of a gateway without regard to the domain; part of its owner's state. */
struct vhost_state {
	struct list dirty;
	struct gateway_state *gateway;    /* of one of these it is */
	struct domain_state *domain;
	uint32_t number;                  /* 0 = no route yet */
	unsigned n_routes, n_exact, n_nocase;
	unsigned prefixes[64], slashes[64];
	struct mask_count {
		struct template_mask mask;
		unsigned count;
	} *masks;
	unsigned n_masks;
	struct route **regexes;           /* in the order of struct vhost */
	unsigned n_regexes;
	struct vhost *vhost;              /* in force; held */
};

/* A route decoded, without its chains. */
struct route_base {
	struct part part;
	struct arena arena;
	struct resource *resource;        /* held: id and name are its */
	struct route content;             /* all but part, policies, held; series are held by the base */
	char kind;                        /* of its key; 0 = regex */
	struct str key_path;
	struct template_mask mask;
	struct str gateway_id;
	const struct str *domain_ids;     /* none: every host of the gateway */
	unsigned n_domain_ids;
};

struct route_state {
	struct str id;                    /* behind the struct */
	struct list dirty;
	struct list of_api;               /* operations only */
	struct resource *resource;        /* operations only: held */
	struct str parent_id;             /* operations: their API, whose policies they inherit */
	struct route_base *base;          /* wanted; NULL = none */
	struct route_base *placed;        /* what `route` was made from */
	struct route *route;              /* in snapshot.paths or a vhost's regexes; held */
};

struct api_state {
	struct str id;                    /* behind the struct */
	struct resource *resource;        /* NULL while only mentioned; held */
	struct list operations;           /* route_state.of_api */
	struct route_state *own;          /* of an API without operations: its base path */
};

/* ---------- listening ---------- */

struct binding_state {
	struct str key;                   /* behind the struct */
	struct addr addr;
	struct list dirty;
	struct map claims;                /* host or "*" → the gateway_state that serves it here */
	struct gateway_state **users;
	unsigned n_users;
	int *fds;                         /* [workers] opened and not published yet; NULL */
	bool is_published;
	struct pmap *hosts;               /* → struct site */
	bool is_tls;
	struct pmap *tls_servers;         /* → struct tls_server; empty unless is_tls */
	struct binding *binding;          /* in force; held */
};

/* Where and for whom a gateway listens, as its document says. */
struct gateway_plan {
	struct arena arena;
	struct str name;
	struct addr *addrs;
	struct str *keys;
	unsigned n_addrs;
	struct addr *lost;                /* addresses that could not be bound at start, and their keys */
	struct str *lost_keys;
	unsigned n_lost;
	int64_t retry_ms, retry_wait_ms;  /* when they are tried again, clock_ms(); how long it waited last */
	struct str *hosts;                /* names, lower case */
	unsigned n_hosts;
	bool any_host;
	enum carries carries;
	struct gateway_tls *tls;          /* NULL: in the clear */
	enum phase phase;
	struct str reason, last_error;
};

struct gateway_state {
	struct str id;                    /* behind the struct */
	struct list dirty;
	bool sites_only;                  /* dirty: the gateway part itself stays */
	bool exists;
	struct gateway_plan *plan;        /* NULL unless it exists */
	struct binding_state **bindings;
	unsigned n_bindings;
	struct list domains;              /* domain_state.of_gateway: those that exist */
	struct map tls_domains;           /* name → domain_state of those with wishes about TLS */
	struct vhost_state routes;
	struct gateway *gateway;          /* in force; held */
	struct site *site;                /* without a domain; held */
};

struct domain_state {
	struct str id;                    /* behind the struct */
	struct list dirty, of_gateway;
	bool exists;
	bool policies_stale;
	struct str name;                  /* lower case; mem_alloc'ed */
	struct gateway_state *gateway;    /* NULL unless it exists */
	struct domain_tls *tls;           /* NULL unless it exists */
	struct vhost_state routes;
	struct policies *policies;        /* held unless &policies_none */
	struct site *site;                /* held */
};

/* ---------- services ---------- */

struct endpoint_state {
	struct str key;                   /* service id, host:port; behind the struct */
	struct endpoint_cell *cell;       /* held */
	unsigned uses;                    /* by wanted services */
	struct list idle;
};

struct service_base {
	struct part part;
	struct arena arena;
	struct service content;           /* all but part, policies, held; endpoints: all but tls */
	struct str gateway_id;
	struct endpoint_state **endpoints;
	unsigned n_endpoints;
	struct part **held;               /* cells */
	unsigned n_held;
};

struct service_state {
	struct str id;                    /* behind the struct */
	struct list dirty;
	struct ring *ring;                /* the last one made; held */
	struct service_base *base;        /* wanted; NULL = none */
	bool is_placed;
};

struct compiler {
	const struct model *model;
	struct compiler_settings settings;
	uint64_t version;
	bool changed;                     /* the maps differ from what is published */
	struct pmap *bindings, *paths, *services;
	struct pmap *claims;              /* NULL: there are none */
	struct str own_cookies;           /* of snapshot.own_cookies; with it */
	bool claims_stale;
	/* states by id; values as the names say */
	struct map policy_states, attachment_states, attached, cells, tallies;
	struct map route_states, api_states, service_states, endpoint_states;
	struct map gateway_states, domain_states, binding_states;
	struct map tls_servers, certificate_states, tls_clients;
	unsigned n_port_attachments;
	struct endpoint_cell **changed_cells;     /* since the last publish; held */
	unsigned n_changed_cells, changed_cap;
	struct list dirty_routes, dirty_services, dirty_vhosts, dirty_gateways, dirty_domains, dirty_bindings;
	struct list idle_endpoints;
	struct list dependencies;         /* cell.of_compiler */
	struct consumers_state *consumers;   /* compile_consumer.c */
	uint32_t vhost_numbers;
	unsigned degraded;
	struct inbox returned;
	int woken;                        /* eventfd: a worker adopted, or a snapshot came back */
	struct series *version_series, *publish_series, *degraded_series;
};

/* A state with its id behind it; linked into `map`. */
void *state_new(struct map *map, size_t size, size_t id_at, struct str id);
static inline void mark_dirty(struct list *dirty, struct list *node)
{
	if (list_is_empty(node))
		list_append(dirty, node);
}
struct kept *kept_find(struct map *table, struct str key);
void kept_enter(struct kept *k, struct map *table, struct str key);      /* the key is copied */
void kept_leave(struct kept *k);                                         /* by destroy, at first */
/* Drops the array of parts and the array. */
void parts_drop(struct part **held, unsigned n);

/* compile_policy.c: policies and attachments */
MUST_USE bool policy_change(struct compiler *c, const struct change *change, struct problem *why);
MUST_USE bool attachment_change(struct compiler *c, const struct change *change, struct problem *why);
/* What ports and services of the gateway have: an identity of the gateway changed. */
void attachments_recheck_gateway(struct compiler *c, struct str gateway_id);
/* Settings of the gateway changed: chains with classes that bind them are made anew. */
void attachments_rebind(struct compiler *c, struct str gateway_id);
/* What the class's bind makes for this attachment: one reference, or NULL. cell: its memory, or NULL. */
struct part *attachment_bind(struct compiler *c, const struct attachment_state *a, struct str resource_id, void *cell);
void attachments_recheck(struct compiler *c, const struct resource *changed);   /* whose policies refer to it */
struct attached *attached_find(const struct compiler *c, struct str resource_id);
enum resource_kind scope_kind(enum scope scope);                         /* of what an attachment of that scope is on */
void policies_free(struct compiler *c);

/* compile_chain.c: chains of one resource */
/* What becomes of an attachment on a resource. */
enum fate {
	FATE_TAKEN,                       /* it is in the chains and the settings, or, disabled, it is an opt-out */
	FATE_ABSENT,                      /* disabled, as if it were not there */
	FATE_UNUSABLE,                    /* its class is not enforced, or its config cannot be used */
	FATE_REPLACED,                    /* `by` has its place: the operation's own, or an older one on the resource */
};
struct surveyed {
	const struct attachment_state *attachment, *by;
	struct str resource_id;           /* of the bearer, or its parent */
	enum fate fate;
};
typedef void survey_visit(void *arg, const struct surveyed *s);
/* What policies_compile() makes of each attachment: the bearer's own, then its parent's, each by age. */
void policies_survey(const struct compiler *c, const struct bearer *on, survey_visit *visit, void *arg);
/* Whether the class acts in this leg of this level; *run is its hook, where the leg runs one. */
bool policy_hook(const struct policy_class *class, enum level level, enum leg leg, hook **run);
unsigned policy_order(const struct policy_class *class, enum leg leg);   /* of its step in a chain of that leg */
struct policies *policies_compile(struct compiler *c, const struct bearer *on);
/*
 * One attachment on one resource as a step of no chain: its conf, its cell and its counters are added to `held`, which
 * has room for three more. a->policy->conf is there and enabled.
 */
struct step step_compile(struct compiler *c, const struct attachment_state *a, const struct bearer *on,
			 struct part **held, unsigned *n_held);
struct policies *policies_hold(struct policies *p);
void policies_drop(struct policies *p);

/* compile_issuer.c: the state of a cell whose class asks issuers of consumers; any other is left alone */
void issuers_look(const struct compiler *c, struct cell *cell);

/* compile_claim.c: paths that policies answer themselves, to snapshot.claims */
/* A policy or an attachment changed from or to this class (NULL: none). */
void claims_mark(struct compiler *c, const struct policy_class *class);
bool claims_settle(struct compiler *c);                                  /* whether there was anything */

/* compile_route.c: documents to route_base */
MUST_USE bool route_change(struct compiler *c, const struct change *change, struct problem *why);
struct route_source {
	struct resource *resource;
	const char *type;                 /* resource_type */
	struct str gateway_id;
	const struct items *domain_ids;
	const struct backend *backend;    /* NULL = none */
	int match;                        /* enum match_type */
	const char *path_field;           /* for problems */
	struct str path;
	struct str base_path, api_id;     /* of the API that it is an operation of; absent = none */
	const struct route_match *conditions;   /* NULL = none */
	struct str method;                /* the only one; absent = as conditions say */
};
/* NULL fills *why. `a`: scratch. */
struct route_base *route_base_new(struct compiler *c, const struct route_source *s, struct problem *why);
struct route_state *route_state_get(struct compiler *c, struct str id);
void route_want(struct compiler *c, struct route_state *r, struct route_base *base);   /* takes the base */
struct str gateway_name(const struct compiler *c, struct str gateway_id);

/* compile_api.c: REST APIs and operations */
MUST_USE bool api_change(struct compiler *c, const struct change *change, struct problem *why);
MUST_USE bool operation_change(struct compiler *c, const struct change *change, struct problem *why);
void api_mark_dirty(struct compiler *c, struct str api_id);
void apis_free(struct compiler *c);

/* compile_ai.c: model and agent APIs, and their services */
MUST_USE bool ai_api_change(struct compiler *c, const struct change *change, struct problem *why);
struct service_doc;
struct url;
/* NULL: it is no provider. */
const struct chat_service *ai_service_read(struct arena *a, const struct service_doc *doc);
/* Where the provider is; false: it is none. Texts point into the document. */
bool ai_service_url(const struct service_doc *doc, struct url *url);

/* compile_vhost.c: routes to snapshot.paths and vhosts */
void route_settle(struct compiler *c, struct route_state *r);
void vhost_settle(struct compiler *c, struct vhost_state *v);
void vhost_state_free(struct vhost_state *v);
void routes_free(struct compiler *c);

/* compile_gateway.c: gateways, domains, features */
MUST_USE bool gateway_change(struct compiler *c, const struct change *change, struct problem *why);
MUST_USE bool domain_change(struct compiler *c, const struct change *change, struct problem *why);
struct gateway_state *gateway_get(struct compiler *c, struct str id);
struct domain_state *domain_get(struct compiler *c, struct str id);
void gateway_mark(struct compiler *c, struct gateway_state *g, bool sites_only);
void gateway_settle(struct compiler *c, struct gateway_state *g);
void domain_settle(struct compiler *c, struct domain_state *d);
void gateways_free(struct compiler *c);

/* compile_listener.c: bindings and their sockets */
struct gateway_plan *gateway_plan_new(struct compiler *c, const struct resource *r, struct problem *why);
void gateway_plan_free(struct gateway_plan *p);
/* Moves g to what `plan` says (NULL: away) and takes the plan. A refusal changes nothing. */
MUST_USE bool gateway_move(struct compiler *c, struct gateway_state *g, struct gateway_plan *plan,
			   struct problem *why);
/* Opens the address for whoever joins it next; false: it cannot be bound. sweep: closes those that nobody joined. */
MUST_USE bool binding_prepare(struct compiler *c, struct str key, const struct addr *addr, struct problem *why);
void bindings_sweep(struct compiler *c, const struct str *keys, unsigned n);
/* Whether g may serve `name` on all its bindings. */
MUST_USE bool gateway_claim(struct gateway_state *g, struct str name, const char *field, struct problem *why);
void gateway_unclaim(struct gateway_state *g, struct str name);
/* Puts the site (NULL: nothing) that serves `name` for g on all its bindings. */
void gateway_place(struct compiler *c, struct gateway_state *g, struct str name, struct site *site);
void binding_settle(struct compiler *c, struct binding_state *b);
/* Sockets opened and closed since the last publish become the snapshot's. */
void bindings_publish(struct compiler *c, struct snapshot *s);
void bindings_free(struct compiler *c);

/* compile_tls.c: certificates, and what listeners show of them */
MUST_USE bool certificate_change(struct compiler *c, const struct change *change, struct problem *why);
/* NULL fills *why. */
struct gateway_tls *gateway_tls_new(struct compiler *c, const struct gateway_doc *doc, struct problem *why);
void gateway_tls_free(struct gateway_tls *t);
/* What is wrong with its certificates; absent when nothing is. *is_useless: there is nothing to show. */
struct str gateway_tls_trouble(const struct gateway_tls *t, bool *is_useless);
/* Its certificates or versions changed: so do those of its domains. */
void gateway_tls_refresh(struct compiler *c, struct gateway_state *g);
/* What a domain asks for, made for its gateway. NULL fills *why. */
struct domain_tls *domain_tls_new(struct compiler *c, const struct gateway_state *g, const struct resource *r,
				  struct problem *why);
void domain_tls_free(struct domain_tls *t);
/* Takes t (NULL: none); d->gateway and d->name are those that it is for. */
void domain_tls_set(struct compiler *c, struct domain_state *d, struct domain_tls *t);
/* The names of g on b anew, after g joined it or left it. */
void tls_place_gateway(struct compiler *c, struct gateway_state *g, struct binding_state *b);
const struct tls_server *tls_fallback(const struct binding_state *b);    /* for clients that name no known host */
void tls_guard_site(const struct compiler *c, struct site *s, const struct domain_state *d);
void tls_mark_redirecting(struct compiler *c);                           /* a gateway with TLS came, moved or went */
void certificates_free(struct compiler *c);                              /* after everything that shows them */

/* compile_consumer.c: consumers and authorization rules to snapshot.consumers */
struct consumers_state *consumers_new(void);
MUST_USE bool consumer_change(struct compiler *c, const struct change *change, struct problem *why);
MUST_USE bool rule_change(struct compiler *c, const struct change *change, struct problem *why);
bool consumers_settle(struct compiler *c);                               /* whether there was anything */
struct consumer;
/* One of the enabled consumers whose keys cannot be fetched, that `counts`; false: there is none. */
struct consumer_down {
	struct str name;
	struct dependency_state issuer;
};
bool consumers_find_down(const struct compiler *c, bool (*counts)(void *arg, const struct consumer *who), void *arg,
	struct consumer_down *out);
void consumers_publish(const struct compiler *c, struct snapshot *s);    /* not held */
void consumers_free(struct consumers_state *all);

/* compile_series.c */
struct series *traffic_series(struct str gateway, struct str route);     /* route "": of those that match none */
void series_drop(struct series *s);                                      /* NULL is fine */
void service_open_series(struct service *s, struct str gateway);         /* by its name and the gateway's */
void service_close_series(struct service *s);                            /* also when they were not opened */
void endpoint_open_series(struct endpoint_cell *cell, struct str gateway, struct str service, struct str text);
void endpoint_close_series(struct endpoint_cell *cell);

/* compile_service.c */
MUST_USE bool service_change(struct compiler *c, const struct change *change, struct problem *why);
void service_mark_dirty(struct compiler *c, struct str id);
void service_settle(struct compiler *c, struct service_state *s);
/* compile_upstream.c: how endpoints are spoken to */
void upstream_secure_service(struct compiler *c, struct service *s, const struct service_base *base);
/* Endpoints that are spoken to in another way: the next publish closes their idle connections. */
void upstream_note_changes(struct compiler *c, const struct service *before, const struct service *after);
void upstreams_publish(struct compiler *c, struct snapshot *s);
void upstreams_free(struct compiler *c);
/* A gateway setting, and what hangs on it and on certificates that it names. */
MUST_USE bool identity_change(const struct compiler *c, const struct change *change, struct problem *why);
void identity_recheck(struct compiler *c, const struct resource *changed);

void services_publish(struct compiler *c, struct snapshot *s);   /* retired endpoints */
void services_free(struct compiler *c);
