#include "policy/token_ledger.h"
#include <stdatomic.h>
#include <stdio.h>
#include "core/clock.h"
#include "core/log.h"
#include "core/map.h"
#include "core/mem.h"
#include "policy/token_nodes.h"
#include "policy/token_scripts.h"
#include "proxy/side_call.h"
#include "proxy/worker.h"

enum {
	RETRY_MS = 1000,                  /* charges that failed while Redis answers others */
	LOG_MS = 10000,
	SERVER_IDLE_MS = 60000,
	PATIENCE_MS = 500,                /* of askers, beyond what the ledger waits */
};

struct ledger_entry {
	struct list recent, owing;
	struct str key;
	int64_t known, flying, owed, held;
	int64_t until_ms, window_s;       /* until_ms: 0 = no window is open */
	unsigned users;                   /* tickets and retries under way */
	struct ledger_server *server;     /* whom it is owed to */
	char text[];
};

struct ledger_server {
	struct list node;
	struct redis_watch watch;
	struct redis_target *target;
	struct timer retry;
	unsigned users;                   /* tickets and retries */
	bool is_slow;                     /* a check took too long: nobody waits before a PING does not */
	bool is_probed;
	int64_t probed_us, wait_ms;
	unsigned owing;                   /* entries */
	bool knows[TOKEN_SCRIPTS];
	int64_t used_ms, logged_ms;
	struct token_nodes nodes;
};

#define USED_MAX (INT64_C(1) << 54)       /* more than any threshold */

static const char slow_text[] = "it is slow";

/* Worker 0's own, but for `owner`. */
static struct {
	_Atomic(struct worker *) owner;
	struct worker *worker;
	struct map entries;
	struct list recent, owing, servers, tickets, retries;
	struct worker_end end;
	struct series *degraded, *dropped;
	char name[17];                    /* of this process, among those that share a Redis */
} ledger;

/* ---------- budgets ---------- */

static void drop_entry(struct ledger_entry *e)
{
	map_remove(&ledger.entries, e->key);
	list_remove(&e->recent);
	list_remove(&e->owing);
	mem_free(e);
}

/* A few of the oldest that nothing depends on. */
static void make_room(void)
{
	unsigned looked = 0;

	if (ledger.entries.n < TOKEN_LEDGER_MAX)
		return;
	LIST_EACH(node, &ledger.recent) {
		struct ledger_entry *e = CONTAINER(node, struct ledger_entry, recent);

		if (looked++ == 16)
			return;
		if (e->users == 0 && e->owed == 0)
			drop_entry(e);
	}
}

static struct ledger_entry *get_entry(struct str key, int64_t window_s)
{
	struct ledger_entry *e = map_get(&ledger.entries, key);

	if (!e) {
		make_room();
		e = mem_alloc(sizeof *e + key.n);
		str_put(e->text, key);
		e->key = (struct str){ e->text, key.n };
		list_init(&e->recent);
		list_init(&e->owing);
		map_put(&ledger.entries, e->key, e);
	}
	e->window_s = window_s;
	list_remove(&e->recent);
	list_append(&ledger.recent, &e->recent);
	return e;
}

static void count_dropped(int64_t n)
{
	metric_add(ledger.dropped, n);
}

static void owe_nothing(struct ledger_entry *e)
{
	e->owed = 0;
	e->server->owing--;
	e->server = NULL;
	list_remove(&e->owing);
}

/* The window that is over took with it what was used, and what is owed of it. */
static void roll(struct ledger_entry *e)
{
	if (e->until_ms == 0 || clock_ms() < e->until_ms)
		return;
	e->known = e->until_ms = 0;
	if (e->owed == 0)
		return;
	owe_nothing(e);
	count_dropped(1);
}

static void open_window(struct ledger_entry *e)
{
	if (e->until_ms == 0)
		e->until_ms = clock_ms() + e->window_s * 1000;
}

/*
 * While Redis cannot be asked each process has its share of what is left: what it counts for itself, the others are
 * taken to count too.
 */
