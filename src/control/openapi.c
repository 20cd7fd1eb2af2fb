/*
 * openapi.c -- the description of the API, OpenAPI 3.1, made from the tables that judge requests: api_paths,
 * the resource
 * classes and the policy classes. Nothing is written here by hand that a table knows.
 */
#include "control/api.h"
#include <stdio.h>
#include "control/feature.h"
#include "proxy/policy.h"

static struct json *put_object(struct arena *a, struct json *in, const char *name)
{
	struct json *v = json_new(a, JSON_OBJECT);

	json_put(a, in, name, v);
	return v;
}

static void put_text(struct arena *a, struct json *in, const char *name, const char *text)
{
	json_put(a, in, name, json_new_text(a, arena_copy(a, str_of(text))));
}

static struct json *reference(struct arena *a, const char *where, const char *name)
{
	struct json *v = json_new(a, JSON_OBJECT);

	json_put(a, v, "$ref", json_new_text(a, arena_printf(a, "#/components/%s/%s", where, name)));
	return v;
}

/* ---------- schemas ---------- */

/* A schema of texts only, for answers and errors: names and descriptions in turn, ended by NULL. */
static struct json *text_schema(struct arena *a, const char *const *rows)
{
	struct json *schema = json_new(a, JSON_OBJECT), *properties;

	put_text(a, schema, "type", "object");
	properties = put_object(a, schema, "properties");
	for (; rows[0]; rows += 2) {
		struct json *property = put_object(a, properties, rows[0]);

		put_text(a, property, "type", "string");
		put_text(a, property, "description", rows[1]);
	}
	return schema;
}

/* The id that a create answers with. */
static struct json *id_schema(const struct resource_class *class, struct arena *a)
{
	const char *rows[] = { class->id_field, "Id of what was created.", NULL, NULL, NULL };

	if (class->kind == RESOURCE_ATTACHMENT) {
		rows[2] = "policyId";
		rows[3] = "Its policy.";
	}
	if (class->kind == RESOURCE_TOKEN) {
		rows[2] = "token";
		rows[3] = "The token; shown only here.";
	}
	return text_schema(a, rows);
}

static void add_read_only(struct json *properties, const char *name, const char *type, struct arena *a)
{
	struct json *property = put_object(a, properties, name);

	put_text(a, property, "type", type);
	json_put(a, property, "readOnly", json_new_bool(a, true));
}

/* What a GET answers: the document and what is made by the gateway. */
static struct json *item_schema(const struct resource_class *class, struct arena *a)
{
	struct json *schema = fields_schema(class->fields, a), *properties = json_get(schema, "properties");

	json_drop(schema, "required");
	if (!properties)
		properties = put_object(a, schema, "properties");
	add_read_only(properties, class->id_field, "string", a);
	add_read_only(properties, "createTimestamp", "integer", a);
	add_read_only(properties, "updateTimestamp", "integer", a);
	for (const char *const *name = class->read_only; name && *name; name++)
		if (!json_get(properties, *name))
			add_read_only(properties, *name, strcmp(*name, "status") == 0 ? "object" : "string", a);
	return schema;
}

static struct json *list_schema(const char *item, struct arena *a)
{
	static const char *const numbers[] = { "pageNumber", "pageSize", "totalSize" };
	struct json *schema = json_new(a, JSON_OBJECT), *properties, *items;

	put_text(a, schema, "type", "object");
	properties = put_object(a, schema, "properties");
	items = put_object(a, properties, "items");
	put_text(a, items, "type", "array");
	json_put(a, items, "items", reference(a, "schemas", item));
	for (unsigned i = 0; i < 3; i++)
		put_text(a, put_object(a, properties, numbers[i]), "type", "integer");
	return schema;
}

static struct json *feature_schema(struct arena *a)
{
	struct json *schema = json_new(a, JSON_OBJECT), *properties, *value;
	struct sbuf text = { 0 };

	put_text(a, schema, "type", "object");
	properties = put_object(a, schema, "properties");
	value = put_object(a, properties, "value");
	for (const struct feature *f = features; f->name; f++)
		sbuf_addf(&text, "%s (default %s): %s\n", f->name, f->fallback, f->doc);
	json_put(a, value, "description", json_new_text(a, arena_copy(a, sbuf_str(&text))));
	sbuf_free(&text);
	return schema;
}

