#include "policy/waf_engine.h"
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include "core/mem.h"

#define LIBRARY "libmodsecurity.so.3"

/* As /usr/include/modsecurity/intervention.h of libmodsecurity-dev has it; part of the library's C interface. */
struct intervention {
	int status, pause;
	char *url, *log;
	int disruptive;
};

/* The library's C interface, by its own names. */
static struct {
	void *handle, *engine;
	void *(*msc_init)(void);
	const char *(*msc_who_am_i)(void *engine);
	void (*msc_set_connector_info)(void *engine, const char *text);
	void (*msc_set_log_cb)(void *engine, void (*log)(void *arg, const void *text));
	void *(*msc_create_rules_set)(void);
	int (*msc_rules_add)(void *rules, const char *text, const char **error);
	int (*msc_rules_merge)(void *into, void *from, const char **error);
	int (*msc_rules_cleanup)(void *rules);
	void *(*msc_new_transaction)(void *engine, void *rules, void *arg);
	int (*msc_process_connection)(void *t, const char *client, int port, const char *server, int server_port);
	int (*msc_process_uri)(void *t, const char *uri, const char *method, const char *version);
	int (*msc_add_n_request_header)(void *t, const char *name, size_t name_n, const char *value, size_t value_n);
	int (*msc_process_request_headers)(void *t);
	int (*msc_append_request_body)(void *t, const char *p, size_t n);
	int (*msc_process_request_body)(void *t);
	int (*msc_add_n_response_header)(void *t, const char *name, size_t name_n, const char *value, size_t value_n);
	int (*msc_process_response_headers)(void *t, int status, const char *protocol);
	int (*msc_append_response_body)(void *t, const char *p, size_t n);
	int (*msc_process_response_body)(void *t);
	int (*msc_process_logging)(void *t);
	int (*msc_intervention)(void *t, struct intervention *out);
	void (*msc_transaction_cleanup)(void *t);
	/*
	 * The library tells of matches in lines of text, with what the client sent in the middle. The server's address
	 * is printed behind all that matters; nobody outside knows this one, so nobody can make up a line.
	 */
	char mark[40];
} lib;

static const struct symbol {
	const char *name;
	void *at;
} symbols[] = {
#define SYMBOL(name) { #name, &lib.name }
	SYMBOL(msc_init), SYMBOL(msc_who_am_i), SYMBOL(msc_set_connector_info), SYMBOL(msc_set_log_cb),
	SYMBOL(msc_create_rules_set), SYMBOL(msc_rules_add), SYMBOL(msc_rules_merge), SYMBOL(msc_rules_cleanup),
	SYMBOL(msc_new_transaction), SYMBOL(msc_process_connection), SYMBOL(msc_process_uri),
	SYMBOL(msc_add_n_request_header), SYMBOL(msc_process_request_headers), SYMBOL(msc_append_request_body),
	SYMBOL(msc_process_request_body), SYMBOL(msc_add_n_response_header), SYMBOL(msc_process_response_headers),
	SYMBOL(msc_append_response_body), SYMBOL(msc_process_response_body), SYMBOL(msc_process_logging),
	SYMBOL(msc_intervention), SYMBOL(msc_transaction_cleanup),
#undef SYMBOL
};

struct waf_rules {
	atomic_uint refs;
	void *set;
};

struct waf_transaction {
	void *it;
	struct waf_rules *rules;
	struct waf_report *report;
};

const char *const waf_tag_names[WAF_TAG_COUNT] = {
#define WAF_TAG(id, name, from, to) [WAF_TAG_##id] = name,
#include "policy/waf_tags.def"
#undef WAF_TAG
};

/* ---------- lines of the log ---------- */

static const struct tag_range {
	uint32_t from, to;
} tag_ranges[WAF_TAG_COUNT] = {
#define WAF_TAG(id, name, from_, to_) [WAF_TAG_##id] = { from_, to_ },
#include "policy/waf_tags.def"
#undef WAF_TAG
};

