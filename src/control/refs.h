/*
 * refs.h -- who points at whom, as the field tables say (.refers), plus what stands inside a policy's config.
 */
#pragma once
#include <stdbool.h>
#include "control/resource.h"

struct ref {
	enum resource_kind kind;          /* of what is pointed at */
	struct str id;
	const char *path;                 /* of the member in the document: "backend.services[0].serviceId" */
	bool may_dangle;                  /* inside a policy's config: checked when the policy is attached */
};

/* Calls each(arg, ref) for every id in the document, in table order; false when each stopped it. */
bool refs_each(enum resource_kind kind, const struct json *doc,
	bool (*each)(void *arg, const struct ref *ref), void *arg);
/* Every id exists and belongs to the document's own gateway. */
MUST_USE bool refs_check(const struct draft *d, struct problem *why);
