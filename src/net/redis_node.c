/* redis_node.c -- the connection to one Redis server: name, connect, TLS, greeting, bytes. */
#include <errno.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <unistd.h>
#include "core/budget.h"
#include "core/clock.h"
#include "core/mem.h"
#include "net/descriptor.h"
#include "net/listener.h"
#include "net/redis_parts.h"
#include "net/tls_client.h"

enum {
	READS_PER_TURN = 16,
	READ_BYTES = 16 * 1024,
	READ_BYTES_MAX = 1024 * 1024,
	KEPT_BYTES = 64 * 1024,           /* of buffers that are empty */
	STALL_MS = 3000,                  /* commands are under way and nothing comes */
};

static void try_address(struct redis_node *n);

/* ---------- the end of a connection ---------- */

static void trim(struct sbuf *b, size_t most, bool counts)
{
	if (b->cap <= most)
		return;
	if (counts)
		budget_add(-(int64_t)b->cap);
	sbuf_free(b);
}

static void drop_socket(struct redis_node *n)
{
	if (n->watch.fd < 0)
		return;
	loop_forget(n->redis->loop, &n->watch);
	transport_free(&n->transport);
	close(n->watch.fd);
	n->watch.fd = n->transport.fd = -1;
}

static void jobs_over(struct list *jobs, enum redis_failure f)
{
	while (!list_is_empty(jobs))
		redis_job_over(CONTAINER(jobs->next, struct redis_job, node), f);
}

void redis_node_close(struct redis_node *n, enum redis_failure f)
{
	resolver_cancel(&n->query);
	timer_disarm(&n->timer);
	list_remove(&n->task.node);
	drop_socket(n);
	n->state = NODE_OFF;
	n->is_readable = n->is_eof = false;
	n->redis->unsent -= n->out.n - n->out_at;
	n->out.n = n->out_at = 0;
	trim(&n->out, 0, false);
	jobs_over(&n->sent, f);
	jobs_over(&n->waiting, f);
}

/* No connection came about: the next try has to wait. */
static void give_up(struct redis_node *n, enum redis_failure f, const char *why)
{
	struct redis *r = n->redis;

	snprintf(r->trouble, sizeof r->trouble, "%.*s:%u: %s", (int)(n->host.n < 80 ? n->host.n : 80), n->host.p,
		 n->port, why);
	n->backoff_ms = n->backoff_ms ? n->backoff_ms * 2 : REDIS_BACKOFF_MS;
	if (n->backoff_ms > REDIS_BACKOFF_MAX_MS)
		n->backoff_ms = REDIS_BACKOFF_MAX_MS;
	n->retry_ms = clock_ms() + n->backoff_ms;
	n->failure = (uint8_t)f;
	/* Of a server that does not know HELLO, or a proxy: the next time without, and then with it again. */
	if (n->state == NODE_GREETING && f == REDIS_CLOSED)
		r->skips_hello = !r->skips_hello && n->greeting == GREET_HELLO;
	redis_forget_slots(r, n);
	redis_node_close(n, f == REDIS_CLOSED ? REDIS_CONNECT : f);
}

static void lose(struct redis_node *n, enum redis_failure f, const char *why)
{
	if (n->state == NODE_READY)
		redis_node_close(n, f);
	else
		give_up(n, f, why);
}

static void tend(struct timer *t)
{
	struct redis_node *n = CONTAINER(t, struct redis_node, timer);
	int64_t idle_ms = n->redis->options.idle_ms, limit_ms;

	if (n->state < NODE_READY)
		limit_ms = n->redis->options.connect_timeout_ms;
	else
		limit_ms = list_is_empty(&n->sent) ? idle_ms : STALL_MS;
	if (limit_ms == 0)
		return;
	if (clock_ms() < n->since_ms + limit_ms)
		loop_arm(n->redis->loop, t, n->since_ms + limit_ms - clock_ms());
	else if (n->state < NODE_READY)
		give_up(n, REDIS_CONNECT, "no connection within the time for it");
	else
		redis_node_close(n, REDIS_TIMEOUT);
}

/* ---------- sending ---------- */

void redis_node_flush(struct redis_node *n)
{
	while (n->state >= NODE_GREETING && n->out_at < n->out.n) {
		struct iovec part = { n->out.p + n->out_at, n->out.n - n->out_at };
		ssize_t sent = transport_send(&n->transport, &part, 1);

		if (sent < 0 && errno != EAGAIN)
			lose(n, REDIS_CLOSED, "it closed the connection");
		if (sent <= 0)
			return;
		n->out_at += (size_t)sent;
		n->redis->unsent -= (size_t)sent;
	}
	if (n->out.n == 0)
		return;
	if (n->state == NODE_GREETING)
		mem_wipe(n->out.p, n->out.n);
	n->out.n = n->out_at = 0;
	trim(&n->out, KEPT_BYTES, false);
}

