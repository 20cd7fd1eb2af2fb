/*
 * ai_cache_semantic.c -- asking and keeping, and the rows on their way to the store.
 *
 *      ask:   embedding ──► rows on their way (pending) ──► nearest row of the store ──► judged by the threshold
 *      keep:  (embedding, unless the ask made it) ──► pending ──► upsert ──► pending no more
 *
 * What is kept without an exchange pins the view of the one it came from: config, keys and cell are there until it
 * ends.
 */
#include "policy/ai_cache_semantic.h"
#include <pthread.h>
#include "core/clock.h"
#include "core/crypto.h"
#include "core/log.h"
#include "core/mem.h"
#include "policy/vector_store.h"
#include "proxy/exchange.h"
#include "proxy/side_call.h"
#include "proxy/worker.h"

#define KEEPS_MAX 128                     /* of a worker at a time */
#define KEEPS_BYTES (32 << 20)            /* of their texts */
#define PENDING_MAX 1024                  /* of the process */
#define CLOSE_ENOUGH 1e-6                 /* what is lost where vectors are kept as float */

/* ---------- health ---------- */

static const char *part_name(enum cache_part part)
{
	return part == CACHE_PART_REDIS ? "redis" : part == CACHE_PART_EMBEDDING ? "embedding" : "vector";
}

void cache_part_up(struct cache_health *h, enum cache_part part)
{
	unsigned before;

	if (!(atomic_load_explicit(&h->down, memory_order_relaxed) & part))
		return;
	before = atomic_fetch_and_explicit(&h->down, ~(unsigned)part, memory_order_relaxed);
	if (before & part)
		log_info("cache.recovered", F_STR("part", str_of(part_name(part))));
	if ((before & ~(unsigned)part) == 0)
		dependency_up(&h->shown);
}

void cache_part_down(struct cache_health *h, enum cache_part part, const char *reason, struct str error)
{
	unsigned before = atomic_fetch_or_explicit(&h->down, part, memory_order_relaxed);

	if (!(before & part))
		log_warn("cache.unavailable", F_STR("part", str_of(part_name(part))), F_STR("why", error));
	dependency_down(&h->shown, reason, error);
}

static bool is_resting(atomic_llong *until_ms)
{
	return clock_ms() < atomic_load_explicit(until_ms, memory_order_relaxed);
}

/* What the job says about the other side. */
static void note(const struct vector_job *j, struct cache_health *h, enum cache_part part)
{
	struct semantic_rest *rest = j->m->rest;

	if (!j->failure) {
		cache_part_up(h, part);
		return;
	}
	if (j->is_ours)
		return;
	atomic_store_explicit(part == CACHE_PART_EMBEDDING ? &rest->embedding_ms : &rest->vector_ms,
			      clock_ms() + SEMANTIC_REST_MS, memory_order_relaxed);
	cache_part_down(h, part, j->failure, str_of(j->error));
}

/* ---------- partitions ---------- */

static struct str hex_of(struct arena *a, struct str s)
{
	static const char digits[] = "0123456789abcdef";
	uint8_t hash[32];
	char *out = arena_alloc(a, 65);

	crypto_sha256(s, hash);
	for (unsigned i = 0; i < 32; i++) {
		out[2 * i] = digits[hash[i] >> 4];
		out[2 * i + 1] = digits[hash[i] & 15];
	}
	return (struct str){ out, 64 };
}

/* With the identity of the embeddings: vectors of others are never compared. */
static struct str partition_of(struct arena *a, const struct semantic *m, struct str partition, unsigned dimensions)
{
	return hex_of(a, arena_printf(a, "%.*s\n%d/%.*s/%u", STR_FMT(partition), (int)m->embedding, STR_FMT(m->model),
				      dimensions));
}

/* ---------- rows on their way ---------- */

struct pending {
	struct list node;
	struct str partition, value;
	struct vector vector;
	int64_t until_ms;
	bool is_listed;                   /* the owner's alone: neighbours write to `node` under the lock */
};

static struct {
	pthread_mutex_t lock;
	struct list rows;                 /* struct pending */
	atomic_uint n;
} all = { .lock = PTHREAD_MUTEX_INITIALIZER, .rows = LIST_INIT(all.rows) };

static void pending_add(struct pending *p)
{
	p->is_listed = true;
	pthread_mutex_lock(&all.lock);
	list_append(&all.rows, &p->node);
	atomic_fetch_add_explicit(&all.n, 1, memory_order_relaxed);
	pthread_mutex_unlock(&all.lock);
}

