/*
 * test_compile_changes.c -- any sequence of changes, refusals and undoings ends where a fresh start would;
 * workers may read meanwhile; a change costs what it changes. room: control
 */
#include "compile_node.h"
#include <sched.h>
#include "core/thread.h"

enum { SEEDS = 12, STEPS = 150, ROUTES = 10000, CHANGES = 50, LIVE_CHANGES = 300 };

/* ---------- a small world of resources, each in some variants ---------- */

#define RATE_POLICY(config) "{'name':'limit','className':'RateLimit','config':\"" config "\"}"
#define CORS_POLICY(enable) "{'name':'cors','className':'Cors','config':\"" CORS(enable) "\"}"
#define OWNED(name) "'name':'" name "','gatewayId':'gw-1','environmentId':'env-1'"
#define ON(policy, type, ids) \
	"{'policyId':'" policy "','attachResourceType':'" type "','attachResourceIds':[" ids "]," \
	"'environmentId':'env-1','gatewayId':'gw-1'}"
#define GATE(id, ip, hosts) \
	"{'meshId':'default','cluster':'local','gateway':'" id "','namespace':'default','elbId':'e'," \
	"'externalPort':{'number':'PORT','protocol':'HTTP','hosts':" hosts "},'serviceType':'LoadBalancer'," \
	"'externalIPs':['" ip "'],'maxProtocolVersion':'TLSV1_3','minProtocolVersion':'TLSV1_2'}"
#define SERVICE(addresses) "{'name':'s','gatewayId':'gw-1','sourceType':'VIP','addresses':[" addresses "]}"
#define OPERATION(name, method, path) "{" OWNED(name) ",'httpApiId':'api-1','method':'" method "','path':'" path "'}"

static const struct thing {
	enum resource_kind kind;
	const char *id;
	const char *variants[4];
} things[] = {
	{ RESOURCE_GATEWAY,
	  "gw-1",
	  { GATE("gw-1", "127.0.0.1", "['*']"), GATE("gw-1", "127.0.0.1", "['a.test']"),
	    GATE("gw-1", "127.0.0.2", "['*','b.test']") } },
	{ RESOURCE_GATEWAY,
	  "gw-2",
	  { GATE("gw-2", "127.0.0.1", "['b.test']"), GATE("gw-2", "127.0.0.1", "['*']") } },
	{ RESOURCE_DOMAIN, "dom-1", { "{'name':'a.test','gatewayId':'gw-1'}" } },
	{ RESOURCE_DOMAIN, "dom-2", { "{'name':'*.test','gatewayId':'gw-1'}" } },
	{ RESOURCE_SERVICE, "svc-1", { SERVICE("'10.0.0.1:1','10.0.0.2:2'"), SERVICE("'10.0.0.2:2'") } },
	{ RESOURCE_ROUTE,
	  "route-1",
	  { "{" OWNED("r1") "," PATH("Prefix", "/a") "," TO("svc-1") "}",
	    "{" OWNED("r1") ",'domainIds':['dom-1']," PATH("Exact", "/a/b") "}",
	    "{" OWNED("r1") ",'domainIds':['dom-1','dom-2']," PATH("Regex", "/a/.*") "}" } },
	{ RESOURCE_ROUTE,
	  "route-2",
	  { "{" OWNED("r2") "," PATH("Prefix", "/a/") "}", "{" OWNED("r2") "," PATH("Regex", "(") "}",
	    "{" OWNED("r2") ",'match':{'path':{'type':'Prefix','value':'/A'},'ignoreUriCase':true}}" } },
	{ RESOURCE_ROUTE,
	  "route-3",
	  { "{" OWNED("r3") "," PATH("Prefix", "/a") "}",
	    "{" OWNED("r3") ",'domainIds':['dom-2']," PATH("Prefix", "/") "}" } },
	{ RESOURCE_API,
	  "api-1",
	  { "{" OWNED("api") ",'basePath':'/v'," TO("svc-1") "}",
	    "{" OWNED("api") ",'domainIds':['dom-1'],'basePath':'/a'," TO("svc-1") "}",
	    "{" OWNED("api") ",'basePath':'/v'}" } },
	{ RESOURCE_OPERATION,
	  "op-1",
	  { OPERATION("o1", "GET", "/{id}"), OPERATION("o1", "POST", "/{id}/x") } },
	{ RESOURCE_OPERATION, "op-2", { OPERATION("o2", "GET", "/b") } },
	{ RESOURCE_POLICY,
	  "policy-1",
	  { RATE_POLICY(LIMIT("5")), RATE_POLICY(LIMIT("6")), RATE_POLICY(LIMIT_OFF), RATE_POLICY("{}") } },
	{ RESOURCE_POLICY, "policy-2", { RATE_POLICY(LIMIT("7")), RATE_POLICY(LIMIT_OFF) } },
	{ RESOURCE_POLICY, "policy-3", { CORS_POLICY("true"), CORS_POLICY("false") } },
	{ RESOURCE_ATTACHMENT,
	  "pr-1",
	  { ON("policy-1", "Route", "'route-1','route-2'"), ON("policy-1", "Gateway", "'gw-1'") } },
	{ RESOURCE_ATTACHMENT,
	  "pr-2",
	  { ON("policy-1", "Api", "'api-1'"), ON("policy-2", "Domain", "'dom-1'") } },
	{ RESOURCE_ATTACHMENT,
	  "pr-3",
	  { ON("policy-2", "Operation", "'op-1','op-2'"), ON("policy-3", "Route", "'route-3'") } },
	{ RESOURCE_ATTACHMENT,
	  "pr-4",
	  { ON("policy-2", "Service", "'svc-1'"), ON("policy-3", "Gateway", "'gw-1'") } },
	{ RESOURCE_ATTACHMENT,
	  "pr-5",
	  { ON("policy-2", "Route", "'route-1'"), ON("policy-3", "Domain", "'dom-2','dom-1'") } },
};
enum { THINGS = sizeof(things) / sizeof(things[0]) };

