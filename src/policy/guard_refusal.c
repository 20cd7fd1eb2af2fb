/* guard_refusal.c -- what clients get instead of an answer that was refused, in the shape of their API. */
#include "ai/render.h"
#include "core/clock.h"
#include "core/crypto.h"
#include "policy/guard_parts.h"

#define DEFAULT_ADVICE "Sorry, I cannot answer this question."
#define UNAVAILABLE_TEXT "the content of this request cannot be checked at present"
#define STATUS_LINE "X-Guard-Status"

/* Clients of these read a refusal as an answer; all others get an error. */
static bool has_shape(enum ai_kind kind)
{
	return kind == AI_CHAT || kind == AI_COMPLETIONS || kind == AI_RESPONSES || kind == AI_MESSAGES;
}

static struct str advice(struct exchange *x, const struct step *s)
{
	const struct guard_state *state = exchange_state(x, s);
	struct str answer = state->call.verdict.answer;

	return answer.n > 0 ? answer : STR(DEFAULT_ADVICE);
}

static struct rendered make_answer(struct exchange *x, const struct step *s)
{
	const struct chat *c = exchange_chat(x);
	struct rendered r = { .model = c->model, .text = advice(x, s), .finish = STR("content_filter"),
			      .now_ms = clock_wall_ms() };

	render_ask(&r, c->kind, exchange_path(x), c->body);
	crypto_random(&r.seed, sizeof r.seed);
	return r;
}

enum verdict guard_refuse(struct exchange *x, const struct step *s, enum guard_side side)
{
	const struct chat *c = exchange_chat(x);
	enum verdict verdict;

	exchange_keep_flag(x, "SG");
	if (!has_shape(c->kind)) {
		verdict = chat_reply_error(x, 400, "content_filter", "ErrContentFilter", advice(x, s));
	} else {
		struct rendered r = make_answer(x, s);
		struct arena *a = exchange_arena(x);

		verdict = c->is_stream ? reply(x, 200, STR("text/event-stream"), render_stream(&r, a)) :
			reply(x, 200, STR("application/json"), render_body(&r, a));
	}
	message_add(exchange_response(x), STR(STATUS_LINE),
		    side == GUARD_OF_REQUEST ? STR("request-denied") : STR("response-denied"));
	return verdict;
}

enum verdict guard_unavailable(struct exchange *x)
{
	exchange_keep_flag(x, "PF");
	return chat_reply_error(x, 503, "guard_unavailable", "ErrPolicyUnavailable", STR(UNAVAILABLE_TEXT));
}

/* In a stream there is no status any more: an event says it. */
static struct str error_event(struct exchange *x, const struct render_fault *fault)
{
	struct arena *a = exchange_arena(x);
	struct str body = render_error(a, fault);
	const char *name = fault->family == AI_FAMILY_OPENAI ? "" : "event: error\n";

	return arena_printf(a, "%sdata: %.*s\n\n", name, STR_FMT(body));
}

struct str guard_stream_end(struct exchange *x, const struct step *s, enum guard_ruling ruling)
{
	const struct guard_state *state = exchange_state(x, s);
	const struct chat *c = exchange_chat(x);
	struct render_fault fault = { .family = c->family, .status = 503, .code = STR("guard_unavailable"),
				      .message = STR(UNAVAILABLE_TEXT),
				      .request_id = exchange_property(x, STR("request.id")) };

	exchange_keep_flag(x, ruling == RULING_DENY ? "SG" : "PF");
	if (ruling == RULING_DENY && has_shape(c->kind)) {
		struct rendered r = make_answer(x, s);

		return render_stream_rest(&r, &state->stream->window.seen, exchange_arena(x));
	}
	if (ruling == RULING_DENY) {
		fault.status = 400;
		fault.code = STR("content_filter");
		fault.message = advice(x, s);
	}
	return error_event(x, &fault);
}
