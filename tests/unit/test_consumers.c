/*
 * test_consumers.c -- consumers and rules in snapshots: what they are found by, what is one consumer's only, that any
 * sequence of changes ends where a fresh start would, and that 100,000 cost what ten do. room: control
 */
#include "compile_node.h"
#include <sched.h>
#include "core/crypto.h"
#include "core/thread.h"
#include "proxy/consumers.h"

enum { SEEDS = 10, STEPS = 200, LIVE_CHANGES = 300, MANY = 100000, FEW = 10, LOOKUPS = 20000, CHANGES = 50 };

/* ---------- documents ---------- */

static const char *digest_hex(const char *key)
{
	uint8_t digest[32];
	struct sbuf out = { 0 };
	struct str text;

	crypto_sha256(str_of(key), digest);
	for (unsigned i = 0; i < sizeof(digest); i++)
		sbuf_addf(&out, "%02x", digest[i]);
	text = arena_copy(&node.arena, sbuf_str(&out));
	sbuf_free(&out);
	return text.p;
}

static const char *api_keys(const char *one, const char *two, const char *source)
{
	const char *second = two ? arena_printf(&node.arena, ",{'digest':'%s'}", digest_hex(two)).p : "";

	return arena_printf(&node.arena, "'apiKey':{'credentials':[{'digest':'%s'}%s]%s}", digest_hex(one), second,
			    source).p;
}

#define QUERY ",'source':{'source':'QueryString','value':'k'}"
#define HEADER_PLACE ",'source':{'source':'Header','value':'X-Key'}"
#define USER(name) "'basic':{'username':'" name "','passwordHash':'$y$'}"
#define TOKEN(claim, value, more) \
	"'jwt':{'jwks':'{\\\"keys\\\":[{\\\"kty\\\":\\\"oct\\\"," \
	"\\\"k\\\":\\\"c2VjcmV0LWtleS1vZi0zMi1ieXRlcy0wMTIzNDU2Nzg\\\"}]}'," \
	"'jwtPayloadConfig':{'payloadKeyName':'" claim "','payloadKeyValue':'" value "'}" more "}"
#define TO_HEADER ",'claimsToHeadersConfigs':[{'claim':'role','header':'X-Role'}]"

static const char *document(const char *name, const char *enable, const char *identities)
{
	return arena_printf(&node.arena, "{'name':'%s','enable':%s,'identities':{%s}}", name, enable, identities).p;
}

static void put_consumer(const char *id, const char *identities)
{
	put(RESOURCE_CONSUMER, id, document(id, "true", identities));
}

static const char *rule(const char *consumer, const char *resource, const char *more)
{
	return arena_printf(&node.arena, "{'consumerId':'%s','resourceType':'Route','resourceId':'%s',"
			    "'environmentId':'env-1'%s}", consumer, resource, more).p;
}

/* ---------- what traffic sees ---------- */

static const char *name_of(const struct consumer *c)
{
	return c ? c->id.p : "-";
}

static const char *by_key(const char *key)
{
	uint8_t digest[32];

	crypto_sha256(str_of(key), digest);
	return name_of(consumers_by_key(now()->consumers, digest));
}

static const char *by_user(const char *user)
{
	return name_of(consumers_by_user(now()->consumers, str_of(user)));
}

static const char *by_claim(const char *claim, const char *value)
{
	return name_of(consumers_by_claim(now()->consumers, str_of(claim), str_of(value)));
}

static bool allowed(const char *consumer, const char *resource, int64_t at_ms)
{
	const struct consumer who = { .id = str_of(consumer) };

	return consumers_allow(now()->consumers, &who, str_of(resource), at_ms);
}

/* ---------- tests ---------- */

