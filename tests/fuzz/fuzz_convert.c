/*
 * fuzz_convert.c -- requests, answers and streams of peers, whatever they hold: what comes out is JSON, or whole events
 * with JSON, however the stream was cut. The first byte says what follows: bits 0-1 the direction, bits
 * 2-3 a request, an answer, an error or a stream, the rest the size of pieces and what the client wants.
 */
/* room: ai */
#include <stddef.h>
#include <stdint.h>
#include "ai/convert.h"
#include "core/fault.h"
#include "core/mem.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_json(struct str text)
{
	struct arena a = { 0 };
	struct problem why = { 0 };

	BUG_ON(!json_parse(&a, text, &why));
	arena_free(&a);
}

static void check_events(struct str stream)
{
	struct sse sse = { 0 };
	struct sse_event e;

	sse_give(&sse, stream);
	while (sse_next(&sse, &e) == SSE_EVENT)
		if (e.has_data && !str_equal(e.data, STR("[DONE]")))
			check_json(e.data);
	BUG_ON(sse_rest(&sse).n > 0);
	sse_free(&sse);
}

static void try_request(struct conversion *about, struct str text)
{
	struct arena a = { 0 };
	struct problem why = { 0 };
	struct sbuf out = { 0 };
	const struct json *body = json_parse_spans(&a, text, 100000, &why);

	why = (struct problem){ 0 };
	if (body && convert_request(about, body, &out, &why))
		check_json(sbuf_str(&out));
	else
		BUG_ON(body && (!why.text[0] || !str_is_utf8(str_of(why.field)) || out.n > 0));
	sbuf_free(&out);
	arena_free(&a);
}

static void try_body(const struct conversion *about, struct str text)
{
	struct arena a = { 0 };
	struct problem why = { 0 };
	struct sbuf out = { 0 };
	const struct json *doc = json_parse(&a, text, &why);

	if (convert_body(about, doc, &out))
		check_json(sbuf_str(&out));
	else
		BUG_ON(out.n > 0);
	sbuf_free(&out);
	arena_free(&a);
}

static void try_error(const struct conversion *about, struct str text)
{
	struct sbuf out = { 0 };

	convert_error(about, 400 + (int)(text.n % 200), text, &out);
	check_json(sbuf_str(&out));
	sbuf_free(&out);
}

static void take_event(struct converter *c, const struct sse_event *e, struct sbuf *out)
{
	struct arena a = { 0 };
	struct problem why = { 0 };
	bool was_over = converter_is_over(c);
	size_t before = out->n;

	converter_take(c, e, e->data.n ? json_parse(&a, e->data, &why) : NULL, out);
	BUG_ON(was_over && out->n > before);
	arena_free(&a);
}

static void convert_stream(const struct conversion *about, struct str in, size_t step, struct sbuf *out)
{
	struct arena a = { 0 };
	struct converter *c = converter_new(&a, about);
	struct sse sse = { 0 };
	struct sse_event e;

	for (size_t at = 0; at < in.n; at += step) {
		sse_give(&sse, (struct str){ in.p + at, in.n - at < step ? in.n - at : step });
		while (sse_next(&sse, &e) == SSE_EVENT)
			take_event(c, &e, out);
	}
	sse_free(&sse);
	converter_free(c);
	arena_free(&a);
}

static void try_stream(const struct conversion *about, struct str in, size_t step)
{
	struct sbuf whole = { 0 }, pieces = { 0 };

	convert_stream(about, in, in.n + 1, &whole);
	convert_stream(about, in, step, &pieces);
	check_events(sbuf_str(&whole));
	check_events(sbuf_str(&pieces));
	sbuf_free(&whole);
	sbuf_free(&pieces);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const enum ai_kind clients[] = { AI_CHAT, AI_MESSAGES, AI_CHAT, AI_CHAT };
	static const enum ai_kind upstreams[] = { AI_MESSAGES, AI_CHAT, AI_GENERATION, AI_GENERATION };
	unsigned how = size ? data[0] : 0;
	struct conversion about = { .client = clients[how & 3], .upstream = upstreams[how & 3], .model = STR("gpt-5"),
		.created = 77, .include_usage = how & 16, .is_cumulative = (how & 3) == 3 };
	struct str text = { (const char *)data + (size ? 1 : 0), size ? size - 1 : 0 };

	switch (how >> 2 & 3) {
	case 0:
		try_request(&about, text);
		break;
	case 1:
		try_body(&about, text);
		break;
	case 2:
		try_error(&about, text);
		break;
	default:
		try_stream(&about, text, 1 + (how >> 5));
	}
	return 0;
}
