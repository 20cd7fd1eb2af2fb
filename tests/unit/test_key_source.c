/* room: policy */
/*
 * Live key sets against time that is moved by hand and an issuer that the test plays: when a fetch is made, how long a
 * set is good, who waits and for how long. The calls themselves are those of tests/integration/test_jwt_keys.py.
 */
#include "core/clock.h"
#include "core/log.h"
#include "core/loop.h"
#include "core/mem.h"
#include "policy/key_source.h"
#include "proxy/side_call.h"
#include "proxy/worker.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#define URL STR("https://issuer.test/jwks?x=1")
#define SET(kid) "{\"keys\":[{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"kid\":\"" kid "\"," \
	"\"x\":\"11qYAycMLhBSwdJqVnDIJHz_hSLJGFe2vB-4lT5FNAo\"}]}"

/* ---------- the worker and its calls, played here ---------- */

struct worker {
	int unused;
};
static struct worker worker;
static struct loop *loop;
static int64_t now_us;
static struct arena arena;
static unsigned n_done;

#define CALLS_MAX 64
static struct side_call *under_way[CALLS_MAX];
static unsigned n_under_way, n_started;
static void (*tell)(struct side_call *c);
static struct side_request asked;

struct loop *worker_loop(struct worker *w)
{
	(void)w;
	return loop;
}

struct worker *exchange_worker(struct exchange *x)
{
	assert_non_null(x);
	return &worker;
}

void wait_done(struct wait *w)
{
	w->done = true;
	n_done++;
}

const char *side_failure_text(enum side_failure f)
{
	return f == SIDE_TIMEOUT ? "it took too long" : "it could not be connected to";
}

struct side_call *side_call_new(struct worker *w, void (*done)(struct side_call *c), void *arg)
{
	struct side_call *c = MEM_NEW(struct side_call);

	assert_ptr_equal(w, &worker);
	tell = done;
	c->arg = arg;
	return c;
}

void side_call_start(struct side_call *c, const struct side_request *r)
{
	assert_true(n_under_way < CALLS_MAX);
	under_way[n_under_way++] = c;
	n_started++;
	asked = *r;
}

void side_call_free(struct side_call *c)
{
	mem_free(c);
}

/* The oldest call under way ends. */
static struct side_call *take_call(void)
{
	assert_true(n_under_way > 0);
	struct side_call *c = under_way[0];

	memmove(under_way, under_way + 1, --n_under_way * sizeof *under_way);
	return c;
}

static void answer_with(int status, const char *body, const char *cache_control)
{
	struct side_call *c = take_call();

	c->res = (struct message){ .arena = &arena, .status = status };
	if (cache_control)
		message_add(&c->res, STR("Cache-Control"), str_of(cache_control));
	c->body = str_of(body);
	tell(c);
}

static void answer(const char *body)
{
	answer_with(200, body, NULL);
}

static void fail_call(enum side_failure failure)
{
	struct side_call *c = take_call();

	c->failure = failure;
	tell(c);
}

/* ---------- time ---------- */

static void jump_s(int64_t s)
{
	now_us += s * 1000000;
	clock_set(now_us, 1700000000000 + now_us / 1000);
	loop_run_once(loop, 0);
	loop_run_once(loop, 0);
}

static void pass_ms(int64_t ms)
{
	for (; ms > 0; ms -= 10) {
		now_us += 10000;
		clock_set(now_us, 1700000000000 + now_us / 1000);
		loop_run_once(loop, 0);
	}
}

static int start(void **state)
{
	(void)state;
	now_us = 1000000000;
	clock_set(now_us, 1700000000000);
	loop = loop_new();
	n_under_way = n_started = n_done = 0;
	return 0;
}

/* The tick ends by itself when there is no source any more. */
static int stop(void **state)
{
	(void)state;
	assert_int_equal(n_under_way, 0);
	jump_s(2);
	loop_free(loop);
	arena_free(&arena);
	arena_drop_cache();
	clock_set_real();
	return 0;
}

/* ---------- helpers ---------- */

static struct exchange *somebody(void)
{
	static int anything;

	return (struct exchange *)(void *)&anything;
}

static enum key_answer ask(struct key_use *u, const struct key_user *user, const char *kid)
{
	enum key_answer got = key_use_begin(u, user, somebody(), str_of(kid));

