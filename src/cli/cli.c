/* cli.c -- what the program prints about itself: commands, settings, resources, policy classes. */
#include "cli/cli.h"
#include <stdio.h>
#include "cli/client.h"
#include "cli/settings.h"
#include "control/resource.h"
#include "core/metric.h"
#include "proxy/policy.h"

#define TABLE_HEAD "| Field | Type | Required | Allowed | Default | Meaning |\n|---|---|---|---|---|---|\n"

static const struct command {
	const char *name, *arguments, *doc;
	const struct flag *flags;         /* of a command that asks a running gateway */
} commands[] = {
	{ "run", "[--config FILE] [SETTINGS]",
	  "serve traffic and the control API; `run --help` prints every setting", NULL },
	{ "check", "FILE...",
	  "validate settings or resource files: a line for each problem, exit status 0 or 1", NULL },
	{ "policy classes", "", "the policy classes, and which of them this build enforces", NULL },
	{ "policy schema", "CLASS", "JSON Schema of a class's config", NULL },
	{ "policy example", "CLASS", "a config to start from", NULL },
	{ "policy manual", "[CLASS]", "every field of one class, or of all (Markdown)", NULL },
	{ "policy effective", "--route ROUTE | --llm-api API | ... [FLAGS]",
	  "what really acts on a route, in order, and what became of the rest", effective_flags },
	{ "status", "[--all] [FLAGS]", "is it ready, and which gateways, consumers and attachments do not do what they "
	  "shall, with reason and last error; exit status 1 when there are any", status_flags },
	{ "trace", "[METHOD] URL [FLAGS]", "what would become of a request: listener, route, what each policy says, "
	  "where it would go; nothing is sent", trace_flags },
	{ "version", "", "print the version", NULL },
	{ "help", "[COMMAND | settings | api | metrics]",
	  "print this; every setting, every resource of the API, every metric (Markdown)", NULL },
};

int cli_version(void)
{
	printf("sluice %s\n", SLUICE_VERSION);
	return 0;
}

static void print_text(struct sbuf *out)
{
	fwrite(out->p, 1, out->n, stdout);
	sbuf_free(out);
}

static void print_resource(const struct resource_class *c)
{
	struct sbuf out = { 0 };

	sbuf_addf(&out, "\n## %s\n\n%s\n\nPath: `%s`. Id: `%s`.", c->noun, c->doc ? c->doc : "", c->path, c->id_field);
	if (c->attach_type)
		sbuf_addf(&out, " Policies can be attached to it: attachResourceType `%s`.", c->attach_type);
	SBUF_LIT(&out, "\n\n" TABLE_HEAD);
	fields_manual(c->fields, &out);
	print_text(&out);
}

static int help_api(void)
{
	printf("# Resources of the control API\n\n`POST` to a path creates one and answers with its id; `GET` lists "
	       "(`pageNumber`, `pageSize`,\nfilters on fields); below it, `GET`, `PUT` and `DELETE` of one by its id. "
	       "`?dryRun=true` validates\nand changes nothing. The same as OpenAPI: `GET /openapi.json`.\n");
	for (unsigned i = 0; i < RESOURCE_COUNT; i++)
		print_resource(resource_classes[i]);
	return 0;
}

static int help_metrics(void)
{
	struct sbuf out = { 0 };

	SBUF_LIT(&out, "# Metrics\n\n"
		 "Of `GET /metrics`, in Prometheus text format. Times are in seconds, sizes in bytes. A series is "
		 "there\nfrom the time its resource is made, with 0, and goes with it. How to read them: "
		 "[observe.md](../guide/observe.md).\n\n"
		 "`route` is the name of a route or REST API, API/OPERATION of an operation, empty for requests that "
		 "match none.\n`code_class` is 1xx to 5xx.\n\n"
		 "| Name | Kind | Labels | Meaning |\n|---|---|---|---|\n");
	metric_manual(&out);
	print_text(&out);
	return 0;
}

static int help_run(void)
{
	printf("Usage: sluice run [--config FILE] [SETTINGS]\n\nServes traffic and the control API until SIGTERM or "
	       "SIGINT: then it stops accepting,\nfinishes what is in flight and exits with 0. A second signal stops "
	       "at once.\n\n");
	settings_help(stdout);
	return 0;
}

/* How much of the name is the command: "policy" finds all four of its rows. */
static bool is_about(const struct command *c, const char *topic)
{
	size_t n = strlen(topic);

	return strncmp(c->name, topic, n) == 0 && (c->name[n] == '\0' || c->name[n] == ' ');
}

