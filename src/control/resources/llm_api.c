/* llm_api.c -- a model API: model requests below a base path, spread over model services. */
#include "control/resources/shared.h"
#include "policy/formats.h"

static const struct choice ai_protocols[] = {
	{ 1, "OpenAI/v1", "OpenAI's API", NULL },
	{ 2, "Anthropic/v1", "Anthropic's API", NULL },
	{ 3, "DashScope/v1", "DashScope's own API", NULL },
	{ 0, NULL, NULL, NULL },
};

static bool check_protocol(struct str s, struct problem *why)
{
	return choice_find(ai_protocols, s, true) ||
	       problem(why, "", "must be OpenAI/v1, Anthropic/v1 or DashScope/v1");
}

static const struct field service_fields[] = {
	TEXT(struct model_service, serviceId, REQUIRED, RANGE(1, 64),
		REFERS("service"), DOC("Model service.")),
	INT(struct model_service, weight, RANGE(0, 10000), DEFAULT("100"),
		DOC("Share among those that match equally well.")),
	TEXT(struct model_service, modelName, RANGE(1, 256), FORMAT(format_line), EXAMPLE("\"qwen-max\""),
		DOC("Model asked for upstream.")),
	TEXT(struct model_service, modelNamePattern, RANGE(1, 256), FORMAT(format_line),
		EXAMPLE("\"qwen-*\""), DOC("Models of clients that go there; * stands for any text.")),
	FIELDS_END
};

static const struct field fields[] = {
	TEXT(struct llm_api_doc, name, REQUIRED, RANGE(1, 512), FORMAT(format_title), EXAMPLE("\"chat\""),
		DOC("Name, unique among the model and agent APIs of the gateway.")),
	TEXT(struct llm_api_doc, gatewayId, REQUIRED, IMMUTABLE, RANGE(1, 64), REFERS("gateway"),
		DOC("Gateway it belongs to.")),
	TEXT(struct llm_api_doc, environmentId, IMMUTABLE, RANGE(1, 64), REFERS("environment"),
		DOC("Environment; the gateway's default when left out.")),
	TEXTS(struct llm_api_doc, domainIds, RANGE(0, 64), TEXT_MAX(64), REFERS("domain"),
		DOC("Domains; none = every host of the gateway.")),
	TEXT(struct llm_api_doc, description, RANGE(0, 1024), FORMAT(format_description),
		DOC("Text for people.")),
	TEXT(struct llm_api_doc, basePath, RANGE(1, 256), DEFAULT("\"/\""), FORMAT(format_base_path),
		DOC("What its paths start with.")),
	BOOL(struct llm_api_doc, removeBasePathOnForward, DEFAULT("false"),
		DOC("Whether the base path is taken off on the way upstream.")),
	TEXTS(struct llm_api_doc, aiProtocols, RANGE(1, 8), FORMAT(check_protocol),
		DEFAULT("[\"OpenAI/v1\"]"), DOC("What clients speak.")),
	LIST(struct llm_api_doc, services, struct model_service, service_fields, REQUIRED, RANGE(1, 64),
		DOC("Model services.")),
	FIELDS_END
};

static bool complete(struct draft *d, struct problem *why)
{
	return complete_placement(d, why) && check_ai_api(d, why);
}

const struct resource_class llm_api_class = {
	.kind = RESOURCE_LLM_API, .name = "llmApi", .noun = "LLMApi", .plural = "LLMApis", .attach_type = "LLMApi",
	.id_field = "llmApiId", .id_prefix = "llm-", .path = "/api/v1/llm-apis", .scope = { "gatewayId" },
	.has_unique_name = true, .fields = fields, .size = sizeof(struct llm_api_doc),
	.doc = "Requests to language models.", .complete = complete,
};
