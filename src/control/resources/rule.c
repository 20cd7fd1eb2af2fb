/* rule.c -- what a consumer may call. */
#include "control/resources/shared.h"
#include "proxy/policy.h"

static const struct choice modes[] = {
	{ EXPIRE_LONG_TERM, "LongTerm", "until it is deleted", NULL },
	{ EXPIRE_SHORT_TERM, "ShortTerm", "until expireTimestamp", NULL },
	{ 0, NULL, NULL, NULL },
};

static bool check_type(struct str s, struct problem *why)
{
	enum scope scope;

	if (scope_parse(s, &scope) && (scope & SCOPE_ROUTES))
		return true;
	return problem(why, "", "must be Route, Api, Operation, LLMApi or AgentApi");
}

static const struct field fields[] = {
	TEXT(struct rule_doc, consumerId, IMMUTABLE, RANGE(1, 64),
		REFERS("consumer"), DOC("Consumer; from the path.")),
	TEXT(struct rule_doc, resourceType, REQUIRED, FORMAT(check_type), EXAMPLE("\"Route\""),
		DOC("Route, Api, Operation, LLMApi or AgentApi.")),
	TEXT(struct rule_doc, resourceId, REQUIRED, RANGE(1, 64), EXAMPLE("\"route-1\""),
		DOC("What may be called.")),
	TEXT(struct rule_doc, environmentId, RANGE(1, 64), REFERS("environment"),
		DOC("Environment; the resource's when left out.")),
	CHOICE(struct rule_doc, expireMode, modes, DEFAULT("\"LongTerm\""), ANY_CASE, DOC("How long.")),
	INT(struct rule_doc, expireTimestamp, RANGE(1, 9007199254740991),
		WHEN("expireMode", EXPIRE_SHORT_TERM), UNIT("ms since 1970"), DOC("When it ends.")),
	FIELDS_END
};

static bool complete(struct draft *d, struct problem *why)
{
	const struct rule_doc *in = d->in;
	enum scope scope = SCOPE_ROUTE;

	if (!scope_parse(in->resourceType, &scope))
		return check_type(in->resourceType, why);
	const struct resource_class *class = resource_class_by_attach_type(str_of(scope_name(scope)));
	const struct resource *r = class ? model_get(d->model, class->kind, in->resourceId) : NULL;

	json_put(d->arena, d->doc, "resourceType", json_new_text(d->arena, str_of(scope_name(scope))));
	if (!r)
		return problem(why, "resourceId", "no %s has the id \"%.*s\"", scope_name(scope),
			STR_FMT(in->resourceId));
	struct str environment = json_text(r->doc, "environmentId");

	if (in->environmentId.n && !str_equal(in->environmentId, environment))
		return problem(why, "environmentId", "%s %.*s is in environment \"%.*s\"", scope_name(scope),
			STR_FMT(r->id), STR_FMT(environment));
	json_put(d->arena, d->doc, "environmentId", json_new_text(d->arena, arena_copy(d->arena, environment)));
	return true;
}

const struct resource_class rule_class = {
	.kind = RESOURCE_RULE,
	.name = "authorizationRule",
	.noun = "AuthorizationRule",
	.plural = "AuthorizationRules",
	.id_field = "authorizationRuleId",
	.id_prefix = "rule-",
	.path = "/api/v1/consumers/{consumerId}/authorization-rules",
	.fields = fields,
	.size = sizeof(struct rule_doc),
	.doc = "What a consumer may call.",
	.complete = complete,
};
