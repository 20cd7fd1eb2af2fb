/*
 * test_policy_attach.c -- what a config refers to is checked when it is attached: services, ports, versions,
 * certificates, and the resource itself.
 *
 * In the texts ' stands for ".
 */
/* room: policy */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include "proxy/policy.h"
#include <cmocka.h>                       /* last: it has a macro of the name fail */

extern const struct policy_class http_rewrite, redirect, fallback, ip_access_control, flow_copy, service_tls,
	service_port_tls;

/* What there is: kind, id, document. */
static const struct {
	const char *kind, *id, *document;
} resources[] = {
	{ "service", "svc-a",
		"{'serviceId':'svc-a','name':'a','gatewayId':'gw-1','addresses':['127.0.0.1:9001'],"
	  "'ports':[{'name':'http','port':9001,'protocol':'HTTP'}]}" },
	{ "service", "svc-two",
		"{'serviceId':'svc-two','name':'two','gatewayId':'gw-1','ports':[{'port':80,"
		  "'protocol':'HTTP'},"
	  "{'port':443,'protocol':'HTTPS'},{'port':50051,'protocol':'GRPC'}],'versions':[{'name':'v1'},"
	  "{'name':'v2'}]}" },
	{ "service", "svc-mixed", "{'serviceId':'svc-mixed','name':'mixed','gatewayId':'gw-1',"
	  "'addresses':[{'address':'10.0.0.1:81'},'10.0.0.2'],'ports':[{'port':80}]}" },
	{ "service", "svc-grpc", "{'serviceId':'svc-grpc','name':'grpc','gatewayId':'gw-1',"
	  "'ports':[{'port':50051,'protocol':'GRPC'}]}" },
	{ "service", "svc-far",
		"{'serviceId':'svc-far','name':'far','gatewayId':'gw-2','ports':[{'port':80}]}" },
	{ "certificate", "cert-key", "{'certificateId':'cert-key','certificate':'x','privateKey':'******'}" },
	{ "certificate", "cert-ca", "{'certificateId':'cert-ca','caCertificate':'x'}" },
	{ "certificate", "cert-empty", "{'certificateId':'cert-empty'}" },
};

#define ROUTE(type, value) "{'match':{'path':{'type':'" type "','value':'" value "'}}}"
#define BACKEND(services) "{'backend':{'scene':'SingleService','services':[" services "]}}"
#define TO(members) "{'enable':true,'fallBackDestination':[{" members "}]}"
#define COPY(id, port) "{'targetServiceId':'" id "','port':'" port "','enable':true}"
#define REWRITE(type) "{'pathType':'" type "','path':'/x','enable':true}"
#define REDIRECT(host, path) "{'code':'302','host':'" host "','path':'" path "','enable':true}"
#define LIST_OF(type, layer) \
	"{'name':'n','ipAccessControlResourceName':'r','ipAccessControlResourceType':'" type \
	"','ipAccessControlType':'Black','ipAccessControlContent':'1.1.1.1','protocolLayer':'" layer \
	"','enable':true}"
#define TLS(members) "{'mode':'SIMPLE','enable':true," members "}"

