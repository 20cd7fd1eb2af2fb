/*
 * fuzz_h1_request.c -- requests: where the head ends must not depend on how the bytes arrive, and what the parser
 * accepts must be read back as the same message after it was written.
 */
/* room: http */
#include <stdlib.h>
#include "http/h1.h"
#include "http/uri.h"

static const struct h1_limits limits = { .head_bytes = 65536, .fields = 200, .target_bytes = 16384 };
static const struct h1_limits wider = { .head_bytes = 1 << 20, .fields = 300, .target_bytes = 1 << 20 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The size of the head when the bytes come a few at a time; 0 for any other end. */
static size_t find_slowly(const char *p, size_t n, size_t step)
{
	struct h1_scan scan = { 0 };
	size_t size = 0;

	for (size_t i = 0; i < n;) {
		enum h1_result result;

		i = n - i < step ? n : i + step;
		result = h1_find_head(&scan, p, i, &size);
		if (result != H1_MORE)
			return result == H1_DONE ? size : 0;
	}
	return 0;
}

static void check_rows(const struct message *m)
{
	for (unsigned i = 0; i < m->n; i++) {
		const struct header *h = &m->headers[i];

		BUG_ON(!header_is_token(h->name) || !header_is_value(h->value));
		BUG_ON(header_lookup(h->name) != h->id);
		BUG_ON(!h->dropped && !(m->present >> h->id & 1));
	}
	BUG_ON(message_find(m, HEADER_CONTENT_LENGTH) || message_find(m, HEADER_TRANSFER_ENCODING));
	BUG_ON(message_find(m, HEADER_CONNECTION) || message_find(m, HEADER_KEEP_ALIVE));
}

static void check_again(const struct message *m)
{
	struct message again = { .arena = m->arena };
	size_t bound = h1_head_bound(m);
	char *out = malloc(bound);
	size_t n = h1_write_request(m, out);

	BUG_ON(n > bound);
	/* An HTTP/1.0 request without Host is written with an empty one, which nobody has to accept. */
	if (m->authority.n) {
		BUG_ON(h1_parse_request(&again, (struct str){ out, n }, &wider) != H1_FAULT_NONE);
		BUG_ON(!str_equal(m->path, again.path) || !str_equal(m->query, again.query));
		BUG_ON(!str_equal(m->authority, again.authority) || !str_equal(m->method_name, again.method_name));
		BUG_ON(m->framing != again.framing || m->content_length != again.content_length);
		BUG_ON(m->keep_alive != again.keep_alive);
	}
	free(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct arena arena = { 0 };
	struct message m = { .arena = &arena };
	struct h1_scan scan = { 0 };
	struct str head = { (const char *)data, size };
	size_t head_size = 0;

	if (h1_find_head(&scan, head.p, head.n, &head_size) == H1_DONE) {
		size_t slow = find_slowly(head.p, head.n, 1);

		BUG_ON(head_size < 4 || head_size > size || memcmp(head.p + head_size - 3, "\n\r\n", 3) != 0);
		/* Byte by byte, a bare LF is seen before the end is; the parser sees it as well. */
		BUG_ON(slow && slow != head_size);
		head.n = head_size;
		if (h1_parse_request(&m, head, &limits) == H1_FAULT_NONE) {
			BUG_ON(!slow || find_slowly(head.p, size, 7) != head_size);
			check_rows(&m);
			check_again(&m);
			(void)message_cookie(&m, STR("a"));
			(void)query_value(m.query, STR("a"));
		}
	} else {
		BUG_ON(h1_parse_request(&m, head, &limits) == H1_FAULT_NONE);
	}
	arena_free(&arena);
	return 0;
}
