/*
 * ai_cache.c -- AiCache: answers of models are kept and given again for the same question (exact) or a similar one
 * (semantic).
 *
 *      request     key ──► on its way to Redis already? ──► Redis ──► (semantic: the nearest question) ──► hit, or miss
 *      whole       response leg, behind guards and Waf: kept, if it may be
 *      events      settled, when the last piece has passed all data hooks: likewise
 *
 * Redis holds the answers. Semantic mode also needs a vector store and a service that makes embeddings. Whatever fails
 * is a miss. Nothing is waited for on the way back: what is kept goes to Redis beside the answer.
 */
#include "ai/render.h"
#include "core/clock.h"
#include "core/crypto.h"
#include "core/mem.h"
#include "policy/ai_cache_semantic.h"
#include "policy/cache_entry.h"
#include "policy/cache_flight.h"
#include "policy/cache_key.h"
#include "policy/cache_pending.h"
#include "policy/redis_link.h"
#include "proxy/side_call.h"

enum outcome { HIT, MISS, SKIP, STORED, BROKEN, SIMILAR };

enum cache_mode { CACHE_EXACT, CACHE_SEMANTIC };

struct ai_cache {
	bool enable;
	int64_t cacheTTL;
	int cacheMode, cacheKeyStrategy;
	struct redis_config redisConfig;
	bool has_vector, has_embedding;
	struct vector_config vectorConfig;
	struct embedding_config embeddingConfig;
};

static const struct choice modes[] = {
	{ CACHE_EXACT, "exact", "Only the same question hits.", NULL },
	{ CACHE_SEMANTIC, "semantic", "A question with a similar meaning hits too.", NULL },
	{ 0, NULL, NULL, NULL }
};

static const struct choice strategies[] = {
	{ CACHE_MESSAGES, "messages", "All messages are the question.", NULL },
	{ CACHE_LAST_QUESTION, "lastQuestion", "The last user message is the question.", NULL },
	{ CACHE_ALL_QUESTIONS, "allQuestions", "All user messages are the question.", NULL },
	{ CACHE_DISABLED, "disabled", "Nothing is looked up or kept.", NULL },
	{ 0, NULL, NULL, NULL }
};

static const struct field fields[] = {
	BOOL(struct ai_cache, enable, REQUIRED, DOC("Whether the policy acts.")),
	INT(struct ai_cache, cacheTTL, REQUIRED, RANGE(1, 365 * 24 * 3600), UNIT("seconds"), EXAMPLE("3600"),
	    DOC("How long an answer is kept.")),
	CHOICE(struct ai_cache, cacheMode, modes, REQUIRED, DOC("Which questions hit.")),
	CHOICE(struct ai_cache, cacheKeyStrategy, strategies, DEFAULT("\"messages\""),
	       DOC("What of the request is the question; the rest of it is part of the key in any case.")),
	OBJECT(struct ai_cache, redisConfig, redis_config_fields, REQUIRED, DOC("Where the answers live.")),
	OBJECT(struct ai_cache, vectorConfig, vector_config_fields, WHEN("cacheMode", CACHE_SEMANTIC),
	       PRESENT(struct ai_cache, has_vector), DOC("Vector store of the semantic mode.")),
	OBJECT(struct ai_cache, embeddingConfig, embedding_config_fields, WHEN("cacheMode", CACHE_SEMANTIC),
	       PRESENT(struct ai_cache, has_embedding), DOC("Embeddings of the semantic mode.")),
	FIELDS_END
};

static bool check(const void *vconf, struct problem *why)
{
	const struct ai_cache *conf = vconf;

	return redis_config_check(&conf->redisConfig, why) &&
	       (!conf->has_vector || semantic_check(&conf->vectorConfig, why));
}

static bool attach(const void *vconf, const struct attach_target *t, struct problem *why)
{
	const struct ai_cache *conf = vconf;

	return conf->cacheMode != CACHE_SEMANTIC || semantic_attach(&conf->embeddingConfig, t, why);
}

/* ---------- what lasts ---------- */

struct cell {
	struct cache_health health;
	struct redis_user user;
	struct dependency redis;          /* semantic mode: Redis is one part of `health` */
};

static void begin_cell(void *memory, const void *vconf)
{
	const struct ai_cache *conf = vconf;
	struct cell *cell = memory;
	bool is_exact = conf->cacheMode == CACHE_EXACT;

	redis_user_begin(&cell->user, &conf->redisConfig, is_exact ? &cell->health.shown : &cell->redis);
}

static void end_cell(void *memory)
{
	struct cell *cell = memory;

	redis_user_end(&cell->user);
}

