/*
 * httpbench.c -- load for one HTTP/1.1 gateway, and the upstream behind it, in one epoll thread.
 *
 * Client and upstream share a thread: the whole other side costs one core and few microseconds, and the gateway stays
 * the bottleneck as long as possible. The upstream answers ".../b/N" with N bytes. Prints a line of JSON on the time
 * after the warm-up. Latency is from send() to the last byte; with --rate, from the moment the request was due.
 *
 *     --port P              gateway to load (0 = only be an upstream, until standard input ends)
 *     --upstream P          listen here as upstream
 *     --connections N       64         --seconds S   2        --warmup S     0.3
 *     --requests N          stop after N instead, without warm-up
 *     --path FORMAT         /b/1024; one %u takes 0..routes-1 in turn                  --routes N     1
 *     --raw FILE            these requests in turn instead: for each a line with its length, and its bytes
 *     --rate R              requests a second, all connections together; 0 = as fast as answers come
 *     --close               a new connection for each request
 *     --idle                one request on each connection, then print "idle" and hold them until standard input ends
 *     --forever             until standard input ends
 *     --cpu PID[,PID...]    measure the CPU time of these processes
 */
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define BUFFER_BYTES 262144
#define SIZES_MAX 16
#define CONNECTIONS_MAX 16384
#define PIDS_MAX 16
#define BUCKETS (40 * 64)                /* latencies: 64 steps for each power of two, in 1/16 us */

enum role { ROLE_CLIENT, ROLE_UPSTREAM, ROLE_LISTENER, ROLE_INPUT };

struct text {
	char *p;
	size_t n;
};

struct peer {                            /* first in everything epoll points at */
	enum role role;
	int fd;
	const char *out;                 /* still to be sent */
	size_t out_left;
	bool wants_out;
};

struct client {
	struct peer peer;
	char head[4096];                 /* of an answer that came in parts */
	size_t head_n;
	uint64_t body_left;
	int64_t sent_ns;
	bool is_waiting, in_body, ends, was_used;   /* ends: the server closes after this answer */
	int status;
};

struct upstream {
	struct peer peer;
	char part[65536];                /* of a head that came in parts, with what came behind it */
	size_t part_n;
	uint64_t body_left, size;        /* of the request under way; bytes to answer with */
};

static struct {
	unsigned port, upstream, connections, routes;
	double seconds, warmup, rate;
	uint64_t requests;
	const char *path, *raw;
	bool close, idle, forever;
	int pids[PIDS_MAX], n_pids;
} options = { .connections = 64, .routes = 1, .seconds = 2, .warmup = 0.3, .path = "/b/1024" };

static struct {
	uint64_t requests, errors, closed, bytes, statuses[6];
	uint64_t buckets[BUCKETS];
	int64_t most_ns;
} count;

static struct client *clients;
static struct text *requests;
static unsigned next_request;
static struct { uint64_t size; struct text text; } answers[SIZES_MAX];
static unsigned n_answers, n_idle;
static struct client *resting[CONNECTIONS_MAX];      /* with --rate: waiting for their turn */
static unsigned n_resting;
static int64_t due_ns;
static char buffer[BUFFER_BYTES];
static int loop;
static bool input_ended;

static int64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void stop(const char *what)
{
	fprintf(stderr, "httpbench: %s: %s\n", what, strerror(errno));
	exit(1);
}

/* ---------- sockets ---------- */

static void watch(struct peer *p, bool wants_out, int operation)
{
	struct epoll_event e = { .events = EPOLLIN | (wants_out ? EPOLLOUT : 0), .data.ptr = p };

	p->wants_out = wants_out;
	if (epoll_ctl(loop, operation, p->fd, &e) < 0)
		stop("epoll_ctl");
}

/* Sends what is left; false = the connection is broken. */
static bool push(struct peer *p)
{
	while (p->out_left > 0) {
		ssize_t n = send(p->fd, p->out, p->out_left, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno != EAGAIN && errno != ENOTCONN)
			return false;
		if (n < 0) {
			if (!p->wants_out)
				watch(p, true, EPOLL_CTL_MOD);
			return true;
		}
		p->out += n;
		p->out_left -= (size_t)n;
	}
	if (p->wants_out)
		watch(p, false, EPOLL_CTL_MOD);
	return true;
}

