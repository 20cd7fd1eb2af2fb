/*
 * cors.c -- Cors: says to browsers which origins may use a resource (Fetch, the CORS protocol).
 *
 * A preflight is answered here and goes no further: it carries no credentials, so nothing after this could
 * judge it. On every other response this is the last step: what the upstream said in Access-Control-* is
 * replaced, so that exactly one policy speaks. A foreign origin is served without permission to read; its
 * browser does the refusing.
 */
#include "policy/cors.h"
#include "policy/formats.h"
#include "policy/origin.h"

#define PREFLIGHT_FLAG "CO"
#define MAX_AGE_S (30 * 24 * 3600)

enum outcome { PREFLIGHT_ALLOWED, PREFLIGHT_REFUSED, ALLOWED, FOREIGN };

struct cors {
	struct str allowOrigins;
	struct items allowMethods;
	struct str allowHeaders;
	struct str exposeHeaders;
	int timeUnit;
	int64_t unitNum;
	bool allowCredentials;
	bool enable;
	/* made by prepare() */
	struct origins origins;
	struct str methods, headers, expose;      /* absent: none, or any */
	bool any_method, any_header, any_expose;
	struct str max_age;
};

static bool check_origins(struct str s, struct problem *why)
{
	return list_check(s, origin_check, why);
}

static bool check_tokens(struct str s, struct problem *why)
{
	return list_check(s, format_header_name, why);
}

static const struct field fields[] = {
	TEXT(struct cors, allowOrigins, REQUIRED, RANGE(1, 65536), FORMAT(check_origins),
	     EXAMPLE("\"https://example.com,https://*.example.org\""),
	     DOC("Origins that may read responses, separated by commas: scheme://host, scheme://host:port, "
	         "scheme://*.domain, null, or * for all.")),
	TEXTS(struct cors, allowMethods, REQUIRED, RANGE(1, 64), TEXT_MAX(64), FORMAT(format_method),
	      EXAMPLE("[\"GET\",\"POST\"]"), DOC("Methods a preflight allows; * for the one it asks for.")),
	TEXT(struct cors, allowHeaders, REQUIRED, RANGE(1, 16384), FORMAT(check_tokens),
	     EXAMPLE("\"Content-Type,Authorization\""),
	     DOC("Request headers a preflight allows, separated by commas; * for those it asks for.")),
	TEXT(struct cors, exposeHeaders, RANGE(0, 16384), FORMAT(check_tokens),
	     EXAMPLE("\"X-Custom-Header\""),
	     DOC("Response headers a script may read, separated by commas; * for all.")),
	CHOICE(struct cors, timeUnit, time_units, REQUIRED, DOC("Unit of unitNum.")),
	INT(struct cors, unitNum, REQUIRED, RANGE(0, MAX_AGE_S), EXAMPLE("3600"),
	    DOC("How long a browser may keep the answer to a preflight; at most 30 days.")),
	BOOL(struct cors, allowCredentials, REQUIRED,
	     DOC("Whether requests may carry cookies and credentials. With allowOrigins * the origin is then "
	     "echoed.")),
	BOOL(struct cors, enable, REQUIRED,
	     DOC("Whether the policy acts. When false, it switches Cors off for the resource even if a wider "
	     "one is on.")),
	FIELDS_END
};

static bool check(const void *conf, struct problem *why)
{
	const struct cors *cors = conf;

	if (cors->unitNum * cors->timeUnit > MAX_AGE_S)
		return problem(why, "unitNum", "must be at most 30 days");
	return true;
}

/* Joins with "," and without the blanks of the config; *any when one element is "*". */
static struct str tidy_list(struct arena *a, struct str list, bool *any)
{
	char *out = arena_take(a, list.n + 1);
	struct str rest = list, part;
	size_t n = 0;

	while (str_split(&rest, ',', &part)) {
		part = str_trim(part);
		*any |= str_equal(part, STR("*"));
		if (n)
			out[n++] = ',';
		memcpy(out + n, part.p, part.n);
		n += part.n;
	}
	return (struct str){ out, n };
}

static char upper(char c)
{
	return c >= 'a' && c <= 'z' ? (char)(c - 32) : c;
}