static void add_class_schemas(struct json *schemas, struct arena *a)
{
	char name[96];

	for (unsigned i = 0; i < RESOURCE_COUNT; i++) {
		const struct resource_class *class = resource_classes[i];

		if (i == RESOURCE_FEATURE)
			continue;
		json_put(a, schemas, class->noun, fields_schema(class->fields, a));
		snprintf(name, sizeof name, "%sItem", class->noun);
		json_put(a, schemas, name, item_schema(class, a));
		snprintf(name, sizeof name, "%sList", class->noun);
		json_put(a, schemas, name, list_schema(arena_printf(a, "%sItem", class->noun).p, a));
		snprintf(name, sizeof name, "%sCreated", class->noun);
		json_put(a, schemas, name, id_schema(class, a));
	}
	for (unsigned i = 0; i < policy_class_count; i++) {
		snprintf(name, sizeof name, "%sConfig", policy_classes[i]->name);
		json_put(a, schemas, name, fields_schema(policy_classes[i]->fields, a));
	}
}

static struct json *make_components(struct arena *a)
{
	static const char *const error[] = {
		"errorCode",
		"ErrInvalidParameter, ErrUnauthorized, ErrForbidden, ErrNotFound, ErrMethodNotAllowed, "
		"ErrConflict, "
		"ErrPreconditionFailed, ErrInternal or ErrStoreUnavailable.",
		"errorMessage",
		"What is wrong; \"Invalid parameter: PATH: REASON\" for a member.",
		"requestId",
		"Also in X-Request-Id.",
		NULL,
	};
	static const char *const mesh_error[] = {
		"errorCode",
		"ASM.01010001 bad parameters, ASM.01000001 no token, ASM.01000002 no right, ASM.01010002 not "
		"found, "
		"ASM.01010003 conflict, ASM.01040001 internal.",
		"errorMsg",
		"What is wrong.",
		NULL,
	};
	struct json *components = json_new(a, JSON_OBJECT), *schemas = put_object(a, components, "schemas");
	struct json *schemes = put_object(a, components, "securitySchemes"), *token, *bearer;

	add_class_schemas(schemas, a);
	json_put(a, schemas, "GatewayFeature", feature_schema(a));
	json_put(a, schemas, "Error", text_schema(a, error));
	json_put(a, schemas, "MeshError", text_schema(a, mesh_error));
	token = put_object(a, schemes, "token");
	put_text(a, token, "type", "apiKey");
	put_text(a, token, "in", "header");
	put_text(a, token, "name", "X-Auth-Token");
	bearer = put_object(a, schemes, "bearer");
	put_text(a, bearer, "type", "http");
	put_text(a, bearer, "scheme", "bearer");
	return components;
}

/* ---------- operations ---------- */

struct describer {
	struct arena *a;
	const struct api_path *at;
	bool is_mesh;
};

static void add_parameter(const struct describer *d, struct json *list, const char *in, const char *name)
{
	struct json *parameter = json_new(d->a, JSON_OBJECT);

	put_text(d->a, parameter, "name", name);
	put_text(d->a, parameter, "in", in);
	json_put(d->a, parameter, "required", json_new_bool(d->a, strcmp(in, "path") == 0));
	put_text(d->a, put_object(d->a, parameter, "schema"), "type", "string");
	json_add(list, parameter);
}

static void add_filters(const struct describer *d, struct json *list)
{
	const struct resource_class *class = d->at->kind == RESOURCE_COUNT ? NULL : resource_classes[d->at->kind];

	add_parameter(d, list, "query", "pageNumber");
	add_parameter(d, list, "query", "pageSize");
	for (const struct field *f = class && d->at->kind != RESOURCE_FEATURE ? class->fields : NULL;
		f && f->type != FIELD_END; f++)
		if (!f->secret && f->type != FIELD_OBJECT && f->type != FIELD_LIST && f->type != FIELD_JSON &&
			f->type != FIELD_INLINE)
			add_parameter(d, list, "query", f->name);
}

static struct json *make_parameters(const struct describer *d, enum method method)
{
	struct json *list = json_new(d->a, JSON_ARRAY);
	struct str rest = str_of(d->at->pattern), part;

	while (str_split(&rest, '/', &part))
		if (part.n > 2 && part.p[0] == '{')
			add_parameter(d, list, "path", arena_copy(d->a, (struct str){ part.p + 1, part.n - 2 }).p);
	if (method == METHOD_GET && !d->at->is_item)
		add_filters(d, list);
	if (method != METHOD_GET && !d->at->asks)
		add_parameter(d, list, "query", "dryRun");
	if (d->at->is_item && (method == METHOD_PUT || method == METHOD_DELETE))
		add_parameter(d, list, "header", "If-Match");
	return list;
}

static struct json *content_of(struct arena *a, struct json *schema)
{
	struct json *content = json_new(a, JSON_OBJECT);

	json_put(a, put_object(a, content, "application/json"), "schema", schema);
	return content;
}

static struct json *answer_schema(const struct describer *d, enum method method)
{
	const struct api_path *at = d->at;

