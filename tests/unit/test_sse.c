/*
 * test_sse.c -- events of streams: line ends, fields, pieces cut anywhere, the limit, memory.
 */
/* room: ai */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "ai/sse.h"
#include "core/budget.h"

/* What a stream holds, one line for each event with data: "type|id|data;" */
struct reading {
	struct sse sse;
	struct sbuf events, raw;
};

static void note(struct reading *r, const struct sse_event *e)
{
	sbuf_add(&r->raw, e->raw);
	if (!e->has_data)
		return;
	sbuf_add(&r->events, e->type);
	sbuf_addc(&r->events, '|');
	sbuf_add(&r->events, e->id);
	sbuf_addc(&r->events, '|');
	sbuf_add(&r->events, e->data);
	sbuf_addc(&r->events, ';');
}

static enum sse_result give(struct reading *r, struct str piece)
{
	struct sse_event e;
	enum sse_result result;

	sse_give(&r->sse, piece);
	while ((result = sse_next(&r->sse, &e)) == SSE_EVENT)
		note(r, &e);
	return result;
}

static void end(struct reading *r)
{
	struct sse_event e;

	if (sse_end(&r->sse, &e))
		note(r, &e);
	sse_free(&r->sse);
	sbuf_free(&r->events);
	sbuf_free(&r->raw);
}

/* In pieces of `size` bytes, each in memory of its own: reading past a piece is seen. */
static void check_split(struct str stream, size_t size, const char *events)
{
	struct reading r = { 0 };
	struct sse_event e;

	for (size_t at = 0; at < stream.n; at += size) {
		size_t n = stream.n - at < size ? stream.n - at : size;
		char *piece = malloc(n);

		memcpy(piece, stream.p + at, n);
		assert_int_equal(give(&r, (struct str){ piece, n }), SSE_MORE);
		free(piece);
	}
	if (sse_end(&r.sse, &e))
		note(&r, &e);
	assert_true(str_equal(sbuf_str(&r.raw), stream));
	if (!str_equal(sbuf_str(&r.events), str_of(events)))
		fail_msg("pieces of %zu: %.*s, not %s", size, STR_FMT(r.events), events);
	end(&r);
}

static void check(const char *stream, const char *events)
{
	struct str all = str_of(stream);

	for (size_t size = 1; size <= all.n; size++)
		check_split(all, size, events);
}

static void fields(void **state)
{
	(void)state;
	check("data: a\n\n", "||a;");
	check("data:a\n\n", "||a;");
	check("data:  a\n\n", "|| a;");
	check("data: a\ndata: b\n\n", "||a\nb;");
	check("data\n\n", "||;");
	check("data\ndata\n\n", "||\n;");
	check("data: a\ndata:\ndata: c\n\n", "||a\n\nc;");
	check("event: x\ndata: a\nid: 7\n\n", "x|7|a;");
	check("id: 1\nid: 2\nevent: a\nevent: b\ndata: c\n\n", "b|2|c;");
	check("retry: 10\n\ndata: a\n\n", "||a;");
	check("datas: a\nDATA: b\n data: c\n\n", "");
	check("data: {\"a\":\"b: c\"}\n\n", "||{\"a\":\"b: c\"};");
}

static void line_ends(void **state)
{
	(void)state;
	check("data: a\r\n\r\ndata: b\r\n\r\n", "||a;||b;");
	check("data: a\r\rdata: b\r\r", "||a;||b;");
	check("data: a\rdata: b\r\rdata: c\n\ndata: d\r\n\r\n", "||a\nb;||c;||d;");
	check("data: a\r\n\ndata: b\n\r\n", "||a;||b;");
	check("data: a\n\r\ndata: b\r\n\rdata: c\n\n", "||a;||b;||c;");
	check("\n\n\ndata: a\n\n\n\n\r\n\r\n", "||a;");
}

static void comments_are_no_content(void **state)
{
	(void)state;
	check(": ping\n\ndata: a\n\n", "||a;");
	check(":\n:\n\n:data: x\n\ndata: a\n\n", "||a;");
	check("id:1\nevent:result\n:HTTP_STATUS/200\ndata:{\"x\":1}\n\n", "result|1|{\"x\":1};");
	check("event: ping\ndata: {}\n\n", "ping||{};");
}

static void the_mark_at_the_start(void **state)
{
	(void)state;
	check("\xef\xbb\xbf" "data: a\n\ndata: b\n\n", "||a;||b;");
	check("\xef\xbb\xbf: c\n\ndata: b\n\n", "||b;");
	/* Nowhere else: there it is part of a name. */
	check("data: a\n\n\xef\xbb\xbf" "data: b\n\n", "||a;");
	check("\xef\xbb" "data: b\n\n", "");
}

static void text_cut_inside_a_character(void **state)
{
	(void)state;
	check("data: \xe4\xbd\xa0\xf0\x9f\x98\x80\n\n", "||\xe4\xbd\xa0\xf0\x9f\x98\x80;");
}

static void what_has_no_blank_line_behind_it(void **state)
{
	(void)state;
	check("data: a\n\ndata: [DONE]", "||a;||[DONE];");
	check("data: a\n\ndata: [DONE]\n", "||a;||[DONE];");
	check("data: a\n\ndata: [DONE]\r", "||a;||[DONE];");
	check("data: a", "||a;");
	check("", "");
}

/* A CR that ends an event does not wait for the LF. */
static void an_event_is_there_with_its_last_byte(void **state)
{
	struct reading r = { 0 };

	(void)state;
	give(&r, STR("data: a\r\n\r"));
	assert_true(str_equal(sbuf_str(&r.events), STR("||a;")));
	give(&r, STR("\ndata: b\n"));
	assert_true(str_equal(sbuf_str(&r.events), STR("||a;")));
	give(&r, STR("\n"));
	assert_true(str_equal(sbuf_str(&r.events), STR("||a;||b;")));
	end(&r);
}

