/* room: policy */
/* What OIDCAuth seals, cuts into cookies and believes of tokens, without a gateway. */
#include "policy/oidc_cookie.h"
#include "core/clock.h"
#include "core/crypto.h"
#include "policy/oidc_provider.h"
#include "policy/oidc_session.h"
#include "policy/oidc_token.h"
#include "policy/oidc_url.h"
#include "policy/once.h"
#include "proxy/exchange.h"
#include "proxy/gateway_keys.h"
#include "proxy/own_cookie.h"
/* Last: it takes the name fail() for a macro. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

static struct arena arena;
static const struct oidc_seal seal = { STR("policy-0123456789"), 7, false };

#define assert_str(got, want) assert_true(str_equal((got), STR(want)))

static struct oidc_session sample(void)
{
	return (struct oidc_session){
		.subject = STR("alice"), .email = STR("a@example.com"), .id_token = STR("a.b.c"),
		.refresh_token = STR("r"), .expires_s = 2000, .sealed_s = 1000, .refreshed_s = 900,
	};
}

/* ---------- seals ---------- */

static void a_session_comes_back_as_it_was(void **state)
{
	struct oidc_session s = sample(), back;
	bool is_old;

	(void)state;
	assert_true(oidc_session_open(&arena, &seal, oidc_session_seal(&arena, &seal, &s), &back, &is_old));
	assert_false(is_old);
	assert_str(back.subject, "alice");
	assert_str(back.email, "a@example.com");
	assert_null(back.name.p);
	assert_str(back.id_token, "a.b.c");
	assert_null(back.access_token.p);
	assert_str(back.refresh_token, "r");
	assert_int_equal(back.expires_s, 2000);
	assert_int_equal(back.sealed_s, 1000);
	assert_int_equal(back.refreshed_s, 900);
}

/* A token as providers make them, with a payload of n bytes or so. */
static struct str make_token(size_t n)
{
	struct sbuf payload = { 0 };
	struct str out;

	SBUF_LIT(&payload, "{\"sub\":\"alice\",\"groups\":[");
	for (unsigned i = 0; payload.n < n; i++)
		sbuf_addf(&payload, "%s\"/departments/%u/d\303\274sseldorf \\u0041\"", i ? "," : "", i);
	SBUF_LIT(&payload, "]}");
	out = arena_printf(&arena, "%.*s.%.*s.%s",
			   STR_FMT(crypto_base64url(&arena, STR("{\"alg\":\"RS256\"}"))),
			   STR_FMT(crypto_base64url(&arena, sbuf_str(&payload))), "c2lnbmF0dXJl");
	sbuf_free(&payload);
	return out;
}

static void a_packed_session_is_short_and_comes_back_as_it_was(void **state)
{
	const struct oidc_seal packing = { seal.policy_id, seal.generation, true };
	const struct str refresh[] = { make_token(900), STR("r"), STR("a.b.c"), STR("YQ.YR.s"), STR("..."),
				       STR("e30.AAAA.s"), STR("_w.e30.s") };
	struct oidc_session s = sample(), back;
	struct str sealed;
	bool is_old;

	(void)state;
	s.id_token = make_token(12000);
	assert_true(s.id_token.n > 16000);
	for (unsigned i = 0; i < sizeof refresh / sizeof refresh[0]; i++) {
		s.refresh_token = refresh[i];
		sealed = oidc_session_seal(&arena, &packing, &s);
		assert_true(sealed.n < 6000);
		assert_true(oidc_session_open(&arena, &seal, sealed, &back, &is_old));
		assert_true(str_equal(back.id_token, s.id_token));
		assert_true(str_equal(back.refresh_token, refresh[i]));
		assert_null(back.access_token.p);
		assert_str(back.subject, "alice");
		assert_int_equal(back.expires_s, 2000);
	}
}

static bool opens(struct oidc_seal with, struct str text, bool *is_old)
{
	struct oidc_session back;

	return oidc_session_open(&arena, &with, text, &back, is_old);
}

