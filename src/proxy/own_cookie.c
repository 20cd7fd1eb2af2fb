#include "proxy/own_cookie.h"
#include "proxy/exchange.h"

#define HOST_PREFIX "__Host-"

/* Browsers tell names apart by case; what reads them behind us may not. */
static bool is_own(struct str pair, struct str prefix)
{
	const struct str host = STR(HOST_PREFIX);
	struct str name = str_trim(pair);

	if (name.n > host.n && str_equal_nocase((struct str){ name.p, host.n }, host))
		name = (struct str){ name.p + host.n, name.n - host.n };
	return name.n >= prefix.n && str_equal_nocase((struct str){ name.p, prefix.n }, prefix);
}

static bool has_own(struct str line, struct str prefix)
{
	struct str pair;

	while (str_split(&line, ';', &pair))
		if (is_own(pair, prefix))
			return true;
	return false;
}

/* The other pairs of the line; absent when none is left. */
static struct str without_own(struct arena *a, struct str line, struct str prefix)
{
	char *out = arena_take(a, 2 * line.n + 2), *end = out;
	struct str pair;

	while (str_split(&line, ';', &pair)) {
		pair = str_trim(pair);
		if (pair.n == 0 || is_own(pair, prefix))
			continue;
		end = str_put(end, pair);
		*end++ = ';';
		*end++ = ' ';
	}
	return end > out ? (struct str){ out, (size_t)(end - out) - 2 } : (struct str){ NULL, 0 };
}

static void take_line(struct exchange *x, struct header *h, struct str prefix)
{
	if (!x->own_cookies) {
		x->own_cookies = NEW(&x->arena, struct message);
		x->own_cookies->arena = &x->arena;
	}
	message_add_id(x->own_cookies, HEADER_COOKIE, h->value);
	h->value = without_own(&x->arena, h->value, prefix);
	h->is_line = false;
	h->dropped = !h->value.p;
}

void own_cookies_take(struct exchange *x)
{
	const struct str prefix = x->view->snapshot->own_cookies;
	struct message *req = &x->stream.req;

	if (!(req->present >> HEADER_COOKIE & 1))
		return;
	for (unsigned i = 0; i < req->n; i++) {
		struct header *h = &req->headers[i];

		if (h->id == HEADER_COOKIE && !h->dropped && has_own(h->value, prefix))
			take_line(x, h, prefix);
	}
}

const struct message *exchange_own_cookies(const struct exchange *x)
{
	static const struct message none;

	return x->own_cookies ? x->own_cookies : &none;
}
