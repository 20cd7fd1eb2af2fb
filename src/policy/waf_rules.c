#include "policy/waf_rules.h"
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <sys/stat.h>
#include <unistd.h>
#include "core/list.h"
#include "core/mem.h"

#define FILE_BYTES_MAX 1048576            /* of the file that waf.rules names; what it includes has no limit here */

/* ---------- the rules around the rule set ---------- */

/*
 * How bodies are read and what the engine itself may take. Persistent collections are left out: the library keeps them
 * in one table for all threads, which grows without bound.
 */
static const char before_rules[] =
	"SecRuleEngine On\n"
	"SecRequestBodyAccess On\n"
	"SecResponseBodyAccess On\n"
	"SecResponseBodyMimeType text/plain text/html text/xml\n"
	"SecResponseBodyLimit 1048576\n"
	"SecResponseBodyLimitAction ProcessPartial\n"
	"SecRequestBodyLimitAction Reject\n"
	"SecRequestBodyJsonDepthLimit 512\n"
	"SecArgumentsLimit 1000\n"
	"SecArgumentSeparator &\n"
	"SecCookieFormat 0\n"
	"SecPcreMatchLimit 100000\n"
	"SecAuditEngine Off\n"
	"SecDebugLogLevel 0\n"
	/* The logging phase adds these up, also of what was denied before they were set; the library leaks where one is
	 * not there. */
	"SecAction \"id:9590009,phase:1,t:none,pass,nolog,"
		"setvar:tx.anomaly_score_pl1=0,setvar:tx.anomaly_score_pl2=0,setvar:tx.anomaly_score_pl3=0,"
		"setvar:tx.anomaly_score_pl4=0,setvar:tx.outbound_anomaly_score_pl1=0,"
		"setvar:tx.outbound_anomaly_score_pl2=0,setvar:tx.outbound_anomaly_score_pl3=0,"
		"setvar:tx.outbound_anomaly_score_pl4=0\"\n"
	"SecRule REQUEST_HEADERS:Content-Type \"^(?:application/(?:[a-z0-9.+-]+\\+)?|text/)xml\" "
		"\"id:9590000,phase:1,t:none,t:lowercase,pass,nolog,ctl:requestBodyProcessor=XML\"\n"
	"SecRule REQUEST_HEADERS:Content-Type \"^application/(?:[a-z0-9.+-]+\\+)?json\" "
		"\"id:9590001,phase:1,t:none,t:lowercase,pass,nolog,ctl:requestBodyProcessor=JSON\"\n"
	/* Who says nothing of a body sends a form: many frameworks read it as one. */
	"SecRule &REQUEST_HEADERS:Content-Type \"@eq 0\" "
		"\"id:9590002,phase:1,t:none,pass,nolog,ctl:requestBodyProcessor=URLENCODED\"\n"
	"SecRule &REQUEST_HEADERS:Content-Type \"@gt 1\" "
		"\"id:9590003,phase:1,t:none,deny,status:400,log,msg:'More than one Content-Type',severity:2\"\n"
	"SecRule REQUEST_HEADERS:Content-Encoding \"!@rx ^(?:identity)?$\" "
		"\"id:9590004,phase:1,t:none,t:lowercase,deny,status:415,log,"
		"msg:'The request body is compressed',severity:2,chain\"\n"
	"	SecRule REQBODY_PROCESSOR \"@rx .\" \"t:none\"\n"
	/* Related and mixed parts are read as those of forms and called so here; the rest cannot be read. */
	"SecRule REQUEST_HEADERS:Content-Type \"@rx ^multipart/(?!form-data(?:[ ;]|$))\" "
		"\"id:9590008,phase:1,t:none,t:lowercase,deny,status:415,log,"
		"msg:'The kind of multipart body cannot be read',severity:2\"\n"
	"SecRule REQBODY_ERROR \"!@eq 0\" "
		"\"id:9590005,phase:2,t:none,deny,status:400,log,msg:'The request body cannot be read',severity:2\"\n"
	"SecRule MULTIPART_STRICT_ERROR \"!@eq 0\" "
		"\"id:9590006,phase:2,t:none,deny,status:400,log,msg:'The multipart body is malformed',severity:2\"\n"
	"SecRule MULTIPART_UNMATCHED_BOUNDARY \"@eq 1\" "
		"\"id:9590007,phase:2,t:none,deny,status:400,log,msg:'The multipart body has odd boundaries',"
		"severity:2\"\n"
	/* What APIs are asked with, beyond what the Core Rule Set allows; routes say which methods they take. */
	"SecAction \"id:9590010,phase:1,t:none,pass,nolog,"
		"setvar:'tx.allowed_methods=GET HEAD POST OPTIONS PUT PATCH DELETE',"
		"setvar:'tx.allowed_request_content_type="
		"|application/x-www-form-urlencoded| |multipart/form-data| |multipart/related| |multipart/mixed| "
		"|text/xml| |application/xml| |application/soap+xml| |application/x-amf| |application/json| "
		"|application/cloudevents+json| |application/cloudevents-batch+json| |application/scim+json| "
		"|application/merge-patch+json| |application/json-patch+json| |application/vnd.api+json| "
		"|application/ld+json| "
		"|application/problem+json| |application/x-ndjson| |application/octet-stream| |application/pdf| "
		"|application/zip| |application/gzip| |application/csp-report| |application/reports+json| "
		"|application/xss-auditor-report| |text/plain| |text/csv| |image/png| |image/jpeg| |image/gif| "
		"|image/webp| |application/x-protobuf| |application/protobuf| |application/grpc| "
		"|application/grpc+proto| |application/grpc+json| |application/grpc-web| |application/grpc-web+proto| "
		"|application/grpc-web-text| |application/grpc-web-text+proto|'\"\n";

