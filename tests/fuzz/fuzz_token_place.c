/*
 * fuzz_token_place.c -- what is taken off a request is found no more, there is no more of the rest than before, and it
 * stays within its bytes.
 */
/* room: policy */
#include <stddef.h>
#include <stdint.h>
#include "core/fault.h"
#include "core/mem.h"
#include "policy/token_place.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static size_t count_bytes(const struct message *m)
{
	size_t n = m->query.n;

	for (unsigned i = 0; i < m->n; i++)
		n += m->headers[i].dropped ? 0 : m->headers[i].value.n;
	return n;
}

/* The first byte says where and how it is called; two lines of the rest are two lines of the request. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct str names[] = { { "token", 5 }, { "a b", 3 }, { "t", 1 }, { "Cookie", 6 } };
	struct arena a = { 0 };
	struct message m = { .arena = &a };
	struct token_place at;
	struct str rest, first, token;
	size_t before;

	if (size < 1)
		return 0;
	at = (struct token_place){ .position = (enum token_position)(data[0] % 3), .name = names[data[0] / 3 % 4],
				   .prefix = data[0] & 0x80 ? STR("Bearer ") : STR("") };
	rest = (struct str){ (const char *)data + 1, size - 1 };
	str_split(&rest, '\n', &first);
	m.query = first;
	if (at.position == TOKEN_COOKIE) {
		message_add(&m, STR("Cookie"), first);
		message_add(&m, STR("cookie"), rest);
	} else if (at.position == TOKEN_HEADER) {
		message_add(&m, at.name, first);
		if (rest.p)
			message_add(&m, at.name, rest);
	}
	before = count_bytes(&m);
	if (token_find(&m, &at, &token) == TOKEN_ONE)
		BUG_ON(token.n == 0 || token.n > size);
	token_remove(&m, &at);
	/* Cookies are parted by "; ", whatever it was before. */
	BUG_ON(at.position != TOKEN_COOKIE && count_bytes(&m) > before);
	BUG_ON(token_find(&m, &at, &token) != TOKEN_NONE);
	arena_free(&a);
	return 0;
}
