/*
 * Streams: what is the same whatever is converted: comments, errors, the end.
 */
#include "ai/convert_parts.h"
#include "core/mem.h"

struct converter *converter_new(struct arena *a, const struct conversion *about)
{
	struct converter *c = NEW(a, struct converter);

	BUG_ON(!convert_can(about->client, about->upstream));
	c->about = about;
	c->a = a;
	return c;
}

bool converter_is_over(const struct converter *c)
{
	return c->is_over;
}

void converter_free(struct converter *c)
{
	convert_free_lanes(c);
}

void convert_open_event(struct sbuf *out, const char *type)
{
	sbuf_addf(out, "event: %s\ndata: ", type);
	put_root(out);
	put_text(out, "type", str_of(type));
}

void convert_close_event(struct sbuf *out)
{
	put_close(out, '}');
	SBUF_LIT(out, "\n\n");
}

/* The status that an error in a stream would have had. */
static int status_of(const struct json *doc)
{
	static const struct { struct str word; int status; } words[] = {
		{ STR("invalid_request_error"), 400 }, { STR("authentication_error"), 401 },
		{ STR("permission_error"), 403 }, { STR("not_found_error"), 404 }, { STR("request_too_large"), 413 },
		{ STR("rate_limit_error"), 429 }, { STR("rate_limit_exceeded"), 429 }, { STR("Throttling"), 429 },
		{ STR("InvalidParameter"), 400 }, { STR("InvalidApiKey"), 401 }, { STR("AccessDenied"), 403 },
		{ STR("ModelNotFound"), 404 },
	};
	const struct json *error = json_get(doc, "error"), *code = json_get(error, "code");
	struct str said = json_text(error, "type");

	if (code && code->type == JSON_INT && code->integer >= 400 && code->integer <= 599)
		return (int)code->integer;
	said = said.n ? said : json_text(error, "code");
	said = said.n ? said : json_text(doc, "code");
	for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
		if (str_starts(said, words[i].word))
			return words[i].status;
	return 500;
}

void convert_fail(struct converter *c, const struct json *doc, struct str message, struct sbuf *out)
{
	struct json text = { .type = JSON_STRING, .string = message, .name = STR("message") };
	struct json ours = { .type = JSON_OBJECT, .n = 1, .child = &text, .last = &text };

	c->is_over = true;
	if (c->about->client == AI_MESSAGES)
		SBUF_LIT(out, "event: error\n");
	SBUF_LIT(out, "data: ");
	convert_error_of(c->about, doc ? status_of(doc) : 502, doc ? doc : &ours, out);
	SBUF_LIT(out, "\n\n");
}

/* Comments keep the line open; so do pings. */
static void pass_ping(const struct converter *c, struct sbuf *out)
{
	if (c->about->client == AI_MESSAGES)
		SBUF_LIT(out, "event: ping\ndata: {\"type\":\"ping\"}\n\n");
	else
		SBUF_LIT(out, ": ping\n\n");
}

static bool is_error(const struct converter *c, const struct sse_event *e, const struct json *doc)
{
	const struct json *error = convert_get(doc, "error");

	if (c->about->upstream == AI_CHAT)
		return error && (error->type == JSON_OBJECT || error->type == JSON_STRING);
	if (c->about->upstream == AI_MESSAGES)
		return str_equal(json_text(doc, "type"), STR("error")) || str_equal(e->type, STR("error"));
	return str_equal(e->type, STR("error")) || (json_text(doc, "code").n && !convert_get(doc, "output"));
}

void converter_take(struct converter *c, const struct sse_event *e, const struct json *doc, struct sbuf *out)
{
	if (c->is_over)
		return;
	if (!e->has_data) {
		if (memchr(e->raw.p ? e->raw.p : "", ':', e->raw.n))
			pass_ping(c, out);
		return;
	}
	if (e->data.n == 0)
		return;
	if (str_equal(str_trim(e->data), STR("[DONE]"))) {
		if (c->about->upstream == AI_CHAT)
			convert_end_events(c, out);
		return;
	}
	if (!doc || doc->type != JSON_OBJECT) {
		convert_fail(c, NULL, STR("an event of the model service cannot be read"), out);
		return;
	}
	if (is_error(c, e, doc)) {
		convert_fail(c, doc, STR(""), out);
		return;
	}
	if (c->about->upstream == AI_MESSAGES && str_equal(json_text(doc, "type"), STR("ping")))
		pass_ping(c, out);
	else if (c->about->upstream == AI_CHAT)
		convert_chunk_to_events(c, doc, out);
	else if (c->about->upstream == AI_MESSAGES)
		convert_event_to_chunks(c, doc, out);
	else
		convert_generation_to_chunks(c, doc, out);
}
