/*
 * ip_access_control.c -- IpAccessControl: admits or refuses by IP address.
 *
 * L7 judges each request by the client address (after trusted proxies) and answers 403. L4 judges the TCP
 * peer: at a gateway when the connection is accepted, and again on every request, so that a list made later
 * also ends connections that are open; at a domain or route after the match. L4 closes without a byte.
 *
 * Every list on the way decides by itself and one refusal is enough: blacklists add up, whitelists intersect.
 */
#include "core/cidr.h"
#include "policy/formats.h"
#include "proxy/policy.h"

#define LIST_MAX 10000

enum list_type { LIST_WHITE, LIST_BLACK };
enum layer { LAYER_REQUEST, LAYER_CONNECTION };
enum outcome { ADMITTED, DENIED };

struct ip_access_control {
	struct str name;
	struct str description;
	struct str ipAccessControlResourceName;
	int ipAccessControlResourceType;  /* enum scope: GATEWAY, DOMAIN or ROUTE */
	int ipAccessControlType;
	struct str ipAccessControlContent;
	int protocolLayer;
	bool enable;
	struct cidr_set *set;             /* made by prepare() */
};

static const struct choice resource_types[] = {
	{ SCOPE_ROUTE, "Route", "a route, REST API, operation, model API or agent API", NULL },
	{ SCOPE_GATEWAY, "Gateway", "a gateway", NULL },
	{ SCOPE_DOMAIN, "Domain", "a domain", NULL },
	{ 0, NULL, NULL, NULL }
};

static const struct choice list_types[] = {
	{ LIST_WHITE, "White", "only listed addresses are admitted", NULL },
	{ LIST_BLACK, "Black", "listed addresses are refused", NULL },
	{ 0, NULL, NULL, NULL }
};

static const struct choice layers[] = {
	{ LAYER_REQUEST, "L7", "each request, by its client address; answered with 403", NULL },
	{ LAYER_CONNECTION, "L4", "the connection, by its TCP peer; closed without an answer", NULL },
	{ 0, NULL, NULL, NULL }
};

static bool check_description(struct str s, struct problem *why)
{
	if (str_code_points(s) > 200)
		return problem(why, "", "must have at most 200 characters");
	return true;
}

static bool check_address(struct str s, struct problem *why)
{
	struct ip base;
	unsigned prefix;

	if (!cidr_parse(s, &base, &prefix))
		return problem(why, "", "is no IP address or CIDR block such as 10.0.0.1, 192.168.1.0/24 or "
			"2001:db8::/32");
	return true;
}

static bool check_content(struct str content, struct problem *why)
{
	size_t n = 1;

	for (size_t i = 0; i < content.n; i++)
		n += content.p[i] == ',';
	if (n > LIST_MAX)
		return problem(why, "", "has %zu addresses, at most %d are allowed", n, LIST_MAX);
	return list_check(content, check_address, why);
}

static const struct field fields[] = {
	TEXT(struct ip_access_control, name, REQUIRED, RANGE(1, 256), FORMAT(format_name), EXAMPLE("\"office "
	     "only\""),
	     DOC("Name of the list, for people.")),
	TEXT(struct ip_access_control, description, RANGE(0, 800), FORMAT(check_description),
	     DOC("What the list is for; at most 200 characters.")),
	TEXT(struct ip_access_control, ipAccessControlResourceName, REQUIRED, RANGE(1, 256),
	     FORMAT(format_name),
	     EXAMPLE("\"api-route-1\""), DOC("Name of the resource it protects, for people.")),
	CHOICE(struct ip_access_control, ipAccessControlResourceType, resource_types, REQUIRED,
	       DOC("Kind of the resource; has to fit the resource the policy is attached to.")),
	CHOICE(struct ip_access_control, ipAccessControlType, list_types, REQUIRED, EXAMPLE("\"Black\""),
	       DOC("Whether the list admits or refuses.")),
	TEXT(struct ip_access_control, ipAccessControlContent, REQUIRED, RANGE(1, 524288),
	     FORMAT(check_content),
	     EXAMPLE("\"192.168.1.0/24,10.0.0.1\""),
	     DOC("IPv4 and IPv6 addresses and CIDR blocks, separated by commas; at most 10000.")),
	CHOICE(struct ip_access_control, protocolLayer, layers, REQUIRED, DOC("What is judged, and how it is "
	       "refused.")),
	BOOL(struct ip_access_control, enable, REQUIRED, DOC("Whether the policy acts.")),
	FIELDS_END
};

static bool prepare(void *conf, struct arena *a, struct problem *why)
{
	struct ip_access_control *control = conf;
	struct str rest = control->ipAccessControlContent, part;
	unsigned prefix;
	struct ip base;

	control->set = cidr_set_new(a);
	while (str_split(&rest, ',', &part)) {
		part = str_trim(part);
		if (!cidr_parse(part, &base, &prefix))
			return problem(why, "ipAccessControlContent", "\"%.*s\" is no IP address or CIDR "
				"block", STR_FMT(part));
		cidr_set_add(control->set, &base, prefix);
	}
	return true;
}

static bool attach(const void *conf, const struct attach_target *t, struct problem *why)
{
	const struct ip_access_control *control = conf;
	enum scope scope = t->scope & SCOPE_ROUTES ? SCOPE_ROUTE : t->scope;

	if ((int)scope != control->ipAccessControlResourceType)
		return problem(why, "ipAccessControlResourceType", "is %s, but the policy is attached to a "
			"resource of type %s",
			choice_text(resource_types, control->ipAccessControlResourceType),
				scope_name(t->scope));
	return true;
}

static bool admits(const struct ip_access_control *control, const struct ip *ip)
{
	return cidr_set_has(control->set, ip) == (control->ipAccessControlType == LIST_WHITE);
}

static bool judge_peer(const struct ip *peer, const struct step *s)
{
	const struct ip_access_control *control = s->conf;

	if (control->protocolLayer != LAYER_CONNECTION || admits(control, peer))
		return true;
	policy_count(s, DENIED);
	return false;
}

static bool judges_connections(const void *conf)
{
	return ((const struct ip_access_control *)conf)->protocolLayer == LAYER_CONNECTION;
}

static enum verdict judge_request(struct exchange *x, const struct step *s)
{
	const struct ip_access_control *control = s->conf;
	bool is_l4 = control->protocolLayer == LAYER_CONNECTION;

	if (LIKELY(admits(control, is_l4 ? exchange_peer_ip(x) : exchange_client_ip(x)))) {
		policy_count(s, ADMITTED);
		return next();
	}
	policy_count(s, DENIED);
	exchange_keep_flag(x, "IP");
	return is_l4 ? reply_close(x) : reply(x, 403, STR("text/plain"), STR("Access denied"));
}

const struct policy_class ip_access_control = {
	.name = "IpAccessControl",
	.alias = "IP access control",
	.summary = "Admits or refuses requests by IP address.",
	.group = "Security",
	.scopes = SCOPE_ROUTES | SCOPE_GATEWAY | SCOPE_DOMAIN,
	.stage = STAGE_IP,
	.combine = COMBINE_ADD,
	.many_per_resource = true,
	.is_enforced = true,
	.is_pure = true,
	.fail_status = 403,
	.execute_stage = "PluginAuthorization",
	.execute_priority = 900,
	.fields = fields,
	.conf_size = sizeof(struct ip_access_control),
	.enable_at = offsetof(struct ip_access_control, enable),
	.outcomes = { [ADMITTED] = "admitted", [DENIED] = "denied" },
	.prepare = prepare,
	.attach = attach,
	.connect = judge_peer,
	.connects = judges_connections,
	.request = judge_request,
};
