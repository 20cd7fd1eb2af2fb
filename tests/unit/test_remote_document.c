/* room: policy */
/*
 * Documents at URLs with a kind of the test's own: what is asked, what is said, and many threads that open, use and
 * close one while it is fetched again and again. When fetches are due and who waits: test_key_source.c.
 */
#include "core/clock.h"
#include "core/loop.h"
#include "core/mem.h"
#include "core/thread.h"
#include "policy/remote_document.h"
#include "proxy/worker.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#define NAME STR("https://somebody.test/")
#define THREADS 4
#define ROUNDS 3000

/* ---------- workers and their calls, played here ---------- */

struct worker {
	struct loop *loop;
	struct side_call *call;           /* one is enough: there is one document at a time */
};
static _Thread_local struct worker worker;
static _Thread_local void (*tell)(struct side_call *c);
static char asked_url[128], asked_accept[64];
static unsigned n_started;
static atomic_int under_way, most_under_way;

struct loop *worker_loop(struct worker *w)
{
	return w->loop;
}

struct worker *exchange_worker(struct exchange *x)
{
	(void)x;
	return &worker;
}

void wait_done(struct wait *w)
{
	w->done = true;
}

const char *side_failure_text(enum side_failure f)
{
	(void)f;
	return "it took too long";
}

struct side_call *side_call_new(struct worker *w, void (*done)(struct side_call *c), void *arg)
{
	struct side_call *c = MEM_NEW(struct side_call);

	(void)w;
	tell = done;
	c->arg = arg;
	return c;
}

void side_call_start(struct side_call *c, const struct side_request *r)
{
	int n = atomic_fetch_add(&under_way, 1) + 1, most = atomic_load(&most_under_way);

	while (n > most && !atomic_compare_exchange_weak(&most_under_way, &most, n))
		;
	worker.call = c;
	if (n_started++ > 0)              /* by the main thread, or by whoever has the one call */
		return;
	snprintf(asked_url, sizeof asked_url, "%.*s", STR_FMT(r->url));
	snprintf(asked_accept, sizeof asked_accept, "%.*s", STR_FMT(r->headers[0].value));
}

void side_call_free(struct side_call *c)
{
	mem_free(c);
}

/* The call of this thread ends, if it has one. */
static void answer(int status, const char *body)
{
	struct side_call *c = worker.call;

	if (!c)
		return;
	worker.call = NULL;
	c->failure = body ? SIDE_ANSWERED : SIDE_TIMEOUT;
	c->res.status = status;
	c->body = str_of(body ? body : "");
	atomic_fetch_sub(&under_way, 1);
	tell(c);
}

/* ---------- the kind ---------- */

struct text {
	atomic_uint refs;
	uint8_t digest[REMOTE_DIGEST_BYTES];
	char bytes[16];
};
static atomic_int alive;
static atomic_uint n_logged;
static _Thread_local char logged[REMOTE_ERROR_MAX];

static void read_text(struct remote_news *n, const struct side_call *c, struct str name)
{
	struct text *t;

	if (!str_equal(name, NAME) || c->body.n == 0) {
		snprintf(n->error, sizeof n->error, "it is empty");
		return;
	}
	t = MEM_NEW(struct text);
	atomic_init(&t->refs, 1);
	snprintf(t->bytes, sizeof t->bytes, "%.*s", STR_FMT(c->body));
	memcpy(t->digest, t->bytes, sizeof t->bytes);
	atomic_fetch_add(&alive, 1);
	n->content = t;
	n->digest = t->digest;
	n->fresh_ms = 0;
}

static void log_text(struct str name, const struct remote_news *n)
{
	const struct text *t = n->content;

	(void)name;
	snprintf(logged, sizeof logged, "%s", t ? t->bytes : n->error);
	atomic_fetch_add(&n_logged, 1);
}

static void hold(void *content)
{
	atomic_fetch_add(&((struct text *)content)->refs, 1);
}

static void drop(void *content)
{
	struct text *t = content;

	if (!t || atomic_fetch_sub(&t->refs, 1) != 1)
		return;
	atomic_fetch_sub(&alive, 1);
	mem_free(t);
}

static const struct remote_kind texts = {
	.side = SIDE_SEARCH, .accept = STR("text/plain"), .path = STR("/.well-known/text"), .reason = "no text",
	.whose = "its text: ", .read = read_text, .log = log_text, .hold = hold, .drop = drop,
};
static const struct remote_kind others = {
	.side = SIDE_GUARD, .accept = STR("text/plain"), .reason = "no text", .whose = "", .read = read_text,
	.log = log_text, .hold = hold, .drop = drop,
};

/* ---------- tests ---------- */

