/*
 * test_rest.c -- the API from inside: every kind of resource is created, read, replaced and deleted by its
 * rules, and what was
 * stored is there after a restart. The HTTP side is the integration tests'.
 */
/* room: control */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sqlite3.h>
#include "control_node.h"
#include "control/operator.h"
#include "pem_samples.h"
#include <cmocka.h>                       /* last: it has a macro of the name fail */

static struct node node;
static struct str gateway, environment, service, route;

static int call(const char *method, const char *path, const char *body, struct json **answer)
{
	return node_call(&node, method, path, body, answer);
}

static const char *text(const char *format, ...) PRINTF(1, 2);

/* In the node's memory. */
static const char *text(const char *format, ...)
{
	char out[8192];
	va_list args;

	va_start(args, format);
	vsnprintf(out, sizeof out, format, args);
	va_end(args);
	return arena_copy(&node.arena, str_of(out)).p;
}

static struct str create(const char *path, const char *id_field, const char *body)
{
	struct json *answer = NULL;
	int status = call("POST", path, body, &answer);

	if (status != 200)
		print_error("POST %s %s: %d %.*s\n", path, body, status,
			STR_FMT(json_text(answer, "errorMessage")));
	assert_int_equal(status, 200);
	assert_true(json_text(answer, id_field).n > 3);
	return json_text(answer, id_field);
}

static const char *message(const struct json *answer)
{
	const char *names[] = { "errorMessage", "errorMsg" };

	for (unsigned i = 0; i < 2; i++)
		if (json_get(answer, names[i]))
			return json_text(answer, names[i]).p;
	return "";
}

/* The message begins with `start`; nothing else of the answer matters here. */
static void refuse(int status, const char *start, const char *method, const char *path, const char *body)
{
	struct json *answer = NULL;
	int got = call(method, path, body, &answer);

	if (got != status || !str_starts(str_of(message(answer)), str_of(start)))
		print_error("%s %s %s: %d %s\n", method, path, body ? body : "", got, message(answer));
	assert_int_equal(got, status);
	assert_true(str_starts(str_of(message(answer)), str_of(start)));
}

static const char *gateway_body(const char *name, const char *hosts, const char *more)
{
	/* A cluster of others: stored, not served, so no port is taken. */
	return text(
		"{'cluster':'elsewhere','gateway':'%s','namespace':'default','elbId':'elb-1','externalPort':{"
		"'number':'8080',"
		"'protocol':'http','hosts':[%s]},'serviceType':'LoadBalancer','externalIPs':['127.0.0.1'],"
		"'maxProtocolVersion':'TLS 1.3','minProtocolVersion':'TLSv1.2'%s}",
		name, hosts, more);
}

#define MESHES "/v2/meshes/default/gateways"

static int setup(void **state)
{
	struct problem why = { 0 };
	struct json *item;

	(void)state;
	node_make_dir(&node);
	if (!node_start(&node, &why))
		print_error("%s\n", why.text);
	assert_non_null(node.control);
	gateway = create(MESHES, "gatewayId", gateway_body("shop", "'*'", ""));
	assert_int_equal(call("GET", MESHES "/shop", NULL, &item), 200);
	environment = json_text(item, "defaultEnvironmentId");
	service = create("/api/v1/services", "serviceId",
		text("{'name':'orders','gatewayId':'%s','addresses':['127.0.0.1:9001']}", gateway.p));
	route = create("/api/v1/routes", "routeId",
		text("{'name':'r','gatewayId':'%s','match':{'path':{'type':'Prefix','value':'/a'}},"
		     "'backend':{'scene':'SingleService','services':[{'serviceId':'%s'}]}}",
			gateway.p, service.p));
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	node_stop(&node);
	node_remove(&node);
	return 0;
}

static void restart(void)
{
	struct problem why = { 0 };

	node_stop(&node);
	if (!node_start(&node, &why))
		print_error("%s\n", why.text);
	assert_non_null(node.control);
}

/* ---------- gateways ---------- */

static void test_gateway_brings_its_environment(void **state)
{
	struct json *item;

	(void)state;
	assert_int_equal(call("GET", text("/api/v1/environments/%s", environment.p), NULL, &item), 200);
	assert_string_equal(json_text(item, "name").p, "default");
	assert_string_equal(json_text(item, "gatewayId").p, gateway.p);
	refuse(409, "environmentId", "DELETE", text("/api/v1/environments/%s", environment.p), NULL);
}

