/*
 * jwt_auth.c -- JWTAuth: requests need a token (JWS) signed by a key of the issuer.
 *
 * whiteOrBlack turns the need off (White) or on (Black) for the resources listed in authResources and resources.
 *
 *      request leg:  find_token ──► known to this worker ─────────────────────────────► accept
 *                        └──► parse ──► verify (waits for keys) ──► claims ──► remember ──┘
 *
 * Nothing of a token is written anywhere but the claims of one that was verified. A request without a good token gets
 * no further, whatever is wrong with the issuer: there is no way to pass without a signature.
 */
#include "core/clock.h"
#include "http/message.h"
#include "policy/auth_resource.h"
#include "policy/formats.h"
#include "policy/jwks.h"
#include "policy/jwt.h"
#include "policy/key_source.h"
#include "policy/side_url.h"
#include "policy/token_cache.h"
#include "policy/token_place.h"
#include "proxy/dependency.h"
#include "proxy/policy.h"

enum jwt_mode { JWT_ALL, JWT_WHITE, JWT_BLACK };
enum outcome { PASSED, MISSING, INVALID, EXEMPT, UNAVAILABLE, NO_EXP };

struct jwt_auth {
	struct str name, issuer, sub, jwks;
	int tokenPosition;
	struct str tokenName, tokenNamePrefix;
	bool tokenPass;
	int whiteOrBlack;
	struct items authResources;
	struct str resources;
	bool enable;
	/* prepared */
	struct token_place place;
	struct items exceptions;          /* authResources, then those of resources */
};

struct cell {
	struct key_user keys;
	struct dependency issuer;
	uint64_t owner;                   /* of what is remembered */
};

/* Of a request whose token has to be verified. */
struct state {
	struct key_use keys;
	struct jwt jwt;
	struct str token;
};

#define NAME_MAX_CHARACTERS 64
#define RESOURCES_TEXT_MAX (64 * 1024)
#define REALM "Bearer realm=\"sluice\""

static const struct choice positions[] = {
	{ TOKEN_HEADER, "header", "In the header `tokenName`, after `tokenNamePrefix`.", NULL },
	{ TOKEN_QUERY, "query", "In the query parameter `tokenName`.", NULL },
	{ TOKEN_COOKIE, "cookie", "In the cookie `tokenName`.", NULL },
	{ 0, NULL, NULL, NULL }
};

static const struct choice modes[] = {
	{ JWT_ALL, "", "Every request needs a token.", NULL },
	{ JWT_WHITE, "White", "Requests that match a resource need no token, all others do.", "whitelist" },
	{ JWT_BLACK, "Black", "Only requests that match a resource need a token.", "blacklist" },
	{ 0, NULL, NULL, NULL }
};

static bool check_name(struct str value, struct problem *why)
{
	if (str_code_points(value) > NAME_MAX_CHARACTERS)
		return problem(why, "", "has %zu characters; at most %d are allowed", str_code_points(value),
			NAME_MAX_CHARACTERS);
	return true;
}

static bool check_jwks(struct str value, struct problem *why)
{
	if (!jwks_is_inline(value))
		return side_url_format(value, why);
	return jwks_check(value, why) && jwks_check_secrets(value, why);
}

static const struct field fields[] = {
	TEXT(struct jwt_auth, name, REQUIRED, RANGE(1, 4 * NAME_MAX_CHARACTERS), FORMAT(check_name),
	     EXAMPLE("\"jwt-policy\""),
	     DOC("Name of the policy, for people; at most 64 characters.")),
	TEXT(struct jwt_auth, issuer, REQUIRED, RANGE(1, 2048), FORMAT(format_line),
	     EXAMPLE("\"https://auth.example.com\""),
	     DOC("What the claim `iss` must be, exactly.")),
	TEXT(struct jwt_auth, sub, RANGE(0, 2048), FORMAT(format_line),
	     DOC("What the claim `sub` must be, exactly; absent: not checked.")),
	TEXT(struct jwt_auth, jwks, REQUIRED, SECRET_IF(jwks_is_secret), RANGE(1, JWKS_TEXT_MAX), FORMAT(check_jwks),
	     EXAMPLE("\"https://auth.example.com/.well-known/jwks.json\""),
	     DOC("URL of the key set of the issuer, or the key set itself as JSON; one with symmetric keys is a "
		 "secret and never read back.")),
	CHOICE(struct jwt_auth, tokenPosition, positions, REQUIRED, ANY_CASE, DOC("Where the token is.")),
	TEXT(struct jwt_auth, tokenName, REQUIRED, RANGE(1, 128), FORMAT(format_line),
	     EXAMPLE("\"Authorization\""),
	     DOC("Name of the header, query parameter or cookie.")),
	TEXT(struct jwt_auth, tokenNamePrefix, RANGE(0, 64), FORMAT(format_line), EXAMPLE("\"Bearer \""),
	     DOC("What stands before the token in a header.")),
	BOOL(struct jwt_auth, tokenPass, REQUIRED, DOC("Whether the token is sent on to the service.")),
	CHOICE(struct jwt_auth, whiteOrBlack, modes, ANY_CASE, DEFAULT("\"\""),
	       DOC("Which requests need a token.")),
	LIST(struct jwt_auth, authResources, struct auth_resource, auth_resource_fields,
	     RANGE(0, AUTH_RESOURCES_MAX),
	     DOC("The requests that `whiteOrBlack` is about.")),
	TEXT(struct jwt_auth, resources, RANGE(0, RESOURCES_TEXT_MAX),
	     EXAMPLE("\"[{\\\"path\\\":\\\"/health\\\"}]\""),
	     DOC("More of the same, as a string that holds a JSON list of such objects.")),
	BOOL(struct jwt_auth, enable, REQUIRED, DOC("Whether the policy acts.")),
	FIELDS_END
};

