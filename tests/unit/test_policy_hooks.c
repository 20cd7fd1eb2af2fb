/*
 * test_policy_hooks.c -- what the enforced policies do to an exchange: replies, headers, and who gets
 * through.
 *
 * The exchange is put together by hand and has no connection; a config is written as JSON with ' for ".
 */
/* room: policy */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include "core/clock.h"
#include "proxy/exchange.h"
#include <cmocka.h>                       /* last: it has a macro of the name fail */

extern const struct policy_class rate_limit, header_modify, direct_response, ip_access_control, cors;

static struct exchange x;
static struct message *const req = &x.stream.req, *const res = &x.res;

static int open_exchange(void **state)
{
	(void)state;
	x = (struct exchange){ .request_id = STR("req-1"), .host = STR("a.example:8080"),
		.path = STR("/p/a") };
	x.query = STR("a=1&b=%20x&c=%00");
	*req = (struct message){ .arena = &x.arena, .method = METHOD_GET, .method_name = STR("GET"), .minor = 1 };
	*res = (struct message){ .arena = &x.arena, .status = 200, .minor = 1 };
	assert_true(ip_parse(STR("192.0.2.7"), &x.peer_ip));
	assert_true(ip_parse(STR("203.0.113.9"), &x.client_ip));
	return 0;
}

static int close_exchange(void **state)
{
	(void)state;
	arena_free(&x.arena);
	clock_set_real();
	return 0;
}

static struct str unquote(const char *text)
{
	struct str copy = arena_copy(&x.arena, str_of(text));
	char *out = arena_take(&x.arena, copy.n + 1);

	for (size_t i = 0; i < copy.n; i++)
		out[i] = text[i] == '\'' ? '"' : text[i];
	return (struct str){ out, copy.n };
}

/* The policy as the compiler would make a step of it. */
static struct step step_of(const struct policy_class *class, const char *config)
{
	struct problem why = { 0 };
	void *conf = arena_alloc(&x.arena, class->conf_size), *cell = NULL;
	const struct json *json = json_parse(&x.arena, unquote(config), &why);

	if (!json || !fields_decode(class->fields, json, conf, &x.arena, &why) ||
	    (class->check && !class->check(conf, &why)) || (class->prepare && !class->prepare(conf, &x.arena,
	    &why)))
		fail_msg("%s: %s %s", config, why.field, why.text);
	if (class->cell_size) {
		cell = arena_alloc(&x.arena, class->cell_size);
		class->cell_init(cell, conf);
	}
	return (struct step){ .class = class, .conf = conf, .cell = cell };
}

static void ask(const char *name, const char *value)
{
	message_add(req, str_of(name), str_of(value));
}

static void upstream_says(const char *name, const char *value)
{
	message_add(res, str_of(name), str_of(value));
}

/* The only line of that name; NULL: there is none. */
static void header_is(const struct message *m, const char *name, const char *value)
{
	const struct header *h = message_find_name(m, str_of(name));

	if (!h != !value)
		fail_msg("%s is %s", name, h ? "there" : "missing");
	if (h && !str_equal(h->value, str_of(value)))
		fail_msg("%s: \"%.*s\", not \"%s\"", name, STR_FMT(h->value), value);
	if (h && message_find_next(m, h))
		fail_msg("%s stands twice", name);
}

static void text_is(struct str s, const char *text)
{
	if (!str_equal(s, str_of(text)))
		fail_msg("\"%.*s\", not \"%s\"", STR_FMT(s), text);
}

#define LIMIT(rest) "{'threshold':1,'enable':true," rest "}"

static void over_the_limit(const char *config)
{
	struct step s = step_of(&rate_limit, config);

	clock_set(1000000000, 0);
	s.class->cell_init(s.cell, s.conf);
	assert_int_equal(rate_limit.request(&x, &s), NEXT);
	assert_int_equal(rate_limit.request(&x, &s), REPLY);
	clock_set(1001000000, 0);
	assert_int_equal(rate_limit.service(&x, &s), NEXT);
}

