/*
 * fuzz_h2_server.c -- frames of a client: whatever comes after the preface, every stream that was opened is closed,
 * each request handed over is one that HTTP/1.1 could carry, and nothing is left behind.
 */
/* room: http; with: h2_peer.c */
#include "h2_peer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size <= 32768)
		h2_peer_serve(data, size);
	return 0;
}
