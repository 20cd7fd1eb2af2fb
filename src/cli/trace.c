/* trace.c -- `sluice trace`: what would become of a request, told without sending it. */
#include <string.h>
#include "cli/client.h"

#define LABEL "  %-10s "

struct trace_options {
	struct client_options client;
	const char *listener, *client_ip, *service;
	struct flag_list headers;
};

const struct flag trace_flags[] = {
	{ "--header", "-H", "'NAME: VALUE'", "a header of the request; may be repeated", FLAG_VALUES,
	  offsetof(struct trace_options, headers) },
	{ "--client-ip", NULL, "IP", "address the connection comes from (127.0.0.1)", FLAG_VALUE,
	  offsetof(struct trace_options, client_ip) },
	{ "--listener", NULL, "ADDRESS", "listener it arrives at, or its port; otherwise the URL's port says which",
	  FLAG_VALUE, offsetof(struct trace_options, listener) },
	{ "--service", NULL, "ID", "of a route's several services: the one to follow; otherwise the one with most "
	  "weight", FLAG_VALUE, offsetof(struct trace_options, service) },
	FLAGS_END
};

/* ---------- the question ---------- */

static void put(struct arena *a, struct json *in, const char *name, const char *value)
{
	if (value)
		json_put(a, in, name, json_new_text(a, str_of(value)));
}

static bool add_header(struct arena *a, struct json *list, const char *line, struct problem *why)
{
	struct json *item = json_new(a, JSON_OBJECT);
	struct str text = str_of(line);
	size_t colon = str_find(text, ':');

	if (colon == 0 || colon == text.n)
		return problem(why, "--header", "must be 'NAME: VALUE', not \"%.60s\"", line);
	json_put(a, item, "name", json_new_text(a, (struct str){ line, colon }));
	json_put(a, item, "value", json_new_text(a, str_trim((struct str){ line + colon + 1, text.n - colon - 1 })));
	json_add(list, item);
	return true;
}

static struct json *make_question(const struct trace_options *o, const char *const *words, unsigned n, struct client *c)
{
	struct arena *a = &c->arena;
	struct json *question = json_new(a, JSON_OBJECT), *headers = json_new(a, JSON_ARRAY);

	put(a, question, "method", n == 2 ? words[0] : "GET");
	put(a, question, "url", words[n - 1]);
	put(a, question, "listener", o->listener);
	put(a, question, "clientIp", o->client_ip);
	put(a, question, "serviceId", o->service);
	for (unsigned i = 0; i < o->headers.n; i++)
		if (!add_header(a, headers, o->headers.texts[i], &c->why))
			return NULL;
	json_put(a, question, "headers", headers);
	return question;
}

/* ---------- the answer ---------- */

static struct str safe(struct client *c, const struct json *in, const char *name)
{
	return print_safe(json_text(in, name), &c->arena);
}

static void show_named(struct client *c, const struct json *answer, const char *member, const char *id_field)
{
	const struct json *in = json_get(answer, member);

	if (in)
		printf(LABEL "%.*s (%.*s)\n", member, STR_FMT(safe(c, in, "name")), STR_FMT(safe(c, in, id_field)));
}

static void show_way(struct client *c, const struct json *answer)
{
	const struct json *listener = json_get(answer, "listener"), *route = json_get(answer, "route");
	const struct json *passed = json_get(answer, "passedOver"), *notes = json_get(answer, "notes");

	printf(LABEL "%.*s%s\n", "listener", STR_FMT(safe(c, listener, "address")),
	       json_is_true(listener, "tls") ? ", TLS" : "");
	show_named(c, answer, "gateway", "gatewayId");
	show_named(c, answer, "domain", "domainId");
	if (route)
		printf(LABEL "%.*s (%.*s): %.*s %.*s\n", "route", STR_FMT(safe(c, route, "resourceName")),
		       STR_FMT(safe(c, route, "resourceId")), STR_FMT(safe(c, route, "matchType")),
		       STR_FMT(safe(c, route, "path")));
	for (const struct json *r = passed ? passed->child : NULL; r; r = r->next)
		printf(LABEL "%.*s (%.*s), because %.*s\n", "not", STR_FMT(safe(c, r, "resourceName")),
		       STR_FMT(safe(c, r, "resourceId")), STR_FMT(safe(c, r, "reason")));
	for (const struct json *n = notes ? notes->child : NULL; n; n = n->next)
		printf(LABEL "%.*s\n", "note", STR_FMT(print_safe(n->string, &c->arena)));
}

static enum mark mark_of(struct str verdict)
{
	if (str_equal(verdict, STR("Passes")))
		return MARK_GOOD;
	if (str_equal(verdict, STR("NotReached")))
		return MARK_DIM;
	return str_equal(verdict, STR("NotJudged")) ? MARK_WARN : MARK_BAD;
}

static void show_policies(struct client *c, const struct json *answer)
{
	static const char *const columns[] = {
		"LEG", "STAGE", "CLASS", "LEVEL", "VERDICT", "POLICY", "ATTACHMENT", "NOTE", NULL
	};
	static const char *const members[] = {
		"leg", "stage", "className", "level", "verdict", "policyName", "attachmentId", "note"
	};
	struct table t = { .columns = columns, .arena = &c->arena };
	const struct json *list = json_get(answer, "policies");

	for (const struct json *item = list ? list->child : NULL; item; item = item->next) {
		struct row *row = table_row(&t);

		for (unsigned i = 0; i < sizeof members / sizeof members[0]; i++)
			row->cells[i] = safe(c, item, members[i]);
		row->mark = mark_of(json_text(item, "verdict"));
	}
	if (t.n)
		table_print(&t, &c->printer, "  ");
}

