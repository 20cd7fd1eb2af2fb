/*
 * mixbench.c -- sends requests of many kinds, good and bad, byte for byte as a file says, and judges the answers.
 *
 *     --port P           gateway to load               --connections N   32
 *     --requests N       stop after so many answers    --kinds FILE      what is sent
 *     --seed N           of the order
 *
 * The file: for each kind a line "NAME WEIGHT ANSWERS PIECES STATUSES BYTES", then so many bytes, then a line end.
 * ANSWERS are how many the bytes bring, PIECES in how many they are sent, STATUSES like 200 or 200,429. A 0 among them:
 * the connection may as well be closed without a whole answer; nothing but 0: whatever comes is read to its end. A kind
 * whose bytes begin with HEAD is answered without a body. A connection is used for one kind after the other until an
 * answer says close. Prints a line of JSON; the first thing that was not as it should be is told.
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
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define KINDS_MAX 512
#define STATUSES_MAX 8
#define BUFFER_BYTES 262144              /* the largest answer, its head and framing included */

struct kind {
	char name[64];
	unsigned weight, answers, pieces;
	unsigned statuses[STATUSES_MAX];
	unsigned n_statuses;
	char *bytes;
	size_t n;
	bool is_head, may_close;
	uint64_t count;
};

struct client {
	int fd;
	const struct kind *kind;
	size_t sent;
	unsigned answered;
	bool is_fresh;                   /* nothing was asked on it yet */
	bool ends;                       /* an answer said close */
	size_t n;
	char buffer[BUFFER_BYTES];
};

struct answer {                          /* one that is whole */
	unsigned status;
	size_t bytes;
	bool ends;
};

static struct {
	unsigned port, connections, seed;
	uint64_t requests;
	const char *kinds;
} options = { .connections = 32, .seed = 1, .requests = 1000 };

static struct kind kinds[KINDS_MAX];
static unsigned n_kinds, weights;
static uint64_t n_answers, n_closed, n_again, n_errors, by_status[600];
static char first_error[600];
static int loop;
static uint64_t dice;

static void stop(const char *why)
{
	fprintf(stderr, "mixbench: %s: %s\n", why, strerror(errno));
	exit(1);
}

/* ---------- kinds ---------- */

static void read_statuses(struct kind *k, const char *p)
{
	for (;; p++) {
		char *end;
		unsigned status = (unsigned)strtoul(p, &end, 10);

		if (status == 0)
			k->may_close = true;
		else if (k->n_statuses < STATUSES_MAX)
			k->statuses[k->n_statuses++] = status;
		p = end;
		if (*p != ',')
			return;
	}
}

static void read_kinds(void)
{
	FILE *file = fopen(options.kinds, "rb");
	char statuses[128];

	if (!file)
		stop(options.kinds);
	while (n_kinds < KINDS_MAX) {
		struct kind *k = &kinds[n_kinds];

		if (fscanf(file, "%63s %u %u %u %127s %zu", k->name, &k->weight, &k->answers, &k->pieces, statuses,
				&k->n) != 6)
			break;
		k->bytes = malloc(k->n + 1);
		if (!k->bytes || fgetc(file) != '\n' || fread(k->bytes, 1, k->n, file) != k->n || k->pieces == 0)
			stop("the kinds");
		read_statuses(k, statuses);
		k->is_head = k->n > 5 && memcmp(k->bytes, "HEAD ", 5) == 0;
		weights += k->weight;
		n_kinds++;
	}
	fclose(file);
	if (weights == 0)
		stop("no kinds");
}

static const struct kind *pick(void)
{
	dice ^= dice << 13;                      /* xorshift */
	dice ^= dice >> 7;
	dice ^= dice << 17;
	unsigned at = (unsigned)(dice % weights);
	struct kind *k = kinds;

	while (at >= k->weight)
		at -= k++->weight;
	k->count++;
	return k;
}

/* ---------- answers ---------- */

static void complain(const struct client *c, const char *what)
{
	if (n_errors++ > 0)
		return;
	int n = snprintf(first_error, sizeof first_error, "%s: %s; sent %zu of %zu, %u of %u answers: ", c->kind->name,
		what, c->sent, c->kind->n, c->answered, c->kind->answers);
	for (size_t i = 0; i < c->n && i < 200 && n < (int)sizeof first_error - 2; i++) {
		char b = c->buffer[i];
		first_error[n++] = b < 32 || b > 126 || b == '"' || b == '\\' ? '.' : b;
	}
	first_error[n] = 0;
}

