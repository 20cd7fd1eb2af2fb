#include "ai/usage.h"
#include <math.h>

#define COUNT_MAX (INT64_C(1) << 53)

/* Where a kind says its numbers, in the object it has them in; the first name that is there counts. */
struct place {
	enum usage_field field;
	const char *within;               /* an object inside; NULL: directly */
	const char *name;
};

static const struct place chat_places[] = {
	{ USAGE_INPUT, NULL, "prompt_tokens" },
	{ USAGE_OUTPUT, NULL, "completion_tokens" },
	{ USAGE_TOTAL, NULL, "total_tokens" },
	{ USAGE_CACHED, "prompt_tokens_details", "cached_tokens" },
	{ USAGE_CACHED, NULL, "prompt_cache_hit_tokens" },
	{ USAGE_REASONING, "completion_tokens_details", "reasoning_tokens" },
	{ USAGE_FIELDS, NULL, NULL }
};

static const struct place responses_places[] = {
	{ USAGE_INPUT, NULL, "input_tokens" },
	{ USAGE_OUTPUT, NULL, "output_tokens" },
	{ USAGE_TOTAL, NULL, "total_tokens" },
	{ USAGE_CACHED, "input_tokens_details", "cached_tokens" },
	{ USAGE_REASONING, "output_tokens_details", "reasoning_tokens" },
	{ USAGE_FIELDS, NULL, NULL }
};

static const struct place messages_places[] = {
	{ USAGE_INPUT, NULL, "input_tokens" },
	{ USAGE_OUTPUT, NULL, "output_tokens" },
	{ USAGE_CACHED, NULL, "cache_read_input_tokens" },
	{ USAGE_CACHE_CREATION, NULL, "cache_creation_input_tokens" },
	{ USAGE_FIELDS, NULL, NULL }
};

static const struct place generation_places[] = {
	{ USAGE_INPUT, NULL, "input_tokens" },
	{ USAGE_OUTPUT, NULL, "output_tokens" },
	{ USAGE_TOTAL, NULL, "total_tokens" },
	{ USAGE_CACHED, "prompt_tokens_details", "cached_tokens" },
	{ USAGE_CACHED, "input_tokens_details", "cached_tokens" },
	{ USAGE_CACHED, NULL, "cached_tokens" },
	{ USAGE_REASONING, "output_tokens_details", "reasoning_tokens" },
	{ USAGE_FIELDS, NULL, NULL }
};

/* Images, rerank, audio: they speak like one of the above. */
static const struct place other_places[] = {
	{ USAGE_INPUT, NULL, "prompt_tokens" },
	{ USAGE_INPUT, NULL, "input_tokens" },
	{ USAGE_OUTPUT, NULL, "completion_tokens" },
	{ USAGE_OUTPUT, NULL, "output_tokens" },
	{ USAGE_TOTAL, NULL, "total_tokens" },
	{ USAGE_FIELDS, NULL, NULL }
};

static const struct place *const places_of[AI_KIND_COUNT] = {
	[AI_NONE] = other_places,
	[AI_CHAT] = chat_places,
	[AI_COMPLETIONS] = chat_places,
	[AI_RESPONSES] = responses_places,
	[AI_EMBEDDINGS] = chat_places,
	[AI_MESSAGES] = messages_places,
	[AI_GENERATION] = generation_places,
	[AI_DIFY_CHAT] = chat_places,
	[AI_DIFY_COMPLETION] = chat_places,
	[AI_DIFY_WORKFLOW] = chat_places,
};

/* A number of tokens; false: none that counts. */
static bool read_count(const struct json *value, int64_t *out)
{
	if (!value)
		return false;
	if (value->type == JSON_INT) {
		*out = value->integer;
		return value->integer >= 0 && value->integer <= COUNT_MAX;
	}
	if (value->type != JSON_REAL)
		return false;
	double v = json_number(value);

	if (!(v >= 0 && v <= (double)COUNT_MAX) || floor(v) != v)
		return false;
	*out = (int64_t)v;
	return true;
}

static void set(struct usage *u, enum usage_field field, int64_t count)
{
	u->of[field] = count;
	u->has |= 1U << field;
}

static const struct json *member_object(const struct json *object, const char *name)
{
	const struct json *member = object ? json_get(object, name) : NULL;

	return member && member->type == JSON_OBJECT ? member : NULL;
}

