/*
 * settings_table.c -- which settings there are: their rows, their checks, and what people read about them.
 */
#include <ctype.h>
#include "cli/settings.h"
#include "control/feature.h"
#include "core/log.h"
#include "net/addr.h"

static bool check_log_level(struct str s, struct problem *why)
{
	enum log_level level;

	return log_level_parse(s, &level) ||
	       problem(why, "", "must be debug, info, warn or error, not \"%.*s\"", STR_FMT(s));
}

static bool check_admin(struct str s, struct problem *why)
{
	struct addr at;

	return addr_parse(s, &at) ||
	       problem(why, "", "must be an address and a port such as 127.0.0.1:9070, not \"%.*s\"", STR_FMT(s));
}

/* What this build cannot honour is refused, not ignored. */
static bool check_store(struct str s, struct problem *why)
{
	return (str_starts(s, STR("sqlite:")) && s.n > 7) ||
	       problem(why, "", "must be sqlite:PATH; other stores are not served by this build");
}

static bool check_redis(struct str s, struct problem *why)
{
	(void)s;
	return problem(why, "", "is not served by this build; leave it out: limits are kept by this process");
}

static bool check_dns_servers(struct str s, struct problem *why)
{
	struct str part;

	while (str_split(&s, ',', &part)) {
		struct addr at;
		struct ip ip;

		part = str_trim(part);
		if (!ip_parse(part, &ip) && !addr_parse(part, &at))
			return problem(why, "", "must be addresses such as 127.0.0.1:53, comma separated; "
				       "\"%.*s\" is none", STR_FMT(part));
	}
	return true;
}

/* Stands in log records and JSON: nothing that needs quoting. */
static bool check_word(struct str s, struct problem *why)
{
	for (size_t i = 0; i < s.n; i++)
		if (!isalnum((unsigned char)s.p[i]) && !strchr("-_.", s.p[i]))
			return problem(why, "", "must consist of letters, digits, '-', '_' and '.'");
	return true;
}

