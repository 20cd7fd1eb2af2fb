#include "net/descriptor.h"
#include <limits.h>
#include <sys/resource.h>

enum { RESERVE_MIN = 16, RESERVE_MAX = 256 };

/* Written once, before the workers start. */
static int marks[2] = { INT_MAX, INT_MAX };

void descriptor_start(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
		return;
	if (limit.rlim_cur < limit.rlim_max) {
		limit.rlim_cur = limit.rlim_max;
		if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
			return;
	}
	if (limit.rlim_cur >= INT_MAX)
		return;
	int all = (int)limit.rlim_cur, reserve = all / 8;

	if (reserve < RESERVE_MIN)
		reserve = RESERVE_MIN;
	if (reserve > RESERVE_MAX)
		reserve = RESERVE_MAX;
	marks[DESCRIPTOR_CLIENT] = all - reserve;
	marks[DESCRIPTOR_UPSTREAM] = all - reserve / 2;
}

bool descriptor_is_scarce(int fd, enum descriptor_use use)
{
	return fd >= marks[use];
}
