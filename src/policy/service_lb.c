/*
 * service_lb.c -- ServiceLb: how requests are spread over the endpoints of a service. A setting: proxy/balance.c acts.
 */
#include "http/message.h"
#include "policy/formats.h"
#include "proxy/balance.h"
#include "proxy/policy.h"

enum balancer {
	BALANCER_ROUND_ROBIN = BALANCE_IN_TURN, BALANCER_LEAST_CONN = BALANCE_LEAST_BUSY,
	BALANCER_RANDOM = BALANCE_AT_RANDOM, BALANCER_HASH = BALANCE_BY_HASH
};
/* What is hashed; 0 is nothing, of a config that uses no hash. */
enum hash_key { HASH_NONE, HASH_HEADER, HASH_COOKIE, HASH_SOURCE_IP, HASH_QUERY };

static const enum balance_key keys[] = {
	[HASH_HEADER] = BALANCE_KEY_HEADER, [HASH_COOKIE] = BALANCE_KEY_COOKIE, [HASH_SOURCE_IP] = BALANCE_KEY_ADDRESS,
	[HASH_QUERY] = BALANCE_KEY_QUERY,
};

#define AGE_MAX_S INT64_C(2147483647)    /* of a cookie: what every client understands */

struct hash_cookie {
	struct str name;
	struct str path;
	struct str ttl;
};

struct hash_config {
	struct str parameterName;
	struct hash_cookie httpCookie;
	int64_t minimumRingSize;
	int consistentHashLBType;
};

struct service_lb {
	int loadBalancerType;
	struct hash_config consistentHashLBConfig;
	int64_t warmupDuration;
	bool enable;
	struct balance balance;           /* by prepare() */
};

static const struct choice balancers[] = {
	{ BALANCER_ROUND_ROBIN, "ROUND_ROBIN", "each endpoint in turn, by weight", NULL },
	{ BALANCER_LEAST_CONN, "LEAST_CONN", "the one of two with fewer requests in flight", NULL },
	{ BALANCER_RANDOM, "RANDOM", "any endpoint, by weight", NULL },
	{ BALANCER_HASH, "CONSISTENT_HASH", "the same endpoint for the same key", NULL },
	{ 0, NULL, NULL, NULL }
};

static const struct choice hash_keys[] = {
	{ HASH_HEADER, "HEADER", "the request header parameterName", NULL },
	{ HASH_COOKIE, "COOKIE", "the cookie httpCookie.name", NULL },
	{ HASH_SOURCE_IP, "SOURCE_IP", "the client's address", NULL },
	{ HASH_QUERY, "QUERY_PARAMETER", "the query parameter parameterName", NULL },
	{ 0, NULL, NULL, NULL }
};

static bool check_cookie_path(struct str path, struct problem *why)
{
	if (memchr(path.p, ';', path.n))
		return problem(why, "", "must not contain a semicolon");
	return path_check(path, true, why);
}

static const struct field cookie_fields[] = {
	TEXT(struct hash_cookie, name, RANGE(0, 256), FORMAT(format_header_name), EXAMPLE("\"session-id\""),
	     DOC("Name of the cookie; required for COOKIE.")),
	TEXT(struct hash_cookie, path, RANGE(0, 1024), FORMAT(check_cookie_path), EXAMPLE("\"/\""),
	     DOC("Path of a cookie the gateway sets.")),
	TEXT(struct hash_cookie, ttl, RANGE(0, 32), FORMAT(format_duration), EXAMPLE("\"3600s\""),
	     DOC("Life of a cookie the gateway sets when the client has none; 0 ends with the session; "
	     "absent: sets none.")),
	FIELDS_END
};

static const struct field hash_fields[] = {
	TEXT(struct hash_config, parameterName, RANGE(0, 256), FORMAT(format_name), EXAMPLE("\"user-id\""),
	     DOC("Name of the header or query parameter; required for HEADER and QUERY_PARAMETER.")),
	OBJECT(struct hash_config, httpCookie, cookie_fields, DOC("The cookie; required for COOKIE.")),
	INT(struct hash_config, minimumRingSize, RANGE(1, 8388608), DEFAULT("1024"),
	    DOC("Least number of points on the hash ring.")),
	CHOICE(struct hash_config, consistentHashLBType, hash_keys, DOC("What is hashed; required for "
	       "CONSISTENT_HASH.")),
	FIELDS_END
};

static const struct field fields[] = {
	CHOICE(struct service_lb, loadBalancerType, balancers, REQUIRED, DOC("How an endpoint is chosen.")),
	OBJECT(struct service_lb, consistentHashLBConfig, hash_fields, ONLY_WHEN("loadBalancerType", BALANCER_HASH),
	       DOC("The key of CONSISTENT_HASH; not used otherwise.")),
	INT(struct service_lb, warmupDuration, RANGE(0, 3600), UNIT("s"), DEFAULT("0"), EXAMPLE("60"),
	    DOC("How long a new endpoint's share grows to the full one, with ROUND_ROBIN and LEAST_CONN.")),
	BOOL(struct service_lb, enable, REQUIRED, DOC("Whether the policy acts; when false, ROUND_ROBIN.")),
	FIELDS_END
};

