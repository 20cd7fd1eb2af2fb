/*
 * embedding.c -- a text's embedding from the service of embeddingConfig, by its API:
 *
 *      dashscope  {"model","input":{"texts":[t]},"parameters":{"text_type":"query"}} ──► output.embeddings[0].embedding
 *      azure      {"input":t} ──► data[0].embedding
 */
#include "core/json.h"
#include "policy/vector_store.h"
#include "proxy/side_call.h"
#include "proxy/worker.h"

#define ANSWER_MAX (2 << 20)
#define NODES_MAX (VECTOR_DIMENSIONS_MAX + 256)
#define NAME "the embedding service does not answer as it should"

static const struct json *first_of(const struct json *object, const char *list)
{
	const struct json *v = json_get(object, list);

	return v && v->type == JSON_ARRAY ? v->child : NULL;
}

static void take(struct vector_job *j, struct str body)
{
	struct arena scratch = { 0 };
	struct problem why;
	const struct json *root = json_parse_spans(&scratch, body, NODES_MAX, &why), *list;

	list = j->m->embedding == EMBEDDING_AZURE ? first_of(root, "data") :
	       first_of(json_get(root, "output"), "embeddings");
	if (!vector_read(json_get(list, "embedding"), j->arena, &j->vector))
		vector_job_fail(j, NAME, STR("its answer has no embedding"));
	arena_free(&scratch);
}

static struct str request_body(const struct vector_job *j, struct str text)
{
	struct sbuf out = { 0 };
	struct str body;

	if (j->m->embedding == EMBEDDING_AZURE) {
		SBUF_LIT(&out, "{\"input\":");
		json_quote(&out, text);
		SBUF_LIT(&out, "}");
	} else {
		SBUF_LIT(&out, "{\"model\":");
		json_quote(&out, j->m->model);
		SBUF_LIT(&out, ",\"input\":{\"texts\":[");
		json_quote(&out, text);
		SBUF_LIT(&out, "]},\"parameters\":{\"text_type\":\"query\"}}");
	}
	body = arena_copy(j->arena, sbuf_str(&out));
	sbuf_free(&out);
	return body;
}

void embedding_start(struct vector_job *j, struct str text)
{
	const struct semantic *m = j->m;
	struct str key = m->n_keys ? m->keys[worker_random(j->worker) % m->n_keys] : (struct str){ NULL, 0 };
	struct header lines[2] = {
		{ .name = STR("Content-Type"), .value = STR("application/json"), .id = HEADER_CONTENT_TYPE },
	};
	struct side_request request = {
		.kind = SIDE_EMBEDDING, .service_id = m->service_id, .authority = m->authority, .target = m->target,
		.method = STR("POST"), .headers = lines, .n_headers = 2, .timeout_ms = m->embedding_timeout_ms,
		.body_max = ANSWER_MAX, .may_repeat = true,
	};

	j->failure = NULL;
	j->error[0] = '\0';
	j->is_ours = false;
	j->answered = take;
	if (m->embedding == EMBEDDING_AZURE)
		lines[1] = (struct header){ .name = STR("api-key"), .value = key };
	else
		lines[1] = (struct header){ .name = STR("Authorization"), .id = HEADER_AUTHORIZATION,
			.value = arena_printf(j->arena, "Bearer %.*s", STR_FMT(key)) };
	request.body = request_body(j, text);
	vector_http(j, &request, NAME);
}
