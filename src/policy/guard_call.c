#include "policy/guard_call.h"
#include "core/clock.h"
#include "core/crypto.h"
#include "core/json.h"
#include "core/mem.h"

#define ANSWER_BYTES_MAX 262144           /* of the service; more is no answer */
#define REQUEST_FROM "sluice"
#define API_VERSION "2022-03-02"
#define FORM_TYPE STR("application/x-www-form-urlencoded")

/* ---------- pieces ---------- */

static bool begins_point(char c)
{
	return ((unsigned char)c & 0xc0) != 0x80;
}

/* Where `points` code points after `at` are over. */
static size_t skip_points(struct str text, size_t at, unsigned points)
{
	while (at < text.n) {
		if (begins_point(text.p[at]) && points-- == 0)
			break;
		at++;
	}
	return at;
}

struct str guard_piece(struct str text, size_t *at)
{
	size_t begin = *at, end = skip_points(text, begin, GUARD_PIECE_POINTS);

	*at = end;
	if (end < text.n)
		*at = skip_points(text, begin, GUARD_PIECE_POINTS - GUARD_OVERLAP_POINTS);
	return (struct str){ text.p + begin, end - begin };
}

static void add_encoded(struct sbuf *out, struct str s)
{
	static const char digits[] = "0123456789ABCDEF";

	sbuf_reserve(out, 3 * s.n);
	for (size_t i = 0; i < s.n; i++) {
		unsigned char c = (unsigned char)s.p[i];

		if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
		    c == '-' || c == '_' || c == '.' || c == '~') {
			sbuf_addc(out, s.p[i]);
		} else {
			const char triple[] = { '%', digits[c >> 4], digits[c & 15] };

			sbuf_add(out, (struct str){ triple, sizeof triple });
		}
	}
}

void guard_body(struct sbuf *out, struct str text, struct str session)
{
	struct sbuf json = { 0 };

	SBUF_LIT(&json, "{\"content\":");
	json_quote(&json, text);
	SBUF_LIT(&json, ",\"sessionId\":");
	json_quote(&json, session);
	SBUF_LIT(&json, ",\"requestFrom\":\"" REQUEST_FROM "\"}");
	SBUF_LIT(out, "ServiceParameters=");
	add_encoded(out, sbuf_str(&json));
	sbuf_free(&json);
}

/* ---------- calls ---------- */

static void send_piece(struct guard_call *g);

static void end(struct guard_call *g)
{
	g->is_running = false;
	g->duration_us = clock_us() - g->start_us;
	g->over(g);
}

static void end_broken(struct guard_call *g, const char *tag, struct str what)
{
	g->verdict.is_read = false;
	g->broken_tag = tag;
	g->broken = what;
	end(g);
}

/* The answer to one piece is there, or will not come. */
static void answered(struct side_call *c)
{
	struct guard_call *g = c->arg;
	struct arena *a = exchange_arena(g->x);
	bool is_first = !g->verdict.is_read;
	struct guard_verdict v;

	if (c->failure != SIDE_ANSWERED) {
		g->is_ours = c->failure == SIDE_BUSY;
		end_broken(g, side_failure_text(c->failure), side_call_describe(c, a));
		return;
	}
	if (c->res.status != 200) {
		end_broken(g, "its answer has another status than 200",
			   arena_printf(a, "it answered %d", c->res.status));
		return;
	}
	guard_judge(&v, a, c->body, g->bars);
	if (is_first)
		g->verdict = v;
	else
		guard_merge(&g->verdict, &v);
	if (!v.is_read)
		end_broken(g, v.broken, str_of(v.broken));
	else if (v.blocks || g->at >= g->text.n)
		end(g);
	else
		send_piece(g);
}

static void drop_call(struct guard_call *g)
{
	if (g->call)
		side_call_free(g->call);
	g->call = NULL;
}

static void send_piece(struct guard_call *g)
{
	const struct guard_question *q = g->question;
	const struct str session = { g->session, GUARD_SESSION };
	struct header lines[ACS_LINES_MAX];
	struct arena scratch = { 0 };
	struct side_request request = {
		.kind = SIDE_GUARD, .url = q->url, .target = q->target, .authority = q->authority,
		.method = STR("POST"), .headers = lines, .timeout_ms = g->plan->timeout_ms,
		.body_max = ANSWER_BYTES_MAX, .may_repeat = true,
	};

	drop_call(g);
	g->body.n = 0;
	guard_body(&g->body, guard_piece(g->text, &g->at), session);
	request.body = sbuf_str(&g->body);
	request.n_headers = acs_sign(&g->plan->key, &(struct acs_request){
		.host = q->authority, .target = q->target, .action = q->action, .version = STR(API_VERSION),
		.content_type = FORM_TYPE, .body = request.body, .nonce = acs_nonce(&scratch),
		.now_ms = clock_wall_ms() }, &scratch, lines);
	g->call = side_call_new(exchange_worker(g->x), answered, g);
	side_call_start(g->call, &request);
	arena_free(&scratch);
}

static void make_session(struct guard_call *g)
{
	uint8_t bytes[GUARD_SESSION / 2];
	struct arena scratch = { 0 };

	crypto_random(bytes, sizeof bytes);
	memcpy(g->session, acs_hex(&scratch, bytes, sizeof bytes).p, GUARD_SESSION);
	arena_free(&scratch);
	g->has_session = true;
}

void guard_call_start(struct guard_call *g, struct str text)
{
	BUG_ON(g->is_running || text.n == 0);
	if (!g->has_session)
		make_session(g);
	g->verdict = (struct guard_verdict){ .is_read = false };
	g->broken = (struct str){ NULL, 0 };
	g->broken_tag = NULL;
	g->is_ours = false;
	g->is_running = true;
	g->text = text;
	g->at = 0;
	g->start_us = clock_us();
	send_piece(g);
}

void guard_call_free(struct guard_call *g)
{
	drop_call(g);
	g->is_running = false;
	sbuf_free(&g->body);
}
