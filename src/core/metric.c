/*
 * Cells of many series share a chunk; every thread has a page of its own in it, so series are dense and threads never
 * write the same cache line:
 *
 *      chunk   | page of slot 0 | page of slot 1 | ... | page for threads without a slot, and for metric_set |
 *      series    ─ cells ──┐      same place ─┐
 */
#include "core/metric.h"
#include <stdatomic.h>
#include "core/fault.h"
#include "core/list.h"
#include "core/map.h"
#include "core/mem.h"

enum {
	PAGE_CELLS = 4096 / sizeof(int64_t),
	LABELS_MAX = 5,
};

struct family {
	const char *name;
	enum metric_kind kind;
	const char *labels;
	const char *help;
};

static const struct family families[] = {
#define METRIC(id, name, kind, labels, help) [METRIC_##id] = { (name), (kind), (labels), (help) },
#include "core/metrics.def"
#undef METRIC
};

static const struct {
	int64_t us;
	const char *le;
} bounds[] = {
	{ 500, "0.0005" }, { 1000, "0.001" }, { 2500, "0.0025" }, { 5000, "0.005" }, { 10000, "0.01" },
	{ 25000, "0.025" }, { 50000, "0.05" }, { 100000, "0.1" }, { 250000, "0.25" }, { 500000, "0.5" },
	{ 1000000, "1" }, { 2500000, "2.5" }, { 5000000, "5" }, { 10000000, "10" }, { 30000000, "30" },
	{ 60000000, "60" },
};

enum {
	BOUNDS = sizeof(bounds) / sizeof(bounds[0]),
	CELL_SUM = BOUNDS + 1,                     /* after the buckets and the one past the last bound: microseconds */
	HISTOGRAM_CELLS = BOUNDS + 2,
};
_Static_assert((size_t)HISTOGRAM_CELLS <= (size_t)PAGE_CELLS, "a histogram fits a page");

struct series {
	struct list node;                          /* of its family, in order of birth */
	_Atomic int64_t *cells;                    /* in slot 0's page */
	enum metric_id id;
	unsigned holds;
	struct str key;                            /* in series_by_key */
	struct str labels;                         /* 'gateway="a",route="b"', escaped */
};

struct chunk {
	struct chunk *next;
	_Atomic int64_t *cells;
};

static unsigned n_slots;
static struct chunk *chunks;                       /* the first one is being filled */
static size_t filled;                              /* its cells in use */
static size_t n_chunks;
/* Cells of ended series, of one cell and of a histogram's; the first cell, in slot 0's page, leads to the next. */
static _Atomic int64_t *ended[2];
static struct list series_of[METRIC_COUNT];
static struct map series_by_key;

static _Thread_local size_t own_page;              /* index + 1; 0 = this thread has no slot */

void metric_start(unsigned threads)
{
	BUG_ON(n_slots || threads == 0);
	n_slots = threads;
	for (unsigned id = 0; id < METRIC_COUNT; id++)
		list_init(&series_of[id]);
}

void metric_stop(void)
{
	for (unsigned id = 0; n_slots && id < METRIC_COUNT; id++) {
		LIST_EACH(node, &series_of[id])
			mem_free(CONTAINER(node, struct series, node));
	}
	map_free(&series_by_key);
	while (chunks) {
		struct chunk *next = chunks->next;

		mem_free(chunks->cells);
		mem_free(chunks);
		chunks = next;
	}
	n_chunks = 0;
	ended[0] = ended[1] = NULL;
	n_slots = 0;
	own_page = 0;
}

void metric_thread(unsigned slot)
{
	BUG_ON(slot >= n_slots);
	own_page = slot + 1;
}

size_t metric_bytes(void)
{
	return n_chunks * (n_slots + 1) * PAGE_CELLS * sizeof(int64_t);
}

static size_t count_cells(enum metric_id id)
{
	return families[id].kind == METRIC_HISTOGRAM ? HISTOGRAM_CELLS : 1;
}

