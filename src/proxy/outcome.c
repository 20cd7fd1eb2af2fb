/*
 * outcome.c -- what became of the upstream exchange, for policies that keep count of it.
 *
 * The head is noted before policies shape it. Nothing is looked at for an exchange whose steps do not ask.
 */
#include "proxy/exchange.h"

static bool is_type(struct str value, struct str type)
{
	return value.n >= type.n && str_equal_nocase((struct str){ value.p, type.n }, type);
}

/* Lasts as long as its peers want, so how long it took says nothing. */
bool outcome_is_stream(const struct exchange *x)
{
	struct str type = message_value(&x->res, HEADER_CONTENT_TYPE);

	return x->is_tunnel || is_type(type, STR("text/event-stream")) ||
	       is_type(type, STR("application/grpc"));
}

void outcome_note_head(struct exchange *x)
{
	x->upstream_status = (uint16_t)x->res.status;
	if (x->n_owed > 0)
		x->upstream_streams = outcome_is_stream(x);
}

static enum outcome_end end_of(const struct exchange *x)
{
	if (x->upstream_failed)
		return OUTCOME_COMPLETE;
	if (x->end == STREAM_CLIENT_GONE && (x->was_open || x->upstream_status == 0))
		return OUTCOME_CLIENT_GONE;
	return x->end == STREAM_ABORTED && x->upstream_status ? OUTCOME_CUT : OUTCOME_COMPLETE;
}

struct upstream_outcome exchange_outcome(const struct exchange *x)
{
	enum outcome_from from = x->upstream_failed ? OUTCOME_FAILURE
				 : x->upstream_status ? OUTCOME_UPSTREAM : OUTCOME_LOCAL;

	return (struct upstream_outcome){
		.from = from,
		.end = end_of(x),
		.status = x->upstream_status,
		.is_over = !x->call_open,
		.is_stream = x->upstream_streams,
		.dispatch_us = x->upstream_start_us,
		.head_us = x->upstream_head_us,
		.end_us = x->upstream_end_us,
	};
}

static int64_t timeout_of(const struct service *s)
{
	return s->policies->settings.has_timeout ? s->policies->settings.timeout_ms : 0;
}

int64_t exchange_timeout_ms(const struct exchange *x)
{
	const struct settings *own = &x->route->policies->settings;
	int64_t longest = 0;

	if (own->has_timeout)
		return own->timeout_ms;
	if (x->service)
		return timeout_of(x->service);
	for (unsigned i = 0; i < x->route->n_targets; i++) {
		const struct target *t = &x->route->targets[i];
		struct part *p = pmap_get_hashed(x->view->snapshot->services, t->service_id, t->hash);
		int64_t timeout_ms = p ? timeout_of(CONTAINER(p, struct service, part)) : 0;

		longest = timeout_ms > longest ? timeout_ms : longest;
	}
	return longest;
}
