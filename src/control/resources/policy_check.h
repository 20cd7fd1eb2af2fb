/*
 * policy_check.h -- decoding a policy's config, and what it must fit when it is attached. Shared by policies
 * and attachments.
 */
#pragma once
#include "control/model.h"
#include "proxy/policy.h"

struct decoded_config {
	const struct policy_class *class;
	void *conf;                       /* class->conf_size bytes; prepare() not yet called */
};

/* The config's JSON, or NULL: field paths begin with className or config. */
const struct json *policy_config_decode(struct str className, struct str config, struct decoded_config *out,
	struct arena *a, struct problem *why);
/* The class's own rules against one resource; conf is prepared. Field paths begin with config or attachResourceType. */
MUST_USE bool policy_check_attach(const struct model *m, const struct decoded_config *config, enum scope scope,
                                  struct str resource_id, struct problem *why);
