/*
 * external_z_auth.c -- ExternalZAuth: an authorization service of the user decides on each request.
 *
 * The service sees method, path and headers in the form the upstream will get them, never the body. 2xx lets the
 * request pass, with the identity that the service tells; another answer below 500 is the client's; anything else (5xx,
 * no answer, one too late, too large or unreadable) refuses the request: there is no way to pass without a yes.
 *
 *      request leg:  ask ──► strip identity, ask the service ──► judge ──► next, relay, refuse
 */
#include "core/log.h"
#include "http/identity_field.h"
#include "policy/identity_headers.h"
#include "policy/side_url.h"
#include "proxy/dependency.h"
#include "proxy/grpc.h"
#include "proxy/policy.h"
#include "proxy/side_call.h"

#define RELAYED_MAX 65536                 /* bytes of a refusal's body */
#define LOOP_MARK "X-Sluice-Ext-Auth"     /* on what we ask: whoever gets it back must not ask again */
#define LOOP_POLICIES "X-Sluice-Ext-Auth-Policy"
#define ADDED_LINES 10

enum outcome { PASSED, REFUSED, UNAVAILABLE, LOOPED };

struct external_z_auth {
	struct str authServiceUrl;
	int64_t timeout;
	bool enable;
	/* prepared: what stands before the request's path and before its query */
	struct str path, query;
};

struct cell {
	struct dependency service;
};

struct state {
	struct side_call *call;
};

static const struct field fields[] = {
	TEXT(struct external_z_auth, authServiceUrl, REQUIRED, RANGE(1, SIDE_URL_MAX),
	     FORMAT(side_url_format),
	     EXAMPLE("\"https://auth-service.example.com/verify\""),
	     DOC("URL of the authorization service; the request's path is appended to its path.")),
	INT(struct external_z_auth, timeout, RANGE(1, 60000), DEFAULT("5000"), UNIT("ms"),
	    DOC("How long the whole exchange with the service may take.")),
	BOOL(struct external_z_auth, enable, REQUIRED, DOC("Whether the policy acts.")),
	FIELDS_END
};

static bool prepare(void *conf, struct arena *a, struct problem *why)
{
	struct external_z_auth *auth = conf;
	struct url url;
	size_t at;

	(void)a;
	if (!url_parse(auth->authServiceUrl, &url))
		return problem(why, "authServiceUrl", "must be an absolute http or https URL");
	at = str_find(url.target, '?');
	auth->path = (struct str){ url.target.p, at };
	if (at < url.target.n)
		auth->query = (struct str){ url.target.p + at + 1, url.target.n - at - 1 };
	if (auth->path.n > 0 && auth->path.p[auth->path.n - 1] == '/')
		auth->path.n--;
	return true;
}

/* ---------- asking ---------- */

/* The service's path, then the request's; the service's query, then the request's. Bytes as they are. */
static struct str make_target(struct exchange *x, const struct external_z_auth *auth)
{
	const struct message *req = exchange_request(x);
	bool has_both = auth->query.n > 0 && req->query.n > 0;

	return arena_printf(exchange_arena(x), "%.*s%.*s%s%.*s%s%.*s", STR_FMT(auth->path), STR_FMT(req->path),
			    auth->query.n > 0 || req->query.p ? "?" : "", STR_FMT(auth->query), has_both ? "&" : "",
			    STR_FMT(req->query));
}

/* Lines that mean the connection, or that we write ourselves. */
static bool is_left_out(struct str name)
{
	static const char *const names[] = {
		"accept-encoding", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-method",
		"x-forwarded-uri", "x-original-method", "x-original-uri", "x-request-id", "http2-settings",
	};

	for (unsigned i = 0; i < sizeof names / sizeof names[0]; i++)
		if (str_equal_nocase(name, str_of(names[i])))
			return true;
	return name.n > 14 && str_equal_nocase((struct str){ name.p, 14 }, STR("sec-websocket-"));
}

static struct str request_uri(struct exchange *x)
{
	const struct message *req = exchange_request(x);

