/*
 * h2_client_connect.c -- HTTP/2 on the upstream side: an upgrade becomes an extended CONNECT (RFC 8441).
 *
 * It must not be sent before the upstream's SETTINGS have offered it, so its head waits for them. Nothing left of here
 * knows of it: the answer 2xx becomes the 101 that an upstream of HTTP/1.1 would have sent, with the Accept that the
 * client of an upgrade expects.
 */
#include <nghttp2/nghttp2.h>
#include <errno.h>
#include "core/crypto.h"
#include "http/h2_client.h"
#include "http/h2_session.h"

#define WEBSOCKET_GUID "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"      /* RFC 6455 1.3 */

/* Sec-WebSocket-Accept for the key of that request; absent when it has none. */
static struct str make_accept(const struct message *head)
{
	const struct header *key = message_find_name(head, STR("sec-websocket-key"));
	uint8_t digest[20];

	if (!key)
		return (struct str){ NULL, 0 };
	crypto_sha1(arena_printf(head->arena, "%.*s" WEBSOCKET_GUID, STR_FMT(str_trim(key->value))), digest);
	return crypto_base64(head->arena, (struct str){ (const char *)digest, sizeof digest });
}

static void begin(struct h2_upstream *u, struct h2_call *s)
{
	const struct message *head = s->waiting;

	s->waiting = NULL;
	if (nghttp2_session_get_remote_settings(u->base.ng, NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL) != 1) {
		h2_call_fail(s, CALL_MALFORMED, EPROTONOSUPPORT);
		h2_call_free(s);
		return;
	}
	s->accept = make_accept(head);
	if (h2_submit_request(&u->base, &s->base, head, true, u->transport.tls != NULL) != 0) {
		h2_call_fail(s, CALL_RESET, EPROTO);
		h2_call_free(s);
		h2_upstream_retire(u);
	}
}

void h2_client_begin_waiting(struct h2_upstream *u)
{
	u->has_waiting = false;
	LIST_EACH(node, &u->streams) {
		struct h2_call *s = CONTAINER(node, struct h2_call, node);

		if (s->waiting && s->call)
			begin(u, s);
	}
}

void h2_client_take_over(struct h2_call *s)
{
	struct call *call = s->call;
	struct message *res = &call->res;

	res->status = 101;
	res->framing = FRAMING_NONE;
	res->length_known = false;
	res->has_upgrade = true;
	res->upgrade = call->upgrade;
	message_remove(res, STR("sec-websocket-accept"));
	if (s->accept.n)
		message_add(res, STR("Sec-WebSocket-Accept"), s->accept);
	call->is_tunnel = true;
	call->request_done = false;
}
