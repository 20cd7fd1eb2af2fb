/* effective.c -- `sluice policy effective`: which policies act on a route, in order, and what became of the others. */
#include "cli/client.h"
#include "cli/print.h"

struct effective_options {
	struct client_options client;
	const char *route, *api, *llm_api, *agent_api, *operation, *domain;
};

const struct flag effective_flags[] = {
	{ "--route", "-r", "ROUTE", "id or name of the route", FLAG_VALUE, offsetof(struct effective_options, route) },
	{ "--api", NULL, "API", "id or name of a REST API", FLAG_VALUE, offsetof(struct effective_options, api) },
	{ "--operation", NULL, "OPERATION", "id or name of an operation of the REST API", FLAG_VALUE,
	  offsetof(struct effective_options, operation) },
	{ "--llm-api", NULL, "API", "id or name of a model API", FLAG_VALUE,
	  offsetof(struct effective_options, llm_api) },
	{ "--agent-api", NULL, "API", "id or name of an agent API", FLAG_VALUE,
	  offsetof(struct effective_options, agent_api) },
	{ "--domain", NULL, "DOMAIN", "id of the domain whose requests are meant; the route's first one otherwise",
	  FLAG_VALUE, offsetof(struct effective_options, domain) },
	FLAGS_END
};

/* ---------- what is asked ---------- */

static bool find_path(struct client *c, const struct effective_options *o, struct str *path)
{
	const struct {
		const char *name, *list, *id_field;
	} kinds[] = {
		{ o->route, "/api/v1/routes", "routeId" }, { o->api, "/api/v1/http-apis", "httpApiId" },
		{ o->llm_api, "/api/v1/llm-apis", "llmApiId" }, { o->agent_api, "/api/v1/agent-apis", "agentApiId" },
	};
	const unsigned n_kinds = sizeof kinds / sizeof kinds[0];
	struct str id, operation;
	unsigned n = 0, kind = 0;

	for (unsigned i = 0; i < n_kinds; i++) {
		n += kinds[i].name != NULL;
		kind = kinds[i].name ? i : kind;
	}
	c->status = CLI_USAGE;
	if (n != 1)
		return problem(&c->why, "--route", "name a route, or an API with --api, --llm-api or --agent-api");
	if (o->operation && !o->api)
		return problem(&c->why, "--operation", "needs --api");
	if (!client_find(c, kinds[kind].list, kinds[kind].id_field, kinds[kind].name, &id))
		return false;
	*path = arena_printf(&c->arena, "%s/%.*s", kinds[kind].list, STR_FMT(id));
	if (o->operation) {
		struct str all = arena_printf(&c->arena, "%.*s/operations", STR_FMT(*path));

		if (!client_find(c, all.p, "operationId", o->operation, &operation))
			return false;
		*path = arena_printf(&c->arena, "%.*s/%.*s", STR_FMT(all), STR_FMT(operation));
	}
	return true;
}

/* ---------- what is shown ---------- */

static const char *const columns[] = {
	"LEG", "STAGE", "CLASS", "LEVEL", "EFFECT", "STATUS", "POLICY", "ATTACHMENT", "ON", "NOTE", NULL
};

static enum mark mark_of(struct str effect, struct str phase)
{
	if (str_equal(phase, STR("Degraded")))
		return MARK_BAD;
	if (str_equal(effect, STR("Runs")))
		return MARK_GOOD;
	return str_equal(effect, STR("OptsOut")) ? MARK_WARN : MARK_DIM;
}

static struct str note_of(struct client *c, const struct json *item)
{
	const struct json *by = json_get(item, "hiddenBy"), *config = json_get(item, "config");
	struct str reason = json_text(json_get(item, "status"), "reason"), note;
	struct sbuf text = { 0 };

	if (by)
		return arena_printf(&c->arena, "%.*s attachment %.*s acts instead", STR_FMT(json_text(by, "level")),
				    STR_FMT(json_text(by, "attachmentId")));
	if (reason.n || !config)
		return reason;
	json_write(&text, config);
	note = arena_copy(&c->arena, sbuf_str(&text));
	sbuf_free(&text);
	return note;
}

static void add_item(struct client *c, struct table *t, const struct json *item)
{
	static const char *const members[] = { "leg", "stage", "className", "level", "effect" };
	struct str phase = json_text(json_get(item, "status"), "phase");
	struct row *row = table_row(t);
	struct arena *a = &c->arena;

	for (unsigned i = 0; i < 5; i++)
		row->cells[i] = print_safe(json_text(item, members[i]), a);
	row->cells[5] = print_safe(phase, a);
	row->cells[6] = print_safe(json_text(item, "policyName"), a);
	row->cells[7] = print_safe(json_text(item, "attachmentId"), a);
	row->cells[8] = print_safe(json_text(item, "resourceName"), a);
	row->cells[9] = print_safe(note_of(c, item), a);
	row->mark = mark_of(json_text(item, "effect"), phase);
}

static void show(struct client *c, const struct json *answer)
{
	struct table t = { .columns = columns, .arena = &c->arena };
	const struct json *items = json_get(answer, "items");
	struct str domain = json_text(answer, "domainName");

	for (const struct json *item = items ? items->child : NULL; item; item = item->next)
		add_item(c, &t, item);
	if (!c->printer.is_quiet)
		printf("%.*s %.*s of gateway %.*s%s%.*s\n",
		       STR_FMT(print_safe(json_text(answer, "resourceType"), &c->arena)),
		       STR_FMT(print_safe(json_text(answer, "resourceName"), &c->arena)),
		       STR_FMT(print_safe(json_text(answer, "gatewayName"), &c->arena)),
		       domain.n ? ", requests for " : "", STR_FMT(domain));
	if (t.n)
		table_print(&t, &c->printer, "");
	else if (!c->printer.is_quiet)
		printf("No policy is attached to it, its services, its domain or its gateway.\n");
}

int cli_effective(char *const *args)
{
	struct effective_options o = { 0 };
	struct str path, query = { NULL, 0 };
	struct flag_use use = { .own = effective_flags, .options = &o };
	struct client c = { 0 };
	struct json *answer;

	if (!flags_parse(&use, args, &c.why) || !printer_open(&c.printer, &o.client, &c.why))
		return client_usage(&c, "policy effective");
	if (!client_open(&c, &o.client) || !find_path(&c, &o, &path))
		return client_fail(&c);
	if (o.domain)
		query = remote_escape(str_of(o.domain), &c.arena);
	path = arena_printf(&c.arena, "%.*s/effective-policies%s%.*s", STR_FMT(path), o.domain ? "?domainId=" : "",
			    STR_FMT(query));
	answer = client_ask(&c, "GET", path, NULL);
	if (!answer)
		return client_fail(&c);
	if (c.printer.is_json)
		print_json_text(answer);
	else
		show(&c, answer);
	return client_close(&c);
}
