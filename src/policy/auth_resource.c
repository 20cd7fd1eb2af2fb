#include "policy/auth_resource.h"
#include "core/regex.h"
#include "http/uri.h"
#include "policy/formats.h"

enum path_match { MATCH_EQUAL, MATCH_PREFIX, MATCH_REGEX };
enum header_method {
	HEADER_EQUAL, HEADER_NOT_EQUAL, HEADER_PREFIX, HEADER_SUFFIX, HEADER_INCLUDE, HEADER_EXCLUDE, HEADER_REGEX,
	HEADER_EXIST, HEADER_NOT_EXIST
};

static const struct choice path_matches[] = {
	{ MATCH_EQUAL, "EQUAL", "The path is `path`.", NULL },
	{ MATCH_PREFIX, "PRE", "The path is `path`, or goes on behind it with a slash.", NULL },
	{ MATCH_REGEX, "REGEX", "The whole path matches the regular expression `path`.", "ERGULAR" },
	{ 0, NULL, NULL, NULL }
};

static const struct choice header_methods[] = {
	{ HEADER_EQUAL, "EQUAL", "The value is `headerValue`.", NULL },
	{ HEADER_NOT_EQUAL, "NOT_EQUAL", "The value is not `headerValue`.", NULL },
	{ HEADER_PREFIX, "PREFIX", "The value starts with `headerValue`.", NULL },
	{ HEADER_SUFFIX, "SUFFIX", "The value ends with `headerValue`.", NULL },
	{ HEADER_INCLUDE, "INCLUDE", "The value contains `headerValue`.", NULL },
	{ HEADER_EXCLUDE, "EXCLUDE", "The value does not contain `headerValue`.", NULL },
	{ HEADER_REGEX, "REGEX", "The whole value matches the regular expression `headerValue`.", NULL },
	{ HEADER_EXIST, "EXIST", "The header is there.", NULL },
	{ HEADER_NOT_EXIST, "NOT_EXIST", "The header is not there.", NULL },
	{ 0, NULL, NULL, NULL }
};

static bool check_domain(struct str value, struct problem *why)
{
	return uri_is_dns_name(value, true) || uri_is_host(value) ||
	       problem(why, "", "must be a host name, \"*.\" and a name, or an address");
}

static const struct field header_fields[] = {
	TEXT(struct header_rule, headerKey, REQUIRED, RANGE(1, 128), FORMAT(format_header_name),
	     EXAMPLE("\"x-env\""),
	     DOC("Name of the header.")),
	CHOICE(struct header_rule, headerMethod, header_methods, REQUIRED, ANY_CASE,
	       DOC("How the header is compared.")),
	TEXT(struct header_rule, headerValue, RANGE(0, 4096), FORMAT(format_line), EXAMPLE("\"test\""),
	     DOC("What it is compared with; not used by EXIST and NOT_EXIST.")),
	FIELDS_END
};

const struct field auth_resource_fields[] = {
	TEXT(struct auth_resource, domainName, RANGE(0, 255), FORMAT(check_domain),
	     EXAMPLE("\"*.example.com\""),
	     DOC("Host of the request; absent: any.")),
	TEXT(struct auth_resource, domainId, RANGE(0, 128), REFERS("domain"), EXAMPLE("\"dom-1\""),
	     DOC("Id of a domain of this gateway, in place of its name.")),
	TEXT(struct auth_resource, path, RANGE(0, 2048), FORMAT(format_line), EXAMPLE("\"/public\""),
	     DOC("Path of the request, without query; absent: any.")),
	CHOICE(struct auth_resource, matchType, path_matches, ANY_CASE, DEFAULT("\"EQUAL\""),
	       DOC("How the path is compared.")),
	BOOL(struct auth_resource, ignoreCase, DEFAULT("true"),
	     DOC("Whether upper and lower case are the same in the path.")),
	LIST(struct auth_resource, headers, struct header_rule, header_fields, RANGE(0, 32),
	     DOC("Conditions that all must hold.")),
	FIELDS_END
};

