/*
 * forward.c -- who the client is, and what a forwarded request says about it.
 *
 * X-Forwarded-* of a peer that nobody declared trusted are not believed: its For list is passed on with the peer
 * appended (the peer entry is ours and true), Proto, Host and Port are overwritten.
 */
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

	x->peer_ip = addr_ip(peer);
	x->peer_port = addr_port(peer);
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

/* Appends "name: value" CRLF to the block of lines and to the message. */
static char *put_line(struct message *req, char *out, enum header_id id, struct str value)
{
	char *end = str_put(STR_PUT(str_put(out, header_name(id)), ": "), value);

	message_put_line(req, id, out, value.n);
	return STR_PUT(end, "\r\n");
}

static char *put_unless_trusted(struct exchange *x, char *out, enum header_id id, struct str value)
{
	struct message *req = &x->stream.req;

	if (x->trusted_peer && message_value(req, id).n > 0)
		return out;                /* said by a hop that is believed */
	return put_line(req, out, id, value);
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

/* The lines stand together, so that they are sent in one piece. */
void forward_prepare(struct exchange *x)
{
	const struct worker_listener *l = connection_listener(x->stream.connection)->owner;
	struct message *req = &x->stream.req;
	struct str addresses = list_addresses(x);
	char *out = arena_take(&x->arena, LINES_BYTES + addresses.n + x->host.n + x->client_text.n + x->request_id.n);

	out = put_line(req, out, HEADER_X_FORWARDED_FOR, addresses);
	out = put_unless_trusted(x, out, HEADER_X_FORWARDED_PROTO, exchange_is_tls(x) ? STR("https") : STR("http"));
	out = put_unless_trusted(x, out, HEADER_X_FORWARDED_HOST, x->host);
	out = put_unless_trusted(x, out, HEADER_X_FORWARDED_PORT, l->port);
	out = put_line(req, out, HEADER_X_REAL_IP, x->client_text);
	/* A sane one of the client's is kept where it is. */
	if (!str_equal(message_value(req, HEADER_X_REQUEST_ID), x->request_id))
		put_line(req, out, HEADER_X_REQUEST_ID, x->request_id);
	message_remove_id(req, HEADER_EXPECT);
}