static int64_t used_of(const struct ledger_entry *e, int64_t nodes)
{
	int64_t own = e->flying + e->owed + e->held, used;

	if (own > 0)
		own = own < USED_MAX / nodes ? own * nodes : USED_MAX;
	used = e->known + own;
	return used > 0 ? used : 0;
}

/* What Redis says. */
static void learn(struct ledger_entry *e, int64_t used, int64_t left_ms)
{
	e->known = used;
	e->until_ms = left_ms > 0 ? clock_ms() + left_ms : 0;
}

static void owe(struct ledger_entry *e, struct ledger_server *s, int64_t n)
{
	roll(e);
	open_window(e);
	if (e->owed == 0) {
		e->server = s;
		s->owing++;
		list_append(&ledger.owing, &e->owing);
	}
	e->owed += n;
	if (e->owed == 0)
		owe_nothing(e);
}

/* ---------- servers ---------- */

static bool is_up(const struct ledger_server *s)
{
	return s->watch.link && redis_link_is_up(s->watch.link);
}

static void drop_server(struct ledger_server *s)
{
	redis_watch_end(&s->watch);
	timer_disarm(&s->retry);
	list_remove(&s->node);
	redis_target_drop(s->target);
	mem_free(s);
}

static void drop_unused_servers(void)
{
	LIST_EACH(node, &ledger.servers) {
		struct ledger_server *s = CONTAINER(node, struct ledger_server, node);

		if (s->users == 0 && s->owing == 0 && clock_ms() > s->used_ms + SERVER_IDLE_MS)
			drop_server(s);
	}
}

static void pay_debts(struct timer *t);

static void changed(struct redis_watch *w, bool up)
{
	struct ledger_server *s = CONTAINER(w, struct ledger_server, watch);

	s->is_slow = false;
	if (up && s->owing > 0)
		pay_debts(&s->retry);
}

static struct ledger_server *get_server(struct redis_target *t)
{
	struct ledger_server *s;

	LIST_EACH(node, &ledger.servers) {
		s = CONTAINER(node, struct ledger_server, node);
		if (redis_target_is(s->target, t))
			return s;
	}
	drop_unused_servers();
	s = MEM_NEW(struct ledger_server);
	s->target = redis_target_hold(t);
	s->nodes.users = &s->users;
	s->watch.changed = changed;
	timer_init(&s->retry, pay_debts);
	redis_watch_begin(&s->watch, ledger.worker, t);
	list_append(&ledger.servers, &s->node);
	return s;
}

static void log_degraded(struct ledger_server *s, const char *why)
{
	if (s->logged_ms && clock_ms() < s->logged_ms + LOG_MS)
		return;
	s->logged_ms = clock_ms();
	log_warn("token_limit.degraded", F_STR("host", redis_target_host(s->target)), F_TEXT("why", why),
		 F_TEXT("effect", "this process counts alone"));
}

/* ---------- scripts ---------- */

static struct script_call begin_call(const struct ledger_server *s, enum token_script which, bool is_whole, unsigned n)
{
	return script_call_begin(which, is_whole || !s->knows[which], n);
}

static void send_call(struct ledger_server *s, struct script_call *c, redis_told *told, void *arg)
{
	s->used_ms = clock_ms();
	script_call_send(c, s->watch.link, told, arg);
}

/* ---------- what is owed ---------- */

struct retry {
	struct list node;                 /* in ledger.retries */
	struct ledger_entry *entry;
	struct ledger_server *server;
	int64_t amount;
};

static void paid(void *arg, enum redis_failure f, const struct redis_reply *reply)
{
	struct retry *r = arg;

	r->entry->users--;
	r->server->users--;
	r->entry->flying -= r->amount;
	if (script_has_numbers(f, reply, 2)) {
		learn(r->entry, reply->items[0].integer, reply->items[1].integer);
	} else {
		roll(r->entry);
		r->entry->known += r->amount;
		count_dropped(1);
	}
	list_remove(&r->node);
	mem_free(r);
}

