/*
 * policy_attachment.c -- a policy on one or several resources of one type: who may be attached to what, and
 * beside whom.
 */
#include "control/resources/policy_check.h"
#include "control/resources/shared.h"
#include <stdio.h>
#include "control/compile.h"
#include "control/control.h"
#include "control/feature.h"
#include "control/rest.h"

enum { RESOURCES_MAX = 256 };

/* The ids that each type asks for, as the policy API says. */
static const struct attach_rule {
	enum scope scope;
	enum resource_kind kind;
	bool needs_environment, needs_gateway;
} rules[] = {
	{ SCOPE_GATEWAY, RESOURCE_GATEWAY, false, true },
	{ SCOPE_DOMAIN, RESOURCE_DOMAIN, false, true },
	{ SCOPE_SERVICE, RESOURCE_SERVICE, false, true },
	{ SCOPE_SERVICE_PORT, RESOURCE_SERVICE_PORT, false, true },
	{ SCOPE_ROUTE, RESOURCE_ROUTE, true, true },
	{ SCOPE_LLM_API, RESOURCE_LLM_API, true, true },
	{ SCOPE_AGENT_API, RESOURCE_AGENT_API, true, true },
	{ SCOPE_API, RESOURCE_API, true, false },
	{ SCOPE_OPERATION, RESOURCE_OPERATION, true, false },
};

static const struct attach_rule *find_rule(enum scope scope)
{
	const struct attach_rule *r = rules;

	while (r->scope != scope)
		r++;
	return r;
}

static bool check_type(struct str s, struct problem *why)
{
	enum scope scope;

	if (scope_parse(s, &scope))
		return true;
	return problem(why, "",
		"must be Gateway, Domain, Route, LLMApi, AgentApi, Api, Operation, Service or ServicePort");
}

static const struct field fields[] = {
	TEXT(struct attachment_doc, attachResourceId, REQUIRED, RANGE(1, 16384), EXAMPLE("\"route-1\""),
		DOC("Ids of the resources, separated by commas.")),
	TEXTS(struct attachment_doc, attachResourceIds, READ_ONLY, RANGE(0, RESOURCES_MAX),
		DOC("The same as a list.")),
	TEXT(struct attachment_doc, attachResourceType, REQUIRED, FORMAT(check_type), EXAMPLE("\"Route\""),
		DOC("Gateway, Domain, Route, LLMApi, AgentApi, Api, Operation, Service or ServicePort.")),
	TEXT(struct attachment_doc, environmentId, RANGE(1, 64), REFERS("environment"),
		DOC("Required for Route, Api, Operation, LLMApi and AgentApi; otherwise *.")),
	TEXT(struct attachment_doc, gatewayId, RANGE(1, 64), REFERS("gateway"),
		DOC("Required for all but Api and Operation.")),
	TEXT(struct attachment_doc, policyId, REQUIRED, RANGE(1, 64), REFERS("policy"), DOC("Policy.")),
	FIELDS_END
};

static bool not_found(struct problem *why, const char *field, const char *what, struct str id)
{
	return problem_of(why, PROBLEM_NOT_FOUND, field, "no %s has the id \"%.*s\"", what, STR_FMT(id));
}

/* ---------- what it is attached to ---------- */

static bool list_ids(struct draft *d, struct str text, struct problem *why)
{
	struct json *ids = json_new(d->arena, JSON_ARRAY);
	struct sbuf joined = { 0 };
	struct str part;
	bool ok = true;

	while (ok && str_split(&text, ',', &part)) {
		part = str_trim(part);
		if (!part.n)
			ok = problem(why, "attachResourceId", "has an empty id in its list");
		for (const struct json *v = ids->child; ok && v; v = v->next)
			if (str_equal(v->string, part))
				ok = problem(why, "attachResourceId", "\"%.*s\" is listed twice", STR_FMT(part));
		if (ok && ids->n == RESOURCES_MAX)
			ok = problem(why, "attachResourceId", "must list at most %d ids", RESOURCES_MAX);
		if (ok) {
			json_add(ids, json_new_text(d->arena, arena_copy(d->arena, part)));
			sbuf_addf(&joined, "%s%.*s", joined.n ? "," : "", STR_FMT(part));
		}
	}
	json_put(d->arena, d->doc, "attachResourceIds", ids);
	if (ok)
		json_put(d->arena, d->doc, "attachResourceId",
			json_new_text(d->arena, arena_copy(d->arena, sbuf_str(&joined))));
	sbuf_free(&joined);
	return ok;
}

static struct str gateway_of(const struct resource *r)
{
	return r->kind == RESOURCE_GATEWAY ? r->id : json_text(r->doc, "gatewayId");
}

static bool check_place(const struct attachment_doc *in, const struct attach_rule *rule, const struct resource *r,
                        struct problem *why)
{
	const char *type = scope_name(rule->scope);
	struct str environment = json_text(r->doc, "environmentId"), gateway = gateway_of(r);

