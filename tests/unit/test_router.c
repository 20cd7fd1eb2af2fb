/* test_router.c -- hosts and paths lead where the product contract says. */
/* room: proxy */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#undef fail
#include "core/mem.h"
#include "proxy/router.h"

/* A configuration of one site: vhost 1 belongs to its domain, vhost 2 to its gateway. */
static struct fixture {
	struct arena arena;
	struct snapshot snapshot;
	struct vhost domain, gateway;
	struct site site;
} f;

static void keep(struct part *p)
{
	(void)p;                                           /* all parts live in the arena */
}

static int setup(void **state)
{
	(void)state;
	f = (struct fixture){ 0 };
	f.snapshot.paths = pmap_new();
	f.domain.number = 1;
	f.gateway.number = 2;
	f.site.domain_routes = &f.domain;
	f.site.gateway_routes = &f.gateway;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	pmap_drop(f.snapshot.paths);
	arena_free(&f.arena);
	return 0;
}

static struct str key_path(const struct route *r)
{
	struct sbuf out = { 0 };
	struct str rest = r->path, part, key;
	bool first = true;

	if (r->match != MATCH_TEMPLATE)
		return r->path;
	while (str_split(&rest, '/', &part)) {
		if (!first)
			sbuf_addc(&out, '/');
		sbuf_add(&out, part.n && part.p[0] == '{' ? STR("{}") : part);
		first = false;
	}
	key = arena_copy(&f.arena, sbuf_str(&out));
	sbuf_free(&out);
	return key;
}

static void note_template(struct vhost *v, struct str path)
{
	struct template_mask *masks = NEW_N(&f.arena, struct template_mask, v->n_templates + 1), mask = { 0 };
	struct str part;

	path.p++, path.n--;
	while (str_split(&path, '/', &part)) {
		if (part.n && part.p[0] == '{')
			mask.parameters |= UINT64_C(1) << mask.segments;
		mask.segments++;
	}
	if (v->n_templates)
		memcpy(masks, v->templates, v->n_templates * sizeof(*masks));
	masks[v->n_templates++] = mask;
	v->templates = masks;
}

static void note(struct vhost *v, struct route *r)
{
	unsigned depth = router_depth(r->path);
	bool slash = r->path.n > 1 && r->path.p[r->path.n - 1] == '/';

	v->has_nocase |= r->ignore_case;
	v->has_exact |= r->match == MATCH_EXACT;
	if (r->match == MATCH_PREFIX)
		*(slash ? &v->slash_depths : &v->prefix_depths) |= UINT64_C(1) << (depth < 63 ? depth : 63);
	if (r->match == MATCH_TEMPLATE)
		note_template(v, r->path);
	if (r->match == MATCH_REGEX) {
		struct route **list = NEW_N(&f.arena, struct route *, v->n_regexes + 1);

		if (v->n_regexes)
			memcpy(list, v->regexes, v->n_regexes * sizeof(struct route *));
		list[v->n_regexes++] = r;
		v->regexes = list;
	}
}

/* Candidates are tried in the order they were added. */
static struct route *add(struct vhost *v, enum match_type match, const char *path, bool ignore_case)
{
	static const char kinds[2][4] = { { 'E', 'P', 0, 'T' }, { 'e', 'p', 0, 't' } };
	struct route *r = NEW(&f.arena, struct route);
	struct problem why;

	r->path = str_of(path);
	r->match = match;
	r->ignore_case = ignore_case;
	note(v, r);
	if (match == MATCH_REGEX) {
		r->regex = regex_compile(&f.arena, r->path, ignore_case, &why);
		assert_non_null(r->regex);
		return r;
	}
	struct str key = router_key(&f.arena, kinds[ignore_case][match], v->number, key_path(r));
	struct part *found = pmap_get(f.snapshot.paths, key);
	struct candidates *old = found ? CONTAINER(found, struct candidates, part) : NULL;
	unsigned n = old ? old->n : 0;
	struct candidates *all = arena_alloc(&f.arena, sizeof(*all) + (n + 1) * sizeof(all->routes[0]));

