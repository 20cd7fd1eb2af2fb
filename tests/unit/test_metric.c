/* test_metric.c -- sums over threads, and the text that is scraped, byte for byte.
 * Run with -DSLUICE_SANITIZE=thread too: cells are read while they are written. room: core */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>
#include "core/metric.h"
#include "core/thread.h"

enum { THREADS = 3, TIMES = 20000 };

static int start(void **state)
{
	(void)state;
	metric_start(THREADS);
	return 0;
}

static int stop(void **state)
{
	(void)state;
	metric_stop();
	return 0;
}

static void assert_written(const char *expected)
{
	struct sbuf out = { 0 };

	SBUF_LIT(&out, "");
	metric_write(&out);
	assert_string_equal(out.p, expected);
	sbuf_free(&out);
}

static void test_same_values_same_series(void **state)
{
	const struct str a[] = { STR("gw"), STR("r1") }, b[] = { STR("gw"), STR("r2") };
	struct series *s = metric_series(METRIC_REQUESTS, a);

	(void)state;
	assert_ptr_equal(metric_series(METRIC_REQUESTS, a), s);
	assert_ptr_not_equal(metric_series(METRIC_REQUESTS, b), s);
	assert_ptr_not_equal(metric_series(METRIC_CONNECTIONS, NULL), metric_series(METRIC_CONNECTIONS_TOTAL, NULL));
}

static void test_writes_counters_and_gauges(void **state)
{
	const struct str labels[] = { STR("gw"), STR("a\"b\\c\nd"), STR("h\xc3\xa9") };
	const struct str broken[] = { STR("gw"), STR("x\xff"), STR("") };
	struct series *failures = metric_series(METRIC_UPSTREAM_FAILURES, labels);
	struct series *version = metric_series(METRIC_SNAPSHOT_VERSION, NULL);

	(void)state;
	metric_series(METRIC_UPSTREAM_FAILURES, broken);
	assert_int_equal(metric_value(failures), 0);
	metric_add(failures, 2);
	metric_thread(1);
	metric_add(failures, 3);
	metric_set(version, 8);
	metric_set(version, -7);
	assert_int_equal(metric_value(failures), 5);
	assert_written("# HELP sluice_upstream_failures_total Attempts that failed before a response, by reason.\n"
		       "# TYPE sluice_upstream_failures_total counter\n"
		       "sluice_upstream_failures_total{gateway=\"gw\",service=\"a\\\"b\\\\c\\nd\","
		       "reason=\"h\xc3\xa9\"} 5\n"
		       "sluice_upstream_failures_total{gateway=\"gw\",service=\"x?\",reason=\"\"} 0\n"
		       "# HELP sluice_snapshot_version Version of the configuration in force.\n"
		       "# TYPE sluice_snapshot_version gauge\n"
		       "sluice_snapshot_version -7\n");
}

static void test_writes_histograms(void **state)
{
	struct series *s = metric_series(METRIC_SNAPSHOT_SECONDS, NULL);
	struct sbuf out = { 0 };

	(void)state;
	metric_observe_us(s, 0);
	metric_observe_us(s, 500);
	metric_observe_us(s, 501);
	metric_observe_us(s, 60000000);
	metric_observe_us(s, 60000001);
	assert_int_equal(metric_value(s), 5);
	metric_write(&out);
	assert_non_null(strstr(out.p, "# TYPE sluice_snapshot_publish_duration_seconds histogram\n"));
	assert_non_null(strstr(out.p, "_seconds_bucket{le=\"0.0005\"} 2\n"));
	assert_non_null(strstr(out.p, "_seconds_bucket{le=\"0.001\"} 3\n"));
	assert_non_null(strstr(out.p, "_seconds_bucket{le=\"30\"} 3\n"));
	assert_non_null(strstr(out.p, "_seconds_bucket{le=\"60\"} 4\n"));
	assert_non_null(strstr(out.p, "_seconds_bucket{le=\"+Inf\"} 5\n"));
	assert_non_null(strstr(out.p, "_seconds_sum 120.001002\n"));
	assert_non_null(strstr(out.p, "_seconds_count 5\n"));
	sbuf_free(&out);
}

