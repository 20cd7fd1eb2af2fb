#include "policy/remote_document.h"
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include "core/clock.h"
#include "core/map.h"
#include "core/mem.h"
#include "proxy/worker.h"

#define TICK_MS 1000

/* All but what never changes is guarded by the lock, or atomic and written under it. */
struct remote_document {
	/* never change */
	const struct remote_kind *kind;
	struct str key, name, url;        /* behind the struct; the key is the kind and the name */
	/* written by whoever fetches only, who may read them without the lock */
	void *content;                    /* the last good one; NULL: none yet */
	uint8_t digest[REMOTE_DIGEST_BYTES];
	struct list users;
	_Atomic(uint64_t) version;        /* of the content while it may be used; else 0 */
	int64_t due_ms;                   /* of the next fetch */
	int64_t good_until_ms;            /* of the content */
	int64_t ask_again_ms;             /* no fetch for what the content lacks before */
	atomic_bool is_fetching;
	atomic_uint waiting;
	bool is_down;
	char error[REMOTE_ERROR_MAX];     /* of the last fetch, while it is down */
	struct remote_document *next;     /* of those about to be fetched */
};

static struct {
	pthread_mutex_t lock;
	struct map by_key;
} documents = { .lock = PTHREAD_MUTEX_INITIALIZER };

static void lock(void)
{
	pthread_mutex_lock(&documents.lock);
}

static void unlock(void)
{
	pthread_mutex_unlock(&documents.lock);
}

/* ---------- users ---------- */

static struct remote_document *document_new(const struct remote_kind *kind, struct str name)
{
	const size_t base = name.n - (name.n > 0 && name.p[name.n - 1] == '/');
	const size_t url_n = kind->path.n > 0 ? base + kind->path.n : 0;
	struct remote_document *d = mem_alloc(sizeof *d + 1 + name.n + url_n);
	char *key = (char *)(d + 1), *url = key + 1 + name.n;

	key[0] = (char)('A' + kind->side);
	memcpy(key + 1, name.p, name.n);
	d->kind = kind;
	d->key = (struct str){ key, 1 + name.n };
	d->name = (struct str){ key + 1, name.n };
	d->url = d->name;
	if (url_n > 0) {
		memcpy(url, name.p, base);
		memcpy(url + base, kind->path.p, kind->path.n);
		d->url = (struct str){ url, url_n };
	}
	list_init(&d->users);
	return d;
}

static void document_free(struct remote_document *d)
{
	d->kind->drop(d->content);
	mem_free(d);
}

void remote_document_open(struct remote_user *u, const struct remote_kind *kind, struct str name,
			  struct dependency *dependency)
{
	struct remote_document *mine = document_new(kind, name), *d;

	lock();
	d = map_get(&documents.by_key, mine->key);
	if (!d) {
		d = mine;
		map_put(&documents.by_key, d->key, d);
	}
	u->document = d;
	u->dependency = dependency;
	list_append(&d->users, &u->node);
	if (d->is_down && dependency)
		dependency_down(dependency, kind->reason, str_of(d->error));
	unlock();
	if (d != mine)
		document_free(mine);
}

/* Under the lock. Whether it was the last thing that held the document: then it is nobody's but the caller's. */
static bool is_unused(struct remote_document *d)
{
	if (!list_is_empty(&d->users) || atomic_load_explicit(&d->is_fetching, memory_order_relaxed))
		return false;
	map_remove(&documents.by_key, d->key);
	if (documents.by_key.n == 0)
		map_free(&documents.by_key);
	return true;
}

void remote_document_close(struct remote_user *u)
{
	struct remote_document *d = u->document;
	bool is_last;

	if (!d)
		return;
	lock();
	list_remove(&u->node);
	u->document = NULL;
	is_last = is_unused(d);
	unlock();
	if (is_last)
		document_free(d);
}

/* ---------- what a fetch brought ---------- */