/* What the gateway's settings and other resources say. */
struct plan {
	struct part part;
	bool shares_consumers;
	int64_t coalesce_ms;              /* how long equal questions wait for the first of them; 0 = not */
	struct part *semantic;            /* NULL in exact mode */
};

static void destroy_plan(struct part *part)
{
	struct plan *plan = CONTAINER(part, struct plan, part);

	part_drop(plan->semantic);
	mem_free(plan);
}

static struct part *bind(const void *vconf, void *cell, const struct attach_target *t)
{
	const struct ai_cache *conf = vconf;
	struct plan *plan = MEM_NEW(struct plan);

	(void)cell;
	plan->part = (struct part){ 1, destroy_plan };
	plan->shares_consumers = t->setting(t, "ai.cache.share_consumers")->boolean;
	plan->coalesce_ms = t->setting(t, "ai.cache.coalesce_ms")->integer;
	if (conf->cacheMode == CACHE_SEMANTIC)
		plan->semantic = semantic_bind(&conf->vectorConfig, &conf->embeddingConfig, t);
	return &plan->part;
}

static const struct plan *plan_of(const struct step *s)
{
	return CONTAINER(s->bound, const struct plan, part);
}

/* NULL in exact mode. */
static const struct semantic *semantic(const struct step *s)
{
	return (const struct semantic *)(const void *)plan_of(s)->semantic;
}

struct state {
	struct cache_question question;
	struct redis_ask *exact;
	struct semantic_ask *similar;     /* NULL: was not asked */
	struct cache_flight flight;
	int64_t age_s;
	bool may_keep;                    /* the answer, if it is one that is kept */
	bool is_kept;                     /* or never will be */
};

/* ---------- hits ---------- */

static uint64_t random_seed(void)
{
	uint64_t seed;

	crypto_random(&seed, sizeof(seed));
	return seed;
}

static enum verdict give(struct exchange *x, const struct chat *c, const struct cache_entry *e)
{
	struct rendered r = { .model = e->model, .text = e->text, .reasoning = e->reasoning, .finish = STR("stop"),
		.seed = random_seed(), .now_ms = clock_wall_ms() };
	struct arena *a = exchange_arena(x);
	enum verdict v;

	if (e->body.p)
		return reply(x, 200, STR("application/json"), e->body);
	render_ask(&r, c->kind, exchange_path(x), c->body);
	if (!c->is_stream)
		return reply(x, 200, STR("application/json"), render_body(&r, a));
	v = reply(x, 200, STR("text/event-stream; charset=utf-8"), render_stream(&r, a));
	message_add(exchange_response(x), STR("Cache-Control"), STR("no-cache"));
	return v;
}

/* Headers are added by add_status(), which runs for all answers. */
static enum verdict hit(struct exchange *x, const struct step *s, const struct cache_entry *e)
{
	struct state *state = exchange_state(x, s);
	struct chat *c = exchange_chat(x);
	int64_t age_s = clock_wall_ms() / 1000 - e->created_s;

	state->age_s = age_s > 0 ? age_s : 0;
	c->cache = CHAT_CACHE_HIT;
	policy_count(s, state->similar ? SIMILAR : HIT);
	return give(x, c, e);
}

/* ---------- misses ---------- */

static enum verdict look_again(struct exchange *x, const struct step *s);

/* For another one that asks the same. Streams flow as they come: nobody waits for one, and they wait for nobody. */
static bool may_wait(const struct step *s, const struct chat *c)
{
	return plan_of(s)->coalesce_ms > 0 && !semantic(s) && !c->is_stream && !cache_asks_for_more(c);
}

static enum verdict ask_anew(struct exchange *x, const struct step *s)
{
	struct state *state = exchange_state(x, s);
	struct chat *c = exchange_chat(x);

	c->cache = CHAT_CACHE_MISS;
	policy_count(s, MISS);
	state->may_keep = !cache_asks_for_more(c);
	if (!state->may_keep)
		return next();
	c->wants_text = true;
	c->wants_usage = true;
	return next();
}

static enum verdict miss(struct exchange *x, const struct step *s)
{
	struct state *state = exchange_state(x, s);

	if (may_wait(s, exchange_chat(x)) &&
	    cache_flight_join(&state->flight, x, state->question.key, plan_of(s)->coalesce_ms))
		return await(x, &state->flight.entry.wait, look_again);
	return ask_anew(x, s);
}

static enum verdict skip(struct exchange *x, const struct step *s)
{
	exchange_chat(x)->cache = CHAT_CACHE_SKIP;
	policy_count(s, SKIP);
	return next();
}

