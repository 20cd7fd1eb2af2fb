/*
 * compile_consumer.c -- consumers and what they may call, for the snapshot.
 *
 *      consumer ──► consumer_state ─┬─ claims: key digest, user, subject → the one state that has it
 *                                   └─ habits: places, claim names, headers, counted
 *      rule ──► rule_state ──► rule_group (consumer, resource): the longest of its rules counts
 *
 * A change claims what the consumer has, or is refused because another one has it; the maps follow at the publish. All
 * of it costs what the changed consumer has, whatever the number of the others.
 */
#include "control/compile_state.h"
#include "core/mem.h"
#include "policy/key_set.h"
#include "policy/key_source.h"
#include "proxy/consumers.h"
#include "proxy/dependency.h"

struct consumer_state {
	struct str id;                    /* behind the struct */
	struct list dirty;
	struct consumer *wanted;          /* held; NULL = none */
	struct consumer *placed;          /* in the maps; held */
	struct list fetching;             /* consumers_state.fetching, where keys are fetched */
	struct dependency_state issuer;   /* of its keys, as it was read last */
};

struct rule_group {
	struct str key;                   /* consumer id, NUL, resource id; behind the struct */
	struct list dirty;
	struct list rules;                /* rule_state.of_group */
	bool is_placed;
	int64_t placed_ms;
};

struct rule_state {
	struct str id;                    /* behind the struct */
	struct list of_group;
	struct rule_group *group;
	int64_t expires_ms;
};

/* What is one consumer's and nobody else's. Name: a letter for its kind, then its bytes. */
struct claim {
	struct str name;                  /* behind the struct */
	struct consumer_state *owner;
};

/* What several consumers have alike. Key: what it says, and so all there is to know of it. */
struct habit {
	struct str key;                   /* behind the struct */
	unsigned uses;
};

enum habit_kind { KEY_PLACES, TOKEN_PLACES, CLAIMS, HEADERS, HABITS };

struct consumers_state {
	struct map states, rules, groups;
	struct map claims;                /* → struct claim */
	struct map habits[HABITS];        /* → struct habit */
	bool habits_changed;
	struct list dirty_states, dirty_groups;
	struct list fetching;             /* consumer_state.fetching */
	struct pmap *keys, *users, *subjects, *rule_map;
	struct consumer_habits *in_force; /* held */
	struct consumers *consumers;      /* of the last publish; held */
};

/* ---------- documents to consumers ---------- */

static void destroy_consumer(struct part *p)
{
	struct consumer *c = CONTAINER(p, struct consumer, part);
	struct arena arena = c->arena;

	if (c->token) {
		key_set_drop(c->token->keys);
		if (c->token->fetched)
			key_user_close(c->token->fetched);
	}
	/* It lies in its own arena. */
	arena_free(&arena);
}

static void set_field(struct place *p, struct arena *a, struct str name, struct str prefix, bool optional)
{
	*p = (struct place){
		.id = header_lookup(name), .name = arena_copy(a, name), .prefix = arena_copy(a, str_trim(prefix)),
		.prefix_optional = optional,
	};
}

static const struct str authorization = { "authorization", 13 };
static const struct str bearer = { "Bearer", 6 };

static void read_key_places(struct consumer *c, const struct consumer_identities *in)
{
	const struct str name = in->apiKey.source.value;

	c->n_key_places = 1;
	switch ((enum credential_place)in->apiKey.source.source) {
	case KEY_HEADER:
		if (str_equal_nocase(name, authorization))
			set_field(&c->key_places[0], &c->arena, authorization, bearer, true);
		else
			set_field(&c->key_places[0], &c->arena, name, STR(""), false);
		return;
	case KEY_QUERY:
		c->key_places[0] = (struct place){ .is_query = true, .name = arena_copy(&c->arena, name) };
		return;
	case KEY_DEFAULT:
		break;
	}
	set_field(&c->key_places[0], &c->arena, authorization, bearer, false);
	set_field(&c->key_places[1], &c->arena, STR("x-api-key"), STR(""), false);
	c->n_key_places = 2;
}

