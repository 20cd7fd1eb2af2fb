#include "policy/oidc_refresh.h"
#include "core/clock.h"
#include "core/list.h"
#include "core/map.h"
#include "core/mem.h"
#include "policy/oidc_token.h"
#include "proxy/worker.h"

#define WAIT_MS 6000                      /* longer than the call may take */

/* `is_over` is written once, under the lock, after what it tells of; the rest of the lists is under the lock. */
struct oidc_refresh {
	uint8_t key[32];
	struct list node;                 /* by age */
	atomic_bool is_over;
	bool is_listed;
	unsigned users;                   /* exchanges, and the call */
	enum oidc_refresh_end end;
	const char *what;
	char *body;
	size_t body_n;
	int64_t at_s;                     /* wall clock */
	int64_t until_ms;                 /* kept so long; 0 while under way */
};

static struct {
	pthread_mutex_t lock;
	struct map by_key;
	struct list all;                  /* oldest first */
} refreshes = { .lock = PTHREAD_MUTEX_INITIALIZER };

static struct str key_of(const struct oidc_refresh *r)
{
	return (struct str){ (const char *)r->key, sizeof r->key };
}

static void refresh_free(struct oidc_refresh *r)
{
	if (r->body)
		mem_wipe(r->body, r->body_n);
	mem_free(r->body);
	mem_free(r);
}

/* Under the lock. */
static void unlist(struct oidc_refresh *r)
{
	map_remove(&refreshes.by_key, key_of(r));
	list_remove(&r->node);
	r->is_listed = false;
	if (r->users == 0)
		refresh_free(r);
}

/* Under the lock: what was kept long enough. Some at a time: each newcomer makes more room than it takes. */
static void drop_old(void)
{
	struct list *node = refreshes.all.next;

	for (unsigned i = 0; i < 8 && node && node != &refreshes.all; i++) {
		struct oidc_refresh *r = CONTAINER(node, struct oidc_refresh, node);

		node = node->next;
		if (r->until_ms != 0 && clock_ms() >= r->until_ms)
			unlist(r);
	}
}

static void leave(struct oidc_refresh *r)
{
	pthread_mutex_lock(&refreshes.lock);
	if (--r->users == 0 && !r->is_listed)
		refresh_free(r);
	pthread_mutex_unlock(&refreshes.lock);
}

/* ---------- the call ---------- */

static void judge(struct oidc_refresh *r, const struct side_call *c)
{
	struct arena scratch = { 0 };

	r->end = OIDC_REFRESH_FAILED;
	r->what = "";
	if (c->failure != SIDE_ANSWERED) {
		r->what = side_failure_text(c->failure);
	} else if (c->res.status == 200) {
		r->end = OIDC_REFRESH_TOKENS;
		r->body = mem_alloc(c->body.n + 1);
		r->body_n = c->body.n;
		if (c->body.n)
			memcpy(r->body, c->body.p, c->body.n);
	} else if (c->res.status < 500 && strcmp(oidc_error_read(&scratch, c->body), "invalid_grant") == 0) {
		r->end = OIDC_REFRESH_REFUSED;
	} else {
		r->what = "it does not answer a refresh with tokens";
	}
	arena_free(&scratch);
}

static void answered(struct side_call *c)
{
	struct oidc_refresh *r = c->arg;

	judge(r, c);
	side_call_free(c);
	r->at_s = clock_wall_ms() / 1000;
	pthread_mutex_lock(&refreshes.lock);
	r->until_ms = clock_ms() + (r->end == OIDC_REFRESH_FAILED ? OIDC_REFRESH_FAILED_MS : OIDC_REFRESH_KEEP_MS);
	atomic_store_explicit(&r->is_over, true, memory_order_release);
	pthread_mutex_unlock(&refreshes.lock);
	leave(r);
}

static void start(struct oidc_refresh *r, struct exchange *x, const struct side_request *request)
{
	struct side_call *c = side_call_new(exchange_worker(x), answered, r);
	struct side_request copy = *request;
	char *body = side_call_memory(c, request->body.n + 1);

	if (request->body.n)
		memcpy(body, request->body.p, request->body.n);
	copy.body = (struct str){ body, request->body.n };
	side_call_start(c, &copy);
}

/* ---------- a request's part ---------- */

static bool is_over(struct poll_wait *w)
{
	return atomic_load_explicit(&CONTAINER(w, struct oidc_refresh_use, wait)->refresh->is_over,
				    memory_order_acquire);
}

static void end_use(struct arena_defer *defer)
{
	leave(CONTAINER(defer, struct oidc_refresh_use, defer)->refresh);
}

/* Under the lock. NULL: there are too many. */
static struct oidc_refresh *find_or_make(const uint8_t key[32], bool *is_new)
{
	struct oidc_refresh *r;

	if (!refreshes.all.next)
		list_init(&refreshes.all);
	drop_old();
	r = map_get(&refreshes.by_key, (struct str){ (const char *)key, 32 });
	if (r && r->until_ms != 0 && clock_ms() >= r->until_ms) {
		unlist(r);
		r = NULL;
	}
	*is_new = !r;
	if (r || refreshes.by_key.n >= OIDC_REFRESHES_MAX)
		return r;
	r = MEM_NEW(struct oidc_refresh);
	memcpy(r->key, key, sizeof r->key);
	r->users = 1;                     /* the call's */
	r->is_listed = true;
	list_append(&refreshes.all, &r->node);
	map_put(&refreshes.by_key, key_of(r), r);
	return r;
}

bool oidc_refresh_join(struct oidc_refresh_use *u, struct exchange *x, const uint8_t key[32],
		       const struct side_request *request)
{
	struct oidc_refresh *r;
	bool is_new;

	pthread_mutex_lock(&refreshes.lock);
	r = find_or_make(key, &is_new);
	if (r)
		r->users++;
	pthread_mutex_unlock(&refreshes.lock);
	if (!r)
		return false;
	u->refresh = r;
	arena_defer(exchange_arena(x), &u->defer, end_use);
	if (is_new)
		start(r, x, request);
	u->wait.is_over = is_over;
	u->wait.leave = NULL;
	u->wait.until_ms = clock_ms() + WAIT_MS;
	poll_wait_start(&u->wait, x);
	return true;
}

enum oidc_refresh_end oidc_refresh_result(const struct oidc_refresh_use *u, struct str *body, int64_t *at_s,
					  const char **what)
{
	const struct oidc_refresh *r = u->refresh;

	*body = (struct str){ NULL, 0 };
	*at_s = 0;
	*what = "it took too long";
	if (!atomic_load_explicit(&r->is_over, memory_order_acquire))
		return OIDC_REFRESH_FAILED;
	*body = (struct str){ r->body, r->body_n };
	*at_s = r->at_s;
	*what = r->what;
	return r->end;
}