bool auth_resources_read(struct str text, struct arena *a, struct items *out, struct problem *why)
{
	const struct json *list = json_parse(a, text, why), *item;
	struct auth_resource *resources;
	size_t i = 0;

	if (!list)
		return false;
	if (list->type != JSON_ARRAY || list->n > AUTH_RESOURCES_MAX)
		return problem(why, "", "must hold a JSON list of at most %d objects", AUTH_RESOURCES_MAX);
	resources = NEW_N(a, struct auth_resource, list->n);
	for (item = list->child; item; item = item->next, i++) {
		char index[24];

		if (fields_decode(auth_resource_fields, item, &resources[i], a, why))
			continue;
		snprintf(index, sizeof(index), "[%zu]", i);
		problem_prefix(why, index);
		return false;
	}
	*out = (struct items){ resources, list->n };
	return true;
}

static bool check_regex(struct str pattern, const char *path, struct arena *a, struct problem *why)
{
	if (regex_compile(a, pattern, false, why))
		return true;
	return problem(why, path, "%s", why->text);
}

static bool check_header(const struct header_rule *rule, struct arena *a, struct problem *why)
{
	if (rule->headerMethod == HEADER_EXIST || rule->headerMethod == HEADER_NOT_EXIST)
		return true;
	if (!rule->headerValue.n)
		return problem(why, "headerValue", "is required unless headerMethod is EXIST or NOT_EXIST");
	return rule->headerMethod != HEADER_REGEX || check_regex(rule->headerValue, "headerValue", a, why);
}

static bool check_path(const struct auth_resource *r, struct arena *a, struct problem *why)
{
	struct str path, query;

	if (!r->path.n)
		return true;
	if (r->matchType == MATCH_REGEX)
		return check_regex(r->path, "path", a, why);
	if (r->path.p[0] != '/' || uri_normalise(a, r->path, &path, &query) != URI_OK || query.n)
		return problem(why, "path", "must be a path that starts with \"/\" and has no query");
	return true;
}

static bool check_resource(const struct auth_resource *r, struct arena *a, struct problem *why)
{
	size_t i;

	if (!r->domainName.n && !r->domainId.n && !r->path.n && !r->headers.n)
		return problem(why, "", "would match every request; give domainName, domainId, path or "
			"headers");
	if (!check_path(r, a, why))
		return false;
	for (i = 0; i < r->headers.n; i++) {
		char path[96];

		if (check_header(ITEM(r->headers, const struct header_rule, i), a, why))
			continue;
		snprintf(path, sizeof(path), "headers[%zu]", i);
		problem_prefix(why, path);
		return false;
	}
	return true;
}

bool auth_resources_check(const struct items *list, const char *name, struct arena *a, struct problem *why)
{
	size_t i;

	for (i = 0; i < list->n; i++) {
		char path[96];

		if (check_resource(ITEM(*list, const struct auth_resource, i), a, why))
			continue;
		snprintf(path, sizeof(path), "%s[%zu]", name, i);
		problem_prefix(why, path);
		return false;
	}
	return true;
}

bool auth_resources_attach(const struct items *list, const char *name, const struct attach_target *t,
			   struct problem *why)
{
	size_t i;

	for (i = 0; i < list->n; i++) {
		struct str id = ITEM(*list, const struct auth_resource, i)->domainId;
		const struct json *domain = id.n ? t->find(t, "domain", id) : NULL;
		char path[96];

		if (!id.n || (domain && str_equal(json_text(domain, "gatewayId"), t->gateway_id)))
			continue;
		snprintf(path, sizeof(path), "%s[%zu].domainId", name, i);
		return problem(why, path, "there is no domain \"%.*s\" at this gateway", STR_FMT(id));
	}
	return true;
}


/* ---------- preparing ---------- */

static bool prepare_resource(struct auth_resource *r, struct arena *a, struct problem *why)
{
	struct str query;

	for (size_t i = 0; i < r->headers.n; i++) {
		struct header_rule *rule = ITEM(r->headers, struct header_rule, i);

		if (rule->headerMethod != HEADER_REGEX)
			continue;
		rule->regex = regex_compile(a, rule->headerValue, false, why);
		if (!rule->regex)
			return false;
	}
	if (!r->path.n)
		return true;
	if (r->matchType != MATCH_REGEX)
		return uri_normalise(a, r->path, &r->form, &query) == URI_OK || problem(why, "path", "is no path");
	r->regex = regex_compile(a, r->path, r->ignoreCase, why);
	return r->regex != NULL;
}

bool auth_resources_prepare(const struct items *list, struct arena *a, struct problem *why)
{
	for (size_t i = 0; i < list->n; i++)
		if (!prepare_resource(ITEM(*list, struct auth_resource, i), a, why))
			return false;
	return true;
}

/* ---------- matching ---------- */

