#include "policy/key_set.h"
#include <stdatomic.h>
#include "core/crypto.h"
#include "core/mem.h"
#include "policy/jwks.h"

#define VALUES_MAX 20000

/* A member that holds bytes. Both alphabets are read, as issuers write them. */
static struct str member(const struct json *jwk, const char *name, struct arena *a)
{
	struct str out = { NULL, 0 };

	if (!crypto_base64_decode(a, json_text(jwk, name), &out))
		return (struct str){ NULL, 0 };
	return out;
}

static struct crypto_key *make_ec(const struct json *jwk, struct arena *a)
{
	struct str curve = json_text(jwk, "crv"), x = member(jwk, "x", a), y = member(jwk, "y", a);

	if (str_equal(curve, STR("P-256")))
		return crypto_key_ec(CRYPTO_EC256, x, y);
	if (str_equal(curve, STR("P-384")))
		return crypto_key_ec(CRYPTO_EC384, x, y);
	return str_equal(curve, STR("P-521")) ? crypto_key_ec(CRYPTO_EC521, x, y) : NULL;
}

static struct crypto_key *make_key(const struct json *jwk, struct arena *a)
{
	struct str kty = json_text(jwk, "kty");

	if (str_equal(kty, STR("RSA")))
		return crypto_key_rsa(member(jwk, "n", a), member(jwk, "e", a));
	if (str_equal(kty, STR("EC")))
		return make_ec(jwk, a);
	if (str_equal(kty, STR("OKP")))
		return crypto_key_ed25519(member(jwk, "x", a));
	return crypto_key_secret(member(jwk, "k", a));
}

static bool add_key(struct key_set *s, const struct json *jwk, bool is_inline, struct arena *scratch)
{
	struct str alg = json_text(jwk, "alg"), kid = json_text(jwk, "kid");
	struct key_set_key *out = &s->keys[s->n];

	if (s->n == KEY_SET_MAX || jwk->type != JSON_OBJECT || !jwk_is_usable(jwk, is_inline, scratch))
		return false;
	out->algorithm = str_equal(alg, STR("Ed25519")) ? CRYPTO_EdDSA : crypto_algorithm_find(alg);
	out->key = make_key(jwk, scratch);
	if (!out->key)
		return false;
	if (kid.n > 0)
		out->kid = arena_copy(s->arena, kid);
	s->n++;
	return true;
}

/*
 * Whether the text holds more values than any set needs: a tree of a million numbers would be a hundred times as large,
 * and is read on a worker's thread.
 */
static bool is_crowded(struct str text)
{
	unsigned n = 0;

	for (size_t i = 0; i < text.n; i++)
		n += text.p[i] == ',' || text.p[i] == '[' || text.p[i] == '{';
	return n > VALUES_MAX;
}

static bool read_keys(struct key_set *s, struct str text, bool is_inline, struct problem *why)
{
	if (is_crowded(text))
		return problem(why, "", "has more than %d values", VALUES_MAX);

	struct arena scratch = { 0 };
	const struct json *set = json_parse(&scratch, text, why), *keys = set ? json_get(set, "keys") : NULL;
	bool ok = false;

	if (!set) {
		arena_free(&scratch);
		return false;
	}
	if (!keys || keys->type != JSON_ARRAY) {
		problem(why, "", "must be a key set: {\"keys\": [...]}");
	} else {
		for (const struct json *jwk = keys->child; jwk; jwk = jwk->next)
			if (!add_key(s, jwk, is_inline, &scratch))
				s->passed_over++;
		ok = s->n > 0 || problem(why, "", "has no key that can verify a token");
	}
	arena_free(&scratch);
	return ok;
}

struct key_set *key_set_read(struct str text, bool is_inline, struct problem *why)
{
	struct key_set *s = MEM_NEW(struct key_set);

	s->arena = MEM_NEW(struct arena);
	s->keys = NEW_N(s->arena, struct key_set_key, KEY_SET_MAX + 1);
	atomic_init(&s->refs, 1);
	crypto_sha256(text, s->digest);
	if (read_keys(s, text, is_inline, why))
		return s;
	key_set_drop(s);
	return NULL;
}

struct key_set *key_set_hold(struct key_set *s)
{
	atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
	return s;
}

void key_set_drop(struct key_set *s)
{
	if (!s || atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) != 1)
		return;
	for (unsigned i = 0; i < s->n; i++)
		crypto_key_free(s->keys[i].key);
	arena_free(s->arena);
	mem_free(s->arena);
	mem_free(s);
}
