/*
 * identity_field.h -- request fields by which gateways tell upstreams who asks, and how their names are read: '-' and
 * '_' alike and in any case, as CGI and WSGI make one variable of X-Forwarded-User and X_Forwarded_User. Names with '_'
 * arrive where keepUnderscores is set.
 */
#pragma once
#include "http/message.h"

/* Whether some upstream takes `name` for `known`. */
bool field_reads_as(struct str name, struct str known);
/* Whether it takes it for one that begins with `prefix` and goes on. */
bool field_begins_as(struct str name, struct str prefix);
/* X-Mse-Consumer, X-Forwarded-User, Remote-User, X-Auth-Request-*, X-User-* and their like. */
bool identity_field_is(struct str name);
/* Removes what an upstream takes for `known`. */
void identity_field_remove(struct message *m, struct str known);
/* The name of a field that we say; in a request's arena. */
struct guarded_name {
	struct guarded_name *next;
	struct str name;
};
/*
 * What we say, or took off, in a field of this name: the client does not say it again in trailers, whether they are
 * there or still come. `name` lives as long as the request.
 */
void identity_guard(struct message *req, struct str name);
/*
 * Takes identity, guarded names and what is the gateway's own (X-Sluice-*) off the trailers of the request; addresses
 * too, when it hides them.
 */
void identity_trailers_strip(const struct message *req);
