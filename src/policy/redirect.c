/*
 * redirect.c -- Redirect: answers with a redirection to another host or path.
 *
 * Location is always a whole URL, so that nothing in a path can name another host; its scheme is the client's own.
 */
#include "policy/formats.h"
#include "proxy/policy.h"

enum outcome { REDIRECTED };

struct redirect {
	int code;
	struct str host;
	struct str path;
	bool enable;
};

static const struct choice codes[] = {
	{ 301, "301", "Moved Permanently; browsers keep it without limit", NULL },
	{ 302, "302", "Found", NULL },
	{ 303, "303", "See Other: the client goes on with GET", NULL },
	{ 307, "307", "Temporary Redirect: method and body stay", NULL },
	{ 308, "308", "Permanent Redirect: method and body stay", NULL },
	{ 0, NULL, NULL, NULL }
};

static bool check_path(struct str path, struct problem *why)
{
	if (str_starts(path, STR("//")))
		return problem(why, "", "must begin with one /, two name another host");
	return path_check(path, true, why);
}

static const struct field fields[] = {
	CHOICE(struct redirect, code, codes, REQUIRED, DOC("Status of the redirection, as text.")),
	TEXT(struct redirect, host, RANGE(0, 261), FORMAT(format_host), EXAMPLE("\"new-domain.com\""),
	     DOC("Host to go to, with :port if needed; without it the client's own. host or path is "
	     "needed.")),
	TEXT(struct redirect, path, RANGE(0, 4096), FORMAT(check_path), EXAMPLE("\"/new-path\""),
	     DOC("Path to go to, with a query if needed; the client's query is kept when it has none. Without "
	     "it the client's own path.")),
	BOOL(struct redirect, enable, REQUIRED, DOC("Whether the policy acts.")),
	FIELDS_END
};

static bool check(const void *conf, struct problem *why)
{
	const struct redirect *redirect = conf;

	if (redirect->host.n == 0 && redirect->path.n == 0)
		return problem(why, "host", "host or path is required");
	return true;
}

/* Whether an operation answers exactly at `target`. */
static bool is_operation_at(const struct attach_target *t, struct str target)
{
	const struct json *api = t->find(t, "httpApi", json_text(t->resource, "httpApiId"));
	struct str base = json_text(api, "basePath"), path = json_text(t->resource, "path");

	while (base.n > 0 && base.p[base.n - 1] == '/')
		base.n--;
	return target.n == base.n + path.n && str_starts(target, base) &&
	       str_equal((struct str){ target.p + base.n, path.n }, path);
}

static bool attach(const void *conf, const struct attach_target *t, struct problem *why)
{
	const struct redirect *redirect = conf;
	const struct json *path = json_get(json_get(t->resource, "match"), "path");
	struct str target = { redirect->path.p, str_find(redirect->path, '?') };
	bool is_own = false;

	if (redirect->host.n > 0)
		return true;
	if (t->scope == SCOPE_ROUTE)
		is_own = str_equal(json_text(path, "type"), STR("Exact")) &&
			 str_equal(json_text(path, "value"), target);
	else if (t->scope == SCOPE_OPERATION)
		is_own = is_operation_at(t, target);
	if (is_own)
		return problem(why, "path", "redirects the route to itself, an endless loop; give another "
			"path or a host");
	return true;
}

/* ---------- requests ---------- */

/* The client's Host, without a port that goes without saying. */
static struct str own_authority(const struct exchange *x, struct str scheme)
{
	struct str host = exchange_host(x), port = str_equal(scheme, STR("https")) ? STR(":443") : STR(":80");

	return str_ends(host, port) ? (struct str){ host.p, host.n - port.n } : host;
}

static struct str location(struct exchange *x, const struct redirect *redirect)
{
	struct str scheme = exchange_scheme(x), path = exchange_path(x), query = exchange_query(x);
	struct str authority = redirect->host.n > 0 ? redirect->host : own_authority(x, scheme);
	bool has_query = query.p;

	if (redirect->path.n > 0) {
		path = redirect->path;
		has_query = has_query && str_find(path, '?') == path.n;
	}
	/* HTTP/1.0 without a Host: all that is left is the path. */
	return arena_printf(exchange_arena(x), "%.*s%s%.*s%.*s%s%.*s", authority.n > 0 ? (int)scheme.n : 0, scheme.p,
			    authority.n > 0 ? "://" : "", STR_FMT(authority), STR_FMT(path), has_query ? "?" : "",
			    has_query ? (int)query.n : 0, has_query ? query.p : "");
}

static enum verdict answer(struct exchange *x, const struct step *s)
{
	const struct redirect *redirect = s->conf;
	struct str to = location(x, redirect);
	enum verdict verdict = reply(x, redirect->code, (struct str){ NULL, 0 }, (struct str){ NULL, 0 });

	message_add_id(exchange_response(x), HEADER_LOCATION, to);
	policy_count(s, REDIRECTED);
	exchange_keep_flag(x, "RD");
	return verdict;
}

const struct policy_class redirect = {
	.name = "Redirect",
	.alias = "Redirection",
	.summary = "Answers every request with a redirection.",
	.group = "Routing",
	.scopes = SCOPE_ROUTE | SCOPE_OPERATION,
	.stage = STAGE_TERMINAL,
	.combine = COMBINE_SPECIFIC,
	.is_enforced = true,
	.fail_status = 500,
	.execute_stage = "PluginDefault",
	.execute_priority = 580,
	.fields = fields,
	.conf_size = sizeof(struct redirect),
	.enable_at = offsetof(struct redirect, enable),
	.outcomes = { [REDIRECTED] = "redirected" },
	.check = check,
	.attach = attach,
	.request = answer,
	.is_pure = true,
};
