#include "policy/ai_record.h"
#include "policy/ai_metrics.h"

#define ESCAPED_MAX 6                     /* bytes that a character may take: \u0001 */

static void add_name(struct sbuf *out, const char *name)
{
	if (out->p[out->n - 1] != '{')
		sbuf_addc(out, ',');
	sbuf_addf(out, "\"%s\":", name);
}

static void add_number(struct sbuf *out, const char *name, int64_t v)
{
	add_name(out, name);
	sbuf_addf(out, "%lld", (long long)v);
}

/* Absent or empty texts are left out. */
static void add_text(struct sbuf *out, const char *name, struct str value)
{
	char text[AI_LABEL_MAX];

	if (value.n == 0)
		return;
	add_name(out, name);
	json_quote(out, ai_label(value, text));
}

static void add_json(struct sbuf *out, const char *name, struct str value)
{
	if (value.n == 0)
		return;
	add_name(out, name);
	sbuf_add(out, value);
}

static void add_known(struct sbuf *out, const char *name, int64_t v)      /* -1: not known */
{
	if (v >= 0)
		add_number(out, name, v);
}

/* ---------- numbers ---------- */

static struct str cache_word(enum chat_cache cache)
{
	switch (cache) {
	case CHAT_CACHE_HIT:
		return STR("hit");
	case CHAT_CACHE_MISS:
		return STR("miss");
	case CHAT_CACHE_SKIP:
		return STR("skip");
	case CHAT_CACHE_NONE:
		break;
	}
	return STR("");
}

static void add_usage(struct sbuf *out, const struct ai_record *r, const struct usage *u, enum ai_kind kind)
{
	struct arena *a = exchange_arena(r->x);
	bool is_estimated = r->chat && r->chat->usage_is_estimated;
	const char *source = is_estimated ? "estimated" : usage_is_known(u) ? "upstream" : "none";

	add_number(out, "input_token", u->of[USAGE_INPUT]);
	add_number(out, "output_token", u->of[USAGE_OUTPUT]);
	add_number(out, "total_token", usage_is_known(u) ? usage_total(u, kind) : 0);
	if (u->has & 1U << USAGE_REASONING)
		add_number(out, "reasoning_tokens", u->of[USAGE_REASONING]);
	if (u->has & 1U << USAGE_CACHED)
		add_number(out, "cached_tokens", u->of[USAGE_CACHED]);
	add_json(out, "input_token_details", usage_input_details(u, a));
	add_json(out, "output_token_details", usage_output_details(u, a));
	add_text(out, "usage_source", str_of(source));
}

static void add_policies(struct sbuf *out, const struct chat *c)
{
	add_text(out, "cache_status", cache_word(c->cache));
	if (c->token_limited)
		add_text(out, "token_ratelimit_status", STR("limited"));
	add_text(out, "safecheck_status", c->safecheck_status);
	add_known(out, "safecheck_request_rt", c->safecheck_request_ms);
	add_known(out, "safecheck_response_rt", c->safecheck_response_ms);
	add_text(out, "safecheck_riskLabel", c->safecheck_risk_label);
	add_text(out, "safecheck_requestId", c->safecheck_request_id);
	add_text(out, "fallback_from", c->fallback_from);
	add_text(out, "search_status", c->search_status);
	add_known(out, "search_rt", c->search_ms);
	add_known(out, "search_results", c->search_results);
	add_known(out, "tools_in", c->tools_in);
	add_known(out, "tools_out", c->tools_out);
}

static void add_times(struct sbuf *out, const struct ai_record *r)
{
	const struct chat *c = r->chat;

	if (c && c->is_answer_stream && c->first_token_us > r->start_us)
		add_number(out, "llm_first_token_duration", (c->first_token_us - r->start_us) / 1000);
	add_number(out, "llm_service_duration", (r->end_us - r->start_us) / 1000);
	add_text(out, "response_type", r->is_stream ? STR("stream") : STR("normal"));
	if (c && c->end == CHAT_ABORTED)
		add_json(out, "llm_aborted", STR("true"));
}

static struct str model_of(const struct chat *c)
{
	return c->answer.model.n > 0 ? sbuf_str(&c->answer.model) : c->model;
}

/* ---------- content ---------- */

/* Bytes of its first n characters; *left: how many more there are. */
static size_t cut(struct str text, size_t n, size_t *left)
{
	size_t at = 0, characters = 0;

	if (text.n <= n) {
		*left = 0;
		return text.n;
	}
	for (; at < text.n; at++)
		if (((unsigned char)text.p[at] & 0xc0) != 0x80 && characters++ == n)
			break;
	*left = at < text.n ? str_code_points((struct str){ text.p + at, text.n - at }) : 0;
	return at;
}

