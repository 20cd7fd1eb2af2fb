/*
 * proxy_protocol.h -- the header by which a load balancer names the client in front of a connection's own bytes, as
 * haproxy.org's proxy-protocol.txt describes it: version 1 (a line) and version 2 (binary).
 *
 * Strict: a connection that begins with anything else, or with a header that says something impossible, is not to be
 * believed. The parser looks at the same bytes from the start each time and keeps nothing.
 */
#pragma once
#include "net/addr.h"

#define PROXY_HEADER_MAX 4096             /* with all extensions; longer ones are refused */

enum proxy_result { PROXY_DONE, PROXY_MORE, PROXY_BAD };

struct proxy_header {
	size_t size;                      /* bytes of the header; what follows is the connection's own */
	bool has_source;                  /* false: LOCAL, UNKNOWN: the peer speaks for itself (health checks) */
	struct addr source;
};
enum proxy_result proxy_protocol_parse(const char *p, size_t n, struct proxy_header *out);
