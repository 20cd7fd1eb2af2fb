/*
 * header_modify.c -- HeaderModify: adds, overwrites and removes request and response headers, in the order of
 * the list.
 *
 * A value is taken literally (Custom) or read from the request at the moment the item runs (Reference); an
 * item whose reference is missing does nothing. Response items also run on answers the gateway makes itself,
 * but not on a preflight answered by Cors.
 */
#include "policy/cors.h"
#include "policy/formats.h"
#include "http/address_field.h"
#include "http/identity_field.h"
#include "policy/header_edit.h"
#include "proxy/policy.h"

enum direction { DIRECTION_REQUEST, DIRECTION_RESPONSE, DIRECTION_COUNT };
enum mode { MODE_CUSTOM, MODE_REFERENCE };
enum outcome { APPLIED };

struct header_op {
	int directionType;
	int opType;
	struct str key;
	struct str value;
	int policyValueGenerateMode;
};

struct edit {
	struct header_change change;
	bool is_reference;
	bool is_address;                  /* of a request's field about the client's address */
	struct str value;
	struct property property;
};

struct edits {
	struct edit *edits;
	unsigned n;
	bool has_forwarded;               /* one is of a field that the gateway writes when it forwards */
	bool has_address;                 /* one is of a field about the client's address */
};

struct header_modify {
	bool enable;
	struct items headerOpItems;
	struct edits edits[DIRECTION_COUNT];      /* made by prepare() */
};

static const struct choice directions[] = {
	{ DIRECTION_REQUEST, "Request", "the request on its way to the service", NULL },
	{ DIRECTION_RESPONSE, "Response", "the response, also one the gateway makes itself", NULL },
	{ 0, NULL, NULL, NULL }
};

static const struct choice actions[] = {
	{ HEADER_ACTION_ADD, "Add", "creates the header, or joins the value to it with a comma", NULL },
	{ HEADER_ACTION_UPDATE, "Update", "leaves exactly one line with this value", NULL },
	{ HEADER_ACTION_REMOVE, "Remove", "deletes every line of that name", NULL },
	{ 0, NULL, NULL, NULL }
};

static const struct choice modes[] = {
	{ MODE_CUSTOM, "Custom", "value is used literally", NULL },
	{ MODE_REFERENCE, "Reference", "value names a request property, such as client.ip", NULL },
	{ 0, NULL, NULL, NULL }
};

static bool check_key(struct str key, struct problem *why)
{
	if (!format_header_name(key, why))
		return false;
	if (!header_is_editable(key))
		return problem(why, "", "names a header that the gateway manages itself; to change Host use "
			"HttpRewrite");
	return true;
}

static const struct field op_fields[] = {
	CHOICE(struct header_op, directionType, directions, REQUIRED, DOC("Which message is changed.")),
	CHOICE(struct header_op, opType, actions, REQUIRED, DOC("What happens to the header.")),
	TEXT(struct header_op, key, REQUIRED, RANGE(1, 256), FORMAT(check_key),
	     EXAMPLE("\"X-Custom-Header\""),
	     DOC("Name of the header; case does not matter. Host, Expect and headers about framing and "
	     "connections cannot be changed.")),
	TEXT(struct header_op, value, RANGE(0, 8192), FORMAT(format_header_value),
	     EXAMPLE("\"custom-value\""),
	     DOC("The value, or the name of a request property. May be empty only for Remove.")),
	CHOICE(struct header_op, policyValueGenerateMode, modes, REQUIRED, DOC("How value is read.")),
	FIELDS_END
};

static const struct field fields[] = {
	BOOL(struct header_modify, enable, REQUIRED, DOC("Whether the policy acts.")),
	LIST(struct header_modify, headerOpItems, struct header_op, op_fields, REQUIRED, RANGE(1, 64),
	     DOC("The changes, in the order they are made.")),
	FIELDS_END
};

static bool check_op(const struct header_op *op, struct problem *why)
{
	bool is_response = op->directionType == DIRECTION_RESPONSE;

	if (op->opType == HEADER_ACTION_REMOVE)
		return true;
	if (str_trim(op->value).n == 0)
		return problem(why, "value", "must not be empty unless opType is Remove");
	if (op->policyValueGenerateMode == MODE_REFERENCE && !property_known(str_trim(op->value),
		is_response))
		return problem(why, "value", "names no property of the %s; known are for example client.ip, "
			"request.path, request.header.<name>, "
			"route.name", is_response ? "response" : "request");
	return true;
}

