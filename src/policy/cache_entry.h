/*
 * cache_entry.h -- a kept answer: the JSON text in which it lies in Redis and in the vector store.
 *
 *      {"v":1,"class":"openai.chat","created":1790000000,"model":"m","text":"..","reasoning":"..","finish":"stop"}
 *      {"v":1,"class":"openai.embeddings","created":1790000000,"body":"{..}"}       kinds without text
 *
 * What is read comes from a store that others may write to: anything but what was written here is no entry.
 */
#pragma once
#include "ai/kind.h"
#include "core/arena.h"

#define CACHE_ENTRY_MAX (1 << 20)         /* bytes, both of an answer and of what is kept of it */

struct cache_entry {
	enum ai_kind kind;
	int64_t created_s;                /* Unix time */
	struct str model, text, reasoning;
	struct str body;                  /* instead of these */
};

/* In the arena; absent: it is too long to be kept. */
struct str cache_entry_write(const struct cache_entry *e, struct arena *a);
/* kind: what it must be of. Texts lie in the arena, or in `value`. */
bool cache_entry_read(struct cache_entry *e, struct arena *a, enum ai_kind kind, struct str value);
