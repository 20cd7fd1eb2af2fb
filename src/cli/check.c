/*
 * check.c -- `sluice check FILE...`: settings files and resource files, without a running gateway.
 *
 * A resource file holds YAML (or JSON) documents with `kind:` (Gateway, Service, Route, Policy, ...) and the members
 * that the API takes. What can be told from the document alone is checked; references are checked when it is applied.
 * Everything else is a settings file.
 */
#include <stdio.h>
#include "cli/cli.h"
#include "cli/settings.h"
#include "cli/yaml.h"
#include "control/resource.h"

static unsigned problems;

static void report(const char *path, const struct json *tree, const struct problem *why)
{
	printf("%s:%u: %s: %s\n", path, json_find_line(tree, why->field), *why->field ? why->field : "-", why->text);
	problems++;
}

static bool is_kind(const struct resource_class *c, struct str kind)
{
	return str_equal_nocase(kind, str_of(c->name)) || str_equal_nocase(kind, str_of(c->noun)) ||
	       (c->attach_type && str_equal_nocase(kind, str_of(c->attach_type)));
}

static void check_resource(const char *path, struct json *doc, struct arena *a)
{
	struct str kind = json_text(doc, "kind");
	const struct resource_class *class = NULL;
	struct problem why = { 0 };

	for (unsigned i = 0; i < RESOURCE_COUNT; i++)
		if (resource_classes[i] && is_kind(resource_classes[i], kind))
			class = resource_classes[i];
	if (!class) {
		problem(&why, "kind", "\"%.*s\" is no kind of resource", STR_FMT(kind));
		report(path, doc, &why);
		return;
	}
	json_drop(doc, "kind");
	if (class->adapt)
		class->adapt(doc, a);
	void *in = arena_alloc(a, class->size ? class->size : 1);
	if (!fields_decode(class->fields, doc, in, a, &why) || (class->check && !class->check(in, &why)))
		report(path, doc, &why);
}

static void check_document(const char *path, struct json *doc, struct arena *a)
{
	struct problem why = { 0 };

	if (doc->type == JSON_OBJECT && json_get(doc, "kind")) {
		check_resource(path, doc, a);
		return;
	}
	/* Nothing in the file: all defaults. */
	if (doc->type == JSON_NULL)
		return;
	if (doc->type != JSON_OBJECT)
		problem(&why, "", "a document must be a mapping");
	else if (settings_check(doc, a, &why))
		return;
	report(path, doc, &why);
}

static void check_file(const char *path)
{
	struct arena a = { 0 };
	struct problem why = { 0 };
	struct str text;
	struct json *all;
	unsigned line = 1;

	if (!file_read(path, &a, &text, &why)) {
		printf("%s:1: -: %s\n", path, why.text);
		problems++;
		arena_free(&a);
		return;
	}
	all = yaml_parse(&a, text, &why);
	if (!all) {
		sscanf(why.text, "line %u", &line);
		printf("%s:%u: -: %s\n", path, line, why.text);
		problems++;
	}
	for (struct json *doc = all ? all->child : NULL; doc; doc = doc->next)
		check_document(path, doc, &a);
	arena_free(&a);
}

int cli_check(int argc, char **argv)
{
	if (argc < 1) {
		fprintf(stderr, "Usage: sluice check FILE...\n");
		return 2;
	}
	for (int i = 0; i < argc; i++)
		check_file(argv[i]);
	if (problems == 0)
		printf("%d file%s checked, no problem found\n", argc, argc == 1 ? "" : "s");
	return problems ? 1 : 0;
}
