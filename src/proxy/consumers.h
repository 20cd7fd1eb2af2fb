/*
 * consumers.h -- who may call, as traffic needs to know it: consumers by what they prove themselves with, and what each
 * may call. Part of every snapshot.
 *
 *      keys      SHA-256 of an API key             → consumer
 *      users     user name                         → consumer
 *      subjects  claim name, NUL, its value        → consumer
 *      rules     consumer id, NUL, resource id     → consumer_rule
 *
 * Four persistent maps, so that a change among 100,000 consumers costs what it changes and a look-up costs the same for
 * ten and for 100,000. No key and no password is here: digests and slow hashes only. Beside the maps stand the few
 * places of a request in which any consumer of the node carries a credential: those are where it is looked for.
 */
#pragma once
#include "core/arena.h"
#include "core/pmap.h"
#include "http/message.h"

#define CONSUMER_DIGEST 32
#define CONSUMER_PLACES_MAX 64            /* different ones, of keys and of tokens each */

/* Where a request carries a credential: a field, with a word before it (a scheme) or without, or a query parameter. */
struct place {
	bool is_query;
	bool prefix_optional;
	enum header_id id;                /* of a field */
	struct str name;
	struct str prefix;                /* "Bearer", any case; absent: the whole value */
};
bool place_equal(const struct place *a, const struct place *b);

struct claim_header {
	struct str claim, header;
	enum header_id id;
	bool override;                    /* false: added to what is there */
};

struct dependency;
struct key_set;
struct key_user;

/* Of a consumer that signs tokens. */
struct consumer_token {
	struct place place;
	bool pass;                        /* the token goes on to the upstream */
	struct str claim, value;          /* what tells the consumer */
	struct key_set *keys;             /* policy/key_set.h; held; NULL: they are fetched */
	struct key_user *fetched;         /* policy/key_source.h; open where keys is NULL */
	struct dependency *issuer;        /* whether they could be fetched last; NULL where they are not */
	const struct claim_header *headers;
	unsigned n_headers;
};

struct consumer {
	struct part part;
	struct str id, name;
	bool enable;                      /* false: as if it were unknown, though what it has is nobody else's */
	struct place key_places[2];
	unsigned n_key_places;            /* 0: it has no API key */
	const uint8_t (*digests)[CONSUMER_DIGEST];
	unsigned n_digests;
	struct str user, password;        /* password.h; absent user: it has none */
	const struct consumer_token *token;   /* NULL: it has none */
	struct arena arena;
};

struct consumer_rule {
	struct part part;
	int64_t expires_ms;               /* Unix time; INT64_MAX = never */
};

/* What any consumer of the node has, each once. */
struct consumer_habits {
	struct part part;
	struct place *key_places, *token_places;
	struct str *claims;               /* that tell consumers */
	struct claim_header *headers;     /* that claims go to, replacing the client's: `header` and `id` only */
	unsigned n_key_places, n_token_places, n_claims, n_headers;
	struct arena arena;
};

struct consumers {
	struct part part;
	struct pmap *keys, *users, *subjects, *rules;
	struct consumer_habits *habits;   /* held */
};

/* Keys of the maps, put into `out`; absent str: it cannot be one. */
#define CONSUMER_KEY_MAX 1536
struct str consumer_subject_key(struct str claim, struct str value, char out[CONSUMER_KEY_MAX]);
struct str consumer_rule_key(struct str consumer_id, struct str resource_id, char out[CONSUMER_KEY_MAX]);

/* NULL: unknown, or disabled. */
const struct consumer *consumers_by_key(const struct consumers *c, const uint8_t digest[CONSUMER_DIGEST]);
const struct consumer *consumers_by_user(const struct consumers *c, struct str user);
const struct consumer *consumers_by_claim(const struct consumers *c, struct str claim, struct str value);
/* A rule lets the consumer call the resource at that time. */
bool consumers_allow(const struct consumers *c, const struct consumer *who, struct str resource_id, int64_t now_ms);

struct exchange;
/* Those the exchange was born under; never NULL. */
const struct consumers *exchange_consumers(const struct exchange *x);
/* Whether a rule lets it call the route of the exchange, or the API that the route is of. */
bool exchange_is_authorized(const struct exchange *x, const struct consumer *who);
