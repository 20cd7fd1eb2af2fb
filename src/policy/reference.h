/*
 * reference.h -- checks at attach time on what a config refers to. Each fills *why with `field` and returns
 * false.
 *
 * Resource documents are JSON as the API shows them; a port of a service is one of ports[] or one that stands
 * in addresses[].
 */
#pragma once
#include "proxy/policy.h"

/* The service of that id, of the same gateway. */
bool reference_service(const struct attach_target *t, struct str id, const char *field,
	const struct json **service, struct problem *why);
/* port: text of the config; one of the service's, absent only when there is no choice. */
bool reference_port(const struct json *service, struct str port, const char *field, struct problem *why);
/* A version of the service, by name; an absent version always fits. */
bool reference_version(const struct json *service, struct str version, const char *field,
	struct problem *why);
/* Protocol of the service's port (absent: its first one), "HTTP" when it is not said. */
struct str reference_protocol(const struct json *service, struct str port);
