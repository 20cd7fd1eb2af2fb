#include "policy/oidc_session.h"
#include "ai/inflate.h"
#include "core/crypto.h"
#include "core/crypto_key.h"
#include "core/json.h"
#include "core/mem.h"
#include "proxy/gateway_keys.h"

#define SESSION "OIDCAuth session"
#define LOGIN "OIDCAuth login"
#define GENERATION_MAX 1000000
#define POLICY_ID_MAX 64
#define PLAIN_MAX (1 << 20)
#define TOKEN_PARTS 3

/* ---------- sealing ---------- */

/* What a key is for, and what is authenticated with the content. */
static struct str purpose_of(struct arena *a, const char *kind, const struct oidc_seal *with)
{
	BUG_ON(with->policy_id.n > POLICY_ID_MAX);
	return arena_printf(a, "%s %.*s", kind, STR_FMT(with->policy_id));
}

static struct str seal(struct arena *a, const char *kind, const struct oidc_seal *with, struct str plain)
{
	const struct str purpose = purpose_of(a, kind, with);
	struct str sealed;
	uint8_t key[32];

	gateway_key(purpose, with->generation, key);
	sealed = crypto_seal(a, key, purpose, plain);
	mem_wipe(key, sizeof key);
	return arena_printf(a, "%u.%.*s", with->generation, STR_FMT(sealed));
}

/* One text for one value: the other spellings of base64 are no seals of ours. */
static bool is_base64url(struct str s)
{
	for (size_t i = 0; i < s.n; i++) {
		const char c = s.p[i];

		if (!((c >= '0' && c <= '9') || (str_lower(c) >= 'a' && str_lower(c) <= 'z') || c == '-' || c == '_'))
			return false;
	}
	return s.n > 0;
}

static struct str unseal(struct arena *a, const char *kind, const struct oidc_seal *with, struct str text, bool *is_old)
{
	const struct str absent = { NULL, 0 }, purpose = purpose_of(a, kind, with);
	const size_t dot = str_find(text, '.');
	struct str sealed;
	uint64_t generation;
	uint8_t key[32];

	if (dot == text.n || !str_to_u64((struct str){ text.p, dot }, GENERATION_MAX, &generation))
		return absent;
	sealed = (struct str){ text.p + dot + 1, text.n - dot - 1 };
	*is_old = generation + 1 == with->generation;
	if ((generation != with->generation && !*is_old) || !is_base64url(sealed))
		return absent;
	gateway_key(purpose, (unsigned)generation, key);
	sealed = crypto_unseal(a, key, purpose, sealed);
	mem_wipe(key, sizeof key);
	return sealed;
}

/* ---------- content ---------- */

static void add_text(struct sbuf *out, const char *name, struct str value)
{
	if (!value.p)
		return;
	sbuf_addf(out, "%c\"%s\":", out->n ? ',' : '{', name);
	json_quote(out, value);
}

static void add_number(struct sbuf *out, const char *name, int64_t value)
{
	sbuf_addf(out, "%c\"%s\":%lld", out->n ? ',' : '{', name, (long long)value);
}

static struct str text_of(const struct json *v, const char *name)
{
	const struct json *member = json_get(v, name);

	return member && member->type == JSON_STRING ? member->string : (struct str){ NULL, 0 };
}

/*
 * A token (JWS) is base64 of JSON, which no compression gets hold of: packed, its parts are decoded, where they come
 * back as they were. Its signature stays as it is.
 */
static bool decode_part(struct arena *a, struct str part, struct str *out)
{
	char *bytes = arena_take(a, part.n * 3 / 4 + 1);
	size_t n = 0;

	if (!crypto_base64url_strict(part, bytes, &n))
		return false;
	*out = (struct str){ bytes, n };
	return str_is_utf8(*out) && str_find(*out, '\0') == n && str_equal(crypto_base64url(a, *out), part);
}

static bool take_apart(struct arena *a, struct str token, struct str parts[TOKEN_PARTS])
{
	struct str rest = token;
	unsigned n = 0;

	while (n < TOKEN_PARTS && str_split(&rest, '.', &parts[n]))
		n++;
	return n == TOKEN_PARTS && parts[0].n + parts[1].n + parts[2].n + 2 == token.n &&
	       decode_part(a, parts[0], &parts[0]) && decode_part(a, parts[1], &parts[1]);
}

static void add_token(struct arena *a, bool packs, struct sbuf *out, const char *name, struct str token)
{
	struct str parts[TOKEN_PARTS];

	if (!token.p || !packs || !take_apart(a, token, parts)) {
		add_text(out, name, token);
		return;
	}
	sbuf_addf(out, ",\"%s\":[", name);
	for (unsigned i = 0; i < TOKEN_PARTS; i++) {
		if (i > 0)
			sbuf_addc(out, ',');
		json_quote(out, parts[i]);
	}
	sbuf_addc(out, ']');
}