static void only_this_key_and_the_one_before_open(void **state)
{
	struct oidc_session s = sample();
	const struct str text = oidc_session_seal(&arena, &seal, &s);
	bool is_old;

	(void)state;
	assert_true(opens((struct oidc_seal){ seal.policy_id, 8, false }, text, &is_old));
	assert_true(is_old);
	assert_false(opens((struct oidc_seal){ seal.policy_id, 9, false }, text, &is_old));
	assert_false(opens((struct oidc_seal){ seal.policy_id, 6, false }, text, &is_old));
	assert_false(opens((struct oidc_seal){ STR("policy-other"), 7, false }, text, &is_old));
}

static void another_secret_opens_nothing(void **state)
{
	static const uint8_t one[GATEWAY_SECRET_SIZE] = { 1 }, two[GATEWAY_SECRET_SIZE] = { 2 };
	struct oidc_session s = sample();
	struct str text;
	bool is_old;

	(void)state;
	gateway_keys_set(one);
	text = oidc_session_seal(&arena, &seal, &s);
	gateway_keys_set(two);
	assert_false(opens(seal, text, &is_old));
	gateway_keys_set(one);
	assert_true(opens(seal, text, &is_old));
}

static void keys_differ_by_purpose_and_generation(void **state)
{
	uint8_t a[32], b[32], c[32], again[32];

	(void)state;
	gateway_key(STR("x"), 1, a);
	gateway_key(STR("x"), 2, b);
	gateway_key(STR("y"), 1, c);
	gateway_key(STR("x"), 1, again);
	assert_memory_not_equal(a, b, 32);
	assert_memory_not_equal(a, c, 32);
	assert_memory_equal(a, again, 32);
}

static void every_changed_byte_ends_it(void **state)
{
	struct oidc_session s = sample();
	const struct str text = oidc_session_seal(&arena, &seal, &s);
	char *copy = (char *)(uintptr_t)arena_copy(&arena, text).p;
	bool is_old;

	(void)state;
	for (size_t i = 0; i < text.n; i++) {
		for (int c = 1; c < 256; c++) {
			if ((char)c == text.p[i])
				continue;
			copy[i] = (char)c;
			assert_false(opens(seal, (struct str){ copy, text.n }, &is_old));
		}
		copy[i] = text.p[i];
		assert_false(opens(seal, (struct str){ copy, i }, &is_old));
	}
	assert_true(opens(seal, (struct str){ copy, text.n }, &is_old));
}

static void a_login_is_no_session_and_a_session_no_login(void **state)
{
	const struct oidc_login l = {
		.state = STR("s"), .nonce = STR("n"), .verifier = STR("v"), .target = STR("/a?b"), .issued_s = 5,
		.is_restart = true,
	};
	struct oidc_session s = sample();
	struct oidc_login back;
	bool is_old;

	(void)state;
	assert_false(opens(seal, oidc_login_seal(&arena, &seal, &l), &is_old));
	assert_false(oidc_login_open(&arena, &seal, oidc_session_seal(&arena, &seal, &s), &back));
	assert_true(oidc_login_open(&arena, &seal, oidc_login_seal(&arena, &seal, &l), &back));
	assert_str(back.target, "/a?b");
	assert_true(back.is_restart);
	assert_int_equal(back.issued_s, 5);
}

/* ---------- cookies ---------- */

static struct message request(const char *cookies)
{
	struct message req = { .arena = &arena };

	if (cookies[0])
		message_add(&req, STR("Cookie"), str_of(cookies));
	return req;
}

/* What a browser sends after these lines. */
static struct message answer_to(const struct oidc_lines *lines)
{
	struct sbuf text = { 0 };
	struct message req;