/* Rule 901321 of the Core Rule Set opens persistent collections; the one thing of it that others need is here. */
static const char after_rules[] =
	"SecRuleRemoveById 901321\n"
	"SecAction \"id:9590020,phase:1,t:none,pass,nolog,setvar:'tx.real_ip=%{remote_addr}'\"\n"
	/* Fields of multipart bodies are arguments, and files are not looked at; the whole takes 80 ms a MiB. */
	"SecRule REQBODY_PROCESSOR \"@streq MULTIPART\" \"id:9590022,phase:1,t:none,pass,nolog,"
		"ctl:ruleRemoveTargetByTag=OWASP_CRS;REQUEST_BODY\"\n"
	/* What the head alone gives away need not wait for the body. */
	"SecRule TX:ANOMALY_SCORE_PL1 \"@ge %{tx.inbound_anomaly_score_threshold}\" "
		"\"id:9590021,phase:1,t:none,deny,status:403,log,msg:'Anomaly score of the head exceeded',"
		"severity:2\"\n";

/* ---------- exclusions ---------- */

static bool is_of(struct str s, const char *set)
{
	for (size_t i = 0; i < s.n; i++)
		if (!memchr(set, s.p[i], strlen(set)))
			return false;
	return s.n > 0;
}

#define LETTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
#define DIGITS "0123456789"

struct exclusion {
	struct str resource, rules, target;       /* target: absent = the rules as a whole */
};

static struct str take_word(struct str *rest)
{
	struct str word = { NULL, 0 };

	while (rest->n > 0 && str_split(rest, ' ', &word) && word.n == 0)
		;
	return word;
}

static bool is_number(struct str s)
{
	return is_of(s, DIGITS) && s.n <= 9;
}

static bool is_range(struct str s)
{
	size_t dash = str_find(s, '-');
	struct str low = { s.p, dash }, high = { s.p + dash, s.n - dash };

	if (high.n > 0)
		high = (struct str){ high.p + 1, high.n - 1 };
	return dash < s.n && is_number(low) && is_number(high);
}

static bool is_tag(struct str s)
{
	return is_of(s, LETTERS DIGITS "-_/") && is_of((struct str){ s.p, 1 }, LETTERS);
}

static bool read_exclusion(struct str text, struct exclusion *out)
{
	out->resource = take_word(&text);
	out->rules = take_word(&text);
	out->target = take_word(&text);
	if (take_word(&text).n || !out->rules.n)
		return false;
	if (!str_equal(out->resource, STR("*")) && !is_of(out->resource, LETTERS DIGITS "-_"))
		return false;
	/* The library takes a target from single rules and from tags only. */
	if (!is_number(out->rules) && !is_tag(out->rules) && (out->target.n > 0 || !is_range(out->rules)))
		return false;
	return out->target.n == 0 || is_of(out->target, LETTERS DIGITS "-_.:[]");
}

bool waf_exclusion_check(struct str text, struct problem *why)
{
	struct exclusion e;

	if (read_exclusion(text, &e))
		return true;
	return problem(why, "", "must be \"RESOURCE RULES\" or \"RESOURCE RULES TARGET\", such as \"* 942100\", "
		       "\"route-1 941100-941390\" or \"route-1 attack-xss ARGS:text\"");
}

