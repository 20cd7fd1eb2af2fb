/*
 * types.h -- the decoded form of every resource's document, members spelt as in the API.
 *
 * Filled by resource_decode(). Absent texts are {NULL, 0} or empty, absent lists have no items; an absent
 * object is zero and
 * its has_ flag is false.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "core/field.h"
#include "core/json.h"
#include "core/str.h"
#include "net/tls.h"

struct mesh {
	struct str meshId, name;
};

enum gateway_protocol { GATEWAY_HTTP, GATEWAY_HTTPS, GATEWAY_GRPC, GATEWAY_TCP, GATEWAY_TLS };

struct external_port {
	struct str number;                /* decimal, 1-65535 */
	int protocol;                     /* enum gateway_protocol */
	struct items hosts;               /* struct str */
};
struct cert_server {
	struct str secretName;
	struct items hosts;               /* struct str */
	int maxProtocolVersion, minProtocolVersion;   /* enum tls_version */
};
struct gateway_doc {
	struct str meshId, cluster, gateway, namespace, elbId;
	struct external_port externalPort;
	struct str serviceType;
	bool tlsTerminationEnable;
	struct items certList;            /* struct cert_server */
	struct str tlsMode;
	struct items externalIPs;         /* struct str */
	int maxProtocolVersion, minProtocolVersion;   /* enum tls_version */
	struct str ipv6Enable;            /* "true", "false" or absent */
	struct str defaultEnvironmentId;
};

struct feature_doc {
	struct str gatewayId, name;
	const struct json *value;
};

struct environment_doc {
	struct str name, alias, gatewayId;
};

enum domain_protocol { DOMAIN_HTTP, DOMAIN_HTTPS };
struct domain_doc {
	struct str name, gatewayId;
	int protocol;                     /* enum domain_protocol */
	struct str certIdentifier;
	bool forceHttps;
	int tlsMin, tlsMax;               /* enum tls_version */
	bool mTLSEnabled;
	struct str clientCACert;
};

struct certificate_doc {
	struct str name, namespace, certificate, privateKey, caCertificate;
};

enum source_type { SOURCE_VIP, SOURCE_DNS, SOURCE_AI, SOURCE_AGENT };
enum service_protocol { SERVICE_HTTP, SERVICE_HTTPS, SERVICE_HTTP2, SERVICE_GRPC, SERVICE_TCP };
struct service_address {                  /* "host:port" in the API, or this */
	struct str address;
	int64_t weight;                   /* 100 */
	const struct json *labels;        /* object of texts */
	struct str version;
};
struct service_port_entry {
	struct str name;
	int64_t port;
	int protocol;                     /* enum service_protocol */
};
struct service_version {
	struct str name;
	const struct json *labels;
};
enum health_protocol { HEALTH_CHECK_TCP, HEALTH_CHECK_HTTP, HEALTH_CHECK_GRPC };
struct health_check_config {
	bool enable;
	int protocol;                     /* enum health_protocol */
	struct str httpPath, httpHost;
	int64_t interval, timeout;        /* seconds */
	int64_t healthyThreshold, unhealthyThreshold;
};
struct outlier_detection_config {
	bool enable;
	int64_t consecutive5xx, interval, baseEjectionTime, maxEjectionPercent;   /* times in seconds */
};
struct ai_service_config {
	struct str provider, address;
	struct items apiKeys, protocols;  /* struct str */
};
struct app_credential {
	struct str appId, apiKey;
};
struct agent_service_config {
	struct str address;
	struct { struct items appCredentials; } dashScopeConfig;   /* struct app_credential */
	struct { struct str apiKey, botType; } difyConfig;
	struct { struct str apiKey; } customConfig;
	bool has_dashScopeConfig, has_difyConfig, has_customConfig;
};
struct service_doc {
	struct str name, gatewayId;
	int sourceType;                   /* enum source_type */
	const struct json *addresses;     /* list; items as text or object: service_addresses() decodes it */
	struct items ports;               /* struct service_port_entry */
	struct items versions;            /* struct service_version */
	struct health_check_config healthCheckConfig;
	struct outlier_detection_config outlierDetectionConfig;
	double healthyPanicThreshold;     /* percent */
	struct ai_service_config aiServiceConfig;
	struct agent_service_config agentServiceConfig;
	bool has_healthCheckConfig, has_outlierDetectionConfig, has_aiServiceConfig, has_agentServiceConfig;
};
/*
 * Decodes the addresses of a document: struct service_address items. false only for a document that was never
 * checked.
 */
MUST_USE bool service_addresses(
	const struct service_doc *s, struct arena *a, struct items *out, struct problem *why);
/* Splits "host:port", "host", "[::1]:port", "::1": port 0 when there is none. */
MUST_USE bool service_split_address(struct str address, struct str *host, uint16_t *port);

