#include "policy/guard_verdict.h"
#include <stdio.h>
#include "core/json.h"

#define NODES_MAX 20000                   /* values in an answer */
#define DETAILS_MAX 64                    /* entries of a list that are looked at for labels */

/* Names of Detail[].Type, and in records. */
static const char *const risk_names[RISK_TYPES] = {
	[RISK_GLOBAL] = "other",
	[RISK_CONTENT] = "contentModeration",
	[RISK_ATTACK] = "promptAttack",
	[RISK_SENSITIVE] = "sensitiveData",
	[RISK_URL] = "maliciousUrl",
	[RISK_HALLUCINATION] = "modelHallucination",
};

static const char *const level_names[] = { "none", "low", "medium", "high", "max" };

static int parse_level(struct str text)
{
	for (int i = 0; i <= GUARD_MAX; i++)
		if (str_equal_nocase(text, str_of(level_names[i])))
			return i;
	if (text.n == 2 && str_lower(text.p[0]) == 's' && text.p[1] >= '0' && text.p[1] <= '4')
		return text.p[1] - '0';
	return -1;
}

static enum guard_risk parse_risk(struct str type)
{
	for (int i = RISK_GLOBAL + 1; i < RISK_TYPES; i++)
		if (str_equal_nocase(type, str_of(risk_names[i])))
			return (enum guard_risk)i;
	return RISK_GLOBAL;
}

/* ---------- labels ---------- */

static void add_label(struct guard_verdict *v, struct str label)
{
	size_t n = strlen(v->label);

	/* "nonLabel": the service found nothing. */
	if (label.n == 0 || label.n > 64 || str_equal_nocase(label, STR("nonLabel")) ||
	    n + 1 + label.n > GUARD_LABEL_MAX)
		return;
	for (struct str rest = { v->label, n }, part; rest.n > 0 && str_split(&rest, ',', &part);)
		if (str_equal(part, label))
			return;
	if (n > 0)
		v->label[n++] = ',';
	for (size_t i = 0; i < label.n; i++)
		v->label[n++] = label.p[i] > 0x20 && label.p[i] < 0x7f && label.p[i] != ',' ? label.p[i] : '_';
	v->label[n] = '\0';
}

static void add_labels(struct guard_verdict *v, const struct json *results)
{
	unsigned n = 0;

	if (!results || results->type != JSON_ARRAY)
		return;
	for (const struct json *r = results->child; r && n++ < DETAILS_MAX; r = r->next)
		add_label(v, json_text(r, "Label"));
}

/* ---------- levels ---------- */

static void take_level(struct guard_verdict *v, const struct guard_bars *bars, enum guard_risk risk, struct str text)
{
	int level = parse_level(text);

	if (level < 0) {
		v->has_unknown = true;
		return;
	}
	if (level > v->levels[risk])
		v->levels[risk] = level;
	/* Nothing found is below every bar. */
	if (level > GUARD_NONE && level >= (int)bars->of[risk])
		v->blocks = true;
}

/* False: it is not there, or empty. */
static bool take_member(struct guard_verdict *v, const struct guard_bars *bars, enum guard_risk risk,
			const struct json *level)
{
	if (!level || level->type == JSON_NULL || (level->type == JSON_STRING && level->string.n == 0))
		return false;
	take_level(v, bars, risk, level->type == JSON_STRING ? level->string : STR("?"));
	return true;
}

static bool take_details(struct guard_verdict *v, const struct guard_bars *bars, const struct json *details)
{
	bool any = false;

	if (!details || details->type != JSON_ARRAY)
		return false;
	for (const struct json *d = details->child; d; d = d->next) {
		const struct json *level = json_get(d, "Level");

		any = true;
		if (!take_member(v, bars, parse_risk(json_text(d, "Type")), level))
			v->has_unknown = true;
		add_labels(v, json_get(d, "Result"));
	}
	return any;
}

/* Some services name no level where they found nothing at all. */
static bool found_nothing(const struct json *results)
{
	if (!results || results->type != JSON_ARRAY || !results->child)
		return false;
	for (const struct json *r = results->child; r; r = r->next)
		if (!str_equal_nocase(json_text(r, "Label"), STR("nonLabel")))
			return false;
	return true;
}

