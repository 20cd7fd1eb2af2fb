/*
 * password.h -- passwords as they are stored: a salted hash that is slow and wants memory on purpose (yescrypt, 16 MiB
 * and some 30 ms each). The only door to libcrypt. Never on a loop's thread: see offload.h.
 */
#pragma once
#include <stdbool.h>
#include "core/str.h"

#define PASSWORD_BYTES_MAX 256            /* longer ones match nothing */
#define PASSWORD_HASH_MAX 128             /* with the NUL behind it */
/* A hash that no password is known to match: what is tried for users that do not exist, so that time tells nothing. */
#define PASSWORD_HASH_OF_NONE "$y$j9T$7mBzQnF2kXwL5tRcVpYh1.$3fQ0nEwG8uJmZrA6xKdTbS5vH2cLpYi9OqWgNe4MjR"

void password_hash(struct str password, char out[PASSWORD_HASH_MAX]);
bool password_matches(struct str password, struct str hash);
