/* authentication_parts.h -- what the kinds of Authentication share; for authentication*.c only. */
#pragma once
#include "policy/credential.h"
#include "policy/jwt.h"
#include "policy/key_source.h"
#include "policy/password_check.h"
#include "proxy/consumers.h"
#include "proxy/policy.h"

/* Of one exchange; each kind uses its part. */
struct authentication_state {
	/* basic-auth */
	struct password_check *check;     /* joined and not left; NULL */
	struct waitlist_entry entry;
	struct waitlist pause;            /* nobody wakes it: its entry ends by its limit */
	const struct consumer *who;       /* NULL: no such user */
	int64_t since_ms;
	/* jwt-auth */
	struct str text;                  /* the token */
	struct jwt token;
	struct key_use keys;
	unsigned claim_at;                /* of the consumers' claims: the one being judged */
	bool keys_missing;                /* of some consumer that it might be */
};

/* The proof is good: the consumer is known from here on, and may go on where a rule lets it. */
enum verdict authentication_admit(struct exchange *x, const struct step *s, const struct consumer *who);
/* 401 with the challenge. `message` is static text. */
enum verdict authentication_refuse(struct exchange *x, const struct step *s, const char *message, struct str challenge);
/* 503: nothing can be said of the proof at present. */
enum verdict authentication_wait(struct exchange *x, const struct step *s, const char *message);

/* basic-auth */
enum verdict authenticate_password(struct exchange *x, const struct step *s);
void authentication_forget_password(struct exchange *x, const struct step *s);   /* done */
/* jwt-auth */
enum verdict authenticate_token(struct exchange *x, const struct step *s);
