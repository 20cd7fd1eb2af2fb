/*
 * ai_tool_selection.c -- AiToolSelection: which of the tools offered in a request the model gets to see.
 *
 * The table is an allow-list: a tool that is not listed, or listed as not enabled, is removed from the
 * request; so is one that has no name. What is kept keeps its bytes and its order. Where a request has no
 * tool left, what speaks of tools goes too, because models refuse a choice without tools. The messages and
 * the answer are not touched.
 */
#include <stdlib.h>
#include "ai/chat.h"
#include "policy/formats.h"
#include "proxy/policy.h"

enum outcome { UNTOUCHED, FILTERED };

struct tool {
	struct str name, description;
	bool enabled;
};

struct ai_tool_selection {
	bool enable;
	struct items tools;
	/* prepared: by name */
	const struct tool **sorted;
};

static const struct field tool_fields[] = {
	TEXT(struct tool, name, REQUIRED, RANGE(1, 128), FORMAT(format_line), EXAMPLE("\"calculator\""),
	     DOC("Name of the tool as the request spells it; each at most once.")),
	TEXT(struct tool, description, REQUIRED, EMPTY_OK, RANGE(0, 4096),
	     EXAMPLE("\"Used for mathematical calculations\""),
	     DOC("What the tool is for; fills in where the request's tool has no description.")),
	BOOL(struct tool, enabled, REQUIRED, DOC("Whether the model may use the tool.")),
	FIELDS_END
};

static const struct field fields[] = {
	BOOL(struct ai_tool_selection, enable, REQUIRED, DOC("Whether the policy acts.")),
	LIST(struct ai_tool_selection, tools, struct tool, tool_fields, REQUIRED, RANGE(1, 512),
	     DOC("The tools that are known; all others are removed from requests.")),
	FIELDS_END
};

static bool check(const void *vconf, struct problem *why)
{
	const struct ai_tool_selection *conf = vconf;
	size_t i, j;

	for (i = 1; i < conf->tools.n; i++) {
		const struct tool *tool = ITEM(conf->tools, const struct tool, i);

		for (j = 0; j < i; j++) {
			char path[96];

			if (!str_equal(tool->name, ITEM(conf->tools, const struct tool, j)->name))
				continue;
			snprintf(path, sizeof(path), "tools[%zu].name", i);
			return problem(why, path, "\"%.*s\" is there twice", STR_FMT(tool->name));
		}
	}
	return true;
}

static int by_name(const void *a, const void *b)
{
	return str_compare((*(const struct tool *const *)a)->name, (*(const struct tool *const *)b)->name);
}

static bool prepare(void *vconf, struct arena *a, struct problem *why)
{
	struct ai_tool_selection *conf = vconf;

	(void)why;
	conf->sorted = NEW_N(a, const struct tool *, conf->tools.n);
	for (size_t i = 0; i < conf->tools.n; i++)
		conf->sorted[i] = ITEM(conf->tools, const struct tool, i);
	qsort(conf->sorted, conf->tools.n, sizeof *conf->sorted, by_name);
	return true;
}

/* ---------- names ---------- */

/* NULL: the model must not see it. */
static const struct tool *find_enabled(const struct ai_tool_selection *conf, struct str name)
{
	const struct tool wanted = { .name = name }, *key = &wanted;
	const struct tool *const *found;

	if (!name.p)
		return NULL;
	found = bsearch(&key, conf->sorted, conf->tools.n, sizeof *conf->sorted, by_name);
	return found && (*found)->enabled ? *found : NULL;
}

static const struct json *object(const struct json *v, const char *name)
{
	const struct json *m = json_get(v, name);

	return m && m->type == JSON_OBJECT ? m : NULL;
}

/*
 * Where name and description of a tool stand: in an object named after its type, or in the tool itself. The same holds
 * for what chooses a tool.
 */
static const struct json *declaration(const struct json *tool)
{
	const struct json *inner = object(tool, "function");

	inner = inner ? inner : object(tool, "custom");
	return inner ? inner : tool;
}

static struct str name_of(const struct json *tool, enum ai_kind kind)
{
	const struct json *name = json_get(declaration(tool), "name");
	struct str type = json_text(tool, "type");

	/* What is built into a model has no name of its own: web_search, file_search, ... */
	if (kind == AI_RESPONSES && type.n > 0 && !str_equal(type, STR("function")) && !str_equal(type, STR("custom")))
		return type;
	return name && name->type == JSON_STRING ? name->string : (struct str){ NULL, 0 };
}

/* ---------- one request ---------- */

struct selection {
	const struct ai_tool_selection *conf;
	struct chat *c;
	bool is_changed;
};

static bool is_enabled(const struct selection *s, const struct json *tool)
{
	return find_enabled(s->conf, name_of(tool, s->c->kind)) != NULL;
}

static void drop(struct selection *s, const struct json *box, const char *name)
{
	const struct json *member = json_get(box, name);

	if (!member)
		return;
	edits_drop(&s->c->edits, box, member);
	s->is_changed = true;
}

static void replace(struct selection *s, const struct json *value, struct str with)
{
	edits_replace(&s->c->edits, value, with);
	s->is_changed = true;
}

/* What is built into a model is described by its provider. */
static bool is_described_by_client(const struct json *tool)
{
	struct str type = json_text(tool, "type");

	return type.n == 0 || str_equal(type, STR("function")) || str_equal(type, STR("custom"));
}

