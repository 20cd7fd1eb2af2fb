/*
 * test_policies_ai_security.c -- what the configs of the AI and security policies may be: rules of the
 * contract by their ids.
 *
 * A case takes the sample of the API reference and puts some members into it. In the texts ' stands for ",
 * and ` for \".
 */
/* room: policy */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include "proxy/policy.h"
#include <cmocka.h>                       /* last: it has a macro of the name fail */

extern const struct policy_class ai_statistics, ai_security_guard, ai_fallback, ai_token_rate_limit, ai_cache,
	ai_network_search, ai_tool_selection, authentication, jwt_auth, oidc_auth, external_z_auth, waf;

struct sample {
	const struct policy_class *class;
	const char *config;
	unsigned scopes;
};

#define AT_ROUTES (SCOPE_ROUTE | SCOPE_API | SCOPE_OPERATION | SCOPE_LLM_API | SCOPE_AGENT_API)
#define AT_EDGES (AT_ROUTES | SCOPE_GATEWAY | SCOPE_DOMAIN)

static const struct sample samples[] = {
	{ &ai_statistics,
		"{'enable':true,'aiStatisticsConfig':{'logRequestContent':true,'logResponseContent':true}}",
	  AT_ROUTES },
	{ &ai_security_guard,
	  "{'enable':true,'serviceAddress':'http://security-guard-service:8080','checkRequest':true,"
	  "'checkResponse':true,"
	  "'riskAlertLevel':'medium','requestCheckService':'Security','responseCheckService':'Security',"
	  "'bufferLimit':1000,'riskConfig':[{'type':'Global','level':'high'},"
	  "{'type':'ContentModeration','level':'medium'}]}", SCOPE_SERVICE },
	{ &ai_token_rate_limit,
	  "{'enable':true,'rules':[{'limitType':'LimitByConsumer','threshold':10000,'timeWindow':60,"
	  "'responseStatusCode':429,'responseContentBody':'{`error`:`Token limit "
	  "exceeded`}'}],'enableGlobalRules':true,"
	  "'globalRules':[{'limitType':'LimitByGlobal','threshold':100000,'timeWindow':60}],"
	  "'redisConfig':{'serviceHost':'redis-service:6379','servicePort':6379,'database':0,'username':'',"
	  "'password':''}}", AT_ROUTES },
	{ &ai_cache,
	  "{'enable':true,'cacheTTL':3600,'cacheMode':'exact','cacheKeyStrategy':'messages',"
	  "'redisConfig':{'serviceHost':'redis-service:6379','servicePort':6379,'database':0}}", AT_ROUTES },
	{ &ai_fallback,
	  "{'enable':true,'fallbackModelMappings':[{'model':'gpt-4','fallbackModels':"
	  "[{'serviceId':'backup-service-1','model':'gpt-3.5-turbo'}]}]}", SCOPE_SERVICE },
	{ &ai_network_search,
	  "{'enable':true,'provider':'bing','apiKey':'your-search-api-key','maxResults':10,'timeout':5000}",
	  AT_ROUTES },
	{ &ai_tool_selection,
	  "{'enable':true,'tools':[{'name':'calculator','description':'Used for mathematical calculations',"
	  "'enabled':true}]}", AT_ROUTES },
	{ &authentication, "{'authenticationType':'key-auth','enable':true}", AT_EDGES },
	{ &jwt_auth,
	  "{'name':'jwt-policy','issuer':'https://auth.example.com','sub':'',"
	  "'jwks':'https://auth.example.com/.well-known/jwks.json','tokenPosition':'header',"
	  ""
	  "'tokenName':'Authorization','tokenNamePrefix':'Bearer ','tokenPass':true,'whiteOrBlack':'',"
	  "'authResources':[],'resources':'',"
	  "'enable':true}", AT_EDGES },
	{ &oidc_auth,
	  "{'issuer':'https://accounts.google.com','clientId':'your-client-id','clientSecret':'your-client-secret',"
	  "'redirectUri':'https://your-app.com/callback','scopes':['openid','profile','email'],'enable':true}",
	  AT_EDGES },
	{ &external_z_auth,
		"{'authServiceUrl':'https://auth-service.example.com/verify','timeout':5000,'enable':true}",
	  AT_EDGES },
	{ &waf, "{'enable':true}", AT_EDGES },
};
#define SAMPLES (sizeof(samples) / sizeof(samples[0]))

struct test_case {
	const char *rule;
	const struct policy_class *class;
	const char *members;              /* put into the sample; null takes one out */
	const char *path;                 /* of the complaint; NULL: accepted */
};

#define GUARD &ai_security_guard
#define TOKENS &ai_token_rate_limit
#define RULE_TAIL "'threshold':1,'timeWindow':1}]}"
#define REDIS "'redisConfig':{'serviceHost':"
#define VECTOR "'vectorConfig':{'type':'adb-postgres','apiKey':'u:p','timeout':1000,'threshold':0.9,"
#define VECTOR_OK VECTOR "'serviceHost':'pg:5432/db','collectionId':'public.cache'}"
#define EMBEDDING "'embeddingConfig':{'type':'dashscope','serviceId':'svc-embed'}"
#define RESOURCE(r) "{'whiteOrBlack':'White','authResources':[" r "]}"
#define X32 "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
#define X40 "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
#define RSA_2048 "w" X40 X40 X40 X40 X40 X40 X40 X40 "AAAAAAAAAAAAAAAAAAAAA"
#define RSA_1024 "w" X40 X40 X40 X40 "AAAAAAAAAA"
#define KEYS(k) "{'jwks':' {`keys`:[" k "]}'}"