	return req->query.p ? arena_printf(exchange_arena(x), "%.*s?%.*s", STR_FMT(req->path), STR_FMT(req->query)) :
	       req->path;
}

/* The client's lines but those left out, then ours. `chain`: policies that asked before, ours included. */
static struct header *make_lines(struct exchange *x, struct str chain, unsigned *n)
{
	const struct message *req = exchange_request(x);
	const struct str uri = request_uri(x);
	const struct header ours[ADDED_LINES] = {
		{ .name = STR("X-Forwarded-For"), .value = exchange_property(x, STR("client.ip")) },
		{ .name = STR("X-Forwarded-Proto"), .value = exchange_property(x, STR("request.scheme")) },
		{ .name = STR("X-Forwarded-Host"), .value = exchange_property(x, STR("request.host")) },
		{ .name = STR("X-Forwarded-Method"), .value = req->method_name },
		{ .name = STR("X-Forwarded-Uri"), .value = uri },
		{ .name = STR("X-Original-Method"), .value = req->method_name },
		{ .name = STR("X-Original-Uri"), .value = uri },
		{ .name = STR("X-Request-Id"), .value = exchange_property(x, STR("request.id")) },
		{ .name = STR(LOOP_MARK), .value = STR("1") },
		{ .name = STR(LOOP_POLICIES), .value = chain },
	};
	struct header *lines = NEW_N(exchange_arena(x), struct header, req->n + ADDED_LINES);

	*n = 0;
	for (unsigned i = 0; i < req->n; i++)
		if (!req->headers[i].dropped && !is_left_out(req->headers[i].name))
			lines[(*n)++] = req->headers[i];
	memcpy(lines + *n, ours, sizeof ours);
	*n += ADDED_LINES;
	return lines;
}

/*
 * Whether the request is one that asks on behalf of this policy: the authorization service is reached through the
 * route it guards. Without a list of policies the mark alone counts. The list goes on with our name.
 */
static bool is_loop(struct exchange *x, const struct step *s, struct str *chain)
{
	const struct message *req = exchange_request(x);
	struct str list = message_join(req, STR(LOOP_POLICIES)), rest = list, part;

	*chain = s->policy_id;
	if (!message_find_name(req, STR(LOOP_MARK)))
		return false;
	if (list.n == 0)
		return true;
	while (str_split(&rest, ',', &part))
		if (str_equal(str_trim(part), s->policy_id))
			return true;
	*chain = arena_printf(exchange_arena(x), "%.*s,%.*s", STR_FMT(list), STR_FMT(s->policy_id));
	return chain->n > RELAYED_MAX / 64;
}

/* A refusal is small; an answer that lets pass says all in its head. */
static bool wants_body(const struct message *res)
{
	return res->status >= 300 && res->status < 500;
}

static enum verdict judge(struct exchange *x, const struct step *s);

static enum verdict ask(struct exchange *x, const struct step *s)
{
	const struct external_z_auth *auth = s->conf;
	struct state *state = exchange_state(x, s);
	struct message *req = exchange_request(x);
	struct side_request request = {
		.kind = SIDE_AUTHORIZATION, .url = auth->authServiceUrl, .method = req->method_name,
		.timeout_ms = auth->timeout, .body_max = RELAYED_MAX, .says_length = true, .may_repeat = true,
		.wants_body = wants_body,
	};
	struct str chain;

	if (is_loop(x, s, &chain)) {
		policy_count(s, LOOPED);
		log_warn("external_auth.loop", F_STR("policyId", s->policy_id), F_STR("url", auth->authServiceUrl));
		return reply_error(x, 500, "ErrInternal", STR("the authorization service is reached through the route "
							      "that asks it"));
	}
	identity_headers_strip(req);
	request.target = make_target(x, auth);
	request.headers = make_lines(x, chain, &request.n_headers);
	state->call = side_call_for(x);
	side_call_start(state->call, &request);
	return await(x, &state->call->wait, judge);
}

/* ---------- the answer ---------- */

static enum verdict refuse(struct exchange *x, const struct step *s, const struct side_call *c)
{
	struct cell *cell = s->cell;