static void give_cells(_Atomic int64_t *cells, size_t n)
{
	_Atomic int64_t **first = &ended[n > 1];

	atomic_store_explicit(cells, (int64_t)(intptr_t)*first, memory_order_relaxed);
	*first = cells;
}

/* Used ones, zeroed again; NULL when there are none. */
static _Atomic int64_t *take_ended(size_t n)
{
	_Atomic int64_t **first = &ended[n > 1], *cells = *first;

	if (!cells)
		return NULL;
	*first = (_Atomic int64_t *)(intptr_t)atomic_load_explicit(cells, memory_order_relaxed);
	for (size_t slot = 0; slot <= n_slots; slot++)
		for (size_t i = 0; i < n; i++)
			atomic_store_explicit(cells + slot * PAGE_CELLS + i, 0, memory_order_relaxed);
	return cells;
}

static _Atomic int64_t *take_cells(size_t n)
{
	_Atomic int64_t *cells = take_ended(n);

	if (cells)
		return cells;
	if (!chunks || filled + n > PAGE_CELLS) {
		struct chunk *chunk = MEM_NEW(struct chunk);

		chunk->cells = mem_alloc_aligned(64, (n_slots + 1) * PAGE_CELLS * sizeof(*chunk->cells));
		chunk->next = chunks;
		chunks = chunk;
		n_chunks++;
		filled = 0;
	}
	filled += n;
	return chunks->cells + (filled - n);
}

static void add_escaped(struct sbuf *out, struct str value)
{
	bool is_utf8 = str_is_utf8(value);

	for (size_t i = 0; i < value.n; i++) {
		char c = value.p[i];

		if (c == '\\' || c == '"') {
			sbuf_addc(out, '\\');
			sbuf_addc(out, c);
		} else if (c == '\n') {
			SBUF_LIT(out, "\\n");
		} else {
			sbuf_addc(out, !is_utf8 && (unsigned char)c >= 0x80 ? '?' : c);
		}
	}
}

static unsigned print_labels(struct sbuf *out, const char *names, const struct str *values)
{
	struct str rest = str_of(names), name;
	unsigned n = 0;

	if (!names[0])
		return 0;
	while (str_split(&rest, ',', &name)) {
		if (n)
			sbuf_addc(out, ',');
		sbuf_add(out, name);
		SBUF_LIT(out, "=\"");
		add_escaped(out, values[n++]);
		sbuf_addc(out, '"');
	}
	return n;
}

/* One piece of memory: the series, then its key ("<id> <labels>"), of which the labels are the tail. */
static struct series *make_series(enum metric_id id, struct str key, size_t labels_at)
{
	struct series *s = mem_alloc(sizeof(*s) + key.n);
	char *bytes = (char *)(s + 1);

	memcpy(bytes, key.p, key.n);
	s->id = id;
	s->key = (struct str){ bytes, key.n };
	s->labels = (struct str){ bytes + labels_at, key.n - labels_at };
	s->cells = take_cells(count_cells(id));
	list_append(&series_of[id], &s->node);
	map_put(&series_by_key, s->key, s);
	return s;
}

struct series *metric_series(enum metric_id id, const struct str *values)
{
	struct sbuf key = { 0 };

	BUG_ON(n_slots == 0 || id >= METRIC_COUNT);
	sbuf_addf(&key, "%u ", (unsigned)id);
	size_t labels_at = key.n;

	BUG_ON(print_labels(&key, families[id].labels, values) > LABELS_MAX);
	struct series *s = map_get(&series_by_key, sbuf_str(&key));

	if (!s)
		s = make_series(id, sbuf_str(&key), labels_at);
	s->holds++;
	sbuf_free(&key);
	return s;
}

void metric_series_drop(struct series *s)
{
	BUG_ON(s->holds == 0);
	if (--s->holds > 0)
		return;
	map_remove(&series_by_key, s->key);
	list_remove(&s->node);
	give_cells(s->cells, count_cells(s->id));
	mem_free(s);
}

