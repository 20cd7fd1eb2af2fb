/*
 * operator.h -- who calls the API and what they may do.
 *
 * The admin token stands in DATA/admin.token (0600), made at the first start; further tokens are resources with
 * a list of actions.
 * In memory and in the store a token is only its SHA-256; comparing takes the same time whatever is wrong with it.
 */
#pragma once
#include <stdbool.h>
#include "control/model.h"
#include "core/problem.h"

enum { OPERATOR_TOKEN_LENGTH = 43, OPERATOR_DIGEST_LENGTH = 64 };

struct operators {
	char path[4096];                  /* of the admin's token file */
	char digest[OPERATOR_DIGEST_LENGTH + 1];
	bool is_new;
};

/* Who a call comes from: the admin, or a token resource. */
struct operator {
	bool is_admin;
	const struct resource *token;
};

MUST_USE bool operators_open(struct operators *o, const char *data_dir, struct problem *why);
/* digest gets 64 hex digits and a NUL. */
void operator_digest(struct str token, char digest[OPERATOR_DIGEST_LENGTH + 1]);
/* x_auth_token, or what follows "Bearer " in authorization. false: PROBLEM_UNAUTHORIZED. */
MUST_USE bool operator_find(const struct operators *o, const struct model *m, struct str x_auth_token,
	struct str authorization, struct operator* out);
bool operator_may(const struct operator *who, struct str action);
/* pattern may have '*' anywhere. */
bool operator_action_fits(struct str pattern, struct str action);