/* topic NULL: the list of all commands, with the flags that many of them share. */
static void help_flags(const char *topic)
{
	bool asks_gateway = false;

	for (size_t i = 0; topic && i < sizeof commands / sizeof commands[0]; i++) {
		if (!is_about(&commands[i], topic) || !commands[i].flags)
			continue;
		printf("\nFlags of %s:\n", commands[i].name);
		flags_help(commands[i].flags, stdout);
		asks_gateway = true;
	}
	if (topic && !asks_gateway)
		return;
	printf("\nFlags of commands that ask a running gateway:\n");
	flags_help(client_flags, stdout);
	if (topic)
		printf("\nExit status: 0 answered, 1 refused or not found, 2 wrong usage, 3 no answer.\n");
}

int cli_help(const char *topic)
{
	bool found = false;

	if (topic && strcmp(topic, "run") == 0)
		return help_run();
	if (topic && strcmp(topic, "api") == 0)
		return help_api();
	if (topic && strcmp(topic, "metrics") == 0)
		return help_metrics();
	if (topic && strcmp(topic, "settings") == 0) {
		settings_manual(stdout);
		return 0;
	}
	for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++)
		found |= topic && is_about(&commands[i], topic);
	if (topic && !found) {
		fprintf(stderr, "sluice: no such command: %s; see `sluice help`\n", topic);
		return 2;
	}
	printf("sluice: an API gateway and AI gateway\n\nUsage: sluice COMMAND [ARGUMENTS]\n\n");
	for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++)
		if (!topic || is_about(&commands[i], topic))
			printf("  %s%s%s\n      %s\n", commands[i].name, *commands[i].arguments ? " " : "",
			       commands[i].arguments, commands[i].doc);
	help_flags(topic);
	return 0;
}

static int refuse(const char *what, const char *value)
{
	fprintf(stderr, "sluice policy: %s%s%s; see `sluice help`\n", what, value ? ": " : "", value ? value : "");
	return 2;
}

static int list_classes(void)
{
	for (unsigned i = 0; policy_classes[i]; i++) {
		const struct policy_class *c = policy_classes[i];

		printf("%-18s %-13s %s%s\n", c->name, c->group, c->summary,
		       c->is_enforced ? "" : " (not enforced by this build)");
	}
	return 0;
}

static void print_manual(const struct policy_class *c)
{
	struct sbuf out = { 0 };
	const char *sep = "";

	sbuf_addf(&out, "\n## %s\n\n%s\n\nScope: ", c->name, c->summary);
	for (unsigned bit = 1; bit <= SCOPE_SERVICE_PORT; bit <<= 1)
		if (c->scopes & bit) {
			sbuf_addf(&out, "%s%s", sep, scope_name((enum scope)bit));
			sep = ", ";
		}
	sbuf_addf(&out, ". Step: %s.%s\n\n" TABLE_HEAD, stage_names[c->stage],
		  c->is_enforced ? "" : " Not enforced by this build.");
	fields_manual(c->fields, &out);
	print_text(&out);
}

static int print_manuals(const struct policy_class *only)
{
	if (!only) {
		printf("# Policies\n\nFields of `config`, for each `className`. Steps run in this order:\n");
		for (unsigned i = 0; i < STAGE_SETTING; i++)
			printf("%s%s", i ? i % 8 ? ", " : ",\n" : "", stage_names[i]);
		printf(".\nA class whose step is `setting` changes how a request is sent; it has none of its own.\n");
	}
	for (unsigned i = 0; policy_classes[i]; i++)
		if (!only || only == policy_classes[i])
			print_manual(policy_classes[i]);
	return 0;
}

static int print_json(struct json *v, struct arena *a)
{
	struct sbuf out = { 0 };

	json_write_pretty(&out, v);
	sbuf_addc(&out, '\n');
	print_text(&out);
	arena_free(a);
	return 0;
}

int cli_policy(int argc, char **argv)
{
	const struct policy_class *class = NULL;
	struct arena a = { 0 };

	if (argc < 1)
		return refuse("say classes, schema, example, manual or effective", NULL);
	if (strcmp(argv[0], "effective") == 0)
		return cli_effective(argv + 1);
	if (argc > 1) {
		class = policy_class_find(str_of(argv[1]));
		if (!class)
			return refuse("no such policy class", argv[1]);
	}
	if (strcmp(argv[0], "classes") == 0)
		return list_classes();
	if (strcmp(argv[0], "manual") == 0)
		return print_manuals(class);
	if (strcmp(argv[0], "schema") != 0 && strcmp(argv[0], "example") != 0)
		return refuse("no such subcommand", argv[0]);
	if (!class)
		return refuse("name a policy class; `sluice policy classes` lists them", NULL);
	if (argv[0][0] == 's')
		return print_json(fields_schema(class->fields, &a), &a);
	return print_json(fields_example(class->fields, true, &a), &a);
}
