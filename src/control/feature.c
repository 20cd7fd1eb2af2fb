#include "control/feature.h"
#include <stdio.h>
#include "control/resource.h"
#include "core/cidr.h"
#include "policy/ai_fallback.h"
#include "policy/waf_rules.h"

/* FEATURE names: the settings file has the same ones. */
const struct feature features[] = {
	{ "xffTrustedNum", FEATURE_INT, 0, 10, NULL, "0", false, true,
		"How many proxies in front of the gateway may be believed: the client address is that many "
		"entries from the end of X-Forwarded-For." },
	{ "trustedProxies", FEATURE_CIDRS, 0, 256, NULL, "[]", false, true,
		"Addresses (CIDR) of proxies whose X-Forwarded-* headers are believed." },
	{ "stripInboundTag", FEATURE_BOOL, 0, 0, NULL, "false", false, true,
		"Whether x-mse-tag of clients is removed, so that DynamicRoute alone decides their lane." },
	{ "proxyProtocol", FEATURE_BOOL, 0, 0, NULL, "false", false, true,
		"Whether connections begin with a PROXY protocol header (version 1 or 2), whose source address counts "
		"as the peer's. Those that do not are closed. Of all gateways of a port when one of them sets it." },
	{ "retryBufferBytes", FEATURE_INT, 0, 16777216, NULL, "1048576", false, true,
		"How much of a request body is kept for a retry or a copy." },
	{ "maxBufferedBodyBytes", FEATURE_INT, 1024, 1073741824, NULL, "10485760", false, true,
		"How long a request body may be that a policy has to read whole; longer ones get 413. Other bodies "
		"have no limit." },
	{ "attemptCountHeader", FEATURE_BOOL, 0, 0, NULL, "false", false, true,
		"Whether the upstream is told which attempt a request is (x-envoy-attempt-count)." },
	{ "streamIdleTimeoutMs", FEATURE_INT, 0, 86400000, NULL, "300000", false, true,
		"How long a stream (SSE, gRPC, WebSocket) may be silent." },
	{ "workloadIdentity", FEATURE_TEXT, 0, 64, NULL, "\"\"", false, true,
		"Certificate (certificateId) with privateKey and caCertificate: what the gateway shows to services "
		"whose ServiceTls has mode ISTIO_MUTUAL, and the only CA it believes of them." },
	{ "sessionKeyGeneration", FEATURE_INT, 1, 1000000, NULL, "1", false, true,
		"Which key seals the session cookies of OIDCAuth. Counting it up by one rotates the key: sessions of "
		"the generation before go on, older ones end." },
	{ "ai.max_request_body", FEATURE_INT, 1024, 1073741824, NULL, "10485760", false, true,
		"How long a request to a model or an agent may be; longer ones get 413." },
	{ "ai.log.format", FEATURE_WORD, 0, 0, "object|string", "\"object\"", false, true,
		"How AiStatistics writes ai_log into the access record: as an object, or as a string that holds its "
		"JSON, which logs with flat members want." },
	{ "ai.metrics.max_series", FEATURE_INT, 1, 1000000, NULL, "10000", false, true,
		"How many combinations of labels the metrics of AiStatistics may have; what more there is counts as "
		"model and consumer \"other\"." },
	{ "ai.fallback.on", FEATURE_STATUSES, 1, 64, NULL, "[\"4xx\",\"5xx\"]", false, true,
		"Which answers make AiFallback try the next model: 4xx, 5xx or single status codes, as texts. What "
		"gives no answer always does." },
	{ "ai.cache.share_consumers", FEATURE_BOOL, 0, 0, NULL, "false", false, true,
		"Whether consumers share the answers that AiCache keeps; else each has its own." },
	{ "ai.cache.coalesce_ms", FEATURE_INT, 0, 600000, NULL, "0", false, true,
		"How long equal questions that AiCache has no answer to wait on a worker for the first of them, whose "
		"answer they get; then each asks for itself. 0: they do not wait. Not for streams, nor in semantic "
		"mode." },
	{ "ai.token_limit.reserve", FEATURE_WORD, 0, 0, "on|off", "\"on\"", false, true,
		"Whether AiTokenRateLimit counts the estimated tokens of a prompt from the admission on; the rest "
		"follows with the answer. Off: requests count when they are over." },
	{ "ai.token_limit.wait_ms", FEATURE_INT, 1, 1000, NULL, "50", false, true,
		"How long AiTokenRateLimit waits for Redis before it judges a request by what the process knows." },
	{ "ai.guard.fail_mode", FEATURE_WORD, 0, 0, "open|closed", "\"open\"", false, true,
		"What AiSecurityGuard does when the guard cannot be asked: let the request pass, or answer "
		"503." },
	{ "ai.guard.timeout_ms", FEATURE_INT, 1, 60000, NULL, "2000", false, true,
		"How long AiSecurityGuard waits for one answer of the guard. Long texts take several." },
	{ "ai.guard.access_key_id", FEATURE_TEXT, 0, 256, NULL, "\"\"", false, true,
		"Access key for the guard." },
	{ "ai.guard.access_key_secret", FEATURE_TEXT, 0, 256, NULL, "\"\"", true, true,
		"Its secret; never returned." },
	{ "ai.guard.security_token", FEATURE_TEXT, 0, 8192, NULL, "\"\"", true, true,
		"Temporary token for the guard; never returned." },
	{ "waf.mode", FEATURE_WORD, 0, 0, "block|detect", "\"block\"", false, true,
		"Whether Waf refuses requests or only tells of them." },
	{ "waf.rules", FEATURE_TEXT, 0, 4096, NULL, "\"\"", false, true,
		"Path of the rule set on the node: a file of ModSecurity directives, or a folder with *.conf. \"\": "
		"the OWASP Core Rule Set where Debian's package modsecurity-crs puts it." },
	{ "waf.rules_version", FEATURE_TEXT, 0, 256, NULL, "\"\"", false, true,
		"Any text. A new one has the rule files read again." },
	{ "waf.paranoia", FEATURE_INT, 1, 4, NULL, "1", false, true,
		"Paranoia level of the Core Rule Set: more rules, and more requests that are refused without need." },
	{ "waf.inbound_threshold", FEATURE_INT, 1, 1000, NULL, "5", false, true,
		"Anomaly score from which a request is refused." },
	{ "waf.outbound_threshold", FEATURE_INT, 1, 1000, NULL, "4", false, true,
		"Anomaly score from which a response is replaced." },
	{ "waf.inspect_responses", FEATURE_BOOL, 0, 0, NULL, "true", false, true,
		"Whether responses are inspected. Upstreams are asked for bodies that are not compressed then." },
	{ "waf.body_limit", FEATURE_INT, 1024, 104857600, NULL, "13107200", false, true,
		"How long an inspected multipart body may be; longer ones get 413." },
	{ "waf.body_nofiles_limit", FEATURE_INT, 1024, 104857600, NULL, "131072", false, true,
		"How long other inspected bodies and the fields of a multipart one may be; longer ones get 413." },
	{ "waf.budget_ms", FEATURE_INT, 1, 10000, NULL, "100", false, true,
		"CPU that the rules may take for one request and its response; 20 ms more for each MiB of its body." },
	{ "waf.timeout_action", FEATURE_WORD, 0, 0, "score|block", "\"score\"", false, true,
		"What becomes of requests that use it up: the score so far decides, or they are refused." },
	{ "waf.exclusions", FEATURE_EXCLUSIONS, 0, 1024, NULL, "[]", false, true,
		"Rules left out: \"RESOURCE RULES\" or \"RESOURCE RULES TARGET\". RESOURCE is the id of a route, API "
		"or operation, or *; RULES a number, a range or a tag; TARGET what alone they leave out, such as "
		"ARGS:text." },
	{ "waf.ai_inspect_prompts", FEATURE_BOOL, 0, 0, NULL, "false", false, true,
		"Whether the texts of requests to models are inspected too: they hold code and SQL for good reasons." },
	{ "waf.log_data", FEATURE_BOOL, 0, 0, NULL, "false", false, true,
		"Whether what matched stands in the log: data of clients." },
	{ NULL, FEATURE_BOOL, 0, 0, NULL, NULL, false, false, NULL },
};

