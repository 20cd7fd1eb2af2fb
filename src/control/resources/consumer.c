/*
 * consumer.c -- who calls: API keys, a user name and password, or a claim of a token. Authorization rules hang
 * below it.
 *
 * Keys and passwords are taken in and never kept: a key becomes its SHA-256 (it has more entropy than can be tried), a
 * password a slow hash, before the document is stored or put into force. A key that is made here is shown in the answer
 * to that write and nowhere else.
 */
#include "control/resources/shared.h"
#include <stdio.h>
#include "control/compile.h"
#include "control/control.h"
#include "control/write.h"
#include "core/crypto.h"
#include "core/log.h"
#include "core/mem.h"
#include "core/password.h"
#include "http/message.h"
#include "policy/formats.h"
#include "policy/header_edit.h"
#include "policy/jwks.h"
#include "policy/key_set.h"
#include "policy/side_url.h"

enum { KEY_BYTES_MIN = 8, KEY_BYTES_WISHED = 16, KEY_LENGTH = 40, ID_LENGTH = 16, HEX_DIGEST = 64 };

static const struct choice modes[] = {
	{ GENERATE_SYSTEM, "System", "made here, shown once in the answer to the create", NULL },
	{ GENERATE_CUSTOM, "Custom", "given", NULL },
	{ 0, NULL, NULL, NULL },
};
static const struct choice sources[] = {
	{ KEY_DEFAULT, "Default", "Authorization: Bearer KEY, or x-api-key: KEY", NULL },
	{ KEY_HEADER, "Header", "the header named value", NULL },
	{ KEY_QUERY, "QueryString", "the query parameter named value", NULL },
	{ 0, NULL, NULL, NULL },
};
static const struct choice secret_types[] = {
	{ SECRET_SYMMETRY, "Symmetry", "a shared secret", NULL },
	{ SECRET_ASYMMETRY, "Asymmetry", "public keys", NULL },
	{ 0, NULL, NULL, NULL },
};
static const struct choice positions[] = {
	{ KEY_DEFAULT, "Default", "Authorization: Bearer TOKEN", NULL },
	{ KEY_HEADER, "Header", "the header named key", NULL },
	{ KEY_QUERY, "QueryString", "the query parameter named key", NULL },
	{ 0, NULL, NULL, NULL },
};

static bool check_keys(struct str s, struct problem *why)
{
	struct key_set *keys = key_set_read(s, true, why);

	key_set_drop(keys);
	return keys && jwks_check_secrets(s, why);
}

struct key_place { int source; struct str value; };
struct key_identity { struct items credentials; struct key_place source; };
struct basic_identity { struct str username, password, passwordHash; };
struct remote_keys { struct str uri; };
struct token_place { int position; struct str key, prefix; bool pass; };
struct payload { struct str payloadKeyName, payloadKeyValue; };

