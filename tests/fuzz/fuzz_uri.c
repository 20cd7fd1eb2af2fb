/*
 * fuzz_uri.c -- targets, authorities and URLs: a normal form is stable, holds no dot segment and no empty segment, and
 * decoding its escapes once gives no control byte.
 */
/* room: http */
#include <stdlib.h>
#include "http/uri.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_segments(struct str path)
{
	struct str rest = { path.p + 1, path.n - 1 }, segment;

	while (str_split(&rest, '/', &segment)) {
		BUG_ON(segment.n == 0 && rest.p);
		BUG_ON(str_equal(segment, STR(".")) || str_equal(segment, STR("..")));
	}
}

/* A server that decodes %2F, or %5C as a separator, must not find a dot segment either. */
static void check_decoded(struct arena *a, struct str path)
{
	struct str decoded = uri_decode(a, path, false), rest, part;
	char *copy;

	BUG_ON(!decoded.p);
	copy = arena_take(a, decoded.n + 1);
	for (size_t i = 0; i < decoded.n; i++) {
		BUG_ON((unsigned char)decoded.p[i] < 0x20 || decoded.p[i] == 0x7f);
		copy[i] = decoded.p[i] == '\\' ? '/' : decoded.p[i];
	}
	for (rest = (struct str){ copy, decoded.n }; str_split(&rest, '/', &part);)
		BUG_ON(str_equal(part, STR(".")) || str_equal(part, STR("..")));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct arena arena = { 0 };
	/* From a block of its own size, also when the fuzzer's is larger. */
	char *copy = malloc(size ? size : 1);
	struct str target = { copy, size }, path, query, again, none, host;
	struct url url;
	uint16_t port;

	if (size)
		memcpy(copy, data, size);
	if (uri_normalise(&arena, target, &path, &query) == URI_OK) {
		BUG_ON(path.n == 0 || path.p[0] != '/' || path.n > size);
		BUG_ON(!uri_is_clean(path) || !uri_is_clean(query));
		check_segments(path);
		check_decoded(&arena, path);
		BUG_ON(uri_normalise(&arena, path, &again, &none) != URI_OK || !str_equal(path, again) || none.p);
		if (query.p)
			(void)uri_decode(&arena, query, true);
	}
	if (uri_split_authority(target, &host, &port))
		BUG_ON(host.n == 0 || host.n > size);
	(void)uri_is_host(target);
	(void)uri_is_dns_name(target, true);
	if (url_parse(target, &url))
		BUG_ON(url.port == 0 || url.target.n == 0 || url.host.n == 0);
	free(copy);
	arena_free(&arena);
	return 0;
}