static const struct test_case cases[] = {
	{ "STA aiStatisticsConfig may be absent", &ai_statistics, "{'aiStatisticsConfig':null}", NULL },
	{ "STA aiStatisticsConfig is an object", &ai_statistics, "{'aiStatisticsConfig':[]}",
		"aiStatisticsConfig" },
	{ "STA flags are bools", &ai_statistics, "{'aiStatisticsConfig':{'logRequestContent':'true'}}",
	  "aiStatisticsConfig.logRequestContent" },
	{ "STA flags are bools (response)", &ai_statistics, "{'aiStatisticsConfig':{'logResponseContent':1}}",
	  "aiStatisticsConfig.logResponseContent" },
	{ "CFG-4 unknown member inside", &ai_statistics, "{'aiStatisticsConfig':{'logContent':true}}",
	  "aiStatisticsConfig.logContent" },

	{ "GRD serviceAddress is required", GUARD, "{'serviceAddress':null}", "serviceAddress" },
	{ "CFG-8 scheme", GUARD, "{'serviceAddress':'ftp://guard'}", "serviceAddress" },
	{ "CFG-8 host", GUARD, "{'serviceAddress':'http:///x'}", "serviceAddress" },
	{ "CFG-8 user name", GUARD, "{'serviceAddress':'http://u:p@guard/'}", "serviceAddress" },
	{ "CFG-8 fragment", GUARD, "{'serviceAddress':'http://guard/#x'}", "serviceAddress" },
	{ "CFG-8 relative", GUARD, "{'serviceAddress':'guard:8080'}", "serviceAddress" },
	{ "CFG-8 port", GUARD, "{'serviceAddress':'http://guard:99999/'}", "serviceAddress" },
	{ "CFG-8 line break", GUARD, "{'serviceAddress':'http://guard/\\r\\nX: y'}", "serviceAddress" },
	{ "CFG-8 loopback is fine", GUARD, "{'serviceAddress':'http://127.0.0.1:9/'}", NULL },
	{ "CFG-8 IPv6 is fine", GUARD, "{'serviceAddress':'http://[::1]:9/'}", NULL },
	{ "CFG-8 metadata address", GUARD, "{'serviceAddress':'http://169.254.169.254/latest'}",
		"serviceAddress" },
	{ "CFG-8 link-local IPv6", GUARD, "{'serviceAddress':'http://[fe80::1]/'}", "serviceAddress" },
	{ "CFG-8 mapped metadata address", GUARD, "{'serviceAddress':'http://[::ffff:169.254.169.254]/'}",
	  "serviceAddress" },
	{ "GRD checkRequest is required", GUARD, "{'checkRequest':null}", "checkRequest" },
	{ "GRD checkResponse is a bool", GUARD, "{'checkResponse':'yes'}", "checkResponse" },
	{ "GRD both checks off", GUARD, "{'checkRequest':false,'checkResponse':false}", "checkRequest" },
	{ "GRD one check on", GUARD, "{'checkRequest':false}", NULL },
	{ "GRD riskAlertLevel choices", GUARD, "{'riskAlertLevel':'highest'}", "riskAlertLevel" },
	{ "GRD riskAlertLevel is required", GUARD, "{'riskAlertLevel':null}", "riskAlertLevel" },
	{ "GRD requestCheckService choices", GUARD, "{'requestCheckService':'llm'}", "requestCheckService" },
	{ "GRD responseCheckService choices", GUARD, "{'responseCheckService':'Green'}",
		"responseCheckService" },
	{ "GRD bufferLimit low", GUARD, "{'bufferLimit':0}", "bufferLimit" },
	{ "GRD bufferLimit high", GUARD, "{'bufferLimit':1501}", "bufferLimit" },
	{ "GRD bufferLimit highest", GUARD, "{'bufferLimit':1500}", NULL },
	{ "CFG-3 no fraction", GUARD, "{'bufferLimit':1.5}", "bufferLimit" },
	{ "GRD riskConfig type", GUARD, "{'riskConfig':[{'type':'Virus','level':'low'}]}",
		"riskConfig[0].type" },
	{ "GRD riskConfig level", GUARD, "{'riskConfig':[{'type':'Global','level':'none'}]}",
		"riskConfig[0].level" },
	{ "GRD riskConfig level is required", GUARD, "{'riskConfig':[{'type':'Global'}]}",
		"riskConfig[0].level" },
	{ "GRD riskConfig twice", GUARD,
	  "{'riskConfig':[{'type':'Global','level':'low'},{'type':'PromptAttack','level':'low'},"
	  "{'type':'Global','level':'low'}]}", "riskConfig[2].type" },
	{ "GRD optional members absent", GUARD,
	  "{'requestCheckService':null,'responseCheckService':null,'bufferLimit':null,'riskConfig':null}",
	  NULL },

	{ "FBK empty list", &ai_fallback, "{'fallbackModelMappings':[]}", "fallbackModelMappings" },
	{ "FBK empty "
		"candidates", &ai_fallback, "{'fallbackModelMappings':[{'model':'a','fallbackModels':[]}]}",
	  "fallbackModelMappings[0].fallbackModels" },
	{ "FBK candidates are required", &ai_fallback, "{'fallbackModelMappings':[{'model':'a'}]}",
	  "fallbackModelMappings[0].fallbackModels" },
	{ "FBK model is required", &ai_fallback,
	  "{'fallbackModelMappings':[{'fallbackModels':[{'serviceId':'s','model':'m'}]}]}",
	  "fallbackModelMappings[0].model" },
	{ "FBK candidate model not empty", &ai_fallback,
	  "{'fallbackModelMappings':[{'model':'a','fallbackModels':[{'serviceId':'s','model':''}]}]}",
	  "fallbackModelMappings[0].fallbackModels[0].model" },
	{ "FBK serviceId is required", &ai_fallback,
	  "{'fallbackModelMappings':[{'model':'a','fallbackModels':[{'model':'m'}]}]}",
	  "fallbackModelMappings[0].fallbackModels[0].serviceId" },
	{ "FBK duplicate model", &ai_fallback,
	  "{'fallbackModelMappings':[{'model':'a','fallbackModels':[{'serviceId':'s','model':'m'}]},"
	  "{'model':'a','fallbackModels':[{'serviceId':'s','model':'m'}]}]}",
	  "fallbackModelMappings[1].model" },
	{ "FBK duplicate candidate", &ai_fallback,
	  "{'fallbackModelMappings':[{'model':'a','fallbackModels':[{'serviceId':'s','model':'m'},"
	  "{'serviceId':'s','model':'n'},{'serviceId':'s','model':'m'}]}]}",
	  "fallbackModelMappings[0].fallbackModels[2]" },
	{ "FBK nine candidates", &ai_fallback,
	  "{'fallbackModelMappings':[{'model':'a','fallbackModels':[{'serviceId':'1','model':'m'},"
	  "{'serviceId':'2','model':'m'},{'serviceId':'3','model':'m'},{'serviceId':'4','model':'m'},"
	  "{'serviceId':'5','model':'m'},{'serviceId':'6','model':'m'},{'serviceId':'7','model':'m'},"
	  "{'serviceId':'8','model':'m'},{'serviceId':'9','model':'m'}]}]}",
	  "fallbackModelMappings[0].fallbackModels" },
	{ "FBK-1 any model", &ai_fallback,
	  "{'fallbackModelMappings':[{'model':'*','fallbackModels':[{'serviceId':'s','model':'m'}]},"
	  "{'model':'qwen-*','fallbackModels':[{'serviceId':'s','model':'m'}]}]}", NULL },
	{ "FBK-1 star inside", &ai_fallback,
	  "{'fallbackModelMappings':[{'model':'q*n','fallbackModels':[{'serviceId':'s','model':'m'}]}]}",
	  "fallbackModelMappings[0].model" },

	{ "TOK redisConfig is required", TOKENS, "{'redisConfig':null}", "redisConfig" },
	{ "TOK redisConfig.serviceHost is required", TOKENS, "{'redisConfig':{'servicePort':6379}}",
	  "redisConfig.serviceHost" },
	{ "TOK redisConfig.servicePort is required", TOKENS, "{" REDIS "'r'}}", "redisConfig.servicePort" },
	{ "CFG-7 ports differ", TOKENS, "{" REDIS "'r:6380','servicePort':6379}}",
		"redisConfig.servicePort" },
	{ "CFG-7 no port in the host", TOKENS, "{" REDIS "'r','servicePort':6379}}", NULL },
	{ "CFG-7 IPv6 in brackets", TOKENS, "{" REDIS "'[::1]:6379','servicePort':6379}}", NULL },
	{ "CFG-7 IPv6 without brackets", TOKENS, "{" REDIS "'::1','servicePort':6379}}",
		"redisConfig.serviceHost" },
	{ "CFG-7 port too big", TOKENS, "{" REDIS "'r','servicePort':65536}}", "redisConfig.servicePort" },
	{ "CFG-7 port 0", TOKENS, "{" REDIS "'r','servicePort':0}}", "redisConfig.servicePort" },
	{ "CFG-7 host port too big", TOKENS, "{" REDIS "'r:65536','servicePort':6379}}",
		"redisConfig.serviceHost" },
	{ "CFG-7 host is no URL", TOKENS, "{" REDIS "'redis://r','servicePort':6379}}",
		"redisConfig.serviceHost" },
	{ "CFG-7 TLS", TOKENS, "{" REDIS "'rediss://r','servicePort':6379}}", NULL },
	{ "CFG-7 TLS and IPv6", TOKENS, "{" REDIS "'rediss://[::1]:6380','servicePort':6380}}", NULL },
	{ "CFG-7 TLS, ports differ", TOKENS, "{" REDIS "'rediss://r:6380','servicePort':6379}}",
		"redisConfig.servicePort" },
	{ "CFG-7 TLS without host", TOKENS, "{" REDIS "'rediss://','servicePort':6379}}",
		"redisConfig.serviceHost" },
	{ "CFG-7 TLS with a path", TOKENS, "{" REDIS "'rediss://r/0','servicePort':6379}}",
		"redisConfig.serviceHost" },
	{ "CFG-7 TLS with a user", TOKENS, "{" REDIS "'rediss://u:p@r','servicePort':6379}}",
		"redisConfig.serviceHost" },
	{ "TOK database", TOKENS, "{" REDIS "'r','servicePort':6379,'database':-1}}",
		"redisConfig.database" },
	{ "CFG-3 port is no text", TOKENS, "{" REDIS "'r','servicePort':'6379'}}",
		"redisConfig.servicePort" },
	{ "TOK limitType of rules", TOKENS, "{'rules':[{'limitType':'LimitByGlobal'," RULE_TAIL,
		"rules[0].limitType" },
	{ "TOK limitType of globalRules", TOKENS, "{'globalRules':[{'limitType':'LimitByModel'," RULE_TAIL,
	  "globalRules[0].limitType" },
	{ "TOK threshold 0", TOKENS, "{'rules':[{'limitType':'LimitByModel','threshold':0,'timeWindow':1}]}",
	  "rules[0].threshold" },
	{ "TOK threshold negative", TOKENS,
	  "{'globalRules':[{'limitType':'LimitByGlobal','threshold':-1,'timeWindow':1}]}",
	  "globalRules[0].threshold" },
	{ "TOK threshold 2^53", TOKENS,
	  "{'rules':[{'limitType':'LimitByModel','threshold':9007199254740992,'timeWindow':1}]}", NULL },
	{ "TOK threshold above 2^53", TOKENS,
	  "{'rules':[{'limitType':'LimitByModel','threshold':9007199254740993,'timeWindow':1}]}",
	  "rules[0].threshold" },
	{ "TOK timeWindow 0", TOKENS, "{'rules':[{'limitType':'LimitByModel','threshold':1,'timeWindow':0}]}",
	  "rules[0].timeWindow" },
	{ "TOK timeWindow above a year", TOKENS,
	  "{'rules':[{'limitType':'LimitByModel','threshold':1,'timeWindow':31536001}]}",
	  "rules[0].timeWindow" },
	{ "TOK timeWindow is required", TOKENS, "{'rules':[{'limitType':'LimitByModel','threshold':1}]}",
	  "rules[0].timeWindow" },
	{ "TOK responseStatusCode low", TOKENS,
	  "{'rules':[{'limitType':'LimitByModel','responseStatusCode':199," RULE_TAIL,
	  "rules[0].responseStatusCode" },
	{ "TOK responseStatusCode high", TOKENS,
	  "{'globalRules':[{'limitType':'LimitByGlobal','responseStatusCode':600," RULE_TAIL,
	  "globalRules[0].responseStatusCode" },
	{ "TOK status without body", TOKENS,
	  "{'rules':[{'limitType':'LimitByModel','responseStatusCode':204,'responseContentBody':'x'," RULE_TAIL,
	  "rules[0].responseContentBody" },
	{ "TOK response fields of globalRules", TOKENS,
	  "{'globalRules':[{'limitType':'LimitByGlobal','responseContentBody':'x'," RULE_TAIL, NULL },
	{ "TOK global rules empty", TOKENS, "{'globalRules':[]}", "globalRules" },
	{ "TOK global rules missing", TOKENS, "{'globalRules':null}", "globalRules" },
	{ "TOK no rule at all", TOKENS, "{'rules':null,'enableGlobalRules':null,'globalRules':null}",
		"rules" },
	{ "TOK global rules off", TOKENS, "{'rules':[],'enableGlobalRules':false}", "rules" },
	{ "TOK global rules only", TOKENS, "{'rules':[]}", NULL },
	{ "CFG-4 unknown member of a rule", TOKENS,
		"{'rules':[{'limitType':'LimitByModel','limit':1," RULE_TAIL,
	  "rules[0].limit" },

	{ "CAC cacheTTL 0", &ai_cache, "{'cacheTTL':0}", "cacheTTL" },
	{ "CAC cacheTTL above a year", &ai_cache, "{'cacheTTL':31536001}", "cacheTTL" },
	{ "CAC cacheTTL is required", &ai_cache, "{'cacheTTL':null}", "cacheTTL" },
	{ "CAC cacheMode choices", &ai_cache, "{'cacheMode':'fuzzy'}", "cacheMode" },
	{ "CAC cacheKeyStrategy choices", &ai_cache, "{'cacheKeyStrategy':'model'}", "cacheKeyStrategy" },
	{ "CAC cacheKeyStrategy lastQuestion", &ai_cache, "{'cacheKeyStrategy':'lastQuestion'}", NULL },
	{ "CAC cacheKeyStrategy absent", &ai_cache, "{'cacheKeyStrategy':null}", NULL },
	{ "CAC redisConfig is required", &ai_cache, "{'redisConfig':null}", "redisConfig" },
	{ "CFG-7 ports differ (cache)", &ai_cache, "{" REDIS "'r:1','servicePort':2}}",
		"redisConfig.servicePort" },
	{ "CAC semantic", &ai_cache, "{'cacheMode':'semantic'," VECTOR_OK "," EMBEDDING "}", NULL },
	{ "CAC semantic without vectorConfig", &ai_cache, "{'cacheMode':'semantic'," EMBEDDING "}",
		"vectorConfig" },
	{ "CAC semantic without embeddingConfig", &ai_cache, "{'cacheMode':'semantic'," VECTOR_OK "}",
	  "embeddingConfig" },
	{ "CAC vector type", &ai_cache,
	  "{'vectorConfig':{'type':'dashvector','serviceHost':'h','apiKey':'k','timeout':1,'collectionId':'c',"
	  "'threshold':1}}", "vectorConfig.type" },
	{ "CAC vector members are required", &ai_cache, "{" VECTOR "'serviceHost':'h'}}",
		"vectorConfig.collectionId" },
	{ "CAC threshold above 1", &ai_cache,
	  "{'vectorConfig':{'type':'adb-postgres','serviceHost':'h','apiKey':'k','timeout':1,'collectionId':'c',"
	  "'threshold':1.01}}", "vectorConfig.threshold" },
	{ "CAC threshold below 0", &ai_cache,
	  "{'vectorConfig':{'type':'adb-postgres','serviceHost':'h','apiKey':'k','timeout':1,'collectionId':'c',"
	  "'threshold':-0.1}}", "vectorConfig.threshold" },
	{ "CAC vector timeout", &ai_cache,
	  "{'vectorConfig':{'type':'adb-postgres','serviceHost':'h','apiKey':'k','timeout':60001,'collectionId':'c',"
	  "'threshold':1}}", "vectorConfig.timeout" },
	{ "CAC-19 table name", &ai_cache, "{" VECTOR "'serviceHost':'pg','collectionId':'1abc'}}",
	  "vectorConfig.collectionId" },
	{ "CAC-19 table with too many parts", &ai_cache,
		"{" VECTOR "'serviceHost':'pg','collectionId':'a.b.c'}}",
	  "vectorConfig.collectionId" },
	{ "CAC-19 table injection", &ai_cache, "{" VECTOR "'serviceHost':'pg','collectionId':'a;drop'}}",
	  "vectorConfig.collectionId" },
	{ "CAC-19 postgres "
		"URL", &ai_cache, "{" VECTOR "'serviceHost':'postgres://pg:5432/x','collectionId':'c'}}",
	  NULL },
	{ "CAC-19 postgres URL with user", &ai_cache,
		"{" VECTOR "'serviceHost':'postgres://u:p@pg/x','collectionId':'c'}}",
	  "vectorConfig.serviceHost" },
	{ "CAC-19 "
		"DashVector", &ai_cache,
		"{" VECTOR "'serviceHost':'https://v.example.com','collectionId':'my-c'}}",
	  NULL },
	{ "CAC embedding type", &ai_cache, "{'embeddingConfig':{'type':'openai','serviceId':'s'}}",
	  "embeddingConfig.type" },
	{ "CAC embedding serviceId is required", &ai_cache, "{'embeddingConfig':{'type':'azure'}}",
	  "embeddingConfig.serviceId" },
	{ "CAC embedding extensions", &ai_cache,
	  "{'embeddingConfig':{'type':'azure','serviceId':'s','modelName':'m','timeout':100}}", NULL },

	{ "SRC provider", &ai_network_search, "{'provider':'duckduckgo'}", "provider" },
	{ "SRC provider alias", &ai_network_search, "{'provider':'aliyunQuark'}", NULL },
	{ "SRC apiKey is required", &ai_network_search, "{'provider':'arxiv','apiKey':null}", "apiKey" },
	{ "SRC apiKey not empty", &ai_network_search, "{'apiKey':''}", "apiKey" },
	{ "SRC google key", &ai_network_search, "{'provider':'google'}", "apiKey" },
	{ "SRC google cx and key", &ai_network_search, "{'provider':'google','apiKey':'cx:key'}", NULL },
	{ "SRC google without key", &ai_network_search, "{'provider':'google','apiKey':'cx:'}", "apiKey" },
	{ "SRC google results", &ai_network_search, "{'provider':'google','apiKey':'cx:key','maxResults':11}",
	  "maxResults" },
	{ "SRC maxResults low", &ai_network_search, "{'maxResults':0}", "maxResults" },
	{ "SRC maxResults high", &ai_network_search, "{'maxResults':51}", "maxResults" },
	{ "SRC timeout low", &ai_network_search, "{'timeout':99}", "timeout" },
	{ "SRC timeout high", &ai_network_search, "{'timeout':60001}", "timeout" },
	{ "SRC endpoint", &ai_network_search, "{'endpoint':'http://127.0.0.1:8000/search'}", NULL },
	{ "SRC endpoint is a URL", &ai_network_search, "{'endpoint':'search.example.com'}", "endpoint" },

	{ "TSL tools are required", &ai_tool_selection, "{'tools':null}", "tools" },
	{ "TSL tools empty", &ai_tool_selection, "{'tools':[]}", "tools" },
	{ "TSL empty name", &ai_tool_selection, "{'tools':[{'name':'','description':'d','enabled':true}]}",
	  "tools[0].name" },
	{ "TSL duplicate name", &ai_tool_selection,
	  "{'tools':[{'name':'a','description':'','enabled':true},{'name':'a','description':'','enabled':false}]}",
	  "tools[1].name" },
	{ "TSL names are case-sensitive", &ai_tool_selection,
	  "{'tools':[{'name':'a','description':'','enabled':true},"
	  "{'name':'A','description':'','enabled':false}]}", NULL },
	{ "TSL description is required", &ai_tool_selection, "{'tools':[{'name':'a','enabled':true}]}",
	  "tools[0].description" },
	{ "TSL enabled is required", &ai_tool_selection, "{'tools':[{'name':'a','description':'d'}]}",
	  "tools[0].enabled" },

	{ "AUT type", &authentication, "{'authenticationType':'oauth2'}", "authenticationType" },
	{ "AUT type is required", &authentication, "{'authenticationType':null}", "authenticationType" },
	{ "AUT type case", &authentication, "{'authenticationType':'Key-Auth'}", "authenticationType" },
	{ "AUT basic-auth", &authentication, "{'authenticationType':'basic-auth'}", NULL },
	{ "AUT jwt-auth", &authentication, "{'authenticationType':'jwt-auth'}", NULL },
	{ "CFG-4 unknown field of Authentication", &authentication, "{'consumers':[]}", "consumers" },

	{ "JWT name is required", &jwt_auth, "{'name':null}", "name" },
	{ "JWT name not empty", &jwt_auth, "{'name':''}", "name" },
	{ "JWT name of "
		"65", &jwt_auth,
		"{'name':'aaaaaaaaaabbbbbbbbbbaaaaaaaaaabbbbbbbbbbaaaaaaaaaabbbbbbbbbb12345'}",
	  "name" },
	{ "JWT issuer is required", &jwt_auth, "{'issuer':null}", "issuer" },
	{ "JWT issuer need not be a URL", &jwt_auth, "{'issuer':'accounts.google.com'}", NULL },
	{ "JWT jwks is required", &jwt_auth, "{'jwks':null}", "jwks" },
	{ "CFG-8 jwks is a URL", &jwt_auth, "{'jwks':'jwks.json'}", "jwks" },
	{ "JWT inline jwks broken", &jwt_auth, "{'jwks':'{`keys`:['}", "jwks" },
	{ "JWT inline jwks without keys", &jwt_auth, KEYS(""), "jwks" },
	{ "JWT inline jwks is no set", &jwt_auth, "{'jwks':'{`kty`:`oct`,`k`:`AAAA`}'}", "jwks" },
	{ "JWT-6 inline oct", &jwt_auth, KEYS("{`kty`:`oct`,`k`:`" X32 "`}"), NULL },
	{ "JWT-6 inline RSA 2048", &jwt_auth, KEYS("{`kty`:`RSA`,`e`:`AQAB`,`n`:`" RSA_2048 "`}"), NULL },
	{ "JWT-6 inline RSA 1024", &jwt_auth, KEYS("{`kty`:`RSA`,`e`:`AQAB`,`n`:`" RSA_1024 "`}"), "jwks" },
	{ "JWT-6 inline EC", &jwt_auth,
	  KEYS("{`kty`:`EC`,`crv`:`P-256`,`x`:`" X32 "`,`y`:`" X32 "`,`alg`:`ES256`,`use`:`sig`}"), NULL },
	{ "JWT-7 alg of another curve", &jwt_auth,
	  KEYS("{`kty`:`EC`,`crv`:`P-256`,`x`:`" X32 "`,`y`:`" X32 "`,`alg`:`ES384`}"), "jwks" },
	{ "JWT-6 EC with short x", &jwt_auth, KEYS("{`kty`:`EC`,`crv`:`P-256`,`x`:`AAAA`,`y`:`" X32 "`}"),
		"jwks" },
	{ "JWT-6 EC on another curve", &jwt_auth,
	  KEYS("{`kty`:`EC`,`crv`:`secp256k1`,`x`:`" X32 "`,`y`:`" X32 "`}"), "jwks" },
	{ "JWT-6 Ed25519", &jwt_auth, KEYS("{`kty`:`OKP`,`crv`:`Ed25519`,`x`:`" X32 "`}"), NULL },
	{ "JWT-6 X25519", &jwt_auth, KEYS("{`kty`:`OKP`,`crv`:`X25519`,`x`:`" X32 "`}"), "jwks" },
	{ "JWT-7 key for "
		"encryption", &jwt_auth, KEYS("{`kty`:`OKP`,`crv`:`Ed25519`,`use`:`enc`,`x`:`" X32 "`}"),
		"jwks" },
	{ "JWT-6 one usable key is enough", &jwt_auth,
		KEYS("{`kty`:`PQC`},{`kty`:`OKP`,`crv`:`Ed25519`,`x`:`" X32 "`}"),
	  NULL },
	{ "JWT tokenPosition", &jwt_auth, "{'tokenPosition':'body'}", "tokenPosition" },
	{ "JWT tokenPosition case", &jwt_auth, "{'tokenPosition':'HEADER'}", NULL },
	{ "JWT tokenName is a header name", &jwt_auth, "{'tokenName':'my token'}", "tokenName" },
	{ "JWT tokenName of a query", &jwt_auth, "{'tokenPosition':'query','tokenName':'my token'}", NULL },
	{ "JWT tokenName is required", &jwt_auth, "{'tokenName':''}", "tokenName" },
	{ "JWT tokenPass is required", &jwt_auth, "{'tokenPass':null}", "tokenPass" },
	{ "JWT tokenNamePrefix absent", &jwt_auth, "{'tokenNamePrefix':null,'sub':null}", NULL },
	{ "JWT whiteOrBlack", &jwt_auth, "{'whiteOrBlack':'grey'}", "whiteOrBlack" },
	{ "JWT whiteOrBlack White", &jwt_auth, "{'whiteOrBlack':'White'}", NULL },
	{ "JWT whiteOrBlack alias", &jwt_auth, "{'whiteOrBlack':'blacklist'}", NULL },
	{ "JWT resource path and match", &jwt_auth, RESOURCE("{'path':'/public','matchType':'PRE'}"), NULL },
	{ "JWT resource in full", &jwt_auth,
	  RESOURCE("{'domainName':'*.example.com','path':'/a','matchType':'EQUAL','ignoreCase':false,"
	           "'headers':[{'headerKey':'x-env','headerMethod':'EQUAL','headerValue':'test'}]}"), NULL },
	{ "JWT resource matchType", &jwt_auth, RESOURCE("{'path':'/a','matchType':'SUFFIX'}"),
	  "authResources[0].matchType" },
	{ "JWT resource Alibaba spelling", &jwt_auth, RESOURCE("{'path':'^/a+$','matchType':'ERGULAR'}"),
		NULL },
	{ "JWT resource regex", &jwt_auth, RESOURCE("{'path':'/ok'},{'path':'/a(','matchType':'REGEX'}"),
	  "authResources[1].path" },
	{ "JWT resource path without slash", &jwt_auth, RESOURCE("{'path':'a'}"), "authResources[0].path" },
	{ "JWT resource for everything", &jwt_auth, RESOURCE("{}"), "authResources[0]" },
	{ "JWT resource domain", &jwt_auth, RESOURCE("{'domainName':'a b'}"), "authResources[0].domainName" },
	{ "JWT resource unknown member", &jwt_auth, RESOURCE("{'paths':'/a'}"), "authResources[0].paths" },
	{ "JWT resource header value is required", &jwt_auth,
	  RESOURCE("{'headers':[{'headerKey':'a','headerMethod':'PREFIX'}]}"),
	  "authResources[0].headers[0].headerValue" },
	{ "JWT resource header exists", &jwt_auth,
		RESOURCE("{'headers':[{'headerKey':'a','headerMethod':'NOT_EXIST'}]}"),
	  NULL },
	{ "JWT resource header regex", &jwt_auth,
	  RESOURCE("{'headers':[{'headerKey':'a','headerMethod':'REGEX','headerValue':'('}]}"),
	  "authResources[0].headers[0].headerValue" },
	{ "JWT resource header "
		"name", &jwt_auth, RESOURCE("{'headers':[{'headerKey':'a:','headerMethod':'EXIST'}]}"),
	  "authResources[0].headers[0].headerKey" },
	{ "JWT resources text", &jwt_auth, "{'resources':'[{`path`:`/a`,`matchType`:`PRE`}]'}", NULL },
	{ "JWT resources must parse", &jwt_auth, "{'resources':'/a,/b'}", "resources" },
	{ "JWT resources is a list", &jwt_auth, "{'resources':'{`path`:`/a`}'}", "resources" },
	{ "JWT resources has its paths", &jwt_auth,
		"{'resources':'[{`path`:`/a`},{`path`:`(`,`matchType`:`REGEX`}]'}",
	  "resources[1].path" },
	{ "JWT resources unknown member", &jwt_auth, "{'resources':'[{`url`:`/a`}]'}", "resources[0].url" },

	{ "OID issuer is required", &oidc_auth, "{'issuer':null}", "issuer" },
	{ "OID issuer is https", &oidc_auth, "{'issuer':'http://idp.example.com'}", "issuer" },
	{ "OID issuer on loopback", &oidc_auth, "{'issuer':'http://127.0.0.1:8080/realms/a'}", NULL },
	{ "OID issuer in a private net", &oidc_auth, "{'issuer':'http://10.1.2.3/'}", NULL },
	{ "OID issuer by a private name", &oidc_auth, "{'issuer':'http://keycloak:8080/realms/a'}", NULL },
	{ "OID issuer on a public address", &oidc_auth, "{'issuer':'http://8.8.8.8/'}", "issuer" },
	{ "OID issuer without query", &oidc_auth, "{'issuer':'https://idp.example.com/?a=b'}", "issuer" },
	{ "OID clientId is required", &oidc_auth, "{'clientId':''}", "clientId" },
	{ "OID clientSecret is required", &oidc_auth, "{'clientSecret':null}", "clientSecret" },
	{ "OID redirectUri path", &oidc_auth, "{'redirectUri':'https://your-app.com/'}", "redirectUri" },
	{ "OID redirectUri without path", &oidc_auth, "{'redirectUri':'https://your-app.com'}",
		"redirectUri" },
	{ "OID redirectUri query", &oidc_auth, "{'redirectUri':'https://your-app.com/cb?a=b'}",
		"redirectUri" },
	{ "OID redirectUri is not the sign-out", &oidc_auth, "{'redirectUri':'https://your-app.com/oauth2/sign%5Fout'}",
		"redirectUri" },
	{ "OID redirectUri is the root in disguise", &oidc_auth, "{'redirectUri':'https://your-app.com/a/..'}",
		"redirectUri" },
	{ "OID redirectUri below the root", &oidc_auth, "{'redirectUri':'https://your-app.com/a/../../b'}",
		"redirectUri" },
	{ "OID redirectUri is a URL", &oidc_auth, "{'redirectUri':'/callback'}", "redirectUri" },
	{ "OID scopes empty", &oidc_auth, "{'scopes':[]}", "scopes" },
	{ "OID scope empty", &oidc_auth, "{'scopes':['openid','']}", "scopes[1]" },
	{ "OID scope with blank", &oidc_auth, "{'scopes':['openid email']}", "scopes[0]" },
	{ "OID scopes is a list", &oidc_auth, "{'scopes':'openid'}", "scopes" },
	{ "OID openid may be missing", &oidc_auth, "{'scopes':['email']}", NULL },

	{ "EXT URL is required", &external_z_auth, "{'authServiceUrl':''}", "authServiceUrl" },
	{ "EXT scheme", &external_z_auth, "{'authServiceUrl':'tcp://auth:1'}", "authServiceUrl" },
	{ "EXT-1 URL with query", &external_z_auth, "{'authServiceUrl':'http://auth/v?a=b'}", NULL },
	{ "EXT timeout low", &external_z_auth, "{'timeout':0}", "timeout" },
	{ "EXT timeout high", &external_z_auth, "{'timeout':60001}", "timeout" },
	{ "EXT timeout absent", &external_z_auth, "{'timeout':null}", NULL },

	{ "WAF enable is a bool", &waf, "{'enable':'true'}", "enable" },
	{ "CFG-5 disabled is validated too", &ai_cache, "{'enable':false,'cacheTTL':0}", "cacheTTL" },
	{ "CFG-5 disabled is accepted", &ai_cache, "{'enable':false}", NULL },
};
#define CASES (sizeof(cases) / sizeof(cases[0]))

