#include "policy/oidc_provider.h"
#include <errno.h>
#include "core/clock.h"
#include "core/log.h"
#include "core/map.h"
#include "core/mem.h"
#include "proxy/side_call.h"
#include "proxy/worker.h"

#define TICK_MS 1000
#define WELL_KNOWN "/.well-known/openid-configuration"
#define REASON "the identity provider cannot be discovered"
#define REDIRECTS_MAX 3
#define ERROR_MAX 200

/*
 * All but `issuer` is guarded by the lock, or atomic and written under it. A provider is there as long as it has users
 * or is being fetched.
 */
struct oidc_provider {
	struct str issuer, url;           /* behind the struct */
	struct list users;
	struct oidc_document *document;   /* the last good one; NULL: none yet */
	int64_t due_ms, good_until_ms;
	atomic_bool is_fetching;
	atomic_uint waiting;
	bool is_down;
	char error[ERROR_MAX];
	struct oidc_provider *next;       /* of those about to be fetched */
};

static struct {
	pthread_mutex_t lock;
	struct map by_issuer;
} providers = { .lock = PTHREAD_MUTEX_INITIALIZER };

static void lock(void)
{
	pthread_mutex_lock(&providers.lock);
}

static void unlock(void)
{
	pthread_mutex_unlock(&providers.lock);
}

/* ---------- users ---------- */

static struct oidc_provider *provider_new(struct str issuer)
{
	const size_t base = issuer.n - (issuer.n > 0 && issuer.p[issuer.n - 1] == '/');
	struct oidc_provider *p = mem_alloc(sizeof *p + issuer.n + base + sizeof WELL_KNOWN);
	char *text = (char *)(p + 1), *url = text + issuer.n;

	memcpy(text, issuer.p, issuer.n);
	memcpy(url, issuer.p, base);
	memcpy(url + base, WELL_KNOWN, sizeof WELL_KNOWN);
	p->issuer = (struct str){ text, issuer.n };
	p->url = (struct str){ url, base + sizeof WELL_KNOWN - 1 };
	list_init(&p->users);
	return p;
}

static void provider_free(struct oidc_provider *p)
{
	oidc_document_drop(p->document);
	mem_free(p);
}

void oidc_provider_open(struct oidc_provider_user *u, struct str issuer, struct dependency *d)
{
	struct oidc_provider *p;

	lock();
	p = map_get(&providers.by_issuer, issuer);
	if (!p) {
		p = provider_new(issuer);
		map_put(&providers.by_issuer, p->issuer, p);
	}
	u->provider = p;
	u->dependency = d;
	list_append(&p->users, &u->node);
	if (p->is_down && d)
		dependency_down(d, REASON, str_of(p->error));
	unlock();
}

/* Under the lock. Whether nobody holds it any more: then it is the caller's to free. */
static bool is_unused(struct oidc_provider *p)
{
	if (!list_is_empty(&p->users) || atomic_load_explicit(&p->is_fetching, memory_order_relaxed))
		return false;
	map_remove(&providers.by_issuer, p->issuer);
	if (providers.by_issuer.n == 0)
		map_free(&providers.by_issuer);
	return true;
}

void oidc_provider_close(struct oidc_provider_user *u)
{
	struct oidc_provider *p = u->provider;
	bool is_last;

	if (!p)
		return;
	lock();
	list_remove(&u->node);
	u->provider = NULL;
	is_last = is_unused(p);
	unlock();
	if (is_last)
		provider_free(p);
}

/* ---------- what a fetch brought ---------- */

static struct oidc_document *read_answer(const struct oidc_provider *p, const struct side_call *c,
					 char error[ERROR_MAX])
{
	struct problem why = { 0 };
	struct oidc_document *d = NULL;
	char text[64];

	if (c->failure != SIDE_ANSWERED)
		snprintf(error, ERROR_MAX, "%s%s%s", side_failure_text(c->failure), c->detail || c->error ? ": " : "",
			 c->detail ? c->detail : c->error ? strerror_r(c->error, text, sizeof text) : "");
	else if (c->res.status != 200)
		snprintf(error, ERROR_MAX, "its discovery document: it answered %d", c->res.status);
	else if (!(d = oidc_document_read(c->body, p->issuer, &why)))
		snprintf(error, ERROR_MAX, "%.190s", why.text);
	return d;
}

static bool has_document(const struct oidc_provider *p)
{
	return p->document && clock_ms() < p->good_until_ms;
}

static void tell_users(const struct oidc_provider *p)
{
	LIST_EACH(node, (struct list *)(uintptr_t)&p->users) {
		struct dependency *d = CONTAINER(node, struct oidc_provider_user, node)->dependency;

		if (d && p->is_down)
			dependency_down(d, REASON, str_of(p->error));
		else if (d)
			dependency_up(d);
	}
}

static void log_fetch(const struct oidc_provider *p, const struct oidc_document *d, const char *error)
{
	if (!d)
		log_warn("oidc.discovery_failed", F_STR("issuer", p->issuer), F_STR("why", str_of(error)));
	else if (!p->document || memcmp(p->document->digest, d->digest, sizeof d->digest) != 0)
		log_info("oidc.discovered", F_STR("issuer", p->issuer));
}

/* Under the lock. Returns the document that is not needed any more. */
static struct oidc_document *use_document(struct oidc_provider *p, struct oidc_document *d)
{
	struct oidc_document *old = p->document;