	all->part = (struct part){ 1, keep };
	all->n = n + 1;
	for (unsigned i = 0; i < n; i++)
		all->routes[i] = old->routes[i];
	all->routes[n] = r;
	f.snapshot.paths = pmap_set(f.snapshot.paths, key, &all->part);
	return r;
}

static struct message request(const char *path)
{
	return (struct message){
		.arena = &f.arena, .method = METHOD_GET, .method_name = STR("GET"), .path = str_of(path)
	};
}

static const struct route *match(const struct message *req)
{
	return router_match(&f.snapshot, &f.site, req, (struct str){ NULL, 0 });
}

static const struct route *find(const char *path)
{
	struct message req = request(path);

	return match(&req);
}

static void test_depth(void **state)
{
	(void)state;
	assert_int_equal(router_depth(STR("/")), 0);
	assert_int_equal(router_depth(STR("/a")), 1);
	assert_int_equal(router_depth(STR("/a/")), 2);
	assert_int_equal(router_depth(STR("/a/b")), 2);
}

static void test_prefix_matches_whole_segments(void **state)
{
	const struct route *app = add(&f.gateway, MATCH_PREFIX, "/app", false);
	const struct route *slash = add(&f.gateway, MATCH_PREFIX, "/dir/", false);

	(void)state;
	assert_ptr_equal(find("/app"), app);
	assert_ptr_equal(find("/app/"), app);
	assert_ptr_equal(find("/app/x/y/z"), app);
	assert_null(find("/apple"));
	assert_null(find("/ap"));
	assert_null(find("/"));
	assert_null(find("/App"));
	assert_ptr_equal(find("/dir/x"), slash);
	assert_ptr_equal(find("/dir/"), slash);
	assert_null(find("/dir"));
	assert_null(find("/director/x"));
	assert_null(find("*"));
}

static void test_longest_prefix_wins(void **state)
{
	const struct route *root = add(&f.gateway, MATCH_PREFIX, "/", false);
	const struct route *a = add(&f.gateway, MATCH_PREFIX, "/a", false);
	const struct route *a_slash = add(&f.gateway, MATCH_PREFIX, "/a/", false);
	const struct route *ab = add(&f.gateway, MATCH_PREFIX, "/a/b", false);
	const struct route *abcd = add(&f.gateway, MATCH_PREFIX, "/a/b/c/d", false);

	(void)state;
	assert_ptr_equal(find("/"), root);
	assert_ptr_equal(find("/z"), root);
	assert_ptr_equal(find("/a"), a);
	assert_ptr_equal(find("/a/"), a_slash);
	assert_ptr_equal(find("/a/x"), a_slash);
	assert_ptr_equal(find("/a/b"), ab);
	assert_ptr_equal(find("/a/b/c"), ab);
	assert_ptr_equal(find("/a/b/c/d/e"), abcd);
	assert_ptr_equal(find("/a/b/c/dd"), ab);
}

static void test_exact_then_template_then_prefix_then_regex(void **state)
{
	const struct route *regex = add(&f.gateway, MATCH_REGEX, "/u/.*", false);
	const struct route *prefix = add(&f.gateway, MATCH_PREFIX, "/u/long", false);
	const struct route *template = add(&f.gateway, MATCH_TEMPLATE, "/u/{id}", false);
	const struct route *exact = add(&f.gateway, MATCH_EXACT, "/u/me", false);

	(void)state;
	assert_ptr_equal(find("/u/me"), exact);
	assert_ptr_equal(find("/u/42"), template);
	assert_ptr_equal(find("/u/long"), template);
	assert_ptr_equal(find("/u/long/x"), prefix);
	assert_ptr_equal(find("/u/other/x"), regex);
	assert_ptr_equal(find("/u/"), regex);
	assert_null(find("/u"));
	assert_null(find("/x/u/1"));
}

