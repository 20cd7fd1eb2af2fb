/*
 * once.h -- remembers what was used, so that it is not used a second time: the states of logins, for as long as a login
 * may take. One for the process; bounded: when it is full the oldest is forgotten. Other nodes do not know of it.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#define ONCE_MAX 65536

/* False: it was used before, within keep_ms. From now on it is used. Any thread. */
bool once_use(const uint8_t digest[32], int64_t keep_ms);