static unsigned hex_digit(char c)
{
	return c <= '9' ? (unsigned)(c - '0') : (unsigned)(c - 'a') + 10;
}

static bool read_digest(struct str hex, uint8_t out[CONSUMER_DIGEST])
{
	if (hex.n != (size_t)2 * CONSUMER_DIGEST)
		return false;
	for (size_t i = 0; i < CONSUMER_DIGEST; i++)
		out[i] = (uint8_t)(hex_digit(hex.p[2 * i]) << 4 | hex_digit(hex.p[2 * i + 1]));
	return true;
}

static bool read_keys(struct consumer *c, const struct consumer_identities *in, struct problem *why)
{
	const struct items *list = &in->apiKey.credentials;
	uint8_t (*digests)[CONSUMER_DIGEST] = arena_alloc(&c->arena, list->n * CONSUMER_DIGEST);

	for (size_t i = 0; i < list->n; i++)
		if (!read_digest(ITEM(*list, struct api_key_credential, i)->digest, digests[i]))
			return problem(why, "identities.apiKey.credentials", "item %zu has no key", i);
	c->digests = (const uint8_t (*)[CONSUMER_DIGEST])digests;
	c->n_digests = (unsigned)list->n;
	read_key_places(c, in);
	return true;
}

static void read_token_place(struct consumer_token *t, const struct jwt_identity *in, struct arena *a)
{
	const struct str name = in->jwtTokenConfig.key, prefix = in->jwtTokenConfig.prefix;
	int position = in->has_jwtTokenConfig ? in->jwtTokenConfig.position : KEY_DEFAULT;

	if (position == KEY_QUERY)
		t->place = (struct place){ .is_query = true, .name = arena_copy(a, name) };
	else if (position == KEY_HEADER && !str_equal_nocase(name, authorization))
		set_field(&t->place, a, name, prefix, false);
	else
		set_field(&t->place, a, authorization, prefix.n ? prefix : bearer, false);
	t->pass = !in->has_jwtTokenConfig || in->jwtTokenConfig.pass;
}

static void read_claim_headers(struct consumer_token *t, const struct items *list, struct arena *a)
{
	struct claim_header *out = NEW_N(a, struct claim_header, list->n);

	for (size_t i = 0; i < list->n; i++) {
		const struct claim_to_header *in = ITEM(*list, struct claim_to_header, i);

		out[i] = (struct claim_header){
			.claim = arena_copy(a, in->claim), .header = arena_copy(a, in->header),
			.id = header_lookup(in->header), .override = in->override,
		};
	}
	t->headers = out;
	t->n_headers = (unsigned)list->n;
}

static bool read_token(struct consumer *c, const struct jwt_identity *in, struct problem *why)
{
	struct consumer_token *t = NEW(&c->arena, struct consumer_token);

	if (in->jwks.n) {
		t->keys = key_set_read(in->jwks, true, why);
		if (!t->keys) {
			problem_prefix(why, "identities.jwt.jwks");
			return false;
		}
	} else {
		t->fetched = NEW(&c->arena, struct key_user);
		t->issuer = NEW(&c->arena, struct dependency);
		key_user_open(t->fetched, in->remoteJwks.uri, t->issuer);
	}
	t->claim = arena_copy(&c->arena, in->jwtPayloadConfig.payloadKeyName);
	t->value = arena_copy(&c->arena, in->jwtPayloadConfig.payloadKeyValue);
	read_token_place(t, in, &c->arena);
	read_claim_headers(t, &in->claimsToHeadersConfigs, &c->arena);
	c->token = t;
	return true;
}

static bool read_identities(struct consumer *c, const struct consumer_identities *in, struct problem *why)
{
	if (in->has_apiKey && !read_keys(c, in, why))
		return false;
	if (in->has_basic) {
		c->user = arena_copy(&c->arena, in->basic.username);
		c->password = arena_copy(&c->arena, in->basic.passwordHash);
	}
	return !in->has_jwt || read_token(c, &in->jwt, why);
}

