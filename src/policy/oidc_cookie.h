/*
 * oidc_cookie.h -- the cookies of OIDCAuth: their names, and how a long value is spread over several. Nothing here
 * looks into a value. A `req` is exchange_own_cookies(): the request itself has none of them.
 *
 *      short     <name>=<text>
 *      long      <name>_0=<count>.<bytes>  <name>_1=<bytes> ...                 at most OIDC_CHUNKS_MAX
 *
 * A request may hold both, when the length changed and the browser was slow: the short one counts. Writing one form
 * removes what the request has of the other.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "core/arena.h"
#include "http/message.h"

#define OIDC_COOKIES "sluice_oidc_"       /* what all names begin with */
#define OIDC_CHUNK_BYTES 3900
#define OIDC_CHUNKS_MAX 5
#define OIDC_SESSION_AGE_S 604800
#define OIDC_LOGIN_AGE_S 600
#define OIDC_LINES_MAX 16

/* Values of Set-Cookie that answer a request. */
struct oidc_lines {
	struct arena *a;
	const struct message *req;
	bool is_secure;
	struct str lines[OIDC_LINES_MAX];
	unsigned n;
};

/* "sluice_oidc_" and 8 characters of the policy's id, with "__Host-" before it where the cookie is Secure. */
struct str oidc_session_name(struct arena *a, struct str policy_id, bool is_secure);
/* "sluice_oidc_st_" and 16 hexadecimal digits of the state's digest. */
struct str oidc_login_name(struct arena *a, struct str state);

/* Absent: it is not there, or not whole. */
struct str oidc_cookie_read(struct arena *a, const struct message *req, struct str name);
/* False: too long for OIDC_CHUNKS_MAX cookies; nothing was added. */
MUST_USE bool oidc_cookie_write(struct oidc_lines *out, struct str name, struct str text);
/* Removes every form of it that the request has, and the short one in any case. */
void oidc_cookie_clear(struct oidc_lines *out, struct str name);
/* One cookie of that name with that value; an empty value removes it. */
void oidc_cookie_line(struct oidc_lines *out, struct str name, struct str value, int64_t age_s);

/* Names and values of all login cookies of the request, as they stand; at most `max`. Returns how many. */
struct oidc_login_cookie {
	struct str name, value;
};
unsigned oidc_login_cookies(const struct message *req, struct oidc_login_cookie *out, unsigned max);

