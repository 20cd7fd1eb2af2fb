/* token.c -- tokens for the API besides the admin's: a list of allowed actions, the token itself only as a digest. */
#include "control/operator.h"
#include "control/resources/shared.h"
#include <stdio.h>
#include "control/write.h"
#include "core/crypto.h"

static bool check_action(struct str s, struct problem *why)
{
	for (size_t i = 0; i < s.n; i++) {
		char c = s.p[i];

		if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == ':' || c == '*'))
			return problem(why, "", "must be an action such as apig:CreatePolicy, apig:Get* or *");
	}
	return true;
}

static const struct field fields[] = {
	TEXT(struct token_doc, name, REQUIRED, RANGE(1, 512),
		FORMAT(format_title), EXAMPLE("\"ci\""), DOC("Name, unique.")),
	TEXTS(struct token_doc, actions, REQUIRED, RANGE(1, 256), TEXT_MAX(128), FORMAT(check_action),
		EXAMPLE("[\"apig:*\"]"), DOC("Actions it may do; * stands for any text.")),
	TEXT(struct token_doc, digest, READ_ONLY, SECRET_STAYS, DOC("SHA-256 of the token; never returned.")),
	FIELDS_END
};

/* The token is made here and shown once. */
static bool complete(struct draft *d, struct problem *why)
{
	char token[OPERATOR_TOKEN_LENGTH + 1], digest[OPERATOR_DIGEST_LENGTH + 1];
	struct arena *a = d->write->arena;

	(void)why;
	if (d->before) {
		json_put(d->arena, d->doc, "digest", json_clone(d->arena, json_get(d->before->doc, "digest")));
		return true;
	}
	crypto_id(token, OPERATOR_TOKEN_LENGTH);
	operator_digest(str_of(token), digest);
	json_put(d->arena, d->doc, "digest", json_new_text(d->arena, arena_copy(d->arena, str_of(digest))));
	d->write->reveal = json_new(a, JSON_OBJECT);
	json_put(a, d->write->reveal, "token", json_new_text(a, arena_copy(a, str_of(token))));
	return true;
}

static const char *const read_only[] = { "digest", NULL };

const struct resource_class token_class = {
	.kind = RESOURCE_TOKEN,
	.name = "token",
	.noun = "Token",
	.plural = "Tokens",
	.id_field = "tokenId",
	.id_prefix = "token-",
	.path = "/api/v1/tokens",
	.has_unique_name = true,
	.read_only = read_only,
	.fields = fields,
	.size = sizeof(struct token_doc),
	.doc = "A token for this API.",
	.complete = complete,
};
