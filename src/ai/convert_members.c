/*
 * Members of requests: those that are copied as they are, and those that are refused because the other API has nothing
 * for them. null is as if absent in both APIs.
 */
#include <stdio.h>
#include "ai/convert_parts.h"

bool convert_refuse(struct problem *why, const char *field)
{
	return problem(why, field, "the API of the model service has no counterpart; leave it out");
}

bool convert_must(struct problem *why, const char *field, const char *what)
{
	return problem(why, field, "must be %s; the API of the model service knows no others", what);
}

bool convert_in_item(struct problem *why, const char *list, unsigned at)
{
	char outer[64];

	snprintf(outer, sizeof outer, "%s[%u]", list, at);
	problem_prefix(why, outer);
	return false;
}

bool convert_must_type(struct problem *why, const struct json *part, const char *what)
{
	return convert_must(why, part->type == JSON_OBJECT ? "type" : "", what);
}

static const char *name_type(enum json_type type)
{
	switch (type) {
	case JSON_NULL:
		return "null";
	case JSON_BOOL:
		return "true or false";
	case JSON_INT: case JSON_REAL:
		return "a number";
	case JSON_STRING:
		return "a string";
	case JSON_ARRAY:
		return "a list";
	case JSON_OBJECT:
		return "an object";
	}
	return "";
}

static bool refuse_type(struct problem *why, const char *field, enum json_type wanted, const struct json *is)
{
	char brief[JSON_BRIEF];

	json_brief(is, brief);
	return problem(why, field, "must be %s, is %s", name_type(wanted), brief);
}

bool convert_get_typed(const struct json *object, const char *name, enum json_type type, const struct json **v,
		       struct problem *why)
{
	*v = convert_get(object, name);
	if (!*v || (*v)->type == type || (type == JSON_REAL && (*v)->type == JSON_INT))
		return true;
	return refuse_type(why, name, type, *v);
}

bool convert_need_text(const struct json *object, const char *name, struct str *text, struct problem *why)
{
	const struct json *v;

	if (!convert_get_typed(object, name, JSON_STRING, &v, why))
		return false;
	if (!v || v->string.n == 0)
		return problem(why, name, "is missing; it must be a string that is not empty");
	*text = v->string;
	return true;
}

bool convert_need_list(const struct json *object, const char *name, const struct json **v, struct problem *why)
{
	if (!convert_get_typed(object, name, JSON_ARRAY, v, why))
		return false;
	return *v || problem(why, name, "is missing; it must be a list");
}

bool convert_need_object(const struct json *object, const char *name, const struct json **v, struct problem *why)
{
	if (!convert_get_typed(object, name, JSON_OBJECT, v, why))
		return false;
	return *v || problem(why, name, "is missing; it must be an object");
}

static bool says_nothing(const struct json *v)
{
	switch (v->type) {
	case JSON_NULL:
		return true;
	case JSON_BOOL:
		return !v->boolean;
	case JSON_INT: case JSON_REAL:
		return !(json_number(v) < 0) && !(json_number(v) > 0);
	case JSON_STRING:
		return v->string.n == 0;
	case JSON_ARRAY: case JSON_OBJECT:
		return v->n == 0;
	}
	return false;
}

static bool take_member(const struct member *m, const struct json *object, struct sbuf *out, struct problem *why)
{
	static const enum json_type types[] = { [MEMBER_NUMBER] = JSON_REAL, [MEMBER_BOOL] = JSON_BOOL,
		[MEMBER_TEXT] = JSON_STRING, [MEMBER_OBJECT] = JSON_OBJECT };
	const struct json *v = convert_get(object, m->name);

	if (!v)
		return true;
	switch (m->rule) {
	case MEMBER_NUMBER: case MEMBER_BOOL: case MEMBER_TEXT: case MEMBER_OBJECT:
		if (!convert_get_typed(object, m->name, types[m->rule], &v, why))
			return false;
		put_node(out, m->as ? m->as : m->name, v);
		return true;
	case MEMBER_EMPTY:
		return says_nothing(v) || convert_refuse(why, m->name);
	case MEMBER_NONE:
		return convert_refuse(why, m->name);
	case MEMBER_ONE:
		if (v->type == JSON_INT && v->integer == 1)
			return true;
		return problem(why, m->name, "the API of the model service gives one answer; leave it out");
	}
	return true;
}

