#include "cli/settings.h"
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include "cli/yaml.h"

const struct field settings_fields[] = {
	TEXT(struct program_settings, data, DEFAULT("\"./sluice-data\""), DOC("Data directory: store, key file, admin token. Made (0700) when missing.")),
	TEXT(struct program_settings, admin, DEFAULT("\"127.0.0.1:9070\""), DOC("Address of the control API.")),
	TEXTS(struct program_settings, adminHosts, RANGE(0, 64), DOC("More names the Host header of the control API may have, comma separated.")),
	BOOL(struct program_settings, adminInsecure, DEFAULT("false"), DOC("Allow a control API address that is not loopback although it has no TLS.")),
	TEXT(struct program_settings, store, DOC("Where resources are kept: sqlite:PATH. Default: sqlite:DATA/sluice.db.")),
	TEXT(struct program_settings, redis, DOC("Redis for limits of a fleet. Not served by this build.")),
	TEXT(struct program_settings, cluster, DEFAULT("\"local\""), DOC("This node serves the gateways of this cluster.")),
	TEXT(struct program_settings, node, DEFAULT("\"local\""), DOC("Name of this node.")),
	INT(struct program_settings, workers, RANGE(0, 64), DEFAULT("0"), DOC("Threads that serve traffic; 0 = one for each CPU.")),
	BOOL(struct program_settings, pinWorkers, DEFAULT("false"), DOC("Bind each worker to one CPU.")),
	BOOL(struct program_settings, demo, DEFAULT("false"), DOC("Start an echo backend and, in an empty store, a gateway, service, route and RateLimit for it.")),
	TEXT(struct program_settings, logLevel, DEFAULT("\"info\""), DOC("Least level that is logged: debug, info, warn or error.")),
	BOOL(struct program_settings, accessLog, DEFAULT("true"), DOC("One record for each request.")),
	TEXT(struct program_settings, dnsServers, DOC("Name servers, comma separated, instead of the system's: 127.0.0.1:53.")),
	INT(struct program_settings, drainTimeoutMs, RANGE(0, 3600000), DEFAULT("30000"), UNIT("ms"), DOC("At the end: wait so long for requests in flight.")),
	INT(struct program_settings, connectTimeoutMs, RANGE(1, 600000), DEFAULT("10000"), UNIT("ms"), DOC("Connecting to an upstream.")),
	INT(struct program_settings, upstreamIdleMs, RANGE(1, 86400000), DEFAULT("300000"), UNIT("ms"), DOC("Silence of an upstream within a request.")),
	INT(struct program_settings, headerTimeoutMs, RANGE(1, 3600000), DEFAULT("10000"), UNIT("ms"), DOC("A whole request head, from its first byte.")),
	INT(struct program_settings, bodyIdleMs, RANGE(1, 3600000), DEFAULT("30000"), UNIT("ms"), DOC("Silence within a request body.")),
	INT(struct program_settings, bodyMinRate, RANGE(0, 1e9), DEFAULT("240"), UNIT("bytes/s"), DOC("A request body may not be slower; 0 = no limit.")),
	INT(struct program_settings, idleTimeoutMs, RANGE(1, 86400000), DEFAULT("60000"), UNIT("ms"), DOC("An idle client connection.")),
	INT(struct program_settings, writeStallMs, RANGE(1, 3600000), DEFAULT("30000"), UNIT("ms"), DOC("A client that takes no byte of its answer.")),
	INT(struct program_settings, headBytes, RANGE(256, 1048576), DEFAULT("32768"), UNIT("bytes"), DOC("A request head, request line included.")),
	INT(struct program_settings, headFields, RANGE(1, 10000), DEFAULT("100"), DOC("Fields of a request head; each cookie counts.")),
	INT(struct program_settings, targetBytes, RANGE(16, 1048576), DEFAULT("16384"), UNIT("bytes"), DOC("A request target.")),
	BOOL(struct program_settings, keepUnderscores, DEFAULT("false"), DOC("Keep header names with '_' instead of dropping them.")),
	INT(struct program_settings, requestsPerConnection, RANGE(0, 1e12), DEFAULT("10000"), DOC("Requests on one client connection; 0 = no limit.")),
	INT(struct program_settings, maxConnections, RANGE(0, 1e7), DEFAULT("0"), DOC("Client connections of one worker; 0 = no limit.")),
	INT(struct program_settings, receiveBufferBytes, RANGE(16384, 16777216), DEFAULT("131072"), UNIT("bytes"), DOC("Receive buffer of a worker, shared by its connections.")),
	ANY(struct program_settings, gatewayFeatures, DOC("Object: defaults of gateway-features for all gateways (settings file only).")),
	FIELDS_END
};

