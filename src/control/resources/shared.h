/*
 * shared.h -- rows, choices and rules that several kinds of resources have in common.
 */
#pragma once
#include "control/compile.h"
#include "control/resource.h"
#include "control/resources/types.h"
#include "core/field.h"

extern const struct choice tls_versions[];
extern const struct choice service_protocols[];
extern const struct field backend_fields[];
extern const struct field backend_service_fields[];

bool format_title(struct str s, struct problem *why);          /* a line with something to see in it */
bool format_dns_label(struct str s, struct problem *why);
bool format_domain(struct str s, struct problem *why);         /* a.example.com or *.example.com */
bool format_base_path(struct str s, struct problem *why);      /* in normal form, "/" first, no query */
bool format_description(struct str s, struct problem *why);    /* at most 200 characters */
bool format_pem(struct str s, struct problem *why);            /* at least one certificate */

/* Rewrites the spellings of a TLS version in a member: "TLSv1.2", "TLS 1.2" become "TLSV1_2". */
void adapt_tls_version(struct json *object, const char *member, struct arena *a);
void adapt_lower(struct json *object, const char *member, struct arena *a);
void adapt_lower_text(struct json *v, struct arena *a);        /* harmless when it is no text */

/* Whether a request can have the field while names with "_" are dropped. */
MUST_USE bool check_arrives(struct str header, const char *field, struct problem *why);

/* The member "status" of an answer. */
void put_status(struct arena *a, struct json *item, const struct status *s);

/* Rules of a backend beyond its table; paths relative to the backend. */
MUST_USE bool backend_check(const struct backend *b, struct problem *why);
/* Ports and versions that the backend names exist in its services. */
MUST_USE bool backend_check_services(const struct draft *d, const struct backend *b, struct problem *why);
/* environmentId: the gateway's default when absent; must belong to the gateway. domainIds: each once. */
MUST_USE bool complete_placement(struct draft *d, struct problem *why);
/* The name is the only one among the model APIs and agent APIs of a gateway, as is domain + basePath. */
MUST_USE bool check_ai_api(const struct draft *d, struct problem *why);
