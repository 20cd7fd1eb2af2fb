/* certificate.c -- certificates and private keys in PEM; gateways name them by secretName, policies by id. */
#include "control/resources/shared.h"
#include "control/control_parts.h"
#include "control/write.h"
#include "core/crypto.h"
#include "net/tls.h"

static bool check_key(struct str s, struct problem *why)
{
	return crypto_pem_has_private_key(s) || problem(why, "", "must hold a private key in PEM");
}

static const struct field fields[] = {
	TEXT(struct certificate_doc, name, REQUIRED, IMMUTABLE, RANGE(1, 512), FORMAT(format_title),
		EXAMPLE("\"shop-tls\""),
		DOC("Name, the secretName of a gateway's certList; unique in the namespace.")),
	TEXT(struct certificate_doc, namespace, IMMUTABLE, DEFAULT("\"default\""), FORMAT(format_dns_label),
		DOC("Namespace.")),
	TEXT(struct certificate_doc, certificate, RANGE(1, 262144), FORMAT(format_pem),
		DOC("Certificate and the chain above it, in PEM.")),
	TEXT(struct certificate_doc, privateKey, SECRET_STAYS, RANGE(1, 65536), FORMAT(check_key),
		DOC("Private key in PEM; never returned.")),
	TEXT(struct certificate_doc, caCertificate, RANGE(1, 262144), FORMAT(format_pem),
		DOC("Certificates to trust, in PEM.")),
	FIELDS_END
};

static bool check(const void *in, struct problem *why)
{
	const struct certificate_doc *c = in;

	if (!c->certificate.n && !c->caCertificate.n)
		return problem(why, "certificate", "is required where there is no caCertificate");
	if (c->privateKey.n && !c->certificate.n)
		return problem(why, "certificate", "is required with privateKey");
	return !c->certificate.n || tls_check_certificate(c->certificate, c->privateKey, why);
}

/* By a gateway setting, which is no edge of the model either. */
static const struct resource *find_identity_user(const struct model *m, struct str id)
{
	size_t i = 0;

	for (const struct resource *f; (f = model_next(m, RESOURCE_FEATURE, &i));)
		if (str_equal(f->name, STR("workloadIdentity")) && str_equal(json_get(f->doc, "value")->string, id))
			return f;
	return NULL;
}

/* Gateways point at it by name, which is no edge of the model. */
static bool refuse_used(struct write *w, struct resource *r, struct problem *why)
{
	const struct model *m = w->control->model;
	const struct resource *user = find_identity_user(m, r->id);
	size_t i = 0;

	if (user)
		return problem_of(why, PROBLEM_CONFLICT, "certificateId",
			"certificate %.*s is the workloadIdentity of gateway %.*s", STR_FMT(r->id),
			STR_FMT(json_text(user->doc, "gatewayId")));

	for (const struct resource *g; (g = model_next(m, RESOURCE_GATEWAY, &i));) {
		const struct json *list = json_get(g->doc, "certList");

		for (const struct json *v = list ? list->child : NULL; v; v = v->next)
			if (certificate_find(m, json_text(g->doc, "namespace"), json_text(v, "secretName")) == r)
				return problem_of(why, PROBLEM_CONFLICT, "certificateId",
					"certificate %.*s is used by gateway %.*s (\"%.*s\")", STR_FMT(r->id),
					STR_FMT(g->id), STR_FMT(g->name));
	}
	return true;
}

const struct resource_class certificate_class = {
	.kind = RESOURCE_CERTIFICATE,
	.name = "certificate",
	.noun = "Certificate",
	.plural = "Certificates",
	.id_field = "certificateId",
	.id_prefix = "cert-",
	.path = "/api/v1/certificates",
	.scope = { "namespace" },
	.has_unique_name = true,
	.fields = fields,
	.size = sizeof(struct certificate_doc),
	.doc = "A certificate with its private key, or certificates to trust.",
	.check = check,
	.deleting = refuse_used,
};