static const struct field credential_fields[] = {
	TEXT(struct api_key_credential, credentialId, RANGE(1, 64), FORMAT(format_line),
		DOC("Name of the key, made by the gateway. A PUT that repeats it without apikey keeps the key.")),
	TEXT(struct api_key_credential, apikey, SECRET_STAYS, RANGE(KEY_BYTES_MIN, 1024),
		FORMAT(format_header_value), EXAMPLE("\"secret-key-0001\""),
		DOC("The key, at least 8 bytes, better 16; required when generateMode is Custom. Kept as a digest, "
		    "never returned.")),
	TEXT(struct api_key_credential, digest, READ_ONLY, SECRET_STAYS, DOC("SHA-256 of the key; never returned.")),
	CHOICE(struct api_key_credential, generateMode, modes, DEFAULT("\"Custom\""), ANY_CASE,
		DOC("Where the key comes from.")),
	FIELDS_END
};
static const struct field source_fields[] = {
	CHOICE(struct key_place, source, sources, DEFAULT("\"Default\""),
		ANY_CASE, DOC("Where a request carries the key.")),
	TEXT(struct key_place, value, RANGE(1, 256), FORMAT(format_line), EXAMPLE("\"x-key\""),
		DOC("Name of the header or parameter.")),
	FIELDS_END
};
static const struct field key_fields[] = {
	LIST(struct key_identity, credentials, struct api_key_credential,
						  credential_fields, REQUIRED, RANGE(1, 64), DOC("Keys.")),
	OBJECT(struct key_identity, source, source_fields, DOC("Where a request carries the key.")),
	FIELDS_END
};
static const struct field basic_fields[] = {
	TEXT(struct basic_identity, username, REQUIRED, RANGE(1, 256), FORMAT(format_line), EXAMPLE("\"u\""),
		DOC("User name, without a colon.")),
	TEXT(struct basic_identity, password, SECRET_STAYS, RANGE(1, PASSWORD_BYTES_MAX), EXAMPLE("\"p\""),
		DOC("Password; required unless one is kept. Kept as a slow hash, never returned.")),
	TEXT(struct basic_identity, passwordHash, READ_ONLY, SECRET_STAYS,
		DOC("yescrypt of the password; never returned.")),
	FIELDS_END
};
static const struct field remote_fields[] = {
	TEXT(struct remote_keys, uri, REQUIRED, RANGE(1, SIDE_URL_MAX), FORMAT(side_url_format),
		EXAMPLE("\"https://id.example.com/keys\""), DOC("URL.")),
	FIELDS_END
};
static const struct field token_fields[] = {
	CHOICE(struct token_place, position, positions, DEFAULT("\"Default\""), ANY_CASE,
		DOC("Where a request carries the token.")),
	TEXT(struct token_place, key, RANGE(1, 256), FORMAT(format_line), EXAMPLE("\"Authorization\""),
		DOC("Name of the header or parameter.")),
	TEXT(struct token_place, prefix, RANGE(0, 64), FORMAT(format_line), EXAMPLE("\"Bearer\""),
		DOC("What stands before the token.")),
	BOOL(struct token_place, pass, DEFAULT("true"), DOC("Whether the token goes on to the upstream.")),
	FIELDS_END
};
static const struct field payload_fields[] = {
	TEXT(struct payload, payloadKeyName, DEFAULT("\"uid\""), RANGE(1, 256), FORMAT(format_line),
		DOC("Claim that tells the consumer.")),
	TEXT(struct payload, payloadKeyValue, REQUIRED, RANGE(1, 1024), EXAMPLE("\"shop\""),
		DOC("Its value for this consumer.")),
	FIELDS_END
};
static const struct field claim_fields[] = {
	TEXT(struct claim_to_header, claim, REQUIRED, RANGE(1, 256),
		FORMAT(format_line), EXAMPLE("\"sub\""), DOC("Claim.")),
	TEXT(struct claim_to_header, header, REQUIRED, RANGE(1, 256), FORMAT(format_header_name),
		EXAMPLE("\"x-sub\""), DOC("Header it goes to.")),
	BOOL(struct claim_to_header, override, DEFAULT("true"),
		DOC("Whether a header of the client is replaced.")),
	FIELDS_END
};
static const struct field jwt_fields[] = {
	TEXT(struct jwt_identity, jwks, SECRET_STAYS, RANGE(1, 65536), FORMAT(check_keys),
		EXAMPLE("\"{\\\"keys\\\":[{\\\"kty\\\":\\\"oct\\\","
			"\\\"k\\\":\\\"c2VjcmV0LWtleS1vZi0zMi1ieXRlcy0wMTIzNDU2Nzg\\\"}]}\""),
		DOC("Keys, as the text of a JSON Web Key Set; never returned.")),
	OBJECT(struct jwt_identity, remoteJwks, remote_fields, PRESENT(struct jwt_identity, has_remoteJwks),
		DOC("Where to fetch the keys.")),
	CHOICE(struct jwt_identity, secretType, secret_types, DEFAULT("\"Asymmetry\""), ANY_CASE,
		DOC("Kind of keys.")),
	OBJECT(struct jwt_identity, jwtTokenConfig, token_fields,
		PRESENT(struct jwt_identity, has_jwtTokenConfig), DOC("Where the token is.")),
	OBJECT(struct jwt_identity, jwtPayloadConfig, payload_fields, REQUIRED,
		DOC("Which claim tells the consumer.")),
	LIST(struct jwt_identity, claimsToHeadersConfigs, struct claim_to_header, claim_fields, RANGE(0, 32),
		DOC("Claims for the upstream.")),
	FIELDS_END
};
static const struct field identity_fields[] = {
	OBJECT(struct consumer_identities, apiKey, key_fields,
		PRESENT(struct consumer_identities, has_apiKey), DOC("API keys.")),
	OBJECT(struct consumer_identities, basic, basic_fields,
		PRESENT(struct consumer_identities, has_basic), DOC("User name and password.")),
	OBJECT(struct consumer_identities, jwt, jwt_fields, PRESENT(struct consumer_identities, has_jwt),
		DOC("Tokens.")),
	FIELDS_END
};
static const struct field fields[] = {
	TEXT(struct consumer_doc, name, REQUIRED, RANGE(1, 256), FORMAT(format_title), EXAMPLE("\"shop\""),
		DOC("Name, at most 64 characters, unique.")),
	BOOL(struct consumer_doc, enable, DEFAULT("true"), DOC("Whether its credentials are accepted.")),
	TEXT(struct consumer_doc, description, RANGE(0, 1024), FORMAT(format_description),
		DOC("Text for people.")),
	OBJECT(struct consumer_doc, identities, identity_fields, PRESENT(struct consumer_doc, has_identities),
		DOC("Credentials.")),
	FIELDS_END
};

