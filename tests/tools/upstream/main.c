/* main.c -- connections, timers and the control port of the test upstream. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>
#include "upstream.h"

static struct { int fd; unsigned port; char address[32]; } listeners[PORTS_MAX];
static unsigned n_listeners, n_connections, n_open, n_requests;
static struct connection *connections;
static int loop;

static void add_record(struct bytes *out, const struct record *r)
{
	add_text(out, "{\"address\":\"%s\",", r->address);
	add_text(out, "\"port\":%u,\"connection\":%u,\"turn\":%u,\"headBytes\":%zu,\"bodyBytes\":%llu,", r->port,
		r->connection, r->turn, r->head_bytes, (unsigned long long)r->body_bytes);
	add_text(out, "\"complete\":%s,\"malformed\":%s,", r->complete ? "true" : "false",
		r->malformed ? "true" : "false");
	add_text(out, "\"sha256\":\"");
	add_hex(out, r->digest, sizeof r->digest);
	add_text(out, "\",\"wire\":");
	add_json(out, r->wire.p, r->wire.n);
	add(out, "}", 1);
}

static void answer_control(struct connection *c)
{
	struct bytes body = { 0 };

	if (memcmp(c->head.p, "GET /clear", 10) == 0) {
		for (size_t i = 0; i < n_records; i++)
			release(&records[i].wire);
		n_records = 0;
		n_connections = n_requests = 0;
	} else if (memcmp(c->head.p, "GET /record", 11) == 0) {
		add(&body, "[", 1);
		for (size_t i = 0; i < n_records; i++) {
			add(&body, ",", i > 0);
			add_record(&body, &records[i]);
		}
		add(&body, "]", 1);
	} else {
		add_text(&body, "{\"connections\":%u,\"open\":%u,\"requests\":%u}", n_connections, n_open, n_requests);
	}
	answer(c, 200, "", body.p ? body.p : "", body.n);
	release(&body);
}

static void close_connection(struct connection *c, bool reset)
{
	for (struct connection **link = &connections; *link; link = &(*link)->next)
		if (*link == c) {
			*link = c->next;
			break;
		}
	if (reset)
		setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &(struct linger){ .l_onoff = 1 }, sizeof(struct linger));
	close(c->fd);
	if (!c->is_control)
		n_open--;
	release(&c->in);
	release(&c->out);
	release(&c->head);
	release(&c->trailer);
	EVP_MD_CTX_free(c->hash);
	free(c);
}

/* A whole head is there: what to do with it. */
static void begin_request(struct connection *c)
{
	c->turn++;
	c->after = KEEP;
	c->stream_at = c->stream_left = c->body_bytes = 0;
	c->stream_chunked = c->stream_trailers = c->answered_early = c->is_stalled = c->woken = false;
	c->slow_ms = 0;
	c->wake_ms = 0;
	c->trailer.n = 0;
	c->record = 0;
	EVP_DigestInit_ex(c->hash, EVP_sha256(), NULL);
	if (c->is_control) {
		answer_control(c);
		c->phase = ANSWERING;
		return;
	}
	n_requests++;
	open_record(c);
	if (!is_good_head(&c->head) || !find_framing(c)) {
		mark_malformed(c);
		answer(c, 400, "Connection: close\r\n", "malformed\n", 10);
		c->after = CLOSE;
		c->phase = ANSWERING;
		return;
	}
	c->action = find_action(&c->head, &c->argument);
	c->phase = READING_BODY;
	if (c->refuses_next) {
		c->after = CLOSE;
		c->phase = ANSWERING;
	} else if (c->action && c->action->early) {
		c->action->run(c, c->argument);
		c->answered_early = c->out.n > 0;
		if (c->after != KEEP)
			c->phase = ANSWERING;
	} else if (field_is(&c->head, "expect", "100-continue")) {
		add_text(&c->out, "HTTP/1.1 100 Continue\r\n\r\n");
	}
}

