/*
 * ai_tool_selection.c -- AiToolSelection: which of the tools offered in a request the model gets to see.
 *
 * The table is an allow-list: a tool that is not listed, or listed as not enabled, is removed from the
 * request.
 */
#include "policy/formats.h"
#include "proxy/policy.h"

struct tool {
	struct str name, description;
	bool enabled;
};

struct ai_tool_selection {
	bool enable;
	struct items tools;
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

const struct policy_class ai_tool_selection = {
	.name = "AiToolSelection",
	.alias = "AI tool selection",
	.summary = "Lets the model see only the tools of a request that are listed as enabled.",
	.group = "AI",
	.scopes = SCOPE_ROUTES,
	.stage = STAGE_AI_TOOLS,
	.combine = COMBINE_SPECIFIC,
	.fails_open = true,
	.execute_stage = "PluginDefault",
	.execute_priority = 552,
	.fields = fields,
	.conf_size = sizeof(struct ai_tool_selection),
	.enable_at = offsetof(struct ai_tool_selection, enable),
	.outcomes = { "untouched", "filtered" },
	.check = check,
};