static struct str join_methods(struct arena *a, const struct items *methods, bool *any)
{
	struct sbuf joined = { 0 };
	struct str out;

	for (size_t i = 0; i < methods->n; i++) {
		struct str method = *ITEM(*methods, struct str, i);

		*any |= str_equal(method, STR("*"));
		if (i)
			sbuf_addc(&joined, ',');
		for (size_t k = 0; k < method.n; k++)
			sbuf_addc(&joined, upper(method.p[k]));
	}
	out = arena_copy(a, sbuf_str(&joined));
	sbuf_free(&joined);
	return out;
}

static bool prepare(void *conf, struct arena *a, struct problem *why)
{
	struct cors *cors = conf;

	(void)why;
	origins_parse(cors->allowOrigins, a, &cors->origins);
	cors->methods = join_methods(a, &cors->allowMethods, &cors->any_method);
	cors->headers = tidy_list(a, cors->allowHeaders, &cors->any_header);
	if (cors->exposeHeaders.n)
		cors->expose = tidy_list(a, cors->exposeHeaders, &cors->any_expose);
	cors->max_age = arena_printf(a, "%lld", (long long)(cors->unitNum * cors->timeUnit));
	return true;
}

static bool depends_on_origin(const struct cors *cors)
{
	return !cors->origins.any || cors->allowCredentials;
}

/* Vary: Origin, unless the response says so already. */
static void add_vary(const struct cors *cors, struct message *res)
{
	if (!depends_on_origin(cors))
		return;
	for (const struct header *h = message_find(res, HEADER_VARY); h; h = message_find_next(res, h)) {
		struct str rest = h->value, part;

		while (str_split(&rest, ',', &part)) {
			part = str_trim(part);
			if (str_equal(part, STR("*")) || str_equal_nocase(part, STR("origin")))
				return;
		}
	}
	message_add(res, STR("Vary"), STR("Origin"));
}

/*
 * The Origin of the request when the policy admits it; absent str otherwise. Two Origin lines are nobody's.
 */
static struct str admitted_origin(const struct cors *cors, const struct message *req)
{
	const struct header *h = message_find(req, HEADER_ORIGIN);

	if (!h || h->value.n == 0 || message_find_next(req, h) || !origins_match(&cors->origins, h->value))
		return (struct str){ NULL, 0 };
	return h->value;
}

static void add_origin(const struct cors *cors, struct message *res, struct str origin)
{
	message_set(res, STR("Access-Control-Allow-Origin"), depends_on_origin(cors) ? origin : STR("*"));
	if (cors->allowCredentials)
		message_set(res, STR("Access-Control-Allow-Credentials"), STR("true"));
}

/* What a "*" echoes: the request's own list, when it is one. */
static struct str echo_list(const struct message *req, enum header_id id)
{
	struct str list = message_value(req, id);
	struct problem unused;

	return list.n && check_tokens(list, &unused) ? list : (struct str){ NULL, 0 };
}

static bool is_preflight(const struct message *req)
{
	return req->method == METHOD_OPTIONS && message_value(req, HEADER_ORIGIN).n > 0 &&
	       message_value(req, HEADER_ACCESS_CONTROL_REQUEST_METHOD).n > 0;
}

static enum verdict allow_preflight(struct exchange *x, const struct cors *cors, struct str origin)
{
	const struct message *req = exchange_request(x);
	enum verdict verdict = reply(x, 200, (struct str){ NULL, 0 }, (struct str){ NULL, 0 });
	struct message *res = exchange_response(x);
	struct str methods = cors->methods, headers = cors->headers;

	if (cors->any_method)
		methods = echo_list(req, HEADER_ACCESS_CONTROL_REQUEST_METHOD);
	if (cors->any_header)
		headers = echo_list(req, HEADER_ACCESS_CONTROL_REQUEST_HEADERS);
	add_origin(cors, res, origin);
	if (methods.n)
		message_add(res, STR("Access-Control-Allow-Methods"), methods);
	if (headers.n)
		message_add(res, STR("Access-Control-Allow-Headers"), headers);
	message_add(res, STR("Access-Control-Max-Age"), cors->max_age);
	add_vary(cors, res);
	return verdict;
}