static struct json *keys_of(const struct json *doc)
{
	return json_get(json_get(json_get(doc, "identities"), "apiKey"), "credentials");
}

static struct json *basic_of(const struct json *doc)
{
	return json_get(json_get(doc, "identities"), "basic");
}

/* What a client may not say: only what is kept from before counts. */
static void take_off(struct json *doc, struct arena *a)
{
	const struct json *keys = keys_of(doc);

	(void)a;
	for (struct json *v = keys && keys->type == JSON_ARRAY ? keys->child : NULL; v; v = v->next)
		json_drop(v, "digest");
	if (basic_of(doc))
		json_drop(basic_of(doc), "passwordHash");
}

static bool check_key_identity(const struct consumer_identities *in, struct problem *why)
{
	if (!in->has_apiKey)
		return true;
	if (in->apiKey.source.source != KEY_DEFAULT && !in->apiKey.source.value.n)
		return problem(why, "identities.apiKey.source.value", "is required when source is \"%s\"",
			       choice_text(sources, in->apiKey.source.source));
	if (in->apiKey.source.source == KEY_HEADER && !header_is_token(in->apiKey.source.value))
		return problem(why, "identities.apiKey.source.value", "must be the name of a header");
	return true;
}

/* Those that say who asks, where to, or how much, are the gateway's. */
static bool check_claim_headers(const struct items *list, struct problem *why)
{
	char at[64];

	for (size_t i = 0; i < list->n; i++) {
		struct str name = ITEM(*list, struct claim_to_header, i)->header;

		if (header_is_editable(name) && header_lookup(name) != HEADER_X_MSE_CONSUMER)
			continue;
		snprintf(at, sizeof at, "identities.jwt.claimsToHeadersConfigs[%zu].header", i);
		return problem(why, at, "must not be %.*s", STR_FMT(name));
	}
	return true;
}

static bool check_token_identity(const struct jwt_identity *in, struct problem *why)
{
	const char *at = "identities.jwt.jwtTokenConfig.key";

	if (!in->jwks.n && !in->has_remoteJwks)
		return problem(why, "identities.jwt.jwks", "must be given, or remoteJwks");
	if (!check_claim_headers(&in->claimsToHeadersConfigs, why))
		return false;
	if (!in->has_jwtTokenConfig || in->jwtTokenConfig.position == KEY_DEFAULT)
		return true;
	if (!in->jwtTokenConfig.key.n)
		return problem(why, at, "is required when position is \"%s\"",
			       choice_text(positions, in->jwtTokenConfig.position));
	if (in->jwtTokenConfig.position == KEY_HEADER && !header_is_token(in->jwtTokenConfig.key))
		return problem(why, at, "must be the name of a header");
	return true;
}

static bool check_identities(const struct consumer_identities *i, struct problem *why)
{
	if (!check_key_identity(i, why))
		return false;
	if (i->has_basic && str_find(i->basic.username, ':') < i->basic.username.n)
		return problem(why, "identities.basic.username", "must not contain a colon");
	if (i->has_basic && !i->basic.password.n && !i->basic.passwordHash.n)
		return problem(why, "identities.basic.password", "is required");
	return !i->has_jwt || check_token_identity(&i->jwt, why);
}

static bool check(const void *in, struct problem *why)
{
	const struct consumer_doc *c = in;

	if (str_code_points(c->name) > 64)
		return problem(why, "name", "must have at most 64 characters, not %zu", str_code_points(c->name));
	return check_identities(&c->identities, why);
}

/* ---------- keys ---------- */

static void put_digest(struct json *credential, struct str key, struct arena *a)
{
	static const char digits[] = "0123456789abcdef";
	uint8_t digest[HEX_DIGEST / 2];
	char hex[HEX_DIGEST];

	crypto_sha256(key, digest);
	for (size_t i = 0; i < sizeof digest; i++) {
		hex[2 * i] = digits[digest[i] >> 4];
		hex[2 * i + 1] = digits[digest[i] & 15];
	}
	json_put(a, credential, "digest", json_new_text(a, arena_copy(a, (struct str){ hex, sizeof hex })));
	json_drop(credential, "apikey");
}

