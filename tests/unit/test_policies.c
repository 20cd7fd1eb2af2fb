/*
 * test_policies.c -- what the configs of the traffic policies may be: the reject lists of the contract, row
 * by row, and the samples of the API reference, which are accepted as printed.
 *
 * A case takes the sample and puts some members into it; null takes one out. In the texts ' stands for " and
 * ` for \".
 */
/* room: policy */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include "proxy/policy.h"
#include <cmocka.h>                       /* last: it has a macro of the name fail */

extern const struct policy_class rate_limit, concurrency_limit, circuit_breaker, timeout, retry,
	http_rewrite, header_modify,
	redirect, direct_response, fallback, dynamic_route, ip_access_control, cors, flow_copy, service_tls,
		service_lb,
	service_port_tls;

struct sample {
	const struct policy_class *class;
	const char *config;
	unsigned scopes;
	bool is_enforced;
};

#define APIS (SCOPE_API | SCOPE_OPERATION)
#define AT_ROUTES (SCOPE_ROUTE | APIS | SCOPE_LLM_API | SCOPE_AGENT_API)
#define AT_EDGES (AT_ROUTES | SCOPE_GATEWAY | SCOPE_DOMAIN)
#define TLS_SAMPLE \
	"{'mode':'SIMPLE','certId':'cert-id-123','caCertId':'ca-cert-id-456'," \
	"'caCertContent':'-----BEGIN CERTIFICATE-----\\n...\\n-----END CERTIFICATE-----'," \
	"'subjectAltNames':['*.example.com'],'sni':'backend-service.example.com','enable':true}"

static const struct sample samples[] = {
	{ &rate_limit, "{'threshold':100,'behaviorType':0,'bodyEncoding':0,'responseStatusCode':429,"
	  "'responseContentBody':'{`error`:`Too Many Requests`}','responseRedirectUrl':'','enable':true}",
	  AT_EDGES | SCOPE_SERVICE, true },
	{ &concurrency_limit,
		"{'maxConcurrency':50,'behaviorType':0,'bodyEncoding':0,'responseStatusCode':503,"
	  "'responseContentBody':'{`error`:`Service Overloaded`}','responseRedirectUrl':'','enable':true}",
	  AT_EDGES, true },
	{ &circuit_breaker,
		"{'strategy':0,'minRequestAmount':10,'maxAllowedMs':5000,'triggerRatio':50,"
		  "'statDurationSec':30,"
	  "'recoveryTimeoutSec':30,'responseStatusCode':503,'bodyEncoding':0,"
	  "'responseContentBody':'{`error`:`Service "
	  "Unavailable`}','responseRedirectUrl':'','behaviorType':0,'enable':true}",
	  AT_ROUTES | SCOPE_SERVICE, true },
	{ &timeout, "{'unitNum':30,'timeUnit':'s','enable':true}", AT_ROUTES | SCOPE_SERVICE, true },
	{ &retry, "{'attempts':3,'retryOn':['5xx','reset','connect-failure'],'httpCodes':['502','503','504'],"
	  "'perTryTimeout':10,'enable':true}", AT_ROUTES | SCOPE_SERVICE, true },
	{ &http_rewrite, "{'pathType':'Exact','path':'/v2/api','pattern':'','substitution':'',"
	  "'host':'new-backend.example.com','enable':true}", SCOPE_ROUTE | APIS, true },
	{ &header_modify, "{'enable':true,'headerOpItems':["
	  "{'directionType':'Request','opType':'Add','key':'X-Custom-Header','value':'custom-value',"
	  "'policyValueGenerateMode':'Custom'},"
	  "{'directionType':'Request','opType':'Update','key':'Authorization','value':'Bearer {{token}}',"
	  "'policyValueGenerateMode':'Custom'},"
	  "{'directionType':'Request','opType':'Remove','key':'X-Debug-Mode','value':'',"
	  "'policyValueGenerateMode':'Custom'}]}", AT_EDGES, true },
	{ &redirect, "{'code':'301','host':'new-domain.com','path':'/new-path','enable':true}",
	  SCOPE_ROUTE | SCOPE_OPERATION, true },
	{ &direct_response, "{'code':'200','body':'{`status`:`ok`,`message`:`Service "
		"Maintenance`}','enable':true}",
	  SCOPE_ROUTE | SCOPE_OPERATION, true },
	{ &fallback, "{'enable':true,'fallBackDestination':[{'serviceId':'backup-service-1',"
	  "'serviceName':'backup-service-name','serviceVersion':'v1','port':'8080'}]}",
	  SCOPE_ROUTE | SCOPE_OPERATION | SCOPE_SERVICE, true },
	{ &dynamic_route, "{'enable':true,'dynamicRouteSwimmingLaneConfigs':[{'swimmingLaneGroupId':1001,"
	  "'swimmingLaneId':2001,'canaryModel':0,'percentage':20,'swimmingLaneTag':'lane-v2',"
	  "'predicates':[{'type':'Header',"
	  "'name':'x-env','condition':'==','value':'test'}],'matchCondition':'And','enable':true}]}",
	  SCOPE_GATEWAY, true },
	{ &ip_access_control, "{'name':'IP Whitelist Policy','description':'Allow access from specific IPs',"
	  "'ipAccessControlResourceName':'api-route-1','ipAccessControlResourceType':'Route',"
	  "'ipAccessControlType':'White',"
	  "'ipAccessControlContent':'192.168.1.0/24,10.0.0.1','protocolLayer':'L7','enable':true}", AT_EDGES,
	  true },
	{ &cors, "{'allowOrigins':'https://example.com,https://app.example.com','allowMethods':['GET',"
	  "'POST','PUT','DELETE'],"
	  "'allowHeaders':'Content-Type,Authorization','exposeHeaders':'X-Custom-Header','timeUnit':'s',"
	  "'unitNum':3600,"
	  "'allowCredentials':true,'enable':true}", AT_EDGES, true },
	{ &flow_copy, "{'targetServiceId':'test-service-id','targetServiceName':'test-service','port':'8080',"
	  "'percentage':10,'enable':true}", AT_ROUTES, true },
	{ &service_tls, TLS_SAMPLE, SCOPE_SERVICE, true },
	{ &service_lb,
		"{'loadBalancerType':'ROUND_ROBIN','consistentHashLBConfig':{'parameterName':'user-id',"
	  "'httpCookie':{'name':'session-id','path':'/','ttl':'3600s'},'minimumRingSize':1024,"
	  "'consistentHashLBType':'HEADER'},'warmupDuration':60,'enable':true}", SCOPE_SERVICE, true },
	{ &service_port_tls, TLS_SAMPLE, SCOPE_SERVICE_PORT, true },
};
#define SAMPLES (sizeof(samples) / sizeof(samples[0]))