static void test_writes_histograms_of_tokens(void **state)
{
	const struct str labels[] = { STR("input"), STR("m"), STR("m"), STR("chat"), STR("p") };
	struct series *s = metric_series(METRIC_AI_TOKEN_USAGE, labels);
	struct sbuf out = { 0 };

	(void)state;
	metric_observe(s, 0);
	metric_observe(s, 1);
	metric_observe(s, 2);
	metric_thread(1);
	metric_observe(s, 67108864);
	metric_observe(s, 67108865);
	assert_int_equal(metric_value(s), 5);
	metric_write(&out);
	assert_non_null(strstr(out.p, "# TYPE gen_ai_client_token_usage histogram\n"));
	assert_non_null(strstr(out.p, "gen_ai_provider_name=\"p\",le=\"1\"} 2\n"));
	assert_non_null(strstr(out.p, "le=\"4\"} 3\n"));
	assert_non_null(strstr(out.p, "le=\"67108864\"} 4\n"));
	assert_non_null(strstr(out.p, "le=\"+Inf\"} 5\n"));
	assert_non_null(strstr(out.p, "gen_ai_client_token_usage_sum{"));
	assert_non_null(strstr(out.p, "} 134217732\n"));
	assert_non_null(strstr(out.p, "} 5\n"));
	sbuf_free(&out);
}

enum { LABEL_SETS = 500 };

static void *make_series_of_models(void *arg)
{
	metric_thread(*(unsigned *)arg);
	for (unsigned i = 0; i < LABEL_SETS; i++) {
		char model[32];
		size_t n = (size_t)snprintf(model, sizeof(model), "model-%u", i);
		const struct str labels[] = { STR("r"), STR("s"), { model, n }, STR("none") };

		metric_add(metric_series(METRIC_AI_TOTAL_TOKENS, labels), 1);
	}
	return NULL;
}

/* Threads make the same series while they are written. */
static void test_series_are_made_by_any_thread(void **state)
{
	unsigned slots[THREADS];
	pthread_t threads[THREADS];
	struct sbuf out = { 0 };
	unsigned lines = 0;

	(void)state;
	for (unsigned i = 0; i < THREADS; i++) {
		slots[i] = i;
		threads[i] = thread_start("maker", make_series_of_models, &slots[i]);
	}
	for (int i = 0; i < 20; i++) {
		out.n = 0;
		metric_write(&out);
	}
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	out.n = 0;
	metric_write(&out);
	for (const char *p = out.p; (p = strstr(p, "ai_consumer=\"none\"} 3\n")); p++)
		lines++;
	assert_int_equal(lines, LABEL_SETS);
	sbuf_free(&out);
}

static void test_writes_classes(void **state)
{
	const struct str labels[] = { STR("gw"), STR("r") };
	struct series *s = metric_series(METRIC_UPSTREAM_REQUESTS, labels);
	struct series *bare = metric_series(METRIC_API_REQUESTS, NULL);
	static const int statuses[] = { 99, 100, 200, 299, 404, 599, 600, 0, -1 };

	(void)state;
	for (size_t i = 0; i < sizeof(statuses) / sizeof(statuses[0]); i++)
		metric_count_status(s, statuses[i]);
	metric_count_status(bare, 500);
	assert_int_equal(metric_value(s), 5);
	assert_written("# HELP sluice_upstream_requests_total Attempts answered by upstreams, by status class.\n"
		       "# TYPE sluice_upstream_requests_total counter\n"
		       "sluice_upstream_requests_total{gateway=\"gw\",service=\"r\",code_class=\"1xx\"} 1\n"
		       "sluice_upstream_requests_total{gateway=\"gw\",service=\"r\",code_class=\"2xx\"} 2\n"
		       "sluice_upstream_requests_total{gateway=\"gw\",service=\"r\",code_class=\"3xx\"} 0\n"
		       "sluice_upstream_requests_total{gateway=\"gw\",service=\"r\",code_class=\"4xx\"} 1\n"
		       "sluice_upstream_requests_total{gateway=\"gw\",service=\"r\",code_class=\"5xx\"} 1\n"
		       "# HELP sluice_api_requests_total Control API calls, by status class.\n"
		       "# TYPE sluice_api_requests_total counter\n"
		       "sluice_api_requests_total{code_class=\"1xx\"} 0\n"
		       "sluice_api_requests_total{code_class=\"2xx\"} 0\n"
		       "sluice_api_requests_total{code_class=\"3xx\"} 0\n"
		       "sluice_api_requests_total{code_class=\"4xx\"} 0\n"
		       "sluice_api_requests_total{code_class=\"5xx\"} 1\n");
}

