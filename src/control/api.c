#include "control/api.h"
#include <stdio.h>
#include "control/control_parts.h"
#include "control/rest.h"
#include "core/crypto.h"
#include "core/log.h"
#include "core/mem.h"
#include "http/uri.h"

/* ---------- answers ---------- */

static const struct shape {
	int status, mesh_status;
	const char *code, *mesh_code;
} shapes[] = {
	[PROBLEM_INVALID] = { 400, 400, "ErrInvalidParameter", "ASM.01010001" },
	[PROBLEM_UNAUTHORIZED] = { 401, 401, "ErrUnauthorized", "ASM.01000001" },
	[PROBLEM_FORBIDDEN] = { 403, 403, "ErrForbidden", "ASM.01000002" },
	[PROBLEM_NOT_FOUND] = { 404, 404, "ErrNotFound", "ASM.01010002" },
	[PROBLEM_METHOD] = { 405, 405, "ErrMethodNotAllowed", "ASM.01010001" },
	[PROBLEM_CONFLICT] = { 409, 409, "ErrConflict", "ASM.01010003" },
	[PROBLEM_PRECONDITION] = { 412, 409, "ErrPreconditionFailed", "ASM.01010003" },
	[PROBLEM_TOO_LARGE] = { 413, 400, "ErrInvalidParameter", "ASM.01010001" },
	[PROBLEM_MEDIA_TYPE] = { 415, 400, "ErrInvalidParameter", "ASM.01010001" },
	[PROBLEM_MISDIRECTED] = { 421, 421, "ErrForbidden", "ASM.01000002" },
	[PROBLEM_INTERNAL] = { 500, 500, "ErrInternal", "ASM.01040001" },
	[PROBLEM_STORE] = { 503, 500, "ErrStoreUnavailable", "ASM.01040001" },
};

void api_begin(struct api_call *call, struct control *c, struct arena *a)
{
	*call = (struct api_call){ .control = c, .arena = a };
	memcpy(call->request_id, "req-", 4);
	crypto_id(call->request_id + 4, 16);
}

void api_end(struct api_call *call)
{
	resource_drop(call->result);
	call->result = NULL;
}

void api_answer(struct api_call *call, int status, const struct json *body)
{
	struct sbuf text = { 0 };

	json_write(&text, body);
	call->status = status;
	call->answer = arena_copy(call->arena, sbuf_str(&text));
	call->type = (struct str){ NULL, 0 };
	mem_wipe(text.p, text.n);             /* a made key may be in it */
	sbuf_free(&text);
}

/* "Invalid parameter: path: reason", or the reason alone where no parameter is at fault. */
static struct str write_message(struct api_call *call, const struct problem *why)
{
	bool is_parameter = shapes[why->kind].code == shapes[PROBLEM_INVALID].code;

	if (is_parameter && why->text[0])
		return arena_printf(call->arena, "Invalid parameter: %s: %s",
			why->field[0] ? why->field : "body", why->text);
	if (is_parameter)
		return arena_printf(call->arena, "Invalid parameter: %s", why->field[0] ? why->field : "body");
	return arena_printf(call->arena, "%s%s%s", why->field, why->field[0] ? ": " : "", why->text);
}

void api_fail(struct api_call *call, const struct problem *why)
{
	const struct shape *shape = &shapes[why->kind];
	struct json *body = json_new(call->arena, JSON_OBJECT);
	struct arena *a = call->arena;
	struct str message = write_message(call, why);

	call->etag = (struct str){ NULL, 0 };
	if (call->is_mesh) {
		json_put(a, body, "errorCode", json_new_text(a, str_of(shape->mesh_code)));
		json_put(a, body, "errorMsg", json_new_text(a, message));
	} else {
		json_put(a, body, "errorCode", json_new_text(a, str_of(shape->code)));
		json_put(a, body, "errorMessage", json_new_text(a, message));
		json_put(a, body, "requestId", json_new_text(a, str_of(call->request_id)));
	}
	api_answer(call, call->is_mesh ? shape->mesh_status : shape->status, body);
}

/* ---------- the query ---------- */

struct str api_query(const struct api_call *call, const char *name)
{
	struct str raw = query_value(call->query, str_of(name));