static void test_finds_by_what_they_have(void **state)
{
	(void)state;
	put_consumer("c1", api_keys("key-one", "key-two", QUERY));
	put_consumer("c2", arena_printf(&node.arena, "%s," USER("u2") "," TOKEN("uid", "t2", ""),
					api_keys("key-three", NULL, "")).p);
	assert_string_equal(by_key("key-one"), "c1");
	assert_string_equal(by_key("key-two"), "c1");
	assert_string_equal(by_key("key-three"), "c2");
	assert_string_equal(by_key("key-four"), "-");
	assert_string_equal(by_key(""), "-");
	assert_string_equal(by_user("u2"), "c2");
	assert_string_equal(by_user("u"), "-");
	assert_string_equal(by_user(""), "-");
	assert_string_equal(by_claim("uid", "t2"), "c2");
	assert_string_equal(by_claim("ui", "dt2"), "-");
	assert_string_equal(by_claim("sub", "t2"), "-");
	assert_string_equal(by_claim("", ""), "-");
	/* Disabled: nobody finds it. Enabled again: all of it. */
	put(RESOURCE_CONSUMER, "c2", document("c2", "false", arena_printf(&node.arena, "%s," USER("u2"),
									     api_keys("key-three", NULL, "")).p));
	assert_string_equal(by_key("key-three"), "-");
	assert_string_equal(by_user("u2"), "-");
	assert_string_equal(by_claim("uid", "t2"), "-");
	put_consumer("c2", USER("u3"));
	assert_string_equal(by_user("u2"), "-");
	assert_string_equal(by_user("u3"), "c2");
	drop(RESOURCE_CONSUMER, "c1");
	assert_string_equal(by_key("key-one"), "-");
	assert_int_equal(pmap_count(now()->consumers->keys), 0);
}

static void refuse(const char *id, const char *identities, const char *field)
{
	assert_false(try_put(RESOURCE_CONSUMER, id, document(id, "true", identities)));
	assert_string_equal(why.field, field);
	assert_int_equal(why.kind, PROBLEM_CONFLICT);
}

static void test_what_one_has_is_nobody_elses(void **state)
{
	(void)state;
	put_consumer("c1", arena_printf(&node.arena, "%s," USER("u1") "," TOKEN("uid", "t1", ""),
					api_keys("key-one", "key-two", "")).p);
	refuse("c2", api_keys("key-new", "key-two", QUERY), "identities.apiKey.credentials[1].apikey");
	refuse("c2", USER("u1"), "identities.basic.username");
	refuse("c2", TOKEN("uid", "t1", ""), "identities.jwt.jwtPayloadConfig.payloadKeyValue");
	put_consumer("c2", TOKEN("sub", "t1", ""));
	assert_string_equal(by_key("key-new"), "-");
	/* A key that changes hands within one publish, in both orders of identifiers. */
	put_consumer("c1", api_keys("key-one", NULL, ""));
	put_consumer("c2", api_keys("key-two", NULL, ""));
	assert_string_equal(by_key("key-two"), "c2");
	put_consumer("c2", USER("u1"));
	put_consumer("c1", api_keys("key-two", "key-one", ""));
	assert_string_equal(by_key("key-two"), "c1");
	assert_string_equal(by_key("key-one"), "c1");
	assert_string_equal(by_user("u1"), "c2");
	put_consumer("c1", api_keys("key-three", NULL, ""));
	put_consumer("c2", api_keys("key-one", NULL, ""));
	assert_string_equal(by_key("key-one"), "c2");
	assert_string_equal(by_key("key-two"), "-");
	drop(RESOURCE_CONSUMER, "c1");
	put_consumer("c3", api_keys("key-three", NULL, ""));
	assert_string_equal(by_key("key-three"), "c3");
}

static void test_rules_end_by_the_clock(void **state)
{
	(void)state;
	put(RESOURCE_RULE, "r1", rule("c1", "route-1", ",'expireMode':'ShortTerm','expireTimestamp':1000"));
	assert_true(allowed("c1", "route-1", 999));
	assert_false(allowed("c1", "route-1", 1000));
	assert_false(allowed("c1", "route-2", 1));
	assert_false(allowed("c2", "route-1", 1));
	put(RESOURCE_RULE, "r2", rule("c1", "route-1", ",'expireMode':'ShortTerm','expireTimestamp':2000"));
	assert_true(allowed("c1", "route-1", 1999));
	drop(RESOURCE_RULE, "r2");
	assert_false(allowed("c1", "route-1", 1999));
	put(RESOURCE_RULE, "r3", rule("c1", "route-1", ""));
	assert_true(allowed("c1", "route-1", INT64_MAX - 1));
	put(RESOURCE_RULE, "r3", rule("c1", "route-2", ""));
	assert_false(allowed("c1", "route-1", 1999));
	assert_true(allowed("c1", "route-2", 1999));
	drop(RESOURCE_RULE, "r1");
	drop(RESOURCE_RULE, "r3");
	assert_int_equal(pmap_count(now()->consumers->rules), 0);
}