/* What nobody adds to has no cells, and a series dropped and made again begins at 0. */
static void test_cells_are_made_when_they_are_used(void **state)
{
	const struct str labels[] = { STR("gw"), STR("r") };
	size_t before = metric_bytes();
	struct series *s = metric_series(METRIC_REQUESTS, labels);

	(void)state;
	assert_int_equal(metric_value(s), 0);
	assert_int_equal(metric_bytes(), before);
	metric_count_status(s, 503);
	assert_true(metric_bytes() > before);
	metric_series_drop(s);
	assert_int_equal(metric_value(metric_series(METRIC_REQUESTS, labels)), 0);
}

static void test_labelled_histogram_has_le_last(void **state)
{
	const struct str labels[] = { STR("gw"), STR("r") };
	struct sbuf out = { 0 };

	(void)state;
	metric_observe_us(metric_series(METRIC_UPSTREAM_SECONDS, labels), 1000);
	metric_write(&out);
	assert_non_null(strstr(out.p, "_seconds_bucket{gateway=\"gw\",service=\"r\",le=\"0.001\"} 1\n"));
	assert_non_null(strstr(out.p, "_seconds_count{gateway=\"gw\",service=\"r\"} 1\n"));
	sbuf_free(&out);
}

/* Four families, one series: each is printed in its place, with its own cells. */
static void test_traffic_is_counted_together(void **state)
{
	const struct str first[] = { STR("gw"), STR("a") }, second[] = { STR("gw"), STR("b") };
	struct series *a = metric_series(METRIC_REQUESTS, first), *b = metric_series(METRIC_REQUESTS, second);
	struct sbuf out = { 0 };

	(void)state;
	metric_thread(0);
	metric_count_traffic(a, &(struct metric_traffic){ .status = 204, .us = 700, .in = 11, .out = 13 });
	metric_count_traffic(a, &(struct metric_traffic){ .status = 503, .us = 60000001, .in = 100, .out = 200 });
	metric_thread(1);
	metric_count_traffic(a, &(struct metric_traffic){ .status = 101, .us = -1, .in = 1000, .out = 2000 });
	metric_count_traffic(b, &(struct metric_traffic){ .status = 0, .us = 0, .out = 5 });
	assert_int_equal(metric_value(a), 3);
	metric_write(&out);
	static const char *const expected[] = {
		"# TYPE sluice_requests_total counter\n"
		"sluice_requests_total{gateway=\"gw\",route=\"a\",code_class=\"1xx\"} 1\n"
		"sluice_requests_total{gateway=\"gw\",route=\"a\",code_class=\"2xx\"} 1\n"
		"sluice_requests_total{gateway=\"gw\",route=\"a\",code_class=\"3xx\"} 0\n"
		"sluice_requests_total{gateway=\"gw\",route=\"a\",code_class=\"4xx\"} 0\n"
		"sluice_requests_total{gateway=\"gw\",route=\"a\",code_class=\"5xx\"} 1\n"
		"sluice_requests_total{gateway=\"gw\",route=\"b\",code_class=\"1xx\"} 0\n",
		"# TYPE sluice_request_duration_seconds histogram\n"
		"sluice_request_duration_seconds_bucket{gateway=\"gw\",route=\"a\",le=\"0.0005\"} 0\n"
		"sluice_request_duration_seconds_bucket{gateway=\"gw\",route=\"a\",le=\"0.001\"} 1\n",
		"sluice_request_duration_seconds_bucket{gateway=\"gw\",route=\"a\",le=\"60\"} 1\n"
		"sluice_request_duration_seconds_bucket{gateway=\"gw\",route=\"a\",le=\"+Inf\"} 2\n"
		"sluice_request_duration_seconds_sum{gateway=\"gw\",route=\"a\"} 60.000701\n"
		"sluice_request_duration_seconds_count{gateway=\"gw\",route=\"a\"} 2\n",
		"sluice_request_duration_seconds_count{gateway=\"gw\",route=\"b\"} 1\n",
		"# TYPE sluice_request_bytes_total counter\n"
		"sluice_request_bytes_total{gateway=\"gw\",route=\"a\"} 1111\n"
		"sluice_request_bytes_total{gateway=\"gw\",route=\"b\"} 0\n",
		"# TYPE sluice_response_bytes_total counter\n"
		"sluice_response_bytes_total{gateway=\"gw\",route=\"a\"} 2213\n"
		"sluice_response_bytes_total{gateway=\"gw\",route=\"b\"} 5\n",
	};
	for (size_t i = 0; i < sizeof(expected) / sizeof(expected[0]); i++)
		assert_non_null(strstr(out.p, expected[i]));
	sbuf_free(&out);
}

