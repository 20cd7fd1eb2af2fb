/*
 * test_guard.c -- what AiSecurityGuard is made of: signatures, pieces of texts, verdicts against bars, windows of
 * streams. room: policy
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include "policy/guard_call.h"
#include "policy/guard_window.h"
#include <cmocka.h>                       /* last: it has a macro of the name fail */

#define GUARD_DOC(data) "{\"Code\":200,\"Message\":\"OK\",\"RequestId\":\"R-1\",\"Data\":" data "}"

static void assert_str(struct str got, const char *wanted)
{
	assert_int_equal(got.n, strlen(wanted));
	assert_memory_equal(got.p ? got.p : "", wanted, got.n);
}

/* ---------- signature ---------- */

static struct str find_line(const struct header *lines, unsigned n, const char *name)
{
	for (unsigned i = 0; i < n; i++)
		if (str_equal(lines[i].name, str_of(name)))
			return lines[i].value;
	return (struct str){ NULL, 0 };
}

/* Both were signed by another implementation, which agrees with the example in the provider's documentation. */
static void test_signature_is_the_one_others_compute(void **state)
{
	struct arena a = { 0 };
	struct header lines[ACS_LINES_MAX];
	struct acs_key key = { STR("LTAI-test"), STR("secret-test"), { NULL, 0 } };
	struct acs_request r = {
		.host = STR("green-cip.cn-shanghai.aliyuncs.com"), .target = STR("/?Service=llm_query_moderation"),
		.action = STR("TextModerationPlus"), .version = STR("2022-03-02"),
		.content_type = STR("application/x-www-form-urlencoded"),
		.body = STR("ServiceParameters=%7B%22content%22%3A%22hello%22%7D"),
		.nonce = STR("5f1c7b1e-2a53-4d3e-9f6a-0c4a8f3f6f11"), .now_ms = 1795681805000,
	};
	unsigned n = acs_sign(&key, &r, &a, lines);

	(void)state;
	assert_int_equal(n, 7);
	assert_str(find_line(lines, n, "x-acs-date"), "2026-11-26T08:30:05Z");
	assert_str(find_line(lines, n, "x-acs-content-sha256"),
		   "e200561fc0bcf28b3f6131aad4c8117b82ade9d30843dc99605794724a83daa6");
	assert_str(find_line(lines, n, "Authorization"),
		   "ACS3-HMAC-SHA256 Credential=LTAI-test,SignedHeaders=content-type;host;x-acs-action;"
		   "x-acs-content-sha256;x-acs-date;x-acs-signature-nonce;x-acs-version,"
		   "Signature=fa0da93018bc6493c901dc01bbaae8a27660c7b9bbc4393501fd2a8c3ae65fae");
	arena_free(&a);
}

static void test_signature_covers_path_query_and_token(void **state)
{
	struct arena a = { 0 };
	struct header lines[ACS_LINES_MAX];
	struct acs_key key = { STR("k"), STR("s"), STR("STS.token+/=") };
	struct acs_request r = {
		.host = STR("127.0.0.1:8080"), .target = STR("/check/text?zone=x&b=&a=1&Service=query_security_check"),
		.action = STR("MultiModalGuard"), .version = STR("2022-03-02"),
		.content_type = STR("application/x-www-form-urlencoded"), .body = STR(""),
		.nonce = STR("00000000-0000-4000-8000-000000000000"), .now_ms = 0,
	};
	unsigned n = acs_sign(&key, &r, &a, lines);

	(void)state;
	assert_int_equal(n, ACS_LINES_MAX);
	assert_str(find_line(lines, n, "x-acs-security-token"), "STS.token+/=");
	assert_true(str_ends(find_line(lines, n, "Authorization"),
			     STR("Signature=e53f81ada89f77a66bf6a0d03ffe759bb59207ffcfe8deaccec6a163d51b0ecb")));
	arena_free(&a);
}

