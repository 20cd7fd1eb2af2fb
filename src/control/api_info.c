/* api_info.c -- what is not a resource: policy classes, the description of the API, metrics, health. */
#include "control/api.h"
#include "control/compile.h"
#include "control/control_parts.h"
#include "control/process.h"
#include "core/log.h"
#include "proxy/policy.h"

/* ---------- policy classes ---------- */

static const enum scope scopes[] = {
	SCOPE_GATEWAY,
	SCOPE_DOMAIN,
	SCOPE_ROUTE,
	SCOPE_LLM_API,
	SCOPE_AGENT_API,
	SCOPE_API,
	SCOPE_OPERATION,
	SCOPE_SERVICE,
	SCOPE_SERVICE_PORT,
};

static struct json *text(struct arena *a, const char *z)
{
	return json_new_text(a, str_of(z ? z : ""));
}

static struct json *scope_list(const struct policy_class *class, struct arena *a)
{
	struct json *list = json_new(a, JSON_ARRAY);

	for (unsigned i = 0; i < sizeof scopes / sizeof scopes[0]; i++)
		if (class->scopes & scopes[i])
			json_add(list, text(a, scope_name(scopes[i])));
	return list;
}

static struct json *class_item(const struct policy_class *class, bool with_schema, struct arena *a)
{
	struct json *item = json_new(a, JSON_OBJECT);
	struct sbuf example = { 0 };

	json_write(&example, fields_example(class->fields, true, a));
	json_put(a, item, "className", text(a, class->name));
	json_put(a, item, "classId", text(a, class->name));
	json_put(a, item, "alias", text(a, class->alias));
	json_put(a, item, "description", text(a, class->summary));
	json_put(a, item, "type", text(a, class->group));
	json_put(a, item, "attachableResourceTypes", scope_list(class, a));
	json_put(a, item, "configExample", json_new_text(a, arena_copy(a, sbuf_str(&example))));
	json_put(a, item, "executeStage", text(a, class->execute_stage));
	json_put(a, item, "executePriority", json_new_int(a, class->execute_priority));
	json_put(a, item, "deprecated", json_new_bool(a, false));
	json_put(a, item, "direction",
		text(a, class->stage == STAGE_SETTING ? "Both"
			: class->response_stage	      ? "Both"
						      : "InBound"));
	json_put(a, item, "version", text(a, SLUICE_VERSION));
	json_put(a, item, "enforced", json_new_bool(a, class->is_enforced));
	if (!class->is_enforced)
		json_put(a, item, "status", text(a, "not enforced by this build"));
	if (with_schema)
		json_put(a, item, "configSchema", fields_schema(class->fields, a));
	sbuf_free(&example);
	return item;
}

static bool class_fits(const struct api_call *call, const struct policy_class *class)
{
	struct str type = api_query(call, "attachResourceType"), name = api_query(call, "className"),
		   group = api_query(call, "type");
	enum scope scope;

	if (type.p && !(scope_parse(type, &scope) && (class->scopes & scope)))
		return false;
	if (name.p && !str_equal(name, str_of(class->name)))
		return false;
	return !group.p || str_equal(group, str_of(class->group));
}

bool api_policy_classes(struct api_call *call, struct problem *why)
{
	static const char *const known[] = {
		"attachResourceType", "className", "type", "pageNumber", "pageSize", NULL };
	struct str type = api_query(call, "attachResourceType");
	struct json *items = json_new(call->arena, JSON_ARRAY);
	enum scope scope;
	struct page page;
	size_t total = 0;

	if (!api_check_query(call, known, why) || !api_page(call, &page, why))
		return false;
	if (type.p && !scope_parse(type, &scope))
		return problem(why, "attachResourceType", "is no resource type that policies can be attached to");
	size_t first = (size_t)((page.number - 1) * page.size);

	for (unsigned i = 0; i < policy_class_count; i++) {
		if (!class_fits(call, policy_classes[i]))
			continue;
		if (total >= first && total < first + (size_t)page.size)
			json_add(items, class_item(policy_classes[i], false, call->arena));
		total++;
	}
	api_answer_page(call, items, &page, total);
	return true;
}

bool api_policy_class(struct api_call *call, struct problem *why)
{
	const struct policy_class *class = policy_class_find(call->parameters[0]);

	if (!class)
		return problem_of(why, PROBLEM_NOT_FOUND, "className", "\"%.*s\" is no policy class",
			STR_FMT(call->parameters[0]));
	api_answer(call, 200, class_item(class, true, call->arena));
	return true;
}

/* ---------- the process ---------- */

bool api_openapi(struct api_call *call, struct problem *why)
{
	(void)why;
	api_answer(call, 200, openapi_document(call->arena));
	return true;
}

/* Megabytes where there are many routes: the text is not copied once more. */
struct scrape {
	struct arena_defer defer;
	struct sbuf text;
};

static void free_scrape(struct arena_defer *defer)
{
	sbuf_free(&CONTAINER(defer, struct scrape, defer)->text);
}

bool api_metrics(struct api_call *call, struct problem *why)
{
	static size_t last_bytes;
	struct scrape *scrape = NEW(call->arena, struct scrape);

	(void)why;
	arena_defer(call->arena, &scrape->defer, free_scrape);
	process_sample();
	metric_set(call->control->degraded, compile_degraded(call->control->compiler));
	compile_sample_endpoints(call->control->compiler);
	sbuf_reserve(&scrape->text, last_bytes + last_bytes / 16);
	metric_write(&scrape->text);
	last_bytes = scrape->text.n;
	call->status = 200;
	call->answer = sbuf_str(&scrape->text);
	call->type = STR("text/plain; version=0.0.4; charset=utf-8");
	return true;
}

static void answer_status(struct api_call *call, int status, const char *word)
{
	struct json *body = json_new(call->arena, JSON_OBJECT);

	json_put(call->arena, body, "status", text(call->arena, word));
	api_answer(call, status, body);
}

bool api_livez(struct api_call *call, struct problem *why)
{
	(void)why;
	answer_status(call, 200, "live");
	return true;
}

bool api_readyz(struct api_call *call, struct problem *why)
{
	bool is_ready = atomic_load(&call->control->is_ready);

	(void)why;
	answer_status(call, is_ready ? 200 : 503, is_ready ? "ready" : "not ready");
	return true;
}