static void forget_entry(struct exchange *x, const struct step *s)
{
	const struct ai_cache *conf = s->conf;
	struct state *state = exchange_state(x, s);
	const struct str words[] = { STR("DEL"), state->question.key };

	redis_tell(exchange_worker(x), &conf->redisConfig, &(struct redis_words){ 2, words, 1 }, NULL, NULL);
}

/* ---------- keeping ---------- */

static void arrived(void *arg, enum redis_failure failure, const struct redis_reply *reply)
{
	(void)failure;
	(void)reply;
	cache_pending_end(arg);
}

/* To Redis, under the exact key; found on this node from now on. */
static void put_exact(struct exchange *x, const struct step *s, struct str value, int64_t ttl_s)
{
	const struct ai_cache *conf = s->conf;
	const struct state *state = exchange_state(x, s);
	struct str ttl = arena_printf(exchange_arena(x), "%lld", (long long)ttl_s);
	const struct str words[] = { STR("SET"), state->question.key, value, STR("EX"), ttl };

	redis_tell(exchange_worker(x), &conf->redisConfig, &(struct redis_words){ 5, words, 1 }, arrived,
		   cache_pending_put(state->question.key, value));
}

static void put_similar(struct exchange *x, const struct step *s, struct str value)
{
	const struct ai_cache *conf = s->conf;
	const struct state *state = exchange_state(x, s);
	struct cell *cell = s->cell;

	if (!semantic(s) || !state->question.text.p)
		return;
	semantic_keep(x, semantic(s), &cell->health, state->similar, &(struct semantic_row){
		.partition = state->question.partition, .id = state->question.key, .text = state->question.text,
		.value = value, .ttl_s = conf->cacheTTL });
}

static void keep(struct exchange *x, const struct step *s, struct cache_entry *e)
{
	const struct ai_cache *conf = s->conf;
	struct str value;

	e->created_s = clock_wall_ms() / 1000;
	value = cache_entry_write(e, exchange_arena(x));
	if (!value.p)
		return;
	put_exact(x, s, value, conf->cacheTTL);
	put_similar(x, s, value);
	policy_count(s, STORED);
}

static bool is_good_end(struct str finish)
{
	static const struct str ends[] = { STR("stop"), STR("end_turn"), STR("completed") };

	for (size_t i = 0; i < sizeof(ends) / sizeof(*ends); i++)
		if (str_equal(finish, ends[i]))
			return true;
	return finish.n == 0;
}

static bool is_blank(struct str s)
{
	for (size_t i = 0; i < s.n; i++)
		if ((unsigned char)s.p[i] > ' ')
			return false;
	return true;
}

/* The answer is of the service that was meant, and a guard that looks at it was content. */
static bool is_first_hand(const struct exchange *x, const struct chat *c)
{
	if (c->end != CHAT_COMPLETE || c->status != 200 || c->guard_cut || c->try_at > 0 || c->fallback_from.n > 0 ||
	    exchange_service_turn(x) > 0)
		return false;
	return !c->is_guarded || !str_equal(c->safecheck_status, STR("error"));
}

/* Texts of the answer are the chat's. False: it is not one that is kept. */
static bool take_answer(const struct chat *c, struct cache_entry *e)
{
	const struct answer *a = &c->answer;

	if (!a->is_complete || a->is_cut || a->has_error || a->has_more || a->n_tools > 0 || a->n_choices > 1 ||
	    !is_good_end(sbuf_str(&a->finish_reason)) || is_blank(sbuf_str(&a->text)))
		return false;
	*e = (struct cache_entry){ .kind = c->kind, .model = a->model.n ? sbuf_str(&a->model) : c->model,
		.text = sbuf_str(&a->text), .reasoning = sbuf_str(&a->reasoning) };
	return true;
}

/* Nobody worked for it when it is given again: its usage is zero. */
static bool take_embeddings(struct exchange *x, struct cache_entry *e)
{
	static const struct str zeros = STR("{\"prompt_tokens\":0,\"total_tokens\":0}");
	struct arena *a = exchange_arena(x);
	bool is_whole;
	struct str body = exchange_response_body(x, &is_whole);
	const struct json *doc, *usage;
	struct problem unused;
	struct edits edits;

	if (!is_whole || body.n > CACHE_ENTRY_MAX)
		return false;
	doc = json_parse_spans(a, body, CACHE_ENTRY_MAX, &unused);
	if (!doc || doc->type != JSON_OBJECT || !json_get(doc, "data"))
		return false;
	edits_init(&edits, a, body);
	usage = json_get(doc, "usage");
	if (usage)
		edits_replace(&edits, usage, zeros);
	*e = (struct cache_entry){ .kind = AI_EMBEDDINGS, .body = edits_apply(&edits, a) };
	return true;
}

