/* agent_api.c -- an agent API: requests to agents below a base path. */
#include "control/resources/shared.h"

static const struct choice protocols[] = {
	{ AGENT_DASHSCOPE, "DashScope", "Model Studio apps", NULL },
	{ AGENT_DIFY, "Dify", "Dify", NULL },
	{ AGENT_CUSTOM, "Custom", "any other", NULL },
	{ 0, NULL, NULL, NULL },
};

static const struct field fields[] = {
	TEXT(struct agent_api_doc, name, REQUIRED, RANGE(1, 512), FORMAT(format_title), EXAMPLE("\"helper\""),
		DOC("Name, unique among the model and agent APIs of the gateway.")),
	TEXT(struct agent_api_doc, gatewayId, REQUIRED, IMMUTABLE, RANGE(1, 64), REFERS("gateway"),
		DOC("Gateway it belongs to.")),
	TEXT(struct agent_api_doc, environmentId, IMMUTABLE, RANGE(1, 64), REFERS("environment"),
		DOC("Environment; the gateway's default when left out.")),
	TEXTS(struct agent_api_doc, domainIds, RANGE(0, 64), TEXT_MAX(64), REFERS("domain"),
		DOC("Domains; none = every host of the gateway.")),
	TEXT(struct agent_api_doc, description, RANGE(0, 1024), FORMAT(format_description),
		DOC("Text for people.")),
	TEXT(struct agent_api_doc, basePath, RANGE(1, 256), DEFAULT("\"/\""), FORMAT(format_base_path),
		DOC("What its paths start with.")),
	CHOICE(struct agent_api_doc, protocol, protocols, REQUIRED, ANY_CASE, DOC("What the agents speak.")),
	LIST(struct agent_api_doc, services, struct backend_service, backend_service_fields, REQUIRED,
		RANGE(1, 64), DOC("Agent services.")),
	FIELDS_END
};

static bool complete(struct draft *d, struct problem *why)
{
	return complete_placement(d, why) && check_ai_api(d, why);
}

const struct resource_class agent_api_class = {
	.kind = RESOURCE_AGENT_API,
	.name = "agentApi",
	.noun = "AgentApi",
	.plural = "AgentApis",
	.attach_type = "AgentApi",
	.id_field = "agentApiId",
	.id_prefix = "agent-",
	.path = "/api/v1/agent-apis",
	.scope = { "gatewayId" },
	.has_unique_name = true,
	.fields = fields,
	.size = sizeof(struct agent_api_doc),
	.doc = "Requests to agents.",
	.complete = complete,
};
