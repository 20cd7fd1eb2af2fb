/*
 * consumer.c -- who calls: API keys, a user name and password, or a claim of a token. Authorization rules hang
 * below it.
 */
#include "control/resources/shared.h"
#include <stdio.h>
#include "control/write.h"
#include "core/crypto.h"
#include "policy/formats.h"

enum { KEY_BYTES_MIN = 8, KEY_LENGTH = 40 };

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

static bool check_json(struct str s, struct problem *why)
{
	struct arena a = { 0 };
	const struct json *v = json_parse(&a, s, why);
	const struct json *keys = v ? json_get(v, "keys") : NULL;
	bool ok = keys && keys->type == JSON_ARRAY && keys->n;

	arena_free(&a);
	return ok || problem(why, "", "must be a JSON Web Key Set with at least one key, as a string");
}

struct key_place { int source; struct str value; };
struct key_identity { struct items credentials; struct key_place source; };
struct basic_identity { struct str username, password; };
struct remote_keys { struct str uri; };
struct token_place { int position; struct str key, prefix; bool pass; };
struct payload { struct str payloadKeyName, payloadKeyValue; };

static const struct field credential_fields[] = {
	TEXT(struct api_key_credential, apikey, SECRET, RANGE(KEY_BYTES_MIN, 1024),
		FORMAT(format_header_value), EXAMPLE("\"secret-key-0001\""),
		WHEN("generateMode", GENERATE_CUSTOM),
		DOC("The key, at least 8 bytes, better 16; never returned.")),
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
	TEXT(struct basic_identity, password, REQUIRED, SECRET, RANGE(1, 256), EXAMPLE("\"p\""),
		DOC("Password; never returned.")),
	FIELDS_END
};
static const struct field remote_fields[] = {
	TEXT(struct remote_keys, uri, REQUIRED, RANGE(1, 2048), FORMAT(format_url),
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
	TEXT(struct jwt_identity, jwks, SECRET, RANGE(1, 65536), FORMAT(check_json),
		EXAMPLE("\"{\\\"keys\\\":[{\\\"kty\\\":\\\"oct\\\"}]}\""),
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

static bool check_identities(const struct consumer_identities *i, struct problem *why)
{
	if (i->has_apiKey && i->apiKey.source.source != KEY_DEFAULT && !i->apiKey.source.value.n)
		return problem(why, "identities.apiKey.source.value", "is required when source is \"%s\"",
		               choice_text(sources, i->apiKey.source.source));
	if (i->has_basic && str_find(i->basic.username, ':') < i->basic.username.n)
		return problem(why, "identities.basic.username", "must not contain a colon");
	if (i->has_jwt && !i->jwt.jwks.n == !i->jwt.has_remoteJwks)
		return problem(why, "identities.jwt.jwks", "must be given, or remoteJwks, and not both");
	return true;
}

static bool check(const void *in, struct problem *why)
{
	const struct consumer_doc *c = in;

	if (str_code_points(c->name) > 64)
		return problem(why, "name", "must have at most 64 characters, not %zu", str_code_points(c->name));
	return check_identities(&c->identities, why);
}

static const struct json *keys_of(const struct json *doc)
{
	return json_get(json_get(json_get(doc, "identities"), "apiKey"), "credentials");
}

/* One credential belongs to one consumer. */
static bool check_unshared(const struct draft *d, const struct resource *other, struct problem *why)
{
	const struct json *mine = keys_of(d->doc), *theirs = keys_of(other->doc);
	struct str user = json_text(json_get(json_get(d->doc, "identities"), "basic"), "username");
	char at[64];
	unsigned i = 0;

	for (const struct json *v = mine ? mine->child : NULL; v; v = v->next, i++)
		for (const struct json *w = theirs ? theirs->child : NULL; w; w = w->next)
			if (str_equal_secret(json_text(v, "apikey"), json_text(w, "apikey"))) {
				snprintf(at, sizeof at, "identities.apiKey.credentials[%u].apikey", i);
				return problem_of(why, PROBLEM_CONFLICT, at,
					"is a key of consumer %.*s already", STR_FMT(other->id));
			}
	if (user.n && str_equal(user, json_text(json_get(json_get(other->doc, "identities"), "basic"), "username")))
		return problem_of(why, PROBLEM_CONFLICT, "identities.basic.username",
			"is the user of consumer %.*s already", STR_FMT(other->id));
	return true;
}

static bool check_distinct(const struct json *keys, struct problem *why)
{
	char at[64];
	unsigned i = 0;

	for (const struct json *v = keys ? keys->child : NULL; v; v = v->next, i++)
		for (const struct json *w = keys->child; w != v; w = w->next)
			if (str_equal_secret(json_text(v, "apikey"), json_text(w, "apikey"))) {
				snprintf(at, sizeof at, "identities.apiKey.credentials[%u].apikey", i);
				return problem(why, at, "is listed twice");
			}
	return true;
}

/* Keys to be made here: shown in the answer, once. */
static void make_keys(struct draft *d, const struct json *keys)
{
	char key[KEY_LENGTH + 1];

	for (struct json *v = keys ? keys->child : NULL; v; v = v->next) {
		if (json_text(v, "apikey").n)
			continue;
		crypto_id(key, KEY_LENGTH);
		json_put(d->arena, v, "apikey", json_new_text(d->arena, arena_copy(d->arena, str_of(key))));
		struct arena *a = d->write->arena;
		struct json *shown = d->write->reveal ? json_get(d->write->reveal, "apiKeys") : NULL;

		if (!d->write->reveal)
			d->write->reveal = json_new(a, JSON_OBJECT);
		if (!shown) {
			shown = json_new(a, JSON_ARRAY);
			json_put(a, d->write->reveal, "apiKeys", shown);
		}
		json_add(shown, json_new_text(a, arena_copy(a, str_of(key))));
	}
}

static bool complete(struct draft *d, struct problem *why)
{
	size_t i = 0;

	make_keys(d, keys_of(d->doc));
	if (!check_distinct(keys_of(d->doc), why))
		return false;
	for (const struct resource *r; (r = model_next(d->model, RESOURCE_CONSUMER, &i));)
		if (!str_equal(r->id, d->id) && !check_unshared(d, r, why))
			return false;
	return true;
}

static bool owns(const struct resource *r, const struct resource *user)
{
	(void)r;
	return user->kind == RESOURCE_RULE;
}

const struct resource_class consumer_class = {
	.kind = RESOURCE_CONSUMER, .name = "consumer", .noun = "Consumer", .plural = "Consumers",
	.id_field = "consumerId", .id_prefix = "csm-", .path = "/api/v1/consumers",
	.has_unique_name = true, .fields = fields, .size = sizeof(struct consumer_doc),
	.doc = "A client with credentials.", .check = check, .complete = complete, .owns = owns,
};