static uint32_t draw(uint32_t *seed, uint32_t below)
{
	*seed = *seed * 1664525u + 1013904223u;
	return (*seed >> 8) % below;
}

static struct resource *make_variant(const struct thing *t, uint32_t *seed)
{
	unsigned n = 0;

	while (n < 4 && t->variants[n])
		n++;
	return make(t->kind, t->id, t->variants[draw(seed, n)]);
}

/* A change that may be refused; now and then it is undone again. */
static void change_something(uint32_t *seed)
{
	const struct thing *t = &things[draw(seed, THINGS)];
	struct resource *before = model_get(node.model, t->kind, str_of(t->id));
	struct resource *after = before && draw(seed, 3) == 0 ? NULL : make_variant(t, seed);

	resource_hold(before);
	resource_hold(after);
	if (apply(before, after) && draw(seed, 4) == 0) {
		resource_hold(before);
		assert_true(apply(after, before));
	}
	resource_drop(before);
	resource_drop(after);
}

/* ---------- all that can be seen of a configuration ---------- */

static void describe_policies(struct sbuf *out, const struct policies *p)
{
	sbuf_addf(out, " <%llx", (unsigned long long)p->hides);
	for (unsigned leg = 0; leg < LEG_COUNT; leg++)
		for (unsigned i = 0; i < p->legs[leg].n; i++) {
			const struct step *s = &p->legs[leg].steps[i];

			sbuf_addf(out, " %u:%.*s@%.*s/%u.%u", leg, STR_FMT(s->attachment_id),
				  STR_FMT(s->resource_id), s->order, s->level);
			assert_true((s->cell != NULL) == (s->class->cell_size > 0));
			assert_true(leg == LEG_CONNECT || s->run);
		}
	SBUF_LIT(out, ">");
}

static void describe_site(struct sbuf *out, const struct snapshot *snapshot, const struct site *site)
{
	static const char *const paths[] = { "/", "/a", "/a/", "/a/b", "/A/c", "/v", "/v/7", "/v/b", "/v/7/x" };
	struct message req = { .arena = &node.arena, .method = METHOD_GET, .method_name = STR("GET") };

	sbuf_addf(out, "%.*s/%.*s", STR_FMT(site->gateway->id), STR_FMT(site->domain_id));
	describe_policies(out, site->gateway->policies);
	describe_policies(out, site->domain_policies);
	for (unsigned i = 0; i < 2 * sizeof(paths) / sizeof(paths[0]); i++) {
		req.path = str_of(paths[i / 2]);
		req.method = i % 2 ? METHOD_POST : METHOD_GET;
		const struct route *r = router_match(snapshot, site, &req, (struct str){ NULL, 0 });

		if (!r)
			continue;
		sbuf_addf(out, "\n  %u %.*s -> %.*s %.*s (%u)", req.method, STR_FMT(req.path), STR_FMT(r->id),
			  STR_FMT(r->path), r->n_targets);
		describe_policies(out, r->policies);
	}
}

