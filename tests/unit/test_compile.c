/* test_compile.c -- what resources become in the snapshot that workers adopt. room: control */
#include "compile_node.h"
#include "proxy/balance.h"

static void test_routes_come_and_go(void **state)
{
	const struct vhost *before;

	(void)state;
	put_gateway("gw-1", "['*']", "['127.0.0.1']");
	put(RESOURCE_DOMAIN, "dom-1", "{'name':'Shop.test','gatewayId':'gw-1'}");
	put_route("route-1", PATH("Prefix", "/a") "," TO("svc-1"));
	put_route("route-2", "'domainIds':['dom-1']," PATH("Prefix", "/a/b") "," TO("svc-1"));
	assert_string_equal(id_of("any.test", "/a/b"), "route-1");
	assert_string_equal(id_of("shop.test", "/a/b"), "route-2");
	assert_string_equal(id_of("shop.test", "/a"), "route-1");
	assert_string_equal(site_of("shop.test")->domain_name.p, "shop.test");
	before = site_of("any.test")->gateway_routes;
	put_route("route-3", PATH("Prefix", "/c") "," TO("svc-1"));
	assert_string_equal(id_of("any.test", "/c/x"), "route-3");
	assert_ptr_equal(site_of("any.test")->gateway_routes, before);     /* same depths: nothing made anew */
	put_route("route-4", PATH("Regex", "/r/[0-9]+") "," TO("svc-1"));
	assert_string_equal(id_of("any.test", "/r/12"), "route-4");
	put_route("route-3", PATH("Exact", "/d") "," TO("svc-1"));
	assert_string_equal(id_of("any.test", "/c/x"), "");
	assert_string_equal(id_of("any.test", "/d"), "route-3");
	put_route("route-2", PATH("Prefix", "/a/b") "," TO("svc-1"));
	assert_string_equal(id_of("any.test", "/a/b"), "route-2");
	drop(RESOURCE_ROUTE, "route-2");
	drop(RESOURCE_ROUTE, "route-4");
	assert_string_equal(id_of("shop.test", "/a/b"), "route-1");
	assert_string_equal(id_of("any.test", "/r/12"), "");
	drop(RESOURCE_DOMAIN, "dom-1");
	assert_null(site_of("shop.test")->domain_id.p);
	drop(RESOURCE_ROUTE, "route-1");
	drop(RESOURCE_ROUTE, "route-3");
	assert_string_equal(id_of("any.test", "/a"), "");
	assert_int_equal(pmap_count(now()->paths), 0);
}

/* A class that looks at the body has two steps in the request leg; what its rules are is bound to both. */
static void test_a_step_for_the_head_and_one_for_the_body(void **state)
{
	const struct chain *chain;

	(void)state;
	put_gateway("gw-1", "['*']", "['127.0.0.1']");
	put_route("route-1", PATH("Prefix", "/a"));
	put_policy("policy-1", "Waf", "{\\\"enable\\\":true}");
	attach("pr-1", "policy-1", "Route", "route-1");
	chain = &route_of("x", "/a")->policies->legs[LEG_REQUEST];
	assert_int_equal(chain->n, 2);
	assert_int_equal(chain->steps[0].order, STAGE_WAF_HEAD);
	assert_false(chain->steps[0].needs_body);
	assert_int_equal(chain->steps[1].order, STAGE_WAF_BODY);
	assert_true(chain->steps[1].needs_body);
	assert_non_null(chain->steps[0].bound);
	assert_ptr_equal(chain->steps[0].bound, chain->steps[1].bound);
	assert_ptr_equal(chain->steps[0].cell, chain->steps[1].cell);
}

static void test_broken_route_changes_nothing(void **state)
{
	uint64_t version;

	(void)state;
	put_gateway("gw-1", "['*']", "['127.0.0.1']");
	put_route("route-1", PATH("Prefix", "/a"));
	version = compile_publish(node.compiler);
	assert_false(try_put(RESOURCE_ROUTE, "route-1",
			     "{'name':'route-1','gatewayId':'gw-1','environmentId':'e',"
			     "'match':{'path':{'type':'Prefix','value':'/"
			     "b'},'headers':[{'name':'x','type':'Regex','value':'('}]}}"));
	assert_string_equal(why.field, "match.headers[0].value");
	assert_int_equal(compile_publish(node.compiler), version);
	assert_string_equal(id_of("x", "/a"), "route-1");
}