static void add_out(struct redis_node *n, struct str bytes)
{
	sbuf_add(&n->out, bytes);
	n->redis->unsent += bytes.n;
	loop_defer(n->redis->loop, &n->task);
}

static void write_job(struct redis_node *n, struct redis_job *j)
{
	if (list_is_empty(&n->sent)) {
		n->since_ms = clock_ms();
		loop_arm(n->redis->loop, &n->timer, STALL_MS);
	}
	if (j->place == JOB_WAITING)
		n->redis->unsent -= j->n;
	list_remove(&j->node);
	list_append(&n->sent, &j->node);
	j->place = JOB_SENT;
	if (j->is_asking)
		add_out(n, STR("*1\r\n$6\r\nASKING\r\n"));
	add_out(n, (struct str){ j->wire, j->n });
}

static void open_node(struct redis_node *n);

bool redis_node_may_open(const struct redis_node *n)
{
	return n->state != NODE_OFF || clock_ms() >= n->retry_ms;
}

void redis_node_send(struct redis_node *n, struct redis_job *j)
{
	if (n->state == NODE_READY) {
		write_job(n, j);
		return;
	}
	if (!redis_node_may_open(n)) {
		redis_job_over(j, n->failure == REDIS_AUTH ? REDIS_AUTH : REDIS_CONNECT);
		return;
	}
	j->place = JOB_WAITING;
	n->redis->unsent += j->n;
	list_append(&n->waiting, &j->node);
	if (n->state == NODE_OFF)
		open_node(n);
}

/* ---------- greeting ---------- */

static void put_command(struct redis_node *n, unsigned argc, const struct str *argv)
{
	struct sbuf b = { 0 };

	sbuf_addf(&b, "*%u\r\n", argc);
	for (unsigned i = 0; i < argc; i++) {
		sbuf_addf(&b, "$%zu\r\n", argv[i].n);
		sbuf_add(&b, argv[i]);
		SBUF_LIT(&b, "\r\n");
	}
	add_out(n, sbuf_str(&b));
	mem_wipe(b.p, b.n);
	sbuf_free(&b);
}

static bool has_credentials(const struct redis_options *o)
{
	return o->username.n > 0 || o->password.n > 0;
}

static void greet(struct redis_node *n, enum greeting step)
{
	const struct redis_options *o = &n->redis->options;
	struct str user = o->username.n ? o->username : STR("default");
	char digits[STR_DIGITS];

	n->greeting = (uint8_t)step;
	if (step == GREET_HELLO) {
		struct str words[] = { STR("HELLO"), STR("3"), STR("AUTH"), user, o->password };

		put_command(n, has_credentials(o) ? 5 : 2, words);
	} else if (step == GREET_AUTH) {
		struct str words[] = { STR("AUTH"), o->username.n ? user : o->password, o->password };

		put_command(n, o->username.n ? 3 : 2, words);
	} else {
		struct str words[] = { STR("SELECT"), { digits, (size_t)(str_put_u64(digits, o->database) - digits) } };

		put_command(n, 2, words);
	}
}

static void be_ready(struct redis_node *n)
{
	n->state = NODE_READY;
	n->backoff_ms = n->retry_ms = 0;
	n->since_ms = clock_ms();
	n->redis->trouble[0] = '\0';
	loop_arm(n->redis->loop, &n->timer, STALL_MS);
	while (!list_is_empty(&n->waiting))
		write_job(n, CONTAINER(n->waiting.next, struct redis_job, node));
}

static void go_on(struct redis_node *n, bool is_known)
{
	const struct redis_options *o = &n->redis->options;

	if (!is_known && has_credentials(o))
		greet(n, GREET_AUTH);
	else if (n->greeting != GREET_SELECT && o->database > 0)
		greet(n, GREET_SELECT);
	else
		be_ready(n);
}

static void begin_greeting(struct redis_node *n)
{
	n->state = NODE_GREETING;
	n->scan = (struct redis_scan){ 0 };
	n->in.n = 0;
	n->greeting = GREET_HELLO;
	if (n->redis->skips_hello)
		go_on(n, false);
	else
		greet(n, GREET_HELLO);
	redis_node_flush(n);
}

