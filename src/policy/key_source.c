#include "policy/key_source.h"
#include "core/log.h"
#include "policy/jwks.h"

/* ---------- a set at a URL ---------- */

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

static void read_answer(struct remote_news *n, const struct side_call *c, struct str url)
{
	struct problem why = { 0 };
	struct key_set *set = key_set_read(c->body, false, &why);

	(void)url;
	if (!set) {
		snprintf(n->error, sizeof n->error, "its answer is not a key set: %.160s", why.text);
		return;
	}
	n->content = set;
	n->digest = set->digest;
	n->fresh_ms = read_max_age(&c->res) * 1000;
}

static void log_fetch(struct str url, const struct remote_news *n)
{
	/* A query may hold what is nobody's business. */
	const struct str shown = { url.p, str_find(url, '?') };
	const struct key_set *set = n->content;

	if (!set)
		log_warn("keys.fetch_failed", F_STR("url", shown), F_STR("why", str_of(n->error)));
	else if (set->passed_over > 0)
		log_warn("keys.passed_over", F_STR("url", shown), F_INT("keys", set->n),
			 F_INT("passedOver", set->passed_over));
	else
		log_info("keys.fetched", F_STR("url", shown), F_INT("keys", set->n));
}

static void hold(void *set)
{
	key_set_hold(set);
}

static void drop(void *set)
{
	key_set_drop(set);
}

static const struct remote_kind key_sets = {
	.side = SIDE_KEYS,
	.accept = STR("application/jwk-set+json, application/json"),
	.reason = "the key set cannot be fetched",
	.whose = "",
	.read = read_answer, .log = log_fetch, .hold = hold, .drop = drop,
};

void key_sources_tend(struct worker *w)
{
	remote_documents_tend(w);
}

/* ---------- users ---------- */

static void open_inline(struct key_user *u, struct str text)
{
	struct problem why = { 0 };

	u->set = key_set_read(text, true, &why);
	if (!u->set)
		log_warn("keys.unusable", F_STR("why", str_of(why.text)));
	else if (u->set->passed_over > 0)
		log_warn("keys.passed_over", F_INT("keys", u->set->n), F_INT("passedOver", u->set->passed_over));
	u->version = u->set ? remote_version_new() : 0;
}

void key_user_open(struct key_user *u, struct str jwks, struct dependency *d)
{
	if (jwks_is_inline(jwks))
		open_inline(u, jwks);
	else
		remote_document_open(&u->remote, &key_sets, jwks, d);
}

void key_user_close(struct key_user *u)
{
	remote_document_close(&u->remote);
	key_set_drop(u->set);
	u->set = NULL;
}

uint64_t key_source_version(const struct key_user *u)
{
	return u->remote.document ? remote_document_version(&u->remote) : u->version;
}

/* ---------- what a request needs ---------- */

static bool has_key(struct remote_use *use, const void *content)
{
	const struct str kid = CONTAINER(use, struct key_use, remote)->kid;
	const struct key_set *set = content;

	for (unsigned i = 0; i < set->n; i++)
		if (str_equal(set->keys[i].kid, kid))
			return true;
	return !kid.p;
}

enum key_answer key_use_begin(struct key_use *u, const struct key_user *of, struct exchange *x, struct str kid)
{
	enum remote_answer answer;

	if (!of->remote.document) {
		u->set = of->set ? key_set_hold(of->set) : NULL;
		u->version = of->version;
		return u->set ? KEYS_HELD : KEYS_NONE;
	}
	u->kid = kid;
	u->remote.serves = has_key;
	answer = remote_use_begin(&u->remote, &of->remote, x);
	if (answer == REMOTE_HELD) {
		u->set = u->remote.content;
		u->version = u->remote.version;
	}
	return (enum key_answer)answer;
}

void key_use_end(struct key_use *u)
{
	key_set_drop(u->set);
	u->set = NULL;
}

struct key_set *key_source_look(const struct key_user *u)
{
	if (u->remote.document)
		return remote_document_look(&u->remote);
	return u->set ? key_set_hold(u->set) : NULL;
}
