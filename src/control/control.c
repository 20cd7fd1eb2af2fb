/*
 * control.c -- the control plane put together: opening, loading, the loop, the end.
 */
#include "control/control.h"
#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>
#include "control/api.h"
#include "control/control_parts.h"
#include "control/feature.h"
#include "control/process.h"
#include "core/clock.h"
#include "core/log.h"
#include "core/mem.h"
#include "net/addr.h"

enum { TICK_MS = 1000, DRAIN_MS = 2000 };

static char *copy_text(struct arena *a, const char *text)
{
	return (char *)(uintptr_t)arena_copy(a, str_of(text)).p;
}

/* ---------- opening ---------- */

static bool make_data_dir(const char *path, struct problem *why)
{
	struct stat st;

	if (mkdir(path, 0700) == 0)
		return true;
	if (errno == EEXIST && stat(path, &st) == 0 && S_ISDIR(st.st_mode))
		return true;
	return problem_of(
		why, PROBLEM_INTERNAL, "", "the data directory %s cannot be made: %s", path, strerror(errno));
}

static void list_hosts(struct control *c, const struct control_settings *s)
{
	struct addr at;
	struct ip ip;
	char text[46];

	c->hosts = NEW_N(&c->arena, struct str, s->n_host_names + 2);
	c->hosts[c->n_hosts++] = STR("localhost");
	if (s->admin && addr_parse(str_of(s->admin), &at)) {
		ip = addr_ip(&at);
		c->hosts[c->n_hosts++] = arena_copy(&c->arena, (struct str){ text, ip_print(&ip, text) });
	}
	for (unsigned i = 0; i < s->n_host_names; i++)
		c->hosts[c->n_hosts++] = arena_copy(&c->arena, s->host_names[i]);
}

static void make_series(struct control *c)
{
	process_metrics();
	c->api_requests = metric_series(METRIC_API_REQUESTS, NULL);
	c->store_up = metric_series(METRIC_STORE_UP, NULL);
	c->degraded = metric_series(METRIC_ATTACHMENTS_DEGRADED, NULL);
	metric_set(c->store_up, 1);
}

static void run_flush(struct task *t)
{
	api_flush(CONTAINER(t, struct control, flush));
}

static void run_tick(struct timer *t)
{
	struct control *c = CONTAINER(t, struct control, tick);

	if (c->compiler)
		compile_reap(c->compiler);
	mem_give_back();
	/* Not while changes of this turn may still be undone. */
	if (c->compiler && c->is_started && batch_is_empty(c) && compile_retry(c->compiler))
		compile_publish(c->compiler);
	loop_arm(c->loop, &c->tick, TICK_MS);
}

static bool open_parts(struct control *c, const struct control_settings *s, struct problem *why)
{
	if (!make_data_dir(s->data_dir, why) || !feature_set_defaults(s->features, why) ||
	    !operators_open(&c->operators, s->data_dir, why))
		return false;
	if (s->takeover && !takeover_ask(&c->takeover, why))
		return false;
	c->store = store_open(c->store_url, why);
	if (!c->store || !secrets_open(&c->secrets, s->data_dir, why))
		return false;
	return true;
}

struct control *control_new(const struct control_settings *s, struct problem *why)
{
	struct control *c = MEM_NEW(struct control);
	struct compiler_settings compiler = s->compiler;

	list_init(&c->batch);
	list_init(&c->answers);
	c->keeps_underscores = s->keeps_underscores;
	c->data_dir = copy_text(&c->arena, s->data_dir);
	c->cluster = copy_text(&c->arena, s->cluster ? s->cluster : "local");
	c->node = copy_text(&c->arena, s->node ? s->node : "local");
	c->store_url = s->store ? copy_text(&c->arena, s->store)
				: copy_text(&c->arena,
					  arena_printf(&c->arena, "sqlite:%s/sluice.db", s->data_dir).p);
	c->loop = loop_new();
	takeover_init(&c->takeover, c);
	task_init(&c->flush, run_flush);
	timer_init(&c->tick, run_tick);
	list_hosts(c, s);
	make_series(c);
	if (!open_parts(c, s, why) || (s->admin && !api_listen(c, s->admin, why))) {
		control_free(c);
		return NULL;
	}
	c->model = model_new();
	compiler.cluster = str_of(c->cluster);
	c->compiler = compiler_new(c->model, &compiler);
	return c;
}

/* ---------- loading ---------- */

static bool find_kind(struct str name, enum resource_kind *out)
{
	for (unsigned i = 0; i < RESOURCE_COUNT; i++) {
		if (!str_equal(str_of(resource_classes[i]->name), name))
			continue;
		*out = (enum resource_kind)i;
		return true;
	}
	return false;
}

struct loading {
	struct control *control;
	struct resource **list;           /* by age */
	size_t n, cap;
	struct resource **upgraded;       /* those of `list` whose documents are to be stored anew */
	size_t n_upgraded;
	bool has_key_check, has_session;
};

