/*
 * token_scripts.h -- what Redis is asked to do with budgets, each in one round trip. All keys of a call have the same
 * hash tag. Not for other files than token_ledger.c.
 *
 * Windows begin with the first charge and end by TTL; a counter without TTL gets one. What was reserved in a window
 * that is over meanwhile went with it: then the whole cost counts, in the window that is open now. That is seen by what
 * is left: a later window ends at least one length later.
 */
#pragma once

/*
 * KEYS: budgets. ARGV: reserve, then threshold, window in s, and what counts besides, of each. Returns the number of
 * the first one that is used up (0 = none: then all have the reserve in them), then used and left in ms of each, as
 * they were before.
 */
#define TOKEN_SCRIPT_CHECK \
	"local out, no = {0}, 0\n" \
	"for i, key in ipairs(KEYS) do\n" \
	"  local used, left = tonumber(redis.call('GET', key) or 0), redis.call('PTTL', key)\n" \
	"  if left == -1 then\n" \
	"    redis.call('EXPIRE', key, ARGV[3*i])\n" \
	"    left = ARGV[3*i] * 1000\n" \
	"  end\n" \
	"  out[2*i], out[2*i+1] = used, left\n" \
	"  if no == 0 and used + ARGV[3*i+1] >= tonumber(ARGV[3*i-1]) then no = i end\n" \
	"end\n" \
	"out[1] = no\n" \
	"if no == 0 and tonumber(ARGV[1]) > 0 then\n" \
	"  for i, key in ipairs(KEYS) do\n" \
	"    redis.call('INCRBY', key, ARGV[1])\n" \
	"    if out[2*i+1] < 0 then redis.call('EXPIRE', key, ARGV[3*i]) end\n" \
	"  end\n" \
	"end\n" \
	"return out\n"

/*
 * KEYS: budgets. ARGV: cost, what of it was reserved, then window in s and what should be left in ms of the window in
 * which it was, of each. Returns used and left in ms of each, as they are now.
 */
#define TOKEN_SCRIPT_CHARGE \
	"local out = {}\n" \
	"for i, key in ipairs(KEYS) do\n" \
	"  local window, left, n = tonumber(ARGV[2*i+1]), redis.call('PTTL', key), tonumber(ARGV[1])\n" \
	"  if left ~= -2 and left <= ARGV[2*i+2] + window * 500 then n = n - ARGV[2] end\n" \
	"  if n > 0 or (n < 0 and left ~= -2) then\n" \
	"    redis.call('INCRBY', key, string.format('%.0f', n))\n" \
	"    if left < 0 then\n" \
	"      redis.call('EXPIRE', key, window)\n" \
	"      left = window * 1000\n" \
	"    end\n" \
	"  end\n" \
	"  out[2*i-1], out[2*i] = tonumber(redis.call('GET', key) or 0), left\n" \
	"end\n" \
	"return out\n"
