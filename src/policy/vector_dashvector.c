/*
 * vector_dashvector.c -- rows as documents of a DashVector collection, over its REST API.
 *
 *      POST /v1/collections/NAME/query  {vector, topk, filter, output_fields}
 *      POST /v1/collections/NAME/docs   {docs}
 *
 * The similarity is computed here from the vector that comes back: which way the score of a collection points
 * depends on its metric. The collection is the user's: its dimension is that of the embedding model, its metric
 * Cosine, and it has the fields partition (string), expires_at (long), query and answer (string). A document has an
 * id of its own each time, for a document that is there is not replaced; expired ones are never found.
 */
#include "core/clock.h"
#include "core/json.h"
#include "policy/vector_store.h"
#include "proxy/side_call.h"
#include "proxy/worker.h"

#define ANSWER_MAX (4 << 20)
#define NODES_MAX (VECTOR_DIMENSIONS_MAX + 1024)
#define NAME "the vector store does not answer as it should"

static int64_t now_s(void)
{
	return clock_wall_ms() / 1000;
}

/* NULL: the answer is no good, and the job says so. */
static const struct json *read_answer(struct vector_job *j, struct str body, struct arena *a)
{
	struct problem why;
	const struct json *root = json_parse_spans(a, body, NODES_MAX, &why), *code = json_get(root, "code");

	if (root && root->type == JSON_OBJECT && code && code->type == JSON_INT && code->integer == 0)
		return root;
	if (code && code->type == JSON_INT)
		vector_job_fail(j, NAME, arena_printf(a, "it answered with code %lld", (long long)code->integer));
	else
		vector_job_fail(j, NAME, STR("its answer cannot be read"));
	return NULL;
}

static void call(struct vector_job *j, const char *what, struct sbuf *body,
		 void (*answered)(struct vector_job *j, struct str body))
{
	const struct semantic *m = j->m;
	const struct header lines[] = {
		{ .name = STR("Content-Type"), .value = STR("application/json"), .id = HEADER_CONTENT_TYPE },
		{ .name = STR("dashvector-auth-token"), .value = m->vector_key },
	};
	struct side_request request = {
		.kind = SIDE_VECTOR, .method = STR("POST"), .headers = lines, .n_headers = 2,
		.timeout_ms = m->vector_timeout_ms, .body_max = ANSWER_MAX, .may_repeat = true,
		.body = arena_copy(j->arena, sbuf_str(body)),
		.url = arena_printf(j->arena, "%.*s/v1/collections/%.*s/%s", STR_FMT(m->vector_url),
				    STR_FMT(m->collection), what),
	};

	sbuf_free(body);
	j->answered = answered;
	vector_http(j, &request, NAME);
}

struct expected {
	struct vector vector;
	struct str partition;
};

/* A document that the filter let through is looked at again: another's answer would be worse than none. */
static void take_nearest(struct vector_job *j, struct str body)
{
	const struct expected *e = j->more;
	struct arena a = { 0 };
	const struct json *root = read_answer(j, body, &a), *list = json_get(root, "output");
	const struct json *doc = list && list->type == JSON_ARRAY ? list->child : NULL;
	const struct json *fields = json_get(doc, "fields");
	const struct json *expires = json_get(fields, "expires_at");
	struct vector v;

	if (expires && expires->type == JSON_INT && expires->integer > now_s() &&
	    str_equal(json_text(fields, "partition"), e->partition) &&
	    vector_read(json_get(doc, "vector"), &a, &v)) {
		j->match.is_found = true;
		j->match.similarity = vector_cosine(e->vector, v);
		j->match.left_s = expires->integer - now_s();
		j->match.value = arena_copy(j->arena, json_text(fields, "answer"));
	}
	arena_free(&a);
}

void dashvector_query_nearest(struct vector_job *j, struct str partition, struct vector v)
{
	struct expected *e = NEW(j->arena, struct expected);
	struct sbuf body = { 0 };

	e->vector = v;
	e->partition = arena_copy(j->arena, partition);
	j->more = e;
	SBUF_LIT(&body, "{\"vector\":[");
	vector_print(&body, v);
	/* A partition is hexadecimal digits. */
	sbuf_addf(&body, "],\"topk\":1,\"include_vector\":true,\"filter\":\"partition = '%.*s' and expires_at > %lld\","
		  "\"output_fields\":[\"partition\",\"expires_at\",\"answer\"]}", STR_FMT(partition),
		  (long long)now_s());
	call(j, "query", &body, take_nearest);
}

static void take_kept(struct vector_job *j, struct str body)
{
	struct arena a = { 0 };

	(void)read_answer(j, body, &a);
	arena_free(&a);
}

void dashvector_upsert_row(struct vector_job *j, const struct vector_row *row)
{
	struct sbuf body = { 0 };

	sbuf_addf(&body, "{\"docs\":[{\"id\":\"%.*s-%llx\",\"vector\":[", (int)(row->id.n < 40 ? row->id.n : 40),
		  row->id.p, (unsigned long long)worker_random64(j->worker));
	vector_print(&body, row->vector);
	sbuf_addf(&body, "],\"fields\":{\"partition\":\"%.*s\",\"expires_at\":%lld,\"query\":", STR_FMT(row->partition),
		  (long long)(now_s() + row->ttl_s));
	json_quote(&body, row->text);
	SBUF_LIT(&body, ",\"answer\":");
	json_quote(&body, row->value);
	SBUF_LIT(&body, "}}]}");
	call(j, "docs", &body, take_kept);
}
