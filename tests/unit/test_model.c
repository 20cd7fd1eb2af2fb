/*
 * test_model.c -- the model's indexes stay true through changes and their undoing: ids, names, ages, references.
 */
/* room: control */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include "control/model.h"
#include "control/resource.h"
#include <cmocka.h>                       /* last: it has a macro of the name fail */

static struct model *model;

static int setup(void **state)
{
	(void)state;
	model = model_new();
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	model_free(model);
	return 0;
}

/* ' stands for ". */
static struct resource *make(enum resource_kind kind, const char *id, uint64_t age, const char *text)
{
	struct resource *r = resource_new(kind, str_of(id));
	struct str copy = arena_copy(&r->arena, str_of(text));
	struct problem why;

	for (size_t i = 0; i < copy.n; i++)
		if (copy.p[i] == '\'')
			((char *)(uintptr_t)copy.p)[i] = '"';
	r->doc = json_parse(&r->arena, copy, &why);
	assert_non_null(r->doc);
	r->name = json_text(r->doc, "name");
	r->age = age;
	return r;
}

/* The change keeps its references; give them back with end(). */
static struct change begin(struct resource *before, struct resource *after)
{
	struct change c = { .before = before, .after = after };

	resource_hold(before);
	model_apply(model, &c);
	return c;
}

static void end(struct change *c)
{
	resource_drop(c->before);
	resource_drop(c->after);
}

static void put(struct resource *r)
{
	struct change c = begin(model_get(model, r->kind, r->id), r);

	end(&c);
}

static void take(enum resource_kind kind, const char *id)
{
	struct change c = begin(model_get(model, kind, str_of(id)), NULL);

	end(&c);
}

static bool count(void *arg, struct resource *r)
{
	unsigned *n = arg;

	(void)r;
	(*n)++;
	return true;
}

static unsigned users_of(enum resource_kind kind, const char *id)
{
	unsigned n = 0;

	model_referrers(model, kind, str_of(id), count, &n);
	return n;
}

static struct resource *find(const char *gateway, const char *name)
{
	struct str scope[2] = { str_of(gateway), { NULL, 0 } };

	return model_find(model, RESOURCE_SERVICE, scope, str_of(name));
}

static void test_finds_by_id_and_name(void **state)
{
	(void)state;
	put(make(RESOURCE_SERVICE, "svc-1", 1, "{'name':'a','gatewayId':'gw-1'}"));
	put(make(RESOURCE_SERVICE, "svc-2", 2, "{'name':'a','gatewayId':'gw-2'}"));
	assert_ptr_equal(find("gw-1", "a"), model_get(model, RESOURCE_SERVICE, STR("svc-1")));
	assert_ptr_equal(find("gw-2", "a"), model_get(model, RESOURCE_SERVICE, STR("svc-2")));
	assert_null(find("gw-3", "a"));
	assert_null(model_get(model, RESOURCE_ROUTE, STR("svc-1")));
	put(make(RESOURCE_SERVICE, "svc-1", 1, "{'name':'b','gatewayId':'gw-1'}"));
	assert_null(find("gw-1", "a"));
	assert_non_null(find("gw-1", "b"));
	assert_int_equal(model_count(model, RESOURCE_SERVICE), 2);
}

static void test_lists_by_age(void **state)
{
	static const char *const order[] = { "svc-1", "svc-2", "svc-3" };
	size_t i = 0, n = 0;

	(void)state;
	put(make(RESOURCE_SERVICE, "svc-1", 1, "{}"));
	put(make(RESOURCE_SERVICE, "svc-2", 2, "{}"));
	put(make(RESOURCE_SERVICE, "svc-3", 3, "{}"));
	struct change c = begin(model_get(model, RESOURCE_SERVICE, STR("svc-2")), NULL);

	assert_int_equal(model_count(model, RESOURCE_SERVICE), 2);
	model_undo(model, &c);
	end(&c);
	for (const struct resource *r; (r = model_next(model, RESOURCE_SERVICE, &i));)
		assert_string_equal(r->id.p, order[n++]);
	assert_int_equal(n, 3);
	assert_int_equal(model_new_age(model), 4);
}