/* Where `what` begins in s, for the first or for the last time; s.n when it does not. */
static size_t find_text(struct str s, struct str what)
{
	const char *at = s.n >= what.n ? memmem(s.p, s.n, what.p, what.n) : NULL;

	return at ? (size_t)(at - s.p) : s.n;
}

static size_t find_last(struct str s, struct str what)
{
	for (size_t i = s.n < what.n ? 0 : s.n - what.n + 1; i-- > 0;)
		if (memcmp(s.p + i, what.p, what.n) == 0)
			return i;
	return s.n;
}

static struct str from(struct str s, size_t at)
{
	return (struct str){ s.p + at, s.n - at };
}

/* The value of the next [name "value"] in *rest, which goes on behind it; absent when there is none. */
static struct str take_value(struct str *rest, struct str opening)
{
	size_t at = find_text(*rest, opening), end;
	struct str value;

	if (at == rest->n)
		return (struct str){ NULL, 0 };
	value = from(*rest, at + opening.n);
	end = find_text(value, STR("\"]"));
	*rest = from(value, end);
	value.n = end;
	return value;
}

/* Printable, and cut to its room. */
static void put_text(char *out, size_t room, struct str s)
{
	size_t n = s.n < room - 1 ? s.n : room - 1;

	for (size_t i = 0; i < n; i++)
		out[i] = s.p[i] >= 0x20 && s.p[i] < 0x7f ? s.p[i] : '.';
	out[n] = '\0';
}

/* "... against variable `ARGS:q' (Value: ...", or of rules that know libinjection "... found within ARGS:q: ...". */
static struct str find_variable(struct str told, struct str data)
{
	static const struct str against = { "against variable `", 18 }, within = { "found within ", 13 };
	size_t at = find_text(told, against);
	struct str name;

	if (at < told.n) {
		name = from(told, at + against.n);
		name.n = find_text(name, STR("' (Value: `"));
		return name;
	}
	at = find_text(data, within);
	if (at == data.n)
		return (struct str){ NULL, 0 };
	name = from(data, at + within.n);
	name.n = find_text(name, STR(": "));
	return name;
}

static enum waf_tag tag_of(struct str rest, uint32_t rule)
{
	struct str name;

	/* The number says more: rules about Java and PHP share tags with others. */
	for (unsigned i = 1; i < WAF_TAG_COUNT; i++)
		if (rule >= tag_ranges[i].from && rule <= tag_ranges[i].to)
			return (enum waf_tag)i;
	while ((name = take_value(&rest, STR(" [tag \""))).p)
		for (unsigned i = 1; i < WAF_TAG_COUNT; i++)
			if (str_equal(name, str_of(waf_tag_names[i])))
				return (enum waf_tag)i;
	return WAF_TAG_OTHER;
}

/* What the Core Rule Set gives for a severity. Rules that only add up have a score themselves. */
static uint8_t points_of(uint32_t rule, struct str severity)
{
	static const uint8_t points[] = { 5, 5, 5, 4, 3, 2 };

	if (rule < 900000 || rule > 999999 || rule / 1000 == 949 || rule / 1000 == 959 || rule / 1000 == 980)
		return 0;
	if (severity.n != 1 || severity.p[0] < '0' || severity.p[0] > '5')
		return 0;
	return points[severity.p[0] - '0'];
}

