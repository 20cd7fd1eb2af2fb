#include "control/process.h"
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>
#include "core/clock.h"
#include "core/metric.h"

static struct {
	struct series *start, *cpu, *memory, *descriptors, *descriptors_max;
} metrics;

void process_metrics(void)
{
	metric_set(metric_series(METRIC_BUILD_INFO, &STR(SLUICE_VERSION)), 1);
	metrics.start = metric_series(METRIC_PROCESS_START, NULL);
	metrics.cpu = metric_series(METRIC_PROCESS_CPU, NULL);
	metrics.memory = metric_series(METRIC_PROCESS_MEMORY, NULL);
	metrics.descriptors = metric_series(METRIC_PROCESS_DESCRIPTORS, NULL);
	metrics.descriptors_max = metric_series(METRIC_PROCESS_DESCRIPTORS_MAX, NULL);
	metric_set(metrics.start, clock_wall_ms() / 1000);
}

static int64_t us_of(struct timeval t)
{
	return (int64_t)t.tv_sec * 1000000 + t.tv_usec;
}

/* The second number of /proc/self/statm, in pages; 0 when it cannot be read. */
static int64_t resident_pages(void)
{
	FILE *f = fopen("/proc/self/statm", "re");
	long long size = 0, resident = 0;

	if (!f)
		return 0;
	if (fscanf(f, "%lld %lld", &size, &resident) != 2)
		resident = 0;
	fclose(f);
	return resident;
}

static int64_t count_descriptors(void)
{
	DIR *folder = opendir("/proc/self/fd");
	int64_t n = -3;                            /* ".", "..", and the folder itself */

	/* There may be none left to read with. */
	if (!folder)
		return metric_value(metrics.descriptors);
	while (readdir(folder))
		n++;
	closedir(folder);
	return n;
}

void process_sample(void)
{
	struct rusage used;
	struct rlimit limit;

	if (getrusage(RUSAGE_SELF, &used) == 0)
		metric_set(metrics.cpu, us_of(used.ru_utime) + us_of(used.ru_stime));
	if (getrlimit(RLIMIT_NOFILE, &limit) == 0)
		metric_set(metrics.descriptors_max, (int64_t)limit.rlim_cur);
	metric_set(metrics.memory, resident_pages() * sysconf(_SC_PAGESIZE));
	metric_set(metrics.descriptors, count_descriptors());
}
