/*
 * tls_parts.h -- what tls.c (connections), tls_context.c (certificates to contexts) and tls_ticket.c share, and the
 * only place besides core/crypto.c that includes OpenSSL.
 */
#pragma once
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include "net/tls.h"

/* What a connection must know of the tls_server it chose; lives as long as the context does. */
struct tls_traits {
	enum tls_version min, max;
	uint8_t client_ca[TLS_DIGEST];
	bool asks_client;
};
const struct tls_traits *tls_traits(const SSL_CTX *context);
int tls_wire_version(enum tls_version v);
/* What connections start with, before their hello was read; of the whole process. */
SSL_CTX *tls_start_context(void);
/* A context with everything that certificates do not decide. */
SSL_CTX *tls_new_context(void);

/* tls_ticket.c: the callback of SSL_CTX_set_tlsext_ticket_key_evp_cb(). */
int tls_ticket_key(SSL *ssl, unsigned char name[16], unsigned char *iv, EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac,
		   int seals);
int64_t tls_ticket_life_ms(void);

/* tls.c: callbacks of the start context. */
int tls_choose(SSL *ssl, int *alert, void *arg);
int tls_choose_protocol(SSL *ssl, const unsigned char **out, unsigned char *out_n, const unsigned char *in,
			unsigned in_n, void *arg);