static void pay(struct ledger_server *s, struct ledger_entry *e)
{
	struct script_call c = begin_call(s, TOKEN_CHARGE, true, 1);
	struct retry *r = MEM_NEW(struct retry);

	r->entry = e;
	r->server = s;
	r->amount = e->owed;
	list_append(&ledger.retries, &r->node);
	e->users++;
	s->users++;
	e->flying += e->owed;
	owe_nothing(e);
	script_call_put(&c, e->key);
	script_call_put_number(&c, r->amount);
	script_call_put_number(&c, 0);
	script_call_put_number(&c, e->window_s);
	script_call_put_number(&c, 0);
	send_call(s, &c, paid, r);
}

static void pay_debts(struct timer *t)
{
	struct ledger_server *s = CONTAINER(t, struct ledger_server, retry);

	if (!is_up(s))
		return;                    /* `changed` comes */
	LIST_EACH(node, &ledger.owing) {
		struct ledger_entry *e = CONTAINER(node, struct ledger_entry, owing);

		if (e->server != s)
			continue;
		roll(e);
		if (e->owed != 0)
			pay(s, e);
	}
}

/* ---------- tickets ---------- */

static void come_home(struct post *p);

static void free_ticket(struct token_ticket *t)
{
	timer_disarm(&t->limit);
	list_remove(&t->node);
	for (unsigned i = 0; t->server && i < t->n; i++)
		t->budgets[i].entry->users--;
	if (t->server)
		t->server->users--;
	redis_target_drop(t->target);
	mem_free(t);
}

static void send_home(struct token_ticket *t, unsigned refused_by)
{
	t->is_answered = true;
	t->refused_by = refused_by;
	t->answer = refused_by < t->n ? TICKET_REFUSED : TICKET_ADMITTED;
	timer_disarm(&t->limit);
	t->post.run = come_home;
	if (t->home == ledger.worker)
		come_home(&t->post);
	else
		loop_post(worker_loop(t->home), &t->post);
}

/* By what is known here, with the same rules. */
static void judge_alone(struct token_ticket *t, const char *why)
{
	unsigned refused_by = t->n;

	for (unsigned i = 0; i < t->n; i++) {
		struct token_budget *b = &t->budgets[i];

		roll(b->entry);
		b->used = used_of(b->entry, token_nodes_known(&t->server->nodes));
		b->left_ms = b->entry->until_ms ? b->entry->until_ms - clock_ms() : -1;
		if (refused_by == t->n && b->used >= b->threshold)
			refused_by = i;
	}
	t->holds = refused_by == t->n && t->reserve > 0;
	for (unsigned i = 0; t->holds && i < t->n; i++) {
		open_window(t->budgets[i].entry);
		t->budgets[i].entry->held += t->reserve;
	}
	t->is_degraded = true;
	t->error = why;
	metric_add(ledger.degraded, 1);
	log_degraded(t->server, why ? why : "it cannot be used");
	send_home(t, refused_by);
}

static void stop_holding(struct token_ticket *t)
{
	for (unsigned i = 0; t->holds && i < t->n; i++)
		t->budgets[i].entry->held -= t->reserve;
	t->holds = false;
}

static void settle(struct token_ticket *t);
static void checked(void *arg, enum redis_failure f, const struct redis_reply *reply);

static void check(struct token_ticket *t, bool is_whole)
{
	struct script_call c = begin_call(t->server, TOKEN_CHECK, is_whole, t->n);

	for (unsigned i = 0; i < t->n; i++)
		script_call_put(&c, t->budgets[i].key);
	script_call_put_number(&c, t->reserve);
	for (unsigned i = 0; i < t->n; i++) {
		struct ledger_entry *e = t->budgets[i].entry;

		roll(e);
		script_call_put_number(&c, t->budgets[i].threshold);
		script_call_put_number(&c, t->budgets[i].window_s);
		script_call_put_number(&c, e->held + e->owed);
	}
	t->is_asking = true;
	send_call(t->server, &c, checked, t);
}

