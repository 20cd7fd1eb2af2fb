/*
 * ai_network_search.c -- AiNetworkSearch: results of a web search are put into the prompt before it goes to
 * the model.
 *
 * A search that fails or finds nothing leaves the request as it was.
 */
#include "policy/formats.h"
#include "policy/side_url.h"
#include "proxy/policy.h"

enum search_provider { SEARCH_BING, SEARCH_GOOGLE, SEARCH_QUARK, SEARCH_ARXIV };

/* What one call of the Google API gives. */
#define GOOGLE_RESULTS_MAX 10

struct ai_network_search {
	bool enable;
	int provider;
	struct str apiKey;
	int64_t maxResults, timeout;
	struct str endpoint;
};

static const struct choice providers[] = {
	{ SEARCH_BING, "bing", "Bing Web Search v7, or a compatible service at `endpoint`.", NULL },
	{ SEARCH_GOOGLE, "google", "Google Custom Search; `apiKey` is \"<cx>:<key>\".", NULL },
	{ SEARCH_QUARK, "quark", "Quark search of Alibaba Cloud.", "aliyunQuark" },
	{ SEARCH_ARXIV, "arxiv", "Papers of arXiv; `apiKey` is not used.", NULL },
	{ 0, NULL, NULL, NULL }
};

static const struct field fields[] = {
	BOOL(struct ai_network_search, enable, REQUIRED, DOC("Whether the policy acts.")),
	CHOICE(struct ai_network_search, provider, providers, REQUIRED, DOC("Search service.")),
	TEXT(struct ai_network_search, apiKey, REQUIRED, SECRET, RANGE(1, 1024), FORMAT(format_line),
	     EXAMPLE("\"your-search-api-key\""),
	     DOC("Key of the search service; for google \"<cx>:<key>\".")),
	INT(struct ai_network_search, maxResults, RANGE(1, 50), DEFAULT("10"),
	    DOC("How many results go into the prompt at most; for google at most 10.")),
	INT(struct ai_network_search, timeout, RANGE(100, 60000), DEFAULT("5000"), UNIT("ms"),
	    DOC("How long the search may take.")),
	TEXT(struct ai_network_search, endpoint, RANGE(0, SIDE_URL_MAX), FORMAT(side_url_format),
	     EXAMPLE("\"https://api.bing.microsoft.com/v7.0/search\""),
	     DOC("URL of a compatible service; absent: the provider's own.")),
	FIELDS_END
};

static bool check(const void *vconf, struct problem *why)
{
	const struct ai_network_search *conf = vconf;
	size_t colon = str_find(conf->apiKey, ':');

	if (conf->provider != SEARCH_GOOGLE)
		return true;
	if (colon == 0 || colon + 1 >= conf->apiKey.n)
		return problem(why, "apiKey", "must be \"<cx>:<key>\" for google: the search engine's id, a "
			"colon, the API key");
	if (conf->maxResults > GOOGLE_RESULTS_MAX)
		return problem(why, "maxResults", "is %lld; google gives at most %d",
			(long long)conf->maxResults,
		               GOOGLE_RESULTS_MAX);
	return true;
}

const struct policy_class ai_network_search = {
	.name = "AiNetworkSearch",
	.alias = "AI network search",
	.summary = "Adds results of a web search to the prompt.",
	.group = "AI",
	.scopes = SCOPE_ROUTES,
	.stage = STAGE_AI_SEARCH,
	.combine = COMBINE_SPECIFIC,
	.fails_open = true,
	.execute_stage = "PluginDefault",
	.execute_priority = 550,
	.fields = fields,
	.conf_size = sizeof(struct ai_network_search),
	.enable_at = offsetof(struct ai_network_search, enable),
	.outcomes = { "searched", "empty", "timeout", "error", "skipped" },
	.check = check,
};
