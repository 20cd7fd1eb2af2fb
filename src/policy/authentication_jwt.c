/*
 * authentication_jwt.c -- jwt-auth: a token signed with a key of the consumer that one of its claims names.
 *
 * The claim is read from the unverified token and tells whose keys count: those keys and no others are tried, so a
 * token that a consumer signed for another one's name is refused. Consumers may use different claims; each claim that
 * any of them uses is looked at, which gives a few candidates at most and never a walk over all.
 */
#include <stdio.h>
#include "core/clock.h"
#include "policy/authentication_parts.h"
#include "policy/jwt.h"
#include "policy/proof_cache.h"

#define VALUE_MAX 1024

static const struct str challenge = { "Bearer realm=\"sluice\"", 21 };
static const struct str challenge_invalid = { "Bearer realm=\"sluice\", error=\"invalid_token\"", 44 };

static enum verdict refuse(struct exchange *x, const struct step *s)
{
	return authentication_refuse(x, s, "Invalid token", challenge_invalid);
}

/* A claim as text: strings and whole numbers tell consumers. */
static bool read_claim(const struct json *payload, struct str name, char number[32], struct str *out)
{
	const struct json *v = json_get_str(payload, name);

	if (v && v->type == JSON_STRING)
		*out = v->string;
	else if (v && v->type == JSON_INT)
		*out = (struct str){ number, (size_t)snprintf(number, 32, "%lld", (long long)v->integer) };
	else
		return false;
	return out->n > 0 && out->n <= VALUE_MAX;
}

static enum jwt_fault verify_signature(const struct jwt *t, struct str token, const struct consumer_token *own)
{
	int64_t now_ms = clock_ms();
	struct proof proof = proof_of(token, (struct str){ (const char *)own->keys->digest, sizeof own->keys->digest });
	enum jwt_fault fault;

	if (proof_find(&proof, now_ms) == PROOF_GOOD)
		return JWT_OK;
	fault = jwt_verify(t, own->keys);
	if (fault == JWT_OK)
		proof_keep(&proof, true, now_ms, now_ms + PROOF_LASTS_MAX_MS);
	return fault;
}

/* The signature is what may be remembered; times are looked at for every request. */
static bool is_good(struct exchange *x, const struct jwt *t, struct str token, const struct consumer *who)
{
	const struct jwt_rules rules = { .now_s = clock_wall_ms() / 1000, .leeway_s = JWT_LEEWAY_S };
	int64_t expires_s;

	return credential_is_at(x, &who->token->place, token) &&
	       jwt_check_claims(t, &rules, &expires_s) == JWT_OK &&
	       verify_signature(t, token, who->token) == JWT_OK;
}

static const struct consumer *find_consumer(struct exchange *x, const struct jwt *t, struct str token)
{
	const struct consumers *all = exchange_consumers(x);
	char number[32];
	struct str value;

	for (unsigned i = 0; i < all->habits->n_claims; i++) {
		const struct str claim = all->habits->claims[i];
		const struct consumer *who = NULL;

		if (read_claim(t->payload, claim, number, &value))
			who = consumers_by_claim(all, claim, value);
		if (who && is_good(x, t, token, who))
			return who;
	}
	return NULL;
}

/* Headers that any consumer's claims replace: a client that sends them itself is not believed. */
static void strip_headers(struct exchange *x)
{
	const struct consumer_habits *habits = exchange_consumers(x)->habits;

	for (unsigned i = 0; i < habits->n_headers; i++)
		message_remove_as(exchange_request(x), habits->headers[i].id, habits->headers[i].header);
}

static void write_headers(struct exchange *x, const struct jwt *t, const struct consumer_token *own)
{
	struct message *req = exchange_request(x);
	char number[32];
	struct str value;

	for (unsigned i = 0; i < own->n_headers; i++) {
		const struct claim_header *h = &own->headers[i];

		if (!read_claim(t->payload, h->claim, number, &value) || !header_is_value(value))
			continue;
		value = arena_copy(exchange_arena(x), value);
		if (h->override)
			message_set(req, h->header, value);
		else
			message_add(req, h->header, value);
	}
}

enum verdict authenticate_token(struct exchange *x, const struct step *s)
{
	const struct consumer_habits *habits = exchange_consumers(x)->habits;
	static const struct place usual = {
		.id = HEADER_AUTHORIZATION, .name = { "authorization", 13 }, .prefix = { "Bearer", 6 },
	};
	const struct place *places = habits->n_token_places ? habits->token_places : &usual;
	const struct consumer *who;
	struct str token;
	struct jwt t;

	strip_headers(x);
	switch (credential_collect(x, places, habits->n_token_places ? habits->n_token_places : 1, &token)) {
	case FOUND_NONE:
		return authentication_refuse(x, s, "No token found in request", challenge);
	case FOUND_SEVERAL:
		return authentication_refuse(x, s, "Multiple tokens found in request", challenge_invalid);
	case FOUND_ONE:
		break;
	}
	if (jwt_parse(exchange_arena(x), token, &t) != JWT_OK)
		return refuse(x, s);
	who = find_consumer(x, &t, token);
	if (!who)
		return refuse(x, s);
	write_headers(x, &t, who->token);
	if (!who->token->pass)
		credential_remove(x, &who->token->place);
	return authentication_admit(x, s, who);
}