static void test_places_are_there_while_somebody_uses_them(void **state)
{
	const struct consumer_habits *h;

	(void)state;
	put_consumer("c1", api_keys("key-one", NULL, QUERY));
	put_consumer("c2", api_keys("key-two", NULL, QUERY));
	h = now()->consumers->habits;
	assert_int_equal(h->n_key_places, 1);
	assert_true(h->key_places[0].is_query);
	assert_true(str_equal(h->key_places[0].name, STR("k")));
	put_consumer("c3", arena_printf(&node.arena, "%s," TOKEN("uid", "t", TO_HEADER),
					api_keys("key-three", NULL, "")).p);
	h = now()->consumers->habits;
	assert_int_equal(h->n_key_places, 3);
	assert_int_equal(h->n_token_places, 1);
	assert_int_equal(h->n_claims, 1);
	assert_int_equal(h->n_headers, 1);
	/* A change of one consumer that uses what others use: the very same list. */
	put_consumer("c2", api_keys("key-new", NULL, QUERY));
	assert_ptr_equal(now()->consumers->habits, h);
	put_consumer("c3", api_keys("key-three", NULL, ",'source':{'source':'Header','value':'x-KEY'}"));
	put_consumer("c4", api_keys("key-four", NULL, HEADER_PLACE));
	h = now()->consumers->habits;
	assert_int_equal(h->n_key_places, 2);
	assert_int_equal(h->n_token_places + h->n_claims + h->n_headers, 0);
}

static void test_places_are_bounded(void **state)
{
	(void)state;
	for (unsigned i = 0; i < CONSUMER_PLACES_MAX; i++) {
		const char *name = arena_printf(&node.arena, "c%u", i).p;

		put_consumer(name, api_keys(name, NULL, arena_printf(&node.arena, ",'source':{'source':'Header',"
								     "'value':'x-%u'}", i).p));
	}
	assert_false(try_put(RESOURCE_CONSUMER, "more", document("more", "true", api_keys("more", NULL, ""))));
	assert_string_equal(why.field, "identities");
	put_consumer("like-another", api_keys("more", NULL, ",'source':{'source':'Header','value':'X-7'}"));
	put_consumer("c9", api_keys("c9", NULL, ",'source':{'source':'Header','value':'x-7'}"));
	put_consumer("more", api_keys("still-more", NULL, QUERY));
	assert_string_equal(by_key("still-more"), "more");
}

/* ---------- any sequence of changes ---------- */

enum { CONSUMERS = 6, RULES = 6 };

static uint32_t draw(uint32_t *seed, uint32_t below)
{
	*seed = *seed * 1664525u + 1013904223u;
	return (*seed >> 8) % below;
}

/* Few keys and names, so that many changes are refused. */
static const char *any_consumer(uint32_t *seed, const char *id)
{
	static const char *const sources[] = { "", QUERY, HEADER_PLACE };
	static const char *const tokens[] = { "", "," TOKEN("uid", "a", ""), "," TOKEN("uid", "b", TO_HEADER),
					      "," TOKEN("sub", "a", TO_HEADER) };
	static const char *const users[] = { "", "," USER("u"), "," USER("v") };
	const char *first = arena_printf(&node.arena, "key-%u", draw(seed, 8)).p;
	const char *second = draw(seed, 2) ? arena_printf(&node.arena, "key-%u", 8 + draw(seed, 8)).p : NULL;
	const char *keys = api_keys(first, second, sources[draw(seed, 3)]);

	return document(id, draw(seed, 4) ? "true" : "false",
			arena_printf(&node.arena, "%s%s%s", keys, tokens[draw(seed, 4)], users[draw(seed, 3)]).p);
}

