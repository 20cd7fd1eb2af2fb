#include "proxy/attempt_rules.h"

struct settings settings_merge(const struct settings *route, const struct settings *service)
{
	return (struct settings){
		.timeout_ms = (route->has_timeout ? route : service)->timeout_ms,
		.retry = (route->has_retry ? route : service)->retry,
		.fallback = (route->has_fallback ? route : service)->fallback,
		.has_timeout = route->has_timeout || service->has_timeout,
		.has_retry = route->has_retry || service->has_retry,
		.has_fallback = route->has_fallback || service->has_fallback,
		.shapes_attempts = route->shapes_attempts || service->shapes_attempts,
		.counts = {
			[SETTING_TIMEOUT] = (route->has_timeout ? route : service)->counts[SETTING_TIMEOUT],
			[SETTING_RETRY] = (route->has_retry ? route : service)->counts[SETTING_RETRY],
			[SETTING_FALLBACK] = (route->has_fallback ? route : service)->counts[SETTING_FALLBACK],
		},
	};
}

int64_t retry_pause_limit_ms(unsigned n)
{
	int64_t limit = n < 10 ? ((INT64_C(1) << n) - 1) * RETRY_PAUSE_MS : RETRY_PAUSE_MAX_MS;

	return limit < RETRY_PAUSE_MAX_MS ? limit : RETRY_PAUSE_MAX_MS;
}

bool retry_is_affordable(int64_t active, int64_t retrying)
{
	int64_t most = active * RETRY_PERCENT / 100;

	return retrying < (most > RETRIES_ALWAYS ? most : RETRIES_ALWAYS);
}

bool retry_is_idempotent(enum method method)
{
	switch (method) {
	case METHOD_GET:
	case METHOD_HEAD:
	case METHOD_OPTIONS:
	case METHOD_TRACE:
	case METHOD_PUT:
	case METHOD_DELETE:
		return true;
	default:
		return false;
	}
}

static bool may_repeat(const struct retry_rules *rules, enum method method)
{
	return (rules->on & RETRY_ANY_METHOD) || retry_is_idempotent(method);
}

bool retry_wants_failure(const struct retry_rules *rules, enum method method, enum call_failure what, bool is_refused)
{
	if (what == CALL_CONNECT)
		return rules->on & RETRY_ON_CONNECT;
	if (is_refused)
		return rules->on & RETRY_ON_REFUSED;
	return what != CALL_TRUNCATED && (rules->on & RETRY_ON_RESET) && may_repeat(rules, method);
}

/* The upstream asks for mercy, in the words that Envoy made common. */
static bool is_marked(const struct message *res)
{
	return message_find_name(res, STR("x-envoy-overloaded")) || message_find_name(res, STR("x-envoy-ratelimited"));
}

static bool wants_status(const struct retry_rules *rules, int status)
{
	unsigned i = (unsigned)(status - 400);

	return status >= 400 && status <= 599 && (rules->statuses[i / 64] >> i % 64 & 1);
}

static bool wants_grpc(const struct retry_rules *rules, const struct message *res)
{
	uint64_t status;

	return rules->grpc_statuses && str_to_u64(message_value(res, HEADER_GRPC_STATUS), 31, &status) &&
	       (rules->grpc_statuses >> status & 1);
}

bool retry_wants_response(const struct retry_rules *rules, enum method method, const struct message *res)
{
	bool is_wanted = (wants_status(rules, res->status) && may_repeat(rules, method)) || wants_grpc(rules, res);

	return is_wanted && !is_marked(res);
}
