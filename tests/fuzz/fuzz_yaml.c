/*
 * fuzz_yaml.c -- any bytes as a settings file: refused with a reason, or a tree that JSON can say too and that the
 * table of settings judges. What it complains about is on a line of the file.
 */
/* room: cli */
#include <stddef.h>
#include <stdint.h>
#include "cli/settings.h"
#include "cli/yaml.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static unsigned count_lines(struct str text)
{
	unsigned n = 1;

	for (size_t i = 0; i < text.n; i++)
		n += text.p[i] == '\n' || text.p[i] == '\r' || (unsigned char)text.p[i] >= 0x80;
	return n;
}

static void check_text(const struct problem *why)
{
	BUG_ON(!why->text[0] || !str_is_utf8(str_of(why->text)));
}

static void check_as_json(struct arena *a, const struct json *v)
{
	struct sbuf out = { 0 };
	struct problem why;
	struct json *again;

	json_write(&out, v);
	again = json_parse(a, sbuf_str(&out), &why);
	BUG_ON(!again || !json_equal(v, again));
	sbuf_free(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct arena a = { 0 };
	struct problem why = { 0 };
	struct str text = { (const char *)data, size };
	struct json *all = yaml_parse(&a, text, &why);
	unsigned lines = count_lines(text);

	if (!all)
		check_text(&why);
	for (struct json *doc = all ? all->child : NULL; doc; doc = doc->next) {
		check_as_json(&a, doc);
		why = (struct problem){ 0 };
		if (doc->type != JSON_OBJECT || settings_check(doc, &a, &why))
			continue;
		check_text(&why);
		unsigned line = json_find_line(doc, why.field);
		BUG_ON(line < 1 || line > lines + 1);
	}
	arena_free(&a);
	return 0;
}