static void put_name(struct json *credential, struct str name, struct arena *a)
{
	json_put(a, credential, "credentialId", json_new_text(a, arena_copy(a, name)));
}

/* Made here: shown in the answer, once. */
static void make_key(struct draft *d, struct json *credential)
{
	struct arena *a = d->write->arena;
	struct json *shown = d->write->reveal ? json_get(d->write->reveal, "apiKeys") : NULL;
	char key[KEY_LENGTH + 1];

	crypto_id(key, KEY_LENGTH);
	put_digest(credential, str_of(key), d->arena);
	if (!d->write->reveal)
		d->write->reveal = json_new(a, JSON_OBJECT);
	if (!shown) {
		shown = json_new(a, JSON_ARRAY);
		json_put(a, d->write->reveal, "apiKeys", shown);
	}
	json_add(shown, json_new_text(a, arena_copy(a, str_of(key))));
	mem_wipe(key, sizeof key);
}

static const struct json *find_credential(const struct json *keys, struct str id)
{
	for (const struct json *v = keys ? keys->child : NULL; v; v = v->next)
		if (str_equal(json_text(v, "credentialId"), id))
			return v;
	return NULL;
}

/* The digest of what was given, kept or made; *at: where it stands in the list. */
static bool settle_key(struct draft *d, struct json *credential, const char *at, struct problem *why)
{
	struct str id = json_text(credential, "credentialId"), key = json_text(credential, "apikey");
	const struct json *before = id.n && d->before ? find_credential(keys_of(d->before->doc), id) : NULL;
	char made[ID_LENGTH + 5] = "key-", path[96];

	if (id.n && !before) {
		snprintf(path, sizeof path, "%s.credentialId", at);
		return problem(why, path, "is made by the gateway; this consumer has no such key");
	}
	if (key.n) {
		if (key.n < KEY_BYTES_WISHED)
			log_warn("consumer.short_key", F_STR("consumer", d->id), F_TEXT("field", at),
				 F_INT("bytes", (int64_t)key.n), F_INT("wished", KEY_BYTES_WISHED));
		put_digest(credential, key, d->arena);
	} else if (before) {
		json_put(d->arena, credential, "digest", json_clone(d->arena, json_get(before, "digest")));
	} else if (!json_text(credential, "digest").n) {
		if (!str_equal(json_text(credential, "generateMode"), str_of(choice_text(modes, GENERATE_SYSTEM)))) {
			snprintf(path, sizeof path, "%s.apikey", at);
			return problem(why, path, "is required when generateMode is \"Custom\"");
		}
		make_key(d, credential);
	}
	if (!id.n) {
		crypto_id(made + 4, ID_LENGTH);
		put_name(credential, str_of(made), d->arena);
	}
	return true;
}

/*
 * A key that is kept by its place in the list keeps its name. Where the client tells keys by their names, places mean
 * nothing: an item without a name is a new key.
 */
static void settle_places(const struct draft *d, struct json *keys)
{
	const struct json *list = d->before ? keys_of(d->before->doc) : NULL, *before = list ? list->child : NULL;
	bool has_names = false;

	for (const struct json *v = keys ? keys->child : NULL; v; v = v->next)
		has_names = has_names || json_text(v, "credentialId").n > 0;
	for (struct json *v = keys ? keys->child : NULL; v; v = v->next) {
		if (has_names && !json_text(v, "credentialId").n)
			json_drop(v, "digest");
		if (!has_names && !json_text(v, "apikey").n && before && json_text(v, "digest").n)
			put_name(v, json_text(before, "credentialId"), d->arena);
		before = before ? before->next : NULL;
	}
}

static bool check_distinct(const struct json *keys, struct problem *why)
{
	char at[64];
	unsigned i = 0;

	for (const struct json *v = keys ? keys->child : NULL; v; v = v->next, i++)
		for (const struct json *w = keys->child; w != v; w = w->next)
			if (str_equal_secret(json_text(v, "digest"), json_text(w, "digest"))) {
				snprintf(at, sizeof at, "identities.apiKey.credentials[%u].apikey", i);
				return problem(why, at, "is listed twice");
			}
	return true;
}

