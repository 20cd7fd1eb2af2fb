/*
 * tls_ticket.c -- the keys that session tickets are sealed with.
 *
 * A ring for all threads. The newest key seals; when its time is over, the thread that notices first makes the next
 * one. Its slot is one that nobody looks at any more: older keys than those that still open have no reader, so
 * workers read without a lock. A key that went out of use is overwritten: who takes the keys later cannot open what
 * was sealed before.
 */
#include <pthread.h>
#include <stdatomic.h>
#include "core/clock.h"
#include "core/crypto.h"
#include "core/mem.h"
#include "net/tls_parts.h"

enum { KEYS = 16 };                                /* more than one each hour for 13 hours, and one being made */

struct ticket_key {
	unsigned char name[16], cipher[32], mac[32];
	int64_t born_ms;
};

static struct {
	struct ticket_key keys[KEYS];
	atomic_uint newest;                        /* counts all keys so far */
	atomic_llong next_ms;                      /* when the newest is to be followed by another */
	int64_t seals_ms, opens_ms;
} ring = { .seals_ms = 3600 * 1000, .opens_ms = 12 * 3600 * 1000 };

int64_t tls_ticket_life_ms(void)
{
	return ring.opens_ms;
}

static void make_key(unsigned number)
{
	struct ticket_key *k = &ring.keys[number % KEYS];

	crypto_random(k->name, sizeof k->name);
	crypto_random(k->cipher, sizeof k->cipher);
	crypto_random(k->mac, sizeof k->mac);
	k->born_ms = clock_ms();
	atomic_store_explicit(&ring.newest, number, memory_order_release);
}

static void make_first(void)
{
	make_key(1);
	atomic_store(&ring.next_ms, clock_ms() + ring.seals_ms);
}

void tls_set_ticket_times(int64_t seals_ms, int64_t opens_ms)
{
	ring.seals_ms = seals_ms;
	ring.opens_ms = opens_ms;
	atomic_store(&ring.next_ms, clock_ms() + seals_ms);
}

static void renew(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, make_first);
	long long next_ms = atomic_load_explicit(&ring.next_ms, memory_order_relaxed);
	if (clock_ms() < next_ms)
		return;
	if (atomic_compare_exchange_strong(&ring.next_ms, &next_ms, clock_ms() + ring.seals_ms))
		make_key(atomic_load_explicit(&ring.newest, memory_order_acquire) + 1);
}

static const struct ticket_key *find_key(const unsigned char name[16], unsigned newest)
{
	for (unsigned age = 0; age < KEYS - 1 && age < newest; age++) {
		const struct ticket_key *k = &ring.keys[(newest - age) % KEYS];

		if (memcmp(k->name, name, sizeof k->name) == 0)
			return clock_ms() - k->born_ms < ring.seals_ms + ring.opens_ms ? k : NULL;
	}
	return NULL;
}

static bool set_up(const struct ticket_key *k, unsigned char *iv, EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac, int seals)
{
	OSSL_PARAM params[] = {
		OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, (void *)(uintptr_t)k->mac, sizeof k->mac),
		OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, (char *)(uintptr_t)"sha256", 0),
		OSSL_PARAM_construct_end(),
	};

	return EVP_MAC_CTX_set_params(mac, params) == 1 &&
	       EVP_CipherInit_ex(cipher, EVP_aes_256_cbc(), NULL, k->cipher, iv, seals) == 1;
}

TLS_TICKET_KEY(tls_ticket_key)
{
	const struct ticket_key *k;
	unsigned newest;

	(void)ssl;
	renew();
	newest = atomic_load_explicit(&ring.newest, memory_order_acquire);
	if (seals) {
		k = &ring.keys[newest % KEYS];
		memcpy(name, k->name, sizeof k->name);
		if (RAND_bytes(iv, 16) != 1)
			return -1;
		return set_up(k, iv, cipher, mac, 1) ? 1 : -1;
	}
	k = find_key(name, newest);
	if (!k)
		return 0;
	if (!set_up(k, iv, cipher, mac, 0))
		return -1;
	/* 2: a client of TLS 1.2 gets a new ticket, sealed with the newest key; one of TLS 1.3 always does. */
	return k == &ring.keys[newest % KEYS] ? 1 : 2;
}