static void end_request_body(struct connection *c, int outcome)
{
	c->phase = ANSWERING;
	if (outcome < 0) {
		mark_malformed(c);
		answer(c, 400, "Connection: close\r\n", "malformed body\n", 15);
		c->after = CLOSE;
		return;
	}
	finish_body(c);
	if (c->answered_early)
		return;
	if (c->action)
		c->action->run(c, c->argument);
	else
		answer(c, 200, "", "ok\n", 3);
	if (field_is(&c->head, "connection", "close") && c->after == KEEP)
		c->after = CLOSE;
}

/* Sends what is there. false = the connection is gone. */
static bool write_out(struct connection *c)
{
	for (unsigned rounds = 0;; rounds++) {
		while (c->stream_left > 0 && c->out.n - c->out_sent < BACKLOG_BYTES && c->wake_ms == 0)
			add_stream(c);
		if (c->out_sent == c->out.n)
			break;
		if (rounds == 32)
			return true;             /* others have their turn */
		ssize_t n = send(c->fd, c->out.p + c->out_sent, c->out.n - c->out_sent, MSG_NOSIGNAL);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return true;
		if (n < 0) {
			close_connection(c, false);
			return false;
		}
		c->out_sent += (size_t)n;
		if (c->out_sent == c->out.n || c->out_sent > BACKLOG_BYTES) {
			drop_front(&c->out, c->out_sent);
			c->out_sent = 0;
		}
	}
	if (c->phase != ANSWERING || c->stream_left > 0 || c->wake_ms != 0)
		return true;
	if (c->after == RESET) {
		close_connection(c, true);
		return false;
	}
	if (c->after == CLOSE) {
		/* A close with unread bytes would reset the connection and could take the answer along. */
		shutdown(c->fd, SHUT_WR);
		c->phase = DRAINING;
		c->wake_ms = now_ms() + 2000;
		return true;
	}
	c->phase = READING_HEAD;
	return true;
}

/* One step with the bytes that are there. false = nothing more to do now. */
static bool step(struct connection *c)
{
	if (c->phase == READING_HEAD) {
		size_t skip = 0;

		while (skip + 2 <= c->in.n && memcmp(c->in.p + skip, "\r\n", 2) == 0)
			skip += 2;
		drop_front(&c->in, skip);
		char *end = memmem(c->in.p, c->in.n, "\r\n\r\n", 4);
		if (!end && c->in.n < HEAD_MAX)
			return false;
		size_t n = end ? (size_t)(end + 4 - c->in.p) : c->in.n;
		c->head.n = 0;
		add(&c->head, c->in.p, n);
		add(&c->head, "", 1);
		c->head.n--;
		drop_front(&c->in, n);
		begin_request(c);
		return true;
	}
	if (c->phase == READING_BODY && !c->is_stalled) {
		int outcome = read_body(c);

		if (outcome == 0)
			return false;
		end_request_body(c, outcome);
		return true;
	}
	if (c->phase == DRAINING)
		c->in.n = 0;
	return false;
}

static void run(struct connection *c)
{
	bool goes_on = true;

	while (goes_on) {
		goes_on = step(c);
		enum phase before = c->phase;
		if (!write_out(c))
			return;
		goes_on = goes_on || (before == ANSWERING && c->phase == READING_HEAD);
	}
}

