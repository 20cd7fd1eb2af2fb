/*
 * property.c -- what a policy may read of a request by name: the values of HeaderModify's Reference.
 *
 * A value goes into a header, so it is never longer than 8 KiB and never holds a control byte; what would is
 * absent.
 */
#include <stdio.h>
#include <time.h>
#include "core/clock.h"
#include "http/uri.h"
#include "proxy/exchange.h"

#define VALUE_MAX 8192

enum property_id {
	REQUEST_METHOD, REQUEST_SCHEME, REQUEST_HOST, REQUEST_PATH, REQUEST_URI, REQUEST_QUERY, REQUEST_HEADER,
	REQUEST_COOKIE, REQUEST_ID, CLIENT_IP, CLIENT_PORT, CONSUMER_ID, CONSUMER_NAME, JWT_CLAIM, GATEWAY_ID,
	DOMAIN_NAME, ROUTE_ID, ROUTE_NAME, SERVICE_ID, LANE_TAG, TIME_UNIX, TIME_ISO8601, RESPONSE_STATUS,
	RESPONSE_HEADER, UPSTREAM_ADDRESS, UPSTREAM_DURATION_MS, PROPERTY_COUNT
};

static const struct {
	const char *name;                 /* one that ends in a dot is followed by an argument */
	bool response_only;
} properties[PROPERTY_COUNT] = {
	[REQUEST_METHOD] = { "request.method", false },
	[REQUEST_SCHEME] = { "request.scheme", false },
	[REQUEST_HOST] = { "request.host", false },
	[REQUEST_PATH] = { "request.path", false },
	[REQUEST_URI] = { "request.uri", false },
	[REQUEST_QUERY] = { "request.query.", false },
	[REQUEST_HEADER] = { "request.header.", false },
	[REQUEST_COOKIE] = { "request.cookie.", false },
	[REQUEST_ID] = { "request.id", false },
	[CLIENT_IP] = { "client.ip", false },
	[CLIENT_PORT] = { "client.port", false },
	[CONSUMER_ID] = { "consumer.id", false },
	[CONSUMER_NAME] = { "consumer.name", false },
	[JWT_CLAIM] = { "jwt.claim.", false },
	[GATEWAY_ID] = { "gateway.id", false },
	[DOMAIN_NAME] = { "domain.name", false },
	[ROUTE_ID] = { "route.id", false },
	[ROUTE_NAME] = { "route.name", false },
	[SERVICE_ID] = { "service.id", false },
	[LANE_TAG] = { "lane.tag", false },
	[TIME_UNIX] = { "time.unix", false },
	[TIME_ISO8601] = { "time.iso8601", false },
	[RESPONSE_STATUS] = { "response.status", true },
	[RESPONSE_HEADER] = { "response.header.", true },
	[UPSTREAM_ADDRESS] = { "upstream.address", true },
	[UPSTREAM_DURATION_MS] = { "upstream.duration_ms", true },
};

#define ABSENT ((struct str){ NULL, 0 })

static bool is_argument(enum property_id id, struct str argument)
{
	if (id == REQUEST_HEADER || id == RESPONSE_HEADER || id == REQUEST_COOKIE)
		return header_is_token(argument);
	return argument.n > 0 && header_is_value(argument);
}

bool property_parse(struct str name, bool response, struct property *out)
{
	for (unsigned id = 0; id < PROPERTY_COUNT; id++) {
		struct str known = str_of(properties[id].name);
		bool is_family = known.p[known.n - 1] == '.';

		if (is_family ? !str_starts(name, known) : !str_equal(name, known))
			continue;
		if (properties[id].response_only && !response)
			return false;
		*out = (struct property){ .id = (uint8_t)id };
		if (is_family)
			out->argument = (struct str){ name.p + known.n, name.n - known.n };
		return !is_family || is_argument((enum property_id)id, out->argument);
	}
	return false;
}

bool property_known(struct str name, bool response)
{
	struct property unused;

	return property_parse(name, response, &unused);
}

static bool is_printable(struct str s)
{
	for (size_t i = 0; i < s.n; i++)
		if (s.p[i] < 0x20 || s.p[i] > 0x7e)
			return false;
	return true;
}

/* Percent-decoded when that gives printable ASCII; as it came otherwise. */
static struct str decode(struct exchange *x, struct str raw, bool form)
{
	struct str text = raw.n ? uri_decode(&x->arena, raw, form) : raw;

	return text.p && is_printable(text) ? text : raw;
}

struct str exchange_scheme(const struct exchange *x)
{
	struct str said = message_value(&x->stream.req, HEADER_X_FORWARDED_PROTO);

	if (x->trusted_peer && str_equal_nocase(said, STR("https")))
		return STR("https");
	if (x->trusted_peer && str_equal_nocase(said, STR("http")))
		return STR("http");
	return exchange_is_tls(x) ? STR("https") : STR("http");
}

/* ---- what the client asked for, in pieces ---- */

struct str exchange_host(const struct exchange *x)
{
	return x->host;
}

struct str exchange_path(const struct exchange *x)
{
	return x->path;
}

struct str exchange_query(const struct exchange *x)
{
	return x->query;
}

struct str exchange_domain_id(const struct exchange *x)
{
	return x->site ? x->site->domain_id : ABSENT;
}

