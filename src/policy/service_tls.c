/*
 * service_tls.c -- ServiceTls and ServicePortTls: how the gateway speaks TLS to a service, or to one of its
 * ports.
 *
 * Both have the same config, which becomes a wish (struct tls_wish); what it refers to is looked up where the service
 * is compiled. The server is always verified: against the given CA, or the system's.
 */
#include "core/cidr.h"
#include "core/crypto.h"
#include "http/uri.h"
#include "net/tls_client.h"
#include "policy/formats.h"
#include "proxy/policy.h"

enum mode { MODE_DISABLE, MODE_SIMPLE, MODE_MUTUAL, MODE_ISTIO_MUTUAL };

struct service_tls {
	int mode;
	struct str certId;
	struct str caCertId;
	struct str caCertContent;
	struct items subjectAltNames;
	struct str sni;
	bool enable;
	struct tls_wish wish;             /* prepared */
};

static const struct choice modes[] = {
	{ MODE_SIMPLE, "SIMPLE", "TLS; the server is verified", NULL },
	{ MODE_DISABLE, "DISABLE", "no TLS", NULL },
	{ MODE_MUTUAL, "MUTUAL", "TLS, and the gateway shows the certificate certId", NULL },
	{ MODE_ISTIO_MUTUAL, "ISTIO_MUTUAL", "TLS with the gateway's workload identity; all other fields stay "
		"empty", NULL },
	{ 0, NULL, NULL, NULL }
};

/* scheme://something, as in spiffe://cluster.local/ns/a. */
static bool is_uri(struct str s)
{
	size_t colon = str_find(s, ':');

	return colon > 0 && s.n > colon + 3 && memcmp(s.p + colon, "://", 3) == 0 && !memchr(s.p, ' ', s.n);
}

static bool check_name(struct str s, struct problem *why)
{
	struct ip ip;

	if (!format_line(s, why))
		return false;
	if (!ip_parse(s, &ip) && !uri_is_dns_name(s, true) && !is_uri(s))
		return problem(why, "", "must be a DNS name, *.name, an IP address or a URI");
	return true;
}

static const struct field fields[] = {
	CHOICE(struct service_tls, mode, modes, REQUIRED, DOC("Whether and how TLS is used.")),
	TEXT(struct service_tls, certId, ONLY_WHEN("mode", MODE_MUTUAL), RANGE(0, 256), FORMAT(format_name),
	     REFERS("certificate"), EXAMPLE("\"cert-id-123\""), DOC("Certificate with private key that the "
	     "gateway shows.")),
	TEXT(struct service_tls, caCertId, RANGE(0, 256), FORMAT(format_name), REFERS("certificate"),
	     EXAMPLE("\"ca-cert-id-456\""), DOC("CA that the server is verified against; caCertContent is "
	     "preferred.")),
	TEXT(struct service_tls, caCertContent, RANGE(0, 262144),
	     EXAMPLE("\"-----BEGIN CERTIFICATE-----\\n...\\n-----END CERTIFICATE-----\""),
	     DOC("The CA as PEM text. Without one, the CAs of the system.")),
	TEXTS(struct service_tls, subjectAltNames, RANGE(0, 100), TEXT_MAX(1024), FORMAT(check_name),
	      EXAMPLE("[\"*.example.com\"]"),
	      DOC("Names of which the server's certificate has to bear one; without them it has to bear the "
	      "SNI or host.")),
	TEXT(struct service_tls, sni, RANGE(0, 253), FORMAT(format_dns_name),
	     EXAMPLE("\"backend-service.example.com\""),
	     DOC("Server name sent in the handshake; without it the host of the request, or the service's "
	     "name.")),
	BOOL(struct service_tls, enable, REQUIRED,
	     DOC("Whether the policy acts. When false on a port, the policy of its service does not act "
	     "either.")),
	FIELDS_END
};

static const char *first_extra(const struct service_tls *tls)
{
	if (tls->certId.n)
		return "certId";
	if (tls->caCertId.n)
		return "caCertId";
	if (tls->caCertContent.n)
		return "caCertContent";
	if (tls->subjectAltNames.n)
		return "subjectAltNames";
	return tls->sni.n ? "sni" : NULL;
}

static bool check(const void *conf, struct problem *why)
{
	const struct service_tls *tls = conf;

	if (tls->mode == MODE_ISTIO_MUTUAL && first_extra(tls))
		return problem(why, first_extra(tls), "must be empty when mode is ISTIO_MUTUAL");
	return true;
}

static bool prepare(void *conf, struct arena *a, struct problem *why)
{
	struct service_tls *tls = conf;
	static const int modes_to_wishes[] = {
		[MODE_DISABLE] = TLS_WISH_PLAIN, [MODE_SIMPLE] = TLS_WISH_SERVER, [MODE_MUTUAL] = TLS_WISH_MUTUAL,
		[MODE_ISTIO_MUTUAL] = TLS_WISH_WORKLOAD,
	};

	(void)a, (void)why;
	tls->wish = (struct tls_wish){
		.certificate_id = tls->certId, .ca_id = tls->caCertId, .ca_pem = tls->caCertContent,
		.names = tls->subjectAltNames.items, .n_names = tls->subjectAltNames.n, .sni = tls->sni,
	};
	/* Disabled on a port it takes the place of the service's policy all the same. */
	if (tls->enable)
		tls->wish.mode = modes_to_wishes[tls->mode];
	return true;
}