static bool settle_keys(struct draft *d, struct problem *why)
{
	struct json *keys = keys_of(d->doc);
	char at[64];
	unsigned i = 0;

	settle_places(d, keys);
	for (struct json *v = keys ? keys->child : NULL; v; v = v->next, i++) {
		snprintf(at, sizeof at, "identities.apiKey.credentials[%u]", i);
		if (!settle_key(d, v, at, why))
			return false;
	}
	return check_distinct(keys, why);
}

/* ---------- the password ---------- */

static void put_hash(struct json *basic, struct str password, struct arena *a)
{
	char hash[PASSWORD_HASH_MAX];

	password_hash(password, hash);
	json_put(a, basic, "passwordHash", json_new_text(a, arena_copy(a, str_of(hash))));
	json_drop(basic, "password");
}

/* The same password again is no change. */
static void settle_password(const struct draft *d)
{
	struct json *basic = basic_of(d->doc);
	struct str password = json_text(basic, "password");
	const struct json *kept = d->before ? json_get(basic_of(d->before->doc), "passwordHash") : NULL;

	if (!password.n)
		return;
	if (kept && password_matches(password, kept->string)) {
		json_put(d->arena, basic, "passwordHash", json_clone(d->arena, kept));
		json_drop(basic, "password");
		return;
	}
	put_hash(basic, password, d->arena);
}

/* Inline keys that were only kept, not given, make room for those that are fetched from now on. */
static bool settle_token_keys(const struct draft *d, struct problem *why)
{
	struct json *jwt = json_get(json_get(d->doc, "identities"), "jwt");
	const struct json *before = d->before ? json_get(json_get(d->before->doc, "identities"), "jwt") : NULL;

	if (!json_get(jwt, "jwks") || !json_get(jwt, "remoteJwks"))
		return true;
	if (!before || json_get(before, "remoteJwks") || !json_equal(json_get(jwt, "jwks"), json_get(before, "jwks")))
		return problem(why, "identities.jwt.jwks", "must be given, or remoteJwks, and not both");
	json_drop(jwt, "jwks");
	return true;
}

static bool complete(struct draft *d, struct problem *why)
{
	if (!settle_token_keys(d, why) || !settle_keys(d, why))
		return false;
	settle_password(d);
	return true;
}

static bool check_place(const struct json *place, const char *kind, const char *name, const char *field,
			struct problem *why)
{
	return !str_equal_nocase(json_text(place, kind), STR("Header")) ||
	       check_arrives(json_text(place, name), field, why);
}

static bool arrives(const struct json *doc, struct problem *why)
{
	const struct json *all = json_get(doc, "identities");

	return check_place(json_get(json_get(all, "apiKey"), "source"), "source", "value",
			   "identities.apiKey.source.value", why) &&
	       check_place(json_get(json_get(all, "jwt"), "jwtTokenConfig"), "position", "key",
			   "identities.jwt.jwtTokenConfig.key", why);
}

/* Documents of before keys were kept as digests. */
static bool upgrade(struct json *doc, struct arena *a)
{
	const struct json *keys = keys_of(doc);
	struct json *basic = basic_of(doc);
	char id[ID_LENGTH + 5] = "key-";
	bool changed = false;

	for (struct json *v = keys ? keys->child : NULL; v; v = v->next) {
		struct str key = json_text(v, "apikey");

		if (!key.n)
			continue;
		put_digest(v, key, a);
		crypto_id(id + 4, ID_LENGTH);
		put_name(v, str_of(id), a);
		changed = true;
	}
	if (basic && json_text(basic, "password").n) {
		put_hash(basic, json_text(basic, "password"), a);
		changed = true;
	}
	return changed;
}

/* Keys that are fetched may not be there. */
static void render(const struct control *c, const struct resource *r, struct json *item, struct arena *a)
{
	struct status status;

	if (compile_consumer_status(control_compiler(c), r->id, &status))
		put_status(a, item, &status);
}

static const char *const read_only[] = { "status", NULL };

static bool owns(const struct resource *r, const struct resource *user)
{
	(void)r;
	return user->kind == RESOURCE_RULE;
}

const struct resource_class consumer_class = {
	.kind = RESOURCE_CONSUMER, .name = "consumer", .noun = "Consumer", .plural = "Consumers",
	.id_field = "consumerId", .id_prefix = "csm-", .path = "/api/v1/consumers",
	.has_unique_name = true, .fields = fields, .size = sizeof(struct consumer_doc),
	.doc = "A client with credentials.", .adapt = take_off, .check = check, .complete = complete,
	.arrives = arrives, .upgrade = upgrade, .owns = owns, .render = render, .read_only = read_only,
};