static void add_exclusion(struct sbuf *out, const struct exclusion *e)
{
	const char *by = is_tag(e->rules) ? "Tag" : "Id";

	if (e->target.n) {
		sbuf_addf(out, "SecRuleUpdateTargetBy%s %.*s \"!%.*s\"\n", by, STR_FMT(e->rules), STR_FMT(e->target));
	} else {
		sbuf_addf(out, "SecRuleRemoveBy%s %.*s\n", by, STR_FMT(e->rules));
	}
}

/* Those for everything, and those of one resource; absent = of none. */
static void add_exclusions(struct sbuf *out, const struct json *list, struct str resource)
{
	struct exclusion e;

	for (const struct json *item = list->child; item; item = item->next)
		if (read_exclusion(item->string, &e) &&
		    (str_equal(e.resource, STR("*")) || (resource.p && str_equal(e.resource, resource))))
			add_exclusion(out, &e);
}

/* ---------- files ---------- */

static bool read_file(const char *path, struct sbuf *out, struct problem *why)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	char piece[8192];
	ssize_t n = -1;

	if (fd < 0)
		return problem(why, "", "%.200s cannot be read: %s", path, strerror(errno));
	while (out->n < FILE_BYTES_MAX && (n = read(fd, piece, sizeof piece)) > 0)
		sbuf_add(out, (struct str){ piece, (size_t)n });
	close(fd);
	if (n != 0)
		return problem(why, "", "%.200s cannot be read, or is longer than 1 MiB", path);
	return memchr(out->p ? out->p : "", '\0', out->n) ? problem(why, "", "%.200s is no text", path) : true;
}

static bool matches_file(struct str pattern)
{
	char path[4096];
	glob_t found;
	bool is_there;

	pattern = str_trim(pattern);
	if (pattern.n >= sizeof path)
		return false;
	memcpy(path, pattern.p, pattern.n);
	path[pattern.n] = '\0';
	is_there = glob(path, GLOB_NOSORT, NULL, &found) == 0;
	if (is_there)
		globfree(&found);
	return is_there;
}

/* The library knows Include only: IncludeOptional becomes that, where there is something to include. */
static void add_lines(struct sbuf *out, struct str text)
{
	static const struct str optional = { "IncludeOptional", 15 };
	struct str line, pattern;

	while (str_split(&text, '\n', &line)) {
		pattern = str_trim(line);
		if (!str_starts(pattern, optional)) {
			sbuf_add(out, line);
		} else {
			pattern = (struct str){ pattern.p + optional.n, pattern.n - optional.n };
			if (matches_file(pattern))
				sbuf_addf(out, "Include%.*s", STR_FMT(pattern));
		}
		sbuf_addc(out, '\n');
	}
}

/* `path`: a file of directives, or a folder with *.conf. */
static bool add_rules(struct sbuf *out, struct str path, struct problem *why)
{
	char name[4200];
	struct stat s;
	struct sbuf text = { 0 };
	bool is_read;

	if (!is_of(path, LETTERS DIGITS "/._-+@%=,") || path.n >= sizeof name)
		return problem(why, "", "is no path that could be used");
	snprintf(name, sizeof name, "%.*s", STR_FMT(path));
	if (stat(name, &s) < 0)
		return problem(why, "", "%.200s does not exist on this node", name);
	if (S_ISDIR(s.st_mode)) {
		sbuf_addf(out, "Include %s/*.conf\n", name);
		return true;
	}
	is_read = read_file(name, &text, why);
	if (is_read)
		add_lines(out, sbuf_str(&text));
	sbuf_free(&text);
	return is_read;
}

/* ---------- rule sets by path, version and levels ---------- */

struct base {
	struct base *next;
	unsigned refs;                    /* plans */
	char *path, *key;
	struct waf_rules *rules;
};
static struct base *bases;

struct wishes {
	struct str path, version;
	int64_t paranoia, threshold_in, threshold_out, body_bytes, fields_bytes;
};

static char *key_of(const struct wishes *w)
{
	struct sbuf key = { 0 };

	sbuf_addf(&key, "%.*s\n%.*s\n%lld %lld %lld %lld %lld", STR_FMT(w->path), STR_FMT(w->version),
		    (long long)w->paranoia, (long long)w->threshold_in, (long long)w->threshold_out,
		    (long long)w->body_bytes, (long long)w->fields_bytes);
	return key.p;
}

static struct waf_rules *load(const struct wishes *w, struct problem *why)
{
	struct sbuf text = { 0 };
	struct waf_rules *rules = NULL;

