/* cache_entry.c -- kept answers as JSON, and back. */
#include "policy/cache_entry.h"

enum { VERSION = 1, VALUES_MAX = 64 };

static void add_text(struct sbuf *out, const char *before, struct str text)
{
	sbuf_add(out, str_of(before));
	json_quote(out, text);
}

struct str cache_entry_write(const struct cache_entry *e, struct arena *a)
{
	struct str made = { NULL, 0 };
	struct sbuf out = { 0 };

	sbuf_addf(&out, "{\"v\":%d", VERSION);
	add_text(&out, ",\"class\":", ai_kind_name(e->kind));
	sbuf_addf(&out, ",\"created\":%lld", (long long)e->created_s);
	if (e->body.p) {
		add_text(&out, ",\"body\":", e->body);
	} else {
		add_text(&out, ",\"model\":", e->model);
		add_text(&out, ",\"text\":", e->text);
		if (e->reasoning.n)
			add_text(&out, ",\"reasoning\":", e->reasoning);
		SBUF_LIT(&out, ",\"finish\":\"stop\"");
	}
	sbuf_addc(&out, '}');
	if (out.n <= CACHE_ENTRY_MAX)
		made = arena_copy(a, sbuf_str(&out));
	sbuf_free(&out);
	return made;
}

static bool is_blank(struct str s)
{
	for (size_t i = 0; i < s.n; i++)
		if ((unsigned char)s.p[i] > ' ')
			return false;
	return true;
}

static bool has_int(const struct json *doc, const char *name, int64_t min, int64_t max)
{
	const struct json *v = json_get(doc, name);

	return v && v->type == JSON_INT && v->integer >= min && v->integer <= max;
}

bool cache_entry_read(struct cache_entry *e, struct arena *a, enum ai_kind kind, struct str value)
{
	struct problem unused;
	const struct json *doc;

	if (value.n > CACHE_ENTRY_MAX)
		return false;
	doc = json_parse_spans(a, value, VALUES_MAX, &unused);
	if (!doc || doc->type != JSON_OBJECT || !has_int(doc, "v", VERSION, VERSION) ||
	    !has_int(doc, "created", 0, INT64_C(1) << 40) || !str_equal(json_text(doc, "class"), ai_kind_name(kind)))
		return false;
	*e = (struct cache_entry){ .kind = kind, .created_s = json_get(doc, "created")->integer,
		.model = json_text(doc, "model"), .text = json_text(doc, "text"),
		.reasoning = json_text(doc, "reasoning") };
	if (kind != AI_EMBEDDINGS)
		return e->model.n > 0 && !is_blank(e->text) && str_equal(json_text(doc, "finish"), STR("stop"));
	e->body = json_text(doc, "body");
	doc = json_parse_spans(a, e->body, CACHE_ENTRY_MAX, &unused);
	return doc && doc->type == JSON_OBJECT;
}
