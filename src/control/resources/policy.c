/*
 * policy.c -- a policy: a class and its config, a JSON text. What it refers to is checked when it is attached.
 */
#include "control/resources/policy_check.h"
#include "control/resources/shared.h"
#include "control/write.h"
#include "control/control_parts.h"
#include "policy/formats.h"

enum { CONFIG_BYTES_MAX = 512 * 1024 };

static bool check_class(struct str s, struct problem *why)
{
	return policy_class_find(s) ||
	       problem(why, "", "is no policy class; GET /api/v1/policy-classes lists them");
}

static bool check_blank(struct str s, struct problem *why)
{
	return format_title(s, why);
}

static const struct field fields[] = {
	TEXT(struct policy_doc, name, REQUIRED, RANGE(1, 512), FORMAT(check_blank),
		EXAMPLE("\"API Rate Limit Policy\""), DOC("Name.")),
	TEXT(struct policy_doc, className, REQUIRED, IMMUTABLE, FORMAT(check_class), EXAMPLE("\"RateLimit\""),
		DOC("Policy class.")),
	TEXT(struct policy_doc, config, REQUIRED, RANGE(1, CONFIG_BYTES_MAX),
		EXAMPLE("\"{\\\"threshold\\\":100,\\\"behaviorType\\\":0,\\\"bodyEncoding\\\":0,"
			"\\\"responseStatusCode\\\":429,\\\"enable\\\":true}\""),
		DOC("Config of the class: a JSON object, as a string.")),
	TEXT(struct policy_doc, description, DOC("Text for people, at most 200 characters.")),
	FIELDS_END
};

const struct json *policy_config_decode(struct str className, struct str config, struct decoded_config *out,
	struct arena *a, struct problem *why)
{
	const struct policy_class *class = policy_class_find(className);
	const struct json *v = class ? json_parse(a, config, why) : NULL;

	if (!class) {
		problem(why, "className", "\"%.*s\" is no policy class of this build", STR_FMT(className));
		return NULL;
	}
	out->class = class;
	out->conf = arena_alloc(a, class->conf_size);
	if (v && v->type != JSON_OBJECT)
		problem(why, "", "must hold a JSON object");
	else if (v && fields_decode(class->fields, v, out->conf, a, why) &&
		 (!class->check || class->check(out->conf, why)))
		return v;
	problem_prefix(why, "config");
	return NULL;
}

static bool check(const void *in, struct problem *why)
{
	const struct policy_doc *p = in;
	struct arena a = { 0 };
	struct decoded_config decoded;
	bool ok = policy_config_decode(p->className, p->config, &decoded, &a, why) != NULL;

	if (ok && !format_description(p->description, why)) {
		problem_prefix(why, "description");
		ok = false;
	}
	arena_free(&a);
	return ok;
}

struct count {
	unsigned n;
	struct str first;
};

static bool count_attachment(void *arg, struct resource *r)
{
	struct count *c = arg;

	if (r->kind == RESOURCE_ATTACHMENT && c->n++ == 0)
		c->first = r->id;
	return true;
}

bool policy_is_attached(const struct model *m, struct str policy_id)
{
	struct count c = { 0 };

	model_referrers(m, RESOURCE_POLICY, policy_id, count_attachment, &c);
	return c.n > 0;
}

static bool refuse_attached(struct write *w, struct resource *r, struct problem *why)
{
	struct count c = { 0 };

	model_referrers(w->control->model, RESOURCE_POLICY, r->id, count_attachment, &c);
	if (c.n == 0)
		return true;
	return problem_of(why, PROBLEM_CONFLICT, "policyId",
		"policy %.*s has %u attachment%s; delete %s first (%.*s%s)", STR_FMT(r->id), c.n,
		c.n == 1 ? "" : "s", c.n == 1 ? "it" : "them", STR_FMT(c.first), c.n > 1 ? ", ..." : "");
}

struct recheck {
	const struct draft *draft;
	struct decoded_config decoded;
	struct arena *a;
	struct problem *why;
	bool ok;
};

/* What the new config refers to must fit where the policy is attached. */
static bool recheck_attachment(void *arg, struct resource *attachment)
{
	struct recheck *c = arg;
	const struct json *ids = json_get(attachment->doc, "attachResourceIds");
	enum scope scope;

	if (attachment->kind != RESOURCE_ATTACHMENT ||
		!scope_parse(json_text(attachment->doc, "attachResourceType"), &scope))
		return true;
	for (const struct json *v = ids ? ids->child : NULL; v && c->ok; v = v->next)
		c->ok = policy_check_attach(c->draft->model, &c->decoded, scope, v->string, c->why);
	return c->ok;
}

static bool complete(struct draft *d, struct problem *why)
{
	const struct policy_doc *p = d->in;
	struct arena a = { 0 };
	struct recheck c = { .draft = d, .a = &a, .why = why, .ok = true };

	if (!d->before || str_equal(p->config, json_text(d->before->doc, "config")))
		return true;
	c.ok = policy_config_decode(p->className, p->config, &c.decoded, &a, why) != NULL;
	if (c.ok && c.decoded.class->prepare && !c.decoded.class->prepare(c.decoded.conf, &a, why)) {
		problem_prefix(why, "config");
		c.ok = false;
	}
	if (c.ok)
		model_referrers(d->model, RESOURCE_POLICY, d->id, recheck_attachment, &c);
	arena_free(&a);
	return c.ok;
}

const struct resource_class policy_class = {
	.kind = RESOURCE_POLICY, .name = "policy", .noun = "Policy", .plural = "Policies",
	.id_field = "policyId", .id_prefix = "policy-", .path = "/api/v2/policies",
	.fields = fields, .size = sizeof(struct policy_doc), .doc = "A policy class with its config.",
	.check = check, .complete = complete, .deleting = refuse_attached,
};
