/*
 * test_ai_metrics.c -- values of labels, and how many combinations of them there may be.
 */
/* room: policy */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include "core/metric.h"
#include "policy/ai_metrics.h"
#include <cmocka.h>

static void check_label(struct str value, const char *wanted)
{
	char text[AI_LABEL_MAX];
	struct str label = ai_label(value, text);

	if (!str_equal(label, str_of(wanted)))
		fail_msg("%.*s, not %s", STR_FMT(label), wanted);
}

static void labels_are_printable_and_short(void **state)
{
	char long_text[400];
	char text[AI_LABEL_MAX];

	(void)state;
	check_label(STR("gpt-4"), "gpt-4");
	check_label(STR(""), "");
	check_label(STR("a\nb\tc\x7f" "d"), "a_b_c_d");
	check_label(STR("\xe4\xbd\xa0\xf0\x9f\x98\x80\xc3\xa9"), "\xe4\xbd\xa0\xf0\x9f\x98\x80\xc3\xa9");
	check_label(STR("a\xc2\x85" "b"), "a__b");
	check_label(STR("a\xff\xe4\xbd"), "a___");
	check_label(STR("\xed\xa0\x80"), "___");
	check_label(STR("\xf0\x9f\x98"), "___");
	memset(long_text, 'x', sizeof(long_text));
	assert_int_equal(ai_label((struct str){ long_text, sizeof(long_text) }, text).n, AI_LABEL_MAX);
	/* Not inside a character: 127 bytes, and one of two. */
	memcpy(long_text + AI_LABEL_MAX - 1, "\xc3\xa9", 2);
	assert_int_equal(ai_label((struct str){ long_text, sizeof(long_text) }, text).n, AI_LABEL_MAX - 1);
}

static struct ai_measure measure(const char *model, bool is_answered)
{
	return (struct ai_measure){ .route = STR("r"), .service = STR("s"), .model = str_of(model),
				    .request_model = str_of(model), .response_model = str_of(model),
				    .operation = STR("chat"), .provider = STR("p"), .is_answered = is_answered,
				    .has_usage = true, .input = 1, .output = 2, .total = 3, .service_us = 5000 };
}

static unsigned count_lines(const struct sbuf *text, const char *with)
{
	unsigned n = 0;

	for (const char *p = text->p; (p = strstr(p, with)); p++)
		n++;
	return n;
}

#define TOTAL "_total_token{ai_route=\"r\",ai_cluster=\"s\",ai_model="

static void combinations_are_bounded(void **state)
{
	struct sbuf out = { 0 };
	struct ai_measure m;

	(void)state;
	metric_start(1);
	metric_thread(0);
	ai_metrics_open();
	/* Two combinations for each model: one by consumer, one by model. */
	for (int i = 0; i < 100; i++) {
		char model[32];

		snprintf(model, sizeof(model), "model-%d", i);
		m = measure(model, true);
		ai_metrics_count(&m, 20);
	}
	m = measure("nobody-has-it", false);
	ai_metrics_count(&m, 1000000);
	m = measure("model-3", false);
	ai_metrics_count(&m, 20);
	ai_metrics_count_status(200);
	ai_metrics_count_status(0);
	ai_metrics_count_status(99999);
	ai_metrics_count_estimate();
	metric_write(&out);
	assert_int_equal(count_lines(&out, "\nroute_upstream_model_consumer_metric_total_token{"), 11);
	assert_non_null(strstr(out.p, TOTAL "\"model-9\",ai_consumer=\"none\"} 3\n"));
	assert_null(strstr(out.p, "model-10"));
	assert_null(strstr(out.p, "nobody"));
	/* 90 that came late, and the one that nobody has. */
	assert_non_null(strstr(out.p, TOTAL "\"other\",ai_consumer=\"other\"} 273\n"));
	assert_non_null(strstr(out.p, TOTAL "\"model-3\",ai_consumer=\"none\"} 6\n"));
	assert_non_null(strstr(out.p, "\nai_request_total{status=\"200\"} 1\n"));
	assert_non_null(strstr(out.p, "\nai_request_total{status=\"none\"} 2\n"));
	assert_non_null(strstr(out.p, "\nai_usage_missing_total 1\n"));
	sbuf_free(&out);
	metric_stop();
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(labels_are_printable_and_short),
		cmocka_unit_test(combinations_are_bounded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