/* One reference. NULL fills *why. */
static struct consumer *consumer_new(const struct resource *r, struct problem *why)
{
	struct arena own = { .is_small = true }, scratch = { 0 };
	struct consumer *c = NEW(&own, struct consumer);
	struct consumer_doc doc = { 0 };

	c->part = (struct part){ 1, destroy_consumer };
	c->arena = own;
	bool ok = resource_decode(r, &scratch, &doc, why);

	if (ok) {
		c->id = arena_copy(&c->arena, r->id);
		c->name = arena_copy(&c->arena, doc.name);
		c->enable = doc.enable;
		ok = read_identities(c, &doc.identities, why);
	}
	arena_free(&scratch);
	if (ok)
		return c;
	part_drop(&c->part);
	return NULL;
}

/* ---------- what is one consumer's only ---------- */

enum { CLAIM_KEY = 'k', CLAIM_USER = 'u', CLAIM_SUBJECT = 's', CLAIM_NAME_MAX = CONSUMER_KEY_MAX + 1 };

/* Calls each(arg, name, i) for all that nobody else may have; stops and returns false when each does. */
typedef bool claim_visit(void *arg, struct str name, unsigned i);

static struct str name_claim(char kind, struct str bytes, char out[CLAIM_NAME_MAX])
{
	BUG_ON(bytes.n >= CLAIM_NAME_MAX);
	out[0] = kind;
	memcpy(out + 1, bytes.p, bytes.n);
	return (struct str){ out, bytes.n + 1 };
}

static struct str digest_of(const struct consumer *c, unsigned i)
{
	return (struct str){ (const char *)c->digests[i], CONSUMER_DIGEST };
}

static bool visit_claims(const struct consumer *c, claim_visit *each, void *arg)
{
	char text[CONSUMER_KEY_MAX], name[CLAIM_NAME_MAX];

	for (unsigned i = 0; i < c->n_digests; i++)
		if (!each(arg, name_claim(CLAIM_KEY, digest_of(c, i), name), i))
			return false;
	if (c->user.n && !each(arg, name_claim(CLAIM_USER, c->user, name), 0))
		return false;
	return !c->token || each(arg, name_claim(CLAIM_SUBJECT, consumer_subject_key(c->token->claim, c->token->value,
										      text), name), 0);
}

struct claiming {
	struct consumers_state *all;
	struct consumer_state *state;
	struct problem *why;
};

static bool check_claim(void *arg, struct str name, unsigned i)
{
	const struct claiming *g = arg;
	const struct claim *claim = map_get(&g->all->claims, name);
	const char *what = "the claim";
	char at[64] = "identities.jwt.jwtPayloadConfig.payloadKeyValue";

	if (!claim || claim->owner == g->state)
		return true;
	if (name.p[0] == CLAIM_KEY) {
		what = "a key";
		snprintf(at, sizeof at, "identities.apiKey.credentials[%u].apikey", i);
	} else if (name.p[0] == CLAIM_USER) {
		what = "the user";
		snprintf(at, sizeof at, "identities.basic.username");
	}
	return problem_of(g->why, PROBLEM_CONFLICT, at, "is %s of consumer %.*s already", what,
			  STR_FMT(claim->owner->id));
}

static bool take_claim(void *arg, struct str name, unsigned i)
{
	const struct claiming *g = arg;
	struct claim *claim = map_get(&g->all->claims, name);

	(void)i;
	if (!claim)
		claim = state_new(&g->all->claims, sizeof(*claim), offsetof(struct claim, name), name);
	claim->owner = g->state;
	return true;
}

static bool leave_claim(void *arg, struct str name, unsigned i)
{
	const struct claiming *g = arg;

	(void)i;
	mem_free(map_remove(&g->all->claims, name));
	return true;
}

/* ---------- what several have alike ---------- */

enum { HABIT_NAME_MAX = 1024 };

/* Of a place: how it is read, its name, NUL, its prefix. Names of fields in lower case. */
static struct str name_place(const struct place *p, char out[HABIT_NAME_MAX])
{
	size_t n = 0;