static void test_template_segments_are_not_empty(void **state)
{
	const struct route *one = add(&f.gateway, MATCH_TEMPLATE, "/{a}", false);
	const struct route *middle = add(&f.gateway, MATCH_TEMPLATE, "/u/{id}/x", false);
	const struct route *slash = add(&f.gateway, MATCH_TEMPLATE, "/s/{id}/", false);

	(void)state;
	assert_ptr_equal(find("/q"), one);
	assert_null(find("/"));
	assert_null(find("/q/"));
	assert_ptr_equal(find("/u/1/x"), middle);
	assert_null(find("/u/1/y"));
	assert_null(find("/u/1"));
	assert_null(find("/u/1/x/"));
	assert_ptr_equal(find("/s/1/"), slash);
	assert_null(find("/s/1"));
}

static void test_domain_before_gateway(void **state)
{
	const struct route *wide = add(&f.gateway, MATCH_EXACT, "/a/b", false);
	const struct route *narrow = add(&f.domain, MATCH_PREFIX, "/a", false);
	const struct route *rest = add(&f.gateway, MATCH_PREFIX, "/", false);

	(void)state;
	assert_ptr_equal(find("/a/b"), narrow);
	assert_ptr_equal(find("/b"), rest);
	f.site.domain_routes = NULL;
	assert_ptr_equal(find("/a/b"), wide);
}

static void test_case(void **state)
{
	const struct route *exact = add(&f.gateway, MATCH_EXACT, "/Mixed/Case", true);
	const struct route *prefix = add(&f.gateway, MATCH_PREFIX, "/Pre/Fix", true);
	const struct route *sharp = add(&f.gateway, MATCH_PREFIX, "/pre/fix", false);
	const struct route *template = add(&f.gateway, MATCH_TEMPLATE, "/T/{id}", true);
	const struct route *regex = add(&f.gateway, MATCH_REGEX, "/r[0-9]+", true);

	(void)state;
	assert_ptr_equal(find("/mixed/case"), exact);
	assert_ptr_equal(find("/MIXED/CASE"), exact);
	assert_ptr_equal(find("/pre/fix/a"), sharp);
	assert_ptr_equal(find("/PRE/fix/a"), prefix);
	assert_ptr_equal(find("/t/Q"), template);
	assert_ptr_equal(find("/R12"), regex);
	assert_null(find("/M[xed/case"));                  /* '[' and '{' differ from each other like letters do */
}

static void test_methods(void **state)
{
	struct route *r = add(&f.gateway, MATCH_PREFIX, "/m", false);
	static struct str others[] = { { "PURGE", 5 } };
	struct message req = request("/m");

	(void)state;
	r->methods = 1u << METHOD_POST | 1u << METHOD_PUT;
	assert_null(match(&req));
	req.method = METHOD_POST;
	assert_ptr_equal(match(&req), r);
	req.method = METHOD_OTHER;
	req.method_name = STR("PURGE");
	assert_null(match(&req));
	r->other_methods = others;
	r->n_other_methods = 1;
	assert_ptr_equal(match(&req), r);
	r->methods = 0;
	req.method = METHOD_GET;
	assert_null(match(&req));
	req.method_name = STR("BREW");
	req.method = METHOD_OTHER;
	assert_null(match(&req));
}

static void test_preflight_uses_the_method_asked_for(void **state)
{
	struct route *get = add(&f.gateway, MATCH_PREFIX, "/m", false);
	struct message req = request("/m");

	(void)state;
	get->methods = 1u << METHOD_GET;
	req.method = METHOD_OPTIONS;
	assert_null(match(&req));
	assert_ptr_equal(router_match(&f.snapshot, &f.site, &req, STR("GET")), get);
	assert_null(router_match(&f.snapshot, &f.site, &req, STR("PUT")));
}

