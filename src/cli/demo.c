/* demo.c -- `sluice run --demo`: something to send requests to, and a first gateway in front of it. */
#include <stdio.h>
#include "cli/cli.h"
#include "control/control.h"
#include "core/crypto.h"
#include "core/json.h"
#include "core/loop.h"
#include "core/mem.h"
#include "core/thread.h"
#include "http/server.h"
#include "net/listener.h"

/* ---------- the backend ---------- */

struct echo {
	struct stream stream;
	struct arena arena;
	uint64_t body_bytes;
};

static struct stream *open_echo(struct server_connection *c)
{
	struct echo *e = MEM_NEW(struct echo);

	(void)c;
	e->stream.arena = &e->arena;
	return &e->stream;
}

static struct json *describe(const struct echo *e)
{
	struct arena *a = e->stream.arena;
	const struct message *req = &e->stream.req;
	struct json *out = json_new(a, JSON_OBJECT), *headers = json_new(a, JSON_OBJECT);

	json_put(a, out, "method", json_new_text(a, req->method_name));
	json_put(a, out, "host", json_new_text(a, req->authority));
	json_put(a, out, "path", json_new_text(a, req->path));
	json_put(a, out, "query", json_new_text(a, req->query.p ? req->query : STR("")));
	json_put(a, out, "bodyBytes", json_new_int(a, (int64_t)e->body_bytes));
	for (unsigned i = 0; i < req->n; i++)
		if (!req->headers[i].dropped)
			json_put(a, headers, arena_copy(a, req->headers[i].name).p,
				 json_new_text(a, req->headers[i].value));
	json_put(a, out, "headers", headers);
	return out;
}

static void answer(struct echo *e)
{
	struct arena *a = e->stream.arena;
	struct message res = { .arena = a, .status = 200, .minor = 1, .framing = FRAMING_LENGTH };
	struct sbuf text = { 0 };

	json_write_pretty(&text, describe(e));
	sbuf_addc(&text, '\n');
	res.content_length = text.n;
	message_add_id(&res, HEADER_DATE, http_date_now());
	message_add_id(&res, HEADER_CONTENT_TYPE, STR("application/json; charset=utf-8"));
	struct str body = e->stream.req.method == METHOD_HEAD ? (struct str){ 0 } : arena_copy(a, sbuf_str(&text));
	sbuf_free(&text);
	stream_send(&e->stream, &res, body, true);
}

static void take(struct stream *s, char *data, size_t n, bool end)
{
	struct echo *e = CONTAINER(s, struct echo, stream);

	(void)data;
	e->body_bytes += n;
	if (end)
		answer(e);
}

static void begin(struct stream *s, char *data, size_t n, bool end)
{
	stream_send_continue(s);
	take(s, data, n, end);
}

static void drained(struct stream *s)
{
	(void)s;
}

static void closed(struct stream *s, enum stream_end how)
{
	struct echo *e = CONTAINER(s, struct echo, stream);

	(void)how;
	arena_free(&e->arena);
	mem_free(e);
}

static const struct server_ops echo_ops = {
	.open = open_echo,
	.request = begin,
	.body = take,
	.drained = drained,
	.closed = closed,
};

static void *serve(void *arg)
{
	loop_run(arg, NULL, NULL);
	return NULL;
}

uint16_t demo_start_backend(void)
{
	static struct server_listener listener;
	struct addr at = { 0 };
	struct problem why;
	struct loop *loop = loop_new();
	struct server *server = server_new(loop, &echo_ops, &server_default_settings, NULL);
	int fd = addr_parse(STR("127.0.0.1:0"), &at) ? listener_open(&at, false, &why) : -1;

	if (fd < 0)
		return 0;
	server_listen(server, &listener, fd);
	thread_start("demo", serve, loop);
	struct addr bound = addr_of_socket(fd);
	return addr_port(&bound);
}

/* ---------- the resources ---------- */

/* Posts a body; the id under `member` of the answer, or "" after a refusal, which is printed. */
static struct str post(struct control *c, struct arena *a, const char *path, const char *member, struct str body)
{
	struct sbuf answer_text = { 0 };
	struct problem why;
	int status = control_call(c, "POST", path, body, &answer_text);
	struct str text = arena_copy(a, sbuf_str(&answer_text));
	struct json *v = json_parse(a, text, &why);

	sbuf_free(&answer_text);
	if (status == 200 && v)
		return json_text(v, member);
	fprintf(stderr, "sluice: the demo cannot be set up: POST %s: %d %.*s\n", path, status, STR_FMT(text));
	return (struct str){ 0 };
}

