/*
 * ai_cache.c -- AiCache: answers of models are kept and given again for the same question (exact) or a
 * similar one (semantic).
 *
 * Redis holds the answers. Semantic mode also needs a vector store and a service that makes embeddings.
 */
#include "policy/formats.h"
#include "policy/redis_config.h"
#include "policy/reference.h"
#include "policy/side_url.h"
#include "proxy/policy.h"

enum cache_mode { CACHE_EXACT, CACHE_SEMANTIC };
enum cache_key { KEY_MESSAGES, KEY_LAST_QUESTION, KEY_ALL_QUESTIONS, KEY_DISABLED };
enum embedding_type { EMBEDDING_DASHSCOPE, EMBEDDING_AZURE };

struct vector_config {
	int type;
	struct str serviceHost, apiKey;
	int64_t timeout;
	struct str collectionId;
	double threshold;
};

struct embedding_config {
	int type;
	struct str serviceId, modelName;
	int64_t timeout;
};

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

static const struct choice vector_types[] = {
	{ 0, "adb-postgres", "PostgreSQL wire protocol, or DashVector where `serviceHost` is a URL.", NULL },
	{ 0, NULL, NULL, NULL }
};

static const struct choice embedding_types[] = {
	{ EMBEDDING_DASHSCOPE, "dashscope", "Text embedding of DashScope.", NULL },
	{ EMBEDDING_AZURE, "azure", "Embedding deployment of Azure OpenAI.", NULL },
	{ 0, NULL, NULL, NULL }
};

static bool is_http(struct str s)
{
	return str_starts(s, STR("http://")) || str_starts(s, STR("https://"));
}

/* host[:port][/database], or the same after postgres://; or a URL of DashVector. */
static bool check_vector_host(struct str value, struct problem *why)
{
	static const struct str schemes[] = { { "postgres://", 11 }, { "postgresql://", 13 } };
	struct str rest = value, host;
	uint16_t port;
	size_t i, slash;

	if (is_http(value))
		return side_url_format(value, why);
	for (i = 0; i < 2; i++) {
		if (str_starts(value, schemes[i])) {
			rest = (struct str){ value.p + schemes[i].n, value.n - schemes[i].n };
			break;
		}
	}
	slash = str_find(rest, '/');
	if (!uri_split_authority((struct str){ rest.p, slash }, &host, &port) || !uri_is_host(host))
		return problem(why, "", "must be host[:port][/database], postgres://..., or an http(s) URL, "
			"without user name");
	for (i = slash + 1; i < rest.n; i++)
		if ((unsigned char)rest.p[i] <= ' ' || strchr("/?#\\\x7f", rest.p[i]))
			return problem(why, "", "has a database name with a character that is not allowed in "
				"it");
	return true;
}

static const struct field vector_fields[] = {
	CHOICE(struct vector_config, type, vector_types, REQUIRED, DOC("Kind of vector store.")),
	TEXT(struct vector_config, serviceHost, REQUIRED, RANGE(1, SIDE_URL_MAX), FORMAT(check_vector_host),
	     EXAMPLE("\"vector-service:5432/cache\""),
	     DOC("Where the vector store is: host[:port][/database], postgres://..., or the http(s) URL of "
	     "DashVector.")),
	TEXT(struct vector_config, apiKey, REQUIRED, SECRET, RANGE(1, 1024), FORMAT(format_line),
	     EXAMPLE("\"user:password\""),
	     DOC("\"user:password\" for PostgreSQL (without colon: the password of user postgres); key of "
	     "DashVector.")),
	INT(struct vector_config, timeout, REQUIRED, RANGE(1, 60000), UNIT("ms"), EXAMPLE("1000"),
	    DOC("How long one call of the vector store may take.")),
	TEXT(struct vector_config, collectionId, REQUIRED, RANGE(1, 127), EXAMPLE("\"ai_cache\""),
	     DOC("Table, optionally with schema, or collection that holds the vectors.")),
	NUMBER(struct vector_config, threshold, REQUIRED, RANGE(0, 1), EXAMPLE("0.9"),
	       DOC("Cosine similarity from which a question hits; 1 is the same direction.")),
	FIELDS_END
};

