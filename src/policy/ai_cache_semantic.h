/*
 * ai_cache_semantic.h -- the semantic part of AiCache: answers of questions with a similar meaning.
 *
 *      text ──► embedding (an AI service) ──► nearest row of the partition (vector store) ──► hit, or miss
 *      miss, and the answer may be kept ──► row {id, partition, vector, text, value, expires_at}
 *
 *      bind:   semantic_bind()                                         step->bound
 *      hook:   a = semantic_ask(x, m, health, partition, text);  return await(x, &a->wait, then);
 *      then:   a->is_hit: a->value, a->similarity, a->left_s;  else a miss, whatever the reason
 *      over:   semantic_keep(x, m, health, a, &row)                    nobody waits for it
 *
 * A partition is what may never be mixed: all of the key but the text. It is a predicate of every query, never part
 * of what is embedded; the name of the embedding model and the number of dimensions are added to it here, so that
 * vectors of different models never meet. Values are opaque bytes (valid UTF-8 without NUL) of at most
 * SEMANTIC_VALUE_MAX.
 *
 * Whatever fails is a miss, within the timeouts of the two configs. A store or a service that did not answer is left
 * alone for SEMANTIC_REST_MS, by each worker. Rows on their way to the store are found already by all workers.
 */
#pragma once
#include <stdatomic.h>
#include "core/field.h"
#include "core/pmap.h"
#include "proxy/dependency.h"
#include "proxy/policy.h"

#define SEMANTIC_VALUE_MAX (1 << 20)
#define SEMANTIC_TEXT_MAX (64 * 1024)     /* bytes of text that are embedded; a longer one is not asked for */
#define SEMANTIC_REST_MS 1000

/* ---------- configuration ---------- */

struct vector_config {
	int type;
	struct str serviceHost, apiKey;
	int64_t timeout;                  /* ms */
	struct str collectionId;
	double threshold;
};
extern const struct field vector_config_fields[];

enum embedding_type { EMBEDDING_DASHSCOPE, EMBEDDING_AZURE };
struct embedding_config {
	int type;                         /* enum embedding_type */
	struct str serviceId, modelName;
	int64_t timeout;                  /* ms */
};
extern const struct field embedding_config_fields[];

/* Rules between fields, and what they refer to; paths begin with vectorConfig, embeddingConfig. */
MUST_USE bool semantic_check(const struct vector_config *v, struct problem *why);
MUST_USE bool semantic_attach(const struct embedding_config *e, const struct attach_target *t, struct problem *why);

/* ---------- what the cache depends on ---------- */

/* Parts of one dependency: it is down while one of them is. In the cell; zero-initialise. */
enum cache_part { CACHE_PART_REDIS = 1, CACHE_PART_EMBEDDING = 2, CACHE_PART_VECTOR = 4 };
struct cache_health {
	struct dependency shown;
	atomic_uint down;                 /* enum cache_part bits */
};
void cache_part_up(struct cache_health *h, enum cache_part part);
void cache_part_down(struct cache_health *h, enum cache_part part, const char *reason, struct str error);

/* ---------- use ---------- */

/*
 * For bind(), with what the embedding service says at present (address, key). One reference; never NULL. Keys are in
 * it: it is for workers only, and no answer, log or metric shows it.
 */
struct part *semantic_bind(const struct vector_config *v, const struct embedding_config *e,
			   const struct attach_target *t);
struct semantic;                          /* what that is */
static inline const struct semantic *semantic_of(const struct step *s)
{
	return (const struct semantic *)(const void *)s->bound;
}

struct semantic_ask {
	struct wait wait;                 /* first */
	/* when wait.done */
	bool is_hit;
	struct str value;                 /* of the row; lives as long as the exchange */
	double similarity;                /* of the nearest row, hit or not; -2 = there is none */
	int64_t left_s;                   /* until the row expires; at least 1 */
	const char *failure;              /* why it could not be asked (static text); NULL: it was */
};
/*
 * Makes the embedding of `text` and looks for the nearest row of the partition. Texts are copied. Lives as long as
 * the exchange, and is cancelled with it.
 */
struct semantic_ask *semantic_ask(struct exchange *x, const struct semantic *m, struct cache_health *health,
				  struct str partition, struct str text);

struct semantic_row {
	struct str partition, id, text, value;    /* id: unique in the partition; a row with the same is replaced */
	int64_t ttl_s;
};
/*
 * Writes the row, also after the exchange. `a`: the one that asked with the same text, whose embedding is used again;
 * NULL, or one that failed: it is made now. All is copied.
 */
void semantic_keep(struct exchange *x, const struct semantic *m, struct cache_health *health,
		   const struct semantic_ask *a, const struct semantic_row *row);