/* What Redis found and, when it admits, reserved. */
static void take_numbers(struct token_ticket *t, const struct redis_reply *reply)
{
	bool is_admitted = reply->items[0].integer == 0;

	t->reserved = is_admitted ? t->reserve : 0;
	if (t->reserved > 0)
		stop_holding(t);
	for (unsigned i = 0; i < t->n; i++) {
		struct token_budget *b = &t->budgets[i];
		int64_t used = reply->items[1 + 2 * i].integer, left_ms = reply->items[2 + 2 * i].integer;

		if (!t->is_answered) {
			b->used = used + b->entry->held + b->entry->owed;
			b->left_ms = left_ms > 0 ? left_ms : -1;
		}
		if (left_ms < 0 && t->reserved > 0)
			left_ms = b->window_s * 1000;
		learn(b->entry, used + t->reserved, left_ms);
		b->until_ms = b->entry->until_ms;
	}
}

static void checked(void *arg, enum redis_failure f, const struct redis_reply *reply)
{
	struct token_ticket *t = arg;

	if (script_is_unknown(f, reply) && !t->was_repeated) {
		t->was_repeated = true;
		t->server->knows[TOKEN_CHECK] = false;
		check(t, true);
		return;
	}
	t->is_asking = false;
	t->was_repeated = false;
	if (script_has_numbers(f, reply, 1 + 2 * (size_t)t->n)) {
		int64_t no = reply->items[0].integer;

		t->server->knows[TOKEN_CHECK] = true;
		take_numbers(t, reply);
		if (!t->is_answered)
			send_home(t, no > 0 && no <= t->n ? (unsigned)no - 1 : t->n);
	} else if (!t->is_answered) {
		judge_alone(t, f == REDIS_DONE || f == REDIS_BUSY ? script_trouble(f, reply) : NULL);
	}
	if (t->is_settling)
		settle(t);
}

/* This request waits no longer, and others do not before it is quick again. */
static void out_of_time(struct timer *timer)
{
	struct token_ticket *t = CONTAINER(timer, struct token_ticket, limit);

	t->server->is_slow = true;
	t->server->wait_ms = t->wait_ms;
	judge_alone(t, slow_text);
}

static void probed(void *arg, enum redis_failure f, const struct redis_reply *reply)
{
	struct ledger_server *s = arg;

	(void)reply;
	s->users--;
	s->is_probed = false;
	if (f != REDIS_DONE || clock_us() - s->probed_us > s->wait_ms * 1000)
		return;
	s->is_slow = false;
	redis_link_report(s->watch.link);
}

/* One at a time, and only while there are requests. */
static void probe(struct ledger_server *s)
{
	static const struct str ping = { "PING", 4 };

	if (s->is_probed)
		return;
	s->is_probed = true;
	s->probed_us = clock_us();
	s->users++;
	redis_link_tell(s->watch.link, &(struct redis_words){ 1, &ping, -1 }, probed, s);
}

static void take_ticket(struct token_ticket *t)
{
	struct ledger_server *s = get_server(t->target);

	list_append(&ledger.tickets, &t->node);
	t->server = s;
	s->users++;
	for (unsigned i = 0; i < t->n; i++) {
		t->budgets[i].entry = get_entry(t->budgets[i].key, t->budgets[i].window_s);
		t->budgets[i].entry->users++;
	}
	if (!is_up(s)) {
		judge_alone(t, NULL);
	} else if (s->is_slow) {
		probe(s);
		judge_alone(t, slow_text);
	} else {
		loop_arm(worker_loop(ledger.worker), &t->limit, t->wait_ms);
		check(t, false);
		token_nodes_tell(&s->nodes, s->watch.link, str_of(ledger.name));
	}
}

/* ---------- charges ---------- */

static void charged(void *arg, enum redis_failure f, const struct redis_reply *reply);

