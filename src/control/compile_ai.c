/*
 * compile_ai.c -- model and agent APIs to routes, and what their services are to ai/.
 *
 * An API is one route: everything below its base path, to the services it names. Which of them a request goes to is
 * decided by its model or app when it is read (ai/chat_request.c).
 */
#include "ai/chat_conf.h"
#include "control/compile_state.h"
#include "http/uri.h"

/* ---------- APIs ---------- */

static void set_api(struct route_base *base, struct chat_api *api, struct str base_path)
{
	while (base_path.n > 0 && base_path.p[base_path.n - 1] == '/')
		base_path.n--;
	api->base_path = arena_copy(&base->arena, base_path);
	base->content.ai = api;
	base->content.shape_error = chat_shape_error;
}

static struct str copy_if(struct arena *a, struct str s)
{
	return s.n > 0 ? arena_copy(a, s) : (struct str){ NULL, 0 };
}

static void read_entries(struct arena *a, struct chat_api *api, const struct items *services)
{
	struct chat_entry *entries = NEW_N(a, struct chat_entry, services->n);

	for (size_t i = 0; i < services->n; i++) {
		const struct model_service *from = ITEM(*services, struct model_service, i);

		entries[i] = (struct chat_entry){
			.pattern = copy_if(a, from->modelNamePattern), .model = copy_if(a, from->modelName),
			.weight = (uint32_t)from->weight, .target = (unsigned)i,
		};
	}
	api->entries = entries;
	api->n_entries = (unsigned)services->n;
}

static enum ai_family family_of(const struct items *protocols)
{
	for (size_t i = 0; i < protocols->n; i++) {
		struct str p = *ITEM(*protocols, struct str, i);

		if (str_starts(p, STR("Anthropic")) || str_starts(p, STR("anthropic")))
			return AI_FAMILY_ANTHROPIC;
		if (str_starts(p, STR("DashScope")) || str_starts(p, STR("dashscope")))
			return AI_FAMILY_DASHSCOPE;
		break;
	}
	return AI_FAMILY_OPENAI;
}

/* One target for each entry, in their order. */
static struct backend backend_of(struct arena *a, const struct items *services)
{
	struct backend_service *list = NEW_N(a, struct backend_service, services->n);

	for (size_t i = 0; i < services->n; i++) {
		const struct model_service *from = ITEM(*services, struct model_service, i);

		list[i] = (struct backend_service){ .serviceId = from->serviceId, .weight = from->weight };
	}
	return (struct backend){ SCENE_MULTI_SERVICE_BY_RATIO, { list, services->n } };
}

static struct route_base *decode_llm_api(struct compiler *c, struct resource *r, struct problem *why)
{
	struct arena scratch = { 0 };
	struct llm_api_doc doc = { 0 };
	struct route_base *base = NULL;
	struct chat_api *api;
	struct backend backend;

	if (resource_decode(r, &scratch, &doc, why)) {
		backend = backend_of(&scratch, &doc.services);
		base = route_base_new(c, &(struct route_source){
			.resource = r, .type = "LLMApi", .gateway_id = doc.gatewayId,
			.domain_ids = &doc.domainIds, .backend = &backend, .match = MATCH_PREFIX,
			.path_field = "basePath", .path = doc.basePath }, why);
	}
	if (base) {
		api = NEW(&base->arena, struct chat_api);
		api->family = family_of(&doc.aiProtocols);
		api->removes_base = doc.removeBasePathOnForward;
		read_entries(&base->arena, api, &doc.services);
		set_api(base, api, doc.basePath);
	}
	arena_free(&scratch);
	return base;
}

static struct route_base *decode_agent_api(struct compiler *c, struct resource *r, struct problem *why)
{
	static const enum chat_agent kinds[] = {
		[AGENT_DASHSCOPE] = CHAT_AGENT_DASHSCOPE, [AGENT_DIFY] = CHAT_AGENT_DIFY,
		[AGENT_CUSTOM] = CHAT_AGENT_CUSTOM,
	};
	static const enum ai_family families[] = {
		[AGENT_DASHSCOPE] = AI_FAMILY_DASHSCOPE, [AGENT_DIFY] = AI_FAMILY_DIFY,
		[AGENT_CUSTOM] = AI_FAMILY_OPENAI,
	};
	struct arena scratch = { 0 };
	struct agent_api_doc doc = { 0 };
	struct route_base *base = NULL;
	struct chat_api *api;

	if (resource_decode(r, &scratch, &doc, why)) {
		struct backend backend = { SCENE_MULTI_SERVICE_BY_RATIO, doc.services };

		base = route_base_new(c, &(struct route_source){
			.resource = r, .type = "AgentApi", .gateway_id = doc.gatewayId,
			.domain_ids = &doc.domainIds, .backend = &backend, .match = MATCH_PREFIX,
			.path_field = "basePath", .path = doc.basePath }, why);
	}
	if (base) {
		api = NEW(&base->arena, struct chat_api);
		api->is_agent = api->removes_base = true;
		api->agent = kinds[doc.protocol];
		api->family = families[doc.protocol];
		set_api(base, api, doc.basePath);
	}
	arena_free(&scratch);
	return base;
}