	BUG_ON(p->name.n + p->prefix.n + 2 > HABIT_NAME_MAX);
	out[n++] = p->is_query ? 'q' : p->prefix_optional ? 'o' : 'f';
	for (size_t i = 0; i < p->name.n; i++)
		out[n++] = p->is_query ? p->name.p[i] : str_lower(p->name.p[i]);
	out[n++] = '\0';
	for (size_t i = 0; i < p->prefix.n; i++)
		out[n++] = str_lower(p->prefix.p[i]);
	return (struct str){ out, n };
}

static struct str name_header(struct str header, char out[HABIT_NAME_MAX])
{
	BUG_ON(header.n > HABIT_NAME_MAX);
	for (size_t i = 0; i < header.n; i++)
		out[i] = str_lower(header.p[i]);
	return (struct str){ out, header.n };
}

typedef bool habit_visit(struct consumers_state *all, enum habit_kind kind, struct str name);

static bool visit_token_habits(struct consumers_state *all, const struct consumer_token *t, habit_visit *each)
{
	char name[HABIT_NAME_MAX];

	if (!each(all, TOKEN_PLACES, name_place(&t->place, name)) || !each(all, CLAIMS, t->claim))
		return false;
	for (unsigned i = 0; i < t->n_headers; i++)
		if (t->headers[i].override && !each(all, HEADERS, name_header(t->headers[i].header, name)))
			return false;
	return true;
}

static bool visit_habits(struct consumers_state *all, const struct consumer *c, habit_visit *each)
{
	char name[HABIT_NAME_MAX];

	for (unsigned i = 0; i < c->n_key_places; i++)
		if (!each(all, KEY_PLACES, name_place(&c->key_places[i], name)))
			return false;
	return !c->token || visit_token_habits(all, c->token, each);
}

static bool has_room(struct consumers_state *all, enum habit_kind kind, struct str name)
{
	return all->habits[kind].n < CONSUMER_PLACES_MAX || map_get(&all->habits[kind], name);
}

static bool gain_habit(struct consumers_state *all, enum habit_kind kind, struct str name)
{
	struct habit *h = map_get(&all->habits[kind], name);

	if (!h) {
		h = state_new(&all->habits[kind], sizeof(*h), offsetof(struct habit, key), name);
		all->habits_changed = true;
	}
	h->uses++;
	return true;
}

static bool lose_habit(struct consumers_state *all, enum habit_kind kind, struct str name)
{
	struct habit *h = map_get(&all->habits[kind], name);

	if (--h->uses > 0)
		return true;
	map_remove(&all->habits[kind], h->key);
	mem_free(h);
	all->habits_changed = true;
	return true;
}

static void destroy_habits(struct part *p)
{
	struct consumer_habits *h = CONTAINER(p, struct consumer_habits, part);

	arena_free(&h->arena);
	mem_free(h);
}

static struct place *list_places(struct arena *a, const struct map *from, unsigned *n)
{
	struct place *out = NEW_N(a, struct place, from->n);
	const struct map_entry *e;

	for (size_t i = 0; (e = map_next(from, &i));) {
		BUG_ON(e->key.n == 0);
		struct str text = arena_copy(a, e->key), rest = { text.p + 1, text.n - 1 }, name;
		struct place *p = &out[(*n)++];

		if (!str_split(&rest, '\0', &name))
			continue;
		*p = (struct place){ .is_query = text.p[0] == 'q', .prefix_optional = text.p[0] == 'o', .name = name,
				     .prefix = rest };
		if (!p->is_query)
			p->id = header_lookup(name);
	}
	return out;
}

static struct consumer_habits *list_habits(const struct consumers_state *all)
{
	struct consumer_habits *h = MEM_NEW(struct consumer_habits);
	struct arena *a = &h->arena;
	const struct map_entry *e;