	return raw.p ? uri_decode(call->arena, raw, true) : raw;
}

/* value: absent where it says nothing */
static bool refuse_pair(struct str name, struct str value, const char *what, struct problem *why)
{
	char at[64], said[90] = "";

	snprintf(at, sizeof at, "%.*s", (int)(name.n < 60 ? name.n : 60), name.p);
	if (value.p)
		snprintf(said, sizeof said, "\"%.*s\" ", (int)(value.n < 80 ? value.n : 80), value.p);
	return problem(why, at, "%s%s", said, what);
}

/* Of two values nobody could say which is meant; one that does not decode would be as if it were not there. */
bool api_check_pair(const struct api_call *call, struct str pair, struct str rest, struct problem *why)
{
	struct str name = { pair.p, str_find(pair, '=') }, next;
	struct str value = { pair.p + name.n, pair.n - name.n };

	if (value.n)
		value = (struct str){ value.p + 1, value.n - 1 };
	if (!uri_decode(call->arena, value, true).p)
		return refuse_pair(name, value, "has a % without two hexadecimal digits; write % itself as %25",
			why);
	while (str_split(&rest, '&', &next)) {
		next.n = str_find(next, '=');
		if (str_equal(next, name))
			return refuse_pair(name, value, "is one of several values; give the parameter once", why);
	}
	return true;
}

bool api_check_query(const struct api_call *call, const char *const *known, struct problem *why)
{
	struct str rest = call->query, part;

	while (str_split(&rest, '&', &part)) {
		struct str name = { part.p, str_find(part, '=') };
		const char *const *k = known;

		if (!name.n)
			continue;
		while (*k && !str_equal(name, str_of(*k)))
			k++;
		if (!*k)
			return refuse_pair(name, (struct str){ NULL, 0 }, "unknown query parameter", why);
		if (!api_check_pair(call, part, rest, why))
			return false;
	}
	return true;
}

static bool read_number(
	const struct api_call *call, const char *name, int64_t max, int64_t *out, struct problem *why)
{
	struct str text = api_query(call, name);
	uint64_t n;

	if (!text.p)
		return true;
	if (!str_to_u64(text, (uint64_t)max, &n) || n == 0)
		return problem(why, name, "must be an integer between 1 and %lld", (long long)max);
	*out = (int64_t)n;
	return true;
}

bool api_page(const struct api_call *call, struct page *out, struct problem *why)
{
	*out = (struct page){ 1, 10 };
	return read_number(call, "pageNumber", 1000000000, &out->number, why) &&
	       read_number(call, "pageSize", 100, &out->size, why);
}

void api_answer_page(struct api_call *call, struct json *items, const struct page *page, size_t total)
{
	struct arena *a = call->arena;
	struct json *body = json_new(a, JSON_OBJECT);

	json_put(a, body, "items", items);
	json_put(a, body, "pageNumber", json_new_int(a, page->number));
	json_put(a, body, "pageSize", json_new_int(a, page->size));
	json_put(a, body, "totalSize", json_new_int(a, (int64_t)total));
	api_answer(call, 200, body);
}

struct json *api_body(struct api_call *call, struct problem *why)
{
	struct json *body = json_parse(call->arena, call->body, why);

	if (!body) {
		if (!why->field[0])
			snprintf(why->field, sizeof why->field, "body");
		return NULL;
	}
	if (body->type == JSON_OBJECT)
		return body;
	problem(why, "body", "must be one JSON object");
	return NULL;
}

/* ---------- before the body ---------- */

static bool check_host(const struct api_call *call, struct problem *why)
{
	const struct control *c = call->control;
	struct str host;
	uint16_t port;
	struct ip ip;

	if (!uri_split_authority(call->host, &host, &port))
		host = call->host;
	if (host.n > 2 && host.p[0] == '[')
		host = (struct str){ host.p + 1, host.n - 2 };
	for (unsigned i = 0; i < c->n_hosts; i++)
		if (str_equal_nocase(host, c->hosts[i]))
			return true;
	if (c->any_ip_host && ip_parse(host, &ip))
		return true;
	return problem_of(why, PROBLEM_MISDIRECTED, "Host",
		"is no name of this API; use its address, localhost, or add the name to the setting adminHosts");
}