enum { FEATURES_MAX = 64, ITEM_BYTES_MAX = 512 };

/* Defaults of this process by row, parsed once; the settings file's or the table's. */
static struct {
	struct arena arena;
	const struct json *values[FEATURES_MAX];
} defaults;

const struct feature *feature_find(struct str name)
{
	for (const struct feature *f = features; f->name; f++)
		if (str_equal(str_of(f->name), name))
			return f;
	return NULL;
}

static bool check_word(const struct feature *f, const struct json *v, struct problem *why)
{
	struct str words = str_of(f->words), word;

	while (v->type == JSON_STRING && str_split(&words, '|', &word))
		if (str_equal(word, v->string))
			return true;
	return problem(why, "", "must be one of %s", f->words);
}

static bool check_item(const struct feature *f, const struct json *v, struct problem *why)
{
	struct ip ip;
	unsigned prefix;

	if (v->type != JSON_STRING || !v->string.n || v->string.n > ITEM_BYTES_MAX)
		return problem(why, "", "must be a string of 1 to %d bytes", ITEM_BYTES_MAX);
	if (f->type == FEATURE_EXCLUSIONS)
		return waf_exclusion_check(v->string, why);
	if (f->type == FEATURE_STATUSES)
		return ai_fallback_check_status(v->string, why);
	if (f->type == FEATURE_CIDRS && !cidr_parse(v->string, &ip, &prefix))
		return problem(why, "", "must be an address or CIDR such as 10.0.0.0/8");
	return true;
}

