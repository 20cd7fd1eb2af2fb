#include "policy/redis_link.h"
#include <pthread.h>
#include <stdio.h>
#include "core/clock.h"
#include "core/log.h"
#include "core/map.h"
#include "core/mem.h"
#include "net/redis_parse.h"
#include "net/tls_client.h"
#include "proxy/side_address.h"
#include "proxy/side_call.h"
#include "proxy/worker.h"

enum {
	LINKS_MAX = 64,                   /* of one worker: then those that nobody uses go */
	IDLE_MS = 60000,
	CONNECT_MS = 2000,
	CHECK_MS = 5000,                  /* links that users of the process need are looked after */
	LOG_MS = 10000,
};

/* ---------- targets ---------- */

struct redis_target {
	atomic_uint refs;
	bool is_tls;
	uint16_t port;
	unsigned database;
	struct str host, username, password, key;
	size_t n;
	char texts[];
};

/* What makes two of them the same; the password is within. */
static struct str key_of(const struct redis_config *c, struct sbuf *b)
{
	struct str host = redis_config_host(c);

	sbuf_addf(b, "%c%lld/%lld/", redis_config_is_tls(c) ? 's' : 'p', (long long)c->servicePort,
		  (long long)c->database);
	for (size_t i = 0; i < host.n; i++)
		sbuf_addc(b, str_lower(host.p[i]));
	sbuf_addc(b, '\0');
	sbuf_add(b, c->username);
	sbuf_addc(b, '\0');
	sbuf_add(b, c->password);
	return sbuf_str(b);
}

static void drop_key(struct sbuf *b)
{
	mem_wipe(b->p, b->n);
	sbuf_free(b);
}

static struct str put_text(char **at, struct str s)
{
	struct str copy = { *at, s.n };

	*at = str_put(*at, s);
	return copy;
}

static struct redis_target *new_target(const struct redis_config *c, struct str key)
{
	struct str host = redis_config_host(c);
	size_t n = host.n + c->username.n + c->password.n + key.n;
	struct redis_target *t = mem_alloc(sizeof *t + n);
	char *at = t->texts;

	atomic_init(&t->refs, 1);
	t->is_tls = redis_config_is_tls(c);
	t->port = (uint16_t)c->servicePort;
	t->database = (unsigned)c->database;
	t->n = n;
	t->host = put_text(&at, host);
	t->username = put_text(&at, c->username);
	t->password = put_text(&at, c->password);
	t->key = put_text(&at, key);
	return t;
}

struct redis_target *redis_target_new(const struct redis_config *conf)
{
	struct sbuf b = { 0 };
	struct redis_target *t = new_target(conf, key_of(conf, &b));

	drop_key(&b);
	return t;
}

struct redis_target *redis_target_hold(struct redis_target *t)
{
	atomic_fetch_add_explicit(&t->refs, 1, memory_order_relaxed);
	return t;
}

void redis_target_drop(struct redis_target *t)
{
	if (!t || atomic_fetch_sub_explicit(&t->refs, 1, memory_order_acq_rel) != 1)
		return;
	mem_wipe(t->texts, t->n);
	mem_free(t);
}

bool redis_target_is(const struct redis_target *a, const struct redis_target *b)
{
	return str_equal(a->key, b->key);
}

struct str redis_target_host(const struct redis_target *t)
{
	return t->host;
}

/* ---------- links ---------- */

struct redis_link {
	struct worker *worker;
	struct redis_target *target;
	struct redis *redis;
	struct redis_command ping;
	struct timer timer;
	struct list watches;              /* struct redis_watch */
	struct list tells;                /* struct tell */
	int64_t used_ms, logged_ms, pause_ms;
	bool is_down;
	uint8_t failure;                  /* while it is down */
};

/* A command that no exchange waits for. */
struct tell {
	struct list node;
	struct task task;                 /* of one that failed at once */
	struct redis_command command;
	struct redis_link *link;
	enum redis_failure failure;
	redis_told *told;
	void *arg;
};

static _Thread_local struct {
	struct worker *worker;            /* NULL: there are no links yet */
	struct map by_key;
	struct worker_end end;
	struct timer tick;                /* worker 0: looks after the users' links */
} links;

static struct {
	pthread_mutex_t lock;
	struct list all;                  /* struct redis_user */
	unsigned n;
} users = { PTHREAD_MUTEX_INITIALIZER, LIST_INIT(users.all), 0 };

