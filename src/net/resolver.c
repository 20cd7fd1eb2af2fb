/*
 * resolver.c -- the only door to c-ares. One channel; its sockets are watched, its timeouts are one timer.
 *
 * c-ares calls back from inside its own functions, where it must not be re-entered or destroyed. So its
 * callbacks only fill entries and move the waiting queries to `answered`; a task calls done() for them
 * later in the turn.
 */
#include "net/resolver.h"
#include <ares.h>
#include <netdb.h>
#include <pthread.h>
#include <sys/epoll.h>
#include "core/clock.h"
#include "core/map.h"
#include "core/mem.h"

enum {
	MIN_TTL_S = 1,
	MAX_TTL_S = 3600,
	STALE_S = 3600,
	RETRY_S = 1,                      /* after a failure or an absence */
	MAX_ENTRIES = 4096,
	ATTEMPT_MS = 2000,
	ATTEMPTS = 2,
};

/* A name. Not asking and in the cache, or asking with queries waiting. */
struct entry {
	struct resolver *resolver;
	struct list used;                 /* resolver.used, the longest unused first */
	struct list waiting;              /* struct resolver_query.node */
	bool is_asking;
	bool is_failing;                  /* the last attempt brought no answer */
	enum resolver_status status;      /* of the last attempt */
	int64_t ask_ms;                   /* when to ask again */
	int64_t stale_until_ms;           /* the addresses may serve so long */
	unsigned n;                       /* 0: no good answer yet, or the name is gone */
	struct ip addresses[RESOLVER_MAX_ADDRESSES];
	struct str name;                  /* lower case, terminated, behind the struct */
};

/* A descriptor of c-ares'. */
struct ares_watch {
	struct watch watch;
	struct list node;
	struct garbage garbage;
	struct resolver *resolver;
};

struct resolver {
	struct loop *loop;
	ares_channel channel;
	struct timer timer;               /* the next timeout of c-ares */
	struct list watches;
	struct map entries;
	struct list used;
	struct list answered;             /* queries whose done() is due */
	struct task deliver;
	bool is_closing;
};

static pthread_once_t library_once = PTHREAD_ONCE_INIT;

static void start_library(void)
{
	BUG_ON(ares_library_init(ARES_LIB_INIT_ALL) != ARES_SUCCESS);
}

/* ---- c-ares on the loop ---- */

static void arm_timer(struct resolver *r)
{
	struct timeval left, *due = ares_timeout(r->channel, NULL, &left);

	if (due)
		loop_arm(r->loop, &r->timer, due->tv_sec * 1000 + (due->tv_usec + 999) / 1000);
	else
		timer_disarm(&r->timer);
}