	if (got == KEYS_AWAITED)
		u->wait.x = somebody();
	return got;
}

/* What a request that cannot wait any more would get; 'H'eld, 'A'waited, 'N'one. A wait is given up. */
static char glance(const struct key_user *user, const char *kid)
{
	struct key_use u = { 0 };

	switch (ask(&u, user, kid)) {
	case KEYS_HELD:
		key_use_end(&u);
		return 'H';
	case KEYS_AWAITED:
		u.wait.cancel(&u.wait);
		return 'A';
	case KEYS_NONE:
		break;
	}
	return 'N';
}

static void open_with(struct key_user *user, struct dependency *d, const char *body)
{
	key_user_open(user, URL, d);
	key_sources_tend(&worker);
	answer(body);
}

/* ---------- fetching ---------- */

static void test_the_first_fetch_is_made_without_a_request(void **state)
{
	struct key_user user = { 0 };

	(void)state;
	key_user_open(&user, URL, NULL);
	assert_int_equal(n_started, 0);
	assert_int_equal(key_source_version(&user), 0);
	key_sources_tend(&worker);
	key_sources_tend(&worker);
	assert_int_equal(n_started, 1);
	assert_true(str_equal(asked.url, URL));
	assert_int_equal(asked.kind, SIDE_KEYS);
	assert_int_equal(asked.timeout_ms, 5000);
	assert_int_equal(asked.body_max, 1 << 20);
	assert_int_equal(asked.redirects_max, 3);
	answer(SET("a"));
	assert_true(key_source_version(&user) > 0);
	assert_int_equal(glance(&user, "a"), 'H');
	assert_int_equal(glance(&user, NULL), 'H');
	key_user_close(&user);
}

static void test_a_request_may_come_before_the_worker_looks(void **state)
{
	struct key_user user = { 0 };

	(void)state;
	key_user_open(&user, URL, NULL);
	assert_int_equal(glance(&user, "a"), 'A');
	assert_int_equal(n_started, 1);
	key_sources_tend(&worker);
	assert_int_equal(n_started, 1);
	answer(SET("a"));
	key_user_close(&user);
}

static void test_when_a_set_is_refreshed(void **state)
{
	static const struct {
		const char *says;
		int64_t after_s;
	} rows[] = {
		{ NULL, 300 }, { "public", 300 }, { "max-age=x", 300 }, { "max-age=", 300 }, { "max-age=-1", 300 },
		{ "max-age=1000", 1000 }, { "public, MAX-AGE=1000 , must-revalidate", 1000 }, { "max-age=0", 60 },
		{ "max-age=59", 60 }, { "max-age=61", 61 }, { "max-age=86400", 86400 }, { "max-age=86401", 86400 },
		{ "max-age=9999999999999", 86400 }, { "no-store", 60 }, { "no-cache, max-age=1000", 60 },
		{ "max-age=1000, no-store", 60 }, { "max-age=500, max-age=1000", 500 }, { "s-maxage=1000", 300 },
	};

	(void)state;
	for (unsigned i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		struct key_user user = { 0 };
		unsigned before = n_started;

		key_user_open(&user, URL, NULL);
		key_sources_tend(&worker);
		answer_with(200, SET("a"), rows[i].says);
		jump_s(rows[i].after_s - 1);
		assert_int_equal(n_started - before, 1);
		jump_s(2);
		assert_int_equal(n_started - before, 2);
		answer(SET("a"));
		key_user_close(&user);
	}
}

static void test_a_request_that_is_due_does_not_wait_for_the_refresh(void **state)
{
	struct key_user user = { 0 };

	(void)state;
	open_with(&user, NULL, SET("a"));
	now_us += 400 * INT64_C(1000000);       /* no tick in between */
	clock_set(now_us, 0);
	assert_int_equal(glance(&user, "a"), 'H');
	assert_int_equal(n_started, 2);
	assert_int_equal(glance(&user, "a"), 'H');
	assert_int_equal(n_started, 2);
	answer(SET("a"));
	key_user_close(&user);
}

