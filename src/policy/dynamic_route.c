/* dynamic_route.c -- DynamicRoute: sends tagged or chosen requests through a lane of canary endpoints. */
#include "core/regex.h"
#include "policy/formats.h"
#include "proxy/policy.h"

enum model { MODEL_CONTENT, MODEL_PERCENTAGE };
enum subject { SUBJECT_HEADER, SUBJECT_COOKIE, SUBJECT_PARAMETER };
enum condition {
	CONDITION_EQUAL, CONDITION_DIFFERENT, CONDITION_PREFIX, CONDITION_REGEX, CONDITION_LIST,
		CONDITION_PERCENT,
};
enum combination { MATCH_AND, MATCH_OR };

struct predicate {
	int type;
	struct str name;
	int condition;
	struct str value;
	struct items names;
};

struct lane {
	int64_t swimmingLaneGroupId;
	int64_t swimmingLaneId;
	int canaryModel;
	int64_t percentage;
	struct str swimmingLaneTag;
	struct items predicates;
	int matchCondition;
	bool enable;
};

struct dynamic_route {
	bool enable;
	struct items dynamicRouteSwimmingLaneConfigs;
};

static const struct choice models[] = {
	{ MODEL_CONTENT, NULL, "by content: the predicates decide", NULL },
	{ MODEL_PERCENTAGE, NULL, "by percentage: a random draw for each request decides", NULL },
	{ 0, NULL, NULL, NULL }
};

static const struct choice subjects[] = {
	{ SUBJECT_HEADER, "Header", "a request header", NULL },
	{ SUBJECT_COOKIE, "Cookie", "a cookie", NULL },
	{ SUBJECT_PARAMETER, "Parameter", "a query parameter", NULL },
	{ 0, NULL, NULL, NULL }
};

static const struct choice conditions[] = {
	{ CONDITION_EQUAL, "==", "equal to value", NULL },
	{ CONDITION_DIFFERENT, "!=", "present and different from value", NULL },
	{ CONDITION_PREFIX, "Pre", "begins with value", NULL },
	{ CONDITION_REGEX, "Regex", "matches the regular expression value anywhere", NULL },
	{ CONDITION_LIST, "List", "one of names", NULL },
	{ CONDITION_PERCENT, "%", "its hash modulo 100 is less than value: the same value always decides "
		"alike", NULL },
	{ 0, NULL, NULL, NULL }
};

static const struct choice combinations[] = {
	{ MATCH_AND, "And", "all predicates match", NULL },
	{ MATCH_OR, "Or", "one predicate matches", NULL },
	{ 0, NULL, NULL, NULL }
};

static bool is_tag_byte(char c)
{
	return (str_lower(c) >= 'a' && str_lower(c) <= 'z') || (c >= '0' && c <= '9') || c == '.' ||
		c == '_' || c == '-';
}

static bool check_tag(struct str tag, struct problem *why)
{
	for (size_t i = 0; i < tag.n; i++)
		if (!is_tag_byte(tag.p[i]))
			return problem(why, "", "must consist of letters, digits, '.', '_' and '-'");
	return true;
}

static const struct field predicate_fields[] = {
	CHOICE(struct predicate, type, subjects, REQUIRED, DOC("Where the value is taken from.")),
	TEXT(struct predicate, name, REQUIRED, RANGE(1, 256), FORMAT(format_name), EXAMPLE("\"x-env\""),
	     DOC("Name of the header, cookie or query parameter.")),
	CHOICE(struct predicate, condition, conditions, REQUIRED,
	       DOC("How the value is compared. A missing value fits no condition, != included.")),
	TEXT(struct predicate, value, REQUIRED, EMPTY_OK, RANGE(0, 1024), FORMAT(format_line),
	     EXAMPLE("\"test\""),
	     DOC("What it is compared with; may be empty for List; 0 to 100 for %.")),
	TEXTS(struct predicate, names, RANGE(0, 1000), TEXT_MAX(1024), FORMAT(format_line),
	      EXAMPLE("[\"a\",\"b\"]"),
	      DOC("The values of List.")),
	FIELDS_END
};

static const struct field lane_fields[] = {
	INT(struct lane, swimmingLaneGroupId, REQUIRED, RANGE(0, 9223372036854775807.0), EXAMPLE("1001"),
	    DOC("Group of lanes that share one random draw.")),
	INT(struct lane, swimmingLaneId, REQUIRED, RANGE(0, 9223372036854775807.0), EXAMPLE("2001"),
	    DOC("The lane; unique in its group.")),
	CHOICE(struct lane, canaryModel, models, REQUIRED, DOC("How requests are chosen.")),
	INT(struct lane, percentage, WHEN("canaryModel", MODEL_PERCENTAGE), RANGE(0, 100), UNIT("%"),
	    EXAMPLE("20"),
	    DOC("Share of the requests; the enabled percentage lanes of a group have at most 100 in all.")),
	TEXT(struct lane, swimmingLaneTag, REQUIRED, RANGE(1, 64), FORMAT(check_tag), EXAMPLE("\"lane-v2\""),
	     DOC("Tag of the endpoints of the lane, sent on in x-mse-tag.")),
	LIST(struct lane, predicates, struct predicate, predicate_fields, RANGE(0, 20),
	     DOC("What a request has to show; at least one with canaryModel 0.")),
	CHOICE(struct lane, matchCondition, combinations, REQUIRED, DOC("How predicates combine.")),
	BOOL(struct lane, enable, REQUIRED, DOC("Whether the lane is in use.")),
	FIELDS_END
};