	h->part = (struct part){ 1, destroy_habits };
	h->key_places = list_places(a, &all->habits[KEY_PLACES], &h->n_key_places);
	h->token_places = list_places(a, &all->habits[TOKEN_PLACES], &h->n_token_places);
	h->claims = NEW_N(a, struct str, all->habits[CLAIMS].n);
	for (size_t i = 0; (e = map_next(&all->habits[CLAIMS], &i));)
		h->claims[h->n_claims++] = arena_copy(a, e->key);
	h->headers = NEW_N(a, struct claim_header, all->habits[HEADERS].n);
	for (size_t i = 0; (e = map_next(&all->habits[HEADERS], &i));)
		h->headers[h->n_headers++] = (struct claim_header){ .header = arena_copy(a, e->key),
								    .id = header_lookup(e->key) };
	return h;
}

/* ---------- changes of consumers ---------- */

static struct consumer_state *consumer_get(struct consumers_state *all, struct str id)
{
	struct consumer_state *s = map_get(&all->states, id);

	if (!s) {
		s = state_new(&all->states, sizeof(*s), offsetof(struct consumer_state, id), id);
		list_init(&s->dirty);
		list_init(&s->fetching);
	}
	return s;
}

static void consumer_drop(struct consumer *c)
{
	if (c)
		part_drop(&c->part);
}

static bool check_consumer(struct claiming *g, const struct consumer *c)
{
	if (!visit_claims(c, check_claim, g))
		return false;
	return visit_habits(g->all, c, has_room) ||
	       problem(g->why, "identities", "consumers of a node can have their credentials in at most %d different "
		       "places; use one that another consumer uses", CONSUMER_PLACES_MAX);
}

bool consumer_change(struct compiler *c, const struct change *change, struct problem *why)
{
	const struct resource *r = change->after ? change->after : change->before;
	struct consumers_state *all = c->consumers;
	struct claiming g = { all, consumer_get(all, r->id), why };
	struct consumer *next = change->after ? consumer_new(change->after, why) : NULL;
	bool ok = !change->after || (next && check_consumer(&g, next));

	if (ok) {
		if (g.state->wanted) {
			visit_claims(g.state->wanted, leave_claim, &g);
			visit_habits(all, g.state->wanted, lose_habit);
		}
		consumer_drop(g.state->wanted);
		g.state->wanted = next;
		list_remove(&g.state->fetching);
		if (next && next->token && next->token->issuer)
			list_append(&all->fetching, &g.state->fetching);
		if (next) {
			visit_claims(next, take_claim, &g);
			visit_habits(all, next, gain_habit);
		}
	} else {
		consumer_drop(next);
	}
	/* Also where nothing changed: a state that nobody needs goes then. */
	mark_dirty(&all->dirty_states, &g.state->dirty);
	return ok;
}

/* ---------- changes of rules ---------- */

static struct rule_group *group_get(struct consumers_state *all, struct str key)
{
	struct rule_group *g = map_get(&all->groups, key);

	if (!g) {
		g = state_new(&all->groups, sizeof(*g), offsetof(struct rule_group, key), key);
		list_init(&g->dirty);
		list_init(&g->rules);
	}
	return g;
}

static void leave_group(struct consumers_state *all, struct rule_state *s)
{
	list_remove(&s->of_group);
	mark_dirty(&all->dirty_groups, &s->group->dirty);
	s->group = NULL;
}

static void join_group(struct consumers_state *all, struct rule_state *s, const struct resource *r)
{
	char text[CONSUMER_KEY_MAX];
	struct str mode = json_text(r->doc, "expireMode");
	const struct json *at = json_get(r->doc, "expireTimestamp");

	s->expires_ms = INT64_MAX;
	if (str_equal(mode, STR("ShortTerm")))
		s->expires_ms = at && at->type == JSON_INT ? at->integer : 0;
	s->group = group_get(all, consumer_rule_key(json_text(r->doc, "consumerId"), json_text(r->doc, "resourceId"),
						    text));
	list_append(&s->group->rules, &s->of_group);
	mark_dirty(&all->dirty_groups, &s->group->dirty);
}

