#include "policy/waf_inspection.h"
#include <time.h>
#include "core/budget.h"
#include "core/clock.h"
#include "core/mem.h"
#include "http/message.h"
#include "policy/waf_multipart.h"
#include "proxy/side_call.h"
#include "proxy/worker.h"

#define QUEUE_US 5000000                  /* a job that waits longer is not run */
#define LOOK_MS 10                        /* between looks at a job that takes long, at least */
#define LOOK_MOST_MS 100
#define STARVED_US 100000                 /* a job that has run so long with a tenth of the processor or less ... */
#define HURRY_US 1000000                  /* ... has the pool hurry for so long */
#define LOGGING 5
#define BIT(phase) (1u << (phase))
#define PARSED_BYTES_A_US 50              /* of a body: CPU beyond the budget for what is no rule's fault */
#define TRANSACTION_BYTES 65536           /* what the library takes for a small request */

/* Rules take the processor from nobody, as long as they get on at all. */
static struct offload pool = OFFLOAD_POOL("waf", 0, 1024, .nice = 5, .yields = true);

/* ---------- on a thread of the pool ---------- */

static int64_t read_clock_us(clockid_t clock)
{
	struct timespec t;

	return clock_gettime(clock, &t) == 0 ? (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000 : 0;
}

static struct str body_of(const struct inspection *in)
{
	if (in->stand_in.p)
		return in->stand_in;
	return in->body ? retain_whole(in->body) : STR("");
}

/* The library does not count them. What the rules would say of so much takes too long to find out. */
static bool has_long_fields(const struct inspection *in, struct str body)
{
	return in->fields_max && body.n > in->fields_max && in->multipart.n &&
	       waf_multipart_fields(in->multipart, body) > in->fields_max;
}

static void deny_body(struct inspection *in, int status)
{
	in->report.phase = in->report.blocked_in = 2;
	in->report.is_blocked = true;
	in->report.status = status;
}

static bool run_body(struct inspection *in)
{
	struct sbuf form = { 0 };
	struct str body = body_of(in);
	bool is_done = true;

	if (in->fields_max && in->multipart.n && waf_multipart_is_ambiguous(in->multipart, body)) {
		deny_body(in, 400);
		return true;
	}
	if (in->becomes_form) {
		waf_multipart_form_body(&form, in->multipart, body);
		body = sbuf_str(&form);
	}
	if (has_long_fields(in, body))
		deny_body(in, 413);
	else
		is_done = waf_request_body(in->transaction, body);
	sbuf_free(&form);
	return is_done;
}

static bool run_phase(struct inspection *in, unsigned phase)
{
	switch (phase) {
	case 1:
		in->transaction = waf_begin(in->rules, &in->report);
		return in->transaction && waf_request_head(in->transaction, &in->request);
	case 2:
		return run_body(in);
	case 3:
		return waf_response_head(in->transaction, &in->response);
	default:
		return waf_response_body(in->transaction, in->page);
	}
}

static void end_transaction(struct inspection *in)
{
	if (in->transaction)
		waf_end(in->transaction);
	in->transaction = NULL;
}

/* What is denied goes no further, but is logged. */
static void run(struct offload_job *j)
{
	struct inspection *in = CONTAINER(j, struct inspection, job);
	clockid_t clock = CLOCK_THREAD_CPUTIME_ID;
	int64_t began_us;

	pthread_getcpuclockid(pthread_self(), &clock);
	began_us = read_clock_us(clock);
	atomic_store_explicit(&in->began_us, began_us, memory_order_relaxed);
	atomic_store_explicit(&in->ran_from_us, clock_now_us(), memory_order_relaxed);
	atomic_store_explicit(&in->thread_clock, clock, memory_order_release);
	for (unsigned phase = 1; phase < LOGGING; phase++)
		if ((in->phases & BIT(phase)) && !in->has_failed && !in->report.is_blocked)
			in->has_failed = !run_phase(in, phase);
	if (in->has_failed || in->report.is_blocked || (in->phases & BIT(LOGGING)))
		end_transaction(in);
	in->job_us = read_clock_us(clock) - began_us;
	atomic_store_explicit(&in->has_ended, true, memory_order_release);
}

/* ---------- on the loop ---------- */

static void free_inspection(struct inspection *in)
{
	if (in->body)
		retain_drop(in->body);
	budget_add(-(int64_t)in->held_bytes);
	mem_free((char *)(uintptr_t)in->page.p);
	waf_rules_drop(in->rules);
	arena_free(&in->arena);
	mem_free(in);
}

/* The exchange goes on. */
static void tell(struct inspection *in, enum inspection_end end)
{
	in->is_told = true;
	in->end = end;
	in->is_over = end != INSPECTION_DONE || !in->transaction;
	wait_done(&in->wait);
}

/* Nobody waits for it any more. */
static void finish(struct inspection *in);

static void over(struct offload_job *j)
{
	struct inspection *in = CONTAINER(j, struct inspection, job);

	in->is_running = false;
	in->used_us += in->job_us;
	timer_disarm(&in->clock);
	if (in->is_closed)
		finish(in);
	else if (!in->is_told)
		tell(in, j->end != OFFLOAD_RAN ? INSPECTION_FULL :
		     in->has_failed ? INSPECTION_FAILED : INSPECTION_DONE);
}

static void look_later(struct inspection *in, int64_t us)
{
	int64_t ms = us / 1000 < LOOK_MOST_MS ? us / 1000 : LOOK_MOST_MS;

	loop_arm(worker_loop(in->worker), &in->clock, ms > LOOK_MS ? ms : LOOK_MS);
}

/* CPU of the job so far; -1: it still waits for its turn. Has the pool hurry when the job does not get on. */
static int64_t look_at_job(struct inspection *in, int64_t now_us)
{
	int clock = atomic_load_explicit(&in->thread_clock, memory_order_acquire);
	int64_t cpu_us, ran_us;

	if (!clock)
		return -1;
	cpu_us = read_clock_us(clock) - atomic_load_explicit(&in->began_us, memory_order_relaxed);
	ran_us = now_us - atomic_load_explicit(&in->ran_from_us, memory_order_relaxed);
	if (ran_us >= STARVED_US && cpu_us < ran_us / 10)
		offload_hurry(&pool, HURRY_US);
	return cpu_us;
}

/* The job takes long: is it still waiting for its turn, does it compute, or is the machine busy with others? */
static void look(struct timer *t)
{
	struct inspection *in = CONTAINER(t, struct inspection, clock);
	int64_t now_us = clock_now_us(), cpu_us, left_us;

	if (atomic_load_explicit(&in->has_ended, memory_order_acquire))
		return;
	cpu_us = look_at_job(in, now_us);
	left_us = cpu_us >= 0 ? in->budget_us - in->used_us - cpu_us : in->queued_us + QUEUE_US - now_us;
	if (left_us > 0) {
		look_later(in, left_us);
		return;
	}
	offload_cancel(&in->job);
	tell(in, cpu_us >= 0 ? INSPECTION_LATE : INSPECTION_FULL);
}

static bool submit(struct inspection *in, unsigned phases)
{
	in->phases = phases;
	in->job.run = run;
	in->job.over = over;
	in->job_us = 0;
	in->is_told = false;
	in->queued_us = clock_now_us();
	atomic_store_explicit(&in->thread_clock, 0, memory_order_relaxed);
	atomic_store_explicit(&in->has_ended, false, memory_order_relaxed);
	in->wait = (struct wait){ 0 };
	in->is_running = offload_submit(&pool, &in->job, worker_loop(in->worker));
	if (!in->is_running) {
		in->end = INSPECTION_FULL;
		in->is_over = true;
		return false;
	}
	if (!in->is_closed)
		look_later(in, in->budget_us - in->used_us);
	return true;
}

static void finish(struct inspection *in)
{
	if (in->transaction && submit(in, BIT(LOGGING)))
		return;
	end_transaction(in);
	free_inspection(in);
}

void inspection_close(struct inspection *in)
{
	in->is_closed = true;
	timer_disarm(&in->clock);
	if (in->is_running)
		offload_cancel(&in->job);
	else
		finish(in);
}

/* For the memory budget of the worker, until it is freed. */
static void hold_bytes(struct inspection *in, size_t n)
{
	budget_add((int64_t)n);
	in->held_bytes += n;
}

struct inspection *inspection_open(struct exchange *x, struct waf_rules *rules, int64_t budget_us)
{
	struct inspection *in = MEM_NEW(struct inspection);

	in->worker = exchange_worker(x);
	hold_bytes(in, sizeof *in + TRANSACTION_BYTES);
	in->rules = waf_rules_hold(rules);
	in->budget_us = budget_us;
	timer_init(&in->clock, look);
	return in;
}

/* ---------- what the phases get ---------- */

static const char *copy_text(struct inspection *in, struct str s)
{
	return arena_copy(&in->arena, s).p;
}

static struct str property(struct exchange *x, const char *name)
{
	struct str value = exchange_property(x, str_of(name));

	return value.p ? value : STR("");
}

/* Everything the client sent, framing fields included, and what policies before took away. */
static struct waf_field *copy_fields(struct inspection *in, const struct message *m, unsigned *n)
{
	struct waf_field *fields = NEW_N(&in->arena, struct waf_field, m->n + 1);

	for (*n = 0; *n < m->n; ++*n)
		fields[*n] = (struct waf_field){
			arena_copy(&in->arena, m->headers[*n].name), arena_copy(&in->arena, m->headers[*n].value)
		};
	return fields;
}

static void add_host(struct inspection *in, const struct message *req)
{
	struct waf_field *fields = (struct waf_field *)(uintptr_t)in->request.fields;

	if (!message_find(req, HEADER_HOST))
		fields[in->request.n++] = (struct waf_field){ STR("Host"), arena_copy(&in->arena, req->authority) };
}

/* A body of parts that is no form is read as one. */
static void call_form(struct inspection *in)
{
	struct waf_field *fields = (struct waf_field *)(uintptr_t)in->request.fields;

	for (unsigned i = 0; i < in->request.n; i++) {
		struct str type;

		if (!str_equal_nocase(fields[i].name, STR("Content-Type")))
			continue;
		type = waf_multipart_form_type(&in->arena, fields[i].value);
		if (!type.p)
			continue;
		fields[i].value = type;
		in->becomes_form = true;
	}
}

/* As it came, so that what is normalised away is seen; never of another form than path and query. */
static const char *copy_target(struct inspection *in, const struct message *req)
{
	if (req->target.n > 0 && req->target.p[0] == '/')
		return copy_text(in, req->target);
	if (!req->query.p)
		return copy_text(in, req->path);
	return arena_printf(&in->arena, "%.*s?%.*s", STR_FMT(req->path), STR_FMT(req->query)).p;
}

bool inspection_request(struct inspection *in, struct exchange *x, bool is_whole)
{
	const struct message *req = exchange_request(x);
	uint64_t port = 0;

	if (!str_to_u64(property(x, "client.port"), 65535, &port))
		port = 0;
	in->request = (struct waf_request){
		.client = copy_text(in, property(x, "client.ip")),
		.client_port = (int)port,
		.method = copy_text(in, req->method_name),
		.target = copy_target(in, req),
		.version = exchange_is_h2(x) ? "2.0" : req->minor == 0 ? "1.0" : "1.1",
	};
	in->request.fields = copy_fields(in, req, &in->request.n);
	add_host(in, req);
	call_form(in);
	return submit(in, is_whole ? BIT(1) | BIT(2) : BIT(1));
}

bool inspection_body(struct inspection *in, struct exchange *x, struct str stand_in)
{
	struct str type = message_value(exchange_request(x), HEADER_CONTENT_TYPE);

	if (type.n > 9 && str_equal_nocase((struct str){ type.p, 9 }, STR("multipart")))
		in->multipart = arena_copy(&in->arena, type);
	if (stand_in.p)
		in->stand_in = arena_copy(&in->arena, stand_in);
	if (exchange_request_body(x).n > 0)
		in->body = retain_hold(exchange_retained(x));
	/* The library copies it and takes it apart into as much again. Length must be no way past the rules. */
	hold_bytes(in, (in->becomes_form ? 3 : 2) * exchange_request_body(x).n);
	in->budget_us += (int64_t)exchange_request_body(x).n / PARSED_BYTES_A_US;
	return submit(in, BIT(2));
}

static void copy_response(struct inspection *in, struct exchange *x)
{
	const struct message *res = exchange_response(x);

	in->response.status = res->status;
	if (!in->response.fields)
		in->response.fields = copy_fields(in, res, &in->response.n);
}

bool inspection_response(struct inspection *in, struct exchange *x)
{
	copy_response(in, x);
	return submit(in, BIT(3) | BIT(4) | BIT(LOGGING));
}

bool inspection_page(struct inspection *in, struct exchange *x, struct str page)
{
	char *copy = mem_alloc(page.n + 1);

	copy_response(in, x);
	hold_bytes(in, 2 * page.n);
	if (page.n > 0)
		memcpy(copy, page.p, page.n);
	in->page = (struct str){ copy, page.n };
	return submit(in, BIT(3) | BIT(4) | BIT(LOGGING));
}
