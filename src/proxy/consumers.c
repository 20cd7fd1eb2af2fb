#include "proxy/consumers.h"
#include "core/clock.h"
#include "proxy/exchange.h"

bool place_equal(const struct place *a, const struct place *b)
{
	if (a->is_query != b->is_query)
		return false;
	if (a->is_query)
		return str_equal(a->name, b->name);
	return a->prefix_optional == b->prefix_optional && str_equal_nocase(a->name, b->name) &&
	       str_equal_nocase(a->prefix, b->prefix);
}

static struct str join(struct str a, struct str b, char out[CONSUMER_KEY_MAX])
{
	if (a.n == 0 || a.n + 1 + b.n > CONSUMER_KEY_MAX)
		return (struct str){ NULL, 0 };
	memcpy(out, a.p, a.n);
	out[a.n] = '\0';
	if (b.n)
		memcpy(out + a.n + 1, b.p, b.n);
	return (struct str){ out, a.n + 1 + b.n };
}

struct str consumer_subject_key(struct str claim, struct str value, char out[CONSUMER_KEY_MAX])
{
	return join(claim, value, out);
}

struct str consumer_rule_key(struct str consumer_id, struct str resource_id, char out[CONSUMER_KEY_MAX])
{
	return join(consumer_id, resource_id, out);
}

static const struct consumer *find(const struct pmap *m, struct str key)
{
	struct part *p = pmap_get(m, key);
	const struct consumer *found = p ? CONTAINER(p, struct consumer, part) : NULL;

	return found && found->enable ? found : NULL;
}

const struct consumer *consumers_by_key(const struct consumers *c, const uint8_t digest[CONSUMER_DIGEST])
{
	return find(c->keys, (struct str){ (const char *)digest, CONSUMER_DIGEST });
}

const struct consumer *consumers_by_user(const struct consumers *c, struct str user)
{
	return find(c->users, user);
}

const struct consumer *consumers_by_claim(const struct consumers *c, struct str claim, struct str value)
{
	char text[CONSUMER_KEY_MAX];
	struct str key = consumer_subject_key(claim, value, text);

	return key.p ? find(c->subjects, key) : NULL;
}

bool consumers_allow(const struct consumers *c, const struct consumer *who, struct str resource_id, int64_t now_ms)
{
	char text[CONSUMER_KEY_MAX];
	struct str key = consumer_rule_key(who->id, resource_id, text);
	struct part *p = key.p ? pmap_get(c->rules, key) : NULL;

	return p && CONTAINER(p, struct consumer_rule, part)->expires_ms > now_ms;
}

const struct consumers *exchange_consumers(const struct exchange *x)
{
	return x->view->snapshot->consumers;
}

bool exchange_is_authorized(const struct exchange *x, const struct consumer *who)
{
	const struct consumers *c = exchange_consumers(x);
	const struct route *r = x->route;
	int64_t now_ms = clock_wall_ms();

	if (!r)
		return false;
	return consumers_allow(c, who, r->id, now_ms) ||
	       (r->api_id.n > 0 && consumers_allow(c, who, r->api_id, now_ms));
}
