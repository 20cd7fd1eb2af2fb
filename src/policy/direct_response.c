/*
 * direct_response.c -- DirectResponse: answers every request with one fixed response; no service is
 * contacted.
 */
#include "policy/formats.h"
#include "proxy/policy.h"

enum outcome { ANSWERED };

struct direct_response {
	struct str code;
	struct str body;
	bool enable;
	int status;                       /* made by prepare() */
	struct str content_type;
};

static bool parse_status(struct str code, int *out)
{
	uint64_t status;

	if (code.n != 3 || !str_to_u64(code, 599, &status) || status < 200 || (status >= 300 && status < 400))
		return false;
	*out = (int)status;
	return true;
}

static bool check_code(struct str code, struct problem *why)
{
	int status;

	if (!parse_status(code, &status))
		return problem(why, "", "must be a status from \"200\" to \"299\" or \"400\" to \"599\"; to "
			"redirect use Redirect");
	return true;
}

static const struct field fields[] = {
	TEXT(struct direct_response, code, REQUIRED, RANGE(1, 16), FORMAT(check_code), EXAMPLE("\"200\""),
	     DOC("Status of the answer, as text: \"200\" to \"299\" or \"400\" to \"599\".")),
	TEXT(struct direct_response, body, REQUIRED, EMPTY_OK, RANGE(0, 65536),
	     EXAMPLE("\"{\\\"status\\\":\\\"ok\\\"}\""),
	     DOC("Body of the answer, sent as it is. A JSON object or array is sent as application/json, "
	     "anything else as text/plain. Must be empty for 204 and 205.")),
	BOOL(struct direct_response, enable, REQUIRED, DOC("Whether the policy acts.")),
	FIELDS_END
};

static bool is_bodiless(int status)
{
	return status == 204 || status == 205;
}

static bool check(const void *conf, struct problem *why)
{
	const struct direct_response *direct = conf;
	int status;

	if (parse_status(direct->code, &status) && is_bodiless(status) && direct->body.n > 0)
		return problem(why, "body", "must be empty, a %d response has no body", status);
	return true;
}

static bool is_json(struct str text)
{
	struct arena scratch = { 0 };
	struct problem unused;
	const struct json *json = json_parse(&scratch, text, &unused);
	bool yes = json && (json->type == JSON_OBJECT || json->type == JSON_ARRAY);

	arena_free(&scratch);
	return yes;
}

static bool prepare(void *conf, struct arena *a, struct problem *why)
{
	struct direct_response *direct = conf;

	(void)a;
	if (!parse_status(direct->code, &direct->status))
		return check_code(direct->code, why);
	if (!is_bodiless(direct->status))
		direct->content_type = is_json(direct->body) ? STR("application/json; charset=utf-8")
							     : STR("text/plain; charset=utf-8");
	return true;
}

static enum verdict answer(struct exchange *x, const struct step *s)
{
	const struct direct_response *direct = s->conf;

	policy_count(s, ANSWERED);
	exchange_keep_flag(x, "DR");
	return reply(x, direct->status, direct->content_type, direct->body);
}

const struct policy_class direct_response = {
	.name = "DirectResponse",
	.alias = "Direct response",
	.summary = "Answers every request with a fixed response, without a service.",
	.group = "Routing",
	.scopes = SCOPE_ROUTE | SCOPE_OPERATION,
	.stage = STAGE_TERMINAL,
	.combine = COMBINE_SPECIFIC,
	.is_enforced = true,
	.is_pure = true,
	.fail_status = 500,
	.execute_stage = "PluginDefault",
	.execute_priority = 575,
	.fields = fields,
	.conf_size = sizeof(struct direct_response),
	.enable_at = offsetof(struct direct_response, enable),
	.outcomes = { [ANSWERED] = "answered" },
	.check = check,
	.prepare = prepare,
	.request = answer,
};