static const struct test_case {
	const char *rule;
	const struct policy_class *class;
	enum scope scope;
	const char *resource, *config;
	const char *path;                 /* of the complaint; NULL: accepted */
} cases[] = {
	{ "9 Prefix on a Regex route", &http_rewrite, SCOPE_ROUTE, ROUTE("Regex", "^/a"), REWRITE("Prefix"),
		"pathType" },
	{ "9 Prefix on a Prefix route", &http_rewrite, SCOPE_ROUTE, ROUTE("Prefix", "/a"), REWRITE("Prefix"),
		NULL },
	{ "9 Prefix on an Exact route", &http_rewrite, SCOPE_ROUTE, ROUTE("Exact", "/a"), REWRITE("Prefix"),
		NULL },
	{ "9 Exact on a Regex route", &http_rewrite, SCOPE_ROUTE, ROUTE("Regex", "^/a"), REWRITE("Exact"),
		NULL },
	{ "9 host alone on a Regex route", &http_rewrite, SCOPE_ROUTE, ROUTE("Regex", "^/a"),
	  "{'pathType':'Prefix','host':'h','enable':true}", NULL },

	{ "11 to itself", &redirect, SCOPE_ROUTE, ROUTE("Exact", "/a"), REDIRECT("", "/a"), "path" },
	{ "11 to itself with a query", &redirect, SCOPE_ROUTE, ROUTE("Exact", "/a"), REDIRECT("", "/a?x=1"),
		"path" },
	{ "11 to another path", &redirect, SCOPE_ROUTE, ROUTE("Exact", "/a"), REDIRECT("", "/b"), NULL },
	{ "11 to another host", &redirect, SCOPE_ROUTE, ROUTE("Exact", "/a"), REDIRECT("h", "/a"), NULL },
	{ "11 within a prefix", &redirect, SCOPE_ROUTE, ROUTE("Prefix", "/a"), REDIRECT("", "/a"), NULL },

	{ "13 unknown service", &fallback, SCOPE_ROUTE, BACKEND(""), TO("'serviceId':'nope'"),
	  "fallBackDestination[0].serviceId" },
	{ "13 service of another gateway", &fallback, SCOPE_ROUTE, BACKEND(""), TO("'serviceId':'svc-far'"),
	  "fallBackDestination[0].serviceId" },
	{ "13 the only primary", &fallback, SCOPE_ROUTE, BACKEND("{'serviceId':'svc-a'}"),
		TO("'serviceId':'svc-a'"),
	  "fallBackDestination[0].serviceId" },
	{ "13 one of two primaries", &fallback, SCOPE_ROUTE,
		BACKEND("{'serviceId':'svc-a'},{'serviceId':'svc-two'}"),
	  TO("'serviceId':'svc-a'"), NULL },
	{ "13 another version of the primary", &fallback, SCOPE_ROUTE,
		BACKEND("{'serviceId':'svc-two','version':'v2'}"),
	  TO("'serviceId':'svc-two','serviceVersion':'v1','port':'80'"), NULL },
	{ "13 another port of the primary", &fallback, SCOPE_ROUTE,
		BACKEND("{'serviceId':'svc-two','port':80}"),
	  TO("'serviceId':'svc-two','port':'443'"), NULL },
	{ "13 the service itself", &fallback, SCOPE_SERVICE, "{'name':'a'}",
		TO("'serviceId':'svc-a'"),
	  "fallBackDestination[0].serviceId" },
	{ "13 another service", &fallback, SCOPE_SERVICE, "{'name':'two'}",
		TO("'serviceId':'svc-a'"), NULL },
	{ "13 name that is wrong", &fallback, SCOPE_ROUTE, BACKEND(""),
		TO("'serviceId':'svc-a','serviceName':'b'"),
	  "fallBackDestination[0].serviceName" },
	{ "13 name that is right", &fallback, SCOPE_ROUTE, BACKEND(""),
		TO("'serviceId':'svc-a','serviceName':'a'"), NULL },
	{ "13 unknown version", &fallback, SCOPE_ROUTE, BACKEND(""),
	  TO("'serviceId':'svc-two','serviceVersion':'v3','port':'80'"),
	  "fallBackDestination[0].serviceVersion" },
	{ "13 port left out of several", &fallback, SCOPE_ROUTE, BACKEND(""), TO("'serviceId':'svc-two'"),
	  "fallBackDestination[0].port" },
	{ "13 port it does not have", &fallback, SCOPE_ROUTE, BACKEND(""),
		TO("'serviceId':'svc-a','port':'9002'"),
	  "fallBackDestination[0].port" },
	{ "13 its only port", &fallback, SCOPE_ROUTE, BACKEND(""), TO("'serviceId':'svc-a','port':'9001'"),
		NULL },
	{ "13 port of an address", &fallback, SCOPE_ROUTE, BACKEND(""),
		TO("'serviceId':'svc-mixed','port':'81'"), NULL },
	{ "13 addresses and ports count", &fallback, SCOPE_ROUTE, BACKEND(""), TO("'serviceId':'svc-mixed'"),
	  "fallBackDestination[0].port" },

	{ "15 gateway", &ip_access_control, SCOPE_GATEWAY, "{}", LIST_OF("Gateway", "L7"), NULL },
	{ "15 gateway, other type", &ip_access_control, SCOPE_GATEWAY, "{}", LIST_OF("Route", "L7"),
	  "ipAccessControlResourceType" },
	{ "15 domain", &ip_access_control, SCOPE_DOMAIN, "{}", LIST_OF("Domain", "L4"), NULL },
	{ "15 domain, other type", &ip_access_control, SCOPE_DOMAIN, "{}", LIST_OF("Gateway", "L4"),
	  "ipAccessControlResourceType" },
	{ "15 route", &ip_access_control, SCOPE_ROUTE, "{}", LIST_OF("Route", "L4"), NULL },
	{ "15 API", &ip_access_control, SCOPE_API, "{}", LIST_OF("Route", "L7"), NULL },
	{ "15 operation", &ip_access_control, SCOPE_OPERATION, "{}", LIST_OF("Route", "L7"), NULL },
	{ "15 model API", &ip_access_control, SCOPE_LLM_API, "{}", LIST_OF("Route", "L7"), NULL },
	{ "15 agent API, other type", &ip_access_control, SCOPE_AGENT_API, "{}", LIST_OF("Domain", "L7"),
	  "ipAccessControlResourceType" },

	{ "17 unknown target", &flow_copy, SCOPE_ROUTE, "{}", COPY("nope", ""), "targetServiceId" },
	{ "17 target of another gateway", &flow_copy, SCOPE_ROUTE, "{}", COPY("svc-far", ""),
		"targetServiceId" },
	{ "17 target speaks gRPC", &flow_copy, SCOPE_ROUTE, "{}", COPY("svc-grpc", ""), "targetServiceId" },
	{ "17 port speaks gRPC", &flow_copy, SCOPE_ROUTE, "{}", COPY("svc-two", "50051"), "targetServiceId" },
	{ "17 port speaks HTTPS", &flow_copy, SCOPE_ROUTE, "{}", COPY("svc-two", "443"), NULL },
	{ "17 port left out of several", &flow_copy, SCOPE_ROUTE, "{}", COPY("svc-two", ""), "port" },
	{ "17 the route's own service", &flow_copy, SCOPE_ROUTE, BACKEND("{'serviceId':'svc-a'}"),
		COPY("svc-a", ""), NULL },

	{ "18 ISTIO_MUTUAL without identity", &service_tls, SCOPE_SERVICE, "{}",
		"{'mode':'ISTIO_MUTUAL','enable':true}",
	  "mode" },
	{ "18 DISABLE", &service_port_tls, SCOPE_SERVICE_PORT, "{}", "{'mode':'DISABLE','enable':true}",
		NULL },
	{ "18 SIMPLE alone", &service_tls, SCOPE_SERVICE, "{}", TLS("'sni':'a.com'"), NULL },
	{ "18 PEM without certificate", &service_tls, SCOPE_SERVICE, "{}",
	  TLS("'caCertContent':'-----BEGIN CERTIFICATE-----\\n...\\n-----END CERTIFICATE-----'"),
	  "caCertContent" },
	{ "18 PEM with a private key", &service_tls, SCOPE_SERVICE, "{}",
	  TLS("'caCertContent':'-----BEGIN PRIVATE KEY-----\\nAAAA\\n-----END PRIVATE KEY-----'"),
	  "caCertContent" },
	{ "18 content wins over the id", &service_tls, SCOPE_SERVICE, "{}",
		TLS("'caCertId':'nope','caCertContent':'x'"),
	  "caCertContent" },
	{ "18 unknown CA", &service_tls, SCOPE_SERVICE, "{}", TLS("'caCertId':'nope'"), "caCertId" },
	{ "18 CA", &service_tls, SCOPE_SERVICE, "{}", TLS("'caCertId':'cert-ca'"), NULL },
	{ "18 CA that is empty", &service_tls, SCOPE_SERVICE, "{}", TLS("'caCertId':'cert-empty'"),
		"caCertId" },
	{ "18 MUTUAL, unknown certificate", &service_tls, SCOPE_SERVICE, "{}",
	  "{'mode':'MUTUAL','certId':'nope','enable':true}", "certId" },
	{ "18 MUTUAL, certificate without key", &service_tls, SCOPE_SERVICE, "{}",
	  "{'mode':'MUTUAL','certId':'cert-ca','enable':true}", "certId" },
	{ "18 MUTUAL", &service_port_tls, SCOPE_SERVICE_PORT, "{}",
		"{'mode':'MUTUAL','certId':'cert-key','enable':true}",
	  NULL },
};