static void pending_remove(struct pending *p)
{
	if (!p->is_listed)
		return;
	p->is_listed = false;
	pthread_mutex_lock(&all.lock);
	list_remove(&p->node);
	atomic_fetch_sub_explicit(&all.n, 1, memory_order_relaxed);
	pthread_mutex_unlock(&all.lock);
}

/* The nearest of them. Partitions are digests of all that matters, the policy's id included. */
static struct vector_match find_pending(struct arena *a, struct str partition, struct vector v)
{
	struct vector_match best = { .similarity = -2 };

	if (atomic_load_explicit(&all.n, memory_order_relaxed) == 0)
		return best;
	pthread_mutex_lock(&all.lock);
	LIST_EACH(node, &all.rows) {
		const struct pending *p = CONTAINER(node, struct pending, node);
		double similarity;

		if (p->until_ms <= clock_ms() || !str_equal(p->partition, partition))
			continue;
		similarity = vector_cosine(p->vector, v);
		if (similarity <= best.similarity)
			continue;
		best = (struct vector_match){ true, similarity, p->value, (p->until_ms - clock_ms() + 999) / 1000 };
	}
	if (best.is_found)
		best.value = arena_copy(a, best.value);
	pthread_mutex_unlock(&all.lock);
	return best;
}

/* ---------- asking ---------- */

struct ask {
	struct semantic_ask public;       /* first */
	const struct semantic *m;
	struct cache_health *health;
	struct str partition, full;       /* full: with the identity of the embeddings */
	struct vector vector;             /* n == 0: there is none */
	struct vector_job job;
	struct arena_defer at_end;
};

static struct ask *of_job(struct vector_job *j)
{
	return CONTAINER(j, struct ask, job);
}

static void end_job(struct arena_defer *d)
{
	vector_job_end(&CONTAINER(d, struct ask, at_end)->job);
}

static void cancel(struct wait *w)
{
	vector_job_end(&CONTAINER(w, struct ask, public.wait)->job);
}

static void give_up(struct ask *a, const char *why)
{
	a->public.failure = why;
	wait_done(&a->public.wait);
}

static bool is_near(const struct semantic *m, const struct vector_match *match)
{
	return match->is_found && match->similarity + CLOSE_ENOUGH >= m->threshold;
}

static void take(struct ask *a, const struct vector_match *match)
{
	a->public.is_hit = is_near(a->m, match);
	a->public.similarity = match->similarity > 1 ? 1 : match->similarity;
	a->public.left_s = match->left_s;
	if (a->public.is_hit)
		a->public.value = match->value;
	wait_done(&a->public.wait);
}

static void queried(struct vector_job *j)
{
	struct ask *a = of_job(j);

	note(j, a->health, CACHE_PART_VECTOR);
	if (j->failure)
		give_up(a, j->failure);
	else
		take(a, &j->match);
}

static void embedded(struct vector_job *j)
{
	struct ask *a = of_job(j);
	struct vector_match pending;

	note(j, a->health, CACHE_PART_EMBEDDING);
	if (j->failure) {
		give_up(a, j->failure);
		return;
	}
	a->vector = j->vector;
	a->full = partition_of(j->arena, a->m, a->partition, a->vector.n);
	pending = find_pending(j->arena, a->full, a->vector);
	if (is_near(a->m, &pending)) {
		take(a, &pending);
		return;
	}
	if (is_resting(&a->m->rest->vector_ms)) {
		give_up(a, "the vector store did not answer a moment ago");
		return;
	}
	j->done = queried;
	vector_query(j, a->full, a->vector);
}

struct semantic_ask *semantic_ask(struct exchange *x, const struct semantic *m, struct cache_health *health,
				  struct str partition, struct str text)
{
	struct arena *arena = exchange_arena(x);
	struct ask *a = NEW(arena, struct ask);

	a->public.wait.cancel = cancel;
	a->public.similarity = -2;
	a->m = m;
	a->health = health;
	a->job = (struct vector_job){ .m = m, .worker = exchange_worker(x), .arena = arena, .done = embedded };
	if (text.n == 0 || text.n > SEMANTIC_TEXT_MAX) {
		give_up(a, text.n ? "the text is too long to be embedded" : "there is no text");
		return &a->public;
	}
	if (is_resting(&m->rest->embedding_ms)) {
		give_up(a, "the embedding service did not answer a moment ago");
		return &a->public;
	}
	a->partition = arena_copy(arena, partition);
	arena_defer(arena, &a->at_end, end_job);
	embedding_start(&a->job, text);
	return &a->public;
}