static void test_gateway_spellings(void **state)
{
	struct json *item;

	(void)state;
	assert_int_equal(call("GET", text(MESHES "/%s", gateway.p), NULL, &item), 200);
	assert_string_equal(json_text(item, "minProtocolVersion").p, "TLSV1_2");
	assert_string_equal(json_text(item, "maxProtocolVersion").p, "TLSV1_3");
	assert_string_equal(json_text(json_get(item, "externalPort"), "protocol").p, "HTTP");
	assert_int_equal(
		call("PUT", MESHES "/shop", gateway_body("shop", "'*'", ",'ipv6Enable':true"), &item), 200);
	assert_string_equal(json_text(item, "ipv6Enable").p, "true");
}

static void test_gateway_rules(void **state)
{
	static const char *const names[] = { "Abc", "abc", "abc-", "a_cd", "1abc" };

	(void)state;
	for (unsigned i = 0; i < 5; i++)
		refuse(400, "Invalid parameter: gateway", "POST", MESHES,
			gateway_body(names[i], "'x.example.com'", ""));
	refuse(400, "Invalid parameter: externalPort.hosts", "POST", MESHES, gateway_body("good", "", ""));
	refuse(400, "Invalid parameter: externalPort.hosts[0]", "POST", MESHES, gateway_body("good", "'a b'", ""));
	refuse(400, "Invalid parameter: tlsTerminationEnable", "POST", MESHES,
		gateway_body("good", "'x.com'", ",'tlsTerminationEnable':true"));
	refuse(400, "Invalid parameter: tlsMode", "POST", MESHES,
		gateway_body("good", "'x.com'", ",'tlsMode':'MUTUAL'"));
	refuse(400, "Invalid parameter: oops", "POST", MESHES, gateway_body("Abc", "'x.com'", ",'oops':1"));
	refuse(400, "Invalid parameter: elbId", "POST", MESHES, gateway_body("good", "'x.com'", ",'elbId':'y'"));
	refuse(404, "meshId", "POST", "/v2/meshes/none/gateways", gateway_body("good", "'x.com'", ""));
	refuse(400, "Invalid parameter: body", "POST", MESHES, "[]");
	refuse(400, "Invalid parameter: body", "POST", MESHES, "{");
	refuse(400, "Invalid parameter: gatewayId", "POST", MESHES,
		gateway_body("good", "'x.com'", ",'gatewayId':'gw-1'"));
}

static void test_gateway_conflicts(void **state)
{
	(void)state;
	refuse(409, "gateway:", "POST", MESHES, gateway_body("shop", "'x.com'", ""));
	refuse(409, "externalPort.hosts", "POST", MESHES, gateway_body("other", "'10.0.0.1'", ""));
	create(MESHES, "gatewayId", gateway_body("named", "'a.example.com','*.b.example.com'", ""));
	refuse(409, "externalPort.hosts", "POST", MESHES, gateway_body("other", "'A.example.com'", ""));
	refuse(409, "externalPort.hosts", "POST", MESHES, gateway_body("other", "'x.b.example.com'", ""));
	refuse(409, "externalPort.hosts", "POST", MESHES, gateway_body("other", "'*.example.com'", ""));
	create(MESHES, "gatewayId", gateway_body("other", "'c.example.com'", ""));
}

static const char *https_body(const char *more)
{
	return text(
		"{'cluster':'elsewhere','gateway':'tls1','namespace':'shop','elbId':'elb-2','externalPort':{'"
		"number':'8443',"
		"'protocol':'HTTPS','hosts':['*']},'serviceType':'LoadBalancer','externalIPs':['127.0.0.2'],"
		"'maxProtocolVersion':'TLSV1_3','minProtocolVersion':'TLSV1_2'%s}",
		more);
}

static void test_tls_gateway_needs_a_certificate(void **state)
{
	struct json *item;
	struct sbuf body = { 0 };

	(void)state;
	refuse(400, "Invalid parameter: certList", "POST", MESHES, https_body(""));
	refuse(400, "Invalid parameter: certList[0].secretName", "POST", MESHES,
		https_body(",'certList':[{'secretName':'c1'}]"));
	sbuf_addf(&body, "{'name':'c1','namespace':'shop','certificate':");
	json_quote(&body, str_of(certificate_pem));
	sbuf_addf(&body, ",'privateKey':");
	json_quote(&body, str_of(key_pem));
	sbuf_addf(&body, "}");
	struct str certificate = create("/api/v1/certificates", "certificateId", body.p);

	sbuf_free(&body);
	create(MESHES, "gatewayId", https_body(",'certList':[{'secretName':'c1'}]"));
	assert_int_equal(call("GET", MESHES "/tls1", NULL, &item), 200);
	assert_true(json_is_true(item, "tlsTerminationEnable"));
	assert_int_equal(call("GET", text("/api/v1/certificates/%s", certificate.p), NULL, &item), 200);
	assert_null(json_get(item, "privateKey"));
	refuse(409, "certificateId", "DELETE", text("/api/v1/certificates/%s", certificate.p), NULL);
	refuse(400, "Invalid parameter: tlsTerminationEnable", "PUT", MESHES "/tls1",
		https_body(",'tlsTerminationEnable':false"));
}