struct test_case {
	const char *rule;
	const struct policy_class *class;
	const char *members;
	const char *path;                 /* of the complaint; NULL: accepted */
};

#define OP(members) \
	"{'headerOpItems':[{'directionType':'Request','opType':'Add','key':'X-A','value':'1'," \
	"'policyValueGenerateMode':'Custom'},{" members "}]}"
#define OP_OF(direction, op, key, value, mode) \
	OP("'directionType':'" direction "','opType':'" op "','key':'" key "','value':'" value \
	   "','policyValueGenerateMode':'" mode "'")
#define ADD(key, value) OP_OF("Request", "Add", key, value, "Custom")
#define REFERENCE(direction, value) OP_OF(direction, "Update", "X-R", value, "Reference")
#define REGEX(pattern, by) "{'pathType':'Regex','pattern':'" pattern "','substitution':'" by "'}"
#define TO(members) "{'fallBackDestination':[{'serviceId':'a'},{" members "}]}"
#define LANE(id, model, rest) \
	"{'swimmingLaneGroupId':1,'swimmingLaneId':" id ",'canaryModel':" model \
	",'swimmingLaneTag':'t','matchCondition':'Or','enable':true" rest "}"
#define LANES(lanes) "{'dynamicRouteSwimmingLaneConfigs':[" lanes "]}"
#define PREDICATE(type, name, condition, value) \
	"{'type':'" type "','name':'" name "','condition':'" condition "','value':'" value "'}"
#define MATCH(predicates) LANES(LANE("1", "0", ",'predicates':[" predicates "]"))
#define LANE_PATH "dynamicRouteSwimmingLaneConfigs"
#define HASH(members) "{'loadBalancerType':'CONSISTENT_HASH','consistentHashLBConfig':{" members "}}"
#define COOKIE(members) HASH("'consistentHashLBType':'COOKIE','httpCookie':{" members "}")
#define ISTIO(certificate, ca, pem, names, sni) \
	"{'mode':'ISTIO_MUTUAL','certId':'" certificate "','caCertId':'" ca "','caCertContent':'" pem \
	"','subjectAltNames':[" names "],'sni':'" sni "'}"

