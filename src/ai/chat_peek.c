/*
 * chat_peek.c -- the beginning of a stream, while another service may be turned to: held back until it has content, or
 * shows that it will have none.
 *
 *      more bytes ──► (inflated) ──► events ──► content: it goes on, all that was held first
 *           ▲                               ├─► an error, or an end without anything: the next service
 *           └───────── neither yet ◄────────┘
 *
 * What is held has a bound; a longer beginning goes on as it is. Each byte is looked at once.
 */
#include "ai/chat_parts.h"

#define PEEK_MAX 65536

enum sight { SIGHT_MORE, SIGHT_GOOD, SIGHT_BAD };

struct chat_peek {
	struct arena_defer defer;
	struct inflate *inflate;          /* NULL: it is not compressed */
	struct sse sse;
	struct answer seen;
	struct arena scratch;             /* of one event */
	size_t at;                        /* bytes that were looked at */
	unsigned documents;
};

static void free_peek(struct arena_defer *d)
{
	struct chat_peek *p = CONTAINER(d, struct chat_peek, defer);

	inflate_close(p->inflate);
	sse_free(&p->sse);
	answer_free(&p->seen);
	arena_free(&p->scratch);
}

/* An end is a good one where something came before it. */
static enum sight judge(struct chat_peek *p, const struct sse_event *e)
{
	const struct json *doc = NULL;
	struct problem why;
	unsigned holds;

	arena_free(&p->scratch);
	if (e->data.n > 0 && e->data.p[0] == '{')
		doc = json_parse_spans(&p->scratch, e->data, CHAT_NODES_MAX, &why);
	holds = answer_take_event(&p->seen, e, doc);
	p->documents += doc != NULL;
	if (holds & ANSWER_HOLDS_ERROR)
		return SIGHT_BAD;
	if (holds & ANSWER_HOLDS_CONTENT)
		return SIGHT_GOOD;
	if (holds & ANSWER_HOLDS_END)
		return p->documents > (doc ? 1U : 0U) ? SIGHT_GOOD : SIGHT_BAD;
	return SIGHT_MORE;
}

/* Plain bytes; what is no stream of events any more passes. */
static enum sight look_at(struct chat_peek *p, struct str bytes)
{
	enum sight sight = SIGHT_MORE;
	enum sse_result result = SSE_EVENT;
	struct sse_event e;

	sse_give(&p->sse, bytes);
	while (sight == SIGHT_MORE && (result = sse_next(&p->sse, &e)) == SSE_EVENT)
		sight = judge(p, &e);
	return result == SSE_LONG ? SIGHT_GOOD : sight;
}

static enum sight look(struct chat_peek *p, struct str bytes)
{
	enum sight sight = SIGHT_MORE;
	struct str part;

	if (!p->inflate)
		return look_at(p, bytes);
	inflate_give(p->inflate, bytes);
	while (sight == SIGHT_MORE && inflate_next(p->inflate, &part))
		sight = look_at(p, part);
	return sight == SIGHT_MORE && inflate_is_broken(p->inflate) ? SIGHT_GOOD : sight;
}

/* The stream is over, and nothing was said. */
static enum sight look_at_end(struct chat_peek *p)
{
	struct sse_event e;
	enum sight sight = sse_end(&p->sse, &e) ? judge(p, &e) : SIGHT_MORE;

	return sight == SIGHT_MORE ? SIGHT_BAD : sight;
}

static enum verdict peek(struct exchange *x, const struct step *s)
{
	struct chat *c = x->chat;
	struct chat_peek *p = c->peeking;
	enum sight sight;
	bool is_whole;
	struct str bytes = exchange_response_body(x, &is_whole);

	(void)s;
	sight = look(p, (struct str){ bytes.p + p->at, bytes.n - p->at });
	p->at = bytes.n;
	if (sight == SIGHT_MORE && is_whole)
		sight = look_at_end(p);
	if (sight == SIGHT_MORE && bytes.n < PEEK_MAX)
		return await_response_body(x, bytes.n + 1, peek);
	if (sight == SIGHT_BAD && exchange_may_refuse(x))
		return refuse_answer(x);
	c->peeking = NULL;
	return chat_begin_stream(x);
}

void chat_give_peek_up(struct chat *c)
{
	if (c->peeking)
		chat_count_waste(&c->peeking->seen.usage, c->peeking->seen.kind);
	c->peeking = NULL;
}

enum verdict chat_peek(struct exchange *x, struct str encoding)
{
	struct chat *c = x->chat;
	struct chat_peek *p;
	struct inflate *inflate = encoding.n > 0 ? inflate_open(encoding) : NULL;

	/* What cannot be read cannot be judged. */
	if (encoding.n > 0 && !inflate)
		return chat_begin_stream(x);
	p = c->peeking = NEW(&x->arena, struct chat_peek);
	arena_defer(&x->arena, &p->defer, free_peek);
	p->inflate = inflate;
	p->seen.kind = c->answer.kind;
	return await_response_body(x, 1, peek);
}
