#include "ai/convert_put.h"

/* The comma before a value, and its name. */
static void begin(struct sbuf *out, const char *name)
{
	char last = out->n ? out->p[out->n - 1] : '{';

	if (last != '{' && last != '[')
		sbuf_addc(out, ',');
	if (name) {
		json_quote(out, str_of(name));
		sbuf_addc(out, ':');
	}
}

void put_root(struct sbuf *out)
{
	sbuf_addc(out, '{');
}

void put_open(struct sbuf *out, const char *name, char bracket)
{
	begin(out, name);
	sbuf_addc(out, bracket);
}

void put_close(struct sbuf *out, char bracket)
{
	sbuf_addc(out, bracket);
}

void put_text(struct sbuf *out, const char *name, struct str s)
{
	begin(out, name);
	json_quote(out, s);
}

void put_int(struct sbuf *out, const char *name, int64_t v)
{
	begin(out, name);
	sbuf_addf(out, "%lld", (long long)v);
}

void put_bool(struct sbuf *out, const char *name, bool v)
{
	begin(out, name);
	sbuf_add(out, v ? STR("true") : STR("false"));
}

void put_null(struct sbuf *out, const char *name)
{
	begin(out, name);
	SBUF_LIT(out, "null");
}

void put_node(struct sbuf *out, const char *name, const struct json *v)
{
	begin(out, name);
	json_write(out, v);
}

void put_joined(struct sbuf *out, const char *name, struct str first, struct str second)
{
	begin(out, name);
	json_quote(out, first);
	out->n--;                             /* the quote at the end */
	size_t at = out->n;

	json_quote(out, second);
	memmove(out->p + at, out->p + at + 1, out->n - at - 1);
	out->n--;
	out->p[out->n] = '\0';
}

void put_node_as_text(struct sbuf *out, const char *name, const struct json *v)
{
	struct sbuf text = { 0 };

	json_write(&text, v);
	put_text(out, name, sbuf_str(&text));
	sbuf_free(&text);
}

void put_text_as_object(struct sbuf *out, const char *name, struct str text)
{
	struct arena a = { 0 };
	struct problem ignored;
	const struct json *v = text.n ? json_parse(&a, text, &ignored) : json_new(&a, JSON_OBJECT);

	if (v && v->type == JSON_OBJECT) {
		put_node(out, name, v);
	} else {
		put_open(out, name, '{');
		put_text(out, "INVALID_JSON", text);
		put_close(out, '}');
	}
	arena_free(&a);
}
