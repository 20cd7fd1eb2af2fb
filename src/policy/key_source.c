#include "policy/key_source.h"
#include <errno.h>
#include "core/clock.h"
#include "core/log.h"
#include "core/map.h"
#include "core/mem.h"
#include "policy/jwks.h"
#include "proxy/side_call.h"
#include "proxy/worker.h"

#define TICK_MS 1000
#define REASON "the key set cannot be fetched"
#define ERROR_MAX 160

/*
 * All but `url` is guarded by the lock, or atomic and written under it. `set` is replaced by whoever fetches only, who
 * may read it without the lock. A source is there as long as it has users or is being fetched.
 */
struct key_source {
	struct str url;                   /* behind the struct; absent: the set stood in the configuration */
	struct list users;
	struct key_set *set;              /* the last good one; NULL: none yet */
	_Atomic(uint64_t) version;        /* of the set while it may be used; else 0 */
	int64_t due_ms;                   /* of the next fetch */
	int64_t good_until_ms;            /* of the set */
	int64_t ask_again_ms;             /* no fetch for an unknown key id before */
	atomic_bool is_fetching;
	atomic_uint waiting;
	bool is_down;
	char error[ERROR_MAX];            /* of the last fetch, while it is down */
	struct key_source *next;          /* of those about to be fetched */
};

static struct {
	pthread_mutex_t lock;
	struct map by_url;                /* all but the inline ones */
	uint64_t versions;
} sources = { .lock = PTHREAD_MUTEX_INITIALIZER };

static void lock(void)
{
	pthread_mutex_lock(&sources.lock);
}

static void unlock(void)
{
	pthread_mutex_unlock(&sources.lock);
}

/* ---------- users ---------- */

static void source_free(struct key_source *s)
{
	key_set_drop(s->set);
	mem_free(s);
}

static struct key_source *source_new(struct str url)
{
	struct key_source *s = mem_alloc(sizeof *s + url.n);
	char *copy = (char *)(s + 1);

	memcpy(copy, url.p ? url.p : "", url.n);
	s->url = (struct str){ url.n ? copy : NULL, url.n };
	list_init(&s->users);
	return s;
}

static struct key_source *source_inline(struct str text)
{
	struct key_source *s = source_new((struct str){ NULL, 0 });
	struct problem why = { 0 };

	s->set = key_set_read(text, true, &why);
	if (!s->set)
		log_warn("keys.unusable", F_STR("why", str_of(why.text)));
	else if (s->set->passed_over > 0)
		log_warn("keys.passed_over", F_INT("keys", s->set->n), F_INT("passedOver", s->set->passed_over));
	s->good_until_ms = INT64_MAX;
	return s;
}

static void join(struct key_source *s, struct key_user *u, struct dependency *d)
{
	u->source = s;
	u->dependency = d;
	list_append(&s->users, &u->node);
	if (s->is_down && d)
		dependency_down(d, REASON, str_of(s->error));
}

void key_user_open(struct key_user *u, struct str jwks, struct dependency *d)
{
	struct key_source *s = jwks_is_inline(jwks) ? source_inline(jwks) : NULL;

	lock();
	if (s) {
		atomic_store_explicit(&s->version, s->set ? ++sources.versions : 0, memory_order_relaxed);
	} else {
		s = map_get(&sources.by_url, jwks);
		if (!s) {
			s = source_new(jwks);
			map_put(&sources.by_url, s->url, s);
		}
	}
	join(s, u, d);
	unlock();
}

/* Under the lock. Whether it was the last thing that held the source: then it is nobody's but the caller's. */
static bool is_unused(struct key_source *s)
{
	if (!list_is_empty(&s->users) || atomic_load_explicit(&s->is_fetching, memory_order_relaxed))
		return false;
	if (s->url.n)
		map_remove(&sources.by_url, s->url);
	if (sources.by_url.n == 0)
		map_free(&sources.by_url);
	return true;
}

void key_user_close(struct key_user *u)
{
	struct key_source *s = u->source;
	bool is_last;

	if (!s)
		return;
	lock();
	list_remove(&u->node);
	u->source = NULL;
	is_last = is_unused(s);
	unlock();
	if (is_last)
		source_free(s);
}

/* ---------- what a fetch brought ---------- */

/* One directive of Cache-Control: -1 when it does not say how long. */
static int64_t directive_age(struct str part)
{
	uint64_t n;

	if (str_equal_nocase(part, STR("no-store")) || str_equal_nocase(part, STR("no-cache")))
		return 0;
	if (part.n <= 8 || !str_equal_nocase((struct str){ part.p, 8 }, STR("max-age=")) ||
	    !str_to_u64((struct str){ part.p + 8, part.n - 8 }, INT64_MAX, &n))
		return -1;
	return n < KEY_REFRESH_MAX_S ? (int64_t)n : KEY_REFRESH_MAX_S;
}

