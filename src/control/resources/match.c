#include "control/resources/match.h"
#include <stdio.h>
#include "control/resources/shared.h"
#include "core/regex.h"
#include "http/message.h"
#include "policy/formats.h"

static const struct choice path_types[] = {
	{ PATH_EXACT, "Exact", "the whole path", NULL },
	{ PATH_PREFIX, "Prefix", "whole segments from the start: /app takes /app and /app/x, not /apple", NULL },
	{ PATH_REGEX, "Regex", "a regular expression for the whole path", NULL },
	{ 0, NULL, NULL, NULL },
};
static const struct choice value_types[] = {
	{ PATH_EXACT, "Exact", "the whole value", NULL },
	{ PATH_PREFIX, "Prefix", "the start of the value", NULL },
	{ PATH_REGEX, "Regex", "a regular expression for the whole value", NULL },
	{ 0, NULL, NULL, NULL },
};

static const struct field path_fields[] = {
	CHOICE(struct match_path, type, path_types, REQUIRED, DOC("How the path is compared.")),
	TEXT(struct match_path, value, REQUIRED, RANGE(1, 2048), EXAMPLE("\"/orders\""),
		DOC("Path or pattern, in normal form.")),
	FIELDS_END
};
static const struct field header_fields[] = {
	TEXT(struct match_condition, name, REQUIRED, RANGE(1, 256), FORMAT(format_header_name),
		EXAMPLE("\"x-version\""),
		DOC("Header name, in any case; with \"_\" only where the setting keepUnderscores is on.")),
	CHOICE(struct match_condition, type, value_types, REQUIRED, DOC("How the value is compared.")),
	TEXT(struct match_condition, value, REQUIRED, EMPTY_OK, RANGE(0, 4096), FORMAT(format_line),
		EXAMPLE("\"v2\""), DOC("Value.")),
	FIELDS_END
};
static const struct field query_fields[] = {
	TEXT(struct match_condition, name, REQUIRED, RANGE(1, 256), FORMAT(format_line),
		EXAMPLE("\"version\""), DOC("Parameter name.")),
	CHOICE(struct match_condition, type, value_types, REQUIRED, DOC("How the value is compared.")),
	TEXT(struct match_condition, value, REQUIRED, EMPTY_OK, RANGE(0, 4096), FORMAT(format_line),
		EXAMPLE("\"v2\""), DOC("Value.")),
	FIELDS_END
};
bool format_request_method(struct str s, struct problem *why)
{
	char upper[32];
	struct str text = { upper, s.n };

	if (!format_method(s, why))
		return false;
	if (str_equal(s, STR("*")) || str_equal(s, STR("ANY")))
		return problem(why, "", "would never match, for it is no method; "
			       "a route takes all methods when methods is left out");
	if (str_equal(s, STR("CONNECT")))
		return problem(why, "", "would never match: CONNECT is refused; WebSockets over HTTP/2 count as GET");
	for (size_t i = 0; i < s.n && i < sizeof upper; i++)
		upper[i] = (char)(s.p[i] >= 'a' && s.p[i] <= 'z' ? s.p[i] - 'a' + 'A' : s.p[i]);
	if (s.n > sizeof upper || method_lookup(s) != METHOD_OTHER || method_lookup(text) == METHOD_OTHER)
		return true;
	return problem(why, "", "would never match, for methods have case; write \"%.*s\"", STR_FMT(text));
}

const struct field route_match_fields[] = {
	OBJECT(struct route_match, path, path_fields, REQUIRED, DOC("Path.")),
	TEXTS(struct route_match, methods, RANGE(0, 32), TEXT_MAX(32), FORMAT(format_request_method),
		EXAMPLE("[\"GET\"]"), DOC("Methods; none = all.")),
	LIST(struct route_match, headers, struct match_condition, header_fields, RANGE(0, 32),
		DOC("Headers, all of which must match.")),
	LIST(struct route_match, queryParams, struct match_condition, query_fields, RANGE(0, 32),
		DOC("Query parameters, all of which must match.")),
	BOOL(struct route_match, ignoreUriCase, DEFAULT("false"),
		DOC("Whether the case of the path is ignored.")),
	FIELDS_END
};

static bool check_regex(struct str pattern, bool ignore_case, const char *field, struct problem *why)
{
	struct arena a = { 0 };
	bool ok = regex_compile(&a, pattern, ignore_case, why) != NULL;

	arena_free(&a);
	if (!ok)
		snprintf(why->field, sizeof why->field, "%s", field);
	return ok;
}

static bool check_conditions(const struct items *list, const char *name, struct problem *why)
{
	char at[48];

	for (size_t i = 0; i < list->n; i++) {
		const struct match_condition *c = ITEM(*list, struct match_condition, i);

		snprintf(at, sizeof at, "%s[%zu].value", name, i);
		if (c->type == PATH_REGEX && !check_regex(c->value, false, at, why))
			return false;
	}
	return true;
}

bool route_match_check(const struct route_match *m, struct problem *why)
{
	if (m->path.type == PATH_REGEX) {
		if (!check_regex(m->path.value, m->ignoreUriCase, "path.value", why))
			return false;
	} else if (!format_base_path(m->path.value, why)) {
		snprintf(why->field, sizeof why->field, "path.value");
		return false;
	}
	for (size_t i = 0; i < m->methods.n; i++)
		for (size_t j = 0; j < i; j++)
			if (str_equal(*ITEM(m->methods, struct str, i), *ITEM(m->methods, struct str, j))) {
				snprintf(why->field, sizeof why->field, "methods[%zu]", i);
				return problem(why, why->field, "is listed twice");
			}
	return check_conditions(&m->headers, "headers", why) &&
	       check_conditions(&m->queryParams, "queryParams", why);
}

static bool is_parameter(struct str segment)
{
	if (segment.n < 3 || segment.p[0] != '{' || segment.p[segment.n - 1] != '}')
		return false;
	for (size_t i = 1; i + 1 < segment.n; i++) {
		char c = segment.p[i];

		if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
			    c == '_' || c == '-' || c == '.'))
			return false;
	}
	return true;
}

static bool has_segment(struct str list, struct str segment)
{
	struct str part;

	while (str_split(&list, '/', &part))
		if (str_equal(part, segment))
			return true;
	return false;
}

bool format_template(struct str s, struct problem *why)
{
	struct sbuf plain = { 0 };
	struct str rest = s, segment;
	bool ok = s.n && s.p[0] == '/';

	if (!ok)
		return problem(why, "", "must start with \"/\"");
	for (bool first = true; ok && str_split(&rest, '/', &segment); first = false) {
		bool braces = str_find(segment, '{') < segment.n || str_find(segment, '}') < segment.n;

		if (braces && !is_parameter(segment))
			ok = problem(why, "", "a parameter is a whole segment such as {id}");
		if (ok && braces && has_segment((struct str){ s.p, (size_t)(segment.p - s.p) }, segment))
			ok = problem(why, "", "the parameter %.*s is there twice", STR_FMT(segment));
		if (!first)
			sbuf_addc(&plain, '/');
		sbuf_add(&plain, braces ? STR("x") : segment);
	}
	ok = ok && format_base_path(sbuf_str(&plain), why);
	sbuf_free(&plain);
	return ok;
}
