/*
 * fuzz_json.c -- whatever is accepted must be written as text that is accepted again and means the same.
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