/* Seconds until the next fetch: the least that the answer says. */
static int64_t read_max_age(const struct message *res)
{
	int64_t least = KEY_REFRESH_MAX_S;
	bool says = false;

	for (const struct header *h = message_find(res, HEADER_CACHE_CONTROL); h; h = message_find_next(res, h)) {
		struct str rest = h->value, part;

		while (str_split(&rest, ',', &part)) {
			int64_t age = directive_age(str_trim(part));

			says = says || age >= 0;
			least = age >= 0 && age < least ? age : least;
		}
	}
	if (!says)
		return KEY_REFRESH_S;
	return least > KEY_REFRESH_MIN_S ? least : KEY_REFRESH_MIN_S;
}

/* The set in the answer, or NULL and in words why there is none. */
static struct key_set *read_answer(const struct side_call *c, char error[ERROR_MAX])
{
	struct problem why = { 0 };
	struct key_set *set = NULL;
	char text[64];

	if (c->failure != SIDE_ANSWERED)
		snprintf(error, ERROR_MAX, "%s%s%s", side_failure_text(c->failure), c->detail || c->error ? ": " : "",
			 c->detail ? c->detail : c->error ? strerror_r(c->error, text, sizeof text) : "");
	else if (c->res.status != 200)
		snprintf(error, ERROR_MAX, "it answered %d", c->res.status);
	else if (!(set = key_set_read(c->body, false, &why)))
		snprintf(error, ERROR_MAX, "its answer is not a key set: %s", why.text);
	return set;
}

static void use_set(struct key_source *s, struct key_set *set, int64_t age_s)
{
	const bool is_same = s->set && memcmp(s->set->digest, set->digest, sizeof set->digest) == 0;

	if (is_same) {
		key_set_drop(set);
	} else {
		key_set_drop(s->set);
		s->set = set;
	}
	if (!is_same || atomic_load_explicit(&s->version, memory_order_relaxed) == 0)
		atomic_store_explicit(&s->version, ++sources.versions, memory_order_release);
	s->due_ms = clock_ms() + age_s * 1000;
	s->good_until_ms = s->due_ms + INT64_C(1000) * KEY_STALE_S;
}

/* Whether there is a set that may be used; one that is too old is none from now on. */
static bool has_set(struct key_source *s)
{
	if (s->set && clock_ms() < s->good_until_ms)
		return true;
	atomic_store_explicit(&s->version, 0, memory_order_release);
	return false;
}

static void tell_users(const struct key_source *s)
{
	LIST_EACH(node, (struct list *)(uintptr_t)&s->users) {
		struct dependency *d = CONTAINER(node, struct key_user, node)->dependency;

		if (d && s->is_down)
			dependency_down(d, REASON, str_of(s->error));
		else if (d)
			dependency_up(d);
	}
}

/* For logs: a query may hold what is nobody's business. */
static struct str without_query(struct str url)
{
	return (struct str){ url.p, str_find(url, '?') };
}

static void log_fetch(const struct key_source *s, const struct key_set *set, const char *error)
{
	const struct str url = without_query(s->url);

	if (!set)
		log_warn("keys.fetch_failed", F_STR("url", url), F_STR("why", str_of(error)));
	else if (s->set && memcmp(s->set->digest, set->digest, sizeof set->digest) == 0)
		return;
	else if (set->passed_over > 0)
		log_warn("keys.passed_over", F_STR("url", url), F_INT("keys", set->n),
			 F_INT("passedOver", set->passed_over));
	else
		log_info("keys.fetched", F_STR("url", url), F_INT("keys", set->n));
}

static void fetched(struct side_call *c)
{
	struct key_source *s = c->arg;
	char error[ERROR_MAX] = "";
	struct key_set *set = read_answer(c, error);
	const int64_t age_s = set ? read_max_age(&c->res) : 0;
	bool is_last;

	log_fetch(s, set, error);
	side_call_free(c);
	lock();
	s->is_down = !set;
	memcpy(s->error, error, sizeof error);
	if (set)
		use_set(s, set, age_s);
	else
		s->due_ms = clock_ms() + (has_set(s) ? KEY_UNKNOWN_MS : KEY_RETRY_MS);
	tell_users(s);
	atomic_store_explicit(&s->is_fetching, false, memory_order_release);
	is_last = is_unused(s);
	unlock();
	if (is_last)
		source_free(s);
}

/* ---------- fetching ---------- */

/* Of a source whose is_fetching was set by the caller, under the lock; not under the lock. */
static void fetch(struct key_source *s, struct worker *w)
{
	static const struct header accept = {
		.name = STR("Accept"), .value = STR("application/jwk-set+json, application/json"), .id = HEADER_ACCEPT,
	};
	const struct side_request request = {
		.kind = SIDE_KEYS, .url = s->url, .headers = &accept, .n_headers = 1,
		.timeout_ms = KEY_FETCH_TIMEOUT_MS, .body_max = KEY_SET_BYTES_MAX, .redirects_max = KEY_REDIRECTS_MAX,
	};

	side_call_start(side_call_new(w, fetched, s), &request);
}

