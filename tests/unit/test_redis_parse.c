/* room: net */
/* Replies of Redis: what is understood in any pieces, and what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>
#include "core/mem.h"
#include "net/redis_parse.h"

/* The tree in words: "[s:a i:1 nil]". */
static void write_reply(struct sbuf *b, const struct redis_reply *r)
{
	switch (r->type) {
	case REDIS_NIL:
		SBUF_LIT(b, "nil");
		break;
	case REDIS_STRING:
	case REDIS_ERROR:
		sbuf_addf(b, "%s:%.*s", r->type == REDIS_ERROR ? "e" : "s", STR_FMT(r->text));
		break;
	case REDIS_INTEGER:
		sbuf_addf(b, "i:%lld", (long long)r->integer);
		break;
	case REDIS_DOUBLE:
		sbuf_addf(b, "d:%g", r->real);
		break;
	case REDIS_BOOL:
		sbuf_addf(b, "b:%lld", (long long)r->integer);
		break;
	case REDIS_ARRAY:
		SBUF_LIT(b, "[");
		for (size_t i = 0; i < r->n; i++) {
			if (i > 0)
				SBUF_LIT(b, " ");
			write_reply(b, &r->items[i]);
		}
		SBUF_LIT(b, "]");
		break;
	}
}

static void expect(struct str in, const char *wanted)
{
	struct redis_scan s = { 0 };
	struct arena a = { 0 };
	struct sbuf text = { 0 };

	/* However it is cut, it is whole with its last byte and not before. */
	for (size_t n = 0; n < in.n; n++)
		assert_int_equal(redis_scan(&s, (struct str){ in.p, n }), REDIS_MORE);
	assert_int_equal(redis_scan(&s, in), REDIS_WHOLE);
	assert_int_equal(s.at, in.n);
	s = (struct redis_scan){ 0 };
	assert_int_equal(redis_scan(&s, in), REDIS_WHOLE);
	write_reply(&text, redis_reply_copy(&a, redis_read(&a, in)));
	assert_string_equal(text.p ? text.p : "", wanted);
	sbuf_free(&text);
	arena_free(&a);
}

