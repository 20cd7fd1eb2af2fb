/*
 * ai_cache.c -- AiCache: answers of models are kept and given again for the same question (exact) or a
 * similar one (semantic).
 *
 * Redis holds the answers. Semantic mode also needs a vector store and a service that makes embeddings.
 */
#include "policy/ai_cache_semantic.h"
#include "policy/redis_config.h"
#include "proxy/policy.h"

enum cache_mode { CACHE_EXACT, CACHE_SEMANTIC };
enum cache_key { KEY_MESSAGES, KEY_LAST_QUESTION, KEY_ALL_QUESTIONS, KEY_DISABLED };

struct ai_cache {
	bool enable;
	int64_t cacheTTL;
	int cacheMode, cacheKeyStrategy;
	struct redis_config redisConfig;
	bool has_vector, has_embedding;
	struct vector_config vectorConfig;
	struct embedding_config embeddingConfig;
};

static const struct choice modes[] = {
	{ CACHE_EXACT, "exact", "Only the same question hits.", NULL },
	{ CACHE_SEMANTIC, "semantic", "A question with a similar meaning hits too.", NULL },
	{ 0, NULL, NULL, NULL }
};

static const struct choice strategies[] = {
	{ KEY_MESSAGES, "messages", "All messages are the question.", NULL },
	{ KEY_LAST_QUESTION, "lastQuestion", "The last user message is the question.", NULL },
	{ KEY_ALL_QUESTIONS, "allQuestions", "All user messages are the question.", NULL },
	{ KEY_DISABLED, "disabled", "Nothing is looked up or kept.", NULL },
	{ 0, NULL, NULL, NULL }
};

static const struct field fields[] = {
	BOOL(struct ai_cache, enable, REQUIRED, DOC("Whether the policy acts.")),
	INT(struct ai_cache, cacheTTL, REQUIRED, RANGE(1, 365 * 24 * 3600), UNIT("seconds"), EXAMPLE("3600"),
	    DOC("How long an answer is kept.")),
	CHOICE(struct ai_cache, cacheMode, modes, REQUIRED, DOC("Which questions hit.")),
	CHOICE(struct ai_cache, cacheKeyStrategy, strategies, DEFAULT("\"messages\""),
	       DOC("What of the request is the question; the rest of it is part of the key in any case.")),
	OBJECT(struct ai_cache, redisConfig, redis_config_fields, REQUIRED, DOC("Where the answers live.")),
	OBJECT(struct ai_cache, vectorConfig, vector_config_fields, WHEN("cacheMode", CACHE_SEMANTIC),
	       PRESENT(struct ai_cache, has_vector), DOC("Vector store of the semantic mode.")),
	OBJECT(struct ai_cache, embeddingConfig, embedding_config_fields, WHEN("cacheMode", CACHE_SEMANTIC),
	       PRESENT(struct ai_cache, has_embedding), DOC("Embeddings of the semantic mode.")),
	FIELDS_END
};

static bool check(const void *vconf, struct problem *why)
{
	const struct ai_cache *conf = vconf;

	return redis_config_check(&conf->redisConfig, why) &&
	       (!conf->has_vector || semantic_check(&conf->vectorConfig, why));
}

static bool attach(const void *vconf, const struct attach_target *t, struct problem *why)
{
	const struct ai_cache *conf = vconf;

	return conf->cacheMode != CACHE_SEMANTIC || semantic_attach(&conf->embeddingConfig, t, why);
}

const struct policy_class ai_cache = {
	.name = "AiCache",
	.alias = "AI cache",
	.summary = "Gives kept answers of models again for the same or similar questions.",
	.group = "AI",
	.scopes = SCOPE_ROUTES,
	.stage = STAGE_AI_CACHE,
	.response_stage = RESPONSE_AI,
	.combine = COMBINE_SPECIFIC,
	.fails_open = true,
	.execute_stage = "PluginDefault",
	.execute_priority = 556,
	.fields = fields,
	.conf_size = sizeof(struct ai_cache),
	.enable_at = offsetof(struct ai_cache, enable),
	.outcomes = { "hit", "miss", "skip", "stored", "error" },
	.check = check,
	.attach = attach,
};
