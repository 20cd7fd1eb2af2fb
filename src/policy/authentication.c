/*
 * authentication.c -- Authentication: the caller proves to be one of the consumers, by API key, password or
 * token.
 *
 * At a gateway or domain any enabled consumer passes; at a route the consumer also needs an authorization
 * rule. Consumers and rules are in the snapshot (proxy/consumers.h), so the exchange is judged by those it was born
 * under. The other kinds of proof are in authentication_basic.c and authentication_jwt.c.
 */
#include "core/crypto.h"
#include "policy/authentication_parts.h"
#include "proxy/dependency.h"

enum outcome { PASSED, UNAUTHENTICATED, UNAUTHORIZED, UNDECIDED };

enum authentication_type { AUTHENTICATION_KEY, AUTHENTICATION_BASIC, AUTHENTICATION_JWT };

/* What the issuers of consumers are like, with jwt-auth. */
struct cell {
	struct dependency issuers;
};

struct authentication {
	int authenticationType;
	bool enable;
};

static const struct choice authentication_types[] = {
	{ AUTHENTICATION_KEY, "key-auth", "An API key of a consumer, in a header or in the query.", NULL },
	{ AUTHENTICATION_BASIC, "basic-auth", "User name and password of a consumer (HTTP Basic).", NULL },
	{ AUTHENTICATION_JWT, "jwt-auth", "A token signed with a key of a consumer.", NULL },
	{ 0, NULL, NULL, NULL }
};

static const struct field fields[] = {
	CHOICE(struct authentication, authenticationType, authentication_types, REQUIRED,
	       DOC("Which credential of a consumer counts.")),
	BOOL(struct authentication, enable, REQUIRED, DOC("Whether the policy acts.")),
	FIELDS_END
};

enum verdict authentication_refuse(struct exchange *x, const struct step *s, const char *message, struct str challenge)
{
	enum verdict verdict = reply_error(x, 401, "ErrUnauthorized", str_of(message));

	policy_count(s, UNAUTHENTICATED);
	exchange_keep_flag(x, "UA");
	exchange_note(x, "%s", message);
	message_add_id(exchange_response(x), HEADER_WWW_AUTHENTICATE, challenge);
	return verdict;
}

enum verdict authentication_wait(struct exchange *x, const struct step *s, const char *message)
{
	enum verdict verdict = reply_error(x, 503, "ErrPolicyUnavailable", str_of(message));

	policy_count(s, UNDECIDED);
	exchange_keep_flag(x, "PF");
	message_add_id(exchange_response(x), HEADER_RETRY_AFTER, STR("1"));
	return verdict;
}

/* The name is kept first: the record tells it also where the consumer is refused. */
enum verdict authentication_admit(struct exchange *x, const struct step *s, const struct consumer *who)
{
	exchange_set_consumer(x, who->id, who->name);
	exchange_note(x, "consumer %.*s", STR_FMT(who->name));
	if (s->level != LEVEL_ROUTE || exchange_is_authorized(x, who)) {
		policy_count(s, PASSED);
		return next();
	}
	policy_count(s, UNAUTHORIZED);
	exchange_keep_flag(x, "UA");
	exchange_note(x, "consumer %.*s has no rule for this route", STR_FMT(who->name));
	return reply_error(x, 403, "ErrForbidden", STR("Unauthorized consumer"));
}

/* ---------- key-auth ---------- */

static const struct str key_challenge = { "Key realm=\"sluice\"", 18 };

static const struct consumer *find_key(struct exchange *x, struct str key)
{
	uint8_t digest[CONSUMER_DIGEST];
	const struct consumer *who;

	crypto_sha256(key, digest);
	who = consumers_by_key(exchange_consumers(x), digest);
	/* Another consumer's place is not this one's. */
	for (unsigned i = 0; who && i < who->n_key_places; i++)
		if (credential_is_at(x, &who->key_places[i], key))
			return who;
	return NULL;
}

static enum verdict authenticate_key(struct exchange *x, const struct step *s)
{
	static const struct place usual[] = {
		{ .id = HEADER_AUTHORIZATION, .name = { "authorization", 13 }, .prefix = { "Bearer", 6 } },
		{ .id = HEADER_OTHER, .name = { "x-api-key", 9 } },
	};
	const struct consumer_habits *habits = exchange_consumers(x)->habits;
	const struct place *places = habits->n_key_places ? habits->key_places : usual;
	const struct consumer *who;
	struct str key;

	switch (credential_collect(x, places, habits->n_key_places ? habits->n_key_places : 2, &key)) {
	case FOUND_NONE:
		return authentication_refuse(x, s, "No API key found in request", key_challenge);
	case FOUND_SEVERAL:
		return authentication_refuse(x, s, "Multiple API keys found in request", key_challenge);
	case FOUND_ONE:
		break;
	}
	who = find_key(x, key);
	return who ? authentication_admit(x, s, who) :
		     authentication_refuse(x, s, "Invalid API key", key_challenge);
}

/* ---------- the class ---------- */

static enum verdict authenticate(struct exchange *x, const struct step *s)
{
	const struct authentication *auth = s->conf;

	switch ((enum authentication_type)auth->authenticationType) {
	case AUTHENTICATION_BASIC:
		return authenticate_password(x, s);
	case AUTHENTICATION_JWT:
		return authenticate_token(x, s);
	case AUTHENTICATION_KEY:
		break;
	}
	return authenticate_key(x, s);
}

static bool asks_issuers(const void *conf)
{
	return ((const struct authentication *)conf)->authenticationType == AUTHENTICATION_JWT;
}

static void forget(struct exchange *x, const struct step *s)
{
	const struct authentication *auth = s->conf;

	if (auth->authenticationType == AUTHENTICATION_BASIC)
		authentication_forget_password(x, s);
}

const struct policy_class authentication = {
	.name = "Authentication",
	.alias = "Unified authentication",
	.summary = "Admits only requests that carry a credential of a consumer.",
	.group = "Security",
	.scopes = SCOPE_ROUTES | SCOPE_GATEWAY | SCOPE_DOMAIN,
	.stage = STAGE_AUTH_CONSUMER,
	.combine = COMBINE_SPECIFIC,
	.is_enforced = true,
	.fail_status = 503,
	.execute_stage = "PluginAuthentication",
	.execute_priority = 690,
	.fields = fields,
	.conf_size = sizeof(struct authentication),
	.enable_at = offsetof(struct authentication, enable),
	.cell_size = sizeof(struct cell),
	.dependency = "keys",
	.dependency_at = offsetof(struct cell, issuers),
	.asks_issuers = asks_issuers,
	.outcomes = { [PASSED] = "passed", [UNAUTHENTICATED] = "unauthenticated", [UNAUTHORIZED] = "unauthorized",
		      [UNDECIDED] = "undecided" },
	.state_size = sizeof(struct authentication_state),
	.adopted = key_sources_tend,
	.request = authenticate,
	.done = forget,
	.explain = authenticate,
};
