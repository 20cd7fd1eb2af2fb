/*
 * jwt_auth.c -- JWTAuth: requests need a token (JWS) signed by a key of the issuer.
 *
 * whiteOrBlack turns the need off (White) or on (Black) for the resources listed in authResources and
 * resources.
 */
#include "core/regex.h"
#include "http/message.h"
#include "policy/formats.h"
#include "policy/jwks.h"
#include "policy/side_url.h"
#include "proxy/policy.h"

enum token_position { TOKEN_HEADER, TOKEN_QUERY, TOKEN_COOKIE };
enum jwt_mode { JWT_ALL, JWT_WHITE, JWT_BLACK };
enum path_match { MATCH_EQUAL, MATCH_PREFIX, MATCH_REGEX };
enum header_method {
	HEADER_EQUAL, HEADER_NOT_EQUAL, HEADER_PREFIX, HEADER_SUFFIX, HEADER_INCLUDE, HEADER_EXCLUDE,
		HEADER_REGEX, HEADER_EXIST,
	HEADER_NOT_EXIST
};

struct header_rule {
	struct str headerKey;
	int headerMethod;
	struct str headerValue;
};

struct auth_resource {
	struct str domainName, domainId, path;
	int matchType;
	bool ignoreCase;
	struct items headers;
};

struct jwt_auth {
	struct str name, issuer, sub, jwks;
	int tokenPosition;
	struct str tokenName, tokenNamePrefix;
	bool tokenPass;
	int whiteOrBlack;
	struct items authResources;
	struct str resources;
	bool enable;
};

#define NAME_MAX_CHARACTERS 64
#define RESOURCES_MAX 256
#define RESOURCES_TEXT_MAX (64 * 1024)

static const struct choice positions[] = {
	{ TOKEN_HEADER, "header", "In the header `tokenName`, after `tokenNamePrefix`.", NULL },
	{ TOKEN_QUERY, "query", "In the query parameter `tokenName`.", NULL },
	{ TOKEN_COOKIE, "cookie", "In the cookie `tokenName`.", NULL },
	{ 0, NULL, NULL, NULL }
};

static const struct choice modes[] = {
	{ JWT_ALL, "", "Every request needs a token.", NULL },
	{ JWT_WHITE, "White", "Requests that match a resource need no token, all others do.", "whitelist" },
	{ JWT_BLACK, "Black", "Only requests that match a resource need a token.", "blacklist" },
	{ 0, NULL, NULL, NULL }
};

static const struct choice path_matches[] = {
	{ MATCH_EQUAL, "EQUAL", "The path is `path`.", NULL },
	{ MATCH_PREFIX, "PRE", "The path starts with `path`.", NULL },
	{ MATCH_REGEX, "REGEX", "The path matches the regular expression `path`.", "ERGULAR" },
	{ 0, NULL, NULL, NULL }
};

static const struct choice header_methods[] = {
	{ HEADER_EQUAL, "EQUAL", "The value is `headerValue`.", NULL },
	{ HEADER_NOT_EQUAL, "NOT_EQUAL", "The value is not `headerValue`.", NULL },
	{ HEADER_PREFIX, "PREFIX", "The value starts with `headerValue`.", NULL },
	{ HEADER_SUFFIX, "SUFFIX", "The value ends with `headerValue`.", NULL },
	{ HEADER_INCLUDE, "INCLUDE", "The value contains `headerValue`.", NULL },
	{ HEADER_EXCLUDE, "EXCLUDE", "The value does not contain `headerValue`.", NULL },
	{ HEADER_REGEX, "REGEX", "The value matches the regular expression `headerValue`.", NULL },
	{ HEADER_EXIST, "EXIST", "The header is there.", NULL },
	{ HEADER_NOT_EXIST, "NOT_EXIST", "The header is not there.", NULL },
	{ 0, NULL, NULL, NULL }
};

static bool check_name(struct str value, struct problem *why)
{
	if (str_code_points(value) > NAME_MAX_CHARACTERS)
		return problem(why, "", "has %zu characters; at most %d are allowed", str_code_points(value),
			NAME_MAX_CHARACTERS);
	return true;
}

static bool check_jwks(struct str value, struct problem *why)
{
	return jwks_is_inline(value) ? jwks_check(value, why) : side_url_format(value, why);
}

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