static bool send_text(struct peer *p, struct text t)
{
	p->out = t.p;
	p->out_left = t.n;
	return push(p);
}

static void connect_client(struct client *c)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons((uint16_t)options.port) };

	to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	c->peer.role = ROLE_CLIENT;
	c->peer.fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (c->peer.fd < 0)
		stop("socket");
	setsockopt(c->peer.fd, IPPROTO_TCP, TCP_NODELAY, &(int){ 1 }, sizeof(int));
	if (connect(c->peer.fd, (struct sockaddr *)&to, sizeof to) < 0 && errno != EINPROGRESS)
		stop("connect");
	c->head_n = 0;
	c->in_body = c->is_waiting = c->ends = c->was_used = false;
	c->peer.out_left = 0;
	watch(&c->peer, false, EPOLL_CTL_ADD);
}

/* ---------- client ---------- */

static void start_request(struct client *c, int64_t at_ns)
{
	struct text t = requests[next_request];

	next_request = next_request + 1 < options.routes ? next_request + 1 : 0;
	c->sent_ns = at_ns;
	c->is_waiting = true;
	c->in_body = false;
	c->head_n = 0;
	/* A broken connection shows when it is read. */
	send_text(&c->peer, t);
}

static void next_turn(struct client *c)
{
	if (options.idle)
		return;
	if (options.rate > 0)
		resting[n_resting++] = c;
	else
		start_request(c, now_ns());
}

static void rest_no_more(struct client *c)
{
	for (unsigned i = 0; i < n_resting; i++)
		if (resting[i] == c) {
			resting[i] = resting[--n_resting];
			return;
		}
}

static void note_latency(int64_t ns)
{
	uint64_t v = (uint64_t)(ns > 0 ? ns : 0) * 16 / 1000;
	unsigned bucket = (unsigned)v;

	if (v >= 128) {
		unsigned bits = 63 - (unsigned)__builtin_clzll(v);

		bucket = 128 + (bits - 7) * 64 + (unsigned)((v >> (bits - 6)) & 63);
	}
	count.buckets[bucket < BUCKETS ? bucket : BUCKETS - 1]++;
	if (ns > count.most_ns)
		count.most_ns = ns;
}

static double latency_us(double share)
{
	uint64_t want = (uint64_t)((double)count.requests * share), seen = 0;

	for (unsigned i = 0; i < BUCKETS; i++) {
		seen += count.buckets[i];
		if (seen > want) {
			if (i < 128)
				return (double)i / 16;
			unsigned bits = (i - 128) / 64 + 7, step = (i - 128) % 64;
			return (double)((64ull + step) << (bits - 6)) / 16;
		}
	}
	return (double)count.most_ns / 1000;
}

static void reopen(struct client *c)
{
	close(c->peer.fd);
	connect_client(c);
}

static void finish_response(struct client *c)
{
	c->is_waiting = c->in_body = false;
	count.requests++;
	count.statuses[c->status >= 100 && c->status < 600 ? c->status / 100 : 0]++;
	note_latency(now_ns() - c->sent_ns);
	if (!c->was_used)
		n_idle++;
	c->was_used = true;
	c->head_n = 0;
	if (!c->ends)
		next_turn(c);
}

/* Reads the head that begins at p; false = not acceptable. */
static bool read_head(struct client *c, const char *p, size_t n)
{
	const char *end = p + n;

	if (n < 12 || memcmp(p, "HTTP/1.1 ", 9) != 0)
		return false;
	c->status = (p[9] - '0') * 100 + (p[10] - '0') * 10 + (p[11] - '0');
	c->body_left = 0;
	c->ends = options.close;
	bool has_length = c->status == 204 || c->status == 304;
	p = memchr(p, '\n', n);
	for (; p && ++p < end; p = memchr(p, '\n', (size_t)(end - p))) {
		if (end - p > 15 && strncasecmp(p, "content-length:", 15) == 0) {
			c->body_left = strtoull(p + 15, NULL, 10);
			has_length = true;
		} else if (end - p > 17 && strncasecmp(p, "connection: close", 17) == 0) {
			c->ends = true;
		}
	}
	return has_length;
}

