/*
 * token_place.h -- where a request carries its token: a header behind a prefix, a query parameter or a cookie; found
 * there, and taken off before the request goes on.
 *
 * Nobody can be sure which of two tokens an upstream would take, so a request with two of them has none. What is
 * removed is exactly what would have been found, spelt as it may be.
 */
#pragma once
#include "http/message.h"

enum token_position { TOKEN_HEADER, TOKEN_QUERY, TOKEN_COOKIE };

struct token_place {
	enum token_position position;
	struct str name;
	struct str prefix;                /* of a header; any case, blanks at its end mean nothing */
};

enum token_found { TOKEN_NONE, TOKEN_ONE, TOKEN_SEVERAL };

/* ONE: *token points into the request, or into its arena where it had to be decoded. */
enum token_found token_find(const struct message *req, const struct token_place *at, struct str *token);
void token_remove(struct message *req, const struct token_place *at);