static const char *any_rule(uint32_t *seed)
{
	static const char *const ends[] = { "", ",'expireMode':'ShortTerm','expireTimestamp':1000",
					    ",'expireMode':'ShortTerm','expireTimestamp':3000" };

	return rule(draw(seed, 2) ? "c0" : "c1", draw(seed, 2) ? "route-1" : "route-2", ends[draw(seed, 3)]);
}

static void change_something(uint32_t *seed)
{
	bool is_rule = draw(seed, 3) == 0;
	enum resource_kind kind = is_rule ? RESOURCE_RULE : RESOURCE_CONSUMER;
	const char *id = arena_printf(&node.arena, "%s%u", is_rule ? "r" : "c", draw(seed, CONSUMERS)).p;
	struct resource *before = model_get(node.model, kind, str_of(id)), *after = NULL;

	if (!before || draw(seed, 3))
		after = make(kind, id, is_rule ? any_rule(seed) : any_consumer(seed, id));
	resource_hold(before);
	resource_hold(after);
	if (apply(before, after) && draw(seed, 4) == 0) {
		resource_hold(before);
		assert_true(apply(after, before));
	}
	resource_drop(before);
	resource_drop(after);
}

static void describe_rules(struct sbuf *out)
{
	static const char *const routes[] = { "route-1", "route-2" };

	for (unsigned i = 0; i < 4; i++)
		for (int64_t at = 500; at < 5000; at += 1000)
			sbuf_addf(out, "%d", allowed(i & 1 ? "c0" : "c1", routes[i >> 1], at));
}

static struct str describe(void)
{
	const struct consumers *c = now()->consumers;
	struct sbuf out = { 0 };
	struct str text;

	for (unsigned i = 0; i < 16; i++)
		sbuf_addf(&out, "%s ", by_key(arena_printf(&node.arena, "key-%u", i).p));
	sbuf_addf(&out, "%s %s %s %s %s ", by_user("u"), by_user("v"), by_claim("uid", "a"), by_claim("uid", "b"),
		  by_claim("sub", "a"));
	describe_rules(&out);
	sbuf_addf(&out, " %zu %zu %zu %zu %u %u %u %u", pmap_count(c->keys), pmap_count(c->users),
		  pmap_count(c->subjects), pmap_count(c->rules), c->habits->n_key_places, c->habits->n_token_places,
		  c->habits->n_claims, c->habits->n_headers);
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

		for (size_t i = 0; (r = model_next(node.model, (enum resource_kind)kind, &i));)
			assert_true(compile_change(node.compiler, &(struct change){ .after = r }, &why));
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
		put_consumer("last", api_keys("key-of-the-last", NULL, ""));
		grown = describe();
		start_again();
		fresh = describe();
		if (!str_equal(grown, fresh))
			print_error("seed %u\n%s\n%s\n", first, grown.p, fresh.p);
		assert_true(str_equal(grown, fresh));
		teardown(state);
	}
}

/* ---------- workers that read meanwhile ---------- */

static atomic_bool stop;
static atomic_uint total_found;

static void let_them(void *arg, unsigned worker)
{
	(void)arg;
	(void)worker;
}

static void *read_on(void *arg)
{
	const unsigned worker = *(const unsigned *)arg;
	struct mailbox *box = &node.boxes[worker];
	struct view *current = NULL;
	uint8_t digest[32];
	unsigned found = 0;

	metric_thread(worker + 1);
	crypto_sha256(STR("key-3"), digest);
	while (!atomic_load(&stop)) {
		current = snapshot_adopt(current, box, NULL, NULL);
		if (!current) {
			sched_yield();
			continue;
		}
		const struct consumers *c = current->snapshot->consumers;
		const struct consumer *who = consumers_by_key(c, digest);

		found += who && who->n_key_places > 0 && consumers_allow(c, who, STR("route-1"), 1500);
		who = consumers_by_user(c, STR("u"));
		found += who && str_equal(who->user, STR("u"));
		for (unsigned i = 0; i < c->habits->n_claims; i++)
			found += consumers_by_claim(c, c->habits->claims[i], STR("a")) != NULL;
	}
	current = snapshot_adopt(current, box, NULL, NULL);
	if (current)
		snapshot_unpin(current, NULL, box);
	atomic_fetch_add(&total_found, found);
	return NULL;
}

