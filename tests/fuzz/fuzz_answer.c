/*
 * fuzz_answer.c -- any stream and any body of any API: what is kept is bounded and text, what it cost is no negative
 * number, and how a stream is cut changes nothing. The first byte is the API, the second the size of the pieces.
 */
/* room: ai */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include "ai/answer.h"
#include "core/budget.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct json *parse(struct arena *arena, struct str text)
{
	struct problem why = { 0 };

	return text.n > 0 && text.p[0] == '{' ? json_parse_spans(arena, text, 100000, &why) : NULL;
}

static void take(struct answer *a, const struct sse_event *e, struct sbuf *text)
{
	struct arena arena = { 0 };
	const struct json *doc = parse(&arena, e->data);

	answer_take_event(a, e, doc);
	answer_event_text(a->kind, e, doc, text);
	arena_free(&arena);
}

static void check(const struct answer *a)
{
	BUG_ON(a->text.n + a->reasoning.n > ANSWER_MAX || a->n_tools > ANSWER_TOOLS_MAX);
	BUG_ON(!str_is_utf8(sbuf_str(&a->text)) || !str_is_utf8(sbuf_str(&a->reasoning)));
	BUG_ON(a->id.n > 256 || a->model.n > 256 || a->finish_reason.n > 256);
	BUG_ON(!str_is_utf8(sbuf_str(&a->id)) || !str_is_utf8(sbuf_str(&a->model)));
	for (unsigned i = 0; i < USAGE_FIELDS; i++)
		BUG_ON(a->usage.of[i] < 0);
	BUG_ON(usage_total(&a->usage, a->kind) < 0 || usage_estimate_tokens(&a->said) < 0);
	for (unsigned i = 0; i < a->n_tools; i++)
		BUG_ON(!str_is_utf8(sbuf_str(&a->tools[i].arguments)) || a->tools[i].name.n > 256);
}

static void read_all(struct answer *a, struct str stream, size_t piece, struct sbuf *text)
{
	struct sse s = { 0 };
	struct sse_event e;

	while (stream.n > 0) {
		size_t n = stream.n < piece ? stream.n : piece;

		sse_give(&s, (struct str){ stream.p, n });
		while (sse_next(&s, &e) == SSE_EVENT)
			take(a, &e, text);
		stream.p += n;
		stream.n -= n;
	}
	if (sse_end(&s, &e))
		take(a, &e, text);
	sse_free(&s);
	check(a);
}

static void check_body(enum ai_kind kind, struct str body)
{
	struct answer a = { .kind = kind, .wants = ANSWER_TEXT };
	struct arena arena = { 0 };
	struct sbuf text = { 0 };
	const struct json *doc = parse(&arena, body);

	if (doc) {
		answer_take_body(&a, doc);
		answer_body_text(kind, doc, &text);
		check(&a);
	}
	sbuf_free(&text);
	arena_free(&arena);
	answer_free(&a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 2)
		return 0;
	enum ai_kind kind = (enum ai_kind)(data[0] % AI_KIND_COUNT);
	struct str stream = { (const char *)data + 2, size - 2 };
	struct answer whole = { .kind = kind, .wants = ANSWER_TEXT }, pieces = whole;
	struct sbuf whole_text = { 0 }, pieces_text = { 0 };

	read_all(&whole, stream, stream.n, &whole_text);
	read_all(&pieces, stream, data[1] % 16 + 1, &pieces_text);
	BUG_ON(!str_equal(sbuf_str(&whole.text), sbuf_str(&pieces.text)));
	BUG_ON(!str_equal(sbuf_str(&whole_text), sbuf_str(&pieces_text)));
	BUG_ON(whole.usage.has != pieces.usage.has || whole.is_complete != pieces.is_complete);
	BUG_ON(usage_total(&whole.usage, kind) != usage_total(&pieces.usage, kind));
	BUG_ON(usage_estimate_tokens(&whole.said) != usage_estimate_tokens(&pieces.said));
	answer_free(&whole);
	answer_free(&pieces);
	sbuf_free(&whole_text);
	sbuf_free(&pieces_text);
	check_body(kind, stream);
	BUG_ON(budget.used != 0);
	return 0;
}
