/* test_tls_name.c -- names of servers' certificates against those that are expected. room: net */
#include "net/tls_client.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#define DNS(name) { .kind = TLS_BORNE_DNS, .text = { name, sizeof name - 1 } }
#define URI(name) { .kind = TLS_BORNE_URI, .text = { name, sizeof name - 1 } }

static const struct {
	const char *expected;
	struct tls_borne borne;
	bool matches;
} rows[] = {
	{ "a.example.com", DNS("a.example.com"), true },
	{ "A.Example.COM", DNS("a.eXample.com"), true },
	{ "a.example.com.", DNS("a.example.com"), true },
	{ "a.example.com", DNS("a.example.com."), true },
	{ "localhost", DNS("localhost"), true },
	{ "a.example.com", DNS("b.example.com"), false },
	{ "a.example.com", DNS("example.com"), false },
	{ "example.com", DNS("a.example.com"), false },
	{ "", DNS(""), false },
	{ "a.example.com", DNS(""), false },
	{ "", DNS("a.example.com"), false },
	{ ".", DNS("."), false },
	/* a NUL within a name ends nothing */
	{ "a.example.com", DNS("a.example.com\0.evil.test"), false },
	/* the certificate's wildcard */
	{ "a.example.com", DNS("*.example.com"), true },
	{ "A.EXAMPLE.com", DNS("*.example.COM"), true },
	{ "example.com", DNS("*.example.com"), false },
	{ ".example.com", DNS("*.example.com"), false },
	{ "a.b.example.com", DNS("*.example.com"), false },
	{ "a.example.com", DNS("*.com"), false },
	{ "a.com", DNS("*.com"), false },
	{ "a.com", DNS("*"), false },
	{ "a.com", DNS("*."), false },
	{ "a.com", DNS("*.com."), false },
	{ "a.example.com", DNS("*.*.com"), false },
	{ "a.example.com", DNS("a.*.com"), false },
	{ "a.example.com", DNS("a*.example.com"), false },
	{ "ab.example.com", DNS("a*.example.com"), false },
	{ "a.example.com", DNS("**.example.com"), false },
	{ "xn--a.example.com", DNS("*.example.com"), true },
	/* the expectation's wildcard */
	{ "*.example.com", DNS("a.example.com"), true },
	{ "*.example.com", DNS("*.example.com"), true },
	{ "*.EXAMPLE.com", DNS("*.example.com"), true },
	{ "*.example.com", DNS("example.com"), false },
	{ "*.example.com", DNS("a.b.example.com"), false },
	{ "*.example.com", DNS(".example.com"), false },
	{ "*.example.com", DNS("*.b.example.com"), false },
	{ "*.b.example.com", DNS("*.example.com"), false },
	{ "*.com", DNS("*.com"), false },
	{ "*.local", DNS("a.local"), true },
	/* kinds do not mix */
	{ "10.0.0.1", DNS("10.0.0.1"), false },
	{ "::1", DNS("::1"), false },
	{ "spiffe://a/b", DNS("spiffe://a/b"), false },
	{ "a.example.com", URI("a.example.com"), false },
	{ "spiffe://a/b", URI("spiffe://a/b"), true },
	{ "spiffe://a/b", URI("spiffe://a/B"), false },
	{ "spiffe://A/b", URI("spiffe://a/b"), false },
	{ "spiffe://a/b", URI("spiffe://a/b/"), false },
	{ "spiffe://a/*", URI("spiffe://a/b"), false },
	{ "spiffe://a/b", URI("spiffe://a/*"), false },
};

static void names(void **state)
{
	unsigned wrong = 0;

	(void)state;
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		if (tls_name_matches(str_of(rows[i].expected), &rows[i].borne) == rows[i].matches)
			continue;
		print_error("row %zu: \"%s\" and \"%.*s\"\n", i, rows[i].expected, STR_FMT(rows[i].borne.text));
		wrong++;
	}
	assert_int_equal(wrong, 0);
}

static bool address(const char *expected, const char *borne)
{
	struct tls_borne b = { .kind = TLS_BORNE_IP };

	assert_true(ip_parse(str_of(borne), &b.ip));
	return tls_name_matches(str_of(expected), &b);
}

static void addresses(void **state)
{
	(void)state;
	assert_true(address("10.0.0.1", "10.0.0.1"));
	assert_true(address("::ffff:10.0.0.1", "10.0.0.1"));
	assert_true(address("2001:db8::1", "2001:0db8:0::1"));
	assert_false(address("10.0.0.1", "10.0.0.2"));
	assert_false(address("10.0.0.1", "2001:db8::1"));
	assert_false(address("a.example.com", "10.0.0.1"));
	assert_false(address("*.0.0.1", "10.0.0.1"));
}

static void workloads(void **state)
{
	static const char *const good[] = { "spiffe://mesh/a", "spiffe://cluster.local/ns/a/sa/b" };
	static const char *const bad[] = {
		"", "spiffe://", "spiffe://mesh", "spiffe://mesh/", "spiffe:///a", "https://mesh/a", "spiffe:/mesh/a",
		"SPIFFE://mesh/a", "spiffe://mesh/a b", "spiffe://mesh/a?b", "spiffe://mesh/a#b", "spiffe://u@mesh/a",
	};

	(void)state;
	for (size_t i = 0; i < sizeof good / sizeof *good; i++)
		assert_true(tls_name_is_spiffe(str_of(good[i])));
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		assert_false(tls_name_is_spiffe(str_of(bad[i])));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names), cmocka_unit_test(addresses), cmocka_unit_test(workloads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
