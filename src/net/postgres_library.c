/* postgres_library.c -- libpq, loaded once for the process. */
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include "net/postgres_parts.h"

#define LIBRARY "libpq.so.5"

struct postgres_library pq;

static struct {
	pthread_mutex_t lock;
	void *handle;
	bool is_ready;
} library = { .lock = PTHREAD_MUTEX_INITIALIZER };

static bool find_symbols(char error[POSTGRES_ERROR_MAX])
{
	static const struct {
		const char *name;
		void *at;
	} symbols[] = {
#define POSTGRES_SYMBOL(name) { "PQ" #name, &pq.name },
		POSTGRES_LIBRARY(POSTGRES_SYMBOL)
#undef POSTGRES_SYMBOL
	};

	for (size_t i = 0; i < sizeof symbols / sizeof *symbols; i++) {
		void *found = dlsym(library.handle, symbols[i].name);

		if (!found) {
			snprintf(error, POSTGRES_ERROR_MAX, LIBRARY " has no %s", symbols[i].name);
			return false;
		}
		memcpy(symbols[i].at, &found, sizeof found);
	}
	return true;
}

static bool load(char error[POSTGRES_ERROR_MAX])
{
	const char *why;

	if (!library.handle)
		library.handle = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
	if (library.handle)
		return find_symbols(error);
	why = dlerror();
	snprintf(error, POSTGRES_ERROR_MAX, "apt-get install libpq5 (%.150s)", why ? why : LIBRARY);
	return false;
}

bool postgres_load(char error[POSTGRES_ERROR_MAX])
{
	bool is_ready;

	pthread_mutex_lock(&library.lock);
	if (!library.is_ready)
		library.is_ready = load(error);
	is_ready = library.is_ready;
	pthread_mutex_unlock(&library.lock);
	return is_ready;
}
