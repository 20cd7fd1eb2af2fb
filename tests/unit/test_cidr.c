/* room: core */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <cmocka.h>
#include "core/cidr.h"

static struct arena arena;

static int stop(void **state)
{
	(void)state;
	arena_free(&arena);
	return 0;
}

static struct ip ip_of(const char *text)
{
	struct ip ip;

	if (!ip_parse(str_of(text), &ip))
		fail_msg("%s", text);
	return ip;
}

static void add(struct cidr_set *s, const char *text)
{
	struct ip base;
	unsigned prefix;

	if (!cidr_parse(str_of(text), &base, &prefix))
		fail_msg("%s", text);
	cidr_set_add(s, &base, prefix);
}

static bool has(const struct cidr_set *s, const char *text)
{
	struct ip ip = ip_of(text);

	return cidr_set_has(s, &ip);
}

static void reads_strict_forms_only(void **state)
{
	static const char *const bad[] = { "", "1", "1.2.3", "1.2.3.4.5", "01.2.3.4", "1.2.3.04", "256.1.1.1",
		"1.2.3.4 ",
		" 1.2.3.4", "0x1.2.3.4", "1.2.3.-4", "::1%lo", "fe80::1%eth0", "1::2::3", "12345::", ":::", "[::1]",
		"::ffff:1.2.3", "1.2.3.4/8", "a.b.c.d", "1:2:3:4:5:6:7:8:9" };
	struct ip ip;

	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
		if (ip_parse(str_of(bad[i]), &ip))
			fail_msg("accepted: %s", bad[i]);
	assert_false(ip_parse((struct str){ "1.2.3.4\0", 8 }, &ip));
	/* No terminator is needed. */
	assert_true(ip_parse((struct str){ "1.2.3.45", 7 }, &ip));
	assert_int_equal(ip.bytes[15], 4);
}

static void folds_mapped_addresses(void **state)
{
	struct ip a = ip_of("1.2.3.4"), b = ip_of("::ffff:1.2.3.4"), c = ip_of("::FFFF:102:304"),
		d = ip_of("::1.2.3.4");
	char text[46];

	(void)state;
	assert_memory_equal(&a, &b, sizeof a);
	assert_memory_equal(&a, &c, sizeof a);
	assert_true(ip_is_v4(&a));
	assert_false(ip_is_v4(&d));
	assert_int_equal(ip_print(&a, text), 7);
	assert_string_equal(text, "1.2.3.4");
	a = ip_of("2001:DB8:0:0::1");
	ip_print(&a, text);
	assert_string_equal(text, "2001:db8::1");
}

static void reads_prefixes(void **state)
{
	static const char *const bad[] = { "1.2.3.4/33", "1.2.3.4/", "1.2.3.4/-1", "1.2.3.4/08", "1.2.3.4/ 8",
		"::/129", "/8",
		"1.2.3.4/8/9", "a.b.c.d", "1.2.3.0/24x", "" };
	struct ip base;
	unsigned prefix;
	char text[46];

	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
		if (cidr_parse(str_of(bad[i]), &base, &prefix))
			fail_msg("accepted: %s", bad[i]);
	assert_true(cidr_parse(STR("10.1.2.3/9"), &base, &prefix));
	assert_int_equal(prefix, 96 + 9);
	ip_print(&base, text);
	assert_string_equal(text, "10.0.0.0");
	assert_true(cidr_parse(STR("1.2.3.4"), &base, &prefix));
	assert_int_equal(prefix, 128);
	assert_true(cidr_parse(STR("2001:db8::1/32"), &base, &prefix));
	assert_int_equal(prefix, 32);
	ip_print(&base, text);
	assert_string_equal(text, "2001:db8::");
	assert_true(cidr_parse(STR("0.0.0.0/0"), &base, &prefix));
	assert_int_equal(prefix, 96);
}