	for (unsigned i = 0; i < lines->n; i++) {
		const struct str line = lines->lines[i];

		if (str_find(line, ';') > str_find(line, '=') + 1) {
			SBUF_LIT(&text, "; ");
			sbuf_add(&text, (struct str){ line.p, str_find(line, ';') });
		}
	}
	req = request(arena_copy(&arena, sbuf_str(&text)).p);
	sbuf_free(&text);
	return req;
}

static void any_length_comes_back_or_is_refused(void **state)
{
	static char bytes[5 * 3898 + 8];
	static const size_t lengths[] = { 1, 3899, 3900, 3901, 7796, 7797, 11694, 19489, 19490 };
	struct message none = request("");

	(void)state;
	for (size_t i = 0; i < sizeof bytes; i++)
		bytes[i] = "abcdefghijklmnopqrstuvwxyz"[i % 26];
	for (unsigned i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
		struct oidc_lines lines = { .a = &arena, .req = &none };
		struct message back;

		assert_true(oidc_cookie_write(&lines, STR("n"), (struct str){ bytes, lengths[i] }));
		assert_true(lines.n == (lengths[i] <= 3900 ? 1 : (lengths[i] + 3897) / 3898));
		for (unsigned at = 0; at < lines.n; at++)
			assert_true(str_find(lines.lines[at], ';') <= 3900 + 4);
		back = answer_to(&lines);
		assert_true(str_equal(oidc_cookie_read(&arena, &back, STR("n")), (struct str){ bytes, lengths[i] }));
	}
	struct oidc_lines lines = { .a = &arena, .req = &none };

	assert_false(oidc_cookie_write(&lines, STR("n"), (struct str){ bytes, 19491 }));
	assert_int_equal(lines.n, 0);
}

static void chunks_that_do_not_fit_together_are_nothing(void **state)
{
	static const char *const none[] = {
		"", "n_0=2.a", "n_1=b", "n_0=a; n_1=b", "n_0=1.a", "n_0=0.a",
		"n_0=6.a; n_1=b; n_2=c; n_3=d; n_4=e; n_5=f", "n_0=2.; n_1=b", "n_0=2.a; n_1=", "n_0=3.a; n_1=b",
		"n_0=-1.a; n_1=b", "n=", "N_0=2.a; n_1=b",
	};
	struct message req = request("n_0=2.a; n_1=b; n_2=c");

	(void)state;
	for (unsigned i = 0; i < sizeof none / sizeof none[0]; i++) {
		struct message m = request(none[i]);

		assert_null(oidc_cookie_read(&arena, &m, STR("n")).p);
	}
	assert_str(oidc_cookie_read(&arena, &req, STR("n")), "ab");
	req = request("n_0=2.a; n_1=b; n=short");
	assert_str(oidc_cookie_read(&arena, &req, STR("n")), "short");
}

static void the_other_form_is_removed(void **state)
{
	struct message req = request("n=old; n_0=3.a; n_1=b; n_2=c; other=1");
	struct oidc_lines lines = { .a = &arena, .req = &req, .is_secure = true };

	(void)state;
	assert_true(oidc_cookie_write(&lines, STR("n"), STR("new")));
	assert_int_equal(lines.n, 4);
	assert_str(lines.lines[0], "n=new; Path=/; Max-Age=604800; HttpOnly; SameSite=Lax; Secure");
	assert_str(lines.lines[1], "n_0=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax; Secure");
	lines = (struct oidc_lines){ .a = &arena, .req = &req };
	oidc_cookie_clear(&lines, STR("n"));
	assert_int_equal(lines.n, 4);
	assert_str(lines.lines[0], "n=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax");
}

static void names_are_short_and_plain(void **state)
{
	(void)state;
	assert_str(oidc_session_name(&arena, STR("policy-abcdefghijk"), false), "sluice_oidc_abcdefgh");
	assert_str(oidc_session_name(&arena, STR("policy-abcdefghijk"), true), "__Host-sluice_oidc_abcdefgh");
	assert_str(oidc_session_name(&arena, STR("a;b=c"), false), "sluice_oidc_a_b_c");
	/* SHA-256 of "abc" begins with ba7816bf8f01cfea. */
	assert_str(oidc_login_name(&arena, STR("abc")), "sluice_oidc_st_ba7816bf8f01cfea");
}

