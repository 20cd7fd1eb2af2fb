/*
 * h1.h -- HTTP/1.1 on the wire (RFC 9112), strictly: what could be read in two ways is refused, never repaired.
 *
 * Reading goes in three steps, none of which keeps bytes: find where the head ends (h1_find_head, incremental), parse
 * the whole head (h1_parse_request / h1_parse_response, once), decode the body in place (h1_body_decode). Requests that
 * are refused get the status of their fault and the connection is closed: nothing after a bad message may be believed.
 * Any fault of a response means 502.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>
#include "core/arena.h"
#include "http/message.h"

/* Why a message was refused: H1_FAULT(id, status, tag). The tag is a metric label and a log value. */
#define H1_FAULTS(F) \
	F(NONE, 200, "none") \
	F(REQUEST_LINE, 400, "request_line") \
	F(METHOD, 400, "method") \
	F(TARGET, 400, "target") \
	F(TARGET_LONG, 414, "target_too_long") \
	F(VERSION, 505, "version") \
	F(STATUS_LINE, 502, "status_line") \
	F(BARE_LF, 400, "bare_lf") \
	F(BARE_CR, 400, "bare_cr") \
	F(NUL_BYTE, 400, "nul") \
	F(LEADING, 400, "leading_bytes") \
	F(HEADER_NAME, 400, "header_name") \
	F(HEADER_VALUE, 400, "header_value") \
	F(FOLD, 400, "obs_fold") \
	F(SPACE_COLON, 400, "space_before_colon") \
	F(HEAD_LARGE, 431, "head_too_large") \
	F(HEADER_COUNT, 431, "too_many_headers") \
	F(HOST_MISSING, 400, "host_missing") \
	F(HOST_TWICE, 400, "host_twice") \
	F(HOST_BAD, 400, "host_bad") \
	F(LENGTH_BAD, 400, "content_length") \
	F(LENGTH_TWICE, 400, "content_length_twice") \
	F(LENGTH_AND_CODING, 400, "length_and_transfer_encoding") \
	F(CODING, 501, "transfer_encoding") \
	F(CODING_ORDER, 400, "transfer_encoding_order") \
	F(CODING_VERSION, 400, "transfer_encoding_http10") \
	F(CHUNK_SIZE, 400, "chunk_size") \
	F(CHUNK_EXTENSION, 400, "chunk_extension") \
	F(CHUNK_END, 400, "chunk_end") \
	F(TRAILER, 400, "trailer") \
	F(CONNECT, 405, "connect") \
	F(EXPECT, 417, "expect") \
	F(CONNECTION, 400, "connection") \
	F(PROXY_HEADER, 400, "proxy_header") \
	F(CLIENT_HELLO, 400, "client_hello")
enum h1_fault {
#define H1_FAULT_ID(id, status, tag) H1_FAULT_##id,
	H1_FAULTS(H1_FAULT_ID)
#undef H1_FAULT_ID
};
int h1_fault_status(enum h1_fault f);
const char *h1_fault_tag(enum h1_fault f);

struct h1_limits {
	uint32_t head_bytes;              /* default 32768, request line included */
	uint32_t fields;                  /* default 100, at most 65,535; each cookie crumb counts */
	uint32_t target_bytes;            /* default 16384 */
	bool keep_underscores;            /* names with '_' are dropped unless set */
};
extern const struct h1_limits h1_default_limits;

#define H1_METHOD_BYTES 64                /* longer methods are refused before the line is complete */

enum h1_result { H1_DONE, H1_MORE, H1_BAD };

/* Where the search for the end of a head stands. Zero-initialise for each message. */
struct h1_scan {
	size_t seen;                      /* bytes already looked at */
	enum h1_fault fault;              /* when H1_BAD */
};
/*
 * Looks for the empty line in p[0..n), which starts at the message's first byte and only ever grows. H1_DONE:
 * *head_size bytes belong to the head, empty line included (what is inside is for the parser to judge). H1_BAD when an
 * unfinished head can become no good one: bare LF, first byte no token, endless method. An empty line before a request
 * (one CRLF) is to be skipped by the caller with h1_skip_empty, before the scan; a lone CR at the start is H1_MORE and
 * leaves the scan untouched. The size limit is the caller's: H1_MORE with n >= head_bytes is H1_FAULT_HEAD_LARGE.
 */
