/* vector_store.c -- what embeddings and both kinds of store have in common: jobs, calls over HTTP, numbers. */
#include "policy/vector_store.h"
#include <errno.h>
#include <math.h>
#include "core/json.h"
#include "proxy/side_call.h"

/* ---------- jobs ---------- */

void vector_job_fail(struct vector_job *j, const char *failure, struct str error)
{
	j->failure = failure;
	snprintf(j->error, sizeof j->error, "%.*s", STR_FMT(error));
}

void vector_job_over(struct vector_job *j)
{
	j->end = NULL;
	j->done(j);
}

void vector_job_end(struct vector_job *j)
{
	if (j->end)
		j->end(j);
	j->end = NULL;
}

static void begin(struct vector_job *j)
{
	j->failure = NULL;
	j->error[0] = '\0';
	j->is_ours = false;
	j->match = (struct vector_match){ .similarity = -2 };
}

void vector_query(struct vector_job *j, struct str partition, struct vector v)
{
	begin(j);
	if (j->m->is_dashvector)
		dashvector_query_nearest(j, partition, v);
	else
		postgres_query_nearest(j, partition, v);
}

void vector_upsert(struct vector_job *j, const struct vector_row *row)
{
	begin(j);
	if (j->m->is_dashvector)
		dashvector_upsert_row(j, row);
	else
		postgres_upsert_row(j, row);
}

/* ---------- calls over HTTP ---------- */

struct http_call {
	struct side_call *call;
	const char *name;
};

static void end_call(struct vector_job *j)
{
	struct http_call *h = j->at;

	side_call_free(h->call);
}

/* What the other side cannot help: the request is not to its taste, or it is asked too much of it at a time. */
static bool is_about_us(const struct side_call *c)
{
	if (c->failure)
		return c->failure == SIDE_BUSY || c->failure == SIDE_CANCELLED;
	return c->res.status == 400 || c->res.status == 413 || c->res.status == 422;
}

static void describe(struct vector_job *j, const struct side_call *c)
{
	char text[96];

	if (c->failure == SIDE_ANSWERED)
		snprintf(j->error, sizeof j->error, "it answered %d", c->res.status);
	else if (c->detail || c->error)
		snprintf(j->error, sizeof j->error, "%s: %s", side_failure_text(c->failure),
			 c->detail ? c->detail : strerror_r(c->error, text, sizeof text));
	else
		snprintf(j->error, sizeof j->error, "%s", side_failure_text(c->failure));
}

static void http_over(struct side_call *c)
{
	struct vector_job *j = c->arg;
	struct http_call *h = j->at;

	if (side_call_succeeded(c)) {
		j->answered(j, c->body);
	} else {
		j->failure = h->name;
		j->is_ours = is_about_us(c);
		describe(j, c);
	}
	side_call_free(c);
	vector_job_over(j);
}

void vector_http(struct vector_job *j, struct side_request *r, const char *name)
{
	struct http_call *h = NEW(j->arena, struct http_call);

	h->name = name;
	h->call = side_call_new(j->worker, http_over, j);
	j->at = h;
	j->end = end_call;
	side_call_start(h->call, r);
}

/* ---------- numbers ---------- */

bool vector_read(const struct json *array, struct arena *a, struct vector *out)
{
	double sum = 0, length;
	unsigned n = 0;

	if (!array || array->type != JSON_ARRAY || array->n == 0 || array->n > VECTOR_DIMENSIONS_MAX)
		return false;
	for (const struct json *v = array->child; v; v = v->next) {
		if (v->type != JSON_INT && v->type != JSON_REAL)
			return false;
		sum += json_number(v) * json_number(v);
	}
	length = sqrt(sum);
	if (!isfinite(length) || length == 0)
		return false;
	out->n = array->n;
	out->of = NEW_N(a, float, array->n);
	for (const struct json *v = array->child; v; v = v->next)
		out->of[n++] = (float)(json_number(v) / length);
	return true;
}

double vector_cosine(struct vector a, struct vector b)
{
	double ab = 0, aa = 0, bb = 0;

	if (a.n != b.n)
		return -2;
	for (unsigned i = 0; i < a.n; i++) {
		ab += (double)a.of[i] * b.of[i];
		aa += (double)a.of[i] * a.of[i];
		bb += (double)b.of[i] * b.of[i];
	}
	return aa > 0 && bb > 0 ? ab / sqrt(aa * bb) : -2;
}

void vector_print(struct sbuf *out, struct vector v)
{
	for (unsigned i = 0; i < v.n; i++)
		sbuf_addf(out, "%s%.9g", i ? "," : "", (double)v.of[i]);
}