static const struct test_case cases[] = {
	{ "C2 enable is required", &rate_limit, "{'enable':null}", "enable" },
	{ "C3 bool is no text", &rate_limit, "{'enable':'true'}", "enable" },
	{ "C3 int is no text", &rate_limit, "{'threshold':'5'}", "threshold" },
	{ "C5 unknown member", &rate_limit, "{'treshold':5}", "treshold" },
	{ "4 threshold 0", &rate_limit, "{'threshold':0}", "threshold" },
	{ "4 threshold negative", &rate_limit, "{'threshold':-1}", "threshold" },
	{ "4 threshold with a fraction", &rate_limit, "{'threshold':1.5}", "threshold" },
	{ "4 threshold above int", &rate_limit, "{'threshold':2147483648}", "threshold" },
	{ "4 threshold largest", &rate_limit, "{'threshold':2147483647}", NULL },
	{ "4 threshold is required", &rate_limit, "{'threshold':null}", "threshold" },
	{ "1.2 behaviorType 2", &rate_limit, "{'behaviorType':2}", "behaviorType" },
	{ "1.2 behaviorType as text", &rate_limit, "{'behaviorType':'0'}", "behaviorType" },
	{ "1.2 bodyEncoding 2", &rate_limit, "{'bodyEncoding':2}", "bodyEncoding" },
	{ "1.2 bodyEncoding is required", &rate_limit, "{'bodyEncoding':null}", "bodyEncoding" },
	{ "1.2 status 600", &rate_limit, "{'responseStatusCode':600}", "responseStatusCode" },
	{ "1.2 status 199", &rate_limit, "{'responseStatusCode':199}", "responseStatusCode" },
	{ "1.2 redirect without URL", &rate_limit, "{'behaviorType':1}", "responseRedirectUrl" },
	{ "1.2 redirect to a relative path", &rate_limit, "{'behaviorType':1,'responseRedirectUrl':'busy'}",
	  "responseRedirectUrl" },
	{ "1.2 redirect to //host", &rate_limit, "{'behaviorType':1,'responseRedirectUrl':'//h/busy'}",
		"responseRedirectUrl" },
	{ "1.2 redirect to another scheme", &rate_limit,
		"{'behaviorType':1,'responseRedirectUrl':'ftp://h/busy'}",
	  "responseRedirectUrl" },
	{ "C9 redirect with a line break", &rate_limit, "{'behaviorType':1,'responseRedirectUrl':'/a\\r\\nX: "
		"y'}",
	  "responseRedirectUrl" },
	{ "1.2 redirect to a URL", &rate_limit, "{'behaviorType':1,'responseRedirectUrl':'https://h/busy'}",
		NULL },
	{ "1.2 redirect to a path", &rate_limit, "{'behaviorType':1,'responseRedirectUrl':'/busy?a=1'}",
		NULL },
	{ "1.2 body with 204", &rate_limit, "{'responseStatusCode':204}", "responseContentBody" },
	{ "1.2 body with 205", &rate_limit, "{'responseStatusCode':205}", "responseContentBody" },
	{ "1.2 body with 304", &rate_limit, "{'responseStatusCode':304}", "responseContentBody" },
	{ "1.2 no body with 204", &rate_limit, "{'responseStatusCode':204,'responseContentBody':''}", NULL },
	{ "1.2 JSON body that is none", &rate_limit, "{'bodyEncoding':1,'responseContentBody':'{oops'}",
		"responseContentBody" },
	{ "1.2 JSON body", &rate_limit, "{'bodyEncoding':1}", NULL },
	{ "1.2 empty JSON body", &rate_limit, "{'bodyEncoding':1,'responseContentBody':null}", NULL },
	{ "1.2 redirect to a place in a page", &rate_limit,
		"{'behaviorType':1,'responseRedirectUrl':'https://h/#/busy?a=1'}", NULL },
	{ "1.2 redirect to a place in a page of this host", &rate_limit,
		"{'behaviorType':1,'responseRedirectUrl':'/busy#now'}", NULL },
	{ "1.2 redirect to a fragment alone", &rate_limit, "{'behaviorType':1,'responseRedirectUrl':'#now'}",
		"responseRedirectUrl" },
	{ "1.2 redirect with two fragments", &rate_limit, "{'behaviorType':1,'responseRedirectUrl':'/a#b#c'}",
		"responseRedirectUrl" },
	{ "1.2 redirect with a blank in the fragment", &rate_limit,
		"{'behaviorType':1,'responseRedirectUrl':'/a#b c'}", "responseRedirectUrl" },
	{ "1.2 redirect to //host with a fragment", &rate_limit,
		"{'behaviorType':1,'responseRedirectUrl':'//h#b'}", "responseRedirectUrl" },
	{ "C6 URL without redirect", &rate_limit, "{'responseRedirectUrl':'whatever'}", NULL },
	{ "1.2 disabled", &rate_limit, "{'enable':false}", NULL },

	{ "5 maxConcurrency 0", &concurrency_limit, "{'maxConcurrency':0}", "maxConcurrency" },
	{ "5 maxConcurrency is required", &concurrency_limit, "{'maxConcurrency':null}", "maxConcurrency" },
	{ "5 maxConcurrency too large", &concurrency_limit, "{'maxConcurrency':2147483648}", "maxConcurrency"
		},
	{ "5 refusal", &concurrency_limit, "{'behaviorType':1}", "responseRedirectUrl" },

	{ "6 strategy 2", &circuit_breaker, "{'strategy':2}", "strategy" },
	{ "6 slow without maxAllowedMs", &circuit_breaker, "{'maxAllowedMs':null}", "maxAllowedMs" },
	{ "6 slow with maxAllowedMs 0", &circuit_breaker, "{'maxAllowedMs':0}", "maxAllowedMs" },
	{ "6 slow with maxAllowedMs negative", &circuit_breaker, "{'maxAllowedMs':-5}", "maxAllowedMs" },
	{ "6 slow with maxAllowedMs above an hour", &circuit_breaker, "{'maxAllowedMs':3600001}",
		"maxAllowedMs" },
	{ "6 abnormal without maxAllowedMs", &circuit_breaker, "{'strategy':1,'maxAllowedMs':null}", NULL },
	{ "C6 abnormal with maxAllowedMs 0", &circuit_breaker, "{'strategy':1,'maxAllowedMs':0}", NULL },
	{ "6 minRequestAmount 0", &circuit_breaker, "{'minRequestAmount':0}", "minRequestAmount" },
	{ "6 minRequestAmount too large", &circuit_breaker, "{'minRequestAmount':1000001}",
		"minRequestAmount" },
	{ "6 triggerRatio 0", &circuit_breaker, "{'triggerRatio':0}", "triggerRatio" },
	{ "6 triggerRatio 101", &circuit_breaker, "{'triggerRatio':101}", "triggerRatio" },
	{ "6 triggerRatio 100", &circuit_breaker, "{'triggerRatio':100}", NULL },
	{ "6 statDurationSec 0", &circuit_breaker, "{'statDurationSec':0}", "statDurationSec" },
	{ "6 statDurationSec 3601", &circuit_breaker, "{'statDurationSec':3601}", "statDurationSec" },
	{ "6 recoveryTimeoutSec 0", &circuit_breaker, "{'recoveryTimeoutSec':0}", "recoveryTimeoutSec" },
	{ "6 recoveryTimeoutSec 3601", &circuit_breaker, "{'recoveryTimeoutSec':3601}", "recoveryTimeoutSec"
		},
	{ "6 refusal", &circuit_breaker, "{'behaviorType':1}", "responseRedirectUrl" },
	{ "6 order of the reference", &circuit_breaker, "{'responseStatusCode':1,'behaviorType':7}",
		"responseStatusCode" },

	{ "7 negative", &timeout, "{'unitNum':-0.1}", "unitNum" },
	{ "7 a fraction", &timeout, "{'unitNum':0.25}", NULL },
	{ "7 zero", &timeout, "{'unitNum':0}", NULL },
	{ "7 24 h in seconds", &timeout, "{'unitNum':86400}", NULL },
	{ "7 more than 24 h in seconds", &timeout, "{'unitNum':86401}", "unitNum" },
	{ "7 24 h", &timeout, "{'unitNum':24,'timeUnit':'h'}", NULL },
	{ "7 more than 24 h", &timeout, "{'unitNum':24.1,'timeUnit':'h'}", "unitNum" },
	{ "7 more than 24 h in minutes", &timeout, "{'unitNum':1441,'timeUnit':'m'}", "unitNum" },
	{ "7 unit ms", &timeout, "{'timeUnit':'ms'}", "timeUnit" },
	{ "7 unit S", &timeout, "{'timeUnit':'S'}", "timeUnit" },
	{ "7 number as text", &timeout, "{'unitNum':'30'}", "unitNum" },

	{ "8 attempts negative", &retry, "{'attempts':-1}", "attempts" },
	{ "8 attempts 11", &retry, "{'attempts':11}", "attempts" },
	{ "8 attempts 0", &retry, "{'attempts':0}", NULL },
	{ "8 nothing to retry on", &retry, "{'retryOn':[],'httpCodes':[]}", "retryOn" },
	{ "8 nothing to retry on, codes absent", &retry, "{'retryOn':[],'httpCodes':null}", "retryOn" },
	{ "8 codes alone", &retry, "{'retryOn':[]}", NULL },
	{ "8 retryOn is required", &retry, "{'retryOn':null}", "retryOn" },
	{ "8 unknown condition", &retry, "{'retryOn':['5xx','teapot']}", "retryOn[1]" },
	{ "8 every condition", &retry,
		"{'retryOn':['5xx','reset','connect-failure','refused-stream','retriable-status-codes',"
	  "'cancelled','deadline-exceeded','internal','resource-exhausted','unavailable','gateway-error',"
	  "'non_idempotent']}", NULL },
	{ "8 code 399", &retry, "{'httpCodes':['502','399']}", "httpCodes[1]" },
	{ "8 code 600", &retry, "{'httpCodes':['600']}", "httpCodes[0]" },
	{ "8 code of 2 digits", &retry, "{'httpCodes':['50']}", "httpCodes[0]" },
	{ "8 code as number", &retry, "{'httpCodes':[502]}", "httpCodes[0]" },
	{ "8 perTryTimeout negative", &retry, "{'perTryTimeout':-1}", "perTryTimeout" },
	{ "8 perTryTimeout absent", &retry, "{'perTryTimeout':null}", NULL },
	{ "8 perTryTimeout 0.2", &retry, "{'perTryTimeout':0.2}", NULL },

	{ "9 unknown pathType", &http_rewrite, "{'pathType':'Suffix'}", "pathType" },
	{ "9 Regex without pattern", &http_rewrite, "{'pathType':'Regex','substitution':'x'}", "pattern" },
	{ "9 Regex without substitution", &http_rewrite,
		"{'pathType':'Regex','pattern':'x','substitution':null}",
	  "substitution" },
	{ "9 Regex with empty substitution", &http_rewrite, REGEX("x", ""), NULL },
	{ "9 bad regex", &http_rewrite, REGEX("(", "x"), "pattern" },
	{ "9 look-around", &http_rewrite, REGEX("(?=a)b", "x"), "pattern" },
	{ "9 back-reference", &http_rewrite, REGEX("(a)\\\\1", "x"), "pattern" },
	{ "9 group above the count", &http_rewrite, REGEX("(a)(b)", "\\\\3"), "substitution" },
	{ "9 $N above the count", &http_rewrite, REGEX("(a)(b)", "$3"), "substitution" },
	{ "9 backslash before a letter", &http_rewrite, REGEX("a", "\\\\x"), "substitution" },
	{ "9 backslash at the end", &http_rewrite, REGEX("a", "x\\\\"), "substitution" },
	{ "9 literals", &http_rewrite, REGEX("a", "\\\\\\\\3$$3$"), NULL },
	{ "9 groups", &http_rewrite, REGEX("^/service/([^/]+)(/.*)$", "\\\\2/instance/$1${2}"), NULL },
	{ "9 Exact with neither path nor host", &http_rewrite, "{'path':'','host':''}", "path" },
	{ "9 Prefix with neither path nor host", &http_rewrite,
		"{'pathType':'Prefix','path':null,'host':null}", "path" },
	{ "9 host alone", &http_rewrite, "{'path':''}", NULL },
	{ "9 path alone", &http_rewrite, "{'host':''}", NULL },
	{ "9 path without slash", &http_rewrite, "{'path':'v2'}", "path" },
	{ "9 path with a query", &http_rewrite, "{'path':'/a?b=1'}", "path" },
	{ "9 path with a fragment", &http_rewrite, "{'path':'/a#b'}", "path" },
	{ "9 path with a blank", &http_rewrite, "{'path':'/a b'}", "path" },
	{ "9 path with a line break", &http_rewrite, "{'path':'/a\\r\\nb'}", "path" },
	{ "9 path with raw UTF-8", &http_rewrite, "{'path':'/\\u00fc'}", "path" },
	{ "9 path with ..", &http_rewrite, "{'path':'/a/../b'}", "path" },
	{ "9 path with . at the end", &http_rewrite, "{'path':'/a/.'}", "path" },
	{ "9 path with escaped ..", &http_rewrite, "{'path':'/a/%2E%2e/b'}", "path" },
	{ "9 path with dots inside", &http_rewrite, "{'path':'/a/..b/.c/d..'}", NULL },
	{ "9 host with scheme", &http_rewrite, "{'host':'https://h'}", "host" },
	{ "9 host with path", &http_rewrite, "{'host':'h/x'}", "host" },
	{ "9 host with user", &http_rewrite, "{'host':'u@h'}", "host" },
	{ "9 host with an empty port", &http_rewrite, "{'host':'h:'}", "host" },
	{ "9 host with a line break", &http_rewrite, "{'host':'h\\nx'}", "host" },
	{ "9 host with a port", &http_rewrite, "{'host':'h.example:8080'}", NULL },
	{ "9 host is IPv6", &http_rewrite, "{'host':'[::1]:8080'}", NULL },

	{ "10 empty list", &header_modify, "{'headerOpItems':[]}", "headerOpItems" },
	{ "10 list is required", &header_modify, "{'headerOpItems':null}", "headerOpItems" },
	{ "10 direction", &header_modify, OP_OF("Both", "Add", "X", "1", "Custom"),
		"headerOpItems[1].directionType" },
	{ "10 operation", &header_modify, OP_OF("Request", "Set", "X", "1", "Custom"),
		"headerOpItems[1].opType" },
	{ "10 mode", &header_modify, OP_OF("Request", "Add", "X", "1", "Magic"),
		"headerOpItems[1].policyValueGenerateMode" },
	{ "10 key with a blank", &header_modify, ADD("X Y", "1"), "headerOpItems[1].key" },
	{ "10 key with a line break", &header_modify, ADD("X\\r\\nY", "1"), "headerOpItems[1].key" },
	{ "10 pseudo header", &header_modify, ADD(":path", "1"), "headerOpItems[1].key" },
	{ "10 empty key", &header_modify, ADD("", "1"), "headerOpItems[1].key" },
	{ "10 protected Host", &header_modify, ADD("Host", "1"), "headerOpItems[1].key" },
	{ "10 protected in any case", &header_modify, ADD("hOsT", "1"), "headerOpItems[1].key" },
	{ "10 protected Connection", &header_modify, ADD("Connection", "1"), "headerOpItems[1].key" },
	{ "10 protected Keep-Alive", &header_modify, ADD("Keep-Alive", "1"), "headerOpItems[1].key" },
	{ "10 protected Proxy-Connection", &header_modify, ADD("Proxy-Connection", "1"),
		"headerOpItems[1].key" },
	{ "10 protected Transfer-Encoding", &header_modify, ADD("Transfer-Encoding", "1"),
		"headerOpItems[1].key" },
	{ "10 protected TE", &header_modify, ADD("TE", "1"), "headerOpItems[1].key" },
	{ "10 protected Trailer", &header_modify, ADD("Trailer", "1"), "headerOpItems[1].key" },
	{ "10 protected Upgrade", &header_modify, ADD("Upgrade", "1"), "headerOpItems[1].key" },
	{ "10 protected Content-Length", &header_modify, ADD("Content-Length", "1"), "headerOpItems[1].key" },
	{ "10 protected Expect", &header_modify, ADD("Expect", "1"), "headerOpItems[1].key" },
	{ "10 protected also for Remove", &header_modify, OP_OF("Request", "Remove", "Host", "", "Custom"),
	  "headerOpItems[1].key" },
	{ "10 empty value for Add", &header_modify, ADD("X", ""), "headerOpItems[1].value" },
	{ "10 blank value for Add", &header_modify, ADD("X", "  "), "headerOpItems[1].value" },
	{ "10 empty value for Update", &header_modify, OP_OF("Response", "Update", "X", "", "Custom"),
	  "headerOpItems[1].value" },
	{ "10 empty value for Remove", &header_modify, OP_OF("Response", "Remove", "X", "", "Custom"), NULL },
	{ "10 value with a line break", &header_modify, ADD("X", "a\\r\\nb"), "headerOpItems[1].value" },
	{ "10 value with a control byte", &header_modify, ADD("X", "a\\u0001b"), "headerOpItems[1].value" },
	{ "10 value with UTF-8", &header_modify, ADD("X", "\\u00fc"), NULL },
	{ "10 unknown reference", &header_modify, REFERENCE("Request", "request.foo"),
		"headerOpItems[1].value" },
	{ "10 reference without argument", &header_modify, REFERENCE("Request", "request.header."),
		"headerOpItems[1].value" },
	{ "10 response.* in a request", &header_modify, REFERENCE("Request", "response.status"),
		"headerOpItems[1].value" },
	{ "10 upstream.* in a request", &header_modify, REFERENCE("Request", "upstream.address"),
		"headerOpItems[1].value" },
	{ "10 response.* in a response", &header_modify, REFERENCE("Response", "response.header.ETag"),
		NULL },
	{ "10 request.* in a response", &header_modify, REFERENCE("Response", "request.query.a"), NULL },
	{ "10 client.ip", &header_modify, REFERENCE("Request", "client.ip"), NULL },
	{ "10 same text as Custom", &header_modify, ADD("X", "request.foo"), NULL },

	{ "11 code 300", &redirect, "{'code':'300'}", "code" },
	{ "11 code 304", &redirect, "{'code':'304'}", "code" },
	{ "11 code as number", &redirect, "{'code':301}", "code" },
	{ "11 code is required", &redirect, "{'code':null}", "code" },
	{ "11 code 308", &redirect, "{'code':'308'}", NULL },
	{ "11 neither host nor path", &redirect, "{'host':'','path':''}", "host" },
	{ "11 host alone", &redirect, "{'path':''}", NULL },
	{ "11 path alone", &redirect, "{'host':null}", NULL },
	{ "11 host with scheme", &redirect, "{'host':'http://h'}", "host" },
	{ "11 host with path", &redirect, "{'host':'h/p'}", "host" },
	{ "11 host with a line break", &redirect, "{'host':'h\\r\\nX: y'}", "host" },
	{ "11 path without slash", &redirect, "{'path':'new'}", "path" },
	{ "11 path with two slashes", &redirect, "{'path':'//evil.com'}", "path" },
	{ "11 path with a line break", &redirect, "{'path':'/a\\r\\nX: y'}", "path" },
	{ "11 path with a backslash", &redirect, "{'path':'/\\\\evil.com'}", "path" },
	{ "11 path with a fragment", &redirect, "{'path':'/a#b'}", "path" },
	{ "11 path with a query", &redirect, "{'path':'/p?x=1'}", NULL },

	{ "12 code of 2 digits", &direct_response, "{'code':'20'}", "code" },
	{ "12 code 199", &direct_response, "{'code':'199'}", "code" },
	{ "12 code 302", &direct_response, "{'code':'302'}", "code" },
	{ "12 code 600", &direct_response, "{'code':'600'}", "code" },
	{ "12 code with a sign", &direct_response, "{'code':'+20'}", "code" },
	{ "12 code as number", &direct_response, "{'code':200}", "code" },
	{ "12 code 299", &direct_response, "{'code':'299'}", NULL },
	{ "12 code 503", &direct_response, "{'code':'503'}", NULL },
	{ "12 body missing", &direct_response, "{'body':null}", "body" },
	{ "12 empty body", &direct_response, "{'body':''}", NULL },
	{ "12 204 with a body", &direct_response, "{'code':'204','body':'x'}", "body" },
	{ "12 205 with a body", &direct_response, "{'code':'205','body':'x'}", "body" },
	{ "12 204 without", &direct_response, "{'code':'204','body':''}", NULL },

	{ "13 empty list", &fallback, "{'fallBackDestination':[]}", "fallBackDestination" },
	{ "13 list is required", &fallback, "{'fallBackDestination':null}", "fallBackDestination" },
	{ "13 serviceId is required", &fallback, TO("'port':'80'"), "fallBackDestination[1].serviceId" },
	{ "13 serviceId blank", &fallback, TO("'serviceId':'  '"), "fallBackDestination[1].serviceId" },
	{ "13 port as number", &fallback, TO("'serviceId':'b','port':80"), "fallBackDestination[1].port" },
	{ "13 port 0", &fallback, TO("'serviceId':'b','port':'0'"), "fallBackDestination[1].port" },
	{ "13 port 65536", &fallback, TO("'serviceId':'b','port':'65536'"), "fallBackDestination[1].port" },
	{ "13 port with a letter", &fallback, TO("'serviceId':'b','port':'80a'"),
		"fallBackDestination[1].port" },
	{ "13 only serviceId", &fallback, TO("'serviceId':'b','port':''"), NULL },

	{ "14 list is required", &dynamic_route, "{'dynamicRouteSwimmingLaneConfigs':null}", LANE_PATH },
	{ "14 empty list", &dynamic_route, LANES(""), NULL },
	{ "14 canaryModel 2", &dynamic_route, LANES(LANE("1", "2", "")), LANE_PATH "[0].canaryModel" },
	{ "14 percentage missing", &dynamic_route, LANES(LANE("1", "1", "")), LANE_PATH "[0].percentage" },
	{ "14 percentage 101", &dynamic_route, LANES(LANE("1", "1", ",'percentage':101")),
		LANE_PATH "[0].percentage" },
	{ "14 percentage negative", &dynamic_route, LANES(LANE("1", "1", ",'percentage':-1")),
		LANE_PATH "[0].percentage" },
	{ "14 sum of a group", &dynamic_route, LANES(LANE("1", "1", ",'percentage':60") "," LANE("2", "1",
		",'percentage':41")),
	  LANE_PATH "[1].percentage" },
	{ "14 sum of 100", &dynamic_route, LANES(LANE("1", "1", ",'percentage':60") "," LANE("2", "1",
		",'percentage':40")),
	  NULL },
	{ "14 no predicates", &dynamic_route, LANES(LANE("1", "0", "")), LANE_PATH "[0].predicates" },
	{ "14 empty predicates", &dynamic_route, MATCH(""), LANE_PATH "[0].predicates" },
	{ "14 List without names", &dynamic_route, MATCH(PREDICATE("Header", "a", "List", "")),
	  LANE_PATH "[0].predicates[0].names" },
	{ "14 List with names", &dynamic_route,
	  MATCH("{'type':'Cookie','name':'a','condition':'List','value':'','names':['x','y']}"), NULL },
	{ "14 empty value", &dynamic_route, MATCH(PREDICATE("Header", "a", "==", "")),
		LANE_PATH "[0].predicates[0].value" },
	{ "14 value is required", &dynamic_route, MATCH("{'type':'Header','name':'a','condition':'=='}"),
	  LANE_PATH "[0].predicates[0].value" },
	{ "14 % no integer", &dynamic_route, MATCH(PREDICATE("Header", "a", "%", "x")),
		LANE_PATH "[0].predicates[0].value" },
	{ "14 % above 100", &dynamic_route, MATCH(PREDICATE("Header", "a", "%", "101")),
		LANE_PATH "[0].predicates[0].value" },
	{ "14 % 20", &dynamic_route, MATCH(PREDICATE("Header", "a", "%", "20")), NULL },
	{ "14 bad regex", &dynamic_route, MATCH(PREDICATE("Header", "a", "Pre", "x") "," PREDICATE("Header",
		"a", "Regex", "(")),
	  LANE_PATH "[0].predicates[1].value" },
	{ "14 type", &dynamic_route, MATCH(PREDICATE("Body", "a", "==", "x")),
		LANE_PATH "[0].predicates[0].type" },
	{ "14 condition", &dynamic_route, MATCH(PREDICATE("Header", "a", "=~", "x")),
		LANE_PATH "[0].predicates[0].condition" },
	{ "14 header name", &dynamic_route, MATCH(PREDICATE("Header", "a b", "==", "x")),
		LANE_PATH "[0].predicates[0].name" },
	{ "14 parameter name", &dynamic_route, MATCH(PREDICATE("Parameter", "a[b]", "==", "x")), NULL },
	{ "14 same lane twice", &dynamic_route, LANES(LANE("1", "1", ",'percentage':1") "," LANE("1", "1",
		",'percentage':1")),
	  LANE_PATH "[1].swimmingLaneId" },
	{ "14 ids beyond a double", &dynamic_route, LANES(LANE("9007199254740993", "1", ",'percentage':1") ","
	  LANE("9007199254740992", "1", ",'percentage':1")), NULL },
	{ "14 id negative", &dynamic_route, LANES(LANE("-1", "1", ",'percentage':1")),
		LANE_PATH "[0].swimmingLaneId" },
	{ "14 bad tag", &dynamic_route,
		LANES("{'swimmingLaneGroupId':1,'swimmingLaneId':1,'canaryModel':1,'percentage':1,"
	  "'swimmingLaneTag':'a b','matchCondition':'Or','enable':true}"), LANE_PATH "[0].swimmingLaneTag" },

	{ "15 prefix too long", &ip_access_control, "{'ipAccessControlContent':'192.168.1.0/33'}",
		"ipAccessControlContent" },
	{ "15 IPv6 prefix too long", &ip_access_control, "{'ipAccessControlContent':'::1/129'}",
		"ipAccessControlContent" },
	{ "15 no address", &ip_access_control, "{'ipAccessControlContent':'a.b.c.d'}",
		"ipAccessControlContent" },
	{ "15 empty element", &ip_access_control, "{'ipAccessControlContent':'1.1.1.1,,2.2.2.2'}",
		"ipAccessControlContent" },
	{ "15 comma at the end", &ip_access_control, "{'ipAccessControlContent':'1.1.1.1,'}",
		"ipAccessControlContent" },
	{ "15 empty", &ip_access_control, "{'ipAccessControlContent':''}", "ipAccessControlContent" },
	{ "15 zone", &ip_access_control, "{'ipAccessControlContent':'fe80::1%eth0'}",
		"ipAccessControlContent" },
	{ "15 blanks and IPv6", &ip_access_control, "{'ipAccessControlContent':' 1.1.1.1 , 2001:db8::/32'}",
		NULL },
	{ "15 everything", &ip_access_control, "{'ipAccessControlContent':'0.0.0.0/0'}", NULL },
	{ "15 list type", &ip_access_control, "{'ipAccessControlType':'Grey'}", "ipAccessControlType" },
	{ "15 list type case", &ip_access_control, "{'ipAccessControlType':'white'}", "ipAccessControlType" },
	{ "15 layer", &ip_access_control, "{'protocolLayer':'L3'}", "protocolLayer" },
	{ "15 resource type", &ip_access_control, "{'ipAccessControlResourceType':'Service'}",
		"ipAccessControlResourceType" },
	{ "5 of the product: L4 on a route", &ip_access_control, "{'protocolLayer':'L4'}", NULL },
	{ "15 name blank", &ip_access_control, "{'name':' '}", "name" },
	{ "15 resource name is required", &ip_access_control, "{'ipAccessControlResourceName':''}",
	  "ipAccessControlResourceName" },
	{ "15 description absent", &ip_access_control, "{'description':null}", NULL },

	{ "16 origin with path", &cors, "{'allowOrigins':'https://a.com/x'}", "allowOrigins" },
	{ "16 origin with a slash", &cors, "{'allowOrigins':'https://a.com,https://b.com/'}", "allowOrigins"
		},
	{ "16 origin without scheme", &cors, "{'allowOrigins':'a.com'}", "allowOrigins" },
	{ "16 wildcard not leftmost", &cors, "{'allowOrigins':'https://a.*.com'}", "allowOrigins" },
	{ "16 wildcard within a label", &cors, "{'allowOrigins':'https://*a.com'}", "allowOrigins" },
	{ "16 wildcard alone", &cors, "{'allowOrigins':'https://*'}", "allowOrigins" },
	{ "16 origin with user", &cors, "{'allowOrigins':'https://u@a.com'}", "allowOrigins" },
	{ "16 origin with an empty port", &cors, "{'allowOrigins':'https://a.com:'}", "allowOrigins" },
	{ "16 empty origin", &cors, "{'allowOrigins':'https://a.com,'}", "allowOrigins" },
	{ "16 every form", &cors, "{'allowOrigins':'https://a.com, http://b.com:8080 "
		",https://*.c.com,null,http://[::1]:3000'}",
	  NULL },
	{ "16 * among others", &cors, "{'allowOrigins':'https://a.com,*'}", NULL },
	{ "16 * with credentials", &cors, "{'allowOrigins':'*'}", NULL },
	{ "16 no method", &cors, "{'allowMethods':[]}", "allowMethods" },
	{ "16 methods as text", &cors, "{'allowMethods':'GET'}", "allowMethods" },
	{ "16 bad method", &cors, "{'allowMethods':['GET','P T']}", "allowMethods[1]" },
	{ "16 any method", &cors, "{'allowMethods':['*']}", NULL },
	{ "16 bad header", &cors, "{'allowHeaders':'A,B C'}", "allowHeaders" },
	{ "16 headers with a line break", &cors, "{'allowHeaders':'A\\r\\nB'}", "allowHeaders" },
	{ "16 any header", &cors, "{'allowHeaders':'*'}", NULL },
	{ "16 bad exposed header", &cors, "{'exposeHeaders':'A;B'}", "exposeHeaders" },
	{ "16 nothing exposed", &cors, "{'exposeHeaders':''}", NULL },
	{ "16 negative age", &cors, "{'unitNum':-1}", "unitNum" },
	{ "16 age with a fraction", &cors, "{'unitNum':1.5}", "unitNum" },
	{ "16 age 0", &cors, "{'unitNum':0}", NULL },
	{ "16 30 days", &cors, "{'unitNum':720,'timeUnit':'h'}", NULL },
	{ "16 more than 30 days", &cors, "{'unitNum':721,'timeUnit':'h'}", "unitNum" },
	{ "16 unit", &cors, "{'timeUnit':'d'}", "timeUnit" },
	{ "16 allowCredentials is required", &cors, "{'allowCredentials':null}", "allowCredentials" },

	{ "17 percentage 0", &flow_copy, "{'percentage':0}", "percentage" },
	{ "17 percentage 101", &flow_copy, "{'percentage':101}", "percentage" },
	{ "17 percentage negative", &flow_copy, "{'percentage':-1}", "percentage" },
	{ "17 percentage with a fraction", &flow_copy, "{'percentage':0.5}", "percentage" },
	{ "17 percentage absent", &flow_copy, "{'percentage':null}", NULL },
	{ "17 target is required", &flow_copy, "{'targetServiceId':''}", "targetServiceId" },
	{ "17 port", &flow_copy, "{'port':'http'}", "port" },

	{ "18 mode", &service_tls, "{'mode':'simple'}", "mode" },
	{ "18 MUTUAL without certId", &service_tls, "{'mode':'MUTUAL','certId':''}", "certId" },
	{ "18 MUTUAL", &service_tls, "{'mode':'MUTUAL'}", NULL },
	{ "18 ISTIO_MUTUAL alone", &service_tls, ISTIO("", "", "", "", ""), NULL },
	{ "18 ISTIO_MUTUAL with certId", &service_tls, ISTIO("x", "", "", "", ""), "certId" },
	{ "18 ISTIO_MUTUAL with caCertId", &service_tls, ISTIO("", "x", "", "", ""), "caCertId" },
	{ "18 ISTIO_MUTUAL with caCertContent", &service_tls, ISTIO("", "", "x", "", ""), "caCertContent" },
	{ "18 ISTIO_MUTUAL with subjectAltNames", &service_tls, ISTIO("", "", "", "'a.com'", ""),
		"subjectAltNames" },
	{ "18 ISTIO_MUTUAL with sni", &service_tls, ISTIO("", "", "", "", "a.com"), "sni" },
	{ "18 sni is an IP", &service_tls, "{'sni':'10.0.0.1'}", "sni" },
	{ "18 sni is IPv6", &service_tls, "{'sni':'::1'}", "sni" },
	{ "18 sni with a port", &service_tls, "{'sni':'a.com:443'}", "sni" },
	{ "18 sni with a wildcard", &service_tls, "{'sni':'*.a.com'}", "sni" },
	{ "18 names of every kind", &service_tls,
		"{'subjectAltNames':['a.com','*.b.com','10.0.0.1','spiffe://x/ns/y']}", NULL },
	{ "18 bad name", &service_tls, "{'subjectAltNames':['a.com','a b']}", "subjectAltNames[1]" },
	{ "18 port: MUTUAL without certId", &service_port_tls, "{'mode':'MUTUAL','certId':null}", "certId" },
	{ "18 port: DISABLE", &service_port_tls, "{'mode':'DISABLE'}", NULL },

	{ "19 type", &service_lb, "{'loadBalancerType':'HASH'}", "loadBalancerType" },
	{ "19 hash without object", &service_lb,
		"{'loadBalancerType':'CONSISTENT_HASH','consistentHashLBConfig':null}",
	  "consistentHashLBConfig" },
	{ "19 hash without type", &service_lb, HASH("'parameterName':'a'"),
		"consistentHashLBConfig.consistentHashLBType" },
	{ "19 HEADER without name", &service_lb, HASH("'consistentHashLBType':'HEADER'"),
	  "consistentHashLBConfig.parameterName" },
	{ "19 HEADER with a bad name", &service_lb, HASH("'consistentHashLBType':'HEADER','parameterName':'a "
		"b'"),
	  "consistentHashLBConfig.parameterName" },
	{ "19 QUERY without name", &service_lb, HASH("'consistentHashLBType':'QUERY_PARAMETER'"),
	  "consistentHashLBConfig.parameterName" },
	{ "19 COOKIE without cookie", &service_lb, HASH("'consistentHashLBType':'COOKIE'"),
	  "consistentHashLBConfig.httpCookie.name" },
	{ "19 COOKIE without name", &service_lb, COOKIE("'path':'/'"),
		"consistentHashLBConfig.httpCookie.name" },
	{ "19 SOURCE_IP", &service_lb, HASH("'consistentHashLBType':'SOURCE_IP'"), NULL },
	{ "19 QUERY_PARAMETER", &service_lb,
		HASH("'consistentHashLBType':'QUERY_PARAMETER','parameterName':'uid'"), NULL },
	{ "19 ring 0", &service_lb, HASH("'consistentHashLBType':'SOURCE_IP','minimumRingSize':0"),
	  "consistentHashLBConfig.minimumRingSize" },
	{ "19 ring too large", &service_lb,
		HASH("'consistentHashLBType':'SOURCE_IP','minimumRingSize':8388609"),
	  "consistentHashLBConfig.minimumRingSize" },
	{ "19 ttl with an unknown unit", &service_lb, COOKIE("'name':'a','ttl':'3d'"),
		"consistentHashLBConfig.httpCookie.ttl" },
	{ "19 ttl negative", &service_lb, COOKIE("'name':'a','ttl':'-1s'"),
		"consistentHashLBConfig.httpCookie.ttl" },
	{ "19 ttl without digits", &service_lb, COOKIE("'name':'a','ttl':'1.s'"),
		"consistentHashLBConfig.httpCookie.ttl" },
	{ "19 ttl 0", &service_lb, COOKIE("'name':'a','ttl':'0'"), NULL },
	{ "19 ttl 1.5h", &service_lb, COOKIE("'name':'a','ttl':'1.5h'"), NULL },
	{ "19 ttl 250ms", &service_lb, COOKIE("'name':'a','ttl':'250ms'"), NULL },
	{ "19 warm-up negative", &service_lb, "{'warmupDuration':-1}", "warmupDuration" },
	{ "19 warm-up above an hour", &service_lb, "{'warmupDuration':3601}", "warmupDuration" },
	{ "C6 hash ignored with RANDOM", &service_lb, "{'loadBalancerType':'RANDOM'}", NULL },
	{ "C6 empty hash with ROUND_ROBIN", &service_lb, "{'consistentHashLBConfig':{}}", NULL },
	{ "C6 hash of empty members with ROUND_ROBIN", &service_lb,
		"{'consistentHashLBConfig':{'parameterName':'','httpCookie':{'name':'','path':'','ttl':''},"
		"'minimumRingSize':0,'consistentHashLBType':''}}", NULL },
	{ "C6 hash of another type with ROUND_ROBIN", &service_lb,
		"{'consistentHashLBConfig':{'minimumRingSize':'0'}}", "consistentHashLBConfig.minimumRingSize" },
	{ "C6 empty cookie with HEADER", &service_lb,
		HASH("'consistentHashLBType':'HEADER','parameterName':'a','httpCookie':{'name':''}"), NULL },
	{ "19 hash with an empty type", &service_lb, HASH("'consistentHashLBType':''"),
		"consistentHashLBConfig.consistentHashLBType" },
};