static bool check_with(const struct jwt_auth *conf, struct arena *a, struct problem *why)
{
	struct items more = { NULL, 0 };

	if (conf->tokenPosition != TOKEN_QUERY && !header_is_token(conf->tokenName))
		return problem(why, "tokenName", "must be the name of a header or cookie: letters, digits "
			"and !#$%%&'*+-.^_`|~ only");
	if (!auth_resources_check(&conf->authResources, "authResources", a, why))
		return false;
	if (conf->resources.n && !auth_resources_read(conf->resources, a, &more, why)) {
		problem_prefix(why, "resources");
		return false;
	}
	return auth_resources_check(&more, "resources", a, why);
}

static bool check(const void *conf, struct problem *why)
{
	struct arena scratch = { 0 };
	bool ok = check_with(conf, &scratch, why);

	arena_free(&scratch);
	return ok;
}

static bool attach(const void *vconf, const struct attach_target *t, struct problem *why)
{
	const struct jwt_auth *conf = vconf;
	struct arena scratch = { 0 };
	struct items more = { NULL, 0 };
	bool ok = auth_resources_attach(&conf->authResources, "authResources", t, why);

	if (ok && conf->resources.n)
		ok = auth_resources_read(conf->resources, &scratch, &more, why) && auth_resources_attach(&more,
			"resources", t, why);
	arena_free(&scratch);
	return ok;
}

static bool prepare(void *vconf, struct arena *a, struct problem *why)
{
	struct jwt_auth *conf = vconf;
	struct items more = { NULL, 0 };
	struct auth_resource *all;

	conf->place = (struct token_place){
		.position = (enum token_position)conf->tokenPosition, .name = conf->tokenName,
		.prefix = conf->tokenNamePrefix,
	};
	if (conf->resources.n && !auth_resources_read(conf->resources, a, &more, why))
		return false;
	conf->exceptions = conf->authResources;
	if (more.n) {
		all = NEW_N(a, struct auth_resource, conf->authResources.n + more.n);
		if (conf->authResources.n)
			memcpy(all, conf->authResources.items, conf->authResources.n * sizeof *all);
		memcpy(all + conf->authResources.n, more.items, more.n * sizeof *all);
		conf->exceptions = (struct items){ all, conf->authResources.n + more.n };
	}
	return auth_resources_prepare(&conf->exceptions, a, why);
}

static void open_keys(void *vcell, const void *vconf)
{
	const struct jwt_auth *conf = vconf;
	struct cell *cell = vcell;

	cell->owner = token_cache_owner();
	key_user_open(&cell->keys, conf->jwks, &cell->issuer);
}

static void close_keys(void *vcell)
{
	key_user_close(&((struct cell *)vcell)->keys);
}

/* ---------- answers ---------- */

static enum verdict refuse(struct exchange *x, const struct step *s, const char *fault)
{
	struct str challenge = STR(REALM), message = STR("a token is required");
	enum verdict verdict;

	if (fault) {
		challenge = arena_printf(exchange_arena(x), REALM ", error=\"invalid_token\", error_description=\"%s\"",
					 fault);
		message = arena_printf(exchange_arena(x), "the token is not accepted: %s", fault);
	}
	policy_count(s, fault ? INVALID : MISSING);
	exchange_keep_flag(x, "UA");
	verdict = reply_error(x, 401, "ErrUnauthorized", message);
	message_add_id(exchange_response(x), HEADER_WWW_AUTHENTICATE, challenge);
	return verdict;
}

