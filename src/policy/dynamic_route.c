/*
 * dynamic_route.c -- DynamicRoute: sends tagged or chosen requests through a lane of canary endpoints. It decides the
 * lane and says so to the upstream; proxy/balance.c keeps the request within it.
 */
#include <stdlib.h>
#include "core/crypto.h"
#include "core/regex.h"
#include "core/xxh64.h"
#include "http/uri.h"
#include "policy/formats.h"
#include "proxy/balance.h"
#include "proxy/policy.h"

enum model { MODEL_CONTENT, MODEL_PERCENTAGE };
enum subject { SUBJECT_HEADER, SUBJECT_COOKIE, SUBJECT_PARAMETER };
enum comparison {
	CONDITION_EQUAL, CONDITION_DIFFERENT, CONDITION_PREFIX, CONDITION_REGEX, CONDITION_LIST,
		CONDITION_PERCENT,
};
enum combination { MATCH_AND, MATCH_OR };
enum outcome { TO_LANE, TO_BASELINE, KEPT };

struct predicate {
	int type;
	struct str name;
	int condition;
	struct str value;
	struct items names;
	/* by prepare() */
	uint16_t header_id;               /* Header */
	struct regex *regex;              /* Regex */
	uint64_t percent;                 /* % */
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

/* Enabled percentage lanes of one group: they share one draw. */
struct group {
	int64_t id;
	const struct lane **lanes;
	unsigned n;
};

struct dynamic_route {
	bool enable;
	struct items dynamicRouteSwimmingLaneConfigs;
	/* by prepare() */
	struct lane_names names;
	struct group *groups;             /* in the order in which the lanes name them */
	unsigned n_groups;
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
	INT(struct lane, percentage, ONLY_WHEN("canaryModel", MODEL_PERCENTAGE), RANGE(0, 100), UNIT("%"),
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

/* ---------- made once ---------- */

static int compare_names(const void *a, const void *b)
{
	return str_compare(*(const struct str *)a, *(const struct str *)b);
}

static bool prepare_predicate(struct predicate *p, struct arena *a, struct problem *why)
{
	if (p->type == SUBJECT_HEADER)
		p->header_id = (uint16_t)header_lookup(p->name);
	if (p->condition == CONDITION_LIST)
		qsort(p->names.items, p->names.n, sizeof(struct str), compare_names);
	if (p->condition == CONDITION_PERCENT && !str_to_u64(p->value, 100, &p->percent))
		return problem(why, "value", "must be an integer from 0 to 100");
	if (p->condition == CONDITION_REGEX)
		p->regex = regex_compile(a, p->value, false, why);
	return p->condition != CONDITION_REGEX || p->regex;
}

static void join_group(struct dynamic_route *route, const struct lane *lane, struct arena *a)
{
	struct group *g = route->groups;

	while (g < route->groups + route->n_groups && g->id != lane->swimmingLaneGroupId)
		g++;
	if (g == route->groups + route->n_groups) {
		route->n_groups++;
		g->id = lane->swimmingLaneGroupId;
		g->lanes = NEW_N(a, const struct lane *, route->dynamicRouteSwimmingLaneConfigs.n);
	}
	g->lanes[g->n++] = lane;
}

/* A lane that is switched off keeps its name: its endpoints are no place for everybody's requests. */
static void list_names(struct dynamic_route *route, struct arena *a)
{
	const struct items *lanes = &route->dynamicRouteSwimmingLaneConfigs;
	struct str *names = NEW_N(a, struct str, lanes->n + 1);
	uint64_t hash = 0;

	for (size_t i = 0; i < lanes->n; i++) {
		names[i] = ITEM(*lanes, struct lane, i)->swimmingLaneTag;
		hash = xxh64(names[i], hash + 1);
	}
	route->names = (struct lane_names){ names, (unsigned)lanes->n, hash };
}

/* Predicates that are in no use, of percentage lanes, were not checked and are not looked at. */
static bool prepare(void *conf, struct arena *a, struct problem *why)
{
	struct dynamic_route *route = conf;
	const struct items *lanes = &route->dynamicRouteSwimmingLaneConfigs;

	route->groups = NEW_N(a, struct group, lanes->n + 1);
	for (size_t i = 0; i < lanes->n; i++) {
		struct lane *lane = ITEM(*lanes, struct lane, i);

		if (lane->canaryModel == MODEL_PERCENTAGE && lane->enable)
			join_group(route, lane, a);
		for (size_t k = 0; lane->canaryModel == MODEL_CONTENT && k < lane->predicates.n; k++)
			if (!prepare_predicate(ITEM(lane->predicates, struct predicate, k), a, why))
				return false;
	}
	list_names(route, a);
	return true;
}

/* ---------- which lane ---------- */

/* Values of a header that came more than once, joined by commas without blanks. */
static struct str header_value(struct exchange *x, const struct predicate *p)
{
	const struct message *req = exchange_request(x);
	const struct header *first = message_find_as(req, (enum header_id)p->header_id, p->name), *h;
	struct sbuf all = { 0 };
	struct str joined;

	if (!first || !message_find_next(req, first))
		return first ? first->value : (struct str){ NULL, 0 };
	sbuf_add(&all, first->value);
	for (h = message_find_next(req, first); h; h = message_find_next(req, h)) {
		SBUF_LIT(&all, ",");
		sbuf_add(&all, h->value);
	}
	joined = arena_copy(exchange_arena(x), sbuf_str(&all));
	sbuf_free(&all);
	return joined;
}

static struct str parameter_value(struct exchange *x, struct str name)
{
	struct str raw = query_value(exchange_request(x)->query, name), decoded;

	if (!raw.n)
		return raw;
	decoded = uri_decode(exchange_arena(x), raw, true);
	return decoded.p ? decoded : raw;
}

/* Of the client's request: later stages change headers. Absent when it is missing. */
static struct str value_of(struct exchange *x, const struct predicate *p)
{
	switch ((enum subject)p->type) {
	case SUBJECT_HEADER:
		return header_value(x, p);
	case SUBJECT_COOKIE:
		return message_cookie(exchange_request(x), p->name);
	case SUBJECT_PARAMETER:
		return parameter_value(x, p->name);
	}
	return (struct str){ NULL, 0 };
}

/* The same number for the same value on every node: the first 8 bytes of its SHA-256, big end first. */
static uint64_t hash_percent(struct str value)
{
	uint8_t digest[32];
	uint64_t hash = 0;

	crypto_sha256(value, digest);
	for (unsigned i = 0; i < 8; i++)
		hash = hash << 8 | digest[i];
	return hash % 100;
}

/* What is missing fits no condition, "!=" included. */
static bool fits(struct exchange *x, const struct predicate *p)
{
	struct str value = value_of(x, p);

	if (!value.p)
		return false;
	switch ((enum comparison)p->condition) {
	case CONDITION_EQUAL:
		return str_equal(value, p->value);
	case CONDITION_DIFFERENT:
		return !str_equal(value, p->value);
	case CONDITION_PREFIX:
		return str_starts(value, p->value);
	case CONDITION_REGEX:
		return regex_match(p->regex, value) == REGEX_YES;
	case CONDITION_LIST:
		return bsearch(&value, p->names.items, p->names.n, sizeof(struct str), compare_names) != NULL;
	case CONDITION_PERCENT:
		return hash_percent(value) < p->percent;
	}
	return false;
}

static bool takes(struct exchange *x, const struct lane *lane)
{
	bool is_or = lane->matchCondition == MATCH_OR;

	for (size_t i = 0; i < lane->predicates.n; i++)
		if (fits(x, ITEM(lane->predicates, struct predicate, i)) == is_or)
			return is_or;
	return !is_or;
}

static const struct lane *find_by_content(struct exchange *x, const struct dynamic_route *route)
{
	const struct items *lanes = &route->dynamicRouteSwimmingLaneConfigs;

	for (size_t i = 0; i < lanes->n; i++) {
		const struct lane *lane = ITEM(*lanes, struct lane, i);

		if (lane->enable && lane->canaryModel == MODEL_CONTENT && takes(x, lane))
			return lane;
	}
	return NULL;
}

/* One draw for each group; its lanes have the first percents, one behind the other. */
static const struct lane *draw(struct exchange *x, const struct group *g)
{
	int64_t at = (int64_t)((uint64_t)exchange_random(x) * 100 >> 32);

	for (unsigned i = 0; i < g->n; i++) {
		if (at < g->lanes[i]->percentage)
			return g->lanes[i];
		at -= g->lanes[i]->percentage;
	}
	return NULL;
}

static const struct lane *find_by_draw(struct exchange *x, const struct dynamic_route *route)
{
	const struct lane *lane = NULL;

	for (unsigned i = 0; !lane && i < route->n_groups; i++)
		lane = draw(x, &route->groups[i]);
	return lane;
}

static void enter(struct exchange *x, const struct step *s, const struct lane *lane)
{
	const struct dynamic_route *route = s->conf;

	if (lane)
		message_set_id(exchange_request(x), HEADER_X_MSE_TAG, lane->swimmingLaneTag);
	exchange_choose_lane(x, lane ? lane->swimmingLaneTag : STR(""), &route->names);
	policy_count(s, lane ? TO_LANE : TO_BASELINE);
}

/* The first one that is not empty. Of several lines one stays: the hops behind must not read another. */
static struct str inbound_tag(struct message *req)
{
	const struct header *first = message_find(req, HEADER_X_MSE_TAG), *h = first;
	struct str tag;

	while (h && h->value.n == 0)
		h = message_find_next(req, h);
	tag = h ? h->value : (struct str){ NULL, 0 };
	if (h && UNLIKELY(h != first || message_find_next(req, h)))
		message_set_id(req, HEADER_X_MSE_TAG, tag);
	return tag;
}

/* A tag that came with the request: another hop has decided. */
static bool keep_tag(struct exchange *x, const struct step *s)
{
	const struct dynamic_route *route = s->conf;
	struct str tag = inbound_tag(exchange_request(x));

	if (tag.n == 0)
		return false;
	exchange_choose_lane(x, tag, &route->names);
	policy_count(s, KEPT);
	return true;
}

static enum verdict choose(struct exchange *x, const struct step *s)
{
	const struct lane *lane;

	if (keep_tag(x, s))
		return next();
	lane = find_by_content(x, s->conf);
	enter(x, s, lane ? lane : find_by_draw(x, s->conf));
	return next();
}

/* A dry run draws nothing. */
static enum verdict explain(struct exchange *x, const struct step *s)
{
	const struct dynamic_route *route = s->conf;
	const struct lane *lane;

	if (keep_tag(x, s)) {
		exchange_note(x, "the request keeps the tag that it came with");
		return next();
	}
	lane = find_by_content(x, s->conf);
	enter(x, s, lane);
	if (lane)
		exchange_note(x, "lane %.*s", STR_FMT(lane->swimmingLaneTag));
	else if (route->n_groups > 0)
		return cannot_judge(x, "no content lane fits; percentage lanes draw for each request");
	else
		exchange_note(x, "baseline");
	return next();
}

const struct policy_class dynamic_route = {
	.name = "DynamicRoute",
	.alias = "Dynamic routing (swimlane)",
	.summary = "Sends chosen requests through a lane of tagged endpoints.",
	.group = "Routing",
	.scopes = SCOPE_GATEWAY,
	.stage = STAGE_LANE,
	.combine = COMBINE_SPECIFIC,
	.is_enforced = true,
	.fails_open = true,
	.execute_stage = "PluginDefault",
	.execute_priority = 560,
	.fields = fields,
	.conf_size = sizeof(struct dynamic_route),
	.enable_at = offsetof(struct dynamic_route, enable),
	.outcomes = { [TO_LANE] = "lane", [TO_BASELINE] = "baseline", [KEPT] = "kept" },
	.check = check,
	.prepare = prepare,
	.request = choose,
	.explain = explain,
};
