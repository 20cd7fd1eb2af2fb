/*
 * api.h -- one call of the control API, however it came: over HTTP or from inside the process.
 *
 *      api_judge      Host, token, path, method, right, content type, announced size: before the body is read
 *      api_execute    the operation; a write is kept in the batch and CALL_WAITS
 *      api_finish     after the batch: the answer, or the store's refusal
 *
 * A call borrows the texts of its request; answers live in its arena.
 */
#pragma once
#include <stdbool.h>
#include "control/operator.h"
#include "control/resource.h"
#include "control/write.h"
#include "core/arena.h"
#include "core/json.h"
#include "core/problem.h"
#include "http/message.h"

enum { API_BODY_MAX = 1 << 20, API_PARAMETERS = 3 };

enum call_state {
	CALL_DONE,                        /* the answer stands */
	CALL_WAITS,                       /* a write in the batch */
	CALL_READS_LATER,                 /* a read that came while a batch was open: executed after it */
};

struct api_call;
typedef bool api_handler(struct api_call *call, struct problem *why);

/* One pattern of the API's paths and what may be done there. */
struct api_path {
	const char *pattern;              /* "/api/v1/services/{serviceId}/ports" */
	enum resource_kind kind;          /* RESOURCE_COUNT when it is no resource */
	bool is_item;
	bool is_open;                     /* no token, any Host */
	const char *noun;                 /* of the action, where it is no resource's */
	const struct field *asks;         /* a POST that changes nothing: the question it takes */
	api_handler *get, *post, *put, *delete;
};
extern const struct api_path api_paths[];                  /* ends with a NULL pattern */

struct api_call {
	struct control *control;
	struct arena *arena;
	/* request */
	enum method method;
	struct str path, query, body;
	struct str host, content_type, x_auth_token, authorization, if_match;
	bool is_internal;                 /* trusted: no Host, token, right and content type asked for */
	/* found by api_judge */
	const struct api_path *at;
	struct str parameters[API_PARAMETERS];
	bool is_mesh;                     /* below /v2/meshes: errors in that API's shape */
	bool is_dry;
	/* result of a write, rendered after the batch */
	struct resource *result;          /* held */
	enum { SHOW_NOTHING, SHOW_ID, SHOW_ITEM, SHOW_FEATURE } show;
	struct json *reveal;
	/* answer */
	char request_id[24];
	int status;
	struct str answer, type;          /* type absent = application/json */
	struct str etag;                  /* absent = none */
	char allow[48];                   /* with 405 */
};

/* "asm:mesh:createGateway", "apig:CreatePolicy": what tokens are asked for. */
struct str api_action(const struct api_path *at, enum method method, bool is_mesh, struct arena *a);
void api_begin(struct api_call *call, struct control *c, struct arena *a);
void api_end(struct api_call *call);                       /* lets go of what it holds */
/* false: the answer (an error) stands. */
bool api_judge(struct api_call *call, uint64_t announced_bytes);
enum call_state api_execute(struct api_call *call);
/* NULL: the batch is in force. */
void api_finish(struct api_call *call, const struct problem *refused);
void api_fail(struct api_call *call, const struct problem *why);
void api_answer(struct api_call *call, int status, const struct json *body);

/* Value of a query parameter, decoded; absent str when missing. */
struct str api_query(const struct api_call *call, const char *name);
/* Only these parameters (NULL-terminated) may be there. */
MUST_USE bool api_check_query(const struct api_call *call, const char *const *known, struct problem *why);
/* One pair of the query, and the query behind it: the value decodes, and the name does not come again. */
MUST_USE bool api_check_pair(const struct api_call *call, struct str pair, struct str rest, struct problem *why);
/* The body as one JSON object. */
struct json *api_body(struct api_call *call, struct problem *why);
/* pageNumber and pageSize. */
struct page {
	int64_t number, size;
};
MUST_USE bool api_page(const struct api_call *call, struct page *out, struct problem *why);
/* {"items": items, "pageNumber", "pageSize", "totalSize"} */
void api_answer_page(struct api_call *call, struct json *items, const struct page *page, size_t total);
/* Ends a write: kept in the batch, or undone when it was a rehearsal. */
bool api_keep(struct api_call *call, struct write *w, struct resource *result, int show);

/* handlers: api_rest.c */
api_handler api_list, api_create, api_read, api_replace, api_delete;
/* api_gateway.c */
api_handler api_gateway_read, api_gateway_replace, api_gateway_delete, api_gateway_delete_by_post,
	api_feature_list, api_feature_read, api_feature_replace, api_port_create, api_port_replace, api_port_delete;
/* api_info.c */
api_handler api_policy_classes, api_policy_class, api_openapi, api_metrics, api_livez, api_readyz;
/* api_explain.c */
api_handler api_effective, api_trace;
/* The parent of a nested path exists, and the item belongs to it: PROBLEM_NOT_FOUND. */
MUST_USE bool api_find_parent(const struct api_call *call, struct str *parent_id, struct problem *why);
struct resource *api_find_item(const struct api_call *call, struct problem *why);
/* What api_replace and api_delete do with an item that was found. */
MUST_USE bool api_replace_item(struct api_call *call, struct resource *before, struct problem *why);
MUST_USE bool api_delete_item(struct api_call *call, struct resource *r, struct problem *why);
MUST_USE bool api_check_match(const struct api_call *call, const struct resource *r, struct problem *why);
void api_show_item(struct api_call *call, const struct resource *r);
/* Members that are shown in the answer to this write alone (a key that was made). */
void api_reveal(const struct api_call *call, struct json *body);
void api_show_feature(struct api_call *call, const struct resource *r);
struct resource *api_find_gateway_by_id(const struct api_call *call, struct problem *why);
/* Whether r fits all filters of the query; false with *why filled when a filter is unknown. */
struct api_filter {
	const struct resource_class *class;
	const char *const *more;          /* parameters that are no filters */
};
MUST_USE bool api_check_filters(const struct api_call *call, const struct api_filter *f, struct problem *why);
bool api_fits_filters(const struct api_call *call, const struct api_filter *f, const struct resource *r);

/* openapi.c: the description of the whole API. */
struct json *openapi_document(struct arena *a);

/* api_server.c */
MUST_USE bool api_listen(struct control *c, const char *address, struct problem *why);
/* The end of a turn: commits the batch and sends every answer that waits. */
void api_flush(struct control *c);
