/*
 * flags.h -- flags of commands that talk to a running gateway: one table for each command, from which parsing and
 * `--help` come.
 *
 * A command's options are a struct that begins with struct client_options; rows say where a value goes. "--name VALUE",
 * "--name=VALUE" and "-x VALUE" are the same; "--" ends the flags. Texts are those of argv.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include "core/problem.h"

#define FLAG_LIST_MAX 100

struct flag_list {
	const char *texts[FLAG_LIST_MAX];
	unsigned n;
};

enum flag_kind { FLAG_SWITCH, FLAG_VALUE, FLAG_VALUES };   /* bool, const char *, struct flag_list */

struct flag {
	const char *name, *letter;        /* "--output", "-o" or NULL */
	const char *value;                /* "FORMAT"; NULL of a switch */
	const char *doc;
	enum flag_kind kind;
	size_t at;                        /* offset in the options */
};
#define FLAGS_END { .name = NULL }

/* What every such command takes. */
struct client_options {
	const char *server, *token_file, *ca_file, *output;
	bool quiet, no_color;
};
extern const struct flag client_flags[];

struct flag_use {
	const struct flag *own;           /* beside client_flags */
	void *options;
	const char **words;               /* what is no flag: at most `most`, n were there */
	unsigned most, n;
};
/* args ends with NULL. false: *why->field is the flag or the argument, the text says what is wrong with it. */
MUST_USE bool flags_parse(struct flag_use *use, char *const *args, struct problem *why);
/* The rows, aligned: "  -o, --output FORMAT   doc". */
void flags_help(const struct flag *rows, FILE *out);
