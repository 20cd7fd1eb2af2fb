/*
 * compile_series.c -- what is counted of routes, services and endpoints. Names are unique in a gateway, so the gateway
 * stands beside them. Equal names give equal series: what changes goes on counting, what is deleted is gone.
 */
#include "control/compile_state.h"

static const struct str failure_names[] = {
	[CALL_CONNECT] = { "connect", 7 }, [CALL_RESET] = { "reset", 5 }, [CALL_TIMEOUT] = { "timeout", 7 },
	[CALL_MALFORMED] = { "malformed", 9 }, [CALL_TRUNCATED] = { "truncated", 9 },
};
#define N_FAILURES (sizeof failure_names / sizeof failure_names[0])

static const struct {
	enum metric_id family;
	struct str label;                 /* absent: the family has no more */
} counts[SERVICE_COUNTS] = {
	[SERVICE_RETRY_SUCCEEDED] = { METRIC_UPSTREAM_RETRIES, { "succeeded", 9 } },
	[SERVICE_RETRY_FAILED] = { METRIC_UPSTREAM_RETRIES, { "failed", 6 } },
	[SERVICE_RETRY_EXHAUSTED] = { METRIC_RETRIES_DENIED, { "attempts", 8 } },
	[SERVICE_RETRY_BUDGET] = { METRIC_RETRIES_DENIED, { "budget", 6 } },
	[SERVICE_BODY_ABANDONED] = { METRIC_BODIES_ABANDONED, { NULL, 0 } },
	[SERVICE_TIMEOUT_TOTAL] = { METRIC_UPSTREAM_TIMEOUTS, { "total", 5 } },
	[SERVICE_TIMEOUT_TRY] = { METRIC_UPSTREAM_TIMEOUTS, { "try", 3 } },
	[SERVICE_FALLBACKS] = { METRIC_UPSTREAM_FALLBACKS, { NULL, 0 } },
};

void series_drop(struct series *s)
{
	if (s)
		metric_series_drop(s);
}

struct series *traffic_series(struct str gateway, struct str route)
{
	return metric_series(METRIC_REQUESTS, (struct str[]){ gateway, route });
}

void service_open_series(struct service *s, struct str gateway)
{
	const struct str labels[] = { gateway, s->name };

	s->requests = metric_series(METRIC_UPSTREAM_REQUESTS, labels);
	s->seconds = metric_series(METRIC_UPSTREAM_SECONDS, labels);
	s->connects = metric_series(METRIC_UPSTREAM_CONNECTS, labels);
	s->panics = metric_series(METRIC_BALANCE_PANICS, labels);
	s->lane_misses = metric_series(METRIC_LANE_MISSES, labels);
	for (unsigned i = 0; i < N_FAILURES; i++)
		s->failures[i] = metric_series(METRIC_UPSTREAM_FAILURES,
					       (struct str[]){ gateway, s->name, failure_names[i] });
	for (unsigned i = 0; i < SERVICE_COUNTS; i++)
		s->counts[i] = metric_series(counts[i].family, (struct str[]){ gateway, s->name, counts[i].label });
}

void service_close_series(struct service *s)
{
	struct series *const single[] = { s->requests, s->seconds, s->connects, s->panics, s->lane_misses };

	for (unsigned i = 0; i < sizeof single / sizeof single[0]; i++)
		series_drop(single[i]);
	for (unsigned i = 0; i < N_FAILURES; i++)
		series_drop(s->failures[i]);
	for (unsigned i = 0; i < SERVICE_COUNTS; i++)
		series_drop(s->counts[i]);
}

void endpoint_open_series(struct endpoint_cell *cell, struct str gateway, struct str service, struct str text)
{
	const struct str labels[] = { gateway, service, text };

	cell->healthy_series = metric_series(METRIC_ENDPOINT_HEALTHY, labels);
	cell->ejected_series = metric_series(METRIC_EJECTIONS, labels);
	cell->active_series = metric_series(METRIC_ENDPOINT_ACTIVE, labels);
	metric_set(cell->healthy_series, 1);
}

void endpoint_close_series(struct endpoint_cell *cell)
{
	series_drop(cell->healthy_series);
	series_drop(cell->ejected_series);
	series_drop(cell->active_series);
}
