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

/* Signatures that OpenSSL asks for. */
#define TLS_TICKET_KEY(function) \
	int function(SSL *ssl, unsigned char name[16], unsigned char *iv, EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac, \
		     int seals)
#define TLS_CHOOSE_PROTOCOL(function) \
	int function(SSL *ssl, const unsigned char **out, unsigned char *out_n, const unsigned char *in, \
		     unsigned in_n, void *arg)

int tls_wire_version(enum tls_version v);
/* What connections start with, before their hello was read; of the whole process. */
SSL_CTX *tls_start_context(void);
/* A context with everything that certificates do not decide. */
SSL_CTX *tls_new_context(void);

/* tls_ticket.c: the callback of SSL_CTX_set_tlsext_ticket_key_evp_cb(). */
TLS_TICKET_KEY(tls_ticket_key);
int64_t tls_ticket_life_ms(void);

/* tls.c: callbacks of the start context. */
int tls_choose(SSL *ssl, int *alert, void *arg);
TLS_CHOOSE_PROTOCOL(tls_choose_protocol);
