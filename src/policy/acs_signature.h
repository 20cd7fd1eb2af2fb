/*
 * acs_signature.h -- ACS3-HMAC-SHA256: how calls to Alibaba Cloud services prove whose they are.
 *
 * The signature covers method, path, query, Host, Content-Type, all x-acs-* lines and the body. The same texts have to
 * be sent: whoever changes a byte of them afterwards is refused there.
 *
 *      canonical = METHOD \n path \n query, sorted \n "name:value\n" of each line, sorted \n names \n sha256(body)
 *      signature = hmac(secret, "ACS3-HMAC-SHA256" \n sha256(canonical)), all in hex
 */
#pragma once
#include <stdint.h>
#include "core/arena.h"
#include "http/message.h"

struct acs_key {
	struct str id, secret;            /* both absent or empty: calls are not signed */
	struct str token;                 /* of temporary keys; absent or empty = none */
};

struct acs_request {
	struct str host;                  /* as the Host line has it */
	struct str target;                /* path and query, as it is sent */
	struct str action, version;
	struct str content_type, body;
	struct str nonce;                 /* never the same twice */
	int64_t now_ms;                   /* Unix time */
};

#define ACS_LINES_MAX 8
/* The lines to send, Host excepted: Content-Type, x-acs-*, Authorization if there is a key. Texts in the arena. */
unsigned acs_sign(const struct acs_key *key, const struct acs_request *r, struct arena *a,
		  struct header lines[ACS_LINES_MAX]);
/* 32 random hex digits in the form of a UUID (version 4). */
struct str acs_nonce(struct arena *a);
struct str acs_hex(struct arena *a, const uint8_t *bytes, size_t n);