static enum verdict give_up(struct exchange *x, const struct step *s)
{
	enum verdict verdict;

	policy_count(s, UNAVAILABLE);
	exchange_keep_flag(x, "PF");
	exchange_keep_broken(x, "the keys of the issuer are not there");
	verdict = reply_error(x, 503, "ErrPolicyUnavailable", STR("tokens cannot be verified at present"));
	message_add_id(exchange_response(x), HEADER_RETRY_AFTER, STR("5"));
	return verdict;
}

static void remove_token(struct message *req, const void *place)
{
	token_remove(req, place);
}

/* Facts point into the exchange's memory. */
static enum verdict accept(struct exchange *x, const struct step *s, struct token_facts facts, bool says_no_end)
{
	const struct jwt_auth *conf = s->conf;
	struct token_facts *kept = NEW(exchange_arena(x), struct token_facts);

	*kept = facts;
	kept->issuer = conf->issuer;
	kept->remove = remove_token;
	kept->place = &conf->place;
	exchange_set_token(x, kept);
	policy_count(s, PASSED);
	if (says_no_end)
		policy_count(s, NO_EXP);
	if (!conf->tokenPass)
		token_remove(exchange_request(x), &conf->place);
	return next();
}

/* ---------- verifying ---------- */

/* Between the dots of a token that was parsed, or verified, before. */
static struct str payload_of(struct str token)
{
	struct str part = { NULL, 0 };

	for (unsigned i = 0; i < 2 && str_split(&token, '.', &part); i++)
		;
	return part;
}

static enum jwt_fault judge(const struct jwt_auth *conf, const struct jwt *jwt, const struct key_set *set,
			    int64_t *expires_s)
{
	const struct jwt_rules rules = {
		.issuer = conf->issuer, .subject = conf->sub, .now_s = clock_wall_ms() / 1000,
		.leeway_s = JWT_LEEWAY_S,
	};
	enum jwt_fault fault = jwt_verify(jwt, set);

	return fault == JWT_OK ? jwt_check_claims(jwt, &rules, expires_s) : fault;
}

static enum verdict verify(struct exchange *x, const struct step *s)
{
	struct state *state = exchange_state(x, s);
	struct cell *cell = s->cell;
	struct token_facts facts = { .claims = state->jwt.payload };
	enum jwt_fault fault;
	int64_t expires_s;

	switch (key_use_begin(&state->keys, &cell->keys, x, state->jwt.kid)) {
	case KEYS_AWAITED:
		return await(x, &state->keys.wait, verify);
	case KEYS_NONE:
		return give_up(x, s);
	case KEYS_HELD:
		break;
	}
	fault = judge(s->conf, &state->jwt, state->keys.set, &expires_s);
	if (fault == JWT_OK) {
		struct token_id id = token_id(cell->owner, state->keys.version, state->token);

		facts.subject = json_text(facts.claims, "sub");
		token_cache_put(&id, facts.subject, expires_s);
	}
	key_use_end(&state->keys);
	return fault == JWT_OK ? accept(x, s, facts, expires_s == INT64_MAX) : refuse(x, s, jwt_fault_text(fault));
}

/* Whether this worker has verified it under the keys in force. */
static bool is_known(struct exchange *x, const struct cell *cell, struct str token, struct token_facts *facts,
		     bool *says_no_end)
{
	const struct token_entry *entry;
	struct token_id id;

	if (token.n > JWT_BYTES_MAX)
		return false;
	id = token_id(cell->owner, key_source_version(&cell->keys), token);
	entry = token_cache_find(&id);
	if (!entry)
		return false;
	*facts = (struct token_facts){ .payload = payload_of(token) };
	facts->subject = arena_copy(exchange_arena(x), (struct str){ entry->subject, entry->subject_n });
	*says_no_end = entry->says_no_end;
	return true;
}

static bool needs_token(struct exchange *x, const struct jwt_auth *conf)
{
	switch ((enum jwt_mode)conf->whiteOrBlack) {
	case JWT_WHITE:
		return !auth_resources_match(&conf->exceptions, x, false);
	case JWT_BLACK:
		return auth_resources_match(&conf->exceptions, x, true);
	case JWT_ALL:
		break;
	}
	return true;
}

/*
 * Needs no token. One that is there was not verified: with tokenPass false it goes no further either, lest the upstream
 * take it for one that was. What only stands in the same place (another scheme) stays.
 */
