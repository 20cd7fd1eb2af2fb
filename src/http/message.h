/*
 * message.h -- the head of a request or response, independent of the HTTP version it came in (RFC 9110).
 *
 * A message points into the bytes it was parsed from and into its arena; both live as long as the exchange.
 * Field names keep the spelling they arrived with and are compared without regard to case. Framing (length,
 * chunks, until close) is kept beside the fields: Content-Length, Transfer-Encoding, Connection and what Connection
 * names are parsed into the members below and marked `dropped`, and the writers make them anew; adding or setting
 * such a field does nothing. So no policy can break the framing.
 *
 * Host of a request: the row stays visible to message_find, but `authority` is what is written. message_set and
 * message_add of Host change both; removing it does nothing.
 *
 * Invariants: headers[0..n) hold dropped rows too, readers skip them; `present` has the bit of each well-known id
 * that is there and not dropped (it may have false positives after a removal, never false negatives).
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

enum method {
	METHOD_OTHER, METHOD_GET, METHOD_HEAD, METHOD_POST, METHOD_PUT, METHOD_DELETE, METHOD_CONNECT, METHOD_OPTIONS,
	METHOD_TRACE, METHOD_PATCH
};

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
	bool is_line;                     /* name, ": ", value and CRLF stand together in memory */
};

struct message {
	struct arena *arena;              /* where added fields go */
	/* request */
	enum method method;               /* in a response: of the request it answers */
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
	bool expect_continue;             /* waits for 100 before the body; the Expect field itself is dropped */
	bool has_upgrade;                 /* asks for an upgrade (Connection: upgrade and an Upgrade field) */
	bool wants_trailers;              /* TE: trailers */
	bool length_known;                /* content_length was announced, even where no body follows (HEAD, 304) */
	bool hides_addresses;             /* of a request: address_fields_remove() */
	enum framing framing;
	uint64_t content_length;          /* when FRAMING_LENGTH */
	/*
	 * The protocol to ask for, or (101) spoken from now on; absent = none. Of a received request: an extended
	 * CONNECT of HTTP/2 (RFC 8441) asks for it; it is a GET like any other upgrade then.
	 */
	struct str upgrade;
	uint64_t present;                 /* bit set of enum header_id */
	struct header *headers;
	unsigned n, cap;
	struct message *trailers;         /* rows that came after the body, checked; NULL = none (yet) */
	struct guarded_name *guarded;     /* of a request: identity_guard() */
};

enum header_id header_lookup(struct str name);                 /* any case */
struct str header_name(enum header_id id);                     /* lower case */
struct str header_title(enum header_id id);                    /* "Content-Type": in rows that we add */
enum method method_lookup(struct str name);                    /* exact case, as RFC 9110 9.1 says */
bool header_is_token(struct str s);                            /* RFC 9110 5.6.2, at least one character */
bool header_is_value(struct str s);                            /* no CR, LF, NUL or other controls but HTAB */

/* First field with that name, or NULL. */
struct header *message_find(const struct message *m, enum header_id id);
struct header *message_find_name(const struct message *m, struct str name);
/* Next one after `h` with the same name, or NULL. */
struct header *message_find_next(const struct message *m, const struct header *h);
struct str message_value(const struct message *m, enum header_id id);   /* of the first; absent str when none */
/* Value of the Upgrade field, which is a dropped row; absent str when there is none. */
struct str message_upgrade(const struct message *m);
/*
 * name and value are not copied: they live as long as the arena. message_add adds a line even when the name is
 * there already. A name that is no token is not added; control bytes in a value become spaces, so no text from
 * elsewhere can end a line early.
 */
void message_add(struct message *m, struct str name, struct str value);
void message_add_id(struct message *m, enum header_id id, struct str value);
/*
 * Leaves exactly one line, which the caller wrote: the name of the id in lower case, ": ", value_n bytes of a value of
 * our own making, CRLF. The forwarded fields of every request.
 */
void message_put_line(struct message *m, enum header_id id, const char *line, size_t value_n);
/* Leaves exactly one line, where the first one stood. */
void message_set(struct message *m, struct str name, struct str value);
void message_set_id(struct message *m, enum header_id id, struct str value);
unsigned message_remove(struct message *m, struct str name);   /* returns how many lines went */
void message_remove_id(struct message *m, enum header_id id);
void message_grow(struct message *m);      /* room for at least one more row; rows move, pointers to them end */
/*
 * The same for a name that was looked up before, id is header_lookup(name) and name a token, and for a value that
 * header_is_value() accepts. What policies do to every request.
 */
struct header *message_find_as(const struct message *m, enum header_id id, struct str name);
void message_add_as(struct message *m, enum header_id id, struct str name, struct str value);
void message_set_as(struct message *m, enum header_id id, struct str name, struct str value);
unsigned message_remove_as(struct message *m, enum header_id id, struct str name);
/* All values of a name joined by ", " (one allocation only when there are several). */
struct str message_join(const struct message *m, struct str name);

/* Value of the first cookie / query parameter of that name; absent str when missing. Raw, not decoded. */
struct str message_cookie(const struct message *m, struct str name);
struct str query_value(struct str query, struct str name);
