/*
 * oidc_url.h -- where OIDCAuth sends browsers: what may be a way back, and URLs with parameters added.
 *
 * A way back is a path of this host ("/a?b"), or a URL of one of a few origins. Browsers read "//host", "/\host" and a
 * tab or a line end anywhere in a URL in their own way: such texts are no paths.
 */
#pragma once
#include <stdbool.h>
#include "core/arena.h"
#include "core/str.h"

#define OIDC_TARGET_MAX 2048

/* Path and query of a request as a way back; the path alone, or "/", when that is too long. */
struct str oidc_return_target(struct arena *a, struct str path, struct str query);
/* A path of this host: "/" and clean bytes, no second slash or backslash. */
bool oidc_is_local(struct str target);
/* Scheme, host and port are the same; false when one is no absolute http(s) URL. */
bool oidc_same_origin(struct str url, struct str other);
/* name=value behind `?` or `&`, encoded (RFC 3986, all but unreserved). An absent value adds nothing. */
void oidc_add_parameter(struct sbuf *url, const char *name, struct str value);
void oidc_add_encoded(struct sbuf *out, struct str value);
/*
 * One parameter of a query, decoded. False: it is there twice, or cannot be decoded. Absent when it is not there.
 */
MUST_USE bool oidc_read_parameter(struct arena *a, struct str query, const char *name, struct str *value);
