/*
 * retry.c -- Retry: tries a request again when the service failed in one of the listed ways. What the words mean is
 * said here; proxy/attempt.c tries.
 */
#include "policy/formats.h"
#include "proxy/policy.h"

#define MAX_TRY_S (24 * 3600)

enum condition {
	CONDITION_5XX, CONDITION_GATEWAY_ERROR, CONDITION_RESET, CONDITION_CONNECT_FAILURE,
		CONDITION_REFUSED_STREAM,
	CONDITION_STATUS_CODES, CONDITION_CANCELLED, CONDITION_DEADLINE_EXCEEDED, CONDITION_INTERNAL,
	CONDITION_RESOURCE_EXHAUSTED, CONDITION_UNAVAILABLE, CONDITION_NON_IDEMPOTENT,
};

struct retry {
	int64_t attempts;
	struct items retryOn;
	struct items httpCodes;
	double perTryTimeout;
	bool enable;
	struct retry_rules rules;
};

static const struct choice conditions[] = {
	{ CONDITION_5XX, "5xx", "status 500 to 599, or no answer", NULL },
	{ CONDITION_RESET, "reset", "no answer: disconnect, reset or timeout of one try", NULL },
	{ CONDITION_CONNECT_FAILURE, "connect-failure", "the connection was not made; retries any method",
		NULL },
	{ CONDITION_REFUSED_STREAM, "refused-stream", "the HTTP/2 stream was refused; retries any method",
		NULL },
	{ CONDITION_STATUS_CODES, "retriable-status-codes", "a status of httpCodes", NULL },
	{ CONDITION_GATEWAY_ERROR, "gateway-error", "status 502, 503 or 504, or no answer", NULL },
	{ CONDITION_CANCELLED, "cancelled", "gRPC status 1", NULL },
	{ CONDITION_DEADLINE_EXCEEDED, "deadline-exceeded", "gRPC status 4", NULL },
	{ CONDITION_RESOURCE_EXHAUSTED, "resource-exhausted", "gRPC status 8", NULL },
	{ CONDITION_INTERNAL, "internal", "gRPC status 13", NULL },
	{ CONDITION_UNAVAILABLE, "unavailable", "gRPC status 14", NULL },
	{ CONDITION_NON_IDEMPOTENT, "non_idempotent", "lets the other conditions retry POST and PATCH too",
		NULL },
	{ 0, NULL, NULL, NULL }
};

static bool check_code(struct str code, struct problem *why)
{
	uint64_t status;

	if (code.n != 3 || !str_to_u64(code, 599, &status) || status < 400)
		return problem(why, "", "must be a status from \"400\" to \"599\"");
	return true;
}

static const struct field fields[] = {
	INT(struct retry, attempts, REQUIRED, RANGE(0, 10), EXAMPLE("3"), DOC("Retries after the first "
	    "try.")),
	CHOICES(struct retry, retryOn, conditions, REQUIRED, RANGE(0, 16),
	        EXAMPLE("[\"5xx\",\"reset\",\"connect-failure\"]"),
	        DOC("What is tried again. May be empty when httpCodes is not.")),
	TEXTS(struct retry, httpCodes, RANGE(0, 200), TEXT_MAX(16), FORMAT(check_code),
	      EXAMPLE("[\"502\",\"503\"]"),
	      DOC("Statuses that are tried again, as text.")),
	NUMBER(struct retry, perTryTimeout, RANGE(0, MAX_TRY_S), UNIT("s"), DEFAULT("0"), EXAMPLE("10"),
	       DOC("Time for one try, the first included; 0 means no limit of its own.")),
	BOOL(struct retry, enable, REQUIRED,
	     DOC("Whether the policy acts. When false on a route, the retries of its service do not act "
	     "either.")),
	FIELDS_END
};