enum h1_result h1_find_head(struct h1_scan *s, const char *p, size_t n, size_t *head_size);
size_t h1_skip_empty(const char *p, size_t n);           /* 0 or 2 */

/*
 * Parses a copy of a whole head, to which the message points. *m is zero but for m->arena. H1_FAULT_NONE on success;
 * *m is then complete: framing, keep_alive, path and query normalised, absolute-form targets folded into authority
 * and path (RFC 9112 3.2.2), hop-by-hop fields dropped. After a fault *m holds what was read so far, for the log
 * only.
 */
enum h1_fault h1_parse_request(struct message *m, struct str head, const struct h1_limits *limits);
/* A final or interim response to a request with `method`; framing per RFC 9112 6.3. */
enum h1_fault h1_parse_response(struct message *m, struct str head, const struct h1_limits *limits,
                                enum method method);

/* Body decoder for one message. */
struct h1_body {
	enum framing framing;
	uint8_t state;
	uint8_t name_bytes;               /* of a trailer's name so far */
	uint16_t line_bytes;              /* of the chunk-size line or trailer section so far */
	uint32_t extension_bytes;         /* of all chunk extensions so far */
	enum h1_fault fault;
	uint64_t left;                    /* bytes left of the length or of the chunk */
	bool keep_underscores;            /* in names of trailers */
	char name[20];                    /* start of a trailer's name, which may arrive in pieces */
	/* Set after h1_body_init() to keep the trailers, which live there; NULL: they are checked and thrown away. */
	struct arena *arena;
	struct trailer_lines *lines;
	struct message *trailers;         /* once the body has ended; NULL = none */
};
void h1_body_init(struct h1_body *b, enum framing framing, uint64_t content_length);
/*
 * Decodes p[0..n) in place: the data bytes of this piece are moved together to p[0..*data_size). *consumed says how
 * many wire bytes were used (all of n, unless the message ended: the rest belongs to the next one). H1_DONE: the body
 * has ended. FRAMING_CLOSE never ends here: the end of the connection ends it. Chunk extensions are checked and
 * discarded.
 */
enum h1_result h1_body_decode(struct h1_body *b, char *p, size_t n, size_t *consumed, size_t *data_size);
bool h1_body_is_done(const struct h1_body *b);           /* nothing (more) to read */

/*
 * Writers. `out` has room for h1_head_bound(m) bytes; they return how many were written. Rows that are not dropped go
 * out in order and unchanged; Host, framing and Connection lines are made from the message's members. Chunk helpers: a
 * chunk is h1_write_chunk_size, data, CRLF; the last is H1_LAST_CHUNK.
 */
size_t h1_head_bound(const struct message *m);
/* Origin form, Host first. m->upgrade adds Connection and Upgrade, else keep_alive false "Connection: close". */
size_t h1_write_request(const struct message *m, char *out);
/*
 * keep_alive false adds "Connection: close"; keep_alive with minor 0 adds "Connection: keep-alive", so set m->minor to
 * the receiver's. 1xx, 204 and 304 have no framing line; 101 has the fields of m->upgrade. FRAMING_NONE: the
 * announced length when known (HEAD), else "Content-Length: 0" unless m->method is HEAD.
 */
size_t h1_write_response(const struct message *m, char *out);
size_t h1_write_chunk_size(char out[20], size_t n);            /* "1a2b\r\n" */
#define H1_LAST_CHUNK "0\r\n\r\n"
/* A piece of a body as parts to send: plain or a chunk; `end` adds the last chunk. Returns how many, at most 3. */
int h1_frame(bool is_chunked, struct iovec *parts, char size_line[20], struct str data, bool end);
const char *h1_reason(int status);                             /* "" when unknown */

/* "Sun, 06 Nov 1994 08:49:37 GMT", made once a second per thread. */
struct str http_date_now(void);
