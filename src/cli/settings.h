/*
 * settings.h -- how the program runs: one field table from which flags, environment variables, the settings file, their checks and
 * `sluice run --help` come.
 *
 * A member `connectTimeoutMs` is `--connect-timeout-ms`, `SLUICE_CONNECT_TIMEOUT_MS` and `connectTimeoutMs:` in the file. Flags win over
 * the environment, the environment over the file, the file over the default.
 */
#pragma once
#include <stdio.h>
#include "core/field.h"

struct program_settings {
	struct str data, admin, store, redis, cluster, node, logLevel, dnsServers;
	struct items adminHosts;
	int64_t workers;
	bool demo, accessLog, adminInsecure, pinWorkers, keepUnderscores;
	int64_t drainTimeoutMs, connectTimeoutMs, upstreamIdleMs;
	int64_t headerTimeoutMs, bodyIdleMs, bodyMinRate, idleTimeoutMs, writeStallMs;
	int64_t headBytes, headFields, targetBytes, requestsPerConnection, maxConnections, receiveBufferBytes;
	const struct json *gatewayFeatures;
};
extern const struct field settings_fields[];

/*
 * Reads argv[first..argc), the environment and the file of --config. *config is the file's path or NULL. Texts live in `a`. false: *why says
 * which flag, variable or line is wrong and what would be right.
 */
MUST_USE bool settings_load(struct program_settings *out, int argc, char **argv, int first, struct arena *a, struct problem *why);
/* Checks a tree as read from a file. */
MUST_USE bool settings_check(const struct json *tree, struct arena *a, struct problem *why);
/* Every setting: flag, variable, default, meaning. */
void settings_help(FILE *out);
/* Node of a path like "a.b[2].c", for its line; NULL when it is not there. */
const struct json *json_find_path(const struct json *tree, const char *path);
/* Whole file as text in `a`; at most 64 MiB. */
MUST_USE bool file_read(const char *path, struct arena *a, struct str *out, struct problem *why);