static void describe_binding(struct sbuf *out, const struct snapshot *snapshot, const char *address)
{
	static const char *const hosts[] = { "a.test", "b.test", "c.test", "x.a.test", "other" };
	const struct binding *b = binding_at(address);

	if (!b)
		return;
	sbuf_addf(out, "%s only %.*s\n", address, STR_FMT(b->only ? b->only->id : STR("-")));
	for (unsigned i = 0; i < sizeof(hosts) / sizeof(hosts[0]); i++) {
		const struct site *site = router_site(b, str_of(hosts[i]));

		sbuf_addf(out, " %s: ", hosts[i]);
		if (site)
			describe_site(out, snapshot, site);
		SBUF_LIT(out, "\n");
	}
}

static void describe_status(struct sbuf *out, const struct thing *t)
{
	struct status status = { 0 };

	if (!model_get(node.model, t->kind, str_of(t->id)))
		return;
	if (t->kind == RESOURCE_GATEWAY)
		status = compile_gateway_status(node.compiler, str_of(t->id));
	else if (t->kind == RESOURCE_ATTACHMENT)
		status = compile_attachment_status(node.compiler, str_of(t->id));
	else
		return;
	sbuf_addf(out, "%s %s %.*s %u\n", t->id, phase_name(status.phase), STR_FMT(status.reason),
		  status.n_addresses);
}

static struct str describe(void)
{
	struct sbuf out = { 0 };
	const struct snapshot *snapshot = now();
	const struct service *s = service_of("svc-1");
	struct str text;

	describe_binding(&out, snapshot, "127.0.0.1:PORT");
	describe_binding(&out, snapshot, "127.0.0.2:PORT");
	for (unsigned i = 0; s && i < s->n_endpoints; i++) {
		sbuf_addf(&out, "endpoint %.*s\n", STR_FMT(s->endpoints[i].text));
		assert_false(s->endpoints[i].cell->retired);
	}
	if (s)
		describe_policies(&out, s->policies);
	for (unsigned i = 0; i < THINGS; i++)
		describe_status(&out, &things[i]);
	sbuf_addf(&out, "%zu bindings, %zu keys, %zu services, %u degraded\n", pmap_count(snapshot->bindings),
		  pmap_count(snapshot->paths), pmap_count(snapshot->services), compile_degraded(node.compiler));
	text = arena_copy(&node.arena, sbuf_str(&out));
	sbuf_free(&out);
	return text;
}

/* The same model, compiled from nothing. */
static void start_again(void)
{
	stop_compiler();
	start_compiler(adopt);
	for (unsigned kind = 0; kind < RESOURCE_COUNT; kind++) {
		struct resource *r;

		for (size_t i = 0; (r = model_next(node.model, (enum resource_kind)kind, &i));) {
			struct change change = { .after = r };

			assert_true(compile_change(node.compiler, &change, &why));
		}
	}
}

static void test_any_changes_end_like_a_fresh_start(void **state)
{
	for (uint32_t first = 1; first <= SEEDS; first++) {
		uint32_t seed = first;
		struct str grown, fresh;

		setup(state);
		for (unsigned i = 0; i < STEPS; i++) {
			change_something(&seed);
			if (draw(&seed, 3) == 0)
				compile_publish(node.compiler);
		}
		/* Something to publish even when everything is gone. */
		put(RESOURCE_SERVICE, "svc-2", SERVICE("'10.0.0.3:3'"));
		grown = describe();
		start_again();
		fresh = describe();
		if (!str_equal(grown, fresh))
			fprintf(stderr, "seed %u\n--- grown\n%s\n--- fresh\n%s\n", first, grown.p, fresh.p);
		assert_true(str_equal(grown, fresh));
		teardown(state);
	}
}

/* ---------- workers that read meanwhile ---------- */

static atomic_bool stop;

static void let_them(void *arg, unsigned worker)
{
	(void)arg;
	(void)worker;
}

static void close_sockets(void *arg, const struct snapshot *s)
{
	for (unsigned i = 0; i < s->n_listeners; i++)
		close(s->listeners[i].fds[*(const unsigned *)arg]);
}

