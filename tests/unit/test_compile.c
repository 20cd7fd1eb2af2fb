/* test_compile.c -- changes of resources show in the snapshots workers adopt, and nothing else does. room: control */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#undef fail
#include <unistd.h>
#include "control/compile.h"
#include "control/document.h"
#include "control/resource.h"
#include "core/clock.h"
#include "core/mem.h"
#include "net/listener.h"
#include "proxy/router.h"

enum { WORKERS = 2, FDS = 32 };

/* One node: its model, its compiler, and workers that adopt as soon as they are woken. */
static struct node {
	struct model *model;
	struct compiler *compiler;
	struct mailbox boxes[WORKERS];
	struct view *views[WORKERS];
	int fds[FDS];                                      /* of worker 0 */
	struct str keys[FDS];
	unsigned n_fds, opened, closed, retired;
	struct arena arena;
	char port[8];
} node;

static struct problem why;

/* ---------- workers ---------- */

static void take_listeners(void *arg, const struct snapshot *s)
{
	const unsigned worker = *(const unsigned *)arg;

	for (unsigned i = 0; i < s->n_listeners; i++) {
		if (worker != 0) {
			close(s->listeners[i].fds[worker]);
			continue;
		}
		assert_true(node.n_fds < FDS);
		node.keys[node.n_fds] = arena_copy(&node.arena, s->listeners[i].key);
		node.fds[node.n_fds++] = s->listeners[i].fds[0];
		node.opened++;
	}
	for (unsigned i = 0; worker == 0 && i < s->n_closed; i++)
		for (unsigned at = 0; at < node.n_fds; at++)
			if (str_equal(node.keys[at], s->closed[i]) && node.fds[at] >= 0) {
				close(node.fds[at]);
				node.fds[at] = -1;
				node.closed++;
			}
	if (worker == 0)
		node.retired += s->n_retired;
	for (unsigned i = 0; i < s->n_retired; i++)
		assert_true(s->retired[i]->retired);
}

static void adopt(void *arg, unsigned worker)
{
	(void)arg;
	node.views[worker] = snapshot_adopt(node.views[worker], &node.boxes[worker], take_listeners, &worker);
}

static void pick_port(void)
{
	struct addr any;
	int fd;

	assert_true(addr_parse(STR("127.0.0.1:0"), &any));
	fd = listener_open(&any, false, &why);
	assert_true(fd >= 0);
	any = addr_of_socket(fd);
	close(fd);
	snprintf(node.port, sizeof(node.port), "%u", addr_port(&any));
}

static int setup(void **state)
{
	static struct mailbox empty;

	(void)state;
	node = (struct node){ .model = model_new() };
	for (unsigned i = 0; i < WORKERS; i++)
		node.boxes[i] = empty;
	node.compiler = compiler_new(node.model, &(struct compiler_settings){
		.cluster = STR("local"), .workers = WORKERS, .mailboxes = node.boxes, .wake_worker = adopt });
	pick_port();
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	for (unsigned i = 0; i < WORKERS; i++)
		if (node.views[i])
			snapshot_unpin(node.views[i], NULL, &node.boxes[i]);
	for (unsigned i = 0; i < node.n_fds; i++)
		if (node.fds[i] >= 0)
			close(node.fds[i]);
	compiler_free(node.compiler);
	model_free(node.model);
	arena_free(&node.arena);
	return 0;
}

/* ---------- changes ---------- */

static const char *expand(const char *text)
{
	struct sbuf out = { 0 };
	const char *hole;
	struct str copy;

	while ((hole = strstr(text, "PORT"))) {
		sbuf_add(&out, (struct str){ text, (size_t)(hole - text) });
		sbuf_add(&out, str_of(node.port));
		text = hole + 4;
	}
	sbuf_add(&out, str_of(text));
	copy = arena_copy(&node.arena, sbuf_str(&out));
	sbuf_free(&out);
	return copy.p;
}

static struct resource *make(enum resource_kind kind, const char *id, const char *text)
{
	const struct resource_class *class = resource_classes[kind];
	struct resource *before = model_get(node.model, kind, str_of(id)), *r = resource_new(kind, str_of(id));
	struct json *json;

	for (char *p = (char *)(uintptr_t)(text = expand(text)); *p; p++)
		if (*p == '\'')
			*p = '"';
	json = json_parse(&r->arena, str_of(text), &why);
	if (!json)
		print_error("%s: %s\n", text, why.text);
	assert_non_null(json);
	r->doc = document_complete(class->fields, json, &r->arena);
	r->name = json_text(r->doc, resource_name_field(class));
	r->age = before ? before->age : model_new_age(node.model);
	r->version = before ? before->version + 1 : 1;
	return r;
}