bool rule_change(struct compiler *c, const struct change *change, struct problem *why)
{
	const struct resource *r = change->after ? change->after : change->before;
	struct consumers_state *all = c->consumers;
	struct rule_state *s = map_get(&all->rules, r->id);

	(void)why;
	if (s)
		leave_group(all, s);
	if (!change->after) {
		mem_free(map_remove(&all->rules, r->id));
		return true;
	}
	if (!s) {
		s = state_new(&all->rules, sizeof(*s), offsetof(struct rule_state, id), r->id);
		list_init(&s->of_group);
	}
	join_group(all, s, change->after);
	return true;
}

/* ---------- into the maps ---------- */

/* Another one may have the key by now. */
static void unplace(struct pmap **m, struct str key, const struct part *part)
{
	if (pmap_get(*m, key) == part)
		*m = pmap_set(*m, key, NULL);
}

static void unplace_consumer(struct consumers_state *all, const struct consumer *c)
{
	char text[CONSUMER_KEY_MAX];

	for (unsigned i = 0; i < c->n_digests; i++)
		unplace(&all->keys, digest_of(c, i), &c->part);
	if (c->user.n)
		unplace(&all->users, c->user, &c->part);
	if (c->token)
		unplace(&all->subjects, consumer_subject_key(c->token->claim, c->token->value, text), &c->part);
}

static void place_consumer(struct consumers_state *all, struct consumer *c)
{
	char text[CONSUMER_KEY_MAX];

	for (unsigned i = 0; i < c->n_digests; i++)
		all->keys = pmap_set(all->keys, digest_of(c, i), &c->part);
	if (c->user.n)
		all->users = pmap_set(all->users, c->user, &c->part);
	if (c->token)
		all->subjects = pmap_set(all->subjects,
					 consumer_subject_key(c->token->claim, c->token->value, text), &c->part);
}

static void settle_consumer(struct consumers_state *all, struct consumer_state *s)
{
	list_remove(&s->dirty);
	if (s->placed)
		unplace_consumer(all, s->placed);
	if (s->wanted) {
		place_consumer(all, s->wanted);
		part_hold(&s->wanted->part);
	}
	consumer_drop(s->placed);
	s->placed = s->wanted;
	if (s->wanted)
		return;
	map_remove(&all->states, s->id);
	mem_free(s);
}

static void destroy_rule(struct part *p)
{
	mem_free(CONTAINER(p, struct consumer_rule, part));
}

static void place_group(struct consumers_state *all, struct rule_group *g, int64_t expires_ms)
{
	struct consumer_rule *rule = MEM_NEW(struct consumer_rule);

	*rule = (struct consumer_rule){ { 1, destroy_rule }, expires_ms };
	all->rule_map = pmap_set(all->rule_map, g->key, &rule->part);
	part_drop(&rule->part);
	g->is_placed = true;
	g->placed_ms = expires_ms;
}

static void settle_group(struct consumers_state *all, struct rule_group *g)
{
	int64_t expires_ms = INT64_MIN;

	list_remove(&g->dirty);
	LIST_EACH(node, &g->rules) {
		const struct rule_state *s = CONTAINER(node, struct rule_state, of_group);

		expires_ms = s->expires_ms > expires_ms ? s->expires_ms : expires_ms;
	}
	if (!list_is_empty(&g->rules)) {
		if (!g->is_placed || g->placed_ms != expires_ms)
			place_group(all, g, expires_ms);
		return;
	}
	all->rule_map = pmap_set(all->rule_map, g->key, NULL);
	map_remove(&all->groups, g->key);
	mem_free(g);
}

static void destroy_consumers(struct part *p)
{
	struct consumers *c = CONTAINER(p, struct consumers, part);

	pmap_drop(c->keys);
	pmap_drop(c->users);
	pmap_drop(c->subjects);
	pmap_drop(c->rules);
	part_drop(&c->habits->part);
	mem_free(c);
}

