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
static bool is_stream(const struct exchange *x)
{
	struct str type = message_value(&x->res, HEADER_CONTENT_TYPE);

	return x->is_tunnel || is_type(type, STR("text/event-stream")) ||
	       is_type(type, STR("application/grpc"));
}

void outcome_note_head(struct exchange *x)
{
	x->upstream_status = (uint16_t)x->res.status;
	if (x->n_owed > 0)
		x->upstream_streams = is_stream(x);
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
		.is_stream = x->upstream_streams,
		.dispatch_us = x->upstream_start_us,
		.head_us = x->upstream_head_us,
		.end_us = x->upstream_end_us,
	};
}