static void test_half_a_key_is_none(void **state)
{
	const struct acs_key keys[] = {
		{ { 0 }, { 0 }, { 0 } }, { STR("id"), STR(""), { 0 } }, { STR(""), STR("s"), { 0 } },
	};
	struct acs_request r = { .host = STR("h"), .target = STR("/"), .action = STR("A"), .version = STR("1"),
				 .content_type = STR("t"), .body = STR("b"), .nonce = STR("n") };

	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		struct arena a = { 0 };
		struct header lines[ACS_LINES_MAX];
		unsigned n = acs_sign(&keys[i], &r, &a, lines);

		assert_int_equal(n, 6);
		assert_null(find_line(lines, n, "Authorization").p);
		arena_free(&a);
	}
}

static void test_nonces_differ_and_are_uuids(void **state)
{
	struct arena a = { 0 };
	struct str one = acs_nonce(&a), other = acs_nonce(&a);

	(void)state;
	assert_int_equal(one.n, 36);
	assert_false(str_equal(one, other));
	assert_int_equal(one.p[14], '4');
	assert_true(one.p[8] == '-' && one.p[13] == '-' && one.p[18] == '-' && one.p[23] == '-');
	arena_free(&a);
}

/* ---------- pieces ---------- */

/* The pieces of n copies of `unit`: how many, and what they have in common. */
static unsigned check_pieces(const char *unit, unsigned n)
{
	const size_t width = strlen(unit);
	struct sbuf text = { 0 };
	size_t at = 0, before = 0;
	unsigned pieces = 0;

	for (unsigned i = 0; i < n; i++)
		sbuf_add(&text, str_of(unit));
	do {
		size_t begin = at;
		struct str piece = guard_piece(sbuf_str(&text), &at);

		assert_true(str_is_utf8(piece));
		assert_true(str_code_points(piece) <= GUARD_PIECE_POINTS);
		assert_ptr_equal(piece.p, text.p + begin);
		if (pieces > 0)
			assert_int_equal(before - begin, GUARD_OVERLAP_POINTS * width);
		before = begin + piece.n;
		pieces++;
	} while (at < text.n);
	assert_int_equal(before, text.n);
	sbuf_free(&text);
	return pieces;
}

static void test_pieces_are_whole_characters_and_overlap(void **state)
{
	static const char *const units[] = { "a", "é", "中", "😀" };

	(void)state;
	for (unsigned i = 0; i < 4; i++) {
		assert_int_equal(check_pieces(units[i], 1), 1);
		assert_int_equal(check_pieces(units[i], 1800), 1);
		assert_int_equal(check_pieces(units[i], 1801), 2);
		assert_int_equal(check_pieces(units[i], 2500), 2);
		assert_int_equal(check_pieces(units[i], 3500), 2);
		assert_int_equal(check_pieces(units[i], 3501), 3);
		assert_int_equal(check_pieces(units[i], 20000), 12);
	}
}

/* Continuation bytes without a beginning count for nothing, and end nothing early. */
static void test_pieces_of_broken_text_end(void **state)
{
	char text[4000];
	size_t at = 0;

	(void)state;
	memset(text, 0x80, sizeof text);
	assert_int_equal(guard_piece((struct str){ text, sizeof text }, &at).n, sizeof text);
	assert_int_equal(at, sizeof text);
}

static void test_body_is_a_form_with_json(void **state)
{
	struct sbuf out = { 0 };

	(void)state;
	guard_body(&out, STR("a \"b\"&=\n中"), STR("0123456789abcdef0123"));
	assert_str(sbuf_str(&out), "ServiceParameters=%7B%22content%22%3A%22a%20%5C%22b%5C%22%26%3D%5Cn%E4%B8%AD%22%2C"
		   "%22sessionId%22%3A%220123456789abcdef0123%22%2C%22requestFrom%22%3A%22sluice%22%7D");
	sbuf_free(&out);
}

/* ---------- verdicts ---------- */

static struct guard_bars bars_of(enum guard_level all)
{
	struct guard_bars bars;

	for (int i = 0; i < RISK_TYPES; i++)
		bars.of[i] = all;
	return bars;
}

static struct guard_verdict judge(struct arena *a, const char *body, struct guard_bars bars)
{
	struct guard_verdict v;

