/*
 * One reader for each API; what it finds goes to a sink, which is an answer that gathers, a text for a guard, or both
 * kinds of use with the other left out. Whole answers and events share what they have in common.
 */
#include "ai/answer_parts.h"
#include "core/budget.h"
#include "core/mem.h"
#include "core/xxh64.h"

#define SHORT_MAX 256                     /* of ids, models and reasons */

/* How much of s may be kept in n bytes: no code point is cut. */
static struct str cut_text(struct str s, size_t n)
{
	if (s.n <= n)
		return s;
	while (n > 0 && ((unsigned char)s.p[n] & 0xc0) == 0x80)
		n--;
	return (struct str){ s.p, n };
}

static void set_short(struct sbuf *b, struct str s)
{
	b->n = 0;
	sbuf_add(b, cut_text(s, SHORT_MAX));
}

static void keep(struct answer *a, struct sbuf *b, struct str s)
{
	struct str part = cut_text(s, ANSWER_MAX - a->kept);
	size_t before = b->cap;

	if (!(a->wants & ANSWER_TEXT))
		return;
	a->is_cut |= part.n < s.n;
	if (part.n == 0)
		return;
	sbuf_add(b, part);
	a->kept += part.n;
	a->held += b->cap - before;
	budget_add((int64_t)(b->cap - before));
}

static bool continues(const struct answer_so_far *so_far, struct str s)
{
	return s.n >= so_far->n && xxh64((struct str){ s.p, so_far->n }, 0) == so_far->hash;
}

/* What of s was not said before. Only of kinds whose events may each hold all of the text so far. */
static struct str take_new(struct saying *s, struct answer_so_far *so_far, struct str text)
{
	struct answer *a = s->answer;
	bool may_repeat = a->kind == AI_GENERATION || a->kind == AI_APP;
	struct str part = text;

	if (!may_repeat || s->is_body || a->pieces == ANSWER_INCREMENTAL || text.n == 0) {
		so_far->n += text.n;
		return part;
	}
	if (so_far->n > 0) {
		bool goes_on = continues(so_far, text);

		if (a->pieces == ANSWER_UNTOLD)
			goes_on &= text.n > so_far->n || s->is_last;
		a->pieces = goes_on ? ANSWER_CUMULATIVE : ANSWER_INCREMENTAL;
		if (!goes_on) {
			so_far->n += text.n;
			return part;
		}
		part.p += so_far->n;
		part.n -= so_far->n;
	}
	*so_far = (struct answer_so_far){ xxh64(text, 0), text.n };
	return part;
}

static void say(struct saying *s, struct str part)
{
	if (part.n == 0)
		return;
	s->holds |= ANSWER_HOLDS_CONTENT;
	if (s->out)
		sbuf_add(s->out, part);
	if (s->answer)
		usage_estimate_add(&s->answer->said, part);
}

void say_text(struct saying *s, int64_t choice, struct str text)
{
	struct answer *a = s->answer;
	bool is_first = a && choice == 0;

	if (is_first)
		text = take_new(s, &a->text_so_far, text);
	say(s, text);
	if (is_first)
		keep(a, &a->text, text);
}

void say_reasoning(struct saying *s, int64_t choice, struct str text)
{
	struct answer *a = s->answer;
	bool is_first = a && choice == 0;

	if (is_first)
		text = take_new(s, &a->reasoning_so_far, text);
	say(s, text);
	if (is_first)
		keep(a, &a->reasoning, text);
}

void say_instead(struct saying *s, struct str text)
{
	if (s->answer) {
		s->answer->kept -= s->answer->text.n;
		s->answer->text.n = 0;
		s->answer->text_so_far = (struct answer_so_far){ 0 };
	}
	say_text(s, 0, text);
}

static struct answer_tool *find_tool(struct answer *a, int64_t index, struct str id)
{
	for (unsigned i = a->n_tools; i-- > 0;) {
		struct answer_tool *tool = &a->tools[i];

		if (index >= 0 && tool->index != index)
			continue;
		/* Another id where one was: servers that number all calls 0, or do not number them. */
		if (id.n > 0 && tool->id.n > 0 && !str_equal(cut_text(id, SHORT_MAX), sbuf_str(&tool->id)))
			return NULL;
		return tool;
	}
	return NULL;
}

static struct answer_tool *add_tool(struct answer *a, int64_t index)
{
	if (a->n_tools == ANSWER_TOOLS_MAX) {
		a->is_cut = true;
		return NULL;
	}
	/* Powers of two: there is room until the number reaches one. */
	if ((a->n_tools & (a->n_tools - 1)) == 0)
		a->tools = mem_resize(a->tools, (a->n_tools ? a->n_tools * 2 : 1) * sizeof(*a->tools));
	a->tools[a->n_tools] = (struct answer_tool){ .index = index };
	return &a->tools[a->n_tools++];
}

