/*
 * compile_node.h -- a node without traffic for the tests of the compiler: a model, a compiler, and workers that
 * adopt as soon as they are woken. Documents are written with ' for "; PORT stands for a port that was free a
 * moment ago.
 */
#pragma once
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#undef fail
#include <unistd.h>
#include "control/compile.h"
#include "control/document.h"
#include "control/resource.h"
#include "core/clock.h"
#include "core/mem.h"
#include "net/listener.h"
#include "proxy/router.h"

enum { WORKERS = 2, FDS = 32 };

static struct node {
	struct model *model;
	struct compiler *compiler;
	struct mailbox boxes[WORKERS];
	struct view *views[WORKERS];
	int fds[FDS];                                      /* of worker 0 */
	struct str keys[FDS];
	unsigned n_fds, opened, closed, retired;
	struct arena arena;
	char port[8];
} node;

static struct problem why;

/* ---------- workers ---------- */

static inline void keep_socket(const struct new_listener *l)
{
	assert_true(node.n_fds < FDS);
	node.keys[node.n_fds] = arena_copy(&node.arena, l->key);
	node.fds[node.n_fds++] = l->fds[0];
	node.opened++;
}

static inline void close_socket(struct str key)
{
	for (unsigned i = 0; i < node.n_fds; i++)
		if (str_equal(node.keys[i], key) && node.fds[i] >= 0) {
			close(node.fds[i]);
			node.fds[i] = -1;
			node.closed++;
		}
}

static inline void take(void *arg, const struct snapshot *s)
{
	const unsigned worker = *(const unsigned *)arg;

	for (unsigned i = 0; worker == 0 && i < s->n_closed; i++)
		close_socket(s->closed[i]);
	for (unsigned i = 0; i < s->n_listeners; i++)
		if (worker == 0)
			keep_socket(&s->listeners[i]);
		else
			close(s->listeners[i].fds[worker]);
	for (unsigned i = 0; i < s->n_retired; i++)
		assert_true(s->retired[i]->retired);
	node.retired += worker == 0 ? s->n_retired : 0;
}

static inline void adopt(void *arg, unsigned worker)
{
	(void)arg;
	node.views[worker] = snapshot_adopt(node.views[worker], &node.boxes[worker], take, &worker);
}

static inline void pick_port(void)
{
	struct addr any;
	int fd;

	assert_true(addr_parse(STR("127.0.0.1:0"), &any));
	fd = listener_open(&any, false, &why);
	assert_true(fd >= 0);
	any = addr_of_socket(fd);
	close(fd);
	snprintf(node.port, sizeof(node.port), "%u", addr_port(&any));
}

static inline void start_compiler(void (*wake)(void *arg, unsigned worker))
{
	static struct mailbox empty;

	for (unsigned i = 0; i < WORKERS; i++)
		node.boxes[i] = empty;
	node.compiler = compiler_new(node.model, &(struct compiler_settings){
		.cluster = STR("local"), .workers = WORKERS, .mailboxes = node.boxes, .wake_worker = wake });
}

static inline void stop_compiler(void)
{
	for (unsigned i = 0; i < WORKERS; i++)
		if (node.views[i])
			snapshot_unpin(node.views[i], NULL, &node.boxes[i]);
	memset(node.views, 0, sizeof(node.views));
	for (unsigned i = 0; i < node.n_fds; i++)
		if (node.fds[i] >= 0)
			close(node.fds[i]);
	node.n_fds = 0;
	compiler_free(node.compiler);
}

static inline int setup(void **state)
{
	(void)state;
	node = (struct node){ .model = model_new() };
	start_compiler(adopt);
	pick_port();
	return 0;
}

static inline int teardown(void **state)
{
	(void)state;
	stop_compiler();
	model_free(node.model);
	arena_free(&node.arena);
	return 0;
}

static inline int start(void **state)
{
	(void)state;
	metric_start(1 + WORKERS);
	metric_thread(0);
	return 0;
}

/* ---------- changes ---------- */

static inline const char *expand(const char *text)
{
	struct sbuf out = { 0 };
	struct str copy;

	for (const char *hole; (hole = strstr(text, "PORT")); text = hole + 4) {
		sbuf_add(&out, (struct str){ text, (size_t)(hole - text) });
		sbuf_add(&out, str_of(node.port));
	}
	sbuf_add(&out, str_of(text));
	copy = arena_copy(&node.arena, sbuf_str(&out));
	sbuf_free(&out);
	return copy.p;
}

/* Text with ' for ". */
static inline struct json *parse(struct arena *a, const char *text)
{
	char *copy = (char *)(uintptr_t)expand(text);
	struct json *json;

	for (char *p = copy; *p; p++)
		if (*p == '\'')
			*p = '"';
	json = json_parse(a, str_of(copy), &why);
	if (!json)
		print_error("%s: %s\n", copy, why.text);
	assert_non_null(json);
	return json;
}

static inline struct resource *make(enum resource_kind kind, const char *id, const char *text)
{
	const struct resource_class *class = resource_classes[kind];
	struct resource *before = model_get(node.model, kind, str_of(id));
	struct resource *r = resource_new(kind, str_of(id));

	r->doc = document_complete(class->fields, parse(&r->arena, text), &r->arena);
	r->name = json_text(r->doc, resource_name_field(class));
	r->age = before ? before->age : model_new_age(node.model);
	r->version = before ? before->version + 1 : 1;
	return r;
}

