/*
 * metric.h -- counters, gauges and histograms, written without contention and read by the scrape.
 *
 * A family is a row of metrics.def: name, kind, unit, label names, help. A series is a family with label values, made
 * (or found) by metric_series() on the control thread and kept by reference; each thread adds to its own slot, so a
 * count is one relaxed add on a line nobody else writes. Names follow the Prometheus conventions.
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
enum metric_kind { METRIC_COUNTER, METRIC_GAUGE, METRIC_HISTOGRAM };

struct series;
void metric_start(unsigned threads);               /* slots; before any other call */
void metric_thread(unsigned slot);                 /* the calling thread's slot, 0 .. threads-1 */
/* Label values in the family's order, at most 5, copied. The same values give the same series. Control thread only. */
struct series *metric_series(enum metric_id id, const struct str *values);
void metric_series_drop(struct series *s);         /* no longer shown; memory stays valid until the process ends or reuse is safe */
void metric_add(struct series *s, int64_t n);      /* counter, or gauge up/down */
void metric_set(struct series *s, int64_t v);      /* gauge: one value for the process */
void metric_observe_us(struct series *s, int64_t us);  /* histogram in seconds, given microseconds */
int64_t metric_value(const struct series *s);      /* sum over threads */
void metric_write(struct sbuf *out);               /* Prometheus text format 0.0.4 */