static void test_workers_read_while_control_changes(void **state)
{
	static const unsigned numbers[WORKERS] = { 0, 1 };
	pthread_t threads[WORKERS];
	uint32_t seed = 7;

	(void)state;
	compiler_free(node.compiler);
	start_compiler(let_them);
	atomic_store(&stop, false);
	for (unsigned i = 0; i < WORKERS; i++)
		threads[i] = thread_start("reader", read_on, (void *)(uintptr_t)&numbers[i]);
	for (unsigned i = 0; i < LIVE_CHANGES; i++) {
		change_something(&seed);
		compile_publish(node.compiler);
	}
	atomic_store(&stop, true);
	for (unsigned i = 0; i < WORKERS; i++)
		pthread_join(threads[i], NULL);
	assert_true(atomic_load(&total_found) > 0);
	compile_reap(node.compiler);
}

/* ---------- cost ---------- */

static void add_consumers(unsigned from, unsigned to)
{
	struct arena kept = node.arena;

	node.arena = (struct arena){ 0 };
	for (unsigned i = from; i < to; i++) {
		char id[16], key[24];

		snprintf(id, sizeof(id), "csm-%u", i);
		snprintf(key, sizeof(key), "key-number-%u", i);
		put_consumer(id, api_keys(key, NULL, ""));
		put(RESOURCE_RULE, arena_printf(&node.arena, "rule-%u", i).p, rule(id, "route-1", ""));
		if (i % 256 == 255) {
			arena_free(&node.arena);
			node.arena = (struct arena){ 0 };
		}
	}
	arena_free(&node.arena);
	node.arena = kept;
}

/* Of FEW of them, spread over all: what lies in the cache of the CPU is the same then, so only the work differs. */
static int64_t time_lookups(unsigned n)
{
	const struct consumers *c = now()->consumers;
	uint8_t digests[FEW][32];
	int64_t best = INT64_MAX;

	for (unsigned i = 0; i < FEW; i++) {
		char key[24];

		snprintf(key, sizeof(key), "key-number-%u", i * (n / FEW));
		crypto_sha256(str_of(key), digests[i]);
	}
	for (unsigned round = 0; round < 5; round++) {
		int64_t begin = clock_now_us(), passed;

		for (unsigned i = 0; i < LOOKUPS; i++) {
			const struct consumer *who = consumers_by_key(c, digests[i % FEW]);

			assert_true(who && consumers_allow(c, who, STR("route-1"), 1));
		}
		passed = clock_now_us() - begin;
		best = passed < best ? passed : best;
	}
	return best;
}

static int64_t time_changes(void)
{
	int64_t begin = clock_now_us();

	for (unsigned i = 0; i < CHANGES; i++) {
		put_consumer("csm-3", api_keys(i % 2 ? "key-number-3" : "another-key", NULL, ""));
		now();
	}
	return (clock_now_us() - begin) / CHANGES;
}

/* Bounds leave room for other programs on the machine; what grows with the number would take 10,000 times as long. */
static void test_many_cost_what_few_do(void **state)
{
	int64_t few, many, few_change, many_change;

	(void)state;
	add_consumers(0, FEW);
	few = time_lookups(FEW);
	few_change = time_changes();
	add_consumers(FEW, MANY);
	many = time_lookups(MANY);
	many_change = time_changes();
	print_message("look-ups among %d: %lld ns, among %d: %lld ns; one change: %lld us, %lld us\n", FEW,
		      (long long)few * 1000 / LOOKUPS, MANY, (long long)many * 1000 / LOOKUPS, (long long)few_change,
		      (long long)many_change);
	assert_true(many < few * 20 + 1000);
	assert_true(many_change < few_change * 20 + 1000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_finds_by_what_they_have),
		TEST(test_what_one_has_is_nobody_elses),
		TEST(test_rules_end_by_the_clock),
		TEST(test_places_are_there_while_somebody_uses_them),
		TEST(test_places_are_bounded),
		cmocka_unit_test(test_any_changes_end_like_a_fresh_start),
		TEST(test_workers_read_while_control_changes),
		TEST(test_many_cost_what_few_do),
	};

	return cmocka_run_group_tests(tests, start, NULL);
}