static void read_in(struct connection *c)
{
	char text[65536];

	while (!c->is_stalled) {
		ssize_t n = recv(c->fd, text, sizeof text, 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			break;
		if (n <= 0) {
			close_connection(c, false);
			return;
		}
		add(&c->in, text, (size_t)n);
		if (c->in.n > 1048576)
			break;
	}
	run(c);
}

static void watch(struct connection *c)
{
	bool has_output = c->out_sent < c->out.n || (c->stream_left > 0 && c->wake_ms == 0);
	uint32_t events = (c->is_stalled ? 0 : EPOLLIN) | (has_output ? EPOLLOUT : 0);
	struct epoll_event e = { .events = events, .data.ptr = c };

	epoll_ctl(loop, EPOLL_CTL_MOD, c->fd, &e);
}

static bool is_there(const struct connection *c)
{
	for (const struct connection *i = connections; i; i = i->next)
		if (i == c)
			return true;
	return false;
}

static void accept_all(unsigned which)
{
	int fd;

	while ((fd = accept4(listeners[which].fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
		struct connection *c = calloc(1, sizeof *c);
		struct epoll_event e = { .events = EPOLLIN, .data.ptr = c };

		if (!c)
			abort();
		c->fd = fd;
		c->is_control = which == 0;
		c->port = listeners[which].port;
		c->address = listeners[which].address;
		c->hash = EVP_MD_CTX_new();
		c->next = connections;
		connections = c;
		if (!c->is_control) {
			c->number = ++n_connections;
			n_open++;
		}
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){ 1 }, sizeof(int));
		epoll_ctl(loop, EPOLL_CTL_ADD, fd, &e);
	}
}

static void wake(struct connection *c)
{
	if (c->phase == DRAINING) {
		close_connection(c, false);
		return;
	}
	c->wake_ms = 0;
	c->woken = true;
	if (!c->is_stalled && !c->slow_ms)
		c->action->run(c, c->argument);
	c->is_stalled = false;
	run(c);
}

/* Runs what is due; returns how long to wait for the next. */
static int run_timers(void)
{
	int64_t now = now_ms(), next = INT64_MAX;
	struct connection *c = connections, *after;

	for (; c; c = after) {
		after = c->next;
		if (c->wake_ms > 0 && c->wake_ms <= now) {
			wake(c);
			if (is_there(c))
				watch(c);
		}
	}
	for (c = connections; c; c = c->next)
		if (c->wake_ms > 0 && c->wake_ms < next)
			next = c->wake_ms;
	return next == INT64_MAX ? -1 : next <= now ? 0 : (int)(next - now);
}

/* "PORT", "IP:PORT", or "IP:=" for the port of the listener before. */
static void open_listener(const char *text)
{
	const char *colon = strchr(text, ':'), *port_text = colon ? colon + 1 : text;
	unsigned port = *port_text == '=' ? listeners[n_listeners - 1].port : (unsigned)strtoul(port_text, NULL, 10);
	char ip[16] = "127.0.0.1";

	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
	socklen_t n = sizeof a;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	struct epoll_event e = { .events = EPOLLIN, .data.ptr = &listeners[n_listeners] };

	if (colon)
		snprintf(ip, sizeof ip, "%.*s", (int)(colon - text), text);
	inet_pton(AF_INET, ip, &a.sin_addr);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){ 1 }, sizeof(int));
	if (bind(fd, (struct sockaddr *)&a, sizeof a) < 0 || listen(fd, 4096) < 0
		|| getsockname(fd, (struct sockaddr *)&a, &n) < 0) {
		fprintf(stderr, "test_upstream: %s: %s\n", text, strerror(errno));
		exit(1);
	}
	listeners[n_listeners].fd = fd;
	listeners[n_listeners].port = ntohs(a.sin_port);
	snprintf(listeners[n_listeners].address, sizeof listeners->address, "%s:%u", ip, ntohs(a.sin_port));
	epoll_ctl(loop, EPOLL_CTL_ADD, fd, &e);
	n_listeners++;
}

int main(int argc, char **argv)
{
	struct epoll_event events[256];

	signal(SIGPIPE, SIG_IGN);
	loop = epoll_create1(EPOLL_CLOEXEC);
	if (argc < 3 || argc > PORTS_MAX) {
		fprintf(stderr, "usage: test_upstream CONTROL_PORT [IP:]PORT...\n");
		return 2;
	}
	for (int i = 1; i < argc; i++)
		open_listener(argv[i]);
	printf("ready");
	for (unsigned i = 0; i < n_listeners; i++)
		printf(" %u", listeners[i].port);
	printf("\n");
	fflush(stdout);
	for (;;) {
		int n = epoll_wait(loop, events, 256, run_timers());

		for (int i = 0; i < n; i++) {
			char *p = events[i].data.ptr, *first = (char *)listeners;

			if (p >= first && p < first + sizeof listeners) {
				accept_all((unsigned)((size_t)(p - first) / sizeof *listeners));
				continue;
			}
			struct connection *c = events[i].data.ptr;
			if (is_there(c) && events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))
				read_in(c);
			if (is_there(c) && events[i].events & EPOLLOUT)
				run(c);
			if (is_there(c))
				watch(c);
		}
	}
}
