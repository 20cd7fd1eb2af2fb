/*
 * authentication_basic.c -- basic-auth: user and password, held against a slow hash beside the worker.
 *
 *      request leg:  authenticate_password ──► (proof cache) ──► judge ──► admit
 *                                                                   └──► pause ──► refuse
 *
 * What fails, fails after the same time, whether the user is unknown, disabled or the password wrong: an unknown user's
 * password is held against a hash that nothing matches, and no refusal is answered before FAILURE_DELAY_MS. Only in a
 * flood of guesses may the turns of the checks tell a name that exists from one that does not.
 */
#include "core/clock.h"
#include "core/crypto.h"
#include "core/mem.h"
#include "http/message.h"
#include "policy/authentication_parts.h"
#include "policy/password_check.h"

#define FAILURE_DELAY_MS 200

static const struct str challenge = { "Basic realm=\"sluice\", charset=\"UTF-8\"", 37 };

static enum verdict refuse(struct exchange *x, const struct step *s)
{
	return authentication_refuse(x, s, "Invalid user name or password", challenge);
}

/* No earlier than every other failure. */
static enum verdict fail_late(struct exchange *x, const struct step *s)
{
	struct authentication_state *state = exchange_state(x, s);
	int64_t left_ms = state->since_ms + FAILURE_DELAY_MS - clock_ms();

	if (exchange_is_dry(x) || left_ms <= 0)
		return refuse(x, s);
	waitlist_join(&state->pause, &state->entry, exchange_worker(x), left_ms);
	return await(x, &state->entry.wait, refuse);
}

static enum verdict decide(struct exchange *x, const struct step *s, bool is_good)
{
	const struct authentication_state *state = exchange_state(x, s);

	return is_good && state->who ? authentication_admit(x, s, state->who) : fail_late(x, s);
}

static enum verdict judge(struct exchange *x, const struct step *s)
{
	struct authentication_state *state = exchange_state(x, s);
	struct password_check *check = state->check;

	enum proof_found result = password_check_result(check);

	state->check = NULL;
	password_check_leave(check);
	if (result == PROOF_NONE)
		return authentication_wait(x, s, "the password cannot be checked at present");
	return decide(x, s, result == PROOF_GOOD);
}

void authentication_forget_password(struct exchange *x, const struct step *s)
{
	struct authentication_state *state = exchange_state(x, s);

	if (state->check)
		password_check_leave(state->check);
	state->check = NULL;
}

/* The part after the scheme; FOUND_SEVERAL: there are different ones. */
static enum found find_credentials(struct exchange *x, struct str *encoded)
{
	static const struct place place = {
		.id = HEADER_AUTHORIZATION, .name = { "authorization", 13 }, .prefix = { "Basic", 5 },
	};

	return credential_collect(x, &place, 1, encoded);
}

/* At the first colon. */
static bool split(struct exchange *x, struct str encoded, struct str *both, struct str *user, struct str *password)
{
	size_t colon;

	if (!crypto_base64_decode(exchange_arena(x), encoded, both) || !str_is_utf8(*both) ||
	    (both->n && memchr(both->p, '\0', both->n)))
		return false;
	colon = str_find(*both, ':');
	if (colon == both->n)
		return false;
	*user = (struct str){ both->p, colon };
	*password = (struct str){ both->p + colon + 1, both->n - colon - 1 };
	return password->n <= PASSWORD_BYTES_MAX;
}

static enum verdict check(struct exchange *x, const struct step *s, struct str both, struct str password)
{
	struct authentication_state *state = exchange_state(x, s);
	struct str hash = state->who ? state->who->password : STR(PASSWORD_HASH_OF_NONE);
	const struct password_claim claim = {
		.proof = proof_of(both, hash), .user = state->who ? state->who->user : (struct str){ NULL, 0 },
		.password = password, .hash = hash,
	};

	switch (proof_find(&claim.proof, clock_ms())) {
	case PROOF_GOOD:
		return decide(x, s, true);
	case PROOF_BAD:
		return decide(x, s, false);
	case PROOF_NONE:
		break;
	}
	if (exchange_is_dry(x))
		return cannot_judge(x, "a dry run does not hold passwords against hashes");
	state->check = password_check_join(x, &state->entry, &claim);
	if (!state->check)
		return authentication_wait(x, s, "too many passwords are being checked");
	return await(x, &state->entry.wait, judge);
}

enum verdict authenticate_password(struct exchange *x, const struct step *s)
{
	struct authentication_state *state = exchange_state(x, s);
	struct str encoded, both, user, password;

	state->since_ms = clock_ms();
	switch (find_credentials(x, &encoded)) {
	case FOUND_NONE:
		return authentication_refuse(x, s, "No user name and password found in request", challenge);
	case FOUND_SEVERAL:
		return authentication_refuse(x, s, "Multiple credentials found in request", challenge);
	case FOUND_ONE:
		break;
	}
	if (!split(x, encoded, &both, &user, &password))
		return fail_late(x, s);
	state->who = consumers_by_user(exchange_consumers(x), user);
	enum verdict verdict = check(x, s, both, password);

	mem_wipe((char *)(uintptr_t)both.p, both.n);
	return verdict;
}
