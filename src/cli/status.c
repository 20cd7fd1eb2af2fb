/* status.c -- `sluice status`: is the gateway ready, and what of it does not do what it was told to. */
#include "cli/client.h"

#define PAGE_ITEMS 100

struct status_options {
	struct client_options client;
	bool all;
};

const struct flag status_flags[] = {
	{ "--all", "-a", NULL, "list what is well, too", FLAG_SWITCH, offsetof(struct status_options, all) },
	FLAGS_END
};

/* What has a status in the API. */
static const struct kind {
	const char *title, *list, *id_field, *name_field;
} kinds[] = {
	{ "Gateway", "/api/v1/gateways", "gatewayId", "gateway" },
	{ "Consumer", "/api/v1/consumers", "consumerId", "name" },
	{ "Attachment", "/api/v1/policy-attachments", "policyAttachmentId", "className" },
};
#define KINDS (sizeof kinds / sizeof kinds[0])

static const char *const columns[] = { "KIND", "NAME", "ID", "STATUS", "SINCE", "REASON", "LAST ERROR", NULL };

struct survey {
	struct client client;
	struct status_options options;
	struct table table;
	struct json *items, *counts;      /* for --output json */
	unsigned n[KINDS], ill[KINDS], off[KINDS];
};

/* What depends on nothing, as a consumer without keys to be fetched, has no status. */
static enum mark mark_of(struct str phase)
{
	if (!phase.n)
		return MARK_NONE;
	if (str_equal(phase, STR("Running")) || str_equal(phase, STR("Active")))
		return MARK_GOOD;
	if (str_equal(phase, STR("Disabled")))
		return MARK_DIM;
	return str_equal(phase, STR("Pending")) ? MARK_WARN : MARK_BAD;
}

static void list_item(struct survey *s, const struct kind *kind, const struct json *item)
{
	struct arena *a = &s->client.arena;
	const struct json *status = json_get(item, "status");
	const struct str cells[] = {
		str_of(kind->title), json_text(item, kind->name_field), json_text(item, kind->id_field),
		json_text(status, "phase"), json_text(status, "since"), json_text(status, "reason"),
		json_text(status, "lastError"),
	};
	struct json *told = json_new(a, JSON_OBJECT);
	struct row *row = table_row(&s->table);

	for (unsigned i = 0; i < sizeof cells / sizeof cells[0]; i++)
		row->cells[i] = print_safe(cells[i], a);
	row->mark = mark_of(cells[3]);
	json_put(a, told, "kind", json_new_text(a, cells[0]));
	json_put(a, told, "name", json_new_text(a, cells[1]));
	json_put(a, told, "id", json_new_text(a, cells[2]));
	if (status)
		json_put(a, told, "status", json_clone(a, status));
	json_add(s->items, told);
}

static void take_item(struct survey *s, unsigned k, const struct json *item)
{
	enum mark mark = mark_of(json_text(json_get(item, "status"), "phase"));

	s->n[k]++;
	s->off[k] += mark == MARK_DIM;
	s->ill[k] += mark == MARK_BAD || mark == MARK_WARN;
	if (s->options.all || mark == MARK_BAD || mark == MARK_WARN)
		list_item(s, &kinds[k], item);
}

static bool survey_kind(struct survey *s, unsigned k)
{
	struct client *c = &s->client;

	for (unsigned page = 1, seen = PAGE_ITEMS; seen == PAGE_ITEMS; page++) {
		const struct json *answer = client_ask(c, "GET", arena_printf(&c->arena, "%s?pageSize=%u&pageNumber=%u",
			kinds[k].list, PAGE_ITEMS, page), NULL);
		const struct json *items = json_get(answer, "items");

		if (!answer)
			return false;
		seen = 0;
		for (const struct json *item = items ? items->child : NULL; item; item = item->next, seen++)
			take_item(s, k, item);
	}
	return true;
}

/* Also of one that is not ready, which is an answer and no failure. */
static bool ask_ready(struct client *c, struct str *word)
{
	struct remote_request request = { "GET", STR("/readyz"), NULL };
	struct remote_answer answer;

	c->status = CLI_UNREACHABLE;
	if (!remote_call(c->remote, &request, &answer, &c->why))
		return false;
	*word = json_text(answer.body, "status");
	return word->n || problem(&c->why, "--server", "GET /readyz answers %d, not as a gateway does",
		answer.status);
}

static void show_json(struct survey *s, struct str ready)
{
	struct arena *a = &s->client.arena;
	struct json *out = json_new(a, JSON_OBJECT);

	json_put(a, out, "status", json_new_text(a, ready));
	for (unsigned k = 0; k < KINDS; k++) {
		struct json *counts = json_new(a, JSON_OBJECT);

		json_put(a, counts, "kind", json_new_text(a, str_of(kinds[k].title)));
		json_put(a, counts, "total", json_new_int(a, s->n[k]));
		json_put(a, counts, "unwell", json_new_int(a, s->ill[k]));
		json_put(a, counts, "disabled", json_new_int(a, s->off[k]));
		json_add(s->counts, counts);
	}
	json_put(a, out, "counts", s->counts);
	json_put(a, out, "items", s->items);
	print_json_text(out);
}

static void show(struct survey *s, struct str ready)
{
	static const char *const titles[] = { "KIND", "TOTAL", "UNWELL", "DISABLED", NULL };
	struct arena *a = &s->client.arena;
	struct table counts = { .columns = titles, .arena = a };

	if (!s->client.printer.is_quiet) {
		printf("The gateway is %.*s.\n\n", STR_FMT(print_safe(ready, a)));
		for (unsigned k = 0; k < KINDS; k++) {
			struct row *row = table_row(&counts);

			row->cells[0] = str_of(kinds[k].title);
			row->cells[1] = arena_printf(a, "%u", s->n[k]);
			row->cells[2] = arena_printf(a, "%u", s->ill[k]);
			row->cells[3] = arena_printf(a, "%u", s->off[k]);
			row->mark = s->ill[k] ? MARK_BAD : MARK_NONE;
		}
		table_print(&counts, &s->client.printer, "");
		printf(s->table.n || !str_equal(ready, STR("ready")) ? "\n" : "\nAll is well.\n");
	}
	if (s->table.n)
		table_print(&s->table, &s->client.printer, "");
}

int cli_status(char *const *args)
{
	struct survey s = { .table = { .columns = columns } };
	struct client *c = &s.client;
	struct flag_use use = { .own = status_flags, .options = &s.options };
	struct str ready;
	unsigned ill = 0;

	if (!flags_parse(&use, args, &c->why) || !printer_open(&c->printer, &s.options.client, &c->why))
		return client_usage(c, "status");
	if (!client_open(c, &s.options.client) || !ask_ready(c, &ready))
		return client_fail(c);
	s.table.arena = &c->arena;
	s.items = json_new(&c->arena, JSON_ARRAY);
	s.counts = json_new(&c->arena, JSON_ARRAY);
	for (unsigned k = 0; k < KINDS; k++) {
		if (!survey_kind(&s, k))
			return client_fail(c);
		ill += s.ill[k];
	}
	if (c->printer.is_json)
		show_json(&s, ready);
	else
		show(&s, ready);
	return client_end(c, ill || !str_equal(ready, STR("ready")) ? CLI_REFUSED : CLI_OK);
}