static bool match_pattern(struct api_call *call, const char *pattern)
{
	struct str want = str_of(pattern), have = call->path, w, h;
	unsigned n = 0;

	memset(call->parameters, 0, sizeof call->parameters);
	while (want.p && have.p) {
		str_split(&want, '/', &w);
		str_split(&have, '/', &h);
		if (w.n && w.p[0] == '{') {
			struct str value = h.n ? uri_decode(call->arena, h, false) : h;

			if (!value.n || n == API_PARAMETERS)
				return false;
			call->parameters[n++] = value;
		} else if (!str_equal(w, h)) {
			return false;
		}
	}
	return !want.p && !have.p;
}

static const struct api_path *find_path(struct api_call *call)
{
	for (const struct api_path *p = api_paths; p->pattern; p++)
		if (match_pattern(call, p->pattern))
			return p;
	return NULL;
}

static api_handler *handler_of(const struct api_path *at, enum method method)
{
	switch (method) {
	case METHOD_GET: case METHOD_HEAD:
		return at->get;
	case METHOD_POST:
		return at->post;
	case METHOD_PUT:
		return at->put;
	case METHOD_DELETE:
		return at->delete;
	default:
		return NULL;
	}
}

static bool refuse_method(struct api_call *call, struct problem *why)
{
	const struct api_path *at = call->at;

	snprintf(call->allow, sizeof call->allow, "%s%s%s%s", at->get ? "GET, HEAD, " : "",
		at->post ? "POST, " : "", at->put ? "PUT, " : "", at->delete ? "DELETE, " : "");
	call->allow[strlen(call->allow) - 2] = '\0';
	return problem_of(why, PROBLEM_METHOD, "", "this path takes %s", call->allow);
}

/* "asm:mesh:createGateway", "apig:CreatePolicy". */
struct str api_action(const struct api_path *at, enum method method, bool is_mesh, struct arena *a)
{
	const char *noun = at->noun, *verb = "Get";

	if (at->kind != RESOURCE_COUNT && !noun)
		noun = resource_classes[at->kind]->noun;
	if (method == METHOD_POST && !at->asks)
		verb = at->is_item ? "Delete" : "Create";
	else if (method == METHOD_PUT)
		verb = "Update";
	else if (method == METHOD_DELETE)
		verb = "Delete";
	else if (!at->is_item && at->kind != RESOURCE_COUNT) {
		verb = "List";
		noun = resource_classes[at->kind]->plural;
	}
	if (is_mesh)
		return arena_printf(a, "asm:mesh:%c%s%s", str_lower(verb[0]), verb + 1, noun);
	return arena_printf(a, "apig:%s%s", verb, noun);
}

static bool check_operator(const struct api_call *call, struct operator *who, struct problem *why)
{
	const struct control *c = call->control;

	if (operator_find(&c->operators, c->model, call->x_auth_token, call->authorization, who))
		return true;
	return problem_of(why, PROBLEM_UNAUTHORIZED, "", "%s",
	                  call->x_auth_token.n || call->authorization.n ? "the token is not valid"
	                  : "a token is required: send the header X-Auth-Token, or Authorization: Bearer TOKEN");
}

static bool check_content(const struct api_call *call, uint64_t announced_bytes, struct problem *why)
{
	struct str type = call->content_type;

	if (call->method != METHOD_POST && call->method != METHOD_PUT)
		return true;
	type.n = str_find(type, ';');
	if (!str_equal_nocase(str_trim(type), STR("application/json")))
		return problem_of(why, PROBLEM_MEDIA_TYPE, "Content-Type", "must be application/json");
	if (announced_bytes > API_BODY_MAX)
		return problem_of(why, PROBLEM_TOO_LARGE, "body", "must have at most %d bytes", API_BODY_MAX);
	return true;
}