static struct json *parse(struct arena *a, const char *text)
{
	struct str copy = arena_copy(a, str_of(text));
	char *out = arena_take(a, copy.n);
	struct problem why;
	struct json *json;

	for (size_t i = 0; i < copy.n; i++)
		out[i] = text[i] == '\'' ? '"' : text[i];
	json = json_parse(a, (struct str){ out, copy.n }, &why);
	if (!json)
		fail_msg("%s: %s", text, why.text);
	return json;
}

static const struct json *find(const struct attach_target *t, const char *kind, struct str id)
{
	for (size_t i = 0; i < sizeof(resources) / sizeof(resources[0]); i++)
		if (strcmp(resources[i].kind, kind) == 0 && str_equal(str_of(resources[i].id), id))
			return parse(t->arg, resources[i].document);
	return NULL;
}

static bool attach(const struct test_case *c, struct arena *a, struct problem *why)
{
	void *conf = arena_alloc(a, c->class->conf_size);
	struct attach_target target = {
		.scope = c->scope,
		.resource = parse(a, c->resource),
		.gateway_id = STR("gw-1"),
		.find = find,
		.arg = a,
	};

	if (!fields_decode(c->class->fields, parse(a, c->config), conf, a, why) ||
	    (c->class->check && !c->class->check(conf, why)))
		fail_msg("%s: %s %s", c->rule, why->field, why->text);
	return c->class->attach(conf, &target, why);
}

static void cases_are_judged(void **state)
{
	unsigned wrong = 0;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const struct test_case *c = &cases[i];
		struct arena a = { 0 };
		struct problem why = { 0 };
		bool accepted = attach(c, &a, &why);

		if (accepted != !c->path || (c->path && strcmp(c->path, why.field) != 0)) {
			print_error("%s: %s: expected %s, got %s: %s\n", c->class->name, c->rule, c->path ?
				c->path : "accepted",
				accepted ? "accepted" : why.field, why.text);
			wrong++;
		}
		arena_free(&a);
	}
	assert_int_equal(wrong, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(cases_are_judged),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