static struct str token_of(struct arena *a, const struct json *v, const char *name)
{
	const struct json *member = json_get(v, name), *parts[TOKEN_PARTS];
	unsigned n = 0;

	if (!member || member->type != JSON_ARRAY || member->n != TOKEN_PARTS)
		return text_of(v, name);
	for (const struct json *part = member->child; part; part = part->next)
		parts[n++] = part;
	return arena_printf(a, "%.*s.%.*s.%.*s", STR_FMT(crypto_base64url(a, parts[0]->string)),
			    STR_FMT(crypto_base64url(a, parts[1]->string)), STR_FMT(parts[2]->string));
}

static int64_t number_of(const struct json *v, const char *name)
{
	const struct json *member = json_get(v, name);

	return member && member->type == JSON_INT ? member->integer : 0;
}

static struct str seal_text(struct arena *a, const char *kind, const struct oidc_seal *with, struct sbuf *text)
{
	struct sbuf packed = { 0 };
	struct str sealed;

	sbuf_addc(text, '}');
	if (with->packs)
		deflate_all(sbuf_str(text), &packed);
	sealed = seal(a, kind, with, with->packs ? sbuf_str(&packed) : sbuf_str(text));
	mem_wipe(text->p, text->n);
	sbuf_free(text);
	sbuf_free(&packed);
	return sealed;
}

/* JSON is never taken for gzip: it begins with '{'. */
static struct str unpack(struct arena *a, struct str plain)
{
	struct sbuf text = { 0 };
	struct str out = { NULL, 0 };

	if (plain.n == 0 || plain.p[0] == '{')
		return plain;
	if (inflate_all(STR("gzip"), plain, PLAIN_MAX, &text))
		out = arena_copy(a, sbuf_str(&text));
	if (text.n > 0)
		mem_wipe(text.p, text.n);
	sbuf_free(&text);
	return out;
}

static const struct json *open_text(struct arena *a, const char *kind, const struct oidc_seal *with, struct str text,
				    bool *is_old)
{
	const struct str plain = unpack(a, unseal(a, kind, with, text, is_old));
	struct problem why;

	return plain.p ? json_parse(a, plain, &why) : NULL;
}

struct str oidc_session_seal(struct arena *a, const struct oidc_seal *with, const struct oidc_session *s)
{
	struct sbuf text = { 0 };

	add_number(&text, "at", s->sealed_s);
	add_number(&text, "until", s->expires_s);
	add_number(&text, "refreshed", s->refreshed_s);
	add_text(&text, "sub", s->subject);
	add_text(&text, "email", s->email);
	add_text(&text, "name", s->name);
	add_token(a, with->packs, &text, "id", s->id_token);
	add_token(a, with->packs, &text, "access", s->access_token);
	add_token(a, with->packs, &text, "refresh", s->refresh_token);
	return seal_text(a, SESSION, with, &text);
}

bool oidc_session_open(struct arena *a, const struct oidc_seal *with, struct str text, struct oidc_session *out,
		       bool *is_old)
{
	const struct json *v = open_text(a, SESSION, with, text, is_old);

	if (!v)
		return false;
	*out = (struct oidc_session){
		.subject = text_of(v, "sub"), .email = text_of(v, "email"), .name = text_of(v, "name"),
		.id_token = token_of(a, v, "id"), .access_token = token_of(a, v, "access"),
		.refresh_token = token_of(a, v, "refresh"),
		.sealed_s = number_of(v, "at"), .expires_s = number_of(v, "until"),
		.refreshed_s = number_of(v, "refreshed"),
	};
	return out->subject.p && out->id_token.p;
}

struct str oidc_login_seal(struct arena *a, const struct oidc_seal *with, const struct oidc_login *l)
{
	struct sbuf text = { 0 };

	add_number(&text, "at", l->issued_s);
	add_number(&text, "restart", l->is_restart);
	add_text(&text, "state", l->state);
	add_text(&text, "nonce", l->nonce);
	add_text(&text, "verifier", l->verifier);
	add_text(&text, "target", l->target);
	return seal_text(a, LOGIN, with, &text);
}

bool oidc_login_open(struct arena *a, const struct oidc_seal *with, struct str text, struct oidc_login *out)
{
	bool is_old;
	const struct json *v = open_text(a, LOGIN, with, text, &is_old);

	if (!v)
		return false;
	*out = (struct oidc_login){
		.state = text_of(v, "state"), .nonce = text_of(v, "nonce"), .verifier = text_of(v, "verifier"),
		.target = text_of(v, "target"), .issued_s = number_of(v, "at"),
		.is_restart = number_of(v, "restart") != 0,
	};
	return out->state.p && out->nonce.p && out->verifier.p && out->target.p;
}