static void test_versions(void **state)
{
	struct key_user user = { 0 };
	uint64_t first, second;

	(void)state;
	open_with(&user, NULL, SET("a"));
	first = key_source_version(&user);
	jump_s(301);
	answer(SET("a"));
	assert_int_equal(key_source_version(&user), first);
	jump_s(301);
	answer(SET("b"));
	second = key_source_version(&user);
	assert_true(second != first && second != 0);
	jump_s(301);
	answer(SET("a"));
	assert_true(key_source_version(&user) != first && key_source_version(&user) != second);
	key_user_close(&user);
}

/* ---------- failures ---------- */

static void test_a_good_set_outlives_its_issuer_by_an_hour(void **state)
{
	struct key_user user = { 0 };
	unsigned before;

	(void)state;
	open_with(&user, NULL, SET("a"));
	jump_s(300);
	for (int64_t s = 0; s < 3570; s += 30) {
		assert_int_equal(glance(&user, "a"), 'H');
		if (n_under_way > 0)
			fail_call(SIDE_CONNECT);
		jump_s(30);
	}
	before = n_started;
	assert_true(before > 100 && before <= 2 + 3600 / 30);
	if (n_under_way > 0)
		fail_call(SIDE_CONNECT);
	assert_int_equal(glance(&user, "a"), 'H');
	jump_s(31);
	assert_int_equal(key_source_version(&user), 0);
	assert_int_equal(glance(&user, "a"), 'A');
	fail_call(SIDE_CONNECT);
	assert_int_equal(glance(&user, "a"), 'N');
	/* And is as good as new when it is there again. */
	jump_s(5);
	answer(SET("a"));
	assert_int_equal(glance(&user, "a"), 'H');
	assert_true(key_source_version(&user) > 0);
	key_user_close(&user);
}

static void test_without_a_set_it_is_tried_every_five_seconds(void **state)
{
	struct key_user user = { 0 };

	(void)state;
	key_user_open(&user, URL, NULL);
	key_sources_tend(&worker);
	for (unsigned i = 1; i <= 10; i++) {
		assert_int_equal(n_started, i);
		fail_call(SIDE_TIMEOUT);
		assert_int_equal(glance(&user, "a"), 'N');
		jump_s(4);
		assert_int_equal(glance(&user, "a"), 'N');
		assert_int_equal(n_started, i);
		jump_s(1);
	}
	answer(SET("a"));
	assert_int_equal(glance(&user, "a"), 'H');
	key_user_close(&user);
}

static void test_bad_answers_leave_the_set_alone(void **state)
{
	static const struct {
		int status;
		const char *body;
	} rows[] = {
		{ 500, SET("b") }, { 404, "" }, { 204, "" }, { 206, SET("b") }, { 301, "" }, { 200, "" }, { 200, "{}" },
		{ 200, "{\"keys\":[]}" }, { 200, "[]" }, { 200, SET("b") "x" }, { 200, "<html>" },
	};
	struct key_user user = { 0 };
	struct dependency d = { 0 };
	uint64_t version;

	(void)state;
	open_with(&user, &d, SET("a"));
	version = key_source_version(&user);
	jump_s(301);
	for (unsigned i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		answer_with(rows[i].status, rows[i].body, "max-age=86400");
		assert_true(dependency_read(&d).is_down);
		assert_int_equal(key_source_version(&user), version);
		assert_int_equal(glance(&user, "a"), 'H');
		jump_s(31);
	}
	answer(SET("a"));
	assert_false(dependency_read(&d).is_down);
	key_user_close(&user);
}

/* ---------- key ids ---------- */

static void test_an_unknown_key_id_brings_one_fetch_in_30_s(void **state)
{
	struct key_user user = { 0 };
	char kid[16];

	(void)state;
	open_with(&user, NULL, SET("a"));
	assert_int_equal(n_started, 1);
	for (unsigned minute = 0; minute < 4; minute++) {
		assert_int_equal(glance(&user, "other"), 'A');
		assert_int_equal(n_started, 2 + 2 * minute);
		answer(SET("a"));
		for (unsigned i = 0; i < 5000; i++) {
			snprintf(kid, sizeof kid, "k%u", i);
			assert_int_equal(glance(&user, kid), 'H');
		}
		jump_s(29);
		assert_int_equal(glance(&user, "other"), 'H');
		assert_int_equal(n_started, 2 + 2 * minute);
		jump_s(1);
		assert_int_equal(glance(&user, "other"), 'A');
		assert_int_equal(n_started, 3 + 2 * minute);
		answer(SET("a"));
		jump_s(30);
	}
	key_user_close(&user);
}