static const struct str ping_word = { "PING", 4 };
static const struct redis_words ping_words = { 1, &ping_word, -1 };

void redis_link_report(const struct redis_link *l)
{
	const char *trouble = redis_trouble(l->redis);
	struct str error = str_of(*trouble ? trouble : redis_failure_text(l->failure));

	pthread_mutex_lock(&users.lock);
	LIST_EACH(node, &users.all) {
		struct redis_user *u = CONTAINER(node, struct redis_user, node);

		if (!str_equal(u->target->key, l->target->key))
			continue;
		if (l->is_down)
			dependency_down(u->dependency, REDIS_DOWN_REASON, error);
		else
			dependency_up(u->dependency);
	}
	pthread_mutex_unlock(&users.lock);
}

static void tell_change(struct redis_link *l)
{
	redis_link_report(l);
	LIST_EACH(node, &l->watches) {
		struct redis_watch *w = CONTAINER(node, struct redis_watch, node);

		if (w->changed)
			w->changed(w, !l->is_down);
	}
}

static void log_change(struct redis_link *l)
{
	const struct redis_target *t = l->target;
	const char *trouble = redis_trouble(l->redis);

	if (l->is_down && l->logged_ms && clock_ms() < l->logged_ms + LOG_MS)
		return;
	if (l->is_down) {
		l->logged_ms = clock_ms();
		log_warn("redis.down", F_STR("host", t->host), F_INT("port", t->port),
			 F_TEXT("why", *trouble ? trouble : redis_failure_text(l->failure)));
	} else {
		log_info("redis.up", F_STR("host", t->host), F_INT("port", t->port));
	}
}

static void is_up(struct redis_link *l)
{
	if (!l->is_down)
		return;
	l->is_down = false;
	log_change(l);
	tell_change(l);
}

/* From here on commands fail at once, until a PING is answered. */
static void is_down(struct redis_link *l, enum redis_failure f)
{
	bool is_new = !l->is_down;

	l->is_down = true;
	l->failure = (uint8_t)f;
	if (!is_new) {
		redis_link_report(l);
		return;
	}
	l->pause_ms = REDIS_PROBE_MS;
	if (!l->ping.job)
		loop_arm(worker_loop(l->worker), &l->timer, f == REDIS_CLOSED ? 0 : l->pause_ms);
	log_change(l);
	tell_change(l);
}

static void judge(struct redis_link *l, enum redis_failure f)
{
	if (f == REDIS_DONE)
		is_up(l);
	else if (f != REDIS_BUSY)
		is_down(l, f);
}

static bool is_no_answer(const struct redis_reply *r)
{
	static const struct str states[] = { { "LOADING", 7 }, { "MASTERDOWN", 10 }, { "NOAUTH", 6 } };

	for (unsigned i = 0; r->type == REDIS_ERROR && i < 3; i++)
		if (str_starts(r->text, states[i]))
			return true;
	return false;
}

static void pinged(struct redis_command *c)
{
	struct redis_link *l = c->arg;

	if (c->failure == REDIS_DONE && !is_no_answer(c->reply)) {
		is_up(l);
		return;
	}
	is_down(l, c->failure == REDIS_DONE ? REDIS_AUTH : c->failure);
	l->pause_ms = l->pause_ms * 2 < REDIS_PROBE_MAX_MS ? l->pause_ms * 2 : REDIS_PROBE_MAX_MS;
	loop_arm(worker_loop(l->worker), &l->timer, l->pause_ms);
}

static void ping(struct redis_link *l)
{
	if (l->ping.job)
		return;
	l->ping.done = pinged;
	l->ping.arg = l;
	redis_send(l->redis, &l->ping, &ping_words, REDIS_TIMEOUT_MS);
}

static void probe(struct timer *t)
{
	ping(CONTAINER(t, struct redis_link, timer));
}

static void free_link(struct redis_link *l)
{
	map_remove(&links.by_key, l->target->key);
	timer_disarm(&l->timer);
	/* Before what it has of ours: it says goodbye to commands that are under way. */
	redis_free(l->redis);
	LIST_EACH(node, &l->tells) {
		struct tell *t = CONTAINER(node, struct tell, node);

		list_remove(&t->task.node);
		mem_free(t);
	}
	LIST_EACH(watch, &l->watches) {
		CONTAINER(watch, struct redis_watch, node)->link = NULL;
		list_remove(watch);
	}
	redis_target_drop(l->target);
	mem_free(l);
}

