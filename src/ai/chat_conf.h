/*
 * chat_conf.h -- model and agent APIs and their services, as the control thread compiles them: struct route has a
 * chat_api, struct service a chat_service. Immutable; memory of the part that has it.
 */
#pragma once
#include "ai/kind.h"
#include "proxy/policy.h"

/* What a service speaks, and which API an agent API is: bits. */
enum chat_protocol { CHAT_OPENAI = 1, CHAT_ANTHROPIC = 2, CHAT_DASHSCOPE = 4 };
enum chat_agent { CHAT_AGENT_DASHSCOPE, CHAT_AGENT_DIFY, CHAT_AGENT_CUSTOM };

/* One way of a model API: which models go there. */
struct chat_entry {
	struct str pattern;               /* absent: every model that no other pattern fits; '*' stands for any text */
	struct str model;                 /* asked for upstream; absent: the client's */
	uint32_t weight;
	unsigned target;                  /* of the route */
};

struct chat_api {
	bool is_agent;
	enum chat_agent agent;
	enum ai_family family;            /* of errors where the path says nothing */
	struct str base_path;             /* without a slash at its end; empty for "/" */
	bool removes_base;                /* towards services that are no providers; those never see it */
	const struct chat_entry *entries;
	unsigned n_entries;
};

enum chat_provider { PROVIDER_OPENAI, PROVIDER_AZURE, PROVIDER_ANTHROPIC, PROVIDER_DASHSCOPE, PROVIDER_OTHER };

struct chat_app {
	struct str id, key;
};

struct chat_service {
	struct str provider_name;         /* as configured */
	enum chat_provider provider;
	struct str authority;             /* host and port of its address, as Host says it */
	struct str path, query;           /* of its address: without a slash at the end, without '?' */
	unsigned protocols;               /* enum chat_protocol bits; 0 for agents */
	const struct str *keys;           /* one of them, by chance, for each service that is asked; secret */
	unsigned n_keys;
	const struct chat_app *apps;      /* of DashScope agents */
	unsigned n_apps;
	bool is_agent;
};

/* The pattern ("qwen-*") fits the model. */
bool chat_pattern_fits(struct str pattern, struct str model);
/*
 * Of the entries that fit best (exact, then the longest pattern, then none) one by weight; `random`: 32 bits. NULL:
 * none fits.
 */
const struct chat_entry *chat_choose(const struct chat_api *api, struct str model, uint32_t random);

/* The class of the step that reads requests and answers. In no list of policies: compile puts it where it acts. */
extern const struct policy_class chat_step;
/* What another service gets as a copy: its own address and key, nothing of those of the service that answers. */
bool chat_shape_copy(struct exchange *x, const struct service *to, struct message *req);
/* Errors of ours on model and agent APIs. */
struct str chat_shape_error(struct exchange *x, int status, const char *code, struct str message);
