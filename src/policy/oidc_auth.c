/*
 * oidc_auth.c -- OIDCAuth: browsers log in at an OpenID Connect provider (authorization code flow with PKCE).
 *
 * The callback lives at the path of redirectUri. Without a valid session a page request is sent to the
 * provider, anything else gets 401.
 */
#include "policy/formats.h"
#include "policy/side_url.h"
#include "proxy/policy.h"

struct oidc_auth {
	struct str issuer, clientId, clientSecret, redirectUri;
	struct items scopes;
	bool enable;
};

static bool has_query(struct str url)
{
	return str_find(url, '?') < url.n;
}

static bool check_issuer(struct str value, struct problem *why)
{
	struct url url;

	if (!side_url_format(value, why) || !url_parse(value, &url))
		return false;
	if (has_query(value))
		return problem(why, "", "must not have a query");
	if (!url.is_https && !side_url_is_private_host(url.host))
		return problem(why, "", "must be https; plain http is for loopback and private hosts only");
	return true;
}

static bool check_redirect(struct str value, struct problem *why)
{
	struct url url;

	if (!side_url_format(value, why) || !url_parse(value, &url))
		return false;
	if (has_query(value))
		return problem(why, "", "must not have a query");
	if (str_equal(url.target, STR("/")))
		return problem(why, "", "must have a path of its own, such as /callback; \"/\" would hide "
			"the application");
	return true;
}

/* RFC 6749 3.3: visible ASCII without quote and backslash. */
static bool check_scope(struct str value, struct problem *why)
{
	size_t i;

	for (i = 0; i < value.n; i++)
		if (value.p[i] <= ' ' || value.p[i] > '~' || value.p[i] == '"' || value.p[i] == '\\')
			return problem(why, "", "must be one scope: visible ASCII without blanks, quotes and "
				"backslashes");
	return true;
}

static const struct field fields[] = {
	TEXT(struct oidc_auth, issuer, REQUIRED, RANGE(1, SIDE_URL_MAX), FORMAT(check_issuer),
	     EXAMPLE("\"https://accounts.google.com\""),
	     DOC("URL of the provider, as its discovery document spells it.")),
	TEXT(struct oidc_auth, clientId, REQUIRED, RANGE(1, 512), FORMAT(format_line),
	     EXAMPLE("\"your-client-id\""),
	     DOC("Id of this application at the provider.")),
	TEXT(struct oidc_auth, clientSecret, REQUIRED, SECRET, RANGE(1, 4096),
	     EXAMPLE("\"your-client-secret\""),
	     DOC("Secret of this application at the provider.")),
	TEXT(struct oidc_auth, redirectUri, REQUIRED, RANGE(1, SIDE_URL_MAX), FORMAT(check_redirect),
	     EXAMPLE("\"https://your-app.com/callback\""),
	     DOC("URL of the callback, registered at the provider; the gateway answers its path itself.")),
	TEXTS(struct oidc_auth, scopes, REQUIRED, RANGE(1, 64), TEXT_MAX(256), FORMAT(check_scope),
	      EXAMPLE("[\"openid\", \"profile\", \"email\"]"),
	      DOC("Scopes that are asked for; \"openid\" is added if it is missing.")),
	BOOL(struct oidc_auth, enable, REQUIRED, DOC("Whether the policy acts.")),
	FIELDS_END
};

const struct policy_class oidc_auth = {
	.name = "OIDCAuth",
	.alias = "OpenID Connect login",
	.summary = "Has users log in at an OpenID Connect provider.",
	.group = "Security",
	.scopes = SCOPE_ROUTES | SCOPE_GATEWAY | SCOPE_DOMAIN,
	.stage = STAGE_AUTH_OIDC,
	.combine = COMBINE_SPECIFIC,
	.fail_status = 503,
	.execute_stage = "PluginAuthentication",
	.execute_priority = 710,
	.fields = fields,
	.conf_size = sizeof(struct oidc_auth),
	.enable_at = offsetof(struct oidc_auth, enable),
	.outcomes = { "passed", "login", "unauthenticated", "refreshed", "unavailable" },
};