	SBUF_LIT(&text, before_rules);
	sbuf_addf(&text, "SecRequestBodyLimit %lld\n", (long long)w->body_bytes);
	sbuf_addf(&text, "SecAction \"id:9590011,phase:1,t:none,pass,nolog,setvar:tx.paranoia_level=%lld,"
		    "setvar:tx.inbound_anomaly_score_threshold=%lld,"
		    "setvar:tx.outbound_anomaly_score_threshold=%lld\"\n",
		    (long long)w->paranoia, (long long)w->threshold_in, (long long)w->threshold_out);
	sbuf_addf(&text, "SecRule ARGS_COMBINED_SIZE \"@gt %lld\" \"id:9590012,phase:2,t:none,deny,status:413,log,"
		    "msg:'The fields of the request are too long',severity:2\"\n", (long long)w->fields_bytes);
	if (add_rules(&text, w->path, why)) {
		SBUF_LIT(&text, after_rules);
		rules = waf_rules_new(text.p, why);
	}
	sbuf_free(&text);
	return rules;
}

static struct base *find_base(const char *key)
{
	for (struct base *b = bases; b; b = b->next)
		if (strcmp(b->key, key) == 0)
			return b;
	return NULL;
}

/* Of an older version of the same files. */
static struct base *find_older(struct str path)
{
	for (struct base *b = bases; b; b = b->next)
		if (str_equal(str_of(b->path), path))
			return b;
	return NULL;
}

static char *copy_text(struct str s)
{
	char *p = mem_alloc(s.n + 1);

	if (s.n)
		memcpy(p, s.p, s.n);
	return p;
}

/* One reference. NULL: there are no rules; an older set with *is_good false: those do not load. */
static struct base *get_base(const struct wishes *w, bool *is_good, struct problem *why)
{
	char *key = key_of(w);
	struct base *b = find_base(key);
	struct waf_rules *rules;

	*is_good = true;
	if (!b) {
		rules = waf_engine_open(why) ? load(w, why) : NULL;
		*is_good = rules != NULL;
		if (rules) {
			b = MEM_NEW(struct base);
			*b = (struct base){ bases, 0, copy_text(w->path), key, rules };
			bases = b;
			key = NULL;
		} else {
			b = find_older(w->path);
		}
	}
	mem_free(key);
	if (b)
		b->refs++;
	return b;
}

static void drop_base(struct base *b)
{
	struct base **at = &bases;

	if (!b || --b->refs > 0)
		return;
	while (*at != b)
		at = &(*at)->next;
	*at = b->next;
	waf_rules_drop(b->rules);
	mem_free(b->path);
	mem_free(b->key);
	mem_free(b);
}

/* ---------- plans ---------- */

static struct waf_plan *plans;

struct plan {
	struct waf_plan of;
	struct base *base;
};

static void destroy_plan(struct part *part)
{
	struct plan *p = CONTAINER(CONTAINER(part, struct waf_plan, part), struct plan, of);
	struct waf_plan **at = &plans;

	while (*at && *at != &p->of)
		at = &(*at)->next;
	if (*at)
		*at = p->of.next;
	for (unsigned i = 0; i < p->of.n_exceptions; i++)
		waf_rules_drop(p->of.exceptions[i].rules);
	waf_rules_drop(p->of.rules);
	drop_base(p->base);
	arena_free(&p->of.arena);
	mem_free(p->of.key);
	mem_free(p);
}

static int64_t number(const struct attach_target *t, const char *name)
{
	const struct json *v = t->setting(t, name);

	return v && v->type == JSON_INT ? v->integer : 0;
}

static struct str text(const struct attach_target *t, const char *name)
{
	const struct json *v = t->setting(t, name);

	return v && v->type == JSON_STRING ? v->string : STR("");
}

static bool is_on(const struct attach_target *t, const char *name)
{
	const struct json *v = t->setting(t, name);

	return v && v->type == JSON_BOOL && v->boolean;
}

/* The rules with these exclusions, in this mode. NULL when they do not go together. */
static struct waf_rules *derive(struct plan *p, const struct json *list, struct str resource, struct problem *why)
{
	struct sbuf directives = { 0 };
	struct waf_rules *rules;

	if (p->of.detects)
		SBUF_LIT(&directives, "SecRuleEngine DetectionOnly\n");
	add_exclusions(&directives, list, resource);
	if (directives.n == 0)
		return waf_rules_hold(p->base->rules);
	rules = waf_rules_derive(p->base->rules, directives.p, why);
	sbuf_free(&directives);
	return rules;
}

static bool is_known(const struct waf_exception *list, unsigned n, struct str id)
{
	for (unsigned i = 0; i < n; i++)
		if (str_equal(list[i].id, id))
			return true;
	return false;
}

