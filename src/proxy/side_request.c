/*
 * side_request.c -- what a side call asks: its head made from the caller's lines, and the next one of a redirect.
 *
 * Everything is copied into the call's arena. Lines that belong to a connection or say how a body is framed are made
 * here, so no caller can break the framing.
 */
#include <errno.h>
#include "core/mem.h"
#include "proxy/side_parts.h"

/* Host and framing are made anew; the others belong to one connection (RFC 9110 7.6.1). */
static bool is_ours(struct str name)
{
	switch (header_lookup(name)) {
	case HEADER_HOST:
	case HEADER_CONNECTION:
	case HEADER_CONTENT_LENGTH:
	case HEADER_TRANSFER_ENCODING:
	case HEADER_KEEP_ALIVE:
	case HEADER_PROXY_CONNECTION:
	case HEADER_TE:
	case HEADER_TRAILER:
	case HEADER_UPGRADE:
	case HEADER_EXPECT:
		return true;
	default:
		return false;
	}
}

static void copy_lines(struct side *s, const struct header *lines, unsigned n)
{
	size_t size = 0;
	char *out;

	for (unsigned i = 0; i < n; i++)
		size += lines[i].name.n + lines[i].value.n;
	out = arena_take(&s->arena, size + 1);
	for (unsigned i = 0; i < n; i++) {
		const struct header *h = &lines[i];
		struct str name = { out, h->name.n }, value = { out + h->name.n, h->value.n };

		if (h->dropped || is_ours(h->name))
			continue;
		out = str_put(str_put(out, h->name), h->value);
		message_add(&s->head, name, value);
	}
}

static void set_target(struct message *head, struct str target)
{
	size_t at = str_find(target, '?');

	head->path = (struct str){ target.p, at };
	head->query = (struct str){ NULL, 0 };
	if (at < target.n)
		head->query = (struct str){ target.p + at + 1, target.n - at - 1 };
}

static void frame(struct side *s)
{
	size_t n = s->reader.of ? s->reader.of->n : s->body.n;

	s->head.framing = n > 0 || s->says_length ? FRAMING_LENGTH : FRAMING_NONE;
	s->head.content_length = n;
}

/* At a default port the authority of a URL goes without it, as clients do. */
static bool take_url(struct side *s, struct str text)
{
	struct url url;

	if (!url_parse(text, &url))
		return false;
	s->url = url;
	s->head.authority = url.authority;
	set_target(&s->head, url.target);
	return true;
}

bool side_prepare(struct side *s, const struct side_request *r)
{
	struct message *head = &s->head;

	*head = (struct message){ .arena = &s->arena, .minor = 1, .keep_alive = true };
	head->method_name = r->method.n ? arena_copy(&s->arena, r->method) : STR("GET");
	head->method = method_lookup(head->method_name);
	if (r->url.n && !take_url(s, arena_copy(&s->arena, r->url))) {
		s->call.error = EINVAL;
		s->call.failure = SIDE_BLOCKED;
		return false;
	}
	if (r->target.p)
		set_target(head, arena_copy(&s->arena, r->target));
	else if (!r->url.n)
		set_target(head, STR("/"));
	if (r->authority.n)
		head->authority = arena_copy(&s->arena, r->authority);
	s->tls_host = r->tls_host.n ? arena_copy(&s->arena, r->tls_host) : head->authority;
	copy_lines(s, r->headers, r->n_headers);
	s->kind = r->kind;
	s->body = r->body;
	if (r->retained)
		s->reader.of = retain_hold(r->retained);
	s->says_length = r->says_length;
	s->body_max = r->body_max;
	s->drops_body = r->drops_body;
	s->redirects_left = r->redirects_max;
	s->timeout_ms = r->timeout_ms;
	s->wants_body = r->wants_body;
	s->may_repeat = r->may_repeat;
	frame(s);
	return true;
}

/* ---------- redirects ---------- */

bool side_is_redirect(const struct message *res)
{
	switch (res->status) {
	case 301: case 302: case 303: case 307: case 308:
		return message_value(res, HEADER_LOCATION).n > 0;
	default:
		return false;
	}
}

/* "ftp://x", "mailto:x": a colon before anything that ends a first segment. */
static bool has_scheme(struct str s)
{
	size_t colon = str_find(s, ':');

	return colon < s.n && colon < str_find(s, '/') && colon < str_find(s, '?');
}

/* Location against the URL that was asked for (RFC 3986 5.2, without dot segments: the other side resolves those). */
static struct str resolve(struct side *s, struct str to)
{
	const char *scheme = s->url.is_https ? "https" : "http";
	struct str dir = s->url.target;

	to.n = str_find(to, '#');
	if (has_scheme(to))
		return arena_copy(&s->arena, to);
	if (str_starts(to, STR("//")))
		return arena_printf(&s->arena, "%s:%.*s", scheme, STR_FMT(to));
	dir.n = str_find(dir, '?');
	if (str_starts(to, STR("/")))
		dir.n = 0;
	else if (!str_starts(to, STR("?")))
		while (dir.n > 0 && dir.p[dir.n - 1] != '/')
			dir.n--;
	return arena_printf(&s->arena, "%s://%.*s%.*s%.*s", scheme, STR_FMT(s->url.authority), STR_FMT(dir),
			    STR_FMT(to));
}

/* What is meant for one host is not told to another one. */
static void forget_secrets(struct message *head)
{
	message_remove_id(head, HEADER_AUTHORIZATION);
	message_remove_id(head, HEADER_PROXY_AUTHORIZATION);
	message_remove_id(head, HEADER_COOKIE);
}

static void ask_without_body(struct side *s)
{
	s->head.method = METHOD_GET;
	s->head.method_name = STR("GET");
	s->body = (struct str){ NULL, 0 };
	s->head.framing = FRAMING_NONE;
	message_remove_id(&s->head, HEADER_CONTENT_TYPE);
}

bool side_redirect(struct side *s)
{
	const struct message *res = &s->http.res;
	const struct url from = s->url;
	struct str location = str_trim(message_value(res, HEADER_LOCATION));

	/* A relative one ends in what the peer wrote: url_parse() judges every byte of it. */
	if (location.n > 2048 || s->redirects_left == 0 || s->endpoint || s->reader.of)
		return false;
	s->redirects_left--;
	if (!take_url(s, resolve(s, location)) || s->url.is_https != from.is_https)
		return false;
	if (!str_equal_nocase(from.authority, s->url.authority))
		forget_secrets(&s->head);
	if (res->status == 303 || (res->status < 303 && s->head.method == METHOD_POST))
		ask_without_body(s);
	return true;
}
