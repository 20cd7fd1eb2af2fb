/*
 * tls.h -- TLS for clients' connections: which certificate is shown to whom, the handshake, the bytes.
 *
 *      control                                   worker
 *      tls_server_init (certificate, versions,   tls_accept ─► tls_handshake ─► transport_receive, transport_send
 *                       client CAs)                 └─ the client's hello names a host: tls_names_find
 *      struct tls_names ── snapshot ──────────►
 *
 * A tls_server is immutable. Control counts it as a part; a connection keeps the OpenSSL context that it chose for
 * itself, so a certificate that is replaced stays with the connections that began with it and with nobody else.
 *
 * Session tickets are sealed with keys of the whole process, a new one each hour, good for twelve more: a session
 * goes on whichever worker it comes back to. A ticket is good only for a tls_server of the same certificate, versions
 * and client CAs.
 *
 * OpenSSL never sees the socket. What it wants to write is gathered and sent in one call; what the kernel does not
 * take waits in the connection. How much of it is private to tls.c (see there: "the byte that is owed").
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>
#include "core/arena.h"
#include "core/pmap.h"
#include "core/problem.h"
#include "core/str.h"

enum tls_version { TLS_UNSET, TLS_1_0, TLS_1_1, TLS_1_2, TLS_1_3 };
const char *tls_version_name(enum tls_version v);     /* "TLSv1.3"; "" when unset */

/* ---------- certificates, control thread ---------- */

#define TLS_DIGEST 32

struct tls_material {
	struct str certificate;           /* PEM: the server's own first, then those above it */
	struct str key;                   /* PEM */
	struct str client_ca;             /* PEM; absent: clients show no certificate */
	enum tls_version min, max;        /* below TLS_1_2: OpenSSL's security level goes down to 0 */
};

struct tls_server {
	struct part part;                 /* its destroy calls tls_server_clear() */
	void *context;                    /* SSL_CTX */
	bool asks_client;                 /* clients must show a certificate */
	uint8_t client_ca[TLS_DIGEST];    /* of the client CAs; zero without */
	enum tls_version min, max;
};

/* *why->field: "certificate", "privateKey" or "clientCACert". part.refs becomes 1. */
MUST_USE bool tls_server_init(struct tls_server *s, const struct tls_material *m, struct problem *why);
void tls_server_clear(struct tls_server *s);
void tls_digest_ca(struct str client_ca, uint8_t out[TLS_DIGEST]);

/*
 * What a user's certificate must be to be taken: readable from the first block to the last, the one that belongs to
 * the key first, not expired, no key that today's clients refuse. `key` may be absent.
 */
MUST_USE bool tls_check_certificate(struct str certificate, struct str key, struct problem *why);
int64_t tls_certificate_end_ms(struct str certificate);      /* Unix time of its notAfter; 0 when unreadable */
/* Calls each(arg, name) for the DNS names it is for, lower case: alternative names, the common name without any. */
void tls_certificate_names(struct str certificate, void (*each)(void *arg, struct str name), void *arg);

/* What one listening address shows. Part of a binding. */
struct tls_names {
	const struct pmap *servers;       /* "a.example.com" or "*.example.com" → struct tls_server (its part) */
	const struct tls_server *fallback;   /* for clients that name no host or an unknown one; NULL: refused */
	bool speaks_http;                 /* ALPN is answered: h2 when is_h2, else http/1.1 */
	bool is_h2;
};
/* By exact name, then by the nearest wildcard above it, else the fallback. Any spelling; absent: the fallback. */
const struct tls_server *tls_names_find(const struct tls_names *names, struct str name);
/* The host in the server_name extension of a hello; absent when there is none or it breaks the format. */
struct str tls_read_server_name(const uint8_t *p, size_t n);

/* ---------- connections, worker ---------- */

struct tls;
enum tls_result {
	TLS_DONE,
	TLS_WAITS,                        /* for the next edge */
	TLS_FAILED,                       /* an alert was sent if there was one to send; tls_failure() */
};
/* Why a handshake did not succeed: label of the metric. */
#define TLS_FAILURES(X) \
	X(PLAIN_TEXT, "plain_text") \
	X(NOT_TLS, "not_tls") \
	X(VERSION, "version") \
	X(CIPHER, "no_shared_cipher") \
	X(NAME, "no_certificate_for_name") \
	X(ALPN, "no_application_protocol") \
	X(CLIENT_MISSING, "client_certificate_missing") \
	X(CLIENT_REFUSED, "client_certificate_refused") \
	X(ALERT, "refused_by_client") \
	X(CLOSED, "closed_by_client") \
	X(TIMEOUT, "timeout") \
	X(PROTOCOL, "protocol_error")
enum tls_failure {
#define TLS_FAILURE_ID(id, tag) TLS_FAILURE_##id,
	TLS_FAILURES(TLS_FAILURE_ID)
#undef TLS_FAILURE_ID
	TLS_FAILURE_COUNT
};
const char *tls_failure_tag(enum tls_failure f);

/* `names` is looked at during tls_handshake() only, and must be there then: see tls_set_names(). */
struct tls *tls_accept(int fd, const struct tls_names *names);
void tls_set_names(struct tls *t, const struct tls_names *names);   /* those of the configuration in force now */
enum tls_result tls_handshake(struct tls *t);
enum tls_failure tls_failure(const struct tls *t);
const char *tls_failure_text(const struct tls *t);                  /* OpenSSL's words; "" when it has none */

bool tls_is_h2(const struct tls *t);                                /* ALPN chose h2 */
bool tls_is_resumed(const struct tls *t);
enum tls_version tls_version(const struct tls *t);
struct str tls_name(const struct tls *t);                           /* the host it named; lives as long as t */
/* Whether the client proved by certificate that it comes from these CAs (tls_server.client_ca). */
bool tls_has_client(const struct tls *t, const uint8_t client_ca[TLS_DIGEST]);

/* As in transport.h, which calls them. */
ssize_t tls_receive(struct tls *t, void *p, size_t n);
ssize_t tls_send(struct tls *t, struct iovec *parts, int n);
bool tls_is_drained(const struct tls *t);
void tls_send_last(struct tls *t);                                  /* the goodbye goes out with the next bytes sent */
void tls_shutdown(struct tls *t);                                   /* close_notify, if it was not sent */
bool tls_said_goodbye(const struct tls *t);                         /* the peer's close_notify came */
void tls_free(struct tls *t);

/*
 * Of a library that speaks TLS itself: what it would read next, without taking it. ssl: its SSL, non-blocking, in use
 * by nobody else meanwhile. -1: nothing.
 */
ssize_t tls_peek_library(void *ssl, void *p, size_t n);

/* Tests: how long a ticket key seals, and how long after that it opens. */
void tls_set_ticket_times(int64_t seals_ms, int64_t opens_ms);