	p->due_ms = clock_ms() + OIDC_REFRESH_MS;
	p->good_until_ms = p->due_ms + OIDC_STALE_MS;
	if (old && memcmp(old->digest, d->digest, sizeof d->digest) == 0)
		return d;
	p->document = d;
	return old;
}

static void fetched(struct side_call *c)
{
	struct oidc_provider *p = c->arg;
	char error[ERROR_MAX] = "";
	struct oidc_document *d = read_answer(p, c, error), *old = NULL;
	bool is_last;

	/* Before anybody can see it; the key set itself is fetched by whoever tends, or needs it. */
	if (d)
		key_user_open(&d->keys, d->jwks_uri, NULL);
	log_fetch(p, d, error);
	side_call_free(c);
	lock();
	p->is_down = !d;
	memcpy(p->error, error, sizeof error);
	if (d)
		old = use_document(p, d);
	else
		p->due_ms = clock_ms() + (has_document(p) ? OIDC_RETRY_STALE_MS : OIDC_RETRY_MS);
	tell_users(p);
	atomic_store_explicit(&p->is_fetching, false, memory_order_release);
	is_last = is_unused(p);
	unlock();
	oidc_document_drop(old);
	if (is_last)
		provider_free(p);
}

/* ---------- fetching ---------- */

/* Of a provider whose is_fetching the caller set under the lock; not under the lock. */
static void fetch(struct oidc_provider *p, struct worker *w)
{
	static const struct header accept = {
		.name = STR("Accept"), .value = STR("application/json"), .id = HEADER_ACCEPT,
	};
	const struct side_request request = {
		.kind = SIDE_IDENTITY, .url = p->url, .headers = &accept, .n_headers = 1,
		.timeout_ms = OIDC_FETCH_TIMEOUT_MS, .body_max = OIDC_DOCUMENT_BYTES_MAX,
		.redirects_max = REDIRECTS_MAX,
	};

	side_call_start(side_call_new(w, fetched, p), &request);
}

/* Under the lock: whether the caller has to fetch. */
static bool claim(struct oidc_provider *p)
{
	return clock_ms() >= p->due_ms && !atomic_exchange_explicit(&p->is_fetching, true, memory_order_relaxed);
}

/* Whether there are providers at all. */
static bool fetch_due(struct worker *w)
{
	struct oidc_provider *due = NULL, *p;
	struct map_entry *e;
	bool has_some;

	lock();
	has_some = providers.by_issuer.n > 0;
	for (size_t i = 0; (e = map_next(&providers.by_issuer, &i));) {
		p = e->value;
		if (!claim(p))
			continue;
		p->next = due;
		due = p;
	}
	unlock();
	while ((p = due)) {
		due = p->next;
		fetch(p, w);
	}
	return has_some;
}

static _Thread_local struct {
	struct timer timer;
	struct worker *worker;
} ticker;

static void tick(struct timer *t)
{
	if (!fetch_due(ticker.worker))
		return;
	/* Discovery brings key sets that nobody else may have begun to tend. */
	key_sources_tend(ticker.worker);
	loop_arm(worker_loop(ticker.worker), t, TICK_MS);
}

void oidc_providers_tend(struct worker *w)
{
	if (!ticker.worker)
		timer_init(&ticker.timer, tick);
	ticker.worker = w;
	tick(&ticker.timer);
}

/* ---------- what a request needs ---------- */

static bool is_fetched(struct poll_wait *w)
{
	return !atomic_load_explicit(&CONTAINER(w, struct oidc_use, wait)->provider->is_fetching,
				     memory_order_acquire);
}

static void leave(struct poll_wait *w)
{
	struct oidc_use *u = CONTAINER(w, struct oidc_use, wait);

	atomic_fetch_sub_explicit(&u->provider->waiting, 1, memory_order_relaxed);
	u->provider = NULL;
}

/* Under the lock; a fetch is under way. False: it has waited long enough, or too many do. */
static bool begin_waiting(struct oidc_use *u, struct oidc_provider *p)
{
	if (u->wait.until_ms == 0)
		u->wait.until_ms = clock_ms() + OIDC_WAIT_MS;
	if (clock_ms() >= u->wait.until_ms ||
	    atomic_load_explicit(&p->waiting, memory_order_relaxed) >= OIDC_WAITING_MAX)
		return false;
	atomic_fetch_add_explicit(&p->waiting, 1, memory_order_relaxed);
	u->provider = p;
	u->wait.is_over = is_fetched;
	u->wait.leave = leave;
	return true;
}

enum oidc_answer oidc_use_begin(struct oidc_use *u, const struct oidc_provider_user *of, struct exchange *x)
{
	struct oidc_provider *p = of->provider;
	enum oidc_answer answer = OIDC_NONE;
	bool is_mine;

	lock();
	is_mine = claim(p);
	if (has_document(p)) {
		u->document = p->document;
		atomic_fetch_add_explicit(&u->document->refs, 1, memory_order_relaxed);
		answer = OIDC_HELD;
	} else if (atomic_load_explicit(&p->is_fetching, memory_order_relaxed) && begin_waiting(u, p)) {
		answer = OIDC_AWAITED;
	}
	unlock();
	if (is_mine)
		fetch(p, exchange_worker(x));
	if (answer == OIDC_AWAITED)
		poll_wait_start(&u->wait, x);
	return answer;
}

void oidc_use_end(struct oidc_use *u)
{
	oidc_document_drop(u->document);
	u->document = NULL;
}
