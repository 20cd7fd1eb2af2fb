/*
 * secrets.h -- secret members of documents: in the clear in memory, sealed in the store, absent in answers.
 *
 * The key is DATA/secret.key (32 random bytes, 0600), made at the first start. A sealed value is bound to its
 * place: the label
 * "kind/id/path" is authenticated with it.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "control/model.h"
#include "core/problem.h"

struct secrets {
	uint8_t key[32];
	bool is_new;                      /* the key file was made by this call */
};

MUST_USE bool secrets_open(struct secrets *s, const char *data_dir, struct problem *why);
/* Removes a key file that this start made, when it turns out that another one is meant. */
void secrets_withdraw(const struct secrets *s, const char *data_dir);
/* Both change the document in place. */
void secrets_seal(const struct secrets *s, const struct resource *r, struct json *doc, struct arena *a);
MUST_USE bool secrets_unseal(const struct secrets *s, const struct resource *r, struct json *doc, struct arena *a,
                             struct problem *why);
/* What a resource's answer may show: a copy without secrets. */
struct json *secrets_strip(const struct resource *r, struct arena *a);
/* Secrets that a PUT left out are taken from the version before; *moved as document_keep_secrets() says. */
void secrets_keep(enum resource_kind kind, struct json *doc, const struct json *old, struct arena *a,
	struct problem *moved);
MUST_USE bool secrets_check_masks(enum resource_kind kind, struct json *doc, struct problem *why);
/* A sealed word to store beside the resources, and whether it was sealed with this key. */
struct str secrets_key_check(const struct secrets *s, struct arena *a);
bool secrets_is_key_of(const struct secrets *s, struct str key_check, struct arena *a);
/*
 * The secret that session keys are derived from (proxy/gateway_keys.h): a new one, sealed for the store; and one that
 * was read there put into force.
 */
struct str secrets_make_session(const struct secrets *s, struct arena *a);
MUST_USE bool secrets_use_session(const struct secrets *s, struct str sealed, struct arena *a, struct problem *why);
