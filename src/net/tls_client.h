/*
 * tls_client.h -- TLS towards upstreams: as whom the gateway speaks, whom it believes, the handshake.
 *
 *      control                                    worker
 *      tls_client_init (CA, certificate,          call.tls, call.server_name ──► tls_connect ──► tls_handshake
 *                       names) ── endpoint.tls ─►                                    verified: chain, time, name ─┘
 *
 * A tls_client is immutable and counted as a part by the control thread. A connection keeps what it needs of it, so a
 * connection outlives the identity that it was made with. The server is always verified: its chain against the given
 * CAs or the system's, the time, and a name. There is no way to leave that out.
 *
 * Sessions go on (tickets) only for the same identity, endpoint and name: who keeps a tls_session keeps it for these.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "core/cidr.h"
#include "core/pmap.h"
#include "core/problem.h"
#include "core/str.h"
#include "net/tls.h"

/* ---------- identities, control thread ---------- */

struct tls_client_material {
	struct str ca;                    /* PEM; absent: the system's bundle */
	struct str certificate, key;      /* PEM; absent: none is shown */
	const struct str *names;          /* of which the server must bear one; none: what the connection is made for */
	size_t n_names;
	bool is_spiffe;                   /* instead of names: one URI spiffe://DOMAIN/PATH, whatever it is */
};

struct tls_client {
	struct part part;                 /* its destroy calls tls_client_clear() */
	uint64_t number;                  /* unique in the process, also of those that are gone: keeps pools apart */
	void *context;                    /* SSL_CTX; NULL: it can make no connection, see `trouble` */
	struct str sni;                   /* said in each handshake; absent: as the connection is for */
	char trouble[160];                /* why there is no context */
};

/* *why->field: "caCertContent", "certId" (certificate and key). part.refs becomes 1. */
MUST_USE bool tls_client_init(struct tls_client *c, const struct tls_client_material *m, struct problem *why);
/* One that makes no connection: each fails with TLS_CLIENT_UNUSABLE and these words. */
void tls_client_init_broken(struct tls_client *c, const char *trouble);
void tls_client_clear(struct tls_client *c);
/* The system's CAs, no certificate: for URLs. Made once, never freed. Any thread. */
const struct tls_client *tls_client_default(void);
/* A PEM text of CAs as users give it: readable to the last block, at least one. *why->field is "". */
MUST_USE bool tls_check_ca(struct str pem, struct problem *why);
/* Whether the system has CAs, and how they are to be had: for problems and logs. */
MUST_USE bool tls_system_ca(struct problem *why);

/* ---------- names ---------- */

/* A name that a certificate bears (subjectAltName). */
struct tls_borne {
	enum { TLS_BORNE_DNS, TLS_BORNE_IP, TLS_BORNE_URI } kind;
	struct str text;                  /* DNS, URI */
	struct ip ip;
};
/*
 * Whether it is the one expected: "a.example.com", "*.example.com", an address, or a URI. A "*" stands for one whole
 * label at the left, on either side; in a certificate two labels at least must follow it. Common names do not count.
 */
bool tls_name_matches(struct str expected, const struct tls_borne *borne);
/* spiffe://trust-domain/path */
bool tls_name_is_spiffe(struct str uri);

/* ---------- connections, worker ---------- */

/* Why a handshake did not succeed: label of the metric. */
#define TLS_CLIENT_FAILURES(X) \
	X(NONE, "none") \
	X(UNTRUSTED, "untrusted") \
	X(EXPIRED, "expired") \
	X(NAME, "name_mismatch") \
	X(CERTIFICATE, "bad_certificate") \
	X(VERSION, "version") \
	X(CIPHER, "no_shared_cipher") \
	X(ALPN, "no_application_protocol") \
	X(ALERT, "refused_by_upstream") \
	X(CLOSED, "closed_by_upstream") \
	X(TIMEOUT, "timeout") \
	X(NOT_TLS, "not_tls") \
	X(UNUSABLE, "unusable_policy") \
	X(PROTOCOL, "protocol_error")
enum tls_client_failure {
#define TLS_CLIENT_FAILURE_ID(id, tag) TLS_CLIENT_##id,
	TLS_CLIENT_FAILURES(TLS_CLIENT_FAILURE_ID)
#undef TLS_CLIENT_FAILURE_ID
	TLS_CLIENT_FAILURE_COUNT
};
const char *tls_client_failure_tag(enum tls_client_failure f);

/* What a handshake can go on with; its owner's. Zero-initialise. */
struct tls_session {
	void *ticket;                     /* SSL_SESSION */
};
void tls_session_free(struct tls_session *s);
bool tls_session_is_there(const struct tls_session *s);

enum tls_alpn { TLS_ALPN_NONE, TLS_ALPN_HTTP1, TLS_ALPN_H2 };    /* H2: http/1.1 is offered after it */

struct tls_connect {
	const struct tls_client *client;  /* with a context */
	struct str server_name;           /* SNI, and the name to be borne unless the client has names; absent: none */
	struct ip address;                /* to be borne where there is no name at all */
	bool takes_any_name;              /* only the chain counts: probes of endpoints that nothing names */
	enum tls_alpn alpn;
	struct tls_session *session;      /* gone on with, and replaced by newer ones; lives as long as the tls; NULL */
};
/* Then tls_handshake() at each edge; see tls.h. */
struct tls *tls_connect(int fd, const struct tls_connect *how);
enum tls_client_failure tls_client_failure(const struct tls *t);
struct str tls_client_name(const struct tls *t);          /* what it was made for; absent: an address */
/* In words, never of the peer's choosing; lives for ever. */
const char *tls_client_failure_text(const struct tls *t);
bool tls_client_is_h2(const struct tls *t);
/* After the handshake: the server says that it refuses us (TLS 1.3 says so late). Nothing that was sent was read. */
bool tls_client_was_refused(const struct tls *t);
