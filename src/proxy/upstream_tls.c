/* upstream_tls.c -- for which name a connection to an upstream is made; what became of handshakes. */
#include "proxy/upstream_tls.h"
#include "core/log.h"
#include "core/metric.h"
#include "http/uri.h"
#include "proxy/worker.h"

static struct {
	struct series *full, *resumed;
	struct series *failed[TLS_CLIENT_FAILURE_COUNT];
} metrics;

void upstream_tls_metrics(void)
{
	metrics.full = metric_series(METRIC_UPSTREAM_HANDSHAKES, &STR("full"));
	metrics.resumed = metric_series(METRIC_UPSTREAM_HANDSHAKES, &STR("resumed"));
	for (enum tls_client_failure i = TLS_CLIENT_NONE + 1; i < TLS_CLIENT_FAILURE_COUNT; i++) {
		struct str tag = str_of(tls_client_failure_tag(i));

		metrics.failed[i] = metric_series(METRIC_UPSTREAM_HANDSHAKE_FAILURES, &tag);
	}
}

static void ended(const struct handshake *h)
{
	char to[ADDR_TEXT];

	if (h->failure == TLS_CLIENT_NONE) {
		metric_add(h->is_resumed ? metrics.resumed : metrics.full, 1);
		return;
	}
	metric_add(metrics.failed[h->failure], 1);
	log_warn("upstream.tls_failed", F_STR("address", ((struct str){ to, h->addr ? addr_print(h->addr, to) : 0 })),
		 F_STR("name", h->server_name), F_TEXT("reason", tls_client_failure_tag(h->failure)),
		 F_TEXT("detail", h->text));
}

void upstream_tls_watch(struct client *c)
{
	client_watch_handshakes(c, ended);
}

/* The host of a Host field where it is a DNS name; absent otherwise. */
static struct str name_of(struct str authority)
{
	struct str host;
	uint16_t port;
	struct ip ip;

	if (authority.n == 0 || !uri_split_authority(authority, &host, &port) || ip_parse(host, &ip) ||
	    !uri_is_dns_name(host, false))
		return (struct str){ NULL, 0 };
	return host;
}

void upstream_secure_call(struct call *c, const struct endpoint *e, struct str host)
{
	c->tls = e->tls;
	c->server_name = (struct str){ NULL, 0 };
	c->takes_any_name = false;
	if (!c->tls)
		return;
	c->server_name = c->tls->sni.n ? c->tls->sni : name_of(host);
	if (!c->server_name.n)
		c->server_name = e->host;
}

void upstream_secure_probe(struct call *c, const struct tls_client *tls, struct str host, struct str endpoint_host)
{
	const struct endpoint e = { .tls = tls, .host = endpoint_host };

	upstream_secure_call(c, &e, host);
	c->takes_any_name = tls && !tls->sni.n && !name_of(host).n;
}

/* The client's TLS goes through as it is: it is the service's own. */
static bool passes_through(const struct exchange *x)
{
	const struct worker_listener *l = connection_listener(x->stream.connection)->owner;

	return x->is_tcp && l->binding && l->binding->carries == CARRIES_TLS;
}

void upstream_secure(struct exchange *x, struct call *c)
{
	if (UNLIKELY(passes_through(x)))
		return;
	upstream_secure_call(c, x->endpoint, x->is_tcp ? (struct str){ NULL, 0 } : x->stream.req.authority);
}

bool upstream_failed_for_name(const struct exchange *x, const struct call *c)
{
	return c->tls_failure == TLS_CLIENT_NAME && !c->tls->sni.n && c->server_name.p != x->endpoint->host.p;
}
