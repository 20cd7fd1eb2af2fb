/*
 * trailers.h -- the fields that may follow a body (RFC 9110 6.5), of any HTTP version.
 *
 * What must be known before the body -- framing, routing, credentials, who the client is -- is refused as a trailer: an
 * upstream that merges trailers into the head would believe it. Everything else is passed on where the other side's
 * framing can carry it, else left out. Policies do not see trailers.
 */
#pragma once
#include "http/message.h"

#define TRAILERS_MAX 64                   /* fields */
#define TRAILER_NAME_BYTES 20             /* no refused name is longer */

/* Whether a field of that name breaks the message. */
bool trailer_is_refused(struct str name);

/* Lines "name: value" CRLF whose syntax was checked, as they arrive. */
struct trailer_lines {
	char *p;
	uint32_t n, cap;
	unsigned fields;
};
void trailer_lines_add(struct trailer_lines *lines, struct arena *a, char c);
/* Rows that point into the lines; NULL when there is none. Names with '_' are left out unless kept. */
struct message *trailer_lines_parse(const struct trailer_lines *lines, struct arena *a, bool keep_underscores);

/* The last chunk with its trailers: out has room for h1_last_chunk_bound() bytes. Dropped rows are left out. */
size_t h1_last_chunk_bound(const struct message *trailers);
size_t h1_write_last_chunk(const struct message *trailers, char *out);
