/*
 * balance.c -- which endpoint gets the request: what a request says about it. How one of several is chosen is in
 * rotation.c.
 *
 * The usual service, one endpoint and no ServiceLb, is answered before anything else is looked at.
 */
#include "core/clock.h"
#include "core/metric.h"
#include "core/xxh64.h"
#include "http/uri.h"
#include "proxy/exchange.h"
#include "proxy/rotation.h"
#include "proxy/worker.h"

#define COOKIE_DIGITS 16

/* ---------- the only endpoint ---------- */

static const struct endpoint *pick_only(const struct service *s, const struct target *t)
{
	const struct endpoint *e = &s->endpoints[0];
	bool fits = (t->port == 0 || t->port == e->port) && (t->version.n == 0 || str_equal(t->version, e->version));

	if (!fits || e->weight == 0)
		return NULL;
	return endpoint_is_up(e, clock_ms()) || s->panic_percent > 0 ? e : NULL;
}

/* ---------- candidates ---------- */

static struct group *find_group(const struct exchange *x, const struct service *s, const struct group_key *key)
{
	if (UNLIKELY(x->dry != NULL))
		return rotation_group(s, 0, key, x->lanes, 0);
	return rotation_group(s, worker_index(x->worker), key, x->lanes, worker_random64(x->worker));
}

/* Whether a group has an endpoint that is up and, if `is_fresh`, was not tried. */
static bool has(struct pick *p, struct group *g, bool is_fresh)
{
	p->group = g;
	p->is_fresh = is_fresh;
	return rotation_has(p);
}

/*
 * Lane, or baseline when the lane has no endpoint that is up. A try that failed may have been of the lane's last one:
 * then the baseline is tried before the same again.
 */
static struct group *choose_lane(const struct exchange *x, struct pick *p, struct group_key *key)
{
	uint32_t tag = x->lane.n ? rotation_tag(p->service, x->lane) : 0;
	struct group *lane = NULL, *baseline;

	if (tag) {
		key->kind = GROUP_TAGGED;
		key->tag = tag - 1;
		lane = find_group(x, p->service, key);
		if (has(p, lane, true))
			return lane;
		key->tag = 0;
	}
	key->kind = GROUP_BASELINE;
	key->lanes = x->lanes ? x->lanes->hash : 0;
	baseline = find_group(x, p->service, key);
	if (lane && !has(p, baseline, true) && has(p, lane, false))
		return lane;
	p->misses_lane = x->lane.n > 0;
	return baseline;
}

/* Sets p->group. False: the service has no such version. */
static bool choose_group(const struct exchange *x, const struct target *t, struct pick *p)
{
	struct group_key key = { .port = t->port };
	uint32_t version;

	if (t->version.n) {
		version = rotation_tag(p->service, t->version);
		if (!version)
			return false;
		key.kind = GROUP_VERSION;
		key.tag = version - 1;
		p->group = find_group(x, p->service, &key);
	} else if (x->lane.p) {
		p->group = choose_lane(x, p, &key);
	} else {
		p->group = find_group(x, p->service, &key);
	}
	return true;
}

static bool prepare(const struct exchange *x, const struct service *s, const struct target *t, struct pick *p)
{
	*p = (struct pick){
		.service = s, .balance = s->balance, .now_ms = clock_ms(), .tried = x->tried, .n_tried = x->n_tried
	};
	if (!s->rotation || !choose_group(x, t, p))
		return false;
	p->panics = s->panic_percent > 0 && rotation_panics(p);
	p->is_fresh = false;
	return true;
}

/* ---------- keys ---------- */

/*
 * One value for all requests of a connection, so that parallel streams of a new client end at one endpoint. Salted: who
 * knows addresses and ports cannot tell cookies from them.
 */
static struct str make_cookie_value(struct exchange *x)
{
	struct { struct ip ip; uint16_t port; } from;
	char *out = arena_take(&x->arena, COOKIE_DIGITS);
	uint64_t hash;

	memset(&from, 0, sizeof(from));
	from.ip = x->peer_ip;
	from.port = x->peer_port;
	hash = xxh64((struct str){ (const char *)&from, sizeof(from) }, x->service->rotation->salt);
	for (unsigned i = 0; i < COOKIE_DIGITS; i++)
		out[i] = "0123456789abcdef"[hash >> 4 * i & 15];
	return (struct str){ out, COOKIE_DIGITS };
}

static void set_cookie(struct exchange *x, const struct balance *b, struct str value)
{
	struct sbuf line = { 0 };

	sbuf_addf(&line, "%.*s=%.*s", STR_FMT(b->name), STR_FMT(value));
	if (b->cookie_age_s > 0)
		sbuf_addf(&line, "; Max-Age=%lld", (long long)b->cookie_age_s);
	if (b->cookie_path.n)
		sbuf_addf(&line, "; Path=%.*s", STR_FMT(b->cookie_path));
	SBUF_LIT(&line, "; HttpOnly");
	if (exchange_is_tls(x))
		SBUF_LIT(&line, "; Secure");
	x->set_cookie = arena_copy(&x->arena, sbuf_str(&line));
	sbuf_free(&line);
}

