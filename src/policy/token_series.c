#include "policy/token_series.h"
#include "core/map.h"
#include "core/mem.h"
#include "core/metric.h"
#include "proxy/worker.h"

struct counted {
	struct series *series;
	struct str key;
	char text[];
};

static _Thread_local struct {
	struct worker *worker;
	struct map by_key;
	struct worker_end end;
} counted;

static void forget_all(struct worker_end *e)
{
	struct map_entry *entry;

	(void)e;
	for (size_t i = 0; (entry = map_next(&counted.by_key, &i));)
		mem_free(entry->value);
	map_free(&counted.by_key);
	counted.worker = NULL;
}

/* NULL: there are too many already. */
static struct series *find(const struct str values[3], bool is_forced)
{
	struct sbuf b = { 0 };
	struct counted *c;

	for (unsigned i = 0; i < 3; i++) {
		sbuf_add(&b, values[i]);
		sbuf_addc(&b, '\0');
	}
	c = map_get(&counted.by_key, sbuf_str(&b));
	if (!c && (is_forced || counted.by_key.n < TOKEN_SERIES_MAX)) {
		c = mem_alloc(sizeof *c + b.n);
		str_put(c->text, sbuf_str(&b));
		c->key = (struct str){ c->text, b.n };
		c->series = metric_series(METRIC_TOKEN_LIMITED, values);
		map_put(&counted.by_key, c->key, c);
	}
	sbuf_free(&b);
	return c ? c->series : NULL;
}

void token_series_count(struct worker *w, struct str route, struct str consumer, struct str rule)
{
	struct str values[] = { route, consumer.n > 0 ? consumer : STR("none"), rule };
	struct series *s;

	if (!counted.worker) {
		counted.worker = w;
		worker_at_end(w, &counted.end, forget_all);
	}
	s = find(values, false);
	if (!s) {
		values[1] = STR("other");
		s = find(values, true);
	}
	metric_add(s, 1);
}
