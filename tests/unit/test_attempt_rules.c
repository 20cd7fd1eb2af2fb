/* test_attempt_rules.c -- which failures and answers are tried again, when, and how many; what beats what. */
/* room: proxy */
#include "proxy/attempt_rules.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

static void test_pauses_grow_to_a_limit(void **state)
{
	static const int64_t limits[] = { 0, 25, 75, 175, 250, 250, 250 };

	(void)state;
	for (unsigned n = 1; n < sizeof limits / sizeof *limits; n++)
		assert_int_equal(retry_pause_limit_ms(n), limits[n]);
	assert_int_equal(retry_pause_limit_ms(1000000), 250);
}

static void test_budget(void **state)
{
	(void)state;
	/* Three are always affordable. */
	for (int retrying = 0; retrying < 3; retrying++)
		assert_true(retry_is_affordable(0, retrying));
	assert_false(retry_is_affordable(0, 3));
	assert_false(retry_is_affordable(19, 3));
	/* Of many requests a fifth. */
	assert_true(retry_is_affordable(20, 3));
	assert_false(retry_is_affordable(20, 4));
	assert_true(retry_is_affordable(1000, 199));
	assert_false(retry_is_affordable(1000, 200));
}

static void test_failures(void **state)
{
	const struct retry_rules connect = { .attempts = 1, .on = RETRY_ON_CONNECT };
	const struct retry_rules refused = { .attempts = 1, .on = RETRY_ON_REFUSED };
	const struct retry_rules reset = { .attempts = 1, .on = RETRY_ON_RESET };
	const struct retry_rules any = { .attempts = 1, .on = RETRY_ON_RESET | RETRY_ANY_METHOD };

	(void)state;
	assert_true(retry_wants_failure(&connect, METHOD_POST, CALL_CONNECT, false));
	assert_false(retry_wants_failure(&connect, METHOD_GET, CALL_RESET, false));
	assert_false(retry_wants_failure(&connect, METHOD_GET, CALL_TIMEOUT, false));
	assert_true(retry_wants_failure(&refused, METHOD_POST, CALL_RESET, true));
	assert_false(retry_wants_failure(&refused, METHOD_GET, CALL_RESET, false));
	assert_false(retry_wants_failure(&refused, METHOD_GET, CALL_CONNECT, false));
	for (enum call_failure what = CALL_RESET; what <= CALL_MALFORMED; what++) {
		assert_true(retry_wants_failure(&reset, METHOD_GET, what, false));
		assert_false(retry_wants_failure(&reset, METHOD_POST, what, false));
		assert_false(retry_wants_failure(&reset, METHOD_OTHER, what, false));
		assert_true(retry_wants_failure(&any, METHOD_PATCH, what, false));
	}
	assert_false(retry_wants_failure(&any, METHOD_GET, CALL_TRUNCATED, false));
}

static void test_statuses(void **state)
{
	struct retry_rules rules = { .attempts = 1 };
	struct arena a = { 0 };
	struct message res = { .arena = &a };

	(void)state;
	rules.statuses[0] = UINT64_C(1) << 29 | 1;          /* 429, 400 */
	rules.statuses[3] = UINT64_C(1) << 7;               /* 599 */
	for (res.status = 100; res.status <= 999; res.status++)
		assert_int_equal(retry_wants_response(&rules, METHOD_GET, &res),
				 res.status == 400 || res.status == 429 || res.status == 599);
	res.status = 429;
	assert_false(retry_wants_response(&rules, METHOD_POST, &res));
	rules.on = RETRY_ANY_METHOD;
	assert_true(retry_wants_response(&rules, METHOD_POST, &res));
	message_add(&res, STR("X-Envoy-Ratelimited"), STR("true"));
	assert_false(retry_wants_response(&rules, METHOD_GET, &res));
	arena_free(&a);
}

static void test_grpc_statuses(void **state)
{
	const struct retry_rules rules = { .attempts = 1, .grpc_statuses = 1U << 14 | 1U << 1 };
	static const struct {
		const char *text;
		bool wanted;
	} cases[] = {
		{ "14", true }, { "1", true }, { "0", false }, { "13", false }, { "", false }, { "014", false },
		{ "46", false }, { "33", false }, { "-1", false }, { "14 ", false }, { "99999999999999999999", false },
	};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct arena a = { 0 };
		struct message res = { .arena = &a, .status = 200 };

		message_add(&res, STR("grpc-status"), str_of(cases[i].text));
		assert_int_equal(retry_wants_response(&rules, METHOD_POST, &res), cases[i].wanted);
		arena_free(&a);
	}
}

static void test_idempotent_methods(void **state)
{
	static const enum method yes[] = {
		METHOD_GET, METHOD_HEAD, METHOD_OPTIONS, METHOD_TRACE, METHOD_PUT, METHOD_DELETE,
	};
	static const enum method no[] = { METHOD_POST, METHOD_PATCH, METHOD_CONNECT, METHOD_OTHER };

	(void)state;
	for (size_t i = 0; i < sizeof yes / sizeof *yes; i++)
		assert_true(retry_is_idempotent(yes[i]));
	for (size_t i = 0; i < sizeof no / sizeof *no; i++)
		assert_false(retry_is_idempotent(no[i]));
}

static void test_what_a_route_has_beats_the_service(void **state)
{
	static const struct retry_rules few = { .attempts = 1 }, many = { .attempts = 5 };
	static const struct fallback_rules away = { .n = 1 };
	const struct settings none = { 0 };
	const struct settings service = {
		.has_timeout = true, .timeout_ms = 5000, .has_retry = true, .retry = &many, .has_fallback = true,
		.fallback = &away, .shapes_attempts = true,
	};
	const struct settings route = { .has_timeout = true, .timeout_ms = 1000, .has_retry = true, .retry = &few,
					.shapes_attempts = true };
	/* Disabled ones: they are there, with nothing in them. */
	const struct settings off = { .has_timeout = true, .has_retry = true, .has_fallback = true,
				      .shapes_attempts = true };
	struct settings s;

	(void)state;
	s = settings_merge(&none, &service);
	assert_true(s.timeout_ms == 5000 && s.retry == &many && s.fallback == &away);
	s = settings_merge(&route, &service);
	assert_true(s.timeout_ms == 1000 && s.retry == &few && s.fallback == &away);
	s = settings_merge(&off, &service);
	assert_true(s.timeout_ms == 0 && !s.retry && !s.fallback && s.shapes_attempts);
	s = settings_merge(&route, &none);
	assert_true(s.timeout_ms == 1000 && s.retry == &few && !s.fallback);
	s = settings_merge(&none, &none);
	assert_false(s.shapes_attempts || s.has_timeout || s.has_retry || s.has_fallback);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pauses_grow_to_a_limit),
		cmocka_unit_test(test_budget),
		cmocka_unit_test(test_failures),
		cmocka_unit_test(test_statuses),
		cmocka_unit_test(test_grpc_statuses),
		cmocka_unit_test(test_idempotent_methods),
		cmocka_unit_test(test_what_a_route_has_beats_the_service),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