static void upstreams_see_none_of_our_cookies(void **state)
{
	static const struct {
		const char *before, *after;
	} cases[] = {
		{ "a=1; sluice_oidc_x=2; b=3", "a=1; b=3" }, { "sluice_oidc_x=2", NULL },
		{ "__Host-sluice_oidc_x_0=2;a=1", "a=1" }, { "SLUICE_OIDC_st_1=2; a=1", "a=1" },
		{ "a=1; b=sluice_oidc_x", "a=1; b=sluice_oidc_x" }, { "a=1;b=2", "a=1;b=2" },
		{ " sluice_oidc_x ; a", "a" }, { "xsluice_oidc_=1", "xsluice_oidc_=1" }, { "sluice_oidc_", NULL },
	};

	const struct snapshot snapshot = { .own_cookies = STR(OIDC_COOKIES) };
	struct view view = { .snapshot = &snapshot };

	(void)state;
	for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct exchange x = { .view = &view, .stream.req = request(cases[i].before) };
		struct str left;

		own_cookies_take(&x);
		left = message_value(&x.stream.req, HEADER_COOKIE);
		assert_true(str_equal(left, str_of(cases[i].after)));
		assert_true((left.p != NULL) == (cases[i].after != NULL));
		left = message_value(exchange_own_cookies(&x), HEADER_COOKIE);
		assert_int_equal(left.p != NULL, !str_equal(str_of(cases[i].before), str_of(cases[i].after)));
		assert_true(!left.p || str_equal(left, str_of(cases[i].before)));
		arena_free(&x.arena);
	}
}

/* ---------- where browsers are sent ---------- */

static void only_paths_are_local(void **state)
{
	static const char *const good[] = { "/", "/a", "/a?b=//c", "/a//b", "/%2F%2Fevil", "/a#b" };
	static const char *const bad[] = {
		"", "a", "//", "//evil.example", "/\\evil.example", "\\/evil", "/\t/evil", "/a\\b", "http://a/", "/a b",
		"/\r\nX: 1", "/\x7f", "/\xc3\xa4", " /",
	};

	(void)state;
	for (unsigned i = 0; i < sizeof good / sizeof good[0]; i++)
		assert_true(oidc_is_local(str_of(good[i])));
	for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++)
		assert_false(oidc_is_local(str_of(bad[i])));
}

static void origins_are_compared_whole(void **state)
{
	const struct str app = STR("https://app.example.com/callback");

	(void)state;
	assert_true(oidc_same_origin(STR("https://APP.example.com:443/x"), app));
	assert_true(oidc_same_origin(STR("https://app.example.com"), app));
	assert_false(oidc_same_origin(STR("http://app.example.com/"), app));
	assert_false(oidc_same_origin(STR("https://app.example.com:8443/"), app));
	assert_false(oidc_same_origin(STR("https://app.example.com.evil.example/"), app));
	assert_false(oidc_same_origin(STR("https://evil.example\\@app.example.com/"), app));
	assert_false(oidc_same_origin(STR("https://user@app.example.com/"), app));
	assert_false(oidc_same_origin(STR("//app.example.com/"), app));
	assert_false(oidc_same_origin(STR("javascript:alert(1)"), app));
}

static void parameters_are_read_once(void **state)
{
	struct str v;

	(void)state;
	assert_true(oidc_read_parameter(&arena, STR("a=1&st%61te=x+y%26&b"), "state", &v));
	assert_str(v, "x y&");
	assert_true(oidc_read_parameter(&arena, STR("a=1"), "state", &v));
	assert_null(v.p);
	assert_true(oidc_read_parameter(&arena, STR("state="), "state", &v));
	assert_non_null(v.p);
	assert_false(oidc_read_parameter(&arena, STR("state=1&state=1"), "state", &v));
	assert_false(oidc_read_parameter(&arena, STR("state=%4"), "state", &v));
}