static bool check(const void *conf, struct problem *why)
{
	const struct retry *retry = conf;

	if (retry->retryOn.n == 0 && retry->httpCodes.n == 0)
		return problem(why, "retryOn", "must not be empty when httpCodes is empty too");
	return true;
}

#define STATUS_FIRST 400
#define NO_ANSWER (RETRY_ON_CONNECT | RETRY_ON_REFUSED | RETRY_ON_RESET)

static void add_statuses(struct retry_rules *rules, unsigned first, unsigned last)
{
	for (unsigned i = first - STATUS_FIRST; i <= last - STATUS_FIRST; i++)
		rules->statuses[i / 64] |= UINT64_C(1) << i % 64;
}

static void add_condition(struct retry_rules *rules, enum condition condition)
{
	switch (condition) {
	case CONDITION_5XX:
		rules->on |= NO_ANSWER;
		add_statuses(rules, 500, 599);
		break;
	case CONDITION_GATEWAY_ERROR:
		rules->on |= NO_ANSWER;
		add_statuses(rules, 502, 504);
		break;
	case CONDITION_RESET:
		rules->on |= NO_ANSWER;
		break;
	case CONDITION_CONNECT_FAILURE:
		rules->on |= RETRY_ON_CONNECT;
		break;
	case CONDITION_REFUSED_STREAM:
		rules->on |= RETRY_ON_REFUSED;
		break;
	case CONDITION_STATUS_CODES:
		break;                     /* the codes speak for themselves */
	case CONDITION_CANCELLED:
		rules->grpc_statuses |= 1U << 1;
		break;
	case CONDITION_DEADLINE_EXCEEDED:
		rules->grpc_statuses |= 1U << 4;
		break;
	case CONDITION_RESOURCE_EXHAUSTED:
		rules->grpc_statuses |= 1U << 8;
		break;
	case CONDITION_INTERNAL:
		rules->grpc_statuses |= 1U << 13;
		break;
	case CONDITION_UNAVAILABLE:
		rules->grpc_statuses |= 1U << 14;
		break;
	case CONDITION_NON_IDEMPOTENT:
		rules->on |= RETRY_ANY_METHOD;
		break;
	}
}

static bool prepare(void *conf, struct arena *a, struct problem *why)
{
	struct retry *retry = conf;
	struct retry_rules *rules = &retry->rules;
	uint64_t status;

	(void)a;
	(void)why;
	*rules = (struct retry_rules){ .attempts = (unsigned)retry->attempts };
	rules->try_timeout_ms = seconds_to_ms(retry->perTryTimeout);
	for (size_t i = 0; i < retry->retryOn.n; i++)
		add_condition(rules, (enum condition)*ITEM(retry->retryOn, int, i));
	for (size_t i = 0; i < retry->httpCodes.n; i++)
		if (str_to_u64(*ITEM(retry->httpCodes, struct str, i), 599, &status))
			add_statuses(rules, (unsigned)status, (unsigned)status);
	return true;
}

/* A disabled policy is there too: it keeps the retries of the service from its route. */
static void apply(const void *conf, struct settings *settings)
{
	const struct retry *retry = conf;

	settings->has_retry = true;
	settings->retry = retry->enable ? &retry->rules : NULL;
}

const struct policy_class retry = {
	.name = "Retry",
	.alias = "Retry policy",
	.summary = "Tries a request again when the service failed.",
	.group = "Throttling",
	.scopes = SCOPE_ROUTES | SCOPE_SERVICE,
	.stage = STAGE_SETTING,
	.combine = COMBINE_OVERRIDE,
	.is_enforced = true,
	.execute_stage = "PluginPost",
	.execute_priority = 500,
	.fields = fields,
	.conf_size = sizeof(struct retry),
	.enable_at = offsetof(struct retry, enable),
	.check = check,
	.prepare = prepare,
	.apply = apply,
	.setting = SETTING_RETRY,
	.outcomes = { "succeeded", "failed", "exhausted", "no_budget", "try_timeout" },
};