static void test_more_headers_then_age(void **state)
{
	struct message req = {
		.arena = &node.arena, .method = METHOD_GET, .method_name = STR("GET"), .path = STR("/a")
	};

	(void)state;
	put_gateway("gw-1", "['*']", "['127.0.0.1']");
	put_route("route-1", PATH("Prefix", "/a"));
	put_route("route-2", PATH("Prefix", "/a"));
	put_route("route-3", "'match':{'path':{'type':'Prefix','value':'/"
			     "a'},'headers':[{'name':'x-v','type':'Exact','value':'2'}]}");
	assert_string_equal(id_of("x", "/a"), "route-1");
	message_add(&req, STR("X-V"), STR("2"));
	assert_string_equal(router_match(now(), site_of("x"), &req, (struct str){ NULL, 0 })->id.p, "route-3");
	drop(RESOURCE_ROUTE, "route-1");
	assert_string_equal(id_of("x", "/a"), "route-2");
	put_route("route-1", PATH("Prefix", "/a"));                        /* new, so the youngest */
	assert_string_equal(id_of("x", "/a"), "route-2");
}

static void test_api_and_operations(void **state)
{
	(void)state;
	put_gateway("gw-1", "['*']", "['127.0.0.1']");
	put(RESOURCE_OPERATION, "op-1",
	    "{'name':'early','httpApiId':'api-1','method':'GET','path':'/pets/{petId}','gatewayId':'gw-1',"
	    "'environmentId':'env-1'}");
	assert_string_equal(id_of("x", "/v1/pets/7"), "");
	put(RESOURCE_API, "api-1",
	    "{'name':'pets','gatewayId':'gw-1','environmentId':'env-1','basePath':'/v1'," TO("svc-1") "}");
	assert_string_equal(id_of("x", "/v1/pets/7"), "op-1");
	assert_string_equal(route_of("x", "/v1/pets/7")->targets[0].service_id.p, "svc-1");
	assert_string_equal(id_of("x", "/v1/pets"), "");
	assert_string_equal(id_of("x", "/v1/other"), "");
	drop(RESOURCE_OPERATION, "op-1");
	assert_string_equal(id_of("x", "/v1/other"), "api-1");
	assert_string_equal(id_of("x", "/v1"), "api-1");
	put(RESOURCE_OPERATION, "op-2",
	    "{'name':'list','httpApiId':'api-1','method':'POST','path':'/pets','gatewayId':'gw-1',"
	    "'environmentId':'env-1'," TO("svc-2") "}");
	assert_string_equal(id_of("x", "/v1/pets"), "");                   /* GET */
	put(RESOURCE_API, "api-1",
	    "{'name':'pets','gatewayId':'gw-1','environmentId':'env-1','basePath':'/v2'," TO("svc-1") "}");
	struct message req = { .arena = &node.arena,
			       .method = METHOD_POST,
			       .method_name = STR("POST"),
			       .path = STR("/v2/pets") };
	const struct route *r = router_match(now(), site_of("x"), &req, (struct str){ NULL, 0 });

	assert_string_equal(r->id.p, "op-2");
	assert_string_equal(r->targets[0].service_id.p, "svc-2");
	drop(RESOURCE_OPERATION, "op-2");
	drop(RESOURCE_API, "api-1");
	assert_int_equal(pmap_count(now()->paths), 0);
}