static void parameters_are_added_encoded(void **state)
{
	struct sbuf url = { 0 };

	(void)state;
	sbuf_add(&url, STR("https://idp/a?t=1"));
	oidc_add_parameter(&url, "x", STR("a b&c=\xc3\xa4~"));
	oidc_add_parameter(&url, "y", (struct str){ NULL, 0 });
	assert_str(sbuf_str(&url), "https://idp/a?t=1&x=a%20b%26c%3D%C3%A4~");
	sbuf_free(&url);
}

/* ---------- what providers say ---------- */

static const char *read_at_1000(const char *text, struct oidc_tokens *out)
{
	return oidc_tokens_read(&arena, str_of(text), 1000, out);
}

static void answers_of_the_token_endpoint(void **state)
{
	static const char *const bad[] = {
		"", "[]", "1", "{", "{\"token_type\":\"mac\"}", "{\"token_type\":1}", "{\"id_token\":1}",
		"{\"access_token\":{}}", "{\"refresh_token\":\"a\\nb\"}",
	};
	struct oidc_tokens t;

	(void)state;
	for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++)
		assert_non_null(read_at_1000(bad[i], &t));
	assert_null(read_at_1000("{\"access_token\":\"a\",\"token_type\":\"bearer\",\"expires_in\":\"60\"}", &t));
	assert_int_equal(t.access_expires_s, 1060);
	assert_null(t.id_token.p);
	assert_null(read_at_1000("{\"access_token\":\"a\",\"expires_in\":9e300,\"refresh_token\":null}", &t));
	assert_int_equal(t.access_expires_s, 0);
	assert_null(read_at_1000("{\"access_token\":\"a\",\"expires_in\":9223372036854775807}", &t));
	assert_true(t.access_expires_s > 1000 && t.access_expires_s < INT64_MAX / 2);
	assert_string_equal(oidc_error_read(&arena, STR("{\"error\":\"invalid_grant\"}")), "invalid_grant");
	assert_string_equal(oidc_error_read(&arena, STR("{\"error\":\"<script>\"}")), "");
	assert_string_equal(oidc_error_read(&arena, STR("nothing")), "");
}

static const char *check(const char *payload, struct oidc_identity *out)
{
	const struct oidc_expected expected = {
		.issuer = STR("https://idp"), .client_id = STR("app"), .nonce = STR("n"), .now_s = 1000,
	};
	struct problem why;
	struct jwt t = { .payload = json_parse(&arena, str_of(payload), &why), .algorithm = CRYPTO_RS256 };

	assert_non_null(t.payload);
	return oidc_claims_check(&t, &expected, out);
}

#define CLAIMS_AT(exp, iat, more) "{\"iss\":\"https://idp\",\"sub\":\"s\",\"exp\":" exp ",\"iat\":" iat \
	",\"nonce\":\"n\",\"aud\":" more "}"
#define CLAIMS(more) CLAIMS_AT("2000", "1000", more)

static void claims_of_an_id_token(void **state)
{
	struct oidc_identity who;

	(void)state;
	assert_null(check(CLAIMS("\"app\",\"email\":\"e\""), &who));
	assert_str(who.subject, "s");
	assert_str(who.email, "e");
	assert_int_equal(who.expires_s, 2000);
	assert_null(check(CLAIMS("[\"app\"]"), &who));
	assert_null(check(CLAIMS("[\"x\",\"app\"],\"azp\":\"app\""), &who));
	assert_non_null(check(CLAIMS("[\"x\",\"app\"]"), &who));
	assert_non_null(check(CLAIMS("[]"), &who));
	assert_non_null(check(CLAIMS("\"app\",\"azp\":\"x\""), &who));
	assert_non_null(check(CLAIMS("\"application\""), &who));
	assert_non_null(check(CLAIMS_AT("880", "1", "\"app\""), &who));
	assert_null(check(CLAIMS_AT("881", "1120", "\"app\""), &who));
	assert_non_null(check(CLAIMS_AT("2000", "1121", "\"app\""), &who));
	assert_null(check(CLAIMS("\"app\",\"email\":\"e\",\"email_verified\":false"), &who));
	assert_null(who.email.p);
}

