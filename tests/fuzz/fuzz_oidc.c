/*
 * fuzz_oidc.c -- what browsers and providers say to OIDCAuth: cookies (first line), the query of a callback (second
 * line), and an answer. Nobody sealed these cookies, so none opens; and after the strip none of ours is left.
 */
/* room: policy */
#include <stddef.h>
#include <stdint.h>
#include "core/fault.h"
#include "policy/oidc_cookie.h"
#include "policy/oidc_provider.h"
#include "policy/oidc_session.h"
#include "policy/oidc_token.h"
#include "policy/oidc_url.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct oidc_seal seal = { .policy_id = STR("policy-abcdefgh01"), .generation = 1 };

static void read_cookies(struct arena *a, struct str line)
{
	struct message req = { .arena = a };
	struct oidc_login_cookie found[16];
	struct oidc_lines lines = { .a = a, .req = &req, .is_secure = true };
	struct oidc_session session;
	struct oidc_login login;
	const struct str name = oidc_session_name(a, seal.policy_id, false);
	struct str text;
	bool is_old;
	unsigned n;

	message_add(&req, STR("Cookie"), line);
	text = oidc_cookie_read(a, &req, name);
	BUG_ON(text.p && oidc_session_open(a, &seal, text, &session, &is_old));
	n = oidc_login_cookies(&req, found, 16);
	for (unsigned i = 0; i < n; i++)
		BUG_ON(oidc_login_open(a, &seal, found[i].value, &login));
	oidc_cookie_clear(&lines, name);
	/* What is read is written, and read again as it was. */
	if (text.p && header_is_value(text) && str_find(text, ';') == text.n && str_find(text, ' ') == text.n)
		BUG_ON(text.n <= OIDC_CHUNKS_MAX * (OIDC_CHUNK_BYTES - 2) && !oidc_cookie_write(&lines, name, text));
}

static void read_query(struct arena *a, struct str query)
{
	static const char *const names[] = { "state", "code", "iss", "rd", "error" };
	struct sbuf url = { 0 };
	struct str value, again;

	for (unsigned i = 0; i < sizeof names / sizeof names[0]; i++) {
		if (!oidc_read_parameter(a, query, names[i], &value) || !value.p)
			continue;
		sbuf_add(&url, STR("https://idp.example.com/end"));
		oidc_add_parameter(&url, names[i], value);
		BUG_ON(!oidc_read_parameter(a, (struct str){ url.p + 28, url.n - 28 }, names[i], &again) ||
		       !str_equal(again, value));
		/* Whatever a browser makes of it, it stays on this host. */
		BUG_ON(oidc_is_local(value) && (value.p[0] != '/' || (value.n > 1 && value.p[1] == '/') ||
						str_find(value, '\\') < value.n || str_find(value, '\t') < value.n));
		oidc_same_origin(value, STR("https://app.example.com/callback"));
		url.n = 0;
	}
	sbuf_free(&url);
	oidc_return_target(a, STR("/x"), query);
}

static void read_answers(struct arena *a, struct str text)
{
	struct problem why = { 0 };
	struct oidc_tokens tokens;

	if (!oidc_tokens_read(a, text, 1000, &tokens))
		BUG_ON(tokens.access_token.n > OIDC_TOKEN_MAX || tokens.id_token.n > JWT_BYTES_MAX);
	oidc_error_read(a, text);
	oidc_document_drop(oidc_document_read(text, STR("https://idp.example.com"), &why));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct str rest = { (const char *)data, size }, cookies = STR(""), query = STR("");
	struct arena a = { 0 };

	if (size > 0) {
		str_split(&rest, '\n', &cookies);
		str_split(&rest, '\n', &query);
	}
	read_cookies(&a, cookies);
	read_query(&a, query);
	read_answers(&a, rest.p ? rest : STR(""));
	arena_free(&a);
	return 0;
}