static bool apply(struct resource *before, struct resource *after)
{
	struct change change = { .before = before, .after = after };
	bool ok;

	resource_hold(before);
	model_apply(node.model, &change);
	ok = compile_change(node.compiler, &change, &why);
	if (!ok)
		model_undo(node.model, &change);
	resource_drop(before);
	resource_drop(after);
	return ok;
}

static bool try_put(enum resource_kind kind, const char *id, const char *text)
{
	struct resource *r = make(kind, id, text);

	return apply(model_get(node.model, kind, str_of(id)), r);
}

static void put(enum resource_kind kind, const char *id, const char *text)
{
	bool ok = try_put(kind, id, text);

	if (!ok)
		print_error("%s: %s: %s\n", id, why.field, why.text);
	assert_true(ok);
}

static void drop(enum resource_kind kind, const char *id)
{
	struct resource *r = model_get(node.model, kind, str_of(id));

	assert_non_null(r);
	assert_true(apply(r, NULL));
}

#define GATEWAY(id, cluster, protocol)                                                                       \
	"{'meshId':'default','cluster':'" cluster "','gateway':'" id "','namespace':'default',"              \
	"'elbId':'e','externalPort':{'number':'PORT','protocol':'" protocol                                  \
	"','hosts':%s},'serviceType':'LoadBalancer',"                                                        \
	"'externalIPs':%s,'maxProtocolVersion':'TLSV1_3','minProtocolVersion':'TLSV1_2','ipv6Enable':'true'" \
	"}"

static const char *gateway(const char *id, const char *hosts, const char *ips)
{
	return arena_printf(&node.arena, GATEWAY("%s", "local", "HTTP"), id, hosts, ips).p;
}

static void put_gateway(const char *id, const char *hosts, const char *ips)
{
	put(RESOURCE_GATEWAY, id, gateway(id, hosts, ips));
}

static void put_route(const char *id, const char *more)
{
	put(RESOURCE_ROUTE, id,
	    arena_printf(&node.arena, "{'name':'%s','gatewayId':'gw-1','environmentId':'env-1',%s}", id, more)
		    .p);
}

static void put_policy(const char *id, const char *class, const char *config)
{
	put(RESOURCE_POLICY, id,
	    arena_printf(&node.arena, "{'name':'%s','className':'%s','config':\"%s\"}", id, class, config).p);
}

static void attach(const char *id, const char *policy, const char *type, const char *resource)
{
	put(RESOURCE_ATTACHMENT, id,
	    arena_printf(&node.arena,
			 "{'policyId':'%s','attachResourceType':'%s','attachResourceIds':['%s'],"
			 "'environmentId':'env-1','gatewayId':'gw-1'}",
			 policy, type, resource)
		    .p);
}

#define LIMIT(n) "{\\\"enable\\\":true,\\\"threshold\\\":" n ",\\\"behaviorType\\\":0,\\\"bodyEncoding\\\":0," \
	"\\\"responseStatusCode\\\":429}"
#define LIMIT_OFF "{\\\"enable\\\":false,\\\"threshold\\\":1,\\\"behaviorType\\\":0,\\\"bodyEncoding\\\":0," \
	"\\\"responseStatusCode\\\":429}"
#define CORS(enable)                                                                                         \
	"{\\\"enable\\\":" enable ",\\\"allowOrigins\\\":\\\"*\\\",\\\"allowMethods\\\":[\\\"GET\\\"],"      \
	"\\\"allowHeaders\\\":\\\"*\\\",\\\"exposeHeaders\\\":\\\"*\\\",\\\"allowCredentials\\\":false,"     \
	"\\\"timeUnit\\\":\\\"s\\\",\\\"unitNum\\\":1}"

/* ---------- what workers see ---------- */

static const struct snapshot *now(void)
{
	compile_publish(node.compiler);
	assert_non_null(node.views[0]);
	assert_ptr_equal(node.views[0]->snapshot, node.views[1]->snapshot);
	return node.views[0]->snapshot;
}

static const struct binding *binding_at(const char *address)
{
	const char *key = expand(address);
	struct part *p = pmap_get(now()->bindings, str_of(key));

	return p ? CONTAINER(p, struct binding, part) : NULL;
}

static const struct site *site_of(const char *host)
{
	const struct binding *b = binding_at("127.0.0.1:PORT");

	return b ? router_site(b, str_of(host)) : NULL;
}

static const struct route *route_of(const char *host, const char *path)
{
	const struct site *site = site_of(host);
	struct message req = {
		.arena = &node.arena, .method = METHOD_GET, .method_name = STR("GET"), .path = str_of(path)
	};

	return site ? router_match(now(), site, &req, (struct str){ NULL, 0 }) : NULL;
}

static const char *id_of(const char *host, const char *path)
{
	const struct route *r = route_of(host, path);

	return r ? r->id.p : "";
}