static void test_conditions_fall_through_to_the_next_candidate(void **state)
{
	struct route *picky = add(&f.gateway, MATCH_EXACT, "/c", false);
	const struct route *plain = add(&f.gateway, MATCH_EXACT, "/c", false);
	struct problem why;
	struct condition conditions[] = {
		{ STR("X-Env"), STR("blue"), MATCH_EXACT, NULL },
		{ STR("x-build"), STR("v2."), MATCH_PREFIX, NULL },
		{ STR("x-user"), STR("u[0-9]+"), MATCH_REGEX, regex_compile(&f.arena, STR("u[0-9]+"), false, &why) },
	};
	static const struct {
		struct str env, build, user;
		bool picked;
	} cases[] = {
		{ STR("blue"), STR("v2.7"), STR("u12"), true },
		{ STR("Blue"), STR("v2.7"), STR("u12"), false },
		{ STR("blue"), STR("v1.7"), STR("u12"), false },
		{ STR("blue"), STR("v2.7"), STR("u12x"), false },
		{ STR(""), STR("v2.7"), STR("u12"), false },
		{ { NULL, 0 }, STR("v2.7"), STR("u12"), false },
	};

	(void)state;
	picky->headers = conditions;
	picky->n_headers = 3;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct message req = request("/c");

		if (cases[i].env.p)
			message_add(&req, STR("x-env"), cases[i].env);
		message_add(&req, STR("X-Build"), cases[i].build);
		message_add(&req, STR("x-user"), cases[i].user);
		assert_ptr_equal(match(&req), cases[i].picked ? picky : plain);
	}
}

static void test_queries_are_decoded(void **state)
{
	struct route *r = add(&f.gateway, MATCH_PREFIX, "/q", false);
	struct condition conditions[] = { { STR("tag"), STR("a b/c"), MATCH_EXACT, NULL } };
	static const struct {
		const char *query;
		bool matches;
	} cases[] = {
		{ "tag=a%20b%2Fc", true },
		{ "x=1&tag=a+b/c&tag=z", true },
		{ "tag=a%20b", false },
		{ "tagg=a+b/c", false },
		{ "tag=a%2", false },
		{ "t%61g=a+b/c", true },
		{ "t%6=1&tag=a+b/c", true },
		{ "tag=&tag=a+b/c", false },
		{ "tag", false },
		{ "", false },
	};

	(void)state;
	r->queries = conditions;
	r->n_queries = 1;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct message req = request("/q");

		req.query = str_of(cases[i].query);
		assert_ptr_equal(match(&req), cases[i].matches ? r : NULL);
	}
	assert_null(find("/q"));
}

/* 200 segments and 30,000 bytes: nothing is cut, nothing overflows. */
static void test_long_paths(void **state)
{
	const struct route *deep, *slash, *shallow = add(&f.gateway, MATCH_PREFIX, "/s", false);
	struct sbuf path = { 0 };

	(void)state;
	for (int i = 0; i < 100; i++)
		sbuf_addf(&path, "/s");
	deep = add(&f.gateway, MATCH_PREFIX, path.p, false);
	assert_ptr_equal(find(path.p), deep);
	sbuf_addc(&path, '/');
	slash = add(&f.gateway, MATCH_PREFIX, arena_copy(&f.arena, sbuf_str(&path)).p, false);
	assert_ptr_equal(find(path.p), slash);
	sbuf_addf(&path, "Q");
	for (int i = 0; i < 30000; i++)
		sbuf_addf(&path, i % 300 ? "s" : "/");
	assert_ptr_equal(find(path.p), slash);
	path.n = 30;
	path.p[30] = 0;
	assert_ptr_equal(find(path.p), shallow);
	sbuf_free(&path);
}

