/* test_settings_policies.c -- what Timeout, Retry and Fallback write into the settings of a route or service. */
/* room: policy */
#include "proxy/policy.h"
#include "policy/formats.h"
#include "proxy/snapshot.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>                       /* last: it has a macro of the name fail */

extern const struct policy_class timeout, retry, fallback;

static struct arena a;

static int close_arena(void **state)
{
	(void)state;
	arena_free(&a);
	return 0;
}

/* As the compiler does it. `config` is JSON with ' for ". */
static struct settings settings_of(const struct policy_class *class, const char *config)
{
	struct str copy = arena_copy(&a, str_of(config));
	char *text = arena_take(&a, copy.n + 1);
	void *conf = arena_alloc(&a, class->conf_size);
	struct settings s = { 0 };
	struct problem why = { 0 };

	for (size_t i = 0; i < copy.n; i++)
		text[i] = copy.p[i] == '\'' ? '"' : copy.p[i];
	const struct json *json = json_parse(&a, (struct str){ text, copy.n }, &why);

	if (!json || !fields_decode(class->fields, json, conf, &a, &why) ||
	    (class->check && !class->check(conf, &why)) || (class->prepare && !class->prepare(conf, &a, &why)))
		fail_msg("%s: %s %s", config, why.field, why.text);
	class->apply(conf, &s);
	return s;
}

static void test_milliseconds(void **state)
{
	static const struct {
		double seconds;
		int64_t ms;
	} cases[] = {
		{ 0, 0 }, { 1, 1000 }, { 0.25, 250 }, { 0.2, 200 }, { 0.0001, 1 }, { 1e-9, 1 }, { 0.0011, 2 },
		{ 0.55, 550 }, { 0.07, 70 }, { 1.1, 1100 }, { 2.3, 2300 }, { 4.35, 4350 }, { 86400, 86400000 },
		{ 0.001, 1 },
	};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
		assert_int_equal(seconds_to_ms(cases[i].seconds), cases[i].ms);
	for (int64_t ms = 1; ms < 20000; ms++)
		assert_int_equal(seconds_to_ms((double)ms / 1000), ms);
}

static void test_timeouts(void **state)
{
	struct settings s = settings_of(&timeout, "{'unitNum':0.5,'timeUnit':'m','enable':true}");

	(void)state;
	assert_true(s.has_timeout && s.timeout_ms == 30000);
	s = settings_of(&timeout, "{'unitNum':24,'timeUnit':'h','enable':true}");
	assert_true(s.has_timeout && s.timeout_ms == 86400000);
	s = settings_of(&timeout, "{'unitNum':0,'timeUnit':'s','enable':true}");
	assert_true(s.has_timeout && s.timeout_ms == 0);
	s = settings_of(&timeout, "{'unitNum':5,'timeUnit':'s','enable':false}");
	assert_true(s.has_timeout && s.timeout_ms == 0);
}

static bool has_status(const struct settings *s, unsigned status)
{
	return s->retry->statuses[(status - 400) / 64] >> (status - 400) % 64 & 1;
}

static void test_words_of_retry(void **state)
{
	struct settings s = settings_of(&retry, "{'attempts':2,'retryOn':['5xx'],'perTryTimeout':0.25,'enable':true}");

	(void)state;
	assert_true(s.has_retry && s.retry->attempts == 2 && s.retry->try_timeout_ms == 250);
	assert_int_equal(s.retry->on, RETRY_ON_CONNECT | RETRY_ON_REFUSED | RETRY_ON_RESET);
	for (unsigned status = 400; status <= 599; status++)
		assert_int_equal(has_status(&s, status), status >= 500);
	s = settings_of(&retry, "{'attempts':1,'retryOn':['gateway-error','non_idempotent'],'enable':true}");
	assert_int_equal(s.retry->on, RETRY_ON_CONNECT | RETRY_ON_REFUSED | RETRY_ON_RESET | RETRY_ANY_METHOD);
	for (unsigned status = 400; status <= 599; status++)
		assert_int_equal(has_status(&s, status), status >= 502 && status <= 504);
	s = settings_of(&retry, "{'attempts':1,'retryOn':['connect-failure'],'httpCodes':['429','400','599'],"
				"'enable':true}");
	assert_int_equal(s.retry->on, RETRY_ON_CONNECT);
	for (unsigned status = 400; status <= 599; status++)
		assert_int_equal(has_status(&s, status), status == 400 || status == 429 || status == 599);
	s = settings_of(&retry, "{'attempts':1,'retryOn':['cancelled','unavailable','internal','deadline-exceeded',"
				"'resource-exhausted'],'enable':true}");
	assert_int_equal(s.retry->grpc_statuses, 1U << 1 | 1U << 4 | 1U << 8 | 1U << 13 | 1U << 14);
	assert_int_equal(s.retry->on, 0);
	s = settings_of(&retry, "{'attempts':0,'retryOn':['refused-stream'],'enable':true}");
	assert_int_equal(s.retry->on, RETRY_ON_REFUSED);
	s = settings_of(&retry, "{'attempts':2,'retryOn':['5xx'],'enable':false}");
	assert_true(s.has_retry && !s.retry);
}

static void test_destinations_of_fallback(void **state)
{
	struct settings s = settings_of(&fallback, "{'enable':true,'fallBackDestination':[{'serviceId':'svc-a'},"
						   "{'serviceId':'svc-b','serviceVersion':'v1','port':'8080'}]}");

	(void)state;
	assert_true(s.has_fallback && s.fallback->n == 2);
	assert_true(str_equal(s.fallback->targets[0].service_id, STR("svc-a")));
	assert_true(s.fallback->targets[0].hash == pmap_hash(STR("svc-a")));
	assert_true(s.fallback->targets[0].port == 0 && s.fallback->targets[0].version.n == 0);
	assert_true(s.fallback->targets[1].port == 8080 && str_equal(s.fallback->targets[1].version, STR("v1")));
	s = settings_of(&fallback, "{'enable':false,'fallBackDestination':[{'serviceId':'svc-a'}]}");
	assert_true(s.has_fallback && !s.fallback);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(test_milliseconds, close_arena),
		cmocka_unit_test_teardown(test_timeouts, close_arena),
		cmocka_unit_test_teardown(test_words_of_retry, close_arena),
		cmocka_unit_test_teardown(test_destinations_of_fallback, close_arena),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