static void what_lies_whole_is_not_copied(void **state)
{
	struct str piece = STR("data: a\n\ndata: b\n\nda");
	struct sse s = { 0 };
	struct sse_event e;

	(void)state;
	sse_give(&s, piece);
	assert_int_equal(sse_next(&s, &e), SSE_EVENT);
	assert_ptr_equal(e.raw.p, piece.p);
	assert_ptr_equal(e.data.p, piece.p + 6);
	assert_int_equal(sse_next(&s, &e), SSE_EVENT);
	assert_ptr_equal(e.raw.p, piece.p + 9);
	assert_int_equal(budget.used, 0);
	assert_true(str_equal(sse_rest(&s), STR("da")));
	assert_int_equal(sse_next(&s, &e), SSE_MORE);
	assert_true(str_equal(sse_rest(&s), STR("da")));
	assert_true(budget.used > 0);
	sse_free(&s);
	assert_int_equal(budget.used, 0);
}

/* However it is cut, the same event is too long. */
static void longer_than_the_limit(void **state)
{
	static const char stream[] = "data: a\n\ndata: 0123456789\n\ndata: b\n\n";

	(void)state;
	for (size_t size = 1; size < sizeof(stream); size++) {
		struct reading r = { .sse.limit = 17 };
		struct sbuf all = { 0 };
		enum sse_result result = SSE_MORE;

		for (size_t at = 0; at < sizeof(stream) - 1; at += size) {
			size_t n = sizeof(stream) - 1 - at < size ? sizeof(stream) - 1 - at : size;

			result = give(&r, (struct str){ stream + at, n });
			/* What was no event goes on as it is. */
			if (result == SSE_LONG)
				sbuf_add(&all, sse_rest(&r.sse));
		}
		assert_int_equal(result, SSE_LONG);
		assert_true(str_equal(sbuf_str(&r.events), STR("||a;")));
		sbuf_add(&r.raw, sbuf_str(&all));
		assert_true(str_equal(sbuf_str(&r.raw), str_of(stream)));
		sbuf_free(&all);
		end(&r);
	}
	for (size_t size = 1; size < sizeof(stream); size++) {
		struct reading r = { .sse.limit = 18 };

		for (size_t at = 0; at < sizeof(stream) - 1; at += size) {
			size_t n = sizeof(stream) - 1 - at < size ? sizeof(stream) - 1 - at : size;

			assert_int_equal(give(&r, (struct str){ stream + at, n }), SSE_MORE);
		}
		assert_true(str_equal(sbuf_str(&r.events), STR("||a;||0123456789;||b;")));
		end(&r);
	}
}

/* A stream that never ends a line, and one of very many events. */
static void memory_is_bounded(void **state)
{
	static char block[4096];
	struct reading r = { 0 };
	struct sse s = { 0 };
	struct sse_event e;
	int64_t most = 0;

	(void)state;
	memset(block, 'x', sizeof(block));
	for (int i = 0; i < 1000; i++) {
		give(&r, (struct str){ block, sizeof(block) });
		most = budget.used > most ? budget.used : most;
	}
	assert_true(most >= SSE_EVENT_MAX - (int64_t)sizeof(block));
	assert_true(most <= 2 * SSE_EVENT_MAX + 2 * (int64_t)sizeof(block));
	end(&r);
	assert_int_equal(budget.used, 0);
	most = 0;
	for (int i = 0; i < 100000; i++) {
		sse_give(&s, STR("data: one\ndata: two\n\ndata: thr"));
		while (sse_next(&s, &e) == SSE_EVENT)
			;
		sse_give(&s, STR("ee\n\n"));
		while (sse_next(&s, &e) == SSE_EVENT)
			;
		most = budget.used > most ? budget.used : most;
	}
	assert_true(most <= 1024);
	/* What one long event took is given back after it. */
	for (int i = 0; i < 100; i++) {
		sse_give(&s, (struct str){ block, sizeof(block) });
		assert_int_equal(sse_next(&s, &e), SSE_MORE);
	}
	assert_true(budget.used > 400000);
	sse_give(&s, STR("\n\n:\n"));
	assert_int_equal(sse_next(&s, &e), SSE_EVENT);
	assert_int_equal(sse_next(&s, &e), SSE_MORE);
	assert_true(budget.used <= 1024);
	sse_free(&s);
	assert_int_equal(budget.used, 0);
}

/* Line ends of one kind only, in large pieces: each byte is looked for once, not once for each line. */
static void many_short_lines(void **state)
{
	size_t n = 4 << 20;
	char *piece = malloc(n);
	struct sse s = { .limit = 8 << 20 };
	struct sse_event e;

	(void)state;
	for (size_t i = 0; i < n; i++)
		piece[i] = i & 1 ? '\r' : 'x';
	sse_give(&s, (struct str){ piece, n });
	assert_int_equal(sse_next(&s, &e), SSE_MORE);
	sse_free(&s);
	free(piece);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(fields),
		cmocka_unit_test(line_ends),
		cmocka_unit_test(comments_are_no_content),
		cmocka_unit_test(the_mark_at_the_start),
		cmocka_unit_test(text_cut_inside_a_character),
		cmocka_unit_test(what_has_no_blank_line_behind_it),
		cmocka_unit_test(an_event_is_there_with_its_last_byte),
		cmocka_unit_test(what_lies_whole_is_not_copied),
		cmocka_unit_test(longer_than_the_limit),
		cmocka_unit_test(memory_is_bounded),
		cmocka_unit_test(many_short_lines),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
