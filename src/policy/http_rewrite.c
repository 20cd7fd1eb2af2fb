/*
 * http_rewrite.c -- HttpRewrite: changes the path and the Host of the request on its way to the service.
 *
 * Works on the path as it was normalised, percent-encoded and without the query, and decodes nothing; the query is not
 * touched. Once for each request: matching, limits and logs go on with the original. A result that another server would
 * understand as some other path (dot segments, encoded control bytes) is refused: it can only come from what a client
 * put into a capture.
 */
#include "core/regex.h"
#include "http/uri.h"
#include "policy/formats.h"
#include "proxy/policy.h"

enum path_type { PATH_EXACT, PATH_PREFIX, PATH_REGEX };
enum outcome { REWRITTEN, REFUSED };

struct http_rewrite {
	int pathType;
	struct str path;
	struct str pattern;
	struct str substitution;
	struct str host;
	bool enable;
	struct regex *regex;              /* made by prepare() */
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
	TEXT(struct http_rewrite, pattern, ONLY_WHEN("pathType", PATH_REGEX), RANGE(0, 4096), FORMAT(format_line),
	     EXAMPLE("\"^/service/([^/]+)(/.*)$\""),
	     DOC("Regular expression without back-references and look-around, matched anywhere in the "
	     "path.")),
	TEXT(struct http_rewrite, substitution, EMPTY_OK, ONLY_WHEN("pathType", PATH_REGEX), RANGE(0, 4096),
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

/* Its own bytes go into a path as they are. A query cannot be made here: the request's is kept. */
static bool check_literals(struct str s, struct problem *why)
{
	for (size_t i = 0; i < s.n; i++)
		if (s.p[i] <= 0x20 || s.p[i] >= 0x7f || s.p[i] == '?' || s.p[i] == '#')
			return problem(why, "substitution", "must not contain blanks, ?, # or non-ASCII bytes; escape "
				"them as %%XX");
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
	return check_literals(rewrite->substitution, why);
}

/* No byte sequence that the parser would refuse in a request of a client's. */
static bool check_escaped(struct str path, struct problem *why)
{
	struct arena scratch = { 0 };
	struct str normal, query;
	bool ok = uri_normalise(&scratch, path, &normal, &query) == URI_OK;

	arena_free(&scratch);
	return ok || problem(why, "path", "is not a valid path: %%XX has two hexadecimal digits and encodes no "
			"control character");
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
	return check_escaped(rewrite->path, why);
}

static bool prepare(void *conf, struct arena *a, struct problem *why)
{
	struct http_rewrite *rewrite = conf;

	if (rewrite->pathType == PATH_REGEX)
		rewrite->regex = regex_compile(a, rewrite->pattern, false, why);
	return rewrite->pathType != PATH_REGEX || rewrite->regex;
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

/* ---------- requests ---------- */

static struct str join(struct exchange *x, struct str front, struct str middle, struct str rest)
{
	size_t n = front.n + middle.n + rest.n;
	char *p = arena_take(exchange_arena(x), n + 1);

	*str_put(str_put(str_put(p, front), middle), rest) = '\0';
	return (struct str){ p, n };
}

/* `front` instead of the first n bytes of the path, with exactly one slash where they meet. */
static struct str replace_front(struct exchange *x, struct str front, size_t n)
{
	struct str path = exchange_path(x), rest = { path.p + n, path.n - n };
	bool front_ends = front.n > 0 && front.p[front.n - 1] == '/';

	if (front_ends && rest.n > 0 && rest.p[0] == '/')
		rest = (struct str){ rest.p + 1, rest.n - 1 };
	else if (!front_ends && path.p[n - 1] == '/')
		return join(x, front, STR("/"), rest);
	return join(x, front, STR(""), rest);
}

/* The path that goes to the service; absent when the step limit of the pattern was met. */
static struct str rewrite_path(struct exchange *x, const struct http_rewrite *rewrite)
{
	struct str path = exchange_path(x), result;
	size_t n;

	if (rewrite->pathType == PATH_REGEX) {
		result = regex_replace(rewrite->regex, exchange_arena(x), path, rewrite->substitution);
		if (!result.p)
			return result;
		if (result.n == 0)
			return path;
		return result.p[0] == '/' ? result : join(x, STR("/"), STR(""), result);
	}
	if (rewrite->path.n == 0)
		return path;
	if (rewrite->pathType == PATH_EXACT)
		return rewrite->path;
	switch (exchange_fixed_path(x, &n)) {
	case FIXED_WHOLE:
		return rewrite->path;
	case FIXED_PREFIX:
		return replace_front(x, rewrite->path, n);
	case FIXED_NONE:                  /* the route was changed since this was attached */
		break;
	}
	return path;
}

static bool is_safe(struct exchange *x, struct str path)
{
	struct problem unused;
	struct str normal, query;

	return path_check(path, false, &unused) &&
	       uri_normalise(exchange_arena(x), path, &normal, &query) == URI_OK;
}

static enum verdict rewrite(struct exchange *x, const struct step *s)
{
	const struct http_rewrite *conf = s->conf;
	struct message *req = exchange_request(x);
	struct str path = rewrite_path(x, conf);

	if (!path.p) {
		policy_count(s, REFUSED);
		return fail(x, "the pattern takes too many steps on this path");
	}
	if (path.p != req->path.p) {
		if (!is_safe(x, path)) {
			policy_count(s, REFUSED);
			return reply_error(x, 400, "ErrInvalidPath", STR("this path cannot be rewritten safely"));
		}
		req->path = path;
	}
	if (conf->host.n > 0)
		message_set_id(req, HEADER_HOST, conf->host);
	policy_count(s, REWRITTEN);
	return next();
}

const struct policy_class http_rewrite = {
	.name = "HttpRewrite",
	.alias = "HTTP rewrite",
	.summary = "Changes the path and the Host of the request to the service.",
	.group = "Routing",
	.scopes = SCOPE_ROUTE | SCOPE_API | SCOPE_OPERATION,
	.stage = STAGE_REWRITE,
	.combine = COMBINE_SPECIFIC,
	.is_enforced = true,
	.fail_status = 500,
	.execute_stage = "PluginDefault",
	.execute_priority = 530,
	.fields = fields,
	.conf_size = sizeof(struct http_rewrite),
	.enable_at = offsetof(struct http_rewrite, enable),
	.outcomes = { [REWRITTEN] = "rewritten", [REFUSED] = "refused" },
	.check = check,
	.prepare = prepare,
	.attach = attach,
	.request = rewrite,
	.is_pure = true,
};
