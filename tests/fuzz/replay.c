/*
 * replay.c -- main() for fuzz targets that are built without libFuzzer: feeds every file of a corpus directory to the
 * target, so that `make test` runs each input that ever mattered. A directory without a file is an error: a target
 * that tests nothing must not pass.
 */
#include <dirent.h>
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint8_t *read_file(FILE *file, size_t size)
{
	/* An exact-size heap block, so that the sanitizer sees a read one byte past the input. */
	uint8_t *data = malloc(size ? size : 1);

	if (data && fread(data, 1, size, file) != size) {
		free(data);
		return NULL;
	}
	return data;
}

static bool replay_file(const char *path)
{
	FILE *file = fopen(path, "rb");
	struct stat status;
	uint8_t *data = NULL;

	if (file && fstat(fileno(file), &status) == 0)
		data = read_file(file, (size_t)status.st_size);
	if (file)
		fclose(file);
	if (!data) {
		fprintf(stderr, "replay: cannot read %s\n", path);
		return false;
	}
	LLVMFuzzerTestOneInput(data, (size_t)status.st_size);
	free(data);
	return true;
}

/* Returns the number of files replayed, or -1 when one could not be read. */
static int replay_directory(const char *directory)
{
	DIR *dir = opendir(directory);
	struct dirent *entry;
	char path[4096];
	int count = 0;

	if (!dir) {
		fprintf(stderr, "replay: %s: %s\n", directory, strerror(errno));
		return -1;
	}
	while (count >= 0 && (entry = readdir(dir))) {
		if (entry->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "%s/%s", directory, entry->d_name);
		fprintf(stderr, "%s\n", path);      /* the last line before a crash names the input */
		count = replay_file(path) ? count + 1 : -1;
	}
	closedir(dir);
	return count;
}

int main(int argc, char **argv)
{
	int count;

	if (argc != 2) {
		fprintf(stderr, "usage: %s CORPUS_DIRECTORY\n", argv[0]);
		return 2;
	}
	count = replay_directory(argv[1]);
	if (count == 0)
		fprintf(stderr, "replay: %s holds no input\n", argv[1]);
	else if (count > 0)
		printf("%d inputs\n", count);
	return count > 0 ? 0 : 1;
}
