#include "proxy/secure.h"
#include "core/log.h"
#include "core/metric.h"
#include "http/uri.h"
#include "proxy/worker.h"

static struct {
	struct series *full, *resumed;
	struct series *failed[TLS_FAILURE_COUNT];
} metrics;

void secure_metrics(void)
{
	metrics.full = metric_series(METRIC_HANDSHAKES, &STR("full"));
	metrics.resumed = metric_series(METRIC_HANDSHAKES, &STR("resumed"));
	for (enum tls_failure i = 0; i < TLS_FAILURE_COUNT; i++) {
		struct str tag = str_of(tls_failure_tag(i));

		metrics.failed[i] = metric_series(METRIC_HANDSHAKE_FAILURES, &tag);
	}
}

bool secure_handshake_done(struct server_connection *c)
{
	const struct worker_listener *l = connection_listener(c)->owner;

	metric_add(tls_is_resumed(connection_tls(c)) ? metrics.resumed : metrics.full, 1);
	/* The configuration may have gone since: then there is nothing to serve. */
	if (!l->binding)
		return false;
	if (l->binding->carries != CARRIES_HTTP)
		connection_carry_bytes(c, tls_name(connection_tls(c)));
	return true;
}

void secure_handshake_failed(struct server_connection *c, enum tls_failure why, const char *text)
{
	const struct tls *tls = connection_tls(c);
	struct ip peer = addr_ip(connection_peer(c));
	char ip[46];

	metric_add(metrics.failed[why], 1);
	log_info("tls.handshake_failed", F_STR("client", ((struct str){ ip, ip_print(&peer, ip) })),
		 F_STR("sni", tls ? tls_name(tls) : STR("")), F_TEXT("reason", tls_failure_tag(why)),
		 F_TEXT("detail", text));
}

/* ---------- hosts ---------- */

/* Whether a hop that is believed says that the client came by https. */
static bool came_by_https(const struct exchange *x)
{
	return x->trusted_peer &&
	       str_equal_nocase(message_value(&x->stream.req, HEADER_X_FORWARDED_PROTO), STR("https"));
}

void secure_redirect(struct exchange *x)
{
	struct str host = x->host, location;
	uint16_t port = 0, to = x->site->https_port;

	if (!uri_split_authority(x->host, &host, &port))
		host = x->host;
	/* An IPv6 address loses its brackets when it is split. */
	bool is_v6 = str_find(host, ':') < host.n && host.p[0] != '[';
	char digits[8] = "";

	if (to != 443)
		snprintf(digits, sizeof digits, ":%u", to);
	location = arena_printf(&x->arena, "https://%s%.*s%s%s%.*s%s%.*s", is_v6 ? "[" : "", STR_FMT(host),
				is_v6 ? "]" : "", digits, STR_FMT(x->path), x->query.p ? "?" : "", STR_FMT(x->query));
	x->reason = REASON_HTTPS_ONLY;
	reply(x, 308, (struct str){ 0 }, (struct str){ 0 });
	message_add_id(&x->res, HEADER_LOCATION, location);
}

enum reason_id secure_judge(const struct exchange *x, const struct tls *tls)
{
	const struct site *site = x->site;

	if (!tls && site->force_https && !came_by_https(x))
		return REASON_HTTPS_ONLY;
	if (site->asks_client && !(tls && tls_has_client(tls, site->client_ca)))
		return REASON_CLIENT_UNPROVEN;
	return tls && tls_version(tls) < site->tls_min ? REASON_TLS_VERSION : REASON_COMPLETED;
}

bool secure_admit(struct exchange *x)
{
	const struct tls *tls = connection_tls(x->stream.connection);
	enum reason_id reason = secure_judge(x, tls);

	if (reason == REASON_COMPLETED)
		return true;
	if (reason == REASON_HTTPS_ONLY) {
		secure_redirect(x);
		exchange_begin_response(x);
	} else {
		exchange_reply_reason(x, tls ? 421 : 403, reason, "ErrForbidden");
	}
	return false;
}

bool secure_admits_tunnel(const struct exchange *x)
{
	const struct tls *tls = connection_tls(x->stream.connection);
	const struct site *site = x->site;

	if (!tls)
		return true;
	return tls_version(tls) >= site->tls_min && (!site->asks_client || tls_has_client(tls, site->client_ca));
}

struct str secure_record(struct exchange *x)
{
	const struct tls *tls = connection_tls(x->stream.connection);
	struct str version = record_fragment(&x->arena, "tls", str_of(tls_version_name(tls_version(tls))));

	if (!tls_name(tls).n)
		return version;
	struct str name = record_fragment(&x->arena, "sni", tls_name(tls));
	char *both = arena_take(&x->arena, version.n + name.n);

	memcpy(both, version.p, version.n);
	memcpy(both + version.n, name.p, name.n);
	return (struct str){ both, version.n + name.n };
}
