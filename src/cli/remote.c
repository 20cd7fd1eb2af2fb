#include "cli/remote.h"
#include <stdlib.h>
#include <string.h>
#include "cli/settings.h"
#include "core/clock.h"
#include "core/loop.h"
#include "core/mem.h"
#include "http/client.h"
#include "http/uri.h"
#include "net/resolver.h"

enum {
	CONNECT_MS = 10000,
	ANSWER_MS = 120000,                        /* a write waits for the disk and all workers */
	ANSWER_MAX = 256 << 20,
	TOKEN_MAX = 4096,
};

struct remote {
	struct arena *arena;
	struct loop *loop;
	struct client *client;
	struct resolver *resolver;
	struct pool pool;
	struct url url;
	struct str text, token;
	struct tls_client own;            /* of --ca-file */
	const struct tls_client *tls;     /* NULL: http */
	struct resolver_query query;
	/* the call under way */
	struct call call;
	struct sbuf body;
	bool is_over, has_failed;
	enum call_failure failure;
};

/* ---------- opening ---------- */

static const char *choose(const char *flag, const char *variable, const char *otherwise)
{
	const char *value = flag ? flag : getenv(variable);

	return value && *value ? value : otherwise;
}

static bool read_token(struct remote *r, const struct client_options *o, struct problem *why)
{
	const char *data = choose(NULL, "SLUICE_DATA", "sluice-data");
	const char *path = choose(o->token_file, "SLUICE_TOKEN_FILE", NULL);
	struct problem cause;

	if (!path)
		path = arena_printf(r->arena, "%s/admin.token", data).p;
	if (!file_read(path, r->arena, &r->token, &cause))
		return problem(why, "--token-file", "%s: %s", path, cause.text);
	while (r->token.n && strchr(" \t\r\n", r->token.p[r->token.n - 1]))
		r->token.n--;
	if (r->token.n == 0 || r->token.n > TOKEN_MAX || !header_is_token(r->token))
		return problem(why, "--token-file", "%s holds no token", path);
	return true;
}

static bool read_ca(struct remote *r, const char *path, struct problem *why)
{
	struct tls_client_material material = { 0 };
	struct problem cause;

	if (!path) {
		r->tls = tls_client_default();
		return true;
	}
	if (!file_read(path, r->arena, &material.ca, &cause) || !tls_check_ca(material.ca, &cause) ||
	    !tls_client_init(&r->own, &material, &cause))
		return problem(why, "--ca-file", "%s: %s", path, cause.text);
	r->tls = &r->own;
	return true;
}

static bool is_local(const struct resolver_query *q)
{
	for (unsigned i = 0; i < q->n; i++)
		if (!addr_is_loopback(&q->addresses[i]))
			return false;
	return true;
}

static void name_found(struct resolver_query *q)
{
	struct remote *r = CONTAINER(q, struct remote, query);

	loop_stop(r->loop);
}

static bool look_up(struct remote *r, struct problem *why)
{
	r->query.done = name_found;
	list_init(&r->query.node);
	if (!resolver_lookup(r->resolver, r->url.host, &r->query))
		loop_run(r->loop, NULL, NULL);
	if (r->query.status != RESOLVER_OK)
		return problem(why, "--server", "the name %.*s does not resolve", STR_FMT(r->url.host));
	if (!r->tls && !is_local(&r->query))
		return problem(why, "--server",
			       "%.*s is not this machine: the token goes with every call, so use https",
			       STR_FMT(r->url.host));
	return true;
}

static bool open_server(struct remote *r, const struct client_options *o, struct problem *why)
{
	const char *server = choose(o->server, "SLUICE_SERVER", "http://127.0.0.1:9070");

	r->text = arena_copy(r->arena, str_of(server));
	while (r->text.n && r->text.p[r->text.n - 1] == '/')
		r->text.n--;
	if (!url_parse(r->text, &r->url) || !str_equal(r->url.target, STR("/")))
		return problem(why, "--server", "\"%.200s\" is no URL such as http://127.0.0.1:9070", server);
	if (r->url.is_https && !read_ca(r, o->ca_file, why))
		return false;
	if (!r->url.is_https && o->ca_file)
		return problem(why, "--ca-file", "is for https");
	if (!read_token(r, o, why))
		return false;
	r->resolver = resolver_new(r->loop, NULL, 0);
	if (!r->resolver)
		return problem(why, "--server", "the system's name resolution cannot be used");
	return look_up(r, why);
}

struct remote *remote_open(const struct client_options *o, struct arena *a, struct problem *why)
{
	struct remote *r = MEM_NEW(struct remote);

	clock_update();
	r->arena = a;
	r->loop = loop_new();
	r->client = client_new(r->loop, 65536);
	if (open_server(r, o, why))
		return r;
	remote_close(r);
	return NULL;
}

void remote_close(struct remote *r)
{
	pool_close(r->client, &r->pool);
	if (r->resolver)
		resolver_free(r->resolver);
	client_free(r->client);
	loop_free(r->loop);
	if (r->tls == &r->own)
		tls_client_clear(&r->own);
	sbuf_free(&r->body);
	mem_free(r);
}

/* ---------- calls ---------- */

static void end_call(struct remote *r)
{
	r->is_over = true;
	loop_stop(r->loop);
}

