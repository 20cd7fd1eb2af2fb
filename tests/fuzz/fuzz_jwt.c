/* fuzz_jwt.c -- a token nobody signed is never taken for a signed one, and what was parsed can be judged. */
/* room: policy */
#include <stddef.h>
#include <stdint.h>
#include "core/fault.h"
#include "policy/jwt.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define KEYS "{\"keys\":[{\"kty\":\"oct\",\"k\":\"c2VjcmV0LW9mLW5vYm9keS1hdC1hbGw\"}]}"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct key_set *keys;
	const struct jwt_rules rules = { .issuer = STR("i"), .now_s = 1000, .leeway_s = JWT_LEEWAY_S };
	struct str text = { (const char *)data, size };
	struct problem why = { 0 };
	struct arena a = { 0 };
	struct jwt t;
	int64_t expires;

	if (!keys)
		keys = key_set_read(STR(KEYS), true, &why);
	BUG_ON(!keys);
	if (jwt_parse(&a, text, &t) == JWT_OK) {
		BUG_ON(t.payload->type != JSON_OBJECT || t.algorithm >= CRYPTO_ALGORITHM_COUNT);
		BUG_ON(jwt_verify(&t, keys) == JWT_OK);
		jwt_check_claims(&t, &rules, &expires);
	}
	key_set_drop(key_set_read(text, size % 2 == 0, &why));
	arena_free(&a);
	return 0;
}
