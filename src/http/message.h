/*
 * message.h -- the head of a request or response, independent of the HTTP version it came in (RFC 9110).
 *
 * A message points into the bytes it was parsed from and into its arena; both live as long as the exchange. Field names
 * keep the spelling they arrived with and are compared without regard to case. Framing (length, chunks, until close) is
 * kept beside the fields: Content-Length, Transfer-Encoding, Connection and what Connection names are parsed into the
 * members below and marked `dropped`, and the writers make them anew. So no policy can break the framing.
 *
 * Invariants: headers[0..n) hold dropped rows too, readers skip them; `present` has the bit of each well-known id that
 * is there and not dropped (it may have false positives after a removal, never false negatives).
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "core/arena.h"
#include "core/str.h"

enum header_id {
	HEADER_OTHER,
#define HEADER(id, name) HEADER_##id,
#include "http/headers.def"
#undef HEADER
	HEADER_COUNT
};

enum method { METHOD_OTHER, METHOD_GET, METHOD_HEAD, METHOD_POST, METHOD_PUT, METHOD_DELETE, METHOD_CONNECT,
	      METHOD_OPTIONS, METHOD_TRACE, METHOD_PATCH };

/* How the end of the body is known. */
enum framing {
	FRAMING_NONE,                     /* no body */
	FRAMING_LENGTH,                   /* content_length bytes */
	FRAMING_CHUNKED,                  /* chunks (h1) or END_STREAM (h2) */
	FRAMING_CLOSE,                    /* response only: until the connection closes */
};

struct header {
	struct str name, value;
	uint16_t id;                      /* enum header_id */
	bool dropped;
};

struct message {
	struct arena *arena;              /* where added fields go */
	/* request */
	enum method method;
	struct str method_name;
	struct str target;                /* request-target as received */
	struct str authority;             /* Host value (or of an absolute target), as received */
	struct str path;                  /* normalised, without the query; starts with '/', or is "*" */
	struct str query;                 /* without '?'; p == NULL when there was no '?' */
	/* response */
	int status;
	struct str reason;
	/* both */
	uint8_t minor;                    /* HTTP/1.<minor> of the peer; 1 for h2 */
	bool keep_alive;                  /* the peer allows another message on this connection */
	bool expect_continue;
	bool has_upgrade;                 /* asks for an upgrade (Connection: upgrade and an Upgrade field) */
	enum framing framing;
	uint64_t content_length;          /* when FRAMING_LENGTH */
	uint64_t present;                 /* bit set of enum header_id */
	struct header *headers;
	unsigned n, cap;
};

enum header_id header_lookup(struct str name);                 /* any case */
struct str header_name(enum header_id id);                     /* lower case */
enum method method_lookup(struct str name);                    /* exact case, as RFC 9110 9.1 says */
bool header_is_token(struct str s);                            /* RFC 9110 5.6.2, at least one character */
bool header_is_value(struct str s);                            /* no CR, LF, NUL or other controls but HTAB */

/* First field with that name, or NULL. */
struct header *message_find(const struct message *m, enum header_id id);
struct header *message_find_name(const struct message *m, struct str name);
/* Next one after `h` with the same name, or NULL. */
struct header *message_find_next(const struct message *m, const struct header *h);
struct str message_value(const struct message *m, enum header_id id);   /* of the first; absent str when there is none */
/* name and value are not copied: they live as long as the arena. Adds a line even when the name is there already. */
void message_add(struct message *m, struct str name, struct str value);
void message_add_id(struct message *m, enum header_id id, struct str value);
/* Leaves exactly one line. */
void message_set(struct message *m, struct str name, struct str value);
void message_set_id(struct message *m, enum header_id id, struct str value);
unsigned message_remove(struct message *m, struct str name);   /* returns how many lines went */
void message_remove_id(struct message *m, enum header_id id);
/* All values of a name joined by ", " (one allocation only when there are several). */
struct str message_join(const struct message *m, struct str name);

/* Value of the first cookie / query parameter of that name; absent str when missing. Raw, not decoded. */
struct str message_cookie(const struct message *m, struct str name);
struct str query_value(struct str query, struct str name);
