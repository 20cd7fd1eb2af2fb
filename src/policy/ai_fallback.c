/*
 * ai_fallback.c -- AiFallback: when an AI service fails, the same request goes to other services and models,
 * in order.
 *
 * Attached to the first service. Keyed by the model that would be sent to it: exact names before the longest
 * prefix before "*".
 */
#include "policy/formats.h"
#include "policy/reference.h"
#include "proxy/policy.h"

struct candidate {
	struct str serviceId, model;
};

struct mapping {
	struct str model;
	struct items fallbackModels;
};

struct ai_fallback {
	bool enable;
	struct items fallbackModelMappings;
};

#define MODEL_MAX 256

static bool check_model(struct str value, struct problem *why)
{
	size_t star = str_find(value, '*');

	if (!format_line(value, why))
		return false;
	if (star + 1 < value.n)
		return problem(why, "", "may have one \"*\", at the end: \"qwen-*\" for a prefix, \"*\" for "
			"any model");
	return true;
}

static const struct field candidate_fields[] = {
	TEXT(struct candidate, serviceId, REQUIRED, RANGE(1, 128), REFERS("service"),
	     EXAMPLE("\"backup-service-1\""),
	     DOC("Id of a service of the same gateway; it may be the first service itself, with another "
	     "model.")),
	TEXT(struct candidate, model, REQUIRED, RANGE(1, MODEL_MAX), FORMAT(format_line),
	     EXAMPLE("\"gpt-3.5-turbo\""),
	     DOC("Name of the model that is sent to that service.")),
	FIELDS_END
};

static const struct field mapping_fields[] = {
	TEXT(struct mapping, model, REQUIRED, RANGE(1, MODEL_MAX), FORMAT(check_model), EXAMPLE("\"gpt-4\""),
	     DOC("Name of the model that failed. A \"*\" at the end makes it a prefix, \"*\" alone stands "
	     "for any model.")),
	LIST(struct mapping, fallbackModels, struct candidate, candidate_fields, REQUIRED, RANGE(1, 8),
	     DOC("Where to try next, in this order.")),
	FIELDS_END
};

static const struct field fields[] = {
	BOOL(struct ai_fallback, enable, REQUIRED, DOC("Whether the policy acts.")),
	LIST(struct ai_fallback, fallbackModelMappings, struct mapping, mapping_fields, REQUIRED, RANGE(1,
	     64),
	     DOC("What to try instead of which model; each model at most once.")),
	FIELDS_END
};

static const struct mapping *mapping_at(const struct ai_fallback *conf, size_t i)
{
	return ITEM(conf->fallbackModelMappings, const struct mapping, i);
}

static const struct candidate *candidate_at(const struct mapping *m, size_t j)
{
	return ITEM(m->fallbackModels, const struct candidate, j);
}

static bool check_candidates(const struct mapping *m, size_t at, struct problem *why)
{
	size_t i, j;

	for (j = 1; j < m->fallbackModels.n; j++) {
		const struct candidate *c = candidate_at(m, j);

		for (i = 0; i < j; i++) {
			char path[96];

			if (!str_equal(c->serviceId, candidate_at(m, i)->serviceId) || !str_equal(c->model,
				candidate_at(m, i)->model))
				continue;
			snprintf(path, sizeof(path), "fallbackModelMappings[%zu].fallbackModels[%zu]", at, j);
			return problem(why, path, "has the same service and model as item %zu", i);
		}
	}
	return true;
}

static bool check(const void *vconf, struct problem *why)
{
	const struct ai_fallback *conf = vconf;
	size_t i, j;

	for (j = 0; j < conf->fallbackModelMappings.n; j++) {
		const struct mapping *m = mapping_at(conf, j);

		for (i = 0; i < j; i++) {
			char path[96];

			if (!str_equal(m->model, mapping_at(conf, i)->model))
				continue;
			snprintf(path, sizeof(path), "fallbackModelMappings[%zu].model", j);
			return problem(why, path, "\"%.*s\" is there twice", STR_FMT(m->model));
		}
		if (!check_candidates(m, j, why))
			return false;
	}
	return true;
}

static bool attach_candidate(const struct mapping *m, const struct candidate *c, const struct attach_target *t,
                             struct problem *why)
{
	const struct json *service;

	if (!reference_service(t, c->serviceId, "serviceId", &service, why))
		return false;
	if ((service == t->resource || json_equal(service, t->resource)) && str_equal(c->model, m->model))
		return problem(why, "", "is the failed service and model again; name another service or model");
	return true;
}

static bool attach(const void *vconf, const struct attach_target *t, struct problem *why)
{
	const struct ai_fallback *conf = vconf;
	size_t i, j;

	for (i = 0; i < conf->fallbackModelMappings.n; i++) {
		const struct mapping *m = mapping_at(conf, i);

		for (j = 0; j < m->fallbackModels.n; j++) {
			char path[96];

			if (attach_candidate(m, candidate_at(m, j), t, why))
				continue;
			snprintf(path, sizeof(path), "fallbackModelMappings[%zu].fallbackModels[%zu]", i, j);
			problem_prefix(why, path);
			return false;
		}
	}
	return true;
}

const struct policy_class ai_fallback = {
	.name = "AiFallback",
	.alias = "AI fallback",
	.summary = "Sends a request that an AI service failed to other services and models.",
	.group = "AI",
	.scopes = SCOPE_SERVICE,
	.stage = STAGE_SETTING,
	.combine = COMBINE_SPECIFIC,
	.fails_open = true,
	.execute_stage = "PluginPost",
	.execute_priority = 490,
	.fields = fields,
	.conf_size = sizeof(struct ai_fallback),
	.enable_at = offsetof(struct ai_fallback, enable),
	.outcomes = { "primary", "fallback", "exhausted" },
	.check = check,
	.attach = attach,
};