static void keep_answer(struct exchange *x, const struct step *s)
{
	struct state *state = exchange_state(x, s);
	struct chat *c = exchange_chat(x);
	struct cache_entry e;

	if (!state->may_keep || state->is_kept || !is_first_hand(x, c))
		return;
	state->is_kept = true;
	if (c->kind == AI_EMBEDDINGS ? take_embeddings(x, &e) : take_answer(c, &e))
		keep(x, s, &e);
}

/* ---------- looking ---------- */

static enum verdict compared(struct exchange *x, const struct step *s)
{
	struct state *state = exchange_state(x, s);
	struct semantic_ask *asked = state->similar;
	struct chat *c = exchange_chat(x);
	struct cache_entry e;

	if (asked->failure) {
		policy_count(s, BROKEN);
		exchange_keep_broken(x, asked->failure);
	}
	if (!asked->is_hit || !cache_entry_read(&e, exchange_arena(x), c->kind, asked->value))
		return miss(x, s);
	put_exact(x, s, asked->value, asked->left_s);
	return hit(x, s, &e);
}

static enum verdict look_for_similar(struct exchange *x, const struct step *s)
{
	struct state *state = exchange_state(x, s);
	struct cell *cell = s->cell;

	if (!semantic(s) || !state->question.text.p)
		return miss(x, s);
	state->similar = semantic_ask(x, semantic(s), &cell->health, state->question.partition, state->question.text);
	return await(x, &state->similar->wait, compared);
}

static bool read_entry(struct exchange *x, struct str value, struct cache_entry *e)
{
	return cache_entry_read(e, exchange_arena(x), exchange_chat(x)->kind, value);
}

/* Kept when the policy let entries live longer. */
static bool is_old(const struct step *s, const struct cache_entry *e)
{
	const struct ai_cache *conf = s->conf;

	return clock_wall_ms() / 1000 - e->created_s >= conf->cacheTTL;
}

static void tell_health(const struct step *s, enum redis_failure failure)
{
	struct cell *cell = s->cell;

	if (!semantic(s) || failure == REDIS_BUSY)
		return;
	if (failure == REDIS_DONE)
		cache_part_up(&cell->health, CACHE_PART_REDIS);
	else
		cache_part_down(&cell->health, CACHE_PART_REDIS, REDIS_DOWN_REASON,
				str_of(redis_failure_text(failure)));
}

static enum verdict looked(struct exchange *x, const struct step *s)
{
	struct state *state = exchange_state(x, s);
	const struct redis_reply *reply = state->exact->reply;
	struct cache_entry e;

	tell_health(s, state->exact->failure);
	if (!reply || (reply->type == REDIS_ERROR && !str_starts(reply->text, STR("WRONGTYPE")))) {
		policy_count(s, BROKEN);
		exchange_keep_broken(x, reply ? "Redis refuses" : redis_failure_text(state->exact->failure));
		return look_for_similar(x, s);
	}
	if (reply->type == REDIS_NIL)
		return look_for_similar(x, s);
	if (reply->type != REDIS_STRING || !read_entry(x, reply->text, &e)) {
		forget_entry(x, s);
		return look_for_similar(x, s);
	}
	return is_old(s, &e) ? look_for_similar(x, s) : hit(x, s, &e);
}

static bool has_directive(const struct message *req, struct str name)
{
	struct str rest = message_join(req, STR("cache-control")), part;

	while (rest.p && str_split(&rest, ',', &part))
		if (str_equal_nocase(str_trim(part), name))
			return true;
	return false;
}

/* The client's word for this gateway; it goes no further. */
static bool takes_bypass(struct message *req)
{
	static const struct str name = STR("x-higress-skip-ai-cache");
	const struct header *h = message_find_name(req, name);
	bool is_on = h && str_equal_nocase(str_trim(h->value), STR("on"));

	if (h)
		message_remove(req, name);
	return is_on;
}

/* On its way to Redis, or there? */
static enum verdict look_again(struct exchange *x, const struct step *s)
{
	struct state *state = exchange_state(x, s);
	const struct ai_cache *conf = s->conf;
	struct str value = cache_pending_get(exchange_arena(x), state->question.key);
	const struct str words[] = { STR("GET"), state->question.key };
	struct cache_entry e;