static void test_gateway_is_deleted_both_ways(void **state)
{
	(void)state;
	create(MESHES, "gatewayId", gateway_body("one1", "'a.com'", ""));
	refuse(400, "Invalid parameter: Namespace", "POST", MESHES "/one1", "{}");
	refuse(404, "gateway", "POST", MESHES "/one1", "{'Namespace':'other'}");
	assert_int_equal(call("POST", MESHES "/one1", "{'Namespace':'default'}", NULL), 200);
	create(MESHES, "gatewayId", gateway_body("one1", "'a.com'", ""));
	assert_int_equal(call("DELETE", MESHES "/one1?namespace=default", NULL, NULL), 200);
	refuse(404, "gateway", "DELETE", MESHES "/one1", NULL);
	refuse(409, "environmentId", "DELETE", MESHES "/shop", NULL);
}

static void test_features(void **state)
{
	const char *path = text("/api/v1/gateways/%s/gateway-features/xffTrustedNum", gateway.p);
	struct json *item;

	(void)state;
	assert_int_equal(call("GET", path, NULL, &item), 200);
	assert_true(json_is_true(item, "isDefault"));
	assert_int_equal(call("PUT", path, "{'value':3}", &item), 200);
	assert_int_equal(json_get(item, "value")->integer, 3);
	refuse(400, "Invalid parameter: value", "PUT", path, "{'value':11}");
	refuse(400, "Invalid parameter: value", "PUT", path, "{'value':'3'}");
	refuse(400, "Invalid parameter: value", "PUT", path, "{}");
	refuse(404, "name", "PUT", text("/api/v1/gateways/%s/gateway-features/none", gateway.p), "{'value':1}");
	restart();
	assert_int_equal(call("GET", path, NULL, &item), 200);
	assert_int_equal(json_get(item, "value")->integer, 3);
}

/* ---------- services and routes ---------- */

static unsigned count_items(const char *path)
{
	struct json *list;

	assert_int_equal(call("GET", path, NULL, &list), 200);
	return (unsigned)json_get(list, "totalSize")->integer;
}

static void test_service_ports_follow_the_service(void **state)
{
	const char *ports = text("/api/v1/services/%s/ports", service.p);
	struct json *list, *answer;

	(void)state;
	assert_int_equal(call("GET", ports, NULL, &list), 200);
	assert_int_equal(json_get(list, "items")->n, 1);
	assert_int_equal(json_get(json_get(list, "items")->child, "port")->integer, 9001);
	struct str id = create(ports, "servicePortId", "{'name':'more','port':9002}");

	assert_int_equal(count_items(ports), 2);
	refuse(409, "port", "POST", ports, "{'port':9002}");
	refuse(400, "Invalid parameter: port", "POST", ports, "{'port':0}");
	assert_int_equal(call("PUT", text("%s/%s", ports, id.p),
				 "{'name':'renamed','port':9002,'protocol':'HTTPS'}", &answer),
		200);
	assert_string_equal(json_text(answer, "name").p, "renamed");
	assert_string_equal(json_text(answer, "protocol").p, "HTTPS");
	assert_int_equal(call("DELETE", text("%s/%s", ports, id.p), NULL, NULL), 200);
	assert_int_equal(count_items(ports), 1);
	refuse(409, "servicePortId", "DELETE",
		text("%s/%s", ports, json_text(json_get(list, "items")->child, "servicePortId").p), NULL);
}

static void test_port_in_use_stays(void **state)
{
	const char *path = text("/api/v1/services/%s", service.p);

	(void)state;
	create("/api/v1/routes", "routeId",
		text("{'name':'r2','gatewayId':'%s','match':{'path':{'type':'Exact','value':'/b'}},'backend':{'scene':"
		     "'SingleService','services':[{'serviceId':'%s','port':9001}]}}", gateway.p, service.p));
	refuse(409, "ports", "PUT", path, "{'name':'orders','addresses':['127.0.0.1:9002']}");
	assert_int_equal(
		call("PUT", path, "{'name':'orders','addresses':['127.0.0.1:9002','127.0.0.1:9001']}", NULL),
		200);
	assert_int_equal(count_items(text("%s/ports", path)), 2);
}