	if (at->kind == RESOURCE_COUNT || at->noun || method == METHOD_DELETE ||
		(method == METHOD_POST && at->is_item)) {
		struct json *any = json_new(d->a, JSON_OBJECT);

		put_text(d->a, any, "type", "object");
		return any;
	}
	const char *noun = resource_classes[at->kind]->noun;

	if (at->kind == RESOURCE_FEATURE)
		return reference(d->a, "schemas", noun);
	return reference(d->a, "schemas",
		arena_printf(d->a, "%s%s", noun,
			method == METHOD_POST		      ? "Created"
			: at->is_item || method == METHOD_PUT ? "Item"
							      : "List")
			.p);
}

static struct json *make_responses(const struct describer *d, enum method method)
{
	struct json *responses = json_new(d->a, JSON_OBJECT), *ok = put_object(d->a, responses, "200"), *otherwise;

	put_text(d->a, ok, "description", "Done.");
	json_put(d->a, ok, "content", content_of(d->a, answer_schema(d, method)));
	otherwise = put_object(d->a, responses, "default");
	put_text(d->a, otherwise, "description", "Refused.");
	json_put(d->a, otherwise, "content",
		content_of(d->a, reference(d->a, "schemas", d->is_mesh ? "MeshError" : "Error")));
	return responses;
}

static struct json *make_body(const struct describer *d, enum method method)
{
	struct json *body = json_new(d->a, JSON_OBJECT), *schema;

	if (d->at->asks) {
		schema = fields_schema(d->at->asks, d->a);
	} else if (method == METHOD_POST && d->at->is_item) {
		static const char *const rows[] = { "Namespace", "Namespace of the gateway.", NULL };

		schema = text_schema(d->a, rows);
	} else {
		schema = reference(d->a, "schemas", resource_classes[d->at->kind]->noun);
	}
	json_put(d->a, body, "required", json_new_bool(d->a, true));
	json_put(d->a, body, "content", content_of(d->a, schema));
	return body;
}

static void add_operation(const struct describer *d, struct json *path, enum method method)
{
	static const char *const words[] = { [METHOD_GET] = "get",
		[METHOD_POST] = "post",
		[METHOD_PUT] = "put",
		[METHOD_DELETE] = "delete" };
	struct json *operation = put_object(d->a, path, words[method]);
	struct str action = api_action(d->at, method, d->is_mesh, d->a);
	size_t colon = action.n;

	while (colon && action.p[colon - 1] != ':')
		colon--;
	json_put(d->a, operation, "operationId",
		json_new_text(d->a,
			arena_printf(d->a, "%s%.*s%s", d->is_mesh ? "mesh_" : "", (int)(action.n - colon),
				action.p + colon, method == METHOD_POST && d->at->is_item ? "ByPost" : "")));
	put_text(d->a, operation, "description",
		d->at->kind == RESOURCE_COUNT || d->at->noun ? d->at->noun : resource_classes[d->at->kind]->doc);
	json_put(d->a, operation, "x-action", json_new_text(d->a, action));
	json_put(d->a, operation, "parameters", make_parameters(d, method));
	if (method == METHOD_POST || method == METHOD_PUT)
		json_put(d->a, operation, "requestBody", make_body(d, method));
	json_put(d->a, operation, "responses", make_responses(d, method));
	if (d->at->is_open)
		json_put(d->a, operation, "security", json_new(d->a, JSON_ARRAY));
}

static struct json *make_paths(struct arena *a)
{
	struct json *paths = json_new(a, JSON_OBJECT);

	for (const struct api_path *at = api_paths; at->pattern; at++) {
		struct describer d = { a, at, str_starts(str_of(at->pattern), STR("/v2/meshes")) };
		struct json *path = put_object(a, paths, at->pattern);

		if (at->get)
			add_operation(&d, path, METHOD_GET);
		if (at->post)
			add_operation(&d, path, METHOD_POST);
		if (at->put)
			add_operation(&d, path, METHOD_PUT);
		if (at->delete)
			add_operation(&d, path, METHOD_DELETE);
	}
	return paths;
}

struct json *openapi_document(struct arena *a)
{
	struct json *document = json_new(a, JSON_OBJECT), *info, *security;

	put_text(a, document, "openapi", "3.1.0");
	info = put_object(a, document, "info");
	put_text(a, info, "title", "sluice control API");
	put_text(a, info, "version", SLUICE_VERSION);
	json_put(a, document, "paths", make_paths(a));
	json_put(a, document, "components", make_components(a));
	security = json_new(a, JSON_ARRAY);
	for (unsigned i = 0; i < 2; i++) {
		struct json *one = json_new(a, JSON_OBJECT);

		json_put(a, one, i ? "bearer" : "token", json_new(a, JSON_ARRAY));
		json_add(security, one);
	}
	json_put(a, document, "security", security);
	return document;
}