const struct field settings_fields[] = {
	TEXT(struct program_settings, data, DEFAULT("\"./sluice-data\""),
	     DOC("Data directory: store, key file, admin token. Made (0700) when missing.")),
	TEXT(struct program_settings, admin, FORMAT(check_admin), DEFAULT("\"127.0.0.1:9070\""),
	     DOC("Address of the control API.")),
	TEXTS(struct program_settings, adminHosts, RANGE(0, 64),
	      DOC("More names the Host header of the control API may have, comma separated.")),
	BOOL(struct program_settings, adminInsecure, DEFAULT("false"),
	     DOC("Allow a control API address that is not loopback although it has no TLS.")),
	TEXT(struct program_settings, store, FORMAT(check_store),
	     DOC("Where resources are kept: sqlite:PATH. Default: sqlite:DATA/sluice.db.")),
	TEXT(struct program_settings, redis, FORMAT(check_redis),
	     DOC("Redis for limits of a fleet. Not served by this build.")),
	TEXT(struct program_settings, cluster, RANGE(1, 64), FORMAT(check_word), DEFAULT("\"local\""),
	     DOC("This node serves the gateways of this cluster.")),
	TEXT(struct program_settings, node, RANGE(1, 64), FORMAT(check_word), DEFAULT("\"local\""),
	     DOC("Name of this node.")),
	INT(struct program_settings, workers, RANGE(0, 64), DEFAULT("0"),
	    DOC("Threads that serve traffic; 0 = one for each CPU.")),
	BOOL(struct program_settings, pinWorkers, DEFAULT("false"),
	     DOC("Bind each worker to one CPU.")),
	BOOL(struct program_settings, ioUring, DEFAULT("true"),
	     DOC("Give the kernel what a turn of a worker sends in one call of io_uring; else, or where the kernel has "
		 "none for us, in one call for each message.")),
	BOOL(struct program_settings, coreDumps, DEFAULT("false"),
	     DOC("Let a crash leave a core file, with all secrets in it; else there is none, and no memory in one.")),
	BOOL(struct program_settings, takeover, DEFAULT("false"),
	     DOC("Take sockets and store over from the process that serves this data directory, which then ends.")),
	BOOL(struct program_settings, demo, DEFAULT("false"),
	     DOC("Start an echo backend and, in an empty store, a gateway, route and RateLimit for it.")),
	TEXT(struct program_settings, logLevel, FORMAT(check_log_level), DEFAULT("\"info\""),
	     DOC("Least level that is logged: debug, info, warn or error.")),
	BOOL(struct program_settings, accessLog, DEFAULT("true"),
	     DOC("One record for each request.")),
	TEXT(struct program_settings, dnsServers, FORMAT(check_dns_servers),
	     DOC("Name servers, comma separated, instead of the system's: 127.0.0.1:53.")),
	INT(struct program_settings, drainTimeoutMs, RANGE(0, 3600000), DEFAULT("30000"), UNIT("ms"),
	    DOC("At the end: wait so long for requests in flight.")),
	INT(struct program_settings, drainIdleMs, RANGE(0, 600000), DEFAULT("1000"), UNIT("ms"),
	    DOC("At the end: an idle client connection may bring one more request for so long.")),
	INT(struct program_settings, connectTimeoutMs, RANGE(1, 600000), DEFAULT("10000"), UNIT("ms"),
	    DOC("Connecting to an upstream.")),
	INT(struct program_settings, upstreamIdleMs, RANGE(1, 86400000), DEFAULT("300000"), UNIT("ms"),
	    DOC("Silence of an upstream within a request.")),
	INT(struct program_settings, headerTimeoutMs, RANGE(1, 3600000), DEFAULT("10000"), UNIT("ms"),
	    DOC("A whole request head, from its first byte.")),
	INT(struct program_settings, bodyIdleMs, RANGE(1, 3600000), DEFAULT("30000"), UNIT("ms"),
	    DOC("Silence within a request body.")),
	INT(struct program_settings, bodyMinRate, RANGE(0, 1e9), DEFAULT("240"), UNIT("bytes/s"),
	    DOC("A request body may not be slower; 0 = no limit.")),
	INT(struct program_settings, idleTimeoutMs, RANGE(1, 86400000), DEFAULT("60000"), UNIT("ms"),
	    DOC("An idle client connection.")),
	INT(struct program_settings, writeStallMs, RANGE(1, 3600000), DEFAULT("30000"), UNIT("ms"),
	    DOC("A client that takes no byte of its answer.")),
	INT(struct program_settings, http2PingMs, RANGE(0, 3600000), DEFAULT("30000"), UNIT("ms"),
	    DOC("An HTTP/2 connection, of a client or to an upstream, that is silent for so long while requests are "
		"under way is asked by PING whether it still works; 0 = never.")),
	INT(struct program_settings, http2PingTimeoutMs, RANGE(1, 3600000), DEFAULT("15000"), UNIT("ms"),
	    DOC("And is closed when nothing comes for so long after that.")),
	INT(struct program_settings, headBytes, RANGE(256, 1048576), DEFAULT("32768"), UNIT("bytes"),
	    DOC("A request head, request line included.")),
	INT(struct program_settings, headFields, RANGE(1, 10000), DEFAULT("100"),
	    DOC("Fields of a request head; each cookie counts.")),
	INT(struct program_settings, targetBytes, RANGE(16, 1048576), DEFAULT("16384"), UNIT("bytes"),
	    DOC("A request target.")),
	BOOL(struct program_settings, keepUnderscores, DEFAULT("false"),
	     DOC("Keep header names with '_' instead of dropping them.")),
	INT(struct program_settings, requestsPerConnection, RANGE(0, 1e12), DEFAULT("10000"),
	    DOC("Requests on one client connection; 0 = no limit.")),
	INT(struct program_settings, maxConnections, RANGE(0, 1e7), DEFAULT("0"),
	    DOC("Client connections of one worker; 0 = no limit.")),
	INT(struct program_settings, receiveBufferBytes, RANGE(16384, 16777216), DEFAULT("131072"),
	    UNIT("bytes"), DOC("Receive buffer of a worker, shared by its connections.")),
	INT(struct program_settings, workerMemoryBytes, RANGE(0, 1e12), DEFAULT("268435456"), UNIT("bytes"),
	    DOC("What a worker may hold for its peers; beyond it new requests get 503. 0 = no limit.")),
	INT(struct program_settings, overloadLagMs, RANGE(0, 600000), DEFAULT("100"), UNIT("ms"),
	    DOC("When requests wait longer than this for a worker, some get 503 at once. 0 = never.")),
	ANY(struct program_settings, gatewayFeatures,
	    DOC("Object: defaults of gateway-features for all gateways (settings file only).")),
	FIELDS_END
};

bool settings_decode(const struct json *tree, struct program_settings *out, struct arena *a, struct problem *why)
{
	const struct json *features_given;

	*out = (struct program_settings){ 0 };
	if (!fields_decode(settings_fields, tree, out, a, why))
		return false;
	features_given = out->gatewayFeatures;
	if (features_given && features_given->type != JSON_OBJECT)
		return problem(why, "gatewayFeatures", "must be an object of names and values");
	for (const struct json *v = features_given ? features_given->child : NULL; v; v = v->next) {
		const struct feature *f = feature_find(v->name);

		if (!f)
			problem(why, "", "is no gateway setting; `sluice help settings` lists them");
		else if (feature_check(f, v, why))
			continue;
		problem_prefix(why, v->name.p);
		problem_prefix(why, "gatewayFeatures");
		return false;
	}
	return true;
}

bool settings_fit(const struct program_settings *s, struct problem *why)
{
	struct addr admin;
	struct ip ip;

	if (!addr_parse(s->admin, &admin))
		return problem(why, "admin", "must be an address and a port");
	ip = addr_ip(&admin);
	if (addr_is_loopback(&ip) || s->adminInsecure)
		return true;
	return problem(why, "admin", "is not a loopback address, and the control API has no TLS: tokens would travel "
		       "in the clear; set adminInsecure (--admin-insecure) if you accept that");
}