struct service_port_doc {
	struct str serviceId, gatewayId, name;
	int64_t port;
	int protocol;                     /* enum service_protocol */
};

enum path_type { PATH_EXACT, PATH_PREFIX, PATH_REGEX };
struct match_path {
	int type;                         /* enum path_type */
	struct str value;
};
struct match_condition {
	struct str name;
	int type;                         /* enum path_type */
	struct str value;
};
struct route_match {
	struct match_path path;
	struct items methods;             /* struct str */
	struct items headers, queryParams;   /* struct match_condition */
	bool ignoreUriCase;
};
enum backend_scene { SCENE_SINGLE_SERVICE, SCENE_MULTI_SERVICE_BY_RATIO, SCENE_MOCK, SCENE_REDIRECT };
struct backend_service {
	struct str serviceId;
	int64_t port;                     /* 0 = any */
	struct str version;
	int64_t weight;
};
struct backend {
	int scene;                        /* enum backend_scene */
	struct items services;            /* struct backend_service */
};
struct route_doc {
	struct str name, gatewayId, environmentId;
	struct items domainIds;           /* struct str */
	struct str description;
	struct route_match match;
	struct backend backend;
	bool has_backend;                 /* without one only a policy can answer */
};

struct api_doc {
	struct str name, gatewayId, environmentId;
	struct items domainIds;           /* struct str */
	struct str description, basePath;
	struct backend backend;
	bool has_backend;
};

struct operation_doc {
	struct str httpApiId, name, method, path;   /* path below the API's basePath, with { parameters } */
	struct str gatewayId, environmentId;        /* of the API; filled in by us */
	struct str description;
	struct backend backend;
	bool has_backend;                 /* false: the API's */
};

struct model_service {
	struct str serviceId;
	int64_t weight;
	struct str modelName, modelNamePattern;
};
struct llm_api_doc {
	struct str name, gatewayId, environmentId;
	struct items domainIds;           /* struct str */
	struct str description, basePath;
	bool removeBasePathOnForward;
	struct items aiProtocols;         /* struct str */
	struct items services;            /* struct model_service */
};

enum agent_protocol { AGENT_DASHSCOPE, AGENT_DIFY, AGENT_CUSTOM };
struct agent_api_doc {
	struct str name, gatewayId, environmentId;
	struct items domainIds;           /* struct str */
	struct str description, basePath;
	int protocol;                     /* enum agent_protocol */
	struct items services;            /* struct backend_service */
};

enum generate_mode { GENERATE_SYSTEM, GENERATE_CUSTOM };
enum credential_place { KEY_DEFAULT, KEY_HEADER, KEY_QUERY };
struct api_key_credential {
	struct str credentialId;
	struct str apikey;                /* as it was given; never kept */
	struct str digest;                /* what is kept: SHA-256, in hex */
	int generateMode;                 /* enum generate_mode */
};
enum secret_type { SECRET_SYMMETRY, SECRET_ASYMMETRY };
struct claim_to_header {
	struct str claim, header;
	bool override;
};
struct consumer_identities {
	struct {
		struct items credentials; /* struct api_key_credential */
		struct { int source; struct str value; } source;
	} apiKey;
	/* password as it was given, never kept; passwordHash (core/password.h) is */
	struct { struct str username, password, passwordHash; } basic;
	struct jwt_identity {
		struct str jwks;          /* JSON text */
		struct { struct str uri; } remoteJwks;
		int secretType;           /* enum secret_type */
		/* position: enum credential_place */
		struct { int position; struct str key, prefix; bool pass; } jwtTokenConfig;
		struct { struct str payloadKeyName, payloadKeyValue; } jwtPayloadConfig;
		struct items claimsToHeadersConfigs;   /* struct claim_to_header */
		bool has_remoteJwks, has_jwtTokenConfig;
	} jwt;
	bool has_apiKey, has_basic, has_jwt;
};
struct consumer_doc {
	struct str name;
	bool enable;
	struct str description;
	struct consumer_identities identities;
	bool has_identities;
};

enum expire_mode { EXPIRE_LONG_TERM, EXPIRE_SHORT_TERM };
struct rule_doc {
	struct str consumerId, resourceType, resourceId, environmentId;
	int expireMode;                   /* enum expire_mode */
	int64_t expireTimestamp;          /* Unix time in ms, with ShortTerm */
};

struct policy_doc {
	struct str name, className, config, description;
};

struct attachment_doc {
	struct items attachResourceIds;   /* struct str; the API takes them as attachResourceId, comma separated */
	struct str attachResourceId;
	struct str attachResourceType, environmentId, gatewayId, policyId;
};

struct token_doc {
	struct str name;
	struct items actions;             /* struct str, with '*' */
	struct str digest;                /* SHA-256 of the token, hex */
};