	guard_judge(&v, a, str_of(body), &bars);
	return v;
}

struct verdict_case {
	const char *body;
	enum guard_level bar;             /* of all */
	bool blocks;
};

static void test_levels_against_bars(void **state)
{
	static const struct verdict_case cases[] = {
		{ GUARD_DOC("{\"RiskLevel\":\"high\"}"), GUARD_HIGH, true },
		{ GUARD_DOC("{\"RiskLevel\":\"high\"}"), GUARD_MAX, false },
		{ GUARD_DOC("{\"RiskLevel\":\"high\"}"), GUARD_LOW, true },
		{ GUARD_DOC("{\"RiskLevel\":\"medium\"}"), GUARD_HIGH, false },
		{ GUARD_DOC("{\"RiskLevel\":\"medium\"}"), GUARD_MEDIUM, true },
		{ GUARD_DOC("{\"RiskLevel\":\"low\"}"), GUARD_LOW, true },
		{ GUARD_DOC("{\"RiskLevel\":\"none\"}"), GUARD_LOW, false },
		{ GUARD_DOC("{\"RiskLevel\":\"High\"}"), GUARD_HIGH, true },
		{ GUARD_DOC("{\"AttackLevel\":\"high\",\"RiskLevel\":\"none\"}"), GUARD_HIGH, true },
		{ GUARD_DOC("{\"SensitiveLevel\":\"S0\"}"), GUARD_LOW, false },
		{ GUARD_DOC("{\"SensitiveLevel\":\"S1\"}"), GUARD_LOW, true },
		{ GUARD_DOC("{\"SensitiveLevel\":\"S2\"}"), GUARD_HIGH, false },
		{ GUARD_DOC("{\"SensitiveLevel\":\"S3\"}"), GUARD_HIGH, true },
		{ GUARD_DOC("{\"SensitiveLevel\":\"S4\"}"), GUARD_MAX, true },
		{ GUARD_DOC("{\"Detail\":[{\"Type\":\"promptAttack\",\"Level\":\"low\"},"
			    "{\"Type\":\"maliciousUrl\",\"Level\":\"high\"}]}"), GUARD_HIGH, true },
		{ GUARD_DOC("{\"Detail\":[{\"Type\":\"sensitiveData\",\"Level\":\"S3\"}]}"), GUARD_HIGH, true },
		{ GUARD_DOC("{\"Detail\":[{\"Type\":\"modelHallucination\",\"Level\":\"low\"}]}"), GUARD_HIGH, false },
		{ GUARD_DOC("{\"Detail\":[{\"Type\":\"waterMark\",\"Level\":\"high\"}]}"), GUARD_HIGH, true },
		/* What blocks blocks, whatever else is not understood. */
		{ GUARD_DOC("{\"RiskLevel\":\"terrible\",\"AttackLevel\":\"high\"}"), GUARD_HIGH, true },
		{ GUARD_DOC("{\"Result\":[{\"Label\":\"nonLabel\"}]}"), GUARD_LOW, false },
	};

	(void)state;
	for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct arena a = { 0 };
		struct guard_verdict v = judge(&a, cases[i].body, bars_of(cases[i].bar));

		if (!v.is_read || v.blocks != cases[i].blocks)
			print_error("case %u: %s\n", i, cases[i].body);
		assert_true(v.is_read);
		assert_int_equal(v.blocks, cases[i].blocks);
		assert_string_equal(v.request_id, "R-1");
		arena_free(&a);
	}
}