/* The name of the host that was asked for, without port and without the dot that may end it. */
static struct str host_name(const struct exchange *x)
{
	struct str host = exchange_host(x), name;
	uint16_t port;

	if (!uri_split_authority(host, &name, &port))
		name = host;
	if (name.n > 1 && name.p[name.n - 1] == '.')
		name.n--;
	return name;
}

static bool is_host(struct str pattern, struct str name)
{
	if (!str_starts(pattern, STR("*.")))
		return str_equal_nocase(pattern, name);
	pattern = (struct str){ pattern.p + 1, pattern.n - 1 };
	return name.n > pattern.n &&
	       str_equal_nocase((struct str){ name.p + name.n - pattern.n, pattern.n }, pattern);
}

static bool is_equal(const struct auth_resource *r, struct str a, struct str b)
{
	return r->ignoreCase ? str_equal_nocase(a, b) : str_equal(a, b);
}

static bool is_below(const struct auth_resource *r, struct str path)
{
	const struct str form = r->form;

	if (path.n < form.n || !is_equal(r, (struct str){ path.p, form.n }, form))
		return false;
	return path.n == form.n || form.p[form.n - 1] == '/' || path.p[form.n] == '/';
}

/* Whether servers differ about what the path means. */
static bool is_ambiguous(struct str path)
{
	static const char *const escapes[] = { "%2F", "%5C", "%3B", "%25" };

	for (size_t i = 0; i < path.n; i++) {
		if (path.p[i] == ';')
			return true;
		if (path.p[i] != '%')
			continue;
		for (unsigned e = 0; e < sizeof escapes / sizeof escapes[0]; e++)
			if (str_starts((struct str){ path.p + i, path.n - i }, str_of(escapes[e])))
				return true;
	}
	return false;
}

static bool regex_says(const struct regex *regex, struct str subject, bool in_doubt)
{
	enum regex_result result = regex_match_whole(regex, subject);

	return result == REGEX_LIMIT ? in_doubt : result == REGEX_YES;
}

static bool is_path(const struct auth_resource *r, struct str path, bool in_doubt)
{
	if (!r->path.n)
		return true;
	if (r->matchType == MATCH_EQUAL && is_equal(r, path, r->form))
		return true;
	if (is_ambiguous(path))
		return in_doubt;
	if (r->matchType == MATCH_REGEX)
		return regex_says(r->regex, path, in_doubt);
	return r->matchType == MATCH_PREFIX && is_below(r, path);
}

static bool contains(struct str s, struct str part)
{
	return part.n == 0 || (s.n > 0 && memmem(s.p, s.n, part.p, part.n) != NULL);
}

static bool is_header(const struct header_rule *rule, const struct message *req, bool in_doubt)
{
	const struct str value = message_join(req, rule->headerKey), said = rule->headerValue;

	switch ((enum header_method)rule->headerMethod) { /* flat switch */
	case HEADER_EQUAL:
		return value.p && str_equal(value, said);
	case HEADER_NOT_EQUAL:
		return !value.p || !str_equal(value, said);
	case HEADER_PREFIX:
		return value.p && str_starts(value, said);
	case HEADER_SUFFIX:
		return value.p && str_ends(value, said);
	case HEADER_INCLUDE:
		return value.p && contains(value, said);
	case HEADER_EXCLUDE:
		return !value.p || !contains(value, said);
	case HEADER_REGEX:
		return value.p && regex_says(rule->regex, value, in_doubt);
	case HEADER_EXIST:
		return value.p != NULL;
	case HEADER_NOT_EXIST:
		return !value.p;
	}
	return in_doubt;
}

static bool is_one(const struct auth_resource *r, struct exchange *x, bool in_doubt)
{
	if (r->domainName.n && !is_host(r->domainName, host_name(x)))
		return false;
	if (r->domainId.n && !str_equal(r->domainId, exchange_domain_id(x)))
		return false;
	if (!is_path(r, exchange_path(x), in_doubt))
		return false;
	for (size_t i = 0; i < r->headers.n; i++)
		if (!is_header(ITEM(r->headers, const struct header_rule, i), exchange_request(x), in_doubt))
			return false;
	return true;
}

bool auth_resources_match(const struct items *list, struct exchange *x, bool in_doubt)
{
	for (size_t i = 0; i < list->n; i++)
		if (is_one(ITEM(*list, const struct auth_resource, i), x, in_doubt))
			return true;
	return false;
}
