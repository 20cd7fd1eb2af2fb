/*
 * ai_metrics.h -- what AiStatistics counts: tokens and durations by route, service, model and consumer.
 *
 * Models are named by clients and upstreams. So combinations of labels are bounded: what comes after the last one
 * counts as "other", and a model that no answer was had of is "other" unless it is known already.
 */
#pragma once
#include "core/str.h"

#define AI_LABEL_MAX 128                  /* bytes of a value of a label; likewise in the record */

struct ai_measure {
	struct str route, service, consumer;      /* absent: none */
	struct str model;                 /* as the answer says; else as the request does */
	struct str request_model, response_model; /* response_model absent: there was no answer */
	struct str operation, provider;
	bool is_answered;                 /* with success: the model exists */
	bool has_usage, is_stream;
	int64_t input, output, total;
	int64_t service_us;               /* to the last byte */
	int64_t first_token_us;           /* 0 = no content, or no stream */
	int64_t token_us;                 /* between two tokens; 0 = not known */
};

/* Any thread. max_series: how many combinations there may be before this one. */
void ai_metrics_count(const struct ai_measure *m, size_t max_series);
void ai_metrics_count_status(int status);         /* 0: none */
void ai_metrics_count_estimate(void);
/* Control thread, before the others: series without labels are there from the start. */
void ai_metrics_open(void);
/* A value as labels and records show it: cut, and what is not printable replaced. `out`: AI_LABEL_MAX bytes. */
struct str ai_label(struct str value, char *out);
