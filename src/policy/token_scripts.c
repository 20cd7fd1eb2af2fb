#include "policy/token_scripts.h"
#include <stdio.h>
#include "core/crypto.h"

enum { FIXED_WORDS = 5, WORDS_OF_A_KEY = 4, DIGEST_BYTES = 20 };

static struct {
	struct str text;
	char digest[2 * DIGEST_BYTES + 1];
} scripts[TOKEN_SCRIPTS] = {
	[TOKEN_CHECK].text = STR(
	"local out, no = {0}, 0\n"
	"for i, key in ipairs(KEYS) do\n"
	"  local used, left = tonumber(redis.call('GET', key) or 0), redis.call('PTTL', key)\n"
	"  if left == -1 then\n"
	"    redis.call('EXPIRE', key, ARGV[3*i])\n"
	"    left = ARGV[3*i] * 1000\n"
	"  end\n"
	"  out[2*i], out[2*i+1] = used, left\n"
	"  if no == 0 and used + ARGV[3*i+1] >= tonumber(ARGV[3*i-1]) then no = i end\n"
	"end\n"
	"out[1] = no\n"
	"if no == 0 and tonumber(ARGV[1]) > 0 then\n"
	"  for i, key in ipairs(KEYS) do\n"
	"    redis.call('INCRBY', key, ARGV[1])\n"
	"    if out[2*i+1] < 0 then redis.call('EXPIRE', key, ARGV[3*i]) end\n"
	"  end\n"
	"end\n"
	"return out\n"),
	[TOKEN_CHARGE].text = STR(
	"local out = {}\n"
	"for i, key in ipairs(KEYS) do\n"
	"  local window, left, n = tonumber(ARGV[2*i+1]), redis.call('PTTL', key), tonumber(ARGV[1])\n"
	"  if left ~= -2 and left <= ARGV[2*i+2] + window * 500 then n = n - ARGV[2] end\n"
	"  if n > 0 or (n < 0 and left ~= -2) then\n"
	"    redis.call('INCRBY', key, string.format('%.0f', n))\n"
	"    if left < 0 then\n"
	"      redis.call('EXPIRE', key, window)\n"
	"      left = window * 1000\n"
	"    end\n"
	"  end\n"
	"  out[2*i-1], out[2*i] = tonumber(redis.call('GET', key) or 0), left\n"
	"end\n"
	"return out\n"),
};

static struct str digest_of(enum token_script which)
{
	uint8_t bytes[DIGEST_BYTES];

	if (!*scripts[which].digest) {
		crypto_sha1(scripts[which].text, bytes);
		for (size_t i = 0; i < DIGEST_BYTES; i++)
			snprintf(scripts[which].digest + 2 * i, 3, "%02x", bytes[i]);
	}
	return str_of(scripts[which].digest);
}

struct script_call script_call_begin(enum token_script which, bool is_whole, unsigned n_keys)
{
	struct script_call c = { .words = NULL };

	c.words = NEW_N(&c.arena, struct str, FIXED_WORDS + WORDS_OF_A_KEY * (size_t)n_keys);
	script_call_put(&c, is_whole ? STR("EVAL") : STR("EVALSHA"));
	script_call_put(&c, is_whole ? scripts[which].text : digest_of(which));
	script_call_put_number(&c, n_keys);
	return c;
}

void script_call_put(struct script_call *c, struct str s)
{
	c->words[c->n++] = s;
}

void script_call_put_number(struct script_call *c, int64_t n)
{
	script_call_put(c, arena_printf(&c->arena, "%lld", (long long)n));
}

void script_call_send(struct script_call *c, struct redis_link *l, redis_told *told, void *arg)
{
	redis_link_tell(l, &(struct redis_words){ c->n, c->words, 3 }, told, arg);
	arena_free(&c->arena);
}

bool script_is_unknown(enum redis_failure f, const struct redis_reply *r)
{
	return f == REDIS_DONE && r->type == REDIS_ERROR && str_starts(r->text, STR("NOSCRIPT"));
}

bool script_has_numbers(enum redis_failure f, const struct redis_reply *r, size_t n)
{
	if (f != REDIS_DONE || r->type != REDIS_ARRAY || r->n != n)
		return false;
	for (size_t i = 0; i < n; i++)
		if (r->items[i].type != REDIS_INTEGER)
			return false;
	return true;
}

const char *script_trouble(enum redis_failure f, const struct redis_reply *r)
{
	if (f != REDIS_DONE)
		return redis_failure_text(f);
	return r->type == REDIS_ERROR ? redis_error_word(r->text) : "what it answers is no answer of the script";
}