/* ' becomes ", ` becomes \". */
static struct str unquote(struct arena *a, const char *text)
{
	struct sbuf out = { 0 };
	struct str copy;

	for (; *text; text++)
		if (*text == '`')
			sbuf_add(&out, STR("\\\""));
		else
			sbuf_addc(&out, *text == '\'' ? '"' : *text);
	copy = arena_copy(a, sbuf_str(&out));
	sbuf_free(&out);
	return copy;
}

static struct json *parse(struct arena *a, const char *text)
{
	struct problem why;
	struct json *json = json_parse(a, unquote(a, text), &why);

	if (!json)
		fail_msg("%s: %s", text, why.text);
	return json;
}

static bool accept(const struct policy_class *class, const struct json *config, struct arena *a,
	struct problem *why)
{
	void *conf = arena_alloc(a, class->conf_size);

	if (!fields_decode(class->fields, config, conf, a, why) || (class->check && !class->check(conf, why)))
		return false;
	if (class->prepare && !class->prepare(conf, a, why))
		fail_msg("%s: prepare refuses what check accepted: %s %s", class->name, why->field,
			why->text);
	return true;
}

static const struct sample *sample_of(const struct policy_class *class)
{
	for (size_t i = 0; i < SAMPLES; i++)
		if (samples[i].class == class)
			return &samples[i];
	fail_msg("no sample of %s", class->name);
	return NULL;
}

