#include "policy/token_cache.h"
#include <pthread.h>
#include <stdatomic.h>
#include "core/clock.h"
#include "core/crypto.h"
#include "core/mem.h"

#define WAYS 2                            /* places where an entry may be */

static _Thread_local struct token_entry *entries;
static pthread_key_t of_thread;           /* frees it with the thread */
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void make_key(void)
{
	BUG_ON(pthread_key_create(&of_thread, mem_free) != 0);
}

struct token_id token_id(uint64_t owner, uint64_t version, struct str token)
{
	struct token_id id = { .owner = owner, .version = version };

	crypto_sha256(token, id.digest);
	return id;
}

static struct token_entry *places(const struct token_id *id)
{
	uint32_t at;

	memcpy(&at, id->digest, sizeof at);
	at = (at ^ (uint32_t)(id->owner * 0x9e3779b1U)) % (TOKEN_CACHE_ENTRIES / WAYS);
	return entries + (size_t)at * WAYS;
}

static bool is_same(const struct token_id *a, const struct token_id *b)
{
	return a->owner == b->owner && a->version == b->version && memcmp(a->digest, b->digest, sizeof a->digest) == 0;
}

const struct token_entry *token_cache_find(const struct token_id *id)
{
	const struct token_entry *e;

	if (!entries)
		return NULL;
	e = places(id);
	for (unsigned i = 0; i < WAYS; i++, e++)
		if (is_same(&e->id, id) && clock_ms() < e->until_ms)
			return e;
	return NULL;
}

void token_cache_put(const struct token_id *id, struct str subject, int64_t expires_s)
{
	const int64_t now_s = clock_wall_ms() / 1000;
	int64_t left_ms = TOKEN_CACHE_MS;
	struct token_entry *e, *oldest;

	if (expires_s < now_s)
		return;                          /* however long ago: no number of milliseconds may tell it */
	if (expires_s - now_s < TOKEN_CACHE_MS / 1000)
		left_ms = expires_s * 1000 - clock_wall_ms();
	if (left_ms <= 0 || subject.n > TOKEN_SUBJECT_MAX)
		return;
	if (!entries) {
		pthread_once(&once, make_key);
		entries = mem_alloc(TOKEN_CACHE_ENTRIES * sizeof *entries);
		pthread_setspecific(of_thread, entries);
	}
	oldest = e = places(id);
	for (unsigned i = 1; i < WAYS && !is_same(&oldest->id, id); i++)
		if (is_same(&e[i].id, id) || e[i].until_ms < oldest->until_ms)
			oldest = &e[i];
	oldest->id = *id;
	oldest->until_ms = clock_ms() + left_ms;
	oldest->says_no_end = expires_s == INT64_MAX;
	oldest->subject_n = (uint8_t)subject.n;
	str_put(oldest->subject, subject);
}

uint64_t token_cache_owner(void)
{
	static _Atomic(uint64_t) last;

	return atomic_fetch_add_explicit(&last, 1, memory_order_relaxed) + 1;
}