static const char *sample_of(const struct policy_class *class)
{
	size_t i;

	for (i = 0; i < SAMPLES; i++)
		if (samples[i].class == class)
			return samples[i].config;
	fail_msg("no sample of %s", class->name);
	return NULL;
}

static struct json *parse(struct arena *a, const char *text)
{
	struct sbuf plain = { 0 };
	struct problem why = { 0 };
	struct json *v;

	for (; *text; text++) {
		if (*text == '`')
			SBUF_LIT(&plain, "\\\"");
		else
			sbuf_addc(&plain, *text == '\'' ? '"' : *text);
	}
	v = json_parse(a, arena_copy(a, sbuf_str(&plain)), &why);
	sbuf_free(&plain);
	if (!v)
		fail_msg("the test's own JSON is wrong: %s", why.text);
	return v;
}

static bool validate(const struct policy_class *class, const struct json *config, struct arena *a, void **conf,
                     struct problem *why)
{
	*conf = arena_alloc(a, class->conf_size);
	return fields_decode(class->fields, config, *conf, a, why) && (!class->check || class->check(*conf,
		why));
}

static void run_case(void **state)
{
	const struct test_case *c = *state;
	struct arena a = { 0 };
	struct problem why = { 0 };
	struct json *config = parse(&a, sample_of(c->class)), *members = parse(&a, c->members);
	void *conf;
	bool ok;

	for (struct json *m = members->child, *after; m; m = after) {
		after = m->next;
		json_put(&a, config, arena_copy(&a, m->name).p, m);
	}
	ok = validate(c->class, config, &a, &conf, &why);
	if (c->path && ok)
		fail_msg("accepted; expected a complaint about %s", c->path);
	if (!c->path && !ok)
		fail_msg("refused: %s %s", why.field, why.text);
	if (c->path) {
		assert_string_equal(why.field, c->path);
		assert_true(why.text[0]);
	}
	arena_free(&a);
}