static void show_headers(struct client *c, const struct json *in, const char *label)
{
	const struct json *list = json_get(in, "headers");

	for (const struct json *h = list ? list->child : NULL; h; h = h->next)
		printf(LABEL "%.*s: %.*s\n", label, STR_FMT(safe(c, h, "name")), STR_FMT(safe(c, h, "value")));
}

static long long number(const struct json *in, const char *name)
{
	const struct json *v = json_get(in, name);

	return v && v->type == JSON_INT ? v->integer : 0;
}

static void show_answer(struct client *c, const struct json *answer)
{
	const struct json *in = json_get(answer, "answer");
	struct str class = json_text(in, "className");

	if (!in)
		return;
	printf(LABEL, "answer");
	if (number(in, "status"))
		printf("%lld ", number(in, "status"));
	printf("%.*s", STR_FMT(safe(c, in, "reason")));
	if (class.n)
		printf(" (%.*s, attachment %.*s)", STR_FMT(print_safe(class, &c->arena)),
		       STR_FMT(safe(c, in, "attachmentId")));
	printf("\n");
	show_headers(c, in, "");
}

static void show_endpoints(struct client *c, const struct json *in)
{
	const struct json *list = json_get(in, "endpoints");
	struct str chosen = json_text(in, "endpoint");

	if (json_get(in, "chosen"))
		printf(LABEL "%.*s\n", "chosen", STR_FMT(safe(c, in, "chosen")));
	for (const struct json *e = list ? list->child : NULL; e; e = e->next)
		printf(LABEL "%.*s%s%s%s\n", "endpoint", STR_FMT(safe(c, e, "address")),
		       json_is_true(e, "up") ? "" : ", down",
		       json_is_true(e, "candidate") ? "" : ", not for this request",
		       chosen.n && str_equal(chosen, json_text(e, "address")) ? ", this one" : "");
}

static void show_upstream(struct client *c, const struct json *answer)
{
	const struct json *in = json_get(answer, "upstream"), *settings = json_get(in, "settings");

	if (!in)
		return;
	printf(LABEL "%.*s (%.*s), %.*s, ", "service", STR_FMT(safe(c, in, "serviceName")),
	       STR_FMT(safe(c, in, "serviceId")), STR_FMT(safe(c, in, "protocol")));
	if (json_get(in, "fallbackFrom"))
		printf("fallback of %.*s, which has no endpoint\n", STR_FMT(safe(c, in, "fallbackFrom")));
	else
		printf("%lld%% of the requests\n", number(in, "sharePercent"));
	printf(LABEL "%.*s %.*s\n", "sends", STR_FMT(safe(c, in, "method")), STR_FMT(safe(c, in, "target")));
	printf(LABEL "host: %.*s\n", "", STR_FMT(safe(c, in, "host")));
	show_headers(c, in, "");
	for (const struct json *s = settings ? settings->child : NULL; s; s = s->next) {
		struct sbuf config = { 0 };

		json_write(&config, json_get(s, "config"));
		printf(LABEL "%.*s of %.*s %.*s: %.*s\n", "setting", STR_FMT(safe(c, s, "className")),
		       STR_FMT(safe(c, s, "level")), STR_FMT(safe(c, s, "policyName")),
		       STR_FMT(sbuf_str(&config)));
		sbuf_free(&config);
	}
	show_endpoints(c, in);
	show_headers(c, json_get(answer, "response"), "adds");
}

static void show(struct client *c, const struct json *answer)
{
	const struct json *request = json_get(answer, "request");
	struct str query = json_text(request, "query");

	if (!c->printer.is_quiet)
		printf("%.*s %.*s%.*s%s%.*s\n", STR_FMT(safe(c, request, "method")), STR_FMT(safe(c, request, "host")),
		       STR_FMT(safe(c, request, "path")), query.n ? "?" : "",
		       STR_FMT(query.n ? print_safe(query, &c->arena) : query));
	show_way(c, answer);
	show_policies(c, answer);
	show_answer(c, answer);
	show_upstream(c, answer);
}

/* "METHOD URL", or "URL" for a GET. */
int cli_trace(char *const *args)
{
	const char *words[2];
	struct trace_options o = { 0 };
	struct flag_use use = { .own = trace_flags, .options = &o, .words = words, .most = 2 };
	struct client c = { 0 };
	struct json *question, *answer;

	if (!flags_parse(&use, args, &c.why) || !printer_open(&c.printer, &o.client, &c.why))
		return client_usage(&c, "trace");
	if (use.n == 0) {
		problem(&c.why, "URL", "is missing: sluice trace [METHOD] URL");
		return client_usage(&c, "trace");
	}
	question = make_question(&o, words, use.n, &c);
	if (!question)
		return client_usage(&c, "trace");
	if (!client_open(&c, &o.client))
		return client_fail(&c);
	answer = client_ask(&c, "POST", STR("/api/v1/trace"), question);
	if (!answer)
		return client_fail(&c);
	if (c.printer.is_json)
		print_json_text(answer);
	else
		show(&c, answer);
	return client_close(&c);
}