static bool check_list(const struct feature *f, const struct json *v, struct problem *why)
{
	char at[24];
	unsigned i = 0;

	if (v->type != JSON_ARRAY)
		return problem(why, "", "must be a list");
	if (v->n < (uint64_t)f->min || v->n > (uint64_t)f->max)
		return problem(why, "", "must have between %lld and %lld items, not %u", (long long)f->min,
			(long long)f->max, v->n);
	for (const struct json *item = v->child; item; item = item->next, i++) {
		if (check_item(f, item, why))
			continue;
		snprintf(at, sizeof at, "[%u]", i);
		problem_prefix(why, at);
		return false;
	}
	return true;
}

bool feature_check(const struct feature *f, const struct json *v, struct problem *why)
{
	switch (f->type) {
	case FEATURE_BOOL:
		return v->type == JSON_BOOL || problem(why, "", "must be true or false");
	case FEATURE_INT:
		if (v->type == JSON_INT && v->integer >= f->min && v->integer <= f->max)
			return true;
		return problem(why, "", "must be an integer between %lld and %lld", (long long)f->min,
			(long long)f->max);
	case FEATURE_TEXT:
		if (v->type == JSON_STRING && v->string.n <= (uint64_t)f->max)
			return true;
		return problem(why, "", "must be a string of at most %lld bytes", (long long)f->max);
	case FEATURE_WORD:
		return check_word(f, v, why);
	case FEATURE_CIDRS: case FEATURE_EXCLUSIONS: case FEATURE_STATUSES:
		return check_list(f, v, why);
	}
	return false;
}

static const struct json *default_of(const struct feature *f)
{
	size_t i = (size_t)(f - features);
	struct problem why;

	BUG_ON(i >= FEATURES_MAX);
	if (!defaults.values[i])
		defaults.values[i] = json_parse(&defaults.arena, str_of(f->fallback), &why);
	return defaults.values[i];
}

bool feature_set_defaults(const struct json *values, struct problem *why)
{
	arena_free(&defaults.arena);
	memset(defaults.values, 0, sizeof defaults.values);
	for (const struct json *v = values ? values->child : NULL; v; v = v->next) {
		const struct feature *f = feature_find(v->name);

		if (!f)
			return problem(why, v->name.p, "is no gateway setting");
		if (!feature_check(f, v, why)) {
			problem_prefix(why, f->name);
			return false;
		}
		defaults.values[f - features] = json_clone(&defaults.arena, v);
	}
	return true;
}

struct str feature_id(struct str gateway_id, struct str name, char out[FEATURE_ID_MAX])
{
	int n = snprintf(out, FEATURE_ID_MAX, "feature-%.*s-%.*s", STR_FMT(gateway_id), STR_FMT(name));

	return (struct str){ out, n < FEATURE_ID_MAX ? (size_t)n : FEATURE_ID_MAX - 1 };
}

const struct json *feature_value(const struct model *m, struct str gateway_id, const char *name)
{
	const struct feature *f = feature_find(str_of(name));
	char id[FEATURE_ID_MAX];

	BUG_ON(!f);
	const struct resource *r = model_get(m, RESOURCE_FEATURE, feature_id(gateway_id, str_of(name), id));

	return r ? json_get(r->doc, "value") : default_of(f);
}