/* "connectTimeoutMs" → "connect-timeout-ms" or "SLUICE_CONNECT_TIMEOUT_MS". */
static void spell(const char *name, bool is_variable, char *out)
{
	if (is_variable) {
		memcpy(out, "SLUICE_", 7);
		out += 7;
	}
	for (; *name; name++) {
		if (isupper((unsigned char)*name))
			*out++ = is_variable ? '_' : '-';
		*out++ = (char)(is_variable ? toupper((unsigned char)*name) : tolower((unsigned char)*name));
	}
	*out = '\0';
}

static const struct field *find_flag(struct str name)
{
	char flag[64];

	for (const struct field *f = settings_fields; f->type != FIELD_END; f++) {
		spell(f->name, false, flag);
		if (f->type != FIELD_JSON && str_equal(name, str_of(flag)))
			return f;
	}
	return NULL;
}

/* The text of a flag or variable as the type of its row. `from` names it in complaints. */
static bool put(struct json *tree, const struct field *f, struct str text, struct arena *a, struct problem *why)
{
	struct json *value = json_new_text(a, text);
	struct problem ignored;

	if (f->type == FIELD_INT) {
		value = json_parse(a, text, &ignored);
		if (!value || value->type != JSON_INT)
			return problem(why, "", "must be an integer, not \"%.*s\"", STR_FMT(text));
	} else if (f->type == FIELD_BOOL) {
		bool yes = str_equal(text, STR("true")) || str_equal(text, STR("1")) || str_equal(text, STR("yes"));

		if (!yes && !str_equal(text, STR("false")) && !str_equal(text, STR("0")) && !str_equal(text, STR("no")))
			return problem(why, "", "must be true or false, not \"%.*s\"", STR_FMT(text));
		value = json_new_bool(a, yes);
	} else if (f->type == FIELD_TEXTS) {
		struct str part;

		value = json_new(a, JSON_ARRAY);
		while (text.n > 0 && str_split(&text, ',', &part))
			json_add(value, json_new_text(a, str_trim(part)));
	}
	json_put(a, tree, f->name, value);
	return true;
}

static bool name_source(struct problem *why, const char *source)
{
	char text[sizeof why->text];

	snprintf(text, sizeof text, "%s%s%s", why->field, *why->field ? ": " : "", why->text);
	snprintf(why->field, sizeof why->field, "%s", source);
	snprintf(why->text, sizeof why->text, "%s", text);
	return false;
}

static bool take_environment(struct json *tree, struct arena *a, struct problem *why)
{
	char name[64];

	for (const struct field *f = settings_fields; f->type != FIELD_END; f++) {
		spell(f->name, true, name);
		const char *value = f->type == FIELD_JSON ? NULL : getenv(name);
		if (value && *value && !put(tree, f, str_of(value), a, why))
			return name_source(why, name);
	}
	return true;
}

static bool take_flags(struct json *tree, char **argv, int argc, struct arena *a, struct problem *why)
{
	for (int i = 0; i < argc; i++) {
		struct str name = str_of(argv[i]), value = { 0 };
		const struct field *f;
		size_t at;

		if (!str_starts(name, STR("--")))
			return problem(why, argv[i], "is not a flag; see `sluice run --help`");
		name = (struct str){ name.p + 2, name.n - 2 };
		at = str_find(name, '=');
		if (at < name.n) {
			value = (struct str){ name.p + at + 1, name.n - at - 1 };
			name.n = at;
		}
		if (str_equal(name, STR("config"))) {
			i += value.p == NULL;
			continue;
		}
		f = find_flag(name);
		if (!f)
			return problem(why, argv[i], "is not a known flag; see `sluice run --help`");
		if (!value.p && f->type == FIELD_BOOL)
			value = STR("true");
		else if (!value.p && i + 1 < argc)
			value = str_of(argv[++i]);
		else if (!value.p)
			return problem(why, argv[i], "needs a value");
		if (!put(tree, f, value, a, why))
			return name_source(why, argv[i]);
	}
	return true;
}