static void on_timer(struct timer *t)
{
	struct resolver *r = CONTAINER(t, struct resolver, timer);

	ares_process_fd(r->channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
	arm_timer(r);
}

static void on_ready(struct watch *w, uint32_t events)
{
	struct resolver *r = CONTAINER(w, struct ares_watch, watch)->resolver;
	bool broken = events & (EPOLLERR | EPOLLHUP);

	ares_process_fd(r->channel, broken || events & EPOLLIN ? w->fd : ARES_SOCKET_BAD,
		broken || events & EPOLLOUT ? w->fd : ARES_SOCKET_BAD);
	arm_timer(r);
}

static void release_watch(struct garbage *g)
{
	mem_free(CONTAINER(g, struct ares_watch, garbage));
}

static struct ares_watch *find_watch(struct resolver *r, int fd)
{
	LIST_EACH(node, &r->watches) {
		struct ares_watch *w = CONTAINER(node, struct ares_watch, node);

		if (w->watch.fd == fd)
			return w;
	}
	return NULL;
}

/* c-ares wants to read or write, or (neither) is about to close. Level-triggered: it does not read until short. */
static void on_socket_state(void *arg, ares_socket_t fd, int readable, int writable)
{
	struct resolver *r = arg;
	struct ares_watch *w = find_watch(r, fd);
	uint32_t events = (readable ? (uint32_t)EPOLLIN : 0) | (writable ? (uint32_t)EPOLLOUT : 0);

	if (!events) {
		if (!w)
			return;
		loop_remove(r->loop, &w->watch);
		list_remove(&w->node);
		loop_free_later(r->loop, &w->garbage);
		return;
	}
	if (w) {
		BUG_ON(!loop_modify(r->loop, &w->watch, events));
		return;
	}
	w = MEM_NEW(struct ares_watch);
	w->resolver = r;
	w->watch = (struct watch){ .fd = fd, .ready = on_ready };
	w->garbage.release = release_watch;
	list_append(&r->watches, &w->node);
	BUG_ON(!loop_add(r->loop, &w->watch, events));
}

/* ---- entries ---- */

static void free_entry(struct entry *e)
{
	list_remove(&e->used);
	mem_free(e);
}

/* Makes room by forgetting the name that was not asked for longest. Those that are being asked stay. */
static void evict(struct resolver *r)
{
	LIST_EACH(node, &r->used) {
		struct entry *e = CONTAINER(node, struct entry, used);

		if (!e->is_asking) {
			map_remove(&r->entries, e->name);
			free_entry(e);
			return;
		}
	}
}

static struct entry *new_entry(struct resolver *r, struct str name)
{
	struct entry *e;

	if (r->entries.n >= MAX_ENTRIES)
		evict(r);
	e = mem_alloc(sizeof *e + name.n + 1);
	char *copy = (char *)(e + 1);

	memcpy(copy, name.p, name.n);
	e->name = (struct str){ copy, name.n };
	e->resolver = r;
	list_init(&e->waiting);
	list_append(&r->used, &e->used);
	map_put(&r->entries, e->name, e);
	return e;
}

/* The answer as the entry has it: good, stale, or none. */
static void fill(struct resolver_query *q, const struct entry *e)
{
	int64_t left_ms = e->ask_ms - clock_ms();
	bool stale = e->is_failing && e->n && clock_ms() < e->stale_until_ms;

	q->status = stale ? RESOLVER_OK : e->status;
	q->is_stale = stale;
	q->n = q->status == RESOLVER_OK ? e->n : 0;
	q->ttl_s = stale || left_ms < 1000 ? MIN_TTL_S : (unsigned)(left_ms / 1000);
	memcpy(q->addresses, e->addresses, q->n * sizeof q->addresses[0]);
}

static void run_deliver(struct task *t)
{
	struct resolver *r = CONTAINER(t, struct resolver, deliver);
	struct list due;

	/* done() may ask again, which is for a later turn, or cancel its neighbours. */
	list_init(&due);
	while (!list_is_empty(&r->answered)) {
		struct list *node = r->answered.next;

		list_remove(node);
		list_append(&due, node);
	}
	while (!list_is_empty(&due)) {
		struct resolver_query *q = CONTAINER(due.next, struct resolver_query, node);

		list_remove(&q->node);
		q->is_waiting = false;
		q->done(q);
	}
}

/* Addresses of one family, as many as fit. */
static void take_addresses(struct entry *e, const struct ares_addrinfo *info, int family)
{
	for (const struct ares_addrinfo_node *at = info->nodes; at; at = at->ai_next) {
		struct ip *to = &e->addresses[e->n];

		if (at->ai_family != family || e->n == RESOLVER_MAX_ADDRESSES)
			continue;
		*to = (struct ip){ { [10] = 0xff, [11] = 0xff } };
		if (family == AF_INET)
			memcpy(to->bytes + 12, &((const struct sockaddr_in *)(const void *)at->ai_addr)->sin_addr, 4);
		else
			memcpy(to->bytes, &((const struct sockaddr_in6 *)(const void *)at->ai_addr)->sin6_addr, 16);
		e->n++;
	}
}

/* The shortest life on the way to the addresses. Entries of the hosts file have none: 0. */
static int64_t find_ttl_s(const struct ares_addrinfo *info)
{
	int64_t ttl = MAX_TTL_S;

	for (const struct ares_addrinfo_node *at = info->nodes; at; at = at->ai_next)
		ttl = at->ai_ttl < ttl ? at->ai_ttl : ttl;
	for (const struct ares_addrinfo_cname *at = info->cnames; at; at = at->next)
		ttl = at->ttl < ttl ? at->ttl : ttl;
	return ttl < MIN_TTL_S ? MIN_TTL_S : ttl;
}

static void take_answer(struct entry *e, const struct ares_addrinfo *info)
{
	int64_t ttl_s = find_ttl_s(info);

	e->n = 0;
	take_addresses(e, info, AF_INET);
	take_addresses(e, info, AF_INET6);
	e->status = e->n ? RESOLVER_OK : RESOLVER_NOT_FOUND;
	e->is_failing = false;
	e->ask_ms = clock_ms() + ttl_s * 1000;
	e->stale_until_ms = e->ask_ms + STALE_S * 1000;
}

static bool is_absence(int status)
{
	return status == ARES_ENOTFOUND || status == ARES_ENODATA || status == ARES_EBADNAME || status == ARES_ENONAME;
}

static void on_answer(void *arg, int status, int timeouts, struct ares_addrinfo *info)
{
	struct entry *e = arg;
	struct resolver *r = e->resolver;

	(void)timeouts;
	if (r->is_closing) {
		ares_freeaddrinfo(info);
		return;
	}
	e->is_asking = false;
	if (status == ARES_SUCCESS && info) {
		take_answer(e, info);
	} else {
		e->is_failing = !is_absence(status);
		e->status = e->is_failing ? RESOLVER_FAILED : RESOLVER_NOT_FOUND;
		e->ask_ms = clock_ms() + RETRY_S * 1000;
		if (!e->is_failing)
			e->n = 0;
	}
	ares_freeaddrinfo(info);
	while (!list_is_empty(&e->waiting)) {
		struct resolver_query *q = CONTAINER(e->waiting.next, struct resolver_query, node);

		fill(q, e);
		list_remove(&q->node);
		list_append(&r->answered, &q->node);
		loop_defer(r->loop, &r->deliver);
	}
}

static void ask(struct resolver *r, struct entry *e)
{
	const struct ares_addrinfo_hints hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM,
		.ai_flags = ARES_AI_NOSORT };

	e->is_asking = true;
	ares_getaddrinfo(r->channel, e->name.p, NULL, &hints, on_answer, e);
	arm_timer(r);
}