bool convert_members(const struct member *rules, size_t n, const struct json *object, struct sbuf *out,
		     struct problem *why)
{
	for (size_t i = 0; i < n; i++)
		if (!take_member(&rules[i], object, out, why))
			return false;
	return true;
}

bool convert_split_data_url(struct str url, struct str *type, struct str *data)
{
	static const struct str scheme = STR("data:"), base64 = STR(";base64");
	size_t comma = str_find(url, ','), semicolon;

	if (url.n < scheme.n || !str_equal_nocase((struct str){ url.p, scheme.n }, scheme) || comma == url.n)
		return false;
	struct str head = { url.p + scheme.n, comma - scheme.n };

	if (head.n < base64.n)
		return false;
	struct str tail = { head.p + head.n - base64.n, base64.n };

	semicolon = str_find(head, ';');
	if (!str_equal_nocase(tail, base64) || semicolon == 0)
		return false;
	*type = (struct str){ head.p, semicolon };
	*data = (struct str){ url.p + comma + 1, url.n - comma - 1 };
	return true;
}

static bool read_choice_word(struct str word, enum chat_choice *choice, struct problem *why)
{
	char brief[JSON_BRIEF];

	if (str_equal(word, STR("auto")))
		*choice = CHOICE_AUTO;
	else if (str_equal(word, STR("none")))
		*choice = CHOICE_NONE;
	else if (str_equal(word, STR("required")))
		*choice = CHOICE_REQUIRED;
	else {
		json_brief_text(word, brief);
		return problem(why, "tool_choice", "must be auto, none, required or an object, is %s", brief);
	}
	return true;
}

bool convert_read_choice(const struct json *body, enum chat_choice *choice, struct str *name, struct problem *why)
{
	const struct json *v = convert_get(body, "tool_choice"), *function;

	*choice = CHOICE_UNSAID;
	if (!v)
		return true;
	if (v->type == JSON_STRING)
		return read_choice_word(v->string, choice, why);
	if (v->type != JSON_OBJECT)
		return refuse_type(why, "tool_choice", JSON_OBJECT, v);
	if (!str_equal(json_text(v, "type"), STR("function")))
		return convert_refuse(why, "tool_choice.type");
	*choice = CHOICE_NAMED;
	if (convert_need_object(v, "function", &function, why)) {
		if (convert_need_text(function, "name", name, why))
			return true;
		problem_prefix(why, "function");
	}
	problem_prefix(why, "tool_choice");
	return false;
}

static bool check_modalities(const struct json *body, struct problem *why)
{
	const struct json *list;
	unsigned at = 0;

	if (!convert_get_typed(body, "modalities", JSON_ARRAY, &list, why))
		return false;
	for (const struct json *v = list ? list->child : NULL; v; v = v->next, at++)
		if (v->type != JSON_STRING || !str_equal(v->string, STR("text")))
			return convert_refuse(why, "") || convert_in_item(why, "modalities", at);
	return true;
}

bool convert_check_chat(struct conversion *c, const struct json *body, struct problem *why)
{
	static const struct member refused[] = {
		{ "n", MEMBER_ONE, NULL }, { "logprobs", MEMBER_EMPTY, NULL }, { "top_logprobs", MEMBER_EMPTY, NULL },
		{ "logit_bias", MEMBER_EMPTY, NULL }, { "functions", MEMBER_EMPTY, NULL },
		{ "function_call", MEMBER_NONE, NULL }, { "web_search_options", MEMBER_NONE, NULL },
	};
	const struct json *options;

	if (!CONVERT_MEMBERS(refused, body, NULL, why) || !check_modalities(body, why) ||
	    !convert_get_typed(body, "stream_options", JSON_OBJECT, &options, why))
		return false;
	c->is_stream = json_is_true(body, "stream");
	c->include_usage = json_is_true(options, "include_usage");
	return true;
}
