/*
 * client_hello.h -- the server name of a TLS client hello, for connections that are passed on without being decrypted.
 *
 * Only what frames the hello and its server_name extension is looked at (RFC 8446 4.1.2, RFC 6066 3). Looks at the same
 * bytes from the start each time; allocates nothing and never reads past what is there.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include "core/str.h"

#define CLIENT_HELLO_MAX 16384            /* bytes of the connection up to its end; longer ones are refused */
#define SERVER_NAME_MAX 254               /* a DNS name and its NUL */

enum hello_result { HELLO_DONE, HELLO_MORE, HELLO_BAD };

/* name: lower case, of letters, digits, '-', '_' and '.', NUL-terminated; "" when the client names no server. */
enum hello_result client_hello_parse(const char *p, size_t n, char name[SERVER_NAME_MAX]);