/* Series that come and go leave no pages, and what comes in their place begins at zero. */
static void test_cells_go_with_their_series(void **state)
{
	enum { MANY = 1000 };
	struct series *all[MANY];
	size_t before = metric_bytes();

	(void)state;
	for (unsigned round = 0; round < 3; round++) {
		for (unsigned i = 0; i < MANY; i++) {
			char name[16];
			size_t n = (size_t)snprintf(name, sizeof(name), "%u", i);
			const struct str labels[] = { STR("gw"), { name, n } };

			metric_thread(i % THREADS);
			all[i] = metric_series(METRIC_REQUESTS, labels);
			assert_int_equal(metric_value(all[i]), 0);
			metric_count_traffic(all[i], &(struct metric_traffic){ .status = 200, .out = 1 });
		}
		assert_true(metric_bytes() >= before + MANY * 25 * 8);
		for (unsigned i = round % 2; i < MANY; i += 2)
			metric_series_drop(all[i]);
		for (unsigned i = 1 - round % 2; i < MANY; i += 2) {
			assert_int_equal(metric_value(all[i]), 1);
			metric_series_drop(all[i]);
		}
		assert_int_equal(metric_bytes(), before);
	}
}

static void test_dropped_series_ends_with_its_last_hold(void **state)
{
	struct series *s = metric_series(METRIC_CONNECTIONS, NULL);
	static const char shown[] = "# HELP sluice_downstream_connections Client connections open.\n"
		"# TYPE sluice_downstream_connections gauge\n"
		"sluice_downstream_connections ";
	char text[256];

	(void)state;
	metric_series(METRIC_CONNECTIONS, NULL);
	metric_add(s, 3);
	metric_series_drop(s);
	metric_add(s, 1);
	snprintf(text, sizeof text, "%s4\n", shown);
	assert_written(text);
	metric_series_drop(s);
	assert_written("");
	assert_int_equal(metric_value(metric_series(METRIC_CONNECTIONS, NULL)), 0);
	snprintf(text, sizeof text, "%s0\n", shown);
	assert_written(text);
}

/* A bound belongs to its bucket, what is larger to the next one. */
static void test_each_bucket_ends_at_its_bound(void **state)
{
	static const int64_t bounds_us[] = {
		500, 1000, 2500, 5000, 10000, 25000, 50000, 100000, 250000, 500000, 1000000, 2500000, 5000000,
		10000000, 30000000, 60000000,
	};
	enum { N = sizeof(bounds_us) / sizeof(bounds_us[0]) };
	struct series *s = metric_series(METRIC_SNAPSHOT_SECONDS, NULL);
	struct sbuf out = { 0 };
	char line[160];

	(void)state;
	for (int64_t us = 0; us <= INT64_C(1) << 40; us = us < 8 ? us + 1 : us * 9 / 8)
		metric_observe_us(s, us);
	for (unsigned i = 0; i < N; i++) {
		metric_observe_us(s, bounds_us[i]);
		metric_observe_us(s, bounds_us[i] + 1);
	}
	metric_write(&out);
	for (unsigned i = 0; i < N; i++) {
		unsigned count = 0;

		for (int64_t us = 0; us <= INT64_C(1) << 40; us = us < 8 ? us + 1 : us * 9 / 8)
			count += us <= bounds_us[i];
		for (unsigned k = 0; k < N; k++)
			count += (bounds_us[k] <= bounds_us[i]) + (bounds_us[k] + 1 <= bounds_us[i]);
		snprintf(line, sizeof(line), "_bucket{le=\"%g\"} %u\n", (double)bounds_us[i] / 1e6, count);
		assert_non_null(strstr(out.p, line));
	}
	sbuf_free(&out);
}

/* Routes come and go under ever new names. */
static void test_ended_series_leave_no_memory_behind(void **state)
{
	char name[16];
	size_t bytes = 0;

	(void)state;
	for (unsigned i = 0; i < 20000; i++) {
		struct str labels[] = { { name, (size_t)snprintf(name, sizeof(name), "%u", i) }, STR("b"), STR("c") };
		struct series *counter = metric_series(METRIC_UPSTREAM_FAILURES, labels);
		struct series *histogram = metric_series(METRIC_UPSTREAM_SECONDS, labels);

		if (i == 10)
			bytes = metric_bytes();
		assert_int_equal(metric_value(counter), 0);
		assert_int_equal(metric_value(histogram), 0);
		metric_add(counter, 7);
		metric_observe_us(histogram, 1000);
		metric_series_drop(i % 2 ? counter : histogram);
		metric_series_drop(i % 2 ? histogram : counter);
	}
	assert_int_equal(metric_bytes(), bytes);
	assert_written("");
}