static void free_links(struct worker_end *e)
{
	struct map_entry *entry;

	(void)e;
	timer_disarm(&links.tick);
	for (size_t i = 0; (entry = map_next(&links.by_key, &i)); i = 0)
		free_link(entry->value);
	map_free(&links.by_key);
	links.worker = NULL;
}

static bool is_unused(const struct redis_link *l)
{
	return list_is_empty(&l->watches) && list_is_empty(&l->tells) && redis_is_idle(l->redis) &&
	       clock_ms() > l->used_ms + IDLE_MS;
}

static void drop_unused(void)
{
	struct map_entry *entry;

	for (size_t i = 0; (entry = map_next(&links.by_key, &i));) {
		if (!is_unused(entry->value))
			continue;
		free_link(entry->value);
		i = 0;
	}
}

static void begin(struct worker *w)
{
	if (links.worker)
		return;
	links.worker = w;
	timer_init(&links.tick, NULL);
	worker_at_end(w, &links.end, free_links);
}

static struct redis_link *new_link(struct worker *w, struct redis_target *t)
{
	struct redis_link *l = MEM_NEW(struct redis_link);

	if (links.by_key.n >= LINKS_MAX)
		drop_unused();
	l->worker = w;
	l->target = redis_target_hold(t);
	l->redis = redis_new(worker_loop(w), worker_resolver(w), &(struct redis_options){
		.host = t->host, .port = t->port, .username = t->username, .password = t->password,
		.database = t->database, .tls = t->is_tls ? tls_client_default() : NULL,
		.connect_timeout_ms = CONNECT_MS, .idle_ms = IDLE_MS, .may_connect = side_address_may_call,
	});
	timer_init(&l->timer, probe);
	list_init(&l->watches);
	list_init(&l->tells);
	map_put(&links.by_key, l->target->key, l);
	return l;
}

static struct redis_link *link_to(struct worker *w, struct redis_target *t)
{
	struct redis_link *l;

	begin(w);
	l = map_get(&links.by_key, t->key);
	if (!l)
		l = new_link(w, t);
	l->used_ms = clock_ms();
	return l;
}

static struct redis_link *link_of(struct worker *w, const struct redis_config *conf)
{
	struct sbuf b = { 0 };
	struct str key = key_of(conf, &b);
	struct redis_link *l;
	struct redis_target *t;

	begin(w);
	l = map_get(&links.by_key, key);
	if (!l) {
		t = new_target(conf, key);
		l = new_link(w, t);
		redis_target_drop(t);
	}
	drop_key(&b);
	l->used_ms = clock_ms();
	return l;
}

bool redis_link_is_up(const struct redis_link *l)
{
	return !l->is_down;
}

void redis_watch_begin(struct redis_watch *w, struct worker *worker, struct redis_target *t)
{
	w->link = link_to(worker, t);
	list_append(&w->link->watches, &w->node);
}

void redis_watch_end(struct redis_watch *w)
{
	list_remove(&w->node);
	w->link = NULL;
}

/* ---------- asking ---------- */

/* What an exchange waits for is its worker's; the link may end before, with the worker. */
struct asking {
	struct redis_ask ask;             /* first */
	struct arena_defer defer;
	struct redis_link *link;
	struct arena *arena;
};

static void forget(struct wait *w)
{
	redis_cancel(&CONTAINER(w, struct redis_ask, wait)->command);
}

static void forget_with_exchange(struct arena_defer *d)
{
	redis_cancel(&CONTAINER(d, struct asking, defer)->ask.command);
}

static void answered(struct redis_command *c)
{
	struct asking *a = c->arg;

	a->ask.failure = c->failure;
	a->ask.reply = redis_reply_copy(a->arena, c->reply);
	judge(a->link, c->failure);
	wait_done(&a->ask.wait);
}

static struct redis_ask *ask(struct exchange *x, struct redis_link *l)
{
	struct asking *a = NEW(exchange_arena(x), struct asking);

	a->link = l;
	a->arena = exchange_arena(x);
	a->ask.wait.cancel = forget;
	a->ask.command.done = answered;
	a->ask.command.arg = a;
	arena_defer(a->arena, &a->defer, forget_with_exchange);
	if (l->is_down) {
		a->ask.failure = l->failure;
		a->ask.wait.done = true;
	}
	return &a->ask;
}