static void test_service_rules(void **state)
{
	const char *start = text("{'name':'s2','gatewayId':'%s'", gateway.p);
	const char *path = "/api/v1/services";

	(void)state;
	refuse(400, "Invalid parameter: addresses", "POST", path, text("%s}", start));
	refuse(400, "Invalid parameter: addresses[0]", "POST", path, text("%s,'addresses':['127.0.0.1']}", start));
	refuse(400, "Invalid parameter: addresses[1]", "POST", path,
		text("%s,'addresses':['127.0.0.1:1','127.0.0.1:1']}", start));
	refuse(400, "Invalid parameter: addresses[0].wieght", "POST", path,
		text("%s,'addresses':[{'address':'127.0.0.1:1','wieght':1}]}", start));
	refuse(400, "Invalid parameter: addresses[0]", "POST", path,
		text("%s,'addresses':['a.example.com:1']}", start));
	create(path, "serviceId", text("%s,'sourceType':'DNS','addresses':['a.example.com:1']}", start));
	refuse(409, "name", "POST", path, text("%s,'addresses':['127.0.0.1:1']}", start));
	refuse(400, "Invalid parameter: aiServiceConfig", "POST", path,
		text("{'name':'ai','gatewayId':'%s','sourceType':'AI'}", gateway.p));
	refuse(400, "Invalid parameter: gatewayId", "POST", path,
		"{'name':'s3','gatewayId':'gw-none','addresses':['127.0.0.1:1']}");
}

static void test_route_rules(void **state)
{
	const char *start = text("{'name':'r2','gatewayId':'%s','match':{'path':", gateway.p);
	const char *path = "/api/v1/routes";
	struct json *item;

	(void)state;
	refuse(400, "Invalid parameter: match.path.value", "POST", path,
		text("%s{'type':'Exact','value':'a'}}}", start));
	refuse(400, "Invalid parameter: match.path.value", "POST", path,
		text("%s{'type':'Prefix','value':'/a//b'}}}", start));
	refuse(400, "Invalid parameter: match.path.value", "POST", path,
		text("%s{'type':'Regex','value':'('}}}", start));
	refuse(400, "Invalid parameter: match.path.type", "POST", path,
		text("%s{'type':'exact','value':'/a'}}}", start));
	refuse(400, "Invalid parameter: backend.services", "POST", path,
	       text("%s{'type':'Exact','value':'/a'}},'backend':{'scene':'SingleService'}}", start));
	refuse(400, "Invalid parameter: backend.services[0].port", "POST", path,
		text("%s{'type':'Exact','value':'/a'}},'backend':"
		     "{'scene':'SingleService','services':[{'serviceId':'%s','port':1}]}}",
			start, service.p));
	refuse(400, "Invalid parameter: backend.services[0].serviceId", "POST", path,
		text("%s{'type':'Exact','value':'/a'}},'backend':"
		     "{'scene':'SingleService','services':[{'serviceId':'svc-none'}]}}",
			start));
	refuse(409, "name", "POST", path,
		text("{'name':'r','gatewayId':'%s','match':{'path':{'type':'Exact','value':'/a'}}}",
			gateway.p));
	assert_int_equal(call("GET", text("%s/%s", path, route.p), NULL, &item), 200);
	assert_string_equal(json_text(item, "environmentId").p, environment.p);
	refuse(400, "Invalid parameter: gatewayId", "PUT", text("%s/%s", path, route.p),
	       "{'name':'r','gatewayId':'gw-x','match':{'path':{'type':'Prefix','value':'/a'}}}");
	assert_int_equal(call("PUT", text("%s/%s", path, route.p),
				 "{'name':'r','match':{'path':{'type':'Prefix','value':'/b'}}}", &item),
		200);
	assert_string_equal(json_text(item, "gatewayId").p, gateway.p);
	refuse(404, "routeId", "GET", text("%s/route-none", path), NULL);
}

static void test_used_resources_stay(void **state)
{
	struct json *answer;

	(void)state;
	assert_int_equal(call("DELETE", text("/api/v1/services/%s", service.p), NULL, &answer), 409);
	assert_non_null(strstr(message(answer), route.p));
	assert_int_equal(call("DELETE", text("/api/v1/routes/%s", route.p), NULL, NULL), 200);
	assert_int_equal(call("DELETE", text("/api/v1/services/%s", service.p), NULL, NULL), 200);
	assert_int_equal(count_items("/api/v1/services"), 0);
	assert_int_equal(call("DELETE", MESHES "/shop", NULL, NULL), 200);
	assert_int_equal(count_items("/api/v1/environments"), 0);
}