static const struct service *service_of(const char *id)
{
	struct part *p = pmap_get(now()->services, str_of(id));

	return p ? CONTAINER(p, struct service, part) : NULL;
}

static struct status status_of(const char *attachment)
{
	return compile_attachment_status(node.compiler, str_of(attachment));
}

/* ---------- tests ---------- */

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
	    arena_printf(&node.arena, GATEWAY("gw-2", "local", "TCP"), "['*']", "['127.0.0.1']").p);
	now();
	assert_int_equal(node.opened, 0);
	assert_int_equal(compile_gateway_status(node.compiler, STR("gw-1")).phase, PHASE_PENDING);
	assert_int_equal(compile_gateway_status(node.compiler, STR("gw-2")).phase, PHASE_FAILED);
	assert_string_equal(compile_gateway_status(node.compiler, STR("gw-2")).reason.p,
			    "protocol not served by this build");
}

#define PATH(type, value) "'match':{'path':{'type':'" type "','value':'" value "'}}"
#define TO(service) "'backend':{'scene':'SingleService','services':[{'serviceId':'" service "'}]}"

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
	atomic_uint *turn;

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
	turn = s->turn;
	put(RESOURCE_SERVICE, "svc-1",
	    "{'name':'s','gatewayId':'gw-1','sourceType':'VIP','addresses':['10.0.0.9:1','10.0.0.1:9001']}");
	s = service_of("svc-1");
	assert_ptr_equal(s->endpoints[1].cell, cell);
	assert_ptr_equal(s->turn, turn);
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

static const struct step *step_of(const char *path)
{
	return &route_of("x", path)->policies->legs[LEG_REQUEST].steps[0];
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
	put_policy("policy-1", "FlowCopy",
		   "{\\\"enable\\\":true,\\\"targetServiceId\\\":\\\"svc-9\\\",\\\"percentage\\\":5,"
		   "\\\"port\\\":80}");
	attach("pr-1", "policy-1", "Route", "route-1");
	assert_int_equal(status_of("pr-1").phase, PHASE_DEGRADED);
	assert_string_equal(status_of("pr-1").reason.p, "not enforced by this build");
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

/* 10,000 routes load at once, and a change of one policy costs what it changes. */
static void test_cost_of_changes(void **state)
{
	enum { ROUTES = 10000, CHANGES = 50 };
	int64_t begin, load, each;

	(void)state;
	put_gateway("gw-1", "['*']", "['127.0.0.1']");
	put_policy("policy-1", "RateLimit", LIMIT("5"));
	begin = clock_now_us();
	for (unsigned i = 0; i < ROUTES; i++) {
		char id[16], body[64];

		snprintf(id, sizeof(id), "route-%u", i);
		snprintf(body, sizeof(body), PATH("Prefix", "/team/%u/x"), i);
		apply(NULL, make(RESOURCE_ROUTE, id,
				 arena_printf(&node.arena,
					      "{'name':'%s','gatewayId':'gw-1','environmentId':'env-1',%s}",
					      id, body)
					 .p));
	}
	print_message("taking %d routes: %lld us\n", ROUTES, (long long)(clock_now_us() - begin));
	begin = clock_now_us();
	now();
	load = clock_now_us() - begin;
	assert_string_equal(id_of("x", "/team/777/x/y"), "route-777");
	attach("pr-1", "policy-1", "Route", "route-777");
	begin = clock_now_us();
	for (unsigned i = 0; i < CHANGES; i++) {
		put_policy("policy-1", "RateLimit", i % 2 ? LIMIT("5") : LIMIT("6"));
		now();
	}
	each = (clock_now_us() - begin) / CHANGES;
	print_message("settling %d routes: %lld us; one policy change: %lld us\n", ROUTES, (long long)load,
		      (long long)each);
	assert_true(each < load / 10);
}

static int start(void **state)
{
	(void)state;
	metric_start(1);
	metric_thread(0);
	return 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_gateway_listens_and_leaves),
		TEST(test_port_in_use_is_refused),
		TEST(test_undone_gateway_leaves_no_socket),
		TEST(test_gateways_share_an_address_by_host),
		TEST(test_wildcard_and_specific_address),
		TEST(test_not_ours),
		TEST(test_routes_come_and_go),
		TEST(test_broken_route_changes_nothing),
		TEST(test_more_headers_then_age),
		TEST(test_api_and_operations),
		TEST(test_service_endpoints_keep_their_state),
		TEST(test_steps_of_every_level),
		TEST(test_cells_survive_what_does_not_concern_them),
		TEST(test_operations_inherit_and_replace),
		TEST(test_disabled_override_hides),
		TEST(test_what_cannot_act_says_so),
		TEST(test_pinned_view_stays_whole),
		TEST(test_cost_of_changes),
	};

	return cmocka_run_group_tests(tests, start, NULL);
}