void settings_spell(const char *name, bool is_variable, char *out)
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

/* "0 to 64 items", "" when the row has no bounds. */
static const char *bounds(const struct field *f, char out[96])
{
	*out = '\0';
	if (f->ranged)
		snprintf(out, 96, "%.0f to %.0f%s", f->min, f->max, f->type == FIELD_TEXTS ? " items" :
			 f->type == FIELD_TEXT ? " characters" : "");
	return out;
}

static const char *value_word(const struct field *f)
{
	switch (f->type) { /* flat switch */
	case FIELD_BOOL:
		return "";
	case FIELD_INT:
		return " N";
	default:
		return " TEXT";
	}
}

void settings_help(FILE *out)
{
	char flag[SETTING_NAME], variable[SETTING_NAME], range[96];

	fprintf(out, "Settings, as flag, environment variable or member of the settings file, in this order of "
		     "precedence:\n\n  --config TEXT\n      SLUICE_CONFIG\n      Settings file, YAML.\n");
	for (const struct field *f = settings_fields; f->type != FIELD_END; f++) {
		settings_spell(f->name, false, flag);
		settings_spell(f->name, true, variable);
		if (f->type == FIELD_JSON)
			fprintf(out, "  %s\n", f->name);
		else
			fprintf(out, "  --%s%s\n      %s, %s\n", flag, value_word(f), variable, f->name);
		fprintf(out, "      %s", f->doc);
		if (f->unit)
			fprintf(out, " Unit: %s.", f->unit);
		if (*bounds(f, range))
			fprintf(out, " Allowed: %s.", range);
		if (f->fallback)
			fprintf(out, " Default: %s.", f->fallback);
		fprintf(out, "\n");
	}
}

static void print_feature(FILE *out, const struct feature *f)
{
	static const char *const types[] = {
		[FEATURE_BOOL] = "bool", [FEATURE_INT] = "int", [FEATURE_TEXT] = "string", [FEATURE_WORD] = "string",
		[FEATURE_CIDRS] = "list of CIDRs", [FEATURE_STATUSES] = "list of strings",
		[FEATURE_EXCLUSIONS] = "list of strings",
	};

	fprintf(out, "| `%s` | %s | ", f->name, types[f->type]);
	for (const char *w = f->type == FEATURE_WORD ? f->words : ""; *w; w++)
		fprintf(out, *w == '|' ? ", " : "%c", *w);
	if (f->type != FEATURE_WORD && f->max > 0)
		fprintf(out, "%lld – %lld%s", (long long)f->min, (long long)f->max,
			f->type == FEATURE_INT ? "" : f->type == FEATURE_TEXT ? " bytes" : " items");
	fprintf(out, " | `%s` | %s%s%s |\n", f->fallback, f->doc, f->secret ? " Secret: never read back." : "",
		f->is_enforced ? "" : " Not enforced by this build.");
}

static const char settings_text[] =
	"# Settings\n\nOf `sluice run`. A flag wins over the environment variable, the variable over the settings\n"
	"file (`--config FILE` or `SLUICE_CONFIG`, YAML; `sluice check FILE` validates it), the file over the\n"
	"default.\n\n"
	"| In the file | Flag | Variable | Allowed | Default | Meaning |\n|---|---|---|---|---|---|\n";
static const char features_text[] =
	"\n## Gateway settings\n\nOf one gateway: `PUT /api/v1/gateways/{gatewayId}/gateway-features/{name}` with\n"
	"`{\"value\": ...}`; for all gateways without a value of their own: `gatewayFeatures:` in the file.\n\n"
	"| Name | Type | Allowed | Default | Meaning |\n|---|---|---|---|---|\n";

static void print_setting(FILE *out, const struct field *f)
{
	const char *quote = f->fallback ? "`" : "";
	char flag[SETTING_NAME], variable[SETTING_NAME], range[96];

	settings_spell(f->name, false, flag);
	settings_spell(f->name, true, variable);
	if (f->type == FIELD_JSON) {
		fprintf(out, "| `%s` | | | | | %s |\n", f->name, f->doc);
		return;
	}
	fprintf(out, "| `%s` | `--%s%s` | `%s` | %s%s%s | ", f->name, flag, value_word(f), variable, bounds(f, range),
		f->unit ? " " : "", f->unit ? f->unit : "");
	fprintf(out, "%s%s%s | %s |\n", quote, f->fallback ? f->fallback : "", quote, f->doc);
}

void settings_manual(FILE *out)
{
	fputs(settings_text, out);
	for (const struct field *f = settings_fields; f->type != FIELD_END; f++)
		print_setting(out, f);
	fputs(features_text, out);
	for (const struct feature *f = features; f->name; f++)
		print_feature(out, f);
}