static bool take_data(struct guard_verdict *v, const struct guard_bars *bars, const struct json *data)
{
	bool any = take_member(v, bars, RISK_CONTENT, json_get(data, "RiskLevel"));

	any |= take_member(v, bars, RISK_ATTACK, json_get(data, "AttackLevel"));
	any |= take_member(v, bars, RISK_SENSITIVE, json_get(data, "SensitiveLevel"));
	any |= take_details(v, bars, json_get(data, "Detail"));
	add_labels(v, json_get(data, "Result"));
	add_labels(v, json_get(data, "AttackResult"));
	add_labels(v, json_get(data, "SensitiveResult"));
	if (!any && found_nothing(json_get(data, "Result"))) {
		v->levels[RISK_CONTENT] = GUARD_NONE;
		any = true;
	}
	return any;
}

static void take_id(struct guard_verdict *v, struct str id)
{
	size_t n = 0;

	for (; n < id.n && n < GUARD_ID_MAX; n++)
		v->request_id[n] = id.p[n] > 0x20 && id.p[n] < 0x7f ? id.p[n] : '_';
	v->request_id[n] = '\0';
}

static void take_advice(struct guard_verdict *v, struct arena *a, const struct json *advice)
{
	struct str answer;

	if (!advice || advice->type != JSON_ARRAY || !advice->child)
		return;
	answer = json_text(advice->child, "Answer");
	if (answer.n > 0)
		v->answer = arena_copy(a, answer);
}

void guard_judge(struct guard_verdict *v, struct arena *a, struct str body, const struct guard_bars *bars)
{
	struct arena scratch = { 0 };
	struct problem why;
	const struct json *doc = json_parse_spans(&scratch, body, NODES_MAX, &why);
	const struct json *code = json_get(doc, "Code"), *data = json_get(doc, "Data");

	*v = (struct guard_verdict){ 0 };
	for (int i = 0; i < RISK_TYPES; i++)
		v->levels[i] = -1;
	take_id(v, json_text(doc, "RequestId"));
	if (!doc || doc->type != JSON_OBJECT)
		v->broken = "its answer is no JSON object";
	else if (!code || code->type != JSON_INT || code->integer != 200)
		v->broken = "its answer has another Code than 200";
	else if (!data || data->type != JSON_OBJECT)
		v->broken = "its answer has no Data";
	else if (!take_data(v, bars, data))
		v->broken = "its answer names no level";
	else if (v->has_unknown && !v->blocks)
		v->broken = "its answer names a level that is not known";
	else
		take_advice(v, a, json_get(data, "Advice"));
	v->is_read = !v->broken;
	arena_free(&scratch);
}

void guard_merge(struct guard_verdict *into, const struct guard_verdict *more)
{
	struct str labels = str_of(more->label), label;

	for (int i = 0; i < RISK_TYPES; i++)
		if (more->levels[i] > into->levels[i])
			into->levels[i] = more->levels[i];
	while (labels.n > 0 && str_split(&labels, ',', &label))
		add_label(into, label);
	if (more->request_id[0])
		memcpy(into->request_id, more->request_id, sizeof into->request_id);
	if (more->answer.n > 0)
		into->answer = more->answer;
	into->blocks |= more->blocks;
	into->has_unknown |= more->has_unknown;
	into->is_read &= more->is_read;
	if (more->broken)
		into->broken = more->broken;
}

enum guard_level guard_worst(const struct guard_verdict *v)
{
	int worst = GUARD_NONE;

	for (int i = 0; i < RISK_TYPES; i++)
		if (v->levels[i] > worst)
			worst = v->levels[i];
	return (enum guard_level)worst;
}

void guard_describe_levels(const struct guard_verdict *v, char out[GUARD_LEVELS_TEXT])
{
	size_t n = 0;

	out[0] = '\0';
	for (int i = 0; i < RISK_TYPES; i++) {
		if (v->levels[i] < 0)
			continue;
		n += (size_t)snprintf(out + n, GUARD_LEVELS_TEXT - n, "%s%s=%s", n ? "," : "", risk_names[i],
				      level_names[v->levels[i]]);
		BUG_ON(n >= GUARD_LEVELS_TEXT);
	}
}
