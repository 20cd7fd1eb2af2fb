/* answers.c -- what each path is answered. A function that set wake_ms runs again then, with `woken`. */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include "upstream.h"

static bool is_head_request(const struct connection *c)
{
	return c->head.n > 5 && memcmp(c->head.p, "HEAD ", 5) == 0;
}

void answer(struct connection *c, int status, const char *fields, const char *body, size_t n)
{
	add_text(&c->out, "HTTP/1.1 %d %s\r\nContent-Type: text/plain\r\nX-Port: %u\r\nX-Connection: %u\r\n", status,
		status == 200 ? "OK" : "As Asked", c->port, c->number);
	add(&c->out, fields, strlen(fields));
	if (status != 204 && status != 304)
		add_text(&c->out, "Content-Length: %zu\r\n", n);
	add(&c->out, "\r\n", 2);
	if (status != 204 && status != 304 && !is_head_request(c))
		add(&c->out, body, n);
}

static void answer_text(struct connection *c, const char *fields, const char *body)
{
	answer(c, 200, fields, body, strlen(body));
}

static void do_size(struct connection *c, const char *argument)
{
	uint64_t n = strtoull(argument, NULL, 10);

	add_text(&c->out, "HTTP/1.1 200 OK\r\nX-Port: %u\r\nContent-Type: text/plain\r\nContent-Length: %llu\r\n\r\n",
		c->port, (unsigned long long)n);
	c->stream_left = is_head_request(c) ? 0 : n;
}

static void do_chunked(struct connection *c, const char *argument)
{
	add_text(&c->out, "HTTP/1.1 200 OK\r\nX-Port: %u\r\nTransfer-Encoding: chunked\r\n\r\n", c->port);
	if (is_head_request(c))
		return;
	c->stream_left = strtoull(argument, NULL, 10);
	c->stream_chunked = true;
	if (c->stream_left == 0)
		add(&c->out, "0\r\n\r\n", 5);
}

static void do_trailers(struct connection *c, const char *argument)
{
	c->stream_trailers = true;
	do_chunked(c, *argument ? argument : "100");
}

