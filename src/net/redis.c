/* redis.c -- commands: how they are written, which node they go to, how they end. */
#include "net/redis.h"
#include "core/clock.h"
#include "core/mem.h"
#include "net/redis_parts.h"

enum { REFRESH_MS = 1000, REFRESH_LIMIT_MS = 2000 };

static const char *const failure_texts[] = {
	[REDIS_DONE] = "it answered",
	[REDIS_CONNECT] = "it cannot be connected to",
	[REDIS_AUTH] = "it refuses the user, the password or the database",
	[REDIS_CLOSED] = "it closed the connection before an answer",
	[REDIS_TIMEOUT] = "it does not answer",
	[REDIS_MALFORMED] = "its answer breaks the protocol",
	[REDIS_BUSY] = "too many commands wait for it",
};

const char *redis_failure_text(enum redis_failure f)
{
	return failure_texts[f];
}

const char *redis_error_word(struct str error)
{
	static const char *const known[] = {
		"WRONGPASS", "NOAUTH", "NOPERM", "NOPROTO", "DENIED", "LOADING", "MASTERDOWN", "MISCONF",
		"CLUSTERDOWN", "READONLY", "OOM", "WRONGTYPE", "TRYAGAIN", "MOVED", "ASK", "CROSSSLOT", "BUSY",
		"NOSCRIPT", "UNKILLABLE",
	};

	for (unsigned i = 0; i < sizeof known / sizeof *known; i++)
		if (str_starts(error, str_of(known[i])))
			return known[i];
	return "ERR";
}

const char *redis_trouble(const struct redis *r)
{
	return r->trouble;
}

bool redis_is_idle(const struct redis *r)
{
	return r->n_pending == 0;
}

/* ---------- jobs ---------- */

void redis_job_free(struct redis_job *j)
{
	if (j->place == JOB_WAITING)
		j->redis->unsent -= j->n;
	timer_disarm(&j->limit);
	list_remove(&j->node);
	j->redis->n_pending--;
	mem_free(j);
}

void redis_job_over(struct redis_job *j, enum redis_failure f)
{
	struct redis *r = j->redis;

	if (j->place == JOB_WAITING)
		r->unsent -= j->n;
	j->place = JOB_OVER;
	j->failure = (uint8_t)f;
	timer_disarm(&j->limit);
	list_remove(&j->node);
	list_append(&r->over, &j->node);
	loop_defer(r->loop, &r->task);
}

/* Frees the job and says so to whoever waits; afterwards everything may be gone. */
static void finish(struct redis_job *j, enum redis_failure f, const struct redis_reply *reply)
{
	struct redis_command *c = j->command;

	redis_job_free(j);
	if (!c)
		return;
	c->job = NULL;
	c->failure = f;
	c->reply = reply;
	c->done(c);
}

/* Only what is over now: what fails in done() has its turn later. */
static void tell_over(struct task *t)
{
	struct redis *r = CONTAINER(t, struct redis, task);

	while (!list_is_empty(&r->over)) {
		struct list *node = r->over.next;

		list_remove(node);
		list_append(&r->telling, node);
	}
	while (!r->is_freed && !list_is_empty(&r->telling)) {
		struct redis_job *j = CONTAINER(r->telling.next, struct redis_job, node);

		finish(j, j->failure, NULL);
	}
}

static void out_of_time(struct timer *t)
{
	struct redis_job *j = CONTAINER(t, struct redis_job, limit);
	struct redis_command *c = j->command;

	if (j->place != JOB_SENT) {
		finish(j, REDIS_TIMEOUT, NULL);
		return;
	}
	/* Its reply has to be waited for all the same: those of others are behind it. */
	j->command = NULL;
	c->job = NULL;
	c->failure = REDIS_TIMEOUT;
	c->reply = NULL;
	c->done(c);
}

void redis_cancel(struct redis_command *c)
{
	struct redis_job *j = c->job;

	if (!j)
		return;
	c->job = NULL;
	j->command = NULL;
	timer_disarm(&j->limit);
	if (j->place == JOB_WAITING)
		redis_job_free(j);
}

/* ---------- nodes of a cluster ---------- */

static struct redis_node *seed(struct redis *r)
{
	return CONTAINER(r->nodes.next, struct redis_node, all);
}

void redis_forget_slots(struct redis *r, const struct redis_node *n)
{
	for (unsigned i = 0; r->slots && i < REDIS_SLOTS; i++)
		if (r->slots[i] == n)
			r->slots[i] = NULL;
}

static bool is_unused(const struct redis_node *n)
{
	return n->state == NODE_OFF && list_is_empty(&n->waiting) && list_is_empty(&n->sent);
}

/* One that is not in use gives its place to another. */
static bool make_room(struct redis *r)
{
	LIST_EACH(at, &r->nodes) {
		struct redis_node *n = CONTAINER(at, struct redis_node, all);

		if (n == seed(r) || n == r->refresh_from || !is_unused(n))
			continue;
		redis_forget_slots(r, n);
		redis_node_release(n);
		return true;
	}
	return false;
}

