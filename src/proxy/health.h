/*
 * health.h -- active probes of endpoints, and outlier detection from traffic. Results live in endpoint cells, so
 * every worker sees them.
 *
 * One prober, on worker 0, probes for the whole process: TCP connects or HTTP GETs (2xx and 3xx are good). An
 * endpoint changes its state after healthyThreshold or unhealthyThreshold equal results in a row; a new endpoint is
 * used until it failed.
 */
#pragma once
#include "proxy/snapshot.h"

struct worker;
struct prober;
struct prober *prober_new(struct worker *w);
void prober_adopt(struct prober *p, const struct snapshot *s);    /* the services may have changed */
void prober_free(struct prober *p);