static const char gateway_text[] =
	"{\"cluster\":\"%s\",\"gateway\":\"demo\",\"namespace\":\"default\",\"elbId\":\"demo\","
	"\"externalPort\":{\"number\":\"8080\",\"protocol\":\"HTTP\",\"hosts\":[\"*\"]},"
	"\"serviceType\":\"LoadBalancer\",\"externalIPs\":[\"127.0.0.1\"],"
	"\"minProtocolVersion\":\"TLSV1_2\",\"maxProtocolVersion\":\"TLSV1_3\"}";
static const char service_text[] =
	"{\"name\":\"demo-echo\",\"gatewayId\":\"%.*s\",\"sourceType\":\"VIP\",\"addresses\":[\"127.0.0.1:%u\"]}";
static const char route_text[] =
	"{\"name\":\"demo\",\"gatewayId\":\"%.*s\",\"match\":{\"path\":{\"type\":\"Prefix\",\"value\":\"/\"}},"
	"\"backend\":{\"scene\":\"SingleService\",\"services\":[{\"serviceId\":\"%.*s\"}]}}";
static const char policy_text[] =
	"{\"name\":\"demo limit\",\"className\":\"RateLimit\",\"description\":\"5 requests a second\","
	"\"config\":\"{\\\"threshold\\\":5,\\\"behaviorType\\\":0,\\\"bodyEncoding\\\":1,"
	"\\\"responseStatusCode\\\":429,\\\"responseContentBody\\\":"
	"\\\"{\\\\\\\"error\\\\\\\":\\\\\\\"Too Many Requests\\\\\\\"}\\\",\\\"enable\\\":true}\"}";
static const char attachment_text[] =
	"{\"attachResourceId\":\"%.*s\",\"attachResourceType\":\"Route\",\"environmentId\":\"%.*s\","
	"\"gatewayId\":\"%.*s\",\"policyId\":\"%.*s\"}";

/* Which environment a route went to when none was named. */
static struct str environment_of(struct control *c, struct arena *a, struct str route)
{
	struct sbuf item = { 0 };
	struct problem why;
	struct str path = arena_printf(a, "/api/v1/routes/%.*s", STR_FMT(route));
	int status = control_call(c, "GET", path.p, (struct str){ 0 }, &item);
	struct json *doc = json_parse(a, arena_copy(a, sbuf_str(&item)), &why);

	sbuf_free(&item);
	return status == 200 ? json_text(doc, "environmentId") : STR("");
}

static bool create(struct control *c, struct arena *a, const char *cluster, uint16_t backend_port)
{
	struct str gateway, service, route, policy, body;

	body = arena_printf(a, gateway_text, cluster);
	gateway = post(c, a, "/v2/meshes/default/gateways", "gatewayId", body);
	if (!gateway.n)
		return false;
	body = arena_printf(a, service_text, STR_FMT(gateway), backend_port);
	service = post(c, a, "/api/v1/services", "serviceId", body);
	if (!service.n)
		return false;
	body = arena_printf(a, route_text, STR_FMT(gateway), STR_FMT(service));
	route = post(c, a, "/api/v1/routes", "routeId", body);
	if (!route.n)
		return false;
	policy = post(c, a, "/api/v2/policies", "policyId", STR(policy_text));
	if (!policy.n)
		return false;
	body = arena_printf(a, attachment_text, STR_FMT(route), STR_FMT(environment_of(c, a, route)), STR_FMT(gateway),
			    STR_FMT(policy));
	return post(c, a, "/api/v1/policy-attachments", "policyAttachmentId", body).n > 0;
}

/* The backend of a later start has another port: the demo's service follows it. */
static bool follow(struct control *c, struct arena *a, uint16_t backend_port)
{
	const struct model *m = control_model(c);
	struct sbuf answer_text = { 0 };
	struct resource *r;
	size_t i = 0;
	int status = 200;

	while ((r = model_next(m, RESOURCE_SERVICE, &i)) && !str_equal(r->name, STR("demo-echo")))
		continue;
	if (r) {
		struct str body = arena_printf(a, service_text, STR_FMT(json_text(r->doc, "gatewayId")), backend_port);
		struct str path = arena_printf(a, "/api/v1/services/%.*s", STR_FMT(r->id));

		status = control_call(c, "PUT", path.p, body, &answer_text);
	}
	if (status != 200)
		fprintf(stderr, "sluice: the demo's service cannot be changed: %d %.*s\n", status, (int)answer_text.n,
			answer_text.p);
	sbuf_free(&answer_text);
	return status == 200;
}

bool demo_create(struct control *c, const char *cluster, uint16_t backend_port)
{
	struct arena a = { 0 };
	bool ok;

	if (model_count(control_model(c), RESOURCE_GATEWAY) == 0)
		ok = create(c, &a, cluster, backend_port);
	else
		ok = follow(c, &a, backend_port);
	arena_free(&a);
	return ok;
}
