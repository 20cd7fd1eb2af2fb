/*
 * record.c -- the access record: one JSON line for each exchange, written straight into the log ring; and its counters.
 *
 * Values that came from a peer are escaped and cut; nothing of bodies or credentials is written (query strings may
 * carry tokens and are left out).
 */
#ifdef __SSE2__
#include <emmintrin.h>
#endif
#include "core/clock.h"
#include "core/log.h"
#include "core/metric.h"
#include "proxy/attempt.h"
#include "proxy/exchange.h"
#include "proxy/worker.h"

#undef TEXT
#undef TEXT_MAX
#undef NUMBER
#define TEXT_MAX 512
#define RECORD_MAX (12 * TEXT_MAX * 6 + 1024 + LEFT_MAX * (TEXT_MAX + 64))
#define LEFT_MAX 8                        /* services that were turned away from */
#define MEMBER_MAX 1572864                 /* of exchange_keep_member() */
#define RECORD_NAME_MAX 64
#define RECORD_FRAGMENT_MAX (RECORD_NAME_MAX + 6 * TEXT_MAX + 32)

static bool is_plain(unsigned char c)
{
	return c >= 0x20 && c < 0x7f && c != '"' && c != '\\';
}

#define BLOCK 16                          /* bytes behind a text that may be read, whatever they are */

/* Whether n bytes need no escape. */
static inline bool is_plain_text(const char *p, size_t n)
{
#ifdef __SSE2__
	for (size_t i = 0; i < n; i += BLOCK) {
		__m128i v = _mm_loadu_si128((const __m128i *)(const void *)(p + i));
		/* One more makes DEL and the bytes from 0x80 on negative, or zero. */
		__m128i odd = _mm_cmplt_epi8(_mm_add_epi8(v, _mm_set1_epi8(1)), _mm_set1_epi8(0x21));
		unsigned bits;

		odd = _mm_or_si128(odd, _mm_or_si128(_mm_cmpeq_epi8(v, _mm_set1_epi8('"')),
						     _mm_cmpeq_epi8(v, _mm_set1_epi8('\\'))));
		bits = (unsigned)_mm_movemask_epi8(odd);
		if (n - i < BLOCK)
			bits &= (1U << (n - i)) - 1;
		if (bits)
			return false;
	}
	return true;
#else
	while (n > 0 && is_plain((unsigned char)p[n - 1]))
		n--;
	return n == 0;
#endif
}

__attribute__((noinline)) static char *escape(char *out, struct str value)
{
	static const char hex[] = "0123456789abcdef";

	for (size_t i = 0; i < value.n; i++) {
		unsigned char c = (unsigned char)value.p[i];

		if (is_plain(c)) {
			*out++ = (char)c;
			continue;
		}
		out = STR_PUT(out, "\\u00");
		*out++ = hex[c >> 4];
		*out++ = hex[c & 15];
	}
	return out;
}

/*
 * A value and its closing quote, with what JSON does not allow escaped; bytes that may be no UTF-8 as \u00xx. It is
 * judged where it was copied to: there a block may be read past its end.
 */
static char *text(char *out, struct str value)
{
	char *end;

	value.n = value.n < TEXT_MAX ? value.n : TEXT_MAX;
	end = str_put(out, value);
	if (UNLIKELY(!is_plain_text(out, value.n)))
		end = escape(out, value);
	*end++ = '"';
	return end;
}
#define TEXT(out, name, value) text(STR_PUT((out), ",\"" name "\":\""), (value))

struct str record_fragment(struct arena *a, const char *name, struct str value)
{
	char text_of[RECORD_FRAGMENT_MAX], *out = STR_PUT(text_of, ",\"");
	struct str name_str = str_of(name);

	BUG_ON(name_str.n > RECORD_NAME_MAX);
	out = text(STR_PUT(str_put(out, name_str), "\":\""), value);
	return arena_copy(a, (struct str){ text_of, (size_t)(out - text_of) });
}

/*
 * For values that cannot hold a quote, a backslash or a control byte: our own words, and what the parser has checked.
 */
static inline char *plain(char *out, struct str value)
{
	out = str_put(out, (struct str){ value.p, value.n < TEXT_MAX ? value.n : TEXT_MAX });
	*out++ = '"';
	return out;
}
#define PLAIN(out, name, value) plain(STR_PUT((out), ",\"" name "\":\""), (value))
#define NUMBER(out, name, v) str_put_u64(STR_PUT((out), ",\"" name "\":"), (uint64_t)(v))

static char *upstream_part(const struct exchange *x, char *out)
{
	if (x->service)
		out = str_put(out, x->service->record);
	if (x->endpoint) {
		out = str_put(out, x->endpoint->record);
		out = NUMBER(out, "attempts", x->attempts);
	}
	if (x->upstream_start_us && x->call.connected_us)
		out = NUMBER(out, "connectUs", x->call.connected_us - x->upstream_start_us);
	if (x->upstream_head_us)
		out = NUMBER(out, "upstreamHeadUs", x->upstream_head_us - x->upstream_start_us);
	return out;
}

/* Services that were turned away from: "leftServices":[{"service":"svc-1","status":503,"why":"status"}]. */
static char *left_part(const struct attempt *a, char *out)
{
	out = STR_PUT(out, ",\"leftServices\":[");
	for (unsigned i = 0; i < a->n_left && i < LEFT_MAX; i++) {
		const struct left_service *left = &a->left[i];

		out = i > 0 ? STR_PUT(out, ",{") : STR_PUT(out, "{");
		out = text(STR_PUT(out, "\"service\":\""), left->name);
		out = NUMBER(out, "status", left->status);
		out = PLAIN(out, "why", str_of(left->why));
		*out++ = '}';
	}
	*out++ = ']';
	return out;
}