static void refused(struct redis_node *n, struct str text)
{
	static const char *const steps[] = { "HELLO", "AUTH", "SELECT" };
	bool is_full = str_starts(text, STR("ERR max number of clients"));
	char why[80];

	snprintf(why, sizeof why, "it refuses %s (%s)", steps[n->greeting], redis_error_word(text));
	if (is_full)
		give_up(n, REDIS_CONNECT, "it has too many clients");
	else
		give_up(n, REDIS_AUTH, why);
}

static bool knows_no_hello(struct str text)
{
	return str_starts(text, STR("ERR unknown command")) || str_starts(text, STR("NOPROTO")) ||
	       str_starts(text, STR("NOPERM")) || str_starts(text, STR("ERR Protocol"));
}

static void take_greeting(struct redis_node *n, struct str bytes)
{
	struct arena a = { 0 };
	const struct redis_reply *reply = redis_read(&a, bytes);

	if (reply->type != REDIS_ERROR)
		go_on(n, true);
	else if (n->greeting == GREET_HELLO && knows_no_hello(reply->text))
		go_on(n, false);
	else
		refused(n, reply->text);
	arena_free(&a);
}

/* ---------- receiving ---------- */

/* False: the connection is gone. */
static bool take_reply(struct redis_node *n, struct str bytes)
{
	struct redis_job *j;

	if (n->scan.is_push)
		return true;
	if (n->state == NODE_GREETING) {
		take_greeting(n, bytes);
		return n->state != NODE_OFF;
	}
	if (list_is_empty(&n->sent)) {
		redis_node_close(n, REDIS_MALFORMED);
		return false;
	}
	j = CONTAINER(n->sent.next, struct redis_job, node);
	if (j->is_asking) {
		j->is_asking = false;
		return true;
	}
	/* A master that became a replica: whoever is the master now is found with a new connection. */
	bool is_stale = str_starts(bytes, STR("-READONLY"));

	redis_job_replied(j, n, bytes);
	if (n->redis->is_freed || n->state != NODE_READY)
		return false;
	if (is_stale && !n->redis->slots)
		redis_node_close(n, REDIS_CLOSED);
	return n->state == NODE_READY;
}

static bool take_replies(struct redis_node *n)
{
	size_t used = 0;

	while (used < n->in.n) {
		struct str rest = { n->in.p + used, n->in.n - used };
		enum redis_scanned found = redis_scan(&n->scan, rest);

		if (found == REDIS_MORE)
			break;
		if (found == REDIS_BAD) {
			lose(n, REDIS_MALFORMED, "what it says is not the protocol of Redis");
			return false;
		}
		if (!take_reply(n, (struct str){ rest.p, n->scan.at }))
			return false;
		used += n->scan.at;
		n->scan = (struct redis_scan){ 0 };
	}
	n->in.n -= used;
	if (used > 0)
		memmove(n->in.p, n->in.p + used, n->in.n);
	if (n->in.n == 0)
		trim(&n->in, KEPT_BYTES, true);
	return true;
}

static size_t choose_piece(const struct redis_node *n)
{
	size_t wanted = n->scan.needs > n->in.n ? n->scan.needs - n->in.n : 0;

	if (wanted < READ_BYTES)
		return READ_BYTES;
	return wanted < READ_BYTES_MAX ? wanted : READ_BYTES_MAX;
}

/* False: there is nothing more now, or the connection is gone. */
static bool receive(struct redis_node *n)
{
	size_t piece = choose_piece(n), before = n->in.cap;
	ssize_t got;

	sbuf_reserve(&n->in, piece);
	budget_add((int64_t)(n->in.cap - before));
	got = transport_receive(&n->transport, n->in.p + n->in.n, piece);
	if (got < 0 && errno == EAGAIN) {
		n->is_readable = false;
		return false;
	}
	if (got <= 0) {
		lose(n, REDIS_CLOSED, "it closed the connection");
		return false;
	}
	if (transport_is_drained(&n->transport, (size_t)got, piece) && !n->is_eof)
		n->is_readable = false;
	n->in.n += (size_t)got;
	n->since_ms = n->state == NODE_READY ? clock_ms() : n->since_ms;
	return take_replies(n);
}

static void pump(struct redis_node *n)
{
	for (int reads = 0; n->is_readable && n->state >= NODE_GREETING; reads++) {
		if (reads == READS_PER_TURN) {
			loop_defer(n->redis->loop, &n->task);
			return;
		}
		if (!receive(n))
			return;
	}
}

/* ---------- connecting ---------- */

static void secure(struct redis_node *n)
{
	enum tls_result result = tls_handshake(n->transport.tls);

	/* One step reads once; of an end that came with the last bytes no other edge will tell. */
	if (result == TLS_WAITS && n->is_eof)
		result = tls_handshake(n->transport.tls);
	if (result == TLS_FAILED) {
		give_up(n, REDIS_CONNECT, tls_client_failure_text(n->transport.tls));
		return;
	}
	if (result == TLS_WAITS)
		return;
	n->is_readable = true;
	begin_greeting(n);
}

