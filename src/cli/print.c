#include "cli/print.h"
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const colors[] = {
	[MARK_NONE] = "", [MARK_GOOD] = "\033[32m", [MARK_WARN] = "\033[33m", [MARK_BAD] = "\033[31m",
	[MARK_DIM] = "\033[2m",
};

bool printer_open(struct printer *p, const struct client_options *o, struct problem *why)
{
	const char *format = o->output ? o->output : "table", *never = getenv("NO_COLOR");

	p->is_json = strcmp(format, "json") == 0;
	p->is_quiet = o->quiet;
	p->has_color = !o->no_color && !(never && *never) && isatty(STDOUT_FILENO);
	return p->is_json || strcmp(format, "table") == 0 ||
	       problem(why, "--output", "must be table or json, not \"%.40s\"", format);
}

void print_json_text(struct json *v)
{
	struct sbuf out = { 0 };

	json_write_pretty(&out, v);
	sbuf_addc(&out, '\n');
	fwrite(out.p, 1, out.n, stdout);
	sbuf_free(&out);
}

struct str print_safe(struct str text, struct arena *a)
{
	char *out;

	if (text.n == 0)
		return STR("-");
	out = arena_take(a, text.n);
	for (size_t i = 0; i < text.n; i++) {
		unsigned char c = (unsigned char)text.p[i];

		out[i] = c < 0x20 || c == 0x7f ? '?' : (char)c;
	}
	/* The C1 controls of a broken UTF-8 text reach the terminal as well. */
	for (size_t i = 0; !str_is_utf8((struct str){ out, text.n }) && i < text.n; i++)
		if ((unsigned char)out[i] >= 0x80)
			out[i] = '?';
	return (struct str){ out, text.n };
}

void print_marked(const struct printer *p, enum mark mark, struct str text)
{
	bool has_color = p->has_color && mark != MARK_NONE;

	printf("%s%.*s%s", has_color ? colors[mark] : "", STR_FMT(text), has_color ? "\033[0m" : "");
}

struct row *table_row(struct table *t)
{
	if (t->n == t->room) {
		unsigned room = t->room ? 2 * t->room : 16;
		struct row *rows = NEW_N(t->arena, struct row, room);

		if (t->n)
			memcpy(rows, t->rows, t->n * sizeof *rows);
		t->rows = rows;
		t->room = room;
	}
	return &t->rows[t->n++];
}

static bool is_blank(struct str cell)
{
	return cell.n == 0 || str_equal(cell, STR("-"));
}

static size_t width_of(const struct table *t, unsigned column)
{
	size_t width = strlen(t->columns[column]);
	bool is_used = false;

	for (unsigned i = 0; i < t->n; i++) {
		struct str cell = t->rows[i].cells[column];

		is_used = is_used || !is_blank(cell);
		if (str_code_points(cell) > width)
			width = str_code_points(cell);
	}
	return is_used ? width : 0;
}

static void print_row(const struct table *t, const struct printer *p, const size_t *widths, const struct row *row)
{
	struct sbuf line = { 0 };

	for (unsigned c = 0; t->columns[c]; c++) {
		struct str cell = row ? row->cells[c] : str_of(t->columns[c]);

		if (widths[c] == 0)
			continue;
		if (cell.n == 0)
			cell = STR("-");
		sbuf_addf(&line, "%.*s%*s", STR_FMT(cell), (int)(widths[c] - str_code_points(cell)) + 2, "");
	}
	while (line.n && line.p[line.n - 1] == ' ')
		line.n--;
	print_marked(p, row ? row->mark : MARK_DIM, sbuf_str(&line));
	printf("\n");
	sbuf_free(&line);
}

void table_print(const struct table *t, const struct printer *p, const char *indent)
{
	size_t widths[TABLE_COLUMNS] = { 0 };

	for (unsigned c = 0; t->columns[c]; c++)
		widths[c] = width_of(t, c);
	for (unsigned i = 0; i <= t->n; i++) {
		printf("%s", indent);
		print_row(t, p, widths, i ? &t->rows[i - 1] : NULL);
	}
}
