#include "cli/client.h"

bool client_open(struct client *c, const struct client_options *o)
{
	c->remote = remote_open(o, &c->arena, &c->why);
	c->status = CLI_USAGE;
	return c->remote != NULL;
}

struct json *client_ask(struct client *c, const char *method, struct str target, const struct json *body)
{
	struct remote_request request = { method, target, body };
	struct remote_answer answer;
	struct str error;

	c->status = CLI_UNREACHABLE;
	if (!remote_call(c->remote, &request, &answer, &c->why))
		return NULL;
	if (answer.status == 200 && answer.body)
		return answer.body;
	error = print_safe(remote_error(&answer, &c->arena), &c->arena);
	problem(&c->why, "", "%.*s", STR_FMT(error));
	if (answer.status >= 400 && answer.status < 500)
		c->status = CLI_REFUSED;
	return NULL;
}

static const struct json *first_of(const struct json *page)
{
	const struct json *items = json_get(page, "items");

	return items ? items->child : NULL;
}

/* The page of items whose member has this value. */
static const struct json *look_for(struct client *c, const char *collection, const char *member, const char *value)
{
	struct str text = remote_escape(str_of(value), &c->arena);

	return client_ask(c, "GET", arena_printf(&c->arena, "%s?%s=%.*s", collection, member, STR_FMT(text)), NULL);
}

bool client_find(struct client *c, const char *collection, const char *id_field, const char *wanted, struct str *id)
{
	const struct json *page = look_for(c, collection, id_field, wanted), *item;

	if (page && !first_of(page))
		page = look_for(c, collection, "name", wanted);
	if (!page)
		return false;
	item = first_of(page);
	c->status = CLI_REFUSED;
	if (!item)
		return problem(&c->why, "", "nothing in %s has the id or the name \"%.100s\"", collection, wanted);
	*id = json_text(item, id_field);
	if (item->next)
		return problem(&c->why, "", "several have the name \"%.100s\": say which by id, such as %.*s",
			       wanted, STR_FMT(*id));
	return true;
}

int client_end(struct client *c, int status)
{
	if (c->remote)
		remote_close(c->remote);
	arena_free(&c->arena);
	return status;
}

static void complain(const struct problem *why)
{
	fprintf(stderr, "sluice: %s%s%s\n", why->field, *why->field && *why->text ? ": " : "", why->text);
}

int client_usage(struct client *c, const char *command)
{
	complain(&c->why);
	fprintf(stderr, "See `sluice %s --help`.\n", command);
	return client_end(c, CLI_USAGE);
}

int client_fail(struct client *c)
{
	complain(&c->why);
	return client_end(c, c->status);
}

int client_close(struct client *c)
{
	return client_end(c, CLI_OK);
}
