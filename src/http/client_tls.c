/*
 * client_tls.c -- TLS on the upstream side: which connections are kept apart, and handshakes.
 *
 *      pool of an endpoint ──► lanes ──► lane (identity, name) ──► its own pool of connections, its session
 *
 * A call with TLS finds its connection in the lane of its identity and name only, so a connection that was made and
 * verified for one name never carries a request for another one. A lane is there while it has a connection or a
 * session; the one used longest ago goes when there are too many. A name that no certificate bears leaves nothing.
 */
#include <errno.h>
#include <string.h>
#include "core/map.h"
#include "core/mem.h"
#include "http/client_connection.h"

enum {
	LANES_MAX = 256,                          /* of one endpoint on one thread */
	NAME_BYTES = 256,
	STEPS_PER_TURN = 16,                      /* of handshakes: others are served in between */
};

struct lane {
	struct pool pool;                         /* first: calls know it by this */
	struct list node;                         /* in lanes.recent */
	struct lanes *of;                         /* NULL: it is not found any more */
	struct tls_session session;
	unsigned connections;
	size_t key_n;
	char key[];
};

struct lanes {
	struct list node;                         /* in client.lanes */
	struct pool *pool;                        /* whose they are */
	struct client *client;
	struct map by_key;
	struct list recent;                       /* of struct lane, newest first */
	unsigned n;
};

/* ---------- lanes ---------- */

static void unlink_lane(struct lane *l)
{
	if (!l->of)
		return;
	map_remove(&l->of->by_key, (struct str){ l->key, l->key_n });
	l->of->n--;
	l->of = NULL;
	list_remove(&l->node);
}

static void free_unused(struct lane *l)
{
	if (l->connections > 0 || (l->of && tls_session_is_there(&l->session)))
		return;
	unlink_lane(l);
	tls_session_free(&l->session);
	mem_free(l);
}

void lane_join(struct lane *l)
{
	if (l)
		l->connections++;
}

void lane_leave(struct lane *l)
{
	if (!l)
		return;
	l->connections--;
	free_unused(l);
}

bool lane_is_open(const struct lane *l)
{
	return !l || l->of;
}

/* Not found any more, its idle connections closed; those that are busy end with their calls. */
static void close_lane(struct lane *l)
{
	l->connections++;
	unlink_lane(l);
	pool_close_own(&l->pool);
	lane_leave(l);
}

static void free_lanes(struct lanes *all)
{
	LIST_EACH(node, &all->recent)
		close_lane(CONTAINER(node, struct lane, node));
	map_free(&all->by_key);
	list_remove(&all->node);
	all->pool->lanes = NULL;
	mem_free(all);
}

void lanes_close(struct pool *p)
{
	if (p->lanes)
		free_lanes(p->lanes);
}

void client_free_lanes(struct client *client)
{
	LIST_EACH(node, &client->lanes)
		free_lanes(CONTAINER(node, struct lanes, node));
}

static struct lanes *lanes_of(struct client *client, struct pool *p)
{
	struct lanes *all = p->lanes;

	if (all)
		return all;
	all = p->lanes = MEM_NEW(struct lanes);
	all->pool = p;
	all->client = client;
	list_init(&all->recent);
	list_append(&client->lanes, &all->node);
	return all;
}

static struct lane *new_lane(struct str key, unsigned most_idle)
{
	struct lane *l = mem_alloc(sizeof *l + key.n);

	*l = (struct lane){ .key_n = key.n, .pool.most_idle = most_idle };
	list_init(&l->node);
	memcpy(l->key, key.p, key.n);
	return l;
}

/* Number of the identity, then the name in lower case, or the address behind a zero byte. */
static struct str make_key(const struct call *call, char out[8 + NAME_BYTES])
{
	struct str name = call->server_name;
	struct ip ip = addr_ip(&call->addr);

	memcpy(out, &call->tls->number, 8);
	if (name.n == 0 || name.n > NAME_BYTES) {
		out[8] = '\0';
		memcpy(out + 9, ip.bytes, sizeof ip.bytes);
		return (struct str){ out, 9 + sizeof ip.bytes };
	}
	for (size_t i = 0; i < name.n; i++)
		out[8 + i] = str_lower(name.p[i]);
	return (struct str){ out, 8 + name.n };
}