bool file_read(const char *path, struct arena *a, struct str *out, struct problem *why)
{
	FILE *f = fopen(path, "re");
	size_t cap = 65536, n = 0;
	char *text = arena_take(a, cap);

	if (!f)
		return problem(why, path, "cannot be read: %s", strerror(errno));
	while (!feof(f) && !ferror(f) && n <= 64u << 20) {
		if (n == cap) {
			char *larger = arena_take(a, cap * 2);

			memcpy(larger, text, n);
			text = larger;
			cap *= 2;
		}
		n += fread(text + n, 1, cap - n, f);
	}
	bool failed = ferror(f);
	fclose(f);
	if (failed || n > 64u << 20)
		return problem(why, path, failed ? "cannot be read: %s" : "is larger than 64 MiB", strerror(EIO));
	*out = (struct str){ text, n };
	return true;
}

/* One step of a path: a member name or an index. */
static const struct json *step_into(const struct json *v, struct str name)
{
	uint64_t index;

	if (!v)
		return NULL;
	if (v->type == JSON_ARRAY && str_to_u64(name, 1u << 30, &index)) {
		for (v = v->child; v && index > 0; index--)
			v = v->next;
		return v;
	}
	return json_get_str(v, name);
}

const struct json *json_find_path(const struct json *tree, const char *path)
{
	const struct json *v = tree;

	while (v && *path) {
		size_t n = strcspn(path, ".[]");

		if (n > 0)
			v = step_into(v, (struct str){ path, n });
		path += n;
		path += *path != '\0';
	}
	return v;
}

bool settings_check(const struct json *tree, struct arena *a, struct problem *why)
{
	struct program_settings out = { 0 };

	return fields_decode(settings_fields, tree, &out, a, why);
}

/* The file's one document, checked, with the line in the complaint. */
static struct json *read_file(const char *path, struct arena *a, struct problem *why)
{
	struct json *all, *tree;
	const struct json *at;
	struct str text;
	char source[128];

	if (!file_read(path, a, &text, why))
		return NULL;
	all = yaml_parse(a, text, why);
	if (!all) {
		name_source(why, path);
		return NULL;
	}
	tree = all->n ? all->child : json_new(a, JSON_OBJECT);
	if (all->n > 1 || (tree->type != JSON_OBJECT && tree->type != JSON_NULL)) {
		problem(why, path, "must hold one mapping of settings");
		return NULL;
	}
	if (tree->type == JSON_NULL)
		tree = json_new(a, JSON_OBJECT);
	if (!settings_check(tree, a, why)) {
		at = json_find_path(tree, why->field);
		snprintf(source, sizeof source, "%s:%u", path, at ? at->line : 1);
		name_source(why, source);
		return NULL;
	}
	return tree;
}

static const char *config_path(int argc, char **argv, int first)
{
	for (int i = first; i < argc; i++) {
		if (strcmp(argv[i], "--config") == 0 && i + 1 < argc)
			return argv[i + 1];
		if (strncmp(argv[i], "--config=", 9) == 0)
			return argv[i] + 9;
	}
	return getenv("SLUICE_CONFIG");
}

bool settings_load(struct program_settings *out, int argc, char **argv, int first, struct arena *a, struct problem *why)
{
	const char *path = config_path(argc, argv, first);
	struct json *tree = json_new(a, JSON_OBJECT);

	if (path && *path)
		tree = read_file(path, a, why);
	if (!tree || !take_environment(tree, a, why) || !take_flags(tree, argv + first, argc - first, a, why))
		return false;
	*out = (struct program_settings){ 0 };
	if (!fields_decode(settings_fields, tree, out, a, why)) {
		char flag[64] = "--";

		spell(why->field, false, flag + 2);
		name_source(why, flag);
		return false;
	}
	return true;
}

void settings_help(FILE *out)
{
	fprintf(out, "Settings, as flag, environment variable or member of the settings file (--config FILE, YAML):\n\n");
	for (const struct field *f = settings_fields; f->type != FIELD_END; f++) {
		char flag[64], variable[80];

		spell(f->name, false, flag);
		spell(f->name, true, variable);
		if (f->type == FIELD_JSON)
			fprintf(out, "  %s\n", f->name);
		else
			fprintf(out, "  --%s%s\n      %s, %s\n", flag, f->type == FIELD_BOOL ? "" : f->type == FIELD_INT ? " N" : " TEXT",
				variable, f->name);
		fprintf(out, "      %s", f->doc);
		if (f->unit)
			fprintf(out, " Unit: %s.", f->unit);
		if (f->fallback)
			fprintf(out, " Default: %s.", f->fallback);
		fprintf(out, "\n");
	}
}