bool waf_parse_hit(struct str line, struct str mark, struct waf_hit *out)
{
	static const struct str host = { " [hostname \"", 12 }, file = { " [file \"", 8 };
	struct str rest = line, told, data, severity;
	uint64_t rule = 0;
	size_t end;

	/* Everything up to the mark was written by the library; its last file name begins what no client can write. */
	for (end = 0; (end = find_text(rest, host)) < rest.n; rest = from(rest, end + host.n))
		if (str_starts(from(rest, end + host.n), mark))
			break;
	if (end == rest.n)
		return false;
	rest = (struct str){ line.p, (size_t)(rest.p + end - line.p) };
	end = find_last(rest, file);
	if (end == rest.n)
		return false;
	told = (struct str){ rest.p, end };
	rest = from(rest, end);
	if (!str_to_u64(take_value(&rest, STR(" [id \"")), UINT32_MAX, &rule))
		return false;
	data = take_value(&rest, STR(" [data \""));
	severity = take_value(&rest, STR(" [severity \""));
	out->rule = (uint32_t)rule;
	out->points = points_of(out->rule, severity);
	out->tag = (uint8_t)tag_of(rest, out->rule);
	put_text(out->variable, sizeof out->variable, find_variable(told, data));
	put_text(out->data, sizeof out->data, data);
	return true;
}

static void add_hit(struct waf_report *r, struct str line)
{
	struct waf_hit hit = { 0 };

	if (!waf_parse_hit(line, str_of(lib.mark), &hit))
		return;
	hit.phase = r->phase;
	atomic_fetch_add_explicit(hit.phase <= 2 ? &r->score_in : &r->score_out, hit.points, memory_order_relaxed);
	if (r->n < WAF_HITS_MAX)
		r->hits[r->n++] = hit;
	else
		r->n_more++;
}

/* The logging phase says again what the others said. */
static void hear(void *arg, const void *text)
{
	struct waf_report *r = arg;

	if (r && text && r->phase <= 4)
		add_hit(r, str_of(text));
}

/* ---------- the library ---------- */

static bool find_symbols(struct problem *why)
{
	for (unsigned i = 0; i < sizeof symbols / sizeof symbols[0]; i++) {
		void *found = dlsym(lib.handle, symbols[i].name);

		if (!found)
			return problem(why, "", "%s has no %s", LIBRARY, symbols[i].name);
		memcpy(symbols[i].at, &found, sizeof found);
	}
	return true;
}

static bool start_engine(struct problem *why)
{
	lib.engine = lib.msc_init();
	if (!lib.engine)
		return problem(why, "", "%s does not start", LIBRARY);
	lib.msc_set_connector_info(lib.engine, "sluice");
	lib.msc_set_log_cb(lib.engine, hear);
	snprintf(lib.mark, sizeof lib.mark, "sluice-%08x%08x%08x", arc4random(), arc4random(), arc4random());
	return true;
}

static bool tell_missing(struct problem *why)
{
	const char *error = dlerror();

	return problem(why, "", "apt-get install libmodsecurity3 modsecurity-crs (%.160s)", error ? error : LIBRARY);
}

bool waf_engine_open(struct problem *why)
{
	if (lib.engine)
		return true;
	if (!lib.handle)
		lib.handle = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
	if (!lib.handle)
		return tell_missing(why);
	return find_symbols(why) && start_engine(why);
}

const char *waf_engine_version(void)
{
	return lib.engine ? lib.msc_who_am_i(lib.engine) : "";
}

/* ---------- rules ---------- */

/* The library's words may go over lines and be long. */
static bool tell_error(const char *error, struct problem *why)
{
	char text[240];

	put_text(text, sizeof text, str_of(error ? error : "unknown"));
	mem_free((char *)(uintptr_t)error);
	return problem(why, "", "%s", text);
}

static struct waf_rules *wrap(void *set)
{
	struct waf_rules *r = MEM_NEW(struct waf_rules);

	atomic_init(&r->refs, 1);
	r->set = set;
	return r;
}

static struct waf_rules *add_directives(struct waf_rules *r, const char *directives, struct problem *why)
{
	const char *error = NULL;

	if (lib.msc_rules_add(r->set, directives, &error) >= 0)
		return r;
	tell_error(error, why);
	waf_rules_drop(r);
	return NULL;
}

struct waf_rules *waf_rules_new(const char *directives, struct problem *why)
{
	return add_directives(wrap(lib.msc_create_rules_set()), directives, why);
}