/* Takes n received bytes; false = the answer is not acceptable. */
static bool take_bytes(struct client *c, const char *p, size_t n)
{
	while (n > 0) {
		if (!c->is_waiting)
			return false;
		if (!c->in_body) {
			const char *head = p, *mark = c->head_n == 0 ? memmem(p, n, "\r\n\r\n", 4) : NULL;
			size_t head_n = mark ? (size_t)(mark + 4 - p) : 0, used = head_n;

			if (!mark) {
				size_t before = c->head_n, room = sizeof c->head - before, more = n < room ? n : room;

				memcpy(c->head + before, p, more);
				c->head_n += more;
				mark = memmem(c->head, c->head_n, "\r\n\r\n", 4);
				if (!mark)
					return c->head_n < sizeof c->head;
				head = c->head;
				head_n = (size_t)(mark + 4 - c->head);
				used = head_n - before;
				c->head_n = 0;
			}
			if (!read_head(c, head, head_n))
				return false;
			c->in_body = true;
			p += used;
			n -= used;
		}
		uint64_t body = n < c->body_left ? n : c->body_left;
		c->body_left -= body;
		p += body;
		n -= body;
		if (c->body_left == 0)
			finish_response(c);
	}
	return true;
}

static void fail_client(struct client *c, bool is_error)
{
	rest_no_more(c);
	if (is_error)
		count.errors++;
	else if (!options.close)
		count.closed++;
	reopen(c);
	next_turn(c);
}