static void samples_are_accepted(void **state)
{
	(void)state;
	for (size_t i = 0; i < SAMPLES; i++) {
		struct arena a = { 0 };
		struct problem why = { 0 };

		if (!accept(samples[i].class, parse(&a, samples[i].config), &a, &why))
			fail_msg("%s: %s %s", samples[i].class->name, why.field, why.text);
		arena_free(&a);
	}
}

static void cases_are_judged(void **state)
{
	unsigned wrong = 0;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const struct test_case *c = &cases[i];
		struct arena a = { 0 };
		struct problem why = { 0 };
		struct json *config = parse(&a, sample_of(c->class)->config), *next;
		bool accepted;

		for (struct json *m = parse(&a, c->members)->child; m; m = next) {
			next = m->next;
			json_put(&a, config, arena_copy(&a, m->name).p, m);
		}
		accepted = accept(c->class, config, &a, &why);
		if (accepted != !c->path || (c->path && strcmp(c->path, why.field) != 0) || (c->path &&
			!why.text[0])) {
			print_error("%s: %s: expected %s, got %s: %s\n", c->class->name, c->rule, c->path ?
				c->path : "accepted",
				accepted ? "accepted" : why.field, why.text);
			wrong++;
		}
		arena_free(&a);
	}
	assert_int_equal(wrong, 0);
}