static void rate_limit_answers(void **state)
{
	(void)state;
	over_the_limit(LIMIT("'behaviorType':0,'bodyEncoding':1,'responseStatusCode':429,"
	  "'responseContentBody':'[1]'"));
	assert_int_equal(res->status, 429);
	header_is(res, "Content-Type", "application/json; charset=utf-8");
	header_is(res, "Retry-After", "1");
	text_is(x.res_body, "[1]");
	text_is(str_of(exchange_flag(&x)), "RL");
}

static void rate_limit_answers_text(void **state)
{
	(void)state;
	over_the_limit(LIMIT("'behaviorType':0,'bodyEncoding':0,'responseStatusCode':400"));
	assert_int_equal(res->status, 400);
	header_is(res, "Content-Type", "text/plain; charset=utf-8");
	header_is(res, "Retry-After", NULL);
	text_is(x.res_body, "");
}

static void rate_limit_redirects(void **state)
{
	(void)state;
	over_the_limit(LIMIT("'behaviorType':1,'bodyEncoding':0,'responseStatusCode':429,"
		"'responseRedirectUrl':'https://h/busy','responseContentBody':'never'"));
	assert_int_equal(res->status, 302);
	header_is(res, "Location", "https://h/busy");
	header_is(res, "Retry-After", NULL);
	text_is(x.res_body, "");
	over_the_limit(LIMIT("'behaviorType':1,'bodyEncoding':0,'responseStatusCode':307,"
	  "'responseRedirectUrl':'/b'"));
	assert_int_equal(res->status, 307);
}

static void rate_limit_speaks_grpc(void **state)
{
	(void)state;
	ask("Content-Type", "application/grpc+proto");
	over_the_limit(LIMIT("'behaviorType':0,'bodyEncoding':0,'responseStatusCode':429,"
	  "'responseContentBody':'50%\\n'"));
	assert_int_equal(res->status, 200);
	header_is(res, "grpc-status", "8");
	header_is(res, "grpc-message", "50%25%0A");
	text_is(x.res_body, "");
}

#define OP(direction, op, key, value, mode) "{'directionType':'" direction "','opType':'" op "','key':'" key \
	"','value':'" value "','policyValueGenerateMode':'" mode "'}"
#define SET(key, property) OP("Request", "Update", key, property, "Reference")

static void header_modify_runs_in_order(void **state)
{
	struct step s = step_of(&header_modify, "{'enable':true,'headerOpItems':["
		OP("Request", "Add", "X-A", "1", "Custom") "," OP("Response", "Update", "X-A", "9",
			"Custom") ","
		OP("Request", "Update", "X-B", "request.header.x-a", "Reference") ","
		OP("Request", "Remove", "X-A", "", "Custom") "," OP("Request", "Add", "X-A", "2",
			"Custom") "]}");

	(void)state;
	assert_int_equal(header_modify.request(&x, &s), NEXT);
	header_is(req, "X-A", "2");
	header_is(req, "X-B", "1");
	header_is(res, "X-A", NULL);
	assert_int_equal(header_modify.response(&x, &s), NEXT);
	header_is(res, "X-A", "9");
	header_is(req, "X-A", "2");
}

static void header_modify_reads_properties(void **state)
{
	struct step s = step_of(&header_modify, "{'enable':true,'headerOpItems':[" SET("X-1", "client.ip") ","
		SET("X-2", "request.host") "," SET("X-3", "request.uri") "," SET("X-4", "request.query.b") ","
		SET("X-5", "request.cookie.c") "," SET("X-6", "request.header.accept") "," SET("X-7",
			"request.id") ","
		SET("X-8", "request.query.none") "," SET("X-9", "request.scheme") "," SET("X-10",
			"time.iso8601") ","
		SET("X-11", "request.query.c") "," SET("X-12", "request.path") "]}");

	(void)state;
	clock_set(1, INT64_C(1700000000000));
	ask("Cookie", "a=1; c=d%2Fe");
	ask("Accept", "text/html");
	ask("Accept", "text/plain");
	ask("X-8", "kept");
	ask("X-1", "6.6.6.6");
	header_modify.request(&x, &s);
	header_is(req, "X-1", "203.0.113.9");
	header_is(req, "X-2", "a.example");
	header_is(req, "X-3", "/p/a?a=1&b=%20x&c=%00");
	header_is(req, "X-4", " x");
	header_is(req, "X-5", "d/e");
	header_is(req, "X-6", "text/html, text/plain");
	header_is(req, "X-7", "req-1");
	header_is(req, "X-8", "kept");
	header_is(req, "X-9", "http");
	header_is(req, "X-10", "2023-11-14T22:13:20Z");
	header_is(req, "X-11", "%00");
	header_is(req, "X-12", "/p/a");
}