static void samples_are_accepted(void **state)
{
	size_t i;

	(void)state;
	for (i = 0; i < SAMPLES; i++) {
		struct arena a = { 0 };
		struct problem why = { 0 };
		void *conf;

		if (!validate(samples[i].class, parse(&a, samples[i].config), &a, &conf, &why))
			fail_msg("%s: %s %s", samples[i].class->name, why.field, why.text);
		assert_true(*((bool *)conf + samples[i].class->enable_at));
		arena_free(&a);
	}
}

static void own_examples_are_accepted(void **state)
{
	size_t i;

	(void)state;
	for (i = 0; i < 2 * SAMPLES; i++) {
		const struct policy_class *class = samples[i / 2].class;
		struct arena a = { 0 };
		struct problem why = { 0 };
		void *conf;

		if (!validate(class, fields_example(class->fields, i % 2 == 1, &a), &a, &conf, &why))
			fail_msg("%s: %s %s", class->name, why.field, why.text);
		arena_free(&a);
	}
}

/* CFG-1 and CFG-4. */
static void enable_is_required_and_unknown_members_are_refused(void **state)
{
	size_t i;

	(void)state;
	for (i = 0; i < SAMPLES; i++) {
		struct arena a = { 0 };
		struct problem why = { 0 };
		struct json *config = parse(&a, samples[i].config);
		void *conf;

		json_drop(config, "enable");
		assert_false(validate(samples[i].class, config, &a, &conf, &why));
		assert_string_equal(why.field, "enable");
		json_put(&a, config, "enabled", json_new_bool(&a, true));
		assert_false(validate(samples[i].class, config, &a, &conf, &why));
		assert_string_equal(why.field, "enabled");
		arena_free(&a);
	}
}

