/*
 * server_shed.c -- which connections go when descriptors or memory run out.
 *
 * For a descriptor: first what the owner can spare (idle upstream connections), then a client connection without a
 * request, then one whose head has been coming for a while. For memory: the connection that holds most; of equals the
 * youngest.
 */
#include "core/clock.h"
#include "http/server_connection.h"

enum {
	LOOKED_AT = 256,                   /* connections in one search */
	FRESH_MS = 1000,                   /* so long a connection without a request is given the chance to bring one */
};

void server_tell_shed(struct server *s, enum server_shed what)
{
	if (s->ops->shed)
		s->ops->shed(s, what);
}

/* Nothing would be lost but a head that is not complete yet. */
static bool may_go(const struct server_connection *c)
{
	bool is_partial = c->protocol == &h1_protocol && c->state == CONNECTION_HEAD && !c->stream &&
			  output_is_empty(&c->out);

	return (is_partial || c->protocol->is_idle(c)) && clock_ms() >= c->since_ms + FRESH_MS;
}

/* Those that stay go to the end of the list, so that the next search looks at others: about the oldest go first. */
static bool close_idle(struct server *s)
{
	struct server_connection *partial = NULL;

	for (int i = 0; i < LOOKED_AT && !list_is_empty(&s->connections); i++) {
		struct server_connection *c = CONTAINER(s->connections.next, struct server_connection, node);
		bool goes;

		output_settle(&c->out);
		goes = may_go(c);
		list_remove(&c->node);
		list_append(&s->connections, &c->node);
		if (goes && c->protocol->is_idle(c)) {
			connection_close(c);
			return true;
		}
		if (goes && !partial)
			partial = c;
	}
	if (partial)
		connection_close(partial);
	return partial != NULL;
}

bool server_make_room(struct server *s)
{
	if (s->ops->make_room && s->ops->make_room(s) > 0)
		return true;
	/* Whoever drains walks through the list. */
	if (s->is_draining || !close_idle(s))
		return false;
	server_tell_shed(s, SHED_IDLE);
	return true;
}

static size_t held(const struct server_connection *c)
{
	size_t n = c->out.cap + c->in_cap + (c->stream ? arena_size(c->stream->arena) : 0);

	return n + (c->protocol->held ? c->protocol->held(c) : 0);
}

bool server_close_largest(struct server *s)
{
	struct server_connection *largest = NULL;
	size_t most = 0;

	LIST_EACH(node, &s->connections) {
		struct server_connection *c = CONTAINER(node, struct server_connection, node);

		if (held(c) > 0 && held(c) >= most) {
			most = held(c);
			largest = c;
		}
	}
	if (!largest)
		return false;
	largest->is_aborted = true;
	connection_close(largest);
	server_tell_shed(s, SHED_HOLDER);
	return true;
}
