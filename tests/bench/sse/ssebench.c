/*
 * ssebench.c -- events through one gateway: their upstream and their readers in one epoll thread, with one clock.
 *
 * Each reader asks for an endless answer. The upstream sends events of 50 bytes, a chunk each, on the streams in turn.
 * An event holds the time when it was handed to the kernel. Prints a line of JSON on the time after the warm-up.
 *
 *     --port P              gateway, or the upstream itself
 *     --upstream P          listen here as upstream
 *     --streams N           200        --rate R      events a second on each stream, 100
 *     --seconds S           2          --warmup S    0.5
 *     --path PATH           /r0/events
 *     --chat                chunks of a model's answer instead, asked for by POST
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

#define STREAMS_MAX 4096
#define EVENT_MAX 256
#define PLAIN_BYTES 50
#define DIGITS 19
#define CHUNK_BEFORE "data: {\"id\":\""
#define CHUNK_AFTER "\",\"object\":\"chat.completion.chunk\",\"created\":1764150000,\"model\":\"gpt-4\"," \
	"\"choices\":[{\"index\":0,\"delta\":{\"content\":\" word\"},\"finish_reason\":null}]}\n\n"
#define QUESTION "{\"model\":\"gpt-4\",\"stream\":true,\"messages\":[{\"role\":\"user\",\"content\":\"Go on.\"}]}"
#define HELD_NS 40000000LL               /* later than any queue explains: a timer of TCP was waited for */
#define DRAIN_NS 300000000LL

enum role { ROLE_READER, ROLE_SOURCE, ROLE_LISTENER };

struct peer {
	enum role role;
	int fd;
	size_t kept;                     /* bytes of an event that came in parts */
	char part[EVENT_MAX];
};

static struct {
	unsigned port, upstream, streams;
	double rate, seconds, warmup;
	const char *path, *pids;
	bool is_chat;
} options = { .streams = 200, .rate = 100, .seconds = 2, .warmup = 0.5, .path = "/r0/events" };

static size_t event_bytes = PLAIN_BYTES, digits_at = 6;
static struct peer *sources[STREAMS_MAX];
static unsigned n_sources, next_source;
static int loop;
static int64_t begin_ns, end_ns;         /* events sent in between count */
static uint64_t sent, received, held, errors;
static uint32_t *delays_ns;
static size_t delays_room;

static int64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void stop(const char *what)
{
	fprintf(stderr, "ssebench: %s: %s\n", what, strerror(errno));
	exit(1);
}

/* ---------- sockets ---------- */

static struct peer *watch(int fd, enum role role)
{
	struct peer *p = calloc(1, sizeof *p);
	struct epoll_event e = { .events = EPOLLIN, .data.ptr = p };

	if (!p || epoll_ctl(loop, EPOLL_CTL_ADD, fd, &e) < 0)
		stop("epoll_ctl");
	*p = (struct peer){ .role = role, .fd = fd };
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){ 1 }, sizeof(int));
	return p;
}

static struct sockaddr_in local_port(unsigned port)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };

	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	return a;
}

static void listen_upstream(void)
{
	struct sockaddr_in at = local_port(options.upstream);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){ 1 }, sizeof(int));
	if (bind(fd, (struct sockaddr *)&at, sizeof at) < 0 || listen(fd, 4096) < 0)
		stop("upstream port");
	watch(fd, ROLE_LISTENER);
}

static void open_reader(void)
{
	struct sockaddr_in to = local_port(options.port);
	char text[512];
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof to) < 0)
		stop("connect");
	int n = snprintf(text, sizeof text, "GET %s HTTP/1.1\r\nHost: bench.test\r\nAccept: text/event-stream\r\n\r\n",
		options.path);
	if (options.is_chat)
		n = snprintf(text, sizeof text, "POST %s HTTP/1.1\r\nHost: bench.test\r\n"
			"Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n" QUESTION, options.path,
			sizeof QUESTION - 1);
	if (send(fd, text, (size_t)n, MSG_NOSIGNAL) != n)
		stop("send");
	watch(fd, ROLE_READER);
}

/* ---------- the upstream ---------- */