static void renew(struct consumers_state *all)
{
	struct consumers *c = MEM_NEW(struct consumers);

	if (all->habits_changed || !all->in_force) {
		if (all->in_force)
			part_drop(&all->in_force->part);
		all->in_force = list_habits(all);
		all->habits_changed = false;
	}
	part_hold(&all->in_force->part);
	*c = (struct consumers){
		.part = { 1, destroy_consumers }, .keys = pmap_hold(all->keys), .users = pmap_hold(all->users),
		.subjects = pmap_hold(all->subjects), .rules = pmap_hold(all->rule_map), .habits = all->in_force,
	};
	if (all->consumers)
		part_drop(&all->consumers->part);
	all->consumers = c;
}

bool consumers_settle(struct compiler *c)
{
	struct consumers_state *all = c->consumers;
	bool any = !list_is_empty(&all->dirty_states) || !list_is_empty(&all->dirty_groups);

	while (!list_is_empty(&all->dirty_states))
		settle_consumer(all, CONTAINER(all->dirty_states.next, struct consumer_state, dirty));
	while (!list_is_empty(&all->dirty_groups))
		settle_group(all, CONTAINER(all->dirty_groups.next, struct rule_group, dirty));
	if (any)
		renew(all);
	return any;
}

void consumers_publish(const struct compiler *c, struct snapshot *s)
{
	s->consumers = c->consumers->consumers;
}

/* ---------- how they are ---------- */

bool compile_consumer_status(const struct compiler *c, struct str consumer_id, struct status *out)
{
	struct consumer_state *state = map_get(&c->consumers->states, consumer_id);
	const struct consumer *who = state ? state->wanted : NULL;
	struct dependency_state issuer;

	if (!who || !who->token || !who->token->issuer)
		return false;
	state->issuer = issuer = dependency_read(who->token->issuer);
	*out = (struct status){ .phase = who->enable ? PHASE_ACTIVE : PHASE_DISABLED };
	if (!issuer.is_down || !who->enable)
		return true;
	*out = (struct status){
		.phase = PHASE_DEGRADED, .reason = str_of(issuer.reason), .last_error = str_of(state->issuer.error),
		.since_ms = issuer.since_ms,
	};
	return true;
}

bool consumers_find_down(const struct compiler *c, bool (*counts)(void *arg, const struct consumer *who), void *arg,
	struct consumer_down *out)
{
	LIST_EACH(node, &c->consumers->fetching) {
		const struct consumer *who = CONTAINER(node, struct consumer_state, fetching)->wanted;

		if (!who->enable)
			continue;
		*out = (struct consumer_down){ who->name, dependency_read(who->token->issuer) };
		if (out->issuer.is_down && counts(arg, who))
			return true;
	}
	return false;
}

/* ---------- life ---------- */

struct consumers_state *consumers_new(void)
{
	struct consumers_state *all = MEM_NEW(struct consumers_state);

	list_init(&all->dirty_states);
	list_init(&all->dirty_groups);
	list_init(&all->fetching);
	all->keys = pmap_new();
	all->users = pmap_new();
	all->subjects = pmap_new();
	all->rule_map = pmap_new();
	renew(all);
	return all;
}

static void free_values(struct map *m)
{
	struct map_entry *e;

	for (size_t i = 0; (e = map_next(m, &i));)
		mem_free(e->value);
	map_free(m);
}

void consumers_free(struct consumers_state *all)
{
	struct map_entry *e;

	part_drop(&all->consumers->part);
	part_drop(&all->in_force->part);
	pmap_drop(all->keys);
	pmap_drop(all->users);
	pmap_drop(all->subjects);
	pmap_drop(all->rule_map);
	for (size_t i = 0; (e = map_next(&all->states, &i));) {
		const struct consumer_state *s = e->value;

		consumer_drop(s->wanted);
		consumer_drop(s->placed);
	}
	free_values(&all->states);
	free_values(&all->rules);
	free_values(&all->groups);
	free_values(&all->claims);
	for (unsigned i = 0; i < HABITS; i++)
		free_values(&all->habits[i]);
	mem_free(all);
}