static void test_knows_who_points_at_whom(void **state)
{
	(void)state;
	put(make(RESOURCE_SERVICE, "svc-1", 1, "{'name':'a','gatewayId':'gw-1'}"));
	put(make(RESOURCE_ROUTE, "route-1", 2,
		"{'name':'r','gatewayId':'gw-1','domainIds':['dom-1','dom-2'],"
		"'backend':{'scene':'MultiServiceByRatio','services':[{'serviceId':'svc-1'},{'serviceId':'"
		"svc-1'}]}}"));
	assert_int_equal(users_of(RESOURCE_GATEWAY, "gw-1"), 2);
	assert_int_equal(users_of(RESOURCE_SERVICE, "svc-1"), 1);
	assert_int_equal(users_of(RESOURCE_DOMAIN, "dom-2"), 1);
	put(make(RESOURCE_ROUTE, "route-1", 2, "{'name':'r','gatewayId':'gw-1'}"));
	assert_int_equal(users_of(RESOURCE_SERVICE, "svc-1"), 0);
	assert_int_equal(users_of(RESOURCE_DOMAIN, "dom-2"), 0);
	take(RESOURCE_ROUTE, "route-1");
	assert_int_equal(users_of(RESOURCE_GATEWAY, "gw-1"), 1);
}

static void test_policies_point_at_what_their_config_names(void **state)
{
	(void)state;
	put(make(RESOURCE_POLICY, "policy-1", 1,
		"{'name':'p','className':'FlowCopy','config':'{\\'targetServiceId\\':\\'svc-9\\'}'}"));
	assert_int_equal(users_of(RESOURCE_SERVICE, "svc-9"), 1);
	put(make(RESOURCE_ATTACHMENT, "pr-1", 2,
		"{'attachResourceType':'Route','attachResourceIds':['route-1','route-2'],"
		"'environmentId':'*','gatewayId':'gw-1','policyId':'policy-1'}"));
	assert_int_equal(users_of(RESOURCE_ROUTE, "route-2"), 1);
	assert_int_equal(users_of(RESOURCE_POLICY, "policy-1"), 1);
	assert_int_equal(users_of(RESOURCE_ENVIRONMENT, "*"), 0);
}

static void test_undo_restores_everything(void **state)
{
	struct resource *first = make(RESOURCE_SERVICE, "svc-1", 1, "{'name':'a','gatewayId':'gw-1'}");
	struct change c;

	(void)state;
	put(first);
	c = begin(first, make(RESOURCE_SERVICE, "svc-1", 1, "{'name':'b','gatewayId':'gw-2'}"));
	assert_int_equal(users_of(RESOURCE_GATEWAY, "gw-2"), 1);
	model_undo(model, &c);
	end(&c);
	assert_ptr_equal(model_get(model, RESOURCE_SERVICE, STR("svc-1")), first);
	assert_ptr_equal(find("gw-1", "a"), first);
	assert_null(find("gw-2", "b"));
	assert_int_equal(users_of(RESOURCE_GATEWAY, "gw-1"), 1);
	assert_int_equal(users_of(RESOURCE_GATEWAY, "gw-2"), 0);
	c = begin(NULL, make(RESOURCE_SERVICE, "svc-2", 2, "{'name':'c','gatewayId':'gw-1'}"));
	model_undo(model, &c);
	end(&c);
	assert_null(find("gw-1", "c"));
	assert_int_equal(model_count(model, RESOURCE_SERVICE), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_finds_by_id_and_name, setup, teardown),
		cmocka_unit_test_setup_teardown(test_lists_by_age, setup, teardown),
		cmocka_unit_test_setup_teardown(test_knows_who_points_at_whom, setup, teardown),
		cmocka_unit_test_setup_teardown(test_policies_point_at_what_their_config_names, setup, teardown),
		cmocka_unit_test_setup_teardown(test_undo_restores_everything, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