/* ---- asking ---- */

static void answer_at_once(struct resolver_query *q, enum resolver_status status)
{
	q->status = status;
	q->is_stale = false;
	q->n = status == RESOLVER_OK ? 1 : 0;
	q->ttl_s = status == RESOLVER_OK ? MAX_TTL_S : MIN_TTL_S;
}

/* Lower case into `out`; false for what cannot be a name. */
static bool normalise(struct str host, char out[RESOLVER_MAX_NAME + 1])
{
	if (host.n == 0 || host.n > RESOLVER_MAX_NAME)
		return false;
	for (size_t i = 0; i < host.n; i++) {
		char c = str_lower(host.p[i]);

		if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_'))
			return false;
		out[i] = c;
	}
	out[host.n] = '\0';
	return true;
}

/*
 * "localhost" and what ends in ".localhost". RFC 6761 keeps them from the servers, and a bare system has no hosts
 * file.
 */
static bool is_local(struct str name)
{
	const struct str local = STR("localhost");

	if (name.n > 0 && name.p[name.n - 1] == '.')
		name.n--;
	if (name.n < local.n || memcmp(name.p + name.n - local.n, local.p, local.n) != 0)
		return false;
	return name.n == local.n || name.p[name.n - local.n - 1] == '.';
}

static void answer_local(struct resolver_query *q)
{
	answer_at_once(q, RESOLVER_OK);
	BUG_ON(!ip_parse(STR("127.0.0.1"), &q->addresses[0]) || !ip_parse(STR("::1"), &q->addresses[1]));
	q->n = 2;
}

bool resolver_lookup(struct resolver *r, struct str host, struct resolver_query *q)
{
	char name[RESOLVER_MAX_NAME + 1];
	struct str key = { name, host.n };
	struct entry *e;

	BUG_ON(!q->done || q->is_waiting);
	if (ip_parse(host, &q->addresses[0])) {
		answer_at_once(q, RESOLVER_OK);
		return true;
	}
	if (!normalise(host, name)) {
		answer_at_once(q, RESOLVER_NOT_FOUND);
		return true;
	}
	if (is_local(key)) {
		answer_local(q);
		return true;
	}
	e = map_get(&r->entries, key);
	if (!e)
		e = new_entry(r, key);
	list_remove(&e->used);
	list_append(&r->used, &e->used);
	if (!e->is_asking && clock_ms() >= e->ask_ms)
		ask(r, e);
	/* While the servers are known to fail nobody waits for them. */
	if (!e->is_asking || (e->is_failing && e->n && clock_ms() < e->stale_until_ms)) {
		fill(q, e);
		return true;
	}
	q->is_waiting = true;
	list_init(&q->node);
	list_append(&e->waiting, &q->node);
	return false;
}

void resolver_cancel(struct resolver_query *q)
{
	if (!q->is_waiting)
		return;
	list_remove(&q->node);
	q->is_waiting = false;
}

unsigned resolver_cached(const struct resolver *r)
{
	return (unsigned)r->entries.n;
}

struct resolver *resolver_new(struct loop *l, const char *servers, unsigned attempt_ms)
{
	struct resolver *r = MEM_NEW(struct resolver);
	struct ares_options options = {
		.timeout = attempt_ms ? (int)attempt_ms : ATTEMPT_MS,
		.tries = ATTEMPTS,
		.lookups = (char[]){ "fb" },  /* the hosts file first */
		.sock_state_cb = on_socket_state,
		.sock_state_cb_data = r,
	};

	pthread_once(&library_once, start_library);
	r->loop = l;
	list_init(&r->watches);
	list_init(&r->used);
	list_init(&r->answered);
	task_init(&r->deliver, run_deliver);
	timer_init(&r->timer, on_timer);
	BUG_ON(ares_init_options(&r->channel, &options, ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_LOOKUPS |
		ARES_OPT_SOCK_STATE_CB) != ARES_SUCCESS);
	if (servers && ares_set_servers_ports_csv(r->channel, servers) != ARES_SUCCESS) {
		resolver_free(r);
		return NULL;
	}
	return r;
}

/* Queries outlive us with their owners: none may keep a link into what goes. */
static void drop_queries(struct list *queries)
{
	while (!list_is_empty(queries))
		resolver_cancel(CONTAINER(queries->next, struct resolver_query, node));
}

void resolver_free(struct resolver *r)
{
	struct map_entry *at;

	if (!r)
		return;
	r->is_closing = true;
	ares_destroy(r->channel);
	timer_disarm(&r->timer);
	list_remove(&r->deliver.node);
	drop_queries(&r->answered);
	for (size_t i = 0; (at = map_next(&r->entries, &i));) {
		struct entry *e = at->value;

		drop_queries(&e->waiting);
		free_entry(e);
	}
	map_free(&r->entries);
	mem_free(r);
}