static void read_answer(const struct remote_document *d, const struct side_call *c, struct remote_news *n)
{
	char text[64];

	if (c->failure != SIDE_ANSWERED)
		snprintf(n->error, sizeof n->error, "%s%s%s", side_failure_text(c->failure),
			 c->detail || c->error ? ": " : "",
			 c->detail ? c->detail : c->error ? strerror_r(c->error, text, sizeof text) : "");
	else if (c->res.status != 200)
		snprintf(n->error, sizeof n->error, "%sit answered %d", d->kind->whose, c->res.status);
	else
		d->kind->read(n, c, d->name);
}

static bool is_another(const struct remote_document *d, const struct remote_news *n)
{
	return !d->content || memcmp(d->digest, n->digest, sizeof d->digest) != 0;
}

uint64_t remote_version_new(void)
{
	static _Atomic(uint64_t) last;

	return atomic_fetch_add_explicit(&last, 1, memory_order_relaxed) + 1;
}

/* Under the lock. Returns the content that is not needed any more. */
static void *use_content(struct remote_document *d, const struct remote_news *n)
{
	void *unneeded = n->content;

	d->due_ms = clock_ms() + n->fresh_ms;
	d->good_until_ms = d->due_ms + REMOTE_STALE_MS;
	if (is_another(d, n)) {
		unneeded = d->content;
		d->content = n->content;
		memcpy(d->digest, n->digest, sizeof d->digest);
	} else if (atomic_load_explicit(&d->version, memory_order_relaxed) != 0) {
		return unneeded;
	}
	atomic_store_explicit(&d->version, remote_version_new(), memory_order_release);
	return unneeded;
}

/* Under the lock. Whether there is content that may be used; one that is too old is none from now on. */
static bool has_content(struct remote_document *d)
{
	if (d->content && clock_ms() < d->good_until_ms)
		return true;
	atomic_store_explicit(&d->version, 0, memory_order_release);
	return false;
}

static void tell_users(const struct remote_document *d)
{
	LIST_EACH(node, (struct list *)(uintptr_t)&d->users) {
		struct dependency *dependency = CONTAINER(node, struct remote_user, node)->dependency;

		if (dependency && d->is_down)
			dependency_down(dependency, d->kind->reason, str_of(d->error));
		else if (dependency)
			dependency_up(dependency);
	}
}

static void fetched(struct side_call *c)
{
	struct remote_document *d = c->arg;
	const struct remote_kind *kind = d->kind;
	struct remote_news n = { .content = NULL };
	void *unneeded = NULL;
	bool is_last;

	read_answer(d, c, &n);
	if (!n.content || is_another(d, &n))
		kind->log(d->name, &n);
	side_call_free(c);
	lock();
	d->is_down = !n.content;
	memcpy(d->error, n.error, sizeof d->error);
	if (n.content)
		unneeded = use_content(d, &n);
	else
		d->due_ms = clock_ms() + (has_content(d) ? REMOTE_AGAIN_MS : REMOTE_RETRY_MS);
	tell_users(d);
	atomic_store_explicit(&d->is_fetching, false, memory_order_release);
	is_last = is_unused(d);
	unlock();
	/* From here on it may be gone, unless it is ours. */
	kind->drop(unneeded);
	if (is_last)
		document_free(d);
}

/* ---------- fetching ---------- */

/* Of a document that the caller claimed; not under the lock. */
static void fetch(struct remote_document *d, struct worker *w)
{
	const struct header accept = { .name = STR("Accept"), .value = d->kind->accept, .id = HEADER_ACCEPT };
	const struct side_request request = {
		.kind = d->kind->side, .url = d->url, .headers = &accept, .n_headers = 1,
		.timeout_ms = REMOTE_FETCH_TIMEOUT_MS, .body_max = REMOTE_BYTES_MAX,
		.redirects_max = REMOTE_REDIRECTS_MAX,
	};

	side_call_start(side_call_new(w, fetched, d), &request);
}

/* Under the lock: one fetch at a time. */
static bool claim(struct remote_document *d)
{
	return !atomic_exchange_explicit(&d->is_fetching, true, memory_order_relaxed);
}