static void test_api_and_operations(void **state)
{
	struct str api = create("/api/v1/http-apis", "httpApiId",
		text("{'name':'a','gatewayId':'%s','basePath':'/v1'}", gateway.p));
	const char *path = text("/api/v1/http-apis/%s/operations", api.p);
	struct json *item;

	(void)state;
	struct str operation = create(path, "operationId", "{'name':'get','method':'GET','path':'/x/{id}'}");

	refuse(409, "path", "POST", path, "{'name':'get2','method':'GET','path':'/x/{other}'}");
	refuse(400, "Invalid parameter: path", "POST", path, "{'name':'get2','method':'GET','path':'/x{id}'}");
	refuse(400, "Invalid parameter: path", "POST", path, "{'name':'get2','method':'GET','path':'/{a}/{a}'}");
	refuse(400, "Invalid parameter: httpApiId", "POST", path,
		"{'httpApiId':'api-x','name':'get2','method':'GET','path':'/y'}");
	refuse(404, "httpApiId", "POST", "/api/v1/http-apis/api-none/operations", "{}");
	assert_int_equal(call("GET", text("%s/%s", path, operation.p), NULL, &item), 200);
	assert_string_equal(json_text(item, "httpApiId").p, api.p);
	assert_int_equal(call("DELETE", text("/api/v1/http-apis/%s", api.p), NULL, NULL), 200);
	refuse(404, "httpApiId", "GET", text("%s/%s", path, operation.p), NULL);
}

/* ---------- policies ---------- */

static struct str make_policy(const char *class, const char *config)
{
	struct sbuf body = { 0 };
	struct sbuf plain = { 0 };

	sbuf_addf(&plain, "%s", config);
	for (size_t i = 0; i < plain.n; i++)
		if (plain.p[i] == '\'')
			plain.p[i] = '"';
	sbuf_addf(&body, "{'name':'p','className':'%s','config':", class);
	json_quote(&body, sbuf_str(&plain));
	sbuf_addf(&body, "}");
	struct str id = create("/api/v2/policies", "policyId", body.p);

	sbuf_free(&body);
	sbuf_free(&plain);
	return id;
}

#define RATE "{'threshold':100,'behaviorType':0,'bodyEncoding':0,'responseStatusCode':429,'enable':true}"
#define DIRECT "{'code':200,'body':'x','enable':true}"

static const char *attachment(const char *type, struct str id, struct str policy)
{
	return text("{'attachResourceId':'%s','attachResourceType':'%s','environmentId':'%s','gatewayId':'%s'"
		    ",'policyId':'%s'}",
		id.p, type, environment.p, gateway.p, policy.p);
}

static void test_policy_rules(void **state)
{
	const char *path = "/api/v2/policies";
	struct json *item;

	(void)state;
	refuse(400, "Invalid parameter: config", "POST", path,
		"{'name':'p','className':'RateLimit','config':{'threshold':100}}");
	refuse(400, "Invalid parameter: config", "POST", path, "{'name':'p','className':'RateLimit','config':'{'}");
	refuse(400, "Invalid parameter: config.enable", "POST", path,
		"{'name':'p','className':'RateLimit','config':'{\\'threshold\\':100,"
		"\\'behaviorType\\':0,\\'bodyEncoding\\':0,\\'responseStatusCode\\':429}'}");
	refuse(400, "Invalid parameter: className", "POST", path, "{'name':'p','className':'Nope','config':3}");
	refuse(400, "Invalid parameter: name", "POST", path, "{'name':' ','className':'Nope','config':3}");
	refuse(400, "Invalid parameter: nmae", "POST", path, "{'nmae':'p','className':'Nope','config':3}");
	struct str policy = make_policy("RateLimit", RATE);

	assert_int_equal(call("GET", text("%s/%s", path, policy.p), NULL, &item), 200);
	assert_string_equal(json_text(item, "className").p, "RateLimit");
	refuse(400, "Invalid parameter: className", "PUT", text("%s/%s", path, policy.p),
		"{'name':'p','className':'Timeout','config':'{}'}");
}