static void *read_on(void *arg)
{
	const unsigned worker = *(const unsigned *)arg;
	struct mailbox *box = &node.boxes[worker];
	struct view *current = NULL, *pinned = NULL;
	struct str key = { NULL, 0 };
	struct arena arena = { 0 };
	struct sbuf text = { 0 };
	unsigned seen = 0;

	sbuf_addf(&text, "127.0.0.1:%s", node.port);
	key = sbuf_str(&text);
	metric_thread(worker + 1);
	while (!atomic_load(&stop)) {
		struct view *before = current;

		current = snapshot_adopt(current, box, close_sockets, arg);
		if (current == before) {
			sched_yield();
			continue;
		}
		/* Every fourth view is kept in use for a while. */
		if (seen++ % 4 == 0) {
			if (pinned && --pinned->exchanges == 0)
				snapshot_unpin(pinned, current, box);
			pinned = current;
			pinned->exchanges++;
		}
		const struct snapshot *s = seen % 2 ? current->snapshot : pinned->snapshot;
		struct part *p = pmap_get(s->bindings, key);
		const struct site *site = p ? router_site(CONTAINER(p, struct binding, part), STR("a.test")) : NULL;
		struct message req = { .arena = &arena, .method = METHOD_GET, .path = STR("/a/b") };
		const struct route *r = site ? router_match(s, site, &req, (struct str){ NULL, 0 }) : NULL;

		for (unsigned i = 0; r && i < r->policies->legs[LEG_REQUEST].n; i++)
			policy_count(&r->policies->legs[LEG_REQUEST].steps[i], 0);
	}
	current = snapshot_adopt(current, box, close_sockets, arg);
	if (pinned) {
		pinned->exchanges--;
		snapshot_unpin(pinned, current, box);
	}
	snapshot_unpin(current, NULL, box);
	arena_free(&arena);
	sbuf_free(&text);
	return NULL;
}

static void test_workers_read_while_control_changes(void **state)
{
	static const unsigned numbers[WORKERS] = { 0, 1 };
	pthread_t threads[WORKERS];
	uint32_t seed = 7;
	uint64_t version = 0;

	(void)state;
	compiler_free(node.compiler);
	start_compiler(let_them);
	atomic_store(&stop, false);
	for (unsigned i = 0; i < WORKERS; i++)
		threads[i] = thread_start("reader", read_on, (void *)(uintptr_t)&numbers[i]);
	for (unsigned i = 0; i < LIVE_CHANGES; i++) {
		change_something(&seed);
		version = compile_publish(node.compiler);
		for (unsigned at = 0; at < WORKERS; at++)
			assert_true(atomic_load(&node.boxes[at].adopted) >= version);
	}
	assert_true(version > LIVE_CHANGES / 2);
	atomic_store(&stop, true);
	for (unsigned i = 0; i < WORKERS; i++)
		pthread_join(threads[i], NULL);
	compile_reap(node.compiler);
}

/* ---------- cost ---------- */

/* 10,000 routes at once, and a change of one policy costs what it changes. */
static void test_cost_of_changes(void **state)
{
	int64_t begin, load, each;

	(void)state;
	put_gateway("gw-1", "['*']", "['127.0.0.1']");
	put_policy("policy-1", "RateLimit", LIMIT("5"));
	for (unsigned i = 0; i < ROUTES; i++) {
		char id[16], body[80];

		snprintf(id, sizeof(id), "route-%u", i);
		snprintf(body, sizeof(body), PATH("Prefix", "/team/%u/x"), i);
		put_route(id, body);
	}
	begin = clock_now_us();
	now();
	load = clock_now_us() - begin;
	assert_string_equal(id_of("x", "/team/777/x/y"), "route-777");
	attach("pr-1", "policy-1", "Route", "route-777");
	begin = clock_now_us();
	for (unsigned i = 0; i < CHANGES; i++) {
		put_policy("policy-1", "RateLimit", i % 2 ? LIMIT("5") : LIMIT("6"));
		now();
	}
	each = (clock_now_us() - begin) / CHANGES;
	print_message("settling %d routes: %lld us; one policy change: %lld us\n", ROUTES, (long long)load,
		      (long long)each);
	assert_true(each < load / 10);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_any_changes_end_like_a_fresh_start),
		TEST(test_workers_read_while_control_changes),
		TEST(test_cost_of_changes),
	};

	return cmocka_run_group_tests(tests, start, NULL);
}
