/*
 * upstream.h -- an HTTP/1.1 server for tests: answers as the path asks and remembers every request byte for byte.
 *
 *     test_upstream PORT [IP:]PORT...     prints "ready CONTROL PORT..." when it listens on all of them
 *
 * Port 0 = any free one, "=" = the same as the one before (with another loopback address).
 *
 * The first port is the control port: GET /record (all requests so far), /clear, /stats. On the other ports the first
 * known word of the path says what happens; words before it are ignored, so that any route prefix may stand there:
 *     /a/b/size/1000 = 1,000 bytes with Content-Length.   Bodies are the letters of pattern(), by position.
 * It judges requests strictly: what breaks the message format is recorded as malformed, answered 400 and closed.
 * One thread; nothing here is shared with the program under test.
 */
#pragma once
#include <openssl/evp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PORTS_MAX 64
#define HEAD_MAX 131072
#define RECORD_BYTES 65536               /* of one request, head included */
#define RECORDS_MAX 20000
#define BACKLOG_BYTES 262144             /* answers are made as they are taken */
#define STREAM_ENDLESS UINT64_MAX

struct bytes {
	char *p;
	size_t n, room;
};

struct record {
	unsigned port, connection, turn;
	struct bytes wire;               /* as received, up to RECORD_BYTES */
	size_t head_bytes;
	uint64_t body_bytes;
	unsigned char digest[32];
	bool complete, malformed;
	const char *address;             /* of the listener */
};

enum phase { READING_HEAD, READING_BODY, ANSWERING, DRAINING };
enum framing { NO_BODY, BY_LENGTH, CHUNKED };
enum chunk_part { CHUNK_SIZE, CHUNK_DATA, CHUNK_END, CHUNK_TRAILER };
enum after { KEEP, CLOSE, RESET };

struct connection {
	int fd;
	bool is_control, is_stalled, refuses_next;
	bool woken;                      /* the action runs again, after its time */
	const char *address;             /* of the listener */
	unsigned port, number, turn;
	enum phase phase;
	struct bytes in, out, head, trailer;
	size_t out_sent;
	enum framing framing;
	enum chunk_part part;
	uint64_t left;                   /* of the body or the chunk */
	uint64_t body_bytes;
	EVP_MD_CTX *hash;
	unsigned char digest[32];
	size_t record;                   /* its number plus one; 0 = none */
	bool answered_early;
	/* the answer */
	const struct action *action;
	const char *argument;
	uint64_t stream_at, stream_left;
	bool stream_chunked, stream_trailers;
	unsigned slow_ms;
	int64_t wake_ms;                 /* 0 = not waiting */
	enum after after;
	struct connection *next;
};

struct action {
	const char *word;
	void (*run)(struct connection *c, const char *argument);
	bool early;                      /* runs before the body is read */
};

extern struct record *records;
extern size_t n_records;

/* text.c */
void add(struct bytes *b, const void *p, size_t n);
__attribute__((format(printf, 2, 3))) void add_text(struct bytes *b, const char *format, ...);
void drop_front(struct bytes *b, size_t n);
void release(struct bytes *b);
void add_json(struct bytes *b, const char *p, size_t n);          /* as a JSON string, one character a byte */
void add_hex(struct bytes *b, const unsigned char *p, size_t n);
char pattern(uint64_t at);
int64_t now_ms(void);

/* request.c */
bool field_is(const struct bytes *head, const char *name, const char *value);
bool is_good_head(const struct bytes *head);
bool find_framing(struct connection *c);                          /* where the body ends; false = not acceptable */
void open_record(struct connection *c);
void mark_malformed(struct connection *c);
void finish_body(struct connection *c);
int read_body(struct connection *c);                              /* 1 = complete, 0 = more is needed, -1 = malformed */

/* answers.c */
const struct action *find_action(const struct bytes *head, const char **argument);
void answer(struct connection *c, int status, const char *fields, const char *body, size_t n);
void add_stream(struct connection *c);                            /* the next bytes of a streamed body */