static bool judge(struct api_call *call, uint64_t announced_bytes, struct problem *why)
{
	struct operator who = { 0 };

	call->at = find_path(call);
	bool is_open = call->is_internal || (call->at && call->at->is_open);

	if (!is_open && (!check_host(call, why) || !check_operator(call, &who, why)))
		return false;
	if (!call->at)
		return problem_of(why, PROBLEM_NOT_FOUND, "", "no such path; GET /openapi.json lists them");
	if (!handler_of(call->at, call->method))
		return refuse_method(call, why);
	if (is_open)
		return true;
	struct str action = api_action(call->at, call->method, call->is_mesh, call->arena);

	if (!operator_may(&who, action))
		return problem_of(why, PROBLEM_FORBIDDEN, "", "the token may not do %.*s", STR_FMT(action));
	return check_content(call, announced_bytes, why);
}

bool api_judge(struct api_call *call, uint64_t announced_bytes)
{
	struct problem why;

	call->is_mesh = str_equal(call->path, STR("/v2/meshes")) || str_starts(call->path, STR("/v2/meshes/"));
	if (judge(call, announced_bytes, &why))
		return true;
	api_fail(call, &why);
	return false;
}

/* ---------- the operation ---------- */

static bool is_write(const struct api_call *call)
{
	return call->method != METHOD_GET && call->method != METHOD_HEAD && !call->at->asks;
}

static bool read_dry_run(struct api_call *call, struct problem *why)
{
	struct str dry = api_query(call, "dryRun");

	call->is_dry = str_equal(dry, STR("true"));
	return !dry.p || call->is_dry || str_equal(dry, STR("false")) ||
	       problem(why, "dryRun", "must be true or false");
}

enum call_state api_execute(struct api_call *call)
{
	struct problem why = { 0 };

	if (!is_write(call) && !call->at->is_open && !batch_is_empty(call->control))
		return CALL_READS_LATER;
	if ((!is_write(call) || read_dry_run(call, &why)) && handler_of(call->at, call->method)(call, &why))
		return call->status ? CALL_DONE : CALL_WAITS;
	api_end(call);
	if (why.kind == PROBLEM_INTERNAL)
		log_warn("api.failed", F_TEXT("request", call->request_id), F_TEXT("field", why.field),
			F_TEXT("why", why.text));
	api_fail(call, &why);
	return CALL_DONE;
}

void api_reveal(const struct api_call *call, struct json *body)
{
	struct json *next;

	if (call->is_dry)
		return;
	for (struct json *m = call->reveal ? call->reveal->child : NULL; m; m = next) {
		next = m->next;
		json_add(body, m);
	}
}

static void show_result(struct api_call *call)
{
	struct json *body = json_new(call->arena, JSON_OBJECT);
	const struct resource *r = call->result;

	if (r && call->show == SHOW_ITEM) {
		api_show_item(call, r);
		return;
	}
	if (r && call->show == SHOW_FEATURE) {
		api_show_feature(call, r);
		return;
	}
	if (r && call->show == SHOW_ID && !call->is_dry) {
		const struct resource_class *class = resource_classes[r->kind];

		json_put(call->arena, body, class->id_field,
			json_new_text(call->arena, arena_copy(call->arena, r->id)));
		if (r->kind == RESOURCE_ATTACHMENT)
			json_put(call->arena, body, "policyId",
				json_clone(call->arena, json_get(r->doc, "policyId")));
		api_reveal(call, body);
	}
	api_answer(call, 200, body);
}

void api_finish(struct api_call *call, const struct problem *refused)
{
	struct problem why;

	if (refused) {
		/* The details are in the log: they name files of this machine. */
		problem_of(&why, PROBLEM_STORE, "",
			"the store takes no writes at present; nothing was changed, try again");
		api_fail(call, &why);
	} else {
		show_result(call);
	}
	api_end(call);
}

bool api_keep(struct api_call *call, struct write *w, struct resource *result, int show)
{
	resource_hold(result);
	call->result = result;
	call->show = show;
	call->reveal = w->reveal;
	if (!call->is_dry && (!list_is_empty(&w->changes) || !batch_is_empty(call->control))) {
		write_keep(w);
		return true;
	}
	/* A rehearsal, or nothing to change and nothing under way: nothing to wait for. */
	if (call->is_dry)
		show_result(call);
	write_undo(w);
	if (!call->is_dry)
		show_result(call);
	api_end(call);
	return true;
}