/* Where the chunked body that begins here ends; 0: not all is there, -1: it is none. */
static long find_chunks_end(const char *p, size_t n)
{
	size_t at = 0;

	for (;;) {
		const char *line = memmem(p + at, n - at, "\r\n", 2);
		char *end;

		if (!line)
			return 0;
		unsigned long size = strtoul(p + at, &end, 16);

		if (end == p + at || size > BUFFER_BYTES)
			return -1;
		at = (size_t)(line - p) + 2;
		if (size == 0) {
			if (n - at >= 2 && memcmp(p + at, "\r\n", 2) == 0)
				return (long)at + 2;
			const char *blank = memmem(p + at, n - at, "\r\n\r\n", 4);   /* trailers */
			return blank ? blank - p + 4 : 0;
		}
		if (n - at < size + 2)
			return 0;
		if (memcmp(p + at + size, "\r\n", 2) != 0)
			return -1;
		at += size + 2;
	}
}

static const char *find_field(const char *head, size_t n, const char *name)
{
	size_t size = strlen(name);

	for (const char *p = head; (p = memmem(p, (size_t)(head + n - p), "\r\n", 2)); ) {
		p += 2;
		if ((size_t)(head + n - p) > size && strncasecmp(p, name, size) == 0 && p[size] == ':')
			return p + size + 1 + strspn(p + size + 1, " ");
	}
	return NULL;
}

/* 1: a whole answer, 0: not yet, -1: no answer of HTTP. */
static int parse(const struct client *c, struct answer *a)
{
	const char *p = c->buffer, *blank = memmem(p, c->n, "\r\n\r\n", 4);

	if (c->n >= 5 && memcmp(p, "HTTP/", 5) != 0)
		return -1;
	if (!blank)
		return c->n == sizeof c->buffer ? -1 : 0;
	size_t head = (size_t)(blank - p) + 4;

	*a = (struct answer){ .status = (unsigned)strtoul(p + 9, NULL, 10), .bytes = head };
	if (a->status < 100 || a->status > 599)
		return -1;
	const char *connection = find_field(p, head, "connection"), *length = find_field(p, head, "content-length");

	a->ends = connection && strncasecmp(connection, "close", 5) == 0;
	if (c->kind->is_head || a->status < 200 || a->status == 204 || a->status == 304)
		return 1;
	if (find_field(p, head, "transfer-encoding")) {
		long end = find_chunks_end(p + head, c->n - head);

		a->bytes += (size_t)(end > 0 ? end : 0);
		return end < 0 ? -1 : end > 0;
	}
	if (!length)
		return -1;                       /* the gateway never answers HTTP/1.1 without a framing */
	a->bytes += strtoul(length, NULL, 10);
	return a->bytes > sizeof c->buffer ? -1 : c->n >= a->bytes;
}

static bool is_wanted(const struct kind *k, unsigned status)
{
	for (unsigned i = 0; i < k->n_statuses; i++)
		if (k->statuses[i] == status)
			return true;
	return false;
}

/* ---------- connections ---------- */

static void watch(struct client *c, int how, bool wants_out)
{
	struct epoll_event event = { .events = EPOLLIN | (wants_out ? EPOLLOUT : 0), .data.ptr = c };

	if (epoll_ctl(loop, how, c->fd, &event) < 0)
		stop("epoll_ctl");
}

static void begin(struct client *c, const struct kind *kind)
{
	c->kind = kind;
	c->sent = 0;
	c->answered = 0;
	watch(c, EPOLL_CTL_MOD, true);
}

static void open_client(struct client *c)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons((uint16_t)options.port) };

	to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&to, sizeof to) < 0)
		stop("connect");
	setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &(int){ 1 }, sizeof(int));
	c->n = 0;
	c->ends = false;
	c->is_fresh = true;
	watch(c, EPOLL_CTL_ADD, false);
}

static void open_again(struct client *c, const struct kind *kind)
{
	/* What was answered with "close" may have more on its way: a reset leaves no TIME_WAIT either. */
	setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &(struct linger){ 1, 0 }, sizeof(struct linger));
	close(c->fd);
	open_client(c);
	begin(c, kind);
}

/* The other side ended it. */
static void lose(struct client *c)
{
	if (c->answered == 0 && c->n == 0 && !c->is_fresh && !c->kind->may_close) {
		n_again++;                       /* a kept one, closed while the request was on its way */
		open_again(c, c->kind);
		return;
	}
	if (c->kind->may_close) {
		n_closed++;
		n_answers++;
	} else {
		complain(c, "the connection ended");
	}
	open_again(c, pick());
}

