/* test_compile_gateway.c -- addresses, hosts and sockets of gateways. room: control */
#include "compile_node.h"

static void test_gateway_listens_and_leaves(void **state)
{
	const struct binding *b;
	struct status status;
	struct addr addr;

	(void)state;
	put_gateway("gw-1", "['*']", "['127.0.0.1']");
	b = binding_at("127.0.0.1:PORT");
	assert_non_null(b);
	assert_non_null(b->any);
	assert_string_equal(b->only->name.p, "gw-1");
	assert_int_equal(node.opened, 1);
	status = compile_gateway_status(node.compiler, STR("gw-1"));
	assert_int_equal(status.phase, PHASE_RUNNING);
	assert_int_equal(status.n_addresses, 1);
	assert_string_equal(status.addresses[0].p, expand("127.0.0.1:PORT"));
	assert_true(addr_parse(status.addresses[0], &addr));
	assert_false(listener_probe(&addr, &why));
	drop(RESOURCE_GATEWAY, "gw-1");
	assert_null(binding_at("127.0.0.1:PORT"));
	assert_int_equal(node.closed, 1);
	assert_true(listener_probe(&addr, &why));
}

static void test_port_in_use_is_refused(void **state)
{
	struct addr addr;
	int fd;

	(void)state;
	assert_true(addr_parse(str_of(expand("127.0.0.1:PORT")), &addr));
	fd = listener_open(&addr, false, &why);
	assert_true(fd >= 0);
	struct resource *r = make(RESOURCE_GATEWAY, "gw-1", gateway("gw-1", "['*']", "['127.0.0.1']"));

	resource_hold(r);
	assert_false(apply(NULL, r));
	assert_int_equal(why.kind, PROBLEM_INTERNAL);
	assert_string_equal(why.field, "externalPort.number");
	assert_non_null(strstr(why.text, node.port));
	assert_int_equal(node.opened, 0);
	compiler_set_lenient(node.compiler, true);
	assert_true(apply(NULL, r));
	assert_int_equal(compile_gateway_status(node.compiler, STR("gw-1")).phase, PHASE_FAILED);
	assert_null(binding_at("127.0.0.1:PORT"));
	close(fd);
	compiler_set_lenient(node.compiler, false);
	put_gateway("gw-1", "['*']", "['127.0.0.1']");
	assert_non_null(binding_at("127.0.0.1:PORT"));
}

static void test_undone_gateway_leaves_no_socket(void **state)
{
	struct addr addr;

	(void)state;
	put_gateway("gw-1", "['*']", "['127.0.0.1']");
	drop(RESOURCE_GATEWAY, "gw-1");
	assert_true(addr_parse(str_of(expand("127.0.0.1:PORT")), &addr));
	assert_true(listener_probe(&addr, &why));
	now();
	assert_int_equal(node.opened, 0);
	/* A deletion that is undone before anybody saw it. */
	put_gateway("gw-1", "['*']", "['127.0.0.1']");
	now();
	drop(RESOURCE_GATEWAY, "gw-1");
	put_gateway("gw-1", "['*']", "['127.0.0.1']");
	assert_non_null(site_of("x"));
	assert_int_equal(node.opened, 1);
	assert_int_equal(node.closed, 0);
}

static void test_gateways_share_an_address_by_host(void **state)
{
	(void)state;
	put_gateway("gw-1", "['a.test','*.a.test']", "['127.0.0.1']");
	put_gateway("gw-2", "['B.test']", "['127.0.0.1']");
	put_gateway("gw-3", "['10.0.0.1']", "['127.0.0.1']");
	assert_string_equal(site_of("a.test")->gateway->id.p, "gw-1");
	assert_string_equal(site_of("x.a.test")->gateway->id.p, "gw-1");
	assert_string_equal(site_of("b.test")->gateway->id.p, "gw-2");
	assert_string_equal(site_of("c.test")->gateway->id.p, "gw-3");
	assert_null(binding_at("127.0.0.1:PORT")->only);
	assert_int_equal(node.opened, 1);
	assert_false(try_put(RESOURCE_DOMAIN, "dom-1", "{'name':'b.test','gatewayId':'gw-1'}"));
	assert_int_equal(why.kind, PROBLEM_CONFLICT);
	assert_false(try_put(RESOURCE_GATEWAY, "gw-2", gateway("gw-2", "['a.test']", "['127.0.0.1']")));
	assert_int_equal(why.kind, PROBLEM_CONFLICT);
	assert_string_equal(why.field, "externalPort.hosts");
	assert_string_equal(site_of("b.test")->gateway->id.p, "gw-2");
	drop(RESOURCE_GATEWAY, "gw-2");
	put(RESOURCE_DOMAIN, "dom-1", "{'name':'b.test','gatewayId':'gw-1'}");
	assert_string_equal(site_of("b.test")->gateway->id.p, "gw-1");
	drop(RESOURCE_GATEWAY, "gw-3");
	assert_null(site_of("c.test"));
	assert_string_equal(binding_at("127.0.0.1:PORT")->only->id.p, "gw-1");
}

static void test_wildcard_and_specific_address(void **state)
{
	(void)state;
	put_gateway("gw-1", "['a.test']", "['127.0.0.1']");
	now();
	put_gateway("gw-2", "['b.test']", "['203.0.113.7']");
	assert_non_null(binding_at("0.0.0.0:PORT"));
	assert_string_equal(router_site(binding_at("0.0.0.0:PORT"), STR("b.test"))->gateway->id.p, "gw-2");
	struct status status = compile_gateway_status(node.compiler, STR("gw-2"));

	assert_int_equal(status.phase, PHASE_RUNNING);
	assert_true(status.reason.n > 0);
	put_gateway("gw-1", "['a.test']", "['127.0.0.2','::1']");
	assert_null(binding_at("127.0.0.1:PORT"));
	assert_non_null(binding_at("127.0.0.2:PORT"));
	assert_non_null(binding_at("[::1]:PORT"));
}

static void test_not_ours(void **state)
{
	(void)state;
	put(RESOURCE_GATEWAY, "gw-1",
	    arena_printf(&node.arena, GATEWAY("gw-1", "other", "HTTP"), "['*']", "['127.0.0.1']").p);
	put(RESOURCE_GATEWAY, "gw-2",
	    arena_printf(&node.arena, GATEWAY("gw-2", "local", "HTTPS"), "['*']", "['127.0.0.1']").p);
	now();
	assert_int_equal(node.opened, 0);
	assert_int_equal(compile_gateway_status(node.compiler, STR("gw-1")).phase, PHASE_PENDING);
	assert_int_equal(compile_gateway_status(node.compiler, STR("gw-2")).phase, PHASE_FAILED);
	assert_string_equal(compile_gateway_status(node.compiler, STR("gw-2")).reason.p,
			    "no certificate of certList can be shown");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_gateway_listens_and_leaves),
		TEST(test_port_in_use_is_refused),
		TEST(test_undone_gateway_leaves_no_socket),
		TEST(test_gateways_share_an_address_by_host),
		TEST(test_wildcard_and_specific_address),
		TEST(test_not_ours),
	};

	return cmocka_run_group_tests(tests, start, NULL);
}