static void test_many_series_have_cells_of_their_own(void **state)
{
	enum { SERIES = 1500 };
	static struct series *series[SERIES];
	char name[16];

	(void)state;
	for (unsigned i = 0; i < SERIES; i++) {
		struct str labels[] = { { name, (size_t)snprintf(name, sizeof(name), "%u", i) }, STR("b"), STR("c") };

		series[i] = metric_series(i % 2 ? METRIC_UPSTREAM_SECONDS : METRIC_UPSTREAM_FAILURES, labels);
	}
	for (unsigned i = 0; i < SERIES; i++) {
		if (i % 2)
			metric_observe_us(series[i], 60000001);
		else
			metric_add(series[i], i);
	}
	for (unsigned i = 0; i < SERIES; i++)
		assert_int_equal(metric_value(series[i]), i % 2 ? 1 : i);
}

struct adder {
	struct series *counter, *histogram, *traffic;
	int slot;                          /* -1: none */
};

static void *add_often(void *arg)
{
	const struct adder *a = arg;

	if (a->slot >= 0)
		metric_thread((unsigned)a->slot);
	for (unsigned i = 0; i < TIMES; i++) {
		metric_add(a->counter, 1);
		metric_observe_us(a->histogram, i);
		if (a->slot >= 0)
			metric_count_traffic(a->traffic, &(struct metric_traffic){ .status = 200, .us = i, .out = 1 });
	}
	return NULL;
}

static void test_no_addition_is_lost(void **state)
{
	struct adder adders[THREADS + 2];
	pthread_t threads[THREADS + 2];
	struct series *counter = metric_series(METRIC_CONNECTIONS_TOTAL, NULL);
	struct series *histogram = metric_series(METRIC_SNAPSHOT_SECONDS, NULL);
	struct series *traffic = metric_series(METRIC_REQUESTS, (struct str[]){ STR("gw"), STR("r") });

	(void)state;
	for (int i = 0; i < THREADS + 2; i++) {
		adders[i] = (struct adder){ counter, histogram, traffic, i < THREADS ? i : -1 };
		threads[i] = thread_start("adder", add_often, &adders[i]);
	}
	for (unsigned i = 0; i < 50; i++) {
		struct sbuf out = { 0 };

		metric_write(&out);
		sbuf_free(&out);
	}
	for (unsigned i = 0; i < THREADS + 2; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(metric_value(counter), (THREADS + 2) * TIMES);
	assert_int_equal(metric_value(histogram), (THREADS + 2) * TIMES);
	assert_int_equal(metric_value(traffic), THREADS * TIMES);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_same_values_same_series, start, stop),
		cmocka_unit_test_setup_teardown(test_writes_counters_and_gauges, start, stop),
		cmocka_unit_test_setup_teardown(test_writes_histograms, start, stop),
		cmocka_unit_test_setup_teardown(test_each_bucket_ends_at_its_bound, start, stop),
		cmocka_unit_test_setup_teardown(test_labelled_histogram_has_le_last, start, stop),
		cmocka_unit_test_setup_teardown(test_writes_histograms_of_tokens, start, stop),
		cmocka_unit_test_setup_teardown(test_series_are_made_by_any_thread, start, stop),
		cmocka_unit_test_setup_teardown(test_writes_classes, start, stop),
		cmocka_unit_test_setup_teardown(test_cells_are_made_when_they_are_used, start, stop),
		cmocka_unit_test_setup_teardown(test_dropped_series_ends_with_its_last_hold, start, stop),
		cmocka_unit_test_setup_teardown(test_ended_series_leave_no_memory_behind, start, stop),
		cmocka_unit_test_setup_teardown(test_many_series_have_cells_of_their_own, start, stop),
		cmocka_unit_test_setup_teardown(test_traffic_is_counted_together, start, stop),
		cmocka_unit_test_setup_teardown(test_cells_go_with_their_series, start, stop),
		cmocka_unit_test_setup_teardown(test_no_addition_is_lost, start, stop),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
