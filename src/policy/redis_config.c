#include "policy/redis_config.h"
#include "http/uri.h"

static const struct str tls_scheme = { "rediss://", 9 };

static bool split_host(struct str text, struct str *host, uint16_t *port)
{
	if (str_starts(text, tls_scheme))
		text = (struct str){ text.p + tls_scheme.n, text.n - tls_scheme.n };
	return uri_split_authority(text, host, port) && uri_is_host(*host);
}

static bool check_host(struct str value, struct problem *why)
{
	struct str host;
	uint16_t port;

	if (!split_host(value, &host, &port))
		return problem(why, "", "must be a host name or address, optionally with a port: "
			"\"redis-service:6379\"; \"rediss://redis-service\" where it speaks TLS");
	return true;
}

const struct field redis_config_fields[] = {
	TEXT(struct redis_config, serviceHost, REQUIRED, RANGE(1, 255), FORMAT(check_host),
	     EXAMPLE("\"redis-service:6379\""),
	     DOC("Name or address of the Redis server. A port written here must equal `servicePort`; IPv6 "
	     "stands in brackets. `rediss://` before it: the server speaks TLS and is verified against the "
	     "system's CAs.")),
	INT(struct redis_config, servicePort, REQUIRED, RANGE(1, 65535), EXAMPLE("6379"),
	    DOC("Port of the Redis server.")),
	INT(struct redis_config, database, RANGE(0, 2147483647), DEFAULT("0"),
	    DOC("Number of the Redis database.")),
	TEXT(struct redis_config, username, RANGE(0, 256),
	     DOC("Name of the Redis user; empty: the default user.")),
	TEXT(struct redis_config, password, SECRET_SENT_TO("serviceHost", "servicePort"), RANGE(0, 4096),
	     EXAMPLE("\"redis-password\""),
	     DOC("Password of the Redis user; empty: no authentication.")),
	FIELDS_END
};

bool redis_config_check(const struct redis_config *r, struct problem *why)
{
	struct str host;
	uint16_t port;

	if (split_host(r->serviceHost, &host, &port) && port && port != r->servicePort)
		return problem(why, "redisConfig.servicePort",
			"is %lld, but serviceHost says port %u; give one port, or equal ones",
		               (long long)r->servicePort, port);
	return true;
}

struct str redis_config_host(const struct redis_config *r)
{
	struct str host = r->serviceHost;
	uint16_t port;

	if (!split_host(r->serviceHost, &host, &port))
		return r->serviceHost;
	return host.n > 2 && host.p[0] == '[' ? (struct str){ host.p + 1, host.n - 2 } : host;
}

bool redis_config_is_tls(const struct redis_config *r)
{
	return str_starts(r->serviceHost, tls_scheme);
}