static void attach_where_the_contract_says(void **state)
{
	(void)state;
	for (size_t i = 0; i < SAMPLES; i++) {
		const struct policy_class *class = samples[i].class;

		if (class->scopes != samples[i].scopes)
			fail_msg("%s: scopes %x, not %x", class->name, class->scopes, samples[i].scopes);
		if (class->is_enforced != samples[i].is_enforced)
			fail_msg("%s: enforced %d", class->name, class->is_enforced);
	}
}

/* What the generic code relies on, for every type there is. */
static void classes_are_complete(void **state)
{
	static const char *const stages[] = { "PluginStatistic", "PluginAuthorization", "PluginPre",
		"PluginAuthentication",
		"PluginDefault", "PluginPost" };

	(void)state;
	assert_int_equal(policy_class_count, 29);
	for (unsigned i = 0; i < policy_class_count; i++) {
		const struct policy_class *class = policy_classes[i];
		bool has_stage = false;

		assert_ptr_equal(policy_class_find(str_of(class->name)), class);
		assert_int_equal(policy_class_index(class), i);
		assert_true(class->alias && class->summary && class->group && class->fields && class->scopes);
		assert_true(class->enable_at < class->conf_size);
		for (size_t k = 0; k < sizeof(stages) / sizeof(stages[0]); k++)
			has_stage |= strcmp(class->execute_stage, stages[k]) == 0;
		assert_true(has_stage);
		if (!class->is_enforced && (class->request || class->service || class->response ||
			class->connect || class->apply))
			fail_msg("%s has hooks but is not enforced", class->name);
	}
	assert_null(policy_class_find(STR("ratelimit")));
	assert_null(policy_classes[policy_class_count]);
}

