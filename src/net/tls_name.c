/* tls_name.c -- whether a certificate's name is the one expected. No OpenSSL here: texts only. */
#include "net/tls_client.h"

#define SCHEME_END "://"

static struct str without_last_dot(struct str s)
{
	if (s.n > 0 && s.p[s.n - 1] == '.')
		s.n--;
	return s;
}

static bool is_wildcard(struct str s)
{
	return s.n > 2 && s.p[0] == '*' && s.p[1] == '.';
}

/* ".example.com" of "a.example.com"; absent where there is no label before it or nothing after. */
static struct str after_label(struct str s)
{
	size_t dot = str_find(s, '.');

	if (dot == 0 || dot + 1 >= s.n)
		return (struct str){ NULL, 0 };
	return (struct str){ s.p + dot, s.n - dot };
}

/* "*.com" in a certificate would be for everybody. */
static bool is_narrow(struct str borne)
{
	struct str rest = { borne.p + 2, borne.n - 2 };
	size_t dot = str_find(rest, '.');

	return dot > 0 && dot + 1 < rest.n && !memchr(rest.p, '*', rest.n);
}

static bool match_dns(struct str expected, struct str borne)
{
	struct str rest;

	expected = without_last_dot(expected);
	borne = without_last_dot(borne);
	if (expected.n == 0 || borne.n == 0)
		return false;
	if (str_equal_nocase(expected, borne))
		return !is_wildcard(borne) || is_narrow(borne);
	if (is_wildcard(borne) && is_wildcard(expected))
		return false;
	if (is_wildcard(borne)) {
		rest = after_label(expected);
		return is_narrow(borne) && rest.n && str_equal_nocase(rest, (struct str){ borne.p + 1, borne.n - 1 });
	}
	if (is_wildcard(expected)) {
		rest = after_label(borne);
		return rest.n && str_equal_nocase(rest, (struct str){ expected.p + 1, expected.n - 1 });
	}
	return false;
}

bool tls_name_matches(struct str expected, const struct tls_borne *borne)
{
	struct ip ip;

	if (expected.n == 0)
		return false;
	if (ip_parse(expected, &ip))
		return borne->kind == TLS_BORNE_IP && memcmp(ip.bytes, borne->ip.bytes, sizeof ip.bytes) == 0;
	if (memmem(expected.p, expected.n, SCHEME_END, sizeof SCHEME_END - 1))
		return borne->kind == TLS_BORNE_URI && str_equal(expected, borne->text);
	return borne->kind == TLS_BORNE_DNS && match_dns(expected, borne->text);
}

bool tls_name_is_spiffe(struct str uri)
{
	const struct str scheme = STR("spiffe://");

	if (uri.n <= scheme.n || memcmp(uri.p, scheme.p, scheme.n) != 0)
		return false;
	struct str rest = { uri.p + scheme.n, uri.n - scheme.n };
	size_t slash = str_find(rest, '/');

	for (size_t i = 0; i < rest.n; i++)
		if (rest.p[i] <= ' ' || rest.p[i] >= 0x7f || rest.p[i] == '?' || rest.p[i] == '#' || rest.p[i] == '@')
			return false;
	return slash > 0 && slash + 1 < rest.n;
}
