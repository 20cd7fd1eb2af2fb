#include "proxy/leftover.h"
#include "core/budget.h"
#include "core/mem.h"
#include "proxy/worker.h"

struct leftover {
	struct call call;
	struct arena arena;
	struct list node;
	struct timer limit;
	struct worker *worker;
	struct view *view;
	struct leftover_reader *reader;   /* NULL: the connection alone is wanted */
	size_t n;                         /* bytes that came */
	char *body;                       /* LEFTOVER_BYTES of room; NULL without a reader */
};

/* Of this worker. */
static _Thread_local struct {
	struct list all;
	unsigned n;
	struct worker_end end;
	bool is_tended;
} leftovers;

static void end_leftover(struct leftover *l, bool is_whole)
{
	struct view *view = l->view;
	struct worker *w = l->worker;

	timer_disarm(&l->limit);
	list_remove(&l->node);
	leftovers.n--;
	call_cancel(&l->call);
	if (l->reader) {
		l->reader->read(l->reader, (struct str){ l->body, l->n }, is_whole);
		budget_add(-LEFTOVER_BYTES);
	}
	mem_free(l->body);
	arena_free(&l->arena);
	mem_free(l);
	view->exchanges--;
	snapshot_unpin(view, worker_view(w), worker_mailbox(w));
}

static struct leftover *of(struct call *c)
{
	return CONTAINER(c, struct leftover, call);
}

/* False: it is over. */
static bool keep(struct leftover *l, struct str data)
{
	if (data.n > LEFTOVER_BYTES - l->n) {
		end_leftover(l, false);
		return false;
	}
	if (l->body && data.n > 0)
		memcpy(l->body + l->n, data.p, data.n);
	l->n += data.n;
	return true;
}

static void body(struct call *c, char *data, size_t n, bool end)
{
	struct leftover *l = of(c);

	if (keep(l, (struct str){ data, n }) && end)
		end_leftover(l, true);
}

static void failed(struct call *c, enum call_failure what)
{
	(void)what;
	end_leftover(of(c), false);
}

static void drained(struct call *c)
{
	(void)c;
}

static void expire(struct timer *t)
{
	end_leftover(CONTAINER(t, struct leftover, limit), false);
}

static const struct call_ops ops = { .body = body, .drained = drained, .failed = failed };

static void end_all(struct worker_end *e)
{
	(void)e;
	LIST_EACH(node, &leftovers.all)
		end_leftover(CONTAINER(node, struct leftover, node), false);
	leftovers.is_tended = false;
}

/* The rest of the request would have to be sent first, or there is more to read than it is worth. */
static bool is_worth_reading(const struct call *c, bool is_wanted)
{
	/* Without either it has failed: nothing more comes. */
	if (!c->connection && !c->carrier)
		return false;
	if (!c->request_done || c->trailers || leftovers.n >= LEFTOVERS_MAX || budget_is_tight())
		return false;
	if (c->res.framing == FRAMING_LENGTH)
		return c->res.content_length <= LEFTOVER_BYTES;
	/* A connection that ends with its body is of no further use, nor need one that is shared be kept free. */
	return is_wanted || (c->res.framing != FRAMING_CLOSE && !c->over_h2);
}

static void begin(struct exchange *x, struct leftover_reader *reader)
{
	struct leftover *l = MEM_NEW(struct leftover);

	if (!leftovers.is_tended) {
		list_init(&leftovers.all);
		worker_at_end(x->worker, &leftovers.end, end_all);
		leftovers.is_tended = true;
	}
	l->arena.is_small = true;
	l->worker = x->worker;
	l->view = x->view;
	l->view->exchanges++;
	l->reader = reader;
	l->call.ops = &ops;
	l->call.arena = &l->arena;
	if (reader) {
		l->body = mem_alloc(LEFTOVER_BYTES);
		budget_add(LEFTOVER_BYTES);
	}
	list_append(&leftovers.all, &l->node);
	leftovers.n++;
	timer_init(&l->limit, expire);
	loop_arm(worker_loop(x->worker), &l->limit, LEFTOVER_MS);
	call_move(&l->call, &x->call);
	keep(l, x->part);
}

void leftover_take(struct exchange *x)
{
	struct leftover_reader *reader = x->dropped ? x->dropped(x) : NULL;

	if (x->call_open && !x->part_end && is_worth_reading(&x->call, reader != NULL))
		begin(x, reader);
	else if (reader)
		reader->read(reader, x->part, x->part_end && x->part.n <= LEFTOVER_BYTES);
	x->part = (struct str){ NULL, 0 };
	x->part_end = false;
}