static void test_each_dimension_has_its_bar(void **state)
{
	static const struct {
		const char *type;
		enum guard_risk risk;
	} details[] = {
		{ "contentModeration", RISK_CONTENT }, { "promptAttack", RISK_ATTACK },
		{ "sensitiveData", RISK_SENSITIVE }, { "maliciousUrl", RISK_URL },
		{ "modelHallucination", RISK_HALLUCINATION }, { "anything", RISK_GLOBAL },
	};

	(void)state;
	for (unsigned i = 0; i < 6; i++) {
		struct arena a = { 0 };
		struct guard_bars bars = bars_of(GUARD_HIGH);
		char body[256];

		snprintf(body, sizeof body, GUARD_DOC("{\"Detail\":[{\"Type\":\"%s\",\"Level\":\"medium\"}]}"),
			 details[i].type);
		assert_false(judge(&a, body, bars).blocks);
		bars.of[details[i].risk] = GUARD_MEDIUM;
		assert_true(judge(&a, body, bars).blocks);
		arena_free(&a);
	}
}

static void test_what_is_no_verdict_never_passes(void **state)
{
	static const char *const bodies[] = {
		"", "not json", "null", "[]", "\"x\"", "{}", "{\"Code\":200}", "{\"Code\":200,\"Data\":null}",
		"{\"Code\":200,\"Data\":[]}", "{\"Code\":\"200\",\"Data\":{\"RiskLevel\":\"none\"}}",
		"{\"Code\":400,\"Data\":{\"RiskLevel\":\"none\"}}",
		"{\"Code\":200.0,\"Data\":{\"RiskLevel\":\"none\"}}",
		"{\"Data\":{\"RiskLevel\":\"none\"}}", "{\"code\":200,\"data\":{\"RiskLevel\":\"none\"}}",
		GUARD_DOC("{}"), GUARD_DOC("{\"RiskLevel\":\"\"}"), GUARD_DOC("{\"RiskLevel\":null}"),
		GUARD_DOC("{\"RiskLevel\":\"S5\"}"), GUARD_DOC("{\"RiskLevel\":7}"),
		GUARD_DOC("{\"RiskLevel\":\"fine\"}"),
		GUARD_DOC("{\"RiskLevel\":\"none\",\"AttackLevel\":\"unheard\"}"),
		GUARD_DOC("{\"Detail\":[]}"), GUARD_DOC("{\"Detail\":[7]}"),
		GUARD_DOC("{\"Detail\":[{\"Type\":\"promptAttack\"}]}"),
		GUARD_DOC("{\"Result\":[{\"Label\":\"violence\"}]}"), GUARD_DOC("{\"Result\":[]}"),
		GUARD_DOC("{\"RiskLevel\":\"none\",\"RiskLevel\":\"none\"}"), GUARD_DOC("{\"RiskLevel\":\"none\"}") "x",
	};

	(void)state;
	for (unsigned i = 0; i < sizeof bodies / sizeof *bodies; i++) {
		struct arena a = { 0 };
		struct guard_verdict v = judge(&a, bodies[i], bars_of(GUARD_LOW));

		if (v.is_read)
			print_error("case %u: %s\n", i, bodies[i]);
		assert_false(v.is_read);
		assert_false(v.blocks);
		assert_non_null(v.broken);
		arena_free(&a);
	}
}

static void test_facts_of_a_verdict(void **state)
{
	struct arena a = { 0 };
	char said[GUARD_LEVELS_TEXT];
	struct guard_verdict v = judge(&a, GUARD_DOC(
		"{\"RiskLevel\":\"high\",\"AttackLevel\":\"none\",\"SensitiveLevel\":\"S2\","
		"\"Result\":[{\"Label\":\"violent\",\"RiskWords\":\"secret words\"},{\"Label\":\"nonLabel\"},"
		"{\"Label\":\"violent\"},{\"Label\":\"line\\nbreak,\\u4e2d\"}],"
		"\"Advice\":[{\"Answer\":\"Ask something else.\",\"HitLabel\":\"violent\"},{\"Answer\":\"no\"}]}"),
		bars_of(GUARD_HIGH));

	(void)state;
	assert_string_equal(v.label, "violent,line_break____");
	assert_str(v.answer, "Ask something else.");
	guard_describe_levels(&v, said);
	assert_string_equal(said, "contentModeration=high,promptAttack=none,sensitiveData=medium");
	assert_int_equal(guard_worst(&v), GUARD_HIGH);
	arena_free(&a);
}