	if (rule->needs_environment && !str_equal(environment, in->environmentId))
		return problem(why, "environmentId", "%s %.*s is in environment \"%.*s\"", type,
			STR_FMT(r->id), STR_FMT(environment));
	if (in->gatewayId.n && !str_equal(gateway, in->gatewayId))
		return problem(why, "gatewayId", "%s %.*s belongs to gateway \"%.*s\"", type, STR_FMT(r->id),
			STR_FMT(gateway));
	return true;
}

/* ---------- beside whom ---------- */

struct neighbours {
	const struct draft *draft;
	const struct policy_class *class;
	struct str policy_id, resource_id, type;
	struct problem *why;
	bool ok;
};

static bool check_neighbour(void *arg, struct resource *r)
{
	struct neighbours *n = arg;

	if (r->kind != RESOURCE_ATTACHMENT || str_equal(r->id, n->draft->id) ||
		!str_equal(json_text(r->doc, "attachResourceType"), n->type) ||
		!rest_has_value(r, "attachResourceIds", n->resource_id))
		return true;
	struct str other_id = json_text(r->doc, "policyId");
	const struct resource *policy = model_get(n->draft->model, RESOURCE_POLICY, other_id);
	const struct policy_class *other = policy ? policy_class_find(json_text(policy->doc, "className")) : NULL;

	if (str_equal(other_id, n->policy_id))
		n->ok = problem_of(n->why, PROBLEM_CONFLICT, "policyId",
			"policy %.*s is attached to %.*s already (%.*s)", STR_FMT(other_id),
			STR_FMT(n->resource_id), STR_FMT(r->id));
	else if (other == n->class && !other->many_per_resource)
		n->ok = problem_of(n->why, PROBLEM_CONFLICT, "attachResourceId",
			"%.*s has a %s policy already, %.*s (%.*s)", STR_FMT(n->resource_id), other->name,
			STR_FMT(other_id), STR_FMT(r->id));
	else if (other && other != n->class && other->stage == STAGE_TERMINAL && n->class->stage == STAGE_TERMINAL)
		n->ok = problem_of(n->why, PROBLEM_CONFLICT, "attachResourceId",
			"%.*s has a %s policy already (%.*s), which answers "
			"in place of this one",
			STR_FMT(n->resource_id), other->name, STR_FMT(r->id));
	return n->ok;
}

static bool check_beside(const struct draft *d, const struct policy_class *class, const struct attach_rule *rule,
                         const struct resource *r, struct problem *why)
{
	struct neighbours n = {
		.draft = d, .class = class, .policy_id = json_text(d->doc, "policyId"), .resource_id = r->id,
		.type = str_of(scope_name(rule->scope)), .why = why, .ok = true,
	};

	model_referrers(d->model, rule->kind, r->id, check_neighbour, &n);
	return n.ok;
}

/* ---------- the class's own rules ---------- */

static const struct json *find_document(const struct attach_target *t, const char *kind, struct str id)
{
	const struct model *m = t->arg;
	const struct resource_class *class = resource_class_by_name(kind);
	const struct resource *r = class ? model_get(m, class->kind, id) : NULL;

	return r ? r->doc : NULL;
}

static const struct json *find_setting(const struct attach_target *t, const char *name)
{
	return feature_value(t->arg, t->gateway_id, name);
}

bool policy_check_attach(const struct model *m, const struct decoded_config *config, enum scope scope,
	struct str resource_id, struct problem *why)
{
	const struct resource *r = model_get(m, find_rule(scope)->kind, resource_id);

	if (!config->class->attach || !r)
		return true;
	struct attach_target target = {
		.scope = scope,
		.resource = r->doc,
		.gateway_id = gateway_of(r),
		.find = find_document,
		.setting = find_setting,
		.arg = (void *)(uintptr_t)m,
	};

	if (config->class->attach(config->conf, &target, why))
		return true;
	if (!str_starts(str_of(why->field), STR("attachResource")))
		problem_prefix(why, "config");
	return false;
}

static void list_scopes(unsigned scopes, char out[160])
{
	size_t n = 0;

	out[0] = '\0';
	for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++)
		if (scopes & rules[i].scope)
			n += (size_t)snprintf(out + n, 160 - n, "%s%s", n ? ", " : "", scope_name(rules[i].scope));
}

static bool check_scope(const struct policy_class *class, const struct attach_rule *rule, struct problem *why)
{
	char fits[160];

	if (class->scopes & rule->scope)
		return true;
	list_scopes(class->scopes, fits);
	return problem(why, "attachResourceType", "%s cannot be attached to %s; it can be attached to %s",
		class->name, scope_name(rule->scope), fits);
}

/* ---------- together ---------- */

static bool check_ids_given(const struct attachment_doc *in, const struct attach_rule *rule, struct problem *why)
{
	const char *type = scope_name(rule->scope);

	if (rule->needs_environment && (!in->environmentId.n || str_equal(in->environmentId, STR("*"))))
		return problem(why, "environmentId", "is required when attachResourceType is \"%s\"", type);
	if (rule->needs_gateway && !in->gatewayId.n)
		return problem(why, "gatewayId", "is required when attachResourceType is \"%s\"", type);
	return true;
}