void say_tool(struct saying *s, int64_t choice, const struct tool_part *part)
{
	struct answer *a = s->answer;
	struct str arguments = part->arguments;
	struct answer_tool *tool;

	s->holds |= ANSWER_HOLDS_CONTENT;
	if (!a || choice != 0) {
		say(s, arguments);
		return;
	}
	tool = find_tool(a, part->index, part->id);
	if (!tool)
		tool = add_tool(a, part->index);
	if (!tool) {
		say(s, arguments);
		return;
	}
	if (part->id.n > 0 && tool->id.n == 0)
		set_short(&tool->id, part->id);
	if (part->name.n > 0 && !str_equal(cut_text(part->name, SHORT_MAX), sbuf_str(&tool->name)) &&
	    tool->name.n + part->name.n <= SHORT_MAX)
		sbuf_add(&tool->name, part->name);
	else if (tool->name.n == 0)
		set_short(&tool->name, part->name);
	if (part->is_whole && tool->so_far.n > 0)
		return;
	arguments = take_new(s, &tool->so_far, arguments);
	say(s, arguments);
	keep(a, &tool->arguments, arguments);
}

void say_facts(struct saying *s, struct str id, struct str model, struct str finish)
{
	struct answer *a = s->answer;

	if (!a)
		return;
	if (id.n > 0 && a->id.n == 0)
		set_short(&a->id, id);
	if (model.n > 0 && a->model.n == 0)
		set_short(&a->model, model);
	if (finish.n > 0)
		set_short(&a->finish_reason, finish);
}

void say_choice(struct saying *s, int64_t choice)
{
	if (s->answer && choice >= 0 && choice < ANSWER_TOOLS_MAX && s->answer->n_choices <= (unsigned)choice)
		s->answer->n_choices = (unsigned)choice + 1;
}

static void take_usage(struct saying *s, const struct json *doc)
{
	struct answer *a = s->answer;
	struct usage now = { 0 };

	usage_take(&now, a->kind, doc);
	if (!now.has)
		return;
	for (unsigned i = 0; i < USAGE_FIELDS; i++)
		if (now.has & 1U << i)
			a->usage.of[i] = now.of[i];
	a->usage.has |= now.has;
	s->holds |= ANSWER_HOLDS_USAGE;
}

/* A chunk whose choices are an empty list, null or absent. */
static bool has_no_choices(enum ai_kind kind, const struct json *doc)
{
	const struct json *choices = json_get(doc, "choices");

	if (kind != AI_CHAT && kind != AI_COMPLETIONS)
		return false;
	return !choices || choices->type == JSON_NULL || (choices->type == JSON_ARRAY && !choices->child);
}

/* After the reader: what the answer knows by now. */
static void conclude(struct saying *s)
{
	struct answer *a = s->answer;

	a->has_content |= s->holds & ANSWER_HOLDS_CONTENT;
	a->has_error |= (s->holds & ANSWER_HOLDS_ERROR) != 0;
	a->is_complete |= (s->holds & ANSWER_HOLDS_END) != 0;
}

unsigned answer_take_event(struct answer *a, const struct sse_event *e, const struct json *doc)
{
	struct saying s = { .kind = a->kind, .answer = a };

	if (doc && doc->type == JSON_OBJECT) {
		take_usage(&s, doc);
		if (s.holds & ANSWER_HOLDS_USAGE && has_no_choices(a->kind, doc))
			s.holds |= ANSWER_HOLDS_USAGE_ONLY;
	}
	answer_read_event(&s, e, doc);
	conclude(&s);
	return s.holds;
}

unsigned answer_take_body(struct answer *a, const struct json *doc)
{
	struct saying s = { .kind = a->kind, .answer = a, .is_body = true, .holds = ANSWER_HOLDS_END };

	if (!doc || doc->type != JSON_OBJECT)
		return 0;
	take_usage(&s, doc);
	answer_read_body(&s, doc);
	conclude(&s);
	return s.holds;
}

void answer_event_text(enum ai_kind kind, const struct sse_event *e, const struct json *doc, struct sbuf *out)
{
	struct saying s = { .kind = kind, .out = out };

	answer_read_event(&s, e, doc);
}

void answer_body_text(enum ai_kind kind, const struct json *doc, struct sbuf *out)
{
	struct saying s = { .kind = kind, .out = out, .is_body = true };

	if (doc && doc->type == JSON_OBJECT)
		answer_read_body(&s, doc);
}

void answer_free(struct answer *a)
{
	for (unsigned i = 0; i < a->n_tools; i++) {
		sbuf_free(&a->tools[i].id);
		sbuf_free(&a->tools[i].name);
		sbuf_free(&a->tools[i].arguments);
	}
	mem_free(a->tools);
	a->tools = NULL;
	a->n_tools = 0;
	sbuf_free(&a->id);
	sbuf_free(&a->model);
	sbuf_free(&a->finish_reason);
	sbuf_free(&a->text);
	sbuf_free(&a->reasoning);
	budget_add(-(int64_t)a->held);
	a->held = 0;
	a->kept = 0;
}
