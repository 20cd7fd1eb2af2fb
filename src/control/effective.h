/*
 * effective.h -- which policies act on the requests of a route, in the order in which they act, and what became of the
 * rest of what is attached around it.
 *
 * Nothing is decided here: the order and what is hidden come from walking the compiled chains as requests do
 * (proxy/pipeline.c), the fate of each attachment from the compiler that made them (policies_survey).
 */
#pragma once
#include "control/compile_state.h"

enum effect {
	EFFECT_RUNS,
	EFFECT_HIDDEN,                    /* a narrower attachment of its class has its place: hidden_by */
	EFFECT_OPTS_OUT,                  /* disabled, and keeps broader ones of its class from acting */
	EFFECT_DISABLED,                  /* as if it were not there */
	EFFECT_CANNOT,                    /* the attachment's status says why */
};
const char *effect_name(enum effect e);           /* "Runs" ... */

/* Groups of rows in the order of a request; settings stand where they act. */
enum effective_group {
	GROUP_CONNECT, GROUP_REQUEST, GROUP_SERVICE, GROUP_SETTING, GROUP_ATTEMPT, GROUP_RESPONSE, GROUP_DATA,
	GROUP_COUNT
};
extern const char *const effective_groups[GROUP_COUNT];   /* "connect" ... */

/* One attachment in one leg. */
struct effective_row {
	const struct attachment_state *attachment, *hidden_by;
	const struct policy_class *class;
	struct str resource_id, resource_name;
	const struct service *service;    /* of rows of a service and its ports; NULL otherwise */
	uint16_t port;                    /* of rows of a service's port; 0 otherwise */
	const struct step *step;          /* in the compiled chain; NULL for settings and for what has none */
	enum effective_group group;
	unsigned order;                   /* enum stage, or enum response_stage */
	enum level level;
	enum effect effect;
};

struct effective {
	struct arena *arena;
	const struct compiler *compiler;
	const struct route *route;
	struct str parent_id;             /* of an operation: its API */
	const struct gateway_state *gateway;
	const struct domain_state *domain;        /* NULL: none */
	struct effective_row *rows;
	unsigned n, room;
};

/*
 * The rows of a route that is in force, as requests for a host of `domain` (NULL: of no domain) meet it. All memory is
 * `a`'s; the parts it points to live until the next change.
 */
struct effective *effective_new(const struct compiler *c, const struct route_state *r,
				const struct domain_state *domain, struct arena *a);
/* The rows of one more service: a fallback's, which requests of the route may come to. */
void effective_add_service(struct effective *e, const struct service *s);
/* The item of the API: {leg, stage, effect, className, ...}. */
struct json *effective_item(const struct effective *e, const struct effective_row *row, struct arena *a);
/*
 * [{className, level, policyId, policyName, attachmentId, config}]: the settings that act for requests to a port of the
 * service; port 0: to any of its ports, which items of one port name then.
 */
struct json *effective_settings(const struct effective *e, const struct service *s, uint16_t port, struct arena *a);