static void test_service_endpoints_keep_their_state(void **state)
{
	struct endpoint_cell *cell;
	const struct service *s;

	(void)state;
	put(RESOURCE_SERVICE, "svc-1",
	    "{'name':'s','gatewayId':'gw-1','sourceType':'DNS','ports':[{'name':'http','port':80},{'name':'b'"
	    ",'port':81}],"
	    "'versions':[{'name':'v2','labels':{'tag':'v2'}}],'addresses':['10.0.0.1:9001','10.0.0.2',"
	    "{'address':'back.test:1','weight':5,'labels':{'tag':'v2','x':'y'}},{'address':'[::1]:7','"
	    "version':'v9'}],"
	    "'healthCheckConfig':{'enable':true,'protocol':'HTTP','httpPath':'/h','interval':7},"
	    "'outlierDetectionConfig':{'enable':true,'consecutive5xx':3,'interval':10,'baseEjectionTime':30,'"
	    "maxEjectionPercent':50}}");
	s = service_of("svc-1");
	assert_int_equal(s->n_endpoints, 5);
	assert_string_equal(s->endpoints[0].text.p, "10.0.0.1:9001");
	assert_string_equal(s->endpoints[1].text.p, "10.0.0.2:80");
	assert_string_equal(s->endpoints[2].text.p, "10.0.0.2:81");
	assert_string_equal(s->endpoints[3].host.p, "back.test");
	assert_int_equal(s->endpoints[3].weight, 5);
	assert_string_equal(s->endpoints[3].version.p, "v2");
	assert_string_equal(s->endpoints[4].version.p, "v9");
	assert_string_equal(s->endpoints[4].text.p, "[::1]:7");
	assert_int_equal(s->health.interval_ms, 7000);
	assert_int_equal(s->outlier.base_ejection_ms, 30000);
	cell = s->endpoints[0].cell;
	put(RESOURCE_SERVICE, "svc-1",
	    "{'name':'s','gatewayId':'gw-1','sourceType':'VIP','addresses':['10.0.0.9:1','10.0.0.1:9001']}");
	s = service_of("svc-1");
	assert_ptr_equal(s->endpoints[1].cell, cell);
	assert_false(cell->retired);
	assert_int_equal(node.retired, 4);
	/* Removed and put back before anybody saw it. */
	put(RESOURCE_SERVICE, "svc-1",
	    "{'name':'s','gatewayId':'gw-1','sourceType':'VIP','addresses':['10.0.0.9:1']}");
	put(RESOURCE_SERVICE, "svc-1",
	    "{'name':'s','gatewayId':'gw-1','sourceType':'VIP','addresses':['10.0.0.1:9001']}");
	assert_ptr_equal(service_of("svc-1")->endpoints[0].cell, cell);
	assert_int_equal(node.retired, 5);
	drop(RESOURCE_SERVICE, "svc-1");
	assert_null(service_of("svc-1"));
	assert_int_equal(node.retired, 6);
}

#define RING(size) "{\\\"enable\\\":true,\\\"loadBalancerType\\\":\\\"CONSISTENT_HASH\\\"," \
	"\\\"consistentHashLBConfig\\\":{\\\"consistentHashLBType\\\":\\\"SOURCE_IP\\\"," \
	"\\\"minimumRingSize\\\":" size "}}"