/* Not a key, say, that another policy or the service asks for in the same place. */
static bool is_token(struct exchange *x, struct str text)
{
	struct jwt unused;

	return jwt_parse(exchange_arena(x), text, &unused) == JWT_OK;
}

static enum verdict exempt(struct exchange *x, const struct jwt_auth *conf)
{
	struct str token;
	enum token_found found = token_find(exchange_request(x), &conf->place, &token);

	if (!conf->tokenPass && (found == TOKEN_SEVERAL || (found == TOKEN_ONE && is_token(x, token))))
		token_remove(exchange_request(x), &conf->place);
	return next();
}

static enum verdict find_token(struct exchange *x, const struct step *s)
{
	const struct jwt_auth *conf = s->conf;
	struct token_facts facts;
	struct state *state;
	struct str token;
	enum jwt_fault fault;
	bool says_no_end;

	if (!needs_token(x, conf)) {
		policy_count(s, EXEMPT);
		return exempt(x, conf);
	}
	switch (token_find(exchange_request(x), &conf->place, &token)) {
	case TOKEN_NONE:
		return refuse(x, s, NULL);
	case TOKEN_SEVERAL:
		return refuse(x, s, "several tokens");
	case TOKEN_ONE:
		break;
	}
	if (is_known(x, s->cell, token, &facts, &says_no_end))
		return accept(x, s, facts, says_no_end);
	state = exchange_state(x, s);
	state->token = token;
	fault = jwt_parse(exchange_arena(x), token, &state->jwt);
	return fault == JWT_OK ? verify(x, s) : refuse(x, s, jwt_fault_text(fault));
}

/* ---------- dry runs ---------- */

/* The token of a request that is only asked about: verified with the keys that are there. */
static enum verdict explain_token(struct exchange *x, const struct step *s, struct str token)
{
	const struct cell *cell = s->cell;
	struct key_set *set = key_source_look(&cell->keys);
	struct jwt jwt;
	enum jwt_fault fault;
	int64_t expires_s;

	if (!set)
		return cannot_judge(x, "the keys of the issuer are not there");
	fault = jwt_parse(exchange_arena(x), token, &jwt);
	if (fault == JWT_OK)
		fault = judge(s->conf, &jwt, set, &expires_s);
	key_set_drop(set);
	if (fault != JWT_OK)
		return refuse(x, s, jwt_fault_text(fault));
	exchange_note(x, "the token is good");
	return accept(x, s, (struct token_facts){ .claims = jwt.payload, .subject = json_text(jwt.payload, "sub") },
		      false);
}

static enum verdict explain(struct exchange *x, const struct step *s)
{
	const struct jwt_auth *conf = s->conf;
	struct str token;

	if (!needs_token(x, conf)) {
		exchange_note(x, "needs no token");
		return exempt(x, conf);
	}
	switch (token_find(exchange_request(x), &conf->place, &token)) {
	case TOKEN_NONE:
		exchange_note(x, "no token where one is looked for");
		return refuse(x, s, NULL);
	case TOKEN_SEVERAL:
		return refuse(x, s, "several tokens");
	case TOKEN_ONE:
		break;
	}
	return explain_token(x, s, token);
}

const struct policy_class jwt_auth = {
	.name = "JWTAuth",
	.alias = "JWT authentication",
	.summary = "Admits only requests that carry a token signed by the issuer.",
	.group = "Security",
	.scopes = SCOPE_ROUTES | SCOPE_GATEWAY | SCOPE_DOMAIN,
	.stage = STAGE_AUTH_JWT,
	.combine = COMBINE_SPECIFIC,
	.is_enforced = true,
	.fail_status = 503,
	.execute_stage = "PluginAuthentication",
	.execute_priority = 700,
	.fields = fields,
	.conf_size = sizeof(struct jwt_auth),
	.enable_at = offsetof(struct jwt_auth, enable),
	.cell_size = sizeof(struct cell),
	.dependency = "keys",
	.dependency_at = offsetof(struct cell, issuer),
	.state_size = sizeof(struct state),
	.outcomes = { [PASSED] = "passed", [MISSING] = "missing", [INVALID] = "invalid", [EXEMPT] = "exempt",
		      [UNAVAILABLE] = "unavailable", [NO_EXP] = "jwt_no_exp" },
	.check = check,
	.prepare = prepare,
	.attach = attach,
	.cell_init = open_keys,
	.cell_free = close_keys,
	.adopted = key_sources_tend,
	.request = find_token,
	.explain = explain,
};