static void describe(struct selection *s, const struct json *tool)
{
	const struct tool *row = find_enabled(s->conf, name_of(tool, s->c->kind));
	const struct json *place = declaration(tool), *old = json_get(place, "description");
	struct sbuf quoted = { 0 };

	if (row->description.n == 0 || !is_described_by_client(tool))
		return;
	if (old && old->type != JSON_NULL && !(old->type == JSON_STRING && old->string.n == 0))
		return;
	json_quote(&quoted, row->description);
	if (old)
		edits_replace(&s->c->edits, old, sbuf_str(&quoted));
	else
		edits_add(&s->c->edits, place, STR("description"), sbuf_str(&quoted));
	s->is_changed = true;
	sbuf_free(&quoted);
}

/* Items of the list that are not enabled go. Returns how many stay; with 0 the list is left for the caller to drop. */
static unsigned filter(struct selection *s, const struct json *list)
{
	unsigned kept = 0;

	for (const struct json *tool = list->child; tool; tool = tool->next)
		kept += is_enabled(s, tool);
	if (kept == 0 || kept == list->n)
		return kept;
	for (const struct json *tool = list->child; tool; tool = tool->next)
		if (!is_enabled(s, tool))
			edits_drop(&s->c->edits, list, tool);
	s->is_changed = true;
	return kept;
}

static const struct json *list_of(const struct json *box, const char *name)
{
	const struct json *list = json_get(box, name);

	return list && list->type == JSON_ARRAY && list->n > 0 ? list : NULL;
}

/*
 * Several tools that may be chosen from: {"type":"allowed_tools",...}, with the list in an object of that name (chat)
 * or beside the type (responses).
 */
static void mend_allowed(struct selection *s, const struct json *choice)
{
	const struct json *inner = object(choice, "allowed_tools");
	const struct json *list = list_of(inner ? inner : choice, "tools");

	if (list && filter(s, list) == 0)
		replace(s, choice, STR("\"auto\""));
}

/* A choice that forces a tool which went becomes "auto". */
static void mend_choice(struct selection *s, const struct json *choice)
{
	const struct json *type = json_get(choice, "type");

	if (!choice || choice->type != JSON_OBJECT)
		return;                       /* "auto", "none", "required" */
	if (str_equal(json_text(choice, "type"), STR("allowed_tools"))) {
		mend_allowed(s, choice);
		return;
	}
	if (s->c->kind != AI_MESSAGES) {
		if (!is_enabled(s, choice))
			replace(s, choice, STR("\"auto\""));
		return;
	}
	if (!str_equal(json_text(choice, "type"), STR("tool")) || is_enabled(s, choice))
		return;
	replace(s, type, STR("\"auto\""));
	drop(s, choice, "name");
}

/* A list of tools, and what else there is about it in the same object. */
static void select_tools(struct selection *s, const struct json *box, const char *list_name, const char *choice_name)
{
	const struct json *list = list_of(box, list_name);
	unsigned kept;

	if (!list)
		return;
	kept = filter(s, list);
	s->c->tools_in += list->n;
	s->c->tools_out += kept;
	if (kept == 0) {
		drop(s, box, list_name);
		drop(s, box, choice_name);
		if (str_equal(str_of(list_name), STR("tools")))
			drop(s, box, "parallel_tool_calls");
		return;
	}
	for (const struct json *tool = list->child; tool; tool = tool->next)
		if (is_enabled(s, tool))
			describe(s, tool);
	mend_choice(s, json_get(box, choice_name));
}

static enum verdict select_for(struct exchange *x, const struct step *step)
{
	struct chat *c = exchange_chat_readable(x);
	struct selection s = { .conf = step->conf, .c = c };

	if (!c)
		return next();
	c->tools_in = c->tools_out = 0;
	switch (c->kind) {
	case AI_CHAT:
		select_tools(&s, c->body, "tools", "tool_choice");
		select_tools(&s, c->body, "functions", "function_call");
		break;
	case AI_RESPONSES: case AI_MESSAGES:
		select_tools(&s, c->body, "tools", "tool_choice");
		break;
	case AI_GENERATION:
		select_tools(&s, json_get(c->body, "parameters"), "tools", "tool_choice");
		break;
	default:
		break;
	}
	policy_count(step, s.is_changed ? FILTERED : UNTOUCHED);
	return next();
}

const struct policy_class ai_tool_selection = {
	.name = "AiToolSelection",
	.alias = "AI tool selection",
	.summary = "Lets the model see only the tools of a request that are listed as enabled.",
	.group = "AI",
	.wants = WANTS_CHAT,
	.scopes = SCOPE_ROUTES,
	.stage = STAGE_AI_TOOLS,
	.combine = COMBINE_SPECIFIC,
	.is_enforced = true,
	.fails_open = true,
	.execute_stage = "PluginDefault",
	.execute_priority = 552,
	.fields = fields,
	.conf_size = sizeof(struct ai_tool_selection),
	.enable_at = offsetof(struct ai_tool_selection, enable),
	.outcomes = { [UNTOUCHED] = "untouched", [FILTERED] = "filtered" },
	.check = check,
	.prepare = prepare,
	.request = select_for,
	.is_pure = true,
};