/* ---------- keeping ---------- */

struct keep {
	struct list node;
	struct worker *worker;
	struct view *view;                /* pinned */
	const struct semantic *m;
	struct cache_health *health;
	struct arena arena;
	struct vector_job job;
	struct vector_row row;
	struct str partition;             /* as it was given */
	struct pending pending;
};

static _Thread_local struct {
	struct worker *worker;            /* NULL: there are none */
	struct list all;                  /* struct keep */
	unsigned n;
	size_t bytes;
	struct worker_end end;
} keeps;

static void keep_end(struct keep *k)
{
	vector_job_end(&k->job);
	pending_remove(&k->pending);
	list_remove(&k->node);
	keeps.n--;
	keeps.bytes -= k->row.text.n + k->row.value.n;
	k->view->exchanges--;
	snapshot_unpin(k->view, worker_view(k->worker), worker_mailbox(k->worker));
	arena_free(&k->arena);
	mem_free(k);
}

static void end_keeps(struct worker_end *e)
{
	(void)e;
	LIST_EACH(node, &keeps.all)
		keep_end(CONTAINER(node, struct keep, node));
	keeps.worker = NULL;
}

static void upserted(struct vector_job *j)
{
	struct keep *k = CONTAINER(j, struct keep, job);

	note(j, k->health, CACHE_PART_VECTOR);
	keep_end(k);
}

static void write_row(struct keep *k)
{
	struct vector_row *row = &k->row;

	row->partition = partition_of(&k->arena, k->m, k->partition, row->vector.n);
	k->pending = (struct pending){ .partition = row->partition, .value = row->value,
		.vector = row->vector, .until_ms = clock_ms() + row->ttl_s * 1000 };
	if (atomic_load_explicit(&all.n, memory_order_relaxed) < PENDING_MAX)
		pending_add(&k->pending);
	k->job.done = upserted;
	vector_upsert(&k->job, row);
}

static void embedded_row(struct vector_job *j)
{
	struct keep *k = CONTAINER(j, struct keep, job);

	note(j, k->health, CACHE_PART_EMBEDDING);
	if (j->failure || is_resting(&k->m->rest->vector_ms)) {
		keep_end(k);
		return;
	}
	k->row.vector = j->vector;
	write_row(k);
}

static struct keep *keep_new(struct exchange *x, const struct semantic *m, struct cache_health *health)
{
	struct worker *w = exchange_worker(x);
	struct keep *k = MEM_NEW(struct keep);

	if (!keeps.worker) {
		keeps.worker = w;
		list_init(&keeps.all);
		postgres_links_open(w);           /* before, so that they end after */
		worker_at_end(w, &keeps.end, end_keeps);
	}
	k->worker = w;
	k->m = m;
	k->health = health;
	k->view = x->view;
	k->view->exchanges++;
	k->job = (struct vector_job){ .m = m, .worker = w, .arena = &k->arena };
	list_append(&keeps.all, &k->node);
	keeps.n++;
	return k;
}

static struct vector copy_vector(struct arena *a, struct vector v)
{
	struct vector out = { NEW_N(a, float, v.n), v.n };

	memcpy(out.of, v.of, v.n * sizeof *v.of);
	return out;
}

void semantic_keep(struct exchange *x, const struct semantic *m, struct cache_health *health,
		   const struct semantic_ask *asked, const struct semantic_row *row)
{
	const struct ask *a = (const struct ask *)(const void *)asked;
	bool has_vector = a && a->vector.n > 0;
	struct keep *k;

	if (row->text.n == 0 || row->text.n > SEMANTIC_TEXT_MAX || row->value.n > SEMANTIC_VALUE_MAX)
		return;
	if (row->ttl_s <= 0 || keeps.n >= KEEPS_MAX || keeps.bytes + row->value.n > KEEPS_BYTES)
		return;
	if (is_resting(&m->rest->vector_ms) || (!has_vector && is_resting(&m->rest->embedding_ms)))
		return;
	k = keep_new(x, m, health);
	k->partition = arena_copy(&k->arena, row->partition);
	keeps.bytes += row->text.n + row->value.n;
	k->row = (struct vector_row){ .id = hex_of(&k->arena, row->id), .text = arena_copy(&k->arena, row->text),
		.value = arena_copy(&k->arena, row->value), .ttl_s = row->ttl_s };
	if (has_vector) {
		k->row.vector = copy_vector(&k->arena, a->vector);
		write_row(k);
		return;
	}
	k->job.done = embedded_row;
	embedding_start(&k->job, k->row.text);
}