static const struct field fields[] = {
	BOOL(struct dynamic_route, enable, REQUIRED, DOC("Whether the policy acts.")),
	LIST(struct dynamic_route, dynamicRouteSwimmingLaneConfigs, struct lane, lane_fields, REQUIRED,
	     RANGE(0, 200),
	     DOC("The lanes; content lanes are tried in this order, then percentage lanes.")),
	FIELDS_END
};

static bool check_regex(struct str pattern, struct problem *why)
{
	struct arena scratch = { 0 };
	bool fits = regex_compile(&scratch, pattern, false, why) != NULL;

	arena_free(&scratch);
	if (!fits) {
		struct problem inner = *why;

		return problem(why, "value", "%s", inner.text);
	}
	return true;
}

static bool check_predicate(const struct predicate *p, struct problem *why)
{
	uint64_t percent;

	if (p->type != SUBJECT_PARAMETER && !format_header_name(p->name, why)) {
		problem_prefix(why, "name");
		return false;
	}
	if (p->condition == CONDITION_LIST)
		return p->names.n > 0 || problem(why, "names", "is required when condition is List");
	if (p->value.n == 0)
		return problem(why, "value", "must not be empty unless condition is List");
	if (p->condition == CONDITION_PERCENT && !str_to_u64(p->value, 100, &percent))
		return problem(why, "value", "must be an integer from 0 to 100, as text, when condition is "
			"%%");
	return p->condition != CONDITION_REGEX || check_regex(p->value, why);
}

static bool check_lane(const struct lane *lane, struct problem *why)
{
	if (lane->canaryModel != MODEL_CONTENT)
		return true;
	if (lane->predicates.n == 0)
		return problem(why, "predicates", "needs at least one predicate when canaryModel is 0");
	for (size_t i = 0; i < lane->predicates.n; i++)
		if (!check_predicate(ITEM(lane->predicates, struct predicate, i), why))
			return problem_in(why, "predicates", i);
	return true;
}

/* Lane i against the ones before it. */
static bool check_group(const struct items *lanes, size_t i, struct problem *why)
{
	const struct lane *lane = ITEM(*lanes, struct lane, i);
	int64_t sum = 0;

	for (size_t k = 0; k <= i; k++) {
		const struct lane *other = ITEM(*lanes, struct lane, k);

		if (other->swimmingLaneGroupId != lane->swimmingLaneGroupId)
			continue;
		if (k < i && other->swimmingLaneId == lane->swimmingLaneId)
			return problem(why, "swimmingLaneId", "stands twice in group %lld",
				(long long)lane->swimmingLaneGroupId);
		if (other->enable && other->canaryModel == MODEL_PERCENTAGE)
			sum += other->percentage;
	}
	if (lane->enable && lane->canaryModel == MODEL_PERCENTAGE && sum > 100)
		return problem(why, "percentage", "the enabled lanes of group %lld have %lld %% in all, more "
			"than 100",
			(long long)lane->swimmingLaneGroupId, (long long)sum);
	return true;
}

static bool check(const void *conf, struct problem *why)
{
	const struct dynamic_route *route = conf;
	const struct items *lanes = &route->dynamicRouteSwimmingLaneConfigs;

	for (size_t i = 0; i < lanes->n; i++)
		if (!check_group(lanes, i, why) || !check_lane(ITEM(*lanes, struct lane, i), why))
			return problem_in(why, "dynamicRouteSwimmingLaneConfigs", i);
	return true;
}

const struct policy_class dynamic_route = {
	.name = "DynamicRoute",
	.alias = "Dynamic routing (swimlane)",
	.summary = "Sends chosen requests through a lane of tagged endpoints.",
	.group = "Routing",
	.scopes = SCOPE_GATEWAY,
	.stage = STAGE_LANE,
	.combine = COMBINE_SPECIFIC,
	.fails_open = true,
	.execute_stage = "PluginDefault",
	.execute_priority = 560,
	.fields = fields,
	.conf_size = sizeof(struct dynamic_route),
	.enable_at = offsetof(struct dynamic_route, enable),
	.outcomes = { "lane", "baseline" },
	.check = check,
};
