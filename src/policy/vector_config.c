/*
 * vector_config.c -- vectorConfig and embeddingConfig of AiCache: their members, their rules, and what a worker
 * needs of them and of the embedding service.
 */
#include "core/json.h"
#include "core/list.h"
#include "core/mem.h"
#include "http/uri.h"
#include "net/postgres.h"
#include "policy/ai_cache_semantic.h"
#include "policy/formats.h"
#include "policy/reference.h"
#include "policy/side_url.h"
#include "policy/vector_store.h"

#define DASHSCOPE_MODEL STR("text-embedding-v2")
#define AZURE_MODEL STR("text-embedding-ada-002")
#define POSTGRES_PORT 5432

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

const struct field vector_config_fields[] = {
	CHOICE(struct vector_config, type, vector_types, REQUIRED, DOC("Kind of vector store.")),
	TEXT(struct vector_config, serviceHost, REQUIRED, RANGE(1, SIDE_URL_MAX), FORMAT(check_vector_host),
	     EXAMPLE("\"vector-service:5432/cache\""),
	     DOC("Where the vector store is: host[:port][/database], postgres://..., or the http(s) URL of "
	     "DashVector.")),
	TEXT(struct vector_config, apiKey, REQUIRED, SECRET_SENT_TO("type", "serviceHost"), RANGE(1, 1024),
	     FORMAT(format_line), EXAMPLE("\"user:password\""),
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

const struct field embedding_config_fields[] = {
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

bool semantic_check(const struct vector_config *v, struct problem *why)
{
	if (is_http(v->serviceHost))
		return is_collection(v->collectionId) || problem(why, "vectorConfig.collectionId",
			"may have letters, digits, \"_\" and \"-\" only");
	return is_table(v->collectionId) || problem(why, "vectorConfig.collectionId",
		"must be a table or schema.table: each a letter or \"_\", then letters, digits, \"_\"; at most 63 "
		"bytes");
}

/* ---------- the embedding service ---------- */

static const struct json *ai_of(const struct json *service)
{
	const struct json *ai = json_get(service, "aiServiceConfig");

	return ai && ai->type == JSON_OBJECT ? ai : NULL;
}

static unsigned count_keys(const struct json *ai)
{
	const struct json *keys = json_get(ai, "apiKeys");

	return keys && keys->type == JSON_ARRAY ? keys->n : 0;
}

/* "2024-02-01" of "https://x/?a=b&api-version=2024-02-01"; absent: the address says none. */
static struct str version_of(struct str address)
{
	size_t at = str_find(address, '?');
	struct str rest = { NULL, 0 }, part;

	if (at < address.n)
		rest = (struct str){ address.p + at + 1, address.n - at - 1 };
	while (str_split(&rest, '&', &part))
		if (str_starts(part, STR("api-version=")) && part.n > 12)
			return (struct str){ part.p + 12, part.n - 12 };
	return (struct str){ NULL, 0 };
}

bool semantic_attach(const struct embedding_config *e, const struct attach_target *t, struct problem *why)
{
	static const char field[] = "embeddingConfig.serviceId";
	const struct json *service, *ai;

	if (!reference_service(t, e->serviceId, field, &service, why))
		return false;
	ai = ai_of(service);
	if (!ai || count_keys(ai) == 0)
		return problem(why, field, "service \"%.*s\" has no aiServiceConfig with its key",
			       STR_FMT(e->serviceId));
	if (e->type == EMBEDDING_AZURE && !version_of(json_text(ai, "address")).n)
		return problem(why, field, "service \"%.*s\" has an aiServiceConfig.address without "
			       "?api-version=, which type azure needs", STR_FMT(e->serviceId));
	return true;
}

/* ---------- what workers use ---------- */

static struct str escape(struct arena *a, struct str s)
{
	static const char hex[] = "0123456789ABCDEF";
	char *out = arena_alloc(a, 3 * s.n + 1);
	size_t n = 0;

	for (size_t i = 0; i < s.n; i++) {
		unsigned char c = (unsigned char)s.p[i];

		if (is_letter((char)c) || is_digit((char)c) || c == '-' || c == '.' || c == '~') {
			out[n++] = (char)c;
			continue;
		}
		out[n++] = '%';
		out[n++] = hex[c >> 4];
		out[n++] = hex[c & 15];
	}
	return (struct str){ out, n };
}

/* The path of an address without the slash at its end: what paths of the API are put behind. */
static struct str base_path(struct str target)
{
	target.n = str_find(target, '?');
	while (target.n > 0 && target.p[target.n - 1] == '/')
		target.n--;
	return target;
}

static void bind_embedding(struct semantic *m, const struct embedding_config *e, const struct json *ai)
{
	struct arena *a = &m->arena;
	struct str address = json_text(ai, "address"), base = { NULL, 0 };
	const struct json *keys = json_get(ai, "apiKeys");
	struct url url;

	m->embedding = (enum embedding_type)e->type;
	m->embedding_timeout_ms = e->timeout;
	m->model = arena_copy(a, e->modelName.n ? e->modelName :
			      e->type == EMBEDDING_AZURE ? AZURE_MODEL : DASHSCOPE_MODEL);
	m->service_id = arena_copy(a, e->serviceId);
	if (url_parse(address, &url)) {
		m->authority = arena_copy(a, url.authority);
		base = base_path(url.target);
	}
	if (e->type == EMBEDDING_AZURE)
		m->target = arena_printf(a, "%.*s/openai/deployments/%.*s/embeddings?api-version=%.*s", STR_FMT(base),
					 STR_FMT(escape(a, m->model)), STR_FMT(version_of(address)));
	else
		m->target = arena_printf(a, "%.*s/api/v1/services/embeddings/text-embedding/text-embedding",
					 STR_FMT(base));
	m->keys = NEW_N(a, struct str, count_keys(ai) + 1);
	for (const struct json *k = count_keys(ai) ? keys->child : NULL; k; k = k->next)
		if (k->type == JSON_STRING)
			m->keys[m->n_keys++] = arena_copy(a, k->string);
}

static struct str quote_table(struct arena *a, struct str id)
{
	size_t dot = str_find(id, '.');

	if (dot == id.n)
		return arena_printf(a, "\"%.*s\"", STR_FMT(id));
	return arena_printf(a, "\"%.*s\".\"%.*s\"", (int)dot, id.p, (int)(id.n - dot - 1), id.p + dot + 1);
}

static void bind_postgres(struct semantic *m, const struct vector_config *v)
{
	struct arena *a = &m->arena;
	struct str rest = v->serviceHost, host;
	size_t at;

	if (str_starts(rest, STR("postgres")) && (at = str_find(rest, ':')) + 2 < rest.n && rest.p[at + 1] == '/')
		rest = (struct str){ rest.p + at + 3, rest.n - at - 3 };
	at = str_find(rest, '/');
	if (!uri_split_authority((struct str){ rest.p, at }, &host, &m->port))
		host = (struct str){ rest.p, at };
	if (host.n > 2 && host.p[0] == '[')
		host = (struct str){ host.p + 1, host.n - 2 };
	m->host = arena_copy(a, host);
	if (at + 1 < rest.n)
		m->database = arena_copy(a, (struct str){ rest.p + at + 1, rest.n - at - 1 });
	if (!m->port)
		m->port = POSTGRES_PORT;
	at = str_find(v->apiKey, ':');
	if (at == v->apiKey.n) {
		m->user = STR("postgres");
		m->password = arena_copy(a, v->apiKey);
	} else {
		m->user = arena_copy(a, (struct str){ v->apiKey.p, at });
		m->password = arena_copy(a, (struct str){ v->apiKey.p + at + 1, v->apiKey.n - at - 1 });
	}
	m->table = quote_table(a, v->collectionId);
}

static void bind_vector(struct semantic *m, const struct vector_config *v)
{
	char unused[POSTGRES_ERROR_MAX];

	m->vector_timeout_ms = v->timeout;
	m->threshold = v->threshold;
	m->is_dashvector = is_http(v->serviceHost);
	if (!m->is_dashvector) {
		/* Here it may take its time; what is wrong is said where it is used. */
		postgres_load(unused);
		bind_postgres(m, v);
		return;
	}
	m->vector_url = base_path(arena_copy(&m->arena, v->serviceHost));
	m->vector_key = arena_copy(&m->arena, v->apiKey);
	m->collection = arena_copy(&m->arena, v->collectionId);
}

static void destroy(struct part *p)
{
	struct semantic *m = CONTAINER(p, struct semantic, part);

	arena_free(&m->arena);
	mem_free(m);
}

struct part *semantic_bind(const struct vector_config *v, const struct embedding_config *e,
			   const struct attach_target *t)
{
	struct semantic *m = MEM_NEW(struct semantic);

	m->part = (struct part){ 1, destroy };
	m->arena.is_small = true;
	m->arena.wipes = true;
	m->rest = NEW(&m->arena, struct semantic_rest);
	bind_embedding(m, e, ai_of(t->find(t, "service", e->serviceId)));
	bind_vector(m, v);
	return &m->part;
}