static void add_cell(_Atomic int64_t *cell, int64_t n)
{
	if (LIKELY(own_page)) {
		/* Nobody else writes here, so it need not be one instruction. */
		cell += (own_page - 1) * PAGE_CELLS;
		int64_t v = atomic_load_explicit(cell, memory_order_relaxed);

		atomic_store_explicit(cell, v + n, memory_order_relaxed);
	} else {
		atomic_fetch_add_explicit(cell + n_slots * (size_t)PAGE_CELLS, n, memory_order_relaxed);
	}
}

void metric_add(struct series *s, int64_t n)
{
	add_cell(s->cells, n);
}

void metric_set(struct series *s, int64_t v)
{
	BUG_ON(families[s->id].kind != METRIC_GAUGE);
	atomic_store_explicit(s->cells + n_slots * (size_t)PAGE_CELLS, v, memory_order_relaxed);
}

void metric_observe_us(struct series *s, int64_t us)
{
	unsigned bucket = 0;

	while (bucket < BOUNDS && us > bounds[bucket].us)
		bucket++;
	add_cell(s->cells + bucket, 1);
	add_cell(s->cells + CELL_SUM, us);
}

static int64_t sum_cell(const struct series *s, unsigned cell)
{
	int64_t sum = 0;

	for (size_t slot = 0; slot <= n_slots; slot++)
		sum += atomic_load_explicit(s->cells + slot * PAGE_CELLS + cell, memory_order_relaxed);
	return sum;
}

int64_t metric_value(const struct series *s)
{
	int64_t sum = 0;
	unsigned cells = families[s->id].kind == METRIC_HISTOGRAM ? BOUNDS + 1 : 1;

	for (unsigned i = 0; i < cells; i++)
		sum += sum_cell(s, i);
	return sum;
}

/* name, suffix, and the labels with `le` (when not NULL) as the last one. */
static void print_sample_name(struct sbuf *out, const struct series *s, const char *suffix, const char *le)
{
	sbuf_addf(out, "%s%s", families[s->id].name, suffix);
	if (s->labels.n || le) {
		sbuf_addc(out, '{');
		sbuf_add(out, s->labels);
		if (le)
			sbuf_addf(out, "%sle=\"%s\"", s->labels.n ? "," : "", le);
		sbuf_addc(out, '}');
	}
	sbuf_addc(out, ' ');
}

static void print_histogram(struct sbuf *out, const struct series *s)
{
	long long count = 0, sum_us = (long long)sum_cell(s, CELL_SUM);

	for (unsigned i = 0; i <= BOUNDS; i++) {
		count += (long long)sum_cell(s, i);
		print_sample_name(out, s, "_bucket", i < BOUNDS ? bounds[i].le : "+Inf");
		sbuf_addf(out, "%lld\n", count);
	}
	print_sample_name(out, s, "_sum", NULL);
	sbuf_addf(out, "%lld.%06lld\n", sum_us / 1000000, sum_us % 1000000);
	print_sample_name(out, s, "_count", NULL);
	sbuf_addf(out, "%lld\n", count);
}

static void print_head(struct sbuf *out, const struct family *f)
{
	static const char *const kinds[] = { "counter", "gauge", "histogram" };

	sbuf_addf(out, "# HELP %s ", f->name);
	for (const char *p = f->help; *p; p++) {
		if (*p == '\\' || *p == '\n')
			sbuf_add(out, *p == '\n' ? STR("\\n") : STR("\\\\"));
		else
			sbuf_addc(out, *p);
	}
	sbuf_addf(out, "\n# TYPE %s %s\n", f->name, kinds[f->kind]);
}

void metric_write(struct sbuf *out)
{
	for (unsigned id = 0; id < METRIC_COUNT; id++) {
		bool has_head = false;

		LIST_EACH(node, &series_of[id]) {
			const struct series *s = CONTAINER(node, struct series, node);

			if (!has_head)
				print_head(out, &families[id]);
			has_head = true;
			if (families[id].kind == METRIC_HISTOGRAM) {
				print_histogram(out, s);
				continue;
			}
			print_sample_name(out, s, "", NULL);
			sbuf_addf(out, "%lld\n", (long long)metric_value(s));
		}
	}
}