/* A ring is made when hosts, weights or its size change, and for nothing else; turns begin anew with a new document. */
static void test_service_keeps_its_ring(void **state)
{
	const struct service *s;
	struct ring *ring;
	struct rotation *rotation;

	(void)state;
	put(RESOURCE_SERVICE, "svc-1",
	    "{'name':'s','gatewayId':'gw-1','addresses':['10.0.0.1:1',"
	    "{'address':'10.0.0.2:1','version':'v2','labels':{'tag':'a'}},"
	    "{'address':'10.0.0.3:1','labels':{'tag':'b','alicloud.service.tag':'v2'}}]}");
	s = service_of("svc-1");
	assert_null(s->ring);
	assert_null(s->balance);
	assert_int_equal(s->n_tags, 2);
	assert_string_equal(s->tags[0].p, "v2");
	assert_string_equal(s->tags[1].p, "a");
	assert_true(s->endpoints[0].tag.n == 0);
	assert_string_equal(s->endpoints[1].tag.p, "a");
	assert_string_equal(s->endpoints[2].tag.p, "v2");
	rotation = s->rotation;
	put_policy("policy-1", "ServiceLb", RING("64"));
	attach("pr-1", "policy-1", "Service", "svc-1");
	s = service_of("svc-1");
	assert_ptr_equal(s->rotation, rotation);
	assert_int_equal(s->balance->method, BALANCE_BY_HASH);
	ring = s->ring;
	assert_non_null(ring);
	put(RESOURCE_SERVICE, "svc-1", "{'name':'other','gatewayId':'gw-1','healthyPanicThreshold':12.5,"
	    "'addresses':['10.0.0.1:1','10.0.0.2:1','10.0.0.3:1']}");
	s = service_of("svc-1");
	assert_ptr_equal(s->ring, ring);
	assert_ptr_not_equal(s->rotation, rotation);
	assert_true(s->panic_percent == 12.5);
	put_policy("policy-1", "ServiceLb", RING("65"));
	assert_ptr_not_equal(service_of("svc-1")->ring, ring);
	ring = service_of("svc-1")->ring;
	put(RESOURCE_SERVICE, "svc-1", "{'name':'other','gatewayId':'gw-1','addresses':['10.0.0.1:1','10.0.0.2:1']}");
	assert_ptr_not_equal(service_of("svc-1")->ring, ring);
	drop(RESOURCE_ATTACHMENT, "pr-1");
	assert_null(service_of("svc-1")->ring);
	assert_null(service_of("svc-1")->balance);
	drop(RESOURCE_SERVICE, "svc-1");
}

static void test_steps_of_every_level(void **state)
{
	const struct route *r;
	const struct site *site;

	(void)state;
	put_gateway("gw-1", "['*']", "['127.0.0.1']");
	put(RESOURCE_DOMAIN, "dom-1", "{'name':'shop.test','gatewayId':'gw-1'}");
	put(RESOURCE_SERVICE, "svc-1",
	    "{'name':'s','gatewayId':'gw-1','sourceType':'VIP','addresses':['10.0.0.1:9001']}");
	put_route("route-1", PATH("Prefix", "/a") "," TO("svc-1"));
	put_policy("policy-1", "RateLimit", LIMIT("5"));
	attach("pr-1", "policy-1", "Route", "route-1");
	attach("pr-2", "policy-1", "Gateway", "gw-1");
	attach("pr-3", "policy-1", "Domain", "dom-1");
	attach("pr-4", "policy-1", "Service", "svc-1");
	r = route_of("shop.test", "/a");
	assert_int_equal(r->policies->legs[LEG_REQUEST].n, 1);
	assert_int_equal(r->policies->legs[LEG_SERVICE].n, 0);
	assert_int_equal(r->policies->legs[LEG_REQUEST].steps[0].order, STAGE_RATE);
	assert_string_equal(r->policies->legs[LEG_REQUEST].steps[0].attachment_id.p, "pr-1");
	assert_string_equal(r->policies->legs[LEG_REQUEST].steps[0].policy_name.p, "policy-1");
	site = site_of("shop.test");
	assert_int_equal(site->gateway->policies->legs[LEG_REQUEST].n, 1);
	assert_int_equal(site->domain_policies->legs[LEG_REQUEST].n, 1);
	assert_int_equal(site->domain_policies->legs[LEG_REQUEST].steps[0].level, LEVEL_DOMAIN);
	assert_int_equal(service_of("svc-1")->policies->legs[LEG_SERVICE].n, 1);
	assert_int_equal(service_of("svc-1")->policies->legs[LEG_SERVICE].steps[0].order, STAGE_SERVICE_RATE);
	assert_int_equal(status_of("pr-4").phase, PHASE_ACTIVE);
	drop(RESOURCE_ATTACHMENT, "pr-1");
	drop(RESOURCE_ATTACHMENT, "pr-2");
	assert_ptr_equal(route_of("shop.test", "/a")->policies, &policies_none);
	assert_ptr_equal(site_of("shop.test")->gateway->policies, &policies_none);
	assert_int_equal(site_of("shop.test")->domain_policies->legs[LEG_REQUEST].n, 1);
	put_policy("policy-1", "RateLimit", LIMIT_OFF);
	assert_int_equal(status_of("pr-3").phase, PHASE_DISABLED);
	assert_int_equal(site_of("shop.test")->domain_policies->legs[LEG_REQUEST].n, 0);
}