static const struct field resource_fields[] = {
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

static const struct field fields[] = {
	TEXT(struct jwt_auth, name, REQUIRED, RANGE(1, 4 * NAME_MAX_CHARACTERS), FORMAT(check_name),
	     EXAMPLE("\"jwt-policy\""),
	     DOC("Name of the policy, for people; at most 64 characters.")),
	TEXT(struct jwt_auth, issuer, REQUIRED, RANGE(1, 2048), FORMAT(format_line),
	     EXAMPLE("\"https://auth.example.com\""),
	     DOC("What the claim `iss` must be, exactly.")),
	TEXT(struct jwt_auth, sub, RANGE(0, 2048), FORMAT(format_line),
	     DOC("What the claim `sub` must be, exactly; absent: not checked.")),
	TEXT(struct jwt_auth, jwks, REQUIRED, RANGE(1, JWKS_TEXT_MAX), FORMAT(check_jwks),
	     EXAMPLE("\"https://auth.example.com/.well-known/jwks.json\""),
	     DOC("URL of the key set of the issuer, or the key set itself as JSON.")),
	CHOICE(struct jwt_auth, tokenPosition, positions, REQUIRED, ANY_CASE, DOC("Where the token is.")),
	TEXT(struct jwt_auth, tokenName, REQUIRED, RANGE(1, 128), FORMAT(format_line),
	     EXAMPLE("\"Authorization\""),
	     DOC("Name of the header, query parameter or cookie.")),
	TEXT(struct jwt_auth, tokenNamePrefix, RANGE(0, 64), FORMAT(format_line), EXAMPLE("\"Bearer \""),
	     DOC("What stands before the token in a header.")),
	BOOL(struct jwt_auth, tokenPass, REQUIRED, DOC("Whether the token is sent on to the service.")),
	CHOICE(struct jwt_auth, whiteOrBlack, modes, ANY_CASE, DEFAULT("\"\""),
	       DOC("Which requests need a token.")),
	LIST(struct jwt_auth, authResources, struct auth_resource, resource_fields, RANGE(0, RESOURCES_MAX),
	     DOC("The requests that `whiteOrBlack` is about.")),
	TEXT(struct jwt_auth, resources, RANGE(0, RESOURCES_TEXT_MAX),
	     EXAMPLE("\"[{\\\"path\\\":\\\"/health\\\"}]\""),
	     DOC("More of the same, as a string that holds a JSON list of such objects.")),
	BOOL(struct jwt_auth, enable, REQUIRED, DOC("Whether the policy acts.")),
	FIELDS_END
};

/* The objects in the text `resources`. */
static bool read_resources(struct str text, struct arena *a, struct items *out, struct problem *why)
{
	const struct json *list = json_parse(a, text, why), *item;
	struct auth_resource *resources;
	size_t i = 0;

	if (!list)
		return false;
	if (list->type != JSON_ARRAY || list->n > RESOURCES_MAX)
		return problem(why, "", "must hold a JSON list of at most %d objects", RESOURCES_MAX);
	resources = NEW_N(a, struct auth_resource, list->n);
	for (item = list->child; item; item = item->next, i++) {
		char index[24];

		if (fields_decode(resource_fields, item, &resources[i], a, why))
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

static bool check_resources(const struct items *list, const char *name, struct arena *a, struct problem *why)
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

static bool check_with(const struct jwt_auth *conf, struct arena *a, struct problem *why)
{
	struct items more = { NULL, 0 };

	if (conf->tokenPosition != TOKEN_QUERY && !header_is_token(conf->tokenName))
		return problem(why, "tokenName", "must be the name of a header or cookie: letters, digits "
			"and !#$%%&'*+-.^_`|~ only");
	if (!check_resources(&conf->authResources, "authResources", a, why))
		return false;
	if (conf->resources.n && !read_resources(conf->resources, a, &more, why)) {
		problem_prefix(why, "resources");
		return false;
	}
	return check_resources(&more, "resources", a, why);
}

static bool check(const void *conf, struct problem *why)
{
	struct arena scratch = { 0 };
	bool ok = check_with(conf, &scratch, why);

	arena_free(&scratch);
	return ok;
}

static bool attach_resources(const struct items *list, const char *name, const struct attach_target *t,
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

static bool attach(const void *vconf, const struct attach_target *t, struct problem *why)
{
	const struct jwt_auth *conf = vconf;
	struct arena scratch = { 0 };
	struct items more = { NULL, 0 };
	bool ok = attach_resources(&conf->authResources, "authResources", t, why);

	if (ok && conf->resources.n)
		ok = read_resources(conf->resources, &scratch, &more, why) && attach_resources(&more,
			"resources", t, why);
	arena_free(&scratch);
	return ok;
}

const struct policy_class jwt_auth = {
	.name = "JWTAuth",
	.alias = "JWT authentication",
	.summary = "Admits only requests that carry a token signed by the issuer.",
	.group = "Security",
	.scopes = SCOPE_ROUTES | SCOPE_GATEWAY | SCOPE_DOMAIN,
	.stage = STAGE_AUTH_JWT,
	.combine = COMBINE_SPECIFIC,
	.fail_status = 503,
	.execute_stage = "PluginAuthentication",
	.execute_priority = 700,
	.fields = fields,
	.conf_size = sizeof(struct jwt_auth),
	.enable_at = offsetof(struct jwt_auth, enable),
	.outcomes = { "passed", "missing", "invalid", "exempt", "unavailable" },
	.check = check,
	.attach = attach,
};