static void apply(const void *conf, struct settings *settings)
{
	const struct service_tls *tls = conf;

	settings->tls = &tls->wish;
}

static bool attach_certificate(const struct attach_target *t, struct str id, struct problem *why)
{
	const struct json *certificate = t->find(t, "certificate", id);
	struct str key, pem;

	if (!certificate)
		return problem(why, "certId", "there is no certificate \"%.*s\"", STR_FMT(id));
	key = json_text(certificate, "privateKey");
	pem = json_text(certificate, "certificate");
	if (key.n == 0)
		return problem(why, "certId", "certificate \"%.*s\" has no private key", STR_FMT(id));
	/* A stored key may be sealed or masked here; the pair was checked when the certificate was made. */
	if (crypto_pem_has_private_key(key) && !crypto_pem_pair_matches(pem, key))
		return problem(why, "certId", "the private key of \"%.*s\" does not fit its certificate",
			STR_FMT(id));
	return true;
}

static bool attach_ca(const struct attach_target *t, const struct service_tls *tls, struct problem *why)
{
	struct str content = tls->caCertContent;
	const struct json *ca;

	if (content.n && memmem(content.p, content.n, "PRIVATE KEY-----", 16))
		return problem(why, "caCertContent", "must not contain a private key");
	if (content.n && !tls_check_ca(content, why)) {
		problem_prefix(why, "caCertContent");
		return false;
	}
	if (content.n || tls->caCertId.n == 0)
		return true;
	ca = t->find(t, "certificate", tls->caCertId);
	if (!ca)
		return problem(why, "caCertId", "there is no certificate \"%.*s\"", STR_FMT(tls->caCertId));
	if (json_text(ca, "caCertificate").n == 0 && json_text(ca, "certificate").n == 0)
		return problem(why, "caCertId", "\"%.*s\" holds no certificate", STR_FMT(tls->caCertId));
	return true;
}

/* The setting is checked when it is made; its certificate may have changed since. */
static bool attach_workload(const struct attach_target *t, struct problem *why)
{
	const struct json *value = t->setting ? t->setting(t, "workloadIdentity") : NULL;
	const struct json *certificate = value && value->string.n ? t->find(t, "certificate", value->string) : NULL;

	if (!certificate)
		return problem(why, "mode", "ISTIO_MUTUAL needs a workload identity, and the gateway has none: name a "
			"certificate in its setting workloadIdentity");
	if (json_text(certificate, "privateKey").n && json_text(certificate, "caCertificate").n)
		return true;
	return problem(why, "mode", "the gateway's workload identity \"%.*s\" has no private key or no caCertificate",
		STR_FMT(value->string));
}

/* What goes through as it is, is TLS already. */
static bool passes_through(const struct attach_target *t)
{
	const struct json *gateway = t->find(t, "gateway", t->gateway_id);
	const struct json *port = gateway ? json_get(gateway, "externalPort") : NULL;

	return port && str_equal_nocase(json_text(port, "protocol"), STR("TLS")) &&
	       !json_is_true(gateway, "tlsTerminationEnable");
}

static bool attach(const void *conf, const struct attach_target *t, struct problem *why)
{
	const struct service_tls *tls = conf;

	if (tls->mode == MODE_DISABLE)
		return true;
	if (passes_through(t))
		return problem(why, "mode", "the gateway passes the TLS of its clients through; none can be added "
			"without tlsTerminationEnable");
	if (tls->mode == MODE_ISTIO_MUTUAL)
		return attach_workload(t, why);
	if (tls->mode == MODE_MUTUAL && !attach_certificate(t, tls->certId, why))
		return false;
	return attach_ca(t, tls, why);
}

const struct policy_class service_tls = {
	.name = "ServiceTls",
	.alias = "Service TLS",
	.summary = "Says how the gateway speaks TLS to a service.",
	.group = "Service",
	.scopes = SCOPE_SERVICE,
	.stage = STAGE_SETTING,
	.combine = COMBINE_OVERRIDE,
	.execute_stage = "PluginPost",
	.execute_priority = 210,
	.fields = fields,
	.conf_size = sizeof(struct service_tls),
	.enable_at = offsetof(struct service_tls, enable),
	.is_enforced = true,
	.suits_bytes = true,
	.check = check,
	.prepare = prepare,
	.attach = attach,
	.apply = apply,
	.setting = SETTING_TLS,
	.outcomes = { "secured", "refused" },
};

const struct policy_class service_port_tls = {
	.name = "ServicePortTls",
	.alias = "Service port TLS",
	.summary = "Says how the gateway speaks TLS to one port of a service, in place of the service's own "
		"policy.",
	.group = "Service",
	.scopes = SCOPE_SERVICE_PORT,
	.stage = STAGE_SETTING,
	.combine = COMBINE_OVERRIDE,
	.execute_stage = "PluginPost",
	.execute_priority = 200,
	.fields = fields,
	.conf_size = sizeof(struct service_tls),
	.enable_at = offsetof(struct service_tls, enable),
	.is_enforced = true,
	.suits_bytes = true,
	.check = check,
	.prepare = prepare,
	.attach = attach,
	.apply = apply,
	.setting = SETTING_TLS,
	.outcomes = { "secured", "refused" },
};
