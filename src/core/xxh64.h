/*
 * xxh64.h -- xxHash64 (https://github.com/Cyan4973/xxHash, doc/xxhash_spec.md): the same 64 bits for the same bytes
 * on every machine. For placing keys on rings; not keyed well enough for tables that peers fill, not for secrets.
 */
#pragma once
#include <stdint.h>
#include "core/str.h"

uint64_t xxh64(struct str data, uint64_t seed);
