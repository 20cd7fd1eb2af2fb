/* redirect.c -- Redirect: answers with a redirection to another host or path. */
#include "policy/formats.h"
#include "proxy/policy.h"

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

static bool attach(const void *conf, const struct attach_target *t, struct problem *why)
{
	const struct redirect *redirect = conf;
	const struct json *path = json_get(json_get(t->resource, "match"), "path");
	struct str target = { redirect->path.p, str_find(redirect->path, '?') };

	if (t->scope == SCOPE_ROUTE && redirect->host.n == 0 && str_equal(json_text(path, "type"),
		STR("Exact")) &&
	    str_equal(json_text(path, "value"), target))
		return problem(why, "path", "redirects the route to itself, an endless loop; give another "
			"path or a host");
	return true;
}

const struct policy_class redirect = {
	.name = "Redirect",
	.alias = "Redirection",
	.summary = "Answers every request with a redirection.",
	.group = "Routing",
	.scopes = SCOPE_ROUTE | SCOPE_OPERATION,
	.stage = STAGE_TERMINAL,
	.combine = COMBINE_SPECIFIC,
	.fail_status = 500,
	.execute_stage = "PluginDefault",
	.execute_priority = 580,
	.fields = fields,
	.conf_size = sizeof(struct redirect),
	.enable_at = offsetof(struct redirect, enable),
	.outcomes = { "redirected" },
	.check = check,
	.attach = attach,
};