/* NULL: there are too many already. */
static struct redis_node *get_node(struct redis *r, struct str host, uint16_t port)
{
	LIST_EACH(at, &r->nodes) {
		struct redis_node *n = CONTAINER(at, struct redis_node, all);

		if (n->port == port && str_equal_nocase(n->host, host))
			return n;
	}
	if (r->n_nodes == REDIS_NODES_MAX && !make_room(r))
		return NULL;
	return redis_node_new(r, host, port);
}

/* The slot's own, what was configured, or, when that is away, any other that is there. */
static struct redis_node *choose_node(struct redis *r, int slot)
{
	struct redis_node *n = slot >= 0 && r->slots ? r->slots[slot] : NULL;

	if (!n)
		n = seed(r);
	if (redis_node_may_open(n) || !r->slots)
		return n;
	LIST_EACH(at, &r->nodes) {
		struct redis_node *other = CONTAINER(at, struct redis_node, all);

		if (redis_node_may_open(other))
			return other;
	}
	return n;
}

static void set_slot(struct redis *r, unsigned slot, struct redis_node *n)
{
	if (!r->slots)
		r->slots = mem_alloc(REDIS_SLOTS * sizeof *r->slots);
	r->slots[slot] = n;
}

/* [first, last, [host, port, ...], ...]; anything else is passed over. */
static void learn_range(struct redis *r, const struct redis_reply *range)
{
	const struct redis_reply *at = range->items, *node = at + 2;
	struct redis_node *n;
	struct str host;

	if (range->type != REDIS_ARRAY || range->n < 3 || node->type != REDIS_ARRAY || node->n < 2)
		return;
	if (at[0].type != REDIS_INTEGER || at[1].type != REDIS_INTEGER || node->items[1].type != REDIS_INTEGER)
		return;
	if (at[0].integer < 0 || at[0].integer > at[1].integer || at[1].integer >= REDIS_SLOTS)
		return;
	if (node->items[1].integer < 1 || node->items[1].integer > 65535)
		return;
	host = node->items[0].text.n ? node->items[0].text : r->refresh_from->host;
	if (host.n == 0 || host.n > RESOLVER_MAX_NAME || str_equal(host, STR("?")))
		return;
	n = get_node(r, host, (uint16_t)node->items[1].integer);
	for (int64_t i = at[0].integer; n && i <= at[1].integer; i++)
		set_slot(r, (unsigned)i, n);
}

static void learn_slots(struct redis_command *c)
{
	struct redis *r = c->arg;

	if (c->failure == REDIS_DONE && c->reply->type == REDIS_ARRAY)
		for (size_t i = 0; i < c->reply->n; i++)
			learn_range(r, &c->reply->items[i]);
	r->refresh_from = NULL;
}

/* "MOVED 3999 127.0.0.1:6381": no host means that of the one who says it. */
static struct redis_node *read_redirect(struct redis_node *from, struct str text, unsigned *slot)
{
	struct str word, host;
	uint64_t number, port;
	size_t colon;

	str_split(&text, ' ', &word);
	if (!str_split(&text, ' ', &word) || !str_to_u64(word, REDIS_SLOTS - 1, &number) ||
	    !str_split(&text, ' ', &word))
		return NULL;
	for (colon = word.n; colon > 0 && word.p[colon - 1] != ':'; colon--)
		;
	if (colon == 0 || !str_to_u64((struct str){ word.p + colon, word.n - colon }, 65535, &port) || port == 0)
		return NULL;
	host = colon > 1 ? (struct str){ word.p, colon - 1 } : from->host;
	if (host.n > RESOLVER_MAX_NAME || str_equal(host, STR("?")))
		return NULL;
	*slot = (unsigned)number;
	return get_node(from->redis, host, (uint16_t)port);
}

static struct redis_job *new_job(struct redis *r, const struct redis_words *words);

static void refresh_slots(struct redis *r, struct redis_node *from)
{
	static const struct str both[] = { { "CLUSTER", 7 }, { "SLOTS", 5 } };
	static const struct redis_words words = { 2, both, -1 };

	if (r->refresh.job || (r->refreshed_ms && clock_ms() < r->refreshed_ms + REFRESH_MS))
		return;
	r->refreshed_ms = clock_ms();
	r->refresh_from = from;
	r->refresh.job = new_job(r, &words);
	r->refresh.job->command = &r->refresh;
	loop_arm(r->loop, &r->refresh.job->limit, REFRESH_LIMIT_MS);
	redis_node_send(from, r->refresh.job);
}

