#include "policy/oidc_url.h"
#include "http/uri.h"

bool oidc_is_local(struct str target)
{
	if (target.n == 0 || target.n > OIDC_TARGET_MAX || target.p[0] != '/')
		return false;
	if (target.n > 1 && (target.p[1] == '/' || target.p[1] == '\\'))
		return false;
	for (size_t i = 0; i < target.n; i++)
		if (target.p[i] <= ' ' || target.p[i] > '~' || target.p[i] == '\\')
			return false;
	return true;
}

struct str oidc_return_target(struct arena *a, struct str path, struct str query)
{
	struct str whole = path;

	if (query.p)
		whole = arena_printf(a, "%.*s?%.*s", STR_FMT(path), STR_FMT(query));
	if (oidc_is_local(whole))
		return whole;
	return oidc_is_local(path) ? path : STR("/");
}

bool oidc_same_origin(struct str url, struct str other)
{
	struct url a, b;

	return url_parse(url, &a) && url_parse(other, &b) && a.is_https == b.is_https && a.port == b.port &&
	       str_equal_nocase(a.host, b.host);
}

static bool is_unreserved(char c)
{
	return (c >= '0' && c <= '9') || (str_lower(c) >= 'a' && str_lower(c) <= 'z') || c == '-' || c == '.' ||
	       c == '_' || c == '~';
}

void oidc_add_encoded(struct sbuf *out, struct str value)
{
	static const char digits[] = "0123456789ABCDEF";

	for (size_t i = 0; i < value.n; i++) {
		const unsigned char c = (unsigned char)value.p[i];
		const char escape[3] = { '%', digits[c >> 4], digits[c & 15] };

		if (is_unreserved(value.p[i]))
			sbuf_addc(out, value.p[i]);
		else
			sbuf_add(out, (struct str){ escape, sizeof escape });
	}
}

void oidc_add_parameter(struct sbuf *url, const char *name, struct str value)
{
	const struct str so_far = sbuf_str(url);

	if (!value.p)
		return;
	sbuf_addc(url, str_find(so_far, '?') < so_far.n ? '&' : '?');
	sbuf_add(url, str_of(name));
	sbuf_addc(url, '=');
	oidc_add_encoded(url, value);
}

bool oidc_read_parameter(struct arena *a, struct str query, const char *name, struct str *value)
{
	struct str part;

	*value = (struct str){ NULL, 0 };
	while (str_split(&query, '&', &part)) {
		size_t equals = str_find(part, '=');
		struct str key = uri_decode(a, (struct str){ part.p, equals }, true);

		if (!key.p || !str_equal(key, str_of(name)))
			continue;
		if (value->p)
			return false;
		equals += equals < part.n;
		*value = uri_decode(a, (struct str){ part.p + equals, part.n - equals }, true);
		if (!value->p)
			return false;
	}
	return true;
}