static void test_a_rotated_key_is_found_by_whoever_waits(void **state)
{
	struct key_user user = { 0 };
	struct key_use first = { 0 }, second = { 0 };

	(void)state;
	open_with(&user, NULL, SET("a"));
	assert_int_equal(ask(&first, &user, "b"), KEYS_AWAITED);
	assert_int_equal(ask(&second, &user, "b"), KEYS_AWAITED);
	assert_int_equal(n_started, 2);
	assert_int_equal(glance(&user, "a"), 'H');
	pass_ms(1000);
	assert_int_equal(n_done, 0);
	answer(SET("b"));
	pass_ms(30);
	assert_int_equal(n_done, 2);
	assert_int_equal(ask(&first, &user, "b"), KEYS_HELD);
	assert_true(str_equal(first.set->keys[0].kid, STR("b")));
	assert_int_equal(first.version, key_source_version(&user));
	/* One that is held stays, whatever comes. */
	jump_s(301);
	answer(SET("c"));
	assert_true(str_equal(first.set->keys[0].kid, STR("b")));
	assert_true(first.version != key_source_version(&user));
	key_use_end(&first);
	assert_int_equal(ask(&second, &user, "c"), KEYS_HELD);
	key_use_end(&second);
	key_user_close(&user);
}

/* ---------- waiting ---------- */

static void test_nobody_waits_longer_than_five_seconds(void **state)
{
	struct key_user user = { 0 };
	struct key_use u = { 0 };

	(void)state;
	key_user_open(&user, URL, NULL);
	key_sources_tend(&worker);
	assert_int_equal(ask(&u, &user, "a"), KEYS_AWAITED);
	pass_ms(4900);
	assert_int_equal(n_done, 0);
	pass_ms(200);
	assert_int_equal(n_done, 1);
	assert_int_equal(ask(&u, &user, "a"), KEYS_NONE);
	fail_call(SIDE_TIMEOUT);
	key_user_close(&user);
}

static void test_in_all_however_often_it_waits(void **state)
{
	struct key_user user = { 0 };
	struct key_use u = { 0 };

	(void)state;
	key_user_open(&user, URL, NULL);
	key_sources_tend(&worker);
	assert_int_equal(ask(&u, &user, "b"), KEYS_AWAITED);
	pass_ms(3000);
	answer(SET("a"));
	pass_ms(30);
	assert_int_equal(ask(&u, &user, "b"), KEYS_AWAITED);        /* the set is there, its key is not */
	assert_int_equal(n_started, 2);
	pass_ms(2100);
	assert_int_equal(n_done, 2);
	assert_int_equal(ask(&u, &user, "b"), KEYS_HELD);
	key_use_end(&u);
	answer(SET("b"));
	key_user_close(&user);
}

static void test_few_wait(void **state)
{
	struct key_use *uses = mem_alloc((KEY_WAITING_MAX + 1) * sizeof *uses);
	struct key_user user = { 0 };

	(void)state;
	key_user_open(&user, URL, NULL);
	key_sources_tend(&worker);
	for (unsigned i = 0; i < KEY_WAITING_MAX; i++)
		assert_int_equal(ask(&uses[i], &user, NULL), KEYS_AWAITED);
	assert_int_equal(ask(&uses[KEY_WAITING_MAX], &user, NULL), KEYS_NONE);
	/* One that leaves makes room. */
	uses[0].wait.cancel(&uses[0].wait);
	assert_int_equal(glance(&user, NULL), 'A');
	answer(SET("a"));
	pass_ms(30);
	assert_int_equal(n_done, KEY_WAITING_MAX - 1);
	assert_int_equal(glance(&user, NULL), 'H');
	key_user_close(&user);
	mem_free(uses);
}

/* ---------- users ---------- */