static void push(struct client *c)
{
	const struct kind *k = c->kind;
	size_t piece = k->n / k->pieces + 1, left = k->n - c->sent;

	if (left == 0)
		return;
	ssize_t n = send(c->fd, k->bytes + c->sent, left < piece ? left : piece, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (n > 0)
		c->sent += (size_t)n;            /* an error is seen by recv() too */
	if (c->sent == k->n || (n < 0 && errno != EAGAIN))
		watch(c, EPOLL_CTL_MOD, false);
}

/* Takes one answer; false: there is no whole one. */
static bool take(struct client *c)
{
	struct answer a;
	int found = c->n > 0 ? parse(c, &a) : 0;

	if (found < 0) {
		complain(c, "no answer of HTTP");
		open_again(c, pick());
		return false;
	}
	if (found == 0)
		return false;
	c->is_fresh = false;
	if (a.status >= 200) {
		by_status[a.status]++;
		c->answered++;
		n_answers++;
		c->ends |= a.ends;
		if (!is_wanted(c->kind, a.status))
			complain(c, "another status");
	}
	memmove(c->buffer, c->buffer + a.bytes, c->n - a.bytes);
	c->n -= a.bytes;
	return true;
}

static void pull(struct client *c)
{
	ssize_t n = recv(c->fd, c->buffer + c->n, sizeof c->buffer - c->n, MSG_DONTWAIT);

	if (n < 0 && errno == EAGAIN)
		return;
	if (n <= 0) {
		lose(c);
		return;
	}
	c->n += (size_t)n;
	if (c->kind->n_statuses == 0)
		c->n = 0;
	while (take(c)) {
		if (c->answered < c->kind->answers && !c->ends)
			continue;
		if (c->answered < c->kind->answers && !c->kind->may_close)
			complain(c, "closed before all answers");
		if (c->n > 0)
			complain(c, "more than was asked for");
		if (c->ends || c->sent < c->kind->n || c->n > 0)
			open_again(c, pick());
		else
			begin(c, pick());
		return;
	}
}

static void run(void)
{
	struct client *clients = calloc(options.connections, sizeof *clients);
	struct epoll_event events[64];

	if (!clients)
		stop("calloc");
	for (unsigned i = 0; i < options.connections; i++) {
		open_client(&clients[i]);
		begin(&clients[i], pick());
	}
	while (n_answers < options.requests && n_errors < 100) {
		int n = epoll_wait(loop, events, 64, 30000);

		if (n == 0) {
			complain(&clients[0], "nothing came for 30 s");
			return;
		}
		for (int i = 0; i < n; i++) {
			struct client *c = events[i].data.ptr;
			if (events[i].events & EPOLLOUT)
				push(c);
			if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))
				pull(c);
		}
	}
}

static void print(void)
{
	const char *comma = "";

	printf("{\"requests\":%llu,\"errors\":%llu,\"first\":\"%s\",\"closed\":%llu,\"again\":%llu,\"status\":{",
		(unsigned long long)n_answers, (unsigned long long)n_errors, first_error, (unsigned long long)n_closed,
		(unsigned long long)n_again);
	for (unsigned i = 0; i < 600; i++) {
		if (by_status[i]) {
			printf("%s\"%u\":%llu", comma, i, (unsigned long long)by_status[i]);
			comma = ",";
		}
	}
	printf("},\"kinds\":{");
	for (unsigned i = 0; i < n_kinds; i++)
		printf("%s\"%s\":%llu", i ? "," : "", kinds[i].name, (unsigned long long)kinds[i].count);
	printf("}}\n");
}

int main(int argc, char **argv)
{
	static const struct option known[] = {
		{ "port", required_argument, NULL, 'p' }, { "connections", required_argument, NULL, 'c' },
		{ "requests", required_argument, NULL, 'n' }, { "kinds", required_argument, NULL, 'k' },
		{ "seed", required_argument, NULL, 's' }, { 0 },
	};
	int o;

	while ((o = getopt_long(argc, argv, "", known, NULL)) != -1) {
		switch (o) {
		case 'p': options.port = (unsigned)strtoul(optarg, NULL, 10); break;
		case 'c': options.connections = (unsigned)strtoul(optarg, NULL, 10); break;
		case 'n': options.requests = strtoull(optarg, NULL, 10); break;
		case 'k': options.kinds = optarg; break;
		case 's': options.seed = (unsigned)strtoul(optarg, NULL, 10); break;
		default: return 1;
		}
	}
	if (!options.kinds || !options.port)
		return 1;
	dice = 0x9e3779b97f4a7c15u ^ options.seed;
	loop = epoll_create1(EPOLL_CLOEXEC);
	read_kinds();
	run();
	print();
	return 0;
}