static void begin_stream(struct peer *p)
{
	static const char head[] = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n"
				   "Transfer-Encoding: chunked\r\n\r\n";
	char text[4096];
	ssize_t n = recv(p->fd, text, sizeof text, MSG_DONTWAIT);

	if (n <= 0) {
		close(p->fd);
		return;
	}
	/* A request comes in one piece here. */
	const char *last = options.is_chat ? "}" : "\r\n\r\n";
	if (n < 4 || memcmp(text + n - strlen(last), last, strlen(last)) != 0 || n_sources == STREAMS_MAX)
		stop("a request in parts");
	sources[n_sources++] = p;
	if (send(p->fd, head, sizeof head - 1, MSG_NOSIGNAL) < 0)
		stop("send");
}

static void send_event(void)
{
	struct peer *p = sources[next_source];
	char text[EVENT_MAX + 16];
	int64_t at = now_ns();
	int n;

	if (options.is_chat)
		n = snprintf(text, sizeof text, "%zx\r\n" CHUNK_BEFORE "%0*lld" CHUNK_AFTER "\r\n", event_bytes, DIGITS,
			(long long)at);
	else
		n = snprintf(text, sizeof text, "%zx\r\ndata: %0*lld%0*d\n\n\r\n", event_bytes, DIGITS,
			(long long)at, PLAIN_BYTES - 8 - DIGITS, 0);

	next_source = next_source + 1 < n_sources ? next_source + 1 : 0;
	if (send(p->fd, text, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT) != n)
		errors++;
	sent += at >= begin_ns && at < end_ns;
}

/* ---------- readers ---------- */

static void take_event(const char *p, int64_t now)
{
	int64_t at = strtoll(p, NULL, 10);

	for (int i = 0; i < DIGITS; i++)
		if (p[i] < '0' || p[i] > '9') {
			errors++;
			return;
		}
	if (at < begin_ns || at >= end_ns)
		return;
	held += now - at > HELD_NS;
	if (received < delays_room)
		delays_ns[received] = (uint32_t)(now - at);
	received++;
}

static void read_events(struct peer *p)
{
	static char bytes[65536 + EVENT_MAX];
	ssize_t n = recv(p->fd, bytes + p->kept, sizeof bytes - p->kept, MSG_DONTWAIT);
	int64_t now = now_ns();

	if (n <= 0) {
		errors += n == 0 || errno != EAGAIN;
		if (n == 0)
			close(p->fd);
		return;
	}
	memcpy(bytes, p->part, p->kept);
	const char *at = bytes, *end = bytes + p->kept + n, *mark;
	while ((mark = memmem(at, (size_t)(end - at), "data: ", 6)) && (size_t)(end - mark) >= event_bytes) {
		char digits[DIGITS + 1] = "";

		memcpy(digits, mark + digits_at, DIGITS);
		take_event(digits, now);
		at = mark + event_bytes;
	}
	if (!mark)
		mark = end - at > 5 ? end - 5 : at;
	p->kept = (size_t)(end - mark);
	memcpy(p->part, mark, p->kept);
}

/* ---------- the run ---------- */