static void header_modify_reads_the_response(void **state)
{
	struct step s = step_of(&header_modify, "{'enable':true,'headerOpItems':["
		OP("Response", "Update", "X-1", "response.status", "Reference") ","
		OP("Response", "Update", "X-2", "response.header.etag", "Reference") ","
		OP("Response", "Update", "X-3", "upstream.address", "Reference") "]}");

	(void)state;
	upstream_says("ETag", "abc");
	res->status = 404;
	header_modify.response(&x, &s);
	header_is(res, "X-1", "404");
	header_is(res, "X-2", "abc");
	header_is(res, "X-3", NULL);
}

static void direct_response_answers(void **state)
{
	struct step s = step_of(&direct_response, "{'code':'503','body':'Maintenance','enable':true}");

	(void)state;
	assert_int_equal(direct_response.request(&x, &s), REPLY);
	assert_int_equal(res->status, 503);
	header_is(res, "Content-Type", "text/plain; charset=utf-8");
	text_is(x.res_body, "Maintenance");
	s = step_of(&direct_response, "{'code':'200','body':'[1,2]','enable':true}");
	assert_int_equal(direct_response.request(&x, &s), REPLY);
	header_is(res, "Content-Type", "application/json; charset=utf-8");
	s = step_of(&direct_response, "{'code':'200','body':'1','enable':true}");
	assert_int_equal(direct_response.request(&x, &s), REPLY);
	header_is(res, "Content-Type", "text/plain; charset=utf-8");
	s = step_of(&direct_response, "{'code':'204','body':'','enable':true}");
	assert_int_equal(direct_response.request(&x, &s), REPLY);
	header_is(res, "Content-Type", NULL);
}

#define LIST_OF(type, layer, content) \
	"{'name':'n','ipAccessControlResourceName':'r','ipAccessControlResourceType':'Route'," \
	"'ipAccessControlType':'" type "','ipAccessControlContent':'" content "','protocolLayer':'" layer \
	"','enable':true}"

static enum verdict judge(const char *config)
{
	struct step s = step_of(&ip_access_control, config);

	x.must_close = false;
	return ip_access_control.request(&x, &s);
}

/* The peer is 192.0.2.7, the client behind it 203.0.113.9. */
static void ip_access_control_judges_requests(void **state)
{
	(void)state;
	assert_int_equal(judge(LIST_OF("White", "L7", "203.0.113.0/24")), NEXT);
	assert_int_equal(judge(LIST_OF("White", "L7", "192.0.2.7")), REPLY);
	assert_int_equal(res->status, 403);
	text_is(x.res_body, "Access denied");
	header_is(res, "Content-Type", "text/plain");
	assert_false(x.must_close);
	assert_int_equal(judge(LIST_OF("Black", "L7", "192.0.2.7, 2001:db8::/32")), NEXT);
	assert_int_equal(judge(LIST_OF("Black", "L7", "203.0.113.9")), REPLY);
	assert_int_equal(judge(LIST_OF("Black", "L7", "::ffff:203.0.113.9")), REPLY);
	assert_int_equal(judge(LIST_OF("Black", "L7", "::/0")), NEXT);
}

