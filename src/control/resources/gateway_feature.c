/* gateway_feature.c -- one setting of one gateway; feature.c has the names and what their values may be. */
#include "control/feature.h"
#include "control/resources/shared.h"

static const struct field fields[] = {
	TEXT(struct feature_doc, gatewayId, REQUIRED, IMMUTABLE, RANGE(1, 64),
		REFERS("gateway"), DOC("Gateway.")),
	TEXT(struct feature_doc, name, REQUIRED, IMMUTABLE, RANGE(1, 64), EXAMPLE("\"xffTrustedNum\""),
		DOC("Name of the setting.")),
	ANY(struct feature_doc, value, REQUIRED, EXAMPLE("1"), DOC("Its value.")),
	FIELDS_END
};

static bool check(const void *in, struct problem *why)
{
	const struct feature_doc *f = in;
	const struct feature *feature = feature_find(f->name);

	if (!feature)
		return problem_of(
			why, PROBLEM_NOT_FOUND, "name", "\"%.*s\" is no gateway setting", STR_FMT(f->name));
	if (feature_check(feature, f->value, why))
		return true;
	problem_prefix(why, "value");
	return false;
}

const struct resource_class feature_class = {
	.kind = RESOURCE_FEATURE,
	.name = "feature",
	.noun = "GatewayFeature",
	.plural = "GatewayFeatures",
	.id_field = "gatewayFeatureId",
	.id_prefix = "feature-",
	.path = "/api/v1/gateways/{gatewayId}/gateway-features",
	.scope = { "gatewayId" },
	.has_unique_name = true,
	.fields = fields,
	.size = sizeof(struct feature_doc),
	.doc = "A setting of a gateway.",
	.check = check,
};
