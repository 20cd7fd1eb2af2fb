/*
 * print.h -- what client commands print: aligned tables, marks of good and bad, JSON. Text from elsewhere is shown on
 * one line, without control characters, so that it cannot play with the terminal.
 */
#pragma once
#include <stdbool.h>
#include "cli/flags.h"
#include "core/arena.h"
#include "core/json.h"

enum mark { MARK_NONE, MARK_GOOD, MARK_WARN, MARK_BAD, MARK_DIM };

struct printer {
	bool is_json, has_color, is_quiet;
};
/* *why->field is "--output" when the format is unknown. */
MUST_USE bool printer_open(struct printer *p, const struct client_options *o, struct problem *why);
void print_json_text(struct json *v);             /* pretty, on standard output */
/* A text for people: printable, absent and empty ones as "-". */
struct str print_safe(struct str text, struct arena *a);
/* On standard output, in the mark's colour when there are colours. */
void print_marked(const struct printer *p, enum mark mark, struct str text);

#define TABLE_COLUMNS 12
struct table {
	const char *const *columns;       /* titles, ends with NULL; at most TABLE_COLUMNS */
	struct arena *arena;
	struct row {
		struct str cells[TABLE_COLUMNS];
		enum mark mark;           /* of the whole row */
	} *rows;
	unsigned n, room;
};
/* The cells of a new row, to be filled in by the caller with print_safe() texts. */
struct row *table_row(struct table *t);
/* Columns that are empty in every row are left out. */
void table_print(const struct table *t, const struct printer *p, const char *indent);