static char *token_part(const struct token_facts *t, char *out)
{
	if (t->subject.n)
		out = TEXT(out, "jwtSub", t->subject);
	return t->issuer.n ? TEXT(out, "jwtIss", t->issuer) : out;
}

static char *policy_part(const struct exchange *x, char *out)
{
	if (x->answered_by) {
		out = PLAIN(out, "policy", str_of(x->answered_by->class->name));
		out = TEXT(out, "policyId", x->answered_by->policy_id);
	}
	if (x->waited_us) {
		out = NUMBER(out, "waitedUs", x->waited_us);
		out = PLAIN(out, "waitedFor", str_of(x->waited_for));
	}
	if (x->broken)
		out = PLAIN(out, "broken", str_of(x->broken));
	return out;
}

static char *start(char *out, struct str request_id)
{
	out = STR_PUT(out, "{\"time\":\"");
	log_time(out);
	out += 24;
	out = STR_PUT(out, "\",\"level\":\"info\",\"event\":\"access\"");
	return PLAIN(out, "requestId", request_id);
}

/* What a connection of a TCP gateway has instead of a request. */
static char *tcp_part(const struct exchange *x, char *out)
{
	out = PLAIN(out, "protocol", STR("tcp"));
	out = NUMBER(out, "port", x->peer_port);
	return x->host.n ? PLAIN(out, "serverName", x->host) : out;
}

static char *request_part(const struct exchange *x, char *out, int status)
{
	out = PLAIN(out, "method", x->stream.req.method_name);
	out = TEXT(out, "host", x->host);
	out = TEXT(out, "path", x->path);
	if (UNLIKELY(x->stream.req.path.p != x->path.p))
		out = TEXT(out, "upstreamPath", x->stream.req.path);
	out = NUMBER(out, "status", status);
	return x->res.upgrade.n ? PLAIN(out, "protocol", x->res.upgrade) : out;
}

/* Several flags where tries were made elsewhere or in vain: "FB,URX,UF". */
static char *attempt_flag(const struct exchange *x, const char *flag, char *out)
{
	char text[64], *end = attempt_flags(x, text);

	end = str_put(end, (struct str){ flag, strnlen(flag, 16) });
	if (end > text && end[-1] == ',')
		end--;
	return end > text ? PLAIN(out, "flag", ((struct str){ text, (size_t)(end - text) })) : out;
}

static void write_record(const struct exchange *x, int status, int64_t now_us)
{
	const struct reason *r = &reasons[x->reason];
	const char *flag = x->flag ? x->flag : r->flag;
	char *line = log_reserve(RECORD_MAX + x->member.n), *out = line;

	if (!line)
		return;
	out = start(out, x->request_id);
	out = PLAIN(out, "client", x->client_text);
	out = x->is_tcp ? tcp_part(x, out) : request_part(x, out, status);
	out = NUMBER(out, "bytesIn", x->stream.received);
	out = NUMBER(out, "bytesOut", x->stream.sent);
	out = NUMBER(out, "durationUs", now_us - x->stream.start_us);
	if (x->tls_record.n)
		out = str_put(out, x->tls_record);
	if (x->consumer.n)
		out = TEXT(out, "consumer", x->consumer);
	if (x->token)
		out = token_part(x->token, out);
	if (x->site)
		out = str_put(out, x->site->gateway->record);
	if (x->site && x->site->domain_name.n)
		out = TEXT(out, "domain", x->site->domain_name);
	if (x->route)
		out = str_put(out, x->route->record);
	out = upstream_part(x, out);
	if (x->attempt && x->attempt->n_left > 0)
		out = left_part(x->attempt, out);
	out = policy_part(x, out);
	if (x->attempt)
		out = attempt_flag(x, flag, out);
	else if (*flag)
		out = PLAIN(out, "flag", str_of(flag));
	out = PLAIN(out, "reason", str_of(r->text));
	if (UNLIKELY(x->member.n > 0) && x->member.n <= MEMBER_MAX)
		out = str_put(out, x->member);
	out = STR_PUT(out, "}\n");
	log_commit((size_t)(out - line));
}

void record_refused(const struct ip *peer, int status, const char *tag, struct str request_id)
{
	char ip[46], *line = log_reserve(RECORD_MAX), *out = line;

	if (!line)
		return;
	out = start(out, request_id);
	out = PLAIN(out, "client", ((struct str){ ip, ip_print(peer, ip) }));
	out = NUMBER(out, "status", status);
	out = PLAIN(out, "flag", STR("BR"));
	out = PLAIN(out, "reason", str_of(tag));
	out = STR_PUT(out, "}\n");
	log_commit((size_t)(out - line));
}

void exchange_record(struct exchange *x, enum stream_end how)
{
	int64_t now_us = clock_now_us();
	int status = x->stream.head_sent ? x->res.status : 0;
	struct series *traffic = x->route ? x->route->traffic : x->site ? x->site->gateway->traffic : NULL;

	(void)how;
	if (traffic)
		metric_count_traffic(traffic, &(struct metric_traffic){
			.status = status, .us = x->is_tunnel ? -1 : now_us - x->stream.start_us,
			.in = (int64_t)x->stream.received, .out = (int64_t)x->stream.sent });
	if (worker_settings(x->worker)->access_log)
		write_record(x, status, now_us);
}