	policy_count(s, UNAVAILABLE);
	/* Too many at a time is our limit, not the service's silence. */
	if (c->failure != SIDE_BUSY)
		dependency_down(&cell->service, "the authorization service does not answer as it should",
				side_call_describe(c, exchange_arena(x)));
	exchange_keep_flag(x, "PF");
	exchange_keep_broken(x, side_failure_text(c->failure));
	return reply_error(x, 403, "ErrForbidden", STR("external authentication unavailable"));
}

/* The service's own answer to the client, but what belongs to a connection or to us. */
static enum verdict relay(struct exchange *x, const struct step *s, const struct side_call *c)
{
	bool is_grpc = grpc_is_request(exchange_request(x));
	enum verdict verdict = reply(x, c->res.status, (struct str){ NULL, 0 }, c->body);
	struct message *res = exchange_response(x);

	policy_count(s, REFUSED);
	exchange_keep_flag(x, "UA");
	for (unsigned i = 0; i < c->res.n; i++) {
		const struct header *h = &c->res.headers[i];

		if (h->dropped || h->id == HEADER_DATE || h->id == HEADER_X_REQUEST_ID || h->id == HEADER_KEEP_ALIVE ||
		    h->id == HEADER_PROXY_CONNECTION || h->id == HEADER_TRAILER || h->id == HEADER_UPGRADE)
			continue;
		if (is_grpc && (h->id == HEADER_CONTENT_TYPE || h->id == HEADER_CONTENT_ENCODING))
			continue;
		message_add(res, h->name, h->value);
	}
	return verdict;
}

/* Identity that the service tells goes on to the upstream, and nothing else of its answer. */
static enum verdict pass(struct exchange *x, const struct step *s, const struct side_call *c)
{
	struct message *req = exchange_request(x);

	policy_count(s, PASSED);
	for (unsigned i = 0; i < c->res.n; i++) {
		const struct header *h = &c->res.headers[i];

		if (h->dropped || !identity_field_is(h->name))
			continue;
		if (h->id == HEADER_X_MSE_CONSUMER)
			exchange_set_consumer(x, (struct str){ NULL, 0 }, h->value);
		else
			message_add(req, h->name, h->value);
	}
	return next();
}

static enum verdict judge(struct exchange *x, const struct step *s)
{
	const struct side_call *c = ((struct state *)exchange_state(x, s))->call;
	struct cell *cell = s->cell;

	if (c->failure != SIDE_ANSWERED || c->res.status >= 500 || c->res.status < 200)
		return refuse(x, s, c);
	dependency_up(&cell->service);
	return side_call_succeeded(c) ? pass(x, s, c) : relay(x, s, c);
}

static enum verdict explain(struct exchange *x, const struct step *s)
{
	const struct external_z_auth *auth = s->conf;

	exchange_note(x, "asks %.*s", STR_FMT(auth->authServiceUrl));
	return cannot_judge(x, "a dry run asks no authorization service");
}

const struct policy_class external_z_auth = {
	.name = "ExternalZAuth",
	.alias = "External authentication",
	.summary = "Asks an authorization service about each request and relays its refusal.",
	.group = "Security",
	.scopes = SCOPE_ROUTES | SCOPE_GATEWAY | SCOPE_DOMAIN,
	.stage = STAGE_AUTH_EXTERNAL,
	.combine = COMBINE_SPECIFIC,
	.is_enforced = true,
	.fail_status = 403,
	.execute_stage = "PluginAuthentication",
	.execute_priority = 720,
	.fields = fields,
	.conf_size = sizeof(struct external_z_auth),
	.enable_at = offsetof(struct external_z_auth, enable),
	.cell_size = sizeof(struct cell),
	.dependency = "authorization",
	.dependency_at = offsetof(struct cell, service),
	.state_size = sizeof(struct state),
	.outcomes = { [PASSED] = "passed", [REFUSED] = "refused", [UNAVAILABLE] = "unavailable", [LOOPED] = "loop" },
	.prepare = prepare,
	.request = ask,
	.explain = explain,
};