static void test_attachment_rules(void **state)
{
	const char *path = "/api/v1/policy-attachments";
	struct str policy = make_policy("RateLimit", RATE), other = make_policy("RateLimit", RATE);
	struct json *item;

	(void)state;
	refuse(404, "attachResourceId", "POST", path, attachment("Route", STR("route-none"), policy));
	refuse(404, "policyId", "POST", path, attachment("Route", route, STR("policy-none")));
	refuse(400, "Invalid parameter: attachResourceType", "POST", path, attachment("Routes", route, policy));
	refuse(400, "Invalid parameter: environmentId", "POST", path,
		text("{'attachResourceId':'%s','attachResourceType':'Route','gatewayId':'%s',"
		     "'policyId':'%s'}",
			route.p, gateway.p, policy.p));
	refuse(400, "Invalid parameter: gatewayId", "POST", path,
		text("{'attachResourceId':'%s','attachResourceType':'Service','policyId':'%s'}", service.p,
			policy.p));
	struct str pr = create(path, "policyAttachmentId", attachment("GatewayRoute", route, policy));

	refuse(409, "attachResourceId", "POST", path, attachment("Route", route, other));
	assert_int_equal(call("GET", text("%s/%s", path, pr.p), NULL, &item), 200);
	assert_string_equal(json_text(item, "attachResourceType").p, "Route");
	assert_int_equal(json_get(item, "attachResourceIds")->n, 1);
	create(path, "policyAttachmentId", attachment("Gateway", gateway, other));
	refuse(409, "policyId", "DELETE", text("/api/v2/policies/%s", policy.p), NULL);
	assert_int_equal(call("DELETE", text("/api/v1/routes/%s", route.p), NULL, NULL), 200);
	refuse(404, "policyAttachmentId", "GET", text("%s/%s", path, pr.p), NULL);
	assert_int_equal(call("DELETE", text("/api/v2/policies/%s", policy.p), NULL, NULL), 200);
}

static void test_attachment_to_several(void **state)
{
	struct str more = create("/api/v1/routes", "routeId",
		text("{'name':'r2','gatewayId':'%s','match':{'path':{'type':'Exact','value':'/b'}}}",
			gateway.p));
	struct str policy = make_policy("RateLimit", RATE);
	struct str both = arena_printf(&node.arena, "%s , %s", route.p, more.p);
	struct str pr =
		create("/api/v1/policy-attachments", "policyAttachmentId", attachment("Route", both, policy));
	struct json *item;

	(void)state;
	assert_int_equal(call("DELETE", text("/api/v1/routes/%s", route.p), NULL, NULL), 200);
	assert_int_equal(call("GET", text("/api/v1/policy-attachments/%s", pr.p), NULL, &item), 200);
	assert_string_equal(json_text(item, "attachResourceId").p, more.p);
	assert_int_equal(json_get(item, "attachResourceIds")->n, 1);
}

static void test_service_in_an_attached_config_stays(void **state)
{
	struct str copy = create("/api/v1/services", "serviceId",
		text("{'name':'copy','gatewayId':'%s','addresses':['127.0.0.1:9002']}", gateway.p));
	struct str policy = make_policy(
		"FlowCopy", text("{'targetServiceId':'%s','percentage':50,'enable':true}", copy.p));
	const char *path = text("/api/v1/services/%s", copy.p);

	(void)state;
	create("/api/v1/policy-attachments", "policyAttachmentId", attachment("Route", route, policy));
	refuse(409, "serviceId", "DELETE", path, NULL);
	assert_int_equal(call("DELETE", text("/api/v1/routes/%s", route.p), NULL, NULL), 200);
	assert_int_equal(call("DELETE", path, NULL, NULL), 200);
}

/* ---------- secrets ---------- */

static void test_secrets_stay_and_are_never_shown(void **state)
{
	struct json *item, *answer;
	char command[256];

	(void)state;
	assert_int_equal(
		call("POST", "/api/v1/consumers",
			"{'name':'c','identities':{'apiKey':{'credentials':[{'apikey':'very-secret-key'},"
			"{'generateMode':'System'}]},'basic':{'username':'u','password':'pass-word-1'}}}",
			&answer),
		200);
	assert_int_equal(json_get(answer, "apiKeys")->n, 1);
	const char *path = text("/api/v1/consumers/%s", json_text(answer, "consumerId").p);

	assert_int_equal(call("GET", path, NULL, &item), 200);
	struct sbuf shown = { 0 };

	json_write(&shown, item);
	assert_null(strstr(shown.p, "very-secret-key"));
	assert_null(strstr(shown.p, "pass-word-1"));
	/* What was read can be put back; the secrets are still there. */
	for (size_t i = 0; i < shown.n; i++)
		if (shown.p[i] == '"')
			shown.p[i] = '\'';
	assert_int_equal(call("PUT", path, shown.p, NULL), 200);
	sbuf_free(&shown);
	refuse(409, "identities.apiKey.credentials[0].apikey", "POST", "/api/v1/consumers",
	       "{'name':'d','identities':{'apiKey':{'credentials':[{'apikey':'very-secret-key'}]}}}");
	refuse(400, "Invalid parameter: identities.apiKey.credentials[0].apikey", "POST", "/api/v1/consumers",
	       "{'name':'d','identities':{'apiKey':{'credentials':[{'apikey':'short'}]}}}");
	refuse(400, "Invalid parameter: identities.basic.password", "POST", "/api/v1/consumers",
	       "{'name':'d','identities':{'basic':{'username':'v','password':'******'}}}");
	restart();
	refuse(409, "identities.basic.username", "POST", "/api/v1/consumers",
		"{'name':'d','identities':{'basic':{'username':'u','password':'x'}}}");
	refuse(409, "identities.apiKey.credentials[0].apikey", "POST", "/api/v1/consumers",
	       "{'name':'d','identities':{'apiKey':{'credentials':[{'apikey':'very-secret-key'}]}}}");
	snprintf(command, sizeof command, "! grep -aq -e very-secret-key -e pass-word-1 %s/*", node.dir);
	assert_int_equal(system(command), 0);
}