static enum verdict answer_preflight(struct exchange *x, const struct step *s)
{
	const struct cors *cors = s->conf;
	const struct message *req = exchange_request(x);
	enum verdict verdict;
	struct str origin;

	if (LIKELY(!is_preflight(req)))
		return next();
	origin = admitted_origin(cors, req);
	exchange_keep_flag(x, PREFLIGHT_FLAG);
	policy_count(s, origin.n ? PREFLIGHT_ALLOWED : PREFLIGHT_REFUSED);
	if (origin.n)
		return allow_preflight(x, cors, origin);
	verdict = reply_error(x, 403, "ErrForbidden", STR("Origin is not allowed"));
	add_vary(cors, exchange_response(x));
	return verdict;
}

bool cors_answered(const struct exchange *x)
{
	return strcmp(exchange_flag(x), PREFLIGHT_FLAG) == 0;
}

static bool is_access_control(const struct header *h)
{
	struct str prefix = STR("access-control-");

	return h->name.n > prefix.n && str_equal_nocase((struct str){ h->name.p, prefix.n }, prefix);
}

/*
 * The names of the response's own headers, for exposeHeaders "*" with credentials, where a browser takes "*"
 * literally.
 */
static struct str list_names(struct exchange *x, const struct message *res)
{
	char *out;
	size_t n = 0;

	for (unsigned i = 0; i < res->n; i++)
		n += res->headers[i].name.n + 1;
	out = arena_take(exchange_arena(x), n);
	n = 0;
	for (unsigned i = 0; i < res->n; i++) {
		const struct header *h = &res->headers[i];

		if (h->dropped || h->id == HEADER_SET_COOKIE || is_access_control(h))
			continue;
		if (n)
			out[n++] = ',';
		memcpy(out + n, h->name.p, h->name.n);
		n += h->name.n;
	}
	return (struct str){ out, n };
}

static void add_expose(struct exchange *x, const struct cors *cors, struct message *res)
{
	struct str names = cors->expose;

	if (cors->any_expose)
		names = cors->allowCredentials ? list_names(x, res) : STR("*");
	if (names.n)
		message_add(res, STR("Access-Control-Expose-Headers"), names);
}

static enum verdict mark_response(struct exchange *x, const struct step *s)
{
	const struct cors *cors = s->conf;
	const struct message *req = exchange_request(x);
	struct message *res = exchange_response(x);
	struct str origin;

	if (cors_answered(x))
		return next();
	for (unsigned i = 0; i < res->n; i++)
		if (is_access_control(&res->headers[i]))
			res->headers[i].dropped = true;
	add_vary(cors, res);
	origin = admitted_origin(cors, req);
	if (origin.n || !depends_on_origin(cors)) {
		add_origin(cors, res, origin);
		add_expose(x, cors, res);
	}
	if (origin.n)
		policy_count(s, ALLOWED);
	else if (message_find(req, HEADER_ORIGIN))
		policy_count(s, FOREIGN);
	return next();
}

const struct policy_class cors = {
	.name = "Cors",
	.alias = "Cross-origin resource sharing",
	.summary = "Tells browsers which origins may use the resource, and answers their preflight requests.",
	.group = "Cross-domain",
	.scopes = SCOPE_ROUTES | SCOPE_GATEWAY | SCOPE_DOMAIN,
	.stage = STAGE_CORS,
	.response_stage = RESPONSE_CORS,
	.combine = COMBINE_OVERRIDE,
	.is_enforced = true,
	.is_pure = true,
	.fail_status = 500,
	.execute_stage = "PluginPre",
	.execute_priority = 800,
	.fields = fields,
	.conf_size = sizeof(struct cors),
	.enable_at = offsetof(struct cors, enable),
	.outcomes = {
		[PREFLIGHT_ALLOWED] = "preflight_allowed",
		[PREFLIGHT_REFUSED] = "preflight_refused",
		[ALLOWED] = "allowed",
		[FOREIGN] = "foreign_origin",
	},
	.check = check,
	.prepare = prepare,
	.request = answer_preflight,
	.response = mark_response,
};