static inline bool apply(struct resource *before, struct resource *after)
{
	struct change change = { .before = before, .after = after };
	bool ok;

	resource_hold(before);
	model_apply(node.model, &change);
	ok = compile_change(node.compiler, &change, &why);
	if (!ok)
		model_undo(node.model, &change);
	resource_drop(before);
	resource_drop(after);
	return ok;
}

static inline bool try_put(enum resource_kind kind, const char *id, const char *text)
{
	struct resource *r = make(kind, id, text);

	return apply(model_get(node.model, kind, str_of(id)), r);
}

static inline void put(enum resource_kind kind, const char *id, const char *text)
{
	bool ok = try_put(kind, id, text);

	if (!ok)
		print_error("%s: %s: %s\n", id, why.field, why.text);
	assert_true(ok);
}

static inline void drop(enum resource_kind kind, const char *id)
{
	struct resource *r = model_get(node.model, kind, str_of(id));

	assert_non_null(r);
	assert_true(apply(r, NULL));
}

#define GATEWAY(id, cluster, protocol)                                                                       \
	"{'meshId':'default','cluster':'" cluster "','gateway':'" id "','namespace':'default',"              \
	"'elbId':'e','externalPort':{'number':'PORT','protocol':'" protocol                                  \
	"','hosts':%s},'serviceType':'LoadBalancer',"                                                        \
	"'externalIPs':%s,'maxProtocolVersion':'TLSV1_3','minProtocolVersion':'TLSV1_2','ipv6Enable':'true'" \
	"}"

static inline const char *gateway(const char *id, const char *hosts, const char *ips)
{
	return arena_printf(&node.arena, GATEWAY("%s", "local", "HTTP"), id, hosts, ips).p;
}

static inline void put_gateway(const char *id, const char *hosts, const char *ips)
{
	put(RESOURCE_GATEWAY, id, gateway(id, hosts, ips));
}

static inline void put_route(const char *id, const char *more)
{
	put(RESOURCE_ROUTE, id,
	    arena_printf(&node.arena, "{'name':'%s','gatewayId':'gw-1','environmentId':'env-1',%s}", id, more)
		    .p);
}

static inline void put_policy(const char *id, const char *class, const char *config)
{
	put(RESOURCE_POLICY, id,
	    arena_printf(&node.arena, "{'name':'%s','className':'%s','config':\"%s\"}", id, class, config).p);
}

static inline void attach(const char *id, const char *policy, const char *type, const char *resource)
{
	put(RESOURCE_ATTACHMENT, id,
	    arena_printf(&node.arena,
			 "{'policyId':'%s','attachResourceType':'%s','attachResourceIds':['%s'],"
			 "'environmentId':'env-1','gatewayId':'gw-1'}",
			 policy, type, resource)
		    .p);
}

#define LIMIT(n) "{\\\"enable\\\":true,\\\"threshold\\\":" n ",\\\"behaviorType\\\":0,\\\"bodyEncoding\\\":0," \
	"\\\"responseStatusCode\\\":429}"
#define LIMIT_OFF "{\\\"enable\\\":false,\\\"threshold\\\":1,\\\"behaviorType\\\":0,\\\"bodyEncoding\\\":0," \
	"\\\"responseStatusCode\\\":429}"
#define CORS(enable)                                                                                         \
	"{\\\"enable\\\":" enable ",\\\"allowOrigins\\\":\\\"*\\\",\\\"allowMethods\\\":[\\\"GET\\\"],"      \
	"\\\"allowHeaders\\\":\\\"*\\\",\\\"exposeHeaders\\\":\\\"*\\\",\\\"allowCredentials\\\":false,"     \
	"\\\"timeUnit\\\":\\\"s\\\",\\\"unitNum\\\":1}"

#define PATH(type, value) "'match':{'path':{'type':'" type "','value':'" value "'}}"
#define TO(service) "'backend':{'scene':'SingleService','services':[{'serviceId':'" service "'}]}"

/* ---------- what workers see ---------- */

static inline const struct snapshot *now(void)
{
	compile_publish(node.compiler);
	assert_non_null(node.views[0]);
	assert_ptr_equal(node.views[0]->snapshot, node.views[1]->snapshot);
	return node.views[0]->snapshot;
}

static inline const struct binding *binding_at(const char *address)
{
	const char *key = expand(address);
	struct part *p = pmap_get(now()->bindings, str_of(key));

	return p ? CONTAINER(p, struct binding, part) : NULL;
}

static inline const struct site *site_of(const char *host)
{
	const struct binding *b = binding_at("127.0.0.1:PORT");

	return b ? router_site(b, str_of(host)) : NULL;
}

static inline const struct route *route_of(const char *host, const char *path)
{
	const struct site *site = site_of(host);
	struct message req = {
		.arena = &node.arena, .method = METHOD_GET, .method_name = STR("GET"), .path = str_of(path)
	};

	return site ? router_match(now(), site, &req, (struct str){ NULL, 0 }) : NULL;
}

static inline const char *id_of(const char *host, const char *path)
{
	const struct route *r = route_of(host, path);

	return r ? r->id.p : "";
}

static inline const struct step *step_of(const char *path)
{
	return &route_of("x", path)->policies->legs[LEG_REQUEST].steps[0];
}

static inline const struct service *service_of(const char *id)
{
	struct part *p = pmap_get(now()->services, str_of(id));

	return p ? CONTAINER(p, struct service, part) : NULL;
}

static inline struct status status_of(const char *attachment)
{
	return compile_attachment_status(node.compiler, str_of(attachment));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
