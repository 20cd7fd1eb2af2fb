/*
 * guard_answer.c -- answers of models before clients get them: whole ones here, events in guard_stream.c.
 *
 *      head ──► whole body held ──► its text ──► verdict ──► on to the client, or a refusal instead
 */
#include "core/log.h"
#include "policy/guard_parts.h"

#define BODY_BYTES_MAX 10485760
#define NODES_MAX 200000                  /* values of an answer's JSON */

static enum verdict follow(struct exchange *x, const struct step *s, enum guard_ruling ruling)
{
	struct chat *c = exchange_chat(x);

	if (ruling == RULING_PASS)
		return next();
	c->guard_cut = true;
	return ruling == RULING_DENY ? guard_refuse(x, s, GUARD_OF_RESPONSE) : guard_unavailable(x);
}

static enum verdict judge(struct exchange *x, const struct step *s)
{
	enum guard_ruling ruling = guard_rule(x, s, GUARD_OF_RESPONSE);
	struct guard_state *state = exchange_state(x, s);

	guard_drop_text(state);
	if (ruling == RULING_PASS && state->call.verdict.is_read)
		guard_tell_passed(x, s, GUARD_OF_RESPONSE);
	return follow(x, s, ruling);
}

/* False: there is no telling what it says. */
static bool read_text(struct exchange *x, struct str body, struct sbuf *out)
{
	const struct chat *c = exchange_chat(x);
	struct arena scratch = { 0 };
	struct problem why;
	const struct json *doc = json_parse_spans(&scratch, body, NODES_MAX, &why);
	bool is_read = true;

	if (doc)
		answer_body_text(c->kind, doc, out);
	else if (body.n <= ANSWER_MAX && str_is_utf8(body))
		sbuf_add(out, body);
	else
		is_read = body.n == 0;
	arena_free(&scratch);
	return is_read;
}

static enum verdict check_body(struct exchange *x, const struct step *s)
{
	struct guard_state *state = exchange_state(x, s);
	bool is_whole;
	struct str body = exchange_response_body(x, &is_whole);

	if (!is_whole)
		return follow(x, s, guard_rule_unread(x, s, GUARD_OF_RESPONSE, "the answer is too long"));
	if (!read_text(x, body, &state->text))
		return follow(x, s, guard_rule_unread(x, s, GUARD_OF_RESPONSE, "the answer is neither JSON nor text"));
	if (state->text.n == 0) {
		guard_tell_passed(x, s, GUARD_OF_RESPONSE);
		return next();
	}
	return guard_await(x, s, GUARD_OF_RESPONSE, judge);
}

static bool is_media(const struct message *res)
{
	static const char *const types[] = { "image/", "audio/", "video/" };
	struct str type = message_value(res, HEADER_CONTENT_TYPE);

	for (unsigned i = 0; i < sizeof types / sizeof *types; i++) {
		struct str one = str_of(types[i]);

		if (type.n >= one.n && str_equal_nocase((struct str){ type.p, one.n }, one))
			return true;
	}
	return false;
}

static bool is_coded(const struct message *res)
{
	struct str coding = message_value(res, HEADER_CONTENT_ENCODING);

	return coding.n > 0 && !str_equal_nocase(coding, STR("identity"));
}

enum verdict guard_check_answer(struct exchange *x, const struct step *s)
{
	const struct ai_security_guard *conf = s->conf;
	struct chat *c = exchange_chat_readable(x);
	const struct message *res = exchange_response(x);

	/* Vectors say nothing that could be judged. */
	if (!conf->checkResponse || !c || c->kind == AI_EMBEDDINGS || !exchange_is_upstream_response(x) ||
	    res->status < 200 || res->status >= 300)
		return next();
	c->is_guarded = true;
	if (is_media(res)) {
		log_event(LOG_INFO, "guard.not_inspected", LOG_FIELDS(
			F_STR("type", message_value(res, HEADER_CONTENT_TYPE)), F_STR("policyId", s->policy_id),
			F_STR("requestId", exchange_property(x, STR("request.id")))));
		return next();
	}
	if (is_coded(res))
		return follow(x, s, guard_rule_unread(x, s, GUARD_OF_RESPONSE, "the answer is compressed"));
	if (c->is_answer_stream) {
		guard_stream_open(x, s);
		return next();
	}
	return await_response_body(x, BODY_BYTES_MAX, check_body);
}