static bool check(const void *conf, struct problem *why)
{
	const struct header_modify *modify = conf;

	for (size_t i = 0; i < modify->headerOpItems.n; i++)
		if (!check_op(ITEM(modify->headerOpItems, struct header_op, i), why))
			return problem_in(why, "headerOpItems", i);
	return true;
}

static struct edit make_edit(const struct header_op *op)
{
	struct edit edit = {
		.change = { (enum header_action)op->opType, header_lookup(op->key), op->key },
		.is_reference = op->policyValueGenerateMode == MODE_REFERENCE &&
			op->opType != HEADER_ACTION_REMOVE,
		.is_address = op->directionType == DIRECTION_REQUEST && address_field_is(op->key),
		.value = str_trim(op->value),
	};

	if (edit.is_reference)
		edit.is_reference = property_parse(edit.value, op->directionType == DIRECTION_RESPONSE,
			&edit.property);
	return edit;
}

static bool prepare(void *conf, struct arena *a, struct problem *why)
{
	struct header_modify *modify = conf;

	(void)why;
	for (unsigned d = 0; d < DIRECTION_COUNT; d++)
		modify->edits[d].edits = NEW_N(a, struct edit, modify->headerOpItems.n);
	for (size_t i = 0; i < modify->headerOpItems.n; i++) {
		const struct header_op *op = ITEM(modify->headerOpItems, struct header_op, i);
		struct edits *edits = &modify->edits[op->directionType];

		edits->has_forwarded |= header_is_forwarded(header_lookup(op->key));
		edits->edits[edits->n] = make_edit(op);
		edits->has_address |= edits->edits[edits->n++].is_address;
	}
	return true;
}

static void apply(struct exchange *x, struct message *m, const struct edit *edits, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		const struct edit *e = &edits[i];
		struct str value = e->is_reference ? property_value(x, &e->property) : e->value;

		if (value.n || e->change.action == HEADER_ACTION_REMOVE)
			header_edit(m, &e->change, value);
	}
}

/* Some are of fields about addresses: what is written there is kept by itself too. */
static void apply_with_addresses(struct exchange *x, const struct edits *edits)
{
	for (unsigned i = 0; i < edits->n; i++) {
		struct edit e = edits->edits[i];

		/* Read before the first of the two, which may change it. */
		if (e.is_reference)
			e.value = property_value(x, &e.property);
		e.is_reference = false;
		apply(x, exchange_request(x), &e, 1);
		if (e.is_address)
			apply(x, exchange_written_addresses(x), &e, 1);
	}
}

/* What was written or taken off is not said otherwise in trailers. */
static void guard(struct message *req, const struct edits *edits)
{
	for (unsigned i = 0; req->framing != FRAMING_NONE && i < edits->n; i++)
		if (edits->edits[i].change.action != HEADER_ACTION_ADD)
			identity_guard(req, edits->edits[i].change.name);
}

static enum verdict change_request(struct exchange *x, const struct step *s)
{
	const struct edits *edits = &((const struct header_modify *)s->conf)->edits[DIRECTION_REQUEST];

	if (edits->has_forwarded)
		exchange_write_forwarded(x);
	if (UNLIKELY(edits->has_address))
		apply_with_addresses(x, edits);
	else
		apply(x, exchange_request(x), edits->edits, edits->n);
	if (edits->n)
		policy_count(s, APPLIED);
	guard(exchange_request(x), edits);
	return next();
}

static enum verdict change_response(struct exchange *x, const struct step *s)
{
	const struct edits *edits = &((const struct header_modify *)s->conf)->edits[DIRECTION_RESPONSE];

	if (cors_answered(x) || edits->n == 0)
		return next();
	apply(x, exchange_response(x), edits->edits, edits->n);
	policy_count(s, APPLIED);
	return next();
}

const struct policy_class header_modify = {
	.name = "HeaderModify",
	.alias = "Header modification",
	.summary = "Adds, overwrites and removes request and response headers.",
	.group = "Routing",
	.scopes = SCOPE_ROUTES | SCOPE_GATEWAY | SCOPE_DOMAIN,
	.stage = STAGE_HEADERS,
	.response_stage = RESPONSE_HEADERS,
	.combine = COMBINE_ADD,
	.is_enforced = true,
	.is_pure = true,
	.fails_open = true,
	.execute_stage = "PluginDefault",
	.execute_priority = 540,
	.fields = fields,
	.conf_size = sizeof(struct header_modify),
	.enable_at = offsetof(struct header_modify, enable),
	.outcomes = { [APPLIED] = "applied" },
	.check = check,
	.prepare = prepare,
	.request = change_request,
	.response = change_response,
};
