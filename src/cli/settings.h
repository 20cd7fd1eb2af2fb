/*
 * settings.h -- how the program runs: one field table from which flags, environment variables, the settings file, their
 * checks, `sluice run --help` and the reference page come.
 *
 * A member `connectTimeoutMs` is `--connect-timeout-ms`, `SLUICE_CONNECT_TIMEOUT_MS`, and `connectTimeoutMs:` in the
 * file. Flags win over the environment, the environment over the file, the file over the default.
 */
#pragma once
#include <stdio.h>
#include "core/field.h"

struct program_settings {
	struct str data, admin, store, redis, cluster, node, logLevel, dnsServers;
	struct items adminHosts;
	int64_t workers;
	bool takeover, demo, accessLog, adminInsecure, pinWorkers, ioUring, keepUnderscores, coreDumps;
	int64_t drainTimeoutMs, connectTimeoutMs, upstreamIdleMs;
	int64_t headerTimeoutMs, bodyIdleMs, bodyMinRate, idleTimeoutMs, writeStallMs;
	int64_t http2PingMs, http2PingTimeoutMs;
	int64_t headBytes, headFields, targetBytes, requestsPerConnection, maxConnections, receiveBufferBytes;
	int64_t workerMemoryBytes, overloadLagMs, drainIdleMs;
	const struct json *gatewayFeatures;
};
extern const struct field settings_fields[];

/*
 * Reads args (flags; ends with NULL), the environment and the file of --config (SLUICE_CONFIG). Texts live in `a`.
 * false: *why says which flag, variable or line is wrong and what would be right.
 */
MUST_USE bool settings_load(struct program_settings *out, char *const *args, struct arena *a, struct problem *why);
/* Checks a tree as read from a file: paths in *why are members of it. */
MUST_USE bool settings_check(const struct json *tree, struct arena *a, struct problem *why);
/* The two parts of that: each row by itself; rows together. */
MUST_USE bool settings_decode(const struct json *tree, struct program_settings *out, struct arena *a,
			      struct problem *why);
MUST_USE bool settings_fit(const struct program_settings *s, struct problem *why);

#define SETTING_NAME 64
/* "connectTimeoutMs" to "connect-timeout-ms" or "SLUICE_CONNECT_TIMEOUT_MS"; out has SETTING_NAME bytes. */
void settings_spell(const char *name, bool is_variable, char *out);
/* Every setting: flag, variable, bounds, default, meaning. */
void settings_help(FILE *out);
/* The same as Markdown, with the gateway settings. */
void settings_manual(FILE *out);

/* Line of the node of a path like "a.b[2].c" in a tree of yaml_parse(), or of the innermost part that is there. */
unsigned json_find_line(const struct json *tree, const char *path);
/* Whole file as text in `a`; at most 64 MiB. */
MUST_USE bool file_read(const char *path, struct arena *a, struct str *out, struct problem *why);
