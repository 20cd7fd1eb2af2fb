/*
 * tunnel.c -- exchanges whose bytes are passed on as they are: after an upgrade, and of TCP gateways.
 *
 * The pump is that of every body: what one side sends goes to the other side's output; what is backed up there pauses
 * the source. Each direction ends alone. The exchange ends when both have (the server closes the stream), when either
 * side breaks, or when nothing went through either way for upstream_idle_ms (the call's own timer sees both).
 */
#include <errno.h>
#include "core/crypto.h"
#include "core/log.h"
#include "proxy/exchange.h"
#include "proxy/overload.h"
#include "proxy/router.h"
#include "proxy/secure.h"
#include "proxy/worker.h"

/* ---------- upgrades ---------- */

static struct str upgrade_of(const struct exchange *x)
{
	const struct message *req = &x->stream.req;

	/*
	 * Only what is known to be safe to pass on: h2c would open a second way past routes and policies, and a body
	 * before the switch has no use.
	 */
	if (!req->has_upgrade || req->method != METHOD_GET || req->framing != FRAMING_NONE ||
	    !str_equal_nocase(req->upgrade.n ? req->upgrade : message_upgrade(req), STR("websocket")))
		return (struct str){ NULL, 0 };
	return STR("websocket");
}

void tunnel_prepare(struct exchange *x)
{
	struct message *req = &x->stream.req;
	uint32_t key[4];

	/* HTTP/2 has no handshake of its own (RFC 8441 5); an HTTP/1 upstream waits for one. */
	if (req->upgrade.n && !x->call.over_h2 && !message_find_name(req, STR("sec-websocket-key"))) {
		for (int i = 0; i < 4; i++)
			key[i] = worker_random(x->worker);
		message_add(req, STR("Sec-WebSocket-Key"),
			    crypto_base64(&x->arena, (struct str){ (const char *)key, sizeof key }));
	}
	req->upgrade = upgrade_of(x);
}

/* ---------- TCP gateways ---------- */

/* The route that a GET of "/" would take. */
static const struct route *find_route(struct exchange *x)
{
	struct message req = { .arena = &x->arena, .method = METHOD_GET, .path = STR("/") };

	return router_match(x->view->snapshot, x->site, &req, (struct str){ NULL, 0 });
}

static bool is_admitted(const struct exchange *x, bool has_listener)
{
	/* The gateway's own lists acted at accept, unless it shares the listener. */
	return (has_listener || exchange_accepts(x->site->gateway->policies, &x->peer_ip)) &&
	       exchange_accepts(x->site->domain_policies, &x->peer_ip) &&
	       (!x->route || exchange_accepts(x->route->policies, &x->peer_ip));
}

/* Closes without a byte. */
static void turn_away(struct exchange *x, enum reason_id reason)
{
	x->reason = reason;
	stream_abort(&x->stream);
}

void tunnel_begin(struct stream *s, struct str server_name)
{
	struct exchange *x = CONTAINER(s, struct exchange, stream);
	const struct worker_listener *l = connection_listener(s->connection)->owner;

	x->is_tcp = x->is_tunnel = true;
	x->phase = EXCHANGE_UPSTREAM;
	if (connection_tls(s->connection))
		x->tls_record = secure_record(x);
	x->host = server_name;
	x->request_id = exchange_make_id(x);
	x->site = l->binding ? router_site(l->binding, server_name) : NULL;
	if (x->site)
		x->route = find_route(x);
	forward_identify(x);
	/* No byte is read before there is somebody to have it: until drained() says that the upstream is there. */
	stream_pause(s);
	if (overload_judge(worker_overload(x->worker)) != OVERLOAD_NO)
		turn_away(x, REASON_OVERLOADED);
	else if (!x->site)
		turn_away(x, REASON_NO_GATEWAY);
	else if (!is_admitted(x, l->binding->only != NULL))
		turn_away(x, REASON_IP_DENIED);
	else if (!secure_admits_tunnel(x))
		turn_away(x, REASON_CLIENT_UNPROVEN);
	else if (!x->route)
		turn_away(x, REASON_NO_ROUTE);
	else if (!exchange_find_service(x))
		turn_away(x, REASON_NO_SERVICE);
	else
		exchange_start_call(x);
}

/* ---------- ends ---------- */

/* That endpoint works as well as before: nothing is held against it. */
void tunnel_refused(struct exchange *x)
{
	exchange_end_try(x);
	exchange_end_call(x);
	log_warn("upstream.no_websocket", F_STR("service", x->service->name), F_STR("endpoint", x->endpoint->text),
		 F_STR("requestId", x->request_id));
	pipeline_abort(x);
	exchange_reply_reason(x, 502, REASON_NO_WEBSOCKET, "ErrBadUpstream");
}

void tunnel_failed(struct exchange *x, enum call_failure what, int error)
{
	exchange_end_call(x);
	x->reason = what == CALL_TRUNCATED && error == ETIMEDOUT ? REASON_TUNNEL_IDLE : REASON_UPSTREAM_TRUNCATED;
	stream_abort(&x->stream);
}
