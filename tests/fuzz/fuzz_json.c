/*
 * fuzz_json.c -- whatever is accepted must be written as text that is accepted again and means the same;
 * places name the bytes of each value.
 */
/* room: core */
#include <stddef.h>
#include <stdint.h>
#include "core/fault.h"
#include "core/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_again(struct arena *a, const struct json *v, void (*write)(struct sbuf *, const struct json *))
{
	struct problem why;
	struct sbuf out = { 0 };
	struct json *again;

	write(&out, v);
	again = json_parse(a, sbuf_str(&out), &why);
	BUG_ON(!again || !json_equal(v, again) || !json_equal(again, json_clone(a, v)));
	sbuf_free(&out);
}

static size_t count_nodes(const struct json *v)
{
	size_t n = 1;

	for (const struct json *m = v->child; m; m = m->next)
		n += count_nodes(m);
	return n;
}

/* The bytes of each value, its brackets included, mean the value: with the places that are told, and no others. */
static void check_spans(struct str text, const struct json *v, struct str outer)
{
	const struct str own = { text.p + v->at, v->length };
	struct arena a = { 0 };
	struct problem why;
	struct json *again;

	BUG_ON(own.n == 0 || own.p < outer.p || own.p + own.n > outer.p + outer.n);
	again = json_parse_spans(&a, own, SIZE_MAX, &why);
	BUG_ON(!again || !json_equal(again, v) || again->at != 0 || again->length != own.n);
	arena_free(&a);
	for (const struct json *m = v->child; m; m = m->next)
		check_spans(text, m, own);
}

/* `plain`: what json_parse() made of the text, NULL where it refused it. */
static void check_places(struct arena *a, struct str text, const struct json *plain)
{
	struct problem why = { 0 };
	const struct json *v = json_parse_spans(a, text, SIZE_MAX, &why);
	size_t nodes;

	BUG_ON(plain && (!v || !json_equal(plain, v)));
	if (!v) {
		BUG_ON(!why.text[0]);
		return;
	}
	nodes = count_nodes(v);
	if (nodes < 200)
		check_spans(text, v, text);
	BUG_ON(!json_parse_spans(a, text, nodes, &why));
	BUG_ON(json_parse_spans(a, text, nodes - 1, &why));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct arena a = { 0 };
	struct problem why = { 0 };
	struct str text = { (const char *)data, size };
	struct json *v = json_parse(&a, text, &why);
	struct sbuf quoted = { 0 };
	char brief[JSON_BRIEF];

	if (v) {
		BUG_ON(!str_is_utf8(text));
		BUG_ON(v->type == JSON_REAL && (v->string.p < text.p || v->string.p + v->string.n > text.p + text.n));
		check_again(&a, v, json_write);
		check_again(&a, v, json_write_pretty);
		check_again(&a, v, json_canonical);
		json_brief(v, brief);
	} else {
		BUG_ON(!why.text[0] || !str_is_utf8(str_of(why.text)) || !str_is_utf8(str_of(why.field)));
	}
	check_places(&a, text, v);
	/* Any bytes make a valid string. */
	json_quote(&quoted, text);
	v = json_parse(&a, sbuf_str(&quoted), &why);
	BUG_ON(!v && !memchr(text.p ? text.p : "", 0, size));
	json_brief_text(text, brief);
	BUG_ON(!str_is_utf8(str_of(brief)));
	sbuf_free(&quoted);
	arena_free(&a);
	return 0;
}