/* The template with its two "%s" filled in. */
static const char *fill(struct str template, const char *first, const char *second)
{
	struct sbuf out = { 0 };
	struct str part, rest = template;
	const char *values[] = { first, second };
	unsigned n = 0;

	for (bool begin = true; str_split(&rest, '%', &part); begin = false) {
		if (!begin)
			sbuf_addf(&out, "%s", values[n++]);
		sbuf_add(&out, begin ? part : (struct str){ part.p + 1, part.n - 1 });
	}
	const char *filled = arena_copy(&node.arena, sbuf_str(&out)).p;

	sbuf_free(&out);
	return filled;
}

static void test_secrets_in_a_config(void **state)
{
	struct str policy = make_policy("OIDCAuth",
		"{'issuer':'https://id.example.com','clientId':'c','clientSecret':'oidc-secret-1','redirectUri':"
		"'https://a.example.com/cb','scopes':['openid'],'enable':true}");
	const char *path = text("/api/v2/policies/%s", policy.p);
	struct str without =
		STR("{'name':'p','className':'OIDCAuth','config':'{\\'issuer\\':\\'https://id.example.com\\',"
		    "\\'clientId\\':\\'%s\\',%s\\'redirectUri\\':\\'https://a.example.com/"
		    "cb\\',\\'scopes\\':[\\'openid\\'],"
		    "\\'enable\\':true}'}");
	char command[256];
	struct json *item;

	(void)state;
	assert_int_equal(call("GET", path, NULL, &item), 200);
	assert_null(strstr(json_text(item, "config").p, "clientSecret"));
	refuse(400, "Invalid parameter: config.clientSecret", "POST", "/api/v2/policies", fill(without, "c", ""));
	assert_int_equal(call("PUT", path, fill(without, "d", ""), &item), 200);
	assert_non_null(strstr(json_text(item, "config").p, "\"d\""));
	refuse(400, "Invalid parameter: config.clientSecret", "PUT", path,
		fill(without, "d", "\\'clientSecret\\':\\'******\\',"));
	restart();
	assert_int_equal(call("PUT", path, fill(without, "e", ""), &item), 200);
	snprintf(command, sizeof command, "! grep -aq oidc-secret-1 %s/*", node.dir);
	assert_int_equal(system(command), 0);
}

/* ---------- the store ---------- */

static void test_store_that_fails_changes_nothing(void **state)
{
	char path[128];
	sqlite3 *db;
	struct json *item;

	(void)state;
	snprintf(path, sizeof path, "%s/sluice.db", node.dir);
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
	refuse(503, "the store", "POST", "/api/v1/consumers", "{'name':'c'}");
	refuse(500, "the store", "POST", MESHES, gateway_body("more", "'a.com'", ""));
	refuse(503, "the store", "DELETE", text("/api/v1/routes/%s", route.p), NULL);
	assert_int_equal(count_items("/api/v1/consumers"), 0);
	assert_int_equal(count_items(MESHES), 1);
	assert_int_equal(call("GET", text("/api/v1/routes/%s", route.p), NULL, &item), 200);
	assert_int_equal(sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL), SQLITE_OK);
	sqlite3_close(db);
	create("/api/v1/consumers", "consumerId", "{'name':'c'}");
	assert_int_equal(call("DELETE", text("/api/v1/routes/%s", route.p), NULL, NULL), 200);
}

static void test_wrong_key_is_noticed(void **state)
{
	struct problem why = { 0 };
	char command[128];

	(void)state;
	node_stop(&node);
	snprintf(command, sizeof command, "rm %s/secret.key", node.dir);
	assert_int_equal(system(command), 0);
	assert_false(node_start(&node, &why));
	assert_non_null(strstr(why.text, "secret.key"));
}

/* ---------- the API ---------- */

