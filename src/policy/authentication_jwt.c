/*
 * authentication_jwt.c -- jwt-auth: a token signed with a key of the consumer that one of its claims names.
 *
 * The claim is read from the unverified token and tells whose keys count: those keys and no others are tried, so a
 * token that a consumer signed for another one's name is refused. Consumers may use different claims; each claim that
 * any of them uses is looked at, which gives a few candidates at most and never a walk over all.
 */
#include <stdio.h>
#include "core/clock.h"
#include "http/identity_field.h"
#include "policy/authentication_parts.h"
#include "policy/jwt.h"
#include "policy/proof_cache.h"

#define VALUE_MAX 1024

enum token_verdict { TOKEN_ACCEPTED, TOKEN_REFUSED, TOKEN_LATER };

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

static bool verify(const struct jwt *t, const struct key_set *keys, const struct proof *proof)
{
	int64_t now_ms = clock_ms();

	if (jwt_verify(t, keys) != JWT_OK)
		return false;
	proof_keep(proof, true, now_ms, now_ms + PROOF_LASTS_MAX_MS);
	return true;
}

/* What the signature was held against is the set, or the number of the one that was fetched. */
static struct proof proof_of_inline(struct str token, const struct key_set *keys)
{
	return proof_of(token, (struct str){ (const char *)keys->digest, sizeof keys->digest });
}

static struct proof proof_of_fetched(struct str token, uint64_t version)
{
	return proof_of(token, (struct str){ (const char *)&version, sizeof version });
}

/* With keys that are fetched, which may have to be waited for. */
static enum token_verdict verify_fetched(struct exchange *x, const struct step *s, const struct consumer_token *own)
{
	struct authentication_state *state = exchange_state(x, s);
	struct proof proof;
	bool ok;

	switch (key_use_begin(&state->keys, own->fetched, x, state->token.kid)) {
	case KEYS_AWAITED:
		return TOKEN_LATER;
	case KEYS_NONE:
		state->keys_missing = true;
		return TOKEN_REFUSED;
	case KEYS_HELD:
		break;
	}
	proof = proof_of_fetched(state->text, state->keys.version);
	ok = verify(&state->token, state->keys.set, &proof);
	key_use_end(&state->keys);
	return ok ? TOKEN_ACCEPTED : TOKEN_REFUSED;
}

static enum token_verdict look_fetched(const struct authentication_state *state, const struct consumer_token *own)
{
	struct key_set *keys = key_source_look(own->fetched);
	bool ok = keys && jwt_verify(&state->token, keys) == JWT_OK;

	key_set_drop(keys);
	return ok ? TOKEN_ACCEPTED : TOKEN_REFUSED;
}

/* The signature is what may be remembered; times and places are looked at for every request. */
static enum token_verdict judge_for(struct exchange *x, const struct step *s, const struct consumer_token *own)
{
	const struct authentication_state *state = exchange_state(x, s);
	const struct jwt_rules rules = { .now_s = clock_wall_ms() / 1000, .leeway_s = JWT_LEEWAY_S };
	struct proof proof;
	int64_t expires_s;

	if (!credential_is_at(x, &own->place, state->text) ||
	    jwt_check_claims(&state->token, &rules, &expires_s) != JWT_OK)
		return TOKEN_REFUSED;
	proof = own->keys ? proof_of_inline(state->text, own->keys) :
		proof_of_fetched(state->text, key_source_version(own->fetched));
	if (proof_find(&proof, clock_ms()) == PROOF_GOOD)
		return TOKEN_ACCEPTED;
	if (own->keys)
		return verify(&state->token, own->keys, &proof) ? TOKEN_ACCEPTED : TOKEN_REFUSED;
	return exchange_is_dry(x) ? look_fetched(state, own) : verify_fetched(x, s, own);
}

/* Headers that any consumer's claims replace: a client that sends them itself is not believed. */
static void strip_headers(struct exchange *x)
{
	const struct consumer_habits *habits = exchange_consumers(x)->habits;

	for (unsigned i = 0; i < habits->n_headers; i++) {
		identity_field_remove(exchange_request(x), habits->headers[i].header);
		identity_guard(exchange_request(x), habits->headers[i].header);
	}
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

/* The signature is good. */
static enum verdict accept(struct exchange *x, const struct step *s, const struct consumer *who)
{
	const struct authentication_state *state = exchange_state(x, s);
	struct token_facts *facts = NEW(exchange_arena(x), struct token_facts);

	*facts = (struct token_facts){ .issuer = json_text(state->token.payload, "iss"),
				       .subject = json_text(state->token.payload, "sub"),
				       .claims = state->token.payload };
	exchange_set_token(x, facts);
	write_headers(x, &state->token, who->token);
	if (!who->token->pass)
		credential_remove(x, &who->token->place);
	return authentication_admit(x, s, who);
}

/* Claim by claim; comes back to the one whose keys were waited for. */
static enum verdict find_consumer(struct exchange *x, const struct step *s)
{
	struct authentication_state *state = exchange_state(x, s);
	const struct consumers *all = exchange_consumers(x);
	char number[32];
	struct str value;

	for (; state->claim_at < all->habits->n_claims; state->claim_at++) {
		const struct str claim = all->habits->claims[state->claim_at];
		const struct consumer *who = NULL;

		if (read_claim(state->token.payload, claim, number, &value))
			who = consumers_by_claim(all, claim, value);
		switch (who ? judge_for(x, s, who->token) : TOKEN_REFUSED) {
		case TOKEN_ACCEPTED:
			return accept(x, s, who);
		case TOKEN_LATER:
			return await(x, &state->keys.wait, find_consumer);
		case TOKEN_REFUSED:
			break;
		}
	}
	if (state->keys_missing)
		return authentication_wait(x, s, "the keys of tokens cannot be fetched at present");
	return refuse(x, s);
}

enum verdict authenticate_token(struct exchange *x, const struct step *s)
{
	static const struct place usual = {
		.id = HEADER_AUTHORIZATION, .name = { "authorization", 13 }, .prefix = { "Bearer", 6 },
	};
	const struct consumer_habits *habits = exchange_consumers(x)->habits;
	const struct place *places = habits->n_token_places ? habits->token_places : &usual;
	struct authentication_state *state = exchange_state(x, s);

	strip_headers(x);
	switch (credential_collect(x, places, habits->n_token_places ? habits->n_token_places : 1, &state->text)) {
	case FOUND_NONE:
		return authentication_refuse(x, s, "No token found in request", challenge);
	case FOUND_SEVERAL:
		return authentication_refuse(x, s, "Multiple tokens found in request", challenge_invalid);
	case FOUND_ONE:
		break;
	}
	if (jwt_parse(exchange_arena(x), state->text, &state->token) != JWT_OK)
		return refuse(x, s);
	return find_consumer(x, s);
}