/* The sample made from the table itself, as documentation shows it, is one that works. */
static void examples_are_accepted(void **state)
{
	(void)state;
	for (size_t i = 0; i < SAMPLES; i++) {
		const struct policy_class *class = samples[i].class;
		struct arena a = { 0 };
		struct problem why = { 0 };

		if (!accept(class, fields_example(class->fields, true, &a), &a, &why))
			fail_msg("%s: %s %s", class->name, why.field, why.text);
		arena_free(&a);
	}
}

static void scopes_have_names(void **state)
{
	enum scope scope;

	(void)state;
	for (unsigned bit = 1; bit <= SCOPE_SERVICE_PORT; bit <<= 1) {
		assert_true(scope_parse(str_of(scope_name((enum scope)bit)), &scope));
		assert_int_equal(scope, bit);
	}
	assert_true(scope_parse(STR("HttpApi"), &scope) && scope == SCOPE_API);
	assert_true(scope_parse(STR("GatewayRoute"), &scope) && scope == SCOPE_ROUTE);
	assert_true(scope_parse(STR("GatewayService"), &scope) && scope == SCOPE_SERVICE);
	assert_true(scope_parse(STR("GatewayServicePort"), &scope) && scope == SCOPE_SERVICE_PORT);
	assert_false(scope_parse(STR("route"), &scope));
	for (unsigned i = 0; i < STAGE_COUNT; i++)
		assert_non_null(stage_names[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(classes_are_complete),
		cmocka_unit_test(scopes_have_names),
		cmocka_unit_test(samples_are_accepted),
		cmocka_unit_test(examples_are_accepted),
		cmocka_unit_test(cases_are_judged),
		cmocka_unit_test(attach_where_the_contract_says),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