/* CFG-9, with Api and Operation wherever Route is. */
static void scopes_are_those_of_the_reference(void **state)
{
	size_t i;

	(void)state;
	for (i = 0; i < SAMPLES; i++)
		assert_int_equal(samples[i].class->scopes, samples[i].scopes);
}

/* CFG-6. */
static void look_for_secrets(void *arg, const char *path, const struct field *row)
{
	struct sbuf *found = arg;

	if (row->secret)
		sbuf_addf(found, "%s ", path);
}

static void secrets_are_marked(void **state)
{
	static const struct {
		const struct policy_class *class;
		const char *paths;
	} expected[] = {
		{ &ai_token_rate_limit, "redisConfig.password " },
		{ &ai_cache, "redisConfig.password vectorConfig.apiKey " },
		{ &ai_network_search, "apiKey " },
		{ &oidc_auth, "clientSecret " },
	};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(expected) / sizeof(expected[0]); i++) {
		struct sbuf found = { 0 };

		fields_walk(expected[i].class->fields, look_for_secrets, &found);
		assert_non_null(found.p);
		assert_string_equal(found.p, expected[i].paths);
		sbuf_free(&found);
	}
}

/* STA: an absent object has its defaults, they are not just zero. */
static void defaults_are_filled_in(void **state)
{
	static const struct {
		const struct policy_class *class;
		const char *config, *filled;
	} rows[] = {
		{ &ai_statistics, "{'enable':true}",
			"{'enable':true,'aiStatisticsConfig':{'logRequestContent':true,"
		  "'logResponseContent':true}}" },
		{ &external_z_auth, "{'authServiceUrl':'http://a/','enable':true}",
		  "{'authServiceUrl':'http://a/','timeout':5000,'enable':true}" },
		{ &ai_network_search, "{'enable':true,'provider':'aliyunQuark','apiKey':'k'}",
		  "{'enable':true,'provider':'quark','maxResults':10,'timeout':5000}" },
	};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct arena a = { 0 };
		struct problem why = { 0 };
		void *conf;

		assert_true(validate(rows[i].class, parse(&a, rows[i].config), &a, &conf, &why));
		assert_true(json_equal(fields_encode(rows[i].class->fields, conf, &a), parse(&a,
			rows[i].filled)));
		arena_free(&a);
	}
}

