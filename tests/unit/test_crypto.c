/* room: core */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <cmocka.h>
#include "core/crypto.h"
#include "pem_samples.h"

static struct arena arena;
static const uint8_t key[32] = "0123456789abcdef0123456789abcde";


static int stop(void **state)
{
	(void)state;
	arena_free(&arena);
	return 0;
}

static void digests(void **state)
{
	static const uint8_t abc[32] = { 0xba, 0x78, 0x16, 0xbf, 0x8f, 0x01, 0xcf, 0xea, 0x41, 0x41, 0x40, 0xde,
		0x5d, 0xae,
		0x22, 0x23, 0xb0, 0x03, 0x61, 0xa3, 0x96, 0x17, 0x7a, 0x9c, 0xb4, 0x10, 0xff, 0x61, 0xf2, 0x00,
			0x15, 0xad };
	static const uint8_t jefe[32] = { 0x5b, 0xdc, 0xc1, 0x46, 0xbf, 0x60, 0x75, 0x4e, 0x6a, 0x04, 0x24,
		0x26, 0x08, 0x95,
		0x75, 0xc7, 0x5a, 0x00, 0x3f, 0x08, 0x9d, 0x27, 0x39, 0x83, 0x9d, 0xec, 0x58, 0xb9, 0x64, 0xec,
			0x38, 0x43 };
	uint8_t out[32];

	(void)state;
	crypto_sha256(STR("abc"), out);
	assert_memory_equal(out, abc, 32);
	crypto_hmac_sha256(STR("Jefe"), STR("what do ya want for nothing?"), out);
	assert_memory_equal(out, jefe, 32);
	crypto_sha256((struct str){ NULL, 0 }, out);
	assert_int_equal(out[0], 0xe3);
}

static void encodes_and_decodes_base64(void **state)
{
	static const char *const rows[][3] = { { "", "", "" }, { "f", "Zg==", "Zg" }, { "fo", "Zm8=", "Zm8" },
		{ "foo", "Zm9v", "Zm9v" }, { "foob", "Zm9vYg==", "Zm9vYg" }, { "fooba", "Zm9vYmE=", "Zm9vYmE" },
		{ "\xff\xef\xfe", "/+/+", "_-_-" } };
	static const char *const bad[] = { "Z", "Zg=", "Zg===", "Zh==", "Zm9=", "Zm 9", "Zm9v=", "=",
		"Zg==Zg==", "Zm9\n", "Zg=a" };
	struct str out;

	(void)state;
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		assert_string_equal(crypto_base64(&arena, str_of(rows[i][0])).p, rows[i][1]);
		assert_string_equal(crypto_base64url(&arena, str_of(rows[i][0])).p, rows[i][2]);
		assert_true(crypto_base64_decode(&arena, str_of(rows[i][1]), &out) && str_equal(out,
			str_of(rows[i][0])));
		assert_true(crypto_base64_decode(&arena, str_of(rows[i][2]), &out) && str_equal(out,
			str_of(rows[i][0])));
	}
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
		if (crypto_base64_decode(&arena, str_of(bad[i]), &out))
			fail_msg("accepted: %s", bad[i]);
}

static void unseals_what_it_sealed(void **state)
{
	struct str sealed = crypto_seal(&arena, key, STR("cert-1/privateKey"), STR("the secret"));
	struct str again = crypto_seal(&arena, key, STR("cert-1/privateKey"), STR("the secret"));
	struct str nothing = crypto_seal(&arena, key, STR(""), (struct str){ NULL, 0 });

	(void)state;
	assert_true(str_equal(crypto_unseal(&arena, key, STR("cert-1/privateKey"), sealed), STR("the secret")));
	assert_false(str_equal(sealed, again));       /* a nonce of its own */
	assert_non_null(crypto_unseal(&arena, key, STR(""), nothing).p);
	assert_int_equal(crypto_unseal(&arena, key, STR(""), nothing).n, 0);
}

static void refuses_to_unseal_what_was_touched(void **state)
{
	struct str sealed = crypto_seal(&arena, key, STR("label"), STR("the secret"));
	uint8_t other[32];
	char *bytes;

	(void)state;
	memcpy(other, key, 32);
	other[31] ^= 1;
	assert_null(crypto_unseal(&arena, other, STR("label"), sealed).p);
	assert_null(crypto_unseal(&arena, key, STR("label2"), sealed).p);
	assert_null(crypto_unseal(&arena, key, STR("label"), STR("")).p);
	assert_null(crypto_unseal(&arena, key, STR("label"), STR("no base64!")).p);
	for (size_t n = 0; n < sealed.n; n++)
		assert_null(crypto_unseal(&arena, key, STR("label"), (struct str){ sealed.p, n }).p);
	bytes = arena_take(&arena, sealed.n);
	for (size_t i = 0; i < sealed.n; i++) {
		memcpy(bytes, sealed.p, sealed.n);
		bytes[i] = bytes[i] == 'A' ? 'B' : 'A';
		assert_null(crypto_unseal(&arena, key, STR("label"), (struct str){ bytes, sealed.n }).p);
	}
}

static void makes_ids(void **state)
{
	unsigned seen[256] = { 0 };
	char id[10001], other[21];

	(void)state;
	crypto_id(id, 10000);
	assert_int_equal(strlen(id), 10000);
	assert_int_equal(strspn(id, "0123456789abcdefghijklmnopqrstuvwxyz"), 10000);
	for (size_t i = 0; i < 10000; i++)
		seen[(unsigned char)id[i]]++;
	/* 278 expected of each, deviation 16; ten deviations off means a wrong generator. */
	for (const char *c = "0123456789abcdefghijklmnopqrstuvwxyz"; *c; c++)
		assert_in_range(seen[(unsigned char)*c], 278 - 164, 278 + 164);
	crypto_id(id, 20);
	crypto_id(other, 20);
	assert_string_not_equal(id, other);
}

static void looks_into_pem(void **state)
{
	struct str both = arena_printf(&arena, "# a chain\n%s%s", certificate_pem, certificate_pem);
	struct str broken = arena_printf(&arena,
		"%s-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", certificate_pem);

	(void)state;
	assert_int_equal(crypto_pem_certificates(str_of(certificate_pem)), 1);
	assert_int_equal(crypto_pem_certificates(both), 2);
	assert_int_equal(crypto_pem_certificates(broken), 0);
	assert_int_equal(crypto_pem_certificates(STR("")), 0);
	assert_int_equal(crypto_pem_certificates(str_of(key_pem)), 0);
	assert_true(crypto_pem_has_private_key(str_of(key_pem)));
	assert_false(crypto_pem_has_private_key(str_of(certificate_pem)));
	assert_false(crypto_pem_has_private_key(STR("-----BEGIN PRIVATE KEY-----")));
	assert_true(crypto_pem_pair_matches(str_of(certificate_pem), str_of(key_pem)));
	assert_false(crypto_pem_pair_matches(str_of(certificate_pem), str_of(other_key_pem)));
	assert_false(crypto_pem_pair_matches(STR("x"), str_of(key_pem)));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(digests, stop),
		cmocka_unit_test_teardown(encodes_and_decodes_base64, stop),
		cmocka_unit_test_teardown(unseals_what_it_sealed, stop),
		cmocka_unit_test_teardown(refuses_to_unseal_what_was_touched, stop),
		cmocka_unit_test_teardown(makes_ids, stop),
		cmocka_unit_test_teardown(looks_into_pem, stop),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
