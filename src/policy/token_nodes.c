#include "policy/token_nodes.h"
#include "core/arena.h"
#include "core/clock.h"

enum {
	EVERY_MS = 15000,
	LIFE_S = 60,                      /* how long a word of a process counts */
	NODES_MAX = 10000,
};

static void counted(void *arg, enum redis_failure f, const struct redis_reply *reply)
{
	struct token_nodes *t = arg;
	int64_t n, now = clock_ms();

	--*t->users;
	if (f != REDIS_DONE || reply->type != REDIS_INTEGER)
		return;
	n = reply->integer < 1 ? 1 : reply->integer > NODES_MAX ? NODES_MAX : reply->integer;
	/* A Redis that forgot its data hears of all of them again, by and by. */
	if (n < t->n && now < t->most_ms + LIFE_S * 1000)
		return;
	t->n = n;
	t->most_ms = now;
}

static void tell(struct redis_link *l, unsigned n, const struct str *words, redis_told *told, void *arg)
{
	redis_link_tell(l, &(struct redis_words){ n, words, 1 }, told, arg);
}

static void done(void *arg, enum redis_failure f, const struct redis_reply *reply)
{
	(void)arg;
	(void)f;
	(void)reply;
}

void token_nodes_tell(struct token_nodes *t, struct redis_link *l, struct str name)
{
	const struct str key = STR(TOKEN_NODES_KEY);
	const int64_t now_s = clock_wall_ms() / 1000;
	struct arena a = { 0 };
	struct str now, before, life;

	if (t->asked_ms && clock_ms() < t->asked_ms + EVERY_MS)
		return;
	t->asked_ms = clock_ms();
	now = arena_printf(&a, "%lld", (long long)now_s);
	before = arena_printf(&a, "%lld", (long long)now_s - LIFE_S);
	life = arena_printf(&a, "%d", LIFE_S);
	tell(l, 4, (struct str[]){ STR("ZADD"), key, now, name }, done, NULL);
	tell(l, 4, (struct str[]){ STR("ZREMRANGEBYSCORE"), key, STR("-inf"), before }, done, NULL);
	tell(l, 3, (struct str[]){ STR("EXPIRE"), key, life }, done, NULL);
	++*t->users;
	tell(l, 2, (struct str[]){ STR("ZCARD"), key }, counted, t);
	arena_free(&a);
}
