/*
 * side_url.h -- URLs that a policy calls by itself (guard, external authentication, identity provider, key
 * sets, search).
 *
 * Such a URL is absolute http or https with a host, without user information and fragment, and at most 2048
 * bytes. A host that is the literal address of a link-local network or of a cloud's metadata service is
 * refused here; a name that resolves to one is refused by the caller when it connects.
 */
#pragma once
#include "core/cidr.h"
#include "core/problem.h"
#include "http/uri.h"

#define SIDE_URL_MAX 2048

bool side_url_format(struct str value, struct problem *why);       /* as FORMAT of a row; fills why->text */
bool side_url_is_blocked(const struct ip *ip);                     /* link-local, metadata */
/* Loopback or private address, or a name that the public DNS cannot answer: "localhost", "idp", "idp.auth.svc". */
bool side_url_is_private_host(struct str host);
