#include "policy/proof_cache.h"
#include <pthread.h>
#include <stdatomic.h>
#include "core/crypto.h"

enum { SLOTS = 4096, WAYS = 2 };

/* 64 bytes: two workers at two slots do not meet. */
struct slot {
	_Alignas(64) atomic_bool is_taken;
	bool is_good;
	int64_t until_ms;                 /* 0: free */
	uint8_t mac[32];
};

static struct slot slots[SLOTS];
static uint8_t key[32];
static pthread_once_t key_made = PTHREAD_ONCE_INIT;

static void make_key(void)
{
	crypto_random(key, sizeof key);
}

/* The lengths keep the two parts apart. */
struct proof proof_of(struct str credential, struct str against)
{
	struct proof p;
	uint8_t parts[64 + 2 * sizeof(size_t)];
	const struct str own = { (const char *)key, sizeof key };

	pthread_once(&key_made, make_key);
	crypto_hmac_sha256(own, credential, parts);
	crypto_sha256(against, parts + 32);
	memcpy(parts + 64, &credential.n, sizeof credential.n);
	memcpy(parts + 64 + sizeof credential.n, &against.n, sizeof against.n);
	crypto_hmac_sha256(own, (struct str){ (const char *)parts, sizeof parts }, p.mac);
	return p;
}

static struct slot *slot_of(const struct proof *p, unsigned way)
{
	uint32_t index;

	memcpy(&index, p->mac + way * sizeof index, sizeof index);
	return &slots[index % SLOTS];
}

static bool take(struct slot *s)
{
	return !atomic_exchange_explicit(&s->is_taken, true, memory_order_acquire);
}

static void leave(struct slot *s)
{
	atomic_store_explicit(&s->is_taken, false, memory_order_release);
}

static bool is_same(const struct slot *s, const struct proof *p)
{
	return str_equal_secret((struct str){ (const char *)s->mac, sizeof s->mac },
				(struct str){ (const char *)p->mac, sizeof p->mac });
}

enum proof_found proof_find(const struct proof *p, int64_t now_ms)
{
	enum proof_found found = PROOF_NONE;

	for (unsigned way = 0; way < WAYS && found == PROOF_NONE; way++) {
		struct slot *s = slot_of(p, way);

		if (!take(s))
			continue;
		if (s->until_ms > now_ms && is_same(s, p))
			found = s->is_good ? PROOF_GOOD : PROOF_BAD;
		leave(s);
	}
	return found;
}

/*
 * Of its two slots the one that ends first; were they the same, it is taken already the second time. Failures never
 * push out what is good: a flood of them would.
 */
void proof_keep(const struct proof *p, bool is_good, int64_t now_ms, int64_t until_ms)
{
	struct slot *oldest = NULL;

	if (until_ms > now_ms + PROOF_LASTS_MAX_MS)
		until_ms = now_ms + PROOF_LASTS_MAX_MS;
	for (unsigned way = 0; way < WAYS; way++) {
		struct slot *s = slot_of(p, way);

		if (!take(s))
			continue;
		bool is_free = s->until_ms <= now_ms || is_same(s, p) || is_good || !s->is_good;

		if (!is_free || (oldest && oldest->until_ms <= s->until_ms)) {
			leave(s);
			continue;
		}
		if (oldest)
			leave(oldest);
		oldest = s;
	}
	if (!oldest)
		return;
	oldest->is_good = is_good;
	oldest->until_ms = until_ms;
	memcpy(oldest->mac, p->mac, sizeof oldest->mac);
	leave(oldest);
}