static int start(void **state)
{
	(void)state;
	clock_set(1000000000, 1700000000000);
	worker = (struct worker){ .loop = loop_new() };
	n_started = 0;
	atomic_store(&n_logged, 0);
	return 0;
}

/* Nothing is left, and the tick ends by itself. */
static int stop(void **state)
{
	(void)state;
	assert_int_equal(atomic_load(&alive), 0);
	clock_set(1005000000, 1700000005000);
	loop_run_once(worker.loop, 0);
	loop_free(worker.loop);
	clock_set_real();
	return 0;
}

static void test_what_is_asked(void **state)
{
	struct remote_user user = { 0 }, other = { 0 };

	(void)state;
	remote_document_open(&user, &texts, NAME, NULL);
	remote_documents_tend(&worker);
	assert_string_equal(asked_url, "https://somebody.test/.well-known/text");
	assert_string_equal(asked_accept, "text/plain");
	answer(200, "one");
	/* The same name is another document for another kind; without a path it is the URL itself. */
	n_started = 0;
	remote_document_open(&other, &others, NAME, NULL);
	assert_ptr_not_equal(other.document, user.document);
	remote_document_close(&user);
	remote_documents_tend(&worker);
	assert_string_equal(asked_url, "https://somebody.test/");
	answer(200, "two");
	assert_true(remote_document_version(&other) > 0);
	remote_document_close(&other);
	remote_document_close(&other);
}

static void test_what_is_said(void **state)
{
	static const struct {
		int status;
		const char *body, *logged, *error;        /* logged NULL: nothing */
	} rows[] = {
		{ 503, "x", "its text: it answered 503", "its text: it answered 503" },
		{ 0, NULL, "it took too long", "it took too long" },
		{ 200, "", "it is empty", "it is empty" },
		{ 200, "one", "one", NULL },
		{ 200, "one", NULL, NULL },
		{ 200, "two", "two", NULL },
	};
	struct remote_user user = { 0 };
	struct dependency d = { 0 };

	(void)state;
	remote_document_open(&user, &texts, NAME, &d);
	for (unsigned i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		unsigned before = atomic_load(&n_logged);

		clock_set(clock_us() + 10000000, 1700000000000);
		remote_documents_tend(&worker);
		answer(rows[i].status, rows[i].body);
		assert_int_equal(atomic_load(&n_logged) - before, rows[i].logged ? 1 : 0);
		if (rows[i].logged)
			assert_string_equal(logged, rows[i].logged);
		assert_int_equal(dependency_read(&d).is_down, rows[i].error != NULL);
		if (rows[i].error)
			assert_string_equal(dependency_read(&d).error, rows[i].error);
	}
	remote_document_close(&user);
}

static bool serves(struct remote_use *u, const void *content)
{
	(void)u;
	return ((const struct text *)content)->bytes[0] == 'a';
}

static atomic_uint n_wrong;

static void use_once(const struct remote_user *user, unsigned i)
{
	struct remote_use u = { .serves = i % 2 ? serves : NULL };
	struct text *t;

	switch (remote_use_begin(&u, user, (void *)&worker)) {
	case REMOTE_HELD:
		t = u.content;
		if ((t->bytes[0] != 'a' && t->bytes[0] != 'b') || u.version == 0)
			atomic_fetch_add(&n_wrong, 1);
		drop(t);
		break;
	case REMOTE_AWAITED:
		u.wait.wait.cancel(&u.wait.wait);
		break;
	case REMOTE_NONE:
		break;
	}
	t = remote_document_look(user);
	if (t && remote_document_version(user) == 0)
		atomic_fetch_add(&n_wrong, 1);
	drop(t);
}

static void *use_often(void *arg)
{
	static const char *const bodies[] = { "a", "a", "b", NULL, "a2" };
	struct dependency d = { 0 };

	(void)arg;
	worker.loop = loop_new();
	for (unsigned i = 0; i < ROUNDS; i++) {
		struct remote_user user = { 0 };

		remote_document_open(&user, &texts, NAME, &d);
		use_once(&user, i);
		if (i % 3 == 0)
			answer(200, bodies[i % 5]);
		use_once(&user, i + 1);
		remote_document_close(&user);
		if (i % 3 != 0)
			answer(200, bodies[i % 5]);
	}
	loop_free(worker.loop);
	return NULL;
}

static void test_many_threads(void **state)
{
	pthread_t threads[THREADS];

	(void)state;
	n_started = 1;
	for (unsigned i = 0; i < THREADS; i++)
		threads[i] = thread_start("user", use_often, NULL);
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(atomic_load(&n_wrong), 0);
	assert_int_equal(atomic_load(&most_under_way), 1);
	assert_true(n_started > 10);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, start, stop)
	const struct CMUnitTest tests[] = {
		TEST(test_what_is_asked),
		TEST(test_what_is_said),
		TEST(test_many_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
