/*
 * fuzz_h1_response.c -- responses of upstreams, to a GET or (first byte odd) a HEAD: what is accepted must be read back
 * as the same message after it was written.
 */
/* room: http */
#include <stdlib.h>
#include "http/h1.h"

static const struct h1_limits wider = { .head_bytes = 1 << 20, .fields = 300, .target_bytes = 1 << 20 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_again(const struct message *m)
{
	struct message again = { .arena = m->arena };
	size_t bound = h1_head_bound(m);
	char *out = malloc(bound);
	size_t n = h1_write_response(m, out);

	BUG_ON(n > bound);
	BUG_ON(h1_parse_response(&again, (struct str){ out, n }, &wider, m->method) != H1_FAULT_NONE);
	BUG_ON(m->status != again.status || m->framing != again.framing);
	BUG_ON(m->framing == FRAMING_LENGTH && m->content_length != again.content_length);
	BUG_ON(m->status >= 200 && m->keep_alive != again.keep_alive);
	free(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct arena arena = { 0 };
	struct message m = { .arena = &arena };
	struct h1_scan scan = { 0 };
	size_t head_size;
	enum method method;

	if (size == 0)
		return 0;
	method = data[0] & 1 ? METHOD_HEAD : METHOD_GET;
	if (h1_find_head(&scan, (const char *)data + 1, size - 1, &head_size) != H1_DONE)
		head_size = size - 1;
	if (!h1_parse_response(&m, (struct str){ (const char *)data + 1, head_size }, &h1_default_limits, method)) {
		BUG_ON(m.status < 100 || m.status > 599);
		BUG_ON(m.framing == FRAMING_CLOSE && m.keep_alive);
		check_again(&m);
	}
	arena_free(&arena);
	return 0;
}
