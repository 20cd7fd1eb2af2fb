#include "policy/oidc_cookie.h"
#include "core/crypto.h"

#define LOGIN_PREFIX OIDC_COOKIES "st_"
#define HOST_PREFIX "__Host-"
#define ID_CHARACTERS 8
#define LOGIN_DIGITS 16

static bool is_name_character(char c)
{
	return (c >= '0' && c <= '9') || (str_lower(c) >= 'a' && str_lower(c) <= 'z') || c == '_';
}

struct str oidc_session_name(struct arena *a, struct str policy_id, bool is_secure)
{
	char text[ID_CHARACTERS];
	size_t dash = str_find(policy_id, '-');
	struct str rest = policy_id;
	size_t n;

	if (dash < policy_id.n)
		rest = (struct str){ policy_id.p + dash + 1, policy_id.n - dash - 1 };
	n = rest.n < ID_CHARACTERS ? rest.n : ID_CHARACTERS;
	for (size_t i = 0; i < n; i++)
		text[i] = is_name_character(rest.p[i]) ? rest.p[i] : '_';
	return arena_printf(a, "%s" OIDC_COOKIES "%.*s", is_secure ? HOST_PREFIX : "", (int)n, text);
}

struct str oidc_login_name(struct arena *a, struct str state)
{
	uint8_t digest[32];
	char hex[LOGIN_DIGITS];

	crypto_sha256(state, digest);
	for (unsigned i = 0; i < LOGIN_DIGITS; i++)
		hex[i] = "0123456789abcdef"[digest[i / 2] >> (i % 2 ? 0 : 4) & 15];
	return arena_printf(a, LOGIN_PREFIX "%.*s", LOGIN_DIGITS, hex);
}

/* ---------- reading ---------- */

static struct str chunk_name(struct arena *a, struct str name, unsigned i)
{
	return arena_printf(a, "%.*s_%u", STR_FMT(name), i);
}

/* "<count>." off the first chunk; 0: there is no such thing. */
static unsigned take_count(struct str *first)
{
	unsigned n;

	if (first->n < 3 || first->p[1] != '.')
		return 0;
	n = (unsigned)(first->p[0] - '0');
	if (n < 2 || n > OIDC_CHUNKS_MAX)
		return 0;
	*first = (struct str){ first->p + 2, first->n - 2 };
	return n;
}

struct str oidc_cookie_read(struct arena *a, const struct message *req, struct str name)
{
	const struct str absent = { NULL, 0 };
	struct str chunks[OIDC_CHUNKS_MAX], whole = message_cookie(req, name);
	char *out, *end;
	unsigned n;

	if (whole.n > 0)
		return whole;
	chunks[0] = message_cookie(req, chunk_name(a, name, 0));
	n = take_count(&chunks[0]);
	for (unsigned i = 0; i < n; i++) {
		if (i > 0)
			chunks[i] = message_cookie(req, chunk_name(a, name, i));
		if (chunks[i].n == 0 || chunks[i].n > OIDC_CHUNK_BYTES)
			return absent;
		whole.n += chunks[i].n;
	}
	if (n == 0)
		return absent;
	out = end = arena_take(a, whole.n + 1);
	for (unsigned i = 0; i < n; i++)
		end = str_put(end, chunks[i]);
	return (struct str){ out, whole.n };
}

/* ---------- writing ---------- */

void oidc_cookie_line(struct oidc_lines *out, struct str name, struct str value, int64_t age_s)
{
	BUG_ON(out->n == OIDC_LINES_MAX);
	out->lines[out->n++] = arena_printf(out->a, "%.*s=%.*s; Path=/; Max-Age=%lld; HttpOnly; SameSite=Lax%s",
					    STR_FMT(name), STR_FMT(value), (long long)(value.n ? age_s : 0),
					    out->is_secure ? "; Secure" : "");
}

static void remove_chunks(struct oidc_lines *out, struct str name, unsigned from)
{
	for (unsigned i = from; i < OIDC_CHUNKS_MAX; i++) {
		const struct str chunk = chunk_name(out->a, name, i);

		if (message_cookie(out->req, chunk).p)
			oidc_cookie_line(out, chunk, STR(""), 0);
	}
}

bool oidc_cookie_write(struct oidc_lines *out, struct str name, struct str text)
{
	const size_t room = OIDC_CHUNK_BYTES - 2;
	unsigned n = (unsigned)((text.n + room - 1) / room);

	if (text.n <= OIDC_CHUNK_BYTES) {
		oidc_cookie_line(out, name, text, OIDC_SESSION_AGE_S);
		remove_chunks(out, name, 0);
		return true;
	}
	if (n > OIDC_CHUNKS_MAX)
		return false;
	for (unsigned i = 0; i < n; i++) {
		struct str part = { text.p + i * room, i + 1 < n ? room : text.n - i * room };

		if (i == 0)
			part = arena_printf(out->a, "%u.%.*s", n, STR_FMT(part));
		oidc_cookie_line(out, chunk_name(out->a, name, i), part, OIDC_SESSION_AGE_S);
	}
	remove_chunks(out, name, n);
	if (message_cookie(out->req, name).p)
		oidc_cookie_line(out, name, STR(""), 0);
	return true;
}

void oidc_cookie_clear(struct oidc_lines *out, struct str name)
{
	oidc_cookie_line(out, name, STR(""), 0);
	remove_chunks(out, name, 0);
}

/* ---------- all of them ---------- */

static bool starts_with(struct str s, const char *prefix)
{
	return str_starts(s, str_of(prefix));
}

static struct str pair_name(struct str pair)
{
	return str_trim((struct str){ pair.p, str_find(pair, '=') });
}

unsigned oidc_login_cookies(const struct message *req, struct oidc_login_cookie *out, unsigned max)
{
	unsigned n = 0;

	for (const struct header *h = message_find(req, HEADER_COOKIE); h; h = message_find_next(req, h)) {
		struct str rest = h->value, pair;

		while (str_split(&rest, ';', &pair)) {
			const struct str name = pair_name(pair);
			size_t value = str_find(pair, '=') + 1;

			if (n == max)
				return n;
			if (value > pair.n || name.n != sizeof LOGIN_PREFIX - 1 + LOGIN_DIGITS ||
			    !starts_with(name, LOGIN_PREFIX) || !header_is_token(name))
				continue;
			out[n++] = (struct oidc_login_cookie){
				name, str_trim((struct str){ pair.p + value, pair.n - value })
			};
		}
	}
	return n;
}