static void test_cells_survive_what_does_not_concern_them(void **state)
{
	void *cell, *other;

	(void)state;
	put_gateway("gw-1", "['*']", "['127.0.0.1']");
	put_route("route-1", PATH("Prefix", "/a"));
	put_route("route-2", PATH("Prefix", "/b"));
	put_policy("policy-1", "RateLimit", LIMIT("5"));
	put(RESOURCE_ATTACHMENT, "pr-1",
	    "{'policyId':'policy-1','attachResourceType':'Route','attachResourceIds':['route-1','route-2'],"
	    "'environmentId':'env-1','gatewayId':'gw-1'}");
	cell = step_of("/a")->cell;
	other = step_of("/b")->cell;
	assert_non_null(cell);
	assert_ptr_not_equal(cell, other);
	assert_int_equal((uintptr_t)cell % 64, 0);
	put_route("route-1", PATH("Prefix", "/c"));
	assert_ptr_equal(step_of("/c")->cell, cell);
	/* The same config in other words, then undone before it was seen, then really another one. */
	put_policy("policy-1", "RateLimit", " " LIMIT("5"));
	assert_ptr_equal(step_of("/c")->cell, cell);
	put_policy("policy-1", "RateLimit", LIMIT("6"));
	put_policy("policy-1", "RateLimit", LIMIT("5"));
	assert_ptr_equal(step_of("/c")->cell, cell);
	put_policy("policy-1", "RateLimit", LIMIT("6"));
	assert_ptr_not_equal(step_of("/c")->cell, cell);
	assert_ptr_not_equal(step_of("/b")->cell, other);
}

static void test_operations_inherit_and_replace(void **state)
{
	const struct policies *p;
	void *one, *two;

	(void)state;
	put_gateway("gw-1", "['*']", "['127.0.0.1']");
	put(RESOURCE_API, "api-1",
	    "{'name':'pets','gatewayId':'gw-1','environmentId':'env-1','basePath':'/v1'," TO("svc-1") "}");
	put_policy("policy-1", "RateLimit", LIMIT("5"));
	put_policy("policy-2", "RateLimit", LIMIT("9"));
	attach("pr-1", "policy-1", "Api", "api-1");
	assert_int_equal(route_of("x", "/v1/a")->policies->legs[LEG_REQUEST].n, 1);
	put(RESOURCE_OPERATION, "op-1",
	    "{'name':'a','httpApiId':'api-1','method':'GET','path':'/"
	    "a','gatewayId':'gw-1','environmentId':'env-1'}");
	put(RESOURCE_OPERATION, "op-2",
	    "{'name':'b','httpApiId':'api-1','method':'GET','path':'/"
	    "b','gatewayId':'gw-1','environmentId':'env-1'}");
	one = step_of("/v1/a")->cell;
	two = step_of("/v1/b")->cell;
	assert_true(one && two && one != two);
	attach("pr-2", "policy-2", "Operation", "op-1");
	p = route_of("x", "/v1/a")->policies;
	assert_int_equal(p->legs[LEG_REQUEST].n, 1);
	assert_string_equal(p->legs[LEG_REQUEST].steps[0].attachment_id.p, "pr-2");
	assert_ptr_equal(step_of("/v1/b")->cell, two);
	put_policy("policy-2", "RateLimit", LIMIT_OFF);                    /* as if absent: the API's acts again */
	assert_string_equal(step_of("/v1/a")->attachment_id.p, "pr-1");
}