static bool check_key(const struct hash_config *hash, struct problem *why)
{
	switch ((enum hash_key)hash->consistentHashLBType) {
	case HASH_HEADER:
		if (hash->parameterName.n && !format_header_name(hash->parameterName, why)) {
			problem_prefix(why, "parameterName");
			return false;
		}
		return hash->parameterName.n > 0 ||
		       problem(why, "parameterName", "is required when consistentHashLBType is HEADER");
	case HASH_QUERY:
		return hash->parameterName.n > 0 ||
		       problem(why, "parameterName", "is required when consistentHashLBType is "
		       "QUERY_PARAMETER");
	case HASH_COOKIE:
		return hash->httpCookie.name.n > 0 || problem(why, "httpCookie.name", "is required when "
			"consistentHashLBType is COOKIE");
	case HASH_SOURCE_IP:
		return true;
	case HASH_NONE:
		break;
	}
	return problem(why, "consistentHashLBType", "is required when loadBalancerType is CONSISTENT_HASH");
}

static bool check(const void *conf, struct problem *why)
{
	const struct service_lb *lb = conf;

	if (lb->loadBalancerType == BALANCER_HASH && !check_key(&lb->consistentHashLBConfig, why)) {
		problem_prefix(why, "consistentHashLBConfig");
		return false;
	}
	return true;
}

/*
 * Whole seconds of a duration that format_duration() accepts, rounded up, so that only zero is 0: digits, perhaps a
 * point and digits, a unit.
 */
static int64_t duration_s(struct str ttl)
{
	static const struct {
		struct str name;
		int64_t ms;
	} units[] = { { { "ms", 2 }, 1 }, { { "s", 1 }, 1000 }, { { "m", 1 }, 60000 }, { { "h", 1 }, 3600000 } };
	int64_t value = 0, scale = 1, unit_ms = 1000;
	bool is_fraction = false, is_more = false;
	size_t i = 0;

	for (; i < ttl.n && (ttl.p[i] == '.' || (ttl.p[i] >= '0' && ttl.p[i] <= '9')); i++) {
		if (ttl.p[i] == '.') {
			is_fraction = true;
		} else if (is_fraction ? scale == 1000 : value > AGE_MAX_S) {
			is_more = is_more || ttl.p[i] != '0';
		} else {
			value = value * 10 + (ttl.p[i] - '0');
			scale = is_fraction ? scale * 10 : scale;
		}
	}
	for (size_t u = 0; u < sizeof(units) / sizeof(units[0]); u++)
		if (str_equal((struct str){ ttl.p + i, ttl.n - i }, units[u].name))
			unit_ms = units[u].ms;
	if (value / scale > AGE_MAX_S)
		return AGE_MAX_S;
	value = (value * unit_ms + is_more + scale * 1000 - 1) / (scale * 1000);
	return value < AGE_MAX_S ? value : AGE_MAX_S;
}

static void prepare_hash(const struct hash_config *hash, struct balance *b)
{
	b->key = keys[hash->consistentHashLBType];
	b->ring_points = (uint32_t)hash->minimumRingSize;
	b->name = hash->parameterName;
	if (b->key == BALANCE_KEY_HEADER)
		b->header_id = (uint16_t)header_lookup(b->name);
	if (b->key != BALANCE_KEY_COOKIE)
		return;
	b->name = hash->httpCookie.name;
	b->cookie_path = hash->httpCookie.path;
	b->sets_cookie = hash->httpCookie.ttl.n > 0;
	b->cookie_age_s = duration_s(hash->httpCookie.ttl);
}

static bool prepare(void *conf, struct arena *a, struct problem *why)
{
	struct service_lb *lb = conf;

	(void)a;
	(void)why;
	lb->balance = (struct balance){ .method = (enum balance_method)lb->loadBalancerType };
	if (lb->balance.method == BALANCE_BY_HASH)
		prepare_hash(&lb->consistentHashLBConfig, &lb->balance);
	if (lb->balance.method == BALANCE_IN_TURN || lb->balance.method == BALANCE_LEAST_BUSY)
		lb->balance.warmup_ms = lb->warmupDuration * 1000;
	return true;
}

/* In turn and without warming up is what a service does anyway. */
static void apply(const void *conf, struct settings *settings)
{
	const struct service_lb *lb = conf;

	if (lb->balance.method != BALANCE_IN_TURN || lb->balance.warmup_ms > 0)
		settings->balance = &lb->balance;
}

const struct policy_class service_lb = {
	.name = "ServiceLb",
	.alias = "Service load balancing",
	.summary = "Says how requests are spread over the endpoints of a service.",
	.group = "Service",
	.scopes = SCOPE_SERVICE,
	.stage = STAGE_SETTING,
	.combine = COMBINE_SPECIFIC,
	.is_enforced = true,
	.execute_stage = "PluginPost",
	.execute_priority = 480,
	.fields = fields,
	.conf_size = sizeof(struct service_lb),
	.enable_at = offsetof(struct service_lb, enable),
	.check = check,
	.prepare = prepare,
	.apply = apply,
	.setting = SETTING_BALANCE,
	.outcomes = { "chosen", "panicked" },
};
