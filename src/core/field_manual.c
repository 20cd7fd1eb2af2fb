/*
 * field_manual.c -- what a table says to people: the rows of a Markdown table.
 */
#include <math.h>
#include <string.h>
#include "core/field.h"
#include "core/field_rows.h"

/* A bar would end the cell, a line break the row. */
static void add_cell_text(struct sbuf *out, const char *text)
{
	for (; text && *text; text++) {
		if (*text == '|')
			SBUF_LIT(out, "\\|");
		else
			sbuf_addc(out, *text == '\n' ? ' ' : *text);
	}
}

static const char *type_word(const struct field *f)
{
	switch (f->type) { /* flat switch */
	case FIELD_BOOL:
		return "bool";
	case FIELD_INT:
		return "int";
	case FIELD_NUMBER:
		return "number";
	case FIELD_TEXT:
		return "string";
	case FIELD_CHOICE:
		return f->choices->text ? "string" : "int";
	case FIELD_OBJECT:
		return "object";
	case FIELD_LIST:
		return "list of objects";
	case FIELD_TEXTS:
		return "list of strings";
	case FIELD_CHOICES:
		return f->choices->text ? "list of strings" : "list of ints";
	case FIELD_JSON:
		return "any";
	case FIELD_INLINE: case FIELD_END:
		break;
	}
	return "";
}

static void add_required(struct sbuf *out, const struct field *table, const struct field *f)
{
	char when[96];

	if (f->read_only) {
		SBUF_LIT(out, "read only");
	} else if (f->when.sibling) {
		field_when_text(table, f, when);
		SBUF_LIT(out, "when ");
		add_cell_text(out, when);
	} else {
		sbuf_add(out, f->required ? STR("yes") : STR("no"));
	}
}

static void add_choices(struct sbuf *out, const struct field *f)
{
	for (const struct choice *c = f->choices; c->doc; c++) {
		if (c != f->choices)
			SBUF_LIT(out, ", ");
		if (c->text)
			sbuf_addf(out, "`%s`", c->text);
		else
			sbuf_addf(out, "%d", c->value);
	}
}

static void add_range(struct sbuf *out, const struct field *f)
{
	bool is_list = f->type == FIELD_LIST || f->type == FIELD_TEXTS || f->type == FIELD_CHOICES;
	char low[32], high[32];

	if (f->choices)
		add_choices(out, f);
	if (!f->ranged)
		return;
	if (f->choices)
		SBUF_LIT(out, "; ");
	field_number_text(f->min, low);
	field_number_text(f->max, high);
	if (fabs(f->max) < 9.2e18)
		sbuf_addf(out, fabs(f->min) < 9.2e18 ? "%s – %s" : "%s≤ %s", fabs(f->min) < 9.2e18 ? low : "", high);
	else
		sbuf_addf(out, "≥ %s", low);
	if (f->type == FIELD_TEXT)
		SBUF_LIT(out, " bytes");
	if (is_list)
		SBUF_LIT(out, " items");
}

static void add_destination(struct sbuf *out, const char *const *names)
{
	SBUF_LIT(out, " Must be given again when ");
	for (const char *const *name = names; *name; name++)
		sbuf_addf(out, "%s`%s`", name == names ? "" : " or ", *name);
	SBUF_LIT(out, " changes.");
}

/* What it is the id of, where the row's own words do not begin with that. */
static void add_reference(struct sbuf *out, const struct field *f)
{
	if (!f->doc || !str_starts(str_of(f->doc), STR("Id of ")))
		sbuf_addf(out, " Id of %s %s.", strchr("aeiou", f->refers[0]) ? "an" : "a", f->refers);
}

static void add_meaning(struct sbuf *out, const struct field *f)
{
	add_cell_text(out, f->doc);
	for (const struct choice *c = f->choices; c && c->doc; c++) {
		sbuf_add(out, c == f->choices ? STR(" (") : STR("; "));
		if (c->text)
			sbuf_addf(out, "`%s`: ", c->text);
		else
			sbuf_addf(out, "%d: ", c->value);
		add_cell_text(out, c->doc);
	}
	if (f->choices && f->choices->doc)
		sbuf_addc(out, ')');
	if (f->unit) {
		SBUF_LIT(out, " Unit: ");
		add_cell_text(out, f->unit);
		sbuf_addc(out, '.');
	}
	if (f->refers)
		add_reference(out, f);
	if (f->secret)
		SBUF_LIT(out, " Secret: never read back.");
	if (f->sent_to)
		add_destination(out, f->sent_to);
	if (f->immutable)
		SBUF_LIT(out, " Cannot be changed later.");
}

static void add_rows(struct sbuf *out, const struct field *table, const struct field *f, unsigned depth)
{
	for (; f->type != FIELD_END; f++) {
		if (f->type == FIELD_INLINE) {
			add_rows(out, table, f->fields, depth);
			continue;
		}
		SBUF_LIT(out, "| ");
		for (unsigned i = 0; i < depth; i++)
			SBUF_LIT(out, "├ ");
		sbuf_addf(out, "`%s` | %s | ", f->name, type_word(f));
		add_required(out, table, f);
		SBUF_LIT(out, " | ");
		add_range(out, f);
		SBUF_LIT(out, " | ");
		if (f->fallback) {
			sbuf_addc(out, '`');
			add_cell_text(out, f->fallback);
			sbuf_addc(out, '`');
		}
		SBUF_LIT(out, " | ");
		add_meaning(out, f);
		SBUF_LIT(out, " |\n");
		if (f->type == FIELD_OBJECT || f->type == FIELD_LIST)
			add_rows(out, f->fields, f->fields, depth + 1);
	}
}

void fields_manual(const struct field *f, struct sbuf *out)
{
	add_rows(out, f, f, 0);
}