/* Bytes of the first n segments, the slash behind them left out; of none, the slash at the beginning. */
static size_t length_of_segments(struct str path, unsigned n)
{
	size_t at = 0;

	for (; n > 0 && at < path.n; n--)
		do
			at++;
		while (at < path.n && path.p[at] != '/');
	return at ? at : 1;
}

enum fixed_path exchange_fixed_path(const struct exchange *x, size_t *n)
{
	const struct route *r = x->route;

	if (r->has_base) {
		*n = length_of_segments(x->path, r->base_segments);
		return FIXED_PREFIX;
	}
	*n = r->path.n;
	if (r->match == MATCH_PREFIX)
		return FIXED_PREFIX;
	return r->match == MATCH_REGEX ? FIXED_NONE : FIXED_WHOLE;
}

static struct str host(const struct exchange *x)
{
	struct str name;
	uint16_t port;

	return uri_split_authority(x->host, &name, &port) ? name : x->host;
}

static struct str uri(struct exchange *x)
{
	if (!x->query.p)
		return x->path;
	return arena_printf(&x->arena, "%.*s?%.*s", STR_FMT(x->path), STR_FMT(x->query));
}

static struct str request_value(struct exchange *x, const struct property *p)
{
	const struct message *req = &x->stream.req;

	switch ((enum property_id)p->id) { /* flat switch */
	case REQUEST_METHOD:
		return req->method_name;
	case REQUEST_SCHEME:
		return exchange_scheme(x);
	case REQUEST_HOST:
		return host(x);
	case REQUEST_PATH:
		return x->path;
	case REQUEST_URI:
		return uri(x);
	case REQUEST_QUERY:
		return decode(x, query_value(x->query, p->argument), true);
	case REQUEST_HEADER:
		return message_join(req, p->argument);
	case REQUEST_COOKIE:
		return decode(x, message_cookie(req, p->argument), false);
	case REQUEST_ID:
		return x->request_id;
	case CONSUMER_ID:
		return x->consumer_id;
	case CONSUMER_NAME:
		return x->consumer;
	case JWT_CLAIM:
		return exchange_claim(x, p->argument);
	case LANE_TAG:
		return x->lane.n ? x->lane : ABSENT;
	default:
		return ABSENT;
	}
}

static struct str iso8601(struct arena *a)
{
	time_t now = (time_t)(clock_wall_ms() / 1000);
	struct tm tm;
	char text[32];
	size_t n;

	gmtime_r(&now, &tm);
	n = strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &tm);
	return arena_copy(a, (struct str){ text, n });
}

/* The service of the exchange; before one was picked, the only one there is. */
static struct str service_id(const struct exchange *x)
{
	if (x->service)
		return x->service->id;
	return x->route && x->route->n_targets == 1 ? x->route->targets[0].service_id : ABSENT;
}

static struct str client_ip(struct exchange *x)
{
	char text[46];
	size_t n = ip_print(&x->client_ip, text);

	return arena_copy(&x->arena, (struct str){ text, n });
}

static struct str duration_ms(struct exchange *x)
{
	int64_t end = x->upstream_head_us ? x->upstream_head_us : x->upstream_end_us;

	if (!x->upstream_start_us || end < x->upstream_start_us)
		return ABSENT;
	return arena_printf(&x->arena, "%lld", (long long)((end - x->upstream_start_us) / 1000));
}

static struct str exchange_value(struct exchange *x, const struct property *p)
{
	switch ((enum property_id)p->id) { /* flat switch */
	case CLIENT_IP:
		return client_ip(x);
	case CLIENT_PORT:
		return x->peer_port ? arena_printf(&x->arena, "%u", x->peer_port) : ABSENT;
	case GATEWAY_ID:
		return x->site ? x->site->gateway->id : ABSENT;
	case DOMAIN_NAME:
		return x->site ? x->site->domain_name : ABSENT;
	case ROUTE_ID:
		return x->route ? x->route->id : ABSENT;
	case ROUTE_NAME:
		return x->route ? x->route->name : ABSENT;
	case SERVICE_ID:
		return service_id(x);
	case TIME_UNIX:
		return arena_printf(&x->arena, "%lld", (long long)(clock_wall_ms() / 1000));
	case TIME_ISO8601:
		return iso8601(&x->arena);
	case RESPONSE_STATUS:
		return arena_printf(&x->arena, "%d", x->res.status);
	case RESPONSE_HEADER:
		return message_join(&x->res, p->argument);
	case UPSTREAM_ADDRESS:
		return x->endpoint ? x->endpoint->text : ABSENT;
	case UPSTREAM_DURATION_MS:
		return duration_ms(x);
	default:
		return ABSENT;
	}
}

struct str property_value(struct exchange *x, const struct property *p)
{
	bool is_request = p->id <= REQUEST_ID || (p->id >= CONSUMER_ID && p->id <= JWT_CLAIM) || p->id == LANE_TAG;
	struct str value = is_request ? request_value(x, p) : exchange_value(x, p);

	if (value.n > VALUE_MAX)
		value.n = VALUE_MAX;
	return header_is_value(value) ? value : ABSENT;
}

struct str exchange_property(struct exchange *x, struct str name)
{
	struct property p;

	return property_parse(name, true, &p) ? property_value(x, &p) : ABSENT;
}

const char *exchange_flag(const struct exchange *x)
{
	return x->flag ? x->flag : "";
}