static bool load_session(struct loading *l, const struct store_row *row, struct problem *why)
{
	struct arena a = { 0 };
	struct json *sealed = json_parse(&a, row->doc, why);
	bool ok = sealed && secrets_use_session(&l->control->secrets, sealed->string, &a, why);

	l->has_session = true;
	arena_free(&a);
	return ok;
}

/* The key on disk must be the one that the store's secrets are sealed with. */
static bool check_meta(struct loading *l, const struct store_row *row, struct problem *why)
{
	struct control *c = l->control;
	struct arena a = { 0 };

	if (str_equal(row->id, STR("sessionSecret")))
		return load_session(l, row, why);
	if (!str_equal(row->id, STR("keyCheck")))
		return true;
	l->has_key_check = true;
	struct json *sealed = json_parse(&a, row->doc, why);
	bool ok = sealed && secrets_is_key_of(&c->secrets, sealed->string, &a);

	arena_free(&a);
	if (ok)
		return true;
	secrets_withdraw(&c->secrets, c->data_dir);
	return problem_of(why, PROBLEM_INTERNAL, "", "%s/secret.key is %s; restore it from a backup",
		c->data_dir,
		c->secrets.is_new ? "missing, and the store has secrets sealed with it"
				  : "not the key this store was written with");
}

static void note_upgraded(struct loading *l, struct resource *r)
{
	l->upgraded = mem_resize(l->upgraded, (l->n_upgraded + 1) * sizeof(struct resource *));
	l->upgraded[l->n_upgraded++] = r;
}

static bool upgrade(const struct resource *r, struct json *doc, struct arena *a)
{
	const struct resource_class *class = resource_classes[r->kind];

	return class->upgrade && class->upgrade(doc, a);
}

static bool load_row(void *arg, const struct store_row *row, struct problem *why)
{
	struct loading *l = arg;
	enum resource_kind kind;

	if (str_equal(row->kind, STR("meta")))
		return check_meta(l, row, why);
	if (!find_kind(row->kind, &kind))
		return problem_of(why, PROBLEM_STORE, "",
			"the store has a %.*s, which this build does not know; use the version that wrote it",
			STR_FMT(row->kind));
	struct resource *r = resource_new(kind, row->id);
	struct arena scratch = { .wipes = true };
	struct json *doc = json_parse(&scratch, row->doc, why);

	if (doc && secrets_unseal(&l->control->secrets, r, doc, &scratch, why)) {
		if (upgrade(r, doc, &scratch))
			note_upgraded(l, r);
		resource_keep(r, doc);
	}
	arena_free(&scratch);
	if (!r->doc) {
		resource_drop(r);
		why->kind = PROBLEM_STORE;
		return false;
	}
	r->age = row->age;
	r->version = row->version;
	r->created_ms = row->created_ms;
	r->updated_ms = row->updated_ms;
	if (l->n == l->cap) {
		l->cap = l->cap ? l->cap * 2 : 1024;
		l->list = mem_resize(l->list, l->cap * sizeof(struct resource *));
	}
	l->list[l->n++] = r;
	return true;
}

static void warn_if_deaf(const struct control *c, const struct resource *r)
{
	const struct resource_class *class = resource_classes[r->kind];
	struct problem why;

	if (!c->keeps_underscores && class->arrives && !class->arrives(r->doc, &why))
		log_warn("control.never_matches", F_STR("resource", r->id), F_TEXT("field", why.field),
			F_TEXT("why", why.text));
}

/* Resources that were created before what they point at exists do not occur: age order is an order to compile in. */
static void put_into_force(struct loading *l)
{
	struct problem why;

	for (size_t i = 0; i < l->n; i++) {
		struct change change = { .after = l->list[i] };

		list_init(&change.node);
		model_apply(l->control->model, &change);
	}
	for (size_t i = 0; i < l->n; i++) {
		struct change change = { .after = l->list[i] };

		list_init(&change.node);
		warn_if_deaf(l->control, l->list[i]);
		if (!compile_change(l->control->compiler, &change, &why))
			log_error("control.not_in_force", F_STR("resource", l->list[i]->id),
				F_TEXT("field", why.field), F_TEXT("why", why.text));
	}
}

static bool store_meta(struct control *c, struct str id, struct str sealed, struct problem *why)
{
	struct sbuf text = { 0 };
	struct store_row row = { .kind = STR("meta"), .id = id };

	json_quote(&text, sealed);
	row.doc = sbuf_str(&text);
	bool ok = store_write(c->store, &row, 1, why);

	sbuf_free(&text);
	return ok;
}

/* What every store has one of, where it is not there yet. */
static bool store_secrets(const struct loading *l, struct problem *why)
{
	struct control *c = l->control;
	struct arena a = { 0 };
	bool ok = l->has_key_check || store_meta(c, STR("keyCheck"), secrets_key_check(&c->secrets, &a), why);

	if (ok && !l->has_session) {
		struct str sealed = secrets_make_session(&c->secrets, &a);

		ok = store_meta(c, STR("sessionSecret"), sealed, why) &&
		     secrets_use_session(&c->secrets, sealed, &a, why);
	}
	arena_free(&a);
	return ok;
}