/* Under the lock: one fetch at a time. */
static bool claim(struct key_source *s)
{
	return !atomic_exchange_explicit(&s->is_fetching, true, memory_order_relaxed);
}

/* Whether there are sources at all. */
static bool fetch_due(struct worker *w)
{
	struct key_source *due = NULL, *s;
	struct map_entry *e;
	bool has_some;

	lock();
	has_some = sources.by_url.n > 0;
	for (size_t i = 0; (e = map_next(&sources.by_url, &i));) {
		s = e->value;
		has_set(s);
		if (clock_ms() < s->due_ms || !claim(s))
			continue;
		s->next = due;
		due = s;
	}
	unlock();
	while ((s = due)) {
		due = s->next;
		fetch(s, w);
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

void key_sources_tend(struct worker *w)
{
	if (!ticker.worker)
		timer_init(&ticker.timer, tick);
	ticker.worker = w;
	tick(&ticker.timer);
}

/* ---------- what a request needs ---------- */

uint64_t key_source_version(const struct key_user *u)
{
	return atomic_load_explicit(&u->source->version, memory_order_acquire);
}

static bool has_key(const struct key_set *set, struct str kid)
{
	for (unsigned i = 0; i < set->n; i++)
		if (str_equal(set->keys[i].kid, kid))
			return true;
	return !kid.p;
}

static void stop_waiting(struct key_use *u)
{
	timer_disarm(&u->poll);
	atomic_fetch_sub_explicit(&u->source->waiting, 1, memory_order_relaxed);
	u->source = NULL;
}

static void cancel(struct wait *w)
{
	stop_waiting(CONTAINER(w, struct key_use, wait));
}

static void look(struct timer *t)
{
	struct key_use *u = CONTAINER(t, struct key_use, poll);

	if (atomic_load_explicit(&u->source->is_fetching, memory_order_relaxed) && clock_ms() < u->until_ms) {
		loop_arm(worker_loop(exchange_worker(u->wait.x)), t, KEY_POLL_MS);
		return;
	}
	stop_waiting(u);
	wait_done(&u->wait);
}

/* Under the lock; there is a fetch under way. False: its patience is at an end, or too many wait already. */
static bool begin_waiting(struct key_use *u, struct key_source *s)
{
	if (u->until_ms == 0)
		u->until_ms = clock_ms() + KEY_WAIT_MS;
	if (clock_ms() >= u->until_ms ||
	    atomic_load_explicit(&s->waiting, memory_order_relaxed) >= KEY_WAITING_MAX)
		return false;
	atomic_fetch_add_explicit(&s->waiting, 1, memory_order_relaxed);
	u->wait = (struct wait){ .cancel = cancel };
	u->source = s;
	timer_init(&u->poll, look);
	return true;
}

/* Under the lock: whether this request brings a fetch. is_served: the set has the key it needs. */
static bool is_time(struct key_source *s, bool has_some, bool is_served)
{
	if (clock_ms() >= s->due_ms)
		return claim(s);
	if (!has_some || is_served || clock_ms() < s->ask_again_ms || !claim(s))
		return false;
	s->ask_again_ms = clock_ms() + KEY_UNKNOWN_MS;
	return true;
}

static enum key_answer hold(struct key_use *u, const struct key_source *s)
{
	u->set = key_set_hold(s->set);
	u->version = atomic_load_explicit(&s->version, memory_order_relaxed);
	return KEYS_HELD;
}

enum key_answer key_use_begin(struct key_use *u, const struct key_user *of, struct exchange *x, struct str kid)
{
	struct key_source *s = of->source;
	enum key_answer answer = KEYS_NONE;
	bool has_some, is_served, is_mine;

	if (!s->url.n)
		return s->set ? hold(u, s) : KEYS_NONE;
	lock();
	has_some = has_set(s);
	is_served = has_some && has_key(s->set, kid);
	is_mine = is_time(s, has_some, is_served);
	if (!is_served && atomic_load_explicit(&s->is_fetching, memory_order_relaxed) && begin_waiting(u, s))
		answer = KEYS_AWAITED;
	else if (has_some)
		answer = hold(u, s);
	unlock();
	if (is_mine)
		fetch(s, exchange_worker(x));
	if (answer == KEYS_AWAITED)
		loop_arm(worker_loop(exchange_worker(x)), &u->poll, KEY_POLL_MS);
	return answer;
}

void key_use_end(struct key_use *u)
{
	key_set_drop(u->set);
	u->set = NULL;
}

struct key_set *key_source_look(const struct key_user *u)
{
	struct key_source *s = u->source;
	struct key_set *set;

	lock();
	set = has_set(s) ? key_set_hold(s->set) : NULL;
	unlock();
	return set;
}