static void charge(struct token_ticket *t, bool is_whole)
{
	struct script_call c = begin_call(t->server, TOKEN_CHARGE, is_whole, t->n);

	for (unsigned i = 0; i < t->n; i++)
		script_call_put(&c, t->budgets[i].key);
	script_call_put_number(&c, t->cost);
	script_call_put_number(&c, t->reserved);
	for (unsigned i = 0; i < t->n; i++) {
		script_call_put_number(&c, t->budgets[i].window_s);
		script_call_put_number(&c, t->budgets[i].until_ms - clock_ms());
	}
	send_call(t->server, &c, charged, t);
}

/* Of a command that took too long nobody knows whether it was done: it is not told again. */
static void fail_charge(struct token_ticket *t, enum redis_failure f)
{
	int64_t amount = t->cost - t->reserved;
	bool is_lost = f == REDIS_TIMEOUT;

	for (unsigned i = 0; i < t->n; i++) {
		struct ledger_entry *e = t->budgets[i].entry;

		if (is_lost) {
			roll(e);
			open_window(e);
			e->known += amount;
			count_dropped(1);
		} else {
			owe(e, t->server, amount);
		}
	}
	if (!is_lost && is_up(t->server))
		loop_arm(worker_loop(ledger.worker), &t->server->retry, RETRY_MS);
}

static void charged(void *arg, enum redis_failure f, const struct redis_reply *reply)
{
	struct token_ticket *t = arg;
	int64_t amount = t->cost - t->reserved;

	if (script_is_unknown(f, reply) && !t->was_repeated) {
		t->was_repeated = true;
		t->server->knows[TOKEN_CHARGE] = false;
		charge(t, true);
		return;
	}
	for (unsigned i = 0; i < t->n; i++)
		t->budgets[i].entry->flying -= amount;
	if (script_has_numbers(f, reply, 2 * (size_t)t->n)) {
		t->server->knows[TOKEN_CHARGE] = true;
		for (unsigned i = 0; i < t->n; i++)
			learn(t->budgets[i].entry, reply->items[2 * i].integer, reply->items[2 * i + 1].integer);
	} else {
		log_degraded(t->server, script_trouble(f, reply));
		fail_charge(t, f);
	}
	free_ticket(t);
}

static void settle(struct token_ticket *t)
{
	int64_t amount = t->cost - t->reserved;

	stop_holding(t);
	if (amount == 0) {
		free_ticket(t);
	} else if (is_up(t->server)) {
		for (unsigned i = 0; i < t->n; i++) {
			roll(t->budgets[i].entry);
			open_window(t->budgets[i].entry);
			t->budgets[i].entry->flying += amount;
		}
		charge(t, false);
	} else {
		fail_charge(t, REDIS_CONNECT);
		free_ticket(t);
	}
}

/* ---------- both sides ---------- */

static void take_post(struct post *p)
{
	take_ticket(CONTAINER(p, struct token_ticket, post));
}

static void settle_post(struct post *p)
{
	struct token_ticket *t = CONTAINER(p, struct token_ticket, post);

	if (t->is_asking)
		t->is_settling = true;
	else
		settle(t);
}

static void send_away(struct token_ticket *t, void (*run)(struct post *p))
{
	struct worker *owner = atomic_load_explicit(&ledger.owner, memory_order_acquire);

	t->post.run = run;
	if (!owner)
		return;                    /* the process ends; the ledger frees it */
	if (t->home == owner)
		run(&t->post);
	else
		loop_post(worker_loop(owner), &t->post);
}

/* On the asker's worker. */
static void come_home(struct post *p)
{
	struct token_ticket *t = CONTAINER(p, struct token_ticket, post);
	struct token_asker *a = t->asker;

	if (!a) {
		send_away(t, settle_post);
		return;
	}
	a->is_away = false;
	timer_disarm(&a->limit);
	if (!a->is_late)
		wait_done(&a->wait);
}

static void stop_waiting(struct wait *w)
{
	struct token_asker *a = CONTAINER(w, struct token_asker, wait);

	timer_disarm(&a->limit);
	a->is_late = true;
}