/* A gateway with a plain service svc-1, an AI service svc-ai and a domain dom-1; svc-far is elsewhere. */
static const struct json *find_resource(const struct attach_target *t, const char *kind, struct str id)
{
	static const char *const documents[] = {
		"{'kind':'service','id':'svc-1','gatewayId':'gw-1'}",
		("{'kind':'service','id':'svc-ai','gatewayId':'gw-1',"
		 "'aiServiceConfig':{'provider':'qwen','address':'https://a.example/?api-version=1','apiKeys':['k']}}"),
		("{'kind':'service','id':'svc-bare','gatewayId':'gw-1',"
		 "'aiServiceConfig':{'provider':'qwen','address':'https://a.example/?x=1','apiKeys':['k']}}"),
		("{'kind':'service','id':'svc-keyless','gatewayId':'gw-1',"
		 "'aiServiceConfig':{'provider':'qwen','address':'https://a.example','apiKeys':[]}}"),
		"{'kind':'service','id':'svc-far','gatewayId':'gw-2'}",
		"{'kind':'domain','id':'dom-1','gatewayId':'gw-1'}",
	};
	size_t i;

	for (i = 0; i < sizeof(documents) / sizeof(documents[0]); i++) {
		const struct json *v = parse(t->arg, documents[i]);

		if (str_equal(json_text(v, "kind"), str_of(kind)) && str_equal(json_text(v, "id"), id))
			return v;
	}
	return NULL;
}