static void dispatch(struct peer *p)
{
	int fd;

	switch (p->role) {
	case ROLE_READER:
		read_events(p);
		break;
	case ROLE_SOURCE:
		begin_stream(p);
		break;
	case ROLE_LISTENER:
		while ((fd = accept4(p->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0)
			watch(fd, ROLE_SOURCE);
		break;
	}
}

static void turn(int64_t until_ns)
{
	struct epoll_event events[256];
	int64_t left = until_ns - now_ns();
	struct timespec wait = { 0, 0 };

	if (left > 0)
		wait = (struct timespec){ left / 1000000000, left % 1000000000 };
	int n = epoll_pwait2(loop, events, 256, &wait, NULL);
	for (int i = 0; i < n; i++)
		dispatch(events[i].data.ptr);
}

static void cpu_seconds(double *user, double *kernel)
{
	char path[64], text[1024];
	unsigned long u, s;

	*user = *kernel = 0;
	for (const char *p = options.pids; p && *p; p += strcspn(p, ","), p += *p == ',') {
		snprintf(path, sizeof path, "/proc/%ld/stat", strtol(p, NULL, 10));
		FILE *f = fopen(path, "r");
		size_t n = f ? fread(text, 1, sizeof text - 1, f) : 0;
		if (f)
			fclose(f);
		text[n] = 0;
		const char *rest = strrchr(text, ')');
		if (rest && sscanf(rest + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &u, &s) == 2) {
			*user += (double)u / (double)sysconf(_SC_CLK_TCK);
			*kernel += (double)s / (double)sysconf(_SC_CLK_TCK);
		}
	}
}

static int compare(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

static double delay_us(double share)
{
	size_t n = received < delays_room ? received : delays_room;

	return n ? delays_ns[(size_t)((double)(n - 1) * share)] / 1000.0 : 0;
}

static void print_results(double user, double kernel)
{
	double n = sent ? (double)sent : 1;

	printf("{\"sent\":%llu,\"received\":%llu,\"held\":%llu,\"errors\":%llu", (unsigned long long)sent,
		(unsigned long long)received, (unsigned long long)held, (unsigned long long)errors);
	printf(",\"p50_us\":%.1f,\"p99_us\":%.1f,\"max_us\":%.1f", delay_us(0.5), delay_us(0.99), delay_us(1));
	printf(",\"user_us\":%.3f,\"kernel_us\":%.3f,\"cpu_us\":%.3f}\n", user * 1e6 / n, kernel * 1e6 / n,
		(user + kernel) * 1e6 / n);
}

static void run(void)
{
	double user[2], kernel[2], step = 1e9 / (options.rate * options.streams);
	int64_t limit = now_ns() + 10000000000LL;

	for (unsigned i = 0; i < options.streams; i++) {
		open_reader();
		if (i % 32 == 31)
			turn(now_ns());
	}
	while (n_sources < options.streams && now_ns() < limit)
		turn(now_ns() + 1000000);
	if (n_sources < options.streams)
		stop("not all streams began");
	int64_t first = now_ns();
	begin_ns = first + (int64_t)(options.warmup * 1e9);
	end_ns = begin_ns + (int64_t)(options.seconds * 1e9);
	cpu_seconds(&user[0], &kernel[0]);
	bool counts = false;
	for (uint64_t i = 0; now_ns() < end_ns; ) {
		int64_t due = first + (int64_t)((double)i * step);

		if (!counts && now_ns() >= begin_ns) {
			counts = true;
			cpu_seconds(&user[0], &kernel[0]);
		}
		if (now_ns() < due) {
			turn(due);
		} else {
			send_event();
			/* After a batch that was late, what came meanwhile has its turn. */
			if (++i % 64 == 0)
				turn(now_ns());
		}
	}
	cpu_seconds(&user[1], &kernel[1]);
	while (received < sent && now_ns() < end_ns + DRAIN_NS)
		turn(now_ns() + 1000000);
	qsort(delays_ns, received < delays_room ? received : delays_room, sizeof *delays_ns, compare);
	print_results(user[1] - user[0], kernel[1] - kernel[0]);
}

static void read_options(int argc, char **argv)
{
	static const struct option known[] = {
		{ "port", 1, 0, 'p' }, { "upstream", 1, 0, 'u' }, { "streams", 1, 0, 'n' }, { "rate", 1, 0, 'r' },
		{ "seconds", 1, 0, 's' }, { "warmup", 1, 0, 'w' }, { "path", 1, 0, 'P' }, { "cpu", 1, 0, 'c' },
		{ "chat", 0, 0, 'C' }, { 0, 0, 0, 0 },
	};
	int o;

	while ((o = getopt_long(argc, argv, "", known, NULL)) != -1) {   /* flat switch */
		switch (o) {
		case 'p': options.port = (unsigned)strtoul(optarg, NULL, 10); break;
		case 'u': options.upstream = (unsigned)strtoul(optarg, NULL, 10); break;
		case 'n': options.streams = (unsigned)strtoul(optarg, NULL, 10); break;
		case 'r': options.rate = strtod(optarg, NULL); break;
		case 's': options.seconds = strtod(optarg, NULL); break;
		case 'w': options.warmup = strtod(optarg, NULL); break;
		case 'P': options.path = optarg; break;
		case 'c': options.pids = optarg; break;
		case 'C': options.is_chat = true; break;
		default: exit(2);
		}
	}
}

int main(int argc, char **argv)
{
	read_options(argc, argv);
	if (options.streams > STREAMS_MAX)
		stop("too many streams");
	signal(SIGPIPE, SIG_IGN);
	if (options.is_chat) {
		event_bytes = sizeof CHUNK_BEFORE CHUNK_AFTER - 1 + DIGITS;
		digits_at = sizeof CHUNK_BEFORE - 1;
	}
	delays_room = (size_t)(options.rate * options.streams * options.seconds * 1.2) + 1000;
	delays_ns = calloc(delays_room, sizeof *delays_ns);
	loop = epoll_create1(EPOLL_CLOEXEC);
	if (loop < 0 || !delays_ns)
		stop("start");
	listen_upstream();
	run();
	return errors > 0 ? 3 : 0;
}