/* Whether there are documents at all. */
static bool fetch_due(struct worker *w)
{
	struct remote_document *due = NULL, *d;
	struct map_entry *e;
	bool has_some;

	lock();
	has_some = documents.by_key.n > 0;
	for (size_t i = 0; (e = map_next(&documents.by_key, &i));) {
		d = e->value;
		has_content(d);
		if (clock_ms() < d->due_ms || !claim(d))
			continue;
		d->next = due;
		due = d;
	}
	unlock();
	while ((d = due)) {
		due = d->next;
		fetch(d, w);
	}
	return has_some;
}

static _Thread_local struct {
	struct timer timer;
	struct worker *worker;
} ticker;

static void tick(struct timer *t)
{
	if (fetch_due(ticker.worker))
		loop_arm(worker_loop(ticker.worker), t, TICK_MS);
}

void remote_documents_tend(struct worker *w)
{
	if (!ticker.worker)
		timer_init(&ticker.timer, tick);
	ticker.worker = w;
	tick(&ticker.timer);
}

/* ---------- what a request needs ---------- */

uint64_t remote_document_version(const struct remote_user *u)
{
	return atomic_load_explicit(&u->document->version, memory_order_acquire);
}

static bool is_fetched(struct poll_wait *w)
{
	return !atomic_load_explicit(&CONTAINER(w, struct remote_use, wait)->document->is_fetching,
				     memory_order_acquire);
}

static void leave(struct poll_wait *w)
{
	struct remote_use *u = CONTAINER(w, struct remote_use, wait);

	atomic_fetch_sub_explicit(&u->document->waiting, 1, memory_order_relaxed);
	u->document = NULL;
}

/* Under the lock; there is a fetch under way. False: its patience is at an end, or too many wait already. */
static bool begin_waiting(struct remote_use *u, struct remote_document *d)
{
	if (u->wait.until_ms == 0)
		u->wait.until_ms = clock_ms() + REMOTE_WAIT_MS;
	if (clock_ms() >= u->wait.until_ms ||
	    atomic_load_explicit(&d->waiting, memory_order_relaxed) >= REMOTE_WAITING_MAX)
		return false;
	atomic_fetch_add_explicit(&d->waiting, 1, memory_order_relaxed);
	u->document = d;
	u->wait.is_over = is_fetched;
	u->wait.leave = leave;
	return true;
}

/* Under the lock: whether this request brings a fetch. is_served: the content has what it needs. */
static bool is_time(struct remote_document *d, bool has_some, bool is_served)
{
	if (clock_ms() >= d->due_ms)
		return claim(d);
	if (!has_some || is_served || clock_ms() < d->ask_again_ms || !claim(d))
		return false;
	d->ask_again_ms = clock_ms() + REMOTE_AGAIN_MS;
	return true;
}

static enum remote_answer hold(struct remote_use *u, const struct remote_document *d)
{
	d->kind->hold(d->content);
	u->content = d->content;
	u->version = atomic_load_explicit(&d->version, memory_order_relaxed);
	return REMOTE_HELD;
}

enum remote_answer remote_use_begin(struct remote_use *u, const struct remote_user *of, struct exchange *x)
{
	struct remote_document *d = of->document;
	enum remote_answer answer = REMOTE_NONE;
	bool has_some, is_served, is_mine;

	lock();
	has_some = has_content(d);
	is_served = has_some && (!u->serves || u->serves(u, d->content));
	is_mine = is_time(d, has_some, is_served);
	if (!is_served && atomic_load_explicit(&d->is_fetching, memory_order_relaxed) && begin_waiting(u, d))
		answer = REMOTE_AWAITED;
	else if (has_some)
		answer = hold(u, d);
	unlock();
	if (is_mine)
		fetch(d, exchange_worker(x));
	if (answer == REMOTE_AWAITED)
		poll_wait_start(&u->wait, x);
	return answer;
}

void *remote_document_look(const struct remote_user *u)
{
	struct remote_document *d = u->document;
	void *content = NULL;

	lock();
	if (has_content(d)) {
		d->kind->hold(d->content);
		content = d->content;
	}
	unlock();
	return content;
}