/* Ids of attachments are looked up, so what is not there is 404. */
static bool check_exists(const struct draft *d, const struct attachment_doc *in,
	const struct attach_rule *rule, struct problem *why)
{
	const struct json *ids = json_get(d->doc, "attachResourceIds");
	const struct resource *environment;

	for (const struct json *v = ids->child; v; v = v->next)
		if (!model_get(d->model, rule->kind, v->string))
			return not_found(why, "attachResourceId", scope_name(rule->scope), v->string);
	if (in->gatewayId.n && !model_get(d->model, RESOURCE_GATEWAY, in->gatewayId))
		return not_found(why, "gatewayId", "gateway", in->gatewayId);
	if (in->environmentId.n && !str_equal(in->environmentId, STR("*"))) {
		environment = model_get(d->model, RESOURCE_ENVIRONMENT, in->environmentId);
		if (!environment)
			return not_found(why, "environmentId", "environment", in->environmentId);
		if (in->gatewayId.n && !str_equal(json_text(environment->doc, "gatewayId"), in->gatewayId))
			return problem(why, "environmentId", "environment %.*s belongs to gateway \"%.*s\"",
				STR_FMT(environment->id), STR_FMT(json_text(environment->doc, "gatewayId")));
	}
	return model_get(d->model, RESOURCE_POLICY, in->policyId) ||
	       not_found(why, "policyId", "policy", in->policyId);
}

static bool check_resources(struct draft *d, const struct attachment_doc *in, const struct attach_rule *rule,
                            const struct decoded_config *config, struct problem *why)
{
	const struct json *ids = json_get(d->doc, "attachResourceIds");

	for (const struct json *v = ids->child; v; v = v->next) {
		const struct resource *r = model_get(d->model, rule->kind, v->string);

		if (!check_place(in, rule, r, why) || !check_beside(d, config->class, rule, r, why) ||
		    !policy_check_attach(d->model, config, rule->scope, r->id, why))
			return false;
	}
	return true;
}

/* The members as they are answered: the type's first name, the ids that go without saying. */
static void fill_in(struct draft *d, const struct attachment_doc *in, const struct attach_rule *rule)
{
	const struct json *ids = json_get(d->doc, "attachResourceIds");
	const struct resource *first = model_get(d->model, rule->kind, ids->child->string);

	json_put(d->arena, d->doc, "attachResourceType", json_new_text(d->arena, str_of(scope_name(rule->scope))));
	if (!rule->needs_environment)
		json_put(d->arena, d->doc, "environmentId", json_new_text(d->arena, STR("*")));
	if (!in->gatewayId.n)
		json_put(d->arena, d->doc, "gatewayId",
			json_new_text(d->arena, arena_copy(d->arena, gateway_of(first))));
}

static bool complete(struct draft *d, struct problem *why)
{
	const struct attachment_doc *in = d->in;
	struct arena a = { 0 };
	struct decoded_config config;
	enum scope scope = SCOPE_ROUTE;

	if (!scope_parse(in->attachResourceType, &scope))
		return check_type(in->attachResourceType, why);
	const struct attach_rule *rule = find_rule(scope);

	if (!list_ids(d, in->attachResourceId, why) || !check_ids_given(in, rule, why) ||
		!check_exists(d, in, rule, why))
		return false;
	const struct json *policy = model_get(d->model, RESOURCE_POLICY, in->policyId)->doc;
	bool ok = policy_config_decode(json_text(policy, "className"), json_text(policy, "config"), &config,
			  &a, why) != NULL;

	ok = ok && check_scope(config.class, rule, why);
	if (ok && config.class->prepare && !config.class->prepare(config.conf, &a, why)) {
		problem_prefix(why, "config");
		ok = false;
	}
	ok = ok && check_resources(d, in, rule, &config, why);
	if (ok)
		fill_in(d, in, rule);
	arena_free(&a);
	return ok;
}

static void render(const struct control *c, const struct resource *r, struct json *item, struct arena *a)
{
	struct status status = compile_attachment_status(control_compiler(c), r->id);
	const struct resource *policy = model_get(control_model(c), RESOURCE_POLICY, json_text(r->doc, "policyId"));

	if (policy)
		json_put(a, item, "className",
			json_new_text(a, arena_copy(a, json_text(policy->doc, "className"))));
	put_status(a, item, &status);
}

static const char *const read_only[] = { "attachResourceIds", "className", "status", NULL };

const struct resource_class attachment_class = {
	.kind = RESOURCE_ATTACHMENT,
	.name = "policyAttachment",
	.noun = "PolicyAttachment",
	.plural = "PolicyAttachments",
	.id_field = "policyAttachmentId",
	.id_prefix = "pr-",
	.path = "/api/v1/policy-attachments",
	.read_only = read_only,
	.fields = fields,
	.size = sizeof(struct attachment_doc),
	.doc = "A policy on resources.",
	.complete = complete,
	.render = render,
};