static void test_users_of_one_url_share_it(void **state)
{
	struct key_user first = { 0 }, second = { 0 }, other = { 0 };
	struct dependency one = { 0 }, two = { 0 };

	(void)state;
	open_with(&first, &one, SET("a"));
	key_user_open(&second, URL, &two);
	key_sources_tend(&worker);
	assert_int_equal(n_started, 1);
	assert_int_equal(glance(&second, "a"), 'H');
	assert_int_equal(key_source_version(&first), key_source_version(&second));
	key_user_open(&other, STR("https://issuer.test/jwks"), NULL);
	key_sources_tend(&worker);
	assert_int_equal(n_started, 2);
	answer(SET("a"));
	assert_true(key_source_version(&other) != key_source_version(&first));
	key_user_close(&first);
	assert_int_equal(glance(&second, "a"), 'H');
	jump_s(301);
	fail_call(SIDE_CONNECT);
	fail_call(SIDE_CONNECT);
	assert_false(dependency_read(&one).is_down);
	assert_true(dependency_read(&two).is_down);
	/* Who comes when it is down hears of it. */
	key_user_open(&first, URL, &one);
	assert_true(dependency_read(&one).is_down);
	assert_string_equal(dependency_read(&one).error, "it could not be connected to");
	key_user_close(&first);
	key_user_close(&second);
	key_user_close(&other);
	/* And a source that nobody had is forgotten. */
	key_user_open(&first, URL, NULL);
	assert_int_equal(key_source_version(&first), 0);
	key_user_close(&first);
	key_user_close(&first);
}

static void test_users_may_go_during_a_fetch(void **state)
{
	struct key_user user = { 0 }, again = { 0 };

	(void)state;
	key_user_open(&user, URL, NULL);
	key_sources_tend(&worker);
	key_user_close(&user);
	answer(SET("a"));
	key_user_open(&user, URL, NULL);
	key_sources_tend(&worker);
	assert_int_equal(n_started, 2);
	key_user_close(&user);
	key_user_open(&again, URL, NULL);
	assert_int_equal(n_started, 2);
	answer(SET("a"));
	assert_int_equal(glance(&again, "a"), 'H');
	key_user_close(&again);
}

static void test_inline_sets_are_there_at_once(void **state)
{
	struct key_user user = { 0 }, second = { 0 };
	struct dependency d = { 0 };

	(void)state;
	key_user_open(&user, STR(" " SET("a")), &d);
	key_user_open(&second, STR(" " SET("a")), NULL);
	key_sources_tend(&worker);
	jump_s(100000);
	assert_int_equal(n_started, 0);
	assert_int_equal(glance(&user, "a"), 'H');
	assert_int_equal(glance(&user, "unknown"), 'H');
	assert_true(key_source_version(&user) > 0 && key_source_version(&user) != key_source_version(&second));
	struct key_set *set = key_source_look(&user);
	assert_int_equal(set->n, 1);
	key_set_drop(set);
	assert_false(dependency_read(&d).is_down);
	key_user_close(&user);
	key_user_close(&second);
}

static void test_a_look_fetches_nothing(void **state)
{
	struct key_user user = { 0 };

	(void)state;
	key_user_open(&user, URL, NULL);
	assert_null(key_source_look(&user));
	assert_int_equal(n_started, 0);
	key_sources_tend(&worker);
	answer(SET("a"));
	struct key_set *set = key_source_look(&user);
	assert_int_equal(set->n, 1);
	key_set_drop(set);
	key_user_close(&user);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, start, stop)
	const struct CMUnitTest tests[] = {
		TEST(test_the_first_fetch_is_made_without_a_request),
		TEST(test_a_request_may_come_before_the_worker_looks),
		TEST(test_when_a_set_is_refreshed),
		TEST(test_a_request_that_is_due_does_not_wait_for_the_refresh),
		TEST(test_versions),
		TEST(test_a_good_set_outlives_its_issuer_by_an_hour),
		TEST(test_without_a_set_it_is_tried_every_five_seconds),
		TEST(test_bad_answers_leave_the_set_alone),
		TEST(test_an_unknown_key_id_brings_one_fetch_in_30_s),
		TEST(test_a_rotated_key_is_found_by_whoever_waits),
		TEST(test_nobody_waits_longer_than_five_seconds),
		TEST(test_in_all_however_often_it_waits),
		TEST(test_few_wait),
		TEST(test_users_of_one_url_share_it),
		TEST(test_users_may_go_during_a_fetch),
		TEST(test_inline_sets_are_there_at_once),
		TEST(test_a_look_fetches_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
