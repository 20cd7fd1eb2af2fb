/* retain.c -- chunks of a request body, and who reads them. */
#include "proxy/retain.h"
#include "core/budget.h"
#include "core/mem.h"
#include "core/metric.h"
#include "proxy/exchange.h"

#define CHUNK_BYTES 4096                  /* room of a chunk at least: small pieces share one */

struct retain_chunk {
	struct retain_chunk *next;
	size_t n, room;
	char data[];
};

/* ---------- holders ---------- */

static void free_chunks(struct retained *r)
{
	while (r->first) {
		struct retain_chunk *chunk = r->first;

		r->first = chunk->next;
		budget_add(-(int64_t)(sizeof *chunk + chunk->room));
		mem_free(chunk);
	}
	r->last = NULL;
}

struct retained *retain_hold(struct retained *r)
{
	r->refs++;
	return r;
}

void retain_drop(struct retained *r)
{
	BUG_ON(r->refs == 0);
	if (--r->refs > 0)
		return;
	free_chunks(r);
	mem_free(r);
}

struct holder {
	struct arena_defer defer;
	struct retained *of;
};

static void let_go(struct arena_defer *d)
{
	retain_drop(CONTAINER(d, struct holder, defer)->of);
}

struct retained *retain_body(struct exchange *x, size_t limit)
{
	struct retained *r = x->retained;

	if (!r) {
		struct holder *holder = NEW(&x->arena, struct holder);

		r = x->retained = MEM_NEW(struct retained);
		r->refs = 1;
		list_init(&r->watchers);
		holder->of = r;
		arena_defer(&x->arena, &holder->defer, let_go);
	}
	r->limit = limit > r->limit ? limit : r->limit;
	return r;
}

size_t retain_limit(const struct exchange *x)
{
	return x->site->gateway->retry_buffer_bytes;
}

/* ---------- filling ---------- */

static struct retain_chunk *add_chunk(struct retained *r, size_t n)
{
	size_t room = n > CHUNK_BYTES ? n : CHUNK_BYTES;
	struct retain_chunk *chunk = mem_alloc(sizeof *chunk + room);

	budget_add((int64_t)(sizeof *chunk + room));
	chunk->room = room;
	if (r->last)
		r->last->next = chunk;
	else
		r->first = chunk;
	r->last = chunk;
	return chunk;
}

static void store(struct retained *r, struct str data)
{
	struct retain_chunk *chunk = r->last;

	if (!chunk || chunk->room - chunk->n < data.n)
		chunk = add_chunk(r, data.n);
	memcpy(chunk->data + chunk->n, data.p, data.n);
	chunk->n += data.n;
}

static void give_up(struct exchange *x)
{
	struct retained *r = x->retained;

	r->is_over = true;
	free_chunks(r);
	if (x->service && x->service->counts[SERVICE_BODY_ABANDONED])
		metric_add(x->service->counts[SERVICE_BODY_ABANDONED], 1);
}

void retain_add(struct exchange *x, struct str data, bool end)
{
	struct retained *r = x->retained;

	r->n += data.n;
	/* Nor is anything kept for a second try when the first ones need the memory. */
	if (!r->is_over && (r->n > r->limit || (data.n > 0 && budget_is_spent())))
		give_up(x);
	if (!r->is_over && data.n > 0)
		store(r, data);
	if (!r->is_over && end) {
		r->is_whole = true;
		r->trailers = x->stream.req.trailers;
	}
	retain_tell(r);
}

/* ---------- bodies in one piece ---------- */

/* Room for n bytes at least. Grows by half, but no further than what is expected, so that little is promised early. */
static struct retain_chunk *widen(struct retained *r, size_t n, size_t expected)
{
	struct retain_chunk *chunk = r->first;
	size_t room = chunk ? chunk->room + chunk->room / 2 : CHUNK_BYTES;

	if (room > expected && expected >= n)
		room = expected;
	if (room < n)
		room = n;
	if (!chunk)
		return add_chunk(r, room);
	budget_add((int64_t)room - (int64_t)chunk->room);
	chunk = mem_resize(chunk, sizeof *chunk + room);
	chunk->room = room;
	r->first = r->last = chunk;
	return chunk;
}

void retain_gather(struct retained *r, struct str data, size_t expected)
{
	struct retain_chunk *chunk = r->first;

	if (!chunk || chunk->room - chunk->n < data.n)
		chunk = widen(r, r->n + data.n, expected);
	if (data.n > 0)
		memcpy(chunk->data + chunk->n, data.p, data.n);
	chunk->n += data.n;
	r->n += data.n;
}

struct str retain_whole(const struct retained *r)
{
	return r->first ? (struct str){ r->first->data, r->first->n } : STR("");
}

void retain_renew(struct exchange *x)
{
	struct retained *r = x->retained;

	if (r->refs == 1) {
		free_chunks(r);
		r->n = 0;
		return;
	}
	x->retained = NULL;
	retain_body(x, r->limit);
	while (!list_is_empty(&r->watchers)) {
		struct list *watcher = r->watchers.next;

		list_remove(watcher);
		list_append(&x->retained->watchers, watcher);
	}
}

void retain_tell(struct retained *r)
{
	LIST_EACH(node, &r->watchers) {
		struct retain_watch *w = CONTAINER(node, struct retain_watch, node);

		w->changed(w);
	}
}

/* ---------- reading ---------- */

struct str retain_read(struct retain_reader *reader)
{
	const struct retain_chunk *chunk = reader->chunk ? reader->chunk : reader->of->first;
	struct str piece = { NULL, 0 };

	/* The chunks are gone. */
	if (reader->of->is_over)
		return piece;
	/* The last chunk may get more, and a next one. */
	if (chunk && reader->at == chunk->n && chunk->next) {
		chunk = chunk->next;
		reader->at = 0;
	}
	if (!chunk)
		return piece;
	piece = (struct str){ chunk->data + reader->at, chunk->n - reader->at };
	reader->chunk = chunk;
	reader->at = chunk->n;
	return piece;
}

void retain_watch(struct retained *r, struct retain_watch *w)
{
	list_append(&r->watchers, &w->node);
}
