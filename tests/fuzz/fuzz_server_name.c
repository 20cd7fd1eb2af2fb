/*
 * fuzz_server_name.c -- the server_name extension of a TLS hello, and the look-up of what it names: a name lies within
 * its bytes, an exact entry is always found, and nothing else but a wildcard above the name or the fallback is.
 */
/* room: net */
#include <stddef.h>
#include <stdint.h>
#include "core/fault.h"
#include "net/tls.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct tls_server exact = { .part = { .refs = 1 } }, wild = { .part = { .refs = 1 } }, fallback = { 0 };
	struct str name = tls_read_server_name(data, size);
	struct tls_names names = { .fallback = &fallback };
	struct pmap *map;
	char lower[256];
	size_t n = name.n && name.p[name.n - 1] == '.' ? name.n - 1 : name.n;

	if (name.n == 0)
		return 0;
	BUG_ON(name.p < (const char *)data || name.p + name.n > (const char *)data + size || name.n > 255);
	BUG_ON(tls_names_find(&names, name) != &fallback);
	for (size_t i = 0; i < n; i++)
		lower[i] = str_lower(name.p[i]);
	map = pmap_set(pmap_new(), STR("*.w.test"), &wild.part);
	names.servers = map;
	bool is_below = n > 7 && str_equal((struct str){ lower + n - 7, 7 }, STR(".w.test"));
	BUG_ON(tls_names_find(&names, name) != (is_below ? &wild : &fallback));
	if (n > 0) {
		map = pmap_set(map, (struct str){ lower, n }, &exact.part);
		names.servers = map;
		BUG_ON(tls_names_find(&names, name) != &exact);
	}
	pmap_drop(map);
	return 0;
}
