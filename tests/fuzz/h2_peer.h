/*
 * h2_peer.h -- a server of HTTP/2 under fuzz. Of each request it hands over must hold: HTTP/1.1 could carry it, and who
 * parses what we would write reads the same request. Nothing it took may be left behind.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>

/* A client that says these bytes behind preface and SETTINGS, and leaves. */
void h2_peer_serve(const uint8_t *data, size_t size);