static void keeps_the_families_apart(void **state)
{
	struct cidr_set *v4 = cidr_set_new(&arena), *v6 = cidr_set_new(&arena), *none = cidr_set_new(&arena);

	(void)state;
	assert_false(has(none, "1.2.3.4"));
	assert_false(has(none, "::"));
	add(v4, "0.0.0.0/0");
	assert_true(has(v4, "255.255.255.255"));
	assert_true(has(v4, "::ffff:9.9.9.9"));
	assert_false(has(v4, "::1"));
	add(v6, "::/0");
	assert_true(has(v6, "ffff::"));
	assert_false(has(v6, "1.2.3.4"));
}

static void covers_exactly_its_prefixes(void **state)
{
	struct cidr_set *s = cidr_set_new(&arena);

	(void)state;
	add(s, "10.1.0.0/16");
	add(s, "192.168.1.7");
	add(s, "2001:db8::/32");
	assert_int_equal(cidr_set_count(s), 3);
	assert_true(has(s, "10.1.0.0"));
	assert_true(has(s, "10.1.255.255"));
	assert_false(has(s, "10.0.255.255"));
	assert_false(has(s, "10.2.0.0"));
	assert_true(has(s, "192.168.1.7"));
	assert_false(has(s, "192.168.1.6"));
	assert_true(has(s, "2001:db8:ffff::"));
	assert_false(has(s, "2001:db9::"));
	add(s, "10.1.2.0/24");                /* inside one that is there */
	assert_int_equal(cidr_set_count(s), 3);
	add(s, "10.0.0.0/8");                 /* swallows one */
	assert_int_equal(cidr_set_count(s), 3);
	assert_true(has(s, "10.2.0.0"));
	add(s, "0.0.0.0/0");
	assert_int_equal(cidr_set_count(s), 2);
	assert_true(has(s, "8.8.8.8"));
}

static uint32_t random_state = 12345;

static uint32_t next_random(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 17;
	random_state ^= random_state << 5;
	return random_state;
}

/* Against a plain list, with prefixes that crowd together. */
static void agrees_with_a_list(void **state)
{
	struct cidr_set *s = cidr_set_new(&arena);
	uint32_t base[300], mask[300];

	(void)state;
	for (int i = 0; i < 300; i++) {
		unsigned prefix = 12 + next_random() % 21;
		struct ip ip = ip_of("0.0.0.0");

		base[i] = (10u << 24 | (next_random() & 0x00ffffff)) & 0xff0f0fff;
		mask[i] = 0xffffffffu << (32 - prefix);
		for (unsigned k = 0; k < 4; k++)
			ip.bytes[12 + k] = (uint8_t)(base[i] >> (24 - 8 * k));
		cidr_set_add(s, &ip, 96 + prefix);
		for (int n = 0; n < 200; n++) {
			uint32_t probe = base[next_random() % (unsigned)(i + 1)] ^ (1u << next_random() % 32);
			bool expected = false;

			for (int j = 0; j <= i; j++)
				expected = expected || ((probe ^ base[j]) & mask[j]) == 0;
			for (unsigned k = 0; k < 4; k++)
				ip.bytes[12 + k] = (uint8_t)(probe >> (24 - 8 * k));
			assert_int_equal(cidr_set_has(s, &ip), expected);
		}
	}
}

static void stays_small_with_many(void **state)
{
	struct cidr_set *s = cidr_set_new(&arena);
	struct ip ip = ip_of("0.0.0.0");
	size_t per_entry;

	(void)state;
	for (unsigned i = 0; i < 20000; i++) {
		uint32_t v = i * 2654435761u;

		memcpy(ip.bytes + 12, &v, 4);
		cidr_set_add(s, &ip, 128);
	}
	assert_int_equal(cidr_set_count(s), 20000);
	per_entry = arena_size(&arena) / 20000;
	assert_true(per_entry <= 64 + 40);    /* 64, and red zones where the sanitizer adds them */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(reads_strict_forms_only, stop),
		cmocka_unit_test_teardown(folds_mapped_addresses, stop),
		cmocka_unit_test_teardown(reads_prefixes, stop),
		cmocka_unit_test_teardown(keeps_the_families_apart, stop),
		cmocka_unit_test_teardown(covers_exactly_its_prefixes, stop),
		cmocka_unit_test_teardown(agrees_with_a_list, stop),
		cmocka_unit_test_teardown(stays_small_with_many, stop),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