static void test_paging_and_filters(void **state)
{
	struct json *list;

	(void)state;
	for (unsigned i = 0; i < 25; i++)
		create("/api/v1/consumers", "consumerId", text("{'name':'c%u'}", i));
	assert_int_equal(call("GET", "/api/v1/consumers?pageNumber=3", NULL, &list), 200);
	assert_int_equal(json_get(list, "items")->n, 5);
	assert_int_equal(json_get(list, "totalSize")->integer, 25);
	assert_string_equal(json_text(json_get(list, "items")->child, "name").p, "c20");
	assert_int_equal(call("GET", "/api/v1/consumers?name=c7&enable=true", NULL, &list), 200);
	assert_int_equal(json_get(list, "totalSize")->integer, 1);
	refuse(400, "Invalid parameter: pageSize", "GET", "/api/v1/consumers?pageSize=101", NULL);
	refuse(400, "Invalid parameter: pageNumber", "GET", "/api/v1/consumers?pageNumber=0", NULL);
	refuse(400, "Invalid parameter: nme", "GET", "/api/v1/consumers?nme=c7", NULL);
}

static void test_rehearsal_changes_nothing(void **state)
{
	struct json *item;

	(void)state;
	assert_int_equal(call("POST", "/api/v1/consumers?dryRun=true", "{'name':'c'}", NULL), 200);
	assert_int_equal(count_items("/api/v1/consumers"), 0);
	assert_int_equal(call("DELETE", text("/api/v1/routes/%s?dryRun=true", route.p), NULL, NULL), 200);
	assert_int_equal(call("PUT", text("/api/v1/routes/%s?dryRun=true", route.p),
	                      "{'name':'r9','match':{'path':{'type':'Prefix','value':'/b'}}}", NULL), 200);
	assert_int_equal(call("GET", text("/api/v1/routes/%s", route.p), NULL, &item), 200);
	assert_string_equal(json_text(item, "name").p, "r");
	refuse(400, "Invalid parameter: dryRun", "POST", "/api/v1/consumers?dryRun=yes", "{'name':'c'}");
	refuse(400, "Invalid parameter: dryrun", "POST", "/api/v1/consumers?dryrun=true", "{'name':'c'}");
}

static void test_methods_and_paths(void **state)
{
	(void)state;
	refuse(405, "this path takes GET, HEAD, POST", "PUT", "/api/v1/routes", "{}");
	refuse(405, "this path takes GET, HEAD, DELETE", "PUT", "/api/v1/policy-attachments/pr-1", "{}");
	refuse(404, "no such path", "GET", "/api/v1/nothing", NULL);
}

static void test_everything_is_there_after_a_restart(void **state)
{
	struct json *before, *after;
	const char *path = text("/api/v1/routes/%s", route.p);

	(void)state;
	assert_int_equal(call("GET", path, NULL, &before), 200);
	restart();
	assert_int_equal(call("GET", path, NULL, &after), 200);
	assert_true(json_equal(before, after));
	assert_int_equal(count_items("/v2/meshes"), 1);
}

static void test_actions_of_tokens(void **state)
{
	(void)state;
	assert_true(operator_action_fits(STR("*"), STR("apig:GetRoute")));
	assert_true(operator_action_fits(STR("apig:*"), STR("apig:GetRoute")));
	assert_true(operator_action_fits(STR("apig:Get*"), STR("apig:GetRoute")));
	assert_true(operator_action_fits(STR("*Route"), STR("apig:GetRoute")));
	assert_true(operator_action_fits(STR("a*:*R*e"), STR("apig:GetRoute")));
	assert_false(operator_action_fits(STR("apig:Get"), STR("apig:GetRoute")));
	assert_false(operator_action_fits(STR("apig:List*"), STR("apig:GetRoute")));
	assert_false(operator_action_fits(STR("asm:*"), STR("apig:GetRoute")));
	assert_false(operator_action_fits(STR(""), STR("apig:GetRoute")));
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_gateway_brings_its_environment),
		TEST(test_gateway_spellings),
		TEST(test_gateway_rules),
		TEST(test_gateway_conflicts),
		TEST(test_tls_gateway_needs_a_certificate),
		TEST(test_gateway_is_deleted_both_ways),
		TEST(test_features),
		TEST(test_service_ports_follow_the_service),
		TEST(test_port_in_use_stays), TEST(test_service_rules),
		TEST(test_route_rules),
		TEST(test_used_resources_stay),
		TEST(test_api_and_operations),
		TEST(test_policy_rules),
		TEST(test_attachment_rules),
		TEST(test_attachment_to_several),
		TEST(test_service_in_an_attached_config_stays),
		TEST(test_secrets_stay_and_are_never_shown),
		TEST(test_secrets_in_a_config), TEST(test_store_that_fails_changes_nothing),
		TEST(test_wrong_key_is_noticed),
		TEST(test_paging_and_filters),
		TEST(test_rehearsal_changes_nothing),
		TEST(test_methods_and_paths),
		TEST(test_everything_is_there_after_a_restart),
		TEST(test_actions_of_tokens),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
