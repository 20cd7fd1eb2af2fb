#include "proxy/gateway_keys.h"
#include <pthread.h>
#include <stdio.h>
#include "core/crypto.h"
#include "core/mem.h"

#define PURPOSE_MAX 160

static struct {
	pthread_once_t once;
	uint8_t extracted[32];
} keys = { .once = PTHREAD_ONCE_INIT };

static void extract(const uint8_t secret[GATEWAY_SECRET_SIZE])
{
	crypto_hmac_sha256(STR("sluice gateway keys"), (struct str){ (const char *)secret, GATEWAY_SECRET_SIZE },
			   keys.extracted);
}

/* Programs without a store: tests. */
static void make_one(void)
{
	uint8_t secret[GATEWAY_SECRET_SIZE];

	crypto_random(secret, sizeof secret);
	extract(secret);
	mem_wipe(secret, sizeof secret);
}

void gateway_keys_set(const uint8_t secret[GATEWAY_SECRET_SIZE])
{
	pthread_once(&keys.once, make_one);
	extract(secret);
}

void gateway_key(struct str purpose, unsigned generation, uint8_t out[32])
{
	char info[PURPOSE_MAX + 16];
	int n;

	BUG_ON(purpose.n > PURPOSE_MAX);
	pthread_once(&keys.once, make_one);
	/* The purpose has no line end, so no two pairs give the same text. The last byte is HKDF's counter. */
	n = snprintf(info, sizeof info, "%.*s\n%u%c", STR_FMT(purpose), generation, 1);
	crypto_hmac_sha256((struct str){ (const char *)keys.extracted, sizeof keys.extracted },
			   (struct str){ info, (size_t)n }, out);
}