/* Worker 0 is busy: the request goes on as if admitted, and is charged all the same. */
static void go_without(struct timer *timer)
{
	struct token_asker *a = CONTAINER(timer, struct token_asker, limit);

	a->is_late = true;
	wait_done(&a->wait);
}

static void leave(struct arena_defer *d)
{
	struct token_asker *a = CONTAINER(d, struct token_asker, defer);

	timer_disarm(&a->limit);
	token_ticket_settle(a, 0);
}

struct token_ticket *token_ticket_new(struct redis_target *target, unsigned n, const struct token_budget *budgets)
{
	size_t bytes = 0;
	struct token_ticket *t;
	char *at;

	for (unsigned i = 0; i < n; i++)
		bytes += budgets[i].key.n;
	t = mem_alloc(sizeof *t + n * sizeof *budgets + bytes);
	at = (char *)&t->budgets[n];
	t->target = redis_target_hold(target);
	t->n = n;
	list_init(&t->node);
	timer_init(&t->limit, out_of_time);
	for (unsigned i = 0; i < n; i++) {
		t->budgets[i] = budgets[i];
		t->budgets[i].key.p = at;
		at = str_put(at, budgets[i].key);
	}
	return t;
}

void token_ticket_ask(struct exchange *x, struct token_asker *a, struct token_ticket *t)
{
	struct worker *owner = atomic_load_explicit(&ledger.owner, memory_order_acquire);

	t->home = exchange_worker(x);
	t->asker = a;
	a->wait = (struct wait){ .cancel = stop_waiting };
	timer_init(&a->limit, go_without);
	if (!owner) {
		free_ticket(t);
		a->is_over = a->wait.done = true;
		return;
	}
	a->ticket = t;
	a->is_away = true;
	arena_defer(exchange_arena(x), &a->defer, leave);
	if (t->home != owner)
		loop_arm(worker_loop(t->home), &a->limit, t->wait_ms + PATIENCE_MS);
	send_away(t, take_post);
}

void token_ticket_settle(struct token_asker *a, int64_t cost)
{
	struct token_ticket *t = a->ticket;

	if (a->is_over)
		return;
	a->is_over = true;
	a->ticket = NULL;
	if (!t)
		return;
	t->asker = NULL;
	t->cost = cost;
	if (!a->is_away)
		send_away(t, settle_post);
}

/* ---------- life ---------- */

static void free_ledger(struct worker_end *e)
{
	struct map_entry *entry;

	(void)e;
	atomic_store_explicit(&ledger.owner, NULL, memory_order_release);
	LIST_EACH(node, &ledger.tickets)
		free_ticket(CONTAINER(node, struct token_ticket, node));
	LIST_EACH(at, &ledger.retries)
		mem_free(CONTAINER(at, struct retry, node));
	for (size_t i = 0; (entry = map_next(&ledger.entries, &i)); i = 0)
		drop_entry(entry->value);
	map_free(&ledger.entries);
	LIST_EACH(node, &ledger.servers)
		drop_server(CONTAINER(node, struct ledger_server, node));
	ledger.worker = NULL;
}

void token_ledger_metrics(void)
{
	if (ledger.degraded)
		return;
	ledger.degraded = metric_series(METRIC_TOKEN_LIMIT_DEGRADED, NULL);
	ledger.dropped = metric_series(METRIC_TOKEN_CHARGES_DROPPED, NULL);
}

void token_ledger_tend(struct worker *w)
{
	redis_users_tend(w);
	if (ledger.worker)
		return;
	list_init(&ledger.recent);
	list_init(&ledger.owing);
	list_init(&ledger.servers);
	list_init(&ledger.tickets);
	list_init(&ledger.retries);
	snprintf(ledger.name, sizeof ledger.name, "%016llx", (unsigned long long)worker_random64(w));
	ledger.worker = w;
	worker_at_end(w, &ledger.end, free_ledger);
	atomic_store_explicit(&ledger.owner, w, memory_order_release);
}
