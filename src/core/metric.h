/*
 * metric.h -- counters, gauges and histograms, written without contention and read by the scrape.
 *
 * A family is a row of metrics.def: name, kind, unit, label names, help. A series is a family with label values, made
 * (or found) by metric_series() and kept by reference; each thread adds to its own slot, so a count is one relaxed
 * store on a line nobody else writes. A thread without a slot pays an atomic add. Names follow the Prometheus
 * conventions, but for those that other products gave them.
 */
#pragma once
#include <stdint.h>
#include "core/str.h"

enum metric_id {
#define METRIC(id, name, kind, labels, help) METRIC_##id,
#include "core/metrics.def"
#undef METRIC
	METRIC_COUNT
};
enum metric_kind {
	METRIC_COUNTER, METRIC_GAUGE, METRIC_HISTOGRAM,
	METRIC_BY_CLASS,                           /* a counter for each status class, which is its last label */
	METRIC_SECONDS,                            /* a counter in seconds, set in microseconds */
	METRIC_TOKENS,                             /* a histogram of whole numbers */
};

struct series;
void metric_start(unsigned threads);               /* slots; before any other call */
void metric_thread(unsigned slot);                 /* the calling thread's slot, 0 .. threads-1 */
/*
 * Label values in the family's order, at most 5, copied; NULL for a family without labels. The same values give the
 * same series, each time with one more hold on it. Any thread; it may wait for another one for a few microseconds, so
 * not once for each request: who asks for labels that peers choose keeps the series, and bounds their number.
 */
struct series *metric_series(enum metric_id id, const struct str *values);
/*
 * Gives one hold back. The last one ends the series: it is no longer shown and its memory is used again, so nobody may
 * add to it any more; the same values begin at zero then. Control thread only.
 */
void metric_series_drop(struct series *s);
/*
 * Of a series of METRIC_REQUESTS, which is one of METRIC_REQUEST_SECONDS, METRIC_REQUEST_BYTES and
 * METRIC_RESPONSE_BYTES too: there is one for each route, and four would take far more memory. A thread with a slot.
 */
struct metric_traffic {
	int status;                                /* what is not 100 .. 599 is not counted */
	int64_t us;                                /* -1: nothing to observe */
	int64_t in, out;                           /* bytes */
};
void metric_count_traffic(struct series *s, const struct metric_traffic *t);
void metric_add(struct series *s, int64_t n);      /* counter, or gauge up/down; any thread */
void metric_count_status(struct series *s, int status);    /* METRIC_BY_CLASS; ignores what is not 100 .. 599 */
void metric_set(struct series *s, int64_t v);      /* gauge (set it or add to it), or SECONDS: one for the process */
void metric_observe_us(struct series *s, int64_t us);  /* histogram in seconds, given microseconds */
void metric_observe(struct series *s, int64_t n);  /* TOKENS */
int64_t metric_value(const struct series *s);      /* sum over threads, and over what it counts apart */
void metric_write(struct sbuf *out);               /* Prometheus text format 0.0.4; control thread only */
void metric_manual(struct sbuf *out);              /* Markdown rows: name, kind, labels, meaning; any time */
size_t metric_bytes(void);                         /* of all pages of cells; for tests */
void metric_stop(void);                            /* frees everything, when nobody adds any more */