static void test_the_worse_of_two_pieces_counts(void **state)
{
	struct arena a = { 0 };
	struct guard_verdict v = judge(&a, GUARD_DOC("{\"RiskLevel\":\"low\",\"Result\":[{\"Label\":\"one\"}]}"),
				       bars_of(GUARD_HIGH));
	struct guard_verdict more = judge(&a, GUARD_DOC("{\"RiskLevel\":\"none\",\"AttackLevel\":\"high\","
		"\"Result\":[{\"Label\":\"two\"},{\"Label\":\"one\"}]}"), bars_of(GUARD_HIGH));

	(void)state;
	guard_merge(&v, &more);
	assert_true(v.blocks && v.is_read);
	assert_int_equal(v.levels[RISK_CONTENT], GUARD_LOW);
	assert_int_equal(v.levels[RISK_ATTACK], GUARD_HIGH);
	assert_string_equal(v.label, "one,two");
	more = judge(&a, "garbage", bars_of(GUARD_HIGH));
	guard_merge(&v, &more);
	assert_false(v.is_read);
	arena_free(&a);
}

/* Labels without end, deep nesting, many values: bounded, and no verdict where they are too many. */
static void test_large_answers_are_bounded(void **state)
{
	struct arena a = { 0 };
	struct sbuf body = { 0 };
	struct guard_bars bars = bars_of(GUARD_HIGH);
	struct guard_verdict v;

	(void)state;
	SBUF_LIT(&body, "{\"Code\":200,\"Data\":{\"RiskLevel\":\"none\",\"Result\":[");
	for (unsigned i = 0; i < 2000; i++)
		sbuf_addf(&body, "%s{\"Label\":\"label-%u\"}", i ? "," : "", i);
	SBUF_LIT(&body, "]}}");
	guard_judge(&v, &a, sbuf_str(&body), &bars);
	assert_true(v.is_read && strlen(v.label) <= GUARD_LABEL_MAX);
	body.n = 0;
	SBUF_LIT(&body, "{\"Code\":200,\"Data\":{\"RiskLevel\":\"none\",\"Result\":[");
	for (unsigned i = 0; i < 30000; i++)
		sbuf_addf(&body, "%s0", i ? "," : "");
	SBUF_LIT(&body, "]}}");
	guard_judge(&v, &a, sbuf_str(&body), &bars);
	assert_false(v.is_read);
	sbuf_free(&body);
	arena_free(&a);
}

/* ---------- windows ---------- */

static void add(struct guard_window *w, const char *raw, const char *text, int64_t now_ms)
{
	window_add(w, str_of(raw), str_of(text), now_ms);
}

static void test_what_says_nothing_does_not_wait(void **state)
{
	struct guard_window w = { .limit = 10 };
	struct sbuf out = { 0 };

	(void)state;
	add(&w, "[role]", "", 1000);
	window_let_go(&w, &out);
	assert_str(sbuf_str(&out), "[role]");
	assert_true(window_is_empty(&w));
	assert_int_equal(window_due_ms(&w), 0);
	assert_false(window_is_due(&w, 1000000));
	/* Behind a text it does. */
	out.n = 0;
	add(&w, "[a]", "text", 2000);
	add(&w, "[ping]", "", 2001);
	window_let_go(&w, &out);
	assert_int_equal(out.n, 0);
	assert_int_equal(window_due_ms(&w), 5000);
	window_free(&w);
	sbuf_free(&out);
}