/* The client's cookie, or the one it is given now. */
static struct str cookie_key(struct exchange *x, const struct balance *b)
{
	struct str value = message_cookie(&x->stream.req, b->name);

	if (value.n || !b->sets_cookie || x->is_tcp)
		return value;
	value = make_cookie_value(x);
	set_cookie(x, b, value);
	return value;
}

/* "%61" and "a" are the same value. */
static struct str query_key(struct exchange *x, struct str name)
{
	struct str raw = query_value(x->stream.req.query, name), decoded;

	if (!raw.n || (!memchr(raw.p, '%', raw.n) && !memchr(raw.p, '+', raw.n)))
		return raw;
	decoded = uri_decode(&x->arena, raw, true);
	return decoded.p ? decoded : raw;
}

/* What the request is placed by; empty when it does not say. */
static struct str find_key(struct exchange *x, const struct balance *b)
{
	const struct header *h;

	switch (b->key) {
	case BALANCE_KEY_HEADER:
		h = message_find_as(&x->stream.req, b->header_id, b->name);
		return h ? h->value : (struct str){ NULL, 0 };
	case BALANCE_KEY_COOKIE:
		return cookie_key(x, b);
	case BALANCE_KEY_ADDRESS:
		return (struct str){ (const char *)&x->client_ip, sizeof(x->client_ip) };
	case BALANCE_KEY_QUERY:
		return query_key(x, b->name);
	}
	return (struct str){ NULL, 0 };
}

static void take_key(struct exchange *x, struct pick *p)
{
	struct str key = find_key(x, p->balance);

	p->has_key = key.n > 0;
	p->key_hash = p->has_key ? xxh64(key, 0) : 0;
}

/* ---------- the choice ---------- */

static void count(const struct service *s, const struct pick *p)
{
	struct series *const *counts = s->policies->settings.counts[SETTING_BALANCE];

	if (UNLIKELY(counts != NULL))
		setting_count(counts, p->panics ? BALANCE_PANICKED : BALANCE_CHOSEN);
	if (UNLIKELY(p->panics) && s->panics)
		metric_add(s->panics, 1);
	if (UNLIKELY(p->misses_lane) && s->lane_misses)
		metric_add(s->lane_misses, 1);
}

/* Apart, because the usual service shall not pay for its variables. */
__attribute__((noinline)) static const struct endpoint *pick_one(struct exchange *x)
{
	const struct service *s = x->service;
	const struct endpoint *e = NULL;
	struct pick p;

	if (!prepare(x, s, x->target, &p))
		return NULL;
	count(s, &p);
	if (s->balance && s->balance->method != BALANCE_IN_TURN)
		p.random = worker_random64(x->worker);
	if (s->balance && s->balance->method == BALANCE_BY_HASH)
		take_key(x, &p);
	if (p.n_tried > 0) {
		p.is_fresh = true;
		e = rotation_pick(&p);
		p.is_fresh = false;
	}
	return e ? e : rotation_pick(&p);
}

const struct endpoint *balance_pick(struct exchange *x)
{
	const struct service *s = x->service;

	x->set_cookie.n = 0;
	if (LIKELY(s->n_endpoints == 1 && !s->balance && !s->policies->settings.counts[SETTING_BALANCE]))
		return pick_only(s, x->target);
	return pick_one(x);
}

bool balance_has_endpoint(const struct exchange *x, const struct service *s, const struct target *t)
{
	struct pick p;

	if (s->n_endpoints == 1)
		return pick_only(s, t) != NULL;
	return prepare(x, s, t, &p) && rotation_has(&p);
}

static const char *name_method(const struct pick *p)
{
	static const char *const names[] = {
		[BALANCE_IN_TURN] = "in turn, by weight",
		[BALANCE_LEAST_BUSY] = "of two the one with fewer requests in flight",
		[BALANCE_AT_RANDOM] = "at random, by weight",
		[BALANCE_BY_HASH] = "by the hash of its key",
	};
	enum balance_method method = p->balance ? p->balance->method : BALANCE_IN_TURN;

	return names[method == BALANCE_BY_HASH && !p->has_key ? BALANCE_AT_RANDOM : method];
}

const struct endpoint *balance_look(struct exchange *x, bool *may, const char **how)
{
	const struct service *s = x->service;
	const struct endpoint *last = NULL;
	unsigned n = 0;
	struct pick p;

	*how = "there is one";
	if (s->n_endpoints == 1 && !s->balance) {
		last = pick_only(s, x->target);
		may[0] = last != NULL;
		return last;
	}
	if (!prepare(x, s, x->target, &p))
		return NULL;
	if (p.balance && p.balance->method == BALANCE_BY_HASH)
		take_key(x, &p);
	for (unsigned i = 0; i < s->n_endpoints; i++) {
		may[i] = rotation_may_pick(&p, i);
		n += may[i];
		last = may[i] ? &s->endpoints[i] : last;
	}
	*how = n <= 1 ? *how : name_method(&p);
	return n <= 1 ? last : p.has_key ? rotation_pick(&p) : NULL;
}