#define DOCUMENT(issuer, token) "{\"issuer\":\"" issuer "\",\"authorization_endpoint\":\"https://idp/a\"," \
	"\"token_endpoint\":\"" token "\",\"jwks_uri\":\"https://idp/j\",\"end_session_endpoint\":\"http://idp/e\"}"

static void discovery_documents(void **state)
{
	const struct str issuer = STR("https://idp");
	struct problem why = { 0 };
	struct oidc_document *d = oidc_document_read(STR(DOCUMENT("https://idp/", "https://idp/t")), issuer, &why);

	(void)state;
	assert_non_null(d);
	assert_str(d->issuer, "https://idp/");
	assert_null(d->end_session_endpoint.p);   /* not https */
	assert_false(d->posts_secret);
	oidc_document_drop(d);
	assert_null(oidc_document_read(STR(DOCUMENT("https://idp2", "https://idp/t")), issuer, &why));
	assert_null(oidc_document_read(STR(DOCUMENT("https://idp//", "https://idp/t")), issuer, &why));
	assert_null(oidc_document_read(STR(DOCUMENT("https://idp", "http://idp/t")), issuer, &why));
	assert_non_null(strstr(why.text, "token_endpoint"));
}

static void a_state_is_used_once(void **state)
{
	uint8_t digest[32] = { 9 };

	(void)state;
	clock_set(1000000, 1000);
	assert_true(once_use(digest, 1000));
	assert_false(once_use(digest, 1000));
	digest[0] = 8;
	assert_true(once_use(digest, 1000));
	clock_set(2100000, 2100);
	assert_true(once_use(digest, 1000));      /* long ago */
	/* Beyond the bound the oldest is forgotten, and the newest is not. */
	for (uint32_t i = 0; i < ONCE_MAX + 10; i++) {
		memcpy(digest, &i, sizeof i);
		digest[31] = 1;
		assert_true(once_use(digest, 1000));
	}
	assert_false(once_use(digest, 1000));
	memset(digest, 0, sizeof digest);
	digest[31] = 1;
	assert_true(once_use(digest, 1000));
	clock_set_real();
}

static int drop(void **state)
{
	(void)state;
	arena_free(&arena);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_session_comes_back_as_it_was),
		cmocka_unit_test(a_packed_session_is_short_and_comes_back_as_it_was),
		cmocka_unit_test(only_this_key_and_the_one_before_open),
		cmocka_unit_test(another_secret_opens_nothing),
		cmocka_unit_test(keys_differ_by_purpose_and_generation),
		cmocka_unit_test(every_changed_byte_ends_it),
		cmocka_unit_test(a_login_is_no_session_and_a_session_no_login),
		cmocka_unit_test(any_length_comes_back_or_is_refused),
		cmocka_unit_test(chunks_that_do_not_fit_together_are_nothing),
		cmocka_unit_test(the_other_form_is_removed),
		cmocka_unit_test(names_are_short_and_plain),
		cmocka_unit_test(upstreams_see_none_of_our_cookies),
		cmocka_unit_test(only_paths_are_local),
		cmocka_unit_test(origins_are_compared_whole),
		cmocka_unit_test(parameters_are_read_once),
		cmocka_unit_test(parameters_are_added_encoded),
		cmocka_unit_test(answers_of_the_token_endpoint),
		cmocka_unit_test(claims_of_an_id_token),
		cmocka_unit_test(discovery_documents),
		cmocka_unit_test(a_state_is_used_once),
	};

	return cmocka_run_group_tests(tests, NULL, drop);
}
