/*
 * inflate.h -- the bytes of an answer that its upstream compressed although it was asked not to (BUF-4): gzip, deflate
 * and br, from pieces cut at any byte.
 *
 *      inflate_open(Content-Encoding) ──► inflate_give(piece) ──► inflate_next ... false ──► inflate_give(next piece)
 *
 * What comes out is handed on in parts of at most INFLATE_PART bytes, so a small piece that holds a lot takes no
 * memory. One that goes on for ever ends: more than INFLATE_RATIO times what came in, after the first megabyte, is
 * taken for an attack and broken off.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include "core/str.h"

#define INFLATE_PART 16384
#define INFLATE_RATIO 250

struct inflate;

/* NULL: identity, several encodings, or one that is not known. */
struct inflate *inflate_open(struct str encoding);
/* Must not change until inflate_next() said false. */
void inflate_give(struct inflate *i, struct str piece);
/* The next part, good until the next call; false: the piece is used up, or nothing more can be read. */
bool inflate_next(struct inflate *i, struct str *part);
/* What came is no such encoding, or too much: bytes that are not read any more. */
bool inflate_is_broken(const struct inflate *i);
/* Whether the stream is where it may end: its last byte was given. */
bool inflate_is_over(const struct inflate *i);
void inflate_close(struct inflate *i);    /* NULL is fine */
/* The reverse, for what we keep ourselves: gzip. */
void deflate_all(struct str plain, struct sbuf *out);
/* All of a whole body; false: broken, not complete, or longer than `most`. */
MUST_USE bool inflate_all(struct str encoding, struct str body, size_t most, struct sbuf *out);