struct waf_rules *waf_rules_derive(struct waf_rules *of, const char *directives, struct problem *why)
{
	struct waf_rules *r = wrap(lib.msc_create_rules_set());
	const char *error = NULL;

	if (lib.msc_rules_merge(r->set, of->set, &error) < 0) {
		tell_error(error, why);
		waf_rules_drop(r);
		return NULL;
	}
	return add_directives(r, directives, why);
}

struct waf_rules *waf_rules_hold(struct waf_rules *r)
{
	atomic_fetch_add_explicit(&r->refs, 1, memory_order_relaxed);
	return r;
}

void waf_rules_drop(struct waf_rules *r)
{
	if (!r || atomic_fetch_sub_explicit(&r->refs, 1, memory_order_acq_rel) > 1)
		return;
	lib.msc_rules_cleanup(r->set);
	mem_free(r);
}

/* ---------- transactions ---------- */

struct waf_transaction *waf_begin(struct waf_rules *rules, struct waf_report *report)
{
	void *it = lib.msc_new_transaction(lib.engine, rules->set, report);
	struct waf_transaction *t;

	if (!it)
		return NULL;
	t = MEM_NEW(struct waf_transaction);
	t->it = it;
	t->rules = waf_rules_hold(rules);
	t->report = report;
	return t;
}

/* What the rules of the phase decided. Of several that deny the first counts. */
static bool settle(struct waf_transaction *t, int result)
{
	struct intervention i = { .status = 200 };
	struct waf_report *r = t->report;

	if (result != 1)
		return false;
	lib.msc_intervention(t->it, &i);
	if (i.disruptive && !r->is_blocked) {
		r->is_blocked = true;
		r->blocked_in = r->phase;
		r->status = i.status >= 400 && i.status < 600 ? i.status : 403;
		if (i.log)
			add_hit(r, str_of(i.log));
	}
	/* They are the library's, from malloc. */
	mem_free(i.url);
	mem_free(i.log);
	return true;
}

bool waf_request_head(struct waf_transaction *t, const struct waf_request *r)
{
	int result;

	t->report->phase = 1;
	result = lib.msc_process_connection(t->it, r->client, r->client_port, lib.mark, 0);
	if (result == 1)
		result = lib.msc_process_uri(t->it, r->target, r->method, r->version);
	for (unsigned i = 0; i < r->n && result == 1; i++) {
		const struct waf_field *f = &r->fields[i];

		result = lib.msc_add_n_request_header(t->it, f->name.p, f->name.n, f->value.p, f->value.n);
	}
	return settle(t, result == 1 ? lib.msc_process_request_headers(t->it) : result);
}

bool waf_request_body(struct waf_transaction *t, struct str body)
{
	int result = 1;

	t->report->phase = 2;
	if (body.n > 0)
		result = lib.msc_append_request_body(t->it, body.p, body.n);
	return settle(t, result == 1 ? lib.msc_process_request_body(t->it) : result);
}

bool waf_response_head(struct waf_transaction *t, const struct waf_response *r)
{
	int result = 1;

	t->report->phase = 3;
	for (unsigned i = 0; i < r->n && result == 1; i++) {
		const struct waf_field *f = &r->fields[i];

		result = lib.msc_add_n_response_header(t->it, f->name.p, f->name.n, f->value.p, f->value.n);
	}
	return settle(t, result == 1 ? lib.msc_process_response_headers(t->it, r->status, "HTTP/1.1") : result);
}

bool waf_response_body(struct waf_transaction *t, struct str body)
{
	t->report->phase = 4;
	/* More than it looks at is no failure: it looks at the beginning. */
	if (body.n > 0)
		lib.msc_append_response_body(t->it, body.p, body.n);
	return settle(t, lib.msc_process_response_body(t->it));
}

void waf_end(struct waf_transaction *t)
{
	t->report->phase = 5;
	lib.msc_process_logging(t->it);
	lib.msc_transaction_cleanup(t->it);
	waf_rules_drop(t->rules);
	mem_free(t);
}