static void test_reads_every_form_in_any_pieces(void **state)
{
	static const struct {
		const char *in, *wanted;
	} rows[] = {
		{ "+OK\r\n", "s:OK" }, { "+\r\n", "s:" }, { "-ERR no such thing\r\n", "e:ERR no such thing" },
		{ "+a\rb\r\n", "s:a\rb" },
		{ ":0\r\n", "i:0" }, { ":-42\r\n", "i:-42" }, { ":9223372036854775807\r\n", "i:9223372036854775807" },
		{ ":-9223372036854775808\r\n", "i:-9223372036854775808" },
		{ "$5\r\nhello\r\n", "s:hello" }, { "$0\r\n\r\n", "s:" }, { "$-1\r\n", "nil" },
		{ "$4\r\n\r\n\r\n\r\n", "s:\r\n\r\n" },
		{ "*0\r\n", "[]" }, { "*-1\r\n", "nil" }, { "*2\r\n:1\r\n*1\r\n$1\r\na\r\n", "[i:1 [s:a]]" },
		{ "*3\r\n*0\r\n*2\r\n*0\r\n+x\r\n:2\r\n", "[[] [[] s:x] i:2]" },
		/* RESP3 */
		{ "_\r\n", "nil" }, { "#t\r\n", "b:1" }, { "#f\r\n", "b:0" }, { ",1.5\r\n", "d:1.5" },
		{ ",inf\r\n", "d:inf" }, { ",-inf\r\n", "d:-inf" }, { ",1e3\r\n", "d:1000" },
		{ "(34928903284092385093248509438509\r\n", "s:34928903284092385093248509438509" },
		{ "!9\r\nSYNTAX no\r\n", "e:SYNTAX no" }, { "=8\r\ntxt:some\r\n", "s:some" },
		{ "~2\r\n+a\r\n+b\r\n", "[s:a s:b]" }, { "%1\r\n+key\r\n:1\r\n", "[s:key i:1]" },
		{ ">2\r\n+message\r\n+x\r\n", "[s:message s:x]" },
		{ "|1\r\n+ttl\r\n:3600\r\n+value\r\n", "s:value" }, { "|0\r\n+value\r\n", "s:value" },
		{ "*2\r\n|1\r\n+a\r\n*1\r\n:1\r\n:7\r\n:8\r\n", "[i:7 i:8]" },
		{ "*1\r\n|1\r\n+a\r\n:1\r\n|1\r\n+b\r\n:2\r\n:9\r\n", "[i:9]" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
		expect(str_of(rows[i].in), rows[i].wanted);
	expect(STR("$3\r\na\0b\r\n"), "s:a");      /* the text is in C here: it ends at the NUL */
}

static void test_refuses_what_is_no_reply(void **state)
{
	static const char *const rows[] = {
		"HTTP/1.1 400 Bad Request\r\n", "\r\n", "OK\r\n", "+OK\n", ":1x\r\n", ":\r\n", ":01\r\n", ": 1\r\n",
		":9223372036854775808\r\n", "$-2\r\n", "$16777217\r\n", "$99999999999999999999\r\n", "$3\r\nabcd\r\n",
		"$1\r\na\n\n", "$\r\n", "*-2\r\n", "*65537\r\n", "*x\r\n", "~-1\r\n", "#x\r\n", "#tt\r\n", "_x\r\n",
		",0x10\r\n", ",1.5.5\r\n", ",\r\n", "(12a\r\n", "(-\r\n", "=3\r\ntxt\r\n", "=4\r\ntxtx\r\n", "!-1\r\n",
		"$?\r\n", "*?\r\n",
		">0\r\n", "*1\r\n>1\r\n+x\r\n", "*2\r\n:1\r\nx\r\n",
		":12345678901234567890123456789012345678901234567890123456789012345\r\n",
	};

	(void)state;
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct redis_scan s = { 0 };

		if (redis_scan(&s, str_of(rows[i])) != REDIS_BAD)
			print_error("taken: %s\n", rows[i]);
		s = (struct redis_scan){ 0 };
		assert_int_equal(redis_scan(&s, str_of(rows[i])), REDIS_BAD);
	}
}

static void test_bounds_levels_items_lines_and_bytes(void **state)
{
	struct redis_scan s = { 0 };
	struct sbuf b = { 0 };

	(void)state;
	for (int i = 0; i < REDIS_DEPTH_MAX; i++)
		SBUF_LIT(&b, "*1\r\n");
	SBUF_LIT(&b, ":1\r\n");
	assert_int_equal(redis_scan(&s, sbuf_str(&b)), REDIS_WHOLE);
	b.n = 0;
	for (int i = 0; i <= REDIS_DEPTH_MAX; i++)
		SBUF_LIT(&b, "*1\r\n");
	s = (struct redis_scan){ 0 };
	assert_int_equal(redis_scan(&s, sbuf_str(&b)), REDIS_BAD);
	/* Items of all levels together. */
	b.n = 0;
	SBUF_LIT(&b, "*3\r\n");
	for (int level = 0; level < 3; level++) {
		SBUF_LIT(&b, "*30000\r\n");
		for (int i = 0; i < 30000; i++)
			SBUF_LIT(&b, "_\r\n");
	}
	s = (struct redis_scan){ 0 };
	assert_int_equal(redis_scan(&s, sbuf_str(&b)), REDIS_BAD);
	/* A line that has no end. */
	b.n = 0;
	SBUF_LIT(&b, "+");
	for (int i = 0; i < REDIS_LINE_MAX + 2; i++)
		sbuf_addc(&b, 'a');
	s = (struct redis_scan){ 0 };
	assert_int_equal(redis_scan(&s, sbuf_str(&b)), REDIS_BAD);
	/* Texts that are each allowed, and together too long. */
	b.n = 0;
	SBUF_LIT(&b, "*2\r\n$16000000\r\n");
	sbuf_reserve(&b, 16000100);
	memset(b.p + b.n, 'x', 16000000);
	b.n += 16000000;
	SBUF_LIT(&b, "\r\n$1000000\r\n");
	s = (struct redis_scan){ 0 };
	assert_int_equal(redis_scan(&s, sbuf_str(&b)), REDIS_BAD);
	sbuf_free(&b);
}

static void test_knows_slots_of_keys(void **state)
{
	(void)state;
	/* CLUSTER KEYSLOT of redis-server 7. */
	assert_int_equal(redis_slot(STR("foo")), 12182);
	assert_int_equal(redis_slot(STR("somekey")), 11058);
	assert_int_equal(redis_slot(STR("123456789")), 12739);
	assert_int_equal(redis_slot(STR("{user1000}.following")), redis_slot(STR("{user1000}.followers")));
	assert_int_equal(redis_slot(STR("foo{hash_tag}")), redis_slot(STR("hash_tag")));
	assert_int_not_equal(redis_slot(STR("foo{}{bar}")), redis_slot(STR("bar")));
	assert_int_equal(redis_slot(STR("foo{{bar}}zap")), redis_slot(STR("{bar")));
	assert_int_equal(redis_slot(STR("foo{bar}{zap}")), redis_slot(STR("bar")));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_reads_every_form_in_any_pieces),
		cmocka_unit_test(test_refuses_what_is_no_reply),
		cmocka_unit_test(test_bounds_levels_items_lines_and_bytes),
		cmocka_unit_test(test_knows_slots_of_keys),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