static void ip_access_control_closes_connections(void **state)
{
	struct step black = step_of(&ip_access_control, LIST_OF("Black", "L4", "192.0.2.0/24"));
	struct step white = step_of(&ip_access_control, LIST_OF("White", "L4", "192.0.2.0/24"));
	struct step l7 = step_of(&ip_access_control, LIST_OF("Black", "L7", "0.0.0.0/0"));

	(void)state;
	assert_false(ip_access_control.connect(&x.peer_ip, &black));
	assert_true(ip_access_control.connect(&x.client_ip, &black));
	assert_true(ip_access_control.connect(&x.peer_ip, &white));
	assert_false(ip_access_control.connect(&x.client_ip, &white));
	assert_true(ip_access_control.connect(&x.peer_ip, &l7));
	assert_int_equal(judge(LIST_OF("Black", "L4", "203.0.113.9")), NEXT);
	assert_int_equal(judge(LIST_OF("Black", "L4", "192.0.2.7")), REPLY);
	assert_true(x.must_close);
}

#define CORS(origins, methods, headers, expose, credentials) \
	"{'allowOrigins':'" origins "','allowMethods':" methods ",'allowHeaders':'" headers \
	"','exposeHeaders':'" expose "','timeUnit':'m','unitNum':60,'allowCredentials':" credentials \
	",'enable':true}"
#define CORS_LIST CORS("https://a.com,https://*.b.com", "['get','PUT']", "Content-Type, X-A", "X-Out", "true")
#define CORS_ANY(credentials) CORS("*", "['*']", "*", "*", credentials)

static enum verdict preflight(const char *config, const char *origin)
{
	struct step s = step_of(&cors, config);

	req->method = METHOD_OPTIONS;
	ask("Origin", origin);
	ask("Access-Control-Request-Method", "PATCH");
	ask("Access-Control-Request-Headers", "authorization,x-a");
	return cors.request(&x, &s);
}

static void cors_allows_a_preflight(void **state)
{
	struct step s = step_of(&cors, CORS_LIST), h = step_of(&header_modify, "{'enable':true,"
	  "'headerOpItems':["
		OP("Response", "Update", "X-H", "1", "Custom") "]}");

	(void)state;
	assert_int_equal(preflight(CORS_LIST, "https://x.b.com"), REPLY);
	assert_int_equal(header_modify.response(&x, &h), NEXT);
	assert_int_equal(cors.response(&x, &s), NEXT);
	assert_int_equal(res->status, 200);
	text_is(x.res_body, "");
	header_is(res, "Access-Control-Allow-Origin", "https://x.b.com");
	header_is(res, "Access-Control-Allow-Methods", "GET,PUT");
	header_is(res, "Access-Control-Allow-Headers", "Content-Type,X-A");
	header_is(res, "Access-Control-Allow-Credentials", "true");
	header_is(res, "Access-Control-Max-Age", "3600");
	header_is(res, "Vary", "Origin");
	header_is(res, "X-H", NULL);
}

static void cors_refuses_a_foreign_preflight(void **state)
{
	(void)state;
	assert_int_equal(preflight(CORS_LIST, "https://evil.com"), REPLY);
	assert_int_equal(res->status, 403);
	header_is(res, "Access-Control-Allow-Origin", NULL);
	header_is(res, "Access-Control-Allow-Methods", NULL);
	header_is(res, "Vary", "Origin");
}

static void cors_echoes_what_is_open(void **state)
{
	(void)state;
	assert_int_equal(preflight(CORS_ANY("true"), "https://a.b"), REPLY);
	header_is(res, "Access-Control-Allow-Origin", "https://a.b");
	header_is(res, "Access-Control-Allow-Methods", "PATCH");
	header_is(res, "Access-Control-Allow-Headers", "authorization,x-a");
	header_is(res, "Vary", "Origin");
}

static void cors_is_literal_without_credentials(void **state)
{
	(void)state;
	assert_int_equal(preflight(CORS_ANY("false"), "https://a.b"), REPLY);
	header_is(res, "Access-Control-Allow-Origin", "*");
	header_is(res, "Access-Control-Allow-Credentials", NULL);
	header_is(res, "Vary", NULL);
}