struct pool *lane_find(const struct call *call)
{
	char text[8 + NAME_BYTES];
	struct str key;
	struct lanes *all;
	struct lane *l;

	if (!call->pool || call->takes_any_name || call->server_name.n > NAME_BYTES)
		return NULL;
	key = make_key(call, text);
	/* Nothing is kept of an endpoint that is not configured any more. */
	if (call->pool_closed && __atomic_load_n(call->pool_closed, __ATOMIC_RELAXED))
		return &new_lane(key, 0)->pool;
	all = lanes_of(call->client, call->pool);
	l = map_get(&all->by_key, key);
	if (l) {
		list_remove(&l->node);
	} else {
		if (all->n == LANES_MAX)
			close_lane(CONTAINER(all->recent.prev, struct lane, node));
		l = new_lane(key, call->pool->most_idle);
		l->of = all;
		map_put(&all->by_key, (struct str){ l->key, l->key_n }, l);
		all->n++;
	}
	list_push(&all->recent, &l->node);
	return &l->pool;
}

struct lane *lane_of(const struct call *call)
{
	return call->tls && call->within ? CONTAINER(call->within, struct lane, pool) : NULL;
}

/* ---------- handshakes ---------- */

static enum tls_alpn alpn_of(const struct call *call)
{
	if (call->over_h2)
		return TLS_ALPN_H2;
	return call->is_tunnel ? TLS_ALPN_NONE : TLS_ALPN_HTTP1;
}

bool client_can_secure(struct call *call)
{
	if (call->tls->context)
		return true;
	call->tls_failure = TLS_CLIENT_UNUSABLE;
	call->tls_text = call->tls->trouble;
	if (call->client->handshake_ended)
		call->client->handshake_ended(&(struct handshake){
			&call->addr, call->server_name, TLS_CLIENT_UNUSABLE, call->tls_text, false });
	return false;
}

void client_secure(const struct call *call, struct transport *t)
{
	struct lane *lane = lane_of(call);

	t->tls = tls_connect(t->fd, &(struct tls_connect){
		.client = call->tls, .server_name = call->server_name, .address = addr_ip(&call->addr),
		.takes_any_name = call->takes_any_name, .alpn = alpn_of(call), .session = lane ? &lane->session : NULL,
	});
}

bool client_may_shake(struct client *client)
{
	if (client->handshake_turn != loop_turn(client->loop)) {
		client->handshake_turn = loop_turn(client->loop);
		client->handshake_steps = 0;
	}
	return client->handshake_steps++ < STEPS_PER_TURN;
}

enum tls_result client_shake_hands(const struct client *client, const struct transport *t, bool is_eof)
{
	enum tls_result result;

	outbox_flush(client->outbox);      /* nobody's message waits for our arithmetic */
	result = tls_handshake(t->tls);
	/* One step reads once; of an end that came with the last bytes no other edge will tell. */
	if (result == TLS_WAITS && is_eof)
		result = tls_handshake(t->tls);
	if (result == TLS_DONE && client->handshake_ended)
		client->handshake_ended(&(struct handshake){
			NULL, tls_client_name(t->tls), TLS_CLIENT_NONE, "", tls_is_resumed(t->tls) });
	return result;
}

struct handshake client_failed_handshake(const struct client *client, const struct transport *t, const struct addr *to,
					 int error)
{
	struct handshake h = { to, tls_client_name(t->tls), tls_client_failure(t->tls),
			       tls_client_failure_text(t->tls), false };

	if (error == ETIMEDOUT) {
		h.failure = TLS_CLIENT_TIMEOUT;
		h.text = "the handshake took too long";
	} else if (error == EPROTONOSUPPORT) {
		h.failure = TLS_CLIENT_ALPN;
		h.text = "the upstream did not choose h2";
	}
	if (client->handshake_ended)
		client->handshake_ended(&h);
	return h;
}
