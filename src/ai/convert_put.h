/*
 * convert_put.h -- JSON written straight into a text, without a tree: conversions copy texts of many megabytes once.
 *
 * `name` is a member's, NULL an item's of a list. Commas are put where they belong, told by the last byte: so a value
 * that stands alone begins with put_root(), and only these functions write until it is whole.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "core/json.h"
#include "core/str.h"

void put_root(struct sbuf *out);                                      /* "{" */
void put_open(struct sbuf *out, const char *name, char bracket);      /* '{' or '[' */
void put_close(struct sbuf *out, char bracket);                       /* '}' or ']' */
void put_text(struct sbuf *out, const char *name, struct str s);
void put_int(struct sbuf *out, const char *name, int64_t v);
void put_bool(struct sbuf *out, const char *name, bool v);
void put_null(struct sbuf *out, const char *name);
void put_node(struct sbuf *out, const char *name, const struct json *v);
/* A text of two pieces. */
void put_joined(struct sbuf *out, const char *name, struct str first, struct str second);
/* The value's JSON as a text. */
void put_node_as_text(struct sbuf *out, const char *name, const struct json *v);
/* A text with a JSON object in it as that object; empty: {}; anything else: {"INVALID_JSON": text}. */
void put_text_as_object(struct sbuf *out, const char *name, struct str text);