static const struct test_case attach_cases[] = {
	{ "FBK serviceId exists", &ai_fallback,
	  "{'fallbackModelMappings':[{'model':'a','fallbackModels':[{'serviceId':'svc-ai','model':'m'}]}]}",
	  NULL },
	{ "FBK serviceId unknown", &ai_fallback,
	  "{'fallbackModelMappings':[{'model':'a','fallbackModels':[{'serviceId':'svc-1','model':'m'},"
	  "{'serviceId':'svc-9','model':'m'}]}]}", "fallbackModelMappings[0].fallbackModels[1].serviceId" },
	{ "FBK serviceId of another gateway", &ai_fallback,
	  "{'fallbackModelMappings':[{'model':'a','fallbackModels':[{'serviceId':'svc-far','model':'m'}]}]}",
	  "fallbackModelMappings[0].fallbackModels[0].serviceId" },
	{ "FBK primary with another model", &ai_fallback,
	  "{'fallbackModelMappings':[{'model':'a','fallbackModels':[{'serviceId':'svc-1','model':'b'}]}]}",
	  NULL },
	{ "FBK primary with the same model", &ai_fallback,
	  "{'fallbackModelMappings':[{'model':'a','fallbackModels':[{'serviceId':'svc-1','model':'a'}]}]}",
	  "fallbackModelMappings[0].fallbackModels[0]" },
	{ "CAC exact needs no service", &ai_cache, "{}", NULL },
	{ "CAC embedding service unknown", &ai_cache, "{'cacheMode':'semantic'," VECTOR_OK "," EMBEDDING "}",
	  "embeddingConfig.serviceId" },
	{ "CAC embedding service without AI config", &ai_cache,
	  "{'cacheMode':'semantic'," VECTOR_OK ",'embeddingConfig':{'type':'azure','serviceId':'svc-1'}}",
	  "embeddingConfig.serviceId" },
	{ "CAC embedding service", &ai_cache,
	  "{'cacheMode':'semantic'," VECTOR_OK ",'embeddingConfig':{'type':'azure','serviceId':'svc-ai'}}",
	  NULL },
	{ "CAC embedding service without api-version", &ai_cache,
	  "{'cacheMode':'semantic'," VECTOR_OK ",'embeddingConfig':{'type':'azure','serviceId':'svc-bare'}}",
	  "embeddingConfig.serviceId" },
	{ "CAC embedding service of dashscope", &ai_cache,
	  "{'cacheMode':'semantic'," VECTOR_OK ",'embeddingConfig':{'type':'dashscope','serviceId':'svc-bare'}}",
	  NULL },
	{ "CAC embedding service without key", &ai_cache,
	  "{'cacheMode':'semantic'," VECTOR_OK ",'embeddingConfig':{'type':'dashscope','serviceId':'svc-keyless'}}",
	  "embeddingConfig.serviceId" },
	{ "JWT domainId exists", &jwt_auth, RESOURCE("{'domainId':'dom-1'}"), NULL },
	{ "JWT domainId unknown", &jwt_auth, RESOURCE("{'path':'/a'},{'domainId':'dom-2'}"),
		"authResources[1].domainId" },
	{ "JWT domainId unknown in the text", &jwt_auth, "{'resources':'[{`domainId`:`dom-2`}]'}",
	  "resources[0].domainId" },
};
#define ATTACH_CASES (sizeof(attach_cases) / sizeof(attach_cases[0]))

