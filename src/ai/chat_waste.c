/*
 * chat_waste.c -- tokens of answers that no client got (USE-9): of tries that failed and were followed by another one.
 *
 *      head dropped ── chat_read_dropped ──► its body, beside the next try ──► usage in it ──► ai_wasted_tokens_total
 *      stream given up before its content ──► what it had said of usage ───────────────────┘
 */
#include <stdatomic.h>
#include "ai/chat_parts.h"
#include "core/mem.h"
#include "core/metric.h"

#define PLAIN_MAX (1u << 20)              /* of a body that came compressed */

static _Atomic(struct series *) wasted;

void chat_open_waste(void)
{
	if (!atomic_load_explicit(&wasted, memory_order_acquire))
		atomic_store_explicit(&wasted, metric_series(METRIC_AI_WASTED_TOKENS, NULL), memory_order_release);
}

void chat_count_waste(const struct usage *u, enum ai_kind kind)
{
	if (!usage_is_known(u))
		return;
	chat_open_waste();
	metric_add(atomic_load_explicit(&wasted, memory_order_acquire), usage_total(u, kind));
}

/* Of one dropped answer; outlives the exchange. */
struct dropped {
	struct leftover_reader reader;
	enum ai_kind kind;
	size_t n;
	char coding[];
};

static void count(const struct dropped *d, struct str body)
{
	struct arena scratch = { 0 };
	struct usage usage = { 0 };
	struct problem unused;
	const struct json *doc = json_parse_spans(&scratch, body, CHAT_NODES_MAX, &unused);

	if (doc)
		usage_take(&usage, d->kind, doc);
	chat_count_waste(&usage, d->kind);
	arena_free(&scratch);
}

static void read_body(struct leftover_reader *r, struct str body, bool is_whole)
{
	struct dropped *d = CONTAINER(r, struct dropped, reader);
	struct sbuf plain = { 0 };

	if (is_whole && d->n == 0)
		count(d, body);
	else if (is_whole && inflate_all((struct str){ d->coding, d->n }, body, PLAIN_MAX, &plain))
		count(d, sbuf_str(&plain));
	sbuf_free(&plain);
	mem_free(d);
}

struct leftover_reader *chat_read_dropped(struct exchange *x)
{
	const struct chat *c = x->chat;
	struct str coding = chat_coding(x);
	struct dropped *d;

	if (!c->body || !chat_is_json_like(message_value(&x->res, HEADER_CONTENT_TYPE)))
		return NULL;
	d = mem_alloc(sizeof *d + coding.n);
	d->reader.read = read_body;
	d->kind = c->upstream_kind;
	d->n = coding.n;
	if (coding.n > 0)
		str_put(d->coding, coding);
	return &d->reader;
}