static bool make_default_mesh(struct control *c, struct problem *why)
{
	struct sbuf answer = { 0 };
	bool ok = model_get(c->model, RESOURCE_MESH, STR("default")) ||
		  control_call(c, "POST", "/v2/meshes", STR("{\"meshId\":\"default\",\"name\":\"default\"}"),
			  &answer) == 200;

	if (!ok)
		problem_of(why, PROBLEM_STORE, "", "the mesh \"default\" cannot be stored: %s",
			answer.p ? answer.p : "");
	sbuf_free(&answer);
	return ok;
}

/* What cannot be stored anew now is upgraded again at the next start. */
static void store_upgraded(const struct loading *l)
{
	struct problem why;

	if (l->n_upgraded == 0)
		return;
	if (write_anew(l->control, l->upgraded, l->n_upgraded, &why))
		log_info("control.upgraded", F_INT("resources", (int64_t)l->n_upgraded));
	else
		log_error("control.upgrade_failed", F_TEXT("why", why.text));
}

bool control_start(struct control *c, struct problem *why)
{
	struct loading l = { .control = c };
	int64_t start_us = clock_now_us();

	compiler_set_lenient(c->compiler, true);
	bool ok = store_load(c->store, load_row, &l, why);

	ok = ok && store_secrets(&l, why);
	if (ok) {
		store_upgraded(&l);
		put_into_force(&l);
	}
	for (size_t i = 0; i < l.n; i++)
		resource_drop(l.list[i]);
	mem_free(l.list);
	mem_free(l.upgraded);
	if (!ok)
		return false;
	compile_publish(c->compiler);
	compiler_set_lenient(c->compiler, false);
	c->is_started = true;
	log_info("control.loaded", F_INT("resources", (int64_t)l.n),
		F_INT("ms", (clock_now_us() - start_us) / 1000));
	return make_default_mesh(c, why);
}

/* ---------- running ---------- */

static void turn(void *arg)
{
	struct control *c = arg;

	if (atomic_load(&c->is_stopping))
		loop_stop(c->loop);
}

/* Answers under way go out; who does not take them in time is cut off. */
static void drain(struct control *c)
{
	int64_t end_ms = clock_ms() + DRAIN_MS;

	if (!c->server)
		return;
	if (c->listener.watch.fd >= 0)
		server_unlisten(&c->listener);
	server_drain(c->server);
	while (server_connections(c->server) && clock_ms() < end_ms)
		loop_run_once(c->loop, 50);
}

void control_run(struct control *c)
{
	loop_arm(c->loop, &c->tick, TICK_MS);
	loop_run(c->loop, turn, c);
	drain(c);
	timer_disarm(&c->tick);
}

bool control_take_over(struct control *c, void (*gone)(void *arg), void *arg, struct problem *why)
{
	if (!takeover_confirm(&c->takeover, why))
		return false;
	takeover_offer(&c->takeover, gone, arg);
	return true;
}

void control_stop(struct control *c)
{
	atomic_store(&c->is_stopping, true);
	loop_wake(c->loop);
}

void control_wake(void *control)
{
	loop_wake(((struct control *)control)->loop);
}

void control_set_ready(struct control *c, bool ready)
{
	atomic_store(&c->is_ready, ready);
}

void control_free(struct control *c)
{
	if (!c)
		return;
	takeover_end(&c->takeover);
	if (c->server)
		server_free(c->server);
	compiler_free(c->compiler);
	model_free(c->model);
	store_close(c->store);
	loop_free(c->loop);
	mem_wipe(&c->secrets, sizeof c->secrets);
	arena_free(&c->arena);
	mem_free(c);
}

/* ---------- from inside ---------- */

uint16_t control_admin_port(const struct control *c)
{
	return c->port;
}

const char *control_token_path(const struct control *c)
{
	return c->operators.path;
}

bool control_token_is_new(const struct control *c)
{
	return c->operators.is_new;
}

const struct model *control_model(const struct control *c)
{
	return c->model;
}

struct compiler *control_compiler(const struct control *c)
{
	return c->compiler;
}

int control_call(struct control *c, const char *method, const char *path, struct str body, struct sbuf *answer)
{
	struct arena a = { 0 };
	struct api_call call;
	struct problem why;
	struct str target = str_of(path);
	size_t mark = str_find(target, '?');

	api_begin(&call, c, &a);
	call.is_internal = true;
	call.method = method_lookup(str_of(method));
	call.path = (struct str){ target.p, mark };
	call.query = mark < target.n ? (struct str){ target.p + mark + 1, target.n - mark - 1 }
				     : (struct str){ NULL, 0 };
	call.body = body;
	if (!batch_is_empty(c))
		api_flush(c);
	if (api_judge(&call, body.n) && api_execute(&call) == CALL_WAITS)
		api_finish(&call, batch_commit(c, &why) ? NULL : &why);
	sbuf_add(answer, call.answer);
	int status = call.status;

	api_end(&call);
	arena_free(&a);
	return status;
}