static void test_a_window_closes_by_length_time_and_end(void **state)
{
	struct guard_window w = { .limit = 4 };
	struct sbuf out = { 0 };

	(void)state;
	add(&w, "[1]", "中中中", 1000);
	assert_false(window_is_due(&w, 1000));
	assert_false(window_is_due(&w, 3999));
	assert_true(window_is_due(&w, 4000));
	add(&w, "[2]", "x", 1001);
	assert_true(window_is_due(&w, 1001));
	assert_str(window_close(&w), "中中中x");
	/* One at a time, whatever came meanwhile. */
	add(&w, "[3]", "yyyyyy", 1002);
	assert_false(window_is_due(&w, 100000));
	window_pass(&w, &out);
	assert_str(sbuf_str(&out), "[1][2]");
	assert_true(window_is_due(&w, 1002));
	assert_str(window_close(&w), "中中中xyyyyyy");
	add(&w, "[4]", "z", 1003);
	add(&w, "[end]", "", 1003);
	window_pass(&w, &out);
	assert_false(window_is_due(&w, 1003));
	w.is_over = true;
	assert_true(window_is_due(&w, 1003));
	window_close(&w);
	window_pass(&w, &out);
	assert_str(sbuf_str(&out), "[1][2][3][4][end]");
	assert_true(window_is_empty(&w));
	window_free(&w);
	sbuf_free(&out);
}

static void test_windows_overlap(void **state)
{
	struct guard_window w = { .limit = 150 };
	struct sbuf out = { 0 }, text = { 0 };
	struct str judged;

	(void)state;
	for (unsigned i = 0; i < 150; i++)
		sbuf_addf(&text, "%s", i < 50 ? "a" : "é");
	window_add(&w, STR("[1]"), sbuf_str(&text), 1);
	window_close(&w);
	window_pass(&w, &out);
	window_add(&w, STR("[2]"), STR("next"), 1);
	judged = window_close(&w);
	assert_int_equal(str_code_points(judged), GUARD_OVERLAP_POINTS + 4);
	assert_true(str_starts(judged, STR("é")) && str_ends(judged, STR("énext")));
	window_free(&w);
	sbuf_free(&out);
	sbuf_free(&text);
}

static void test_what_gathered_goes_when_it_says_nothing(void **state)
{
	struct guard_window w = { .limit = 1 };
	struct sbuf out = { 0 };

	(void)state;
	add(&w, "[1]", "a", 1);
	window_close(&w);
	add(&w, "[usage]", "", 2);
	window_let_go(&w, &out);
	assert_int_equal(out.n, 0);
	window_pass(&w, &out);
	assert_str(sbuf_str(&out), "[1][usage]");
	window_free(&w);
	sbuf_free(&out);
}

static void test_held_bytes_are_bounded(void **state)
{
	struct guard_window w = { .limit = 1500 };
	struct sbuf out = { 0 }, raw = { 0 };

	(void)state;
	for (unsigned i = 0; i < 1024; i++)
		SBUF_LIT(&raw, "0123456789abcdef0123456789abcdef");
	add(&w, "[1]", "a", 1);
	for (unsigned i = 0; i < 32; i++)
		window_add(&w, sbuf_str(&raw), STR(""), 1);
	assert_true(window_is_due(&w, 1));
	window_close(&w);
	window_drop(&w);
	assert_true(window_is_empty(&w));
	window_pass(&(struct guard_window){ .is_judging = true }, &out);
	window_free(&w);
	sbuf_free(&out);
	sbuf_free(&raw);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_signature_is_the_one_others_compute),
		cmocka_unit_test(test_signature_covers_path_query_and_token),
		cmocka_unit_test(test_half_a_key_is_none),
		cmocka_unit_test(test_nonces_differ_and_are_uuids),
		cmocka_unit_test(test_pieces_are_whole_characters_and_overlap),
		cmocka_unit_test(test_pieces_of_broken_text_end),
		cmocka_unit_test(test_body_is_a_form_with_json),
		cmocka_unit_test(test_levels_against_bars),
		cmocka_unit_test(test_each_dimension_has_its_bar),
		cmocka_unit_test(test_what_is_no_verdict_never_passes),
		cmocka_unit_test(test_facts_of_a_verdict),
		cmocka_unit_test(test_the_worse_of_two_pieces_counts),
		cmocka_unit_test(test_large_answers_are_bounded),
		cmocka_unit_test(test_what_says_nothing_does_not_wait),
		cmocka_unit_test(test_a_window_closes_by_length_time_and_end),
		cmocka_unit_test(test_windows_overlap),
		cmocka_unit_test(test_what_gathered_goes_when_it_says_nothing),
		cmocka_unit_test(test_held_bytes_are_bounded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