static void run_client(struct client *c, uint32_t events)
{
	if (events & EPOLLOUT && !push(&c->peer)) {
		fail_client(c, true);
		return;
	}
	if (!(events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
		return;
	for (;;) {
		ssize_t n = recv(c->peer.fd, buffer, sizeof buffer, 0);

		if (n < 0 && errno == EAGAIN)
			return;
		if (n <= 0) {
			/* Within an exchange it is an error; before one, or after "Connection: close", it is not. */
			fail_client(c, c->is_waiting);
			return;
		}
		count.bytes += (uint64_t)n;
		if (!take_bytes(c, buffer, (size_t)n)) {
			fail_client(c, true);
			return;
		}
		if ((size_t)n < sizeof buffer && !c->ends)
			return;
	}
}

/* ---------- upstream ---------- */

static struct text answer_of(uint64_t size)
{
	for (unsigned i = 0; i < n_answers; i++)
		if (answers[i].size == size)
			return answers[i].text;
	char *p = malloc(size + 200);
	if (!p || n_answers == SIZES_MAX)
		stop("too many sizes");
	int n = snprintf(p, 200, "HTTP/1.1 200 OK\r\nServer: bench\r\nContent-Type: text/plain\r\n"
		"Content-Length: %llu\r\n\r\n", (unsigned long long)size);
	memset(p + n, 'b', size);
	answers[n_answers].size = size;
	answers[n_answers].text = (struct text){ p, (size_t)n + size };
	return answers[n_answers++].text;
}

/* The value of "Content-Length:" in a head. */
static uint64_t length_of(const char *head, size_t n)
{
	const char *end = head + n;

	for (const char *p = memchr(head, '\n', n); p && ++p < end; p = memchr(p, '\n', (size_t)(end - p)))
		if (end - p > 15 && strncasecmp(p, "content-length:", 15) == 0)
			return strtoull(p + 15, NULL, 10);
	return 0;
}

/* Of n bytes the first head_n are a head. Answers when the body is there. */
static bool take_request(struct upstream *u, const char *p, size_t n, size_t head_n)
{
	const char *line_end = memchr(p, '\n', head_n);
	const char *mark = memmem(p, (size_t)(line_end - p), "/b/", 3);
	uint64_t body = length_of(p, head_n), came = n - head_n;

	u->size = mark ? strtoull(mark + 3, NULL, 10) : 0;
	u->body_left = body > came ? body - came : 0;
	return u->body_left > 0 || send_text(&u->peer, answer_of(u->size));
}

static bool take_body(struct upstream *u, size_t n)
{
	u->body_left -= n < u->body_left ? n : u->body_left;
	return u->body_left > 0 || send_text(&u->peer, answer_of(u->size));
}

/* What was received. A head that is there whole is not copied. */
static bool take_from_gateway(struct upstream *u, const char *p, size_t n)
{
	const char *mark;

	if (u->body_left > 0)
		return take_body(u, n);
	if (u->part_n == 0 && (mark = memmem(p, n, "\r\n\r\n", 4)))
		return take_request(u, p, n, (size_t)(mark + 4 - p));
	if (u->part_n + n > sizeof u->part)
		return false;
	memcpy(u->part + u->part_n, p, n);
	u->part_n += n;
	mark = memmem(u->part, u->part_n, "\r\n\r\n", 4);
	if (!mark)
		return true;
	n = u->part_n;
	u->part_n = 0;
	return take_request(u, u->part, n, (size_t)(mark + 4 - u->part));
}

static void run_upstream(struct upstream *u, uint32_t events)
{
	if (events & EPOLLOUT && !push(&u->peer))
		goto gone;
	if (!(events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
		return;
	ssize_t n = recv(u->peer.fd, buffer, sizeof buffer, 0);
	if (n < 0 && errno == EAGAIN)
		return;
	if (n <= 0)
		goto gone;
	if (take_from_gateway(u, buffer, (size_t)n))
		return;
gone:
	close(u->peer.fd);
	free(u);
}

static void accept_upstreams(struct peer *listener)
{
	int fd;

	while ((fd = accept4(listener->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
		struct upstream *u = calloc(1, sizeof *u);

		if (!u)
			stop("calloc");
		u->peer = (struct peer){ .role = ROLE_UPSTREAM, .fd = fd };
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){ 1 }, sizeof(int));
		watch(&u->peer, false, EPOLL_CTL_ADD);
	}
}

static void listen_upstream(struct peer *listener)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons((uint16_t)options.upstream) };

	at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	listener->role = ROLE_LISTENER;
	listener->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	setsockopt(listener->fd, SOL_SOCKET, SO_REUSEADDR, &(int){ 1 }, sizeof(int));
	if (bind(listener->fd, (struct sockaddr *)&at, sizeof at) < 0 || listen(listener->fd, 4096) < 0)
		stop("upstream port");
	watch(listener, false, EPOLL_CTL_ADD);
}

/* ---------- the run ---------- */

static void read_requests(void)
{
	FILE *f = fopen(options.raw, "rb");
	char line[32];

	options.routes = 0;
	while (f && fgets(line, sizeof line, f)) {
		struct text t = { NULL, strtoull(line, NULL, 10) };

		requests = realloc(requests, (options.routes + 1) * sizeof *requests);
		t.p = malloc(t.n + 1);
		if (!requests || !t.p || fread(t.p, 1, t.n, f) != t.n)
			stop(options.raw);
		requests[options.routes++] = t;
	}
	if (!f || options.routes == 0)
		stop(options.raw);
	fclose(f);
}

static void make_requests(void)
{
	char path[512];

	clients = calloc(options.connections, sizeof *clients);
	if (!clients || options.connections > CONNECTIONS_MAX)
		stop("too many connections");
	if (options.raw) {
		read_requests();
		return;
	}
	requests = calloc(options.routes, sizeof *requests);
	if (!requests)
		stop("calloc");
	for (unsigned i = 0; i < options.routes; i++) {
		const char *mark = strstr(options.path, "%u");
		char *p = malloc(1024);

		if (!p)
			stop("malloc");
		if (mark)
			snprintf(path, sizeof path, "%.*s%u%s", (int)(mark - options.path), options.path, i, mark + 2);
		else
			snprintf(path, sizeof path, "%s", options.path);
		int n = snprintf(p, 1024, "GET %s HTTP/1.1\r\nHost: bench.test\r\nUser-Agent: httpbench/1.0\r\n"
			"Accept: */*\r\nAccept-Encoding: identity\r\nCookie: session=0123456789abcdef\r\n%s\r\n", path,
			options.close ? "Connection: close\r\n" : "");
		requests[i] = (struct text){ p, (size_t)n };
	}
}

static void cpu_seconds(double *user, double *kernel)
{
	*user = *kernel = 0;
	for (int i = 0; i < options.n_pids; i++) {
		char path[64], text[1024];
		unsigned long u, s;

		snprintf(path, sizeof path, "/proc/%d/stat", options.pids[i]);
		FILE *f = fopen(path, "r");
		size_t n = f ? fread(text, 1, sizeof text - 1, f) : 0;
		if (f)
			fclose(f);
		text[n] = 0;
		const char *p = strrchr(text, ')');
		if (p && sscanf(p + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &u, &s) == 2) {
			*user += (double)u / (double)sysconf(_SC_CLK_TCK);
			*kernel += (double)s / (double)sysconf(_SC_CLK_TCK);
		}
	}
}

static void start_due(void)
{
	int64_t now = now_ns(), step = (int64_t)(1e9 / options.rate);

	while (due_ns <= now && n_resting > 0) {
		start_request(resting[--n_resting], due_ns);
		due_ns += step;
	}
	/* All connections busy: what could not be sent is not made up for beyond a tenth of a second. */
	if (due_ns < now - 100000000)
		due_ns = now - 100000000;
}

static void dispatch(const struct epoll_event *e)
{
	struct peer *p = e->data.ptr;

	switch (p->role) {
	case ROLE_CLIENT:
		run_client((struct client *)p, e->events);
		break;
	case ROLE_UPSTREAM:
		run_upstream((struct upstream *)p, e->events);
		break;
	case ROLE_LISTENER:
		accept_upstreams(p);
		break;
	case ROLE_INPUT:
		if (read(0, buffer, sizeof buffer) <= 0)
			input_ended = true;
		break;
	}
}

static void turn(int64_t until_ns)
{
	struct epoll_event events[512];
	int64_t wake = until_ns;
	struct timespec wait;

	if (options.rate > 0 && n_resting > 0 && due_ns < wake)
		wake = due_ns;
	int64_t left = wake - now_ns();
	if (left < 0)
		left = 0;
	wait = (struct timespec){ left / 1000000000, left % 1000000000 };
	int n = epoll_pwait2(loop, events, 512, &wait, NULL);
	for (int i = 0; i < n; i++)
		dispatch(&events[i]);
	if (options.rate > 0)
		start_due();
}

static void print_results(double seconds, double user, double kernel)
{
	double n = count.requests ? (double)count.requests : 1;

	printf("{\"requests\":%llu,\"seconds\":%.3f,\"rps\":%.1f,\"errors\":%llu,\"closed\":%llu,\"bytes\":%llu",
		(unsigned long long)count.requests, seconds, (double)count.requests / seconds,
		(unsigned long long)count.errors, (unsigned long long)count.closed, (unsigned long long)count.bytes);
	printf(",\"p50_us\":%.1f,\"p99_us\":%.1f,\"p999_us\":%.1f,\"max_us\":%.1f,\"status\":{", latency_us(0.5),
		latency_us(0.99), latency_us(0.999), (double)count.most_ns / 1000);
	for (int i = 0; i < 6; i++)
		printf("%s\"%dxx\":%llu", i ? "," : "", i, (unsigned long long)count.statuses[i]);
	printf("},\"user_us\":%.3f,\"kernel_us\":%.3f,\"cpu_us\":%.3f}\n", user * 1e6 / n, kernel * 1e6 / n,
		(user + kernel) * 1e6 / n);
	fflush(stdout);
}

static void open_clients(int64_t start)
{
	for (unsigned i = 0; options.port && i < options.connections; i++) {
		connect_client(&clients[i]);
		if (options.idle)
			start_request(&clients[i], start);
		else
			next_turn(&clients[i]);
		if (i % 64 == 63)
			turn(now_ns());          /* the listen queue is finite */
	}
}

static bool is_over(bool is_open, int64_t end)
{
	if (options.requests)
		return count.requests >= options.requests;
	return is_open ? input_ended : now_ns() >= end;
}

static void run(void)
{
	double user[2], kernel[2];
	bool is_open = options.forever || options.idle || options.port == 0, said = false;
	int64_t start = now_ns(), end = start + (int64_t)(options.warmup * 1e9);

	due_ns = start;
	open_clients(start);
	while (now_ns() < end && !options.requests && !options.idle)
		turn(end);
	memset(&count, 0, sizeof count);
	cpu_seconds(&user[0], &kernel[0]);
	start = now_ns();
	end = start + (int64_t)(options.seconds * 1e9);
	while (!is_over(is_open, end)) {
		turn(is_open || options.requests ? now_ns() + 1000000000 : end);
		if (options.idle && !said && n_idle >= options.connections) {
			printf("idle\n");
			fflush(stdout);
			said = true;
		}
	}
	cpu_seconds(&user[1], &kernel[1]);
	print_results((double)(now_ns() - start) / 1e9, user[1] - user[0], kernel[1] - kernel[0]);
}

static void read_pids(const char *list)
{
	char *end;

	while (*list && options.n_pids < PIDS_MAX) {
		options.pids[options.n_pids++] = (int)strtol(list, &end, 10);
		list = *end == ',' ? end + 1 : end;
		if (end == list && *end)
			break;
	}
}

static void read_options(int argc, char **argv)
{
	static const struct option known[] = {
		{ "port", 1, 0, 'p' }, { "upstream", 1, 0, 'u' }, { "connections", 1, 0, 'c' },
		{ "seconds", 1, 0, 's' },
		{ "warmup", 1, 0, 'w' }, { "requests", 1, 0, 'n' }, { "path", 1, 0, 'P' }, { "routes", 1, 0, 'r' },
		{ "rate", 1, 0, 'R' }, { "close", 0, 0, 'C' }, { "idle", 0, 0, 'i' }, { "forever", 0, 0, 'f' },
		{ "cpu", 1, 0, 'g' }, { "raw", 1, 0, 'x' }, { 0, 0, 0, 0 },
	};
	int o;

	while ((o = getopt_long(argc, argv, "", known, NULL)) != -1) {   /* flat switch */
		switch (o) {
		case 'p': options.port = (unsigned)strtoul(optarg, NULL, 10); break;
		case 'u': options.upstream = (unsigned)strtoul(optarg, NULL, 10); break;
		case 'c': options.connections = (unsigned)strtoul(optarg, NULL, 10); break;
		case 's': options.seconds = strtod(optarg, NULL); break;
		case 'w': options.warmup = strtod(optarg, NULL); break;
		case 'n': options.requests = strtoull(optarg, NULL, 10); break;
		case 'P': options.path = optarg; break;
		case 'x': options.raw = optarg; break;
		case 'r': options.routes = (unsigned)strtoul(optarg, NULL, 10); break;
		case 'R': options.rate = strtod(optarg, NULL); break;
		case 'C': options.close = true; break;
		case 'i': options.idle = true; break;
		case 'f': options.forever = true; break;
		case 'g': read_pids(optarg); break;
		default: exit(2);
		}
	}
}

int main(int argc, char **argv)
{
	static struct peer listener, input = { .role = ROLE_INPUT, .fd = 0 };

	read_options(argc, argv);
	signal(SIGPIPE, SIG_IGN);
	loop = epoll_create1(EPOLL_CLOEXEC);
	make_requests();
	if (options.upstream)
		listen_upstream(&listener);
	if (options.forever || options.idle || options.port == 0)
		watch(&input, false, EPOLL_CTL_ADD);
	run();
	return count.errors > 0 ? 3 : 0;
}
