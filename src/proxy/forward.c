/*
 * forward.c -- who the client is, and what a forwarded request says about it.
 *
 * X-Forwarded-* of a peer that nobody declared trusted are not believed: its For list is passed on with the peer
 * appended (the peer entry is ours and true), Proto, Host and Port are overwritten.
 */
#include "http/address_field.h"
#include "proxy/exchange.h"
#include "proxy/worker.h"

#define HOPS_MAX 64

/*
 * Splits all X-Forwarded-For values into entries, in order, and keeps the last HOPS_MAX: entry i is hops[i %
 * HOPS_MAX]. Only the right end was written by hops that are believed; a client must not push them out by a long list
 * of its own. Returns how many there were.
 */
static unsigned list_hops(const struct message *req, struct str hops[HOPS_MAX])
{
	unsigned n = 0;

	for (const struct header *h = message_find(req, HEADER_X_FORWARDED_FOR); h; h = message_find_next(req, h)) {
		struct str rest = h->value, part;

		while (str_split(&rest, ',', &part))
			hops[n++ % HOPS_MAX] = str_trim(part);
	}
	return n;
}

/* The client by the gateway's trust settings; the peer when anything is missing or odd. */
static struct ip find_client(const struct exchange *x, const struct trust *trust)
{
	struct str hops[HOPS_MAX];
	struct ip ip;
	unsigned n = list_hops(&x->stream.req, hops);

	if (trust->proxies) {
		if (!cidr_set_has(trust->proxies, &x->peer_ip))
			return x->peer_ip;
		for (unsigned i = n, least = n > HOPS_MAX ? n - HOPS_MAX : 0; i-- > least;) {
			if (!ip_parse(hops[i % HOPS_MAX], &ip))
				return x->peer_ip;
			if (!cidr_set_has(trust->proxies, &ip))
				return ip;
		}
		return x->peer_ip;
	}
	if (n < trust->xff_trusted_num || !ip_parse(hops[(n - trust->xff_trusted_num) % HOPS_MAX], &ip))
		return x->peer_ip;
	return ip;
}

static struct str print_ip(struct exchange *x, const struct ip *ip)
{
	char *out = arena_take(&x->arena, 46);

	return (struct str){ out, ip_print(ip, out) };
}

void forward_identify(struct exchange *x)
{
	const struct addr *peer = connection_peer(x->stream.connection);
	const struct ip ip = addr_ip(peer);

	forward_identify_peer(x, &ip, addr_port(peer));
}

void forward_identify_peer(struct exchange *x, const struct ip *peer, uint16_t port)
{
	x->peer_ip = *peer;
	x->peer_port = port;
	x->client_ip = x->peer_ip;
	x->client_text = x->peer_text = print_ip(x, &x->peer_ip);
	if (!x->site)
		return;
	const struct trust *trust = &x->site->gateway->trust;
	if (trust->xff_trusted_num == 0 && !trust->proxies)
		return;
	x->trusted_peer = trust->proxies ? cidr_set_has(trust->proxies, &x->peer_ip) : true;
	x->client_ip = find_client(x, trust);
	x->client_text = print_ip(x, &x->client_ip);
}

#define LINES_BYTES 192U                  /* names, separators and line ends of all fields, the protocol and the port */

/* Ends a line of which "name: " is written, up to `out`, and adds it to the message. */
static char *end_line(struct message *req, enum header_id id, const char *line, char *out, struct str value)
{
	message_put_line(req, id, line, value.n);
	return STR_PUT(str_put(out, value), "\r\n");
}
#define PUT_LINE(req, out, id, name, value) end_line((req), (id), (out), STR_PUT((out), name ": "), (value))

/* Said by a hop that is believed. */
static bool is_told(const struct exchange *x, enum header_id id)
{
	return x->trusted_peer && message_value(&x->stream.req, id).n > 0;
}

/* The addresses so far, the peer's behind them. */
static struct str list_addresses(struct exchange *x)
{
	struct message *req = &x->stream.req;
	struct str before = { NULL, 0 };
	char *out;

	if (message_find(req, HEADER_X_FORWARDED_FOR))
		before = message_join(req, STR("x-forwarded-for"));
	if (before.n == 0)
		return x->peer_text;
	out = arena_take(&x->arena, before.n + 2 + x->peer_text.n);
	return (struct str){ out, (size_t)(str_put(STR_PUT(str_put(out, before), ", "), x->peer_text) - out) };
}

void forward_prepare(struct exchange *x)
{
	const struct worker_listener *l = connection_listener(x->stream.connection)->owner;

	if (LIKELY(!x->has_forwarded))
		forward_fields(x, l->port);
}

void exchange_write_forwarded(struct exchange *x)
{
	/* A dry run knows its listener only later; what is edited there is not sent. */
	if (x->has_forwarded || exchange_is_dry(x))
		return;
	forward_prepare(x);
	x->has_forwarded = true;
}

bool header_is_forwarded(enum header_id id)
{
	switch (id) {
	case HEADER_X_FORWARDED_FOR:
	case HEADER_X_FORWARDED_PROTO:
	case HEADER_X_FORWARDED_HOST:
	case HEADER_X_FORWARDED_PORT:
	case HEADER_X_REAL_IP:
	case HEADER_X_REQUEST_ID:
		return true;
	default:
		return false;
	}
}

struct message *exchange_written_addresses(struct exchange *x)
{
	if (!x->written_addresses) {
		x->written_addresses = NEW(&x->arena, struct message);
		x->written_addresses->arena = &x->arena;
	}
	return x->written_addresses;
}

void exchange_hide_addresses(struct exchange *x)
{
	const struct message *written = x->written_addresses;
	struct message *req = &x->stream.req;

	address_fields_remove(req);
	for (unsigned i = 0; written && i < written->n; i++) {
		const struct header *h = &written->headers[i];

		if (!h->dropped)
			message_add_as(req, (enum header_id)h->id, h->name, h->value);
	}
}

/* The lines stand together, so that they are sent in one piece. */
void forward_fields(struct exchange *x, struct str port)
{
	struct message *req = &x->stream.req;
	struct str addresses = list_addresses(x);
	char *out = arena_take(&x->arena, LINES_BYTES + addresses.n + x->host.n + x->client_text.n + x->request_id.n);

	out = PUT_LINE(req, out, HEADER_X_FORWARDED_FOR, "X-Forwarded-For", addresses);
	if (!is_told(x, HEADER_X_FORWARDED_PROTO))
		out = PUT_LINE(req, out, HEADER_X_FORWARDED_PROTO, "X-Forwarded-Proto",
			       exchange_is_tls(x) ? STR("https") : STR("http"));
	if (!is_told(x, HEADER_X_FORWARDED_HOST))
		out = PUT_LINE(req, out, HEADER_X_FORWARDED_HOST, "X-Forwarded-Host", x->host);
	if (!is_told(x, HEADER_X_FORWARDED_PORT))
		out = PUT_LINE(req, out, HEADER_X_FORWARDED_PORT, "X-Forwarded-Port", port);
	out = PUT_LINE(req, out, HEADER_X_REAL_IP, "X-Real-IP", x->client_text);
	/* A sane one of the client's is kept where it is. */
	if (!str_equal(message_value(req, HEADER_X_REQUEST_ID), x->request_id))
		PUT_LINE(req, out, HEADER_X_REQUEST_ID, "X-Request-Id", x->request_id);
	message_remove_id(req, HEADER_EXPECT);
}