static void do_until_close(struct connection *c, const char *argument)
{
	add_text(&c->out, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n");
	c->stream_left = strtoull(argument, NULL, 10);
	c->after = CLOSE;
}

static void do_delay(struct connection *c, const char *argument)
{
	if (!c->woken)
		c->wake_ms = now_ms() + (int64_t)strtoull(argument, NULL, 10);
	else
		answer_text(c, "", "late\n");
}

static void do_hang(struct connection *c, const char *argument)
{
	(void)argument;
	c->wake_ms = INT64_MAX;
}

static void do_status(struct connection *c, const char *argument)
{
	answer(c, (int)strtoul(argument, NULL, 10), "", "as asked\n", 9);
}

static void do_close(struct connection *c, const char *argument)
{
	(void)argument;
	answer_text(c, "Connection: close\r\n", "closing\n");
	c->after = CLOSE;
}

static void do_closed(struct connection *c, const char *argument)
{
	(void)argument;
	c->after = CLOSE;
}

static void do_reset(struct connection *c, const char *argument)
{
	(void)argument;
	c->after = RESET;
}

static void add_part(struct connection *c)
{
	add_text(&c->out, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n");
	for (unsigned i = 0; i < 100; i++)
		add(&c->out, "x", 1);
}

static void do_reset_mid(struct connection *c, const char *argument)
{
	(void)argument;
	if (c->woken) {
		c->after = RESET;
		return;
	}
	add_part(c);
	c->wake_ms = now_ms() + 50;               /* the part must have arrived before the reset */
}

static void do_cut_mid(struct connection *c, const char *argument)
{
	(void)argument;
	add_part(c);
	c->after = CLOSE;
}

static void do_cut_chunked(struct connection *c, const char *argument)
{
	(void)argument;
	add_text(&c->out, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n10\r\nabc");
	c->after = CLOSE;
}

static void do_slow(struct connection *c, const char *argument)
{
	char *end;
	uint64_t n = strtoull(argument, &end, 10);

	do_size(c, argument);
	c->stream_left = n;
	c->slow_ms = *end == '/' ? (unsigned)strtoul(end + 1, NULL, 10) : 10;
}

static void do_endless(struct connection *c, const char *argument)
{
	(void)argument;
	do_chunked(c, "1");
	c->stream_left = STREAM_ENDLESS;
}

static void do_stale_next(struct connection *c, const char *argument)
{
	(void)argument;
	answer_text(c, "", "the next request on this connection gets no answer\n");
	c->refuses_next = true;
}

static void do_early(struct connection *c, const char *argument)
{
	(void)argument;
	answer_text(c, "", "early\n");
}

static void do_early_close(struct connection *c, const char *argument)
{
	(void)argument;
	answer(c, 413, "Connection: close\r\n", "too large\n", 10);
	c->after = CLOSE;
}

static void do_stall_body(struct connection *c, const char *argument)
{
	if (c->woken) {
		answer_text(c, "", "at last\n");
		return;
	}
	c->is_stalled = true;
	c->wake_ms = now_ms() + (int64_t)strtoull(argument, NULL, 10);
}

static void do_continue(struct connection *c, const char *argument)
{
	(void)argument;
	add_text(&c->out, "HTTP/1.1 100 Continue\r\n\r\n");
	answer_text(c, "", "after 100\n");
}

static void do_hints(struct connection *c, const char *argument)
{
	(void)argument;
	add_text(&c->out, "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n");
	add_text(&c->out, "HTTP/1.1 103 Early Hints\r\n\r\n");
	answer_text(c, "", "after 103\n");
}

static void do_refuse_expectation(struct connection *c, const char *argument)
{
	(void)argument;
	answer(c, 417, "Connection: close\r\n", "no\n", 3);
	c->after = CLOSE;
}

static void do_hop(struct connection *c, const char *argument)
{
	(void)argument;
	answer_text(c, "Connection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\n"
		"Proxy-Connection: keep-alive\r\nX-Kept: yes\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n", "hop\n");
}

static const struct { const char *kind, *text; } garbage[] = {
	{ "text", "this is not HTTP at all\r\n\r\n" },
	{ "version", "HTTP/9.9 200 OK\r\nContent-Length: 0\r\n\r\n" },
	{ "status", "HTTP/1.1 2x0 OK\r\nContent-Length: 0\r\n\r\n" },
	{ "short-status", "HTTP/1.1 99 OK\r\nContent-Length: 0\r\n\r\n" },
	{ "no-colon", "HTTP/1.1 200 OK\r\nContent-Length 0\r\n\r\n" },
	{ "space-colon", "HTTP/1.1 200 OK\r\nX-A : b\r\nContent-Length: 0\r\n\r\n" },
	{ "empty-name", "HTTP/1.1 200 OK\r\n: b\r\nContent-Length: 0\r\n\r\n" },
	{ "two-lengths", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab" },
	{ "bad-length", "HTTP/1.1 200 OK\r\nContent-Length: 1x\r\n\r\na" },
	{ "negative-length", "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n" },
	{ "length-and-chunked", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" },
	{ "coding", "HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" },
	{ "control", "HTTP/1.1 200 OK\r\nX-A: b\001c\r\nContent-Length: 0\r\n\r\n" },
	{ "bare-cr", "HTTP/1.1 200 OK\r\nX-A: b\rc\r\nContent-Length: 0\r\n\r\n" },
	{ "fold", "HTTP/1.1 200 OK\r\nX-A: b\r\n c\r\nContent-Length: 0\r\n\r\n" },
	{ "http2", "\0\0\0\4\0\0\0\0\0" },
	{ "switch", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n" },
	/* the head is good, the body is not */
	{ "bad-chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n" },
	{ "no-chunk-end", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcdef\r\n0\r\n\r\n" },
	{ "huge-chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nabc\r\n0\r\n\r\n" },
	/* the answer is good, something follows it: the connection must not be used again */
	{ "extra", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison" },
};

static bool is_word_end(char byte)
{
	return !isalpha((unsigned char)byte) && byte != '-';
}

static void do_garbage(struct connection *c, const char *argument)
{
	for (size_t i = 0; i < sizeof garbage / sizeof *garbage; i++) {
		size_t n = strlen(garbage[i].kind);

		if (strncmp(argument, garbage[i].kind, n) == 0 && is_word_end(argument[n])) {
			bool is_binary = garbage[i].text[0] == 0;

			add(&c->out, garbage[i].text, is_binary ? 9 : strlen(garbage[i].text));
			c->after = strcmp(garbage[i].kind, "extra") == 0 ? KEEP : CLOSE;
			return;
		}
	}
	answer(c, 400, "", "unknown kind\n", 13);
}

static void do_big_head(struct connection *c, const char *argument)
{
	uint64_t n = strtoull(argument, NULL, 10);

	add_text(&c->out, "HTTP/1.1 200 OK\r\nX-Big: ");
	for (uint64_t i = 0; i < n; i++)
		add(&c->out, "b", 1);
	add_text(&c->out, "\r\nContent-Length: 0\r\n\r\n");
}

static void add_echo_fields(struct bytes *out, const struct bytes *lines, size_t skip)
{
	const char *p = lines->p + skip, *end = lines->p + lines->n;
	const char *comma = "";

	while (p && p < end && *p != '\r') {
		const char *colon = memchr(p, ':', (size_t)(end - p));
		const char *stop = memchr(p, '\r', (size_t)(end - p));
		const char *value = colon + 1;

		while (value < stop && (*value == ' ' || *value == '\t'))
			value++;
		add_text(out, "%s[", comma);
		add_json(out, p, (size_t)(colon - p));
		add(out, ",", 1);
		add_json(out, value, (size_t)(stop - value));
		add(out, "]", 1);
		comma = ",";
		p = stop + 2;
	}
}

static void do_echo(struct connection *c, const char *argument)
{
	struct bytes body = { 0 };
	const char *space = memchr(c->head.p, ' ', c->head.n);
	const char *second = memchr(space + 1, ' ', c->head.n);
	const char *line = memchr(c->head.p, '\n', c->head.n);

	(void)argument;
	add_text(&body, "{\"method\":");
	add_json(&body, c->head.p, (size_t)(space - c->head.p));
	add_text(&body, ",\"target\":");
	add_json(&body, space + 1, (size_t)(second - space - 1));
	add_text(&body, ",\"version\":\"%.8s\",\"headers\":[", second + 1);
	add_echo_fields(&body, &c->head, (size_t)(line + 1 - c->head.p));
	add_text(&body, "],\"trailers\":[");
	if (c->trailer.n > 0)
		add_echo_fields(&body, &c->trailer, 0);
	add_text(&body, "],\"address\":\"%s\"", c->address);
	add_text(&body, ",\"bodyBytes\":%llu,\"sha256\":\"", (unsigned long long)c->body_bytes);
	add_hex(&body, c->digest, sizeof c->digest);
	add_text(&body, "\",\"port\":%u,\"connection\":%u,\"turn\":%u}\n", c->port, c->number, c->turn);
	answer(c, 200, "", body.p, body.n);
	release(&body);
}

static const struct action actions[] = {
	{ "echo", do_echo, false }, { "size", do_size, false }, { "chunked", do_chunked, false },
	{ "trailers", do_trailers, false }, { "until-close", do_until_close, false }, { "delay", do_delay, false },
	{ "hang", do_hang, false }, { "status", do_status, false }, { "close", do_close, false },
	{ "closed", do_closed, false }, { "reset", do_reset, false }, { "reset-mid", do_reset_mid, false },
	{ "cut-mid", do_cut_mid, false }, { "cut-chunked", do_cut_chunked, false }, { "slow", do_slow, false },
	{ "endless", do_endless, false }, { "stale-next", do_stale_next, false }, { "early", do_early, true },
	{ "early-close", do_early_close, true }, { "stall-body", do_stall_body, true },
	{ "continue", do_continue, false },
	{ "hints", do_hints, false }, { "refuse-expectation", do_refuse_expectation, true }, { "hop", do_hop, false },
	{ "garbage", do_garbage, false }, { "big-head", do_big_head, false },
};

const struct action *find_action(const struct bytes *head, const char **argument)
{
	const char *p = memchr(head->p, ' ', head->n);
	const char *end = memchr(p + 1, ' ', head->n);

	while (p && p < end) {
		p++;
		size_t n = strcspn(p, "/? ");
		for (size_t i = 0; i < sizeof actions / sizeof *actions; i++)
			if (strlen(actions[i].word) == n && memcmp(p, actions[i].word, n) == 0) {
				*argument = p[n] == '/' ? p + n + 1 : "";
				return &actions[i];
			}
		p += n;
		if (*p != '/')
			break;
	}
	return NULL;
}

void add_stream(struct connection *c)
{
	char text[8192];
	uint64_t most = c->slow_ms ? 1 : sizeof text - c->stream_at % 3001;
	size_t n = (size_t)(c->stream_left < most ? c->stream_left : most);

	for (size_t i = 0; i < n; i++)
		text[i] = pattern(c->stream_at + i);
	if (c->stream_chunked)
		add_text(&c->out, "%zx\r\n", n);
	add(&c->out, text, n);
	if (c->stream_chunked)
		add(&c->out, "\r\n", 2);
	c->stream_at += n;
	if (c->stream_left != STREAM_ENDLESS)
		c->stream_left -= n;
	if (c->stream_left == 0 && c->stream_chunked)
		add_text(&c->out, c->stream_trailers ? "0\r\nX-Checksum: abc\r\nX-More: yes\r\n\r\n" : "0\r\n\r\n");
	if (c->slow_ms && c->stream_left > 0)
		c->wake_ms = now_ms() + c->slow_ms;
}
