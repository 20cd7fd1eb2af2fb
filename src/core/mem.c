#include "core/mem.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "core/fault.h"

NORETURN static void stop_exhausted(size_t size)
{
	char text[96];
	int n = snprintf(text, sizeof(text), "sluice: out of memory: %zu bytes were asked for\n", size);
	ssize_t ignored = write(STDERR_FILENO, text, (size_t)n);

	(void)ignored;
	abort();
}

void *mem_alloc(size_t size)
{
	void *p = calloc(1, size ? size : 1);

	if (UNLIKELY(!p))
		stop_exhausted(size);
	return p;
}

void *mem_alloc_aligned(size_t alignment, size_t size)
{
	/* aligned_alloc wants a multiple of the alignment. */
	size_t rounded = (size + alignment - 1) & ~(alignment - 1);
	void *p = aligned_alloc(alignment, rounded);

	if (UNLIKELY(!p))
		stop_exhausted(size);
	return memset(p, 0, rounded);
}

void *mem_resize(void *p, size_t size)
{
	void *resized = realloc(p, size ? size : 1);

	if (UNLIKELY(!resized))
		stop_exhausted(size);
	return resized;
}

void mem_free(void *p)
{
	free(p);
}

/*
 * jemalloc's, where it is linked: it gives pages back while memory is taken and freed, and after a peak nobody does.
 * 4096 stands for all arenas (MALLCTL_ARENAS_ALL).
 */
extern int mallctl(const char *name, void *old, size_t *old_size, void *new, size_t new_size) __attribute__((weak));

void mem_give_back(void)
{
	if (mallctl)
		mallctl("arena.4096.decay", NULL, NULL, NULL, 0);
}

void mem_wipe(void *p, size_t size)
{
	if (size)
		explicit_bzero(p, size);
}