/* Every path of 4 segments over a small alphabet against a plain search of the rules. */
static void test_against_plain_search(void **state)
{
	static const char *const rules[] = { "/a", "/a/b", "/b/", "/a/b/a", "/b/b/b/b", "/a/a/", "/b/a" };
	const struct route *routes[7];
	static const char *const words[] = { "", "a", "b", "ab" };

	(void)state;
	for (unsigned i = 0; i < 7; i++)
		routes[i] = add(i % 2 ? &f.domain : &f.gateway, MATCH_PREFIX, rules[i], false);
	for (unsigned n = 0; n < 256; n++) {
		char path[32] = "";
		size_t size = 0, best_size = 0;
		const struct route *best = NULL;

		for (unsigned at = n; at && words[at % 4][0]; at /= 4)
			size += (size_t)snprintf(path + size, sizeof(path) - size, "/%s", words[at % 4]);
		if (n % 3 == 0 || size == 0)
			snprintf(path + size, sizeof(path) - size, "/");
		for (unsigned i = 0; i < 7; i++) {
			size_t m = strlen(rules[i]);
			bool whole = rules[i][m - 1] == '/' || path[m] == 0 || path[m] == '/';

			if (strncmp(path, rules[i], m) != 0 || !whole || m + 100 * (i % 2) <= best_size)
				continue;
			best = routes[i];
			best_size = m + 100 * (i % 2);
		}
		assert_ptr_equal(find(path), best);
	}
}

static void test_hosts(void **state)
{
	static const char *const names[] = { "a.example.com", "*.example.com", "*.b.example.com", "other.org" };
	struct site sites[4], any = { 0 };
	struct binding b = { .hosts = pmap_new() };

	(void)state;
	for (unsigned i = 0; i < 4; i++) {
		sites[i] = (struct site){ .part = { 1, keep } };
		b.hosts = pmap_set(b.hosts, str_of(names[i]), &sites[i].part);
	}
	assert_ptr_equal(router_site(&b, STR("a.example.com")), &sites[0]);
	assert_ptr_equal(router_site(&b, STR("A.Example.COM")), &sites[0]);
	assert_ptr_equal(router_site(&b, STR("a.example.com.")), &sites[0]);
	assert_ptr_equal(router_site(&b, STR("z.example.com")), &sites[1]);
	assert_ptr_equal(router_site(&b, STR("y.z.example.com")), &sites[1]);
	assert_ptr_equal(router_site(&b, STR("x.y.B.example.com")), &sites[2]);
	assert_ptr_equal(router_site(&b, STR("b.example.com")), &sites[1]);
	assert_null(router_site(&b, STR("example.com")));
	assert_null(router_site(&b, STR("aother.org")));
	assert_null(router_site(&b, STR("127.0.0.1")));
	assert_null(router_site(&b, STR("")));
	b.any = &any;
	assert_ptr_equal(router_site(&b, STR("127.0.0.1")), &any);
	assert_ptr_equal(router_site(&b, STR("[::1]")), &any);
	assert_ptr_equal(router_site(&b, STR("")), &any);
	assert_ptr_equal(router_site(&b, STR("other.org")), &sites[3]);
	pmap_drop(b.hosts);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_depth),
		cmocka_unit_test_setup_teardown(test_prefix_matches_whole_segments, setup, teardown),
		cmocka_unit_test_setup_teardown(test_longest_prefix_wins, setup, teardown),
		cmocka_unit_test_setup_teardown(test_exact_then_template_then_prefix_then_regex, setup, teardown),
		cmocka_unit_test_setup_teardown(test_template_segments_are_not_empty, setup, teardown),
		cmocka_unit_test_setup_teardown(test_domain_before_gateway, setup, teardown),
		cmocka_unit_test_setup_teardown(test_case, setup, teardown),
		cmocka_unit_test_setup_teardown(test_methods, setup, teardown),
		cmocka_unit_test_setup_teardown(test_preflight_uses_the_method_asked_for, setup, teardown),
		cmocka_unit_test_setup_teardown(test_conditions_fall_through_to_the_next_candidate, setup, teardown),
		cmocka_unit_test_setup_teardown(test_queries_are_decoded, setup, teardown),
		cmocka_unit_test_setup_teardown(test_long_paths, setup, teardown),
		cmocka_unit_test_setup_teardown(test_against_plain_search, setup, teardown),
		cmocka_unit_test_setup_teardown(test_hosts, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
