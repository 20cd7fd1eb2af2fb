/*
 * vector_store.h -- the parts of the semantic cache among each other: what a worker knows of the two configs,
 * embeddings, and the two kinds of vector store. Not for others.
 *
 *      ai_cache_semantic.c    the ladder of asking and keeping
 *      embedding.c            text ──► vector, by the service of embeddingConfig
 *      vector_postgres.c      nearest row, upsert: PostgreSQL with or without pgvector
 *      vector_dashvector.c    the same over DashVector's REST API
 *
 * Vectors have length 1, so that their dot product is the cosine of the angle between them.
 */
#pragma once
#include "core/arena.h"
#include "http/uri.h"
#include "policy/ai_cache_semantic.h"

#define VECTOR_DIMENSIONS_MAX 16000       /* what pgvector stores */

/* Immutable; held by the chains that use it. */
struct semantic {
	struct part part;                 /* first */
	struct arena arena;
	/* embedding */
	enum embedding_type embedding;
	struct str service_id;            /* whose endpoints are asked */
	struct str authority, target;     /* Host, path and query, as the service's address says */
	struct str model;
	struct str *keys;
	unsigned n_keys;
	int64_t embedding_timeout_ms;
	/* vector store */
	bool is_dashvector;
	struct str host, database, user, password;        /* of PostgreSQL; absent database: the user's */
	uint16_t port;
	struct str table;                 /* quoted: "schema"."table" */
	struct str vector_url, vector_key, collection;    /* of DashVector */
	int64_t vector_timeout_ms;
	double threshold;
	struct semantic_rest *rest;
};

/* Until when (clock_ms()) nobody is asked, because it did not answer. Of all workers. */
struct semantic_rest {
	atomic_llong embedding_ms, vector_ms;
};

struct vector {
	float *of;
	unsigned n;
};

/* What was found nearest. */
struct vector_match {
	bool is_found;
	double similarity;
	struct str value;                 /* of the caller's arena */
	int64_t left_s;
};
struct vector_row {
	struct str partition, id, text, value;
	struct vector vector;
	int64_t ttl_s;
};

/*
 * One call under way: an embedding, a query, an upsert. Embedded by its owner, with memory for what comes. `done` is
 * called once, from the loop, never inside the start. vector_job_end() ends it early, without `done`.
 */
struct vector_job {
	/* set by the owner */
	const struct semantic *m;
	struct worker *worker;
	struct arena *arena;
	void (*done)(struct vector_job *j);
	/* in done */
	const char *failure;              /* static text; NULL: it worked */
	char error[160];                  /* more in words, without secrets; "" */
	bool is_ours;                     /* the failure says nothing about how the other side is */
	struct vector vector;             /* of embedding_start */
	struct vector_match match;        /* of a query */
	/* private */
	void (*end)(struct vector_job *j);
	void (*answered)(struct vector_job *j, struct str body);
	void *at, *more;
};
void embedding_start(struct vector_job *j, struct str text);
/* The nearest row of the partition to `v` that has not expired. */
void vector_query(struct vector_job *j, struct str partition, struct vector v);
/* The row's texts live until the job is over. */
void vector_upsert(struct vector_job *j, const struct vector_row *row);
void vector_job_end(struct vector_job *j);

/* For those that do the work. */
void vector_job_fail(struct vector_job *j, const char *failure, struct str error);        /* not yet `done` */
void vector_job_over(struct vector_job *j);               /* calls `done` */
struct side_request;
/* j->answered gets the body of an answer with status 2xx, and fails the job or not; `name` begins what is said. */
void vector_http(struct vector_job *j, struct side_request *r, const char *name);
void postgres_query_nearest(struct vector_job *j, struct str partition, struct vector v);
void postgres_upsert_row(struct vector_job *j, const struct vector_row *row);
void postgres_links_open(struct worker *w);               /* so that they end after what was opened before */
void dashvector_query_nearest(struct vector_job *j, struct str partition, struct vector v);
void dashvector_upsert_row(struct vector_job *j, const struct vector_row *row);

/* Numbers of an array, made 1 long. False: there are none, too many, something else, or they are all 0. */
MUST_USE bool vector_read(const struct json *array, struct arena *a, struct vector *out);
double vector_cosine(struct vector a, struct vector b);   /* -2: not of the same dimension */
void vector_print(struct sbuf *out, struct vector v);     /* "0.1,0.2" */