bool ai_api_change(struct compiler *c, const struct change *change, struct problem *why)
{
	struct resource *r = change->after ? change->after : change->before;
	struct route_base *base = NULL;

	if (change->after) {
		base = r->kind == RESOURCE_LLM_API ? decode_llm_api(c, r, why) : decode_agent_api(c, r, why);
		if (!base)
			return false;
	}
	route_want(c, route_state_get(c, r->id), base);
	return true;
}

/* ---------- services ---------- */

static enum chat_provider provider_of(struct str name)
{
	static const struct { struct str name; enum chat_provider provider; } known[] = {
		{ { "azure", 5 }, PROVIDER_AZURE }, { { "azure-openai", 12 }, PROVIDER_AZURE },
		{ { "anthropic", 9 }, PROVIDER_ANTHROPIC }, { { "claude", 6 }, PROVIDER_ANTHROPIC },
		{ { "dashscope", 9 }, PROVIDER_DASHSCOPE }, { { "qwen", 4 }, PROVIDER_DASHSCOPE },
		{ { "qwen-compatible", 15 }, PROVIDER_DASHSCOPE }, { { "tongyi", 6 }, PROVIDER_DASHSCOPE },
		{ { "bailian", 7 }, PROVIDER_DASHSCOPE }, { { "openai", 6 }, PROVIDER_OPENAI },
	};

	for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
		if (str_equal_nocase(name, known[i].name))
			return known[i].provider;
	return PROVIDER_OTHER;
}

static unsigned protocols_of(const struct items *list)
{
	unsigned bits = 0;

	for (size_t i = 0; i < list->n; i++) {
		struct str p = *ITEM(*list, struct str, i);

		if (str_equal_nocase(p, STR("Anthropic/v1")))
			bits |= CHAT_ANTHROPIC;
		else if (str_equal_nocase(p, STR("DashScope/v1")))
			bits |= CHAT_DASHSCOPE;
		else
			bits |= CHAT_OPENAI;
	}
	return bits;
}

static void read_address(struct arena *a, struct str address, struct chat_service *s)
{
	struct url url;
	size_t query;

	if (!url_parse(address, &url))
		return;
	s->authority = arena_copy(a, url.authority);
	query = str_find(url.target, '?');
	s->path = arena_copy(a, (struct str){ url.target.p, query });
	while (s->path.n > 0 && s->path.p[s->path.n - 1] == '/')
		s->path.n--;
	if (query < url.target.n)
		s->query = arena_copy(a, (struct str){ url.target.p + query + 1, url.target.n - query - 1 });
}

static void read_keys(struct arena *a, const struct items *keys, struct chat_service *s)
{
	struct str *copies = NEW_N(a, struct str, keys->n);

	for (size_t i = 0; i < keys->n; i++)
		copies[i] = arena_copy(a, *ITEM(*keys, struct str, i));
	s->keys = copies;
	s->n_keys = (unsigned)keys->n;
}

static void read_agent(struct arena *a, const struct agent_service_config *from, struct chat_service *s)
{
	const struct items *apps = &from->dashScopeConfig.appCredentials;
	struct chat_app *copies = NEW_N(a, struct chat_app, apps->n);
	struct str key = from->has_difyConfig ? from->difyConfig.apiKey
			 : from->has_customConfig ? from->customConfig.apiKey : (struct str){ NULL, 0 };

	s->is_agent = true;
	s->provider = PROVIDER_OTHER;
	s->provider_name = from->has_dashScopeConfig ? STR("dashscope")
			   : from->has_difyConfig ? STR("dify") : STR("custom");
	for (size_t i = 0; from->has_dashScopeConfig && i < apps->n; i++) {
		const struct app_credential *app = ITEM(*apps, struct app_credential, i);

		copies[s->n_apps++] = (struct chat_app){ arena_copy(a, app->appId), arena_copy(a, app->apiKey) };
	}
	s->apps = copies;
	read_address(a, from->address, s);
	if (key.n > 0)
		read_keys(a, &(struct items){ &key, 1 }, s);
}

const struct chat_service *ai_service_read(struct arena *a, const struct service_doc *doc)
{
	struct chat_service *s;

	if (!doc->has_aiServiceConfig && !doc->has_agentServiceConfig)
		return NULL;
	s = NEW(a, struct chat_service);
	if (doc->has_aiServiceConfig) {
		const struct ai_service_config *from = &doc->aiServiceConfig;

		s->provider_name = arena_copy(a, from->provider);
		s->provider = provider_of(from->provider);
		s->protocols = protocols_of(&from->protocols);
		read_address(a, from->address, s);
		read_keys(a, &from->apiKeys, s);
	} else {
		read_agent(a, &doc->agentServiceConfig, s);
	}
	return s;
}

bool ai_service_url(const struct service_doc *doc, struct url *url)
{
	if (doc->has_aiServiceConfig)
		return url_parse(doc->aiServiceConfig.address, url);
	return doc->has_agentServiceConfig && url_parse(doc->agentServiceConfig.address, url);
}