static void connected(struct redis_node *n)
{
	const struct tls_client *tls = n->redis->options.tls;
	int error = addr_connect_error(n->watch.fd);
	struct ip literal;

	if (error) {
		drop_socket(n);
		n->at++;
		try_address(n);
		return;
	}
	if (!tls) {
		begin_greeting(n);
		return;
	}
	n->state = NODE_SECURING;
	bool is_literal = ip_parse(n->host, &literal);
	n->transport.tls = tls_connect(n->watch.fd, &(struct tls_connect){
		.client = tls, .server_name = is_literal ? (struct str){ NULL, 0 } : n->host,
		.address = n->query.addresses[n->at], .alpn = TLS_ALPN_NONE,
	});
}

static void ready(struct watch *w, uint32_t events)
{
	struct redis_node *n = CONTAINER(w, struct redis_node, watch);

	if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))
		n->is_eof = true;
	if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR))
		n->is_readable = true;
	if (n->state == NODE_CONNECTING) {
		if (!(events & (EPOLLOUT | EPOLLHUP | EPOLLERR)))
			return;
		connected(n);
	}
	if (n->state == NODE_SECURING)
		secure(n);
	if (events & EPOLLOUT)
		redis_node_flush(n);
	pump(n);
}

static void run_later(struct task *t)
{
	struct redis_node *n = CONTAINER(t, struct redis_node, task);

	redis_node_flush(n);
	pump(n);
}

/* The one at n->at, or one after it. */
static void try_address(struct redis_node *n)
{
	const struct redis_options *o = &n->redis->options;
	const char *why = "it refuses connections, or cannot be reached";

	for (; n->at < n->query.n; n->at++) {
		struct addr to = addr_of_ip(&n->query.addresses[n->at], n->port);
		int fd;

		if (o->may_connect && !o->may_connect(&to)) {
			why = "its address is not one that may be called";
			continue;
		}
		fd = addr_connect(&to);
		if (fd >= 0 && descriptor_is_scarce(fd, DESCRIPTOR_UPSTREAM)) {
			close(fd);
			why = "there are no descriptors left";
			break;
		}
		if (fd < 0)
			continue;
		n->is_readable = n->is_eof = false;
		n->watch.fd = n->transport.fd = fd;
		n->state = NODE_CONNECTING;
		BUG_ON(!loop_add(n->redis->loop, &n->watch, 0));
		return;
	}
	give_up(n, REDIS_CONNECT, why);
}

static void name_found(struct resolver_query *q)
{
	struct redis_node *n = CONTAINER(q, struct redis_node, query);

	if (q->status != RESOLVER_OK) {
		give_up(n, REDIS_CONNECT, "its name did not resolve");
		return;
	}
	n->at = 0;
	try_address(n);
}

static void open_node(struct redis_node *n)
{
	const struct redis_options *o = &n->redis->options;

	n->state = NODE_NAME;
	n->since_ms = clock_ms();
	if (o->tls && !o->tls->context) {
		give_up(n, REDIS_CONNECT, o->tls->trouble);
		return;
	}
	loop_arm(n->redis->loop, &n->timer, o->connect_timeout_ms);
	if (resolver_lookup(n->redis->resolver, n->host, &n->query))
		name_found(&n->query);
}

/* ---------- life ---------- */

struct redis_node *redis_node_new(struct redis *r, struct str host, uint16_t port)
{
	struct redis_node *n = mem_alloc(sizeof *n + host.n + 1);
	char *text = (char *)(n + 1);

	str_put(text, host);
	n->redis = r;
	n->host = (struct str){ text, host.n };
	n->port = port;
	n->watch = (struct watch){ .fd = -1, .ready = ready };
	n->transport.fd = -1;
	n->query.done = name_found;
	timer_init(&n->timer, tend);
	task_init(&n->task, run_later);
	list_init(&n->waiting);
	list_init(&n->sent);
	list_append(&r->nodes, &n->all);
	r->n_nodes++;
	return n;
}

void redis_node_release(struct redis_node *n)
{
	BUG_ON(n->state != NODE_OFF || !list_is_empty(&n->sent) || !list_is_empty(&n->waiting));
	list_remove(&n->all);
	n->redis->n_nodes--;
	budget_add(-(int64_t)n->in.cap);
	sbuf_free(&n->in);
	sbuf_free(&n->out);
	mem_free(n);
}