static void take(struct call *c, char *data, size_t n, bool end)
{
	struct remote *r = CONTAINER(c, struct remote, call);

	if (r->body.n + n > ANSWER_MAX) {
		call_cancel(c);
		r->has_failed = true;
		r->failure = CALL_MALFORMED;
		end_call(r);
		return;
	}
	sbuf_add(&r->body, (struct str){ data, n });
	if (end)
		end_call(r);
}

static void drained(struct call *c)
{
	(void)c;                           /* requests are handed over whole */
}

static void failed(struct call *c, enum call_failure what)
{
	struct remote *r = CONTAINER(c, struct remote, call);

	r->has_failed = true;
	r->failure = what;
	end_call(r);
}

static const struct call_ops operations = {
	.response = take, .body = take, .drained = drained, .failed = failed,
};

static void start(struct remote *r, unsigned address, bool is_fresh, const char *method)
{
	r->call = (struct call){
		.client = r->client, .ops = &operations, .arena = r->arena, .pool = &r->pool,
		.addr = addr_of_ip(&r->query.addresses[address], r->url.port),
		.method = method_lookup(str_of(method)), .connect_timeout_ms = CONNECT_MS,
		.idle_timeout_ms = ANSWER_MS, .tls = r->tls,
	};
	if (r->tls && uri_is_dns_name(r->url.host, false))
		r->call.server_name = r->url.host;
	r->body.n = 0;
	r->is_over = r->has_failed = false;
	call_start(&r->call, is_fresh);
}

static void send_request(struct remote *r, const struct remote_request *request, struct str body)
{
	const struct str target = request->target;
	struct message head = {
		.arena = r->arena, .method = r->call.method, .method_name = str_of(request->method), .path = target,
		.minor = 1, .keep_alive = true, .authority = r->url.authority,
	};
	size_t question = str_find(target, '?');

	if (question < target.n) {
		head.path.n = question;
		head.query = (struct str){ target.p + question + 1, target.n - question - 1 };
	}
	message_add(&head, STR("Accept"), STR("application/json"));
	message_add(&head, STR("X-Auth-Token"), r->token);
	if (body.p) {
		message_add(&head, STR("Content-Type"), STR("application/json"));
		head.framing = FRAMING_LENGTH;
		head.content_length = body.n;
		head.length_known = true;
	}
	call_send(&r->call, &head, body, true);
	while (!r->is_over)
		loop_run(r->loop, NULL, NULL);
}

static bool tell_failure(const struct remote *r, struct problem *why)
{
	static const char *const texts[] = {
		[CALL_CONNECT] = "cannot be reached", [CALL_RESET] = "closed the connection without an answer",
		[CALL_TIMEOUT] = "does not answer", [CALL_MALFORMED] = "answers something that is no HTTP",
		[CALL_TRUNCATED] = "broke off its answer",
	};
	const char *more = r->call.tls_failure ? r->call.tls_text : r->call.error ? strerror(r->call.error) : "";

	problem(why, "--server", "%.*s %s%s%s", STR_FMT(r->text), texts[r->failure], *more ? ": " : "", more);
	return false;
}

bool remote_call(struct remote *r, const struct remote_request *request, struct remote_answer *out, struct problem *why)
{
	struct str text = { NULL, 0 };
	struct sbuf written = { 0 };
	struct problem unused;
	bool is_fresh = false;

	if (request->body) {
		json_write(&written, request->body);
		text = arena_copy(r->arena, sbuf_str(&written));
		sbuf_free(&written);
	}
	for (unsigned i = 0; i < r->query.n;) {
		start(r, i, is_fresh, request->method);
		send_request(r, request, text);
		/* A kept connection that was closed meanwhile: the same again on a new one. */
		if (r->has_failed && r->failure == CALL_RESET && r->call.reused && !is_fresh) {
			is_fresh = true;
			continue;
		}
		if (!r->has_failed || r->failure != CALL_CONNECT)
			break;
		i++;
	}
	if (r->has_failed)
		return tell_failure(r, why);
	*out = (struct remote_answer){ r->call.res.status, arena_copy(r->arena, sbuf_str(&r->body)), NULL };
	out->body = json_parse(r->arena, out->text, &unused);
	return true;
}

struct str remote_error(const struct remote_answer *answer, struct arena *a)
{
	struct str code = json_text(answer->body, "errorCode"), message = json_text(answer->body, "errorMessage");

	if (!message.n)
		message = json_text(answer->body, "errorMsg");
	if (!message.n)
		message = answer->text.n < 200 ? answer->text : (struct str){ answer->text.p, 200 };
	return arena_printf(a, "%d %.*s%s%.*s", answer->status, STR_FMT(code), code.n ? ": " : "", STR_FMT(message));
}

struct str remote_escape(struct str text, struct arena *a)
{
	static const char hex[] = "0123456789ABCDEF";
	char *out = arena_alloc(a, 3 * text.n + 1);
	size_t n = 0;

	for (size_t i = 0; i < text.n; i++) {
		unsigned char c = (unsigned char)text.p[i];

		if ((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' ||
		    c == '.' || c == '_' || c == '~') {
			out[n++] = (char)c;
			continue;
		}
		out[n++] = '%';
		out[n++] = hex[c >> 4];
		out[n++] = hex[c & 15];
	}
	return (struct str){ out, n };
}
