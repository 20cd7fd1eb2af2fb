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

static void append_peer(struct exchange *x)
{
	struct message *req = &x->stream.req;
	struct str peer = x->peer_text;

	if (req->present >> HEADER_X_FORWARDED_FOR & 1) {
		struct str before = message_join(req, STR("x-forwarded-for"));

		if (before.n > 0) {
			char *out = arena_take(&x->arena, before.n + 2 + peer.n);

			memcpy(out, before.p, before.n);
			memcpy(out + before.n, ", ", 2);
			memcpy(out + before.n + 2, peer.p, peer.n);
			message_put_id(req, HEADER_X_FORWARDED_FOR, (struct str){ out, before.n + 2 + peer.n });
			return;
		}
	}
	message_put_id(req, HEADER_X_FORWARDED_FOR, peer);
}

static void set_unless_trusted(struct exchange *x, enum header_id id, struct str value)
{
	struct message *req = &x->stream.req;

	if (x->trusted_peer && message_value(req, id).n > 0)
		return;                    /* said by a hop that is believed */
	message_put_id(req, id, value);
}

void forward_prepare(struct exchange *x)
{
	const struct worker_listener *l = connection_listener(x->stream.connection)->owner;
	struct message *req = &x->stream.req;

	append_peer(x);
	set_unless_trusted(x, HEADER_X_FORWARDED_PROTO, exchange_is_tls(x) ? STR("https") : STR("http"));
	set_unless_trusted(x, HEADER_X_FORWARDED_HOST, x->host);
	set_unless_trusted(x, HEADER_X_FORWARDED_PORT, l->port);
	message_put_id(req, HEADER_X_REAL_IP, x->client_text);
	/* A sane one of the client's is kept where it is. */
	if (!str_equal(message_value(req, HEADER_X_REQUEST_ID), x->request_id))
		message_put_id(req, HEADER_X_REQUEST_ID, x->request_id);
	message_remove_id(req, HEADER_EXPECT);
}
