/*
 * test_effective.c -- what is said to act on a route, for random policies at random levels, against the rules of the
 * contract written down once more in the plainest way.
 */
/* room: control */
#include "control/effective.h"
#include "compile_node.h"

enum where { AT_GATEWAY, AT_DOMAIN, AT_ROUTE, AT_SERVICE, PLACES };
enum state { ABSENT, ENABLED, DISABLED };

static const struct {
	const char *type, *id;
} places[PLACES] = {
	{ "Gateway", "gw-1" }, { "Domain", "dom-1" }, { "Route", "route-1" }, { "Service", "svc-1" },
};

#define TIME(enable) "{\\\"enable\\\":" enable ",\\\"unitNum\\\":1,\\\"timeUnit\\\":\\\"s\\\"}"
#define SHAPE(enable) "{\\\"enable\\\":" enable ",\\\"headerOpItems\\\":[{\\\"directionType\\\":\\\"Request\\\"," \
	"\\\"opType\\\":\\\"Remove\\\",\\\"key\\\":\\\"x\\\",\\\"policyValueGenerateMode\\\":\\\"Custom\\\"}]}"

static const struct kind {
	const char *class, *on, *off;
	bool places[PLACES];
	bool overrides;                   /* the most specific wins whole, disabled or not; else all enabled act */
} kinds[] = {
	{ "Cors", CORS("true"), CORS("false"), { true, true, true, false }, true },
	{ "RateLimit", LIMIT("5"), LIMIT_OFF, { true, true, true, true }, false },
	{ "HeaderModify", SHAPE("true"), SHAPE("false"), { true, true, true, false }, false },
	{ "Timeout", TIME("true"), TIME("false"), { false, false, true, true }, true },
};
#define N_KINDS (sizeof kinds / sizeof kinds[0])

static enum state present[N_KINDS][PLACES];

static const char *name(const char *prefix, unsigned kind, unsigned place)
{
	return arena_printf(&node.arena, "%s-%u-%u", prefix, kind, place).p;
}

static void change(unsigned kind, unsigned place, enum state to)
{
	if (present[kind][place] != ABSENT) {
		drop(RESOURCE_ATTACHMENT, name("pr", kind, place));
		drop(RESOURCE_POLICY, name("policy", kind, place));
	}
	present[kind][place] = to;
	if (to == ABSENT)
		return;
	put_policy(name("policy", kind, place), kinds[kind].class, to == ENABLED ? kinds[kind].on : kinds[kind].off);
	attach(name("pr", kind, place), name("policy", kind, place), places[place].type, places[place].id);
}

/* Narrowness of a place for classes where one wins: a service is the broadest. */
static unsigned narrowness(unsigned place)
{
	return place == AT_SERVICE ? 0 : place + 1;
}

/* The place whose policy has this one's place; PLACES when none has. */
static unsigned winner(unsigned kind, unsigned place)
{
	unsigned best = PLACES;

	for (unsigned other = 0; kinds[kind].overrides && other < PLACES; other++)
		if (present[kind][other] != ABSENT && narrowness(other) > narrowness(place) &&
		    (best == PLACES || narrowness(other) > narrowness(best)))
			best = other;
	return best;
}

static enum effect expect(unsigned kind, unsigned place)
{
	bool is_on = present[kind][place] == ENABLED;

	if (!is_on && !kinds[kind].overrides)
		return EFFECT_DISABLED;
	if (winner(kind, place) != PLACES)
		return EFFECT_HIDDEN;
	return is_on ? EFFECT_RUNS : EFFECT_OPTS_OUT;
}

static void check_row(const struct effective *e, const struct effective_row *row)
{
	unsigned kind = (unsigned)row->attachment->id.p[3] - '0', place = (unsigned)row->attachment->id.p[5] - '0';
	unsigned by = winner(kind, place);

	assert_true(str_equal(row->attachment->id, str_of(name("pr", kind, place))));
	assert_string_equal(row->class->name, kinds[kind].class);
	assert_int_equal(row->effect, expect(kind, place));
	assert_true(str_equal(row->resource_id, str_of(places[place].id)));
	assert_true((row->effect == EFFECT_HIDDEN) == (row->hidden_by != NULL));
	if (row->hidden_by)
		assert_true(str_equal(row->hidden_by->id, str_of(name("pr", kind, by))));
	/* What is said to run is in the chain, and what is not said to is not walked. */
	if (row->group != GROUP_SETTING)
		assert_true((row->step != NULL) == (row->effect == EFFECT_RUNS));
	if (row > e->rows) {
		assert_true(row[-1].group <= row->group);
		assert_true(row[-1].group < row->group || row->group == GROUP_SETTING || row[-1].order <= row->order);
		if (row[-1].group == row->group && row[-1].order == row->order)
			assert_true(row[-1].level <= row->level);
	}
}

static void check_all(void)
{
	const struct route_state *route = map_get(&node.compiler->route_states, STR("route-1"));
	const struct domain_state *domain = map_get(&node.compiler->domain_states, STR("dom-1"));
	unsigned seen[N_KINDS][PLACES] = { 0 };
	struct arena a = { 0 };
	struct effective *e;

	compile_publish(node.compiler);
	e = effective_new(node.compiler, route, domain, &a);
	for (unsigned i = 0; i < e->n; i++) {
		check_row(e, &e->rows[i]);
		seen[e->rows[i].attachment->id.p[3] - '0'][e->rows[i].attachment->id.p[5] - '0']++;
		assert_non_null(effective_item(e, &e->rows[i], &a));
	}
	for (unsigned kind = 0; kind < N_KINDS; kind++)
		for (unsigned place = 0; place < PLACES; place++)
			assert_true((seen[kind][place] > 0) == (present[kind][place] != ABSENT));
	arena_free(&a);
}

static void test_every_row_is_as_the_contract_says(void **state)
{
	uint32_t random = 20;

	(void)state;
	memset(present, 0, sizeof present);
	put_gateway("gw-1", "['*']", "['127.0.0.1']");
	put(RESOURCE_DOMAIN, "dom-1", "{'name':'a.test','gatewayId':'gw-1','protocol':'HTTP'}");
	put(RESOURCE_SERVICE, "svc-1",
	    "{'name':'s','gatewayId':'gw-1','sourceType':'VIP','addresses':['127.0.0.1:1']}");
	put_route("route-1", "'domainIds':['dom-1']," PATH("Prefix", "/") "," TO("svc-1"));
	for (unsigned round = 0; round < 600; round++) {
		unsigned kind, place;

		random = random * 1664525 + 1013904223;
		kind = (random >> 8) % N_KINDS;
		place = (random >> 16) % PLACES;
		if (kinds[kind].places[place])
			change(kind, place, (enum state)((random >> 24) % 3));
		if (round % 3 == 0)
			check_all();
	}
	for (unsigned kind = 0; kind < N_KINDS; kind++)
		for (unsigned place = 0; place < PLACES; place++)
			change(kind, place, ABSENT);
	check_all();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_every_row_is_as_the_contract_says, setup, teardown),
	};

	return cmocka_run_group_tests(tests, start, NULL);
}
