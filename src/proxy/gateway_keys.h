/*
 * gateway_keys.h -- keys for what the gateway gives clients to keep: session and login cookies.
 *
 * All are derived (HKDF, RFC 5869) from one secret of 32 bytes that the store keeps sealed, so that every worker and
 * every node of a store has the same ones and a restart loses none. A purpose and a generation make a key of their own:
 * the setting sessionKeyGeneration of a gateway says which generation is sealed with, and the one before it is still
 * opened.
 */
#pragma once
#include <stdint.h>
#include "core/str.h"

#define GATEWAY_SECRET_SIZE 32

/* Control thread, before there is traffic. Until then there is a random one. */
void gateway_keys_set(const uint8_t secret[GATEWAY_SECRET_SIZE]);
/* Any thread. `purpose`: at most 160 bytes. */
void gateway_key(struct str purpose, unsigned generation, uint8_t out[32]);
