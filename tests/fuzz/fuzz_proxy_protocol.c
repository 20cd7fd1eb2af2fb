/*
 * fuzz_proxy_protocol.c -- PROXY headers: what is complete lies within the bytes, and a prefix never says otherwise.
 */
/* room: net */
#include <stddef.h>
#include <stdint.h>
#include "core/fault.h"
#include "net/proxy_protocol.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct proxy_header header, shorter;
	enum proxy_result result = proxy_protocol_parse((const char *)data, size, &header);

	BUG_ON(result == PROXY_DONE && (header.size == 0 || header.size > size || header.size > PROXY_HEADER_MAX));
	BUG_ON(result == PROXY_DONE && header.has_source && header.source.length == 0);
	BUG_ON(result == PROXY_MORE && size >= PROXY_HEADER_MAX);
	if (size == 0)
		return 0;
	enum proxy_result before = proxy_protocol_parse((const char *)data, size - 1, &shorter);
	BUG_ON(before == PROXY_BAD && result != PROXY_BAD);
	BUG_ON(before == PROXY_DONE && (result != PROXY_DONE || header.size != shorter.size));
	return 0;
}
