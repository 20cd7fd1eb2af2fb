#include "core/fault.h"
#include <execinfo.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* No allocation, no lock, no log: the state that brought us here may be any of them. */
void fault_stop(const char *file, int line, const char *what)
{
	void *frames[64];
	char text[512];
	int n = snprintf(text, sizeof(text), "sluice: BUG at %s:%d: %s\n", file, line, what);
	size_t size = n < (int)sizeof(text) ? (size_t)n : sizeof(text) - 1;
	ssize_t ignored = write(STDERR_FILENO, text, size);

	(void)ignored;
	backtrace_symbols_fd(frames, backtrace(frames, 64), STDERR_FILENO);
	abort();
}