	if (value.p && read_entry(x, value, &e) && !is_old(s, &e))
		return hit(x, s, &e);
	state->exact = redis_ask(x, &conf->redisConfig, 2, words, 1);
	return await(x, &state->exact->wait, looked);
}

static enum verdict look_up(struct exchange *x, const struct step *s)
{
	struct state *state = exchange_state(x, s);
	const struct ai_cache *conf = s->conf;
	struct cache_question *q = &state->question;

	cache_ask(q, exchange_chat(x), (enum cache_strategy)conf->cacheKeyStrategy,
		  &(struct cache_scope){ s->policy_id, s->resource_id, plan_of(s)->shares_consumers },
		  semantic(s) != NULL);
	if (has_directive(exchange_request(x), STR("no-cache")))
		return ask_anew(x, s);
	return look_again(x, s);
}

static enum verdict begin(struct exchange *x, const struct step *s)
{
	const struct ai_cache *conf = s->conf;
	struct message *req = exchange_request(x);
	bool is_bypassed = takes_bypass(req);
	struct chat *c = exchange_chat_readable(x);

	if (!c || !cache_kind_is_known(c->kind))
		return next();
	if (is_bypassed || conf->cacheKeyStrategy == CACHE_DISABLED || has_directive(req, STR("no-store")) ||
	    cache_is_stateful(c))
		return skip(x, s);
	return look_up(x, s);
}

/* ---------- answers ---------- */

static void add_status(struct exchange *x, const struct step *s, const struct chat *c)
{
	static const struct str words[] = { [CHAT_CACHE_HIT] = STR("hit"), [CHAT_CACHE_MISS] = STR("miss"),
		[CHAT_CACHE_SKIP] = STR("skip") };
	const struct state *state = exchange_state(x, s);
	struct message *res = exchange_response(x);
	struct arena *a = exchange_arena(x);

	message_set(res, STR("X-Cache-Status"), words[c->cache]);
	if (c->cache != CHAT_CACHE_HIT)
		return;
	message_set(res, STR("Age"), arena_printf(a, "%lld", (long long)state->age_s));
	if (state->similar)
		message_set(res, STR("X-Cache-Similarity"), arena_printf(a, "%.4f", state->similar->similarity));
}

/* Who waits for this answer finds it now, or never. */
static void land(struct exchange *x, const struct step *s)
{
	struct state *state = exchange_state(x, s);

	cache_flight_land(&state->flight);
}

static enum verdict answer(struct exchange *x, const struct step *s)
{
	const struct chat *c = exchange_chat(x);

	if (!c || c->cache == CHAT_CACHE_NONE)
		return next();
	add_status(x, s, c);
	if (exchange_is_upstream_response(x) && !c->is_answer_stream)
		keep_answer(x, s);
	land(x, s);
	return next();
}

/* Events: all have passed the data hooks, the last of them is not sent yet. */
static void settle(struct exchange *x, const struct step *s)
{
	const struct chat *c = exchange_chat(x);

	if (c && c->cache == CHAT_CACHE_MISS && c->is_answer_stream)
		keep_answer(x, s);
}

static void done(struct exchange *x, const struct step *s)
{
	land(x, s);
}

static enum verdict explain(struct exchange *x, const struct step *s)
{
	(void)s;
	return exchange_request(x)->method == METHOD_POST ? cannot_judge(x, "the question is in the body") : next();
}

const struct policy_class ai_cache = {
	.name = "AiCache",
	.alias = "AI cache",
	.summary = "Gives kept answers of models again for the same or similar questions.",
	.group = "AI",
	.wants = WANTS_CHAT,
	.scopes = SCOPE_ROUTES,
	.stage = STAGE_AI_CACHE,
	.response_stage = RESPONSE_AI,
	.combine = COMBINE_SPECIFIC,
	.is_enforced = true,
	.fails_open = true,
	.execute_stage = "PluginDefault",
	.execute_priority = 556,
	.fields = fields,
	.conf_size = sizeof(struct ai_cache),
	.enable_at = offsetof(struct ai_cache, enable),
	.cell_size = sizeof(struct cell),
	.dependency = "cache",
	.dependency_at = offsetof(struct cell, health.shown),
	.state_size = sizeof(struct state),
	.outcomes = { [HIT] = "hit", [MISS] = "miss", [SKIP] = "skip", [STORED] = "stored", [BROKEN] = "error",
		      [SIMILAR] = "similar" },
	.check = check,
	.attach = attach,
	.bind = bind,
	.cell_init = begin_cell,
	.cell_free = end_cell,
	.adopted = redis_users_tend,
	.request = begin,
	.response = answer,
	.settled = settle,
	.done = done,
	.explain = explain,
};