static void test_disabled_override_hides(void **state)
{
	const struct policies *p;
	uint64_t bit = UINT64_C(1) << policy_class_index(policy_class_find(STR("Cors")));

	(void)state;
	put_gateway("gw-1", "['*']", "['127.0.0.1']");
	put_route("route-1", PATH("Prefix", "/a"));
	put_policy("policy-1", "Cors", CORS("true"));
	attach("pr-1", "policy-1", "Route", "route-1");
	p = route_of("x", "/a")->policies;
	assert_true(p->hides & bit);
	assert_int_equal(p->legs[LEG_RESPONSE].n, 1);
	put_policy("policy-1", "Cors", CORS("false"));
	p = route_of("x", "/a")->policies;
	assert_true(p->hides & bit);
	assert_int_equal(p->legs[LEG_REQUEST].n + p->legs[LEG_RESPONSE].n, 0);
	assert_int_equal(status_of("pr-1").phase, PHASE_DISABLED);
	drop(RESOURCE_ATTACHMENT, "pr-1");
	assert_ptr_equal(route_of("x", "/a")->policies, &policies_none);
}

static void test_what_cannot_act_says_so(void **state)
{
	(void)state;
	put_gateway("gw-1", "['*']", "['127.0.0.1']");
	put_route("route-1", PATH("Prefix", "/a"));
	put_policy("policy-1", "RateLimit", LIMIT("5"));
	attach("pr-1", "policy-1", "Route", "route-9");
	assert_int_equal(status_of("pr-1").phase, PHASE_DEGRADED);
	assert_non_null(strstr(status_of("pr-1").reason.p, "route-9"));
	assert_int_equal(compile_degraded(node.compiler), 1);
	put_policy("policy-2", "RateLimit", LIMIT("5"));
	attach("pr-2", "policy-2", "Route", "route-7");
	assert_int_equal(status_of("pr-2").phase, PHASE_DEGRADED);
	put_route("route-7", PATH("Prefix", "/seven"));
	assert_int_equal(status_of("pr-2").phase, PHASE_ACTIVE);
	assert_int_equal(compile_degraded(node.compiler), 1);
	attach("pr-3", "policy-2", "Route", "route-7");
	assert_int_equal(status_of("pr-3").phase, PHASE_DEGRADED);
	drop(RESOURCE_ATTACHMENT, "pr-2");
	assert_int_equal(status_of("pr-3").phase, PHASE_ACTIVE);
	drop(RESOURCE_ATTACHMENT, "pr-1");
	drop(RESOURCE_ATTACHMENT, "pr-3");
	assert_int_equal(compile_degraded(node.compiler), 0);
	assert_false(try_put(RESOURCE_POLICY, "policy-2", "{'name':'p','className':'RateLimit','config':'{}'}"));
	assert_non_null(strstr(why.field, "config"));
}

static void test_pinned_view_stays_whole(void **state)
{
	const struct route *old;
	struct view *pinned;

	(void)state;
	put_gateway("gw-1", "['*']", "['127.0.0.1']");
	put_route("route-1", PATH("Prefix", "/a"));
	put_policy("policy-1", "RateLimit", LIMIT("5"));
	attach("pr-1", "policy-1", "Route", "route-1");
	old = route_of("x", "/a");
	pinned = node.views[0];
	pinned->exchanges++;
	drop(RESOURCE_ATTACHMENT, "pr-1");
	drop(RESOURCE_POLICY, "policy-1");
	drop(RESOURCE_ROUTE, "route-1");
	drop(RESOURCE_GATEWAY, "gw-1");
	now();
	assert_string_equal(old->id.p, "route-1");
	assert_string_equal(old->policies->legs[LEG_REQUEST].steps[0].policy_name.p, "policy-1");
	pinned->exchanges--;
	snapshot_unpin(pinned, node.views[0], &node.boxes[0]);
	compile_reap(node.compiler);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_routes_come_and_go),
		TEST(test_a_step_for_the_head_and_one_for_the_body),
		TEST(test_broken_route_changes_nothing),
		TEST(test_more_headers_then_age),
		TEST(test_api_and_operations),
		TEST(test_service_endpoints_keep_their_state),
		TEST(test_service_keeps_its_ring),
		TEST(test_steps_of_every_level),
		TEST(test_cells_survive_what_does_not_concern_them),
		TEST(test_operations_inherit_and_replace),
		TEST(test_disabled_override_hides),
		TEST(test_what_cannot_act_says_so),
		TEST(test_pinned_view_stays_whole),
	};

	return cmocka_run_group_tests(tests, start, NULL);
}
