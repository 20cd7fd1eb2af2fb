/* http_rewrite.c -- HttpRewrite: changes the path and the Host of the request on its way to the service. */
#include "core/regex.h"
#include "policy/formats.h"
#include "proxy/policy.h"

enum path_type { PATH_EXACT, PATH_PREFIX, PATH_REGEX };

struct http_rewrite {
	int pathType;
	struct str path;
	struct str pattern;
	struct str substitution;
	struct str host;
	bool enable;
};

static const struct choice path_types[] = {
	{ PATH_EXACT, "Exact", "path replaces the whole path", NULL },
	{ PATH_PREFIX, "Prefix", "path replaces the part the route's prefix matched", NULL },
	{ PATH_REGEX, "Regex", "substitution replaces every match of pattern", NULL },
	{ 0, NULL, NULL, NULL }
};

static const struct field fields[] = {
	CHOICE(struct http_rewrite, pathType, path_types, REQUIRED, DOC("How the path is rewritten.")),
	TEXT(struct http_rewrite, path, RANGE(0, 4096), FORMAT(format_line), EXAMPLE("\"/v2/api\""),
	     DOC("The new path or prefix, for Exact and Prefix; without a query, which is kept. Required "
	     "without host.")),
	TEXT(struct http_rewrite, pattern, WHEN("pathType", PATH_REGEX), RANGE(0, 4096), FORMAT(format_line),
	     EXAMPLE("\"^/service/([^/]+)(/.*)$\""),
	     DOC("Regular expression without back-references and look-around, matched anywhere in the "
	     "path.")),
	TEXT(struct http_rewrite, substitution, EMPTY_OK, WHEN("pathType", PATH_REGEX), RANGE(0, 4096),
	     FORMAT(format_line), EXAMPLE("\"\\\\2/instance/\\\\1\""),
	     DOC("What replaces a match; \\0 to \\9, $0 to $9 or ${N} stand for groups, \\\\ and $$ for "
	     "themselves.")),
	TEXT(struct http_rewrite, host, RANGE(0, 261), FORMAT(format_host),
	     EXAMPLE("\"new-backend.example.com\""),
	     DOC("Host header for the service: a name or address, with :port if needed.")),
	BOOL(struct http_rewrite, enable, REQUIRED, DOC("Whether the policy acts.")),
	FIELDS_END
};

/* A backslash stands before a digit or another backslash, nothing else. */
static bool check_escapes(struct str s, struct problem *why)
{
	for (size_t i = 0; i < s.n; i++) {
		if (s.p[i] != '\\')
			continue;
		i++;
		if (i == s.n || (s.p[i] != '\\' && (s.p[i] < '0' || s.p[i] > '9')))
			return problem(why, "substitution", "has a \\ before something that is neither a digit nor \\");
	}
	return true;
}

static bool check_regex(const struct http_rewrite *rewrite, struct problem *why)
{
	unsigned used = regex_template_groups(rewrite->substitution), groups;
	struct arena scratch = { 0 };
	const struct regex *regex = regex_compile(&scratch, rewrite->pattern, false, why);

	groups = regex ? regex_groups(regex) : 0;
	arena_free(&scratch);
	if (!regex) {
		struct problem inner = *why;

		return problem(why, "pattern", "%s", inner.text);
	}
	if (!check_escapes(rewrite->substitution, why))
		return false;
	if (used > groups)
		return problem(why, "substitution", "refers to group %u, the pattern has %u", used, groups);
	return true;
}

static bool check(const void *conf, struct problem *why)
{
	const struct http_rewrite *rewrite = conf;

	if (rewrite->pathType == PATH_REGEX)
		return check_regex(rewrite, why);
	if (rewrite->path.n == 0)
		return rewrite->host.n > 0 || problem(why, "path", "is required when pathType is Exact or "
			"Prefix and there is no host");
	if (!format_path(rewrite->path, why)) {
		problem_prefix(why, "path");
		return false;
	}
	return true;
}

static bool attach(const void *conf, const struct attach_target *t, struct problem *why)
{
	const struct http_rewrite *rewrite = conf;
	const struct json *path = json_get(json_get(t->resource, "match"), "path");

	if (t->scope == SCOPE_ROUTE && rewrite->pathType == PATH_PREFIX && rewrite->path.n > 0 &&
	    str_equal(json_text(path, "type"), STR("Regex")))
		return problem(why, "pathType", "Prefix needs a route that matches by Prefix or Exact; this "
			"one matches by Regex and has no prefix to replace");
	return true;
}

const struct policy_class http_rewrite = {
	.name = "HttpRewrite",
	.alias = "HTTP rewrite",
	.summary = "Changes the path and the Host of the request to the service.",
	.group = "Routing",
	.scopes = SCOPE_ROUTE | SCOPE_API | SCOPE_OPERATION,
	.stage = STAGE_REWRITE,
	.combine = COMBINE_SPECIFIC,
	.execute_stage = "PluginDefault",
	.execute_priority = 530,
	.fields = fields,
	.conf_size = sizeof(struct http_rewrite),
	.enable_at = offsetof(struct http_rewrite, enable),
	.outcomes = { "rewritten" },
	.check = check,
	.attach = attach,
};
