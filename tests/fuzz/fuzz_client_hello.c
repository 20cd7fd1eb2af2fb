/*
 * fuzz_client_hello.c -- hellos: a prefix of what is complete waits and never is complete or bad; names are clean.
 */
/* room: net */
#include <stddef.h>
#include <stdint.h>
#include "core/fault.h"
#include "net/client_hello.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char name[SERVER_NAME_MAX], shorter[SERVER_NAME_MAX];
	enum hello_result result = client_hello_parse((const char *)data, size, name);

	BUG_ON(strlen(name) >= SERVER_NAME_MAX || (result != HELLO_DONE && name[0]));
	for (const char *p = name; *p; p++)
		BUG_ON(!((*p >= 'a' && *p <= 'z') || (*p >= '0' && *p <= '9') || strchr("-_.", *p)));
	if (size == 0 || size > 600)
		return 0;
	enum hello_result before = client_hello_parse((const char *)data, size - 1, shorter);
	BUG_ON(before == HELLO_BAD && result != HELLO_BAD);
	BUG_ON(before == HELLO_DONE && (result != HELLO_DONE || strcmp(name, shorter) != 0));
	return 0;
}
