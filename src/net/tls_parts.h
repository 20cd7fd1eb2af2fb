/*
 * tls_parts.h -- what tls.c (connections), tls_context.c (certificates to contexts) and tls_ticket.c share, and the
 * only place besides core/crypto.c that includes OpenSSL.
 */
#pragma once
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include "net/tls.h"

struct tls_client_side;

/* Signatures that OpenSSL asks for. */
#define TLS_TICKET_KEY(function) \
	int function(SSL *ssl, unsigned char name[16], unsigned char *iv, EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac, \
		     int seals)
#define TLS_FREE_EXTRA(function) \
	void function(void *context, void *p, CRYPTO_EX_DATA *all, int index, long number, void *arg)
#define TLS_CHOOSE_PROTOCOL(function) \
	int function(SSL *ssl, const unsigned char **out, unsigned char *out_n, const unsigned char *in, \
		     unsigned in_n, void *arg)

/* ERR_clear_error() alone costs some 2,000 instructions. */
static inline void tls_clear_errors(void)
{
	if (ERR_peek_error())
		ERR_clear_error();
}

int tls_wire_version(enum tls_version v);
/* What connections start with, before their hello was read; of the whole process. */
SSL_CTX *tls_start_context(void);
/* A context with everything that certificates do not decide. */
SSL_CTX *tls_new_context(void);

#define TLS_GROUPS "X25519:P-256:P-384"
#define TLS_SUITES "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"

/* tls_context.c */
STACK_OF(X509) *tls_read_certificates(struct str pem);   /* all, in order; NULL: none, or a block cannot be read */
/* *why->field: "certificate", "privateKey". */
MUST_USE bool tls_load_chain(SSL_CTX *c, struct str pem, struct problem *why);
MUST_USE bool tls_load_key(SSL_CTX *c, struct str pem, struct problem *why);

/* tls_ticket.c: the callback of SSL_CTX_set_tlsext_ticket_key_evp_cb(). */
TLS_TICKET_KEY(tls_ticket_key);
int64_t tls_ticket_life_ms(void);

/* tls.c: what tls_client.c builds on. */
struct tls *tls_open(int fd, SSL_CTX *context);           /* neither side yet */
SSL *tls_ssl(const struct tls *t);
struct tls_client_side **tls_client_side(struct tls *t);  /* NULL: we are the server; freed by tls_client_side_free() */
void tls_client_side_free(struct tls *t);                 /* tls_client.c */
unsigned long tls_error(const struct tls *t);             /* OpenSSL's, of what ended it; 0 */
bool tls_has_ended(const struct tls *t);                  /* the peer's end, with or without a goodbye */

/* tls.c: callbacks of the start context. */
int tls_choose(SSL *ssl, int *alert, void *arg);
TLS_CHOOSE_PROTOCOL(tls_choose_protocol);
