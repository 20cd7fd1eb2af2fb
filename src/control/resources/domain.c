/* domain.c -- a host name of a gateway, with its own policies and routes. */
#include "control/resources/shared.h"

static const struct choice protocols[] = {
	{ DOMAIN_HTTP, "HTTP", "HTTP in the clear", NULL },
	{ DOMAIN_HTTPS, "HTTPS", "HTTP over TLS", NULL },
	{ 0, NULL, NULL, NULL },
};

static const struct field fields[] = {
	TEXT(struct domain_doc, name, REQUIRED, IMMUTABLE, RANGE(1, 255), FORMAT(format_domain),
		EXAMPLE("\"a.example.com\""),
		DOC("Host name, a.example.com or *.example.com; unique in the gateway.")),
	TEXT(struct domain_doc, gatewayId, REQUIRED, IMMUTABLE, RANGE(1, 64), REFERS("gateway"),
		DOC("Gateway it belongs to.")),
	CHOICE(struct domain_doc, protocol, protocols, DEFAULT("\"HTTP\""), ANY_CASE,
		DOC("Protocol of its clients.")),
	TEXT(struct domain_doc, certIdentifier, RANGE(1, 64), REFERS("certificate"),
		WHEN("protocol", DOMAIN_HTTPS), DOC("Id of the certificate shown to clients.")),
	BOOL(struct domain_doc, forceHttps, DEFAULT("false"),
		DOC("Whether requests in the clear are redirected to https.")),
	CHOICE(struct domain_doc, tlsMin, tls_versions,
		DOC("Earliest TLS version; the gateway's when left out.")),
	CHOICE(struct domain_doc, tlsMax, tls_versions,
		DOC("Latest TLS version; the gateway's when left out.")),
	BOOL(struct domain_doc, mTLSEnabled, DEFAULT("false"),
		DOC("Whether clients must show a certificate.")),
	TEXT(struct domain_doc, clientCACert, RANGE(1, 262144), FORMAT(format_pem), WHEN("mTLSEnabled", 1),
		DOC("Certificates, in PEM, that clients' certificates must come from.")),
	FIELDS_END
};

static void adapt(struct json *doc, struct arena *a)
{
	adapt_lower(doc, "name", a);
	adapt_tls_version(doc, "tlsMin", a);
	adapt_tls_version(doc, "tlsMax", a);
}

static bool check(const void *in, struct problem *why)
{
	const struct domain_doc *d = in;

	if (d->tlsMin && d->tlsMax && d->tlsMin > d->tlsMax)
		return problem(why, "tlsMin", "must not be later than tlsMax");
	if (d->forceHttps && d->protocol != DOMAIN_HTTPS)
		return problem(why, "forceHttps", "must be false when protocol is \"HTTP\"");
	if (d->mTLSEnabled && d->protocol != DOMAIN_HTTPS)
		return problem(why, "mTLSEnabled", "must be false when protocol is \"HTTP\"");
	return true;
}

static bool complete(struct draft *d, struct problem *why)
{
	const struct domain_doc *in = d->in;
	const struct resource *r =
		in->certIdentifier.n ? model_get(d->model, RESOURCE_CERTIFICATE, in->certIdentifier) : NULL;

	if (r && !json_text(r->doc, "privateKey").n)
		return problem(why, "certIdentifier", "the certificate \"%.*s\" has no private key",
			STR_FMT(r->name));
	return true;
}

const struct resource_class domain_class = {
	.kind = RESOURCE_DOMAIN, .name = "domain", .noun = "Domain", .plural = "Domains", .attach_type = "Domain",
	.id_field = "domainId", .id_prefix = "dom-", .path = "/api/v1/domains", .scope = { "gatewayId" },
	.has_unique_name = true, .fields = fields, .size = sizeof(struct domain_doc),
	.doc = "A host name that a gateway answers for.", .adapt = adapt, .check = check, .complete = complete,
};