static void run_attach_case(void **state)
{
	const struct test_case *c = *state;
	struct arena a = { 0 };
	struct problem why = { 0 };
	struct json *config = parse(&a, sample_of(c->class)), *members = parse(&a, c->members);
	struct attach_target target = {
		.resource = parse(&a, "{'kind':'service','id':'svc-1','gatewayId':'gw-1'}"),
		.gateway_id = STR("gw-1"),
		.find = find_resource,
		.arg = &a,
	};
	void *conf;
	bool ok;

	for (struct json *m = members->child, *after; m; m = after) {
		after = m->next;
		json_put(&a, config, arena_copy(&a, m->name).p, m);
	}
	if (!validate(c->class, config, &a, &conf, &why))
		fail_msg("the test's own config is refused: %s %s", why.field, why.text);
	ok = c->class->attach(conf, &target, &why);
	assert_int_equal(ok, !c->path);
	if (c->path)
		assert_string_equal(why.field, c->path);
	arena_free(&a);
}

static struct CMUnitTest name_test(const struct test_case *c, CMUnitTestFunction run)
{
	return (struct CMUnitTest){ .name = c->rule, .test_func = run, .initial_state = (void *)(uintptr_t)c };
}

int main(void)
{
	static const struct CMUnitTest general[] = {
		cmocka_unit_test(samples_are_accepted),
		cmocka_unit_test(own_examples_are_accepted),
		cmocka_unit_test(enable_is_required_and_unknown_members_are_refused),
		cmocka_unit_test(scopes_are_those_of_the_reference),
		cmocka_unit_test(secrets_are_marked),
		cmocka_unit_test(defaults_are_filled_in),
	};
	static struct CMUnitTest tabled[CASES + ATTACH_CASES];
	size_t i;
	int failed;

	for (i = 0; i < CASES; i++)
		tabled[i] = name_test(&cases[i], run_case);
	for (i = 0; i < ATTACH_CASES; i++)
		tabled[CASES + i] = name_test(&attach_cases[i], run_attach_case);
	failed = cmocka_run_group_tests(general, NULL, NULL);
	failed += cmocka_run_group_tests(tabled, NULL, NULL);
	return failed ? 1 : 0;
}