static void cors_lets_other_requests_pass(void **state)
{
	struct step s = step_of(&cors, CORS_LIST);

	(void)state;
	req->method = METHOD_OPTIONS;
	assert_int_equal(cors.request(&x, &s), NEXT);
	ask("Access-Control-Request-Method", "GET");
	assert_int_equal(cors.request(&x, &s), NEXT);
	ask("Origin", "https://a.com");
	req->method = METHOD_GET;
	assert_int_equal(cors.request(&x, &s), NEXT);
}

static void cors_replaces_what_the_upstream_says(void **state)
{
	struct step s = step_of(&cors, CORS_LIST);

	(void)state;
	ask("Origin", "https://a.com");
	upstream_says("access-control-allow-origin", "*");
	upstream_says("Access-Control-Allow-Origin", "https://b.com");
	upstream_says("Access-Control-Allow-Credentials", "true");
	upstream_says("Access-Control-Allow-Private-Network", "true");
	upstream_says("Vary", "Accept-Encoding");
	cors.response(&x, &s);
	header_is(res, "Access-Control-Allow-Origin", "https://a.com");
	header_is(res, "Access-Control-Allow-Credentials", "true");
	header_is(res, "Access-Control-Allow-Private-Network", NULL);
	header_is(res, "Access-Control-Expose-Headers", "X-Out");
	text_is(message_join(res, STR("Vary")), "Accept-Encoding, Origin");
}

static void cors_serves_foreign_origins_in_silence(void **state)
{
	struct step s = step_of(&cors, CORS_LIST);

	(void)state;
	ask("Origin", "https://evil.com");
	upstream_says("Access-Control-Allow-Origin", "*");
	upstream_says("Vary", "accept, ORIGIN");
	cors.response(&x, &s);
	header_is(res, "Access-Control-Allow-Origin", NULL);
	header_is(res, "Access-Control-Expose-Headers", NULL);
	header_is(res, "Vary", "accept, ORIGIN");
	assert_int_equal(res->status, 200);
}

static void cors_trusts_no_second_origin(void **state)
{
	struct step s = step_of(&cors, CORS_LIST);

	(void)state;
	ask("Origin", "https://a.com");
	ask("Origin", "https://evil.com");
	cors.response(&x, &s);
	header_is(res, "Access-Control-Allow-Origin", NULL);
}

static void cors_varies_without_an_origin(void **state)
{
	struct step s = step_of(&cors, CORS_LIST), any = step_of(&cors, CORS_ANY("false"));

	(void)state;
	cors.response(&x, &s);
	header_is(res, "Vary", "Origin");
	header_is(res, "Access-Control-Allow-Origin", NULL);
	message_remove(res, STR("Vary"));
	cors.response(&x, &any);
	header_is(res, "Vary", NULL);
	header_is(res, "Access-Control-Allow-Origin", "*");
	header_is(res, "Access-Control-Expose-Headers", "*");
}

static void cors_names_what_it_exposes(void **state)
{
	struct step s = step_of(&cors, CORS_ANY("true"));

	(void)state;
	ask("Origin", "https://a.com");
	upstream_says("ETag", "x");
	upstream_says("Set-Cookie", "a=1");
	upstream_says("X-Total", "7");
	cors.response(&x, &s);
	header_is(res, "Access-Control-Expose-Headers", "ETag,X-Total,Vary");
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, open_exchange, close_exchange)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(rate_limit_answers),
		TEST(rate_limit_answers_text),
		TEST(rate_limit_redirects),
		TEST(rate_limit_speaks_grpc),
		TEST(header_modify_runs_in_order),
		TEST(header_modify_reads_properties),
		TEST(header_modify_reads_the_response),
		TEST(direct_response_answers),
		TEST(ip_access_control_judges_requests),
		TEST(ip_access_control_closes_connections),
		TEST(cors_allows_a_preflight),
		TEST(cors_refuses_a_foreign_preflight),
		TEST(cors_echoes_what_is_open),
		TEST(cors_is_literal_without_credentials),
		TEST(cors_lets_other_requests_pass),
		TEST(cors_replaces_what_the_upstream_says),
		TEST(cors_serves_foreign_origins_in_silence),
		TEST(cors_trusts_no_second_origin),
		TEST(cors_varies_without_an_origin),
		TEST(cors_names_what_it_exposes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
