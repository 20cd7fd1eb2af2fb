/* policy.c -- the words of policy.h: names of scopes and stages. */
#include "proxy/policy.h"

const char *const stage_names[STAGE_COUNT] = {
	[STAGE_AI_RECORD] = "ai.record",
	[STAGE_IP] = "ip",
	[STAGE_CORS] = "cors",
	[STAGE_WAF_HEAD] = "waf.head",
	[STAGE_AUTH_EXTERNAL] = "auth.external",
	[STAGE_AUTH_OIDC] = "auth.oidc",
	[STAGE_AUTH_JWT] = "auth.jwt",
	[STAGE_AUTH_CONSUMER] = "auth.consumer",
	[STAGE_RATE] = "rate",
	[STAGE_CONCURRENCY] = "concurrency",
	[STAGE_TERMINAL] = "terminal",
	[STAGE_BREAKER] = "breaker",
	[STAGE_LANE] = "lane",
	[STAGE_WAF_BODY] = "waf.body",
	[STAGE_AI_CLASSIFY] = "ai.classify",
	[STAGE_AI_STATISTICS] = "ai.statistics",
	[STAGE_AI_CACHE] = "ai.cache",
	[STAGE_AI_TOKEN] = "ai.token",
	[STAGE_AI_TOOLS] = "ai.tools",
	[STAGE_AI_SEARCH] = "ai.search",
	[STAGE_HEADERS] = "headers",
	[STAGE_REWRITE] = "rewrite",
	[STAGE_PICK] = "pick",
	[STAGE_AI_FALLBACK] = "ai.fallback",
	[STAGE_SERVICE_RATE] = "service.rate",
	[STAGE_SERVICE_BREAKER] = "service.breaker",
	[STAGE_AI_GUARD] = "ai.guard",
	[STAGE_MIRROR] = "mirror",
	[STAGE_DISPATCH] = "dispatch",
	[STAGE_SETTING] = "setting",
};

const char *const response_stage_names[RESPONSE_STAGE_COUNT] = {
	[RESPONSE_NONE] = "", [RESPONSE_CHAT] = "chat", [RESPONSE_GUARD] = "guard", [RESPONSE_WAF] = "waf",
	[RESPONSE_AI] = "ai", [RESPONSE_HEADERS] = "headers", [RESPONSE_CORS] = "cors",
};

static const struct {
	enum scope scope;
	const char *name, *alias;
} scopes[] = {
	{ SCOPE_GATEWAY, "Gateway", NULL },
	{ SCOPE_DOMAIN, "Domain", NULL },
	{ SCOPE_ROUTE, "Route", "GatewayRoute" },
	{ SCOPE_LLM_API, "LLMApi", NULL },
	{ SCOPE_AGENT_API, "AgentApi", NULL },
	{ SCOPE_API, "Api", "HttpApi" },
	{ SCOPE_OPERATION, "Operation", NULL },
	{ SCOPE_SERVICE, "Service", "GatewayService" },
	{ SCOPE_SERVICE_PORT, "ServicePort", "GatewayServicePort" },
};

const char *scope_name(enum scope one)
{
	unsigned i = 0;

	while (scopes[i].scope != one) {
		i++;
		BUG_ON(i == sizeof(scopes) / sizeof(scopes[0]));
	}
	return scopes[i].name;
}

bool scope_parse(struct str text, enum scope *out)
{
	for (unsigned i = 0; i < sizeof(scopes) / sizeof(scopes[0]); i++)
		if (str_equal(text, str_of(scopes[i].name)) ||
		    (scopes[i].alias && str_equal(text, str_of(scopes[i].alias)))) {
			*out = scopes[i].scope;
			return true;
		}
	return false;
}