static const struct field embedding_fields[] = {
	CHOICE(struct embedding_config, type, embedding_types, REQUIRED,
	       DOC("API of the embedding service.")),
	TEXT(struct embedding_config, serviceId, REQUIRED, RANGE(1, 128), REFERS("service"),
	     EXAMPLE("\"embedding-service\""),
	     DOC("Id of the AI service of this gateway that makes the embeddings.")),
	TEXT(struct embedding_config, modelName, RANGE(0, 128), FORMAT(format_line),
	     EXAMPLE("\"text-embedding-v2\""),
	     DOC("Model or deployment; absent: text-embedding-v2 for dashscope, text-embedding-ada-002 for "
	     "azure.")),
	INT(struct embedding_config, timeout, RANGE(1, 60000), DEFAULT("5000"), UNIT("ms"),
	    DOC("How long one call of the embedding service may take.")),
	FIELDS_END
};

static const struct field fields[] = {
	BOOL(struct ai_cache, enable, REQUIRED, DOC("Whether the policy acts.")),
	INT(struct ai_cache, cacheTTL, REQUIRED, RANGE(1, 365 * 24 * 3600), UNIT("seconds"), EXAMPLE("3600"),
	    DOC("How long an answer is kept.")),
	CHOICE(struct ai_cache, cacheMode, modes, REQUIRED, DOC("Which questions hit.")),
	CHOICE(struct ai_cache, cacheKeyStrategy, strategies, DEFAULT("\"messages\""),
	       DOC("What of the request is the question; the rest of it is part of the key in any case.")),
	OBJECT(struct ai_cache, redisConfig, redis_config_fields, REQUIRED, DOC("Where the answers live.")),
	OBJECT(struct ai_cache, vectorConfig, vector_fields, WHEN("cacheMode", CACHE_SEMANTIC),
	       PRESENT(struct ai_cache, has_vector), DOC("Vector store of the semantic mode.")),
	OBJECT(struct ai_cache, embeddingConfig, embedding_fields, WHEN("cacheMode", CACHE_SEMANTIC),
	       PRESENT(struct ai_cache, has_embedding), DOC("Embeddings of the semantic mode.")),
	FIELDS_END
};

static bool is_letter(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static bool is_identifier(struct str s)
{
	size_t i;

	if (s.n == 0 || s.n > 63 || !is_letter(s.p[0]))
		return false;
	for (i = 1; i < s.n; i++)
		if (!is_letter(s.p[i]) && !is_digit(s.p[i]))
			return false;
	return true;
}

static bool is_table(struct str s)
{
	size_t dot = str_find(s, '.');

	if (dot == s.n)
		return is_identifier(s);
	return is_identifier((struct str){ s.p, dot }) && is_identifier((struct str){ s.p + dot + 1,
		s.n - dot - 1 });
}

static bool is_collection(struct str s)
{
	size_t i;

	for (i = 0; i < s.n; i++)
		if (!is_letter(s.p[i]) && !is_digit(s.p[i]) && s.p[i] != '-')
			return false;
	return true;
}

static bool check(const void *vconf, struct problem *why)
{
	const struct ai_cache *conf = vconf;
	struct str id = conf->vectorConfig.collectionId;

	if (!redis_config_check(&conf->redisConfig, why))
		return false;
	if (!conf->has_vector)
		return true;
	if (is_http(conf->vectorConfig.serviceHost))
		return is_collection(id) || problem(why, "vectorConfig.collectionId",
			"may have letters, digits, \"_\" and \"-\" only");
	return is_table(id) || problem(why, "vectorConfig.collectionId",
	                               "must be a table or schema.table: each a letter or \"_\", then "
	                               "letters, digits, \"_\"; "
	                               "at most 63 bytes");
}

static bool attach(const void *vconf, const struct attach_target *t, struct problem *why)
{
	const struct ai_cache *conf = vconf;
	struct str id = conf->embeddingConfig.serviceId;
	const struct json *service, *ai;

	if (conf->cacheMode != CACHE_SEMANTIC)
		return true;
	if (!reference_service(t, id, "embeddingConfig.serviceId", &service, why))
		return false;
	ai = json_get(service, "aiServiceConfig");
	if (!ai || ai->type != JSON_OBJECT)
		return problem(why, "embeddingConfig.serviceId",
			"service \"%.*s\" has no aiServiceConfig with its key", STR_FMT(id));
	return true;
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