struct redis_ask *redis_ask(struct exchange *x, const struct redis_config *conf, unsigned argc, const struct str *argv,
			    int key)
{
	struct redis_link *l = link_of(exchange_worker(x), conf);
	struct redis_ask *a = ask(x, l);

	if (!l->is_down)
		redis_send(l->redis, &a->command, &(struct redis_words){ argc, argv, key }, REDIS_TIMEOUT_MS);
	return a;
}

static int find_key(unsigned argc, const struct str *argv)
{
	unsigned at = str_equal_nocase(argv[0], STR("EVAL")) || str_equal_nocase(argv[0], STR("EVALSHA")) ? 3 : 1;

	return at < argc ? (int)at : -1;
}

struct redis_ask *redis_ask_within(struct exchange *x, const struct redis_config *conf, unsigned argc,
				   const struct str *argv, int64_t limit_ms)
{
	struct redis_link *l = link_of(exchange_worker(x), conf);
	struct redis_ask *a = ask(x, l);

	if (!l->is_down)
		redis_send(l->redis, &a->command, &(struct redis_words){ argc, argv, find_key(argc, argv) }, limit_ms);
	return a;
}

/* ---------- telling ---------- */

static void end_tell(struct tell *t, enum redis_failure f, const struct redis_reply *reply)
{
	redis_told *told = t->told;
	void *arg = t->arg;

	list_remove(&t->node);
	mem_free(t);
	if (told)
		told(arg, f, reply);
}

static void tell_answered(struct redis_command *c)
{
	struct tell *t = c->arg;

	judge(t->link, c->failure);
	end_tell(t, c->failure, c->reply);
}

static void tell_failed(struct task *task)
{
	struct tell *t = CONTAINER(task, struct tell, task);

	end_tell(t, t->failure, NULL);
}

void redis_link_tell(struct redis_link *l, const struct redis_words *words, redis_told *told, void *arg)
{
	struct tell *t = MEM_NEW(struct tell);

	t->link = l;
	t->told = told;
	t->arg = arg;
	t->command.done = tell_answered;
	t->command.arg = t;
	task_init(&t->task, tell_failed);
	list_append(&l->tells, &t->node);
	l->used_ms = clock_ms();
	if (l->is_down) {
		t->failure = l->failure;
		loop_defer(worker_loop(l->worker), &t->task);
		return;
	}
	redis_send(l->redis, &t->command, words, REDIS_TIMEOUT_MS);
}

void redis_tell(struct worker *w, const struct redis_config *conf, const struct redis_words *words, redis_told *told,
		void *arg)
{
	redis_link_tell(link_of(w, conf), words, told, arg);
}

/* ---------- users ---------- */

void redis_user_begin(struct redis_user *u, const struct redis_config *conf, struct dependency *d)
{
	u->target = redis_target_new(conf);
	u->dependency = d;
	pthread_mutex_lock(&users.lock);
	list_append(&users.all, &u->node);
	users.n++;
	pthread_mutex_unlock(&users.lock);
}

void redis_user_end(struct redis_user *u)
{
	pthread_mutex_lock(&users.lock);
	list_remove(&u->node);
	users.n--;
	pthread_mutex_unlock(&users.lock);
	redis_target_drop(u->target);
	u->target = NULL;
}

/* Targets of all users, each held. Returns how many. */
static unsigned copy_targets(struct redis_target **out, unsigned most)
{
	unsigned n = 0;

	pthread_mutex_lock(&users.lock);
	LIST_EACH(node, &users.all) {
		struct redis_target *t = CONTAINER(node, struct redis_user, node)->target;
		bool is_there = false;

		for (unsigned i = 0; i < n && !is_there; i++)
			is_there = str_equal(out[i]->key, t->key);
		if (!is_there && n < most)
			out[n++] = redis_target_hold(t);
	}
	pthread_mutex_unlock(&users.lock);
	return n;
}

static void look_after(struct timer *timer)
{
	struct redis_target *targets[LINKS_MAX];
	unsigned n = copy_targets(targets, LINKS_MAX);

	for (unsigned i = 0; i < n; i++) {
		struct redis_link *l = link_to(links.worker, targets[i]);

		if (l->is_down)
			redis_link_report(l);
		else
			ping(l);
		redis_target_drop(targets[i]);
	}
	if (n > 0)
		loop_arm(worker_loop(links.worker), timer, CHECK_MS);
}

void redis_users_tend(struct worker *w)
{
	begin(w);
	links.tick.fire = look_after;
	look_after(&links.tick);
}