/* How many characters there is room for; 0: none. A string of JSON is up to twice as long as the JSON. */
static size_t room_for(const struct sbuf *out, const struct ai_record *r)
{
	const size_t most = r->is_text ? AI_RECORD_MAX / 2 : AI_RECORD_MAX;
	size_t room = out->n + 1024 < most ? (most - 1024 - out->n) / ESCAPED_MAX : 0;

	return room < AI_TEXT_MAX ? room : AI_TEXT_MAX;
}

static void add_content(struct sbuf *out, const struct ai_record *r, const char *name, struct str text)
{
	size_t most = room_for(out, r), left, n;

	if (text.n == 0)
		return;
	n = cut(text, most, &left);
	add_name(out, name);
	json_quote(out, (struct str){ text.p, n });
	if (left == 0)
		return;
	out->n--;
	sbuf_addf(out, "\xe2\x80\xa6[truncated %zu]\"", left);
}

/* What was said before, as the client sent it; nothing where it is too long. */
static void add_messages(struct sbuf *out, const struct ai_record *r)
{
	const struct chat *c = r->chat;
	const struct json *list = json_get(c->body, "messages"), *input = json_get(c->body, "input");
	size_t before = out->n, most = room_for(out, r), left;

	if (!list && input)
		list = input->type == JSON_OBJECT ? json_get(input, "messages") : input;
	if (!list || list->type != JSON_ARRAY || list->length > most * ESCAPED_MAX)
		return;
	add_name(out, "messages");
	size_t start = out->n;

	json_write(out, list);
	cut((struct str){ out->p + start, out->n - start }, most, &left);
	if (left > 0)
		out->n = before;
}

static void add_request(struct sbuf *out, const struct ai_record *r)
{
	struct chat *c = r->chat;
	struct arena *a = exchange_arena(r->x);
	const struct prompt *p = chat_prompt(c);

	add_content(out, r, "question", prompt_last_question(p, a));
	add_content(out, r, "system", prompt_join(p, a, PROMPT_SYSTEM));
	add_messages(out, r);
}

static void add_tools(struct sbuf *out, const struct ai_record *r)
{
	const struct answer *answer = &r->chat->answer;

	if (answer->n_tools == 0)
		return;
	add_name(out, "tool_calls");
	sbuf_addc(out, '[');
	for (unsigned i = 0; i < answer->n_tools && room_for(out, r) > 0; i++) {
		const struct answer_tool *tool = &answer->tools[i];

		if (i > 0)
			sbuf_addc(out, ',');
		sbuf_addf(out, "{\"index\":%u", i);
		add_text(out, "id", sbuf_str(&tool->id));
		SBUF_LIT(out, ",\"type\":\"function\",\"function\":{");
		add_text(out, "name", sbuf_str(&tool->name));
		add_content(out, r, "arguments", sbuf_str(&tool->arguments));
		SBUF_LIT(out, "}}");
	}
	sbuf_addc(out, ']');
}

/* Refused before its body was looked at. */
static void add_unread(struct sbuf *out, const struct ai_record *r)
{
	if (r->names_model) {
		add_text(out, "model", STR("unknown"));
		add_text(out, "request_model", STR("unknown"));
		add_usage(out, r, &(struct usage){ 0 }, AI_NONE);
	}
	add_times(out, r);
}

static void add_chat(struct sbuf *out, const struct ai_record *r)
{
	struct chat *c = r->chat;
	bool is_read = c->kind != AI_NONE && c->body;

	if (c->kind != AI_NONE || c->is_model_api) {
		add_text(out, "model", model_of(c));
		add_text(out, "request_model", c->model);
	}
	if (c->parse_error)
		add_json(out, "parse_error", STR("true"));
	if (c->kind != AI_NONE || usage_is_known(&c->usage))
		add_usage(out, r, &c->usage, c->answer.kind);
	add_times(out, r);
	add_text(out, "chat_id", sbuf_str(&c->answer.id));
	if (is_read)
		add_number(out, "chat_round", chat_prompt(c)->n_user_messages);
	add_policies(out, c);
	if (is_read && r->has_request_content)
		add_request(out, r);
	/* What a guard kept from the client is nowhere. */
	if (r->has_response_content && !c->guard_cut) {
		add_content(out, r, "answer", sbuf_str(&c->answer.text));
		add_content(out, r, "reasoning", sbuf_str(&c->answer.reasoning));
		add_tools(out, r);
	}
}

static void write_object(struct sbuf *out, const struct ai_record *r)
{
	sbuf_addc(out, '{');
	add_text(out, "api", r->api);
	add_text(out, "consumer", exchange_consumer(r->x));
	add_text(out, "session_id", r->session);
	if (r->chat)
		add_chat(out, r);
	else
		add_unread(out, r);
	sbuf_addc(out, '}');
}

void ai_record_write(struct sbuf *out, const struct ai_record *r)
{
	struct sbuf text = { 0 };

	SBUF_LIT(out, ",\"ai_log\":");
	if (!r->is_text) {
		write_object(out, r);
		return;
	}
	write_object(&text, r);
	json_quote(out, sbuf_str(&text));
	sbuf_free(&text);
}