static void take_places(struct usage *u, const struct place *p, const struct json *usage)
{
	unsigned seen = 0;

	for (; p->name; p++) {
		const struct json *in = p->within ? member_object(usage, p->within) : usage;
		int64_t count;

		if (seen & 1U << p->field || !in || !read_count(json_get(in, p->name), &count))
			continue;
		seen |= 1U << p->field;
		set(u, p->field, count);
	}
}

/* An application says what each of its models took. */
static void take_models(struct usage *u, const struct json *usage)
{
	const struct json *models = json_get(usage, "models");
	int64_t input = 0, output = 0, count;
	unsigned seen = 0;

	if (!models || models->type != JSON_ARRAY)
		return;
	for (const struct json *m = models->child; m; m = m->next) {
		if (read_count(json_get(m, "input_tokens"), &count) && input + count <= COUNT_MAX) {
			input += count;
			seen |= 1U << USAGE_INPUT;
		}
		if (read_count(json_get(m, "output_tokens"), &count) && output + count <= COUNT_MAX) {
			output += count;
			seen |= 1U << USAGE_OUTPUT;
		}
	}
	if (seen & 1U << USAGE_INPUT)
		set(u, USAGE_INPUT, input);
	if (seen & 1U << USAGE_OUTPUT)
		set(u, USAGE_OUTPUT, output);
}

/* The object that a kind has its numbers in. */
static const struct json *find_usage(enum ai_kind kind, const struct json *doc)
{
	const struct json *inside = NULL;

	switch (kind) {
	case AI_RESPONSES:
		inside = member_object(member_object(doc, "response"), "usage");
		break;
	case AI_MESSAGES:
		inside = member_object(member_object(doc, "message"), "usage");
		break;
	case AI_DIFY_CHAT:
	case AI_DIFY_COMPLETION:
	case AI_DIFY_WORKFLOW:
		inside = member_object(member_object(doc, "metadata"), "usage");
		return inside ? inside : member_object(doc, "data");
	default:
		break;
	}
	return inside ? inside : member_object(doc, "usage");
}

void usage_take(struct usage *u, enum ai_kind kind, const struct json *doc)
{
	const struct json *usage = find_usage(kind, doc);

	if (!usage)
		return;
	if (kind == AI_APP) {
		take_models(u, usage);
		return;
	}
	take_places(u, places_of[kind], usage);
	if (kind == AI_EMBEDDINGS && usage_is_known(u) && !(u->has & 1U << USAGE_OUTPUT))
		set(u, USAGE_OUTPUT, 0);
}

int64_t usage_total(const struct usage *u, enum ai_kind kind)
{
	int64_t total = u->of[USAGE_INPUT] + u->of[USAGE_OUTPUT];

	if (u->has & 1U << USAGE_TOTAL)
		return u->of[USAGE_TOTAL];
	if (kind == AI_MESSAGES)
		total += u->of[USAGE_CACHED] + u->of[USAGE_CACHE_CREATION];
	return total;
}

struct str usage_input_details(const struct usage *u, struct arena *a)
{
	bool has_cached = u->has & 1U << USAGE_CACHED, has_creation = u->has & 1U << USAGE_CACHE_CREATION;

	if (has_cached && has_creation)
		return arena_printf(a, "{\"cached_tokens\":%lld,\"cache_creation_tokens\":%lld}",
				    (long long)u->of[USAGE_CACHED], (long long)u->of[USAGE_CACHE_CREATION]);
	if (has_cached)
		return arena_printf(a, "{\"cached_tokens\":%lld}", (long long)u->of[USAGE_CACHED]);
	if (has_creation)
		return arena_printf(a, "{\"cache_creation_tokens\":%lld}", (long long)u->of[USAGE_CACHE_CREATION]);
	return (struct str){ NULL, 0 };
}

struct str usage_output_details(const struct usage *u, struct arena *a)
{
	if (!(u->has & 1U << USAGE_REASONING))
		return (struct str){ NULL, 0 };
	return arena_printf(a, "{\"reasoning_tokens\":%lld}", (long long)u->of[USAGE_REASONING]);
}

void usage_estimate_add(struct usage_estimate *e, struct str text)
{
	uint64_t ascii = 0, others = 0;

	/* A code point is counted at its first byte: where the text is cut does not matter. */
	for (size_t i = 0; i < text.n; i++) {
		unsigned char c = (unsigned char)text.p[i];

		ascii += c < 0x80;
		others += c >= 0xc0;
	}
	e->ascii += ascii;
	e->others += others;
}

int64_t usage_estimate_tokens(const struct usage_estimate *e)
{
	return (int64_t)((e->ascii + 3) / 4 + e->others);
}