static bool derive_all(struct plan *p, const struct json *list, struct problem *why)
{
	struct waf_exception *made = NEW_N(&p->of.arena, struct waf_exception, list->n + 1);
	struct exclusion e;

	p->of.exceptions = made;
	p->of.rules = derive(p, list, (struct str){ NULL, 0 }, why);
	if (!p->of.rules)
		return false;
	for (const struct json *item = list->child; item; item = item->next) {
		if (!read_exclusion(item->string, &e) || str_equal(e.resource, STR("*")) ||
		    is_known(made, p->of.n_exceptions, e.resource))
			continue;
		made[p->of.n_exceptions].id = arena_copy(&p->of.arena, e.resource);
		made[p->of.n_exceptions].rules = derive(p, list, e.resource, why);
		if (!made[p->of.n_exceptions].rules)
			return false;
		p->of.n_exceptions++;
	}
	return true;
}

/* Everything the plan depends on, as text. */
static char *plan_key(const struct attach_target *t, const struct wishes *w)
{
	struct sbuf key = { 0 };
	const struct json *list = t->setting(t, "waf.exclusions");
	char *base = key_of(w);

	sbuf_addf(&key, "%s\n%.*s %.*s %d %d %d %lld %lld\n", base, STR_FMT(text(t, "waf.mode")),
		  STR_FMT(text(t, "waf.timeout_action")), is_on(t, "waf.log_data"), is_on(t, "waf.inspect_responses"),
		  is_on(t, "waf.ai_inspect_prompts"), (long long)number(t, "waf.budget_ms"),
		  (long long)number(t, "ai.max_request_body"));
	if (list)
		json_canonical(&key, list);
	mem_free(base);
	return key.p;
}

static struct waf_plan *find_plan(const char *key)
{
	for (struct waf_plan *p = plans; p; p = p->next)
		if (strcmp(p->key, key) == 0)
			return p;
	return NULL;
}

static struct plan *new_plan(const struct attach_target *t, const struct wishes *w, char *key)
{
	struct plan *p = MEM_NEW(struct plan);

	p->of = (struct waf_plan){
		.part = { 1, destroy_plan },
		.detects = str_equal(text(t, "waf.mode"), STR("detect")),
		.logs_data = is_on(t, "waf.log_data"),
		.closes_late = str_equal(text(t, "waf.timeout_action"), STR("block")),
		.inspects_responses = is_on(t, "waf.inspect_responses"),
		.inspects_prompts = is_on(t, "waf.ai_inspect_prompts"),
		.ai_bytes = (size_t)number(t, "ai.max_request_body"),
		.threshold_in = w->threshold_in,
		.threshold_out = w->threshold_out,
		.budget_us = number(t, "waf.budget_ms") * 1000,
		.body_bytes = (size_t)w->body_bytes,
		.fields_bytes = (size_t)w->fields_bytes,
		.key = key,
	};
	return p;
}

struct waf_plan *waf_plan_get(const struct attach_target *t, bool *is_good, struct problem *why)
{
	struct str path = text(t, "waf.rules");
	const struct wishes w = {
		.path = path.n ? path : STR(WAF_RULES_DEFAULT),
		.version = text(t, "waf.rules_version"),
		.paranoia = number(t, "waf.paranoia"),
		.threshold_in = number(t, "waf.inbound_threshold"),
		.threshold_out = number(t, "waf.outbound_threshold"),
		.body_bytes = number(t, "waf.body_limit"),
		.fields_bytes = number(t, "waf.body_nofiles_limit"),
	};
	char *key = plan_key(t, &w);
	struct waf_plan *found = find_plan(key);
	struct plan *p;

	*is_good = true;
	if (found) {
		mem_free(key);
		part_hold(&found->part);
		return found;
	}
	p = new_plan(t, &w, key);
	p->base = get_base(&w, is_good, why);
	if (p->base && !derive_all(p, t->setting(t, "waf.exclusions"), why)) {
		*is_good = false;
		waf_rules_drop(p->of.rules);
		p->of.rules = NULL;
	}
	/* One that is not as it should be is made anew the next time somebody asks. */
	if (*is_good) {
		p->of.next = plans;
		plans = &p->of;
	}
	return &p->of;
}

struct waf_rules *waf_plan_rules(const struct waf_plan *p, struct str route_id, struct str api_id)
{
	for (unsigned pass = 0; pass < 2; pass++) {
		struct str id = pass ? api_id : route_id;

		for (unsigned i = 0; id.n && i < p->n_exceptions; i++)
			if (str_equal(p->exceptions[i].id, id))
				return p->exceptions[i].rules;
	}
	return p->rules;
}