/* False: it is an error like others. */
static bool follow(struct redis_job *j, struct redis_node *from, struct str text)
{
	bool is_moved = str_starts(text, STR("MOVED ")), is_ask = str_starts(text, STR("ASK "));
	struct redis *r = j->redis;
	struct redis_node *to;
	unsigned slot;

	if ((!is_moved && !is_ask) || !j->command || j->redirects++ == REDIS_REDIRECTS_MAX)
		return false;
	to = read_redirect(from, text, &slot);
	if (!to)
		return false;
	j->is_asking = is_ask;
	if (is_moved)
		set_slot(r, slot, to);
	list_remove(&j->node);
	redis_node_send(to, j);
	if (is_moved)
		refresh_slots(r, to);
	return true;
}

/* A reply for the oldest job of a node. */
void redis_job_replied(struct redis_job *j, struct redis_node *from, struct str bytes)
{
	struct arena a = { 0 };
	const struct redis_reply *reply;

	if (!j->command && bytes.p[0] != '-') {
		redis_job_free(j);
		return;
	}
	reply = redis_read(&a, bytes);
	if (reply->type != REDIS_ERROR || !follow(j, from, reply->text))
		finish(j, REDIS_DONE, reply);
	arena_free(&a);
}

/* ---------- sending ---------- */

static size_t wire_bound(const struct redis_words *words)
{
	size_t n = STR_DIGITS + 3;

	for (unsigned i = 0; i < words->n; i++)
		n += words->at[i].n + STR_DIGITS + 5;
	return n;
}

static char *put_head(char *out, char type, size_t n)
{
	*out++ = type;
	out = str_put_u64(out, n);
	return STR_PUT(out, "\r\n");
}

static struct redis_job *new_job(struct redis *r, const struct redis_words *words)
{
	struct redis_job *j = mem_alloc(sizeof *j + wire_bound(words));
	char *out = put_head(j->wire, '*', words->n);

	for (unsigned i = 0; i < words->n; i++) {
		out = put_head(out, '$', words->at[i].n);
		out = str_put(out, words->at[i]);
		out = STR_PUT(out, "\r\n");
	}
	j->n = (size_t)(out - j->wire);
	j->redis = r;
	j->slot = words->key >= 0 ? (int)redis_slot(words->at[words->key]) : -1;
	list_init(&j->node);
	timer_init(&j->limit, out_of_time);
	r->n_pending++;
	return j;
}

void redis_send(struct redis *r, struct redis_command *c, const struct redis_words *words, int64_t timeout_ms)
{
	struct redis_job *j = new_job(r, words);

	BUG_ON(words->key >= 0 && (unsigned)words->key >= words->n);
	j->command = c;
	c->job = j;
	loop_arm(r->loop, &j->limit, timeout_ms);
	if (r->n_pending > REDIS_PENDING_MAX || r->unsent + j->n > REDIS_UNSENT_MAX)
		redis_job_over(j, REDIS_BUSY);
	else
		redis_node_send(choose_node(r, j->slot), j);
}

/* ---------- life ---------- */

static char *copy_text(struct str s)
{
	char *p = mem_alloc(s.n + 1);

	str_put(p, s);
	return p;
}

struct redis *redis_new(struct loop *loop, struct resolver *resolver, const struct redis_options *o)
{
	struct redis *r = MEM_NEW(struct redis);

	r->loop = loop;
	r->resolver = resolver;
	r->options = *o;
	r->options.host.p = copy_text(o->host);
	r->options.username.p = copy_text(o->username);
	r->options.password.p = copy_text(o->password);
	r->refresh.done = learn_slots;
	r->refresh.arg = r;
	list_init(&r->nodes);
	list_init(&r->over);
	list_init(&r->telling);
	task_init(&r->task, tell_over);
	redis_node_new(r, o->host, o->port);
	return r;
}

static void free_text(struct str s)
{
	mem_wipe((char *)(uintptr_t)s.p, s.n);
	mem_free((char *)(uintptr_t)s.p);
}

static void release(struct garbage *g)
{
	struct redis *r = CONTAINER(g, struct redis, garbage);

	LIST_EACH(at, &r->nodes)
		redis_node_release(CONTAINER(at, struct redis_node, all));
	free_text(r->options.host);
	free_text(r->options.username);
	free_text(r->options.password);
	mem_free(r->slots);
	mem_free(r);
}

void redis_free(struct redis *r)
{
	LIST_EACH(at, &r->nodes) {
		struct redis_node *n = CONTAINER(at, struct redis_node, all);

		redis_node_flush(n);
		redis_node_close(n, REDIS_CLOSED);
	}
	r->is_freed = true;
	for (struct list *all = &r->over;; all = &r->telling) {
		while (!list_is_empty(all)) {
			struct redis_job *j = CONTAINER(all->next, struct redis_job, node);

			if (j->command)
				j->command->job = NULL;
			redis_job_free(j);
		}
		if (all == &r->telling)
			break;
	}
	list_remove(&r->task.node);
	loop_free_later(r->loop, &r->garbage);
	r->garbage.release = release;
}
